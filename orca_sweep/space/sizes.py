"""The size of a space, counted before it is expanded."""

import math

from orca_sweep.errors import Problem
from orca_sweep.space.documents import write_count
from orca_sweep.space.records import Space

MAX_TRIALS = 75_000
"""The most trials of a space unless the user raises the limit: larger plans take longer than a few seconds."""


def find_size_problem(space: Space, max_trials: int = MAX_TRIALS) -> list[Problem]:
    """Returns the problem of a space with more than ``max_trials`` trials; empty if it has no more.

    Counts all combinations of levels, including those that ``exclude`` or equal work remove: only an expansion finds
    them.
    """
    n_combinations = space.design.count({path: len(levels) for path, levels in space.factors.items()})
    n_cells = (n_combinations + len(space.include)) * (1 + len(space.placebo))
    n_seeds = max(1, len(space.seeds))
    each, n_each = f"{write_count(n_seeds)} seeds", n_seeds
    if space.tune:
        n_candidates, n_search = _count_candidates(space), max(1, len(space.search.seeds))
        each = f"({write_count(n_candidates)} candidates x {write_count(n_search)} seeds + {each})"
        n_each += n_candidates * n_search
    n_aa = len(space.aa) * max(1, len(space.factors.get("task", ())))
    n = n_cells * n_each + n_aa
    if n <= max_trials:
        return []
    key = "factors" if n_cells >= n_each else "tune" if space.tune else "seeds"
    aa = f" + {write_count(n_aa)} A/A" if space.aa else ""
    rule = f"{write_count(n_cells)} combinations of levels x {each}{aa} = {write_count(n)} trials, more than {max_trials:,}."
    remedy = (
        "Remove levels or seeds, choose a design with fewer combinations, or raise the limit with"
        f" --max-trials {n if n < 10**15 else 'N'}."
    )
    return [Problem(where=space.locate(key), rule=rule, remedy=remedy)]


def _count_candidates(space: Space) -> int:
    """The number of candidates per cell."""
    if space.search.n_candidates is not None:
        return space.search.n_candidates
    return math.prod(len(values) for values in space.tune.values() if isinstance(values, tuple))
