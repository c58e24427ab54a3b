"""The form of figure 5: the final metric over the amount of pre-training, with a separate point for none.

Question: how much pre-training does the body need, and can embedder training replace some of it?
There is one panel per task and combination of the other factors, and one line per proxy, or per combination of the varied
settings of embedder and proxy, or per level of the first other factor. The axis of fractions is logarithmic and cannot
show zero: the point without pre-training is to the left of a break, and no line crosses the break.
Points are means over seeds with Student-t intervals. Where ``body.pretrain_seed`` is a factor, a point is the mean over
pre-training seeds (run seeds averaged within each), and its interval is over these.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import PAGE, FigureStyle, Style
from orca_sweep.analysis.naive import select_embedder_factors
from orca_sweep.analysis.sheet import Slot, open_sheet
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results, summarise_cells
from orca_sweep.stats import t_interval

NAME = "figure5_pretraining"
FRACTION = "body.pretrain_fraction"
PRETRAIN_SEED = "body.pretrain_seed"
GAP = 0.75
"""Decades between the smallest fraction and no pre-training; the break is in the middle."""


@dataclass(frozen=True, kw_only=True)
class Figure5:
    """All panels, with the cells of each line in the order of their fractions, and facts about their rows."""

    panels: tuple[figures.Panel, ...]
    by: tuple[str, ...]
    """The factors whose combinations are the lines."""
    over: str
    """What n counts: seeds, or pre-training seeds."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure5:
    """Returns the cells of each line in the order of their fractions, grouped into panels.

    Raises:
        InputError: if the fraction is not a factor, or two cells have the same levels.
    """
    figures.need_factor(results, FRACTION)
    results = compared_once(results)
    cells = summarise_cells(results, level=level)
    over_bodies = len({cell.label(PRETRAIN_SEED) for cell in cells}) > 1
    along = (FRACTION, PRETRAIN_SEED)
    free = [path for path in results.factors if path not in (*along, "task")]
    by = select_embedder_factors(free) or tuple(free[:1])
    panels = figures.build_panels(cells, results, by, along)
    ordered = tuple(
        replace(panel, lines=tuple(_sort_along(line, over_bodies, level) for line in panel.lines)) for panel in panels
    )
    over = "pre-training seeds" if over_bodies else "seeds"
    return Figure5(panels=ordered, by=by, over=over, facts=figures.collect_facts(results, cells, level))


def _sort_along(line: figures.Line, over_bodies: bool, level: float) -> figures.Line:
    """Returns the line with its cells sorted by fraction, and cells that differ only in the pre-training seed merged."""
    points: dict[float, list[Cell]] = {}
    for cell in line.cells:
        points.setdefault(float(cell.levels[FRACTION]), []).append(cell)
    merge = over_bodies and line.role == "replicate"
    cells = [_merge_bodies(points[at], level) if merge else points[at] for at in sorted(points)]
    return replace(line, cells=tuple(cell for point in cells for cell in point))


def _merge_bodies(cells: Sequence[Cell], level: float) -> list[Cell]:
    """Returns one cell whose replicates are the means of these: run seeds that share a body are not independent."""
    return [
        replace(
            cells[0],
            cell_id=" ".join(cell.cell_id for cell in cells),
            interval=t_interval([cell.interval.mean for cell in cells if cell.interval.n], level, cells[0].bounds),
            trials=tuple(trial for cell in cells for trial in cell.trials),
        )
    ]


# Picture ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FractionAxis:
    """A logarithmic axis of fractions, with zero to the left of a break."""

    fractions: tuple[float, ...]

    @property
    def zero(self) -> float:
        """The position of no pre-training."""
        return min((math.log10(f) for f in self.fractions if f), default=GAP) - GAP

    def position_of(self, fraction: float) -> float:
        """Returns the position of a fraction."""
        return math.log10(fraction) if fraction else self.zero


