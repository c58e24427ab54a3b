"""A running Ray cluster, for ``submit`` and ``job``: opening it, and following a job to its end."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from orca_sweep.api.launching import use_ray_token
from orca_sweep.cli.documents import to_time
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.sweep.jobs import Cluster, Job


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


def describe_job(job: "Job") -> dict[str, Any]:
    """Returns the keys of a job in documents."""
    return {
        "id": job.id,
        "status": job.status,
        "message": job.message,
        "runs": job.command,
        "metadata": job.metadata,
        "started": to_time(job.start_s),
        "ended": to_time(job.end_s),
        "exit_code": job.exit_code,
    }


def follow_job(cluster: "Cluster", job_id: str, print_end: Callable[[Mapping[str, Any]], None] | None = None) -> None:
    """Prints what a job prints, then ends the command with the job's exit code; Ctrl-C ends only the following.

    Args:
        cluster: the cluster that has the job.
        job_id: the id of the job.
        print_end: prints the keys of the document on how the job ended, or why it cannot be followed; None without JSON.
    """
    try:
        job = cluster.follow_job(job_id, lambda text: print(text, end="", flush=True))
    except (KeyboardInterrupt, InputError) as error:
        reason = f"\nThe job {job_id} goes on."
        if isinstance(error, InputError):
            reason = f"{error}\nCannot read the log of {job_id} any more; the job itself may still run."
        print(reason, file=sys.stderr)
        print_job_commands(job_id, cluster.address)
        if print_end is not None:
            print_end({"id": job_id, "error": reason.strip()})
        raise typer.Exit(1) from None
    print_wrapped(f"job {job_id}: {job.status}" + (f": {job.message}" if job.exit_code else ""))
    if job.exit_code == 1:
        print_wrapped("To run the missing and failed trials, submit the space again with the same --out.")
    if print_end is not None:
        print_end(describe_job(job))
    raise typer.Exit(job.exit_code or 0)
