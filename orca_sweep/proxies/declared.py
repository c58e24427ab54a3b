"""Loads declared proxies: labelled tables, folders of images, CoNLL columns, or precomputed features."""

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
"""Larger data sets are cut to this many samples, drawn with a fixed seed."""


def load_declared(declared: Declaration) -> ProxyData:
    """Returns the data of a declared data set.

    Texts stay as they are. Images are scaled to [0, 1] by the range of their type. A column of token lists with a column
    of tag lists gives tagged sentences, from which ``draw_samples`` draws samples.

    Raises:
        DataError: names the data set, the column and what it holds.
    """
    kind = _find_local_kind(declared)
    if kind == "npz":
        return _check_feature_classes(_read_features(Path(declared.path).expanduser(), declared), declared)
    if kind == "conll":
        return _tag_sentences(*_read_conll_columns(declared), (), declared)
    return _label_rows(read_table(declared), declared)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a declared data set holds, before the cut to what a proxy uses."""

    n_samples: int
    n_classes: int
    samples_are: str = "samples"
    """What is counted: samples, or tokens of tagged sentences."""
    about: str = ""
    """Notes for the plan on how the data set was read."""


def count_samples(declared: Declaration) -> Counts:
    """Returns how many samples and classes a local data set holds; reads its labels, but no image.

    Raises:
        DataError: if it cannot be read, as in ``load_declared``, or images are not in class folders.
    """
    if _find_local_kind(declared) in ("npz", "conll"):
        return _count_data(load_declared(declared))
    table = read_table(declared)
    _refuse_empty(table, declared)
    if isinstance(table.labels[0], list):
        return _count_data(_label_rows(table, declared))
    labels = _number_classes(table.labels, table.class_names, declared.text)
    n_classes = len(np.unique(labels))
    _check_n_classes(n_classes, declared)
    return Counts(n_samples=len(labels), n_classes=n_classes, about=table.about)


def _count_data(data: ProxyData) -> Counts:
    if isinstance(data.inputs, Tagged):
        return Counts(n_samples=len(data.inputs), n_classes=len(data.inputs.names), samples_are="tokens")
    return Counts(n_samples=len(data.labels), n_classes=len(np.unique(data.labels)))


def _find_local_kind(declared: Declaration) -> FileKind | None:
    """Returns the kind of a declared local file; None for folders and the hub, where the files decide."""
    path = Path(declared.path).expanduser()
    if not declared.is_local or path.is_dir():
        return None
    kind = find_file_kind(path)
    if kind in ("npz", "conll") and read_split(declared.split, declared.text).name not in ("", "train"):
        raise DataError(f"{declared.text}: a single file has no split {declared.split!r}. Write [] or [train].")
    if kind in ("npz", "conll") and declared.split not in ("", "train"):
        raise DataError(f"{declared.text}: only the whole of such a file can be used. Write [] or [train].")
    return kind


def _label_rows(table: Table, declared: Declaration) -> ProxyData:
    """Returns the labelled samples of a table, according to what its input column holds."""
    _refuse_empty(table, declared)
    n = len(table.labels)
    first = table.inputs([0])[0]
    if isinstance(first, list) and isinstance(table.labels[0], list):
        return _tag_sentences(table.inputs(range(n)), table.labels, table.class_names, declared)
    y = _number_classes(table.labels, table.class_names, declared.text)
    _check_n_classes(len(np.unique(y)), declared)
    chosen = _choose_rows(n)
    rows, y = table.inputs(chosen), y[chosen]
    if isinstance(first, str):
        return replace(_make_text_data(rows, chosen, y, declared), n_found=n)
    if isinstance(first, Picture | bytes) or (isinstance(first, dict) and "bytes" in first):
        pictures = [_read_picture(row, i, declared) for i, row in zip(chosen, rows, strict=True)]
        return replace(make_image_data(stack_pictures(pictures), y), n_found=n)
    raise DataError(
        f"{declared.text}: column {declared.input!r} holds {type(first).__name__}. It must hold texts, images, or lists of"
        " tokens with lists of tags."
    )


def _refuse_empty(table: Table, declared: Declaration) -> None:
    if len(table.labels) == 0:
        raise DataError(f"{declared.text}: the data set is empty.")


def _check_feature_classes(data: ProxyData, declared: Declaration) -> ProxyData:
    _check_n_classes(len(np.unique(data.labels)), declared)
    return data


def _check_n_classes(n: int, declared: Declaration) -> None:
    if declared.n_classes not in (None, n):
        raise DataError(f"{declared.text}: there are {n} classes, not n_classes = {declared.n_classes}. Correct it.")


def _make_text_data(rows: Sequence[Any], chosen: Sequence[int], y: np.ndarray, declared: Declaration) -> ProxyData:
    for i, text in zip(chosen, rows, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{declared.text}: the text of sample {i} is {text!r}. Remove empty texts first.")
    texts = tuple(rows)
    digest = hashlib.sha256(json.dumps(texts).encode() + y.tobytes()).hexdigest()
    return ProxyData(inputs=texts, labels=y, fingerprint=digest)


def _read_picture(row: Any, i: int, declared: Declaration) -> Picture:
    """Returns the encoded image of a row; messages call it by its sample, or by its path if it is in a folder."""
    if isinstance(row, Picture):
        return row
    where = f"{declared.text}: sample {i}"
    content = row.get("bytes") if isinstance(row, dict) else row
    path = row.get("path") if isinstance(row, dict) else None
    if content is None and path and Path(path).is_file():
        return Picture(where=f"{where} ({path})", file=Path(path))
    if not isinstance(content, bytes):
        raise DataError(f"{where} holds no image ({str(content or path)[:60]}). Remove it.")
    return Picture(where=f"{where} ({path})" if path else where, file=content)


def _choose_rows(n: int) -> list[int]:
    if n <= MAX_SAMPLES:
        return list(range(n))
    return sorted(stream_rng(0, "proxy samples").choice(n, MAX_SAMPLES, replace=False).tolist())


def _number_classes(values: Sequence[object], names: tuple[str, ...], where: str) -> np.ndarray:
    """Returns labels as integers from 0: named classes keep their numbers, others are numbered in sorted order.

    Booleans and whole floats are numbers of classes.
    """
    labels = [_read_label(value, i, where) for i, value in enumerate(values)]
    for i, label in enumerate(labels):
        if names and isinstance(label, int) and not 0 <= label < len(names):
            raise DataError(
                f"{where}: label {label} of sample {i} is not one of the {len(names)} classes ({', '.join(names[:9])})."
            )
    if names and all(isinstance(label, int) for label in labels):
        return np.array(labels, dtype=np.int64)
    if len({type(label) for label in labels}) > 1:
        raise DataError(f"{where}: some labels are numbers and others are texts. Use one kind.")
    order = {label: i for i, label in enumerate(sorted(set(labels)))}
    return np.array([order[label] for label in labels], dtype=np.int64)


def _read_label(value: object, i: int, where: str) -> int | str:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: the label of sample {i} is empty. Name its class.")
    if not isinstance(value, int | str):
        raise DataError(f"{where}: label {value!r} of sample {i} is neither a whole number nor a text. Correct it.")
    return int(value) if isinstance(value, bool) else value


def _tag_sentences(
    sentences: Sequence[Any], tags: Sequence[Any], names: tuple[str, ...], declared: Declaration
) -> ProxyData:
    """Returns sentences with the class of each token's tag."""
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
    values = [_read_label(mark, i, where) for i, mark in enumerate(mark for marks in tags for mark in marks)]
    if not values:
        raise DataError(f"{where}: there are no tokens.")
    classes = iter(_number_classes(values, names, where).tolist())
    is_named = bool(names) and all(isinstance(value, int) for value in values)
    tagged = Tagged(
        sentences=tuple(tuple(map(str, words)) for words in sentences),
        tags=tuple(tuple(islice(classes, len(marks))) for marks in tags),
        names=names if is_named else tuple(map(str, sorted(set(values)))),
    )
    _check_n_classes(len(tagged.names), declared)
    digest = hashlib.sha256(json.dumps([tagged.sentences, tagged.tags, tagged.names]).encode()).hexdigest()
    return ProxyData(inputs=tagged, labels=np.empty(0, dtype=np.int64), fingerprint=digest)


