"""The errors a user can meet; none of them carries logic. And what tells one of the system's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


class OrcaSweepError(Exception):
    """Base of every error this package raises on purpose."""


MOST_PROBLEMS = 100
"""Problems reported at once; whoever has more corrects these first."""
NO_VALUE: Any = object()
"""Stands for the value of a problem that is not about a value, such as a field that is missing."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake of the user, as a record; ``str`` writes the sentence that the user reads.

    Whoever needs the field or the value reads it here: nobody takes a message apart.
    """

    rule: str
    """What is wrong and what is allowed, with the nearest valid name: one or more whole sentences."""
    field: str | None = None
    """Dotted name of the setting, such as ``body.name``; None if the mistake is not in one setting."""
    value: object = NO_VALUE
    """The value that is wrong, as the user reads it."""
    remedy: str = ""
    """What to do, a whole sentence, where the rule does not say it."""
    where: str = ""
    """File and line, such as ``space.yaml:7``; empty as long as nobody knows them."""

    def __str__(self) -> str:
        """Returns '<where>: <field> = <value>: <rule> <remedy>'; what is not known is left out."""
        value = "" if self.value is NO_VALUE else f" = {self.value!r}"
        parts = (self.where, f"{self.field}{value}" if self.field else "")
        return ": ".join([*filter(None, parts), " ".join(filter(None, (self.rule, self.remedy)))])

    def __hash__(self) -> int:
        return hash(str(self))  # the value may be a list or a mapping

    def at(self, where: str) -> "Problem":
        """Returns the problem with its file and line; one that has them already keeps them."""
        return self if self.where else replace(self, where=where)


class InputError(OrcaSweepError):
    """Wrong input, with every mistake found. The command line exits with code 2.

    Attributes:
        problems: the mistakes, at most ``MOST_PROBLEMS`` of them; a plain text is a problem of no one field.
    """

    def __init__(self, problems: "str | Problem | Sequence[str | Problem]") -> None:
        every = (problems,) if isinstance(problems, str | Problem) else tuple(problems)
        if len(every) > MOST_PROBLEMS:
            every = (*every[:MOST_PROBLEMS], "... and more. Correct these first.")
        self.problems: tuple[Problem, ...] = tuple(p if isinstance(p, Problem) else Problem(rule=p) for p in every)
        super().__init__("\n".join(map(str, self.problems)))


class DamagedError(InputError):
    """A file that this program wrote is not what it wrote, or cannot be read."""

    def __init__(self, path: Path, why: str, remedy: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}. {remedy}")


class DataError(OrcaSweepError):
    """A data file is missing, unsafe, or not of the declared shape."""


class StorageError(OrcaSweepError):
    """The system refuses to write a file: no room, over quota, no right to. The command line exits with code 1."""


class RayLostError(OrcaSweepError):
    """Ray did not start, or has ended while a sweep ran on it. The command line exits with code 1."""


class BusyError(OrcaSweepError):
    """Somebody else makes the stage artifact that is needed here; come back when its lock is free."""

    def __init__(self, lock: str) -> None:
        self.lock = lock
        super().__init__(f"{lock}: another trial makes this artifact")


class TimeLimitError(OrcaSweepError):
    """A trial ran over the time its space gives it: an outcome of the trial, not a crash."""


def first_line(error: BaseException) -> str:
    """Returns an error's class and the first line of its text, cut to 300 characters."""
    lines = str(error).strip().splitlines() or ["without a message"]
    # A first line such as "Validation error for field 'x':" says nothing without the next.
    text = " ".join([lines[0], *(line.strip() for line in lines[1:2] if lines[0].endswith(":"))])
    return f"{type(error).__name__}: {text[:300]}"


def reason_of(error: BaseException) -> str:
    """Returns what a library's error says, without the names of its classes, which mean nothing to who reads it."""
    text = re.sub(r"\b(\w+\.)*\w*(Error|Exception): ", "", first_line(error))
    if isinstance(error, LookupError):
        return f"{text} is not known to the library that reads it"
    return f"a size is 0: {text}" if isinstance(error, ZeroDivisionError) else text


def is_of_users_code(error: BaseException) -> bool:
    """Says whether an error that is no Exception (``sys.exit()``, a class of the user's own) comes from the code that ran.

    It does not if a person or the system ends the process: KeyboardInterrupt, or what Ray raises on a signal.
    """
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return not isinstance(error, KeyboardInterrupt | GeneratorExit) and module.split(".")[0] != "ray"


def out_of_memory(error: BaseException) -> bool:
    """Says whether an error means that memory does not suffice, on the device or beside it."""
    texts = ("out of memory", "can't allocate memory")
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))


class DivergedError(OrcaSweepError):
    """A loss or metric stopped being finite: an outcome of the trial, not a crash."""

    def __init__(self, text: str, epochs: Sequence[Mapping[str, Any]] = ()) -> None:
        self.epochs = tuple(epochs)
        super().__init__(text)
