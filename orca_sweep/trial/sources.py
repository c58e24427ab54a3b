"""Which sources of randomness a trial draws from, as far as its config says before anything is loaded."""

from collections.abc import Iterator

from orca_sweep.bodies import has_dropout
from orca_sweep.config import TrialConfig, read_facts
from orca_sweep.errors import Problem
from orca_sweep.tasks import Task
from orca_sweep.trial.records import ResolvedTrial


def find_idle_sources(trial: ResolvedTrial) -> dict[str, str]:
    """Returns the sources of randomness that the trial does not draw from, each with the reason.

    Sources that are idle for a reason that only the data or a published body's own config shows, such as a proxy no larger
    than its subset, are not among them: all seeds of these give the same run.
    """
    idle = [*_idle_in_data(trial), *_idle_in_body(trial), *_idle_in_embedder(trial), *_idle_in_predictor(trial)]
    return dict(idle)


def _idle_in_data(trial: ResolvedTrial) -> Iterator[tuple[str, str]]:
    task, config = trial.task, trial.config
    has_clusters = task.kind != "classification" and config.embedder.epochs > 0
    if task.splits_are_fixed and config.data.n_train is None and not has_clusters:
        yield "data-split", f"the data of {task.name!r} come in three fixed parts"
    if not task.augments:
        yield "augmentation", f"task {task.name!r} augments nothing"
    elif not config.data.augment:
        yield "augmentation", "data.augment is false"


def _idle_in_body(trial: ResolvedTrial) -> Iterator[tuple[str, str]]:
    body, finetune = trial.body, trial.config.finetune
    facts = read_facts(trial.config.flat())
    if body.pretrain is None and facts.pretrain_fraction == 1:
        yield "pre-training", f"body {body.name!r} was published with one set of weights"
    if has_dropout(body, finetune.dropout) is False:
        off = "" if finetune.dropout is None else " at finetune.dropout 0"
        yield "dropout", f"body {body.name!r} has no dropout{off}"
    elif not facts.trains_body:
        forever = " forever" if finetune.freeze_epochs == "forever" else ""
        yield "dropout", f"finetune.freeze {finetune.freeze!r}{forever} leaves the body without dropout"
    if not facts.has_adapters:
        yield "adapter-init", "finetune.lora_rank is null: there are no adapters"


def _idle_in_embedder(trial: ResolvedTrial) -> Iterator[tuple[str, str]]:
    embedder = trial.config.embedder
    if embedder.init == "copied" and trial.body.dims == trial.task.dims == 2:
        yield "embedder-init", "embedder.init 'copied' takes all of the embedder's weights from the body"
    if embedder.epochs == 0:
        yield "embedder-training", "the embedder is not trained"


def _idle_in_predictor(trial: ResolvedTrial) -> Iterator[tuple[str, str]]:
    if not has_predictor_weights(trial.task, trial.config.predictor.dense):
        name = trial.task.name
        yield "predictor-init", f"predictor.dense 'released' has no weights for the signals of {name!r}"


def has_predictor_weights(task: Task, dense: str) -> bool:
    """Whether a task's predictor has weights: ORCA's dense predictor of signals has none."""
    return not (task.is_dense and task.dims == 1 and dense == "released")


def explain_unvaried(trial: ResolvedTrial) -> Problem | None:
    """Returns the problem of ``seed_varies``, or None: a source that the trial does not draw from makes all seeds one run."""
    varies, fraction = trial.config.seed_varies, trial.config.body.pretrain_fraction
    if varies in ("pre-training", "everything") and trial.body.pretrain is None and 0 < fraction < 1:
        rule = (
            f"body {trial.body.name!r} has only a few published runs at fraction {fraction:g}, and body.pretrain_seed"
            " chooses among them."
        )
        remedy = "Make body.pretrain_seed a factor, and set seed_varies to another level."
        return Problem(field="seed_varies", value=varies, rule=rule, remedy=remedy)
    reason = None if varies == "all" else find_idle_sources(trial).get(varies)
    if reason is None:
        return None
    return Problem(
        field="seed_varies",
        value=varies,
        rule=f"{reason}, so all seeds would be the same run.",
        remedy="Remove this level, or exclude it where it cannot act.",
    )


def canonical_sources(trial: ResolvedTrial) -> TrialConfig:
    """Returns the config with ``seed_varies: all`` where ``everything`` adds nothing to it, so that equal work has one id."""
    config = trial.config
    if config.seed_varies == "everything" and {"data-split", "pre-training"} <= find_idle_sources(trial).keys():
        return config.model_copy(update={"seed_varies": "all"})
    return config
