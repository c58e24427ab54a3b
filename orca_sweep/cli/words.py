"""How the words of a command line are read."""

import os
from collections.abc import Iterable
from pathlib import Path

from orca_sweep.errors import InputError


def real_path(path: str | Path) -> Path:
    """Returns a path from the root, links followed; where links lead in a circle, the path as far as it goes."""
    return Path(os.path.realpath(path))


def refuse_zero_bytes(words: Iterable[str]) -> None:
    """Refuses what no path and no name can hold.

    Raises:
        InputError: naming the words of the command line that have a zero byte.
    """
    wrong = [
        f"{word!r}: has a zero byte, which no path or name can have. Correct it." for word in words if "\0" in word
    ]
    if wrong:
        raise InputError(wrong)
