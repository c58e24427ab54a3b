"""Which source of randomness the spread over seeds comes from: cells that differ in ``seed_varies`` alone.

No script: seed_noise shows it beside the spread of every cell.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.compared import DEFAULT, PATH, meaning
from orca_sweep.analysis.figures import COLOURS
from orca_sweep.analysis.tables import describe_completeness, wrap_title
from orca_sweep.analysis.writing import NOTHING, Record, Table, decimals_of, format_csv, format_number, format_percent
from orca_sweep.results import Cell, Results
from orca_sweep.stats import SdInterval, VarianceRatio, sd_interval, variance_ratio

WHOLES = ("everything", DEFAULT)
"""Levels at which many sources vary at once, the one with most first."""
OUTSIDE = ("data-split", "pre-training")
"""Sources that are no part of ``all``."""


@dataclass(frozen=True)
class Source:
    """The spread over seeds of one cell, and what share it is of the spread in which all varies."""

    cell: Cell
    varies: str
    spread: SdInterval
    """Over the seeds that there are."""
    n_states: int
    """Different weights among them; 0 if that is not known."""
    share: VarianceRatio | None
    """Of variances; None of the whole itself, and where there is none."""

    @property
    def is_alone(self) -> bool:
        """Whether it is one source, not several."""
        return self.varies not in WHOLES

    def is_in(self, whole: str) -> bool:
        """Whether it is one of the sources that vary in a whole."""
        return self.is_alone and (whole == WHOLES[0] or self.varies not in OUTSIDE)


@dataclass(frozen=True)
class SourceGroup:
    """Cells of one task that differ in what the run seed varies and in nothing else."""

    levels: Mapping[str, str]
    """Those that they have in common."""
    whole: Source | None
    rest: tuple[Source, ...]
    """The largest spread first; one that is not known comes last."""
    total: VarianceRatio | None
    """The sum of the variances of the single sources in the whole over its own; None without a whole, or without any."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The whole first."""
        return (self.whole, *self.rest) if self.whole else self.rest

    @property
    def added_sources(self) -> tuple[Source, ...]:
        """The single sources that the total is the sum of."""
        return tuple(source for source in self.rest if self.whole and source.is_in(self.whole.varies))


def read_varied(cell: Cell) -> str:
    """Returns what the run seed varies in a cell."""
    return meaning(cell.labels.get(PATH, DEFAULT))


def count_states(results: Results) -> dict[str, int]:
    """Returns how many different weights the ok trials of each cell have ended with."""
    trials = results.trials
    if "state_sha256" not in trials:
        return {}
    ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
    return {str(cell): int(n) for cell, n in ok.groupby("cell_id")["state_sha256"].nunique().items()}


def sources_of(cells: Sequence[Cell], n_states: Mapping[str, int], level: float) -> tuple[SourceGroup, ...]:
    """Returns the groups of a task's cells that differ in ``seed_varies`` alone; none where nothing does."""
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        levels = tuple((path, text) for path, text in cell.labels.items() if path != PATH)
        groups.setdefault(levels, []).append(cell)
    return tuple(
        _compare_sources(dict(levels), same, n_states, level)
        for levels, same in groups.items()
        if len(set(map(read_varied, same))) > 1
    )


def _compare_sources(
    levels: Mapping[str, str], cells: Sequence[Cell], n_states: Mapping[str, int], level: float
) -> SourceGroup:
    spreads = {cell.cell_id: sd_interval(cell.known_values, level) for cell in cells}
    by_varied = {read_varied(cell): cell for cell in cells}
    whole_cell = next((by_varied[name] for name in WHOLES if name in by_varied), None)
    of = spreads[whole_cell.cell_id] if whole_cell else None

    def source(cell: Cell) -> Source:
        own = spreads[cell.cell_id]
        share = variance_ratio([own], of, level) if of and cell is not whole_cell else None
        return Source(cell, read_varied(cell), own, n_states.get(cell.cell_id, 0), share)

    rest = [source(cell) for cell in cells if cell is not whole_cell]
    rest.sort(key=lambda source: -source.spread.sd if math.isfinite(source.spread.sd) else math.inf)
    made = SourceGroup(levels, source(whole_cell) if whole_cell else None, tuple(rest), None)
    if of is None or not made.added_sources:
        return made
    total = variance_ratio([source.spread for source in made.added_sources], of, level)
    return SourceGroup(levels, made.whole, made.rest, total)


