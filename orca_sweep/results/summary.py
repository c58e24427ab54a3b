"""Cells: THE record of one cell of a sweep, with what its trials have come to, and how it is read from tables."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError
from orca_sweep.results.columns import SEALED_COLUMNS, TRIAL_MEASURES, validation_twin
from orca_sweep.results.tables import Results
from orca_sweep.stats import Interval, t_interval
from orca_sweep.stats.modes import Mode

if TYPE_CHECKING:
    import pandas as pd

SEED_VARIES = "seed_varies"
"""What the run seed draws: cells that differ in it differ in spread on purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellTrial:
    """What one planned trial of a cell has come to."""

    seed: int
    status: str
    value: float
    """What it counts with in the cell's mean; NaN if it has no result."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Further columns that were asked for, as far as the trial has them."""

    @property
    def counts(self) -> bool:
        """Whether it is ok, or scored as the worst of its task as the space's outcomes ask."""
        return self.status == "ok" or not math.isnan(self.value)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a task, or its A/A repeats: what it is, and what its trials have come to."""

    cell_id: str
    role: str
    """replicate, or aa: the reference cell again with seeds of its own."""
    task: str
    metric: str
    """What the values are; empty as long as no trial is ok."""
    mode: Mode = "min"
    """Which way round the metric is compared."""
    unit: str = ""
    levels: Mapping[str, Any]
    """Of every factor, as the table stores it."""
    labels: Mapping[str, str]
    """Its levels as people read them: of the factors but the task, and of what else tells cells of equal levels apart."""
    trials: tuple[CellTrial, ...]
    """In the order of the table; candidates of tuning are no part of it."""
    interval: Interval
    """Student-t interval of the mean over the trials that count."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What tuning within the cell has found."""
    n_searched: int = 0
    """Trials of that tuning."""

    @property
    def name(self) -> str:
        """'proxy none, finetune.freeze body'; A/A repeats are marked."""
        named = self.describe(tuple(self.labels))
        return named if self.role == "replicate" else f"{named} (A/A cell)"

    def describe(self, paths: Sequence[str]) -> str:
        """Returns its levels of some factors: 'proxy none, finetune.freeze body'."""
        return ", ".join(f"{path} {self.labels[path]}" for path in paths) or "all trials"

    def label(self, path: str) -> str:
        """Returns the level of a factor as people read it."""
        return self.labels[path] if path in self.labels else write_level(self.levels.get(path))

    @cached_property
    def values(self) -> dict[int, float]:
        """What each trial counts with, by seed; NaN where a planned trial has no result."""
        return {trial.seed: trial.value for trial in self.trials}

    @cached_property
    def statuses(self) -> dict[int, str]:
        """By seed."""
        return {trial.seed: trial.status for trial in self.trials}

    @property
    def known_values(self) -> list[float]:
        """The finite values."""
        return [value for value in self.values.values() if math.isfinite(value)]

    @property
    def status_counts(self) -> dict[str, int]:
        """Trials by status, the most frequent first."""
        return dict(Counter(trial.status for trial in self.trials).most_common())

    @property
    def n_not_ok(self) -> int:
        """Trials that are not ok."""
        return sum(trial.status != "ok" for trial in self.trials)

    @property
    def n_worst(self) -> int:
        """Trials that are not ok and are scored as the worst of their task, as the space's outcomes ask."""
        return sum(trial.counts and trial.status != "ok" for trial in self.trials)


def summarise_cells(
    results: Results, metric: str | None = None, level: float = 0.95, measures: Iterable[str] = ()
) -> tuple[Cell, ...]:
    """Returns each cell and its Student-t interval over its ok replicates, in the order of the table.

    Candidates of tuning are not averaged: they were compared to choose by. Rows that are not ok are counted, never
    averaged over: ``n_not_ok`` says how many a cell lacks. Where the space's ``outcomes`` score a status as worst, such
    a row counts with the worst value that an ok replicate of its task has.

    Args:
        results: the tables.
        metric: the column to summarise_cells; by default the one that the space names.
        level: of the intervals.
        measures: further columns to keep of each trial; those that the tables lack are left out.

    Raises:
        InputError: as `scored` does.
    """
    trials = scored(results, metric)
    paths = _find_telling_columns(trials.drop_duplicates("cell_id"), results)
    labels = {f"label {path}": results.label_column(path) for path in paths}
    measures = [name for name in measures if name in trials]
    # A frame is cut into cells slowly, and the slower the more columns it has.
    needed = (
        "cell_id",
        "role",
        "task",
        "metric",
        "seed",
        "status",
        "value",
        *measures,
        *results.factors,
        *results.tuned,
    )
    rows: dict[str, list[dict[Any, Any]]] = {}
    for row in trials[list(dict.fromkeys(needed))].assign(**labels).to_dict("records"):
        rows.setdefault(str(row["cell_id"]), []).append(row)
    summary = _Summary(results, paths, measures, level, read_task_metrics(results.trials))
    return tuple(summary.make_cell(cell_id, whole) for cell_id, whole in rows.items())


