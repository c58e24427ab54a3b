"""What a freeze schedule's words mean for a model: which parameters are frozen, and which modules run in eval mode.

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

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn

from orca_sweep.config.freezing import LAYERS, explain_range
from orca_sweep.errors import InputError

ADAPTER = "lora_"
"""In the name of every parameter of a low-rank adapter."""
ATTENTION = {"attention", "attn"}
QKV = {"query", "key", "value", "q_proj", "k_proj", "v_proj", "c_attn", "query_key_value"}
"""Modules of all families that hold queries, keys or values."""
DOWNSAMPLING = "downsample"


def frozen_names(model: nn.Module, words: Sequence[str]) -> set[str]:
    """Returns the names of the parameters that the words freeze: see the table at the top of this module.

    With low-rank adapters, the body's own weights never train.

    Raises:
        InputError: if a slice of layers holds none.
    """
    frozen: set[str] = set()
    parts = dict(model.named_children())
    for word in words:
        if word in parts:
            frozen |= {f"{word}.{name}" for name, _ in parts[word].named_parameters()}
        else:
            frozen |= {f"body.{name}" for name in _body_names(parts["body"], word)}
    adapted = [name for name, _ in model.named_parameters() if ADAPTER in name]
    if adapted:
        frozen |= {f"body.{name}" for name, _ in parts["body"].named_parameters() if ADAPTER not in name}
    return frozen


def _body_names(body: nn.Module, word: str) -> set[str]:
    every = {name for name, _ in body.named_parameters()}
    layers = LAYERS.fullmatch(word)
    if layers:
        start, stop = (int(text) if text else None for text in layers.groups())
        every_layer = body.layers()  # type: ignore[operator]
        problem = explain_range(word, "the body", len(every_layer))
        if problem:
            raise InputError(f"finetune.freeze: {problem}")
        chosen = every_layer[start:stop]
        inside = {id(p) for layer in chosen for module in layer for p in module.parameters()}
        return {name for name, p in body.named_parameters() if id(p) in inside}
    kind = set(_of_kind(body, word.removeprefix("body.").removeprefix("body-without-")))
    return every - kind if word.startswith("body-without-") else kind


def _of_kind(body: nn.Module, kind: str) -> Iterator[str]:
    norms = {
        f"{path}.{name}"
        for path, module in body.named_modules()
        if type(module).__name__.endswith("Norm")
        for name, _ in module.named_parameters(recurse=False)
    }
    is_meant: Mapping[str, Callable[[str, set[str]], bool]] = {
        "norms": lambda name, path: name in norms,
        "transformer-norms": lambda name, path: name in norms and DOWNSAMPLING not in path,
        "attention": lambda name, path: name not in norms and bool(ATTENTION & path),
        "qkv": lambda name, path: bool(ATTENTION & path) and bool(QKV & path),
        "biases": lambda name, path: name.endswith("bias"),
    }
    for name, _ in body.named_parameters():
        if is_meant[kind](name, set(name.split("."))):
            yield name


def set_frozen(model: nn.Module, words: Sequence[str]) -> int:
    """Freezes exactly what the words name, sets train and eval modes, and returns the trainable parameters.

    A frozen parameter gets no gradient and so no step and no weight decay. A module all of whose parameters
    are frozen runs in eval mode with all inside it, without dropout. When a phase ends, parameters that were
    trained keep their optimizer state, also while they are frozen later; parameters that were frozen start
    with an empty one, and the learning-rate schedule goes on by the absolute step. A phase with a fresh start begins
    without state and counts steps from its own first one.
    """
    frozen = frozen_names(model, words)
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
