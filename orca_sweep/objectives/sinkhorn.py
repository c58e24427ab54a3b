r"""Annealed entropic transport between uniform clouds, one exponential per temperature.

Costs come as ``C[i, j] = u[i] + v[j] - k[i, j]``. A potential is kept without its cloud's own part,
``f - u`` and ``g - v``: u and v then drop out of every update, and with

    B = exp((f + g + k) / e)      (one exponential)

both soft minima of an update follow from B's row means r and column means c as ``f - e log r`` and
``g - e log c``. Means are taken by the library's own pairwise summation: a product with a vector of
ones adds up in order, and at the first, large temperature its rounding reaches the gradient.

B can leave the range of the number type where potentials move far in one step. Then that one update is
done again in the log domain, which needs two exponentials but cannot overflow.

Once converged, potentials are POT's. 100 updates at one temperature take a half to a quarter of the time of
``ot.bregman.sinkhorn_log`` (POT 0.9.7, 5000 x 128, epsilon 1 and 0.1, float32, one CPU thread, NumPy or torch,
whichever is faster), and POT has no annealing that gives the reference's numbers.

Source: Feydy et al. 2019, arXiv 1810.08278, section 3 (annealing, symmetric averaged updates). Differs from
it in: the form above, which computes the same numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orca_sweep.objectives.exponentials import exp_in_place

# Elements of B worked on at once: small enough to stay in a processor's cache.
BLOCK = 2**18


def annealing(diameter_squared: float, epsilon: float, extra_iterations: int = 0) -> list[float]:
    """Returns the temperatures d^2, d^2, d^2/4, d^2/16, ... above epsilon, then epsilon.

    ``extra_iterations`` more updates at epsilon follow; about 100 are enough to converge. A diameter that is
    not finite has no such steps: the potentials then become NaN, and so does the value.
    """
    steps = [diameter_squared]
    temperature = diameter_squared
    while epsilon < temperature < math.inf:
        steps.append(temperature)
        temperature /= 4
    return [*steps, *[epsilon] * (1 + extra_iterations)]


@dataclass(frozen=True)
class Transport:
    """Two clouds at the last temperature."""

    value: Tensor
    """<a, f> + <b, g> after one last, unaveraged update; a scalar in float64."""
    plan: Tensor
    """(N, M) weights of the row points for each column point before that update; columns sum to 1."""
    f: Tensor
    g: Tensor
    """Potentials before that update, less ``u`` and ``v``."""


def transport(k: Tensor, u: Tensor, v: Tensor, temperatures: Sequence[float]) -> Transport:
    """Returns the annealed transport of cost ``u[:, None] + v - k``, (N,), (M,) and (N, M).

    Cost: one exponential of N M numbers per temperature and three more; memory 2 N M.
    """
    buffer = torch.empty_like(k)
    start, epsilon = temperatures[0], temperatures[-1]
    # Both potentials start from a soft minimum against a zero potential of the other cloud.
    f = -start * _log_means(k, torch.zeros_like(u), -v, start, buffer)[0]
    g = -start * _log_means(k, -u, torch.zeros_like(v), start, buffer)[1]
    for temperature in temperatures:
        rows, columns, _ = _log_means(k, f, g, temperature, buffer)
        f = f - temperature / 2 * rows
        g = g - temperature / 2 * columns
    rows, columns, exact = _log_means(k, f, g, epsilon, buffer)
    value = (u + f - epsilon * rows).double().mean() + (v + g - epsilon * columns).double().mean()
    if exact:
        return Transport(value, buffer.div_(columns.exp_() * len(u)), f, g)
    return Transport(value, torch.softmax((k + f[:, None]) / epsilon, dim=0), f, g)


def self_transport(k: Tensor, u: Tensor, temperatures: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Returns <a, f> (float64) of a cloud against itself, and its potential less ``u`` before the last update.

    The cost is ``u[:, None] + u - k``, (N,) and (N, N). No second N x N matrix is made.
    """
    start, epsilon = temperatures[0], temperatures[-1]
    f = -start * _log_row_means(k, torch.zeros_like(u), -u, start)
    for temperature in temperatures:
        f = f - temperature / 2 * _log_row_means(k, f, f, temperature)
    last = u + f - epsilon * _log_row_means(k, f, f, epsilon)
    return last.double().mean(), f


def _log_means(k: Tensor, f: Tensor, g: Tensor, e: float, buffer: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Logarithms of the row and column means of B, and whether the buffer holds B."""
    torch.add(g / e, k, alpha=1 / e, out=buffer)
    exp_in_place(buffer.add_((f / e)[:, None]))
    means = torch.cat([buffer.mean(dim=1), buffer.mean(dim=0)])
    if _in_range(means):
        rows, columns = means.log_().split(k.shape)
        return rows, columns, True
    scaled = (k + f[:, None] + g) / e
    rows = torch.logsumexp(scaled, dim=1) - math.log(k.shape[1])
    return rows, torch.logsumexp(scaled, dim=0) - math.log(k.shape[0]), False


def _log_row_means(k: Tensor, f: Tensor, g: Tensor, e: float) -> Tensor:
    """Logarithm of the row means of B, some rows at a time."""
    height = max(1, BLOCK // k.shape[1])
    g = g / e
    parts = []
    for k_rows, f_rows in zip(k.split(height), (f / e).split(height), strict=True):
        rows = exp_in_place(torch.add(g, k_rows, alpha=1 / e).add_(f_rows[:, None])).mean(dim=1)
        if _in_range(rows):
            parts.append(rows.log_())
        else:
            scaled = torch.add(g, k_rows, alpha=1 / e).add_(f_rows[:, None])
            parts.append(torch.logsumexp(scaled, dim=1) - math.log(k.shape[1]))
    return torch.cat(parts)


def _in_range(means: Tensor) -> bool:
    """Whether all are far enough from zero and infinity for their logarithms to be exact."""
    low, high = torch.stack(torch.aminmax(means)).tolist()
    tiny = torch.finfo(means.dtype).tiny
    return low > tiny * 1e8 and high < 1e-8 / tiny
