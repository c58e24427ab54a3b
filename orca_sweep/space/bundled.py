"""The spaces and suites that are installed with the package, by name."""

import os
from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.registry import hint

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "bundled_spaces", PACKAGE.parent / "search_spaces")
"""Inside the package in a wheel, beside it in a checkout."""


def list_bundled_spaces() -> dict[str, Path]:
    """Returns the files of the bundled spaces by their names, sorted."""
    folder = _find_folder()
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def list_bundled_suites() -> dict[str, Path]:
    """Returns the folders of the bundled suites by their names, sorted."""
    folder = _find_folder()
    return {path.name: path for path in sorted(folder.iterdir()) if any(path.glob("*.yaml"))} if folder else {}


def _find_folder() -> Path | None:
    return next((folder for folder in FOLDERS if folder.is_dir()), None)


def is_plain_word(path: Path) -> bool:
    """Returns whether a path may be the name of something bundled: it has one part, no suffix, and no file is there."""
    return (
        "\0" not in str(path)
        and len(path.parts) == 1
        and not path.suffix
        and not path.is_symlink()
        and (not path.exists() or path.is_dir())
    )


def find_space(space: Path) -> Path:
    """Returns the file of a space, given its path or the name of a bundled space.

    An existing path wins over a name. A text that looks like a path is returned as it is: reading it reports what is
    wrong with it.

    Raises:
        InputError: for a folder, a bundled suite, and a plain word that is neither a file nor a bundled space; then the
            message names the nearest space.
    """
    word, is_word = str(space), is_plain_word(space)
    bundled = list_bundled_spaces() if is_word else {}
    is_suite = is_word and word in list_bundled_suites()
    if word not in bundled and (is_suite or os.path.isdir(space)):
        kind = "suite of several spaces" if is_suite else "folder"
        raise InputError(f"{word}: a {kind}, but this takes one space. Name one of its files.")
    if not is_word:
        return space
    if word not in bundled:
        raise InputError(f"{word}: there is no such file, and no bundled space of that name. {hint(word, bundled)}")
    return bundled[word]


def read_question(path: Path) -> str:
    """Returns the question at the top of a bundled space ('# Question: does it matter ...'); empty without one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# Question:").strip() for line in lines if line.startswith("# Question:")), "")
