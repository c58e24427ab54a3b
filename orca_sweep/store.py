"""Stage artifacts: a stage's output under the hash of exactly what it depends on.

One artifact is one safetensors file whose header carries its metadata and a checksum, written under a
temporary name and moved into place, so it is whole or absent. Any fsspec path will do; on a local or
shared file system a lock keeps two trials from computing the same artifact at once. Trial checkpoints
use the same file format.
"""

import contextlib
import hashlib
import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import fsspec
import numpy as np
import safetensors.numpy
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from orca_sweep.config import canonical_json
from orca_sweep.errors import OrcaSweepError

# Raise it whenever a stage's code changes what the stage computes.
STAGE_SCHEMA = 3
NUMERIC_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "scipy")
log = logging.getLogger("orca_sweep")

Tensors = Mapping[str, np.ndarray]


class CorruptFileError(OrcaSweepError):
    """A tensor file does not hold what was written."""


@dataclass(frozen=True)
class Artifact:
    """A stored stage output: named arrays and what is known about them."""

    tensors: Tensors
    meta: Mapping[str, Any]


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """Returns the hash naming a stage's output.

    It covers the inputs, the stage code's schema version, the versions of the libraries that change
    numbers, and the processor architecture. Thread count and device belong into ``inputs``.
    """
    whole = {
        "stage": stage,
        "schema": STAGE_SCHEMA,
        "versions": _versions(),
        "machine": platform.machine(),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]


@cache
def _versions() -> Mapping[str, str]:
    """Of the libraries that change numbers; finding them takes longer than hashing."""
    return {name: version(name) for name in NUMERIC_PACKAGES}


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


class Store:
    """Artifacts below one root, each at ``<stage>/<key>.safetensors``."""

    def __init__(self, root: str) -> None:
        self.fs, path = fsspec.core.url_to_fs(root)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = os.path.abspath(path) if self.is_local else path.rstrip("/")

    def path(self, stage: str, key: str) -> str:
        """Returns where the artifact lies."""
        return f"{self.root}/{stage}/{key}.safetensors"

    def has(self, stage: str, key: str) -> bool:
        """Says whether the artifact is there, without reading it."""
        return bool(self.fs.exists(self.path(stage, key)))

    def get(self, stage: str, key: str) -> Artifact | None:
        """Returns the artifact, or None if it is not there or its checksum is wrong.

        A damaged file is set aside (``.damaged``) and a warning logged: it is then computed again.
        """
        path = self.path(stage, key)
        try:
            artifact = read_tensors(path, self.fs)
            if self.is_local:
                with contextlib.suppress(OSError):  # a store that is only readable
                    os.utime(path)
            return artifact
        except FileNotFoundError:
            return None
        except CorruptFileError as error:
            log.warning("%s. It is set aside and will be computed again.", error)
            with contextlib.suppress(FileNotFoundError):
                self.fs.mv(path, f"{path}.damaged")
            return None

    def put(self, stage: str, key: str, tensors: Tensors, meta: Mapping[str, Any]) -> Artifact:
        """Writes an artifact atomically and returns it."""
        write_tensors(self.path(stage, key), tensors, {**meta, "stage": stage, "key": key}, self.fs)
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

    def entries(self) -> list[Entry]:
        """Returns what the store holds, by stage and name; lock files are left out."""
        now = time.time()
        found = []
        for path in self.fs.find(self.root) if self.fs.exists(self.root) else []:
            stage, _, name = path.removeprefix(f"{self.root}/").rpartition("/")
            if not name.endswith(".lock") and stage:
                age = now - self.fs.modified(path).timestamp()
                is_artifact = name.endswith(".safetensors") and not name.startswith(".")
                found.append(Entry(stage, name, path, int(self.fs.size(path) or 0), max(0.0, age), is_artifact))
        return sorted(found, key=lambda entry: (entry.stage, entry.name))

    def remove(self, entry: Entry) -> None:
        """Deletes an entry; a trial that needs the artifact computes it again."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(entry.path)

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Holds the artifact's lock: others that want to compute it wait, then find it.

        The system frees the lock when its holder dies. Stores that are no file system have none: there
        two trials may compute the same artifact, and the second writes the same bytes again.
        """
        if not self.is_local:
            yield
            return
        self.fs.makedirs(f"{self.root}/{stage}", exist_ok=True)
        with FileLock(f"{self.root}/{stage}/{key}.lock"):
            yield


def write_tensors(
    path: str, tensors: Tensors, meta: Mapping[str, Any], fs: fsspec.AbstractFileSystem | None = None
) -> None:
    """Writes named arrays and JSON metadata as one safetensors file, atomically."""
    fs = fs or LocalFileSystem()
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    text = canonical_json(meta)
    header = {"meta": text, "sha256": state_digest(arrays, text)}
    blob = safetensors.numpy.save(arrays, metadata=header)
    parent, _, name = path.rpartition("/")
    fs.makedirs(parent, exist_ok=True)
    temporary = f"{parent}/.{name}.{uuid.uuid4().hex}.tmp"
    with fs.open(temporary, "wb") as file:
        file.write(blob)
    if isinstance(fs, LocalFileSystem):
        os.replace(temporary, path)
    else:
        fs.mv(temporary, path)


def read_tensors(path: str, fs: fsspec.AbstractFileSystem | None = None) -> Artifact:
    """Reads a file of ``write_tensors`` and checks it.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is not what was written.
    """
    fs = fs or LocalFileSystem()
    with fs.open(path, "rb") as file:
        blob = file.read()
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


def state_digest(tensors: Tensors, text: str = "") -> str:
    """Returns the SHA-256 of named arrays: equal means bit for bit equal."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{array.dtype.str}:{np.shape(tensors[name])}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
