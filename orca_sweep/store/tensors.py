"""Safetensors files with named arrays, JSON metadata, and a checksum of both in the header."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import safetensors.numpy
from fsspec.implementations.local import LocalFileSystem

from orca_sweep.config import canonical_json
from orca_sweep.errors import OrcaSweepError
from orca_sweep.record_files import IN_THE_WAY, explain_unreadable, read_regular_file
from orca_sweep.store.writing import write_whole

Tensors = Mapping[str, np.ndarray]


class CorruptFileError(OrcaSweepError):
    """A tensor file is damaged."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A stored stage output: named arrays and their metadata."""

    tensors: Tensors
    meta: Mapping[str, Any]


def write_tensors(
    path: str, tensors: Tensors, meta: Mapping[str, Any], fs: fsspec.AbstractFileSystem | None = None
) -> None:
    """Writes named arrays and JSON metadata as one safetensors file, atomically.

    Raises:
        StorageError: if the file cannot be written; then no part of it remains.
    """
    fs = fs or LocalFileSystem()
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    text = canonical_json(meta)
    header = {"meta": text, "sha256": state_digest(arrays, text)}
    blob = safetensors.numpy.save(arrays, metadata=header)
    with write_whole(path, fs) as temporary, fs.open(temporary, "wb") as file:
        file.write(blob)


def read_tensors(path: str, fs: fsspec.AbstractFileSystem | None = None) -> Artifact:
    """Reads and checks a file that ``write_tensors`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged.
    """
    fs = fs or LocalFileSystem()
    blob = _read_local(path) if isinstance(fs, LocalFileSystem) else fs.cat_file(path)
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])["__metadata__"]
        tensors = safetensors.numpy.load(blob)
        meta_text, written = header["meta"], header["sha256"]
    except Exception as error:  # safetensors and json raise many kinds of errors
        raise CorruptFileError(f"{path}: not a file that orca-sweep wrote ({type(error).__name__})") from error
    if state_digest(tensors, meta_text) != written:
        raise CorruptFileError(f"{path}: the checksum is wrong")
    return Artifact(tensors=tensors, meta=json.loads(meta_text))


def _read_local(path: str) -> bytes:
    try:
        blob = read_regular_file(Path(path))
    except OSError as error:
        if error.errno not in (*IN_THE_WAY, errno.EACCES, errno.ENOENT):
            raise
        raise CorruptFileError(f"{path}: {explain_unreadable(error)}") from None
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return blob


def state_digest(tensors: Tensors, text: str = "") -> str:
    """Returns the SHA-256 of named arrays: equal digests mean bit-equal arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{array.dtype.str}:{np.shape(tensors[name])}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
