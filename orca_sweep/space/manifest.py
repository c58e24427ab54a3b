"""The plan in a sweep folder: the owner of ``sweep.json`` and of the files beside it that add to the plan.

``sweep.json`` is the plan of the last launch. ``planned.jsonl`` has a line for each trial planned while that launch ran, and
``planned-before.json`` holds the trials that earlier launches planned while they ran. `read_manifest` is the only reader and
`write_manifest` the only writer of ``sweep.json``. Other modules use a `SweepManifest`; `rebuild_plan` turns it back into
a plan.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from orca_sweep.config import CONTENTS, TrialConfig, explain_validation, knobs
from orca_sweep.errors import DamagedError, InputError
from orca_sweep.record_files import (
    Id,
    explain_unreadable,
    fields_type,
    is_begun_record,
    list_of,
    parse_record,
    read_record_file,
    read_regular_file,
    record_text,
)
from orca_sweep.space import designs
from orca_sweep.space.records import (
    Budget,
    Checkpoints,
    Limits,
    Logger,
    MetricColumn,
    Outcomes,
    Plan,
    PlannedTrial,
    Pruning,
    Resources,
    Space,
    TunedCell,
)
from orca_sweep.space.tuning import Range, Search
from orca_sweep.store import explain_write_errors, write_json

MANIFEST, PLANNED, PLANNED_BEFORE = "sweep.json", "planned.jsonl", "planned-before.json"
PLAN_AGAIN = "Launch the sweep's space again; trials planned while it ran are planned again from the records."
LAUNCH_AGAIN = "Launch its space again with --out."


def _make_entry_type() -> Any:
    # Text columns take any level, since one holds ``forever`` beside numbers.
    types: Mapping[str, Any] = {"string": Any, "int64": int | None, "double": float | None, "bool": bool | None}
    fields = {knob.path: NotRequired[types[knob.column_type]] for knob in knobs().values()}
    contents = dict.fromkeys(CONTENTS, NotRequired[str | None])
    config = fields_type("Config", **{**fields, **contents, "task": str})
    return fields_type("TrialEntry", trial_id=Id, cell_id=Id, seed=int, role=str, config=config)


if TYPE_CHECKING:
    TrialEntry = dict[str, Any]
else:
    TrialEntry = _make_entry_type()
"""A planned trial: ``trial_id, cell_id, seed, role`` and its flat ``config``; ``on_the_way`` is true if it was planned while
its sweep ran. A dictionary, because a plan may have 50,000 of them."""

ENTRY: TypeAdapter[TrialEntry] = TypeAdapter(TrialEntry)
BEFORE_FILE: TypeAdapter[dict[str, list[TrialEntry]]] = TypeAdapter(fields_type("Before", trials=list_of(TrialEntry)))


class TunedEntry(BaseModel):
    """A cell with tuned parameters; its configs are flat."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    cell_id: Id
    base: dict[str, Any]
    """The cell's config with the tuned parameters at their defaults."""
    settings: dict[str, Any]
    levels: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]


class DesignEntry(BaseModel):
    """The design of a sweep; of a fraction also its size and what it cannot separate."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    name: str
    n_run: int | None = None
    """Combinations of the fraction, as ``n_whole`` those of the whole design."""
    n_whole: int | None = None
    resolution: int | None = None
    aliases: tuple[tuple[str, ...], ...] = ()


class SweepManifest(BaseModel):
    """A plan as its sweep folder holds it: every config, and everything else that resuming needs."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    name: str
    question: str
    metric: MetricColumn
    factors: tuple[str, ...]
    design: DesignEntry | None = None
    """None in a manifest of an earlier version."""
    labels: dict[str, dict[str, str]]
    """By cell, the readable level of every factor."""
    seeds: tuple[int, ...]
    aa: tuple[int, ...]
    resources: Resources
    limits: Limits
    checkpoints: Checkpoints
    loggers: tuple[Logger, ...]
    imports: tuple[str, ...]
    tune: dict[str, Range | tuple[Any, ...]]
    search: Search
    prune: Pruning | None
    budget: Budget
    outcomes: Outcomes
    margins: dict[str, float]
    is_smoke: bool = False
    data: str
    store: str
    n_later: int
    """Trials that the sweep may still plan, depending on results."""
    tuned: tuple[TunedEntry, ...]
    trials: tuple[TrialEntry, ...]
    """Trials planned at the launch, then those planned while the sweep ran."""
    earlier: tuple[TrialEntry, ...] = ()
    """Trials of earlier contents of files and code; they keep their rows."""

    @property
    def all_trials(self) -> tuple[TrialEntry, ...]:
        """All trials in the sweep folder: those planned now, then those of earlier contents."""
        return (*self.trials, *self.earlier)

    def content(self) -> dict[str, Any]:
        """Returns the content of the JSON file. Trial entries are not copied."""
        large = {"tuned", "trials", "earlier"}
        tuned = [dict(cell) for cell in self.tuned]
        return {**self.model_dump(exclude=large), "tuned": tuned, "trials": self.trials, "earlier": self.earlier}


