"""Which sources of randomness cause the spread over seeds, from cells that differ only in ``seed_varies``.

This is not an analysis by itself: seed_noise shows it beside the spread of every cell.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orca_sweep.analysis.compared import DEFAULT, PATH, fill_default
from orca_sweep.analysis.figure_style import COLOURS
from orca_sweep.analysis.sheet import RowGroup, Slot
from orca_sweep.analysis.tables import describe_completeness
from orca_sweep.analysis.writing import NOTHING, Record, Table, format_csv, format_percent
from orca_sweep.results import Cell, Results
from orca_sweep.stats import SdInterval, VarianceRatio, sd_interval, variance_ratio
from orca_sweep.stats.digits import Digits, choose_digits, format_interval, format_number, refine_digits

WHOLES = ("everything", DEFAULT)
"""Levels at which many sources vary at once; the first varies most."""
OUTSIDE = ("data-split", "pre-training")
"""Sources that ``all`` does not vary."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The spread over seeds of one cell, and its share of the variance of the whole."""

    cell: Cell
    varies: str
    spread: SdInterval
    """Over the seeds that have a result."""
    n_states: int
    """Number of different weights among the trials; 0 if not known."""
    share: VarianceRatio | None
    """Its variance over that of the whole; None for the whole itself, and without a whole."""

    @property
    def is_alone(self) -> bool:
        """Whether only one source varies."""
        return self.varies not in WHOLES

    def is_in(self, whole: str) -> bool:
        """Whether it is a single source that also varies in a whole."""
        return self.is_alone and (whole == WHOLES[0] or self.varies not in OUTSIDE)


@dataclass(frozen=True, kw_only=True)
class SourceGroup:
    """Cells of one task that differ only in what the run seed varies."""

    levels: Mapping[str, str]
    """The levels that the cells share."""
    whole: Source | None
    rest: tuple[Source, ...]
    """All sources but the whole, by decreasing spread; unknown spreads come last."""
    total: VarianceRatio | None
    """Sum of the variances of the single sources over that of the whole; None without a whole or single sources."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The whole, then the rest."""
        return (self.whole, *self.rest) if self.whole else self.rest

    @property
    def added_sources(self) -> tuple[Source, ...]:
        """The single sources whose variances the total adds up."""
        return tuple(source for source in self.rest if self.whole and source.is_in(self.whole.varies))


def read_varied(cell: Cell) -> str:
    """Returns what the run seed varies in a cell."""
    return fill_default(cell.labels.get(PATH, DEFAULT))


def count_states(results: Results) -> dict[str, int]:
    """Returns the number of different final weights among the ok trials of each cell."""
    trials = results.trials
    if "state_sha256" not in trials:
        return {}
    ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
    return {str(cell): int(n) for cell, n in ok.groupby("cell_id")["state_sha256"].nunique().items()}


def sources_of(cells: Sequence[Cell], n_states: Mapping[str, int], level: float) -> tuple[SourceGroup, ...]:
    """Returns the groups of cells of a task that differ only in ``seed_varies``; empty if no cells do."""
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

    def make_source(cell: Cell) -> Source:
        own = spreads[cell.cell_id]
        share = variance_ratio([own], of, level) if of and cell is not whole_cell else None
        n = n_states.get(cell.cell_id, 0)
        return Source(cell=cell, varies=read_varied(cell), spread=own, n_states=n, share=share)

    rest = [make_source(cell) for cell in cells if cell is not whole_cell]
    rest.sort(key=lambda source: -source.spread.sd if math.isfinite(source.spread.sd) else math.inf)
    whole = make_source(whole_cell) if whole_cell else None
    group = SourceGroup(levels=levels, whole=whole, rest=tuple(rest), total=None)
    if of is None or not group.added_sources:
        return group
    return replace(group, total=variance_ratio([source.spread for source in group.added_sources], of, level))


# Numbers ------------------------------------------------------------------------------------------

COLUMNS = (
    "task", "cell_id", "cell", "column", "metric", "varies", "n", "n_planned", "sd_over_seeds", "sd_low", "sd_high", "all_equal",
    "n_states", "whole", "share_of_variance", "share_low", "share_high", "is_added", "sum_of_shares", "sum_low", "sum_high",
    "interval",
)  # fmt: skip


def numbers(column: str, level: float, tasks: Sequence[tuple[str, str, Sequence[SourceGroup]]]) -> str:
    """Returns the spread by source as CSV; ``tasks`` are (task, metric, groups)."""
    records = [
        {"task": task, "column": column, "metric": metric, **_make_record(group, source, level)}
        for task, metric, groups in tasks
        for group in groups
        for source in group.sources
    ]
    return format_csv(records, COLUMNS)


def _make_record(group: SourceGroup, source: Source, level: float) -> Record:
    spread, share, total = source.spread, source.share, group.total
    return {
        "cell_id": source.cell.cell_id,
        "cell": describe_levels(group),
        "varies": source.varies,
        "n": spread.n,
        "n_planned": len(source.cell.values),
        "sd_over_seeds": spread.sd,
        "sd_low": spread.low,
        "sd_high": spread.high,
        "all_equal": spread.is_zero,
        "n_states": source.n_states or None,
        "whole": group.whole.varies if group.whole else None,
        "share_of_variance": share.ratio if share else None,
        "share_low": share.low if share else None,
        "share_high": share.high if share else None,
        "is_added": source in group.added_sources,
        "sum_of_shares": total.ratio if total else None,
        "sum_low": total.low if total else None,
        "sum_high": total.high if total else None,
        "interval": f"{format_percent(level)}: chi-squared limits of the sd, F limits of shares",
    }


