"""Predictions on whole splits: in order, without gradients, in the precision of training."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.data import Samples
from orca_sweep.errors import out_of_memory

PREDICT_BATCH = 256
PREDICT_NUMBERS = 2**25
"""The most numbers in a batch: batches of large samples are smaller."""
Output = TypeVar("Output")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How predictions are computed."""

    device: str = "cpu"
    batch_size: int = PREDICT_BATCH
    precision: str = "float32"


def choose_precision(wanted: str, device: str) -> str:
    """Returns float32 or bfloat16, resolving ``auto`` for a device.

    ``auto`` means bfloat16 on a GPU that computes in it, otherwise float32: on processors without bfloat16 units it took
    20 to 27 times as long (AVX2, torch 2.13).
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """Runs a block's matrix products in the precision; weights stay in single precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.split(":")[0], dtype=torch.bfloat16)


def cut_into_slices(shape: Sequence[int], batch_size: int) -> list[slice]:
    """Returns the batches of samples of a shape; batches of large samples are smaller."""
    size = max(1, min(batch_size, PREDICT_NUMBERS // max(1, math.prod(shape[1:]))))
    return [slice(i, i + size) for i in range(0, shape[0], size)]


def run_in_batches(run: Callable[[slice], Output], shape: Sequence[int], batch_size: int) -> list[Output]:
    """Returns a function's outputs batch by batch; halves the batch size as long as memory runs out.

    Cost: after a failed attempt all batches run again, so that a split is never predicted in batches of two sizes.
    """
    while True:
        try:
            return [run(part) for part in cut_into_slices(shape, batch_size)]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or batch_size == 1:
                raise
        batch_size = max(1, batch_size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def predict_batches(
    forward: Callable[[Tensor], Tensor], read: Callable[[slice], Tensor], shape: Sequence[int], inference: Inference
) -> Tensor:
    """Returns the outputs of a model, or of a part of it, on all samples; they stay on the device.

    Args:
        forward: the model, or the part.
        read: returns a batch of samples on the device.
        shape: of all samples.
        inference: device, batch size and precision.
    """

    def run_batch(part: slice) -> Tensor:
        with autocast(inference.precision, inference.device):
            return forward(read(part)).float()

    return torch.cat(run_in_batches(run_batch, shape, inference.batch_size))


@torch.inference_mode()
def predict(model: nn.Module, samples: Samples, inference: Inference) -> np.ndarray:
    """Returns the model's predictions on a whole split, in its order, in eval mode."""
    model.eval()

    def read_batch(part: slice) -> Tensor:
        return torch.from_numpy(samples.x[part]).to(inference.device)

    # One copy from the device at the end: a copy per batch would wait for each batch.
    return predict_batches(model, read_batch, samples.x.shape, inference).cpu().numpy()


def predict_wholes(model: nn.Module, samples: Samples, inference: Inference) -> tuple[np.ndarray, np.ndarray]:
    """Returns predictions and targets of a whole split, in memory; if samples are parts, the mean over each whole's parts."""
    return average_parts(predict(model, samples, inference), samples)


def average_parts(prediction: np.ndarray, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predictions of whole samples, each the mean over its parts, and the targets."""
    if samples.groups is None:
        return prediction, samples.y[:]
    _, first, whole, counts = np.unique(samples.groups, return_index=True, return_inverse=True, return_counts=True)
    together = prediction[np.argsort(whole, kind="stable")].astype(np.float64)
    total = np.add.reduceat(together, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
    mean = total / counts.reshape(-1, *[1] * (prediction.ndim - 1))
    return mean.astype(np.float32), samples.y[first]
