"""What a sweep folder says of its plan: THE owner of ``sweep.json`` and of the files beside it that add to the plan.

``sweep.json`` is the plan last launched, ``planned.jsonl`` has a line for each trial that was planned while that launch ran,
and ``planned-before.json`` holds what earlier launches planned so. `read_manifest` is the only reader and `write_manifest`
the only writer; everybody else takes a `SweepManifest`, and `rebuild_plan` makes a plan of it again.
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
PLAN_AGAIN = "Launch the sweep's space again: what was planned on the way is planned anew from the records."
LAUNCH_AGAIN = "Launch its space again with --out."


def _make_entry_type() -> Any:
    # Columns of text take any level: ``forever`` stands in one with numbers.
    types: Mapping[str, Any] = {"string": Any, "int64": int | None, "double": float | None, "bool": bool | None}
    fields = {knob.path: NotRequired[types[knob.column_type]] for knob in knobs().values()}
    contents = dict.fromkeys(CONTENTS, NotRequired[str | None])
    config = fields_type("Config", **{**fields, **contents, "task": str})
    return fields_type("TrialEntry", trial_id=Id, cell_id=Id, seed=int, role=str, config=config)


if TYPE_CHECKING:
    TrialEntry = dict[str, Any]
else:
    TrialEntry = _make_entry_type()
"""A planned trial: ``trial_id, cell_id, seed, role`` and its flat ``config``. It stays a dictionary, since a plan may have
50,000; ``on_the_way`` is true of one that was planned while its sweep ran."""

ENTRY: TypeAdapter[TrialEntry] = TypeAdapter(TrialEntry)
BEFORE_FILE: TypeAdapter[dict[str, list[TrialEntry]]] = TypeAdapter(fields_type("Before", trials=list_of(TrialEntry)))


class TunedEntry(BaseModel):
    """A cell whose tuned parameters are still to be found; configs are flat."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    cell_id: Id
    base: dict[str, Any]
    """Its config with the tuned parameters at their defaults."""
    settings: dict[str, Any]
    levels: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]


class SweepManifest(BaseModel):
    """A plan as its sweep folder holds it, with every config, and what a resumption needs besides."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    name: str
    question: str
    metric: MetricColumn
    factors: tuple[str, ...]
    labels: dict[str, dict[str, str]]
    """Of each cell the level of every factor, as people read it."""
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
    data: str
    store: str
    n_later: int
    """Trials that may still be planned, from the results of those that are."""
    tuned: tuple[TunedEntry, ...]
    trials: tuple[TrialEntry, ...]
    """Those planned at the launch, then those planned on the way."""
    earlier: tuple[TrialEntry, ...] = ()
    """Of earlier contents of files and code; they keep their rows."""

    @property
    def all_trials(self) -> tuple[TrialEntry, ...]:
        """All trials that the sweep folder knows: those planned now, then those of earlier contents."""
        return (*self.trials, *self.earlier)

    def content(self) -> dict[str, Any]:
        """Returns what is written as JSON. Entries of trials are not copied."""
        large = {"tuned", "trials", "earlier"}
        tuned = [dict(cell) for cell in self.tuned]
        return {**self.model_dump(exclude=large), "tuned": tuned, "trials": self.trials, "earlier": self.earlier}


MANIFEST_FILE: TypeAdapter[SweepManifest] = TypeAdapter(SweepManifest)


def make_manifest(plan: Plan, data_root: Path, store: str) -> SweepManifest:
    """Returns what a sweep folder says of a plan that is to run with these data and this store."""
    space = plan.space
    # Its parts are typed already: to check each of 50,000 trials again would take seconds.
    return SweepManifest.model_construct(
        **{name: getattr(space, name) for name in SweepManifest.model_fields if name in _OF_SPACE},
        factors=tuple(space.factors),
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
    "prune", "budget",
})  # fmt: skip
"""Fields that a manifest and its space have in the same form."""


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
    """Writes what the sweep folder says of itself.

    What the last launch planned on the way is planned anew, cell by cell; until it is, it stands.

    Raises:
        StorageError: if a file cannot be written.
    """
    try:
        before = _list_on_the_way(folder)
    except DamagedError:
        before = []  # all of it is planned anew
    write_json(folder / PLANNED_BEFORE, {"trials": before})
    (folder / PLANNED).unlink(missing_ok=True)
    write_json(folder / MANIFEST, manifest.content())


def append_planned(folder: Path, trials: Iterable[TrialEntry]) -> None:
    """Adds trials to the plan of a running sweep."""
    with explain_write_errors(folder / PLANNED), (folder / PLANNED).open("a", encoding="utf-8") as file:
        file.writelines(f"{record_text(trial)}\n" for trial in trials)


def require_manifest(folder: Path) -> SweepManifest:
    """Returns what a sweep folder says of itself.

    Raises:
        InputError: if it holds no sweep, or its files are damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no sweep here (no sweep.json). Name a folder that 'orca-sweep launch' wrote.")
    return manifest