def describe_levels(group: SourceGroup) -> str:
    """Returns the levels that a group shares."""
    return ", ".join(f"{path} {text}" for path, text in group.levels.items()) or "all trials"


# Table --------------------------------------------------------------------------------------------


def build_table(group: SourceGroup, *, name: str, task: str, of: str, level: float) -> Table:
    """Returns the spread by source as a table; ``of`` is the column and its metric."""
    digits = choose_digits(sds := [source.spread.sd for source in group.sources], sds)
    whole = group.whole
    limits = f"{format_percent(level)} interval"
    head = (PATH, "n", "sd", limits, *((f"share of {whole.varies}", limits) if whole else ()))
    rows = [_build_row(source, digits, whole) for source in group.sources]
    return Table(
        name=name,
        title=f"{task}: seed noise by source" + (f" ({describe_levels(group)})" if group.levels else ""),
        caption=_write_caption(of, level, group),
        head=head,
        align="l" + "r" * (len(head) - 1),
        blocks=(tuple(rows[:1]), tuple(rows[1:])) if whole else (tuple(rows),),
        notes=tuple(_list_notes(level, group)),
    )


def _build_row(source: Source, column: Digits, whole: Source | None) -> tuple[str, ...]:
    spread = source.spread
    digits = refine_digits(column, [spread.sd])
    sd = "0" if spread.is_zero else format_number(spread.sd, digits)
    cells = (source.varies, str(spread.n), sd, format_limits(source, digits))
    if whole is None:
        return cells
    return (*cells, "100%", "") if source is whole else (*cells, *format_shares(source.share))


def format_limits(source: Source, digits: Digits) -> str:
    """Returns the interval of a spread, or says that all values are equal."""
    spread = source.spread
    if spread.is_zero:
        return f"all {spread.n} equal" + (", weights too" if source.n_states == 1 else "")
    return format_interval(spread.low, spread.high, digits)


def format_shares(share: VarianceRatio | None) -> tuple[str, str]:
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
        f"{of}: standard deviation over n seeds when the run seed draws only this source, with its {format_percent(level)}"
        f" chi-squared interval. {describe_held()}"
    )
    if whole:
        text += (
            f" Share: variance over that of {whole.varies}, with its F interval, which is too wide where trials of the same"
            " seed are correlated."
        )
    return f"{text} {describe_completeness([source.cell for source in group.sources])}"


def describe_held() -> str:
    """Returns the sentences on what did not vary."""
    return (
        "Held fixed: sources that are not named are drawn as at seed 0; data split and pre-training follow only"
        " data.split_seed and body.pretrain_seed (all: every draw of the run except these two; everything: these two as"
        " well). With other draws held fixed, the spread of a source may differ."
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
            yield f"{source.varies} is incomplete: {gaps}. Only {left} have a number."
    for source in group.sources:
        if source.spread.is_zero and source.n_states == 1:
            yield f"{source.varies}: all trials ended with the same weights, so nothing was drawn from it."
    if group.whole is None:
        yield f"No cell varies everything at once, so there are no shares. Add the level all to {PATH}."
    elif group.total is not None:
        yield _describe_sum(level, group, group.whole, group.total)


def _describe_sum(level: float, group: SourceGroup, whole: Source, total: VarianceRatio) -> str:
    names = ", ".join(source.varies for source in group.added_sources)
    if math.isnan(total.ratio):
        return f"The sum of {names} is not known: a spread is missing, or {whole.varies} has no spread."
    share, limits = format_shares(total)
    text = f"Alone, {names} add up to {share} of the variance of {whole.varies}"
    text += f" ({format_percent(level)} interval {limits})" if limits != NOTHING else ""
    if total.high < 1:
        return f"{text}: less than the whole. Sources interact, or a source has no cell here."
    if total.low > 1:
        return (
            f"{text}: more than the whole. Sources interact, so their shares count some of the spread twice, or the draws held"
            " fixed cause a larger spread than other draws would."
        )
    return f"{text}. With these few seeds it is not clear whether that is less or more than the whole."


# Figure -------------------------------------------------------------------------------------------


def draw_panel(slot: Slot, group: SourceGroup, *, task: str, of: str, level: float) -> None:
    """Draws the spread of each source with its interval, the whole on top; hollow dots are several sources at once."""
    held_levels = f" ({describe_levels(group)})" if group.levels else ""
    axis = slot.show(f"{task}: seed noise by source{held_levels}")
    groups = [RowGroup(label=source.varies, notes=(_label_source(source),)) for source in group.sources]
    for y, source in zip(slot.place_rows(groups), group.sources, strict=True):
        spread, is_whole = source.spread, source is group.whole
        colour, marker = (COLOURS[1], "s") if is_whole else (COLOURS[0], "o")
        face = colour if source.is_alone or is_whole else "white"
        if math.isfinite(spread.low):
            axis.plot([spread.low, spread.high], [y, y], color=colour)
        if math.isfinite(spread.sd):
            axis.plot([spread.sd], [y], marker, color=colour, markerfacecolor=face, clip_on=False)
    if group.whole and math.isfinite(group.whole.spread.sd):
        axis.axvline(group.whole.spread.sd, color=COLOURS[1], linewidth=0.8, linestyle=":")
    axis.set_xlim(left=0)
    slot.label_x(
        f"standard deviation over seeds of {of}, {format_percent(level)} chi-squared interval; the rest as at seed 0"
    )


def _label_source(source: Source) -> str:
    spread = source.spread
    if spread.is_zero:
        return format_limits(source, Digits(decimals=0))
    if source.share is None:
        return f"n = {spread.n}"
    share, limits = format_shares(source.share)
    return f"{share} {limits} (n = {spread.n})" if share != NOTHING else f"n = {spread.n}"
