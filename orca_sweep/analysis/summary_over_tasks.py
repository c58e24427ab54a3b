"""One number per combination of levels over several tasks, beside the numbers of each task.

Tasks differ in unit, so each is put on the scale of its base cell, which needs no number from outside: the score of a
trial is its paired difference to the base cell at the same seed, in percent of the mean of the base cell on that task.
-10 means that the metric falls by a tenth, 0 that nothing changes. Where lower is better in some tasks and higher in the
rest, the sign of the rest is reversed, and the outputs name these tasks: then -10 means better by a tenth. (A scale from
the base cell to the best cell would depend on the other cells in the table, reward the luckiest, and break down where no
cell is better.)
The number over tasks is the interquartile mean of all scores, with a bootstrap over seeds within each task; both treat the
mean of the base cell as known. Cells are the combinations of levels that every task has, and each needs the same number
of complete pairs in every task.

Writes summary_over_tasks.csv, .md, .tex (booktabs), and a plot of both.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import DARK, PAGE, FigureStyle, choose_style
from orca_sweep.analysis.sheet import RowGroup, open_sheet
from orca_sweep.analysis.tables import (
    better_side,
    by_task,
    describe_completeness,
    describe_metric,
    describe_shared,
    find_base_cell,
    find_varying,
    name_cells,
    name_tasks,
    named_levels,
    read_cells,
    replicated,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    format_csv,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import InterquartileMean, Interval, interquartile_mean, paired_contrast, t_interval
from orca_sweep.stats.digits import (
    Digits,
    digits_of_intervals,
    format_ends,
    format_interval,
    format_mean,
    format_number,
    refine_digits,
)
from orca_sweep.stats.modes import Mode, describe_mode

NAME = "summary_over_tasks"
MAX_ROWS = 40
UNIT = "% of the base cell's mean"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One cell on one task, in percent of the base cell; with the sign reversed if ``Summary.turned`` names the task."""

    task: str
    cell: Cell
    interval: Interval
    """Student-t interval of the mean score over complete pairs."""
    scores: Mapping[int, float]
    """By seed, of complete pairs."""
    incomplete: tuple[int, ...]
    """Seeds without a pair."""


