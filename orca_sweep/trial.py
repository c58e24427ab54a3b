"""One ORCA run from its config to its record: resolve, then the stages in order. No ray here."""

import contextlib
import hashlib
import math
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orca_sweep import __version__, declaration, freezing
from orca_sweep.bodies import DECODERS, canonical_name, find_body, find_rung, unavailable_body
from orca_sweep.config import BodyConfig, FinetuneConfig, TrialConfig, canonical_json, digest, explain, knobs
from orca_sweep.data import fingerprint, missing_packages
from orca_sweep.errors import BusyError, DivergedError, InputError, OrcaSweepError, TimeLimitError
from orca_sweep.objectives import OBJECTIVES, settings_of
from orca_sweep.proxies import canonical_proxy, find_proxy, unavailable_proxy
from orca_sweep.results import FINAL_STATUSES, Status, finite, write_record
from orca_sweep.space.prefixes import without_schedule
from orca_sweep.store import made_with, numeric_versions
from orca_sweep.tasks import Task, TaskData, canonical_task, find_task, task_data, unavailable

if TYPE_CHECKING:
    from orca_sweep.stages import Place, Progress

CHECKPOINT = "checkpoint.safetensors"
# Fields that are settings of an objective, where it takes them.
OBJECTIVE_SETTINGS = (
    "embedder.epsilon",
    "embedder.extra_iterations",
    "embedder.label_gradient",
    "embedder.n_bandwidths",
    "embedder.bandwidth_factor",
    "embedder.n_projections",
)
# Fields that change nothing when the embedder is not trained.
EMBEDDER_TRAINING = (
    *OBJECTIVE_SETTINGS,
    "embedder.optimizer",
    "embedder.lr",
    "embedder.weight_decay",
    "embedder.lr_decay",
    "embedder.lr_decay_epochs",
    "embedder.max_samples_per_class",
    "embedder.proxy_samples",
    "embedder.n_pseudo_classes",
)


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
    knobs; a freeze schedule as the run can tell it apart; with a random body the pre-training's length; momentum without
    sgd; what the objective does not take. Folders of bodies and proxies become absolute: a worker runs in another folder.

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
    return config


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
    if "proxy" in flat:
        flat["proxy"] = canonical_proxy(flat["proxy"])
    if "body.name" in flat:
        flat["body.name"] = canonical_name(flat["body.name"])
    for path in _without_effect(flat):
        flat.pop(path, None)
    objective = flat.get("embedder.objective", knobs()["embedder.objective"].default)
    published = settings_of(objective).get("label_gradient") if objective in OBJECTIVES else None
    if published is not None and flat.get("embedder.label_gradient") is None:
        flat["embedder.label_gradient"] = published
    return flat


def _without_effect(flat: Mapping[str, Any]) -> list[str]:
    """Fields this task, body, objective or optimizer never looks at; they take their defaults."""
    paths = ["finetune.momentum"] if flat.get("finetune.optimizer") != "sgd" else []
    body_rests = flat.get("finetune.freeze") in ("body", "both") and flat.get("finetune.freeze_epochs") == "forever"
    paths += ["finetune.lora_rank"] if body_rests else []
    paths += ["finetune.lora_alpha"] if body_rests or flat.get("finetune.lora_rank") is None else []
    paths += ["body.pretrain_steps", "body.allow_pickle"] if flat.get("body.pretrain_fraction") == 0 else []
    objective, task = flat.get("embedder.objective", "otdd-exact"), _known_task(flat)
    if objective in OBJECTIVES:
        taken = settings_of(objective)
        paths += [path for path in OBJECTIVE_SETTINGS if path.removeprefix("embedder.") not in taken]
    if task is not None:
        paths += ["embedder.n_pseudo_classes"] if task.kind == "classification" else []
        paths += [] if task.augments else ["data.augment"]
    try:
        body = find_body(flat.get("body.name", ""))
    except InputError:
        return paths
    recipe = body.pretrain
    is_folder = body.location is not None and Path(body.location).is_dir()
    paths += ["body.allow_pickle"] if body.package or (is_folder and not body.only_pickle) else []
    paths += ["embedder.target_length"] if body.dims == 2 else []
    if recipe is None:
        paths += ["body.pretrain_steps"]
        # A published body has one set of weights; only its random counterpart has a seed.
        paths += ["body.pretrain_seed"] if flat.get("body.pretrain_fraction", 1) == 1 else []
    else:
        paths.append("body.allow_pickle")
        paths += ["body.pretrain_steps"] if flat.get("body.pretrain_steps") == recipe.steps else []
    return paths


