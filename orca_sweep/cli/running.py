"""Running a plan, for ``launch`` and ``resume``: progress on the terminal, then tables, figures and the outcome."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from orca_sweep.api.launching import Destination, convert_tasks, describe_launch, make_setup, write_outcome
from orca_sweep.cli.data import convert_task
from orca_sweep.cli.failures import end_at_once
from orca_sweep.cli.paths import shorten_path
from orca_sweep.cli.progress import Progress
from orca_sweep.cli.summary import summarise_sweep
from orca_sweep.cli.terminal import open_console
from orca_sweep.space import Plan

if TYPE_CHECKING:
    from orca_sweep.sweep import Outcome

Address = Annotated[str | None, typer.Option(help="Ray cluster to join; default: start a local Ray")]
DashboardHost = Annotated[
    str,
    typer.Option(
        envvar="ORCA_SWEEP_DASHBOARD_HOST",
        help="address on which the local Ray's dashboard listens, or 'none'; 127.0.0.1: this machine only",
    ),
]


def run_command(plan: Plan, destination: Destination) -> None:
    """Runs a plan and prints how it goes and how it ended; ends the command with the outcome's exit code.

    Raises:
        InputError: if the address or the dashboard's host cannot be right, or the sweep refuses to start.
    """
    console, folder, setup = open_console(), destination.folder, make_setup(destination)

    from orca_sweep.sweep import launch as launch_sweep

    for line in describe_launch(plan, folder):
        console.print(line, soft_wrap=True)
    convert_tasks(plan, destination.data_root, convert_task)
    with Progress(console, plan) as progress:

        def print_and_end(outcome: "Outcome") -> None:
            try:
                progress.live.stop()
                _print_outcome(folder, console, outcome)
            finally:
                end_at_once(1)

        outcome = launch_sweep(plan, setup, progress, print_and_end)
    _print_outcome(folder, console, outcome)


def _print_outcome(folder: Path, console: Console, outcome: "Outcome") -> None:
    """Makes the tables, prints how the sweep ended, and ends the command."""
    summarise_sweep(folder, console)
    for line in write_outcome(outcome, shorten_path(folder)):
        console.print(line, soft_wrap=True)
    if outcome.ray_is_lost:
        end_at_once(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)
