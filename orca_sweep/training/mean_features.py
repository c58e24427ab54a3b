"""An embedder's mean features of samples within limited memory: all at once, or in parts that are computed twice."""

from functools import cached_property

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from orca_sweep.training.feed import Feed
from orca_sweep.training.model import Embedder1D, Embedder2D

MAX_PATCH_NUMBERS = 2**27
"""The patches of all samples are prepared once if they have at most this many numbers (512 MiB)."""
BATCH_NUMBERS = 2**25
"""Numbers of the patches in a batch; several batches are embedded one by one, and again for their gradient."""


class MeanFeatures:
    """Features of a split's samples, averaged over tokens, with the current weights of an embedder."""

    def __init__(self, embedder: Embedder1D | Embedder2D, x: Feed) -> None:
        self.embedder, self.x = embedder, x

    def compute_means(self, index: Tensor) -> Tensor:
        """Returns mean features (n, D) of the samples of an index tensor, in a single batch if memory allows."""
        size = max(1, BATCH_NUMBERS // self._patch_numbers)
        if len(index) <= size:
            return self._embed_samples(index)
        parts = [
            checkpoint(self._embed_samples, part, use_reentrant=False, preserve_rng_state=False)
            for part in index.split(size)
        ]
        return torch.cat(parts)

    def _embed_samples(self, index: Tensor) -> Tensor:
        prepared = self._prepared_patches
        patches = self.embedder.cut_patches(self.x[index]) if prepared is None else prepared[index]
        return self.embedder.mean_features(patches)

    @cached_property
    def _patch_numbers(self) -> int:
        """How many numbers the patches of a sample have."""
        return self.embedder.cut_patches(self.x[:1]).numel()

    @cached_property
    def _prepared_patches(self) -> Tensor | None:
        """The patches of all samples, cut once: resizing and cutting involve no parameter. None if they are too large."""
        if len(self.x) * self._patch_numbers > MAX_PATCH_NUMBERS:
            return None
        size = max(1, min(256, BATCH_NUMBERS // self._patch_numbers))
        return torch.cat([self.embedder.cut_patches(self.x[i : i + size]) for i in range(0, len(self.x), size)])
