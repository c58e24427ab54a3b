"""How far a sweep is, read from its folder alone."""

import contextlib
import fcntl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.errors import DamagedError
from orca_sweep.results.columns import UNFINISHED
from orca_sweep.results.records import describe_unplanned, list_trial_folders, read_record, read_traceback
from orca_sweep.space.manifest import MANIFEST, require_manifest


@dataclass(frozen=True)
class Failure:
    """A trial that is not ok."""

    trial_id: str
    status: str
    error: str
    last_line: str | None
    """Of its traceback, if it left one."""


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is, read from its folder alone."""

    name: str
    n_planned: int
    n_later: int
    """Trials that may still be planned, from the results of those that are."""
    statuses: Mapping[str, int]
    """Trials by status; ``unfinished`` have no record yet."""
    is_running: bool | None
    """Whether a launch holds the folder; None if that cannot be told from here."""
    started: tuple[str, ...]
    """Unfinished trials that have left something behind."""
    trials_per_hour: float | None
    """Of the last launch."""
    eta_s: float | None
    cpu_hours: float
    gpu_hours: float
    failures: tuple[Failure, ...]
    unplanned: str | None = None
    """What is to be said of records that are of no planned trial."""


def sweep_status(folder: Path) -> SweepStatus:
    """Returns how far a sweep is, while it runs as well as after it died.

    Raises:
        InputError: if the folder holds no sweep.
    """
    names = list_trial_folders(folder)
    manifest = require_manifest(folder)
    records = {t["trial_id"]: _row(folder, t["trial_id"]) for t in manifest.trials}
    rows = {trial_id: row for trial_id, row in records.items() if row}
    statuses: dict[str, int] = {}
    for trial_id in records:
        status = rows[trial_id]["status"] if trial_id in rows else UNFINISHED
        statuses[status] = statuses.get(status, 0) + 1
    running = _is_held(folder / ".lock")
    rate = _rate(folder, rows, running)
    n_left = statuses.get(UNFINISHED, 0) + manifest.n_later
    hours = sum(row.get("wall_time_s") or 0 for row in rows.values()) / 3600
    return SweepStatus(
        name=manifest.name,
        n_planned=len(records),
        n_later=manifest.n_later,
        statuses=statuses,
        is_running=running,
        started=tuple(t for t in records if t not in rows and (folder / "trials" / t).is_dir()),
        trials_per_hour=rate,
        eta_s=3600 * n_left / rate if rate and running and n_left else None,
        cpu_hours=hours * manifest.resources.cpu,
        gpu_hours=hours * manifest.resources.gpu,
        failures=tuple(_failure(folder, row) for row in rows.values() if row["status"] not in ("ok", "pruned")),
        unplanned=describe_unplanned(folder, names, manifest),
    )


def _row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """A trial's row, None if it has not ended; one whose record is damaged is lost."""
    try:
        record = read_record(folder, trial_id)
    except DamagedError as error:
        return {"trial_id": trial_id, "status": "lost", "error": str(error)}
    return record["row"] if record else None


def _is_held(lock: Path) -> bool | None:
    """Whether another process holds a lock file. It is opened for reading alone: a look at a sweep writes nothing."""
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


def _rate(folder: Path, rows: Iterable[str], running: bool | None) -> float | None:
    """Trials an hour since the last launch wrote its plan."""
    start = (folder / MANIFEST).stat().st_mtime
    ends = []
    for trial_id in rows:
        with contextlib.suppress(OSError):  # a record is taken away when its trial is tried again
            ends.append((folder / "trials" / trial_id / "row.json").stat().st_mtime)
    ends = [end for end in ends if end >= start]
    if not ends:
        return None
    return 3600 * len(ends) / max((time.time() if running else max(ends)) - start, 1e-3)


def _failure(folder: Path, row: Mapping[str, Any]) -> Failure:
    lines = (read_traceback(folder, row["trial_id"]) or "").strip().splitlines()
    return Failure(row["trial_id"], row["status"], str(row.get("error") or ""), lines[-1] if lines else None)