MANIFEST_FILE: TypeAdapter[SweepManifest] = TypeAdapter(SweepManifest)


def make_manifest(plan: Plan, data_root: Path, store: str) -> SweepManifest:
    """Returns the manifest of a plan that runs with a data root and a store."""
    space = plan.space
    # Without validation: the parts are typed already, and checking 50,000 trials again would take seconds.
    return SweepManifest.model_construct(
        **{name: getattr(space, name) for name in SweepManifest.model_fields if name in _OF_SPACE},
        factors=tuple(space.factors),
        design=_make_design_entry(plan),
        labels={cell_id: dict(labels) for cell_id, labels in plan.labels.items()},
        tune=dict(space.tune),
        outcomes=dict(space.outcomes),
        margins=dict(space.margins),
        data=str(data_root),
        store=store,
        n_later=plan.n_later,
        tuned=tuple(map(_make_tuned_entry, plan.tuned)),
        trials=tuple(trial.entry() for trial in plan.trials),
    )


_OF_SPACE = frozenset({
    "name", "question", "metric", "seeds", "aa", "resources", "limits", "checkpoints", "loggers", "imports", "search",
    "prune", "budget", "is_smoke",
})  # fmt: skip
"""Fields that are the same in a manifest and in its space."""


def _make_design_entry(plan: Plan) -> DesignEntry:
    name, fraction = plan.space.design.name, plan.aliasing
    if fraction is None:
        return DesignEntry(name=name)
    return DesignEntry(
        name=name,
        n_run=fraction.n_run,
        n_whole=fraction.n_whole,
        resolution=fraction.resolution,
        aliases=fraction.aliases,
    )


def _make_tuned_entry(cell: TunedCell) -> TunedEntry:
    return TunedEntry(
        cell_id=cell.cell_id,
        base=cell.base.flat(),
        settings=dict(cell.settings),
        levels=dict(cell.levels),
        candidates=tuple(config.flat() for config in cell.candidates),
    )


# Files --------------------------------------------------------------------------------------------


def write_manifest(folder: Path, manifest: SweepManifest) -> None:
    """Writes the manifest of a sweep folder.

    Trials that the last launch planned while it ran stay planned until this launch plans their cell again.

    Raises:
        StorageError: if a file cannot be written.
    """
    try:
        before = _list_on_the_way(folder)
    except DamagedError:
        before = []  # all of them are planned again
    write_json(folder / PLANNED_BEFORE, {"trials": before})
    (folder / PLANNED).unlink(missing_ok=True)
    write_json(folder / MANIFEST, manifest.content())


def append_planned(folder: Path, trials: Iterable[TrialEntry]) -> None:
    """Adds trials to the plan of a running sweep."""
    with explain_write_errors(folder / PLANNED), (folder / PLANNED).open("a", encoding="utf-8") as file:
        file.writelines(f"{record_text(trial)}\n" for trial in trials)


def require_manifest(folder: Path) -> SweepManifest:
    """Returns the manifest of a sweep folder.

    Raises:
        InputError: if the folder holds no sweep, or its files are damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no sweep here (no sweep.json). Name a folder that 'orca-sweep launch' wrote.")
    return manifest


def read_manifest(folder: Path) -> SweepManifest | None:
    """Returns the manifest of a sweep folder, or None if the folder holds no sweep.

    Raises:
        DamagedError: if one of its files is damaged.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        return None
    remedy = (
        f"Launch the sweep's space again with --out {folder}. This rewrites the file and keeps trials that have ended."
    )
    manifest = read_record_file(folder / MANIFEST, MANIFEST_FILE, remedy)
    if manifest is None:
        return None
    planned = _sort_planned(manifest, _list_on_the_way(folder))
    n_later = max(0, manifest.n_later - len(planned))
    return manifest.model_copy(update={"n_later": n_later, "trials": (*manifest.trials, *planned)})


def _list_on_the_way(folder: Path) -> list[TrialEntry]:
    """Returns the trials planned while the last launch ran, or for other cells and roles, while earlier launches ran."""
    latest = _read_planned(folder)
    replanned = {(trial["cell_id"], trial["role"]) for trial in latest}
    before = read_record_file(folder / PLANNED_BEFORE, BEFORE_FILE, PLAN_AGAIN) or {"trials": []}
    kept = [trial for trial in before["trials"] if (trial["cell_id"], trial["role"]) not in replanned]
    unique = {(trial["trial_id"], trial["cell_id"], trial["role"]): trial for trial in (*kept, *latest)}
    return [{**trial, "on_the_way": True} for trial in unique.values()]


