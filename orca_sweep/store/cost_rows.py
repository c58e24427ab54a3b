"""Rows of trials that have ended, kept in the store so that later plans can forecast costs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from orca_sweep.record_files import parse_record, read_regular_file, record_text
from orca_sweep.store.names import ROWS, time_written

log = logging.getLogger("orca_sweep")


class _Row(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # type: ignore[misc]
    used: NotRequired[dict[str, str]]
    config: NotRequired[dict[str, Any]]
    made: NotRequired[dict[str, str]]


class _NamedRow(TypedDict):
    name: str
    row: _Row


ROW_FILE: TypeAdapter[Any] = TypeAdapter(_NamedRow)


def write_cost_row(fs: fsspec.AbstractFileSystem, root: str, trial_id: str, row: Mapping[str, Any]) -> None:
    """Writes a trial's row, with the artifacts that it used, into the store at ``root``."""
    fs.makedirs(f"{root}/{ROWS}", exist_ok=True)
    fs.pipe_file(f"{root}/{ROWS}/{trial_id}.json", record_text({"name": trial_id, "row": row}).encode())


def read_cost_rows(fs: fsspec.AbstractFileSystem, root: str, most: int) -> list[dict[str, Any]]:
    """Returns up to ``most`` rows, the latest ones if the file system dates files. Logs a warning about damaged rows."""
    folder = f"{root}/{ROWS}"
    listed = fs.ls(folder, detail=True) if fs.exists(folder) else []
    latest = sorted(listed, key=lambda item: (time_written(item), item["name"]), reverse=True)[:most]
    rows, damaged = [], []
    for path in sorted(item["name"] for item in latest):
        try:
            rows.append(_read_cost_row(fs, path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            damaged.append(f"{path}: {error}")
    if damaged:
        log.warning("%s (damaged cost rows: %d; forecasts ignore them. Delete them.)", damaged[0], len(damaged))
    return rows


def _read_cost_row(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    content = parse_record(_read_bytes(fs, path), ROW_FILE)
    if not path.endswith(f"/{content['name']}.json"):
        raise ValueError(f"it is the row of trial {content['name']}")
    row: dict[str, Any] = content["row"]
    return row


def _read_bytes(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Returns a file's bytes, without waiting for a pipe in its place."""
    if not isinstance(fs, LocalFileSystem):
        return bytes(fs.cat_file(path))
    blob = read_regular_file(Path(path))
    if blob is None:
        raise FileNotFoundError(path)
    return blob
