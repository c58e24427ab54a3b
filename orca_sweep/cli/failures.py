"""How a command that fails ends: one message on stderr, and an exit code."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

from orca_sweep.errors import OrcaSweepError, RayLostError, StorageError

LOOP = "Symlink loop from "
IMPOSSIBLE_PATHS: Mapping[int | None, str] = {
    errno.ENAMETOOLONG: "longer than the file system allows (usually 255 bytes for a name, 4096 in all).",
    errno.ELOOP: "a link that leads back to itself.",
}
"""Why a path cannot exist, whatever a command does with it, by the system's error numbers."""
INTERRUPTED = 130
"""Typer's exit code for Ctrl-C."""


def refuse_broken_utf8(words: Iterable[str]) -> None:
    """Ends the program if a word of the command line is not UTF-8: no table and no JSON can hold such a path."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode("utf-8", "backslashreplace").decode()[:60]
            print(f"{shown}: contains bytes that are not UTF-8. Rename the file or folder.", file=sys.stderr)
            sys.exit(2)


def end_command(error: BaseException) -> NoReturn:
    """Prints why a command failed and ends the program; raises an error again that a user did not cause."""
    match error:
        case OrcaSweepError():
            print(str(error), file=sys.stderr)
            if isinstance(error, RayLostError):
                end_at_once(1)
            sys.exit(1 if isinstance(error, StorageError) else 2)
        case SystemExit():
            if error.code != INTERRUPTED:
                raise error
            print("Interrupted. No finished trial is lost: run the same command again to continue.", file=sys.stderr)
            sys.exit(1)
        case OSError() | RuntimeError() if reason := explain_path(error):
            from orca_sweep.store import FULL

            print(reason, file=sys.stderr)
            sys.exit(1 if isinstance(error, OSError) and error.errno in FULL else 2)
    raise error


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
