"""What the figures share: from cells to lines and panels, how they look, and what they must say.

A figure's module computes a frozen record from tables, draws it, and gives the record's numbers as CSV. Matplotlib is
imported where something is drawn and nowhere else, and nothing that it draws with is global.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.config import embedder_training_fields, naive_settings
from orca_sweep.config.labels import shorten_labels, write_level
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import Interval
from orca_sweep.stats.modes import Mode, describe_mode

MAX_PANELS = 12
# Okabe & Ito's colours are told apart with any colour vision; markers tell lines apart without colour. Their numbers
# have no common factor, so that a pair comes back after 72 lines only.
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
    "svg.hashsalt": "orca-sweep",  # equal numbers, equal files
}
NAIVE = {path: write_level(value) for path, value in naive_settings().items()}
"""What a cell without embedder training has for the fields that say so."""


# Cells, lines, panels -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The cells of one panel that a reader's eye follows: one combination of levels, or an A/A cell."""

    level: str
    role: str
    cells: tuple[Cell, ...]
    short: str = ""
    """The level as a picture has room for it, other than that of any other line."""

    @property
    def name(self) -> str:
        """The level; an A/A cell has another name than the cell that it repeats."""
        return self.level if self.role == "replicate" else f"{self.level} ({self.role})"

    @property
    def label(self) -> str:
        """The name as a picture has room for it, and what it means."""
        marks = ["naive"] * all(map(is_naive, self.cells)) + [self.role] * (self.role != "replicate")
        return (self.short or shorten_label(self.level)) + (f" ({', '.join(marks)})" if marks else "")

    @property
    def n_text(self) -> str:
        """Over how many replicates the line's means are."""
        counts = sorted({cell.interval.n for cell in self.cells})
        return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


@dataclass(frozen=True)
class Panel:
    """The lines of one task and one combination of those factors that have no place of their own in the figure."""

    title: str
    task: str
    metric: str
    lines: tuple[Line, ...]
    mode: Mode = "min"
    unit: str = ""


@dataclass(frozen=True)
class Facts:
    """What a figure must say of the rows behind it."""

    column: str
    level: float
    """Of confidence."""
    n_trials: int
    lacking: Mapping[str, int]
    """Trials that are not ok, by status."""
    n_worst: int
    n_searched: int
    tuned: tuple[str, ...]
    has_aa: bool
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""
    better: str = describe_mode("min")
    """Which way round the metric is compared, in words; of each task where they differ in it."""


def collect_facts(results: Results, cells: Sequence[Cell], level: float) -> Facts:
    """Returns what is to be said of the cells' rows; candidates of tuning are counted apart."""
    statuses = add_up(cell.status_counts for cell in cells)
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


