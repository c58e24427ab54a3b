"""Designs of a task as its cells show them: a full factorial, a regular two-level fraction, or each cell one change away.

The tables do not say which design a space asked for, and `collect` joins spaces. So the design is read from the levels of
the cells: that also holds for merged cells and for what `exclude` or --without left out.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orca_sweep.analysis.cells import PLACEBO, PROXY, SHUFFLED
from orca_sweep.analysis.compared import compared_once
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    describe_lacking,
    describe_not_ok,
    find_varying,
    metric_of,
    name_tasks,
    named_levels,
    read_cells,
    replicated,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results, TaskMetric
from orca_sweep.stats import FactorialValues, Fraction, arrange_values, find_fraction, find_holes, find_missing_rows
from orca_sweep.stats.fractions import MOST_FACTORS

Labels = Mapping[str, str]
FEWEST_CELLS = 4
"""Of a fraction: two cells that differ in several factors are one comparison."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The cells of each task that an analysis of factors may use."""

    results: Results
    """Without cells whose seed varies something else than in the base cell."""
    every: Mapping[str, Sequence[Cell]]
    """By task, A/A cells included."""
    kept: Mapping[str, Sequence[Cell]]
    """By task, without A/A cells and what --without names."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The values of a task's cells as a design."""

    measured: TaskMetric
    base: Cell
    held: Labels
    """Factors that have only one level here, so the analysis leaves them out."""
    cells: tuple[Cell, ...]
    table: FactorialValues
    """Of shape (levels of each factor ..., seeds); for a fraction (cells, seeds), with the base level of each factor first."""
    fraction: Fraction | None
    """None for a full design."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Its factors."""
        return self.table.factors


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A task that an analysis of factors cannot use, and why."""

    task: str
    problems: tuple[str, ...]
    completeness: str
    """How many of its trials are ok."""

    @property
    def texts(self) -> list[str]:
        """Its problems, each with the task."""
        return [f"{self.task}: {text}" for text in self.problems]


def refuse_task(cells: Sequence[Cell], error: InputError) -> Refusal:
    """Returns the refusal of a task because of an error."""
    problems = tuple(map(str, error.problems))
    return Refusal(task=cells[0].task, problems=problems, completeness=describe_completeness(cells))


def describe_refusals(refused: Sequence[Refusal], design: str) -> str:
    """Returns the sentences of a caption on refused tasks, with a space before each; ``design`` is what they are not."""
    names = name_tasks(refusal.task for refusal in refused)
    return "".join(
        f" {names[refusal.task]} is not shown, since its results are not {design}: {refusal.completeness}"
        for refusal in refused
    )


# Selection ----------------------------------------------------------------------------------------


def select_cells(
    results: Results, base: Sequence[str] = (), without: Sequence[str] = (), metric: str | None = None
) -> Selection:
    """Returns the cells to analyse.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        without: what to leave out, each 'factor=level', 'seed=number', or 'task=name'.
        metric: the column to analyse.

    Raises:
        InputError: if the tables lack what is named, or if nothing is left.
    """
    out = named_levels("--without", without, read_cells(results, metric), ("seed", "task"))
    results = compared_once(results, base, without)
    every = read_cells(results, metric)
    kept = [_leave_out_seeds(cell, out) for cell in replicated(every) if not _is_out(cell, out)]
    if not kept:
        raise InputError("--without leaves nothing to analyse. Leave out fewer levels.")
    return Selection(results=results, every=by_task(every), kept=by_task(kept))


def _leave_out_seeds(cell: Cell, out: Sequence[tuple[str, str]]) -> Cell:
    seeds = {int(level) for path, level in out if path == "seed"}
    return replace(cell, trials=tuple(trial for trial in cell.trials if trial.seed not in seeds))


def _is_out(cell: Cell, out: Sequence[tuple[str, str]]) -> bool:
    return any(cell.labels.get(path) == level or (path == "task" and cell.task == level) for path, level in out)


def list_levels(results: Results) -> list[list[Labels]]:
    """Returns the levels of each cell of each task, without reading any number; A/A cells are left out."""
    trials = compared_once(results).trials
    if not len(trials):
        return []
    cells = trials[trials["role"] != "aa"].drop_duplicates("cell_id")
    labels = results.labels.loc[cells.index, [path for path in results.factors if path != "task"]]
    tasks: dict[str, list[Labels]] = {}
    for task, levels in zip(cells["task"], labels.to_dict("records"), strict=True):
        tasks.setdefault(str(task), []).append({str(path): level for path, level in levels.items()})
    return list(tasks.values())


# Designs ------------------------------------------------------------------------------------------


def arrange_design(cells: Sequence[Cell], base: Cell) -> Design:
    """Returns the design of a task's cells; the levels of the base cell are the base levels.

    Raises:
        InputError: if no factor varies, no cell has a trial, or the design has holes, with a list of them.
    """
    paths = find_factors(cells)
    if not paths:
        raise InputError("no factor has two levels here, so there is nothing to analyse.")
    if not any(cell.values for cell in cells):
        raise InputError("no cell has been replicated yet. Let the sweep run on.")
    try:
        fraction = read_fraction([cell.labels for cell in cells], base.labels)
        table = _arrange_fraction(cells, base, paths) if fraction else _arrange_full(cells, base, paths)
    except InputError as error:
        raise InputError([*error.problems, *_explain_holes(cells, base)]) from None
    return Design(
        measured=metric_of(cells),
        base=base,
        held={path: text for path, text in cells[0].labels.items() if path not in paths},
        cells=tuple(cells),
        table=table,
        fraction=fraction,
    )


def find_factors(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Returns the factors that have several levels; the data say nothing about the rest."""
    return tuple(path for path in find_varying(cells) if len({cell.labels[path] for cell in cells}) > 1)


