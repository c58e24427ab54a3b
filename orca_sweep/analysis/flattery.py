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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figures import COLOURS, MARKERS
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    find_varying,
    metric_of,
    read_cells,
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
from orca_sweep.results import Cell, CellTrial, Results
from orca_sweep.stats import Interval, t_interval
from orca_sweep.stats.modes import Mode, as_cost, describe_mode

if TYPE_CHECKING:
    import pandas as pd

NAME = "flattery"
VAL, TEST, LAST = "val_metric_best", "test_metric_best", "test_metric_last"
CHOICES = ("epoch", "cell", "candidate", "seed")
NONE = Interval(n=0, mean=math.nan, sd=math.nan, low=math.nan, high=math.nan, level=0.95)


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
    cells = read_cells(results, TEST, measures=(VAL, TEST))
    trials = results.trials
    tasks = tuple(_compute_task(task, whole, trials, results.tuned, level) for task, whole in by_task(cells).items())
    known = trials["n_reveals_before"].dropna() if "n_reveals_before" in trials else trials["seed"].iloc[:0]
    n_after = int((known > 0).sum())
    return Flattery(
        tasks, level, len(known), n_after, tuple(results.reveals), describe_completeness(cells), results.notes
    )


def _compute_task(
    task: str, whole: Sequence[Cell], trials: "pd.DataFrame", tuned: Sequence[str], level: float
) -> TaskFlattery:
    rows = trials[(trials["task"] == task) & (trials["status"] == "ok")].dropna(subset=[VAL, TEST])
    replicates = rows[rows["role"] == "replicate"]
    searched = trials[(trials["task"] == task) & (trials["role"] == "search")]
    searched = searched.assign(**{name: searched[name].where(searched.index.isin(rows.index)) for name in (VAL, TEST)})
    cells = replicated(whole)
    mode = whole[0].mode
    choices = [_choose_epoch(replicates, level, mode), _choose_cell(cells, level, mode)]
    choices += [_choose_candidate(searched, tuned, mode)] if tuned else []
    choices.append(_choose_seed(cells, mode))
    return TaskFlattery(task, metric_of(whole).name, tuple(choices), mode)


def _by_seed(cell: Cell, column: str) -> dict[int, float]:
    """A metric of the cell's ok trials that have both."""
    whole = (trial for trial in cell.trials if trial.status == "ok" and not _lacks_metric(trial))
    return {trial.seed: trial.measures[column] for trial in whole}


def _lacks_metric(trial: CellTrial) -> bool:
    return any(math.isnan(trial.measures.get(column, math.nan)) for column in (VAL, TEST))


def _lacking_seeds(cell: Cell) -> list[int]:
    """Planned seeds without a result."""
    return [seed for seed in cell.values if seed not in _by_seed(cell, TEST)]


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


def _choose_cell(cells: Sequence[Cell], level: float, mode: Mode) -> Choice:
    lacking = {cell.cell_id: _lacking_seeds(cell) for cell in cells}
    whole = [cell for cell in cells if _by_seed(cell, TEST) and not lacking[cell.cell_id]]
    paths = find_varying(cells)
    gone = [
        f"{cell.describe(paths)} (seed {', '.join(map(str, lacking[cell.cell_id]))})"
        for cell in cells
        if lacking[cell.cell_id]
    ]
    left_out = f"left out, since they lack results: {'; '.join(gone)}" if gone else ""
    of = f"choice among {len(whole)} cells by their means over seeds"
    if len(whole) < 2:
        more = f"; {left_out}" if left_out else ""
        return _no_choice("cell", of, f"no number, since fewer than two cells have all results{more}")
    chosen, best = (
        min(whole, key=lambda cell: as_cost(_mean_of([*_by_seed(cell, column).values()]), mode))
        for column in (VAL, TEST)
    )
    by_chosen, by_best = _by_seed(chosen, TEST), _by_seed(best, TEST)
    gap = as_cost(_mean_of([*by_chosen.values()]) - _mean_of([*by_best.values()]), mode)
    interval = NONE
    if chosen is not best and by_chosen.keys() == by_best.keys():
        gaps = [as_cost(by_chosen[seed] - by_best[seed], mode) for seed in sorted(by_best)]
        interval = t_interval(gaps, level)
    return Choice("cell", gap, interval, 1, of, gap, chosen.describe(paths), best.describe(paths), left_out)


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


def _choose_seed(cells: Sequence[Cell], mode: Mode) -> Choice:
    of = "cells, each from its seeds"
    several = [cell for cell in cells if len(_by_seed(cell, TEST)) > 1]
    if not several:
        return _no_choice("seed", of, "no number, since no cell has two ok seeds")
    gaps = [_seed_gap(cell, mode) for cell in several]
    n_left_out = len(cells) - len(several)
    note = f"left out: {n_left_out} cells with fewer than two ok seeds" if n_left_out else ""
    return Choice("seed", _mean_of(gaps), NONE, len(gaps), of, max(gaps), "", "", note)


def _seed_gap(cell: Cell, mode: Mode) -> float:
    val, test = (
        {seed: as_cost(value, mode) for seed, value in _by_seed(cell, column).items()} for column in (VAL, TEST)
    )
    return test[min(val, key=val.__getitem__)] - min(test.values())


# Numbers ------------------------------------------------------------------------------------------


def numbers(flattery: Flattery) -> str:
    """Returns every number as CSV: a line per task and choice."""
    return format_csv([_make_record(flattery, task, choice) for task in flattery.tasks for choice in task.choices])