def add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sums of counts by status."""
    total: dict[str, int] = {}
    for one in counts:
        for status, n in one.items():
            total[status] = total.get(status, 0) + n
    return total


def need_factor(results: Results, path: str) -> None:
    """Checks that a sweep varied what the figure is about.

    Raises:
        InputError: naming the factors that the tables have.
    """
    if path not in results.factors:
        known = ", ".join(results.factors) or "none"
        raise InputError(
            f"{', '.join(results.spaces) or 'these tables'}: {path!r} is no factor of this sweep. Its factors: {known}."
            f" Give {path} two or more levels, or draw figure2_proxies, which takes any factor."
        )


def shorten_label(level: str, width: int = 36) -> str:
    """Returns a level that fits into a picture: without the folders before a file, and cut in its middle."""
    return shorten_labels([level], width)[level]


def embedding_factors(factors: Iterable[str]) -> tuple[str, ...]:
    """Returns those factors that are about embedder and proxy: their combinations are one treatment."""
    return tuple(path for path in factors if path == "proxy" or path.startswith("embedder."))


def is_naive(cell: Cell) -> bool:
    """Whether a cell does without embedder training, as far as its factors tell."""
    return any(write_level(cell.levels[path]) == level for path, level in NAIVE.items() if path in cell.levels)


def with_naive(cells: Sequence[Cell], factors: Iterable[str], own: Iterable[str]) -> tuple[Cell, ...]:
    """Returns the cells with each naive one as the baseline of every treatment that it is the baseline of.

    Without embedder training its settings have no effect and stand at one value, so a naive cell would be drawn apart
    from what it is to be compared with. It takes on the levels of trained cells that agree with it in all else; not
    of the factors in ``own``.
    """
    training = [path for path in embedding_factors(factors) if path in embedder_training_fields()]
    taken = [path for path in training if path not in own]
    trained_cells: dict[tuple[str, ...], dict[tuple[str, ...], Cell]] = {}
    for cell in cells:
        if not is_naive(cell):
            trained_cells.setdefault(_apart_from(training, cell), {}).setdefault(tuple(map(cell.label, taken)), cell)
    spread: list[Cell] = []
    for cell in cells:
        found = trained_cells.get(_apart_from(training, cell), {}).values() if is_naive(cell) else ()
        spread += [_with_levels(cell, trained, taken) for trained in found] or [cell]
    return tuple(spread)


def _with_levels(cell: Cell, other: Cell, paths: Iterable[str]) -> Cell:
    paths = list(paths)
    levels = {path: other.levels[path] for path in paths}
    labels = {path: other.label(path) for path in paths}
    return replace(cell, levels={**cell.levels, **levels}, labels={**cell.labels, **labels})


def _apart_from(paths: Sequence[str], cell: Cell) -> tuple[str, ...]:
    return (cell.task, *(cell.label(path) for path in cell.levels if path not in paths))


def panels_of(
    cells: Iterable[Cell], factors: Iterable[str], by: Sequence[str], along: Sequence[str] = ()
) -> tuple[Panel, ...]:
    """Returns the cells in panels and lines: ``by`` are the lines' factors, ``along`` those of an axis.

    Raises:
        InputError: if two cells have one place: their sweeps differ in what is no factor.
    """
    others = [path for path in factors if path not in (*by, *along, "task")]
    made: dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]] = {}
    places: dict[tuple[str, ...], str] = {}
    problems: dict[str, None] = {}
    for cell in cells:
        panel = (cell.task, *map(cell.label, others))
        level = ", ".join(map(cell.label, by)) or "all trials"
        place = (*panel, level, cell.role, *map(cell.label, along))
        if places.setdefault(place, cell.cell_id) != cell.cell_id:
            problems[_same_place(places[place], cell)] = None
        made.setdefault(panel, {}).setdefault((level, cell.role), []).append(cell)
    if problems:
        raise InputError(list(problems))
    short_keys = [shorten_labels(column, 36) for column in zip(*made, strict=True)]
    short_lines = shorten_labels([level for lines in made.values() for level, _ in lines], 36)
    return tuple(
        _make_panel(
            [short[level] for short, level in zip(short_keys, key, strict=True)],
            others,
            [Line(level, role, tuple(of), short_lines[level]) for (level, role), of in lines.items()],
        )
        for key, lines in made.items()
    )


def _make_panel(key: Sequence[str], others: Sequence[str], lines: Sequence[Line]) -> Panel:
    """The panel of lines; ``key`` is its task and its levels of the other factors, as a title has room for them."""
    named = [f"{path} {level}" for path, level in zip(others, key[1:], strict=True)]
    cells = [cell for line in lines for cell in line.cells]
    metric = next((cell.metric for cell in cells if cell.metric), "")
    return Panel(", ".join([key[0], *named]), cells[0].task, metric, tuple(lines), cells[0].mode, cells[0].unit)


def _same_place(first: str, cell: Cell) -> str:
    levels = ", ".join(f"{path} {cell.label(path)}" for path in cell.levels)
    return (
        f"cells {first} and {cell.cell_id} have the same levels ({levels or 'no factors'}): they differ in a field that is"
        " no factor. Draw the tables of each sweep by themselves, or make that field a factor of one space."
    )


# Look ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How a line looks; an A/A cell is hollow and grey."""

    colour: str
    marker: str
    face: str


