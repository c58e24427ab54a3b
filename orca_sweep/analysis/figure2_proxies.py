"""Figure 2's form: fine-tuning curves per proxy, and each cell's final metric with its interval.

Question: does it matter which proxy the embedder is aligned to, or whether it is aligned at all?
One panel per task and combination of the other factors; one line per proxy, ``none`` is naive
fine-tuning. Of a sweep that varies more of the embedder's training, a line per combination, up to eight; of one
whose proxy is no factor, a line per level of its first factor.
Lines are means over seeds at equal epoch, bands are Student-t intervals of that mean.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.results import CellSummary, Results, summarise, with_roles
from orca_sweep.stats import Interval, t_interval

NAME = "figure2_proxies"


@dataclass(frozen=True)
class Curve:
    """One cell's validation metric over fine-tuning epochs."""

    line: figures.Line
    epochs: tuple[int, ...]
    intervals: tuple[Interval, ...]
    """Over seeds at each epoch; fewer at the end if some trials ended early."""

    @property
    def cell(self) -> CellSummary:
        """The cell that the curve is of."""
        return self.line.cells[0]


@dataclass(frozen=True)
class Figure2:
    """All panels with the curves of each, and what the numbers are of."""

    panels: tuple[figures.Panel, ...]
    curves: tuple[tuple[Curve, ...], ...]
    by: tuple[str, ...]
    """The factors whose combinations are the lines."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure2:
    """Returns the curves and final intervals of every cell, grouped into panels.

    Trials that are not ok are in no curve and no mean; the figure says how many there are.

    Raises:
        InputError: if two cells have the same levels.
    """
    results = compared(results)
    cells = summarise(results, level=level)
    by = _choose_lines(results.factors, cells)
    panels = figures.panels_of(figures.with_naive(cells, results.factors, by), results.factors, by)
    values = _collect_values(results)
    curves = tuple(tuple(_make_curve(values, line, level) for line in panel.lines) for panel in panels)
    return Figure2(panels, curves, by, figures.collect_facts(results, cells, level))


def _choose_lines(factors: Sequence[str], cells: Sequence[CellSummary]) -> tuple[str, ...]:
    """The embedder's factors, while their combinations can be told apart; else one of them; else the first factor."""
    embedding = figures.embedding_factors(factors)
    lines = {tuple(map(cell.label, embedding)) for cell in cells}
    if len(lines) > len(figures.COLOURS):
        return ("proxy",) if "proxy" in embedding else embedding[:1]
    return embedding or tuple(path for path in factors if path != "task")[:1]


def _collect_values(results: Results) -> Mapping[str, Mapping[int, list[float]]]:
    """Validation metrics by cell and epoch, of the trials that count."""
    trials = with_roles(results.trials)
    counts = trials[(trials["status"] == "ok") & (trials["role"] != "search")]
    rows = results.epochs[results.epochs["stage"] == "finetune"].merge(counts[["trial_id", "cell_id"]], on="trial_id")
    found: dict[str, dict[int, list[float]]] = {}
    for cell_id, epoch, value in zip(rows["cell_id"], rows["epoch"], rows["val_metric"], strict=True):
        found.setdefault(str(cell_id), {}).setdefault(int(epoch), []).append(float(value))
    return found


def _make_curve(values: Mapping[str, Mapping[int, list[float]]], line: figures.Line, level: float) -> Curve:
    by_epoch = values.get(line.cells[0].cell_id, {})
    epochs = tuple(sorted(by_epoch))
    return Curve(line, epochs, tuple(t_interval(by_epoch[epoch], level) for epoch in epochs))


def plot(figure: Figure2) -> Any:
    """Returns a matplotlib figure: curves above, final metric per line below, for each panel."""
    n = min(len(figure.panels), figures.MAX_PANELS)
    rows, columns = figures.arrange_panels(n)
    final = max([0.8, *(0.22 * len(curves) for curves in figure.curves[:n])])
    with figures.use_look():
        made, axes = figures.make_canvas(
            max(6, 4.2 * columns), (3.4 + final) * rows + 0.8, 2 * rows, columns, height_ratios=[2.6, final] * rows
        )
        styles = figures.choose_styles(figure.panels[:n])
        above, below = [], []
        for i in range(n):
            row, column = divmod(i, columns)
            above.append((figure.panels[i].task, axes[2 * row][column]))
            below.append((figure.panels[i].task, axes[2 * row + 1][column]))
            _plot_curves(above[-1][1], figure, i, styles)
            _plot_final(below[-1][1], figure, i, styles)
        figures.same_limits(above, "y")
        figures.same_limits(below, "x")
        if not n:
            figures.write_words(axes[0][0], "there is no trial yet")
        figures.write_below(made, _write_notes(figure))
    return made


def _plot_curves(axis: Any, figure: Figure2, i: int, styles: Mapping[str, figures.Style]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel = figure.panels[i]
    axis.set_visible(True)
    axis.set_title(textwrap.fill(panel.title, 48, max_lines=4, placeholder=" …"))
    nothing = figures.nothing_yet(panel.lines)
    if nothing:
        figures.write_words(axis, nothing)
        return
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    n = len(figure.curves[i])
    for place, curve in enumerate(figure.curves[i]):
        style, step = styles[curve.line.name], max(1, len(curve.epochs) // 6)
        markers = {"marker": style.marker, "markerfacecolor": style.face, "markevery": (place * step // n, step)}
        axis.plot(curve.epochs, [i.mean for i in curve.intervals], color=style.colour, linewidth=1.4, **markers)
        ends = [i.low for i in curve.intervals], [i.high for i in curve.intervals]
        axis.fill_between(curve.epochs, *ends, color=style.colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("fine-tuning epoch")
    axis.set_ylabel(figures.label_measure("val_metric_last", panel))


def _plot_final(axis: Any, figure: Figure2, i: int, styles: Mapping[str, figures.Style]) -> None:
    """Final metrics; their names are the legend of the curves above."""
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
        f"Above: means over seeds at equal epoch, bands: their {figure.facts.level:.0%} Student-t intervals over seeds."
        f" Below: mean over n seeds with its {figure.facts.level:.0%} Student-t interval.",
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
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure))
