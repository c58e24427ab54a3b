"""Where a stage computes, and how training loops step, report and save their state."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.data import Array, Rows, cut_into_chunks
from orca_sweep.store import Store

Progress = Callable[[Mapping[str, Any]], None]
"""Called once per epoch with what there is to see."""


@dataclass(frozen=True)
class Worker:
    """Where a stage computes. Device and threads can change the last bits, so they are part of keys."""

    store: Store
    device: str = "cpu"
    n_threads: int = 1
    n_gpus: float = 0.0
    """GPUs that are held meanwhile; a share of one counts as that."""

    def key_part(self) -> dict[str, Any]:
        """What of the place belongs into a stage's key."""
        return {"device": self.device.split(":")[0], "n_threads": self.n_threads}


RESIDENT_BYTES = 2**31
"""Samples on disk are brought to a GPU once if they take no more than this; else batch by batch."""


class Feed:
    """Inputs or targets of a split on their way to the device: there already, or read when asked for."""

    def __init__(self, array: Array, device: str) -> None:
        self.array, self.device = array, device
        self.shape = array.shape
        self.tensor: Tensor | None = None
        if isinstance(array, np.ndarray):
            self.tensor = torch.from_numpy(array).to(device)
        elif device != "cpu" and 4 * int(np.prod(array.shape)) <= RESIDENT_BYTES:
            self.tensor = torch.cat([self._moved(array[part]) for part in cut_into_chunks(array)])

    @property
    def is_resident(self) -> bool:
        """Whether the samples are on the device already."""
        return self.tensor is not None

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """The samples of an index tensor (on the CPU) or a slice, on the device."""
        if self.tensor is not None:
            return self.tensor[index if isinstance(index, slice) else index.to(self.tensor.device)]
        return self._moved(self.array[index if isinstance(index, slice) else index.numpy()])

    def drawn(self, index: Tensor, rng: np.random.Generator) -> Tensor:
        """The samples of an index tensor, augmented; those in memory never are."""
        if isinstance(self.array, Rows):
            return self._moved(self.array.read_augmented(index.numpy(), rng))
        return self[index]

    def _moved(self, batch: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(batch)
        if self.device == "cpu":
            return tensor
        # From pinned memory the copy goes on while the device computes.
        return tensor.pin_memory().to(self.device, non_blocking=True)


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
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    first, second = betas
    return kind(parameters, lr=lr, weight_decay=weight_decay, betas=(first, second), fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives sgd a zero momentum for parameters that begin to train beside others that have one.

    Their first step is the same as without; torch's fused sgd takes a momentum for all parameters or for none.
    """
    trained = [p for p in optimizer.param_groups[0]["params"] if p.requires_grad]
    if any(optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in trained):
        for parameter in trained:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def forget_state(optimizer: torch.optim.Optimizer) -> None:
    """Resets the optimizer to before its first step: no moments, no momentum, no step counts."""
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
    """Replaces the optimizer's state with that in ``optimizer_arrays``."""
    forget_state(optimizer)
    parameters = optimizer.param_groups[0]["params"]
    for key, array in arrays.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        optimizer.state[parameter][name] = torch.from_numpy(np.array(array)).to(parameter.device)


def with_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays under longer names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of one prefix under their own names."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def phase_row(
    epochs: Sequence[Mapping[str, Any]], frozen: Sequence[str], n_trainable: int, reused_s: float
) -> dict[str, Any]:
    """Returns what a stretch of epochs came to, as columns of the stages table."""
    return {
        "frozen": "+".join(frozen),
        "first_epoch": epochs[0]["epoch"],
        "last_epoch": epochs[-1]["epoch"],
        "n_trainable": n_trainable,
        "n_steps": sum(row["n_steps"] for row in epochs),
        "lr_integral": math.fsum(row["lr_integral"] for row in epochs),
        "reused_s": reused_s,
    }


def batches(order: np.ndarray, size: int) -> list[Tensor]:
    """Returns the index tensors of consecutive batches; the last may be short, none is dropped."""
    return [torch.from_numpy(order[i : i + size]) for i in range(0, len(order), size)]


class Parts:
    """Which samples are parts of which whole."""

    def __init__(self, groups: np.ndarray) -> None:
        _, whole, self.counts = np.unique(groups, return_inverse=True, return_counts=True)
        self.rows = np.argsort(whole, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def draw(self, wholes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns one part of each whole."""
        return self.rows[self.start[wholes] + (rng.random(len(wholes)) * self.counts[wholes]).astype(np.int64)]
