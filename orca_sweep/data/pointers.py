"""Git LFS pointers: small text files that stand in for files that were not fetched."""

import re
from pathlib import Path

from orca_sweep.errors import DataError

POINTER = re.compile(rb"version https?://(?:git-lfs|hawser)\.github\.com/spec/v\d+\r?\n")
SIZE = re.compile(rb"^size (\d+)\s*$", re.MULTILINE)
LONGEST_POINTER = 1024
"""Bytes; a longer file is not a pointer (Git LFS specification)."""


def _describe_pointer(path: Path, start: bytes) -> str | None:
    if not POINTER.match(start):
        return None
    size = SIZE.search(start)
    missing = f"its {int(size[1]):,} bytes are missing" if size else "its bytes are missing"
    return (
        f"{path}: a Git LFS pointer, not the file itself ({missing}). Run 'git lfs pull' where you cloned it, or fetch the"
        " file itself."
    )


def pointer_problem(path: Path) -> str | None:
    """Returns the problem, with its remedy, of a file that is a Git LFS pointer; None if it is none or is missing.

    Cost: reads at most ``LONGEST_POINTER`` bytes.
    """
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_POINTER:
            return None
        return _describe_pointer(path, path.read_bytes())
    except OSError:
        return None


def refuse_pointer(path: Path) -> None:
    """Refuses a file that is a Git LFS pointer.

    Raises:
        DataError: with the size of the missing file and the remedy.
    """
    problem = pointer_problem(path)
    if problem:
        raise DataError(problem)
