"""Effects of factors as contrasts within each seed, judged from as many numbers as there are seeds.

In each seed an effect is a single number: the mean at a level minus the mean at the base level, each over all levels of
the other factors; for an interaction, the difference between two such differences. These n numbers of n seeds are a
paired contrast like that of two cells: t interval, paired t test, and one of the four words. The numbers of different
seeds are independent and have the same distribution, however much the spread differs between cells, so the test keeps
its level with normal noise. A pooled residual does not: with (seeds - 1)(cells - 1) degrees of freedom it assumes the same
spread in all cells, and that cells do not respond to a seed in their own way.

An effect of several degrees of freedom is judged by its contrasts with Holm's correction, not by one overall test: an F
test over seeds needs equal spreads of all contrasts (sphericity), and Hotelling's T^2 more seeds than contrasts.

Source: Student (1908); Boik (1981) and Maxwell (1980) for a separate error term per contrast; Holm (1979).
"""

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orca_sweep.stats.contrasts import LEAST_PAIRS, Contrast, holm, paired_contrast
from orca_sweep.stats.fractions import AliasSet, Fraction
from orca_sweep.stats.intervals import is_rounding
from orca_sweep.stats.modes import Mode
from orca_sweep.stats.verdicts import Verdict, Word, describe_reason, judge_contrasts

LEAST_SEEDS = LEAST_PAIRS
"""With two seeds, the spread of two numbers is all that a test knows of noise."""


@dataclass(frozen=True, kw_only=True)
class FactorialValues:
    """One value per combination of levels and seed of a full design."""

    factors: tuple[str, ...]
    levels: tuple[tuple[Hashable, ...], ...]
    """Of each factor."""
    seeds: tuple[int, ...]
    values: np.ndarray
    """Of shape (levels of each factor ..., seeds)."""


