"""Running a plan in this process, for a launch from Python and from the command line."""

import os
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.api.finishing import finish_sweep
from orca_sweep.api.paths import read_text, real_path
from orca_sweep.api.progress import GuardedWatch, Progress, Say, choose_watch
from orca_sweep.errors import InputError, RayLostError, refuse_argument

if TYPE_CHECKING:
    from orca_sweep.space import Plan
    from orca_sweep.sweep import Outcome, Setup
    from orca_sweep.tasks import Task

LOOPBACK = "127.0.0.1"
NO_DASHBOARD = "none"
RESUME = "To run the missing and failed trials:"
LAUNCHING = threading.Lock()
"""Held while a launch of this process runs: two would share one Ray, which the first would end."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a plan runs and writes, as its user says it."""

    folder: Path
    store: str
    data_root: Path
    address: str | None
    """None: the Ray that runs in this process, else ``RAY_ADDRESS`` if it is set, else a local Ray."""
    dashboard_host: str
    """'none' for no dashboard."""


def use_ray_token() -> None:
    """Makes Ray use the token that it would find here: in the environment, or in its own file.

    A cluster started with a token refuses clients that do not announce one; they must do so before ray is imported.

    Raises:
        InputError: if RAY_AUTH_TOKEN_PATH is not a readable file; Ray itself would abort.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not os.environ.get("RAY_AUTH_TOKEN"):
        from orca_sweep.record_files import read_regular_file

        try:
            has_token = bool((read_regular_file(Path(path)) or b"").decode().strip())
        except (OSError, UnicodeDecodeError):
            has_token = False
        if not has_token:
            raise InputError(f"RAY_AUTH_TOKEN_PATH {path}: not a file with a token. Correct the path, or unset it.")
    if path or os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def make_setup(destination: Destination) -> "Setup":
    """Returns where and on which Ray a plan runs; prepares Ray's token for a cluster.

    Raises:
        InputError: if the address or the dashboard's host cannot be right.
    """
    asked, host = destination.address, read_text(destination.dashboard_host, "dashboard_host")
    if asked is not None and not read_text(asked, "address").strip():
        raise refuse_argument("address", asked, "empty.", "Give HOST:PORT of a cluster's head, or leave it out.")
    address = asked or os.environ.get("RAY_ADDRESS", "").strip() or "local"
    if address != "local" and not is_ray_running():
        _check_dashboard(host, address)
        use_ray_token()

    from orca_sweep.sweep import Setup
    from orca_sweep.sweep.checks import choose_running_ray

    if is_ray_running():
        address = choose_running_ray(asked)
        _check_dashboard(host, "this process's Ray")
    return Setup(
        out=destination.folder,
        store=destination.store,
        data_root=destination.data_root,
        address=address,
        dashboard_host=None if host == NO_DASHBOARD else host,
    )


def _check_dashboard(host: str, cluster: str) -> None:
    if host not in (LOOPBACK, NO_DASHBOARD):
        raise refuse_argument("dashboard_host", host, f"{cluster} is a running cluster, which has its own dashboard.")


def is_ray_running() -> bool:
    """Says whether this process has started or joined a Ray; imports no Ray to find out."""
    import sys

    ray = sys.modules.get("ray")
    return bool(ray and hasattr(ray, "is_initialized") and ray.is_initialized())


def describe_launch(plan: "Plan", folder: Path) -> list[str]:
    """Returns what a launch says before it starts: changed files, and what proxies and inputs are."""
    from orca_sweep.results import describe_changes
    from orca_sweep.trial import describe_inputs, describe_proxies, resolve_configs

    cells = resolve_configs(plan.cells)
    return [*describe_changes(folder, plan), *describe_proxies(cells, plan.names), *describe_inputs(cells)]


def convert_tasks(plan: "Plan", root: Path, convert: "Callable[[Task, Path], object]") -> None:
    """Converts the files of tasks that can be converted here; the sweep itself reports what is missing."""
    from orca_sweep.tasks import explain_unavailable
    from orca_sweep.trial import resolve_configs

    tasks = {trial.config.task: trial.task for trial in resolve_configs(plan.cells)}
    for task in tasks.values():
        if task.convert is not None and not explain_unavailable(task, root):
            convert(task, root)


def convert_files(task: "Task", root: Path) -> None:
    """Converts the files of a task, unless that has been done."""
    from orca_sweep.data import load_or_convert

    if task.convert is not None:
        load_or_convert(task.convert, root, task.files)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A plan, and where it runs and writes."""

    plan: "Plan"
    destination: Destination


