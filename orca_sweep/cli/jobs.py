"""``orca-sweep submit`` and ``job``: sweeps that a running cluster, Kubernetes or Slurm runs for us."""

import contextlib
import json
import os
import re
import shlex
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.cli.plans import MaxTrials, SpaceFile, make_plan
from orca_sweep.cli.words import real_path
from orca_sweep.errors import InputError
from orca_sweep.record_files import read_regular_file
from orca_sweep.space import MAX_TRIALS
from orca_sweep.space.bundled import find_space

if TYPE_CHECKING:
    from orca_sweep.space import Plan
    from orca_sweep.sweep.jobs import Cluster, Job, Submission

app = typer.Typer(help="Sweeps submitted to a cluster: look at them, stop them.", no_args_is_help=True)
Address = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="dashboard of the cluster's head: http://HOST:8265")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="what submit printed", show_default=False)]
STOP_S = 30.0
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


class Emit(StrEnum):
    """What ``submit`` can print instead of submitting."""

    kuberay = "kuberay"
    slurm = "slurm"


def use_ray_token() -> None:
    """Has Ray use the token that it would find here: in the environment, or in its own file.

    A cluster started with a token refuses those who do not say they have one; this must be said before ray loads.

    Raises:
        InputError: if RAY_AUTH_TOKEN_PATH names no readable file; Ray itself would abort.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not os.environ.get("RAY_AUTH_TOKEN"):
        try:
            is_there = bool((read_regular_file(Path(path)) or b"").decode().strip())
        except (OSError, UnicodeDecodeError):
            is_there = False
        if not is_there:
            raise InputError(f"RAY_AUTH_TOKEN_PATH {path}: no file with a token. Correct the path, or take it out.")
    if path or os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _cluster(address: str) -> "Cluster":
    use_ray_token()
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray's Jobs client would prefer it to the address we name

    from orca_sweep.sweep.jobs import Cluster

    return Cluster(address)


# submit -------------------------------------------------------------------------------------------


def submit(
    space: SpaceFile,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="dashboard of the head: http://HOST:8265")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="sweep folder, absolute, seen by all nodes", show_default=False)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder with the files of tasks, as the nodes see it")] = None,
    store: Annotated[str | None, typer.Option(help="stage artifacts, any fsspec path; default OUT/store")] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="folder to send, but for what its .gitignore names; default: the space's own")
    ] = None,
    follow: Annotated[bool, typer.Option(help="show what the job prints until it ends")] = True,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="environment variable of the job")] = None,
    pip: Annotated[list[str] | None, typer.Option(metavar="REQUIREMENT", help="package to install for the job")] = None,
    emit: Annotated[
        Emit | None, typer.Option(help="print a KubeRay manifest or a Slurm script; submit nothing")
    ] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: the image; default rayproject/ray of our version")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="kuberay, slurm: how many run trials; default 1")] = None,
    trials_per_node: Annotated[
        int | None, typer.Option(min=1, help="kuberay, slurm: side by side; default: as many as share a GPU, or 1")
    ] = None,
    max_trials: MaxTrials = MAX_TRIALS,
) -> None:
    """Runs what is missing of a space as a job of a running Ray cluster, and follows it; exit code as launch."""
    if emit is None:
        use_ray_token()  # planning may load ray already
    what, notes = _planned(space, out, data, store, working_dir, emit, _variables(env), tuple(pip or ()),
                          max_trials)  # fmt: skip
    if emit is Emit.kuberay:
        from orca_sweep.sweep import kuberay

        print(kuberay.manifest(what, image, nodes or 1, trials_per_node), end="")
    elif image is not None:
        raise InputError(f"--image {image}: only kuberay makes use of one. Leave it out, or add --emit kuberay.")
    elif emit is Emit.slurm:
        from orca_sweep.sweep import slurm

        print(slurm.script(what, nodes or 1, trials_per_node), end="")
    elif nodes or trials_per_node:
        raise InputError("submit: --nodes and --trials-per-node are for --emit; a running cluster is as it is.")
    elif address is None:
        raise InputError("submit: no cluster is named. Give --address http://HOST:8265, or --emit kuberay or slurm.")
    else:
        _submit(what, address, notes, follow)


def _submit(what: "Submission", address: str, notes: list[str], follow: bool) -> None:
    cluster = _cluster(address)
    for note in notes:
        print(f"note: {note}")
    job_id = cluster.submit(what, _not_sent(what.folder, Path(what.out)))
    print(f"submitted {job_id}: {len(what.plan.trials)} trials, results in {what.out}", flush=True)
    _print_how(job_id, cluster.address)
    if follow:
        _follow(cluster, job_id)


def _planned(
    space: Path,
    out: Path | None,
    data: Path | None,
    store: str | None,
    working_dir: Path | None,
    emit: Emit | None,
    env: dict[str, str],
    pip: tuple[str, ...],
    max_trials: int,
) -> tuple["Submission", list[str]]:
    """The plan, made as the job will make it: in the folder that is sent. Every mistake is told at once."""
    from orca_sweep.sweep.jobs import Submission, missing_uploads

    path = real_path(find_space(space))
    folder = real_path(working_dir or path.parent)
    problems = _misplaced(out, data, store)
    notes: list[str] = []
    if not folder.is_dir():
        raise InputError([*problems, f"--working-dir {folder}: no such folder."])
    try:
        with contextlib.chdir(folder):
            made = make_plan(path, max_trials)
            if emit is None:
                lacks, notes = missing_uploads(made.space, folder)
                problems += lacks
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems += _without_data(made, data)
    if problems or out is None:
        raise InputError(problems)
    return Submission(made, folder, str(out), None if data is None else str(data), store, env, pip,
                      max_trials), notes  # fmt: skip


def _misplaced(out: Path | None, data: Path | None, store: str | None) -> list[str]:
    rule = "A job runs in a temporary folder of the head: give an absolute path that all nodes see, such as"
    problems = []
    if out is None or not out.is_absolute():
        what = "submit: no --out" if out is None else f"--out {out}: not absolute"
        problems.append(f"{what}. {rule} /shared/results/NAME.")
    if data is not None and not data.is_absolute():
        problems.append(f"--data {data}: not absolute. {rule} /shared/data.")
    if store is not None and "://" not in store and not Path(store).is_absolute():
        problems.append(f"--store {store}: not absolute. {rule} /shared/store, or a URL.")
    return problems


def _without_data(made: "Plan", data: Path | None) -> list[str]:
    """Tasks with files look for them where the job runs; without --data that would be its temporary folder."""
    from orca_sweep.trial import resolve_configs

    names = [trial.config.task for trial in resolve_configs(made.cells) if trial.task.files]
    if data is not None or not names:
        return []
    return [
        f"task {names[0]!r} needs files. Say with --data in which folder the nodes have them, or are to convert them."
    ]


def _variables(env: list[str] | None) -> dict[str, str]:
    wrong = [item for item in env or () if not VARIABLE.fullmatch(item)]
    if wrong:
        raise InputError([f"--env {item}: no NAME=VALUE. Write it like --env HF_HUB_OFFLINE=1." for item in wrong])
    wrong = [item for item in env or () if any("\ud800" <= character <= "\udfff" for character in item)]
    if wrong:
        raise InputError(
            [f"--env {item}: not UTF-8, which manifests and jobs are. Write it in UTF-8." for item in wrong]
        )
    return dict(item.split("=", 1) for item in env or ())


def _not_sent(folder: Path, out: Path) -> list[str]:
    """Sweep folders that lie in the folder that is sent: results have no business in a job's copy of it."""
    sweeps = [file.parent for file in folder.glob("results/*/sweep.json")]
    inside = [out] if out.is_relative_to(folder) else []
    names = {str(path.relative_to(folder)) for path in [*sweeps, *inside]}
    # As patterns of a .gitignore, in which these characters stand for others.
    return sorted("/" + re.sub(r"([\\*?\[\]])", r"\\\1", name) + "/" for name in names)


