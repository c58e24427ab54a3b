"""A YAML text as a document of plain text leaves, with the line of every place in it.

Sizes are counted before anything is built: a few aliases can stand for more values than memory holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import InputError
from orca_sweep.registry import hint
from orca_sweep.space.records import Path_
from orca_sweep.space.sizes import as_number

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
MOST_BYTES = 4 * 2**20
MOST_COUNTED = 256 * 2**20
"""Bytes of a file that is too large whose values are counted still."""
MOST_CHARACTERS = 10_000
"""Of a key or value."""
MOST_VALUES = 200_000
"""Keys, values and lists in a document, those that aliases repeat included."""
MOST_LEVELS = 50
"""Of lists and mappings in one another."""
RAISE = "--max-trials raises the limit"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it: it reads about twenty times as fast."""


@dataclass(slots=True)
class _Node:
    """A value in the text, before aliases are written out."""

    line: int
    kind: str
    """scalar, list or mapping."""
    text: str = ""
    is_plain: bool = False
    children: "list[_Node]" = field(default_factory=list)
    """Of a mapping its keys and values, in turn."""
    n_values: int = 1
    """Itself and all below it, aliases written out."""
    depth: int = 1
    is_open: bool = True

    def close(self) -> None:
        self.is_open = False
        self.n_values += sum(child.n_values for child in self.children)
        self.depth += max((child.depth for child in self.children), default=0)


def read_document(path: Path, most_values: int = MOST_VALUES) -> tuple[object, dict[Path_, int]]:
    """Returns the document of a YAML file with text leaves, and the line of every place in it.

    Scalars stay text (null apart): the field they end in decides what they are, so YAML 1.1's habits
    (``no`` is false, ``1e-4`` is text, ``1:30`` is ninety) cannot change a level.

    Args:
        path: the file.
        most_values: how many keys, values and lists it may hold, those that aliases repeat included.

    Raises:
        InputError: if it cannot be read, is no YAML, or is larger than a space can sensibly be.
    """
    root = _compose(path, _text(path, max(MOST_BYTES, 20 * most_values), most_values), most_values)
    if root.n_values > most_values:
        raise InputError(
            f"{path}: its aliases stand for {as_number(root.n_values)} values, more than {most_values:,}. Write out what is"
            " needed."
        )
    if root.depth > MOST_LEVELS:
        raise InputError(f"{path}: nested too deeply to be a space ({root.depth} levels, at most {MOST_LEVELS}).")
    lines: dict[Path_, int] = {}
    problems: list[str] = []
    document = _value(root, (), lines, problems, path)
    if problems:
        raise InputError(problems)
    return document, lines


def _text(path: Path, most_bytes: int, most_values: int) -> str:
    try:
        # Counted as it is read: a pipe, or a file of /proc, has no size.
        with path.open("rb") as file:
            blob = file.read(most_bytes + 1)
            if len(blob) > most_bytes:
                raise InputError(_too_large(path, blob, file, f"{most_bytes:,} bytes and {most_values:,} values"))
        text = blob.decode("utf-8")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file. {hint(path.name, near) if near else 'Name a space YAML.'}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}). A space is a UTF-8 YAML file.") from None
    problem = pointer_problem(path)
    if problem:
        raise InputError(problem)
    return text


def _too_large(path: Path, blob: bytes, file: BinaryIO, limit: str) -> str:
    """What is wrong with a file of more bytes than are read, and about how many values it lists."""
    n_bytes = n_items = 0
    while blob and n_bytes < MOST_COUNTED:
        n_bytes += len(blob)
        n_items += blob.count(b",") + blob.count(b"- ")
        blob = file.read(2**20)
    size = f"{n_bytes:,} bytes and about {n_items:,} values{' and more' if blob else ''}"
    return f"{path}: {size}, where a space has at most {limit}. Give fewer levels, seeds or rows; {RAISE}."


def _compose(path: Path, text: str, most_values: int) -> _Node:
    """The tree of a text. Neither depth nor number of values can exhaust anything: the text is read as events."""
    top = _Node(0, "list")
    n_values, too_many = 0, False
    stack, anchors = [top], dict[str, _Node]()
    try:
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.NodeEvent):
                n_values += 1
                too_many = too_many or n_values > most_values
                if not too_many:
                    _add(event, stack, anchors, path)
            elif isinstance(event, yaml.CollectionEndEvent) and not too_many:
                stack.pop().close()
            elif isinstance(event, yaml.DocumentStartEvent) and top.children:
                raise InputError(f"{path}:{_line(event)}: not valid YAML: a second document begins here. Keep one.")
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem or error.context):
            raise InputError(f"{path}: nested too deeply to be a space (at most {MOST_LEVELS} levels).") from None
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}.") from None
    if too_many:
        raise InputError(
            f"{path}: {n_values:,} values, where a space has at most {most_values:,}. Give fewer levels, seeds or rows; {RAISE}."
        )
    if not top.children:
        raise InputError(f"{path}: the file is empty. A space needs at least base, factors and seeds.")
    return top.children[0]


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _add(event: yaml.NodeEvent, stack: list[_Node], anchors: dict[str, _Node], path: Path) -> None:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise InputError(f"{path}:{line}: not valid YAML: found undefined alias {event.anchor!r}.")
        node = anchors[event.anchor]
        if node.is_open:
            raise InputError(f"{path}:{line}: an alias that contains itself. Write the value out.")
        stack[-1].children.append(node)
        return
    if isinstance(event, yaml.ScalarEvent):
        node = _Node(line, "scalar", str(event.value), event.style in (None, "") and event.implicit[0], is_open=False)
        if len(node.text) > MOST_CHARACTERS:
            raise InputError(
                f"{path}:{line}: a text of {len(node.text):,} characters, more than {MOST_CHARACTERS:,}. Shorten it."
            )
    else:
        node = _Node(line, "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping")
        if len(stack) > MOST_LEVELS:
            raise InputError(f"{path}:{line}: nested too deeply to be a space (at most {MOST_LEVELS} levels).")
    stack[-1].children.append(node)
    if event.anchor is not None:
        anchors[event.anchor] = node
    if not isinstance(event, yaml.ScalarEvent):
        stack.append(node)


def _value(node: _Node, place: Path_, lines: dict[Path_, int], problems: list[str], path: Path) -> object:
    lines.setdefault(place, node.line)
    if node.kind == "list":
        return [_value(child, (*place, str(i)), lines, problems, path) for i, child in enumerate(node.children)]
    if node.kind == "scalar":
        return None if node.is_plain and node.text in NULLS else node.text
    mapping: dict[str, object] = {}
    for key_node, value_node in _pairs(node):
        key = key_node.text
        if key_node.kind != "scalar" or key == "<<":
            problems.append(f"{path}:{key_node.line}: this key is no plain word. Write each key out as text.")
        elif key in mapping:
            problems.append(
                f"{path}:{key_node.line}: {key!r} stands here twice. The second would silently win; keep one."
            )
        else:
            lines[(*place, key)] = key_node.line
            mapping[key] = _value(value_node, (*place, key), lines, problems, path)
    return mapping


def _pairs(node: _Node) -> Iterator[tuple[_Node, _Node]]:
    return zip(node.children[::2], node.children[1::2], strict=True)
