"""Launches sweeps on Ray Tune: each trial is one Tune trial.

Our records decide what is done, never Tune's experiment state: a launch runs every trial without a record,
so it does not matter how an earlier launch ended. Written against Ray 2.60 (``ray.tune.Tuner`` with
``ray.tune.report``; ``ray.train.report`` is an error inside Tune there).
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from orca_sweep.errors import DamagedError, InputError, Problem, RayLostError, first_line, refuse_argument
from orca_sweep.results import find_earlier_levels, find_earlier_trials, read_record
from orca_sweep.space import Plan
from orca_sweep.space.manifest import SweepManifest, make_manifest, write_manifest
from orca_sweep.space.suites import LOCK
from orca_sweep.store import Store
from orca_sweep.store.locks import lock_folder
from orca_sweep.sweep.checks import (
    RUNNING,
    check_address,
    check_dashboard_host,
    check_folder,
    check_nodes,
    check_resources,
    check_store,
    has_dashboard,
)
from orca_sweep.sweep.keeper import keep_home
from orca_sweep.sweep.lanes import CONTINUE, Lane, Member, Outcome, Setup, Watch, make_lanes
from orca_sweep.sweep.loggers import list_problems
from orca_sweep.sweep.private import hide_token_advice, keep_token_private, listen_on_loopback, make_private_folder
from orca_sweep.sweep.trainable import make_trainable
from orca_sweep.sweep.tuner import run_lanes, set_default
from orca_sweep.sweep.watching import Watch as RayWatch
from orca_sweep.sweep.watching import forget_placements, is_ray_here, leave_ray, watch_ray
from orca_sweep.trial import resolve_configs, unavailable_loggers, unavailable_parts

Rescue = Callable[[tuple[Outcome, ...]], None]
"""Ends the process from another thread, given how the launch ended for each member."""
SNAPSHOT_S = "3600"
"""Time between Tune's snapshots: its state is never restored, and writing it takes seconds with thousands of trials."""


def launch(plan: Plan, setup: Setup, watch: Watch, rescue: Callable[[Outcome], None] | None = None) -> Outcome:
    """Runs one sweep as ``launch_members`` does, and returns how the launch ended."""
    rescue_members = None if rescue is None else lambda outcomes: rescue(outcomes[0])
    (outcome,) = launch_members([Member(plan=plan, setup=setup, watch=watch)], rescue_members)
    return outcome


def launch_members(members: Sequence[Member], rescue: Rescue | None = None) -> tuple[Outcome, ...]:
    """Runs the trials that the members' sweep folders lack in one Ray, and returns how the launch ended for each member.

    Trials of a later member start where earlier members leave places idle. Equal trials of several members run once: the
    others take the record. If Ray is gone while this thread waits inside it, ``rescue`` gets the outcomes in another thread,
    and must end the process.

    Before it writes anything, it checks everything that can be known in advance: the folders, the data and packages,
    whether any node can ever hold a trial, and which nodes see the folders.

    Args:
        members: what runs, in order. They share address, store and dashboard's host.
        rescue: ends the process.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray does not start or ends.
        StorageError: if the system refuses to write a record.
        ValueError: if there is no member, or the members do not share what they must.
    """
    start_s, setup = time.perf_counter(), _get_common_setup(members)
    _collect_problems(members, _check_member)
    with join_ray(setup.address, setup.dashboard_host, _describe_job(members)) as (dashboard, guard):
        _collect_problems(members, lambda member: check_resources(member.plan.space.resources))
        with _hold_folders(members):
            is_cluster, away = not _runs_here(setup.address), _AwayNodes()
            if is_cluster:
                _collect_problems(members, away.check_member)
            lanes = _prepare_lanes(members)
            _report_start(lanes, dashboard, away)
            if rescue is not None:
                guard.rescue = lambda lost: rescue(tuple(lane.summarise(start_s, lost) for lane in lanes))
            if not all(lane.agenda.is_over for lane in lanes):
                outs = [lane.out for lane in lanes]
                with keep_home(outs, setup.store) if is_cluster else nullcontext() as home:
                    run_lanes(lanes, make_trainable(lanes, home))
            guard.end()  # the rest needs no Ray
            return tuple(lane.summarise(start_s, guard.lost) for lane in lanes)


def _describe_job(members: Sequence[Member]) -> dict[str, str]:
    """Returns what Ray's list of jobs says of a launch."""
    n_trials = sum(len(member.plan.trials) for member in members)
    names, folders = (", ".join(texts) for texts in ((m.name for m in members), (str(m.setup.out) for m in members)))
    return {"orca-sweep": names, "folders": folders, "planned trials": str(n_trials)}


# Checks -------------------------------------------------------------------------------------------


