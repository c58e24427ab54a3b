"""How many digits a number shows: as many as its spread supports.

All numbers of one unit, such as a column of a task, share one `Digits`, so that they can be compared by eye. A row whose own
spread is finer shows more (`refine_digits`), so that no interval with a width is printed as a point, and no spread as zero.
A number other than zero shows its first digit if two more decimals suffice; what is still smaller prints as an unsigned zero.
Very small and very large numbers are multiples of one power of ten.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from orca_sweep.stats.intervals import Interval, is_rounding

MINUS, NOTHING = "\u2212", "\u2013"
DEFAULT_DECIMALS = 4
MORE = 2
"""Decimals beyond those of the column that a number close to zero may show."""
SMALLEST, LARGEST = 1e-4, 1e6
"""Columns whose largest number lies outside are shown as multiples of a power of ten."""


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The digits that numbers of one unit show."""

    decimals: int
    exponent: int = 0
    """Numbers are shown as multiples of ten to this power, as in 1.20e-7; 0 shows them as they are."""


def choose_digits(spreads: Iterable[float], values: Iterable[float] = ()) -> Digits:
    """Returns the digits that show two digits of the middle spread; the smallest shows one if two more decimals suffice.

    Args:
        spreads: half-widths or standard deviations. Zero, and what is not finite, does not count. Without any, numbers show
            four significant digits of the largest value, or four decimals.
        values: the numbers to show, or the largest of them; they decide about a power of ten.
    """
    places = sorted(-_magnitude(x) for x in spreads if 0 < x < math.inf)
    known = [abs(x) for x in values if math.isfinite(x) and x]
    largest = max(known, default=0.0)
    exponent = _magnitude(largest) if known and not SMALLEST <= largest < LARGEST else 0
    if places:
        middle = places[len(places) // 2] + 1
        decimals = max(middle, min(places[-1], middle + MORE))
    else:
        decimals = 3 - _magnitude(largest) if known else DEFAULT_DECIMALS
    return Digits(decimals=max(0, decimals + exponent), exponent=exponent)


def digits_of_intervals(intervals: Iterable[Interval]) -> Digits:
    """Returns the digits that a column of means of one unit shows."""
    known = list(intervals)
    values = [value for i in known for value in (i.mean, i.low, i.high)]
    return choose_digits((_spread_of(i) for i in known), values)


def _spread_of(interval: Interval) -> float:
    """Returns the half-width, or the standard deviation if there is no interval; 0 if it is due to rounding alone."""
    spread = interval.half_width if math.isfinite(interval.half_width) else interval.sd
    return 0.0 if is_rounding(spread, interval.mean) else spread


def _magnitude(x: float) -> int:
    """Returns the power of ten of the first digit, or that of the smallest number with all digits."""
    return max(-307, math.floor(math.log10(x)))


def refine_digits(digits: Digits, spreads: Iterable[float], scale: float = 0.0) -> Digits:
    """Returns digits that show the first digit of each spread that is not due to rounding of numbers of this scale."""
    known = [x for x in spreads if 0 < x < math.inf and not is_rounding(x, scale)]
    return replace(digits, decimals=max([digits.decimals, *(digits.exponent - _magnitude(x) for x in known)]))


def _refine_to(digits: Digits, interval: Interval) -> Digits:
    return refine_digits(digits, (interval.half_width, interval.sd), interval.mean)


def format_number(value: float, digits: Digits | int, sign: str = "") -> str:
    """Returns a rounded number with a typographic minus; NaN is a dash. ``sign`` '+' also marks positive numbers."""
    if not math.isfinite(value):
        return NOTHING
    digits = Digits(decimals=digits) if isinstance(digits, int) else digits
    scaled = value / 10.0**digits.exponent
    text = f"{scaled:{sign}.{digits.decimals}f}"
    if not float(text) and abs(scaled) >= 0.5 * 10.0 ** -(digits.decimals + MORE):
        text = f"{scaled:{sign}.{-_magnitude(abs(scaled))}f}"
    if not float(text):
        return "0" if digits.exponent else f"{0:.{digits.decimals}f}"
    power = f"e{digits.exponent}" if digits.exponent else ""
    return f"{text}{power}".replace("-", MINUS)


def to_ascii(text: str) -> str:
    """Returns a number or an interval as text for a terminal, with '-' for minus and for what is not known."""
    return text.replace(MINUS, "-").replace(NOTHING, "-")


def format_interval(low: float, high: float, digits: Digits | int, sign: str = "") -> str:
    """Returns '[0.11, 0.23]'; a dash unless both ends are known."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{format_number(low, digits, sign)}, {format_number(high, digits, sign)}]" if known else NOTHING


def format_mean(interval: Interval, digits: Digits, sign: str = "") -> str:
    """Returns the mean of a row, with as many digits as its interval needs."""
    return format_number(interval.mean, _refine_to(digits, interval), sign)


def format_ends(interval: Interval, digits: Digits, sign: str = "") -> str:
    """Returns '[0.11, 0.23]': different ends if the interval has a width, with the digits of the mean of its row."""
    return format_interval(interval.low, interval.high, _refine_to(digits, interval), sign)


def format_sd(interval: Interval, digits: Digits) -> str:
    """Returns the standard deviation of a row; it is zero only if all values are equal, apart from rounding."""
    sd = 0.0 if is_rounding(interval.sd, interval.mean) else interval.sd
    return format_number(sd, _refine_to(digits, interval))
