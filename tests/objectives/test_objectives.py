"""Alignment distances: the reference's numbers, and what must hold of any distance."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orca_sweep.bench import objectives as bench
from orca_sweep.bench import plain
from orca_sweep.errors import DataError, InputError
from orca_sweep.objectives import OBJECTIVES, NonFiniteError, constants, distance, evaluate, list_settings, sinkhorn
from orca_sweep.objectives import emd as emd_module
from orca_sweep.objectives import mmd as mmd_module
from orca_sweep.objectives.bures import BuresDistances, Gaussians
from orca_sweep.objectives.exponentials import exp_in_place
from orca_sweep.objectives.pot import load_pot
from orca_sweep.objectives.sinkhorn import list_temperatures, solve_entropic_transport, solve_self_transport

ot = load_pot()
VECTORS = np.load(Path(__file__).resolve().parents[1] / "vectors" / "otdd_reference.npz")
CASES = sorted({name.split("/")[0] for name in VECTORS})
DISTANCES = [name for name in OBJECTIVES.names() if name != "none"]
DIVERGENCES = [name for name in DISTANCES if name != "l2-paired"]
OTDD = ["otdd-exact", "otdd-gaussian"]
CONVERGED = {"extra_iterations": 400, "epsilon": 1.0}


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


def off(a, b):
    return float((a - b).norm() / b.norm())


# The reference's numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", OTDD)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_reference_s(case, mode, dtype):
    proxy, target = (torch.tensor(VECTORS[f"{case}/{kind}_features"], dtype=dtype) for kind in ("proxy", "target"))
    labels = torch.tensor(VECTORS[f"{case}/proxy_labels"])
    value, grad = gradient(mode, target, proxy, labels)
    expected = torch.tensor(VECTORS[f"{case}/{mode}/gradient"], dtype=dtype)
    assert float(value) == pytest.approx(float(VECTORS[f"{case}/{mode}/value"]), rel=1e-6)
    assert off(grad, expected) < 2e-4


@pytest.mark.parametrize("label_gradient", [True, False])
@pytest.mark.parametrize("mode", OTDD)
@pytest.mark.parametrize(("m", "n", "width"), [(60, 9, 4), (60, 9, 16), (45, 30, 7)])
def test_otdd_is_what_the_naive_form_computes(mode, label_gradient, m, n, width):
    target, proxy, labels = clouds(n, m, width)
    value, grad = gradient(mode, target * 3, proxy * 3, labels, label_gradient=label_gradient)
    slow = (target * 3).requires_grad_()
    expected = plain.otdd(slow, proxy * 3, labels, mode == "otdd-exact", label_gradient=label_gradient)
    expected.backward()
    # Classes anneal on their own schedule here, on that of each pair there; see the module's docstring.
    assert float(value) == pytest.approx(float(expected.detach()), rel=2e-5)
    assert off(grad, slow.grad) < 1e-7


@pytest.mark.parametrize("name", [name for name in DISTANCES if name not in OTDD])
@pytest.mark.parametrize(("m", "n"), [(40, 12), (12, 40), (17, 17)])
def test_others_are_what_their_plain_forms_compute(name, m, n):
    target, proxy, labels = clouds(n, m)
    value, grad = gradient(name, target, proxy, labels)
    slow = target.clone().requires_grad_()
    expected = bench.naive_distance(name, slow, proxy, labels)
    expected.backward()
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert off(grad, slow.grad) < 1e-9


def test_label_gradient_has_the_published_defaults():
    assert list_settings("otdd-exact")["label_gradient"] is False
    assert list_settings("otdd-gaussian")["label_gradient"] is True


def test_proxy_labels_change_the_exact_value_but_not_its_gradient():
    target, proxy, labels = clouds(m=90)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    value, grad = gradient("otdd-exact", target, proxy, labels)
    value2, grad2 = gradient("otdd-exact", target, proxy, shuffled)
    assert abs(float(value - value2)) > 1e-3 * abs(float(value))
    assert off(grad2, grad) < 1e-3
    _, gaussian = gradient("otdd-gaussian", target, proxy, labels)
    _, gaussian2 = gradient("otdd-gaussian", target, proxy, shuffled)
    assert off(gaussian2, gaussian) > 1e-2


# What must hold of any distance -------------------------------------------------------------------


@pytest.mark.parametrize("name", DIVERGENCES)
def test_identical_samples_are_at_zero_and_moved_ones_are_not(name):
    _, proxy, labels = clouds()
    labels = torch.zeros_like(labels)
    same, moved = evaluate(name, proxy, proxy, labels), evaluate(name, proxy + 1.0, proxy, labels)
    assert abs(float(same)) < 1e-6
    assert float(moved) > 0.1


def test_l2_paired_is_least_on_the_geometric_median_and_not_zero_on_equal_sets():
    _, proxy, labels = clouds(m=41, width=1)
    median = proxy.median(dim=0).values.expand(8, -1)
    least = float(evaluate("l2-paired", median, proxy, labels))
    assert 0.1 < least < float(evaluate("l2-paired", proxy, proxy, labels))
    assert least < float(evaluate("l2-paired", median + 0.05, proxy, labels))


@pytest.mark.parametrize("name", [name for name in DISTANCES if name != "moment"])
def test_swapping_target_and_one_class_proxy_leaves_the_value(name):
    target, proxy, labels = clouds(width=3)
    more = CONVERGED if name in OTDD else {}
    forth = evaluate(name, target, proxy, torch.zeros(len(proxy)), **more)
    back = evaluate(name, proxy, target, torch.zeros(len(target)), **more)
    torch.testing.assert_close(forth, back, rtol=1e-6, atol=1e-9)


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
def test_the_same_call_gives_the_same_bits(name):
    call = clouds(dtype=torch.float32)
    (value, grad), (value2, grad2) = gradient(name, *call), gradient(name, *call)
    assert torch.equal(value, value2)
    assert torch.equal(grad, grad2)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES.names() if name not in {*OTDD, "mmd"}])
def test_gradients_are_those_of_finite_differences(name):
    target, proxy, labels = clouds(n=4, m=11)
    whole = {"label_gradient": True} if name == "otdd-emd" else {}
    assert torch.autograd.gradcheck(lambda z: evaluate(name, z, proxy, labels, **whole), target.requires_grad_())


def test_the_mmd_gradient_holds_the_bandwidth():
    target, proxy, labels = clouds(n=4, m=11)
    middle = plain.squares(union := torch.cat([proxy, target]), union).sum() / (15 * 14)

    def fixed(z):
        """The plain form at the bandwidth of the present target."""
        kernel = lambda a, b, w: torch.exp(-plain.squares(a, b) / w).mean()  # noqa: E731
        widths = [middle * 2.0 ** (i - 2) for i in range(5)]
        return sum(kernel(z, z, w) + kernel(proxy, proxy, w) - 2 * kernel(proxy, z, w) for w in widths)

    slow = target.clone().requires_grad_()
    fixed(slow).backward()
    assert off(gradient("mmd", target, proxy, labels)[1], slow.grad) < 1e-10
    assert torch.autograd.gradcheck(fixed, target.clone().requires_grad_())


@pytest.mark.parametrize("name", OTDD)
def test_once_converged_the_two_label_gradients_have_the_true_gradient_as_their_mean(name):
    """On leaves the label term out, the other counts it twice: gradcheck holds for their mean."""
    target, proxy, labels = clouds(n=4, m=12, width=2)

    def mean(z):
        both = [evaluate(name, z, proxy, labels, label_gradient=on, **CONVERGED) for on in (True, False)]
        return (both[0] + both[1]) / 2

    assert torch.autograd.gradcheck(mean, target.requires_grad_(), atol=1e-6, rtol=1e-4)
    _, on = gradient(name, target.detach(), proxy, labels, label_gradient=True, **CONVERGED)
    _, off_ = gradient(name, target.detach(), proxy, labels, label_gradient=False, **CONVERGED)
    assert off(on, off_) > 1e-2


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_for_equal_far_and_coinciding_points(name, dtype):
    target, proxy, labels = clouds(dtype=dtype)
    for hard in (target[:1].repeat(6, 1), target * 100, proxy[:5].clone()):
        value, grad = gradient(name, hard, proxy, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", DISTANCES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(2, 9), st.integers(4, 25), st.integers(1, 40), st.integers(1, 4)),
    scale=st.floats(0.1, 20),
    outlier=st.sampled_from(["none", "target", "proxy"]),
    duplicates=st.booleans(),
    seed=st.integers(0, 99),
)
def test_single_precision_stays_finite(name, sizes, scale, outlier, duplicates, seed):
    n, m, width, n_classes = sizes
    rng = np.random.default_rng(seed)
    # The usual scale of features: a mean squared distance of 134.
    target, proxy = (rng.normal(size=(k, width)) * np.sqrt(67 / width) * scale for k in (n, m))
    for which, cloud in (("target", target), ("proxy", proxy)):
        if outlier == which:
            cloud[0] *= 20
    if duplicates:
        target[1:] = target[0]
        proxy[: m // 2] = target[0]
    labels = torch.from_numpy(np.arange(m) % min(n_classes, m // 2))
    value, grad = gradient(name, torch.from_numpy(target).float(), torch.from_numpy(proxy).float(), labels)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_wholly_collapsed_embedding_gives_zero_and_no_gradient(name, dtype):
    points = torch.full((9, 4), 0.1, dtype=dtype)
    value, grad = gradient(name, points[:3], points[:6], torch.zeros(6))
    assert float(value) == pytest.approx(0, abs=1e-12)
    assert float(grad.norm()) < 1e-6


def test_none_is_zero_with_zero_gradient():
    value, grad = gradient("none", *clouds())
    assert float(value) == 0
    assert not grad.any()


# Independent checks -------------------------------------------------------------------------------


def pot_transport(cost, epsilon):
    """Entropic transport by POT, to convergence: <P, C> + epsilon KL(P | uniform)."""
    cost = np.asarray(cost)
    uniform = [np.full(k, 1 / k) for k in cost.shape]
    plan = ot.bregman.sinkhorn_log(*uniform, cost, epsilon, numItermax=20000, stopThr=1e-13)
    ratio = np.where(plan > 0, plan / np.outer(*uniform), 1)
    return (plan * cost).sum() + epsilon * (plan * np.log(ratio)).sum()


def squares(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def test_otdd_is_pot_s_at_equal_epsilon():
    """Both levels by POT's own Sinkhorn, on numpy arrays."""
    target, proxy, labels = clouds(n=6, m=15, width=3)
    z, x, y, epsilon = target.numpy(), proxy.numpy(), labels.numpy(), 1.0
    clouds_ = [*(x[y == c] for c in range(3)), z]
    inner = lambda a, b: pot_transport(squares(a, b), epsilon)  # noqa: E731
    w = np.zeros((4, 4))
    for i in range(4):
        for j in range(i):
            a, b = clouds_[i], clouds_[j]
            w[i, j] = w[j, i] = inner(a, b) - inner(a, a) / 2 - inner(b, b) / 2
    outer = [
        pot_transport((squares(a, b) + w[np.ix_(la, lb)]) / 2, epsilon)
        for a, la, b, lb in ((x, y, z, [3] * 6), (x, y, x, y), (z, [3] * 6, z, [3] * 6))
    ]
    value = evaluate("otdd-exact", target, proxy, labels, extra_iterations=3000, epsilon=epsilon)
    assert float(value) == pytest.approx(outer[0] - outer[1] / 2 - outer[2] / 2, rel=1e-8)


