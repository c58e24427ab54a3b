"""Figure 3's form: the alignment objective and the test error over the amount of embedder training, and one by the other.

Question: does more embedder training, and so a lower OTDD, mean a lower error (or a higher score)?
One row of pictures per task and combination of the other factors; one line per proxy, or per combination of what else
is varied of embedder and proxy. Left: the objective over embedder epochs, its mean over seeds at equal epoch with a
Student-t interval, thin lines are the seeds. Runs of different length share their first epochs bit for bit, so a seed
counts once. Middle: the metric at each number of embedder epochs, mean over seeds with its interval. Right: trials by
their last objective and their metric, with Spearman's rank correlation and its interval over seeds as clusters.
A trial without embedder training has no objective: it is in no correlation and stands apart.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.config.labels import write_level
from orca_sweep.results import CellSummary, Results, summarise, with_roles
from orca_sweep.stats import Interval, RankCorrelation, rank_correlation, t_interval

if TYPE_CHECKING:
    import pandas as pd

NAME = "figure3_otdd_vs_error"
EPOCHS = "embedder.epochs"
OBJECTIVE = "embedder.objective"
NO_TRAINED = "no trial with embedder training is ok yet"
WIDE = 20
"""An objective whose largest value is so many times its least has a logarithmic axis."""


@dataclass(frozen=True)
class Trial:
    """One trial with embedder training, as a point of the scatter."""

    seed: int
    epochs: int
    objective: float
    metric: float


@dataclass(frozen=True)
class Series:
    """One line: its cells by number of embedder epochs, its objective's curve, its trials."""

    line: figures.Line
    objective: str
    """Which one it is; empty where no trial has one."""
    seeds: Mapping[int, Mapping[int, float]]
    """The objective by seed and embedder epoch."""
    curve: Mapping[int, Interval]
    """The objective by embedder epoch, over seeds."""
    trials: tuple[Trial, ...]
    correlation: RankCorrelation | None
    """Of objective and metric over the trials, seeds as clusters; None without a trial, and of an A/A arm."""


