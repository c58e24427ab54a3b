"""Designs: which combinations of the factors' levels an ablation runs. The first level of a factor is its reference."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Levels = Mapping[str, tuple[Any, ...]]
Combination = dict[str, Any]

RESOLUTIONS = {
    3: "main effects are mixed with two-factor interactions",
    4: "main effects are clear of two-factor interactions, which are mixed with each other",
    5: "main effects and two-factor interactions are all clear of each other",
}
"""Which effects a fraction of at least each resolution separates (Box, Hunter & Hunter 2005, ch. 6)."""
FEWEST_FACTORS, MOST_FACTORS = 3, 16
"""Of a fraction: two factors have no fraction; the search for aliases goes through all 2^n effects, and gets slow."""


@dataclass(frozen=True, kw_only=True)
class Aliasing:
    """Which effects a fraction cannot separate."""

    n_run: int
    """Combinations of the fraction."""
    n_whole: int
    """Combinations of the whole design."""
    resolution: int | None
    """The smallest sum of factors in two effects that share a column; None if all combinations run."""
    aliases: tuple[tuple[str, ...], ...]
    """Sets of main effects and two-factor interactions that share a column (up to sign)."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A rule that chooses combinations of levels."""

    name: str
    meaning: str
    combine: Callable[[Levels], Iterator[Combination]]
    count: Callable[[Mapping[str, int]], int]
    """Returns the number of combinations from each factor's number of levels, without making them."""
    levels: str = "any"
    """How many levels the factors must have: any, two each, or equally many."""
    may_repeat: bool = False
    """Whether the design lists its combinations, so that a factor may repeat a level."""
    find_aliasing: Callable[[Levels], Aliasing] | None = None
    """Returns what the design cannot separate; only for a fraction."""


def _cross_levels(factors: Levels) -> Iterator[Combination]:
    for levels in itertools.product(*factors.values()):
        yield dict(zip(factors, levels, strict=True))


def _zip_levels(factors: Levels) -> Iterator[Combination]:
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


def _count_cross(n_levels: Mapping[str, int]) -> int:
    return math.prod(n_levels.values())


def _count_zip(n_levels: Mapping[str, int]) -> int:
    return max(n_levels.values(), default=1)


def _count_one_at_a_time(n_levels: Mapping[str, int]) -> int:
    return 1 + sum(n - 1 for n in n_levels.values())


def _count_fraction(n_levels: Mapping[str, int], resolution: int) -> int:
    return len(_build_columns(len(n_levels), resolution))


def make_fraction(resolution: int = 4) -> Design:
    """Returns the smallest regular two-level fraction of at least a resolution; among those of its size, the best.

    With the default, main effects can be read without assuming that no two factors interact. From nine factors on,
    another fraction of this size and resolution may mix fewer two-factor interactions: the generators are pyDOE's,
    which stops at the first that have the resolution.
    """
    return Design(
        name="fraction",
        meaning="the fewest combinations of two levels that separate effects as the resolution requires",
        combine=partial(_combine_fraction, resolution=resolution),
        count=partial(_count_fraction, resolution=resolution),
        levels="two each",
        find_aliasing=partial(_find_aliasing, resolution=resolution),
    )


def _build_columns(n_factors: int, resolution: int) -> Any:
    """The fraction as an array (combinations, factors) of -1 and +1."""
    # Loads SciPy, which no other plan needs.
    from pydoe import fracfact_by_res

    smallest = fracfact_by_res(n_factors, resolution)
    for better in range(resolution + 1, n_factors + 1):
        columns = fracfact_by_res(n_factors, better)
        if len(columns) > len(smallest):
            break
        smallest = columns
    return smallest


def _combine_fraction(factors: Levels, resolution: int) -> Iterator[Combination]:
    columns = _build_columns(len(factors), resolution)
    # Signs are turned so that the first combination has all factors off: the reference is a cell.
    for row in columns * -columns[0]:
        yield {path: levels[int(sign > 0)] for (path, levels), sign in zip(factors.items(), row, strict=True)}


def _find_aliasing(factors: Levels, resolution: int) -> Aliasing:
    """The aliases of the columns before signs are turned: turning a column changes only the signs of aliases."""
    from pydoe import fracfact_aliasing

    names = list(factors)
    columns = _build_columns(len(names), resolution)
    # Each text is a set such as 'a = bcd': the shortest effects come first, and letters stand for factors.
    texts, _ = fracfact_aliasing(columns)
    sets = [[[names[ord(letter) - ord("a")] for letter in word] for word in text.split(" = ")] for text in texts]
    short = (tuple(" x ".join(effect) for effect in effects if len(effect) <= 2) for effects in sets)
    resolved = min((1 + len(effects[1]) for effects in sets if len(effects[0]) == 1 < len(effects)), default=None)
    return Aliasing(
        n_run=len(columns),
        n_whole=2 ** len(names),
        resolution=resolved,
        aliases=tuple(effects for effects in short if len(effects) > 1),
    )


