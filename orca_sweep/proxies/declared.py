"""Proxies by declaration: any labelled data set of the ``datasets`` library, CoNLL columns, or made features."""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data import fingerprint
from orca_sweep.declaration import Declaration
from orca_sweep.errors import DataError
from orca_sweep.pointers import refuse_pointer
from orca_sweep.proxies.embedded import image_data
from orca_sweep.proxies.records import Features, ProxyData, Tagged
from orca_sweep.registry import hint
from orca_sweep.streams import stream_rng

CONLL = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt")
MAX_SAMPLES = 10_000
"""Larger data sets are cut to this many samples, drawn once and for all."""
UNEVEN_SIDE = 64
"""Images of different sizes are brought to this side."""


def load(declared: Declaration) -> ProxyData:
    """Reads a declared data set.

    Texts are samples as they are; images are scaled to [0, 1]; a column of token lists with a column of tag
    lists gives tagged sentences, which ``draw_samples`` makes samples of.

    Raises:
        DataError: naming the data set, the column and what was found.
    """
    path = Path(declared.path)
    if declared.is_local and path.suffix in (".npz", *CONLL) and declared.split not in ("", "train"):
        raise DataError(f"{declared.text}: such a file has no split {declared.split!r}. Write [train].")
    if declared.is_local and path.suffix == ".npz":
        return _features(path, declared)
    if declared.is_local and path.suffix in CONLL:
        return _tagged(*_conll(path, declared), (), str(path))
    table = _table(declared)
    for column in (declared.input, declared.label):
        if column not in table.column_names:
            raise DataError(f"{declared.text}: there is no column {column!r}. {hint(column, table.column_names)}")
    if len(table) == 0:
        raise DataError(f"{declared.text}: the data set is empty.")
    names = _class_names(table.features[declared.label])
    labels = table[declared.label][:]
    try:
        first = table[0][declared.input]
    except Exception as error:  # what the library's reader of images raises
        raise _unreadable(declared, 0, error) from None
    if isinstance(first, list) and isinstance(labels[0], list):
        return _tagged(table[declared.input][:], labels, names, declared.text)
    chosen = _chosen(len(table))
    y = _as_classes([labels[i] for i in chosen], names, declared.text)
    if hasattr(first, "convert"):
        return image_data(_images(table, chosen, declared), y)
    rows = table.select(chosen)[declared.input][:]
    if isinstance(first, str):
        for i, text in zip(chosen, rows, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{declared.text}: the text of sample {i} is {text!r}. Take empty texts out first.")
        texts = tuple(rows)
        digest = hashlib.sha256(json.dumps(texts).encode() + y.tobytes()).hexdigest()
        return ProxyData(texts, y, digest)
    raise DataError(
        f"{declared.text}: column {declared.input!r} holds {type(first).__name__}. Texts, images, or lists of tokens"
        " with lists of tags are understood."
    )


def _table(declared: Declaration) -> Any:
    """The split as a table of the datasets library."""
    import datasets

    if declared.is_local and not Path(declared.path).exists():
        raise DataError(f"{declared.text}: no such file or folder {declared.path}. Paths count from where you launch.")
    if declared.is_local:
        _refuse_pointers(Path(declared.path))
    before = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if declared.is_local and Path(declared.path).is_file():
            kind = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}.get(
                Path(declared.path).suffix
            )
            if kind is None:
                raise DataError(
                    f"{declared.text}: {Path(declared.path).suffix or 'no ending'} is no kind of file that is read."
                    f" Parquet, CSV, JSON lines, {', '.join(CONLL)} and .npz are."
                )
            return datasets.load_dataset(kind, data_files={"train": declared.path}, split=declared.split or "train")
        return datasets.load_dataset(
            declared.path, declared.config, revision=declared.revision, split=declared.split or "train"
        )
    except DataError:
        raise
    except Exception as error:  # the library raises whatever its readers and the network raise
        text = str(error).strip().splitlines()
        raise DataError(
            f"{declared.text}: cannot be read ({type(error).__name__}: {text[0] if text else 'no more is known'})."
            + ("" if declared.is_local else " Without a network, name a local copy as the path.")
        ) from None
    finally:
        if before:
            datasets.enable_progress_bars()


