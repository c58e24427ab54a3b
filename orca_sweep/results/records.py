"""What a sweep folder holds: the plan last launched, and one record per trial that has ended.

``sweep.json`` is the plan, ``planned.jsonl`` has a line for each trial that was planned while it ran, and
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
from orca_sweep.errors import DamagedError, InputError
from orca_sweep.record_files import (
    explain_unreadable,
    is_begun_record,
    parse_record,
    read_record_file,
    read_regular_file,
    record_text,
)
from orca_sweep.results.columns import SEALED_COLUMNS, TABLE_SCHEMA
from orca_sweep.results.schemas import BEFORE_FILE, MANIFEST_FILE, PLANNED_LINE, RECORD_FILE, open_seal
from orca_sweep.store import explain_write_errors, write_whole

RUN_AGAIN = "The next launch runs the trial again; until then it counts as lost."
PLAN_AGAIN = "Launch the sweep's space again: what was planned on the way is planned anew from the records."


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record with its checksum, atomically.

    Raises:
        StorageError: if it cannot be written; what was there before stays.
    """
    with write_whole(str(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(record_text(content))
        file.flush()
        os.fsync(file.fileno())  # a machine that loses its power must not leave an empty file under the right name


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


PLANNED, BEFORE = "planned.jsonl", "planned-before.json"
ROLE = "replicate"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes what the sweep folder says of itself.

    What was planned on the way last time is planned anew, cell by cell; until it is, it stands.
    """
    try:
        before = _on_the_way(folder)
    except DamagedError:
        before = []  # all of it is planned anew
    write_json(folder / BEFORE, {"trials": before})
    (folder / PLANNED).unlink(missing_ok=True)
    write_json(folder / "sweep.json", manifest)


def trials_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns all trials that a sweep folder knows: those planned now, and those of earlier contents of files and code."""
    return [*manifest["trials"], *manifest.get("earlier", ())]


def append_planned(folder: Path, trials: Iterable[Mapping[str, Any]]) -> None:
    """Adds trials to the plan of a running sweep."""
    with explain_write_errors(folder / PLANNED), (folder / PLANNED).open("a", encoding="utf-8") as file:
        file.writelines(f"{record_text(trial)}\n" for trial in trials)


def _on_the_way(folder: Path) -> list[dict[str, Any]]:
    """Trials planned on the way, now or by an earlier launch, whichever is the last word on a cell and role."""
    now = _planned(folder)
    anew = {(trial["cell_id"], trial.get("role")) for trial in now}
    before = read_record_file(folder / BEFORE, BEFORE_FILE, PLAN_AGAIN) or {"trials": []}
    kept = [trial for trial in before["trials"] if (trial["cell_id"], trial.get("role")) not in anew]
    unique = {(trial["trial_id"], trial["cell_id"], trial.get("role")): trial for trial in (*kept, *now)}
    return [{**trial, "on_the_way": True} for trial in unique.values()]


def _planned(folder: Path) -> list[dict[str, Any]]:
    """Trials that this launch has planned on the way; a last line that a killed driver left half-written is none.

    Raises:
        DamagedError: naming the line that is not what was written.
    """
    path = folder / PLANNED
    try:
        blob = read_regular_file(path) or b""
    except OSError as error:
        raise DamagedError(path, explain_unreadable(error), PLAN_AGAIN) from None
    *lines, last = blob.split(b"\n")
    if last.endswith(b"}") or not is_begun_record(last):
        lines.append(last)
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(parse_record(line, PLANNED_LINE))
        except ValueError as error:
            raise DamagedError(path, f"damaged: line {number}: {error}", PLAN_AGAIN) from None
    return trials


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns what the sweep folder says of itself, or None if it holds no sweep.

    Raises:
        DamagedError: if a file is there that does not hold what was written.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        return None
    again = f"Launch the sweep's space again with --out {folder}: it writes the file anew and keeps the trials that have ended."
    manifest = read_record_file(folder / "sweep.json", MANIFEST_FILE, again)
    if manifest is None:
        return None
    planned = _in_order(manifest, _on_the_way(folder))
    left = max(0, manifest.get("n_later", 0) - len(planned))
    return {**manifest, "n_later": left, "trials": [*manifest["trials"], *planned]}


def _in_order(manifest: Mapping[str, Any], planned: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials planned on the way by cell and role: which cell was searched first is chance, and no matter of tables."""
    cells = [cell["cell_id"] for cell in manifest.get("tuned", ())]
    places = {cell_id: place for place, cell_id in enumerate(cells)} | {
        f"{cell_id}-aa": len(cells) for cell_id in cells
    }
    ours = [trial for trial in planned if trial["cell_id"] in places]
    return sorted(ours, key=lambda trial: (places[trial["cell_id"]], trial["role"] != "search"))


def list_trial_folders(folder: Path) -> list[str]:
    """Returns the names of the folders of trials in a sweep folder; none where they cannot be listed.

    Call it before the plan is read: a trial of a running sweep is planned before it has a folder.
    """
    try:
        return sorted(os.listdir(folder / "trials"))
    except OSError:
        return []


def describe_unplanned(folder: Path, names: Iterable[str], manifest: Mapping[str, Any]) -> str | None:
    """Returns what is to be said of records that are of no trial of the plan and so are in no table; None if there are none.

    A plan from which somebody took levels or seeds leaves them, and so does one that is damaged or of another sweep.
    """
    planned = {trial["trial_id"] for trial in (*manifest["trials"], *manifest.get("earlier", ()))}
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


def manifest_of(folder: Path) -> dict[str, Any]:
    """Returns what a sweep folder says of itself.

    Raises:
        InputError: if it holds no sweep, or is not ours.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no sweep here (no sweep.json). Name a folder that 'orca-sweep launch' wrote.")
    return manifest
