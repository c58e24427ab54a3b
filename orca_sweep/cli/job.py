"""``orca-sweep job``: the jobs of a cluster."""

import shlex
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.cli.clusters import describe_job, follow_job, open_cluster
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped

if TYPE_CHECKING:
    from orca_sweep.sweep.jobs import Job

app = typer.Typer(help="Look at and stop sweeps submitted to a cluster.", no_args_is_help=True)
Address = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="dashboard of the cluster's head: http://HOST:8265")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="the id that submit printed", show_default=False)]
STOP_S = 30.0
"""How long ``job stop`` waits for the job to end."""


@app.command("status")
def show_status(
    job_id: JobId,
    address: Address,
    as_json: AsJson = False,
) -> None:
    """Show the state of a job.

    For the progress of its sweep, run 'orca-sweep status OUT' where OUT is visible.
    """
    job = open_cluster(address).read_job(job_id)
    if as_json:
        print_document("job status", describe_job(job))
        return
    print_wrapped(_format_job(job))
    print(f"runs: {job.command}")
    if job.message:
        print_wrapped(job.message)
    if "out" in job.metadata:
        out = job.metadata["out"]
        print_wrapped(f"results: {out}; for their progress: orca-sweep status {shlex.quote(out)}")


@app.command("list")
def list_jobs(address: Address, as_json: AsJson = False) -> None:
    """List the jobs of a cluster, newest first.

    Each line begins with the job's id.
    """
    jobs = open_cluster(address).list_jobs()
    if as_json:
        print_document("job list", {"address": address, "jobs": map(describe_job, jobs)})
        return
    for job in jobs:
        print_wrapped(_format_job(job))


@app.command("logs")
def show_logs(
    job_id: JobId,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="until the job ends; exit code as for launch")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a job."""
    cluster = open_cluster(address)
    cluster.read_job(job_id)
    if follow:
        follow_job(cluster, job_id, partial(print_document, "job logs") if as_json else None)
    if as_json:
        print_document("job logs", {**describe_job(cluster.read_job(job_id)), "log": cluster.read_logs(job_id)})
    else:
        print(cluster.read_logs(job_id), end="")


@app.command("stop")
def stop_job(job_id: JobId, address: Address, as_json: AsJson = False) -> None:
    """Stop a job.

    Keeps every finished trial: submit the space again with the same --out to continue.
    """
    cluster = open_cluster(address)
    if not cluster.stop_job(job_id):
        print_wrapped(f"{job_id}: had already ended")
    end = time.monotonic() + STOP_S
    while (job := cluster.read_job(job_id)).exit_code is None and time.monotonic() < end:
        time.sleep(0.2)
    if as_json:
        print_document("job stop", describe_job(job))
    else:
        print_wrapped(_format_job(job))


def _format_job(job: "Job") -> str:
    start = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.start_s)) if job.start_s else "-"
    minutes = f"{((job.end_s or time.time()) - job.start_s) / 60:.1f} min" if job.start_s else ""
    return f"{job.id} {job.status:<9} started {start} {minutes:>10}  {job.metadata.get('space', job.command)}"
