"""The progress of a sweep, read from its folder alone."""

import contextlib
import fcntl
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orca_sweep.config.labels import write_level
from orca_sweep.errors import DamagedError
from orca_sweep.results.columns import UNFINISHED
from orca_sweep.results.records import (
    describe_unplanned,
    list_trial_folders,
    read_record,
    read_traceback,
    record_path,
)
from orca_sweep.results.signs import Sign, read_sign
from orca_sweep.space.manifest import MANIFEST, SweepManifest, require_manifest
from orca_sweep.space.suites import (
    LOCK,
    SUITE,
    SuiteManifest,
    list_former_members,
    list_sweep_folders,
    read_suite,
)
from orca_sweep.space.trial_names import TrialNames
from orca_sweep.visible import LINES, escape_controls

ACTIVITIES = {
    True: "running",
    False: "no launch is running",
    None: "this machine cannot see whether a launch is running",
}
"""By whether a launch holds the folder."""
GOOD = ("ok", "pruned")
"""The statuses of trials that ended well."""
MOST_SHOWN = 5
"""Failures and started trials that are named."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A trial that is not ok."""

    trial_id: str
    name: str
    """Its levels and seed."""
    seed: int
    role: str
    levels: Mapping[str, str]
    """The readable level of every factor."""
    status: str
    error: str
    last_line: str | None
    """The last line of its traceback; None if it left none."""

    def __str__(self) -> str:
        """Returns '1a2b failed, proxy none, seed 2: the error [the last line of the traceback]'."""
        last = f" [{self.last_line}]" if self.last_line and self.last_line not in self.error else ""
        error = f": {self.error.splitlines()[0]}" if self.error else ""
        return f"{self.trial_id} {self.status}, {self.name}{error}{last}"


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepStatus:
    """The progress of a sweep."""

    name: str
    n_planned: int
    n_later: int
    """Trials that the sweep may still plan, depending on results."""
    statuses: Mapping[str, int]
    """Numbers of trials by status; ``unfinished`` trials have no record yet."""
    is_running: bool | None
    """Whether a launch holds the folder; None if the file system does not say."""
    started: tuple[str, ...]
    """Unfinished trials that have a folder."""
    started_names: tuple[str, ...]
    """Their levels and seeds."""
    signs: tuple[Sign, ...]
    """What they do now, or did last, as far as they have given signs of life; the latest first."""
    trials_per_hour: float | None
    """In the last launch."""
    eta_s: float | None
    cpu_hours: float
    gpu_hours: float
    failures: tuple[Failure, ...]
    unplanned: str | None = None
    """The message about records of trials that are not planned."""
    members: tuple["SweepStatus", ...] = ()
    """Of a suite, the progress of each member; the rest counts a trial that several members have once."""
    notes: tuple[str, ...] = ()
    """On the folder of a suite: members that have no plan yet, and sweeps that are no members any more."""

    def __repr__(self) -> str:
        return escape_controls("\n".join(self.write_lines()), LINES)

    def write_lines(self, n_shown: int = MOST_SHOWN, where_all_are: str = "in .failures") -> Iterator[str]:
        """Yields the progress in lines, of which the first says the most.

        Args:
            n_shown: the most failures, and the most started trials, that are named.
            where_all_are: where a reader finds the rest of the failures.
        """
        yield f"{self._count_trials()}; {ACTIVITIES[self.is_running]}"
        if self.trials_per_hour:
            eta = f", about {self.eta_s / 60:.0f} min to go" if self.eta_s else ""
            yield f"{self.trials_per_hour:.0f} trials per hour in the last launch{eta}"
        if self.n_planned - self.statuses.get(UNFINISHED, 0):
            yield f"{self.cpu_hours:.2f} CPU-hours and {self.gpu_hours:.2f} GPU-hours in ended trials"
        yield from (f"  {member._count_trials()}" for member in self.members)
        yield from self.notes
        if self.started:
            yield from self._list_started(n_shown)
        yield from map(str, self.failures[:n_shown])
        if len(self.failures) > n_shown:
            yield f"... and {len(self.failures) - n_shown} more that are not ok ({where_all_are})"
        if self.unplanned:
            yield self.unplanned

    def _list_started(self, n_shown: int) -> Iterator[str]:
        """Yields the trials that have begun: first those that have given a sign of life, the latest first."""
        named = dict(zip(self.started, self.started_names, strict=True))
        signs = {sign.trial_id: sign for sign in self.signs}
        yield "started:"
        for trial_id in list(dict.fromkeys([*signs, *named]))[:n_shown]:
            sign = signs.get(trial_id)
            yield f"  {named[trial_id]}{f': {sign.describe()}, on {sign.node}' if sign else ''}"
        if len(named) > n_shown:
            yield f"  and {len(named) - n_shown} more"

    def _count_trials(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(self.statuses.items()))
        later = f" (up to {self.n_later} more, planned from their results)" if self.n_later else ""
        return f"{self.name}: {self.n_planned} trials{later}: {counts}"


