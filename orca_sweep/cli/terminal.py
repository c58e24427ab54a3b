"""The console of commands, which writes out control characters in names, errors and tables.

Rich's own colours are not text, and stay.
"""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from orca_sweep.cli.layout import lay_out_table, wrap_text, write_command
from orca_sweep.visible import LINES, escape_controls


class _EscapingConsole(Console):
    """A console that writes out the control characters of its texts."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text, LINES)
            yield segment if text == segment.text else segment._replace(text=text)


def open_console(is_for_errors: bool = False) -> Console:
    """Returns a console that prints plain text without markup, since names may contain brackets."""
    stream = sys.stderr if is_for_errors else sys.stdout
    return _EscapingConsole(file=getattr(stream, "unescaped", stream), highlight=False, markup=False)


def find_console_width(console: Console) -> int | None:
    """Returns the columns of the console's terminal; None if it prints elsewhere, where no line is broken."""
    return console.width if console.is_terminal else None


def print_lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    """Prints lines as they are; rich would break some of them again."""
    for line in lines:
        console.print(Text(line), soft_wrap=True, style=style)


def print_text(console: Console, text: str) -> None:
    """Prints a text, broken at blanks on a terminal."""
    print_lines(console, wrap_text(escape_controls(text, LINES), find_console_width(console)))


def print_command(console: Console, lead: str, command: str) -> None:
    """Prints a command that a shell can run, after the words that introduce it."""
    print_lines(console, write_command(lead, command, find_console_width(console)))


def print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, in a form that suits the width of the terminal."""
    shown = [[escape_controls(text) for text in row] for row in rows]
    head_lines, lines = lay_out_table(head, shown, find_console_width(console))
    print_lines(console, head_lines, "bold")
    print_lines(console, lines)
