"""Half-normal plot of the effects of a two-level design, per task: which effects stand out from the rest.

For whole two-level designs and regular fractions. Every effect that can be estimated is a mean at its high half of the cells
minus the mean at its low half, interactions of any order included, so that all have the same standard error. Most effects of
most designs are small; those lie on a line through zero, and the rest stand out to the right. Lenth's margin of error
estimates the noise from the effects themselves and needs no replicates. It assumes that most effects are zero and that noise
is equal in all cells: it is a reference for the eye. Words over seeds are in factor_effects.

Writes half_normal.csv, .md, .tex (booktabs), and the plot as .png and .svg.

Source: Daniel (1959); Lenth (1989).
"""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orca_sweep.analysis.factor_words import name_measure
from orca_sweep.analysis.factorial import (
    FEWEST_CELLS,
    Design,
    Refusal,
    arrange_design,
    describe_refusals,
    list_levels,
    read_two_level_design,
    refuse_task,
    select_cells,
)
from orca_sweep.analysis.figure_style import COLOURS, GREY, PAGE, FigureStyle
from orca_sweep.analysis.sheet import Slot, open_sheet
from orca_sweep.analysis.tables import (
    describe_completeness,
    describe_metric,
    find_base_cell,
    name_tasks,
    named_levels,
)
from orca_sweep.analysis.writing import (
    MINUS,
    NOTHING,
    Output,
    Record,
    Table,
    count_things,
    format_csv,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import (
    LEAST_EFFECTS,
    LEAST_SEEDS,
    AliasSet,
    Fraction,
    Interval,
    PseudoError,
    contrast_seeds,
    estimate_pseudo_error,
    half_normal_quantiles,
)
from orca_sweep.stats.digits import digits_of_intervals, format_ends, format_mean, format_number
from orca_sweep.stats.modes import Mode

NAME = "half_normal"
MAX_PANELS = 6
MOST_LABELS = 8
MARGIN = "Lenth's margin of error"
NOISE = "where effects lie that are only noise"
SIMULTANEOUS = "simultaneous margin of error"
EFFECT = (
    "An effect is the mean at one half of the cells minus the mean at the other: for a factor, at the other level minus at the"
    " base level; for an interaction, half the difference between the effects of one factor at the two levels of the other."
)
TWO_LEVELS = "a whole two-level design or a fraction of one"
WORDS_ELSEWHERE = "Words, judged over seeds, are in factor_effects."


@dataclass(frozen=True, kw_only=True)
class SizedEffect:
    """One effect, or the sum of effects that share its column."""

    name: str
    aliases: str
    """The effects it is aliased with; empty in a whole design."""
    interval: Interval
    """Over seeds; without ends below three seeds."""
    quantile: float
    has_short_aliases: bool
    """Whether one of them has three factors or fewer."""

    @property
    def size(self) -> float:
        """Its absolute value."""
        return abs(self.interval.mean)


@dataclass(frozen=True, kw_only=True)
class TaskEffectSizes:
    """The effects of one task, the largest first."""

    task: str
    metric: str
    mode: Mode
    unit: str
    base: Cell
    design: Design
    effects: tuple[SizedEffect, ...]
    noise: PseudoError | None
    """None with too few effects."""


@dataclass(frozen=True, kw_only=True)
class HalfNormal:
    """All tasks that are two-level designs."""

    tasks: tuple[TaskEffectSizes, ...]
    refused: tuple[Refusal, ...]
    column: str
    level: float
    notes: tuple[str, ...] = ()


def is_suited(results: Results) -> bool:
    """Whether every task of a sweep is a regular fraction."""
    tasks = list_levels(results)
    designs = [read_two_level_design(cells, cells[0]) for cells in tasks]
    return bool(tasks) and all(design and not design.is_whole and design.n_run >= FEWEST_CELLS for design in designs)


def compute(
    results: Results,
    base: Sequence[str] = (),
    without: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
) -> HalfNormal:
    """Returns the effects of each task that is a two-level design.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level': they are the low levels.
        without: what to leave out, each 'factor=level', 'seed=number', or 'task=name'.
        metric: the column to analyse.
        level: confidence level of the intervals and margins.

    Raises:
        InputError: if the tables lack what is named; if no task is a two-level design, with the reason for each.
    """
    selection = select_cells(results, base, without, metric)
    named = dict(named_levels("--base", base, [cell for cells in selection.kept.values() for cell in cells]))
    tasks, refused = [], []
    for cells in selection.kept.values():
        try:
            tasks.append(_size_effects(cells, find_base_cell(cells, named), level))
        except InputError as error:
            refused.append(refuse_task(cells, error))
    if not tasks:
        raise InputError([text for refusal in refused for text in refusal.texts])
    return HalfNormal(
        tasks=tuple(tasks),
        refused=tuple(refused),
        column=metric or selection.results.metric,
        level=level,
        notes=selection.results.notes,
    )


def _size_effects(cells: Sequence[Cell], base: Cell, level: float) -> TaskEffectSizes:
    fraction = read_two_level_design([cell.labels for cell in cells], base.labels)
    if fraction is None or fraction.n_run < FEWEST_CELLS:
        raise InputError(
            "a half-normal plot needs all combinations of at least two factors of two levels, or a regular fraction of them."
            " Use factor_effects or table_effects, or leave out a level with --without."
        )
    design = arrange_design(cells, base)
    values = np.array([[cell.values[seed] for seed in design.table.seeds] for cell in cells])
    intervals = [_estimate_effect(values, design.table.seeds, of, level) for of in fraction.sets]
    order = sorted(range(len(intervals)), key=lambda i: -abs(intervals[i].mean))
    quantiles = reversed(half_normal_quantiles(len(order)))
    effects = tuple(
        _make_effect(fraction, fraction.sets[i], design.paths, interval=intervals[i], quantile=quantile)
        for i, quantile in zip(order, quantiles, strict=True)
    )
    noise = (
        estimate_pseudo_error([of.interval.mean for of in effects], level) if len(effects) >= LEAST_EFFECTS else None
    )
    measured = design.measured
    return TaskEffectSizes(
        task=base.task, metric=measured.name, mode=measured.mode, unit=measured.unit, base=base, design=design,
        effects=effects, noise=noise,
    )  # fmt: skip


def _estimate_effect(values: np.ndarray, seeds: Sequence[int], of: AliasSet, level: float) -> Interval:
    column = np.array(of.column)
    high, low = (values[column == sign].mean(axis=0) for sign in (1, -1))
    interval = contrast_seeds(seeds, high, low, scale=float(np.abs(values).max()), level=level).interval
    return interval if interval.n >= LEAST_SEEDS else replace(interval, low=math.nan, high=math.nan)


def _make_effect(
    fraction: Fraction, of: AliasSet, paths: Sequence[str], *, interval: Interval, quantile: float
) -> SizedEffect:
    named = [f"{MINUS * (sign < 0)}{_name_factors(factors, paths)}" for sign, factors in of.aliases]
    aliases = ", ".join(named) or ("" if fraction.is_whole else "only interactions of four factors or more")
    return SizedEffect(
        name=_name_factors(of.factors, paths),
        aliases=aliases,
        interval=interval,
        quantile=quantile,
        has_short_aliases=bool(named),
    )


def _name_factors(factors: Sequence[int], paths: Sequence[str]) -> str:
    return " x ".join(paths[i] for i in factors)


# Numbers ------------------------------------------------------------------------------------------


def numbers(half_normal: HalfNormal) -> str:
    """Returns the effects as CSV, the largest of each task first."""
    return format_csv([_make_record(half_normal, task, of) for task in half_normal.tasks for of in task.effects])


def _make_record(half_normal: HalfNormal, task: TaskEffectSizes, of: SizedEffect) -> Record:
    noise = task.noise
    return {
        "task": task.task,
        "effect": of.name,
        "aliased_with": of.aliases,
        "column": half_normal.column,
        "metric": task.metric,
        "n_seeds": of.interval.n,
        "n_cells": len(task.design.cells),
        "estimate": of.interval.mean,
        "low": of.interval.low,
        "high": of.interval.high,
        "interval": f"{format_percent(half_normal.level)} Student-t interval over n_seeds, not corrected",
        "absolute": of.size,
        "half_normal_quantile": of.quantile,
        "lenth_pse": noise.pse if noise else math.nan,
        "lenth_margin": noise.margin if noise else math.nan,
        "lenth_simultaneous_margin": noise.simultaneous_margin if noise else math.nan,
    }


# Tables -------------------------------------------------------------------------------------------


def build_tables(half_normal: HalfNormal) -> tuple[Table, ...]:
    """Returns the table of each task."""
    tables = [_build_table(half_normal, task, i) for i, task in enumerate(half_normal.tasks, 1)]
    refused = describe_refusals(half_normal.refused, TWO_LEVELS).strip()
    return (*tables[:-1], replace(tables[-1], notes=(*half_normal.notes, *[refused] * bool(refused))))


def _build_table(half_normal: HalfNormal, task: TaskEffectSizes, i: int) -> Table:
    digits = digits_of_intervals(of.interval for of in task.effects)
    has_aliases = any(of.aliases for of in task.effects)
    rows = tuple(
        (
            of.name,
            format_mean(of.interval, digits, "+"),
            format_ends(of.interval, digits, "+"),
            format_number(of.quantile, 2),
            *([of.aliases or NOTHING] if has_aliases else []),
        )
        for of in task.effects
    )
    head = ("effect", "estimate", f"{format_percent(half_normal.level)} interval", "half-normal quantile")
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: effects by size",
        caption=_write_task_caption(half_normal, task),
        head=(*head, *["aliased with"] * has_aliases),
        align=f"lrrr{'l' * has_aliases}",
        blocks=(rows,),
    )


