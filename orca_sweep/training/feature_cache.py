"""Features of frozen parts, computed once for a whole phase of fine-tuning."""

from dataclasses import dataclass

import torch
from torch import Tensor

from orca_sweep.data import Array
from orca_sweep.training.feed import Feed
from orca_sweep.training.model import OrcaModel
from orca_sweep.training.predict import Inference, predict_batches

MAX_NUMBERS = 2**28
"""Features are kept if they are at most this many numbers (1 GiB in single precision)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """The outputs of embedder and body for the training and validation samples, on the device."""

    train: Tensor
    val: Tensor


class FeatureCache:
    """Keeps the features of training and validation samples while neither embedder nor body trains.

    Frozen parts run in eval mode, without dropout, so their features are the same in every epoch. Augmented samples,
    which differ between epochs, cannot be cached.

    Attributes:
        features: the cached features; None while embedder or body trains, or if they would be too large.
    """

    def __init__(self, model: OrcaModel, train_x: Feed, val_x: Array, inference: Inference) -> None:
        self.model, self.train_x, self.val_x, self.inference = model, train_x, val_x, inference
        self.features: Features | None = None

    def update_features(self) -> None:
        """Computes the features when a frozen phase begins, and drops them when embedder or body trains again."""
        if not self._is_frozen():
            self.drop_features()
        elif self.features is None and self._count_numbers() <= MAX_NUMBERS:
            val_x = Feed(self.val_x, self.inference.device)
            self.features = Features(train=self._compute_features(self.train_x), val=self._compute_features(val_x))

    def drop_features(self) -> None:
        """Drops the features, because the weights behind them may have changed."""
        self.features = None

    def _is_frozen(self) -> bool:
        parts = (self.model.embedder, self.model.body)
        return not any(parameter.requires_grad for part in parts for parameter in part.parameters())

    @torch.no_grad()
    def _count_numbers(self) -> int:
        per_sample = self.model.features(self.train_x[:1]).numel()
        return (len(self.train_x) + len(self.val_x)) * per_sample

    @torch.no_grad()
    def _compute_features(self, x: Feed) -> Tensor:
        return predict_batches(self.model.features, x.__getitem__, x.shape, self.inference)
