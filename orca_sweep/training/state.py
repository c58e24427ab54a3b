"""The state of a training run, which can stop after any step: saved and restored as arrays and JSON, never as a pickle.

Pre-training, embedder training and fine-tuning share it. Learning-rate schedules need no state: rates are functions of
the position (``learning_rates``), and so is every random draw (``orca_sweep.streams``). A restored run therefore ends with
the same bits as an uninterrupted run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies.network import to_arrays, to_tensors
from orca_sweep.store import Artifact, Tensors
from orca_sweep.training.optimizers import load_optimizer, optimizer_arrays

OPTIMIZER, BEST, LOSS_SUM = "optimizer.", "best.", "part.total"


@dataclass(kw_only=True)
class EpochPart:
    """The steps of an unfinished epoch that are done."""

    loss_sum: Tensor
    """Sum of the samples' losses, kept on the device: reading it at every step would wait for the device."""
    step: int = 0
    lr: float = 0.0
    lr_integral: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """The best-validated epoch so far, with its weights."""

    epoch: int
    val_metric: float
    weights: dict[str, np.ndarray]


@dataclass(kw_only=True)
class TrainState:
    """Models, optimizer and position of a training run; stages leave fields that they do not use at their defaults.

    Attributes:
        models: the models that train, by the name under which their weights are saved.
        optimizer: its state is saved; its settings come from the caller.
        epoch: epochs done.
        n_steps: optimizer steps done.
        seconds: what the epochs and steps have cost, in whichever run they were computed.
        history: a row per epoch done.
        part: the steps of the next epoch that are done; None at the end of an epoch.
        best: the best-validated epoch; None before the first.
        micro_batch_size: samples per forward pass, where memory decides it.
    """

    models: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    n_steps: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    part: EpochPart | None = None
    best: BestEpoch | None = None
    micro_batch_size: int = 0

    @property
    def is_inside_epoch(self) -> bool:
        """Whether some steps of the next epoch are done."""
        return self.part is not None

    def pack(self, **extra: Any) -> tuple[Tensors, dict[str, Any]]:
        """Returns the state as named arrays and JSON values, with the caller's further JSON values."""
        arrays = add_prefix(OPTIMIZER, optimizer_arrays(self.optimizer))
        for name, model in self.models.items():
            arrays |= add_prefix(f"{name}.", to_arrays(model.state_dict()))
        meta = {
            "epoch": self.epoch,
            "n_steps": self.n_steps,
            "seconds": self.seconds,
            "epochs": self.history,
            "micro_batch_size": self.micro_batch_size,
        }
        if self.best is not None:
            arrays |= add_prefix(BEST, self.best.weights)
            meta["best"] = {"epoch": self.best.epoch, "val_metric": self.best.val_metric}
        if self.part is not None:
            arrays[LOSS_SUM] = self.part.loss_sum.detach().cpu().numpy().reshape(1)
            meta["part"] = {name: value for name, value in vars(self.part).items() if name != "loss_sum"}
        return arrays, {**meta, **extra}

    def restore(self, saved: Artifact) -> None:
        """Replaces the state with what ``pack`` returned, in this run or in a run that begins alike."""
        meta = saved.meta
        for name, model in self.models.items():
            model.load_state_dict(to_tensors(select_prefix(f"{name}.", saved.tensors)))
        load_optimizer(self.optimizer, select_prefix(OPTIMIZER, saved.tensors))
        self.epoch, self.n_steps, self.seconds = meta["epoch"], meta["n_steps"], meta["seconds"]
        self.history = [dict(row) for row in meta["epochs"]]
        self.micro_batch_size = meta["micro_batch_size"]
        self.best = BestEpoch(**meta["best"], weights=select_prefix(BEST, saved.tensors)) if "best" in meta else None
        self.part = EpochPart(**meta["part"], loss_sum=self._read_loss_sum(saved)) if "part" in meta else None

    def _read_loss_sum(self, saved: Artifact) -> Tensor:
        device = self.optimizer.param_groups[0]["params"][0].device
        return torch.from_numpy(np.array(saved.tensors[LOSS_SUM])).reshape(()).to(device)


def add_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with a prefix before their names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def select_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin with a prefix, and removes it from their names."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