@dataclass(frozen=True, kw_only=True)
class _Read:
    """The plan of a sweep, and the rows of its trials that have ended."""

    folder: Path
    manifest: SweepManifest
    rows: Mapping[str, Mapping[str, Any]]
    """By trial."""
    status: SweepStatus


def sweep_status(folder: Path) -> SweepStatus:
    """Returns the progress of a sweep or a suite, whether it is running, has ended or has died.

    Raises:
        InputError: if the folder holds no sweep.
    """
    suite = read_suite(folder)
    return _read_sweep(folder).status if suite is None else _join_members(folder, suite)


def _join_members(folder: Path, suite: SuiteManifest) -> SweepStatus:
    """Returns the progress of a suite: of a trial that several members have, the best status counts."""
    listed = list_sweep_folders(folder)
    members = list(map(_read_sweep, listed.folders))
    planned = dict.fromkeys(trial["trial_id"] for member in members for trial in member.manifest.trials)
    best: dict[str, tuple[_Read, Mapping[str, Any]]] = {}
    for member in members:
        for trial_id, row in member.rows.items():
            if trial_id not in best or _rank_row(row) > _rank_row(best[trial_id][1]):
                best[trial_id] = (member, row)
    started = {
        trial_id: f"{member.status.name}: {name}"
        for member in members
        for trial_id, name in zip(member.status.started, member.status.started_names, strict=True)
        if trial_id not in best
    }
    statuses = Counter(best[trial_id][1]["status"] if trial_id in best else UNFINISHED for trial_id in planned)
    running = _join_flags([_is_held(folder / LOCK), *(member.status.is_running for member in members)])
    n_later = sum(member.status.n_later for member in members)
    rate = _measure_rate(folder / SUITE, [record_path(member.folder, t) for t, (member, _) in best.items()], running)
    n_left = statuses[UNFINISHED] + n_later
    hours = [(member, (row.get("wall_time_s") or 0) / 3600) for member, row in best.values()]
    failures = [
        replace(failure, name=f"{member.status.name}: {failure.name}")
        for member in members
        for failure in member.status.failures
        if best[failure.trial_id][0] is member
    ]
    former = [
        f"{folder / name}: no longer in the suite; it keeps its trials, and no table of the suite has them."
        for name in list_former_members(folder, suite)
    ]
    return SweepStatus(
        name=suite.name,
        n_planned=len(planned),
        n_later=n_later,
        statuses=dict(statuses),
        is_running=running,
        started=tuple(started),
        started_names=tuple(started.values()),
        signs=_order_signs(sign for m in members for sign in m.status.signs if sign.trial_id in started),
        trials_per_hour=rate,
        eta_s=3600 * n_left / rate if rate and running and n_left else None,
        cpu_hours=sum(h * member.manifest.resources.cpu for member, h in hours),
        gpu_hours=sum(h * member.manifest.resources.gpu for member, h in hours),
        failures=tuple(failures),
        unplanned=" ".join(member.status.unplanned for member in members if member.status.unplanned) or None,
        members=tuple(member.status for member in members),
        notes=(*listed.notes, *former),
    )


