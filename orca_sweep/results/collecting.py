"""Collects sweep folders, and tables made elsewhere, into one set of Parquet tables."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep import __version__
from orca_sweep.config import CONTENTS, canonical_json, digest, knobs
from orca_sweep.config.naming import DECLARED_FIELDS, label_declarations
from orca_sweep.errors import DamagedError, InputError, Problem
from orca_sweep.record_files import CHECKSUM, read_record_file
from orca_sweep.results.arrow_tables import LongTable, build_table
from orca_sweep.results.columns import (
    EPOCH_COLUMNS,
    STAGE_COLUMNS,
    TABLE_SCHEMA,
    UNFINISHED,
    trial_columns,
)
from orca_sweep.results.contents import split_mixed_cells, tell_contents_apart, unify_folders, without_split
from orca_sweep.results.custody import read_reveals
from orca_sweep.results.records import (
    describe_unplanned,
    list_trial_folders,
    read_record,
    read_traceback,
    record_path,
    unseal_metrics,
)
from orca_sweep.results.schemas import STAMPS_FILE
from orca_sweep.results.tables import TABLES, Results, as_results, read_about, read_table, table_digest
from orca_sweep.space.manifest import MANIFEST, SweepManifest, require_manifest
from orca_sweep.store import explain_write_errors, write_json, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

STAMPS = ".collected.json"
NOT_RUN = "not run to an end yet; launch again"
"""The error in the row of an unfinished trial."""
ROW_GROUP = 100_000
TRACEBACK_CHARS = 20_000
"""Characters kept of a traceback's end. A recursion's traceback has thousands of lines, and its last ones say what
happened."""
Use = tuple[str, str, str]
"""A trial's id, the cell that it belongs to, and its role in that cell."""


def collect(sources: Iterable[Path], out: Path, earlier: Path | None = None) -> Results:
    """Merges sweeps into ``trials.parquet``, ``epochs.parquet`` and ``stages.parquet`` in a folder and returns them.

    A source is a sweep folder, whose sweep may still be running, or a folder of tables collected elsewhere. Every planned
    trial has one row; without a record its status is ``unfinished``. A trial that several sources hold is taken once: the
    first ok record, preferably one whose test metrics are revealed. A trial that does the same work in two cells has a row
    for each, and so has one that is a replicate in one sweep and an A/A repeat in another. Columns that this version does
    not know are kept. Test metrics that were not revealed stay out.

    A second collection into the same folder, or one given ``earlier`` tables, reads only records that are new or have
    changed. The same sources always give the same tables. Nothing outside ``out`` is written. A damaged record becomes a
    row with status ``lost`` whose error names the file; the notes of the results repeat it.

    Raises:
        InputError: for each source that holds neither a sweep nor tables, or tables of another schema version.
        StorageError: if a table cannot be written; the previous one stays.

    Cost: 10,000 trials of 100 epochs are read in a fraction of a minute and 1 GiB, and in seconds if they are unchanged.
    """
    opened = _open_sources(sources)
    _check_target(out)
    _make_folder(out)
    merged = _merge_plans(opened)
    records = _read_records(merged, _Earlier(earlier or out))
    rows = _make_rows(merged.plans, records.rows)
    about = _make_about(opened, _list_task_names(merged, rows))
    with explain_write_errors(out / STAMPS):
        (out / STAMPS).unlink(missing_ok=True)
    tables = {"trials": build_table(rows, trial_columns()), "epochs": records.epochs, "stages": records.stages}
    # Marks the tables of one collection.
    about |= {"trials": table_digest(tables["trials"], canonical_json(about))}
    written = {name: write_table(out / f"{name}.parquet", table, about) for name, table in tables.items()}
    damaged = {trial_id: text for source in opened for trial_id, text in source.damaged.items()}
    # Damaged records are read and reported again next time.
    stamps = {trial_id: stamp for trial_id, stamp in records.stamps.items() if trial_id not in damaged}
    write_json(out / STAMPS, {"by": _describe_version(), "tables": written, "trials": stamps})
    unplanned = [source.unplanned for source in opened if source.unplanned]
    return replace(as_results(tables, about["sweeps"]), notes=(*damaged.values(), *unplanned))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"{out}: {why}, so the folder cannot be made. Name another one with -o.") from None


