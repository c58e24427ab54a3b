"""The labels of cells: the levels that the space asks for, as it writes them, or what runs where they have no effect."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from orca_sweep.config import TrialConfig, acts, default_settings, naive_settings, read_facts
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.config.labels import FREEZE, write_stored
from orca_sweep.config.naming import DECLARED_FACTORS, label_declarations
from orca_sweep.space.expansion import Resolved
from orca_sweep.space.records import Space

OWN_VALUE_IS_DEFAULT = ("finetune.dropout", "body.pretrain_steps")
"""Fields whose default also stands for the body's own value, which acts."""
Asked = Mapping[str, Sequence[Resolved]]
"""For each cell, the combinations of levels that are its work."""
First = Mapping[str, Mapping[Any, Any]]
"""For each factor, the levels that are the same work as an earlier level in every combination, and that earlier level."""


def label_cells(space: Space, asked: Asked) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Returns each cell's label for every factor, and a note on each level that is the same as another.

    A label is the level that the space asks for, as it writes it. If several combinations share the cell, the label
    comes from the combination closest to what runs. Where the level has no effect, the label shows what runs.
    """
    first = find_equal_levels(space, asked)
    labels = {cell_id: _label_cell(space, combinations, first) for cell_id, combinations in asked.items()}
    cells = {cell_id: combinations[0].cell for cell_id, combinations in asked.items()}
    for path in set(DECLARED_FACTORS) & set(space.factors):
        names = label_declarations(dict.fromkeys(getattr(cell, path) for cell in cells.values()))
        for cell_id, cell in cells.items():
            labels[cell_id][path] = names[getattr(cell, path)]
    return labels, [
        _describe_equal(space, path, level, other) for path, levels in first.items() for level, other in levels.items()
    ]


def _describe_equal(space: Space, path: str, level: Any, other: Any) -> str:
    later, first = space.write_level(path, level), space.write_level(path, other)
    return (
        f"{path}: the levels {first} and {later} are the same work in every combination of this space, so they count as"
        f" one level, shown as {first} where it has an effect."
    )


def _label_cell(space: Space, combinations: Sequence[Resolved], first: First) -> dict[str, str]:
    cell = combinations[0].cell
    run = {path: attrgetter(path)(cell) for path in space.factors}
    best = max(combinations, key=lambda asked: sum(asked.settings.get(path) == level for path, level in run.items()))
    labels = {}
    for path, level in run.items():
        wanted = best.settings.get(path)
        if wanted != level:
            equal = first.get(path, {})
            several = (
                len({equal.get(level, level) for level in (asked.settings.get(path) for asked in combinations)}) > 1
            )
            if several or _is_idle(path, wanted, cell, is_tuned=bool(space.tune)):
                labels[path] = _write_run(space, path, level, cell)
                continue
        labels[path] = space.write_level(path, first.get(path, {}).get(wanted, wanted))
    return labels


def _write_run(space: Space, path: str, level: Any, cell: TrialConfig) -> str:
    if path == FREEZE:
        return write_stored(path, lambda name: attrgetter(name)(cell))
    return space.write_level(path, level)


def _is_idle(path: str, asked: Any, cell: TrialConfig, is_tuned: bool) -> bool:
    """Whether the level that the space asks of a cell has no effect there, so that the field has another value.

    A level that has no effect with one candidate of tuning may have one with the next.
    """
    value, facts = attrgetter(path)(cell), read_facts(cell.flat())
    if path == "proxy" and facts.trains_embedder:  # permuted labels where the objective sees none
        return str(asked).startswith(SHUFFLED) and not value.startswith(SHUFFLED)
    if path in naive_settings():
        return not facts.trains_embedder
    if is_tuned or path == FREEZE:
        return False
    if path == "finetune.freeze_epochs":
        return not (value == "forever" and isinstance(asked, int) and asked >= cell.finetune.epochs)
    if path == "embedder.lr_decay" and facts.trains_embedder:  # 1 means a constant rate
        return float(asked) != 1
    # The facts of the task and of a published body are unknown here: a default value then counts as idle.
    is_known = path in OWN_VALUE_IS_DEFAULT
    return not acts(path, facts) or (not is_known and value == default_settings().get(path))


# Equal levels -------------------------------------------------------------------------------------


def find_equal_levels(space: Space, asked: Asked) -> First:
    """Returns the levels of each factor that give the same cell as an earlier level, whatever the other factors are.

    Cost: none if every combination has its own cell; otherwise a pass over the combinations of the levels in question.
    """
    pairs = _find_candidates(space, asked)
    equal: dict[str, dict[Any, Any]] = {}
    for path, level_pairs in pairs.items():
        cells = _map_cells_by_level(space, path, asked, {level for pair in level_pairs for level in pair})
        for level, other in level_pairs:
            both = cells[level].keys() & cells[other].keys()
            if all(cells[level][context] == cells[other][context] for context in both):
                equal.setdefault(path, {}).setdefault(level, other)
    return {path: {level: _find_first(levels, level) for level in levels} for path, levels in equal.items()}


def _find_first(levels: Mapping[Any, Any], level: Any) -> Any:
    while level in levels:
        level = levels[level]
    return level


def _find_candidates(space: Space, asked: Asked) -> dict[str, dict[tuple[Any, Any], None]]:
    """Pairs of levels, the later first, that share a cell somewhere with all other factors alike."""
    pairs: dict[str, dict[tuple[Any, Any], None]] = {}
    ranks = {path: {level: i for i, level in enumerate(levels)} for path, levels in space.factors.items()}
    for combinations in asked.values():
        if len(combinations) == 1:
            continue
        for path in space.factors:
            groups: dict[tuple[Any, ...], Any] = {}
            for combination in combinations:
                level = combination.settings.get(path)
                other = groups.setdefault(_list_other_levels(space, path, combination), level)
                if other != level:
                    late, early = sorted((level, other), key=lambda level: ranks[path].get(level, 10**9), reverse=True)
                    pairs.setdefault(path, {})[(late, early)] = None
    return pairs


def _list_other_levels(space: Space, path: str, combination: Resolved) -> tuple[Any, ...]:
    return tuple(combination.settings.get(other) for other in space.factors if other != path)


def _map_cells_by_level(
    space: Space, path: str, asked: Asked, levels: set[Any]
) -> dict[Any, dict[tuple[Any, ...], str]]:
    """For each of the levels, its cells by the levels of the other factors."""
    cells: dict[Any, dict[tuple[Any, ...], str]] = {level: {} for level in levels}
    for cell_id, combinations in asked.items():
        for combination in combinations:
            level = combination.settings.get(path)
            if level in levels:
                cells[level][_list_other_levels(space, path, combination)] = cell_id
    return cells
