"""``orca-sweep launch``: runs a space."""

from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.launching import LOOPBACK, Destination
from orca_sweep.cli.documents import AsJson, AsJsonLines
from orca_sweep.cli.running import Address, DashboardHost, choose_output, run_command, run_suite_command
from orca_sweep.cli.spaces import MaxTrials, Rehash, Smoke, SpaceFiles, SuiteName, read_sources


def launch(
    spaces: SpaceFiles,
    out: Annotated[Path | None, typer.Option(help="folder of the sweep or suite; default results/<name>")] = None,
    name: SuiteName = None,
    smoke: Smoke = False,
    address: Address = None,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need any")] = Path("data"),
    store: Annotated[
        str | None, typer.Option(help="store of stage artifacts, any fsspec path; default OUT/store")
    ] = None,
    dashboard_host: DashboardHost = LOOPBACK,
    rehash: Rehash = False,
    max_trials: MaxTrials = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Run a space, or several as a suite, on Ray Tune.

    Runs the trials that the folder does not have yet, writes tables and figures, and prints the result.
    Exit code 0: all trials ended well; 1: some did not; 2: wrong input.
    """
    from orca_sweep.api.plans import Plan

    plan = read_sources(spaces, name).plan(
        max_trials=max_trials, rehash=rehash, data=data, store=store, out=out, smoke=smoke
    )
    output = choose_output("launch", as_json=as_json, as_json_lines=as_json_lines)
    if not isinstance(plan, Plan):
        run_suite_command(plan.make_run(address, dashboard_host), output)
        return
    destination = Destination(
        folder=plan.folder,
        store=plan.store_root,
        data_root=plan.data,
        address=address,
        dashboard_host=dashboard_host,
    )
    run_command(plan.record, destination, output)
