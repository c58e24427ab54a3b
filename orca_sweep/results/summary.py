"""Cells of a table, each with the interval of its metric over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import InputError
from orca_sweep.labels import write_level
from orca_sweep.results.columns import SEALED_COLUMNS, TRIAL_MEASURES, validation_twin
from orca_sweep.results.records import ROLE
from orca_sweep.results.tables import NO_RECORD, Results
from orca_sweep.stats import Interval, t_interval

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
        InputError: if the metric is no column, or is sealed.
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
        labels={path: str(results.labels.at[first.name, path]) for path in results.factors},
        task=str(first["task"]),
        metric=str(names[0]) if len(names) else "",
        interval=t_interval(rows.loc[rows["counts"], "value"].to_numpy(dtype=float), level),
        n_not_ok=len(rows) - len(ok),
        n_worst=int(rows["counts"].sum()) - len(ok),
        chosen={path: first[path] for path in results.tuned} if len(rows) else {},
        n_searched=len(whole) - len(rows),
        statuses={str(k): int(v) for k, v in rows["status"].value_counts().items()},
    )
