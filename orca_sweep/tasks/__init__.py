"""Tasks: target problems as records. A task is data, three splits, a loss, a metric and a recipe."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orca_sweep.data import Samples, Splits, check_array, check_labels, fingerprint, missing_packages, subsample
from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import Registry, hint
from orca_sweep.streams import stream_seed
from orca_sweep.tasks.embedded import WINDOW, load_darcy, load_digits, load_watch
from orca_sweep.tasks.measures import LOSSES, METRICS
from orca_sweep.tasks.nasbench360 import NINAPRO_FILES, SATELLITE_FILES, load_ninapro, load_satellite

Normalise = Literal["none", "channel", "pointwise"]
EPS = 1e-5
"""Added to a standard deviation, so that a constant input stays finite."""


@dataclass(frozen=True)
class Task:
    """One target problem."""

    name: str
    dims: int
    """1 for sequences, 2 for images: the kind of body it takes."""
    sample_shape: tuple[int, ...]
    """(C, L) or (C, H, W)."""
    kind: Literal["classification", "multi-label", "dense"]
    output_shape: tuple[int, ...]
    """(K,) for labels; (C, L) or (C, H, W) for dense targets."""
    loss: str
    metric: str
    load: Callable[[Path, int], Splits]
    """(data root, split seed) -> raw splits."""
    meaning: str
    source: str
    licence: str
    mode: Literal["min"] = "min"
    files: tuple[str, ...] = ()
    """Files below the data root."""
    packages: tuple[str, ...] = ()
    extra: str | None = None
    n_train_max: int | None = None
    """Training samples there are, where that is known without reading files."""
    normalise_inputs: Normalise = "none"
    normalise_targets: Normalise = "none"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What a trial of this task takes unless the space says otherwise, by dotted config path."""

    def __post_init__(self) -> None:
        problems = list(_mistakes(self))
        if problems:
            raise InputError([f"task {self.name!r}: {problem}" for problem in problems])


def _mistakes(task: Task) -> Iterator[str]:
    if task.dims not in (1, 2) or len(task.sample_shape) != task.dims + 1:
        yield f"dims {task.dims}, sample_shape {task.sample_shape}. dims is 1 with (C, L) or 2 with (C, H, W)."
    if task.kind not in ("classification", "multi-label", "dense"):
        yield f"kind {task.kind!r}. {hint(task.kind, ('classification', 'multi-label', 'dense'))}"
    if len(task.output_shape) != (task.dims + 1 if task.kind == "dense" else 1):
        yield f"output_shape {task.output_shape}. It is (K,), or (C, L) or (C, H, W) if kind is dense."
    if task.loss not in LOSSES:
        yield f"there is no loss {task.loss!r}. {hint(task.loss, LOSSES)}"
    if task.metric not in METRICS:
        yield f"there is no metric {task.metric!r}. {hint(task.metric, METRICS)}"
    for how in (task.normalise_inputs, task.normalise_targets):
        if how not in ("none", "channel", "pointwise"):
            yield f"there is no normalisation {how!r}. {hint(how, ('none', 'channel', 'pointwise'))}"
    if task.kind != "dense" and task.normalise_targets != "none":
        yield f"normalise_targets {task.normalise_targets!r}. Only dense targets are normalised. Leave it out."


@dataclass(frozen=True)
class TaskData:
    """A task's three splits ready to train on.

    Inputs are float32 and normalised by training statistics. Labels (N,) are int64, multi-label targets
    (N, K) float32. Dense targets are float32 in physical units, of which a model predicts
    (y - target_mean) / target_std; both statistics have a leading axis of 1.
    """

    task: Task
    train: Samples
    val: Samples
    test: Samples
    target_mean: np.ndarray | None
    target_std: np.ndarray | None
    fingerprint: str


