"""Locks that keep two trials from computing the same artifact at once.

On a local or shared file system this is a lock of the system, which is freed when its holder dies. Elsewhere it is a lease:
a small file that expires unless its holder renews it.
"""

import contextlib
import inspect
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from filelock import BaseFileLock, FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from orca_sweep.config import canonical_json
from orca_sweep.errors import BusyError, refuse_argument

LEASE_S = 60.0
"""Seconds after which a lease is free unless it is renewed. Should two trials hold it, both compute the same bytes."""
CONDITIONAL_CREATE = {"memory", "s3", "s3a", "gs", "gcs"}
"""File systems that can create a file only if none exists, in one step; S3 and GCS do so by a conditional request."""


def lock_folder(folder: Path, name: str, holder: str) -> BaseFileLock:
    """Makes the folder of a launch, and returns its lock, which is held until it is released.

    Args:
        folder: the folder.
        name: of the lock's file in it.
        holder: what else may hold the lock, such as 'another launch'.

    Raises:
        InputError: if the folder cannot be made, or something else holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"cannot make this folder ({error.strerror})."
        raise refuse_argument("out", folder, rule, "Choose another folder.") from None
    try:
        # A second of patience: `status` looks at the lock by taking it.
        lock = FileLock(folder / name, timeout=1)
        lock.acquire()
    except Timeout:
        remedy = "Wait for it, or choose another folder."
        raise refuse_argument("out", folder, f"{holder} is writing here.", remedy) from None
    return lock


class _LeaseContent(TypedDict):
    owner: str
    until: float


LEASE_FILE: TypeAdapter[Any] = TypeAdapter(_LeaseContent)


@contextlib.contextmanager
def hold_lock(fs: fsspec.AbstractFileSystem, path: str, patience_s: float | None) -> Iterator[None]:
    """Holds the lock of an artifact while the block runs.

    Args:
        fs: the store's file system.
        path: path of the lock without its suffix.
        patience_s: how long to wait for another holder; None waits on.

    Raises:
        BusyError: if the lock is not free within that time.
    """
    if not isinstance(fs, LocalFileSystem):
        with Lease(fs, f"{path}.lease", patience_s):
            yield
        return
    lock = FileLock(f"{path}.lock", timeout=-1 if patience_s is None else patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(lock.lock_file) from None
    try:
        yield
    finally:
        lock.release()


def is_lock_held(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Says whether a lock that a BusyError names is still held; if the system does not answer, it counts as held."""
    try:
        if not isinstance(fs, LocalFileSystem):
            return Lease(fs, path, 0.0).is_held()
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def can_create_conditionally(fs: fsspec.AbstractFileSystem) -> bool:
    """Says whether a file system, in its installed version, can create a file only if none exists, in one step."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    write = getattr(fs, "_pipe_file", fs.pipe_file)
    return bool(protocols & CONDITIONAL_CREATE) and "mode" in inspect.signature(write).parameters


class Lease:
    """A lock on an object store: a small file that its holder renews."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, patience_s: float | None) -> None:
        self.fs, self.path, self.patience_s = fs, path, patience_s
        self.owner = uuid.uuid4().hex
        self.has_ended = threading.Event()

    def __enter__(self) -> None:
        start = time.monotonic()
        while not self._try_to_take():
            if self.patience_s is not None and time.monotonic() - start >= self.patience_s:
                raise BusyError(self.path)
            time.sleep(min(1.0, LEASE_S / 10))
        threading.Thread(target=self._renew_until_ended, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.has_ended.set()
        if self._read_content().get("owner") == self.owner:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm(self.path)

    def is_held(self) -> bool:
        """Says whether a holder has renewed the lease in time."""
        return float(self._read_content().get("until", 0.0)) > time.time()

    def _try_to_take(self) -> bool:
        """Takes the lease if it is free, and says whether it did.

        Without conditional creation, and when an expired lease is replaced, two trials may write at once. Each therefore
        reads the file back: the last writer holds the lease.
        """
        if self.is_held():
            return False
        if can_create_conditionally(self.fs) and not self.fs.exists(self.path):
            return self._create_file()
        self.fs.pipe_file(self.path, self._new_content())
        time.sleep(min(0.2, LEASE_S / 50))
        return bool(self._read_content().get("owner") == self.owner)

    def _create_file(self) -> bool:
        try:
            self.fs.pipe_file(self.path, self._new_content(), mode="create")
        except FileExistsError:
            return False
        except OSError:  # S3 has no specific error for a file that exists
            if self.is_held():
                return False
            raise
        return True

    def _new_content(self) -> bytes:
        return canonical_json({"owner": self.owner, "until": time.time() + LEASE_S}).encode()

    def _renew_until_ended(self) -> None:
        while not self.has_ended.wait(LEASE_S / 3):
            with contextlib.suppress(Exception):  # the next attempt may succeed; if none does, the lease expires
                if self._read_content().get("owner", self.owner) != self.owner:
                    return
                self.fs.pipe_file(self.path, self._new_content())

    def _read_content(self) -> dict[str, Any]:
        try:
            lease: dict[str, Any] = LEASE_FILE.validate_json(self.fs.cat_file(self.path))
        except (FileNotFoundError, ValueError):  # a damaged lease counts as free
            return {}
        return lease
