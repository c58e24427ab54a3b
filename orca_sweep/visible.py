"""Control characters as text: what a user, a file or a cluster named must not write on a terminal what was not said."""

import re

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # among them escape sequences, backspace and carriage return
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # that turn the direction of what follows
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # lines and marks that nobody sees
    "\ud800-\udfff]"  # halves of characters, of file names that are no UTF-8
)


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns a text with each control character written out, such as ``\x1b`` or ``\u202e``.

    Args:
        text: any text.
        keep: control characters that stay, such as the line breaks of a text of several lines.
    """
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else _written_out(match[0]), text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
