"""Cells with everything that was set in them, and which of them differ in nothing but what a question is about."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orca_sweep.analysis.naive import ACT_UNTRAINED, NAIVE
from orca_sweep.analysis.tables import by_task, metric_of, read_cells, replicated
from orca_sweep.config.freezing import says_length
from orca_sweep.config.labels import write_level
from orca_sweep.results import TRIAL_MEASURES, Cell, Results, trial_columns
from orca_sweep.stats.modes import Mode

PROXY, EPOCHS, OBJECTIVE = "proxy", "embedder.epochs", "embedder.objective"
FREEZE, FREEZE_EPOCHS, FRACTION = "finetune.freeze", "finetune.freeze_epochs", "body.pretrain_fraction"
PRETRAINING = frozenset({FRACTION, "body.pretrain_steps", "body.allow_pickle"})
FREEZING = frozenset({FREEZE, FREEZE_EPOCHS})
PLACEBO, SHUFFLED = "dummy", "shuffled:"
UNKNOWN = "null"
"""How a level reads that a table does not hold."""
TUNED = "tuned"
LAST = "objective_last"


@dataclass(frozen=True)
class ConfiguredCell:
    """One cell of a task, never an A/A cell, and every field of its config but task and seed."""

    cell: Cell
    space: str
    """That planned it."""
    settings: Mapping[str, str]
    """As they are stored, as text; what was searched within the cell is 'tuned', whatever was found."""

    @cached_property
    def objectives(self) -> dict[int, float]:
        """The objective after embedder training, by seed."""
        return {trial.seed: trial.measures[LAST] for trial in self.cell.trials if LAST in trial.measures}

    @property
    def epochs(self) -> float:
        """Embedder epochs; NaN where the table does not hold them."""
        return _number(self.settings.get(EPOCHS, UNKNOWN))

    @property
    def fraction(self) -> float:
        """The share of the pre-training corpus that its body has seen."""
        return _number(self.settings.get(FRACTION, UNKNOWN))

    @property
    def is_naive(self) -> bool:
        """Whether its embedder is not trained."""
        return any(self.settings.get(path) == level for path, level in NAIVE.items())

    @property
    def is_trained(self) -> bool:
        """Whether its embedder is trained towards a proxy."""
        return not self.is_naive and self.epochs > 0 and self.settings.get(PROXY, UNKNOWN) != UNKNOWN

    @property
    def has_placebo(self) -> bool:
        """Whether its proxy is noise, or has its labels permuted."""
        proxy = self.settings.get(PROXY, UNKNOWN)
        return proxy == PLACEBO or proxy.startswith(SHUFFLED)

    def acts(self, path: str) -> bool:
        """Whether a field has an effect here, as far as the others tell."""
        if _is_of_training(path):
            return self.is_trained
        if path in PRETRAINING and path != FRACTION:
            return self.fraction != 0
        return path != FREEZE_EPOCHS or not (self.settings.get(FREEZE) == "none" or says_length(self.shown(FREEZE)))

    def describe(self, *paths: str) -> str:
        """Returns 'proxy mnist5k, embedder.epochs 20'."""
        return ", ".join(f"{path} {self.shown(path)}" for path in paths)

    def shown(self, path: str) -> str:
        """Returns the level of a field as people read it: of a factor, as its space writes it."""
        return self.cell.labels.get(path) or self.settings.get(path, UNKNOWN)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def training(cell: ConfiguredCell) -> frozenset[str]:
    """Returns the fields that describe embedder training: without it they have no effect, and stand at one value."""
    return frozenset(filter(_is_of_training, cell.settings))


def _is_of_training(path: str) -> bool:
    return path == PROXY or (path.startswith("embedder.") and path not in ACT_UNTRAINED)


@dataclass(frozen=True)
class TaskCells:
    """The cells of one task that have a replicate, the most usual setting first.

    That is: nothing frozen, then the most pre-training, then a trained embedder, then a real proxy; among equals the
    order of the table.
    """

    task: str
    metric: str
    """The unit of the values; 'metric' as long as no trial is ok."""
    dims: int | None
    """1 or 2; None where the rows do not say, or do not agree."""
    cells: tuple[ConfiguredCell, ...]
    every: tuple[Cell, ...]
    """All of the task's, A/A cells too."""
    factors: tuple[str, ...]
    mode: Mode = "min"
    """Which way round the metric is compared."""

    def like(self, cell: ConfiguredCell, free: Collection[str]) -> list[ConfiguredCell]:
        """Returns the cells that differ from one in nothing but the free fields, itself among them.

        What is no factor may differ between cells of one space: a rule of it has set it. Between spaces nothing may.
        """
        group = self._groups(frozenset(free))[_key(cell, self.factors, free)]
        rest = [path for path in cell.settings if path not in free and path not in self.factors]
        return [one for one in group if one.space == cell.space or _key(one, rest) == _key(cell, rest)]

    def _groups(self, free: frozenset[str]) -> Mapping[tuple[str, ...], list[ConfiguredCell]]:
        """Cells by their levels of the factors that are not free."""
        if free not in self._found:
            groups: dict[tuple[str, ...], list[ConfiguredCell]] = {}
            for cell in self.cells:
                groups.setdefault(_key(cell, self.factors, free), []).append(cell)
            self._found[free] = groups
        return self._found[free]

    @cached_property
    def _found(self) -> dict[frozenset[str], Mapping[tuple[str, ...], list[ConfiguredCell]]]:
        return {}

    @cached_property
    def _varied(self) -> tuple[str, ...]:
        """Fields that have several levels among the cells that they have an effect in, and the proxy."""
        levels: dict[str, set[str]] = {}
        for cell in self.cells:
            for path in filter(cell.acts, cell.settings):
                levels.setdefault(path, set()).add(cell.shown(path))
        return tuple(path for path, of in levels.items() if len(of) > 1 or path == PROXY)

    def setting(self, cell: ConfiguredCell, but: Collection[str]) -> str:
        """Returns a cell's levels of what varies among the cells and has an effect in it, but for some fields."""
        return cell.describe(*(path for path in self._varied if path not in but and cell.acts(path)))


