"""Figure 2's form: fine-tuning curves per proxy, and each cell's final metric with its interval.

Question: does it matter which proxy the embedder is aligned to, or whether it is aligned at all?
One panel per task and combination of the other factors; one line per proxy, ``none`` is naive
fine-tuning. A sweep whose proxy is no factor has a line per level of its first factor instead.
Lines are means over seeds at equal epoch, bands are Student-t intervals of that mean.

Run: python analysis/figure2_proxies.py --tables results/quickstart/tables --out results/quickstart/figures
"""

import argparse
import math
import os
import sys
import textwrap
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.errors import InputError
from orca_sweep.results import CellSummary, Results, read_results, summarise, with_roles
from orca_sweep.stats import t_interval

NAME = "figure2_proxies"
MAX_PANELS = 12
# Okabe & Ito's colours: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


@dataclass(frozen=True)
class Curve:
    """One cell's validation metric over fine-tuning epochs."""

    cell: CellSummary
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]
    """Seeds at each epoch; fewer at the end if some trials ended early."""


@dataclass(frozen=True)
class Panel:
    """The cells that differ in their proxy (or the sweep's first factor) alone."""

    title: str
    metric: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Figure2:
    """All panels, and what the numbers are of."""

    panels: tuple[Panel, ...]
    by: str
    """The factor whose levels are the lines."""
    column: str
    level: float
    n_not_ok: int


def compute(results: Results, level: float = 0.95) -> Figure2:
    """Returns the curves and final intervals of every cell, grouped into panels.

    Trials that are not ok are in no curve and no mean; the figure says how many there are.
    """
    cells = summarise(results, level=level)
    factors = [path for path in results.factors if path != "task"]
    by = "proxy" if "proxy" in factors or not factors else factors[0]
    panels: dict[str, list[Curve]] = {}
    for cell in cells:
        panels.setdefault(_panel_title(cell, by), []).append(_curve(results, cell, level))
    made = tuple(Panel(title, curves[0].cell.metric, tuple(curves)) for title, curves in panels.items())
    return Figure2(made, by, results.metric, level, sum(cell.n_not_ok for cell in cells))


def _panel_title(cell: CellSummary, by: str) -> str:
    others = [f"{path} {_text(value)}" for path, value in cell.levels.items() if path not in (by, "task")]
    return ", ".join([cell.task, *others])


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _curve(results: Results, cell: CellSummary, level: float) -> Curve:
    trials = with_roles(results.trials)
    counts = (trials["status"] == "ok") & (trials["role"] != "search")
    ok = trials.loc[(trials["cell_id"] == cell.cell_id) & counts, "trial_id"]
    epochs = results.epochs
    rows = epochs[(epochs["stage"] == "finetune") & epochs["trial_id"].isin(ok)]
    by_epoch = {int(str(e)): t_interval(g.to_numpy(float), level) for e, g in rows.groupby("epoch")["val_metric"]}
    return Curve(
        cell,
        tuple(by_epoch),
        tuple(i.mean for i in by_epoch.values()),
        tuple(i.low for i in by_epoch.values()),
        tuple(i.high for i in by_epoch.values()),
        tuple(i.n for i in by_epoch.values()),
    )


def level_name(curve: Curve, by: str) -> str:
    """Returns a line's level; the A/A arm has another name than the cell that it repeats."""
    level = _text(curve.cell.levels.get(by, "all trials"))
    return level if curve.cell.role == "replicate" else f"{level} ({curve.cell.role})"


def label(curve: Curve, by: str) -> str:
    """Returns a line's name in the legend."""
    level = level_name(curve, by)
    naive = level == "none" and by in ("proxy", "embedder.objective")
    return f"{'none (naive fine-tuning)' if naive else level}, n = {curve.cell.interval.n}"


