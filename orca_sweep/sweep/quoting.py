"""Quoting a user's words for other programs: bash, and the shells between KubeRay and a job."""

import re
import shlex

from orca_sweep.visible import has_controls

PLAIN = re.compile(r"[\w @%+=:,./-]*")
"""Letters of any script, digits, and signs that no shell interprets, quoted or not; blanks are quoted."""


def quote_for_bash(text: str) -> str:
    """Returns a text as one word of a bash script, with its control characters written out so that readers see them."""
    if not has_controls(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_escape_in_ansi_quotes, text)) + "'"


def _escape_in_ansi_quotes(character: str) -> str:
    if has_controls(character):
        return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
    return f"\\{character}" if character in "\\'" else character


def survives_two_shells(text: str) -> bool:
    """Whether a quoted text stays one word after one shell removes the quotes and a second shell reads it.

    KubeRay writes an entrypoint into a line of bash, whose ``ray job submit`` joins the words again with quotes that keep
    blanks but let ``$`` through, for the shell on the head (KubeRay's common/job.go; list2cmdline in Ray's
    dashboard/modules/job/cli.py).
    """
    return PLAIN.fullmatch(text) is not None and not has_controls(text)