def test_otdd_becomes_exact_transport_as_epsilon_goes_to_zero():
    target, proxy, labels = clouds(n=6, m=15, width=3)
    z, x, y = target.numpy(), proxy.numpy(), labels.numpy()
    w = [ot.emd2([], [], squares(x[y == c], z)) for c in range(3)]
    exact = ot.emd2([], [], (squares(x, z) + np.array(w)[y][:, None]) / 2)
    errors = [
        abs(float(evaluate("otdd-exact", target, proxy, labels, epsilon=e, extra_iterations=3000)) - exact) / exact
        for e in (0.5, 0.1, 0.02)
    ]
    assert errors[2] < 5e-3  # smaller epsilon needs more updates than a test has time for
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize(("m", "n", "width"), [(15, 6, 3), (30, 40, 5), (24, 24, 2)])
@pytest.mark.parametrize("label_gradient", [True, False])
def test_otdd_emd_is_what_pot_s_own_differentiable_form_gives(m, n, width, label_gradient):
    target, proxy, labels = clouds(n, m, width)
    value, grad = gradient("otdd-emd", target, proxy, labels, label_gradient=label_gradient)
    slow = target.clone().requires_grad_()
    expected = plain.otdd_emd(slow, proxy, labels, label_gradient)
    expected.backward()
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert off(grad, slow.grad) < 1e-12


