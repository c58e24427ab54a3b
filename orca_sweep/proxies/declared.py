"""Proxies by declaration: labelled tables, folders of images, CoNLL columns, or features made beforehand."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.config.declaration import Declaration
from orca_sweep.data import fingerprint
from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError
from orca_sweep.proxies.bundled import make_image_data
from orca_sweep.proxies.conll import Columns, read_conll, refuse_doubtful_tags
from orca_sweep.proxies.files import FileKind, find_file_kind, read_split
from orca_sweep.proxies.pixels import Picture, stack_pictures
from orca_sweep.proxies.records import Features, ProxyData, Tagged
from orca_sweep.proxies.table_files import Table, read_table
from orca_sweep.registry import hint
from orca_sweep.streams import stream_rng

MAX_SAMPLES = 10_000
"""Larger data sets are cut to this many samples, drawn once and for all."""


def load(declared: Declaration) -> ProxyData:
    """Reads a declared data set.

    Texts are samples as they are; images are scaled to [0, 1] by their own range; a column of token lists with a column
    of tag lists gives tagged sentences, from which ``draw_samples`` draws samples.

    Raises:
        DataError: naming the data set, the column and what was found.
    """
    kind = _local_kind(declared)
    if kind == "npz":
        return _checked(_features(Path(declared.path).expanduser(), declared), declared)
    if kind == "conll":
        return _tagged(*_conll(declared), (), declared)
    return _samples(read_table(declared), declared)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a declared data set holds, before it is cut to what a proxy uses."""

    n_samples: int
    n_classes: int
    samples_are: str = "samples"
    about: str = ""


def count_samples(declared: Declaration) -> Counts:
    """Returns how many samples and classes a local data set holds; reads its labels, and no image.

    Raises:
        DataError: if it cannot be read, as ``load`` would say, or images lie in no classes.
    """
    if _local_kind(declared) in ("npz", "conll"):
        return _count_loaded(load(declared))
    table = read_table(declared)
    _check_rows(table, declared)
    if isinstance(table.labels[0], list):
        return _count_loaded(_samples(table, declared))
    labels = _as_classes(table.labels, table.class_names, declared.text)
    n_classes = len(np.unique(labels))
    _check_n_classes(n_classes, declared)
    return Counts(n_samples=len(labels), n_classes=n_classes, about=table.about)


def _count_loaded(data: ProxyData) -> Counts:
    if isinstance(data.inputs, Tagged):
        return Counts(n_samples=len(data.inputs), n_classes=len(data.inputs.names), samples_are="tokens")
    return Counts(n_samples=len(data.labels), n_classes=len(np.unique(data.labels)))


def _local_kind(declared: Declaration) -> FileKind | None:
    """What kind of local file is declared; None for folders and the hub, whose files tell."""
    path = Path(declared.path).expanduser()
    if not declared.is_local or path.is_dir():
        return None
    kind = find_file_kind(path)
    if kind in ("npz", "conll") and read_split(declared.split, declared.text).name not in ("", "train"):
        raise DataError(f"{declared.text}: such a file has no split {declared.split!r}. Write [] or [train].")
    if kind in ("npz", "conll") and declared.split not in ("", "train"):
        raise DataError(f"{declared.text}: of such a file no part can be taken. Write [] or [train].")
    return kind


def _samples(table: Table, declared: Declaration) -> ProxyData:
    """The labelled samples of a table, by what its input column holds."""
    _check_rows(table, declared)
    n = len(table.labels)
    first = table.inputs([0])[0]
    if isinstance(first, list) and isinstance(table.labels[0], list):
        return _tagged(table.inputs(range(n)), table.labels, table.class_names, declared)
    y = _as_classes(table.labels, table.class_names, declared.text)
    _check_n_classes(len(np.unique(y)), declared)
    chosen = _chosen(n)
    rows, y = table.inputs(chosen), y[chosen]
    if isinstance(first, str):
        return replace(_text_data(rows, chosen, y, declared), n_found=n)
    if isinstance(first, Picture | bytes) or (isinstance(first, dict) and "bytes" in first):
        pictures = [_picture(row, i, declared) for i, row in zip(chosen, rows, strict=True)]
        return replace(make_image_data(stack_pictures(pictures), y), n_found=n)
    raise DataError(
        f"{declared.text}: column {declared.input!r} holds {type(first).__name__}. Texts, images, or lists of tokens"
        " with lists of tags are understood."
    )


def _check_rows(table: Table, declared: Declaration) -> None:
    if len(table.labels) == 0:
        raise DataError(f"{declared.text}: the data set is empty.")


def _checked(data: ProxyData, declared: Declaration) -> ProxyData:
    _check_n_classes(len(np.unique(data.labels)), declared)
    return data


def _check_n_classes(n: int, declared: Declaration) -> None:
    if declared.n_classes not in (None, n):
        raise DataError(f"{declared.text}: there are {n} classes, not n_classes = {declared.n_classes}. Correct it.")