# Numbers ------------------------------------------------------------------------------------------

COLUMNS = (
    "task", "cell_id", "cell", "column", "metric", "varies", "n", "n_planned", "sd_over_seeds", "sd_low", "sd_high", "all_equal",
    "n_states", "whole", "share_of_variance", "share_low", "share_high", "is_added", "sum_of_shares", "sum_low", "sum_high",
    "interval",
)  # fmt: skip


def numbers(column: str, level: float, tasks: Sequence[tuple[str, str, Sequence[SourceGroup]]]) -> str:
    """Returns the spread by source as CSV, of (task, metric, its groups)."""
    records = [
        _make_record(column, level, task, metric, group, source)
        for task, metric, groups in tasks
        for group in groups
        for source in group.sources
    ]
    return format_csv(records, COLUMNS)


def _make_record(column: str, level: float, task: str, metric: str, group: SourceGroup, source: Source) -> Record:
    spread, share, total = source.spread, source.share, group.total
    values = (
        task, source.cell.cell_id, describe_levels(group), column, metric, source.varies,
        spread.n, len(source.cell.values), spread.sd,
        spread.low, spread.high, spread.is_zero, source.n_states or None, group.whole.varies if group.whole else None,
        *((share.ratio, share.low, share.high) if share else (None, None, None)), source in group.added_sources,
        *((total.ratio, total.low, total.high) if total else (None, None, None)),
        f"{format_percent(level)}: chi-squared limits of the sd, F limits of shares",
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def describe_levels(group: SourceGroup) -> str:
    """Returns the levels that a group has in common."""
    return ", ".join(f"{path} {text}" for path, text in group.levels.items()) or "all trials"


# Table --------------------------------------------------------------------------------------------


def build_table(name: str, task: str, of: str, level: float, group: SourceGroup) -> Table:
    """Returns the spread by source as a table; ``of`` is the column and its metric."""
    decimals = decimals_of(source.spread.sd for source in group.sources)
    whole = group.whole
    limits = f"{format_percent(level)} interval"
    head = (PATH, "n", "sd", limits, *((f"share of {whole.varies}", limits) if whole else ()))
    rows = [_build_row(source, decimals, whole) for source in group.sources]
    return Table(
        name=name,
        title=f"{task}: seed noise by source" + (f" ({describe_levels(group)})" if group.levels else ""),
        caption=_write_caption(of, level, group),
        head=head,
        align="l" + "r" * (len(head) - 1),
        blocks=(tuple(rows[:1]), tuple(rows[1:])) if whole else (tuple(rows),),
        notes=tuple(_list_notes(level, group)),
    )


def _build_row(source: Source, decimals: int, whole: Source | None) -> tuple[str, ...]:
    spread = source.spread
    sd = "0" if spread.is_zero else format_number(spread.sd, decimals)
    cells = (source.varies, str(spread.n), sd, limits_text(source, decimals))
    if whole is None:
        return cells
    return (*cells, "100%", "") if source is whole else (*cells, *share_texts(source.share))


def limits_text(source: Source, decimals: int) -> str:
    """Returns the interval of a spread, or that there is none, since all values are equal."""
    spread = source.spread
    if spread.is_zero:
        return f"all {spread.n} equal" + (", weights too" if source.n_states == 1 else "")
    known = math.isfinite(spread.low)
    return f"[{format_number(spread.low, decimals)}, {format_number(spread.high, decimals)}]" if known else NOTHING


def share_texts(share: VarianceRatio | None) -> tuple[str, str]:
    """Returns a share of variances and its interval, to two digits."""
    if share is None or math.isnan(share.ratio):
        return NOTHING, NOTHING
    limits = NOTHING if math.isnan(share.low) else f"[{_format_share(share.low)}, {_format_share(share.high)}]"
    return _format_share(share.ratio), limits


def _format_share(ratio: float) -> str:
    value = 100 * ratio
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.2g}%"


def _write_caption(of: str, level: float, group: SourceGroup) -> str:
    whole = group.whole
    text = (
        f"{of}: standard deviation over n seeds where the run seed draws this alone, with its {format_percent(level)} chi-squared"
        f" interval. {describe_held()}"
    )
    if whole:
        text += (
            f" Share: variance over that of {whole.varies}, with its F interval, which is wider than need be where trials of"
            " equal seed go together."
        )
    return f"{text} {describe_completeness([source.cell for source in group.sources])}"


