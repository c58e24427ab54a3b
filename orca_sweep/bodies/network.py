"""Bodies as torch modules: load them, feed them with embeddings, read them out."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies import DECODERS, DIMS, Body, model_location
from orca_sweep.bodies.loading import check_family, load_model, read_body_config
from orca_sweep.bodies.tokenizers import load_tokenizer
from orca_sweep.errors import InputError, reason_of
from orca_sweep.store import state_digest
from orca_sweep.streams import torch_stream


@dataclass(frozen=True)
class BodySpec:
    """What the layers before and after a body need to know; all of it read from the body's own config."""

    architecture: str
    width_in: int
    width_out: int
    max_tokens: int
    """Longest sequence (1D), or the number of patches (2D)."""
    image_size: int = 0
    patch_size: int = 0
    in_channels: int = 0
    out_grid: int = 0
    """Tokens along each side of the last feature map (2D)."""

    @property
    def dims(self) -> int:
        """1 for sequences, 2 for images."""
        return DIMS[self.architecture]


@dataclass
class LoadedBody:
    """A transformers model with what is needed to use it: its spec and, for text, its tokenizer.

    The model's own input layer is kept only as the source of proxy features and of copied weights; the
    network that ORCA trains is ``network()``.
    """

    model: Any
    tokenizer: Any = None
    pretrain_metric: float | None = None
    spec: BodySpec = field(init=False)
    about: str = field(init=False)
    """Config and tokenizer as text: what weights alone do not tell."""

    def __post_init__(self) -> None:
        self.model.eval()
        self.spec = body_spec(self.model.config)
        self.about = _about(self.model.config) + _tokenizer_text(self.tokenizer)

    def network(self, input_mode: str = "plain") -> nn.Module:
        """Returns a copy of the body without its input layer: (B, T, width_in) -> (B, T', width_out).

        ``input_mode`` is for decoders: see ``DecoderNetwork``.
        """
        family = self.spec.architecture
        if family == "swin":
            return copy.deepcopy(SwinNetwork(self.model, self.spec))
        if family == "vit":
            return copy.deepcopy(VitNetwork(self.model))
        if family in DECODERS:
            return DecoderNetwork(copy.deepcopy(self.model), input_mode)
        return copy.deepcopy(TextNetwork(self.model))

    def input_layer(self) -> nn.Module:
        """Returns the body's own input layer: what makes tokens of images or of words."""
        family = self.spec.architecture
        if family == "vit":
            patches: nn.Module = self.model.embeddings.patch_embeddings
            return patches
        if family in DECODERS:
            return DecoderInput(self.model)
        layer: nn.Module = self.model.embeddings
        return layer

    def input_digest(self) -> str:
        """Hash of the input layer: all that proxy features and a copied initialisation depend on."""
        return state_digest(to_arrays(self.input_layer().state_dict()), self.about)

    def digest(self) -> str:
        """Hash of all weights, the config and the tokenizer."""
        return state_digest(to_arrays(self.model.state_dict()), self.about)


def _about(config: Any) -> str:
    """The config as text, without what says where and by whom it was saved."""
    saved = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
    return json.dumps({k: v for k, v in config.to_dict().items() if k not in saved}, sort_keys=True, default=str)


def _tokenizer_text(tokenizer: Any) -> str:
    """The tokenizer as text, without padding and truncation, which every call sets anew."""
    if tokenizer is None:
        return ""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {k: v for k, v in whole.items() if k not in {"padding", "truncation"}}
    if tokenizer.split_special_tokens:
        kept["split_special_tokens"] = True
    return json.dumps(kept, sort_keys=True)


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns a state dict as NumPy arrays on the host."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns NumPy arrays as tensors that own their memory."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def body_spec(config: Any) -> BodySpec:
    """Reads widths and sizes from a transformers config.

    Raises:
        InputError: if the family is not supported.
    """
    family = config.model_type
    check_family(family)
    if DIMS[family] == 2:
        side = config.image_size // config.patch_size
        width = config.embed_dim if family == "swin" else config.hidden_size
        shrink = 2 ** (len(config.depths) - 1) if family == "swin" else 1
        return BodySpec(
            family, width, width * shrink, side * side,
            config.image_size, config.patch_size, config.num_channels, side // shrink,
        )  # fmt: skip
    offset = config.pad_token_id + 1 if family == "roberta" else 0
    return BodySpec(family, config.hidden_size, config.hidden_size, config.max_position_embeddings - offset)


