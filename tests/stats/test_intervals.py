"""Intervals of a mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep.stats import t_interval


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
