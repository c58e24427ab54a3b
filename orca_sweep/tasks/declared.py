"""A user's own task by declaration: arrays in an .npz, .npy, HDF5 or Parquet file, and what they are."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data import (
    Conversion,
    Converted,
    File,
    Rows,
    Samples,
    Splits,
    Writer,
    check_labels,
    read_npy,
    split_groups,
    split_random,
)
from orca_sweep.data.readers import (
    BLOCK_BYTES,
    Stored,
    block_rows,
    hdf5_dataset,
    npz_arrays,
    opened_hdf5,
    reading,
    reading_parquet,
)
from orca_sweep.declaration import TaskDeclaration, parse_task
from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import hint
from orca_sweep.tasks.measures import MASKED_LOSSES
from orca_sweep.tasks.records import KINDS, Task

DEFAULTS = {
    "classification": ("cross-entropy", "error"),
    "multi-label": ("bce", "auroc-error"),
    "regression": ("mse", "mse"),
    "dense-regression": ("mse", "relative-l2"),
    "dense-classification": ("cross-entropy", "error"),
}
"""Loss and metric of a kind that names none."""
HDF5, PARQUET = (".h5", ".hdf5"), (".parquet", ".pq")
ENDINGS = (".npz", ".npy", *HDF5, *PARQUET)


def declared_task(text: str) -> Task:
    """Returns the task that a text declares; no file is touched.

    Raises:
        InputError: with every mistake in it.
    """
    try:
        found = parse_task(text)
    except ValueError as error:
        raise InputError(f"task {text!r}: {error}.") from None
    if found.kind not in KINDS:
        raise InputError(f"task {text!r}: there is no kind {found.kind!r}. {hint(found.kind, KINDS)}")
    if Path(found.path).suffix not in ENDINGS:
        raise InputError(f"task {text!r}: {found.path} is no kind of file that is read. {', '.join(ENDINGS)} are.")
    if found.val_share + found.test_share >= 1:
        raise InputError(f"task {text!r}: val_share {found.val_share} and test_share {found.test_share} leave nothing"
                         " to train on.")  # fmt: skip
    if found.test == found.path:
        raise InputError(f"task {text!r}: the test file is the training file. Leave test out, or name another file.")
    loss, metric = defaults(found)
    loss = found.loss or loss
    dims = len(found.sample_shape) - 1
    body, proxy = ("swin-micro", "mnist5k") if dims == 2 else ("roberta-micro", "pydoc-topics")
    paths = [found.path] if found.test is None else [found.path, found.test]
    if Path(found.path).suffix == ".npy":
        paths += [str(_beside(path, name)) for path in paths for name in (found.target, found.group) if name]
    allow_nan = loss in MASKED_LOSSES
    made_of = (found.path, found.test, found.input, found.target, found.group, found.kind, found.sample_shape,
               found.output_shape, allow_nan)  # fmt: skip
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    normalise: Any = found.normalise or "none"
    return Task(
        name=text,
        dims=dims,
        sample_shape=found.sample_shape,
        kind=found.kind,  # type: ignore[arg-type]
        output_shape=found.output_shape,
        loss=loss,
        metric=found.metric or metric,
        load=partial(load_declared, found=found),
        convert=Conversion(f"{Path(found.path).stem}-{key}", partial(convert_declared, found=found)),
        meaning=f"your own data in {found.path}",
        source="the user",
        licence="the user's",
        files=tuple(File(path, partial(_check, found=found, path=path)) for path in paths),
        packages=("h5py",) if Path(found.path).suffix in HDF5 else (),
        extra="benchmarks",
        normalise_inputs=normalise,
        normalise_targets="channel" if found.kind == "dense-regression" and normalise != "none" else "none",
        recipe={"body.name": body, "proxy": proxy, "embedder.epochs": 20, "embedder.proxy_samples": 1000},
    )


def defaults(found: TaskDeclaration) -> tuple[str, str]:
    """Returns the loss and the metric of a declaration that names none."""
    if found.kind == "dense-classification" and found.output_shape[0] == 1:
        return "masked-bce", "point-auroc-error"
    loss, metric = DEFAULTS[found.kind]
    return loss, "mse" if found.loss in MASKED_LOSSES else metric


def canonical(found: TaskDeclaration) -> TaskDeclaration:
    """Returns the one form of a declaration: files absolute, what is the default anyway left out."""
    found = found.absolute()
    if found.kind not in KINDS:
        return found
    loss, metric = defaults(found)
    found = replace(found, loss=None if found.loss == loss else found.loss)
    return replace(
        found,
        metric=None if found.metric == metric else found.metric,
        normalise=None if found.normalise == "none" else found.normalise,
    )


def _beside(path: str, name: str) -> Path:
    """An .npy file named in a declaration, with or without its ending, counted from the folder of another."""
    return Path(path).parent / (name if name.endswith(".npy") else f"{name}.npy")


def _check(root: Path, found: TaskDeclaration, path: str) -> str:
    if path not in (found.path, found.test):
        return f"{read_npy(Path(path)).shape}"
    stored = _arrays(Path(path), found)
    return "; ".join(f"{name} {array.shape} {array.dtype}" for name, array in stored.items())


# Reading ------------------------------------------------------------------------------------------


def _arrays(path: Path, found: TaskDeclaration) -> dict[str, Stored]:
    """The arrays input and target of a file."""
    names = {"input": found.input, "target": found.target}
    if path.suffix == ".npy":
        places = {"input": path, "target": _beside(str(path), found.target)}
        return {name: _npy_stored(place) for name, place in places.items()}
    if path.suffix in HDF5:
        return {name: _hdf5_stored(path, array) for name, array in names.items()}
    if path.suffix in PARQUET:
        return {name: _parquet_stored(path, columns.split(",")) for name, columns in names.items()}
    arrays = npz_arrays(path)
    for name in names.values():
        if name not in arrays:
            raise DataError(f"{path}: there is no array {name!r} in it. {hint(name, arrays)}")
    return {name: arrays[array] for name, array in names.items()}


def _npy_stored(path: Path) -> Stored:
    array = read_npy(path)
    n = block_rows(array.shape, array.dtype.itemsize)
    return Stored(array.shape, array.dtype, lambda: (array[i : i + n] for i in range(0, len(array), n)))


def _hdf5_stored(path: Path, name: str) -> Stored:
    with opened_hdf5(path) as file:
        data = hdf5_dataset(file, path, name)
        shape, dtype = data.shape, data.dtype

    def blocks() -> Iterator[np.ndarray]:
        n = block_rows(shape, dtype.itemsize)
        with opened_hdf5(path) as again:
            for i in range(0, shape[0], n):
                yield hdf5_dataset(again, path, name)[i : i + n]

    return Stored(shape, dtype, blocks)


def _parquet_stored(path: Path, columns: list[str]) -> Stored:
    """One column of numbers or (nested) lists of them, or several columns of numbers side by side."""
    import pyarrow.parquet as pq

    with reading_parquet(path), pq.ParquetFile(path) as file:
        known = file.schema_arrow.names
        for column in columns:
            if column not in known:
                raise DataError(f"{path}: there is no column {column!r} in it. {hint(column, known)}")
        n_rows = file.metadata.num_rows

    def blocks() -> Iterator[np.ndarray]:
        with reading_parquet(path), pq.ParquetFile(path) as again:
            for batch in again.iter_batches(batch_size=1024, columns=columns):
                parts = [_numbers(batch.column(column), path, column) for column in columns]
                yield parts[0] if len(parts) == 1 else np.stack(parts, axis=1)

    first = next(blocks(), np.zeros((0,)))
    return Stored((n_rows, *first.shape[1:]), first.dtype, blocks)


def _numbers(column: Any, path: Path, name: str) -> np.ndarray:
    """A column as an array (n, ...); lists of one length each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = [len(column)]
    while (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        if column.null_count:
            raise DataError(f"{path}: {name} has empty cells. Take those rows out first.")
        inner = column.flatten()
        lengths = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False))
        length = int(lengths[0]) if len(lengths) else 0
        if len(lengths) > 1:
            raise DataError(f"{path}: {name} holds lists of different length. Samples of one shape were expected.")
        sizes.append(length)
        column = inner
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        what = "empty cells" if column.null_count else str(column.type)
        raise DataError(f"{path}: {name} holds {what}. Numbers, or lists of numbers, were expected.")
    return column.to_numpy(zero_copy_only=False).reshape(sizes)


