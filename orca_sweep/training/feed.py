"""How samples get to the device, and the order in which an epoch of fine-tuning reads them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from orca_sweep.config import Source
from orca_sweep.data import Array, Rows, Samples, cut_into_chunks
from orca_sweep.streams import stream_rng

RESIDENT_BYTES = 2**31
"""Samples on disk are copied to a GPU once if they take at most this many bytes; otherwise batch by batch."""


class Feed:
    """The inputs or targets of a split for a device: already on it, or read on demand."""

    def __init__(self, array: Array, device: str) -> None:
        self.array, self.device = array, device
        self.shape = array.shape
        self.tensor: Tensor | None = None
        if isinstance(array, np.ndarray):
            self.tensor = torch.from_numpy(array).to(device)
        elif device != "cpu" and 4 * int(np.prod(array.shape)) <= RESIDENT_BYTES:
            self.tensor = torch.cat([self._move_to_device(array[part]) for part in cut_into_chunks(array)])

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
        return self._move_to_device(self.array[index if isinstance(index, slice) else index.numpy()])

    def read_augmented(self, index: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns the samples of an index tensor, augmented if they are on disk; samples in memory never are."""
        if isinstance(self.array, Rows):
            return self._move_to_device(self.array.read_augmented(index.numpy(), rng))
        return self[index]

    def _move_to_device(self, batch: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(batch)
        if self.device == "cpu":
            return tensor
        # From pinned memory, the copy runs while the device computes.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def split_into_batches(order: np.ndarray, size: int) -> list[Tensor]:
    """Returns the index tensors of consecutive batches; the last batch may be smaller, and is not dropped."""
    return [torch.from_numpy(order[i : i + size]) for i in range(0, len(order), size)]


class Parts:
    """Which samples are parts of the same whole, such as the chunks of a recording."""

    def __init__(self, groups: np.ndarray) -> None:
        _, whole, self.counts = np.unique(groups, return_inverse=True, return_counts=True)
        self.rows = np.argsort(whole, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def draw_parts(self, wholes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns one part of each whole."""
        return self.rows[self.start[wholes] + (rng.random(len(wholes)) * self.counts[wholes]).astype(np.int64)]


class TrainingFeed:
    """A training split, read one optimizer step at a time. Every draw depends only on seed, epoch and step."""

    def __init__(
        self, samples: Samples, seed_of: Callable[[Source], int], device: str, *, step_size: int, augments: bool
    ) -> None:
        self.x, self.y = Feed(samples.x, device), Feed(samples.y, device)
        self.parts = None if samples.groups is None else Parts(samples.groups)
        self.n_wholes, self.step_size = samples.n_wholes, step_size
        self.seed_of, self.augments = seed_of, augments

    @property
    def is_resident(self) -> bool:
        """Whether inputs and targets are on the device already."""
        return self.x.is_resident and self.y.is_resident

    def draw_batches(self, epoch: int) -> list[Tensor]:
        """Returns the epoch's samples in order, an index tensor per step; if samples are parts, one part of each whole."""
        seed = self.seed_of("finetune-order")
        order = stream_rng(seed, "finetune order", epoch).permutation(self.n_wholes)
        if self.parts is not None:
            order = self.parts.draw_parts(order, stream_rng(seed, "parts", epoch))
        return split_into_batches(order, self.step_size)

    def read_batch(self, batch: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets of a step's samples, on the device."""
        if not self.augments:
            return self.x[batch], self.y[batch]
        # Inputs and targets use the same draws, so that they are cut alike.
        seed = self.seed_of("augmentation")
        x, y = (feed.read_augmented(batch, stream_rng(seed, "augmentation", epoch, step)) for feed in (self.x, self.y))
        return x, y
