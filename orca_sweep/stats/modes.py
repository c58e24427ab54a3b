"""Modes of metrics: ``min`` (lower is better) or ``max`` (higher is better)."""

import math
from typing import Literal, get_args

Mode = Literal["min", "max"]
MODES: tuple[Mode, ...] = get_args(Mode)


def as_cost(value: float, mode: Mode) -> float:
    """Returns a value such that lower is better: the value itself, or its negative."""
    return value if mode == "min" else -value


def worst_value(mode: Mode) -> float:
    """Returns the infinity that every finite value is better than."""
    return as_cost(math.inf, mode)


def is_better(value: float, other: float, mode: Mode) -> bool:
    """Says whether a value is better than another; equal values and NaN are not."""
    return as_cost(value, mode) < as_cost(other, mode)


def best_value(values: "list[float]", mode: Mode) -> float:
    """Returns the best of at least one value."""
    return min(values) if mode == "min" else max(values)


def describe_mode(mode: Mode) -> str:
    """Returns 'lower is better' or 'higher is better'."""
    return "lower is better" if mode == "min" else "higher is better"
