"""A user's own data set as one text that states where its samples and labels are. Nothing here reads data.

fancyzhx/ag_news[train]:text->label              a hub id, its split, its input and its label column
org/name#config@revision[train[:2000]]:img->fine_label
./folder[train]:image->label                     images in folders of classes, or Parquet, CSV, TSV, JSON lines
./eng.train.conll[train]:0->3                    CoNLL columns: numbers of the token's and the tag's column
./features.npz[train]:x->y                       features computed beforehand for bodies of one width
./old.csv#encoding=latin-1#n_classes=1[]:text->kind    facts about a data set that its files do not state

A part that contains characters of this notation is written in double quotes, as a JSON string:
"./run #1/a@b"[]:image->label.
"""

import codecs
import errno
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from orca_sweep.registry import explain_name, hint

QUOTED = r'"(?:[^"\\]|\\.)*"'
NAME = rf"(?:{QUOTED}|(?!\s*\")[^\[\]#@]+)"
TEXT = re.compile(
    rf"(?P<path>{NAME})(?P<facts>(?:#{NAME})*)(?:@(?P<revision>{NAME}))?"
    rf'\[(?P<split>{QUOTED}|(?!\s*").*?)\]:(?P<input>{QUOTED}|(?!\s*").+?)->(?P<label>{QUOTED}|(?!\s*").+)',
    re.DOTALL,
)
FACT = re.compile(rf"#({NAME})")
PLAIN_NAME = re.compile(r"[^\[\]#@\"\n]+")
SHUFFLED = "shuffled:"
"""Before a proxy's name: the same data with its labels permuted."""
KEYS = ("path", "config", "revision", "split", "input", "label", "encoding", "n_classes", "name")
FACTS = ("encoding", "n_classes", "name")
"""What may follow a path as ``#key=value``."""
RESERVED_CHARACTERS = '[]#@"=:,'
"""Not allowed in the name of a declaration, since they have a meaning in its text."""


def is_local_path(name: str) -> bool:
    """Whether a name means a file or folder, not a hub id: it is written as a path, or exists."""
    try:
        return bool(name) and (name.startswith((".", "/", "~")) or Path(name).exists())
    except (OSError, ValueError):  # longer than a path can be, or with a NUL
        return False


def explain_impossible_path(path: str) -> str | None:
    """Returns why a path cannot exist on any file system here, or None if it can."""
    try:
        os.lstat(path)
    except ValueError:
        return f"the path {path!r} contains a NUL character. Remove it."
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return (
                f"the path {path[:60]!r}... has {len(os.fsencode(path))} bytes: the path, or a part of it, is longer than"
                " the file system allows (usually 255 bytes per part). Shorten it."
            )
    return None


def absolute_path(name: str) -> str:
    """Returns the absolute path of a file or folder, links resolved; a name that cannot be a path stays as it is."""
    try:
        return os.path.realpath(Path(name).expanduser())
    except (OSError, RuntimeError, ValueError):  # too long; a loop of links, or no such user; a zero byte
        return name


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """Where a proxy's samples and labels are."""

    path: str
    input: str
    label: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    encoding: str | None = None
    """Of a text file that is not UTF-8."""
    n_classes: int | None = None
    """How many classes there must be; None accepts any number."""
    name: str | None = None
    """The name that people read."""

    @property
    def text(self) -> str:
        """The declaration as one text, which ``parse_proxy`` reads back."""
        config = f"#{_quote_name(self.config, is_fact=True)}" if self.config else ""
        encoding = f"#encoding={self.encoding}" if self.encoding else ""
        n_classes = f"#n_classes={self.n_classes}" if self.n_classes is not None else ""
        name = f"#name={self.name}" if self.name else ""
        revision = f"@{_quote_name(self.revision)}" if self.revision else ""
        columns = f"{_quote_part(self.input)}->{_quote_part(self.label)}"
        where = f"{_quote_name(self.path)}{config}{encoding}{n_classes}{name}{revision}"
        return f"{where}[{_quote_part(self.split)}]:{columns}"

    @property
    def is_local(self) -> bool:
        """Whether the path is a file or folder, not a hub id."""
        return is_local_path(self.path)

    def absolute(self) -> "Declaration":
        """The declaration with an absolute path; relative paths start in the working folder.

        For a data set of the hub without a split, the split is ``train``.
        """
        if not self.is_local:
            return self if self.split else replace(self, split="train")
        return replace(self, path=absolute_path(self.path))


