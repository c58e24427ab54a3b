"""Alignment distances: the reference's numbers, and what must hold of any distance."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import ot
import pytest
import scipy.special
import torch

from orca_sweep.errors import InputError
from orca_sweep.objectives import OBJECTIVES, evaluate, prepare
from orca_sweep.objectives.otdd import annealing, pair_potentials, softmin

VECTORS = np.load(Path(__file__).parent / "vectors" / "otdd_reference.npz")
CASES = sorted({name.split("/")[0] for name in VECTORS})
DISTANCES = [name for name in OBJECTIVES.names() if name != "none"]


def clouds(n=12, m=40, width=5, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.arange(m) % 3)
    proxy = torch.from_numpy(rng.normal(size=(m, width))).to(dtype) + labels[:, None].to(dtype)
    return torch.from_numpy(rng.normal(size=(n, width)) + 1).to(dtype), proxy, labels


def gradient(name, target, proxy, labels, **settings):
    target = target.clone().requires_grad_()
    value = evaluate(name, target, proxy, labels, **settings)
    value.backward()
    return value.detach(), target.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["otdd-exact", "otdd-gaussian"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_reference_s(case, mode, dtype):
    proxy, target = (torch.tensor(VECTORS[f"{case}/{kind}_features"], dtype=dtype) for kind in ("proxy", "target"))
    labels = torch.tensor(VECTORS[f"{case}/proxy_labels"])
    value, grad = gradient(mode, target, proxy, labels)
    expected = torch.tensor(VECTORS[f"{case}/{mode}/gradient"], dtype=dtype)
    assert float(value) == pytest.approx(float(VECTORS[f"{case}/{mode}/value"]), rel=1e-5)
    assert float((grad - expected).norm() / expected.norm()) < 5e-4


@pytest.mark.parametrize("name", DISTANCES)
def test_identical_samples_are_nearest(name):
    target, proxy, labels = clouds()
    labels = torch.zeros_like(labels)
    same, moved = evaluate(name, proxy, proxy, labels), evaluate(name, proxy + 1.0, proxy, labels)
    assert abs(float(same)) < 1e-6
    assert float(moved) > 0.1


@pytest.mark.parametrize("name", DISTANCES)
def test_order_of_samples_does_not_matter(name):
    target, proxy, labels = clouds()
    p, t = torch.randperm(len(proxy)), torch.randperm(len(target))
    value, grad = gradient(name, target, proxy, labels)
    value2, grad2 = gradient(name, target[t], proxy[p], labels[p])
    torch.testing.assert_close(value, value2)
    torch.testing.assert_close(grad[t], grad2)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_for_single_equal_and_far_points(name, dtype):
    target, proxy, labels = clouds(dtype=dtype)
    for hard in (target[:1], target[:1].repeat(6, 1), target * 100, proxy[:5].clone()):
        value, grad = gradient(name, hard, proxy, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", ["mmd", "l2"])
def test_gradients_agree_with_finite_differences(name):
    target, proxy, labels = clouds(n=4)
    settings = {"n_bandwidths": 1} if name == "mmd" else {}
    distance = prepare(name, proxy, labels, **settings)
    if name == "l2":
        assert torch.autograd.gradcheck(distance, target.clone().requires_grad_())
        return
    # The bandwidth is held fixed in the gradient: move along a direction that leaves it almost unchanged.
    _, grad = gradient(name, target, proxy, labels, **settings)
    far = torch.cat([proxy + 50, proxy - 50])
    labels2 = torch.cat([labels, labels])
    _, grad = gradient(name, target, far, labels2, **settings)
    step = torch.zeros_like(target)
    step[0, 0] = 1e-4
    up, down = (evaluate(name, target + s * step, far, labels2, **settings) for s in (1, -1))
    assert float((up - down) / 2e-4) == pytest.approx(float(grad[0, 0]), rel=0.2, abs=1e-6)


def test_the_gaussian_label_gradient_is_the_true_one_of_the_label_distance():
    from orca_sweep.objectives.otdd import _cloud, _gaussian

    target, proxy, _ = clouds(n=12)
    cloud = _cloud(proxy, exact=False, epsilon=0.1)
    assert torch.autograd.gradcheck(lambda z: _gaussian(cloud, z), target.clone().requires_grad_(), atol=1e-6)


def test_proxy_labels_change_the_exact_value_but_not_its_gradient():
    target, proxy, labels = clouds(m=90)
    shuffled = labels[torch.randperm(len(labels))]
    value, grad = gradient("otdd-exact", target, proxy, labels)
    value2, grad2 = gradient("otdd-exact", target, proxy, shuffled)
    assert abs(float(value - value2)) > 1e-3 * abs(float(value))
    assert float((grad - grad2).norm() / grad.norm()) < 1e-3
    _, gaussian = gradient("otdd-gaussian", target, proxy, labels)
    _, gaussian2 = gradient("otdd-gaussian", target, proxy, shuffled)
    assert float((gaussian - gaussian2).norm() / gaussian.norm()) > 1e-2


def test_label_gradient_off_leaves_the_value_and_changes_the_gradient():
    target, proxy, labels = clouds()
    value, grad = gradient("otdd-gaussian", target, proxy, labels)
    value2, grad2 = gradient("otdd-gaussian", target, proxy, labels, label_gradient=False)
    torch.testing.assert_close(value, value2)
    assert float((grad - grad2).norm() / grad.norm()) > 1e-2


def test_the_schedule_s_plan_agrees_with_converged_sinkhorn_and_exact_transport():
    """Independent check. The published schedule is short, so this one is prolonged until it has converged."""
    target, proxy, _ = clouds(n=10, m=14)
    cost = torch.cdist(proxy, target) ** 2 / 2
    uniform = [np.full(n, 1 / n) for n in cost.shape]
    for epsilon, tolerance in ((0.5, 1e-8), (0.01, 0.05)):
        f, g = pair_potentials(cost, annealing(200.0, epsilon) + [epsilon] * 4000)
        value = float(softmin(cost, epsilon, g).mean() + softmin(cost.T, epsilon, f).mean())
        plan = ot.bregman.sinkhorn_log(*uniform, cost.numpy(), epsilon, numItermax=20000, stopThr=1e-13)
        outer = np.outer(*uniform)
        entropy = scipy.special.rel_entr(plan, outer).sum()
        expected = (plan * cost.numpy()).sum() + epsilon * entropy
        assert value == pytest.approx(expected, rel=1e-6)
        if epsilon == 0.01:
            assert value == pytest.approx(ot.emd2(*uniform, cost.numpy()), rel=tolerance)


def test_proxy_only_work_is_done_once(monkeypatch):
    from orca_sweep.objectives import otdd

    target, proxy, labels = clouds()
    distance = prepare("otdd-exact", proxy, labels)
    largest = []
    plain = otdd.squared_distances
    monkeypatch.setattr(otdd, "squared_distances", lambda x, y: largest.append(x.shape[0] * y.shape[0]) or plain(x, y))
    distance(target)
    assert max(largest) <= len(proxy) * len(target)


def test_none_is_zero_with_zero_gradient():
    value, grad = gradient("none", *clouds())
    assert float(value) == 0
    assert not grad.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t, p, y: evaluate("otdd-exat", t, p, y), "no objective 'otdd-exat'. Did you mean 'otdd-exact'"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilom=1), "no setting 'epsilom'. Did you mean 'epsilon'"),
        (lambda t, p, y: evaluate("l2", t, p, y, epsilon=1), "It takes none"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilon=0), "must be above 0"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, label_gradient=True), "have no gradient"),
        (lambda t, p, y: evaluate("mmd", t[:, :2], p, y), r"\(n, 5\) with n > 0"),
        (lambda t, p, y: evaluate("mmd", t, p, y[:3]), r"\(M, D\) and \(M,\)"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, torch.arange(len(p))), "no class has two samples"),
    ],
)
def test_wrong_input_is_said(call, words):
    with pytest.raises(InputError, match=words):
        call(*clouds())


def test_names_are_known_without_torch():
    code = "import sys, orca_sweep.objectives as o; o.settings_of('mmd'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
