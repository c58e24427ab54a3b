"""Runs a plan on Ray Tune: each trial is one Tune trial.

Our records decide what is done, never Tune's experiment state: a launch runs every trial without a record,
so it does not matter how an earlier launch ended. Written against Ray 2.60 (``ray.tune.Tuner`` with
``ray.tune.report``; ``ray.train.report`` is an error inside Tune there).
"""

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray import tune
from ray.tune import ProgressReporter

from orca_sweep.config import TrialConfig, digest
from orca_sweep.errors import (
    DamagedError,
    InputError,
    Problem,
    RayLostError,
    StorageError,
    first_line,
    refuse_argument,
)
from orca_sweep.planning.agenda import Agenda, AgendaHooks
from orca_sweep.results import (
    FINAL_STATUSES,
    UNFINISHED,
    find_earlier_levels,
    find_earlier_trials,
    read_record,
    read_row,
)
from orca_sweep.space import Plan, PlannedTrial
from orca_sweep.space.manifest import SweepManifest, append_planned, make_manifest, write_manifest
from orca_sweep.space.prefixes import first_work, shared_prefixes, without_schedule
from orca_sweep.space.suites import LOCK
from orca_sweep.store import Store
from orca_sweep.sweep.checks import (
    RUNNING,
    check_address,
    check_dashboard_host,
    check_folder,
    check_nodes,
    check_resources,
    check_store,
    has_dashboard,
    make_bundle,
)
from orca_sweep.sweep.loggers import make_callbacks
from orca_sweep.sweep.private import hide_token_advice, keep_token_private, listen_on_loopback, make_private_folder
from orca_sweep.sweep.queue import GroupedPruning, Queue, Watch
from orca_sweep.sweep.trainable import Prefixes, make_trainable
from orca_sweep.sweep.watching import Watch as RayWatch
from orca_sweep.sweep.watching import forget_placements, is_ray_here, leave_ray, watch_ray
from orca_sweep.trial import (
    Records,
    StageNames,
    make_config,
    resolve_configs,
    unavailable_loggers,
    unavailable_parts,
)

WORKER_DEATHS = 2
"""How often a trial starts again after its worker or node died, before it counts as lost."""
CONTINUE = "Ended trials are kept; launch again, and the rest continues from its last saved epoch."
Rescue = Callable[["Outcome"], None]
"""Ends the process from another thread, given how the launch ended."""
SNAPSHOT_S = "3600"
"""Time between Tune's snapshots: its state is never restored, and writing it takes seconds with thousands of trials."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where a sweep runs and writes; all paths are absolute."""

    out: Path
    store: str
    data_root: Path
    address: str
    """'local' to start a local Ray, 'running' for the Ray of this process, or the address of a cluster to join."""
    dashboard_host: str | None = None
    """Where the local Ray's dashboard listens; whoever reaches it with Ray's token can run code as this user. None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a launch ended."""

    n_planned: int
    n_run: int
    statuses: Mapping[str, int]
    """How many planned trials have each status; ``unfinished`` trials have no record."""
    wall_time_s: float
    notes: tuple[str, ...] = ()
    """Why planned trials did not run."""
    ray_is_lost: bool = False
    """Then the process must not wait for Ray when it ends: it would wait for ever."""
    was_interrupted: bool = False
    """Whether a person or the system ended it early."""

    @property
    def n_left(self) -> int:
        """How many trials another launch would run."""
        return sum(n for status, n in self.statuses.items() if status not in FINAL_STATUSES)

    @property
    def exit_code(self) -> int:
        """0 if every planned trial ended well (a pruned one does), else 1."""
        n_good = self.statuses.get("ok", 0) + self.statuses.get("pruned", 0)
        return 0 if n_good == self.n_planned and not self.notes else 1


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """One call of ``launch``."""

    plan: Plan
    setup: Setup
    watch: Watch
    rescue: Rescue | None
    start_s: float


def launch(plan: Plan, setup: Setup, watch: Watch, rescue: Rescue | None = None) -> Outcome:
    """Runs the trials of the plan that the sweep folder lacks, and returns how the launch ended.

    If Ray is gone while this thread waits inside it, ``rescue`` gets the outcome in another thread, and must end the
    process.

    Before it writes anything, it checks everything that can be known in advance: the folder, the data and packages,
    whether any node can ever hold a trial, and whether all nodes see the folder.

    Raises:
        InputError: with every reason against the launch.
        RayLostError: if Ray does not start or ends.
        StorageError: if the system refuses to write a record.
    """
    check_launch(plan, setup)
    started = _Launch(plan=plan, setup=setup, watch=watch, rescue=rescue, start_s=time.perf_counter())
    with join_ray(setup.address, setup.dashboard_host) as (dashboard, guard):
        check_resources(plan.space.resources)
        try:
            setup.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"cannot make this folder ({error.strerror})."
            raise refuse_argument("out", setup.out, rule, "Choose another folder.") from None
        try:
            # A second of patience: `status` looks at the lock by taking it.
            with FileLock(setup.out / LOCK, timeout=1):
                if not _runs_here(setup.address):
                    check_nodes(plan, setup.out, setup.store, setup.data_root)
                return _run_plan(started, dashboard, guard)
        except Timeout:
            remedy = "Wait for it, or choose another folder."
            raise refuse_argument("out", setup.out, "another launch is writing here.", remedy) from None


