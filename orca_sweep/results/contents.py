"""Keeps results apart that come from different contents of data or code, in tables and before a launch."""

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
    """Gives tasks, proxies and bodies of equal content and settings one path, the first, wherever their files are.

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
    """Adds the content to each name of a task, proxy or body that has several contents: 'mine.npz [content 1a2b3c4d]'.

    A name with one content does not change. Different code is marked at the task, and so are the contents of a proxy or
    body that all trials of a task use, since nothing may be compared across them.

    Args:
        rows: rows of the trials table; changed in place.
    """
    _mark_several(rows, "task", "content.task", "content")
    _mark_several(rows, "task", CODE, "code")
    for content in ("content.proxy", "content.body"):
        rows_by_task: dict[str | None, list[dict[str, Any]]] = {}
        for row in rows:
            rows_by_task.setdefault(row.get("task"), []).append(row)
        unmarked: list[dict[str, Any]] = []
        for task_rows in rows_by_task.values():
            if len({row.get(CONTENT_OF[content]) for row in task_rows}) == 1:
                _mark_several(task_rows, "task", content, NOUNS[content])
            else:
                unmarked += task_rows
        _mark_several(unmarked, CONTENT_OF[content], content, "content")


def _mark_several(rows: Sequence[dict[str, Any]], column: str, content: str, word: str) -> None:
    contents: dict[str, set[str | None]] = {}
    for row in rows:
        if row.get(column) is not None:
            contents.setdefault(row[column], set()).add(row.get(content))
    for row in rows:
        if len(contents.get(row.get(column) or "", ())) > 1:
            digest = row.get(content)
            row |= _mark_name(row, column, f"[{word} {digest[:SHOWN_DIGITS] if digest else 'not known'}]")


MARK = re.compile(rf" \[(content|code|proxy|body) ([0-9a-f]{{{SHOWN_DIGITS}}}|not known)\]$")


def find_split_columns(trials: "pd.DataFrame") -> list[str]:
    """Returns which of task, proxy and body have a name with several contents, so that cells differ in it."""
    marked = [column for column in CONTENT_OF.values() if f"{column}_declared" in trials]
    return [column for column in marked if any(MARK.search(str(name)) for name in trials[column].unique())]


def _mark_name(row: Mapping[str, Any], column: str, mark: str) -> dict[str, Any]:
    """Returns a row's name with a mark behind it, and the column that keeps the plan's name."""
    return {column: f"{row[column]} {mark}", f"{column}_declared": row.get(f"{column}_declared") or row[column]}


MEASURED = (("data_sha256", "task", ("data-split", "everything")), ("proxy_sha256", "proxy", ()))
"""Columns with the hash of loaded data, the column that names the data, and the levels of ``seed_varies`` at which the
data may differ between seeds."""
MACHINE = ("host", "device", "n_threads", "versions")


def split_mixed_cells(rows: Sequence[dict[str, Any]]) -> None:
    """Splits cells whose trials loaded different data under one name, for example after a file below ``--data`` changed.

    Computed data may differ in their last bits between machines. If one machine loaded different data for one cell,
    however, the content has changed: each content then becomes a separate task (or proxy) and cell. A trial that loaded
    nothing counts with the newest content.

    Args:
        rows: whole rows of the trials table; changed in place.
    """
    for column, name, free in MEASURED:
        changed = _changed_names(rows, column, name, free)
        newest: dict[str, tuple[str, str]] = {}
        for row in rows:
            if row.get(name) in changed and row.get(column):
                # Moments have a T in records, but not in tables.
                ended = str(row.get("ended_at") or "").replace("T", " ")
                newest[row["cell_id"]] = max(newest.get(row["cell_id"], ("", "")), (ended, row[column]))
        for row in rows:
            digest = row.get(column) or newest.get(row["cell_id"], ("", None))[1]
            if row.get(name) in changed and digest:
                row |= _split_cell(row, name, digest[:SHOWN_DIGITS])


def _changed_names(rows: Iterable[Mapping[str, Any]], column: str, name: str, free: Sequence[str]) -> set[str]:
    """Returns the tasks or proxies for which one machine loaded different data in one cell."""
    loaded: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        if row.get(column) and row.get(name) and row.get("seed_varies") not in free:
            key = (row[name], row["cell_id"], *(row.get(part) for part in MACHINE))
            loaded.setdefault(key, set()).add(row[column])
    return {key[0] for key, digests in loaded.items() if len(digests) > 1}


def _split_cell(row: Mapping[str, Any], name: str, digest: str) -> dict[str, str]:
    cell, mark, _ = row["cell_id"].partition("-aa")
    return {**_mark_name(row, name, f"[content {digest}]"), "cell_id": f"{cell}-{digest}{mark}"}


def without_split(cell_id: str) -> str:
    """Returns the id of a cell before ``split_mixed_cells``."""
    return SPLIT.sub("", cell_id)


def find_earlier_trials(folder: Path, plan: Plan) -> list[Mapping[str, Any]]:
    """Returns the recorded trials of a sweep folder whose data or code have changed since.

    They stay in the sweep's tables beside the trials of the new content. If a file's folder has moved too, they get its new
    path, so that their names differ by content alone.

    Args:
        folder: the sweep folder; without a readable sweep it has no earlier trials.
        plan: the plan that is going to run there.
    """
    configs = _configs_of(plan)
    paths = _current_paths(configs)
    return [
        {
            **{name: value for name, value in trial.items() if name != "on_the_way"},
            "config": _move_files(trial["config"], paths),
        }
        for trial in _list_earlier(folder, plan, configs)
        if record_path(folder, trial["trial_id"]).exists()
    ]


def has_earlier_content(folder: Path, plan: Plan) -> bool:
    """Says whether a sweep folder plans trials, run or not, that differ from those of the plan in content alone."""
    return bool(_list_earlier(folder, plan, _configs_of(plan)))


def _list_earlier(folder: Path, plan: Plan, configs: Sequence[Config]) -> list[Mapping[str, Any]]:
    """Returns the trials of a sweep folder that differ from those of the plan in the content of a file or of code."""
    try:
        manifest = read_manifest(folder)
    except InputError:  # the launch reports damaged files
        manifest = None
    if manifest is None:
        return []
    ids = {trial.trial_id for trial in plan.trials}
    now, known = _current_contents(configs), set(map(_settings_of, configs))
    return [
        trial
        for trial in manifest.all_trials
        if trial["trial_id"] not in ids
        and any(True for _ in _find_changes(trial["config"], now))
        and (trial.get("on_the_way") or trial["role"] == "search" or _settings_of(trial["config"]) in known)
    ]


def find_earlier_levels(folder: Path, earlier: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Returns the labels that the space wrote for the cells of earlier trials; no label may differ by content alone."""
    cells = {trial["cell_id"].removesuffix("-aa") for trial in earlier}
    manifest = read_manifest(folder) if cells else None
    written = manifest.labels if manifest else {}
    return {cell_id: labels for cell_id, labels in written.items() if cell_id in cells}