def plot(figure: Figure5, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: one panel per task and other factors."""
    panels = figure.panels[: figures.MAX_PANELS]
    looks = figures.choose_styles(panels)
    with open_sheet(style, write_caption(figure)) as sheet:
        slots = sheet.add_grid(len(panels), style.count_columns(max(1, len(panels))))
        if not panels:
            slots[0].write_words(figures.NO_TRIAL)
        for i, (slot, _) in enumerate(zip(slots, panels, strict=False)):
            _plot_panel(slot, figure, i, looks)
        figures.equalise_limits([(p.task, slot.axis) for p, slot in zip(panels, slots, strict=False)], "y")
    return sheet.figure


def _plot_panel(slot: Slot, figure: Figure5, i: int, looks: Mapping[str, Style]) -> None:
    panel, axis = figure.panels[i], slot.axis
    if not figures.start_panel(slot, panel):
        return
    fractions = sorted({float(cell.levels[FRACTION]) for line in panel.lines for cell in line.cells})
    scale = FractionAxis(fractions=tuple(fractions))
    for line, shift in zip(panel.lines, figures.spread_lines(len(panel.lines)), strict=True):
        _plot_line(axis, line, scale, looks[line.name], shift=shift)
    axis.set_xticks([scale.position_of(f) for f in fractions], [*map(_label_tick, fractions)])
    axis.set_xlim(scale.position_of(fractions[0]) - 0.3, scale.position_of(fractions[-1]) + 0.3)
    slot.label_x(FRACTION + " (log axis)" * (fractions[-1] > 0))
    slot.label_y(figures.label_measure(figure.facts.column, panel))
    if fractions[0] == 0 < fractions[-1]:
        _draw_break(axis, scale.zero + GAP / 2)
    names = [(f"{line.label}, {line.n_text}", looks[line.name]) for line in panel.lines]
    slot.add_legend(figures.make_handles(names), ", ".join(figure.by))


def _plot_line(axis: Any, line: figures.Line, scale: FractionAxis, look: Style, *, shift: float) -> None:
    for cell in line.cells:
        at = scale.position_of(float(cell.levels[FRACTION]))
        figures.draw_interval(axis, at, cell.interval, look, shift=shift)
    seen = [cell for cell in line.cells if cell.interval.n and float(cell.levels[FRACTION]) > 0]
    xs = [scale.position_of(float(cell.levels[FRACTION])) for cell in seen]
    figures.draw_trend(axis, xs, [cell.interval.mean for cell in seen], look, shift=shift)


def _draw_break(axis: Any, at: float) -> None:
    """Draws a gap in the axis between two strokes, where the decades end."""
    from matplotlib.transforms import ScaledTranslation

    gap = {"marker": "_", "markersize": 6, "markeredgewidth": 3, "color": "white"}
    stroke = {"marker": [(-0.5, -1), (0.5, 1)], "markersize": 9, "markeredgewidth": 0.8, "color": "black"}
    for shift, drawn in ((0, gap), (-3, stroke), (3, stroke)):
        moved = axis.get_xaxis_transform() + ScaledTranslation(shift / 72, 0, axis.figure.dpi_scale_trans)
        axis.plot([at], [0], linestyle="none", transform=moved, clip_on=False, zorder=9, **drawn)


def _label_tick(fraction: float) -> str:
    return write_level(fraction) if fraction else "0\n(random)"


def write_caption(figure: Figure5) -> str:
    """Returns what the figure shows, over how many trials, and what is missing."""
    what = (
        f"Means over n {figure.over}; bars: their {figure.facts.level:.0%} Student-t intervals (none where n = 1). 0: a"
    )
    what += " body without pre-training, which starts at random."
    if figure.over == "seeds":
        noise = (
            "The intervals do not include the noise of pre-training: the trials of a point share one body"
            f" ({PRETRAIN_SEED}), so another pre-training run may lie outside them."
        )
    else:
        noise = (
            "Run seeds are averaged within each pre-training seed, so the intervals include the noise of pre-training."
        )
    return figures.write_notes(figure.facts, len(figure.panels), [what, noise])


def numbers(figure: Figure5) -> str:
    """Returns every number of the figure as CSV, one line per point."""
    head = (
        "panel",
        "cell_id",
        ", ".join(figure.by) or "line",
        FRACTION,
        "what",
        "n",
        "mean",
        "low",
        "high",
        "n_not_ok",
    )
    return format_csv_rows(
        head,
        (
            (
                *(panel.title, cell.cell_id, line.name, cell.label(FRACTION), figure.facts.column),
                *(*figures.interval_fields(cell.interval), cell.n_not_ok),
            )
            for panel in figure.panels
            for line in panel.lines
            for cell in line.cells
        ),
    )


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure, style), caption=write_caption(figure))
