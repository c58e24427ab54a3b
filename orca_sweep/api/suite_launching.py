"""Running the plans of a suite in this process, for a launch from Python and from the command line."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.api.launching import (
    Run,
    convert_files,
    convert_tasks,
    describe_launch,
    hold_launch,
    make_setup,
    raise_end,
    read_resumed,
    say_end,
)
from orca_sweep.api.paths import real_path
from orca_sweep.api.progress import Progress, Watch, choose_watches
from orca_sweep.errors import InputError, Problem

if TYPE_CHECKING:
    from orca_sweep.space import Plan
    from orca_sweep.space.suites import SuiteManifest
    from orca_sweep.sweep import Outcome


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """The plans of a suite, and where they run and write."""

    folder: Path
    manifest: "SuiteManifest"
    runs: tuple[Run, ...]
    """Of the members, in the manifest's order."""


@dataclass(frozen=True, kw_only=True)
class SuiteOutcome:
    """How the launch of a suite ended."""

    total: "Outcome"
    """Trials that several members have count once."""
    members: Mapping[str, "Outcome"]
    """By the name of the member."""


def read_resumed_suite(folder: Path, address: str | None, dashboard_host: str) -> SuiteRun | None:
    """Returns the plans that a suite was launched with; None if the folder holds no suite.

    Args:
        folder: the suite's folder.
        address: as of a `Destination`, as is ``dashboard_host``.
        dashboard_host: where a local Ray's dashboard listens.

    Raises:
        InputError: if a member has no plan, or a file of its data or code has changed; with all members' problems.
    """
    from orca_sweep.space.suites import list_sweep_folders, read_suite

    folder = real_path(folder)
    manifest = read_suite(folder)
    if manifest is None:
        return None
    listed = list_sweep_folders(folder)
    if listed.absent:
        raise InputError(list(listed.notes))
    runs: list[Run] = []
    problems: list[Problem] = []
    for member in listed.folders:
        try:
            runs.append(read_resumed(member, address, dashboard_host))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return SuiteRun(folder=folder, manifest=manifest, runs=tuple(runs))