def _read_planned(folder: Path) -> list[TrialEntry]:
    """Returns the trials planned while the last launch ran, without a last line that a killed driver left half-written.

    Raises:
        DamagedError: for a damaged line; the message names it.
    """
    path = folder / PLANNED
    try:
        blob = read_regular_file(path) or b""
    except OSError as error:
        raise DamagedError(path, explain_unreadable(error), PLAN_AGAIN) from None
    *lines, last = blob.split(b"\n")
    if last.endswith(b"}") or not is_begun_record(last):
        lines.append(last)
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(parse_record(line, ENTRY))
        except ValueError as error:
            raise DamagedError(path, f"damaged: line {number}: {error}", PLAN_AGAIN) from None
    return trials


def _sort_planned(manifest: SweepManifest, planned: Iterable[TrialEntry]) -> list[TrialEntry]:
    """Returns trials planned while the sweep ran, in the order of cells and roles rather than that of chance."""
    cells = [cell.cell_id for cell in manifest.tuned]
    ranks = {cell_id: rank for rank, cell_id in enumerate(cells)} | {f"{cell_id}-aa": len(cells) for cell_id in cells}
    known = [trial for trial in planned if trial["cell_id"] in ranks]
    return sorted(known, key=lambda trial: (ranks[trial["cell_id"]], trial["role"] != "search"))


# Plans --------------------------------------------------------------------------------------------


def rebuild_plan(manifest: SweepManifest, path: Path) -> Plan:
    """Returns the plan that a sweep folder was launched with, with the configs as they were resolved then.

    Args:
        manifest: the manifest of the folder.
        path: path of its ``sweep.json``, for messages.

    Raises:
        InputError: if a config does not fit this version.

    Cost: 0.1 ms per trial.
    """
    try:
        return _make_plan(manifest, path)
    except ValidationError as error:
        wrong = ", ".join(sorted({field for field, _, _ in explain_validation(error)}))
        raise InputError(f"{path}: another version launched this sweep ({wrong}). {LAUNCH_AGAIN}") from None
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: another version launched this sweep. {LAUNCH_AGAIN}") from None


def _make_plan(manifest: SweepManifest, path: Path) -> Plan:
    # Trials planned while the sweep ran are planned again from the records.
    planned = tuple(_read_trial(entry) for entry in manifest.trials if not entry.get("on_the_way"))
    if any(trial.config.trial_id != trial.trial_id for trial in planned):
        raise InputError(f"{path}: another version launched this sweep, so its trials have other ids. {LAUNCH_AGAIN}")
    tuned = tuple(map(_read_tuned_cell, manifest.tuned))
    cells = {t.cell_id: t.config.model_copy(update={"seed": 0}) for t in planned if t.role == "replicate"}
    cells |= {cell.cell_id: cell.base for cell in tuned}
    space = _rebuild_space(manifest, path, cells.values())
    return Plan(
        space=space,
        by_cell_id=cells,
        trials=planned,
        n_combinations=len(cells),
        tuned=tuned,
        labels=manifest.labels,
        aliasing=_read_aliasing(manifest.design),
    )


def _read_aliasing(design: DesignEntry | None) -> designs.Aliasing | None:
    if design is None or design.n_run is None or design.n_whole is None:
        return None
    return designs.Aliasing(
        n_run=design.n_run, n_whole=design.n_whole, resolution=design.resolution, aliases=design.aliases
    )


def _rebuild_space(manifest: SweepManifest, path: Path, cells: Iterable[TrialConfig]) -> Space:
    flats = [cell.flat() for cell in cells]
    return Space(
        **{name: getattr(manifest, name) for name in _OF_SPACE},
        base={},
        factors={name: tuple(dict.fromkeys(flat[name] for flat in flats)) for name in manifest.factors},
        design=designs.DESIGNS[manifest.design.name if manifest.design else "cross"],
        include=(),
        exclude=(),
        when=(),
        placebo=(),
        path=path,
        lines={},
        tune=manifest.tune,
        outcomes=manifest.outcomes,
        margins=manifest.margins,
    )


def _read_trial(entry: TrialEntry) -> PlannedTrial:
    return PlannedTrial(
        trial_id=entry["trial_id"],
        cell_id=entry["cell_id"],
        seed=entry["seed"],
        config=TrialConfig.from_flat(entry["config"]),
        role=entry["role"],
    )


def _read_tuned_cell(entry: TunedEntry) -> TunedCell:
    return TunedCell(
        cell_id=entry.cell_id,
        base=TrialConfig.from_flat(entry.base),
        settings=entry.settings,
        levels=entry.levels,
        candidates=tuple(map(TrialConfig.from_flat, entry.candidates)),
    )
