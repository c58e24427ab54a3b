"""From dotted settings to the whole, checked config of a trial, and what it needs and shares."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orca_sweep.bodies import (
    DECODERS,
    PICTURE_CHANNELS,
    Body,
    explain_missing_body,
    find_body,
    find_file_problems,
    find_rung,
)
from orca_sweep.bodies.preprocessing import read_body_scaling
from orca_sweep.config import (
    BodyConfig,
    TrialConfig,
    canonical_json,
    declaration,
    digest,
    explain,
    freeze_words,
    freezing,
)
from orca_sweep.config.naming import label_of
from orca_sweep.data import missing_packages
from orca_sweep.data.contents import Contents
from orca_sweep.errors import InputError, Problem
from orca_sweep.objectives import OBJECTIVES
from orca_sweep.proxies import describe_proxy, explain_missing_proxy, find_proxy
from orca_sweep.tasks import Task, describe_raw_inputs, explain_unavailable, find_declared_task_problems, find_task
from orca_sweep.trial.canonical import OBJECTIVE_SETTINGS, PROXY_SETTINGS, canonical_settings, known_task
from orca_sweep.trial.identity import fill_content
from orca_sweep.trial.sources import canonical_sources, has_predictor_weights, unvaried

if TYPE_CHECKING:
    from hashlib import _Hash


def resolve(settings: Mapping[str, Any], contents: Contents | None = None) -> TrialConfig:
    """Returns the whole, checked config of dotted settings.

    What the settings leave open comes from the task's recipe, then from the fields' defaults. Settings
    that cannot change the work get one canonical value, so that equal work has an equal id:

    - without embedder training (no epochs, no proxy or no objective): these three, and all fields of that training;
    - an ``embedder.init`` that gives the same start as another one;
    - a freeze schedule that does the same in this run as another one;
    - the pre-training's length, for a random body;
    - momentum without sgd, betas with sgd, and a learning-rate decay by the factor 1;
    - dropout, if the body is always frozen or the rate is its own;
    - fields that the objective does not use;
    - ``data.normalise`` where nothing is said, which is then the task's own, and of inputs that are codes: none;
    - ``seed_varies: everything``, if split and pre-training are fixed.

    Folders of bodies and proxies become absolute, since workers run in another folder. The user's own files are hashed:
    ids depend on what they hold, not on where they lie.

    Args:
        settings: dotted names and values.
        contents: hashes of the user's own files; None looks at every file again.

    Raises:
        InputError: with every mistake; each starts with the dotted name of the field.
    """
    settings = {**settings, **_declared_texts(settings)}
    problems: list[str | Problem] = [*_unknown_names(settings)]
    task = known_task(settings)
    whole = {**(task.recipe if task else {}), **settings}
    if not problems:
        problems += _unknown_names(whole)
    ranges = _find_range_problems(whole)
    try:
        config = TrialConfig.from_flat(canonical_settings(whole))
    except ValidationError as error:
        problems += [*_mistakes(error, task is not None), *ranges]
        raise InputError(list(dict.fromkeys(problems))) from None
    problems += [] if problems or ranges else _contradictions(config)
    problems += ranges
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return fill_content(canonical_sources(config), contents or Contents())


def _declared_texts(settings: Mapping[str, Any]) -> dict[str, object]:
    """The task and the proxy as texts where mappings declare them."""
    texts: dict[str, object] = {}
    for path, as_text in (("task", declaration.task_as_text), ("proxy", declaration.as_text)):
        value = settings.get(path)
        if isinstance(value, Mapping):
            try:
                texts[path] = as_text(value)
            except ValueError as error:
                raise InputError(f"{path} = {value!r}: {error}.") from None
    return texts


def _mistakes(error: ValidationError, task_known: bool) -> list[Problem]:
    """What pydantic found, said plainly; a missing body follows from an unknown task and is not said again."""
    texts = []
    for place, value, rule in explain(error):
        name = "body.name" if place == "body" else place
        if rule != "field required":
            texts.append(Problem(field=name, value=value, rule=f"{rule}.".replace("?.", "?")))
        elif name == "task" or task_known:
            rule = "this field is missing."
            texts.append(Problem(field=name, rule=rule, remedy="Set it in base or as a factor."))
    return texts


def _unknown_names(settings: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    name = settings.get("embedder.objective", "none")
    if name not in OBJECTIVES:
        problems.append(Problem(field="embedder.objective", value=name, rule=OBJECTIVES.explain_unknown(name)))
    for path, find in (("task", find_task), ("proxy", find_proxy), ("body.name", find_body)):
        if path in settings:
            try:
                find(settings[path])
            except InputError as error:
                value = label_of(settings[path])
                problems += [problem.of(path, value) for problem in error.problems]
    return problems


def _find_range_problems(settings: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the ranges of layers in the freeze schedule, also in phases that the run does not reach."""
    freeze = settings.get("finetune.freeze")
    try:
        freeze = freezing.as_text(freeze)
        body = find_body(settings.get("body.name", ""))
    except (InputError, ValueError):
        return []
    if not isinstance(freeze, str):
        return []
    found = freeze_words.find_range_problems(freeze, f"body {body.name!r}", body.n_layers)
    return [Problem(field="finetune.freeze", value=freeze, rule=rule) for rule in found]


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
            problems += map(str, error.problems)
    problems += _missing_scaling(config, body)
    if task.n_train_max is not None and (config.data.n_train or 0) > task.n_train_max:
        problems.append(
            f"data.n_train = {config.data.n_train}: {task.name!r} has {task.n_train_max} training samples. Ask for fewer."
        )
    if config.data.normalise == "sample" and 0 < math.prod(task.sample_shape[1:]) == 1:
        problems.append(
            f"data.normalise = 'sample': a sample of {task.name!r} has one number per channel, which would become 0. Use"
            " channel."
        )
    if config.finetune.lora_rank is not None and freezing.freezes_kinds_of_weights(config.finetune.freeze):
        problems.append(
            f"finetune.lora_rank = {config.finetune.lora_rank}: adapters stand in for all of the body's weights, so"
            f" finetune.freeze {config.finetune.freeze!r} has no meaning beside them. Freeze parts or layers only."
        )
    if config.finetune.freeze == freeze_words.GRADUAL and config.finetune.freeze_epochs == "forever":
        problems.append(
            "finetune.freeze_epochs = 'forever': gradual-unfreeze needs the number of epochs between two thaws."
        )
    if config.finetune.decay_epochs is not None and config.finetune.decay_epochs <= config.finetune.warmup_epochs:
        problems.append(
            f"finetune.decay_epochs = {config.finetune.decay_epochs}: the decay must end after the warm-up"
            f" ({config.finetune.warmup_epochs} epochs)."
        )
    problems += _nothing_to_train(config, task)
    problems += _alike_channels(config, task, body)
    problem = unvaried(config)
    return [*problems, problem] if problem else problems


