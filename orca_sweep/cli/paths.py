"""How the paths on a command line are read."""

from collections.abc import Iterable
from pathlib import Path

from orca_sweep.errors import InputError


def shorten_path(path: Path) -> str:
    """Returns the path relative to the working folder if it is below it, else the path itself."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def refuse_zero_bytes(words: Iterable[str]) -> None:
    """Refuses words that no path and no name can be.

    Raises:
        InputError: for each word of the command line that contains a zero byte.
    """
    wrong = [
        f"{word!r}: contains a zero byte, which no path or name can. Correct it." for word in words if "\0" in word
    ]
    if wrong:
        raise InputError(wrong)
