"""Paired comparisons of two cells by seed, and Holm's correction for many comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.stats.intervals import Interval, check_level, is_rounding, t_interval

MOST_EXACT_PAIRS = 20
"""With more pairs, sign patterns are sampled instead of enumerated."""
N_DRAWS = 99_999
LEAST_PAIRS = 3
"""With fewer pairs nothing is judged: two differences can be equal by chance, and then their t test looks certain."""
LARGEST_EFFECT = 1e4
"""The largest result of ``smallest_effect``, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Cell a against cell b in pairs of equal seed. A negative mean says that a has lower values of the metric."""

    interval: Interval
    """Student-t interval of the mean difference a - b, in the metric's unit; ``n`` counts complete pairs."""
    mean_a: float
    """Mean over complete pairs, like ``mean_b``."""
    mean_b: float
    seeds: tuple[int, ...]
    """Seeds of the complete pairs, ascending."""
    differences: tuple[float, ...]
    """a - b of each complete pair, in the order of ``seeds``."""
    only_a: tuple[int, ...]
    """Seeds that cell b lacks."""
    only_b: tuple[int, ...]
    """Seeds that cell a lacks."""
    not_finite: tuple[int, ...]
    """Seeds of both cells where a value is NaN or infinite."""
    hedges_g: float
    """Mean difference in standard deviations of the metric between seeds, corrected for small n."""
    p_t: float
    """Two-sided p of the paired t test; NaN below ``LEAST_PAIRS``."""
    p_sign_flip: float
    """Two-sided p of the sign-flip test."""
    smallest_p: float
    """The smallest ``p_sign_flip`` that this number of pairs can reach, whatever the effect; NaN without pairs."""

    @property
    def incomplete(self) -> tuple[int, ...]:
        """All seeds without a complete pair, ascending."""
        return tuple(sorted({*self.only_a, *self.only_b, *self.not_finite}))


def paired_contrast(
    a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95, complete_pairs_only: bool = False
) -> Contrast:
    """Returns the contrast of two cells, each given as a mapping from seed to metric.

    Pairing removes the noise that two trials of equal seed share (batches, initialisation, split). Incomplete pairs are
    listed. They also make every estimate and p NaN, since trials seldom fail at random, unless ``complete_pairs_only``.

    Hedges' g divides the mean difference by s = sqrt((var a + var b) / 2), the spread of one cell between seeds, so that
    contrasts are comparable whether or not pairing helped, and multiplies it by J(df), J(m) = gamma(m / 2) /
    (sqrt(m / 2) gamma((m - 1) / 2)), df = 2 (n - 1) / (1 + r^2) with the correlation r over pairs. In simulations its bias
    was below 3% at 5 pairs and up to 14% (too small) at 3. It is NaN with fewer than three pairs or without spread. The
    other convention, the mean in standard deviations of the differences, is ``interval.mean / interval.sd``: the unit
    of `smallest_effect`.

    One pair has a mean but no interval, and two pairs have an interval but no t test. If the differences have no
    spread, the t test does not apply: its p is 1 if all differences are zero, else NaN.

    Source: Student (1908); Hedges (1981) for J; Cohen (1988) for the pooled standardiser in paired designs, and
    Cousineau (2020), "Approximating the distribution of Cohen's d_p in within-subject designs", for its df.
    """
    check_level(level)
    common = sorted(a.keys() & b.keys())
    seeds = tuple(s for s in common if math.isfinite(a[s]) and math.isfinite(b[s]))
    only_a, only_b = tuple(sorted(a.keys() - b.keys())), tuple(sorted(b.keys() - a.keys()))
    not_finite = tuple(s for s in common if s not in seeds)
    of_a = np.array([a[s] for s in seeds], dtype=float)
    of_b = np.array([b[s] for s in seeds], dtype=float)
    differences = tuple(float(d) for d in of_a - of_b)
    n = len(differences)
    judged = n > 0 and (complete_pairs_only or not (only_a or only_b or not_finite))
    unknown = Interval(n=n, mean=math.nan, sd=math.nan, low=math.nan, high=math.nan, level=level)
    interval = t_interval(differences, level) if judged else unknown
    return Contrast(
        interval=interval,
        mean_a=float(of_a.mean()) if judged else math.nan,
        mean_b=float(of_b.mean()) if judged else math.nan,
        seeds=seeds,
        differences=differences,
        only_a=only_a,
        only_b=only_b,
        not_finite=not_finite,
        hedges_g=_hedges_g(of_a, of_b) if judged else math.nan,
        p_t=two_sided_p(interval) if n >= LEAST_PAIRS else math.nan,
        p_sign_flip=sign_flip_p(differences) if judged else math.nan,
        smallest_p=_smallest_drawn_p(n),
    )


def _smallest_drawn_p(n: int) -> float:
    """Returns the smallest p of `sign_flip_p`, which draws patterns of many pairs; NaN without pairs."""
    if n == 0:
        return math.nan
    return smallest_p(n) if n <= MOST_EXACT_PAIRS else max(smallest_p(n), 1 / (N_DRAWS + 1))


def has_spread(interval: Interval) -> bool:
    """Says whether the values differ by more than rounding, so that a t test applies."""
    return not is_rounding(interval.sd, interval.mean)


