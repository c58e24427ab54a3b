"""From a space YAML to a plan: cells, trials with stable ids, and every mistake at once.

Needs neither torch nor ray. What a task, body or proxy is, this module does not know: the caller
passes ``resolve``, which turns dotted settings into a checked TrialConfig.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from orca_sweep.config import Hasher, TrialConfig
from orca_sweep.config.naming import explain_shared_names
from orca_sweep.errors import InputError
from orca_sweep.space.expansion import (
    Resolved,
    candidate,
    expand,
    fraction_notes,
    split_by_declarations,
    split_by_rules,
    tuned_cells,
    with_placebo_levels,
)
from orca_sweep.space.labelling import label_cells
from orca_sweep.space.margins import with_resolved_names
from orca_sweep.space.reading import read
from orca_sweep.space.records import (
    TYPE_PREFIX,
    Budget,
    Checkpoints,
    Logger,
    OutcomeRule,
    Plan,
    PlannedTrial,
    Pruning,
    Resolve,
    Resources,
    Role,
    Rule,
    Space,
    TunedCell,
)
from orca_sweep.space.sizes import MAX_TRIALS, find_size_problem
from orca_sweep.space.tuning import Range, Search

__all__ = [
    "MAX_TRIALS",
    "TYPE_PREFIX",
    "Budget",
    "Checkpoints",
    "Logger",
    "OutcomeRule",
    "Plan",
    "PlannedTrial",
    "Pruning",
    "Range",
    "Resolve",
    "Resources",
    "Rule",
    "Search",
    "Space",
    "TunedCell",
    "candidate",
    "make_plan",
    "plan_space",
    "read_space",
    "seeded",
]


def read_space(path: Path, max_trials: int = MAX_TRIALS) -> Space:
    """Reads a space YAML of at most so many trials.

    Raises:
        InputError: with every mistake found, each naming file, line, value, rule and nearest name.
    """
    space, problems = read(path, max_trials)
    problems += [] if problems else filter(None, [find_size_problem(space, max_trials)])
    if problems:
        raise InputError(problems)
    return space


def plan_space(
    path: Path,
    load_imports: Callable[[tuple[str, ...]], str | None],
    resolve: Resolve,
    max_trials: int = MAX_TRIALS,
) -> Plan:
    """Reads a space, imports what it names and, if it has at most ``max_trials`` trials, expands it.

    Args:
        path: the YAML.
        load_imports: imports modules and files, and returns the SHA-256 of their source.
        resolve: turns dotted settings into a checked config.
        max_trials: the most that are expanded.

    Raises:
        InputError: with the mistakes of the file, of its imports and of its cells, all at once.
    """
    space, problems = read(path, max_trials)
    try:
        space = replace(space, code=load_imports(space.imports))
    except InputError as error:
        # Names that a failed import would have brought are not told to be unknown.
        raise InputError([*problems, *(f"{space.where('imports')}: {text}" for text in error.problems)]) from None
    size = find_size_problem(space, max_trials)
    if size is not None:
        raise InputError([*problems, size])
    try:
        plan = make_plan(space, resolve)
    except InputError as error:
        # After other mistakes a field may be missing only because its value was wrong.
        problems += [str(text) for text in error.problems if not problems or "is missing. Set it" not in str(text)]
        raise InputError(problems) from None
    if problems:
        raise InputError(problems)
    return plan


def make_plan(space: Space, resolve: Resolve) -> Plan:
    """Expands a space: its design's combinations and their placebos resolved, equal cells merged, each with every seed.

    Cost: one ``resolve`` per combination of levels; seeds are filled in without it.

    Raises:
        InputError: with the problems of all cells.
    """
    hasher = Hasher()
    found, problems = expand(space, resolve)
    asked: dict[str, list[Resolved]] = {}
    for one in found if not space.tune else ():
        asked.setdefault(hasher.cell_id(one.cell), []).append(one)
    names = {one.settings["task"]: one.cell.task for one in found}
    whole = replace(with_placebo_levels(space, found), margins=with_resolved_names(space.margins, names))
    tuned: tuple[TunedCell, ...] = ()
    if space.tune:
        asked, tuned, wrong = tuned_cells(space, found, resolve, hasher)
        problems += wrong
    cells = {cell_id: of[0].cell for cell_id, of in asked.items()}
    for kind in ("task", "proxy"):
        shared = explain_shared_names(dict.fromkeys(getattr(one.cell, kind) for one in found), kind)
        problems += [f"{space.where(kind)}: {text}" for text in shared]
    labels, merged = label_cells(whole, asked)
    problems += dict.fromkeys(split_by_rules(whole, labels))
    problems += dict.fromkeys(split_by_declarations(whole, cells.values()))
    if problems:
        raise InputError(problems)
    aliasing = space.design.aliasing(space.factors) if space.design.aliasing else None
    notes = (*fraction_notes(space, aliasing, asked, labels), *merged)
    trials = tuple(_candidates(space, tuned, hasher) if tuned else _replicates(space, cells, hasher))
    return Plan(whole, cells, trials, len(found), tuned, aliasing, notes, labels=labels)


def _replicates(space: Space, cells: Mapping[str, TrialConfig], hasher: Hasher) -> Iterator[PlannedTrial]:
    """Seed for seed, so that a sweep that is cut short has compared all cells; then the A/A cell."""
    rows = [seeded(cell_id, cell, space.seeds, hasher=hasher) for cell_id, cell in cells.items()]
    yield from itertools.chain.from_iterable(zip(*rows, strict=True))
    reference_id, reference = next(iter(cells.items()))
    yield from seeded(f"{reference_id}-aa", reference, space.aa, "aa")


def _candidates(space: Space, tuned: Iterable[TunedCell], hasher: Hasher) -> Iterator[PlannedTrial]:
    rows = [
        seeded(cell.cell_id, config, space.search.seeds, "search", hasher=hasher)
        for cell in tuned
        for config in cell.candidates
    ]
    return itertools.chain.from_iterable(zip(*rows, strict=True))


def seeded(
    cell_id: str,
    config: TrialConfig,
    seeds: Iterable[int],
    role: Role = "replicate",
    *,
    hasher: Hasher | None = None,
) -> list[PlannedTrial]:
    """Returns the trials of a cell, or of a candidate of one, with run seeds."""
    trials = (hasher or Hasher()).replicates(config, seeds)
    return [PlannedTrial(trial_id, cell_id, one.seed, one, role) for trial_id, one in trials]
