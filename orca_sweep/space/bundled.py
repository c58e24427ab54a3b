"""The spaces that come along with the installation, found by name."""

from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.registry import hint

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "bundled_spaces", PACKAGE.parent / "search_spaces")
"""Where they lie: inside the package in a wheel, beside it in a checkout."""


def list_bundled_spaces() -> dict[str, Path]:
    """Returns the files of the bundled spaces by their names, sorted."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find_space(space: Path) -> Path:
    """Returns the file of a space that is named by its path, or else by the name of a bundled one.

    A path that exists wins over a name. What looks like a path stays one: reading it says what is wrong with it.

    Raises:
        InputError: for a plain word that is neither; the message names the nearest bundled space.
    """
    word = str(space)
    if "\0" in word or len(space.parts) != 1 or space.suffix or space.is_symlink() or space.exists():
        return space
    bundled = list_bundled_spaces()
    if word not in bundled:
        raise InputError(f"{word}: there is no such file, and no bundled space of that name. {hint(word, bundled)}")
    return bundled[word]


def read_question(path: Path) -> str:
    """Returns the question in the head of a bundled space: '# Question: does it matter ...'."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# Question:").strip() for line in lines if line.startswith("# Question:")), "")