@dataclass(frozen=True)
class Figure3:
    """All panels with the series of each, and what the numbers are of."""

    panels: tuple[figures.Panel, ...]
    series: tuple[tuple[Series, ...], ...]
    by: tuple[str, ...]
    """The factors whose combinations are the lines."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure3:
    """Returns curves, means and rank correlations of every line, grouped into panels.

    Values of different objectives are no values of one thing: an objective that is varied has panels of its own.

    Raises:
        InputError: if the number of embedder epochs is no factor, or two cells have the same levels.
    """
    figures.need_factor(results, EPOCHS)
    results = compared(results)
    cells = summarise(results, level=level)
    by = tuple(path for path in figures.embedding_factors(results.factors) if path not in (EPOCHS, OBJECTIVE))
    spread = figures.with_naive(cells, results.factors, (EPOCHS,))
    panels = figures.panels_of(spread, results.factors, by, (EPOCHS,))
    trials = with_roles(results.trials)
    ok = trials[(trials["status"] == "ok") & (trials["role"] != "search") & (trials[EPOCHS] > 0)]
    steps = results.epochs[results.epochs["stage"] == "embedder"].merge(
        ok[["trial_id", "cell_id", "seed"]], on="trial_id"
    )
    series = tuple(
        tuple(_make_series(line, ok, steps, results.metric, level) for line in panel.lines) for panel in panels
    )
    return Figure3(panels, series, by, figures.collect_facts(results, cells, level))


def _make_series(line: figures.Line, ok: "pd.DataFrame", steps: "pd.DataFrame", column: str, level: float) -> Series:
    ids = [cell.cell_id for cell in line.cells]
    rows, steps = ok[ok["cell_id"].isin(ids)], steps[steps["cell_id"].isin(ids)]
    points = zip(rows["seed"], rows[EPOCHS], rows["objective_last"], rows[column], strict=True)
    trials = tuple(Trial(int(seed), int(epochs), float(x), float(y)) for seed, epochs, x, y in points)
    seeds: dict[int, dict[int, float]] = {}
    # Runs of one seed share their first epochs; on a GPU they may differ in the last bits, so their mean is taken.
    means = steps.groupby(["seed", "epoch"], as_index=False)["objective"].mean()
    for seed, epoch, value in zip(means["seed"], means["epoch"], means["objective"], strict=True):
        seeds.setdefault(int(seed), {})[int(epoch)] = float(value)
    epochs = sorted({epoch for of_seed in seeds.values() for epoch in of_seed})
    curve = {e: t_interval([of_seed[e] for of_seed in seeds.values() if e in of_seed], level) for e in epochs}
    names = rows[OBJECTIVE].unique()
    found = _correlate_trials(trials, level) if trials and line.role == "replicate" else None
    return Series(line, ", ".join(map(str, names)), seeds, curve, trials, found)


def _correlate_trials(trials: Sequence[Trial], level: float) -> RankCorrelation:
    objective, metric = [trial.objective for trial in trials], [trial.metric for trial in trials]
    return rank_correlation(objective, metric, level, clusters=[trial.seed for trial in trials])


# Picture ------------------------------------------------------------------------------------------


def plot(figure: Figure3) -> Any:
    """Returns a matplotlib figure: a row of three pictures and their legend per task and other factors."""
    n = min(len(figure.panels), figures.MAX_PANELS)
    with figures.use_look():
        heights = [max(2.8, _legend_height(series)) for series in figure.series[:n]] or [2.8]
        ratios = {"width_ratios": [1, 1, 1, 0.62], "height_ratios": heights}
        made, axes = figures.make_canvas(11, sum(heights) + 0.7, len(heights), 4, **ratios)
        styles = figures.choose_styles(figure.panels[:n])
        for row, panel, series in zip(axes, figure.panels[:n], figure.series, strict=False):
            _plot_row(row, panel, series, figure, styles)
        of_metric = [
            (panel.task, axis) for row, panel in zip(axes, figure.panels[:n], strict=False) for axis in row[1:3]
        ]
        figures.same_limits(of_metric, "y")
        if not n:
            figures.write_words(axes[0][0], "there is no trial yet")
        figures.write_below(made, _write_notes(figure))
    return made


def _plot_row(
    axes: Sequence[Any],
    panel: figures.Panel,
    series: Sequence[Series],
    figure: Figure3,
    styles: Mapping[str, figures.Style],
) -> None:
    for axis in axes[:3]:
        axis.set_visible(True)
        axis.margins(x=0.05 + 0.013 * len(series))  # room for lines beside each other
    axes[0].set_title(panel.title, loc="left")
    nothing = figures.nothing_yet(panel.lines)
    if nothing:
        for axis in axes[:3]:
            figures.write_words(axis, nothing)
        return
    metric = figures.label_measure(figure.facts.column, panel)
    _plot_objective(axes[0], series, styles)
    _plot_metric(axes[1], series, metric, styles)
    _plot_trials(axes[2], series, metric, styles)
    _plot_legend(axes[3], series, figure, styles)


def _plot_objective(axis: Any, series: Sequence[Series], styles: Mapping[str, figures.Style]) -> None:
    values = [value for one in series for of_seed in one.seeds.values() for value in of_seed.values()]
    if not values:
        figures.write_words(axis, NO_TRAINED)
        return
    n = len(series)
    for place, one in enumerate(series):
        style, epochs = styles[one.line.name], tuple(one.curve)
        for of_seed in one.seeds.values():
            axis.plot(tuple(of_seed), tuple(of_seed.values()), color=style.colour, linewidth=0.5, alpha=0.5)
        axis.fill_between(
            epochs, [i.low for i in one.curve.values()], [i.high for i in one.curve.values()],
            color=style.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        marked = _choose_marked(epochs, place, n)
        axis.plot(
            epochs, [i.mean for i in one.curve.values()], color=style.colour, linewidth=1.4, marker=style.marker,
            markerfacecolor=style.face, markevery=marked,
        )  # fmt: skip
    _epoch_axis(axis, {epoch for one in series for epoch in (0, *one.curve)})
    _wide_axis(axis, "y", values)
    axis.set_xlabel("embedder epoch")
    axis.set_ylabel(_objective_label(series))


def _choose_marked(epochs: Sequence[int], place: int, n: int) -> list[int]:
    """Which epochs have a marker: evenly far apart on the axis, each line's between the others'."""
    end = math.log1p(epochs[-1]) if epochs else 0.0
    wanted = [math.expm1(end * (i + place / n) / 5) for i in range(6)]
    return sorted({min(range(len(epochs)), key=lambda k: abs(epochs[k] - w)) for w in wanted}) if epochs else []


def _plot_metric(axis: Any, series: Sequence[Series], metric: str, styles: Mapping[str, figures.Style]) -> None:
    levels = sorted({_count_epochs(cell) for one in series for cell in one.line.cells})
    _epoch_axis(axis, levels)
    for one, shift in zip(series, figures.spread_lines(len(series)), strict=True):
        style = styles[one.line.name]
        cells = sorted((cell for cell in one.line.cells if cell.interval.n), key=_count_epochs)
        figures.draw_trend(axis, [*map(_count_epochs, cells)], [cell.interval.mean for cell in cells], style, shift)
        for cell in cells:
            figures.draw_interval(axis, _count_epochs(cell), cell.interval, style, shift=shift)
    shared = ", in all lines the same trials" if sum(one.line.role == "replicate" for one in series) > 1 else ""
    axis.set_xlabel(f"{EPOCHS}\n(0: naive{shared})" if 0 in levels else EPOCHS)
    axis.set_ylabel(metric)


def _plot_trials(axis: Any, series: Sequence[Series], metric: str, styles: Mapping[str, figures.Style]) -> None:
    values = [trial.objective for one in series for trial in one.trials]
    if not values:
        figures.write_words(axis, NO_TRAINED)
        return
    for one in series:
        style = styles[one.line.name]
        points = [t.objective for t in one.trials], [t.metric for t in one.trials]
        axis.plot(*points, style.marker, color=style.colour, markerfacecolor=style.face, markersize=4, alpha=0.75)
    _wide_axis(axis, "x", values)
    _plot_naive(axis, series, styles)
    axis.set_xlabel(_objective_label(series))
    axis.set_ylabel(metric)


def _plot_naive(axis: Any, series: Sequence[Series], styles: Mapping[str, figures.Style]) -> None:
    """Naive cells, to the left of a line: they have no place on an axis of objectives."""
    from matplotlib.patches import Rectangle

    naive = {cell.cell_id: (cell, one.line) for one in series for cell in one.line.cells if not _count_epochs(cell)}
    shown = [(cell, line) for cell, line in naive.values() if cell.interval.n]
    if not shown:
        return
    strip = 0.07 * (1 + len(shown))
    axis.add_patch(Rectangle((0, 0), strip, 1, transform=axis.transAxes, color="#f1f1f1", linewidth=0, zorder=0))
    axis.text(strip / 2, 1.0, "naive", transform=axis.transAxes, ha="center", va="bottom", fontsize=7)
    _make_room(axis, strip)
    for i, (cell, line) in enumerate(shown):
        style = styles[line.name] if line.role != "replicate" else figures.Style("#000000", "*", "#000000")
        x, interval = strip * (i + 1) / (len(shown) + 1), cell.interval
        drawn = {"transform": axis.get_yaxis_transform(), "color": style.colour, "markerfacecolor": style.face}
        if math.isfinite(interval.low):
            axis.plot([x, x], [interval.low, interval.high], linewidth=1.4, **drawn)
            axis.update_datalim([(axis.get_xlim()[0], y) for y in (interval.low, interval.high)])
        axis.plot([x], [interval.mean], style.marker, **drawn)
    axis.autoscale_view(scalex=False)


def _make_room(axis: Any, share: float) -> None:
    """Widens the x axis to the left, so that its data begins after a share of its width."""
    transform = axis.xaxis.get_transform()
    start, end = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if start <= tick <= end]
    low, high = transform.transform([start, end])
    low -= (high - low) * share / (1 - share)
    axis.set_xlim(*transform.inverted().transform([low, high]))
    axis.set_xticks(ticks)


def _plot_legend(axis: Any, series: Sequence[Series], figure: Figure3, styles: Mapping[str, figures.Style]) -> None:
    axis.set_visible(True)
    axis.set_axis_off()
    names = [(_legend_name(one), styles[one.line.name]) for one in series]
    figures.legend_under(axis, names, ", ".join(figure.by), gap=0, top=True)


def _legend_height(series: Sequence[Series]) -> float:
    """Inches that a panel's legend takes, with its title and what stands below the axes beside it."""
    n_lines = sum(_legend_name(one).count("\n") + 1 for one in series)
    return 0.14 * n_lines + 0.07 * len(series) + 0.8


