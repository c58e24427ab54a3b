"""What a task is, and what a trial gets of it: three typed, checked, normalised splits."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from orca_sweep.config import Normalise
from orca_sweep.data import (
    Array,
    Conversion,
    ConvertedArrays,
    File,
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
    missing_packages,
    subsample,
)
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import hint
from orca_sweep.stats.modes import Mode
from orca_sweep.streams import stream_seed
from orca_sweep.tasks.losses import IGNORED, LOSSES, LossFunction, make_loss, takes_gaps
from orca_sweep.tasks.measures import METRICS
from orca_sweep.tasks.scaling import (
    InputScale,
    RoundingLoss,
    add_preparation,
    map_samples,
    measure_each_channel,
    measure_input_scale,
    measure_points,
)

NORMALISE = get_args(Normalise)
TARGET_NORMALISE = ("none", "channel", "pointwise", "as-inputs")
TargetNormalise = Literal["none", "channel", "pointwise", "as-inputs"]
Kind = Literal["classification", "multi-label", "regression", "dense-regression", "dense-classification"]
KINDS = ("classification", "multi-label", "regression", "dense-regression", "dense-classification")
CLUSTERED = 4096
"""Targets of more numbers are averaged over blocks down to this many before they are clustered."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One target problem."""

    name: str
    dims: int
    """1 for sequences, 2 for images: the kind of body it takes."""
    sample_shape: tuple[int, ...]
    """(C, L) or (C, H, W); 0 where only the data says."""
    kind: Kind
    output_shape: tuple[int, ...]
    """(K,) for labels and numbers; (C, L) or (C, H, W) for dense targets, C the classes if those are labels."""
    loss: str
    metric: str
    load: Callable[[Any, int], Splits]
    """(data root, split seed) -> raw splits; with ``convert`` the first argument is the converted arrays."""
    meaning: str
    source: str
    licence: str
    files: tuple[File, ...] = ()
    """Files below the data root."""
    convert: Conversion | None = None
    packages: tuple[str, ...] = ()
    extra: str | None = None
    n_train_max: int | None = None
    """Training samples there are, where that is known without reading files."""
    normalise_inputs: Normalise = "none"
    """What ``data.normalise`` is unless a space says otherwise: what the benchmark does."""
    preparation: str = ""
    """How the load function gives the inputs, before they are normalised, in words: ``bytes / 255``."""
    codes: bool = False
    """Whether inputs are one-hot or numbers of tokens: they have no scale, so ``data.normalise`` is none."""
    normalise_targets: TargetNormalise = "none"
    """``as-inputs``: targets are later states of the inputs. They are brought to the scale of ``normalise_inputs`` and
    scored there, whatever ``data.normalise`` does to the inputs."""
    coordinates: bool = False
    """Whether two channels with the grid's coordinates, 0 to 1, follow the inputs; they count in ``sample_shape``."""
    splits_are_fixed: bool = False
    """Whether the data come in three parts, so that no split seed draws them."""
    augments: bool = False
    """Whether training samples are augmented while ``data.augment`` is on."""
    loss_settings: Mapping[str, Any] = field(default_factory=dict)
    more_metrics: tuple[str, ...] = ()
    """Metrics measured on the test split beside the task's own."""
    declaration: str | None = None
    """The text that declares it, if one does."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What a trial of this task takes unless the space says otherwise, by dotted config path."""

    def __post_init__(self) -> None:
        problems = list(_find_mistakes(self))
        if problems:
            raise InputError([f"task {self.name!r}: {problem}" for problem in problems])

    @property
    def mode(self) -> Mode:
        """Which way round trials of the task are compared: a fact of its metric."""
        return METRICS.get(self.metric).mode

    @property
    def is_dense(self) -> bool:
        """Whether there is a target per point."""
        return self.kind.startswith("dense")

    @property
    def has_labels(self) -> bool:
        """Whether targets are whole-number labels."""
        return self.kind == "classification" or (self.kind == "dense-classification" and self.output_shape[0] != 1)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target: () for a label, (L,) or (H, W) for a label per point, else as the output."""
        return self.output_shape[1:] if self.has_labels else self.output_shape


def _find_mistakes(task: Task) -> Iterator[str]:
    if task.dims not in (1, 2) or len(task.sample_shape) != task.dims + 1:
        yield f"dims {task.dims}, sample_shape {task.sample_shape}. dims is 1 with (C, L) or 2 with (C, H, W)."
    if task.kind not in KINDS:
        yield f"kind {task.kind!r}. {hint(str(task.kind), KINDS)}"
    elif task.kind == "classification" and task.output_shape == (1,):
        yield "output_shape (1,) is one class only. Classification tells two classes or more apart."
    elif len(task.output_shape) != (task.dims + 1 if task.is_dense else 1):
        yield f"output_shape {task.output_shape}. It is (K,), or (C, L) or (C, H, W) if the kind is dense."
    if any(n < 0 for n in (*task.sample_shape, *task.output_shape)):
        yield f"sample_shape {task.sample_shape}, output_shape {task.output_shape}. Lengths are 1 or more; 0: as the data."
    if task.loss not in LOSSES:
        yield LOSSES.unknown(task.loss)
    elif task.kind in KINDS and LOSSES.get(task.loss).takes_labels not in (None, task.has_labels):
        fitting = [name for name in LOSSES.names() if LOSSES.get(name).takes_labels in (None, task.has_labels)]
        yield (
            f"loss {task.loss!r} for kind {task.kind!r}. Labels take cross-entropy or balanced-cross-entropy, other"
            f" targets (yes or no, numbers, one class per point) another loss: here {', '.join(fitting)}."
        )
    for name in (task.metric, *task.more_metrics):
        if name not in METRICS:
            yield METRICS.unknown(name)
        elif takes_gaps(task.loss) and not METRICS.get(name).takes_gaps:
            fitting = [name for name in METRICS.names() if METRICS.get(name).takes_gaps]
            yield (
                f"metric {name!r} with loss {task.loss!r}. Where targets have gaps, the metric must know them:"
                f" {', '.join(fitting)}."
            )
    for how, known in ((task.normalise_inputs, NORMALISE), (task.normalise_targets, TARGET_NORMALISE)):
        if how not in known:
            yield f"there is no normalisation {how!r}. {hint(how, known)}"
    if task.codes and task.normalise_inputs != "none":
        yield f"normalise_inputs {task.normalise_inputs!r}. Codes have no scale. Leave it out."
    if task.kind not in ("regression", "dense-regression") and task.normalise_targets != "none":
        yield f"normalise_targets {task.normalise_targets!r}. Only targets that are numbers are normalised. Leave it out."
    if task.normalise_targets == "as-inputs" and task.output_shape != task.sample_shape:
        yield "normalise_targets 'as-inputs'. Inputs and targets must then have one shape. Use channel or pointwise."
    if task.normalise_targets == "as-inputs" and task.normalise_inputs not in ("channel", "pointwise"):
        yield f"normalise_targets 'as-inputs' with normalise_inputs {task.normalise_inputs!r}. Use channel or pointwise."


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's three splits ready to train on.

    Inputs are float32 and normalised by training statistics. Labels are int64, all other targets float32. Dense
    targets and numbers are in the units they are scored in; a model predicts (y - target_mean) / target_std, and
    both statistics have a leading axis of 1.
    """

    task: Task
    """With the shapes that the data has."""
    train: Samples
    val: Samples
    test: Samples
    target_mean: np.ndarray | None = None
    target_std: np.ndarray | None = None
    fingerprint: str
    input_scale: str = ""
    """How inputs were normalised, with the numbers that this was measured by."""

    @cached_property
    def loss(self) -> LossFunction:
        """The task's loss, (predictions, targets) -> mean over a batch."""
        labels = self.train.y if self.task.has_labels and isinstance(self.train.y, np.ndarray) else None
        return make_loss(self.task.loss, self.task.loss_settings, labels, self.task.output_shape[0])


