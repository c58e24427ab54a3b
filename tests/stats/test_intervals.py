"""Intervals of a mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep.stats import Bounds, describe_interval, t_interval
from orca_sweep.stats.intervals import at_level


def test_intervals_by_hand():
    # 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.3027.
    interval = t_interval([1.0, 2, 3])
    assert (interval.n, interval.mean, interval.sd) == (3, 2, 1)
    assert interval.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert math.isnan(t_interval([1.0]).low)
    assert math.isnan(t_interval([]).mean)
    assert math.isnan(t_interval([1.0, math.nan]).mean)


def test_intervals_cover_at_their_level():
    rng = np.random.default_rng(0)
    hits = [abs(i.mean) <= i.half_width for i in (t_interval(rng.normal(size=4)) for _ in range(2000))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_an_interval_contains_its_mean(values):
    interval = t_interval(values)
    assert interval.low <= interval.mean <= interval.high


SHARE, POSITIVE, AT_MOST_1 = Bounds(low=0, high=1), Bounds(low=0), Bounds(high=1)


def test_bounded_intervals_by_hand():
    # 0.01, 0.03, 0.05: mean 0.03, se 0.02 / sqrt(3), t(0.975, 2) = 4.30265.
    half = 4.302653 * 0.02 / math.sqrt(3)
    shift = half / (0.03 * 0.97)
    odds = 0.03 / 0.97
    ends = [odds * math.exp(by) / (1 + odds * math.exp(by)) for by in (-shift, shift)]
    interval = t_interval([0.01, 0.03, 0.05], bounds=SHARE)
    assert (interval.low, interval.high) == pytest.approx(ends, rel=1e-5)
    assert (interval.mean, interval.sd) == (t_interval([0.01, 0.03, 0.05]).mean, t_interval([0.01, 0.03, 0.05]).sd)
    interval = t_interval([0.01, 0.03, 0.05], bounds=POSITIVE)
    assert (interval.low, interval.high) == pytest.approx(
        [0.03 * math.exp(by * half / 0.03) for by in (-1, 1)], rel=1e-5
    )
    interval = t_interval([0.5, 0.7, 0.9], bounds=AT_MOST_1)
    mirrored = t_interval([0.5, 0.3, 0.1], bounds=POSITIVE)
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


def test_an_error_and_its_accuracy_have_mirrored_intervals():
    errors = [0.004, 0.0, 0.01]
    error, accuracy = t_interval(errors, bounds=SHARE), t_interval([1 - x for x in errors], bounds=SHARE)
    assert (error.low, error.high) == pytest.approx((1 - accuracy.high, 1 - accuracy.low), rel=1e-9)
    assert 0 < error.low < error.mean < error.high < 0.2


@pytest.mark.parametrize("bounds", [SHARE, POSITIVE, AT_MOST_1, Bounds(low=-1, high=3)])
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=9), level=st.sampled_from([0.8, 0.95, 0.999]))
def test_a_bounded_interval_stays_inside_and_contains_its_mean(bounds, values, level):
    interval = t_interval(values, level, bounds)
    assert bounds.low <= interval.low <= interval.mean <= interval.high <= bounds.high


def test_equal_values_and_values_at_a_bound_have_an_interval():
    for value in (0.0, 1.0, 0.3):
        interval = t_interval([value, value], bounds=SHARE)
        assert interval.low == interval.mean == interval.high == value
    assert t_interval([0.0, 0.0, 0.01], bounds=SHARE).low > 0
    assert math.isnan(t_interval([0.5], bounds=SHARE).low) and math.isnan(
        t_interval([0.5, math.nan], bounds=SHARE).mean
    )


def test_far_from_its_bounds_a_bounded_interval_is_the_plain_one():
    values = [0.501, 0.499, 0.5]
    bounded, plain = t_interval(values, bounds=SHARE), t_interval(values)
    assert (bounded.low, bounded.high) == pytest.approx((plain.low, plain.high), abs=1e-6)


def test_values_outside_of_their_bounds_are_refused():
    with pytest.raises(ValueError, match=r"values 0\.5 to 1\.2: they must lie between 0 and 1\."):
        t_interval([0.5, 1.2], bounds=SHARE)
    assert t_interval([1 + 1e-12, 1.0, 0.9], bounds=SHARE).high <= 1 + 1e-12  # rounding


def test_a_bounded_interval_at_another_level_stays_bounded():
    wide = at_level(t_interval([0.0, 0.01, 0.0], bounds=SHARE), 0.999)
    assert 0 <= wide.low < 0.01 < wide.high <= 1
    assert wide == t_interval([0.0, 0.01, 0.0], 0.999, SHARE)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize("error", [0.01, 0.1, 0.4])
def test_bounded_intervals_cover_at_their_level(n, error):
    rng = np.random.default_rng(0)
    spread = 0.3 * error
    k = error * (1 - error) / spread**2 - 1
    cells = rng.binomial(300, rng.beta(error * k, (1 - error) * k, (1500, n))) / 300
    intervals = [t_interval(values, bounds=SHARE) for values in cells]
    above, below = (
        np.mean([test(i) for i in intervals]) for test in (lambda i: i.low > error, lambda i: i.high < error)
    )
    assert above + below == pytest.approx(0.05, abs=0.02)
    assert max(above, below) < 0.045  # the plain interval: up to 0.05 on one side, at 5 seeds and an error of 0.01


def test_an_interval_says_on_which_scale_it_is():
    assert describe_interval(0.95, Bounds(), "that mean") == "95% Student-t interval of that mean"
    scale = "computed on the logit scale so that it stays between 0 and 1"
    assert describe_interval(0.9, SHARE, "the mean") == f"90% Student-t interval of the mean, {scale}"
    assert [(str(b), b.scale) for b in (POSITIVE, AT_MOST_1)] == [("above 0", "log"), ("below 1", "log")]
