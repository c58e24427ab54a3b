"""The form of figure 2: fine-tuning curves per proxy, and the final metric of each cell with its interval.

Question: does it matter which proxy the embedder is aligned to, or whether it is aligned at all?
There is one panel per task and combination of the other factors, and one line per proxy; ``none`` is naive fine-tuning.
A sweep that varies more of the embedder's training gets a line per combination, up to eight. A sweep that does not vary
the proxy gets a line per level of its first factor.
Lines are means over seeds at the same epoch, bands are Student-t intervals of that mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import COLOURS, PAGE, FigureStyle, Style
from orca_sweep.analysis.naive import select_embedder_factors, spread_naive_cells
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.results import Cell, Results, summarise_cells
from orca_sweep.stats import Interval, t_interval

NAME = "figure2_proxies"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The validation metric of one cell over fine-tuning epochs."""

    line: figures.Line
    epochs: tuple[int, ...]
    intervals: tuple[Interval, ...]
    """Over seeds at each epoch; over fewer at the end if some trials ended early."""

    @property
    def cell(self) -> Cell:
        """The cell of the curve."""
        return self.line.cells[0]


@dataclass(frozen=True, kw_only=True)
class Figure2:
    """All panels with their curves, and facts about their rows."""

    panels: tuple[figures.Panel, ...]
    curves: tuple[tuple[Curve, ...], ...]
    by: tuple[str, ...]
    """The factors whose combinations are the lines."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure2:
    """Returns the curves and final intervals of every cell, grouped into panels.

    No curve and no mean includes a trial that is not ok; the figure says how many there are.

    Raises:
        InputError: if two cells have the same levels.
    """
    results = compared_once(results)
    cells = summarise_cells(results, level=level)
    by = _choose_lines(results.factors, cells)
    spread = spread_naive_cells(cells, results.factors, by)
    panels = figures.build_panels(spread, results, by)
    values = _collect_values(results)
    curves = tuple(tuple(_make_curve(values, line, level) for line in panel.lines) for panel in panels)
    return Figure2(panels=panels, curves=curves, by=by, facts=figures.collect_facts(results, cells, level))


def _choose_lines(factors: Sequence[str], cells: Sequence[Cell]) -> tuple[str, ...]:
    """The factors of the embedder while there is a colour per combination; else one of them, or else the first factor."""
    embedding = select_embedder_factors(factors)
    lines = {tuple(map(cell.label, embedding)) for cell in cells}
    if len(lines) > len(COLOURS):
        return ("proxy",) if "proxy" in embedding else embedding[:1]
    return embedding or tuple(path for path in factors if path != "task")[:1]


def _collect_values(results: Results) -> Mapping[str, Mapping[int, list[float]]]:
    """Validation metrics by cell and epoch, of trials that are ok and not tuning candidates."""
    trials = results.trials
    counts = trials[(trials["status"] == "ok") & (trials["role"] != "search")]
    rows = results.epochs[results.epochs["stage"] == "finetune"].merge(counts[["trial_id", "cell_id"]], on="trial_id")
    by_cell: dict[str, dict[int, list[float]]] = {}
    for cell_id, epoch, value in zip(rows["cell_id"], rows["epoch"], rows["val_metric"], strict=True):
        by_cell.setdefault(str(cell_id), {}).setdefault(int(epoch), []).append(float(value))
    return by_cell


def _make_curve(values: Mapping[str, Mapping[int, list[float]]], line: figures.Line, level: float) -> Curve:
    by_epoch = values.get(line.cells[0].cell_id, {})
    epochs = tuple(sorted(by_epoch))
    bounds = line.cells[0].bounds
    intervals = tuple(t_interval(by_epoch[epoch], level, bounds) for epoch in epochs)
    return Curve(line=line, epochs=epochs, intervals=intervals)


def plot(figure: Figure2, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: curves above, final metric per line below, for each panel."""
    panels = figure.panels[: figures.MAX_PANELS]
    looks = figures.choose_styles(panels)
    columns = style.count_columns(max(1, len(panels)))
    with open_sheet(style, write_caption(figure)) as sheet:
        if not panels:
            sheet.add_band()[0].write_words(figures.NO_TRIAL)
        drawn = []
        for start in range(0, len(panels), columns):
            row = range(start, min(start + columns, len(panels)))
            curves, finals = (sheet.add_band(len(row), columns) for _ in range(2))
            for i, upper, lower in zip(row, curves, finals, strict=True):
                _plot_curves(upper, figure, i, looks)
                _plot_final(lower, figure, i, looks)
            drawn += list(zip(row, curves, finals, strict=True))
        figures.equalise_limits([(panels[i].task, upper.axis) for i, upper, _ in drawn], "y")
        figures.equalise_limits([(panels[i].task, lower.axis) for i, _, lower in drawn], "x")
    return sheet.figure


