"""How much choosing on test would have flattered: the test error of what validation chose minus that of what test chose.

Three choices, each per task and in the unit of its metric; none can be below zero:

- epoch: the best-validated epoch, against the better on test of that one and the last. Test is scored once, at the end,
  at these two alone, so this is the least that choosing the epoch on test would have flattered. A mean over ok
  replicates; its interval is over seeds, each the mean of its cells.
- cell: the cell with the lowest mean validation error, against the one with the lowest mean test error. Where they
  differ, the interval is of their paired difference over seeds: of these two cells, which the same numbers chose.
- candidate: within a tuned cell, the candidate that validation chose, against the one that test would have; a mean over
  cells.
- seed: within a cell, the seed that is best on validation, against the one that is best on test; a mean over cells.

What is chosen from must be whole: a cell or candidate that lacks a result is left out and named. Nothing here says that
somebody has chosen on test; it says what that would have been worth. Trials that began after test metrics of their sweep
were revealed are counted: whoever ran those could have seen test numbers.

Sealed tables have no test metrics: 'orca-sweep reveal' shows them. Writes flattery.csv, .md, .tex (booktabs), and a plot
as .png and .svg.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figures import COLOURS, MARKERS
from orca_sweep.analysis.tables import (
    Arm,
    arms,
    by_task,
    describe_completeness,
    find_varying,
    metric_of,
    replicated,
    require_columns,
    shorten_text,
    wrap_title,
)
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    decimals_of,
    format_csv,
    format_interval,
    format_number,
    format_percent,
)
from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError
from orca_sweep.results import Results, with_roles
from orca_sweep.stats import Interval, t_interval
from orca_sweep.stats.modes import Mode, as_cost, describe_mode

if TYPE_CHECKING:
    import pandas as pd

NAME = "flattery"
VAL, TEST, LAST = "val_metric_best", "test_metric_best", "test_metric_last"
CHOICES = ("epoch", "cell", "candidate", "seed")
NONE = Interval(0, math.nan, math.nan, math.nan, math.nan, 0.95)


@dataclass(frozen=True)
class Choice:
    """One kind of choice in one task, and what making it on test would have been worth."""

    kind: str
    flattery: float
    """In the metric's unit, never below zero; NaN where there is nothing to choose."""
    interval: Interval
    """Over seeds; n is 0 where seeds do not replicate the choice."""
    n: int
    """Choices that it is the mean of."""
    of: str
    """What n counts, and what each is chosen from."""
    most: float
    """The largest of the n."""
    by_validation: str
    """What validation chose, where it is one thing."""
    by_test: str
    note: str
    """What could not be chosen from, and why; or why there is no number; or what a mean is not even over."""


@dataclass(frozen=True)
class TaskFlattery:
    """The choices of one task."""

    task: str
    metric: str
    choices: tuple[Choice, ...]
    mode: Mode = "min"


@dataclass(frozen=True)
class Flattery:
    """All tasks, and who could have seen test numbers."""

    tasks: tuple[TaskFlattery, ...]
    level: float
    n_trials: int
    """With a moment at which they began."""
    n_after: int
    """That began after test metrics of their sweep had been revealed."""
    reveals: tuple[tuple[str, str, int], ...]
    """Space, moment and trials shown first of each look at test metrics."""
    completeness: str
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""


def compute(results: Results, level: float = 0.95) -> Flattery:
    """Returns what choosing on test would have been worth, per task.

    Raises:
        InputError: if test metrics are sealed, or the tables lack a column.
    """
    require_columns(results, (VAL, TEST, LAST))
    if results.n_sealed:
        raise InputError(
            f"the test metrics of {results.n_sealed} ok trials are sealed, and what test would have chosen is not known."
            " Show them with 'orca-sweep reveal SWEEP_FOLDER', then collect again; every reveal is logged."
        )
    results = compared(results)
    found = arms(results, TEST)
    trials = with_roles(results.trials)
    tasks = tuple(_compute_task(task, whole, trials, results.tuned, level) for task, whole in by_task(found).items())
    known = trials["n_reveals_before"].dropna() if "n_reveals_before" in trials else trials["seed"].iloc[:0]
    n_after = int((known > 0).sum())
    return Flattery(
        tasks, level, len(known), n_after, tuple(results.reveals), describe_completeness(found), results.notes
    )


