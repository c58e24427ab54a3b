"""How a model computes what it computes: attention, activations kept or not, compiled, the same bits every time."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from orca_sweep.bodies import list_dropout_fields
from orca_sweep.config import FinetuneConfig
from orca_sweep.training.frozen import ADAPTER
from orca_sweep.training.model import OrcaModel

ATTENTION_RATE = "attention_dropout"
"""Name that attention modules give to the dropout rate of the attention function."""


@contextlib.contextmanager
def switched(model: nn.Module, config: FinetuneConfig) -> Iterator[None]:
    """Applies fine-tuning's settings of how to compute to a model, for the length of a block.

    Attention, dropout and compilation stay as set after the block.
    """
    if isinstance(model, OrcaModel):
        set_attention(model.body, config.attention)
        set_dropout(model.body, config.dropout)
    if config.compile:
        model.compile()
    with _determinism(config.deterministic), _recomputing(model, config.gradient_checkpointing):
        yield


def set_attention(body: nn.Module, name: str) -> None:
    """Lets every module of a body compute attention as named: torch's fused kernel (sdpa), or step by step (eager)."""
    for module in body.modules():
        if hasattr(module, "config") and hasattr(module.config, "_attn_implementation"):
            module.config._attn_implementation = name


def set_dropout(body: nn.Module, rate: float | None) -> None:
    """Sets hidden and attention dropout in every module of a body and in its config; None changes nothing.

    A module holds its rate in a ``Dropout`` module, or as a number for the attention function. Stochastic depth, which
    drops whole branches, and the dropout of adapters stay unchanged.
    """
    if rate is None:
        return
    for name, module in body.named_modules():
        if isinstance(module, nn.Dropout) and ADAPTER not in name:
            module.p = rate
        if isinstance(vars(module).get(ATTENTION_RATE), int | float):
            setattr(module, ATTENTION_RATE, rate)
        config = vars(module).get("config")
        for field in list_dropout_fields(getattr(config, "model_type", None)):
            setattr(config, field, rate)


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Lets torch use, for the length of a block, only what gives the same bits every time on a GPU too."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        # Without it torch refuses matrix products on a GPU. A sweep's workers have it from their start.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextlib.contextmanager
def _recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Lets the body's layers keep nothing of what is inside them, for the length of a block."""
    layers = model.body.layers() if wanted and isinstance(model, OrcaModel) else []  # type: ignore[operator]
    modules = [module for layer in layers for module in layer]
    for module in modules:
        module.forward = partial(_recomputed, module.forward)
    try:
        yield
    finally:
        for module in modules:  # else each would hold itself, and its memory be free only when garbage is collected
            del module.forward


def _recomputed(forward: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
    """Runs a layer without keeping what is inside it; its gradient runs it again, with the same dropout."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **more)
    return recomputed(forward, *inputs, use_reentrant=False, **more)