DESIGNS: Mapping[str, Design] = {
    design.name: design
    for design in (
        Design(name="cross", meaning="all combinations of levels", combine=_cross_levels, count=_count_cross),
        Design(
            name="zip",
            meaning="the first levels together, the second levels together, and so on",
            combine=_zip_levels,
            count=_count_zip,
            levels="equally many",
            may_repeat=True,
        ),
        Design(
            name="one_at_a_time",
            meaning="all factors at their first level, then each other level of one factor alone",
            combine=_one_at_a_time,
            count=_count_one_at_a_time,
        ),
        Design(
            name="drop_one",
            meaning="all factors on (second level), then each factor alone off (first level)",
            combine=_drop_one,
            count=_count_one_at_a_time,
            levels="two each",
        ),
        # With two levels each, this is the same as varying one factor at a time.
        Design(
            name="add_one",
            meaning="all factors off (first level), then each factor alone on (second level)",
            combine=_one_at_a_time,
            count=_count_one_at_a_time,
            levels="two each",
        ),
        make_fraction(),
    )
}


def find_misfits(design: Design, n_levels: Mapping[str, int]) -> Iterator[str]:
    """Yields each reason why factors with these numbers of levels do not suit a design."""
    counts = ", ".join(f"{path} has {n}" for path, n in n_levels.items())
    if design.levels == "equally many" and len(set(n_levels.values())) > 1:
        yield f"design {design.name} pairs levels by position, so all factors need equally many ({counts})."
    if design.levels == "two each" and set(n_levels.values()) - {2}:
        yield f"design {design.name} switches factors off and on, so each needs two levels, first off, then on ({counts})."
    if design.find_aliasing and len(n_levels) < FEWEST_FACTORS:
        yield (
            f"design fraction needs at least {FEWEST_FACTORS} factors, and there are {len(n_levels)}. Use cross, which runs"
            " all combinations."
        )
    if design.find_aliasing and len(n_levels) > MOST_FACTORS:
        yield (
            f"design fraction takes at most {MOST_FACTORS} factors, and there are {len(n_levels)}. Use add_one or drop_one,"
            " or a fraction of the factors that may interact."
        )


def list_combinations(
    design: Design, factors: Levels, include: Iterable[Mapping[str, Any]], exclude: Iterable[Levels]
) -> Iterator[Combination]:
    """Yields the design's combinations, then the included ones, without the excluded ones.

    An included combination has the first level of every factor that it does not name. A rule excludes a combination if
    every factor that the rule names has one of the rule's levels.
    """
    is_out = _make_excluder(exclude)
    reference = {path: levels[0] for path, levels in factors.items()}
    for combination in itertools.chain(design.combine(factors), ({**reference, **more} for more in include)):
        if not is_out(combination):
            yield combination


def describe_repetitions(combinations: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yields a note that names the combinations that stand more than once among those of a design; levels are written."""
    counts = Counter(", ".join(f"{path} {level}" for path, level in levels.items()) for levels in combinations)
    repeated = [f"{named} ({n} times)" for named, n in counts.items() if n > 1]
    if repeated:
        more = f"; and {len(repeated) - MOST_NAMED} more" if len(repeated) > MOST_NAMED else ""
        yield f"Combinations that the space lists more than once run once: {'; '.join(repeated[:MOST_NAMED])}{more}."


MOST_NAMED = 5
"""The most combinations that a note names."""
MOST_PRODUCTS = 1000
"""A rule with at most this many combinations of levels is written out into a lookup table."""


def _make_excluder(rules: Iterable[Levels]) -> Callable[[Combination], bool]:
    """Returns a function that says whether a rule excludes a combination; of thousands of rules it checks only a few."""
    by_paths: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
    wide = []
    for rule in rules:
        if math.prod(map(len, rule.values())) > MOST_PRODUCTS:
            wide.append({path: frozenset(levels) for path, levels in rule.items()})
            continue
        paths = tuple(sorted(rule))
        by_paths.setdefault(paths, set()).update(itertools.product(*(rule[path] for path in paths)))

    def is_out(combination: Combination) -> bool:
        return any(
            tuple(combination[path] for path in paths) in excluded for paths, excluded in by_paths.items()
        ) or any(all(combination[path] in levels for path, levels in rule.items()) for rule in wide)

    return is_out