def _compute_task(
    task: str, whole: Sequence[Arm], trials: "pd.DataFrame", tuned: Sequence[str], level: float
) -> TaskFlattery:
    rows = trials[(trials["task"] == task) & (trials["status"] == "ok")].dropna(subset=[VAL, TEST])
    replicates = rows[rows["role"] == "replicate"]
    searched = trials[(trials["task"] == task) & (trials["role"] == "search")]
    searched = searched.assign(**{name: searched[name].where(searched.index.isin(rows.index)) for name in (VAL, TEST)})
    cells = [_Cell(arm, _by_seed(replicates, arm, VAL), _by_seed(replicates, arm, TEST)) for arm in replicated(whole)]
    mode = whole[0].mode
    choices = [_choose_epoch(replicates, level, mode), _choose_cell(cells, level, mode)]
    choices += [_choose_candidate(searched, tuned, mode)] if tuned else []
    choices.append(_choose_seed(cells, mode))
    return TaskFlattery(task, metric_of(whole).name, tuple(choices), mode)


@dataclass(frozen=True)
class _Cell:
    """A cell and both metrics of its ok trials, by seed."""

    arm: Arm
    val: Mapping[int, float]
    test: Mapping[int, float]

    @property
    def lacks(self) -> list[int]:
        """Planned seeds without a result."""
        return [seed for seed in self.arm.values if seed not in self.test]


def _by_seed(rows: "pd.DataFrame", arm: Arm, column: str) -> dict[int, float]:
    of = rows[rows["cell_id"] == arm.cell_id]
    return dict(zip(map(int, of["seed"]), map(float, of[column]), strict=True))


def _no_choice(kind: str, of: str, why: str) -> Choice:
    return Choice(kind, math.nan, NONE, 0, of, math.nan, "", "", why)


