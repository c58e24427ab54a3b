"""One Tuner for all lanes of a launch."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import ProgressReporter
from ray.tune.trainable.function_trainable import wrap_function

from orca_sweep.errors import StorageError
from orca_sweep.sweep.lanes import Lane
from orca_sweep.sweep.loggers import make_callbacks
from orca_sweep.sweep.queue import GroupedPruning, Queue, StartNotes, freeze_need

WORKER_DEATHS = 2
"""How often a trial starts again after its worker or node died, before it counts as lost."""


def run_lanes(lanes: Sequence[Lane], work: Callable[[dict[str, Any]], None]) -> None:
    """Runs the lanes on Tune, with ``work`` for each trial in a worker.

    Raises:
        StorageError: if a record could not be written.
    """
    # Tune may have as many waiting trials as the cluster holds; the rest stay in the agendas until they can really run.
    slots = {freeze_need(lane.need): _count_slots(lane.need) for lane in lanes}
    queue = Queue(lanes, WORKER_DEATHS + 1, slots)
    places = [tune.PlacementGroupFactory([lane.need]) for lane in lanes]
    rules = [lane.plan.space.prune for lane in lanes]
    names = ", ".join(lane.member.name for lane in lanes)
    tuner = tune.Tuner(
        # Tune uses a worker again for trials with equal resources, and ends it if only others are to come.
        _make_trial_class(tune.with_resources(work, lambda params: places[params["lane"]]), f"orca-sweep: {names}"),
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            num_samples=-1,
            search_alg=queue,
            scheduler=GroupedPruning(rules) if any(rules) else None,
            trial_name_creator=_name_attempt,
            trial_dirname_creator=_name_attempt,
        ),
        run_config=tune.RunConfig(
            # Two sweeps on one cluster must not share a name: Tune collects files under it before it moves them here.
            name=f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}",
            storage_path=str(choose_tune_folder([lane.out for lane in lanes])),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            callbacks=[*make_callbacks(lanes), StartNotes(queue)],
            progress_reporter=_SilentReporter(),
            verbose=0,
        ),
    )
    with (
        set_default("TUNE_MAX_PENDING_TRIALS_PG", str(sum(slots.values()))),
        set_default("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        _keep_signal_handlers(),
        suppress(KeyboardInterrupt),  # ended trials are reported as usual, and the rest is unfinished
    ):
        tuner.fit()
    if queue.unwritten is not None:
        raise StorageError(queue.unwritten)


def _make_trial_class(work: Callable[[dict[str, Any]], None], name: str) -> type[tune.Trainable]:
    """Returns the class of Tune's actors: Ray's dashboard shows its name, and ``name`` beside each of them.

    That name is fixed when an actor starts, and an actor runs many trials; so it names no trial.
    """

    class OrcaTrial(wrap_function(work, name)):  # type: ignore[misc]
        pass

    OrcaTrial.__qualname__ = OrcaTrial.__name__  # without the name of this function
    return OrcaTrial


def choose_tune_folder(outs: Sequence[Path]) -> Path:
    """Returns the folder of Tune's own files: in the sweep folder or, with several, beside them if one folder holds all."""
    parents = {out.parent for out in outs}
    is_suite = len(outs) > 1 and len(parents) == 1
    return (parents.pop() if is_suite else outs[0]) / "ray"


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
def set_default(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable during a block, unless the user has set it."""
    is_set = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not is_set:
            del os.environ[name]


def _count_slots(need: Mapping[str, float]) -> int:
    """Returns how many trials with these needs the cluster holds at once, at least one."""
    available = ray.cluster_resources()
    return max(1, min(int(available.get(name, 0) / amount) for name, amount in need.items()))


def _name_attempt(trial: Any) -> str:
    """Returns a name for an attempt at a trial; only the first lane's begin with the trial's id."""
    params = trial.config
    parts = [f"lane-{params['lane'] + 1}"] if params["lane"] else []
    parts += [params["trial_id"]] + ([str(params["attempt"])] if params["attempt"] > 1 else [])
    return "-".join(parts)