@runtime_checkable
class Layered(Protocol):
    """A network whose transformer layers can be told apart."""

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""


def body_layers(network: nn.Module) -> list[list[nn.Module]]:
    """Returns the modules of each transformer layer of a body's network, first to last.

    Raises:
        TypeError: if the network does not tell its layers apart.
    """
    if not isinstance(network, Layered):
        raise TypeError(f"{type(network).__name__} has no method layers(), which freezing by layers needs")
    return network.layers()


class TextNetwork(nn.Module):
    """Transformer encoder of a RoBERTa or BERT body: (B, T, D) -> (B, T, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the last hidden states; all tokens attend to all."""
        return self.encoder(tokens).last_hidden_state

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""
        return [[layer] for layer in self.encoder.layer]


class SwinNetwork(nn.Module):
    """Swin encoder and final LayerNorm: (B, T, D) -> (B, T', D')."""

    def __init__(self, model: Any, spec: BodySpec) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.layernorm = model.layernorm
        side = spec.image_size // spec.patch_size
        self.grid = (side, side)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the normalised last feature map as tokens, row by row."""
        return self.layernorm(self.encoder(tokens, self.grid).last_hidden_state)

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each block, first to last; merging patches belongs to the block before it."""
        blocks: list[list[nn.Module]] = []
        for stage in self.encoder.layers:
            blocks += [[block] for block in stage.blocks]
            if stage.downsample is not None:
                blocks[-1].append(stage.downsample)
        return blocks


class VitNetwork(nn.Module):
    """ViT's class token, positions, layers and final LayerNorm: (B, T, D) -> (B, T, D), without the class token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.cls_token = model.embeddings.cls_token
        self.position_embeddings = model.embeddings.position_embeddings
        self.blocks = model.layers
        self.layernorm = model.layernorm

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the normalised last hidden states of the patches."""
        hidden = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.position_embeddings
        for block in self.blocks:
            hidden = block(hidden, None)
        return self.layernorm(hidden)[:, 1:]

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""
        return [[block] for block in self.blocks]


class _NoPositions(nn.Module):
    """In the place of a position table: the embedder adds positions."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros(*position_ids.shape, 1, device=position_ids.device)


class DecoderNetwork(nn.Module):
    """GPT-2 or GPT-NeoX without its tables of words and positions: (B, T, D) -> (B, T, D).

    Each token attends to itself and those before it. Rotary positions (GPT-NeoX) stay, a learned position
    table (GPT-2) is the embedder's affair, as it is for encoders. With ``double`` the sequence is given twice
    in a row and the second half is read out, with ``flip`` it is also given in reverse and the mean of both is
    read out: either way every output has seen the whole input.

    Source: Garcia-de-Herreros et al. 2025, arXiv 2510.05278 (sequence doubling, parallel flipping). Differs
    from their code in: tokens are repeated or reversed, not the data, so position tables need not grow; flipping
    shares one body, where they train one per direction.
    """

    def __init__(self, model: Any, input_mode: str) -> None:
        super().__init__()
        self.input_mode = input_mode
        if hasattr(model, "wte"):
            model.wte, model.wpe = nn.Identity(), _NoPositions()
        else:
            model.embed_in = nn.Identity()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the normalised last hidden states."""
        if self.input_mode == "double":
            return self._run(torch.cat([tokens, tokens], dim=1))[:, tokens.shape[1] :]
        if self.input_mode == "flip":
            return (self._run(tokens) + self._run(tokens.flip(1)).flip(1)) / 2
        return self._run(tokens)

    def _run(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return hidden

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""
        return [[layer] for layer in (self.model.h if hasattr(self.model, "h") else self.model.layers)]


class DecoderInput(nn.Module):
    """A decoder's table of words and, for GPT-2, of positions: ids (B, T) or embeddings (B, T, D) -> (B, T, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.word_embeddings = model.wte if hasattr(model, "wte") else model.embed_in
        self.position_embeddings = getattr(model, "wpe", None)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> Tensor:
        """Returns word embeddings, with positions if the body has a table of them."""
        words: Tensor = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.position_embeddings is None:
            return words
        return words + self.position_embeddings.weight[: words.shape[1]]


ADAPTED: Mapping[str, tuple[str, ...]] = {
    "roberta": ("query", "value"),
    "bert": ("query", "value"),
    "swin": ("q_proj", "v_proj"),
    "vit": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
}
"""Layers of each family that adapters stand in for: queries and values, as in the paper; where one matrix holds
queries, keys and values, all three."""


def add_adapters(network: nn.Module, family: str, rank: int, alpha: int) -> None:
    """Puts low-rank adapters on the queries and values of a body, in place; its own weights stop training.

    Source: Hu et al. 2022, arXiv 2106.09685, by the package peft.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(ADAPTED[family]), fan_in_fan_out=family == "gpt2"
    )
    inject_adapter_in_model(settings, network)


