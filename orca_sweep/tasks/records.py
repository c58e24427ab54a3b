"""The record of a task, its rules, and what keeps a task from being loaded here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from orca_sweep.config import Normalise
from orca_sweep.data import (
    Conversion,
    File,
    Splits,
    find_converted,
    missing_packages,
)
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import InputError
from orca_sweep.registry import hint
from orca_sweep.stats.modes import Mode
from orca_sweep.tasks.losses import LOSSES, takes_gaps
from orca_sweep.tasks.measures import METRICS

NORMALISE = get_args(Normalise)
TARGET_NORMALISE = ("none", "channel", "pointwise", "as-inputs")
TargetNormalise = Literal["none", "channel", "pointwise", "as-inputs"]
Kind = Literal["classification", "multi-label", "regression", "dense-regression", "dense-classification"]
KINDS = ("classification", "multi-label", "regression", "dense-regression", "dense-classification")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One target problem."""

    name: str
    dims: int
    """1 for sequences, 2 for images; the body must match."""
    sample_shape: tuple[int, ...]
    """(C, L) or (C, H, W); 0 for a length that is known only from the data."""
    kind: Kind
    output_shape: tuple[int, ...]
    """(K,) for labels and numbers; (C, L) or (C, H, W) for dense targets, where C counts the classes of labels."""
    loss: str
    metric: str
    load: Callable[[Any, int], Splits]
    """(data root, split seed) -> raw splits. With ``convert``, the first argument is the converted arrays instead."""
    meaning: str
    source: str
    licence: str
    files: tuple[File, ...] = ()
    """Files below the data root."""
    get_from: str = ""
    """Where a person gets the files that have no address of their own."""
    download_mb: int | None = None
    """About how many megabytes the published files take, archives as they are; None: not known."""
    convert: Conversion | None = None
    packages: tuple[str, ...] = ()
    extra: str | None = None
    n_train_max: int | None = None
    """The number of training samples, if it is known without reading files and every split has as many."""
    n_train_by_split: Mapping[int, int] = field(default_factory=dict)
    """The number of training samples by split seed, where it depends on the seed and is known for some."""
    published_sizes: tuple[int, int, int] | None = None
    """About how many samples of training, validation and test the published files give; None: not known. Only estimates of
    cost use them."""
    sizes_are_guessed: bool = False
    """Whether some of ``published_sizes`` are nowhere published; estimates say so."""
    normalise_inputs: Normalise = "none"
    """The default of ``data.normalise``: what the benchmark does."""
    preparation: str = ""
    """What the load function does to inputs before normalisation, in words, such as ``bytes / 255``."""
    codes: bool = False
    """Whether inputs are one-hot or token numbers. These have no scale, so ``data.normalise`` is none."""
    normalise_targets: TargetNormalise = "none"
    """``as-inputs``: targets are later states of the inputs. They are scaled as ``normalise_inputs`` says and scored on
    that scale, whatever ``data.normalise`` does to the inputs."""
    coordinates: bool = False
    """Whether two channels with the grid's coordinates, 0 to 1, are appended to inputs; ``sample_shape`` counts them."""
    splits_are_fixed: bool = False
    """Whether the data come in three fixed parts, so that the split seed has no effect."""
    augments: bool = False
    """Whether training samples are augmented while ``data.augment`` is on."""
    loss_settings: Mapping[str, Any] = field(default_factory=dict)
    more_metrics: tuple[str, ...] = ()
    """Further metrics measured on the test split."""
    declaration: str | None = None
    """The text that declares the task, if the user declared it."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of a trial of this task, by dotted config path; the space overrides them."""

    def __post_init__(self) -> None:
        problems = list(_find_mistakes(self))
        if problems:
            raise InputError([f"task {self.name!r}: {problem}" for problem in problems])

    @property
    def mode(self) -> Mode:
        """``min`` or ``max``: whether lower or higher values of the task's metric are better."""
        return METRICS.get(self.metric).mode

    def count_training_samples(self, split_seed: int) -> int | None:
        """Returns the number of training samples of a split; None if it is not known without reading files."""
        return self.n_train_by_split.get(split_seed, self.n_train_max)

    @property
    def is_dense(self) -> bool:
        """Whether every point has a target."""
        return self.kind.startswith("dense")

    @property
    def has_labels(self) -> bool:
        """Whether targets are whole-number labels."""
        return self.kind == "classification" or (self.kind == "dense-classification" and self.output_shape[0] != 1)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one target: () for a label, (L,) or (H, W) for a label per point, else the shape of the output."""
        return self.output_shape[1:] if self.has_labels else self.output_shape


def _find_mistakes(task: Task) -> Iterator[str]:
    yield from _find_shape_mistakes(task)
    yield from _find_loss_and_metric_mistakes(task)
    yield from _find_normalise_mistakes(task)


def _find_shape_mistakes(task: Task) -> Iterator[str]:
    if task.dims not in (1, 2) or len(task.sample_shape) != task.dims + 1:
        yield f"dims {task.dims}, sample_shape {task.sample_shape}. dims is 1 with (C, L) or 2 with (C, H, W)."
    if task.kind not in KINDS:
        yield f"kind {task.kind!r}. {hint(str(task.kind), KINDS)}"
    elif task.kind == "classification" and task.output_shape == (1,):
        yield "output_shape (1,) is a single class. Classification needs two classes or more."
    elif len(task.output_shape) != (task.dims + 1 if task.is_dense else 1):
        yield f"output_shape {task.output_shape}. It is (K,), or (C, L) or (C, H, W) if the kind is dense."
    if any(n < 0 for n in (*task.sample_shape, *task.output_shape)):
        yield (
            f"sample_shape {task.sample_shape}, output_shape {task.output_shape}. Lengths are 1 or more, or 0 to take"
            " them from the data."
        )


def _find_loss_and_metric_mistakes(task: Task) -> Iterator[str]:
    if task.loss not in LOSSES:
        yield LOSSES.explain_unknown(task.loss)
    elif task.kind in KINDS and LOSSES.get(task.loss).takes_labels not in (None, task.has_labels):
        fitting = [name for name in LOSSES.names() if LOSSES.get(name).takes_labels in (None, task.has_labels)]
        yield (
            f"loss {task.loss!r} for kind {task.kind!r}. Labels take cross-entropy or balanced-cross-entropy, other"
            f" targets (yes or no, numbers, one class per point) another loss: here {', '.join(fitting)}."
        )
    for name in (task.metric, *task.more_metrics):
        if name not in METRICS:
            yield METRICS.explain_unknown(name)
        elif takes_gaps(task.loss) and not METRICS.get(name).takes_gaps:
            fitting = [name for name in METRICS.names() if METRICS.get(name).takes_gaps]
            yield (
                f"metric {name!r} with loss {task.loss!r}. Where targets have gaps, the metric must leave them out:"
                f" {', '.join(fitting)}."
            )


def _find_normalise_mistakes(task: Task) -> Iterator[str]:
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


def find_missing_files(task: Task, data_root: Path) -> list[File]:
    """Returns the task's missing files; none if they have been converted already."""
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
    """Returns the problems that keep the task from being loaded here, each with its remedy; empty if there are none."""
    problems = [_describe_missing(task, data_root / file.path, file) for file in find_missing_files(task, data_root)]
    pointers = [pointer_problem(data_root / file.path) for file in task.files]
    problems += [f"task {task.name!r} needs {text}" for text in pointers if text]
    return problems + missing_packages(f"task {task.name!r}", task.packages, task.extra)
