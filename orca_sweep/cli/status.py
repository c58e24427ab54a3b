"""``orca-sweep status``: how far a sweep is."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.cli.documents import AsJson, print_document

if TYPE_CHECKING:
    from orca_sweep.results import SweepStatus

MAX_FAILURES_SHOWN = 10
GOOD_STATUSES = {"ok", "pruned"}


def status(
    sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)],
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="exit code 1 unless all trials have ended well")] = False,
) -> None:
    """Show how far a sweep is and what failed.

    Reads only the sweep's folder: works while it runs, and after it died.
    """
    from orca_sweep.api.sweeps import Sweep
    from orca_sweep.results import FINAL_STATUSES

    state = Sweep.open(sweep).status()
    if as_json:
        print_document("status", vars(state))
    else:
        from orca_sweep.cli.terminal import open_console, print_command, print_text

        console = open_console()
        for line in _write_status(state):
            print_text(console, line)
        if state.statuses.keys() - set(FINAL_STATUSES) and not state.is_running:
            print_command(
                console, "To run the missing and failed trials:", f"orca-sweep resume {shlex.quote(str(sweep))}"
            )
    if check and (state.n_later or state.statuses.keys() - GOOD_STATUSES):
        raise typer.Exit(1)


def _write_status(state: "SweepStatus") -> Iterator[str]:
    from orca_sweep.results import ACTIVITIES

    counts = ", ".join(f"{n} {status}" for status, n in sorted(state.statuses.items()))
    later = f" (up to {state.n_later} more, planned from their results)" if state.n_later else ""
    yield f"{state.name}: {state.n_planned} trials{later}: {counts}; {ACTIVITIES[state.is_running]}"
    if state.trials_per_hour:
        eta = f", about {state.eta_s / 60:.0f} min to go" if state.eta_s else ""
        yield f"{state.trials_per_hour:.0f} trials per hour in the last launch{eta}"
    if state.cpu_hours is not None and state.gpu_hours is not None:
        yield f"{state.cpu_hours:.2f} CPU-hours and {state.gpu_hours:.2f} GPU-hours in ended trials"
    if state.started:
        yield f"started: {'; '.join(state.started_names[:MAX_FAILURES_SHOWN])}"
    for failure in state.failures[:MAX_FAILURES_SHOWN]:
        last = f" [{failure.last_line}]" if failure.last_line and failure.last_line not in failure.error else ""
        error = failure.error.splitlines()[0] if failure.error else ""
        yield f"{failure.trial_id} {failure.status}, {failure.name}: {error}{last}"
    if len(state.failures) > MAX_FAILURES_SHOWN:
        yield f"... and {len(state.failures) - MAX_FAILURES_SHOWN} more that are not ok (all with --json)"
    if state.unplanned:
        yield state.unplanned
