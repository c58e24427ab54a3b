"""``orca-sweep report``: one page about a sweep."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.reporting import ReportOptions, write_report
from orca_sweep.cli.analyse import check_share
from orca_sweep.cli.documents import AsJson, print_document

Many = list[str] | None


def report(
    folder: Annotated[
        Path, typer.Argument(help="the folder of a sweep or suite, or a folder of tables", show_default=False)
    ],
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
    options = ReportOptions(
        base=base or (),
        margin=margin or (),
        metric=metric,
        level=level,
        complete_pairs=complete_pairs,
        figures=figures,
        made_at=made_at,
    )
    written = write_report(folder, out, options, partial(print, flush=True))
    if as_json:
        document = {
            "page": written.path,
            "n_bytes": written.n_bytes,
            "figures": written.figures,
            "notes": written.notes,
        }
        print_document("report", document)
    else:
        print(f"{written.path}: {written.n_bytes / 1e6:.1f} MB")
