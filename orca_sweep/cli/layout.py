"""Text for a terminal of any width: lines break at blanks only, so that no word, number or path is cut in two.

Lengths are counted in columns of the terminal: a Chinese character takes two. Where output is not a terminal, the width is
None and nothing is broken: scripts read one line per name, row or note.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO

USUAL_COLUMNS = 80
"""Of a terminal that does not say its width."""
GAP = "  "
"""Between the columns of a table."""
WORD = re.compile(r"( *)([^ ]+)")
SHELL_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


def find_width(stream: IO[str]) -> int | None:
    """Returns the number of columns of the terminal that a stream writes to; None if it writes to no terminal."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    with suppress(OSError):  # a stream that is a terminal only by its word
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    return USUAL_COLUMNS


def count_columns(text: str) -> int:
    """Returns the number of columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


# Texts --------------------------------------------------------------------------------------------


def wrap_text(text: str, width: int | None, indent: int = 2) -> list[str]:
    """Returns the lines of a text, of at most ``width`` columns where its words allow that.

    Args:
        text: one or more lines.
        width: columns of the terminal, None for any number.
        indent: blanks before a continued line, beyond those of the line that it continues. A word that fits into a whole
            line, but not after them, stands without them.
    """
    lines = text.split("\n")
    return lines if width is None else [part for line in lines for part in _wrap_line(line, width, indent)]


def _wrap_line(line: str, width: int, indent: int) -> Iterator[str]:
    start = len(line) - len(line.lstrip(" "))
    current = ""
    for gap, word in WORD.findall(line):
        if not current or count_columns(current + gap + word) <= width:
            current += gap + word
            continue
        yield current
        hanging = " " * (start + indent)
        current = hanging + word if count_columns(hanging + word) <= width else word
    yield current


def write_command(lead: str, command: str, width: int | None) -> list[str]:
    """Returns a command with the words that introduce it, in lines from which a shell can run the command.

    It stands on the line of the words if it fits there, else below them, continued with backslashes if it must be.
    """
    line = f"{lead} {command}"
    if width is None or count_columns(line) <= width:
        return [line]
    if count_columns(command) + 2 <= width:
        return [*wrap_text(lead, width), f"  {command}"]
    lines, current = wrap_text(lead, width), ""
    for word in SHELL_WORD.findall(command):
        joined = f"{current} {word}" if current else f"  {word}"
        if current and count_columns(joined) + 2 > width:
            lines.append(f"{current} \\")
            joined = f"    {word}"
        current = joined
    return [*lines, current]


def write_names(names: Iterable[tuple[str, str]], column: int, width: int | None) -> Iterator[str]:
    """Yields names with their meanings in the given column; on a terminal, a long meaning goes on in that column."""
    for name, meaning in names:
        line = f"{name:<{column - 1}} {meaning}"
        if width is None or count_columns(line) <= width:
            yield line
        elif width < 2 * column:  # a narrow terminal
            yield name
            yield from wrap_text(f"    {meaning}", width, 0)
        else:
            first, *rest = wrap_text(" " * column + meaning, width, 0)
            is_long = len(name) >= column
            yield from [name, first] if is_long else [f"{name:<{column}}{first[column:]}"]
            yield from rest


def print_wrapped(text: str) -> None:
    """Prints a text on stdout, broken at blanks on a terminal."""
    print("\n".join(wrap_text(text, find_width(sys.stdout))), flush=True)


# Tables -------------------------------------------------------------------------------------------


def lay_out_table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> tuple[list[str], list[str]]:
    """Returns the lines of a table's head and of its rows.

    Columns that are too wide together are broken at blanks, then get the last words of dotted names as heads. Where that
    is not enough, there is no head, and each row is a paragraph that names the column before each value.
    """
    from orca_sweep.config.naming import shorten_paths

    for names in (head, list(map(shorten_paths(head).__getitem__, head))):
        widths = _choose_widths([names, *rows], width)
        if widths is not None:
            return _write_row(names, widths), [line for row in rows for line in _write_row(row, widths)]
    return [], [line for row in rows for line in _write_paragraph(head, row, width or 0)]


def _choose_widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
    """Returns the width of each column; None if the longest words do not fit side by side."""
    widths = [max(map(count_columns, column)) for column in zip(*rows, strict=True)]
    if width is None:
        return widths
    least = [
        max(count_columns(word) for text in column for word in text.split(" ")) for column in zip(*rows, strict=True)
    ]
    room = width - len(GAP) * (len(widths) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        shrinkable = [i for i, least_width in enumerate(least) if widths[i] > least_width]
        widest = max(shrinkable, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _write_row(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts = [wrap_text(text, column, 0) for text, column in zip(row, widths, strict=True)]
    height = max(map(len, parts), default=0)
    lines = []
    for i in range(height):
        texts = [part[i] if i < len(part) else "" for part in parts]
        padded = [text + " " * (column - count_columns(text)) for text, column in zip(texts, widths, strict=True)]
        lines.append(GAP.join(padded).rstrip())
    return lines


def _write_paragraph(head: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Returns 'cell 1a2b: proxy none, seed 2', broken between columns where possible."""
    pairs = [f"{name} {text}" for name, text in zip(head, row, strict=True)]
    parts = [f"{pair}," for pair in pairs[:-1]] + pairs[-1:]
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]} {part}" if lines[-1] else part
        if not lines[-1] or count_columns(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"    {part}")
    return [short for line in lines for short in wrap_text(line, width, 4)]
