"""Losses (torch, per batch) and metrics (NumPy, on whole splits) by name. Every metric is an error: lower is better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from orca_sweep.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
IGNORED = -1
"""Label of a point that is neither trained on nor scored; of dense targets that are no labels, it is NaN."""


def check_same_shape(prediction: Sequence[int], target: Sequence[int]) -> None:
    """Raises InputError unless both shapes are equal: broadcasting would compare each with every other."""
    if tuple(prediction) != tuple(target):
        raise InputError(
            f"predictions of shape {tuple(prediction)}, targets of shape {tuple(target)}. Dense predictions have"
            " their target's shape. Check the task's output_shape."
        )


# Losses -------------------------------------------------------------------------------------------


def cross_entropy(prediction: "Tensor", target: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """Mean softmax cross-entropy of logits (B, K, ...) against labels (B, ...); label -1 is left out."""
    from torch.nn import functional as F

    if prediction.dim() == 2 and weight is None:
        return F.cross_entropy(prediction, target)
    weight = None if weight is None else weight.to(prediction.device)
    each = F.cross_entropy(prediction, target, weight, reduction="none", ignore_index=IGNORED)
    counted = (target != IGNORED) if weight is None else weight[target.clamp_min(0)] * (target != IGNORED)
    return each.sum() / counted.sum().clamp_min(1e-12)


def bce(prediction: "Tensor", target: "Tensor", pos_weight: float = 1.0) -> "Tensor":
    """Mean binary cross-entropy of logits against 0/1 targets of one shape; positives count ``pos_weight`` times."""
    from torch.nn import functional as F

    check_same_shape(prediction.shape, target.shape)
    weight = None if pos_weight == 1 else prediction.new_tensor(pos_weight)
    return F.binary_cross_entropy_with_logits(prediction, target, pos_weight=weight)


def masked_bce(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean binary cross-entropy over the points whose target is not NaN."""
    from torch.nn import functional as F

    return _masked(prediction, target, partial(F.binary_cross_entropy_with_logits, reduction="none"))


def mse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean squared error."""
    check_same_shape(prediction.shape, target.shape)
    return ((prediction - target) ** 2).mean()


def masked_mse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean squared error over the points whose target is not NaN."""
    return _masked(prediction, target, lambda p, t: (p - t) ** 2)


def _masked(prediction: "Tensor", target: "Tensor", error: Loss) -> "Tensor":
    check_same_shape(prediction.shape, target.shape)
    known = ~target.isnan()
    each = error(prediction, target.nan_to_num()).masked_fill(~known, 0.0)
    return each.sum() / known.sum().clamp_min(1)


