"""The claims by tasks as squares: what one square, one column and one row of the answer hold, made from findings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orca_sweep.analysis.claims import describe_column
from orca_sweep.analysis.findings import CORRELATION, ClaimFinding, Claims, Judgement, TaskFinding
from orca_sweep.analysis.over_tasks import describe_rule
from orca_sweep.analysis.tables import by_task, metric_of, read_cells, replicated
from orca_sweep.results import Cell, Results
from orca_sweep.stats.digits import Digits, format_interval, format_number
from orca_sweep.stats.modes import Mode, as_cost

Word = Literal["supports", "contradicts", "undecided", "not judged", "not counted", "not concerned"]
Verdict = Literal["supported", "contradicted", "mixed", "undecided", "not judged"]
WORDS: tuple[Word, ...] = ("supports", "contradicts", "undecided", "not judged")
VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "mixed", "undecided", "not judged")
PLURALS: dict[Word, str] = {"supports": "support", "contradicts": "contradict", "undecided": "undecided"}
NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The contrast that a square shows, as a gain: above zero, its first cell is the better one, whatever the metric."""

    contrast: str
    word: str
    is_correlation: bool
    """Whether it is a rank correlation: above zero, a lower OTDD goes with a better result."""
    n: int
    n_seeds: int
    gain: float
    """In the task's unit, as both ends of the interval; a rank correlation has none."""
    low: float
    high: float
    estimate: float
    """With the sign of the metric, as the tables of the claim show it."""
    margin: float
    """Above zero; for a correlation the least that counts; NaN without any."""
    digits: Digits
    sentence: str

    def scale_to_margin(self, value: float) -> float:
        """Returns a number in margins of the task; NaN without a margin above zero."""
        return value / self.margin if self.margin > 0 else NAN

    @property
    def is_known(self) -> bool:
        """Whether it has a number."""
        return math.isfinite(self.gain)

    @property
    def text(self) -> str:
        """The gain: '+0.031'."""
        return format_number(self.gain, self.digits, "+")

    @property
    def interval(self) -> str:
        """'[+0.020, +0.042]'."""
        return format_interval(self.low, self.high, self.digits, "+")

    @property
    def n_text(self) -> str:
        """'n = 5', or for a correlation 'n = 30 of 5 seeds'."""
        return f"n = {self.n} of {self.n_seeds} seeds" if self.is_correlation else f"n = {self.n}"


@dataclass(frozen=True, kw_only=True)
class Square:
    """What one task says of one claim."""

    task: str
    claim: str
    word: Word
    """What it says of the claim; 'not counted' if the claim is about other tasks, and this one is only shown."""
    label: str = ""
    """What it says in the claim's own words, such as 'helps'; of a task that is not counted, too."""
    concerns: str = ""
    """'2D only', if the claim is not about this task."""
    effect: Effect | None = None
    """The contrast that decides; None without any."""
    n_contrasts: int = 0
    setting: str = ""
    lack: str = ""
    """Why it is not judged."""
    add: str = ""
    """What would decide it; empty if it is decided, or never can be."""
    detectable: float = NAN
    """The smallest effect that these rows could have shown, in the task's unit; NaN if unknown."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One claim, and the verdict over its tasks."""

    claim: str
    short: str
    sentence: str
    is_ours: bool
    """Whether the claim is this project's own rather than the study's."""
    concerns: str
    """'2D only'; empty for a claim about all tasks."""
    verdict: Verdict
    counts: dict[Word, int]
    """Tasks by word."""
    tally: str
    """'4 of 6 support, 1 contradicts', or that the verdict rests on one task; empty if no task can be judged."""
    rule: str
    """What makes the verdict out of the tasks, as sentences."""
    share: float
    """Of the tasks that decide it, those that support it; with Wilson's interval."""
    share_low: float
    share_high: float
    lack: str
    """Why no task is concerned; empty if any is."""
    add: str
    """What to add then."""
    has_table: bool
    """Whether the claim has contrasts to show below."""

    @property
    def n_tasks(self) -> int:
        """The tasks it concerns."""
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task, and what it says of each claim, in the order of the columns."""

    task: str
    dims: int | None
    metric: str
    mode: Mode
    unit: str
    margin: str
    """'0.02', or 'none'."""
    margin_value: float
    margin_source: str
    squares: tuple[Square, ...]


@dataclass(frozen=True, kw_only=True)
class Lack:
    """A reason why squares are not judged, with these squares."""

    text: str
    claims: tuple[str, ...]
    tasks: tuple[str, ...]
    """Empty if the claim has no task at all."""
    add: str = ""
    """What to add; empty if nothing helps."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What all tasks say of all claims."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    measured: str
    """The column that is compared, whether it is of test data, and which side is better."""
    metric: str
    n_sealed: int
    is_smoke: bool
    """Whether any space ran in its smoke form: its numbers answer nothing."""
    bodies: tuple[str, ...]
    n_cells: int
    n_seeds: tuple[int, int]
    """The fewest and the most seeds of a cell."""
    level: float
    completeness: str
    notes: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()
    additions: tuple[Lack, ...] = ()
    """What would decide the undecided squares."""
    is_asked: bool = True
    """Whether the tables vary any field that a claim is about."""

    @property
    def squares(self) -> tuple[Square, ...]:
        """All squares, task by task."""
        return tuple(square for row in self.rows for square in row.squares)

    @property
    def has_effects(self) -> bool:
        """Whether any square has a word or a number to show."""
        return any(square.effect and square.effect.is_known for square in self.squares)

    @property
    def n_judged(self) -> int:
        """Claims with a verdict."""
        return sum(column.verdict != "not judged" for column in self.columns)


