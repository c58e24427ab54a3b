"""Effects per task: the paired difference of every cell to the base cell over shared seeds, and what it shows.

The base is the first cell of the task in the table; --base names other levels, and factors that it does not name keep
the level of the first cell. Differences are in the task's unit, cell minus base: of a metric of which lower is better, a
negative one is an improvement, of others a positive one. Words (helps, hurts, no meaningful difference,
undecided) are given against a margin: --margin, else the one that the space fixes, else what an A/A cell of the task
suggests, else 0, with which nothing can be shown to make no difference. The family of Holm's procedure is the
task's cells. Seeds that give no pair are listed; a cell that has any is judged only with --complete-pairs, from the pairs
that are left.

Writes table_effects.csv, .md, .tex (booktabs), and a forest plot as .png and .svg.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figures import COLOURS
from orca_sweep.analysis.margins import Margin, fixed_margins, margin_of
from orca_sweep.analysis.tables import (
    better_side,
    by_task,
    describe_completeness,
    describe_metric,
    describe_shared,
    find_base_cell,
    find_varying,
    levels_of,
    metric_of,
    named_levels,
    read_cells,
    replicated,
    shorten_text,
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
    format_p,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import (
    WORDS,
    Contrast,
    Verdict,
    holm,
    judge_contrasts,
    paired_contrast,
    t_interval,
)
from orca_sweep.stats.modes import Mode

NAME = "table_effects"
MAX_PANELS, MAX_ROWS = 8, 40
LOOKS = dict(zip(WORDS, ((COLOURS[2], "o"), (COLOURS[1], "s"), (COLOURS[0], "D"), (COLOURS[7], "x")), strict=True))
"""Colour and marker of a word: told apart in print, too."""


@dataclass(frozen=True)
class Row:
    """One cell against the base cell."""

    cell: Cell
    contrast: Contrast
    p_holm: float
    """The paired t test's, adjusted within the task."""
    verdict: Verdict
    unpaired: str
    """Seeds without a pair and why; empty if there is none."""


@dataclass(frozen=True)
class TaskEffects:
    """All cells of a task but the base, in the order of the table."""

    task: str
    metric: str
    base: Cell
    margin: Margin
    rows: tuple[Row, ...]
    mode: Mode = "min"
    unit: str = ""


@dataclass(frozen=True)
class Effects:
    """All tasks, and what the numbers are of."""

    tasks: tuple[TaskEffects, ...]
    column: str
    level: float
    complete_pairs_only: bool
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""


def compute(
    results: Results,
    base: Sequence[str] = (),
    margin: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
    complete_pairs_only: bool = False,
) -> Effects:
    """Returns the contrast of each cell with its task's base cell.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        margin: '0.01' for all tasks, 'task=0.01' for one.
        metric: the column to compare.
        level: of the intervals; words are judged at 1 - level.
        complete_pairs_only: judge a cell from the pairs there are, where seeds lack one.

    Raises:
        InputError: for what the tables do not have, and where no task has two cells.
    """
    if not 0.5 < level < 1:
        raise InputError(f"--level {level:g}: words need a level above 0.5 and below 1. Use 0.95.")
    results = compared(results, base)
    found = read_cells(results, metric)
    tasks = by_task(found)
    fixed = fixed_margins(results, margin, tuple(tasks))
    named = dict(named_levels("--base", base, found))
    made = tuple(
        _task_effects(cells, find_base_cell(cells, named), fixed, 1 - level, complete_pairs_only)
        for cells in tasks.values()
    )
    if not any(task.rows for task in made):
        raise InputError(
            " ".join(
                (
                    "each task has one cell, so there is nothing to compare. Give the space a factor of two levels.",
                    *results.notes,
                )
            )
        )
    return Effects(made, metric or results.metric, level, complete_pairs_only, results.notes)


def _task_effects(
    found: Sequence[Cell], base: Cell, fixed: Mapping[str, Margin], alpha: float, complete: bool
) -> TaskEffects:
    cells = [cell for cell in replicated(found) if cell is not base]
    contrasts = [paired_contrast(cell.values, base.values, 1 - alpha, complete) for cell in cells]
    limit = margin_of(found, base, fixed, 1 - alpha)
    adjusted = holm([contrast.p_t for contrast in contrasts]).tolist()
    measured = metric_of(found)
    words = judge_contrasts(contrasts, limit.value, alpha, measured.mode)
    rows = [
        Row(cell, contrast, p, word, describe_unpaired(cell, base, contrast))
        for cell, contrast, p, word in zip(cells, contrasts, adjusted, words, strict=True)
    ]
    return TaskEffects(base.task, measured.name, base, limit, tuple(rows), measured.mode, measured.unit)


