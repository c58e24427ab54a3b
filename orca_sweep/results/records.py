"""The records of a sweep folder, one per trial that has ended; `orca_sweep.space.manifest` owns its plan.

``trials/<trial_id>/row.json`` is a trial's record: its row, its epochs, its stages and its sealed test metrics. All results
are in the records; tables are made from them and can be made again at any time.
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
from orca_sweep.results.signs import sign_path
from orca_sweep.space.manifest import SweepManifest
from orca_sweep.store import explain_write_errors, write_json

RUN_AGAIN = "The next launch runs the trial again; until then it counts as lost."


def record_path(folder: Path, trial_id: str) -> Path:
    """Returns the path of a trial's record; the file exists once the trial has ended."""
    return folder / "trials" / trial_id / "row.json"


def error_path(folder: Path, trial_id: str) -> Path:
    """Returns the path of a failed trial's traceback; not every failure leaves one."""
    return folder / "trials" / trial_id / "error.txt"


def write_record(
    folder: Path,
    row: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Writes a trial's record, with sealed test metrics, into the sweep folder and returns the row without them.

    A trial has ended once its record exists.
    """
    path = record_path(folder, str(row["trial_id"]))
    shown, seal = seal_metrics(row)
    record = {
        "schema": TABLE_SCHEMA,
        "row": make_json_safe(shown),
        "epochs": [make_json_safe(epoch) for epoch in epochs],
        "stages": [make_json_safe(stage) for stage in stages],
    }
    write_json(path, {**record, "sealed": seal} if seal else record)
    return shown


def seal_metrics(row: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Returns a row without its test metrics, and the sealed test metrics, or None if it has none."""
    values = {name: value for name, value in make_json_safe(row).items() if name in SEALED_COLUMNS}
    rest = {name: value for name, value in row.items() if name not in SEALED_COLUMNS}
    known = any(value is not None for value in values.values())
    return rest, base64.b64encode(zlib.compress(canonical_json(values).encode())).decode() if known else None


def unseal_metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the test metrics of a record by column; empty if it has none."""
    return open_seal(record["sealed"]) if "sealed" in record else {}


def read_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record, or None if it has not ended.

    Raises:
        DamagedError: if the file cannot be read, is damaged, or is the record of another trial.
    """
    path = record_path(folder, trial_id)
    record = read_record_file(path, RECORD_FILE, RUN_AGAIN)
    if record is not None and record["row"]["trial_id"] != trial_id:
        raise DamagedError(path, f"damaged: it is the record of trial {record['row']['trial_id']}", RUN_AGAIN)
    return record


def usable_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record; None if it is missing or damaged, so that the trial must run."""
    try:
        return read_record(folder, trial_id)
    except DamagedError:
        return None


def read_row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns the row of a trial's record; None if it is missing or damaged, so that the trial must run."""
    record = usable_record(folder, trial_id)
    return record["row"] if record else None


def take_record(folder: Path, trial_id: str, *, source: Path, sibling: str, name: str) -> dict[str, Any] | None:
    """Copies the record of a trial that has ended in a sibling sweep, and returns its row.

    The copy is whole, its test metrics stay sealed, and its row names the sweep that ran the trial. Returns None if the sibling's
    record is missing or damaged; then nothing is written.

    Args:
        folder: the sweep folder that takes the record.
        trial_id: the trial.
        source: the sibling's sweep folder.
        sibling: the sibling's name.
        name: the name of the sweep that takes the record; it may once have run the trial itself, and lost its record.

    Raises:
        StorageError: if the record cannot be written.
    """
    record = usable_record(source, trial_id)
    if record is None:
        return None
    row = record["row"]
    origin = row.pop("taken_from", None) or sibling
    row |= {} if origin == name else {"taken_from": origin}
    write_json(record_path(folder, trial_id), record)
    with explain_write_errors(error_path(folder, trial_id)):
        error_path(folder, trial_id).unlink(missing_ok=True)  # of an attempt that failed here
    return row


def clear_attempt(folder: Path, trial_id: str) -> None:
    """Deletes the record and traceback of an earlier attempt at a trial, so that the next attempt does not inherit them.

    Raises:
        StorageError: if they cannot be deleted, for example because a folder is in their place.
    """
    for path in (record_path(folder, trial_id), error_path(folder, trial_id), sign_path(folder, trial_id)):
        with explain_write_errors(path):
            path.unlink(missing_ok=True)


def read_traceback(folder: Path, trial_id: str) -> str | None:
    """Returns the traceback that a failed trial left; None if it is missing or unreadable."""
    try:
        blob = read_regular_file(error_path(folder, trial_id))
    except OSError:
        return None
    return None if blob is None else blob.decode("utf-8", "replace")


def list_trial_folders(folder: Path) -> list[str]:
    """Returns the names of the trial folders in a sweep folder; empty if they cannot be listed.

    Call it before reading the plan: a running sweep plans a trial before it makes the trial's folder.
    """
    try:
        return sorted(os.listdir(folder / "trials"))
    except OSError:
        return []


def describe_unplanned(folder: Path, names: Iterable[str], manifest: SweepManifest) -> str | None:
    """Returns a message about records of trials that are not in the plan, and so are in no table; None if all are planned.

    They remain if somebody removes levels or seeds from the plan, or if the plan is damaged or belongs to another sweep.
    """
    planned = {trial["trial_id"] for trial in manifest.all_trials}
    unplanned = [name for name in names if name not in planned and record_path(folder, name).is_file()]
    if not unplanned:
        return None
    count = "1 record belongs" if len(unplanned) == 1 else f"{len(unplanned)} records belong"
    return (
        f"{folder / 'trials'}: {count} to trials that sweep.json does not plan, such as {unplanned[0]}. No table shows them."
        " Either they come from an earlier plan, or the plan is another sweep's. To keep them, launch their space into this"
        " folder again."
    )


def make_json_safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose values JSON can hold.

    NaN and infinity become null. Surrogate characters, from file names that are not UTF-8, are written as escapes.
    """
    return {name: _make_value_safe(value) for name, value in row.items()}


def _make_value_safe(value: Any) -> Any:
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
