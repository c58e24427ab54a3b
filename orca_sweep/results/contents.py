"""Results belong to the data that they came from: contents that differ are told apart, in tables and before a launch."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.config import CONTENT_OF, CONTENTS
from orca_sweep.config.declaration import without_folder, without_path
from orca_sweep.config.naming import label_declarations
from orca_sweep.data.contents import SHOWN_DIGITS
from orca_sweep.errors import InputError
from orca_sweep.results.records import record_path
from orca_sweep.space import Plan
from orca_sweep.space.manifest import read_manifest

if TYPE_CHECKING:
    import pandas as pd

SPLIT = re.compile(rf"-[0-9a-f]{{{SHOWN_DIGITS}}}(?=-aa$|-|$)")
CODE = "content.code"
NOUNS = {"content.task": "task", "content.proxy": "proxy", "content.body": "body", CODE: "code"}
Config = Mapping[str, Any]


def unify_folders(plans: Iterable[dict[str, Any]]) -> None:
    """Gives tasks, proxies and bodies of one content and the same settings one path, the first, wherever they lay.

    Args:
        plans: dotted settings of trials; changed in place.
    """
    first: dict[tuple[str, str, str], str] = {}
    for plan in plans:
        for content, column in CONTENT_OF.items():
            if plan.get(content) is not None:
                key = (column, without_path(plan[column]), plan[content])
                plan[column] = first.setdefault(key, plan[column])


def tell_contents_apart(rows: Sequence[dict[str, Any]]) -> None:
    """Adds the content to each name of a task, proxy or body that stands for several: 'mine.npz [content 1a2b3c4d]'.

    A name that stands for one content stays as it is. Code that differs is told by the task, and so is the content of a
    proxy or a body that all trials of the task have: nothing may be compared across it.

    Args:
        rows: rows of the trials table; changed in place.
    """
    _mark_several(rows, "task", "content.task", "content")
    _mark_several(rows, "task", CODE, "code")
    for content in ("content.proxy", "content.body"):
        of_task: dict[str | None, list[dict[str, Any]]] = {}
        for row in rows:
            of_task.setdefault(row.get("task"), []).append(row)
        left: list[dict[str, Any]] = []
        for same in of_task.values():
            if len({row.get(CONTENT_OF[content]) for row in same}) == 1:
                _mark_several(same, "task", content, NOUNS[content])
            else:
                left += same
        _mark_several(left, CONTENT_OF[content], content, "content")


def _mark_several(rows: Sequence[dict[str, Any]], column: str, content: str, word: str) -> None:
    contents: dict[str, set[str | None]] = {}
    for row in rows:
        if row.get(column) is not None:
            contents.setdefault(row[column], set()).add(row.get(content))
    for row in rows:
        if len(contents.get(row.get(column) or "", ())) > 1:
            digest = row.get(content)
            row |= _rename(row, column, f"[{word} {digest[:SHOWN_DIGITS] if digest else 'not known'}]")


MARK = re.compile(rf" \[(content|code|proxy|body) ([0-9a-f]{{{SHOWN_DIGITS}}}|not known)\]$")


def find_split_columns(trials: "pd.DataFrame") -> list[str]:
    """Returns of task, proxy and body those in which some name stands for several contents, so that cells differ in it."""
    marked = [column for column in CONTENT_OF.values() if f"{column}_declared" in trials]
    return [column for column in marked if any(MARK.search(str(name)) for name in trials[column].unique())]


def _rename(row: Mapping[str, Any], column: str, mark: str) -> dict[str, Any]:
    """A row's name with a mark behind it, and the column that keeps what stood in the plan."""
    return {column: f"{row[column]} {mark}", f"{column}_declared": row.get(f"{column}_declared") or row[column]}


MEASURED = (("data_sha256", "task", ("data-split", "everything")), ("proxy_sha256", "proxy", ()))
"""Hashes of data as they were loaded, what they are of, and the levels of ``seed_varies`` at which seeds differ in them."""
MACHINE = ("host", "device", "n_threads", "versions")


