"""Results per task: a row per cell with its levels, n, mean, interval, and missing trials.

Means are over seeds, and intervals are Student-t intervals of that mean over the same seeds, computed on the logit or log
scale where the metric is bounded, so that they stay within its bounds. The row of a cell counts its
trials that are not ok, and its mean leaves them out, unless the space scores them as the worst of their task. No mean
includes tuning candidates. An A/A cell has a separate row below the cells.

Writes table_results.csv (all digits, one line per cell), .md and .tex (booktabs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    describe_lacking,
    describe_metric,
    describe_shared,
    find_varying,
    metric_of,
    read_cells,
)
from orca_sweep.analysis.writing import (
    Output,
    Record,
    Table,
    format_csv,
    format_percent,
)
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results
from orca_sweep.stats import UNBOUNDED, Bounds, describe_interval
from orca_sweep.stats.digits import digits_of_intervals, format_ends, format_mean, format_sd
from orca_sweep.stats.modes import Mode

NAME = "table_results"


@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """The cells of one task in the order of the table, A/A cells last."""

    task: str
    metric: str
    mode: Mode
    unit: str
    cells: tuple[Cell, ...]
    bounds: Bounds = UNBOUNDED
    """What the metric can be."""


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """All tasks, with the column and the confidence level."""

    tasks: tuple[TaskResults, ...]
    column: str
    level: float
    notes: tuple[str, ...] = ()
    """Which rows were left out."""


def compute(results: Results, metric: str | None = None, level: float = 0.95) -> ResultsTable:
    """Returns the mean and interval of every cell over its ok replicates, by task.

    Raises:
        InputError: if the metric or a factor is not a column, or there are no trials.
    """
    results = compared(results)
    made = []
    for task, cells in by_task(read_cells(results, metric, level)).items():
        ordered = sorted(cells, key=lambda cell: cell.role == "aa")
        measured = metric_of(cells)
        made.append(
            TaskResults(
                task=task,
                metric=measured.name,
                mode=measured.mode,
                unit=measured.unit,
                cells=tuple(ordered),
                bounds=measured.bounds,
            )
        )
    return ResultsTable(tasks=tuple(made), column=metric or results.metric, level=level, notes=results.notes)


def numbers(table: ResultsTable) -> str:
    """Returns every number as CSV, one line per cell."""
    return format_csv([_make_record(table, cell) for task in table.tasks for cell in task.cells])


def _make_record(table: ResultsTable, cell: Cell) -> Record:
    i = cell.interval
    return {
        "task": cell.task,
        "cell_id": cell.cell_id,
        "role": cell.role,
        **cell.labels,
        "column": table.column,
        "metric": cell.metric,
        "mode": cell.mode,
        "n": i.n,
        "mean": i.mean,
        "sd": i.sd,
        "low": i.low,
        "high": i.high,
        "interval": describe_interval(i.level, i.bounds, "the mean over n seeds"),
        "n_planned": len(cell.trials),
        "n_not_ok": cell.n_not_ok,
        "not_ok": describe_lacking(cell.status_counts),
        "n_scored_as_worst": cell.n_worst,
        "n_searched": cell.n_searched,
        **{f"tuned {path}": write_level(value) for path, value in _chosen_levels(cell).items()},
    }


def _chosen_levels(cell: Cell) -> dict[str, Any]:
    return {path: value for path, value in cell.chosen.items() if path not in cell.labels}


def build_tables(table: ResultsTable) -> tuple[Table, ...]:
    """Returns the table of each task."""
    return tuple(_build_table(table, task, i) for i, task in enumerate(table.tasks, 1))


def _build_table(table: ResultsTable, task: TaskResults, i: int) -> Table:
    paths = find_varying(task.cells)
    tuned = list(dict.fromkeys(path for cell in task.cells for path in _chosen_levels(cell)))
    has_aa = any(cell.role == "aa" for cell in task.cells)
    digits = digits_of_intervals(cell.interval for cell in task.cells)
    head = (*paths, *(f"{path} (tuned)" for path in tuned), *(["cell"] if has_aa else []))
    blocks: list[list[tuple[str, ...]]] = [[], []]
    for cell in task.cells:
        texts = [cell.labels[path] for path in paths]
        texts += [write_level(_chosen_levels(cell).get(path)) for path in tuned]
        texts += [{"aa": "A/A"}.get(cell.role, "cell")] if has_aa else []
        whole = cell.interval
        numbers = (str(whole.n), format_mean(whole, digits), format_ends(whole, digits), format_sd(whole, digits))
        blocks[cell.role == "aa"].append((*texts, *numbers, describe_lacking(cell.status_counts) or "0"))
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: results",
        caption=_write_caption(table, task, paths),
        head=(*head, "n", "mean", f"{format_percent(table.level)} interval", "sd", "not ok"),
        align=f"{'l' * len(head)}rrrrl",
        blocks=tuple(tuple(block) for block in blocks),
        notes=(*table.notes, *_list_notes(task.cells)),
    )


def _write_caption(table: ResultsTable, task: TaskResults, paths: Sequence[str]) -> str:
    return (
        f"{table.column} ({describe_metric(task.metric, task.mode)}), mean over n seeds with the"
        f" {describe_interval(table.level, task.bounds, 'that mean')}; sd: standard deviation over the same seeds."
        f" {describe_completeness(task.cells)}"
        f"{describe_shared(task.cells, paths)}"
    )


def _list_notes(cells: Sequence[Cell]) -> list[str]:
    n_searched = sum(cell.n_searched for cell in cells)
    notes = [
        (any(cell.interval.n == 1 for cell in cells), "A single seed has a mean but no interval."),
        (
            any(cell.role == "aa" for cell in cells),
            "An A/A cell repeats the cell of the same levels with other seeds, so the difference is noise.",
        ),
        (n_searched > 0, f"No mean includes the {n_searched} tuning candidates."),
    ]
    return [text for holds, text in notes if holds]


def make_output(results: Results, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    table = compute(results, **asked)
    return Output(numbers=numbers(table), tables=build_tables(table))
