"""Parts that the benchmarks' tasks share: recipes, and records of files that are checked by their headers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.config.number_lists import betas_as_text
from orca_sweep.data import File, check_shape
from orca_sweep.data.matlab import open_mat_array
from orca_sweep.data.readers import StoredArray, open_file, open_npz_arrays, read_npy_header
from orca_sweep.errors import DataError

Shape = Sequence[int | None]
NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True)
class Released:
    """A task's settings in the released code, which sums the gradients of accumulated batches."""

    body: str
    epochs: int
    batch: int
    accumulation: int = 1
    optimizer: str
    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float
    dropout: float = 0.0
    warmup: int = 5
    decay: int
    clip: float | None = None
    proxy: str | None = None
    """None = the released proxy of this kind of body."""
    embedder_epochs: int = 60
    max_samples: int = 128
    length: int | None = None


def make_recipe(released: Released) -> dict[str, Any]:
    """Returns a task's recipe: the settings with which our loop takes the released optimizer steps.

    Our loss of accumulated batches is their mean; the released loss is their sum. Therefore the recipe multiplies the
    learning rate of sgd by the accumulation. It divides the limit of the gradient norm by the accumulation, and also the
    weight decay of sgd and adam, which add it to the gradient. Otherwise the steps of adam and adamw do not depend on the
    scale of the loss, except through epsilon, which stays at 1e-8.

    Embedder training has no accumulation. It uses the released optimizer, weight decay, betas and momentum, and ten
    times the released learning rate if that is at most 1e-3.

    Every recipe sets both momentum and betas, for spaces that choose another optimizer.

    Source: Shen et al. 2023, arXiv 2302.05738, settings as released. Differs from them in: the schedule counts optimizer
    steps; ``tests/tasks/test_recipes.py`` lists the other differences.
    """
    settings: dict[str, Any] = {
        "proxy": released.proxy or ("conll2003-ner" if released.body.startswith("roberta") else "cifar10"),
        "body.name": released.body,
        **_make_embedder_settings(released),
        **_make_finetune_settings(released),
    }
    if released.length is not None:
        settings["embedder.target_length"] = released.length
    return settings


def _make_embedder_settings(released: Released) -> dict[str, Any]:
    return {
        "embedder.epochs": released.embedder_epochs,
        "embedder.max_samples_per_class": released.max_samples,
        "embedder.optimizer": released.optimizer,
        "embedder.lr": _round_digits(10 * released.lr) if released.lr <= 1e-3 else released.lr,
        "embedder.weight_decay": released.weight_decay,
        "embedder.betas": betas_as_text(released.betas),
        "embedder.momentum": released.momentum,
        **({"embedder.proxy_augment": True} if released.body.startswith("swin") else {}),
    }


def _make_finetune_settings(released: Released) -> dict[str, Any]:
    lr, weight_decay = adapt_to_mean_loss(released.optimizer, released.lr, released.weight_decay, released.accumulation)
    return {
        "finetune.epochs": released.epochs,
        "finetune.batch_size": released.batch,
        "finetune.accumulation": released.accumulation,
        "finetune.optimizer": released.optimizer,
        "finetune.lr": lr,
        "finetune.weight_decay": weight_decay,
        "finetune.betas": betas_as_text(released.betas),
        "finetune.momentum": released.momentum,
        "finetune.dropout": released.dropout,
        "finetune.warmup_epochs": released.warmup,
        "finetune.decay_epochs": released.decay,
        "finetune.grad_clip": None if released.clip is None else _round_digits(released.clip / released.accumulation),
    }


def adapt_to_mean_loss(optimizer: str, lr: float, weight_decay: float, accumulation: int) -> tuple[float, float]:
    """Returns learning rate and weight decay with which the mean loss takes the optimizer steps of the summed loss."""
    if optimizer == "sgd":
        lr = _round_digits(lr * accumulation)
    if optimizer != "adamw":  # its decay does not pass through the gradient
        weight_decay = _round_digits(weight_decay / accumulation)
    return lr, weight_decay


