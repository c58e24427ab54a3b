"""The page: the report and its figures as one HTML file that asks for nothing else."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orca_sweep.analysis import figures
from orca_sweep.analysis.report.completeness import MARKS
from orca_sweep.analysis.report.pictures import Picture
from orca_sweep.analysis.report.realised import AMOUNTS, name_column
from orca_sweep.analysis.report.record import Report
from orca_sweep.analysis.report.trials import as_json
from orca_sweep.analysis.table_results import Row
from orca_sweep.analysis.tables import find_varying
from orca_sweep.analysis.writing import NOTHING, decimals_of, format_interval, format_number, format_percent
from orca_sweep.stats import WORDS
from orca_sweep.stats.modes import describe_mode

PARTS = Path(__file__).resolve().parent / "page"
SCRIPTS = ("elements.js", "theme.js", "tables.js", "chart.js", "curves.js", "trial.js", "downloads.js")
"""In the order in which they are put together: each uses those before it."""
FOLDED = 12
"""With more comparisons than these a task's verdicts are folded away below their tally."""


def page(report: Report, pictures: Sequence[Picture]) -> str:
    """Returns the whole page as HTML; the same report and figures give the same text."""
    style = (PARTS / "style.css").read_text(encoding="utf-8")
    script = "\n".join(["'use strict';", *((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)])
    template = _make_environment().get_template("page.html")
    return template.render(
        report=report,
        pictures=pictures,
        style=Markup(style),  # noqa: S704 our own files, not what tables brought along
        script=Markup(script),  # noqa: S704
        policy=_write_policy(style, script),
        data={name: Markup(as_json(value)) for name, value in _collect_data(report).items()},  # noqa: S704
        results=[_lay_out_results(report, task) for task in report.table.tasks],
        **_lay_out_effects(report),
        realised=[_lay_out_realised(task) for task in report.realised if task.columns],
        marks=MARKS,
        folded=FOLDED,
        interval=_name_interval(report.level),
        percent=format_percent(report.level),
        with_unit=figures.with_unit,
        describe_mode=describe_mode,
    )


def _lay_out_effects(report: Report) -> dict[str, Any]:
    """What the table of effects needs: its columns, and which words there are."""
    lines = [line for task in report.tasks for line in task.lines]
    paths = list(dict.fromkeys(path for task in report.tasks for path in task.paths))
    has_gaps = any(line.unpaired for line in lines)
    texts = [*["task"] * (len(report.tasks) > 1), *paths, "verdict"]
    numbers = ["difference", _name_interval(report.level), "pairs", "Hedges' g", "p, Holm", "p, sign flip", "smallest"]
    heads = [(text, False) for text in texts] + [(text, True) for text in numbers]
    heads += [(text, False) for text in ("compute", *["seeds without a pair"] * has_gaps)]
    return {
        "effect_paths": paths,
        "effect_heads": [{"text": text, "number": is_number} for text, is_number in heads],
        "has_gaps": has_gaps,
        "n_lines": len(lines),
        "words": [word for word in WORDS if any(line.word == word for line in lines)],
    }


def _make_environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"key": _sort_key, "svg": _mark_safe}
    return made


def _mark_safe(picture: Picture) -> Markup:
    return Markup(picture.svg)  # noqa: S704 written by ElementTree, which escapes what texts hold


def _write_policy(style: str, script: str) -> str:
    """What the page may do: run this script, look like this, and nothing from anywhere else."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash_text(script)}'",
            f"style-src '{_hash_text(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash_text(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _collect_data(report: Report) -> dict[str, Any]:
    """What scripts draw from, under the id of its element."""
    rows = [row for task in report.table.tasks for row in task.rows]
    metrics = {
        task.task: figures.with_unit(task.metric, task.unit) + f", {describe_mode(task.mode)}" * (task.mode == "max")
        for task in report.table.tasks
    }
    return {
        "trials": report.trials,
        "curves": report.curves,
        "cells": {
            "cells": [_name_cell(row) for row in rows],
            "metrics": metrics,
            "bases": [task.base.cell_id for task in report.effects.tasks] if report.effects else [],
            "quantiles": report.quantiles,
            "percent": format_percent(report.level),
            "column": report.head.column,
            "marks": {status: [mark, meaning] for status, (mark, meaning) in MARKS.items()},
        },
        "downloads": report.downloads,
    }


def _name_cell(row: Row) -> dict[str, str]:
    return {"id": row.cell.cell_id, "task": row.cell.task, "role": row.cell.role, "name": row.arm.name}


def _lay_out_results(report: Report, task: Any) -> dict[str, Any]:
    """A task's cells as a table of texts; numbers with what they are sorted by."""
    paths = find_varying([row.arm for row in task.rows])
    decimals = decimals_of(row.cell.interval.half_width for row in task.rows)
    lacks = {row.cell_id: row.lacking for matrix in report.matrices for row in matrix.rows}
    base = next((t.base.cell_id for t in report.effects.tasks if t.task == task.task), "") if report.effects else ""
    return {
        "task": task.task,
        "metric": figures.with_unit(task.metric, task.unit),
        "better": describe_mode(task.mode),
        "paths": paths,
        "has_aa": any(row.cell.role == "aa" for row in task.rows),
        "rows": [_lay_out_result(row, paths, decimals, base, lacks) for row in task.rows],
        "n_searched": sum(row.cell.n_searched for row in task.rows),
        "n_worst": sum(row.cell.n_worst for row in task.rows),
    }


def _lay_out_result(
    row: Row, paths: Sequence[str], decimals: int, base: str, lacks: Mapping[str, str]
) -> dict[str, Any]:
    i = row.cell.interval
    return {
        "cell_id": row.cell.cell_id,
        "name": row.arm.name,
        "levels": [row.arm.levels[path] for path in paths],
        "is_aa": row.cell.role == "aa",
        "is_base": row.cell.cell_id == base,
        "n": i.n,
        "n_planned": len(row.arm.statuses),
        "mean": (format_number(i.mean, decimals), i.mean),
        "interval": format_interval(i.low, i.high, decimals),
        "sd": (format_number(i.sd, decimals), i.sd),
        "lacking": lacks.get(row.cell.cell_id) or "0",
    }


def _lay_out_realised(task: Any) -> dict[str, Any]:
    return {
        "task": task.task,
        "paths": task.paths,
        "unknown": ", ".join(task.unknown),
        "heads": [(name_column(column), column in AMOUNTS) for column in task.columns],
        "rows": [
            (row.name, row.role, row.n, [_format_amount(row.amounts[column]) for column in task.columns])
            for row in task.rows
        ],
    }


def _format_amount(amount: Any) -> tuple[str, float]:
    low, mean, high = (_format_short(value) for value in (amount.low, amount.mean, amount.high))
    return (mean if low == high else f"{mean} ({low} to {high})", amount.mean)


def _format_short(value: float) -> str:
    if value != value:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _name_interval(level: float) -> str:
    """Returns '95% interval'."""
    return f"{format_percent(level)} interval"


def _sort_key(value: float) -> str:
    """Returns a number as what a column is sorted by; NaN is empty, and sorts last."""
    return f"{value:.8g}" if math.isfinite(value) else ""
