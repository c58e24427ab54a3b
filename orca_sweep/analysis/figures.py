"""What the figures share: how cells become lines and panels, how these are drawn, and what their captions must say.

The module of a figure computes a frozen record from tables, draws it, and writes its numbers as CSV. Only functions that
draw import Matplotlib, and none of them changes its global state.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.figure_style import AA_STYLE, Style, choose_style
from orca_sweep.analysis.naive import is_naive
from orca_sweep.analysis.sheet import Slot
from orca_sweep.analysis.tables import UNKNOWN_METRIC, describe_scales, list_different_trials
from orca_sweep.analysis.writing import count_things
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import Interval
from orca_sweep.stats.modes import Mode, describe_mode

MAX_PANELS = 12
MOST_CLASHES = 3
"""Pairs of cells with the same levels that a refusal names."""
NO_TRIAL = "there is no trial yet"
SINGLE = "Every n is 1: points are single trials, and nothing has an interval."
# Cells, lines, panels -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Line:
    """The cells of a panel that form one line: one combination of levels, or an A/A cell."""

    level: str
    role: str
    cells: tuple[Cell, ...]
    short: str = ""
    """The level, short enough for a picture and different from that of every other line."""

    @property
    def name(self) -> str:
        """The level, with the role if the line is not of replicates."""
        return self.level if self.role == "replicate" else f"{self.level} ({self.role})"

    @property
    def label(self) -> str:
        """The name, short enough for a picture, marked if it is naive."""
        marks = ["naive"] * all(map(is_naive, self.cells)) + [self.role] * (self.role != "replicate")
        return (self.short or shorten_label(self.level)) + (f" ({', '.join(marks)})" if marks else "")

    @property
    def n_text(self) -> str:
        """How many replicates the means of the line are over."""
        counts = sorted({cell.interval.n for cell in self.cells})
        return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The lines of one task and one combination of the factors that neither lines nor axes show."""

    title: str
    task: str
    metric: str
    lines: tuple[Line, ...]
    mode: Mode = "min"
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a figure must say about its rows."""

    column: str
    level: float
    """Confidence level of the intervals."""
    n_trials: int
    lacking: Mapping[str, int]
    """Number of trials that are not ok, by status."""
    n_worst: int
    n_searched: int
    tuned: tuple[str, ...]
    has_aa: bool
    most_n: int
    """The largest number of replicates of a cell."""
    notes: tuple[str, ...] = ()
    """Which rows were left out."""
    scales: str = ""
    """A sentence on the scale of intervals whose metric is bounded; empty without bounds."""
    better: str = describe_mode("min")
    """Whether lower or higher is better; per task where tasks differ."""


def collect_facts(results: Results, cells: Sequence[Cell], level: float) -> Facts:
    """Returns what a figure must say about the rows of its cells; tuning candidates are counted separately."""
    trials = list_different_trials(cells)
    statuses = dict(Counter(trial.status for trial in trials).most_common())
    return Facts(
        column=results.metric,
        level=level,
        n_trials=len(trials),
        lacking={status: n for status, n in statuses.items() if status != "ok"},
        n_worst=sum(trial.counts and trial.status != "ok" for trial in trials),
        n_searched=sum(cell.n_searched for cell in cells),
        tuned=results.tuned,
        has_aa=any(cell.role == "aa" for cell in cells),
        most_n=max((cell.interval.n for cell in cells), default=0),
        notes=results.notes,
        scales=describe_scales({cell.task: cell.bounds for cell in cells}),
        better=describe_modes({cell.task: cell.mode for cell in cells if cell.metric}),
    )


def describe_modes(modes: Mapping[str, Mode]) -> str:
    """Returns 'lower is better', or 'lower is better in digits, higher is better in ecg', of the tasks with known metrics."""
    if not modes:
        return UNKNOWN_METRIC
    tasks: dict[Mode, list[str]] = {}
    for task, mode in modes.items():
        tasks.setdefault(mode, []).append(shorten_label(task))
    if len(tasks) < 2:
        return describe_mode(next(iter(tasks)))
    return ", ".join(f"{describe_mode(mode)} in {', '.join(named)}" for mode, named in tasks.items())


def need_factor(results: Results, path: str) -> None:
    """Checks that a sweep varies the factor of a figure.

    Raises:
        InputError: if it does not, with the factors that it varies.
    """
    if path not in results.factors:
        known = ", ".join(results.factors) or "none"
        raise InputError(
            f"{', '.join(results.spaces) or 'these tables'}: {path!r} is not a factor of this sweep. Its factors: {known}."
            f" Give {path} two or more levels, or draw figure2_proxies, which takes any factor."
        )


def shorten_label(level: str, width: int = 36) -> str:
    """Returns a level that fits into a picture: a file without its folders, a long text cut in the middle."""
    return shorten_labels([level], width)[level]


def build_panels(
    cells: Iterable[Cell], results: Results, by: Sequence[str], along: Sequence[str] = ()
) -> tuple[Panel, ...]:
    """Returns the cells of tables as panels of lines: ``by`` are the factors of the lines, ``along`` those of an axis.

    Raises:
        InputError: if two cells have the same levels: they differ in a field that is not a factor.
    """
    remaining = [path for path in results.factors if path not in (*by, *along, "task")]
    grouped, clashes = _group_cells(cells, remaining, by, along)
    if clashes:
        raise InputError(" ".join([*_shorten_clashes(clashes), _suggest_drawing(results.spaces)]))
    short_keys = [shorten_labels(column, 36) for column in zip(*grouped, strict=True)]
    short_lines = shorten_labels([level for lines in grouped.values() for level, _ in lines], 36)
    return tuple(
        _make_panel(
            [short[level] for short, level in zip(short_keys, key, strict=True)],
            remaining,
            [
                Line(level=level, role=role, cells=tuple(members), short=short_lines[level])
                for (level, role), members in lines.items()
            ],
        )
        for key, lines in grouped.items()
    )


def _group_cells(
    cells: Iterable[Cell], remaining: Sequence[str], by: Sequence[str], along: Sequence[str]
) -> tuple[dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]], list[str]]:
    """Groups cells by panel, then by level and role of their line; says which cells have the levels of another."""
    grouped: dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]] = {}
    firsts: dict[tuple[str, ...], Cell] = {}
    clashes: dict[str, None] = {}
    for cell in cells:
        panel = (cell.task, *map(cell.label, remaining))
        level = ", ".join(map(cell.label, by)) or "all trials"
        key = (*panel, level, cell.role, *map(cell.label, along))
        if firsts.setdefault(key, cell).cell_id != cell.cell_id:
            clashes[_explain_clash(firsts[key], cell)] = None
        grouped.setdefault(panel, {}).setdefault((level, cell.role), []).append(cell)
    return grouped, list(clashes)


def _make_panel(key: Sequence[str], remaining: Sequence[str], lines: Sequence[Line]) -> Panel:
    """Makes a panel; ``key`` is its task and its levels of the other factors, short enough for a title."""
    named = [f"{path} {level}" for path, level in zip(remaining, key[1:], strict=True)]
    cells = [cell for line in lines for cell in line.cells]
    metric = next((cell.metric for cell in cells if cell.metric), "")
    return Panel(
        title=", ".join([key[0], *named]),
        task=cells[0].task,
        metric=metric,
        lines=tuple(lines),
        mode=cells[0].mode,
        unit=cells[0].unit,
    )


def _explain_clash(first: Cell, cell: Cell) -> str:
    levels = ", ".join(f"{path} {cell.label(path)}" for path in cell.levels)
    differing = [path for path, level in cell.labels.items() if first.label(path) != level and path not in cell.levels]
    tuned = ", and one of them is tuned" if bool(first.n_searched) != bool(cell.n_searched) else ""
    fields = f"what is not a factor ({', '.join(differing)})" if differing else "a field that is not a factor"
    ids = f"Cells {first.cell_id} and {cell.cell_id}"
    return f"{ids} have the same levels ({levels or 'no factors'}): they differ in {fields}{tuned}."


def _shorten_clashes(clashes: Sequence[str]) -> list[str]:
    """Returns the first clashes: combined spaces can have hundreds."""
    n_hidden = len(clashes) - MOST_CLASHES
    return [*clashes[:MOST_CLASHES], *([f"{n_hidden} more of this kind."] if n_hidden > 0 else [])]


def _suggest_drawing(spaces: Sequence[str]) -> str:
    names = list(dict.fromkeys(filter(None, spaces)))
    if len(names) < 2:
        return "Make that field a factor of the space, or collect its sweeps into separate tables."
    return (
        f"One figure cannot show these {len(names)} spaces. Draw each alone, by the folder of its sweep: 'orca-sweep analyse"
        f" FIGURE SUITE/{names[0]}' (spaces: {', '.join(names)}). The report of a suite shows a figure of each."
    )


# Drawing ------------------------------------------------------------------------------------------


def choose_styles(panels: Iterable[Panel]) -> dict[str, Style]:
    """Returns a style for each name of a line, the same in all panels; A/A cells are grey and hollow."""
    lines = {line.name: line for panel in panels for line in panel.lines}
    own = [name for name, line in lines.items() if line.role == "replicate"]
    made = {name: choose_style(i) for i, name in enumerate(own)}
    return made | {name: AA_STYLE for name in lines if name not in made}


def start_panel(slot: Slot, panel: Panel) -> bool:
    """Shows the axes of a slot with the title of its panel.

    Returns:
        Whether the panel has a result to draw; if it has none, the axes say so.
    """
    slot.show(panel.title)
    reason = explain_no_result(panel.lines)
    if reason:
        slot.write_words(reason)
    return reason is None


def shift_data(axis: Any, shift: float, across: bool = False) -> Any:
    """Returns the data transform of an axis, moved by points: to the right, or upwards if ``across``."""
    from matplotlib.transforms import ScaledTranslation

    x, y = (0.0, shift / 72) if across else (shift / 72, 0.0)
    return axis.transData + ScaledTranslation(x, y, axis.figure.dpi_scale_trans)


def draw_interval(
    axis: Any, at: float, interval: Interval, style: Style, across: bool = False, shift: float = 0
) -> None:
    """Draws a mean and its interval at a position, moved by ``shift`` points; along the x axis if ``across``."""
    for values, kind in (((interval.low, interval.high), "-"), ((interval.mean,), style.marker)):
        if all(map(math.isfinite, values)):
            positions = [at] * len(values)
            xs, ys = (values, positions) if across else (positions, values)
            looks = {"color": style.colour, "markerfacecolor": style.face}
            axis.plot(xs, ys, kind, transform=shift_data(axis, shift, across), **looks)
            axis.update_datalim(list(zip(xs, ys, strict=True)))
    axis.autoscale_view()


def draw_trend(axis: Any, xs: Sequence[float], ys: Sequence[float], style: Style, *, shift: float) -> None:
    """Draws the thin line that joins the means of a line, moved to the right by ``shift`` points."""
    axis.plot(xs, ys, style.line, color=style.colour, linewidth=0.8, alpha=0.7, transform=shift_data(axis, shift))


def spread_lines(n: int) -> list[float]:
    """Returns the offsets, in points, that put n lines side by side at one position."""
    step = min(5, 28 / max(1, n))
    return [step * (i - (n - 1) / 2) for i in range(n)]


def make_handles(lines: Iterable[tuple[str, Style]]) -> list[Any]:
    """Returns what a legend shows of lines with names and styles."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=style.colour,
            marker=style.marker,
            markerfacecolor=style.face,
            linestyle=style.line,
            label=name,
        )
        for name, style in lines
    ]