def split_mixed_cells(rows: Sequence[dict[str, Any]]) -> None:
    """Splits cells whose trials loaded different data under one name, as by a file exchanged below ``--data``.

    Data that are computed may differ in their last bits between machines. Where one machine loaded different data for one
    cell, the content did change: each content is a task, or proxy, and a cell of its own then. A trial that loaded nothing
    counts as the newest.

    Args:
        rows: whole rows of the trials table; changed in place.
    """
    for column, name, free in MEASURED:
        changed = _changed_names(rows, column, name, free)
        newest: dict[str, tuple[str, str]] = {}
        for row in rows:
            if row.get(name) in changed and row.get(column):
                # Records write moments with a T, tables give them without.
                ended = str(row.get("ended_at") or "").replace("T", " ")
                newest[row["cell_id"]] = max(newest.get(row["cell_id"], ("", "")), (ended, row[column]))
        for row in rows:
            digest = row.get(column) or newest.get(row["cell_id"], ("", None))[1]
            if row.get(name) in changed and digest:
                row |= _content_of_its_own(row, name, digest[:SHOWN_DIGITS])


def _changed_names(rows: Iterable[Mapping[str, Any]], column: str, name: str, free: Sequence[str]) -> set[str]:
    """The tasks or proxies for which one machine loaded different data in one cell."""
    loaded: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        if row.get(column) and row.get(name) and row.get("seed_varies") not in free:
            key = (row[name], row["cell_id"], *(row.get(part) for part in MACHINE))
            loaded.setdefault(key, set()).add(row[column])
    return {key[0] for key, digests in loaded.items() if len(digests) > 1}


def _content_of_its_own(row: Mapping[str, Any], name: str, digest: str) -> dict[str, str]:
    cell, mark, _ = row["cell_id"].partition("-aa")
    return {**_rename(row, name, f"[content {digest}]"), "cell_id": f"{cell}-{digest}{mark}"}


def without_split(cell_id: str) -> str:
    """Returns the id that a cell had before ``split_mixed_cells``."""
    return SPLIT.sub("", cell_id)


def find_earlier_trials(folder: Path, plan: Plan) -> list[Mapping[str, Any]]:
    """Returns the trials of a sweep folder whose data or code have another content now, and that have a record.

    They stay in the sweep's tables beside the trials of the new content. If the folder of a file has moved as well, they
    are known by the new one: their names then differ by content alone.

    Args:
        folder: the sweep folder; one that holds no sweep that can be read has no such trials.
        plan: what is to run there now.
    """
    configs = _configs_of(plan)
    paths = _current_paths(configs)
    return [
        {
            **{name: value for name, value in trial.items() if name != "on_the_way"},
            "config": _move(trial["config"], paths),
        }
        for trial in _list_earlier(folder, plan, configs)
        if record_path(folder, trial["trial_id"]).exists()
    ]


def has_earlier_content(folder: Path, plan: Plan) -> bool:
    """Says whether a sweep folder has planned trials that differ from those of the plan in content alone, run or not."""
    return bool(_list_earlier(folder, plan, _configs_of(plan)))


def _list_earlier(folder: Path, plan: Plan, configs: Sequence[Config]) -> list[Mapping[str, Any]]:
    """Trials of a sweep folder that differ from those of the plan in the content of a file or of code."""
    try:
        manifest = read_manifest(folder)
    except InputError:  # the launch tells of what is damaged
        manifest = None
    if manifest is None:
        return []
    ids = {trial.trial_id for trial in plan.trials}
    now, known = _current_contents(configs), set(map(_settings_of, configs))
    return [
        trial
        for trial in manifest.all_trials
        if trial["trial_id"] not in ids
        and any(True for _ in _changes(trial["config"], now))
        and (trial.get("on_the_way") or trial["role"] == "search" or _settings_of(trial["config"]) in known)
    ]


