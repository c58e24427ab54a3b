"""``orca-sweep report``: one page of a sweep, made by a script of ``analysis`` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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
    target = out or folder / "report.html"
    if target.is_dir():
        raise InputError(f"--out {target}: is a folder. Name the HTML file.")
    more = [*_given("--base", base), *_given("--margin", margin), *_given("--metric", [metric] if metric else None)]
    more += ["--complete-pairs"] if complete_pairs else []
    more += ["--made-at", made_at] if made_at else []
    with _tables(folder, is_only_read=out is not None) as (tables, results):
        for note in results.notes:
            print(note, flush=True)
        # In a process of its own, for the package itself never imports matplotlib.
        script = [sys.executable, str(shipped("analysis") / "report"), "--tables", str(tables), "--out", str(target)]
        code = subprocess.run([*script, *more, "--figures", *figures_for(results)], check=False).returncode
    raise typer.Exit(code if code in (0, 1, 2) else 1)


@contextmanager
def _tables(folder: Path, is_only_read: bool) -> Iterator[tuple[Path, Results]]:
    """The folder's tables; a sweep's are made anew, elsewhere if nothing may be written into it."""
    if os.path.lexists(folder / "sweep.json"):
        tables = folder / "tables"
        if is_only_read:
            with TemporaryDirectory(prefix="orca-sweep-report-") as name:
                yield Path(name), collect([folder], Path(name), earlier=tables)
        else:
            yield tables, collect([folder], tables)
    elif os.path.lexists(folder / "trials.parquet"):
        yield folder, read_results(folder)
    else:
        raise InputError(
            f"{folder}: neither a sweep (no sweep.json) nor tables (no trials.parquet). Name a folder that 'orca-sweep"
            " launch' or 'orca-sweep collect' wrote."
        )


def _given(option: str, values: list[str] | None) -> list[str]:
    return [option, *values] if values else []
