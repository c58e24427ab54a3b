"""One ORCA run from its config to its record: the stages in order. No ray here."""

import contextlib
import math
import platform
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orca_sweep import __version__
from orca_sweep.bodies import find_body, find_rung
from orca_sweep.bodies.preprocessing import read_body_scaling
from orca_sweep.config import BodyConfig, ContentConfig, DataConfig, Source, TrialConfig, canonical_json
from orca_sweep.data import fingerprint
from orca_sweep.data.contents import Contents
from orca_sweep.errors import (
    BusyError,
    DataError,
    DivergedError,
    OrcaSweepError,
    TimeLimitError,
    is_of_users_code,
    out_of_memory,
)
from orca_sweep.proxies import Noise, ProxyData, Treatment, choose_proxy_scaling, draw_samples, find_proxy
from orca_sweep.results import FINAL_STATUSES, Status, make_json_safe, now, write_record
from orca_sweep.space.prefixes import without_schedule
from orca_sweep.space.records import Checkpoints
from orca_sweep.store import find_full_disk, made_with, numeric_versions
from orca_sweep.tasks import TaskData, describe_metric, find_task, load_task_data
from orca_sweep.training.meter import Meter
from orca_sweep.trial.identity import find_changes
from orca_sweep.trial.importing import code_digest, load_imports
from orca_sweep.trial.resolve import pretrained_name

if TYPE_CHECKING:
    from orca_sweep.training.worker import Progress, Worker

CHECKPOINT = "checkpoint.safetensors"
HALF_WRITTEN = re.compile(rf"\.{re.escape(CHECKPOINT)}\.[0-9a-f]{{32}}\.tmp")
FINETUNE_SOURCES: tuple[Source, ...] = ("finetune-order", "augmentation", "dropout")


