"""How the paths and texts that a user gives are read."""

import os
from pathlib import Path

from orca_sweep.errors import NO_VALUE, refuse_argument

RESULTS = "results"
"""The folder below which sweeps are, unless the user names another one."""


def read_path(path: str | os.PathLike[str], field: str = "path") -> Path:
    """Returns a path as the user gives it.

    Args:
        path: a text or a path.
        field: the argument it is given as.

    Raises:
        InputError: for anything else, such as None, bytes, or a text with a zero byte.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise refuse_argument(field, NO_VALUE, f"a path is a text or a pathlib.Path, not {type(path).__name__}.")
    if "\0" in text:
        raise refuse_argument(field, repr(text), "a path has no zero bytes.")
    return Path(text)


def read_text(text: str, field: str) -> str:
    """Returns a text as the user gives it.

    Raises:
        InputError: for anything that is not a text.
    """
    if not isinstance(text, str):
        raise refuse_argument(field, NO_VALUE, f"this is a text, not {type(text).__name__}.")
    return text


def real_path(path: str | os.PathLike[str], field: str = "path") -> Path:
    """Returns the absolute path with links followed; in a circle of links, as far as they can be followed.

    Raises:
        InputError: as `read_path` does.
    """
    return Path(os.path.realpath(read_path(path, field)))


def store_root(store: str | os.PathLike[str]) -> str:
    """Returns where a store is: a URL unchanged, a folder as an absolute path.

    Raises:
        InputError: as `read_path` does.
    """
    return store if isinstance(store, str) and "://" in store else str(real_path(store, "store"))


def sweep_folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    """Returns the folder of a sweep: the one that the user gives, or ``results/<name>``.

    Raises:
        InputError: as `read_path` does.
    """
    return real_path(Path(RESULTS) / name if out is None or out == "" else out, "out")