def join_texts(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns texts on the members of a suite, each once, after the names of its spaces.

    Args:
        texts: by the name of the member.
    """
    from orca_sweep.space.statements import Statement, join_spaces

    statements = {name: [Statement(text=text) for text in of_member] for name, of_member in texts.items()}
    return join_spaces(statements, dict.fromkeys(texts, ()))


def describe_suite_launch(run: SuiteRun) -> list[str]:
    """Returns what a launch says before it starts, as `describe_launch` does."""
    texts = {each.plan.space.name: describe_launch(each.plan, each.destination.folder) for each in run.runs}
    return [*join_texts(texts), *describe_former_members(run.folder, run.manifest, [each.plan for each in run.runs])]


def describe_former_members(folder: Path, manifest: "SuiteManifest", plans: Sequence["Plan"]) -> list[str]:
    """Returns what sweeps in the folder of a suite have that are none of its members: trials that members would run again.

    Args:
        folder: the suite's; it need not exist.
        manifest: with the members that the suite will have.
        plans: of the members.
    """
    from orca_sweep.results import FINAL_STATUSES, read_row
    from orca_sweep.space.suites import list_former_members

    def has_ended(name: str, trial_id: str) -> bool:
        row = read_row(folder / name, trial_id)
        return row is not None and row["status"] in FINAL_STATUSES

    former = list_former_members(folder, manifest)
    planned = dict.fromkeys(trial.trial_id for plan in plans for trial in plan.trials) if former else {}
    left = [t for t in planned if not any(has_ended(name, t) for name in manifest.members)]
    texts = []
    for name in former:
        n = sum(has_ended(name, trial_id) for trial_id in left)
        if n:
            remedy = (
                f"If one of the spaces is this one under a new name, give it the old one with the key 'name': {name}."
            )
            texts.append(
                f"{folder / name}: no longer in the suite, though {n} of the trials to run have ended there. {remedy}"
            )
    return texts


def run_suite(run: SuiteRun, progress: Progress) -> None:
    """Runs the trials that the folder of a suite lacks, then makes its tables and figures.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray is gone. Tables and figures are made of what has ended.
        StorageError: if the system refuses to write.
        KeyboardInterrupt: if the launch was interrupted. Tables and figures are made of what has ended.
        Exception: that of a function given as ``progress``, once the launch has ended.
    """
    with hold_launch():
        watches, watch, say = choose_watches(progress, [each.plan for each in run.runs])
        for line in describe_suite_launch(run):
            say(line)
        for each in run.runs:
            convert_tasks(each.plan, each.destination.data_root, convert_files)
        say(f"{run.manifest.name}: starting in {run.folder}")
        outcome = launch_suite(run, watches)
        say_end(run.folder, outcome.total, say)
    raise_end(outcome.total, watch)


def launch_suite(
    run: SuiteRun, watches: Sequence[Watch], rescue: "Callable[[Outcome], None] | None" = None
) -> SuiteOutcome:
    """Runs the trials that the folder of a suite lacks, and returns how the launch ended.

    ``suite.json`` is written when the first sweep starts: a launch that is refused leaves nothing behind.

    Args:
        run: the plans.
        watches: what receives the events of each member.
        rescue: as of ``sweep.launch``.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray does not start or ends.
        StorageError: if the system refuses to write.
    """
    from orca_sweep.space.suites import check_suite_folder

    start = time.perf_counter()
    check_suite_folder(run.folder, run.manifest)
    setups = [make_setup(each.destination) for each in run.runs]

    from orca_sweep.sweep import Member, launch_members

    watches = list(map(_SuiteWriter(run).wrap_watch, watches))
    members = [
        Member(plan=each.plan, setup=setup, watch=watch)
        for each, setup, watch in zip(run.runs, setups, watches, strict=True)
    ]

    def rescue_suite(outcomes: Sequence["Outcome"]) -> None:
        if rescue is not None:
            rescue(_join_outcomes(run, outcomes, start))

    with _hold_suite(run.folder):
        outcomes = launch_members(members, None if rescue is None else rescue_suite)
        total = _join_outcomes(run, outcomes, start)
    return SuiteOutcome(total=total, members=dict(zip(run.manifest.members, outcomes, strict=True)))


class _SuiteWriter:
    """Writes ``suite.json`` at the first event of a launch that has passed all checks."""

    def __init__(self, run: SuiteRun) -> None:
        self.run = run
        self.is_written = False

    def wrap_watch(self, watch: Watch) -> Watch:
        """Returns a watch that passes every event on."""
        from orca_sweep.space.suites import write_suite

        def pass_event(event: str, facts: Mapping[str, Any]) -> None:
            if not self.is_written:
                write_suite(self.run.folder, self.run.manifest)
                self.is_written = True
            watch(event, facts)

        return pass_event


@contextmanager
def _hold_suite(folder: Path) -> Iterator[None]:
    """Refuses a second launch of the suite while one runs; removes the folder if nothing was written into it."""
    from orca_sweep.space.suites import LOCK
    from orca_sweep.store.locks import lock_folder

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = lock_folder(folder, LOCK, "another launch of this suite")
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # somebody has removed it meanwhile
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


def _join_outcomes(run: SuiteRun, outcomes: Sequence["Outcome"], start_s: float) -> "Outcome":
    """Returns how the launch of a suite ended; its trials are counted from the folder, each once."""
    from orca_sweep.results import sweep_status

    status = sweep_status(run.folder)
    notes = {name: outcome.notes for name, outcome in zip(run.manifest.members, outcomes, strict=True)}
    return replace(
        outcomes[0],
        n_planned=status.n_planned,
        # One that failed in a space runs again in the next.
        ran=tuple(dict.fromkeys(trial_id for outcome in outcomes for trial_id in outcome.ran)),
        statuses=status.statuses,
        wall_time_s=time.perf_counter() - start_s,
        notes=tuple(join_texts(notes)),
        ray_is_lost=any(outcome.ray_is_lost for outcome in outcomes),
        was_interrupted=any(outcome.was_interrupted for outcome in outcomes),
    )