def describe_held() -> str:
    """Returns the sentence that says what did not vary."""
    return (
        "Held fixed: all that is not named is drawn as at seed 0, and data split and pre-training by data.split_seed and"
        " body.pretrain_seed alone (all: every draw of the run but these two; everything: these two as well). Beside other"
        " draws held fixed the spread of a source may be another."
    )


def _list_notes(level: float, group: SourceGroup) -> Iterator[str]:
    for source in group.sources:
        lacking: dict[str, list[str]] = {}
        for seed, value in source.cell.values.items():
            if math.isnan(value):
                lacking.setdefault(source.cell.statuses[seed], []).append(str(seed))
        gaps = "; ".join(f"{status} at seed {', '.join(seeds)}" for status, seeds in lacking.items())
        if gaps:
            left = f"{source.spread.n} of {len(source.cell.values)} seeds"
            yield f"{source.varies} is incomplete: {gaps}. There are numbers of {left}."
    for source in group.sources:
        if source.spread.is_zero and source.n_states == 1:
            yield f"{source.varies}: all trials ended with the same weights: nothing was drawn from it."
    if group.whole is None:
        yield f"No cell varies everything at once, so there are no shares. Add the level all to {PATH}."
    elif group.total is not None:
        yield _describe_sum(level, group, group.whole, group.total)


def _describe_sum(level: float, group: SourceGroup, whole: Source, total: VarianceRatio) -> str:
    names = ", ".join(source.varies for source in group.added_sources)
    if math.isnan(total.ratio):
        return f"What {names} add up to is not known: a spread is lacking, or {whole.varies} has none."
    share, limits = share_texts(total)
    text = f"Alone, {names} add up to {share} of the variance of {whole.varies}"
    text += f" ({format_percent(level)} interval {limits})" if limits != NOTHING else ""
    if total.high < 1:
        return f"{text}: less than the whole. Sources act together, or one of them has no cell of its own here."
    if total.low > 1:
        return (
            f"{text}: more than the whole. Sources act together, so that shares count some of the spread more than once, or the"
            " draws held fixed make for a larger spread than others would."
        )
    return f"{text}: whether they are less or more than the whole cannot be told from so few seeds."


# Figure -------------------------------------------------------------------------------------------


def panel_height(group: SourceGroup) -> float:
    """Returns how many lines high a group's panel is."""
    return len(group.sources) + 0.6


def draw_panel(axis: Any, task: str, of: str, level: float, group: SourceGroup) -> None:
    """Draws the spread of each source with its interval, the whole above the others; hollow: several sources at once."""
    for y, source in enumerate(group.sources):
        spread, colour = source.spread, COLOURS[1] if source is group.whole else COLOURS[0]
        face = colour if source.is_alone or source is group.whole else "white"
        if math.isfinite(spread.low):
            axis.plot([spread.low, spread.high], [y, y], color=colour, linewidth=1.4)
        if math.isfinite(spread.sd):
            axis.plot([spread.sd], [y], "o", color=colour, markerfacecolor=face, markersize=5, clip_on=False)
        axis.text(1.01, y, _label_source(source), transform=axis.get_yaxis_transform(), fontsize=8, va="center")
    if group.whole and math.isfinite(group.whole.spread.sd):
        axis.axvline(group.whole.spread.sd, color=COLOURS[1], linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(group.sources)), [source.varies for source in group.sources], fontsize=8)
    axis.set_ylim(len(group.sources) - 0.5, -0.5)
    axis.set_xlim(left=0)
    held_levels = f" ({wrap_title(describe_levels(group), 90)})" if group.levels else ""
    axis.set_title(f"{wrap_title(task)}: seed noise by source{held_levels}", fontsize=9, loc="left")
    axis.set_xlabel(
        f"standard deviation over seeds of {of}, {format_percent(level)} chi-squared interval; all else as at seed 0",
        fontsize=8,
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _label_source(source: Source) -> str:
    spread = source.spread
    if spread.is_zero:
        return limits_text(source, 0)
    if source.share is None:
        return f"n = {spread.n}"
    share, limits = share_texts(source.share)
    return f"{share} {limits} (n = {spread.n})" if share != NOTHING else f"n = {spread.n}"
