"""The data that a trial gets from a task: three typed, checked, normalised splits."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from orca_sweep.config import Normalise
from orca_sweep.data import (
    Array,
    ConvertedArrays,
    Rows,
    Samples,
    Splits,
    check_array,
    check_disjoint,
    check_labels,
    cut_into_chunks,
    find_converted,
    find_first_value,
    fingerprint,
    load_or_convert,
    locate_first,
    subsample,
)
from orca_sweep.errors import DataError, InputError
from orca_sweep.streams import stream_seed
from orca_sweep.tasks.losses import IGNORED, LossFunction, make_loss, takes_gaps
from orca_sweep.tasks.records import Task
from orca_sweep.tasks.scaling import (
    InputScale,
    RoundingLoss,
    add_preparation,
    map_samples,
    measure_each_channel,
    measure_input_scale,
    measure_points,
)

CLUSTERED = 4096
"""Larger targets are averaged over blocks to at most this many numbers before clustering."""


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's three splits, ready for training.

    Inputs are float32 and normalised with training statistics. Labels are int64, all other targets float32. Numbers and
    dense targets are in the units in which they are scored. A model predicts (y - target_mean) / target_std; both
    statistics have a leading axis of 1, or are None if targets are not normalised.
    """

    task: Task
    """The task with the shapes of its data filled in."""
    train: Samples
    val: Samples
    test: Samples
    target_mean: np.ndarray | None = None
    target_std: np.ndarray | None = None
    fingerprint: str
    input_scale: str = ""
    """How inputs were normalised, in words, with the measured statistics."""

    @cached_property
    def loss(self) -> LossFunction:
        """The task's loss, (predictions, targets) -> mean over a batch."""
        labels = self.train.y if self.task.has_labels and isinstance(self.train.y, np.ndarray) else None
        return make_loss(self.task.loss, self.task.loss_settings, labels, self.task.output_shape[0])


def load_raw_splits(task: Task, data_root: Path, split_seed: int) -> Splits:
    """Returns the splits of the task's load function; converts its files first if needed."""
    source: Path | ConvertedArrays = data_root
    if task.convert is not None:
        source = load_or_convert(task.convert, data_root, task.files)
    return task.load(source, split_seed)


def load_task_data(
    task: Task, data_root: Path, split_seed: int, n_train: int | None, normalise: Normalise | None = None
) -> TaskData:
    """Loads a task, limits training to ``n_train`` samples, and normalises with statistics of these samples.

    ``normalise`` overrides how the task normalises inputs; None keeps the task's own way. Targets are always normalised
    in the task's own way, so that a metric has one unit.

    Raises:
        InputError: if training has fewer samples than ``n_train``.
        DataError: if a file is missing or unsafe, or a split does not have the declared shape.

    Cost: reads rows on disk once for statistics if the task normalises; the rows stay on disk.
    """
    task, splits = _check_splits(task, load_raw_splits(task, data_root, split_seed), data_root)
    train = _limit_training(task, splits.train, n_train, split_seed)
    where = f"task {task.name!r}, inputs"
    measured = measure_input_scale(train.x, normalise or task.normalise_inputs, where)
    scale = add_preparation(measured, task.preparation)
    parts, target_scale = _scale_targets(task, scale, [train, splits.val, splits.test])
    parts = [replace(part, x=_scale_inputs(task, scale, part.x)) for part in parts]
    arrays = (array for part in parts for array in (part.x, part.y, part.groups))
    digest = fingerprint(*(array for array in arrays if array is not None))
    mean, std = target_scale or (None, None)
    train, val, test = parts
    return TaskData(
        task=task, train=train, val=val, test=test, target_mean=mean, target_std=std, fingerprint=digest,
        input_scale=scale.text,
    )  # fmt: skip


def _check_splits(task: Task, splits: Splits, data_root: Path) -> tuple[Task, Splits]:
    """Returns the task with the shapes of its data, and the splits in its types.

    Raises:
        DataError: if the splits are not what the task declares, or cannot be learned from.
    """
    task = _fill_in_shapes(task, splits.train)
    train = _to_declared_types(task, splits.train, "train")
    _check_classes(task, train)
    _check_targets_vary(task, train)
    val, test = (_to_declared_types(task, getattr(splits, name), name) for name in ("val", "test"))
    _check_own_splits(task, Splits(train, val, test), data_root)
    return task, Splits(train, val, test)


def _fill_in_shapes(task: Task, train: Samples) -> Task:
    """Returns the task with the lengths that are known only from its data."""
    sample, output = task.sample_shape, task.output_shape
    if 0 in sample and len(train.x.shape) == len(sample) + 1:
        sample = tuple(n or m for n, m in zip(sample, train.x.shape[1:], strict=True))
    if 0 in output and task.kind == "classification":
        output = (int(np.max(_read_whole(train.y))) + 1 if len(train) else 2,)
        if output == (1,):
            raise DataError(f"task {task.name!r}: all {len(train)} training samples are of one class, so there is nothing"
                            " to distinguish. Check the file, or the task's load function.")  # fmt: skip
    elif 0 in output and len(train.y.shape) == len(output) + 1:
        output = tuple(n or m for n, m in zip(output, train.y.shape[1:], strict=True))
    return replace(task, sample_shape=sample, output_shape=output)


