"""The progress of a sweep, read from its folder alone."""

import contextlib
import fcntl
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
from orca_sweep.space.manifest import MANIFEST, SweepManifest, require_manifest
from orca_sweep.space.trial_names import TrialNames
from orca_sweep.visible import LINES, escape_controls

ACTIVITIES = {
    True: "running",
    False: "no launch is running",
    None: "this machine cannot see whether a launch is running",
}
"""By whether a launch holds the folder."""
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
    trials_per_hour: float | None
    """In the last launch."""
    eta_s: float | None
    cpu_hours: float
    gpu_hours: float
    failures: tuple[Failure, ...]
    unplanned: str | None = None
    """The message about records of trials that are not planned."""

    def __repr__(self) -> str:
        return escape_controls("\n".join(self.write_lines()), LINES)

    def write_lines(self, n_shown: int = MOST_SHOWN, where_all_are: str = "in .failures") -> Iterator[str]:
        """Yields the progress in lines, of which the first says the most.

        Args:
            n_shown: the most failures, and the most started trials, that are named.
            where_all_are: where a reader finds the rest of the failures.
        """
        counts = ", ".join(f"{n} {status}" for status, n in sorted(self.statuses.items()))
        later = f" (up to {self.n_later} more, planned from their results)" if self.n_later else ""
        yield f"{self.name}: {self.n_planned} trials{later}: {counts}; {ACTIVITIES[self.is_running]}"
        if self.trials_per_hour:
            eta = f", about {self.eta_s / 60:.0f} min to go" if self.eta_s else ""
            yield f"{self.trials_per_hour:.0f} trials per hour in the last launch{eta}"
        if self.n_planned - self.statuses.get(UNFINISHED, 0):
            yield f"{self.cpu_hours:.2f} CPU-hours and {self.gpu_hours:.2f} GPU-hours in ended trials"
        if self.started:
            n_more = len(self.started) - n_shown
            yield f"started: {'; '.join(self.started_names[:n_shown])}{f'; and {n_more} more' if n_more > 0 else ''}"
        yield from map(str, self.failures[:n_shown])
        if len(self.failures) > n_shown:
            yield f"... and {len(self.failures) - n_shown} more that are not ok ({where_all_are})"
        if self.unplanned:
            yield self.unplanned


def sweep_status(folder: Path) -> SweepStatus:
    """Returns the progress of a sweep, whether it is running, has ended or has died.

    Raises:
        InputError: if the folder holds no sweep.
    """
    folders = list_trial_folders(folder)
    manifest = require_manifest(folder)
    trial_ids = list(dict.fromkeys(trial["trial_id"] for trial in manifest.trials))
    rows = {trial_id: row for trial_id in trial_ids if (row := _read_row(folder, trial_id))}
    statuses = Counter(rows[trial_id]["status"] if trial_id in rows else UNFINISHED for trial_id in trial_ids)
    running = _is_held(folder / ".lock")
    ran = {trial_id: row for trial_id, row in rows.items() if not row.get("taken_from")}
    rate = _measure_rate(folder, ran, running)
    n_left = statuses[UNFINISHED] + manifest.n_later
    started = tuple(t for t in trial_ids if t not in rows and (folder / "trials" / t).is_dir())
    names = _name_trials(manifest)
    failed = [row for row in rows.values() if row["status"] not in ("ok", "pruned")]
    entries = {trial["trial_id"]: trial for trial in manifest.trials}
    hours = sum(row.get("wall_time_s") or 0 for row in ran.values()) / 3600
    return SweepStatus(
        name=manifest.name,
        n_planned=len(trial_ids),
        n_later=manifest.n_later,
        statuses=dict(statuses),
        is_running=running,
        started=started,
        started_names=tuple(map(names.__getitem__, started)),
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


def _measure_rate(folder: Path, ended: Iterable[str], running: bool | None) -> float | None:
    """Returns the trials that ended per hour since the last launch wrote its plan; None if none did."""
    start = (folder / MANIFEST).stat().st_mtime
    ends = []
    for trial_id in ended:
        with contextlib.suppress(OSError):  # a new attempt at a trial deletes its record
            ends.append(record_path(folder, trial_id).stat().st_mtime)
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
