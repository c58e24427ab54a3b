"""Effects per task: the paired difference of every cell to the base cell over shared seeds, with a verdict.

The base is the first cell of the task in the table; --base names other levels, and factors that it does not name keep
the level of the first cell. Differences are in the unit of the task, cell minus base: where lower is better, a negative
difference is an improvement, else a positive one. Verdicts (helps, hurts, no meaningful difference, undecided) are
judged against a margin: --margin, else the margin that the space fixes, else the margin from an A/A cell of the task.
Without any, cells are judged against zero, and none can be shown to make no difference. Below three pairs nothing is
judged. The family of Holm's procedure is the cells of the task. The table lists seeds without a pair. Only
--complete-pairs judges a cell with such seeds, from its complete pairs.

Writes table_effects.csv, .md, .tex (booktabs), and a forest plot as .png, .svg and .pdf.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import COLOURS, DARK, PAGE, SHADE, FigureStyle
from orca_sweep.analysis.figures import SINGLE
from orca_sweep.analysis.margins import Margin, fixed_margins, margin_of
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.tables import (
    UNKNOWN_METRIC,
    better_side,
    by_task,
    describe_completeness,
    describe_metric,
    describe_shared,
    find_base_cell,
    find_varying,
    keep_comparable,
    metric_of,
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
    count_things,
    format_csv,
    format_p,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import (
    LEAST_PAIRS,
    WORDS,
    Contrast,
    Verdict,
    holm,
    judge_contrasts,
    paired_contrast,
    t_interval,
)
from orca_sweep.stats.digits import digits_of_intervals, format_ends, format_mean, format_number
from orca_sweep.stats.modes import Mode

NAME = "table_effects"
MAX_PANELS, MAX_ROWS = 8, 40
LOOKS = dict(zip(WORDS, ((COLOURS[2], "o"), (COLOURS[1], "s"), (COLOURS[0], "D"), (COLOURS[7], "x")), strict=True))
"""Colour and marker of each verdict; the markers distinguish them in print without colour."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell against the base cell."""

    cell: Cell
    contrast: Contrast
    p_holm: float
    """p of the paired t test, adjusted within the task."""
    verdict: Verdict
    unpaired: str
    """Seeds without a pair, and why; empty if every seed has one."""


