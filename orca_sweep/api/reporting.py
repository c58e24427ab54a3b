"""The report of a sweep, or of tables."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orca_sweep.analysis.catalogue import choose_figures, find_figures
from orca_sweep.errors import InputError, Problem, StorageError, refuse_argument
from orca_sweep.registry import hint


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report shows."""

    base: Sequence[str] = ()
    """Levels of the base cell, each 'factor=level'."""
    margin: Sequence[str] = ()
    """'0.01' for all tasks, 'task=0.01' for one."""
    metric: str | None = None
    level: float = 0.95
    complete_pairs: bool = False
    figures: Sequence[str] | None = None
    """Names of figures; None for those that suit the sweep."""
    made_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A report that was written."""

    path: Path
    n_bytes: int
    figures: tuple[str, ...]
    notes: tuple[str, ...]
    """On the tables, such as a damaged record."""


def write_report(
    folder: Path, path: Path | None, options: ReportOptions, say: Callable[[str], object] = lambda note: None
) -> Written:
    """Writes one HTML page about a sweep or tables.

    Args:
        folder: of a sweep, or of tables.
        path: the file; None for report.html in the folder, whose tables are then made again.
        options: what the page shows.
        say: receives each note on the tables, such as a damaged record.

    Raises:
        InputError: for names that do not exist, or if something else is at the path.
        StorageError: if the system refuses to write.
    """
    target = path or folder / "report.html"
    if target.is_dir():
        raise refuse_argument("out", target, "a folder.", "Name the HTML file.")
    _check_figures(options.figures or ())

    from orca_sweep.analysis.report import (
        Asked,
        Member,
        check_page_path,
        keep_read_columns,
        list_sources,
        make_page_parts,
        write_page,
    )
    from orca_sweep.results import open_tables, read_results
    from orca_sweep.space.suites import list_sweep_folders, read_suite

    suite = read_suite(folder)
    check_page_path(target)
    with open_tables(folder, is_only_read=path is not None) as (tables, results):
        for note in results.notes:
            say(note)
        asked = Asked(
            base=options.base,
            margin=options.margin,
            metric=options.metric,
            level=options.level,
            complete_pairs_only=options.complete_pairs,
            figures=options.figures or (None if suite else choose_figures(results)),
            made_at=options.made_at,
            suite=suite.name if suite else "",
        )
        notes, sources = results.notes, list_sources(tables, results)
        results = keep_read_columns(replace(results, notes=()))
        members = [
            Member(name=member.name, results=keep_read_columns(replace(read_results(member), notes=())))
            for member in (list_sweep_folders(folder).folders if suite else ())
        ]
        parts = make_page_parts(results, asked, sources, members)
    with explain_refusals(target):
        n_bytes = write_page(target, parts)
    return Written(path=target, n_bytes=n_bytes, figures=tuple(asked.figures or ()), notes=notes)


def _check_figures(names: Sequence[str]) -> None:
    known = [figure.name for figure in find_figures()]
    unknown = [name for name in names if name not in known]
    if unknown:
        rules = {name: f"there is no such figure. {hint(name, known)}" for name in unknown}
        raise InputError([Problem(field="figures", value=name, rule=rules[name], is_argument=True) for name in unknown])


@contextmanager
def explain_refusals(path: Path) -> Iterator[None]:
    """Turns a refusal of the system to write at a path into an error with exit code 1.

    Raises:
        StorageError: with the path and the system's reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{error.filename or path}: {reason}. Nothing was left half-written.") from None
