"""THE home of labels: how a level is shown wherever people read it. Different levels never share a label.

A level is shown as the space writes it: ``1e-3`` stays ``1e-3``, ``linear-probe`` stays ``linear-probe``, whatever form
it is hashed and stored in. ``write_level`` shows values that no space wrote, such as that of a field that has no effect
in a cell.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping

from orca_sweep.config.canonical_schedules import write_schedule
from orca_sweep.visible import escape_controls

FREEZE, FREEZE_EPOCHS = "finetune.freeze", "finetune.freeze_epochs"
NULL = "null"
NULL_WORDS = frozenset({"", "~", "null", "Null", "NULL"})
SETTING = re.compile(r"\s[\w.]+=")
"""The beginning of the settings of a declaration; before it is its file, whose path may have spaces."""
PLAIN_ITEM = re.compile(r"[^\s,\[\]{}\"'#:&*!|>%@`-]([^,\[\]{}\"#:]|:(?!\s|$))*|-?[\d.][\w.+-]*")


# Writing ------------------------------------------------------------------------------------------


def write_as_given(raw: object) -> str:
    """Returns a level as its YAML writes it, on one line; ``raw`` consists of texts, lists, mappings and None for null."""
    if isinstance(raw, str):
        is_plain = raw.isprintable() and raw == raw.strip() and raw not in NULL_WORDS and raw[0] not in '"[{'
        return raw if is_plain else _quote(raw)
    return _write_item(raw)


def _write_item(raw: object) -> str:
    if isinstance(raw, Mapping):
        return "{" + ", ".join(f"{_write_item(key)}: {_write_item(value)}" for key, value in raw.items()) + "}"
    if isinstance(raw, list | tuple):
        return f"[{', '.join(map(_write_item, raw))}]"
    if not isinstance(raw, str):
        return write_level(raw)
    is_plain = raw.isprintable() and raw == raw.strip() and raw not in NULL_WORDS and PLAIN_ITEM.fullmatch(raw)
    return raw if is_plain else _quote(raw)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def write_level(value: object) -> str:
    """Returns a value of its field's type as a space would write it; numbers keep all digits.

    Control characters are escaped: a table would swallow them.
    """
    value = value.item() if hasattr(value, "item") else value
    if value is None or value != value:  # a null in a column of numbers is NaN
        return NULL
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(value)
    return escape_controls(str(value))


def write_stored(path: str, read: Callable[[str], object]) -> str:
    """Returns the level of a field in a cell; ``read`` returns the stored value of each of the cell's fields."""
    if path == FREEZE:
        return write_schedule(write_level(read(path)), write_level(read(FREEZE_EPOCHS)))
    return write_level(read(path))


# Shortening ---------------------------------------------------------------------------------------


def shorten_labels(labels: Iterable[str], width: int) -> dict[str, str]:
    """Returns each label on one line of at most about ``width`` characters; labels that would look alike are numbered.

    Folders before a file are dropped as far as names still differ, then the middle of a long label.
    """
    whole = list(dict.fromkeys(labels))
    short = {label: _shorten_label(_without_folders(label, 1), width) for label in whole}
    most = max((label.count("/") for label in whole), default=0)
    for n_parts in range(2, most + 2):
        alike = _find_alike(short)
        if not alike:
            break
        short |= {label: _shorten_label(_without_folders(label, n_parts), width) for label in alike}
    taken = set(short.values())
    for group in _group_alike(short).values():
        for label in group[1:]:
            i = 2
            while (numbered := f"{short[label]} ({i})") in taken:
                i += 1
            taken.add(numbered)
            short[label] = numbered
    return short


def _group_alike(short: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, text in short.items():
        groups.setdefault(text, []).append(label)
    return {text: group for text, group in groups.items() if len(group) > 1}


def _find_alike(short: Mapping[str, str]) -> list[str]:
    return [label for group in _group_alike(short).values() for label in group]


def _without_folders(label: str, n_parts: int) -> str:
    end = SETTING.search(label)
    first, rest = (label[: end.start()], label[end.start() :]) if end else (label, "")
    kept = "/".join(first.split("/")[-n_parts:]) or first
    return kept + rest


def _shorten_label(text: str, width: int) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = (width - 3) // 2
    return line if len(line) <= width else f"{line[:half]}...{line[-half:]}"


# Uniting ------------------------------------------------------------------------------------------


def unite_labels(rows: Iterable[tuple[str, str, object]], are_numbers: bool) -> dict[str, str]:
    """Returns for each label of a factor the label that is shown: the first that was written for the same level.

    Args:
        rows: for each trial the label, the space that wrote it, and a key of how the level is stored.
        are_numbers: whether the factor's levels are numbers, which can be written in several ways.

    Different labels of one space stay different levels. Labels of different spaces are the same level if they are
    the same number, or if all rows store them alike.
    """
    keys: dict[str, set[object]] = {}
    spaces: dict[str, set[str]] = {}
    for label, space, key in rows:
        keys.setdefault(label, set()).add(key)
        spaces.setdefault(label, set()).add(space)
    first: dict[object, str] = {}
    shown: dict[str, str] = {}
    for label in keys:
        number, stored = _read_number(label) if are_numbers else None, frozenset(keys[label])
        before = first.get(number) if number is not None else None
        before = before or first.get(stored)
        if before is not None and (number is not None and number == _read_number(before)):
            shown[label] = before
        elif before is not None and not spaces[label] & spaces[before]:
            shown[label] = before
            spaces[before] |= spaces[label]
        else:
            shown[label] = label
        first.setdefault(stored, shown[label])
        if number is not None:
            first.setdefault(number, shown[label])
    return shown


def _read_number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
