"""A data set of the user's own as one text: where its samples and labels are. No data is touched here.

fancyzhx/ag_news[train]:text->label              a hub id, its split, its input and its label column
org/name#config@revision[train[:2000]]:img->fine_label
./folder[train]:image->label                     parquet, CSV, JSON or image folders
./eng.train.conll[train]:0->3                    CoNLL columns: numbers of the token's and the tag's column
./features.npz[train]:x->y                       features made beforehand for one width of body
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orca_sweep.registry import hint

TEXT = re.compile(
    r"(?P<path>[^\[\]#@]+)(?:#(?P<config>[^\[\]#@]+))?(?:@(?P<revision>[^\[\]#]+))?\[(?P<split>.*)\]:(?P<input>.+)->(?P<label>.+)"
)
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
