"""Custody of test metrics: sealed when written, shown by ``reveal``, every reveal logged.

A number that was looked at while choices were still open is no test of these choices any more. So a record holds its
test metrics in a form that no eye, search or table reads by chance, and tables leave them out until somebody asks for
them; that they did, when, and of which trials, stands in the tables from then on. It is a seal, not a lock: whoever
breaks it does so on purpose.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orca_sweep.errors import DamagedError
from orca_sweep.record_files import read_record_file
from orca_sweep.results.records import list_trial_folders, read_record
from orca_sweep.results.schemas import REVEALS_FILE
from orca_sweep.space.manifest import require_manifest
from orca_sweep.store import write_json

REVEALS = "reveals.json"
SEAL_AGAIN = "Move it away to seal the sweep's test metrics again; who moves it must say that they had been looked at."


@dataclass(frozen=True)
class Reveal:
    """One look at test metrics."""

    time: str
    """In UTC, as ISO 8601."""
    trials: tuple[str, ...]
    """Ids of the trials whose test metrics it showed first."""
    damaged: tuple[str, ...] = ()
    """What is to be said of trials that it could not show."""


def reveal(folder: Path) -> Reveal:
    """Shows the test metrics of all trials of a sweep that have ended, from now on, and logs that.

    Trials that end later stay sealed until the next reveal, and so do those whose record is damaged. Where nothing is
    shown nothing is logged.

    Raises:
        InputError: if the folder holds no sweep.
        StorageError: if the log cannot be written; nothing is shown then.
    """
    past = reveals(folder)
    known = {trial_id for look in past for trial_id in look.trials}
    planned = dict.fromkeys(trial["trial_id"] for trial in require_manifest(folder).all_trials)
    records, damaged = {}, []
    for trial_id in planned:
        try:
            records[trial_id] = read_record(folder, trial_id) if trial_id not in known else None
        except DamagedError as error:
            damaged.append(str(error))
    shown = tuple(trial_id for trial_id, record in records.items() if record and "sealed" in record)
    look = Reveal(now(), shown, tuple(damaged))
    if shown:
        looks = [{"time": each.time, "trials": each.trials} for each in (*past, look)]
        write_json(folder / REVEALS, {"reveals": looks})
    return look


def reveals(folder: Path) -> tuple[Reveal, ...]:
    """Returns the log of reveals of a sweep, in their order.

    Raises:
        DamagedError: if it does not hold what was written.
    """
    if not folder.is_dir():
        return ()
    log = read_record_file(folder / REVEALS, REVEALS_FILE, SEAL_AGAIN) or {"reveals": []}
    named = {trial_id for look in log["reveals"] for trial_id in look["trials"]}
    present = set(list_trial_folders(folder))
    if named and present and not named & present:
        raise DamagedError(folder / REVEALS, "it is the log of another sweep: none of its trials is here", SEAL_AGAIN)
    return tuple(Reveal(look["time"], tuple(look["trials"])) for look in log["reveals"])


def now() -> str:
    """Returns the present moment in UTC, to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
