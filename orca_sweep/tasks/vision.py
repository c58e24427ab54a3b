"""Image tasks of the benchmarks: CIFAR, spherical CIFAR-100, cosmic rays."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from orca_sweep.data import (
    Conversion,
    ConvertedArrays,
    File,
    Rows,
    Splits,
    Writer,
    check_array,
    check_labels,
    read_npy,
    read_pickle,
    read_pickled_npy,
)
from orca_sweep.data.readers import check_dict, read_npy_header, report_damage
from orca_sweep.errors import DataError
from orca_sweep.tasks.nasbench360 import DRIVE, LICENCE, SOURCE, split_train_and_test
from orca_sweep.tasks.recipes import Released, describe_pickle_file, make_recipe, path_from_root, resolve_inside
from orca_sweep.tasks.records import Task

# CIFAR --------------------------------------------------------------------------------------------

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"


def convert_cifar(root: Path, writer: Writer, files: tuple[str, ...], labels: str, n_classes: int) -> None:
    """Writes images (N, 3072) of bytes as (N, 3, 32, 32); the last file is the test set."""
    n_train = 0
    for i, name in enumerate(files):
        path = root / name
        raw = check_dict(read_pickle(path), path, ("data", labels))
        x = check_array(raw["data"], f"{path}: data", (None, 3072))
        if x.dtype != np.uint8:
            raise DataError(f"{path}: data holds {x.dtype}. Bytes were expected. Is it the right file?")
        writer.append("x", x.reshape(-1, 3, 32, 32), path)
        writer.append("y", check_labels(raw[labels], f"{path}: {labels}", n=len(x), first=0, n_classes=n_classes), path)
        n_train += len(x) if name != files[-1] else 0
        writer.report(i + 1, len(files))
    writer.append("n_train", np.array([n_train]))


def reverse_bits(n: int) -> np.ndarray:
    """Returns the numbers 0 ... n - 1, n a power of two, each with its bits in reversed order."""
    bits = n.bit_length() - 1
    return np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(n)])


def load_cifar(data: ConvertedArrays, split_seed: int, permuted: bool = False) -> Splits:
    """Returns images (3, 32, 32) in [0, 1]; training crops them at random from a padding of 4, and flips half of them.

    ``permuted`` then puts rows and columns into bit-reversed order, so that neighbours are far apart.
    """
    images, order = data["x"], reverse_bits(32)

    def read_images(ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        batch = np.asarray(images[ids], np.float32) / 255
        if rng is not None:
            batch = crop_and_flip(batch, 4, rng)
        return batch[:, :, order][:, :, :, order] if permuted else batch

    digest = f"{data.digest_of('x')} permuted={permuted}"
    rows = Rows(read=read_images, ids=np.arange(len(images)), sample_shape=(3, 32, 32), digest=digest)
    return split_train_and_test(data, split_seed, rows)


def crop_and_flip(batch: np.ndarray, margin: int, rng: np.random.Generator) -> np.ndarray:
    """Returns images (B, C, H, W), each shifted by up to ``margin`` pixels with black filling in, and half mirrored."""
    B, _, H, W = batch.shape
    padded = np.pad(batch, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    top, left = rng.integers(0, 2 * margin + 1, (2, B))
    rows, columns = top[:, None] + np.arange(H), left[:, None] + np.arange(W)
    mirrored = rng.random(B) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    return padded[np.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class _Cifar:
    """One of the two CIFAR data sets."""

    n_classes: int
    files: tuple[str, ...]
    """Training files, then the test file, below the data root."""
    labels: str
    """The name of the labels in the files."""
    md5: str
    """Of the archive."""
    download_mb: int
    proxy: str
    source: str


CIFAR10 = _Cifar(
    n_classes=10,
    files=(*(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch"),
    labels="labels",
    md5="c58f30108f718f92721af3b95e74349a",
    download_mb=163,
    proxy="tiny-imagenet",
    source="Krizhevsky 2009; settings of CIFAR-100",
)
CIFAR100 = _Cifar(
    n_classes=100,
    files=("cifar-100-python/train", "cifar-100-python/test"),
    labels="fine_labels",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    download_mb=161,
    proxy="cifar10",
    source=f"Krizhevsky 2009; {SOURCE}",
)


def _make_cifar(name: str, cifar: _Cifar, *, permuted: bool) -> Task:
    n_classes = cifar.n_classes
    run = partial(convert_cifar, files=cifar.files, labels=cifar.labels, n_classes=n_classes)
    load: Callable[[ConvertedArrays, int], Splits] = partial(load_cifar, permuted=permuted)
    order = "; rows and columns in bit-reversed order" if permuted else ""
    return Task(
        name=name,
        dims=2,
        sample_shape=(3, 32, 32),
        kind="classification",
        output_shape=(n_classes,),
        loss="cross-entropy",
        metric="error",
        load=load,
        convert=Conversion(name=f"cifar{n_classes}", run=run),
        meaning=f"small photographs, {n_classes} classes{order}",
        source=cifar.source,
        licence="CC BY 4.0",
        download_mb=cifar.download_mb,
        files=_describe_cifar_files(cifar),
        n_train_max=40_000,
        published_sizes=(40_000, 10_000, 10_000),
        normalise_inputs="channel",
        preparation="bytes / 255",
        augments=True,
        recipe=make_recipe(
            Released(
                body="swin-base", epochs=60, batch=32, accumulation=32, optimizer="sgd", lr=1e-4, weight_decay=1e-3,
                momentum=0.9, decay=200, proxy=cifar.proxy,
            )
        ),
    )  # fmt: skip


def _describe_cifar_files(cifar: _Cifar) -> tuple[File, ...]:
    archive = f"cifar-{cifar.n_classes}-python.tar.gz"
    published = {"url": CIFAR_URL + archive, "hash": f"md5:{cifar.md5}", "archive": archive}
    return tuple(describe_pickle_file(path, b"\x80", "a pickled dict", **published) for path in cifar.files)


# Spherical CIFAR-100 ------------------------------------------------------------------------------


def convert_spherical(root: Path, writer: Writer) -> None:
    """Writes images (N, 3, 60, 60) of bytes, and labels of 100 classes."""
    path = root / "s2_cifar100.gz"
    raw = check_dict(read_pickle(path), path, ("train", "test"))
    for part in ("train", "test"):
        split = check_dict(raw[part], f"{path}: {part}", ("images", "labels"))
        x = check_array(split["images"], f"{path}: {part} images", (None, 3, 60, 60))
        if x.min(initial=0) < 0 or x.max(initial=0) > 255:
            raise DataError(f"{path}: {part} images hold {x.min()} to {x.max()}. 0 to 255 were expected.")
        writer.append("x", x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.uint8), path)
        writer.append(
            "y", check_labels(split["labels"], f"{path}: {part} labels", n=len(x), first=0, n_classes=100), path
        )
        if part == "train":
            writer.append("n_train", np.array([len(x)]))


def load_spherical(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns images (3, 60, 60) in [0, 1]."""
    rows = Rows.from_array(data["x"], f"{data.digest_of('x')} / 255", lambda batch: batch / np.float32(255))
    return split_train_and_test(data, split_seed, rows)


