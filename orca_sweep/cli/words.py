"""How values are written for people, and how their words are read."""

import os
from collections.abc import Iterable
from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.visible import escape_controls


def level_text(value: object) -> str:
    """Returns a level as a table shows it: in one line, and with its control characters written out."""
    if value is None or value != value:  # a null in a column of numbers is read as NaN
        return "null"
    return f"{value:.10g}" if isinstance(value, float) else escape_controls(str(value))


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
