"""Running a plan, for ``launch`` and ``resume``: progress on the terminal, then tables, figures and the outcome."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.cli.clusters import use_ray_token
from orca_sweep.cli.data import convert_task
from orca_sweep.cli.failures import end_at_once
from orca_sweep.cli.paths import shorten_path
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from orca_sweep.space import Plan
    from orca_sweep.sweep import Outcome

PrintEnd = Callable[[Mapping[str, Any]], None]
LOOPBACK = "127.0.0.1"
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; default: start a local Ray")]
DashboardHost = Annotated[
    str,
    typer.Option(
        envvar="ORCA_SWEEP_DASHBOARD_HOST",
        help="address on which the local Ray's dashboard listens, or 'none'; 127.0.0.1: this machine only",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a plan runs and writes, as the command line says it."""

    folder: Path
    store: str
    data_root: Path
    address: str | None
    """None: ``RAY_ADDRESS`` if it is set, else a local Ray."""
    dashboard_host: str
    """'none' for no dashboard."""


def run_plan(plan: "Plan", destination: Destination, print_end: PrintEnd | None = None) -> None:
    """Runs a plan and prints how it goes and how it ended; ends the command with the outcome's exit code.

    Args:
        plan: what runs.
        destination: where it runs and writes.
        print_end: prints the document on the outcome; None without JSON.

    Raises:
        InputError: if the address or the dashboard's host cannot be right, or the sweep refuses to start.
    """
    address, folder = _choose_address(destination), destination.folder

    from orca_sweep.cli.progress import Progress
    from orca_sweep.cli.terminal import open_console, print_text
    from orca_sweep.results import describe_changes
    from orca_sweep.sweep import Setup
    from orca_sweep.sweep import launch as launch_sweep
    from orca_sweep.trial import describe_inputs, describe_proxies, resolve_configs

    console = open_console()
    cells = resolve_configs(plan.cells)
    lines = (*describe_changes(folder, plan), *describe_proxies(cells, plan.names), *describe_inputs(cells))
    for line in lines:
        print_text(console, line)
    _convert_tasks(plan, destination.data_root)
    setup = Setup(
        out=folder,
        store=destination.store,
        data_root=destination.data_root,
        address=address,
        dashboard_host=None if destination.dashboard_host == "none" else destination.dashboard_host,
    )
    with Progress(console, plan) as progress:

        def print_and_end(outcome: "Outcome") -> None:
            try:
                progress.live.stop()
                _print_outcome(folder, console, outcome, print_end)
            finally:
                end_at_once(1)

        outcome = launch_sweep(plan, setup, progress, print_and_end)
    _print_outcome(folder, console, outcome, print_end)


def _choose_address(destination: Destination) -> str:
    """Returns the address of the cluster to join, or 'local'; prepares Ray's token for a cluster."""
    asked, host = destination.address, destination.dashboard_host
    if asked is not None and not asked.strip():
        raise InputError(f"--address {asked!r}: empty. Give HOST:PORT of a cluster's head, or leave it out.")
    address = asked or os.environ.get("RAY_ADDRESS", "").strip() or "local"
    if address != "local":
        if host not in (LOOPBACK, "none"):
            raise InputError(f"--dashboard-host {host}: {address} is a running cluster, which has its own dashboard.")
        use_ray_token()
    return address


def _convert_tasks(plan: "Plan", root: Path) -> None:
    """Converts what can be converted here, with a progress bar; the sweep itself reports what is missing."""
    from orca_sweep.tasks import explain_unavailable
    from orca_sweep.trial import resolve_configs

    tasks = {trial.config.task: trial.task for trial in resolve_configs(plan.cells)}
    for task in tasks.values():
        if task.convert is not None and not explain_unavailable(task, root):
            convert_task(task, root)


def _print_outcome(folder: Path, console: "Console", outcome: "Outcome", print_end: PrintEnd | None) -> None:
    """Makes the tables, prints how the sweep ended, and ends the command."""
    from orca_sweep.cli.summary import summarise_sweep
    from orca_sweep.cli.terminal import print_command, print_text

    document = summarise_sweep(folder, console)
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(outcome.statuses.items()))
    time_s = f"{outcome.wall_time_s:.0f} s"
    print_text(console, f"ran {outcome.n_run} of {outcome.n_planned} trials in {time_s}; all trials: {statuses}")
    for note in outcome.notes:
        print_text(console, f"note: {note}")
    if outcome.n_left:
        command = f"orca-sweep resume {shlex.quote(shorten_path(folder))}"
        print_command(console, "To run the missing and failed trials:", command)
    if print_end is not None:
        ending = {"n_left": outcome.n_left, "exit_code": outcome.exit_code}
        print_end({**document, **vars(outcome), **ending, "notes": (*document["notes"], *outcome.notes)})
    if outcome.ray_is_lost:
        end_at_once(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)