def _quote_name(part: str, is_fact: bool = False) -> str:
    is_plain = PLAIN_NAME.fullmatch(part) and part == part.strip() and not (is_fact and "=" in part)
    return part if is_plain else json.dumps(part, ensure_ascii=False)


def _quote_part(part: str) -> str:
    is_plain = part == part.strip() and not any(sign in part for sign in ('"', "]:", "->", "\n"))
    return part if is_plain else json.dumps(part, ensure_ascii=False)


def _unquote(part: str | None) -> str:
    """The part without its quotes.

    Raises:
        ValueError: if it is not a JSON string.
    """
    stripped = (part or "").strip()
    return str(json.loads(stripped, strict=False)) if stripped.startswith('"') else stripped


def parse_proxy(text: str) -> Declaration | None:
    """Returns the declaration that a text writes, or None if it is not a declaration."""
    match = TEXT.fullmatch(text.strip())
    if match is None:
        return None
    try:
        facts = dict(_read_facts(match["facts"]))
        path, revision, split = (_unquote(match[key]) for key in ("path", "revision", "split"))
        input_column, label_column = _unquote(match["input"]), _unquote(match["label"])
        n_classes = int(facts["n_classes"]) if "n_classes" in facts else None
    except ValueError:
        return None
    config, encoding, name = (facts.get(key) or None for key in ("config", "encoding", "name"))
    return Declaration(
        path=path,
        input=input_column,
        label=label_column,
        split=split,
        config=config,
        revision=revision or None,
        encoding=encoding,
        n_classes=n_classes,
        name=name,
    )


def _read_facts(text: str) -> Iterator[tuple[str, str]]:
    """The names and values that follow the path: ``#encoding=latin-1``, ``#n_classes=1``; anything else is the config."""
    for fact in FACT.findall(text):
        key, sign, value = fact.partition("=")
        if sign and key.strip() in FACTS and not fact.startswith('"'):
            yield key.strip(), value.strip()
        else:
            yield "config", _unquote(fact)


def as_text(value: object) -> object:
    """Returns a mapping with path, split, input and label as a declaration's text; any other value stays as it is.

    Without a split, a file or folder is read whole; a hub id means its ``train`` split.

    Raises:
        ValueError: saying what is wrong with the mapping.
    """
    if not isinstance(value, Mapping):
        return value
    for key in value:
        if key not in KEYS:
            raise ValueError(f"a proxy's declaration has no {key!r}. {hint(str(key), KEYS)}")
    missing = [key for key in ("path", "input", "label") if value.get(key) in (None, "")]
    if missing:
        raise ValueError(f"a proxy's declaration needs path, input and label; {', '.join(missing)} is missing")
    given = {key: str(part) for key, part in value.items() if part is not None and key != "n_classes"}
    problem = explain_declared_name(value.get("name"))
    if problem:
        raise ValueError(problem)
    n_classes = value.get("n_classes")
    if n_classes is not None and (isinstance(n_classes, bool) or not isinstance(n_classes, int)):
        raise ValueError(f"n_classes {n_classes!r} is not a whole number")
    return Declaration(**{"split": "", **given}, n_classes=n_classes).text


def explain_declared_name(name: object) -> str | None:
    """Returns why a declaration cannot have this name; None if it can, or if it has no name."""
    if name is None:
        return None
    problem = explain_name(name)
    if problem:
        return problem.rstrip(".")
    reserved = [character for character in RESERVED_CHARACTERS if character in str(name)]
    if not reserved:
        return None
    rule = f"A name must not contain any of {' '.join(RESERVED_CHARACTERS)}"
    return f"the name {name!r} contains {' '.join(reserved)}. {rule}"