@dataclass(frozen=True, kw_only=True)
class FactorContrast:
    """A level against the base level of its factor, or a difference of such differences, within each seed."""

    factors: tuple[str, ...]
    levels: tuple[Hashable, ...]
    base: tuple[Hashable, ...]
    contrast: Contrast
    aliases: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Sign and factors of the effects that a fraction cannot separate from it."""

    @property
    def name(self) -> str:
        """Its factors, such as 'proxy' or 'proxy x finetune.freeze'."""
        return " x ".join(self.factors)


@dataclass(frozen=True, kw_only=True)
class JudgedContrast:
    """A contrast of factors and the word for it, within its family: all main effects, or all interactions."""

    effect: FactorContrast
    verdict: Verdict | None
    """None below three seeds, where nothing can be judged."""
    p: float
    """Two-sided p of the paired t test; NaN below three seeds."""
    p_holm: float
    """The same, adjusted within the family."""

    @property
    def word(self) -> Word:
        """The word of its verdict."""
        return self.verdict.word if self.verdict else "undecided"

    @property
    def reason(self) -> str:
        """Why it cannot be judged, in words; empty if it can."""
        if self.verdict:
            return describe_reason(self.verdict)
        n = self.effect.contrast.interval.n
        return f"{n} seed{'s' * (n != 1)}, and at least {LEAST_SEEDS} are needed"


def contrast_factors(table: FactorialValues, base: Sequence[Hashable], level: float = 0.95) -> list[FactorContrast]:
    """Returns every level against the base level of its factor, then every interaction of two factors.

    The interaction of level l of A and level m of B is the effect of l at m minus the effect of l at the base level of B, each
    averaged over the other factors.
    """
    k = len(table.factors)
    singles = [made for axis in range(k) for made in _contrast_levels(table, axis, base, level)]
    pairs = itertools.combinations(range(k), 2)
    return singles + [made for axes in pairs for made in _contrast_pairs(table, axes, base, level)]


def _contrast_levels(
    table: FactorialValues, axis: int, base: Sequence[Hashable], level: float
) -> Iterator[FactorContrast]:
    means, levels = _average_others(table, (axis,)), table.levels[axis]
    at_base = levels.index(base[axis])
    for i, name in enumerate(levels):
        if i != at_base:
            yield FactorContrast(
                factors=(table.factors[axis],), levels=(name,), base=(base[axis],),
                contrast=_contrast_seeds(table, means[i], means[at_base], level),
            )  # fmt: skip


def _contrast_pairs(
    table: FactorialValues, axes: tuple[int, int], base: Sequence[Hashable], level: float
) -> Iterator[FactorContrast]:
    means = _average_others(table, axes)
    of_a, of_b = (table.levels[axis] for axis in axes)
    a, b = (table.levels[axis].index(base[axis]) for axis in axes)
    for i, j in itertools.product(range(len(of_a)), range(len(of_b))):
        if i != a and j != b:
            yield FactorContrast(
                factors=tuple(table.factors[axis] for axis in axes),
                levels=(of_a[i], of_b[j]), base=(of_a[a], of_b[b]),
                contrast=_contrast_seeds(table, means[i, j] - means[a, j], means[i, b] - means[a, b], level),
            )  # fmt: skip


def _average_others(table: FactorialValues, axes: tuple[int, ...]) -> np.ndarray:
    """Returns means over the other factors, of shape (levels of each axis ..., seeds)."""
    means: np.ndarray = table.values.mean(axis=tuple(i for i in range(len(table.factors)) if i not in axes))
    return means


def _contrast_seeds(table: FactorialValues, a: np.ndarray, b: np.ndarray, level: float) -> Contrast:
    return contrast_seeds(table.seeds, a, b, scale=float(np.abs(table.values).max()), level=level)


def contrast_seeds(seeds: Sequence[int], a: np.ndarray, b: np.ndarray, *, scale: float, level: float) -> Contrast:
    """Returns the contrast of two numbers per seed; differences that may be rounding at this scale count as zero."""
    b = np.array([x if is_rounding(x - y, scale) else y for x, y in zip(a, b, strict=True)])
    first, second = (dict(zip(seeds, side.tolist(), strict=True)) for side in (a, b))
    return paired_contrast(first, second, level)


def contrast_fraction(table: FactorialValues, fraction: Fraction, level: float = 0.95) -> list[FactorContrast]:
    """Returns the effects of a two-level fraction: main effects, then sets led by an interaction of two factors.

    A main effect is the mean at the high level minus the mean at the low level, over the rows of the fraction. An interaction
    is the difference of differences, as in `contrast_factors`, so that a fraction and its whole design estimate the same.
    Sets of interactions of three or more factors alone are left out.

    Args:
        table: values of shape (rows of the fraction, seeds); each factor has the levels (low, high).
        fraction: of these rows.
        level: confidence level of the intervals.
    """
    return [_contrast_set(table, of, level) for of in fraction.sets if len(of.factors) <= 2]


def _contrast_set(table: FactorialValues, of: AliasSet, level: float) -> FactorContrast:
    column, times = np.array(of.column), len(of.factors)
    plus, minus = (times * table.values[column == sign].mean(axis=0) for sign in (1, -1))
    return FactorContrast(
        factors=tuple(table.factors[i] for i in of.factors),
        levels=tuple(table.levels[i][1] for i in of.factors),
        base=tuple(table.levels[i][0] for i in of.factors),
        contrast=_contrast_seeds(table, plus, minus, level),
        aliases=tuple((sign, tuple(table.factors[i] for i in other)) for sign, other in of.aliases),
    )


def judge_factors(
    contrasts: Sequence[FactorContrast], margin: float | None, alpha: float = 0.05, mode: Mode = "min"
) -> tuple[JudgedContrast, ...]:
    """Returns the contrasts with their words; all main effects are one family of Holm's procedure, interactions another.

    The words are those of `judge_contrasts` with the same margin, so a single factor gets exactly the words that its cells
    get. A positive interaction says that two changes together add more than the sum of both. Below three seeds there is no
    verdict and no p. In a family the probability of any wrong helps or hurts is at most alpha if noise is normal, whatever
    the spread of each cell.

    Raises:
        ValueError: as `judge_contrasts`.
    """
    is_main = [len(of.factors) == 1 for of in contrasts]
    families = [[of for of, main in zip(contrasts, is_main, strict=True) if main is wanted] for wanted in (True, False)]
    mains, pairs = (iter(_judge_family(family, margin, alpha, mode)) for family in families)
    return tuple(next(mains if main else pairs) for main in is_main)


def _judge_family(
    family: Sequence[FactorContrast], margin: float | None, alpha: float, mode: Mode
) -> Iterator[JudgedContrast]:
    enough = [of for of in family if of.contrast.interval.n >= LEAST_SEEDS]
    verdicts = iter(judge_contrasts([of.contrast for of in enough], margin, alpha, mode))
    adjusted = iter(holm([of.contrast.p_t for of in enough]).tolist())
    for of in family:
        if of.contrast.interval.n < LEAST_SEEDS:
            yield JudgedContrast(effect=_hide_interval(of), verdict=None, p=math.nan, p_holm=math.nan)
        else:
            yield JudgedContrast(effect=of, verdict=next(verdicts), p=of.contrast.p_t, p_holm=next(adjusted))


def _hide_interval(of: FactorContrast) -> FactorContrast:
    """Returns a contrast without the numbers that would judge it."""
    interval = replace(of.contrast.interval, low=math.nan, high=math.nan)
    hidden = replace(of.contrast, interval=interval, p_t=math.nan, p_sign_flip=math.nan)
    return replace(of, contrast=hidden)
