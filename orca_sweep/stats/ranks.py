"""Rank correlations: whether two measures increase together."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.stats.intervals import check_level, is_rounding

Measure = Callable[[np.ndarray, np.ndarray], float]
Ends = tuple[float, float]
NO_ENDS = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman's rho and Kendall's tau-b of two measures, each with an interval."""

    n: int
    """Points."""
    n_clusters: int | None
    """Number of independent clusters of points; None if the points themselves are independent."""
    rho: float
    rho_low: float
    rho_high: float
    tau: float
    tau_low: float
    tau_high: float
    level: float
    caution: str
    """Why a number is missing; empty if none is."""


def rank_correlation(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> RankCorrelation:
    """Returns the rank correlations of n points, for example distances and errors of the trials of a task.

    rho is Pearson's correlation of average ranks; tau-b corrects for ties in both measures. Intervals are those of atanh(r),
    transformed back:

    - for independent points (one per cell): +- z sqrt((1 + rho^2 / 2) / (n - 3)) for rho, with at least 4 points;
      +- z sqrt(0.437 / (n - 4)) for tau, with at least 5 points, good below 0.8;
    - for points that share seeds or cells, with each point's seed (or cell) as its label in ``clusters``:
      +- t sqrt((m - 1) / m sum (v_i - mean v)^2), where v_i leaves out the i-th of m clusters and t has m - 1 degrees of
      freedom; with at least 3 clusters. Every cluster should contain the same cells. In simulations with 4 or 8 cells of
      3, 5 and 10 seeds, the 95% interval covered 94-96%; a percentile bootstrap over seeds covered 75%, 82-86%, 89-91%.

    Do not pool tasks, since their units differ. A measure that does not vary has no correlation, a perfect correlation has
    no interval (NaN), and a value that is not finite makes all numbers NaN; ``caution`` names the case.

    Source: Spearman (1904); Kendall (1945); Bonett and Wright (2000) for the standard error of atanh(rho) and, after
    Fieller, Hartley and Pearson (1957), of atanh(tau); Tukey's jackknife as in Cameron and Miller (2015), section VI,
    for few clusters.

    Raises:
        ValueError: if x, y and clusters differ in length.
    """
    check_level(level)
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if xs.size != ys.size or (clusters is not None and len(clusters) != xs.size):
        sizes = [xs.size, ys.size, *([] if clusters is None else [len(clusters)])]
        raise ValueError(f"x, y and clusters have {sizes} values: they must have the same number.")
    rho, tau = spearman_rho(xs, ys), kendall_tau(xs, ys)
    n_clusters = None if clusters is None else len(set(clusters))
    if clusters is None:
        rho_ends = _plain_ends(rho, 1 + rho**2 / 2, xs.size - 3, level)
        tau_ends = _plain_ends(tau, 0.437, xs.size - 4, level)
    else:
        rho_ends, tau_ends = (_cluster_ends(r, (xs, ys), clusters, level) for r in (spearman_rho, kendall_tau))
    has_interval = not math.isnan(rho_ends[0])
    return RankCorrelation(
        n=xs.size, n_clusters=n_clusters, rho=rho, rho_low=rho_ends[0], rho_high=rho_ends[1],
        tau=tau, tau_low=tau_ends[0], tau_high=tau_ends[1], level=level,
        caution=_explain_gaps((xs, ys), rho, has_interval, n_clusters),
    )  # fmt: skip


def rho_p(correlation: RankCorrelation, against: float) -> tuple[float, float]:
    """Returns the one-sided p values of "the true rho is at most ``against``" and of "it is at least ``against``".

    They use the approximation of the interval: the first is below (1 - level) / 2 exactly if the interval lies wholly above
    ``against``, the second if it lies wholly below. They are NaN without an interval that ends within -1 and 1.

    Raises:
        ValueError: unless ``against`` lies between -1 and 1.
    """
    if not -1 < against < 1:
        raise ValueError(f"against = {against}: it must lie between -1 and 1.")
    if not -1 < correlation.rho_low < correlation.rho_high < 1:
        return math.nan, math.nan
    from scipy.special import ndtr, stdtr

    m = correlation.n_clusters
    distance = (math.atanh(correlation.rho) - math.atanh(against)) / _standard_error(correlation)
    above, below = (float(ndtr(x) if m is None else stdtr(m - 1, x)) for x in (-distance, distance))
    return above, below


def spread_of_rho(correlation: RankCorrelation) -> float:
    """Returns the standard error of atanh(rho) times the root of the number of clusters: the spread that one cluster adds.

    NaN without clusters, and without an interval that ends within -1 and 1.
    """
    if correlation.n_clusters is None or not -1 < correlation.rho_low < correlation.rho_high < 1:
        return math.nan
    return _standard_error(correlation) * math.sqrt(correlation.n_clusters)


def _standard_error(correlation: RankCorrelation) -> float:
    """The standard error of atanh(rho), from the interval."""
    from scipy.special import ndtri, stdtrit

    share, m = (1 + correlation.level) / 2, correlation.n_clusters
    quantile = float(ndtri(share) if m is None else stdtrit(m - 1, share))
    return (math.atanh(correlation.rho_high) - math.atanh(correlation.rho_low)) / 2 / quantile


def _has_variation(x: np.ndarray, y: np.ndarray) -> bool:
    return x.size > 1 and bool(np.isfinite([x, y]).all() and np.ptp(x) > 0 and np.ptp(y) > 0)


def spearman_rho(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Pearson's correlation of average ranks; NaN if a measure does not vary or is not finite."""
    if not _has_variation(x, y):
        return math.nan
    from scipy.stats import rankdata

    a, b = rankdata(x) - (x.size + 1) / 2, rankdata(y) - (y.size + 1) / 2
    return _snap_to_one(float((a @ b) / math.sqrt((a @ a) * (b @ b))))


def kendall_tau(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Kendall's tau-b; NaN if a measure does not vary or is not finite."""
    if not _has_variation(x, y):
        return math.nan
    from scipy.stats import kendalltau

    return _snap_to_one(float(kendalltau(x, y).statistic))


def _snap_to_one(r: float) -> float:
    """Returns r, or exactly 1 or -1 if r differs from it by rounding alone."""
    return math.copysign(1.0, r) if is_rounding(1 - abs(r), 1) else r


def _plain_ends(r: float, variance: float, divisor: int, level: float) -> Ends:
    if divisor < 1 or not abs(r) < 1:
        return NO_ENDS
    from scipy.special import ndtri

    half = float(ndtri((1 + level) / 2)) * math.sqrt(variance / divisor)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _cluster_ends(
    measure: Measure, points: tuple[np.ndarray, np.ndarray], clusters: Sequence[Hashable], level: float
) -> Ends:
    x, y = points
    names = list(dict.fromkeys(clusters))
    without = [np.array([c != name for c in clusters], dtype=bool) for name in names]
    m = len(names)
    values = [measure(x, y), *(measure(x[kept], y[kept]) for kept in without)]
    if m < 3 or not all(abs(r) < 1 for r in values):
        return NO_ENDS
    from scipy.special import stdtrit

    v = np.arctanh(values[1:])
    half = float(stdtrit(m - 1, (1 + level) / 2)) * math.sqrt((m - 1) / m * float(((v - v.mean()) ** 2).sum()))
    return math.tanh(math.atanh(values[0]) - half), math.tanh(math.atanh(values[0]) + half)


def _explain_gaps(points: tuple[np.ndarray, np.ndarray], rho: float, has_interval: bool, n_clusters: int | None) -> str:
    x, y = points
    if not np.isfinite([x, y]).all():
        return "a value is not finite: no correlation"
    if math.isnan(rho):
        return "a measure does not vary: no correlation"
    if has_interval:
        return "fewer than 5 points: no interval of tau" if n_clusters is None and x.size < 5 else ""
    if x.size < 4 if n_clusters is None else n_clusters < 3:
        return "fewer than 4 points: no interval" if n_clusters is None else "fewer than 3 clusters: no interval"
    if abs(rho) == 1:
        return "a perfect rank correlation: no interval"
    return "a perfect or undefined rank correlation without one of the clusters: no interval"
