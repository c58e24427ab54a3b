"""The optimizer steps of fine-tuning: gradients add up over passes, with half the samples per pass if memory runs out."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from orca_sweep.errors import out_of_memory
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.optimizers import set_lr
from orca_sweep.training.predict import autocast
from orca_sweep.training.state import TrainState

Loss = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[Tensor], Tensor]


class Stepper:
    """Takes the optimizer steps of a run. The number of samples per pass is part of its state: once halved, it stays so."""

    def __init__(self, model: nn.Module, state: TrainState, loss: Loss, setup: FinetuneSetup) -> None:
        self.model, self.state, self.loss, self.setup = model, state, loss, setup
        state.micro_batch_size = setup.config.batch_size

    def take_step(self, forward: Forward, samples: tuple[Tensor, Tensor], *, lr: float, dropout_seed: int) -> Tensor:
        """Takes one optimizer step and returns the samples' mean loss.

        A step that runs out of memory is repeated with half the samples per pass; if it runs out again, that is an error.

        Args:
            forward: the model, or the part of it that follows cached features.
            samples: inputs (or features) and targets.
            lr: learning rate of the step.
            dropout_seed: seed of the step's masks.
        """
        config = self.setup.config
        try:
            mean = self._accumulate_gradient(forward, samples, dropout_seed)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or self.state.micro_batch_size < config.batch_size or config.batch_size < 2:
                raise
            mean = None  # the memory that the error refers to is free only after this block
        if mean is None:
            self.state.micro_batch_size = math.ceil(config.batch_size / 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            mean = self._accumulate_gradient(forward, samples, dropout_seed)
        if config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        set_lr(self.state.optimizer, lr)
        self.state.optimizer.step()
        return mean

    def _accumulate_gradient(self, forward: Forward, samples: tuple[Tensor, Tensor], dropout_seed: int) -> Tensor:
        """Accumulates the gradient of the samples' mean loss over passes of a few samples each; returns that mean."""
        torch.manual_seed(dropout_seed)
        self.state.optimizer.zero_grad(set_to_none=True)
        x, y = samples
        mean = torch.zeros((), device=self.setup.device)
        size = self.state.micro_batch_size
        for part_x, part_y in zip(x.split(size), y.split(size), strict=True):
            with autocast(self.setup.precision, self.setup.device):
                prediction = forward(part_x)
            # Losses are computed in single precision, or better if the model is.
            loss = self.loss(prediction.to(torch.promote_types(prediction.dtype, torch.float32)), part_y)
            # Each pass is weighted by its share of the samples, so that a small last pass does not count too much.
            loss = loss * (len(part_x) / len(x))
            loss.backward()
            mean += loss.detach()
        return mean