def plot(figure: Figure2) -> Any:
    """Returns a matplotlib figure: curves above, final metric per proxy below, for each panel."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = figure.panels[:MAX_PANELS]
    columns = max(1, min(3, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    final = max([1.3, *(0.3 * len(panel.curves) for panel in panels)])
    made, axes = plt.subplots(
        2 * rows, columns, figsize=(max(6, 4.6 * columns), (3.6 + final) * rows + 0.6), squeeze=False,
        layout="constrained", height_ratios=[3, final] * rows,
    )  # fmt: skip
    for axis in axes.flat[: 2 * rows * columns]:
        axis.set_visible(False)
    colours = _colours(panels, figure.by)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        _plot_curves(axes[2 * row][column], panel, figure.by, colours)
        _plot_final(axes[2 * row + 1][column], panel, figure, colours)
    _same_limits([(panel, axes[2 * (i // columns) + 1][i % columns]) for i, panel in enumerate(panels)], "x")
    _same_limits([(panel, axes[2 * (i // columns)][i % columns]) for i, panel in enumerate(panels)], "y")
    made.suptitle(_caption(figure, len(panels)), fontsize=9)
    return made


def _same_limits(drawn: list[tuple[Panel, Any]], which: str) -> None:
    """Gives the panels of one task one range, so that they can be compared by eye."""
    for task in {panel.curves[0].cell.task for panel, _ in drawn}:
        axes = [axis for panel, axis in drawn if panel.curves[0].cell.task == task]
        limits = [getattr(axis, f"get_{which}lim")() for axis in axes]
        for axis in axes:
            getattr(axis, f"set_{which}lim")(min(low for low, _ in limits), max(high for _, high in limits))


def _colours(panels: tuple[Panel, ...], by: str) -> dict[str, str]:
    levels = dict.fromkeys(level_name(curve, by) for panel in panels for curve in panel.curves)
    return {level: COLOURS[i % len(COLOURS)] for i, level in enumerate(levels)}


def _plot_curves(axis: Any, panel: Panel, by: str, colours: Mapping[str, str]) -> None:
    axis.set_visible(True)
    for curve in panel.curves:
        colour = colours[level_name(curve, by)]
        axis.plot(curve.epochs, curve.mean, color=colour, label=label(curve, by), linewidth=1.6)
        axis.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axis.set_title(textwrap.fill(panel.title, 48), fontsize=10)
    axis.set_xlabel("fine-tuning epoch")
    axis.set_ylabel(f"validation {panel.metric}")
    axis.legend(title=by, title_fontsize=8, fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _plot_final(axis: Any, panel: Panel, figure: Figure2, colours: Mapping[str, str]) -> None:
    axis.set_visible(True)
    names = []
    for y, curve in enumerate(panel.curves):
        i = curve.cell.interval
        names.append(level_name(curve, figure.by))
        colour = colours[names[-1]]
        axis.plot([i.low, i.high], [y, y], color=colour, linewidth=2)
        axis.plot([i.mean], [y], "o", color=colour)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"{figure.column} ({panel.metric}; lower is better)")
    axis.spines[["top", "right"]].set_visible(False)


def _caption(figure: Figure2, shown: int) -> str:
    text = f"means over seeds; bands and bars: {figure.level:.0%} Student-t intervals over seeds (n in the legend)"
    if figure.n_not_ok:
        text += f"; {figure.n_not_ok} trials without a result are left out"
    if shown < len(figure.panels):
        text += f"; {len(figure.panels) - shown} more panels are in the CSV only"
    return text


def numbers(figure: Figure2) -> str:
    """Returns every number of the figure as CSV: one line per cell and epoch, then one per cell (final)."""
    lines = [f"panel,cell_id,{figure.by},what,epoch,n,mean,low,high"]
    for panel in figure.panels:
        for curve in panel.curves:
            i, cell = curve.cell.interval, curve.cell
            head = f'"{panel.title}",{cell.cell_id},{level_name(curve, figure.by)}'
            points = zip(curve.epochs, curve.n, curve.mean, curve.low, curve.high, strict=True)
            lines += [f"{head},val_metric,{','.join(map(str, point))}" for point in points]
            lines.append(f"{head},{figure.column},,{i.n},{i.mean},{i.low},{i.high}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the tables, writes the figure as PNG and SVG and its numbers as CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True, help="folder with trials.parquet and epochs.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figure")
    args = parser.parse_args()
    try:
        figure = compute(read_results(args.tables))
    except InputError as error:
        sys.exit(f"{NAME}: {error}")
    args.out.mkdir(parents=True, exist_ok=True)
    drawn = plot(figure)
    for kind in ("png", "svg"):
        temporary = args.out / f".{uuid.uuid4().hex}.{kind}"
        drawn.savefig(temporary, dpi=150)
        os.replace(temporary, args.out / f"{NAME}.{kind}")
    (args.out / f"{NAME}.csv").write_text(numbers(figure), encoding="utf-8")
    print(args.out / f"{NAME}.png")


if __name__ == "__main__":
    main()
