"""The columns of the tables: name, type, unit and meaning.

The stage that measures a column of ``TRIAL_MEASURES`` sets it in the trial's row (``training/stages.py``). Each knob is a column
by itself. A new column needs no new ``TABLE_SCHEMA``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orca_sweep.config import knobs

TABLE_SCHEMA = 2
"""Raise it whenever a column changes its meaning; only tables of this version are read."""
Status = Literal["ok", "failed", "diverged", "oom", "timeout", "lost", "pruned", "unfinished"]
UNFINISHED: Status = "unfinished"
"""Planned, but not run to an end: the trial has no record. It is lost only if its worker died too often."""
FINAL_STATUSES = ("ok", "diverged", "pruned")
"""Trials with any other status are run again."""
ColumnType = Literal["string", "int64", "double", "bool", "time"]
"""``time`` is a moment in UTC with milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    unit: str
    meaning: str


def _make_columns(rows: Iterable[tuple[str, ColumnType, str, str]]) -> tuple[Column, ...]:
    """Returns columns from their names, types, units and meanings."""
    return tuple(Column(name=name, type=kind, unit=unit, meaning=meaning) for name, kind, unit, meaning in rows)


TRIAL_MEASURES = _make_columns(
    (
        ("trial_id", "string", "", "hash of the whole config, seed included"),
        ("cell_id", "string", "", "hash of the config without the seed and tuned fields; the A/A cell's ends in '-aa'"),
        (
            "role",
            "string",
            "",
            "replicate; search: a candidate in its cell's tuning; aa: an A/A repeat of the reference cell",
        ),
        ("space", "string", "", "name of the space that planned the trial"),
        ("levels", "string", "", "JSON: level of each factor, as the space writes it"),
        (
            "status",
            "string",
            "",
            "ok, failed, diverged, oom, timeout, lost (its worker died too often), pruned or unfinished (planned, but not run to"
            " an end)",
        ),
        ("error", "string", "", "why a trial that is not ok ended"),
        ("traceback", "string", "", "the last 20,000 characters of a failed trial's traceback"),
        ("metric", "string", "", "name of the task's metric"),
        ("metric_mode", "string", "", "min: lower values are better; max: higher values are better"),
        ("metric_unit", "string", "", "unit of the metric; empty for plain numbers"),
        ("metric_low", "double", "metric", "lowest possible value of the metric; null without one, or if not recorded"),
        (
            "metric_high",
            "double",
            "metric",
            "highest possible value of the metric; null without one, or if not recorded",
        ),
        ("task_declared", "string", "", "declaration of the task; null for a registered task"),
        ("proxy_declared", "string", "", "declaration of the proxy; null for a registered proxy"),
        (
            "body.name_declared",
            "string",
            "",
            "folder of the body if its name in this table includes its content; otherwise null",
        ),
        ("dims", "int64", "dimensions", "dimensions of a sample of the task: 1 for sequences, 2 for images"),
        ("val_metric_best", "double", "metric", "validation metric of the epoch with the best validation metric"),
        ("val_metric_last", "double", "metric", "validation metric of the last epoch"),
        (
            "test_metric_best",
            "double",
            "metric",
            "test metric of the epoch with the best validation metric, scored once at the end; null until revealed",
        ),
        (
            "test_metric_last",
            "double",
            "metric",
            "test metric of the last epoch, scored once at the end; null until revealed",
        ),
        (
            "test_more_best",
            "string",
            "",
            "JSON: further test metrics of the task, for the epoch with the best validation metric",
        ),
        ("test_more_last", "string", "", "JSON: further test metrics of the task, for the last epoch"),
        (
            "n_test_unscored",
            "int64",
            "classes",
            "classes (mae8: proteins; r2-error: outputs) that the metric leaves out",
        ),
        ("is_sealed", "bool", "", "whether the trial has test metrics that were not revealed"),
        ("revealed_at", "time", "UTC", "when the trial's test metrics were revealed"),
        ("n_reveals_before", "int64", "", "number of reveals in the sweep before the trial began"),
        (
            "best_epoch",
            "int64",
            "epochs",
            "fine-tuning epoch with the best validation metric; the first one if several are equal",
        ),
        ("n_steps", "int64", "optimizer steps", "optimizer steps of fine-tuning"),
        ("lr_integral", "double", "", "sum of the learning rates over these steps"),
        ("precision", "string", "", "of matrix products in fine-tuning: float32 or bfloat16"),
        (
            "micro_batch_size",
            "int64",
            "samples",
            "samples per forward pass; half of batch_size if memory did not suffice",
        ),
        ("n_embedder_steps", "int64", "optimizer steps", "optimizer steps of embedder training"),
        ("embedder_lr_integral", "double", "", "sum of the learning rates over these steps"),
        ("objective_first", "double", "squared feature units", "alignment objective at embedder epoch 0"),
        ("objective_last", "double", "squared feature units", "alignment objective after embedder training"),
        (
            "n_target_classes_skipped",
            "int64",
            "classes",
            "target classes with only one sample, which the alignment leaves out",
        ),
        ("n_proxy_classes_skipped", "int64", "classes", "proxy classes with only one sample, which OTDD leaves out"),
        ("n_proxy", "int64", "samples", "proxy samples that the target is aligned to"),
        ("n_proxy_found", "int64", "samples", "samples in the proxy data, before the cut to those that are used"),
        ("n_proxy_classes", "int64", "classes", "classes among the proxy samples"),
        (
            "proxy_labels_act",
            "bool",
            "",
            "whether the proxy's labels reach the gradient of embedder training; where they do not, permuted labels train the"
            " embedder as the real ones do, but for rounding, what a short annealing leaves, and classes that are skipped; null"
            " without embedder training, and if the objective does not say",
        ),
        ("n_proxy_texts_cut", "int64", "texts", "proxy texts that are too long, so that only their beginning is used"),
        (
            "proxy_mean",
            "string",
            "pixel in [0, 1]",
            "JSON: mean of each channel, subtracted from proxy images; null if none is",
        ),
        (
            "proxy_std",
            "string",
            "pixel in [0, 1]",
            "JSON: standard deviation of each channel (1 if all pixels are equal) that they are divided by; null if none is",
        ),
        (
            "pretrain_metric",
            "double",
            "",
            "score on held-out data after pre-training by orca-sweep: error (images) or loss (text)",
        ),
        ("n_parameters", "int64", "", "parameters of embedder, body and predictor together"),
        ("n_trainable_embedder", "int64", "", "trainable parameters in embedder training"),
        ("n_trainable_phases", "string", "", "JSON list: trainable parameters in each phase of fine-tuning"),
        ("n_trainable_first", "int64", "", "trainable parameters in the first phase of fine-tuning"),
        ("n_trainable_last", "int64", "", "trainable parameters in the last phase of fine-tuning"),
        ("n_train", "int64", "samples", "training samples used"),
        ("n_val", "int64", "samples", "validation samples"),
        ("n_test", "int64", "samples", "test samples"),
        (
            "normalised",
            "string",
            "",
            "how inputs were normalised: the method, the mean and spread of each channel, and how the task gives them",
        ),
        ("data_s", "double", "s", "time to load and split the task"),
        ("body_s", "double", "s", "time to pre-train or load the body"),
        ("proxy_s", "double", "s", "time to compute proxy features"),
        ("embedder_s", "double", "s", "time of embedder training"),
        ("finetune_s", "double", "s", "time of fine-tuning, validation included"),
        ("test_s", "double", "s", "time to score the test split"),
        ("wall_time_s", "double", "s", "time of the whole trial; of its last attempt if it was resumed"),
        *(
            (f"{stage}_gpu_s", "double", "GPU s", f"{stage}_s times the GPUs that the trial held")
            for stage in ("data", "body", "proxy", "embedder", "finetune", "test")
        ),
        ("gpu_s", "double", "GPU s", "wall_time_s times the GPUs that the trial held"),
        ("n_gpus", "double", "GPUs", "GPUs that the trial held; a fraction if it shared one"),
        ("peak_memory_mib", "double", "MiB", "peak main memory of the trial's process"),
        ("peak_gpu_memory_mib", "double", "MiB", "peak GPU memory that torch held; null without a GPU"),
        ("reused", "string", "", "stages taken from the store, separated by commas"),
        ("reused_s", "double", "s", "time that the reused stages took when they were computed"),
        (
            "taken_from",
            "string",
            "",
            "space of the same launch that ran the trial, which cost nothing here; null if it ran here",
        ),
        (
            "resumed_from_epoch",
            "int64",
            "epochs",
            "epoch of the checkpoint that the last attempt resumed from; 0 if none",
        ),
        ("state_sha256", "string", "", "hash of the weights after the last epoch; equal hashes mean bit-equal weights"),
        ("data_sha256", "string", "", "hash of the task's three splits as used"),
        ("proxy_sha256", "string", "", "hash of the proxy data"),
        ("body_sha256", "string", "", "hash of the body's weights before the trial"),
        ("content.task", "string", "", "SHA-256 of the files of a user's task; null for other tasks"),
        ("content.proxy", "string", "", "SHA-256 of the files of a user's proxy; null for other proxies"),
        ("content.body", "string", "", "SHA-256 of the files of a local body; null for other bodies"),
        ("content.code", "string", "", "SHA-256 of the files that the space imports; null if it imports none"),
        ("device", "string", "", "cpu or cuda"),
        (
            "processor",
            "string",
            "",
            "model of the GPU that the trial ran on, or else of the processor; null if not known",
        ),
        ("n_threads", "int64", "", "torch threads; another number may change the last bits of results"),
        ("host", "string", "", "node that the trial ran on"),
        ("started_at", "time", "UTC", "when the trial began, or its last attempt if it was resumed"),
        ("ended_at", "time", "UTC", "when the trial ended"),
        ("code_version", "string", "", "version of orca-sweep"),
        ("code_sha256", "string", "", "hash of orca-sweep's source and of the files that the space imports"),
        ("versions", "string", "", "versions of the libraries that affect numbers"),
    )
)
EPOCH_COLUMNS = _make_columns(
    (
        ("trial_id", "string", "", "the trial"),
        ("stage", "string", "", "embedder (embedder training) or finetune (fine-tuning)"),
        ("epoch", "int64", "epochs", "epoch, counted from 1; embedder epoch 0 is the untrained embedder"),
        ("train_loss", "double", "task loss", "mean training loss over the epoch's samples"),
        ("val_loss", "double", "task loss", "loss on the whole validation split"),
        ("val_metric", "double", "metric", "metric on the whole validation split"),
        ("objective", "double", "squared feature units", "alignment objective, weighted by class, after the epoch"),
        ("lr", "double", "", "learning rate of the epoch's last optimizer step"),
        ("lr_integral", "double", "", "sum of the learning rates over the epoch's optimizer steps"),
        ("n_steps", "int64", "optimizer steps", "optimizer steps in the epoch"),
        ("n_trainable", "int64", "", "trainable parameters in the epoch"),
        ("wall_time_s", "double", "s", "time that the epoch took when it was computed"),
    )
)
STAGE_COLUMNS = _make_columns(
    (
        ("trial_id", "string", "", "the trial"),
        ("stage", "string", "", "data, body, proxy, embedder, finetune or test"),
        ("phase", "int64", "", "phase of the freeze schedule in fine-tuning, counted from 1; 1 in other stages"),
        ("frozen", "string", "", "parts frozen in this phase, joined by '+'; empty if none are"),
        ("lr_factor", "double", "", "factor on the learning rate in this phase; null outside fine-tuning"),
        ("constant_lr", "bool", "", "whether the phase keeps the learning rate at its peak; null outside fine-tuning"),
        (
            "fresh_optimizer",
            "bool",
            "",
            "whether the optimizer and the learning-rate schedule restart; null outside fine-tuning",
        ),
        ("first_epoch", "int64", "epochs", "first epoch of the phase; null in stages without epochs"),
        ("last_epoch", "int64", "epochs", "last completed epoch of the phase; null in stages without epochs"),
        ("n_trainable", "int64", "", "trainable parameters"),
        ("n_steps", "int64", "optimizer steps", "optimizer steps, those of reused parts included"),
        ("lr_integral", "double", "", "sum of the learning rates over these steps"),
        ("wall_time_s", "double", "s", "time that the trial's last attempt spent"),
        ("gpu_s", "double", "GPU s", "wall_time_s times the GPUs that the trial held"),
        (
            "reused_s",
            "double",
            "s",
            "time that parts taken from the store took when they were computed; 0 if none were taken",
        ),
        (
            "peak_memory_mib",
            "double",
            "MiB",
            "peak main memory of the process from the start of the trial to the end of the stage",
        ),
        (
            "peak_gpu_memory_mib",
            "double",
            "MiB",
            "peak GPU memory that torch held from the start of the trial to the end of the stage",
        ),
    )
)
METRIC_COLUMNS = ("val_metric_best", "val_metric_last", "test_metric_best", "test_metric_last")
"""The columns that cells are compared on."""
SEALED_COLUMNS = tuple(c.name for c in TRIAL_MEASURES if c.name.startswith(("test_metric_", "test_more_")))
"""Records hold these columns sealed, and tables leave them out until ``orca-sweep reveal`` shows them."""


def validation_twin(metric: str) -> str:
    """Returns the validation column that replaces a metric column while test metrics are sealed."""
    return metric.replace("test_metric_", "val_metric_")


def trial_columns() -> tuple[Column, ...]:
    """Returns the columns of trials.parquet: measures, then every field of a trial's config, typed."""
    fields = _make_columns((knob.path, knob.column_type, "", knob.meaning) for knob in knobs().values())
    return (*TRIAL_MEASURES, *fields)