def test_otdd_exact_tends_to_otdd_emd_in_value_and_gradient():
    """Of the gradients with label distances the mean of on and off does: exact counts them twice when on."""
    target, proxy, labels = clouds(n=6, m=15, width=3)
    limit, limit_grad = gradient("otdd-emd", target, proxy, labels)
    _, limit_whole = gradient("otdd-emd", target, proxy, labels, label_gradient=True)
    assert off(limit_grad, limit_whole) > 1e-2
    errors = []
    for epsilon, n_iterations in ((1.0, 200), (0.3, 600), (0.1, 2000)):  # less needs more time than a test has
        more = {"epsilon": epsilon, "extra_iterations": n_iterations}
        value, grad = gradient("otdd-exact", target, proxy, labels, **more)
        _, twice = gradient("otdd-exact", target, proxy, labels, label_gradient=True, **more)
        errors.append((abs(float(value / limit) - 1), off(grad, limit_grad), off((grad + twice) / 2, limit_whole)))
    assert all(a > b > c for a, b, c in zip(*errors, strict=True))
    assert errors[2][0] < 2e-2
    assert max(errors[2]) < 0.2


def test_labels_change_the_value_of_otdd_emd_but_its_gradient_only_when_asked():
    target, proxy, labels = clouds(m=90)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    value, grad = gradient("otdd-emd", target, proxy, labels)
    value2, grad2 = gradient("otdd-emd", target, proxy, shuffled)
    assert abs(float(value - value2)) > 1e-2 * abs(float(value))
    assert off(grad2, grad) < 1e-12
    _, whole = gradient("otdd-emd", target, proxy, labels, label_gradient=True)
    _, whole2 = gradient("otdd-emd", target, proxy, shuffled, label_gradient=True)
    assert off(whole2, whole) > 1e-2


