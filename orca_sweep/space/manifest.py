"""The plan that a sweep folder was launched with, read from its manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orca_sweep.config import TrialConfig, explain
from orca_sweep.errors import InputError
from orca_sweep.space import designs
from orca_sweep.space.records import (
    DEFAULT_LOGGERS,
    OUTCOMES,
    Budget,
    Checkpoints,
    Limits,
    Logger,
    Plan,
    PlannedTrial,
    Pruning,
    Resources,
    Space,
    TunedCell,
)
from orca_sweep.space.tuning import Range, Search


def planned_before(manifest: Mapping[str, Any], path: Path) -> Plan:
    """Returns the plan that a sweep folder was launched with, its configs as they were resolved then.

    Raises:
        InputError: if an older version wrote the folder, or a config is none of this version.
    """
    needed = {"question", "metric", "resources", "limits", "imports", "seeds", "aa", "tuned", "tune", "search", "prune"}
    if {*needed, "budget", "outcomes", "levels"} - manifest.keys():
        raise InputError(f"{path}: an older version launched this sweep. Launch its space again with --out.")
    try:
        return _planned_before(manifest, path)
    except ValidationError as error:
        wrong = ", ".join(sorted({place for place, _, _ in explain(error)}))
        raise InputError(f"{path}: another version launched this sweep ({wrong}). Launch its space again.") from None
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: another version launched this sweep. Launch its space again with --out.") from None


def _planned_before(manifest: Mapping[str, Any], path: Path) -> Plan:
    planned = [
        PlannedTrial(
            trial_id=t["trial_id"],
            cell_id=t["cell_id"],
            seed=t["seed"],
            config=TrialConfig.from_flat(t["config"]),
            role=t["role"],
        )
        for t in manifest["trials"]
        if not t.get("on_the_way")  # these are planned again, from the records
    ]
    tuned = tuple(
        TunedCell(
            cell_id=c["cell_id"],
            base=TrialConfig.from_flat(c["base"]),
            settings=c["settings"],
            levels=c["levels"],
            candidates=tuple(map(TrialConfig.from_flat, c["candidates"])),
        )
        for c in manifest["tuned"]
    )
    if any(trial.config.trial_id != trial.trial_id for trial in planned):
        raise InputError(
            f"{path}: another version launched this sweep, its trials had other ids. Launch its space again."
        )
    cells = {t.cell_id: t.config.model_copy(update={"seed": 0}) for t in planned if t.role == "replicate"}
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
        placebo=(),
        seeds=tuple(manifest["seeds"]),
        aa=tuple(manifest["aa"]),
        metric=manifest["metric"],
        resources=Resources.model_validate(manifest["resources"]),
        limits=Limits.model_validate(manifest["limits"]),
        loggers=tuple(Logger.model_validate(one) for one in manifest.get("loggers", ())) or DEFAULT_LOGGERS,
        imports=tuple(manifest["imports"]),
        path=path,
        lines={},
        tune={name: _tune_of(values) for name, values in manifest["tune"].items()},
        search=Search.model_validate(manifest["search"]),
        prune=Pruning.model_validate(manifest["prune"]) if manifest["prune"] else None,
        budget=Budget.model_validate(manifest["budget"]),
        outcomes=OUTCOMES.validate_python(manifest["outcomes"]),
        margins=manifest.get("margins", {}),
        checkpoints=Checkpoints.model_validate(manifest.get("checkpoints", {})),
    )
    return Plan(
        space=space,
        by_cell_id=cells,
        trials=tuple(planned),
        n_combinations=len(cells),
        tuned=tuned,
        labels=manifest["levels"],
    )


def _tune_of(values: Any) -> tuple[Any, ...] | Range:
    return Range(**values) if isinstance(values, Mapping) else tuple(values)
