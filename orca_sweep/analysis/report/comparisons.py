"""Each cell against the base cell of its task, as text: the verdicts and the rows of the effects table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orca_sweep.analysis import table_effects
from orca_sweep.analysis.report.realised import AMOUNTS, TaskRealised, find_unmatched
from orca_sweep.analysis.table_effects import Effects, TaskEffects
from orca_sweep.analysis.tables import (
    UNKNOWN_METRIC,
    by_task,
    describe_direction,
    find_varying,
    levels_of,
    replicated,
)
from orca_sweep.analysis.writing import format_p
from orca_sweep.results import Cell, Results
from orca_sweep.stats import WORDS
from orca_sweep.stats.digits import Digits, digits_of_intervals, format_ends, format_mean, format_number
from orca_sweep.stats.modes import Mode, describe_mode

LOOKS: Mapping[str, str] = dict(zip(WORDS, ("helps", "hurts", "same", "undecided"), strict=True))
"""The style class of each word."""
DIFFERS = "differs: "
Shown = tuple[str, float]
"""A number as text, and the number."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison."""

    cell_id: str
    name: str
    levels: Mapping[str, str]
    n: int
    difference: Shown
    low: float
    interval: str
    hedges_g: Shown
    p_holm: Shown
    p_sign_flip: Shown
    smallest_p: Shown
    word: str
    sentence: str
    unpaired: str
    matched: str
    """'matched', the amounts that differ, or 'not known'."""

    @property
    def differs(self) -> bool:
        """Whether cell and base did different amounts of something."""
        return self.matched.startswith(DIFFERS)

    @property
    def look(self) -> str:
        """The style class of the word."""
        return LOOKS.get(self.word, "undecided")


@dataclass(frozen=True, kw_only=True)
class TaskLines:
    """All comparisons of one task."""

    task: str
    metric: str
    paths: tuple[str, ...]
    base: str
    base_id: str
    margin: str
    margin_source: str
    lines: tuple[Line, ...]
    mode: Mode = "min"
    unit: str = ""

    @property
    def better(self) -> str:
        """Whether a lower or a higher metric is better, in words."""
        if self.metric == UNKNOWN_METRIC:
            return describe_direction(self.metric, self.mode)
        sign = "negative" if self.mode == "min" else "positive"
        return f"{describe_mode(self.mode)}, so a {sign} difference is an improvement"

    @property
    def tally(self) -> dict[str, int]:
        """The number of comparisons by word, in the order of ``WORDS``."""
        counts = Counter(line.word for line in self.lines)
        return {word: counts[word] for word in WORDS if counts[word]}


def effects_of(results: Results, cells: Sequence[Cell], **asked: object) -> Effects | None:
    """Returns the effects that ``table_effects`` computes; None if no task has two cells.

    Raises:
        InputError: for names that the tables do not have.
    """
    # Names may be those of cells that are left out; then the page still has more to show.
    is_asked = bool(asked.get("base") or asked.get("margin")) and not results.notes
    if not is_asked and all(len(replicated(task_cells)) < 2 for task_cells in by_task(cells).values()):
        return None
    return table_effects.compute(results, **asked)  # type: ignore[arg-type]


def lines_of(effects: Effects | None, realised: Sequence[TaskRealised]) -> tuple[TaskLines, ...]:
    """Returns the comparisons of each task that has any."""
    by_name = {task.task: task for task in realised}
    tasks = effects.tasks if effects else ()
    return tuple(_compare_task(task, by_name[task.task]) for task in tasks if task.rows)


def _compare_task(task: TaskEffects, realised: TaskRealised) -> TaskLines:
    paths = find_varying([task.base, *(row.cell for row in task.rows)])
    digits = digits_of_intervals(row.contrast.interval for row in task.rows)
    return TaskLines(
        task=task.task,
        metric=task.metric,
        paths=paths,
        base=levels_of(task.base, paths),
        base_id=task.base.cell_id,
        margin=task.margin.number,
        margin_source=task.margin.source,
        lines=tuple(
            _make_line(row, paths, digits, find_unmatched(realised, task.base.cell_id, row.cell.cell_id))
            for row in task.rows
        ),
        mode=task.mode,
        unit=task.unit,
    )


def _make_line(row: table_effects.Row, paths: Sequence[str], digits: Digits, unmatched: Sequence[str] | None) -> Line:
    c, i = row.contrast, row.contrast.interval
    return Line(
        cell_id=row.cell.cell_id,
        name=levels_of(row.cell, paths),
        levels={path: row.cell.labels[path] for path in paths},
        n=i.n,
        difference=(format_mean(i, digits, "+"), i.mean),
        low=i.low,
        interval=format_ends(i, digits, "+"),
        hedges_g=(format_number(c.hedges_g, 2, "+"), c.hedges_g),
        p_holm=(format_p(row.p_holm), row.p_holm),
        p_sign_flip=(format_p(c.p_sign_flip), c.p_sign_flip),
        smallest_p=(format_p(c.smallest_p), c.smallest_p if i.n else math.nan),
        word=row.verdict.word,
        sentence=row.verdict.sentence,
        unpaired=row.unpaired,
        matched=_describe_matching(unmatched),
    )


def _describe_matching(unmatched: Sequence[str] | None) -> str:
    if unmatched is None:
        return "not known"
    return f"{DIFFERS}{', '.join(AMOUNTS[name] for name in unmatched)}" if unmatched else "matched"
