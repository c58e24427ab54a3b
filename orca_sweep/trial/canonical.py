"""Canonical settings of a trial: equal work has equal settings, and so an equal id."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from orca_sweep.bodies import Body, canonicalise_body, find_common_dropout
from orca_sweep.config import (
    Facts,
    Normalise,
    default_settings,
    find_idle,
    freezing,
    knobs,
    read_facts,
)
from orca_sweep.config.acting import BY_FORM, DEFAULT
from orca_sweep.config.canonical_schedules import RunFacts, canonicalise_schedule
from orca_sweep.config.declaration import without_shuffling
from orca_sweep.config.freeze_words import without_predictor
from orca_sweep.proxies import canonicalise_proxy
from orca_sweep.tasks import canonicalise_task, drop_normalise
from orca_sweep.trial.facts import describe_records
from orca_sweep.trial.records import KnownRecords
from orca_sweep.trial.sources import has_predictor_weights

WRONG = object()
"""A value that its field does not accept."""


def canonical_settings(settings: Mapping[str, Any], records: KnownRecords) -> dict[str, Any]:
    """Returns the settings with one fixed value for each setting that cannot change the work of this trial.

    - A knob that does not act in this trial, by the rules beside its field, takes its default.
    - Without embedder training (no epochs, no proxy or no objective), these three are 0, none and none.
    - Where the objective sees no proxy labels, permuted labels are the real ones.
    - Where several values of ``embedder.init``, ``embedder.label_gradient``, ``embedder.proxy_scaling``,
      ``finetune.freeze``, ``finetune.dropout`` or ``body.pretrain_steps`` do the same work, one of them stands for all.
    - ``data.normalise`` takes the task's own way where it is null or the inputs are codes.

    A wrong value stays as it is: validation of its field reports it.

    Args:
        settings: dotted names and values, including the task's recipe.
        records: the records that the settings name.
    """
    flat = {**settings, **_canonical_names(settings), **_canonical_normalise(settings, records)}
    flat |= _canonical_freeze(flat, records)
    facts = _read_facts(flat, records)
    for path, rule in find_idle(facts).items():
        if rule.idle is DEFAULT:
            flat.pop(path, None)
        elif rule.idle is not BY_FORM:
            flat[path] = rule.idle
    return flat | _canonical_forms(flat, records, facts)


def _read_facts(flat: Mapping[str, Any], records: KnownRecords) -> Facts:
    """The facts of the settings and their records; a wrong value counts as one that acts."""
    decay = {path: _read_field(flat, path) for path in ("embedder.lr_decay", "embedder.lr_decay_after")}
    unknown = {"decays_embedder_lr": None} if WRONG in decay.values() else {}
    return read_facts({**default_settings(), **flat, **decay}, **describe_records(records), **unknown)


def _read_field(flat: Mapping[str, Any], path: str) -> Any:
    """A field's value in its own type, its default if it is not set, or ``WRONG`` if the field does not accept it."""
    if path not in flat:
        return default_settings()[path]
    try:
        return knobs()[path].read(flat[path])
    except ValidationError:
        return WRONG


# One way to write each setting ---------------------------------------------------------------------


def _canonical_names(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical names of task, proxy and body."""
    names = {"task": canonicalise_task, "proxy": canonicalise_proxy, "body.name": canonicalise_body}
    return {path: find(flat[path]) for path, find in names.items() if path in flat}


def _canonical_normalise(flat: Mapping[str, Any], records: KnownRecords) -> dict[str, Any]:
    """The normalisation of the settings, else the task's own.

    A declared task's ``normalise`` moves from its declaration to the field. Inputs that are codes are never normalised.
    """
    task = records.task
    if task is None:
        return {}
    normalise = flat.get("data.normalise")
    if normalise is None or (task.codes and normalise in get_args(Normalise)):
        normalise = task.normalise_inputs
    return {"task": drop_normalise(canonicalise_task(flat["task"])), "data.normalise": normalise}


def _canonical_freeze(flat: Mapping[str, Any], records: KnownRecords) -> dict[str, Any]:
    """The canonical form of the freeze schedule in this run; empty if the text is not a schedule.

    If every phase holds the rate at its peak, warm-up and decay take their defaults.
    """
    whole = {**default_settings(), **flat}
    freeze, frozen, epochs = (whole[f"finetune.{name}"] for name in ("freeze", "freeze_epochs", "epochs"))
    idle: dict[str, Any] = {}
    try:
        text = freezing.as_text(freeze)
        if not isinstance(text, str):
            return {}
        dense = flat.get("predictor.dense", "released")
        if records.task is not None and not has_predictor_weights(records.task, dense):
            text = without_predictor(text)
        if freezing.never_follows_schedule(text, frozen, epochs):
            idle = {path: default_settings()[path] for path in find_idle(Facts(follows_rate=False))}
        freeze, frozen = canonicalise_schedule(text, frozen, epochs, _run_facts({**whole, **idle}, records.body))
    except (TypeError, ValueError):
        return {}  # validation of the fields reports the mistake
    return {"finetune.freeze": freeze, "finetune.freeze_epochs": frozen, **idle}


def _run_facts(whole: Mapping[str, Any], body: Body | None) -> RunFacts:
    """The facts that decide which words of a freeze schedule have an effect; what is unknown has one."""
    architecture = None if body is None else body.architecture
    return RunFacts(
        warmup_epochs=whole["finetune.warmup_epochs"],
        decay_epochs=whole["finetune.decay_epochs"],
        optimizer_remembers=whole["finetune.optimizer"] != "sgd" or whole["finetune.momentum"] != 0,
        merges_patches=architecture in ("swin", None),
    )


def _canonical_forms(flat: Mapping[str, Any], records: KnownRecords, facts: Facts) -> dict[str, Any]:
    """One value for each knob that acts but has several values that do the same in this trial."""
    forms: dict[str, Any] = {}
    body, objective = records.body, records.objective
    if facts.trains_embedder and facts.objective_sees_labels is False:
        forms["proxy"] = without_shuffling(flat["proxy"])
    published = objective.settings.get("label_gradient") if objective is not None and facts.trains_embedder else None
    if published is not None and flat.get("embedder.label_gradient") is None:
        forms["embedder.label_gradient"] = published
    if body is None:
        return forms
    # random and orca-untrained differ only in positions, and embedders of vision bodies have none.
    if body.dims == 2 and flat.get("embedder.init") == "orca-untrained":
        forms["embedder.init"] = "random"
    if _read_field(flat, "finetune.dropout") == find_common_dropout(body):
        forms["finetune.dropout"] = None
    if body.pretrain is not None:
        if flat.get("body.pretrain_steps") == body.pretrain.steps:
            forms["body.pretrain_steps"] = None
        # Our own small bodies are pre-trained on raw images.
        if flat.get("embedder.proxy_scaling") == "body":
            forms["embedder.proxy_scaling"] = "none"
    return forms