def _make_record(flattery: Flattery, task: TaskFlattery, choice: Choice) -> Record:
    over = f"{format_percent(flattery.level)} Student-t interval of the mean over n_seeds"
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
        "largest": choice.most,
        "by_validation": choice.by_validation,
        "by_test": choice.by_test,
        "note": choice.note,
        "n_trials_after_a_reveal": flattery.n_after,
        "n_trials": flattery.n_trials,
    }


def build_tables(flattery: Flattery) -> tuple[Table, ...]:
    """Returns the table as people read it: a block per task."""
    level = format_percent(flattery.level)
    table = Table(
        name=NAME,
        title="What choosing on test would have flattered",
        caption=_write_caption(flattery),
        head=("task", "choice", "flattery", f"{level} interval", "seeds", "n", "largest", "n counts"),
        align="llrrrrrl",
        blocks=tuple(_build_block(task) for task in flattery.tasks),
        notes=tuple(_list_notes(flattery)),
    )
    return (table,)


def _build_block(task: TaskFlattery) -> tuple[tuple[str, ...], ...]:
    known = [choice.flattery for choice in task.choices if choice.flattery > 0]
    decimals = decimals_of(known)
    rows = []
    for choice in task.choices:
        i = choice.interval
        texts = (
            format_number(choice.flattery, decimals),
            format_interval(i.low, i.high, decimals),
            str(i.n) if i.n else NOTHING,
            str(choice.n),
        )
        rows.append((task.task, choice.kind, *texts, format_number(choice.most, decimals), choice.of))
    return tuple(rows)


def _write_caption(flattery: Flattery) -> str:
    units = "; ".join(f"{task.task}: {task.metric}, {describe_mode(task.mode)}" for task in flattery.tasks)
    return (
        f"How much worse the test metric ({units}) is of what validation chose than of what test would have chosen, never"
        " below zero. Epoch:"
        " a lower bound, since test is scored at the best-validated and the last epoch alone; interval over seeds, each the"
        " mean of its cells. Cell: by means over seeds; where test would have chosen another one, the interval is of the"
        " paired difference of the two over seeds. Candidate and seed: means over cells, which seeds do not replicate."
        f" {flattery.completeness} {describe_looks(flattery)}"
    )


def describe_looks(flattery: Flattery) -> str:
    """Returns a sentence on trials that were run by somebody who could have seen test numbers."""
    if not flattery.n_trials:
        return "The tables do not say whether trials began after a reveal of test metrics."
    share = (
        f"{flattery.n_after} of {flattery.n_trials} trials began after test metrics of their sweep had been revealed"
    )
    more = ": they were run by somebody who could have seen test numbers." if flattery.n_after else "."
    return share + more


def _list_notes(flattery: Flattery) -> Iterator[str]:
    yield from flattery.notes
    for task in flattery.tasks:
        for choice in task.choices:
            if choice.by_validation:
                same = (
                    "test would have chosen it, too"
                    if choice.by_validation == choice.by_test
                    else f"test {choice.by_test}"
                )
                yield f"{task.task}, {choice.kind}: validation chose {choice.by_validation}; {same}."
            if choice.note:
                yield f"{task.task}, {choice.kind}: {choice.note}."
    for space, time, n in flattery.reveals:
        yield f"Revealed: {space}, {time}, {n} trials."


# Figure -------------------------------------------------------------------------------------------


def plot(flattery: Flattery) -> Any:
    """Returns a matplotlib figure: a panel per task, a dot per choice with its interval, a ring at the largest."""
    from matplotlib.figure import Figure

    rows, head, ticks, width = 0.3, 0.4, 0.5, 8.5
    sizes = [rows * len(task.choices) for task in flattery.tasks]
    height = 0.6 + sum(sizes) + (head + ticks) * len(sizes)
    made, top = Figure(figsize=(width, height)), height - 0.5
    for task, size in zip(flattery.tasks, sizes, strict=True):
        bottom = top - head - size
        axis = made.add_axes((0.12, bottom / height, 0.5, size / height))
        _draw_panel(axis, task)
        top = bottom - ticks
    made.suptitle(
        "how much worse the test metric is of what validation chose than of what test would have chosen\ndot:"
        f" mean of n choices; bar: {format_percent(flattery.level)} Student-t interval over seeds; ring: the largest of the n",
        fontsize=8.5,
        y=1 - 0.08 / height,
        va="top",
    )
    return made


def _draw_panel(axis: Any, task: TaskFlattery) -> None:
    for y, choice in enumerate(task.choices):
        colour, marker = COLOURS[CHOICES.index(choice.kind)], MARKERS[CHOICES.index(choice.kind)]
        axis.plot([choice.interval.low, choice.interval.high], [y, y], color=colour, linewidth=2)
        axis.plot([choice.flattery], [y], marker, color=colour, markersize=6)
        axis.plot([choice.most], [y], "o", color=colour, markerfacecolor="none", markersize=9)
        seeds = f", {choice.interval.n} seeds" if choice.interval.n else ""
        text = f"{choice.flattery:.3g} (n = {choice.n} {choice.of.split(',')[0].split(' by ')[0]}{seeds})"
        text = text if choice.n else shorten_text(choice.note, 60)
        axis.text(1.02, y, text, transform=axis.get_yaxis_transform(), fontsize=7.5, va="center")
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_yticks(range(len(task.choices)), [choice.kind for choice in task.choices], fontsize=8)
    axis.set_ylim(len(task.choices) - 0.5, -0.5)
    axis.set_title(wrap_title(task.task), fontsize=9, loc="left")
    axis.set_xlabel(f"flattery ({task.metric})", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    flattery = compute(results, **asked)
    return Output(numbers=numbers(flattery), tables=build_tables(flattery), figure=plot(flattery))
