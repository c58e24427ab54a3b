"""TrialConfig: THE list of knobs of one ORCA run, with type, unit, range, meaning and when each has an effect.

Everything that changes a trial's numbers is a field here, and nothing else is. All rules in a field's ``Annotated`` type
must hold for the field to act (``orca_sweep.config.acting``); a field without rules always acts. A config is flat
(``{"embedder.epochs": 20}``) in spaces, rows and columns, and a nested pydantic object in code.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from orca_sweep.config import acting, declaration, freezing
from orca_sweep.config.digests import digest
from orca_sweep.config.number_lists import betas_as_text, epochs_as_text

Freeze = Annotated[str, BeforeValidator(freezing.as_text), AfterValidator(freezing.check_schedule)]
Betas = Annotated[str, BeforeValidator(betas_as_text)]
GrowingEpochs = Annotated[str | None, BeforeValidator(epochs_as_text)]
Forever = Literal["forever"]
Optimizer = Literal["adamw", "adam", "sgd"]
EmbedderInit = Literal["copied", "random", "orca-untrained"]
ChannelCopy = Literal["cycled", "mean"]
DensePredictorKind = Literal["released", "linear"]
Normalise = Literal["none", "channel", "pointwise", "sample"]
Declared = Annotated[str, BeforeValidator(declaration.as_text)]
TaskName = Annotated[str, BeforeValidator(declaration.task_as_text)]
MOST = 10**9
"""Above any sensible count, below what tables and random generators can hold."""
Epochs = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=MOST)]
Source = Literal[
    "embedder-init",
    "embedder-training",
    "predictor-init",
    "adapter-init",
    "finetune-order",
    "augmentation",
    "dropout",
]
"""A source of a run's randomness, independent of all others. ``embedder-training`` covers what embedder training draws: the
subsets of target and proxy, and projections. ``finetune-order`` covers the order of the samples and, for samples in parts,
the choice of the part."""
SeedVaries = Literal["all", "everything", "data-split", "pre-training", Source]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MOST)]


class Part(BaseModel):
    """A group of knobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def replaced(self, **values: Any) -> Self:
        """Returns a copy with new values of some fields. They must have the fields' types: nothing is checked.

        Cost: one dict; ``model_copy`` is three times as slow, and its copies are three times as large.
        """
        new = object.__new__(type(self))
        object.__setattr__(new, "__dict__", {**self.__dict__, **values})
        for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(new, name, getattr(self, name))
        return new


class DataConfig(Part):
    """Which samples of the task are used."""

    split_seed: Seed = Field(
        0, description="seed of the train/validation/test split; independent of the run seed unless seed_varies adds it"
    )
    n_train: Count | None = Field(None, description="number of training samples; null = all that the task has")
    augment: Annotated[bool, acting.AUGMENTS] = Field(True, description="augment the training samples in fine-tuning")
    normalise: Annotated[Normalise | None, acting.HAS_SCALE] = Field(
        None,
        description="how the inputs are normalised; none = not at all; channel = by each channel's mean and standard"
        " deviation over the training samples used; pointwise = by those of each channel and point; sample = each sample"
        " by its own mean and standard deviation per channel; null = the task's own way: channel for your own data, the"
        " benchmark's way for its tasks. One-hot inputs and all targets stay as they are",
    )


class BodyConfig(Part):
    """The pre-trained network between embedder and predictor."""

    name: str = Field(
        description="a registered body, a hub id (org/name), or a local folder with config.json and safetensors"
    )
    pretrain_fraction: float = Field(
        1.0, ge=0, le=1, description="share of the pre-training corpus the body has seen; 0 = random initialisation"
    )
    pretrain_steps: Annotated[Count | None, acting.PRETRAINED, acting.MADE_HERE] = Field(
        None, description="optimizer steps of pre-training; null = as in the body's recipe"
    )
    pretrain_seed: Annotated[Seed, acting.HAS_SEVERAL_RUNS] = Field(
        0, description="seed of the body's initialisation and pre-training order"
    )
    allow_pickle: Annotated[bool, acting.PRETRAINED, acting.MAY_BE_PICKLED] = Field(
        False, description="read a published checkpoint without safetensors from its pickle (tensors only)"
    )
    input_mode: Literal["plain", "double", "flip"] = Field(
        "plain",
        description="how a decoder reads the tokens; plain = once; double = twice in a row, where only the second half is"
        " used; flip = once as they are and once in reverse, where the mean is used",
    )


