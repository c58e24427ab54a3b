"""``orca-sweep submit``: sweeps that a running cluster, Kubernetes or Slurm runs."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.api.launching import use_ray_token
from orca_sweep.api.paths import real_path
from orca_sweep.cli.clusters import describe_job, follow_job, open_cluster, print_job_commands
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.cli.spaces import MaxTrials, SpaceFile
from orca_sweep.errors import InputError, Problem

if TYPE_CHECKING:
    from orca_sweep.space import Plan
    from orca_sweep.sweep.jobs import Submission

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


class Emit(StrEnum):
    """What ``submit`` can print instead of submitting."""

    kuberay = "kuberay"
    slurm = "slurm"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``submit`` that say what the job runs."""

    space: Path
    out: Path | None
    data: Path | None
    store: str | None
    working_dir: Path | None
    env: dict[str, str]
    pip: tuple[str, ...]
    max_trials: int | None
    sends_folder: bool
    """Whether the job runs in a copy of the working folder, so that everything the space names must be in it."""


def submit(
    space: SpaceFile,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="dashboard of the head: http://HOST:8265")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="sweep folder: an absolute path on the node where the job starts", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder with the files of tasks, as the nodes see it")] = None,
    store: Annotated[
        str | None, typer.Option(help="store of stage artifacts, any fsspec path; default OUT/store")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="folder to send, except what its .gitignore lists; default: the space's folder")
    ] = None,
    follow: Annotated[bool, typer.Option(help="show the job's output until it ends")] = True,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="environment variable of the job")] = None,
    pip: Annotated[list[str] | None, typer.Option(metavar="REQUIREMENT", help="package to install for the job")] = None,
    emit: Annotated[
        Emit | None, typer.Option(help="print a KubeRay manifest or a Slurm script instead of submitting")
    ] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: the image; default rayproject/ray of our version")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="kuberay, slurm: nodes that run trials; default 1")] = None,
    trials_per_node: Annotated[
        int | None, typer.Option(min=1, help="kuberay, slurm: trials at a time; default: as many as share a GPU, or 1")
    ] = None,
    max_trials: MaxTrials = None,
    as_json: AsJson = False,
) -> None:
    """Run a space as a job of a Ray cluster.

    Runs the trials that OUT does not have yet, and follows the job; exit code as for launch.
    """
    if emit is None:
        use_ray_token()  # planning may import ray
    request = Request(
        space=space,
        out=out,
        data=data,
        store=store,
        working_dir=working_dir,
        env=_read_variables(env),
        pip=tuple(pip or ()),
        max_trials=max_trials,
        sends_folder=emit is None,
    )
    submission, notes = _plan_submission(request)
    facts = {"space": submission.plan.space.name, "n_trials": len(submission.plan.trials), "out": submission.out}
    facts |= {"notes": notes}
    if emit is Emit.kuberay:
        from orca_sweep.sweep import kuberay

        text = kuberay.write_manifest(submission, image, nodes or 1, trials_per_node)
        _print_emitted(emit, text, facts if as_json else None)
    elif image is not None:
        raise InputError(f"--image {image}: only kuberay uses an image. Leave it out, or add --emit kuberay.")
    elif emit is Emit.slurm:
        from orca_sweep.sweep import slurm

        _print_emitted(emit, slurm.write_script(submission, nodes or 1, trials_per_node), facts if as_json else None)
    elif nodes or trials_per_node:
        raise InputError("submit: --nodes and --trials-per-node are for --emit; a running cluster has its own nodes.")
    elif address is None:
        raise InputError("submit: no cluster given. Give --address http://HOST:8265, or --emit kuberay or slurm.")
    else:
        _submit_job(submission, address, follow, facts, as_json=as_json)


def _print_emitted(emit: Emit, text: str, facts: dict[str, Any] | None) -> None:
    """Prints a manifest or script; as JSON if the facts of the submission are given."""
    if facts is None:
        print(text, end="")
    else:
        print_document("submit", {**facts, "emit": emit, "text": text})


