"""What a freeze schedule's words mean for a model: which parameters rest, and which modules run in eval mode."""

from collections.abc import Iterator, Sequence

from torch import nn

from orca_sweep.errors import InputError
from orca_sweep.freezing import LAYERS

ADAPTER = "lora_"
"""In the name of every parameter of a low-rank adapter."""


def frozen_names(model: nn.Module, words: Sequence[str]) -> set[str]:
    """Returns the names of the parameters that the words freeze.

    Attention means the attention modules without their normalisation; norms are those of every
    normalisation layer; biases are the additive vectors of all layers. Where low-rank adapters stand in for
    the body's weights, these never train.

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
        chosen = body.layers()[start:stop]  # type: ignore[operator]
        if not chosen:
            n = len(body.layers())  # type: ignore[operator]
            raise InputError(f"finetune.freeze: {word} holds none of the body's {n} layers. Choose among 0 to {n - 1}.")
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
    for name, _ in body.named_parameters():
        if kind == "norms":
            matches = name in norms
        elif kind == "biases":
            matches = name.endswith("bias")
        else:
            matches = name not in norms and bool({"attention", "attn"} & set(name.split(".")))
        if matches:
            yield name


def set_frozen(model: nn.Module, words: Sequence[str]) -> int:
    """Freezes exactly what the words name, sets train and eval modes, and returns the trainable parameters.

    A frozen parameter gets no gradient and so no step and no weight decay. A module all of whose parameters
    are frozen runs in eval mode with all inside it, without dropout. When a phase ends, parameters that were
    trained keep their optimizer state, also while they are frozen later; parameters that were frozen start
    with an empty one, and the learning-rate schedule goes on by the absolute step.
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
