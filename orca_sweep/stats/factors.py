"""Analysis of variance of a balanced design: how the variance is shared out, under one noise for all cells.

It describes. To judge an effect, `orca_sweep.stats.factor_contrasts` needs no such assumption.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orca_sweep.errors import InputError
from orca_sweep.stats.contrasts import holm
from orca_sweep.stats.factor_contrasts import FactorialValues
from orca_sweep.stats.intervals import check_level

Axes = tuple[int, ...]
MOST_HOLES = 98
"""Holes of a design that an error lists."""


@dataclass(frozen=True, kw_only=True)
class LevelMean:
    """The mean over all trials with one level of a factor, or one pair of levels of two factors."""

    levels: tuple[Hashable, ...]
    mean: float
    n: int
    """Trials."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The main effect of a factor, or the interaction of two factors."""

    factors: tuple[str, ...]
    df: int
    sum_of_squares: float
    f: float
    p: float
    p_adjusted: float
    """By Holm's procedure over all effects of the analysis."""
    eta_squared: float
    """Share of the total sum of squares; the shares of all effects, blocks and the residual add up to one."""
    partial_omega_squared: float
    """Estimated share of the variance that remains without all other effects; slightly negative if F < 1."""
    low: float
    """Lower end of the interval of the partial share."""
    high: float
    means: tuple[LevelMean, ...]

    @property
    def name(self) -> str:
        """Its factors, such as 'proxy' or 'proxy x finetune.freeze'."""
        return " x ".join(self.factors)


@dataclass(frozen=True, kw_only=True)
class FactorEffects:
    """Main effects and two-factor interactions of a full factorial design that ran once per seed."""

    effects: tuple[Effect, ...]
    n: int
    """Trials."""
    n_cells: int
    n_blocks: int
    block_eta_squared: float
    """Share of seeds in the total sum of squares."""
    higher_eta_squared: float
    """Share of the interactions of three or more factors."""
    residual_eta_squared: float
    residual_df: int
    residual_sd: float
    """Standard deviation of the noise, in the metric's unit, once cell and seed are known."""
    level: float


def factor_effects(
    values: Sequence[float] | np.ndarray,
    levels_by_factor: Mapping[str, Sequence[Hashable]],
    blocks: Sequence[Hashable],
    level: float = 0.90,
) -> FactorEffects:
    """Returns the effects of factors on a metric, from n trials: each combination of levels once per block (seed).

    The model is cell + seed + noise (a randomised complete block design). The design is orthogonal, so every sum of
    squares is a sum of squared differences of means, and order does not matter:
    SS(A) = n / a sum (m_i - m)^2, SS(AB) = n / ab sum (m_ij - m_i - m_j + m)^2, F = (SS / df) / (SSE / dfE) with
    dfE = (seeds - 1)(cells - 1). Interactions of three or more factors are not part of the noise; they are reported as one
    share. The noise is assumed to be equal in all cells and independent
    of the seed; where it is not, p is too small for some effects, and `factor_contrasts` judges them soundly.

    eta^2 = SS / SS(total) describes these trials. Partial omega^2 = df (F - 1) / (df (F - 1) + n) estimates the share
    without the effects of other factors and seeds. Its interval L / (L + n) contains the noncentralities L for which the
    observed F is not unusual. At the default level of 90% it excludes zero exactly if p < 0.05.

    If all values are equal, shares are undefined (NaN). Without any noise, F and everything derived from it is NaN.

    Source: Fisher (1935), complete blocks; Keren and Lewis (1979) for partial omega^2; Steiger (2004) for its interval
    and its level; Cramer et al. (2016) for adjusting the p values of several effects.

    Raises:
        InputError: if the design is unbalanced, a factor has one level, or there are fewer than two seeds. The message lists
            the first 98 combinations of levels that have no finite value, or several, at some seed.
        ValueError: if values, levels and blocks differ in length.
    """
    check_level(level)
    table = arrange_values(values, levels_by_factor, blocks, least_blocks=2)
    return analyse_table(table, level)


