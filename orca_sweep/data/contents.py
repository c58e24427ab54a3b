"""Hashes of the user's own files, so that a trial id depends on their content and not on where they are.

The hash of a file is computed once per state (size, times, inode) and kept in the user's cache folder. Planning with
large files is therefore slow only once.
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
"""The number of hexadecimal digits of a hash that people see."""
SETTLED_S = 2.0
"""The hash of a file that changed more recently than this is not kept: the clock of a file system is coarse, so the file
could change again and look the same."""
LARGE_BYTES = 2**30
BLOCK_BYTES = 2**22
HEX = re.compile(r"[0-9a-f]{64}")


def find_hash_cache() -> Path:
    """Returns the folder that keeps the current user's file hashes."""
    return user_cache_path("orca-sweep", appauthor=False) / "contents"


class Contents:
    """Hashes of files and folders. An object looks at each path once, so that all ids of a plan agree."""

    def __init__(
        self, cache: Path | None = None, *, rehashes: bool = False, report: Callable[[str], None] = lambda text: None
    ) -> None:
        """Prepares an empty object without touching any file.

        Args:
            cache: folder of hashes from earlier runs; None for the user's own.
            rehashes: whether to hash every file again, whatever the cache holds.
            report: called with a line of text before a large file is hashed.
        """
        self.cache, self.rehashes, self.report = cache or find_hash_cache(), rehashes, report
        self.known: dict[tuple[Path, ...], str] = {}

    def hash_paths(self, paths: Sequence[Path]) -> str:
        """Returns the SHA-256 of files and folders in the given order; their own names do not count.

        A folder's hash covers the bytes and the relative names of all files below it. Hidden files, which file
        managers and version control leave behind, are ignored.

        Raises:
            DataError: if a file is missing, cannot be read, or changes while it is read.

        Cost: about a second per GB the first time, then one look at each file's state.
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
                self.report(f"reading {size / 2**30:.3g} GiB of {paths[0]} once, to recognise its content later")
            digest = _hash_files(files)
            if any(_read_state(path) != state for path, state in states):
                raise DataError(f"{paths[0]}: it changes while it is read. Wait until it is complete, and start again.")
            if time.time() - newest > SETTLED_S:
                _write_entry(entry, digest)
        return digest


def _list_files(top: int, path: Path) -> Iterator[tuple[str, Path]]:
    """Yields the files of a path, each under the name to hash: its index among the paths, then its name in the folder."""
    if not path.is_dir():
        yield f"{top}", path
        return
    for parts in _walk_folder(path, (), (os.path.realpath(path),)):
        yield "/".join((f"{top}", *parts)), path.joinpath(*parts)


DEEPEST = 100


def _walk_folder(folder: Path, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the files below a folder, ordered by name; ``above`` are the real paths of the folders that lead here."""
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
                f"{path}: its folders never end, or are more than {DEEPEST} deep. A link may lead to a folder above it."
                " Remove the link."
            )
        yield from _walk_folder(path, (*parts, name), (*above, real))


def _read_state(path: Path) -> tuple[int, int, int, int]:
    """Returns inode, size and the two times that change whenever a file's content does."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: cannot be read ({reason}). Correct the path.") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file, so it cannot be read twice. Save the data to a file.")
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_files(files: Sequence[tuple[str, Path]]) -> str:
    """Returns the hash over names and bytes of files; each part is hashed by itself, so that no two lists are alike."""
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
    """Keeps a hash; if the cache cannot be written, the files are hashed again next time."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_text(digest, encoding="ascii")
        os.replace(temporary, entry)
