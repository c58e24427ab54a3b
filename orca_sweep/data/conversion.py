"""Original files, and their one-time conversion to arrays that every trial on a node maps into memory.

A conversion reads the published files in blocks and appends to .npy files below ``<data root>/converted/<name>``. A
folder of arrays appears complete or not at all. A lock keeps two processes from converting at once. Opening the arrays
copies nothing, because memory maps share the system's page cache.
"""

import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from orca_sweep.data.readers import read_npy
from orca_sweep.data.samples import check_finite
from orca_sweep.errors import DamagedError, DataError
from orca_sweep.record_files import read_record_file, record_text

CONVERSION_SCHEMA = 2
"""Increase it whenever the code of a conversion changes what it writes."""
ABOUT = "about.json"
CONVERT_AGAIN = "The files are converted again."
log = logging.getLogger("orca_sweep")


class _About(TypedDict):
    schema: int
    made: float
    sources: dict[str, list[int]]
    """Size and time of change of each original file."""
    arrays: dict[str, str]
    """The hash of each array's content."""
    written: dict[str, tuple[int, int]]
    """Size and time of change of each array's file."""


ABOUT_FILE: TypeAdapter[Any] = TypeAdapter(_About)
Report = Callable[[int, int], None]
"""(done, total): the progress of a conversion."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A published file of a task."""

    path: str
    """Below the data root."""
    check: Callable[[Path], str] | None = None
    """(data root) -> what the file holds, read from its header; raises DataError if that is not what is expected."""
    look: Callable[[Path], str] | None = None
    """(data root) -> a text that says how many values were checked; raises the DataError that the conversion would."""
    url: str | None = None
    hash: str | None = None
    """``md5:...`` or ``sha256:...``, if the publisher gives one."""
    members: Callable[[Path], list[str]] | None = None
    """(data root) -> paths below it of the files that this one lists and that are needed too."""
    archive: str | None = None
    """The .tar.gz or .zip below the data root that contains the file; url and hash then belong to the archive."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The way a task's files become arrays."""

    name: str
    run: Callable[[Path, "Writer"], None]
    """(data root, writer): reads the files and appends to the writer."""


class Writer:
    """Appends blocks of rows to named arrays in a folder."""

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder, self._show = folder, report
        self.arrays: dict[str, _GrowingArray] = {}

    def report(self, done: int, total: int) -> None:
        """Reports progress, and compares the bytes still to write with the free space.

        Raises:
            DataError: if there is not enough space for the rest.
        """
        self._show(done, total)
        written = sum(array.n_bytes for array in self.arrays.values())
        rest, free = written * (total - done) // max(1, done), shutil.disk_usage(self.folder).free
        if rest > free:
            raise DataError(
                f"{self.folder.parent}: the conversion writes about {(written + rest) / 2**30:.3g} GiB, of which"
                f" {rest / 2**30:.3g} GiB are left; {free / 2**30:.3g} GiB are free. Make room, or convert elsewhere"
                " and copy the folder here."
            )

    def append(self, name: str, block: np.ndarray, where: object = "", allow_nan: bool = False) -> None:
        """Appends rows to the array of that name; the first block fixes its type and the shape of a row.

        Raises:
            DataError: if the shape of a row or the type differs from the first block's, or a number is not finite.
        """
        check_finite(block, f"{where}: {name}", allow_nan, self.arrays[name].n if name in self.arrays else 0)
        if name not in self.arrays:
            self.arrays[name] = _GrowingArray(self.folder / f"{name}.npy", block.dtype, block.shape[1:])
        self.arrays[name].append(block, where)

    def close(self) -> dict[str, str]:
        """Finishes all arrays and returns the hash of each array's content."""
        return {name: array.close() for name, array in self.arrays.items()}


