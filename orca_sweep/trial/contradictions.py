"""Finds settings that are valid alone but do not fit together."""

import math
from collections.abc import Iterator
from pathlib import Path

from orca_sweep.bodies import DECODERS, PICTURE_CHANNELS
from orca_sweep.bodies.preprocessing import read_body_scaling
from orca_sweep.config import freeze_words, freezing
from orca_sweep.config.naming import label_of
from orca_sweep.errors import InputError, Problem
from orca_sweep.trial.records import ResolvedTrial
from orca_sweep.trial.sources import explain_unvaried, has_predictor_weights


def find_contradictions(trial: ResolvedTrial) -> Iterator[Problem]:
    """Yields a problem for each combination of settings that does not fit together."""
    yield from _find_in_parts(trial)
    yield from _find_missing_scaling(trial)
    yield from _find_in_data(trial)
    yield from _find_in_finetuning(trial)
    yield from _find_nothing_to_train(trial)
    yield from _find_equal_channels(trial)
    problem = explain_unvaried(trial)
    if problem is not None:
        yield problem


def _find_in_parts(trial: ResolvedTrial) -> Iterator[Problem]:
    body, proxy, config = trial.body, trial.proxy, trial.config.body
    kind = {1: "text", 2: "image", None: None}[body.dims]
    if kind is not None and proxy.kind not in (kind, "any", "none", None):
        yield Problem(
            field="proxy",
            value=label_of(trial.config.proxy),
            rule=f"it holds {proxy.kind}s, but the body {body.name!r} embeds {kind}s.",
            remedy=f"Name a proxy of {kind}s.",
        )
    if config.input_mode != "plain" and body.architecture not in (*DECODERS, None):
        rule = f"{body.name!r} is not a decoder: its tokens see each other anyway."
        yield Problem(field="body.input_mode", value=config.input_mode, rule=rule, remedy="Use plain.")
    if body.only_pickle and not config.allow_pickle and config.pretrain_fraction > 0:
        yield Problem(
            field="body.name",
            value=body.name,
            rule="the folder has its weights as a pickle only.",
            remedy="Save them as safetensors, or set body.allow_pickle: true (tensors only are read).",
        )


def _find_missing_scaling(trial: ResolvedTrial) -> Iterator[Problem]:
    """The problems of the body's own scaling, if the config asks for it and the body is a local folder."""
    rung = trial.rung
    if trial.config.embedder.proxy_scaling != "body" or rung.location is None or not Path(rung.location).is_dir():
        return
    try:
        read_body_scaling(rung)
    except InputError as error:
        yield from error.problems


def _find_in_data(trial: ResolvedTrial) -> Iterator[Problem]:
    data, task = trial.config.data, trial.task
    n_most = trial.n_training_samples
    if n_most is not None and (data.n_train or 0) > n_most:
        yield Problem(
            field="data.n_train",
            value=data.n_train,
            rule=f"{task.name!r} has {n_most} training samples.",
            remedy="Ask for fewer.",
        )
    if data.normalise == "sample" and math.prod(task.sample_shape[1:]) == 1:
        yield Problem(
            field="data.normalise",
            value="sample",
            rule=f"a sample of {task.name!r} has one number per channel, which would become 0.",
            remedy="Use channel.",
        )


def _find_in_finetuning(trial: ResolvedTrial) -> Iterator[Problem]:
    finetune = trial.config.finetune
    if finetune.lora_rank is not None and freezing.freezes_kinds_of_weights(finetune.freeze):
        yield Problem(
            field="finetune.lora_rank",
            value=finetune.lora_rank,
            rule=f"adapters replace the training of all the body's weights, so finetune.freeze {finetune.freeze!r} has no"
            " meaning beside them.",
            remedy="Freeze only parts or layers.",
        )
    if finetune.freeze == freeze_words.GRADUAL and finetune.freeze_epochs == "forever":
        rule = "gradual-unfreeze needs the number of epochs between two thaws."
        yield Problem(field="finetune.freeze_epochs", value="forever", rule=rule)
    if finetune.decay_epochs is not None and finetune.decay_epochs <= finetune.warmup_epochs:
        rule = f"the decay must end after the warm-up ({finetune.warmup_epochs} epochs)."
        yield Problem(field="finetune.decay_epochs", value=finetune.decay_epochs, rule=rule)


def _find_nothing_to_train(trial: ResolvedTrial) -> Iterator[Problem]:
    """The problem of phases that freeze embedder and body where the predictor has no weights; reported once."""
    if has_predictor_weights(trial.task, trial.config.predictor.dense):
        return
    finetune = trial.config.finetune
    if finetune.freeze == freeze_words.GRADUAL and finetune.freeze_epochs == "forever":
        return  # reported as a problem already
    phases = freezing.cut_phases(freezing.parse_schedule(finetune.freeze, finetune.freeze_epochs), finetune.epochs)
    if any({"embedder", "body"} <= set(phase.frozen) for phase in phases):
        yield Problem(
            field="finetune.freeze",
            value=finetune.freeze,
            rule="a phase freezes embedder and body, and predictor.dense 'released' has no weights for the signals of"
            f" {trial.task.name!r}, so nothing is left to train.",
            remedy="Let embedder or body train, or set predictor.dense: linear.",
        )


def _find_equal_channels(trial: ResolvedTrial) -> Iterator[Problem]:
    """The problem of a released image predictor that gives several output channels the same numbers.

    It averages its picture's P channels to the output's channels, which all differ only up to 2 P - 1 of them.
    """
    task, dense = trial.task, trial.config.predictor.dense
    channels = {1: PICTURE_CHANNELS, 2: trial.rung.n_channels, None: None}[trial.rung.dims]
    if dense != "released" or not task.is_dense or task.dims != 2 or channels is None:
        return
    if task.output_shape[0] > 2 * channels - 1:
        yield Problem(
            field="predictor.dense",
            value="released",
            rule=f"it averages the channels of a picture ({channels}) to those of {task.name!r} ({task.output_shape[0]}),"
            " so that some of these are always equal.",
            remedy="Set predictor.dense: linear.",
        )
