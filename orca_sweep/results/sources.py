"""The folders that trials are collected from: sweep folders, and tables that were collected before."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orca_sweep.config import CONTENTS, canonical_json, knobs
from orca_sweep.config.labels import write_level
from orca_sweep.config.naming import DECLARED_FIELDS
from orca_sweep.errors import DamagedError, InputError, Problem
from orca_sweep.record_files import read_regular_file
from orca_sweep.results.columns import UNFINISHED
from orca_sweep.results.contents import without_split
from orca_sweep.results.custody import REVEALS, read_looks_beside, read_reveals
from orca_sweep.results.records import (
    describe_unplanned,
    list_trial_folders,
    read_record,
    read_traceback,
    record_path,
    unseal_metrics,
)
from orca_sweep.results.tables import TABLES, read_about, read_table
from orca_sweep.space.manifest import MANIFEST, PLANNED, PLANNED_BEFORE, SweepManifest, require_manifest
from orca_sweep.space.tuning import Range

if TYPE_CHECKING:
    import pyarrow as pa

NOT_RUN = "not run to an end yet; launch again"
"""The error in the row of an unfinished trial."""
TRACEBACK_CHARS = 20_000
"""Characters kept of a traceback's end. A recursion's traceback has thousands of lines, and its last ones say what
happened."""
Use = tuple[str, str, str]
"""A trial's id, the cell that it belongs to, and its role in that cell."""


def stamp_plans(folders: Iterable[Path]) -> str | None:
    """Returns the hash of everything in sweep folders but their records that their tables depend on.

    None if one of them is no sweep folder.
    """
    digest = hashlib.sha256()
    for folder in folders:
        try:
            contents = [read_regular_file(folder / name) for name in (MANIFEST, PLANNED, PLANNED_BEFORE, REVEALS)]
        except OSError:
            return None
        if contents[0] is None:
            return None
        for content in contents:
            digest.update(b"-" if content is None else b"%d:" % len(content) + content)
    return digest.hexdigest()


class Source:
    """A folder that trials are collected from."""

    sweeps: Sequence[Mapping[str, Any]]
    """The record of each of its sweeps, for the metadata of the tables."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}
        """The message about each damaged record read so far, by trial."""
        self.unplanned: str | None = None
        """The message about records of trials that are not planned."""

    def list_uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        """Yields each use of a trial, with the columns that its plan fills."""
        raise NotImplementedError

    def stamp_record(self, trial_id: str) -> str:
        """Returns a text that changes when the trial's record does."""
        raise NotImplementedError

    def read_record(self, trial_id: str) -> dict[str, Any]:
        """Returns a trial's row, epochs and stages."""
        raise NotImplementedError


