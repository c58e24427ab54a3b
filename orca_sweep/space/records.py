"""What a space and its plan are: frozen records."""

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
from orca_sweep.registry import hint
from orca_sweep.space import designs
from orca_sweep.space.tuning import Search, Tune

MetricColumn = Literal["test_metric_best", "test_metric_last", "val_metric_best", "val_metric_last"]
Resolve = Callable[[Mapping[str, Any]], TrialConfig]
Path_ = tuple[str, ...]
Role = Literal["replicate", "search", "aa"]

PLACEBOS: Mapping[str, Callable[[str], str]] = {
    "shuffled": lambda proxy: f"{SHUFFLED}{proxy}",
    "dummy": lambda proxy: "dummy",
}
"""What stands in for a real proxy: itself with its labels permuted, or noise with random labels."""

RAY_NAMES = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
TYPE_PREFIX = "accelerator_type:"
"""What Ray calls a node's kind of accelerator, as a resource of that node."""


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", name):
        raise ValueError("letters, digits and . _ : / - only")
    return name


def _own_name(name: str) -> str:
    _plain(name)
    if name in RAY_NAMES:
        raise ValueError(f"{name} is Ray's own name; use cpu and gpu")
    if name.startswith(TYPE_PREFIX):
        raise ValueError(f"{name} is Ray's own name; use accelerator_type")
    return name


class Resources(BaseModel):
    """What one trial occupies on a node, in Ray's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float = Field(1.0, gt=0, allow_inf_nan=False)
    gpu: float = Field(0.0, ge=0, allow_inf_nan=False)
    custom: dict[Annotated[str, AfterValidator(_own_name)], Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    accelerator_type: Annotated[str, AfterValidator(_plain)] | None = None
    """Ray's name of a kind of GPU, such as A100: trials run on nodes that have it."""

    @property
    def n_threads(self) -> int:
        """Torch threads of a trial."""
        return max(1, int(self.cpu))

    @property
    def device(self) -> str:
        """Where a trial computes, if its node has what is asked for."""
        return "cuda" if self.gpu > 0 else "cpu"

    @model_validator(mode="after")
    def _type_of_something(self) -> "Resources":
        if self.accelerator_type is not None and self.gpu == 0:
            raise ValueError("accelerator_type names a kind of GPU, but gpu is 0; say how many")
        return self


class Limits(BaseModel):
    """When a trial is ended before its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds; it ends at the next epoch, and goes on from there when it is launched again."""


class Checkpoints(BaseModel):
    """How often a trial's state is saved in fine-tuning: at whichever comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(1, ge=1, le=10**9)
    minutes: float = Field(10.0, gt=0, allow_inf_nan=False)
    """Also inside an epoch."""


class Budget(BaseModel):
    """What a sweep may use: when it is spent, nothing more is started, and what runs is finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    """By the clock, of one launch; the others count all launches of the sweep."""
    cpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    gpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)


Fate = Literal["exclude", "worst"]
Unhappy = Literal["failed", "diverged", "oom", "timeout", "lost", "pruned"]


class OutcomeRule(BaseModel):
    """What becomes of trials that ended in one way other than ok."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retry: int = Field(0, ge=0, le=100)
    """How often they are run again in the same launch."""
    then: Fate = "exclude"
    """Left out of means and counted there, or scored as the worst trial of their task."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"then": value} if isinstance(value, str) else value


Outcomes = dict[Unhappy, OutcomeRule]
OUTCOMES: TypeAdapter[Outcomes] = TypeAdapter(Outcomes)


class Pruning(BaseModel):
    """Ends trials early that do badly on validation data, by one of Ray's schedulers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["asha", "median"]
    grace_epochs: int = Field(1, ge=1)
    """Fine-tuning epochs that every trial gets."""
    reduction: float = Field(3.0, gt=1, allow_inf_nan=False)
    """asha goes on with one of so many at each rung."""
    cells: bool = False
    """Compares the cells themselves too, and prunes those; else candidates of one cell with one another only."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and value.get("name") in ("pbt", "pb2", "population"):
            raise ValueError(
                "population-based training changes the settings of a running trial and copies weights from one trial to"
                " another: no config describes what came out, freeze schedules lose their meaning, and no other seed can"
                " repeat it. Take asha or median"
            )
        return value


LOGGERS: Mapping[str, tuple[str, ...]] = {
    "json": (),
    "csv": (),
    "tensorboard": (),
    "wandb": ("project", "entity"),
    "mlflow": ("tracking_uri", "experiment"),
}
"""What each logger can be told. Keys and passwords are none of it: wandb and mlflow read their own variables."""


class Logger(BaseModel):
    """One way in which Ray Tune writes down what trials report: a name, or ``{name: {setting: text}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or "name" in value:
            return value
        settings = [one for one in value.values() if one is None or isinstance(one, Mapping)]
        if len(value) != 1 or not settings:
            raise ValueError("a logger is its name, or {name: {setting: text}}.")
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


@dataclass(frozen=True)
class Rule:
    """Settings of the combinations that have certain levels: a learning rate for one cell, say."""

    levels: Mapping[str, Any]
    settings: Mapping[str, Any]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Says whether a combination has all the rule's levels."""
        return all(settings[path] == level for path, level in self.levels.items())


