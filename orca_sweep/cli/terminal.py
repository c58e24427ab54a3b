"""The console of commands: control characters written out, whoever put them into a name, an error or a table.

Rich's own colours are no text of anybody's, and stay.
"""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from orca_sweep.visible import LINES, escape_controls


class _EscapingConsole(Console):
    """A console whose texts have their control characters written out."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text, LINES)
            yield segment if text == segment.text else segment._replace(text=text)


def open_console(is_for_errors: bool = False) -> Console:
    """Returns a console that prints plain texts, without markup: names hold brackets."""
    stream = sys.stderr if is_for_errors else sys.stdout
    return _EscapingConsole(file=getattr(stream, "unescaped", stream), highlight=False, markup=False)
