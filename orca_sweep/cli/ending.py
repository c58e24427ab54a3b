"""What a command that changes results ends with: tables, figures, and the summary as text."""

import json
import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orca_sweep.config.labels import write_level
from orca_sweep.errors import OrcaSweepError, first_line
from orca_sweep.stats.modes import describe_mode


def finish(folder: Path, console: Console) -> None:
    """Makes tables and figures and prints the summary: all from the records, whatever ended the sweep."""
    from orca_sweep.results import collect

    tables = folder / "tables"
    results = collect([folder], tables)
    drawn = draw_figures(results, folder / "figures", console)
    _print_summary(results, console)
    for note in (*results.notes, *_custody(results, folder)):
        console.print(note, soft_wrap=True)
    names = "  ".join(short(tables / f"{name}.parquet") for name in ("trials", "epochs", "stages"))
    console.print(f"tables  {names}", soft_wrap=True)
    for figure in drawn:
        console.print(f"figure  {short(figure)}", soft_wrap=True)
    code = f"import pandas as pd; print(pd.read_parquet({json.dumps(short(tables / 'trials.parquet'), ensure_ascii=False)}))"
    console.print("next:", style="bold")
    console.print(f"  orca-sweep report {shlex.quote(short(folder))}", soft_wrap=True)
    console.print(
        f"  python -c {shlex.quote(code)}",
        soft_wrap=True,
    )
    console.print("  orca-sweep list factors        what else a space can vary")
    console.print("  add a level or a seed to the YAML and launch it again: only the new trials run")


def _custody(results: Any, folder: Path) -> list[str]:
    """What is to be said of test metrics: sealed, or looked at."""
    notes = []
    if results.n_sealed:
        notes.append(
            f"test metrics of {results.n_sealed} trials are sealed: these are validation metrics. When all choices are"
            f" made: orca-sweep reveal {shlex.quote(short(folder))}"
        )
    trials = results.trials
    if "n_reveals_before" in trials and (trials["n_reveals_before"] > 0).any():
        n = int((trials["n_reveals_before"] > 0).sum())
        notes.append(f"{n} trials began after test metrics of this sweep had been revealed (n_reveals_before).")
    return notes


def draw_figures(results: Any, out: Path, console: Console) -> list[Path]:
    """Draws the figures that the sweep is about, and returns their pictures.

    The numbers of a sweep do not depend on a picture: one that cannot be drawn is reported, whatever the reason.
    """
    from orca_sweep.analysis.declarations import choose_figures, write_analysis

    drawn = []
    quiet = replace(results, notes=())  # the summary shows them
    for name in choose_figures(results):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as of letters that no font here has
                paths = write_analysis(out, name, quiet)
        except Exception as error:
            reason = str(error) if isinstance(error, OrcaSweepError) else first_line(error)
            console.print(f"no figure: {name}: {reason}", soft_wrap=True)
        else:
            drawn += [path for path in paths if path.suffix == ".png"]
    return drawn


def _print_summary(results: Any, console: Console) -> None:
    from orca_sweep.results import summarise_cells

    cells = summarise_cells(results)
    table = Table(box=None, header_style="bold")
    has_roles = any(cell.role != "replicate" for cell in cells)
    tuned = [f"{path} (tuned)" for path in results.tuned]
    for name in (*results.factors, *tuned, *["role"] * has_roles, "n", "mean", "95% interval", "not ok"):
        table.add_column(name, overflow="fold")
    for cell in cells:
        chosen = [write_level(cell.chosen[path]) if cell.chosen else "-" for path in results.tuned]
        table.add_row(*map(cell.label, cell.levels), *chosen, *[cell.role] * has_roles, *_numbers(cell))
    measures = ", ".join(dict.fromkeys(f"{cell.task}: {cell.metric}, {describe_mode(cell.mode)}" for cell in cells))
    console.print(f"{results.metric} ({measures}), mean over n seeds with Student-t interval:")
    console.print(table)
    efforts = sorted({cell.n_searched for cell in cells if cell.role == "replicate"})
    if results.tuned:
        console.print(
            f"tuned within each cell on validation data, by {' to '.join(map(str, efforts))} trials with other seeds"
        )


def _numbers(cell: Any) -> tuple[str, str, str, str]:
    i = cell.interval
    lacking = ", ".join(f"{n} {status}" for status, n in cell.status_counts.items() if status != "ok") or "0"
    lacking += f" ({cell.n_worst} scored as worst)" if cell.n_worst else ""
    return str(i.n), f"{i.mean:.4f}" if i.n else "-", f"{i.low:.4f} .. {i.high:.4f}" if i.n > 1 else "-", lacking


def short(path: Path) -> str:
    """Returns the path from here, if it is below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
