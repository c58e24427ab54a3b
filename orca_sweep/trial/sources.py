"""Which sources of randomness a trial draws from, as far as its config tells before anything is loaded."""

from collections.abc import Iterator

from orca_sweep.bodies import find_body, has_dropout
from orca_sweep.config import TrialConfig
from orca_sweep.config.freezing import body_is_always_frozen
from orca_sweep.tasks import Task, find_task


def idle_sources(config: TrialConfig) -> dict[str, str]:
    """Returns the sources that nothing of the trial is drawn from, each with the reason.

    What only the data or a published body's own config tell, such as a proxy no larger than its subset, is not among
    them: then all seeds of the source give one and the same run.
    """
    idle = [*_idle_in_data(config), *_idle_in_body(config), *_idle_in_embedder(config), *_idle_in_predictor(config)]
    return dict(idle)


def _idle_in_data(config: TrialConfig) -> Iterator[tuple[str, str]]:
    task = find_task(config.task)
    has_clusters = task.kind != "classification" and config.embedder.epochs > 0
    if task.splits_are_fixed and config.data.n_train is None and not has_clusters:
        yield "data-split", f"the data of {task.name!r} come in three fixed parts"
    if not task.augments:
        yield "augmentation", f"task {task.name!r} augments nothing"
    elif not config.data.augment:
        yield "augmentation", "data.augment is false"


def _idle_in_body(config: TrialConfig) -> Iterator[tuple[str, str]]:
    body, finetune = find_body(config.body.name), config.finetune
    if body.pretrain is None and config.body.pretrain_fraction == 1:
        yield "pre-training", f"body {body.name!r} was published with one set of weights"
    if has_dropout(body, finetune.dropout) is False:
        off = "" if finetune.dropout is None else " at finetune.dropout 0"
        yield "dropout", f"body {body.name!r} has no dropout{off}"
    elif body_is_always_frozen(finetune.freeze, finetune.freeze_epochs):
        forever = " forever" if finetune.freeze_epochs == "forever" else ""
        yield "dropout", f"finetune.freeze {finetune.freeze!r}{forever} leaves the body without dropout"
    if finetune.lora_rank is None:
        yield "adapter-init", "finetune.lora_rank is null: there are no adapters"


def _idle_in_embedder(config: TrialConfig) -> Iterator[tuple[str, str]]:
    body, task = find_body(config.body.name), find_task(config.task)
    if config.embedder.init == "copied" and body.dims == task.dims == 2:
        yield "embedder-init", "embedder.init 'copied' takes all of the embedder's weights from the body"
    if config.embedder.epochs == 0:
        yield "embedder-training", "the embedder is not trained"


def _idle_in_predictor(config: TrialConfig) -> Iterator[tuple[str, str]]:
    task = find_task(config.task)
    if not has_predictor_weights(task, config.predictor.dense):
        yield "predictor-init", f"predictor.dense 'released' has no weights for the signals of {task.name!r}"


def has_predictor_weights(task: Task, dense: str) -> bool:
    """Whether the predictor of a task has weights: ORCA's dense predictor of signals has none."""
    return not (task.is_dense and task.dims == 1 and dense == "released")


def unvaried(config: TrialConfig) -> str | None:
    """Returns what is wrong with ``seed_varies``, or None: a source that is not drawn from makes all seeds one run."""
    varies, fraction = config.seed_varies, config.body.pretrain_fraction
    if varies in ("pre-training", "everything") and find_body(config.body.name).pretrain is None and 0 < fraction < 1:
        return (
            f"seed_varies = {varies!r}: the published runs of body {config.body.name!r} at fraction {fraction:g} are few,"
            " and body.pretrain_seed chooses among them. Make that a factor, and let seed_varies be another level."
        )
    reason = idle_sources(config).get(varies)
    if reason is None:
        return None
    return (
        f"seed_varies = {varies!r}: {reason}, so all seeds would be one and the same run. Take this level out, or exclude it"
        " where it cannot act."
    )


def canonical_sources(config: TrialConfig) -> TrialConfig:
    """Returns the config with ``all`` for ``everything`` where that adds nothing, so that equal work has one id."""
    if config.seed_varies == "everything" and {"data-split", "pre-training"} <= idle_sources(config).keys():
        return config.model_copy(update={"seed_varies": "all"})
    return config