def read_resumed(sweep: Path, address: str | None, dashboard_host: str) -> Run:
    """Returns the plan that a sweep folder was launched with, with its data and store, after importing what it names.

    Args:
        sweep: the sweep folder.
        address: as of a `Destination`, as is ``dashboard_host``.
        dashboard_host: where a local Ray's dashboard listens.

    Raises:
        InputError: if the folder holds no sweep of this version, or a file of its data or code has changed.
    """
    from orca_sweep.space.manifest import MANIFEST, rebuild_plan, require_manifest
    from orca_sweep.trial import check_contents, load_imports

    folder, manifest = real_path(sweep), require_manifest(sweep)
    plan = rebuild_plan(manifest, folder / MANIFEST)
    load_imports(plan.space.imports)
    check_contents(plan)
    destination = Destination(
        folder=folder,
        store=_find_moved_store(manifest.store, folder),
        data_root=Path(manifest.data),
        address=address,
        dashboard_host=dashboard_host,
    )
    return Run(plan=plan, destination=destination)


def _find_moved_store(store: str, folder: Path) -> str:
    """Returns the store of a sweep; one that is gone may have moved with the folder of the sweep or of its suite."""
    from orca_sweep.space.suites import STORE
    from orca_sweep.store import Store

    if "://" in store or os.path.lexists(store):
        return store
    beside = (str(parent / STORE) for parent in (folder, folder.parent))
    return next((path for path in beside if Store(path).is_marked()), store)


# From Python --------------------------------------------------------------------------------------


def run_plan(plan: "Plan", destination: Destination, progress: Progress) -> None:
    """Runs the trials that a sweep folder lacks, then makes its tables and figures.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray is gone. Tables and figures are made of what has ended.
        StorageError: if the system refuses to write.
        KeyboardInterrupt: if the launch was interrupted. Tables and figures are made of what has ended.
        Exception: that of a function given as ``progress``, once the launch has ended.
    """
    with hold_launch():
        setup, (watch, say) = make_setup(destination), choose_watch(progress, plan)
        for line in describe_launch(plan, destination.folder):
            say(line)
        convert_tasks(plan, destination.data_root, convert_files)
        say(f"{plan.space.name}: starting in {destination.folder}")
        outcome = _launch_plan(plan, setup, watch)
        say_end(destination.folder, outcome, say)
    raise_end(outcome, watch)


def say_end(folder: Path, outcome: "Outcome", say: Say) -> None:
    """Makes the tables and figures after a launch from Python, and says how it ended."""
    finished = finish_sweep(folder)
    for line in (*write_outcome(outcome), *finished.notes):
        say(line)
    if outcome.n_left:
        say(f"{RESUME} {write_resumption(str(folder))}")


def raise_end(outcome: "Outcome", watch: object) -> None:
    """Raises what ended a launch early, or the error of the function that received its events.

    Raises:
        RayLostError: if Ray is gone.
        KeyboardInterrupt: if the launch was interrupted.
        Exception: that of the function.
    """
    if outcome.ray_is_lost:
        raise RayLostError(f"{outcome.notes[-1]}{_advise_restart()}")
    if outcome.was_interrupted:
        raise KeyboardInterrupt("the launch was interrupted. No ended trial is lost: launch again to continue.")
    if isinstance(watch, GuardedWatch) and watch.error is not None:
        raise watch.error


def _launch_plan(plan: "Plan", setup: "Setup", watch: Callable[[str, Mapping[str, Any]], None]) -> "Outcome":
    from orca_sweep.sweep import launch

    return launch(plan, setup, watch)


def _advise_restart() -> str:
    return (
        " Ray cannot start again in this process: restart it (in a notebook, the kernel) first."
        if is_ray_running()
        else ""
    )


@contextmanager
def hold_launch() -> Iterator[None]:
    """Refuses a second launch in this process while one runs."""
    if not LAUNCHING.acquire(blocking=False):
        raise InputError("launch: another launch runs in this process. Wait for it, or launch in another process.")
    try:
        yield
    finally:
        LAUNCHING.release()


def write_outcome(outcome: "Outcome") -> Iterator[str]:
    """Yields how a launch ended, in lines."""
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(outcome.statuses.items()))
    yield f"ran {outcome.n_run} of {outcome.n_planned} trials in {outcome.wall_time_s:.0f} s; all trials: {statuses}"
    yield from (f"note: {note}" for note in outcome.notes)


def write_resumption(folder: str) -> str:
    """Returns the command that runs the trials which a sweep folder lacks."""
    return f"orca-sweep resume {shlex.quote(folder)}"
