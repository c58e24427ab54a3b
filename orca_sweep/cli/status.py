"""``orca-sweep status``: how far a sweep is."""

from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.launching import RESUME, write_resumption
from orca_sweep.cli.documents import AsJson, print_document

MOST_SHOWN = 10
GOOD_STATUSES = {"ok", "pruned"}


def status(
    sweep: Annotated[Path, typer.Argument(help="the folder of a sweep or suite", show_default=False)],
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="exit code 1 unless all trials have ended well")] = False,
) -> None:
    """Show how far a sweep is and what failed.

    Reads only the sweep's folder: works while it runs, and after it died.
    """
    from orca_sweep.api.sweeps import Sweep
    from orca_sweep.results import FINAL_STATUSES

    state = Sweep.open(sweep).status()
    if as_json:
        print_document("status", vars(state))
    else:
        from orca_sweep.cli.terminal import open_console, print_command, print_text

        console = open_console()
        for line in state.write_lines(MOST_SHOWN, "all with --json"):
            print_text(console, line)
        if state.statuses.keys() - set(FINAL_STATUSES) and not state.is_running:
            print_command(console, RESUME, write_resumption(str(sweep)))
    if check and (state.n_later or state.statuses.keys() - GOOD_STATUSES):
        raise typer.Exit(1)