@dataclass(frozen=True, kw_only=True)
class CellOverTasks:
    """One combination of levels over all tasks."""

    cell: Cell
    """The cell of the first task; the cells of the other tasks have the same levels."""
    scores: tuple[Score, ...]
    """In the order of the tasks."""
    reason: str = ""
    """Why there is no number over tasks; empty if there is one."""
    over_tasks: InterquartileMean | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All cells over all tasks, with the column, the confidence level, and the treatment of gaps."""

    bases: tuple[Cell, ...]
    """One per task."""
    rows: tuple[CellOverTasks, ...]
    left_out: tuple[str, ...]
    """Cells that are not in every task."""
    column: str
    level: float
    complete_pairs_only: bool
    notes: tuple[str, ...] = ()
    """Which rows were left out."""

    @property
    def cells(self) -> list[Cell]:
        """Every cell of every task, base cells first."""
        return [*self.bases, *(score.cell for row in self.rows for score in row.scores)]

    mode: Mode = "min"
    """Whether lower or higher scores are better."""
    turned: tuple[str, ...] = ()
    """Tasks where higher is better, if it is not in all of them: the sign of their differences is reversed."""


def compute(
    results: Results,
    base: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
    complete_pairs_only: bool = False,
) -> Summary:
    """Returns the normalised scores of every cell, by task and over tasks.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'; by default it is the first cell of the first task.
        metric: the column to compare.
        level: confidence level of the intervals.
        complete_pairs_only: where pairs are missing, take the seeds that have a pair in every task.

    Raises:
        InputError: if there is only one task; if a task lacks the base cell, or the mean of its base cell is not
            positive; if the base cell is the only cell that all tasks have.
    """
    results = compared_once(results, base)
    cells = replicated(read_cells(results, metric))
    tasks = by_task(cells)
    if len(tasks) < 2:
        raise InputError(
            f"there is only one task ({', '.join(tasks)}), and a summary needs two. Give the space a factor 'task', or collect"
            " sweeps of several tasks into one table; table_effects compares the cells of one task."
        )
    bases = _find_bases(tasks, dict(named_levels("--base", base, cells)))
    common, left_out = _split_common(tasks, cells, bases[0])
    if not common:
        raise InputError(
            f"all {len(tasks)} tasks share only the base ({bases[0].name}), no other combination of levels. Run the same cells"
            " on every task."
        )
    modes = {base.mode for base in bases}
    mode: Mode = "min" if len(modes) > 1 else bases[0].mode
    scale = _Scale(bases=bases, mode=mode, level=level, complete_pairs_only=complete_pairs_only)
    return Summary(
        bases=bases,
        rows=tuple(_summarise_levels(row, scale) for row in common),
        left_out=left_out,
        column=metric or results.metric,
        level=level,
        complete_pairs_only=complete_pairs_only,
        notes=results.notes,
        mode=mode,
        turned=tuple(base.task for base in bases if base.mode != mode),
    )


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """How scores are computed: the base cell of each task, the direction, and the options of the summary."""

    bases: tuple[Cell, ...]
    mode: Mode
    level: float
    complete_pairs_only: bool


def _split_common(tasks: Iterable[str], cells: Iterable[Cell], base: Cell) -> tuple[list[list[Cell]], tuple[str, ...]]:
    """Returns the combinations of levels that all tasks have, without the base, and the names of those that they lack.

    Each combination is the list of its cells in the order of the tasks.
    """
    by_levels: dict[tuple[tuple[str, str], ...], dict[str, Cell]] = {}
    for cell in cells:
        by_levels.setdefault(tuple(cell.labels.items()), {}).setdefault(cell.task, cell)
    tasks = list(tasks)
    rows = [[by_name[task] for task in tasks if task in by_name] for by_name in by_levels.values()]
    common = [row for row in rows if len(row) == len(tasks) and row[0].labels != base.labels]
    return common, tuple(_name_partial(row) for row in rows if len(row) < len(tasks))


def _name_partial(row: Sequence[Cell]) -> str:
    return f"{row[0].name} (only in {', '.join(cell.task for cell in row)})"


def _find_bases(tasks: Mapping[str, Sequence[Cell]], named: Mapping[str, str]) -> tuple[Cell, ...]:
    first = find_base_cell(next(iter(tasks.values())), named)
    bases, problems = [], []
    for task, cells in tasks.items():
        same = next((cell for cell in cells if cell.labels == first.labels), None)
        if same is None:
            problems.append(
                f"{task}: the base cell ({first.name}) is not among its cells. Name a base that all tasks have with --base."
            )
            continue
        mean = t_interval(same.known_values).mean
        if mean <= 0:
            problems.append(
                f"{task}: the mean of the base cell is {mean:.3g}, and scores are shares of it, so it must be positive."
                " Name another base with --base."
            )
        bases.append(same)
    if problems:
        raise InputError(problems)
    return tuple(bases)


def _summarise_levels(cells: Sequence[Cell], scale: _Scale) -> CellOverTasks:
    scores = tuple(_score_task(cell, base, scale) for cell, base in zip(cells, scale.bases, strict=True))
    reason = _explain_gap(scores, scale.complete_pairs_only)
    if reason:
        return CellOverTasks(cell=cells[0], scores=scores, reason=reason)
    seeds = [list(score.scores) for score in scores]
    if scale.complete_pairs_only and len({len(each) for each in seeds}) > 1:
        common = set(seeds[0]).intersection(*seeds[1:])
        seeds = [sorted(common)] * len(scores)
    pooled = {score.task: [score.scores[s] for s in each] for score, each in zip(scores, seeds, strict=True)}
    return CellOverTasks(cell=cells[0], scores=scores, over_tasks=interquartile_mean(pooled, scale.level))


def _score_task(cell: Cell, base: Cell, scale: _Scale) -> Score:
    contrast = paired_contrast(cell.values, base.values, scale.level, scale.complete_pairs_only)
    unit = (100 if cell.mode == scale.mode else -100) / t_interval(base.known_values).mean
    scores = {seed: unit * d for seed, d in zip(contrast.seeds, contrast.differences, strict=True)}
    is_judged = scale.complete_pairs_only or not contrast.incomplete
    interval = t_interval(list(scores.values()) if is_judged else [math.nan], scale.level)
    return Score(task=cell.task, cell=cell, interval=interval, scores=scores, incomplete=contrast.incomplete)


def _explain_gap(scores: Sequence[Score], complete: bool) -> str:
    """Returns why a cell has no number over tasks; empty if it has one."""
    gaps = [f"{score.task} ({', '.join(map(str, score.incomplete))})" for score in scores if score.incomplete]
    if gaps and not complete:
        return f"seeds without a pair: {'; '.join(gaps)}"
    none = [score.task for score in scores if not score.scores]
    if none:
        return f"no pair: {', '.join(none)}"
    counts = {score.task: len(score.scores) for score in scores}
    if len(set(counts.values())) > 1 and not (complete and set.intersection(*(set(score.scores) for score in scores))):
        return f"different numbers of pairs: {', '.join(f'{task} {n}' for task, n in counts.items())}"
    return ""


# Numbers ------------------------------------------------------------------------------------------


def numbers(summary: Summary) -> str:
    """Returns every number as CSV: per cell a line over all tasks, then a line per task."""
    return format_csv([record for row in summary.rows for record in _make_records(summary, row)])


def _make_records(summary: Summary, row: CellOverTasks) -> list[Record]:
    whole = row.over_tasks
    level = format_percent(summary.level)
    over = f"{level} percentile bootstrap of the interquartile mean over seeds within tasks"
    nothing = (None, None, None, None, "")
    values = (
        (whole.n_seeds, whole.mean, whole.low, whole.high, f"{over} ({whole.n_resamples} draws)") if whole else nothing
    )
    lines: list[tuple[object, ...]] = [("all tasks", *values, None, row.reason)]
    for score, base in zip(row.scores, summary.bases, strict=True):
        i, text = score.interval, f"{level} Student-t interval of the mean over n_seeds pairs"
        mean = t_interval(base.known_values).mean
        lines.append((score.task, len(score.scores), i.mean, i.low, i.high, text, mean, ""))
    head = {**row.cell.labels, "column": summary.column, "unit": UNIT}
    names = ("task", "n_seeds", "mean", "low", "high", "interval", "base_mean", "not_summarised")
    better = {"better": describe_mode(summary.mode)}
    return [
        {**head, **dict(zip(names, line, strict=True)), **better, "is_turned": line[0] in summary.turned}
        for line in lines
    ]


def build_tables(summary: Summary) -> tuple[Table, ...]:
    """Returns the table, with a block per cell: all tasks first, then each task."""
    everything = summary.cells
    paths = find_varying(everything)
    digits = _choose_digits(summary)
    blocks = tuple(_build_block(row, paths, digits) for row in summary.rows)
    head = (*paths, "task", "seeds", "change, %", f"{format_percent(summary.level)} interval")
    caption = _write_caption(summary, everything, paths)
    align = f"{'l' * (len(paths) + 1)}rrr"
    notes = _list_notes(summary)
    return (Table(name=NAME, title="Over tasks", caption=caption, head=head, align=align, blocks=blocks, notes=notes),)


def _choose_digits(summary: Summary) -> Digits:
    """Returns the digits of all changes: they have one unit, percent."""
    return digits_of_intervals(score.interval for row in summary.rows for score in row.scores)


def _format_whole(whole: InterquartileMean, column: Digits) -> tuple[str, str]:
    """Returns the number over tasks, and its interval."""
    digits = refine_digits(column, [(whole.high - whole.low) / 2], whole.mean)
    return format_number(whole.mean, digits, "+"), format_interval(whole.low, whole.high, digits, "+")


def _build_block(row: CellOverTasks, paths: Sequence[str], digits: Digits) -> tuple[tuple[str, ...], ...]:
    levels = [row.cell.labels[path] for path in paths]
    whole = row.over_tasks
    first = (NOTHING, NOTHING, NOTHING)
    if whole:
        first = (str(whole.n_seeds), *_format_whole(whole, digits))
    rows = [(*levels, f"all {len(row.scores)} tasks", *first)]
    for score in row.scores:
        i = score.interval
        texts = (str(len(score.scores)), format_mean(i, digits, "+"), format_ends(i, digits, "+"))
        rows.append((*levels, score.task, *texts))
    return tuple(rows)


def _write_caption(summary: Summary, everything: Sequence[Cell], paths: Sequence[str]) -> str:
    means = "; ".join(
        f"{base.task} {_format_base(base)} ({describe_metric(base.metric, base.mode)})" for base in summary.bases
    )
    return (
        f"{summary.column}: paired difference to the base cell ({summary.bases[0].describe(paths)}) at the same"
        f" seed, in percent of the mean of the base cell on the task ({means}).{_describe_turned(summary)} All tasks:"
        " interquartile mean of the scores of all tasks and seeds, with a"
        f" {format_percent(summary.level)} percentile bootstrap over seeds within each task. Each task: mean"
        f" with the {format_percent(summary.level)} Student-t interval over seeds. The mean of the base cell counts as known."
        f" {describe_completeness(everything)}{describe_shared(everything, paths)}"
    )


def _format_base(base: Cell) -> str:
    whole = t_interval(base.known_values)
    return format_mean(whole, digits_of_intervals([whole]))


def _describe_turned(summary: Summary) -> str:
    """Returns a sentence on the direction of changes, and on the tasks whose sign is reversed."""
    if not summary.turned:
        return f" For changes, {describe_mode(summary.mode)}."
    return f" The sign of differences in {', '.join(summary.turned)} is reversed, so a lower change is better in every task."


def _list_notes(summary: Summary) -> tuple[str, ...]:
    cautions = dict.fromkeys(row.over_tasks.caution for row in summary.rows if row.over_tasks)
    reasons = [f"{row.cell.name}: no number over tasks; {row.reason}." for row in summary.rows if row.reason]
    flag = "--complete-pairs takes the seeds that have a pair in every task."
    more = [flag] if reasons and not summary.complete_pairs_only else []
    return (
        *summary.notes,
        *cautions,
        *reasons,
        *more,
        *(f"Not in every task, so left out: {text}." for text in summary.left_out),
    )


# Figure -------------------------------------------------------------------------------------------


def plot(summary: Summary, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure with a line per cell: its interquartile mean with interval, and the mean of each task."""
    rows = summary.rows[:MAX_ROWS]
    paths = find_varying([*summary.bases, *(row.cell for row in summary.rows)])
    base, *names = name_cells([summary.bases[0], *(row.cell for row in rows)], paths)
    with open_sheet(style, write_caption(summary)) as sheet:
        (slot,) = sheet.add_band()
        axis = slot.show(f"{' · '.join(paths) or 'all trials'}\nbase {base}")
        axis.axvline(0, color=DARK, linewidth=0.8)
        # Two rows per cell: the means of its tasks, and their interquartile mean.
        groups = [RowGroup(label=name, notes=(_write_note(row),)) for name, row in zip(names, rows, strict=True)]
        positions = slot.place_rows(groups, is_shaded=True)
        for y, row in zip(positions, rows, strict=True):
            _draw_line(axis, row, y + 0.3 * style.font_size)
        handles = _draw_tasks(axis, summary, rows, [y - 0.3 * style.font_size for y in positions])
        slot.label_x(
            f"change of {summary.column} in {UNIT}; {better_side(summary.mode)} of zero is better than the base"
        )
        sheet.add_legend(handles)
    return sheet.figure


