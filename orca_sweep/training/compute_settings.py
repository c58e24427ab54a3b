"""How a model computes: attention, dropout, compilation, recomputed activations and deterministic kernels."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from orca_sweep.bodies import list_dropout_fields
from orca_sweep.bodies.network import body_layers
from orca_sweep.config import FinetuneConfig
from orca_sweep.training.freezing import ADAPTER
from orca_sweep.training.model import OrcaModel

ATTENTION_RATE = "attention_dropout"
"""The attribute of attention modules that holds the dropout rate of the attention function."""


@contextlib.contextmanager
def apply_compute_settings(model: nn.Module, config: FinetuneConfig) -> Iterator[None]:
    """Applies fine-tuning's compute settings to a model within a block.

    Attention, dropout and compilation keep their settings after the block.
    """
    if isinstance(model, OrcaModel):
        set_attention(model.body, config.attention)
        set_dropout(model.body, config.dropout)
    if config.compile:
        model.compile()
    with _use_deterministic_kernels(config.deterministic), _recompute_activations(model, config.gradient_checkpointing):
        yield


def set_attention(body: nn.Module, name: str) -> None:
    """Sets how every module of a body computes attention: torch's fused kernel (sdpa), or step by step (eager)."""
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
def _use_deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Restricts torch within a block to kernels that give the same bits every time, even on a GPU."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        # Without this variable torch refuses matrix products on a GPU. A sweep's workers set it when they start.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextlib.contextmanager
def _recompute_activations(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within a block, makes the body's layers drop their activations and recompute them for the gradient."""
    layers = body_layers(model.body) if wanted and isinstance(model, OrcaModel) else []
    modules = [module for layer in layers for module in layer]
    for module in modules:
        module.forward = partial(_run_recomputed, module.forward)
    try:
        yield
    finally:
        for module in modules:  # otherwise each refers to itself, and only the garbage collector frees its memory
            del module.forward


def _run_recomputed(forward: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
    """Runs a layer without keeping its activations; its backward pass runs it again with the same dropout."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **more)
    return recomputed(forward, *inputs, use_reentrant=False, **more)
