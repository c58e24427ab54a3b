"""The margins that a space fixes beforehand: by task, the largest difference that is no meaningful one."""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from orca_sweep.config import NonNegative, explain
from orca_sweep.config.naming import label_declarations, label_of
from orca_sweep.registry import hint

ALL = ""
"""In place of a task's name: every task that has no margin of its own."""
Place = tuple[str, ...]
FORM = "margin must be a number, 0 or more, or one per task such as {digits: 0.01, ecg: 0.02}."


def read_margins(raw: object, tasks: Sequence[str]) -> tuple[dict[str, float], list[tuple[Place, str]]]:
    """Returns the margins by task, and what is wrong with them, each with its place.

    Args:
        raw: what stands under ``margin``, its leaves as text.
        tasks: those that the space runs, as it writes them; a declared one is called by its name, too. Without
            any, since they could not be read, no name is called unknown.
    """
    if raw is None:
        return {}, []
    if isinstance(raw, list) or raw == {}:
        return {}, [(("margin",), FORM)]
    names: dict[str, list[str]] = {}
    labels = label_declarations(tasks)
    for task in dict.fromkeys(tasks):
        for name in {task, label_of(task), labels[task]}:
            names.setdefault(name, []).append(task)
    margins: dict[str, float] = {}
    problems: list[tuple[Place, str]] = []
    for name, value in raw.items() if isinstance(raw, Mapping) else [(ALL, raw)]:
        place = ("margin", name) if name else ("margin",)
        if isinstance(raw, Mapping) and names and name not in names:
            problems.append((place, f"margin: {name!r} is no task of this space. {hint(name, labels.values())}"))
        try:
            margins |= dict.fromkeys(names.get(name, [name]), TypeAdapter(NonNegative).validate_python(value))
        except ValidationError as error:
            rules = "; ".join(rule for _, _, rule in explain(error))
            problems.append((place, f"{'.'.join(place)} = {value!r}: {rules}. {FORM}"))
    return margins, problems


def with_resolved_names(margins: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Returns margins under the names that rows have for tasks: those of declared ones count from no folder."""
    return {names.get(task, task): margin for task, margin in margins.items()}
