"""From dotted settings to the whole, checked config of a trial, and what it needs and shares."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from orca_sweep import declaration, freezing
from orca_sweep.bodies import (
    DECODERS,
    Body,
    canonical_name,
    check_files,
    find_body,
    find_rung,
    own_dropout,
    unavailable_body,
)
from orca_sweep.bodies.preprocessing import body_scaling
from orca_sweep.config import (
    BodyConfig,
    EmbedderConfig,
    EmbedderInit,
    FinetuneConfig,
    TrialConfig,
    digest,
    explain,
    knobs,
)
from orca_sweep.data import missing_packages
from orca_sweep.errors import InputError
from orca_sweep.objectives import OBJECTIVES, settings_of
from orca_sweep.proxies import canonical_proxy, find_proxy, unavailable_proxy
from orca_sweep.tasks import Task, canonical_task, find_task, unavailable
from orca_sweep.trial.sources import canonical_sources, has_predictor_weights, unvaried

# Fields that are settings of an objective, where it takes them.
OBJECTIVE_SETTINGS = (
    "embedder.epsilon",
    "embedder.extra_iterations",
    "embedder.label_gradient",
    "embedder.n_bandwidths",
    "embedder.bandwidth_factor",
    "embedder.n_projections",
)
# Fields that change what the body's input layer sees of the proxy.
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
"""In the place of a value that its field does not take."""


def load_imports(imports: Iterable[str]) -> None:
    """Imports the user's modules and files, each once per process, so that their records are known.

    Raises:
        InputError: naming the import that failed and why.
    """
    problems = []
    for name in imports:
        try:
            _import_file(name) if name.endswith(".py") else import_module(name)
        except Exception as error:  # whatever the user's module raises is the user's to read
            problems.append(f"imports: {name!r} cannot be imported: {type(error).__name__}: {error}.")
    if problems:
        raise InputError(problems)


def code_digest(imports: Iterable[str]) -> str:
    """Returns the SHA-256 of this program's source, and of the modules and files that a space imports."""
    digest = hashlib.sha256(_own_digest().encode())
    for name in imports:
        spec = None if name.endswith(".py") else find_spec(name)
        path = Path(name) if spec is None else Path(spec.origin or "")
        digest.update(path.read_bytes() if path.is_file() else name.encode())
    return digest.hexdigest()


@cache
def _own_digest() -> str:
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] != "_shipped":
            digest.update(f"{place.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def _import_file(name: str) -> None:
    unique = f"orca_sweep_import_{Path(name).stem}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(unique, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python file")
    # Dataclasses and pickles look their module up by name.
    sys.modules[unique] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise


def resolve(settings: Mapping[str, Any]) -> TrialConfig:
    """Returns the whole, checked config of dotted settings.

    What the settings leave open comes from the task's recipe, then from the fields' defaults. Settings
    that cannot change the work are put to one canonical value, so that equal work has an equal id:
    without embedder training (no epochs, no proxy or no objective) these three and the training's own
    knobs; an embedder's start that is another one by another name; a freeze schedule as the run can tell it apart;
    with a random body the pre-training's length; momentum without sgd and betas with it; a decay by 1; dropout of a body
    that always rests, or at its own rate; what the objective does not take; ``seed_varies`` everything where split and
    pre-training are fixed. Folders of
    bodies and proxies become absolute: a worker runs in another folder.

    Raises:
        InputError: with every mistake; each starts with the dotted name of the field.
    """
    if isinstance(settings.get("task"), Mapping):
        settings = {**settings, "task": _task_text(settings["task"])}
    problems = _unknown_names(settings)
    task = _known_task(settings)
    whole = {**(task.recipe if task else {}), **settings}
    if not problems:
        problems = _unknown_names(whole)
    try:
        config = TrialConfig.from_flat(_canonical(whole))
    except ValidationError as error:
        problems += _mistakes(error, task is not None)
        raise InputError(list(dict.fromkeys(problems))) from None
    problems += [] if problems else _contradictions(config)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return canonical_sources(config)


