"""What each cell actually did: steps, learning-rate integral, trainable parameters, seconds; and how cells differ in it.

Cells that are compared should differ only in the varied factors. If a cell did more of something than its base (steps,
learning rate summed over steps, trainable parameters, training samples), that also explains any difference between the
two, so such comparisons are marked as not matched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from orca_sweep.analysis.tables import by_task, find_varying, levels_of
from orca_sweep.results import Cell, Results

if TYPE_CHECKING:
    import pandas as pd

AMOUNTS: Mapping[str, str] = {
    "n_train": "training samples",
    "n_embedder_steps": "embedder steps",
    "embedder_lr_integral": "embedder LR integral",
    "n_trainable_embedder": "trainable in embedder training",
    "n_steps": "fine-tuning steps",
    "lr_integral": "fine-tuning LR integral",
    "n_trainable_first": "trainable at first",
    "n_trainable_last": "trainable at last",
}
"""Amounts in which comparisons should be matched."""
FROM_STAGES = {
    "n_embedder_steps": ("embedder", "n_steps"),
    "embedder_lr_integral": ("embedder", "lr_integral"),
    "n_steps": ("finetune", "n_steps"),
    "lr_integral": ("finetune", "lr_integral"),
}
"""Stage and column of the stages and epochs tables to sum, for an amount that the trials table lacks."""
SECONDS = {"embedder_s": "embedder, s", "finetune_s": "fine-tuning, s", "alone_s": "whole trial alone, s"}
REUSED = {"embedder_s": ("embedder",), "finetune_s": ("finetune", "finetune-prefix")}
"""The stored stages that make the seconds of a trial mean nothing, since it only loaded them."""
SAME = 1e-3
"""Amounts that differ by at most this share are equal."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One amount of one cell over its ok trials; NaN if none has it."""

    mean: float
    low: float
    high: float
    n_reused: int = 0
    """Trials that took this stage, or a part of it, from the store; their seconds do not count."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell."""

    cell_id: str
    name: str
    role: str
    n: int
    """Ok trials."""
    amounts: Mapping[str, Amount]


@dataclass(frozen=True, kw_only=True)
class TaskRealised:
    """The cells of one task, and the columns that at least one of its ok trials has."""

    task: str
    paths: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def rows_by_id(self) -> dict[str, Row]:
        """The cells by id."""
        return {row.cell_id: row for row in self.rows}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Amounts in which comparisons should be matched but that these tables lack."""
        return tuple(AMOUNTS[column] for column in AMOUNTS if column not in self.columns)


def measure_realised(results: Results, cells: Sequence[Cell]) -> tuple[TaskRealised, ...]:
    """Returns what every cell did, by task, without columns that no ok trial has."""
    ok = _measure_trials(results)
    amounts = ok[[*AMOUNTS, *SECONDS, *(f"{column} reused" for column in REUSED)]].to_numpy(dtype=float)
    by_cell = {str(cell_id): amounts[rows] for cell_id, rows in ok.groupby("cell_id", sort=False).indices.items()}
    return tuple(_measure_task(task, task_cells, by_cell) for task, task_cells in by_task(cells).items())


def name_column(column: str) -> str:
    """Returns a column's name as people read it."""
    return {**AMOUNTS, **SECONDS}[column]


def _measure_trials(results: Results) -> "pd.DataFrame":
    """Returns all amounts of the ok replicates as numbers."""
    trials = results.trials
    ok = trials[(trials["status"] == "ok") & (trials["role"] != "search")]
    columns: dict[str, Any] = {"cell_id": ok["cell_id"]}
    for column in AMOUNTS:
        columns[column] = _measure_column(results, ok, column)
    for column, stages in REUSED.items():
        is_reused = _find_reused(ok, stages)
        columns[column] = _read_numbers(ok, column).where(~is_reused)
        columns[f"{column} reused"] = is_reused.astype(float)
    columns["alone_s"] = _read_numbers(ok, "wall_time_s") + _read_numbers(ok, "reused_s").fillna(0.0)
    return ok[[]].assign(**columns)


def _find_reused(ok: "pd.DataFrame", stages: Sequence[str]) -> "pd.Series[Any]":
    """Returns whether each trial took one of these stages from the store."""
    import pandas as pd

    if "reused" not in ok:
        return pd.Series(False, index=ok.index)
    names = ok["reused"].fillna("").astype(str).str.split(",")
    return names.map(lambda known: any(stage in known for stage in stages)).astype(bool)


