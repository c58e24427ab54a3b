"""Warns of comparisons that mix two effects: knobs that move together, unequal effort, learning rates never tried."""

import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

from orca_sweep.config import (
    Facts,
    TrialConfig,
    acts,
    embedder_training_fields,
    naive_settings,
    read_facts,
    rules,
)
from orca_sweep.config.freezing import Phase, cut_phases, parse_schedule, without_stepping
from orca_sweep.config.labels import write_level
from orca_sweep.space.records import Plan
from orca_sweep.space.statements import TASKS, Statement, join_statements

EFFORT = ("finetune.epochs", "finetune.batch_size", "finetune.accumulation", "data.n_train")
"""What sets the number of fine-tuning optimizer steps of a task."""


TRAINING = "embedder training"
"""Stands for the comparison of naive and trained cells beside the names of factors."""
ReadFacts = Callable[[TrialConfig], Facts]
"""Returns the facts that decide which knobs act in a cell."""


def read_own_facts(cell: TrialConfig) -> Facts:
    """Returns the facts that a config alone shows."""
    return read_facts(cell.flat())


def find_confounds(plan: Plan, read: ReadFacts = read_own_facts) -> list[Statement]:
    """Returns a warning for each difference between cells that could be mistaken for an effect or hide in one.

    Args:
        plan: the plan.
        read: returns the facts of a cell; with those of its records, a knob that its task, body or objective lets idle is
            not taken for one that acts.
    """
    warnings: list[Statement] = []
    for task, cells in plan.by_task.items():
        columns = _Columns(cells, [plan.labels_of(cell) for cell in cells], read)
        name = plan.names[task]
        texts = [
            *_warn_moving_together(plan, columns),
            *_warn_unequal_steps(plan, columns),
            *_warn_schedule_rates(cells),
        ]
        warnings += [Statement(text=text, tasks=((name, ""),)) for text in texts]
        warnings += _warn_untried_rate(plan, name, columns)
    return join_statements([*warnings, *(Statement(text=text) for text in _warn_unequal_tuning(plan))])


class _Columns:
    """The settings of a task's cells by field, read on demand, since all of them at once take much memory."""

    def __init__(
        self, cells: Sequence[TrialConfig], labels: Sequence[Mapping[str, str]], read: ReadFacts = read_own_facts
    ) -> None:
        self.cells, self.labels, self.read = cells, labels, read
        self._known: dict[str, list[Any]] = {}
        self._acting: dict[str, list[bool]] = {}

    def __getitem__(self, path: str) -> list[Any]:
        """Returns the value of a field in each cell."""
        if path not in self._known:
            self._known[path] = list(map(attrgetter(path), self.cells))
        return self._known[path]

    def acts(self, path: str) -> list[bool]:
        """Returns whether a field acts in each cell, as far as the facts show."""
        if path not in self._acting:
            self._acting[path] = (
                [acts(path, facts) for facts in self._facts] if rules().get(path) else [True] * len(self.cells)
            )
        return self._acting[path]

    @cached_property
    def _facts(self) -> list[Facts]:
        return list(map(self.read, self.cells))

    @cached_property
    def trains(self) -> list[bool]:
        """Whether each cell trains its embedder; a cell that does not is naive."""
        return [epochs > 0 for epochs in self["embedder.epochs"]]

    def levels(self, path: str) -> list[Any]:
        """Returns the label of a factor in each cell, since two schedules may be stored as one value; else the field's value."""
        return [labels[path] for labels in self.labels] if path in self.labels[0] else self[path]


# Fields that move together --------------------------------------------------------------------------


def _warn_moving_together(plan: Plan, columns: _Columns) -> Iterator[str]:
    """Warns of factors and settings under ``when`` that cannot be told apart, in all cells of a task or in some."""
    factors = list(plan.space.factors)
    ruled = sorted({path for rule in plan.space.when for path in rule.settings} - set(factors))
    warned: set[frozenset[str]] = set()
    yield from _warn_in_every_cell([*factors, *ruled], columns, warned)
    yield from _warn_beside_training([*factors, *ruled], columns, warned)
    for path in ruled:
        yield from _warn_in_some_comparisons(factors, path, columns, warned)