@dataclass(frozen=True, kw_only=True)
class _MergedPlans:
    """The planned trials of all sources."""

    plans: Mapping[Use, dict[str, Any]]
    """For each use of a trial, the columns that its plan fills."""
    sources: Mapping[str, Sequence["_Source"]]
    """By trial, the sources that hold it."""
    uses_by_task: Mapping[str, Sequence[Use]]
    """By task, as its config declares it."""


def _merge_plans(opened: Iterable["_Source"]) -> _MergedPlans:
    plans: dict[Use, dict[str, Any]] = {}
    sources: dict[str, list[_Source]] = {}
    uses_by_task: dict[str, dict[Use, None]] = {}
    for source in opened:
        for use, plan in source.list_uses():
            plans.setdefault(use, dict(plan))
            uses_by_task.setdefault(plan.get("task") or "", {})[use] = None
            if source not in sources.setdefault(use[0], []):
                sources[use[0]].append(source)
    unify_folders(list(plans.values()))
    return _MergedPlans(
        plans=plans, sources=sources, uses_by_task={task: list(uses) for task, uses in uses_by_task.items()}
    )


@dataclass(frozen=True, kw_only=True)
class _Records:
    """The recorded rows of all trials."""

    rows: Mapping[str, Mapping[str, Any]]
    epochs: "pa.Table"
    stages: "pa.Table"
    stamps: Mapping[str, str]
    """By trial, what changes when its record does."""


def _read_records(merged: _MergedPlans, earlier: "_Earlier") -> _Records:
    """Reads new and changed records, and takes the others from the earlier tables."""
    stamps = {
        trial_id: "|".join(source.stamp_record(trial_id) for source in sources)
        for trial_id, sources in merged.sources.items()
    }
    unchanged = [trial_id for trial_id, stamp in stamps.items() if earlier.stamps.get(trial_id) == stamp]
    rows = earlier.read_rows(unchanged)
    epochs, stages = LongTable(EPOCH_COLUMNS), LongTable(STAGE_COLUMNS)
    for trial_id, sources in merged.sources.items():
        if trial_id not in rows:
            record = _choose_best([source.read_record(trial_id) for source in sources])
            rows[trial_id] = record["row"]
            epochs.add(trial_id, record["epochs"])
            stages.add(trial_id, record.get("stages", ()))
    order = list(stamps)
    return _Records(
        rows=rows,
        epochs=epochs.make_table(order, earlier.filter_table("epochs", unchanged)),
        stages=stages.make_table(order, earlier.filter_table("stages", unchanged)),
        stamps=stamps,
    )


