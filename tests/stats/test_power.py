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
    smallest_effect,
)

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
