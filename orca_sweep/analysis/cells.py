"""Cells with every field of their config, and which of them differ only in what a question is about."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.naive import NAIVE
from orca_sweep.analysis.tables import by_task, metric_of, read_cells, replicated
from orca_sweep.config import Facts, acts, body_training_fields, embedder_training_fields
from orca_sweep.config.freezing import body_is_always_frozen, states_length
from orca_sweep.config.labels import write_level
from orca_sweep.results import TRIAL_MEASURES, Cell, Results, trial_columns
from orca_sweep.stats.modes import Mode

if TYPE_CHECKING:
    import pandas as pd

PROXY, EPOCHS, OBJECTIVE = "proxy", "embedder.epochs", "embedder.objective"
FREEZE, FREEZE_EPOCHS, FRACTION = "finetune.freeze", "finetune.freeze_epochs", "body.pretrain_fraction"
NORMALISE, LABEL_GRADIENT = "data.normalise", "embedder.label_gradient"
PRETRAINING = frozenset({FRACTION, "body.pretrain_steps", "body.allow_pickle"})
FREEZING = frozenset({FREEZE, FREEZE_EPOCHS})
PLACEBO, SHUFFLED = "dummy", "shuffled:"
UNKNOWN = "null"
"""The level of a field that the table does not have."""
TUNED, RAW = "tuned", "none"
LAST, ACT, SCALE = "objective_last", "proxy_labels_act", "normalised"
ONE_HOT = "one-hot"
"""What ``normalised`` says of inputs without a scale."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredCell:
    """One cell of a task, never an A/A cell, and every field of its config except task and seed."""

    cell: Cell
    space: str
    """The space that planned it."""
    settings: Mapping[str, str]
    """Stored levels as text; 'tuned' for a field that was searched within the cell, whatever the result."""
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By field that was searched within the cell, the levels that were tried."""
    labels_act: bool | None = None
    """Whether the labels of its proxy reach the gradient of embedder training; None if the rows do not say."""
    scale: str = ""
    """How its inputs were normalised, as its rows say."""

    @cached_property
    def objectives(self) -> dict[int, float]:
        """The objective after embedder training, by seed."""
        return {trial.seed: trial.measures[LAST] for trial in self.cell.trials if LAST in trial.measures}

    @cached_property
    def epochs(self) -> float:
        """Embedder epochs; NaN where the table does not have them."""
        return _parse_number(self.settings.get(EPOCHS, UNKNOWN))

    @cached_property
    def fraction(self) -> float:
        """The share of the pre-training corpus that its body has seen; NaN where the table does not have it."""
        return _parse_number(self.settings.get(FRACTION, UNKNOWN))

    @cached_property
    def is_naive(self) -> bool:
        """Whether its embedder is not trained."""
        return any(self.settings.get(path) == level for path, level in NAIVE.items())

    @cached_property
    def is_trained(self) -> bool:
        """Whether its embedder is trained towards a proxy."""
        return not self.is_naive and self.epochs > 0 and self.settings.get(PROXY, UNKNOWN) != UNKNOWN

    @property
    def trains_on_data(self) -> bool:
        """Whether its embedder is trained towards a real proxy, neither noise nor permuted labels."""
        return self.is_trained and not self.has_placebo

    @cached_property
    def normalisation(self) -> str:
        """How its inputs are normalised: none, channel ...; null if the table does not say."""
        level = self.settings.get(NORMALISE, UNKNOWN)
        # The task's own way is in the rows alone.
        measured = self.scale.partition(":")[0].partition(";")[0].strip()
        return (measured or UNKNOWN) if level == UNKNOWN else level

    @property
    def has_codes(self) -> bool:
        """Whether its inputs are one-hot, as its rows say: these have no scale, and stay as they are."""
        return ONE_HOT in self.scale

    @property
    def has_placebo(self) -> bool:
        """Whether its proxy is noise, or has its labels permuted."""
        proxy = self.settings.get(PROXY, UNKNOWN)
        return proxy == PLACEBO or proxy.startswith(SHUFFLED)

    def acts(self, path: str) -> bool:
        """Whether a field has an effect in this cell, as far as the other fields say."""
        return acts(path, self._facts)

    @cached_property
    def _facts(self) -> Facts:
        says_all = self.settings.get(FREEZE) == "none" or states_length(self.level_of(FREEZE))
        return Facts(trains_embedder=self.is_trained, pretrain_fraction=self.fraction, freeze_says_length=says_all)

    def describe_levels(self, *paths: str) -> str:
        """Returns 'proxy mnist5k, embedder.epochs 20'."""
        return ", ".join(f"{path} {self.level_of(path)}" for path in paths)

    def level_of(self, path: str) -> str:
        """Returns the level of a field as people read it: that of a factor as its space writes it."""
        if path in self.candidates:
            return TUNED
        return self.cell.labels.get(path) or self.settings.get(path, UNKNOWN)


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def training_fields(cell: ConfiguredCell) -> frozenset[str]:
    """Returns the fields that describe embedder training: without it they have no effect, and keep one value."""
    return embedder_training_fields() & cell.settings.keys()


def list_idle_fields(a: ConfiguredCell, b: ConfiguredCell, free: Collection[str]) -> frozenset[str]:
    """Returns fields without effect in one of two cells because of a free field: no difference in them counts.

    A body that is frozen for good, for example, has no dropout.
    """
    if FREEZE not in free or not (_is_body_frozen(a) or _is_body_frozen(b)):
        return frozenset()
    return body_training_fields()


def _is_body_frozen(cell: ConfiguredCell) -> bool:
    length = cell.settings.get(FREEZE_EPOCHS, UNKNOWN)
    epochs = int(length) if length.isdecimal() else length
    return body_is_always_frozen(cell.settings.get(FREEZE, UNKNOWN), epochs)


def _are_equal(a: ConfiguredCell, b: ConfiguredCell, paths: Collection[str], free: Collection[str]) -> bool:
    idle = list_idle_fields(a, b, free)
    compared = [path for path in paths if path not in idle]
    return _levels_key(a, compared) == _levels_key(b, compared)


@dataclass(frozen=True, kw_only=True)
class TaskCells:
    """The cells of one task that have a replicate, those with the most usual setting first.

    The order is: nothing frozen, then the most pre-training, then a trained embedder, then a real proxy, then normalised
    inputs, then tuned fields; ties keep the order of the table.
    """

    task: str
    metric: str
    """The unit of the values; 'metric' until a trial is ok."""
    dims: int | None
    """1 or 2; None where the rows do not say, or disagree."""
    cells: tuple[ConfiguredCell, ...]
    every: tuple[Cell, ...]
    """All cells of the task, including A/A cells."""
    factors: tuple[str, ...]
    mode: Mode = "min"
    """Whether a lower or a higher metric is better."""

    def find_alike(self, cell: ConfiguredCell, free: Collection[str]) -> list[ConfiguredCell]:
        """Returns the cells that differ from a cell only in the free fields, including the cell itself.

        Within a space, fields that are not factors may differ too, since a rule of the space sets them; between spaces
        they may not. The cells are equally tuned: the same fields were searched in each, and between spaces over the same
        levels.
        """
        group = self._group_cells(frozenset(free))[_levels_key(cell, self.factors, free)]
        rest = [path for path in cell.settings if path not in free and path not in self.factors]
        return [
            other
            for other in group
            if (other.space == cell.space and other.candidates.keys() == cell.candidates.keys())
            or (other.candidates == cell.candidates and _are_equal(cell, other, rest, free))
        ]

    def _group_cells(self, free: frozenset[str]) -> Mapping[tuple[str, ...], list[ConfiguredCell]]:
        """Returns the cells by their levels of the factors that are not free."""
        if free not in self._groups:
            groups: dict[tuple[str, ...], list[ConfiguredCell]] = {}
            for cell in self.cells:
                groups.setdefault(_levels_key(cell, self.factors, free), []).append(cell)
            self._groups[free] = groups
        return self._groups[free]

    @cached_property
    def _groups(self) -> dict[frozenset[str], Mapping[tuple[str, ...], list[ConfiguredCell]]]:
        return {}

    @cached_property
    def _varied_paths(self) -> tuple[str, ...]:
        """The proxy, and fields that have several levels among the cells in which they have an effect."""
        levels: dict[str, set[str]] = {}
        for cell in self.cells:
            for path in filter(cell.acts, cell.settings):
                levels.setdefault(path, set()).add(cell.level_of(path))
        return tuple(path for path, of_path in levels.items() if len(of_path) > 1 or path == PROXY)

    def describe_setting(self, cell: ConfiguredCell, but: Collection[str]) -> str:
        """Returns a cell's levels of the fields that vary among the cells and have an effect in it, except some fields."""
        return cell.describe_levels(*(path for path in self._varied_paths if path not in but and cell.acts(path)))