def _read_numbers(frame: "pd.DataFrame", column: str) -> "pd.Series[Any]":
    import pandas as pd

    if column not in frame:
        return pd.Series(math.nan, index=frame.index)
    return pd.to_numeric(frame[column], errors="coerce").astype(float)


def _measure_column(results: Results, ok: "pd.DataFrame", column: str) -> "pd.Series[Any]":
    """Returns an amount by trial: from the trials table, else summed over phases, else over epochs."""
    amounts = _read_numbers(ok, column)
    if column not in FROM_STAGES:
        return amounts
    stage, name = FROM_STAGES[column]
    for table in (results.stages, results.epochs):
        if amounts.notna().any():
            break
        amounts = _sum_stages(table, ok, stage, name)
    if column == "n_embedder_steps" and not amounts.notna().any():
        return _count_embedder_epochs(results.epochs, ok)
    return amounts


def _sum_stages(table: "pd.DataFrame | None", ok: "pd.DataFrame", stage: str, name: str) -> "pd.Series[Any]":
    if table is None or name not in table:
        return _read_numbers(ok, "")
    sums = table[table["stage"] == stage].groupby("trial_id")[name].sum(min_count=1)
    return ok["trial_id"].map(sums).astype(float)


def _count_embedder_epochs(epochs: "pd.DataFrame", ok: "pd.DataFrame") -> "pd.Series[Any]":
    """Returns embedder steps by trial: one per embedder epoch, except epoch 0. NaN for a trial without any epochs."""
    counts = epochs[(epochs["stage"] == "embedder") & (epochs["epoch"] > 0)].groupby("trial_id").size()
    return ok["trial_id"].map(counts).fillna(0.0).where(ok["trial_id"].isin(epochs["trial_id"])).astype(float)


def _measure_task(task: str, cells: Sequence[Cell], by_cell: Mapping[str, np.ndarray]) -> TaskRealised:
    paths = find_varying(cells)
    rows = tuple(_measure_row(cell, paths, by_cell.get(cell.cell_id)) for cell in cells)
    known = tuple(c for c in (*AMOUNTS, *SECONDS) if any(_is_known(row.amounts[c]) for row in rows))
    return TaskRealised(task=task, paths=paths, columns=known, rows=rows)


def _is_known(amount: Amount) -> bool:
    return math.isfinite(amount.mean) or amount.n_reused > 0


def _measure_row(cell: Cell, paths: Sequence[str], ok: np.ndarray | None) -> Row:
    """Returns what a cell did; ``ok`` has a row per ok trial and a column per amount."""
    columns = (*AMOUNTS, *SECONDS)
    nothing = Amount(mean=math.nan, low=math.nan, high=math.nan)
    amounts = {c: nothing if ok is None else _summarise_amount(ok[:, i]) for i, c in enumerate(columns)}
    for i, column in enumerate(REUSED, len(columns)):
        amounts[column] = replace(amounts[column], n_reused=0 if ok is None else int(ok[:, i].sum()))
    return Row(
        cell_id=cell.cell_id,
        name=levels_of(cell, paths),
        role=cell.role,
        n=0 if ok is None else len(ok),
        amounts=amounts,
    )


def _summarise_amount(values: np.ndarray) -> Amount:
    known = values[~np.isnan(values)]
    if not known.size:
        return Amount(mean=math.nan, low=math.nan, high=math.nan)
    return Amount(mean=float(known.mean()), low=float(known.min()), high=float(known.max()))


def find_unmatched(task: TaskRealised, base_id: str, cell_id: str) -> tuple[str, ...] | None:
    """Returns the amounts in which a cell and its base differ; None if one of the two has no ok trial.

    They also differ in an amount that only one of them has, such as the embedder steps of a cell and its naive base.
    """
    cell, base = task.rows_by_id.get(cell_id), task.rows_by_id.get(base_id)
    if cell is None or base is None or not cell.n or not base.n:
        return None
    return tuple(c for c in task.columns if c in AMOUNTS and _are_different(cell.amounts[c].mean, base.amounts[c].mean))


def _are_different(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) != math.isnan(b)
    return abs(a - b) > SAME * max(abs(a), abs(b))