SPHERICAL = Task(
    name="spherical",
    dims=2,
    sample_shape=(3, 60, 60),
    kind="classification",
    output_shape=(100,),
    loss="cross-entropy",
    metric="error",
    load=load_spherical,
    convert=Conversion(name="spherical", run=convert_spherical),
    meaning="CIFAR-100 projected onto a sphere, 100 classes",
    preparation="bytes / 255",
    source=SOURCE,
    licence="CC BY-SA",
    get_from=DRIVE,
    download_mb=272,
    files=(describe_pickle_file("s2_cifar100.gz", b"\x1f\x8b", "a gzipped pickle"),),
    published_sizes=(40_000, 10_000, 10_000),
    recipe=make_recipe(
        Released(
            body="swin-base",
            epochs=60,
            batch=32,
            accumulation=4,
            optimizer="adamw",
            lr=1e-4,
            weight_decay=0.1,
            momentum=0.999,
            decay=60,
        )
    ),
)


# Cosmic rays --------------------------------------------------------------------------------------

COSMIC_CROP = slice(64, 192)
SKY = (-0.9, 3.0)
"""Training adds the exposure's sky level times a factor drawn from this range."""


def _read_cosmic_list(root: Path, part: str) -> list[str]:
    path = root / f"cosmic/{part}_dirs.npy"
    shape, dtype = read_npy_header(path)
    with report_damage(path, "A list of paths"):
        names = (read_pickled_npy(path, shape) if dtype.hasobject else read_npy(path)).tolist()
        are_names = len(shape) == 1 and names and all(_is_text(name) for name in names)
    if not are_names:
        raise DataError(f"{path}: {dtype} {shape}. A list of paths was expected. Is it the right file?")
    return names


def _is_text(name: object) -> bool:
    # A damaged array can hold numbers beyond Unicode, which break path functions.
    return isinstance(name, str) and bool(name) and max(map(ord, name)) <= sys.maxunicode


