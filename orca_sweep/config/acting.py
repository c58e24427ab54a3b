"""When a knob acts: the rules beside the fields of ``TrialConfig``, and the facts of a trial that decide them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.config import freezing

DEFAULT: Any = object()
"""Stands for the field's default."""
BY_FORM: Any = object()
"""Stands for the value that the canonical form of another setting gives to the field."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a trial that decides which knobs act in it; None means unknown.

    The config alone gives the first half (``read_facts``); the records that it names give the second.
    """

    trains_embedder: bool | None = None
    embedder_init: str | None = None
    embedder_optimizer: str | None = None
    decays_embedder_lr: bool | None = None
    finetune_optimizer: str | None = None
    trains_body: bool | None = None
    """Whether a phase of fine-tuning trains some of the body."""
    follows_rate: bool | None = None
    """Whether a phase follows warm-up and decay instead of holding its learning rate constant."""
    freeze_says_length: bool | None = None
    """Whether the freeze schedule gives its own length, or freezes nothing."""
    has_adapters: bool | None = None
    pretrain_fraction: float | None = None

    label_gradient: bool | None = None
    """Whether the config asks for the gradient through label distances; None: as the objective does by default."""

    objective_settings: Collection[str] | None = None
    objective_sees_labels: bool | None = None
    """Whether the proxy's labels change the objective."""
    published_label_gradient: bool | None = None
    """The objective's own choice of ``label_gradient``; None if it has no such setting."""
    task_kind: str | None = None
    task_dims: int | None = None
    task_channels: int | None = None
    task_augments: bool | None = None
    task_has_codes: bool | None = None
    body_dims: int | None = None
    body_architecture: str | None = None
    body_channels: int | None = None
    body_is_made_here: bool | None = None
    """Whether this program pre-trains the body."""
    body_may_be_pickled: bool | None = None
    proxy_has_images: bool | None = None
    """Whether proxy samples enter the body as images."""
    proxy_has_tags: bool | None = None
    """Whether proxy samples are drawn from tagged sentences."""


@dataclass(frozen=True, kw_only=True)
class When:
    """A rule for when a knob acts, in the ``Annotated`` type of each field that it applies to."""

    words: str
    """The condition in words, such as 'where the embedder is trained'."""
    holds: Callable[[Facts], bool]
    """False only if the facts show that the knob changes nothing; unknown facts let it act."""
    idle: Any = DEFAULT
    """The value of the field where the rule does not hold."""
    written_by: str | None = None
    """The field whose levels also set this field."""

    def with_idle(self, value: Any) -> "When":
        """Returns the rule for a field whose value is not its default where it does not act."""
        return replace(self, idle=value)


def read_facts(settings: Mapping[str, Any], **record_facts: Any) -> Facts:
    """Returns the facts of a whole flat config, with further facts from the records that it names.

    Args:
        settings: every field under its dotted name, each in its own type.
        record_facts: fields of ``Facts`` that add to those of the config or replace them.
    """
    schedule = settings["finetune.freeze"], settings["finetune.freeze_epochs"]
    is_naive = settings["embedder.epochs"] == 0 or "none" in (settings["embedder.objective"], settings["proxy"])
    facts = {
        "trains_embedder": not is_naive,
        "embedder_init": settings["embedder.init"],
        "embedder_optimizer": settings["embedder.optimizer"],
        "decays_embedder_lr": settings["embedder.lr_decay"] != 1 and settings["embedder.lr_decay_after"] is not None,
        "finetune_optimizer": settings["finetune.optimizer"],
        "trains_body": not freezing.body_is_always_frozen(*schedule),
        "follows_rate": _follows_rate(settings),
        "freeze_says_length": isinstance(schedule[0], str) and states_length(schedule[0]),
        "has_adapters": settings["finetune.lora_rank"] is not None,
        "pretrain_fraction": settings["body.pretrain_fraction"],
        "label_gradient": settings["embedder.label_gradient"],
    }
    return Facts(**(facts | record_facts))


def _follows_rate(settings: Mapping[str, Any]) -> bool | None:
    names = ("freeze", "freeze_epochs", "epochs")
    try:
        return not freezing.never_follows_schedule(*(settings[f"finetune.{name}"] for name in names))
    except TypeError:  # an invalid number of epochs
        return None


def states_length(freeze: str) -> bool:
    """Returns whether a schedule leaves nothing for ``finetune.freeze_epochs`` to set."""
    return freeze == "none" or freezing.states_length(freeze)


# Proxy labels -------------------------------------------------------------------------------------

