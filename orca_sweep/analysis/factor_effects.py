"""Which factors matter and which act together, per task: each effect within each seed, judged over seeds.

An effect of a level is the mean at that level minus the mean at the base level, over all levels of the other factors. An
interaction of two factors is the difference between two such effects. Each seed gives one number, and the numbers of all
seeds are judged like the difference of two cells: with the base, the margin, and the words of table_effects. Below three
seeds nothing is judged. The base levels are those of the first cell of the task, or of --base.

A regular two-level fraction is analysed as well: the table names the effects that it cannot separate from each other. Any
other design with holes is refused with a list of them, because effects would mix. Combinations that are the same work are
one cell (without embedder epochs the proxy has no effect, without a proxy the epochs have none), which leaves holes. To
balance the rest, --without proxy=none leaves out a level, --without seed=4 a seed, --without task=ecg a task. The analysis
leaves out tuning candidates and A/A cells.

Shares of the variance (eta squared, partial omega squared) describe a full design. They assume the same spread in all
cells, which the caption checks. --pooled adds the F tests of that model. They may contradict the words where spreads differ.

Writes factor_effects.csv, .md, .tex (booktabs), factor_effects_shares.csv, factor_effects_means.csv, and a plot of means.
"""

import math
from dataclasses import replace
from typing import Any

from orca_sweep.analysis.factor_judging import Factors, Options, TaskFactors, compute, compute_beside
from orca_sweep.analysis.factor_words import (
    MAX_PANELS,
    describe_aliases,
    describe_effect,
    name_effect,
    name_levels,
    name_measure,
    write_caption,
    write_share_caption,
    write_task_caption,
    write_word,
)
from orca_sweep.analysis.figure_style import PAGE, FigureStyle, choose_style
from orca_sweep.analysis.figures import draw_interval, draw_trend, equalise_limits, make_handles, spread_lines
from orca_sweep.analysis.sheet import Slot, open_sheet
from orca_sweep.analysis.tables import name_tasks
from orca_sweep.analysis.writing import (
    Output,
    Record,
    Table,
    format_csv,
    format_p,
    format_percent,
)
from orca_sweep.results import Results
from orca_sweep.stats import Effect, FactorEffects, JudgedContrast
from orca_sweep.stats.digits import (
    Digits,
    digits_of_intervals,
    format_ends,
    format_interval,
    format_mean,
    format_number,
)
from orca_sweep.stats.modes import describe_mode

__all__ = [
    "NAME",
    "Factors",
    "Options",
    "TaskFactors",
    "build_tables",
    "compute",
    "compute_beside",
    "has_several_factors",
    "make_output",
    "mean_numbers",
    "numbers",
    "plot",
    "share_numbers",
    "write_caption",
]
NAME = "factor_effects"


def has_several_factors(results: Results) -> bool:
    """Whether a sweep varies several factors, so that their effects say more than the comparison of its cells."""
    return len([path for path in results.factors if path != "task"]) > 1


# Numbers ------------------------------------------------------------------------------------------


def numbers(factors: Factors) -> str:
    """Returns the judged contrasts as CSV, one line per level or pair of levels."""
    return format_csv([_make_record(factors, task, of) for task in factors.tasks for of in task.contrasts])


def _make_record(factors: Factors, task: TaskFactors, of: JudgedContrast) -> Record:
    interval, verdict = of.effect.contrast.interval, of.verdict
    return {
        "task": task.task,
        "effect": of.effect.name,
        "levels": name_levels(of, " x "),
        "base_levels": " x ".join(map(str, of.effect.base)),
        "column": factors.column,
        "metric": task.metric,
        "mode": task.mode,
        "n_seeds": interval.n,
        "n_cells": len(task.design.cells),
        "estimate": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "interval": f"{format_percent(factors.level)} Student-t interval over n_seeds of the contrast within each seed",
        "sd_over_seeds": interval.sd,
        "p_t": of.p,
        "p_t_holm": of.p_holm,
        "verdict": of.word,
        "not_judged_because": of.reason,
        "margin": task.margin.limit,
        "margin_from": task.margin.source,
        "p_beyond_margin_holm": verdict.p_beyond if verdict else math.nan,
        "p_within_margin_holm": verdict.p_within if verdict else math.nan,
        "n_contrasts": verdict.n_contrasts if verdict else 0,
        "aliased_with": describe_aliases(of) if task.design.fraction else "",
        "left_out": "; ".join(factors.left_out),
    }


