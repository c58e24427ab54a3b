"""From a space YAML to a plan: cells, trials with stable ids, and every mistake at once.

Needs neither torch nor ray. What a task, body or proxy is, this module does not know: the caller
passes ``resolve``, which turns dotted settings into a checked TrialConfig.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orca_sweep import designs
from orca_sweep.config import TrialConfig, explain
from orca_sweep.errors import InputError
from orca_sweep.space.expansion import expand, fraction_notes, split_by_rules, with_placebo_levels
from orca_sweep.space.reading import read
from orca_sweep.space.records import Limits, Plan, PlannedTrial, Resolve, Resources, Rule, Space

__all__ = [
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
    """Expands a space: its design's combinations and their placebos resolved, equal cells merged, each with every seed.

    Cost: one ``resolve`` per combination of levels; seeds are filled in without it.

    Raises:
        InputError: with the problems of all cells.
    """
    found, problems = expand(space, resolve)
    cells: dict[str, TrialConfig] = {}
    for one in found:
        cells.setdefault(one.cell.cell_id, one.cell)
    whole = with_placebo_levels(space, found)
    problems += dict.fromkeys(split_by_rules(whole, cells.values()))
    if problems:
        raise InputError(problems)
    aliasing = space.design.aliasing(space.factors) if space.design.aliasing else None
    notes = tuple(fraction_notes(space, aliasing, found))
    return Plan(whole, tuple(cells.values()), tuple(_trials(space, cells)), len(found), aliasing, notes)


def _trials(space: Space, cells: Mapping[str, TrialConfig]) -> Iterator[PlannedTrial]:
    """Seed for seed, so that a sweep that is cut short has compared all cells; then the A/A arm."""
    for row in zip(*(cell.replicates(space.seeds) for cell in cells.values()), strict=True):
        for cell_id, (trial_id, config) in zip(cells, row, strict=True):
            yield PlannedTrial(trial_id, cell_id, config.seed, config)
    reference_id, reference = next(iter(cells.items()))
    for trial_id, config in reference.replicates(space.aa):
        yield PlannedTrial(trial_id, f"{reference_id}-aa", config.seed, config, "aa")


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
    # A sweep of before there was an A/A arm has none.
    trials = tuple(
        PlannedTrial(trial["trial_id"], trial["cell_id"], config.seed, config, trial.get("role", "replicate"))
        for config, trial in zip(configs, manifest["trials"], strict=True)
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
        placebo=(),
        seeds=tuple(dict.fromkeys(trial.seed for trial in trials if trial.role == "replicate")),
        aa=tuple(trial.seed for trial in trials if trial.role == "aa"),
        metric=manifest["metric"],
        resources=Resources.model_validate(manifest["resources"]),
        limits=Limits.model_validate(manifest["limits"]),
        imports=tuple(manifest["imports"]),
        path=path,
        lines={},
    )
    return Plan(space, tuple(cells.values()), trials, len(cells))
