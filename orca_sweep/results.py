"""From trial records to Parquet tables and back: schemas with units and meanings, merge, read.

A sweep folder holds ``sweep.json`` (the plan last launched), ``planned.jsonl`` (a line for each trial that
was planned while it ran) and ``trials/<trial_id>/row.json`` (one record per finished trial, with its epochs).
These records are the truth; the tables are made from them and can be made again at any time, also while the
sweep runs.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from orca_sweep.config import canonical_json, knobs
from orca_sweep.errors import InputError
from orca_sweep.stats import Interval, t_interval
from orca_sweep.store import whole, writing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLE_SCHEMA = 1
Status = Literal["ok", "failed", "diverged", "oom", "timeout", "lost", "pruned"]
# A finished outcome is not run again; what failed or was lost is.
FINAL_STATUSES = ("ok", "diverged", "pruned")
ColumnType = Literal["string", "int64", "double", "bool"]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    unit: str
    meaning: str


TRIAL_MEASURES = (
    Column("trial_id", "string", "", "hash of the whole config, seed included"),
    Column(
        "cell_id", "string", "", "hash of the config without seed and tuned fields; of the A/A arm with '-aa' behind it"
    ),
    Column("role", "string", "", "replicate; search: a candidate of its cell's tuning; aa: the reference cell again"),
    Column("space", "string", "", "name of the space that planned the trial"),
    Column("status", "string", "", "ok, failed, diverged, oom, timeout, lost or pruned"),
    Column("error", "string", "", "what ended a trial that is not ok"),
    Column("metric", "string", "", "the task's metric; every metric is an error to minimise"),
    Column("val_metric_best", "double", "metric", "validation metric of the best-validated epoch"),
    Column("val_metric_last", "double", "metric", "validation metric of the last epoch"),
    Column("test_metric_best", "double", "metric", "test metric of the best-validated epoch, scored once at the end"),
    Column("test_metric_last", "double", "metric", "test metric of the last epoch, scored once at the end"),
    Column("test_more_best", "string", "", "JSON: the task's further metrics on test, best-validated epoch"),
    Column("test_more_last", "string", "", "JSON: the task's further metrics on test, last epoch"),
    Column("n_test_unscored", "int64", "classes", "classes (mae8: proteins; r2-error: outputs) the metric leaves out"),
    Column("best_epoch", "int64", "epochs", "fine-tuning epoch with the lowest validation metric (first of equals)"),
    Column("n_steps", "int64", "optimizer steps", "fine-tuning optimizer steps done"),
    Column("objective_first", "double", "squared feature units", "alignment objective at embedder epoch 0"),
    Column("objective_last", "double", "squared feature units", "alignment objective after embedder training"),
    Column("n_target_classes_skipped", "int64", "classes", "target classes with one sample, left out of the alignment"),
    Column("n_proxy_classes_skipped", "int64", "classes", "proxy classes with one sample, left out by otdd"),
    Column("pretrain_metric", "double", "", "held-out score of our own pre-training: error (images) or loss (text)"),
    Column("n_parameters", "int64", "", "parameters of embedder, body and predictor"),
    Column("n_trainable_first", "int64", "", "trainable parameters in the first fine-tuning phase"),
    Column("n_trainable_last", "int64", "", "trainable parameters in the last fine-tuning phase"),
    Column("n_train", "int64", "samples", "training samples used"),
    Column("n_val", "int64", "samples", "validation samples"),
    Column("n_test", "int64", "samples", "test samples"),
    Column("data_s", "double", "s", "loading and splitting the task"),
    Column("body_s", "double", "s", "pre-training or loading the body"),
    Column("proxy_s", "double", "s", "proxy features"),
    Column("embedder_s", "double", "s", "embedder training"),
    Column("finetune_s", "double", "s", "fine-tuning with validation"),
    Column("test_s", "double", "s", "scoring the test split"),
    Column("wall_time_s", "double", "s", "the whole trial; of the last attempt if it was resumed"),
    Column("reused", "string", "", "stages taken from the store, comma-separated"),
    Column("reused_s", "double", "s", "what the reused stages cost when they were computed"),
    Column("resumed_from_epoch", "int64", "epochs", "epoch of the checkpoint the last attempt took up; 0 = none"),
    Column("state_sha256", "string", "", "hash of the last epoch's weights: equal means bit-equal"),
    Column("data_sha256", "string", "", "hash of the task's three splits as used"),
    Column("proxy_sha256", "string", "", "hash of the proxy data"),
    Column("body_sha256", "string", "", "hash of the body's weights before the trial"),
    Column("device", "string", "", "cpu or cuda"),
    Column("n_threads", "int64", "", "torch threads; another count may change the last bits"),
    Column("host", "string", "", "node the trial ran on"),
    Column("code_version", "string", "", "version of this program"),
    Column("versions", "string", "", "versions of the libraries that change numbers"),
)
EPOCH_COLUMNS = (
    Column("trial_id", "string", "", "the trial"),
    Column("stage", "string", "", "embedder (stage 2) or finetune (stage 3)"),
    Column("epoch", "int64", "epochs", "1 is the first; embedder epoch 0 is the untrained embedder"),
    Column("train_loss", "double", "task loss", "mean training loss over the epoch's samples"),
    Column("val_loss", "double", "task loss", "loss on the whole validation split"),
    Column("val_metric", "double", "metric", "metric on the whole validation split"),
    Column("objective", "double", "squared feature units", "class-weighted alignment objective after this epoch"),
    Column("lr", "double", "", "learning rate of the epoch's last optimizer step"),
    Column("n_trainable", "int64", "", "trainable parameters in this epoch"),
    Column("wall_time_s", "double", "s", "time of the epoch when it was computed"),
)


def trial_columns() -> tuple[Column, ...]:
    """Returns the columns of trials.parquet: measures, then every field of a trial's config, typed."""
    fields = (Column(knob.path, knob.column_type, "", knob.meaning) for knob in knobs().values())
    return (*TRIAL_MEASURES, *fields)