def write_caption(half_normal: HalfNormal) -> str:
    """Returns the caption of the figure: what an effect is, how many there are, and what the reference lines assume."""
    n_hidden = len(half_normal.tasks) - MAX_PANELS
    more = f" {n_hidden} more tasks are only in the table." if n_hidden > 0 else ""
    tasks = half_normal.tasks[:MAX_PANELS]
    names = name_tasks(task.task for task in tasks)
    shown = " ".join(f"{names[task.task]}, {_describe_task(half_normal, task)}" for task in tasks)
    refused = describe_refusals(half_normal.refused, TWO_LEVELS)
    return f"{EFFECT} The plot shows its absolute value. {shown} {WORDS_ELSEWHERE}{more}{refused}"


def _write_task_caption(half_normal: HalfNormal, task: TaskEffectSizes) -> str:
    return f"{task.task}, {_describe_task(half_normal, task)} {EFFECT} {WORDS_ELSEWHERE}"


def _describe_task(half_normal: HalfNormal, task: TaskEffectSizes) -> str:
    return (
        f"{half_normal.column} ({describe_metric(task.metric, task.mode)}): the {len(task.effects)} effects that"
        f" {len(task.design.cells)} cells show, means over {count_things(len(task.design.table.seeds), 'seed')}."
        f" {_describe_noise(half_normal, task)} {describe_completeness(task.design.cells)}"
    )


