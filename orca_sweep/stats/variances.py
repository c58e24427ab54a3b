"""Standard deviations and ratios of variances, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.stats.intervals import check_level, is_rounding


@dataclass(frozen=True, kw_only=True)
class SdInterval:
    """A standard deviation over replicates (seeds) and its confidence interval."""

    n: int
    sd: float
    low: float
    high: float
    level: float

    @property
    def is_zero(self) -> bool:
        """Whether all values are equal."""
        return self.sd == 0


@dataclass(frozen=True, kw_only=True)
class VarianceRatio:
    """A variance, or a sum of several, divided by another variance."""

    ratio: float
    low: float
    high: float
    level: float


def sd_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> SdInterval:
    """Returns the standard deviation s of independent normal replicates with its chi-squared limits.

    The limits are s sqrt(df / q) for the two quantiles q of chi-squared with df = n - 1. Equal values have s = 0 and NaN
    limits, since limits proportional to s would claim that the next value is equal too. With fewer than two values, or with
    a value that is not finite, all numbers are NaN.
    """
    check_level(level)
    data = np.asarray(values, dtype=float)
    n = int(data.size)
    if n < 2 or not np.isfinite(data).all():
        return SdInterval(n=n, sd=math.nan, low=math.nan, high=math.nan, level=level)
    sd = float(data.std(ddof=1))
    if is_rounding(sd, float(np.abs(data).max())):
        return SdInterval(n=n, sd=0.0, low=math.nan, high=math.nan, level=level)
    from scipy.special import chdtri

    # chdtri takes the upper tail.
    low, high = (sd * math.sqrt((n - 1) / float(chdtri(n - 1, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return SdInterval(n=n, sd=sd, low=low, high=high, level=level)


def variance_ratio(parts: Sequence[SdInterval], whole: SdInterval, level: float = 0.95) -> VarianceRatio:
    """Returns the sum of the parts' variances divided by the variance of the whole, with its F interval.

    The interval is R / F' to R F'' for the ratio R, with the upper quantiles F' of F(df, n - 1) and F'' of F(n - 1, df). The
    whole has n - 1 degrees of freedom and the parts have df = (sum of s^2)^2 / sum of (s^4 / (n - 1)), which is exact for
    one part. Values are assumed normal and independent. If values of equal seeds are correlated, like those of one source of
    noise and of all sources, the interval is wider than necessary. The ratio may exceed 1.

    A part without spread adds nothing. If no part has spread, the ratio is 0 without an interval (NaN). The ratio is NaN if
    the whole has no spread, or if the spread of a part is unknown.

    Source: Satterthwaite (1946) for the degrees of freedom of a sum of variances.
    """
    check_level(level)
    variances = np.array([part.sd**2 for part in parts])
    total = float(variances.sum())
    if not (math.isfinite(total) and whole.sd > 0):
        return VarianceRatio(ratio=math.nan, low=math.nan, high=math.nan, level=level)
    ratio = total / whole.sd**2
    if total == 0:
        return VarianceRatio(ratio=ratio, low=math.nan, high=math.nan, level=level)
    from scipy.special import fdtri

    df = total**2 / float((variances**2 / [part.n - 1 for part in parts]).sum())
    upper = (1 + level) / 2
    low, high = ratio / float(fdtri(df, whole.n - 1, upper)), ratio * float(fdtri(whole.n - 1, df, upper))
    return VarianceRatio(ratio=ratio, low=low, high=high, level=level)


LEAST_CELLS = 4
"""With fewer cells, what a seed does to all of them cannot be separated from what noise does to each."""


@dataclass(frozen=True, kw_only=True)
class SpreadCheck:
    """Whether noise is equal in all cells of a design, as a pooled residual assumes."""

    sds: tuple[float, ...]
    """Standard deviation over seeds of the residuals of each cell, once cell and seed are known."""
    smallest: int
    """Position of the cell with the smallest."""
    largest: int
    ratio: float
    """Largest by smallest; infinite if only the smallest is zero, NaN if all are."""
    p: float
    """Of Brown and Forsythe's test; NaN if it cannot be made: three cells, two seeds, or no spread at all."""


def check_spreads(table: np.ndarray) -> SpreadCheck:
    """Returns the spread of the residuals of each cell, from values of shape (cells, seeds).

    A residual is the value minus the mean of its cell, minus the median of that over the cells of its seed. Medians keep one
    noisy cell from lending its noise to the others, as means would. The test compares absolute deviations from the median of
    each cell. It needs four cells, and with few seeds it detects only large differences: one cell of four that is ten times as
    noisy as the rest, in 65% of cases at 5 seeds, in none at 3 (simulated). Without any difference it says so in 2% at 5 seeds.

    Source: Brown and Forsythe (1974), "Robust tests for the equality of variances".
    """
    n_cells, n_seeds = table.shape
    within = table - table.mean(axis=1, keepdims=True)
    rest = within - np.median(within, axis=0, keepdims=True)
    rest = np.where(np.abs(rest) <= 1e-9 * float(np.abs(table).max()), 0.0, rest)
    sds = rest.std(axis=1, ddof=1) if n_seeds > 1 else np.full(n_cells, math.nan)
    low, high = int(np.argmin(sds)), int(np.argmax(sds))
    p = _brown_forsythe_p(rest) if n_cells >= LEAST_CELLS and n_seeds > 2 and sds[high] > 0 else math.nan
    return SpreadCheck(
        sds=tuple(sds.tolist()), smallest=low, largest=high, ratio=_divide_spreads(sds[high], sds[low]), p=p
    )


def _divide_spreads(largest: float, smallest: float) -> float:
    if smallest > 0:
        return float(largest / smallest)
    return math.inf if largest > 0 else math.nan


def _brown_forsythe_p(groups: np.ndarray) -> float:
    """Returns the p of an F test of absolute deviations from the medians of groups of equal size."""
    from scipy.special import fdtrc

    n_groups, n = groups.shape
    deviations = np.abs(groups - np.median(groups, axis=1, keepdims=True))
    means = deviations.mean(axis=1, keepdims=True)
    between = n * float(((means - deviations.mean()) ** 2).sum()) / (n_groups - 1)
    within = float(((deviations - means) ** 2).sum()) / (n_groups * (n - 1))
    return float(fdtrc(n_groups - 1, n_groups * (n - 1), between / within)) if within else math.nan