def _round_digits(number: float) -> float:
    """Returns the number without floating-point noise: 0.0032, not 0.0032000000000000006."""
    return float(f"{number:.12g}")


# Files --------------------------------------------------------------------------------------------


def describe_npy_file(path: str, shape: Shape, **more: Any) -> File:
    """Returns the record of a plain .npy file."""

    def check_file(root: Path) -> str:
        return check_shape(root / path, *read_npy_header(root / path), shape)

    return File(path=path, check=check_file, **more)


def open_checked_npz(path: Path, shapes: Mapping[str, Shape]) -> dict[str, StoredArray]:
    """Returns the arrays of an .npz file, which must include those named in ``shapes``.

    Raises:
        DataError: naming arrays that are missing, or one whose shape differs.
    """
    arrays = open_npz_arrays(path)
    missing = sorted(shapes.keys() - arrays.keys())
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)} in it. It holds: {', '.join(sorted(arrays))[:200]}.")
    for name, shape in shapes.items():
        check_shape(f"{path}: {name}", arrays[name].shape, arrays[name].dtype, shape)
    return arrays


def describe_npz_file(path: str, shapes: Mapping[str, Shape], **more: Any) -> File:
    """Returns the record of an .npz file."""

    def check_file(root: Path) -> str:
        arrays = open_checked_npz(root / path, shapes)
        return "; ".join(f"{name} {arrays[name].shape} {arrays[name].dtype}" for name in shapes)

    return File(path=path, check=check_file, **more)


def describe_mat_file(path: str, shapes: Mapping[str, Shape], **more: Any) -> File:
    """Returns the record of a MATLAB file."""

    def check_file(root: Path) -> str:
        texts = []
        for name, shape in shapes.items():
            data = open_mat_array(root / path, name)
            texts.append(f"{name} {check_shape(f'{root / path}: {name}', data.shape, data.dtype, shape)}")
        return "; ".join(texts)

    return File(path=path, check=check_file, **more)


def describe_pickle_file(path: str, magic: bytes, what: str, **more: Any) -> File:
    """Returns the record of a pickle. Its check reads only the first bytes, as a pickle has no header."""

    def check_file(root: Path) -> str:
        with open_file(root / path) as file:
            if file.read(len(magic)) != magic:
                raise DataError(f"{root / path}: not {what}. Get the file again.")
        return f"{what}, {(root / path).stat().st_size / 2**20:.0f} MiB (read at conversion)"

    return File(path=path, check=check_file, **more)


def read_lines(path: Path, most: int = 2**24) -> list[str]:
    """Returns the lines of a text file that are not empty, stripped.

    Raises:
        DataError: if the file is missing, not text, or has more than ``most`` bytes.
    """
    with open_file(path) as file:
        raw = file.read(most + 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file. A list of names was expected. Is it the right file?") from None
    if len(raw) > most:
        raise DataError(f"{path}: more than {most} bytes. A list of names was expected. Is it the right file?")
    return [line.strip() for line in text.splitlines() if line.strip()]


def resolve_inside(root: Path, name: str) -> Path:
    """Returns the real path of a name, below the data root, that a list of files contains.

    Raises:
        DataError: if the path leads out of the root.
    """
    try:
        path = Path(os.path.realpath(root / name))
        path.is_file()
    except (ValueError, OSError) as error:
        raise DataError(
            f"{name!r}: this name, in a list of files, is not a path ({error}). Get the list again."
        ) from None
    if not path.is_relative_to(os.path.realpath(root)):
        raise DataError(f"{name}: this path, in a list of files, leads out of {root}. Get the list again.")
    return path


def path_from_root(root: Path, name: str) -> str:
    """Returns a name from a list of files as a path relative to the data root, which it must not leave."""
    return resolve_inside(root, name).relative_to(os.path.realpath(root)).as_posix()
