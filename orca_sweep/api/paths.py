"""How the paths that a user gives are read."""

import os
from pathlib import Path

RESULTS = "results"
"""The folder below which sweeps are, unless the user names another one."""


def real_path(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path with links followed; in a circle of links, as far as they can be followed."""
    return Path(os.path.realpath(path))


def store_root(store: str) -> str:
    """Returns where a store is: a URL unchanged, a folder as an absolute path."""
    return store if "://" in store else str(real_path(store))


def sweep_folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    """Returns the folder of a sweep: the one that the user gives, or ``results/<name>``."""
    return real_path(out or Path(RESULTS) / name)
