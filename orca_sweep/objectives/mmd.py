"""Squared maximum mean discrepancy under several Gaussian kernels; blind to proxy labels."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from orca_sweep.errors import InputError
from orca_sweep.objectives.closed_form import attach_gradient
from orca_sweep.objectives.exponentials import exp_in_place
from orca_sweep.objectives.moments import centre_points, compute_centred_distances, compute_squared_distances

BLOCK = 2**18
"""Elements of a matrix that are processed at once."""
DIGITS = 27.6
"""-log of the interpolation's error, 1e-12."""


@torch.no_grad()
def compute_mmd_constants(
    proxy_features: Tensor, proxy_labels: Tensor, n_bandwidths: int, bandwidth_factor: float
) -> dict[str, Tensor]:
    """Returns the proxy and its mean kernel value as a function of the bandwidth.

    The bandwidth depends on the target, so every call needs the proxy's own term mean_ik exp(-s |x_i - x_k|^2) at a
    new s. The term is smooth in s. Its values at Chebyshev nodes, over every s that a target of up to M samples can
    cause, give it to 12 digits.

    Raises:
        InputError: on settings out of range.

    Cost: the M x M distances, block by block, and their exponentials for each node (100 to several hundred).
    """
    if not (isinstance(n_bandwidths, int) and n_bandwidths >= 1):
        raise InputError(f"n_bandwidths = {n_bandwidths}: a whole number of at least 1 is needed.")
    if not 0 < bandwidth_factor < math.inf:
        raise InputError(f"bandwidth_factor = {bandwidth_factor}: a finite number above 0 is needed.")
    centred = centre_points(proxy_features)
    x = centred["points"]
    total, largest, m = 0.0, 0.0, len(x)
    for d in _iterate_blocks(x):
        total, largest = total + float(d.double().sum()), max(largest, float(d.amax()))
    # Of all targets of n <= M samples, those equal to the proxy's mean give about the smallest bandwidth.
    smallest = total / max(1, 2 * m * (2 * m - 1))
    narrowest = min(bandwidth_factor ** (i - n_bandwidths // 2) for i in range(n_bandwidths))
    top = 1 / (smallest * narrowest) if smallest > 0 else 0.0
    nodes = _choose_nodes(top, largest).to(x.device)
    means = torch.zeros_like(nodes)
    for d in _iterate_blocks(x):
        for i, s in enumerate(nodes.tolist()):
            means[i] += exp_in_place(d * -s).mean(dim=1).double().sum()
    return {
        **centred,
        "total": torch.tensor(total, dtype=torch.float64, device=x.device),
        "nodes": nodes,
        "node_means": means / m,
    }


def _choose_nodes(top: float, largest: float) -> Tensor:
    """Returns Chebyshev nodes of the second kind on [0, top] for exponentials exp(-s d), d up to ``largest``.

    The coefficients of such an exponential decay as exp(-n^2 / (2 a)), a = top * largest / 2.
    """
    a = top * largest / 2
    n = math.ceil(math.sqrt(2 * DIGITS * a) + 2 * DIGITS / 3) if math.isfinite(a) else 1
    return top / 2 * (1 - torch.cos(torch.pi * torch.arange(n + 1, dtype=torch.float64) / n))


def _interpolate_values(nodes: Tensor, values: Tensor, s: Tensor) -> Tensor:
    """Interpolates values at Chebyshev nodes of the second kind to the points s (K,), in barycentric form.

    Source: Berrut & Trefethen 2004, SIAM Review 46, eq. 5.4.
    """
    weights = torch.ones_like(nodes)
    weights[1::2] = -1
    weights[0] /= 2
    weights[-1] /= 2
    offsets = s[:, None] - nodes
    is_hit = offsets == 0
    terms = weights / torch.where(is_hit, 1.0, offsets)
    between = (terms @ values) / terms.sum(dim=1)
    return torch.where(is_hit.any(dim=1), (is_hit * values).sum(dim=1), between)


def mmd(constants: Mapping[str, Tensor], target: Tensor, n_bandwidths: int, bandwidth_factor: float) -> Tensor:
    """Returns the squared MMD, summed over Gaussian kernels exp(-d^2 / bandwidth).

    The middle bandwidth is the mean squared distance between different points of the union, taken as a constant;
    neighbouring bandwidths differ by ``bandwidth_factor``. It is the biased estimate (V-statistic): zero on equal sets,
    never negative beyond rounding. Symmetric. Sizes may differ. If all points are equal, value and gradient are 0.

    Cost: (M + n) n exponentials per kernel, and two products of M x D by D x n.

    Source: Gretton et al. 2012, JMLR 13, eq. 5; bandwidths as in Long et al. 2015, arXiv 1502.02791.
    Differs from them in: all pairs are used, where Long et al. use a linear-time estimate on equal sizes.
    """
    with torch.no_grad():
        value, gradient = _compute_value_and_gradient(constants, target.detach(), n_bandwidths, bandwidth_factor)
    return attach_gradient(target, value, gradient)


def _compute_value_and_gradient(
    constants: Mapping[str, Tensor], target: Tensor, n_bandwidths: int, bandwidth_factor: float
) -> tuple[Tensor, Tensor]:
    x, z = constants["points"], target - constants["centre"]
    m, n = len(x), len(z)
    d_xz, d_zz = compute_centred_distances(x, constants["squares"], z), compute_squared_distances(z, z)
    union = constants["total"] + 2 * d_xz.sum(dtype=torch.float64) + d_zz.sum(dtype=torch.float64)
    middle = union / ((m + n) * (m + n - 1))
    if not bool(middle > 0):  # all points are equal: zero (or NaN if an input is NaN)
        return middle * 0, z * middle.to(z.dtype) * 0
    widths = [float(middle) * bandwidth_factor ** (i - n_bandwidths // 2) for i in range(n_bandwidths)]
    value = _sum_proxy_term(constants, torch.tensor([1 / w for w in widths], dtype=torch.float64, device=x.device))
    slope_xz, slope_zz = torch.zeros_like(d_xz), torch.zeros_like(d_zz)
    for width in widths:
        k_xz, k_zz = exp_in_place(d_xz / -width), exp_in_place(d_zz / -width)
        value = value + k_zz.mean(dtype=torch.float64) - 2 * k_xz.mean(dtype=torch.float64)
        slope_xz.add_(k_xz, alpha=1 / width)
        slope_zz.add_(k_zz, alpha=1 / width)
    towards = slope_xz.sum(dim=0)[:, None] * z - slope_xz.T @ x
    offsets = slope_zz.sum(dim=0)[:, None] * z - slope_zz @ z
    return value, 4 * towards / (m * n) - 4 * offsets / n**2


def _sum_proxy_term(constants: Mapping[str, Tensor], s: Tensor) -> Tensor:
    """Returns the sum over kernels of the proxy's mean kernel value."""
    nodes, x = constants["nodes"], constants["points"]
    if float(s.amax()) <= float(nodes[-1]):
        return _interpolate_values(nodes, constants["node_means"], s).sum()
    # A target with more samples than the proxy can need a narrower kernel than the nodes cover.
    parts = [exp_in_place(d * -float(t)).double().sum() for d in _iterate_blocks(x) for t in s]
    return torch.stack(parts).sum() / len(x) ** 2


def _iterate_blocks(x: Tensor) -> Iterator[Tensor]:
    """Yields the squared distances of some points at a time to all points."""
    for rows in x.split(max(1, BLOCK // len(x))):
        yield compute_squared_distances(rows, x)