@pytest.mark.filterwarnings("error")
def test_a_plan_that_is_not_optimal_is_an_error_and_never_a_value(monkeypatch):
    target, proxy, labels = clouds(m=90, n=30)
    monkeypatch.setattr(emd_module, "MOST_PIVOTS", 3)
    with pytest.raises(DataError, match="no optimal plan between 90 and 30 samples: numItermax reached.*otdd-exact"):
        evaluate("otdd-emd", target, proxy, labels)


def test_potentials_that_do_not_prove_the_optimum_are_an_error(monkeypatch):
    """Whatever a solver of tomorrow says of itself: a plan of the wrong cost is not taken."""
    real, cost = ot.lp.emd, torch.from_numpy(np.random.default_rng(0).random((9, 4)))

    def wrong(a, b, given, **more):
        return np.outer(a, b) / b.sum(), real(a, b, given, **more)[1]

    monkeypatch.setattr(ot.lp, "emd", wrong)
    with pytest.raises(DataError, match="no optimal plan between 9 and 4 samples: off by .* of the largest cost"):
        emd_module.solve_exact_transport(cost)


@pytest.mark.parametrize("scale", [1e-150, 1e-9, 1e9, 1e150])
def test_optimal_plans_do_not_depend_on_the_unit_of_features(scale):
    """The simplex has absolute tolerances; costs are brought to one scale before it sees them."""
    target, proxy, labels = clouds(n=7, m=20)
    value, grad = gradient("otdd-emd", target, proxy, labels, label_gradient=True)
    value2, grad2 = gradient("otdd-emd", target * scale, proxy * scale, labels, label_gradient=True)
    assert float(value2 / scale / scale) == pytest.approx(float(value), rel=1e-12)
    assert off(grad2 / scale, grad) < 1e-12


