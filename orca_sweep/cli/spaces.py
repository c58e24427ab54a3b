"""The argument SPACE of ``plan``, ``launch`` and ``submit``, and the plan that it becomes."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.errors import InputError, Problem

if TYPE_CHECKING:
    from orca_sweep.space import Plan

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


def make_plan(space: Path, max_trials: int | None = None, rehash: bool = False) -> "Plan":
    """Returns the plan of a space of at most ``max_trials`` trials, after importing the modules it names.

    Args:
        space: the space's file, or the name of a bundled space.
        max_trials: the most trials that are expanded; None for ``space.MAX_TRIALS``.
        rehash: whether to read the user's own files again even if they look as they did when they were last hashed.

    Raises:
        InputError: with every mistake in the space, or every problem with the files of its bodies and own tasks.
    """
    from orca_sweep.data.contents import Contents
    from orca_sweep.space import MAX_TRIALS, plan_space
    from orca_sweep.space.bundled import find_space
    from orca_sweep.trial import Records, Remembering, find_body_problems, find_task_problems, load_imports, make_config

    contents = Contents(rehashes=rehash, report=lambda text: print(text, file=sys.stderr, flush=True))
    records = Records()  # looks names up only after the imports
    resolve_once = Remembering(partial(make_config, records=records, contents=contents))
    planned = plan_space(find_space(space), load_imports, resolve_once, max_trials or MAX_TRIALS)
    configs = (*planned.cells, *(trial.config for trial in planned.trials))
    trials = list(map(records.resolve_config, configs))
    problems: list[str | Problem] = [*find_body_problems(trials), *find_task_problems(trials)]
    if problems:
        raise InputError(problems)
    return planned
