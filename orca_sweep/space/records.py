"""What a space and its plan are: frozen records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orca_sweep import designs
from orca_sweep.config import TrialConfig
from orca_sweep.declaration import SHUFFLED

MetricColumn = Literal["test_metric_best", "test_metric_last", "val_metric_best", "val_metric_last"]
Resolve = Callable[[Mapping[str, Any]], TrialConfig]
Path_ = tuple[str, ...]

PLACEBOS: Mapping[str, Callable[[str], str]] = {
    "shuffled": lambda proxy: f"{SHUFFLED}{proxy}",
    "dummy": lambda proxy: "dummy",
}
"""What stands in for a real proxy: itself with its labels permuted, or noise with random labels."""

RAY_NAMES = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


def _own_name(name: str) -> str:
    if name in RAY_NAMES:
        raise ValueError(f"{name} is Ray's own name; use cpu and gpu")
    return name


class Resources(BaseModel):
    """What one trial occupies on a node, in Ray's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float = Field(1.0, gt=0, allow_inf_nan=False)
    gpu: float = Field(0.0, ge=0, allow_inf_nan=False)
    custom: dict[Annotated[str, AfterValidator(_own_name)], Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )


class Limits(BaseModel):
    """When a trial is ended before its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds; it ends at the next epoch, and goes on from there when it is launched again."""


@dataclass(frozen=True)
class Rule:
    """Settings of the combinations that have certain levels: a learning rate for one arm, say."""

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
    """Seeds of the A/A arm, none of them in ``seeds``."""
    metric: MetricColumn
    resources: Resources
    limits: Limits
    imports: tuple[str, ...]
    path: Path
    lines: Mapping[Path_, int] = field(repr=False)

    def where(self, *place: str) -> str:
        """Returns 'file:line' of a place in the YAML, or of its nearest parent."""
        return where(self.path, self.lines, place)


@dataclass(frozen=True)
class PlannedTrial:
    """One run of the plan."""

    trial_id: str
    cell_id: str
    """Of the A/A arm with '-aa' behind it: it is an arm of its own."""
    seed: int
    config: TrialConfig
    role: str = "replicate"
    """What the trial is for: a replicate of its cell, or 'aa', one of the A/A arm."""


@dataclass(frozen=True)
class Plan:
    """The expansion of a space."""

    space: Space
    cells: tuple[TrialConfig, ...]
    trials: tuple[PlannedTrial, ...]
    n_combinations: int
    aliasing: designs.Aliasing | None = None
    """Of a fraction."""
    notes: tuple[str, ...] = ()

    @property
    def n_merged(self) -> int:
        """Combinations of levels that are the same work as an earlier one and run once."""
        return self.n_combinations - len(self.cells)

    def levels(self, cell: TrialConfig) -> dict[str, Any]:
        """Returns the cell's level of every factor."""
        flat = cell.flat()
        return {path: flat[path] for path in self.space.factors}


def where(path: Path, lines: Mapping[Path_, int], place: Path_) -> str:
    """Returns 'file:line' of a place, or of its nearest parent."""
    for n in range(len(place), -1, -1):
        if place[:n] in lines:
            return f"{path}:{lines[place[:n]]}"
    return str(path)
