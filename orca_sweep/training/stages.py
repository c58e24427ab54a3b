"""The stages of one trial, in order, and what each writes into the trial's row.

``results/columns.py`` declares the columns of that row; ``run.py`` wraps the stages with what happens when they fail.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orca_sweep.bodies.preprocessing import read_body_scaling
from orca_sweep.config import ContentConfig, DataConfig, Source, canonical_json
from orca_sweep.data import fingerprint
from orca_sweep.data.contents import Contents
from orca_sweep.errors import DataError, DivergedError
from orca_sweep.proxies import Noise, ProxyData, Treatment, choose_proxy_scaling, draw_samples
from orca_sweep.space.prefixes import without_schedule
from orca_sweep.tasks import Task, TaskData, describe_metric, load_task_data
from orca_sweep.training.context import CHECKPOINT, RunContext, RunRecord, find_home
from orca_sweep.trial.identity import find_changes
from orca_sweep.trial.importing import code_digest
from orca_sweep.trial.placebos import labels_act_in
from orca_sweep.trial.records import ResolvedTrial

if TYPE_CHECKING:
    from orca_sweep.training.predict import Inference
    from orca_sweep.training.worker import Progress, Worker

FINETUNE_SOURCES: tuple[Source, ...] = ("finetune-order", "augmentation", "dropout")


def run_stages(trial: ResolvedTrial, context: RunContext, record: RunRecord) -> None:
    """Runs the stages in order, after a check that files and code are still those of the plan."""
    changes = find_changes(trial, context.imports, Contents())
    if changes:
        raise DataError("\n".join(map(str, changes)))
    home, code = find_home(trial.config, context), code_digest(context.imports)
    record.row |= {**describe_metric(trial.task), "dims": trial.task.dims, "code_sha256": code}
    trial = replace(trial, config=trial.config.as_run())
    data = _load_data(trial, context, record)
    body, model = _build_model(trial, data, context, record)
    if trial.config.embedder.epochs > 0:
        proxy = _embed_proxy(trial, body, context, record)
        _train_embedder(
            trial, _EmbedderInputs(data=data, body=body, embedder=model.embedder, proxy=proxy), context, record
        )
    result = _finetune(trial, _FinetuneInputs(data=data, body=body, model=model, home=home), context, record)
    with record.meter.stage("test"):
        batch_size = trial.config.finetune.eval_batch_size
        record.row |= _score_test(model, data, result, batch_size=batch_size, device=context.worker.device)


@dataclass(frozen=True, kw_only=True)
class _FinetuneInputs:
    """What fine-tuning trains."""

    data: TaskData
    body: Any
    model: Any
    home: Path


@dataclass(frozen=True, kw_only=True)
class _EmbedderInputs:
    """What embedder training brings together."""

    data: TaskData
    body: Any
    embedder: Any
    proxy: Any


def _load_data(trial: ResolvedTrial, context: RunContext, record: RunRecord) -> TaskData:
    config = trial.config
    named = _TaskKey(name=config.task, content=config.content, task=trial.task)
    with record.meter.stage("data"):
        data = _task_data(named, context.data_root, config.data.model_copy(update={"augment": True}))
    parts = (("train", data.train), ("val", data.val), ("test", data.test))
    record.row |= {**{f"n_{name}": part.n_wholes for name, part in parts}, "data_sha256": data.fingerprint}
    record.row["normalised"] = data.input_scale
    return data


@dataclass(frozen=True, kw_only=True)
class _TaskKey:
    """A task, compared by its name and the content of its files: equal tasks have the same data."""

    name: str
    content: ContentConfig
    task: Task = field(compare=False)


@lru_cache(maxsize=2)
def _task_data(named: _TaskKey, data_root: Path, part: DataConfig) -> TaskData:
    """The data of a task, loaded once by a worker for all its trials, and again if the content changes.

    Augmentation is not part of the data.
    """
    return load_task_data(named.task, data_root, part.split_seed, part.n_train, normalise=part.normalise)


def _build_model(trial: ResolvedTrial, data: TaskData, context: RunContext, record: RunRecord) -> tuple[Any, Any]:
    """The pre-trained body, and the model around it."""
    from orca_sweep.training.model import build_model
    from orca_sweep.training.pretrain import pretrain_body

    with record.meter.stage("body") as phases:
        body, seconds, is_reused = pretrain_body(trial.rung, trial.config.body, context.worker, context.report)
        if is_reused:
            record.note_reuse("pretrain", seconds)
            phases.append({"reused_s": seconds})
        model = build_model(data, body, trial.config)
    record.row |= {"pretrain_metric": body.pretrain_metric, "body_sha256": body.hash_weights()}
    record.row["n_parameters"] = sum(p.numel() for p in model.parameters())
    context.passed("pretrain")
    return body, model


def _embed_proxy(trial: ResolvedTrial, body: Any, context: RunContext, record: RunRecord) -> Any:
    """The proxy's features under the body's own input layer."""
    from orca_sweep.training.alignment_inputs import proxy_features

    with record.meter.stage("proxy") as phases:
        samples = draw_samples(trial.proxy.load(context.data_root), trial.config.embedder.proxy_pooling)
        treatment = _choose_treatment(trial, samples, body.spec.dims)
        proxy = proxy_features(samples, body, context.worker, treatment)
        if proxy.reused:
            record.note_reuse("proxy-features", proxy.seconds)
            phases.append({"reused_s": proxy.seconds})
    record.row |= _describe_proxy(samples, treatment, proxy.n_texts_cut)
    record.row["proxy_labels_act"] = labels_act_in(trial) and record.row["n_proxy_classes"] > 1
    context.passed("proxy-features")
    return proxy


def _describe_proxy(samples: ProxyData, treatment: Treatment, n_texts_cut: int | None) -> dict[str, Any]:
    n_samples, scaling = len(samples.labels), treatment.scaling
    row = {
        "proxy_sha256": samples.fingerprint,
        "n_proxy_found": n_samples if samples.n_found is None else samples.n_found,
        "n_proxy_classes": len(np.unique(samples.labels)),
        "n_proxy_texts_cut": n_texts_cut,
    }
    if scaling is not None:
        row |= {"proxy_mean": canonical_json(scaling.mean), "proxy_std": canonical_json(scaling.std)}
    return row


def _choose_treatment(trial: ResolvedTrial, samples: ProxyData, body_dims: int) -> Treatment:
    """How the proxy's images are prepared; texts and precomputed features stay unchanged."""
    inputs, settings = samples.inputs, trial.config.embedder
    if body_dims == 1 or not isinstance(inputs, np.ndarray | Noise):
        return Treatment()
    scaling = None
    if settings.proxy_scaling == "proxy":
        scaling = choose_proxy_scaling(trial.proxy, inputs)
    elif settings.proxy_scaling == "body":
        scaling = read_body_scaling(trial.rung)
    return Treatment(scaling=scaling, is_augmented=settings.proxy_augment)


