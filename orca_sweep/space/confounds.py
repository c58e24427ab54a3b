"""Warns of comparisons that mix two effects: knobs that move together, unequal effort, learning rates never tried."""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

from orca_sweep.config import Facts, TrialConfig, acts, read_facts, rules
from orca_sweep.config.freezing import Phase, cut_phases, parse_schedule, without_stepping
from orca_sweep.config.labels import write_level
from orca_sweep.space.records import Plan

EFFORT = ("finetune.epochs", "finetune.batch_size", "finetune.accumulation", "data.n_train")
"""What sets the number of fine-tuning optimizer steps of a task."""


def find_confounds(plan: Plan) -> list[str]:
    """Returns a warning for each difference between cells that could be mistaken for an effect or hide in one."""
    warnings: list[str] = []
    for task, cells in plan.by_task.items():
        columns = _Columns(cells, [plan.labels_of(cell) for cell in cells])
        name = plan.names[task]
        warnings += _warn_moving_together(plan, name, columns)
        warnings += _warn_unequal_steps(plan, name, columns)
        warnings += _warn_untried_rate(plan, name, columns)
        warnings += _warn_schedule_rates(name, cells)
    return list(dict.fromkeys([*warnings, *_warn_unequal_tuning(plan)]))


class _Columns:
    """The settings of a task's cells by field, read on demand, since all of them at once take much memory."""

    def __init__(self, cells: Sequence[TrialConfig], labels: Sequence[Mapping[str, str]]) -> None:
        self.cells, self.labels = cells, labels
        self._known: dict[str, list[Any]] = {}
        self._acting: dict[str, list[bool]] = {}

    def __getitem__(self, path: str) -> list[Any]:
        """Returns the value of a field in each cell."""
        if path not in self._known:
            self._known[path] = list(map(attrgetter(path), self.cells))
        return self._known[path]

    def acts(self, path: str) -> list[bool]:
        """Returns whether a field acts in each cell, as far as the config alone shows."""
        if path not in self._acting:
            self._acting[path] = (
                [acts(path, facts) for facts in self._facts] if rules().get(path) else [True] * len(self.cells)
            )
        return self._acting[path]

    @cached_property
    def _facts(self) -> list[Facts]:
        return [read_facts(cell.flat()) for cell in self.cells]

    def levels(self, path: str) -> list[Any]:
        """Returns the label of a factor in each cell, since two schedules may be stored as one value; else the field's value."""
        return [labels[path] for labels in self.labels] if path in self.labels[0] else self[path]


def _warn_moving_together(plan: Plan, task: str, columns: _Columns) -> Iterator[str]:
    """Warns of factors and settings under ``when`` whose levels correspond one to one over a task's cells.

    Two fields are compared in the cells where both act: elsewhere one of them has no level.
    """
    ruled = {path for rule in plan.space.when for path in rule.settings}
    factors = list(plan.space.factors)
    paths = [*factors, *sorted(ruled - set(factors))]
    warned: set[str] = set()
    for i, path in enumerate(paths):
        together = [other for other in paths[i + 1 :] if other not in warned and _go_together(path, other, columns)]
        if together and path not in warned:
            warned.update(together)
            names = " and ".join(together)
            yield (
                f"{path} and {names} move together in every cell of {task}: the effect of one cannot be separated from that"
                " of the other. Cross them, or read a contrast as the effect of both."
            )


def _go_together(path: str, other: str, columns: _Columns) -> bool:
    levels = set(
        itertools.compress(
            zip(columns.levels(path), columns.levels(other), strict=True),
            map(operator.and_, columns.acts(path), columns.acts(other)),
        )
    )
    firsts, seconds = {a for a, _ in levels}, {b for _, b in levels}
    return len(firsts) > 1 and len(levels) == len(firsts) == len(seconds)


def _warn_unequal_steps(plan: Plan, task: str, columns: _Columns) -> Iterator[str]:
    """Warns of cells of a task with different numbers of optimizer steps, unless these are the only factors."""
    differing = [path for path in EFFORT if len(set(columns[path])) > 1]
    has_more_factors = any(path not in EFFORT for path in plan.space.factors)
    if differing and has_more_factors:
        numbers = "; ".join(f"{path} {_list_levels(columns[path])}" for path in differing)
        yield (
            f"The cells of {task} are not matched in fine-tuning steps ({numbers}): compare only cells with equal values; any"
            " other difference may come from the length of training."
        )


def _warn_untried_rate(plan: Plan, task: str, columns: _Columns) -> Iterator[str]:
    """Warns of cells that all share the same untested learning rate: a difference may come from tuning."""
    rates, n_cells = set(columns["finetune.lr"]), len(columns.cells)
    if n_cells > 1 and len(rates) == 1 and "finetune.lr" not in plan.space.tune:
        yield (
            f"The {n_cells} cells of {task} share finetune.lr = {rates.pop():g}, and no other was tried: a difference"
            " between them may come from tuning. Tune the rate within each cell (tune: {finetune.lr: {low: 1e-5, high: 1e-3,"
            " log: true}}), make it a factor, or set it per level under 'when'."
        )


def _warn_schedule_rates(task: str, cells: Iterable[TrialConfig]) -> Iterator[str]:
    """Warns of freeze schedules that set learning rates or fresh starts if no cell freezes the same without them."""
    schedules: dict[tuple[Phase, ...], str] = {}
    asked = dict.fromkeys((c.finetune.freeze, c.finetune.freeze_epochs, c.finetune.epochs) for c in cells)
    for freeze, freeze_epochs, epochs in asked:
        length = "" if freeze_epochs in (0, "forever") else f" for {freeze_epochs} epochs"
        schedules.setdefault(cut_phases(parse_schedule(freeze, freeze_epochs), epochs), f"{freeze!r}{length}")
    plain = {without_stepping(phases) for phases in schedules if all(phase.is_plain for phase in phases)}
    alone = [text for phases, text in schedules.items() if without_stepping(phases) not in plain]
    if alone and len(schedules) > 1:
        yield (
            f"finetune.freeze {', '.join(alone)} in {task} sets learning rates or fresh starts as well as what is frozen, and"
            " no cell freezes the same without them: the effects cannot be separated. Add that cell."
        )


def _warn_unequal_tuning(plan: Plan) -> Iterator[str]:
    """Warns of cells with different numbers of candidates, which happens where a tuned field does not act in some cells."""
    counts: dict[int, list[str]] = {}
    for cell in plan.tuned:
        counts.setdefault(len(cell.candidates), []).append(cell.cell_id)
    if len(counts) > 1:
        efforts = ", ".join(
            f"{n} in {len(cells)} cell{'s' if len(cells) > 1 else ''}" for n, cells in sorted(counts.items())
        )
        yield (
            f"The cells are not matched in tuning effort: they try different numbers of candidates ({efforts}), since some"
            " tuned fields change nothing in some cells. The more candidates a cell tries, the better its best looks on"
            " validation data; its replicates are not affected."
        )


def _list_levels(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(write_level, values)))