def _rank_row(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns what makes one row of a trial better than another: a good end, and that its space ran it."""
    return row["status"] in GOOD, not row.get("taken_from")


def _join_flags(flags: Sequence[bool | None]) -> bool | None:
    """Returns True if one of them is, None if none is and one is unknown."""
    return True if True in flags else None if None in flags else False


def _read_sweep(folder: Path) -> _Read:
    folders = list_trial_folders(folder)
    manifest = require_manifest(folder)
    trial_ids = list(dict.fromkeys(trial["trial_id"] for trial in manifest.trials))
    rows = {trial_id: row for trial_id in trial_ids if (row := _read_row(folder, trial_id))}
    statuses = Counter(rows[trial_id]["status"] if trial_id in rows else UNFINISHED for trial_id in trial_ids)
    ran = {trial_id: row for trial_id, row in rows.items() if not row.get("taken_from")}
    running = _is_held(folder / LOCK)
    rate = _measure_rate(folder / MANIFEST, [record_path(folder, trial_id) for trial_id in ran], running)
    n_left = statuses[UNFINISHED] + manifest.n_later
    started = tuple(t for t in trial_ids if t not in rows and (folder / "trials" / t).is_dir())
    names = _name_trials(manifest)
    failed = [row for row in rows.values() if row["status"] not in GOOD]
    entries = {trial["trial_id"]: trial for trial in manifest.trials}
    hours = sum(row.get("wall_time_s") or 0 for row in ran.values()) / 3600
    status = SweepStatus(
        name=manifest.name,
        n_planned=len(trial_ids),
        n_later=manifest.n_later,
        statuses=dict(statuses),
        is_running=running,
        started=started,
        started_names=tuple(map(names.__getitem__, started)),
        signs=_order_signs(sign for trial_id in started if (sign := read_sign(folder, trial_id))),
        trials_per_hour=rate,
        eta_s=3600 * n_left / rate if rate and running and n_left else None,
        cpu_hours=hours * manifest.resources.cpu,
        gpu_hours=hours * manifest.resources.gpu,
        failures=tuple(
            _describe_failure(
                folder, row, entries[row["trial_id"]], labels=manifest.labels, name=names[row["trial_id"]]
            )
            for row in failed
        ),
        unplanned=describe_unplanned(folder, folders, manifest),
    )
    return _Read(folder=folder, manifest=manifest, rows=rows, status=status)


def _order_signs(signs: Iterable[Sign]) -> tuple[Sign, ...]:
    return tuple(sorted(signs, key=lambda sign: -sign.at))


def _read_row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's row; None if it has not ended. A trial with a damaged record is lost."""
    try:
        record = read_record(folder, trial_id)
    except DamagedError as error:
        return {"trial_id": trial_id, "status": "lost", "error": str(error)}
    return record["row"] if record else None


def _is_held(lock: Path) -> bool | None:
    """Says whether another process holds a lock file, without writing to it."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None


def _measure_rate(plan: Path, records: Iterable[Path], running: bool | None) -> float | None:
    """Returns the trials that ended per hour since the last launch wrote its plan; None if none did."""
    start = plan.stat().st_mtime
    ends = []
    for record in records:
        with contextlib.suppress(OSError):  # a new attempt at a trial deletes its record
            ends.append(record.stat().st_mtime)
    ends = [end for end in ends if end >= start]
    if not ends:
        return None
    return 3600 * len(ends) / max((time.time() if running else max(ends)) - start, 1e-3)


def _name_trials(manifest: SweepManifest) -> dict[str, str]:
    """Returns the levels and seed of each planned trial, by its id."""
    naming = TrialNames(manifest.labels, manifest.tune)

    def name_trial(trial: Mapping[str, Any]) -> str:
        tuned = {path: write_level(trial["config"].get(path)) for path in manifest.tune}
        return naming.add_trial(
            trial["trial_id"], trial["cell_id"], seed=trial["seed"], role=trial["role"], tuned=tuned
        )

    for trial in manifest.trials:
        name_trial(trial)  # so that trials of the same name are known
    return {trial["trial_id"]: name_trial(trial) for trial in manifest.trials}


def _describe_failure(
    folder: Path, row: Mapping[str, Any], trial: Mapping[str, Any], *, labels: Mapping[str, Any], name: str
) -> Failure:
    lines = (read_traceback(folder, row["trial_id"]) or "").strip().splitlines()
    return Failure(
        trial_id=row["trial_id"],
        name=name,
        seed=trial["seed"],
        role=trial["role"],
        levels=labels.get(trial["cell_id"].removesuffix("-aa"), {}),
        status=row["status"],
        error=str(row.get("error") or ""),
        last_line=lines[-1] if lines else None,
    )
