"""How much choosing on test would flatter: the test error of the choice on validation minus that of the choice on test.

There are four choices, each per task and in the unit of its metric; no value can be below zero:

- epoch: the best-validated epoch, compared with the better on test of this epoch and the last. Test is scored only once,
  at the end, at these two epochs, so this is a lower bound. It is a mean over ok replicates; its interval is over seeds,
  each of them the mean of its cells.
- cell: the cell with the lowest mean validation error, compared with the cell with the lowest mean test error. Where they
  differ, the interval is of their paired difference over seeds; the same numbers chose these two cells.
- candidate: within a tuned cell, the candidate that validation chose, compared with the candidate that test would have
  chosen; a mean over cells.
- seed: within a cell, the best seed on validation, compared with the best seed on test; a mean over cells.

A cell or candidate that lacks a result is left out and named. This analysis does not show that somebody chose on test; it
shows what that would have gained. It also counts the trials that began after test metrics of their sweep were revealed,
because whoever ran them could have seen test numbers.

Sealed tables have no test metrics: 'orca-sweep reveal' shows them. Writes flattery.csv, .md, .tex (booktabs), and a plot
as .png, .svg and .pdf.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figure_style import DARK, PAGE, FigureStyle, choose_style
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    describe_direction,
    find_varying,
    metric_of,
    name_tasks,
    read_cells,
    replicated,
    require_columns,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    count_things,
    format_csv,
    format_moment,
    format_percent,
)
from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, CellTrial, Results
from orca_sweep.stats import Bounds, Interval, describe_interval, t_interval
from orca_sweep.stats.digits import choose_digits, format_interval, format_number, refine_digits
from orca_sweep.stats.modes import Mode, as_cost

if TYPE_CHECKING:
    import pandas as pd

NAME = "flattery"
VAL, TEST, LAST = "val_metric_best", "test_metric_best", "test_metric_last"
CHOICES = ("epoch", "cell", "candidate", "seed")
NEVER_NEGATIVE = Bounds(low=0.0)
NO_INTERVAL = Interval(n=0, mean=math.nan, sd=math.nan, low=math.nan, high=math.nan, level=0.95)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One kind of choice in one task, and what making it on test would have gained."""

    kind: str
    flattery: float
    """In the unit of the metric, never below zero; NaN if there is nothing to choose."""
    of: str
    """What n counts, and what each choice is made from."""
    interval: Interval = NO_INTERVAL
    """Over seeds; n is 0 if seeds do not replicate the choice."""
    n: int = 0
    """Number of choices in the mean."""
    largest: float = math.nan
    """The largest of the n choices."""
    by_validation: str = ""
    """The choice of validation, where n is one choice between cells."""
    by_test: str = ""
    note: str = ""
    """What was left out and why, why there is no number, or how a mean is uneven."""


@dataclass(frozen=True, kw_only=True)
class TaskFlattery:
    """The choices of one task."""

    task: str
    metric: str
    choices: tuple[Choice, ...]
    mode: Mode = "min"


@dataclass(frozen=True, kw_only=True)
class Flattery:
    """All tasks, and how many trials began after a reveal."""

    tasks: tuple[TaskFlattery, ...]
    level: float
    n_trials: int
    """Trials that recorded when they began."""
    n_after: int
    """Trials that began after a reveal of the test metrics of their sweep."""
    reveals: tuple[tuple[str, str, int], ...]
    """Each reveal of test metrics: the space, the time, and the number of trials it showed first."""
    completeness: str
    notes: tuple[str, ...] = ()
    """Which rows were left out."""


def compute(results: Results, level: float = 0.95) -> Flattery:
    """Returns what choosing on test would have gained, per task.

    Raises:
        InputError: if test metrics are sealed, or the tables lack a column.
    """
    require_columns(results, (VAL, TEST, LAST))
    if results.n_sealed:
        raise InputError(
            f"the test metrics of {results.n_sealed} ok trials are sealed, so the choices on test are not known. Show them"
            " with 'orca-sweep reveal SWEEP_FOLDER', then collect again; every reveal is logged."
        )
    results = compared(results)
    cells = read_cells(results, TEST, measures=(VAL, TEST))
    trials = results.trials
    tasks = tuple(
        _compute_task(whole, trials[trials["task"] == task], results.tuned, level)
        for task, whole in by_task(cells).items()
    )
    known = trials["n_reveals_before"].dropna() if "n_reveals_before" in trials else trials["seed"].iloc[:0]
    return Flattery(
        tasks=tasks,
        level=level,
        n_trials=len(known),
        n_after=int((known > 0).sum()),
        reveals=tuple(results.reveals),
        completeness=describe_completeness(cells),
        notes=results.notes,
    )


