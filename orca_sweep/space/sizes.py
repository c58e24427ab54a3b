"""How large a space is, counted before any of it is expanded."""

import math

from orca_sweep.space.records import Space

MAX_TRIALS = 75_000
"""Trials that a space may have unless the user raises it: a plan of more takes more than some seconds."""


def as_number(n: int) -> str:
    """Returns a number as a reader takes it in: '10,000,000', or 'about 10^42'."""
    return f"{n:,}" if n < 10**15 else f"about 10^{len(str(n)) - 1}"


def find_size_problem(space: Space, max_trials: int = MAX_TRIALS) -> str | None:
    """Returns what is wrong with a space of more trials than a plan may have; None if it has no more.

    Counted are all combinations of levels, before ``exclude`` and equal work take some out: these take expanding first.
    """
    n_combinations = space.design.count({path: len(levels) for path, levels in space.factors.items()})
    n_cells = (n_combinations + len(space.include)) * (1 + len(space.placebo))
    n_seeds = max(1, len(space.seeds))
    each = f"{as_number(n_seeds)} seeds"
    n_each = n_seeds
    if space.tune:
        n_candidates, n_search = _count_candidates(space), max(1, len(space.search.seeds))
        each = f"({as_number(n_candidates)} candidates x {as_number(n_search)} seeds + {each})"
        n_each += n_candidates * n_search
    n = n_cells * n_each + len(space.aa)
    if n <= max_trials:
        return None
    place = "factors" if n_cells >= n_each else "tune" if space.tune else "seeds"
    aa = f" + {as_number(len(space.aa))} A/A" if space.aa else ""
    return (
        f"{space.where(place)}: {as_number(n_cells)} combinations of levels x {each}{aa} = {as_number(n)} trials, more than"
        f" {max_trials:,}. Take levels or seeds out, choose a design of fewer combinations, or raise the limit with"
        f" --max-trials {n if n < 10**15 else 'N'}."
    )


def _count_candidates(space: Space) -> int:
    """Candidates of a cell."""
    if space.search.n_candidates is not None:
        return space.search.n_candidates
    return math.prod(len(values) for values in space.tune.values() if isinstance(values, tuple))