def _plot_curves(slot: Slot, figure: Figure2, i: int, looks: Mapping[str, Style]) -> None:
    panel = figure.panels[i]
    if not figures.start_panel(slot, panel):
        return
    axis, n = slot.axis, len(figure.curves[i])
    shifts = figures.spread_lines(n)
    axis.xaxis.get_major_locator().set_params(integer=True)
    for position, curve in enumerate(figure.curves[i]):
        look, step = looks[curve.line.name], max(1, len(curve.epochs) // 6)
        markers = {"marker": look.marker, "markerfacecolor": look.face, "markevery": (position * step // n, step)}
        if len(curve.epochs) == 1:
            figures.draw_interval(axis, curve.epochs[0], curve.intervals[0], look, shift=shifts[position])
            continue
        means = [i.mean for i in curve.intervals]
        axis.plot(curve.epochs, means, color=look.colour, linestyle=look.line, **markers)
        ends = [i.low for i in curve.intervals], [i.high for i in curve.intervals]
        axis.fill_between(curve.epochs, *ends, color=look.colour, alpha=0.15, linewidth=0)
    epochs = {epoch for curve in figure.curves[i] for epoch in curve.epochs}
    if len(epochs) == 1:
        axis.set_xticks([*epochs])
        axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    slot.label_x("fine-tuning epoch")
    slot.label_y(figures.label_measure("val_metric_last", panel))


def _plot_final(slot: Slot, figure: Figure2, i: int, looks: Mapping[str, Style]) -> None:
    """Draws the final metrics; their names are also the legend of the curves above."""
    axis, curves = slot.show(", ".join(figure.by)), figure.curves[i]
    rows = [RowGroup(label=curve.line.label, notes=(curve.line.n_text,)) for curve in curves]
    for y, curve in zip(slot.place_rows(rows), curves, strict=True):
        figures.draw_interval(axis, y, curve.cell.interval, looks[curve.line.name], across=True)
    slot.label_x(figures.label_measure(figure.facts.column, figure.panels[i]))


def write_caption(figure: Figure2) -> str:
    """Returns what the figure shows, over how many trials, and what is missing."""
    return figures.write_notes(
        figure.facts,
        len(figure.panels),
        [
            f"Above: means over seeds at the same epoch; bands: their {figure.facts.level:.0%} Student-t intervals over seeds.",
            f"Below: means over n seeds with their {figure.facts.level:.0%} Student-t intervals (none where n = 1).",
        ],
    )


def numbers(figure: Figure2) -> str:
    """Returns every number of the figure as CSV: one line per cell and epoch, then one per cell (final)."""
    rows: list[tuple[object, ...]] = []
    for panel, curves in zip(figure.panels, figure.curves, strict=True):
        for curve in curves:
            head = panel.title, curve.cell.cell_id, curve.line.name
            points = zip(curve.epochs, curve.intervals, strict=True)
            rows += [(*head, "val_metric", epoch, *figures.interval_fields(interval)) for epoch, interval in points]
            rows.append((*head, figure.facts.column, None, *figures.interval_fields(curve.cell.interval)))
    by = ", ".join(figure.by) or "line"
    return format_csv_rows(("panel", "cell_id", by, "what", "epoch", "n", "mean", "low", "high"), rows)


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure, style), caption=write_caption(figure))