def equalise_limits(drawn: Iterable[tuple[str, Any]], which: str) -> None:
    """Gives the (task, axis) pairs of a task that have data the same x or y range, so that a reader can compare them."""
    by_task: dict[str, list[Any]] = {}
    for task, axis in drawn:
        if axis.has_data():
            by_task.setdefault(task, []).append(axis)
    for axes in by_task.values():
        limits = [getattr(axis, f"get_{which}lim")() for axis in axes]
        for axis in axes:
            getattr(axis, f"set_{which}lim")(min(low for low, _ in limits), max(high for _, high in limits))


# Words --------------------------------------------------------------------------------------------


def label_measure(column: str, panel: Panel) -> str:
    """Returns the words for a column of the trials table, with its unit, and a line that says so if higher is better."""
    splits = {"val": "validation", "test": "test"}
    split, _, epoch = column.partition("_metric_")
    name = splits[split] if split in splits and epoch else column
    higher = f"\n({describe_mode(panel.mode)})" if panel.mode == "max" else ""
    return f"{name} {with_unit(panel.metric, panel.unit)}{higher}" if name != column else f"{column}{higher}"


def with_unit(metric: str, unit: str) -> str:
    """Returns the name of a metric with its unit; 'metric' if no trial has a result yet."""
    return f"{metric} ({unit})" if metric and unit else metric or "metric"


