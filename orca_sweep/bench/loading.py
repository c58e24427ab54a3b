"""Loading: our batches, in memory and from memory maps, beside a DataLoader with 4 workers on the same arrays."""

import tempfile
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from orca_sweep.bench import Case
from orca_sweep.data import Array, Rows
from orca_sweep.training.feed import Feed, split_into_batches

N_WORKERS = 4


def case(name: str, shape: tuple[int, ...], n: int, batch: int, mapped: bool) -> Case:
    """Prepares one epoch over n samples of a shape with labels, in a random order, in batches.

    The memory map holds bytes that are scaled when they are read, as converted images are; the other side has them
    as ready floats in memory.
    """
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    floats = (values.astype(np.float32) / 255).astype(np.float32)
    x: Array = floats
    if mapped:
        with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as folder:
            np.save(Path(folder) / "x.npy", values)
            # The map outlives the name of its file.
            stored = np.load(Path(folder) / "x.npy", mmap_mode="r")
        x = Rows.from_array(stored, "bench", lambda part: part / np.float32(255))
    order = rng.permutation(n)
    feeds = Feed(x, "cpu"), Feed(labels, "cpu")
    dataset = TensorDataset(torch.from_numpy(floats), torch.from_numpy(labels))

    def ours() -> tuple[Tensor, ...]:
        return _epoch((feeds[0][index], feeds[1][index]) for index in split_into_batches(order, batch))

    def other() -> tuple[Tensor, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # more workers than cores, on a small machine
            # Forked, as in a program of its own: this process was spawned, and would spawn them at ten times the cost.
            loader = DataLoader(
                dataset, batch, sampler=order.tolist(), num_workers=N_WORKERS, multiprocessing_context="fork"
            )
            return _epoch(loader)

    return Case(f"{name}, batch {batch}", ours, other, other, n)


def _epoch(loaded: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Touches every number of an epoch: the sum of each batch, and all labels."""
    sums, labels = zip(*((x.sum(dtype=torch.float64), y) for x, y in loaded), strict=True)
    return torch.stack(sums), torch.cat(labels).double()


CASES = (
    partial(case, "in memory 1x46", (1, 46), 40_000, 16, False),
    partial(case, "in memory 1x16x52", (1, 16, 52), 20_000, 32, False),
    partial(case, "in memory 3x32x32", (3, 32, 32), 10_000, 32, False),
    partial(case, "memory map 1x46", (1, 46), 40_000, 16, True),
    partial(case, "memory map 3x32x32", (3, 32, 32), 10_000, 32, True),
    partial(case, "memory map 4x1000", (4, 1000), 10_000, 16, True),
)
