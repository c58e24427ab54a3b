"""The alignment distances computed naively: from their formulas, with nothing kept between calls.

The benchmark and the tests compare the fast forms with these. OTDD is written as ORCA's
released code computes it: every call solves the proxy against itself again, and every pair of classes.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from orca_sweep.objectives.pot import load_pot


@dataclass(frozen=True, kw_only=True)
class Regularisation:
    """Entropic regularisation of Sinkhorn's algorithm."""

    epsilon: float = 0.1
    extra: int = 0
    """More updates at epsilon."""


DEFAULT = Regularisation()


def softmin(cost: Tensor, temperature: float, potential: Tensor) -> Tensor:
    """Returns -e log mean_j exp((h_j - C_ij) / e) for each row i."""
    return -temperature * (torch.logsumexp((potential - cost) / temperature, dim=1) - math.log(cost.shape[1]))


def temperatures(diameter_squared: float, epsilon: float, extra: int = 0) -> list[float]:
    """Returns d^2, d^2, d^2/4, ... above epsilon, then epsilon, the last ``extra`` times more."""
    n = max(0, math.ceil(math.log(diameter_squared / epsilon, 4)))
    return [diameter_squared, *(diameter_squared / 4**i for i in range(n)), *[epsilon] * (1 + extra)]


def sinkhorn_divergence(
    x: Tensor, z: Tensor, *, scale: float, diameter_squared: float, regularisation: Regularisation, w: tuple = (0, 0, 0)
) -> Tensor:
    """Returns the debiased divergence of uniform clouds (N, D), (M, D) with cost ``scale * (d^2 + w)``.

    ``w`` is added between x and z, x and x, z and z. Gradients flow through one last update, in which the
    other cloud and all potentials are fixed.
    """
    epsilon = regularisation.epsilon
    fixed_x, fixed_z = x.detach(), z.detach()
    w_xz, w_xx, w_zz = w
    w_zx = w_xz.T if isinstance(w_xz, Tensor) else w_xz
    c_xz, c_zx = scale * (squares(x, fixed_z) + w_xz), scale * (squares(z, fixed_x) + w_zx)
    c_xx, c_zz = scale * (squares(x, fixed_x) + w_xx), scale * (squares(z, fixed_z) + w_zz)
    steps = temperatures(diameter_squared, epsilon, regularisation.extra)
    with torch.no_grad():
        zero_x, zero_z = c_xx.new_zeros(len(x)), c_zz.new_zeros(len(z))
        f, g = softmin(c_xz, steps[0], zero_z), softmin(c_zx, steps[0], zero_x)
        f_xx, g_zz = softmin(c_xx, steps[0], zero_x), softmin(c_zz, steps[0], zero_z)
        for e in steps:
            f, g = (f + softmin(c_xz, e, g)) / 2, (g + softmin(c_zx, e, f)) / 2
            f_xx, g_zz = (f_xx + softmin(c_xx, e, f_xx)) / 2, (g_zz + softmin(c_zz, e, g_zz)) / 2
    f, g = softmin(c_xz, epsilon, g), softmin(c_zx, epsilon, f)
    return (f - softmin(c_xx, epsilon, f_xx)).mean() + (g - softmin(c_zz, epsilon, g_zz)).mean()


