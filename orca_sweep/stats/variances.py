"""How large spreads are, and what share one variance has in another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.stats.intervals import check_level, is_rounding


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class VarianceRatio:
    """One variance, or a sum of several, in units of another."""

    ratio: float
    low: float
    high: float
    level: float


def sd_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> SdInterval:
    """Returns the standard deviation s of independent normal replicates with its chi-squared limits.

    s sqrt(df / q) for the quantiles q of chi-squared with df = n - 1 at both ends. Equal values have s = 0 and NaN ends:
    limits in proportion to s would claim to know that the next value is equal too. Fewer than two values, or one that
    is not finite, make all numbers NaN.
    """
    check_level(level)
    data = np.asarray(values, dtype=float)
    n = int(data.size)
    if n < 2 or not np.isfinite(data).all():
        return SdInterval(n, math.nan, math.nan, math.nan, level)
    sd = float(data.std(ddof=1))
    if is_rounding(sd, float(np.abs(data).max())):
        return SdInterval(n, 0.0, math.nan, math.nan, level)
    from scipy.special import chdtri

    # chdtri takes the upper tail.
    low, high = (sd * math.sqrt((n - 1) / float(chdtri(n - 1, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return SdInterval(n, sd, low, high, level)


def variance_ratio(parts: Sequence[SdInterval], whole: SdInterval, level: float = 0.95) -> VarianceRatio:
    """Returns the sum of the parts' variances over the variance of the whole, with its F interval.

    R / F' and R F'' for R = sum of s^2 over s^2 of the whole, with the upper quantiles F' of F(df, n - 1) and F'' of
    F(n - 1, df); n - 1 is the whole's and df = (sum of s^2)^2 / sum of (s^4 / (n - 1)) the parts', exact for one part.
    Normal and independent values are assumed. Where the values of equal seeds go together, as those of a source and of
    all sources do, the interval is wider than it need be. It may well lie above 1.

    A part without spread adds nothing. Parts that are all without spread have the ratio 0, and no interval (NaN); a
    whole without spread has no ratio, and neither have parts of which one is not known.

    Source: Satterthwaite (1946) for the degrees of freedom of a sum of variances.
    """
    check_level(level)
    variances = np.array([part.sd**2 for part in parts])
    total = float(variances.sum())
    if not (math.isfinite(total) and whole.sd > 0):
        return VarianceRatio(math.nan, math.nan, math.nan, level)
    ratio = total / whole.sd**2
    if total == 0:
        return VarianceRatio(ratio, math.nan, math.nan, level)
    from scipy.special import fdtri

    df = total**2 / float((variances**2 / [part.n - 1 for part in parts]).sum())
    upper = (1 + level) / 2
    low, high = ratio / float(fdtri(df, whole.n - 1, upper)), ratio * float(fdtri(whole.n - 1, df, upper))
    return VarianceRatio(ratio, low, high, level)
