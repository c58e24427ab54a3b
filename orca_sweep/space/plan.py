"""From a space to its plan: combinations that are equal work become one cell, and each cell runs with every seed."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orca_sweep.config import Hasher, TrialConfig, knobs
from orca_sweep.config.naming import explain_shared_names
from orca_sweep.errors import NO_VALUE, InputError, Problem
from orca_sweep.space import designs
from orca_sweep.space.documents import Document
from orca_sweep.space.expansion import (
    Resolved,
    add_placebo_levels,
    describe_imbalance,
    describe_merged_placebos,
    expand_space,
    find_split_declarations,
    find_split_rules,
)
from orca_sweep.space.labelling import label_cells
from orca_sweep.space.margins import with_resolved_names
from orca_sweep.space.reading import read_space_and_problems
from orca_sweep.space.records import Plan, PlannedTrial, Resolve, Role, Space, TunedCell, find_first_cells
from orca_sweep.space.sizes import MAX_TRIALS, find_size_problem
from orca_sweep.space.tuned import find_tuned_cells


def plan_space(
    source: Path | Document,
    load_imports: Callable[[tuple[str, ...]], str | None],
    resolve: Resolve,
    max_trials: int = MAX_TRIALS,
    *,
    is_smoke: bool = False,
) -> Plan:
    """Reads a space, imports what it names and, if it has at most ``max_trials`` trials, expands it.

    Args:
        source: the YAML, or a document.
        load_imports: imports modules and files, and returns the SHA-256 of their source.
        resolve: turns dotted settings into a checked config.
        max_trials: a larger space is not expanded.
        is_smoke: whether to plan the space's smoke form.

    Raises:
        InputError: with all mistakes of the file, its imports and its cells.
    """
    space, problems = read_space_and_problems(source, max_trials, is_smoke=is_smoke)
    try:
        space = replace(space, code=load_imports(space.imports))
    except InputError as error:
        # The cells are not checked: names that the failed import would have registered would look unknown.
        where = space.locate("imports")
        raise InputError([*problems, *(problem.at(where, "imports") for problem in error.problems)]) from None
    size_problems = find_size_problem(space, max_trials)
    if size_problems:
        raise InputError([*problems, *size_problems])
    try:
        plan = make_plan(space, resolve)
    except InputError as error:
        news = [problem for problem in error.problems if not problems or not _is_consequence(problem, space)]
        raise InputError([*problems, *news]) from None
    if problems:
        raise InputError(problems)
    return plan


def _is_consequence(problem: Problem, space: Space) -> bool:
    """Whether a problem may result from a mistake in the file: a field is missing, perhaps because its value was wrong."""
    is_set = any(
        problem.field in of for of in (space.base, space.factors, space.tune, *(r.settings for r in space.when))
    )
    return problem.field in knobs() and problem.value is NO_VALUE and not is_set


def make_plan(space: Space, resolve: Resolve) -> Plan:
    """Expands a space: resolves its combinations and their placebos, merges equal cells, and adds every seed.

    Cost: one ``resolve`` per combination of levels; seeds need none.

    Raises:
        InputError: with the problems of all cells.
    """
    hasher = Hasher()
    combinations, problems = expand_space(space, resolve)
    names = {asked.settings["task"]: asked.cell.task for asked in combinations}
    margins = with_resolved_names(space.margins, names)
    whole = replace(add_placebo_levels(space, combinations), margins=margins)
    tuned: tuple[TunedCell, ...] = ()
    if space.tune:
        by_cell, tuned, tune_problems = find_tuned_cells(space, combinations, resolve, hasher)
        problems += tune_problems
    else:
        by_cell = _merge_equal_cells(combinations, hasher)
    cells = {cell_id: asked[0].cell for cell_id, asked in by_cell.items()}
    labels, merge_notes = label_cells(whole, by_cell)
    problems += _find_cell_problems(whole, combinations, labels, cells)
    if problems:
        raise InputError(problems)
    aliasing = space.design.find_aliasing(space.factors) if space.design.find_aliasing else None
    trials = _plan_candidates(space, tuned, hasher) if tuned else _plan_replicates(space, cells, hasher)
    return Plan(
        space=whole,
        by_cell_id=cells,
        trials=tuple(trials),
        n_combinations=len(combinations),
        tuned=tuned,
        aliasing=aliasing,
        notes=(*describe_imbalance(space, aliasing, by_cell, labels), *_describe_merges(space, by_cell), *merge_notes),
        labels=labels,
    )


def _describe_merges(space: Space, by_cell: Mapping[str, Sequence[Resolved]]) -> Iterator[str]:
    """Notes on combinations that a design lists twice, and on placebos that are the same work as the real proxy."""
    yield from describe_merged_placebos(by_cell)
    if space.design.may_repeat:
        combinations = space.design.combine(space.factors)
        yield from designs.describe_repetitions(
            {path: space.write_level(path, level) for path, level in levels.items()} for levels in combinations
        )


def _merge_equal_cells(combinations: Iterable[Resolved], hasher: Hasher) -> dict[str, list[Resolved]]:
    by_cell: dict[str, list[Resolved]] = {}
    for asked in combinations:
        by_cell.setdefault(hasher.cell_id(asked.cell), []).append(asked)
    return by_cell


def _find_cell_problems(
    space: Space,
    combinations: Iterable[Resolved],
    labels: Mapping[str, Mapping[str, str]],
    cells: Mapping[str, TrialConfig],
) -> list[Problem]:
    """What is wrong between the cells of a plan."""
    problems: list[Problem] = []
    for kind in ("task", "proxy"):
        rules = explain_shared_names(dict.fromkeys(getattr(asked.cell, kind) for asked in combinations), kind)
        problems += [Problem(where=space.locate(kind), field=kind, rule=rule) for rule in rules]
    problems += dict.fromkeys(find_split_rules(space, labels))
    problems += dict.fromkeys(find_split_declarations(space, cells.values()))
    return problems


def _plan_replicates(space: Space, cells: Mapping[str, TrialConfig], hasher: Hasher) -> Iterator[PlannedTrial]:
    """All cells with the first seed, then with the next, so that an interrupted sweep has compared all cells; then A/A."""
    rows = [plan_trials(cell_id, cell, space.seeds, hasher=hasher) for cell_id, cell in cells.items()]
    yield from itertools.chain.from_iterable(zip(*rows, strict=True))
    for reference_id in find_first_cells(cells):
        yield from plan_trials(f"{reference_id}-aa", cells[reference_id], space.aa, "aa", hasher=hasher)


def _plan_candidates(space: Space, tuned: Iterable[TunedCell], hasher: Hasher) -> Iterator[PlannedTrial]:
    rows = [
        plan_trials(cell.cell_id, config, space.search.seeds, "search", hasher=hasher)
        for cell in tuned
        for config in cell.candidates
    ]
    return itertools.chain.from_iterable(zip(*rows, strict=True))


def plan_trials(
    cell_id: str,
    config: TrialConfig,
    seeds: Iterable[int],
    role: Role = "replicate",
    *,
    hasher: Hasher | None = None,
) -> list[PlannedTrial]:
    """Returns the trials of a cell, or of a candidate of a cell, with each run seed."""
    return [
        PlannedTrial(trial_id=trial_id, cell_id=cell_id, seed=seeded.seed, config=seeded, role=role)
        for trial_id, seeded in (hasher or Hasher()).replicates(config, seeds)
    ]