def _legend_name(one: Series) -> str:
    name, r = f"{one.line.label}, {one.line.n_text}", one.correlation
    if r is None:
        return name
    ends = f" [{r.rho_low:.2f}, {r.rho_high:.2f}]" if math.isfinite(r.rho_low) else ""
    found = [f"rank correlation {r.rho:.2f}{ends}"] if math.isfinite(r.rho) else []
    of = f"{r.n} trials, {r.n_clusters} seed{'s' * (r.n_clusters != 1)}"
    return "\n".join([name, *found, of, *_describe_gaps(one), *textwrap.wrap(r.caution, 34)])


def _describe_gaps(one: Series) -> list[str]:
    """Says whether a correlation is over seeds that do not all have the same trials."""
    counts = Counter(trial.seed for trial in one.trials)
    n_cells = sum(1 for cell in one.line.cells if _count_epochs(cell))
    n_short = sum(1 for n in counts.values() if n < n_cells)
    return [f"{n_short} of these seeds lack{'s' * (n_short == 1)} trials"] if n_short else []


def _count_epochs(cell: CellSummary) -> int:
    return int(cell.levels[EPOCHS])


def _epoch_axis(axis: Any, epochs: Iterable[int]) -> None:
    """A logarithmic axis with a place for zero, labelled where there is room."""
    import numpy as np

    forward, back = (lambda x, f=f: np.sign(x) * f(np.abs(x)) for f in (np.log1p, np.expm1))
    axis.set_xscale("function", functions=(forward, back))
    levels = sorted(epochs)
    wanted = levels if len(levels) <= 12 else [0, *(m * 10**k for k in range(10) for m in (1, 2, 5))]
    wanted = [level for level in wanted if level <= levels[-1]]
    ticks = [wanted[i] for i in figures.choose_spaced([*map(math.log1p, wanted)], share=0.09)]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def _wide_axis(axis: Any, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis where values differ much, with plain numbers on it."""
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
    """Returns numbers between two that labels fit beside: halves of decades, decades, or every so many decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 5)
    marks = (1, 2, 5) if last - first < 4 else (1,)
    found = [float(f"{mark}e{k}") for k in range(first, last + 1, step) for mark in marks]
    return [tick for tick in found if low <= tick <= high]


