"""Config fields that are lists of numbers, in the one text that ids, columns and messages have of each."""

import math
from itertools import pairwise
from typing import Any


def _items(value: object) -> list[Any]:
    """The parts of a list, or of its text with commas between them; anything else is a list of one."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip().strip("[]").split(",") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def betas_as_text(value: object) -> str:
    """Returns a pair of decay rates, a list or text, in its one form: '0.9, 0.98'.

    Raises:
        ValueError: if it is no pair, or a number is none or out of range.
    """
    items = _items(value)
    if len(items) != 2:
        raise ValueError(
            "betas are a pair of numbers such as [0.9, 0.98]; as levels of a factor, pairs in a list:"
            " [[0.9, 0.98], [0.9, 0.999]]"
        )
    try:
        numbers = [float(str(item)) for item in items]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < 1 for number in numbers):
        raise ValueError("each of the two betas is a number from 0 to below 1")
    return ", ".join(repr(abs(number)).removesuffix(".0") for number in numbers)


def epochs_as_text(value: object) -> str | None:
    """Returns growing positive whole numbers, a list or text, in their one form: '20, 40, 60'; None where there is none.

    Raises:
        ValueError: if they are no whole numbers, or do not grow.
    """
    texts = [] if value is None else [str(item) for item in _items(value)]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        raise ValueError("each is a whole number, as in [20, 40, 60]; null or [] = the rate stays")
    numbers = [int(text) for text in texts]
    if not all(before < after for before, after in pairwise([0, *numbers])):
        raise ValueError("each is above 0 and above the one before it, as in [20, 40, 60]")
    return ", ".join(map(str, numbers)) or None


def listed_numbers(text: str | None) -> tuple[float, ...]:
    """Returns the numbers of a field that is a list of numbers."""
    return tuple(float(part) for part in _items(text or ""))