def _levels_key(cell: ConfiguredCell, paths: Collection[str], free: Collection[str] = ()) -> tuple[str, ...]:
    return tuple(cell.level_of(path) for path in paths if path not in free)


def read_task_cells(results: Results, metric: str | None = None) -> tuple[TaskCells, ...]:
    """Returns the cells of each task, tasks in the order of the table.

    Raises:
        InputError: as `orca_sweep.analysis.tables.read_cells` does.
    """
    cells_by_task = by_task(read_cells(results, metric, measures=(LAST,)))
    rows = _read_first_rows(results)
    dims, candidates = _read_dims(results), _list_candidates(results)
    labels_act, scales = read_label_action(results), _read_first_known(results, SCALE)
    factors = tuple(path for path in results.factors if path != "task")
    tasks = []
    for task, every in cells_by_task.items():
        cells = [
            replace(
                _configure_cell(cell, rows[cell.cell_id], candidates.get(cell.cell_id, {})),
                labels_act=labels_act.get(cell.cell_id),
                scale=str(scales.get(cell.cell_id, "")),
            )
            for cell in replicated(every)
            if cell.trials
        ]
        measured = metric_of(every)
        tasks.append(
            TaskCells(
                task=task,
                metric=measured.name,
                dims=dims.get(task),
                cells=tuple(sorted(cells, key=_usual_first)),
                every=tuple(every),
                factors=factors,
                mode=measured.mode,
            )
        )
    return tuple(tasks)


