"""What each cell really did: steps, learning-rate integral, trainable parameters, seconds; and how that differs.

Cells that are compared should differ in what is varied and in nothing else. What a cell has done more of than its base
(steps, learning rate summed over steps, parameters that train, training samples) is a second explanation of any
difference between the two, so comparisons that are not matched in it are marked.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.tables import Arm, by_task, find_varying, levels_of
from orca_sweep.results import Results, with_roles

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
"""What comparisons should be matched in."""
FROM_STAGES = {
    "n_embedder_steps": ("embedder", "n_steps"),
    "embedder_lr_integral": ("embedder", "lr_integral"),
    "n_steps": ("finetune", "n_steps"),
    "lr_integral": ("finetune", "lr_integral"),
}
"""Which stage and column of the stages and epochs tables tell it, if the trials table does not."""
SECONDS = {"embedder_s": "embedder, s", "finetune_s": "fine-tuning, s", "alone_s": "whole trial alone, s"}
SAME = 1e-3
"""Amounts that differ by less than this share are the same."""


@dataclass(frozen=True)
class Amount:
    """One quantity of one cell, over its ok trials; NaN where none has it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One cell."""

    cell_id: str
    name: str
    role: str
    n: int
    """Its ok trials."""
    amounts: Mapping[str, Amount]


@dataclass(frozen=True)
class TaskRealised:
    """The cells of one task, and the columns that any of its ok trials has."""

    task: str
    paths: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """What comparisons should be matched in and these tables do not tell."""
        return tuple(AMOUNTS[column] for column in AMOUNTS if column not in self.columns)


def measure_realised(results: Results, arms: Sequence[Arm]) -> tuple[TaskRealised, ...]:
    """Returns what every cell has done, by task; columns that no ok trial has are left out."""
    ok = _measure_trials(results)
    by_cell = {str(cell_id): rows for cell_id, rows in ok.groupby("cell_id", sort=False)}
    return tuple(_measure_task(task, found, by_cell) for task, found in by_task(arms).items())


def name_column(column: str) -> str:
    """Returns a column's name for people."""
    return {**AMOUNTS, **SECONDS}[column]


def _measure_trials(results: Results) -> "pd.DataFrame":
    """The ok replicates with all quantities as numbers."""
    trials = with_roles(results.trials)
    ok = trials[(trials["status"] == "ok") & (trials["role"] != "search")]
    made: dict[str, Any] = {"cell_id": ok["cell_id"]}
    for column in AMOUNTS:
        made[column] = _measure_column(results, ok, column)
    for column in ("embedder_s", "finetune_s"):
        made[column] = _read_numbers(ok, column)
    made["alone_s"] = _read_numbers(ok, "wall_time_s") + _read_numbers(ok, "reused_s").fillna(0.0)
    return ok[[]].assign(**made)


def _read_numbers(frame: "pd.DataFrame", column: str) -> "pd.Series[Any]":
    import pandas as pd

    if column not in frame:
        return pd.Series(math.nan, index=frame.index)
    return pd.to_numeric(frame[column], errors="coerce").astype(float)


def _measure_column(results: Results, ok: "pd.DataFrame", column: str) -> "pd.Series[Any]":
    """A quantity by trial: from the trials table, else summed over phases, else over epochs."""
    found = _read_numbers(ok, column)
    if column not in FROM_STAGES:
        return found
    stage, name = FROM_STAGES[column]
    for table in (results.stages, results.epochs):
        if found.notna().any():
            break
        found = _sum_stages(table, ok, stage, name)
    if column == "n_embedder_steps" and not found.notna().any():
        return _embedder_epochs(results.epochs, ok)
    return found


def _sum_stages(table: "pd.DataFrame | None", ok: "pd.DataFrame", stage: str, name: str) -> "pd.Series[Any]":
    if table is None or name not in table:
        return _read_numbers(ok, "")
    sums = table[table["stage"] == stage].groupby("trial_id")[name].sum(min_count=1)
    return ok["trial_id"].map(sums).astype(float)


def _embedder_epochs(epochs: "pd.DataFrame", ok: "pd.DataFrame") -> "pd.Series[Any]":
    """Embedder steps by trial: an embedder epoch is one, and number 0 none. NaN where a trial has no epochs at all."""
    counts = epochs[(epochs["stage"] == "embedder") & (epochs["epoch"] > 0)].groupby("trial_id").size()
    return ok["trial_id"].map(counts).fillna(0.0).where(ok["trial_id"].isin(epochs["trial_id"])).astype(float)


def _measure_task(task: str, found: Sequence[Arm], by_cell: Mapping[str, "pd.DataFrame"]) -> TaskRealised:
    paths = find_varying(found)
    rows = tuple(_measure_row(arm, paths, by_cell.get(arm.cell_id)) for arm in found)
    known = (c for c in (*AMOUNTS, *SECONDS) if any(math.isfinite(row.amounts[c].mean) for row in rows))
    return TaskRealised(task, paths, tuple(known), rows)


def _measure_row(arm: Arm, paths: Sequence[str], ok: "pd.DataFrame | None") -> Row:
    columns = (*AMOUNTS, *SECONDS)
    nothing = Amount(math.nan, math.nan, math.nan)
    amounts = dict.fromkeys(columns, nothing) if ok is None else {c: _summarise_amount(ok[c]) for c in columns}
    return Row(arm.cell_id, levels_of(arm, paths), arm.role, 0 if ok is None else len(ok), amounts)


def _summarise_amount(values: "pd.Series[Any]") -> Amount:
    return Amount(float(values.mean()), float(values.min()), float(values.max()))


def find_unmatched(task: TaskRealised, base_id: str, cell_id: str) -> tuple[str, ...] | None:
    """Returns the amounts that a cell and its base differ in; None where one of them has no ok trial to go by.

    Where one of the two has none of an amount, as a naive cell has no embedder steps, they differ in it.
    """
    rows = {row.cell_id: row for row in task.rows}
    cell, base = rows.get(cell_id), rows.get(base_id)
    if cell is None or base is None or not cell.n or not base.n:
        return None
    return tuple(c for c in task.columns if c in AMOUNTS and _are_different(cell.amounts[c].mean, base.amounts[c].mean))


def _are_different(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) != math.isnan(b)
    return abs(a - b) > SAME * max(abs(a), abs(b))
