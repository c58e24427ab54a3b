"""What each changed part is worth, per task: the difference to the base cell for each changed level, the largest first.

For sweeps that change one factor of a base cell at a time: drop_one, add_one, one_at_a_time. Differences, intervals, and words
are those of table_effects (paired over shared seeds, Holm's procedure over all cells of the task, the same margin), so the
two cannot disagree. A cell that changes several factors is shown if no cell changes one of them alone: such changes are the
same work and ran once. Other cells stay in table_effects; their number is stated.

Writes importance.csv, .md, .tex (booktabs), and a plot as .png and .svg.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.analysis import table_effects
from orca_sweep.analysis.factor_words import name_measure
from orca_sweep.analysis.factorial import find_changes, find_lone_changes, is_star, list_levels
from orca_sweep.analysis.figure_style import DARK, PAGE, SHADE, FigureStyle
from orca_sweep.analysis.figures import SINGLE
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.table_effects import LOOKS, Effects, Row, TaskEffects
from orca_sweep.analysis.tables import (
    describe_completeness,
    describe_metric,
    name_tasks,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    format_csv,
    format_p,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Results
from orca_sweep.stats.digits import Digits, digits_of_intervals, format_ends, format_mean

NAME = "importance"
MAX_PANELS, MAX_ROWS = 8, 40


@dataclass(frozen=True, kw_only=True)
class Change:
    """A cell that changes a part of the base cell."""

    paths: tuple[str, ...]
    """The changed factor; several if their changes are the same work."""
    row: Row
    base_levels: tuple[str, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the cell, as many as paths."""
        return tuple(self.row.cell.labels[path] for path in self.paths)

    @property
    def name(self) -> str:
        """Such as 'finetune.freeze: none → body'."""
        steps = zip(self.paths, self.base_levels, self.levels, strict=True)
        return " and ".join(f"{path}: {old} → {new}" for path, old, new in steps)


