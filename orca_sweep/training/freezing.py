"""The meaning of a freeze schedule's words: which parameters of a model are frozen, and which modules run in eval mode.

These words freeze parameters of the body (transformers' names; ``*`` is weight and bias):

=============================  ====================================================================================
``body.norms``                 every normalisation layer, including the final one and Swin's ``downsample.norm``
``body.transformer-norms``     the same without Swin's ``downsample.norm``; no difference in other families
``body.attention``             the attention modules without their normalisation: ``body.qkv``, the output
                               projections, and Swin's ``relative_position_bias_table``
``body.qkv``                   queries, keys and values: RoBERTa and BERT ``query.*``, ``key.*``, ``value.*``; Swin and ViT
                               ``q_proj.*``, ``k_proj.*``, ``v_proj.*``; GPT-2 ``c_attn.*`` and GPT-NeoX
                               ``query_key_value.*``, which hold all three. No output projection, no
                               ``relative_position_bias_table``
``body.biases``                every additive vector, including those of normalisation layers, by name: ``*.bias``
``body.layers[A:B]``           whole transformer layers; Swin's patch merging belongs to the block before it
``body``                       everything, including ViT's ``cls_token`` and ``position_embeddings``, which no other word
                               freezes
``body-without-KIND``          everything that ``body.KIND`` does not freeze
=============================  ====================================================================================

Output projections are ``attention.output.dense.*`` (RoBERTa, BERT), ``o_proj.*`` (Swin, ViT), ``attn.c_proj.*`` (GPT-2)
and ``attention.dense.*`` (GPT-NeoX).

The released ORCA (``set_param_grad`` in its ``src/utils.py``) matches parts of names, for Swin and RoBERTa. Its
``layernorm`` trains parameters with ``layernorm`` or ``LayerNorm`` in their names and everything outside the layers (final
normalisation, embedder, predictor), but not ``downsample.norm``. This is our ``released-layernorm``
(``body-without-transformer-norms:forever``); our ``layernorm`` also trains ``downsample.norm``. Its ``non-attn`` freezes
parameters with ``query``, ``key`` or ``value`` in their names: our ``released-non-attn`` (``body.qkv:forever``). Embedder
and predictor train in both. Differs from it in: a module whose parameters are all frozen runs without dropout here.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from torch import nn

from orca_sweep.bodies.network import body_layers
from orca_sweep.config.freeze_words import LAYERS, PARTS, explain_range
from orca_sweep.errors import InputError

ADAPTER = "lora_"
"""In the name of every parameter of a low-rank adapter."""
ATTENTION = {"attention", "attn"}
QKV = {"query", "key", "value", "q_proj", "k_proj", "v_proj", "c_attn", "query_key_value"}
"""Modules of all families that hold queries, keys or values."""
DOWNSAMPLING = "downsample"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """The facts that decide to which kinds of weights a parameter of the body belongs."""

    name: str
    path: frozenset[str]
    """The parts of its dotted name: those of the modules around it, and its own."""
    is_of_norm: bool

    @classmethod
    def from_name(cls, name: str, norms: Set[str]) -> "Parameter":
        """Returns the facts of a parameter, given the names of all parameters of normalisation layers."""
        return cls(name=name, path=frozenset(name.split(".")), is_of_norm=name in norms)

    def is_inside(self, modules: Set[str]) -> bool:
        """Whether the parameter is inside a module with one of these names."""
        return not self.path.isdisjoint(modules)


SELECTORS: Mapping[str, Callable[[Parameter], bool]] = {
    "norms": lambda parameter: parameter.is_of_norm,
    "transformer-norms": lambda parameter: parameter.is_of_norm and DOWNSAMPLING not in parameter.path,
    "attention": lambda parameter: not parameter.is_of_norm and parameter.is_inside(ATTENTION),
    "qkv": lambda parameter: parameter.is_inside(ATTENTION) and parameter.is_inside(QKV),
    "biases": lambda parameter: parameter.name.endswith("bias"),
}
"""Which parameters of the body each kind of ``orca_sweep.config.freeze_words.KINDS`` selects."""


def find_frozen_names(model: nn.Module, words: Sequence[str]) -> set[str]:
    """Returns the names of the parameters that the words freeze; the table at the top of this module defines the words.

    With low-rank adapters, the body's own weights never train.

    Raises:
        InputError: if a range of layers is empty, or a word has no definition.
    """
    frozen: set[str] = set()
    parts = dict(model.named_children())
    for word in words:
        if word in PARTS:
            frozen |= {f"{word}.{name}" for name, _ in parts[word].named_parameters()}
        else:
            frozen |= {f"body.{name}" for name in _find_body_names(parts["body"], word)}
    adapted = [name for name, _ in model.named_parameters() if ADAPTER in name]
    if adapted:
        frozen |= {f"body.{name}" for name, _ in parts["body"].named_parameters() if ADAPTER not in name}
    return frozen


def _find_body_names(body: nn.Module, word: str) -> set[str]:
    every = {name for name, _ in body.named_parameters()}
    layers = LAYERS.fullmatch(word)
    if layers:
        return _find_layer_names(body, layers)
    for prefix, is_inverted in (("body-without-", True), ("body.", False)):
        if word.startswith(prefix):
            chosen = _find_kind_names(body, word.removeprefix(prefix))
            return every - chosen if is_inverted else chosen
    raise _make_unhandled_error(word)


def _find_layer_names(body: nn.Module, match: re.Match[str]) -> set[str]:
    layers = body_layers(body)
    problem = explain_range(match[0], "the body", len(layers))
    if problem:
        raise InputError(f"finetune.freeze: {problem}")
    start, stop = (int(text) if text else None for text in match.groups())
    inside = {id(p) for layer in layers[start:stop] for module in layer for p in module.parameters()}
    return {name for name, p in body.named_parameters() if id(p) in inside}


def _find_kind_names(body: nn.Module, kind: str) -> set[str]:
    if kind not in SELECTORS:
        raise _make_unhandled_error(kind)
    norms = {
        f"{path}.{name}"
        for path, module in body.named_modules()
        if type(module).__name__.endswith("Norm")
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name for name, _ in body.named_parameters() if SELECTORS[kind](Parameter.from_name(name, norms))}


def _make_unhandled_error(word: str) -> InputError:
    """An error, never a guess: a word without a definition could silently freeze the wrong weights."""
    kinds = ", ".join(SELECTORS)
    return InputError(f"finetune.freeze: which weights {word!r} freezes is not defined. The kinds are {kinds}.")


def freeze_weights(model: nn.Module, words: Sequence[str]) -> int:
    """Freezes exactly what the words name, sets train and eval modes, and returns the number of trainable parameters.

    A frozen parameter gets no gradient, and therefore no step and no weight decay. A module whose parameters are all
    frozen runs in eval mode with everything inside it, without dropout. When a phase ends, trained parameters keep their
    optimizer state, even while they are frozen later; parameters that were frozen start with an empty state, and the
    learning-rate schedule continues from the absolute step. A phase with a fresh start begins without optimizer state
    and counts steps from its own first step.
    """
    frozen = find_frozen_names(model, words)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
        if name in frozen:
            parameter.grad = None
    _set_mode(model, True)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _set_mode(module: nn.Module, training: bool) -> None:
    parameters = list(module.parameters())
    module.training = training and (not parameters or any(p.requires_grad for p in parameters))
    for child in module.children():
        _set_mode(child, module.training)