def task_data(task: Task, data_root: Path, split_seed: int, n_train: int | None) -> TaskData:
    """Loads a task, cuts training to ``n_train`` samples, and normalises by what is left of training.

    Raises:
        InputError: if training has fewer samples than asked for.
        DataError: if a file is missing or unsafe, or a split has not the declared shape.
    """
    splits = task.load(data_root, split_seed)
    whole = _typed(task, splits.train, "train")
    train = _limit(task, whole, n_train, split_seed)
    val, test = _typed(task, splits.val, "val"), _typed(task, splits.test, "test")
    mean, std = _statistics(train.x, task.normalise_inputs)
    if mean is not None:
        train, val, test = (replace(part, x=((part.x - mean) / std).astype(np.float32)) for part in (train, val, test))
    target_mean, target_std = _statistics(train.y, task.normalise_targets)
    digest = fingerprint(*(array for part in (train, val, test) for array in (part.x, part.y)))
    return TaskData(task, train, val, test, target_mean, target_std, digest)


def _limit(task: Task, train: Samples, n_train: int | None, split_seed: int) -> Samples:
    if n_train is None or n_train == len(train):
        return train
    if n_train > len(train):
        raise InputError(f"data.n_train = {n_train}: {task.name!r} has {len(train)} training samples. Ask for fewer.")
    labels = train.y if task.kind == "classification" else None
    return train.take(subsample(len(train), n_train, split_seed, labels))


def _typed(task: Task, samples: Samples, split: str) -> Samples:
    """The split in the declared types, checked against the declared shapes."""
    where = f"task {task.name!r}, {split}"
    if not len(samples):
        raise DataError(f"{where}: no samples. Every split needs some. Check the files, or the task's load function.")
    classes = task.kind == "classification"
    x = check_array(samples.x, f"{where}, inputs", (None, *task.sample_shape))
    if classes:
        y = check_labels(samples.y, f"{where}, labels", len(x), 0, task.output_shape[0])
    else:
        y = check_array(samples.y, f"{where}, targets", (None, *task.output_shape))
    # np.array copies: every array is then contiguous and ours, whatever the loader keeps or caches.
    return Samples(np.array(x, np.float32, order="C"), np.array(y, np.int64 if classes else np.float32, order="C"))


