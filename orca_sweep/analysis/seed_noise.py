"""What seeds alone do, per task: A/A cells, the spread of every cell, and how many seeds an effect needs.

An A/A cell repeats a cell with other seeds (`aa: 5` in the space) and differs from it in nothing else. So their difference
is noise, and a very small p means a fault. Its margin is the standard deviation of the difference of two single seeds.
Every cell has its standard deviation over seeds, the standard deviation of its paired difference to the base cell (smaller
if pairing helps), and the fewest seeds at which a paired t test detects an effect with a power of 0.8: alone, and as the
first step of Holm's procedure over all cells of the task. The effect is --effect in the unit of the task, or else one
standard deviation over seeds (of the A/A cell and its reference, or of the base cell).

Where ``seed_varies`` is a factor, cells that differ only in it show where the spread comes from: the spread of each source
of randomness with the rest held fixed, and its share of the whole. Other numbers compare only cells that vary the same
sources as the base cell.

Writes seed_noise.csv (cells), seed_noise_aa.csv (A/A cells), seed_noise_sources.csv (sources of randomness), .md, .tex
(booktabs), and a plot of the spread.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis import noise_sources
from orca_sweep.analysis.compared import merge_equal_cells
from orca_sweep.analysis.figure_style import COLOURS, DARK, PAGE, FigureStyle
from orca_sweep.analysis.noise_sources import SourceGroup
from orca_sweep.analysis.placebos import note_idle_placebos
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    describe_shared,
    find_base_cell,
    find_varying,
    keep_comparable,
    metric_of,
    name_cells,
    name_tasks,
    named_levels,
    numbers_by_task,
    pair_aa_cells,
    read_cells,
    replicated,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    format_csv,
    format_p,
    format_percent,
)
from orca_sweep.results import Cell, Results
from orca_sweep.stats import Contrast, Interval, NoiseMargin, aa_margin, count_seeds_needed, paired_contrast, t_interval
from orca_sweep.stats.digits import Digits, choose_digits, format_interval, format_number, refine_digits
from orca_sweep.stats.intervals import is_rounding
from orca_sweep.stats.power import MOST_SEEDS, POWER

NAME = "seed_noise"
NO_AA = "There is no A/A cell; aa: 5 in the space makes one, and a margin for verdicts."
MAX_PANELS, MAX_GROUPS, MAX_ROWS = 8, 4, 40
FAULT_P = 0.001


@dataclass(frozen=True, kw_only=True)
class AA:
    """An A/A cell and the cell that it repeats."""

    repeat: Cell
    reference: Cell
    noise: NoiseMargin


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The spread over seeds of one cell, and the seeds that an effect needs."""

    cell: Cell
    interval: Interval
    """Over the seeds that have a result."""
    paired: Contrast | None = None
    """With the base cell, over complete pairs; None for the base itself."""
    seeds_alone: float = math.nan
    """Pairs at which a paired t test detects the effect; infinite above 1,000, NaN if the spread is not known."""
    seeds_holm: float = math.nan
    """The same, corrected for as many comparisons as the task has cells besides the base."""


@dataclass(frozen=True, kw_only=True)
class TaskNoise:
    """The cells of one task in the order of the table, and its A/A cells."""

    task: str
    metric: str
    base: Cell
    effect: float
    effect_from: str
    aa: tuple[AA, ...]
    spreads: tuple[Spread, ...]
    sources: tuple[SourceGroup, ...]


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """All tasks, with the column and the confidence level."""

    tasks: tuple[TaskNoise, ...]
    column: str
    level: float
    notes: tuple[str, ...] = ()
    """What the tables of the cells must say."""


def compute(
    results: Results,
    base: Sequence[str] = (),
    effect: Sequence[str] = (),
    metric: str | None = None,
    level: float = 0.95,
) -> SeedNoise:
    """Returns the spread over seeds of every cell.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        effect: '0.01' for all tasks, 'task=0.01' for one.
        metric: the column to analyse.
        level: confidence level of the limits of margins; the seeds needed are for tests at 1 - level.

    Raises:
        InputError: if the tables lack what is named.
    """
    results = merge_equal_cells(results)  # what runs once shows the noise once
    cells = read_cells(results, metric)
    tasks = by_task(cells)
    effects = numbers_by_task("--effect", effect, tasks)
    named = dict(named_levels("--base", base, cells))
    states = noise_sources.count_states(results)
    made = tuple(
        _compute_task(cells, find_base_cell(cells, named), states, effect=effects.get(task), level=level)
        for task, cells in keep_comparable(tasks).items()
    )
    noted = note_idle_placebos(results).notes
    return SeedNoise(tasks=made, column=metric or results.metric, level=level, notes=noted)


