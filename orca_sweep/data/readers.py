"""Readers of files from outside: they execute nothing, trust no declared size or shape, and raise only DataError."""

import gzip
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, ClassVar

import numpy as np

from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError

# Everything that the readers of NumPy, pickle, zip and gzip raise on damaged bytes (collected by feeding them such bytes).
DAMAGED = (
    ValueError, TypeError, EOFError, pickle.UnpicklingError, AttributeError, LookupError, OverflowError,
    MemoryError, ImportError, SyntaxError, RuntimeError, SystemError, TokenError,
    zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, struct.error,
)  # fmt: skip
LARGEST_PICKLE = 2**32
"""Bytes, after unpacking. A pickle can only be read whole, so a larger one is refused."""
BLOCK_BYTES = 2**24
"""Approximate size of the blocks in which other files are read."""


def open_file(path: Path) -> IO[bytes]:
    """Opens a file for reading.

    Raises:
        DataError: if it cannot be opened, or is a Git LFS pointer.
    """
    refuse_pointer(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Put the file there, or name its folder.") from None


@contextmanager
def report_damage(path: Path, wanted: str) -> Iterator[None]:
    """Turns whatever a reader raises on damaged bytes into a DataError that names the file and what was expected."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). {wanted} was expected. Get the file again.") from None
    except DAMAGED as error:
        raise DataError(
            f"{path}: not readable ({type(error).__name__}: {error}). {wanted} was expected. Get the file again."
        ) from None


@contextmanager
def report_parquet_damage(path: Path) -> Iterator[None]:
    """Does the same for a Parquet file, whose reader raises its own errors."""
    import pyarrow as pa

    open_file(path).close()
    try:
        with report_damage(path, "A Parquet table"):
            yield
    except pa.ArrowException as error:
        raise DataError(f"{path}: not readable ({error}). A Parquet table was expected. Get the file again.") from None


# Pickles ------------------------------------------------------------------------------------------


class _ArrayType:
    """Stands for numpy.ndarray in pickles, which may name it but cannot call it."""


PLAIN_TYPE = re.compile(r"[<>|=]?([biufcSU]\d+|O8?)")


def _make_dtype(code: object, align: object = False, copy: object = True) -> np.dtype:
    """Returns a plain type of numbers, text or objects; types with fields are refused, as they could hide pointers."""
    if not isinstance(code, str) or not PLAIN_TYPE.fullmatch(code):
        raise ValueError(f"an array of type {code!r}")
    return np.dtype(code, False, True)


def _check_size(shape: Any, dtype: Any, n_bytes: int | None, n_objects: int | None) -> None:
    """Refuses an array whose data is not exactly as long as its shape and type say."""
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or any(type(n) is not int for n in shape):
        raise ValueError(f"an array of shape {shape!r} and type {dtype!r}")
    size = math.prod(shape)
    held = n_objects == size if dtype.hasobject else n_bytes == size * dtype.itemsize
    if min(shape, default=0) < 0 or not held or (size == 0 and shape and shape[0] > 0):
        raise ValueError(f"an array of shape {shape} without its data")


def _reconstruct(kind: object, shape: object, typecode: object) -> np.ndarray:
    """Returns the empty array that a pickle then fills; a larger one would be memory without data."""
    if kind is not _ArrayType or shape != (0,):
        raise ValueError(f"an array of shape {shape} without its data")
    return np.ndarray((0,), "b")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    _check_size(shape, dtype, len(buffer), None)
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _make_scalar(dtype: Any, data: Any) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    _check_size((1,), dtype, len(raw), None)
    return np.frombuffer(raw, dtype)[0]


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Returns bytes, which pickles of protocol 2 write as text."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding}")
    return text.encode("latin1")


KNOWN: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _encode_latin1,
    **{
        (f"{core}.{module}", name): function
        for core in ("numpy.core", "numpy._core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _make_scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}
"""Everything that pickled NumPy arrays and scalars ask for, by the names of NumPy 1 and 2. All are our own versions."""


class _Restricted(pickle._Unpickler):
    """Admits NumPy arrays and plain containers; refuses every other name before looking it up.

    It extends the unpickler written in Python, because the one in C lets a pickle set an object's state unseen.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], path: Path) -> None:
        # Python 2 pickles, such as the benchmark's, hold byte strings: latin1 keeps every byte.
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in KNOWN:
            raise DataError(
                f"{self.path}: the pickle asks for {module}.{name}. Only NumPy arrays and plain containers are read;"
                " nothing ran. Get the file from its source again, or save it as plain arrays."
            )
        return KNOWN[module, name]

    def load_build(self) -> None:
        """Checks the state of an array or a type, then sets it."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state, value = stack.pop(), stack[-1]
        if isinstance(value, np.dtype):
            # Only the byte order is taken from the pickle; sizes and flags stay the type's own.
            own = list(np.dtype(value.str).__reduce__()[2])
            own[1] = own[1] if own[1] == "|" else {">": ">", "<": "<", "=": "="}[state[1]]
            value.__setstate__(tuple(own))  # type: ignore[attr-defined]
        elif isinstance(value, np.ndarray):
            _, shape, dtype, by_columns, raw = state
            data = raw.encode("latin1") if isinstance(raw, str) else raw
            n_objects = len(data) if isinstance(data, list) else None
            _check_size(shape, dtype, len(data) if isinstance(data, bytes | bytearray) else None, n_objects)
            value.__setstate__((1, shape, dtype, bool(by_columns), data))  # type: ignore[arg-type]
        else:
            raise ValueError(f"the state of a {type(value).__name__}")

    dispatch[pickle.BUILD[0]] = load_build


class _Limited:
    """A file that gives at most ``limit`` bytes, so that a small archive cannot fill the memory when unpacked."""

    def __init__(self, file: Any, path: Path, limit: int) -> None:
        self.file, self.path, self.left = file, path, limit

    def _count_bytes(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise DataError(
                f"{self.path}: unpacks to more than {LARGEST_PICKLE / 2**30:g} GiB, the most that is read at once."
                " Is it the right file?"
            )
        return data

    def read(self, size: int = -1) -> bytes:
        # One byte beyond the limit is enough to refuse the file; never trust the size that it declares.
        asked = self.left + 1 if size is None or size < 0 else min(size, self.left + 1)
        return self._count_bytes(self.file.read(asked))

    def readline(self) -> bytes:
        return self._count_bytes(self.file.readline(self.left + 1))


def _load_pickle(file: Any, path: Path, to_the_end: bool = False) -> object:
    limited: Any = _Limited(file, path, LARGEST_PICKLE)
    value = _Restricted(limited, path).load()
    while to_the_end and limited.read(2**20):
        pass  # gzip verifies its checksum only at the end
    return value


def read_pickle(path: Path) -> object:
    """Reads a pickle, gzipped or not, with the restricted unpickler.

    Raises:
        DataError: if it is missing, damaged, larger than 4 GiB, or asks for anything but NumPy arrays and plain
            containers.
    """
    with open_file(path) as file, report_damage(path, "A pickle of arrays"):
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.open(file) as unpacked:
                return _load_pickle(unpacked, path, to_the_end=True)
        return _load_pickle(file, path)


def read_pickled_npy(path: Path, shape: tuple[int, ...] = ()) -> Any:
    """Reads a .npy file of Python objects (``np.save`` of a dict or tuple) with the restricted unpickler.

    Returns:
        The object itself for shape (), else the object array.

    Raises:
        DataError: as ``read_pickle``, or if the shape differs.
    """
    with open_file(path) as file, report_damage(path, "Objects saved with np.save"):
        stored_shape, _, dtype = _parse_npy_header(file)
        if not dtype.hasobject or stored_shape != shape:
            raise DataError(f"{path}: holds an array {stored_shape} of {dtype}. Pickled objects {shape} were expected.")
        array = _load_pickle(file, path)
    if isinstance(array, np.ndarray) and array.dtype == object and array.shape == shape:
        return array if shape else array.item()
    raise DataError(f"{path}: holds {type(array).__name__}. Pickled objects {shape} were expected.")


def check_dict(value: object, where: object, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the value if it is a dict with these keys.

    Raises:
        DataError: naming the keys it has, or its type.
    """
    if not isinstance(value, dict) or not set(keys) <= value.keys():
        actual = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{where}: a dict with the keys {', '.join(keys)} was expected, found {actual}.")
    return value


def read_pickled_dict(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Reads a dict saved with ``np.save`` and checks that it has the keys.

    Raises:
        DataError: as ``read_pickled_npy`` and ``check_dict``.
    """
    return check_dict(read_pickled_npy(path), path, keys)


# NumPy's own formats ------------------------------------------------------------------------------


def _parse_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    magic = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if magic == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def read_npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Returns shape and type of a .npy file without reading its data.

    Raises:
        DataError: if it is missing, damaged, or shorter than its header declares.
    """
    with open_file(path) as file, report_damage(path, "A .npy array"):
        shape, _, dtype = _parse_npy_header(file)
        declared = file.tell() + math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and path.stat().st_size < declared:
            raise DataError(f"{path}: {path.stat().st_size} bytes, but its header declares {declared}. It is cut off.")
        return shape, dtype


def read_npy(path: Path) -> np.ndarray:
    """Returns a .npy array as a read-only memory map, without unpickling anything.

    Raises:
        DataError: if the file is missing, not a .npy file, cut off, or holds Python objects.
    """
    shape, dtype = read_npy_header(path)
    if dtype.hasobject:
        raise DataError(f"{path}: not a plain .npy array, it holds Python objects. Save it as an array of numbers.")
    with report_damage(path, "A .npy array"):
        # The system refuses to map an empty range.
        return np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array inside a file: shape and type are known, the data is read in blocks of rows."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read_blocks: Callable[[], Iterator[np.ndarray]]
    """Yields consecutive rows, about 16 MiB at a time."""


def count_block_rows(shape: Sequence[int], itemsize: int) -> int:
    """Returns the number of rows in a block."""
    return max(1, BLOCK_BYTES // max(1, math.prod(shape[1:]) * itemsize))


def open_npz_arrays(path: Path) -> dict[str, StoredArray]:
    """Returns the arrays of an .npz file by name; reads only their headers.

    Raises:
        DataError: if it is missing or damaged, holds Python objects, or an array is not as long as its header declares.
    """
    with open_file(path) as file, report_damage(path, "An .npz of arrays"), zipfile.ZipFile(file) as archive:
        return {
            info.filename.removesuffix(".npy"): _npz_member(path, archive, info)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def _npz_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    with archive.open(info) as member:
        shape, by_columns, dtype = _parse_npy_header(member)
        start = member.tell()
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds Python objects. Only arrays of numbers are read. Save it as numbers.")
    if by_columns and len(shape) > 1:
        raise DataError(f"{path}: {name} is stored by columns. Save it with np.ascontiguousarray.")
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise DataError(
            f"{path}: {name} declares shape {shape} of {dtype}, but holds {info.file_size - start} bytes."
            " The file is damaged. Get it again."
        )

    def read_blocks() -> Iterator[np.ndarray]:
        n, row = count_block_rows(shape, dtype.itemsize), math.prod(shape[1:]) * dtype.itemsize
        with (
            report_damage(path, "An .npz of arrays"),
            zipfile.ZipFile(path) as again,
            again.open(info.filename) as data,
        ):
            data.read(start)
            for first in range(0, shape[0], n):
                count = min(n, shape[0] - first)
                yield np.frombuffer(data.read(count * row), dtype).reshape(count, *shape[1:])

    return StoredArray(shape=shape, dtype=dtype, read_blocks=read_blocks)


# Sound --------------------------------------------------------------------------------------------


def read_wav(path: Path, rate: int) -> np.ndarray:
    """Returns a mono sound (n,) in [-1, 1], float32.

    Raises:
        DataError: if it is missing, damaged, empty or not mono, or its rate differs.
    """
    from scipy.io import wavfile

    open_file(path).close()
    with report_damage(path, "A WAV file"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", wavfile.WavFileWarning)  # it also warns about metadata, which is fine
        actual_rate, sound = wavfile.read(path)
    if any("EOF" in str(warning.message) for warning in caught):
        raise DataError(f"{path}: shorter than its header declares. It is cut off. Get the file again.")
    if actual_rate != rate or sound.ndim != 1 or not len(sound):
        raise DataError(f"{path}: a sound {sound.shape} at {actual_rate} Hz. A mono sound at {rate} Hz was expected.")
    if sound.dtype == np.uint8:
        return ((sound.astype(np.float32) - 128) / 128).astype(np.float32)
    scale = 1.0 if sound.dtype.kind == "f" else float(np.iinfo(sound.dtype).max) + 1
    return (sound / scale).astype(np.float32)
