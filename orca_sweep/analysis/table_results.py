"""Results per task: a row per cell with its levels, n, mean and interval, and what of it is missing.

Means are over seeds, intervals are Student-t intervals of that mean over the same seeds. Trials that are not ok are
counted in their cell's row and averaged into nothing (but where the space's outcomes score them as the worst of their
task); candidates of tuning are in no mean; an A/A arm has a row of its own below the cells.

Writes table_results.csv (all digits, one line per cell), .md and .tex (booktabs).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.tables import (
    Arm,
    arms,
    by_task,
    describe_completeness,
    describe_lacking,
    describe_metric,
    describe_shared,
    find_varying,
    metric_of,
)
from orca_sweep.analysis.writing import (
    Output,
    Record,
    Table,
    decimals_of,
    format_csv,
    format_number,
    format_percent,
)
from orca_sweep.config.labels import write_level
from orca_sweep.results import CellSummary, Results, summarise
from orca_sweep.stats.modes import Mode

NAME = "table_results"


@dataclass(frozen=True)
class Row:
    """One cell, or its A/A arm."""

    arm: Arm
    cell: CellSummary


@dataclass(frozen=True)
class TaskResults:
    """The cells of one task in the order of the table, A/A arms last."""

    task: str
    metric: str
    mode: Mode
    unit: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ResultsTable:
    """All tasks, and what the numbers are of."""

    tasks: tuple[TaskResults, ...]
    column: str
    level: float
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""


def compute(results: Results, metric: str | None = None, level: float = 0.95) -> ResultsTable:
    """Returns every cell's mean and interval over its ok replicates, by task.

    Raises:
        InputError: if the metric or a factor is no column, or there are no trials.
    """
    results = compared(results)
    tasks = by_task(arms(results, metric))
    cells = {cell.cell_id: cell for cell in summarise(results, metric, level)}
    made = []
    for task, found in tasks.items():
        rows = [Row(arm, cells[arm.cell_id]) for arm in sorted(found, key=lambda arm: arm.role == "aa")]
        measured = metric_of(found)
        made.append(TaskResults(task, measured.name, measured.mode, measured.unit, tuple(rows)))
    return ResultsTable(tuple(made), metric or results.metric, level, results.notes)


def numbers(found: ResultsTable) -> str:
    """Returns every number as CSV: one line per cell."""
    return format_csv([_make_record(found, row) for task in found.tasks for row in task.rows])


def _make_record(found: ResultsTable, row: Row) -> Record:
    i, cell = row.cell.interval, row.cell
    return {
        "task": cell.task,
        "cell_id": cell.cell_id,
        "role": cell.role,
        **row.arm.levels,
        "column": found.column,
        "metric": row.arm.metric,
        "mode": row.arm.mode,
        "n": i.n,
        "mean": i.mean,
        "sd": i.sd,
        "low": i.low,
        "high": i.high,
        "interval": f"{format_percent(i.level)} Student-t interval of the mean over n seeds",
        "n_planned": len(row.arm.statuses),
        "n_not_ok": cell.n_not_ok,
        "not_ok": describe_lacking(cell.statuses),
        "n_scored_as_worst": cell.n_worst,
        "n_searched": cell.n_searched,
        **{f"tuned {path}": write_level(value) for path, value in _chosen_levels(row).items()},
    }


def _chosen_levels(row: Row) -> dict[str, Any]:
    return {path: value for path, value in row.cell.chosen.items() if path not in row.arm.levels}


def build_tables(found: ResultsTable) -> tuple[Table, ...]:
    """Returns a table per task as people read it."""
    return tuple(_build_table(found, task, i) for i, task in enumerate(found.tasks, 1))


def _build_table(found: ResultsTable, task: TaskResults, i: int) -> Table:
    paths = find_varying([row.arm for row in task.rows])
    tuned = list(dict.fromkeys(path for row in task.rows for path in _chosen_levels(row)))
    has_aa = any(row.cell.role == "aa" for row in task.rows)
    decimals = decimals_of(row.cell.interval.half_width for row in task.rows)
    head = (*paths, *(f"{path} (tuned)" for path in tuned), *(["arm"] if has_aa else []))
    blocks: list[list[tuple[str, ...]]] = [[], []]
    for row in task.rows:
        texts = [row.arm.levels[path] for path in paths]
        texts += [write_level(_chosen_levels(row).get(path)) for path in tuned]
        texts += [{"aa": "A/A"}.get(row.cell.role, "cell")] if has_aa else []
        counts = (
            str(row.cell.interval.n),
            _format_mean(row.cell, decimals),
            describe_lacking(row.cell.statuses) or "0",
        )
        blocks[row.cell.role == "aa"].append((*texts, *counts))
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: results",
        caption=_write_caption(found, task, paths),
        head=(*head, "n", "mean ± half-width", "not ok"),
        align=f"{'l' * len(head)}rrl",
        blocks=tuple(tuple(block) for block in blocks),
        notes=(*found.notes, *_list_notes(task.rows)),
    )


def _format_mean(cell: CellSummary, decimals: int) -> str:
    mean, half = format_number(cell.interval.mean, decimals), cell.interval.half_width
    return mean if math.isnan(half) else f"{mean} ± {format_number(half, decimals)}"


def _write_caption(found: ResultsTable, task: TaskResults, paths: Sequence[str]) -> str:
    cells = [row.arm for row in task.rows]
    return (
        f"{found.column} ({describe_metric(task.metric, task.mode)}), mean over n seeds; ± is the half-width of the"
        f" {format_percent(found.level)} Student-t interval of that mean over the same seeds. {describe_completeness(cells)}"
        f"{describe_shared(cells, paths)}"
    )


def _list_notes(rows: Sequence[Row]) -> list[str]:
    n_searched = sum(row.cell.n_searched for row in rows)
    notes = [
        (any(row.cell.interval.n == 1 for row in rows), "One seed has a mean and no interval."),
        (
            any(row.cell.role == "aa" for row in rows),
            "The A/A arm is the cell of the same levels again, with seeds of its own: what differs is noise.",
        ),
        (n_searched > 0, f"{n_searched} candidates of tuning are in no mean."),
    ]
    return [text for holds, text in notes if holds]


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    table = compute(results, **asked)
    return Output(numbers=numbers(table), tables=build_tables(table))
