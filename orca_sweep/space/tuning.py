"""Tuning within a cell: which settings are tried, and in which order.

Every cell of an ablation gets the same search, so that a difference between two cells does not come from effort.
Candidates are settings of the tuned parameters; they are compared only on validation data.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orca_sweep.config import Seed, digest, knobs
from orca_sweep.config.labels import write_level

Settings = dict[str, Any]
DIGITS = 3
"""Significant digits of drawn numbers, so that they can be read and typed in again."""
DEFAULT_CANDIDATES = 8
SEARCH_SEED = 1_000_000
OPTUNA_STARTUP = 10
"""Candidates that Optuna draws at random before it models them (Optuna's default)."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high, both included, uniform or uniform in their logarithm."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        return f"{write_level(self.low)} to {write_level(self.high)}{' (log)' if self.log else ''}"

    def draw(self, share: float) -> float | int:
        """Returns the number at a fraction (0 to 1) of the way from low to high."""
        if self.whole and not self.log:
            return min(int(self.low + share * (self.high + 1 - self.low)), int(self.high))
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        number = ends[0] + share * (ends[1] - ends[0])
        return self.round_number(math.exp(number) if self.log else number)

    def round_number(self, number: float) -> float | int:
        """Returns a number of the range, rounded to what a person would write."""
        within = min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)
        return min(max(round(number), int(self.low)), int(self.high)) if self.whole else within


Tune = Mapping[str, tuple[Any, ...] | Range]


class Search(BaseModel):
    """How the settings of a cell are searched, with the same effort in every cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["grid", "random", "optuna"] = "grid"
    candidates: int | None = Field(None, ge=1, le=100_000)
    """Per cell; a grid has one candidate per point."""
    seeds: tuple[Seed, ...] = Field((), min_length=0)
    """Run seeds of each candidate; by default a single one that no replicate has."""
    sampler_seed: Seed = 0

    @field_validator("seeds", mode="before")
    @classmethod
    def _accept_number(cls, value: object) -> object:
        return value if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _check_effort(self) -> "Search":
        if self.method == "grid" and self.candidates is not None:
            raise ValueError("a grid has one candidate per point; set candidates only for random and optuna")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed appears here twice")
        return self

    @property
    def n_candidates(self) -> int | None:
        """Candidates per cell; None for a grid."""
        return None if self.method == "grid" else self.candidates or DEFAULT_CANDIDATES


def default_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Returns the run seed of candidates by default: one that no replicate has, even after more seeds are added.

    A candidate is chosen because it did well with its seed; a replicate with the same seed would not be a fresh draw.
    """
    taken = set(seeds)
    return (next(n for n in itertools.count(SEARCH_SEED) if n not in taken),)


def list_grid(tune: Tune) -> list[Settings]:
    """Returns all combinations of the parameters' values."""
    lists = {path: values for path, values in tune.items() if isinstance(values, tuple)}
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def draw_candidates(tune: Tune, n: int, seed: int) -> list[Settings]:
    """Returns n random settings: the same for every cell, and a larger n only adds to them."""
    return [_draw_candidate(tune, seed, i) for i in range(n)]


def _draw_candidate(tune: Tune, seed: int, index: int) -> Settings:
    shares = np.random.default_rng(_derive_seed("candidate", seed, index)).random(len(tune))
    return {path: _pick_at(values, share) for (path, values), share in zip(tune.items(), shares, strict=True)}


def _derive_seed(*key: object) -> int:
    return int(digest("sampler", key)[:8], 16)


def _pick_at(values: tuple[Any, ...] | Range, share: float) -> Any:
    return values.draw(share) if isinstance(values, Range) else values[int(share * len(values))]


def list_corners(tune: Tune) -> list[Settings]:
    """Returns settings that contain each value of a list and each end of a range, for checking beforehand."""
    values = {path: v if isinstance(v, tuple) else (v.draw(0), v.draw(1)) for path, v in tune.items()}
    longest = max(map(len, values.values()), default=0)
    return [{path: v[min(i, len(v) - 1)] for path, v in values.items()} for i in range(longest)]


def optuna_next(tune: Tune, tried: Sequence[tuple[Settings, float]], seed: int, cell: str) -> Settings:
    """Returns the settings that Optuna's TPE tries next, after those tried so far with their costs (lower is better).

    The result depends only on the arguments, so that an interrupted search continues as if it had not been interrupted.
    The first settings are random and the same for every cell.

    Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization; Optuna's TPESampler.
    """
    if len(tried) < OPTUNA_STARTUP:
        return _draw_candidate(tune, seed, len(tried))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {path: _make_distribution(values) for path, values in tune.items()}
    sampler = optuna.samplers.TPESampler(seed=_derive_seed("optuna", seed, cell, len(tried)))
    study = optuna.create_study(sampler=sampler)
    for settings, score in tried:
        params = {path: _encode_value(tune[path], value) for path, value in settings.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    asked = study.ask(distributions).params
    return {path: _decode_value(values, asked[path]) for path, values in tune.items()}


def _make_distribution(values: tuple[Any, ...] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Range):
        # Positions, since Optuna cannot store levels of every type.
        return CategoricalDistribution(range(len(values)))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _encode_value(values: tuple[Any, ...] | Range, value: Any) -> Any:
    return value if isinstance(values, Range) else values.index(value)


def _decode_value(values: tuple[Any, ...] | Range, value: Any) -> Any:
    return values.round_number(value) if isinstance(values, Range) else values[value]


def make_range(field: str, low: Any, high: Any, *, log: bool) -> Range:
    """Returns the range of a parameter, given its ends in the field's type.

    Raises:
        ValueError: if the ends do not make a range.
    """
    if None in (low, high):
        raise ValueError("a range needs a number at each end")
    if not low < high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low {low:g} has no logarithm; start above 0, or set log: false")
    return Range(low=low, high=high, log=log, whole=knobs()[field].column_type == "int64")


def takes_range(path: str) -> bool:
    """Returns whether a field is a plain number."""
    return knobs()[path].column_type in ("int64", "double")
