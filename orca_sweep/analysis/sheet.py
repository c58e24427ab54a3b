"""A figure under construction: bands of axes from top to bottom, then the caption. Its height follows from what it shows.

A layout engine shrinks axes until texts overlap. Here texts are broken into lines that fit, then they are measured, and
the axes get what they need; so no text leaves the figure and none covers another, whatever users call their levels.
Lengths are in points, from the left and from the top.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from orca_sweep.analysis.figure_style import DARK, GREY, LIGHT, FigureStyle, use_look
from orca_sweep.analysis.fonts import (
    fit_labels,
    ignore_missing_letters,
    measure_width,
    set_font,
    set_fonts,
    wrap_text,
)
from orca_sweep.analysis.ticks import fix_ticks, set_number_ticks, thin_ticks

PAD = 5.0
"""Between texts, and around the figure."""
GAP = 12.0
"""Between cells of a band, and between bands."""
LINE = 1.3
"""Height of a line of text, in font sizes."""
LEFT_SHARE, RIGHT_SHARE = 0.35, 0.33
"""The largest shares of a cell's width for the labels and the notes of its rows."""
PASSES = 3
"""Ticks depend on the size of their axes, and this on the ticks: one more pass settles both."""


@dataclass(kw_only=True)
class Slot:
    """A cell of a band: one axes with its title and legend."""

    axis: Any
    style: FigureStyle
    column: int
    width: float
    """Of the cell, labels included."""
    height: float
    """Of the axes alone."""
    title: str = ""
    has_rows: bool = False
    is_shown: bool = False
    gap: float = GAP
    """Below the cell."""
    outer: tuple[float, float, float, float] = (0, 0, 0, 0)
    """How far texts reach beyond the axes: left, right, above, below."""

    # What a slot shows ----------------------------------------------------------------------------

    def show(self, title: str = "", most: int = 5) -> Any:
        """Shows the axes with a title, and returns them."""
        self.axis.set_visible(True)
        self.is_shown = True
        self.title = wrap_text(title, self.width, self.style.font_size, most)
        return self.axis

    def label_x(self, text: str) -> None:
        """Names the x axis, on as many lines as it takes."""
        self.axis.set_xlabel(wrap_text(text, self.width, self.style.font_size))

    def label_y(self, text: str) -> None:
        """Names the y axis, on as many lines as the height of the axes asks for."""
        self.axis.set_ylabel(wrap_text(text, self.height, self.style.font_size, 4))

    def write_words(self, words: str) -> None:
        """Writes words on axes that have nothing to draw."""
        self.axis.set_visible(True)
        self.is_shown = True
        self.axis.set(xticks=[], yticks=[])
        text = wrap_text(words, 0.6 * self.width, self.style.font_size)
        self.height = max(self.height, LINE * self.style.font_size * (text.count("\n") + 2))
        self.axis.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=self.axis.transAxes)

    def place_rows(self, groups: Sequence["RowGroup"], is_shaded: bool = False) -> list[float]:
        """Makes the y axis one of rows in groups, writes labels and notes, and returns the position of each row.

        The axes become as high as their rows. Positions are points from the top of the axes.
        """
        size, line = self.style.font_size, LINE * self.style.font_size
        labels = fit_labels([group.label for group in groups], LEFT_SHARE * self.width, size)
        positions, middles, top = [], [], 0.0
        for i, (group, label) in enumerate(zip(groups, labels, strict=True)):
            notes = [_wrap_note(note, RIGHT_SHARE * self.width, size) for note in group.notes]
            heights = [max(1.3 * line, line * (note.count("\n") + 1) + 0.3 * line) for note in notes]
            slack = max(0.0, line * (label.count("\n") + 1.4) - sum(heights)) / len(heights)
            start = top
            for height, note in zip(heights, notes, strict=True):
                positions.append(top + (height + slack) / 2)
                self._write_note(positions[-1], note)
                top += height + slack
            middles.append((start + top) / 2)
            if is_shaded and i % 2 == 0:
                self.axis.axhspan(start, top, color=LIGHT, zorder=0, linewidth=0)
        self.axis.set_yticks(middles, labels)
        self.axis.tick_params(axis="y", length=0 if is_shaded else 2)
        self.axis.set_ylim(top, 0)
        self.height, self.has_rows = top, True
        return positions

    def _write_note(self, y: float, note: str) -> None:
        if note:
            self.axis.annotate(
                note, (1, y), (4, 0), xycoords=self.axis.get_yaxis_transform(), textcoords="offset points", va="center",
                color=DARK, annotation_clip=False,
            )  # fmt: skip

    def name_levels(self, levels: Sequence[str]) -> None:
        """Makes the x axis one of levels at 0, 1, 2, ...; their names are upright if they do not fit side by side."""
        size = self.style.font_size
        room = 0.72 * self.width / max(1, len(levels))
        names = fit_labels(levels, room, size, 3)
        is_upright = any(measure_width(line, size) > room for name in names for line in name.splitlines())
        is_upright |= room < 3.5 * size or any(name.count("\n") > 2 for name in names)
        names = fit_labels(levels, 9 * size, size, 1) if is_upright and len(levels) > 1 else names
        self.axis.set_xticks(range(len(levels)), names, rotation=90 if is_upright and len(levels) > 1 else 0)
        self.axis.set_xlim(-0.5, len(levels) - 0.5)

    def add_legend(self, handles: Sequence[Any], title: str = "") -> None:
        """Adds a legend below the axes: as many columns as fit, and long names on several lines."""
        size = self.style.font_size
        room = self.width - 3.2 * size
        for handle in handles:
            handle.set_label(wrap_text(handle.get_label(), room, size, 8) or " ")
        widest = max(
            (measure_width(line, size) for handle in handles for line in handle.get_label().splitlines()), default=0.0
        )
        n_columns = max(1, min(len(handles), 4, int((self.width + 1.5 * size) // (widest + 4.7 * size))))
        self.axis.legend(
            handles=list(handles), title=wrap_text(title, self.width, size) or None, alignment="left", ncols=n_columns,
            loc="upper left", borderaxespad=0,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows with a common label; each row has a note to its right, which may be empty."""

    label: str
    notes: tuple[str, ...] = ("",)


@dataclass(kw_only=True)
class Sheet:
    """A figure under construction."""

    style: FigureStyle
    figure: Any
    bands: list[list[Slot]] = field(default_factory=list)
    caption: str = ""

    def add_band(self, n: int = 1, columns: int | None = None, height: float | None = None) -> list[Slot]:
        """Adds n axes side by side, below what the figure already has, and returns their slots.

        Args:
            n: the number of axes; they are hidden until something is drawn on them.
            columns: the number of columns of the band, if it is not n.
            height: of the axes in points; by default it follows from their width.
        """
        columns = columns or n
        width = (self.style.points - 2 * PAD - GAP * (columns - 1)) / columns
        usual = min(140.0, max(11 * self.style.font_size, 0.48 * width))
        slots = []
        for column in range(n):
            axis = self.figure.add_axes((0.2, 0.2, 0.6, 0.6), visible=False)
            set_number_ticks(axis)
            slots.append(
                Slot(axis=axis, style=self.style, column=column, width=width, height=height or usual)
            )  # fmt: skip
        self.bands.append(slots)
        return slots

    def add_grid(self, n: int, columns: int, height: float | None = None) -> list[Slot]:
        """Adds bands that hold n axes, row by row, and returns their slots; there is at least one."""
        n = max(1, n)
        return [
            slot
            for start in range(0, n, columns)
            for slot in self.add_band(min(columns, n - start), columns, height)
        ]  # fmt: skip

    def add_heading(self, text: str) -> None:
        """Adds a line of text over the whole width, above the next band."""
        self._add_empty().show(text, most=9)
        self.bands[-1][0].gap = 4

    def add_legend(self, handles: Sequence[Any], title: str = "") -> None:
        """Adds a legend over the whole width, below the last band."""
        for above in self.bands[-1] if self.bands else ():
            above.gap = 2
        slot = self._add_empty()
        slot.show()
        slot.add_legend(handles, title)

    def _add_empty(self) -> Slot:
        """Adds a band for texts alone."""
        (slot,) = self.add_band(height=1)
        slot.axis.set(xticks=[], yticks=[])
        slot.axis.set_axis_off()
        return slot

    # Layout ---------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Places everything and sets the height of the figure."""
        set_fonts(self.figure)
        caption = self._write_caption()
        with ignore_missing_letters():
            for i in range(PASSES):
                self._place_all(caption, is_first=i == 0, is_last=i == PASSES - 1)

    def _write_caption(self) -> Any:
        if not (self.caption and self.style.caption):
            return None
        size = self.style.caption_size
        text = wrap_text(self.caption, self.style.points - 2 * PAD, size)
        made = self.figure.supxlabel(
            text, x=PAD / self.style.points, y=0, ha="left", va="bottom", fontsize=size, color=DARK
        )
        set_font(made)
        return made

    def _place_all(self, caption: Any, *, is_first: bool, is_last: bool) -> None:
        dpi = self.figure.dpi
        renderer = take_renderer(dpi)
        shown = [[slot for slot in band if slot.is_shown] for band in self.bands]
        shown = [band for band in shown if band]
        if is_first:
            self._spread(shown)
        for slot in (slot for band in shown for slot in band):
            if is_last:
                fix_ticks(slot.axis)
            thin_ticks(slot.axis, renderer)
            slot.outer = _measure_outer(slot.axis, renderer)
        bottom = 0.0 if caption is None else caption.get_window_extent(renderer).height * 72 / dpi + 2 * PAD
        height, tops = PAD, []
        for band in shown:
            tops.append(height)
            height += max(map(self._measure_above, band))
            height += max(slot.height + self._measure_below(slot, renderer) for slot in band)
            height += max(slot.gap for slot in band)
        height = math.ceil(max(36.0, height - GAP + PAD + bottom))
        self.figure.set_size_inches(self.style.width, height / 72)
        if caption is not None:
            caption.set_y(PAD / height)
        sides = _align_sides(shown)
        for band, top in zip(shown, tops, strict=True):
            above = max(map(self._measure_above, band))
            for slot in band:
                self._place_slot(slot, top + above, height, sides[slot.column, slot.has_rows])
                if is_last:
                    thin_ticks(slot.axis, renderer)

    def _spread(self, shown: Sequence[Sequence[Slot]]) -> None:
        """Gives each axes about their final size, which their ticks depend on."""
        height = sum(max(slot.height for slot in band) for band in shown) + 1
        self.figure.set_size_inches(self.style.width, height / 72)
        for band in shown:
            for slot in band:
                share = 0.5 if slot.has_rows else 0.78
                slot.axis.set_position((0.1, 0, share * slot.width / self.style.points, slot.height / height))

    def _measure_above(self, slot: Slot) -> float:
        title = (LINE * self.style.font_size * (slot.title.count("\n") + 1) + PAD) if slot.title else 0.0
        return slot.outer[2] + title

    def _measure_below(self, slot: Slot, renderer: Any) -> float:
        legend = slot.axis.get_legend()
        size = 0.0 if legend is None else legend.get_window_extent(renderer).height * 72 / self.figure.dpi + PAD
        return slot.outer[3] + size

    def _place_slot(self, slot: Slot, top: float, height: float, sides: tuple[float, float]) -> None:
        """Places axes ``top`` points below the upper edge of the figure; ``sides`` are the margins within the cell."""
        whole, axis, start = self.style.points, slot.axis, PAD + slot.column * (slot.width + GAP)
        left, right = sides
        width = max(12.0, slot.width - left - right)
        axis.set_position(
            (
                round((start + left) / whole, 5),
                (height - top - slot.height) / height,
                width / whole,
                slot.height / height,
            )
        )
        above = 1 + (slot.outer[2] + PAD) / slot.height
        set_font(axis.set_title(slot.title, loc="left", x=-left / width, y=above, pad=0, va="bottom"))
        if axis.get_legend() is not None:
            below = (height - top - slot.height - slot.outer[3] - PAD) / height
            axis.get_legend().set_bbox_to_anchor((start / whole, below), transform=self.figure.transFigure)
        _keep_within(axis, left=left, width=width, cell=slot.width)


@lru_cache(maxsize=4)
def take_renderer(dpi: float) -> Any:
    """Returns what measures texts at a resolution, always the same: Matplotlib remembers the sizes of texts by renderer."""
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(16, 16, dpi)


def _wrap_note(note: str, width: float, size: float) -> str:
    """Returns a note in lines; what is in brackets begins a line of its own if the note does not fit on one."""
    return wrap_text(note if measure_width(note, size) <= width else note.replace(" (", "\n("), width, size, 5)


def _keep_within(axis: Any, *, left: float, width: float, cell: float) -> None:
    """Moves the label of the x axis so that it stays within its cell."""
    label = axis.xaxis.label
    size = max((measure_width(line, label.get_fontsize()) for line in label.get_text().splitlines()), default=0.0)
    middle = min(max(left + width / 2, size / 2), cell - size / 2)
    label.set_x((middle - left) / width)


def _measure_outer(axis: Any, renderer: Any) -> tuple[float, float, float, float]:
    """Returns by how many points labels and texts reach beyond axes: left, right, above, below."""
    # The label of the x axis may be wider than the axes, since it is moved into its cell.
    boxes = [axis.xaxis.get_tightbbox(renderer, for_layout_only=True), axis.yaxis.get_tightbbox(renderer)]
    boxes += [text.get_window_extent(renderer) for text in axis.texts if text.get_text()]
    inner, boxes = axis.get_window_extent(renderer), [box for box in boxes if box is not None]
    scale = 72 / axis.figure.dpi
    ends = (
        inner.x0 - min((box.x0 for box in boxes), default=inner.x0),
        max((box.x1 for box in boxes), default=inner.x1) - inner.x1,
        max((box.y1 for box in boxes), default=inner.y1) - inner.y1,
        inner.y0 - min((box.y0 for box in boxes), default=inner.y0),
    )
    left, right, above, below = (max(0.0, end) * scale for end in ends)
    return left + 1, right + 1, above + 1, below + 1


def _align_sides(shown: Sequence[Sequence[Slot]]) -> dict[tuple[int, bool], tuple[float, float]]:
    """Returns the left and right margins that the axes of a column share; axes of rows have margins of their own."""
    sides: dict[tuple[int, bool], tuple[float, float]] = {}
    for slot in (slot for band in shown for slot in band):
        key = slot.column, slot.has_rows
        left, right = sides.get(key, (0.0, 0.0))
        sides[key] = max(left, slot.outer[0]), max(right, slot.outer[1])
    return sides


@contextmanager
def open_sheet(style: FigureStyle, caption: Callable[[], str] | str = "") -> Iterator[Sheet]:
    """Gives a sheet to draw on in the common look; at the end of the context, its figure is laid out."""
    from matplotlib.figure import Figure

    with use_look(style):
        sheet = Sheet(style=style, figure=Figure(figsize=(style.width, 1)))
        yield sheet
        text = caption if isinstance(caption, str) else caption()
        sheet.caption = f"{style.notice} {text}".strip()
        sheet.lay_out()
