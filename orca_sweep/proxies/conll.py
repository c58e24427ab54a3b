"""Files with one token per line and an empty line between sentences: CoNLL, CoNLL-U, IOB."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orca_sweep.errors import DataError
from orca_sweep.proxies.files import read_text

TOKEN_ID = re.compile(r"\d+(?:[-.]\d+)?")
NO_TOKEN = re.compile(r"\d+[-.]\d+")
"""Numbers of CoNLL-U that count no token: 1-2 repeats the tokens 1 and 2 as one word, 5.1 stands for a word that is not
in the sentence."""
DOCUMENT = "-DOCSTART-"
FEW_TOKENS = 20
"""Of fewer tokens each may well have a tag of its own."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold the token and its tag, from 0; negative ones count from the end."""

    token: int
    tag: int


@dataclass(frozen=True, kw_only=True)
class _Line:
    number: int
    fields: tuple[str, ...]
    has_lone_hash: bool
    """It begins as comments do: with a hash sign that stands alone. A hashtag is a token."""

    def get(self, column: int) -> str | None:
        return self.fields[column] if -len(self.fields) <= column < len(self.fields) else None


def read_conll(
    path: Path, columns: Columns, encoding: str | None, where: str
) -> tuple[list[list[str]], list[list[str]]]:
    r"""Returns the sentences of a file and their tags.

    A line ends at ``\n`` or ``\r\n`` and at nothing else. Columns are apart by tabs in a line that has one, else by
    blanks; other spaces, such as no-break ones, belong to the token. Comments, document marks, and lines of CoNLL-U that
    repeat or add words are no tokens. A line ``# O`` is the token ``#`` if it has as many columns as the others, and
    goes on with a sentence or has a tag that others have.

    Raises:
        DataError: naming the line that lacks a column, or has an empty token or tag.
    """
    lines = [
        _read_line(number, line) for number, line in enumerate(read_text(path, encoding, where).split("\n"), start=1)
    ]
    plain = [line for line in lines if line.fields and not line.has_lone_hash]
    widths, known_tags = {len(line.fields) for line in plain}, {line.get(columns.tag) for line in plain}
    is_conllu = ".conllu" in path.name.lower()
    has_ids = is_conllu or _have_ids(plain, columns)
    sentences: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for line in lines:
        fields = line.fields
        if has_ids and fields and NO_TOKEN.fullmatch(fields[0]):
            continue
        is_token = len(fields) in widths and (bool(sentences[-1]) or line.get(columns.tag) in known_tags)
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
    # A file that was put together of several has byte-order marks inside.
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


def _have_ids(lines: Sequence[_Line], columns: Columns) -> bool:
    """Whether the first column, which is not read, numbers tokens as in CoNLL-U, whatever the file's name is."""
    tokens = [line for line in lines if line.fields[0] != DOCUMENT]
    is_read = any(column in (0, -len(line.fields)) for line in tokens for column in (columns.token, columns.tag))
    firsts = {line.fields[0] for line in tokens}
    return not is_read and "1" in firsts and all(map(TOKEN_ID.fullmatch, firsts))


def _take_field(line: _Line, column: int, path: Path) -> str:
    field = line.get(column)
    if field is None:
        raise DataError(f"{path}:{line.number}: {len(line.fields)} columns, so none has the number {column}.")
    if not field:
        raise DataError(f"{path}:{line.number}: column {column} is empty. A token and its tag are needed in each line.")
    return field


def refuse_doubtful_tags(tags: Sequence[Sequence[str]], n_classes: int | None, where: str) -> None:
    """Refuses a column that does not look like tags, unless the declaration says how many there are.

    Raises:
        DataError: if there is one tag only, or more than half as many as tokens.
    """
    n_tokens, kinds = sum(map(len, tags)), set(chain.from_iterable(tags))
    meant = "If it is meant, say how many there are: n_classes: {0}, as a text #n_classes={0} after the path."
    if n_classes is not None or not kinds:
        return
    if len(kinds) == 1:
        raise DataError(
            f"{where}: all {n_tokens:,} tokens have the tag {min(kinds)!r}. That looks like the wrong column."
            f" {meant.format(1)}"
        )
    if n_tokens >= FEW_TOKENS and 2 * len(kinds) > n_tokens:
        raise DataError(
            f"{where}: {n_tokens:,} tokens have {len(kinds):,} different tags, such as {min(kinds)!r}. That looks like a"
            f" column of words. {meant.format(len(kinds))}"
        )
