"""The end of a command that changes results: tables, figures, and a summary as text."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orca_sweep.api.finishing import Finished
from orca_sweep.cli.paths import shorten_path
from orca_sweep.cli.terminal import print_command, print_lines, print_table, print_text
from orca_sweep.config.labels import write_level
from orca_sweep.stats.digits import Digits, digits_of_intervals, format_ends, format_mean, to_ascii
from orca_sweep.stats.modes import describe_mode

if TYPE_CHECKING:
    from orca_sweep.results import Cell, Results

MOST_ROWS = 80
"""Cells that are printed; nobody reads more on a terminal."""


def summarise_sweep(folder: Path, finished: Finished, console: Console) -> dict[str, Any]:
    """Prints the summary of a sweep that has its tables and figures, however it ended.

    Returns:
        The keys of the summary in documents.
    """
    results, tables = finished.results, folder / "tables"
    for lack in (*finished.drawn.refusals, *finished.drawn.warnings):
        print_text(console, str(lack))
    cells = _print_cells(results, console)
    notes = (*results.notes, *_write_custody(results, folder))
    for note in notes:
        print_text(console, note)
    paths = {name: tables / f"{name}.parquet" for name in ("trials", "epochs", "stages")}
    for path in paths.values():
        print_text(console, f"table   {shorten_path(path)}")
    for picture in finished.drawn.pictures:
        print_text(console, f"figure  {shorten_path(picture)}")
    _print_next_steps(folder, console)
    return {
        "folder": folder,
        "metric": results.metric,
        "n_sealed": results.n_sealed,
        "cells": list(map(describe_cell, cells)),
        "tables": paths,
        "figures": finished.drawn.pictures,
        "not_drawn": list(map(asdict, finished.drawn.refusals)),
        "notes": notes,
    }


def describe_cell(cell: "Cell") -> dict[str, Any]:
    """Returns the keys of a cell in documents."""
    interval = cell.interval
    return {
        "cell_id": cell.cell_id,
        "task": cell.task,
        "role": cell.role,
        "levels": {path: cell.label(path) for path in cell.levels},
        "tuned": cell.chosen,
        "metric": cell.metric or None,
        "mode": cell.mode if cell.metric else None,
        "unit": cell.unit or None,
        "n": interval.n,
        "mean": interval.mean if interval.n else None,
        "low": interval.low if interval.n > 1 else None,
        "high": interval.high if interval.n > 1 else None,
        "statuses": cell.status_counts,
        "n_worst": cell.n_worst,
        "n_searched": cell.n_searched,
    }


def _print_next_steps(folder: Path, console: Console) -> None:
    path = json.dumps(shorten_path(folder / "tables" / "trials.parquet"), ensure_ascii=False)
    print_lines(console, ["next:"], "bold")
    print_command(console, "  one page with verdicts:", f"orca-sweep report {shlex.quote(shorten_path(folder))}")
    print_command(console, "  the table, in Python:", f"pandas.read_parquet({path})")
    print_command(console, "  what else a space can vary:", "orca-sweep list factors")
    print_text(console, "  Add a level or a seed to the YAML and launch it again: only the new trials run.")


def _write_custody(results: "Results", folder: Path) -> list[str]:
    """Returns notes on test metrics that are sealed, or that somebody has looked at."""
    notes = []
    if results.n_sealed:
        notes.append(
            f"The test metrics of {results.n_sealed} trials are sealed: these are validation metrics. When all choices are"
            f" made: orca-sweep reveal {shlex.quote(shorten_path(folder))}"
        )
    trials = results.trials
    if "n_reveals_before" in trials and (trials["n_reveals_before"] > 0).any():
        n = trials.loc[trials["n_reveals_before"] > 0, "trial_id"].nunique()
        notes.append(f"{n} trials started after test metrics of this sweep had been revealed (n_reveals_before).")
    return notes


def _print_cells(results: "Results", console: Console) -> tuple["Cell", ...]:
    """Prints the cells and returns them."""
    from orca_sweep.analysis.tables import by_task, describe_scales
    from orca_sweep.analysis.writing import count_things
    from orca_sweep.results import summarise_cells

    cells = summarise_cells(results)
    has_roles = any(cell.role != "replicate" for cell in cells)
    tuned = [f"{path} (tuned)" for path in results.tuned]
    digits = {task: digits_of_intervals(cell.interval for cell in of_task) for task, of_task in by_task(cells).items()}
    searched = {cell.cell_id for cell in cells if cell.n_searched}
    rows = []
    for cell in cells:
        is_fixed = cell.cell_id.removesuffix("-aa") not in searched  # by a space that does not tune
        note = " (fixed)" if is_fixed else ""
        chosen = [f"{write_level(cell.chosen[path])}{note}" if cell.chosen else "-" for path in results.tuned]
        numbers = _write_numbers(cell, digits[cell.task])
        rows.append((*map(cell.label, cell.levels), *chosen, *[cell.role] * has_roles, *numbers))
    print_text(console, _write_heading(cells, results.metric))
    head = (*results.factors, *tuned, *["role"] * has_roles, "n", "mean", "95% interval", "not ok")
    if len(rows) <= MOST_ROWS:
        print_table(console, head, rows)
    else:
        print_text(console, f"{len(rows)} cells are too many to read here: the page and the tables below have them.")
    scales = describe_scales({cell.task: cell.bounds for cell in cells})
    if scales:
        print_text(console, scales)
    efforts = {cell.n_searched for cell in cells if cell.cell_id in searched}
    if efforts:
        least, most = min(efforts), max(efforts)
        count = count_things(most, "trial") if least == most else f"{least} to {most} trials"
        print_text(console, f"tuned within each cell on validation data, with {count} on other seeds")
    return cells


def _write_heading(cells: Sequence["Cell"], column: str) -> str:
    """Returns what the numbers of the table are, by task; a task without an ok trial has no metric yet."""
    if not any(cell.metric for cell in cells):
        return f"{column}: no trial is ok yet, so there is nothing to average"
    by_task = {cell.task: cell for cell in sorted(cells, key=lambda cell: bool(cell.metric))}
    measures = [
        f"{task}: {by_task[task].metric}, {describe_mode(by_task[task].mode)}"
        if by_task[task].metric
        else f"{task}: no trial is ok yet"
        for task in dict.fromkeys(cell.task for cell in cells)
    ]
    return f"{column} ({'; '.join(measures)}), mean over n seeds with Student-t interval:"


def _write_numbers(cell: "Cell", digits: Digits) -> tuple[str, str, str, str]:
    interval = cell.interval
    not_ok = ", ".join(f"{n} {status}" for status, n in cell.status_counts.items() if status != "ok") or "0"
    not_ok += f" ({cell.n_worst} scored as worst)" if cell.n_worst else ""
    mean, span = format_mean(interval, digits), format_ends(interval, digits)
    return str(interval.n), to_ascii(mean), to_ascii(span), not_ok
