"""Digits: numbers as text show what their spread supports, and never contradict it."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep.stats import Bounds, t_interval
from orca_sweep.stats.digits import (
    NOTHING,
    Digits,
    choose_digits,
    digits_of_intervals,
    format_ends,
    format_interval,
    format_mean,
    format_number,
    format_sd,
    refine_digits,
)

MAGNITUDES = st.floats(-9, 9)
SHARES = st.lists(st.floats(-1, 1), min_size=1, max_size=6)


def read_number(text):
    return float(text.replace("\u2212", "-"))


def last_digit(text):
    """The unit of the last digit that a number shows."""
    mantissa, _, power = text.lstrip("+\u2212").partition("e")
    return (
        10.0 ** (int(power.replace("\u2212", "-") or 0) - len(mantissa.partition(".")[2])) if mantissa != "0" else None
    )


def read_ends(text):
    return [read_number(end) for end in text.strip("[]").split(", ")]


@st.composite
def columns(draw):
    """Cells of one unit: a common magnitude, and for each cell a mean and a spread of their own."""
    size = 10.0 ** draw(MAGNITUDES)
    spreads = draw(st.lists(st.floats(-6, 1), min_size=1, max_size=5))
    cells = []
    for spread in spreads:
        mean, shares = draw(st.floats(-1, 1)) * size, draw(SHARES)
        cells.append([mean + share * size * 10.0**spread for share in shares])
    return cells


@given(columns())
def test_a_row_never_contradicts_itself(cells):
    intervals = [t_interval(values) for values in cells]
    digits = digits_of_intervals(intervals)
    for i in intervals:
        mean = format_mean(i, digits)
        unit = last_digit(mean)
        assert unit is None or abs(read_number(mean) - i.mean) <= unit * (0.5 + 1e-9) + 1e-12 * abs(i.mean)
        assert "-" not in mean and not re.fullmatch("\u22120.?0*(e.*)?", mean)
        if math.isnan(i.low):
            assert format_ends(i, digits) == NOTHING
            continue
        low, high = read_ends(format_ends(i, digits))
        assert low <= read_number(mean) <= high
        if i.half_width > 1e-9 * abs(i.mean):
            assert low < high
        if i.sd > 1e-9 * abs(i.mean):
            assert read_number(format_sd(i, digits)) > 0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_bounded_means_are_printed_within_their_interval(values):
    i = t_interval(values, bounds=Bounds(low=0, high=1))
    digits = digits_of_intervals([i])
    low, high = read_ends(format_ends(i, digits))
    assert 0 <= low <= read_number(format_mean(i, digits)) <= high <= 1


@given(MAGNITUDES, st.floats(0.01, 1), st.floats(-1, 1))
def test_a_number_is_printed_as_zero_only_far_below_its_spread(magnitude, spread, share):
    size = 10.0**magnitude
    value, half = share * size, spread * size
    text = format_number(value, choose_digits([half], [value, value - half, value + half]))
    if abs(value) >= half / 100:
        assert read_number(text) != 0


def test_digits_by_hand():
    def show(*values):
        i = t_interval(values)
        digits = digits_of_intervals([i])
        return format_mean(i, digits), format_ends(i, digits), format_sd(i, digits)

    assert show(0.30, 0.34, 0.32) == ("0.320", "[0.270, 0.370]", "0.020")
    assert show(-0.05, 0.95, -1.05)[:2] == ("\u22120.1", "[\u22122.5, 2.4]")
    assert show(1.0e-7, 1.2e-7, 1.4e-7) == ("1.20e\u22127", "[0.70e\u22127, 1.70e\u22127]", "0.20e\u22127")
    assert show(2.0e6, 2.1e6, 2.2e6) == ("2.10e6", "[1.85e6, 2.35e6]", "0.10e6")
    assert show(0.5, 0.5) == ("0.5000", "[0.5000, 0.5000]", "0.0000")
    assert show(0.25) == ("0.2500", NOTHING, NOTHING)
    assert show(math.nan, 1.0) == (NOTHING,) * 3
    assert show(1234.0, 1240.0) == ("1237", "[1199, 1275]", "4")


def test_numbers_close_to_zero_keep_their_first_digit_and_zero_has_no_sign():
    digits = choose_digits([1.2], [0.04])
    assert [format_number(x, digits, "+") for x in (-0.04, 0.04, -0.0001, 0.0, -1.23)] == [
        "\u22120.04", "+0.04", "0.0", "0.0", "\u22121.2",
    ]  # fmt: skip
    assert format_number(1e-12, Digits(decimals=1, exponent=-7)) == "0"


def test_a_fine_row_in_a_coarse_column_shows_its_own_digits():
    coarse, fine = t_interval([0.2, 0.4, 0.3]), t_interval([0.10001, 0.10004, 0.10007])
    digits = digits_of_intervals([coarse, coarse, fine])
    assert format_ends(coarse, digits) == "[0.0516, 0.5484]"
    assert (format_mean(fine, digits), format_ends(fine, digits)) == ("0.10004", "[0.09997, 0.10011]")
    assert format_sd(fine, digits) == "0.00003"
    assert refine_digits(Digits(decimals=2), [1e-17], 0.3) == Digits(decimals=2)


@pytest.mark.parametrize(
    ("spreads", "values", "expected"),
    [
        ([0.0213, 0.034, 0.051], (), Digits(decimals=3)),
        ([0.03, 0.034, 0.0001], (), Digits(decimals=4)),
        ([0.03, 0.034, 1e-12], (), Digits(decimals=5)),
        ([math.nan, 0.0, math.inf], (), Digits(decimals=4)),
        ([120.0], (), Digits(decimals=0)),
        ([], [0.3], Digits(decimals=4)),
        ([], [1234.5], Digits(decimals=0)),
        ([1e-9], [3e-8], Digits(decimals=2, exponent=-8)),
    ],
)
def test_digits_of_columns(spreads, values, expected):
    assert choose_digits(spreads, values) == expected


def test_an_interval_that_is_not_known_is_a_dash():
    assert format_interval(math.nan, 2.0, 1) == NOTHING == format_interval(1.0, math.inf, 1)
