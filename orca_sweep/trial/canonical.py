"""Canonical settings of a trial: what has no effect takes its default, so that equal work has an equal id."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from orca_sweep.bodies import Body, canonicalise_body, find_body, find_common_dropout
from orca_sweep.config import EmbedderConfig, EmbedderInit, FinetuneConfig, Normalise, freezing, knobs
from orca_sweep.config.canonical_schedules import RunFacts, canonicalise_schedule
from orca_sweep.config.freeze_words import without_predictor
from orca_sweep.errors import InputError
from orca_sweep.objectives import OBJECTIVES, list_settings
from orca_sweep.proxies import canonicalise_proxy, find_proxy
from orca_sweep.tasks import Task, canonicalise_task, drop_normalise, find_task
from orca_sweep.trial.sources import has_predictor_weights

# Fields that are settings of an objective, where it takes them.
OBJECTIVE_SETTINGS = (
    "embedder.epsilon",
    "embedder.extra_iterations",
    "embedder.label_gradient",
    "embedder.n_bandwidths",
    "embedder.bandwidth_factor",
    "embedder.n_projections",
)
# Fields that change how proxy samples enter the body's input layer.
PROXY_SETTINGS = ("embedder.proxy_scaling", "embedder.proxy_augment", "embedder.proxy_pooling")
# Fields that change nothing when the embedder is not trained.
EMBEDDER_TRAINING = (
    *OBJECTIVE_SETTINGS,
    "embedder.optimizer",
    "embedder.lr",
    "embedder.weight_decay",
    "embedder.betas",
    "embedder.momentum",
    "embedder.lr_decay",
    "embedder.lr_decay_after",
    "embedder.max_samples_per_class",
    "embedder.proxy_samples",
    *PROXY_SETTINGS,
    "embedder.n_pseudo_classes",
)

WRONG = object()
"""Stands for a value that its field does not accept."""


def canonical_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings, with one fixed value for whatever cannot change the work of this task, body and proxy.

    A wrong value stays as it is: validation of the field reports it.
    """
    flat = dict(settings)
    if "task" in flat:
        flat |= _canonical_normalise(flat)
    naive = flat.get("embedder.epochs") == 0 or flat.get("embedder.objective") == "none"
    if naive or flat.get("proxy", "none") == "none":
        flat |= {"proxy": "none", "embedder.objective": "none", "embedder.epochs": 0}
        flat = {path: value for path, value in flat.items() if path not in EMBEDDER_TRAINING}
    flat |= _canonical_freeze(flat)
    flat |= _canonical_decay(flat)
    if "proxy" in flat:
        flat["proxy"] = canonicalise_proxy(flat["proxy"])
    if "body.name" in flat:
        flat["body.name"] = canonicalise_body(flat["body.name"])
    flat |= _canonical_init(flat)
    for path in _without_effect(flat):
        flat.pop(path, None)
    flat |= _canonical_scaling(flat)
    objective = flat.get("embedder.objective", knobs()["embedder.objective"].default)
    published = list_settings(objective).get("label_gradient") if objective in OBJECTIVES else None
    if published is not None and flat.get("embedder.label_gradient") is None:
        flat["embedder.label_gradient"] = published
    return flat