def _check_own_splits(task: Task, splits: Splits, data_root: Path) -> None:
    """Refuses splits of a user's load function that share samples; compares rows on disk once per content.

    The package's own load functions are exempt: they make disjoint splits, or keep a benchmark's splits as they are.
    """
    if _has_own_loader(task):
        return
    where, mark = f"task {task.name!r}", None
    parts = (splits.train, splits.val, splits.test)
    if task.convert is not None and any(isinstance(array, Rows) for part in parts for array in (part.x, part.y)):
        folder = find_converted(task.convert, data_root, task.files)
        digest = fingerprint(*(array for part in parts for array in (part.x, part.y)))[:16]
        mark = None if folder is None else folder / f"disjoint-{digest}"
    if mark is None or not mark.exists():
        check_disjoint(splits, where)
        if mark is not None:
            with suppress(OSError):  # without write access, the next process compares again
                mark.touch()


def _has_own_loader(task: Task) -> bool:
    """Says whether the task's load function is one of the package's own."""
    load = task.load
    while isinstance(load, partial):
        load = load.func
    return (getattr(load, "__module__", None) or "").startswith("orca_sweep.")


def _check_targets_vary(task: Task, train: Samples) -> None:
    """Refuses targets that are equal in all training samples, because there is nothing to learn."""
    if task.kind == "classification":
        return  # _check_classes has made sure that every class occurs
    first = train.y[np.zeros(1, int)]
    if len(train) > 1 and all(
        np.array_equal(np.broadcast_to(first, block.shape), block, equal_nan=block.dtype.kind == "f")
        for block in (train.y[part] for part in cut_into_chunks(train.y))
    ):
        value = f"{first.ravel()[0]:g}" if len(np.unique(first)) == 1 else "the same"
        raise DataError(f"task {task.name!r}: the target is constant: {value} in all {len(train)} training samples. There"
                        " is nothing to learn. Check the file, or the task's load function.")  # fmt: skip


def _check_classes(task: Task, train: Samples) -> None:
    if task.kind != "classification":
        return
    met, K = np.unique(_read_whole(train.y)), task.output_shape[0]
    if len(met) < K:
        missing = np.setdiff1d(np.arange(min(K, len(met) + 10)), met)
        raise DataError(
            f"task {task.name!r}: no training sample of class {', '.join(map(str, missing[:10]))}, but the task has"
            f" {K} classes. A class without samples cannot be learned. Get the whole file, or declare fewer classes."
        )


def _limit_training(task: Task, train: Samples, n_train: int | None, split_seed: int) -> Samples:
    """Returns the first ``n_train`` samples of a seeded order; samples in parts keep all their parts."""
    if n_train is None:
        return train
    n = train.n_wholes
    if n_train == n:
        return train
    if n_train > n:
        raise InputError(f"data.n_train = {n_train}: {task.name!r} has {n} training samples. Ask for fewer.")
    if train.groups is None:
        labels = _read_whole(train.y) if task.kind == "classification" else None
        return train.take(subsample(n, n_train, split_seed, labels))
    _, part_of = np.unique(train.groups, return_inverse=True)
    return train.take(np.flatnonzero(np.isin(part_of, subsample(n, n_train, split_seed))))


def _to_declared_types(task: Task, samples: Samples, split: str) -> Samples:
    """Returns a split in the declared types, checked against the declared shapes."""
    where = f"task {task.name!r}, {split}"
    if not len(samples):
        raise DataError(f"{where}: no samples. Every split needs some. Check the files, or the task's load function.")
    channels, *space = task.sample_shape
    read_shape = (channels - 2, *space) if task.coordinates else task.sample_shape
    x = _to_typed_array(samples.x, f"{where}, inputs", read_shape, is_input=True)
    return Samples(x, _to_typed_targets(task, samples.y, len(x), where), samples.groups)


def _to_typed_targets(task: Task, targets: Array, n: int, where: str) -> Array:
    if task.kind == "classification":
        labels = _read_whole(targets)
        return check_labels(labels, f"{where}, labels", n=n, first=0, n_classes=task.output_shape[0])
    if task.has_labels:
        raw = check_array(_read_whole(targets), f"{where}, labels", (None, *task.target_shape))
        wrong = (raw < IGNORED) | (raw >= task.output_shape[0]) | (raw != np.floor(raw))
        if wrong.any():
            raise DataError(
                f"{where}: holds the label {find_first_value(raw, wrong)} in {locate_first(wrong)}. Labels are 0 to"
                f" {task.output_shape[0] - 1}, or {IGNORED} where a point does not count."
            )
        return raw.astype(np.int64)
    y = _to_typed_array(targets, f"{where}, targets", task.target_shape, allow_nan=takes_gaps(task.loss))
    if task.kind in ("multi-label", "dense-classification"):
        _check_binary(y, where)
    return y