def _print_how(job_id: str, address: str) -> None:
    words = f"{shlex.quote(job_id)} --address {shlex.quote(address)}"
    print(f"look at it: orca-sweep job logs --follow {words}")
    print(f"stop it:    orca-sweep job stop {words}", flush=True)


def _follow(cluster: "Cluster", job_id: str) -> None:
    """Ends the command with the job's exit code; Ctrl-C ends the looking only."""
    try:
        job = cluster.follow(job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\nThe job {job_id} goes on.")
        _print_how(job_id, cluster.address)
        raise typer.Exit(1) from None
    except InputError as error:
        print(f"{error}\nThe log of {job_id} can be read no more; the job itself may go on.", file=sys.stderr)
        _print_how(job_id, cluster.address)
        raise typer.Exit(1) from None
    print(f"job {job_id}: {job.status}" + (f": {job.message}" if job.exit_code else ""))
    if job.exit_code == 1:
        print("What is missing or failed runs when the space is submitted again with the same --out.")
    raise typer.Exit(job.exit_code or 0)


# job ----------------------------------------------------------------------------------------------


@app.command()
def status(
    job_id: JobId,
    address: Address,
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """Says how a job is; how far its sweep is says 'orca-sweep status OUT' where OUT can be seen."""
    job = _cluster(address).job(job_id)
    if as_json:
        print(json.dumps(asdict(job), indent=2))
        return
    print(_line(job))
    print(f"runs: {job.command}")
    if job.message:
        print(job.message)
    if "out" in job.metadata:
        print(f"results: {job.metadata['out']}; how far they are: orca-sweep status {shlex.quote(job.metadata['out'])}")


@app.command("list")
def list_(address: Address) -> None:
    """Lists the jobs of a cluster, newest first: one id first on each line."""
    for job in _cluster(address).jobs():
        print(_line(job))


@app.command()
def logs(
    job_id: JobId,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the job ends; exit code as launch")] = False,
) -> None:
    """Prints what a job has printed."""
    cluster = _cluster(address)
    cluster.job(job_id)
    if follow:
        _follow(cluster, job_id)
    print(cluster.logs(job_id), end="")


@app.command()
def stop(job_id: JobId, address: Address) -> None:
    """Stops a job. What has finished stays; submitting the space again with the same --out goes on from there."""
    cluster = _cluster(address)
    if not cluster.stop(job_id):
        print(f"{job_id}: had ended before")
    end = time.monotonic() + STOP_S
    while (job := cluster.job(job_id)).exit_code is None and time.monotonic() < end:
        time.sleep(0.2)
    print(_line(job))


def _line(job: "Job") -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.start_s)) if job.start_s else "-"
    minutes = f"{((job.end_s or time.time()) - job.start_s) / 60:.1f} min" if job.start_s else ""
    return f"{job.id} {job.status:<9} begun {begun} {minutes:>10}  {job.metadata.get('space', job.command)}"
