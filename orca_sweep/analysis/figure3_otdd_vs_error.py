"""The form of figure 3: alignment objective and test error over the amount of embedder training, and against each other.

Question: does more embedder training, and so a lower OTDD, mean a lower error (or a higher score)?
There is one row of pictures per task and combination of the other factors, and one line per proxy, or per combination of
the varied settings of embedder and proxy. Left: the objective over embedder epochs, as a mean over seeds at the same epoch
with a Student-t interval; thin lines are single seeds. Runs of different lengths share their first epochs bit for bit, so
each seed counts once. Middle: the metric at each number of embedder epochs, as a mean over seeds with its interval. Right:
the last objective and the metric of each trial, with Spearman's rank correlation and its interval over seeds as clusters.
A trial without embedder training has no objective: no correlation includes it, and it has a strip of the picture to itself.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.naive import select_embedder_factors, spread_naive_cells
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results, summarise_cells
from orca_sweep.stats import Interval, RankCorrelation, rank_correlation, t_interval

if TYPE_CHECKING:
    import pandas as pd

NAME = "figure3_otdd_vs_error"
EPOCHS = "embedder.epochs"
OBJECTIVE = "embedder.objective"
NO_TRAINED = "no trial with embedder training is ok yet"
NAIVE_STYLE = figures.Style(colour="#000000", marker="*", face="#000000")
WIDE = 20
"""An objective has a logarithmic axis if its largest value is more than this many times its smallest."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial with embedder training, as a point of the scatter."""

    seed: int
    epochs: int
    objective: float
    metric: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: its cells by number of embedder epochs, the curve of its objective, and its trials."""

    line: figures.Line
    objective: str
    """The name of the objective; empty if no trial has one."""
    seeds: Mapping[int, Mapping[int, float]]
    """The objective by seed and embedder epoch."""
    curve: Mapping[int, Interval]
    """The objective by embedder epoch, over seeds."""
    trials: tuple[Trial, ...]
    correlation: RankCorrelation | None
    """Between objective and metric over the trials, with seeds as clusters; None without trials, and for an A/A cell."""


@dataclass(frozen=True, kw_only=True)
class Figure3:
    """All panels with their series, and facts about their rows."""

    panels: tuple[figures.Panel, ...]
    series: tuple[tuple[Series, ...], ...]
    by: tuple[str, ...]
    """The factors whose combinations are the lines."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure3:
    """Returns curves, means and rank correlations of every line, grouped into panels.

    Values of different objectives cannot be compared: where the objective varies, each has its panels.

    Raises:
        InputError: if the number of embedder epochs is not a factor, or two cells have the same levels.
    """
    figures.need_factor(results, EPOCHS)
    results = compared(results)
    cells = summarise_cells(results, level=level)
    by = tuple(path for path in select_embedder_factors(results.factors) if path not in (EPOCHS, OBJECTIVE))
    spread = spread_naive_cells(cells, results.factors, (EPOCHS,))
    panels = figures.build_panels(spread, results.factors, by, (EPOCHS,))
    trials = results.trials
    ok = trials[(trials["status"] == "ok") & (trials["role"] != "search") & (trials[EPOCHS] > 0)]
    steps = results.epochs[results.epochs["stage"] == "embedder"].merge(
        ok[["trial_id", "cell_id", "seed"]], on="trial_id"
    )
    all_series = tuple(
        tuple(_make_series(line, ok, steps, column=results.metric, level=level) for line in panel.lines)
        for panel in panels
    )
    return Figure3(panels=panels, series=all_series, by=by, facts=figures.collect_facts(results, cells, level))


def _make_series(line: figures.Line, ok: "pd.DataFrame", steps: "pd.DataFrame", *, column: str, level: float) -> Series:
    ids = [cell.cell_id for cell in line.cells]
    rows, steps = ok[ok["cell_id"].isin(ids)], steps[steps["cell_id"].isin(ids)]
    points = zip(rows["seed"], rows[EPOCHS], rows["objective_last"], rows[column], strict=True)
    trials = tuple(
        Trial(seed=int(seed), epochs=int(epochs), objective=float(x), metric=float(y)) for seed, epochs, x, y in points
    )
    seeds: dict[int, dict[int, float]] = {}
    # Runs of a seed share their first epochs; on a GPU their last bits may differ, so this takes their mean.
    means = steps.groupby(["seed", "epoch"], as_index=False)["objective"].mean()
    for seed, epoch, value in zip(means["seed"], means["epoch"], means["objective"], strict=True):
        seeds.setdefault(int(seed), {})[int(epoch)] = float(value)
    epochs = sorted({epoch for of_seed in seeds.values() for epoch in of_seed})
    curve = {e: t_interval([of_seed[e] for of_seed in seeds.values() if e in of_seed], level) for e in epochs}
    return Series(
        line=line,
        objective=", ".join(map(str, rows[OBJECTIVE].unique())),
        seeds=seeds,
        curve=curve,
        trials=trials,
        correlation=_correlate_trials(trials, level) if trials and line.role == "replicate" else None,
    )


