"""Statements about tasks: equal ones of several tasks or spaces are joined, so that a person reads each once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

TASKS = "{tasks}"
"""Stands for the tasks in the text of a statement."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence about a space, or about some of its tasks."""

    text: str
    """With `TASKS` in the place of its tasks, if it is about some."""
    tasks: tuple[tuple[str, str], ...] = ()
    """The tasks, each with what is particular to it, such as a learning rate; else with the empty text."""

    def __str__(self) -> str:
        return self.write()

    def write(self, every_task: Collection[str] = ()) -> str:
        """Returns the sentence with its tasks, such as 'digits', 'each of digits, ecg', or '0.01 (digits); 0.1 (ecg)'.

        Args:
            every_task: the tasks of the space; several of them together are written as 'each task'.
        """
        by_part: dict[str, list[str]] = {}
        for task, part in self.tasks:
            by_part.setdefault(part, []).append(task)
        plain = by_part.pop("", [])
        if len(plain) > 1:
            plain = ["each task" if set(plain) == set(every_task) else f"each of {', '.join(plain)}"]
        names = [*plain, *(f"{part} ({', '.join(tasks)})" for part, tasks in by_part.items())]
        return self.text.replace(TASKS, "; ".join(names))


def join_statements(statements: Iterable[Statement]) -> list[Statement]:
    """Returns the statements, those of equal text as one about the tasks of all."""
    tasks: dict[str, dict[tuple[str, str], None]] = {}
    for statement in statements:
        tasks.setdefault(statement.text, {}).update(dict.fromkeys(statement.tasks))
    return [Statement(text=text, tasks=tuple(of_text)) for text, of_text in tasks.items()]


def join_spaces(by_space: Mapping[str, Sequence[Statement]], tasks_of: Mapping[str, Collection[str]]) -> list[str]:
    """Returns the statements on the spaces of a suite as sentences, each once, after the names of its spaces.

    Statements of equal text are one sentence, even if they are about different tasks, unless it would then say of a space
    what holds for another one alone.

    Args:
        by_space: the statements by the name of the space.
        tasks_of: the tasks of each space.
    """
    spaces: dict[str, dict[str, Statement]] = {}
    for name, statements in by_space.items():
        for statement in join_statements(statements):
            spaces.setdefault(statement.text, {})[name] = statement
    sentences = []
    for of_spaces in spaces.values():
        for names, statement in _join_consistent(of_spaces, tasks_of):
            every_task = {task for name in names for task in tasks_of[name]}
            sentences.append(f"{name_spaces(names, list(by_space))}: {statement.write(every_task)}")
    return sentences


def name_spaces(names: Sequence[str], every: Sequence[str]) -> str:
    """Returns the names of some spaces of a suite, as 'all spaces but ...' if that is shorter."""
    absent = [name for name in every if name not in names]
    if not absent and len(every) > 1:
        return "all spaces"
    ways = [", ".join(names), f"all spaces but {', '.join(absent)}"]
    return min(ways[: 1 + bool(absent)], key=len)


def _join_consistent(
    of_spaces: Mapping[str, Statement], tasks_of: Mapping[str, Collection[str]]
) -> list[tuple[list[str], Statement]]:
    """Returns one statement for all spaces if it is true of each; else one for all spaces with the same tasks."""
    (joined,) = join_statements(of_spaces.values())
    if all(
        {pair for pair in joined.tasks if pair[0] in tasks_of[name]} == set(statement.tasks)
        for name, statement in of_spaces.items()
    ):
        return [(list(of_spaces), joined)]
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, statement in of_spaces.items():
        groups.setdefault(frozenset(statement.tasks), []).append(name)
    return [(names, of_spaces[names[0]]) for names in groups.values()]