def choose_styles(panels: Iterable[Panel]) -> dict[str, Style]:
    """Returns a style for every line's name, the same in all panels."""
    lines = {line.name: line for panel in panels for line in panel.lines}
    own = [name for name, line in lines.items() if line.role == "replicate"]
    made = {}
    for i, name in enumerate(own):
        colour = COLOURS[i % len(COLOURS)]
        made[name] = Style(colour, MARKERS[i % len(MARKERS)], colour)
    return made | {name: Style(GREY, "o", "white") for name in lines if name not in made}


def use_look() -> AbstractContextManager[None]:
    """Returns a context in which things drawn have the figures' common look."""
    import matplotlib

    return matplotlib.rc_context(LOOK)


def arrange_panels(n: int) -> tuple[int, int]:
    """Returns the rows and columns that hold n panels."""
    columns = 2 if n == 4 else max(1, min(3, n))
    return max(1, math.ceil(n / columns)), columns


def make_canvas(width: float, height: float, rows: int, columns: int, **ratios: Any) -> tuple[Any, Any]:
    """Returns an empty figure of that size (inches) and its (rows, columns) axes, all of them still hidden."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False, **ratios)
    for axis in axes.flat:
        axis.set_visible(False)
        axis.tick_params(labelsize=LOOK["font.size"])  # ticks are made when a figure is drawn, outside of its look
    return figure, axes


def shift_data(axis: Any, shift: float, across: bool = False) -> Any:
    """Returns the transform of an axis' data moved by points: to the right, or ``across``: upwards."""
    from matplotlib.transforms import ScaledTranslation

    x, y = (0.0, shift / 72) if across else (shift / 72, 0.0)
    return axis.transData + ScaledTranslation(x, y, axis.figure.dpi_scale_trans)


def draw_interval(
    axis: Any, at: float, interval: Interval, style: Style, across: bool = False, shift: float = 0
) -> None:
    """Draws a mean and its interval at a place, beside it by ``shift`` points; ``across``: along the x axis."""
    for values, kind in (((interval.low, interval.high), "-"), ((interval.mean,), style.marker)):
        if all(map(math.isfinite, values)):
            places = [at] * len(values)
            xs, ys = (values, places) if across else (places, values)
            looks = {"color": style.colour, "markerfacecolor": style.face, "linewidth": 1.4}
            axis.plot(xs, ys, kind, transform=shift_data(axis, shift, across), **looks)
            axis.update_datalim(list(zip(xs, ys, strict=True)))
    axis.autoscale_view()


def draw_trend(axis: Any, xs: Sequence[float], ys: Sequence[float], style: Style, shift: float) -> None:
    """Draws the thin line that joins a line's means."""
    axis.plot(xs, ys, color=style.colour, linewidth=0.9, alpha=0.7, transform=shift_data(axis, shift))


def spread_lines(n: int) -> list[float]:
    """Returns offsets in points by which n lines stand beside each other at one place."""
    step = min(5, 28 / max(1, n))
    return [step * (i - (n - 1) / 2) for i in range(n)]


def choose_spaced(places: Sequence[float], share: float) -> list[int]:
    """Returns which of rising places are so far apart that labels fit: by at least a share of their range."""
    kept: list[int] = []
    for i, place in enumerate(places):
        if not kept or place - places[kept[-1]] > share * (places[-1] - places[0]):
            kept.append(i)
    return kept


