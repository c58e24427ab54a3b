"""One number per combination of levels over several tasks, with the per-task numbers beside it.

Tasks differ in their unit, so each is put on a scale of its own base cell, and needs no number from outside: the score
of a trial is its paired difference to the base cell at the same seed, in percent of the base cell's mean of that task.
-10 says that the metric falls by a tenth, 0 that nothing changes. Where lower is better in some tasks and higher in others,
the differences of the latter are turned round, and it is said of which: then -10 says better by a tenth. (A scale from
the base cell to the best cell would depend on which other cells are in the table, reward the luckiest one, and break down
where no cell is better.)
The number over tasks is the interquartile mean of all scores, with a bootstrap over seeds within each task; the base
cell's mean counts as known in both. Cells are the combinations of levels that every task has; all need the same number of
complete pairs in every task.

Writes summary_over_tasks.csv, .md, .tex (booktabs), and a plot of both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figures import COLOURS
from orca_sweep.analysis.tables import (
    better_side,
    by_task,
    describe_completeness,
    describe_metric,
    describe_shared,
    find_base_cell,
    find_varying,
    levels_of,
    named_levels,
    read_cells,
    replicated,
    shorten_texts,
    wrap_title,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    decimals_of,
    format_csv,
    format_interval,
    format_number,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import InterquartileMean, Interval, interquartile_mean, paired_contrast, t_interval
from orca_sweep.stats.modes import Mode, describe_mode

NAME = "summary_over_tasks"
MAX_ROWS = 40
UNIT = "% of the base cell's mean"


@dataclass(frozen=True)
class Score:
    """One cell on one task, in percent of the task's base; turned round where ``Summary.turned`` names the task."""

    task: str
    cell: Cell
    interval: Interval
    """Student-t interval of the mean score over complete pairs."""
    scores: Mapping[int, float]
    """By seed, of complete pairs."""
    incomplete: tuple[int, ...]
    """Seeds that give no pair."""


@dataclass(frozen=True)
class CellOverTasks:
    """One combination of levels over all tasks."""

    cell: Cell
    """Of the first task: its levels are those of all."""
    over_tasks: InterquartileMean | None
    scores: tuple[Score, ...]
    """In the order of the tasks."""
    reason: str
    """Why there is no number over tasks; empty if there is one."""


