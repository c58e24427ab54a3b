"""How tasks and proxies are called in what people read: a declaration by its name, never by a path with settings."""

import hashlib
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from orca_sweep.config.declaration import SHUFFLED, Declaration, TaskDeclaration, is_task_text, parse, parse_task

Declared = Declaration | TaskDeclaration
DECLARED_FACTORS = ("task", "proxy")
"""Fields whose levels may be declarations, which are called by their names."""
DECLARED_FIELDS = (*DECLARED_FACTORS, "body.name")
"""Fields that may name the user's own data."""
DIGITS = 4
"""Of a hash, where nothing else tells two declarations apart."""


def find_declaration(text: str) -> Declared | None:
    """Returns the declaration that a task's or a proxy's name is, labels permuted or not; None for a registered name."""
    if is_task_text(text):
        try:
            return parse_task(text)
        except ValueError:
            return None
    return parse(_plain(text))


@lru_cache(maxsize=1024)  # thousands of cells ask for one task
def label_of(text: str) -> str:
    """Returns what a task or proxy is called where it stands alone: its own name, else that of its file or folder."""
    return label_declarations([text])[text]


def label_declarations(texts: Iterable[str]) -> dict[str, str]:
    """Returns what each task or proxy is called, no two of them alike: by the name that its declaration gives it, else by
    its file, with as much of its folder or its settings as tells it apart. Registered names stand for themselves.
    """  # fmt: skip  # noqa: D205
    asked = list(dict.fromkeys(texts))
    declared = {_plain(text): found for text in asked if (found := find_declaration(text)) is not None}
    taken = {_plain(text) for text in asked} - declared.keys()
    labels = {text: found.name for text, found in declared.items() if found.name}
    unnamed: dict[str, dict[str, Declared]] = {}
    for text, found in declared.items():
        if text not in labels:
            unnamed.setdefault(_short_name(found), {})[text] = found
    for name, alike in unnamed.items():
        labels |= _tell_apart(name, alike, {*taken, *labels.values()})
    # One declaration may stand there in several texts, as with a name that two of them have: that is said at plan time.
    return {text: _shuffles(text) + labels.get(_plain(text), _plain(text)) for text in asked}


def explain_shared_names(texts: Iterable[str], kind: str) -> list[str]:
    """Returns an error for each name that two different declarations give themselves; both are named."""
    named: dict[str, dict[str, Declared]] = {}
    for text in texts:
        found = find_declaration(text)
        if found is not None and found.name:
            named.setdefault(found.name, {})[_plain(text)] = found
    return [
        f"{kind} name {name!r}: it stands for different declarations: {' and '.join(map(_describe, same.values()))}."
        " One name is one declaration. Give each a name of its own."
        for name, same in named.items()
        if len(same) > 1
    ]


def _plain(text: str) -> str:
    while text.startswith(SHUFFLED):
        text = text.removeprefix(SHUFFLED)
    return text


def _shuffles(text: str) -> str:
    return text.removesuffix(_plain(text))


def _short_name(found: Declared) -> str:
    """A file's name; a folder's or a hub id's with what is before it: no registered name has blanks."""
    path = Path(found.path)
    parent = path.parent.name
    return path.name if path.suffix or not parent else f"{path.name} ({parent})"


def _tell_apart(name: str, alike: Mapping[str, Declared], taken: Collection[str]) -> dict[str, str]:
    """Labels of declarations of one short name."""
    paths = {text: Path(found.path) for text, found in alike.items()}
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
    """Of each declaration the settings in which it differs from others: 'normalise channel, test_share 0.2'."""
    fields = {
        text: {k: v for k, v in asdict(found).items() if k not in ("path", "name")} for text, found in alike.items()
    }
    first = next(iter(fields.values()))
    differing = [key for key in first if len({repr(of.get(key)) for of in fields.values()}) > 1]
    return {text: ", ".join(f"{key} {_setting(of[key])}" for key in differing) for text, of in fields.items()}


def _setting(value: object) -> str:
    if value is None or value == "":
        return "default"
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def _describe(found: Declared) -> str:
    """A declaration in full, for an error that must tell it from another."""
    fields = {key: value for key, value in asdict(found).items() if value is not None and key not in ("path", "name")}
    defaults = {key: field.default for key, field in type(found).__dataclass_fields__.items()}
    settings = [f"{key} {value}" for key, value in fields.items() if value != defaults.get(key)]
    return " ".join([shlex.quote(found.path), *([f"({', '.join(settings)})"] if settings else [])])