LABELS_CAN_ACT = (
    "Choose an objective whose gradient uses labels, such as otdd-gaussian, or set embedder.label_gradient: true where the"
    " objective takes it"
)
"""What to change where permuted labels test nothing."""


def proxy_labels_act(facts: Facts) -> bool | None:
    """Returns whether the labels of a trial's proxy reach the gradient of embedder training; None if nobody says.

    Where they do not, permuted labels are no placebo: the embedder is trained as with the real ones.
    """
    if facts.trains_embedder is False or facts.objective_sees_labels is False:
        return False
    if facts.objective_sees_labels is None or facts.objective_settings is None:
        return None
    if "label_gradient" not in facts.objective_settings:
        return True
    return facts.published_label_gradient if facts.label_gradient is None else facts.label_gradient


# Embedder -----------------------------------------------------------------------------------------

EMBEDDER_TRAINS = When(words="where the embedder is trained", holds=lambda facts: facts.trains_embedder is not False)
EMBEDDER_DECAYS = When(
    words="where its learning rate decays",
    holds=lambda facts: facts.decays_embedder_lr is not False,
    written_by="embedder.lr_decay",
)
EMBEDDER_SGD = When(words="with sgd", holds=lambda facts: facts.embedder_optimizer in ("sgd", None))
EMBEDDER_ADAM = When(words="with adam and adamw", holds=lambda facts: facts.embedder_optimizer != "sgd")
HAS_CLUSTERS = When(
    words="where targets are not classes",
    holds=lambda facts: facts.task_kind is None or facts.task_kind != "classification",
)
STARTS_DIFFER = When(
    words="except for signals with a ViT, where nothing can be copied",
    holds=lambda facts: not (facts.task_dims == 1 and facts.body_architecture == "vit"),
)
COPIES_CHANNELS = When(
    words="where patch weights are copied to another number of channels",
    holds=lambda facts: (
        facts.embedder_init in ("copied", None)
        and facts.body_dims != 1
        and facts.task_dims in (2, None)
        and not (facts.body_channels and facts.body_channels == facts.task_channels)
    ),
)
HAS_SEQUENCE = When(words="with bodies that take sequences", holds=lambda facts: facts.body_dims != 2)
PROXY_IMAGES = When(words="where proxy samples are images", holds=lambda facts: facts.proxy_has_images is not False)
PROXY_TAGS = When(words="where the proxy holds tagged sentences", holds=lambda facts: facts.proxy_has_tags is not False)


def objective_takes(setting: str) -> When:
    """Returns the rule that the objective has a setting of this name."""
    return When(
        words=f"with objectives that take {setting}",
        holds=lambda facts: facts.objective_settings is None or setting in facts.objective_settings,
    )


# Data, body, predictor ----------------------------------------------------------------------------

AUGMENTS = When(words="with tasks that define an augmentation", holds=lambda facts: facts.task_augments is not False)
HAS_SCALE = When(
    words="except where inputs are codes", holds=lambda facts: facts.task_has_codes is not True, idle=BY_FORM
)
IS_DENSE = When(
    words="for dense tasks", holds=lambda facts: facts.task_kind is None or facts.task_kind.startswith("dense")
)
PRETRAINED = When(words="at pretrain fractions above 0", holds=lambda facts: facts.pretrain_fraction != 0)
MADE_HERE = When(
    words="with bodies that are pre-trained here", holds=lambda facts: facts.body_is_made_here is not False
)
HAS_SEVERAL_RUNS = When(
    words="except where the body was published with one set of weights",
    holds=lambda facts: not (facts.body_is_made_here is False and facts.pretrain_fraction == 1),
)
MAY_BE_PICKLED = When(
    words="where the body's weights may be a pickle", holds=lambda facts: facts.body_may_be_pickled is not False
)

# Fine-tuning --------------------------------------------------------------------------------------

LENGTH_IS_OPEN = When(
    words="where the freeze schedule leaves its length open",
    holds=lambda facts: facts.freeze_says_length is not True,
    idle=BY_FORM,
    written_by="finetune.freeze",
)
FOLLOWS_RATE = When(
    words="where a phase does not hold its learning rate constant",
    holds=lambda facts: facts.follows_rate is not False,
    written_by="finetune.freeze",
)
BODY_TRAINS = When(words="where the body is not always frozen", holds=lambda facts: facts.trains_body is not False)
HAS_ADAPTERS = When(words="where finetune.lora_rank is set", holds=lambda facts: facts.has_adapters is not False)
FINETUNE_SGD = When(words="with sgd", holds=lambda facts: facts.finetune_optimizer in ("sgd", None))
FINETUNE_ADAM = When(words="with adam and adamw", holds=lambda facts: facts.finetune_optimizer != "sgd")
