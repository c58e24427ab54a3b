"""Registries of named records, and hints at the nearest known name."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Generic, Protocol, TypeVar

from orca_sweep.errors import InputError


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The word used in YAML, on the command line, in columns and in plots."""


R = TypeVar("R", bound=Named)
LONGEST_NAME = 60
NAME_RULE = f"A name has at most {LONGEST_NAME} letters, digits, blanks and other printable characters, except / and \\"


def explain_name(name: object) -> str | None:
    """Returns why tables and figures cannot show a user's name, with the rule; None if they can."""
    if not isinstance(name, str):
        return f"the name {name!r} is not text. {NAME_RULE}."
    if not name.strip():
        return f"the name is empty. {NAME_RULE}."
    shown = repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")
    if len(name) > LONGEST_NAME:
        return f"the name {shown} has {len(name)} characters. {NAME_RULE}."
    if not name.isprintable() or name != name.strip() or "/" in name or "\\" in name:
        return f"the name {shown} begins or ends with a blank, or holds /, \\ or an unprintable character. {NAME_RULE}."
    return None


def hint(name: str, allowed: Iterable[str]) -> str:
    """Returns 'Did you mean ...?' for the nearest allowed name, or the list of allowed names."""
    names = sorted(allowed)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


class Registry(Generic[R]):
    """Records by name; a second record of the same name is refused."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._records: dict[str, R] = {}

    def add(self, record: R) -> R:
        """Adds a record and returns it.

        Raises:
            InputError: if the name is taken.
        """
        if record.name in self._records:
            raise InputError(f"{self.kind} {record.name!r}: this name is taken. Choose another one.")
        self._records[record.name] = record
        return record

    def get(self, name: str) -> R:
        """Returns the record of that name.

        Raises:
            InputError: if no record has that name; the message suggests the nearest one.
        """
        if name not in self._records:
            raise InputError(self.explain_unknown(name))
        return self._records[name]

    def explain_unknown(self, name: str) -> str:
        """Returns a message about an unknown name, with a hint at the nearest known name."""
        return f"there is no {self.kind} {name!r}. {hint(name, self._records)}"

    def names(self) -> list[str]:
        """Returns all names, in the order they were added."""
        return list(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._records
