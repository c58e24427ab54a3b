"""What runs in Ray's workers: the function that Tune calls for each trial."""

import gc
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from orca_sweep.config import TrialConfig
from orca_sweep.errors import BusyError, StorageError
from orca_sweep.results import read_row
from orca_sweep.space import Plan, Space
from orca_sweep.store import Store, write_whole
from orca_sweep.sweep.lanes import Lane, Prefixes, Setup
from orca_sweep.sweep.queue import DONE, PASSED, UNWRITTEN, WAITING
from orca_sweep.training.run import CHECKPOINT, RunContext, run_config

PATIENCE_S = 2.0
"""How long a trial waits for an artifact of another sweep before it gives its worker back."""


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What workers need to know of a lane."""

    space: Space
    setup: Setup


def make_trainable(lanes: Sequence[Lane]) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune runs for each trial, in a worker that it reuses for the next trial."""
    settings = [LaneSettings(space=lane.plan.space, setup=lane.member.setup) for lane in lanes]
    levels = list_embedder_levels(lane.plan for lane in lanes)
    prefixes: Prefixes = lanes[0].shop.prefixes

    def orca(params: dict[str, Any]) -> None:
        import torch

        from orca_sweep.training.worker import Worker

        planned = params["trial"]
        space, setup = settings[planned["lane"]].space, settings[planned["lane"]].setup
        trial_id, resources = planned["trial_id"], space.resources
        _reset_worker(resources.n_threads, resources.gpu)
        device = resources.device if torch.cuda.is_available() else "cpu"
        worker = Worker(Store(setup.store, PATIENCE_S), device, resources.n_threads, resources.gpu)
        row = read_row(setup.out, trial_id)  # it exists if a worker died after writing it
        try:
            if row is None:
                copy_checkpoint(setup.out, (lane.setup.out for lane in settings), trial_id)
                context = RunContext(
                    folder=setup.out,
                    worker=worker,
                    data_root=setup.data_root,
                    imports=space.imports,
                    limit_s=space.limits.trial_s,
                    checkpoints=space.checkpoints,
                    snapshot_epochs=levels.get(planned["config"]["task"], ()),
                    prefix_epochs=prefixes.get(trial_id, ()),
                    report=_report,
                    passed=_report_stage if planned["reports_stages"] else _report_nothing,
                )
                row = run_config(TrialConfig.model_validate(planned["config"]), context)
        except BusyError as error:
            tune.report({"stage": WAITING, "lock": error.lock})
            return
        except StorageError as error:
            tune.report({"stage": UNWRITTEN, "why": str(error)})
            return
        shown = ("status", "val_metric_best", "val_metric_last")
        tune.report({"stage": DONE, **{k: row[k] for k in shown if row.get(k) is not None}})

    return orca


def list_embedder_levels(plans: Iterable[Plan]) -> dict[str, list[int]]:
    """Returns, by task, the embedder epochs at which a run stores its embedder for shorter runs, of any of the plans."""
    levels: dict[str, set[int]] = {}
    for plan in plans:
        for config in (*plan.cells, *(config for cell in plan.tuned for config in cell.candidates)):
            levels.setdefault(config.task, set()).add(config.embedder.epochs)
    return {task: sorted(epochs) for task, epochs in levels.items()}


def copy_checkpoint(out: Path, siblings: Iterable[Path], trial_id: str) -> None:
    """Copies the checkpoint of a trial that an earlier launch began in a sibling's sweep folder, unless there is one here.

    Raises:
        StorageError: if it cannot be written.
    """
    own, *rest = (folder / "trials" / trial_id / CHECKPOINT for folder in (out, *siblings))
    source = next((path for path in rest if path.exists()), None)
    if source is None or own.exists():
        return
    # A copy: the sibling may be launched alone, and then goes on from there itself.
    with write_whole(str(own)) as temporary:
        shutil.copyfile(source, temporary)


def _reset_worker(n_threads: int, n_gpus: float) -> None:
    """Makes a worker that has run another trial behave like a new one."""
    import torch

    gc.collect()
    # cuBLAS reads this before its first use; it needs it to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if 0 < n_gpus < 1:  # a trial with a share of a GPU must leave the rest to other trials
            torch.cuda.set_per_process_memory_fraction(n_gpus)
    torch.set_num_threads(n_threads)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


def _report(row: Mapping[str, Any]) -> None:
    tune.report({k: v for k, v in row.items() if v is not None})


def _report_stage(stage: str) -> None:
    tune.report({"stage": f"{PASSED}:{stage}"})


def _report_nothing(stage: str) -> None:
    """Reports nothing, for a trial that no other waits for: a report costs as much as a small step of training."""
