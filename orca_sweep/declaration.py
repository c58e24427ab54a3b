"""A data set of the user's own as one text: where its samples and labels are. No data is touched here.

fancyzhx/ag_news[train]:text->label              a hub id, its split, its input and its label column
org/name#config@revision[train[:2000]]:img->fine_label
./folder[train]:image->label                     parquet, CSV, JSON or image folders
./eng.train.conll[train]:0->3                    CoNLL columns: numbers of the token's and the tag's column
./features.npz[train]:x->y                       features made beforehand for one width of body
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orca_sweep.registry import hint

TEXT = re.compile(
    r"(?P<path>[^\[\]#@]+)(?:#(?P<config>[^\[\]#@]+))?(?:@(?P<revision>[^\[\]#]+))?\[(?P<split>.*)\]:(?P<input>.+)->(?P<label>.+)"
)
SHUFFLED = "shuffled:"
"""Before a proxy's name: the same data with its labels permuted."""
KEYS = ("path", "config", "revision", "split", "input", "label")


def is_local_path(name: str) -> bool:
    """Whether a name means a file or folder, and no hub id: it is written as one, or is there."""
    try:
        return bool(name) and (name.startswith((".", "/", "~")) or Path(name).exists())
    except OSError:  # longer than a path can be
        return False


@dataclass(frozen=True)
class Declaration:
    """Where a proxy's samples and labels are."""

    path: str
    input: str
    label: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None

    @property
    def text(self) -> str:
        """The declaration as one text."""
        config = f"#{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.path}{config}{revision}[{self.split}]:{self.input}->{self.label}"

    @property
    def is_local(self) -> bool:
        """Whether the path is a file or folder, and no hub id."""
        return is_local_path(self.path)

    def absolute(self) -> "Declaration":
        """The declaration with its file or folder counted from the working folder."""
        path = str(Path(self.path).expanduser().resolve()) if self.is_local else self.path
        return replace(self, path=path)


def parse(text: str) -> Declaration | None:
    """Returns the declaration of a text, or None if it is not written as one."""
    found = TEXT.fullmatch(text)
    if found is None:
        return None
    parts = {key: (value or "").strip() for key, value in found.groupdict().items()}
    return Declaration(
        parts["path"],
        parts["input"],
        parts["label"],
        parts["split"],
        parts["config"] or None,
        parts["revision"] or None,
    )


def as_text(value: object) -> object:
    """Returns a mapping with path, split, input and label as a declaration's text; anything else stays.

    Raises:
        ValueError: saying what is wrong with the mapping.
    """
    if not isinstance(value, Mapping):
        return value
    for key in value:
        if key not in KEYS:
            raise ValueError(f"a proxy's declaration has no {key!r}. {hint(str(key), KEYS)}")
    missing = [key for key in ("path", "input", "label") if not value.get(key)]
    if missing:
        raise ValueError(f"a proxy's declaration needs path, input and label; {', '.join(missing)} is missing")
    return Declaration(**{key: str(part) for key, part in value.items() if part is not None}).text


# Tasks --------------------------------------------------------------------------------------------

TASK_KEYS = (
    "path", "kind", "sample_shape", "output_shape", "input", "target", "group", "test", "loss", "metric", "normalise",
    "val_share", "test_share", "layout",
)  # fmt: skip
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes of a file's name and of a whole path, on Linux."""
TASK_NEEDS = ("path", "kind", "sample_shape", "output_shape")


@dataclass(frozen=True)
class TaskDeclaration:
    """A user's own task: where its samples are, and what they are.

    As a text it is the path followed by ``key=value`` in alphabetic order, quoted as in a shell.
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
    """Where the channels are in the file: ``channels-first`` or ``channels-last``; None: first, unless that is unlikely."""

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
        """The declaration with its files counted from the working folder."""
        path = Path(self.path).expanduser().resolve()
        test = None if self.test is None else str(Path(self.test).expanduser().resolve())
        return replace(self, path=str(path), test=test)


def is_task_text(name: str) -> bool:
    """Whether a task's name is written as a declaration."""
    return " kind=" in name


def parse_task(text: str) -> TaskDeclaration:
    """Returns the declaration of a text.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        path, *pairs = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{str(error).lower()}. Quote the path as in a shell") from None
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no key=value")
    return _task({"path": path, **dict(pair.split("=", 1) for pair in pairs)})


def task_as_text(value: object) -> object:
    """Returns a mapping that declares a task as its text; anything else stays.

    Raises:
        ValueError: saying what is wrong with the mapping.
    """
    return _task(value).text if isinstance(value, Mapping) else value


def _task(raw: Mapping[str, object]) -> TaskDeclaration:
    for key in raw:
        if key not in TASK_KEYS:
            raise ValueError(f"a task's declaration has no {key!r}. {hint(str(key), TASK_KEYS)}")
    given = {key: value for key, value in raw.items() if value is not None}
    missing = [key for key in TASK_NEEDS if key not in given]
    if missing:
        raise ValueError(f"a task's declaration needs {', '.join(TASK_NEEDS)}; {', '.join(missing)} is missing")
    if str(given["path"]).endswith(".npy") and "input" in given:
        raise ValueError("input is the .npy file itself: leave it out")
    fields: dict[str, object] = {}
    for key in ("path", "test"):
        _check_path(key, str(given.get(key, "")))
    for key, part in given.items():
        if key in ("sample_shape", "output_shape"):
            fields[key] = _shape(key, part)
        elif key in ("val_share", "test_share"):
            fields[key] = _share(key, part)
        else:
            fields[key] = ",".join(map(str, part)) if isinstance(part, list) else str(part)
    return TaskDeclaration(**fields)  # type: ignore[arg-type]


def _check_path(key: str, path: str) -> None:
    """Refuses what no file system takes as a path."""
    shown = path if len(path) <= 60 else f"{path[:60]}..."
    if "\0" in path:
        raise ValueError(f"{key} {shown!r} holds a NUL character. No file has such a name")
    try:
        parts = [part.encode() for part in path.split("/")]
    except UnicodeEncodeError:
        raise ValueError(f"{key} {shown!r} is not UTF-8. Rename the file") from None
    longest = max(map(len, parts))
    if longest > LONGEST_NAME or len(path.encode()) >= LONGEST_PATH:
        raise ValueError(
            f"{key} {shown!r} has a name of {longest} bytes, {len(path.encode())} in all. A name has at most"
            f" {LONGEST_NAME} bytes, a path less than {LONGEST_PATH}. Correct it"
        )


def _shape(key: str, value: object) -> tuple[int, ...]:
    parts = value if isinstance(value, list | tuple) else str(value).split("x")
    try:
        shape = tuple(int(str(part)) for part in parts)
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(f"{key} {value!r} is no shape. Write [3, 32, 32], or 3x32x32")
    return shape


def _share(key: str, value: object) -> float:
    try:
        share = float(str(value))
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ValueError(f"{key} {value!r} is no share of the samples. It is above 0 and below 1")
    return share


def task_label(name: str) -> str:
    """Returns a task's name for people: of a declared one, its file's name."""
    return Path(shlex.split(name)[0]).name if is_task_text(name) else name