def _warn_in_every_cell(paths: Sequence[str], columns: _Columns, warned: set[frozenset[str]]) -> Iterator[str]:
    """Warns of fields whose levels correspond one to one, and notes the pairs in ``warned``."""
    linked: set[str] = set()
    for i, path in enumerate(paths):
        links = {other: _link_levels(path, other, columns) for other in paths[i + 1 :] if other not in linked}
        together = [other for other, link in links.items() if link is not None]
        if together and path not in linked:
            linked.update(together)
            warned.update(frozenset((path, other)) for other in together)
            where = f"in every cell of {TASKS}{' where both act' if 'acting' in links.values() else ''}"
            yield (
                f"{path} and {' and '.join(together)} move together {where}: the effect of one cannot be separated from that"
                " of the other. Cross them, or read a contrast as the effect of both."
            )


def _link_levels(path: str, other: str, columns: _Columns) -> Literal["all", "acting"] | None:
    """Returns the cells in which the levels of two fields correspond one to one: all, or those where both act.

    Naive is a level of what trains the embedder, and is compared with the levels of everything else.
    """
    pairs = list(zip(columns.levels(path), columns.levels(other), strict=True))
    acting = list(map(operator.and_, columns.acts(path), columns.acts(other)))
    training = embedder_training_fields()
    # The field outside embedder training decides where both have a level.
    outer = other if path in training else path
    has_naive = (path in training) != (other in training) and bool({path, other} & naive_settings().keys())
    if _are_one_to_one(itertools.compress(pairs, columns.acts(outer) if has_naive else acting)):
        return "all" if has_naive or all(acting) else "acting"
    return "acting" if has_naive and _are_one_to_one(itertools.compress(pairs, acting)) else None


def _are_one_to_one(pairs: Iterable[tuple[Any, Any]]) -> bool:
    levels = set(pairs)
    firsts, seconds = {a for a, _ in levels}, {b for _, b in levels}
    return len(firsts) > 1 and len(levels) == len(firsts) == len(seconds)


def _warn_beside_training(paths: Sequence[str], columns: _Columns, warned: set[frozenset[str]]) -> Iterator[str]:
    """Warns of fields that have one set of levels in naive cells and another where the embedder is trained."""
    training = embedder_training_fields()
    for path in (path for path in paths if path not in training):
        if any(path in pair and pair & training for pair in warned):
            continue
        levels: dict[bool, set[Any]] = {True: set(), False: set()}
        for trains, level, is_acting in zip(columns.trains, columns.levels(path), columns.acts(path), strict=True):
            if is_acting:
                levels[trains].add(level)
        if all(levels.values()) and levels[True].isdisjoint(levels[False]):
            warned.update(frozenset((path, other)) for other in training)
            naive, trained = _list_sorted(levels[False]), _list_sorted(levels[True])
            yield (
                f"{TRAINING.capitalize()} and {path} move together in every cell of {TASKS} (naive: {naive}; trained: {trained}):"
                " a difference from naive may come from either. Give naive and trained cells equal values, or read the contrast"
                " as the effect of both."
            )


def _warn_in_some_comparisons(
    factors: Sequence[str], path: str, columns: _Columns, warned: set[frozenset[str]]
) -> Iterator[str]:
    """Warns of factors some of whose comparisons also change a field that a rule sets."""
    for subject, comparisons in _list_comparisons(factors, columns):
        fields = embedder_training_fields() if subject == TRAINING else {subject}
        if any(frozenset((field, path)) in warned for field in fields):
            continue
        n_mixed, n = comparisons.count_mixed(columns.levels(path), columns.acts(path))
        if n_mixed:
            what = "naive and trained cells" if subject == TRAINING else f"levels of {subject}"
            yield (
                f"{n_mixed} of {n} comparisons between {what} in {TASKS} also change {path}, which a rule of 'when' sets:"
                f" such a difference may come from either. Set {path} alike in the cells to compare, or read these contrasts"
                " as the effect of both."
            )


