"""What the figures share: how cells become lines and panels, how these look, and what the notes below must say.

The module of a figure computes a frozen record from tables, draws it, and writes its numbers as CSV. Only functions that
draw import Matplotlib, and none of them changes its global state.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.naive import is_naive
from orca_sweep.analysis.tables import describe_scales
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import Interval
from orca_sweep.stats.modes import Mode, describe_mode

MAX_PANELS = 12
# Readers with any colour vision can distinguish Okabe & Ito's colours, and markers distinguish lines without colour.
# 8 and 9 have no common factor, so a pair of colour and marker repeats only after 72 lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
GREY = "#666666"
LOOK: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "lines.markersize": 5,
    "svg.hashsalt": "orca-sweep",  # the same numbers give the same file
    "text.parse_math": False,  # levels are words of users, and a dollar sign is just a dollar sign
}

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
    notes: tuple[str, ...] = ()
    """Which rows were left out."""
    scales: str = ""
    """A sentence on the scale of intervals whose metric is bounded; empty without bounds."""
    better: str = describe_mode("min")
    """Whether lower or higher is better; per task where tasks differ."""


def collect_facts(results: Results, cells: Sequence[Cell], level: float) -> Facts:
    """Returns what a figure must say about the rows of its cells; tuning candidates are counted separately."""
    statuses: Counter[str] = Counter()
    for cell in cells:
        statuses.update(cell.status_counts)
    return Facts(
        column=results.metric,
        level=level,
        n_trials=sum(statuses.values()),
        lacking={status: n for status, n in statuses.items() if status != "ok"},
        n_worst=sum(cell.n_worst for cell in cells),
        n_searched=sum(cell.n_searched for cell in cells),
        tuned=results.tuned,
        has_aa=any(cell.role == "aa" for cell in cells),
        notes=results.notes,
        scales=describe_scales({cell.task: cell.bounds for cell in cells}),
        better=describe_modes({cell.task: cell.mode for cell in cells}),
    )


def describe_modes(modes: Mapping[str, Mode]) -> str:
    """Returns 'lower is better', or 'lower is better in digits, higher is better in ecg'."""
    tasks: dict[Mode, list[str]] = {}
    for task, mode in modes.items():
        tasks.setdefault(mode, []).append(shorten_label(task))
    if len(tasks) < 2:
        return describe_mode(next(iter(tasks), "min"))
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
    cells: Iterable[Cell], factors: Iterable[str], by: Sequence[str], along: Sequence[str] = ()
) -> tuple[Panel, ...]:
    """Returns the cells as panels of lines: ``by`` are the factors of the lines, ``along`` those of an axis.

    Raises:
        InputError: if two cells have the same levels: their sweeps differ in a field that is not a factor.
    """
    remaining = [path for path in factors if path not in (*by, *along, "task")]
    grouped = _group_cells(cells, remaining, by, along)
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
) -> dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]]:
    """Groups cells by panel, then by level and role of their line."""
    grouped: dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]] = {}
    first_ids: dict[tuple[str, ...], str] = {}
    problems: dict[str, None] = {}
    for cell in cells:
        panel = (cell.task, *map(cell.label, remaining))
        level = ", ".join(map(cell.label, by)) or "all trials"
        key = (*panel, level, cell.role, *map(cell.label, along))
        if first_ids.setdefault(key, cell.cell_id) != cell.cell_id:
            problems[_explain_clash(first_ids[key], cell)] = None
        grouped.setdefault(panel, {}).setdefault((level, cell.role), []).append(cell)
    if problems:
        raise InputError(list(problems))
    return grouped


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


def _explain_clash(first: str, cell: Cell) -> str:
    levels = ", ".join(f"{path} {cell.label(path)}" for path in cell.levels)
    return (
        f"cells {first} and {cell.cell_id} have the same levels ({levels or 'no factors'}): they differ in a field that is"
        " not a factor. Draw the tables of each sweep separately, or make that field a factor of one space."
    )


# Look ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a line looks."""

    colour: str
    marker: str
    face: str


