"""The names of files in a store, and the marker that identifies a folder as a store.

Only files with these names, below a root with the marker, are listed or deleted. A folder that merely looks like a store,
because it contains folders of the same names, is somebody's data.
"""

import itertools
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from orca_sweep.errors import InputError

MARKER = "orca-sweep-store.json"
"""The first file that is written into the root of a store."""
KIND = "orca-sweep store of stage artifacts"
ROWS = "rows"
"""The folder of cost rows."""
STAGE = re.compile(r"[a-z][a-z0-9-]*")
KEY = "[0-9a-f]{32}"
ARTIFACT = re.compile(rf"{KEY}\.safetensors")
REMAINS = re.compile(rf"{KEY}\.safetensors\.damaged|\.{KEY}\.safetensors\.[0-9a-f]{{32}}\.tmp")
"""Damaged files that were set aside, and temporary files of killed writers."""
LOCK = re.compile(rf"{KEY}\.(lock|lease)")
ROW = re.compile(r"[A-Za-z0-9._-]+\.json")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An artifact in a store, or its remains: a damaged file or an interrupted write."""

    stage: str
    name: str
    path: str
    n_bytes: int
    age_s: float
    """Seconds since the last write or, on a local file system, the last read."""
    is_artifact: bool


def is_marked(fs: fsspec.AbstractFileSystem, root: str) -> bool:
    """Says whether a folder is marked as a store."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        marker = json.loads(fs.cat_file(f"{root}/{MARKER}"))
        return isinstance(marker, dict) and marker.get("kind") == KIND
    return False