def _compute_task(
    task_cells: Sequence[Cell], base: Cell, n_states: Mapping[str, int], *, effect: float | None, level: float
) -> TaskNoise:
    pairs = sorted(pair_aa_cells(task_cells), key=lambda pair: pair[1] is not base)
    aa = tuple(
        AA(repeat=repeat, reference=of, noise=aa_margin(repeat.known_values, of.known_values, level=level))
        for repeat, of in pairs
    )
    size, source = _choose_effect(aa, base, effect)
    sources = noise_sources.sources_of(replicated(task_cells), n_states, level)
    # Cells whose seed varies other sources have other spreads on purpose, so they are not compared.
    cells = [
        cell for cell in replicated(task_cells) if noise_sources.read_varied(cell) == noise_sources.read_varied(base)
    ]
    n_comparisons = len(cells) - 1
    return TaskNoise(
        task=base.task,
        metric=metric_of(task_cells).name,
        base=base,
        effect=size,
        effect_from=source,
        aa=aa,
        spreads=tuple(
            _measure_spread(cell, base, size, n_comparisons=n_comparisons, alpha=1 - level) for cell in cells
        ),
        sources=sources,
    )


def _choose_effect(aa: Sequence[AA], base: Cell, given: float | None) -> tuple[float, str]:
    if given is not None:
        return given, "given with --effect"
    known = [pair for pair in aa if math.isfinite(pair.noise.sd)]
    if known:
        return known[0].noise.sd, "one standard deviation over seeds, of the A/A cell and its reference"
    return t_interval(base.known_values).sd, "one standard deviation over seeds of the base cell"


def _measure_spread(cell: Cell, base: Cell, effect: float, *, n_comparisons: int, alpha: float) -> Spread:
    interval = t_interval(cell.known_values)
    if cell is base:
        return Spread(cell=cell, interval=interval)
    paired = paired_contrast(cell.values, base.values, complete_pairs_only=True)
    alone, holm = (count_seeds_needed(effect, paired.interval.sd, n, alpha) for n in (1, n_comparisons))
    return Spread(cell=cell, interval=interval, paired=paired, seeds_alone=alone, seeds_holm=holm)


# Numbers ------------------------------------------------------------------------------------------


def numbers(noise: SeedNoise) -> str:
    """Returns the spread of each cell as CSV, one line per cell."""
    return format_csv([_make_record(noise, task, spread) for task in noise.tasks for spread in task.spreads])


def _make_record(noise: SeedNoise, task: TaskNoise, spread: Spread) -> Record:
    pairs = spread.paired.interval if spread.paired else None
    return {
        "task": task.task,
        "cell_id": spread.cell.cell_id,
        **spread.cell.labels,
        "is_base": spread.cell is task.base,
        "column": noise.column,
        "metric": task.metric,
        "n": spread.interval.n,
        "mean": spread.interval.mean,
        "sd_over_seeds": spread.interval.sd,
        "n_pairs": pairs.n if pairs else None,
        "sd_of_paired_differences": pairs.sd if pairs else None,
        "effect": task.effect,
        "effect_from": task.effect_from,
        "power": POWER,
        "alpha": float(f"{1 - noise.level:.6g}"),
        "seeds_needed": _format_seeds(spread.seeds_alone),
        "n_comparisons": len(task.spreads) - 1,
        "seeds_needed_holm": _format_seeds(spread.seeds_holm),
    }


def _format_seeds(n: float) -> str:
    if math.isnan(n):
        return ""
    return f">{MOST_SEEDS}" if math.isinf(n) else str(int(n))


AA_COLUMNS = (
    "task", "cell_id", "reference_cell_id", "cell", "column", "metric", "n_aa", "n_reference", "difference", "p", "sd_over_seeds",
    "df", "margin", "margin_low", "margin_high", "interval",
)  # fmt: skip


def aa_numbers(noise: SeedNoise) -> str:
    """Returns the A/A cells as CSV, one line per A/A cell."""
    rows = [(task, pair, pair.noise) for task in noise.tasks for pair in task.aa]
    interval = f"{format_percent(noise.level)} chi-squared limits of the margin over df degrees of freedom"
    values = [
        (task.task, pair.repeat.cell_id, pair.reference.cell_id, pair.reference.name, noise.column, task.metric, n.n_aa,
         n.n_reference, n.difference, n.p, n.sd, n.df, n.margin, n.low, n.high, interval)
        for task, pair, n in rows
    ]  # fmt: skip
    return format_csv([dict(zip(AA_COLUMNS, row, strict=True)) for row in values], AA_COLUMNS)


def source_numbers(noise: SeedNoise) -> str:
    """Returns the spread by source of randomness as CSV, one line per source and group."""
    tasks = [(task.task, task.metric, task.sources) for task in noise.tasks]
    return noise_sources.numbers(noise.column, noise.level, tasks)


