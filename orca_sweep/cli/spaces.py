"""The arguments SPACE of ``plan``, ``launch`` and ``submit``, and the options about them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orca_sweep.api.spaces import Space
    from orca_sweep.api.suites import Suite

SpaceFile = Annotated[
    Path,
    typer.Argument(
        metavar="SPACE",
        help="a space YAML, or the name of a bundled space (orca-sweep list spaces)",
        show_default=False,
    ),
]
SpaceFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="SPACE...",
        help="a space YAML, or the name of a bundled space (orca-sweep list spaces); several, or a folder of them, or a"
        " bundled suite, run as one",
        show_default=False,
    ),
]
SuiteName = Annotated[
    str | None, typer.Option("--name", help="name of several spaces as a suite; default: that of their folder")
]
Smoke = Annotated[
    bool, typer.Option("--smoke", help="the small form that the key 'smoke' of a space describes, as NAME-smoke")
]
Rehash = Annotated[
    bool, typer.Option("--rehash", help="hash your own files again, even if they look the same as last time")
]
MaxTrials = Annotated[
    int | None,
    typer.Option(
        "--max-trials", min=1, help="largest number of trials a space may have; default 75000", show_default=False
    ),
]
"""None for ``space.MAX_TRIALS``, which ``--help`` cannot load: the import takes longer than the help."""


def read_sources(spaces: list[Path], name: str | None) -> "Space | Suite":
    """Returns the space, or the suite, that a command names.

    Raises:
        InputError: if there is none of them, or a suite has no name.
    """
    from orca_sweep.api.spaces import Space
    from orca_sweep.api.suites import Suite
    from orca_sweep.space.sources import find_sources

    sources = find_sources(spaces, name)
    if isinstance(sources, Path):
        return Space.from_yaml(sources)
    return Suite(name=sources.name, spaces=tuple(map(Space.from_yaml, sources.files)))
