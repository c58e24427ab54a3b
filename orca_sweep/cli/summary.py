"""The end of a command that changes results: tables, figures, and a summary as text."""

import json
import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from orca_sweep.cli.paths import shorten_path
from orca_sweep.config.labels import write_level
from orca_sweep.errors import OrcaSweepError, first_line
from orca_sweep.stats.modes import describe_mode

if TYPE_CHECKING:
    from orca_sweep.results import Cell, Results


def summarise_sweep(folder: Path, console: Console) -> None:
    """Makes tables and figures from the records and prints the summary, however the sweep ended."""
    from orca_sweep.results import collect

    tables = folder / "tables"
    results = collect([folder], tables)
    pictures = draw_figures(results, folder / "figures", console)
    _print_cells(results, console)
    for note in (*results.notes, *_write_custody(results, folder)):
        console.print(note, soft_wrap=True)
    names = "  ".join(shorten_path(tables / f"{name}.parquet") for name in ("trials", "epochs", "stages"))
    console.print(f"tables  {names}", soft_wrap=True)
    for picture in pictures:
        console.print(f"figure  {shorten_path(picture)}", soft_wrap=True)
    _print_next_steps(folder, console)


def _print_next_steps(folder: Path, console: Console) -> None:
    path = json.dumps(shorten_path(folder / "tables" / "trials.parquet"), ensure_ascii=False)
    code = f"import pandas as pd; print(pd.read_parquet({path}))"
    console.print("next:", style="bold")
    console.print(f"  orca-sweep report {shlex.quote(shorten_path(folder))}", soft_wrap=True)
    console.print(f"  python -c {shlex.quote(code)}", soft_wrap=True)
    console.print("  orca-sweep list factors        what else a space can vary")
    console.print("  add a level or a seed to the YAML and launch it again: only the new trials run")


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
        n = int((trials["n_reveals_before"] > 0).sum())
        notes.append(f"{n} trials started after test metrics of this sweep had been revealed (n_reveals_before).")
    return notes


def draw_figures(results: "Results", out: Path, console: Console) -> list[Path]:
    """Draws the figures that suit the sweep, and returns their pictures.

    A figure that cannot be drawn is reported, whatever the reason: the numbers of a sweep do not depend on it.
    """
    from orca_sweep.analysis.catalogue import choose_figures, make_output
    from orca_sweep.analysis.writing import write_output

    pictures = []
    without_notes = replace(results, notes=())  # the summary prints them
    for name in choose_figures(results):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                output = make_output(name, without_notes)
                paths = write_output(out, name, output)
        except Exception as error:
            reason = str(error) if isinstance(error, OrcaSweepError) else first_line(error)
            console.print(f"no figure: {name}: {reason}", soft_wrap=True)
        else:
            pictures += [path for path in paths if path.suffix == ".png"]
            for warning in output.warnings:
                console.print(f"{name}: {warning}", soft_wrap=True)
    return pictures


def _print_cells(results: "Results", console: Console) -> None:
    from orca_sweep.results import summarise_cells

    cells = summarise_cells(results)
    table = Table(box=None, header_style="bold")
    has_roles = any(cell.role != "replicate" for cell in cells)
    tuned = [f"{path} (tuned)" for path in results.tuned]
    for name in (*results.factors, *tuned, *["role"] * has_roles, "n", "mean", "95% interval", "not ok"):
        table.add_column(name, overflow="fold")
    for cell in cells:
        chosen = [write_level(cell.chosen[path]) if cell.chosen else "-" for path in results.tuned]
        table.add_row(*map(cell.label, cell.levels), *chosen, *[cell.role] * has_roles, *_write_numbers(cell))
    measures = ", ".join(dict.fromkeys(f"{cell.task}: {cell.metric}, {describe_mode(cell.mode)}" for cell in cells))
    console.print(f"{results.metric} ({measures}), mean over n seeds with Student-t interval:")
    console.print(table)
    efforts = sorted({cell.n_searched for cell in cells if cell.role == "replicate"})
    if results.tuned:
        counts = " to ".join(map(str, efforts))
        console.print(f"tuned within each cell on validation data, with {counts} trials on other seeds")


def _write_numbers(cell: "Cell") -> tuple[str, str, str, str]:
    interval = cell.interval
    not_ok = ", ".join(f"{n} {status}" for status, n in cell.status_counts.items() if status != "ok") or "0"
    not_ok += f" ({cell.n_worst} scored as worst)" if cell.n_worst else ""
    mean = f"{interval.mean:.4f}" if interval.n else "-"
    span = f"{interval.low:.4f} .. {interval.high:.4f}" if interval.n > 1 else "-"
    return str(interval.n), mean, span, not_ok
