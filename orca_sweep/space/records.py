"""The frozen records of a space and its plan."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from orca_sweep.config import TrialConfig
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.config.labels import write_level
from orca_sweep.config.naming import label_declarations
from orca_sweep.errors import InputError, Problem
from orca_sweep.registry import hint
from orca_sweep.space import designs
from orca_sweep.space.documents import Keys, locate_keys
from orca_sweep.space.tuning import Search, Tune

MetricColumn = Literal["test_metric_best", "test_metric_last", "val_metric_best", "val_metric_last"]
Resolve = Callable[[Mapping[str, Any]], TrialConfig]
Role = Literal["replicate", "search", "aa"]

PLACEBOS: Mapping[str, Callable[[str], str]] = {
    "shuffled": lambda proxy: f"{SHUFFLED}{proxy}",
    "dummy": lambda proxy: "dummy",
}
"""What replaces a real proxy: the same data with its labels permuted, or noise with random labels."""

RAY_NAMES = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
TYPE_PREFIX = "accelerator_type:"
"""Ray's prefix of the resource that names a node's kind of accelerator."""


def _check_plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", name):
        raise ValueError("only letters, digits and . _ : / - are allowed")
    return name


def _check_own_name(name: str) -> str:
    _check_plain(name)
    if name in RAY_NAMES:
        raise ValueError(f"{name} is a name that Ray reserves; use cpu and gpu")
    if name.startswith(TYPE_PREFIX):
        raise ValueError(f"{name} is a name that Ray reserves; use accelerator_type")
    return name


class Resources(BaseModel):
    """What a trial occupies on a node, in Ray's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float = Field(1.0, gt=0, allow_inf_nan=False)
    gpu: float = Field(0.0, ge=0, allow_inf_nan=False)
    custom: dict[
        Annotated[str, AfterValidator(_check_own_name)], Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ] = Field(default_factory=dict)
    accelerator_type: Annotated[str, AfterValidator(_check_plain)] | None = None
    """Ray's name for a kind of GPU, such as A100: trials run only on nodes that have it."""

    @property
    def n_threads(self) -> int:
        """Torch threads of a trial."""
        return max(1, int(self.cpu))

    @property
    def device(self) -> str:
        """The torch device of a trial."""
        return "cuda" if self.gpu > 0 else "cpu"

    @model_validator(mode="after")
    def _check_accelerator_type(self) -> "Resources":
        if self.accelerator_type is not None and self.gpu == 0:
            raise ValueError("accelerator_type names a kind of GPU, but gpu is 0; set gpu to how many a trial needs")
        return self


class Limits(BaseModel):
    """When a trial is stopped early."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds; the trial stops at the next epoch, and continues from there when the space is launched again."""


class Checkpoints(BaseModel):
    """How often fine-tuning saves a trial's state: after so many epochs or minutes, whichever comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(1, ge=1, le=10**9)
    minutes: float = Field(10.0, gt=0, allow_inf_nan=False)
    """Also within an epoch."""


class Budget(BaseModel):
    """What a sweep may use: once it is spent, no trial starts, and running trials finish."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Hours of a single launch in which trials of the sweep run; the other limits count all launches."""
    cpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    gpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)


Fate = Literal["exclude", "worst"]
Unhappy = Literal["failed", "diverged", "oom", "timeout", "lost", "pruned"]


