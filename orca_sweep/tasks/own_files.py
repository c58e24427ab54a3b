"""The arrays of a user's own file of any kind: found by name, described by header, read in blocks of rows."""

import itertools
import math
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.config.declaration import TaskDeclaration
from orca_sweep.data import read_npy
from orca_sweep.data.hdf5 import get_hdf5_dataset, open_hdf5, open_hdf5_array
from orca_sweep.data.readers import StoredArray, count_block_rows, open_npz_arrays, report_damage, report_parquet_damage
from orca_sweep.errors import DataError
from orca_sweep.registry import hint

HDF5, PARQUET = (".h5", ".hdf5"), (".parquet", ".pq")
ENDINGS = (".npz", ".npy", *HDF5, *PARQUET)


def path_beside(path: str, name: str) -> Path:
    """Returns the path of an .npy file beside another; a declaration may name it without its ending."""
    return Path(path).parent / (name if name.endswith(".npy") else f"{name}.npy")


def find_array(path: Path, declaration: TaskDeclaration, role: str) -> StoredArray:
    """Returns the ``input`` or the ``target`` array of a file; reads little more than headers.

    Raises:
        DataError: if the file is damaged, or has no such array of numbers.
    """
    name = declaration.input if role == "input" else declaration.target
    if path.suffix == ".npy":
        return _open_npy(path if role == "input" else path_beside(str(path), declaration.target))
    if path.suffix in HDF5:
        return open_hdf5_array(path, name)
    if path.suffix in PARQUET:
        return _open_parquet(path, name)
    return _open_npz_array(path, name)


def _open_npz_array(path: Path, name: str) -> StoredArray:
    arrays = open_npz_arrays(path)
    if name not in arrays:
        raise DataError(f"{path}: there is no array {name!r} in it. {hint(name, arrays)}")
    return arrays[name]


def _open_npy(path: Path) -> StoredArray:
    array = read_npy(path)
    n = count_block_rows(array.shape, array.dtype.itemsize)

    def read_blocks() -> Iterator[np.ndarray]:
        return (array[start : start + n] for start in range(0, len(array), n))

    return StoredArray(shape=array.shape, dtype=array.dtype, read_blocks=read_blocks)


# Parquet ------------------------------------------------------------------------------------------


def _open_parquet(path: Path, name: str) -> StoredArray:
    """Opens one column of numbers or of (nested) lists of numbers, or several columns of numbers as one array."""
    import pyarrow.parquet as pq

    with report_parquet_damage(path), pq.ParquetFile(path) as file:
        known = file.schema_arrow.names
        columns = [name] if name in known else name.split(",")
        for column in columns:
            if column not in known:
                raise DataError(f"{path}: there is no column {column!r} in it. {hint(column, known)}")
        n_rows = file.metadata.num_rows

    def read_blocks() -> Iterator[np.ndarray]:
        with report_parquet_damage(path), pq.ParquetFile(path) as again:
            for batch in again.iter_batches(batch_size=1024, columns=columns):
                parts = [_read_numbers(batch.column(column), path, column) for column in columns]
                yield parts[0] if len(parts) == 1 else np.stack(parts, axis=1)

    first = next(read_blocks(), np.zeros((0,)))
    return StoredArray(shape=(n_rows, *first.shape[1:]), dtype=first.dtype, read_blocks=read_blocks)


