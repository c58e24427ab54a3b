"""Samples in memory or on disk, seeded three-way splits, and checks of arrays from outside."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from orca_sweep.data.readers import DAMAGED
from orca_sweep.errors import DataError, InputError
from orca_sweep.streams import stream_rng

# Import name -> name to install, where the two differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image", "PIL": "pillow", "yaml": "PyYAML"}

Read = Callable[[np.ndarray, np.random.Generator | None], np.ndarray]
"""(ids, generator) -> the samples of these ids; augmented if there is a generator, else unchanged."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Samples read on demand: like an array (N, ...) of float32, with at most one batch in memory.

    Only indexing, with a slice or an index array, reads samples. The object itself holds N indices.
    """

    read: Read
    ids: np.ndarray
    """(N,) int64: which samples of the source to read, in order."""
    sample_shape: tuple[int, ...]
    digest: str
    """Identifies everything that ``read`` depends on: equal digests mean equal samples."""

    @classmethod
    def from_array(
        cls, array: np.ndarray, digest: str, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> "Rows":
        """Returns all rows of an array or memory map, read as float32; ``change`` is applied to each batch."""

        def read_samples(ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
            batch = np.asarray(array[ids], dtype=np.float32)
            return batch if change is None else change(batch)

        shape = read_samples(np.zeros(0, int), None).shape[1:]
        return cls(read=read_samples, ids=np.arange(len(array)), sample_shape=shape, digest=digest)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), as an array has it."""
        return (len(self.ids), *self.sample_shape)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return self.read(self.ids[index], None)

    def read_augmented(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the samples of an index array, augmented with draws from the generator."""
        return self.read(self.ids[index], rng)

    def take(self, index: np.ndarray) -> "Rows":
        """Returns the rows of an index array without reading them."""
        return Rows(read=self.read, ids=self.ids[index], sample_shape=self.sample_shape, digest=self.digest)

    def map(
        self, function: Callable[[np.ndarray], np.ndarray], digest: str, sample_shape: tuple[int, ...] | None = None
    ) -> "Rows":
        """Returns rows that pass every batch through a function, which ``digest`` identifies."""
        read = self.read
        return Rows(
            read=lambda ids, rng: function(read(ids, rng)),
            ids=self.ids,
            sample_shape=sample_shape or self.sample_shape,
            digest=f"{self.digest} > {digest}",
        )


Array = np.ndarray | Rows


@dataclass(frozen=True)
class Samples:
    """Inputs x (N, ...) and targets y (N, ...).

    ``groups`` (N,) marks samples that are parts of one whole, such as the seconds of a sound clip. An epoch of
    training draws one part of each whole. The prediction for a whole is the mean over its parts.
    """

    x: Array
    y: Array
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.x if self.groups is None else self.groups)}
        if len(lengths) > 1:
            raise DataError(f"{len(self.x)} inputs but {len(self.y)} targets: every sample needs both.")

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def n_wholes(self) -> int:
        """The number of samples, counting the parts of a whole once."""
        return len(self) if self.groups is None else len(np.unique(self.groups))

    def take(self, index: np.ndarray) -> "Samples":
        """Returns the samples of an index array."""
        x, y = (part.take(index) if isinstance(part, Rows) else part[index] for part in (self.x, self.y))
        return Samples(x, y, None if self.groups is None else self.groups[index])


@dataclass(frozen=True)
class Splits:
    """Three disjoint splits, before normalisation."""

    train: Samples
    val: Samples
    test: Samples


def hash_each_row(rows: np.ndarray) -> np.ndarray:
    """Returns a 64-bit hash of the bytes of each row (n, ...), (n,) uint64."""
    plain = np.ascontiguousarray(rows)
    hashes = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in plain)
    return np.frombuffer(hashes, "<u8")


def hash_each_sample(samples: Samples) -> np.ndarray:
    """Returns a hash of the content of each sample, input and target together, (N,) uint64.

    Cost: reads all samples once, in blocks.
    """
    both = [
        np.concatenate([hash_each_row(array[part]) for part in cut_into_chunks(array)])
        if len(array)
        else np.zeros(0, "<u8")
        for array in (samples.x, samples.y)
    ]
    return hash_each_row(np.stack(both, axis=1))


def check_disjoint(splits: Splits, where: str) -> None:
    """Refuses splits that share a sample (input and target).

    Raises:
        DataError: naming the two splits, the number of shared samples and the first of them.

    Cost: reads all samples once, in blocks.
    """
    names = ("train", "val", "test")
    hashes = {name: hash_each_sample(getattr(splits, name)) for name in names}
    problems = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.isin(hashes[second], hashes[first])
        if shared.any():
            row = int(np.argmax(shared))
            twin = int(np.argmax(hashes[first] == hashes[second][row]))
            problems.append(
                f"{where}: {int(shared.sum())} of {len(shared)} samples of {second} are in {first} too (row {row} of"
                f" {second} is row {twin} of {first}). No sample may be in two splits. Remove it from one."
            )
    if problems:
        raise DataError(*problems)


def cut_into_chunks(array: Array, n_numbers: int = 2**22) -> "list[slice]":
    """Returns slices that cover an array, each of about ``n_numbers`` numbers, for reading it in blocks."""
    size = max(1, n_numbers // max(1, int(np.prod(array.shape[1:]))))
    return [slice(first, first + size) for first in range(0, len(array), size)]


def check_shape(where: object, shape: Sequence[int], dtype: np.dtype, wanted: Sequence[int | None]) -> str:
    """Returns shape and type as text. The array itself need not be read for this.

    Raises:
        DataError: if the shape is not the wanted one (None = any length), or the type is not a number.
    """
    rule = "(" + ", ".join("N" if n is None else str(n) for n in wanted) + ")"
    if len(shape) != len(wanted) or any(n not in (None, m) for n, m in zip(wanted, shape, strict=True)):
        raise DataError(f"{where}: shape {tuple(shape)}. {rule} was expected. Is it the right file?")
    if dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {dtype}. Real numbers were expected. Is it the right file?")
    return f"{tuple(shape)} {dtype}"


def check_array(value: object, where: object, shape: tuple[int | None, ...], allow_nan: bool = False) -> np.ndarray:
    """Returns the value as a numeric array of that shape (None = any length), finite unless NaN is allowed.

    Raises:
        DataError: naming the array, its shape or value, and the rule.
    """
    array = _to_array(value, where)
    check_shape(where, array.shape, array.dtype, shape)
    check_finite(array, f"{where}:", allow_nan)
    return array


def check_finite(rows: np.ndarray, where: object, allow_nan: bool = False, first_row: int = 0) -> None:
    """Refuses rows (n, ...) that hold infinity, or NaN unless it is allowed.

    Raises:
        DataError: naming the first such value, its row (counted from ``first_row``) and its position in the row.
    """
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        wrong = np.isinf(rows) if allow_nan else ~np.isfinite(rows)
        if wrong.any():
            raise DataError(
                f"{where} holds NaN or infinite values, the first ({find_first_value(rows, wrong)}) in"
                f" {locate_first(wrong, first_row)}. Clean the file first."
            )


def find_first_value(rows: np.ndarray, wrong: np.ndarray) -> Any:
    """Returns the first value of rows that a mask marks."""
    return rows.reshape(-1)[np.argmax(wrong)].item()


def locate_first(wrong: np.ndarray, first_row: int = 0) -> str:
    """Returns, as text, the row and the position in it of the first value that a mask (n, ...) marks, from 0."""
    row, *inside = (int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape))
    text = f"row {row + first_row}"
    if len(inside) == 1:
        return f"{text}, column {inside[0]}"
    return f"{text}, place [{', '.join(map(str, inside))}]" if inside else text


def _to_array(value: object, where: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except DAMAGED as error:
        raise DataError(f"{where}: not an array ({error}). Rows of equal length were expected.") from None


def check_labels(value: object, where: object, n: int, first: int, n_classes: int, *, first_row: int = 0) -> np.ndarray:
    """Returns labels (n,) as integers that count from 0. In the file they count from ``first``.

    ``first_row`` is the row of the first label in its file, for messages.

    Raises:
        DataError: if the number of labels is not n, or a label is not a whole number or not a class.
    """
    array = _to_array(value, where)
    array = check_array(array, where, (n, 1) if array.ndim == 2 else (n,)).reshape(-1)
    wrong = (array < first) | (array >= first + n_classes) | (array != np.floor(array))
    if wrong.any():
        raise DataError(
            f"{where}: holds the label {array[wrong][0]}. Labels are whole numbers from {first} to"
            f" {first + n_classes - 1} ({locate_first(wrong, first_row)} has this one). Is it the right file?"
        )
    return array.astype(np.int64) - first


# Splits -------------------------------------------------------------------------------------------


def split_random(
    n: int, n_val: int, n_test: int, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns disjoint, sorted index arrays (train, val, test) that cover all n; labels stratify the split.

    Raises:
        DataError: if validation and test leave nothing to train on.
    """
    if n_val + n_test >= n:
        raise DataError(
            f"split: {n} samples or groups cannot give {n_val} to validation and {n_test} to test."
            " At least one must be left to train on. Get more data, or ask for smaller splits."
        )
    order = _spread_classes(labels if labels is not None else np.zeros(n, int), stream_rng(seed, "split"))
    parts = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    test, val, train = (np.sort(part) for part in parts)
    return train, val, test


def _spread_classes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order in which every prefix holds the classes in proportion, to within one sample."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = rng.permutation(len(members)) + rng.random(len(members))
        position[members] = ranks / len(members)
    return np.argsort(position, kind="stable")


def split_groups(
    groups: np.ndarray, n_val_groups: int, n_test_groups: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns index arrays (train, val, test) that keep each group (subject, recording) in one split."""
    names = np.unique(groups)
    train, val, test = split_random(len(names), n_val_groups, n_test_groups, seed)
    return tuple(np.flatnonzero(np.isin(groups, names[part])) for part in (train, val, test))  # type: ignore[return-value]


def subsample(items: int | np.ndarray, n_keep: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Returns n_keep of n indices (or of an array of indices), sorted. Smaller choices are subsets of larger ones.

    With labels (one per item) every class keeps its share, and at least one sample if n_keep allows.

    Raises:
        InputError: if there are fewer than n_keep items.
    """
    rows = np.arange(items) if isinstance(items, int) else items
    if n_keep > len(rows):
        raise InputError(f"n_keep = {n_keep}: there are {len(rows)} samples. Ask for fewer.")
    groups = np.zeros(len(rows), int) if labels is None else labels
    order = _spread_classes(groups, stream_rng(seed, "subsample"))
    _, first = np.unique(groups[order], return_index=True)
    one_per_class = order[np.sort(first)]
    order = np.concatenate([one_per_class, order[~np.isin(order, one_per_class)]])
    return np.sort(rows[order[:n_keep]])


def missing_packages(what: str, packages: Sequence[str], extra: str | None) -> list[str]:
    """Returns a message for each package (import name) that is not installed, with the remedy; imports nothing."""
    return [
        f"{what} needs the package {DISTRIBUTIONS.get(name, name)}, which is not installed. Run: pip install "
        + (f"'orca-sweep[{extra}]'" if extra else DISTRIBUTIONS.get(name, name))
        for name in packages
        if find_spec(name) is None
    ]


def fingerprint(*arrays: Array) -> str:
    """Returns the SHA-256 over types, shapes and bytes; for rows on disk, over their digest and indices."""
    digest = hashlib.sha256()
    for array in arrays:
        if isinstance(array, Rows):
            digest.update(f"{array.digest}{array.shape}".encode())
            array = array.ids
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
