"""The effects of the factors of each task: the records, and how they are computed and judged."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.factorial import Design, Refusal, Selection, arrange_design, refuse_task, select_cells
from orca_sweep.analysis.margins import Margin, fixed_margins, margin_of
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.analysis.tables import find_base_cell, named_levels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import (
    FactorEffects,
    Interval,
    JudgedContrast,
    SpreadCheck,
    analyse_table,
    check_spreads,
    contrast_factors,
    contrast_fraction,
    judge_factors,
    t_interval,
)
from orca_sweep.stats.modes import Mode


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean over seeds at a level of a factor, or a pair of levels of two; within a seed it averages other factors."""

    factors: tuple[str, ...]
    levels: tuple[str, ...]
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class TaskFactors:
    """The analysis of one task."""

    task: str
    metric: str
    mode: Mode
    unit: str
    base: Cell
    margin: Margin
    design: Design
    contrasts: tuple[JudgedContrast, ...]
    """Main effects, then interactions."""
    pooled: FactorEffects | None
    """Shares of the variance of a full design of at least two seeds."""
    spread: SpreadCheck | None
    """Whether these shares' assumption holds; None without them."""
    means: tuple[Mean, ...]

    @property
    def held(self) -> Mapping[str, str]:
        """Factors that have only one level here."""
        return self.design.held

    @property
    def n_seeds(self) -> int:
        """Seeds of every cell."""
        return len(self.design.table.seeds)

    @property
    def effects(self) -> tuple[tuple[str, ...], ...]:
        """The factors of each main effect and interaction that has contrasts."""
        return tuple(dict.fromkeys(of.effect.factors for of in self.contrasts))

    def contrasts_of(self, factors: tuple[str, ...]) -> list[JudgedContrast]:
        """Returns the contrasts that an effect is made of."""
        return [of for of in self.contrasts if of.effect.factors == factors]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """All tasks, with the column, the confidence level, and what was left out."""

    tasks: tuple[TaskFactors, ...]
    refused: tuple[Refusal, ...]
    column: str
    level: float
    left_out: tuple[str, ...]
    is_pooled: bool
    """Whether the tests of the pooled model are shown."""
    notes: tuple[str, ...] = ()
    """Which rows were left out."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared, and with what."""

    without: Sequence[str] = ()
    """What to leave out, each 'factor=level', 'seed=number', or 'task=name'."""
    base: Sequence[str] = ()
    """Levels of the base cell, each 'factor=level'."""
    margin: Sequence[str] = ()
    """'0.01' for all tasks, 'task=0.01' for one."""
    metric: str | None = None
    level: float = 0.95
    """Confidence level of the intervals; words are judged at 1 - level."""
    pooled: bool = False
    """Whether to show the F tests of the pooled model."""


def compute(results: Results, without: Sequence[str] = (), **asked: Any) -> Factors:
    """Returns the factor effects of each task, or why there are none.

    Args:
        results: the tables.
        without: what to leave out.
        asked: further `Options`.

    Raises:
        InputError: if the tables lack what is named; with all holes if every task is refused.
    """
    options = Options(without=without, **asked)
    if not 0.5 < options.level < 1:
        raise InputError(f"--level {options.level:g}: words need a level above 0.5 and below 1. Use 0.95.")
    selection = select_cells(results, options.base, options.without, options.metric)
    kept = [cell for cells in selection.kept.values() for cell in cells]
    named = dict(named_levels("--base", options.base, kept))
    fixed = fixed_margins(results, options.margin, tuple(selection.every))
    bases = {task: find_base_cell(cells, named) for task, cells in selection.kept.items()}
    margins = {task: margin_of(selection.every[task], base, fixed, options.level) for task, base in bases.items()}
    return _analyse_tasks(selection, bases, margins, options)


def compute_beside(effects: Effects, results: Results) -> Factors:
    """Returns the factor effects with the base cells, margins, and level of a table of effects, to stand on the same page.

    Raises:
        InputError: as `compute`.
    """
    options = Options(metric=effects.column, level=effects.level)
    selection = select_cells(results, metric=effects.column)
    bases = {task.task: _find_same(task.base, selection.kept[task.task]) for task in effects.tasks}
    return _analyse_tasks(selection, bases, {task.task: task.margin for task in effects.tasks}, options)


def _find_same(base: Cell, cells: Iterable[Cell]) -> Cell:
    return next(cell for cell in cells if cell.cell_id == base.cell_id)


def _analyse_tasks(
    selection: Selection, bases: Mapping[str, Cell], margins: Mapping[str, Margin], options: Options
) -> Factors:
    tasks, refused = [], []
    for task, base in bases.items():
        try:
            design = arrange_design(selection.kept[task], base)
            tasks.append(_analyse_design(design, margins[task], options.level))
        except InputError as error:
            refused.append(refuse_task(selection.kept[task], error))
    if not tasks:
        raise InputError([text for refusal in refused for text in refusal.texts])
    return Factors(
        tasks=tuple(tasks),
        refused=tuple(refused),
        column=options.metric or selection.results.metric,
        level=options.level,
        left_out=tuple(options.without),
        is_pooled=options.pooled,
        notes=selection.results.notes,
    )


def _analyse_design(design: Design, margin: Margin, level: float) -> TaskFactors:
    base, table, measured = design.base, design.table, design.measured
    is_described = design.fraction is None and len(table.seeds) > 1
    contrasts = (
        contrast_fraction(table, design.fraction, level)
        if design.fraction
        else contrast_factors(table, [base.labels[path] for path in design.paths], level)
    )
    return TaskFactors(
        task=base.task,
        metric=measured.name,
        mode=measured.mode,
        unit=measured.unit,
        base=base,
        margin=margin,
        design=design,
        contrasts=judge_factors(contrasts, margin.limit, 1 - level, measured.mode),
        # The interval of partial omega squared excludes zero exactly where p < 1 - level.
        pooled=analyse_table(table, round(2 * level - 1, 9)) if is_described else None,
        spread=check_spreads(table.values.reshape(-1, len(table.seeds))) if is_described else None,
        means=tuple(_compute_means(design, list(dict.fromkeys(of.factors for of in contrasts)), level)),
    )


def _compute_means(design: Design, effects: Sequence[tuple[str, ...]], level: float) -> Iterator[Mean]:
    """Yields the means to draw; a fraction shows pairs of levels only mixed with other effects, so it has none of these."""
    for factors in effects:
        if design.fraction is None or len(factors) == 1:
            groups: dict[tuple[str, ...], list[Cell]] = {}
            for cell in design.cells:
                groups.setdefault(tuple(cell.labels[path] for path in factors), []).append(cell)
            for levels, cells in groups.items():
                by_seed = [sum(cell.values[seed] for cell in cells) / len(cells) for seed in design.table.seeds]
                yield Mean(factors=factors, levels=levels, interval=t_interval(by_seed, level, cells[0].bounds))
