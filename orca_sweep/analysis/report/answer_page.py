"""The answer as the first screen of the page: its squares as texts, and the lines of their small pictures."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.answer import (
    NULLS,
    SIGNS,
    UNDECIDED,
    describe_detectable,
    describe_reason,
    describe_rules,
    describe_run,
    write_summary,
)
from orca_sweep.analysis.answer_figure import REACH, name_mark
from orca_sweep.analysis.answer_record import Answer, Column, Effect, Row, Square, describe_lack
from orca_sweep.analysis.figures import with_unit
from orca_sweep.analysis.tables import UNKNOWN_METRIC, describe_direction, name_tasks
from orca_sweep.analysis.writing import NOTHING, format_percent

LEAST_TASKS = 2
"""A page of fewer tasks begins with its cells."""
OPEN_LACKS = 6
"""Reasons beyond these are folded."""
WIDTH, HEIGHT = 96.0, 12.0
"""Of the picture of an interval, in its own units."""
MARKS: Mapping[str, tuple[str, str]] = {
    "supports": ("✓", "yes"),
    "supported": ("✓", "yes"),
    "contradicts": ("✗", "no"),
    "contradicted": ("✗", "no"),
    "mixed": ("±", "mixed"),
    "undecided": ("?", "open"),
    "not judged": (NOTHING, "none"),
    "not counted": (" ", "none"),
    "helps": ("+", "plus"),
    "does not help": ("0", "plus"),
}
"""The sign of each word, which is clear without colour, and its style class. A claim's own words have other signs than yes and
no, since none of them says yes or no to the claim."""
FIELD = re.compile(r"\b[a-z_]+\.(?=[a-z])")
"""The room of a config field, which a narrow square leaves out."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval in a band of the margin: positions from the left."""

    low: float
    high: float
    at: float
    band: tuple[float, float]
    is_cut_left: bool
    is_cut_right: bool


def begins_with(answer: Answer) -> bool:
    """Whether a page begins with this answer: not if it is of one task, or of rows that no claim is about."""
    return len(answer.rows) >= LEAST_TASKS and (answer.has_effects or answer.is_asked)


def lay_out_answer(answer: Answer | None) -> dict[str, Any] | None:
    """Returns what the template shows; None for tables whose page does not begin with an answer."""
    if answer is None or not begins_with(answer):
        return None
    names, reasons = name_tasks(row.task for row in answer.rows), _letter_lacks(answer)
    return {
        "summary": write_summary(answer),
        "run": describe_run(answer),
        "measured": answer.measured,
        "level": format_percent(answer.level),
        "n_sealed": answer.n_sealed,
        "nulls": NULLS,
        "undecided": UNDECIDED,
        "rules": describe_rules(answer),
        "signs": SIGNS,
        "has_table": answer.has_effects,
        "columns": [_lay_out_column(column) for column in answer.columns],
        "rows": [_lay_out_row(row, answer.columns, names[row.task], reasons) for row in answer.rows],
        "lacks": [
            {"letter": reasons[lack.text], "text": describe_reason(lack), "squares": describe_lack(lack, answer)}
            for lack in answer.lacks
        ],
        "additions": [
            {"letter": "", "text": f"{lack.text}.", "squares": describe_lack(lack, answer)} for lack in answer.additions
        ],
        "n_open": OPEN_LACKS,
        "reach": f"{REACH:g}",
    }


def _letter_lacks(answer: Answer) -> dict[str, str]:
    """Returns a letter for each reason why squares are not judged: a, b, ..., z, a1, ..."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {
        lack.text: letters[i % len(letters)] + (str(i // len(letters)) if i >= len(letters) else "")
        for i, lack in enumerate(answer.lacks)
    }


def _link_to(column: Column) -> str:
    """Returns where the page has the details of a claim."""
    return f"#claims-{column.claim}" if column.has_table else "#claims-all"


def _lay_out_column(column: Column) -> dict[str, Any]:
    mark, look = MARKS[column.verdict]
    return {
        "claim": column.claim,
        "short": column.short,
        "sentence": column.sentence,
        "is_ours": column.is_ours,
        "link": _link_to(column),
        "word": column.verdict,
        "mark": mark,
        "look": look,
        "tally": column.tally if column.n_tasks else column.concerns,
    }


def _lay_out_row(row: Row, columns: Sequence[Column], name: str, reasons: Mapping[str, str]) -> dict[str, Any]:
    return {
        "task": name,
        "whole": row.task,
        "dims": f"{row.dims}D" if row.dims else "",
        "measure": _describe_measure(row),
        "unit": with_unit(row.metric, row.unit),
        "margin": row.margin,
        "margin_source": row.margin_source,
        "squares": [
            _lay_out_square(square, column, reasons) for square, column in zip(row.squares, columns, strict=True)
        ],
    }


def _describe_measure(row: Row) -> str:
    """Returns 'error, lower is better'."""
    return row.metric if row.metric == UNKNOWN_METRIC else f"{row.metric}, {describe_direction(row.metric, row.mode)}"


def _lay_out_square(square: Square, column: Column, reasons: Mapping[str, str]) -> dict[str, Any]:
    if square.word == "not concerned":
        return {"concerns": square.concerns, "column": column}
    effect, (mark, look) = square.effect, MARKS[name_mark(square)]
    is_known = effect is not None and effect.is_known
    return {
        "concerns": "",
        "column": column,
        "link": _link_to(column),
        "word": name_mark(square),
        "alone": square.label if square.word == "not counted" else "",
        "mark": mark,
        "look": look,
        "reason": reasons.get(square.lack, ""),
        "effect": effect if is_known else None,
        "interval": effect.interval if effect and math.isfinite(effect.low) else "",
        "n": f"n = {effect.n_seeds}" if effect else "",
        "contrast": _shorten_contrast(effect) if effect else "",
        "bar": _make_bar(effect) if effect else None,
        "could_show": describe_detectable(square) if _says_power(square) else "",
    }


def _says_power(square: Square) -> bool:
    """Whether a square says what it could have shown: the table of effects does so for all, a square where it is open."""
    return square.word == "undecided" and math.isfinite(square.detectable)


def _shorten_contrast(effect: Effect) -> str:
    """Returns the name of a contrast without what the whole column shares."""
    name = effect.contrast.partition(", ")[2] if effect.is_correlation else effect.contrast
    return FIELD.sub("", name or effect.contrast).replace(" against ", " vs ")


def _make_bar(effect: Effect) -> Bar | None:
    """Returns the picture of an interval; None if the task has no margin to draw it in."""
    ends = [effect.scale_to_margin(value) for value in (effect.low, effect.gain, effect.high)]
    if not all(map(math.isfinite, ends)):
        return None
    low, at, high = (round(_find_position(end), 1) for end in ends)
    return Bar(
        low=low,
        high=high,
        at=at,
        band=(round(_find_position(-1), 1), round(_find_position(1), 1)),
        is_cut_left=ends[0] < -REACH,
        is_cut_right=ends[2] > REACH,
    )


def _find_position(margins: float) -> float:
    """Returns a position from the left; what lies beyond the picture is at its edge."""
    edge, reach = 6.0, max(-REACH, min(REACH, margins))
    return WIDTH / 2 + reach / REACH * (WIDTH / 2 - edge)