def test_more_target_than_proxy_samples_and_unequal_classes_move_all_of_the_mass():
    cost = torch.from_numpy(np.random.default_rng(0).random((7, 31)))
    solved = emd_module.solve_exact_transport(cost)
    plan = torch.zeros(7, 31, dtype=torch.float64)
    plan[solved.rows, solved.columns] = solved.mass
    torch.testing.assert_close(plan.sum(dim=0), torch.full((31,), 1 / 31, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(dim=1), torch.full((7,), 1 / 7, dtype=torch.float64))
    assert float(solved.value) == pytest.approx(ot.emd2([], [], cost.numpy()), rel=1e-12)


def test_extra_iterations_are_off_by_default_and_change_the_gradient():
    target, proxy, labels = clouds()
    _, grad = gradient("otdd-exact", target, proxy, labels)
    _, none = gradient("otdd-exact", target, proxy, labels, extra_iterations=0)
    _, converged = gradient("otdd-exact", target, proxy, labels, extra_iterations=1000)
    assert torch.equal(grad, none)
    assert off(grad, converged) > 1e-3


@pytest.mark.parametrize(("n", "m"), [(12, 12), (9, 23), (23, 9)])
def test_sliced_wasserstein_is_pot_s(n, m):
    target, proxy, labels = clouds(n, m)
    proxy_constants = constants("sliced-wasserstein", proxy, labels, n_projections=7, projection_seed=3)
    value = distance("sliced-wasserstein", proxy_constants, target, n_projections=7, projection_seed=3)
    directions = proxy_constants["directions"].numpy()
    assert np.allclose(np.linalg.norm(directions, axis=0), 1)
    expected = ot.sliced_wasserstein_distance(proxy.numpy(), target.numpy(), projections=directions)
    assert float(value) == pytest.approx(expected**2, rel=1e-12)


@pytest.mark.parametrize("n_classes", [1, 3])
def test_gaussian_label_distances_are_pot_s(n_classes):
    target, proxy, labels = clouds(n=30, m=90)
    classes = [proxy[labels % n_classes == c] for c in range(n_classes)]
    of = lambda x: (x.numpy().mean(0), np.cov(x.numpy().T))  # noqa: E731
    pot = ot.gaussian.bures_wasserstein_distance
    expected = [pot(of(x)[0], of(target)[0], of(x)[1], of(target)[1]) ** 2 for x in classes]
    np.testing.assert_allclose(
        BuresDistances(Gaussians.fit_classes(classes), target).values.numpy(), expected, rtol=1e-9
    )


def test_sliced_directions_are_the_seed_s():
    call = clouds()
    assert float(evaluate("sliced-wasserstein", *call)) == float(evaluate("sliced-wasserstein", *call))
    other = evaluate("sliced-wasserstein", *call, projection_seed=1)
    assert float(evaluate("sliced-wasserstein", *call)) != float(other)


# Parts --------------------------------------------------------------------------------------------


def test_the_annealing_starts_twice_at_the_diameter_and_ends_at_epsilon():
    assert list_temperatures(8.0, 0.1) == [8.0, 8.0, 2.0, 0.5, 0.125, 0.1]
    assert list_temperatures(8.0, 0.1) == plain.temperatures(8.0, 0.1)
    assert list_temperatures(0.05, 0.1) == [0.05, 0.1]
    assert list_temperatures(0.4, 0.1, extra_iterations=2) == [0.4, 0.4, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_one_exponential_overflows_the_log_domain_takes_over(dtype, monkeypatch):
    """Two far clouds at a low temperature: B leaves the range of the type, the result does not."""
    x, z = (torch.tensor(a, dtype=dtype) for a in ([[0.0], [1.0], [900.0]], [[0.0], [-900.0]]))
    k, u, v = x @ z.T, x[:, 0] ** 2 / 2, z[:, 0] ** 2 / 2
    scaled = []
    real = torch.logsumexp
    monkeypatch.setattr(torch, "logsumexp", lambda *a, **b: scaled.append(1) or real(*a, **b))
    solved = solve_entropic_transport(k, u, v, [1.0, 0.1])
    value, _ = solve_self_transport(x @ x.T, u, [1.0, 0.1])
    assert scaled
    monkeypatch.undo()
    c_xz = plain.squares(x, z) / 2
    f, g = plain.softmin(c_xz, 1.0, torch.zeros(2)), plain.softmin(c_xz.T, 1.0, torch.zeros(3))
    for e in (1.0, 0.1):
        f, g = (f + plain.softmin(c_xz, e, g)) / 2, (g + plain.softmin(c_xz.T, e, f)) / 2
    expected = plain.softmin(c_xz, 0.1, g).mean() + plain.softmin(c_xz.T, 0.1, f).mean()
    assert float(solved.value) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(solved.plan.sum(dim=0), torch.ones(2, dtype=dtype))
    assert torch.isfinite(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_are_exact_or_next_to_nothing_and_never_subnormal(dtype):
    tiny = torch.finfo(dtype).tiny
    exponents = torch.linspace(-1000, 80, 5000, dtype=dtype)
    result = exp_in_place(exponents.clone())
    assert tiny <= float(result.min()) < 2 * tiny
    kept = torch.exp(exponents) > 2 * tiny
    assert torch.equal(result[kept], torch.exp(exponents[kept]))
    assert torch.isnan(exp_in_place(torch.tensor([torch.nan], dtype=dtype))).all()


def test_rows_are_worked_on_in_blocks_without_changing_a_bit(monkeypatch):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(37, 3)))
    arguments = x @ x.T, (x**2).sum(dim=1) / 2, list_temperatures(9.0, 0.1)
    whole = solve_self_transport(*arguments)
    monkeypatch.setattr(sinkhorn, "BLOCK", 100)
    torch.testing.assert_close(solve_self_transport(*arguments), whole, rtol=1e-12, atol=1e-12)


def bures_to(proxy, z):
    return BuresDistances(Gaussians.fit_classes([proxy]), z)


def test_gaussian_label_distances_are_those_of_the_matrix_formula():
    target, proxy, _ = clouds(n=12)
    x, z = proxy.numpy(), target.numpy()
    a, b = np.cov(x.T), np.cov(z.T)
    root = scipy.linalg.sqrtm(a)
    bures = np.trace(a + b - 2 * scipy.linalg.sqrtm(root @ b @ root)).real
    expected = ((x.mean(0) - z.mean(0)) ** 2).sum() + bures
    assert float(bures_to(proxy, target).values) == pytest.approx(expected, rel=1e-9)
    few = bures_to(proxy[:3], proxy[:3])  # fewer samples than features: a singular covariance
    assert float(few.values) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "width"), [(12, 5), (4, 9)])