def _known_task(settings: Mapping[str, Any]) -> Task | None:
    try:
        return find_task(settings.get("task", ""))
    except InputError:
        return None


def _canonical_freeze(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The one way to write a freeze schedule that this run can tell apart; nothing if it is no schedule."""
    defaults = FinetuneConfig()
    freeze, frozen, epochs = (
        flat.get(f"finetune.{name}", getattr(defaults, name)) for name in ("freeze", "freeze_epochs", "epochs")
    )
    try:
        text = freezing.checked(freezing.as_text(freeze))  # type: ignore[arg-type]
        freeze, frozen = freezing.canonical(text, frozen, epochs)
    except (TypeError, ValueError):
        return {}  # the fields' own check says what is wrong
    return {"finetune.freeze": freeze, "finetune.freeze_epochs": frozen}


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
            find_rung(body, config.body.pretrain_fraction, config.body.pretrain_seed)
        except InputError as error:
            problems += error.problems
    if task.n_train_max is not None and (config.data.n_train or 0) > task.n_train_max:
        problems.append(
            f"data.n_train = {config.data.n_train}: {task.name!r} has {task.n_train_max} training samples. Ask for fewer."
        )
    kinds = ("layernorm", "body.norms", "body.attention", "body.biases", "body-without-")
    if config.finetune.lora_rank is not None and any(kind in config.finetune.freeze for kind in kinds):
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
    return problems


def shared_stages(config: TrialConfig) -> dict[str, str]:
    """Returns the stage artifacts that a trial shares with others: stage to a name for its content, as they are made.

    Told from the config alone, before anything is loaded: equal names are equal work. The names of embedder runs leave
    their length out, since a longer one holds the shorter ones.
    """
    flat = config.flat()
    body = {path: value for path, value in flat.items() if path.startswith("body.")}
    names: dict[str, str] = {}
    if find_body(config.body.name).pretrain is not None and config.body.pretrain_fraction > 0:
        names["pretrain"] = _pretrained_name(config.body)
    if config.embedder.epochs == 0:
        return names
    names["proxy-features"] = digest("proxy-features", {**body, "proxy": config.proxy})
    data = {path: value for path, value in flat.items() if path == "task" or path.startswith("data.")}
    if find_task(config.task).kind != "classification":
        names["pseudo-labels"] = digest("pseudo-labels", {**data, "n": config.embedder.n_pseudo_classes})
    objective = {path: flat[path] for path in ("embedder.objective", "embedder.proxy_samples", *OBJECTIVE_SETTINGS)}
    names["objective"] = digest("objective", {**body, "proxy": config.proxy, **objective})
    embedder = {k: v for k, v in flat.items() if not k.startswith("finetune.") and k != "embedder.epochs"}
    return {**names, "embedder": digest("embedder", embedder)}


def _pretrained_name(body: BodyConfig) -> str:
    return digest("pretrain", {f"body.{path}": value for path, value in body.model_dump().items()})


def unavailable_parts(configs: Iterable[TrialConfig], data_root: Path) -> list[str]:
    """Returns what the trials need and this machine lacks (files, packages), each with what to do."""
    configs = list(configs)
    problems: list[str] = []
    for name in dict.fromkeys(config.task for config in configs):
        problems += unavailable(find_task(name), data_root)
    for name in dict.fromkeys(config.body.name for config in configs):
        problems += unavailable_body(find_body(name))
    for name in dict.fromkeys(config.proxy for config in configs):
        problems += unavailable_proxy(find_proxy(name), data_root)
    if any(config.finetune.lora_rank is not None for config in configs):
        problems += missing_packages("finetune.lora_rank", ("peft",), "lora")
    return problems


def unavailable_loggers(names: Iterable[str]) -> list[str]:
    """Returns which loggers' packages are not installed here, each with what to do: the loggers run where Tune does."""
    packages = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
    return [
        text
        for name in names
        if name in packages
        for text in missing_packages(f"loggers: {name}", (packages[name],), None)
    ]


# Running ------------------------------------------------------------------------------------------


@dataclass
class _Record:
    """What is known of a run so far: it ends as a row whatever happens."""

    row: dict[str, Any]
    epochs: list[dict[str, Any]]
    reused: dict[str, float]
    """Seconds that each stage taken from the store had cost."""

    def reuse(self, stage: str, seconds: float) -> None:
        self.reused[stage] = self.reused.get(stage, 0.0) + seconds


def run_trial(
    config: TrialConfig,
    folder: Path,
    place: "Place",
    data_root: Path,
    report: "Progress" = lambda row: None,
    snapshot_epochs: Iterable[int] = (),
    limit_s: float | None = None,
    prefix_epochs: Iterable[int] = (),
    passed: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Runs one trial to its record in ``folder/trials/<trial_id>/`` and returns the record's row.

    A trial that fails, diverges or runs out of memory is a record with that status and the error; it
    never raises for them. A trial that was interrupted continues from its last checkpoint.

    Args:
        config: the resolved config.
        folder: the sweep folder.
        place: store, device and threads.
        data_root: where tasks with files find them.
        report: called once per epoch with what there is to see.
        snapshot_epochs: embedder epochs at which the embedder is stored for other trials.
        limit_s: seconds after which the trial ends at its next epoch, with status ``timeout``; its checkpoint stays.
        prefix_epochs: fine-tuning epochs after which the state is stored for other trials (``shared_prefixes``).
        passed: told of each stage of ``shared_stages`` when its artifact is there, and of ``finetune-prefix``.

    Raises:
        BusyError: if somebody else makes an artifact that is needed and the store has no more patience; there is
            no record then, and the trial goes on from there when it is run again.
        StorageError: if not even the record can be written.
    """
    start = time.perf_counter()
    if limit_s is not None:
        report = _within(limit_s, start, config, report)
    record = _Record(_identity(config, place), [], {})
    home = folder / "trials" / config.trial_id
    try:
        _run(config, home, place, data_root, report, snapshot_epochs, prefix_epochs, record, passed)
        _end(record, "ok", None)
    except BusyError:
        raise
    except DivergedError as error:
        record.epochs += [dict(epoch) for epoch in error.epochs]
        _end(record, "diverged", error)
    except TimeLimitError as error:
        _end(record, "timeout", error)
    except Exception as error:  # a failing trial is a row; the others go on
        _end(record, "oom" if _out_of_memory(error) else "failed", error)
        with contextlib.suppress(OSError):  # on a full disk the row matters more
            home.mkdir(parents=True, exist_ok=True)
            (home / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    record.row["wall_time_s"] = time.perf_counter() - start
    record.row |= {"reused": ",".join(record.reused), "reused_s": sum(record.reused.values())}
    write_record(folder, record.row, record.epochs)
    if record.row["status"] in FINAL_STATUSES:
        drop_checkpoint(home)  # not before the record is there
    if record.row["status"] == "ok":
        with contextlib.suppress(OSError):  # only plans to come would miss it
            kept = {**finite(record.row), **_about(place), "config": config.flat()}
            place.store.put_row(config.trial_id, kept)
    return record.row


def _about(place: "Place") -> dict[str, Any]:
    """What a plan to come must equal to find again what was made here, and where it is."""
    return {**made_with(place.device, place.n_threads), "used": place.store.used}


def keep_pretraining(body: BodyConfig, place: "Place") -> None:
    """Tells plans to come that a body has been pre-trained ahead of them, under the name that trials give it."""
    recipe = find_body(body.name).pretrain
    steps = None if recipe is not None and body.pretrain_steps == recipe.steps else body.pretrain_steps
    name = _pretrained_name(body.model_copy(update={"pretrain_steps": steps}))
    place.store.put_row(f"pretrain-{name}", {**_about(place), "made": {"pretrain": name}})


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


def _identity(config: TrialConfig, place: "Place") -> dict[str, Any]:
    return {
        "trial_id": config.trial_id,
        "cell_id": config.cell_id,
        "metric": find_task(config.task).metric,
        "device": place.device,
        "n_threads": place.n_threads,
        "host": platform.node(),
        "code_version": __version__,
        "versions": numeric_versions(),
    }


def drop_checkpoint(home: Path) -> None:
    """Takes away the checkpoint, and what workers that were killed in the middle of writing one left behind."""
    for path in (home / CHECKPOINT, *home.glob(f".{CHECKPOINT}.*.tmp")):
        path.unlink(missing_ok=True)


def _end(record: _Record, status: Status, error: Exception | None) -> None:
    told = isinstance(error, OrcaSweepError)
    text = None if error is None else (str(error) if told else f"{type(error).__name__}: {error}")
    record.row |= {"status": status, "error": text}


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _run(
    config: TrialConfig,
    home: Path,
    place: "Place",
    data_root: Path,
    report: "Progress",
    snapshot_epochs: Iterable[int],
    prefix_epochs: Iterable[int],
    record: _Record,
    passed: Callable[[str], None],
) -> None:
    from orca_sweep import stages
    from orca_sweep.model import build_model
    from orca_sweep.store import stage_key

    clock = _Clock(record.row)
    data = _task_data(config.task, data_root, config.data.split_seed, config.data.n_train)
    sizes = {
        f"n_{name}": part.n_wholes for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    record.row |= {**sizes, "data_sha256": data.fingerprint}
    clock.lap("data_s")

    body_record = find_body(config.body.name)
    body, seconds, reused = stages.pretrain_body(body_record, config.body, place, report)
    if reused:
        record.reuse("pretrain", seconds)
    record.row |= {"pretrain_metric": body.pretrain_metric, "body_sha256": body.digest()}
    clock.lap("body_s")
    passed("pretrain")

    model = build_model(data, body, config)
    record.row["n_parameters"] = sum(p.numel() for p in model.parameters())
    if config.embedder.epochs > 0:
        _train_embedder(
            config, model.embedder, data, body, place, data_root, report, snapshot_epochs, record, clock, passed
        )
        passed("embedder")

    inputs = _finetune_inputs(config, data, body, model, place)
    identity = stage_key("finetune", {**inputs, "finetune": config.finetune.model_dump()})
    # The whole config but the schedule: what of it shows in no weight, such as body.input_mode, must tell prefixes apart.
    start = {**inputs, "config": without_schedule(config).flat()}
    prefixes = stages.Prefixes(
        place.store, start, frozenset(prefix_epochs), lambda seconds: record.reuse("finetune-prefix", seconds)
    )
    checkpoint, told = home / CHECKPOINT, _prefix_teller(report, prefix_epochs, passed)
    result = stages.finetune(
        model, data, config.finetune, config.seed, place.device, checkpoint, identity, told,
        augment=config.data.augment and data.task.augments, prefixes=prefixes,
    )  # fmt: skip
    record.epochs += result.epochs
    record.row |= _finetune_row(result)
    clock.lap("finetune_s")
    _score_test(model, data, result, place.device, record.row)
    clock.lap("test_s")


def _prefix_teller(report: "Progress", epochs: Iterable[int], passed: Callable[[str], None]) -> "Progress":
    """A report that also tells when the last of the trial's shared prefixes is stored."""
    left = [max(epochs, default=0)]

    def told(row: Mapping[str, Any]) -> None:
        report(row)
        if left and row["epoch"] >= left[0] > 0:  # above it, if all of it was found in the store
            left.clear()
            passed("finetune-prefix")

    return told


def _finetune_inputs(config: TrialConfig, data: TaskData, body: Any, model: Any, place: "Place") -> dict[str, Any]:
    """What fine-tuning depends on besides its own knobs."""
    from orca_sweep.bodies.network import to_arrays
    from orca_sweep.store import state_digest

    return {
        **place.key_part(),
        "seed": config.seed,
        "task": [data.task.name, data.task.loss, dict(data.task.loss_settings), data.task.metric],
        "augment": config.data.augment,
        "data": data.fingerprint,
        "scale": [fingerprint(part) for part in (data.target_mean, data.target_std) if part is not None],
        "body": body.about,
        "start": state_digest(to_arrays(model.state_dict())),
    }


class _Clock:
    """Writes the seconds since the last lap into the row."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.row[name] = now - self.last
        self.last = now


@lru_cache(maxsize=2)
def _task_data(name: str, data_root: Path, split_seed: int, n_train: int | None) -> TaskData:
    """Task data is the same for every trial of a task: a reused worker loads it once."""
    return task_data(find_task(name), data_root, split_seed, n_train)


def _train_embedder(
    config: TrialConfig,
    embedder: Any,
    data: TaskData,
    body: Any,
    place: "Place",
    data_root: Path,
    report: "Progress",
    snapshot_epochs: Iterable[int],
    record: _Record,
    clock: _Clock,
    passed: Callable[[str], None],
) -> None:
    from orca_sweep import stages

    proxy_data = find_proxy(config.proxy).load(data_root)
    proxy = stages.proxy_features(proxy_data, body, place)
    if proxy.reused:
        record.reuse("proxy-features", proxy.seconds)
    record.row["proxy_sha256"] = proxy_data.fingerprint
    clock.lap("proxy_s")
    passed("proxy-features")
    labels, seconds = stages.target_labels(data, config.embedder.n_pseudo_classes, config.data.split_seed, place)
    if seconds is not None:
        record.reuse("pseudo-labels", seconds)
    passed("pseudo-labels")
    training = stages.train_embedder(embedder, data, labels, proxy, body, config, place, snapshot_epochs, report)
    if training.constants_reused_s is not None:
        record.reuse("objective", training.constants_reused_s)
    if training.reused_s > 0:
        record.reuse("embedder", training.reused_s)
    record.epochs += [dict(epoch) for epoch in training.epochs]
    first, last = training.epochs[0]["objective"], training.epochs[-1]["objective"]
    record.row |= {
        "objective_first": first,
        "objective_last": last,
        "n_target_classes_skipped": training.n_target_classes_skipped,
        "n_proxy_classes_skipped": training.n_proxy_classes_skipped,
    }
    clock.lap("embedder_s")


def _finetune_row(result: Any) -> dict[str, Any]:
    return {
        "val_metric_best": result.val_metric_best,
        "val_metric_last": result.val_metric_last,
        "best_epoch": result.best_epoch,
        "n_steps": result.n_steps,
        "n_trainable_first": result.epochs[0]["n_trainable"],
        "n_trainable_last": result.epochs[-1]["n_trainable"],
        "resumed_from_epoch": result.resumed_from_epoch,
    }


def _score_test(model: Any, data: TaskData, result: Any, device: str, row: dict[str, Any]) -> None:
    """Scores the test split: the only place where test data meets a model."""
    from orca_sweep.bodies.network import to_tensors
    from orca_sweep.stages import predict_wholes
    from orca_sweep.store import state_digest
    from orca_sweep.tasks.measures import METRICS

    for which, state in (("last", result.last), ("best", result.best)):
        model.load_state_dict(to_tensors(state))
        prediction, target = predict_wholes(model, data.test, device)
        metric = METRICS[data.task.metric]
        value = metric.compute(prediction, target)
        if not math.isfinite(value):
            raise DivergedError(f"the test metric of the {which} epoch is {value}")
        row[f"test_metric_{which}"] = value
        more = {name: METRICS[name].compute(prediction, target) for name in data.task.more_metrics}
        row[f"test_more_{which}"] = canonical_json(more) if more else None
    row["n_test_unscored"] = metric.unscored(prediction, target)
    row["state_sha256"] = state_digest(result.last)