def _train_embedder(trial: ResolvedTrial, aligned: _EmbedderInputs, context: RunContext, record: RunRecord) -> None:
    from orca_sweep.training.alignment_inputs import AlignmentInputs, target_labels
    from orca_sweep.training.embedder import train_embedder
    from orca_sweep.training.stage_rows import phase_row

    config, data, worker = trial.config, aligned.data, context.worker
    with record.meter.stage("embedder") as phases:
        labels, label_s = target_labels(data, config.embedder.n_pseudo_classes, config.data.split_seed, worker)
        context.passed("pseudo-labels")
        inputs = AlignmentInputs(data=data, labels=labels, proxy=aligned.proxy, body=aligned.body, config=config)
        training = train_embedder(
            aligned.embedder, inputs, worker, snapshot_epochs=context.snapshot_epochs, report=context.report
        )
        reused = {
            "pseudo-labels": label_s,
            "objective": training.constants_reused_s,
            "embedder": training.reused_s or None,
        }
        for stage, seconds in reused.items():
            if seconds is not None:
                record.note_reuse(stage, seconds)
        n_trainable = sum(p.numel() for p in aligned.embedder.parameters())
        phases.append(phase_row(training.epochs, (), n_trainable, sum(filter(None, reused.values()))))
    record.epochs += [dict(epoch) for epoch in training.epochs]
    record.row |= {**_describe_training(training, phases[0]), "n_trainable_embedder": n_trainable}
    context.passed("embedder")


def _describe_training(training: Any, phase: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "objective_first": training.epochs[0]["objective"],
        "objective_last": training.epochs[-1]["objective"],
        "n_target_classes_skipped": training.n_target_classes_skipped,
        "n_proxy_classes_skipped": training.n_proxy_classes_skipped,
        "n_proxy": training.n_proxy,
        "n_embedder_steps": phase["n_steps"],
        "embedder_lr_integral": phase["lr_integral"],
    }