def test_the_gradient_of_the_gaussian_label_distance_is_that_of_finite_differences(n, width):
    target, proxy, _ = clouds(n, width=width)
    expected = torch.empty_like(target)
    for i in np.ndindex(*target.shape):
        shift = torch.zeros_like(target)
        shift[i] = 1e-5
        expected[i] = (bures_to(proxy, target + shift).values - bures_to(proxy, target - shift).values)[0] / 2e-5
    assert off(bures_to(proxy, target).compute_gradient(torch.ones(1)), expected) < 1e-6


def test_equal_target_points_are_moved_alike_by_the_gaussian_label_distance():
    """Their covariance is zero: only the means pull, and no arbitrary singular vector shows in the gradient."""
    target, proxy, _ = clouds()
    grad = bures_to(proxy, target[:1].repeat(6, 1)).compute_gradient(torch.ones(1))
    pull = 2 * (target[0] - proxy.mean(dim=0)) / 6
    torch.testing.assert_close(grad, pull.expand(6, -1))


def test_gaussian_in_single_precision_keeps_its_gradient_at_text_width():
    """Fewer samples than features, a decaying spectrum: eigensolvers in float32 fail or return noise here."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(90) % 3)
    proxy, target = (torch.from_numpy(rng.normal(size=(n, 768)) * np.exp(-np.arange(768) / 20)) for n in (90, 20))
    _, exact = gradient("otdd-gaussian", target + 0.3, proxy, labels)
    _, single = gradient("otdd-gaussian", (target + 0.3).float(), proxy.float(), labels)
    assert off(single, exact) < 1e-3


@pytest.mark.parametrize("more", [{}, {"n_bandwidths": 1}, {"n_bandwidths": 4, "bandwidth_factor": 0.4}])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_the_mmd_term_of_the_proxy_is_exact_for_any_bandwidth(more, scale):
    """Near, far and collapsed targets, one proxy outlier: the interpolated term is the plain one."""
    target, proxy, labels = clouds(m=50)
    proxy[0] *= 30
    n, factor = more.get("n_bandwidths", 5), more.get("bandwidth_factor", 2.0)
    value = evaluate("mmd", target * scale, proxy, labels, **more)
    assert float(value) == pytest.approx(float(plain.mmd(target * scale, proxy, n, factor)), rel=1e-9, abs=1e-11)


def test_a_target_larger_than_the_proxy_can_need_a_narrower_kernel_than_prepared(monkeypatch):
    _, proxy, labels = clouds(m=10)
    target = proxy.mean(dim=0).expand(500, -1)
    asked = []
    real = mmd_module._interpolate_values
    monkeypatch.setattr(mmd_module, "_interpolate_values", lambda *a: asked.append(1) or real(*a))
    value = evaluate("mmd", target, proxy, labels)
    assert not asked
    assert float(value) == pytest.approx(float(plain.mmd(target, proxy)), rel=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_step_never_meets_the_proxy_squared(name):
    """With constants at hand no tensor of M x M numbers is made, and none of (N + M) x D x anything."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    target, proxy, labels = clouds(n=6, m=300, width=7)
    proxy_constants = constants(name, proxy, labels)
    with Largest() as seen:
        distance(name, proxy_constants, target.requires_grad_()).backward()
    most = max(len(proxy) * max(len(target), 7), 301 * 128 if name == "sliced-wasserstein" else 0)
    assert 0 < seen.size <= most < 300 * 300


