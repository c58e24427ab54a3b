"""Control characters as text: what a user, a file or a cluster named must not write on a terminal what was not said."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, cast

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # among them escape sequences, backspace and carriage return
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # that turn the direction of what follows
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # lines and marks that nobody sees
    "\ud800-\udfff]"  # halves of characters, of file names that are no UTF-8
)

LINES = "\n\t"
"""Control characters that a text of several lines has on purpose."""


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns a text with each control character written out, such as ``\x1b`` or ``\u202e``.

    Args:
        text: any text.
        keep: control characters that stay, such as the line breaks of a text of several lines.
    """
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else _written_out(match[0]), text)


def has_controls(text: str) -> bool:
    """Says whether there is a control character in a text."""
    return HIDDEN.search(text) is not None


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Escaping:
    """A stream of text that writes control characters out, but for line breaks and tabs; else the one behind it."""

    def __init__(self, stream: IO[str]) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Writes a text, and returns its own length."""
        self.unescaped.write(escape_controls(text, LINES))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)


@contextmanager
def escaping_output() -> Iterator[None]:
    """Has everything that is printed in this block come out with its control characters written out."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(cast("IO[str]", Escaping(sys.stdout))))
        stack.enter_context(redirect_stderr(cast("IO[str]", Escaping(sys.stderr))))
        yield