def _nothing_to_train(config: TrialConfig, task: Task) -> list[str]:
    """The problem of phases that freeze embedder and body if the predictor has no weights; reported once."""
    if has_predictor_weights(task, config.predictor.dense):
        return []
    finetune = config.finetune
    for phase in freezing.cut_phases(freezing.parse_schedule(finetune.freeze, finetune.freeze_epochs), finetune.epochs):
        if {"embedder", "body"} <= set(phase.frozen):
            return [
                f"finetune.freeze = {finetune.freeze!r}: a phase freezes embedder and body, and predictor.dense 'released' has"
                f" no weights for the signals of {task.name!r}, so nothing is left to train. Let embedder or body train, or"
                " set predictor.dense: linear."
            ]
    return []


def _alike_channels(config: TrialConfig, task: Task, body: Body) -> list[str]:
    """What is wrong where the released predictor of images gives several channels of the field the same numbers.

    It averages the channels of its picture, P, to those of the field: no two of these are alike up to 2 P - 1.
    """
    channels = {1: PICTURE_CHANNELS, 2: body.n_channels, None: None}[body.dims]
    if config.predictor.dense != "released" or not task.is_dense or task.dims != 2 or channels is None:
        return []
    if task.output_shape[0] <= 2 * channels - 1:
        return []
    return [
        f"predictor.dense = 'released': it averages the channels of a picture ({channels}) to those of {task.name!r}"
        f" ({task.output_shape[0]}), so that some of these are always alike. Set predictor.dense: linear."
    ]


def _missing_scaling(config: TrialConfig, body: Body) -> list[str]:
    """What is wrong with the body's own scaling, if the config asks for it and the body is a local folder."""
    if config.embedder.proxy_scaling != "body" or body.location is None or not Path(body.location).is_dir():
        return []
    try:
        read_body_scaling(body)
    except InputError as error:
        return list(map(str, error.problems))
    return []


def shared_stages(config: TrialConfig) -> dict[str, str]:
    """Returns the stage artifacts that a trial shares with others, as ``StageNames`` does."""
    return StageNames()(config)