def build_tables(noise: SeedNoise) -> tuple[Table, ...]:
    """Returns, per task, a table of A/A cells if there are any, a table of cells, and one of each group of sources."""
    tables = []
    for i, task in enumerate(noise.tasks, 1):
        tables += [_build_aa_table(noise, task, i)] if task.aa else []
        tables.append(_build_cell_table(noise, task, i))
        tables += _build_source_tables(noise, task, i)
    return tuple(tables)


def build_source_tables(noise: SeedNoise) -> tuple[Table, ...]:
    """Returns only the tables of sources of randomness."""
    return tuple(table for i, task in enumerate(noise.tasks, 1) for table in _build_source_tables(noise, task, i))


def _build_source_tables(noise: SeedNoise, task: TaskNoise, i: int) -> Iterator[Table]:
    for j, group in enumerate(task.sources, 1):
        name, of = f"{NAME}-sources-{i}-{j}", f"{noise.column} ({task.metric})"
        yield noise_sources.build_table(group, name=name, task=task.task, of=of, level=noise.level)


def _build_aa_table(noise: SeedNoise, task: TaskNoise, i: int) -> Table:
    column = choose_digits(sds := [pair.noise.sd for pair in task.aa], sds)
    rows = []
    for pair in task.aa:
        n, digits = pair.noise, refine_digits(column, [pair.noise.sd])
        texts = (format_number(n.difference, digits, "+"), format_p(n.p), format_number(n.sd, digits), str(n.df))
        limits = format_interval(n.low, n.high, digits)
        rows.append(
            (pair.reference.name, str(n.n_aa), str(n.n_reference), *texts, format_number(n.margin, digits), limits)
        )
    caption = (
        f"{noise.column} ({task.metric}): each A/A cell repeats its cell with other seeds. Difference: mean of the repeats minus"
        " mean of the cell, with the p of the unpaired t test. sd: over seeds, within cells. Margin: standard deviation of"
        f" the difference of two seeds, with its {format_percent(noise.level)} chi-squared limits over df"
        " degrees of freedom."
    )
    head = ("cell", "n A/A", "n cell", "difference", "p", "sd", "df", "margin", "limits")
    return Table(
        name=f"{NAME}-aa-{i}",
        title=f"{task.task}: A/A cells",
        caption=caption,
        head=head,
        align="lrrrrrrrr",
        blocks=(tuple(rows),),
        notes=tuple(_list_faults(task)),
    )


def _list_faults(task: TaskNoise) -> Iterator[str]:
    for pair in task.aa:
        if pair.noise.p < FAULT_P:
            yield (
                f"{pair.reference.name}: the A/A cell differs from it by more than seeds explain (p {format_p(pair.noise.p)}). It"
                " should not: compare the hosts, devices, versions, and hashes in their rows."
            )


def _build_cell_table(noise: SeedNoise, task: TaskNoise, i: int) -> Table:
    cells = [spread.cell for spread in task.spreads]
    paths = find_varying(cells)
    digits = choose_digits(sds := [_sd_of(spread.interval) for spread in task.spreads], sds)
    k = len(task.spreads) - 1
    head = (*paths, "n", "sd", "pairs", "sd of differences", "seeds needed")
    head += (f"of {k} comparisons",) if k > 1 else ()
    rows = []
    for spread in task.spreads:
        levels = [spread.cell.labels[path] for path in paths]
        rows.append((*levels, *_format_spread(spread, digits))[: len(head)])
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task.task}: seed noise",
        caption=_write_caption(noise, task, cells, paths),
        head=head,
        align=f"{'l' * len(paths)}{'r' * (len(head) - len(paths))}",
        blocks=(tuple(rows),),
        notes=noise.notes if task.aa else (*noise.notes, NO_AA),
    )


def _sd_of(interval: Interval) -> float:
    """Returns the standard deviation; 0 if it is due to rounding alone."""
    return 0.0 if is_rounding(interval.sd, interval.mean) else interval.sd


def _format_sd(interval: Interval, column: Digits, scale: float) -> str:
    sd = 0.0 if is_rounding(interval.sd, scale) else interval.sd
    return format_number(sd, refine_digits(column, [sd]))


def _format_spread(spread: Spread, digits: Digits) -> tuple[str, ...]:
    """Returns the texts of n, sd, pairs, sd of differences, and the seeds needed, alone and with Holm's correction."""
    pairs = ("base", "base")
    if spread.paired:
        paired = spread.paired.interval
        pairs = (str(paired.n), _format_sd(paired, digits, spread.interval.mean))
    seeds = (_format_seeds(n) or NOTHING for n in (spread.seeds_alone, spread.seeds_holm))
    return (str(spread.interval.n), _format_sd(spread.interval, digits, spread.interval.mean), *pairs, *seeds)


