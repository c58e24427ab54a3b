"""Git LFS pointers: small texts that stand where a file would be if it had been fetched."""

import re
from pathlib import Path

from orca_sweep.errors import DataError

POINTER = re.compile(rb"version https?://(?:git-lfs|hawser)\.github\.com/spec/v\d+\r?\n")
SIZE = re.compile(rb"^size (\d+)\s*$", re.MULTILINE)
LONGEST_POINTER = 1024
"""Bytes: a longer file is no pointer (Git LFS specification)."""


def explain_pointer(path: Path, start: bytes) -> str | None:
    """Returns what to do about a Git LFS pointer, told by a file's first bytes; None if the file is none."""
    if not POINTER.match(start):
        return None
    size = SIZE.search(start)
    bytes_lacking = f"its {int(size[1]):,} bytes are not here" if size else "its bytes are not here"
    return (
        f"{path}: a Git LFS pointer, not the file itself ({bytes_lacking}). Run 'git lfs pull' where you cloned it, or"
        " fetch the file itself."
    )


def find_pointer(path: Path) -> str | None:
    """Returns what to do if a file is a Git LFS pointer, else None; also for a file that is not there.

    Cost: for a file larger than a pointer can be, one look at its size.
    """
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_POINTER:
            return None
        return explain_pointer(path, path.read_bytes())
    except OSError:
        return None


def refuse_pointer(path: Path) -> None:
    """Refuses a file that is a Git LFS pointer.

    Raises:
        DataError: saying how many bytes are not here, and what to do.
    """
    problem = find_pointer(path)
    if problem:
        raise DataError(problem)