def _refuse_pointers(path: Path) -> None:
    """Refuses Git LFS pointers, which the library would read as text: the file itself, or any in the folder."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        refuse_pointer(file)


def _chosen(n: int) -> list[int]:
    if n <= MAX_SAMPLES:
        return list(range(n))
    return sorted(stream_rng(0, "proxy samples").choice(n, MAX_SAMPLES, replace=False).tolist())


def _class_names(feature: Any) -> tuple[str, ...]:
    inner = getattr(feature, "feature", feature)
    return tuple(getattr(inner, "names", None) or ())


def _as_classes(values: Sequence[object], names: tuple[str, ...], where: str) -> np.ndarray:
    """Labels as integers from 0: named classes keep their numbers, others are numbered in sorted order."""
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(f"{where}: label {value!r} of sample {i} is neither a whole number nor a text.")
        if names and isinstance(value, int) and not 0 <= value < len(names):
            raise DataError(
                f"{where}: label {value} of sample {i} is none of the {len(names)} classes ({', '.join(names[:9])})."
            )
    if names and all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    if len({type(value) for value in values}) > 1:
        raise DataError(f"{where}: labels are numbers in some samples and texts in others. Use one kind.")
    order = {value: i for i, value in enumerate(sorted(set(values)))}  # type: ignore[type-var]
    return np.array([order[value] for value in values], dtype=np.int64)


def _unreadable(declared: Declaration, sample: int, error: Exception) -> DataError:
    return DataError(
        f"{declared.text}: the image of sample {sample} cannot be read ({type(error).__name__}: {str(error)[:200]}). Mend it,"
        " or take it out."
    )


def _images(table: Any, chosen: Iterable[int], declared: Declaration) -> np.ndarray:
    pictures = []
    for i in chosen:
        try:
            picture = table[i][declared.input]
            is_deep = picture.mode[0] in "IF"
            pictures.append(picture.convert("RGB"))
        except Exception as error:  # what the library's reader of images raises, and that there is none
            raise _unreadable(declared, i, error) from None
        if is_deep:
            raise DataError(
                f"{declared.text}: the image of sample {i} has pixels of mode {picture.mode!r}, not of 8 bits, and what is"
                " white in it is not known. Save images with 8 bits per channel."
            )
    if len({picture.size for picture in pictures}) > 1:
        pictures = [picture.resize((UNEVEN_SIDE, UNEVEN_SIDE)) for picture in pictures]
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return stacked.transpose(0, 3, 1, 2).astype(np.float32) / 255


def _tagged(sentences: Sequence[Any], tags: Sequence[Any], names: tuple[str, ...], where: str) -> ProxyData:
    """Sentences with the tags of all their tokens, as classes."""
    for i, (words, marks) in enumerate(zip(sentences, tags, strict=True)):
        if (
            not isinstance(words, list)
            or not isinstance(marks, list)
            or not all(isinstance(word, str) for word in words)
        ):
            raise DataError(f"{where}: sentence {i} is no list of tokens with a list of tags. Take it out.")
        if len(words) != len(marks):
            raise DataError(f"{where}: sentence {i} has {len(words)} tokens and {len(marks)} tags.")
    values = [mark for marks in tags for mark in marks]
    if not values:
        raise DataError(f"{where}: there are no tokens.")
    classes = iter(_as_classes(values, names, where).tolist())
    is_named = bool(names) and all(isinstance(value, int) for value in values)
    tagged = Tagged(
        sentences=tuple(tuple(map(str, words)) for words in sentences),
        tags=tuple(tuple(islice(classes, len(marks))) for marks in tags),
        names=names if is_named else tuple(map(str, sorted(set(values)))),
    )
    digest = hashlib.sha256(json.dumps([tagged.sentences, tagged.tags, tagged.names]).encode()).hexdigest()
    return ProxyData(tagged, np.empty(0, dtype=np.int64), digest)


def _conll(path: Path, declared: Declaration) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences and tags of a file with one token per line, columns apart by blanks, an empty line between sentences."""
    refuse_pointer(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{declared.text}: cannot be read ({type(error).__name__}: {error}).") from None
    try:
        token, tag = int(declared.input), int(declared.label)
    except ValueError:
        raise DataError(
            f"{declared.text}: input {declared.input!r} and label {declared.label!r} must be numbers of columns, from 0."
        ) from None
    sentences: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(lines, start=1):
        columns = _columns(line, path.suffix)
        if columns and _stands_beside(columns[0], path.suffix):
            continue
        if not columns or columns[0] == "-DOCSTART-" or (path.suffix == ".conllu" and line.startswith("#")):
            if sentences[-1]:
                sentences.append([])
                tags.append([])
            continue
        if max(token, tag) >= len(columns) or min(token, tag) < -len(columns):
            raise DataError(f"{path}:{number}: {len(columns)} columns, so none has the number {max(token, tag)}.")
        sentences[-1].append(columns[token])
        tags[-1].append(columns[tag])
    return sentences, tags


def _columns(line: str, suffix: str) -> list[str]:
    """The columns of a line: of CoNLL-U between tabs, since a token may hold blanks; no-break spaces belong to a token."""
    if suffix == ".conllu" and "\t" in line:
        return line.split("\t")
    return re.split(r"[ \t]+", line.strip(" \t\r\f\v")) if line.strip() else []


def _stands_beside(number: str, suffix: str) -> bool:
    """Whether a line of CoNLL-U is none of a token of its own: one of several tokens as written, or of a word left out."""
    return suffix == ".conllu" and re.fullmatch(r"\d+[-.]\d+", number) is not None


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
        raise DataError(f"{declared.text}: cannot be read ({type(error).__name__}: {error}).") from None
    for column in (declared.input, declared.label):
        if column not in arrays:
            raise DataError(f"{declared.text}: there is no array {column!r}. {hint(column, arrays)}")
    return features_data(arrays[declared.input], arrays[declared.label], str(path))


def features_data(features: np.ndarray, labels: np.ndarray, where: str) -> ProxyData:
    """Checks features (M, D) or (M, T, D) and labels (M,) and returns them as a proxy's data; the mean is over T.

    Labels keep their numbers, whatever these are.
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
