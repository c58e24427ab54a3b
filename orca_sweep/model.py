"""Where shapes meet: embedder and predictor for a task and a body, and the model made of the three.

B batch, C channels, H W space, L sequence, T tokens, D width, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orca_sweep.bodies.network import BodySpec, LoadedBody, add_adapters, resize
from orca_sweep.config import TrialConfig
from orca_sweep.errors import InputError
from orca_sweep.streams import torch_stream
from orca_sweep.tasks import Task, TaskData


def token_stride(length: int, target_length: int) -> int:
    """Returns the smallest divisor d of length with length / d <= target_length.

    Source: ORCA's 1D embedder (kernel = stride = d), Shen et al. 2023, arXiv 2302.05738.
    """
    return next(d for d in range(1, length + 1) if length % d == 0 and length // d <= target_length)


def mean_tokens(patches: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module) -> Tensor:
    """Returns the mean over tokens of norm(weight q + bias), (B, D), for patches q (B, T, k); LayerNorm or none.

    Tokens are never made: a token's variance over its D features is a quadratic form of its patch, so that
    the mean over tokens is a weighted mean of patches that meets the weights (D, k) once. Equal to the long
    way up to rounding (2e-7 in single precision).

    Cost: B T k^2 instead of B T k D, and no (B, T, D) activation; where k > D the long way is taken.
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
    """Convolution with kernel = stride, LayerNorm, then positions: (B, C, L) -> (B, T, D)."""

    def __init__(self, channels: int, length: int, width: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv1d(channels, width, kernel_size=stride, stride=stride)
        self.norm = nn.LayerNorm(width)
        self.positions = nn.Parameter(torch.empty(length // stride, width))
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens."""
        return self.norm(self.projection(x).transpose(1, 2)) + self.positions

    def patches(self, x: Tensor) -> Tensor:
        """Returns what each token sees of the input, (B, T, C * stride): no parameter takes part."""
        stride = self.projection.stride[0]
        length = len(self.positions) * stride
        return x[..., :length].unflatten(2, (-1, stride)).transpose(1, 2).flatten(2)

    def mean_features(self, patches: Tensor) -> Tensor:
        """Returns the mean over the tokens of ``patches``, (B, D)."""
        weight, bias = self.projection.weight.flatten(1), self.projection.bias
        return mean_tokens(patches, weight, bias, self.norm) + self.positions.mean(dim=0)  # type: ignore[arg-type]

    def copy_from(self, body: LoadedBody) -> None:
        """Takes the body's LayerNorm and first positions; a word table has no convolution to copy.

        A decoder's input layer has no LayerNorm: there tokens take the mean and spread of its word
        embeddings, and without a table of positions they start without any.
        """
        layer: Any = body.input_layer()
        skipped = layer.padding_idx + 1 if body.spec.architecture == "roberta" else 0
        with torch.no_grad():
            if hasattr(layer, "LayerNorm"):
                self.norm.load_state_dict(layer.LayerNorm.state_dict())
                self.norm.eps = layer.LayerNorm.eps
            else:
                words = layer.word_embeddings.weight
                self.norm.weight.copy_(words.std(dim=0))
                self.norm.bias.copy_(words.mean(dim=0))
            if layer.position_embeddings is None:
                self.positions.zero_()
            else:
                self.positions.copy_(layer.position_embeddings.weight[skipped : skipped + len(self.positions)])


class Embedder2D(nn.Module):
    """Resize to the body's image, patch convolution, LayerNorm if the body has one: (B, C, H, W) -> (B, T, D)."""

    def __init__(self, channels: int, spec: BodySpec) -> None:
        super().__init__()
        self.image_size = spec.image_size
        self.projection = nn.Conv2d(channels, spec.width_in, kernel_size=spec.patch_size, stride=spec.patch_size)
        self.norm: nn.Module = nn.Identity() if spec.architecture == "vit" else nn.LayerNorm(spec.width_in)
        nn.init.trunc_normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens, row by row."""
        return self.norm(self.projection(resize(x, self.image_size)).flatten(2).transpose(1, 2))

    def patches(self, x: Tensor) -> Tensor:
        """Returns the pixels that each token sees, (B, T, C * patch * patch): no parameter takes part."""
        size = self.projection.stride[0]
        side = self.image_size // size * size
        image = resize(x, self.image_size)[..., :side, :side]
        return (
            image.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        )

    def mean_features(self, patches: Tensor) -> Tensor:
        """Returns the mean over the tokens of ``patches``, (B, D)."""
        weight, bias = self.projection.weight.flatten(1), self.projection.bias
        return mean_tokens(patches, weight, bias, self.norm)  # type: ignore[arg-type]

    def copy_from(self, body: LoadedBody) -> None:
        """Takes the body's patch convolution and LayerNorm.

        Another number of channels takes the mean over the body's channels, scaled so that an image
        whose channels are all alike gives the same tokens as it would in the body itself.
        """
        patch: Any = body.model.embeddings.patch_embeddings.projection
        with torch.no_grad():
            weight = patch.weight
            channels = self.projection.in_channels
            if weight.shape[1] != channels:
                weight = weight.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels
            self.projection.weight.copy_(weight)
            self.projection.bias.copy_(patch.bias)  # type: ignore[union-attr]
            if isinstance(self.norm, nn.LayerNorm):
                self.norm.load_state_dict(body.model.embeddings.norm.state_dict())
                self.norm.eps = body.model.embeddings.norm.eps


class VectorPredictor(nn.Module):
    """Mean over tokens (``pool``), then a linear layer: (B, T, D) -> (B, K)."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_outputs)

    def pool(self, hidden: Tensor) -> Tensor:
        """Returns what of the hidden states is used, (B, D): no parameter takes part."""
        return hidden.mean(dim=1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Returns logits of pooled states."""
        return self.linear(pooled)


class DensePredictor1D(nn.Module):
    """A linear layer per token gives the token's stretch of signal: (B, T, D) -> (B, C, L).

    Differs from ORCA's 1D dense tasks, which average the body's features without a learned layer.
    """

    def __init__(self, width: int, shape: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.channels, self.length = shape
        self.linear = nn.Linear(width, self.channels * stride)

    def pool(self, hidden: Tensor) -> Tensor:
        """Returns the hidden states: all of them are used."""
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and position."""
        out = self.linear(hidden).unflatten(2, (self.channels, -1)).permute(0, 2, 1, 3).flatten(2)
        return out if out.shape[-1] == self.length else F.interpolate(out, size=self.length, mode="linear")


class DensePredictor2D(nn.Module):
    """A linear layer per token gives the token's patch of the map: (B, T, D) -> (B, C, H, W)."""

    def __init__(self, spec: BodySpec, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.grid = spec.out_grid
        self.patch = spec.image_size // spec.out_grid
        self.linear = nn.Linear(spec.width_out, shape[0] * self.patch**2)

    def pool(self, hidden: Tensor) -> Tensor:
        """Returns the hidden states: all of them are used."""
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and point."""
        maps = self.linear(hidden).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        image = F.pixel_shuffle(maps, self.patch)
        if image.shape[-2:] == self.shape[-2:]:
            return image
        return F.interpolate(image, size=self.shape[-2:], mode="bilinear", align_corners=False)


class OrcaModel(nn.Module):
    """Embedder, body, predictor; predictions come out in the task's own units."""

    def __init__(
        self, embedder: nn.Module, body: nn.Module, predictor: nn.Module, mean: Tensor | None, std: Tensor | None
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.body = body
        self.predictor = predictor
        # Data statistics, not weights: they are rebuilt from the training split, never checkpointed.
        self.target_mean: Tensor | None
        self.target_std: Tensor | None
        self.register_buffer("target_mean", mean, persistent=False)
        self.register_buffer("target_std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, K) or maps in physical units."""
        return self.from_features(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Returns what embedder and body make of the input, as far as the predictor uses it."""
        pooled: Tensor = self.predictor.pool(self.body(self.embedder(x)))  # type: ignore[operator]
        return pooled

    def from_features(self, features: Tensor) -> Tensor:
        """Returns the predictions from ``features``."""
        out: Tensor = self.predictor(features)
        if self.target_std is None or self.target_mean is None:
            return out
        return out * self.target_std + self.target_mean


def build_embedder(task: Task, body: LoadedBody, config: TrialConfig) -> Embedder1D | Embedder2D:
    """Builds the embedder (stage 1), initialised as ``embedder.init`` says, from its own stream.

    Raises:
        InputError: if the task's dimensions are not the body's.
    """
    spec = body.spec
    if spec.dims != task.dims:
        raise InputError(
            f"body.name {config.body.name!r} takes {spec.dims}D input; the task {task.name!r} is {task.dims}D."
        )
    embedder: Embedder1D | Embedder2D
    with torch_stream(config.seed, "embedder init"):
        if task.dims == 1:
            stride = _stride(task, spec, config)
            embedder = Embedder1D(task.sample_shape[0], task.sample_shape[1], spec.width_in, stride)
        else:
            embedder = Embedder2D(task.sample_shape[0], spec)
    if config.embedder.init == "copied":
        embedder.copy_from(body)
    return embedder


def _stride(task: Task, spec: BodySpec, config: TrialConfig) -> int:
    room = spec.max_tokens // 2 if config.body.input_mode == "double" else spec.max_tokens
    return token_stride(task.sample_shape[1], min(config.embedder.target_length, room))


def build_predictor(task: Task, body: LoadedBody, config: TrialConfig) -> nn.Module:
    """Builds the predictor (stage 1) from its own stream."""
    with torch_stream(config.seed, "predictor init"):
        if task.kind != "dense":
            return VectorPredictor(body.spec.width_out, math.prod(task.output_shape))
        if task.dims == 1:
            return DensePredictor1D(body.spec.width_out, task.output_shape, _stride(task, body.spec, config))
        return DensePredictor2D(body.spec, task.output_shape)


def build_model(data: TaskData, body: LoadedBody, config: TrialConfig) -> OrcaModel:
    """Builds the whole model: the result of stage 1."""
    mean = None if data.target_mean is None else torch.from_numpy(data.target_mean).float()
    std = None if data.target_std is None else torch.from_numpy(data.target_std).float()
    embedder, network = build_embedder(data.task, body, config), body.network(config.body.input_mode)
    if config.finetune.lora_rank is not None:
        with torch_stream(config.seed, "adapter init"):
            add_adapters(network, body.spec.architecture, config.finetune.lora_rank, config.finetune.lora_alpha)
    return OrcaModel(embedder, network, build_predictor(data.task, body, config), mean, std)
