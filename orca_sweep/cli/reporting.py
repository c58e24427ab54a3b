"""``orca-sweep report``: one page of a sweep, made by a script of ``analysis`` in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.cli.ending import shipped
from orca_sweep.cli.tables import figures_for
from orca_sweep.errors import InputError
from orca_sweep.results import Results, collect, read_results

Many = list[str] | None


def report(
    folder: Annotated[Path, typer.Argument(help="a sweep folder, or a folder of tables", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="default: report.html in that folder")] = None,
    base: Annotated[Many, typer.Option(metavar="FACTOR=LEVEL", help="level of the base cell; may be repeated")] = None,
    margin: Annotated[
        Many, typer.Option(metavar="[TASK=]NUMBER", help="smallest difference that matters; may be repeated")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="column to compare; default: the one that the space names")] = None,
    complete_pairs: Annotated[
        bool, typer.Option("--complete-pairs", help="judge cells that lack pairs from those they have")
    ] = False,
    made_at: Annotated[str, typer.Option(help="when it is made; default: when the last trial ended")] = "",
) -> None:
    """Makes one HTML page of a sweep, also while it runs: what is there, verdicts, figures, every trial, methods."""
    tables, results = _tables(folder)
    target = out or folder / "report.html"
    if target.is_dir():
        raise InputError(f"--out {target}: is a folder. Name the HTML file.")
    more = [*_given("--base", base), *_given("--margin", margin), *_given("--metric", [metric] if metric else None)]
    more += ["--complete-pairs"] if complete_pairs else []
    more += ["--made-at", made_at] if made_at else []
    # In a process of its own, for the package itself never imports matplotlib.
    script = [sys.executable, str(shipped("analysis") / "report"), "--tables", str(tables), "--out", str(target)]
    code = subprocess.run([*script, *more, "--figures", *figures_for(results)], check=False).returncode
    raise typer.Exit(code if code in (0, 1, 2) else 1)


def _tables(folder: Path) -> tuple[Path, Results]:
    """The folder's tables; a sweep's are made anew."""
    if (folder / "sweep.json").is_file():
        tables = folder / "tables"
        return tables, collect([folder], tables)
    if (folder / "trials.parquet").is_file():
        return folder, read_results(folder)
    raise InputError(
        f"{folder}: neither a sweep (no sweep.json) nor tables (no trials.parquet). Name a folder that 'orca-sweep launch'"
        " or 'orca-sweep collect' wrote."
    )


def _given(option: str, values: list[str] | None) -> list[str]:
    return [option, *values] if values else []
