"""From a Python mapping to the document that the same YAML text would give, with every value that has no place in one."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orca_sweep.config.labels import write_level
from orca_sweep.errors import MOST_PROBLEMS, InputError, Problem
from orca_sweep.space.documents import (
    FEWER,
    MOST_CHARACTERS,
    MOST_DEPTH,
    MOST_VALUES,
    Document,
    Keys,
    write_count,
    write_keys,
)

ACCEPTED = "texts, numbers, True, False, None, paths, and lists, tuples, and mappings of these"
WHOLE = "iub"
"""NumPy's letters for kinds of numbers that lose no digits as texts."""


def make_document(content: Mapping[str, Any]) -> Document:
    """Returns a mapping as a document.

    Numbers become the text that a YAML would have, so that equal spaces get equal ids however they are written. A text
    stays that text: None is null, and the text 'null' is not.

    Args:
        content: the keys of a space, with plain Python values; NumPy's numbers and paths count as such.

    Raises:
        InputError: for each value that a space cannot hold, or if there are too many.
    """
    if not isinstance(content, Mapping):
        rule = f"a space is a mapping, not {_name_type(content)}."
        remedy = 'Give a dict such as {"base": {...}, "factors": {...}, "seeds": 5}.'
        raise InputError(Problem(field="Space.from_dict", rule=rule, remedy=remedy))
    builder = _Builder()
    built = builder.build_value(content, ())
    if builder.problems:
        raise InputError(builder.problems)
    return Document(path=None, content=built, lines=builder.lines)


class _Builder:
    """Turns Python values into texts, lists and mappings while it notes their keys and the problems."""

    def __init__(self) -> None:
        self.lines: dict[Keys, int] = {}
        self.problems: list[Problem] = []
        self.n_values = 0

    def build_value(self, value: object, keys: Keys) -> object:
        self._count_value(keys)
        self.lines[keys] = 0
        if isinstance(value, Mapping):
            return self._build_mapping(value, keys)
        if isinstance(value, list | tuple | range):
            return [self.build_value(item, (*keys, str(i))) for i, item in enumerate(value)]
        text = _write_scalar(value)
        for problem in _find_value_problems(value, text):
            self._report(keys, problem)
        return text if isinstance(text, str) else None

    def _build_mapping(self, mapping: Mapping[Any, Any], keys: Keys) -> dict[str, object]:
        built: dict[str, object] = {}
        for key, value in mapping.items():
            text = _write_key(key)
            if text is None:
                self._report(
                    keys, Problem(rule=f"the key {key!r} is {_name_type(key)}.", remedy="Write keys as texts.")
                )
            elif text in built:
                rule = f"the key {text!r} appears here twice, as a text and as a number."
                self._report((*keys, text), Problem(rule=rule, remedy="Keep one."))
            else:
                built[text] = self.build_value(value, (*keys, text))
        return built

    def _count_value(self, keys: Keys) -> None:
        """Raises InputError as soon as nothing can be built, for example from a list that contains itself."""
        self.n_values += 1
        if len(keys) > MOST_DEPTH:
            rule = f"the nesting is too deep for a space (at most {MOST_DEPTH} levels)."
            raise InputError(Problem(where=write_keys(keys[:3]), rule=rule))
        if self.n_values > MOST_VALUES:
            rule = f"more than {write_count(MOST_VALUES)} values."
            raise InputError(Problem(where=write_keys(()), rule=rule, remedy=FEWER))

    def _report(self, keys: Keys, problem: Problem) -> None:
        self.problems.append(problem.at(write_keys(keys)))
        if len(self.problems) > MOST_PROBLEMS:
            raise InputError(self.problems)


class _NotAccepted:
    """Stands for a value that a space cannot hold."""


def _write_key(key: object) -> str | None:
    """Returns a key as text; None if it cannot be one. YAML reads the key 5 as the text '5', too."""
    if isinstance(key, bool) or not isinstance(key, str | int):
        return None
    return str.__str__(key) if isinstance(key, str) else str(int(key))


def _write_scalar(value: object) -> str | type[_NotAccepted] | None:
    """Returns a value as the text of a YAML; None for null."""
    match value:
        case None:
            return None
        case str():
            return str.__str__(value)  # of an enum of texts, the text
        case bool():
            return str(value).lower()
        case int():
            return str(int(value))
        case float():
            return write_level(float(value))
    if hasattr(value, "__fspath__"):
        path = value.__fspath__()
        return path if isinstance(path, str) else _NotAccepted
    if _is_numpy_scalar(value) and value.dtype.kind in WHOLE:  # type: ignore[attr-defined]
        return _write_scalar(value.item())  # type: ignore[attr-defined]
    return _NotAccepted


def _is_numpy_scalar(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and getattr(value, "shape", None) == ()


def _find_value_problems(value: object, text: object) -> Iterator[Problem]:
    if text is _NotAccepted:
        yield Problem(rule=f"a space cannot hold {_name_type(value)}.", remedy=_suggest_value(value))
    if isinstance(text, str):
        if len(text) > MOST_CHARACTERS:
            yield Problem(
                rule=f"a text of {len(text):,} characters, more than {MOST_CHARACTERS:,}.", remedy="Shorten it."
            )
        if not text.isascii() and text != text.encode("utf-8", "replace").decode():
            yield Problem(rule=f"the text {text[:60]!a} is not valid Unicode.", remedy="Correct it.")
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(rule=f"{value} is not a number that a level can be.", remedy="Give a finite number.")


def _suggest_value(value: object) -> str:
    """Returns what to give instead of a value that a space cannot hold."""
    if _is_numpy_scalar(value) and value.dtype.kind == "f":  # type: ignore[attr-defined]
        exact, short = value.item(), str(value)  # type: ignore[attr-defined]
        return f"It has fewer digits than a level: write float({short}) or float({exact!r}), whichever you mean."
    if hasattr(value, "tolist"):
        return "Write .tolist() behind it."
    if isinstance(value, set | frozenset):
        return "Give a list: levels have an order, and the first is the reference."
    if isinstance(value, Iterator):
        return "Write list(...) around it."
    return f"Give {ACCEPTED}."


def _name_type(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