def _read_conll_columns(declared: Declaration) -> tuple[list[list[str]], list[list[str]]]:
    """Returns the sentences and tags of a file of CoNLL columns; refuses a column that does not look like tags."""
    try:
        columns = Columns(token=int(declared.input), tag=int(declared.label))
    except ValueError:
        raise DataError(
            f"{declared.text}: input {declared.input!r} and label {declared.label!r} must be numbers of columns, counted from 0."
        ) from None
    path = Path(declared.path).expanduser()
    sentences, tags = read_conll(path, columns, declared.encoding, declared.text)
    refuse_doubtful_tags(tags, declared.n_classes, declared.text)
    return sentences, tags


def _read_features(path: Path, declared: Declaration) -> ProxyData:
    """Returns the data of an .npz file: features (M, D), or (M, T, D) to be averaged over T, and labels (M,)."""
    refuse_pointer(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("a single array, as in an .npy file")
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
    """Checks features (M, D) or (M, T, D) and labels (M,), and returns them as a proxy's data, averaged over T.

    Labels keep their values: they need not be 0 to K - 1.
    """
    if features.ndim not in (2, 3) or features.dtype.kind != "f" or len(features) == 0:
        raise DataError(
            f"{where}: features {features.shape} of {features.dtype}. Floats of shape (M, D) or (M, T, D) are needed."
        )
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels {labels.shape} of {labels.dtype}. Whole numbers of shape ({len(features)},) are needed."
        )
    # Copies: features may be a read-only memory map.
    x = np.array(features if features.ndim == 2 else features.mean(axis=1), dtype=np.float32, order="C")
    if not np.isfinite(x).all():
        raise DataError(f"{where}: features hold NaN or infinite values.")
    y = labels.astype(np.int64)
    return ProxyData(inputs=Features(array=x, where=where), labels=y, fingerprint=fingerprint(x, y))
