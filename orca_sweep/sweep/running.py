"""A plan on Ray Tune: each run is one Tune trial.

Our own records decide what is done, never Tune's experiment state: a launch runs what has no record,
so it does not matter how an earlier one ended. Written against Ray 2.60 (``ray.tune.Tuner`` with
``ray.tune.report``; ``ray.train.report`` is an error inside Tune there).
"""

import gc
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

from orca_sweep.config import TrialConfig, digest
from orca_sweep.errors import BusyError, DamagedError, InputError, Problem, RayLostError, StorageError, first_line
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
from orca_sweep.store import Store
from orca_sweep.sweep.checks import (
    bundle,
    check_address,
    check_dashboard_host,
    check_folder,
    check_nodes,
    check_resources,
    check_store,
    has_dashboard,
)
from orca_sweep.sweep.loggers import callbacks
from orca_sweep.sweep.private import keep_token_private, listening_on_loopback, private_folder
from orca_sweep.sweep.queue import DONE, PASSED, UNWRITTEN, WAITING, GroupedPruning, Queue, Watch
from orca_sweep.sweep.watching import Watch as RayWatch
from orca_sweep.sweep.watching import leave, watched
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.trial import (
    Records,
    StageNames,
    make_config,
    resolve_configs,
    unavailable_loggers,
    unavailable_parts,
)

WORKER_DEATHS = 2
"""How often a trial whose worker or node died is started again before it counts as lost."""
GO_ON = "What has ended is kept; launch again, and the rest goes on from its last saved epoch."
PATIENCE_S = 2.0
"""How long a trial waits for an artifact that another sweep makes before it gives its place up."""
Prefixes = Mapping[str, frozenset[int]]
SNAPSHOT_S = "3600"
"""Tune's own state is never restored, and writing it costs seconds with thousands of trials."""


@dataclass(frozen=True)
class Setup:
    """Where a sweep runs and writes; all paths absolute."""

    out: Path
    store: str
    data_root: Path
    address: str
    """'local' for a Ray of our own, or the address of a cluster to join."""
    dashboard_host: str | None = None
    """Where the dashboard of our own Ray listens; who reaches it with Ray's token can run code as us. None: nowhere."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    n_planned: int
    n_run: int
    statuses: Mapping[str, int]
    """Of all planned trials; ``unfinished`` have no record."""
    wall_time_s: float
    notes: tuple[str, ...] = ()
    """Why something planned was not run."""
    ray_is_lost: bool = False
    """A process that still waits for Ray when it ends would wait for ever."""

    @property
    def n_left(self) -> int:
        """Trials that another launch would run."""
        return sum(n for status, n in self.statuses.items() if status not in FINAL_STATUSES)

    @property
    def exit_code(self) -> int:
        """0 if every planned trial ended well (a pruned one does), else 1."""
        return (
            0 if self.statuses.get("ok", 0) + self.statuses.get("pruned", 0) == self.n_planned and not self.notes else 1
        )


def launch(plan: Plan, setup: Setup, watch: Watch, rescue: Callable[[Outcome], None] | None = None) -> Outcome:
    """Runs what the plan has and the sweep folder lacks, and returns how that ended.

    Where Ray is gone and this thread waits inside of it for ever, ``rescue`` is told of the end in another thread, and
    must end the process.

    Nothing is written before everything that can be known in advance has been checked: the folder,
    the data and packages, whether any node can ever hold a trial, and whether all nodes see the folder.

    Raises:
        InputError: with every reason found.
    """
    check_folder(plan, setup.out)
    check_store(setup.store, setup.out)
    if setup.dashboard_host is not None:
        check_dashboard_host(setup.dashboard_host)
    problems: list[str | Problem] = [*unavailable_loggers(logger.name for logger in plan.space.loggers)]
    if setup.address == "local":
        problems += unavailable_parts(resolve_configs(plan.cells), setup.data_root)
    if problems:
        raise InputError(problems)
    start = time.perf_counter()
    with joined(setup.address, setup.dashboard_host) as (dashboard, guard):
        check_resources(plan.space.resources)
        try:
            setup.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{setup.out}: cannot be made ({error.strerror}). Give another folder with --out."
            ) from None
        try:
            # A moment's patience: `status` looks at the lock by taking it.
            with FileLock(setup.out / ".lock", timeout=1):
                if setup.address != "local":
                    check_nodes(plan, setup.out, setup.store, setup.data_root)
                return _run(plan, setup, watch, dashboard, start, guard, rescue)
        except Timeout:
            raise InputError(f"{setup.out}: another launch is writing here. Wait for it, or give --out.") from None


def _run(
    plan: Plan,
    setup: Setup,
    watch: Watch,
    dashboard: str | None,
    start: float,
    guard: RayWatch,
    rescue: Callable[[Outcome], None] | None,
) -> Outcome:
    _tell_damage(plan, setup.out, watch)
    write_manifest(setup.out, make_manifest_beside_earlier(plan, setup))
    Store(setup.store).make_root()
    prefixes = shared_prefixes(plan.trials)
    agenda = _agenda(plan, setup, watch, prefixes)
    n_done = len(agenda.known) - agenda.n_left
    n_later = max(0, len(plan.trials) + plan.n_later - len(agenda.known))
    watch("start", {"dashboard": dashboard, "n_todo": agenda.n_left, "n_done": n_done, "n_later": n_later})
    if rescue is not None:
        guard.rescue = lambda lost: rescue(_outcome(agenda, setup.out, time.perf_counter() - start, lost))
    if not agenda.is_over:
        fit(plan, agenda, setup, watch, _work(plan, setup, prefixes))
    guard.end()  # what comes now needs no Ray
    return _outcome(agenda, setup.out, time.perf_counter() - start, guard.lost)


def _tell_damage(plan: Plan, out: Path, watch: Watch) -> None:
    """Tells of each damaged record that its trial is run again.

    Raises:
        InputError: if what lies in a record's place is no file of ours to replace.
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
        watch("damaged", {"problems": [f"{error.path}: {error.why}. The trial is run again." for error in damaged]})