def _check_cosmic(root: Path, part: str) -> str:
    names = _read_cosmic_list(root, part)
    with_sky = sum((resolve_inside(root, name).parent / "sky.npy").is_file() for name in names)
    return f"{len(names)} images, {with_sky} with a sky level to augment by"


def _list_cosmic_members(root: Path, part: str) -> list[str]:
    return [path_from_root(root, name) for name in _read_cosmic_list(root, part)]


def convert_cosmic(root: Path, writer: Writer) -> None:
    """Writes images, masks (1, 128, 128) with NaN at points to ignore, and the sky level of each image."""
    lists = {part: _read_cosmic_list(root, part) for part in ("train", "test")}
    writer.append("n_train", np.array([len(lists["train"])]))
    names = lists["train"] + lists["test"]
    for i, name in enumerate(names):
        path = resolve_inside(root, name)
        data = check_array(read_npy(path), path, (None, None, None))
        if len(data) not in (2, 3) or min(data.shape[1:]) < COSMIC_CROP.stop:
            raise DataError(f"{path}: shape {data.shape}. (2 or 3, H, W) of 192 or more was expected. Get it again.")
        image, mask, *ignored = data[:, COSMIC_CROP, COSMIC_CROP].astype(np.float32)
        if not np.isin(mask, (0, 1)).all():
            raise DataError(f"{path}: its mask holds numbers other than 0 and 1. Get the file again.")
        target = np.where(ignored[0] > 0, np.nan, mask).astype(np.float32) if ignored else mask
        writer.append("x", image[None, None], path)
        writer.append("y", target[None, None], path, allow_nan=True)
        writer.append("sky", np.array([_read_sky_level(path)], np.float32), path)
        writer.report(i + 1, len(names))


def _read_sky_level(image: Path) -> float:
    """Returns the sky level of an image's exposure; 0 if unknown. The image's name starts with the exposure's number."""
    path = image.parent / "sky.npy"
    number = image.name.split("_")[0]
    if not path.is_file() or not number.isdigit():
        return 0.0
    levels = check_array(read_npy(path), path, (None,))
    if not 1 <= int(number) <= len(levels):
        raise DataError(f"{path}: {len(levels)} levels, none for {image.name}. Get the file again.")
    return float(levels[int(number) - 1])


def load_cosmic(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns images (1, 128, 128) of galaxies, and which points a cosmic ray hit; training adds random sky.

    Differs from ORCA's code in: test images stay as they are, and ignored points do not count.
    """
    images, sky = data["x"], data["sky"]

    def read_images(ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        batch = np.asarray(images[ids], np.float32)
        if rng is None:
            return batch
        added = sky[ids] * rng.uniform(*SKY, len(ids))
        return batch + added.astype(np.float32)[:, None, None, None]

    x = Rows(
        read=read_images, ids=np.arange(len(images)), sample_shape=(1, 128, 128), digest=data.digest_of("x", "sky")
    )
    return split_train_and_test(data, split_seed, x, Rows.from_array(data["y"], data.digest_of("y")))


COSMIC = Task(
    name="cosmic",
    dims=2,
    sample_shape=(1, 128, 128),
    kind="dense-classification",
    output_shape=(1, 128, 128),
    loss="masked-bce",
    metric="point-auroc-error",
    more_metrics=("thresholded-auroc-error",),
    load=load_cosmic,
    convert=Conversion(name="cosmic", run=convert_cosmic),
    meaning="which points of a telescope image a cosmic ray hit",
    preparation="in the benchmark's files",
    source=f"deepCR (Zhang & Bloom 2020); {SOURCE}",
    licence=LICENCE,
    get_from=DRIVE,
    download_mb=6500,
    files=tuple(
        File(
            path=f"cosmic/{part}_dirs.npy",
            check=partial(_check_cosmic, part=part),
            members=partial(_list_cosmic_members, part=part),
        )
        for part in ("train", "test")
    ),
    augments=True,
    recipe=make_recipe(
        Released(
            body="swin-base", epochs=60, batch=4, optimizer="adamw", lr=1e-3, weight_decay=0.0, momentum=0.99, decay=60
        )
    ),
)
RECORDS = (
    _make_cifar("cifar10", CIFAR10, permuted=False),
    _make_cifar("cifar100", CIFAR100, permuted=False),
    _make_cifar("cifar10-permuted", CIFAR10, permuted=True),
    _make_cifar("cifar100-permuted", CIFAR100, permuted=True),
    SPHERICAL,
    COSMIC,
)
