"""Files that scripts write into a folder of the user's choice: whole or not at all, and never over somebody else's.

A folder keeps a list of what was written into it, as hashes. A file that is there already is replaced only if it is still
what a script wrote: one of the user's own, or one that was edited since, stays.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from orca_sweep.errors import InputError
from orca_sweep.record_files import read_regular_file

WRITTEN = ".orca-sweep-written"
"""Below the folder: a line 'SHA-256  name' for each file that was written."""


def write_files(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files into a folder, each whole or not at all, and returns their paths.

    Raises:
        InputError: naming each file that is in the way; nothing is written then.
        OSError: if the system refuses.
    """
    written = _lines(out / WRITTEN)
    check_replaceable(
        [out / name for name, content in contents.items() if _is_in_the_way(out / name, content, written)]
    )
    out.mkdir(parents=True, exist_ok=True)
    lines = [_line(name, content) for name, content in contents.items()]
    new = [line for line in lines if line not in written]
    if new:  # before the files: a script that is killed between two must know its own again
        with (out / WRITTEN).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))
    for name, content in contents.items():
        with whole(out / name) as temporary:
            temporary.write_bytes(content)
    return [out / name for name in contents]


def check_replaceable(in_the_way: list[Path]) -> None:
    """Refuses to replace files.

    Raises:
        InputError: naming each of them.
    """
    if in_the_way:
        raise InputError(
            [
                f"{path}: is there, and is not what orca-sweep wrote, or was edited since. Nothing is replaced. Name another"
                " place with --out, or move it away."
                for path in in_the_way
            ]
        )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a file beside the path to write to, and puts it in its place once it is written."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_in_the_way(path: Path, content: bytes, written: frozenset[str]) -> bool:
    try:
        before = read_regular_file(path)
    except NotADirectoryError:
        return False  # making the folder says so
    except OSError:  # a folder, a pipe, or not to be read
        return True
    return before is not None and before != content and _line(path.name, before) not in written


def _line(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}"


def _lines(path: Path) -> frozenset[str]:
    with suppress(OSError, UnicodeDecodeError):
        return frozenset((read_regular_file(path) or b"").decode().splitlines())
    return frozenset()
