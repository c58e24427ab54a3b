"""Runs the sweeps of a suite, one after another inside one Ray."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from filelock import FileLock, Timeout

from orca_sweep.errors import InputError, Problem, refuse_argument
from orca_sweep.results import FINAL_STATUSES, UNFINISHED, adopt_record, read_row
from orca_sweep.space import Plan
from orca_sweep.space.manifest import write_manifest
from orca_sweep.space.suites import LOCK
from orca_sweep.sweep.checks import RUNNING, check_resources
from orca_sweep.sweep.queue import Watch
from orca_sweep.sweep.running import (
    Outcome,
    Rescue,
    Setup,
    check_launch,
    join_ray,
    launch,
    make_manifest_beside_earlier,
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A plan of a suite, where it runs and writes, and what receives its events."""

    plan: Plan
    setup: Setup
    watch: Watch


def launch_members(members: Sequence[Member], rescue: Rescue | None = None) -> tuple[Outcome, ...]:
    """Runs the trials that the folders of the members lack, equal trials once, and returns how each member ended.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray does not start or ends.
        StorageError: if the system refuses to write a record.
    """
    problems: list[Problem] = []
    for member in members:
        try:
            check_launch(member.plan, member.setup)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    first, outcomes = members[0].setup, list[Outcome]()
    with join_ray(first.address, first.dashboard_host):
        for member in members:
            check_resources(member.plan.space.resources)
        for member in members:
            _write_plan(member)  # so that the status of the suite counts all of its trials
        for member in members:
            if outcomes and (outcomes[-1].was_interrupted or outcomes[-1].ray_is_lost):
                outcomes.append(_skip(member))
                continue
            _adopt_records(member, members)
            outcomes.append(launch(member.plan, replace(member.setup, address=RUNNING), member.watch, rescue))
    return tuple(outcomes)


def _write_plan(member: Member) -> None:
    out = member.setup.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=1):
            write_manifest(out, make_manifest_beside_earlier(member.plan, member.setup))
    except OSError as error:
        raise refuse_argument("out", out, f"cannot make this folder ({error.strerror}).") from None
    except Timeout:
        raise refuse_argument("out", out, "another launch is writing here.", "Wait for it.") from None


def _adopt_records(member: Member, members: Sequence[Member]) -> None:
    """Takes over the final records of trials that another member has run."""
    siblings = [sibling.setup.out for sibling in members if sibling is not member]
    for trial_id in dict.fromkeys(trial.trial_id for trial in member.plan.trials):
        row = read_row(member.setup.out, trial_id)
        if row is None or row["status"] not in FINAL_STATUSES:
            for folder in siblings:
                if adopt_record(folder, member.setup.out, trial_id):
                    break


def _skip(member: Member) -> Outcome:
    """Returns the outcome of a member whose turn did not come."""
    start = time.perf_counter()
    statuses: dict[str, int] = {}
    for trial_id in dict.fromkeys(trial.trial_id for trial in member.plan.trials):
        row: Mapping[str, object] | None = read_row(member.setup.out, trial_id)
        status = str(row["status"]) if row else UNFINISHED
        statuses[status] = statuses.get(status, 0) + 1
    return Outcome(
        n_planned=sum(statuses.values()), n_run=0, statuses=statuses, wall_time_s=time.perf_counter() - start,
        was_interrupted=True,
    )  # fmt: skip
