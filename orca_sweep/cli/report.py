"""``orca-sweep report``: one page about a sweep."""

from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.analysis.catalogue import choose_figures, find_figures
from orca_sweep.cli.analyse import check_share, explain_refusals
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.errors import InputError
from orca_sweep.registry import hint

Many = list[str] | None


def report(
    folder: Annotated[Path, typer.Argument(help="a sweep folder, or a folder of tables", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="default: report.html in that folder")] = None,
    base: Annotated[Many, typer.Option(metavar="FACTOR=LEVEL", help="level of the base cell; repeatable")] = None,
    margin: Annotated[
        Many, typer.Option(metavar="[TASK=]NUMBER", help="smallest difference that matters; repeatable")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="column to compare; default: the metric of the space")] = None,
    level: Annotated[float, typer.Option(callback=check_share, help="confidence level of the intervals")] = 0.95,
    complete_pairs: Annotated[
        bool, typer.Option("--complete-pairs", help="judge cells that lack pairs from the pairs they have")
    ] = False,
    figures: Annotated[
        Many, typer.Option(metavar="NAME", help="figure to draw; repeatable; default: those that suit the sweep")
    ] = None,
    made_at: Annotated[str, typer.Option(help="date on the page; default: when the last trial ended")] = "",
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a sweep.

    Shows the state of the sweep, verdicts, figures, every trial, and methods. Works while the sweep runs.
    """
    target = out or folder / "report.html"
    if target.is_dir():
        raise InputError(f"--out {target}: a folder. Name the HTML file.")
    _check_figures(figures or [])

    from orca_sweep.analysis.report import (
        Asked,
        check_page_path,
        keep_read_columns,
        list_sources,
        make_page_parts,
        write_page,
    )
    from orca_sweep.cli.tables import open_tables

    check_page_path(target)
    with open_tables(folder, is_only_read=out is not None) as (tables, results, notes):
        asked = Asked(
            base=base or (),
            margin=margin or (),
            metric=metric,
            level=level,
            complete_pairs_only=complete_pairs,
            figures=figures or choose_figures(results),
            made_at=made_at,
        )
        sources = list_sources(tables, results)
        results = keep_read_columns(results)
        parts = make_page_parts(results, asked, sources)
    with explain_refusals(target):
        n_bytes = write_page(target, parts)
    if as_json:
        print_document("report", {"page": target, "n_bytes": n_bytes, "figures": asked.figures, "notes": notes})
    else:
        print(f"{target}: {n_bytes / 1e6:.1f} MB")


def _check_figures(names: list[str]) -> None:
    known = [figure.name for figure in find_figures()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError([f"--figures {name}: there is no such figure. {hint(name, known)}" for name in unknown])