@pytest.mark.parametrize("name", DISTANCES)
def test_constants_are_plain_tensors_that_can_be_stored_and_read_back(name, tmp_path):
    from orca_sweep.store import Store

    target, proxy, labels = clouds(dtype=torch.float32)
    proxy_constants = constants(name, proxy, labels)
    store = Store(str(tmp_path))
    store.put("objective", "key", {key: tensor.numpy() for key, tensor in proxy_constants.items()}, {})
    back = {key: torch.from_numpy(array.copy()) for key, array in store.get("objective", "key").tensors.items()}
    assert torch.equal(distance(name, back, target), distance(name, proxy_constants, target))


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OTDD, "otdd-emd"])
def test_proxy_classes_of_one_sample_are_left_out_and_counted(name):
    target, proxy, labels = clouds()
    lonely = torch.cat([labels, torch.tensor([7, 9])])
    more = torch.cat([proxy, proxy[:2] + 50])
    assert int(constants(name, more, lonely)["n_skipped_classes"]) == 2
    torch.testing.assert_close(evaluate(name, target, more, lonely), evaluate(name, target, proxy, labels))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", DISTANCES)
def test_features_that_are_not_finite_are_said_with_their_number(name, bad):
    target, proxy, labels = clouds(dtype=torch.float32)
    target[0, 0] = target[3, 1] = bad
    with pytest.raises(NonFiniteError, match=r"2 of 60 target feature values are NaN or infinite \(in 2 of 12"):
        evaluate(name, target, proxy, labels)
    with pytest.raises(DataError, match=r"2 of 60 proxy feature values are NaN"):
        evaluate(name, proxy, target, torch.zeros(12))


