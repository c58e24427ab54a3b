"""A plan on Ray Tune: each run is one Tune trial.

Our own records decide what is done, never Tune's experiment state: a launch runs what has no record,
so it does not matter how an earlier one ended. Written against Ray 2.60 (``ray.tune.Tuner`` with
``ray.tune.report``; ``ray.train.report`` is an error inside Tune there).
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray import tune

from orca_sweep.errors import InputError
from orca_sweep.results import read_record, write_json, write_record
from orca_sweep.space import Plan, PlannedTrial
from orca_sweep.space.prefixes import leaders_first, shared_prefixes
from orca_sweep.store import Store
from orca_sweep.sweep.checks import check_address, check_folder, check_resources, check_shared, check_store
from orca_sweep.trial import load_imports, run_trial, unavailable_parts

# A finished outcome is not run again; what failed or was lost is.
FINAL_STATUSES = ("ok", "diverged")
WORKER_DEATHS = 2
"""How often a trial whose worker or node died is started again before it counts as lost."""


@dataclass(frozen=True)
class Setup:
    """Where a sweep runs and writes; all paths absolute."""

    out: Path
    store: str
    data_root: Path
    address: str
    """'local' for a Ray of our own, or the address of a cluster to join."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    n_planned: int
    n_run: int
    statuses: Mapping[str, int]
    wall_time_s: float

    @property
    def exit_code(self) -> int:
        """0 if every planned trial is ok, else 1."""
        return 0 if self.statuses.get("ok", 0) == self.n_planned else 1


Watch = Callable[[str, Mapping[str, Any]], None]
"""Told of events: ('start', ...), ('epoch', ...), ('end', row)."""


def launch(plan: Plan, setup: Setup, watch: Watch) -> Outcome:
    """Runs what the plan has and the sweep folder lacks, and returns how that ended.

    Nothing is written before everything that can be known in advance has been checked: the folder,
    the data and packages, whether any node can ever hold a trial, and whether all nodes see the folder.

    Raises:
        InputError: with every reason found.
    """
    check_folder(plan, setup.out)
    check_store(setup.store)
    if setup.address == "local":
        problems = unavailable_parts([t.config for t in plan.trials], setup.data_root)
        if problems:
            raise InputError(problems)
    start = time.perf_counter()
    with _ray(setup.address) as dashboard:
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
                check_shared(setup.out)
                write_json(setup.out / "sweep.json", manifest(plan, setup))
                todo = leaders_first(missing(plan, setup.out))
                watch("start", {"dashboard": dashboard, "n_todo": len(todo), "n_planned": len(plan.trials)})
                if todo:
                    _forget(todo, setup.out)
                    _fit(plan, todo, setup, watch)
                return _outcome(plan, len(todo), setup.out, time.perf_counter() - start)
        except Timeout:
            raise InputError(f"{setup.out}: another launch is writing here. Wait for it, or give --out.") from None


def missing(plan: Plan, out: Path) -> list[PlannedTrial]:
    """Returns the planned trials without a final record, in the plan's order."""
    return [trial for trial in plan.trials if not _is_final(read_record(out, trial.trial_id))]


def _forget(todo: Sequence[PlannedTrial], out: Path) -> None:
    """Takes away what an earlier attempt that was no success said, so that it cannot be taken for this one's."""
    for trial in todo:
        for name in ("row.json", "error.txt"):
            (out / "trials" / trial.trial_id / name).unlink(missing_ok=True)


def _is_final(record: Mapping[str, Any] | None) -> bool:
    return record is not None and record["row"]["status"] in FINAL_STATUSES


def manifest(plan: Plan, setup: Setup) -> dict[str, Any]:
    """Returns what the sweep folder says of itself: the plan with every config, and what a resumption needs."""
    return {
        "name": plan.space.name,
        "question": plan.space.question,
        "metric": plan.space.metric,
        "factors": list(plan.space.factors),
        "resources": plan.space.resources.model_dump(),
        "limits": plan.space.limits.model_dump(),
        "imports": list(plan.space.imports),
        "data": str(setup.data_root),
        "store": setup.store,
        "trials": [
            {"trial_id": t.trial_id, "cell_id": t.cell_id, "seed": t.seed, "config": t.config.flat()}
            for t in plan.trials
        ],
    }


# Running ------------------------------------------------------------------------------------------