def _describe_noise(half_normal: HalfNormal, task: TaskEffectSizes) -> str:
    noise = task.noise
    if noise is None:
        return f"{len(task.effects)} effects are too few for Lenth's margins: at least {LEAST_EFFECTS} are needed."
    if math.isnan(noise.pse):
        return "Most effects are zero, so they say nothing about noise, and there are no margins."
    level = format_percent(half_normal.level)
    return (
        f"Lenth's pseudo standard error is {noise.pse:.2g}. At {level}, an effect that is zero lies within the margin of error"
        f" {noise.margin:.2g}, and all that are zero within the simultaneous margin {noise.simultaneous_margin:.2g}: references"
        " that assume that most effects are zero and that noise is equal in all cells."
    )


# Figure -------------------------------------------------------------------------------------------


def plot(half_normal: HalfNormal, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: per task the absolute effects over their half-normal quantiles, the largest labelled."""
    tasks = half_normal.tasks[:MAX_PANELS]
    names = name_tasks(task.task for task in tasks)
    with open_sheet(style, write_caption(half_normal)) as sheet:
        for slot, task in zip(sheet.add_grid(len(tasks), style.count_columns(len(tasks))), tasks, strict=True):
            _draw_panel(slot, half_normal, task, names[task.task])
    return sheet.figure


def _draw_panel(slot: Slot, half_normal: HalfNormal, task: TaskEffectSizes, name: str) -> None:
    effects, axis = task.effects, slot.show(name)
    xs, ys = [of.size for of in effects], [of.quantile for of in effects]
    axis.plot(xs, ys, "o", color=COLOURS[0])
    has_noise = task.noise is not None and math.isfinite(task.noise.pse)
    widest = max([*xs, task.noise.simultaneous_margin] if task.noise and has_noise else xs)
    axis.set_xlim(0, 1.08 * (widest or 1.0))
    axis.set_ylim(0, 1.12 * max(ys))
    handles = _name_largest(slot, task)
    if task.noise and has_noise:
        handles += _draw_noise(axis, task.noise, max(ys))
    slot.label_x(f"absolute effect on {name_measure(half_normal.column, task)}")
    slot.label_y("half-normal quantile")
    if handles:
        slot.add_legend(handles)


def _name_largest(slot: Slot, task: TaskEffectSizes) -> list[Any]:
    """Writes a letter at each of the largest effects, and returns what the legend says about the letters."""
    from matplotlib.lines import Line2D

    letters, size = dict(zip(string.ascii_uppercase, _choose_labelled(task), strict=False)), slot.style.font_size
    right, top = slot.axis.get_xlim()[1], slot.axis.get_ylim()[1]
    for group in _join_near(letters, reach=(6 * size * right / slot.width, 1.4 * size * top / slot.height)):
        of = letters[group[0]]
        side, shift = ("left", 0.8) if of.size < 0.2 * right else ("right", -0.8)
        slot.axis.annotate(
            ", ".join(group), (of.size, of.quantile), (shift * size, 0), textcoords="offset points", ha=side, va="center",
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},  # in front of the lines of the margins
        )  # fmt: skip
    return [
        Line2D([], [], linestyle="none", label=f"{letter}: {of.name}{' + aliases' * of.has_short_aliases}")
        for letter, of in letters.items()
    ]


def _join_near(letters: Mapping[str, SizedEffect], reach: tuple[float, float]) -> list[list[str]]:
    """Returns the letters in groups: points nearer than ``reach`` in both directions share one text."""
    groups: list[list[str]] = []
    for letter, of in letters.items():
        first = letters[groups[-1][0]] if groups else None
        if first and first.size - of.size < reach[0] and first.quantile - of.quantile < reach[1]:
            groups[-1].append(letter)
        else:
            groups.append([letter])
    return groups


def _draw_noise(axis: Any, noise: PseudoError, most: float) -> list[Any]:
    """Draws the line on which effects lie that are only noise, and the margins; returns them for the legend."""
    return [
        *axis.plot([0, noise.pse * most], [0, most], color=GREY, linewidth=0.8, label=NOISE),
        axis.axvline(noise.margin, color=GREY, linestyle="--", linewidth=1, label=MARGIN),
        axis.axvline(noise.simultaneous_margin, color=GREY, linestyle=":", linewidth=1, label=SIMULTANEOUS),
    ]


def _choose_labelled(task: TaskEffectSizes) -> list[SizedEffect]:
    """Returns the largest effects: those beyond the margin of error, at least three if they are not zero."""
    limit = task.noise.margin if task.noise and math.isfinite(task.noise.pse) else 0.0
    return [of for i, of in enumerate(task.effects[:MOST_LABELS]) if of.size > 0 and (i < 3 or of.size > limit)]


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis, drawn in a style; ``asked`` are the options of ``compute``."""
    half_normal = compute(results, **asked)
    return Output(
        numbers=numbers(half_normal),
        tables=build_tables(half_normal),
        figure=plot(half_normal, style),
        caption=write_caption(half_normal),
        warnings=tuple(text for refusal in half_normal.refused for text in refusal.texts),
    )
