"""How a command that fails ends: one message on stderr, and an exit code."""

import errno
import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

import typer

from orca_sweep.cli.documents import WRONG_INPUT, describe_error, print_document, write_error
from orca_sweep.cli.layout import find_width, wrap_text
from orca_sweep.errors import InputError, OrcaSweepError, RayLostError, StorageError, first_line
from orca_sweep.visible import LINES, escape_controls

LOOP = "Symlink loop from "
IMPOSSIBLE_PATHS: Mapping[int | None, str] = {
    errno.ENAMETOOLONG: "longer than the file system allows (usually 255 bytes for a name, 4096 in all).",
    errno.ELOOP: "a link that leads back to itself.",
}
"""Why a path cannot exist, whatever a command does with it, by the system's error numbers."""
INTERRUPTED = 130
"""Typer's exit code for Ctrl-C."""
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Typer's class of wrong command lines, for which it has no public name."""


def refuse_broken_utf8(words: Iterable[str]) -> None:
    """Refuses words that are not UTF-8: no table and no JSON can hold such a path.

    Raises:
        InputError: for the first such word.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode("utf-8", "backslashreplace").decode()[:60]
            raise InputError(f"{shown}: contains bytes that are not UTF-8. Rename the file or folder.") from None


def end_command(error: BaseException, command: str | None) -> NoReturn:
    """Prints why a command failed and ends the program; raises an error again that a user did not cause.

    Args:
        error: what ended the command.
        command: its name if it prints JSON, and then the error too; None for text.
    """
    if isinstance(error, SystemExit) and error.code != INTERRUPTED:
        raise error  # the command has printed all that it has to say
    code, text = _explain_error(error)
    if command is not None:
        print_document(command, describe_error(error, code or 1, text))
    if code is None:
        raise error
    shown = _write_usage(error) if isinstance(error, UsageError) else text
    print("\n".join(wrap_text(escape_controls(shown, LINES), find_width(sys.stderr))), file=sys.stderr)
    if isinstance(error, RayLostError):
        end_at_once(code)
    sys.exit(code)


def _write_usage(error: Exception) -> str:
    """Returns how the command is used, then what is wrong with the command line."""
    text = io.StringIO()
    error.show(text)  # type: ignore[attr-defined]
    return text.getvalue().rstrip("\n")


def _explain_error(error: BaseException) -> tuple[int | None, str]:
    """Returns the exit code and the message of an error; no code if a user did not cause it."""
    match error:
        case InputError():
            return WRONG_INPUT, write_error(error)
        case OrcaSweepError():
            return 1 if isinstance(error, StorageError | RayLostError) else WRONG_INPUT, str(error)
        case SystemExit():
            return 1, "Interrupted. No finished trial is lost: run the same command again to continue."
        case typer.Abort():
            return 1, "Aborted."
        case OSError() | RuntimeError() if reason := explain_path(error):
            from orca_sweep.store import FULL

            return 1 if isinstance(error, OSError) and error.errno in FULL else WRONG_INPUT, reason
    if isinstance(error, UsageError):
        return WRONG_INPUT, error.format_message()  # type: ignore[attr-defined]
    return None, first_line(error)


def explain_path(error: OSError | RuntimeError) -> str | None:
    """Returns what is wrong with the path that an error is about; None if it is not about a path."""
    if isinstance(error, OSError):
        if error.filename is None:
            return None
        path, number, reason = os.fsdecode(error.filename), error.errno or 0, error.strerror or str(error)
    else:
        before, is_loop, path = str(error).partition(LOOP)  # what Path.resolve raises before Python 3.13
        if before or not is_loop:
            return None
        number, reason = errno.ELOOP, ""
    shown = path if len(path) <= 60 else f"{path[:60]}..."
    if number in IMPOSSIBLE_PATHS:
        return f"{shown}: {IMPOSSIBLE_PATHS[number]} Choose another file or folder."
    from orca_sweep.store import FULL

    return f"{shown}: {FULL.get(number, reason)}. Correct the path, or make it usable."


def end_at_once(code: int) -> NoReturn:
    """Ends this process without Ray's exit handlers, which would wait for a Ray that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
