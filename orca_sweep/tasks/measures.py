"""Losses (torch, per batch) and metrics (NumPy, on whole splits) by name. Every metric is an error: lower is better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


def check_same_shape(prediction: Sequence[int], target: Sequence[int]) -> None:
    """Raises InputError unless both shapes are equal: broadcasting would compare each with every other."""
    if tuple(prediction) != tuple(target):
        raise InputError(
            f"predictions of shape {tuple(prediction)}, targets of shape {tuple(target)}. Dense predictions have"
            " their target's shape. Check the task's output_shape."
        )


def cross_entropy(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean softmax cross-entropy of logits (B, K) against labels (B,)."""
    from torch.nn import functional as F

    return F.cross_entropy(prediction, target)


def bce(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean binary cross-entropy of logits (B, K) against 0/1 targets (B, K)."""
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(prediction, target)


def mse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean squared error."""
    check_same_shape(prediction.shape, target.shape)
    return ((prediction - target) ** 2).mean()


def relative_l2(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean over samples of ||prediction - target|| / ||target||.

    Source: Li et al. 2021, arXiv 2010.08895. Differs from ORCA's code, which sums over the batch and so
    ties the step to the batch size. A target that is zero everywhere has no relative error: its sample
    counts the absolute error ||prediction||, here and in the metric.
    """
    check_same_shape(prediction.shape, target.shape)
    error, size = (prediction - target).flatten(1).norm(dim=1), target.flatten(1).norm(dim=1)
    return (error / size.masked_fill(size == 0, 1.0)).mean()


def nrmse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean over samples of RMSE / RMS of the target, which equals ``relative_l2`` (Takamoto et al. 2022)."""
    return relative_l2(prediction, target)


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
    "relative-l2": relative_l2,
    "nrmse": nrmse,
}


@dataclass(frozen=True)
class Metric:
    """A metric on all predictions of a split; NaN if any prediction is not finite (the caller calls it diverged)."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    meaning: str
    mode: Literal["min"] = "min"

    def compute(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """Returns the metric of predictions (N, ...) against targets (N, ...), N > 0.

        Raises:
            InputError: if they are not of one length, or of one shape where the metric is dense.
        """
        if len(prediction) != len(target) or not len(target):
            raise InputError(
                f"metric {self.name!r}: {len(prediction)} predictions for {len(target)} targets."
                " A metric is taken on every sample of a split, each predicted once."
            )
        if not np.isfinite(prediction).all():
            return float("nan")
        return self.measure(prediction, target)


def _error(prediction: np.ndarray, target: np.ndarray) -> float:
    return float((prediction.argmax(axis=1) != target).mean())


def _macro_f1_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """1 - mean F1 of the classes met in targets or predictions; a class met in neither has no F1."""
    K, label = prediction.shape[1], prediction.argmax(axis=1)
    right = np.bincount(target[label == target], minlength=K)
    met = np.bincount(label, minlength=K) + np.bincount(target, minlength=K)
    return 1 - float((2 * right[met > 0] / met[met > 0]).mean())


def _relative_l2(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    p, t = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
    size = np.linalg.norm(t, axis=1)
    return float((np.linalg.norm(p - t, axis=1) / np.where(size == 0, 1, size)).mean())


def _mse(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    return float(((prediction.astype(np.float64) - target) ** 2).mean())


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("error", _error, "share of wrong labels, 1 - accuracy"),
        Metric("macro-f1-error", _macro_f1_error, "1 - mean F1 of the classes met"),
        Metric("relative-l2", _relative_l2, "mean over samples of ||p - t|| / ||t||"),
        Metric("nrmse", _relative_l2, "mean over samples of RMSE / RMS of the target"),
        Metric("mse", _mse, "mean squared error"),
    )
}
