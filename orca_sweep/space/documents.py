"""A YAML text as a document whose leaves are text, with the line of every key and value.

Sizes are counted before anything is built: a few aliases can stand for more values than fit into memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import InputError, Problem
from orca_sweep.registry import hint

Keys = tuple[str, ...]
"""The path to a value in a document: its keys, and in lists the numbers of items."""
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
MOST_BYTES = 4 * 2**20
MOST_COUNTED = 256 * 2**20
"""Bytes; in a file that is too large, values are counted up to here."""
MOST_CHARACTERS = 10_000
"""Of a key or value."""
MOST_VALUES = 200_000
"""Keys, values and lists in a document; what an alias repeats counts each time."""
MOST_DEPTH = 50
"""Of nested lists and mappings."""
FEWER = "Give fewer levels, seeds or rows; --max-trials raises the limit."
NO_YAML = "this is not valid YAML"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: it is about twenty times as fast."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML file as it was read, or a Python mapping in the same form: scalars are text, or None for null."""

    path: Path | None
    """The file; None for a Python mapping."""
    content: object
    lines: dict[Keys, int]
    """The line of every key and value (0 in a mapping); the reader of a space adds the dotted names of settings."""

    def locate(self, *keys: str) -> str:
        """Returns 'file:line' of a value, or of the nearest value around it; in a mapping, its dotted key."""
        return locate_keys(self.path, self.lines, keys)


def locate_keys(path: Path | None, lines: Mapping[Keys, int], keys: Keys) -> str:
    """Returns 'file:line' of a value, or of the nearest value around it; just the file if it has no lines.

    A mapping has no file: then this is the dotted key, such as 'factors.proxy[1]', or 'the space' for the whole.
    """
    known = next((keys[:n] for n in range(len(keys), -1, -1) if keys[:n] in lines), None)
    if path is None:
        return write_keys(known or ())
    return str(path) if known is None else f"{path}:{lines[known]}"


def write_keys(keys: Keys) -> str:
    """Returns 'factors.proxy[1]' for the path to a value; 'the space' for an empty path."""
    parts = (f"[{key}]" if key.isdecimal() else f".{key}" for key in keys)
    return "".join(parts).removeprefix(".") or "the space"


def write_count(n: int) -> str:
    """Returns a number in readable form: '10,000,000', or 'about 10^42'."""
    return f"{n:,}" if n < 10**15 else f"about 10^{len(str(n)) - 1}"


# The file -----------------------------------------------------------------------------------------


def read_document(path: Path, most_values: int = MOST_VALUES) -> Document:
    """Returns the document of a YAML file.

    Scalars other than null stay text: the field that receives a value decides its type, so YAML 1.1's conventions
    (``no`` is false, ``1e-4`` is text, ``1:30`` is ninety) cannot change a level.

    Args:
        path: the file.
        most_values: the largest number of keys, values and lists; what an alias repeats counts each time.

    Raises:
        InputError: if it cannot be read, is not YAML, or is too large for a space.
    """
    root = _compose_nodes(path, _read_text(path, max(MOST_BYTES, 20 * most_values), most_values), most_values)
    if root.n_values > most_values:
        rule = f"its aliases stand for {write_count(root.n_values)} values, more than {most_values:,}."
        raise InputError(Problem(where=str(path), rule=rule, remedy="Write out only what is needed."))
    if root.depth > MOST_DEPTH:
        raise InputError(_find_depth_problem(str(path), f"{root.depth} levels, at most {MOST_DEPTH}"))
    lines: dict[Keys, int] = {}
    problems: list[Problem] = []
    content = _Builder(path, lines, problems).build_value(root, ())
    if problems:
        raise InputError(problems)
    return Document(path=path, content=content, lines=lines)


def _read_text(path: Path, most_bytes: int, most_values: int) -> str:
    try:
        # Bytes are counted while reading: a pipe, or a file in /proc, has no size.
        with path.open("rb") as file:
            blob = file.read(most_bytes + 1)
            if len(blob) > most_bytes:
                limit = f"{most_bytes:,} bytes and {most_values:,} values"
                raise InputError(_find_size_problem(path, blob, file, limit))
        text = blob.decode("utf-8")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        remedy = hint(path.name, near) if near else "Name a space YAML."
        raise InputError(Problem(where=str(path), rule="there is no such file.", remedy=remedy)) from None
    except (OSError, ValueError) as error:
        rule = f"this file cannot be read as text ({error})."
        raise InputError(Problem(where=str(path), rule=rule, remedy="A space is a UTF-8 YAML file.")) from None
    problem = pointer_problem(path)
    if problem:
        raise InputError(problem)
    return text


def _find_size_problem(path: Path, blob: bytes, file: BinaryIO, limit: str) -> Problem:
    """A problem that gives the size of a file, of which only ``blob`` was read, and its approximate number of values."""
    n_bytes = n_items = 0
    while blob and n_bytes < MOST_COUNTED:
        n_bytes += len(blob)
        n_items += blob.count(b",") + blob.count(b"- ")
        blob = file.read(2**20)
    size = f"{'more than ' if blob else ''}{n_bytes:,} bytes and about {n_items:,} values"
    return Problem(where=str(path), rule=f"{size}, but a space may have at most {limit}.", remedy=FEWER)


def _find_depth_problem(where: str, depth: str) -> Problem:
    return Problem(where=where, rule=f"the nesting is too deep for a space ({depth}).")


