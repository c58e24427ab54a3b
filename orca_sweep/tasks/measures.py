"""Losses (torch, per batch) and metrics (NumPy, on whole splits) by name. Every metric is an error: lower is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


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
    return ((prediction - target) ** 2).mean()


def relative_l2(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean over samples of ||prediction - target|| / ||target||.

    Source: Li et al. 2021, arXiv 2010.08895. Differs from ORCA's code, which sums over the batch and so
    ties the step to the batch size.
    """
    error = (prediction - target).flatten(1).norm(dim=1)
    return (error / target.flatten(1).norm(dim=1).clamp_min(1e-12)).mean()


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
    """A metric on all predictions of a split; NaN if any prediction is not finite."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    meaning: str
    mode: Literal["min"] = "min"

    def compute(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """Returns the metric of predictions (N, ...) against targets (N, ...)."""
        if not np.isfinite(prediction).all():
            return float("nan")
        return self.measure(prediction, target)


def _error(prediction: np.ndarray, target: np.ndarray) -> float:
    return float((prediction.argmax(axis=1) != target).mean())


def _macro_f1_error(prediction: np.ndarray, target: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    labels = np.arange(prediction.shape[1])
    return 1 - float(f1_score(target, prediction.argmax(axis=1), labels=labels, average="macro", zero_division=0))


def _relative_l2(prediction: np.ndarray, target: np.ndarray) -> float:
    p, t = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
    # A target that is zero everywhere has no relative error: it is floored as in the loss, not left out.
    norms = np.maximum(np.linalg.norm(t, axis=1), 1e-12)
    return float((np.linalg.norm(p - t, axis=1) / norms).mean())


def _mse(prediction: np.ndarray, target: np.ndarray) -> float:
    return float(((prediction.astype(np.float64) - target) ** 2).mean())


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("error", _error, "share of wrong labels, 1 - accuracy"),
        Metric("macro-f1-error", _macro_f1_error, "1 - macro F1 over all classes"),
        Metric("relative-l2", _relative_l2, "mean over samples of ||p - t|| / ||t||"),
        Metric("nrmse", _relative_l2, "mean over samples of RMSE / RMS of the target"),
        Metric("mse", _mse, "mean squared error"),
    )
}