def _correlate_trials(trials: Sequence[Trial], level: float) -> RankCorrelation:
    objective, metric = [trial.objective for trial in trials], [trial.metric for trial in trials]
    return rank_correlation(objective, metric, level, clusters=[trial.seed for trial in trials])


# Picture ------------------------------------------------------------------------------------------


def plot(figure: Figure3) -> Any:
    """Returns a matplotlib figure: a row of three pictures and their legend per task and other factors."""
    panels = figure.panels[: figures.MAX_PANELS]
    heights = [max(2.8, _legend_height(all_series)) for all_series in figure.series[: len(panels)]] or [2.8]
    layout = figures.Layout(
        width=11,
        height=sum(heights) + 0.7,
        rows=len(heights),
        columns=4,
        height_ratios=heights,
        width_ratios=[1, 1, 1, 0.62],
    )

    def draw(axes: Any, styles: Mapping[str, figures.Style]) -> None:
        rows = list(zip(axes, panels, strict=False))
        for i, (row, _) in enumerate(rows):
            _plot_row(row, figure, i, styles)
        figures.equalise_limits([(panel.task, axis) for row, panel in rows for axis in row[1:3]], "y")

    return figures.draw_figure(layout, panels, draw, _write_notes(figure))


def _plot_row(axes: Sequence[Any], figure: Figure3, i: int, styles: Mapping[str, figures.Style]) -> None:
    panel, all_series = figure.panels[i], figure.series[i]
    for axis in axes[:3]:
        axis.set_visible(True)
        axis.margins(x=0.05 + 0.013 * len(all_series))  # room for lines side by side
    axes[0].set_title(panel.title, loc="left")
    reason = figures.explain_no_result(panel.lines)
    if reason:
        for axis in axes[:3]:
            figures.write_words(axis, reason)
        return
    metric = figures.label_measure(figure.facts.column, panel)
    _plot_objective(axes[0], all_series, styles)
    _plot_metric(axes[1], all_series, metric, styles)
    _plot_trials(axes[2], all_series, metric, styles)
    _plot_legend(axes[3], all_series, figure, styles)