def lay_out_claims(claims: Claims, results: Results) -> Answer:
    """Returns the findings on all claims as an answer; ``results`` are the tables that they come from."""
    cells = replicated(read_cells(results))
    columns = tuple(map(_make_column, claims.findings))
    rows = _make_rows(claims.findings, columns, cells)
    counts = [len(cell.statuses) for cell in cells]
    bodies: Iterable[object] = results.trials["body"].dropna() if "body" in results.trials else ()
    return Answer(
        columns=columns,
        rows=rows,
        measured=describe_column(claims),
        metric=claims.column,
        n_sealed=claims.n_sealed,
        is_smoke=bool(results.smoke),
        bodies=tuple(dict.fromkeys(map(str, bodies))),
        n_cells=len(cells),
        n_seeds=(min(counts, default=0), max(counts, default=0)),
        level=claims.level,
        completeness=claims.completeness,
        notes=claims.notes,
        lacks=_collect_lacks(columns, rows),
        additions=_collect_additions(columns, rows),
        is_asked=any(path in results.factors for finding in claims.findings for path in finding.claim.needs),
    )


# From findings to squares -------------------------------------------------------------------------


def _make_column(finding: ClaimFinding) -> Column:
    claim, share = finding.claim, finding.share
    by_word: dict[Word, int] = dict.fromkeys(WORDS, 0)
    for task in finding.tasks:
        by_word[_word_of(task)] += 1
    return Column(
        claim=claim.id,
        short=claim.short[0].upper() + claim.short[1:],
        sentence=claim.sentence,
        is_ours=claim.origin == "ours",
        concerns=f"{claim.dims}D only" if claim.dims else "",
        verdict="not judged" if finding.kind == "cannot be judged" else finding.kind,
        counts=by_word,
        tally=_count_words(finding, by_word),
        rule=describe_rule(claim.least_share, 0, of_some=claim.of_some),
        share=share.share,
        share_low=share.low,
        share_high=share.high,
        lack="" if finding.tasks else finding.because,
        add="" if finding.tasks else finding.add,
        has_table=any(task.judgements for task in finding.shown),
    )


def _count_words(finding: ClaimFinding, counts: Mapping[Word, int]) -> str:
    """Returns what the verdict rests on, in a few words; empty if no task can be judged."""
    n_judged = sum(counts[word] for word in ("supports", "contradicts", "undecided"))
    if n_judged == 0:
        return ""
    if n_judged == 1:
        (name,) = (task.task for task in finding.tasks if task.says != "cannot be judged")
        text = f"rests on one task, {name}"
    elif finding.claim.words:
        own = finding.claim.words
        labels: dict[str, Word] = {
            own["contradicts"]: "contradicts",
            own["supports"]: "supports",
            "undecided": "undecided",
        }
        first, *rest = (f"{label} on {counts[word]}" for label, word in labels.items() if counts[word])
        text = ", ".join([f"{first} of {n_judged}", *rest])
    else:
        words = sorted((word for word in PLURALS if counts[word]), key=lambda word: -counts[word])
        totals = (f" of {n_judged}", *[""] * len(words))
        text = ", ".join(_count_word(word, counts[word], of) for word, of in zip(words, totals, strict=False))
    unjudged = counts["not judged"]
    return f"{text}; {unjudged} not judged" if unjudged else text


def _count_word(word: Word, n: int, of: str = "") -> str:
    """Returns '1 supports', or '4 of 6 support'."""
    return f"{n}{of} {word if n == 1 else PLURALS[word]}"


def _make_square(finding: ClaimFinding, task: TaskFinding, concerns: str) -> Square:
    """Returns what a task says of a claim: the only reader of findings of tasks."""
    is_counted = task in finding.tasks
    return Square(
        task=task.task,
        claim=finding.claim.id,
        word=_word_of(task) if is_counted else "not counted",
        label=task.word if task.says != "cannot be judged" else "not judged",
        concerns="" if is_counted else concerns,
        effect=_make_effect(task.leading, task.mode) if task.leading else None,
        n_contrasts=len(task.judgements),
        setting=task.setting,
        lack=task.unjudged.text if task.unjudged and is_counted else "",
        add=task.add if is_counted else "",
        detectable=task.detectable,
    )


