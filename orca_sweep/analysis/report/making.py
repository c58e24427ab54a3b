"""Makes the page of a report from tables, and writes its file."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import claims, flattery, seed_noise
from orca_sweep.analysis.answer_record import lay_out_claims
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.report.pictures import Member, draw, draw_members
from orca_sweep.analysis.report.record import Additions, Source, compute
from orca_sweep.analysis.report.rendering import render_page
from orca_sweep.analysis.writing import Table, check_replaceable, replace_whole
from orca_sweep.record_files import read_regular_file
from orca_sweep.results import Results

GENERATOR = b'<meta name="generator" content="orca-sweep report">'
"""The mark of an earlier report, the only kind of file that a report replaces."""
HEAD_BYTES = 1000
READ_EPOCHS = ("trial_id", "stage", "epoch", "val_metric", "objective", "n_steps", "lr_integral")
"""The columns of the epochs table that a page is made from; figures copy the table, and would copy the others too."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of a report."""

    base: Sequence[str] = ()
    margin: Sequence[str] = ()
    metric: str | None = None
    level: float = 0.95
    complete_pairs_only: bool = False
    figures: Sequence[str] | None = None
    """Names of the figures to draw; None for all that the tables have data for."""
    made_at: str = ""
    suite: str = ""
    """The name of the suite that the tables are of, for the head of the page."""


def make_page(results: Results, asked: Asked, sources: Sequence[Source] = ()) -> str:
    """Returns the page; equal tables and equal options give the same text.

    Raises:
        InputError: for names that the tables do not have, and for tables without trials.
    """
    return "".join(make_page_parts(results, asked, sources))


def make_page_parts(
    results: Results, asked: Asked, sources: Sequence[Source] = (), members: Sequence[Member] = ()
) -> Iterator[str]:
    """Yields the page of ``make_page`` in parts, for ``write_page``: the whole text of a large sweep takes much memory.

    Of a suite, ``members`` are its spaces: the figures of the study are drawn of each alone.

    Raises:
        InputError: as ``make_page``, before the first part.

    Cost: 10,000 trials take about 10 CPU seconds and 400 MB.
    """
    results = replace(results, metric=asked.metric or results.metric, remembered={})
    results = leave_out_smoke_note(keep_read_columns(results))
    comparable = compared(results, asked.base)
    # The report has the notes.
    without_notes = replace(comparable, notes=()) if comparable.notes else comparable
    additions = _make_additions(results, without_notes, asked, tuple(sources))
    report = compute(
        results,
        asked.base,
        asked.margin,
        level=asked.level,
        complete_pairs_only=asked.complete_pairs_only,
        additions=additions,
    )
    if not members:
        return render_page(report, draw(comparable, report.effects, asked.figures))
    pictures = (*draw(comparable, report.effects, ()), *draw_members(members, asked.figures))
    return render_page(report, pictures)


def keep_read_columns(results: Results) -> Results:
    """Returns the tables without the columns of epochs that no page shows; keep nothing else to free their memory."""
    read = [name for name in READ_EPOCHS if name in results.epochs]
    return results if len(read) == len(results.epochs.columns) else replace(results, epochs=results.epochs[read])


def leave_out_smoke_note(results: Results) -> Results:
    """Returns the tables without the note of a smoke sweep: the head of the page has it."""
    notes = tuple(note for note in results.notes if note != results.smoke_warning)
    return results if len(notes) == len(results.notes) else replace(results, notes=notes)


def _make_additions(results: Results, comparable: Results, asked: Asked, sources: tuple[Source, ...]) -> Additions:
    options = claims.Options(
        margin=asked.margin,
        metric=asked.metric,
        level=asked.level,
        complete_pairs_only=asked.complete_pairs_only,
    )
    findings = claims.compute(comparable, options)
    is_open = not results.n_sealed and results.trials.get(flattery.TEST, pd.Series(dtype=float)).notna().any()
    return Additions(
        sources=sources,
        made_at=asked.made_at,
        suite=asked.suite,
        answer=lay_out_claims(findings, comparable),
        claims=claims.build_tables(findings),
        flattery=flattery.build_tables(flattery.compute(comparable, asked.level)) if is_open else (),
        noise=_build_noise_tables(results, asked),
    )


def _build_noise_tables(results: Results, asked: Asked) -> tuple[Table, ...]:
    if (results.trials["role"] == "aa").all():
        return ()  # an A/A cell without its reference shows no noise
    return seed_noise.build_source_tables(seed_noise.compute(results, asked.base, level=asked.level))


def list_sources(folder: Path, results: Results) -> list[Source]:
    """Returns the table files in a folder with their row counts and hashes, for the head of the page."""
    frames = {"trials": results.trials, "epochs": results.epochs, "stages": results.stages}
    files = ((folder / f"{name}.parquet", frame) for name, frame in frames.items() if frame is not None)
    return [
        Source(name=path.name, n_rows=len(frame), sha256=_hash_file(path)) for path, frame in files if path.is_file()
    ]


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_page_path(path: Path) -> None:
    """Refuses to replace a file that is not a report.

    Raises:
        InputError: with its path.
    """
    check_replaceable([path] if _is_in_the_way(path) else [])


def _is_in_the_way(path: Path) -> bool:
    try:
        content = read_regular_file(path)
        return content is not None and GENERATOR not in content[:HEAD_BYTES]
    except NotADirectoryError:
        return False  # writing reports it
    except OSError:  # a folder, a pipe, a broken link, or unreadable
        return True


def write_page(path: Path, text: str | Iterable[str]) -> int:
    """Writes the page completely or not at all, and returns the number of bytes.

    Raises:
        OSError: if the system refuses; an earlier file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines([text] if isinstance(text, str) else text)
        return file.tell()