def arrange_values(
    values: Sequence[float] | np.ndarray,
    levels_by_factor: Mapping[str, Sequence[Hashable]],
    blocks: Sequence[Any],
    least_blocks: int = 1,
) -> FactorialValues:
    """Returns the values of a full design as an array with an axis per factor, and one for blocks (seeds).

    Raises:
        InputError: if the design is unbalanced, a factor has one level, or there are too few blocks.
        ValueError: if values, levels and blocks differ in length.
    """
    data = np.asarray(values, dtype=float)
    if {len(labels) for labels in (*levels_by_factor.values(), blocks)} != {data.size}:
        raise ValueError(f"factor_effects: {data.size} values need as many labels of each factor and as many blocks.")
    names = tuple(levels_by_factor)
    if not names:
        raise InputError("no factor is given. Name at least one.")
    levels = [list(dict.fromkeys(levels_by_factor[name])) for name in names]
    seeds = list(dict.fromkeys(blocks))
    values_by_key = _group_values(data, list(zip(*(levels_by_factor[name] for name in names), strict=True)), blocks)
    problems = list(_find_shortages(names, levels, len(seeds), least_blocks))
    problems += find_holes(values_by_key, names, itertools.product(*levels), seeds)
    if problems:
        raise InputError(problems)
    shape = [*map(len, levels), len(seeds)]
    table = np.array([values_by_key[key][0] for key in itertools.product(*levels, seeds)]).reshape(shape)
    return FactorialValues(factors=names, levels=tuple(map(tuple, levels)), seeds=tuple(seeds), values=table)


def _group_values(
    data: np.ndarray, cells: Sequence[tuple[Hashable, ...]], blocks: Sequence[Hashable]
) -> dict[tuple[Hashable, ...], list[float]]:
    values_by_key: dict[tuple[Hashable, ...], list[float]] = {}
    for cell, seed, value in zip(cells, blocks, data.tolist(), strict=True):
        values_by_key.setdefault((*cell, seed), []).append(value)
    return values_by_key


def _find_shortages(
    names: Sequence[str], levels: Sequence[Sequence[Hashable]], n_blocks: int, least_blocks: int
) -> Iterator[str]:
    for name, known in zip(names, levels, strict=True):
        if len(known) < 2:
            yield f"factor {name!r} has {len(known)} level. It needs at least two. Leave it out."
    if n_blocks < least_blocks:
        yield f"{n_blocks} seed. Noise needs at least two seeds. Run more seeds."


def find_holes(
    values_by_key: Mapping[tuple[Hashable, ...], list[float]],
    names: Sequence[str],
    cells: Iterable[tuple[Hashable, ...]],
    seeds: Sequence[Hashable],
) -> list[str]:
    """Returns a line for each of these cells without one finite value per seed, at most 99, and a line with the rule.

    A sparse design of many factors has too many combinations to list or to hold in memory.
    """
    holes = list(itertools.islice(_describe_holes(values_by_key, names, cells, seeds), MOST_HOLES + 1))
    if len(holes) > MOST_HOLES:
        holes[-1] = "there are more combinations like these, which are not listed."
    if holes:
        rule = "Each combination of levels needs one finite value per seed"
        holes.append(f"{rule}. Run the missing trials, or leave the level or the seed out.")
    return holes


def _describe_holes(
    values_by_key: Mapping[tuple[Hashable, ...], list[float]],
    names: Sequence[str],
    cells: Iterable[tuple[Hashable, ...]],
    seeds: Sequence[Hashable],
) -> Iterator[str]:
    """Yields a line for each combination of levels and kind of fault, with its seeds."""
    for cell in cells:
        faults: dict[str, list[str]] = {}
        for seed in seeds:
            fault = _explain_fault(values_by_key.get((*cell, seed), []))
            if fault:
                faults.setdefault(fault, []).append(str(seed))
        named = ", ".join(f"{name} = {value}" for name, value in zip(names, cell, strict=True))
        for fault, at_seeds in faults.items():
            yield f"{named} has {fault} at seed{'s' if len(at_seeds) > 1 else ''} {', '.join(at_seeds)}."


def _explain_fault(values: list[float]) -> str | None:
    if len(values) != 1:
        return f"{len(values)} values" if values else "no value"
    return None if math.isfinite(values[0]) else f"the value {values[0]}"