class EmbedderConfig(Part):
    """Stages 1 and 2: the new input layer and its training towards the proxy."""

    init: Annotated[EmbedderInit, acting.STARTS_DIFFER] = Field(
        "copied",
        description="initial weights; copied = those of the body's own input layer where shapes allow; random = all new;"
        " orca-untrained = as ORCA starts at zero embedder epochs: new convolution, new LayerNorm (weight 1, bias 0),"
        " positions copied from the body",
    )
    channel_copy: Annotated[ChannelCopy, acting.COPIES_CHANNELS] = Field(
        "cycled",
        description="how patch weights are copied if the task's images have another number of channels; cycled = the"
        " body's channels in turn, as released (a one-channel image uses the red weights); mean = the mean over the body's"
        " channels, scaled so that a grey image gives the same tokens as in the body",
    )
    epochs: Annotated[Epochs, acting.EMBEDDER_TRAINS.with_idle(0)] = Field(
        60, description="embedder epochs, each ONE optimizer step over all classes; 0 = naive"
    )
    objective: Annotated[str, acting.EMBEDDER_TRAINS.with_idle("none")] = Field(
        "otdd-exact", description="alignment distance that embedder training minimises"
    )
    epsilon: Annotated[Positive, acting.EMBEDDER_TRAINS, acting.objective_takes("epsilon")] = Field(
        0.1, description="entropic regularisation of otdd-exact and otdd-gaussian, in squared feature units"
    )
    extra_iterations: Annotated[
        int, Field(ge=0, le=MOST), acting.EMBEDDER_TRAINS, acting.objective_takes("extra_iterations")
    ] = Field(
        0,
        description="additional Sinkhorn updates at epsilon in otdd-exact and otdd-gaussian; 0 = as published, 100 = converged",
    )
    label_gradient: Annotated[bool | None, acting.EMBEDDER_TRAINS, acting.objective_takes("label_gradient")] = Field(
        None,
        description="propagate gradients through otdd's label distances; null = as published (exact, emd: no; gaussian: yes)",
    )
    n_bandwidths: Annotated[Count, acting.EMBEDDER_TRAINS, acting.objective_takes("n_bandwidths")] = Field(
        5, description="number of Gaussian kernels of mmd"
    )
    bandwidth_factor: Annotated[Positive, acting.EMBEDDER_TRAINS, acting.objective_takes("bandwidth_factor")] = Field(
        2.0, description="ratio of neighbouring mmd bandwidths"
    )
    n_projections: Annotated[Count, acting.EMBEDDER_TRAINS, acting.objective_takes("n_projections")] = Field(
        128, description="number of random directions of sliced-wasserstein, drawn by the run seed"
    )
    optimizer: Annotated[Optimizer, acting.EMBEDDER_TRAINS] = Field(
        "adamw", description="optimizer of embedder training"
    )
    lr: Annotated[Positive, acting.EMBEDDER_TRAINS] = Field(1e-3, description="learning rate of embedder training")
    weight_decay: Annotated[NonNegative, acting.EMBEDDER_TRAINS] = Field(
        0.0, description="weight decay of embedder training"
    )
    betas: Annotated[Betas, acting.EMBEDDER_TRAINS, acting.EMBEDDER_ADAM] = Field(
        "0.9, 0.999", description="decay rates of Adam's averages, for example [0.9, 0.98]"
    )
    momentum: Annotated[float, acting.EMBEDDER_TRAINS, acting.EMBEDDER_SGD] = Field(
        0.9, ge=0, lt=1, description="momentum of sgd"
    )
    lr_decay: Annotated[float, acting.EMBEDDER_TRAINS, acting.EMBEDDER_DECAYS] = Field(
        0.2, gt=0, le=1, description="factor on the learning rate after each step of lr_decay_after"
    )
    lr_decay_after: Annotated[GrowingEpochs, acting.EMBEDDER_TRAINS, acting.EMBEDDER_DECAYS.with_idle(None)] = Field(
        "20, 40, 60",
        description="list of steps, counted from 0, after which the learning rate is multiplied by lr_decay; 20 = the"
        " first 21 steps run at the full rate, as released; null = constant rate",
    )
    max_samples_per_class: Annotated[int, Field(ge=2, le=MOST), acting.EMBEDDER_TRAINS] = Field(
        128, description="most target samples to draw per class in an embedder epoch"
    )
    proxy_samples: Annotated[int, Field(ge=2, le=MOST), acting.EMBEDDER_TRAINS] = Field(
        5000, description="number of proxy samples to align to (all if the proxy has fewer)"
    )
    proxy_scaling: Annotated[Literal["proxy", "body", "none"], acting.EMBEDDER_TRAINS, acting.PROXY_IMAGES] = Field(
        "proxy",
        description="how proxy images are normalised per channel; proxy = by the proxy's own mean and standard"
        " deviation, as released; body = by those in the body's preprocessor_config.json; none = not at all",
    )
    proxy_augment: Annotated[bool, acting.EMBEDDER_TRAINS, acting.PROXY_IMAGES] = Field(
        False, description="crop and flip each proxy image at random, once before training, as released for cifar10"
    )
    proxy_pooling: Annotated[Literal["mean", "token"], acting.EMBEDDER_TRAINS, acting.PROXY_TAGS] = Field(
        "mean",
        description="what counts as a sample of tagged sentences; mean = a whole phrase, averaged over its word pieces;"
        " token = a single token, represented by its first word piece",
    )
    n_pseudo_classes: Annotated[Count, acting.EMBEDDER_TRAINS, acting.HAS_CLUSTERS] = Field(
        10, description="number of k-means clusters that serve as classes of dense or multi-label training targets"
    )
    target_length: Annotated[Count, acting.HAS_SEQUENCE] = Field(
        512, description="longest token sequence a 1D embedder may produce"
    )


