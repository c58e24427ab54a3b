"""Bodies as torch modules: builds and loads them, and gives access to their input layers and networks."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies.configs import fill_config
from orca_sweep.bodies.finding import locate_model
from orca_sweep.bodies.loading import check_family, load_model, read_body_config
from orca_sweep.bodies.records import DECODERS, DIMS, Body
from orca_sweep.bodies.spec import BodySpec, make_body_spec
from orca_sweep.bodies.tokenizers import load_tokenizer
from orca_sweep.errors import InputError, reason_of
from orca_sweep.store import state_digest
from orca_sweep.streams import torch_stream


@dataclass(kw_only=True)
class LoadedBody:
    """A transformers model with what its users need: its spec and, for text, its tokenizer.

    The model's own input layer is kept only as the source of proxy features and of copied weights. ``build_network()``
    returns the network that ORCA trains.
    """

    model: Any
    tokenizer: Any = None
    pretrain_metric: float | None = None
    spec: BodySpec = field(init=False)
    about: str = field(init=False)
    """Config and tokenizer as text: what the weights do not contain."""

    def __post_init__(self) -> None:
        self.model.eval()
        self.spec = read_body_spec(self.model.config)
        self.about = _describe_config(self.model.config) + _describe_tokenizer(self.tokenizer)

    def build_network(self, input_mode: str = "plain") -> nn.Module:
        """Returns a copy of the body without its input layer: (B, T, width_in) -> (B, T', width_out).

        Only decoders use ``input_mode``: see ``DecoderNetwork``.
        """
        family = self.spec.architecture
        if family == "swin":
            return copy.deepcopy(SwinNetwork(self.model, self.spec))
        if family == "vit":
            return copy.deepcopy(VitNetwork(self.model))
        if family in DECODERS:
            return DecoderNetwork(copy.deepcopy(self.model), input_mode)
        return copy.deepcopy(TextNetwork(self.model))

    def get_input_layer(self) -> nn.Module:
        """Returns the body's own input layer, which turns images or words into tokens."""
        family = self.spec.architecture
        if family == "vit":
            patches: nn.Module = self.model.embeddings.patch_embeddings
            return patches
        if family in DECODERS:
            return DecoderInput(self.model)
        layer: nn.Module = self.model.embeddings
        return layer

    def hash_input_layer(self) -> str:
        """Returns a hash of the input layer, config and tokenizer: all that proxy features and copied weights depend on."""
        return state_digest(to_arrays(self.get_input_layer().state_dict()), self.about)

    def hash_weights(self) -> str:
        """Returns a hash of all weights, the config and the tokenizer."""
        return state_digest(to_arrays(self.model.state_dict()), self.about)


def _describe_config(config: Any) -> str:
    """Returns the config as text, without entries about where and by what it was saved."""
    saved = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
    return json.dumps({k: v for k, v in config.to_dict().items() if k not in saved}, sort_keys=True, default=str)


def _describe_tokenizer(tokenizer: Any) -> str:
    """Returns the tokenizer as text, without padding and truncation, which every call sets."""
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


def read_body_spec(config: Any) -> BodySpec:
    """Returns the widths and sizes in a transformers config.

    Raises:
        InputError: if the family is not supported.
    """
    check_family(config.model_type)
    return make_body_spec(config.model_type, fill_config(config.model_type, config.to_dict()))


@runtime_checkable
class Layered(Protocol):
    """A network that lists its transformer layers."""

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""


def body_layers(network: nn.Module) -> list[list[nn.Module]]:
    """Returns the modules of each transformer layer of a body's network, first to last.

    Raises:
        TypeError: if the network does not list its layers.
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
        """Returns the last hidden states; every token attends to all tokens."""
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
        """Returns the modules of each block, first to last; patch merging belongs to the block before it."""
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
    """Replaces a position table with zeros: the embedder adds positions."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros(*position_ids.shape, 1, device=position_ids.device)


class DecoderNetwork(nn.Module):
    """GPT-2 or GPT-NeoX without its word and position tables: (B, T, D) -> (B, T, D).

    Each token attends to itself and to earlier tokens. Rotary positions (GPT-NeoX) stay; the embedder replaces a
    learned position table (GPT-2), as it does for encoders. ``double`` feeds the sequence twice in a row and returns the
    outputs of the second copy. ``flip`` also feeds the reversed sequence and returns the mean of both passes. Either
    way, every output has seen the whole input.

    Source: Garcia-de-Herreros et al. 2025, arXiv 2510.05278 (sequence doubling, parallel flipping). Differs
    from their code in: tokens are repeated or reversed, not the data, so position tables need not grow; both directions
    share one body, where they train one body each.
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
            return self._run_model(torch.cat([tokens, tokens], dim=1))[:, tokens.shape[1] :]
        if self.input_mode == "flip":
            return (self._run_model(tokens) + self._run_model(tokens.flip(1)).flip(1)) / 2
        return self._run_model(tokens)

    def _run_model(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return hidden

    def layers(self) -> list[list[nn.Module]]:
        """Returns the modules of each transformer layer, first to last."""
        return [[layer] for layer in (self.model.h if hasattr(self.model, "h") else self.model.layers)]


class DecoderInput(nn.Module):
    """A decoder's word table and, for GPT-2, position table: ids (B, T) or embeddings (B, T, D) -> (B, T, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.word_embeddings = model.wte if hasattr(model, "wte") else model.embed_in
        self.position_embeddings = getattr(model, "wpe", None)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> Tensor:
        """Returns word embeddings, plus positions if the body has a position table."""
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
"""Layers of each family that get adapters: queries and values, as in the paper; all three where one matrix holds
queries, keys and values."""


def add_adapters(network: nn.Module, family: str, rank: int, alpha: int) -> None:
    """Adds low-rank adapters to the queries and values of a body, in place; its own weights stop training.

    Source: Hu et al. 2022, arXiv 2106.09685; implemented by the package peft.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(ADAPTED[family]), fan_in_fan_out=family == "gpt2"
    )
    inject_adapter_in_model(settings, network)


# Building and loading -----------------------------------------------------------------------------


def build_random_model(body: Body, seed: int) -> Any:
    """Returns the body's architecture with seeded random weights: a body that has seen no data.

    Our own pre-training starts from the initialisation of the same seed, so fraction 0 and fraction f differ only in
    training.
    """
    with torch_stream(seed, "body init"):
        return build_base_model(load_config(body))


def build_base_model(config: Any) -> Any:
    """Returns a randomly initialised model, without a head, for a transformers config.

    Raises:
        InputError: if transformers cannot build it.
    """
    from transformers import AutoModel

    try:
        return AutoModel.from_config(config, **_choose_options(config.model_type))
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"body.name: transformers cannot build a {config.model_type} body from its config.json ({reason_of(error)})."
            " Correct that entry, or get the folder again."
        ) from None


def load_config(body: Body) -> Any:
    """Returns the body's transformers config.

    Raises:
        InputError: if its family is not supported, or the config is impossible.
        OSError: if the config of a hub id cannot be fetched (the message is from transformers).
    """
    return read_body_config(body)[1]


def load_pretrained(body: Body, allow_pickle: bool = False) -> LoadedBody:
    """Returns the body of a folder, package or hub id, loaded from safetensors.

    With ``allow_pickle``, a checkpoint without safetensors is loaded from its pickle, by torch's reader of tensors only.
    Every weight that the input layer and the network use comes from the checkpoint. Heads and poolers are not used, so
    they may be present or missing.

    Raises:
        InputError: if the family is not supported, or the config is impossible.
        DataError: if weights are missing, unexpected, of another shape or type, or not finite; if a file is damaged; or
            if the tokenizer has words without an embedding.
        OSError: if the weights cannot be found or fetched (the message is from transformers).
    """
    raw, config = read_body_config(body)
    model = load_model(
        locate_model(body), raw, config, revision=body.revision, allow_pickle=allow_pickle,
        options=_choose_options(config.model_type),
    )  # fmt: skip
    return LoadedBody(model=model, tokenizer=load_body_tokenizer(body, config))


def load_body_tokenizer(body: Body, config: Any) -> Any:
    """Returns the tokenizer of a text body's folder or hub id; None for vision bodies and folders without one.

    Raises:
        DataError: if it cannot be read, or has more words than the body's embedding has rows.
    """
    if DIMS[config.model_type] == 2:
        return None
    return load_tokenizer(locate_model(body), body.revision, config.vocab_size)


def _choose_options(family: str) -> dict[str, Any]:
    # The pooler after the encoder is never used. Without it, every parameter of the body can get a gradient.
    return {} if family in DECODERS or family not in DIMS else {"add_pooling_layer": False}