@dataclass
class _Record:
    """What is known of a run so far: it ends as a row whatever happens."""

    row: dict[str, Any]
    meter: Meter
    epochs: list[dict[str, Any]] = field(default_factory=list)
    reused: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage taken from the store had cost."""

    def reuse(self, stage: str, seconds: float) -> None:
        self.reused[stage] = self.reused.get(stage, 0.0) + seconds


def run_trial(
    config: TrialConfig,
    folder: Path,
    worker: "Worker",
    data_root: Path,
    report: "Progress" = lambda row: None,
    snapshot_epochs: Iterable[int] = (),
    limit_s: float | None = None,
    prefix_epochs: Iterable[int] = (),
    passed: Callable[[str], None] = lambda stage: None,
    imports: Iterable[str] = (),
    checkpoints: Checkpoints = Checkpoints(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Runs one trial to its record in ``folder/trials/<trial_id>/`` and returns the record's row, without test metrics.

    A trial that fails, diverges or runs out of memory is a record with that status and the error; it
    never raises for them. A trial that was interrupted continues from its last checkpoint.

    Args:
        config: the resolved config.
        folder: the sweep folder.
        worker: store, device and threads.
        data_root: where tasks with files find them.
        report: called once per epoch with what there is to see.
        snapshot_epochs: embedder epochs at which the embedder is stored for other trials.
        limit_s: seconds after which the trial ends at its next epoch, with status ``timeout``; its checkpoint stays.
        prefix_epochs: fine-tuning epochs after which the state is stored for other trials (``shared_prefixes``).
        passed: told of each stage of ``shared_stages`` when its artifact is there, and of ``finetune-prefix``.
        imports: the space's modules and files that the config's records may come from.
        checkpoints: how often the state of fine-tuning is saved.

    Raises:
        BusyError: if somebody else makes an artifact that is needed and the store has no more patience; there is
            no record then, and the trial goes on from there when it is run again.
        StorageError: if a disk is full, or the record cannot be written; there is no record then.
    """
    start = time.perf_counter()
    if limit_s is not None:
        report = _within(limit_s, start, config, report)
    record = _Record(_identity(config, worker), Meter(worker.n_gpus))
    home = folder / "trials" / config.trial_id
    try:
        load_imports(imports)
        changes = find_changes(config, imports, Contents())
        if changes:
            raise DataError("\n".join(changes))
        task = find_task(config.task)
        record.row |= {**describe_metric(task), "dims": task.dims, "code_sha256": code_digest(imports)}
        _run(config, home, worker, data_root, report, snapshot_epochs, prefix_epochs, record, passed, checkpoints)
        _end(record, "ok", None)
    except BusyError:
        raise
    except DivergedError as error:
        record.epochs += [dict(epoch) for epoch in error.epochs]
        _end(record, "diverged", error)
    except TimeLimitError as error:
        _end(record, "timeout", error)
    except BaseException as error:  # a failing trial is a row; the others go on
        if not isinstance(error, Exception) and not is_of_users_code(error):
            raise
        full = find_full_disk(error)
        if full is not None:  # no outcome of the trial: the next one would meet it, too
            raise full from error
        _end(record, "oom" if out_of_memory(error) else "failed", error)
        with contextlib.suppress(OSError):  # on a full disk the row matters more
            home.mkdir(parents=True, exist_ok=True)
            (home / "error.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    record.row |= {**record.meter.row(), "ended_at": now()}
    record.row |= {"reused": ",".join(record.reused), "reused_s": sum(record.reused.values())}
    record.row = write_record(folder, record.row, record.epochs, record.meter.stages)
    if record.row["status"] in FINAL_STATUSES:
        drop_checkpoint(home)  # not before the record is there
    if record.row["status"] == "ok":
        with contextlib.suppress(OSError):  # only plans to come would miss it
            kept = {**make_json_safe(record.row), **_about(worker), "config": config.flat()}
            worker.store.put_row(config.trial_id, kept)
    return record.row


def _about(worker: "Worker") -> dict[str, Any]:
    """What a plan to come must equal to find again what was made here, and where it is."""
    return {**made_with(worker.device, worker.n_threads), "used": worker.store.used}


def keep_pretraining(body: BodyConfig, worker: "Worker") -> None:
    """Tells plans to come that a body has been pre-trained ahead of them, under the name that trials give it."""
    recipe = find_body(body.name).pretrain
    steps = None if recipe is not None and body.pretrain_steps == recipe.steps else body.pretrain_steps
    name = pretrained_name(body.model_copy(update={"pretrain_steps": steps}))
    worker.store.put_row(f"pretrain-{name}", {**_about(worker), "made": {"pretrain": name}})


def _within(limit_s: float, start: float, config: TrialConfig, report: "Progress") -> "Progress":
    """A report that ends the trial when its time is over, unless its last epoch is done."""

    def checked(row: Mapping[str, Any]) -> None:
        report(row)
        spent = time.perf_counter() - start
        is_last = (row["stage"], row["epoch"]) == ("finetune", config.finetune.epochs)
        if spent > limit_s and not is_last:
            raise TimeLimitError(
                f"over the limit of {limit_s:g} s in {row['stage']} epoch {row['epoch']}. Launch again to go on from"
                " there, or raise limits.trial_s."
            )

    return checked


def _identity(config: TrialConfig, worker: "Worker") -> dict[str, Any]:
    return {
        "trial_id": config.trial_id,
        "cell_id": config.cell_id,
        "started_at": now(),
        "device": worker.device,
        "n_threads": worker.n_threads,
        "host": platform.node(),
        "code_version": __version__,
        "versions": numeric_versions(),
    }


def drop_checkpoint(home: Path) -> None:
    """Takes away the checkpoint, and what workers that were killed in the middle of writing one left behind."""
    left = [path for path in home.glob(f".{CHECKPOINT}.*.tmp") if HALF_WRITTEN.fullmatch(path.name)]
    for path in (home / CHECKPOINT, *left):
        with contextlib.suppress(OSError):  # a folder in its place, say, which is not ours
            path.unlink(missing_ok=True)


def _end(record: _Record, status: Status, error: BaseException | None) -> None:
    told = isinstance(error, OrcaSweepError)
    text = None if error is None else (str(error) if told else f"{type(error).__name__}: {error}")
    record.row |= {"status": status, "error": text}


def _run(
    config: TrialConfig,
    home: Path,
    worker: "Worker",
    data_root: Path,
    report: "Progress",
    snapshot_epochs: Iterable[int],
    prefix_epochs: Iterable[int],
    record: _Record,
    passed: Callable[[str], None],
    checkpoints: Checkpoints,
) -> None:
    from orca_sweep.store import stage_key
    from orca_sweep.training.checkpoints import Saving
    from orca_sweep.training.finetune import finetune
    from orca_sweep.training.finetune_setup import FinetuneSetup
    from orca_sweep.training.model import build_model
    from orca_sweep.training.prefixes import Prefixes
    from orca_sweep.training.pretrain import pretrain_body

    config = config.as_run()
    meter = record.meter
    with meter.stage("data"):
        data = _task_data(config.task, config.content, data_root, config.data.model_copy(update={"augment": True}))
    parts = (("train", data.train), ("val", data.val), ("test", data.test))
    record.row |= {**{f"n_{name}": part.n_wholes for name, part in parts}, "data_sha256": data.fingerprint}
    record.row["normalised"] = data.input_scale

    with meter.stage("body") as phases:
        body, seconds, reused = pretrain_body(find_body(config.body.name), config.body, worker, report)
        if reused:
            record.reuse("pretrain", seconds)
            phases.append({"reused_s": seconds})
        model = build_model(data, body, config)
    record.row |= {"pretrain_metric": body.pretrain_metric, "body_sha256": body.hash_weights()}
    record.row["n_parameters"] = sum(p.numel() for p in model.parameters())
    passed("pretrain")

    if config.embedder.epochs > 0:
        _train_embedder(config, model.embedder, data, body, worker, data_root, report, snapshot_epochs, record, passed)
        passed("embedder")

    with meter.stage("finetune") as phases:
        inputs = _finetune_inputs(config, data, body, model, worker)
        identity = stage_key("finetune", {**inputs, "finetune": config.finetune.model_dump()})
        # The whole config but the schedule: what of it shows in no weight, such as body.input_mode, must tell prefixes
        # apart.
        start = {**inputs, "config": without_schedule(config).hashed()}
        prefixes = Prefixes(
            store=worker.store, inputs=start, epochs=frozenset(prefix_epochs),
            report_reused=lambda seconds: record.reuse("finetune-prefix", seconds),
        )  # fmt: skip
        saving = Saving(
            path=home / CHECKPOINT, identity=identity, every_epochs=checkpoints.epochs, every_s=60 * checkpoints.minutes
        )
        setup = FinetuneSetup(
            config=config.finetune, seed_of=config.seed_of, device=worker.device,
            augments=config.data.augment and data.task.augments,
        )  # fmt: skip
        reporter = _prefix_teller(report, prefix_epochs, passed)
        result = finetune(model, data, setup, saving=saving, prefixes=prefixes, report=reporter)
        phases += result.phases
    record.epochs += result.epochs
    record.row |= _finetune_row(result)
    with meter.stage("test"):
        _score_test(model, data, result, config.finetune.eval_batch_size, worker.device, record.row)


def _prefix_teller(report: "Progress", epochs: Iterable[int], passed: Callable[[str], None]) -> "Progress":
    """A report that also tells when the last of the trial's shared prefixes is stored."""
    left = [max(epochs, default=0)]

    def told(row: Mapping[str, Any]) -> None:
        report(row)
        if left and row["epoch"] >= left[0] > 0:  # above it, if all of it was found in the store
            left.clear()
            passed("finetune-prefix")

    return told


def _finetune_inputs(config: TrialConfig, data: TaskData, body: Any, model: Any, worker: "Worker") -> dict[str, Any]:
    """What fine-tuning depends on besides its own knobs."""
    from orca_sweep.bodies.network import to_arrays
    from orca_sweep.store import state_digest
    from orca_sweep.training.predict import choose_precision

    seeds = {source: config.seed_of(source) for source in FINETUNE_SOURCES}
    are_one = len(set(seeds.values())) == 1
    return {
        **worker.key_part(),
        "seed": seeds["finetune-order"] if are_one else seeds,
        "task": [
            config.hashed()["task"],
            data.task.loss,
            dict(data.task.loss_settings),
            data.task.metric,
            data.task.mode,
        ],
        "augment": config.data.augment,
        "precision": choose_precision(config.finetune.precision, worker.device),
        "data": data.fingerprint,
        "scale": [fingerprint(part) for part in (data.target_mean, data.target_std) if part is not None],
        "body": body.about,
        "start": state_digest(to_arrays(model.state_dict())),
        "predictor": config.predictor.model_dump(),  # equal weights, or none, may belong to different predictors
    }


@lru_cache(maxsize=2)
def _task_data(name: str, content: ContentConfig, data_root: Path, part: DataConfig) -> TaskData:
    """Task data is the same for every trial of a task: a reused worker loads it once, and anew if its content changes.

    Augmentation is no part of the data.
    """
    return load_task_data(find_task(name), data_root, part.split_seed, part.n_train, normalise=part.normalise)


def _train_embedder(
    config: TrialConfig,
    embedder: Any,
    data: TaskData,
    body: Any,
    worker: "Worker",
    data_root: Path,
    report: "Progress",
    snapshot_epochs: Iterable[int],
    record: _Record,
    passed: Callable[[str], None],
) -> None:
    from orca_sweep.training.alignment_inputs import AlignmentInputs, proxy_features, target_labels
    from orca_sweep.training.embedder import train_embedder
    from orca_sweep.training.stage_rows import phase_row

    with record.meter.stage("proxy") as phases:
        proxy_data = draw_samples(find_proxy(config.proxy).load(data_root), config.embedder.proxy_pooling)
        treatment = _choose_treatment(config, proxy_data, body.spec.dims)
        proxy = proxy_features(proxy_data, body, worker, treatment)
        if proxy.reused:
            record.reuse("proxy-features", proxy.seconds)
            phases.append({"reused_s": proxy.seconds})
    n_samples = len(proxy_data.labels)
    record.row |= {
        "proxy_sha256": proxy_data.fingerprint,
        "n_proxy_found": n_samples if proxy_data.n_found is None else proxy_data.n_found,
        "n_proxy_classes": len(np.unique(proxy_data.labels)),
        "n_proxy_texts_cut": proxy.n_texts_cut,
    }
    if treatment.scaling is not None:
        record.row["proxy_mean"] = canonical_json(treatment.scaling.mean)
        record.row["proxy_std"] = canonical_json(treatment.scaling.std)
    passed("proxy-features")
    with record.meter.stage("embedder") as phases:
        labels, seconds = target_labels(data, config.embedder.n_pseudo_classes, config.data.split_seed, worker)
        passed("pseudo-labels")
        inputs = AlignmentInputs(data=data, labels=labels, proxy=proxy, body=body, config=config)
        training = train_embedder(embedder, inputs, worker, snapshot_epochs=snapshot_epochs, report=report)
        taken = {
            "pseudo-labels": seconds,
            "objective": training.constants_reused_s,
            "embedder": training.reused_s or None,
        }
        for stage, cost in taken.items():
            if cost is not None:
                record.reuse(stage, cost)
        n_trainable = sum(p.numel() for p in embedder.parameters())
        phases.append(phase_row(training.epochs, (), n_trainable, sum(filter(None, taken.values()))))
    record.epochs += [dict(epoch) for epoch in training.epochs]
    record.row |= {
        "objective_first": training.epochs[0]["objective"],
        "objective_last": training.epochs[-1]["objective"],
        "n_target_classes_skipped": training.n_target_classes_skipped,
        "n_proxy_classes_skipped": training.n_proxy_classes_skipped,
        "n_proxy": training.n_proxy,
        "n_embedder_steps": phases[0]["n_steps"],
        "embedder_lr_integral": phases[0]["lr_integral"],
        "n_trainable_embedder": n_trainable,
    }


def _choose_treatment(config: TrialConfig, samples: ProxyData, body_dims: int) -> Treatment:
    """How the proxy's images are prepared; texts and precomputed features stay as they are."""
    inputs, settings = samples.inputs, config.embedder
    if body_dims == 1 or not isinstance(inputs, np.ndarray | Noise):
        return Treatment()
    scaling = None
    if settings.proxy_scaling == "proxy":
        scaling = choose_proxy_scaling(find_proxy(config.proxy), inputs)
    elif settings.proxy_scaling == "body":
        body, fraction = find_body(config.body.name), config.body.pretrain_fraction
        scaling = read_body_scaling(find_rung(body, fraction, config.body.pretrain_seed) if fraction > 0 else body)
    return Treatment(scaling=scaling, is_augmented=settings.proxy_augment)


def _finetune_row(result: Any) -> dict[str, Any]:
    return {
        "val_metric_best": result.val_metric_best,
        "val_metric_last": result.val_metric_last,
        "best_epoch": result.best_epoch,
        "n_steps": result.n_steps,
        "precision": result.precision,
        "micro_batch_size": result.micro_batch_size,
        "lr_integral": math.fsum(row["lr_integral"] for row in result.epochs),
        "n_trainable_phases": canonical_json([phase["n_trainable"] for phase in result.phases]),
        "n_trainable_first": result.epochs[0]["n_trainable"],
        "n_trainable_last": result.epochs[-1]["n_trainable"],
        "resumed_from_epoch": result.resumed_from_epoch,
    }


def _score_test(model: Any, data: TaskData, result: Any, batch_size: int, device: str, row: dict[str, Any]) -> None:
    """Scores the test split, all of it or nothing: the only place where test data meets a model."""
    from orca_sweep.bodies.network import to_tensors
    from orca_sweep.store import state_digest
    from orca_sweep.tasks.measures import METRICS
    from orca_sweep.training.predict import Inference, predict_wholes

    found: dict[str, Any] = {}
    for which, state in (("last", result.last), ("best", result.best)):
        model.load_state_dict(to_tensors(state))
        inference = Inference(device=device, batch_size=batch_size, precision=result.precision)
        prediction, target = predict_wholes(model, data.test, inference)
        metric = METRICS.get(data.task.metric)
        value = metric.compute(prediction, target)
        if not math.isfinite(value):
            raise DivergedError(f"the test metric of the {which} epoch is {value}")
        found[f"test_metric_{which}"] = value
        more = {name: METRICS.get(name).compute(prediction, target) for name in data.task.more_metrics}
        found[f"test_more_{which}"] = canonical_json(more) if more else None
    row |= {
        **found,
        "n_test_unscored": metric.count_unscored(prediction, target),
        "state_sha256": state_digest(result.last),
    }