@dataclass(frozen=True)
class Summary:
    """All cells, and what the numbers are of."""

    bases: tuple[Cell, ...]
    """One per task."""
    rows: tuple[CellOverTasks, ...]
    left_out: tuple[str, ...]
    """Cells that not every task has."""
    column: str
    level: float
    complete_pairs_only: bool
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""
    mode: Mode = "min"
    """Which way round the scores are compared."""
    turned: tuple[str, ...] = ()
    """Tasks of which higher is better, where that does not hold of all: their differences are turned round."""


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
        base: levels of the base cell, each 'factor=level'; else it is the first cell of the first task.
        metric: the column.
        level: of the intervals.
        complete_pairs_only: where pairs are missing, take the seeds that give a pair in every task.

    Raises:
        InputError: with one task; where a task lacks the base cell, or its mean is not positive; where no cell but
            the base is in all tasks.
    """
    results = compared(results, base)
    cells = replicated(read_cells(results, metric))
    tasks = by_task(cells)
    if len(tasks) < 2:
        raise InputError(
            f"there is one task ({', '.join(tasks)}), and a summary needs two. Give the space a factor 'task', or collect"
            " sweeps of several tasks into one table; table_effects compares the cells of one task."
        )
    bases = _find_bases(tasks, dict(named_levels("--base", base, cells)))
    names = dict.fromkeys(_level_key(cell) for cell in cells)
    places = {key: [[cell for cell in cells if _level_key(cell) == key] for cells in tasks.values()] for key in names}
    whole = {key: [here[0] for here in place] for key, place in places.items() if all(place)}
    others = [place for key, place in whole.items() if key != _level_key(bases[0])]
    if not others:
        raise InputError(
            f"no combination of levels but the base's ({bases[0].name}) is in all {len(tasks)} tasks. Run the same cells on"
            " every task."
        )
    left_out = tuple(_left_out(place) for key, place in places.items() if key not in whole)
    modes = {base.mode for base in bases}
    mode: Mode = "min" if len(modes) > 1 else bases[0].mode
    turned = tuple(base.task for base in bases if base.mode != mode)
    rows = tuple(_summarise_levels(place, bases, mode, level, complete_pairs_only) for place in others)
    column = metric or results.metric
    return Summary(bases, rows, left_out, column, level, complete_pairs_only, results.notes, mode, turned)


def _level_key(cell: Cell) -> tuple[tuple[str, str], ...]:
    return tuple(cell.labels.items())


def _find_bases(tasks: Mapping[str, Sequence[Cell]], named: Mapping[str, str]) -> tuple[Cell, ...]:
    first = find_base_cell(next(iter(tasks.values())), named)
    bases, problems = [], []
    for task, cells in tasks.items():
        same = next((cell for cell in cells if cell.labels == first.labels), None)
        if same is None:
            problems.append(
                f"{task}: the base cell ({first.name}) is not among its cells. Name one that all tasks have: --base."
            )
            continue
        mean = t_interval(same.known_values).mean
        if mean <= 0:
            problems.append(
                f"{task}: the base cell's mean is {mean:.3g}, and scores are shares of it. Take another base."
            )
        bases.append(same)
    if problems:
        raise InputError(problems)
    return tuple(bases)


def _left_out(place: Sequence[Sequence[Cell]]) -> str:
    having = [here[0] for here in place if here]
    return f"{having[0].name} (in {', '.join(cell.task for cell in having)} alone)"


def _summarise_levels(
    place: Sequence[Cell], bases: Sequence[Cell], mode: Mode, level: float, complete: bool
) -> CellOverTasks:
    scores = tuple(_score_task(cell, base, mode, level, complete) for cell, base in zip(place, bases, strict=True))
    reason = _explain_gap(scores, complete)
    if reason:
        return CellOverTasks(place[0], None, scores, reason)
    seeds = [list(score.scores) for score in scores]
    if complete and len({len(each) for each in seeds}) > 1:
        common = set(seeds[0]).intersection(*seeds[1:])
        seeds = [sorted(common)] * len(scores)
    pooled = {score.task: [score.scores[s] for s in each] for score, each in zip(scores, seeds, strict=True)}
    return CellOverTasks(place[0], interquartile_mean(pooled, level), scores, "")


def _score_task(cell: Cell, base: Cell, mode: Mode, level: float, complete: bool) -> Score:
    contrast = paired_contrast(cell.values, base.values, level, complete)
    unit = (100 if cell.mode == mode else -100) / t_interval(base.known_values).mean
    scores = {seed: unit * d for seed, d in zip(contrast.seeds, contrast.differences, strict=True)}
    judged = complete or not contrast.incomplete
    return Score(
        cell.task, cell, t_interval(list(scores.values()) if judged else [math.nan], level), scores, contrast.incomplete
    )


def _explain_gap(scores: Sequence[Score], complete: bool) -> str:
    """Why a cell has no number over tasks."""
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
    """Returns every number as CSV: per cell a line over all tasks, then one per task."""
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
    """Returns the table as people read it: a block per cell, over all tasks first, then each task."""
    everything = [*summary.bases, *(score.cell for row in summary.rows for score in row.scores)]
    paths = find_varying(everything)
    spreads = [score.interval.half_width for row in summary.rows for score in row.scores]
    decimals = min(2, decimals_of(spreads))
    blocks = tuple(_build_block(row, paths, decimals) for row in summary.rows)
    head = (*paths, "task", "seeds", "change, %", f"{format_percent(summary.level)} interval")
    caption = _write_caption(summary, everything, paths)
    align = f"{'l' * (len(paths) + 1)}rrr"
    notes = _list_notes(summary)
    return (Table(name=NAME, title="Over tasks", caption=caption, head=head, align=align, blocks=blocks, notes=notes),)


def _build_block(row: CellOverTasks, paths: Sequence[str], decimals: int) -> tuple[tuple[str, ...], ...]:
    levels = [row.cell.labels[path] for path in paths]
    whole = row.over_tasks
    first = (NOTHING, NOTHING, NOTHING)
    if whole:
        first = (
            str(whole.n_seeds),
            format_number(whole.mean, decimals, "+"),
            format_interval(whole.low, whole.high, decimals, "+"),
        )
    rows = [(*levels, f"all {len(row.scores)} tasks", *first)]
    for score in row.scores:
        i = score.interval
        texts = (
            str(len(score.scores)),
            format_number(i.mean, decimals, "+"),
            format_interval(i.low, i.high, decimals, "+"),
        )
        rows.append((*levels, score.task, *texts))
    return tuple(rows)


def _write_caption(summary: Summary, everything: Sequence[Cell], paths: Sequence[str]) -> str:
    means = "; ".join(
        f"{base.task} {t_interval(base.known_values).mean:.4g} ({describe_metric(base.metric, base.mode)})"
        for base in summary.bases
    )
    return (
        f"{summary.column}: paired difference to the base cell ({summary.bases[0].describe(paths)}) at equal"
        f" seed, in percent of the base cell's mean of the task ({means}).{_describe_turned(summary)} All tasks:"
        " interquartile mean of the scores of all tasks and seeds, with a"
        f" {format_percent(summary.level)} percentile bootstrap over seeds within each task. Each task: mean"
        f" with the {format_percent(summary.level)} Student-t interval over seeds. The base cell's mean counts as known."
        f" {describe_completeness(everything)}{describe_shared(everything, paths)}"
    )


def _describe_turned(summary: Summary) -> str:
    """A sentence on the tasks whose differences are turned round; empty if there are none."""
    if not summary.turned:
        return f" Of the change, {describe_mode(summary.mode)}."
    return f" Differences of {', '.join(summary.turned)} are turned round, so that of every change lower is better."


def _list_notes(summary: Summary) -> tuple[str, ...]:
    cautions = dict.fromkeys(row.over_tasks.caution for row in summary.rows if row.over_tasks)
    reasons = [f"{row.cell.name}: no number over tasks; {row.reason}." for row in summary.rows if row.reason]
    flag = "--complete-pairs takes the seeds that give a pair in every task."
    more = [flag] if reasons and not summary.complete_pairs_only else []
    return (
        *summary.notes,
        *cautions,
        *reasons,
        *more,
        *(f"Not in every task, so left out: {text}." for text in summary.left_out),
    )


# Figure -------------------------------------------------------------------------------------------


def plot(summary: Summary) -> Any:
    """Returns a matplotlib figure: a line per cell, the interquartile mean with its interval and the tasks' own means."""
    from matplotlib.figure import Figure

    rows = summary.rows[:MAX_ROWS]
    made = Figure(figsize=(9.5, 2.2 + 0.42 * len(rows)), layout="constrained")
    axis = made.subplots()
    paths = find_varying([*summary.bases, *(row.cell for row in summary.rows)])
    axis.axvline(0, color="#444444", linewidth=0.8)
    names = shorten_texts((base.task for base in summary.bases), 30)
    tasks = [
        name + " (turned round)" * (base.task in summary.turned)
        for name, base in zip(names, summary.bases, strict=True)
    ]
    for i in range(len(summary.bases)):
        points = [(row.scores[i].interval.mean, y - 0.18) for y, row in enumerate(rows)]
        look: dict[str, Any] = {
            "color": COLOURS[i % 6],
            "marker": "osD^vPX*"[(i // 6 + i) % 8],
            "linestyle": "none",
            "alpha": 0.75,
        }
        axis.plot([x for x, _ in points], [y for _, y in points], markersize=5, label=tasks[i], **look)
    for y, row in enumerate(rows):
        _draw_line(axis, row, y)
    axis.set_yticks(range(len(rows)), shorten_texts(levels_of(row.cell, paths) for row in rows), fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_ylabel(" · ".join(paths), fontsize=8)
    axis.set_xlabel(
        f"change of {summary.column} in {UNIT}; {better_side(summary.mode)} of zero is better than the base", fontsize=8
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    hidden = (
        f"; {len(summary.rows) - len(rows)} more cells are in the table only" if len(rows) < len(summary.rows) else ""
    )
    base_name = wrap_title(levels_of(summary.bases[0], paths), 90)
    made.suptitle(
        f"black: interquartile mean over {len(summary.bases)} tasks and {format_percent(summary.level)} bootstrap interval over seeds"
        f" within tasks (it is of these tasks)\ncoloured: each task's own mean over seeds; base {base_name}{hidden}",
        fontsize=9,
    )
    return made


def _draw_line(axis: Any, row: CellOverTasks, y: int) -> None:
    whole = row.over_tasks
    text = "not summarised"
    if whole:
        axis.plot([whole.low, whole.high], [y + 0.12] * 2, color="black", linewidth=2.4)
        axis.plot([whole.mean], [y + 0.12], "|", color="black", markersize=11, markeredgewidth=2.4)
        text = f"{format_number(whole.mean, 1, '+')}% {format_interval(whole.low, whole.high, 1, '+')}, n = {whole.n_seeds} seeds"
    axis.text(1.01, y, text, transform=axis.get_yaxis_transform(), fontsize=8, va="center")


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    summary = compute(results, **asked)
    return Output(numbers=numbers(summary), tables=build_tables(summary), figure=plot(summary))