def _plot_objective(axis: Any, all_series: Sequence[Series], styles: Mapping[str, figures.Style]) -> None:
    values = [value for series in all_series for of_seed in series.seeds.values() for value in of_seed.values()]
    if not values:
        figures.write_words(axis, NO_TRAINED)
        return
    n = len(all_series)
    for position, series in enumerate(all_series):
        style, epochs = styles[series.line.name], tuple(series.curve)
        for of_seed in series.seeds.values():
            axis.plot(tuple(of_seed), tuple(of_seed.values()), color=style.colour, linewidth=0.5, alpha=0.5)
        axis.fill_between(
            epochs, [i.low for i in series.curve.values()], [i.high for i in series.curve.values()],
            color=style.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        marked = _choose_marked(epochs, position, n)
        axis.plot(
            epochs, [i.mean for i in series.curve.values()], color=style.colour, linewidth=1.4, marker=style.marker,
            markerfacecolor=style.face, markevery=marked,
        )  # fmt: skip
    _scale_epoch_axis(axis, {epoch for series in all_series for epoch in (0, *series.curve)})
    _widen_axis(axis, "y", values)
    axis.set_xlabel("embedder epoch")
    axis.set_ylabel(_objective_label(all_series))


def _choose_marked(epochs: Sequence[int], position: int, n: int) -> list[int]:
    """Returns the indices of the epochs with a marker: evenly spaced on the axis, and offset between lines."""
    end = math.log1p(epochs[-1]) if epochs else 0.0
    wanted = [math.expm1(end * (i + position / n) / 5) for i in range(6)]
    return sorted({min(range(len(epochs)), key=lambda k: abs(epochs[k] - w)) for w in wanted}) if epochs else []


def _plot_metric(axis: Any, all_series: Sequence[Series], metric: str, styles: Mapping[str, figures.Style]) -> None:
    levels = sorted({_count_epochs(cell) for series in all_series for cell in series.line.cells})
    _scale_epoch_axis(axis, levels)
    for series, shift in zip(all_series, figures.spread_lines(len(all_series)), strict=True):
        style = styles[series.line.name]
        cells = sorted((cell for cell in series.line.cells if cell.interval.n), key=_count_epochs)
        figures.draw_trend(
            axis, [*map(_count_epochs, cells)], [cell.interval.mean for cell in cells], style, shift=shift
        )
        for cell in cells:
            figures.draw_interval(axis, _count_epochs(cell), cell.interval, style, shift=shift)
    shared = (
        ", the same trials in all lines" if sum(series.line.role == "replicate" for series in all_series) > 1 else ""
    )
    axis.set_xlabel(f"{EPOCHS}\n(0: naive{shared})" if 0 in levels else EPOCHS)
    axis.set_ylabel(metric)


def _plot_trials(axis: Any, all_series: Sequence[Series], metric: str, styles: Mapping[str, figures.Style]) -> None:
    values = [trial.objective for series in all_series for trial in series.trials]
    if not values:
        figures.write_words(axis, NO_TRAINED)
        return
    for series in all_series:
        style = styles[series.line.name]
        points = [t.objective for t in series.trials], [t.metric for t in series.trials]
        axis.plot(*points, style.marker, color=style.colour, markerfacecolor=style.face, markersize=4, alpha=0.75)
    _widen_axis(axis, "x", values)
    _plot_naive(axis, all_series, styles)
    axis.set_xlabel(_objective_label(all_series))
    axis.set_ylabel(metric)


def _plot_naive(axis: Any, all_series: Sequence[Series], styles: Mapping[str, figures.Style]) -> None:
    """Draws naive cells in a strip at the left: they have no objective, so no position on its axis."""
    from matplotlib.patches import Rectangle

    naive = {
        cell.cell_id: (cell, series.line)
        for series in all_series
        for cell in series.line.cells
        if not _count_epochs(cell)
    }
    shown = [(cell, line) for cell, line in naive.values() if cell.interval.n]
    if not shown:
        return
    strip = 0.07 * (1 + len(shown))
    axis.add_patch(Rectangle((0, 0), strip, 1, transform=axis.transAxes, color="#f1f1f1", linewidth=0, zorder=0))
    axis.text(strip / 2, 1.0, "naive", transform=axis.transAxes, ha="center", va="bottom", fontsize=7)
    _make_room(axis, strip)
    for i, (cell, line) in enumerate(shown):
        style = styles[line.name] if line.role != "replicate" else NAIVE_STYLE
        x, interval = strip * (i + 1) / (len(shown) + 1), cell.interval
        drawn = {"transform": axis.get_yaxis_transform(), "color": style.colour, "markerfacecolor": style.face}
        if math.isfinite(interval.low):
            axis.plot([x, x], [interval.low, interval.high], linewidth=1.4, **drawn)
            axis.update_datalim([(axis.get_xlim()[0], y) for y in (interval.low, interval.high)])
        axis.plot([x], [interval.mean], style.marker, **drawn)
    axis.autoscale_view(scalex=False)


def _make_room(axis: Any, share: float) -> None:
    """Extends the x axis to the left, so that a share of its width comes before its data."""
    transform = axis.xaxis.get_transform()
    start, end = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if start <= tick <= end]
    low, high = transform.transform([start, end])
    low -= (high - low) * share / (1 - share)
    axis.set_xlim(*transform.inverted().transform([low, high]))
    axis.set_xticks(ticks)


def _plot_legend(axis: Any, all_series: Sequence[Series], figure: Figure3, styles: Mapping[str, figures.Style]) -> None:
    axis.set_visible(True)
    axis.set_axis_off()
    names = [(_legend_name(series), styles[series.line.name]) for series in all_series]
    figures.add_legend(axis, names, ", ".join(figure.by), gap=0, top=True)


def _legend_height(all_series: Sequence[Series]) -> float:
    """Inches that the legend of a panel takes, with its title and the labels below the axes beside it."""
    n_lines = sum(_legend_name(series).count("\n") + 1 for series in all_series)
    return 0.14 * n_lines + 0.07 * len(all_series) + 0.8


def _legend_name(series: Series) -> str:
    name, r = f"{series.line.label}, {series.line.n_text}", series.correlation
    if r is None:
        return name
    ends = f" [{r.rho_low:.2f}, {r.rho_high:.2f}]" if math.isfinite(r.rho_low) else ""
    rho = [f"rank correlation {r.rho:.2f}{ends}"] if math.isfinite(r.rho) else []
    of = f"{r.n} trials, {r.n_clusters} seed{'s' * (r.n_clusters != 1)}"
    return "\n".join([name, *rho, of, *_describe_gaps(series), *textwrap.wrap(r.caution, 34)])


