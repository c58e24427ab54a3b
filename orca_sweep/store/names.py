"""The names that a store writes below its root, and the marker that says that a folder is a store.

Only what has such a name, below a root with a marker, is listed or deleted. A folder that merely looks like a store,
with the same folders in it, is somebody's data.
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
"""Lies in the root of every store, written before anything else."""
KIND = "orca-sweep store of stage artifacts"
ROWS = "rows"
"""The folder of what trials had cost."""
STAGE = re.compile(r"[a-z][a-z0-9-]*")
KEY = "[0-9a-f]{32}"
ARTIFACT = re.compile(rf"{KEY}\.safetensors")
REMAINS = re.compile(rf"{KEY}\.safetensors\.damaged|\.{KEY}\.safetensors\.[0-9a-f]{{32}}\.tmp")
"""A file that was set aside as damaged, and what a writer that was killed left."""
LOCK = re.compile(rf"{KEY}\.(lock|lease)")
ROW = re.compile(r"[A-Za-z0-9._-]+\.json")


@dataclass(frozen=True)
class Entry:
    """An artifact in a store, or what a broken-off write or a damaged file left there."""

    stage: str
    name: str
    path: str
    n_bytes: int
    age_s: float
    """Seconds since it was last read (on a file system) or written."""
    is_artifact: bool


def is_marked(fs: fsspec.AbstractFileSystem, root: str) -> bool:
    """Says whether a folder is marked as a store."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        marker = json.loads(fs.cat_file(f"{root}/{MARKER}"))
        return isinstance(marker, dict) and marker.get("kind") == KIND
    return False


def check_markable(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Refuses a folder that holds something and is no store. Hidden files, as file systems make them, do not count.

    Raises:
        InputError: naming what it holds.
    """
    names = [name for name in _names(fs, root) if not name.startswith(".") and name != "lost+found"]
    if names and not is_marked(fs, root):
        raise InputError(
            f"{root}: not empty, and no store of ours ({_first(names)}). Give a new or an empty folder. If it is a store"
            f" that lost its {MARKER}: orca-sweep store mark {root}"
        )


def mark(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Marks a folder as a store, unless it is one; it may be missing or empty. Many may do so at once.

    Raises:
        InputError: if it holds something else.
    """
    if is_marked(fs, root):
        return
    fs.invalidate_cache()  # another may have made the store a moment ago
    check_markable(fs, root)
    write_marker(fs, root)


def remark(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Marks a store again that has lost its marker.

    Raises:
        InputError: if there is no such folder, or it holds anything that no store writes.
    """
    if not fs.isdir(root):
        raise InputError(f"{root}: there is no such folder.")
    foreign = list(itertools.islice(_foreign(fs, root), 4))  # a wrong folder may be a whole disk
    if foreign:
        raise InputError(
            f"{root}: holds what no store writes ({_first(foreign)}). Only a folder with nothing but a store's own files"
            " can be marked again. Move what is not the store's elsewhere."
        )
    write_marker(fs, root)


def write_marker(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """Writes the marker whole or not at all."""
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
    """Returns what a store holds, by stage and name; locks, links and whatever else lies there are left out."""
    files = _local_files(root) if isinstance(fs, LocalFileSystem) else _remote_files(fs, root)
    entries, now = [], time.time()
    for stage, name, n_bytes, written in files:
        is_artifact = ARTIFACT.fullmatch(name) is not None
        if stage == ROWS or not (is_artifact or REMAINS.fullmatch(name)):
            continue
        age = now - written if written else 0.0  # what the system does not date is never old
        entries.append(Entry(stage, name, f"{root}/{stage}/{name}", n_bytes, max(0.0, age), is_artifact))
    return sorted(entries, key=lambda entry: (entry.stage, entry.name))


def remove_entry(fs: fsspec.AbstractFileSystem, root: str, entry: Entry) -> None:
    """Deletes an entry, and nothing that came into its place: no link is followed.

    Raises:
        InputError: if the root is not marked as a store.
        OSError: if the system refuses.
    """
    if not is_marked(fs, root):
        raise InputError(f"{root}: no store (no {MARKER}). Nothing is deleted there.")
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
    """Returns when a listed file was written, as file systems variously say it; 0 if they do not."""
    when = next((item[key] for key in ("mtime", "LastModified", "created", "updated") if item.get(key)), 0.0)
    if isinstance(when, int | float):
        return float(when)
    return float(when.timestamp()) if hasattr(when, "timestamp") else 0.0


def _local_files(root: str) -> Iterator[tuple[str, str, int, float]]:
    """Yields stage, name, bytes and time of change of the regular files in the folders of a store."""
    with os.scandir(root) as folders:
        stages = [item.name for item in folders if STAGE.fullmatch(item.name) and item.is_dir(follow_symlinks=False)]
    for stage in stages:
        with suppress(FileNotFoundError), os.scandir(f"{root}/{stage}") as files:
            for item in files:
                with suppress(FileNotFoundError):  # moved into place, or taken away, in the meantime
                    if item.is_file(follow_symlinks=False):
                        state = item.stat(follow_symlinks=False)
                        yield stage, item.name, state.st_size, state.st_mtime


def _remote_files(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[tuple[str, str, int, float]]:
    for path, item in fs.find(root, detail=True).items():
        stage, _, name = _below(path, root).rpartition("/")
        if STAGE.fullmatch(stage):
            yield stage, name, int(item.get("size") or 0), time_written(item)


def _names(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """What lies in a folder; nothing if there is none."""
    try:
        return sorted(_below(path, root) for path in fs.ls(root, detail=False))
    except FileNotFoundError:
        return []


def _foreign(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[str]:
    """Yields what lies below a folder and is not named, or not the kind of thing, as a store makes it."""
    if not isinstance(fs, LocalFileSystem):
        yield from (name for name in (_below(path, root) for path in fs.find(root)) if not _is_own(name))
        return
    for path, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(f"{path}/{name}")]
        nested = [name for name in folders if path != root or not STAGE.fullmatch(name)]
        names = [_below(f"{path}/{name}", root) for name in files]
        strange = [name for name in names if not _is_own(name) or os.path.islink(f"{root}/{name}")]
        yield from (*(_below(f"{path}/{name}", root) for name in {*links, *nested}), *strange)


def _is_own(name: str) -> bool:
    """Whether a store writes a file of this name, which counts from its root."""
    stage, _, last = name.rpartition("/")
    if not stage:
        return last == MARKER or last.startswith(f".{MARKER}.")
    if stage == ROWS:
        return ROW.fullmatch(last) is not None
    known = any(pattern.fullmatch(last) for pattern in (ARTIFACT, REMAINS, LOCK))
    return known and STAGE.fullmatch(stage) is not None


def _below(path: str, root: str) -> str:
    return path.rstrip("/").removeprefix(root.rstrip("/")).lstrip("/")


def _first(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