@dataclass(frozen=True)
class _Summary:
    """What all cells are made with."""

    results: Results
    paths: Sequence[str]
    """Of the labels."""
    measures: Sequence[str]
    level: float
    metrics: "Mapping[str, TaskMetric]"

    def make_cell(self, cell_id: str, whole: Sequence[Mapping[str, Any]]) -> Cell:
        rows = [row for row in whole if row["role"] != "search"]
        first = (rows or whole)[0]
        trials = tuple(map(self._make_trial, rows))
        names = [row["metric"] for row in rows if row["status"] == "ok" and isinstance(row["metric"], str)]
        compared = self.metrics[str(first["task"])]
        return Cell(
            cell_id=cell_id,
            role=str(first["role"]) if rows else "replicate",
            task=str(first["task"]),
            metric=names[0] if names else "",
            mode=compared.mode,
            unit=compared.unit,
            levels={path: first[path] for path in self.results.factors},
            labels={path: str(first[f"label {path}"]) for path in self.paths},
            trials=trials,
            interval=t_interval([trial.value for trial in trials if trial.counts], self.level),
            chosen={path: first[path] for path in self.results.tuned} if rows else {},
            n_searched=len(whole) - len(rows),
        )

    def _make_trial(self, row: Mapping[str, Any]) -> CellTrial:
        measures = {name: float(row[name]) for name in self.measures if row[name] is not None}
        return CellTrial(seed=int(row["seed"]), status=str(row["status"]), value=float(row["value"]), measures=measures)


def _find_telling_columns(cells: "pd.DataFrame", results: Results) -> tuple[str, ...]:
    """The factors but the task, and what else tells cells of equal levels apart where sweeps were collected together."""
    factors = [path for path in results.factors if path != "task"]
    others = [path for path in setting_columns(cells) if path not in {"task", "seed", *factors, *results.tuned}]
    levels = results.labels.loc[cells.index, factors]
    keys = levels.assign(task=cells["task"], is_aa=cells["role"] == "aa")
    alike = keys.duplicated(keep=False)
    # Never hidden, be it a factor or not: means of cells that differ in it are not to be compared.
    more = dict.fromkeys(path for path in differing_columns(cells, others) if path == SEED_VARIES)
    for _, same in cells[alike].groupby([keys.loc[alike, str(name)] for name in keys], sort=False, dropna=False):
        more |= dict.fromkeys(differing_columns(same, others))
    return (*factors, *more)


def setting_columns(trials: "pd.DataFrame") -> list[str]:
    """Returns the columns that were set, and not measured."""
    measured = {column.name for column in TRIAL_MEASURES} | {"value", "counts"}
    return [str(column) for column in trials if column not in measured]


def differing_columns(rows: "pd.DataFrame", columns: Iterable[str]) -> list[str]:
    """Returns the columns in which rows differ."""
    return [column for column in columns if rows[column].nunique(dropna=False) > 1]


def find_repeated_seeds(results: Results) -> Iterator[str]:
    """Yields a sentence on each cell and seed of which the tables have several trials: nothing pairs such cells."""
    trials = results.trials[results.trials["role"] != "search"]
    twice = trials[trials.duplicated(["cell_id", "seed"], keep=False)]
    for (cell_id, seed), same in twice.groupby(["cell_id", "seed"], sort=False):
        differ = ", ".join(differing_columns(same, setting_columns(same))) or "nothing that was set"
        yield (
            f"cell {cell_id} of {same['task'].iloc[0]}: {len(same)} trials at seed {seed}, which differ in {differ}."
            " A cell has one trial per seed. Collect the sweeps that they come from into tables of their own."
        )


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
    trials = results.trials
    replicates = trials["role"] != "search"
    ok = replicates & (trials["status"] == "ok")
    statuses = zip(trials["status"], trials["space"], strict=True)
    asked = pd.Series([s in results.worst.get(space, ()) for s, space in statuses], index=trials.index, dtype=bool)
    modes = {task: metric.mode for task, metric in read_task_metrics(trials).items()}
    by_task = trials[ok].groupby("task")[column].agg(["min", "max"])
    of_task = {task: by_task.loc[task, "max" if modes[str(task)] == "min" else "min"] for task in by_task.index}
    worst = trials["task"].map(of_task).astype(float)
    as_worst = replicates & ~ok & asked & worst.notna()
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