def _word_of(task: TaskFinding) -> Word:
    return "not judged" if task.says == "cannot be judged" else task.says


def _make_effect(judgement: Judgement, mode: Mode) -> Effect:
    is_correlation = judgement.kind == CORRELATION
    # The difference of a cost falls where the first cell is better; a correlation rises where OTDD tells the result.
    sign = as_cost(1.0, mode) * (1 if is_correlation else -1)
    ends = sorted((sign * judgement.low, sign * judgement.high))
    return Effect(
        contrast=judgement.name,
        word="not judged" if judgement.unjudged else judgement.word,
        is_correlation=is_correlation,
        n=judgement.n,
        n_seeds=judgement.n_seeds,
        gain=sign * judgement.estimate,
        low=ends[0],
        high=ends[1],
        estimate=judgement.estimate,
        margin=abs(judgement.margin),
        digits=judgement.digits,
        sentence=judgement.sentence,
    )


def _make_rows(findings: Sequence[ClaimFinding], columns: Sequence[Column], cells: Sequence[Cell]) -> tuple[Row, ...]:
    """Returns a row for each task: 2D tasks first, then 1D, then the rest, each in the order of the tables."""
    rows = [_make_row(task, findings, columns, of_task) for task, of_task in by_task(cells).items()]
    return tuple(sorted(rows, key=lambda row: -(row.dims or 0)))


def _make_row(task: str, findings: Sequence[ClaimFinding], columns: Sequence[Column], cells: Sequence[Cell]) -> Row:
    of_task = [next((each for each in finding.shown if each.task == task), None) for finding in findings]
    metric = metric_of(cells)
    margin = next((each.margin for each in of_task if each and each.margin), None)
    return Row(
        task=task,
        dims=next((each.dims for each in of_task if each), None),
        metric=metric.name,
        mode=metric.mode,
        unit=metric.unit,
        margin=margin.number if margin else "none",
        margin_value=margin.value if margin and margin.limit is not None else NAN,
        margin_source=margin.source if margin else "",
        squares=tuple(
            _make_square(finding, each, column.concerns)
            if each
            else Square(task=task, claim=column.claim, word="not concerned", concerns=column.concerns)
            for finding, column, each in zip(findings, columns, of_task, strict=True)
        ),
    )


# What is missing ----------------------------------------------------------------------------------


def _collect_lacks(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Lack, ...]:
    """Returns each reason once, with all claims and tasks that it stops, those of most squares first."""
    stopped = [(column.lack, column.add, column.claim, "") for column in columns if column.lack]
    squares = [square for row in rows for square in row.squares]
    stopped += [(square.lack, square.add, square.claim, square.task) for square in squares if square.lack]
    return _group_lacks(stopped, columns, rows)


def _collect_additions(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Lack, ...]:
    """Returns what would decide the undecided squares, each addition once."""
    squares = [square for row in rows for square in row.squares if square.word == "undecided"]
    return _group_lacks(
        [(square.add, "", square.claim, square.task) for square in squares if square.add], columns, rows
    )


def _group_lacks(
    stopped: Iterable[tuple[str, str, str, str]], columns: Sequence[Column], rows: Sequence[Row]
) -> tuple[Lack, ...]:
    """Groups (text, addition, claim, task) by text."""
    reasons: dict[str, list[tuple[str, str, str]]] = {}
    for text, *rest in stopped:
        reasons.setdefault(text, []).append((rest[0], rest[1], rest[2]))
    lacks = [
        Lack(
            text=text,
            claims=tuple(column.claim for column in columns if column.claim in {claim for _, claim, _ in of_text}),
            tasks=tuple(row.task for row in rows if row.task in {task for _, _, task in of_text}),
            add=_join_additions(of_text),
        )
        for text, of_text in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    return tuple(lacks)


def _join_additions(of_text: Iterable[tuple[str, str, str]]) -> str:
    """Returns what to add; if claims need different things, each with its claims."""
    claims_of: dict[str, dict[str, None]] = {}
    for add, claim, _ in of_text:
        claims_of.setdefault(add, {})[claim] = None
    if len(claims_of) == 1:
        return next(iter(claims_of))
    return "; ".join(f"claim {', '.join(claims)}: {add}" for add, claims in claims_of.items() if add)


def describe_lack(lack: Lack, answer: Answer) -> str:
    """Returns which squares a reason stops: 'digits, terrain; claims 1, 3', or 'all tasks; all claims'."""
    tasks = "all tasks" if len(lack.tasks) == len(answer.rows) > 1 else ", ".join(lack.tasks)
    ids = f"claim{'s' * (len(lack.claims) > 1)} {', '.join(lack.claims)}"
    if len(lack.claims) == len(answer.columns):
        ids = "all claims"
    return f"{tasks}; {ids}" if tasks else ids
