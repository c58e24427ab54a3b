"""The picture of the answer: tasks by claims, in each square a word and an interval in margins of the task.

Shapes say the words, so that the picture can be read in grey; where a square has room, the word itself, the gain and n are
written too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.answer_record import Answer, Column, Row, Square, describe_lack
from orca_sweep.analysis.figure_style import DARK, GREY, LIGHT, PAGE, SHADE, FigureStyle
from orca_sweep.analysis.fonts import fit_labels, measure_width, wrap_text
from orca_sweep.analysis.sheet import LINE, Slot, open_sheet
from orca_sweep.analysis.tables import name_tasks
from orca_sweep.analysis.writing import format_percent

REACH = 4.0
"""Margins from the middle of a square to its side; what lies farther out ends in an arrow."""
LABELS = 0.24
"""The largest share of the width for the names of the tasks."""
MARKS: dict[str, tuple[str, str]] = {
    "supports": ("o", "black"),
    "contradicts": ("X", "black"),
    "undecided": ("D", "white"),
    "not judged": ("s", "white"),
    "supported": ("o", "black"),
    "contradicted": ("X", "black"),
    "mixed": ("^", "#b0b0b0"),
    "not counted": (".", "#b0b0b0"),
    "helps": ("P", "black"),
    "does not help": ("P", "white"),
}
"""Marker and its fill: what a task says and what all tasks say together share a shape, and nothing else does. A claim's own
words have other shapes, since none of them is a yes or a no to the claim."""
SHRINK = (1, 0.9, 0.8, 0.75)
"""Sizes of the text in the squares, as shares of that of the sheet: 6 points are the least that journals take."""
MAX_TASKS = 40
MOST_LACKS = 10


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where the squares are, in points: columns from the left, lines from the top."""

    axis: Any
    size: float
    """Of the text."""
    column: float
    """Width of a column."""
    has_words: bool
    """Whether a square has room for words."""
    label_lines: int
    """The most lines that the name of a task takes."""

    @property
    def line(self) -> float:
        return LINE * self.size

    @property
    def n_lines(self) -> int:
        """Lines of a square: the word, the interval, the gain, n; or the interval alone."""
        return 4 if self.has_words else self.label_lines

    @property
    def mark(self) -> float:
        """Size of a mark: without words around it, it must leave the interval in sight."""
        return (0.6 if self.has_words else 0.5) * self.size

    @property
    def row(self) -> float:
        """Height of a row."""
        return self.n_lines * self.line + 0.5 * self.line


