"""What a sweep folder holds beside its plan (`orca_sweep.space.manifest`): one record per trial that has ended.

``trials/<trial_id>/row.json`` is a trial's record: its row, its epochs, its stages and, sealed, its test metrics.
These are the truth; tables are made from them and can be made again at any time.
"""

import base64
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.config import canonical_json
from orca_sweep.errors import DamagedError
from orca_sweep.record_files import read_record_file, read_regular_file
from orca_sweep.results.columns import SEALED_COLUMNS, TABLE_SCHEMA
from orca_sweep.results.schemas import RECORD_FILE, open_seal
from orca_sweep.space.manifest import SweepManifest
from orca_sweep.store import explain_write_errors, write_json

RUN_AGAIN = "The next launch runs the trial again; until then it counts as lost."


def record_path(folder: Path, trial_id: str) -> Path:
    """Returns where the record of a trial that has ended lies."""
    return folder / "trials" / trial_id / "row.json"


def error_path(folder: Path, trial_id: str) -> Path:
    """Returns where the traceback of a trial that failed lies; not every failure leaves one."""
    return folder / "trials" / trial_id / "error.txt"


def write_record(
    folder: Path,
    row: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Writes a trial's record into the sweep folder, its test metrics sealed, and returns the row without them.

    The record's presence says that the trial has ended.
    """
    path = record_path(folder, str(row["trial_id"]))
    shown, seal = sealed(row)
    record = {
        "schema": TABLE_SCHEMA,
        "row": finite(shown),
        "epochs": [finite(epoch) for epoch in epochs],
        "stages": [finite(stage) for stage in stages],
    }
    write_json(path, {**record, "sealed": seal} if seal else record)
    return shown


def sealed(row: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Returns a row without its test metrics, and these sealed; None if it has none."""
    values = {name: value for name, value in finite(row).items() if name in SEALED_COLUMNS}
    rest = {name: value for name, value in row.items() if name not in SEALED_COLUMNS}
    known = any(value is not None for value in values.values())
    return rest, base64.b64encode(zlib.compress(canonical_json(values).encode())).decode() if known else None


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the test metrics of a record, by column; empty if it has none."""
    return open_seal(record["sealed"]) if "sealed" in record else {}


def read_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record, or None if it has not ended.

    Raises:
        DamagedError: if its file cannot be read, or does not hold what was written for this trial.
    """
    path = record_path(folder, trial_id)
    record = read_record_file(path, RECORD_FILE, RUN_AGAIN)
    if record is not None and record["row"]["trial_id"] != trial_id:
        raise DamagedError(path, f"damaged: it is the record of the trial {record['row']['trial_id']}", RUN_AGAIN)
    return record


def usable_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record, or None if the trial must be run: there is none, or a damaged one."""
    try:
        return read_record(folder, trial_id)
    except DamagedError:
        return None


def read_row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns the row of a trial's record, or None if the trial must be run: there is none, or a damaged one."""
    record = usable_record(folder, trial_id)
    return record["row"] if record else None


def clear_attempt(folder: Path, trial_id: str) -> None:
    """Takes away what an earlier attempt at a trial said; it must not be taken for the next one's.

    Raises:
        StorageError: if something is in the way that no attempt has written, such as a folder.
    """
    for path in (record_path(folder, trial_id), error_path(folder, trial_id)):
        with explain_write_errors(path):
            path.unlink(missing_ok=True)


def read_traceback(folder: Path, trial_id: str) -> str | None:
    """Returns the traceback that a failed trial left; None if there is none that can be read."""
    try:
        blob = read_regular_file(error_path(folder, trial_id))
    except OSError:
        return None
    return None if blob is None else blob.decode("utf-8", "replace")


def list_trial_folders(folder: Path) -> list[str]:
    """Returns the names of the folders of trials in a sweep folder; none where they cannot be listed.

    Call it before the plan is read: a trial of a running sweep is planned before it has a folder.
    """
    try:
        return sorted(os.listdir(folder / "trials"))
    except OSError:
        return []


def describe_unplanned(folder: Path, names: Iterable[str], manifest: SweepManifest) -> str | None:
    """Returns what is to be said of records that are of no trial of the plan and so are in no table; None if there are none.

    A plan from which somebody took levels or seeds leaves them, and so does one that is damaged or of another sweep.
    """
    planned = {trial["trial_id"] for trial in manifest.all_trials}
    left = [name for name in names if name not in planned and record_path(folder, name).is_file()]
    if not left:
        return None
    return (
        f"{folder / 'trials'}: {len(left)} records are of no trial that sweep.json plans, such as {left[0]}: they are in no"
        " table. They are of an earlier plan, or the plan is not this sweep's. If they are wanted, launch the space that made"
        f" them again with --out {folder}."
    )


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinity become null: JSON has no word for them. Halves of characters, of file names that are no UTF-8, are
    written out: no reader takes them for text.
    """  # fmt: skip  # noqa: D205
    return {name: _finite_value(value) for name, value in row.items()}


def _finite_value(value: Any) -> Any:
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