def rmse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean over samples of the root of the mean squared error."""
    check_same_shape(prediction.shape, target.shape)
    size = prediction[0].numel() ** 0.5
    return (prediction - target).flatten(1).norm(dim=1).mean() / size


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


LOSSES: Mapping[str, Callable[..., "Tensor"]] = {
    "cross-entropy": cross_entropy,
    "balanced-cross-entropy": cross_entropy,
    "bce": bce,
    "masked-bce": masked_bce,
    "mse": mse,
    "masked-mse": masked_mse,
    "rmse": rmse,
    "relative-l2": relative_l2,
    "nrmse": nrmse,
}
MASKED_LOSSES = ("masked-bce", "masked-mse")
MASKED_METRICS = ("mse", "mae", "mae8", "point-auroc-error", "thresholded-auroc-error")
"""Those that leave points without a target out."""


def loss_function(name: str, settings: Mapping[str, Any], train_y: np.ndarray | None, n_classes: int = 0) -> Loss:
    """Returns the loss of that name for a task's training targets.

    ``balanced-cross-entropy`` counts every class alike: its weight is one over its share of the training labels,
    scaled so that the mean weight of a training sample is 1.
    """
    if name == "balanced-cross-entropy":
        import torch

        if train_y is None:
            raise InputError("the loss 'balanced-cross-entropy' needs training labels. Use cross-entropy.")
        counts = np.bincount(train_y[train_y != IGNORED].reshape(-1), minlength=n_classes)
        weight = counts.sum() / (max(1, (counts > 0).sum()) * np.maximum(counts, 1))
        return partial(cross_entropy, weight=torch.from_numpy(weight.astype(np.float32)))
    return partial(LOSSES[name], **settings) if settings else LOSSES[name]


# Metrics ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A metric on all predictions of a split; NaN if any prediction is not finite (the caller calls it diverged)."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    meaning: str
    unscored: Callable[[np.ndarray, np.ndarray], int] = lambda prediction, target: 0
    """(predictions, targets) -> classes (of mae8 proteins, of R2 outputs) that the metric is not defined for."""
    mode: Literal["min"] = "min"

    def compute(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """Returns the metric of predictions (N, ...) against targets (N, ...), N > 0.

        Raises:
            InputError: if they are not of one length, or of one shape where the metric is dense.
            DataError: if the targets are such that no class can be scored.
        """
        if len(prediction) != len(target) or not len(target):
            raise InputError(
                f"metric {self.name!r}: {len(prediction)} predictions for {len(target)} targets."
                " A metric is taken on every sample of a split, each predicted once."
            )
        if not np.isfinite(prediction).all():
            return float("nan")
        value = self.measure(prediction, target)
        if np.isnan(value):
            raise DataError(
                f"metric {self.name!r}: not defined on these {len(target)} targets, which are all of one kind."
                " A split needs positives and negatives, or a target that varies. Check the split, or use another metric."
            )
        return value


def _points(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (points, K) and labels (points,) of all points that are scored."""
    logits = np.moveaxis(prediction, 1, -1).reshape(-1, prediction.shape[1])
    labels = target.reshape(-1)
    known = labels != IGNORED
    return logits[known], labels[known]


def _error(prediction: np.ndarray, target: np.ndarray) -> float:
    logits, labels = _points(prediction, target)
    return float((logits.argmax(axis=1) != labels).mean()) if len(labels) else float("nan")


def _macro_f1_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """1 - mean F1 of the classes met in targets or predictions; a class met in neither has no F1."""
    logits, labels = _points(prediction, target)
    K, label = logits.shape[1], logits.argmax(axis=1)
    right = np.bincount(labels[label == labels], minlength=K)
    met = np.bincount(label, minlength=K) + np.bincount(labels, minlength=K)
    return 1 - float((2 * right[met > 0] / met[met > 0]).mean()) if len(labels) else float("nan")


def _met_nowhere(prediction: np.ndarray, target: np.ndarray) -> int:
    logits, labels = _points(prediction, target)
    return int(logits.shape[1] - len(np.union1d(logits.argmax(axis=1), labels)))


def _not_in_targets(prediction: np.ndarray, target: np.ndarray) -> int:
    return int(prediction.shape[1] - len(np.unique(target)))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Returns the chance that a positive scores above a negative, ties half; NaN without one of either.

    Source: Hanley & McNeil 1982. Cost: one sort.
    """
    from scipy.stats import rankdata

    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _auroc_error(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    return 1 - _mean([auroc(prediction[:, k], target[:, k] > 0.5) for k in range(target.shape[1])])


def _one_kind(prediction: np.ndarray, target: np.ndarray) -> int:
    positives = (target > 0.5).sum(axis=0)
    return int(((positives == 0) | (positives == len(target))).sum())


def _map_error(prediction: np.ndarray, target: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    check_same_shape(prediction.shape, target.shape)
    scored = np.flatnonzero((target > 0.5).any(axis=0))
    return 1 - _mean([float(average_precision_score(target[:, k] > 0.5, prediction[:, k])) for k in scored])


def _no_positives(prediction: np.ndarray, target: np.ndarray) -> int:
    return int((~(target > 0.5).any(axis=0)).sum())


def _ovo_auroc_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """1 - mean over pairs of classes of their AUROC, each way (Hand & Till 2001); pairs of classes met."""
    from scipy.special import softmax

    p = softmax(prediction.astype(np.float64), axis=1)
    met = np.unique(target)
    pairs = [(a, b) for i, a in enumerate(met) for b in met[i + 1 :]]
    values = []
    for a, b in pairs:
        of_pair = np.isin(target, (a, b))
        values += [auroc(p[of_pair, c], target[of_pair] == c) for c in (a, b)]
    return 1 - _mean(values)


def _point_auroc_error(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    known = ~np.isnan(target)
    return 1 - auroc(prediction[known], target[known] > 0.5)


def _thresholded_auroc_error(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    known = ~np.isnan(target)
    return 1 - auroc(prediction[known] > 0, target[known] > 0.5)


def _relative_l2(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    p, t = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
    size = np.linalg.norm(t, axis=1)
    return float((np.linalg.norm(p - t, axis=1) / np.where(size == 0, 1, size)).mean())


def _mse(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    return float(np.nanmean((prediction.astype(np.float64) - target) ** 2))


def _mae(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    return float(np.nanmean(np.abs(prediction.astype(np.float64) - target)))


def _r2_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean over outputs of squared error / variance, which is 1 - R2; outputs that vary."""
    check_same_shape(prediction.shape, target.shape)
    p, t = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
    spread = ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    varies = spread > 0
    return _mean(list(((p - t) ** 2).sum(axis=0)[varies] / spread[varies]))


