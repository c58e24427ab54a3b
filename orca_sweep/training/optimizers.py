"""Builds optimizers, sets their learning rates, and saves their states as arrays."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from orca_sweep.config import EmbedderConfig, FinetuneConfig
from orca_sweep.config.number_lists import parse_numbers


def build_optimizer(
    settings: EmbedderConfig | FinetuneConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Returns the optimizer that a stage's settings name."""
    betas = parse_numbers(settings.betas)
    return make_optimizer(
        settings.optimizer,
        parameters,
        settings.lr,
        settings.weight_decay,
        momentum=settings.momentum,
        betas=betas,
    )


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    *,
    momentum: float = 0.9,
    betas: Sequence[float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Returns a fused optimizer: adamw or adam, which use betas, or sgd, which uses momentum.

    adam and sgd add the weight decay to the gradient; adamw shrinks the weights by lr * weight_decay.
    """
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=True)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    first, second = betas
    return kind(parameters, lr=lr, weight_decay=weight_decay, betas=(first, second), fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives newly trained parameters a zero momentum if other trained parameters already have a momentum (sgd).

    Their first step stays the same. Torch's fused sgd needs a momentum for all parameters or for none.
    """
    trained = [p for p in optimizer.param_groups[0]["params"] if p.requires_grad]
    if any(optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in trained):
        for parameter in trained:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def clear_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Resets the optimizer to its state before the first step: no moments, no momentum, no step counts."""
    optimizer.state.clear()


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Returns the optimizer's state as named arrays ``<parameter index>.<name>``."""
    arrays: dict[str, np.ndarray] = {}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                arrays[f"{index}.{name}"] = torch.as_tensor(value).detach().cpu().numpy().copy()
    return arrays


def load_optimizer(optimizer: torch.optim.Optimizer, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces the optimizer's state with arrays that ``optimizer_arrays`` returned."""
    clear_optimizer(optimizer)
    parameters = optimizer.param_groups[0]["params"]
    for key, array in arrays.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        optimizer.state[parameter][name] = torch.from_numpy(np.array(array)).to(parameter.device)