def check_launch(plan: Plan, setup: Setup) -> None:
    """Checks what can be checked without Ray; raises InputError with every reason against the launch."""
    check_folder(plan, setup.out)
    check_store(setup.store, setup.out)
    if setup.dashboard_host is not None:
        check_dashboard_host(setup.dashboard_host)
    problems: list[str | Problem] = [*unavailable_loggers(logger.name for logger in plan.space.loggers)]
    if _runs_here(setup.address):
        problems += unavailable_parts(resolve_configs(plan.cells), setup.data_root)
    if problems:
        raise InputError(problems)


def _runs_here(address: str) -> bool:
    """Says whether all trials run on this machine, so that what they need can be checked here."""
    return address == "local" or (address == RUNNING and is_ray_here())


def _run_plan(started: _Launch, dashboard: str | None, guard: RayWatch) -> Outcome:
    plan, setup, watch, rescue = started.plan, started.setup, started.watch, started.rescue
    _report_damage(plan, setup.out, watch)
    write_manifest(setup.out, make_manifest_beside_earlier(plan, setup))
    Store(setup.store).make_root()
    prefixes = shared_prefixes(plan.trials)
    agenda = _make_agenda(plan, setup, watch, prefixes)
    n_done = len(agenda.known) - agenda.n_left
    n_later = max(0, len(plan.trials) + plan.n_later - len(agenda.known))
    watch("start", {"dashboard": dashboard, "n_todo": agenda.n_left, "n_done": n_done, "n_later": n_later})
    if rescue is not None:
        guard.rescue = lambda lost: rescue(_summarise(agenda, started, lost))
    if not agenda.is_over:
        run_agenda(agenda, plan=plan, setup=setup, watch=watch, work=make_trainable(plan, setup, prefixes))
    guard.end()  # the rest needs no Ray
    return _summarise(agenda, started, guard.lost)


def _report_damage(plan: Plan, out: Path, watch: Watch) -> None:
    """Reports each damaged record, whose trial runs again.

    Raises:
        InputError: if a record's path is not a file that may be replaced.
    """
    damaged = []
    for trial_id in dict.fromkeys(trial.trial_id for trial in plan.trials):
        try:
            read_record(out, trial_id)
        except DamagedError as error:
            damaged.append(error)
    in_the_way = [error for error in damaged if error.path.exists() and not error.path.is_file()]
    if in_the_way:
        raise InputError([f"{error.path}: {error.why}. Move it away, then launch again." for error in in_the_way])
    if damaged:
        watch("damaged", {"problems": [f"{error.path}: {error.why}. The trial runs again." for error in damaged]})


def _make_agenda(plan: Plan, setup: Setup, watch: Watch, prefixes: Prefixes) -> Agenda:
    def record_planned(trials: Sequence[PlannedTrial]) -> None:
        append_planned(setup.out, (trial.entry() for trial in trials))
        watch("planned", {"n_new": len(trials)})

    name_stages, records = StageNames(), Records()

    def name_shared_work(config: TrialConfig) -> dict[str, str]:
        names = name_stages(records.resolve_config(config))
        if config.trial_id not in prefixes:
            return names
        # Trials with the same start of fine-tuning and the same work in their first phase share their first epochs.
        start = [without_schedule(config).flat(), first_work(config)]
        return {**names, "finetune-prefix": digest("finetune-prefix", start)}

    hooks = AgendaHooks(
        read_row=partial(read_row, setup.out),
        resolve=partial(make_config, records=records),
        name_shared=name_shared_work,
        is_held=Store(setup.store).is_held,
        report_planned=record_planned,
    )
    return Agenda(plan, hooks)


def make_manifest_beside_earlier(plan: Plan, setup: Setup) -> SweepManifest:
    """Returns the manifest with the folder's trials of earlier file contents, and the labels of their cells."""
    earlier, manifest = find_earlier_trials(setup.out, plan), make_manifest(plan, setup.data_root, setup.store)
    labels = {**find_earlier_levels(setup.out, earlier), **manifest.labels}
    return manifest.model_copy(update={"labels": labels, "earlier": tuple(earlier)})


# Running ------------------------------------------------------------------------------------------