def _agenda(plan: Plan, setup: Setup, watch: Watch, prefixes: Prefixes) -> Agenda:
    def planned(trials: Sequence[PlannedTrial]) -> None:
        append_planned(setup.out, (trial.entry() for trial in trials))
        watch("planned", {"n_new": len(trials)})

    name_stages, records = StageNames(), Records()

    def shared(config: TrialConfig) -> dict[str, str]:
        names = name_stages(records.resolve_config(config))
        if config.trial_id not in prefixes:
            return names
        # Trials with the same start of fine-tuning and equal work in their first phase share their first epochs.
        start = [without_schedule(config).flat(), first_work(config)]
        return {**names, "finetune-prefix": digest("finetune-prefix", start)}

    hooks = AgendaHooks(
        read_row=partial(read_row, setup.out),
        resolve=partial(make_config, records=records),
        name_shared=shared,
        is_held=Store(setup.store).is_held,
        report_planned=planned,
    )
    return Agenda(plan, hooks)


def make_manifest_beside_earlier(plan: Plan, setup: Setup) -> SweepManifest:
    """Returns the manifest with the trials that the sweep folder holds of earlier contents, and the labels of their cells."""
    earlier, made = find_earlier_trials(setup.out, plan), make_manifest(plan, setup.data_root, setup.store)
    labels = {**find_earlier_levels(setup.out, earlier), **made.labels}
    return made.model_copy(update={"labels": labels, "earlier": tuple(earlier)})


# Running ------------------------------------------------------------------------------------------