def _read_numbers(column: Any, path: Path, name: str) -> np.ndarray:
    """Returns a column as an array (n, ...). Its lists must be equally long; decimals and booleans count as numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, sizes = pa.types, [len(column)]
    while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
        if column.null_count:
            raise DataError(f"{path}: {name} has empty cells. Remove those rows first.")
        inner = column.flatten()
        lengths = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False))
        length = int(lengths[0]) if len(lengths) else 0
        if len(lengths) > 1:
            raise DataError(f"{path}: {name} holds lists of different lengths. Samples of one shape were expected.")
        sizes.append(length)
        column = inner
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    is_number = types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)
    if column.null_count or not is_number:
        what = "empty cells" if column.null_count else f"text ({column.type})" if _is_text(column.type) else column.type
        advice = " Save classes as whole numbers from 0." if _is_text(column.type) else ""
        raise DataError(f"{path}: {name} holds {what}. Numbers, or lists of numbers, were expected.{advice}")
    return column.to_numpy(zero_copy_only=False).reshape(sizes)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


# Groups -------------------------------------------------------------------------------------------


def read_group_shape(path: Path, name: str) -> tuple[tuple[int, ...], str]:
    """Returns shape and type of the groups, read from the header.

    Raises:
        DataError: if the file has no array of that name, or stores it outside of the file.
    """
    import pyarrow.parquet as pq

    if path.suffix == ".npy":
        array = read_npy(path_beside(str(path), name))
        return array.shape, str(array.dtype)
    if path.suffix in PARQUET:
        with report_parquet_damage(path), pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if name not in schema.names:
                raise DataError(f"{path}: there is no column {name!r} in it. {hint(name, schema.names)}")
            return (file.metadata.num_rows,), str(schema.field(name).type)
    if path.suffix == ".npz":
        stored = _open_npz_array(path, name)
        return stored.shape, str(stored.dtype)
    with open_hdf5(path) as file:
        data = get_hdf5_dataset(file, path, name, may_be_text=True)
        return data.shape, str(data.dtype)


def read_groups(path: Path, name: str, n: int) -> np.ndarray:
    """Returns the group of each of n samples, (n,) of text. In the file, groups are numbers or names.

    Raises:
        DataError: if the file does not hold one number or name for each sample.
    """
    with report_damage(path, f"Groups {name!r}"):
        values = _group_values(path, name)
        values = values.reshape(len(values), -1) if values.ndim else values
        texts = values.astype(str) if values.dtype.kind in "biufUSO" else None
    if texts is None or values.shape != (n, 1):
        raise DataError(f"{path}: group {name!r} is {values.shape} {values.dtype}. One number or name for each of {n}"
                        " samples was expected.")  # fmt: skip
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values[:, 0])
        if wrong.any():
            raise DataError(f"{path}: group {name!r} holds NaN or infinity, the first in row {int(np.argmax(wrong))}."
                            " Every sample needs a group.")  # fmt: skip
        # 3.0 and 3 are the same group, also in two files.
        texts = np.array([str(int(v)) if v == int(v) else repr(float(v)) for v in values[:, 0]]).reshape(-1, 1)
    return texts[:, 0]


def _group_values(path: Path, name: str) -> np.ndarray:
    import pyarrow.parquet as pq

    read_group_shape(path, name)
    if path.suffix == ".npy":
        return read_npy(path_beside(str(path), name))
    if path.suffix in PARQUET:
        column = pq.read_table(path, columns=[name])[name]
        if column.null_count:
            raise DataError(f"{path}: group {name!r} has empty cells. Every sample needs a group.")
        values = column.to_pylist()
        return np.array(values) if all(type(v) in (int, float) for v in values) else np.array(list(map(str, values)))
    if path.suffix == ".npz":
        stored = _open_npz_array(path, name)
        return np.concatenate([*stored.read_blocks()]) if stored.shape and stored.shape[0] else np.zeros(stored.shape)
    with open_hdf5(path) as file:
        data = get_hdf5_dataset(file, path, name, may_be_text=True)
        return np.asarray(data[:] if data.dtype.kind in "biuf" else data.asstr()[:])


# Shapes -------------------------------------------------------------------------------------------


def find_shape_problem(stored: StoredArray, wanted: Sequence[int], is_last: bool, may_be_flat: bool) -> str | None:
    """Returns the problem with the shape of stored samples, and its remedy; None if they can be arranged as ``wanted``.

    Args:
        stored: the array.
        wanted: the declared shape of a sample, channels first.
        is_last: whether the declaration says that channels come last in the file.
        may_be_flat: whether a sample may be a flat list of numbers.
    """
    shape, in_file = stored.shape[1:], _shape_in_file(wanted, is_last)
    if not stored.shape:
        return "is a single number. One for each sample was expected."
    if [n for n in shape if n != 1] == [n for n in in_file if n != 1]:
        return None
    if may_be_flat and len(shape) == 1 and math.prod(shape) == math.prod(wanted):
        return None
    text = f"samples of shape {shape}. {in_file} was declared"
    text += f" ({tuple(wanted)} with layout channels-last)." if is_last else "."
    return f"{text} {_suggest_remedy(stored.shape, tuple(wanted), is_last)}"


def _suggest_remedy(shape: tuple[int, ...], wanted: tuple[int, ...], is_last: bool) -> str:
    sample = shape[1:]
    if is_last and sample == wanted:
        return "Its channels come first: leave layout out."
    if not is_last and sample == _shape_in_file(wanted, True):
        return "Its channels come last: declare layout: channels-last."
    for order in itertools.permutations(range(len(shape))) if len(shape) == len(wanted) + 1 <= 5 else ():
        if order != tuple(range(len(shape))) and tuple(shape[i] for i in order)[1:] == wanted:
            return f"Its axes are in a different order: save it as np.transpose(array, {order})."
    return "Correct sample_shape or output_shape."


def _shape_in_file(wanted: Sequence[int], is_last: bool) -> tuple[int, ...]:
    return (*wanted[1:], *wanted[:1]) if is_last else tuple(wanted)


def arrange_axes(rows: np.ndarray, wanted: Sequence[int], is_last: bool) -> np.ndarray:
    """Returns stored samples (n, ...) as (n, *wanted), channels first."""
    shaped = np.asarray(rows).reshape(len(rows), *_shape_in_file(wanted, is_last))
    return np.moveaxis(shaped, -1, 1) if is_last else shaped


def explain_unlikely_channels(shape: Sequence[int]) -> str | None:
    """Returns what a declared shape says if it looks as though its channels came last; None if it does not look so.

    Suspicious are images at most 4 wide with 8 channels or more, and signals with 16 times as many channels as steps.
    """
    channels, *space = shape
    if len(space) == 2 and space[1] <= 4 and min(channels, space[0]) >= 8:
        return f"{channels} channels of {space[0]} x {space[1]} points"
    if len(space) == 1 and channels >= 16 * space[0]:
        return f"{channels} channels of {space[0]} steps"
    return None


def find_similar_file(path: Path) -> str | None:
    """Returns the name of an existing file beside a missing one: with another ending, or with a similar name."""
    try:
        names = sorted(itertools.islice((file.name for file in path.parent.iterdir() if file.is_file()), 10000))
    except OSError:
        return None
    same = [name for name in names if Path(name).stem == path.stem and Path(name).suffix.lower() in ENDINGS]
    near = same or get_close_matches(path.name, names, n=1, cutoff=0.8)
    return near[0] if near else None
