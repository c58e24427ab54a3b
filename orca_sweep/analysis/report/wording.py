"""How the report writes counts, lists, names, and times."""

from collections.abc import Iterable, Mapping
from typing import Any

from orca_sweep.analysis.tables import shorten_text

MOST_LEVELS = 8
LONGEST_NAME = 48
"""Characters of a name in prose; longer ones lose their middle."""


def format_time(seconds: float) -> str:
    """Returns a time in hours, in minutes below an hour, or in seconds below a minute: '30 minutes'."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= size:
            return _count_units(seconds / size, unit)
    return _count_units(seconds, "second")


def _count_units(n: float, unit: str) -> str:
    text = f"{n:,.0f}" if n >= 100 else f"{n:.3g}"
    return count_text(text, unit)


def count_text(number: str, noun: str) -> str:
    """Returns '1 epoch', '2.5 epochs', '1,000 epochs', from a number as text."""
    shown = f"{int(number):,}" if number.isascii() and number.isdigit() else number
    return f"{shown} {noun}{'s' * (number != '1')}"


def format_span(counts: Iterable[int]) -> str:
    """Returns '5', or '3 to 5'; '0' for no counts."""
    known = sorted(counts)
    if not known:
        return "0"
    return str(known[0]) if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def count_span(counts: Iterable[int], noun: str) -> str:
    """Returns '1 seed', '5 seeds', or '1 to 5 seeds'."""
    known = set(counts)
    return f"{format_span(known)} {noun}{'s' * (known != {1})}"


def join_words(names: Iterable[Any]) -> str:
    """Returns 'a', 'a and b', 'a, b, and c'; 'nothing' for no names."""
    *first, last = [str(name) for name in names] or ["nothing"]
    if len(first) < 2:
        return " and ".join([*first, last])
    return f"{', '.join(first)}, and {last}"


def join_names(names: Iterable[Any]) -> str:
    """Returns names as `join_words` does, each shortened; of a long list, its length and its ends."""
    known = [shorten_text(str(name), LONGEST_NAME) for name in names]
    if len(known) <= MOST_LEVELS:
        return join_words(known)
    return f"{known[0]}, {known[1]}, {known[2]}, …, and {known[-1]} ({len(known)} in all)"


def shorten_list(values: Iterable[str]) -> str:
    """Returns values separated by commas; a long list without its middle, but with its length."""
    known = [shorten_text(value, LONGEST_NAME) for value in values]
    if len(known) <= MOST_LEVELS:
        return ", ".join(known)
    return f"{len(known)} levels from {known[0]} to {known[-1]}"


def by_text(texts: Mapping[str, str]) -> str:
    """Returns the text of each task, with tasks of equal text together: 'error (a and b); mae (c)'.

    If all tasks have the same text, it stands alone.
    """
    tasks: dict[str, list[str]] = {}
    for task, text in texts.items():
        tasks.setdefault(text, []).append(task)
    if len(tasks) == 1:
        return next(iter(tasks))
    return "; ".join(f"{text} ({join_names(names)})" for text, names in tasks.items())


def count_statuses(statuses: Mapping[str, int]) -> str:
    """Returns '2 failed, and 1 was stopped early': what happened to the trials of each status but ok."""
    return join_words(f"{n:,} {describe_fate(status, n)}" for status, n in statuses.items() if status != "ok" and n)


def describe_fate(status: str, n: int) -> str:
    """Returns what happened to n trials of a status, as the rest of a sentence."""
    was, has, its = ("was", "has", "its") if n == 1 else ("were", "have", "their")
    fates = {
        "oom": "ran out of memory",
        "timeout": "exceeded the time limit",
        "pruned": f"{was} stopped early by the pruning rule",
        "lost": f"{was} lost, because {its} worker{'s' * (n > 1)} died too often",
        "unfinished": f"{has} not run to an end",
    }
    return fates.get(status, status)
