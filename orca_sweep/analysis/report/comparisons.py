"""Each cell against the base of its task, as lines that people read: verdicts, and the rows of the effects table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orca_sweep.analysis import table_effects
from orca_sweep.analysis.report.realised import AMOUNTS, TaskRealised, find_unmatched
from orca_sweep.analysis.table_effects import Effects, TaskEffects
from orca_sweep.analysis.tables import Arm, by_task, find_varying, levels_of, replicated
from orca_sweep.analysis.writing import decimals_of, format_interval, format_number, format_p
from orca_sweep.results import Results
from orca_sweep.stats import WORDS
from orca_sweep.stats.modes import Mode, describe_mode

LOOKS: Mapping[str, str] = dict(zip(WORDS, ("helps", "hurts", "same", "undecided"), strict=True))
"""Each word as a name in a style sheet."""
DIFFERS = "differs: "
Shown = tuple[str, float]
"""A number as it is read, and itself."""


@dataclass(frozen=True)
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
    """'matched', what differs, or 'not known'."""

    @property
    def differs(self) -> bool:
        """Whether cell and base have not done the same amount of anything."""
        return self.matched.startswith(DIFFERS)

    @property
    def look(self) -> str:
        """The word as a name in a style sheet."""
        return LOOKS.get(self.word, "undecided")


@dataclass(frozen=True)
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
        """Which way round the metric is compared, in words."""
        sign = "negative" if self.mode == "min" else "positive"
        return f"{describe_mode(self.mode)}, so a {sign} difference is an improvement"

    @property
    def tally(self) -> dict[str, int]:
        """The number of comparisons by word, in the words' own order."""
        counts = Counter(line.word for line in self.lines)
        return {word: counts[word] for word in WORDS if counts[word]}


def effects_of(results: Results, arms: Sequence[Arm], **asked: object) -> Effects | None:
    """Returns the effects as ``table_effects`` computes them; None where no task has two cells.

    Raises:
        InputError: for what was asked and the tables do not have.
    """
    # Where others were left out, what was asked may be about these, and the page has more to show.
    is_asked = bool(asked.get("base") or asked.get("margin")) and not results.notes
    if not is_asked and all(len(replicated(found)) < 2 for found in by_task(arms).values()):
        return None
    return table_effects.compute(results, **asked)  # type: ignore[arg-type]


def lines_of(effects: Effects | None, done: Sequence[TaskRealised]) -> tuple[TaskLines, ...]:
    """Returns the comparisons of each task that has any."""
    realised = {task.task: task for task in done}
    tasks = effects.tasks if effects else ()
    return tuple(_compare_task(task, realised[task.task]) for task in tasks if task.rows)


def _compare_task(task: TaskEffects, done: TaskRealised) -> TaskLines:
    paths = find_varying([task.base, *(row.arm for row in task.rows)])
    decimals = decimals_of(row.contrast.interval.half_width for row in task.rows)
    lines = tuple(_make_line(task, row, paths, decimals, done) for row in task.rows)
    base = levels_of(task.base, paths)
    margin = f"{task.margin.value:.3g}"
    return TaskLines(
        task.task, task.metric, paths, base, task.base.cell_id, margin, task.margin.source, lines, task.mode, task.unit
    )


def _make_line(
    task: TaskEffects, row: table_effects.Row, paths: Sequence[str], decimals: int, done: TaskRealised
) -> Line:
    c, i = row.contrast, row.contrast.interval
    return Line(
        cell_id=row.arm.cell_id,
        name=levels_of(row.arm, paths),
        levels={path: row.arm.levels[path] for path in paths},
        n=i.n,
        difference=(format_number(i.mean, decimals, "+"), i.mean),
        low=i.low,
        interval=format_interval(i.low, i.high, decimals, "+"),
        hedges_g=(format_number(c.hedges_g, 2, "+"), c.hedges_g),
        p_holm=(format_p(row.p_holm), row.p_holm),
        p_sign_flip=(format_p(c.p_sign_flip), c.p_sign_flip),
        smallest_p=(format_p(c.smallest_p), c.smallest_p if i.n else math.nan),
        word=row.verdict.word,
        sentence=row.verdict.sentence,
        unpaired=row.unpaired,
        matched=_describe_matching(find_unmatched(done, task.base.cell_id, row.arm.cell_id)),
    )


def _describe_matching(differing: Sequence[str] | None) -> str:
    if differing is None:
        return "not known"
    return f"{DIFFERS}{', '.join(AMOUNTS[name] for name in differing)}" if differing else "matched"
