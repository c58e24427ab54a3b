"""The settings, seeds and device of a fine-tuning run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from orca_sweep.config import FinetuneConfig, Source
from orca_sweep.training.predict import Inference, choose_precision


@dataclass(frozen=True, kw_only=True)
class FinetuneSetup:
    """What a fine-tuning run depends on besides the model and the data."""

    config: FinetuneConfig
    seed_of: Callable[[Source], int]
    """Returns the seed of a source of randomness: order, augmentation or dropout."""
    device: str = "cpu"
    augments: bool = False

    @cached_property
    def precision(self) -> str:
        """The precision of the run: float32 or bfloat16."""
        return choose_precision(self.config.precision, self.device)

    @property
    def step_size(self) -> int:
        """Samples of an optimizer step."""
        return self.config.batch_size * self.config.accumulation

    @cached_property
    def inference(self) -> Inference:
        """How features and predictions are computed during the run."""
        return Inference(device=self.device, batch_size=self.config.eval_batch_size, precision=self.precision)