def load_raw_splits(task: Task, data_root: Path, split_seed: int) -> Splits:
    """Returns what the task's load function gives, converting its files first if that has not been done."""
    source: Path | ConvertedArrays = data_root
    if task.convert is not None:
        source = load_or_convert(task.convert, data_root, task.files)
    return task.load(source, split_seed)


def load_task_data(
    task: Task, data_root: Path, split_seed: int, n_train: int | None, normalise: Normalise | None = None
) -> TaskData:
    """Loads a task, cuts training to ``n_train`` samples, and normalises by what is left of training.

    ``normalise`` takes the place of the task's own way with inputs; None keeps it. Targets are normalised by the task's
    own way in any case, so that a metric has one unit.

    Raises:
        InputError: if training has fewer samples than asked for.
        DataError: if a file is missing or unsafe, or a split has not the declared shape.

    Cost: rows on disk are read once for statistics if the task normalises; they stay on disk.
    """
    splits = load_raw_splits(task, data_root, split_seed)
    task = _fill_in_shapes(task, splits.train)
    whole = _to_declared_types(task, splits.train, "train")
    _check_classes(task, whole)
    _check_varied(task, whole)
    train = _limit_training(task, whole, n_train, split_seed)
    val, test = _to_declared_types(task, splits.val, "val"), _to_declared_types(task, splits.test, "test")
    _check_own_splits(task, Splits(whole, val, test), data_root)
    where = f"task {task.name!r}, inputs"
    scale = add_preparation(measure_input_scale(train.x, normalise or task.normalise_inputs, where), task.preparation)
    parts, target_scale = _scale_targets(task, scale, [train, val, test])
    if scale.change is not None:
        parts = [replace(part, x=map_samples(part.x, scale.change, scale.digest)) for part in parts]
    if task.coordinates:
        parts = [replace(part, x=_add_coordinates(part.x, *task.sample_shape[1:])) for part in parts]
    arrays = ((part.x, part.y, part.groups) for part in parts)
    digest = fingerprint(*(array for three in arrays for array in three if array is not None))
    mean, std = target_scale or (None, None)
    return TaskData(
        task=task,
        train=parts[0],
        val=parts[1],
        test=parts[2],
        target_mean=mean,
        target_std=std,
        fingerprint=digest,
        input_scale=scale.text,
    )


