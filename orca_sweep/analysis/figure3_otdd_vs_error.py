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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import LIGHT, PAGE, FigureStyle, Style
from orca_sweep.analysis.naive import select_embedder_factors, spread_naive_cells
from orca_sweep.analysis.sheet import Slot, open_sheet
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
NAIVE_STYLE = Style(colour="#000000", marker="*", face="#000000")
LEAST_EMS_OF_ROW = 48
"""The three pictures are side by side in a figure at least this many letters wide, else one below the other."""
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
    results = compared_once(results)
    cells = summarise_cells(results, level=level)
    by = tuple(path for path in select_embedder_factors(results.factors) if path not in (EPOCHS, OBJECTIVE))
    spread = spread_naive_cells(cells, results.factors, (EPOCHS,))
    panels = figures.build_panels(spread, results, by, (EPOCHS,))
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


def plot(figure: Figure3, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: three pictures and their legend per task and other factors."""
    panels = figure.panels[: figures.MAX_PANELS]
    looks = figures.choose_styles(panels)
    columns = 3 if style.ems >= LEAST_EMS_OF_ROW else 1
    with open_sheet(style, write_caption(figure)) as sheet:
        if not panels:
            sheet.add_band()[0].write_words(figures.NO_TRIAL)
        drawn = []
        for i, panel in enumerate(panels):
            sheet.add_heading(panel.title)
            slots = sheet.add_grid(3, columns)
            _plot_row(slots, figure, i, looks)
            sheet.add_legend(_make_handles(figure, i, looks), ", ".join(figure.by))
            drawn += [(panel.task, slot.axis) for slot in slots[1:]]
        figures.equalise_limits(drawn, "y")
    return sheet.figure


def _plot_row(slots: Sequence[Slot], figure: Figure3, i: int, looks: Mapping[str, Style]) -> None:
    panel, all_series = figure.panels[i], figure.series[i]
    for slot in slots:
        slot.show().margins(x=0.05 + 0.013 * len(all_series))  # room for lines side by side
    reason = figures.explain_no_result(panel.lines)
    if reason:
        for slot in slots:
            slot.write_words(reason)
        return
    metric = figures.label_measure(figure.facts.column, panel)
    _plot_objective(slots[0], all_series, looks)
    _plot_metric(slots[1], all_series, metric, looks)
    _plot_trials(slots[2], all_series, metric, looks)


def _plot_objective(slot: Slot, all_series: Sequence[Series], looks: Mapping[str, Style]) -> None:
    values = [value for series in all_series for of_seed in series.seeds.values() for value in of_seed.values()]
    if not values:
        slot.write_words(NO_TRAINED)
        return
    axis = slot.axis
    n = len(all_series)
    for position, series in enumerate(all_series):
        look, epochs = looks[series.line.name], tuple(series.curve)
        for of_seed in series.seeds.values():
            axis.plot(tuple(of_seed), tuple(of_seed.values()), color=look.colour, linewidth=0.5, alpha=0.5)
        axis.fill_between(
            epochs, [i.low for i in series.curve.values()], [i.high for i in series.curve.values()],
            color=look.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        marked = _choose_marked(epochs, position, n)
        axis.plot(
            epochs, [i.mean for i in series.curve.values()], color=look.colour, linestyle=look.line, marker=look.marker,
            markerfacecolor=look.face, markevery=marked,
        )  # fmt: skip
    _scale_epoch_axis(axis, {epoch for series in all_series for epoch in (0, *series.curve)})
    _widen_axis(axis, "y", values)
    slot.label_x("embedder epoch")
    slot.label_y(_objective_label(all_series))


def _choose_marked(epochs: Sequence[int], position: int, n: int) -> list[int]:
    """Returns the indices of the epochs with a marker: evenly spaced on the axis, and offset between lines."""
    end = math.log1p(epochs[-1]) if epochs else 0.0
    wanted = [math.expm1(end * (i + position / n) / 5) for i in range(6)]
    return sorted({min(range(len(epochs)), key=lambda k: abs(epochs[k] - w)) for w in wanted}) if epochs else []


def _plot_metric(slot: Slot, all_series: Sequence[Series], metric: str, looks: Mapping[str, Style]) -> None:
    axis = slot.axis
    levels = sorted({_count_epochs(cell) for series in all_series for cell in series.line.cells})
    _scale_epoch_axis(axis, levels)
    for series, shift in zip(all_series, figures.spread_lines(len(all_series)), strict=True):
        look = looks[series.line.name]
        cells = sorted((cell for cell in series.line.cells if cell.interval.n), key=_count_epochs)
        figures.draw_trend(
            axis, [*map(_count_epochs, cells)], [cell.interval.mean for cell in cells], look, shift=shift
        )
        for cell in cells:
            figures.draw_interval(axis, _count_epochs(cell), cell.interval, look, shift=shift)
    shared = (
        ", the same trials in all lines" if sum(series.line.role == "replicate" for series in all_series) > 1 else ""
    )
    slot.label_x(f"{EPOCHS}\n(0: naive{shared})" if 0 in levels else EPOCHS)
    slot.label_y(metric)


def _plot_trials(slot: Slot, all_series: Sequence[Series], metric: str, looks: Mapping[str, Style]) -> None:
    values = [trial.objective for series in all_series for trial in series.trials]
    if not values:
        slot.write_words(NO_TRAINED)
        return
    axis = slot.axis
    for series in all_series:
        look = looks[series.line.name]
        points = [t.objective for t in series.trials], [t.metric for t in series.trials]
        axis.plot(*points, look.marker, color=look.colour, markerfacecolor=look.face, alpha=0.75)
    _widen_axis(axis, "x", values)
    _plot_naive(axis, all_series, looks)
    slot.label_x(_objective_label(all_series))
    slot.label_y(metric)


def _plot_naive(axis: Any, all_series: Sequence[Series], looks: Mapping[str, Style]) -> None:
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
    axis.add_patch(Rectangle((0, 0), strip, 1, transform=axis.transAxes, color=LIGHT, linewidth=0, zorder=0))
    axis.text(strip / 2, 1.0, "naive", transform=axis.transAxes, ha="center", va="bottom")
    _make_room(axis, strip)
    for i, (cell, line) in enumerate(shown):
        look = looks[line.name] if line.role != "replicate" else NAIVE_STYLE
        x, interval = strip * (i + 1) / (len(shown) + 1), cell.interval
        drawn = {"transform": axis.get_yaxis_transform(), "color": look.colour, "markerfacecolor": look.face}
        if math.isfinite(interval.low):
            axis.plot([x, x], [interval.low, interval.high], **drawn)
            axis.update_datalim([(axis.get_xlim()[0], y) for y in (interval.low, interval.high)])
        axis.plot([x], [interval.mean], look.marker, **drawn)
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


def _make_handles(figure: Figure3, i: int, looks: Mapping[str, Style]) -> list[Any]:
    """Returns what the legend of a panel shows; a panel without any result needs the names of its lines alone."""
    all_series = figure.series[i]
    return figures.make_handles((_legend_name(series), looks[series.line.name]) for series in all_series)


def _legend_name(series: Series) -> str:
    name, r = f"{series.line.label}, {series.line.n_text}", series.correlation
    if r is None:
        return name
    ends = f" [{r.rho_low:.2f}, {r.rho_high:.2f}]" if math.isfinite(r.rho_low) else ""
    rho = [f"rank correlation {r.rho:.2f}{ends}"] if math.isfinite(r.rho) else []
    of = f"{r.n} trials, {r.n_clusters} seed{'s' * (r.n_clusters != 1)}"
    return "\n".join([name, *rho, of, *_describe_gaps(series), *filter(None, [r.caution])])


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
    axis.set_xticks(wanted, [str(tick) for tick in wanted])
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


def write_caption(figure: Figure3) -> str:
    """Returns what the figure shows, over how many trials, and what is missing."""
    percent = f"{figure.facts.level:.0%}"
    return figures.write_notes(
        figure.facts,
        len(figure.panels),
        [
            f"Objective over embedder epochs: means over n seeds at the same epoch; bands: their {percent} Student-t intervals;"
            " thin: each seed.",
            f"Metric over embedder epochs: means over n seeds; bars: their {percent} Student-t intervals (none where n = 1).",
            "Metric over objective: one point per ok trial. The legend gives Spearman's rank correlation of both (positive: a"
            f" lower objective goes with a lower metric) with its {percent} interval over seeds (jackknife).",
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


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure, style), caption=write_caption(figure))
