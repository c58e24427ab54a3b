"""``--json``: the one JSON document that a command prints on stdout. README.md in this folder describes each of them.

Under ``--json`` everything else that a command prints goes to stderr, whoever prints it: progress, notes, user code.
"""

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import IO, Annotated, Any, cast

import typer

from orca_sweep.errors import NO_VALUE, DataError, InputError, Problem, shorten_text
from orca_sweep.visible import EscapingStream

SCHEMA = 1
"""Version of the documents: it grows when a key changes its meaning or goes, not when a key is added."""
WRONG_INPUT = 2
"""The exit code of mistakes."""
SURROGATE = "\\ud"
"""The start of a half of a character in JSON, which may be all that is left of a name that is not UTF-8."""
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document (orca_sweep/cli/README.md)")]
AsJsonLines = Annotated[
    bool, typer.Option("--json-lines", help="print each event as a line of JSON, and the document as the last line")
]
Values = Mapping[str, Any]


def is_json_asked(words: Sequence[str]) -> bool:
    """Says whether a command line asks for a document."""
    options = words[: words.index("--")] if "--" in words else words
    return bool({"--json", "--json-lines"} & set(options)) and not {"--help", "--version"} & set(options)


class _DivertedStream(EscapingStream):
    """A stdout whose texts go to stderr, and which keeps the real stdout for documents."""

    def __init__(self, messages: IO[str], documents: IO[str]) -> None:
        super().__init__(messages)
        self.documents = documents


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Sends to stderr what the block prints on stdout, except documents."""
    messages = getattr(sys.stderr, "unescaped", sys.stderr)
    with redirect_stdout(cast("IO[str]", _DivertedStream(messages, sys.stdout))):
        yield


# Documents ----------------------------------------------------------------------------------------


def print_document(command: str, values: Values) -> None:
    """Prints the document of a command, with a line per item of a list: long lists take no memory.

    Args:
        command: the words of the command, such as ``store ls``.
        values: the keys after ``command`` and ``schema``; an iterator becomes a list.
    """
    stream = _open_stream()
    before = "{\n"
    for key, value in {"command": command, "schema": SCHEMA, **values}.items():
        stream.write(f"{before}  {json.dumps(key)}: ")
        if isinstance(value, list | tuple | Iterator):
            _write_items(value, stream)
        else:
            stream.write(_write_json(value))
        before = ",\n"
    stream.write("\n}\n")
    stream.flush()


def print_line(command: str, values: Values) -> None:
    """Prints a document on one line, for a command that prints several."""
    stream = _open_stream()
    stream.write(_write_json({"command": command, "schema": SCHEMA, **values}) + "\n")
    stream.flush()


def _open_stream() -> IO[str]:
    stream: IO[str] = getattr(sys.stdout, "documents", sys.stdout)
    return stream


def _write_items(items: Any, stream: IO[str]) -> None:
    n_items = 0
    for item in items:
        stream.write(f"{',' if n_items else '['}\n    {_write_json(item)}")
        n_items += 1
    stream.write("\n  ]" if n_items else "[]")


def _write_json(value: object) -> str:
    try:
        text = json.dumps(value, allow_nan=False)  # five times as fast as to_plain, for thousands of configs
    except (TypeError, ValueError):
        text = SURROGATE
    return json.dumps(to_plain(value), allow_nan=False) if SURROGATE in text else text


# Values -------------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Returns a value made of what JSON holds: NaN and infinity are null, times ISO 8601 in UTC, paths text."""
    match value:
        case None | bool() | int() if not isinstance(value, Enum):
            return value
        case float():
            return value if math.isfinite(value) else None
        case Enum():
            return to_plain(value.value)
        case str():
            # A name that is not UTF-8 holds halves of characters, which strict readers of JSON refuse.
            return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case PurePath():
            return to_plain(str(value))
    return _to_plain_parts(value)


def _to_plain_parts(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(to_plain(key)): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(to_plain, value))
    if isinstance(value, list | tuple | Iterator):
        return [to_plain(inner) for inner in value]
    if hasattr(value, "item"):  # a number of numpy
        return to_plain(value.item())
    raise TypeError(f"a document cannot hold {type(value).__name__}")


def to_time(seconds: float | None) -> datetime | None:
    """Returns the time of seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# Mistakes and errors ------------------------------------------------------------------------------


def name_command(words: Sequence[str], groups: Collection[str]) -> str:
    """Returns the command on a command line; after a word of ``groups``, it has a second word."""
    names = [word for word in words if not word.startswith("-")]
    return " ".join(names[: 2 if names[:1] and names[0] in groups else 1])


def name_option(problem: Problem) -> Problem:
    """Returns a problem about an argument of a Python call as one about the option of a command."""
    return (
        replace(problem, field=f"--{problem.field.replace('_', '-')}")
        if problem.is_argument and problem.field
        else problem
    )


def write_problem(problem: Problem) -> str:
    """Returns the sentence on a problem, with an option and its value as on a command line."""
    named = name_option(problem)
    if problem.is_argument and problem.value is not NO_VALUE:
        named = replace(named, field=f"{named.field} {shorten_text(str(problem.value))}", value=NO_VALUE)
    return str(named)


def write_error(error: InputError) -> str:
    """Returns the sentences on the mistakes in wrong input."""
    return "\n".join(map(write_problem, error.problems))


def describe_error(error: BaseException, code: int, text: str) -> dict[str, Any]:
    """Returns the keys of the document on an error with an exit code and a message."""
    if code != WRONG_INPUT:
        return {"error": text}
    if isinstance(error, InputError | DataError):
        problems = InputError(error.problems).problems
        return {"problems": [name_option(p).as_json() | {"message": write_problem(p)} for p in problems]}
    option = getattr(error, "param", None)  # of a wrong command line
    field = option.opts[-1] if option is not None else None
    return {"problems": [Problem(rule=text, field=field).as_json() | {"message": text}]}