def _text_data(rows: Sequence[Any], chosen: Sequence[int], y: np.ndarray, declared: Declaration) -> ProxyData:
    for i, text in zip(chosen, rows, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{declared.text}: the text of sample {i} is {text!r}. Take empty texts out first.")
    texts = tuple(rows)
    return ProxyData(texts, y, hashlib.sha256(json.dumps(texts).encode() + y.tobytes()).hexdigest())


def _picture(row: Any, i: int, declared: Declaration) -> Picture:
    """An encoded image of a table, named by its sample; one of a folder is named by its path."""
    if isinstance(row, Picture):
        return row
    where = f"{declared.text}: sample {i}"
    content = row.get("bytes") if isinstance(row, dict) else row
    path = row.get("path") if isinstance(row, dict) else None
    if content is None and path and Path(path).is_file():
        return Picture(where=f"{where} ({path})", file=Path(path))
    if not isinstance(content, bytes):
        raise DataError(f"{where} holds no image ({str(content or path)[:60]}). Take it out.")
    return Picture(where=f"{where} ({path})" if path else where, file=content)


def _chosen(n: int) -> list[int]:
    if n <= MAX_SAMPLES:
        return list(range(n))
    return sorted(stream_rng(0, "proxy samples").choice(n, MAX_SAMPLES, replace=False).tolist())


def _as_classes(values: Sequence[object], names: tuple[str, ...], where: str) -> np.ndarray:
    """Labels as integers from 0: named classes keep their numbers, others are numbered in sorted order.

    Booleans and whole floats are numbers of classes.
    """
    labels = [_as_label(value, i, where) for i, value in enumerate(values)]
    for i, label in enumerate(labels):
        if names and isinstance(label, int) and not 0 <= label < len(names):
            raise DataError(
                f"{where}: label {label} of sample {i} is none of the {len(names)} classes ({', '.join(names[:9])})."
            )
    if names and all(isinstance(label, int) for label in labels):
        return np.array(labels, dtype=np.int64)
    if len({type(label) for label in labels}) > 1:
        raise DataError(f"{where}: labels are numbers in some samples and texts in others. Use one kind.")
    order = {label: i for i, label in enumerate(sorted(set(labels)))}
    return np.array([order[label] for label in labels], dtype=np.int64)


def _as_label(value: object, i: int, where: str) -> int | str:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: the label of sample {i} is empty. Name its class.")
    if not isinstance(value, int | str):
        raise DataError(f"{where}: label {value!r} of sample {i} is neither a whole number nor a text.")
    return int(value) if isinstance(value, bool) else value


def _tagged(sentences: Sequence[Any], tags: Sequence[Any], names: tuple[str, ...], declared: Declaration) -> ProxyData:
    """Sentences with the class of each token's tag."""
    where = declared.text
    for i, (words, marks) in enumerate(zip(sentences, tags, strict=True)):
        if (
            not isinstance(words, list)
            or not isinstance(marks, list)
            or not all(isinstance(word, str) for word in words)
        ):
            raise DataError(f"{where}: sentence {i} is not a list of tokens with a list of tags. Remove it.")
        if len(words) != len(marks):
            raise DataError(
                f"{where}: sentence {i} has {len(words)} tokens and {len(marks)} tags. Each token needs one."
            )
    values = [_as_label(mark, i, where) for i, mark in enumerate(mark for marks in tags for mark in marks)]
    if not values:
        raise DataError(f"{where}: there are no tokens.")
    classes = iter(_as_classes(values, names, where).tolist())
    is_named = bool(names) and all(isinstance(value, int) for value in values)
    tagged = Tagged(
        sentences=tuple(tuple(map(str, words)) for words in sentences),
        tags=tuple(tuple(islice(classes, len(marks))) for marks in tags),
        names=names if is_named else tuple(map(str, sorted(set(values)))),
    )
    _check_n_classes(len(tagged.names), declared)
    digest = hashlib.sha256(json.dumps([tagged.sentences, tagged.tags, tagged.names]).encode()).hexdigest()
    return ProxyData(tagged, np.empty(0, dtype=np.int64), digest)


def _conll(declared: Declaration) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences and tags of a file of CoNLL columns; tags that do not look like tags are questioned."""
    try:
        columns = Columns(token=int(declared.input), tag=int(declared.label))
    except ValueError:
        raise DataError(
            f"{declared.text}: input {declared.input!r} and label {declared.label!r} must be numbers of columns, from 0."
        ) from None
    path = Path(declared.path).expanduser()
    sentences, tags = read_conll(path, columns, declared.encoding, declared.text)
    refuse_doubtful_tags(tags, declared.n_classes, declared.text)
    return sentences, tags


def _features(path: Path, declared: Declaration) -> ProxyData:
    """Arrays of an .npz file: features (M, D) or (M, T, D), then averaged over T, and labels (M,)."""
    refuse_pointer(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("one array alone, as .npy files have it")
        with loaded as file:
            arrays = {name: array for name, array in file.items() if isinstance(array, np.ndarray)}
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{declared.text}: cannot be read ({type(error).__name__}: {error}). Get or write the file again."
        ) from None
    for column in (declared.input, declared.label):
        if column not in arrays:
            raise DataError(f"{declared.text}: there is no array {column!r}. {hint(column, arrays)}")
    return make_feature_data(arrays[declared.input], arrays[declared.label], str(path))


def make_feature_data(features: np.ndarray, labels: np.ndarray, where: str) -> ProxyData:
    """Checks features (M, D) or (M, T, D) and labels (M,) and returns them as a proxy's data, averaged over T.

    Labels keep their values: they need not be 0 to K - 1.
    """
    if features.ndim not in (2, 3) or features.dtype.kind != "f" or len(features) == 0:
        raise DataError(
            f"{where}: features {features.shape} of {features.dtype}. (M, D) or (M, T, D) floats are needed."
        )
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels {labels.shape} of {labels.dtype}. ({len(features)},) whole numbers are needed."
        )
    # A copy: features may be a memory map that cannot be written.
    x = np.array(features if features.ndim == 2 else features.mean(axis=1), dtype=np.float32, order="C")
    if not np.isfinite(x).all():
        raise DataError(f"{where}: features hold NaN or infinite values.")
    y = labels.astype(np.int64)
    return ProxyData(Features(x, where), y, fingerprint(x, y))
