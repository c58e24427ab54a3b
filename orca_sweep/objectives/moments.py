"""Distances of means, of means and covariances, and of random pairs: cheap; they ignore proxy labels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orca_sweep.objectives.closed_form import attach_gradient

Constants = Mapping[str, Tensor]


def compute_l2_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy's mean."""
    return {"mean": proxy_features.mean(dim=0)}


def l2(constants: Constants, target: Tensor) -> Tensor:
    """Returns the squared Euclidean distance between the means. Symmetric; zero on equal means."""
    with torch.no_grad():
        difference = target.detach().mean(dim=0) - constants["mean"]
        value, gradient = difference @ difference, difference * (2 / len(target))
    return attach_gradient(target, value, gradient.expand(target.shape))


def compute_l2_paired_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy centred on one of its own samples, and its squared norms."""
    return centre_points(proxy_features)


def l2_paired(constants: Constants, target: Tensor) -> Tensor:
    """Returns the mean Euclidean distance over all pairs of a target and a proxy sample.

    Symmetric, but not a divergence: its minimum is not zero, and lies where every target sample equals the proxy's
    geometric median. Aligning with it collapses the target.

    Source: the pairwise distance of Shen et al. 2023, arXiv 2302.05738. Differs from their code in: it takes the
    expectation over all pairings instead of one random pairing, so it draws nothing and drops no remainder.
    """
    with torch.no_grad():
        points, z = constants["points"], target.detach() - constants["centre"]
        distances = compute_centred_distances(points, constants["squares"], z).sqrt_()
        value = distances.mean(dtype=torch.float64)
        # A distance of zero gets the slope zero.
        slopes = torch.where(distances > 0, 1 / distances, 0.0)
        gradient = slopes.sum(dim=0)[:, None] * z - slopes.T @ points
    return attach_gradient(target, value, gradient / distances.numel())


def compute_moment_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy's mean and unbiased covariance (D, D), and its total variance."""
    covariance = _compute_covariance(proxy_features)
    return {"mean": proxy_features.mean(dim=0), "covariance": covariance, "variance": covariance.trace()}


def moment(constants: Constants, target: Tensor) -> Tensor:
    """Returns |difference of means|^2 + |difference of covariances|_F^2 / total variance of the proxy.

    In squared feature units: scaling the features by s scales it by s^2. Zero on equal moments. Not symmetric: the
    proxy sets the unit of the second term.

    Cost: n D^2.

    Source: Sun & Saenko 2016, arXiv 1607.01719 (covariances). Differs from it in: the term of the means, and division
    by the proxy's total variance instead of 4 D^2.
    """
    means = ((target.mean(dim=0) - constants["mean"]) ** 2).sum()
    spread = ((_compute_covariance(target) - constants["covariance"]) ** 2).sum()
    variance = constants["variance"]
    return means + spread / torch.where(variance > 0, variance, 1.0)


def _compute_covariance(points: Tensor) -> Tensor:
    """Returns the unbiased covariance (D, D)."""
    shifted = points - points[:1].detach()  # equal points give an exact zero, however far away they are
    centred = shifted - shifted.mean(dim=0)
    return centred.T @ centred / max(1, len(points) - 1)


def centre_points(points: Tensor) -> dict[str, Tensor]:
    """Returns ``points`` (M, D) minus a ``centre`` (D,), and their ``squares`` |x|^2 (M,).

    The centre is the sample nearest to the mean, not the mean itself. Equal samples, however far away, then become
    exact zeros, and so do their distances to an equal target.
    """
    nearest = ((points - points.mean(dim=0)) ** 2).sum(dim=1).argmin()
    moved = points - points[nearest]
    return {"points": moved, "centre": points[nearest].clone(), "squares": (moved**2).sum(dim=1)}


def compute_centred_distances(points: Tensor, squares: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2, (M, n), of points with known squares and a target, both with the same centre."""
    return torch.addmm(squares[:, None] + (y**2).sum(dim=1), points, y.T, alpha=-2).clamp_min_(0)


def compute_squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2, (M, n).

    One of y is subtracted from both sides first. This keeps distances, removes the rounding error of far-away points,
    and makes the distance of equal points exactly zero.
    """
    x, y = x - y[:1], y - y[:1]
    return torch.addmm((x**2).sum(1)[:, None] + (y**2).sum(1)[None, :], x, y.T, alpha=-2).clamp_min_(0)
