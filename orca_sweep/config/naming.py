"""The names of tasks and proxies that people read: for a declaration a short name, never a path with settings."""

import hashlib
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from orca_sweep.config.declaration import (
    Declaration,
    TaskDeclaration,
    is_task_text,
    parse_proxy,
    parse_task,
    without_shuffling,
)

Declared = Declaration | TaskDeclaration
DECLARED_FACTORS = ("task", "proxy")
"""Fields whose levels may be declarations, which are shown by their names."""
DECLARED_FIELDS = (*DECLARED_FACTORS, "body.name")
"""Fields that may name the user's own data."""
DIGITS = 4
"""Of a hash, where nothing else distinguishes two declarations."""


def find_declaration(text: str) -> Declared | None:
    """Returns the declaration in the name of a task or proxy, labels permuted or not; None for a registered name."""
    if is_task_text(text):
        try:
            return parse_task(text)
        except ValueError:
            return None
    return parse_proxy(without_shuffling(text))


@lru_cache(maxsize=1024)  # thousands of cells ask for the same task
def label_of(text: str) -> str:
    """Returns the label of a single task or proxy: its own name, or else that of its file or folder."""
    return label_declarations([text])[text]


def label_declarations(texts: Iterable[str]) -> dict[str, str]:
    """Returns a different label for each task and proxy.

    A declaration has the name that it gives itself, or else that of its file, with as much of its folder or settings as
    is needed to distinguish it. Registered names are their own labels.
    """
    names = list(dict.fromkeys(texts))
    declared = {
        without_shuffling(text): declaration for text in names if (declaration := find_declaration(text)) is not None
    }
    taken = {without_shuffling(text) for text in names} - declared.keys()
    labels = {text: declaration.name for text, declaration in declared.items() if declaration.name}
    unnamed: dict[str, dict[str, Declared]] = {}
    for text, declaration in declared.items():
        if text not in labels:
            unnamed.setdefault(_shorten_path(declaration), {})[text] = declaration
    for name, alike in unnamed.items():
        labels |= _distinguish(name, alike, {*taken, *labels.values()})
    # Two declarations may still share a name that they give themselves: planning reports that.
    return {text: _keep_shuffles(text) + labels.get(without_shuffling(text), without_shuffling(text)) for text in names}


def shorten_paths(paths: Iterable[str]) -> dict[str, str]:
    """Returns the last word of each dotted name, or the whole name if another one has the same last word."""
    names = list(dict.fromkeys(paths))
    last = [name.rpartition(".")[2] for name in names]
    return {name: word if last.count(word) == 1 else name for name, word in zip(names, last, strict=True)}


def explain_shared_names(texts: Iterable[str], kind: str) -> list[str]:
    """Returns an error for each name that two different declarations give themselves; the error describes both."""
    named: dict[str, dict[str, Declared]] = {}
    for text in texts:
        declaration = find_declaration(text)
        if declaration is not None and declaration.name:
            named.setdefault(declaration.name, {})[without_shuffling(text)] = declaration
    return [
        f"{kind} name {name!r}: different declarations share it: {' and '.join(map(_describe_fully, same.values()))}."
        " A name belongs to one declaration. Give each its own name."
        for name, same in named.items()
        if len(same) > 1
    ]


def _keep_shuffles(text: str) -> str:
    return text.removesuffix(without_shuffling(text))


def _shorten_path(declaration: Declared) -> str:
    """A file's name; a folder's or a hub id's with its parent after a blank, which no registered name contains."""
    path = Path(declaration.path)
    parent = path.parent.name
    return path.name if path.suffix or not parent else f"{path.name} ({parent})"


def _distinguish(name: str, alike: Mapping[str, Declared], taken: Collection[str]) -> dict[str, str]:
    """Labels for declarations that share a short name."""
    paths = {text: Path(declaration.path) for text, declaration in alike.items()}
    settings = _differing_settings(alike)
    digests = {text: hashlib.sha256(text.encode()).hexdigest()[:DIGITS] for text in alike}
    forms = (
        dict.fromkeys(alike, name),
        {text: f"{path.name} ({path.parent.name})" for text, path in paths.items()},
        {text: f"{paths[text].name} ({words})" for text, words in settings.items()},
        {text: f"{path.name} ({path.parent.name}, {digests[text]})" for text, path in paths.items()},
    )
    for form in forms:
        if len(set(form.values())) == len(alike) and not set(form.values()) & set(taken):
            return form
    return dict(forms[-1])


def _differing_settings(alike: Mapping[str, Declared]) -> dict[str, str]:
    """For each declaration, the settings that differ between them: 'normalise channel, test_share 0.2'."""
    fields = {
        text: {key: value for key, value in asdict(declaration).items() if key not in ("path", "name")}
        for text, declaration in alike.items()
    }
    first = next(iter(fields.values()))
    differing = [key for key in first if len({repr(of.get(key)) for of in fields.values()}) > 1]
    return {text: ", ".join(f"{key} {_write_setting(of[key])}" for key in differing) for text, of in fields.items()}


def _write_setting(value: object) -> str:
    if value is None or value == "":
        return "default"
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def _describe_fully(declaration: Declared) -> str:
    """A declaration in full, for an error that must distinguish it from another."""
    values = asdict(declaration)
    fields = {key: value for key, value in values.items() if value is not None and key not in ("path", "name")}
    defaults = {key: field.default for key, field in type(declaration).__dataclass_fields__.items()}
    settings = [f"{key} {value}" for key, value in fields.items() if value != defaults.get(key)]
    return " ".join([shlex.quote(declaration.path), *([f"({', '.join(settings)})"] if settings else [])])