def describe_changes(folder: Path, plan: Plan) -> list[str]:
    """Returns a line for each file or imported code that has changed since trials of a sweep folder ran."""
    earlier, configs = find_earlier_trials(folder, plan), _configs_of(plan)
    now = _current_contents(configs) if earlier else {}
    counts: dict[tuple[str, str, str, str], int] = {}
    for trial in earlier:
        for change in _find_changes(trial["config"], now):
            counts[change] = counts.get(change, 0) + 1
    labels = label_declarations([name for _, name, _, _ in counts] + [name for _, name in now])
    labels |= {name: Path(label).name for name, label in labels.items() if Path(label).is_absolute()}  # bodies
    return [
        f"{NOUNS[content]} {labels[name]}: its content has changed since {_count_trials(n)} ran ({old[:SHOWN_DIGITS]} then,"
        f" {new} now). These trials keep their rows, in separate cells; the new content runs too."
        for (content, name, old, new), n in counts.items()
    ]


def _count_trials(n: int) -> str:
    return "1 trial of this sweep" if n == 1 else f"{n} trials of this sweep"


def _configs_of(plan: Plan) -> list[Config]:
    return [config.flat() for config in (*plan.cells, *(c for cell in plan.tuned for c in cell.candidates))]


def _current_contents(configs: Iterable[Config]) -> dict[tuple[str, str], list[str]]:
    """Returns the current contents, by field and declaration."""
    contents: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        for content in CONTENTS:
            if config.get(content) is not None:
                contents.setdefault((content, _text_in(config, content)), []).append(config[content])
    return {key: list(dict.fromkeys(digests)) for key, digests in contents.items()}


def _current_paths(configs: Iterable[Config]) -> dict[tuple[str, str], set[str]]:
    """Returns the current declarations, by column and by the declaration without its folder."""
    paths: dict[tuple[str, str], set[str]] = {}
    for config in configs:
        for column in CONTENT_OF.values():
            paths.setdefault((column, without_folder(str(config[column]))), set()).add(config[column])
    return paths


def _move_files(config: Config, paths: Mapping[tuple[str, str], set[str]]) -> Config:
    """Returns an earlier config with the current paths of its files, where a name is unique; its id does not change."""
    moved = dict(config)
    for content, column in CONTENT_OF.items():
        current = paths.get((column, without_folder(str(config.get(column)))), set())
        if config.get(content) is not None and len(current) == 1:
            moved[column] = next(iter(current))
    return moved


def _text_in(config: Config, content: str) -> str:
    """Returns the declaration that a content belongs to."""
    return str(config.get(CONTENT_OF[content])) if content in CONTENT_OF else "that the space imports"


def _find_changes(config: Config, now: Mapping[tuple[str, str], Sequence[str]]) -> Iterator[tuple[str, str, str, str]]:
    """Yields each changed content of an earlier trial: its field and declaration, and the content then and now.

    If nothing has this declaration any more, for example because a folder has moved, the file of the same name counts.
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
        for (field, declaration), digests in now.items()
        if field == content and without_folder(declaration) == name
        for digest in digests
    ]


def _settings_of(config: Config) -> tuple[tuple[str, str], ...]:
    """Returns all settings except the seed, the contents and the folders of files."""
    ignored = {"seed", *CONTENTS}
    names = {path: without_folder(str(config[path])) for path in CONTENT_OF.values() if path in config}
    return tuple(sorted((path, repr(value)) for path, value in {**config, **names}.items() if path not in ignored))