def explain_no_result(lines: Iterable[Line]) -> str | None:
    """Returns what to write instead of a picture if no trial of the lines has a result; else None."""
    cells = [cell for line in lines for cell in line.cells]
    if any(cell.interval.n for cell in cells):
        return None
    n = sum(len(cell.trials) for cell in cells)
    return (
        f"no result yet: 0 of {n} {'trial is' if n == 1 else 'trials are'} ok"
        if n
        else "no result yet: there are only tuning candidates"
    )


def write_notes(facts: Facts, n_panels: int, own: Iterable[str] = ()) -> str:
    """Returns the caption of a figure: its own sentences, then what every figure must say about its rows."""
    epoch = {"best": "at the best-validated epoch; ", "last": "at the last epoch; "}
    sentences = [*own, f"{facts.column}: {epoch.get(facts.column.rpartition('_')[2], '')}{facts.better}."]
    sentences += [SINGLE] * (facts.most_n == 1)
    if facts.has_aa:
        sentences.append("aa: the reference cell repeated with other seeds.")
    sentences += [*[facts.scales] * bool(facts.scales), _describe_rows(facts), *facts.notes]
    if facts.tuned and facts.n_searched:
        sentences.append(
            f"{', '.join(facts.tuned)} tuned within each cell; no mean includes the"
            f" {count_things(facts.n_searched, 'tuning candidate')}."
        )
    if n_panels > MAX_PANELS:
        sentences.append(f"{n_panels - MAX_PANELS} more panels are in the CSV only.")
    return " ".join(sentences)


def _describe_rows(facts: Facts) -> str:
    if not facts.n_trials:
        return "So far there are only tuning candidates." if facts.n_searched else "There is no trial yet."
    if not facts.lacking:
        return f"All {facts.n_trials} trials are ok." if facts.n_trials > 1 else "The trial is ok."
    states = ", ".join(f"{n} {status}" for status, n in facts.lacking.items())
    scored = f", except {facts.n_worst} scored as the worst of their task" if facts.n_worst else ""
    n = sum(facts.lacking.values())
    return f"Not ok: {n} of {facts.n_trials} trials ({states}); no mean includes them{scored}."


# Numbers ------------------------------------------------------------------------------------------


def interval_fields(interval: Interval) -> tuple[int, float, float, float]:
    """Returns the fields n, mean, low, high of an interval."""
    return interval.n, interval.mean, interval.low, interval.high
