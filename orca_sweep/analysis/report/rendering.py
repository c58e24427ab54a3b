"""The page: the report and its figures as one HTML file that loads nothing else."""

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orca_sweep.analysis import figures
from orca_sweep.analysis.report.answer_page import lay_out_answer
from orca_sweep.analysis.report.completeness import MARKS
from orca_sweep.analysis.report.pictures import Picture
from orca_sweep.analysis.report.realised import AMOUNTS, name_column
from orca_sweep.analysis.report.record import Report
from orca_sweep.analysis.report.trials import split_json
from orca_sweep.analysis.tables import describe_direction, describe_scales, find_varying
from orca_sweep.analysis.writing import NOTHING, format_percent
from orca_sweep.results import Cell
from orca_sweep.stats import WORDS, Bounds
from orca_sweep.stats.digits import Digits, digits_of_intervals, format_ends, format_mean, format_sd
from orca_sweep.stats.modes import describe_mode

PARTS = Path(__file__).resolve().parent / "page"
SCRIPTS = ("elements.js", "theme.js", "tables.js", "chart.js", "curves.js", "trial.js", "downloads.js")
"""In the order in which they are joined: each uses those before it."""
MOST_ROWS = 60
"""A page of several tasks with more cells than this has the tables of each task folded."""
FOLDED = 12
"""A task with more comparisons than this has its verdicts folded below their tally."""


def page(report: Report, pictures: Sequence[Picture]) -> str:
    """Returns the whole page as HTML; the same report and figures give the same text."""
    return "".join(render_page(report, pictures))


def render_page(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    """Yields the page in many parts, since that of 10,000 trials takes megabytes."""
    style = (PARTS / "style.css").read_text(encoding="utf-8")
    script = "\n".join(["'use strict';", *((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)])
    template = _make_environment().get_template("page.html")
    return template.generate(
        report=report,
        answer=lay_out_answer(report.answer),
        pictures=pictures,
        style=Markup(style),  # noqa: S704 our own files, not text from tables
        script=Markup(script),  # noqa: S704
        policy=_write_policy(style, script),
        data={name: map(Markup, split_json(value)) for name, value in _collect_data(report).items()},
        results=[_lay_out_results(report, task) for task in report.table.tasks],
        **_lay_out_effects(report),
        realised=[_lay_out_realised(task) for task in report.realised if task.columns],
        marks=MARKS,
        folded=FOLDED,
        are_many=len(report.matrices) > 1 and sum(len(matrix.rows) for matrix in report.matrices) > MOST_ROWS,
        interval=_name_interval(report.level),
        scales=describe_scales({task.task: task.bounds for task in report.table.tasks}),
        percent=format_percent(report.level),
        with_unit=figures.with_unit,
        describe_mode=describe_mode,
    )


def _lay_out_effects(report: Report) -> dict[str, Any]:
    """Returns what the template of the effects table needs: its columns, and the words in it."""
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
    environment = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"key": _sort_key, "svg": _mark_safe}
    return environment


def _mark_safe(picture: Picture) -> Markup:
    return Markup(picture.svg)  # noqa: S704 written by ElementTree, which escapes text


def _write_policy(style: str, script: str) -> str:
    """Returns the content security policy: the page may use this script and this style, and load nothing."""
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
    """Returns the data that the scripts read, by the name of its element."""
    cells = [cell for task in report.table.tasks for cell in task.cells]
    metrics = {
        task.task: figures.with_unit(task.metric, task.unit) + f", {describe_mode(task.mode)}" * (task.mode == "max")
        for task in report.table.tasks
    }
    return {
        "trials": report.trials,
        "curves": report.curves,
        "cells": {
            "cells": [_name_cell(cell) for cell in cells],
            "metrics": metrics,
            "bounds": {task.task: _list_ends(task.bounds) for task in report.table.tasks if str(task.bounds)},
            "bases": [task.base.cell_id for task in report.effects.tasks] if report.effects else [],
            "quantiles": report.quantiles,
            "percent": format_percent(report.level),
            "column": report.head.column,
            "marks": {status: [mark, meaning] for status, (mark, meaning) in MARKS.items()},
        },
        "downloads": report.downloads,
    }


def _list_ends(bounds: Bounds) -> list[float | None]:
    """Returns both ends; None without an end."""
    return [end if math.isfinite(end) else None for end in (bounds.low, bounds.high)]


def _name_cell(cell: Cell) -> dict[str, str]:
    return {"id": cell.cell_id, "task": cell.task, "role": cell.role, "name": cell.name}


def _lay_out_results(report: Report, task: Any) -> dict[str, Any]:
    """Returns a task's cells as texts; numbers come with the value to sort by."""
    paths = find_varying(task.cells)
    digits = digits_of_intervals(cell.interval for cell in task.cells)
    lacking = {row.cell_id: row.lacking for matrix in report.matrices for row in matrix.rows}
    bases = {task.base.cell_id for task in report.effects.tasks} if report.effects else set()
    return {
        "task": task.task,
        "metric": figures.with_unit(task.metric, task.unit),
        "better": describe_direction(task.metric, task.mode),
        "paths": paths,
        "has_aa": any(cell.role == "aa" for cell in task.cells),
        "rows": [
            {
                **_lay_out_result(cell, paths, digits),
                "is_base": cell.cell_id in bases,
                "lacking": lacking.get(cell.cell_id) or "0",
            }
            for cell in task.cells
        ],
        "n_searched": sum(cell.n_searched for cell in task.cells),
        "n_worst": sum(cell.n_worst for cell in task.cells),
    }


def _lay_out_result(cell: Cell, paths: Sequence[str], digits: Digits) -> dict[str, Any]:
    i = cell.interval
    return {
        "cell_id": cell.cell_id,
        "name": cell.name,
        "levels": [cell.labels[path] for path in paths],
        "is_aa": cell.role == "aa",
        "n": i.n,
        "n_planned": len(cell.trials),
        "mean": (format_mean(i, digits), i.mean),
        "interval": format_ends(i, digits),
        "sd": (format_sd(i, digits), i.sd),
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
    text = mean if low == high else f"{mean} ({low} to {high})"
    if amount.n_reused:
        text = f"{text}; {amount.n_reused} reused" if math.isfinite(amount.mean) else "reused"
    return (text, amount.mean)


def _format_short(value: float) -> str:
    if value != value:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _name_interval(level: float) -> str:
    """Returns '95% interval'."""
    return f"{format_percent(level)} interval"


def _sort_key(value: float) -> str:
    """Returns the sort key of a number; that of NaN is empty, and sorts last."""
    return f"{value:.8g}" if math.isfinite(value) else ""