AA_STYLE = Style(colour=GREY, marker="o", face="white")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The size of a figure in inches, and the grid of its axes."""

    width: float
    height: float
    rows: int
    columns: int
    height_ratios: Sequence[float] | None = None
    """Of the rows, where they differ."""
    width_ratios: Sequence[float] | None = None
    """Of the columns, where they differ."""


def choose_styles(panels: Iterable[Panel]) -> dict[str, Style]:
    """Returns a style for each name of a line, the same in all panels; A/A cells are grey and hollow."""
    lines = {line.name: line for panel in panels for line in panel.lines}
    own = [name for name, line in lines.items() if line.role == "replicate"]
    made = {}
    for i, name in enumerate(own):
        colour = COLOURS[i % len(COLOURS)]
        made[name] = Style(colour=colour, marker=MARKERS[i % len(MARKERS)], face=colour)
    return made | {name: AA_STYLE for name in lines if name not in made}


def use_look() -> AbstractContextManager[None]:
    """Returns a context that gives what is drawn in it the common look of the figures."""
    import matplotlib

    return matplotlib.rc_context(LOOK)


def arrange_panels(n: int) -> tuple[int, int]:
    """Returns the rows and columns that hold n panels."""
    columns = 2 if n == 4 else max(1, min(3, n))
    return max(1, math.ceil(n / columns)), columns


def draw_figure(
    layout: Layout, panels: Sequence[Panel], draw: Callable[[Any, Mapping[str, Style]], None], notes: str
) -> Any:
    """Returns a matplotlib figure of panels with notes below it.

    Args:
        layout: its size and grid.
        panels: the panels to draw; without any, the figure says that there is no trial yet.
        draw: draws all panels, given the (rows, columns) axes and the style of each line by name.
        notes: the text below the figure.
    """
    with use_look():
        made, axes = make_canvas(layout)
        draw(axes, choose_styles(panels))
        if not panels:
            write_words(axes[0][0], "there is no trial yet")
        write_below(made, notes)
    return made


def draw_grid(axes: Any, panels: Sequence[Panel], draw_panel: Callable[[Any, int], None], which: str) -> None:
    """Draws each panel on an axis of its own, row by row; panels of a task share the range of the x or y axis."""
    used = list(zip(axes.flat, panels, strict=False))
    for i, (axis, _) in enumerate(used):
        draw_panel(axis, i)
    equalise_limits([(panel.task, axis) for axis, panel in used], which)


def start_panel(axis: Any, panel: Panel, width: int) -> bool:
    """Shows an axis with the title of its panel, ``width`` characters to a line.

    Returns:
        Whether the panel has a result to draw; if it has none, the axis says so.
    """
    axis.set_visible(True)
    axis.set_title(textwrap.fill(panel.title, width, max_lines=4, placeholder=" …"))
    reason = explain_no_result(panel.lines)
    if reason:
        write_words(axis, reason)
    return reason is None


def make_canvas(layout: Layout) -> tuple[Any, Any]:
    """Returns an empty figure and its (rows, columns) axes, which are still hidden."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(layout.width, layout.height), layout=engine)
    axes = figure.subplots(
        layout.rows,
        layout.columns,
        squeeze=False,
        height_ratios=layout.height_ratios,
        width_ratios=layout.width_ratios,
    )
    for axis in axes.flat:
        axis.set_visible(False)
        axis.tick_params(labelsize=LOOK["font.size"])  # ticks are made when the figure is saved, outside of its look
    return figure, axes


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
            looks = {"color": style.colour, "markerfacecolor": style.face, "linewidth": 1.4}
            axis.plot(xs, ys, kind, transform=shift_data(axis, shift, across), **looks)
            axis.update_datalim(list(zip(xs, ys, strict=True)))
    axis.autoscale_view()


