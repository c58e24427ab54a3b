"""The cells of a space that tunes: which candidates each cell tries, and which combinations share a cell."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orca_sweep.config import Hasher, TrialConfig, digest
from orca_sweep.errors import InputError, Problem
from orca_sweep.space import tuning
from orca_sweep.space.expansion import Resolved, locate_problems
from orca_sweep.space.records import Resolve, Space, TunedCell


def find_tuned_cells(
    space: Space, combinations: Iterable[Resolved], resolve: Resolve, hasher: Hasher
) -> tuple[dict[str, list[Resolved]], tuple[TunedCell, ...], list[Problem]]:
    """Returns each cell's combinations, the cells with their candidates, and the problems of candidates.

    Combinations share a cell if all their candidates are the same work. An adaptive search is checked at the ends of
    its ranges.
    """
    search, problems = space.search, dict[Problem, None]()
    tries = tuning.list_grid(space.tune)
    if search.method != "grid":
        tries = tuning.draw_candidates(space.tune, search.n_candidates or 0, search.sampler_seed)
    cells: dict[frozenset[str], TunedCell] = {}
    by_cell: dict[str, list[Resolved]] = {}
    for asked in combinations:
        candidates: dict[str, TrialConfig] = {}
        checked: set[str] = set()
        for i, settings in enumerate((*tries, *tuning.list_corners(space.tune))):
            try:
                config = resolve_candidate(asked.settings, settings, resolve)
            except InputError as error:
                problems |= dict.fromkeys(locate_problems(space, error.problems, "tune"))
                continue
            cell_id = hasher.cell_id(config)
            checked.add(cell_id)
            if i < len(tries):
                candidates.setdefault(cell_id, config)
        tried = () if search.method == "optuna" else tuple(candidates.values())
        first = cells.setdefault(frozenset(checked), _make_cell(space, asked, tried))
        by_cell.setdefault(first.cell_id, []).append(asked)
    return by_cell, tuple(cells.values()), list(problems)


def _make_cell(space: Space, asked: Resolved, candidates: Sequence[TrialConfig]) -> TunedCell:
    """A cell; its id depends on its fixed settings and on what it searches, so that another range is another cell."""
    hashed = asked.cell.hashed().items()
    fixed = {field: value for field, value in hashed if field != "seed" and field not in space.tune}
    tune = {
        field: str(values) if isinstance(values, tuning.Range) else list(values) for field, values in space.tune.items()
    }
    return TunedCell(
        cell_id=digest("tuned cell", [fixed, dict(asked.levels), tune, space.search.method]),
        base=asked.cell,
        settings=asked.settings,
        levels=asked.levels,
        candidates=tuple(candidates),
    )


def resolve_candidate(fixed: Mapping[str, Any], settings: Mapping[str, Any], resolve: Resolve) -> TrialConfig:
    """Returns the config of a cell's settings and tuned settings.

    ``fixed`` is what the space sets, not a resolved config: a field that has no effect with one candidate may have one
    with the next.

    Raises:
        InputError: if the settings do not fit together.
    """
    return resolve({**fixed, **settings})