def _fill_in_shapes(task: Task, train: Samples) -> Task:
    """The task with the lengths that only its data says."""
    sample, output = task.sample_shape, task.output_shape
    if 0 in sample and len(train.x.shape) == len(sample) + 1:
        sample = tuple(n or m for n, m in zip(sample, train.x.shape[1:], strict=True))
    if 0 in output and task.kind == "classification":
        output = (int(np.max(_in_memory(train.y))) + 1 if len(train) else 2,)
        if output == (1,):
            raise DataError(f"task {task.name!r}: all {len(train)} training samples are of one class. There is nothing to"
                            " tell apart. Check the file, or the task's load function.")  # fmt: skip
    elif 0 in output and len(train.y.shape) == len(output) + 1:
        output = tuple(n or m for n, m in zip(output, train.y.shape[1:], strict=True))
    return replace(task, sample_shape=sample, output_shape=output)


def _check_own_splits(task: Task, splits: Splits, data_root: Path) -> None:
    """Refuses splits of a user's load function that share samples; rows on disk are compared once per content.

    The package's own load functions cut splits that are disjoint, or keep a benchmark's as they are.
    """
    load = task.load
    while isinstance(load, partial):
        load = load.func
    if (getattr(load, "__module__", None) or "").startswith("orca_sweep."):
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
            with suppress(OSError):  # a folder that cannot be written to is compared again by the next process
                mark.touch()


