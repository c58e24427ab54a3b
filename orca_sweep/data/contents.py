"""Hashes of the user's own files: what an id says of data, wherever the files lie.

A hash is computed once for a file in a given state (size, times, inode) and kept in the user's cache folder, so that
planning with large files is slow once only.
"""

import hashlib
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from orca_sweep.errors import DataError

SHOWN_DIGITS = 8
"""So many hexadecimal digits of a hash tell contents apart for people."""
SETTLED_S = 2.0
"""A file changed more recently than this is hashed, but its hash is not kept: within the resolution of a file system's
clock it could change once more and look the same."""
LARGE_BYTES = 2**30
BLOCK_BYTES = 2**22
HEX = re.compile(r"[0-9a-f]{64}")


def find_hash_cache() -> Path:
    """Returns the folder in which hashes of files are kept for the present user."""
    return user_cache_path("orca-sweep", appauthor=False) / "contents"


class Contents:
    """Hashes of files and folders. Each path is looked at once in an object's life, so that all ids of a plan agree."""

    def __init__(
        self, cache: Path | None = None, *, rehashes: bool = False, report: Callable[[str], None] = lambda text: None
    ) -> None:
        """Prepares an empty object; touches no file.

        Args:
            cache: folder of the hashes computed before; None for the user's own.
            is_anew: whether to hash every file again, whatever the cache holds.
            tell: called with a line before something large is hashed.
        """
        self.cache, self.rehashes, self.report = cache or find_hash_cache(), rehashes, report
        self.known: dict[tuple[Path, ...], str] = {}

    def hash_paths(self, paths: Sequence[Path]) -> str:
        """Returns the SHA-256 of files and folders in their order, whatever their own names are.

        A folder's hash is over the names, relative to it, and the bytes of all files below it. Hidden files, which file
        managers and version control leave behind, do not count.

        Raises:
            DataError: if there is no such file, one cannot be read, or one changes while it is read.

        Cost: about a second per GB at first, then one look at each file's state.
        """
        key = tuple(paths)
        if key not in self.known:
            self.known[key] = self._hash_list(key)
        return self.known[key]

    def _hash_list(self, paths: tuple[Path, ...]) -> str:
        files = [(name, path) for top, path in enumerate(paths) for name, path in _list_files(top, path)]
        states = [(path, _read_state(path)) for _, path in files]
        newest = max((max(state[2:4]) for _, state in states), default=0) / 1e9
        entry = self.cache / hashlib.sha256(repr([(str(path), state) for path, state in states]).encode()).hexdigest()
        digest = None if self.rehashes else _read_entry(entry)
        if digest is None:
            size = sum(state[1] for _, state in states)
            if size >= LARGE_BYTES:
                self.report(f"reading {size / 2**30:.3g} GiB of {paths[0]} once, to know its content again")
            digest = _hash_files(files)
            if any(_read_state(path) != state for path, state in states):
                raise DataError(f"{paths[0]}: it changes while it is read. Wait until it is written, and start again.")
            if time.time() - newest > SETTLED_S:
                _write_entry(entry, digest)
        return digest


def _list_files(top: int, path: Path) -> Iterator[tuple[str, Path]]:
    """The files of a path, each with the name that counts: of a file its place among the paths, else its own."""
    if not path.is_dir():
        yield f"{top}", path
        return
    for parts in _walk_folder(path, (), (os.path.realpath(path),)):
        yield "/".join((f"{top}", *parts)), path.joinpath(*parts)


DEEPEST = 100


def _walk_folder(folder: Path, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The files below a folder in the order of their names; ``above`` are the real paths of the folders that lead here."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Correct its permissions.") from None
    for name in names:
        path = folder / name
        if not path.is_dir():
            yield *parts, name
            continue
        real = os.path.realpath(path)
        if real in above or len(above) > DEEPEST:
            raise DataError(
                f"{path}: folders below it never end, or are over {DEEPEST} deep: a link may lead to a folder above."
            )
        yield from _walk_folder(path, (*parts, name), (*above, real))


def _read_state(path: Path) -> tuple[int, int, int, int]:
    """Inode, size and the two times that change whenever a file's content does."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: cannot be read ({reason}). Correct the path.") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: this is no file that can be read again. Save the data to a file.")
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_files(files: Sequence[tuple[str, Path]]) -> str:
    """The hash over the names and bytes of files; each part is ended by its own hash, so that no two lists are alike."""
    total = hashlib.sha256()
    for name, path in files:
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Correct its permissions.") from None
        total.update(hashlib.sha256(os.fsencode(name)).digest() + digest.digest())
    return total.hexdigest()


def _read_entry(entry: Path) -> str | None:
    try:
        text = entry.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if HEX.fullmatch(text) else None


def _write_entry(entry: Path, digest: str) -> None:
    """Keeps a hash; where nothing can be written, files are hashed again next time."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_text(digest, encoding="ascii")
        os.replace(temporary, entry)