def _make_rows(
    plans: Mapping[Use, Mapping[str, Any]], recorded_rows: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the rows of the trials table: what was recorded, overwritten by what the plan says."""
    labels = {text: label for path in DECLARED_FIELDS for text, label in _label_column(path, plans.values()).items()}
    rows = [{**recorded_rows[trial_id], **_label_plan(plan, labels)} for (trial_id, _, _), plan in plans.items()]
    tell_contents_apart(rows)
    split_mixed_cells(rows)
    return rows


def _label_column(path: str, plans: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return label_declarations(str(plan[path]) for plan in plans if plan.get(path))


def _label_plan(plan: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Returns a plan's columns with readable names of task, proxy and body, and the declarations behind these names."""
    named = {path: labels.get(plan[path], plan[path]) for path in DECLARED_FIELDS if path in plan}
    declared = {f"{path}_declared": plan[path] if plan[path] != name else None for path, name in named.items()}
    return {**plan, **named, **declared}


def _list_task_names(merged: _MergedPlans, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns, by declaration of a task, the names that the rows have for it."""
    names = {use: row.get("task") or "" for use, row in zip(merged.plans, rows, strict=True)}
    return {task: list(dict.fromkeys(names[use] for use in uses)) for task, uses in merged.uses_by_task.items()}


def _make_about(opened: Iterable["_Source"], task_names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the metadata of the tables: the schema version and a record of each sweep."""
    sweeps = [_rename_margins(sweep, task_names) for source in opened for sweep in source.sweeps]
    unique = {canonical_json(sweep): sweep for sweep in sweeps}
    return {"schema_version": TABLE_SCHEMA, "sweeps": list(unique.values())}


def _rename_margins(sweep: Mapping[str, Any], task_names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the record of a sweep with its margins under other names of their tasks."""
    margins = sweep.get("margins", {}).items()
    return {**sweep, "margins": {name: margin for task, margin in margins for name in task_names.get(task, (task,))}}


def _check_target(out: Path) -> None:
    """Refuses a folder with tables that ``collect`` did not write, since it would replace them."""
    tables = [path for path in (out / f"{name}.parquet" for name in TABLES) if path.is_symlink() or path.exists()]
    is_after_collect = _read_stamps(out) is not None
    foreign = [path for path in tables if _is_foreign(path, is_after_collect)]
    if not tables and not is_after_collect and (out / STAMPS).exists():
        foreign = [out / STAMPS]
    if not foreign:
        return
    raise InputError(
        [
            f"{path}: orca-sweep did not write this file and does not replace it. Name another folder with -o, or move the"
            " file away."
            for path in foreign
        ]
    )


def _is_foreign(path: Path, is_after_collect: bool) -> bool:
    """Says whether ``collect`` did not write the file.

    In a folder that ``collect`` wrote to, a table of trials counts as its own even if it was edited or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():  # a folder, a pipe, a link to nothing
        return True
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return not is_after_collect
    return b"orca_sweep" not in (schema.metadata or {}) and not (is_after_collect and "trial_id" in schema.names)


def _read_stamps(out: Path) -> dict[str, Any] | None:
    """Returns what the last collection left about its tables in a folder; None without a file that can be used."""
    try:
        return read_record_file(out / STAMPS, STAMPS_FILE, "")
    except DamagedError:
        return None


def _describe_version() -> list[Any]:
    columns = [column.name for part in (trial_columns(), EPOCH_COLUMNS, STAGE_COLUMNS) for column in part]
    return [TABLE_SCHEMA, __version__, digest("columns", columns)]


def _choose_best(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the first ok record, preferably a revealed one; else the first record of a trial that has ended."""
    ok = [record for record in records if record["row"]["status"] == "ok"]
    ok.sort(key=lambda record: bool(record["row"].get("is_sealed")))
    ended = [record for record in records if record["row"]["status"] != UNFINISHED]
    return (ok or ended or records)[0]


# Sources ------------------------------------------------------------------------------------------


class _Source:
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


def _open_sources(paths: Iterable[Path]) -> list[_Source]:
    opened: list[_Source] = []
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


class _Sweep(_Source):
    """A sweep folder: its plan and the records of its trials."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        names = list_trial_folders(folder)
        self.folder, self.manifest = folder, require_manifest(folder)
        self.unplanned = describe_unplanned(folder, names, self.manifest)
        self.log = read_reveals(folder)
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
            "reveals": [[look.time, len(look.trials)] for look in self.log],
        }

    def list_uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        levels = {cell_id: canonical_json(labels) for cell_id, labels in self.manifest.labels.items()}
        for trial in self.manifest.all_trials:
            use = (trial["trial_id"], trial["cell_id"], trial["role"])
            # Only the plan knows the trial's space, cell and role; its record knows the config alone.
            about = {"space": self.manifest.name, "cell_id": use[1], "role": use[2]}
            yield use, {**trial["config"], **about, "levels": levels.get(use[1].removesuffix("-aa"))}

    def stamp_record(self, trial_id: str) -> str:
        stamp = _stamp_file(record_path(self.folder, trial_id))
        return stamp and f"{stamp}-{self.reveal_times.get(trial_id, '')}"

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
            row["n_reveals_before"] = sum(look.time <= row["started_at"] for look in self.log)
        return {**record, "row": row if is_sealed else {**row, **unseal_metrics(record)}}


def _list_margins(manifest: SweepManifest) -> dict[str, float]:
    """Returns the margin that a space fixes for each task that it runs; a common margin is repeated for each task."""
    fixed = manifest.margins
    configs = [*(trial["config"] for trial in manifest.all_trials), *(cell.base for cell in manifest.tuned)]
    tasks = dict.fromkeys(config["task"] for config in configs) if fixed else {}
    return {task: fixed[task if task in fixed else ""] for task in tasks if task in fixed or "" in fixed}


class _Tables(_Source):
    """Tables that were collected before, here or elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.trials = read_table(folder, "trials").to_pylist()
        names = {row["task"]: [task] for row in self.trials if (task := _restore_declarations(row).get("task"))}
        self.sweeps = [_rename_margins(sweep, names) for sweep in read_about(folder)["sweeps"]]
        self.rows_by_id = {row["trial_id"]: row for row in self.trials}
        self.stamp = "-".join(map(str, _stamp_tables(folder).values()))

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
    import numpy as np

    ids = table["trial_id"].to_numpy(zero_copy_only=False)
    indices: dict[str, list[int]] = {}
    for trial_id, group in groupby(range(len(ids)), key=ids.__getitem__):
        indices.setdefault(str(trial_id), []).extend(group)
    return lambda trial_id: table.take(np.array(indices.get(trial_id, []), dtype=np.int64)).to_pylist()


class _Earlier:
    """The tables of the last collection into a folder; none unless they are whole and of this version."""

    def __init__(self, folder: Path) -> None:
        self.stamps: Mapping[str, str] = {}
        self.tables: dict[str, pa.Table] = {}
        try:
            stamps = _read_stamps(folder)
            if stamps and stamps["by"] == _describe_version() and stamps["tables"] == _stamp_tables(folder):
                self.tables = {name: read_table(folder, name) for name in TABLES}
                self.stamps = stamps["trials"]
        except InputError:  # damaged tables are made again
            return

    def read_rows(self, trial_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns the rows of some trials, by id."""
        if not trial_ids:
            return {}
        wanted = set(trial_ids)
        return {row["trial_id"]: row for row in self.tables["trials"].to_pylist() if row["trial_id"] in wanted}

    def filter_table(self, name: str, trial_ids: Sequence[str]) -> "list[pa.Table]":
        """Returns a table with the rows of some trials; no table without trials."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not trial_ids:
            return []
        table = self.tables[name]
        return [table.filter(pc.is_in(table["trial_id"], pa.array(trial_ids, pa.string())))]


def _stamp_tables(folder: Path) -> dict[str, str]:
    """Returns what changes when a program writes one of the tables."""
    return {name: _stamp_file(folder / f"{name}.parquet") for name in TABLES}


def _stamp_file(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"errno {error.errno}"
    return f"{status.st_mtime_ns}-{status.st_size}"


# Writing ------------------------------------------------------------------------------------------


def write_table(path: Path, table: "pa.Table", about: Mapping[str, Any]) -> str:
    """Writes a table, whole or not at all, with ``about`` in its metadata, and returns its stamp.

    Raises:
        StorageError: if it cannot be written; the previous table stays.
    """
    import pyarrow.parquet as pq

    about = {name: value for name, value in about.items() if name != CHECKSUM}
    metadata = {"orca_sweep": canonical_json({**about, CHECKSUM: table_digest(table, canonical_json(about))})}
    with write_whole(str(path)) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, row_group_size=ROW_GROUP)
        return _stamp_file(Path(temporary))  # after the move, another collection may replace the file at once


# One trial ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A trial as it was recorded."""

    trial_id: str
    config: Mapping[str, Any]
    """Flat."""
    row: Mapping[str, Any]
    tests: Mapping[str, Any]
    """Its test metrics, sealed or not. While ``is_sealed`` they may be compared but not shown."""
    is_sealed: bool


def find_trial(source: Path, start: str) -> Recorded:
    """Returns the trial of a sweep, or of collected tables, whose id begins with ``start``.

    Raises:
        InputError: if no trial or several match, or the source holds neither a sweep nor tables.
    """
    (opened,) = _open_sources([source])
    every_plan = {use[0]: plan for use, plan in opened.list_uses()}
    plans = {trial_id: plan for trial_id, plan in every_plan.items() if trial_id.startswith(start)}
    if len(plans) != 1:
        near = get_close_matches(start, every_plan, n=1)
        known = ", ".join(list(plans)[:5]) or (
            f"the nearest is {near[0]}" if near else "see trial_id in the trials table"
        )
        raise InputError(f"{source}: {len(plans) or 'no'} trials have an id that begins with {start!r}: {known}.")
    ((trial_id, plan),) = plans.items()
    record = opened.read_record(trial_id)
    if opened.damaged:
        raise InputError(list(opened.damaged.values()))
    return Recorded(
        trial_id=trial_id,
        config={name: value for name, value in plan.items() if name in knobs() or name in CONTENTS},
        row=record["row"],
        tests=unseal_metrics(record),
        is_sealed=bool(record["row"].get("is_sealed")),
    )