def share_numbers(factors: Factors) -> str:
    """Returns the shares of the variance as CSV, one line per effect of a full design; with --pooled also its tests."""
    records = [
        _make_share(factors, task, task.pooled, effect)
        for task in factors.tasks
        if task.pooled
        for effect in task.pooled.effects
    ]
    return format_csv(records, list(records[0]) if records else ["task", "effect"])


def _make_share(factors: Factors, task: TaskFactors, whole: FactorEffects, effect: Effect) -> Record:
    tests = {
        "f": effect.f,
        "residual_df": whole.residual_df,
        "p_pooled": effect.p,
        "p_pooled_holm": effect.p_adjusted,
        "low": effect.low,
        "high": effect.high,
        "interval": f"{format_percent(whole.level)} noncentral-F interval of partial omega squared",
    }
    return {
        "task": task.task,
        "effect": effect.name,
        "df": effect.df,
        "eta_squared": effect.eta_squared,
        "partial_omega_squared": effect.partial_omega_squared,
        **(tests if factors.is_pooled else {}),
        "n_trials": whole.n,
        "n_cells": whole.n_cells,
        "n_seeds": whole.n_blocks,
        "seeds_eta_squared": whole.block_eta_squared,
        "higher_interactions_eta_squared": whole.higher_eta_squared,
        "residual_eta_squared": whole.residual_eta_squared,
        "residual_sd": whole.residual_sd,
        "spread_ratio": task.spread.ratio if task.spread else math.nan,
        "spread_p": task.spread.p if task.spread else math.nan,
        "left_out": "; ".join(factors.left_out),
    }


