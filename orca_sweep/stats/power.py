"""What paired contrasts of n seeds can show, and how many seeds they would need, for a known spread of the differences."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from orca_sweep.stats.contrasts import LEAST_PAIRS, smallest_effect

POWER = 0.8
"""The probability with which a test shall find what it looks for."""
MOST_SEEDS = 1000
"""More seeds than these are not counted."""
N_SPREADS = 256


def detectable_effect(n: int, sd: float, margin: float = 0.0, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the smallest true difference that n pairs show to lie beyond the margin with 80% power.

    Each comparison is tested at alpha / n_comparisons, as in the first step of Holm's procedure. NaN below three pairs, and
    if the spread or the margin is not known; without spread, nothing is known either.

    Source: as `smallest_effect`. The test of a difference beyond a margin is the t test of the difference minus the margin.
    """
    if n < LEAST_PAIRS or not (sd > 0 and margin >= 0):
        return math.nan
    return margin + _smallest_effect(n, n_comparisons, alpha) * sd


def chance_of_no_difference(n: int, sd: float, margin: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the probability that n pairs show a true difference of zero to lie within the margin.

    Two one-sided t tests, each at alpha / n_comparisons, as in the first step of Holm's procedure. NaN below three pairs,
    without spread, and if the spread or the margin is not known; 0 for a margin of 0.

    Source: Phillips (1990), "Power of the two one-sided tests procedure in bioequivalence"; here the integral over the
    estimated spread is a mean over its quantiles, exact to about 0.001.
    """
    if n < LEAST_PAIRS or not (sd > 0 and margin >= 0):
        return math.nan
    from scipy.special import ndtr

    room = np.maximum(_list_rooms(n, sd, margin, n_comparisons, alpha=alpha), 0.0)
    return float((2 * ndtr(room * math.sqrt(n) / sd) - 1).mean())


def chance_of_less(n: int, sd: float, least: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the probability that n values with a true mean of zero show it to be below ``least``.

    One-sided t test at alpha / n_comparisons, as in the first step of Holm's procedure. NaN below three values, without
    spread, and if the spread or ``least`` is not known.

    Source: as `chance_of_no_difference`.
    """
    if n < LEAST_PAIRS or not (sd > 0 and least >= 0):
        return math.nan
    from scipy.special import ndtr

    return float(ndtr(_list_rooms(n, sd, least, n_comparisons, alpha=alpha) * math.sqrt(n) / sd).mean())


def _list_rooms(n: int, sd: float, margin: float, n_comparisons: int, *, alpha: float) -> np.ndarray:
    """The margin minus the half-width of a one-sided interval, at the quantiles of the estimated spread."""
    from scipy.special import chdtri, stdtrit

    critical = float(stdtrit(n - 1, 1 - alpha / max(1, n_comparisons)))
    spreads = sd * np.sqrt(chdtri(n - 1, (np.arange(N_SPREADS) + 0.5) / N_SPREADS) / (n - 1))
    return np.asarray(margin - critical * spreads / math.sqrt(n))


def count_seeds_needed(effect: float, sd: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the fewest pairs at which a paired t test detects an effect, for a standard deviation of differences.

    This is infinite above 1,000 pairs, and NaN if the spread or the effect is not known, or the effect is 0.
    """
    if not (effect > 0 and sd >= 0):
        return math.nan
    return _find_fewest(lambda n: sd == 0 or _smallest_effect(n, n_comparisons, alpha) * sd <= effect)


def count_seeds_for_margin(margin: float, sd: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the fewest pairs that show a true difference of zero to lie within the margin with 80% power.

    This is infinite above 1,000 pairs and for a margin of 0, and NaN if the spread or the margin is not known.
    """
    if not (margin >= 0 and sd > 0):
        return math.nan
    if margin == 0:
        return math.inf
    return _find_fewest(lambda n: chance_of_no_difference(n, sd, margin, n_comparisons, alpha=alpha) >= POWER)


def count_seeds_for_less(least: float, sd: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the fewest values that show a true mean of zero to be below ``least`` with 80% power.

    This is infinite above 1,000 values and for a ``least`` of 0, and NaN if the spread or ``least`` is not known.
    """
    if not (least >= 0 and sd > 0):
        return math.nan
    if least == 0:
        return math.inf
    return _find_fewest(lambda n: chance_of_less(n, sd, least, n_comparisons, alpha=alpha) >= POWER)


def largest_spread_for_margin(n: int, margin: float, n_comparisons: int = 1, alpha: float = 0.05) -> float:
    """Returns the largest standard deviation at which n pairs show a zero difference to lie within the margin with 80% power.

    NaN below three pairs, and if the margin is not known; 0 for a margin of 0.
    """
    if n < LEAST_PAIRS or not margin >= 0:
        return math.nan
    return margin * _largest_spread(n, n_comparisons, alpha)


@lru_cache(maxsize=4096)
def _largest_spread(n: int, n_comparisons: int, alpha: float) -> float:
    """The same for a margin of 1: with more spread, the probability only falls where it is high."""
    from scipy.optimize import brentq

    def compare_power(log_sd: float) -> float:
        return chance_of_no_difference(n, math.exp(log_sd), 1.0, n_comparisons, alpha=alpha) - POWER

    return math.exp(float(brentq(compare_power, -20, 20, xtol=1e-6)))


def _find_fewest(is_enough: Callable[[int], bool]) -> float:
    """Returns the fewest pairs that are enough, if more are enough too (where few are far from enough, it may be otherwise)."""
    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return float(high) if high <= MOST_SEEDS else math.inf


@lru_cache(maxsize=4096)
def _smallest_effect(n: int, n_comparisons: int, alpha: float) -> float:
    return smallest_effect(n, n_comparisons, alpha, POWER)
