"""The columns of the tables: name, type, unit and meaning."""

from dataclasses import dataclass
from typing import Literal

from orca_sweep.config import knobs

TABLE_SCHEMA = 2
"""Raised when a column changes its meaning; tables of other versions are merged by the names of their columns."""
Status = Literal["ok", "failed", "diverged", "oom", "timeout", "lost", "pruned", "unfinished"]
UNFINISHED: Status = "unfinished"
"""Planned and not run to an end: no record says what became of the trial. It is lost only if its worker died too often."""
# A finished outcome is not run again; what failed or was lost is.
FINAL_STATUSES = ("ok", "diverged", "pruned")
ColumnType = Literal["string", "int64", "double", "bool", "time"]
"""``time`` is a moment in UTC, to the millisecond."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    unit: str
    meaning: str


TRIAL_MEASURES = (
    Column("trial_id", "string", "", "hash of the whole config, seed included"),
    Column(
        "cell_id",
        "string",
        "",
        "hash of the config without seed and tuned fields; of the A/A cell with '-aa' behind it",
    ),
    Column("role", "string", "", "replicate; search: a candidate of its cell's tuning; aa: the reference cell again"),
    Column("space", "string", "", "name of the space that planned the trial"),
    Column("levels", "string", "", "JSON: the level of each factor, as the space writes it"),
    Column(
        "status",
        "string",
        "",
        "ok, failed, diverged, oom, timeout, lost (its worker died too often), pruned or unfinished (planned, not run to an"
        " end)",
    ),
    Column("error", "string", "", "what ended a trial that is not ok"),
    Column("traceback", "string", "", "the end of the traceback of a trial that failed, at most 20,000 characters"),
    Column("metric", "string", "", "the task's metric"),
    Column("metric_mode", "string", "", "min: of the metric's values, lower is better; max: higher is better"),
    Column("metric_unit", "string", "", "of the metric's values; empty for plain numbers"),
    Column("task_declared", "string", "", "the declaration behind the task's name; null for a registered task"),
    Column("proxy_declared", "string", "", "the declaration behind the proxy's name; null for a registered proxy"),
    Column(
        "body.name_declared", "string", "", "the folder behind the body's name, where that says its content; else null"
    ),
    Column("dims", "int64", "dimensions", "of a sample of the task: 1 for sequences, 2 for images"),
    Column("val_metric_best", "double", "metric", "validation metric of the best-validated epoch"),
    Column("val_metric_last", "double", "metric", "validation metric of the last epoch"),
    Column(
        "test_metric_best",
        "double",
        "metric",
        "test metric of the best-validated epoch, scored once at the end; null until revealed",
    ),
    Column(
        "test_metric_last",
        "double",
        "metric",
        "test metric of the last epoch, scored once at the end; null until revealed",
    ),
    Column("test_more_best", "string", "", "JSON: the task's further metrics on test, best-validated epoch"),
    Column("test_more_last", "string", "", "JSON: the task's further metrics on test, last epoch"),
    Column("n_test_unscored", "int64", "classes", "classes (mae8: proteins; r2-error: outputs) the metric leaves out"),
    Column("is_sealed", "bool", "", "the trial has test metrics that were not revealed"),
    Column("revealed_at", "time", "UTC", "when the trial's test metrics were revealed"),
    Column("n_reveals_before", "int64", "", "how often test metrics of its sweep had been revealed when it began"),
    Column("best_epoch", "int64", "epochs", "fine-tuning epoch with the best validation metric (first of equals)"),
    Column("n_steps", "int64", "optimizer steps", "fine-tuning optimizer steps done"),
    Column("lr_integral", "double", "", "sum of the learning rates of the fine-tuning optimizer steps"),
    Column("precision", "string", "", "of the matrix products in fine-tuning: float32 or bfloat16"),
    Column("micro_batch_size", "int64", "samples", "per forward pass; half of batch_size where memory did not suffice"),
    Column("n_embedder_steps", "int64", "optimizer steps", "embedder-training optimizer steps done"),
    Column("embedder_lr_integral", "double", "", "sum of the learning rates of the embedder-training steps"),
    Column("objective_first", "double", "squared feature units", "alignment objective at embedder epoch 0"),
    Column("objective_last", "double", "squared feature units", "alignment objective after embedder training"),
    Column("n_target_classes_skipped", "int64", "classes", "target classes with one sample, left out of the alignment"),
    Column("n_proxy_classes_skipped", "int64", "classes", "proxy classes with one sample, left out by otdd"),
    Column("n_proxy", "int64", "samples", "proxy samples aligned to"),
    Column("n_proxy_found", "int64", "samples", "samples of the proxy, before they were cut to those that are used"),
    Column("n_proxy_classes", "int64", "classes", "classes of the proxy's samples"),
    Column("n_proxy_texts_cut", "int64", "texts", "proxy texts longer than what is read of one: their end is not seen"),
    Column(
        "proxy_mean", "string", "pixel in [0, 1]", "JSON: per channel, mean subtracted from proxy images; null = none"
    ),
    Column(
        "proxy_std",
        "string",
        "pixel in [0, 1]",
        "JSON: per channel, standard deviation they are divided by (1 if all pixels are equal); null = none",
    ),
    Column("pretrain_metric", "double", "", "held-out score of our own pre-training: error (images) or loss (text)"),
    Column("n_parameters", "int64", "", "parameters of embedder, body and predictor"),
    Column("n_trainable_embedder", "int64", "", "trainable parameters in embedder training"),
    Column("n_trainable_phases", "string", "", "trainable parameters in each fine-tuning phase, as a JSON list"),
    Column("n_trainable_first", "int64", "", "trainable parameters in the first fine-tuning phase"),
    Column("n_trainable_last", "int64", "", "trainable parameters in the last fine-tuning phase"),
    Column("n_train", "int64", "samples", "training samples used"),
    Column("n_val", "int64", "samples", "validation samples"),
    Column("n_test", "int64", "samples", "test samples"),
    Column(
        "normalised",
        "string",
        "",
        "what was done to the inputs, the mean and spread of each channel that it was measured by, and how the task gives"
        " them",
    ),
    Column("data_s", "double", "s", "loading and splitting the task"),
    Column("body_s", "double", "s", "pre-training or loading the body"),
    Column("proxy_s", "double", "s", "proxy features"),
    Column("embedder_s", "double", "s", "embedder training"),
    Column("finetune_s", "double", "s", "fine-tuning with validation"),
    Column("test_s", "double", "s", "scoring the test split"),
    Column("wall_time_s", "double", "s", "the whole trial; of the last attempt if it was resumed"),
    *(
        Column(f"{stage}_gpu_s", "double", "GPU s", f"{stage}_s times the GPUs that the trial held")
        for stage in ("data", "body", "proxy", "embedder", "finetune", "test")
    ),
    Column("gpu_s", "double", "GPU s", "wall_time_s times the GPUs that the trial held"),
    Column("n_gpus", "double", "GPUs", "GPUs that the trial held; a share if it held part of one"),
    Column("peak_memory_mib", "double", "MiB", "most main memory that the trial's process held while it ran"),
    Column("peak_gpu_memory_mib", "double", "MiB", "most GPU memory that torch held; null without a GPU"),
    Column("reused", "string", "", "stages taken from the store, comma-separated"),
    Column("reused_s", "double", "s", "what the reused stages cost when they were computed"),
    Column("resumed_from_epoch", "int64", "epochs", "epoch of the checkpoint the last attempt took up; 0 = none"),
    Column("state_sha256", "string", "", "hash of the last epoch's weights: equal means bit-equal"),
    Column("data_sha256", "string", "", "hash of the task's three splits as used"),
    Column("proxy_sha256", "string", "", "hash of the proxy data"),
    Column("body_sha256", "string", "", "hash of the body's weights before the trial"),
    Column("content.task", "string", "", "SHA-256 of the files of a task of the user's own; null for others"),
    Column("content.proxy", "string", "", "SHA-256 of the files of a proxy of the user's own; null for others"),
    Column("content.body", "string", "", "SHA-256 of the files of a local body; null for others"),
    Column("content.code", "string", "", "SHA-256 of what the space imports; null if it imports nothing"),
    Column("device", "string", "", "cpu or cuda"),
    Column("n_threads", "int64", "", "torch threads; another count may change the last bits"),
    Column("host", "string", "", "node the trial ran on"),
    Column("started_at", "time", "UTC", "when the trial began; its last attempt if it was resumed"),
    Column("ended_at", "time", "UTC", "when the trial ended"),
    Column("code_version", "string", "", "version of this program"),
    Column("code_sha256", "string", "", "hash of this program's source, and of the files that the space imports"),
    Column("versions", "string", "", "versions of the libraries that change numbers"),
)
EPOCH_COLUMNS = (
    Column("trial_id", "string", "", "the trial"),
    Column("stage", "string", "", "embedder (stage 2) or finetune (stage 3)"),
    Column("epoch", "int64", "epochs", "1 is the first; embedder epoch 0 is the untrained embedder"),
    Column("train_loss", "double", "task loss", "mean training loss over the epoch's samples"),
    Column("val_loss", "double", "task loss", "loss on the whole validation split"),
    Column("val_metric", "double", "metric", "metric on the whole validation split"),
    Column("objective", "double", "squared feature units", "class-weighted alignment objective after this epoch"),
    Column("lr", "double", "", "learning rate of the epoch's last optimizer step"),
    Column("lr_integral", "double", "", "sum of the learning rates of the epoch's optimizer steps"),
    Column("n_steps", "int64", "optimizer steps", "optimizer steps of the epoch"),
    Column("n_trainable", "int64", "", "trainable parameters in this epoch"),
    Column("wall_time_s", "double", "s", "time of the epoch when it was computed"),
)
STAGE_COLUMNS = (
    Column("trial_id", "string", "", "the trial"),
    Column("stage", "string", "", "data, body, proxy, embedder, finetune or test"),
    Column("phase", "int64", "", "phase of the freeze schedule in fine-tuning, from 1; 1 in all other stages"),
    Column("frozen", "string", "", "what rests in this phase, joined by '+'; empty if nothing does"),
    Column("lr_factor", "double", "", "factor of the phase on the learning rate; null outside fine-tuning"),
    Column("constant_lr", "bool", "", "whether the phase holds the rate at its peak; null outside fine-tuning"),
    Column("fresh_optimizer", "bool", "", "whether optimizer and rate schedule restart; null outside fine-tuning"),
    Column("first_epoch", "int64", "epochs", "first epoch of the phase; null in stages without epochs"),
    Column("last_epoch", "int64", "epochs", "last epoch of the phase that was done"),
    Column("n_trainable", "int64", "", "trainable parameters"),
    Column("n_steps", "int64", "optimizer steps", "optimizer steps, those taken over from other runs included"),
    Column("lr_integral", "double", "", "sum of the learning rates of these steps"),
    Column("wall_time_s", "double", "s", "time spent by the trial's last attempt"),
    Column("gpu_s", "double", "GPU s", "wall_time_s times the GPUs that the trial held"),
    Column("reused_s", "double", "s", "what parts taken from the store had cost; 0 = nothing was taken"),
    Column(
        "peak_memory_mib", "double", "MiB", "most main memory of the process from the trial's begin to the stage's end"
    ),
    Column("peak_gpu_memory_mib", "double", "MiB", "most GPU memory that torch held, from the trial's begin on"),
)
SEALED_COLUMNS = tuple(c.name for c in TRIAL_MEASURES if c.name.startswith(("test_metric_", "test_more_")))
"""What is written sealed, and in no table until ``orca-sweep reveal`` has shown it."""


def validation_twin(metric: str) -> str:
    """Returns what stands for a metric column as long as test metrics are sealed."""
    return metric.replace("test_metric_", "val_metric_")


def trial_columns() -> tuple[Column, ...]:
    """Returns the columns of trials.parquet: measures, then every field of a trial's config, typed."""
    fields = (Column(knob.path, knob.column_type, "", knob.meaning) for knob in knobs().values())
    return (*TRIAL_MEASURES, *fields)