# Building and loading -----------------------------------------------------------------------------


def fresh_model(body: Body, seed: int) -> Any:
    """Returns the body's architecture with seeded random weights: a body that has seen nothing.

    The same seed gives the initialisation from which our own pre-training starts, so fraction 0 and
    fraction f differ in the training alone.
    """
    with torch_stream(seed, "body init"):
        return base_model(load_config(body))


def base_model(config: Any) -> Any:
    """Returns a randomly initialised base model for a transformers config.

    Raises:
        InputError: if transformers cannot build it.
    """
    from transformers import AutoModel

    try:
        return AutoModel.from_config(config, **_options(config.model_type))
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"body.name: transformers cannot build a {config.model_type} body from its config.json ({reason_of(error)})."
            " Correct that entry, or get the folder again."
        ) from None


def load_config(body: Body) -> Any:
    """Returns the body's transformers config.

    Raises:
        InputError: if its family is not supported, or the config is impossible.
        OSError: if the config of a hub id cannot be fetched (transformers' own words).
    """
    return read_body_config(body)[1]


def load_pretrained(body: Body, allow_pickle: bool = False) -> LoadedBody:
    """Loads a body from its folder, package or hub id, from safetensors.

    With ``allow_pickle`` a checkpoint without safetensors is read from its pickle, by torch's reader that
    knows tensors and nothing else. Every weight that the input layer and the network use comes from the checkpoint;
    heads and poolers, which are not used, may be there or missing.

    Raises:
        InputError: if the family is not supported, or the config is impossible.
        DataError: if weights are missing, unexpected, of another shape or type, or not finite; if a file is damaged; or
            if the tokenizer has words without an embedding.
        OSError: if the weights cannot be found or fetched (transformers' own words).
    """
    raw, config = read_body_config(body)
    model = load_model(
        model_location(body), raw, config, revision=body.revision, allow_pickle=allow_pickle,
        options=_options(config.model_type),
    )  # fmt: skip
    return LoadedBody(model, body_tokenizer(body, config))


def body_tokenizer(body: Body, config: Any) -> Any:
    """Returns the tokenizer of a text body's folder or hub id; None for vision bodies and folders without one.

    Raises:
        DataError: if it cannot be read, or has more words than the body's embedding has rows.
    """
    if DIMS[config.model_type] == 2:
        return None
    return load_tokenizer(model_location(body), body.revision, config.vocab_size)


def _options(family: str) -> dict[str, Any]:
    # The pooler after the encoder is never used; without it every parameter of the body can get a gradient.
    return {} if family in DECODERS or family not in DIMS else {"add_pooling_layer": False}
