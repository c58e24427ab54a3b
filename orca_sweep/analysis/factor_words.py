"""What the tables and the figure of factor effects say in words: effects, aliases, captions, the check of spreads."""

import math
from collections.abc import Sequence
from typing import Protocol

from orca_sweep.analysis.factor_judging import Factors, TaskFactors
from orca_sweep.analysis.factorial import describe_refusals
from orca_sweep.analysis.figures import Panel, label_measure
from orca_sweep.analysis.tables import describe_completeness, describe_metric, name_tasks
from orca_sweep.analysis.writing import format_p, format_percent
from orca_sweep.config.labels import shorten_labels
from orca_sweep.stats import LEAST_CELLS, LEAST_SEEDS, WORDS, FactorEffects, JudgedContrast
from orca_sweep.stats.digits import MINUS, format_number

MOST_ALIASES = 6
"""Aliases that a table names."""
MAX_PANELS = 24
MOST_NAMED = 5
"""Levels of a factor that the words on its effect name; more are counted."""


def describe_effect(contrasts: Sequence[JudgedContrast]) -> str:
    """Returns the words of an effect's contrasts, such as 'helps: 20; undecided: 5'; one contrast is just its word.

    It says nothing that the contrasts do not say: an effect without a decided contrast is undecided.
    """
    if all(of.verdict is None for of in contrasts):
        return f"undecided ({contrasts[0].reason})"
    together = "together: " * (len(contrasts[0].effect.factors) > 1)
    if len(contrasts) == 1:
        return f"{together}{write_word(contrasts[0])}"
    short = shorten_labels((name_levels(of, " x ") for of in contrasts), 24)
    by_word = {word: [short[name_levels(of, " x ")] for of in contrasts if of.word == word] for word in WORDS}
    words = [word for word, names in by_word.items() if names]
    if len(words) == 1:
        return f"{together}{words[0]} (all {len(contrasts)} contrasts)"
    n = len(contrasts)
    if together or n > MOST_NAMED:
        return together + "; ".join(f"{word}: {len(by_word[word])} of {n}" for word in words)
    return "; ".join(f"{word}: {', '.join(by_word[word])}" for word in words)


def write_word(of: JudgedContrast) -> str:
    """Returns the word of a contrast, with a mark if it may be due to an alias of two factors or fewer."""
    has_short = any(len(factors) <= 2 for _, factors in of.effect.aliases)
    return of.word + " (or aliases)" * (has_short and of.word != "undecided")


