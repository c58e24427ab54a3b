"""Estimates what trials cost on a GPU from the sizes of their parts, before any trial has been timed.

Counts the multiplications and additions of matrix products: of embedder, body, and predictor in training, validation, and
test, and of embedder training. The rest (normalisation, averages, optimizer, data, saving) takes time that no count of these
shows. So the hours, at a throughput that is assumed, are right within a factor of 2 or 3.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from orca_sweep.bodies.published import read_known_settings
from orca_sweep.bodies.records import PICTURE_CHANNELS
from orca_sweep.bodies.shapes import list_weight_shapes
from orca_sweep.bodies.spec import BodySpec, make_body_spec
from orca_sweep.config import TrialConfig
from orca_sweep.config.freezing import Phase, cut_phases, parse_schedule
from orca_sweep.trial import Records, ResolvedTrial
from orca_sweep.trial.layout import choose_layout

TFLOPS: Mapping[str, float] = {"float32": 20.0, "bfloat16": 80.0}
"""Sustained throughput that is assumed of a GPU, in 10^12 operations per second, by precision."""
N_TEMPERATURES = 10
"""Rounds of annealing of an optimal transport between a target class and the proxy."""
OPERATIONS_PER_PAIR = 30
"""Of a pair of points in each round: two exponentials, on the way there and back."""


@dataclass(frozen=True, kw_only=True)
class FlopEstimate:
    """The operations of trials that no row has timed, and how long they take at an assumed throughput."""

    n_trials: int
    n_unknown: int
    """Trials beside them for which the size of the data or of the body is not known."""
    flops: float
    finetune: float
    """Of these, in fine-tuning and its validation."""
    test: float
    embedder: float
    """In embedder training, each artifact once."""
    tflops: float
    """Assumed."""
    precision: str
    n_gpus: float
    """That each trial holds."""
    guessed: tuple[str, ...] = ()
    """Tasks whose numbers of samples are partly a guess."""

    gpu_hours: float = field(init=False)
    """A trial that holds several GPUs uses one of them."""

    def __post_init__(self) -> None:
        hours = self.flops / (self.tflops * 1e12) / 3600 * max(1.0, self.n_gpus)
        object.__setattr__(self, "gpu_hours", hours)

    def at_throughput(self, tflops: float) -> "FlopEstimate":
        """Returns the estimate for another throughput, in 10^12 operations per second."""
        return replace(self, tflops=tflops)


def join_estimates(estimates: Iterable[FlopEstimate | None]) -> FlopEstimate | None:
    """Returns what several groups of trials cost together; the throughput is then a mean that keeps the GPU-hours."""
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < 2:
        return known[0] if known else None
    flops = sum(each.flops for each in known)
    tflops = flops / sum(each.flops / each.tflops for each in known)
    return FlopEstimate(
        n_trials=sum(each.n_trials for each in known),
        n_unknown=sum(each.n_unknown for each in known),
        flops=flops,
        finetune=sum(each.finetune for each in known),
        test=sum(each.test for each in known),
        embedder=sum(each.embedder for each in known),
        tflops=tflops,
        precision=" and ".join(dict.fromkeys(each.precision for each in known)),
        n_gpus=sum(each.gpu_hours for each in known) * 3600 * tflops * 1e12 / flops,
        guessed=tuple(dict.fromkeys(task for each in known for task in each.guessed)),
    )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The operations of a sample's way forward through the parts of a model."""

    embedder: float
    body: float
    predictor: float

    @property
    def total(self) -> float:
        """Through all parts."""
        return self.embedder + self.body + self.predictor


def estimate_flops(
    configs: Sequence[TrialConfig],
    stages: Iterable[tuple[str, TrialConfig]],
    *,
    share_left: float,
    n_gpus: float,
) -> FlopEstimate | None:
    """Returns what trials cost by their sizes; None without a GPU, where small bodies make any throughput a guess.

    Args:
        configs: of trials whose cost no row shows.
        stages: stage artifacts that must be computed, each with a trial that needs it.
        share_left: the share of fine-tuning epochs that no other trial has computed.
        n_gpus: that each trial holds.
    """
    if n_gpus <= 0 or not configs:
        return None
    counts = _Counts()
    sizes = [counts.count_trial(config) for config in configs]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    trained = [counts.count_embedder_training(config) for stage, config in stages if stage == "embedder"]
    finetune = share_left * sum(size[0] for size in known)
    test, embedder = sum(size[1] for size in known), sum(size for size in trained if size is not None)
    # A plan does not know the GPU: 'auto' counts as what new ones have.
    precision = "float32" if all(config.finetune.precision == "float32" for config in configs) else "bfloat16"
    return FlopEstimate(
        n_trials=len(known),
        n_unknown=len(sizes) - len(known),
        flops=finetune + test + embedder,
        finetune=finetune,
        test=test,
        embedder=embedder,
        tflops=TFLOPS[precision],
        precision=precision,
        n_gpus=n_gpus,
        guessed=counts.list_guessed_tasks(config.task for config, size in zip(configs, sizes, strict=True) if size),
    )


