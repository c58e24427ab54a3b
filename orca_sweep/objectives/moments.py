"""Distances that ignore the proxy's labels: means and kernel means."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from orca_sweep.errors import InputError


def prepare_l2(proxy_features: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns target (n, D) -> squared Euclidean distance between the means.

    Differs from ORCA's code, which pairs randomly drawn proxy rows with target rows.
    """
    mean = proxy_features.mean(dim=0)
    return lambda target: ((target.mean(dim=0) - mean) ** 2).sum()


def prepare_mmd(
    proxy_features: Tensor, n_bandwidths: int = 5, bandwidth_factor: float = 2.0
) -> Callable[[Tensor], Tensor]:
    """Returns target (n, D) -> squared MMD, summed over Gaussian kernels exp(-d^2 / bandwidth).

    The middle bandwidth is the mean squared distance between different points of the union, without
    gradient; the others are ``bandwidth_factor`` apart. The biased estimate (V-statistic): zero on equal
    sets, never negative beyond rounding. Sizes may differ; if all points are equal, value and gradient are 0.

    Args:
        proxy_features: (M, D).
        n_bandwidths: number of kernels, at least 1.
        bandwidth_factor: ratio of neighbouring bandwidths, above 0.

    Raises:
        InputError: on settings out of range.

    Cost: once the M x M squared distances; per call (M + n)^2 exponentials per kernel.

    Source: Gretton et al. 2012, JMLR 13, eq. 5; bandwidths as in Long et al. 2015, arXiv 1502.02791.
    Differs from them in: all pairs are used, where Long et al. use a linear-time estimate on equal sizes.
    """
    if not (isinstance(n_bandwidths, int) and n_bandwidths >= 1):
        raise InputError(f"n_bandwidths = {n_bandwidths}: a whole number of at least 1 is needed.")
    if not 0 < bandwidth_factor < math.inf:
        raise InputError(f"bandwidth_factor = {bandwidth_factor}: a finite number above 0 is needed.")
    d_xx = squared_distances(proxy_features, proxy_features)
    sum_xx, m = d_xx.sum(), len(proxy_features)

    def mmd(target: Tensor) -> Tensor:
        d_xz, d_zz = squared_distances(proxy_features, target), squared_distances(target, target)
        n_all = m + len(target)
        with torch.no_grad():
            middle = (sum_xx + 2 * d_xz.sum() + d_zz.sum()) / max(1, n_all * (n_all - 1))
            middle = torch.where(middle == 0, 1.0, middle)  # all points equal: any bandwidth gives zero
        total = target.new_zeros(())
        for i in range(n_bandwidths):
            width = middle * bandwidth_factor ** (i - n_bandwidths // 2)
            k_xx, k_zz, k_xz = ((-d / width).exp().mean() for d in (d_xx, d_zz, d_xz))
            total = total + k_xx + k_zz - 2 * k_xz
        return total

    return mmd


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2, (M, n).

    Both sides are moved by the mean of y first: distances stay, rounding of far-away clouds does not.
    """
    centre = y.detach().mean(dim=0)
    x, y = x - centre, y - centre
    return ((x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T).clamp_min(0)