# Nodes --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A value in the text, before aliases are written out."""

    line: int
    kind: str
    """scalar, list or mapping."""
    text: str = ""
    is_plain: bool = False
    children: "list[_Node]" = field(default_factory=list)
    """Of a mapping: keys and values alternately."""
    n_values: int = 1
    """The node and all below it, aliases written out."""
    depth: int = 1
    is_open: bool = True

    def close(self) -> None:
        self.is_open = False
        self.n_values += sum(child.n_values for child in self.children)
        self.depth += max((child.depth for child in self.children), default=0)


def _compose_nodes(path: Path, text: str, most_values: int) -> _Node:
    """Returns the tree of a text. The text is read as events, so neither depth nor the number of values exhausts memory."""
    top = _Node(0, "list")
    n_values = 0
    stack, anchors = [top], dict[str, _Node]()
    try:
        for event in yaml.parse(text, Loader=LOADER):
            n_values += isinstance(event, yaml.NodeEvent)
            if n_values > most_values:
                continue  # the rest is only counted
            if isinstance(event, yaml.NodeEvent):
                _add_node(event, stack, anchors, path)
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop().close()
            elif isinstance(event, yaml.DocumentStartEvent) and top.children:
                rule = f"{NO_YAML}: a second document begins here."
                raise InputError(Problem(where=f"{path}:{_line_of(event)}", rule=rule, remedy="Keep only one."))
    except yaml.YAMLError as error:
        raise InputError(_explain_yaml_error(path, error)) from None
    if n_values > most_values:
        rule = f"{n_values:,} values, but a space may have at most {most_values:,}."
        raise InputError(Problem(where=str(path), rule=rule, remedy=FEWER))
    if not top.children:
        remedy = "A space needs at least base, factors and seeds."
        raise InputError(Problem(where=str(path), rule="the file is empty.", remedy=remedy))
    return top.children[0]


def _explain_yaml_error(path: Path, error: yaml.YAMLError) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(where=str(path), rule=f"{NO_YAML}: {error}.")
    words = str(error.problem or error.context)
    # libyaml has a single class for all its errors: only the text shows that it reached its own depth limit.
    if "nesting depth" in words:
        return _find_depth_problem(str(path), f"at most {MOST_DEPTH} levels")
    mark = error.problem_mark or error.context_mark
    return Problem(where=f"{path}:{mark.line + 1 if mark else 1}", rule=f"{NO_YAML}: {words}.")


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _add_node(event: yaml.NodeEvent, stack: list[_Node], anchors: dict[str, _Node], path: Path) -> None:
    where = f"{path}:{_line_of(event)}"
    if isinstance(event, yaml.AliasEvent):
        stack[-1].children.append(_find_anchor(str(event.anchor), anchors, where))
        return
    node = _make_node(event)
    if len(node.text) > MOST_CHARACTERS:
        rule = f"a text of {len(node.text):,} characters, more than {MOST_CHARACTERS:,}."
        raise InputError(Problem(where=where, rule=rule, remedy="Shorten it."))
    if node.kind != "scalar" and len(stack) > MOST_DEPTH:
        raise InputError(_find_depth_problem(where, f"at most {MOST_DEPTH} levels"))
    stack[-1].children.append(node)
    if event.anchor is not None:
        anchors[event.anchor] = node
    if node.kind != "scalar":
        stack.append(node)


def _make_node(event: yaml.NodeEvent) -> _Node:
    line = _line_of(event)
    if isinstance(event, yaml.ScalarEvent):
        return _Node(line, "scalar", str(event.value), event.style in (None, "") and event.implicit[0], is_open=False)
    return _Node(line, "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping")


def _find_anchor(name: str, anchors: Mapping[str, _Node], where: str) -> _Node:
    if name not in anchors:
        raise InputError(Problem(where=where, rule=f"{NO_YAML}: there is no anchor for the alias {name!r}."))
    if anchors[name].is_open:
        raise InputError(Problem(where=where, rule="an alias that contains itself.", remedy="Write the value out."))
    return anchors[name]


class _Builder:
    """Writes nodes out as plain values while it notes lines and problems."""

    def __init__(self, path: Path, lines: dict[Keys, int], problems: list[Problem]) -> None:
        self.path, self.lines, self.problems = path, lines, problems

    def build_value(self, node: _Node, keys: Keys) -> object:
        self.lines.setdefault(keys, node.line)
        if node.kind == "list":
            return [self.build_value(child, (*keys, str(i))) for i, child in enumerate(node.children)]
        if node.kind == "scalar":
            return None if node.is_plain and node.text in NULLS else node.text
        return self._build_mapping(node, keys)

    def _build_mapping(self, node: _Node, keys: Keys) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in _pair_up(node.children):
            key = key_node.text
            if key_node.kind != "scalar" or key == "<<":
                self._report(key_node.line, "this key is not a plain word.", "Write each key out as text.")
            elif key in mapping:
                rule = f"the key {key!r} appears here twice, and the second would silently win."
                self._report(key_node.line, rule, "Keep one.")
            else:
                self.lines[(*keys, key)] = key_node.line
                mapping[key] = self.build_value(value_node, (*keys, key))
        return mapping

    def _report(self, line: int, rule: str, remedy: str) -> None:
        self.problems.append(Problem(where=f"{self.path}:{line}", rule=rule, remedy=remedy))


def _pair_up(nodes: list[_Node]) -> Iterator[tuple[_Node, _Node]]:
    return zip(nodes[::2], nodes[1::2], strict=True)
