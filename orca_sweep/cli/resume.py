"""``orca-sweep resume``: continues a sweep from its folder."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.paths import real_path
from orca_sweep.cli.running import LOOPBACK, Address, DashboardHost, Destination, run_plan


def resume(
    sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)],
    address: Address = None,
    dashboard_host: DashboardHost = LOOPBACK,
    as_json: AsJson = False,
) -> None:
    """Continue a sweep from its folder alone.

    Runs the missing and failed trials with the plan, data and store of the last launch.
    """
    from orca_sweep.space.manifest import MANIFEST, rebuild_plan, require_manifest
    from orca_sweep.trial import check_contents, load_imports

    folder, manifest = real_path(sweep), require_manifest(sweep)
    plan = rebuild_plan(manifest, folder / MANIFEST)
    load_imports(plan.space.imports)
    check_contents(plan)
    destination = Destination(
        folder=folder,
        store=manifest.store,
        data_root=Path(manifest.data),
        address=address,
        dashboard_host=dashboard_host,
    )
    run_plan(plan, destination, partial(print_document, "resume") if as_json else None)