@dataclass(frozen=True, kw_only=True)
class _Comparisons:
    """The pairs of a task's cells that differ in one thing: cells of equal keys and unequal levels."""

    keys: Sequence[Any]
    levels: Sequence[Any]
    is_in: Sequence[bool]
    """Whether each cell is compared at all."""

    def count_mixed(self, values: Sequence[Any], acting: Sequence[bool]) -> tuple[int, int]:
        """Returns how many pairs also differ in a value, and how many there are, among the cells where it acts."""
        groups: dict[Any, list[tuple[Any, Any]]] = {}
        for key, level, value, holds in zip(
            self.keys, self.levels, values, map(operator.and_, self.is_in, acting), strict=True
        ):
            if holds:
                groups.setdefault(key, []).append((level, value))
        n_mixed = n = 0
        for pairs in groups.values():
            n_apart = _count_equal([None] * len(pairs)) - _count_equal(level for level, _ in pairs)
            n += n_apart
            n_mixed += n_apart - _count_equal(value for _, value in pairs) + _count_equal(pairs)
        return n_mixed, n


def _count_equal(values: Iterable[Any]) -> int:
    """Returns the number of pairs of equal values."""
    return sum(math.comb(n, 2) for n in Counter(values).values())


def _list_comparisons(factors: Sequence[str], columns: _Columns) -> Iterator[tuple[str, _Comparisons]]:
    """Yields what is compared and the pairs of cells that differ in it alone: each factor, and naive against trained.

    The settings of embedder training have no level in naive cells, so a naive cell is compared with every trained one that
    agrees in the rest.
    """
    training, n = embedder_training_fields(), len(columns.cells)
    for factor in factors:
        keys = _join_columns([columns.levels(other) for other in factors if other != factor], n)
        is_in = columns.trains if factor in training else [True] * n
        yield factor, _Comparisons(keys=keys, levels=columns.levels(factor), is_in=is_in)
    keys = _join_columns([columns.levels(other) for other in factors if other not in training], n)
    yield TRAINING, _Comparisons(keys=keys, levels=columns.trains, is_in=[True] * n)


def _join_columns(columns: Sequence[Sequence[Any]], n: int) -> list[tuple[Any, ...]]:
    return list(zip(*columns, strict=True)) if columns else [()] * n


def _list_sorted(values: Iterable[Any]) -> str:
    return ", ".join(sorted(map(write_level, values)))


# Effort and rates -----------------------------------------------------------------------------------


def _warn_unequal_steps(plan: Plan, columns: _Columns) -> Iterator[str]:
    """Warns of cells of a task with different numbers of optimizer steps, unless these are the only factors."""
    differing = [path for path in EFFORT if len(set(columns[path])) > 1]
    has_more_factors = any(path not in EFFORT for path in plan.space.factors)
    if differing and has_more_factors:
        numbers = "; ".join(f"{path} {_list_levels(columns[path])}" for path in differing)
        yield (
            f"The cells of {TASKS} are not matched in fine-tuning steps ({numbers}): compare only cells with equal values; any"
            " other difference may come from the length of training."
        )


def _warn_untried_rate(plan: Plan, task: str, columns: _Columns) -> Iterator[Statement]:
    """Warns of cells that all share the same untested learning rate: a difference may come from tuning."""
    rates, n_cells = set(columns["finetune.lr"]), len(columns.cells)
    if n_cells > 1 and len(rates) == 1 and "finetune.lr" not in plan.space.tune:
        text = (
            f"All cells of a task share finetune.lr, and no other was tried: {TASKS}. A difference between them may come from"
            " tuning. Tune the rate within each cell (tune: {finetune.lr: {low: 1e-5, high: 1e-3, log: true}}), make it a"
            " factor, or set it per level under 'when'."
        )
        yield Statement(text=text, tasks=((task, f"{rates.pop():g}"),))


def _warn_schedule_rates(cells: Iterable[TrialConfig]) -> Iterator[str]:
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
            f"finetune.freeze {', '.join(alone)} in {TASKS} sets learning rates or fresh starts as well as what is frozen, and"
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