def _finetune(trial: ResolvedTrial, built: _FinetuneInputs, context: RunContext, record: RunRecord) -> Any:
    from orca_sweep.store import stage_key
    from orca_sweep.training.checkpoints import Saving
    from orca_sweep.training.finetune import finetune
    from orca_sweep.training.finetune_setup import FinetuneSetup
    from orca_sweep.training.prefixes import Prefixes

    config, worker, checkpoints = trial.config, context.worker, context.checkpoints
    with record.meter.stage("finetune") as phases:
        inputs = _describe_inputs(trial, built, worker)
        identity = stage_key("finetune", {**inputs, "finetune": config.finetune.model_dump()})
        # The whole config without the schedule: settings that change no weight, such as body.input_mode, still make
        # prefixes differ.
        start = {**inputs, "config": without_schedule(config).hashed()}
        prefixes = Prefixes(
            store=worker.store,
            inputs=start,
            epochs=frozenset(context.prefix_epochs),
            report_reused=partial(record.note_reuse, "finetune-prefix"),
        )
        saving = Saving(
            path=built.home / CHECKPOINT,
            identity=identity,
            every_epochs=checkpoints.epochs,
            every_s=60 * checkpoints.minutes,
            saved=context.saved,
        )
        augments = config.data.augment and trial.task.augments
        setup = FinetuneSetup(config=config.finetune, seed_of=config.seed_of, device=worker.device, augments=augments)
        result = finetune(
            built.model, built.data, setup, saving=saving, prefixes=prefixes, report=_report_prefix(context)
        )
        phases += result.phases
    record.epochs += result.epochs
    record.row |= _describe_finetuning(result)
    return result


def _report_prefix(context: RunContext) -> "Progress":
    """A progress callback that also announces when the last of the trial's shared prefixes is stored."""
    left = [max(context.prefix_epochs, default=0)]

    def report(row: Mapping[str, Any]) -> None:
        context.report(row)
        if left and row["epoch"] >= left[0] > 0:  # later than it, if the store had the whole prefix
            left.clear()
            context.passed("finetune-prefix")

    return report


def _describe_inputs(trial: ResolvedTrial, built: _FinetuneInputs, worker: "Worker") -> dict[str, Any]:
    """What fine-tuning depends on in addition to its own knobs."""
    from orca_sweep.bodies.network import to_arrays
    from orca_sweep.store import state_digest
    from orca_sweep.training.predict import choose_precision

    config, data = trial.config, built.data
    task = data.task
    return {
        **worker.key_part(),
        "seeds": {source: config.seed_of(source) for source in FINETUNE_SOURCES},
        "task": [config.hashed()["task"], task.loss, dict(task.loss_settings), task.metric, task.mode],
        "augment": config.data.augment,
        "precision": choose_precision(config.finetune.precision, worker.device),
        "data": data.fingerprint,
        "scale": [fingerprint(part) for part in (data.target_mean, data.target_std) if part is not None],
        "body": built.body.about,
        "start": state_digest(to_arrays(built.model.state_dict())),
        "predictor": config.predictor.model_dump(),  # different predictors may have equal weights, or none
    }


def _describe_finetuning(result: Any) -> dict[str, Any]:
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


def _score_test(model: Any, data: TaskData, result: Any, *, batch_size: int, device: str) -> dict[str, Any]:
    """Scores the whole test split: the only step where test data meets a model."""
    from orca_sweep.store import state_digest
    from orca_sweep.training.predict import Inference

    inference = Inference(device=device, batch_size=batch_size, precision=result.precision)
    last = _score_weights(model, data, result.last, inference)
    digest = state_digest(result.last)
    is_same = state_digest(result.best) == digest
    best = last if is_same else _score_weights(model, data, result.best, inference)
    scores: dict[str, Any] = {}
    for which, (value, more, _) in (("last", last), ("best", best)):
        if not math.isfinite(value):
            raise DivergedError(f"the test metric of the {which} epoch is {value}")
        scores |= {f"test_metric_{which}": value, f"test_more_{which}": more}
    return {**scores, "n_test_unscored": best[2], "state_sha256": digest}


def _score_weights(
    model: Any, data: TaskData, weights: Mapping[str, np.ndarray], inference: "Inference"
) -> tuple[float, str | None, int]:
    """Returns the test metric, the task's further metrics as JSON, and the number of samples without a score."""
    from orca_sweep.bodies.network import to_tensors
    from orca_sweep.tasks.measures import METRICS
    from orca_sweep.training.predict import predict_wholes

    model.load_state_dict(to_tensors(weights))
    prediction, target = predict_wholes(model, data.test, inference)
    metric = METRICS.get(data.task.metric)
    more = {name: METRICS.get(name).compute(prediction, target) for name in data.task.more_metrics}
    value = metric.compute(prediction, target)
    return value, canonical_json(more) if more else None, metric.count_unscored(prediction, target)
