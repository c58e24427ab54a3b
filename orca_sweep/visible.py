"""Escapes control characters, so that names from users, files and clusters cannot control the terminal."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, cast

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # among them escape sequences, backspace and carriage return
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # characters that change the direction of writing
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible line breaks and marks
    "\ud800-\udfff]"  # surrogates, from file names that are not UTF-8
)

LINES = "\n\t"
"""Control characters that a text of several lines needs."""


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns a text with each control character as an escape, such as ``\x1b`` or ``\u202e``.

    Args:
        text: any text.
        keep: control characters that stay, such as the line breaks of a text of several lines.
    """
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else _write_escape(match[0]), text)


def has_controls(text: str) -> bool:
    """Says whether a text contains a control character."""
    return HIDDEN.search(text) is not None


def _write_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class EscapingStream:
    """A text stream that escapes control characters, except line breaks and tabs, and writes to another stream."""

    def __init__(self, stream: IO[str]) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Writes a text and returns its length before escaping."""
        self.unescaped.write(escape_controls(text, LINES))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)


@contextmanager
def escape_output() -> Iterator[None]:
    """Escapes the control characters in everything that the block prints."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(cast("IO[str]", EscapingStream(sys.stdout))))
        stack.enter_context(redirect_stderr(cast("IO[str]", EscapingStream(sys.stderr))))
        yield
