"""Cells: the record of one cell of a sweep with the outcomes of its trials, and how it is read from tables."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError, Problem
from orca_sweep.registry import hint
from orca_sweep.results.columns import METRIC_COLUMNS, SEALED_COLUMNS, TRIAL_MEASURES, validation_twin
from orca_sweep.results.tables import Results
from orca_sweep.stats import UNBOUNDED, Bounds, Interval, t_interval
from orca_sweep.stats.modes import Mode

if TYPE_CHECKING:
    import pandas as pd

SEED_VARIES = "seed_varies"
"""The field that says what the run seed draws; cells that differ in it have different spreads on purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellTrial:
    """The outcome of one planned trial of a cell."""

    seed: int
    status: str
    value: float
    """Its value in the cell's mean; NaN if it has no result."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Further requested columns, if the trial has them."""
    trial_id: str = ""
    """Trials of several cells that have one id are one trial."""

    @property
    def counts(self) -> bool:
        """Whether the cell's mean includes it: it is ok, or the space's outcomes score it as the worst of its task."""
        return self.status == "ok" or not math.isnan(self.value)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a task, or its A/A repeats, with the outcomes of its trials."""

    cell_id: str
    role: str
    """replicate, or aa: a repeat of the reference cell with other seeds."""
    task: str
    metric: str
    """Name of the metric; empty as long as no trial of the task is ok."""
    mode: Mode = "min"
    """Whether lower or higher values are better; without a metric it means nothing."""
    unit: str = ""
    bounds: Bounds = UNBOUNDED
    """What the metric can be, as the rows say."""
    levels: Mapping[str, Any]
    """The level of every factor, as the table stores it."""
    labels: Mapping[str, str]
    """Readable levels of the factors other than task, and of other settings in which cells of equal levels differ."""
    trials: tuple[CellTrial, ...]
    """In the order of the table, without candidates of tuning."""
    interval: Interval
    """Student-t interval of the mean over the trials that count; within the bounds of the metric."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """The settings that tuning within the cell chose."""
    n_searched: int = 0
    """Candidates of that tuning."""

    @property
    def name(self) -> str:
        """Its levels, such as 'proxy none, finetune.freeze body'; A/A repeats are marked."""
        named = self.describe(tuple(self.labels))
        return named if self.role == "replicate" else f"{named} (A/A cell)"

    def describe(self, paths: Sequence[str]) -> str:
        """Returns its levels of some factors, such as 'proxy none, finetune.freeze body'."""
        return ", ".join(f"{path} {self.labels[path]}" for path in paths) or "all trials"

    def label(self, path: str) -> str:
        """Returns the readable level of a factor."""
        return self.labels[path] if path in self.labels else write_level(self.levels.get(path))

    @cached_property
    def values(self) -> dict[int, float]:
        """The value of each trial in the mean, by seed; NaN if a planned trial has no result."""
        return {trial.seed: trial.value for trial in self.trials}

    @cached_property
    def statuses(self) -> dict[int, str]:
        """Status of each trial, by seed."""
        return {trial.seed: trial.status for trial in self.trials}

    @property
    def known_values(self) -> list[float]:
        """The values that are finite."""
        return [value for value in self.values.values() if math.isfinite(value)]

    @property
    def status_counts(self) -> dict[str, int]:
        """Numbers of trials by status, the most frequent status first."""
        return dict(Counter(trial.status for trial in self.trials).most_common())

    @property
    def n_not_ok(self) -> int:
        """Number of trials that are not ok."""
        return sum(trial.status != "ok" for trial in self.trials)

    @property
    def n_worst(self) -> int:
        """Number of trials that are not ok and that the space's outcomes score as the worst of their task."""
        return sum(trial.counts and trial.status != "ok" for trial in self.trials)


CELL_COLUMNS = ("cell_id", "trial_id", "role", "task", "metric", "seed", "status", "value")


