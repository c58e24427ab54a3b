"""What a sweep folder holds: the plan last launched, and one record per trial that has ended.

``sweep.json`` is the plan, ``planned.jsonl`` has a line for each trial that was planned while it ran, and
``trials/<trial_id>/row.json`` is a trial's record: its row, its epochs, its stages and, sealed, its test metrics.
These are the truth; tables are made from them and can be made again at any time.
"""

import base64
import binascii
import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.config import canonical_json
from orca_sweep.errors import InputError
from orca_sweep.results.columns import SEALED_COLUMNS, TABLE_SCHEMA
from orca_sweep.store import whole, writing


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically.

    Raises:
        StorageError: if it cannot be written; what was there before stays.
    """
    with whole(str(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(canonical_json(value))
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
    """Returns the test metrics of a record, by column; empty if it has none.

    Raises:
        InputError: if what is sealed is damaged.
    """
    text = record.get("sealed")
    if text is None:
        return {name: value for name, value in record["row"].items() if name in SEALED_COLUMNS}
    try:
        values = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        return {name: values[name] for name in SEALED_COLUMNS if name in values}
    except (binascii.Error, zlib.error, ValueError, TypeError):
        raise InputError(
            f"trial {record['row'].get('trial_id')}: its sealed test metrics are damaged. Delete its folder below"
            " trials/ and launch again: the trial is then run anew."
        ) from None


def read_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record, or None if it has not ended (or its record is damaged: it is then run again)."""
    try:
        record = json.loads(record_path(folder, trial_id).read_bytes())
        is_ours = record["row"]["trial_id"] == trial_id and "status" in record["row"] and "epochs" in record
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    return record if is_ours else None


def read_row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns the row of a trial's record, or None where there is no record."""
    record = read_record(folder, trial_id)
    return record["row"] if record else None


PLANNED, BEFORE = "planned.jsonl", "planned-before.json"
ROLE = "replicate"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes what the sweep folder says of itself.

    What was planned on the way last time is planned anew, cell by cell; until it is, it stands.
    """
    write_json(folder / BEFORE, _on_the_way(folder))
    (folder / PLANNED).unlink(missing_ok=True)
    write_json(folder / "sweep.json", manifest)


def append_planned(folder: Path, trials: Iterable[Mapping[str, Any]]) -> None:
    """Adds trials to the plan of a running sweep."""
    with writing(folder / PLANNED), (folder / PLANNED).open("a", encoding="utf-8") as file:
        file.writelines(f"{canonical_json(trial)}\n" for trial in trials)


def _on_the_way(folder: Path) -> list[dict[str, Any]]:
    """Trials planned on the way, now or by an earlier launch, whichever is the last word on a cell and role."""
    now = _planned(folder)
    anew = {(trial["cell_id"], trial.get("role")) for trial in now}
    try:
        before = json.loads((folder / BEFORE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = []
    kept = [trial for trial in before if (trial["cell_id"], trial.get("role")) not in anew]
    unique = {(trial["trial_id"], trial["cell_id"], trial.get("role")): trial for trial in (*kept, *now)}
    return [{**trial, "on_the_way": True} for trial in unique.values()]


def _planned(folder: Path) -> list[dict[str, Any]]:
    """Trials that this launch has planned on the way; a line that a killed driver left half-written is none."""
    try:
        lines = (folder / PLANNED).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            trial = json.loads(line)
            found += [trial] if isinstance(trial, dict) and {"trial_id", "cell_id", "config"} <= trial.keys() else []
    return found


class DamagedError(InputError):
    """What the sweep folder says of itself cannot be read; its trials' records can."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns what the sweep folder says of itself, or None if it holds no sweep.

    Raises:
        DamagedError: if the file is there but is not JSON.
        InputError: if it is not ours.
    """
    path = folder / "sweep.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DamagedError(
            f"{path}: damaged, not JSON ({error}). Launch the sweep's space again with --out {folder}: it writes the file"
            " anew and keeps the trials that have ended."
        ) from None
    if not isinstance(manifest, dict) or not {"name", "trials", "factors"} <= manifest.keys():
        raise InputError(f"{path}: not written by orca-sweep. Give another folder with --out.")
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


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinity become null: JSON has no word for them."""
    return {k: None if isinstance(v, float) and not -float("inf") < v < float("inf") else v for k, v in row.items()}


def manifest_of(folder: Path) -> dict[str, Any]:
    """Returns what a sweep folder says of itself.

    Raises:
        InputError: if it holds no sweep, or is not ours.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no sweep here (no sweep.json). Name a folder that 'orca-sweep launch' wrote.")
    return manifest
