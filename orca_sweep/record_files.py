"""Files that orca-sweep writes and reads back: JSON that begins with a checksum and follows a schema.

The first field of each file is the checksum of every byte after it, so that truncated, edited and foreign files are
recognised before their content is used. ``read_record_file`` is the only reader. It returns a whole record, or None
without a file, or raises a DamagedError that names the file and the remedy.
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
"""Settings of all schemas: text does not pass as a number, JSON has no infinity, and unknown fields are let through."""
Id = Annotated[str, Field(min_length=1, pattern=r"^[^/\x00]+$")]
"""The id of a trial or cell, which must be valid as the name of a folder."""
T = TypeVar("T")
_START = b'{"sha256":"'
_N_HEX = 64
IN_THE_WAY = {
    errno.EISDIR: "a folder is in its place",
    errno.ENOTDIR: "a file is in the place of its folder",
    errno.ELOOP: "a circle of links is in its place",
    errno.ENXIO: "it is not a regular file",
}


def fields_type(name: str, /, **fields: Any) -> Any:
    """Returns the type of dictionaries with these fields and any others; a field of type ``X | None`` may be null."""
    return with_config(STRICT)(TypedDict(name, fields))  # type: ignore[operator]


def list_of(kind: Any) -> Any:
    """Returns the type of lists of a type that is made at run time."""
    return list.__class_getitem__(kind)


def record_text(content: Mapping[str, Any]) -> str:
    """Returns the text of a record: one line of JSON that begins with the checksum of the rest."""
    body = canonical_json({name: value for name, value in content.items() if name != CHECKSUM})
    return f'{{"{CHECKSUM}":"{hashlib.sha256(body.encode()).hexdigest()}"{"," if len(body) > 2 else ""}{body[1:]}'


def parse_record(blob: bytes, schema: TypeAdapter[T]) -> T:
    """Returns the content that ``record_text`` wrote.

    Raises:
        ValueError: if the bytes were changed or do not fit the schema; the message says what is wrong.
    """
    blob = blob.rstrip(b"\n")
    if not blob.strip(b"\0"):
        raise ValueError("empty" if not blob else "nothing but zero bytes")
    start, digest = len(_START), blob[len(_START) : len(_START) + _N_HEX]
    rest = blob[start + _N_HEX + 1 :]
    if not blob.startswith(_START) or blob[start + _N_HEX : start + _N_HEX + 1] != b'"':
        raise ValueError("not a record that orca-sweep wrote (it does not begin with a checksum)")
    body = b"{" + rest.removeprefix(b",")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("not what was written (the checksum is wrong)")
    try:
        return schema.validate_json(body)
    except ValidationError as error:
        raise ValueError(_explain_misfit(error)) from None


def is_begun_record(blob: bytes) -> bool:
    """Says whether bytes may be the start of a record whose writer was killed. No bytes may be."""
    return blob[: len(_START)] == _START[: len(blob)]


def _explain_misfit(error: ValidationError) -> str:
    """Returns the first field that does not fit the schema, the reason, and the number of further misfits."""
    first, n = error.errors(include_url=False, include_context=False)[0], error.error_count()
    where = ".".join(map(str, first["loc"])) or "the record"
    more = f" and {n - 1} more" if n > 1 else ""
    return f"its content is wrong: {where}: {first['msg']}{more}"


def read_record_file(path: Path, schema: TypeAdapter[T], remedy: str) -> T | None:
    """Returns the record in a file, or None if there is no such file.

    Args:
        path: the file.
        schema: the fields that the record must have.
        remedy: a sentence that says what to do if the file is damaged.

    Raises:
        DamagedError: if the file cannot be read or is damaged.
    """
    try:
        blob = read_regular_file(path)
        return None if blob is None else parse_record(blob, schema)
    except OSError as error:
        raise DamagedError(path, explain_unreadable(error), remedy) from None
    except ValueError as error:
        raise DamagedError(path, f"damaged: {error}", remedy) from None


def read_regular_file(path: Path) -> bytes | None:
    """Returns the content of a file, or None if it does not exist. Never waits, not even for a pipe.

    Raises:
        OSError: if it may not be read, is not a regular file, or is a broken link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "a broken link is in its place") from None
        return None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # os.fdopen would refuse a folder without closing it
        os.close(descriptor)
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "")
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def explain_unreadable(error: OSError) -> str:
    """Returns why a file cannot be read, in words."""
    return f"cannot be read: {IN_THE_WAY.get(error.errno or 0) or error.strerror or error}"
