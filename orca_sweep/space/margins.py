"""The margins that a space fixes beforehand: by task, the largest difference that does not matter."""

from collections.abc import Mapping, Sequence

from orca_sweep.config.naming import label_declarations, label_of
from orca_sweep.errors import Problem
from orca_sweep.registry import hint

ALL = ""
"""In place of a task's name: every task that has no margin of its own."""


def name_margins(
    margins: Mapping[str, float], tasks: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, float], dict[str, Problem]]:
    """Returns margins by task, and the problem with each name that is not a task.

    Args:
        margins: by the names that the space writes.
        tasks: those that the space runs, as it writes them; a declared one may be called by its name, too. Without
            any, since they could not be read, every name is accepted.
        names: those that the space writes, also of margins that could not be read.
    """
    by_name: dict[str, list[str]] = {}
    labels = label_declarations(tasks)
    for task in dict.fromkeys(tasks):
        for name in {task, label_of(task), labels[task]}:
            by_name.setdefault(name, []).append(task)
    problems = {
        name: Problem(field="margin", rule=f"{name!r} is no task of this space. {hint(name, labels.values())}")
        for name in (names if tasks else ())
        if name not in by_name
    }
    return {task: value for name, value in margins.items() for task in by_name.get(name, [name])}, problems


def with_resolved_names(margins: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Returns margins under the names that rows have for tasks: those of declared ones count from no folder."""
    return {names.get(task, task): margin for task, margin in margins.items()}
