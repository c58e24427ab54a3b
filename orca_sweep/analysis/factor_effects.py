"""Which factors matter and which act together: a balanced analysis of variance over the factors of a sweep, per task.

Seeds are blocks, so every combination of levels needs one ok trial per seed. A task whose design has holes is refused
with a list of them, because an unbalanced analysis would mix the shares of the factors. Combinations that are the same
work are one cell (without embedder epochs the proxy has no effect, without a proxy the epochs have none), which leaves
holes. To balance the rest, --without proxy=none leaves out a level, --without seed=4 a seed, --without task=ecg a task.
The analysis leaves out tuning candidates and A/A cells.

Writes factor_effects.csv, .md, .tex (booktabs), factor_effects_means.csv, and a plot of main effects and interactions.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figure_style import PAGE, FigureStyle, choose_style
from orca_sweep.analysis.figures import draw_interval, draw_trend, equalise_limits, make_handles, spread_lines
from orca_sweep.analysis.sheet import Slot, open_sheet
from orca_sweep.analysis.tables import (
    by_task,
    describe_lacking,
    describe_metric,
    describe_not_ok,
    find_varying,
    metric_of,
    name_tasks,
    named_levels,
    read_cells,
    replicated,
)
from orca_sweep.analysis.writing import (
    Output,
    Record,
    Table,
    format_csv,
    format_interval,
    format_number,
    format_p,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import Effect, FactorEffects, Interval, factor_effects, t_interval
from orca_sweep.stats.modes import Mode, describe_mode

NAME = "factor_effects"
MAX_PANELS = 24


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean over seeds at a level of a factor, or a pair of levels of two; within a seed it averages other factors."""

    effect: Effect
    levels: tuple[str, ...]
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class TaskFactors:
    """The analysis of one task."""

    task: str
    metric: str
    mode: Mode
    held: Mapping[str, str]
    """Factors that have only one level here, so the analysis leaves them out."""
    analysis: FactorEffects
    means: tuple[Mean, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A task whose design has holes, with a list of them."""

    task: str
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """All tasks, with the column, the confidence level, and what was left out."""

    tasks: tuple[TaskFactors, ...]
    refused: tuple[Refusal, ...]
    column: str
    level: float
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Which rows were left out."""


def compute(results: Results, without: Sequence[str] = (), metric: str | None = None, level: float = 0.90) -> Factors:
    """Returns the factor effects of each task, or why there are none.

    Args:
        results: the tables.
        without: what to leave out, each 'factor=level', 'seed=number', or 'task=name'.
        metric: the column to analyse.
        level: confidence level of the intervals of partial omega squared; at 0.90 they exclude zero exactly where p < 0.05.

    Raises:
        InputError: if the tables lack what is named; with all holes if every task is refused.
    """
    whole = read_cells(results, metric)
    out = named_levels("--without", without, whole, ("seed", "task"))
    results = compared(results, without=without)
    kept = [_leave_out_seeds(cell, out) for cell in replicated(read_cells(results, metric)) if not _is_out(cell, out)]
    if not kept:
        raise InputError("--without leaves nothing to analyse. Leave out fewer levels.")
    tasks, refused = [], []
    for task, cells in by_task(kept).items():
        try:
            tasks.append(_analyse_task(task, cells, level))
        except InputError as error:
            problems = (*map(str, error.problems), *_explain_holes(cells))
            refused.append(Refusal(task=task, problems=problems))
    if not tasks:
        raise InputError([f"{refusal.task}: {text}" for refusal in refused for text in refusal.problems])
    return Factors(
        tasks=tuple(tasks),
        refused=tuple(refused),
        column=metric or results.metric,
        level=level,
        left_out=tuple(without),
        notes=results.notes,
    )


def _leave_out_seeds(cell: Cell, out: Sequence[tuple[str, str]]) -> Cell:
    seeds = {int(level) for path, level in out if path == "seed"}
    return replace(cell, trials=tuple(trial for trial in cell.trials if trial.seed not in seeds))


def _is_out(cell: Cell, out: Sequence[tuple[str, str]]) -> bool:
    return any(cell.labels.get(path) == level or (path == "task" and cell.task == level) for path, level in out)


def _find_factors(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Returns the factors that have several levels; the data say nothing about the rest."""
    return tuple(path for path in find_varying(cells) if len({cell.labels[path] for cell in cells}) > 1)


def _analyse_task(task: str, cells: Sequence[Cell], level: float) -> TaskFactors:
    paths = _find_factors(cells)
    if not paths:
        raise InputError("no factor has two levels here, so there is nothing to analyse.")
    seeds = dict.fromkeys(seed for cell in cells for seed in cell.values)
    if not seeds:
        raise InputError("no cell has been replicated yet. Let the sweep run on.")
    # A cell in tuning has no trials yet, but its levels belong to the design.
    rows = [
        (cell, seed, value) for cell in cells for seed, value in (cell.values or dict.fromkeys(seeds, math.nan)).items()
    ]
    labels = {path: [cell.labels[path] for cell, _, _ in rows] for path in paths}
    analysis = factor_effects([value for _, _, value in rows], labels, [seed for _, seed, _ in rows], level)
    measured = metric_of(cells)
    held = {path: text for path, text in cells[0].labels.items() if path not in paths}
    return TaskFactors(
        task=task,
        metric=measured.name,
        mode=measured.mode,
        held=held,
        analysis=analysis,
        means=tuple(_compute_means(cells, analysis)),
    )


def _compute_means(cells: Sequence[Cell], analysis: FactorEffects) -> Iterator[Mean]:
    for effect in analysis.effects:
        for level_mean in effect.means:
            levels = tuple(map(str, level_mean.levels))
            having = [cell for cell in cells if tuple(cell.labels[path] for path in effect.factors) == levels]
            by_seed = [sum(cell.values[seed] for cell in having) / len(having) for seed in sorted(cells[0].values)]
            yield Mean(effect=effect, levels=levels, interval=t_interval(by_seed))


# Holes --------------------------------------------------------------------------------------------


def _explain_holes(cells: Sequence[Cell]) -> Iterator[str]:
    """Yields what makes the holes, and which single level leaves none when it is left out."""
    counts = Counter(status for cell in cells for status in cell.statuses.values())
    if describe_lacking(counts):
        yield (
            f"a trial that is not ok has the value nan: {describe_not_ok(counts)}. 'orca-sweep resume' runs what failed or is"
            " unfinished."
        )
    n_never = _count_unplanned(cells)
    if n_never:
        yield (
            f"{n_never} combinations of levels have no cell. Either the design leaves them out, or they are the same work as"
            f" another combination and run once, as its cell{_describe_naive(cells)}. Compare cells with table_effects, or"
            " leave out the level that makes the holes."
        )
    ways = [f"--without {path}={level}" for path, level in _find_remedies(cells)]
    if n_never and ways:
        rest = ", once its trials are ok," if describe_lacking(counts) else ""
        yield f"the rest{rest} is balanced with {' or with '.join(ways)}."


def _count_unplanned(cells: Sequence[Cell]) -> int:
    paths = _find_factors(cells)
    whole = math.prod(len({cell.labels[path] for cell in cells}) for path in paths)
    return whole - len({tuple(cell.labels[path] for path in paths) for cell in cells})


def _describe_naive(cells: Sequence[Cell]) -> str:
    """Explains that no proxy and no epochs are the same work, if both are factors."""
    if not {"proxy", "embedder.epochs"} <= set(_find_factors(cells)):
        return ""
    return (
        ": any proxy with embedder.epochs 0, and proxy none with any epochs, is the naive cell (proxy none, epochs 0)"
    )


def _find_remedies(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for path in _find_factors(cells):
        for level in dict.fromkeys(cell.labels[path] for cell in cells):
            rest = [cell for cell in cells if cell.labels[path] != level]
            if _find_factors(rest) and not _count_unplanned(rest):
                yield path, level


# Numbers ------------------------------------------------------------------------------------------


def numbers(factors: Factors) -> str:
    """Returns the effects as CSV, one line per effect."""
    return format_csv(
        [_make_record(factors, task, effect) for task in factors.tasks for effect in task.analysis.effects]
    )


def _make_record(factors: Factors, task: TaskFactors, effect: Effect) -> Record:
    whole = task.analysis
    return {
        "task": task.task,
        "effect": effect.name,
        "column": factors.column,
        "metric": task.metric,
        "mode": task.mode,
        "df": effect.df,
        "residual_df": whole.residual_df,
        "f": effect.f,
        "p": effect.p,
        "p_holm": effect.p_adjusted,
        "eta_squared": effect.eta_squared,
        "partial_omega_squared": effect.partial_omega_squared,
        "low": effect.low,
        "high": effect.high,
        "interval": f"{format_percent(whole.level)} noncentral-F interval of partial omega squared",
        "n_trials": whole.n,
        "n_cells": whole.n_cells,
        "n_seeds": whole.n_blocks,
        "seeds_eta_squared": whole.block_eta_squared,
        "higher_interactions_eta_squared": whole.higher_eta_squared,
        "residual_eta_squared": whole.residual_eta_squared,
        "residual_sd": whole.residual_sd,
        "left_out": "; ".join(factors.left_out),
    }


def mean_numbers(factors: Factors) -> str:
    """Returns the means of the plot as CSV, one line per level or pair of levels."""
    return format_csv(
        [
            {
                "task": task.task,
                "effect": mean.effect.name,
                "levels": " x ".join(mean.levels),
                "n_seeds": mean.interval.n,
                "mean": mean.interval.mean,
                "low": mean.interval.low,
                "high": mean.interval.high,
                "interval": f"{format_percent(mean.interval.level)} Student-t interval over n_seeds; each seed's mean is over the"
                " other factors",
            }
            for task in factors.tasks
            for mean in task.means
        ]
    )


def build_tables(factors: Factors) -> tuple[Table, ...]:
    """Returns the table of each analysed task; the notes of the last table name the refused tasks."""
    refused = tuple(f"{refusal.task} is refused: its design is not balanced." for refusal in factors.refused)
    tables = [_build_table(factors, task, i) for i, task in enumerate(factors.tasks, 1)]
    return (*tables[:-1], replace(tables[-1], notes=(*factors.notes, *refused)))


def _build_table(factors: Factors, task: TaskFactors, i: int) -> Table:
    head = ("effect", "df", "F", "p", "p, Holm", "η²", "partial ω²", f"{format_percent(factors.level)} interval")
    rows = [
        (e.name, str(e.df), format_number(e.f, 2), format_p(e.p), format_p(e.p_adjusted), format_number(e.eta_squared, 3),
         format_number(e.partial_omega_squared, 3), format_interval(e.low, e.high, 3))
        for e in task.analysis.effects
    ]  # fmt: skip
    mains = tuple(row for row, e in zip(rows, task.analysis.effects, strict=True) if len(e.factors) == 1)
    blocks = (mains, tuple(row for row in rows if row not in mains))
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: factor effects",
        caption=_write_caption(factors, task),
        head=head,
        align="lrrrrrrr",
        blocks=blocks,
    )


def _write_caption(factors: Factors, task: TaskFactors) -> str:
    whole = task.analysis
    held = ", ".join(f"{path} {level}" for path, level in task.held.items())
    more = f" Held: {held}." if held else ""
    more += f" Left out: {', '.join(factors.left_out)}." if factors.left_out else ""
    return (
        f"Analysis of variance of {factors.column} ({describe_metric(task.metric, task.mode)}), {whole.n} trials:"
        f" {whole.n_cells} cells, each once at {whole.n_blocks} seeds, which are blocks."
        f" η² is the share of the total sum of squares (seeds"
        f" {format_number(whole.block_eta_squared, 3)}, interactions of three factors or more"
        f" {format_number(whole.higher_eta_squared, 3)}, residual {format_number(whole.residual_eta_squared, 3)} with"
        f" {whole.residual_df} degrees of freedom). Partial ω² estimates the share of an effect in its own variance plus the"
        f" residual variance; its interval comes from the noncentral F distribution. Holm's correction covers the"
        f" {len(whole.effects)} effects. Residual standard deviation {whole.residual_sd:.3g}.{more}"
    )


# Figure -------------------------------------------------------------------------------------------


def plot(factors: Factors, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure with a panel per main effect and interaction of each task."""
    panels = [(task, effect) for task in factors.tasks for effect in task.analysis.effects]
    drawn = panels[:MAX_PANELS]
    names = name_tasks(task.task for task, _ in drawn)
    with open_sheet(style, write_caption(factors)) as sheet:
        slots = sheet.add_grid(len(drawn), style.count_columns(max(1, len(drawn))))
        if not drawn:
            slots[0].write_words("no task has a balanced design, so there is no effect to show")
        for slot, (task, effect) in zip(slots, drawn, strict=False):
            _draw_panel(slot, factors, task, effect, name=names[task.task])
        equalise_limits([(task.task, slot.axis) for slot, (task, _) in zip(slots, drawn, strict=False)], "y")
    return sheet.figure


def write_caption(factors: Factors) -> str:
    """Returns what the figure shows, what its intervals are over, and what it leaves to the CSV."""
    n_hidden = sum(len(task.analysis.effects) for task in factors.tasks) - MAX_PANELS
    more = f" {n_hidden} more effects are only in the CSV." if n_hidden > 0 else ""
    return (
        "Means over the levels of the other factors; bars: 95% Student-t intervals of that mean over seeds. Comparisons are"
        f" within seeds, so judge them by the titles: partial ω² and Holm's p of the effect.{more}"
    )


def _draw_panel(slot: Slot, factors: Factors, task: TaskFactors, effect: Effect, *, name: str) -> None:
    means = [mean for mean in task.means if mean.effect is effect]
    along = list(dict.fromkeys(mean.levels[0] for mean in means))
    lines = list(dict.fromkeys(mean.levels[1:] for mean in means))
    looks = [choose_style(i) for i in range(len(lines))]
    omega = f"{format_number(effect.partial_omega_squared, 2)} {format_interval(effect.low, effect.high, 2)}"
    p = format_p(effect.p_adjusted)
    axis = slot.show(f"{name}: {effect.name}\nω² {omega}, p {p}, {task.analysis.n_blocks} seeds")
    for line, look, shift in zip(lines, looks, spread_lines(len(lines)), strict=True):
        points = [mean.interval for mean in means if mean.levels[1:] == line]
        if line:
            draw_trend(axis, range(len(points)), [point.mean for point in points], look, shift=shift)
        for x, point in enumerate(points):
            draw_interval(axis, x, point, look, shift=shift)
    slot.name_levels(along)
    slot.label_x(effect.factors[0])
    slot.label_y(f"{factors.column} ({task.metric})\n{describe_mode(task.mode)}")
    if lines[0]:
        slot.add_legend(make_handles(zip((line[0] for line in lines), looks, strict=True)), effect.factors[1])


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    factors = compute(results, **asked)
    refused = tuple(f"{refusal.task}: {text}" for refusal in factors.refused for text in refusal.problems)
    return Output(
        numbers=numbers(factors),
        more_numbers={"means": mean_numbers(factors)},
        tables=build_tables(factors),
        figure=plot(factors, style),
        caption=write_caption(factors),
        warnings=refused,
    )