def _usual_first(cell: ConfiguredCell) -> tuple[bool, float, bool, bool, bool, bool]:
    fraction = cell.fraction
    return (
        cell.settings.get(FREEZE, UNKNOWN) not in ("none", UNKNOWN),
        math.inf if math.isnan(fraction) else -fraction,
        not cell.is_trained,
        cell.has_placebo,
        cell.normalisation == RAW,
        not cell.candidates,
    )


def _read_first_rows(results: Results) -> dict[str, Mapping[str, str]]:
    """Returns the settings of each cell: those of its first trial that is no candidate of tuning, by cell id."""
    trials = results.trials
    first = trials[trials["role"] != "search"].drop_duplicates("cell_id")
    measured = {column.name for column in TRIAL_MEASURES} - {"space"}
    settings = {str(name): _write_levels(first[name]) for name in first if name not in measured}
    rows = zip(*settings.values(), strict=True)
    return {cell_id: dict(zip(settings, row, strict=True)) for cell_id, row in zip(first["cell_id"], rows, strict=True)}


def _write_levels(values: "pd.Series[Any]") -> list[str]:
    """Returns levels as text; equal levels share one text, since a plan has 100 settings for each of its cells."""
    texts: dict[tuple[type, Any], str] = {}
    keys = [(type(value), value) for value in values.tolist()]
    return [texts.setdefault(key, write_level(key[1])) for key in keys]


def _list_candidates(results: Results) -> dict[str, dict[str, tuple[str, ...]]]:
    """Returns the cells within which fields were tuned: by field with several candidates, their levels."""
    searched = results.trials[results.trials["role"] == "search"]
    by_cell: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in (path for path in results.tuned if path in searched):
        for cell_id, values in searched.groupby("cell_id", sort=False)[path].unique().items():
            levels = tuple(sorted({write_level(value) for value in values}))
            if len(levels) > 1:
                by_cell.setdefault(str(cell_id), {})[path] = levels
    return by_cell


def read_label_action(results: Results) -> dict[str, bool | None]:
    """Returns of each cell whether the labels of its proxy reach the gradient of embedder training; None: nobody knows.

    Tables of earlier versions lack the column ``proxy_labels_act``. There ``embedder.label_gradient`` decides, which every
    objective with that setting obeys; without it nobody knows.
    """
    known = {**_read_first_known(results, LABEL_GRADIENT), **_read_first_known(results, ACT)}
    return {
        str(cell_id): bool(known[cell_id]) if cell_id in known else None
        for cell_id in results.trials["cell_id"].unique()
    }


def _read_first_known(results: Results, column: str) -> dict[str, Any]:
    """Returns the first value of a column among the replicates of each cell that have one."""
    if column not in results.trials:
        return {}
    rows = results.trials.loc[results.trials["role"] != "search", ["cell_id", column]].dropna()
    return dict(rows.drop_duplicates("cell_id").itertuples(index=False, name=None))


def _configure_cell(cell: Cell, row: Mapping[str, str], candidates: Mapping[str, tuple[str, ...]]) -> ConfiguredCell:
    fields = (path for path in _list_fields() if path not in {"task", "seed"})
    paths = [path for path in dict.fromkeys((*fields, *cell.labels)) if path in row]
    settings = {path: TUNED if path in candidates else row[path] for path in paths}
    return ConfiguredCell(cell=cell, space=str(row.get("space")), settings=settings, candidates=candidates)


@cache
def _list_fields() -> tuple[str, ...]:
    """Returns the fields of a config."""
    measured = {column.name for column in TRIAL_MEASURES}
    return tuple(column.name for column in trial_columns() if column.name not in measured)


def _read_dims(results: Results) -> dict[str, int]:
    """Returns the dimensions of each task whose rows have them and agree."""
    if "dims" not in results.trials:
        return {}
    known = results.trials.dropna(subset=["dims"]).groupby("task")["dims"].unique()
    return {str(task): int(values[0]) for task, values in known.items() if len(values) == 1}