class _Counts:
    """Counts of many trials: trials that differ only in their seed are counted once."""

    def __init__(self) -> None:
        self._records = Records()
        self._known: dict[tuple[object, ...], tuple[float, float] | None] = {}
        self._models: dict[tuple[object, ...], Model | None] = {}

    def count_trial(self, config: TrialConfig) -> tuple[float, float] | None:
        """Returns the operations of fine-tuning with its validation, and of the test; None: unknown."""
        key = (config.task, *map(id, (config.data, config.body, config.embedder, config.predictor, config.finetune)))
        if key not in self._known:
            model = self._find_model(config)
            self._known[key] = None if model is None else (model.count_finetuning(config), model.count_test())
        return self._known[key]

    def count_embedder_training(self, config: TrialConfig) -> float | None:
        """Returns the operations of a trial's embedder training; None: unknown."""
        model = self._find_model(config)
        return None if model is None else model.count_embedder_training(config)

    def list_guessed_tasks(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """Returns the names of the tasks whose numbers of samples are partly a guess, each once."""
        records = map(self._records.get_task, dict.fromkeys(tasks))
        return tuple(task.name for task in records if task.sizes_are_guessed)

    def _find_model(self, config: TrialConfig) -> "Model | None":
        key = (config.task, config.body.name, config.body.input_mode, config.embedder.target_length,
               config.predictor.dense, config.data.n_train)  # fmt: skip
        if key not in self._models:
            self._models[key] = make_model(self._records.resolve_config(config))
        return self._models[key]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A task's samples and a model for them, as far as their sizes go."""

    n_train: int
    n_val: int
    n_test: int
    forward: Pass
    n_layers: int
    n_tokens: int
    patch_numbers: int
    """Numbers of the input that a token sees."""
    width: int
    n_classes: int
    """Of the target in embedder training."""
    augments: bool

    def count_finetuning(self, config: TrialConfig) -> float:
        """Returns the operations of all epochs of fine-tuning, each with a validation."""
        tuning = config.finetune
        phases = cut_phases(parse_schedule(tuning.freeze, tuning.freeze_epochs, self.n_layers), tuning.epochs)
        augments = self.augments and config.data.augment
        return sum(self._count_phase(phase, config, augments=augments) for phase in phases)

    def _count_phase(self, phase: Phase, config: TrialConfig, *, augments: bool) -> float:
        n_epochs, forward, frozen = phase.epochs or 0, self.forward, set(phase.frozen)
        head = forward.predictor * (1 if "predictor" in frozen else 3)
        if {"embedder", "body"} <= frozen and not augments:  # features are computed once for the phase
            once = (self.n_train + self.n_val) * (forward.embedder + forward.body)
            return once + n_epochs * (self.n_train * head + self.n_val * forward.predictor)
        trains_embedder, trains_body = "embedder" not in frozen, "body" not in frozen
        body = forward.body * (1 + (trains_embedder or trains_body) + (trains_body and not config.finetune.lora_rank))
        if config.finetune.gradient_checkpointing and (trains_embedder or trains_body):
            body += forward.body
        sample = forward.embedder * (1 + trains_embedder) + body + head
        return n_epochs * (self.n_train * sample + self.n_val * forward.total)

    def count_test(self) -> float:
        """Returns the operations of scoring the test split with the weights of the best and of the last epoch."""
        return 2 * self.n_test * self.forward.total

    def count_embedder_training(self, config: TrialConfig) -> float:
        """Returns the operations of embedder training: features of the drawn samples, and their distances to the proxy.

        Only the embedder runs, never the body. A loss is computed before the first step too.
        """
        settings = config.embedder
        n_drawn = min(self.n_train, self.n_classes * settings.max_samples_per_class)
        k = self.patch_numbers
        # Mean features need the patches' products with a k x k matrix; tokens are computed only if k is above the width.
        features = 2 * self.n_tokens * k * min(k, self.width) + 2 * k * self.width
        pairs = n_drawn * settings.proxy_samples
        levels = 2 if settings.objective.startswith("otdd") else 1  # of points, and of classes
        distance = levels * pairs * (2 * self.width + N_TEMPERATURES * OPERATIONS_PER_PAIR)
        return (settings.epochs + 1) * (3 * n_drawn * features + 2 * distance)


def make_model(trial: ResolvedTrial) -> Model | None:
    """Returns the sizes of a trial's data and model; None if those of its data or of its body are not known."""
    task, config = trial.task, trial.config
    settings = read_known_settings(trial.body)
    if settings is None or task.published_sizes is None or 0 in (*task.sample_shape, *task.output_shape):
        return None
    family = str(trial.body.architecture)
    spec = make_body_spec(family, settings)
    layout = choose_layout(task, spec, config)
    n_tokens = (layout.size // layout.patch) ** task.dims
    patch_numbers = task.sample_shape[0] * layout.patch**task.dims
    n_train, n_val, n_test = task.published_sizes
    body = Network(family=family, settings=settings)
    repeats = {"double": 2, "flip": 2}.get(config.body.input_mode, 1)
    tokens_in = n_tokens * 2 if config.body.input_mode == "double" else n_tokens
    return Model(
        n_train=config.data.n_train or n_train,
        n_val=n_val,
        n_test=n_test,
        forward=Pass(
            embedder=2 * n_tokens * patch_numbers * spec.width_in,
            body=body.count_forward(tokens_in) * (repeats if config.body.input_mode == "flip" else 1),
            predictor=_count_predictor(trial, spec, n_points=n_tokens * layout.patch**task.dims),
        ),
        n_layers=body.n_layers,
        n_tokens=n_tokens,
        patch_numbers=patch_numbers,
        width=spec.width_in,
        n_classes=task.output_shape[0] if task.kind == "classification" else config.embedder.n_pseudo_classes,
        augments=task.augments,
    )


def _count_predictor(trial: ResolvedTrial, spec: BodySpec, *, n_points: int) -> float:
    """Returns the operations of the linear layer of a predictor, for one sample whose tokens cover ``n_points``."""
    task = trial.task
    if not task.is_dense:
        return 2.0 * spec.width_out * math.prod(task.output_shape)
    n_channels = task.output_shape[0]
    if trial.config.predictor.dense == "released":
        pictures = spec.in_channels if spec.dims == 2 else PICTURE_CHANNELS
        n_channels = 0 if task.dims == 1 else pictures
    return 2.0 * spec.width_out * n_channels * n_points


@dataclass(frozen=True, kw_only=True)
class Network:
    """A body without its input layer, as far as its sizes go."""

    family: str
    settings: Mapping[str, Any]

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        return list_weight_shapes(self.family, self.settings)

    @property
    def n_parameters(self) -> int:
        """Numbers in all weights, the input layer included."""
        return sum(map(math.prod, self._shapes.values()))

    @property
    def n_layers(self) -> int:
        """Transformer layers; Swin: blocks."""
        if self.family == "swin":
            return sum(self.settings["depths"])
        return int(self.settings["n_layer" if self.family == "gpt2" else "num_hidden_layers"])

    def count_forward(self, n_tokens: int) -> float:
        """Returns the operations of one sample's matrix products: of weights, and of attention, which sees T or a window."""
        if self.family == "swin":
            return sum(map(self._count_stage, range(len(self.settings["depths"]))))
        n_tokens += self.family == "vit"  # its class token
        width = self.settings["n_embd" if self.family == "gpt2" else "hidden_size"]
        layers = ("encoder.layer.", "layers.", "h.")
        weights = sum(
            math.prod(shape)
            for name, shape in self._shapes.items()
            if name.startswith(layers) and name.endswith(".weight") and len(shape) == 2
        )
        return 2 * n_tokens * weights + self.n_layers * 4 * n_tokens**2 * width

    def _count_stage(self, stage: int) -> float:
        """A stage of Swin: blocks on windows of a grid, and the merging of its patches at the end."""
        settings = self.settings
        side = settings["image_size"] // settings["patch_size"] // 2**stage
        window = min(side, settings["window_size"])
        n_padded = (math.ceil(side / window) * window) ** 2
        width, depth = settings["embed_dim"] * 2**stage, settings["depths"][stage]
        attention = 2 * n_padded * 4 * width**2 + 4 * n_padded * window**2 * width
        perceptron = 4 * side**2 * width * int(settings["mlp_ratio"] * width)
        merging = 0 if stage == len(settings["depths"]) - 1 else 2 * math.ceil(side / 2) ** 2 * 4 * width * 2 * width
        return depth * (attention + perceptron) + merging
