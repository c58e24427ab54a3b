"""Statistics of ablations: arrays in, frozen records out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over replicates (seeds) and its confidence interval."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    level: float

    @property
    def half_width(self) -> float:
        """Distance from the mean to either end."""
        return (self.high - self.low) / 2


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Returns the Student-t confidence interval of the mean of independent replicates.

    Non-finite values are not dropped: they make every number NaN, so a gap cannot be averaged over
    unseen. One value has no interval (NaN ends); none has no mean either.

    Source: Student (1908). Chosen over the percentile bootstrap, whose nominal 95% intervals cover
    about 72-75% at 3 replicates and 84-85% at 5.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: it must lie between 0 and 1.")
    data = np.asarray(values, dtype=float)
    n = int(data.size)
    mean = float(data.mean()) if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return Interval(n, mean, math.nan, math.nan, math.nan, level)
    from scipy.stats import t

    sd = float(data.std(ddof=1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(n, mean, sd, mean - half, mean + half, level)
