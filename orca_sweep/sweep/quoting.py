"""Words of a user in what other programs read: bash, and the shells that KubeRay puts between itself and a job."""

import re
import shlex

from orca_sweep.visible import has_controls

PLAIN = re.compile(r"[\w @%+=:,./-]*")
"""Letters of any script, digits and signs that no shell reads, whether they are quoted or not; the blank is quoted."""


def quote_for_bash(text: str) -> str:
    """Returns a text as one word of a bash script; control characters are written out, so that the script shows them."""
    if not has_controls(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_ansi_quotes, text)) + "'"


def _in_ansi_quotes(character: str) -> str:
    if has_controls(character):
        return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
    return f"\\{character}" if character in "\\'" else character


def survives_two_shells(text: str) -> bool:
    """Says whether a text stays one word where a shell reads it, quotes are taken off, and a second shell reads it.

    KubeRay writes an entrypoint into a line of bash, whose ``ray job submit`` joins the words again with quotes that keep
    blanks together but let ``$`` through, for the shell on the head (KubeRay's common/job.go; list2cmdline in Ray's
    dashboard/modules/job/cli.py).
    """
    return PLAIN.fullmatch(text) is not None and not has_controls(text)
