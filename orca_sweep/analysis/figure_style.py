"""THE look of figures: width, size of the text, colours, markers, line styles, hatches. Only code that draws imports Matplotlib.

Readers with any colour vision can distinguish Okabe & Ito's colours. Markers, line styles and hatches distinguish the
same things without colour, so that a figure can also be read in grey.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orca_sweep.errors import InputError, Problem

WIDTHS: Mapping[str, float] = {"column": 3.25, "page": 6.75}
"""Inches of a column and of a page in common two-column templates (ICML; others have 3.3 to 3.5 and 6.8 to 7.2)."""
LEAST_WIDTH, MOST_WIDTH = 2.0, 40.0
LEAST_FONT, MOST_FONT = 4.0, 24.0
LEAST_EMS = 18
"""A figure that is fewer times as wide as its letters are high has no room for labels and data side by side."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
# 8 and 9 have no common factor: neither a colour nor a marker comes with the same of the other again soon.
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
LINE_STYLES = ("-", "--", "-.", ":")
GREY, DARK, LIGHT = "#666666", "#333333", "#f1f1f1"
SHADE = "#999999"
"""Of margins, drawn at a quarter of its strength."""
FONT = "DejaVu Sans"
"""Matplotlib brings it along, so that a figure looks the same everywhere."""


@dataclass(frozen=True, kw_only=True)
class FigureStyle:
    """How large a figure is drawn, and whether its caption is part of the picture.

    Raises:
        InputError: if a size is out of range, or the width has no room for text of that size.
    """

    width: float = WIDTHS["page"]
    """In inches. The height follows from what the figure shows."""
    font_size: float = 8.0
    """In points, of everything but the caption, which is slightly smaller."""
    caption: bool = True
    notice: str = ""
    """A warning that the caption of every picture begins with."""

    def __post_init__(self) -> None:
        problems = [
            *_check_range("width", self.width, (LEAST_WIDTH, MOST_WIDTH), "inches"),
            *_check_range("font-size", self.font_size, (LEAST_FONT, MOST_FONT), "points"),
        ]
        if not problems and self.ems < LEAST_EMS:
            most = 72 * self.width / LEAST_EMS
            problems.append(
                Problem(
                    field="font-size",
                    value=self.font_size,
                    rule=f"the labels of a figure {self.width:g} inches wide have no room at {self.font_size:g} points.",
                    remedy=f"Choose at most {math.floor(most * 2) / 2:g} points, or a larger --width.",
                )
            )
        if problems:
            raise InputError(problems)

    @property
    def points(self) -> float:
        """The width in points."""
        return 72 * self.width

    @property
    def ems(self) -> float:
        """The width in heights of a letter, which says how much text fits side by side."""
        return self.points / self.font_size

    @property
    def caption_size(self) -> float:
        """The size of the caption in points."""
        return max(LEAST_FONT, self.font_size - 1)

    def count_columns(self, n: int, ems: float = 24, most: int = 3) -> int:
        """Returns how many of n panels, each at least some letters wide, fit side by side without a lonely last one."""
        columns = max(1, min(most, n, int(self.ems // ems)))
        return 2 if (n, columns) == (4, 3) else columns


def _check_range(field: str, value: float, limits: tuple[float, float], unit: str) -> Iterator[Problem]:
    low, high = limits
    if not low <= value <= high:
        yield Problem(field=field, value=value, rule=f"a number of {unit} from {low:g} to {high:g} is allowed.")


PAGE = FigureStyle()


def read_style(
    width: str | float | None = None, font_size: float | None = None, no_caption: bool | None = None
) -> FigureStyle:
    """Returns the style that options ask for; ``width`` is 'column', 'page', or a number of inches.

    Raises:
        InputError: for a width that is none of these, and as `FigureStyle` does.
    """
    inches = WIDTHS["page"] if width is None else WIDTHS.get(str(width), width)
    try:
        inches = float(inches)
    except ValueError:
        rule = "a width is column, page, or a number of inches, such as 5.5."
        raise InputError(Problem(field="width", value=width, rule=rule)) from None
    return FigureStyle(
        width=inches, font_size=PAGE.font_size if font_size is None else font_size, caption=not no_caption
    )


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a line looks."""

    colour: str
    marker: str
    face: str
    line: Any = "-"
    """Of the line that joins points; an interval is always solid."""


AA_STYLE = Style(colour=GREY, marker="o", face="white", line=":")


def choose_style(i: int) -> Style:
    """Returns the style of the line number i: 9 markers, then hollow ones, and further line styles with each 9."""
    colour, n_rounds = COLOURS[i % len(COLOURS)], i // len(MARKERS)
    face = "white" if n_rounds % 2 else colour
    line = LINE_STYLES[n_rounds % len(LINE_STYLES)]
    return Style(colour=colour, marker=MARKERS[i % len(MARKERS)], face=face, line=line)


@contextmanager
def use_settings(settings: Mapping[str, Any]) -> Iterator[None]:
    """Gives Matplotlib its own defaults and these settings in this context, whatever styles the user has chosen."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        known: Any = settings  # mypy's list of Matplotlib's settings is of literals
        matplotlib.rcParams.update(known)
        yield


@contextmanager
def use_look(style: FigureStyle) -> Iterator[None]:
    """Gives what is drawn in this context the common look of the figures, without changing Matplotlib's own settings."""
    sizes = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize",
             "legend.title_fontsize")  # fmt: skip
    with use_settings({**LOOK, **dict.fromkeys(sizes, style.font_size), "lines.markersize": 0.55 * style.font_size}):
        yield


LOOK: dict[str, Any] = {
    "font.family": [FONT],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.labelspacing": 0.35,
    "legend.handlelength": 2.2,
    "legend.borderpad": 0,
    "legend.columnspacing": 1.5,
    "text.parse_math": False,  # levels are the user's words, and a dollar sign is just a dollar sign
    "text.usetex": False,
}
