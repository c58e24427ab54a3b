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
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.naive import select_embedder_factors, spread_naive_cells
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
    results = compared(results)
    cells = summarise_cells(results, level=level)
    by = _choose_lines(results.factors, cells)
    spread = spread_naive_cells(cells, results.factors, by)
    panels = figures.build_panels(spread, results.factors, by)
    values = _collect_values(results)
    curves = tuple(tuple(_make_curve(values, line, level) for line in panel.lines) for panel in panels)
    return Figure2(panels=panels, curves=curves, by=by, facts=figures.collect_facts(results, cells, level))


def _choose_lines(factors: Sequence[str], cells: Sequence[Cell]) -> tuple[str, ...]:
    """The factors of the embedder while there is a colour per combination; else one of them, or else the first factor."""
    embedding = select_embedder_factors(factors)
    lines = {tuple(map(cell.label, embedding)) for cell in cells}
    if len(lines) > len(figures.COLOURS):
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


def plot(figure: Figure2) -> Any:
    """Returns a matplotlib figure: curves above, final metric per line below, for each panel."""
    panels = figure.panels[: figures.MAX_PANELS]
    rows, columns = figures.arrange_panels(len(panels))
    final = max([0.8, *(0.22 * len(curves) for curves in figure.curves[: len(panels)])])
    layout = figures.Layout(
        width=max(6, 4.2 * columns),
        height=(3.4 + final) * rows + 0.8,
        rows=2 * rows,
        columns=columns,
        height_ratios=[2.6, final] * rows,
    )

    def draw(axes: Any, styles: Mapping[str, figures.Style]) -> None:
        figures.draw_grid(axes[::2], panels, lambda axis, i: _plot_curves(axis, figure, i, styles), "y")
        figures.draw_grid(axes[1::2], panels, lambda axis, i: _plot_final(axis, figure, i, styles), "x")

    return figures.draw_figure(layout, panels, draw, _write_notes(figure))


def _plot_curves(axis: Any, figure: Figure2, i: int, styles: Mapping[str, figures.Style]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel = figure.panels[i]
    if not figures.start_panel(axis, panel, 48):
        return
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    n = len(figure.curves[i])
    for position, curve in enumerate(figure.curves[i]):
        style, step = styles[curve.line.name], max(1, len(curve.epochs) // 6)
        markers = {"marker": style.marker, "markerfacecolor": style.face, "markevery": (position * step // n, step)}
        axis.plot(curve.epochs, [i.mean for i in curve.intervals], color=style.colour, linewidth=1.4, **markers)
        ends = [i.low for i in curve.intervals], [i.high for i in curve.intervals]
        axis.fill_between(curve.epochs, *ends, color=style.colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("fine-tuning epoch")
    axis.set_ylabel(figures.label_measure("val_metric_last", panel))


def _plot_final(axis: Any, figure: Figure2, i: int, styles: Mapping[str, figures.Style]) -> None:
    """Draws the final metrics; their names are also the legend of the curves above."""
    axis.set_visible(True)
    names = []
    for y, curve in enumerate(figure.curves[i]):
        names.append(f"{curve.line.label}, {curve.line.n_text}")
        figures.draw_interval(axis, y, curve.cell.interval, styles[curve.line.name], across=True)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(figures.label_measure(figure.facts.column, figure.panels[i]))
    axis.set_title(", ".join(figure.by), loc="left", fontsize=8)


def _write_notes(figure: Figure2) -> str:
    return figures.write_notes(
        figure.facts,
        len(figure.panels),
        [
            f"Above: means over seeds at the same epoch; bands: their {figure.facts.level:.0%} Student-t intervals over seeds.",
            f"Below: means over n seeds with their {figure.facts.level:.0%} Student-t intervals.",
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


def make_output(results: Results, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure))
