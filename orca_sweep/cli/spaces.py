"""The argument SPACE of ``plan``, ``launch`` and ``submit``, and the options about it."""

from pathlib import Path
from typing import Annotated

import typer

SpaceFile = Annotated[
    Path,
    typer.Argument(
        metavar="SPACE",
        help="a space YAML, or the name of a bundled space (orca-sweep list spaces)",
        show_default=False,
    ),
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
