"""Losses by name: what training minimises, computed by torch on a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orca_sweep.errors import InputError
from orca_sweep.registry import Registry
from orca_sweep.tasks.own_functions import explain_function, refuse_record, to_input_error

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]
IGNORED = -1
"""Label of a point that is neither trained on nor scored. Dense targets that are not labels use NaN for this."""


def check_same_shape(prediction: Sequence[int], target: Sequence[int]) -> None:
    """Raises InputError unless both shapes are equal; otherwise broadcasting would compare every pair of samples."""
    if tuple(prediction) != tuple(target):
        raise InputError(
            f"predictions of shape {tuple(prediction)}, targets of shape {tuple(target)}. Dense predictions have"
            " their target's shape. Check the task's output_shape."
        )


def cross_entropy(prediction: "Tensor", target: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """Mean softmax cross-entropy of logits (B, K, ...) against labels (B, ...); points with label -1 are left out."""
    from torch.nn import functional as F

    if prediction.dim() == 2 and weight is None:
        return F.cross_entropy(prediction, target)
    weight = None if weight is None else weight.to(prediction.device)
    each = F.cross_entropy(prediction, target, weight, reduction="none", ignore_index=IGNORED)
    counted = (target != IGNORED) if weight is None else weight[target.clamp_min(0)] * (target != IGNORED)
    return each.sum() / counted.sum().clamp_min(1e-12)


def bce(prediction: "Tensor", target: "Tensor", pos_weight: float = 1.0) -> "Tensor":
    """Mean binary cross-entropy of logits against 0/1 targets of the same shape; positives count ``pos_weight`` times."""
    from torch.nn import functional as F

    check_same_shape(prediction.shape, target.shape)
    weight = None if pos_weight == 1 else prediction.new_tensor(pos_weight)
    return F.binary_cross_entropy_with_logits(prediction, target, pos_weight=weight)


def masked_bce(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean binary cross-entropy over the points whose target is not NaN."""
    from torch.nn import functional as F

    return _mean_over_known(prediction, target, partial(F.binary_cross_entropy_with_logits, reduction="none"))


def mse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean squared error."""
    check_same_shape(prediction.shape, target.shape)
    return ((prediction - target) ** 2).mean()


def masked_mse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean squared error over the points whose target is not NaN."""
    return _mean_over_known(prediction, target, lambda p, t: (p - t) ** 2)


def _mean_over_known(prediction: "Tensor", target: "Tensor", error: LossFunction) -> "Tensor":
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

    A target that is zero everywhere has no relative error; its sample counts ||prediction||, here and in the metric.

    Source: Li et al. 2021, arXiv 2010.08895. Differs from ORCA's code in: the sum over the batch there makes the step
    depend on the batch size.
    """
    check_same_shape(prediction.shape, target.shape)
    error, size = (prediction - target).flatten(1).norm(dim=1), target.flatten(1).norm(dim=1)
    return (error / size.masked_fill(size == 0, 1.0)).mean()


def nrmse(prediction: "Tensor", target: "Tensor") -> "Tensor":
    """Mean over samples of RMSE / RMS of the target, which equals ``relative_l2`` (Takamoto et al. 2022)."""
    return relative_l2(prediction, target)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What training minimises: a mean over a batch.

    ``function(predictions (B, ...), targets (B, ...), **settings)`` returns a scalar tensor that depends on the
    predictions; ``settings`` are the task's ``loss_settings``. If targets are labels (B, ...), predictions are logits
    (B, K, ...); otherwise predictions have the shape of their targets.
    """

    name: str
    function: Callable[..., "Tensor"]
    meaning: str
    takes_labels: bool | None = None
    """Whether targets must be whole-number labels; None if the loss takes labels and other targets."""
    takes_gaps: bool = False
    """Whether the loss leaves out points without a target (NaN)."""

    def __post_init__(self) -> None:
        refuse_record("loss", self.name, self.meaning, [explain_function(self.function, "(predictions, targets)")])


LOSSES: Registry[Loss] = Registry("loss")
"""All losses; a module under ``imports`` adds its own with ``LOSSES.add(Loss(...))``."""
for _loss in (
    Loss(
        name="cross-entropy",
        function=cross_entropy,
        meaning="softmax cross-entropy of logits against labels",
        takes_labels=True,
    ),
    Loss(
        name="balanced-cross-entropy",
        function=cross_entropy,
        meaning="cross-entropy with equal weight for every class",
        takes_labels=True,
    ),
    Loss(name="bce", function=bce, meaning="binary cross-entropy of logits against 0 and 1", takes_labels=False),
    Loss(
        name="masked-bce",
        function=masked_bce,
        meaning="binary cross-entropy over the points that have a target",
        takes_labels=False,
        takes_gaps=True,
    ),
    Loss(name="mse", function=mse, meaning="squared error", takes_labels=False),
    Loss(
        name="masked-mse",
        function=masked_mse,
        meaning="squared error over the points that have a target",
        takes_labels=False,
        takes_gaps=True,
    ),
    Loss(name="rmse", function=rmse, meaning="root of the squared error, mean over samples", takes_labels=False),
    Loss(
        name="relative-l2",
        function=relative_l2,
        meaning="||p - t|| / ||t||, mean over samples",
        takes_labels=False,
    ),
    Loss(name="nrmse", function=nrmse, meaning="RMSE / RMS of the target, mean over samples", takes_labels=False),
):
    LOSSES.add(_loss)


def takes_gaps(loss: str | None) -> bool:
    """Says whether the loss of that name leaves out points without a target; False for unknown names."""
    return loss is not None and loss in LOSSES and LOSSES.get(loss).takes_gaps


def make_loss(name: str, settings: Mapping[str, Any], train_y: np.ndarray | None, n_classes: int = 0) -> LossFunction:
    """Returns the loss of that name for a task's training targets; its result is checked at every call.

    ``balanced-cross-entropy`` gives every class the same weight in total: the weight of a class is one over its share of
    the training labels, scaled so that the mean weight of a training sample is 1.

    Raises:
        InputError: if there is no such loss. A call raises it, naming the loss, if the loss itself raises, or gives no
            scalar that depends on the predictions.
    """
    if name == "balanced-cross-entropy":
        import torch

        if train_y is None:
            raise InputError("the loss 'balanced-cross-entropy' needs training labels. Use cross-entropy.")
        counts = np.bincount(train_y[train_y != IGNORED].reshape(-1), minlength=n_classes)
        weight = counts.sum() / (max(1, (counts > 0).sum()) * np.maximum(counts, 1))
        return partial(cross_entropy, weight=torch.from_numpy(weight.astype(np.float32)))
    return partial(_compute_loss, name, partial(LOSSES.get(name).function, **settings))


def _compute_loss(name: str, function: LossFunction, prediction: "Tensor", target: "Tensor") -> "Tensor":
    import torch

    where = f"loss {name!r}"
    try:
        value = function(prediction, target)
    except BaseException as error:
        raise to_input_error(where, error, prediction.shape, target.shape) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"
        raise InputError(
            f"{where} gives {what}. A loss gives one number, as a tensor: the mean over the batch. Correct it."
        )
    if prediction.requires_grad and not value.requires_grad:
        raise InputError(
            f"{where} gives a number that does not depend on the predictions, so nothing can be learned from it. Compute"
            " it from them with torch's operations, without detach() or item()."
        )
    return value.reshape(())
