"""Stage artifacts: a stage's output under the hash of exactly what it depends on.

One artifact is one safetensors file whose header carries its metadata and a checksum, written under a
temporary name and moved into place, so it is whole or absent. Any fsspec path will do. A lock keeps two
trials from computing the same artifact at once: the system's own on a local or shared file system, which
frees it when its holder dies, elsewhere a lease that runs out unless its holder renews it. Trial
checkpoints use the same file format.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired

import fsspec
import numpy as np
import safetensors.numpy
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from orca_sweep.config import canonical_json
from orca_sweep.errors import BusyError, InputError, OrcaSweepError, StorageError
from orca_sweep.record_files import IN_THE_WAY, parse_record, read_regular_file, record_text, unreadable
from orca_sweep.store.names import (
    ROWS,
    Entry,
    check_markable,
    is_marked,
    list_entries,
    mark,
    remove_entry,
    time_written,
)

# Raise it whenever a stage's code changes what the stage computes.
STAGE_SCHEMA = 4
NUMERIC_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "scipy", "POT")
LEASE_S = 60.0
"""A lease that was not renewed for so long is anybody's. Should two hold one after all, both compute the same bytes."""
FULL = {
    errno.ENOSPC: "the storage is full",
    errno.EDQUOT: "the storage quota is used up",
    errno.EFBIG: "no file may become so large here",
}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
log = logging.getLogger("orca_sweep")