def _compute_task(
    task_cells: Sequence[Cell], trials: "pd.DataFrame", tuned: Sequence[str], level: float
) -> TaskFlattery:
    rows = trials[trials["status"] == "ok"].dropna(subset=[VAL, TEST])
    replicates = rows[rows["role"] == "replicate"]
    n_ok = int(((trials["status"] == "ok") & (trials["role"] == "replicate")).sum())
    searched = trials[trials["role"] == "search"]
    searched = searched.assign(**{name: searched[name].where(searched.index.isin(rows.index)) for name in (VAL, TEST)})
    cells = replicated(task_cells)
    measured = metric_of(task_cells)
    mode = measured.mode
    choices = [_choose_epoch(replicates, n_ok, level, mode), _choose_cell(cells, level, mode)]
    choices += [_choose_candidate(searched, tuned, mode)] if tuned else []
    choices.append(_choose_seed(cells, mode))
    return TaskFlattery(task=task_cells[0].task, metric=measured.name, choices=tuple(choices), mode=mode)


def _collect_by_seed(cell: Cell, column: str) -> dict[int, float]:
    """Returns a metric, by seed, of the ok trials that have both metrics."""
    whole = (trial for trial in cell.trials if trial.status == "ok" and not _lacks_metric(trial))
    return {trial.seed: trial.measures[column] for trial in whole}


def _lacks_metric(trial: CellTrial) -> bool:
    return any(math.isnan(trial.measures.get(column, math.nan)) for column in (VAL, TEST))


def _list_lacking_seeds(cell: Cell) -> list[int]:
    """Returns the planned seeds without a result."""
    return [seed for seed in cell.values if seed not in _collect_by_seed(cell, TEST)]


def _make_no_choice(kind: str, of: str, reason: str) -> Choice:
    return Choice(kind=kind, flattery=math.nan, of=of, note=reason)


def _compute_mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# Choices ------------------------------------------------------------------------------------------


def _choose_epoch(rows: "pd.DataFrame", n_ok: int, level: float, mode: Mode) -> Choice:
    scored = rows.dropna(subset=[LAST])
    of = "ok replicates, each from its best-validated and its last epoch"
    if not len(scored):
        why = "no ok replicate has the metrics of both epochs" if n_ok else "no replicate is ok"
        return _make_no_choice("epoch", of, f"no number, since {why}")
    gaps = _as_cost(scored[TEST] - scored[LAST], mode).clip(lower=0)
    by_seed = gaps.groupby(scored["seed"]).agg(["mean", "count"])
    interval = t_interval(by_seed["mean"].to_numpy(dtype=float), level, NEVER_NEGATIVE)
    counts = [f"{seed} ({n})" for seed, n in by_seed["count"].items()]
    uneven = f"seeds have different numbers of ok cells, and each counts once: {', '.join(counts)}"
    note = uneven if by_seed["count"].nunique() > 1 else ""
    return Choice(
        kind="epoch",
        flattery=interval.mean,
        of=of,
        interval=interval,
        n=len(gaps),
        largest=float(gaps.max()),
        note=note,
    )


def _as_cost(values: Any, mode: Mode) -> Any:
    """Returns the values of a metric with the sign that makes lower better."""
    return values if mode == "min" else -values


def _choose_cell(cells: Sequence[Cell], level: float, mode: Mode) -> Choice:
    lacking = {cell.cell_id: _list_lacking_seeds(cell) for cell in cells}
    whole = [cell for cell in cells if _collect_by_seed(cell, TEST) and not lacking[cell.cell_id]]
    paths = find_varying(cells)
    gone = [
        f"{cell.describe(paths)} (seed {', '.join(map(str, lacking[cell.cell_id]))})"
        for cell in cells
        if lacking[cell.cell_id]
    ]
    left_out = f"left out, since they lack results: {'; '.join(gone)}" if gone else ""
    of = f"choice among {count_things(len(whole), 'cell')} by their means over seeds"
    if len(whole) < 2:
        more = f"; {left_out}" if left_out else ""
        return _make_no_choice("cell", of, f"no number, since fewer than two cells have all results{more}")
    chosen, best = (
        min(whole, key=lambda cell: as_cost(_compute_mean([*_collect_by_seed(cell, column).values()]), mode))
        for column in (VAL, TEST)
    )
    by_chosen, by_best = _collect_by_seed(chosen, TEST), _collect_by_seed(best, TEST)
    gap = as_cost(_compute_mean([*by_chosen.values()]) - _compute_mean([*by_best.values()]), mode)
    interval = NO_INTERVAL
    if chosen is not best and by_chosen.keys() == by_best.keys():
        gaps = [as_cost(by_chosen[seed] - by_best[seed], mode) for seed in sorted(by_best)]
        interval = t_interval(gaps, level)
    return Choice(
        kind="cell",
        flattery=gap,
        of=of,
        interval=interval,
        n=1,
        largest=gap,
        by_validation=chosen.describe(paths),
        by_test=best.describe(paths),
        note=left_out,
    )