def _submit_job(submission: "Submission", address: str, follow: bool, facts: dict[str, Any], *, as_json: bool) -> None:
    cluster = open_cluster(address)
    for note in facts["notes"]:
        print_wrapped(f"note: {note}")
    job_id = cluster.submit(submission, _list_unsent_folders(submission.folder, Path(submission.out)))
    print_wrapped(f"submitted {job_id}: {len(submission.plan.trials)} trials, results in {submission.out}")
    print_job_commands(job_id, cluster.address)

    def print_end(job: Mapping[str, Any]) -> None:
        print_document("submit", {**facts, **job})

    if follow:
        follow_job(cluster, job_id, print_end if as_json else None)
    elif as_json:
        print_end(describe_job(cluster.read_job(job_id)))


def _plan_submission(request: Request) -> tuple["Submission", list[str]]:
    """Returns what to submit, planned as the job plans it: in the folder that is sent; and notes to print.

    Raises:
        InputError: with every mistake.
    """
    from orca_sweep.space import MAX_TRIALS
    from orca_sweep.space.bundled import find_space
    from orca_sweep.sweep.jobs import Submission, find_missing_uploads

    path = real_path(find_space(request.space))
    folder = real_path(request.working_dir or path.parent)
    problems: list[str | Problem] = [*_find_relative_paths(request)]
    notes: list[str] = []
    if not folder.is_dir():
        raise InputError([*problems, f"--working-dir {folder}: no such folder."])
    from orca_sweep.api.planning import make_plan

    try:
        with contextlib.chdir(folder):
            plan = make_plan(path, request.max_trials)
            if request.sends_folder:
                missing, notes = find_missing_uploads(plan.space, folder)
                problems += missing
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems += _find_missing_data(plan, request.data)
    if problems or request.out is None:
        raise InputError(problems)
    submission = Submission(
        plan=plan,
        folder=folder,
        out=str(request.out),
        data=None if request.data is None else str(request.data),
        store=request.store,
        env=request.env,
        pip=request.pip,
        max_trials=request.max_trials or MAX_TRIALS,
    )
    return submission, notes


def _find_relative_paths(request: Request) -> list[str]:
    out, data, store = request.out, request.data, request.store
    rule = "A job runs in a temporary folder of the head: give an absolute path that all nodes see, such as"
    problems = []
    if out is None or not out.is_absolute():
        problem = "submit: no --out" if out is None else f"--out {out}: not absolute"
        problems.append(f"{problem}. {rule} /shared/results/NAME.")
    if data is not None and not data.is_absolute():
        problems.append(f"--data {data}: not absolute. {rule} /shared/data.")
    if store is not None and "://" not in store and not Path(store).is_absolute():
        problems.append(f"--store {store}: not absolute. {rule} /shared/store, or a URL.")
    return problems


def _find_missing_data(plan: "Plan", data: Path | None) -> list[str]:
    """Returns a problem if a task needs files and --data is not given: the job would look in its temporary folder."""
    from orca_sweep.trial import resolve_configs

    names = list(dict.fromkeys(trial.config.task for trial in resolve_configs(plan.cells) if trial.task.files))
    if data is not None or not names:
        return []
    return [f"task {names[0]!r} needs files. Give with --data the folder in which the nodes have or convert them."]


def _read_variables(env: list[str] | None) -> dict[str, str]:
    """Returns the variables of ``--env NAME=VALUE``."""
    items = env or []
    wrong = [item for item in items if not VARIABLE.fullmatch(item)]
    if wrong:
        raise InputError([f"--env {item}: not NAME=VALUE. Write it like --env HF_HUB_OFFLINE=1." for item in wrong])
    wrong = [item for item in items if any("\ud800" <= character <= "\udfff" for character in item)]
    if wrong:
        raise InputError([f"--env {item}: not UTF-8, as manifests and jobs are. Write it in UTF-8." for item in wrong])
    return dict(item.split("=", 1) for item in items)


def _list_unsent_folders(folder: Path, out: Path) -> list[str]:
    """Returns, as patterns of a .gitignore, the sweep folders inside the folder that is sent: a job needs no results."""
    sweeps = [file.parent for file in folder.glob("results/*/sweep.json")]
    inside = [out] if out.is_relative_to(folder) else []
    names = {str(path.relative_to(folder)) for path in [*sweeps, *inside]}
    # These characters have a meaning in a pattern.
    return sorted("/" + re.sub(r"([\\*?\[\]])", r"\\\1", name) + "/" for name in names)