def read_manifest(folder: Path) -> SweepManifest | None:
    """Returns what a sweep folder says of itself, or None if it holds no sweep.

    Raises:
        DamagedError: if a file is there that does not hold what was written.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        return None
    again = f"Launch the sweep's space again with --out {folder}: it writes the file anew and keeps the trials that have ended."
    manifest = read_record_file(folder / MANIFEST, MANIFEST_FILE, again)
    if manifest is None:
        return None
    planned = _sort_planned(manifest, _list_on_the_way(folder))
    left = max(0, manifest.n_later - len(planned))
    return manifest.model_copy(update={"n_later": left, "trials": (*manifest.trials, *planned)})


def _list_on_the_way(folder: Path) -> list[TrialEntry]:
    """Trials planned on the way, now or by an earlier launch, whichever is the last word on a cell and role."""
    now = _read_planned(folder)
    anew = {(trial["cell_id"], trial["role"]) for trial in now}
    before = read_record_file(folder / PLANNED_BEFORE, BEFORE_FILE, PLAN_AGAIN) or {"trials": []}
    kept = [trial for trial in before["trials"] if (trial["cell_id"], trial["role"]) not in anew]
    unique = {(trial["trial_id"], trial["cell_id"], trial["role"]): trial for trial in (*kept, *now)}
    return [{**trial, "on_the_way": True} for trial in unique.values()]


def _read_planned(folder: Path) -> list[TrialEntry]:
    """Trials that this launch has planned on the way; a last line that a killed driver left half-written is none.

    Raises:
        DamagedError: naming the line that is not what was written.
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
    """Trials planned on the way by cell and role: which cell was searched first is chance, and no matter of tables."""
    cells = [cell.cell_id for cell in manifest.tuned]
    ranks = {cell_id: rank for rank, cell_id in enumerate(cells)} | {f"{cell_id}-aa": len(cells) for cell_id in cells}
    known = [trial for trial in planned if trial["cell_id"] in ranks]
    return sorted(known, key=lambda trial: (ranks[trial["cell_id"]], trial["role"] != "search"))


# Plans --------------------------------------------------------------------------------------------


def rebuild_plan(manifest: SweepManifest, path: Path) -> Plan:
    """Returns the plan that a sweep folder was launched with, its configs as they were resolved then.

    Args:
        manifest: what the folder says of itself.
        path: of its ``sweep.json``, for messages.

    Raises:
        InputError: if a config is not one of this version.

    Cost: 0.1 ms per trial.
    """
    try:
        return _rebuild(manifest, path)
    except ValidationError as error:
        wrong = ", ".join(sorted({field for field, _, _ in explain_validation(error)}))
        raise InputError(f"{path}: another version launched this sweep ({wrong}). {LAUNCH_AGAIN}") from None
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: another version launched this sweep. {LAUNCH_AGAIN}") from None


def _rebuild(manifest: SweepManifest, path: Path) -> Plan:
    # Those planned on the way are planned again, from the records.
    planned = tuple(_read_trial(entry) for entry in manifest.trials if not entry.get("on_the_way"))
    if any(trial.config.trial_id != trial.trial_id for trial in planned):
        raise InputError(
            f"{path}: another version launched this sweep, its trials had other ids. Launch its space again."
        )
    tuned = tuple(map(_read_tuned_cell, manifest.tuned))
    cells = {t.cell_id: t.config.model_copy(update={"seed": 0}) for t in planned if t.role == "replicate"}
    cells |= {cell.cell_id: cell.base for cell in tuned}
    space = _rebuild_space(manifest, path, cells.values())
    return Plan(
        space=space, by_cell_id=cells, trials=planned, n_combinations=len(cells), tuned=tuned, labels=manifest.labels
    )


def _rebuild_space(manifest: SweepManifest, path: Path, cells: Iterable[TrialConfig]) -> Space:
    flats = [cell.flat() for cell in cells]
    return Space(
        **{name: getattr(manifest, name) for name in _OF_SPACE},
        base={},
        factors={name: tuple(dict.fromkeys(flat[name] for flat in flats)) for name in manifest.factors},
        design=designs.DESIGNS["cross"],
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
