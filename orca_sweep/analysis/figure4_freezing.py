"""The form of figure 4: the final metric of every freeze schedule, with and without embedder training side by side.

Question: what do embedder and body each contribute, and what is lost where one of them is frozen?
There is one panel per task and combination of the other factors. It has a group of rows per freeze schedule (what is
frozen, and for how long), with a row per combination of the varied settings of embedder and proxy. The schedule ``none``
is the reference: dotted lines extend its means through all rows.
Dots are means over seeds, bars their Student-t intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.analysis import figures
from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.figure_style import PAGE, FigureStyle, Style
from orca_sweep.analysis.naive import NAIVE, is_naive, select_embedder_factors
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.writing import Output, format_csv_rows
from orca_sweep.config.freezing import states_length
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results, summarise_cells

NAME = "figure4_freezing"
FREEZE = "finetune.freeze"
FREEZE_EPOCHS = "finetune.freeze_epochs"
REFERENCE = "none"
"""The schedule that freezes nothing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell: a schedule with one way to train the embedder."""

    schedule: str
    line: str
    cell: Cell

    @property
    def is_reference(self) -> bool:
        """Whether nothing is frozen."""
        return self.cell.levels[FREEZE] == REFERENCE


@dataclass(frozen=True, kw_only=True)
class Figure4:
    """All panels with their rows, from top to bottom, and facts about their rows in the tables."""

    panels: tuple[figures.Panel, ...]
    rows: tuple[tuple[Row, ...], ...]
    by: tuple[str, ...]
    """The factors of embedder and proxy whose combinations are side by side."""
    facts: figures.Facts


def compute(results: Results, level: float = 0.95) -> Figure4:
    """Returns the rows of every panel: schedules in the order of the tables, the reference first.

    Raises:
        InputError: if the freeze schedule is not a factor, or two cells have the same levels.
    """
    figures.need_factor(results, FREEZE)
    results = compared_once(results)
    cells = summarise_cells(results, level=level)
    along = (FREEZE, FREEZE_EPOCHS)
    by = select_embedder_factors(results.factors)
    panels = figures.build_panels(cells, results, by, along)
    lengths = dict(zip(results.trials["cell_id"], results.trials[FREEZE_EPOCHS].map(write_level), strict=True))
    rows = tuple(_make_rows(panel, lengths) for panel in panels)
    return Figure4(panels=panels, rows=rows, by=by, facts=figures.collect_facts(results, cells, level))


def _make_rows(panel: figures.Panel, lengths: Mapping[str, str]) -> tuple[Row, ...]:
    rows = [
        Row(schedule=name_schedule(cell.label(FREEZE), lengths[cell.cell_id]), line=line.name, cell=cell)
        for line in panel.lines
        for cell in line.cells
    ]
    order = list(dict.fromkeys(row.schedule for row in rows))
    lines = [line.name for line in panel.lines]
    return tuple(sorted(rows, key=lambda row: (not row.is_reference, order.index(row.schedule), lines.index(row.line))))


def name_schedule(freeze: str, length: str) -> str:
    """Returns the name of a schedule: what is frozen and for how long, or the text of the space if that says both."""
    if freeze == REFERENCE or length == "0" or states_length(freeze):
        return freeze
    return f"{freeze}, forever" if length == "forever" else f"{freeze}, {length} epoch{'s' * (length != '1')}"


# Picture ------------------------------------------------------------------------------------------


def plot(figure: Figure4, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: one panel of dots and intervals per task and other factors."""
    panels = figure.panels[: figures.MAX_PANELS]
    looks = figures.choose_styles(panels)
    with open_sheet(style, write_caption(figure)) as sheet:
        slots = sheet.add_grid(len(panels), style.count_columns(max(1, len(panels)), ems=38, most=2))
        if not panels:
            slots[0].write_words(figures.NO_TRIAL)
        for i, (slot, _) in enumerate(zip(slots, panels, strict=False)):
            _plot_panel(slot, figure, i, looks)
        figures.equalise_limits([(p.task, slot.axis) for p, slot in zip(panels, slots, strict=False)], "x")
    return sheet.figure


def _plot_panel(slot: Slot, figure: Figure4, i: int, looks: Mapping[str, Style]) -> None:
    panel, rows = figure.panels[i], figure.rows[i]
    if not figures.start_panel(slot, panel):
        return
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.schedule, []).append(row)
    positions = slot.place_rows(
        [
            RowGroup(label=name + " (reference)" * members[0].is_reference, notes=tuple(map(_label_count, members)))
            for name, members in groups.items()
        ],
        is_shaded=True,
    )
    for row, y in zip((row for members in groups.values() for row in members), positions, strict=True):
        figures.draw_interval(slot.axis, y, row.cell.interval, looks[row.line], across=True)
    _plot_reference(slot.axis, rows, looks)
    slot.label_y("frozen, for how long")
    slot.label_x(figures.label_measure(figure.facts.column, panel))
    if figure.by or len(panel.lines) > 1:
        lines = [(_line_name(line), replace(looks[line.name], line="none")) for line in panel.lines]
        slot.add_legend(figures.make_handles(lines), ", ".join(figure.by))


def _plot_reference(axis: Any, rows: Sequence[Row], looks: Mapping[str, Style]) -> None:
    for row in rows:
        if row.is_reference and row.cell.role == "replicate" and row.cell.interval.n:
            axis.axvline(row.cell.interval.mean, color=looks[row.line].colour, linestyle=":", linewidth=1, zorder=1)


def _line_name(line: figures.Line) -> str:
    """The label of a line, with or without embedder training where the sweep varies that."""
    if any(map(is_naive, line.cells)):
        return f"without embedder training: {line.label}"
    return f"with embedder training: {line.label}" if set(line.cells[0].levels) & set(NAIVE) else line.label


def _label_count(row: Row) -> str:
    lacking = f", {row.cell.n_not_ok} not ok" if row.cell.n_not_ok else ""
    return f"n = {row.cell.interval.n}{lacking}"


def write_caption(figure: Figure4) -> str:
    """Returns what the figure shows, over how many trials, and what is missing."""
    own = f"Means over n seeds; bars: their {figure.facts.level:.0%} Student-t intervals (none where n = 1)."
    if any(row.is_reference for rows in figure.rows for row in rows):
        own += " Dotted: the means of the reference, which freezes nothing."
    return figures.write_notes(figure.facts, len(figure.panels), [own])


def numbers(figure: Figure4) -> str:
    """Returns every number of the figure as CSV, one line per row."""
    head = (
        "panel",
        "cell_id",
        "schedule",
        ", ".join(figure.by) or "line",
        "what",
        "n",
        "mean",
        "low",
        "high",
        "n_not_ok",
    )
    return format_csv_rows(
        head,
        (
            (
                *(panel.title, row.cell.cell_id, row.schedule, row.line, figure.facts.column),
                *(*figures.interval_fields(row.cell.interval), row.cell.n_not_ok),
            )
            for panel, rows in zip(figure.panels, figure.rows, strict=True)
            for row in rows
        ),
    )


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    figure = compute(results, **asked)
    return Output(numbers=numbers(figure), figure=plot(figure, style), caption=write_caption(figure))
