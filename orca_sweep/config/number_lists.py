"""Config fields that are lists of numbers: the one text that ids, columns and messages use for each list."""

import math
from itertools import pairwise
from typing import Any


def _split_items(value: object) -> list[Any]:
    """The items of a list, or of a text with commas; any other value is a single item."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip().strip("[]").split(",") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def betas_as_text(value: object) -> str:
    """Returns a pair of decay rates, given as a list or text, as its text: '0.9, 0.98'.

    Raises:
        ValueError: if it is not a pair of numbers from 0 to below 1.
    """
    items = _split_items(value)
    if len(items) != 2:
        raise ValueError(
            "betas must be a pair of numbers such as [0.9, 0.98]; levels of a factor are a list of pairs:"
            " [[0.9, 0.98], [0.9, 0.999]]"
        )
    try:
        numbers = [float(str(item)) for item in items]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < 1 for number in numbers):
        raise ValueError("each of the two betas must be a number from 0 to below 1")
    return ", ".join(repr(abs(number)).removesuffix(".0") for number in numbers)


def epochs_as_text(value: object) -> str | None:
    """Returns increasing positive whole numbers, given as a list or text, as their text: '20, 40, 60'.

    None without numbers.

    Raises:
        ValueError: if they are not positive whole numbers, or do not increase.
    """
    texts = [] if value is None else [str(item) for item in _split_items(value)]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        raise ValueError("each must be a whole number, as in [20, 40, 60]; null or [] keeps the rate constant")
    numbers = [int(text) for text in texts]
    if not all(before < after for before, after in pairwise([0, *numbers])):
        raise ValueError("each must be above 0 and above the one before it, as in [20, 40, 60]")
    return ", ".join(map(str, numbers)) or None


def parse_numbers(text: str | None) -> tuple[float, ...]:
    """Returns the numbers in the text of a field; an empty tuple for None."""
    return tuple(float(part) for part in _split_items(text or ""))