def mean_numbers(factors: Factors) -> str:
    """Returns the means of the plot as CSV, one line per level or pair of levels."""
    return format_csv(
        [
            {
                "task": task.task,
                "effect": name_effect(mean.factors),
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


# Tables -------------------------------------------------------------------------------------------


def build_tables(factors: Factors) -> tuple[Table, ...]:
    """Returns the contrasts of each analysed task and its shares; the notes of the last table name the refused tasks."""
    refused = tuple(f"{refusal.task} is refused: its design is not balanced." for refusal in factors.refused)
    tables = []
    for i, task in enumerate(factors.tasks, 1):
        tables.append(_build_contrasts(factors, task, i))
        if task.pooled and task.spread:
            tables.append(_build_shares(factors, task, task.pooled, i))
    return (*tables[:-1], replace(tables[-1], notes=(*factors.notes, *refused)))


def _build_contrasts(factors: Factors, task: TaskFactors, i: int) -> Table:
    digits = digits_of_intervals(of.effect.contrast.interval for of in task.contrasts)
    has_aliases = task.design.fraction is not None
    rows = [_make_row(task, of, digits) for of in task.contrasts]
    is_main = [len(of.effect.factors) == 1 for of in task.contrasts]
    blocks = (tuple(row for row, main in zip(rows, is_main, strict=True) if main is wanted) for wanted in (True, False))
    head = ("effect", "level", "against", "estimate", f"{format_percent(factors.level)} interval", "p t", "p t, Holm")
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: factor effects",
        caption=write_task_caption(factors, task),
        head=(*head, "verdict", *["aliased with"] * has_aliases),
        align=f"lllrrrrl{'l' * has_aliases}",
        blocks=tuple(filter(None, blocks)),
    )


def _make_row(task: TaskFactors, of: JudgedContrast, digits: Digits) -> tuple[str, ...]:
    interval = of.effect.contrast.interval
    return (
        of.effect.name,
        name_levels(of, " x "),
        " x ".join(map(str, of.effect.base)),
        format_mean(interval, digits, "+"),
        format_ends(interval, digits, "+"),
        format_p(of.p),
        format_p(of.p_holm),
        write_word(of),
        *([describe_aliases(of)] if task.design.fraction else []),
    )


def _build_shares(factors: Factors, task: TaskFactors, whole: FactorEffects, i: int) -> Table:
    head = ["effect", "df", "η²", "partial ω²"]
    tests = [f"{format_percent(whole.level)} interval", "F", "p pooled", "p pooled, Holm"] if factors.is_pooled else []
    rows = []
    for e in whole.effects:
        row = [e.name, str(e.df), format_number(e.eta_squared, 3), format_number(e.partial_omega_squared, 3)]
        tested = [format_interval(e.low, e.high, 3), format_number(e.f, 2), format_p(e.p), format_p(e.p_adjusted)]
        rows.append((*row, *(tested if factors.is_pooled else [])))
    return Table(
        name=f"{NAME}-shares-{i}",
        title=f"{task.task}: shares of the variance",
        caption=write_share_caption(factors, task, whole),
        head=(*head, *tests),
        align=f"lrrr{'r' * len(tests)}",
        blocks=(tuple(rows),),
    )


# Figure -------------------------------------------------------------------------------------------


def plot(factors: Factors, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure with a panel of means per main effect and interaction of each task."""
    panels = [(task, of) for task in factors.tasks for of in dict.fromkeys(mean.factors for mean in task.means)]
    drawn = panels[:MAX_PANELS]
    names = name_tasks(task.task for task, _ in drawn)
    with open_sheet(style, write_caption(factors)) as sheet:
        slots = sheet.add_grid(len(drawn), style.count_columns(max(1, len(drawn))))
        if not drawn:
            slots[0].write_words("no task has means of levels to show")
        for slot, (task, of) in zip(slots, drawn, strict=False):
            _draw_panel(slot, factors, task, of, name=names[task.task] if len(factors.tasks) > 1 else "")
        equalise_limits([(task.task, slot.axis) for slot, (task, _) in zip(slots, drawn, strict=False)], "y")
    return sheet.figure


def _draw_panel(slot: Slot, factors: Factors, task: TaskFactors, of: tuple[str, ...], *, name: str) -> None:
    means = [mean for mean in task.means if mean.factors == of]
    along = list(dict.fromkeys(mean.levels[0] for mean in means))
    lines = list(dict.fromkeys(mean.levels[1:] for mean in means))
    looks = [choose_style(i) for i in range(len(lines))]
    axis = slot.show(_write_panel_title(task, of, name))
    for line, look, shift in zip(lines, looks, spread_lines(len(lines)), strict=True):
        points = {along.index(mean.levels[0]): mean.interval for mean in means if mean.levels[1:] == line}
        if line:
            draw_trend(axis, list(points), [point.mean for point in points.values()], look, shift=shift)
        for x, point in points.items():
            draw_interval(axis, x, point, look, shift=shift)
    slot.name_levels(along)
    slot.label_x(of[0])
    higher = f"\n{describe_mode(task.mode)}" * (task.mode == "max")
    slot.label_y(f"{name_measure(factors.column, task)}{higher}")
    if lines[0]:
        slot.add_legend(make_handles(zip((line[0] for line in lines), looks, strict=True)), of[1])


def _write_panel_title(task: TaskFactors, of: tuple[str, ...], name: str) -> str:
    title = f"{name}: {name_effect(of)}" if name else name_effect(of)
    aliased = " and its aliases" * (task.design.fraction is not None)
    return f"{title}{aliased}\n{describe_effect(task.contrasts_of(of))}"


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    factors = compute(results, **asked)
    refused = tuple(text for refusal in factors.refused for text in refusal.texts)
    return Output(
        numbers=numbers(factors),
        more_numbers={"shares": share_numbers(factors), "means": mean_numbers(factors)},
        tables=build_tables(factors),
        figure=plot(factors, style),
        caption=write_caption(factors),
        warnings=refused,
    )