def read_fraction(cells: Sequence[Labels], base: Labels) -> Fraction | None:
    """Returns the regular two-level fraction that cells with these levels are; None for all combinations, or no fraction."""
    rows = _read_rows(cells, base)
    fraction = find_fraction(rows) if len(rows) >= FEWEST_CELLS else None
    return None if fraction is None or fraction.is_whole else fraction


def read_two_level_design(cells: Sequence[Labels], base: Labels) -> Fraction | None:
    """Returns the regular fraction or the whole two-level design that cells with these levels are; None if neither."""
    rows = _read_rows(cells, base)
    return find_fraction(rows) if rows else None


def _read_rows(cells: Sequence[Labels], base: Labels) -> list[tuple[bool, ...]]:
    """Returns for each cell in which factors it differs from the base; none unless every factor has two levels."""
    paths = [path for path in base if len({labels[path] for labels in cells}) > 1]
    has_two = all(len({labels[path] for labels in cells}) == 2 for path in paths)
    if not has_two or not 0 < len(paths) <= MOST_FACTORS:
        return []
    return [tuple(labels[path] != base[path] for path in paths) for labels in cells]


def _list_rows(cells: Sequence[Cell]) -> list[tuple[Cell, int, float]]:
    """Returns cell, seed and value of each trial; a cell in tuning has none yet, but its levels belong to the design."""
    seeds = dict.fromkeys(seed for cell in cells for seed in cell.values)
    return [
        (cell, seed, value) for cell in cells for seed, value in (cell.values or dict.fromkeys(seeds, math.nan)).items()
    ]


def _arrange_full(cells: Sequence[Cell], base: Cell, paths: tuple[str, ...]) -> FactorialValues:
    if is_star([cell.labels for cell in cells], base.labels):
        raise InputError("each cell changes one factor of the base cell, so no changes were run together.")
    short = _find_short_fraction(cells, base, paths)
    if short:
        raise InputError(short)
    rows = _list_rows(cells)
    labels = {path: [cell.labels[path] for cell, _, _ in rows] for path in paths}
    return arrange_values([value for _, _, value in rows], labels, [seed for _, seed, _ in rows])


def _arrange_fraction(cells: Sequence[Cell], base: Cell, paths: tuple[str, ...]) -> FactorialValues:
    keys = [tuple(cell.labels[path] for path in paths) for cell in cells]
    seeds = sorted({seed for cell in cells for seed in cell.values})
    values = {
        (*key, seed): [value] for key, cell in zip(keys, cells, strict=True) for seed, value in cell.values.items()
    }
    holes = find_holes(values, paths, keys, seeds)
    if holes:
        raise InputError(holes)
    table = np.array([[values[(*key, seed)][0] for seed in seeds] for key in keys])
    return FactorialValues(factors=paths, levels=_order_levels(cells, base, paths), seeds=tuple(seeds), values=table)


