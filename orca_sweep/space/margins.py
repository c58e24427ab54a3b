"""The margins that a space sets beforehand: for each task, the largest difference that does not matter."""

from collections.abc import Mapping, Sequence

from orca_sweep.config.naming import label_declarations, label_of
from orca_sweep.errors import Problem
from orca_sweep.registry import hint

ALL = ""
"""Stands for every task without its own margin."""


def name_margins(
    margins: Mapping[str, float], tasks: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, float], dict[str, Problem]]:
    """Returns margins by task, and the problem with each name that is not a task.

    Args:
        margins: by the names that the space writes.
        tasks: the space's tasks, as it writes them; a margin may also use a declared task's name. Every name is
            accepted if no task could be read.
        names: the names that the space writes, including those of margins that could not be read.
    """
    by_name: dict[str, list[str]] = {}
    labels = label_declarations(tasks)
    for task in dict.fromkeys(tasks):
        for name in {task, label_of(task), labels[task]}:
            by_name.setdefault(name, []).append(task)
    problems = {
        name: Problem(field="margin", rule=f"{name!r} is not a task of this space. {hint(name, labels.values())}")
        for name in (names if tasks else ())
        if name not in by_name
    }
    return {task: value for name, value in margins.items() for task in by_name.get(name, [name])}, problems


def with_resolved_names(margins: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Returns margins under the names that rows have for tasks: those of declared tasks do not depend on a folder."""
    return {names.get(task, task): margin for task, margin in margins.items()}