def _choose_candidate(rows: "pd.DataFrame", tuned: Sequence[str], mode: Mode) -> Choice:
    """Chooses in each tuned cell between the candidates with the most ok seeds."""
    of = "tuned cells, each from its candidates"
    gaps, left_out = [], 0
    for _, cell in rows.groupby("cell_id", sort=False):
        names = cell[list(tuned)].map(write_level).agg(" ".join, axis=1)
        means = cell.groupby(names, sort=False)[[VAL, TEST]].agg(["mean", "count"])
        most = max(1, means[VAL, "count"].max())
        kept = means[means[VAL, "count"] == most]
        left_out += len(means) - len(kept)
        if len(kept) > 1:
            test, val = (_as_cost(kept[column, "mean"], mode) for column in (TEST, VAL))
            gaps.append(float(test.loc[val.idxmin()] - test.min()))
    if not gaps:
        return _make_no_choice("candidate", of, "no number, since no tuned cell has two ok candidates")
    gone = "candidate that lacks a result" if left_out == 1 else "candidates that lack a result"
    note = f"left out: {left_out} {gone} (pruned, failed or not run)" if left_out else ""
    return Choice(kind="candidate", flattery=_compute_mean(gaps), of=of, n=len(gaps), largest=max(gaps), note=note)


def _choose_seed(cells: Sequence[Cell], mode: Mode) -> Choice:
    of = "cells, each from its seeds"
    several = [cell for cell in cells if len(_collect_by_seed(cell, TEST)) > 1]
    if not several:
        return _make_no_choice("seed", of, "no number, since no cell has two ok seeds")
    gaps = [_compute_seed_gap(cell, mode) for cell in several]
    n_left_out = len(cells) - len(several)
    note = f"left out: {count_things(n_left_out, 'cell')} with fewer than two ok seeds" if n_left_out else ""
    return Choice(kind="seed", flattery=_compute_mean(gaps), of=of, n=len(gaps), largest=max(gaps), note=note)


def _compute_seed_gap(cell: Cell, mode: Mode) -> float:
    val, test = (
        {seed: as_cost(value, mode) for seed, value in _collect_by_seed(cell, column).items()} for column in (VAL, TEST)
    )
    return test[min(val, key=val.__getitem__)] - min(test.values())


# Numbers ------------------------------------------------------------------------------------------


def numbers(flattery: Flattery) -> str:
    """Returns every number as CSV, one line per task and choice."""
    return format_csv([_make_record(flattery, task, choice) for task in flattery.tasks for choice in task.choices])


def _make_record(flattery: Flattery, task: TaskFlattery, choice: Choice) -> Record:
    over = describe_interval(flattery.level, choice.interval.bounds, "the mean over n_seeds")
    return {
        "task": task.task,
        "metric": task.metric,
        "mode": task.mode,
        "choice": choice.kind,
        "flattery": choice.flattery,
        "low": choice.interval.low,
        "high": choice.interval.high,
        "n_seeds": choice.interval.n or None,
        "interval": over if choice.interval.n > 1 else "",
        "n": choice.n,
        "n_counts": choice.of,
        "largest": choice.largest,
        "by_validation": choice.by_validation,
        "by_test": choice.by_test,
        "note": choice.note,
        "n_trials_after_a_reveal": flattery.n_after,
        "n_trials": flattery.n_trials,
    }


def build_tables(flattery: Flattery) -> tuple[Table, ...]:
    """Returns the table, with a block per task."""
    level = format_percent(flattery.level)
    table = Table(
        name=NAME,
        title="How much choosing on test would flatter",
        caption=_write_caption(flattery),
        head=("task", "choice", "flattery", f"{level} interval", "seeds", "n", "largest", "n counts"),
        align="llrrrrrl",
        blocks=tuple(_build_block(task) for task in flattery.tasks),
        notes=tuple(_list_notes(flattery)),
    )
    return (table,)