def find_earlier_levels(folder: Path, earlier: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Returns what the space wrote for the levels of earlier trials' cells: no label may differ by content alone."""
    cells = {trial["cell_id"].removesuffix("-aa") for trial in earlier}
    manifest = read_manifest(folder) if cells else None
    written = manifest.labels if manifest else {}
    return {cell_id: labels for cell_id, labels in written.items() if cell_id in cells}


def describe_changes(folder: Path, plan: Plan) -> list[str]:
    """Returns a line for each file and each code whose content has changed since trials of a sweep folder were run."""
    earlier, configs = find_earlier_trials(folder, plan), _configs_of(plan)
    now = _current_contents(configs) if earlier else {}
    counts: dict[tuple[str, str, str, str], int] = {}
    for trial in earlier:
        for change in _changes(trial["config"], now):
            counts[change] = counts.get(change, 0) + 1
    labels = label_declarations([name for _, name, _, _ in counts] + [name for _, name in now])
    labels |= {name: Path(label).name for name, label in labels.items() if Path(label).is_absolute()}  # bodies
    return [
        f"{NOUNS[content]} {labels[name]}: its content has changed since {_trials_were(n)} run ({old[:SHOWN_DIGITS]} then,"
        f" {new} now). They keep their rows, as cells of their own; the new content is run."
        for (content, name, old, new), n in counts.items()
    ]


def _trials_were(n: int) -> str:
    return "1 trial of this sweep was" if n == 1 else f"{n} trials of this sweep were"


def _configs_of(plan: Plan) -> list[Config]:
    return [config.flat() for config in (*plan.cells, *(c for cell in plan.tuned for c in cell.candidates))]


def _current_contents(configs: Iterable[Config]) -> dict[tuple[str, str], list[str]]:
    """The contents of now, by field and declaration."""
    contents: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        for content in CONTENTS:
            if config.get(content) is not None:
                contents.setdefault((content, _text_in(config, content)), []).append(config[content])
    return {key: list(dict.fromkeys(of)) for key, of in contents.items()}


def _current_paths(configs: Iterable[Config]) -> dict[tuple[str, str], set[str]]:
    """The declarations of now by what they are but for their folder."""
    paths: dict[tuple[str, str], set[str]] = {}
    for config in configs:
        for column in CONTENT_OF.values():
            paths.setdefault((column, without_folder(str(config[column]))), set()).add(config[column])
    return paths


def _move(config: Config, paths: Mapping[tuple[str, str], set[str]]) -> Config:
    """An earlier config with its files where the only ones of their names lie now; its id does not depend on that."""
    moved = dict(config)
    for content, column in CONTENT_OF.items():
        here = paths.get((column, without_folder(str(config.get(column)))), set())
        if config.get(content) is not None and len(here) == 1:
            moved[column] = next(iter(here))
    return moved


def _text_in(config: Config, content: str) -> str:
    """The declaration that a content is of."""
    return str(config.get(CONTENT_OF[content])) if content in CONTENT_OF else "that the space imports"


def _changes(config: Config, now: Mapping[tuple[str, str], Sequence[str]]) -> Iterator[tuple[str, str, str, str]]:
    """What of an earlier trial has another content now: the field, its declaration, the content then and now.

    If the declaration is not there any more, as in a folder that has moved, it is that of the same name.
    """
    for content in CONTENTS:
        old, text = config.get(content), _text_in(config, content)
        if old is None:
            continue
        new = now.get((content, text)) or _contents_of_name(content, text, now)
        if new and old not in new:
            yield content, text, str(old), " or ".join(digest[:SHOWN_DIGITS] for digest in new)


def _contents_of_name(content: str, text: str, now: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    name = without_folder(text)
    return [
        digest
        for (of, other), of_it in now.items()
        if of == content and without_folder(other) == name
        for digest in of_it
    ]


def _settings_of(config: Config) -> tuple[tuple[str, str], ...]:
    """All settings but the seed, the contents, and the folders that files lie in."""
    left = {"seed", *CONTENTS}
    names = {path: without_folder(str(config[path])) for path in CONTENT_OF.values() if path in config}
    return tuple(sorted((path, repr(value)) for path, value in {**config, **names}.items() if path not in left))