@contextmanager
def joined(address: str, dashboard_host: str | None = None) -> Iterator[tuple[str | None, RayWatch]]:
    """Ray for the length of a block; gives the dashboard's address, if there is one, and what looks after Ray.

    Raises:
        InputError: if Ray cannot be joined.
        RayLostError: if Ray does not start, or is gone before the block has ended in its own words.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", SNAPSHOT_S)
    # A worker that dies is told of in our own words and kept as a row, and so is a full disk; Ray would print its own
    # stack.
    for name in ("tune_controller", "experiment_state"):
        logging.getLogger(f"ray.tune.execution.{name}").setLevel(logging.CRITICAL)
    check_address(address)
    with ExitStack() as stack:
        if address == "local":
            keep_token_private()
            stack.enter_context(listening_on_loopback())
        yield stack.enter_context(_ray(address, dashboard_host))


@contextmanager
def _ray(address: str, dashboard_host: str | None) -> Iterator[tuple[str | None, RayWatch]]:
    context = _start(address, dashboard_host)
    with interrupted_by_signals(), watched(address == "local") as guard:
        try:
            yield context.dashboard_url or None, guard
        except KeyboardInterrupt:
            if guard.lost is None:
                raise
            raise RayLostError(f"{guard.lost}. {GO_ON}") from None
        finally:
            guard.end()
            leave(guard)


def _start(address: str, dashboard_host: str | None) -> Any:
    """Joins a Ray, or starts one of our own: twice, if the first is too slow on a busy machine."""
    start = partial(
        ray.init,
        address=address,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **_own_options(address, dashboard_host),
    )
    if address != "local":
        return _join(address, start)
    try:
        return start()
    except Exception as error:
        logging.getLogger("orca_sweep").warning("our own Ray did not start (%s); once more", first_line(error))
        ray.shutdown()
    try:
        return start()
    except Exception as error:
        raise RayLostError(
            f"our own Ray did not start, twice ({first_line(error)}). Its logs are in {ray_logs()}. Free memory, processor time"
            " or space there, or join a cluster with --address; then launch again."
        ) from error


def _join(address: str, start: Callable[[], Any]) -> Any:
    try:
        return start()
    except ConnectionError as error:
        raise InputError(
            f"--address {address}: no Ray cluster lets us in there ({error})."
            " Give its address, and its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        ) from None
    except RuntimeError as error:  # another version of Ray or Python there, say
        raise InputError(f"--address {address}: Ray cannot join this cluster: {error}") from None


def ray_logs() -> str:
    """Returns where a Ray of our own writes its logs."""
    return f"{private_folder()}/session_latest/logs"


def _own_options(address: str, host: str | None) -> dict[str, Any]:
    """Options of a Ray of our own. Ray's own default is the loopback address too; here it is said."""
    if address != "local":
        return {}
    options: dict[str, Any] = {"_temp_dir": str(private_folder())}
    if host is None or not has_dashboard():
        return {**options, "include_dashboard": False}
    return {**options, "include_dashboard": None, "dashboard_host": host}


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt, for the length of a block.

    The first is how Slurm and Kubernetes end a job, the second tells of a terminal that is closed. Ray would exit at once,
    without tables and words. A hangup that is ignored, as under nohup, stays so. Tune's own gentle end, which Ctrl-C gets,
    asks Ray's other processes; a job scheduler ends those too, and Tune would wait for them for a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's alone
        return
    heard = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(plan: Plan, agenda: Agenda, setup: Setup, watch: Watch, work: Callable[[dict[str, Any]], None]) -> int:
    """Runs the agenda on Tune, each trial by ``work`` in a worker, and returns how many were begun."""
    need = bundle(plan.space.resources)
    queue = Queue(agenda, setup.out, watch, WORKER_DEATHS + 1)
    tuner = tune.Tuner(
        tune.with_resources(work, tune.PlacementGroupFactory([need])),
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            num_samples=-1,
            search_alg=queue,
            scheduler=GroupedPruning(plan.space.prune) if plan.space.prune else None,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            # Two sweeps on one cluster must not share it: Tune gathers their files under it before it brings them here.
            name=f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}",
            storage_path=str(setup.out / "ray"),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            callbacks=callbacks(plan.space, setup.out),
            verbose=0,
        ),
    )
    with (
        _default("TUNE_MAX_PENDING_TRIALS_PG", str(_n_slots(need))),
        suppress(KeyboardInterrupt),  # what has ended is told of as ever, and the rest is unfinished
    ):
        tuner.fit()
    if queue.unwritten is not None:
        raise StorageError(queue.unwritten)
    return sum(n > 0 for n in agenda.attempts.values())


