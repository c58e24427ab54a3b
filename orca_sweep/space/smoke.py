"""The smoke form of a space: the same space in small, to see that everything runs before hours are spent.

Its key ``smoke`` holds keys that replace those of the space. A smoke sweep has its own name and other trial ids: nothing of it
is taken for a result.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orca_sweep.errors import Problem
from orca_sweep.space.documents import Document, Keys
from orca_sweep.space.levels import walk_fields

KEY = "smoke"
SUFFIX = "-smoke"
"""Of the name of a smoke sweep."""
MERGED = ("base", "factors")
"""Keys whose fields are replaced one by one; any other key is replaced as a whole."""
KEPT = ("name", KEY)
"""Keys that a smoke form cannot replace."""


def has_smoke_form(document: Document) -> bool:
    """Returns whether a space says what its smoke form is."""
    return isinstance(document.content, dict) and bool(document.content.get(KEY))


def find_smoke_problems(document: Document, *, is_asked: bool) -> Iterator[tuple[Keys, Problem]]:
    """Yields what is wrong with the key itself, each with the path in the document of what to correct.

    Args:
        document: the space.
        is_asked: whether the smoke form is to be planned, which a space without one does not have.
    """
    if not has_smoke_form(document):
        if is_asked:
            rule = "this space does not say what its smoke form is, and nothing is guessed."
            remedy = f"Add a key such as '{KEY}: {_suggest_form(document)}': keys that replace those of the space."
            yield (), Problem(field=KEY, rule=rule, remedy=remedy)
        return
    for key in _read_form(document):
        if key in KEPT:
            rule = f"a smoke form cannot replace the key {key!r}."
            yield (KEY, key), Problem(field=f"{KEY}.{key}", rule=rule, remedy="Remove it.")


def apply_smoke(document: Document) -> Document:
    """Returns a space with the keys of its smoke form; every value keeps its line."""
    content: dict[str, Any] = dict(document.content) if isinstance(document.content, dict) else {}
    form = {key: value for key, value in _read_form(document).items() if key not in KEPT}
    moves: dict[Keys, Keys] = {}
    for key, value in form.items():
        own = content.get(key)
        if key in MERGED and isinstance(value, dict) and isinstance(own, dict):
            content[key] = {}
            for start, fields in (((key,), own), ((KEY, key), value)):
                for field, keys, setting in walk_fields(fields):
                    content[key][field] = setting
                    moves[key, field] = (*start, *keys)
        else:
            content[key] = value
            moves[key,] = (KEY, key)
    del content[KEY]
    return Document(path=document.path, content=content, lines=_move_lines(document.lines, moves))


def _read_form(document: Document) -> Mapping[str, Any]:
    form = document.content.get(KEY) if isinstance(document.content, dict) else None
    return form if isinstance(form, dict) else {}


def _move_lines(lines: Mapping[Keys, int], moves: Mapping[Keys, Keys]) -> dict[Keys, int]:
    """Returns the lines of all values, under the paths at which the smoke form puts them."""
    targets = {origin: target for target, origin in moves.items()}
    moved: dict[Keys, int] = {}
    for keys, line in lines.items():
        origin = next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in targets), None)
        if origin is not None:
            moved[(*targets[origin], *keys[len(origin) :])] = line
    replaced = [target for target in moves if len(target) == 1]
    return {keys: line for keys, line in lines.items() if keys[:1] not in replaced} | moved


def _suggest_form(document: Document) -> str:
    """Returns a smoke form that may suit a space: two seeds, one epoch of fine-tuning, few of embedder training."""
    content: dict[str, Any] = document.content if isinstance(document.content, dict) else {}
    factors = content.get("factors")
    by_field = {field: value for field, _, value in walk_fields(factors)} if isinstance(factors, dict) else {}
    parts = ["seeds: 2"]
    parts += [] if "finetune.epochs" in by_field else ["base: {finetune.epochs: 1}"]
    levels = by_field.get("embedder.epochs")
    if isinstance(levels, list):
        parts.append(f"factors: {{embedder.epochs: {list(range(len(levels)))}}}")
    return f"{{{', '.join(parts)}}}"
