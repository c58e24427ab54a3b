"""What paired contrasts can show, against simulations of the words that they get."""

import math

import numpy as np
import pytest

from orca_sweep.stats import (
    chance_of_no_difference,
    count_seeds_for_margin,
    count_seeds_needed,
    detectable_effect,
    largest_spread_for_margin,
    rank_correlation,
    rho_p,
    smallest_effect,
    spread_of_rho,
)
from orca_sweep.stats.power import chance_of_less, count_seeds_for_less

N_RUNS = 20_000
SLACK = 4 * math.sqrt(0.25 / N_RUNS)


def simulate_words(n, sd, margin, true, m, alpha=0.05):
    """The shares of helps-or-hurts and of no meaningful difference, by the rule of stats.verdicts at alpha / m."""
    from scipy.special import stdtrit

    values = np.random.default_rng(0).normal(true, sd, (N_RUNS, n))
    mean, se = np.abs(values.mean(1)), values.std(1, ddof=1) / math.sqrt(n)
    beyond = mean - margin >= stdtrit(n - 1, 1 - alpha / m / 2) * se
    within = margin - mean >= stdtrit(n - 1, 1 - alpha / m) * se
    return beyond.mean(), within.mean()


@pytest.mark.parametrize(("n", "m", "margin"), [(3, 1, 0.0), (5, 1, 0.5), (5, 6, 0.5), (12, 3, 1.5)])
def test_the_detectable_effect_is_shown_in_four_of_five_runs(n, m, margin):
    effect = detectable_effect(n, 2.0, margin, m)
    assert effect == pytest.approx(margin + 2.0 * smallest_effect(n, m))
    shown, _ = simulate_words(n, 2.0, margin, effect, m)
    assert shown == pytest.approx(0.8, abs=SLACK)


@pytest.mark.parametrize(("n", "m", "margin"), [(3, 1, 3.0), (5, 1, 2.0), (6, 9, 4.0), (20, 3, 1.5), (5, 1, 0.5)])
def test_the_chance_of_no_difference_is_how_often_a_true_zero_is_called_so(n, m, margin):
    chance = chance_of_no_difference(n, 2.0, margin, m)
    _, called = simulate_words(n, 2.0, margin, 0.0, m)
    assert called == pytest.approx(chance, abs=SLACK + 0.002)


def test_the_seeds_for_a_margin_are_the_fewest_that_reach_it():
    for margin, m in ((1.0, 1), (2.5, 6)):
        n = int(count_seeds_for_margin(margin, 2.0, m))
        assert chance_of_no_difference(n, 2.0, margin, m) >= 0.8 > chance_of_no_difference(n - 1, 2.0, margin, m)
    # Far from power it is not monotonic: few seeds underestimate their spread more often.
    chances = [chance_of_no_difference(n, 2.0, 1.0) for n in range(8, 60)]
    assert chances == sorted(chances)


def test_what_is_not_known_stays_unknown_and_a_margin_of_zero_is_never_reached():
    assert math.isnan(detectable_effect(2, 1.0, 0.1)) and math.isnan(chance_of_no_difference(2, 1.0, 0.1))
    for sd, margin in ((0.0, 0.1), (math.nan, 0.1), (1.0, math.nan)):
        assert math.isnan(detectable_effect(5, sd, margin))
        assert math.isnan(chance_of_no_difference(5, sd, margin))
        assert math.isnan(count_seeds_for_margin(margin, sd))
    assert chance_of_no_difference(9, 1.0, 0.0) == 0
    assert count_seeds_for_margin(0.0, 1.0) == math.inf == count_seeds_for_margin(0.001, 1.0)
    assert count_seeds_needed(1.0, 1.0) == 10


@pytest.mark.parametrize(("n", "m", "margin"), [(3, 1, 0.03), (6, 4, 0.03), (30, 13, 2.0)])
def test_the_largest_spread_for_a_margin_is_where_the_chance_is_four_in_five(n, m, margin):
    sd = largest_spread_for_margin(n, margin, m)
    assert chance_of_no_difference(n, sd, margin, m) == pytest.approx(0.8, abs=1e-4)
    assert chance_of_no_difference(n, 1.05 * sd, margin, m) < 0.8 < chance_of_no_difference(n, 0.95 * sd, margin, m)
    assert largest_spread_for_margin(n, 0.0, m) == 0
    assert math.isnan(largest_spread_for_margin(2, margin)) and math.isnan(largest_spread_for_margin(n, math.nan))


# Rank correlations --------------------------------------------------------------------------------


def simulate_tracking(rho, n_runs=400, n_seeds=6, n_amounts=4):
    """Rank correlations of trials in which each seed has each amount, and all points correlate at about ``rho``."""
    rng = np.random.default_rng(1)
    seeds = np.repeat(np.arange(n_seeds), n_amounts)
    for _ in range(n_runs):
        x = rng.normal(size=seeds.size)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=seeds.size)
        yield rank_correlation(x, y, clusters=seeds)


def test_a_correlation_of_zero_is_called_so_as_often_as_its_power_says():
    least, m, seen = 0.3, 3, list(simulate_tracking(0.0))
    known = [rho for rho in seen if math.isfinite(spread_of_rho(rho))]
    assert len(known) > 0.99 * len(seen)
    called = np.mean([rho_p(rho, least)[1] <= 0.05 / m for rho in known])
    sd = math.sqrt(6) * np.std([math.atanh(rho.rho) for rho in known])
    # The jackknife's spread is not quite that of normal values.
    assert called == pytest.approx(chance_of_less(6, sd, math.atanh(least), m), abs=0.05)
    assert np.median([spread_of_rho(rho) for rho in known]) == pytest.approx(sd, rel=0.15)


def test_a_correlation_as_large_as_the_detectable_one_is_found_four_times_in_five():
    least = math.atanh(0.3)
    known = [rho for rho in simulate_tracking(0.85) if math.isfinite(spread_of_rho(rho))]
    sd = math.sqrt(6) * np.std([math.atanh(rho.rho) for rho in known])
    true = np.mean([math.atanh(rho.rho) for rho in known])
    found = np.mean([2 * rho_p(rho, 0.3)[0] <= 0.05 for rho in known])
    # Powers by the t test are up to five percent too high: the jackknife's spread varies more.
    assert true == pytest.approx(detectable_effect(6, sd, least), abs=0.06)
    assert found == pytest.approx(0.8, abs=0.1)


def test_the_seeds_for_less_are_the_fewest_that_reach_it():
    n = int(count_seeds_for_less(0.5, 1.0, 3))
    assert chance_of_less(n, 1.0, 0.5, 3) >= 0.8 > chance_of_less(n - 1, 1.0, 0.5, 3)
    # One side is easier than both.
    assert n <= count_seeds_for_margin(0.5, 1.0, 3)
    assert count_seeds_for_less(0.0, 1.0) == math.inf
    assert math.isnan(chance_of_less(2, 1.0, 0.5)) and math.isnan(count_seeds_for_less(0.5, math.nan))
    plain = rank_correlation([1, 2, 3, 4, 5], [2, 1, 3, 5, 4])
    assert math.isnan(spread_of_rho(plain))
