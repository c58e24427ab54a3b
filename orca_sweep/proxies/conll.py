"""Reads files with one token per line and an empty line between sentences: CoNLL, CoNLL-U, IOB."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orca_sweep.errors import DataError
from orca_sweep.proxies.files import read_text

TOKEN_ID = re.compile(r"\d+(?:[-.]\d+)?")
NO_TOKEN = re.compile(r"\d+[-.]\d+")
"""Numbers in CoNLL-U that do not count tokens: 1-2 repeats tokens 1 and 2 as one word, 5.1 stands for a word that is not
in the sentence."""
DOCUMENT = "-DOCSTART-"
FEW_TOKENS = 20
"""In a file with fewer tokens, each may well have its own tag."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold the token and its tag, counted from 0; negative numbers count from the end."""

    token: int
    tag: int


@dataclass(frozen=True, kw_only=True)
class _Line:
    number: int
    fields: tuple[str, ...]
    has_lone_hash: bool
    """The line begins like a comment, with a hash sign on its own. A hashtag is a token."""

    def get_field(self, column: int) -> str | None:
        return self.fields[column] if -len(self.fields) <= column < len(self.fields) else None


def read_conll(
    path: Path, columns: Columns, encoding: str | None, where: str
) -> tuple[list[list[str]], list[list[str]]]:
    r"""Returns the sentences of a file and their tags.

    Only ``\n`` or ``\r\n`` ends a line. Tabs separate columns in a line that has one, otherwise blanks do; other spaces,
    such as no-break spaces, belong to the token. Comments and document marks are not tokens, nor are lines of CoNLL-U
    that repeat or add words. A line ``# O`` is the token ``#`` if it has as many columns as other lines, and either
    continues a sentence or has the tag of another line.

    Raises:
        DataError: names the line that lacks a column, or has an empty token or tag.
    """
    lines = [
        _read_line(number, line) for number, line in enumerate(read_text(path, encoding, where).split("\n"), start=1)
    ]
    plain = [line for line in lines if line.fields and not line.has_lone_hash]
    widths, known_tags = {len(line.fields) for line in plain}, {line.get_field(columns.tag) for line in plain}
    is_conllu = ".conllu" in path.name.lower()
    has_ids = is_conllu or _have_token_ids(plain, columns)
    sentences: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for line in lines:
        fields = line.fields
        if has_ids and fields and NO_TOKEN.fullmatch(fields[0]):
            continue
        is_token = len(fields) in widths and (bool(sentences[-1]) or line.get_field(columns.tag) in known_tags)
        is_comment = (line.has_lone_hash and not is_token) or (is_conllu and bool(fields) and fields[0].startswith("#"))
        if not fields or fields[0] == DOCUMENT or is_comment:
            if sentences[-1]:
                sentences.append([])
                tags.append([])
            continue
        sentences[-1].append(_take_field(line, columns.token, path))
        tags[-1].append(_take_field(line, columns.tag, path))
    return [words for words in sentences if words], [marks for marks in tags if marks]


def _read_line(number: int, text: str) -> _Line:
    # A file concatenated from several has byte-order marks inside.
    line = text.removesuffix("\r").lstrip("\ufeff")
    has_lone_hash = line.startswith("# ") or line == "#"
    if not line.strip(" \t"):
        fields = []
    elif has_lone_hash:
        fields = re.split(r"[ \t]+", line.strip(" \t"))
    elif "\t" in line:
        fields = [field.strip(" ") for field in line.split("\t")]
    else:
        fields = re.split(" +", line.strip(" "))
    return _Line(number=number, fields=tuple(fields), has_lone_hash=has_lone_hash)


def _have_token_ids(lines: Sequence[_Line], columns: Columns) -> bool:
    """Whether the first column is not read and numbers tokens as in CoNLL-U, whatever the file is called."""
    tokens = [line for line in lines if line.fields[0] != DOCUMENT]
    is_read = any(column in (0, -len(line.fields)) for line in tokens for column in (columns.token, columns.tag))
    firsts = {line.fields[0] for line in tokens}
    return not is_read and "1" in firsts and all(map(TOKEN_ID.fullmatch, firsts))


def _take_field(line: _Line, column: int, path: Path) -> str:
    field = line.get_field(column)
    if field is None:
        raise DataError(
            f"{path}:{line.number}: the line has {len(line.fields)} columns, so there is no column {column}."
        )
    if not field:
        raise DataError(f"{path}:{line.number}: column {column} is empty. Each line needs a token and its tag.")
    return field


def refuse_doubtful_tags(tags: Sequence[Sequence[str]], n_classes: int | None, where: str) -> None:
    """Refuses a column that does not look like tags, unless the declaration says how many classes there are.

    Raises:
        DataError: if there is only one tag, or more than half as many tags as tokens.
    """
    n_tokens, kinds = sum(map(len, tags)), set(chain.from_iterable(tags))
    remedy = "If it is right, say how many tags there are: n_classes: {0}, or #n_classes={0} after the path."
    if n_classes is not None or not kinds:
        return
    if len(kinds) == 1:
        raise DataError(
            f"{where}: all {n_tokens:,} tokens have the tag {min(kinds)!r}. That looks like the wrong column."
            f" {remedy.format(1)}"
        )
    if n_tokens >= FEW_TOKENS and 2 * len(kinds) > n_tokens:
        raise DataError(
            f"{where}: {n_tokens:,} tokens have {len(kinds):,} different tags, such as {min(kinds)!r}. That looks like a"
            f" column of words. {remedy.format(len(kinds))}"
        )