def _key(cell: ConfiguredCell, paths: Collection[str], free: Collection[str] = ()) -> tuple[str, ...]:
    return tuple(cell.shown(path) for path in paths if path not in free)


def task_cells(results: Results, metric: str | None = None) -> tuple[TaskCells, ...]:
    """Returns the cells of each task, in the order of the table.

    Raises:
        InputError: as `orca_sweep.analysis.tables.read_cells` does.
    """
    found = by_task(read_cells(results, metric, measures=(LAST,)))
    rows: dict[str, list[Mapping[Any, Any]]] = {}
    for row in results.trials.to_dict("records"):
        rows.setdefault(str(row["cell_id"]), []).append(row)
    dims = _dims(results)
    factors = tuple(path for path in results.factors if path != "task")
    made = []
    for task, whole in found.items():
        cells = [_configure(cell, rows[cell.cell_id], results) for cell in replicated(whole) if cell.trials]
        measured, usual_first = metric_of(whole), tuple(sorted(cells, key=_usual))
        made.append(TaskCells(task, measured.name, dims.get(task), usual_first, tuple(whole), factors, measured.mode))
    return tuple(made)


def _usual(cell: ConfiguredCell) -> tuple[bool, float, bool, bool]:
    fraction = cell.fraction
    return (
        cell.settings.get(FREEZE, UNKNOWN) not in ("none", UNKNOWN),
        math.inf if math.isnan(fraction) else -fraction,
        not cell.is_trained,
        cell.has_placebo,
    )


def _configure(cell: Cell, whole: list[Mapping[Any, Any]], results: Results) -> ConfiguredCell:
    measured = {column.name for column in TRIAL_MEASURES}
    fields = [column.name for column in trial_columns() if column.name not in measured]
    rows = [row for row in whole if row["role"] != "search"]
    paths = [
        path for path in dict.fromkeys((*fields, *cell.labels)) if path not in {"task", "seed"} and path in rows[0]
    ]
    tuned = results.tuned if len(rows) < len(whole) else ()
    settings = {path: TUNED if path in tuned else write_level(rows[0][path]) for path in paths}
    return ConfiguredCell(cell, str(rows[0].get("space")), settings)


def _dims(results: Results) -> dict[str, int]:
    """The dimensions of each task, as far as its rows say them and agree."""
    if "dims" not in results.trials:
        return {}
    known = results.trials.dropna(subset=["dims"]).groupby("task")["dims"].unique()
    return {str(task): int(values[0]) for task, values in known.items() if len(values) == 1}
