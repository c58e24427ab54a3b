"""Runs one ORCA trial, from its config or resolved trial to its record, however it ends. No ray here."""

import contextlib
import platform
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep import __version__
from orca_sweep.bodies import Body
from orca_sweep.config import BodyConfig, TrialConfig
from orca_sweep.errors import BusyError, DivergedError, TimeLimitError, is_of_users_code, out_of_memory
from orca_sweep.results import FINAL_STATUSES, make_json_safe, now, write_record
from orca_sweep.store import find_full_disk, made_with, numeric_versions
from orca_sweep.training.context import CHECKPOINT, RunContext, RunRecord, find_home
from orca_sweep.training.meter import Meter
from orca_sweep.training.stages import run_stages
from orca_sweep.training.worker import name_processor
from orca_sweep.trial.importing import load_imports
from orca_sweep.trial.records import ResolvedTrial, resolve_config
from orca_sweep.trial.shared_stages import name_pretraining

if TYPE_CHECKING:
    from orca_sweep.training.worker import Progress, Worker

__all__ = ["CHECKPOINT", "RunContext", "drop_checkpoint", "keep_pretraining", "run_config", "run_trial"]

HALF_WRITTEN = re.compile(rf"\.{re.escape(CHECKPOINT)}\.[0-9a-f]{{32}}\.tmp")


def run_config(config: TrialConfig, context: RunContext) -> dict[str, Any]:
    """Resolves a config on this machine and runs it as ``run_trial`` does.

    A trial that cannot be imported or resolved here has failed.
    """

    def resolve_and_run(record: RunRecord, context: RunContext) -> None:
        load_imports(context.imports)
        run_stages(resolve_config(config), context, record)

    return _record_run(config, context, resolve_and_run)


def run_trial(trial: ResolvedTrial, context: RunContext) -> dict[str, Any]:
    """Runs one trial to its record in ``folder/trials/<trial_id>/`` and returns the record's row, without test metrics.

    A trial that fails, diverges or runs out of memory gets a record with that status and the error; it does not raise. A
    trial that was interrupted continues from its last checkpoint.

    Raises:
        BusyError: if another process still makes a needed artifact when the store's patience ends. The trial has no record
            then, and continues from this stage when it runs again.
        StorageError: if a disk is full or the record cannot be written. The trial has no record then.
    """
    return _record_run(trial.config, context, lambda record, context: run_stages(trial, context, record))


def _record_run(
    config: TrialConfig, context: RunContext, run: Callable[[RunRecord, RunContext], None]
) -> dict[str, Any]:
    """Runs a trial and writes its record, however it ends; raises as ``run_trial``."""
    worker, home = context.worker, find_home(config, context)
    if context.limit_s is not None:
        context = replace(context, report=_limit_time(context.limit_s, time.perf_counter(), config, context.report))
    record = RunRecord(row=_identify(config, worker), meter=Meter(worker.n_gpus, context.began))
    try:
        run(record, context)
        record.note_end("ok")
    except BusyError:
        raise
    except BaseException as error:  # a failing trial is a row, and the sweep goes on
        _record_error(record, error, home)
    record.row |= {**record.meter.row(), "ended_at": now()}
    record.row |= {"reused": ",".join(record.reused), "reused_s": sum(record.reused.values())}
    row = write_record(context.folder, record.row, record.epochs, record.meter.stages)
    if row["status"] in FINAL_STATUSES:
        drop_checkpoint(home)  # not before the record is written
    if row["status"] == "ok":
        keep_costs = context.keep_costs or worker.store.put_row
        with contextlib.suppress(OSError):  # only later plans miss it
            keep_costs(config.trial_id, {**make_json_safe(row), **_describe_worker(worker), "config": config.flat()})
    return row


def _record_error(record: RunRecord, error: BaseException, home: Path) -> None:
    """Records the error that ended a trial.

    Raises:
        BaseException: the error itself, if a person or the system is ending the process.
        StorageError: if a disk is full.
    """
    if isinstance(error, DivergedError):
        record.epochs += [dict(epoch) for epoch in error.epochs]
        record.note_end("diverged", error)
        return
    if isinstance(error, TimeLimitError):
        record.note_end("timeout", error)
        return
    if not isinstance(error, Exception) and not is_of_users_code(error):
        raise error
    full = find_full_disk(error)
    if full is not None:  # not an outcome of this trial: it hits every trial
        raise full from error
    record.note_end("oom" if out_of_memory(error) else "failed", error)
    with contextlib.suppress(OSError):  # the row matters more than the traceback
        home.mkdir(parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        (home / "error.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def _describe_worker(worker: "Worker") -> dict[str, Any]:
    """What a later plan needs to find the artifacts made here: how they were made, and their keys."""
    return {**made_with(worker.device, worker.n_threads), "used": worker.store.used}


def keep_pretraining(body: Body, config: BodyConfig, worker: "Worker") -> None:
    """Records for later plans that a body is pre-trained already, under the name that trials give it."""
    steps = (
        None if body.pretrain is not None and config.pretrain_steps == body.pretrain.steps else config.pretrain_steps
    )
    name = name_pretraining(config.model_copy(update={"pretrain_steps": steps}))
    worker.store.put_row(f"pretrain-{name}", {**_describe_worker(worker), "made": {"pretrain": name}})


def _limit_time(limit_s: float, start: float, config: TrialConfig, report: "Progress") -> "Progress":
    """A report that ends the trial when its time is up, unless the last epoch is done."""

    def report_and_check(row: Mapping[str, Any]) -> None:
        report(row)
        spent = time.perf_counter() - start
        is_last = (row["stage"], row["epoch"]) == ("finetune", config.finetune.epochs)
        if spent > limit_s and not is_last:
            raise TimeLimitError(
                f"over the limit of {limit_s:g} s in {row['stage']} epoch {row['epoch']}. Launch again to continue"
                " from this epoch, or raise limits.trial_s."
            )

    return report_and_check


def _identify(config: TrialConfig, worker: "Worker") -> dict[str, Any]:
    return {
        "trial_id": config.trial_id,
        "cell_id": config.cell_id,
        "started_at": now(),
        "device": worker.device,
        "processor": name_processor(worker.device),
        "n_threads": worker.n_threads,
        "host": platform.node(),
        "code_version": __version__,
        "versions": numeric_versions(),
    }


def drop_checkpoint(home: Path) -> None:
    """Deletes the checkpoint, and the half-written files of workers that were killed while they wrote one."""
    half_written = [path for path in home.glob(f".{CHECKPOINT}.*.tmp") if HALF_WRITTEN.fullmatch(path.name)]
    for path in (home / CHECKPOINT, *half_written):
        with contextlib.suppress(OSError):  # a folder with this name, for example, is not ours to delete
            path.unlink(missing_ok=True)