def _get_common_setup(members: Sequence[Member]) -> Setup:
    """Returns a setup with the address, store and dashboard's host of all members.

    Raises:
        InputError: if the members have equal names, or sweep folders inside each other.
        ValueError: if there is no member, or the members do not share what they must.
    """
    shared = {(member.setup.address, member.setup.store, member.setup.dashboard_host) for member in members}
    if len(shared) != 1:
        raise ValueError(
            f"members: {len(members)} members with {len(shared)} pairs of Ray and store; there must be one"
        )
    problems = []
    for a, b in combinations(members, 2):
        if a.name == b.name:
            problems.append(Problem(rule=f"two of the spaces are named {a.name!r}.", remedy="Give each its own name."))
        if a.setup.out.is_relative_to(b.setup.out) or b.setup.out.is_relative_to(a.setup.out):
            rule = f"the sweep folders of {a.name!r} ({a.setup.out}) and {b.name!r} ({b.setup.out}) are not apart."
            problems.append(Problem(rule=rule, remedy="Give each space a folder of its own."))
    if problems:
        raise InputError(problems)
    return members[0].setup


def _collect_problems(members: Sequence[Member], check: Callable[[Member], None]) -> None:
    """Checks each member, and reports all problems at once; with several members, each problem with its space."""
    problems: list[Problem] = []
    for member in members:
        try:
            check(member)
        except InputError as error:
            if len(members) == 1:
                raise
            problems += [problem.at("", f"space {member.name}") for problem in error.problems]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))


def _check_member(member: Member) -> None:
    """Checks what can be checked without Ray."""
    plan, setup = member.plan, member.setup
    check_folder(plan, setup.out)
    check_store(setup.store, setup.out)
    if setup.dashboard_host is not None:
        check_dashboard_host(setup.dashboard_host)
    problems = [*unavailable_loggers(logger.name for logger in plan.space.loggers), *list_problems(plan.space)]
    if _runs_here(setup.address):
        problems += unavailable_parts(resolve_configs(plan.cells), setup.data_root)
    if problems:
        raise InputError(problems)


class _AwayNodes:
    """The nodes that do not see the sweep folder of each member, by the member's name."""

    def __init__(self) -> None:
        self.names: dict[str, frozenset[str]] = {}

    def check_member(self, member: Member) -> None:
        """Checks all nodes for a member's trials.

        Raises:
            InputError: with what each node lacks.
        """
        setup = member.setup
        self.names[member.name] = check_nodes(member.plan, setup.out, setup.store, setup.data_root)


def _runs_here(address: str) -> bool:
    """Says whether all trials run on this machine, so that what they need can be checked here."""
    return address == "local" or (address == RUNNING and is_ray_here())


@contextmanager
def _hold_folders(members: Sequence[Member]) -> Iterator[None]:
    """Makes the sweep folders and holds their locks during a block.

    Raises:
        InputError: with each folder that cannot be made, or that another launch holds.
    """
    with ExitStack() as stack:
        _collect_problems(members, lambda member: _hold_folder(member.setup.out, stack))
        yield


def _hold_folder(out: Path, stack: ExitStack) -> None:
    stack.callback(lock_folder(out, LOCK, "another launch").release)


# Preparing ----------------------------------------------------------------------------------------


def _prepare_lanes(members: Sequence[Member]) -> tuple[Lane, ...]:
    """Writes the plans into the sweep folders, and returns the lanes.

    Raises:
        InputError: if a record's path is not a file that may be replaced.
        StorageError: if a file cannot be written.
    """
    _collect_problems(members, _report_damage)
    for member in members:
        write_manifest(member.setup.out, make_manifest_beside_earlier(member.plan, member.setup))
    Store(members[0].setup.store).make_root()
    return make_lanes(members)


def _report_damage(member: Member) -> None:
    """Reports each damaged record, whose trial runs again.

    Raises:
        InputError: if a record's path is not a file that may be replaced.
    """
    damaged = []
    for trial_id in dict.fromkeys(trial.trial_id for trial in member.plan.trials):
        try:
            read_record(member.setup.out, trial_id)
        except DamagedError as error:
            damaged.append(error)
    in_the_way = [error for error in damaged if error.path.exists() and not error.path.is_file()]
    if in_the_way:
        raise InputError([f"{error.path}: {error.why}. Move it away, then launch again." for error in in_the_way])
    if damaged:
        problems = [f"{error.path}: {error.why}. The trial runs again." for error in damaged]
        member.watch("damaged", {"problems": problems})


def _report_start(lanes: Sequence[Lane], dashboard: str | None, away: _AwayNodes) -> None:
    """Reports what there is to run in each lane. Trials and nodes of earlier lanes are not told again."""
    counted: set[str] = set()
    named: frozenset[str] = frozenset()
    for lane in lanes:
        names = away.names.get(lane.member.name, frozenset())
        lane.report_start(dashboard, counted, names - named)
        counted |= lane.agenda.queue.keys()
        named |= names