@dataclass(frozen=True, kw_only=True)
class TaskEffects:
    """All cells of a task except the base, in the order of the table."""

    task: str
    metric: str
    base: Cell
    margin: Margin
    rows: tuple[Row, ...]
    mode: Mode = "min"
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All tasks, with the column, the confidence level, and the treatment of gaps."""

    tasks: tuple[TaskEffects, ...]
    column: str
    level: float
    complete_pairs_only: bool
    notes: tuple[str, ...] = ()
    """Which rows were left out."""


def compute(
    results: Results,
    base: Sequence[str] = (),
    margin: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
    complete_pairs_only: bool = False,
) -> Effects:
    """Returns the contrast of each cell with the base cell of its task.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        margin: '0.01' for all tasks, 'task=0.01' for one.
        metric: the column to compare.
        level: confidence level of the intervals; verdicts are judged at 1 - level.
        complete_pairs_only: judge cells whose seeds lack pairs from the complete pairs.

    Raises:
        InputError: if the tables lack what is named, or if no task has two cells.
    """
    if not 0.5 < level < 1:
        raise InputError(f"--level {level:g}: verdicts need a level above 0.5 and below 1. Use 0.95.")
    results = compared_once(results, base)
    all_cells = read_cells(results, metric)
    tasks = by_task(all_cells)
    fixed = fixed_margins(results, margin, tuple(tasks))
    named = dict(named_levels("--base", base, all_cells))
    made = tuple(
        _compute_task(
            cells, find_base_cell(cells, named), fixed, alpha=1 - level, complete_pairs_only=complete_pairs_only
        )
        for cells in keep_comparable(tasks).values()
    )
    if not any(task.rows for task in made):
        text = "each task has only one cell, so there is nothing to compare. Give the space a factor of two levels."
        raise InputError(" ".join((text, *results.notes)))
    return Effects(
        tasks=made,
        column=metric or results.metric,
        level=level,
        complete_pairs_only=complete_pairs_only,
        notes=results.notes,
    )


def _compute_task(
    task_cells: Sequence[Cell], base: Cell, fixed: Mapping[str, Margin], *, alpha: float, complete_pairs_only: bool
) -> TaskEffects:
    cells = [cell for cell in replicated(task_cells) if cell is not base]
    contrasts = [paired_contrast(cell.values, base.values, 1 - alpha, complete_pairs_only) for cell in cells]
    limit = margin_of(task_cells, base, fixed, 1 - alpha)
    adjusted = holm([contrast.p_t for contrast in contrasts]).tolist()
    measured = metric_of(task_cells)
    digits = digits_of_intervals(contrast.interval for contrast in contrasts)
    judged = judge_contrasts(contrasts, limit.limit, alpha, measured.mode, digits=[digits] * len(contrasts))
    rows = [
        Row(cell=cell, contrast=contrast, p_holm=p, verdict=verdict, unpaired=describe_unpaired(cell, base, contrast))
        for cell, contrast, p, verdict in zip(cells, contrasts, adjusted, judged, strict=True)
    ]
    return TaskEffects(
        task=base.task,
        metric=measured.name,
        base=base,
        margin=limit,
        rows=tuple(rows),
        mode=measured.mode,
        unit=measured.unit,
    )


def describe_unpaired(cell: Cell, base: Cell, contrast: Contrast) -> str:
    """Returns the seeds without a pair, each with the reason: '2 (lost); 4 (base failed)'."""
    return "; ".join(f"{seed} ({', '.join(_find_reasons(cell, base, seed))})" for seed in contrast.incomplete)


def _find_reasons(cell: Cell, base: Cell, seed: int) -> list[str]:
    reasons = []
    for prefix, member in (("", cell), ("base ", base)):
        status = member.statuses.get(seed, "not planned")
        if not math.isfinite(member.values.get(seed, math.nan)):
            reasons.append(f"{prefix}{'ok but without a number' if status == 'ok' else status}")
    return reasons


# Numbers ------------------------------------------------------------------------------------------


def numbers(effects: Effects) -> str:
    """Returns every number as CSV, one line per cell that is not the base."""
    return format_csv([_make_record(effects, task, row) for task in effects.tasks for row in task.rows])


def _make_record(effects: Effects, task: TaskEffects, row: Row) -> Record:
    c, v = row.contrast, row.verdict
    return {
        "task": task.task,
        "cell_id": row.cell.cell_id,
        **row.cell.labels,
        "base_cell_id": task.base.cell_id,
        "base": task.base.name,
        "column": effects.column,
        "metric": task.metric,
        "mode": task.mode,
        "n_pairs": c.interval.n,
        "mean": c.mean_a,
        "mean_base": c.mean_b,
        "difference": c.interval.mean,
        "low": c.interval.low,
        "high": c.interval.high,
        "interval": f"{format_percent(effects.level)} Student-t interval of the mean paired difference over n_pairs seeds",
        "sd_of_differences": c.interval.sd,
        "hedges_g": c.hedges_g,
        "p_t": c.p_t,
        "p_t_holm": row.p_holm,
        "p_sign_flip": c.p_sign_flip,
        "smallest_p_sign_flip": c.smallest_p,
        "verdict": v.word,
        "margin": v.margin,
        "margin_from": task.margin.source,
        "p_beyond_margin_holm": v.p_beyond,
        "p_within_margin_holm": v.p_within,
        "n_contrasts": v.n_contrasts,
        "sentence": v.sentence,
        "seeds_without_pair": row.unpaired,
    }


def build_tables(effects: Effects) -> tuple[Table, ...]:
    """Returns the table of each task that has two cells or more."""
    return tuple(_build_table(effects, task, i) for i, task in enumerate(effects.tasks, 1) if task.rows)


def _build_table(effects: Effects, task: TaskEffects, i: int) -> Table:
    cells = [task.base, *(row.cell for row in task.rows)]
    paths = find_varying(cells)
    digits = digits_of_intervals(row.contrast.interval for row in task.rows)
    gaps = any(row.unpaired for row in task.rows)
    head = (*paths, "pairs", "difference", f"{format_percent(effects.level)} interval", "Hedges' g", "p t", "p t, Holm")
    rows = []
    for row in task.rows:
        c = row.contrast
        texts = [
            str(c.interval.n),
            format_mean(c.interval, digits, "+"),
            format_ends(c.interval, digits, "+"),
            format_number(c.hedges_g, 2, "+"),
        ]
        texts += [format_p(p) for p in (c.p_t, row.p_holm, c.p_sign_flip, c.smallest_p)]
        levels = [row.cell.labels[path] for path in paths]
        rows.append((*levels, *texts, row.verdict.word, *([row.unpaired or NOTHING] if gaps else [])))
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: effects",
        caption=_write_caption(effects, task, cells, paths),
        head=(*head, "p sign flip", "smallest", "verdict", *(["seeds without a pair"] if gaps else [])),
        align=f"{'l' * len(paths)}{'r' * 8}l{'l' if gaps else ''}",
        blocks=(tuple(rows),),
        notes=tuple(_list_notes(effects, task, gaps)),
    )


def _write_caption(effects: Effects, task: TaskEffects, cells: Sequence[Cell], paths: Sequence[str]) -> str:
    whole = t_interval(task.base.known_values)
    mean = format_mean(whole, digits_of_intervals([whole]))
    known = f", mean {mean} over {count_things(whole.n, 'seed')}" if whole.n else ", no ok trial yet"
    return (
        f"{effects.column} ({describe_metric(task.metric, task.mode)}): cell minus base ({task.base.describe(paths)}{known}),"
        f" mean over pairs of the same seed with the {format_percent(effects.level)} Student-t interval of that mean over"
        " pairs. Hedges' g is in standard deviations of the metric over seeds. The t and sign-flip tests are paired and"
        " two-sided; smallest is the smallest p that the exact sign-flip test can reach with these pairs."
        f" {_describe_judging(task)} {describe_completeness(cells)}"
        f"{describe_shared(cells, paths)}"
    )


def _describe_judging(task: TaskEffects) -> str:
    n = next((row.verdict.n_contrasts for row in task.rows), 0)
    return (
        f"Verdicts are judged against {task.margin.describe()}. Verdicts and the p with Holm are corrected for the"
        f" {count_things(n, 'comparison')} of this task that can be judged; intervals are not corrected."
    )


def _list_notes(effects: Effects, task: TaskEffects, gaps: bool) -> Iterator[str]:
    yield from effects.notes
    if gaps and effects.complete_pairs_only:
        yield "Cells whose seeds lack pairs are judged from their complete pairs; trials seldom fail by chance."
    elif gaps:
        yield "A cell with a seed without a pair is not judged; --complete-pairs judges it from its complete pairs."
    if any(row.verdict.reason == "too-few-pairs" for row in task.rows):
        yield f"A cell with fewer than {LEAST_PAIRS} pairs is not judged, and has no p of a t test."
    known = [row.contrast.smallest_p for row in task.rows if row.verdict.reason is None]
    n, least = len(task.rows), min(known, default=0.0)
    if least * n > 1 - effects.level:
        family = f", corrected for {n} comparisons {format_p(min(1.0, n * least))}" if n > 1 else ""
        yield (
            f"With so few pairs no exact test can be significant: the smallest sign-flip p is {format_p(least)}{family}."
            " The t test assumes normal differences; with more seeds the exact test could decide without this assumption."
        )


# Figure -------------------------------------------------------------------------------------------


def plot(effects: Effects, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure, a forest plot with a panel per task, a line per cell, and the margin shaded."""
    tasks = [task for task in effects.tasks if task.rows][:MAX_PANELS]
    names = name_tasks(task.task for task in tasks)
    with open_sheet(style, write_caption(effects)) as sheet:
        slots = sheet.add_grid(len(tasks), columns=1)
        if not tasks:
            slots[0].write_words("there is only the base cell, so there is nothing to compare")
        for slot, task in zip(slots, tasks, strict=False):
            _draw_panel(slot, effects, task, names[task.task])
    return sheet.figure


