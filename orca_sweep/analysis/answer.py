"""The answer on one screen: what every task says of every claim, a square each, with the verdict over tasks.

A square holds what the task says of the claim (supports, contradicts, undecided, not judged), and of the contrast that
decides: its gain, the interval of the gain, and n. A gain is the difference of the contrast with the sign turned so that
above zero is better in every task, whatever the metric; a rank correlation is above zero if a lower OTDD goes with a better
result. Gains are in the unit of the task, next to its margin, since readers know that unit; pictures and the CSV also have
them in margins, which all tasks share. A claim about 2D or 1D tasks leaves the squares of the others with '2D only', or
shows them as not counted.

The verdicts are those of the analysis ``claims``, with the same options; its tables have every contrast.

Writes answer.csv, .md, .tex (booktabs), and a picture of the squares as .png, .svg and .pdf.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from orca_sweep.analysis import claims
from orca_sweep.analysis.answer_figure import plot, write_caption
from orca_sweep.analysis.answer_record import (
    VERDICTS,
    Answer,
    Column,
    Effect,
    Lack,
    Row,
    Square,
    describe_lack,
    lay_out_claims,
)
from orca_sweep.analysis.claims import Options
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figure_style import PAGE, FigureStyle
from orca_sweep.analysis.writing import NOTHING, Output, Record, Table, format_csv, format_percent
from orca_sweep.results import Results

__all__ = [
    "NAME",
    "NULLS",
    "Options",
    "build_tables",
    "compute",
    "describe_run",
    "make_output",
    "numbers",
    "plot",
    "write_caption",
    "write_summary",
]

NAME = "answer"
NULLS = "A null result means that an effect is smaller than the margin of its task, not that there is none."
UNDECIDED = "Undecided: the interval is neither beyond the margin nor within it, so these seeds do not decide."
SIGNS = (
    "+ is better in every task, whatever its metric; for a rank correlation (rho), + means that a lower OTDD goes with a"
    " better result."
)


def compute(results: Results, options: Options | None = None) -> Answer:
    """Returns what all tasks of the tables say of all claims; ``options`` are those of the analysis ``claims``.

    Raises:
        InputError: as the analysis ``claims`` does.
    """
    options = options or Options()
    findings = claims.compute(results, options)
    return lay_out_claims(findings, compared(results, options.base))


# Words --------------------------------------------------------------------------------------------


def write_summary(answer: Answer) -> tuple[str, str]:
    """Returns two sentences: how many claims got which verdict, and which claims these are."""
    n = f"{len(answer.columns)} claims"
    if not answer.n_judged:
        return f"None of the {n} can be judged from these rows.", "The list below names what to add."
    by_verdict = {verdict: [c for c in answer.columns if c.verdict == verdict] for verdict in VERDICTS}
    counts = [
        f"{len(each)} {'is' if len(each) == 1 else 'are'} {verdict}" for verdict, each in by_verdict.items() if each
    ]
    named = [
        f"{verdict}: {', '.join(f'{column.claim}. {column.short}' for column in each)}"
        for verdict, each in by_verdict.items()
        if each and verdict != "not judged"
    ]
    text = "; ".join(named)
    *first, last = counts
    return f"Of {n}, {' and '.join(filter(None, (', '.join(first), last)))}.", f"{text[0].upper()}{text[1:]}."


def describe_run(answer: Answer) -> str:
    """Returns what was run: '6 tasks, 18 cells with 5 seeds each, body vit-tiny'."""
    low, high = answer.n_seeds
    seeds = f"{low} to {high} seeds each" if low != high else f"{low} seed{'s' * (low != 1)} each"
    bodies = f"; bod{'y' if len(answer.bodies) == 1 else 'ies'} {', '.join(answer.bodies)}" if answer.bodies else ""
    n_tasks, n_cells = len(answer.rows), answer.n_cells
    tasks, cells = (f"{n:,} {noun}{'s' * (n != 1)}" for n, noun in ((n_tasks, "task"), (n_cells, "cell")))
    return f"{tasks}, {cells}, {seeds}{bodies}"


# Numbers ------------------------------------------------------------------------------------------


def numbers(answer: Answer) -> str:
    """Returns every number as CSV: a line per square, with the verdict of its claim over tasks."""
    return format_csv(list(_make_records(answer)))


def _make_records(answer: Answer) -> Iterator[Record]:
    for row in answer.rows:
        for column, square in zip(answer.columns, row.squares, strict=True):
            yield {
                "task": row.task,
                "dims": row.dims,
                **_claim_columns(column),
                "word": square.word,
                "in_its_words": square.label,
                "concerns": column.concerns,
                "not_judged_because": square.lack,
                "needs": square.add,
                "setting": square.setting,
                **_effect_columns(answer, square.effect),
                "n_contrasts": square.n_contrasts,
                "smallest_that_could_be_shown": square.detectable,
                "metric": row.metric,
                "mode": row.mode,
                "column": answer.metric,
                "margin": row.margin_value,
                "margin_from": row.margin_source,
                "is_smoke": answer.is_smoke,
            }


def _claim_columns(column: Column) -> Record:
    return {
        "claim": column.claim,
        "short": column.short,
        "origin": "ours" if column.is_ours else "study",
        "verdict": column.verdict,
        **{f"n_tasks_{word.replace(' ', '_')}": n for word, n in column.counts.items()},
        "share_supporting": column.share,
        "share_low": column.share_low,
        "share_high": column.share_high,
    }


def _effect_columns(answer: Answer, effect: Effect | None) -> Record:
    e, level = effect, format_percent(answer.level)
    intervals = {
        True: f"{level} interval of Spearman's rho, jackknife over seeds",
        False: f"{level} Student-t interval over pairs",
    }
    scaled = {name: e and e.scale_to_margin(getattr(e, name)) for name in ("gain", "low", "high")}
    return {
        "contrast": e and e.contrast,
        "contrast_word": e and e.word,
        "n": e and e.n,
        "n_seeds": e and e.n_seeds,
        "difference": e and e.estimate,
        "gain": e and e.gain,
        "low": e and e.low,
        "high": e and e.high,
        "interval": e and intervals[e.is_correlation],
        "least_that_counts": e and e.margin,
        "gain_in_margins": scaled["gain"],
        "low_in_margins": scaled["low"],
        "high_in_margins": scaled["high"],
        "contrast_in_words": e and e.sentence,
    }


# Tables -------------------------------------------------------------------------------------------


def build_tables(answer: Answer) -> tuple[Table, ...]:
    """Returns the words of all squares as tasks by claims, and a line for each square that has a contrast."""
    return (_build_words(answer), *([_build_effects(answer)] if answer.has_effects else []))


def _build_words(answer: Answer) -> Table:
    over = (
        "all tasks",
        NOTHING,
        *(f"{column.verdict}{f': {column.tally}' * bool(column.tally)}" for column in answer.columns),
    )
    rows = tuple((row.task, row.margin, *map(name_square, row.squares)) for row in answer.rows)
    return Table(
        name=NAME,
        title="What every task says of every claim",
        caption=f"{' '.join(write_summary(answer))} {NULLS} {UNDECIDED} {list_claims(answer)}"
        f" {describe_rules(answer)} {answer.completeness}",
        head=("task", "margin", *(column.claim for column in answer.columns)),
        align="l" * (2 + len(answer.columns)),
        blocks=((over,), rows),
        notes=tuple(_list_notes(answer)),
    )


def list_claims(answer: Answer) -> str:
    """Returns the sentences of the claims behind their ids."""
    return " ".join(f"{column.claim}{' (ours)' * column.is_ours}: {column.sentence}" for column in answer.columns)


def describe_rules(answer: Answer) -> str:
    """Returns how verdicts follow from tasks, each rule once; claims with a rule of their own are named."""
    claims_of: dict[str, list[str]] = {}
    for column in answer.columns:
        claims_of.setdefault(column.rule, []).append(column.claim)
    usual = max(claims_of, key=lambda rule: len(claims_of[rule]))
    special = [f"Claim {', '.join(ids)}: {rule}" for rule, ids in claims_of.items() if rule != usual]
    return " ".join([usual, *special])


def name_square(square: Square) -> str:
    """Returns what a square says as text: '2D only', 'not counted (supports)', 'helps'."""
    if square.word == "not counted":
        return f"not counted ({square.label})"
    return square.concerns or square.label


def describe_reason(lack: Lack) -> str:
    """Returns a reason as a sentence, with what would help."""
    return f"{lack.text}. Remedy: {lack.add}." if lack.add else f"{lack.text}."


def _list_notes(answer: Answer) -> Iterator[str]:
    yield from answer.notes
    for lack in answer.lacks:
        yield f"Not judged ({describe_lack(lack, answer)}): {describe_reason(lack)}"
    for lack in answer.additions:
        yield f"Undecided ({describe_lack(lack, answer)}), to decide it, add: {lack.text}."


def _build_effects(answer: Answer) -> Table:
    level = format_percent(answer.level)
    blocks = (tuple(_build_lines(row, answer.columns)) for row in answer.rows)
    return Table(
        name=f"{NAME}-effects",
        title="The contrast that decides, by task and claim",
        caption=f"{answer.measured}. Gain: the difference of the first cell to the second, in the task's unit, with its {level}"
        f" interval over pairs of equal seed (of rho: over seeds). {SIGNS} Least: the margin of the task, or the least"
        " correlation that counts. Could show: the smallest effect that these rows show with 80% probability.",
        head=("task", "claim", "word", "contrast", "gain", f"{level} interval", "n", "least", "could show"),
        align="llllrrlrr",
        blocks=tuple(filter(None, blocks)),
    )


def _build_lines(row: Row, columns: Iterable[Column]) -> Iterator[tuple[str, ...]]:
    for column, square in zip(columns, row.squares, strict=True):
        if effect := square.effect:
            rho = "rho " * effect.is_correlation
            yield (
                row.task,
                column.claim,
                name_square(square),
                effect.contrast,
                f"{rho}{effect.text}",
                effect.interval,
                effect.n_text.removeprefix("n = "),
                f"{effect.margin:.3g}" if math.isfinite(effect.margin) else "none",
                describe_detectable(square),
            )


def describe_detectable(square: Square) -> str:
    """Returns the smallest effect that could have been shown, as text; a dash if unknown."""
    if not math.isfinite(square.detectable):
        return NOTHING
    if square.effect is None or not square.effect.is_correlation:
        return f"{square.detectable:.2g}"
    return "rho over 0.99" if square.detectable > 0.99 else f"rho {square.detectable:.2g}"


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` holds the fields of ``Options``."""
    answer = compute(results, Options(**asked))
    return Output(
        numbers=numbers(answer), tables=build_tables(answer), figure=plot(answer, style), caption=write_caption(answer)
    )