def make_manifest_beside_earlier(plan: Plan, setup: Setup) -> SweepManifest:
    """Returns the manifest with the folder's trials of earlier file contents, and the labels of their cells."""
    earlier, manifest = find_earlier_trials(setup.out, plan), make_manifest(plan, setup.data_root, setup.store)
    labels = {**find_earlier_levels(setup.out, earlier), **manifest.labels}
    return manifest.model_copy(update={"labels": labels, "earlier": tuple(earlier)})


# Running ------------------------------------------------------------------------------------------


@contextmanager
def join_ray(
    address: str, dashboard_host: str | None = None, metadata: Mapping[str, str] | None = None
) -> Iterator[tuple[str | None, RayWatch]]:
    """Joins or starts Ray for a block; yields the dashboard's address, if there is one, and the watch over Ray.

    A Ray that already runs in this process is used as it is, and runs on afterwards.

    Args:
        address: where Ray runs, as in `Setup`.
        dashboard_host: where the dashboard of a local Ray listens.
        metadata: what Ray's list of jobs says of this one.

    Raises:
        InputError: if Ray cannot be joined.
        RayLostError: if Ray does not start, or is gone before the block ends.
    """
    check_address(address)
    with ExitStack() as stack:
        for name, value in {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_GLOBAL_CHECKPOINT_S": SNAPSHOT_S}.items():
            stack.enter_context(set_default(name, value))
        stack.enter_context(_silence_tune())
        if address == "local":
            keep_token_private()
            hide_token_advice()
            stack.enter_context(listen_on_loopback())
        yield stack.enter_context(_run_ray(address, dashboard_host, metadata))


@contextmanager
def _silence_tune() -> Iterator[None]:
    """Silences Tune for a block: the sweep itself reports dead workers and full disks; Tune would print stack traces."""
    loggers = [logging.getLogger(f"ray.tune.execution.{name}") for name in ("tune_controller", "experiment_state")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _run_ray(
    address: str, dashboard_host: str | None, metadata: Mapping[str, str] | None
) -> Iterator[tuple[str | None, RayWatch]]:
    dashboard = None if address == RUNNING else _start_ray(address, dashboard_host, metadata).dashboard_url
    with interrupt_on_signals(), watch_ray(_runs_here(address)) as guard:
        try:
            yield dashboard or None, guard
        except KeyboardInterrupt:
            if guard.lost is None:
                raise
            raise RayLostError(f"{guard.lost}. {CONTINUE}") from None
        finally:
            guard.end()
            if guard.lost is not None:
                forget_placements()
            if address != RUNNING:
                leave_ray(guard)


def _start_ray(address: str, dashboard_host: str | None, metadata: Mapping[str, str] | None) -> Any:
    """Joins a cluster, or starts a local Ray; tries that twice, since a busy machine may be too slow at first."""
    start = partial(
        ray.init,
        address=address,
        log_to_driver=False,
        logging_level=logging.WARNING,
        job_config=JobConfig(metadata=dict(metadata or {})),
        **_list_local_options(address, dashboard_host),
    )
    if address != "local":
        return _join_cluster(address, start)
    try:
        return start()
    except Exception as error:
        logging.getLogger("orca_sweep").warning("the local Ray did not start (%s); trying once more", first_line(error))
        ray.shutdown()
    try:
        return start()
    except Exception as error:
        raise RayLostError(
            f"the local Ray did not start, twice ({first_line(error)}). Its logs are in {find_ray_logs()}. Free memory, CPU or"
            " disk space there, or give the address of a cluster; then launch again."
        ) from error


def _join_cluster(address: str, start: Callable[[], Any]) -> Any:
    try:
        return start()
    except ConnectionError as error:
        remedy = "Give its address, and its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        raise refuse_argument("address", address, f"no Ray cluster accepts us there ({error}).", remedy) from None
    except RuntimeError as error:  # for example of another version of Ray or Python
        raise refuse_argument("address", address, f"Ray cannot join this cluster: {error}") from None


def find_ray_logs() -> str:
    """Returns the folder in which a local Ray writes its logs."""
    return f"{make_private_folder()}/session_latest/logs"


def _list_local_options(address: str, host: str | None) -> dict[str, Any]:
    """Returns the options of a local Ray; none for a cluster."""
    if address != "local":
        return {}
    options: dict[str, Any] = {"_temp_dir": str(make_private_folder())}
    if host is None or not has_dashboard():
        return {**options, "include_dashboard": False}
    return {**options, "include_dashboard": None, "dashboard_host": host}


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt during a block.

    Slurm and Kubernetes end a job with SIGTERM; a closed terminal sends SIGHUP. Ray would exit at once, without tables
    and a message. An ignored SIGHUP, as under nohup, stays ignored. Tune's graceful end, which Ctrl-C starts, asks Ray's
    other processes; a job scheduler ends those too, and Tune would wait for them for a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
