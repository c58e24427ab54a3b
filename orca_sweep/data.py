"""Samples, seeded three-way splits, and readers that trust no file from outside."""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from orca_sweep.errors import DataError, InputError
from orca_sweep.streams import stream_rng

# All that a pickled dict of NumPy arrays needs; every other name in a pickle is refused before it runs.
SAFE_GLOBALS = frozenset(
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
# Everything the readers of NumPy and pickle raise on damaged bytes (found by feeding them damaged bytes).
DAMAGED = (
    ValueError, TypeError, EOFError, pickle.UnpicklingError, AttributeError, LookupError, OverflowError,
    MemoryError, ImportError, SyntaxError, RuntimeError, SystemError, TokenError,
)  # fmt: skip
# Names under which a package is installed, where they differ from the name it is imported by.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "PyYAML"}


@dataclass(frozen=True)
class Samples:
    """Inputs x (N, ...) and targets y (N, ...)."""

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(f"{len(self.x)} inputs but {len(self.y)} targets: every sample needs both.")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: np.ndarray) -> "Samples":
        """Returns the samples of an index array."""
        return Samples(self.x[index], self.y[index])


@dataclass(frozen=True)
class Splits:
    """Three disjoint splits, before normalisation."""

    train: Samples
    val: Samples
    test: Samples


class _Restricted(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        # Python 2 pickles, as the benchmark's are, hold byte strings: latin1 keeps them as they are.
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in SAFE_GLOBALS:
            raise DataError(
                f"{self.path}: the pickle asks for {module}.{name}. Only NumPy arrays and plain containers are read;"
                " nothing ran. Get the file from its source again, or save it as plain arrays."
            )
        return super().find_class(module, name)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Put the file there, or name its folder.") from None


def read_npy(path: Path) -> np.ndarray:
    """Reads a .npy array without unpickling anything.

    Raises:
        DataError: if it is missing, no .npy file, or holds Python objects.
    """
    with _open(path) as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except DAMAGED as error:
            raise DataError(
                f"{path}: not a plain .npy array ({error}). Arrays of numbers are read. Get the file again."
            ) from None


def read_pickled_npy(path: Path) -> object:
    """Reads a .npy file that holds one Python object (``np.save`` of a dict) through a restricted unpickler.

    Raises:
        DataError: if it is missing, malformed, or asks for anything but NumPy arrays and plain containers.
    """
    with _open(path) as file:
        try:
            magic = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if magic == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
            if not dtype.hasobject or shape != ():
                raise DataError(f"{path}: holds an array {shape} of {dtype}. A single pickled object was expected.")
            array = _Restricted(file, path).load()
        except DAMAGED as error:
            raise DataError(
                f"{path}: not a readable .npy file ({type(error).__name__}: {error}). A dict saved with np.save"
                " was expected. Get the file again."
            ) from None
    if isinstance(array, np.ndarray) and array.dtype == object and array.shape == ():
        return array.item()
    raise DataError(f"{path}: holds {type(array).__name__}. A single pickled object was expected.")


def read_pickled_dict(path: Path, keys: Sequence[str]) -> dict[str, object]:
    """Reads a pickled dict and checks that it has the keys.

    Raises:
        DataError: as ``read_pickled_npy``, or naming the missing keys.
    """
    value = read_pickled_npy(path)
    if not isinstance(value, dict) or not set(keys) <= value.keys():
        found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{path}: a dict with the keys {', '.join(keys)} was expected, found {found}.")
    return value


def check_array(value: object, where: object, shape: tuple[int | None, ...]) -> np.ndarray:
    """Returns the value as a numeric array of that shape (None = any length), all finite.

    Raises:
        DataError: naming the place, what was found and the rule.
    """
    array = _array(value, where)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=False))
    rule = "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"
    if not fits:
        raise DataError(f"{where}: shape {array.shape}. {rule} was expected. Is it the right file?")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {array.dtype}. Real numbers were expected. Is it the right file?")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: holds NaN or infinite values. Clean the file first.")
    return array


def _array(value: object, where: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except DAMAGED as error:
        raise DataError(f"{where}: not an array ({error}). Rows of equal length were expected.") from None


def check_labels(value: object, where: object, n: int, first: int, n_classes: int) -> np.ndarray:
    """Returns labels (n,) as integers from 0, given that they are written from ``first`` on.

    Raises:
        DataError: on another number of labels, a value that is no class, or no whole number.
    """
    array = _array(value, where)
    array = check_array(array, where, (n, 1) if array.ndim == 2 else (n,)).reshape(-1)
    wrong = ~np.isin(array, np.arange(first, first + n_classes))
    if wrong.any():
        raise DataError(
            f"{where}: holds the label {array[wrong][0]}. Labels are whole numbers from {first} to"
            f" {first + n_classes - 1}. Is it the right file?"
        )
    return array.astype(np.int64) - first


# Splits -------------------------------------------------------------------------------------------


def split_random(
    n: int, n_val: int, n_test: int, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns disjoint, sorted index arrays (train, val, test) that cover all n; stratified if labels are given.

    Raises:
        DataError: if validation and test leave nothing to train on.
    """
    if n_val + n_test >= n:
        raise DataError(
            f"split: {n} samples or groups cannot give {n_val} to validation and {n_test} to test."
            " At least one must be left to train on. Get more data, or ask for smaller splits."
        )
    order = _spread(labels if labels is not None else np.zeros(n, int), stream_rng(seed, "split"))
    parts = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    test, val, train = (np.sort(part) for part in parts)
    return train, val, test


def _spread(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order in which every prefix holds the classes in their proportions (to one sample)."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = rng.permutation(len(members)) + rng.random(len(members))
        position[members] = ranks / len(members)
    return np.argsort(position, kind="stable")


def split_groups(
    groups: np.ndarray, n_val_groups: int, n_test_groups: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns index arrays (train, val, test) in which no group (subject, record) is in two splits."""
    names = np.unique(groups)
    train, val, test = split_random(len(names), n_val_groups, n_test_groups, seed)
    return tuple(np.flatnonzero(np.isin(groups, names[part])) for part in (train, val, test))  # type: ignore[return-value]


def subsample(items: int | np.ndarray, n_keep: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Returns n_keep of n indices (or of an array of indices), sorted; the smaller choice lies in the larger one.

    With labels (one per item) every class keeps its share, and one sample if n_keep allows.

    Raises:
        InputError: if fewer than n_keep items are there.
    """
    rows = np.arange(items) if isinstance(items, int) else items
    if n_keep > len(rows):
        raise InputError(f"n_keep = {n_keep}: there are {len(rows)} samples. Ask for fewer.")
    groups = np.zeros(len(rows), int) if labels is None else labels
    order = _spread(groups, stream_rng(seed, "subsample"))
    _, first = np.unique(groups[order], return_index=True)
    one_per_class = order[np.sort(first)]
    order = np.concatenate([one_per_class, order[~np.isin(order, one_per_class)]])
    return np.sort(rows[order[:n_keep]])


def missing_packages(what: str, packages: Sequence[str], extra: str | None) -> list[str]:
    """Returns a message per package (by import name) that is not installed, with what to do; imports none."""
    return [
        f"{what} needs the package {DISTRIBUTIONS.get(name, name)}, which is not installed. Run: pip install "
        + (f"'orca-sweep[{extra}]'" if extra else DISTRIBUTIONS.get(name, name))
        for name in packages
        if find_spec(name) is None
    ]


def fingerprint(*arrays: np.ndarray) -> str:
    """Returns the SHA-256 over dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