def check_markable(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Refuses a folder that is neither empty nor a store. Hidden files, which file systems make, do not count.

    Raises:
        InputError: if it is refused; the message names its content.
    """
    names = [name for name in _list_names(fs, root) if not name.startswith(".") and name != "lost+found"]
    if names and not is_marked(fs, root):
        raise InputError(
            f"{root}: not empty, and not a store ({_join_first(names)}). Name a new or an empty folder. If it is a store"
            f" that has lost its {MARKER}, run 'orca-sweep store mark {root}'."
        )


def mark_store(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Marks a missing or empty folder as a store, unless it is one. Many workers may do so at once.

    Raises:
        InputError: if the folder contains something else.
    """
    if is_marked(fs, root):
        return
    fs.invalidate_cache()  # another worker may have made the store a moment ago
    check_markable(fs, root)
    write_marker(fs, root)


def mark_again(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Marks a store that has lost its marker.

    Raises:
        InputError: if the folder does not exist, or contains anything that is not a store's.
    """
    if not fs.isdir(root):
        raise InputError(f"{root}: this folder does not exist.")
    foreign = list(itertools.islice(_list_foreign(fs, root), 4))  # a wrong folder may be a whole disk
    if foreign:
        raise InputError(
            f"{root}: contains files that are not a store's ({_join_first(foreign)}). Only a folder with nothing but a"
            " store's files can be marked again. Move the other files elsewhere."
        )
    write_marker(fs, root)


def write_marker(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Writes the marker, whole or not at all."""
    text = json.dumps({"kind": KIND, "note": "orca-sweep store gc deletes below this folder only with this file here."})
    fs.makedirs(root, exist_ok=True)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(f"{root}/{MARKER}", text.encode())
        return
    temporary = f"{root}/.{MARKER}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, f"{root}/{MARKER}")
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def list_entries(fs: fsspec.AbstractFileSystem, root: str) -> list[Entry]:
    """Returns the entries of a store by stage and name, without locks, links and foreign files."""
    files = _list_local(root) if isinstance(fs, LocalFileSystem) else _list_remote(fs, root)
    entries, now = [], time.time()
    for stage, name, n_bytes, written in files:
        is_artifact = ARTIFACT.fullmatch(name) is not None
        if stage == ROWS or not (is_artifact or REMAINS.fullmatch(name)):
            continue
        age_s = max(0.0, now - written) if written else 0.0  # a file without a date is never old
        path = f"{root}/{stage}/{name}"
        entries.append(Entry(stage=stage, name=name, path=path, n_bytes=n_bytes, age_s=age_s, is_artifact=is_artifact))
    return sorted(entries, key=lambda entry: (entry.stage, entry.name))


def remove_entry(fs: fsspec.AbstractFileSystem, root: str, entry: Entry) -> None:
    """Deletes an entry. It follows no links, so it cannot delete anything that has replaced the entry since.

    Raises:
        InputError: if the root is not marked as a store.
        OSError: if the system refuses.
    """
    if not is_marked(fs, root):
        raise InputError(f"{root}: not a store (no {MARKER}), so nothing in it is deleted.")
    with suppress(FileNotFoundError):
        if not isinstance(fs, LocalFileSystem):
            fs.rm_file(entry.path)
            return
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            inner = os.open(entry.stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                if stat.S_ISREG(os.stat(entry.name, dir_fd=inner, follow_symlinks=False).st_mode):
                    os.unlink(entry.name, dir_fd=inner)
            finally:
                os.close(inner)
        finally:
            os.close(folder)


def time_written(item: Mapping[str, Any]) -> float:
    """Returns the time when a listed file was written, in seconds since 1970; 0 if the file system does not say."""
    when = next((item[key] for key in ("mtime", "LastModified", "created", "updated") if item.get(key)), 0.0)
    if isinstance(when, int | float):
        return float(when)
    return float(when.timestamp()) if hasattr(when, "timestamp") else 0.0


def _list_local(root: str) -> Iterator[tuple[str, str, int, float]]:
    """Yields stage, name, bytes and modification time of the regular files in a store's folders."""
    with os.scandir(root) as folders:
        stages = [item.name for item in folders if STAGE.fullmatch(item.name) and item.is_dir(follow_symlinks=False)]
    for stage in stages:
        with suppress(FileNotFoundError), os.scandir(f"{root}/{stage}") as files:
            for item in files:
                with suppress(FileNotFoundError):  # moved or deleted in the meantime
                    if item.is_file(follow_symlinks=False):
                        state = item.stat(follow_symlinks=False)
                        yield stage, item.name, state.st_size, state.st_mtime


def _list_remote(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[tuple[str, str, int, float]]:
    for path, item in fs.find(root, detail=True).items():
        stage, _, name = _relative_to(path, root).rpartition("/")
        if STAGE.fullmatch(stage):
            yield stage, name, int(item.get("size") or 0), time_written(item)


def _list_names(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """Returns the names in a folder; none if it does not exist."""
    try:
        return sorted(_relative_to(path, root) for path in fs.ls(root, detail=False))
    except FileNotFoundError:
        return []


def _list_foreign(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[str]:
    """Yields the files and folders below a folder that no store makes."""
    if not isinstance(fs, LocalFileSystem):
        yield from (name for name in (_relative_to(path, root) for path in fs.find(root)) if not _is_of_store(name))
        return
    for path, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(f"{path}/{name}")]
        nested = [name for name in folders if path != root or not STAGE.fullmatch(name)]
        names = [_relative_to(f"{path}/{name}", root) for name in files]
        strange = [name for name in names if not _is_of_store(name) or os.path.islink(f"{root}/{name}")]
        yield from (*(_relative_to(f"{path}/{name}", root) for name in {*links, *nested}), *strange)


def _is_of_store(name: str) -> bool:
    """Says whether a store writes files with this name, relative to its root."""
    stage, _, last = name.rpartition("/")
    if not stage:
        return last == MARKER or last.startswith(f".{MARKER}.")
    if stage == ROWS:
        return ROW.fullmatch(last) is not None
    is_named = any(pattern.fullmatch(last) for pattern in (ARTIFACT, REMAINS, LOCK))
    return is_named and STAGE.fullmatch(stage) is not None


def _relative_to(path: str, root: str) -> str:
    return path.rstrip("/").removeprefix(root.rstrip("/")).lstrip("/")


def _join_first(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
