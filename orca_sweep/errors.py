"""The errors that a user can meet, and the record of one mistake. The errors contain no logic."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any


class OrcaSweepError(Exception):
    """Base of every error this package raises on purpose."""


MOST_PROBLEMS = 100
"""Problems that are reported at once; further ones are reported after these are corrected."""
MOST_SHOWN = 200
"""Characters of a wrong value that a message shows; a value may be as long as a file."""


class _NoValue(Enum):
    """An enum with one member, which stays the same object when a problem is sent to another process."""

    NO_VALUE = "no value"


NO_VALUE: Any = _NoValue.NO_VALUE
"""The value of a problem that is not about a value, such as a missing field."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake of the user, as a record; ``str`` writes the sentence that the user reads.

    Code that needs the field, the value or the line reads it here: no code takes a message apart.
    """

    rule: str
    """What is wrong and what is allowed, with the nearest valid name: one or more whole sentences."""
    field: str | None = None
    """Dotted name of the setting, such as ``body.name``; None if the mistake is not in one setting."""
    value: object = NO_VALUE
    """The wrong value, as the user wrote it."""
    remedy: str = ""
    """What to do: a whole sentence, empty if the rule already says it."""
    where: str = ""
    """File and line, such as ``space.yaml:7``; empty if unknown."""
    scope: str = ""
    """What the field is part of, such as ``tune`` in a space or ``on 10.0.0.7`` in a cluster."""
    is_argument: bool = False
    """Whether the field is an argument of a Python call, such as ``out``, which the command line calls ``--out``."""

    def __str__(self) -> str:
        """Returns '<where>: <scope>: <field> = <value>: <rule> <remedy>' without empty parts."""
        value = "" if self.value is NO_VALUE else f" = {shorten_text(repr(self.value))}"
        parts = (self.where, self.scope, f"{self.field}{value}" if self.field else "")
        return ": ".join([*filter(None, parts), " ".join(filter(None, (self.rule, self.remedy)))])

    def __hash__(self) -> int:
        return hash((self.rule, self.field, self.where, self.scope))  # the value may be a list or a mapping

    def at(self, where: str, scope: str = "") -> "Problem":
        """Returns the problem with its file, line and scope; parts that it already has do not change."""
        return replace(self, where=self.where or where, scope=self.scope or scope)

    def of(self, field: str, value: object) -> "Problem":
        """Returns the problem with its field and value; a problem that already has a field does not change."""
        return self if self.field else replace(self, field=field, value=value)

    def as_json(self) -> dict[str, Any]:
        """Returns the problem for programs: its parts, null if they are empty, and its whole message.

        A value that is long, or that JSON cannot hold, becomes a text.
        """
        value = None if self.value is NO_VALUE else self.value
        try:
            is_short = len(json.dumps(value, allow_nan=False)) <= MOST_SHOWN
        except (TypeError, ValueError):
            is_short = False
        value = value if is_short else shorten_text(repr(value))
        parts = {"field": self.field, "value": value, "rule": self.rule}
        return {**parts, "remedy": self.remedy or None, "where": self.where or None, "message": str(self)}


def shorten_text(text: str, length: int = MOST_SHOWN) -> str:
    """Returns a text, cut to a length that a message can show; then its whole length follows."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"


class InputError(OrcaSweepError):
    """Wrong input, with every mistake in it. The command line exits with code 2.

    Attributes:
        problems: the mistakes, at most ``MOST_PROBLEMS`` of them; a plain text becomes a problem without a field.
    """

    def __init__(self, problems: "str | Problem | Sequence[str | Problem]") -> None:
        items = (problems,) if isinstance(problems, str | Problem) else tuple(problems)
        if len(items) > MOST_PROBLEMS:
            items = (*items[:MOST_PROBLEMS], "... and more. Correct these first.")
        self.problems: tuple[Problem, ...] = tuple(p if isinstance(p, Problem) else Problem(rule=p) for p in items)
        super().__init__("\n".join(map(str, self.problems)))


def refuse_argument(field: str, value: object, rule: str, remedy: str = "") -> InputError:
    """Returns the error about an argument of a Python call; the command line writes it with the name of its option."""
    shown = value if value is NO_VALUE else str(value)
    return InputError(Problem(field=field, value=shown, rule=rule, remedy=remedy, is_argument=True))


class DamagedError(InputError):
    """A file that orca-sweep wrote has changed since, or cannot be read."""

    def __init__(self, path: Path, why: str, remedy: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}. {remedy}")


class DataError(OrcaSweepError):
    """A data file is missing, unsafe, or not of the declared shape.

    Attributes:
        problems: a text for each mistake; the error's message has one line for each.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


class StorageError(OrcaSweepError):
    """The system refuses to write a file: no space, no quota or no permission. The command line exits with code 1."""


class RayLostError(OrcaSweepError):
    """Ray did not start, or ended during a sweep. The command line exits with code 1."""


class BusyError(OrcaSweepError):
    """Another trial is making the stage artifact that this trial needs; try again when its lock is free."""

    def __init__(self, lock: str) -> None:
        self.lock = lock
        super().__init__(f"{lock}: another trial is making this artifact")


class TimeLimitError(OrcaSweepError):
    """A trial exceeded its space's time limit: an outcome of the trial, not a crash."""


def first_line(error: BaseException) -> str:
    """Returns an error's class and the first line of its text, cut to 300 characters."""
    lines = str(error).strip().splitlines() or ["without a message"]
    # A first line such as "Validation error for field 'x':" says nothing without the second.
    text = " ".join([lines[0], *(line.strip() for line in lines[1:2] if lines[0].endswith(":"))])
    return f"{type(error).__name__}: {text[:300]}"


def reason_of(error: BaseException) -> str:
    """Returns the message of a library's error without names of error classes, which mean nothing to users."""
    text = re.sub(r"\b(\w+\.)*\w*(Error|Exception): ", "", first_line(error))
    if isinstance(error, LookupError):
        return f"the library that reads it does not know {text}"
    return f"a size is 0: {text}" if isinstance(error, ZeroDivisionError) else text


def is_of_users_code(error: BaseException) -> bool:
    """Says whether an error that is not an Exception (``sys.exit()``, a user's class) comes from the user's code.

    It does not if a person or the system ends the process: KeyboardInterrupt, or what Ray raises on a signal.
    """
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return not isinstance(error, KeyboardInterrupt | GeneratorExit) and module.split(".")[0] != "ray"


def out_of_memory(error: BaseException) -> bool:
    """Says whether an error means that the device or the host ran out of memory."""
    texts = ("out of memory", "can't allocate memory")
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))


class DivergedError(OrcaSweepError):
    """A loss or metric is not finite: an outcome of the trial, not a crash."""

    def __init__(self, text: str, epochs: Sequence[Mapping[str, Any]] = ()) -> None:
        self.epochs = tuple(epochs)
        super().__init__(text)