class _GrowingArray:
    """A .npy file whose number of rows is known only at the end."""

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]) -> None:
        self.dtype, self.row, self.n, self.n_bytes = dtype, row, 0, 0
        self.file = path.open("w+b")
        self.start = self._write_header()
        self.digest = hashlib.sha256(f"{dtype.str}{row}".encode())

    def _write_header(self) -> int:
        self.file.seek(0)
        # NumPy leaves room for the first axis to grow, so the header keeps its length.
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.n, *self.row)}
        np.lib.format.write_array_header_1_0(self.file, header)
        return self.file.tell()

    def append(self, block: np.ndarray, where: object) -> None:
        if block.dtype != self.dtype or block.shape[1:] != self.row:
            raise DataError(
                f"{where}: rows of {block.shape[1:]} {block.dtype} after rows of {self.row} {self.dtype}."
                " All parts of a task have the same shape and type. Is it the right file?"
            )
        # A view of the bytes, so that a large block is not copied.
        data = memoryview(np.ascontiguousarray(block).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        self.file.write(data)
        self.n_bytes += len(data)
        self.digest.update(data)
        self.n += len(block)

    def close(self) -> str:
        if self._write_header() != self.start:
            raise DataError(f"{self.file.name}: {self.n} rows do not fit the header. This is a bug: please report it.")
        self.file.close()
        return self.digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ConvertedArrays:
    """A converted task: named arrays, mapped into memory."""

    folder: Path
    digests: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def digest_of(self, *names: str) -> str:
        """Returns the joint digest of some arrays."""
        return " ".join(f"{name}={self.digests[name]}" for name in names)


def find_converted(conversion: Conversion, root: Path, files: Iterable[File]) -> Path | None:
    """Returns the newest folder of arrays made from these files; files deleted since do not matter. None if there is none."""
    now = _read_source_states(root, files)
    candidates = []
    for about_file in (root / "converted" / conversion.name).glob(f"*/{ABOUT}"):
        about = _read_about(about_file.parent)
        if about and all(about["sources"].get(name) == state for name, state in now.items()):
            candidates.append((about["made"], about_file.parent))
    return max(candidates)[1] if candidates else None


def load_or_convert(
    conversion: Conversion, root: Path, files: Iterable[File], report: Report = lambda done, total: None
) -> ConvertedArrays:
    """Returns the arrays of a task; converts its files first if needed.

    Files that have changed in size or time are converted again, beside the older arrays, which running trials may still
    read. Files that are only named in a list are not checked for changes.

    Raises:
        DataError: if a file is missing or not what is expected, or the data root cannot be written to. Nothing is
            left behind then.

    Cost: one pass over the files per data root; later calls open one file per array.
    """
    files = tuple(files)
    folder = find_converted(conversion, root, files) or _convert_under_lock(conversion, root, files, report)
    about = _read_about(folder)
    if about is None:
        raise DataError(f"{folder}: it was removed while it was opened. Run the command again.")
    digests: dict[str, str] = about["arrays"]
    arrays = {name: read_npy(folder / f"{name}.npy") for name in digests}
    _check_content(folder, about, arrays)
    return ConvertedArrays(folder=folder, digests=digests, arrays=arrays)


def _convert_under_lock(conversion: Conversion, root: Path, files: tuple[File, ...], report: Report) -> Path:
    """Returns the folder of new arrays, or the folder that another process made while this one waited."""
    target = root / "converted" / conversion.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(target.with_name(f".{conversion.name}.lock"))):
            return find_converted(conversion, root, files) or _write_arrays(conversion, root, files, report)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Files are converted once, below the data root."
            " Make room or give write access, or convert elsewhere and copy the folder here."
        ) from None


def _write_arrays(conversion: Conversion, root: Path, files: tuple[File, ...], report: Report) -> Path:
    target = root / "converted" / conversion.name
    _remove_half_done(target)
    temporary = target.with_name(f".{conversion.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        # The states are read before the files, so that a change during the conversion makes the arrays outdated.
        before, writer = _read_source_states(root, files), Writer(temporary, report)
        conversion.run(root, writer)
        about = {"schema": CONVERSION_SCHEMA, "made": time.time(), "sources": before, "arrays": writer.close()}
        states = {name: (temporary / f"{name}.npy").stat() for name in writer.arrays}
        about["written"] = {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}
        (temporary / ABOUT).write_text(record_text(about), encoding="utf-8")
        target.mkdir(exist_ok=True)
        folder = target / uuid.uuid4().hex[:12]
        os.replace(temporary, folder)
        return folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_half_done(target: Path) -> None:
    """Removes what killed conversions have left behind."""
    half_done = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.tmp")
    for path in target.parent.iterdir():
        if half_done.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _read_about(folder: Path) -> dict[str, Any] | None:
    """Reads what a folder records about its arrays; None, with a warning, if the record or an array is damaged."""
    path = folder / ABOUT
    try:
        about = read_record_file(path, ABOUT_FILE, CONVERT_AGAIN)
        for name, (size, _) in about["written"].items() if about else ():
            array = folder / f"{name}.npy"
            if not array.is_file() or array.stat().st_size != size:
                raise DamagedError(array, f"not the {size} bytes that were written", CONVERT_AGAIN)
    except DamagedError as error:
        log.warning("%s", error)
        return None
    return about if about and about["schema"] == CONVERSION_SCHEMA else None


def _check_content(folder: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Reads each array whose file was touched after it was written, and compares its hash.

    Raises:
        DataError: if the content has changed.
    """
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        if path.stat().st_mtime_ns == about["written"][name][1]:
            continue
        digest = hashlib.sha256(f"{array.dtype.str}{array.shape[1:]}".encode())
        for start in range(0, len(array), n := max(1, 2**26 // max(1, array[:1].nbytes))):
            digest.update(np.ascontiguousarray(array[start : start + n]).tobytes())
        if digest.hexdigest() != about["arrays"][name]:
            raise DataError(
                f"{path}: not what was converted (its hash has changed). Delete {folder} to convert the files again."
            )


def _read_source_states(root: Path, files: Iterable[File]) -> dict[str, list[int]]:
    """Returns size and time of change of every file that exists."""
    states = {}
    for file in files:
        path = root / file.path
        if path.is_file():
            state = path.stat()
            states[file.path] = [state.st_size, state.st_mtime_ns]
    return states