def write_caption(effects: Effects) -> str:
    """Returns what the figure shows, over how many pairs, and what is missing."""
    tasks = [task for task in effects.tasks if task.rows]
    counts = {row.contrast.interval.n for task in tasks for row in task.rows}
    sentences = [
        f"Paired difference of each cell to the base cell: mean and {format_percent(effects.level)} Student-t interval over n"
        " pairs of the same seed (none where n = 1).",
        "Shaded: the margin, if any. Verdicts and p (Holm) are corrected for all cells of a task, intervals are not.",
        *[SINGLE] * (counts == {1}),
        describe_completeness(cell for task in tasks for cell in _list_cells(task)),
    ]
    if len(tasks) > MAX_PANELS:
        sentences.append(f"{len(tasks) - MAX_PANELS} more tasks are only in the table.")
    return " ".join(sentences)


def _list_cells(task: TaskEffects) -> list[Cell]:
    return [task.base, *(row.cell for row in task.rows)]


def _draw_panel(slot: Slot, effects: Effects, task: TaskEffects, name: str) -> None:
    rows, paths = task.rows[:MAX_ROWS], find_varying(_list_cells(task))
    base, *names = name_cells([task.base, *(row.cell for row in rows)], paths)
    axis = slot.show(f"{name}: {' · '.join(paths) or 'all trials'}\nbase {base}, {task.margin.short}")
    axis.axvspan(-task.margin.value, task.margin.value, color=SHADE, alpha=0.25, linewidth=0)
    axis.axvline(0, color=DARK, linewidth=0.8)
    groups = [RowGroup(label=name, notes=(_write_note(row),)) for name, row in zip(names, rows, strict=True)]
    for y, row in zip(slot.place_rows(groups), rows, strict=True):
        _draw_line(axis, row, y)
    hidden = f"; {len(task.rows) - len(rows)} more cells are only in the table" if len(rows) < len(task.rows) else ""
    side = f"; {better_side(task.mode)} of zero is better than the base" if task.metric != UNKNOWN_METRIC else ""
    slot.label_x(f"difference in {effects.column} ({task.metric}){side}{hidden}")


def _draw_line(axis: Any, row: Row, y: float) -> None:
    i, (colour, marker) = row.contrast.interval, LOOKS[row.verdict.word]
    axis.plot([i.low, i.high], [y, y], color=colour)
    axis.plot([i.mean], [y], marker, color=colour)


def _write_note(row: Row) -> str:
    i = row.contrast.interval
    p = f", p {format_p(row.p_holm)}" if math.isfinite(row.p_holm) else ""
    lacks = f", {len(row.contrast.incomplete)} without a pair" if row.unpaired else ""
    return f"{row.verdict.word} (n = {i.n}{lacks}{p})"


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    effects = compute(results, **asked)
    return Output(
        numbers=numbers(effects),
        tables=build_tables(effects),
        figure=plot(effects, style),
        caption=write_caption(effects),
    )
