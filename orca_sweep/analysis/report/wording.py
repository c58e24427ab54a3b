"""How the report writes counts, lists and times."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_LEVELS = 8


def format_time(seconds: float) -> str:
    """Returns a time in hours, in minutes below an hour, or in seconds below a minute: '30 minutes'."""
    if seconds >= 3600:
        return _count_units(seconds / 3600, "hour")
    return _count_units(seconds / 60, "minute") if seconds >= 60 else _count_units(seconds, "second")


def _count_units(n: float, unit: str) -> str:
    text = f"{n:.3g}"
    return f"{text} {unit}{'s' * (text != '1')}"


def format_span(counts: Iterable[int]) -> str:
    """Returns '5', or '3 to 5'; '0' for no counts."""
    known = sorted(counts)
    if not known:
        return "0"
    return str(known[0]) if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def join_words(names: Iterable[Any]) -> str:
    """Returns 'a', 'a and b', 'a, b and c'; 'nothing' for no names."""
    *first, last = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def shorten_list(values: Iterable[str]) -> str:
    """Returns values separated by commas; a long list without its middle, but with its length."""
    known = list(values)
    if len(known) <= MOST_LEVELS:
        return ", ".join(known)
    return f"{', '.join(known[:3])}, …, {known[-1]}: {len(known)} levels"


def by_text(texts: Mapping[str, str]) -> str:
    """Returns the text of each task, with tasks of equal text together: 'error (a and b); mae (c)', 'error (all tasks)'."""
    tasks: dict[str, list[str]] = {}
    for task, text in texts.items():
        tasks.setdefault(text, []).append(task)
    if len(tasks) == 1 and len(texts) > 1:
        return f"{next(iter(tasks))} (all tasks)"
    return "; ".join(f"{text} ({join_words(names)})" for text, names in tasks.items())