def squares(x: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2."""
    return ((x**2).sum(dim=1)[:, None] + (y**2).sum(dim=1) - 2 * x @ y.T).clamp_min(0)


def box_squared(x: Tensor, z: Tensor) -> float:
    """Returns the squared diameter of the box around two clouds."""
    both = torch.cat([x, z]).detach()
    return float(((both.amax(dim=0) - both.amin(dim=0)) ** 2).sum())


class _TraceOfRoot(torch.autograd.Function):
    """tr(M^1/2) of a symmetric matrix; its gradient is half the inverse root, on the support."""

    @staticmethod
    def forward(ctx, matrix: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        values, vectors = torch.linalg.eigh(matrix)
        kept = values > values.amax() * len(values) * torch.finfo(values.dtype).eps
        roots = torch.where(kept, values.clamp_min(0).sqrt(), 0.0)
        ctx.save_for_backward((vectors * torch.where(kept, 0.5 / roots, 0.0)) @ vectors.T)
        return roots.sum()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0]


def root(matrix: Tensor) -> Tensor:
    """Returns the symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def bures(x: Tensor, z: Tensor) -> Tensor:
    """Returns the squared Bures-Wasserstein distance of two clouds by D x D covariances and roots."""
    s_x, s_z = x.T.cov(), z.T.cov()
    half = root(s_x.detach())
    mixed = _TraceOfRoot.apply(half @ s_z @ half)
    return ((x.mean(dim=0) - z.mean(dim=0)) ** 2).sum() + (s_x.trace() + s_z.trace() - 2 * mixed).clamp_min(0)


def otdd(
    target: Tensor,
    proxy: Tensor,
    labels: Tensor,
    exact: bool,
    label_gradient: bool,
    regularisation: Regularisation = DEFAULT,
) -> Tensor:
    """Returns the OTDD of one target class (n, D) to a labelled proxy (M, D), classes of two or more samples."""
    order = torch.argsort(labels, stable=True)
    proxy, (_, y, counts) = proxy[order], torch.unique(labels[order], return_inverse=True, return_counts=True)
    clouds = [*proxy.split(counts.tolist()), target if label_gradient else target.detach()]
    k = len(clouds) - 1
    rows = []
    for i, cloud in enumerate(clouds):
        row = [proxy.new_zeros(())] * (k + 1)
        for j, other in enumerate(clouds[:i]):
            row[j] = _class_distance(other, cloud, exact, regularisation)
        rows.append(torch.stack(row))
    w = torch.stack(rows)
    w = w + w.T
    to_target = w[y, k][:, None].expand(-1, len(target))
    return sinkhorn_divergence(
        proxy,
        target,
        scale=0.5,
        diameter_squared=box_squared(proxy, target) + k**2,
        regularisation=regularisation,
        w=(to_target, w[y][:, y].detach(), 0),
    )


def _class_distance(x: Tensor, z: Tensor, exact: bool, regularisation: Regularisation) -> Tensor:
    if exact:
        return sinkhorn_divergence(x, z, scale=1.0, diameter_squared=box_squared(x, z), regularisation=regularisation)
    return bures(x, z)


def otdd_emd(target: Tensor, proxy: Tensor, labels: Tensor, label_gradient: bool = False) -> Tensor:
    """Returns the unregularised OTDD, by POT's ``emd2`` on torch tensors, and its gradient."""
    emd2 = partial(load_pot().emd2, [], [], numItermax=10**8)
    order, fixed = torch.argsort(labels, stable=True), target if label_gradient else target.detach()
    proxy, (_, counts) = proxy[order], torch.unique(labels, return_counts=True)
    w = torch.stack([emd2(squares(points, fixed)) for points in proxy.split(counts.tolist())])
    return emd2((squares(proxy, target) + w.repeat_interleave(counts)[:, None]) / 2)


def mmd(target: Tensor, proxy: Tensor, n_bandwidths: int = 5, bandwidth_factor: float = 2.0) -> Tensor:
    """Returns the squared MMD over the whole (N + M) x (N + M) distances, never times D."""
    union = torch.cat([proxy, target])
    d, m, n = squares(union, union), len(proxy), len(union)
    middle = d.detach().sum() / (n * (n - 1))
    total = target.new_zeros(())
    for i in range(n_bandwidths):
        k = torch.exp(-d / (middle * bandwidth_factor ** (i - n_bandwidths // 2)))
        total = total + k[:m, :m].mean() + k[m:, m:].mean() - 2 * k[:m, m:].mean()
    return total


def l2(target: Tensor, proxy: Tensor) -> Tensor:
    """Returns the squared distance of the means."""
    return ((target.mean(dim=0) - proxy.mean(dim=0)) ** 2).sum()


def l2_paired(target: Tensor, proxy: Tensor) -> Tensor:
    """Returns the mean distance of all pairs."""
    return squares(target, proxy).clamp_min(1e-12).sqrt().mean()


def moment(target: Tensor, proxy: Tensor) -> Tensor:
    """Returns the squared distances of means, and of covariances over the proxy's variance."""
    s_x, s_z = proxy.T.cov(), target.T.cov()
    return l2(target, proxy) + ((s_x - s_z) ** 2).sum() / s_x.trace()


def sliced_wasserstein(target: Tensor, proxy: Tensor, directions: Tensor) -> Tensor:
    """Returns the mean squared 2-Wasserstein distance along directions (D, P), one quantile step at a time."""
    x, z = (proxy @ directions).sort(dim=0).values, (target @ directions).sort(dim=0).values
    m, n = len(x), len(z)
    ends = torch.unique(torch.cat([torch.arange(m + 1) * n, torch.arange(n + 1) * m]))
    starts, widths = ends[:-1], ends.diff().double() / (m * n)
    i, j = torch.div(starts, n, rounding_mode="floor"), torch.div(starts, m, rounding_mode="floor")
    return (widths[:, None].to(x) * (x[i] - z[j]) ** 2).sum(dim=0).mean()