def plot(answer: Answer, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: a row per task below a row over all tasks, a column per claim."""
    with open_sheet(style, write_caption(answer)) as sheet:
        if answer.has_effects:
            _draw_grid(sheet.add_band()[0], answer)
            sheet.add_legend(_make_handles(answer))
        else:
            sheet.add_heading("No claim can be judged from these rows. What they lack:")
            for lack in answer.lacks[:MOST_LACKS]:
                sheet.add_heading(f"{describe_lack(lack, answer)}: {lack.text}.")
    return sheet.figure


def write_caption(answer: Answer) -> str:
    """Returns what the picture shows, what its intervals are over, and that a null is no nothing."""
    level = format_percent(answer.level)
    if not answer.has_effects:
        return f"What these rows lack for a word on any claim, by {answer.measured}. {answer.completeness}"
    return (
        f"What every task says of every claim, by {answer.measured}. Bars: {level} intervals of the contrast that decides, over"
        f" {_describe_n(answer)}; to the right of the line is better (of rank correlations: a lower OTDD goes with a better"
        f" result). Band: within the margin of the task; a square is {2 * REACH:g} margins wide, and arrows point at what lies"
        " farther out. Bars shorter than a mark are behind it. A null means smaller than the margin, not none."
        f"{_describe_margins(answer)} {answer.completeness}"
        f"{_count_hidden(answer)}"
    )


def _name_rows(answer: Answer) -> list[tuple[str, Row]]:
    """Returns the rows that are drawn, with what the picture calls their tasks."""
    names = name_tasks(row.task for row in answer.rows)
    return [(names[row.task], row) for row in answer.rows[:MAX_TASKS]]


def _describe_margins(answer: Answer) -> str:
    """Returns a sentence on the margins: one number if it is that of every task."""
    rows = _name_rows(answer)
    if len({row.margin for _, row in rows}) == 1:
        return f" Margin of every task: {rows[0][1].margin}."
    return f" Margins: {', '.join(f'{name} {row.margin}' for name, row in rows)}."


def _describe_n(answer: Answer) -> str:
    """Returns 'n = 5 pairs of equal seed, rank correlations over n = 5 seeds'."""
    effects = [square.effect for square in answer.squares if square.effect and square.effect.is_known]
    pairs = sorted({effect.n for effect in effects if not effect.is_correlation})
    seeds = sorted({effect.n_seeds for effect in effects if effect.is_correlation})
    of_pairs = f"n = {_format_range(pairs)} pairs of equal seed"
    return f"{of_pairs}, of rank correlations n = {_format_range(seeds)} seeds" if seeds else of_pairs


def _format_range(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _count_hidden(answer: Answer) -> str:
    n = len(answer.rows) - MAX_TASKS
    return f" {n} more tasks are only in the table." if n > 0 else ""


def _draw_grid(slot: Slot, answer: Answer) -> None:
    rows, size = _name_rows(answer), _choose_size(slot, len(answer.columns))
    labels = fit_labels([name for name, _ in rows], LABELS * slot.width, size, 2)
    margins = fit_labels([f"margin {row.margin}" for _, row in rows], LABELS * slot.width, size, 1)
    widest = max(measure_width(line, size) for label in (*labels, *margins, "all tasks") for line in label.splitlines())
    column = (slot.width - widest - 8) / len(answer.columns)
    has_words = column >= measure_width("contradicts", size) + 3
    title = "" if has_words else "; ".join(map(_name_column, answer.columns))
    if has_words:
        labels = [f"{label}\n{margin}" for label, margin in zip(labels, margins, strict=True)]
    grid = _Grid(
        axis=slot.show(title, most=12),
        size=size,
        column=column,
        has_words=has_words,
        label_lines=max(label.count("\n") + 1 for label in labels),
    )
    top = _write_heads(grid, answer.columns)
    middles = [top + (i + 0.5) * grid.row for i in range(len(rows) + 1)]
    _draw_verdicts(grid, answer.columns, middles[0])
    for i, ((_, row), y) in enumerate(zip(rows, middles[1:], strict=True)):
        if i % 2 == 0:
            grid.axis.axhspan(y - grid.row / 2, y + grid.row / 2, color=LIGHT, zorder=0, linewidth=0)
        for k, square in enumerate(row.squares):
            _draw_square(grid, square, k, y)
    _finish_axes(slot, grid, labels=["all tasks", *labels], middles=middles)
    slot.height = middles[-1] + grid.row / 2
    grid.axis.set_ylim(slot.height, 0)


def _choose_size(slot: Slot, n_columns: int) -> float:
    """Returns the size of the text in the squares: a smaller one if it makes room for words; that of the sheet if none does."""
    usual = slot.style.font_size
    room = (1 - LABELS) * slot.width / n_columns
    sizes = [share * usual for share in SHRINK if measure_width("contradicts", share * usual) + 3 <= room]
    return sizes[0] if sizes else usual


def _finish_axes(slot: Slot, grid: _Grid, *, labels: Sequence[str], middles: Sequence[float]) -> None:
    axis, slot.has_rows = grid.axis, True
    n_columns = round(axis.get_xlim()[1])
    axis.set_yticks(middles, labels, fontsize=grid.size)
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    for k in range(n_columns + 1):
        axis.axvline(k, color=SHADE, linewidth=0.4)


def _name_column(column: Column) -> str:
    return f"{column.claim} {column.short}{' (ours)' * column.is_ours}"


def _write_heads(grid: _Grid, columns: Sequence[Column]) -> float:
    """Writes the name of each claim above its column, and returns where the rows begin."""
    names = [_name_column(column) if grid.has_words else column.claim for column in columns]
    texts = [wrap_text(name, grid.column - 3, grid.size, 6) for name in names]
    bottom = grid.line * max(text.count("\n") + 1 for text in texts) + 0.2 * grid.line
    for k, text in enumerate(texts):
        grid.axis.text(k + 0.5, bottom, text, ha="center", va="bottom", fontsize=grid.size)
    grid.axis.set_xlim(0, len(columns))
    return bottom


def _draw_verdicts(grid: _Grid, columns: Sequence[Column], y: float) -> None:
    """Draws the row over all tasks, between two lines."""
    for k, column in enumerate(columns):
        most = column.tally.partition(", ")[0] if column.n_tasks else column.concerns
        lines = [column.verdict, "", *wrap_text(most, grid.column - 2, grid.size, 2).splitlines()]
        _write_lines(grid, lines, k, y)
        _draw_mark(grid, column.verdict, k + 0.5, _middle_of_bar(grid, y))
    for edge in (y - grid.row / 2, y + grid.row / 2):
        grid.axis.axhline(edge, color=DARK, linewidth=0.8)


def _draw_square(grid: _Grid, square: Square, k: int, y: float) -> None:
    effect = square.effect
    if square.word == "not concerned":
        text = square.concerns if grid.has_words else square.concerns.removesuffix(" only")
        grid.axis.text(k + 0.5, y, text, ha="center", va="center", color=GREY, fontsize=grid.size)
        return
    has_number = effect is not None and effect.is_known
    gain, n = "", ""
    if effect and has_number:
        gain, n = f"{'rho ' * effect.is_correlation}{effect.text}", f"n = {effect.n_seeds}"
    name = name_mark(square)
    _write_lines(grid, [name, "", gain, n], k, y)
    ends = [effect.scale_to_margin(value) for value in (effect.low, effect.gain, effect.high)] if effect else []
    if ends and all(map(math.isfinite, ends)):
        _draw_interval(grid, name, ends, (k + 0.5, _middle_of_bar(grid, y)))
    else:
        _draw_mark(grid, name, k + 0.5, _middle_of_bar(grid, y))


def name_mark(square: Square) -> str:
    """Returns the word of a square that has a mark: the claim's own, unless the task does not count."""
    return square.word if square.word in ("not counted", "not concerned") else square.label


def _middle_of_bar(grid: _Grid, y: float) -> float:
    return y - 0.5 * grid.line if grid.has_words else y


def _write_lines(grid: _Grid, lines: Sequence[str], k: int, y: float) -> None:
    """Writes the lines of a square, if it has room for words; the second is that of the bar."""
    for i, text in enumerate(lines):
        fits = measure_width(text, grid.size) <= grid.column - 1
        if text and fits and grid.has_words:
            grid.axis.text(k + 0.5, y + (i - 1.5) * grid.line, text, ha="center", va="center", fontsize=grid.size)


def _draw_mark(grid: _Grid, word: str, x: float, y: float) -> None:
    marker, face = MARKS[word]
    grid.axis.plot(
        [x], [y], marker, markerfacecolor=face, markeredgecolor="black", markersize=grid.mark
    )  # fmt: skip


def _draw_interval(grid: _Grid, word: str, ends: Sequence[float], middle: tuple[float, float]) -> None:
    """Draws the band of the margin, the interval, and the gain; what lies outside the square ends in an arrow."""
    x, y = middle
    scale, half = 0.46 / REACH, 0.42 * grid.line
    grid.axis.fill_between([x - scale, x + scale], y - half, y + half, color=SHADE, alpha=0.35, linewidth=0)
    grid.axis.plot([x, x], [y - half, y + half], color=GREY, linewidth=0.6)
    low, high = (max(-REACH, min(REACH, end)) for end in (ends[0], ends[2]))
    grid.axis.plot([x + low * scale, x + high * scale], [y, y], color="black", linewidth=1.2, solid_capstyle="butt")
    for is_out, side, arrow in ((ends[0] < -REACH, -REACH, "<"), (ends[2] > REACH, REACH, ">")):
        if is_out:
            grid.axis.plot([x + side * scale], [y], arrow, color="black", markersize=0.7 * grid.mark)
    # A mark beside its arrow still says the word.
    inner = REACH - (1 if grid.has_words else 1.6)
    _draw_mark(grid, word, x + max(-inner, min(inner, ends[1])) * scale, y)


def _make_handles(answer: Answer) -> list[Any]:
    """Returns what the legend shows: the mark of each word that the picture has."""
    from matplotlib.lines import Line2D

    words = {name_mark(square) for square in answer.squares} | {column.verdict for column in answer.columns}
    labels: dict[tuple[str, str], list[str]] = {}
    for word in (word for word in MARKS if word in words):
        labels.setdefault(MARKS[word], []).append(word)
    return [
        Line2D(
            [], [], linestyle="none", marker=marker, markerfacecolor=face, markeredgecolor="black", label=", ".join(of)
        )
        for (marker, face), of in labels.items()
    ]