def describe_unpaired(cell: Cell, base: Cell, contrast: Contrast) -> str:
    """Returns the seeds that give no pair, each with what became of it: '2 (lost); 4 (base failed)'."""
    return "; ".join(f"{seed} ({', '.join(_find_reasons(cell, base, seed))})" for seed in contrast.incomplete)


def _find_reasons(cell: Cell, base: Cell, seed: int) -> list[str]:
    reasons = []
    for said, one in (("", cell), ("base ", base)):
        status = one.statuses.get(seed, "not planned")
        if not math.isfinite(one.values.get(seed, math.nan)):
            reasons.append(f"{said}{'ok but without a number' if status == 'ok' else status}")
    return reasons


# Numbers ------------------------------------------------------------------------------------------


def numbers(found: Effects) -> str:
    """Returns every number as CSV: one line per cell that is not the base."""
    return format_csv([_make_record(found, task, row) for task in found.tasks for row in task.rows])


def _make_record(found: Effects, task: TaskEffects, row: Row) -> Record:
    c, v = row.contrast, row.verdict
    return {
        "task": task.task,
        "cell_id": row.cell.cell_id,
        **row.cell.labels,
        "base_cell_id": task.base.cell_id,
        "base": task.base.name,
        "column": found.column,
        "metric": task.metric,
        "mode": task.mode,
        "n_pairs": c.interval.n,
        "mean": c.mean_a,
        "mean_base": c.mean_b,
        "difference": c.interval.mean,
        "low": c.interval.low,
        "high": c.interval.high,
        "interval": f"{format_percent(found.level)} Student-t interval of the mean paired difference over n_pairs seeds",
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


def build_tables(found: Effects) -> tuple[Table, ...]:
    """Returns a table per task that has something to compare, as people read it."""
    return tuple(_build_table(found, task, i) for i, task in enumerate(found.tasks, 1) if task.rows)


def _build_table(found: Effects, task: TaskEffects, i: int) -> Table:
    cells = [task.base, *(row.cell for row in task.rows)]
    paths = find_varying(cells)
    decimals = decimals_of(row.contrast.interval.half_width for row in task.rows)
    gaps = any(row.unpaired for row in task.rows)
    head = (*paths, "pairs", "difference", f"{format_percent(found.level)} interval", "Hedges' g", "p t", "p t, Holm")
    rows = []
    for row in task.rows:
        c = row.contrast
        spread = format_interval(c.interval.low, c.interval.high, decimals, "+")
        texts = [
            str(c.interval.n),
            format_number(c.interval.mean, decimals, "+"),
            spread,
            format_number(c.hedges_g, 2, "+"),
        ]
        texts += [format_p(p) for p in (c.p_t, row.p_holm, c.p_sign_flip, c.smallest_p)]
        levels = [row.cell.labels[path] for path in paths]
        rows.append((*levels, *texts, row.verdict.word, *([row.unpaired or NOTHING] if gaps else [])))
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: effects",
        caption=_write_caption(found, task, cells, paths),
        head=(*head, "p sign flip", "smallest", "verdict", *(["seeds without a pair"] if gaps else [])),
        align=f"{'l' * len(paths)}{'r' * 8}l{'l' if gaps else ''}",
        blocks=(tuple(rows),),
        notes=tuple(_list_notes(found, task, gaps)),
    )


def _write_caption(found: Effects, task: TaskEffects, cells: Sequence[Cell], paths: Sequence[str]) -> str:
    whole = t_interval(task.base.known_values)
    known = f", mean {whole.mean:.4g} over {whole.n} seeds" if whole.n else ", no ok trial yet"
    return (
        f"{found.column} ({describe_metric(task.metric, task.mode)}): cell minus base ({task.base.describe(paths)}{known}), mean"
        f" over pairs of equal seed with the {format_percent(found.level)} Student-t interval of that mean over pairs."
        " Hedges' g is in standard"
        " deviations of the metric over seeds. The t and sign-flip tests are paired and two-sided; smallest is the least p"
        f" that the exact sign-flip test of so many pairs can reach. {_describe_judging(task)} {describe_completeness(cells)}"
        f"{describe_shared(cells, paths)}"
    )


