"""Alignment distances: the reference's numbers, and what must hold of any distance."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import ot
import pytest
import scipy.linalg
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
    rng = torch.Generator().manual_seed(0)
    p, t = torch.randperm(len(proxy), generator=rng), torch.randperm(len(target), generator=rng)
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


def mean_squared_distance(target, proxy):
    union = np.concatenate([target, proxy])
    return np.mean([((a - b) ** 2).sum() for i, a in enumerate(union) for j, b in enumerate(union) if i != j])


def plain_mmd(target, proxy, middle, n, factor):
    """The definition, in NumPy, at a given middle bandwidth."""
    total = 0.0
    for i in range(n):
        width = middle * factor ** (i - n // 2)
        kernel = lambda x, y, width=width: np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / width).mean()  # noqa: E731
        total += kernel(target, target) + kernel(proxy, proxy) - 2 * kernel(target, proxy)
    return total


def differences(f, x, step=1e-5):
    """Central finite differences of a scalar function, entry by entry."""
    out = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        out[index] = (f(x + shift) - f(x - shift)) / (2 * step)
    return out


@pytest.mark.parametrize("settings", [{}, {"n_bandwidths": 1}, {"n_bandwidths": 4, "bandwidth_factor": 3.0}])
def test_mmd_is_its_definition_and_its_gradient_holds_the_bandwidth(settings):
    target, proxy, labels = clouds(n=4, m=11)
    z, x = target.numpy(), proxy.numpy()
    middle = mean_squared_distance(z, x)
    n, factor = settings.get("n_bandwidths", 5), settings.get("bandwidth_factor", 2.0)
    value, grad = gradient("mmd", target, proxy, labels, **settings)
    assert float(value) == pytest.approx(plain_mmd(z, x, middle, n, factor), rel=1e-10)
    np.testing.assert_allclose(grad, differences(lambda t: plain_mmd(t, x, middle, n, factor), z), rtol=1e-5, atol=1e-9)


def test_l2_is_the_squared_distance_of_the_means():
    target, proxy, labels = clouds(n=4)
    value, grad = gradient("l2", target, proxy, labels)
    plain = lambda t: ((t.mean(0) - proxy.numpy().mean(0)) ** 2).sum()  # noqa: E731
    assert float(value) == pytest.approx(plain(target.numpy()), rel=1e-12)
    np.testing.assert_allclose(grad, differences(plain, target.numpy()), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_wholly_collapsed_embedding_gives_zero_and_no_gradient(name, dtype):
    value, grad = gradient(name, torch.ones(3, 4, dtype=dtype), torch.ones(6, 4, dtype=dtype), torch.zeros(6))
    assert float(value) == 0
    assert not grad.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", DISTANCES)
def test_diverged_features_give_a_value_that_is_not_finite_instead_of_a_crash_or_a_hang(name, bad):
    target, proxy, labels = clouds(dtype=torch.float32)
    target[0, 0] = bad
    assert not torch.isfinite(evaluate(name, target, proxy, labels))


def test_the_annealing_starts_twice_at_the_diameter_and_ends_at_epsilon():
    assert annealing(8.0, 0.1) == [8.0, 8.0, 2.0, 0.5, 0.125, 0.1]
    assert annealing(0.05, 0.1) == [0.05, 0.1]


def test_gaussian_label_distances_are_those_of_the_matrix_formula():
    from orca_sweep.objectives.otdd import _cloud, _gaussian

    target, proxy, _ = clouds(n=12)
    x, z = proxy.numpy(), target.numpy()
    a, b = np.cov(x.T), np.cov(z.T)
    root = scipy.linalg.sqrtm(a)
    bures = np.trace(a + b - 2 * scipy.linalg.sqrtm(root @ b @ root)).real
    expected = ((x.mean(0) - z.mean(0)) ** 2).sum() + bures
    assert float(_gaussian(_cloud(proxy, exact=False, epsilon=0.1), target)) == pytest.approx(expected, rel=1e-9)
    few = _cloud(proxy[:3], exact=False, epsilon=0.1)  # fewer samples than features: a singular covariance
    assert float(_gaussian(few, proxy[:3])) == pytest.approx(0, abs=1e-9)


def test_equal_target_points_are_moved_alike_by_the_gaussian_label_distance():
    """Their covariance is zero: only the means pull, and no arbitrary singular vector shows in the gradient."""
    from orca_sweep.objectives.otdd import _cloud, _gaussian

    target, proxy, _ = clouds()
    equal = target[:1].repeat(6, 1).requires_grad_()
    _gaussian(_cloud(proxy, exact=False, epsilon=0.1), equal).backward()
    pull = 2 * (target[0] - proxy.mean(dim=0)) / 6
    torch.testing.assert_close(equal.grad, pull.expand(6, -1))


def test_gaussian_in_single_precision_keeps_its_gradient_at_text_width():
    """Fewer samples than features, a decaying spectrum: eigensolvers in float32 fail or return noise here."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(90) % 3)
    proxy, target = (torch.from_numpy(rng.normal(size=(n, 768)) * np.exp(-np.arange(768) / 20)) for n in (90, 20))
    _, exact = gradient("otdd-gaussian", target + 0.3, proxy, labels)
    _, single = gradient("otdd-gaussian", (target + 0.3).float(), proxy.float(), labels)
    assert float((single - exact).norm() / exact.norm()) < 1e-3


def test_the_gaussian_label_gradient_is_the_true_one_of_the_label_distance():
    from orca_sweep.objectives.otdd import _cloud, _gaussian

    target, proxy, _ = clouds(n=12)
    cloud = _cloud(proxy, exact=False, epsilon=0.1)
    assert torch.autograd.gradcheck(lambda z: _gaussian(cloud, z), target.clone().requires_grad_(), atol=1e-6)


def test_proxy_labels_change_the_exact_value_but_not_its_gradient():
    target, proxy, labels = clouds(m=90)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
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
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilon=float("inf")), "above 0 and finite"),
        (lambda t, p, y: evaluate("mmd", t, p, y, n_bandwidths=0), "n_bandwidths = 0: a whole number of at least 1"),
        (lambda t, p, y: evaluate("mmd", t, p, y, bandwidth_factor=0.0), "bandwidth_factor = 0.0: a finite number"),
        (
            lambda t, p, y: evaluate("mmd", t.float(), p, y),
            "target features are torch.float32, the proxy's torch.float64",
        ),
        (lambda t, p, y: evaluate("l2", t, p.long(), y), "proxy features are torch.int64"),
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