def _build_block(task: TaskFlattery) -> tuple[tuple[str, ...], ...]:
    known = [choice.flattery for choice in task.choices if choice.flattery > 0]
    column = choose_digits(known, [choice.largest for choice in task.choices])
    rows = []
    for choice in task.choices:
        i = choice.interval
        digits = refine_digits(column, [i.half_width], choice.flattery)
        texts = (
            format_number(choice.flattery, digits),
            format_interval(i.low, i.high, digits),
            str(i.n) if i.n else NOTHING,
            str(choice.n),
        )
        rows.append((task.task, choice.kind, *texts, format_number(choice.largest, digits), choice.of))
    return tuple(rows)


def _write_caption(flattery: Flattery) -> str:
    units = "; ".join(
        f"{task.task}: {task.metric}, {describe_direction(task.metric, task.mode)}" for task in flattery.tasks
    )
    return (
        f"How much worse the test metric ({units}) is for the choice on validation than for the choice on test. No choice"
        " is below zero, but the interval of a difference between two cells may reach below. Epoch: a lower bound, since test"
        " is scored only at the best-validated and the last epoch; interval over seeds, each the mean of its cells, on the log"
        " scale, so it stays above zero. Cell: by means over seeds; where test would choose another cell, the interval is of the"
        " paired difference of the two over seeds. Candidate and seed: means over cells, without intervals, because seeds do not"
        " replicate these choices."
        f" {flattery.completeness} {describe_looks(flattery)}"
    )


def describe_looks(flattery: Flattery) -> str:
    """Returns a sentence on how many trials were run by somebody who could have seen test numbers."""
    if not flattery.n_trials:
        return "The tables do not say whether trials began after a reveal of test metrics."
    trials = "trial" if flattery.n_trials == 1 else "trials"
    share = f"{flattery.n_after} of {flattery.n_trials} {trials} began after test metrics of their sweep were revealed"
    more = "; whoever ran them could have seen test numbers." if flattery.n_after else "."
    return share + more


def _list_notes(flattery: Flattery) -> Iterator[str]:
    yield from flattery.notes
    for task in flattery.tasks:
        for choice in task.choices:
            if choice.by_validation:
                same = (
                    "test would choose the same" if choice.by_validation == choice.by_test else f"test {choice.by_test}"
                )
                yield f"{task.task}, {choice.kind}: validation chose {choice.by_validation}; {same}."
            if choice.note:
                yield f"{task.task}, {choice.kind}: {choice.note}."
    for space, time, n in flattery.reveals:
        yield f"Revealed: {space}, {format_moment(time)}, {count_things(n, 'trial')}."


# Figure -------------------------------------------------------------------------------------------


def plot(flattery: Flattery, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure with a panel per task, and per choice a dot, its interval, and a ring at the largest."""
    names = name_tasks(task.task for task in flattery.tasks)
    with open_sheet(style, write_caption(flattery)) as sheet:
        for task in flattery.tasks:
            _draw_panel(sheet.add_band()[0], task, names[task.task])
    return sheet.figure


def write_caption(flattery: Flattery) -> str:
    """Returns what the figure shows, and what its intervals are over."""
    return (
        "How much worse the test metric is for the choice on validation than for the choice on test. Dot: mean of n choices;"
        f" bar: {format_percent(flattery.level)} Student-t interval over seeds; ring: the largest of the n."
        f" {flattery.completeness} {describe_looks(flattery)}"
    )


def _draw_panel(slot: Slot, task: TaskFlattery, name: str) -> None:
    axis = slot.show(name)
    groups = [RowGroup(label=choice.kind, notes=(_write_note(choice),)) for choice in task.choices]
    for y, choice in zip(slot.place_rows(groups), task.choices, strict=True):
        look = choose_style(CHOICES.index(choice.kind))
        axis.plot([choice.interval.low, choice.interval.high], [y, y], color=look.colour)
        axis.plot([choice.flattery], [y], look.marker, color=look.colour)
        axis.plot(
            [choice.largest], [y], "o", color=look.colour, markerfacecolor="none", markersize=slot.style.font_size
        )
    axis.axvline(0, color=DARK, linewidth=0.8)
    slot.label_x(f"flattery ({task.metric})")


def _write_note(choice: Choice) -> str:
    seeds = f", {choice.interval.n} seeds" if choice.interval.n else ""
    text = f"{choice.flattery:.3g} (n = {choice.n} {choice.of.split(',')[0].split(' by ')[0]}{seeds})"
    return text if choice.n else choice.note


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    flattery = compute(results, **asked)
    return Output(
        numbers=numbers(flattery),
        tables=build_tables(flattery),
        figure=plot(flattery, style),
        caption=write_caption(flattery),
    )
