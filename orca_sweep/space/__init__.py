"""From a space YAML to a plan: cells, trials with stable ids, and every mistake at once.

Needs neither torch nor ray. What a task, body or proxy is, this module does not know: the caller
passes ``resolve``, which turns dotted settings into a checked TrialConfig.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orca_sweep import designs
from orca_sweep.config import TrialConfig, explain
from orca_sweep.errors import InputError
from orca_sweep.space.reading import read
from orca_sweep.space.records import (
    DEFAULT_LOGGERS,
    TYPE_PREFIX,
    Limits,
    Logger,
    Plan,
    PlannedTrial,
    Resolve,
    Resources,
    Rule,
    Space,
)

__all__ = [
    "TYPE_PREFIX",
    "Logger",
    "Plan",
    "PlannedTrial",
    "Resources",
    "Rule",
    "Space",
    "make_plan",
    "plan_space",
    "planned_before",
    "read_space",
]


def read_space(path: Path) -> Space:
    """Reads a space YAML.

    Raises:
        InputError: with every mistake found, each naming file, line, value, rule and nearest name.
    """
    space, problems = read(path)
    if problems:
        raise InputError(problems)
    return space


def plan_space(path: Path, load_imports: Callable[[tuple[str, ...]], None], resolve: Resolve) -> Plan:
    """Reads a space, imports what it names and expands it.

    Raises:
        InputError: with the mistakes of the file, of its imports and of its cells, all at once.
    """
    space, problems = read(path)
    try:
        load_imports(space.imports)
    except InputError as error:
        # Names that a failed import would have brought are not told to be unknown.
        raise InputError([*problems, *(f"{space.where('imports')}: {text}" for text in error.problems)]) from None
    try:
        plan = make_plan(space, resolve)
    except InputError as error:
        # After other mistakes a field may be missing only because its value was wrong.
        problems += [text for text in error.problems if not problems or "is missing. Set it" not in text]
        raise InputError(problems) from None
    if problems:
        raise InputError(problems)
    return plan


def make_plan(space: Space, resolve: Resolve) -> Plan:
    """Expands a space: factors crossed, resolved, equal cells merged, each cell with every seed.

    Cost: one ``resolve`` per combination of levels; seeds are filled in without it.

    Raises:
        InputError: with the problems of all cells.
    """
    problems: dict[str, None] = {}
    cells: dict[str, TrialConfig] = {}
    n_combinations = 0
    for settings in _combinations(space):
        n_combinations += 1
        try:
            cell = resolve(settings)
        except InputError as error:
            problems.update(dict.fromkeys(f"{_place(space, text)}: {text}" for text in error.problems))
            continue
        cells.setdefault(cell.cell_id, cell)
    if not cells and not problems:
        problems[f"{space.where('exclude')}: exclude leaves no combination of levels. Take a rule out."] = None
    problems.update(dict.fromkeys(_split_by_rules(space, cells.values())))
    if problems:
        raise InputError(list(problems))
    trials = tuple(_with_seed(cell, seed) for seed in space.seeds for cell in cells.values())
    return Plan(space, tuple(cells.values()), trials, n_combinations)


def planned_before(manifest: Mapping[str, Any], path: Path) -> Plan:
    """Returns the plan that a sweep folder was launched with, its configs as they were resolved then.

    Raises:
        InputError: if an older version wrote the folder, or a config is none of this version.
    """
    lacking = {"question", "metric", "resources", "limits", "imports"} - manifest.keys()
    if lacking:
        raise InputError(f"{path}: an older version launched this sweep. Launch its space again with --out.")
    try:
        configs = [TrialConfig.from_flat(trial["config"]) for trial in manifest["trials"]]
    except ValidationError as error:
        wrong = ", ".join(sorted({place for place, _, _ in explain(error)}))
        raise InputError(f"{path}: another version launched this sweep ({wrong}). Launch its space again.") from None
    if any(config.trial_id != trial["trial_id"] for config, trial in zip(configs, manifest["trials"], strict=True)):
        raise InputError(
            f"{path}: another version launched this sweep, its trials had other ids. Launch its space again."
        )
    cells = {config.cell_id: config.model_copy(update={"seed": 0}) for config in configs}
    flats = [cell.flat() for cell in cells.values()]
    space = Space(
        name=manifest["name"],
        question=manifest["question"],
        base={},
        factors={name: tuple(dict.fromkeys(flat[name] for flat in flats)) for name in manifest["factors"]},
        design=designs.DESIGNS["cross"],
        include=(),
        exclude=(),
        when=(),
        seeds=tuple(dict.fromkeys(config.seed for config in configs)),
        metric=manifest["metric"],
        resources=Resources.model_validate(manifest["resources"]),
        limits=Limits.model_validate(manifest["limits"]),
        loggers=tuple(Logger.model_validate(one) for one in manifest.get("loggers", ())) or DEFAULT_LOGGERS,
        imports=tuple(manifest["imports"]),
        path=path,
        lines={},
    )
    trials = tuple(PlannedTrial(c.trial_id, c.cell_id, c.seed, c) for c in configs)
    return Plan(space, tuple(cells.values()), trials, len(cells))


def _split_by_rules(space: Space, cells: Iterable[TrialConfig]) -> Iterator[str]:
    """Cells that are one by their levels, but were given different settings by rules on what they were before."""
    seen: dict[tuple[Any, ...], str] = {}
    for cell in cells if space.when else ():
        flat = cell.flat()
        levels = tuple(flat[path] for path in space.factors)
        if seen.setdefault(levels, cell.cell_id) != cell.cell_id:
            named = ", ".join(f"{path} {level}" for path, level in zip(space.factors, levels, strict=True))
            yield (
                f"{space.where('when')}: the rules give one arm ({named}) different settings: combinations of levels that"
                " are equal work are told apart by them. Let the rules hold for all of these combinations or for none."
            )


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    for combination in designs.combinations(space.design, space.factors, space.include, space.exclude):
        ruled = {path: value for rule in space.when if rule.holds(combination) for path, value in rule.settings.items()}
        yield {**space.base, **combination, **ruled}


def _with_seed(cell: TrialConfig, seed: int) -> PlannedTrial:
    config = cell.model_copy(update={"seed": seed})
    return PlannedTrial(config.trial_id, cell.cell_id, seed, config)


def _place(space: Space, text: str) -> str:
    """The line of the field a resolve problem starts with ('body.name ...'), wherever it was set."""
    path = text.split(" ", 1)[0].rstrip(":")
    if path in space.factors:
        return space.where("factors", path)
    if any(path in rule.settings for rule in space.when):
        return space.where("when")
    return space.where("base", path) if path in space.base else space.where("base")
