"""Custody of test metrics: sealed when written, shown by ``reveal``, every reveal logged.

A number that was looked at while choices were still open is no test of these choices any more. So a record holds its
test metrics in a form that no eye, search or table reads by chance, and tables leave them out until somebody asks for
them; that they did, when, and of which trials, stands in the tables from then on. It is a seal, not a lock: whoever
breaks it does so on purpose.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.results.records import manifest_of, read_record, write_json

REVEALS = "reveals.json"


@dataclass(frozen=True)
class Reveal:
    """One look at test metrics."""

    time: str
    """In UTC, as ISO 8601."""
    trials: tuple[str, ...]
    """Ids of the trials whose test metrics it showed first."""


def reveal(folder: Path) -> Reveal:
    """Shows the test metrics of all trials of a sweep that have ended, from now on, and logs that.

    Trials that end later stay sealed until the next reveal. Where nothing is sealed nothing is logged.

    Raises:
        InputError: if the folder holds no sweep.
        StorageError: if the log cannot be written; nothing is shown then.
    """
    past = reveals(folder)
    known = {trial_id for one in past for trial_id in one.trials}
    planned = dict.fromkeys(trial["trial_id"] for trial in manifest_of(folder)["trials"])
    records = ((trial_id, read_record(folder, trial_id)) for trial_id in planned if trial_id not in known)
    found = Reveal(now(), tuple(trial_id for trial_id, record in records if record and record.get("sealed")))
    if found.trials:
        write_json(folder / REVEALS, [asdict(one) for one in (*past, found)])
    return found


def reveals(folder: Path) -> tuple[Reveal, ...]:
    """Returns the log of reveals of a sweep, in their order.

    Raises:
        InputError: if it is damaged.
    """
    path = folder / REVEALS
    try:
        return tuple(Reveal(str(one["time"]), tuple(one["trials"])) for one in json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"{path}: damaged: not the log of reveals that was written. Delete it to seal the sweep's test metrics again."
        ) from None


def now() -> str:
    """Returns the present moment in UTC, to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