def open_sources(paths: Iterable[Path]) -> list[Source]:
    """Returns the sources in folders.

    Raises:
        InputError: for each folder that holds neither a sweep nor tables, or damaged ones.
    """
    opened: list[Source] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            is_tables = not os.path.lexists(path / MANIFEST) and os.path.lexists(path / "trials.parquet")
            opened.append(_Tables(path) if is_tables else _Sweep(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return opened


class _Sweep(Source):
    """A sweep folder: its plan and the records of its trials."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        names = list_trial_folders(folder)
        self.folder, self.manifest = folder, require_manifest(folder)
        self.unplanned = describe_unplanned(folder, names, self.manifest)
        self.log, self.looks_beside = read_reveals(folder), read_looks_beside(folder)
        self.reveal_times = {trial_id: look.time for look in self.log for trial_id in look.trials}
        self.sweeps = [self._describe_sweep()]

    def _describe_sweep(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "space": manifest.name,
            "question": manifest.question,
            "factors": list(manifest.factors),
            "tuned": list(manifest.tune),
            "worst": [status for status, rule in manifest.outcomes.items() if rule.then == "worst"],
            "metric": manifest.metric,
            "margins": _list_margins(manifest),
            **({"is_smoke": True} if manifest.is_smoke else {}),
            "reveals": [[look.time, len(look.trials)] for look in self.log],
            "search": _describe_search(manifest),
            "rules": _describe_rules(manifest),
        }

    def list_uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        levels = {cell_id: canonical_json(labels) for cell_id, labels in self.manifest.labels.items()}
        for trial in self.manifest.all_trials:
            use = (trial["trial_id"], trial["cell_id"], trial["role"])
            # Only the plan knows the trial's space, cell and role; its record knows the config alone.
            about = {"space": self.manifest.name, "cell_id": use[1], "role": use[2]}
            yield use, {**trial["config"], **about, "levels": levels.get(use[1].removesuffix("-aa"))}

    def stamp_record(self, trial_id: str) -> str:
        return stamp_record(self.folder, trial_id, self.reveal_times)

    def read_record(self, trial_id: str) -> dict[str, Any]:
        try:
            record = read_record(self.folder, trial_id)
        except DamagedError as error:
            self.damaged[trial_id] = str(error)
            return {"row": {"trial_id": trial_id, "status": "lost", "error": str(error)}, "epochs": []}
        if record is None:
            return {"row": {"trial_id": trial_id, "status": UNFINISHED, "error": NOT_RUN}, "epochs": []}
        is_sealed = "sealed" in record and trial_id not in self.reveal_times
        row = {**record["row"], "is_sealed": is_sealed, "revealed_at": self.reveal_times.get(trial_id)}
        if row["status"] != "ok":
            text = read_traceback(self.folder, trial_id)
            row["traceback"] = None if text is None else text[-TRACEBACK_CHARS:]
        if row.get("started_at"):
            row["n_reveals_before"] = sum(look.time <= row["started_at"] for look in self.looks_beside)
        return {**record, "row": row if is_sealed else {**row, **unseal_metrics(record)}}


def _describe_search(manifest: SweepManifest) -> dict[str, Any]:
    """Returns how the sweep tunes: the method, the run seeds of candidates, and the range or list of each field."""
    if not manifest.tune:
        return {}
    fields = {
        path: {"low": values.low, "high": values.high, "log": values.log}
        if isinstance(values, Range)
        else [write_level(value) for value in values]
        for path, values in manifest.tune.items()
    }
    search = manifest.search
    return {"method": search.method, "seeds": list(search.seeds), "fields": fields}


def _describe_rules(manifest: SweepManifest) -> dict[str, Any]:
    """Returns the design, what may end a trial early or run it again, and the kind of GPU that the sweep asks for."""
    rules = {
        "design": manifest.design.model_dump(exclude_none=True) if manifest.design else None,
        "prune": manifest.prune.model_dump() if manifest.prune else None,
        "budget": manifest.budget.model_dump(exclude_none=True) or None,
        "trial_s": manifest.limits.trial_s,
        "retry": {status: rule.retry for status, rule in manifest.outcomes.items() if rule.retry} or None,
        "accelerator_type": manifest.resources.accelerator_type,
    }
    return {name: value for name, value in rules.items() if value is not None}


def _list_margins(manifest: SweepManifest) -> dict[str, float]:
    """Returns the margin that a space fixes for each task that it runs; a common margin is repeated for each task."""
    fixed = manifest.margins
    configs = [*(trial["config"] for trial in manifest.all_trials), *(cell.base for cell in manifest.tuned)]
    tasks = dict.fromkeys(config["task"] for config in configs) if fixed else {}
    return {task: fixed[task if task in fixed else ""] for task in tasks if task in fixed or "" in fixed}


class _Tables(Source):
    """Tables that were collected before, here or elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.trials = read_table(folder, "trials").to_pylist()
        names = {row["task"]: [task] for row in self.trials if (task := _restore_declarations(row).get("task"))}
        self.sweeps = [rename_margins(sweep, names) for sweep in read_about(folder)["sweeps"]]
        self.rows_by_id = {row["trial_id"]: row for row in self.trials}
        self.stamp = "-".join(map(str, stamp_tables(folder).values()))

    def list_uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        planned = ("space", "levels", "cell_id", *knobs(), *CONTENTS)
        for row in self.trials:
            row = {**row, "cell_id": without_split(row["cell_id"])}
            use = (row["trial_id"], row["cell_id"], row["role"])
            settings = {name: row[name] for name in planned if name in row} | _restore_declarations(row)
            yield use, {**settings, "role": use[2]}

    def stamp_record(self, trial_id: str) -> str:
        return self.stamp

    def read_record(self, trial_id: str) -> dict[str, Any]:
        rows = {name: read_rows(trial_id) for name, read_rows in self._readers.items()}
        return {"row": self.rows_by_id[trial_id], **rows}

    @cached_property
    def _readers(self) -> dict[str, Callable[[str], list[dict[str, Any]]]]:
        return {name: _index_by_trial(read_table(self.folder, name)) for name in ("epochs", "stages")}


def _restore_declarations(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a row's task, proxy and body as its config declares them, where the table has another name for them."""
    return {path: row[f"{path}_declared"] for path in DECLARED_FIELDS if row.get(f"{path}_declared")}


def _index_by_trial(table: "pa.Table") -> Callable[[str], list[dict[str, Any]]]:
    """Returns a function that returns a trial's rows of a table."""
    ids = table["trial_id"].to_numpy(zero_copy_only=False)
    indices: dict[str, list[int]] = {}
    for trial_id, group in groupby(range(len(ids)), key=ids.__getitem__):
        indices.setdefault(str(trial_id), []).extend(group)
    return lambda trial_id: table.take(np.array(indices.get(trial_id, []), dtype=np.int64)).to_pylist()


def rename_margins(sweep: Mapping[str, Any], task_names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the record of a sweep with its margins under other names of their tasks."""
    margins = sweep.get("margins", {}).items()
    return {**sweep, "margins": {name: margin for task, margin in margins for name in task_names.get(task, (task,))}}


def stamp_record(folder: Path, trial_id: str, reveal_times: Mapping[str, str]) -> str:
    """Returns a text that changes when the record of a trial does, or is revealed; empty without a record."""
    stamp = stamp_file(record_path(folder, trial_id))
    return stamp and f"{stamp}-{reveal_times.get(trial_id, '')}"


def stamp_records(folders: Sequence[Path], trial_ids: Iterable[str]) -> dict[str, str] | None:
    """Returns the stamp of these trials' records in all folders; None if a folder has records of other trials."""
    known = dict.fromkeys(trial_ids)
    stamps: dict[str, list[str]] = {trial_id: [] for trial_id in known}
    for folder in folders:
        times = {trial_id: look.time for look in read_reveals(folder) for trial_id in look.trials}
        if any(os.path.lexists(record_path(folder, name)) for name in list_trial_folders(folder) if name not in known):
            return None
        for trial_id in known:
            stamps[trial_id].append(stamp_record(folder, trial_id, times))
    return {trial_id: join_stamps(parts) for trial_id, parts in stamps.items()}


def join_stamps(stamps: Iterable[str]) -> str:
    """Returns the stamp of a trial that several folders may hold; folders without its record do not matter."""
    return "|".join(filter(None, stamps))


def stamp_tables(folder: Path) -> dict[str, str]:
    """Returns, by table, a text that changes when the table's file is written."""
    return {name: stamp_file(folder / f"{name}.parquet") for name in TABLES}


def stamp_file(path: Path) -> str:
    """Returns a text that changes when a file is written; empty without a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"errno {error.errno}"
    return f"{status.st_mtime_ns}-{status.st_size}"
