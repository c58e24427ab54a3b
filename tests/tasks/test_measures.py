"""Losses and metrics against scikit-learn, against plain loops, and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch.nn import functional as F

from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks import LOSSES, METRICS, Metric
from orca_sweep.tasks.losses import make_loss
from orca_sweep.tasks.measures import auroc

RNG = np.random.default_rng(0)


def ties(shape):
    """Scores in which many are equal."""
    return RNG.integers(-3, 4, shape).astype(np.float32)


# Metrics ------------------------------------------------------------------------------------------


def test_auroc_agrees_with_scikit_learn_ties_included():
    for _ in range(20):
        score, positive = ties(50), RNG.random(50) < 0.3
        assert auroc(score, positive) == pytest.approx(sk.roc_auc_score(positive, score), abs=1e-12)
    assert auroc(np.array([1.0, 2, 3]), np.array([False, False, True])) == 1
    assert np.isnan(auroc(np.ones(3), np.ones(3, bool)))


def test_multi_label_metrics_leave_classes_without_positives_out_and_count_them():
    score, target = ties((80, 6)), (RNG.random((80, 6)) < 0.4).astype(np.float32)
    target[:, 2], target[:, 4] = 0, 1
    scored = [0, 1, 3, 5]
    expected = 1 - np.mean([sk.roc_auc_score(target[:, k], score[:, k]) for k in scored])
    assert METRICS.get("auroc-error").compute(score, target) == pytest.approx(expected, abs=1e-12)
    assert METRICS.get("auroc-error").unscored(score, target) == 2
    expected = 1 - np.mean([sk.average_precision_score(target[:, k], score[:, k]) for k in (*scored, 4)])
    assert METRICS.get("map-error").compute(score, target) == pytest.approx(expected, abs=1e-12)
    assert METRICS.get("map-error").unscored(score, target) == 1
    for name in ("auroc-error", "map-error"):
        with pytest.raises(DataError, match="not defined on these 80 targets"):
            METRICS.get(name).compute(score, np.zeros_like(target))


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_one_against_one_agrees_with_scikit_learn(n_classes):
    from scipy.special import softmax

    logits, target = ties((90, n_classes)), np.arange(90) % n_classes
    p = softmax(logits.astype(np.float64), axis=1)
    expected = sk.roc_auc_score(target, p[:, 1] if n_classes == 2 else p, multi_class="ovo")
    assert METRICS.get("ovo-auroc-error").compute(logits, target) == pytest.approx(1 - expected, abs=1e-12)
    # A split that lacks a class is scored on the pairs it has.
    some = target != 0
    if n_classes > 2:
        assert np.isfinite(METRICS.get("ovo-auroc-error").compute(logits[some], target[some]))
        assert METRICS.get("ovo-auroc-error").unscored(logits[some], target[some]) == 1


def test_scores_of_points_and_their_thresholded_variant():
    logits = RNG.normal(size=(4, 1, 6, 6)).astype(np.float32)
    target = (RNG.random((4, 1, 6, 6)) < 0.3).astype(np.float32)
    target[:, :, :2] = np.nan
    known = ~np.isnan(target)
    expected = 1 - sk.roc_auc_score(target[known], logits[known])
    assert METRICS.get("point-auroc-error").compute(logits, target) == pytest.approx(expected, abs=1e-12)
    expected = 1 - sk.balanced_accuracy_score(target[known], logits[known] > 0)
    assert METRICS.get("thresholded-auroc-error").compute(logits, target) == pytest.approx(expected, abs=1e-12)
    # Of the whole split: the mean over batches is another number.
    halves = [METRICS.get("point-auroc-error").compute(logits[i : i + 2], target[i : i + 2]) for i in (0, 2)]
    assert np.mean(halves) != pytest.approx(METRICS.get("point-auroc-error").compute(logits, target), abs=1e-6)


def test_r2_and_absolute_errors_agree_with_scikit_learn():
    p, t = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 3)) + 5
    assert METRICS.get("r2-error").compute(p, t) == pytest.approx(1 - sk.r2_score(t, p), rel=1e-12)
    assert METRICS.get("mae").compute(p, t) == pytest.approx(sk.mean_absolute_error(t, p), rel=1e-12)
    t[:, 1] = 7  # an output that does not vary has no R2
    assert METRICS.get("r2-error").unscored(p, t) == 1
    assert METRICS.get("r2-error").compute(p, t) == pytest.approx(
        1 - sk.r2_score(t[:, [0, 2]], p[:, [0, 2]]), rel=1e-12
    )


def mae8_by_loops(p, t):
    values = []
    for prediction, target in zip(p[:, 0], t[:, 0], strict=True):
        errors = [
            abs((prediction[i, j] + prediction[j, i]) / 2 - target[i, j])
            for i in range(len(target))
            for j in range(i + 24, len(target))
            if target[i, j] < 8
        ]
        if errors:
            values.append(np.mean(errors))
    return np.mean(values)


def test_every_protein_is_scored_over_its_own_length():
    t = np.full((3, 1, 60, 60), np.nan)
    for protein, length in enumerate((60, 35, 20)):  # the last has no pair far enough apart
        half = RNG.uniform(4, 14, (length, length))
        t[protein, 0, :length, :length] = (half + half.T) / 2
    p = RNG.uniform(4, 14, t.shape)
    assert METRICS.get("mae8").compute(p, t) == pytest.approx(mae8_by_loops(p, t), rel=1e-12)
    assert METRICS.get("mae8").unscored(p, t) == 1
    # Of two proteins, one wrong by 1 everywhere and one by 3, each counts once whatever its length.
    p = np.nan_to_num(t) + np.array([1.0, 3.0, 0.0]).reshape(3, 1, 1, 1)
    assert METRICS.get("mae8").compute(p[:2], t[:2]) == pytest.approx(2.0)


def test_labels_per_point_are_scored_over_all_points_that_count():
    logits, labels = RNG.normal(size=(5, 4, 3, 3)), RNG.integers(0, 4, (5, 3, 3))
    labels[:, 0] = -1
    known = labels >= 0
    found = logits.argmax(axis=1)
    assert METRICS.get("error").compute(logits, labels) == pytest.approx((found[known] != labels[known]).mean())
    expected = 1 - sk.f1_score(labels[known], found[known], average="macro")
    assert METRICS.get("macro-f1-error").compute(logits, labels) == pytest.approx(expected, abs=1e-12)


# Losses -------------------------------------------------------------------------------------------


def test_masked_losses_are_the_plain_ones_over_the_points_that_count():
    p, t = torch.randn(3, 1, 4, 4, requires_grad=True), (torch.rand(3, 1, 4, 4) < 0.5).float()
    for masked, plain in (("masked-mse", "mse"), ("masked-bce", "bce")):
        assert LOSSES.get(masked).function(p, t).item() == pytest.approx(
            LOSSES.get(plain).function(p, t).item(), rel=1e-6
        )
        holes = t.clone()
        holes[:, :, 1] = np.nan
        known = ~holes.isnan()
        loss = LOSSES.get(masked).function(p, holes)
        assert loss.item() == pytest.approx(LOSSES.get(plain).function(p[known], holes[known]).item(), rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, p)
        assert torch.isfinite(gradient).all()
        assert (gradient[:, :, 1] == 0).all()
        assert LOSSES.get(masked).function(p, torch.full_like(t, np.nan)).item() == 0


def test_positives_count_as_often_as_the_task_says():
    p, t = torch.randn(5, 3), (torch.rand(5, 3) < 0.5).float()
    loss = make_loss("bce", {"pos_weight": 4.0}, None)
    expected = F.binary_cross_entropy_with_logits(p, t, pos_weight=torch.tensor(4.0))
    assert loss(p, t).item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(InputError, match="have their target's shape"):
        loss(p, t[:, :1])


def test_balanced_classes_weigh_alike():
    labels = np.array([0] * 8 + [1] * 2)
    loss = make_loss("balanced-cross-entropy", {}, labels)
    logits, target = torch.randn(10, 2), torch.from_numpy(labels)
    per_class = [F.cross_entropy(logits[target == k], target[target == k]) for k in (0, 1)]
    assert loss(logits, target).item() == pytest.approx(torch.stack(per_class).mean().item(), rel=1e-5)
    # The highest class may be missing from training: its weight is never used, but there is one.
    three = make_loss("balanced-cross-entropy", {}, labels, 3)
    assert three(torch.randn(10, 3), target).isfinite()
    with pytest.raises(InputError, match="needs training labels"):
        make_loss("balanced-cross-entropy", {}, None)


def test_labels_per_point_and_labels_that_do_not_count():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    assert LOSSES.get("cross-entropy").function(logits, labels).item() == pytest.approx(
        F.cross_entropy(logits, labels).item(), rel=1e-6
    )
    labels[:, 0] = -1
    expected = F.cross_entropy(logits, labels, ignore_index=-1)
    assert LOSSES.get("cross-entropy").function(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    assert LOSSES.get("cross-entropy").function(logits, torch.full_like(labels, -1)).item() == 0


def test_rmse_is_a_mean_over_samples():
    p, t = torch.tensor([[[1.0, 1.0]], [[3.0, 3.0]]]), torch.zeros(2, 1, 2)
    assert LOSSES.get("rmse").function(p, t).item() == pytest.approx(2.0)


# Bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS.names())
def test_values_of_a_metric_lie_within_its_bounds(name):
    metric = METRICS.get(name)
    rng = np.random.default_rng(0)
    for _ in range(20):
        prediction, target = make_example(name, rng)
        assert metric.bounds.contain([metric.compute(prediction, target)])


def make_example(name, rng):
    """Predictions and targets of a kind that the metric takes, some of them perfect."""
    n = 12
    if name == "mae8":
        target = rng.uniform(0, 9, (2, 1, 40, 40))
        return rng.uniform(0, 20, target.shape), target
    if name in ("mse", "mae", "relative-l2", "nrmse", "r2", "r2-error"):
        target = rng.normal(size=(n, 2))
        return target + rng.choice([0.0, 1.0, 100.0]) * rng.normal(size=target.shape), target
    if name in ("error", "accuracy", "macro-f1", "macro-f1-error", "ovo-auroc-error"):
        target = rng.permutation([0, 1, 2] * (n // 3))
        return np.eye(3)[target] + rng.choice([0.0, 3.0]) * rng.normal(size=(n, 3)), target
    target = np.stack([rng.permutation([0.0, 1.0] * (n // 2)) for _ in range(2)], axis=1)
    return 6 * target - 3 + rng.choice([0.0, 9.0]) * rng.normal(size=target.shape), target


def test_a_metric_without_bounds_is_unbounded_and_wrong_bounds_are_refused_in_words():
    def make(**more):
        return Metric(name="mine", measure=lambda p, t: 1.5, meaning="mine", mode="min", **more)

    assert str(make().bounds) == "" and str(make(low=0).bounds) == "above 0"
    for more, words in (
        ({"low": 1, "high": 0}, "low = 1 is not below high = 0"),
        ({"low": math.inf}, "low = inf. It is a finite number"),
        ({"high": "1"}, "high = '1'. It is a finite number"),
        ({"high": True}, "high = True. It is a finite number"),
    ):
        with pytest.raises(InputError, match=words.replace(".", r"\.")):
            make(**more)
    with pytest.raises(InputError, match=r"metric 'mine' is 1\.5, but its record says that it lies between 0 and 1"):
        make(low=0, high=1).compute(np.zeros((2, 1)), np.zeros((2, 1)))
    assert make(high=2).compute(np.zeros((2, 1)), np.zeros((2, 1))) == 1.5
