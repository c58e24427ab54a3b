"""A running Ray cluster, for ``submit`` and ``job``: opening it, and following a job to its end."""

import os
import shlex
import sys
from typing import TYPE_CHECKING

import typer

from orca_sweep.api.launching import use_ray_token
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.sweep.jobs import Cluster


def open_cluster(address: str) -> "Cluster":
    """Returns the cluster whose dashboard is at an address."""
    use_ray_token()
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray's Jobs client would prefer them to the address on the command line

    from orca_sweep.sweep.jobs import Cluster

    return Cluster(address)


def print_job_commands(job_id: str, address: str) -> None:
    """Prints how to follow a job and how to stop it."""
    words = f"{shlex.quote(job_id)} --address {shlex.quote(address)}"
    print(f"follow it:  orca-sweep job logs --follow {words}")
    print(f"stop it:    orca-sweep job stop {words}", flush=True)


def follow_job(cluster: "Cluster", job_id: str) -> None:
    """Prints what a job prints, then ends the command with the job's exit code; Ctrl-C ends only the following."""
    try:
        job = cluster.follow_job(job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\nThe job {job_id} goes on.")
        print_job_commands(job_id, cluster.address)
        raise typer.Exit(1) from None
    except InputError as error:
        print(f"{error}\nCannot read the log of {job_id} any more; the job itself may still run.", file=sys.stderr)
        print_job_commands(job_id, cluster.address)
        raise typer.Exit(1) from None
    print(f"job {job_id}: {job.status}" + (f": {job.message}" if job.exit_code else ""))
    if job.exit_code == 1:
        print("To run the missing and failed trials, submit the space again with the same --out.")
    raise typer.Exit(job.exit_code or 0)
