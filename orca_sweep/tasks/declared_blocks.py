"""The arrays of a declared task in blocks: checked against the declaration, in the declared shape, in training's types."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orca_sweep.config.declaration import TaskDeclaration
from orca_sweep.data import check_finite, check_labels, find_first_value, locate_first
from orca_sweep.data.readers import StoredArray
from orca_sweep.errors import DataError
from orca_sweep.tasks.losses import IGNORED, takes_gaps
from orca_sweep.tasks.own_files import PARQUET, arrange_axes, find_array, find_shape_problem
from orca_sweep.tasks.records import Task
from orca_sweep.tasks.scaling import RoundingLoss

LAYOUTS = ("channels-first", "channels-last")


def open_declared_array(path: Path, declaration: TaskDeclaration, name: str, task: Task) -> StoredArray:
    """Returns the ``input`` or ``target`` array of a file, if its type and shape are the declared ones.

    Raises:
        DataError: if they are not, or there is no such array.
    """
    stored = find_array(path, declaration, name)
    where = f"{path}: {name}"
    if stored.shape[:1] == (0,):
        return stored  # one later message says of all arrays that they hold no samples
    if stored.dtype.kind in "USO":
        raise DataError(f"{where} holds text ({stored.dtype}). Real numbers were expected. Number the classes from 0, as"
                        " np.unique(array, return_inverse=True)[1] does.")  # fmt: skip
    if stored.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {stored.dtype}. Real numbers were expected. Save it as numbers.")
    is_last = _has_channels_last(declaration, task, name)
    problem = find_shape_problem(stored, _find_declared_shape(task, name), is_last, path.suffix in PARQUET)
    if problem:
        raise DataError(f"{where}: {problem}")
    return stored


def _find_declared_shape(task: Task, name: str) -> tuple[int, ...]:
    return task.sample_shape if name == "input" else task.target_shape


def _has_channels_last(declaration: TaskDeclaration, task: Task, name: str) -> bool:
    """Says whether the channels of an array come last. Targets with channels follow the layout, too."""
    has_channels = name == "input" or (task.is_dense and not task.has_labels)
    return declaration.layout == LAYOUTS[1] and has_channels


def read_typed_blocks(path: Path, declaration: TaskDeclaration, name: str, task: Task) -> Iterator[np.ndarray]:
    """Yields the rows of an array in the declared shape, typed for training: labels as int64, numbers as float32.

    Raises:
        DataError: at the first value that the task does not allow; at the end, if rounding to float32 loses too much.
    """
    stored, shape = open_declared_array(path, declaration, name, task), _find_declared_shape(task, name)
    is_last = _has_channels_last(declaration, task, name)
    where, first_row, loss = f"{path}: {name}", 0, RoundingLoss()
    for block in stored.read_blocks():
        rows = arrange_axes(block, shape, is_last)
        if name == "input":
            check_finite(rows, where, first_row=first_row)
            typed = _to_float32(rows, where, first_row)
            loss.add(rows, typed)
        else:
            typed = _to_targets(rows, where, task, first_row)
        yield typed
        first_row += len(rows)
    loss.check(where)


def _to_targets(rows: np.ndarray, where: str, task: Task, first_row: int) -> np.ndarray:
    n_classes = task.output_shape[0]
    if task.kind == "classification":
        return check_labels(rows, where, n=len(rows), first=0, n_classes=n_classes, first_row=first_row)
    if task.has_labels:
        return _to_point_labels(rows, where, n_classes, first_row)
    check_finite(rows, where, takes_gaps(task.loss), first_row)
    if task.kind in ("multi-label", "dense-classification"):
        _check_binary(rows, where, first_row)
    return _to_float32(rows, where, first_row)


def _check_binary(rows: np.ndarray, where: str, first_row: int) -> None:
    wrong = (rows != 0) & (rows != 1) & ~np.isnan(rows.astype(np.float64))
    if wrong.any():
        raise DataError(f"{where} holds {find_first_value(rows, wrong)} in {locate_first(wrong, first_row)}. Targets of"
                        " this kind are 0 or 1. Is it the right file?")  # fmt: skip


def _to_float32(rows: np.ndarray, where: str, first_row: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        small = rows.astype(np.float32)
    lost = np.isinf(small) & ~np.isinf(rows)
    if lost.any():
        raise DataError(f"{where} holds {find_first_value(rows, lost)} in {locate_first(lost, first_row)}, more than"
                        " float32 can hold (3.4e38). Use a larger unit.")  # fmt: skip
    return small


def _to_point_labels(rows: np.ndarray, where: str, n_classes: int, first_row: int) -> np.ndarray:
    wrong = (rows != np.floor(rows)) | (rows < IGNORED) | (rows >= n_classes)
    if wrong.any():
        raise DataError(
            f"{where}: holds the label {find_first_value(rows, wrong)} in {locate_first(wrong, first_row)}. Labels are whole"
            f" numbers from 0 to {n_classes - 1}, or {IGNORED} where a point does not count."
        )
    return rows.astype(np.int64)
