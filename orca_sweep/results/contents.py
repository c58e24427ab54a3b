"""Results belong to the data that they came from: contents that differ are told apart, in tables and before a launch."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.config import CONTENT_OF, CONTENTS
from orca_sweep.data.contents import SHOWN
from orca_sweep.declaration import without_folder, without_path
from orca_sweep.errors import InputError
from orca_sweep.naming import label_of
from orca_sweep.results.records import read_manifest, record_path, trials_of
from orca_sweep.space import Plan

if TYPE_CHECKING:
    import pandas as pd

SPLIT = re.compile(rf"-[0-9a-f]{{{SHOWN}}}(?=-aa$|-|$)")
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
            row |= _rename(row, column, f"[{word} {digest[:SHOWN] if digest else 'not known'}]")


MARK = re.compile(rf" \[(content|code|proxy|body) ([0-9a-f]{{{SHOWN}}}|not known)\]$")


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
                newest[row["cell_id"]] = max(newest.get(row["cell_id"], ("", "")), (str(row["ended_at"]), row[column]))
        for row in rows:
            digest = row.get(column) or newest.get(row["cell_id"], ("", None))[1]
            if row.get(name) in changed and digest:
                row |= _content_of_its_own(row, name, digest[:SHOWN])


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
    try:
        manifest = read_manifest(folder)
    except InputError:  # the launch tells of what is damaged
        manifest = None
    if manifest is None:
        return []
    ids, configs = {trial.trial_id for trial in plan.trials}, _configs_of(plan)
    now, known = _current_contents(configs), set(map(_settings_of, configs))
    paths = _current_paths(configs)
    return [
        {
            **{name: value for name, value in trial.items() if name != "on_the_way"},
            "config": _move(trial["config"], paths),
        }
        for trial in trials_of(manifest)
        if trial["trial_id"] not in ids
        and any(True for _ in _changes(trial["config"], now))
        and (trial.get("on_the_way") or trial.get("role") == "search" or _settings_of(trial["config"]) in known)
        and record_path(folder, trial["trial_id"]).exists()
    ]


def find_earlier_levels(folder: Path, earlier: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Returns what the space wrote for the levels of earlier trials' cells: no label may differ by content alone."""
    cells = {trial["cell_id"].removesuffix("-aa") for trial in earlier}
    written = (read_manifest(folder) or {}).get("levels", {}) if cells else {}
    return {cell_id: labels for cell_id, labels in written.items() if cell_id in cells}


def describe_changes(folder: Path, plan: Plan) -> list[str]:
    """Returns a line for each file and each code whose content has changed since trials of a sweep folder were run."""
    earlier = find_earlier_trials(folder, plan)
    now = _current_contents(_configs_of(plan)) if earlier else {}
    counts: dict[tuple[str, str, str, str], int] = {}
    for trial in earlier:
        for change in _changes(trial["config"], now):
            counts[change] = counts.get(change, 0) + 1
    return [
        f"{NOUNS[content]} {label_of(name)}: its content has changed since {n} trials of this sweep were run"
        f" ({old[:SHOWN]} then, {new[:SHOWN]} now). They keep their rows, as cells of their own; the new content is run."
        for (content, name, old, new), n in counts.items()
    ]


def _configs_of(plan: Plan) -> list[Config]:
    return [config.flat() for config in (*plan.cells, *(c for cell in plan.tuned for c in cell.candidates))]


def _current_contents(configs: Iterable[Config]) -> dict[tuple[str, str], list[str]]:
    contents: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        for content in CONTENTS:
            if config.get(content) is not None:
                contents.setdefault((content, _name_in(config, content)), []).append(config[content])
    return contents


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


def _name_in(config: Config, content: str) -> str:
    """What a content is known by to people, in whatever folder it lies."""
    return without_folder(str(config.get(CONTENT_OF[content]))) if content in CONTENT_OF else "that the space imports"


def _changes(config: Config, now: Mapping[tuple[str, str], Sequence[str]]) -> Iterator[tuple[str, str, str, str]]:
    """What of an earlier trial has another content now: the field, the name, the content then and now."""
    for content in CONTENTS:
        old, name = config.get(content), _name_in(config, content)
        new = now.get((content, name), ())
        if old is not None and new and old not in new:
            yield content, name, str(old), new[0]


def _settings_of(config: Config) -> tuple[tuple[str, str], ...]:
    """All settings but the seed, the contents, and the folders that files lie in."""
    left = {"seed", *CONTENTS}
    names = {path: without_folder(str(config[path])) for path in CONTENT_OF.values() if path in config}
    return tuple(sorted((path, repr(value)) for path, value in {**config, **names}.items() if path not in left))