def _order_levels(cells: Sequence[Cell], base: Cell, paths: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns the base level and the other level of each factor."""
    highs = (next(cell.labels[path] for cell in cells if cell.labels[path] != base.labels[path]) for path in paths)
    return tuple((base.labels[path], high) for path, high in zip(paths, highs, strict=True))


def _find_short_fraction(cells: Sequence[Cell], base: Cell, paths: Sequence[str]) -> list[str]:
    """Returns a line per cell that a regular fraction lacks, if these cells are part of one smaller than the whole design."""
    rows = _read_rows([cell.labels for cell in cells], base.labels)
    missing = find_missing_rows(rows) if len(rows) >= FEWEST_CELLS - 1 else []
    n = len(set(rows)) + len(missing)
    if not missing or len(set(rows)) < len(rows) or n >= 2 ** len(paths):
        return []
    levels = _order_levels(cells, base, paths)
    named = [
        ", ".join(f"{path} = {known[is_high]}" for path, known, is_high in zip(paths, levels, row, strict=True))
        for row in missing
    ]
    return [
        *(f"{name} has no cell." for name in named),
        f"These {len(rows)} cells would be a regular fraction of {n} cells with {len(missing)} more. Without"
        f" {'them' if len(missing) > 1 else 'it'} effects mix in ways that no table of aliases shows. Run what is missing, or"
        " leave out a level.",
    ]


# Holes --------------------------------------------------------------------------------------------


def _explain_holes(cells: Sequence[Cell], base: Cell) -> Iterator[str]:
    """Yields what makes the holes, which analysis needs no such design, and which single level leaves none when left out."""
    counts = Counter(status for cell in cells for status in cell.statuses.values())
    if describe_lacking(counts):
        yield (
            f"a trial that is not ok has the value nan: {describe_not_ok(counts)}. 'orca-sweep resume' runs what failed or is"
            " unfinished."
        )
    if read_fraction([cell.labels for cell in cells], base.labels):
        return
    n_never = _count_unplanned(cells)
    if n_never:
        yield (
            f"{n_never} combinations of levels have no cell. Either the design leaves them out, or they are the same work as"
            f" another combination and run once, as its cell{_describe_naive(cells)}. {_name_analysis(cells, base)}, or"
            " leave out the level that makes the holes."
        )
    ways = [f"--without {path}={level}" for path, level in _find_remedies(cells)]
    if n_never and ways:
        rest = ", once its trials are ok," if describe_lacking(counts) else ""
        yield f"the rest{rest} is balanced with {' or with '.join(ways)}."


def _name_analysis(cells: Sequence[Cell], base: Cell) -> str:
    if is_star([cell.labels for cell in cells], base.labels):
        return "Compare each change with importance"
    return "Compare cells with table_effects"


def _count_unplanned(cells: Sequence[Cell]) -> int:
    paths = find_factors(cells)
    whole = math.prod(len({cell.labels[path] for cell in cells}) for path in paths)
    return whole - len({tuple(cell.labels[path] for path in paths) for cell in cells})


def _describe_naive(cells: Sequence[Cell]) -> str:
    """Explains that no proxy and no epochs are the same work, if both are factors."""
    if not {"proxy", "embedder.epochs"} <= set(find_factors(cells)):
        return ""
    return (
        ": any proxy with embedder.epochs 0, and proxy none with any epochs, is the naive cell (proxy none, epochs 0)"
    )


def _find_remedies(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for path in find_factors(cells):
        for level in dict.fromkeys(cell.labels[path] for cell in cells):
            rest = [cell for cell in cells if cell.labels[path] != level]
            if find_factors(rest) and (not _count_unplanned(rest) or _is_fraction(rest)):
                yield path, level


def _is_fraction(cells: Sequence[Cell]) -> bool:
    return read_fraction([cell.labels for cell in cells], cells[0].labels) is not None


# Stars --------------------------------------------------------------------------------------------


def find_changes(labels: Labels, base: Labels) -> tuple[str, ...]:
    """Returns the factors in which a cell differs from the base cell."""
    return tuple(path for path, level in labels.items() if level != base[path])


def find_lone_changes(cells: Sequence[Labels], base: Labels) -> list[bool]:
    """Returns for each cell whether it stands for a changed part by itself.

    That is a cell that differs from the base in one factor. It is also a cell that differs in several, with levels that no
    other cell has: these changes are the same work, and ran once. (Without a proxy embedder epochs have no effect, so dropping
    either one is the naive cell.)
    """
    changes = [[(path, labels[path]) for path in find_changes(labels, base)] for labels in cells]
    counts = Counter(change for of_cell in changes for change in of_cell)
    return [len(of_cell) == 1 or max((counts[change] for change in of_cell), default=0) == 1 for of_cell in changes]


def is_star(cells: Sequence[Labels], base: Labels) -> bool:
    """Whether cells vary one factor at a time around the base: what one_at_a_time, add_one, and drop_one run.

    The placebo of a cell, which a space adds to any design, may change its proxy as well.
    """
    rest = [labels for labels in cells if labels != base]
    changes = [find_changes(labels, base) for labels in rest]
    changed = {path for paths in changes for path in paths}
    are_lone = find_lone_changes(rest, base)
    is_one_by_one = all(is_lone or _is_placebo(labels) for is_lone, labels in zip(are_lone, rest, strict=True))
    return len(changed) > 1 and any(len(paths) == 1 for paths in changes) and is_one_by_one


def _is_placebo(labels: Labels) -> bool:
    proxy = labels.get(PROXY, "")
    return proxy == PLACEBO or proxy.startswith(SHUFFLED)