def legend_under(axis: Any, lines: Sequence[tuple[str, Style]], title: str, gap: float = 42, top: bool = False) -> None:
    """Adds a legend of names and styles below an axis, ``gap`` points under it; ``top``: under its upper edge."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, markerfacecolor=style.face, linewidth=1.4, label=name)
        for name, style in lines
    ]
    below = axis.transAxes + ScaledTranslation(0, -gap / 72, axis.figure.dpi_scale_trans)
    place = {"loc": "upper left", "bbox_to_anchor": (0, int(top)), "bbox_transform": below, "borderaxespad": 0}
    axis.legend(handles=handles, title=title or None, alignment="left", **place)


def write_words(axis: Any, words: str) -> None:
    """Writes what is to be known where there is nothing to draw."""
    axis.set_visible(True)
    axis.set(xticks=[], yticks=[])
    axis.text(0.5, 0.5, textwrap.fill(words, 40), ha="center", va="center", color=GREY, transform=axis.transAxes)


def same_limits(drawn: Iterable[tuple[str, Any]], which: str) -> None:
    """Gives the axes of one task that have something on them one range, so that they can be compared by eye."""
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
    """Returns what a column of the trials table holds, in words, with its unit and, if so, that higher is better."""
    splits = {"val": "validation", "test": "test"}
    split, _, epoch = column.partition("_metric_")
    name = splits[split] if split in splits and epoch else column
    higher = f"\n({describe_mode(panel.mode)})" if panel.mode == "max" else ""
    return f"{name} {with_unit(panel.metric, panel.unit)}{higher}" if name != column else f"{column}{higher}"


def with_unit(metric: str, unit: str) -> str:
    """Returns a metric's name with its unit; a sweep without any result does not know its metric."""
    return f"{metric} ({unit})" if metric and unit else metric or "metric"


def nothing_yet(lines: Iterable[Line]) -> str | None:
    """Returns what to say in place of a picture if none of the lines' trials has a result."""
    cells = [cell for line in lines for cell in line.cells]
    if any(cell.interval.n for cell in cells):
        return None
    n = sum(len(cell.trials) for cell in cells)
    return f"no result yet: 0 of {n} trials are ok" if n else "no result yet: there are only trials of the search"


def write_notes(facts: Facts, n_panels: int, *own: str) -> str:
    """Returns the text below a figure: its own sentences, then what every figure must say of its rows."""
    epoch = {"best": "at the best-validated epoch; ", "last": "at the last epoch; "}
    said = [*own, f"{facts.column}: {epoch.get(facts.column.rpartition('_')[2], '')}{facts.better}."]
    if facts.has_aa:
        said.append("aa: the reference cell again, with seeds of its own.")
    said += [_about_rows(facts), *facts.notes]
    if facts.tuned:
        said.append(
            f"{', '.join(facts.tuned)} searched within each cell; the {facts.n_searched} trials of the search are in no mean."
        )
    if n_panels > MAX_PANELS:
        said.append(f"{n_panels - MAX_PANELS} more panels are in the CSV only.")
    return " ".join(said)


def _about_rows(facts: Facts) -> str:
    if not facts.n_trials:
        return "There is no trial yet, but those of the search." if facts.n_searched else "There is no trial yet."
    if not facts.lacking:
        return f"All {facts.n_trials} trials are ok."
    states = ", ".join(f"{n} {status}" for status, n in facts.lacking.items())
    scored = f", but for {facts.n_worst} scored as the worst of their task" if facts.n_worst else ""
    n = sum(facts.lacking.values())
    return f"Not ok: {n} of {facts.n_trials} trials ({states}); left out of all means{scored}."


def write_below(figure: Any, words: str) -> None:
    """Puts notes below a figure, as wide as it is."""
    width = int(figure.get_figwidth() * 17)
    figure.supxlabel(textwrap.fill(words, width), x=0.01, ha="left", fontsize=7, color="#333333")


# Numbers ------------------------------------------------------------------------------------------


def interval_fields(interval: Interval) -> tuple[int, float, float, float]:
    """Returns an interval as the four fields n, mean, low, high."""
    return interval.n, interval.mean, interval.low, interval.high