def _check_varied(task: Task, train: Samples) -> None:
    """Refuses targets that are the same in all training samples: there is nothing to learn."""
    if task.kind == "classification":
        return  # that each class is met has been checked
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
    met, K = np.unique(_in_memory(train.y)), task.output_shape[0]
    if len(met) < K:
        missing = np.setdiff1d(np.arange(min(K, len(met) + 10)), met)
        raise DataError(
            f"task {task.name!r}: no training sample of class {', '.join(map(str, missing[:10]))}, but the task has"
            f" {K} classes. A class without samples cannot be learned. Get the whole file, or declare fewer classes."
        )


def _limit_training(task: Task, train: Samples, n_train: int | None, split_seed: int) -> Samples:
    """The first samples of a seeded order; of samples in parts, all parts of so many."""
    if n_train is None:
        return train
    n = train.n_wholes
    if n_train == n:
        return train
    if n_train > n:
        raise InputError(f"data.n_train = {n_train}: {task.name!r} has {n} training samples. Ask for fewer.")
    if train.groups is None:
        labels = _in_memory(train.y) if task.kind == "classification" else None
        return train.take(subsample(n, n_train, split_seed, labels))
    _, part_of = np.unique(train.groups, return_inverse=True)
    return train.take(np.flatnonzero(np.isin(part_of, subsample(n, n_train, split_seed))))


def _to_declared_types(task: Task, samples: Samples, split: str) -> Samples:
    """The split in the declared types, checked against the declared shapes."""
    where = f"task {task.name!r}, {split}"
    if not len(samples):
        raise DataError(f"{where}: no samples. Every split needs some. Check the files, or the task's load function.")
    channels, *space = task.sample_shape
    read_shape = (channels - 2, *space) if task.coordinates else task.sample_shape
    x = _to_typed_array(samples.x, f"{where}, inputs", read_shape, False, is_input=True)
    if task.kind == "classification":
        y: Array = check_labels(_in_memory(samples.y), f"{where}, labels", len(x), 0, task.output_shape[0])
    elif task.has_labels:
        raw = check_array(_in_memory(samples.y), f"{where}, labels", (None, *task.target_shape))
        wrong = (raw < IGNORED) | (raw >= task.output_shape[0]) | (raw != np.floor(raw))
        if wrong.any():
            raise DataError(
                f"{where}: holds the label {find_first_value(raw, wrong)} in {locate_first(wrong)}. Labels are 0 to"
                f" {task.output_shape[0] - 1}, or {IGNORED} where a point does not count."
            )
        y = raw.astype(np.int64)
    else:
        y = _to_typed_array(samples.y, f"{where}, targets", task.target_shape, takes_gaps(task.loss))
        if task.kind in ("multi-label", "dense-classification"):
            _check_yes_no(y, where)
    return Samples(x, y, samples.groups)


def _in_memory(array: Array) -> np.ndarray:
    return array[:] if isinstance(array, Rows) else array


def _check_yes_no(y: Array, where: str) -> None:
    for part in cut_into_chunks(y):
        values = y[part]
        wrong = (values != 0) & (values != 1) & ~np.isnan(values)
        if wrong.any():
            raise DataError(
                f"{where}, targets: holds {find_first_value(values, wrong)} in {locate_first(wrong, part.start)}."
                " Targets of this kind are 0 or 1. Is it the right file?"
            )


def _to_typed_array(value: Array, where: str, shape: tuple[int, ...], allow_nan: bool, is_input: bool = False) -> Array:
    """Rows are checked for shape (their numbers were checked when they were converted), arrays for all."""
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
    # np.array copies: every array is then contiguous and ours, whatever the loader keeps or caches.
    return np.array(array, np.float32, order="C")


# Normalisation ------------------------------------------------------------------------------------