def explain_declaration(declared: Declaration) -> list[str]:
    """Returns what is wrong with a declaration, whatever its files contain; empty if nothing is."""
    wrong_name = explain_declared_name(declared.name)
    if wrong_name:
        return [f"{wrong_name}."]
    problem = explain_impossible_path(declared.path)
    if problem:
        return [problem]
    problems = []
    named = [key for key in ("config", "revision") if getattr(declared, key)]
    if declared.is_local and named:
        problems.append(
            f"{declared.path} is a file or folder, which has no {' or '.join(named)}. If # or @ belongs to the path, put"
            " the path in double quotes, or write the proxy as {path: ..., input: ..., label: ...}."
        )
    if declared.encoding is not None and not _is_text_encoding(declared.encoding):
        problems.append(
            f"there is no encoding {declared.encoding!r}. Use one of Python's names, such as latin-1 or utf-16."
        )
    if declared.n_classes is not None and declared.n_classes < 1:
        problems.append(f"n_classes = {declared.n_classes}: there must be at least one class.")
    return problems


def _is_text_encoding(name: str) -> bool:
    try:
        b"a".decode(name)
    except LookupError:
        return False
    except ValueError:  # in this encoding, a single letter is not a text
        return True
    return codecs.lookup(name).name not in ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined")


# Tasks --------------------------------------------------------------------------------------------

TASK_KEYS = (
    "path", "kind", "sample_shape", "output_shape", "input", "target", "group", "test", "loss", "metric", "normalise",
    "val_share", "test_share", "layout", "name",
)  # fmt: skip
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Largest numbers of bytes of a file's name and of a whole path, on Linux."""
TASK_NEEDS = ("path", "kind", "sample_shape", "output_shape")


@dataclass(frozen=True, kw_only=True)
class TaskDeclaration:
    """A user's own task: where its samples are, and what they are.

    Its text is the path followed by ``key=value`` in alphabetical order, quoted as in a shell.
    """

    path: str
    kind: str
    sample_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input: str = "x"
    target: str = "y"
    group: str | None = None
    test: str | None = None
    loss: str | None = None
    metric: str | None = None
    normalise: str | None = None
    val_share: float = 0.1
    test_share: float = 0.1
    layout: str | None = None
    """The order of axes in the file, ``channels-first`` or ``channels-last``; None means first, unless that is unlikely."""
    name: str | None = None
    """The name that people read."""

    @property
    def text(self) -> str:
        """The declaration as one text."""
        parts = [self.path]
        for key in sorted(TASK_KEYS[1:]):
            value = getattr(self, key)
            if value != TaskDeclaration.__dataclass_fields__[key].default and value is not None:
                parts.append(f"{key}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}")
        return shlex.join(parts)

    def absolute(self) -> "TaskDeclaration":
        """The declaration with absolute paths; relative paths start in the working folder."""
        test = None if self.test is None else absolute_path(self.test)
        return replace(self, path=absolute_path(self.path), test=test)


def is_task_text(name: str) -> bool:
    """Whether a task's name is written as a declaration."""
    return " kind=" in name