def two_sided_p(interval: Interval, beyond: float = 0.0) -> float:
    """Returns the two-sided t-test p of "the true mean is at most ``beyond`` away from zero".

    p = min(1, 2 P(T >= (|mean| - beyond) / se)) is below 1 - level exactly if the interval at that level lies wholly
    outside [-beyond, beyond]. Without spread it is 1 if all values are zero, else NaN; with fewer than two values, NaN.
    """
    if math.isnan(interval.sd):
        return math.nan
    if not has_spread(interval):
        return 1.0 if interval.mean == 0 else math.nan
    return min(1.0, 2 * t_tail(interval, abs(interval.mean) - beyond))


def t_tail(interval: Interval, distance: float) -> float:
    """Returns P(T >= distance / se) under Student's t with n - 1 degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(interval.n - 1, -distance * math.sqrt(interval.n) / interval.sd))


def _hedges_g(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 3:
        return math.nan
    var_a, var_b = float(a.var(ddof=1)), float(b.var(ddof=1))
    spread = math.sqrt((var_a + var_b) / 2)
    if is_rounding(spread, max(abs(float(a.mean())), abs(float(b.mean())))):
        return math.nan
    r = float(np.cov(a, b)[0, 1]) / math.sqrt(var_a * var_b) if var_a * var_b > 0 else 0.0
    half = (a.size - 1) / (1 + r * r)  # df / 2
    j = math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)
    return float((a - b).mean()) / spread * j


def sign_flip_p(differences: Sequence[float] | np.ndarray) -> float:
    """Returns the two-sided p of the paired sign-flip test of the mean, which assumes only symmetry about zero.

    p is the share of the 2^n sign patterns whose sum is at least as far from zero as the observed one, including ties and
    the observed pattern (no mid-p), so the test never exceeds its level. Up to 20 pairs, all patterns are enumerated;
    beyond that, 99,999 are drawn from a fixed stream and p = (1 + hits) / 100,000. The order of the values does not matter.
    p is NaN without values, or if one is not finite.

    Source: Fisher (1935); for drawn patterns Phipson and Smyth (2010). Cost: 2^(n - 1) sums.
    """
    # Sorted, so that sampled patterns do not depend on the order of the pairs.
    d = np.sort(np.asarray(differences, dtype=float))
    if d.size == 0 or not np.isfinite(d).all():
        return math.nan
    # Sums of the same numbers in another order differ by rounding and must count as ties.
    least = abs(float(d.sum())) - 1e-9 * float(np.abs(d).sum())
    if d.size > MOST_EXACT_PAIRS:
        return (1 + _count_drawn_hits(d, least)) / (N_DRAWS + 1)
    sums = d[:1]  # mirrored patterns are equally far from zero, so the first sign is fixed
    for x in d[1:]:
        sums = np.concatenate([sums + x, sums - x])
    return float((np.abs(sums) >= least).mean())


def _count_drawn_hits(d: np.ndarray, least: float) -> int:
    rng = np.random.default_rng(0)
    hits = 0
    for start in range(0, N_DRAWS, 10_000):
        signs = 2 * rng.integers(0, 2, (min(10_000, N_DRAWS - start), d.size)) - 1
        hits += int((np.abs(signs @ d) >= least).sum())
    return hits


def smallest_p(n: int) -> float:
    """Returns the smallest two-sided p that an exact paired sign-flip test of n pairs can reach, whatever the effect.

    Source: 2 of the 2^n sign patterns have equal signs throughout, and none is more extreme (Fisher 1935).
    """
    return min(1.0, 2.0 ** (1 - n)) if n > 0 else 1.0


def smallest_effect(n: int, n_comparisons: int = 1, alpha: float = 0.05, power: float = 0.8) -> float:
    """Returns the mean paired difference that a t test of n pairs detects with that power, in standard deviations.

    Each comparison is tested at alpha / n_comparisons, as in the first step of Holm's procedure. The result is infinite for
    fewer than two pairs.

    Source: power of the t test by the noncentral t distribution (Johnson and Welch 1940), solved by Brent (1973).
    """
    if n < 2:
        return math.inf
    from scipy.optimize import brentq
    from scipy.special import nctdtr, ndtri, stdtrit

    critical = float(stdtrit(n - 1, 1 - alpha / max(1, n_comparisons) / 2))

    def missing_power(effect: float) -> float:
        # The far tail is negligible once the power is above one half.
        missed = float(nctdtr(n - 1, effect * math.sqrt(n), critical))
        return power - 1 + (0.0 if math.isnan(missed) else missed)  # SciPy returns NaN far out in the tail

    # Far above the solution nctdtr can take seconds, so the search starts at that of a known standard deviation.
    high = min(max(critical + float(ndtri(power)), 1.0) / math.sqrt(n), LARGEST_EFFECT)
    while missing_power(high) > 0:
        if high >= LARGEST_EFFECT:
            return LARGEST_EFFECT
        high = min(2 * high, LARGEST_EFFECT)
    return float(brentq(missing_power, 0.0, high, xtol=1e-14, rtol=1e-14))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns Holm's adjusted p values in the given order; testing them at alpha keeps the family-wise error at most alpha.

    The i-th smallest of m values is multiplied by m - i + 1, then raised to the one before it if that is larger, and capped
    at 1. NaN (a comparison that could not be made) stays NaN and does not count in m.

    Source: Holm (1979).

    Raises:
        ValueError: for a p outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p values {p[(p < 0) | (p > 1)].tolist()}: they must lie between 0 and 1.")
    counted = np.flatnonzero(~np.isnan(p))
    order = counted[np.argsort(p[counted], kind="stable")]
    adjusted = np.full(p.shape, math.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)))
    return adjusted
