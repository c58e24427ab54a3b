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
from orca_sweep.space import tuning
from orca_sweep.space.reading import read
from orca_sweep.space.records import (
    OUTCOMES,
    Budget,
    Limits,
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
from orca_sweep.space.tuning import Range, Search

__all__ = [
    "Budget",
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
    "planned_before",
    "read_space",
    "seeded",
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
        cells.setdefault(cell.cell_id_without(space.tune), cell)
    if not cells and not problems:
        problems[f"{space.where('exclude')}: exclude leaves no combination of levels. Take a rule out."] = None
    problems.update(dict.fromkeys(_split_by_rules(space, cells.values())))
    tuned = _tuned(space, cells, resolve, problems) if space.tune else ()
    if problems:
        raise InputError(list(problems))
    trials = (
        tuple(
            seeded(cell.cell_id, c, seed, "search")
            for seed in space.search.seeds
            for cell in tuned
            for c in cell.candidates
        )
        if space.tune
        else tuple(seeded(cell_id, cell, seed) for seed in space.seeds for cell_id, cell in cells.items())
    )
    return Plan(space, tuple(cells.values()), trials, n_combinations, tuned)


def _tuned(
    space: Space, cells: Mapping[str, TrialConfig], resolve: Resolve, problems: dict[str, None]
) -> tuple[TunedCell, ...]:
    """The cells with what is tried in each; an adaptive search is checked at its corners."""
    search = space.search
    adaptive = search.method == "optuna"
    if search.method == "grid":
        tries = tuning.grid(space.tune)
    else:
        tries = tuning.random(space.tune, search.n_candidates or 0, search.sampler_seed)
    found = []
    for cell_id, base in cells.items():
        candidates: dict[str, TrialConfig] = {}
        for settings in (*tries, *tuning.corners(space.tune)):
            try:
                config = candidate(base, settings, resolve)
            except InputError as error:
                problems.update(dict.fromkeys(f"{_place(space, text)}: tune: {text}" for text in error.problems))
                continue
            if settings in tries:
                candidates.setdefault(config.cell_id, config)
        found.append(TunedCell(cell_id, base, () if adaptive else tuple(candidates.values())))
    return tuple(found)


def candidate(base: TrialConfig, settings: Mapping[str, Any], resolve: Resolve) -> TrialConfig:
    """Returns a cell's config with other settings.

    Raises:
        InputError: if they do not fit together.
    """
    return resolve({**base.flat(), **settings})


def planned_before(manifest: Mapping[str, Any], path: Path) -> Plan:
    """Returns the plan that a sweep folder was launched with, its configs as they were resolved then.

    Raises:
        InputError: if an older version wrote the folder, or a config is none of this version.
    """
    lacking = {"question", "metric", "resources", "limits", "imports", "tuned"} - manifest.keys()
    if lacking:
        raise InputError(f"{path}: an older version launched this sweep. Launch its space again with --out.")
    try:
        planned = [
            PlannedTrial(t["trial_id"], t["cell_id"], t["seed"], TrialConfig.from_flat(t["config"]), t["role"])
            for t in manifest["trials"]
        ]
        tuned = tuple(
            TunedCell(
                c["cell_id"], TrialConfig.from_flat(c["base"]), tuple(map(TrialConfig.from_flat, c["candidates"]))
            )
            for c in manifest["tuned"]
        )
    except ValidationError as error:
        wrong = ", ".join(sorted({place for place, _, _ in explain(error)}))
        raise InputError(f"{path}: another version launched this sweep ({wrong}). Launch its space again.") from None
    if any(trial.config.trial_id != trial.trial_id for trial in planned):
        raise InputError(
            f"{path}: another version launched this sweep, its trials had other ids. Launch its space again."
        )
    cells = {t.cell_id: t.config.model_copy(update={"seed": 0}) for t in planned if not tuned}
    cells |= {c.cell_id: c.base for c in tuned}
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
        seeds=tuple(manifest["seeds"]),
        metric=manifest["metric"],
        resources=Resources.model_validate(manifest["resources"]),
        limits=Limits.model_validate(manifest["limits"]),
        imports=tuple(manifest["imports"]),
        path=path,
        lines={},
        tune={name: _tune_of(values) for name, values in manifest["tune"].items()},
        search=Search.model_validate(manifest["search"]),
        prune=Pruning.model_validate(manifest["prune"]) if manifest["prune"] else None,
        budget=Budget.model_validate(manifest["budget"]),
        outcomes=OUTCOMES.validate_python(manifest["outcomes"]),
    )
    return Plan(space, tuple(cells.values()), tuple(planned), len(cells), tuned)


def _tune_of(values: Any) -> tuple[Any, ...] | Range:
    return Range(**values) if isinstance(values, Mapping) else tuple(values)


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


def seeded(cell_id: str, cell: TrialConfig, seed: int, role: Role = "replicate") -> PlannedTrial:
    """Returns the trial of a cell, or of a candidate of one, with a run seed."""
    config = cell.model_copy(update={"seed": seed})
    return PlannedTrial(config.trial_id, cell_id, seed, config, role)


def _place(space: Space, text: str) -> str:
    """The line of the field a resolve problem starts with ('body.name ...'), wherever it was set."""
    path = text.split(" ", 1)[0].rstrip(":")
    if path in space.factors:
        return space.where("factors", path)
    if path in space.tune:
        return space.where("tune", path)
    if any(path in rule.settings for rule in space.when):
        return space.where("when")
    return space.where("base", path) if path in space.base else space.where("base")