def _objective_label(series: Sequence[Series]) -> str:
    names = ", ".join(dict.fromkeys(one.objective for one in series if one.objective))
    return f"objective {names}\n(squared feature units)"


def _write_notes(figure: Figure3) -> str:
    percent = f"{figure.facts.level:.0%}"
    return figures.write_notes(
        figure.facts,
        len(figure.panels),
        f"Left: mean over n seeds at equal epoch, thin: each seed, band: {percent} Student-t interval.",
        f"Middle: means over n seeds, bars: their {percent} Student-t intervals (none where n = 1).",
        "Right: one point per ok trial; beside it Spearman's rank correlation of objective and metric (positive: a"
        f" lower objective goes with a lower metric) with its {percent} interval over seeds (jackknife).",
        "Naive trials (0 embedder epochs) have no objective: their mean stands apart and is in no correlation.",
    )


def numbers(figure: Figure3) -> str:
    """Returns every number of the figure as CSV: curves of seeds and their means, metrics, trials, correlations."""
    rows: list[tuple[object, ...]] = []
    for panel, series in zip(figure.panels, figure.series, strict=True):
        for one in series:
            rows += [(panel.title, one.line.name, *row) for row in _list_numbers(one, figure.facts.column)]
    by = ", ".join(figure.by) or "line"
    return format_csv_rows(
        ("panel", by, "what", "cell_id", "seed", EPOCHS, "objective", "n", "mean", "low", "high"), rows
    )


def _list_numbers(one: Series, column: str) -> Iterable[tuple[object, ...]]:
    for seed, of_seed in one.seeds.items():
        for epoch, value in of_seed.items():
            yield "objective of a seed", None, seed, epoch, value, None, None, None, None
    for epoch, interval in one.curve.items():
        yield "objective", None, None, epoch, None, *figures.interval_fields(interval)
    for cell in one.line.cells:
        yield column, cell.cell_id, None, _count_epochs(cell), None, *figures.interval_fields(cell.interval)
    for trial in one.trials:
        yield "trial", None, trial.seed, trial.epochs, trial.objective, 1, trial.metric, None, None
    r = one.correlation
    if r is not None:
        yield "spearman", None, None, None, None, r.n, r.rho, r.rho_low, r.rho_high
        yield "kendall", None, None, None, None, r.n, r.tau, r.tau_low, r.tau_high


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure))