def _scale_targets(
    task: Task, input_scale: InputScale, parts: list[Samples]
) -> tuple[list[Samples], tuple[np.ndarray, np.ndarray] | None]:
    """The splits, and mean and standard deviation of the targets; targets ``as-inputs`` are scaled themselves."""
    how = task.normalise_targets
    if how == "none":
        return parts, None
    if how != "as-inputs":
        mean, std = (measure_points if how == "pointwise" else measure_each_channel)(parts[0].y)
        return parts, (mean.astype(np.float32), std.astype(np.float32))
    scale = input_scale
    if scale.how != task.normalise_inputs:  # the unit of the metric does not follow data.normalise
        scale = measure_input_scale(parts[0].x, task.normalise_inputs, f"task {task.name!r}, inputs")
    if scale.change is None:
        return parts, None
    return [replace(part, y=map_samples(part.y, scale.change, scale.digest)) for part in parts], None


def _add_coordinates(values: Array, height: int, width: int) -> Array:
    """Samples (N, C, H, W) with two more channels: the row's and the column's place, 0 to 1."""
    axes = (np.linspace(0, 1, n, dtype=np.float32) for n in (height, width))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))

    def append_grid(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, np.broadcast_to(grid, (len(batch), *grid.shape))], axis=1)

    return map_samples(values, append_grid, "coordinates", (values.shape[1] + 2, height, width))


def alignment_labels(data: TaskData, n_clusters: int, seed: int) -> np.ndarray:
    """Returns a label per TRAINING sample for embedder training, (N,) int64.

    Class labels where there are some; for other targets seeded k-means on the flattened training targets, as in
    ORCA, whose code leaves it unseeded. Targets of more than 4096 numbers are averaged over blocks first, and a
    point without a target counts as zero. Parts of one whole have one label.

    Cost: one pass over the targets; N x 4096 numbers in memory at most.
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
    # No more clusters than different targets, or scikit-learn would leave some empty.
    k = min(n_clusters, len(np.unique(distinct, axis=0)))
    state = stream_seed(seed, "pseudo-labels") % 2**32
    return KMeans(k, n_init=4, random_state=state).fit_predict(distinct).astype(np.int64)[whole]


def _flatten_targets(batch: np.ndarray) -> np.ndarray:
    """Targets (n, ...) as (n, at most 4096) in double precision."""
    values = np.nan_to_num(batch.astype(np.float64))
    while math.prod(values.shape[1:]) > CLUSTERED:
        axis = int(np.argmax(values.shape[1:])) + 1
        even = values.shape[axis] // 2 * 2
        halves = np.take(values, np.arange(even), axis=axis)
        shape = (*values.shape[:axis], even // 2, 2, *values.shape[axis + 1 :])
        values = halves.reshape(shape).mean(axis=axis + 1)
    return values.reshape(len(values), -1)


def find_missing_files(task: Task, data_root: Path) -> list[File]:
    """Returns the task's files that are not there; none if their conversion is."""
    missing = [file for file in task.files if not (data_root / file.path).is_file()]
    done = missing and task.convert is not None and find_converted(task.convert, data_root, task.files)
    return [] if done else missing


def _describe_missing(task: Task, path: Path, file: File) -> str:
    text = f"task {task.name!r} needs the file {path}, which is "
    if not Path(file.path).is_absolute():
        return f"{text}not there. Put it there, name its folder with --data, or try: orca-sweep data fetch {task.name}"
    if path.is_dir():
        return f"{text}a folder. Name the file in it."
    from orca_sweep.tasks.own_files import find_similar_file

    near = find_similar_file(path)
    advice = f"Did you mean {near!r}?" if near else "Correct the path, or put the file there."
    return f"{text}not there. {advice}"


def explain_unavailable(task: Task, data_root: Path) -> list[str]:
    """Returns what keeps the task from being loaded here, each with what to do; empty if nothing."""
    problems = [_describe_missing(task, data_root / file.path, file) for file in find_missing_files(task, data_root)]
    pointers = [pointer_problem(data_root / file.path) for file in task.files]
    problems += [f"task {task.name!r} needs {text}" for text in pointers if text]
    return problems + missing_packages(f"task {task.name!r}", task.packages, task.extra)