@dataclass(frozen=True)
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
    """Seeds of the A/A cell, none of them in ``seeds``."""
    metric: MetricColumn
    resources: Resources
    limits: Limits
    loggers: tuple[Logger, ...]
    imports: tuple[str, ...]
    path: Path
    lines: Mapping[Path_, int] = field(repr=False)
    tune: Tune = field(default_factory=dict)
    search: Search = field(default_factory=Search)
    """Its seeds are filled in where the space tunes."""
    prune: Pruning | None = None
    budget: Budget = field(default_factory=Budget)
    outcomes: Outcomes = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    """By task, the largest difference that is no meaningful one, in the unit of its metric; '' holds for all others."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    code: str | None = None
    """SHA-256 of what ``imports`` names; None until it is imported, and if there is nothing."""
    written: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    """Of each field the values that the YAML gives it, and how it writes them first."""

    def write(self, path: str, level: Any) -> str:
        """Returns a level as the YAML writes it, or as it would."""
        return self.written.get(path, {}).get(level) or write_level(level)

    def where(self, *place: str) -> str:
        """Returns 'file:line' of a place in the YAML, or of its nearest parent."""
        return where(self.path, self.lines, place)


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One run of the plan."""

    trial_id: str
    cell_id: str
    """Of the A/A cell with '-aa' behind it: it is a cell of its own."""
    seed: int
    config: TrialConfig
    role: Role = "replicate"
    """Why it runs: a replicate of its cell, a candidate of its cell's tuning (search), or one of the A/A cell (aa)."""

    def entry(self) -> dict[str, Any]:
        """Returns the trial as a sweep folder records it, its config flat."""
        return {
            "trial_id": self.trial_id,
            "cell_id": self.cell_id,
            "seed": self.seed,
            "role": self.role,
            "config": self.config.flat(),
        }


@dataclass(frozen=True)
class TunedCell:
    """A cell whose tuned parameters are still to be found."""

    cell_id: str
    base: TrialConfig
    """Its config with the tuned parameters at their defaults."""
    settings: Mapping[str, Any]
    """What the space says of it, the tuned parameters aside."""
    levels: Mapping[str, Any]
    candidates: tuple[TrialConfig, ...]
    """What is tried, run seeds aside; empty if the search decides as it goes."""


@dataclass(frozen=True)
class Plan:
    """The expansion of a space."""

    space: Space
    by_cell_id: Mapping[str, TrialConfig]
    trials: tuple[PlannedTrial, ...]
    n_combinations: int
    tuned: tuple[TunedCell, ...] = ()
    """One per cell, if the space tunes; then trials are those known beforehand."""
    aliasing: designs.Aliasing | None = None
    """Of a fraction."""
    notes: tuple[str, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of each cell the level of every factor, as people read it."""

    @property
    def n_merged(self) -> int:
        """Combinations of levels that are the same work as an earlier one and run once."""
        return self.n_combinations - len(self.cells)

    @property
    def n_later(self) -> int:
        """Trials that are planned while the sweep runs, at most: replicates at each cell's best, and adaptive candidates."""
        if not self.tuned:
            return 0
        search = self.space.search
        adaptive = (search.n_candidates or 0) * len(search.seeds) if search.method == "optuna" else 0
        return len(self.tuned) * (len(self.space.seeds) + adaptive) + len(self.space.aa)

    @property
    def cells(self) -> tuple[TrialConfig, ...]:
        """The cells' configs, what is tuned at its default."""
        return tuple(self.by_cell_id.values())

    @property
    def by_task(self) -> dict[str, list[TrialConfig]]:
        """The cells of each task that are there to be compared; of those that differ in ``seed_varies`` alone, the first.

        They have the same settings and differ in spread on purpose: nothing is to be learned from comparing their means.
        """
        cells: Iterable[TrialConfig] = self.cells
        if len({cell.seed_varies for cell in self.cells}) > 1:
            unlike: dict[TrialConfig, TrialConfig] = {}
            for cell in self.cells:
                unlike.setdefault(cell.replaced(seed_varies="all"), cell)
            cells = unlike.values()
        tasks: dict[str, list[TrialConfig]] = {}
        for cell in cells:
            tasks.setdefault(cell.task, []).append(cell)
        return tasks

    @cached_property
    def names(self) -> dict[str, str]:
        """What each task and proxy of the plan is called in what people read."""
        cells = [*self.cells, *(config for cell in self.tuned for config in (cell.base, *cell.candidates))]
        tasks = label_declarations(dict.fromkeys(config.task for config in cells))
        return tasks | label_declarations(dict.fromkeys(config.proxy for config in cells))

    def labels_of(self, cell: TrialConfig) -> Mapping[str, str]:
        """Returns the labels of a config that is one of ``cells``."""
        return self.labels[self._ids[id(cell)]]

    @cached_property
    def _ids(self) -> dict[int, str]:
        return {id(cell): cell_id for cell_id, cell in self.by_cell_id.items()}


def where(path: Path, lines: Mapping[Path_, int], place: Path_) -> str:
    """Returns 'file:line' of a place, or of its nearest parent."""
    for n in range(len(place), -1, -1):
        if place[:n] in lines:
            return f"{path}:{lines[place[:n]]}"
    return str(path)