def _statistics(values: np.ndarray, how: Normalise) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Mean and standard deviation over samples (pointwise), or over samples and space (channel)."""
    if how == "none":
        return None, None
    axes = (0,) if how == "pointwise" else (0, *range(2, values.ndim))
    wide = values.astype(np.float64)
    mean, std = wide.mean(axis=axes, keepdims=True), wide.std(axis=axes, keepdims=True) + EPS
    return mean.astype(np.float32), std.astype(np.float32)


def alignment_labels(data: TaskData, n_clusters: int, seed: int) -> np.ndarray:
    """Returns a label per TRAINING sample for embedder training, (N,) int64.

    Class labels where there are some; for dense and multi-label targets seeded k-means on the flattened
    training targets, as in ORCA, whose code leaves it unseeded.
    """
    if data.task.kind == "classification":
        return data.train.y
    from sklearn.cluster import KMeans

    flat = data.train.y.reshape(len(data.train), -1).astype(np.float64)
    # No more clusters than different targets, or scikit-learn would leave some empty.
    k = min(n_clusters, len(np.unique(flat, axis=0)))
    state = stream_seed(seed, "pseudo-labels") % 2**32
    return KMeans(k, n_init=4, random_state=state).fit_predict(flat).astype(np.int64)


def unavailable(task: Task, data_root: Path) -> list[str]:
    """Returns what keeps the task from being loaded here, each with what to do; empty if nothing."""
    problems = [
        f"task {task.name!r} needs the file {data_root / name}, which is not there."
        " Put it there, or name its folder with --data."
        for name in task.files
        if not (data_root / name).is_file()
    ]
    return problems + missing_packages(f"task {task.name!r}", task.packages, task.extra)


TASKS: Registry[Task] = Registry("task")
TASKS.add(
    Task(
        name="digits",
        dims=2,
        sample_shape=(1, 8, 8),
        kind="classification",
        output_shape=(10,),
        loss="cross-entropy",
        metric="error",
        load=load_digits,
        meaning="8x8 handwritten digits, 10 classes; 100 training samples unless data.n_train says otherwise",
        source="scikit-learn load_digits (Alpaydin & Kaynak 1998, UCI)",
        licence="CC BY 4.0 (data), BSD-3-Clause (package)",
        packages=("sklearn",),
        n_train_max=897,
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro", "data.n_train": 100,
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 30, "finetune.batch_size": 20, "finetune.lr": 1e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 30,
        },
    )
)  # fmt: skip
TASKS.add(
    Task(
        name="darcy-generated",
        dims=2,
        sample_shape=(3, 29, 29),
        kind="dense",
        output_shape=(1, 29, 29),
        loss="relative-l2",
        metric="relative-l2",
        load=load_darcy,
        meaning="Darcy flow on a 29x29 grid: permeability to pressure, solved here, 200 training samples",
        source="generated as in Li et al. 2021, arXiv 2010.08895",
        licence="MIT (made here)",
        packages=("scipy", "sklearn"),
        n_train_max=200,
        normalise_targets="pointwise",
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro",
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 30, "finetune.batch_size": 16, "finetune.lr": 1e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 30,
        },
    )
)  # fmt: skip
TASKS.add(
    Task(
        name="watch-exercises",
        dims=1,
        sample_shape=(6, WINDOW),
        kind="classification",
        output_shape=(7,),
        loss="cross-entropy",
        metric="error",
        load=load_watch,
        meaning="wrist acceleration and rotation, 7 shoulder exercises, split by subject; 160 training windows",
        source="seglearn's watch dataset (Burns et al. 2018, arXiv 1802.01489)",
        licence="BSD-3-Clause",
        packages=("seglearn", "sklearn"),
        extra="1d",
        normalise_inputs="channel",
        recipe={
            "proxy": "pydoc-topics", "body.name": "minilm", "data.n_train": 160,
            "embedder.epochs": 20, "embedder.proxy_samples": 1000, "embedder.target_length": 32,
            "finetune.epochs": 5, "finetune.batch_size": 16, "finetune.lr": 1e-4, "finetune.grad_clip": 1.0,
        },
    )
)  # fmt: skip
TASKS.add(
    Task(
        name="ninapro",
        dims=2,
        sample_shape=(1, 16, 52),
        kind="classification",
        output_shape=(18,),
        loss="cross-entropy",
        metric="error",
        load=load_ninapro,
        meaning="muscle signals, 18 gestures, the benchmark's three splits; its own proxy is CIFAR-10, here mnist5k",
        source="NAS-Bench-360 (Tu et al. 2022, arXiv 2110.05668); settings of Shen et al. 2023 as released",
        licence="see NAS-Bench-360",
        files=NINAPRO_FILES,
        recipe={
            "proxy": "mnist5k", "body.name": "swin-base", "embedder.epochs": 100, "embedder.max_samples_per_class": 128,
            "embedder.optimizer": "adam", "embedder.lr": 1e-3,
            "finetune.epochs": 60, "finetune.batch_size": 32, "finetune.optimizer": "adam", "finetune.lr": 1e-4,
            "finetune.weight_decay": 1e-5, "finetune.warmup_epochs": 5, "finetune.decay_epochs": 60,
            "finetune.grad_clip": 1.0,
        },
    )
)  # fmt: skip
TASKS.add(
    Task(
        name="satellite",
        dims=1,
        sample_shape=(1, 46),
        kind="classification",
        output_shape=(24,),
        loss="cross-entropy",
        metric="error",
        load=load_satellite,
        meaning="land-cover time series, 24 classes; its own proxy is labelled text, here pydoc-topics",
        source="NAS-Bench-360 (Tu et al. 2022, arXiv 2110.05668); settings of Shen et al. 2023 as released",
        licence="see NAS-Bench-360",
        files=SATELLITE_FILES,
        recipe={
            "proxy": "pydoc-topics", "body.name": "roberta-base", "embedder.epochs": 60,
            "embedder.max_samples_per_class": 128, "embedder.target_length": 512, "embedder.lr": 3e-4,
            "finetune.epochs": 60, "finetune.batch_size": 16, "finetune.accumulation": 4,
            "finetune.optimizer": "adamw", "finetune.lr": 3e-5, "finetune.weight_decay": 3e-6,
            "finetune.warmup_epochs": 5, "finetune.decay_epochs": 60,
        },
    )
)  # fmt: skip
