"""How large a space is, counted before any of it is expanded."""

import math

from orca_sweep.errors import Problem
from orca_sweep.space.documents import write_count
from orca_sweep.space.records import Space

MAX_TRIALS = 75_000
"""Trials that a space may have unless the user raises it: a plan of more takes more than some seconds."""


def find_size_problem(space: Space, max_trials: int = MAX_TRIALS) -> list[Problem]:
    """Returns the problem of a space that has more trials than a plan may have; none if it has not.

    All combinations of levels count, before ``exclude`` and equal work take some out: that needs them expanded.
    """
    n_combinations = space.design.count({path: len(levels) for path, levels in space.factors.items()})
    n_cells = (n_combinations + len(space.include)) * (1 + len(space.placebo))
    n_seeds = max(1, len(space.seeds))
    each, n_each = f"{write_count(n_seeds)} seeds", n_seeds
    if space.tune:
        n_candidates, n_search = _count_candidates(space), max(1, len(space.search.seeds))
        each = f"({write_count(n_candidates)} candidates x {write_count(n_search)} seeds + {each})"
        n_each += n_candidates * n_search
    n = n_cells * n_each + len(space.aa)
    if n <= max_trials:
        return []
    key = "factors" if n_cells >= n_each else "tune" if space.tune else "seeds"
    aa = f" + {write_count(len(space.aa))} A/A" if space.aa else ""
    rule = f"{write_count(n_cells)} combinations of levels x {each}{aa} = {write_count(n)} trials, more than {max_trials:,}."
    remedy = (
        "Take levels or seeds out, choose a design of fewer combinations, or raise the limit with"
        f" --max-trials {n if n < 10**15 else 'N'}."
    )
    return [Problem(where=space.locate(key), rule=rule, remedy=remedy)]


def _count_candidates(space: Space) -> int:
    """Candidates of a cell."""
    if space.search.n_candidates is not None:
        return space.search.n_candidates
    return math.prod(len(values) for values in space.tune.values() if isinstance(values, tuple))
