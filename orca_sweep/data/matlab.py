"""Numeric arrays of MATLAB files, version 5 to 7.3, read in blocks along their last axis."""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from orca_sweep.data.hdf5 import get_hdf5_dataset, open_hdf5
from orca_sweep.data.readers import StoredArray, open_file, report_damage
from orca_sweep.errors import DataError

MAT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MAT_MATRIX, MAT_PACKED = 14, 15
MAT_NUMERIC = range(6, 16)
MAT_COMPLEX = 0x0800


def open_mat_array(path: Path, name: str) -> StoredArray:
    """Returns a numeric array of a MATLAB file (version 5 to 7.3); its blocks run along the LAST axis.

    MATLAB stores arrays by columns, so the numbers of one index of the last axis are contiguous in the file. A block
    holds them, in the array's shape without that axis. The whole array is never in memory, unlike with a general reader.

    Raises:
        DataError: if the file is missing or damaged, or has no such array.

    Source: MAT-File Format (MathWorks), level 5.
    """
    with open_file(path) as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 7.3") or head.startswith(b"\x89HDF"):
        return _open_mat73_array(path, name)
    if len(head) < 128 or head[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{path}: not a MATLAB file of version 5 to 7.3. Get the file again.")
    order = "<" if head[126:128] == b"IM" else ">"
    with open_file(path) as file, report_damage(path, "A MATLAB file"):
        names = []
        for variable in _find_variables(file, order):
            header = _MatStream(file, variable).read_header()
            if header.name == name:
                return _open_variable(path, variable, header)
            names.append(header.name)
    raise DataError(f"{path}: there is no array {name!r} in it. It holds: {', '.join(names)[:200]}.")


@dataclass(frozen=True, kw_only=True)
class _Variable:
    """The position of a variable in a version 5 file."""

    start: int
    """Bytes from the start of the file."""
    is_packed: bool
    order: str
    """Byte order of the file: ``<`` or ``>``."""


def _find_variables(file: IO[bytes], order: str) -> list[_Variable]:
    file.seek(0, 2)
    size, start, variables = file.tell(), 128, []
    while start + 8 <= size:
        file.seek(start)
        kind, length = struct.unpack(f"{order}II", file.read(8))
        if start + 8 + length > size:
            raise ValueError(f"an element of {length} bytes where {size - start - 8} are left: the file is cut off")
        if kind in (MAT_MATRIX, MAT_PACKED):
            variables.append(_Variable(start=start, is_packed=kind == MAT_PACKED, order=order))
        start += 8 + length
    return variables


@dataclass(frozen=True, kw_only=True)
class _MatHeader:
    """What precedes the numbers of a variable."""

    name: str
    shape: tuple[int, ...]
    is_numeric: bool


class _MatStream:
    """Reads one variable of a version 5 file from its start, and unpacks no more than asked for."""

    def __init__(self, file: IO[bytes], variable: _Variable) -> None:
        self.file, self.order = file, variable.order
        file.seek(variable.start + 8 if variable.is_packed else variable.start)
        self.unpacker = zlib.decompressobj() if variable.is_packed else None
        self.buffer = b""

    def take_bytes(self, n: int) -> bytes:
        """Returns the next n bytes."""
        if self.unpacker is None:
            data = self.file.read(n)
        else:
            parts = [self.buffer]
            while sum(map(len, parts)) < n and not self.unpacker.eof:
                packed = self.unpacker.unconsumed_tail or self.file.read(2**16)
                if not packed:
                    break
                parts.append(self.unpacker.decompress(packed, 2**20))
            whole = b"".join(parts)
            data, self.buffer = whole[:n], whole[n:]
        if len(data) < n:
            raise ValueError("the file is cut off")
        return data

    def read_tag(self) -> tuple[int, int, bytes | None]:
        """Returns type and length of the next element, and its data if the tag contains them."""
        raw = self.take_bytes(8)
        kind, length = struct.unpack(f"{self.order}II", raw)
        if kind >> 16:
            return kind & 0xFFFF, kind >> 16, raw[4:]
        return kind, length, None

    def read_element(self) -> bytes:
        """Returns the next element of a header."""
        _, length, small_data = self.read_tag()
        if small_data is not None:
            return small_data[:length]
        if length > 4096:
            raise ValueError(f"a header element of {length} bytes")
        return self.take_bytes(-(-length // 8) * 8)[:length]

    def read_header(self) -> _MatHeader:
        """Returns the header; the next tag is that of the numbers."""
        self.take_bytes(8)  # the tag of the whole variable
        (flags,) = struct.unpack(f"{self.order}I", self.read_element()[:4])
        dims = self.read_element()
        shape = struct.unpack(f"{self.order}{len(dims) // 4}i", dims)
        is_numeric = (flags & 0xFF) in MAT_NUMERIC and not flags & MAT_COMPLEX and min(shape, default=-1) >= 0
        return _MatHeader(name=self.read_element().decode("latin1"), shape=shape, is_numeric=is_numeric)


def _open_variable(path: Path, variable: _Variable, header: _MatHeader) -> StoredArray:
    if not header.is_numeric:
        raise DataError(f"{path}: {header.name} is not an array of real numbers. Is it the right file?")

    def read_slabs() -> Iterator[np.ndarray]:
        with open_file(path) as file, report_damage(path, "A MATLAB file"):
            stream = _MatStream(file, variable)
            stream.read_header()
            kind, length, small_data = stream.read_tag()
            dtype = np.dtype(variable.order + MAT_TYPES.get(kind, "V"))
            if length != math.prod(header.shape) * dtype.itemsize:
                raise ValueError(f"{header.name} declares shape {header.shape} but holds {length} bytes")
            n = math.prod(header.shape[:-1])
            for j in range(header.shape[-1]):
                start = j * n * dtype.itemsize
                raw = stream.take_bytes(n * dtype.itemsize) if small_data is None else small_data[start:]
                yield np.frombuffer(raw, dtype, count=n).reshape(header.shape[:-1], order="F")

    return StoredArray(shape=header.shape, dtype=np.dtype("f8"), read_blocks=read_slabs)


def _open_mat73_array(path: Path, name: str) -> StoredArray:
    with open_hdf5(path) as file:
        data = get_hdf5_dataset(file, path, name)
        shape, dtype = tuple(reversed(data.shape)), data.dtype

    def read_slabs() -> Iterator[np.ndarray]:
        with open_hdf5(path) as again:
            for row in get_hdf5_dataset(again, path, name):
                yield row.T

    return StoredArray(shape=shape, dtype=dtype, read_blocks=read_slabs)