def _task_text(value: Mapping[str, Any]) -> object:
    try:
        return declaration.task_as_text(value)
    except ValueError as error:
        raise InputError(f"task = {value!r}: {error}.") from None


def _mistakes(error: ValidationError, task_known: bool) -> list[str]:
    """What pydantic found, said plainly; a missing body follows from an unknown task and is not said again."""
    texts = []
    for place, value, rule in explain(error):
        name = "body.name" if place == "body" else place
        if rule != "field required":
            texts.append(f"{name} = {value!r}: {rule}.")
        elif name == "task" or task_known:
            texts.append(f"{name} is missing. Set it in base or as a factor.")
    return texts


def _unknown_names(settings: Mapping[str, Any]) -> list[str]:
    problems = []
    name = settings.get("embedder.objective", "none")
    if name not in OBJECTIVES:
        problems.append(f"embedder.objective {name!r}: {OBJECTIVES.unknown(name)}")
    for path, find in (("task", find_task), ("proxy", find_proxy), ("body.name", find_body)):
        if path in settings:
            try:
                find(settings[path])
            except InputError as error:
                problems += [f"{path} {settings[path]!r}: {text}" for text in error.problems]
    return problems


def _canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(settings)
    if "task" in flat:
        flat["task"] = canonical_task(flat["task"])
    naive = flat.get("embedder.epochs") == 0 or flat.get("embedder.objective") == "none"
    if naive or flat.get("proxy", "none") == "none":
        flat |= {"proxy": "none", "embedder.objective": "none", "embedder.epochs": 0}
        flat = {path: value for path, value in flat.items() if path not in EMBEDDER_TRAINING}
    flat |= _canonical_freeze(flat)
    flat |= _canonical_decay(flat)
    if "proxy" in flat:
        flat["proxy"] = canonical_proxy(flat["proxy"])
    if "body.name" in flat:
        flat["body.name"] = canonical_name(flat["body.name"])
    flat |= _canonical_init(flat)
    for path in _without_effect(flat):
        flat.pop(path, None)
    flat |= _canonical_scaling(flat)
    objective = flat.get("embedder.objective", knobs()["embedder.objective"].default)
    published = settings_of(objective).get("label_gradient") if objective in OBJECTIVES else None
    if published is not None and flat.get("embedder.label_gradient") is None:
        flat["embedder.label_gradient"] = published
    return flat


def _without_effect(flat: Mapping[str, Any]) -> list[str]:
    """Fields this task, body, objective or optimizer never looks at; they take their defaults."""
    paths = [_unused_by_optimizer(flat, stage) for stage in ("embedder", "finetune")]
    rests = freezing.body_always_rests(flat.get("finetune.freeze", "none"), flat.get("finetune.freeze_epochs", 0))
    paths += ["finetune.lora_rank", "finetune.dropout"] if rests else []
    paths += ["finetune.lora_alpha"] if rests or flat.get("finetune.lora_rank") is None else []
    paths += ["body.pretrain_steps", "body.allow_pickle"] if flat.get("body.pretrain_fraction") == 0 else []
    objective, task = flat.get("embedder.objective", "otdd-exact"), _known_task(flat)
    if objective in OBJECTIVES:
        taken = settings_of(objective)
        paths += [path for path in OBJECTIVE_SETTINGS if path.removeprefix("embedder.") not in taken]
    if task is not None:
        paths += ["embedder.n_pseudo_classes"] if task.kind == "classification" else []
        paths += [] if task.augments else ["data.augment"]
        paths += [] if task.is_dense else ["predictor.dense"]
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return paths
    paths += ["finetune.dropout"] if _read(flat, "finetune.dropout") == own_dropout(body) else []
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
    """The field of a stage that its optimizer does not use: momentum is sgd's, betas are those of adam and adamw."""
    return f"{stage}.betas" if flat.get(f"{stage}.optimizer") == "sgd" else f"{stage}.momentum"