class PredictorConfig(Part):
    """Stage 1: the new output layer."""

    dense: Annotated[DensePredictorKind, acting.IS_DENSE] = Field(
        "released",
        description="predictor of dense tasks; released = ORCA's own (2D: a linear layer per token gives an image with"
        " the body's channels, which is averaged to the output's channels and size; 1D: block means of the features,"
        " without weights); linear = a linear layer per token gives that token's part of the output",
    )


class FinetuneConfig(Part):
    """Stage 3: training embedder, body and predictor on the task."""

    epochs: Count = Field(20, description="passes over the training samples")
    freeze: Freeze = Field(
        "none",
        description="what is frozen and when: none, embedder, body, both, linear-probe, layernorm, released-layernorm,"
        " released-non-attn, gradual-unfreeze, or phases such as 'body:5 > body.layers[0:6]:3 > none'; a phase may also"
        " change the learning rate and restart the optimizer: 'body:5 lr*10 constant > none fresh'",
    )
    freeze_epochs: Annotated[Epochs | Forever, acting.LENGTH_IS_OPEN] = Field(
        5,
        description="epochs of the frozen phase before full fine-tuning (gradual-unfreeze: of each phase), or forever",
    )
    lora_rank: Annotated[Count | None, acting.BODY_TRAINS] = Field(
        None, description="rank of low-rank adapters that are trained instead of the body's weights; null = off"
    )
    lora_alpha: Annotated[Count, acting.BODY_TRAINS, acting.HAS_ADAPTERS] = Field(
        16, description="scale of the adapters: their product is multiplied by alpha / rank"
    )
    batch_size: Count = Field(32, description="samples per forward pass")
    accumulation: Count = Field(1, description="batches per optimizer step; the loss is divided accordingly")
    optimizer: Optimizer = Field("adamw", description="optimizer of fine-tuning")
    lr: Positive = Field(1e-4, description="peak learning rate of fine-tuning")
    weight_decay: NonNegative = Field(0.01, description="weight decay of fine-tuning")
    betas: Annotated[Betas, acting.FINETUNE_ADAM] = Field(
        "0.9, 0.999", description="decay rates of Adam's averages, for example [0.9, 0.98]"
    )
    momentum: Annotated[float, acting.FINETUNE_SGD] = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    dropout: Annotated[float | None, acting.BODY_TRAINS] = Field(
        None,
        ge=0,
        lt=1,
        description="hidden and attention dropout of the body in fine-tuning; null = the body's own; Swin's stochastic"
        " depth is not affected",
    )
    warmup_epochs: Annotated[Epochs, acting.FOLLOWS_RATE] = Field(
        0, description="epochs of linear warm-up, counted in optimizer steps"
    )
    decay_epochs: Annotated[Count | None, acting.FOLLOWS_RATE] = Field(
        None, description="epoch at which a linear decay reaches zero; null = constant rate after warm-up"
    )
    grad_clip: Positive | None = Field(None, description="gradient norm limit per optimizer step; null = off")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="number format of matrix products; auto = bfloat16 on a GPU with native bfloat16, else float32",
    )
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa", description="how the body computes attention: torch's fused kernel, or step by step"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute activations inside the body's layers instead of keeping them: less memory, more time",
    )
    compile: bool = Field(False, description="use torch.compile: worth it in long runs on a GPU, not on a CPU")
    deterministic: bool = Field(
        False, description="use only kernels that give the same bits every time; slower on a GPU, no change on a CPU"
    )
    eval_batch_size: Count = Field(256, description="samples per forward pass in validation and test")


