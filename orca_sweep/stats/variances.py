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