def _canonical_normalise(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The task's one name, and what is done to its inputs: what the settings say, else the task's own way.

    A declaration's ``normalise`` is its own way; it moves to the field. Inputs that are codes are never normalised.
    """
    task, name = known_task(flat), canonicalise_task(flat["task"])
    if task is None:
        return {"task": name}
    how = flat.get("data.normalise")
    if how is None or (task.codes and how in get_args(Normalise)):
        how = task.normalise_inputs
    return {"task": drop_normalise(name), "data.normalise": how}


def _without_effect(flat: Mapping[str, Any]) -> list[str]:
    """Fields that this task, body, proxy, objective or optimizer does not use; they take their defaults."""
    paths = [_unused_by_optimizer(flat, stage) for stage in ("embedder", "finetune")]
    is_frozen = freezing.body_is_always_frozen(
        flat.get("finetune.freeze", "none"), flat.get("finetune.freeze_epochs", 0)
    )
    paths += ["finetune.lora_rank", "finetune.dropout"] if is_frozen else []
    paths += ["finetune.lora_alpha"] if is_frozen or flat.get("finetune.lora_rank") is None else []
    paths += ["body.pretrain_steps", "body.allow_pickle"] if flat.get("body.pretrain_fraction") == 0 else []
    objective, task = flat.get("embedder.objective", "otdd-exact"), known_task(flat)
    if objective in OBJECTIVES:
        taken = list_settings(objective)
        paths += [path for path in OBJECTIVE_SETTINGS if path.removeprefix("embedder.") not in taken]
    if task is not None:
        paths += ["embedder.n_pseudo_classes"] if task.kind == "classification" else []
        paths += [] if task.augments else ["data.augment"]
        paths += [] if task.is_dense else ["predictor.dense"]
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return paths
    paths += ["finetune.dropout"] if _read_field(flat, "finetune.dropout") == find_common_dropout(body) else []
    paths += _unseen_proxy_settings(flat.get("proxy", "none"), body)
    recipe = body.pretrain
    is_folder = body.location is not None and Path(body.location).is_dir()
    paths += ["body.allow_pickle"] if body.package or (is_folder and not body.only_pickle) else []
    paths += ["embedder.target_length"] if body.dims == 2 else []
    paths += [] if _may_copy_channels(flat, task, body) else ["embedder.channel_copy"]
    if recipe is None:
        paths += ["body.pretrain_steps"]
        # A published body has one set of weights; only its random counterpart has a seed.
        paths += ["body.pretrain_seed"] if flat.get("body.pretrain_fraction", 1) == 1 else []
    else:
        paths.append("body.allow_pickle")
        paths += ["body.pretrain_steps"] if flat.get("body.pretrain_steps") == recipe.steps else []
    return paths


def _unused_by_optimizer(flat: Mapping[str, Any], stage: str) -> str:
    """The field that a stage's optimizer does not use: betas for sgd, momentum for adam and adamw."""
    return f"{stage}.betas" if flat.get(f"{stage}.optimizer") == "sgd" else f"{stage}.momentum"


def _canonical_decay(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical settings of a constant embedder learning rate; empty if the rate decays."""
    factor, after = _read_field(flat, "embedder.lr_decay"), _read_field(flat, "embedder.lr_decay_after")
    if WRONG in (factor, after) or (factor != 1 and after is not None):
        return {}
    return {"embedder.lr_decay": EmbedderConfig().lr_decay, "embedder.lr_decay_after": None}


def _read_field(flat: Mapping[str, Any], path: str) -> Any:
    """A field's value in its own type, or its default; ``WRONG`` if the field does not accept the value."""
    part, name = path.split(".")
    if path not in flat:
        return getattr({"embedder": EmbedderConfig(), "finetune": FinetuneConfig()}[part], name)
    try:
        return knobs()[path].read(flat[path])
    except ValidationError:
        return WRONG


def _unseen_proxy_settings(name: str, body: Body) -> list[str]:
    """Proxy settings that have no effect with this proxy and body, as far as their records tell."""
    try:
        proxy = find_proxy(name)
    except InputError:
        return []
    scaling, augment, pooling = PROXY_SETTINGS
    has_images = body.dims != 1 and proxy.kind != "text" and proxy.form != "features"
    has_tags = body.dims != 2 and proxy.kind not in ("image", "any") and proxy.form in ("tagged", None)
    return ([] if has_images else [scaling, augment]) + ([] if has_tags else [pooling])


def _canonical_scaling(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces a body's scaling by none for our own small bodies, which were pre-trained on raw images."""
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return {}
    is_none = body.pretrain is not None and flat.get("embedder.proxy_scaling") == "body"
    return {"embedder.proxy_scaling": "none"} if is_none else {}


def _may_copy_channels(flat: Mapping[str, Any], task: Task | None, body: Body) -> bool:
    """Whether patch weights may be copied to another number of channels; True if the number is not known yet."""
    if flat.get("embedder.init", "copied") != "copied" or body.dims == 1:
        return False
    if task is None:
        return True
    return task.dims == 2 and not (body.n_channels and body.n_channels == task.sample_shape[0])


def _canonical_init(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical ``embedder.init`` among those that give the same start for this task and body.

    random and orca-untrained differ in positions only, and embedders for vision bodies have none. Before a ViT they have
    no LayerNorm either, so an embedder of signals has nothing that could be copied.
    """
    task, init = known_task(flat), flat.get("embedder.init")
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return {}
    if task is not None and task.dims == 1 and body.architecture == "vit" and init in get_args(EmbedderInit):
        return {"embedder.init": "copied"}
    return {"embedder.init": "random"} if body.dims == 2 and init == "orca-untrained" else {}


def known_task(settings: Mapping[str, Any]) -> Task | None:
    """Returns the task that the settings name, or None if there is no such task."""
    try:
        return find_task(settings.get("task", ""))
    except InputError:
        return None


def _canonical_freeze(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical form of a freeze schedule in this run; empty if the text is not a schedule.

    If every phase holds the rate at its peak, warm-up and decay have no effect and are turned off.
    """
    whole = {**{f"finetune.{name}": value for name, value in FinetuneConfig()}, **flat}
    freeze, frozen, epochs = (whole[f"finetune.{name}"] for name in ("freeze", "freeze_epochs", "epochs"))
    idle: dict[str, Any] = {}
    try:
        text = freezing.as_text(freeze)
        if not isinstance(text, str):
            return {}
        task = known_task(flat)
        if task is not None and not has_predictor_weights(task, flat.get("predictor.dense", "released")):
            text = without_predictor(text)
        if freezing.never_follows_schedule(text, frozen, epochs):
            idle = {"finetune.warmup_epochs": 0, "finetune.decay_epochs": None}
        freeze, frozen = canonicalise_schedule(text, frozen, epochs, _run_facts({**whole, **idle}))
    except (TypeError, ValueError):
        return {}  # validation of the fields reports what is wrong
    return {"finetune.freeze": freeze, "finetune.freeze_epochs": frozen, **idle}


def _run_facts(whole: Mapping[str, Any]) -> RunFacts:
    """The facts that decide which words of a freeze schedule have an effect; in doubt they have one."""
    try:
        architecture = find_body(whole.get("body.name", "")).architecture
    except InputError:
        architecture = None
    return RunFacts(
        warmup_epochs=whole["finetune.warmup_epochs"],
        decay_epochs=whole["finetune.decay_epochs"],
        optimizer_remembers=whole["finetune.optimizer"] != "sgd" or whole["finetune.momentum"] != 0,
        merges_patches=architecture in ("swin", None),
    )
