"""Files that this program writes for itself to read again: JSON with a checksum in front, read back by a schema.

The first field of each is the checksum of all that follows it, byte for byte. So a file that was cut short, edited or
written by something else is known as such before anything in it is used. ``read_record_file`` is the only reader: it
ends in a whole record, in None where there is no file, or in a DamagedError that names the file and what to do.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from orca_sweep.config import canonical_json
from orca_sweep.errors import DamagedError

CHECKSUM = "sha256"
STRICT = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
"""Of schemas: no text is taken for a number, JSON has no infinity, and fields of later versions are let through."""
Id = Annotated[str, Field(min_length=1, pattern=r"^[^/\x00]+$")]
"""The name of a trial or cell, which may be that of a folder."""
T = TypeVar("T")
_START = b'{"sha256":"'
_N_HEX = 64
IN_THE_WAY = {
    errno.EISDIR: "a folder is in its place",
    errno.ENOTDIR: "a file is in the place of its folder",
    errno.ELOOP: "links that lead in a circle are in its place",
    errno.ENXIO: "no regular file is in its place",
}


def fields_type(name: str, /, **fields: Any) -> Any:
    """Returns the type of dictionaries with these fields and any others; ``X | None`` where a field may be null."""
    return with_config(STRICT)(TypedDict(name, fields))  # type: ignore[operator]


def list_of(kind: Any) -> Any:
    """Returns the type of lists of a kind that is made while the program runs."""
    return list.__class_getitem__(kind)


def record_text(content: Mapping[str, Any]) -> str:
    """Returns the text of a record: one line of JSON that begins with the checksum of the rest."""
    body = canonical_json({name: value for name, value in content.items() if name != CHECKSUM})
    return f'{{"{CHECKSUM}":"{hashlib.sha256(body.encode()).hexdigest()}"{"," if len(body) > 2 else ""}{body[1:]}'


def parse_record(blob: bytes, schema: TypeAdapter[T]) -> T:
    """Returns what ``record_text`` was given.

    Raises:
        ValueError: saying what is wrong, if it is not what was written or does not fit the schema.
    """
    blob = blob.rstrip(b"\n")
    if not blob.strip(b"\0"):
        raise ValueError("empty" if not blob else "nothing but zero bytes")
    start, digest = len(_START), blob[len(_START) : len(_START) + _N_HEX]
    rest = blob[start + _N_HEX + 1 :]
    if not blob.startswith(_START) or blob[start + _N_HEX : start + _N_HEX + 1] != b'"':
        raise ValueError("no record that this program wrote (it does not begin with a checksum)")
    body = b"{" + rest.removeprefix(b",")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("not what was written (the checksum is wrong)")
    try:
        return schema.validate_json(body)
    except ValidationError as error:
        raise ValueError(_explain(error)) from None


def is_begun_record(blob: bytes) -> bool:
    """Says whether bytes may be the start of a record whose writer was killed; nothing at all may."""
    return blob[: len(_START)] == _START[: len(blob)]


def _explain(error: ValidationError) -> str:
    """The first thing that does not fit, with its place; how many more there are."""
    first, n = error.errors(include_url=False, include_context=False)[0], error.error_count()
    where = ".".join(map(str, first["loc"])) or "the record"
    more = f" and {n - 1} more" if n > 1 else ""
    return f"its content is wrong: {where}: {first['msg']}{more}"


def read_record_file(path: Path, schema: TypeAdapter[T], remedy: str) -> T | None:
    """Returns the record in a file, or None if there is no such file.

    Args:
        path: the file.
        schema: what the record must hold.
        remedy: a sentence that says what to do when it is damaged.

    Raises:
        DamagedError: if something is there that cannot be read, or is not what was written.
    """
    try:
        blob = read_regular_file(path)
        return None if blob is None else parse_record(blob, schema)
    except OSError as error:
        raise DamagedError(path, unreadable(error), remedy) from None
    except ValueError as error:
        raise DamagedError(path, f"damaged: {error}", remedy) from None


def read_regular_file(path: Path) -> bytes | None:
    """Returns the content of a file, or None if there is none. It never waits, be it for a pipe.

    Raises:
        OSError: if something else is there, a link that leads nowhere included, or it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "a link to nothing is in its place") from None
        return None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # a folder cannot be made a file object, which would close it
        os.close(descriptor)
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "")
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def unreadable(error: OSError) -> str:
    """Returns why a file cannot be read, in words."""
    return f"cannot be read: {IN_THE_WAY.get(error.errno or 0) or error.strerror or error}"
