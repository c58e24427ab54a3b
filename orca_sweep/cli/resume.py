"""``orca-sweep resume``: continues a sweep from its folder."""

from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.launching import LOOPBACK, read_resumed
from orca_sweep.api.suite_launching import read_resumed_suite
from orca_sweep.cli.documents import AsJson, AsJsonLines
from orca_sweep.cli.running import Address, DashboardHost, choose_output, run_command, run_suite_command


def resume(
    sweep: Annotated[Path, typer.Argument(help="the folder of a sweep or suite", show_default=False)],
    address: Address = None,
    dashboard_host: DashboardHost = LOOPBACK,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Continue a sweep, or a suite, from its folder alone.

    Runs the missing and failed trials with the plan, data and store of the last launch.
    """
    output = choose_output("resume", as_json=as_json, as_json_lines=as_json_lines)
    suite = read_resumed_suite(sweep, address, dashboard_host)
    if suite is not None:
        run_suite_command(suite, output)
        return
    resumed = read_resumed(sweep, address, dashboard_host)
    run_command(resumed.plan, resumed.destination, output)
