"""Metrics by name, computed by NumPy on all predictions of a split; each says whether lower or higher is better."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import Registry
from orca_sweep.stats.intervals import Bounds
from orca_sweep.stats.modes import MODES, Mode, worst_value
from orca_sweep.tasks.losses import IGNORED, check_same_shape
from orca_sweep.tasks.own_functions import explain_function, refuse_record, to_input_error


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric on all predictions of a split; NaN if any prediction is not finite, in which case the trial has diverged."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    """(predictions (N, ...), targets (N, ...)) -> a number; if targets are labels, predictions are logits."""
    meaning: str
    mode: Mode
    """``min``: lower is better; ``max``: higher is better. Nothing else in the package decides this."""
    unit: str = ""
    """Unit of the metric's values; empty for plain numbers such as shares and ratios."""
    low: float | None = None
    """The lowest possible value; None if there is none. Intervals of means stay above it."""
    high: float | None = None
    """The highest possible value; None if there is none."""
    unscored: Callable[[np.ndarray, np.ndarray], int] = lambda prediction, target: 0
    """(predictions, targets) -> the number of classes (proteins for mae8, outputs for R2) without a defined metric."""
    takes_gaps: bool = False
    """Whether the metric leaves out points without a target (NaN)."""

    def __post_init__(self) -> None:
        mode = (
            None
            if self.mode in MODES
            else f"mode = {self.mode!r}. It is min (lower is better) or max (higher is better)."
        )
        unit = (
            None
            if isinstance(self.unit, str) and (not self.unit or self.unit.isprintable())
            else (f"unit = {self.unit!r} is not printable text.")
        )
        function = explain_function(self.measure, "(predictions, targets)")
        refuse_record("metric", self.name, self.meaning, [function, mode, unit, self._explain_bounds()])

    def _explain_bounds(self) -> str | None:
        """Returns what is wrong with the bounds, if anything is."""
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and math.isfinite(value)):
                return f"{name} = {value!r}. It is a finite number, or None without a bound."
        if self.low is not None and self.high is not None and not self.low < self.high:
            return f"low = {self.low!r} is not below high = {self.high!r}."
        return None

    @property
    def bounds(self) -> Bounds:
        """The values that it can take."""
        return Bounds(
            low=-math.inf if self.low is None else self.low, high=math.inf if self.high is None else self.high
        )

    def compute(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """Returns the metric of predictions (N, ...) against targets (N, ...), N > 0; infinite if infinitely bad.

        Raises:
            InputError: if the lengths differ, or the shapes of a dense metric do; or if the metric itself raises, gives
                no number, is infinitely good, or lies outside of its bounds.
            DataError: if the metric is not defined on these targets, for example if no class can be scored.
        """
        where = f"metric {self.name!r}"
        if len(prediction) != len(target) or not len(target):
            raise InputError(
                f"{where}: {len(prediction)} predictions for {len(target)} targets."
                " A metric needs one prediction for every sample of a split."
            )
        if not np.isfinite(prediction).all():
            return float("nan")
        try:
            value = _to_number(where, self.measure(prediction, target))
        except BaseException as error:
            raise to_input_error(where, error, prediction.shape, target.shape) from error
        if np.isnan(value):
            raise DataError(
                f"{where}: not defined on these {len(target)} targets (NaN). Are they all equal? A split needs"
                " positives and negatives, or a target that varies. Check the split and the metric, or use another metric."
            )
        if math.isinf(value) and value != worst_value(self.mode):
            raise InputError(f"{where} is {value}, so it has no mean. Bound it in the metric, or use another.")
        if math.isfinite(value) and not self.bounds.contain([value]):
            raise InputError(
                f"{where} is {value:g}, but its record says that it lies {self.bounds}. Correct one of them."
            )
        return value

    def count_unscored(self, prediction: np.ndarray, target: np.ndarray) -> int:
        """Returns the number of classes for which the metric is not defined.

        Raises:
            InputError: naming the metric, if its function raises.
        """
        try:
            return int(self.unscored(prediction, target))
        except BaseException as error:
            raise to_input_error(f"metric {self.name!r}, unscored,", error, prediction.shape, target.shape) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _to_number(where: str, value: Any) -> float:
    """Returns the value of a metric as a float.

    Raises:
        InputError: if it is not a single real number.
    """
    shape = getattr(value, "shape", ())
    if shape == () and hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if _is_number(value):
        return float(value)
    what = f"an array of shape {tuple(shape)}" if shape else f"{value!r:.60}"
    raise InputError(f"{where} gives {what}. A metric gives one number for a whole split. Correct it.")


def _select_points(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits (points, K) and labels (points,) of all scored points."""
    logits = np.moveaxis(prediction, 1, -1).reshape(-1, prediction.shape[1])
    labels = target.reshape(-1)
    known = labels != IGNORED
    return logits[known], labels[known]


def _error_rate(prediction: np.ndarray, target: np.ndarray) -> float:
    logits, labels = _select_points(prediction, target)
    return float((logits.argmax(axis=1) != labels).mean()) if len(labels) else float("nan")


def _accuracy(prediction: np.ndarray, target: np.ndarray) -> float:
    logits, labels = _select_points(prediction, target)
    return float((logits.argmax(axis=1) == labels).mean()) if len(labels) else float("nan")


def _macro_f1(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean F1 over the classes that occur in targets or predictions; other classes have no F1."""
    logits, labels = _select_points(prediction, target)
    K, label = logits.shape[1], logits.argmax(axis=1)
    right = np.bincount(labels[label == labels], minlength=K)
    met = np.bincount(label, minlength=K) + np.bincount(labels, minlength=K)
    return float((2 * right[met > 0] / met[met > 0]).mean()) if len(labels) else float("nan")


def _count_unmet(prediction: np.ndarray, target: np.ndarray) -> int:
    logits, labels = _select_points(prediction, target)
    return int(logits.shape[1] - len(np.union1d(logits.argmax(axis=1), labels)))


def _count_absent(prediction: np.ndarray, target: np.ndarray) -> int:
    return int(prediction.shape[1] - len(np.unique(target)))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Returns the probability that a positive scores above a negative, ties counting half; NaN if either is missing.

    Source: Hanley & McNeil 1982. Cost: one sort.
    """
    from scipy.stats import rankdata

    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _mean_of_defined(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _mean_auroc(prediction: np.ndarray, target: np.ndarray) -> float:
    check_same_shape(prediction.shape, target.shape)
    return _mean_of_defined([auroc(prediction[:, k], target[:, k] > 0.5) for k in range(target.shape[1])])


def _count_one_sided(prediction: np.ndarray, target: np.ndarray) -> int:
    positives = (target > 0.5).sum(axis=0)
    return int(((positives == 0) | (positives == len(target))).sum())


def _mean_average_precision(prediction: np.ndarray, target: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    check_same_shape(prediction.shape, target.shape)
    scored = np.flatnonzero((target > 0.5).any(axis=0))
    return _mean_of_defined([float(average_precision_score(target[:, k] > 0.5, prediction[:, k])) for k in scored])


def _count_without_positives(prediction: np.ndarray, target: np.ndarray) -> int:
    return int((~(target > 0.5).any(axis=0)).sum())


def _ovo_auroc_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """1 - mean AUROC over ordered pairs of the classes that occur in targets (Hand & Till 2001)."""
    from scipy.special import softmax

    p = softmax(prediction.astype(np.float64), axis=1)
    met = np.unique(target)
    pairs = [(a, b) for i, a in enumerate(met) for b in met[i + 1 :]]
    values = []
    for a, b in pairs:
        in_pair = np.isin(target, (a, b))
        values += [auroc(p[in_pair, c], target[in_pair] == c) for c in (a, b)]
    return 1 - _mean_of_defined(values)


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
    """Mean of squared error / variance, which is 1 - R2, over the outputs that vary."""
    check_same_shape(prediction.shape, target.shape)
    p, t = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
    spread = ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    varies = spread > 0
    return _mean_of_defined(list(((p - t) ** 2).sum(axis=0)[varies] / spread[varies]))


def _count_constant_outputs(prediction: np.ndarray, target: np.ndarray) -> int:
    flat = target.reshape(len(target), -1)
    return int((flat == flat[0]).all(axis=0).sum())


NEAR, APART = 8.0, 24
"""Two residues are scored if they are closer than this in space (Angstrom) and this far apart in the chain."""


def _find_scored_pairs(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    apart = np.subtract.outer(np.arange(target.shape[0]), np.arange(target.shape[1])) <= -APART
    i, j = np.nonzero((target < NEAR) & apart)
    return i, j


def _count_without_pairs(prediction: np.ndarray, target: np.ndarray) -> int:
    return sum(not len(_find_scored_pairs(t[0])[0]) for t in target)


def _mae8(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean over proteins of the mean absolute error over residue pairs that are near in space but far in the chain.

    Targets (N, 1, H, W) are NaN outside of each protein, so that each is scored over its own length. Because a distance
    map is symmetric, the two predictions of a pair are averaged. Proteins without such pairs are left out.
    """
    check_same_shape(prediction.shape, target.shape)
    values = []
    for p, t in zip(prediction, target, strict=True):
        i, j = _find_scored_pairs(t[0])
        both = (p[0, i, j].astype(np.float64) + p[0, j, i]) / 2
        values.append(float(np.abs(both - t[0, i, j]).mean()) if len(i) else float("nan"))
    return _mean_of_defined(values)


def _subtract_from_one(score: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns the error that is one minus a score."""
    return lambda prediction, target: 1 - score(prediction, target)


METRICS: Registry[Metric] = Registry("metric")
"""All metrics; a module under ``imports`` adds its own with ``METRICS.add(Metric(...))``."""
WRONG, RIGHT, TARGET = "share of wrong labels", "share of right labels", "units of the target"
for _metric in (
    Metric(name="error", measure=_error_rate, meaning="1 - accuracy", mode="min", low=0, high=1, unit=WRONG),
    Metric(name="accuracy", measure=_accuracy, meaning="1 - error", mode="max", low=0, high=1, unit=RIGHT),
    Metric(
        name="macro-f1-error",
        measure=_subtract_from_one(_macro_f1),
        meaning="1 - mean F1 of the classes that occur",
        mode="min",
        low=0,
        high=1,
        unscored=_count_unmet,
    ),
    Metric(
        name="macro-f1",
        measure=_macro_f1,
        meaning="mean F1 of the classes that occur",
        mode="max",
        low=0,
        high=1,
        unscored=_count_unmet,
    ),
    Metric(
        name="auroc-error",
        measure=_subtract_from_one(_mean_auroc),
        meaning="1 - mean AUROC of the classes with positives and negatives",
        mode="min",
        low=0,
        high=1,
        unscored=_count_one_sided,
    ),
    Metric(
        name="auroc",
        measure=_mean_auroc,
        meaning="mean AUROC of the classes with positives and negatives",
        mode="max",
        low=0,
        high=1,
        unscored=_count_one_sided,
    ),
    Metric(
        name="map-error",
        measure=_subtract_from_one(_mean_average_precision),
        meaning="1 - mean average precision of the classes with positives",
        mode="min",
        low=0,
        high=1,
        unscored=_count_without_positives,
    ),
    Metric(
        name="map",
        measure=_mean_average_precision,
        meaning="mean average precision of the classes with positives",
        mode="max",
        low=0,
        high=1,
        unscored=_count_without_positives,
    ),
    Metric(
        name="ovo-auroc-error",
        measure=_ovo_auroc_error,
        meaning="1 - mean AUROC of all pairs of classes that occur",
        mode="min",
        low=0,
        high=1,
        unscored=_count_absent,
    ),
    Metric(
        name="point-auroc-error",
        measure=_point_auroc_error,
        meaning="1 - AUROC of the scores of all points",
        mode="min",
        low=0,
        high=1,
        takes_gaps=True,
    ),
    Metric(
        name="thresholded-auroc-error",
        measure=_thresholded_auroc_error,
        meaning="1 - balanced accuracy of all points at probability 0.5",
        mode="min",
        low=0,
        high=1,
        takes_gaps=True,
    ),
    Metric(
        name="relative-l2", measure=_relative_l2, meaning="mean over samples of ||p - t|| / ||t||", mode="min", low=0
    ),
    Metric(
        name="nrmse", measure=_relative_l2, meaning="mean over samples of RMSE / RMS of the target", mode="min", low=0
    ),
    Metric(
        name="mse",
        measure=_mse,
        meaning="mean squared error",
        mode="min",
        low=0,
        unit=f"squared {TARGET}",
        takes_gaps=True,
    ),
    Metric(name="mae", measure=_mae, meaning="mean absolute error", mode="min", low=0, unit=TARGET, takes_gaps=True),
    Metric(
        name="mae8",
        measure=_mae8,
        meaning="mean over proteins of the absolute error of pairs below 8 Angstrom, 24 or more apart in the chain",
        mode="min",
        low=0,
        unit="Angstrom",
        unscored=_count_without_pairs,
        takes_gaps=True,
    ),
    Metric(
        name="r2-error",
        measure=_r2_error,
        meaning="1 - R2, mean over outputs",
        mode="min",
        low=0,
        unscored=_count_constant_outputs,
    ),
    Metric(
        name="r2",
        measure=_subtract_from_one(_r2_error),
        meaning="R2, mean over outputs",
        mode="max",
        high=1,
        unscored=_count_constant_outputs,
    ),
):
    METRICS.add(_metric)
