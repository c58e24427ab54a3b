"""How the report writes counts, lists and times."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_LEVELS = 8


def format_time(seconds: float) -> str:
    """Returns '30 minutes', or hours from one on."""
    return f"{seconds / 3600:.3g} hours" if seconds >= 3600 else f"{seconds / 60:.3g} minutes"


def format_hours(seconds: float) -> str:
    """Returns a number of hours."""
    return f"{seconds / 3600:.3g}"


def count_things(n: int, word: str) -> str:
    """Returns '1 trial', '1,861 trials'."""
    return f"{n:,} {word}{'s' * (n != 1)}"


def format_span(counts: Iterable[int]) -> str:
    """Returns '5', or '3 to 5'; 0 without any."""
    known = sorted(counts)
    if not known:
        return "0"
    return str(known[0]) if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def join_words(names: Iterable[Any]) -> str:
    """Returns 'a', 'a and b', 'a, b and c'; 'nothing' without any."""
    *first, last = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def shorten_list(values: Iterable[str]) -> str:
    """Returns values one after the other, those in the middle of a long list left out."""
    known = list(values)
    if len(known) <= MOST_LEVELS:
        return ", ".join(known)
    return f"{', '.join(known[:3])}, …, {known[-1]}: {len(known)} levels"


def by_text(texts: Mapping[str, str]) -> str:
    """Returns a text per task, tasks of equal texts together: 'error (a and b); mae (c)'; one that all share stands alone."""
    tasks: dict[str, list[str]] = {}
    for task, text in texts.items():
        tasks.setdefault(text, []).append(task)
    if len(tasks) == 1 and len(texts) > 1:
        return f"{next(iter(tasks))} (all tasks)"
    return "; ".join(f"{text} ({join_words(names)})" for text, names in tasks.items())
