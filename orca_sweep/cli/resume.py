"""``orca-sweep resume``: continues a sweep from its folder."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.launching import LOOPBACK, read_resumed
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.running import Address, DashboardHost, run_command


def resume(
    sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)],
    address: Address = None,
    dashboard_host: DashboardHost = LOOPBACK,
    as_json: AsJson = False,
) -> None:
    """Continue a sweep from its folder alone.

    Runs the missing and failed trials with the plan, data and store of the last launch.
    """
    resumed = read_resumed(sweep, address, dashboard_host)
    run_command(resumed.plan, resumed.destination, partial(print_document, "resume") if as_json else None)