class _Row(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # type: ignore[misc]
    used: NotRequired[dict[str, str]]
    config: NotRequired[dict[str, Any]]
    made: NotRequired[dict[str, str]]


class _Kept(TypedDict):
    name: str
    row: _Row


class _Held(TypedDict):
    owner: str
    until: float


ROW_FILE: TypeAdapter[Any] = TypeAdapter(_Kept)
"""What a trial had cost, for plans to come."""
LEASE_FILE: TypeAdapter[Any] = TypeAdapter(_Held)

Tensors = Mapping[str, np.ndarray]


class CorruptFileError(OrcaSweepError):
    """A tensor file does not hold what was written."""


@dataclass(frozen=True)
class Artifact:
    """A stored stage output: named arrays and what is known about them."""

    tensors: Tensors
    meta: Mapping[str, Any]


@cache
def numeric_versions() -> str:
    """Returns the versions of the libraries that change numbers, as one text."""
    return " ".join(f"{name}={version(name)}" for name in NUMERIC_PACKAGES)


def made_with(device: str, n_threads: int) -> dict[str, Any]:
    """Returns what must be equal for artifacts to be found again, but for their inputs: what rows are compared by."""
    return {
        "device": device,
        "n_threads": n_threads,
        "versions": numeric_versions(),
        "schema": STAGE_SCHEMA,
        "machine": platform.machine(),
    }


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """Returns the hash naming a stage's output.

    It covers the inputs, the stage code's schema version, the versions of the libraries that change
    numbers, and the processor architecture. Thread count and device belong into ``inputs``.
    """
    whole = {
        "stage": stage,
        "schema": STAGE_SCHEMA,
        "versions": dict(pair.split("=", 1) for pair in numeric_versions().split()),
        "machine": platform.machine(),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]


class Store:
    """Artifacts below one root, each at ``<stage>/<key>.safetensors``.

    Attributes:
        used: the last artifact taken or put of each stage, by this object.
    """

    def __init__(self, root: str, patience_s: float | None = None) -> None:
        """Opens a store.

        Args:
            root: a folder or fsspec path.
            patience_s: how long to wait for an artifact that somebody else makes before BusyError; None waits on.

        Raises:
            OSError: if something else than a folder is in its place.
            ValueError: if fsspec knows no such file system.
        """
        self.fs, path = fsspec.core.url_to_fs(root)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = os.path.abspath(path) if self.is_local else path.rstrip("/")
        if self.is_local:
            _check_root(Path(self.root))
        self.patience_s = patience_s
        self.used: dict[str, str] = {}

    def path(self, stage: str, key: str) -> str:
        """Returns where the artifact lies."""
        return f"{self.root}/{stage}/{key}.safetensors"

    def has(self, stage: str, key: str) -> bool:
        """Says whether the artifact is there, without reading it."""
        return bool(self.fs.exists(self.path(stage, key)))

    def keys(self, stage: str) -> frozenset[str]:
        """Returns the keys of a stage's artifacts, by one listing."""
        try:
            paths = self.fs.ls(f"{self.root}/{stage}", detail=False)
        except FileNotFoundError:
            return frozenset()
        names = (path.rpartition("/")[2] for path in paths)
        return frozenset(n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors") and n[0] != ".")

    def get(self, stage: str, key: str) -> Artifact | None:
        """Returns the artifact, or None if it is not there or its checksum is wrong.

        A damaged file is set aside (``.damaged``) and a warning logged: it is then computed again.
        """
        path = self.path(stage, key)
        try:
            artifact = read_tensors(path, self.fs)
            if (artifact.meta.get("stage"), artifact.meta.get("key")) != (stage, key):
                raise CorruptFileError(f"{path}: holds another artifact than its name says")
            if self.is_local:
                with contextlib.suppress(OSError):  # a store that is only readable
                    os.utime(path)
            self.used[stage] = key
            return artifact
        except FileNotFoundError:
            return None
        except CorruptFileError as error:
            log.warning("%s. It is set aside and will be computed again.", error)
            with contextlib.suppress(OSError):  # a store that is only readable
                self.fs.mv(path, f"{path}.damaged")
            return None

    def put(self, stage: str, key: str, tensors: Tensors, meta: Mapping[str, Any]) -> Artifact:
        """Writes an artifact atomically and returns it."""
        self.make()
        write_tensors(self.path(stage, key), tensors, {**meta, "stage": stage, "key": key}, self.fs)
        self.used[stage] = key
        return Artifact(tensors, meta)

    def once(
        self, stage: str, key: str, compute: Callable[[], tuple[Tensors, Mapping[str, Any]]]
    ) -> tuple[Artifact, bool]:
        """Returns the artifact and whether it was there; if not, computes and stores it while others wait.

        The seconds that computing took are kept in its metadata.
        """
        with self.lock(stage, key):
            artifact = self.get(stage, key)
            if artifact is not None:
                return artifact, True
            start = time.perf_counter()
            tensors, meta = compute()
            return self.put(stage, key, tensors, {**meta, "seconds": time.perf_counter() - start}), False

    def check(self) -> None:
        """Refuses a root that holds something and is no store.

        Raises:
            InputError: naming what it holds.
        """
        check_markable(self.fs, self.root)

    def make(self) -> None:
        """Makes the store where there is none yet: a folder with a marker. Many workers may do so at once.

        Raises:
            StorageError: if something else lies there, or it cannot be written.
        """
        try:
            with writing(self.root):
                mark(self.fs, self.root)
        except InputError as error:
            raise StorageError(str(error)) from None

    def is_marked(self) -> bool:
        """Says whether the root is marked as a store; only then anything is deleted in it."""
        return is_marked(self.fs, self.root)

    def entries(self) -> list[Entry]:
        """Returns what the store holds, by stage and name; lock files are left out, and what is not the store's."""
        return list_entries(self.fs, self.root) if self.fs.exists(self.root) else []

    def remove(self, entry: Entry) -> None:
        """Deletes an entry; a trial that needs the artifact computes it again.

        Raises:
            InputError: if the root is not marked as a store.
            OSError: if the system refuses.
        """
        remove_entry(self.fs, self.root, entry)

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Holds the artifact's lock: others that want to compute it wait, then find it.

        Raises:
            BusyError: if it is not free within the store's patience.
        """
        self.make()
        self.fs.makedirs(f"{self.root}/{stage}", exist_ok=True)
        if not self.is_local:
            with _Lease(self.fs, f"{self.root}/{stage}/{key}.lease", self.patience_s):
                yield
            return
        lock = FileLock(f"{self.root}/{stage}/{key}.lock", timeout=-1 if self.patience_s is None else self.patience_s)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(lock.lock_file) from None
        try:
            yield
        finally:
            lock.release()

    def is_held(self, lock: str) -> bool:
        """Says whether a lock that BusyError named is still held."""
        try:
            if not self.is_local:
                return _Lease(self.fs, lock, 0.0).is_held()
            with FileLock(lock, timeout=0):
                return False
        except (Timeout, OSError):  # what cannot be asked now is asked again
            return True

    # What trials had cost, for plans to come -----------------------------------------------------

    def put_row(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Keeps a trial's row, with the artifacts that it used."""
        self.make()
        self.fs.makedirs(f"{self.root}/{ROWS}", exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{ROWS}/{trial_id}.json", record_text({"name": trial_id, "row": row}).encode())

    def rows(self, most: int) -> list[dict[str, Any]]:
        """Returns up to ``most`` of the rows kept, the latest where the store tells; of damaged ones a warning tells."""
        folder = f"{self.root}/{ROWS}"
        listed = self.fs.ls(folder, detail=True) if self.fs.exists(folder) else []
        latest = sorted(listed, key=lambda item: (time_written(item), item["name"]), reverse=True)[:most]
        rows, damaged = [], []
        for path in sorted(item["name"] for item in latest):
            try:
                kept = parse_record(self._content(path), ROW_FILE)
                if not path.endswith(f"/{kept['name']}.json"):
                    raise ValueError(f"it is the row of {kept['name']}")
                rows.append(kept["row"])
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                damaged.append(f"{path}: {error}")
        if damaged:
            log.warning(
                "%s (%d earlier rows are damaged; no cost is told by them. Delete them.)", damaged[0], len(damaged)
            )
        return rows

    def _content(self, path: str) -> bytes:
        """A file's bytes, without waiting for a pipe in its place."""
        if not self.is_local:
            return bytes(self.fs.cat_file(path))
        blob = read_regular_file(Path(path))
        if blob is None:
            raise FileNotFoundError(path)
        return blob


def _check_root(root: Path) -> None:
    """Refuses a file, or a link that leads nowhere, in the place of a store or above it."""
    if not root.is_dir():
        there = next(path for path in (root, *root.parents) if os.path.lexists(path))
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of a folder", str(there))


class _Lease:
    """A lock on a store that is no file system: a small file that its holder renews."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, patience_s: float | None) -> None:
        self.fs, self.path, self.patience_s = fs, path, patience_s
        self.owner = uuid.uuid4().hex
        self.ended = threading.Event()

    def __enter__(self) -> None:
        start = time.monotonic()
        while not self._take():
            if self.patience_s is not None and time.monotonic() - start >= self.patience_s:
                raise BusyError(self.path)
            time.sleep(min(1.0, LEASE_S / 10))
        threading.Thread(target=self._renew, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self._read().get("owner") == self.owner:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm(self.path)

    def is_held(self) -> bool:
        """Whether somebody holds it and has renewed it."""
        return float(self._read().get("until", 0.0)) > time.time()

    def _take(self) -> bool:
        """Writes our name if nobody's stands there, and reads it back: of two at once, the last one has it."""
        if self.is_held():
            return False
        self._write()
        time.sleep(min(0.2, LEASE_S / 50))
        return bool(self._read().get("owner") == self.owner)

    def _write(self) -> None:
        self.fs.pipe_file(self.path, canonical_json({"owner": self.owner, "until": time.time() + LEASE_S}).encode())

    def _renew(self) -> None:
        while not self.ended.wait(LEASE_S / 3):
            with contextlib.suppress(Exception):  # the next turn may succeed; if none does, the lease runs out
                if self._read().get("owner", self.owner) != self.owner:
                    return
                self._write()

    def _read(self) -> dict[str, Any]:
        try:
            lease: dict[str, Any] = LEASE_FILE.validate_json(self.fs.cat_file(self.path))
        except (FileNotFoundError, ValueError):  # what cannot be read holds nothing
            return {}
        return lease


def find_full_disk(error: BaseException) -> StorageError | None:
    """Returns in words that a file system takes no more, if that is what an error means, whoever raised it; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (*FULL, errno.EROFS):
            return error if isinstance(error, StorageError) else _refusal(cause.filename or "a file of a trial", cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


@contextlib.contextmanager
def writing(path: object) -> Iterator[None]:
    """Says in words that a file cannot be written, and what to do.

    Raises:
        StorageError: in place of the system's own error.
    """
    try:
        yield
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: object, error: OSError) -> StorageError:
    why = error.strerror or str(error)
    if error.errno in READ_ONLY:
        return StorageError(
            f"{path}: cannot be written: {why}. Make it writable, or name another folder with -o or --out. What is there is kept."
        )
    text = f"{FULL[error.errno]} ({why}). Make room" if error.errno in FULL else f"{why}. See that it can be"
    return StorageError(
        f"{path}: cannot be written: {text}, then launch again: what has ended is kept, the rest goes on from its last"
        " saved epoch."
    )


@contextlib.contextmanager
def whole(path: str, fs: fsspec.AbstractFileSystem | None = None) -> Iterator[str]:
    """Gives a name to write to. It becomes the path when the block ends well, and is gone when it does not.

    Raises:
        StorageError: if the system refuses to write.
    """
    fs = fs or LocalFileSystem()
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name}.{uuid.uuid4().hex}.tmp")
    with writing(path):
        fs.makedirs(parent or ".", exist_ok=True)
        try:
            yield temporary
            if isinstance(fs, LocalFileSystem):
                os.replace(temporary, path)
            else:
                fs.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                fs.rm(temporary)
            raise


def write_tensors(
    path: str, tensors: Tensors, meta: Mapping[str, Any], fs: fsspec.AbstractFileSystem | None = None
) -> None:
    """Writes named arrays and JSON metadata as one safetensors file, atomically.

    Raises:
        StorageError: if it cannot be written; nothing of it stays then.
    """
    fs = fs or LocalFileSystem()
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    text = canonical_json(meta)
    header = {"meta": text, "sha256": state_digest(arrays, text)}
    blob = safetensors.numpy.save(arrays, metadata=header)
    with whole(path, fs) as temporary, fs.open(temporary, "wb") as file:
        file.write(blob)


def read_tensors(path: str, fs: fsspec.AbstractFileSystem | None = None) -> Artifact:
    """Reads a file of ``write_tensors`` and checks it.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is not what was written.
    """
    fs = fs or LocalFileSystem()
    blob = _read_local(path) if isinstance(fs, LocalFileSystem) else fs.cat_file(path)
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])["__metadata__"]
        tensors = safetensors.numpy.load(blob)
        meta_text, written = header["meta"], header["sha256"]
    except Exception as error:  # any malformed file ends the same way
        raise CorruptFileError(f"{path}: not a file this program wrote ({type(error).__name__})") from error
    if state_digest(tensors, meta_text) != written:
        raise CorruptFileError(f"{path}: the checksum is wrong")
    return Artifact(tensors, json.loads(meta_text))


def _read_local(path: str) -> bytes:
    try:
        blob = read_regular_file(Path(path))
    except OSError as error:
        if error.errno not in (*IN_THE_WAY, errno.EACCES, errno.ENOENT):
            raise
        raise CorruptFileError(f"{path}: {unreadable(error)}") from None
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return blob


def state_digest(tensors: Tensors, text: str = "") -> str:
    """Returns the SHA-256 of named arrays: equal means bit for bit equal."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{array.dtype.str}:{np.shape(tensors[name])}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