class Measured(Protocol):
    """A record of a task with its metric."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def metric(self) -> str:
        """The name of its metric."""

    @property
    def unit(self) -> str:
        """The unit of its metric."""


def name_measure(column: str, of: Measured) -> str:
    """Returns a column as the label of an axis names it, such as 'validation error (share of wrong labels)'."""
    return label_measure(column, Panel(title="", task=of.task, metric=of.metric, unit=of.unit, lines=()))


def name_levels(of: JudgedContrast, between: str) -> str:
    """Returns the changed levels of a contrast, such as '20 x body'."""
    return between.join(map(str, of.effect.levels))


def name_effect(factors: Sequence[str]) -> str:
    """Returns the factors of an effect, such as 'proxy x finetune.freeze'."""
    return " x ".join(factors)


def describe_aliases(of: JudgedContrast) -> str:
    """Returns the effects that an estimate also contains, such as 'a x b, c x d', with a minus where they count negatively.

    Effects of two factors or fewer are always named, up to six; of longer ones only where there is no shorter one.
    """
    aliases = of.effect.aliases
    short = [alias for alias in aliases if len(alias[1]) <= 2] or aliases
    if not short:
        return "only interactions of four factors or more"
    texts = [f"{MINUS * (sign < 0)}{name_effect(factors)}" for sign, factors in short[:MOST_ALIASES]]
    more = len(short) - len(texts)
    return ", ".join(texts) + (f", and {more} more" if more else "")


def write_caption(factors: Factors) -> str:
    """Returns the caption of the figure: how means and words come about, per task what is judged and on how many seeds."""
    level = format_percent(factors.level)
    n_panels = sum(len({mean.factors for mean in task.means}) for task in factors.tasks)
    more = f" {n_panels - MAX_PANELS} more effects are only in the CSV." if n_panels > MAX_PANELS else ""
    names = name_tasks(task.task for task in factors.tasks)
    tasks = " ".join(_describe_task(factors, task, names[task.task], most=36) for task in factors.tasks)
    widest = max(factors.tasks, key=lambda task: len(task.design.paths))
    return (
        f"Means over the levels of the other factors, with {level} Student-t intervals of that mean over seeds. The words in the"
        " titles are judged from differences within seeds, not from whether these intervals overlap."
        f" {_describe_estimates(factors, widest)}{_describe_limits(widest)}{more} {tasks}"
        f"{describe_refusals(factors.refused, 'a balanced design')}"
    )


def write_task_caption(factors: Factors, task: TaskFactors) -> str:
    """Returns what the estimates of a task are, over how many cells and seeds, and how their words are judged."""
    return f"{_describe_task(factors, task, task.task)} {_describe_estimates(factors, task)}{_describe_limits(task)}"


def _describe_task(factors: Factors, task: TaskFactors, name: str, most: int = 0) -> str:
    """Returns the sentences on a task, which is called ``name``; levels have at most ``most`` letters, 0 for any."""
    measured = f"{factors.column} ({describe_metric(task.metric, task.mode)})"
    short = shorten_labels(task.held.values(), most) if most else {}
    held = ", ".join(f"{path} {short.get(level, level)}" for path, level in task.held.items())
    more = f" Held: {held}." if held else ""
    more += f" Left out: {', '.join(factors.left_out)}." if factors.left_out else ""
    return (
        f"{name}, {measured}: {_describe_design(task)} {_describe_judging(task)}"
        f" {describe_completeness(task.design.cells)}{more}"
    )


def _describe_estimates(factors: Factors, task: TaskFactors) -> str:
    return (
        f"The estimate of a level is its mean minus the mean at the base level{_describe_averaging(task)}. The mean over seeds"
        f" has its {format_percent(factors.level)} Student-t interval."
    )


def _describe_limits(task: TaskFactors) -> str:
    """Returns what the words of a task do not assume, and why they may differ from those of cells; empty without words."""
    if task.n_seeds < LEAST_SEEDS:
        return ""
    is_average = len(task.design.paths) > 1
    averages = " An effect averages over cells, so it can be decided where single cells are undecided." * is_average
    return f" Intervals are not corrected. No assumption is made on the spread of different cells.{averages}"


def _describe_averaging(task: TaskFactors) -> str:
    """Returns how an estimate averages over other factors, and what an interaction is, where there are any."""
    if len(task.design.paths) < 2:
        return " within each seed"
    return (
        ", over the other factors, within each seed; that of an interaction is the difference between two such effects, and helps"
        " if the two changes together do better than the sum of both"
    )


def _describe_design(task: TaskFactors) -> str:
    fraction, n_seeds = task.design.fraction, task.n_seeds
    cells = f"{len(task.design.cells)} cells, each once at {n_seeds} seed{'s' * (n_seeds != 1)}"
    if fraction is None:
        return f"all combinations of the levels, {cells}."
    resolution = f" of resolution {fraction.resolution}" if fraction.resolution else ""
    n_longer = sum(len(of.factors) > 2 for of in fraction.sets)
    longer = f" {n_longer} sets of interactions of three factors or more are not shown." if n_longer else ""
    return (
        f"a regular fraction{resolution}, {len(task.design.cells)} of {2**fraction.n_factors} combinations, {cells}. Each row"
        " estimates the sum of its effect and those it is aliased with (a minus: their difference); it is the effect alone only"
        f" if those are zero. A word marked 'or aliases' may be due to another main effect or an interaction of two factors."
        f"{longer}"
    )


def _describe_judging(task: TaskFactors) -> str:
    if task.n_seeds < LEAST_SEEDS:
        n = f"{task.n_seeds} seed{'s' * (task.n_seeds != 1)}"
        return f"With {n} no effect of a factor can be judged: at least {LEAST_SEEDS} are needed."
    mains = sum(len(of.effect.factors) == 1 for of in task.contrasts)
    pairs = len(task.contrasts) - mains
    families = f"the main effects ({mains})" + (f" and over the interactions ({pairs})" if pairs else "")
    return (
        f"Words are judged from these {task.n_seeds} numbers against {task.margin.describe()}."
        f" Words and the p with Holm are corrected over {families}."
    )


def write_share_caption(factors: Factors, task: TaskFactors, whole: FactorEffects) -> str:
    """Returns what the shares of a task assume, whether that holds, and what they are shares of."""
    tests = (
        f" F tests and intervals (noncentral F) use a residual pooled over all cells with {whole.residual_df} degrees of freedom."
        " They are only right if the assumption holds; judge by the words."
        if factors.is_pooled
        else ""
    )
    has_longer = len(task.design.paths) > 2
    longer = f", interactions of three factors or more {format_number(whole.higher_eta_squared, 3)}" * has_longer
    return (
        f"A description of these {whole.n} trials, not a test. The model is cell + seed + noise and assumes the same spread in"
        f" all cells. {describe_spread(task)} η² is the share of the total sum of squares (seeds"
        f" {format_number(whole.block_eta_squared, 3)}{longer}, residual {format_number(whole.residual_eta_squared, 3)})."
        " Partial ω² estimates the share of an effect in its own variance plus the residual variance. Residual standard deviation"
        f" {whole.residual_sd:.3g}.{tests}"
    )


def describe_spread(task: TaskFactors) -> str:
    """Returns what the data say about the assumption of equal spread; empty without a model that assumes it."""
    check, n = task.spread, task.n_seeds
    if check is None:
        return ""
    if n < LEAST_SEEDS or len(check.sds) < LEAST_CELLS:
        subject = f"{n} seeds" if n < LEAST_SEEDS else f"{len(check.sds)} cells"
        return f"This cannot be checked with {subject}."
    if math.isnan(check.ratio):
        return "No cell has any spread beyond its seeds."
    names = [_name_cell(task, position) for position in (check.smallest, check.largest)]
    low, high = (check.sds[position] for position in (check.smallest, check.largest))
    times = (
        "" if math.isinf(check.ratio) else f", {check.ratio:{'.2g' if check.ratio < 99.5 else ',.0f'}} times as much"
    )
    return (
        f"Check: once cell and seed are known, the standard deviation goes from {low:.3g} ({names[0]}) to {high:.3g}"
        f" ({names[1]}){times}; {_describe_spread_test(check.p, n)}."
    )


def _name_cell(task: TaskFactors, position: int) -> str:
    """Returns the levels of a cell, given its position among all combinations of levels."""
    table = task.design.table
    levels = []
    for path, known in zip(reversed(table.factors), reversed(table.levels), strict=True):
        position, i = divmod(position, len(known))
        levels.append(f"{path} {known[i]}")
    return ", ".join(reversed(levels))


def _describe_spread_test(p: float, n_seeds: int) -> str:
    if math.isnan(p):
        return "no test can be made"
    test = f"Brown-Forsythe test, p {format_p(p)}"
    if p < 0.05:
        return f"the spreads differ ({test}), so do not rely on these shares"
    return f"no difference of spreads is shown ({test}), and {n_seeds} seeds show only large ones"