def analyse_table(values: FactorialValues, level: float = 0.90) -> FactorEffects:
    """Returns the effects of a full design of at least two blocks; see `factor_effects`."""
    table, names, levels = values.values, values.factors, values.levels
    n, n_seeds, k = table.size, table.shape[-1], len(names)
    grand = float(table.mean())
    cell_means = table.mean(axis=-1, keepdims=True)
    seed_means = table.mean(axis=tuple(range(k)), keepdims=True)
    total = _sum_squares(table - grand)
    # Equal values differ from their mean by rounding, and so do residuals without noise.
    total = total if total > 1e-24 * n * grand**2 else 0.0
    noise = _sum_squares(table - cell_means - seed_means + grand)
    noise = noise if noise > 1e-20 * total else 0.0
    df_noise = (n // n_seeds - 1) * (n_seeds - 1)
    terms = [axes for size in (1, 2) for axes in itertools.combinations(range(k), size)]
    sums = [_sum_squares(np.broadcast_to(_interaction_deviations(table, axes), table.shape)) for axes in terms]
    dfs = [math.prod(table.shape[axis] - 1 for axis in axes) for axes in terms]
    ratios = [(ss / df) / (noise / df_noise) if noise else math.nan for ss, df in zip(sums, dfs, strict=True)]
    p_values = [_f_tail(f, df, df_noise) for f, df in zip(ratios, dfs, strict=True)]
    tails = ((1 + level) / 2, (1 - level) / 2)
    ends = [_partial_ends((f, df, df_noise), n, tails) for f, df in zip(ratios, dfs, strict=True)]
    effects = tuple(
        Effect(
            factors=tuple(names[axis] for axis in axes), df=df, sum_of_squares=ss, f=f, p=p, p_adjusted=adjusted,
            eta_squared=_share_of(ss, total), partial_omega_squared=df * (f - 1) / (df * (f - 1) + n),
            low=low, high=high, means=_level_means(table, axes, levels),
        )
        for axes, df, ss, f, p, adjusted, (low, high) in zip(
            terms, dfs, sums, ratios, p_values, holm(p_values).tolist(), ends, strict=True
        )
    )  # fmt: skip
    higher = max(0.0, _sum_squares(cell_means - grand) * n_seeds - sum(sums)) if k > 2 else 0.0
    return FactorEffects(
        effects=effects, n=n, n_cells=n // n_seeds, n_blocks=n_seeds,
        block_eta_squared=_share_of(_sum_squares(seed_means - grand) * n / n_seeds, total),
        higher_eta_squared=_share_of(higher, total), residual_eta_squared=_share_of(noise, total),
        residual_df=df_noise, residual_sd=math.sqrt(noise / df_noise), level=level,
    )  # fmt: skip


def _sum_squares(deviations: np.ndarray) -> float:
    return float((deviations**2).sum())


def _share_of(part: float, total: float) -> float:
    return part / total if total else math.nan


def _marginal_means(table: np.ndarray, kept: Axes) -> np.ndarray:
    """Returns means over all axes except the kept ones; the number of axes does not change."""
    means: np.ndarray = table.mean(axis=tuple(a for a in range(table.ndim) if a not in kept), keepdims=True)
    return means


def _interaction_deviations(table: np.ndarray, axes: Axes) -> np.ndarray:
    """Returns the deviations of the marginal means of one or two axes from those of lower terms."""
    parts = [(-1) ** (len(axes) - r) * _marginal_means(table, kept) for r in range(len(axes) + 1)
             for kept in itertools.combinations(axes, r)]  # fmt: skip
    return sum(parts[1:], start=parts[0])


def _level_means(table: np.ndarray, axes: Axes, levels: Sequence[Sequence[Hashable]]) -> tuple[LevelMean, ...]:
    means = _marginal_means(table, axes).ravel()
    n = table.size // means.size
    combinations = itertools.product(*(levels[axis] for axis in axes))
    return tuple(
        LevelMean(levels=combination, mean=float(mean), n=n)
        for combination, mean in zip(combinations, means, strict=True)
    )


def _f_tail(f: float, df: int, df_noise: int) -> float:
    from scipy.special import fdtrc

    return float(fdtrc(df, df_noise, f))


def _partial_ends(ratio: tuple[float, int, int], n: int, tails: tuple[float, float]) -> tuple[float, float]:
    """Returns the ends of L / (L + n), for the noncentralities L at which P(F <= f) equals each tail.

    Args:
        ratio: f and its two degrees of freedom.
        n: number of trials.
        tails: the two probabilities.
    """
    f, df, df_noise = ratio
    if math.isnan(f):
        return math.nan, math.nan
    low, high = (find_noncentrality(f, df, df_noise, tail) for tail in tails)
    return low / (low + n), high / (high + n)


def find_noncentrality(f: float, df: int, df_noise: int, p: float) -> float:
    """Returns the noncentrality at which P(F <= f) = p; 0 if even the central F has a smaller probability.

    Source: the root by Brent (1973).
    """
    from scipy.optimize import brentq
    from scipy.special import fdtr, ncfdtr

    if float(fdtr(df, df_noise, f)) <= p:
        return 0.0

    def surplus(x: float) -> float:
        below = float(ncfdtr(df, df_noise, x, f))
        return (0.0 if math.isnan(below) else below) - p  # NaN for F above about 1e11, where every share rounds to one

    low, high = 0.0, 1.0
    while surplus(high) > 0:
        low, high = high, 2 * high
    return float(brentq(surplus, low, high, xtol=1e-14, rtol=1e-14))
