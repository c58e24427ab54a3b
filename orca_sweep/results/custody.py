"""Custody of test metrics: records hold them sealed, ``reveal`` shows them, and every reveal is logged.

A number that somebody looks at while choices are still open no longer tests these choices. Records therefore hold test
metrics in a form that nobody reads by chance, and tables leave them out until somebody asks for them. From then on the
tables say when that was and for which trials. It is a seal, not a lock: whoever breaks it does so on purpose.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orca_sweep.errors import DamagedError, InputError
from orca_sweep.record_files import read_record_file
from orca_sweep.results.records import list_trial_folders, read_record
from orca_sweep.results.schemas import REVEALS_FILE
from orca_sweep.space.manifest import require_manifest
from orca_sweep.space.suites import list_sweep_folders, read_suite
from orca_sweep.store import write_json

REVEALS = "reveals.json"
SEAL_AGAIN = "Move it away to seal the sweep's test metrics again, and report that somebody has looked at them."


@dataclass(frozen=True, kw_only=True)
class Reveal:
    """One reveal of test metrics."""

    time: str
    """UTC, ISO 8601."""
    trials: tuple[str, ...]
    """Ids of the trials whose test metrics it showed for the first time."""
    damaged: tuple[str, ...] = ()
    """Messages about trials whose records could not be read."""


def reveal(folder: Path) -> Reveal:
    """Reveals the test metrics of all trials of a sweep or a suite that have ended, and logs that.

    Trials that end later stay sealed until the next reveal, and so do trials with a damaged record. A reveal that shows
    nothing is not logged.

    Raises:
        InputError: if the folder holds no sweep.
        StorageError: if a log cannot be written; then nothing of that sweep is revealed.
    """
    time, folders = now(), list_sweep_folders(folder).folders
    looks = [_find_sealed(member, time) for member in folders]
    for member, look in zip(folders, looks, strict=True):
        if look.trials:
            records = [{"time": each.time, "trials": each.trials} for each in (*_read_log(member), look)]
            write_json(member / REVEALS, {"reveals": records})
    return _join_looks(looks)


def _find_sealed(folder: Path, time: str) -> Reveal:
    """Returns the look at a sweep that shows every sealed record."""
    known = {trial_id for look in _read_log(folder) for trial_id in look.trials}
    planned = dict.fromkeys(trial["trial_id"] for trial in require_manifest(folder).all_trials)
    records, damaged = {}, []
    for trial_id in planned:
        try:
            records[trial_id] = read_record(folder, trial_id) if trial_id not in known else None
        except DamagedError as error:
            damaged.append(str(error))
    shown = tuple(trial_id for trial_id, record in records.items() if record and "sealed" in record)
    return Reveal(time=time, trials=shown, damaged=tuple(damaged))


def read_reveals(folder: Path) -> tuple[Reveal, ...]:
    """Returns the reveals of a sweep, or of all members of a suite, in order.

    Raises:
        DamagedError: if a log is damaged, or belongs to another sweep.
    """
    if not folder.is_dir():
        return ()
    members = list_sweep_folders(folder).folders
    if members == (folder,):
        return _read_log(folder)
    by_time: dict[str, list[Reveal]] = {}
    for look in (look for member in members for look in _read_log(member)):
        by_time.setdefault(look.time, []).append(look)
    return tuple(_join_looks(by_time[time]) for time in sorted(by_time))


def read_looks_beside(folder: Path) -> tuple[Reveal, ...]:
    """Returns the reveals of a sweep, and those of the other members of its suite, in order; a look at these counts as well.

    Members without a readable log are left out: they themselves report what is wrong.

    Raises:
        DamagedError: if the sweep's own log is damaged.
    """
    by_time = {look.time: look for look in _read_log(folder)}
    with suppress(InputError):
        suite = read_suite(folder.parent)
        for name in suite.members if suite and folder.name in suite.members else ():
            with suppress(DamagedError):
                by_time |= {look.time: by_time.get(look.time, look) for look in _read_log(folder.parent / name)}
    return tuple(by_time[time] for time in sorted(by_time))


def _join_looks(looks: Sequence[Reveal]) -> Reveal:
    """Returns looks of one moment as one; a trial that several sweeps have counts once."""
    trials = dict.fromkeys(trial_id for look in looks for trial_id in look.trials)
    return Reveal(
        time=looks[0].time, trials=tuple(trials), damaged=tuple(text for look in looks for text in look.damaged)
    )


def _read_log(folder: Path) -> tuple[Reveal, ...]:
    """Returns the reveals of one sweep in order."""
    if not folder.is_dir():
        return ()
    log = read_record_file(folder / REVEALS, REVEALS_FILE, SEAL_AGAIN) or {"reveals": []}
    named = {trial_id for look in log["reveals"] for trial_id in look["trials"]}
    present = set(list_trial_folders(folder))
    if named and present and not named & present:
        raise DamagedError(
            folder / REVEALS, "it belongs to another sweep: none of its trials is in this folder", SEAL_AGAIN
        )
    return tuple(Reveal(time=look["time"], trials=tuple(look["trials"])) for look in log["reveals"])


def now() -> str:
    """Returns the current time in UTC with milliseconds, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
