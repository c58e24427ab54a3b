"""Naive cells: those without embedder training, which are the baseline of every way to train the embedder."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orca_sweep.config import embedder_training_fields, naive_settings
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell

NAIVE = {path: write_level(value) for path, value in naive_settings().items()}
"""Levels that mean a cell has no embedder training."""


def select_embedder_factors(factors: Iterable[str]) -> tuple[str, ...]:
    """Returns the factors of embedder and proxy; a combination of their levels is one treatment."""
    return tuple(path for path in factors if path == "proxy" or path.startswith("embedder."))


def is_naive(cell: Cell) -> bool:
    """Whether the levels of a cell show that it has no embedder training."""
    return any(write_level(cell.levels[path]) == level for path, level in NAIVE.items() if path in cell.levels)


def spread_naive_cells(cells: Sequence[Cell], factors: Iterable[str], own: Iterable[str]) -> tuple[Cell, ...]:
    """Returns the cells with a copy of each naive cell for every treatment that it is the baseline of.

    Without embedder training the settings of that training have no effect and keep one value, so a naive cell would get a
    line or panel of its own, away from the cells to compare it with. Each copy takes the levels of the trained cells that
    agree with it in everything else, except those of the factors in ``own``.
    """
    training = [path for path in select_embedder_factors(factors) if path in embedder_training_fields()]
    taken = [path for path in training if path not in own]
    trained_cells: dict[tuple[str, ...], dict[tuple[str, ...], Cell]] = {}
    for cell in cells:
        if not is_naive(cell):
            trained_cells.setdefault(_apart_from(training, cell), {}).setdefault(tuple(map(cell.label, taken)), cell)
    spread: list[Cell] = []
    for cell in cells:
        matching = trained_cells.get(_apart_from(training, cell), {}).values() if is_naive(cell) else ()
        spread += [_with_levels(cell, trained, taken) for trained in matching] or [cell]
    return tuple(spread)


def _with_levels(cell: Cell, other: Cell, paths: Iterable[str]) -> Cell:
    paths = list(paths)
    levels = {path: other.levels[path] for path in paths}
    labels = {path: other.label(path) for path in paths}
    return replace(cell, levels={**cell.levels, **levels}, labels={**cell.labels, **labels})


def _apart_from(paths: Sequence[str], cell: Cell) -> tuple[str, ...]:
    return (cell.task, *(cell.label(path) for path in cell.levels if path not in paths))