@contextmanager
def _default(name: str, value: str) -> Iterator[None]:
    """An environment variable for the length of a block, unless the user has set it."""
    is_set = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not is_set:
            del os.environ[name]


def _n_slots(need: Mapping[str, float]) -> int:
    """How many trials the cluster holds at once, at least one.

    So many may wait for Tune to place them; the others stay ours, to be given when they can really run.
    """
    has = ray.cluster_resources()
    return max(1, min(int(has.get(name, 0) / amount) for name, amount in need.items()))


def _name(trial: Any) -> str:
    assignment = trial.config["trial"]
    trial_id, attempt = str(assignment["trial_id"]), assignment["attempt"]
    return trial_id if attempt == 1 else f"{trial_id}-{attempt}"


def _work(plan: Plan, setup: Setup, prefixes: Prefixes) -> Callable[[dict[str, Any]], None]:
    """Returns the Tune trainable. It runs in a worker that Tune reuses for the next trial."""
    space, resources = plan.space, plan.space.resources
    known = [*plan.cells, *(config for cell in plan.tuned for config in cell.candidates)]
    levels = sorted({config.embedder.epochs for config in known})

    def orca(params: dict[str, Any]) -> None:
        import torch

        from orca_sweep.training.worker import Worker

        assignment = params["trial"]
        _reset(resources.n_threads, resources.gpu)
        device = resources.device if torch.cuda.is_available() else "cpu"
        worker = Worker(Store(setup.store, PATIENCE_S), device, resources.n_threads, resources.gpu)
        row = read_row(setup.out, assignment["trial_id"])  # exists if a worker died before its last report to Tune
        try:
            if row is None:
                context = RunContext(
                    folder=setup.out,
                    worker=worker,
                    data_root=setup.data_root,
                    imports=space.imports,
                    limit_s=space.limits.trial_s,
                    checkpoints=space.checkpoints,
                    snapshot_epochs=levels,
                    prefix_epochs=prefixes.get(assignment["trial_id"], ()),
                    report=_report,
                    passed=_tell_passed if assignment["tells"] else _tell_nothing,
                )
                row = run_config(TrialConfig.model_validate(assignment["config"]), context)
        except BusyError as error:
            tune.report({"stage": WAITING, "lock": error.lock})
            return
        except StorageError as error:
            tune.report({"stage": UNWRITTEN, "why": str(error)})
            return
        shown = ("status", "val_metric_best", "val_metric_last")
        tune.report({"stage": DONE, **{k: row[k] for k in shown if row.get(k) is not None}})

    return orca


def _reset(n_threads: int, n_gpus: float) -> None:
    """Makes a worker that has run another trial like a new one."""
    import torch

    gc.collect()
    # What cuBLAS needs to be deterministic must stand there before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if 0 < n_gpus < 1:  # a trial that holds a part of a GPU must leave the others theirs
            torch.cuda.set_per_process_memory_fraction(n_gpus)
    torch.set_num_threads(n_threads)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


def _report(row: Mapping[str, Any]) -> None:
    tune.report({k: v for k, v in row.items() if v is not None})


def _tell_passed(stage: str) -> None:
    tune.report({"stage": f"{PASSED}:{stage}"})


def _tell_nothing(stage: str) -> None:
    """For a trial that nobody waits for: a report costs as much as a small step of training."""


def _outcome(agenda: Agenda, out: Path, seconds: float, lost: str | None) -> Outcome:
    statuses: dict[str, int] = {}
    for trial_id in agenda.known:
        row = read_row(out, trial_id)
        status = row["status"] if row else UNFINISHED
        statuses[status] = statuses.get(status, 0) + 1
    notes = [f"{agenda.spent}: {statuses[UNFINISHED]} trials were not run."] if agenda.spent and agenda.queue else []
    notes += [
        f"cell {cell_id}: none of its candidates is ok, so it has no replicates." for cell_id in agenda.unreplicated
    ]
    notes += [f"{lost}. {GO_ON}"] if lost else []
    n_run = sum(n > 0 for n in agenda.attempts.values())
    return Outcome(len(agenda.known), n_run, statuses, seconds, tuple(notes), lost is not None)