def _mean_of(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# Choices ------------------------------------------------------------------------------------------


def _choose_epoch(rows: "pd.DataFrame", level: float, mode: Mode) -> Choice:
    scored = rows.dropna(subset=[LAST])
    of = "ok replicates, each from its best-validated and its last epoch"
    if not len(scored):
        return _no_choice("epoch", of, "no number, since no replicate is ok")
    gaps = _as_cost(scored[TEST] - scored[LAST], mode).clip(lower=0)
    by_seed = gaps.groupby(scored["seed"]).agg(["mean", "count"])
    interval = t_interval(by_seed["mean"].to_numpy(dtype=float), level)
    counts = [f"{seed} ({n})" for seed, n in by_seed["count"].items()]
    uneven = f"seeds have different numbers of ok cells, and each counts once: {', '.join(counts)}"
    note = uneven if by_seed["count"].nunique() > 1 else ""
    return Choice("epoch", interval.mean, interval, len(gaps), of, float(gaps.max()), "", "", note)


def _as_cost(values: Any, mode: Mode) -> Any:
    """Values of a metric, turned so that less is better."""
    return values if mode == "min" else -values


def _choose_cell(cells: Sequence[_Cell], level: float, mode: Mode) -> Choice:
    whole = [cell for cell in cells if cell.test and not cell.lacks]
    paths = find_varying([cell.arm for cell in cells])
    gone = [f"{cell.arm.said(paths)} (seed {', '.join(map(str, cell.lacks))})" for cell in cells if cell.lacks]
    left_out = f"left out, since they lack results: {'; '.join(gone)}" if gone else ""
    of = f"choice among {len(whole)} cells by their means over seeds"
    if len(whole) < 2:
        more = f"; {left_out}" if left_out else ""
        return _no_choice("cell", of, f"no number, since fewer than two cells have all results{more}")
    chosen = min(whole, key=lambda cell: as_cost(_mean_of([*cell.val.values()]), mode))
    best = min(whole, key=lambda cell: as_cost(_mean_of([*cell.test.values()]), mode))
    gap = as_cost(_mean_of([*chosen.test.values()]) - _mean_of([*best.test.values()]), mode)
    interval = NONE
    if chosen is not best and chosen.test.keys() == best.test.keys():
        gaps = [as_cost(chosen.test[seed] - best.test[seed], mode) for seed in sorted(best.test)]
        interval = t_interval(gaps, level)
    return Choice("cell", gap, interval, 1, of, gap, chosen.arm.said(paths), best.arm.said(paths), left_out)


def _choose_candidate(rows: "pd.DataFrame", tuned: Sequence[str], mode: Mode) -> Choice:
    """Of each tuned cell, from the candidates that are ok at as many seeds as any of it."""
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
        return _no_choice("candidate", of, "no number, since no tuned cell has two ok candidates")
    gone = "candidate that lacks a result" if left_out == 1 else "candidates that lack a result"
    note = f"left out: {left_out} {gone} (pruned, failed or not run)" if left_out else ""
    return Choice("candidate", _mean_of(gaps), NONE, len(gaps), of, max(gaps), "", "", note)


def _choose_seed(cells: Sequence[_Cell], mode: Mode) -> Choice:
    of = "cells, each from its seeds"
    several = [cell for cell in cells if len(cell.test) > 1]
    if not several:
        return _no_choice("seed", of, "no number, since no cell has two ok seeds")
    gaps = [_seed_gap(cell, mode) for cell in several]
    n_left_out = len(cells) - len(several)
    note = f"left out: {n_left_out} cells with fewer than two ok seeds" if n_left_out else ""
    return Choice("seed", _mean_of(gaps), NONE, len(gaps), of, max(gaps), "", "", note)


def _seed_gap(cell: _Cell, mode: Mode) -> float:
    val, test = ({seed: as_cost(value, mode) for seed, value in of.items()} for of in (cell.val, cell.test))
    return test[min(val, key=val.__getitem__)] - min(test.values())


# Numbers ------------------------------------------------------------------------------------------


def numbers(found: Flattery) -> str:
    """Returns every number as CSV: a line per task and choice."""
    return format_csv([_make_record(found, task, one) for task in found.tasks for one in task.choices])


def _make_record(found: Flattery, task: TaskFlattery, one: Choice) -> Record:
    over = f"{format_percent(found.level)} Student-t interval of the mean over n_seeds"
    return {
        "task": task.task,
        "metric": task.metric,
        "mode": task.mode,
        "choice": one.kind,
        "flattery": one.flattery,
        "low": one.interval.low,
        "high": one.interval.high,
        "n_seeds": one.interval.n or None,
        "interval": over if one.interval.n > 1 else "",
        "n": one.n,
        "n_counts": one.of,
        "largest": one.most,
        "by_validation": one.by_validation,
        "by_test": one.by_test,
        "note": one.note,
        "n_trials_after_a_reveal": found.n_after,
        "n_trials": found.n_trials,
    }


def build_tables(found: Flattery) -> tuple[Table, ...]:
    """Returns the table as people read it: a block per task."""
    level = format_percent(found.level)
    table = Table(
        name=NAME,
        title="What choosing on test would have flattered",
        caption=_write_caption(found),
        head=("task", "choice", "flattery", f"{level} interval", "seeds", "n", "largest", "n counts"),
        align="llrrrrrl",
        blocks=tuple(_build_block(task) for task in found.tasks),
        notes=tuple(_list_notes(found)),
    )
    return (table,)


def _build_block(task: TaskFlattery) -> tuple[tuple[str, ...], ...]:
    known = [one.flattery for one in task.choices if one.flattery > 0]
    decimals = decimals_of(known)
    rows = []
    for one in task.choices:
        i = one.interval
        texts = (
            format_number(one.flattery, decimals),
            format_interval(i.low, i.high, decimals),
            str(i.n) if i.n else NOTHING,
            str(one.n),
        )
        rows.append((task.task, one.kind, *texts, format_number(one.most, decimals), one.of))
    return tuple(rows)


def _write_caption(found: Flattery) -> str:
    units = "; ".join(f"{task.task}: {task.metric}, {describe_mode(task.mode)}" for task in found.tasks)
    return (
        f"How much worse the test metric ({units}) is of what validation chose than of what test would have chosen, never"
        " below zero. Epoch:"
        " a lower bound, since test is scored at the best-validated and the last epoch alone; interval over seeds, each the"
        " mean of its cells. Cell: by means over seeds; where test would have chosen another one, the interval is of the"
        " paired difference of the two over seeds. Candidate and seed: means over cells, which seeds do not replicate."
        f" {found.completeness} {describe_looks(found)}"
    )


def describe_looks(found: Flattery) -> str:
    """Returns a sentence on trials that were run by somebody who could have seen test numbers."""
    if not found.n_trials:
        return "The tables do not say whether trials began after a reveal of test metrics."
    share = f"{found.n_after} of {found.n_trials} trials began after test metrics of their sweep had been revealed"
    more = ": they were run by somebody who could have seen test numbers." if found.n_after else "."
    return share + more


def _list_notes(found: Flattery) -> Iterator[str]:
    yield from found.notes
    for task in found.tasks:
        for one in task.choices:
            if one.by_validation:
                same = "test would have chosen it, too" if one.by_validation == one.by_test else f"test {one.by_test}"
                yield f"{task.task}, {one.kind}: validation chose {one.by_validation}; {same}."
            if one.note:
                yield f"{task.task}, {one.kind}: {one.note}."
    for space, time, n in found.reveals:
        yield f"Revealed: {space}, {time}, {n} trials."


# Figure -------------------------------------------------------------------------------------------


def plot(found: Flattery) -> Any:
    """Returns a matplotlib figure: a panel per task, a dot per choice with its interval, a ring at the largest."""
    from matplotlib.figure import Figure

    rows, head, ticks, width = 0.3, 0.4, 0.5, 8.5
    sizes = [rows * len(task.choices) for task in found.tasks]
    height = 0.6 + sum(sizes) + (head + ticks) * len(sizes)
    made, top = Figure(figsize=(width, height)), height - 0.5
    for task, size in zip(found.tasks, sizes, strict=True):
        bottom = top - head - size
        axis = made.add_axes((0.12, bottom / height, 0.5, size / height))
        _draw_panel(axis, task)
        top = bottom - ticks
    made.suptitle(
        "how much worse the test metric is of what validation chose than of what test would have chosen\ndot:"
        f" mean of n choices; bar: {format_percent(found.level)} Student-t interval over seeds; ring: the largest of the n",
        fontsize=8.5,
        y=1 - 0.08 / height,
        va="top",
    )
    return made


def _draw_panel(axis: Any, task: TaskFlattery) -> None:
    for y, one in enumerate(task.choices):
        colour, marker = COLOURS[CHOICES.index(one.kind)], MARKERS[CHOICES.index(one.kind)]
        axis.plot([one.interval.low, one.interval.high], [y, y], color=colour, linewidth=2)
        axis.plot([one.flattery], [y], marker, color=colour, markersize=6)
        axis.plot([one.most], [y], "o", color=colour, markerfacecolor="none", markersize=9)
        seeds = f", {one.interval.n} seeds" if one.interval.n else ""
        text = f"{one.flattery:.3g} (n = {one.n} {one.of.split(',')[0].split(' by ')[0]}{seeds})"
        text = text if one.n else shorten_text(one.note, 60)
        axis.text(1.02, y, text, transform=axis.get_yaxis_transform(), fontsize=7.5, va="center")
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_yticks(range(len(task.choices)), [one.kind for one in task.choices], fontsize=8)
    axis.set_ylim(len(task.choices) - 0.5, -0.5)
    axis.set_title(wrap_title(task.task), fontsize=9, loc="left")
    axis.set_xlabel(f"flattery ({task.metric})", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    flattery = compute(results, **asked)
    return Output(numbers=numbers(flattery), tables=build_tables(flattery), figure=plot(flattery))
