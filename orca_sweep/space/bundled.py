"""The spaces that are installed with the package, by name."""

from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.registry import hint

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "bundled_spaces", PACKAGE.parent / "search_spaces")
"""Inside the package in a wheel, beside it in a checkout."""


def list_bundled_spaces() -> dict[str, Path]:
    """Returns the files of the bundled spaces by their names, sorted."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find_space(space: Path) -> Path:
    """Returns the file of a space, given its path or the name of a bundled space.

    An existing path wins over a name. A text that looks like a path is returned as it is: reading it reports what is
    wrong with it.

    Raises:
        InputError: for a plain word that is neither a file nor a bundled space; the message names the nearest space.
    """
    word = str(space)
    if (
        "\0" in word
        or len(space.parts) != 1
        or space.suffix
        or space.is_symlink()
        or (space.exists() and not space.is_dir())
    ):
        return space
    bundled = list_bundled_spaces()
    if word not in bundled:
        raise InputError(f"{word}: there is no such file, and no bundled space of that name. {hint(word, bundled)}")
    return bundled[word]


def read_question(path: Path) -> str:
    """Returns the question at the top of a bundled space ('# Question: does it matter ...'); empty without one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# Question:").strip() for line in lines if line.startswith("# Question:")), "")