def _groups(path: Path, name: str, n: int) -> np.ndarray:
    """Which whole each sample belongs to, by number or by name."""
    import pyarrow.parquet as pq

    with reading(path, f"Groups {name!r}"):
        if path.suffix == ".npy":
            values: Any = read_npy(_beside(str(path), name))
        elif path.suffix in PARQUET:
            values = np.array([str(value) for value in pq.read_table(path, columns=[name])[name].to_pylist()])
        elif path.suffix == ".npz":
            arrays = npz_arrays(path)
            values = np.concatenate(list(arrays[name].blocks())) if name in arrays else None
        else:
            with opened_hdf5(path) as file:
                data = file.get(name)
                values = None if data is None else data.asstr()[:] if data.dtype.kind == "O" else data[:]
    values = None if values is None else np.asarray(values).reshape(len(values), -1)
    if values is None or values.shape != (n, 1) or values.dtype.kind not in "biufUSO":
        shape = "nothing" if values is None else f"{values.shape} {values.dtype}"
        raise DataError(f"{path}: group {name!r} is {shape}. One number or name for each of {n} samples was expected.")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise DataError(f"{path}: group {name!r} holds NaN. Every sample belongs to some group.")
    return values[:, 0].astype(str)


# Conversion ---------------------------------------------------------------------------------------