@contextmanager
def join_ray(address: str, dashboard_host: str | None = None) -> Iterator[tuple[str | None, RayWatch]]:
    """Joins or starts Ray for a block; yields the dashboard's address, if there is one, and the watch over Ray.

    A Ray that already runs in this process is used as it is, and runs on afterwards.

    Raises:
        InputError: if Ray cannot be joined.
        RayLostError: if Ray does not start, or is gone before the block ends.
    """
    check_address(address)
    with ExitStack() as stack:
        for name, value in {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_GLOBAL_CHECKPOINT_S": SNAPSHOT_S}.items():
            stack.enter_context(_set_default(name, value))
        stack.enter_context(_silence_tune())
        if address == "local":
            keep_token_private()
            hide_token_advice()
            stack.enter_context(listen_on_loopback())
        yield stack.enter_context(_run_ray(address, dashboard_host))


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
def _run_ray(address: str, dashboard_host: str | None) -> Iterator[tuple[str | None, RayWatch]]:
    dashboard = None if address == RUNNING else _start_ray(address, dashboard_host).dashboard_url
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


def _start_ray(address: str, dashboard_host: str | None) -> Any:
    """Joins a cluster, or starts a local Ray; tries that twice, since a busy machine may be too slow at first."""
    start = partial(
        ray.init,
        address=address,
        log_to_driver=False,
        logging_level=logging.WARNING,
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


def run_agenda(
    agenda: Agenda, *, plan: Plan, setup: Setup, watch: Watch, work: Callable[[dict[str, Any]], None]
) -> int:
    """Runs the agenda on Tune, with ``work`` for each trial in a worker, and returns how many trials started.

    Raises:
        StorageError: if a record could not be written.
    """
    need = make_bundle(plan.space.resources)
    queue = Queue(agenda, setup.out, watch, WORKER_DEATHS + 1)
    tuner = tune.Tuner(
        tune.with_resources(work, tune.PlacementGroupFactory([need])),
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            num_samples=-1,
            search_alg=queue,
            scheduler=GroupedPruning(plan.space.prune) if plan.space.prune else None,
            trial_name_creator=_name_attempt,
            trial_dirname_creator=_name_attempt,
        ),
        run_config=tune.RunConfig(
            # Two sweeps on one cluster must not share a name: Tune collects files under it before it moves them here.
            name=f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}",
            storage_path=str(setup.out / "ray"),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            callbacks=make_callbacks(plan.space, setup.out),
            progress_reporter=_SilentReporter(),
            verbose=0,
        ),
    )
    with (
        _set_default("TUNE_MAX_PENDING_TRIALS_PG", str(_count_slots(need))),
        _set_default("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        _keep_signal_handlers(),
        suppress(KeyboardInterrupt),  # ended trials are reported as usual, and the rest is unfinished
    ):
        tuner.fit()
    if queue.unwritten is not None:
        raise StorageError(queue.unwritten)
    return sum(n > 0 for n in agenda.attempts.values())


class _SilentReporter(ProgressReporter):
    """Reports nothing. In a notebook, Tune's own reporter clears the output of the cell, whatever ``verbose`` is."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        """Returns False."""
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        """Does nothing."""


@contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Puts back the handlers that Tune leaves behind: they would swallow the next Ctrl-C of this process."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _set_default(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable during a block, unless the user has set it."""
    is_set = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not is_set:
            del os.environ[name]


def _count_slots(need: Mapping[str, float]) -> int:
    """Returns how many trials the cluster holds at once, at least one.

    Tune may have that many pending trials; the rest stay in the agenda until they can really run.
    """
    available = ray.cluster_resources()
    return max(1, min(int(available.get(name, 0) / amount) for name, amount in need.items()))


def _name_attempt(trial: Any) -> str:
    planned = trial.config["trial"]
    return str(planned["trial_id"]) if planned["attempt"] == 1 else f"{planned['trial_id']}-{planned['attempt']}"


def _summarise(agenda: Agenda, started: _Launch, lost: str | None) -> Outcome:
    statuses: dict[str, int] = {}
    for trial_id in agenda.known:
        row = read_row(started.setup.out, trial_id)
        status = row["status"] if row else UNFINISHED
        statuses[status] = statuses.get(status, 0) + 1
    notes = [f"{agenda.spent}: {statuses[UNFINISHED]} trials were not run."] if agenda.spent and agenda.queue else []
    notes += [
        f"cell {cell_id}: none of its candidates is ok, so it has no replicates." for cell_id in agenda.unreplicated
    ]
    notes += [f"{lost}. {CONTINUE}"] if lost else []
    return Outcome(
        n_planned=len(agenda.known),
        n_run=sum(n > 0 for n in agenda.attempts.values()),
        statuses=statuses,
        wall_time_s=time.perf_counter() - started.start_s,
        notes=tuple(notes),
        ray_is_lost=lost is not None,
        was_interrupted=lost is None and not agenda.is_over,
    )
