"""Running a plan, for ``launch`` and ``resume``: progress on the terminal, then tables, figures and the outcome."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.api.finishing import finish_sweep
from orca_sweep.api.launching import (
    RESUME,
    Destination,
    convert_tasks,
    describe_launch,
    make_setup,
    write_outcome,
    write_resumption,
)
from orca_sweep.api.suite_launching import SuiteRun, describe_suite_launch, launch_suite
from orca_sweep.cli.data import convert_task
from orca_sweep.cli.failures import end_at_once
from orca_sweep.cli.paths import shorten_path

if TYPE_CHECKING:
    from rich.console import Console

    from orca_sweep.space import Plan
    from orca_sweep.sweep import Outcome

NO_MEMBERS: Mapping[str, Any] = {}
PrintEnd = Callable[[Mapping[str, Any]], None]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; default: start a local Ray")]
DashboardHost = Annotated[
    str,
    typer.Option(
        envvar="ORCA_SWEEP_DASHBOARD_HOST",
        help="address on which the local Ray's dashboard listens, or 'none'; 127.0.0.1: this machine only",
    ),
]


def run_command(plan: "Plan", destination: Destination, print_end: PrintEnd | None = None) -> None:
    """Runs a plan and prints how it goes and how it ended; ends the command with the outcome's exit code.

    Args:
        plan: what runs.
        destination: where it runs and writes.
        print_end: prints the document on the outcome; None without JSON.

    Raises:
        InputError: if the address or the dashboard's host cannot be right, or the sweep refuses to start.
    """
    folder, setup = destination.folder, make_setup(destination)

    from orca_sweep.cli.progress import Progress
    from orca_sweep.cli.terminal import open_console, print_text
    from orca_sweep.sweep import launch as launch_sweep

    console = open_console()
    for line in describe_launch(plan, folder):
        print_text(console, line)
    convert_tasks(plan, destination.data_root, convert_task)
    with Progress(console, plan) as progress:

        def print_and_end(outcome: "Outcome") -> None:
            try:
                progress.live.stop()
                _print_outcome(folder, console, outcome, print_end)
            finally:
                end_at_once(1)

        outcome = launch_sweep(plan, setup, progress, print_and_end)
    _print_outcome(folder, console, outcome, print_end)


def run_suite_command(run: "SuiteRun", print_end: PrintEnd | None = None) -> None:
    """Runs the plans of a suite, as `run_command` runs one.

    Args:
        run: what runs, and where.
        print_end: prints the document on the outcome; None without JSON.

    Raises:
        InputError: as `run_command`.
    """
    from orca_sweep.cli.progress import SuiteProgress
    from orca_sweep.cli.terminal import open_console, print_text

    console = open_console()
    for line in describe_suite_launch(run):
        print_text(console, line)
    for each in run.runs:
        convert_tasks(each.plan, each.destination.data_root, convert_task)
    with SuiteProgress(console, [each.plan for each in run.runs]) as progress:

        def print_and_end(outcome: "Outcome") -> None:
            try:
                progress.live.stop()
                _print_outcome(run.folder, console, outcome, print_end)
            finally:
                end_at_once(1)

        ended = launch_suite(run, progress.watches, print_and_end)
    _print_outcome(run.folder, console, ended.total, print_end, members=ended.members)


def _print_outcome(
    folder: Path,
    console: "Console",
    outcome: "Outcome",
    print_end: PrintEnd | None,
    *,
    members: Mapping[str, "Outcome"] = NO_MEMBERS,
) -> None:
    """Makes the tables, prints how the sweep or suite ended, and ends the command."""
    from orca_sweep.cli.summary import summarise_sweep
    from orca_sweep.cli.terminal import print_command, print_text

    document = summarise_sweep(folder, finish_sweep(folder), console)
    for line in write_outcome(outcome):
        print_text(console, line)
    if outcome.n_left:
        print_command(console, RESUME, write_resumption(shorten_path(folder)))
    if print_end is not None:
        facts = {name: value for name, value in vars(outcome).items() if name != "ran"}
        counts = {"n_run": outcome.n_run, "n_left": outcome.n_left, "exit_code": outcome.exit_code}
        notes = (*document["notes"], *outcome.notes)
        print_end({**document, **facts, **counts, "members": _describe_members(members), "notes": notes})
    if outcome.ray_is_lost:
        end_at_once(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)


def _describe_members(members: Mapping[str, "Outcome"]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "n_planned": outcome.n_planned,
            "n_run": outcome.n_run,
            "n_left": outcome.n_left,
            "statuses": outcome.statuses,
        }
        for name, outcome in members.items()
    ]
