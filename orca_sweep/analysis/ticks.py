"""Ticks that never overlap: plain numbers, and fewer of them where there is no room."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from orca_sweep.analysis.writing import MINUS

APART = 4.0
"""Points between two labels of an axis."""
MOST_TICKS = 7


def set_number_ticks(axis: Any) -> None:
    """Gives the axes few ticks with plain numbers, without an offset or power that is written elsewhere."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    class NumberFormatter(FuncFormatter):
        """Formats the ticks of an axis together: with the digits that distinguish them."""

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return format_tick_labels(values)

    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(nbins=MOST_TICKS, steps=[1, 2, 2.5, 5, 10]))
        side.set_major_formatter(NumberFormatter(lambda value, _: format_tick_labels([value])[0]))


def format_tick_labels(values: Sequence[float]) -> list[str]:
    """Returns numbers with the digits that distinguish them; powers of ten for the very large and very small."""
    known = [value for value in values if math.isfinite(value)]
    largest = max(map(abs, known), default=0.0)
    if not largest:
        return [f"{value:g}" for value in values]
    step = min((abs(b - a) for a, b in pairwise(known) if a != b), default=largest)
    if 1e-4 <= largest < 1e6 and step >= 1e-6:
        decimals = next((n for n in range(9) if _is_multiple(step, n) and all(_is_multiple(v, n) for v in known)), 6)
        texts = [f"{value:.{decimals}f}" for value in values]
    else:
        texts = [_format_power(value, largest, step) for value in values]
    return [text.replace("-", MINUS) if float(text) else "0" for text in texts]


def _is_multiple(value: float, decimals: int) -> bool:
    return abs(value - round(value, decimals)) < 1e-9 * max(1.0, abs(value))


def _format_power(value: float, largest: float, step: float) -> str:
    digits = min(9, max(0, math.ceil(math.log10(largest / step) - 1e-9))) if step < largest else 1
    mantissa, _, power = f"{value:.{digits}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(power)}"


def thin_ticks(axis: Any, renderer: Any) -> None:
    """Gives each axis as many ticks as its length has room for, so that no two labels overlap."""
    from matplotlib.ticker import MaxNLocator

    for side, across in ((axis.xaxis, True), (axis.yaxis, False)):
        locator = side.get_major_locator()
        if isinstance(locator, MaxNLocator):
            for n in range(_count_intervals(side, across), 0, -1):
                locator.set_params(nbins=n, min_n_ticks=min(2, n))
                if not _is_crowded(side, across, renderer):
                    break
        elif _is_crowded(side, across, renderer):
            _blank_labels(side, across, renderer)


def fix_ticks(axis: Any) -> None:
    """Keeps the ticks that the axes have now, whatever their size will be."""
    from matplotlib.ticker import MaxNLocator

    for side in (axis.xaxis, axis.yaxis):
        if isinstance(side.get_major_locator(), MaxNLocator):
            low, high = sorted(side.get_view_interval())
            ticks = [tick for tick in side.get_majorticklocs() if low <= tick <= high]
            side.set_ticks(ticks, format_tick_labels(ticks))


def _count_intervals(side: Any, across: bool) -> int:
    """Returns the number of intervals between ticks that suits the length of an axis."""
    box, size = side.axes.get_window_extent(), side.get_major_ticks(1)[0].label1.get_fontsize()
    length = (box.width if across else box.height) * 72 / side.axes.figure.dpi
    return max(2, min(MOST_TICKS, int(length / (size * (4.5 if across else 2.5)))))


def _is_crowded(side: Any, across: bool, renderer: Any) -> bool:
    boxes = sorted(_measure_labels(side, across, renderer))
    return any(second[0] < first[1] for first, second in pairwise(boxes))


def _measure_labels(side: Any, across: bool, renderer: Any) -> list[tuple[float, float, Any]]:
    """Returns start, end with the space after it, and label of each label in view."""
    gap = (APART if across else 0.5) * side.axes.figure.dpi / 72
    low, high = sorted(side.get_view_interval())
    slack = 1e-9 * max(abs(low), abs(high))
    made = []
    side.get_majorticklabels()  # which updates the ticks
    for tick in side.get_major_ticks():
        if tick.label1.get_visible() and tick.label1.get_text() and low - slack <= tick.get_loc() <= high + slack:
            box = tick.label1.get_window_extent(renderer)
            made.append((*((box.x0, box.x1) if across else (box.y0, box.y1)), tick.label1))
    return [(start, end + gap, label) for start, end, label in made]


def _blank_labels(side: Any, across: bool, renderer: Any) -> None:
    """Keeps the labels of fixed ticks that have room, from the first on; the last stays, for the end of the range."""
    labels = _measure_labels(side, across, renderer)
    last = labels[-1]
    kept: list[tuple[float, float, Any]] = []
    for label in labels[:-1]:
        is_free = all(label[0] >= near[1] or label[1] <= near[0] for near in [*kept, last])
        kept += [label] * is_free
    kept.append(last)
    texts = {id(label[2]) for label in kept}
    ticks = side.get_major_ticks()
    side.set_ticks(side.get_majorticklocs(), [t.label1.get_text() if id(t.label1) in texts else "" for t in ticks])