def draw_trend(axis: Any, xs: Sequence[float], ys: Sequence[float], style: Style, *, shift: float) -> None:
    """Draws the thin line that joins the means of a line, moved to the right by ``shift`` points."""
    axis.plot(xs, ys, color=style.colour, linewidth=0.9, alpha=0.7, transform=shift_data(axis, shift))


def spread_lines(n: int) -> list[float]:
    """Returns the offsets, in points, that put n lines side by side at one position."""
    step = min(5, 28 / max(1, n))
    return [step * (i - (n - 1) / 2) for i in range(n)]


def choose_spaced(positions: Sequence[float], share: float) -> list[int]:
    """Returns the indices of ascending positions that leave room for labels: more than a share of the range apart."""
    kept: list[int] = []
    for i, position in enumerate(positions):
        if not kept or position - positions[kept[-1]] > share * (positions[-1] - positions[0]):
            kept.append(i)
    return kept


def add_legend(axis: Any, lines: Sequence[tuple[str, Style]], title: str, gap: float = 42, top: bool = False) -> None:
    """Adds a legend of names and styles ``gap`` points below an axis, or below its upper edge if ``top``."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, markerfacecolor=style.face, linewidth=1.4, label=name)
        for name, style in lines
    ]
    below = axis.transAxes + ScaledTranslation(0, -gap / 72, axis.figure.dpi_scale_trans)
    anchor = {"loc": "upper left", "bbox_to_anchor": (0, int(top)), "bbox_transform": below, "borderaxespad": 0}
    axis.legend(handles=handles, title=title or None, alignment="left", **anchor)


def write_words(axis: Any, words: str) -> None:
    """Writes words on an axis that has nothing to draw."""
    axis.set_visible(True)
    axis.set(xticks=[], yticks=[])
    axis.text(0.5, 0.5, textwrap.fill(words, 40), ha="center", va="center", color=GREY, transform=axis.transAxes)


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
    return f"no result yet: 0 of {n} trials are ok" if n else "no result yet: there are only tuning candidates"


def write_notes(facts: Facts, n_panels: int, own: Iterable[str] = ()) -> str:
    """Returns the text below a figure: its own sentences, then what every figure must say about its rows."""
    epoch = {"best": "at the best-validated epoch; ", "last": "at the last epoch; "}
    sentences = [*own, f"{facts.column}: {epoch.get(facts.column.rpartition('_')[2], '')}{facts.better}."]
    if facts.has_aa:
        sentences.append("aa: the reference cell repeated with other seeds.")
    sentences += [*[facts.scales] * bool(facts.scales), _describe_rows(facts), *facts.notes]
    if facts.tuned:
        sentences.append(
            f"{', '.join(facts.tuned)} tuned within each cell; no mean includes the {facts.n_searched} tuning candidates."
        )
    if n_panels > MAX_PANELS:
        sentences.append(f"{n_panels - MAX_PANELS} more panels are in the CSV only.")
    return " ".join(sentences)


def _describe_rows(facts: Facts) -> str:
    if not facts.n_trials:
        return "So far there are only tuning candidates." if facts.n_searched else "There is no trial yet."
    if not facts.lacking:
        return f"All {facts.n_trials} trials are ok."
    states = ", ".join(f"{n} {status}" for status, n in facts.lacking.items())
    scored = f", except {facts.n_worst} scored as the worst of their task" if facts.n_worst else ""
    n = sum(facts.lacking.values())
    return f"Not ok: {n} of {facts.n_trials} trials ({states}); no mean includes them{scored}."


def write_below(figure: Any, words: str) -> None:
    """Writes notes below a figure, over its whole width."""
    width = int(figure.get_figwidth() * 17)
    figure.supxlabel(textwrap.fill(words, width), x=0.01, ha="left", fontsize=7, color="#333333")


# Numbers ------------------------------------------------------------------------------------------


def interval_fields(interval: Interval) -> tuple[int, float, float, float]:
    """Returns the fields n, mean, low, high of an interval."""
    return interval.n, interval.mean, interval.low, interval.high
