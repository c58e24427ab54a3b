"""From sweep folders, and from tables made elsewhere, to one set of Parquet tables."""

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
from orca_sweep.results.custody import reveals
from orca_sweep.results.records import (
    describe_unplanned,
    list_trial_folders,
    read_record,
    read_traceback,
    record_path,
    unsealed,
)
from orca_sweep.results.schemas import STAMPS_FILE
from orca_sweep.results.tables import TABLES, Results, as_results, read_about, read_table, table_digest
from orca_sweep.space.manifest import MANIFEST, SweepManifest, require_manifest
from orca_sweep.store import explain_write_errors, write_json, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

STAMPS = ".collected.json"
NOT_RUN = "not run to an end yet; launch again"
"""What the row of an unfinished trial says in its error."""
ROW_GROUP = 100_000
TRACEBACK_CHARS = 20_000
"""So much of a traceback's end is kept: a recursion's is thousands of lines, and its last ones tell what happened."""
Use = tuple[str, str, str]
"""A trial's id, the cell that it is for, and its role there."""


def collect(sources: Iterable[Path], out: Path, earlier: Path | None = None) -> Results:
    """Merges sweeps into ``trials.parquet``, ``epochs.parquet`` and ``stages.parquet`` in a folder and returns them.

    A source is a sweep folder, also while the sweep runs, or a folder of tables collected elsewhere. One row per planned
    trial: one without a record is a row with status ``unfinished``. A trial that stands in several sources is taken once: the
    first ok record, one whose test metrics are revealed before others. One that is the same work in two cells, or a
    replicate here and of the A/A cell there, has a row for each. Tables of older schema versions are merged by the names of
    their columns: config fields that came later have their defaults, and columns that this version does not know are
    kept. Test metrics that were not revealed stay out.

    Collecting again into the same folder reads only the records that are new or have changed, and so does a folder of
    tables made ``earlier``; the same sources always give the same tables. Nothing is written but into ``out``. A damaged
    record is a row with status ``lost`` whose error names the file, and so do the notes of what is returned.

    Raises:
        InputError: for each source that holds neither a sweep nor tables, or tables of a newer schema.
        StorageError: if a table cannot be written; the one before stays.

    Cost: 10,000 trials of 100 epochs are read in a fraction of a minute and 1 GiB, and found unchanged in seconds.
    """
    found = _sources(sources)
    _check_target(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"{out}: {why}, so no folder can be made there. Name another with -o.") from None
    plans: dict[Use, dict[str, Any]] = {}
    holders: dict[str, list[_Source]] = {}
    declared: dict[str, dict[Use, None]] = {}
    for source in found:
        for use, plan in source.uses():
            plans.setdefault(use, dict(plan))
            declared.setdefault(plan.get("task") or "", {})[use] = None
            if source not in holders.setdefault(use[0], []):
                holders[use[0]].append(source)
    unify_folders(list(plans.values()))
    before = _Before(earlier or out)
    stamps = {trial_id: "|".join(source.stamp(trial_id) for source in of) for trial_id, of in holders.items()}
    same = [trial_id for trial_id, stamp in stamps.items() if before.stamps.get(trial_id) == stamp]
    rows = before.rows(same)
    epochs, stages = LongTable(EPOCH_COLUMNS), LongTable(STAGE_COLUMNS)
    for trial_id in stamps:
        if trial_id not in rows:
            record = _best([source.record(trial_id) for source in holders[trial_id]])
            rows[trial_id] = record["row"]
            epochs.add(trial_id, record["epochs"])
            stages.add(trial_id, record.get("stages", ()))
    labels = {text: name for path in DECLARED_FIELDS for text, name in _label_column(path, plans.values()).items()}
    whole_rows = [{**rows[trial_id], **_labelled(plan, labels)} for (trial_id, _, _), plan in plans.items()]
    tell_contents_apart(whole_rows)
    split_mixed_cells(whole_rows)
    called = {use: row.get("task") or "" for use, row in zip(plans, whole_rows, strict=True)}
    names = {text: list(dict.fromkeys(called[use] for use in uses)) for text, uses in declared.items()}
    about = _about([_with_names(part, names) for source in found for part in source.abouts])
    with explain_write_errors(out / STAMPS):
        (out / STAMPS).unlink(missing_ok=True)
    order = list(stamps)
    made = {
        "trials": build_table(whole_rows, trial_columns()),
        "epochs": epochs.table(order, before.long("epochs", same)),
        "stages": stages.table(order, before.long("stages", same)),
    }
    # What tells tables of one collection from those of another.
    about |= {"trials": table_digest(made["trials"], canonical_json(about))}
    written = {name: write_table(out / f"{name}.parquet", table, about) for name, table in made.items()}
    damaged = {trial_id: text for source in found for trial_id, text in source.damaged.items()}
    # What is damaged is looked at again next time, and told again.
    known = {trial_id: stamp for trial_id, stamp in stamps.items() if trial_id not in damaged}
    write_json(out / STAMPS, {"by": _version(), "tables": written, "trials": known})
    unplanned = [source.unplanned for source in found if source.unplanned]
    return replace(as_results(made, about["sweeps"]), notes=(*damaged.values(), *unplanned))


