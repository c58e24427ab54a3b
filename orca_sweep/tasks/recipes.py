"""What the tasks of the benchmarks have in common: their recipes, and checks of files by their headers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.data import File, check_shape
from orca_sweep.data.readers import Stored, mat_array, npy_header, npz_arrays, opened
from orca_sweep.errors import DataError

Shape = Sequence[int | None]
NPY_MAGIC = b"\x93NUMPY"


def recipe(
    body: str,
    epochs: int,
    batch: int,
    optimizer: str,
    lr: float,
    weight_decay: float,
    warmup: int,
    decay: int,
    *,
    proxy: str | None = None,
    accumulation: int = 1,
    embedder_epochs: int = 60,
    max_samples: int = 128,
    clip: float | None = None,
    momentum: float | None = None,
    length: int | None = None,
) -> dict[str, Any]:
    """Returns a task's recipe from its released settings.

    Embedder training takes the optimizer and weight decay of fine-tuning and ten times its learning rate where that
    is at most 1e-3, as the released code does; here each is a field of its own (its momentum is always 0.9).

    Source: Shen et al. 2023, arXiv 2302.05738, settings as released. Differs from them in: the loss is divided by
    the accumulation, and the schedule counts optimizer steps.
    """
    settings: dict[str, Any] = {
        "proxy": proxy or ("conll2003-ner" if body.startswith("roberta") else "cifar10"),
        "body.name": body,
        "embedder.epochs": embedder_epochs,
        "embedder.max_samples_per_class": max_samples,
        "embedder.optimizer": optimizer,
        "embedder.lr": float(f"{10 * lr:.6g}") if lr <= 1e-3 else lr,
        "embedder.weight_decay": weight_decay,
        **({"embedder.proxy_augment": True} if body.startswith("swin") else {}),
        "finetune.epochs": epochs,
        "finetune.batch_size": batch,
        "finetune.accumulation": accumulation,
        "finetune.optimizer": optimizer,
        "finetune.lr": lr,
        "finetune.weight_decay": weight_decay,
        "finetune.warmup_epochs": warmup,
        "finetune.decay_epochs": decay,
        "finetune.grad_clip": clip,
    }
    if momentum is not None:
        settings["finetune.momentum"] = momentum
    if length is not None:
        settings["embedder.target_length"] = length
    return settings


# Files --------------------------------------------------------------------------------------------


def npy_file(path: str, shape: Shape, **more: Any) -> File:
    """Returns the record of a plain .npy file."""

    def check(root: Path) -> str:
        return check_shape(root / path, *npy_header(root / path), shape)

    return File(path, check, **more)


def npz_checked(path: Path, shapes: Mapping[str, Shape]) -> dict[str, Stored]:
    """Returns the arrays of an .npz file, of which these must be there, in these shapes.

    Raises:
        DataError: naming what is missing, or of another shape.
    """
    found = npz_arrays(path)
    missing = sorted(shapes.keys() - found.keys())
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)} in it. It holds: {', '.join(sorted(found))[:200]}.")
    for name, shape in shapes.items():
        check_shape(f"{path}: {name}", found[name].shape, found[name].dtype, shape)
    return found


def npz_file(path: str, shapes: Mapping[str, Shape], **more: Any) -> File:
    """Returns the record of an .npz file."""

    def check(root: Path) -> str:
        found = npz_checked(root / path, shapes)
        return "; ".join(f"{name} {found[name].shape} {found[name].dtype}" for name in shapes)

    return File(path, check, **more)


def mat_file(path: str, shapes: Mapping[str, Shape], **more: Any) -> File:
    """Returns the record of a MATLAB file."""

    def check(root: Path) -> str:
        texts = []
        for name, shape in shapes.items():
            data = mat_array(root / path, name)
            texts.append(f"{name} {check_shape(f'{root / path}: {name}', data.shape, data.dtype, shape)}")
        return "; ".join(texts)

    return File(path, check, **more)


def pickle_file(path: str, magic: bytes, what: str, **more: Any) -> File:
    """Returns the record of a pickle: without reading it whole, only its first bytes can be checked."""

    def check(root: Path) -> str:
        with opened(root / path) as file:
            if file.read(len(magic)) != magic:
                raise DataError(f"{root / path}: not {what}. Get the file again.")
        return f"{what}, {(root / path).stat().st_size / 2**20:.0f} MiB (read at conversion)"

    return File(path, check, **more)


def lines_of(path: Path, most: int = 2**24) -> list[str]:
    """Returns the lines of a text file.

    Raises:
        DataError: if it is missing, no text, or larger than a list of files is.
    """
    with opened(path) as file:
        raw = file.read(most + 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file. A list of names was expected. Is it the right file?") from None
    if len(raw) > most:
        raise DataError(f"{path}: more than {most} bytes. A list of names was expected. Is it the right file?")
    return [line.strip() for line in text.splitlines() if line.strip()]


def inside(root: Path, name: str) -> Path:
    """Returns a path that a file names, below the data root.

    Raises:
        DataError: if it leads out of the root.
    """
    try:
        path = (root / name).resolve()
        path.is_file()
    except (ValueError, OSError) as error:
        raise DataError(
            f"{name!r}: this path, named in a list of files, is none ({error}). Get the list again."
        ) from None
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"{name}: this path, named in a list of files, leads out of {root}. Get the list again.")
    return path


def relative(root: Path, name: str) -> str:
    """Returns a path that a file names as one counted from the data root, which it must not leave."""
    return inside(root, name).relative_to(root.resolve()).as_posix()
