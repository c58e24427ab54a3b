"""Local files of a declared proxy: their kinds and text, the files below a folder, and splits."""

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError

FileKind = Literal["csv", "tsv", "json", "parquet", "conll", "npz"]
CONLL = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt")
KINDS: dict[str, FileKind] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".parquet": "parquet", ".npz": "npz", **dict.fromkeys(CONLL, "conll"),
}  # fmt: skip
TEXT_KINDS: tuple[FileKind, ...] = ("csv", "tsv", "json", "conll")
SPLIT_NAMES = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))
"""Folders and files with these names, in any letter case, are splits of one data set."""
SPLIT = re.compile(r"(?P<name>[^\[\]+]*)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")
SHARD = re.compile(r"-\d+-of-\d+$")


def find_file_kind(path: Path) -> FileKind | None:
    """Returns the kind of file that a name's ending means, in any letter case, or None; text may be packed (.gz)."""
    endings = [ending.lower() for ending in path.suffixes]
    is_packed = endings[-1:] == [".gz"]
    kind = KINDS.get(endings[-2] if is_packed and len(endings) > 1 else endings[-1] if endings else "")
    return None if is_packed and kind not in TEXT_KINDS else kind


def read_text(path: Path, encoding: str | None, where: str) -> str:
    """Returns a file's text without its byte-order mark; unpacks .gz.

    Raises:
        DataError: if the file cannot be read, is a Git LFS pointer, or does not have the encoding (default UTF-8). The
            message then names the first wrong byte and its line.
    """
    refuse_pointer(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{where}: cannot be read ({type(error).__name__}: {error}). Get the file again, or give read access."
        ) from None
    try:
        return content.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise DataError(
            f"{where}: byte {error.start} (0x{content[error.start]:02x}, line {line}) is not {encoding or 'UTF-8'}. Save the"
            f" file as UTF-8, or name its encoding: {{path: ..., encoding: {likely}}}, or {path.name}"
            f"#encoding={likely}[...] as one text."
        ) from None


# Splits -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split's name and the part of it to use: ``train[:50%]``."""

    name: str
    start: str | None = None
    stop: str | None = None

    def choose_rows(self, n: int, where: str) -> range:
        """Returns the chosen rows of n samples.

        Raises:
            DataError: if a bound lies beyond the samples.
        """
        first, end = (_find_row(bound, n, where) for bound in (self.start, self.stop))
        return range(0 if first is None else first, n if end is None else end)


def _find_row(bound: str | None, n: int, where: str) -> int | None:
    if bound is None:
        return None
    number = round(n * int(bound[:-1]) / 100) if bound.endswith("%") else int(bound)
    if abs(number) > n:
        raise DataError(f"{where}: the split asks for sample {bound}, but there are {n:,} samples. Ask for fewer.")
    return number + n if bound.startswith("-") else number


def read_split(text: str, where: str) -> Split:
    """Returns the split that a text describes.

    Raises:
        DataError: if the text does not describe one.
    """
    match = SPLIT.fullmatch(text.strip())
    if match is None:
        raise DataError(
            f"{where}: {text!r} is not a split of a file or folder. Write a name, or a part of it: train, train[:2000],"
            " train[10%:20%]."
        )
    return Split(name=match["name"].strip(), start=match["start"], stop=match["stop"])


# Folders ------------------------------------------------------------------------------------------


def list_files(folder: Path, where: str) -> list[tuple[str, ...]]:
    """Returns the paths of all files below a folder, split into parts and sorted by code point.

    Leaves out hidden files and folders (names that begin with a dot, and __MACOSX). Follows links.

    Raises:
        DataError: if a folder cannot be read, or a link points to nothing or to a folder that contains it.
    """
    return sorted(_walk_folder(folder, (), (os.path.realpath(folder),), where))


def _walk_folder(folder: Path, parts: tuple[str, ...], above: tuple[str, ...], where: str) -> Iterator[tuple[str, ...]]:
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".") and name != "__MACOSX"]
    except OSError as error:
        raise DataError(f"{where}: {folder} cannot be read ({error.strerror}).") from None
    for name in names:
        path = folder / name
        if path.is_dir():
            real = os.path.realpath(path)
            if real in above:
                raise DataError(f"{where}: {path} is a link to a folder that contains it. Remove it.")
            yield from _walk_folder(path, (*parts, name), (*above, real), where)
        elif path.exists():
            yield (*parts, name)
        else:
            raise DataError(f"{where}: {path} is a broken link. Remove it.")


def choose_split(names: Iterable[str], split: str, where: str) -> str | None:
    """Returns the split of a folder to use; None means all of a folder without splits.

    A split that exists is taken, whatever the letter case of its name. ``train``, the default, and an empty name also
    accept a folder without splits; an empty name also accepts a folder with a single split.

    Raises:
        DataError: if the split does not exist, or there are several and none is named.
    """
    splits = sorted(set(names))
    matches = [name for name in splits if name == split] or [n for n in splits if n.casefold() == split.casefold()]
    if split and matches:
        return matches[0]
    known = [name for name in splits if name.casefold() in SPLIT_NAMES]
    if (split in ("", "train") and not known) or (not split and len(splits) == 1):
        return None
    choice = f"It has {', '.join(known or splits)}. Declare one: [{(known or splits)[0]}]." if splits else "Write []."
    raise DataError(
        f"{where}: " + (f"there is no split {split!r}. {choice}" if split else f"no split is named. {choice}")
    )
