"""Loading batches, in memory and from memory maps, against a DataLoader with 4 workers on the same arrays."""

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


def make_case(name: str, shape: tuple[int, ...], n: int, batch: int, mapped: bool) -> Case:
    """Returns the case of one epoch over n labelled samples of a shape, in random order, in batches.

    The memory map holds bytes that are scaled on reading, like converted images; the DataLoader has floats in memory.
    """
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    floats = (values.astype(np.float32) / 255).astype(np.float32)
    x: Array = floats
    if mapped:
        with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as folder:
            np.save(Path(folder) / "x.npy", values)
            # The map remains after its file is deleted.
            stored = np.load(Path(folder) / "x.npy", mmap_mode="r")
        x = Rows.from_array(stored, "bench", lambda part: part / np.float32(255))
    order = rng.permutation(n)
    feeds = Feed(x, "cpu"), Feed(labels, "cpu")
    dataset = TensorDataset(torch.from_numpy(floats), torch.from_numpy(labels))

    def load_from_feeds() -> tuple[Tensor, ...]:
        return _sum_batches((feeds[0][index], feeds[1][index]) for index in split_into_batches(order, batch))

    def load_from_loader() -> tuple[Tensor, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # more workers than cores, on a small machine
            # Forked, as in a normal program: this process was spawned, and would spawn workers at ten times the cost.
            loader = DataLoader(
                dataset, batch, sampler=order.tolist(), num_workers=N_WORKERS, multiprocessing_context="fork"
            )
            return _sum_batches(loader)

    return Case(
        name=f"{name}, batch {batch}", fast=load_from_feeds, naive=load_from_loader, check=load_from_loader, n_samples=n
    )


def _sum_batches(loaded: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Returns the sum of each batch and all labels, so that every number of an epoch is read."""
    sums, labels = zip(*((x.sum(dtype=torch.float64), y) for x, y in loaded), strict=True)
    return torch.stack(sums), torch.cat(labels).double()


CASES = (
    partial(make_case, "in memory 1x46", (1, 46), n=40_000, batch=16, mapped=False),
    partial(make_case, "in memory 1x16x52", (1, 16, 52), n=20_000, batch=32, mapped=False),
    partial(make_case, "in memory 3x32x32", (3, 32, 32), n=10_000, batch=32, mapped=False),
    partial(make_case, "memory map 1x46", (1, 46), n=40_000, batch=16, mapped=True),
    partial(make_case, "memory map 3x32x32", (3, 32, 32), n=10_000, batch=32, mapped=True),
    partial(make_case, "memory map 4x1000", (4, 1000), n=10_000, batch=16, mapped=True),
)
