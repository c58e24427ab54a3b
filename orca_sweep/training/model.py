"""The embedder, and the whole model of embedder, body and predictor for a task and a body.

B batch, C channels, H W space, L sequence, T tokens, D width, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orca_sweep.bodies import PICTURE_CHANNELS
from orca_sweep.bodies.inputs import resize_images
from orca_sweep.bodies.network import LoadedBody, add_adapters
from orca_sweep.bodies.spec import BodySpec
from orca_sweep.config import ChannelCopy, TrialConfig
from orca_sweep.streams import torch_stream
from orca_sweep.tasks import Task, TaskData
from orca_sweep.training.predictors import (
    BlockMeanPredictor,
    LinearPredictor1D,
    LinearPredictor2D,
    PicturePredictor,
    Predictor,
    VectorPredictor,
)
from orca_sweep.trial.layout import Layout, choose_layout


def mean_tokens(patches: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module) -> Tensor:
    """Returns the mean over tokens of norm(weight q + bias), (B, D), for patches q (B, T, k); LayerNorm or none.

    Tokens are not computed: a token's variance over its D features is a quadratic form of its patch, so the mean over
    tokens is a weighted mean of patches, multiplied once by the weights (D, k). It equals the mean over computed tokens up
    to rounding (2e-7 in single precision).

    Cost: B T k^2 instead of B T k D, and no (B, T, D) activation; if k > D, tokens are computed.
    """
    if not isinstance(norm, nn.LayerNorm):
        return F.linear(patches.mean(dim=1), weight, bias)
    if patches.shape[-1] > len(bias):
        return norm(F.linear(patches, weight, bias)).mean(dim=1)
    weight, bias = weight - weight.mean(dim=0), bias - bias.mean()
    gram, cross, rest = weight.T @ weight / len(bias), weight.T @ bias / len(bias), (bias**2).mean()
    variance = (patches @ gram * patches).sum(dim=-1) + 2 * patches @ cross + rest
    scale = (variance.clamp_min(0) + norm.eps).rsqrt()
    mean = torch.bmm(scale[:, None, :], patches)[:, 0] / patches.shape[1]
    centred = F.linear(mean, weight) + scale.mean(dim=1, keepdim=True) * bias
    return centred * norm.weight + norm.bias


class Embedder1D(nn.Module):
    """Convolution with kernel = stride, then LayerNorm and positions if the body has them: (B, C, L) -> (B, T, D).

    A signal whose length is not ``length`` is resampled linearly. The fresh convolution is as in ORCA: weights uniform
    within sqrt(2) * sqrt(6 / (fan_in + fan_out)), bias zero.
    """

    def __init__(
        self, channels: int, length: int, width: int, stride: int, positions: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.length = length
        self.projection = nn.Conv1d(channels, width, kernel_size=stride, stride=stride)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.positions = _make_positions(length // stride, width) if positions else None
        nn.init.xavier_uniform_(self.projection.weight, gain=math.sqrt(2))
        nn.init.zeros_(_bias_of(self.projection))

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens."""
        return _add_positions(self.norm(self.projection(self._resample_signal(x)).transpose(1, 2)), self.positions)

    def _resample_signal(self, x: Tensor) -> Tensor:
        return x if x.shape[-1] == self.length else F.interpolate(x, size=self.length, mode="linear")

    def cut_patches(self, x: Tensor) -> Tensor:
        """Returns the part of the input that each token sees, (B, T, C * stride); it involves no parameter."""
        stride = self.projection.stride[0]
        return self._resample_signal(x).unflatten(2, (-1, stride)).transpose(1, 2).flatten(2)

    def mean_features(self, patches: Tensor) -> Tensor:
        """Returns the mean over the tokens of ``patches``, (B, D)."""
        return _mean_features(self, patches)

    def copy_from(self, body: LoadedBody) -> None:
        """Copies the body's LayerNorm and first positions; bodies have no convolution of signals to copy."""
        copy_norm(self, body)
        copy_positions(self, body)