def convert_declared(root: Path, writer: Writer, found: TaskDeclaration) -> None:
    """Inputs as float32 in the declared shape, targets as they are, groups as numbers; test rows come last."""
    task = declared_task(found.text)
    paths = [Path(found.path)] if found.test is None else [Path(found.path), Path(found.test)]
    groups = []
    for path in paths:
        arrays = _arrays(path, found)
        lengths = {name: array.shape[0] if array.shape else 0 for name, array in arrays.items()}
        if len(set(lengths.values())) > 1 or not lengths["input"]:
            raise DataError(f"{path}: " + ", ".join(f"{n} rows of {name}" for name, n in lengths.items())
                            + ". Every sample needs both, and there must be some.")  # fmt: skip
        for name, shape in (("input", task.sample_shape), ("target", task.target_shape)):
            _append(writer, name, arrays[name], shape, task, path)
        writer.append("rows", np.array([lengths["input"]]))
        groups += [_groups(path, found.group, lengths["input"])] if found.group else []
    if groups:
        shared = np.intersect1d(groups[0], groups[1]) if len(groups) > 1 else np.zeros(0)
        if len(shared):
            raise DataError(f"{paths[1]}: group {str(shared[0])!r} is in training and in test. Take it out of one.")
        writer.append("group", np.unique(np.concatenate(groups), return_inverse=True)[1].astype(np.int64))


def _append(writer: Writer, name: str, stored: Stored, shape: tuple[int, ...], task: Task, path: Path) -> None:
    where, wanted = f"{path}: {name}", shape
    found = stored.shape[1:]
    flat = len(found) == 1 and path.suffix in PARQUET
    if [n for n in found if n != 1] != [n for n in wanted if n != 1] and not (
        flat and math.prod(found) == math.prod(wanted)
    ):
        raise DataError(
            f"{where}: samples of shape {found}. {wanted} was declared. Correct sample_shape or output_shape."
        )
    if stored.dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {stored.dtype}. Real numbers were expected. Save it as numbers.")
    labels = name == "target" and task.has_labels
    for block in stored.blocks():
        rows = np.asarray(block).reshape(len(block), *wanted)
        if labels and task.kind == "classification":
            rows = check_labels(rows, where, len(rows), 0, task.output_shape[0])
        elif labels:
            rows = _whole(rows, where)
        else:
            rows = rows.astype(np.float32)
        writer.append(name, rows, path, allow_nan=name == "target" and task.loss in MASKED_LOSSES)


def _whole(rows: np.ndarray, where: str) -> np.ndarray:
    if (rows != np.floor(rows)).any():
        raise DataError(f"{where}: holds the label {rows[rows != np.floor(rows)][0]}. Labels are whole numbers.")
    return rows.astype(np.int64)


def load_declared(data: Converted, split_seed: int, found: TaskDeclaration) -> Splits:
    """Returns seeded splits: stratified by label, whole groups together, or the declared test file as test."""
    task = declared_task(found.text)
    target = data["target"]
    small = target.ndim == 1 or target.nbytes <= BLOCK_BYTES
    y = np.asarray(target) if small or task.has_labels else Rows.of(target, data.digest("target"))
    whole = Samples(Rows.of(data["input"], data.digest("input")), y)
    rows = np.asarray(data["rows"])
    n = int(rows[0])
    labels = np.asarray(target[:n]) if task.kind == "classification" else None
    test_share = 0.0 if found.test else found.test_share
    if found.group:
        groups = np.asarray(data["group"][:n])
        n_groups = len(np.unique(groups))
        n_val, n_test = (_count(share, n_groups) for share in (found.val_share, test_share))
        parts = split_groups(groups, n_val, n_test, split_seed)
    else:
        n_val, n_test = (_count(share, n) for share in (found.val_share, test_share))
        parts = split_random(n, n_val, n_test, split_seed, labels)
    train, val, test = parts
    if found.test:
        test = np.arange(n, int(rows.sum()))
    return Splits(*(whole.take(part) for part in (train, val, test)))


def _count(share: float, n: int) -> int:
    return max(1, round(share * n)) if share else 0
