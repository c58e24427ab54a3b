"""Designs: which combinations of the factors' levels an ablation runs. The first level of a factor is its reference."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Levels = Mapping[str, tuple[Any, ...]]
Combination = dict[str, Any]


@dataclass(frozen=True)
class Design:
    """A rule that makes combinations of levels."""

    name: str
    meaning: str
    combinations: Callable[[Levels], Iterator[Combination]]
    levels: str = "any"
    """What it asks of the factors: any levels, two each, or equally many."""


def _cross(factors: Levels) -> Iterator[Combination]:
    for levels in itertools.product(*factors.values()):
        yield dict(zip(factors, levels, strict=True))


def _zip(factors: Levels) -> Iterator[Combination]:
    if not factors:
        yield {}
    for levels in zip(*factors.values(), strict=True):
        yield dict(zip(factors, levels, strict=True))


def _one_at_a_time(factors: Levels) -> Iterator[Combination]:
    reference = {path: levels[0] for path, levels in factors.items()}
    yield reference
    for path, levels in factors.items():
        for level in levels[1:]:
            yield {**reference, path: level}


def _drop_one(factors: Levels) -> Iterator[Combination]:
    full = {path: levels[1] for path, levels in factors.items()}
    yield full
    for path, levels in factors.items():
        yield {**full, path: levels[0]}


DESIGNS: Mapping[str, Design] = {
    design.name: design
    for design in (
        Design("cross", "all combinations of levels", _cross),
        Design("zip", "the first levels together, the second levels together, and so on", _zip, "equally many"),
        Design(
            "one_at_a_time",
            "all factors at their first level, then each other level of one factor alone",
            _one_at_a_time,
        ),
        Design(
            "drop_one", "all factors on (second level), then each one off (first level) alone", _drop_one, "two each"
        ),
        # With two levels each, adding one to nothing is varying one at a time.
        Design(
            "add_one",
            "all factors off (first level), then each one on (second level) alone",
            _one_at_a_time,
            "two each",
        ),
    )
}


def misfit(design: Design, factors: Levels) -> str | None:
    """Returns why the factors do not suit a design, or None."""
    counts = {path: len(levels) for path, levels in factors.items()}
    said = ", ".join(f"{path} has {n}" for path, n in counts.items())
    if design.levels == "equally many" and len(set(counts.values())) > 1:
        return f"design {design.name} pairs levels by their place, so factors need equally many ({said})."
    if design.levels == "two each" and set(counts.values()) - {2}:
        return f"design {design.name} switches factors off and on, so each needs two levels, off first ({said})."
    return None


def combinations(
    design: Design, factors: Levels, include: Iterable[Mapping[str, Any]], exclude: Iterable[Levels]
) -> Iterator[Combination]:
    """Yields the design's combinations, then the included ones, but for the excluded ones.

    An included combination has the first level of every factor that it does not name. A combination is excluded if
    for some rule every factor named there has one of the levels named there.
    """
    rules = tuple(exclude)
    reference = {path: levels[0] for path, levels in factors.items()}
    for combination in itertools.chain(design.combinations(factors), ({**reference, **more} for more in include)):
        if not any(all(combination[path] in levels for path, levels in rule.items()) for rule in rules):
            yield combination