class Embedder2D(nn.Module):
    """Resizing and patch convolution, then LayerNorm and positions if the body has them: (B, C, H, W) -> (B, T, D).

    The fresh convolution is as in ORCA: weights normal with standard deviation 0.02, bias zero.
    """

    def __init__(
        self, channels: int, image_size: int, width: int, patch: int, positions: bool = False, norm: bool = True
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.projection = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.positions = _make_positions((image_size // patch) ** 2, width) if positions else None
        nn.init.trunc_normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(_bias_of(self.projection))

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens, row by row."""
        tokens = self.projection(resize_images(x, self.image_size)).flatten(2).transpose(1, 2)
        return _add_positions(self.norm(tokens), self.positions)

    def cut_patches(self, x: Tensor) -> Tensor:
        """Returns the pixels that each token sees, (B, T, C * patch * patch); it involves no parameter."""
        size = self.projection.stride[0]
        side = self.image_size // size * size
        image = resize_images(x, self.image_size)[..., :side, :side]
        return (
            image.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        )

    def mean_features(self, patches: Tensor) -> Tensor:
        """Returns the mean over the tokens of ``patches``, (B, D)."""
        return _mean_features(self, patches)

    def copy_from(self, body: LoadedBody, channel_copy: ChannelCopy = "cycled") -> None:
        """Copies the body's patch convolution, if it has one, and its LayerNorm and positions.

        If the numbers of channels differ, ``cycled`` copies body channel c mod n to target channel c, where n is the
        number of the body's channels, as ORCA's released code does. A single channel gets the red weights; with more
        than n channels, tokens before the LayerNorm grow with the number of channels. ``mean`` gives every target channel
        the mean over the body's channels, scaled so that an image with equal channels gives the same tokens as in the
        body itself.
        """
        copy_norm(self, body)
        copy_positions(self, body)
        if body.spec.dims == 1:
            return
        patch: Any = body.model.embeddings.patch_embeddings.projection
        with torch.no_grad():
            self.projection.weight.copy_(_copy_channels(patch.weight, self.projection.in_channels, channel_copy))
            _bias_of(self.projection).copy_(patch.bias)


def _copy_channels(weight: Tensor, channels: int, how: ChannelCopy) -> Tensor:
    """Patch weights (D, body's channels, P, P) converted to another number of channels."""
    if weight.shape[1] == channels:
        return weight
    if how == "cycled":
        return weight[:, torch.arange(channels) % weight.shape[1]]
    return weight.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels


def _bias_of(projection: nn.Conv1d | nn.Conv2d) -> Tensor:
    if projection.bias is None:
        raise TypeError("an embedder's projection has a bias")
    return projection.bias


def _make_positions(n_tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(n_tokens, width), std=0.02))


def _add_positions(tokens: Tensor, positions: Tensor | None) -> Tensor:
    return tokens if positions is None else tokens + positions


def _mean_features(embedder: Embedder1D | Embedder2D, patches: Tensor) -> Tensor:
    weight, bias = embedder.projection.weight.flatten(1), _bias_of(embedder.projection)
    mean = mean_tokens(patches, weight, bias, embedder.norm)
    return mean if embedder.positions is None else mean + embedder.positions.mean(dim=0)


@torch.no_grad()
def copy_norm(embedder: Embedder1D | Embedder2D, body: LoadedBody) -> None:
    """Copies the LayerNorm of the body's input layer to an embedder that has one.

    A decoder's input layer has no LayerNorm: tokens then get the mean and spread of its word embeddings.
    """
    layer: Any = body.get_input_layer()
    own = getattr(layer, "LayerNorm", getattr(layer, "norm", None))
    if not isinstance(embedder.norm, nn.LayerNorm):
        return
    if own is not None:
        embedder.norm.load_state_dict(own.state_dict())
        embedder.norm.eps = own.eps
    else:
        words = layer.word_embeddings.weight
        embedder.norm.weight.copy_(words.std(dim=0))
        embedder.norm.bias.copy_(words.mean(dim=0))


@torch.no_grad()
def copy_positions(embedder: Embedder1D | Embedder2D, body: LoadedBody) -> None:
    """Copies the first positions of the body's input layer to an embedder, skipping RoBERTa's two for padding.

    A decoder without a position table encodes positions itself, so the embedder's start at zero. Vision bodies also
    encode positions themselves, and their embedders have none.
    """
    layer: Any = body.get_input_layer()
    if embedder.positions is None:
        return
    if layer.position_embeddings is None:
        embedder.positions.zero_()
    else:
        skipped = layer.padding_idx + 1 if body.spec.architecture == "roberta" else 0
        embedder.positions.copy_(layer.position_embeddings.weight[skipped : skipped + len(embedder.positions)])


class OrcaModel(nn.Module):
    """Embedder, body and predictor; predictions are in the task's own units."""

    def __init__(
        self, embedder: nn.Module, body: nn.Module, predictor: Predictor, mean: Tensor | None, std: Tensor | None
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.body = body
        self.predictor = predictor
        # Statistics of the data, not weights: they are recomputed from the training split, never checkpointed.
        self.target_mean: Tensor | None
        self.target_std: Tensor | None
        self.register_buffer("target_mean", mean, persistent=False)
        self.register_buffer("target_std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, K) or maps in physical units."""
        return self.from_features(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Returns the outputs of embedder and body, reduced to what the predictor uses."""
        return self.predictor.pool(self.body(self.embedder(x)))

    def from_features(self, features: Tensor) -> Tensor:
        """Returns the predictions from ``features``."""
        out: Tensor = self.predictor(features)
        if self.target_std is None or self.target_mean is None:
            return out
        return out * self.target_std + self.target_mean


def build_embedder(task: Task, body: LoadedBody, config: TrialConfig) -> Embedder1D | Embedder2D:
    """Builds the embedder (stage 1) from its own stream, initialised according to ``embedder.init``."""
    spec, layout = body.spec, choose_layout(task, body.spec, config)
    kind = Embedder1D if task.dims == 1 else Embedder2D
    norm, positions = spec.architecture != "vit", spec.dims == 1
    with torch_stream(config.seed_of("embedder-init"), "embedder init"):
        embedder = kind(task.sample_shape[0], layout.size, spec.width_in, layout.patch, positions=positions, norm=norm)
    if config.embedder.init == "orca-untrained":
        copy_positions(embedder, body)
    elif config.embedder.init == "copied" and isinstance(embedder, Embedder2D):
        embedder.copy_from(body, config.embedder.channel_copy)
    elif config.embedder.init == "copied":
        embedder.copy_from(body)
    return embedder


def build_predictor(task: Task, body: LoadedBody, config: TrialConfig) -> Predictor:
    """Builds the predictor (stage 1) from its own stream; ``predictor.dense`` chooses the kind for dense tasks."""
    with torch_stream(config.seed_of("predictor-init"), "predictor init"):
        if not task.is_dense:
            return VectorPredictor(body.spec.width_out, math.prod(task.output_shape))
        layout = choose_layout(task, body.spec, config)
        if config.predictor.dense == "linear":
            return _build_linear_predictor(task, body.spec, layout)
        if task.dims == 1:
            return BlockMeanPredictor(task.output_shape, layout.patch, layout.fold)
        picture_channels = body.spec.in_channels if body.spec.dims == 2 else PICTURE_CHANNELS
        return PicturePredictor(body.spec.width_out, task.output_shape, layout.patch * layout.fold, picture_channels)


def _build_linear_predictor(task: Task, spec: BodySpec, layout: Layout) -> Predictor:
    if task.dims == 1:
        return LinearPredictor1D(spec.width_out, task.output_shape, layout.patch, layout.fold)
    return LinearPredictor2D(spec.width_out, task.output_shape, layout.patch * layout.fold)


def build_model(data: TaskData, body: LoadedBody, config: TrialConfig) -> OrcaModel:
    """Builds the whole model, the result of stage 1."""
    mean = None if data.target_mean is None else torch.from_numpy(data.target_mean).float()
    std = None if data.target_std is None else torch.from_numpy(data.target_std).float()
    embedder, network = build_embedder(data.task, body, config), body.build_network(config.body.input_mode)
    if config.finetune.lora_rank is not None:
        with torch_stream(config.seed_of("adapter-init"), "adapter init"):
            add_adapters(network, body.spec.architecture, config.finetune.lora_rank, config.finetune.lora_alpha)
    return OrcaModel(embedder, network, build_predictor(data.task, body, config), mean=mean, std=std)