def _describe_gaps(series: Series) -> list[str]:
    """Returns a line that says how many seeds of a correlation lack trials; empty if none does."""
    counts = Counter(trial.seed for trial in series.trials)
    n_cells = sum(1 for cell in series.line.cells if _count_epochs(cell))
    n_short = sum(1 for n in counts.values() if n < n_cells)
    return [f"{n_short} of these seeds lack{'s' * (n_short == 1)} trials"] if n_short else []


def _count_epochs(cell: Cell) -> int:
    return int(cell.levels[EPOCHS])


def _scale_epoch_axis(axis: Any, epochs: Iterable[int]) -> None:
    """Makes the x axis logarithmic, with a position for zero and labels where there is room."""
    import numpy as np

    forward, back = (lambda x, f=f: np.sign(x) * f(np.abs(x)) for f in (np.log1p, np.expm1))
    axis.set_xscale("function", functions=(forward, back))
    levels = sorted(epochs)
    wanted = levels if len(levels) <= 12 else [0, *(m * 10**k for k in range(10) for m in (1, 2, 5))]
    wanted = [level for level in wanted if level <= levels[-1]]
    ticks = [wanted[i] for i in figures.choose_spaced([*map(math.log1p, wanted)], share=0.09)]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def _widen_axis(axis: Any, which: str, values: Sequence[float]) -> None:
    """Makes an axis logarithmic, with plain numbers, if its values differ much."""
    low, high = min(values), max(values)
    if not 0 < WIDE * low < high:
        return
    getattr(axis, f"set_{which}scale")("log")
    room = (high / low) ** 0.06
    getattr(axis, f"set_{which}lim")(low / room, high * room)
    ticks = _log_ticks(low / room, high * room)
    getattr(axis, f"set_{which}ticks")(ticks, [write_level(tick) for tick in ticks])
    axis.minorticks_off()


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns ticks between two numbers, spaced for labels: 1, 2, 5 of each decade, decades, or every few decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 5)
    marks = (1, 2, 5) if last - first < 4 else (1,)
    candidates = [float(f"{mark}e{k}") for k in range(first, last + 1, step) for mark in marks]
    return [tick for tick in candidates if low <= tick <= high]


def _objective_label(all_series: Sequence[Series]) -> str:
    names = ", ".join(dict.fromkeys(series.objective for series in all_series if series.objective))
    return f"objective {names}\n(squared feature units)"


def _write_notes(figure: Figure3) -> str:
    percent = f"{figure.facts.level:.0%}"
    return figures.write_notes(
        figure.facts,
        len(figure.panels),
        [
            f"Left: means over n seeds at the same epoch; bands: their {percent} Student-t intervals; thin: each seed.",
            f"Middle: means over n seeds; bars: their {percent} Student-t intervals (none where n = 1).",
            "Right: one point per ok trial. The legend gives Spearman's rank correlation of objective and metric (positive:"
            f" a lower objective goes with a lower metric) with its {percent} interval over seeds (jackknife).",
            "Naive trials (0 embedder epochs) have no objective: their mean is drawn separately, and no correlation includes"
            " them.",
        ],
    )


def numbers(figure: Figure3) -> str:
    """Returns every number of the figure as CSV: curves of seeds and their means, metrics, trials, correlations."""
    rows: list[tuple[object, ...]] = []
    for panel, all_series in zip(figure.panels, figure.series, strict=True):
        for series in all_series:
            rows += [(panel.title, series.line.name, *row) for row in _list_numbers(series, figure.facts.column)]
    by = ", ".join(figure.by) or "line"
    return format_csv_rows(
        ("panel", by, "what", "cell_id", "seed", EPOCHS, "objective", "n", "mean", "low", "high"), rows
    )


def _list_numbers(series: Series, column: str) -> Iterable[tuple[object, ...]]:
    for seed, of_seed in series.seeds.items():
        for epoch, value in of_seed.items():
            yield "objective of a seed", None, seed, epoch, value, None, None, None, None
    for epoch, interval in series.curve.items():
        yield "objective", None, None, epoch, None, *figures.interval_fields(interval)
    for cell in series.line.cells:
        yield column, cell.cell_id, None, _count_epochs(cell), None, *figures.interval_fields(cell.interval)
    for trial in series.trials:
        yield "trial", None, trial.seed, trial.epochs, trial.objective, 1, trial.metric, None, None
    r = series.correlation
    if r is not None:
        yield "spearman", None, None, None, None, r.n, r.rho, r.rho_low, r.rho_high
        yield "kendall", None, None, None, None, r.n, r.tau, r.tau_low, r.tau_high


def make_output(results: Results, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure))