def summarise_cells(
    results: Results, metric: str | None = None, level: float = 0.95, measures: Iterable[str] = ()
) -> tuple[Cell, ...]:
    """Returns each cell and its Student-t interval over its ok replicates, in the order of the table.

    Candidates of tuning are left out of means, since tuning chose among them. Trials that are not ok are left out as well;
    ``n_not_ok`` counts them. If the space's ``outcomes`` score a status as worst, a trial with that status counts with the
    worst value of an ok replicate of its task.

    Args:
        results: the tables.
        metric: the column to summarise; by default the one that the space names.
        level: confidence level of the intervals.
        measures: further columns to keep for each trial; columns that the tables lack are left out.

    Raises:
        InputError: as in `score_trials`, or if a value lies outside of the bounds that the rows state.
    """
    memory = results.remembered
    if memory is None:
        return _summarise_rows(results, metric, level, measures)
    measures = tuple(measures)
    key = (id(results.trials), metric or results.metric, level, measures)
    if key not in memory:
        # The rows stay in memory with their cells, so that no other rows can get their id.
        memory[key] = results.trials, _summarise_rows(results, metric, level, measures)
    cells: tuple[Cell, ...] = memory[key][1]
    return cells


def _summarise_rows(results: Results, metric: str | None, level: float, measures: Iterable[str]) -> tuple[Cell, ...]:
    trials = score_trials(results, metric)
    metrics = read_task_metrics(results.trials)
    _check_bounds(trials, metrics, metric or results.metric)
    paths = _find_telling_columns(_take_one_of_each(trials), results)
    labels = {f"label {path}": results.label_column(path) for path in paths}
    measures = [name for name in measures if name in trials]
    # Grouping is slow, and slower with more columns.
    needed = (*CELL_COLUMNS, *measures, *results.factors, *results.tuned)
    rows: dict[str, list[dict[Any, Any]]] = {}
    for row in trials[list(dict.fromkeys(needed))].assign(**labels).to_dict("records"):
        rows.setdefault(str(row["cell_id"]), []).append(row)
    summary = _Summary(results=results, paths=paths, measures=measures, level=level, metrics=metrics)
    return tuple(summary.make_cell(cell_id, cell_rows) for cell_id, cell_rows in rows.items())


def _check_bounds(trials: "pd.DataFrame", metrics: "Mapping[str, TaskMetric]", column: str) -> None:
    """Refuses values that the metric cannot have.

    Raises:
        InputError: naming the first trial of each such task.
    """
    problems = []
    counted = trials.loc[trials["counts"] & trials["value"].notna(), ["task", "trial_id", "value"]]
    for task, rows in counted.groupby("task", sort=False):
        bounds = metrics[str(task)].bounds
        if not bounds.contain(rows["value"].to_numpy()):
            first = rows[[not bounds.contain([value]) for value in rows["value"]]].iloc[0]
            problems.append(
                f"{task}: trial {first['trial_id']} has {column} {first['value']:g}, but its metric {metrics[str(task)].name}"
                f" lies {bounds}. Correct low and high of the metric, and run the trial again."
            )
    if problems:
        raise InputError(problems)


@dataclass(frozen=True, kw_only=True)
class _Summary:
    """What all cells have in common."""

    results: Results
    paths: Sequence[str]
    """The labelled columns."""
    measures: Sequence[str]
    level: float
    metrics: "Mapping[str, TaskMetric]"

    def make_cell(self, cell_id: str, cell_rows: Sequence[Mapping[str, Any]]) -> Cell:
        rows = [row for row in cell_rows if row["role"] != "search"]
        first = (rows or cell_rows)[0]
        trials = tuple(map(self._make_trial, rows))
        compared = self.metrics[str(first["task"])]
        return Cell(
            cell_id=cell_id,
            role=str(first["role"]) if rows else "replicate",
            task=str(first["task"]),
            metric=compared.name,
            mode=compared.mode,
            unit=compared.unit,
            bounds=compared.bounds,
            levels={path: first[path] for path in self.results.factors},
            labels={path: str(first[f"label {path}"]) for path in self.paths},
            trials=trials,
            interval=t_interval([trial.value for trial in trials if trial.counts], self.level, compared.bounds),
            chosen={path: first[path] for path in self.results.tuned} if rows else {},
            n_searched=len(cell_rows) - len(rows),
        )

    def _make_trial(self, row: Mapping[str, Any]) -> CellTrial:
        measures = {name: float(row[name]) for name in self.measures if row[name] is not None}
        return CellTrial(
            seed=int(row["seed"]),
            status=str(row["status"]),
            value=float(row["value"]),
            measures=measures,
            trial_id=str(row["trial_id"]),
        )