def _canonical_decay(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The one way to write that the embedder's learning rate never falls; nothing if it does."""
    factor, after = _read(flat, "embedder.lr_decay"), _read(flat, "embedder.lr_decay_after")
    if WRONG in (factor, after) or (factor != 1 and after is not None):
        return {}
    return {"embedder.lr_decay": EmbedderConfig().lr_decay, "embedder.lr_decay_after": None}


def _read(flat: Mapping[str, Any], path: str) -> Any:
    """A field's value in its own type, or its default; ``WRONG`` if it is none, which the field's own check tells."""
    part, name = path.split(".")
    if path not in flat:
        return getattr({"embedder": EmbedderConfig(), "finetune": FinetuneConfig()}[part], name)
    try:
        return knobs()[path].read(flat[path])
    except ValidationError:
        return WRONG


def _unseen_proxy_settings(name: str, body: Body) -> list[str]:
    """Settings that this proxy and body give nothing to act on, as far as their records tell."""
    try:
        proxy = find_proxy(name)
    except InputError:
        return []
    scaling, augment, pooling = PROXY_SETTINGS
    has_images = body.dims != 1 and proxy.kind != "text" and proxy.form != "features"
    has_tags = body.dims != 2 and proxy.kind not in ("image", "any") and proxy.form in ("tagged", None)
    return ([] if has_images else [scaling, augment]) + ([] if has_tags else [pooling])


def _canonical_scaling(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Our own small bodies were pre-trained on raw images: their scaling is none."""
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return {}
    is_none = body.pretrain is not None and flat.get("embedder.proxy_scaling") == "body"
    return {"embedder.proxy_scaling": "none"} if is_none else {}


def _may_copy_channels(flat: Mapping[str, Any], task: Task | None, body: Body) -> bool:
    """Whether patch weights may be copied to another number of channels; what only data or hub know counts as other."""
    if flat.get("embedder.init", "copied") != "copied" or body.dims == 1:
        return False
    if task is None:
        return True
    return task.dims == 2 and not (body.n_channels and body.n_channels == task.sample_shape[0])


def _canonical_init(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The one name of starts that are the same for this task and body: only positions tell random and orca-untrained.

    Embedders of vision bodies have none. Behind a ViT they have no LayerNorm either, and those of signals nothing that
    could be copied.
    """
    task, init = _known_task(flat), flat.get("embedder.init")
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return {}
    if task is not None and task.dims == 1 and body.architecture == "vit" and init in get_args(EmbedderInit):
        return {"embedder.init": "copied"}
    return {"embedder.init": "random"} if body.dims == 2 and init == "orca-untrained" else {}


def _known_task(settings: Mapping[str, Any]) -> Task | None:
    try:
        return find_task(settings.get("task", ""))
    except InputError:
        return None


def _canonical_freeze(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The one way to write a freeze schedule that this run can tell apart; nothing if it is no schedule.

    Where every phase holds the rate at its peak, warm-up and decay cannot act and are off.
    """
    whole = {**{f"finetune.{name}": value for name, value in FinetuneConfig()}, **flat}
    freeze, frozen, epochs = (whole[f"finetune.{name}"] for name in ("freeze", "freeze_epochs", "epochs"))
    idle: dict[str, Any] = {}
    try:
        text = freezing.as_text(freeze)
        if not isinstance(text, str):
            return {}
        task = _known_task(flat)
        if task is not None and not has_predictor_weights(task, flat.get("predictor.dense", "released")):
            text = freezing.without_predictor(text)
        if freezing.never_follows_schedule(text, frozen, epochs):
            idle = {"finetune.warmup_epochs": 0, "finetune.decay_epochs": None}
        freeze, frozen = freezing.canonical(text, frozen, epochs, _run_facts({**whole, **idle}))
    except (TypeError, ValueError):
        return {}  # the fields' own check says what is wrong
    return {"finetune.freeze": freeze, "finetune.freeze_epochs": frozen, **idle}


def _run_facts(whole: Mapping[str, Any]) -> freezing.RunFacts:
    """What decides which words of a freeze schedule act; what is not known counts as if they did."""
    try:
        architecture = find_body(whole.get("body.name", "")).architecture
    except InputError:
        architecture = None
    return freezing.RunFacts(
        warmup_epochs=whole["finetune.warmup_epochs"],
        decay_epochs=whole["finetune.decay_epochs"],
        optimizer_remembers=whole["finetune.optimizer"] != "sgd" or whole["finetune.momentum"] != 0,
        merges_patches=architecture in ("swin", None),
    )


def _contradictions(config: TrialConfig) -> list[str]:
    body, task, proxy = find_body(config.body.name), find_task(config.task), find_proxy(config.proxy)
    problems = []
    kind = {1: "text", 2: "image", None: None}[body.dims]
    if kind is not None and proxy.kind not in (kind, "any", "none", None):
        problems.append(f"proxy {proxy.name!r} holds {proxy.kind}s, but the body {body.name!r} embeds {kind}s.")
    if config.body.input_mode != "plain" and body.architecture not in (*DECODERS, None):
        problems.append(
            f"body.input_mode = {config.body.input_mode!r}: {body.name!r} is no decoder, its tokens see each other"
            " anyway. Use plain."
        )
    if body.only_pickle and not config.body.allow_pickle and config.body.pretrain_fraction > 0:
        problems.append(
            f"body.name {body.name!r}: the folder has its weights as a pickle only. Save them as safetensors, or set"
            " body.allow_pickle: true (tensors only are read)."
        )
    if config.body.pretrain_fraction > 0:
        try:
            body = find_rung(body, config.body.pretrain_fraction, config.body.pretrain_seed)
        except InputError as error:
            problems += error.problems
    problems += _missing_scaling(config, body)
    if task.n_train_max is not None and (config.data.n_train or 0) > task.n_train_max:
        problems.append(
            f"data.n_train = {config.data.n_train}: {task.name!r} has {task.n_train_max} training samples. Ask for fewer."
        )
    if config.finetune.lora_rank is not None and freezing.freezes_kinds_of_weights(config.finetune.freeze):
        problems.append(
            f"finetune.lora_rank = {config.finetune.lora_rank}: adapters stand in for all of the body's weights, so"
            f" finetune.freeze {config.finetune.freeze!r} has no meaning beside them. Freeze parts or layers only."
        )
    if config.finetune.freeze == freezing.GRADUAL and config.finetune.freeze_epochs == "forever":
        problems.append(
            "finetune.freeze_epochs = 'forever': gradual-unfreeze needs the number of epochs between two thaws."
        )
    if config.finetune.decay_epochs is not None and config.finetune.decay_epochs <= config.finetune.warmup_epochs:
        problems.append(
            f"finetune.decay_epochs = {config.finetune.decay_epochs}: the decay must end after the warm-up"
            f" ({config.finetune.warmup_epochs} epochs)."
        )
    problems += _nothing_to_train(config, task)
    problem = unvaried(config)
    return [*problems, problem] if problem else problems


def _nothing_to_train(config: TrialConfig, task: Task) -> list[str]:
    """What is wrong with a phase that freezes embedder and body where the predictor has no weights; once for all phases."""
    if has_predictor_weights(task, config.predictor.dense):
        return []
    finetune = config.finetune
    for phase in freezing.beginning(freezing.schedule(finetune.freeze, finetune.freeze_epochs), finetune.epochs):
        if {"embedder", "body"} <= set(phase.frozen):
            return [
                f"finetune.freeze = {finetune.freeze!r}: a phase freezes embedder and body, and predictor.dense 'released' has"
                f" no weights for signals such as those of {task.name!r}, so nothing is left to train. Let embedder or body"
                " train, or set predictor.dense: linear."
            ]
    return []


def _missing_scaling(config: TrialConfig, body: Body) -> list[str]:
    """What is wrong with the body's own scaling, if it is asked for and the body is a folder here."""
    if config.embedder.proxy_scaling != "body" or body.location is None or not Path(body.location).is_dir():
        return []
    try:
        body_scaling(body)
    except InputError as error:
        return list(error.problems)
    return []


def shared_stages(config: TrialConfig) -> dict[str, str]:
    """Returns the stage artifacts that a trial shares with others: stage to a name for its content, as they are made.

    Told from the config alone, before anything is loaded: equal names are equal work. The names of embedder runs leave
    their length out, since a longer one holds the shorter ones.
    """
    config = config.as_run()
    flat = config.flat()
    body = {path: value for path, value in flat.items() if path.startswith("body.")}
    names: dict[str, str] = {}
    if find_body(config.body.name).pretrain is not None and config.body.pretrain_fraction > 0:
        names["pretrain"] = pretrained_name(config.body)
    if config.embedder.epochs == 0:
        return names
    proxy = {"proxy": config.proxy, **{path: flat[path] for path in PROXY_SETTINGS}}
    names["proxy-features"] = digest("proxy-features", {**body, **proxy})
    data = {path: value for path, value in flat.items() if path == "task" or path.startswith("data.")}
    if find_task(config.task).kind != "classification":
        names["pseudo-labels"] = digest("pseudo-labels", {**data, "n": config.embedder.n_pseudo_classes})
    objective = {path: flat[path] for path in ("embedder.objective", "embedder.proxy_samples", *OBJECTIVE_SETTINGS)}
    names["objective"] = digest("objective", {**body, **proxy, **objective})
    others = ("embedder.epochs", "seed", "seed_varies")
    embedder = {k: v for k, v in flat.items() if not k.startswith(("finetune.", "predictor.")) and k not in others}
    seeds = [config.seed_of("embedder-init"), config.seed_of("embedder-training")]
    return {**names, "embedder": digest("embedder", [embedder, seeds])}


def pretrained_name(body: BodyConfig) -> str:
    """Returns the name by which plans know the artifact of our own pre-training of a body."""
    return digest("pretrain", {f"body.{path}": value for path, value in body.model_dump().items()})


def unavailable_parts(configs: Iterable[TrialConfig], data_root: Path) -> list[str]:
    """Returns what the trials need and this machine lacks (files, packages), each with what to do."""
    configs = list(configs)
    problems: list[str] = []
    for name in dict.fromkeys(config.task for config in configs):
        problems += unavailable(find_task(name), data_root)
    for name in dict.fromkeys(config.body.name for config in configs):
        problems += unavailable_body(find_body(name))
    problems += broken_bodies(configs)
    for name in dict.fromkeys(config.proxy for config in configs):
        problems += unavailable_proxy(find_proxy(name), data_root)
    if any(config.finetune.lora_rank is not None for config in configs):
        problems += missing_packages("finetune.lora_rank", ("peft",), "lora")
    return problems


def broken_bodies(configs: Iterable[TrialConfig]) -> list[str]:
    """Returns what is wrong with the files of the trials' bodies, as far as headers tell; loads nothing.

    Cost: a few milliseconds for each body, whatever the number of trials.
    """
    rungs = {(body.name, body.pretrain_fraction, body.pretrain_seed): None for body in (c.body for c in configs)}
    problems: list[str] = []
    for name, fraction, seed in rungs:
        body = find_body(name)
        problems += check_files(find_rung(body, fraction, seed) if fraction > 0 else body, has_weights=fraction > 0)
    return list(dict.fromkeys(problems))


def unavailable_loggers(names: Iterable[str]) -> list[str]:
    """Returns which loggers' packages are not installed here, each with what to do: the loggers run where Tune does."""
    packages = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
    return [
        text
        for name in names
        if name in packages
        for text in missing_packages(f"loggers: {name}", (packages[name],), None)
    ]
