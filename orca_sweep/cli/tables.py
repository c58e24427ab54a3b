"""``orca-sweep collect`` and ``status``: from sweep folders to tables, and how far a sweep is."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from orca_sweep.errors import InputError
from orca_sweep.results import FINAL_STATUSES, Results, SweepStatus, read_results, sweep_status
from orca_sweep.results import collect as make_tables

MAX_FAILURES_SHOWN = 10
WELL = ("ok", "pruned")


@contextmanager
def open_tables(folder: Path, is_only_read: bool) -> Iterator[tuple[Path, Results]]:
    """Yields the folder of a sweep's or a user's tables, and what they hold; prints what is to be said of them.

    A sweep's tables are made anew, elsewhere if nothing may be written into its folder.

    Raises:
        InputError: if the folder is neither a sweep's nor one of tables.
    """
    if os.path.lexists(folder / "sweep.json"):
        tables = folder / "tables"
        if is_only_read:
            with TemporaryDirectory(prefix="orca-sweep-tables-") as name:
                yield Path(name), _print_notes(make_tables([folder], Path(name), earlier=tables))
        else:
            yield tables, _print_notes(make_tables([folder], tables))
    elif os.path.lexists(folder / "trials.parquet"):
        yield folder, _print_notes(read_results(folder))
    else:
        raise InputError(
            f"{folder}: neither a sweep (no sweep.json) nor tables (no trials.parquet). Name a folder that 'orca-sweep"
            " launch' or 'orca-sweep collect' wrote."
        )


def _print_notes(results: Results) -> Results:
    """Prints the notes, and returns the results without them: figures do not repeat them."""
    for note in results.notes:
        print(note, flush=True)
    return replace(results, notes=())


def collect(
    sweeps: Annotated[list[Path], typer.Argument(help="sweep folders, or folders of tables", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="default: tables/ in the only sweep folder")] = None,
) -> None:
    """Makes trials, epochs and stages.parquet from sweep folders, also while they run, and from tables made elsewhere."""
    if out is None and len(sweeps) > 1:
        raise InputError("collect: several sweep folders need a place for the merged tables. Give one with -o.")
    target = out or sweeps[0] / "tables"
    results = make_tables(sweeps, target)
    for note in results.notes:
        print(note)
    counts = ", ".join(f"{n} {status}" for status, n in results.trials["status"].value_counts().items())
    print(f"{target / 'trials.parquet'}: {len(results.trials)} trials ({counts})")
    print(f"{target / 'epochs.parquet'}: {len(results.epochs)} epochs")
    print(f"{target / 'stages.parquet'}: {0 if results.stages is None else len(results.stages)} stages")
    if results.n_sealed:
        print(f"test metrics of {results.n_sealed} trials are sealed (orca-sweep reveal SWEEP_FOLDER shows them)")


def status(
    sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
    check: Annotated[bool, typer.Option("--check", help="exit code 1 unless all trials have ended well")] = False,
) -> None:
    """Says how far a sweep is and what failed, from its folder alone: while it runs, and after it died."""
    found = sweep_status(sweep)
    _print_json(found) if as_json else _print_status(found, sweep)
    if check and (found.n_later or set(found.statuses) - set(WELL)):
        raise typer.Exit(1)


def _print_json(found: SweepStatus) -> None:
    print(json.dumps(asdict(found), indent=2))


def _print_status(found: SweepStatus, sweep: Path) -> None:
    states = ", ".join(f"{n} {state}" for state, n in sorted(found.statuses.items()))
    alive = {
        True: "running",
        False: "no launch is running",
        None: "whether a launch is running cannot be told from here",
    }
    later = f" (up to {found.n_later} more to be planned from their results)" if found.n_later else ""
    print(f"{found.name}: {found.n_planned} trials{later}: {states}; {alive[found.is_running]}")
    if found.trials_per_hour:
        eta = f", {found.eta_s / 60:.0f} min to go" if found.eta_s else ""
        print(f"{found.trials_per_hour:.0f} trials an hour in the last launch{eta}")
    if found.cpu_hours is not None and found.gpu_hours is not None:
        print(f"{found.cpu_hours:.2f} CPU-hours and {found.gpu_hours:.2f} GPU-hours in ended trials")
    if found.started:
        print(f"begun: {', '.join(found.started[:MAX_FAILURES_SHOWN])}")
    for failure in found.failures[:MAX_FAILURES_SHOWN]:
        last = f" [{failure.last_line}]" if failure.last_line and failure.last_line not in failure.error else ""
        print(f"{failure.trial_id} {failure.status}: {failure.error.splitlines()[0] if failure.error else ''}{last}")
    if len(found.failures) > MAX_FAILURES_SHOWN:
        print(f"... and {len(found.failures) - MAX_FAILURES_SHOWN} more that are not ok (all with --json)")
    if found.unplanned:
        print(found.unplanned)
    if set(found.statuses) - set(FINAL_STATUSES) and not found.is_running:
        print(f"What is missing or failed runs with: orca-sweep resume {shlex.quote(str(sweep))}")