class _ray:  # noqa: N801 - used as a context manager, like the functions of contextlib
    """Ray for the length of a block; gives the dashboard's address, if there is one."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> str | None:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        # A worker that dies is told of in our own words and kept as a row; Ray would print its own stack.
        logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
        check_address(self.address)
        try:
            context = ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise InputError(
                f"--address {self.address}: no Ray cluster lets us in there ({error})."
                " Give its address, and its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            ) from None
        return context.dashboard_url or None

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def _fit(plan: Plan, todo: Sequence[PlannedTrial], setup: Setup, watch: Watch) -> None:
    resources = plan.space.resources
    bundle = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    work = _work(plan, setup)
    trials = [{"trial_id": t.trial_id, "config": t.config.model_dump()} for t in todo]
    tuner = tune.Tuner(
        tune.with_resources(work, tune.PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(reuse_actors=True, trial_name_creator=_name, trial_dirname_creator=_name),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(setup.out / "ray"),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            callbacks=[_Watcher(setup.out, watch)],
            verbose=0,
        ),
    )
    grid = tuner.fit()
    for result in (grid[i] for i in range(len(grid))):
        trial = (result.config or {}).get("trial", {})
        if result.error is not None and trial and read_record(setup.out, trial["trial_id"]) is None:
            _write_lost(plan, setup.out, trial["trial_id"], str(result.error))


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["trial_id"])


def _write_lost(plan: Plan, out: Path, trial_id: str, error: str) -> None:
    trial = next(t for t in plan.trials if t.trial_id == trial_id)
    text = f"its worker died or could not start, {WORKER_DEATHS + 1} times: {error.strip().splitlines()[-1:]}"
    write_record(out, {"trial_id": trial_id, "cell_id": trial.cell_id, "status": "lost", "error": text}, [])


def _work(plan: Plan, setup: Setup) -> Callable[[dict[str, Any]], None]:
    """The Tune trainable. It runs in a worker that is used again for the next trial."""
    imports, cpu, gpu = plan.space.imports, plan.space.resources.cpu, plan.space.resources.gpu
    limit_s = plan.space.limits.trial_s
    levels = sorted({trial.config.embedder.epochs for trial in plan.trials})
    prefixes = shared_prefixes(plan.trials)

    def orca(params: dict[str, Any]) -> None:
        import torch

        from orca_sweep.config import TrialConfig
        from orca_sweep.stages import Place

        n_threads = max(1, int(cpu))
        torch.set_num_threads(n_threads)
        load_imports(imports)
        device = "cuda" if gpu > 0 and torch.cuda.is_available() else "cpu"
        place = Place(Store(setup.store), device, n_threads)
        config = TrialConfig.model_validate(params["trial"]["config"])
        shared = prefixes.get(config.trial_id, ())
        row = run_trial(config, setup.out, place, setup.data_root, _report, levels, limit_s, shared)
        shown = ("status", "val_metric_best", "val_metric_last", "test_metric_best", "test_metric_last")
        tune.report({"stage": "done", **{k: row[k] for k in shown if row.get(k) is not None}})
        if device == "cuda":
            # The worker lives on: what this trial held must not be counted against the next.
            torch.cuda.empty_cache()

    return orca


def _report(row: Mapping[str, Any]) -> None:
    tune.report({k: v for k, v in row.items() if v is not None})


class _Watcher(tune.Callback):
    """Passes Tune's events on: epochs, and each trial's record when it has ended."""

    def __init__(self, out: Path, watch: Watch) -> None:
        self.out, self.watch = out, watch

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles callbacks with its experiment state, which is never restored here: keep the terminal out.
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """One epoch of one trial."""
        self.watch("epoch", {"trial_id": _name(trial), **{k: result.get(k) for k in ("stage", "epoch", "val_metric")}})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The trial has ended, well or badly."""
        record = read_record(self.out, _name(trial))
        if record is not None:
            self.watch("end", record["row"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The trial's worker is gone for good."""
        self.watch("end", {"trial_id": _name(trial), "status": "lost", "error": "its worker died"})


def _outcome(plan: Plan, n_run: int, out: Path, seconds: float) -> Outcome:
    statuses: dict[str, int] = {}
    for trial in plan.trials:
        record = read_record(out, trial.trial_id)
        status = record["row"]["status"] if record else "unfinished"
        statuses[status] = statuses.get(status, 0) + 1
    return Outcome(len(plan.trials), n_run, statuses, seconds)
