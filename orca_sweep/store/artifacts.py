"""Stage artifacts: the output of each stage, stored by the hash of exactly what it depends on.

An artifact is a file of ``tensors.py`` that is written under a temporary name and then moved, so it is whole or absent. The
root may be any fsspec path.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from orca_sweep.errors import InputError, StorageError
from orca_sweep.store.cost_rows import read_cost_rows, write_cost_row
from orca_sweep.store.locks import hold_lock, is_lock_held
from orca_sweep.store.names import Entry, check_markable, is_marked, list_entries, mark_store, remove_entry
from orca_sweep.store.tensors import Artifact, CorruptFileError, Tensors, read_tensors, write_tensors
from orca_sweep.store.writing import explain_write_errors

log = logging.getLogger("orca_sweep")


class Store:
    """Artifacts below one root, each at ``<stage>/<key>.safetensors``.

    Attributes:
        used: by stage, the key of the artifact that this object read or wrote last.
    """

    def __init__(self, root: str, patience_s: float | None = None) -> None:
        """Opens a store.

        Args:
            root: a folder or fsspec path.
            patience_s: seconds to wait for an artifact that another trial is making, before BusyError; None waits forever.

        Raises:
            OSError: if something other than a folder is in the root's place.
            ValueError: if fsspec knows no such file system.
        """
        self.fs, path = fsspec.core.url_to_fs(root)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = os.path.abspath(path) if self.is_local else path.rstrip("/")
        if self.is_local:
            _check_folder(Path(self.root))
        self.patience_s = patience_s
        self.used: dict[str, str] = {}

    # Artifacts -----------------------------------------------------------------------------------

    def path_of(self, stage: str, key: str) -> str:
        """Returns the path of an artifact, whether it exists or not."""
        return f"{self.root}/{stage}/{key}.safetensors"

    def has(self, stage: str, key: str) -> bool:
        """Says whether an artifact exists, without reading it."""
        return bool(self.fs.exists(self.path_of(stage, key)))

    def list_keys(self, stage: str) -> frozenset[str]:
        """Returns the keys of a stage's artifacts, with one listing."""
        try:
            paths = self.fs.ls(f"{self.root}/{stage}", detail=False)
        except FileNotFoundError:
            return frozenset()
        names = (path.rpartition("/")[2] for path in paths)
        return frozenset(n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors") and n[0] != ".")

    def get(self, stage: str, key: str) -> Artifact | None:
        """Returns an artifact, or None if it does not exist or is damaged.

        A damaged file is renamed (``.damaged``) with a warning, so that the artifact is computed again.
        """
        path = self.path_of(stage, key)
        try:
            artifact = read_tensors(path, self.fs)
            if (artifact.meta.get("stage"), artifact.meta.get("key")) != (stage, key):
                raise CorruptFileError(f"{path}: contains another artifact than its name says")
        except FileNotFoundError:
            return None
        except CorruptFileError as error:
            log.warning("%s. The file is set aside, and the artifact is computed again.", error)
            with contextlib.suppress(OSError):  # the store may be read-only
                self.fs.mv(path, f"{path}.damaged")
            return None
        if self.is_local:
            with contextlib.suppress(OSError):  # the store may be read-only
                os.utime(path)
        self.used[stage] = key
        return artifact

    def put(self, stage: str, key: str, tensors: Tensors, meta: Mapping[str, Any]) -> Artifact:
        """Writes an artifact atomically and returns it."""
        self.make_root()
        write_tensors(self.path_of(stage, key), tensors, {**meta, "stage": stage, "key": key}, self.fs)
        self.used[stage] = key
        return Artifact(tensors=tensors, meta=meta)

    def get_or_compute(
        self, stage: str, key: str, compute: Callable[[], tuple[Tensors, Mapping[str, Any]]]
    ) -> tuple[Artifact, bool]:
        """Returns an artifact and whether it existed; computes and stores a missing one while other trials wait.

        Its metadata keep the seconds that the computation took.
        """
        with self.lock(stage, key):
            artifact = self.get(stage, key)
            if artifact is not None:
                return artifact, True
            start = time.perf_counter()
            tensors, meta = compute()
            return self.put(stage, key, tensors, {**meta, "seconds": time.perf_counter() - start}), False

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Holds an artifact's lock; a trial that wants to compute the same artifact waits, then reads it.

        Raises:
            BusyError: if the lock is not free within ``patience_s``.
        """
        self.make_root()
        self.fs.makedirs(f"{self.root}/{stage}", exist_ok=True)
        with hold_lock(self.fs, f"{self.root}/{stage}/{key}", self.patience_s):
            yield

    def is_held(self, lock: str) -> bool:
        """Says whether a lock that a BusyError names is still held."""
        return is_lock_held(self.fs, lock)

    # The root and its entries --------------------------------------------------------------------

    def check_root(self) -> None:
        """Refuses a root that is neither empty nor a store.

        Raises:
            InputError: if it is refused; the message names its content.
        """
        check_markable(self.fs, self.root)

    def make_root(self) -> None:
        """Makes the store, a folder with a marker, unless it exists. Many workers may do so at once.

        Raises:
            StorageError: if something else is in its place, or it cannot be written.
        """
        try:
            with explain_write_errors(self.root):
                mark_store(self.fs, self.root)
        except InputError as error:
            raise StorageError(str(error)) from None

    def is_marked(self) -> bool:
        """Says whether the root is marked as a store; nothing is deleted in a folder that is not."""
        return is_marked(self.fs, self.root)

    def list_entries(self) -> list[Entry]:
        """Returns the entries of the store by stage and name, without locks and foreign files."""
        return list_entries(self.fs, self.root) if self.fs.exists(self.root) else []

    def remove_entry(self, entry: Entry) -> None:
        """Deletes an entry. A trial that needs the artifact computes it again.

        Raises:
            InputError: if the root is not marked as a store.
            OSError: if the system refuses.
        """
        remove_entry(self.fs, self.root, entry)

    # Costs of trials -----------------------------------------------------------------------------

    def put_row(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Keeps a trial's row, with the artifacts that it used, for forecasts of later plans."""
        self.make_root()
        write_cost_row(self.fs, self.root, trial_id, row)

    def read_rows(self, most: int) -> list[dict[str, Any]]:
        """Returns up to ``most`` of the rows, the latest ones if the file system dates files."""
        return read_cost_rows(self.fs, self.root, most)


def _check_folder(root: Path) -> None:
    """Refuses a root that is a file or a broken link, or that is below one."""
    if not root.is_dir():
        nearest = next(path for path in (root, *root.parents) if os.path.lexists(path))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of a folder", str(nearest))