def _read_whole(array: Array) -> np.ndarray:
    return array[:] if isinstance(array, Rows) else array


def _check_binary(y: Array, where: str) -> None:
    for part in cut_into_chunks(y):
        values = y[part]
        wrong = (values != 0) & (values != 1) & ~np.isnan(values)
        if wrong.any():
            raise DataError(
                f"{where}, targets: holds {find_first_value(values, wrong)} in {locate_first(wrong, part.start)}."
                " Targets of this kind are 0 or 1. Is it the right file?"
            )


def _to_typed_array(
    value: Array, where: str, shape: tuple[int, ...], *, allow_nan: bool = False, is_input: bool = False
) -> Array:
    """Returns rows as they are, or an array as float32.

    Only the shape of rows is checked, because their conversion has checked the numbers; of arrays, everything is.
    """
    if isinstance(value, Rows):
        if value.sample_shape != shape:
            raise DataError(
                f"{where}: samples of shape {value.sample_shape}. {shape} was expected. Is it the right file?"
            )
        return value
    array = check_array(value, where, (None, *shape), allow_nan)
    if is_input:
        loss = RoundingLoss()
        for part in cut_into_chunks(array):
            loss.add(array[part], array[part].astype(np.float32))
        loss.check(where)
    # np.array copies, so that the array is contiguous and not shared with what the loader keeps or caches.
    return np.array(array, np.float32, order="C")


# Normalisation ------------------------------------------------------------------------------------


def _scale_targets(
    task: Task, input_scale: InputScale, parts: list[Samples]
) -> tuple[list[Samples], tuple[np.ndarray, np.ndarray] | None]:
    """Returns the splits, and mean and standard deviation of targets that the model is to predict on another scale.

    Targets ``as-inputs`` are scaled themselves instead.
    """
    how = task.normalise_targets
    if how == "none":
        return parts, None
    if how != "as-inputs":
        mean, std = (measure_points if how == "pointwise" else measure_each_channel)(parts[0].y)
        return parts, (mean.astype(np.float32), std.astype(np.float32))
    scale = input_scale
    if scale.how != task.normalise_inputs:  # data.normalise must not change the unit of the metric
        scale = measure_input_scale(parts[0].x, task.normalise_inputs, f"task {task.name!r}, inputs")
    if scale.change is None:
        return parts, None
    return [replace(part, y=map_samples(part.y, scale.change, scale.digest)) for part in parts], None


def _scale_inputs(task: Task, scale: InputScale, x: Array) -> Array:
    if scale.change is not None:
        x = map_samples(x, scale.change, scale.digest)
    return _add_coordinates(x, *task.sample_shape[1:]) if task.coordinates else x


def _add_coordinates(values: Array, height: int, width: int) -> Array:
    """Returns samples (N, C, H, W) with two more channels: the coordinates of row and column, 0 to 1."""
    axes = (np.linspace(0, 1, n, dtype=np.float32) for n in (height, width))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))

    def append_grid(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, np.broadcast_to(grid, (len(batch), *grid.shape))], axis=1)

    return map_samples(values, append_grid, "coordinates", (values.shape[1] + 2, height, width))


def alignment_labels(data: TaskData, n_clusters: int, seed: int) -> np.ndarray:
    """Returns a label for each TRAINING sample, (N,) int64, for embedder training.

    Class labels stay as they are. Other targets are flattened and clustered by seeded k-means. Targets of more than 4096
    numbers are averaged over blocks first. A point without a target counts as zero. Parts of a whole share one label.

    Cost: one pass over the targets; at most N x 4096 numbers in memory.

    Differs from ORCA's code in: the clustering there has no seed.
    """
    y = data.train.y
    if data.task.kind == "classification":
        return y  # type: ignore[return-value]
    from sklearn.cluster import KMeans

    whole = np.arange(len(y))
    if data.train.groups is not None:
        _, first, whole = np.unique(data.train.groups, return_index=True, return_inverse=True)
        y = y.take(first) if isinstance(y, Rows) else y[first]
    distinct = np.concatenate([_flatten_targets(y[part]) for part in cut_into_chunks(y)])
    # With more clusters than distinct targets, scikit-learn would leave some empty.
    k = min(n_clusters, len(np.unique(distinct, axis=0)))
    state = stream_seed(seed, "pseudo-labels") % 2**32
    return KMeans(k, n_init=4, random_state=state).fit_predict(distinct).astype(np.int64)[whole]


def _flatten_targets(batch: np.ndarray) -> np.ndarray:
    """Returns targets (n, ...) as (n, at most 4096) in double precision."""
    values = np.nan_to_num(batch.astype(np.float64))
    while math.prod(values.shape[1:]) > CLUSTERED:
        axis = int(np.argmax(values.shape[1:])) + 1
        even = values.shape[axis] // 2 * 2
        halves = np.take(values, np.arange(even), axis=axis)
        shape = (*values.shape[:axis], even // 2, 2, *values.shape[axis + 1 :])
        values = halves.reshape(shape).mean(axis=axis + 1)
    return values.reshape(len(values), -1)