def _take_one_of_each(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Returns a row of each cell, in the order of the table: a replicate if there is one, since it has what tuning chose."""
    is_candidate = (trials["role"] == "search").sort_values(kind="stable")
    firsts = trials["cell_id"].loc[is_candidate.index].drop_duplicates()
    return trials.loc[firsts.sort_index().index]


def _find_telling_columns(cells: "pd.DataFrame", results: Results) -> tuple[str, ...]:
    """Returns the factors other than task, and other settings in which cells of equal levels differ.

    Such cells come from sweeps that were collected together.
    """
    factors = [path for path in results.factors if path != "task"]
    settings = [path for path in setting_columns(cells) if path not in {"task", "seed", *factors}]
    levels = results.labels.loc[cells.index, factors]
    keys = levels.assign(task=cells["task"], is_aa=cells["role"] == "aa")
    alike = keys.duplicated(keep=False)
    # Always shown, whether or not it is a factor: means of cells that differ in it must not be compared.
    shown = dict.fromkeys(path for path in differing_columns(cells, settings) if path == SEED_VARIES)
    for _, same in cells[alike].groupby([keys.loc[alike, str(name)] for name in keys], sort=False, dropna=False):
        shown |= dict.fromkeys(differing_columns(same, settings))
    return (*factors, *shown)


def setting_columns(trials: "pd.DataFrame") -> list[str]:
    """Returns the columns of settings, as opposed to measurements."""
    measured = {column.name for column in TRIAL_MEASURES} | {"value", "counts"}
    return [str(column) for column in trials if column not in measured]


def differing_columns(rows: "pd.DataFrame", columns: Iterable[str]) -> list[str]:
    """Returns the columns in which rows differ."""
    return [column for column in columns if rows[column].nunique(dropna=False) > 1]


def find_repeated_seeds(results: Results) -> Iterator[str]:
    """Yields a sentence about each cell and seed with several trials; such cells cannot be compared in pairs."""
    trials = results.trials[results.trials["role"] != "search"]
    twice = trials[trials.duplicated(["cell_id", "seed"], keep=False)]
    for (cell_id, seed), same in twice.groupby(["cell_id", "seed"], sort=False):
        differ = ", ".join(differing_columns(same, setting_columns(same))) or "no setting"
        yield (
            f"cell {cell_id} of {same['task'].iloc[0]}: {len(same)} trials at seed {seed}, which differ in {differ}."
            " A cell has one trial per seed. Collect their sweeps into separate tables."
        )


def score_trials(results: Results, metric: str | None = None) -> "pd.DataFrame":
    """Returns the trials with two more columns: ``counts`` says whether the cell's mean includes it, with this ``value``.

    An ok trial counts with its metric. A trial whose status the space's ``outcomes`` score as worst counts with the worst
    metric of an ok trial of its task. Other trials and candidates of tuning do not count.

    Raises:
        InputError: if the metric is not a column, or is sealed, or ok trials of a task have different metrics.
    """
    import pandas as pd

    column = metric or results.metric
    known = [name for name in METRIC_COLUMNS if name in results.trials]
    if column not in known:
        rule = f"this is not a column of metrics in the trials table. {hint(column, known)}"
        raise InputError(Problem(field="metric", value=column, rule=rule))
    if column in SEALED_COLUMNS and results.n_sealed:
        raise InputError(
            f"metric {column!r}: the test metrics of {results.n_sealed} ok trials are sealed. Compare on validation"
            f" ({validation_twin(column)}), or show them with 'orca-sweep reveal SWEEP_FOLDER'."
        )
    trials = results.trials
    replicates = trials["role"] != "search"
    ok = replicates & (trials["status"] == "ok")
    statuses = zip(trials["status"], trials["space"], strict=True)
    is_worst = pd.Series([s in results.worst.get(space, ()) for s, space in statuses], index=trials.index, dtype=bool)
    worst = trials["task"].map(_find_worst(trials, ok, column)).astype(float)
    as_worst = replicates & ~ok & is_worst & worst.notna()
    value = trials[column].astype(float).where(ok, worst.where(as_worst))
    return trials.assign(value=value, counts=ok | as_worst)


def _find_worst(trials: "pd.DataFrame", ok: "pd.Series[bool]", column: str) -> dict[Any, float]:
    """Returns the worst value of an ok trial, by task."""
    modes = {task: metric.mode for task, metric in read_task_metrics(trials).items()}
    by_task = trials[ok].groupby("task")[column].agg(["min", "max"])
    return {task: by_task.loc[task, "max" if modes[str(task)] == "min" else "min"] for task in by_task.index}


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """The metric that trials of a task are compared on, as their rows name it."""

    name: str = ""
    """Empty as long as no trial is ok."""
    mode: Mode = "min"
    unit: str = ""
    bounds: Bounds = UNBOUNDED


def read_task_metrics(trials: "pd.DataFrame") -> dict[str, TaskMetric]:
    """Returns the metric of each task; rows that name none, such as those of trials that never ran, do not count.

    Raises:
        InputError: for each task whose ok trials have different metrics or bounds, since no mean may mix them.
    """
    columns = [name for name in ("metric", "metric_mode", "metric_unit") if name in trials]
    metrics = {str(task): TaskMetric() for task in trials["task"].unique()}
    known = trials[trials["status"].isin(("ok", "pruned"))].dropna(subset=columns[:1]) if columns else trials.iloc[:0]
    problems = []
    for task, rows in known.groupby("task", sort=False):
        facts = rows[columns].drop_duplicates().to_dict("records")
        if len(facts) > 1:
            names = (" ".join(str(v) for v in metric.values() if v == v and v) for metric in facts)
            problems.append(
                f"{task}: its trials were compared on different metrics ({' and '.join(names)}), and no mean may mix them."
                " Collect their sweeps into separate tables, or rename one of the tasks."
            )
        bounds, *more = _read_bounds(rows) or [UNBOUNDED]
        if more:
            problems.append(
                f"{task}: its rows state different bounds of {facts[0]['metric']} ({bounds} and {more[0]}), so they are"
                " different metrics. Collect their sweeps into separate tables, or rename one of the tasks."
            )
        metrics[str(task)] = _make_metric(facts[0], bounds)
    if problems:
        raise InputError(problems)
    return metrics


def _make_metric(facts: Mapping[Any, Any], bounds: Bounds) -> TaskMetric:
    """Returns the metric that a row names; NaN stands for what it does not name."""
    texts = {key: value for key, value in facts.items() if isinstance(value, str)}
    return TaskMetric(
        name=texts.get("metric", ""),
        mode="max" if texts.get("metric_mode") == "max" else "min",
        unit=texts.get("metric_unit", ""),
        bounds=bounds,
    )


def _read_bounds(rows: "pd.DataFrame") -> list[Bounds]:
    """Returns the different bounds that rows state; rows of earlier versions state none."""
    names = ("metric_low", "metric_high")
    if not set(names) <= set(rows):
        return []
    pairs = rows[list(names)].astype(float).drop_duplicates().itertuples(index=False)
    bounds = [
        Bounds(low=-math.inf if low != low else low, high=math.inf if high != high else high) for low, high in pairs
    ]
    return [pair for pair in bounds if pair != UNBOUNDED]
