"""What runs in Ray's workers: the function that Tune calls for each trial."""

import gc
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ray import tune

from orca_sweep.config import TrialConfig
from orca_sweep.errors import BusyError, StorageError
from orca_sweep.results import read_row
from orca_sweep.space import Plan
from orca_sweep.store import Store
from orca_sweep.sweep.queue import DONE, PASSED, UNWRITTEN, WAITING
from orca_sweep.training.run import RunContext, run_config

if TYPE_CHECKING:
    from orca_sweep.sweep.running import Setup

PATIENCE_S = 2.0
"""How long a trial waits for an artifact of another sweep before it gives its worker back."""
Prefixes = Mapping[str, frozenset[int]]
"""Epochs of fine-tuning that a trial shares with others, by trial id."""


def make_trainable(plan: Plan, setup: "Setup", prefixes: Prefixes) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune runs for each trial, in a worker that it reuses for the next trial."""
    space, resources = plan.space, plan.space.resources
    known = [*plan.cells, *(config for cell in plan.tuned for config in cell.candidates)]
    levels = sorted({config.embedder.epochs for config in known})

    def orca(params: dict[str, Any]) -> None:
        import torch

        from orca_sweep.training.worker import Worker

        planned = params["trial"]
        _reset_worker(resources.n_threads, resources.gpu)
        device = resources.device if torch.cuda.is_available() else "cpu"
        worker = Worker(Store(setup.store, PATIENCE_S), device, resources.n_threads, resources.gpu)
        row = read_row(setup.out, planned["trial_id"])  # it exists if a worker died after writing it
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
                    prefix_epochs=prefixes.get(planned["trial_id"], ()),
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