class OutcomeRule(BaseModel):
    """What happens to trials with a status other than ok."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retry: int = Field(0, ge=0, le=100)
    """How often such a trial runs again in the same launch."""
    then: Fate = "exclude"
    """Left out of means, which report how many are missing, or scored as the worst trial of the task."""

    @model_validator(mode="before")
    @classmethod
    def _accept_short_form(cls, value: object) -> object:
        return {"then": value} if isinstance(value, str) else value


Outcomes = dict[Unhappy, OutcomeRule]
OUTCOMES: TypeAdapter[Outcomes] = TypeAdapter(Outcomes)


class Pruning(BaseModel):
    """Stops trials early that do badly on validation data, with one of Ray's schedulers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["asha", "median"]
    grace_epochs: int = Field(1, ge=1)
    """Fine-tuning epochs that every trial gets."""
    reduction: float = Field(3.0, gt=1, allow_inf_nan=False)
    """At each rung, asha keeps one in this many trials."""
    cells: bool = False
    """Also compares and prunes the cells themselves, instead of only the candidates of each cell."""

    @model_validator(mode="before")
    @classmethod
    def _accept_short_form(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and value.get("name") in ("pbt", "pb2", "population"):
            raise ValueError(
                "population-based training changes the settings of running trials and copies weights between them: no"
                " config describes the result, freeze schedules lose their meaning, and no other seed can repeat the trial."
                " Use asha or median"
            )
        return value


LOGGERS: Mapping[str, tuple[str, ...]] = {
    "json": (),
    "csv": (),
    "tensorboard": (),
    "wandb": ("project", "entity"),
    "mlflow": ("tracking_uri", "experiment"),
}
"""The settings of each logger, without keys and passwords: wandb and mlflow read those from their own variables."""


class Logger(BaseModel):
    """A format in which Ray Tune logs what trials report: a name, or ``{name: {setting: text}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or "name" in value:
            return value
        settings = [of for of in value.values() if of is None or isinstance(of, Mapping)]
        if len(value) != 1 or not settings:
            raise ValueError("a logger must be a name, or {name: {setting: text}}.")
        return {"name": next(iter(value)), "settings": settings[0] or {}}

    @model_validator(mode="after")
    def _is_known(self) -> "Logger":
        if self.name not in LOGGERS:
            raise ValueError(f"there is no logger {self.name!r}. {hint(self.name, LOGGERS)}")
        for key in self.settings:
            if key not in LOGGERS[self.name]:
                known = hint(key, LOGGERS[self.name]) if LOGGERS[self.name] else "It has no settings."
                raise ValueError(f"{self.name} has no setting {key!r}. {known}")
        return self


DEFAULT_LOGGERS = (Logger(name="json"),)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Settings for the combinations that have certain levels, such as a learning rate for one cell."""

    levels: Mapping[str, Any]
    settings: Mapping[str, Any]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Returns whether a combination has all the rule's levels."""
        return all(settings[path] == level for path, level in self.levels.items())


@dataclass(frozen=True, kw_only=True)
class Space:
    """A space YAML, read and typed: every value already has its field's type."""

    name: str
    question: str
    base: Mapping[str, Any]
    factors: Mapping[str, tuple[Any, ...]]
    design: designs.Design
    include: tuple[Mapping[str, Any], ...]
    exclude: tuple[Mapping[str, tuple[Any, ...]], ...]
    when: tuple[Rule, ...]
    placebo: tuple[str, ...]
    seeds: tuple[int, ...]
    aa: tuple[int, ...]
    """Seeds of the A/A cell; none of them is in ``seeds``."""
    metric: MetricColumn
    resources: Resources
    limits: Limits
    loggers: tuple[Logger, ...]
    imports: tuple[str, ...]
    path: Path | None
    """Its file; None if it was made from a Python mapping."""
    lines: Mapping[Keys, int] = field(repr=False)
    tune: Tune = field(default_factory=dict)
    search: Search = field(default_factory=Search)
    """If the space tunes, it has seeds."""
    prune: Pruning | None = None
    budget: Budget = field(default_factory=Budget)
    outcomes: Outcomes = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    """For each task, the largest difference that does not matter, in its metric's unit; '' stands for all other tasks."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    is_smoke: bool = False
    """Whether this is the smoke form: small on purpose, so that its numbers answer nothing."""
    code: str | None = None
    """SHA-256 of the source of ``imports``; None before they are imported, and without imports."""
    written: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    """For each field its values in the YAML, and how the YAML writes each of them where it first appears."""

    @property
    def file(self) -> Path:
        """Its file, which a cluster gets.

        Raises:
            InputError: if it was made from a Python mapping.
        """
        if self.path is None:
            rule = "this space was made from a Python mapping, but a cluster needs its file."
            raise InputError(
                Problem(field="space", rule=rule, remedy="Write it to a YAML file and read it from there.")
            )
        return self.path

    def write_level(self, field: str, level: Any) -> str:
        """Returns a level of a field as the YAML writes it, or as it would."""
        return self.written.get(field, {}).get(level) or write_level(level)

    def locate(self, *keys: str) -> str:
        """Returns 'file:line' (in a mapping, the dotted key) of the value at a path of keys, or of the nearest around it."""
        return locate_keys(self.path, self.lines, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One run of the plan."""

    trial_id: str
    cell_id: str
    """For the A/A cell, the id of the cell that it repeats followed by '-aa'."""
    seed: int
    config: TrialConfig
    role: Role = "replicate"
    """Why it runs: a replicate of its cell, a candidate of its cell's tuning (search), or one of the A/A cell (aa)."""

    def entry(self) -> dict[str, Any]:
        """Returns the trial as sweep.json records it, with a flat config."""
        return {
            "trial_id": self.trial_id,
            "cell_id": self.cell_id,
            "seed": self.seed,
            "role": self.role,
            "config": self.config.flat(),
        }


@dataclass(frozen=True, kw_only=True)
class TunedCell:
    """A cell whose tuned parameters the sweep searches."""

    cell_id: str
    base: TrialConfig
    """Its config with the tuned parameters at their defaults."""
    settings: Mapping[str, Any]
    """What the space sets for it, without the tuned parameters."""
    levels: Mapping[str, Any]
    candidates: tuple[TrialConfig, ...]
    """The configs to try, without run seeds; empty if the search chooses them one after the other."""


def find_first_cells(cells: Mapping[str, TrialConfig]) -> tuple[str, ...]:
    """Returns the id of each task's first cell, which the A/A cell of the task repeats."""
    first: dict[str, str] = {}
    for cell_id, cell in cells.items():
        first.setdefault(cell.task, cell_id)
    return tuple(first.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The expansion of a space."""

    space: Space
    by_cell_id: Mapping[str, TrialConfig]
    trials: tuple[PlannedTrial, ...]
    n_combinations: int
    tuned: tuple[TunedCell, ...] = ()
    """One per cell if the space tunes; ``trials`` are then only those known beforehand."""
    aliasing: designs.Aliasing | None = None
    """For a fraction."""
    notes: tuple[str, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each cell, the label of every factor's level."""

    @property
    def n_merged(self) -> int:
        """Combinations of levels that are the same work as an earlier combination, and do not run again."""
        return self.n_combinations - len(self.cells)

    @property
    def n_later(self) -> int:
        """The most trials that may be added while the sweep runs: replicates of each cell's best, adaptive candidates."""
        if not self.tuned:
            return 0
        search = self.space.search
        adaptive = (search.n_candidates or 0) * len(search.seeds) if search.method == "optuna" else 0
        return len(self.tuned) * (len(self.space.seeds) + adaptive) + self.n_aa

    @property
    def n_aa(self) -> int:
        """A/A repeats: those of the first cell of each task."""
        return len(self.space.aa) * len(self.first_cells)

    @cached_property
    def first_cells(self) -> tuple[str, ...]:
        """The id of each task's first cell, which the A/A cell of the task repeats."""
        return find_first_cells(self.by_cell_id)

    @property
    def cells(self) -> tuple[TrialConfig, ...]:
        """The cells' configs, with tuned parameters at their defaults."""
        return tuple(self.by_cell_id.values())

    @property
    def by_task(self) -> dict[str, list[TrialConfig]]:
        """The cells of each task that are compared; of cells that differ only in ``seed_varies``, the first.

        Those have the same settings and differ in spread by design: comparing their means shows nothing.
        """
        cells: Iterable[TrialConfig] = self.cells
        if len({cell.seed_varies for cell in self.cells}) > 1:
            firsts: dict[TrialConfig, TrialConfig] = {}
            for cell in self.cells:
                firsts.setdefault(cell.replaced(seed_varies="all"), cell)
            cells = firsts.values()
        tasks: dict[str, list[TrialConfig]] = {}
        for cell in cells:
            tasks.setdefault(cell.task, []).append(cell)
        return tasks

    @cached_property
    def names(self) -> dict[str, str]:
        """The label of each task and proxy of the plan."""
        cells = [*self.cells, *(config for cell in self.tuned for config in (cell.base, *cell.candidates))]
        tasks = label_declarations(dict.fromkeys(config.task for config in cells))
        return tasks | label_declarations(dict.fromkeys(config.proxy for config in cells))

    @property
    def task_names(self) -> tuple[str, ...]:
        """The label of each task."""
        return tuple(self.names[task] for task in self.by_task)

    def labels_of(self, cell: TrialConfig) -> Mapping[str, str]:
        """Returns the labels of a config that is one of ``cells``."""
        return self.labels[self._ids[id(cell)]]

    @cached_property
    def _ids(self) -> dict[int, str]:
        return {id(cell): cell_id for cell_id, cell in self.by_cell_id.items()}