@dataclass(frozen=True, kw_only=True)
class TaskImportance:
    """The changes of one task, the largest difference first; those without a number last."""

    effects: TaskEffects
    changes: tuple[Change, ...]
    n_left_out: int
    """Cells that change several factors and are only in table_effects."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """All tasks that have a changed part."""

    tasks: tuple[TaskImportance, ...]
    effects: Effects


def is_suited(results: Results) -> bool:
    """Whether every task of a sweep changes one factor of its base cell at a time, and more than one in all."""
    tasks = list_levels(results)
    return bool(tasks) and all(is_star(cells, cells[0]) for cells in tasks)


def compute(
    results: Results,
    base: Sequence[str] = (),
    margin: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
    complete_pairs_only: bool = False,
) -> Importance:
    """Returns the changed parts of each task; the arguments are those of `table_effects.compute`.

    Raises:
        InputError: as `table_effects.compute`; also if no cell changes a single factor of its base cell.
    """
    asked = {"metric": metric, "level": level, "complete_pairs_only": complete_pairs_only}
    return compute_beside(table_effects.compute(results, base, margin, **asked))  # type: ignore[arg-type]


def compute_beside(effects: Effects) -> Importance:
    """Returns the changed parts among the rows of a table of effects.

    Raises:
        InputError: if no cell changes a single factor of its base cell.
    """
    ranked = map(_rank_changes, effects.tasks)
    tasks = tuple(task for task in ranked if any(len(change.paths) == 1 for change in task.changes))
    if not tasks:
        raise InputError(
            "no cell changes a single factor of its base cell. Compare cells with table_effects, or name another base cell"
            " with --base."
        )
    return Importance(tasks=tasks, effects=effects)


def _rank_changes(task: TaskEffects) -> TaskImportance:
    base = task.base.labels
    are_shown = find_lone_changes([row.cell.labels for row in task.rows], base)
    changes = []
    for row, is_shown in zip(task.rows, are_shown, strict=True):
        if is_shown:
            paths = find_changes(row.cell.labels, base)
            changes.append(Change(paths=paths, row=row, base_levels=tuple(base[path] for path in paths)))
    return TaskImportance(
        effects=task, changes=tuple(sorted(changes, key=_largest_first)), n_left_out=len(task.rows) - len(changes)
    )


def _largest_first(change: Change) -> float:
    difference = change.row.contrast.interval.mean
    return math.inf if math.isnan(difference) else -abs(difference)


# Numbers ------------------------------------------------------------------------------------------


def numbers(importance: Importance) -> str:
    """Returns every number as CSV, one line per change."""
    return format_csv(
        [
            _make_record(importance, task, change, rank)
            for task in importance.tasks
            for rank, change in enumerate(task.changes, 1)
        ]
    )


def _make_record(importance: Importance, task: TaskImportance, change: Change, rank: int) -> Record:
    contrast, verdict, effects = change.row.contrast, change.row.verdict, task.effects
    return {
        "task": effects.task,
        "rank": rank,
        "changed": " and ".join(change.paths),
        "level": " and ".join(change.levels),
        "base_level": " and ".join(change.base_levels),
        "cell_id": change.row.cell.cell_id,
        "base_cell_id": effects.base.cell_id,
        "column": importance.effects.column,
        "metric": effects.metric,
        "mode": effects.mode,
        "n_pairs": contrast.interval.n,
        "difference": contrast.interval.mean,
        "low": contrast.interval.low,
        "high": contrast.interval.high,
        "interval": f"{format_percent(importance.effects.level)} Student-t interval of the mean difference over n_pairs pairs",
        "p_t": contrast.p_t,
        "p_t_holm": change.row.p_holm,
        "verdict": verdict.word,
        "margin": verdict.margin,
        "margin_from": effects.margin.source,
        "n_contrasts": verdict.n_contrasts,
        "seeds_without_pair": change.row.unpaired,
    }


# Tables -------------------------------------------------------------------------------------------


def build_tables(importance: Importance) -> tuple[Table, ...]:
    """Returns the table of each task."""
    tables = [_build_table(importance, task, i) for i, task in enumerate(importance.tasks, 1)]
    return (*tables[:-1], replace(tables[-1], notes=importance.effects.notes))


def _build_table(importance: Importance, task: TaskImportance, i: int) -> Table:
    digits = digits_of_intervals(change.row.contrast.interval for change in task.changes)
    has_gaps = any(change.row.unpaired for change in task.changes)
    level = format_percent(importance.effects.level)
    head = ("changed", "from", "to", "pairs", "difference", f"{level} interval", "p t, Holm", "verdict")
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.effects.task}: what each changed part is worth",
        caption=_write_task_caption(importance, task),
        head=(*head, *["seeds without a pair"] * has_gaps),
        align=f"lllrrrrl{'l' * has_gaps}",
        blocks=(tuple(_make_row(change, digits, has_gaps) for change in task.changes),),
    )


def _make_row(change: Change, digits: Digits, has_gaps: bool) -> tuple[str, ...]:
    interval = change.row.contrast.interval
    return (
        " and ".join(change.paths),
        " and ".join(change.base_levels),
        " and ".join(change.levels),
        str(interval.n),
        format_mean(interval, digits, "+"),
        format_ends(interval, digits, "+"),
        format_p(change.row.p_holm),
        change.row.verdict.word,
        *([change.row.unpaired or NOTHING] if has_gaps else []),
    )


def write_caption(importance: Importance) -> str:
    """Returns the caption of the figure: what is compared with what, over which seeds, and how words are judged."""
    level = format_percent(importance.effects.level)
    names = name_tasks(task.effects.task for task in importance.tasks)
    counts = {change.row.contrast.interval.n for task in importance.tasks for change in task.changes}
    sentences = [
        f"Difference in {importance.effects.column} to the base cell when one part is changed, the largest first: mean and"
        f" {level} Student-t interval over n pairs of the same seed (none where n = 1)."
        " Bars run from zero to the mean. The level of the base cell is left of the arrow."
        " Shaded: the margin, if any. Words are those of table_effects, corrected for all cells of the task; intervals are not"
        " corrected.",
        *[SINGLE] * (counts == {1}),
        *(
            f"{names[task.effects.task]}: judged against {_describe_task(task)}"
            for task in importance.tasks[:MAX_PANELS]
        ),
    ]
    if len(importance.tasks) > MAX_PANELS:
        sentences.append(f"{len(importance.tasks) - MAX_PANELS} more tasks are only in the table.")
    return " ".join(sentences)


def _describe_task(task: TaskImportance) -> str:
    """Returns what a task is judged against, how many of its trials are ok, and which cells are elsewhere."""
    of, n = task.effects, task.n_left_out
    subject = f"{n} cells that change" if n > 1 else "1 cell that changes"
    left_out = f" {subject} several factors {'are' if n > 1 else 'is'} only in table_effects." if n else ""
    return (
        f"{of.margin.describe()}; corrected for all {len(of.rows)} cells of the task."
        f" {describe_completeness([of.base, *(row.cell for row in of.rows)])}{left_out}"
    )


def _write_task_caption(importance: Importance, task: TaskImportance) -> str:
    of, level = task.effects, format_percent(importance.effects.level)
    column = importance.effects.column
    return (
        f"{of.task}, {column} ({describe_metric(of.metric, of.mode)}): the difference to the base cell ({of.base.name}) when one"
        f" part is changed, the largest first. Differences are paired by seed, with their {level} Student-t interval over pairs."
        f" Words are those of table_effects; intervals are not corrected. Judged against {_describe_task(task)}"
    )


# Figure -------------------------------------------------------------------------------------------


def plot(importance: Importance, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: per task a bar and an interval for each change, the margin shaded."""
    tasks = importance.tasks[:MAX_PANELS]
    names = name_tasks(task.effects.task for task in tasks)
    with open_sheet(style, write_caption(importance)) as sheet:
        for slot, task in zip(sheet.add_grid(len(tasks), columns=1), tasks, strict=True):
            _draw_panel(slot, importance, task, names[task.effects.task])
    return sheet.figure


