"""Cells of a table, each with the interval of its metric over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError
from orca_sweep.results.columns import SEALED_COLUMNS, TRIAL_MEASURES, validation_twin
from orca_sweep.results.tables import NO_RECORD, Results
from orca_sweep.stats import Interval, t_interval
from orca_sweep.stats.modes import Mode

if TYPE_CHECKING:
    import pandas as pd


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
    mode: Mode = "min"
    """Which way round the metric is compared."""
    unit: str = ""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What tuning within the cell has found."""
    n_searched: int = 0
    """Trials of that tuning."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its levels as people read them."""

    def label(self, path: str) -> str:
        """Returns the level of a factor as people read it."""
        return self.labels[path] if path in self.labels else write_level(self.levels.get(path))


def summarise(results: Results, metric: str | None = None, level: float = 0.95) -> tuple[CellSummary, ...]:
    """Returns each cell's Student-t interval over its ok replicates, in the order of the table.

    Candidates of tuning are not averaged: they were compared to choose by. Rows that are not ok are counted, never
    averaged over: ``n_not_ok`` says how many a cell lacks. Where the space's ``outcomes`` score a status as worst, such
    a row counts with the worst value that an ok replicate of its task has.
    """
    # Cutting a table of all columns into its cells takes most of the time.
    needed = ("cell_id", "role", "task", "metric", "status", "value", "counts", *results.factors, *results.tuned)
    cells = scored(results, metric)[list(dict.fromkeys(needed))].groupby("cell_id", sort=False)
    metrics = read_task_metrics(results.trials)
    return tuple(_summary(str(cell_id), rows, results, level, metrics) for cell_id, rows in cells)


def scored(results: Results, metric: str | None = None) -> "pd.DataFrame":
    """Returns the trials with what each counts with in its cell's mean: ``value``, where ``counts`` says that it does.

    An ok trial counts with its metric; where the space's ``outcomes`` score its status as worst, one that is not ok counts
    with the worst metric that an ok trial of its task has; all others, and candidates of tuning, do not count.

    Raises:
        InputError: if the metric is no column, or is sealed, or the ok trials of a task differ in what they measure.
    """
    import pandas as pd

    column = metric or results.metric
    if column not in results.trials:
        known = ", ".join(c.name for c in TRIAL_MEASURES if c.unit == "metric" and c.name in results.trials)
        raise InputError(f"metric {column!r} is no column of the trials table. Take one of: {known}.")
    if column in SEALED_COLUMNS and results.n_sealed:
        raise InputError(
            f"metric {column!r}: the test metrics of {results.n_sealed} ok trials are sealed. Compare on validation"
            f" ({validation_twin(column)}), or show them with 'orca-sweep reveal SWEEP_FOLDER'."
        )
    trials = with_roles(results.trials)
    replicates = trials["role"] != "search"
    ok = replicates & (trials["status"] == "ok")
    statuses = zip(trials["status"], trials["space"], strict=True)
    asked = pd.Series([s in results.worst.get(space, ()) for s, space in statuses], index=trials.index, dtype=bool)
    modes = {task: metric.mode for task, metric in read_task_metrics(trials).items()}
    by_task = trials[ok].groupby("task")[column].agg(["min", "max"])
    of_task = {task: by_task.loc[task, "max" if modes[str(task)] == "min" else "min"] for task in by_task.index}
    worst = trials["task"].map(of_task).astype(float)
    # What was never run has no outcome.
    ended = trials["error"] != NO_RECORD if "error" in trials else True
    as_worst = replicates & ~ok & asked & ended & worst.notna()
    value = trials[column].astype(float).where(ok, worst.where(as_worst))
    return trials.assign(value=value, counts=ok | as_worst)


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """What the trials of a task are compared on, as their rows say it."""

    name: str = ""
    """Empty as long as no trial is ok."""
    mode: Mode = "min"
    unit: str = ""


def read_task_metrics(trials: "pd.DataFrame") -> dict[str, TaskMetric]:
    """Returns the metric of each task; rows that name none, as of trials that were never run, do not count.

    Raises:
        InputError: for each task whose ok trials differ in it: no mean may be taken over two metrics.
    """
    columns = [name for name in ("metric", "metric_mode", "metric_unit") if name in trials]
    made = {str(task): TaskMetric() for task in trials["task"].unique()}
    known = trials[trials["status"].isin(("ok", "pruned"))].dropna(subset=columns[:1]) if columns else trials.iloc[:0]
    problems = []
    for task, rows in known.groupby("task", sort=False):
        facts = rows[columns].drop_duplicates().to_dict("records")
        if len(facts) > 1:
            texts = " and ".join(
                " ".join(str(value) for value in one.values() if value == value and value) for one in facts
            )
            problems.append(
                f"{task}: its trials were compared on different metrics ({texts}), and no mean may be taken over both. Collect"
                " the sweeps that they come from into tables of their own, or give one of the tasks another name."
            )
        first = {key: value for key, value in facts[0].items() if isinstance(value, str)}
        mode: Mode = "max" if first.get("metric_mode") == "max" else "min"
        made[str(task)] = TaskMetric(name=first.get("metric", ""), mode=mode, unit=first.get("metric_unit", ""))
    if problems:
        raise InputError(problems)
    return made


def with_roles(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the table with its roles; in one of before there were any, all trials are replicates."""
    return trials if "role" in trials else trials.assign(role="replicate")


def _summary(
    cell_id: str, whole: "pd.DataFrame", results: Results, level: float, metrics: Mapping[str, TaskMetric]
) -> CellSummary:
    rows = whole[whole["role"] != "search"]
    ok = rows[rows["status"] == "ok"]
    first = (rows if len(rows) else whole).iloc[0]
    names = ok["metric"].dropna().unique()
    return CellSummary(
        cell_id=cell_id,
        role=str(first["role"]) if len(rows) else "replicate",
        levels={path: first[path] for path in results.factors},
        labels={path: str(results.labels.at[first.name, path]) for path in results.factors},
        task=str(first["task"]),
        metric=str(names[0]) if len(names) else "",
        mode=metrics[str(first["task"])].mode,
        unit=metrics[str(first["task"])].unit,
        interval=t_interval(rows.loc[rows["counts"], "value"].to_numpy(dtype=float), level),
        n_not_ok=len(rows) - len(ok),
        n_worst=int(rows["counts"].sum()) - len(ok),
        chosen={path: first[path] for path in results.tuned} if len(rows) else {},
        n_searched=len(whole) - len(rows),
        statuses={str(k): int(v) for k, v in rows["status"].value_counts().items()},
    )