def _label_column(path: str, plans: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return label_declarations(str(plan[path]) for plan in plans if plan.get(path))


def _labelled(plan: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A plan's columns with task, proxy and body as people call them, and the declarations behind these names."""
    named = {path: labels.get(plan[path], plan[path]) for path in DECLARED_FIELDS if path in plan}
    declared = {f"{path}_declared": plan[path] if plan[path] != name else None for path, name in named.items()}
    return {**plan, **named, **declared}


def _with_names(about: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What is said of a space, its margins under the names that rows have for tasks."""
    margins = about.get("margins", {}).items()
    return {**about, "margins": {name: margin for task, margin in margins for name in names.get(task, (task,))}}


def _check_target(out: Path) -> None:
    """Refuses a folder with tables that no collect has written: they would be replaced."""
    tables = [path for path in (out / f"{name}.parquet" for name in TABLES) if path.is_symlink() or path.exists()]
    is_after_collect = _left(out) is not None
    foreign = [path for path in tables if _is_foreign(path, is_after_collect)]
    if not tables and not is_after_collect and (out / STAMPS).exists():
        foreign = [out / STAMPS]
    if not foreign:
        return
    raise InputError(
        [
            f"{path}: is there, and was not written by orca-sweep. Nothing is replaced. Name another folder with -o, or move"
            " it away."
            for path in foreign
        ]
    )


def _is_foreign(path: Path, is_after_collect: bool) -> bool:
    """Whether no collect has written the file.

    Where a collect has been, a table of trials that was edited since is ours, and so is one that cannot be read.
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


def _left(out: Path) -> dict[str, Any] | None:
    """What the last collect into a folder says of it; None if there is no such word, or not from a collect."""
    try:
        return read_record_file(out / STAMPS, STAMPS_FILE, "")
    except DamagedError:
        return None


def _version() -> list[Any]:
    columns = [column.name for part in (trial_columns(), EPOCH_COLUMNS, STAGE_COLUMNS) for column in part]
    return [TABLE_SCHEMA, __version__, digest("columns", columns)]


def _best(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first ok record, those that are revealed before others; else the first of a trial that was run at all."""
    ok = [record for record in records if record["row"]["status"] == "ok"]
    ok.sort(key=lambda record: bool(record["row"].get("is_sealed")))
    ended = [record for record in records if record["row"]["status"] != UNFINISHED]
    return (ok or ended or records)[0]


# Sources ------------------------------------------------------------------------------------------


class _Source:
    """Where trials come from."""

    abouts: Sequence[Mapping[str, Any]]
    """What is said of its spaces, one by one."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}
        """Of the records read so far those that are damaged, by trial, and what is to be said of each."""
        self.unplanned: str | None = None
        """What is to be said of records that are of no planned trial."""

    def uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        """Yields what each trial is for, with the columns that its plan fills."""
        raise NotImplementedError

    def stamp(self, trial_id: str) -> str:
        """Returns what changes when the trial's record does."""
        raise NotImplementedError

    def record(self, trial_id: str) -> dict[str, Any]:
        """Returns a trial's row, epochs and stages."""
        raise NotImplementedError


def _sources(paths: Iterable[Path]) -> list[_Source]:
    found: list[_Source] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            is_tables = not os.path.lexists(path / MANIFEST) and os.path.lexists(path / "trials.parquet")
            found.append(_Tables(path) if is_tables else _Sweep(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


class _Sweep(_Source):
    """A sweep folder: its plan and the records of its trials."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        names = list_trial_folders(folder)
        self.folder, self.manifest = folder, require_manifest(folder)
        self.unplanned = describe_unplanned(folder, names, self.manifest)
        self.log = reveals(folder)
        self.revealed = {trial_id: one.time for one in self.log for trial_id in one.trials}
        self.abouts = [{**self._about(), "reveals": [[one.time, len(one.trials)] for one in self.log]}]

    def _about(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "space": manifest.name,
            "question": manifest.question,
            "factors": list(manifest.factors),
            "tuned": list(manifest.tune),
            "worst": [status for status, rule in manifest.outcomes.items() if rule.then == "worst"],
            "metric": manifest.metric,
            "margins": _margins(manifest),
        }

    def uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        levels = {cell_id: canonical_json(labels) for cell_id, labels in self.manifest.labels.items()}
        for trial in self.manifest.all_trials:
            use = (trial["trial_id"], trial["cell_id"], trial["role"])
            # The plan says what a trial is for; its own record knows the config alone.
            about = {"space": self.manifest.name, "cell_id": use[1], "role": use[2]}
            yield use, {**trial["config"], **about, "levels": levels.get(use[1].removesuffix("-aa"))}

    def stamp(self, trial_id: str) -> str:
        stamp = _stamp(record_path(self.folder, trial_id))
        return stamp and f"{stamp}-{self.revealed.get(trial_id, '')}"

    def record(self, trial_id: str) -> dict[str, Any]:
        try:
            record = read_record(self.folder, trial_id)
        except DamagedError as error:
            self.damaged[trial_id] = str(error)
            return {"row": {"trial_id": trial_id, "status": "lost", "error": str(error)}, "epochs": []}
        if record is None:
            return {"row": {"trial_id": trial_id, "status": UNFINISHED, "error": NOT_RUN}, "epochs": []}
        is_sealed = "sealed" in record and trial_id not in self.revealed
        row = {**record["row"], "is_sealed": is_sealed, "revealed_at": self.revealed.get(trial_id)}
        if row["status"] != "ok":
            text = read_traceback(self.folder, trial_id)
            row["traceback"] = None if text is None else text[-TRACEBACK_CHARS:]
        if row.get("started_at"):
            row["n_reveals_before"] = sum(one.time <= row["started_at"] for one in self.log)
        return {**record, "row": row if is_sealed else {**row, **unsealed(record)}}


def _margins(manifest: SweepManifest) -> dict[str, float]:
    """The margin that a space fixes for each task that it runs; one for all tasks is told of each."""
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
        texts = {row["task"]: text for row in self.trials if (text := _declared(row).get("task"))}
        self.abouts = [
            _with_names(part, {name: [text] for name, text in texts.items()}) for part in read_about(folder)["sweeps"]
        ]
        self.by_id = {row["trial_id"]: row for row in self.trials}
        self.written = "-".join(map(str, _tables_stamp(folder).values()))

    def uses(self) -> Iterator[tuple[Use, Mapping[str, Any]]]:
        planned = ("space", "levels", "cell_id", *knobs(), *CONTENTS)
        for row in self.trials:
            row = {**row, "cell_id": without_split(row["cell_id"])}
            use = (row["trial_id"], row["cell_id"], row["role"])
            settings = {name: row[name] for name in planned if name in row} | _declared(row)
            yield use, {**settings, "role": use[2]}

    def stamp(self, trial_id: str) -> str:
        return self.written

    def record(self, trial_id: str) -> dict[str, Any]:
        return {"row": self.by_id[trial_id], **{name: part(trial_id) for name, part in self._long.items()}}

    @cached_property
    def _long(self) -> dict[str, Callable[[str], list[dict[str, Any]]]]:
        return {name: _by_trial(read_table(self.folder, name)) for name in ("epochs", "stages")}


def _declared(row: Mapping[str, Any]) -> dict[str, str]:
    """Task, proxy and body of a row as its config has them, where they have another name in the table."""
    return {path: row[f"{path}_declared"] for path in DECLARED_FIELDS if row.get(f"{path}_declared")}


def _by_trial(table: "pa.Table") -> Callable[[str], list[dict[str, Any]]]:
    """Returns a function that gives a trial's rows of a table."""
    import numpy as np

    ids = table["trial_id"].to_numpy(zero_copy_only=False)
    places: dict[str, list[int]] = {}
    for trial_id, part in groupby(range(len(ids)), key=ids.__getitem__):
        places.setdefault(str(trial_id), []).extend(part)
    return lambda trial_id: table.take(np.array(places.get(trial_id, []), dtype=np.int64)).to_pylist()


class _Before:
    """What the last collect into a folder has left there, if it is whole and of this version."""

    def __init__(self, folder: Path) -> None:
        self.stamps: Mapping[str, str] = {}
        self.tables: dict[str, pa.Table] = {}
        try:
            left = read_record_file(folder / STAMPS, STAMPS_FILE, "")
            if left and left["by"] == _version() and left["tables"] == _tables_stamp(folder):
                self.tables = {name: read_table(folder, name) for name in TABLES}
                self.stamps = left["trials"]
        except InputError:  # what is damaged is made anew
            return

    def rows(self, same: Sequence[str]) -> dict[str, dict[str, Any]]:
        if not same:
            return {}
        wanted = set(same)
        return {row["trial_id"]: row for row in self.tables["trials"].to_pylist() if row["trial_id"] in wanted}

    def long(self, name: str, same: Sequence[str]) -> "list[pa.Table]":
        import pyarrow as pa
        import pyarrow.compute as pc

        if not same:
            return []
        table = self.tables[name]
        return [table.filter(pc.is_in(table["trial_id"], pa.array(same, pa.string())))]


def _tables_stamp(folder: Path) -> dict[str, str]:
    """What changes when somebody else writes one of the tables."""
    return {name: _stamp(folder / f"{name}.parquet") for name in TABLES}


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"errno {error.errno}"
    return f"{status.st_mtime_ns}-{status.st_size}"


def _about(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    unique = {canonical_json(sweep): sweep for sweep in sweeps}
    return {"schema_version": TABLE_SCHEMA, "sweeps": list(unique.values())}


# Writing ------------------------------------------------------------------------------------------


def write_table(path: Path, table: "pa.Table", about: Mapping[str, Any]) -> str:
    """Writes a table whole or not at all, with what is known about it in its metadata; returns its stamp.

    Raises:
        StorageError: if it cannot be written; what was there before stays.
    """
    import pyarrow.parquet as pq

    about = {name: value for name, value in about.items() if name != CHECKSUM}
    metadata = {"orca_sweep": canonical_json({**about, CHECKSUM: table_digest(table, canonical_json(about))})}
    with write_whole(str(path)) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, row_group_size=ROW_GROUP)
        return _stamp(Path(temporary))  # of this very file: another may take its place at once


# One trial ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """One trial as it is recorded."""

    trial_id: str
    config: Mapping[str, Any]
    """Flat."""
    row: Mapping[str, Any]
    tests: Mapping[str, Any]
    """Its test metrics, sealed or not: for comparing, not for showing, as long as ``is_sealed``."""
    is_sealed: bool


def find_trial(source: Path, start: str) -> Recorded:
    """Returns the trial of a sweep or of collected tables whose id begins so.

    Raises:
        InputError: if there is none, or several, or the source holds neither.
    """
    (found,) = _sources([source])
    plans = {use[0]: plan for use, plan in found.uses() if use[0].startswith(start)}
    if len(plans) != 1:
        near = get_close_matches(start, {use[0] for use, _ in found.uses()}, n=1)
        known = ", ".join(list(plans)[:5]) or (
            f"the nearest is {near[0]}" if near else "see trial_id in the trials table"
        )
        raise InputError(f"{source}: {len(plans) or 'no'} trials have an id that begins with {start!r}: {known}.")
    ((trial_id, plan),) = plans.items()
    record = found.record(trial_id)
    if found.damaged:
        raise InputError(list(found.damaged.values()))
    config = {name: value for name, value in plan.items() if name in knobs() or name in CONTENTS}
    is_sealed = bool(record["row"].get("is_sealed"))
    return Recorded(trial_id, config, record["row"], unsealed(record), is_sealed)