# Records ------------------------------------------------------------------------------------------


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically.

    Raises:
        StorageError: if it cannot be written; what was there before stays.
    """
    with whole(str(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(canonical_json(value))
        file.flush()
        os.fsync(file.fileno())  # a machine that loses its power must not leave an empty file under the right name


def write_record(folder: Path, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes a trial's record into the sweep folder; its presence says that the trial ended."""
    path = folder / "trials" / str(row["trial_id"]) / "row.json"
    write_json(path, {"row": finite(row), "epochs": [finite(epoch) for epoch in epochs]})


def read_record(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns a trial's record, or None if it has not ended (or its record is damaged: it is then run again)."""
    try:
        record = json.loads((folder / "trials" / trial_id / "row.json").read_text(encoding="utf-8"))
        is_ours = record["row"]["trial_id"] == trial_id and "status" in record["row"] and "epochs" in record
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    return record if is_ours else None


def read_row(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """Returns the row of a trial's record, or None where there is no record."""
    record = read_record(folder, trial_id)
    return record["row"] if record else None


PLANNED, BEFORE = "planned.jsonl", "planned-before.json"
ROLE = "replicate"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes what the sweep folder says of itself.

    What was planned on the way last time is planned anew, cell by cell; until it is, it stands.
    """
    write_json(folder / BEFORE, _on_the_way(folder))
    (folder / PLANNED).unlink(missing_ok=True)
    write_json(folder / "sweep.json", manifest)


def append_planned(folder: Path, trials: Iterable[Mapping[str, Any]]) -> None:
    """Adds trials to the plan of a running sweep."""
    with writing(folder / PLANNED), (folder / PLANNED).open("a", encoding="utf-8") as file:
        file.writelines(f"{canonical_json(trial)}\n" for trial in trials)


def _on_the_way(folder: Path) -> list[dict[str, Any]]:
    """Trials planned on the way, now or by an earlier launch, whichever is the last word on a cell and role."""
    now = _planned(folder)
    anew = {(trial["cell_id"], trial.get("role")) for trial in now}
    try:
        before = json.loads((folder / BEFORE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = []
    kept = [trial for trial in before if (trial["cell_id"], trial.get("role")) not in anew]
    unique = {(trial["trial_id"], trial["cell_id"], trial.get("role")): trial for trial in (*kept, *now)}
    return [{**trial, "on_the_way": True} for trial in unique.values()]


def _planned(folder: Path) -> list[dict[str, Any]]:
    """Trials that this launch has planned on the way; a line that a killed driver left half-written is none."""
    try:
        lines = (folder / PLANNED).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            trial = json.loads(line)
            found += [trial] if isinstance(trial, dict) and {"trial_id", "cell_id", "config"} <= trial.keys() else []
    return found


class DamagedError(InputError):
    """What the sweep folder says of itself cannot be read; its trials' records can."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns what the sweep folder says of itself, or None if it holds no sweep.

    Raises:
        DamagedError: if the file is there but is not JSON.
        InputError: if it is not ours.
    """
    path = folder / "sweep.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedError(
            f"{path}: damaged, not JSON ({error}). Launch the sweep's space again with --out {folder}: it writes the file"
            " anew and keeps the trials that have ended."
        ) from None
    if not isinstance(manifest, dict) or not {"name", "trials", "factors"} <= manifest.keys():
        raise InputError(f"{path}: not written by orca-sweep. Give another folder with --out.")
    planned = _in_order(manifest, _on_the_way(folder))
    left = max(0, manifest.get("n_later", 0) - len(planned))
    return {**manifest, "n_later": left, "trials": [*manifest["trials"], *planned]}


def _in_order(manifest: Mapping[str, Any], planned: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials planned on the way by cell and role: which cell was searched first is chance, and no matter of tables."""
    cells = [cell["cell_id"] for cell in manifest.get("tuned", ())]
    places = {cell_id: place for place, cell_id in enumerate(cells)} | {
        f"{cell_id}-aa": len(cells) for cell_id in cells
    }
    ours = [trial for trial in planned if trial["cell_id"] in places]
    return sorted(ours, key=lambda trial: (places[trial["cell_id"]], trial["role"] != "search"))


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinity become null: JSON has no word for them."""
    return {k: None if isinstance(v, float) and not -float("inf") < v < float("inf") else v for k, v in row.items()}


# Tables -------------------------------------------------------------------------------------------


def collect(folders: Iterable[Path], out: Path) -> "Results":
    """Merges sweep folders into ``out/trials.parquet`` and ``out/epochs.parquet`` and returns them.

    One row per planned trial: one without a record is a row with status ``lost``. A trial that stands
    in several folders is taken once, the first ok record first; one that is the same work in two cells, or a
    replicate here and of the A/A arm there, has a row for each. Reading the same folders again gives the same tables.

    Raises:
        InputError: if a folder holds no sweep.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    epochs: dict[str, list[dict[str, Any]]] = {}
    manifests = [(folder, manifest_of(folder)) for folder in folders]
    for folder, manifest in manifests:
        for planned in manifest["trials"]:
            record = read_record(folder, planned["trial_id"]) or {"row": _lost(planned), "epochs": []}
            trial_id, role = planned["trial_id"], planned.get("role", ROLE)
            use = (trial_id, planned["cell_id"], role)
            if use not in rows or (rows[use]["status"] != "ok" and record["row"]["status"] == "ok"):
                # The plan says what a trial is for; its own record knows the config alone.
                known = {"space": manifest["name"], "cell_id": planned["cell_id"], "role": role}
                rows[use] = {**record["row"], **planned["config"], **known}
                epochs[trial_id] = [{**epoch, "trial_id": trial_id} for epoch in record["epochs"]]
    about = _about([manifest for _, manifest in manifests])
    out.mkdir(parents=True, exist_ok=True)
    _write_table(out / "trials.parquet", list(rows.values()), trial_columns(), about)
    _write_table(out / "epochs.parquet", [e for part in epochs.values() for e in part], EPOCH_COLUMNS, about)
    return read_results(out)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Returns what a sweep folder says of itself.

    Raises:
        InputError: if it holds no sweep, or is not ours.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no sweep here (no sweep.json). Name a folder that 'orca-sweep launch' wrote.")
    return manifest


NO_RECORD = "no record: not run yet, or lost with its worker; launch again"


def _lost(planned: Mapping[str, Any]) -> dict[str, Any]:
    ids = {key: planned[key] for key in ("trial_id", "cell_id")}
    return {**ids, "status": "lost", "error": NO_RECORD}


def _about(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    factors = dict.fromkeys(path for manifest in manifests for path in manifest["factors"])
    return {
        "schema_version": TABLE_SCHEMA,
        "spaces": [manifest["name"] for manifest in manifests],
        "questions": [manifest.get("question", "") for manifest in manifests],
        "factors": list(factors),
        "tuned": list(dict.fromkeys(path for manifest in manifests for path in manifest.get("tune", ()))),
        "worst": {
            manifest["name"]: [s for s, rule in manifest.get("outcomes", {}).items() if rule["then"] == "worst"]
            for manifest in manifests
        },
        "metric": manifests[0].get("metric", "test_metric_best") if manifests else "test_metric_best",
        "mode": "min",
    }


def _write_table(path: Path, rows: list[dict[str, Any]], columns: tuple[Column, ...], about: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([_field(column) for column in columns], metadata={"orca_sweep": canonical_json(about)})
    arrays = [pa.array([_cell(row.get(c.name), c) for row in rows], type=schema.field(c.name).type) for c in columns]
    with whole(str(path)) as temporary:
        pq.write_table(pa.table(arrays, schema=schema), temporary)


def _field(column: Column) -> "pa.Field":
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
    return pa.field(column.name, types[column.type], metadata={"unit": column.unit, "meaning": column.meaning})


def _cell(value: object, column: Column) -> object:
    """A value in its column's type (``forever`` and a number share one text column)."""
    return str(value) if column.type == "string" and value is not None else value


@dataclass(frozen=True)
class Results:
    """The tables of one or more sweeps."""

    trials: "pd.DataFrame"
    epochs: "pd.DataFrame"
    factors: tuple[str, ...]
    metric: str
    spaces: tuple[str, ...]
    questions: tuple[str, ...]
    tuned: tuple[str, ...] = ()
    """Config fields that were searched within each cell."""
    worst: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By space, the statuses that are scored as the worst trial of their task."""


def read_results(folder: Path | str) -> Results:
    """Reads the tables that ``collect`` or ``launch`` wrote.

    Raises:
        InputError: if a table is missing or damaged, lacks a column, or is of a newer schema.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    frames: dict[str, pd.DataFrame] = {}
    about: dict[str, Any] = {}
    for name, columns in (("trials", ("trial_id", "cell_id", "seed", "status")), ("epochs", ("trial_id", "stage"))):
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"{path}: no such table. Make it with 'orca-sweep collect SWEEP_FOLDER -o {folder}'.")
        try:
            about = json.loads((pq.read_schema(path).metadata or {}).get(b"orca_sweep", b"{}"))
            frames[name] = pd.read_parquet(path)
        except pa.ArrowException as error:
            raise InputError(
                f"{path}: damaged, or no Parquet file ({error}). Make it anew with 'orca-sweep collect'."
            ) from None
        if about.get("schema_version", TABLE_SCHEMA) > TABLE_SCHEMA:
            raise InputError(f"{path}: schema version {about['schema_version']} is newer than {TABLE_SCHEMA}. Upgrade.")
        missing = [column for column in columns if column not in frames[name]]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}. It was not written by orca-sweep.")
    return Results(
        trials=frames["trials"],
        epochs=frames["epochs"],
        factors=tuple(about.get("factors", ())),
        metric=about.get("metric", "test_metric_best"),
        spaces=tuple(about.get("spaces", ())),
        questions=tuple(about.get("questions", ())),
        tuned=tuple(about.get("tuned", ())),
        worst=about.get("worst", {}),
    )


# Summary ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellSummary:
    """One cell: its levels, the interval of its metric over seeds, and the rows it lacks."""

    cell_id: str
    role: str
    """replicate, or aa: the reference cell again with seeds of its own."""
    levels: Mapping[str, Any]
    task: str
    metric: str
    interval: Interval
    n_not_ok: int
    statuses: Mapping[str, int]
    n_worst: int = 0
    """Replicates that are not ok and were scored as the worst of their task, as the space's outcomes ask."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What tuning within the cell has found."""
    n_searched: int = 0
    """Trials of that tuning."""


def summarise(results: Results, metric: str | None = None, level: float = 0.95) -> tuple[CellSummary, ...]:
    """Returns each cell's Student-t interval over its ok replicates, in the order of the table.

    Candidates of tuning are not averaged: they were compared to choose by. Rows that are not ok are counted, never
    averaged over: ``n_not_ok`` says how many a cell lacks. Where the space's ``outcomes`` score a status as worst, such
    a row counts with the highest value that an ok replicate of its task has.
    """
    # Cutting a table of all columns into its cells takes most of the time.
    needed = ("cell_id", "role", "task", "metric", "status", "value", "counts", *results.factors, *results.tuned)
    cells = scored(results, metric)[list(dict.fromkeys(needed))].groupby("cell_id", sort=False)
    return tuple(_summary(str(cell_id), rows, results, level) for cell_id, rows in cells)


def scored(results: Results, metric: str | None = None) -> "pd.DataFrame":
    """Returns the trials with what each counts with in its cell's mean: ``value``, where ``counts`` says that it does.

    An ok trial counts with its metric; where the space's ``outcomes`` score its status as worst, one that is not ok counts
    with the highest metric that an ok trial of its task has; all others, and candidates of tuning, do not count.

    Raises:
        InputError: if the metric is no column.
    """
    import pandas as pd

    column = metric or results.metric
    if column not in results.trials:
        known = ", ".join(c.name for c in TRIAL_MEASURES if c.unit == "metric" and c.name in results.trials)
        raise InputError(f"metric {column!r} is no column of the trials table. Take one of: {known}.")
    trials = with_roles(results.trials)
    replicates = trials["role"] != "search"
    ok = replicates & (trials["status"] == "ok")
    statuses = zip(trials["status"], trials["space"], strict=True)
    asked = pd.Series([s in results.worst.get(space, ()) for s, space in statuses], index=trials.index, dtype=bool)
    worst = trials["task"].map(trials[ok].groupby("task")[column].max()).astype(float)
    # What was never run has no outcome.
    ended = trials["error"] != NO_RECORD if "error" in trials else True
    as_worst = replicates & ~ok & asked & ended & worst.notna()
    value = trials[column].astype(float).where(ok, worst.where(as_worst))
    return trials.assign(value=value, counts=ok | as_worst)


def with_roles(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the table with its roles; in one of before there were any, all trials are replicates."""
    return trials if "role" in trials else trials.assign(role=ROLE)


def _summary(cell_id: str, whole: "pd.DataFrame", results: Results, level: float) -> CellSummary:
    rows = whole[whole["role"] != "search"]
    ok = rows[rows["status"] == "ok"]
    first = (rows if len(rows) else whole).iloc[0]
    names = ok["metric"].dropna().unique()
    return CellSummary(
        cell_id=cell_id,
        role=str(first["role"]) if len(rows) else ROLE,
        levels={path: first[path] for path in results.factors},
        task=str(first["task"]),
        metric=str(names[0]) if len(names) else "",
        interval=t_interval(rows.loc[rows["counts"], "value"].to_numpy(dtype=float), level),
        n_not_ok=len(rows) - len(ok),
        n_worst=int(rows["counts"].sum()) - len(ok),
        chosen={path: first[path] for path in results.tuned} if len(rows) else {},
        n_searched=len(whole) - len(rows),
        statuses={str(k): int(v) for k, v in rows["status"].value_counts().items()},
    )


# Status -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A trial that is not ok."""

    trial_id: str
    status: str
    error: str
    last_line: str | None
    """Of its traceback, if it left one."""


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is, read from its folder alone."""

    name: str
    n_planned: int
    n_later: int
    """Trials that may still be planned, from the results of those that are."""
    statuses: Mapping[str, int]
    """Trials by status; ``unfinished`` have no record yet."""
    is_running: bool | None
    """Whether a launch holds the folder; None if that cannot be told from here."""
    started: tuple[str, ...]
    """Unfinished trials that have left something behind."""
    trials_per_hour: float | None
    """Of the last launch."""
    eta_s: float | None
    cpu_hours: float | None
    gpu_hours: float | None
    failures: tuple[Failure, ...]


def sweep_status(folder: Path) -> SweepStatus:
    """Returns how far a sweep is, while it runs as well as after it died.

    Raises:
        InputError: if the folder holds no sweep.
    """
    manifest = manifest_of(folder)
    records = {t["trial_id"]: read_record(folder, t["trial_id"]) for t in manifest["trials"]}
    rows = {trial_id: record["row"] for trial_id, record in records.items() if record}
    statuses: dict[str, int] = {}
    for trial_id in records:
        status = rows[trial_id]["status"] if trial_id in rows else "unfinished"
        statuses[status] = statuses.get(status, 0) + 1
    running = _is_held(folder / ".lock")
    rate = _rate(folder, rows, running)
    n_left = statuses.get("unfinished", 0) + manifest["n_later"]
    used = manifest.get("resources")
    hours = sum(row.get("wall_time_s") or 0 for row in rows.values()) / 3600
    return SweepStatus(
        name=manifest["name"],
        n_planned=len(records),
        n_later=manifest["n_later"],
        statuses=statuses,
        is_running=running,
        started=tuple(t for t in records if t not in rows and (folder / "trials" / t).is_dir()),
        trials_per_hour=rate,
        eta_s=3600 * n_left / rate if rate and running and n_left else None,
        cpu_hours=hours * used["cpu"] if used else None,
        gpu_hours=hours * used["gpu"] if used else None,
        failures=tuple(_failure(folder, row) for row in rows.values() if row["status"] not in ("ok", "pruned")),
    )


def _is_held(lock: Path) -> bool | None:
    """Whether another process holds a lock file."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return None


def _rate(folder: Path, rows: Iterable[str], running: bool | None) -> float | None:
    """Trials an hour since the last launch wrote its plan."""
    start = (folder / "sweep.json").stat().st_mtime
    ends = []
    for trial_id in rows:
        with contextlib.suppress(FileNotFoundError):  # a record is taken away when its trial is tried again
            ends.append((folder / "trials" / trial_id / "row.json").stat().st_mtime)
    ends = [end for end in ends if end >= start]
    if not ends:
        return None
    return 3600 * len(ends) / max((time.time() if running else max(ends)) - start, 1e-3)


def _failure(folder: Path, row: Mapping[str, Any]) -> Failure:
    path = folder / "trials" / row["trial_id"] / "error.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
    return Failure(row["trial_id"], row["status"], str(row.get("error") or ""), lines[-1] if lines else None)