def write_caption(summary: Summary) -> str:
    """Returns what the figure shows, what its intervals are over, and what is missing."""
    n_hidden = len(summary.rows) - MAX_ROWS
    hidden = f" {n_hidden} more cells are only in the table." if n_hidden > 0 else ""
    reasons = "".join(f" {note}" for note in summary.notes)
    return (
        f"Black: interquartile mean over {len(summary.bases)} tasks and its {format_percent(summary.level)} bootstrap interval"
        " over seeds within tasks (for these tasks only). Markers above it: mean of each task over seeds."
        f" {describe_completeness(summary.cells)}{hidden}{reasons}"
    )


def _draw_tasks(axis: Any, summary: Summary, rows: Sequence[CellOverTasks], ys: Sequence[float]) -> list[Any]:
    """Draws the mean of each task, above the line of its cell, and returns what the legend shows."""
    names, handles = name_tasks(base.task for base in summary.bases), []
    for i, base in enumerate(summary.bases):
        look = choose_style(i)
        handles += axis.plot(
            [row.scores[i].interval.mean for row in rows], ys, look.marker, color=look.colour, alpha=0.75,
            markerfacecolor=look.face,
            label=names[base.task] + " (sign reversed)" * (base.task in summary.turned),
        )  # fmt: skip
    return handles


def _draw_line(axis: Any, row: CellOverTasks, y: float) -> None:
    whole = row.over_tasks
    if whole:
        axis.plot([whole.low, whole.high], [y, y], color="black", linewidth=2)
        axis.plot([whole.mean], [y], "|", color="black", markersize=8, markeredgewidth=2)


def _write_note(row: CellOverTasks) -> str:
    whole = row.over_tasks
    if not whole:
        return "not summarised"
    return f"{format_number(whole.mean, 1, '+')}% {format_interval(whole.low, whole.high, 1, '+')}, n = {whole.n_seeds} seeds"


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    summary = compute(results, **asked)
    return Output(
        numbers=numbers(summary),
        tables=build_tables(summary),
        figure=plot(summary, style),
        caption=write_caption(summary),
    )
