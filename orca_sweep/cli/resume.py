"""``orca-sweep resume``: continues a sweep from its folder."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.launching import LOOPBACK, read_resumed
from orca_sweep.api.suite_launching import read_resumed_suite
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.running import Address, DashboardHost, run_command, run_suite_command


def resume(
    sweep: Annotated[Path, typer.Argument(help="the folder of a sweep or suite", show_default=False)],
    address: Address = None,
    dashboard_host: DashboardHost = LOOPBACK,
    as_json: AsJson = False,
) -> None:
    """Continue a sweep, or a suite, from its folder alone.

    Runs the missing and failed trials with the plan, data and store of the last launch.
    """
    print_end = partial(print_document, "resume") if as_json else None
    suite = read_resumed_suite(sweep, address, dashboard_host)
    if suite is not None:
        run_suite_command(suite, print_end)
        return
    resumed = read_resumed(sweep, address, dashboard_host)
    run_command(resumed.plan, resumed.destination, print_end)
