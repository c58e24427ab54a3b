"""Distances of means, of means and covariances, and of random pairs: cheap, and blind to proxy labels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orca_sweep.objectives.closed_form import with_gradient

Constants = Mapping[str, Tensor]


def l2_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy's mean."""
    return {"mean": proxy_features.mean(dim=0)}


def l2(constants: Constants, target: Tensor) -> Tensor:
    """Returns the squared Euclidean distance between the means. Symmetric; zero on equal means."""
    with torch.no_grad():
        apart = target.detach().mean(dim=0) - constants["mean"]
        value, gradient = apart @ apart, apart * (2 / len(target))
    return with_gradient(target, value, gradient.expand(target.shape))


def l2_paired_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy around one of its own samples, and its squared norms."""
    return centred(proxy_features)


def l2_paired(constants: Constants, target: Tensor) -> Tensor:
    """Returns the mean Euclidean distance over all pairs of a target and a proxy sample.

    Symmetric, but no divergence: it is least, and not zero, where every target sample lies on the proxy's
    geometric median. Aligning with it collapses the target.

    Source: the pairwise distance of Shen et al. 2023, arXiv 2302.05738. Differs from their code in: the
    expectation over all pairings in place of one random pairing, so no draw and no dropped remainder.
    """
    with torch.no_grad():
        points, z = constants["points"], target.detach() - constants["centre"]
        distances = squared_distances_to(points, constants["squares"], z).sqrt_()
        value = distances.mean(dtype=torch.float64)
        # The slope of a distance of zero is taken as zero.
        slopes = torch.where(distances > 0, 1 / distances, 0.0)
        gradient = slopes.sum(dim=0)[:, None] * z - slopes.T @ points
    return with_gradient(target, value, gradient / distances.numel())


def moment_constants(proxy_features: Tensor, proxy_labels: Tensor) -> dict[str, Tensor]:
    """Returns the proxy's mean and unbiased covariance (D, D), and its total variance."""
    covariance = _covariance(proxy_features)
    return {"mean": proxy_features.mean(dim=0), "covariance": covariance, "variance": covariance.trace()}


def moment(constants: Constants, target: Tensor) -> Tensor:
    """Returns |difference of means|^2 + |difference of covariances|_F^2 / total variance of the proxy.

    In squared feature units: features scaled by s scale it by s^2. Zero on equal moments; not symmetric, as
    the proxy sets the unit of the second term.

    Cost: n D^2.

    Source: Sun & Saenko 2016, arXiv 1607.01719 (covariances). Differs from it in: the term of the means, and
    the proxy's total variance where they divide by 4 D^2.
    """
    means = ((target.mean(dim=0) - constants["mean"]) ** 2).sum()
    spread = ((_covariance(target) - constants["covariance"]) ** 2).sum()
    variance = constants["variance"]
    return means + spread / torch.where(variance > 0, variance, 1.0)


def _covariance(points: Tensor) -> Tensor:
    """Unbiased (D, D)."""
    shifted = points - points[:1].detach()  # equal points, however far away, give an exact zero
    centred = shifted - shifted.mean(dim=0)
    return centred.T @ centred / max(1, len(points) - 1)


def centred(points: Tensor) -> dict[str, Tensor]:
    """Returns ``points`` (M, D) less a ``centre`` (D,), and their ``squares`` |x|^2 (M,).

    The centre is the sample nearest to the mean and not the mean itself: equal samples, however far away, then
    become exact zeros, and so do distances to a target that is equal to them.
    """
    nearest = ((points - points.mean(dim=0)) ** 2).sum(dim=1).argmin()
    moved = points - points[nearest]
    return {"points": moved, "centre": points[nearest].clone(), "squares": (moved**2).sum(dim=1)}


def squared_distances_to(points: Tensor, squares: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2, (M, n), of points and a target around one centre; of points the squares are known."""
    return torch.addmm(squares[:, None] + (y**2).sum(dim=1), points, y.T, alpha=-2).clamp_min_(0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns |x_i - y_j|^2, (M, n).

    Both sides are moved by one of y first: distances stay, rounding of far-away clouds does not, and equal
    points have a distance of exactly zero.
    """
    x, y = x - y[:1], y - y[:1]
    return torch.addmm((x**2).sum(1)[:, None] + (y**2).sum(1)[None, :], x, y.T, alpha=-2).clamp_min_(0)