Sha256 = Annotated[str, Field(pattern=r"[0-9a-f]{64}")]


class ContentConfig(Part):
    """SHA-256 of the user's own files and code that a trial depends on. The program sets it, not the user.

    Null for a trial without them: registered tasks, proxies and bodies are identified by their names.
    """

    task: Sha256 | None = None
    proxy: Sha256 | None = None
    body: Sha256 | None = None
    code: Sha256 | None = None
    """Of the modules and files that the space imports."""


CONTENT_OF: Mapping[str, str] = {"content.task": "task", "content.proxy": "proxy", "content.body": "body.name"}
"""Maps each content hash to the field that names its files."""
CONTENTS = (*CONTENT_OF, "content.code")


class TrialConfig(Part):
    """The complete description of one ORCA run: equal configs are equal work and, on the same CPU, give equal numbers."""

    task: TaskName = Field(
        description="target problem: a name, openml:<id>, or your own data as {path, kind, sample_shape, output_shape}"
    )
    proxy: Annotated[Declared, acting.EMBEDDER_TRAINS.with_idle("none")] = Field(
        "none",
        description="labelled data the embedder is aligned to: a name, shuffled:<name>, or path[split]:input->label;"
        " none = naive fine-tuning",
    )
    data: DataConfig = DataConfig()
    body: BodyConfig
    embedder: EmbedderConfig = EmbedderConfig()
    predictor: PredictorConfig = PredictorConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    seed: Seed = Field(0, description="run seed; set by the space's seeds")
    seed_varies: SeedVaries = Field(
        "all",
        description="what the run seed varies, while the rest is drawn as at seed 0; all = every draw of the run;"
        " everything = also the data split and pre-training; or a single source of randomness",
    )
    content: ContentConfig = ContentConfig()

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> "TrialConfig":
        """Returns the config of dotted settings; fields not named take their defaults.

        Raises:
            pydantic.ValidationError: on an unknown field, a wrong type or a value out of range.
        """
        return cls.model_validate(nest(flat))

    def flat(self) -> dict[str, Any]:
        """Returns every field under its dotted name."""
        flat: dict[str, Any] = {}
        for name, value in self.__dict__.items():
            if isinstance(value, Part):
                names = _dotted_names(type(value), name)
                for field, inner in value.__dict__.items():
                    flat[names[field]] = inner
            else:
                flat[name] = value
        return flat

    def hashed(self) -> dict[str, Any]:
        """Returns the settings that ids are computed from.

        A file whose content hash is known counts by its content, not by its path.
        """
        flat = self.flat()
        for content in CONTENTS:
            if flat[content] is None:
                del flat[content]
            elif content in CONTENT_OF:
                flat[CONTENT_OF[content]] = declaration.without_path(flat[CONTENT_OF[content]])
        return flat

    @property
    def trial_id(self) -> str:
        """Hash of the whole config, seed included: same id = same work."""
        return digest("trial", self.hashed())

    @property
    def cell_id(self) -> str:
        """Hash of the config without its seed."""
        return digest("cell", {k: v for k, v in self.hashed().items() if k != "seed"})

    def seed_of(self, source: Source) -> int:
        """Returns the seed of a source of randomness: the run seed if the source varies, else 0."""
        return self.seed if self.seed_varies in ("all", "everything", source) else 0

    def as_run(self) -> "TrialConfig":
        """Returns the config that stages see: the same work, with ``seed_varies`` translated into seeds.

        Where the split or the pre-training varies, the run seed is added to its own seed. Trials of equal work, such as
        those of all levels at seed 0, have the same translated config.
        """
        varies = self.seed_varies
        changes: dict[str, Any] = {}
        if varies == "all":
            return self
        if varies in ("data-split", "everything"):
            seed = self.data.split_seed + self.seed
            changes["data"] = self.data.model_copy(update={"split_seed": seed})
        if varies in ("pre-training", "everything"):
            seed = self.body.pretrain_seed + self.seed
            changes["body"] = self.body.model_copy(update={"pretrain_seed": seed})
        if changes or self.seed == 0:
            changes |= {"seed": self.seed if varies == "everything" else 0, "seed_varies": "all"}
        return self.model_copy(update=changes)


@lru_cache
def _dotted_names(part: type[Part], name: str) -> Mapping[str, str]:
    return {field: f"{name}.{field}" for field in part.model_fields}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested form of dotted settings."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parts, last = path.split(".")
        node = nested
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the dotted form of nested settings."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
