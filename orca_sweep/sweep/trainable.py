"""What runs in Ray's workers: the function that Tune calls for each trial."""

import gc
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from ray import tune

from orca_sweep.errors import BusyError, StorageError
from orca_sweep.results import read_row
from orca_sweep.results.signs import write_sign
from orca_sweep.space import Plan, Space
from orca_sweep.store import Store, write_whole
from orca_sweep.sweep.keeper import Home
from orca_sweep.sweep.lanes import Lane, Prefixes, Setup
from orca_sweep.sweep.params import read_config
from orca_sweep.sweep.queue import DONE, PASSED, UNWRITTEN, WAITING
from orca_sweep.sweep.signs import LifeSigns
from orca_sweep.training.run import CHECKPOINT, RunContext, run_config

N_FREEZES = 2
"""Resets after which the collector need not look any more at what is alive: the modules, half of which the first trial imports.

They have half a million objects. To look at them takes 0.3 s, which is much beside a small trial. What later trials leave
behind is collected as ever.
"""
_n_resets = count()
PATIENCE_S = 2.0
"""How long a trial waits for an artifact of another sweep before it gives its worker back."""


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What workers need to know of a lane."""

    space: Space
    setup: Setup


def make_trainable(lanes: Sequence[Lane], home: Home | None = None) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune runs for each trial, in a worker that it reuses for the next trial.

    Args:
        lanes: what the trials belong to.
        home: where files go from nodes that do not see the sweep folders; None if all trials run on this machine.
    """
    settings = [LaneSettings(space=lane.plan.space, setup=lane.member.setup) for lane in lanes]
    levels = list_embedder_levels(lane.plan for lane in lanes)
    prefixes: Prefixes = lanes[0].shop.prefixes

    def orca(params: dict[str, Any]) -> None:
        import torch

        from orca_sweep.training.worker import Worker

        lane, trial_id = params["lane"], params["trial_id"]
        space, setup = settings[lane].space, settings[lane].setup
        resources = space.resources
        _reset_worker(resources.n_threads, resources.gpu)
        device = resources.device if torch.cuda.is_available() else "cpu"
        store = setup.store if home is None else home.choose_store(setup.store)
        # Of the locks of a node's own store the agenda knows nothing: the trial waits where it is.
        patience_s = PATIENCE_S if store == setup.store else None
        worker = Worker(Store(store, patience_s), device, resources.n_threads, resources.gpu)
        try:
            with _open_workplace(settings, lane, trial_id, home) as workplace:
                row = read_row(workplace.folder, trial_id)  # it exists if a worker died after writing it
                if row is None:
                    config = read_config(params)
                    with LifeSigns(params, config, workplace.write_sign) as signs:
                        context = RunContext(
                            folder=workplace.folder,
                            worker=worker,
                            data_root=setup.data_root,
                            imports=space.imports,
                            limit_s=space.limits.trial_s,
                            checkpoints=space.checkpoints,
                            snapshot_epochs=levels.get(config.task, ()),
                            prefix_epochs=prefixes.get(trial_id, ()),
                            report=partial(_report, signs),
                            passed=_report_stage if params["reports_stages"] else _report_nothing,
                            began=signs.begin_stage,
                            saved=workplace.saved,
                            keep_costs=workplace.keep_costs,
                        )
                        row = run_config(config, context)
                        signs.note_end(row)
                    workplace.ended()
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


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a trial works, and what must happen for its files to reach the sweep folder."""

    folder: Path
    """The sweep folder, or what stands for it on this node."""
    write_sign: Callable[[bytes], None]
    saved: Callable[[], None] = lambda: None
    ended: Callable[[], None] = lambda: None
    keep_costs: Callable[[str, Mapping[str, Any]], None] | None = None


@contextmanager
def _open_workplace(
    lanes: Sequence[LaneSettings], number: int, trial_id: str, home: Home | None
) -> Iterator[Workplace]:
    """Yields where a trial works, with the checkpoint that it goes on from.

    Raises:
        StorageError: if something cannot be written.
    """
    setup = lanes[number].setup
    own_store = home is not None and home.choose_store(setup.store) != setup.store
    keep_costs = home.keep_costs if home is not None and own_store else None
    if home is None or home.is_seen(setup.out):
        if read_row(setup.out, trial_id) is None:
            copy_checkpoint(setup.out, (lane.setup.out for lane in lanes), trial_id)
        sign = partial(write_sign, setup.out, trial_id)
        yield Workplace(folder=setup.out, write_sign=sign, keep_costs=keep_costs)
        return
    with home.go_away(number, trial_id) as away:
        yield Workplace(
            folder=away.folder,
            write_sign=away.send_sign,
            saved=away.send_checkpoint,
            ended=away.send_record,
            keep_costs=keep_costs,
        )


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
    if next(_n_resets) < N_FREEZES:
        gc.freeze()
    # cuBLAS reads this before its first use; it needs it to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if 0 < n_gpus < 1:  # a trial with a share of a GPU must leave the rest to other trials
            torch.cuda.set_per_process_memory_fraction(n_gpus)
    torch.set_num_threads(n_threads)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


def _report(signs: LifeSigns, row: Mapping[str, Any]) -> None:
    signs.note_row(row)
    tune.report({k: v for k, v in row.items() if v is not None})
    signs.name_process()


def _report_stage(stage: str) -> None:
    tune.report({"stage": f"{PASSED}:{stage}"})


def _report_nothing(stage: str) -> None:
    """Reports nothing, for a trial that no other waits for: a report costs as much as a small step of training."""
