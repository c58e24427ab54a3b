"""Every trial's config, outcome and curves as compact JSON, by column, with measured numbers rounded.

A column with one value in all trials is stored as that value; a column with few values as these and a code per trial.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.results import TRIAL_MEASURES, Column, Results, trial_columns
from orca_sweep.stats import t_interval

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 5
CURVES = (("finetune", "val_metric"), ("embedder", "objective"))
"""The curves: stage and column of the epochs table."""
TRACEBACK_BUDGET = 2_000_000
"""Characters of all distinct tracebacks together; if they have more, each is cut to its share."""
LEAST_TRACEBACK = 500
MEASURES = {column.name for column in TRIAL_MEASURES}
MEASURED = {column.name for column in TRIAL_MEASURES if column.type == "double"}
SHOWN_APART = ("trial_id", "cell_id", "role", "space", "status", "error", "traceback", "seed")


def trials_json(results: Results) -> dict[str, Any]:
    """Returns all rows of the trials table by column, with units and meanings of the columns."""
    trials = results.trials
    known = {column.name: column for column in trial_columns()}
    columns = []
    for name in dict.fromkeys((*(str(name) for name in trials if name != "levels"), *results.factors)):
        # One after the other, since all columns as Python values would take more memory than the whole page.
        values = _list_values(name, results)
        if any(value is not None for value in values):
            columns.append(_pack_column(known.get(name), name, values, results))
    return {"n": len(trials), "columns": columns}


def _list_values(name: str, results: Results) -> Sequence[Any]:
    """Returns a column as JSON values."""
    if name in results.factors:
        return list(map(_sort_label, results.labels[name]))
    values = _plain_values(name, results.trials[name])
    return _within_budget(values) if name == "traceback" else values


def _sort_label(label: str) -> str | int:
    """Returns a whole number as an int, since the page sorts numbers by size."""
    is_number = label.isascii() and label.isdecimal() and len(label) < 16
    return int(label) if is_number and (label == "0" or label[0] != "0") else label


def _pack_column(known: Column | None, name: str, values: Sequence[Any], results: Results) -> dict[str, Any]:
    kind = "apart" if name in SHOWN_APART else "measure" if name in MEASURES else "config"
    about = {"unit": known.unit, "meaning": known.meaning} if known else {"unit": "", "meaning": ""}
    return {"name": name, "kind": kind, "factor": name in results.factors, **about, **pack_values(values)}


def pack_values(values: Sequence[Any]) -> dict[str, Any]:
    """Returns a column as one value, as few values and a code per row, or as a value per row."""
    code_of: dict[tuple[type, Any], int] = {}
    codes = [code_of.setdefault((type(value), value), len(code_of)) for value in values]
    distinct = [value for _, value in code_of]
    if len(distinct) == 1:
        return {"same": distinct[0]}
    return {"values": distinct, "codes": codes} if len(distinct) <= len(values) / 2 else {"each": list(values)}


def _plain_values(name: str, column: "pd.Series[Any]") -> list[Any]:
    """Returns a column as JSON values: config levels as a space writes them, measured numbers rounded."""
    if name in MEASURED:
        return round_values(column)
    is_config = name not in MEASURES
    plain: dict[tuple[type, Any], Any] = {}
    for value in (values := column.tolist()):
        if (type(value), value) not in plain:
            plain[type(value), value] = _plain_value(value, is_config)
    return [plain[type(value), value] for value in values]


def _plain_value(value: Any, is_config: bool) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None or value != value:
        return "null" if is_config else None
    if hasattr(value, "isoformat"):
        return value.isoformat(sep=" ", timespec="seconds")
    if is_config and not isinstance(value, int):
        return write_level(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def round_values(values: Iterable[float]) -> list[float | int | None]:
    """Returns numbers with five significant digits, and None for numbers that are not finite."""
    return [_round_number(float(value)) if value is not None else None for value in values]


def _round_number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _within_budget(texts: Sequence[str | None]) -> list[str | None]:
    distinct = {text for text in texts if text}
    if sum(map(len, distinct)) <= TRACEBACK_BUDGET:
        return list(texts)
    most = max(LEAST_TRACEBACK, TRACEBACK_BUDGET // len(distinct))
    return [text if text is None or len(text) <= most else f"[cut to its last lines]\n{text[-most:]}" for text in texts]


# Curves -------------------------------------------------------------------------------------------


def curves_json(results: Results) -> dict[str, dict[str, list[Any]]]:
    """Returns for each curve and trial the first epoch, then a value per epoch; None for a missing epoch."""
    epochs = results.epochs
    curves: dict[str, dict[str, list[Any]]] = {}
    for stage, column in CURVES:
        rows = epochs[epochs["stage"] == stage] if column in epochs else epochs[:0]
        rows = rows[rows[column].notna()] if len(rows) else rows
        curves[stage] = _collect_curves(rows, column)
    return curves


def _collect_curves(rows: "pd.DataFrame", column: str) -> dict[str, list[Any]]:
    if not len(rows):
        return {}
    curves = {}
    epochs, values = rows["epoch"].to_numpy(), rows[column].to_numpy(dtype=float)
    for trial_id, positions in rows.groupby("trial_id", sort=False).indices.items():
        points = zip(epochs[positions].tolist(), round_values(values[positions].tolist()), strict=True)
        curves[str(trial_id)] = _fill_series(dict(points))
    return curves


def _fill_series(points: Mapping[int, Any]) -> list[Any]:
    first, last = min(points), max(points)
    return [first, *(points.get(epoch) for epoch in range(first, last + 1))]


def t_quantiles(most: int, level: float) -> list[float]:
    """Returns the half-width of a Student-t interval in standard errors, for n = 2, 3, ... replicates."""
    # The half-width over n values of standard deviation s is the quantile times s / sqrt(n).
    return [_t_quantile(n, level) for n in range(2, max(2, most) + 1)]


def _t_quantile(n: int, level: float) -> float:
    values = [0.0] * (n - 1) + [1.0]
    interval = t_interval(values, level)
    return float(f"{interval.half_width * math.sqrt(n) / interval.sd:.6g}")


# Text ---------------------------------------------------------------------------------------------


ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def as_json(value: object) -> str:
    """Returns JSON that is safe between script tags of a page: no text in it can close or open a tag."""
    return ENCODER.encode(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def split_json(value: object, depth: int = 2) -> Iterator[str]:
    """Yields the text of ``as_json`` in parts, down to this depth of nested objects and lists."""
    if not depth or not value or not isinstance(value, Mapping | list):
        yield as_json(value)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield "," if position else "["
            yield from split_json(item, depth - 1)
        yield "]"
    else:
        for position, (key, item) in enumerate(value.items()):
            yield f"{',' if position else '{'}{as_json(key)}:"
            yield from split_json(item, depth - 1)
        yield "}"