def _constant_outputs(prediction: np.ndarray, target: np.ndarray) -> int:
    flat = target.reshape(len(target), -1)
    return int((flat == flat[0]).all(axis=0).sum())


NEAR, APART = 8.0, 24
"""Angstrom between two residues that count, and how far apart they are in the chain."""


def _near_and_apart(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    apart = np.subtract.outer(np.arange(target.shape[0]), np.arange(target.shape[1])) <= -APART
    i, j = np.nonzero((target < NEAR) & apart)
    return i, j


def _without_pairs(prediction: np.ndarray, target: np.ndarray) -> int:
    return sum(not len(_near_and_apart(t[0])[0]) for t in target)


def _mae8(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean over proteins of the mean absolute error over its residue pairs that are near in space, far in the chain.

    Targets (N, 1, H, W) are NaN outside of each protein, so that each is scored over its own length. A distance
    map is symmetric: the two predictions of a pair are averaged. A protein without such pairs is left out.
    """
    check_same_shape(prediction.shape, target.shape)
    values = []
    for p, t in zip(prediction, target, strict=True):
        i, j = _near_and_apart(t[0])
        both = (p[0, i, j].astype(np.float64) + p[0, j, i]) / 2
        values.append(float(np.abs(both - t[0, i, j]).mean()) if len(i) else float("nan"))
    return _mean(values)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("error", _error, "share of wrong labels, 1 - accuracy"),
        Metric("macro-f1-error", _macro_f1_error, "1 - mean F1 of the classes met", _met_nowhere),
        Metric("auroc-error", _auroc_error, "1 - mean AUROC of the classes with positives and negatives", _one_kind),
        Metric("map-error", _map_error, "1 - mean average precision of the classes with positives", _no_positives),
        Metric("ovo-auroc-error", _ovo_auroc_error, "1 - mean AUROC of all pairs of classes met", _not_in_targets),
        Metric("point-auroc-error", _point_auroc_error, "1 - AUROC of the scores of all points"),
        Metric(
            "thresholded-auroc-error", _thresholded_auroc_error, "the same of yes and no: 1 - balanced accuracy at 0.5"
        ),
        Metric("relative-l2", _relative_l2, "mean over samples of ||p - t|| / ||t||"),
        Metric("nrmse", _relative_l2, "mean over samples of RMSE / RMS of the target"),
        Metric("mse", _mse, "mean squared error"),
        Metric("mae", _mae, "mean absolute error"),
        Metric(
            "mae8",
            _mae8,
            "mean over proteins of the absolute error in Angstrom, pairs below 8, 24 or more apart",
            _without_pairs,
        ),
        Metric("r2-error", _r2_error, "1 - R2, mean over outputs", _constant_outputs),
    )
}