def _draw_panel(slot: Slot, importance: Importance, task: TaskImportance, name: str) -> None:
    changes, of = task.changes[:MAX_ROWS], task.effects
    axis = slot.show(name)
    if of.margin.value:
        axis.axvspan(-of.margin.value, of.margin.value, color=SHADE, alpha=0.25, linewidth=0)
    axis.axvline(0, color=DARK, linewidth=0.8)
    groups = [RowGroup(label=change.name, notes=(_write_note(change),)) for change in changes]
    for y, change in zip(slot.place_rows(groups), changes, strict=True):
        _draw_change(axis, change, y, height=slot.style.font_size)
    axis.margins(x=0.08)
    better = "negative" if of.mode == "min" else "positive"
    slot.label_x(f"difference in {name_measure(importance.effects.column, of)} to the base cell; {better} is better")


def _write_note(change: Change) -> str:
    interval = change.row.contrast.interval
    n_lacking = len(change.row.contrast.incomplete) if change.row.unpaired else 0
    lacks = f", {n_lacking} without a pair" if n_lacking else ""
    return f"{change.row.verdict.word} (n = {interval.n}{lacks})"


def _draw_change(axis: Any, change: Change, y: float, height: float) -> None:
    interval, (colour, marker) = change.row.contrast.interval, LOOKS[change.row.verdict.word]
    if math.isfinite(interval.mean):
        axis.barh(y, interval.mean, height=height, color=colour, alpha=0.3, linewidth=0)
        axis.plot([interval.mean], [y], marker, color=colour)
    if math.isfinite(interval.low):
        axis.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.6)


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis, drawn in a style; ``asked`` are the options of ``compute``."""
    importance = compute(results, **asked)
    return Output(
        numbers=numbers(importance),
        tables=build_tables(importance),
        figure=plot(importance, style),
        caption=write_caption(importance),
    )