def _write_caption(noise: SeedNoise, task: TaskNoise, cells: Sequence[Cell], paths: Sequence[str]) -> str:
    k = len(cells) - 1
    many = f", as the only comparison and as one of {k}" if k > 1 else ""
    size = f"{task.effect:.3g}" if math.isfinite(task.effect) else "a size not known yet"
    return (
        f"{noise.column} ({task.metric}): standard deviation over n seeds, and of the paired difference to the base cell"
        f" ({task.base.describe(paths)}) over pairs of the same seed. Seeds needed: the fewest pairs at which a paired t test"
        f" at {1 - noise.level:.3g} detects an effect of {size} ({task.effect_from}) with a power of {POWER}{many}, if the true"
        " spread is the observed one; with few seeds it may differ."
        f" {describe_completeness(cells)}{describe_shared(cells, paths)}"
    )


# Figure -------------------------------------------------------------------------------------------


def plot(noise: SeedNoise, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure: per task a panel with a line per cell and a dot per seed, and a panel per source group."""
    tasks = noise.tasks[:MAX_PANELS]
    names = name_tasks(task.task for task in tasks)
    with open_sheet(style, write_caption(noise)) as sheet:
        for task in tasks:
            _draw_panel(sheet.add_band()[0], noise, task, names[task.task])
            of = f"{noise.column} ({task.metric})"
            for group in task.sources[:MAX_GROUPS]:
                slot = sheet.add_band()[0]
                noise_sources.draw_panel(slot, group, task=names[task.task], of=of, level=noise.level)
    return sheet.figure


def write_caption(noise: SeedNoise) -> str:
    """Returns what the figure shows, and what it leaves to the tables."""
    drawn = noise.tasks[:MAX_PANELS]
    sentences = [
        "A dot per seed: its distance from the mean of the cell; wide bars: one standard deviation (sd) over n seeds to either"
        " side, which is not a confidence interval. For an A/A cell: distances from the mean of the cell that it repeats."
    ]
    wholes = {group.whole.varies: None for task in drawn for group in task.sources if group.whole}
    if wholes:
        share = f"share of the variance of {' or '.join(wholes)} with its F interval"
        sentences.append(f"By source, to the right: {share}; hollow: several sources at once.")
    n_tasks, n_groups = len(noise.tasks) - len(drawn), sum(len(task.sources[MAX_GROUPS:]) for task in drawn)
    more = [f"{n} more {name}" for n, name in ((n_tasks, "tasks"), (n_groups, "groups of sources")) if n]
    if more:
        sentences.append(f"{' and '.join(more)} are only in the tables.")
    sentences.append(describe_completeness(spread.cell for task in noise.tasks for spread in task.spreads))
    return " ".join(sentences)


def _draw_panel(slot: Slot, noise: SeedNoise, task: TaskNoise, name: str) -> None:
    cells = [spread.cell for spread in task.spreads]
    paths = find_varying(cells)
    pairs = [(pair.repeat, pair.reference, COLOURS[1]) for pair in task.aa] + [
        (cell, cell, COLOURS[0]) for cell in cells
    ]
    pairs = pairs[:MAX_ROWS]
    names = name_cells([of for _, of, _ in pairs], paths)
    n_all = len(task.aa) + len(cells)
    more = f" (the first {len(pairs)} of {n_all} cells)" if n_all > len(pairs) else ""
    axis = slot.show(f"{name}: {' · '.join(paths) or 'all trials'}{more}")
    axis.axvline(0, color=DARK, linewidth=0.8)
    groups = [
        RowGroup(label=f"A/A of {label}" if cell is not of else label, notes=(_write_note(cell),))
        for label, (cell, of, _) in zip(names, pairs, strict=True)
    ]
    for y, (cell, of, colour) in zip(slot.place_rows(groups), pairs, strict=True):
        own, centre = t_interval(cell.known_values), t_interval(of.known_values).mean
        at = own.mean - centre
        axis.plot([at - own.sd, at + own.sd], [y, y], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
        marker = "o" if cell is of else "s"
        axis.plot([value - centre for value in cell.known_values], [y] * own.n, marker, color=colour, markersize=3.5)
    slot.label_x(f"distance in {noise.column} ({task.metric})")


def _write_note(cell: Cell) -> str:
    own = t_interval(cell.known_values)
    return f"sd {own.sd:.2g} (n = {own.n})" if math.isfinite(own.sd) else f"n = {own.n}"


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    noise = compute(results, **asked)
    return Output(
        numbers=numbers(noise),
        more_numbers={"aa": aa_numbers(noise), "sources": source_numbers(noise)},
        tables=build_tables(noise),
        figure=plot(noise, style),
        caption=write_caption(noise),
    )