class StageNames:
    """Names the stage artifacts of many trials, for the length of one plan: each is written and hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[dict[str, str], _Hash | None]] = {}
        self._numbers: dict[int, tuple[int, object]] = {}
        """By the identity of a part of a config, which is kept so that no other takes its place: equal parts have one
        number."""
        self._parts: dict[object, int] = {}

    def __call__(self, config: TrialConfig) -> dict[str, str]:
        """Returns the stage artifacts that a trial shares with others: stage to a name for its content, as they are made.

        Told from the config alone, before anything is loaded: equal names are equal work. The names of embedder runs leave
        their length out, since a longer one holds the shorter ones.
        """
        config = config.as_run()
        parts = map(self._number, (config.data, config.body, config.embedder))
        key = (config.task, config.proxy, *parts)
        if key not in self._known:
            self._known[key] = self._name(config)
        names, embedder = self._known[key]
        if embedder is None:
            return names.copy()
        embedder = embedder.copy()
        seeds = [config.seed_of("embedder-init"), config.seed_of("embedder-training")]
        embedder.update(f"{canonical_json(seeds)}]".encode())
        return {**names, "embedder": embedder.hexdigest()[:16]}

    def _number(self, part: object) -> int:
        known = self._numbers.get(id(part))
        if known is None:
            known = self._numbers[id(part)] = self._parts.setdefault(part, len(self._parts)), part
        return known[0]

    def _name(self, config: TrialConfig) -> tuple[dict[str, str], "_Hash | None"]:
        """The names that no run seed is part of, and the hash of an embedder run, still without its seeds."""
        flat = config.flat()
        body = {path: value for path, value in flat.items() if path.startswith("body.")}
        names: dict[str, str] = {}
        if find_body(config.body.name).pretrain is not None and config.body.pretrain_fraction > 0:
            names["pretrain"] = pretrained_name(config.body)
        if config.embedder.epochs == 0:
            return names, None
        proxy = {"proxy": config.proxy, **{path: flat[path] for path in PROXY_SETTINGS}}
        names["proxy-features"] = digest("proxy-features", {**body, **proxy})
        data = {path: value for path, value in flat.items() if path == "task" or path.startswith("data.")}
        if find_task(config.task).kind != "classification":
            names["pseudo-labels"] = digest("pseudo-labels", {**data, "n": config.embedder.n_pseudo_classes})
        objective = {path: flat[path] for path in ("embedder.objective", "embedder.proxy_samples", *OBJECTIVE_SETTINGS)}
        names["objective"] = digest("objective", {**body, **proxy, **objective})
        others = ("embedder.epochs", "seed", "seed_varies")
        embedder = {k: v for k, v in flat.items() if not k.startswith(("finetune.", "predictor.")) and k not in others}
        return names, hashlib.sha256(f"embedder:[{canonical_json(embedder)},".encode())


def pretrained_name(body: BodyConfig) -> str:
    """Returns the name by which plans know the artifact of our own pre-training of a body."""
    return digest("pretrain", {f"body.{path}": value for path, value in body.model_dump().items()})


def unavailable_parts(configs: Iterable[TrialConfig], data_root: Path) -> list[str | Problem]:
    """Returns what the trials need and this machine lacks (files, packages), each with what to do."""
    configs = list(configs)
    problems: list[str | Problem] = []
    for name in dict.fromkeys(config.task for config in configs):
        problems += explain_unavailable(find_task(name), data_root)
    problems += find_task_problems(configs)
    for name in dict.fromkeys(config.body.name for config in configs):
        problems += explain_missing_body(find_body(name))
    problems += find_body_problems(configs)
    for name in dict.fromkeys(config.proxy for config in configs):
        problems += explain_missing_proxy(find_proxy(name), data_root)
    if any(config.finetune.lora_rank is not None for config in configs):
        problems += missing_packages("finetune.lora_rank", ("peft",), "lora")
    return problems


def describe_proxies(configs: Iterable[TrialConfig], labels: Mapping[str, str]) -> list[str]:
    """Returns what the local files of the trials' proxies hold, a line for each that can be read here, by its label."""
    names = dict.fromkeys(config.proxy for config in configs)
    return [text for name in names if (text := describe_proxy(name, labels[name])) is not None]


def describe_inputs(configs: Iterable[TrialConfig]) -> list[str]:
    """Returns a warning for each declared task whose raw inputs are far from zero mean and unit spread.

    Cost: the first 16 MiB of each task that is not normalised.
    """
    pairs = dict.fromkeys((config.task, config.data.normalise) for config in configs)
    return [text for text in (describe_raw_inputs(*pair) for pair in pairs) if text is not None]


def find_body_problems(configs: Iterable[TrialConfig]) -> list[Problem]:
    """Returns what is wrong with the files of the trials' bodies, as far as their headers show it; loads nothing.

    Cost: a few milliseconds per body, whatever the number of trials.
    """
    rungs = {(body.name, body.pretrain_fraction, body.pretrain_seed): None for body in (c.body for c in configs)}
    problems: list[Problem] = []
    for name, fraction, seed in rungs:
        body = find_body(name)
        problems += find_file_problems(
            find_rung(body, fraction, seed) if fraction > 0 else body, has_weights=fraction > 0
        )
    return list(dict.fromkeys(problems))


def find_task_problems(configs: Iterable[TrialConfig]) -> list[str]:
    """Returns what is wrong with the user's own files of declared tasks, as far as headers tell; reads no data.

    Cost: a few milliseconds for each task, whatever the number of trials.
    """
    return [
        text for name in dict.fromkeys(config.task for config in configs) for text in find_declared_task_problems(name)
    ]


def unavailable_loggers(names: Iterable[str]) -> list[str]:
    """Returns which loggers' packages are not installed here, each with what to do: the loggers run where Tune does."""
    packages = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
    return [
        text
        for name in names
        if name in packages
        for text in missing_packages(f"loggers: {name}", (packages[name],), None)
    ]