@lru_cache(maxsize=1024)  # thousands of cells ask for one task
def parse_task(text: str) -> TaskDeclaration:
    """Returns the declaration that a text writes.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        path, *pairs = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{str(error).lower()}. Quote the path as in a shell") from None
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not key=value")
    return _read_task({"path": path, **dict(pair.split("=", 1) for pair in pairs)})


def task_as_text(value: object) -> object:
    """Returns a mapping that declares a task as its text; any other value stays as it is.

    Raises:
        ValueError: saying what is wrong with the mapping.
    """
    return _read_task(value).text if isinstance(value, Mapping) else value


def _read_task(raw: Mapping[str, object]) -> TaskDeclaration:
    for key in raw:
        if key not in TASK_KEYS:
            raise ValueError(f"a task's declaration has no {key!r}. {hint(str(key), TASK_KEYS)}")
    given = {key: value for key, value in raw.items() if value is not None}
    missing = [key for key in TASK_NEEDS if key not in given]
    if missing:
        raise ValueError(f"a task's declaration needs {', '.join(TASK_NEEDS)}; {', '.join(missing)} is missing")
    if str(given["path"]).endswith(".npy") and "input" in given:
        raise ValueError("input is the .npy file itself: leave it out")
    problem = explain_declared_name(given.get("name"))
    if problem:
        raise ValueError(problem)
    fields: dict[str, object] = {}
    for key in ("path", "test"):
        _check_path(key, str(given.get(key, "")))
    for key, part in given.items():
        if key in ("sample_shape", "output_shape"):
            fields[key] = _read_shape(key, part)
        elif key in ("val_share", "test_share"):
            fields[key] = _read_share(key, part)
        else:
            fields[key] = ",".join(map(str, part)) if isinstance(part, list) else str(part)
    return TaskDeclaration(**fields)  # type: ignore[arg-type]


def _check_path(key: str, path: str) -> None:
    """Rejects a text that no file system accepts as a path."""
    shown = path if len(path) <= 60 else f"{path[:60]}..."
    if "\0" in path:
        raise ValueError(f"{key} {shown!r} contains a NUL character. No file name does")
    try:
        parts = [part.encode() for part in path.split("/")]
    except UnicodeEncodeError:
        raise ValueError(f"{key} {shown!r} is not UTF-8. Rename the file") from None
    longest = max(map(len, parts))
    if longest > LONGEST_NAME or len(path.encode()) >= LONGEST_PATH:
        raise ValueError(
            f"{key} {shown!r} contains a name of {longest} bytes, and has {len(path.encode())} in all. A name may have at"
            f" most {LONGEST_NAME} bytes, and a path fewer than {LONGEST_PATH}. Shorten it"
        )


def _read_shape(key: str, value: object) -> tuple[int, ...]:
    parts = value if isinstance(value, list | tuple) else str(value).split("x")
    try:
        shape = tuple(int(str(part)) for part in parts)
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(f"{key} {value!r} is not a shape. Write [3, 32, 32], or 3x32x32")
    return shape


def _read_share(key: str, value: object) -> float:
    try:
        share = float(str(value))
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ValueError(f"{key} {value!r} is not a share of the samples. It must be above 0 and below 1")
    return share


PACKED = (".gz", ".bz2", ".xz", ".zst")


def without_shuffling(name: str) -> str:
    """Returns a proxy's name with its real labels: without each ``shuffled:`` before it."""
    while name.startswith(SHUFFLED):
        name = name.removeprefix(SHUFFLED)
    return name


def without_path(name: str) -> str:
    """Returns the name of a user's own task, proxy or body without the folders and names of its files.

    What decides how they are read stays: their ending and all settings.
    """
    return _with_paths(name, lambda path, own_name: _find_ending(path))


def without_folder(name: str) -> str:
    """Returns the name of a user's own task, proxy or body without folders: its given name, or that of its files."""
    return _with_paths(name, lambda path, own_name: _find_ending(path) if own_name else Path(path).name)


def _with_paths(name: str, change: Callable[[str, str | None], str]) -> str:
    """The text with its paths changed by a function of the path and the declaration's name."""
    if name.startswith(SHUFFLED):
        return SHUFFLED + _with_paths(name.removeprefix(SHUFFLED), change)
    if is_task_text(name):
        task = parse_task(name)
        test = None if task.test is None else change(task.test, task.name)
        return replace(task, path=change(task.path, task.name), test=test).text
    proxy = parse_proxy(name)
    if proxy is not None:
        return replace(proxy, path=change(proxy.path, proxy.name)).text
    return change(name, None) if name.startswith("/") else name


def _find_ending(path: str) -> str:
    """``*`` and a file's ending in lower case, such as '*.csv.gz'; ``*`` alone for a folder."""
    suffixes = Path(path).suffixes[-2:]
    kept = suffixes if suffixes and suffixes[-1].lower() in PACKED else suffixes[-1:]
    return "*" + "".join(kept).lower()
