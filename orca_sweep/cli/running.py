"""Running a plan, for ``launch`` and ``resume``: progress on the terminal, then tables, figures and the outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
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
from orca_sweep.cli.documents import print_document, print_line
from orca_sweep.cli.failures import end_at_once
from orca_sweep.cli.paths import shorten_path

if TYPE_CHECKING:
    from rich.console import Console

    from orca_sweep.api.progress import Watch
    from orca_sweep.space import Plan
    from orca_sweep.sweep import Outcome

NO_MEMBERS: Mapping[str, Any] = {}
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; default: start a local Ray")]
DashboardHost = Annotated[
    str,
    typer.Option(
        envvar="ORCA_SWEEP_DASHBOARD_HOST",
        help="address on which the local Ray's dashboard listens, or 'none'; 127.0.0.1: this machine only",
    ),
]


@dataclass(frozen=True, kw_only=True)
class JsonOutput:
    """What a launch prints as JSON: the document on its outcome and, with ``events``, a line per event before it."""

    command: str
    events: bool = False

    def print_end(self, document: Mapping[str, Any]) -> None:
        """Prints the document."""
        (print_line if self.events else print_document)(self.command, document)

    def print_event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Prints an event, if asked. Whoever needs the config of a trial finds it in the plan."""
        if not self.events:
            return
        rest = {name: value for name, value in facts.items() if name not in ("trial", "signs")}
        if "signs" in facts:
            rest["signs"] = [sign for sign in facts["signs"].values() if sign]
        print_line(self.command, {"event": event, **rest})


def choose_output(command: str, *, as_json: bool, as_json_lines: bool) -> JsonOutput | None:
    """Returns what to print as JSON; None for text alone."""
    return JsonOutput(command=command, events=as_json_lines) if as_json or as_json_lines else None


def _watch_both(shown: "Watch", output: JsonOutput | None, space: str | None = None) -> "Watch":
    """Returns a watch that shows events to a person and, if asked, prints them as JSON."""
    if output is None or not output.events:
        return shown

    def watch(event: str, facts: Mapping[str, Any]) -> None:
        shown(event, facts)
        output.print_event(event, facts if space is None else {"space": space, **facts})

    return watch


def run_command(plan: "Plan", destination: Destination, output: JsonOutput | None = None) -> None:
    """Runs a plan and prints how it goes and how it ended; ends the command with the outcome's exit code.

    Args:
        plan: what runs.
        destination: where it runs and writes.
        output: what is printed as JSON; None for text alone.

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
                _print_outcome(folder, console, outcome, output)
            finally:
                end_at_once(1)

        outcome = launch_sweep(plan, setup, _watch_both(progress, output), print_and_end)
    _print_outcome(folder, console, outcome, output)


def run_suite_command(run: "SuiteRun", output: JsonOutput | None = None) -> None:
    """Runs the plans of a suite, as `run_command` runs one.

    Args:
        run: what runs, and where.
        output: what is printed as JSON; None for text alone.

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
                _print_outcome(run.folder, console, outcome, output)
            finally:
                end_at_once(1)

        named = zip(progress.watches, run.runs, strict=True)
        watches = [_watch_both(shown, output, each.plan.space.name) for shown, each in named]
        ended = launch_suite(run, watches, print_and_end)
    _print_outcome(run.folder, console, ended.total, output, members=ended.members)


def _print_outcome(
    folder: Path,
    console: "Console",
    outcome: "Outcome",
    output: JsonOutput | None,
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
    if output is not None:
        facts = {name: value for name, value in vars(outcome).items() if name != "ran"}
        counts = {"n_run": outcome.n_run, "n_left": outcome.n_left, "exit_code": outcome.exit_code}
        notes = (*document["notes"], *outcome.notes)
        output.print_end({**document, **facts, **counts, "members": _describe_members(members), "notes": notes})
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