@pytest.mark.parametrize("name", DISTANCES)
def test_features_beyond_the_number_type_give_no_finite_value_instead_of_a_hang(name):
    target, proxy, labels = clouds(dtype=torch.float32)
    target[0, 0] = 1e30
    assert not torch.isfinite(evaluate(name, target, proxy, labels)) or name == "l2-paired"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda t, p, y: evaluate("otdd-exat", t, p, y), InputError, "'otdd-exat'. Did you mean 'otdd-exact'"),
        (lambda t, p, y: evaluate("l2-pared", t, p, y), InputError, "Did you mean 'l2-paired'"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilom=1), InputError, "Did you mean 'epsilon'"),
        (lambda t, p, y: evaluate("l2", t, p, y, epsilon=1), InputError, "It takes none"),
        (lambda t, p, y: evaluate("otdd-emd", t, p, y, epsilon=1), InputError, "no setting 'epsilon'"),
        (lambda t, p, y: evaluate("otdd-emd", t, p, torch.arange(len(p))), DataError, "40 samples, none with two"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilon=0), InputError, "must be above 0"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, epsilon=float("inf")), InputError, "above 0 and finite"),
        (lambda t, p, y: evaluate("otdd-exact", t, p, y, extra_iterations=-1), InputError, "extra_iterations = -1"),
        (lambda t, p, y: evaluate("mmd", t, p, y, n_bandwidths=0), InputError, "n_bandwidths = 0: a whole number"),
        (lambda t, p, y: evaluate("mmd", t, p, y, bandwidth_factor=0.0), InputError, "bandwidth_factor = 0.0: a fin"),
        (lambda t, p, y: evaluate("sliced-wasserstein", t, p, y, n_projections=0), InputError, "n_projections = 0"),
        (
            lambda t, p, y: evaluate("mmd", t.float(), p, y),
            DataError,
            "type is torch.float32, the proxy's torch.float64",
        ),
        (lambda t, p, y: evaluate("l2", t.long(), p.long(), y), DataError, "proxy features are torch.int64"),
        (lambda t, p, y: evaluate("mmd", t[:, :2], p, y), DataError, "width is 2, the proxy's 5"),
        (lambda t, p, y: evaluate("mmd", t[:1], p, y), DataError, r"target features \(1, 5\).*at least 2"),
        (lambda t, p, y: evaluate("mmd", t[0], p, y), DataError, r"target features \(5,\)"),
        (lambda t, p, y: evaluate("mmd", t, p, y[:3]), DataError, r"\(M, D\) and \(M,\)"),
        (lambda t, p, y: evaluate("mmd", t, p[:0], y[:0]), DataError, "0 classes in 0 samples"),
        (
            lambda t, p, y: evaluate("otdd-exact", t, p, torch.arange(len(p))),
            DataError,
            "40 classes in 40 samples, none with two",
        ),
    ],
)
def test_wrong_input_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call(*clouds())


LOADS_POT = """
import os, sys
from orca_sweep.objectives.exponentials import exp_in_place
from orca_sweep.objectives.pot import load_pot
os.environ["POT_BACKEND_DISABLE_JAX"] = "mine"
before = dict(os.environ)
pot = load_pot()
assert pot.__name__ == "ot" and load_pot() is pot
assert dict(os.environ) == before, "the environment has changed"
print([name for name in ("jax", "tensorflow", "cupy") if name in sys.modules])
"""


def test_loading_pot_imports_no_backend_though_it_is_installed_and_leaves_the_environment(tmp_path):
    for name in ("jax", "tensorflow", "cupy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a backend was imported')\n")
    folders = [str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", LOADS_POT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["list", "objectives"], ["plan", "search_spaces/objectives.yaml"]])
def test_the_command_line_does_not_load_pot_before_it_is_needed(arguments):
    code = f"""
import sys
from orca_sweep.cli import main
sys.argv = ["orca-sweep", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("LOADED", [name for name in ("ot", "jax", "tensorflow", "cupy") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "LOADED []", done.stdout + done.stderr
    assert "otdd-emd" in done.stdout or arguments != ["list", "objectives"]


def test_names_are_known_without_torch():
    code = "import sys, orca_sweep.objectives as o; o.list_settings('mmd'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", DISTANCES)
def test_a_gpu_computes_the_same(name):
    target, proxy, labels = clouds()
    value, grad = gradient(name, target, proxy, labels)
    value2, grad2 = gradient(name, target.cuda(), proxy.cuda(), labels.cuda())
    torch.testing.assert_close(value2.cpu(), value)
    torch.testing.assert_close(grad2.cpu(), grad)


# The benchmark ------------------------------------------------------------------------------------


def test_both_sides_of_the_benchmark_do_the_same():
    from orca_sweep.bench import measure_case

    for name in DISTANCES:
        row = measure_case(lambda name=name: bench.objective_case(name, 6, 60, 3, 8), repeats=1)
        assert row.difference < 1e-3, name
        assert row.ratio == row.other_s / row.ours_s
    row = measure_case(lambda: bench.embedder_case(60, 3, 8, 32), repeats=1)
    assert row.difference < 1e-3
    assert {case.args for case in bench.CASES[:-1]} == {(name, d) for name in DISTANCES for d in (128, 768)}
