"""The console of commands, which writes out control characters in names, errors and tables.

Rich's own colours are not text, and stay.
"""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

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