def _describe_judging(task: TaskEffects) -> str:
    noise = task.margin.noise
    limits = f" ({format_percent(noise.level)} limits {noise.low:.3g} to {noise.high:.3g})" if noise else ""
    n = next((row.verdict.n_contrasts for row in task.rows), 0)
    return (
        f"Verdicts hold against a margin of {task.margin.value:.3g}{limits}: {task.margin.source}. Verdicts and the p with Holm"
        f" are corrected for the {n} comparisons of this task that can be made; intervals are each comparison's own."
    )


def _list_notes(found: Effects, task: TaskEffects, gaps: bool) -> Iterator[str]:
    yield from found.notes
    if gaps and found.complete_pairs_only:
        yield "Cells with seeds that give no pair are judged from the pairs that are left: trials seldom fail by chance."
    elif gaps:
        yield "A cell with a seed that gives no pair is not judged; --complete-pairs judges it from the pairs that are left."
    n, least = len(task.rows), min(row.contrast.smallest_p for row in task.rows)
    if least * n > 1 - found.level and any(row.contrast.interval.n for row in task.rows):
        family = f", corrected for {n} comparisons {format_p(min(1.0, n * least))}" if n > 1 else ""
        yield (
            f"With the pairs there are no exact test can show anything: the smallest sign-flip p is {format_p(least)}{family}."
            " The t test assumes that differences are normal; more seeds would tell without."
        )


# Figure -------------------------------------------------------------------------------------------


def plot(found: Effects) -> Any:
    """Returns a matplotlib figure, a forest plot: a panel per task, a line per cell, the margin shaded."""
    from matplotlib.figure import Figure

    tasks = [task for task in found.tasks if task.rows][:MAX_PANELS]
    sizes = [min(len(task.rows), MAX_ROWS) + 0.6 for task in tasks]
    made = Figure(figsize=(9.5, 1.0 + sum(0.9 + 0.3 * size for size in sizes)), layout="constrained")
    axes = made.subplots(len(tasks), 1, squeeze=False, height_ratios=sizes)
    for axis, task in zip(axes.flat, tasks, strict=True):
        _draw_panel(axis, found, task)
    left_out = sum(bool(task.rows) for task in found.tasks) - len(tasks)
    more = f"; {left_out} more tasks are in the table only" if left_out else ""
    made.suptitle(
        f"paired difference to the base cell: mean and {format_percent(found.level)} Student-t interval over n pairs of equal"
        f" seed\nshaded: the margin, if any; words are corrected for all cells of a task, intervals are each cell's own{more}",
        fontsize=9,
    )
    return made


def _draw_panel(axis: Any, found: Effects, task: TaskEffects) -> None:
    rows = task.rows[:MAX_ROWS]
    paths = find_varying([task.base, *(row.cell for row in task.rows)])
    axis.axvspan(-task.margin.value, task.margin.value, color="#999999", alpha=0.25, linewidth=0)
    axis.axvline(0, color="#444444", linewidth=0.8)
    for y, row in enumerate(rows):
        _draw_line(axis, row, y)
    axis.set_yticks(range(len(rows)), shorten_texts(levels_of(row.cell, paths) for row in rows), fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    heading = f"{wrap_title(task.task)}: {shorten_text(' · '.join(paths), 90) or 'all trials'}"
    base = wrap_title(levels_of(task.base, paths), 90)
    axis.set_title(f"{heading}\nbase {base}, {task.margin.short}", fontsize=9, loc="left")
    hidden = f"; {len(task.rows) - len(rows)} more cells are in the table" if len(rows) < len(task.rows) else ""
    axis.set_xlabel(
        f"difference in {found.column} ({task.metric}); {better_side(task.mode)} of zero is better than the base{hidden}",
        fontsize=8,
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_line(axis: Any, row: Row, y: int) -> None:
    i, word = row.contrast.interval, row.verdict.word
    colour, marker = LOOKS[word]
    axis.plot([i.low, i.high], [y, y], color=colour, linewidth=2)
    axis.plot([i.mean], [y], marker, color=colour, markersize=6)
    p = f", Holm p {format_p(row.p_holm)}" if math.isfinite(row.p_holm) else ""
    lacks = f", {len(row.contrast.incomplete)} without a pair" if row.unpaired else ""
    text = f"{word} (n = {i.n}{lacks}{p})"
    axis.text(1.01, y, text, transform=axis.get_yaxis_transform(), fontsize=8, color="#222222", va="center")


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    effects = compute(results, **asked)
    return Output(numbers=numbers(effects), tables=build_tables(effects), figure=plot(effects))
