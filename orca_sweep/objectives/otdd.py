r"""Optimal transport dataset distance (OTDD) of one target class to a labelled proxy.

It solves entropic optimal transport on two levels. With proxy points x_i of class y_i, target points z_j of one class
t, and uniform weights, the outer problem has the cost

    C[i, j] = |x_i - z_j|^2 / 2 + W[y_i, t] / 2

and the value is the debiased Sinkhorn divergence S = <a, f - f_xx> + <b, g - g_zz> of its dual potentials. W holds
distances between classes. ``exact`` is a debiased Sinkhorn divergence with cost |u - v|^2: without a Gaussian
approximation, but still entropic. ``gaussian`` is the Gaussian Bures-Wasserstein formula.

The potentials come from a short annealing and are NOT converged: ORCA's numbers are those of this schedule. Only the
last update carries the gradient (envelope theorem). So it has a closed form in the two plans,
dS/dz_j = (zbar_j - xbar_j) / m, and backward needs nothing but the gradient itself.

Sources: Alvarez-Melis & Fusi 2020, arXiv 2002.02923 (OTDD); Feydy et al. 2019, arXiv 1810.08278 (debiased
divergence, annealing, gradient by one last step); Shen et al. 2023, arXiv 2302.05738 (use in ORCA). Differs
from them in: what depends only on the proxy or on one class is computed once, on its own annealing schedule
instead of each pair's. Gradients stay the same. Values change by at most a relative 2e-5 where points are far apart
compared with epsilon. They change by up to 2e-2 where a cloud's squared spread is close to epsilon (observed with 2
features of standard deviation 0.3 at epsilon 0.1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orca_sweep.errors import DataError, InputError
from orca_sweep.objectives.bures import BuresDistances, Gaussians
from orca_sweep.objectives.closed_form import attach_gradient
from orca_sweep.objectives.sinkhorn import Transport, list_temperatures, solve_entropic_transport, solve_self_transport

LabelDistance = Literal["exact", "gaussian"]
TINY = 1e-12
"""Smallest squared diameter to anneal from."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of both levels of transport."""

    epsilon: float
    extra_iterations: int
    label_gradient: bool

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon = {self.epsilon}: the entropic regularisation must be above 0 and finite.")
        if not (isinstance(self.extra_iterations, int) and self.extra_iterations >= 0):
            raise InputError(f"extra_iterations = {self.extra_iterations}: a whole number of at least 0 is needed.")

    def list_temperatures(self, diameter_squared: float) -> list[float]:
        """Returns the temperatures of a problem with cost |u - v|^2 / 2."""
        return list_temperatures(max(diameter_squared, TINY), self.epsilon, self.extra_iterations)

    def list_class_temperatures(self, diameter_squared: float) -> list[float]:
        """Returns the temperatures of a problem between classes, whose cost |u - v|^2 is solved as twice half of it."""
        return [temperature / 2 for temperature in self.list_temperatures(diameter_squared)]


# Once per proxy -----------------------------------------------------------------------------------


@torch.no_grad()
def compute_otdd_constants(
    proxy_features: Tensor, proxy_labels: Tensor, label_distance: LabelDistance, settings: Settings
) -> dict[str, Tensor]:
    """Returns everything that depends only on the proxy.

    Classes with a single sample have no spread. As in the reference they are left out; ``n_skipped_classes`` counts
    them.

    Args:
        proxy_features: (M, D) in any feature unit; float32 or float64.
        proxy_labels: (M,).
        label_distance: ``exact`` or ``gaussian``.
        settings: those of the distance.

    Raises:
        DataError: if no class has two samples.

    Cost: M^2 exponentials per temperature (about 10); memory for M^2 numbers.
    """
    x, counts, n_skipped = sort_by_class(proxy_features, proxy_labels)
    centre = x.mean(dim=0)
    x = x - centre
    norms = (x**2).sum(dim=1) / 2
    classes = x.split(counts)
    constants = {
        "points": x,
        "centre": centre,
        "norms": norms,
        "counts": torch.tensor(counts),
        "class_low": torch.stack([c.amin(dim=0) for c in classes]),
        "class_high": torch.stack([c.amax(dim=0) for c in classes]),
        "n_skipped_classes": torch.tensor(n_skipped),
    }
    if label_distance == "exact":
        constants["class_values"] = torch.stack([_solve_self_value(c, settings) for c in classes])
        between = _compare_classes(constants, settings)
    else:
        gaussians = Gaussians.fit_classes(classes)
        constants["class_means"], constants["factors"] = gaussians.means, gaussians.factors
        constants["factor_counts"] = torch.tensor(gaussians.factor_counts)
        constants["class_variances"] = gaussians.variances
        between = torch.stack([BuresDistances(gaussians, c).values for c in classes]).fill_diagonal_(0)
    constants["class_distances"] = between
    constants["self_value"] = _solve_proxy_value(x, norms, counts, between=between, settings=settings)
    return constants


def sort_by_class(features: Tensor, labels: Tensor) -> tuple[Tensor, list[int], int]:
    """Returns the points sorted by class, the classes' sizes, and how many classes are left out.

    Raises:
        DataError: if no class has two samples.
    """
    _, y, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    keep = counts[y] > 1
    if not bool(keep.any()):
        raise DataError(
            f"proxy labels: {len(counts)} classes in {len(labels)} samples, none with two samples, so classes have"
            " no distances. Use a larger proxy."
        )
    order = torch.argsort(y[keep], stable=True)
    return features[keep][order], counts[counts > 1].tolist(), int((counts == 1).sum())


def _solve_self_value(points: Tensor, settings: Settings) -> Tensor:
    """Returns <a, f> of a class against itself with cost |u - v|^2, in float64."""
    w = points - points.mean(dim=0)
    square = float(((points.amax(dim=0) - points.amin(dim=0)) ** 2).sum())
    value, _ = solve_self_transport(w @ w.T, (w**2).sum(dim=1) / 2, settings.list_class_temperatures(square))
    return 2 * value


def _compare_classes(constants: Mapping[str, Tensor], settings: Settings) -> Tensor:
    """Returns the debiased Sinkhorn divergences of all pairs of classes, (K, K) in float64."""
    x, norms, own = constants["points"], constants["norms"], constants["class_values"]
    counts: list[int] = constants["counts"].tolist()
    between = torch.zeros(len(counts), len(counts), dtype=torch.float64, device=x.device)
    for i in range(1, len(counts)):
        start = sum(counts[:i])  # class i is the target of all classes before it
        cloud = _Cloud.from_points(x[:start], norms[:start], x[start : start + counts[i]])
        boxes = _Boxes.from_ranges(constants["class_low"][:i], constants["class_high"][:i], cloud.y)
        values = torch.stack([2 * t.value for t in _solve_to_classes(cloud, counts[:i], boxes, settings)])
        between[i, :i] = between[:i, i] = values - own[:i] - own[i]
    return between


def _solve_proxy_value(x: Tensor, norms: Tensor, counts: list[int], *, between: Tensor, settings: Settings) -> Tensor:
    """Returns <a, f_xx> in float64: the proxy against itself, with label distances in the cost."""
    k = x @ x.T
    for rows, distances in zip(k.split(counts), between.tolist(), strict=True):
        for block, distance in zip(rows.split(counts, dim=1), distances, strict=True):
            block.sub_(distance / 2)
    square = float(((x.amax(dim=0) - x.amin(dim=0)) ** 2).sum())
    return solve_self_transport(k, norms, settings.list_temperatures(square + float(len(counts) ** 2)))[0]


def _read_gaussians(constants: Mapping[str, Tensor]) -> Gaussians:
    counts: list[int] = constants["factor_counts"].tolist()
    return Gaussians(
        means=constants["class_means"],
        factors=constants["factors"],
        factor_counts=counts,
        variances=constants["class_variances"],
    )


# Once per call ------------------------------------------------------------------------------------


def otdd(constants: Mapping[str, Tensor], target: Tensor, label_distance: LabelDistance, settings: Settings) -> Tensor:
    """Returns the OTDD of one target class (n, D) to the proxy of ``compute_otdd_constants``.

    With ``label_gradient`` off, the proxy's labels change only the value: W[y_i, t] depends on i alone, and balanced
    transport with cost C[i, j] + r[i] has the same plan once it has converged. The short annealing leaves a trace of the
    labels in the gradient, about a thousandth of its size. This is the default of ``exact``, as in the released code,
    which detaches the label distances. With it on, W enters both last updates, so its gradient counts about twice. This
    is the default of ``gaussian``, as in the released code, and is kept as published.

    ``exact`` with a label gradient and ``gaussian`` without one were not published: they separate the two differences
    between the published variants. After convergence (``extra_iterations``), the mean of the two settings' gradients is
    the true gradient.

    Cost: two products of M x D by D x n. Each of about 10 temperatures takes an exponential of M x n numbers for the
    outer problem, and another for exact label distances.
    """
    with torch.no_grad():
        value, gradient = _compute_value_and_gradient(constants, target.detach(), label_distance, settings)
    return attach_gradient(target, value, gradient)


def _compute_value_and_gradient(
    constants: Mapping[str, Tensor], z: Tensor, label_distance: LabelDistance, settings: Settings
) -> tuple[Tensor, Tensor]:
    counts: list[int] = constants["counts"].tolist()
    points, n, epsilon = constants["points"], len(z), settings.epsilon
    cloud = _Cloud.from_points(points, constants["norms"], z - constants["centre"])
    boxes = _Boxes.from_ranges(constants["class_low"], constants["class_high"], cloud.y)
    kzz, half = cloud.w @ cloud.w.T, (cloud.w**2).sum(dim=1) / 2

    distances: _ExactDistances | BuresDistances
    if label_distance == "exact":
        distances = _ExactDistances(constants, cloud, boxes, kzz=kzz, half=half, settings=settings)
    else:
        distances = BuresDistances(_read_gaussians(constants), cloud.y)
    sizes = constants["counts"].to(z.device)
    label_cost = torch.repeat_interleave(distances.values / 2, sizes).to(z.dtype)
    # The reference measures the diameter with the label as one more coordinate; the target's label is the last.
    schedule = settings.list_temperatures(boxes.everything + float(len(counts) ** 2))
    outer = solve_entropic_transport(cloud.k, cloud.u + label_cost, cloud.v, schedule)
    zz_value, h = solve_self_transport(kzz, half, schedule)
    value = outer.value - constants["self_value"] - zz_value
    gradient = (_average_over_self_plan(kzz, h, epsilon, cloud.y) - outer.plan.T @ points) / n
    if settings.label_gradient:
        # The weight of W[c, t] in the two last updates: the class's share of the proxy, and of the plan.
        share = torch.stack([part.double().sum() for part in outer.plan.split(counts)]) / n
        gradient = gradient + distances.compute_gradient((sizes.double() / sizes.sum() + share) / 2)
    return value, gradient


@dataclass(frozen=True, kw_only=True)
class _Cloud:
    """A target class against points: |x_i - z_j|^2 / 2 = u[i] + v[j] - k[i, j]."""

    y: Tensor
    """(n, D): the target, relative to the points' centre."""
    w: Tensor
    """(n, D): the target, relative to its own mean."""
    k: Tensor
    u: Tensor
    v: Tensor

    @classmethod
    def from_points(cls, points: Tensor, norms: Tensor, y: Tensor) -> "_Cloud":
        mean = y.mean(dim=0)
        w = y - mean  # keeps k small, and with it the rounding error of exponents
        return cls(y=y, w=w, k=points @ w.T, u=norms - points @ mean, v=(y**2).sum(dim=1) / 2)


@dataclass(frozen=True, kw_only=True)
class _Boxes:
    """Squared diameters of bounding boxes."""

    classes: list[float]
    """Around the target and each class."""
    everything: float
    target: float
    """Around the target alone."""

    @classmethod
    def from_ranges(cls, class_low: Tensor, class_high: Tensor, y: Tensor) -> "_Boxes":
        low, high = torch.aminmax(y, dim=0)
        each = ((torch.maximum(class_high, high) - torch.minimum(class_low, low)) ** 2).sum(dim=1)
        low_all, high_all = torch.minimum(class_low.amin(dim=0), low), torch.maximum(class_high.amax(dim=0), high)
        rest = torch.stack([((high_all - low_all) ** 2).sum(), ((high - low) ** 2).sum()])
        *classes, everything, alone = torch.cat([each, rest]).tolist()  # one transfer from the device
        return cls(classes=classes, everything=everything, target=alone)


def _solve_to_classes(cloud: _Cloud, counts: list[int], boxes: _Boxes, settings: Settings) -> list[Transport]:
    """Returns the transports between each class and the target, with half their cost."""
    parts = zip(cloud.k.split(counts), cloud.u.split(counts), boxes.classes, strict=True)
    return [solve_entropic_transport(k, u, cloud.v, settings.list_class_temperatures(square)) for k, u, square in parts]


def _average_over_self_plan(k: Tensor, h: Tensor, epsilon: float, y: Tensor) -> Tensor:
    """Returns the mean of y over each point's plan against its own cloud, (n, D)."""
    return torch.softmax((k + h) / epsilon, dim=1) @ y


class _ExactDistances:
    """W[c, t] by debiased entropic transport, and its gradient in the target."""

    def __init__(
        self,
        constants: Mapping[str, Tensor],
        cloud: _Cloud,
        boxes: _Boxes,
        *,
        kzz: Tensor,
        half: Tensor,
        settings: Settings,
    ) -> None:
        counts: list[int] = constants["counts"].tolist()
        self.points, self.y = constants["points"].split(counts), cloud.y
        self.transports = _solve_to_classes(cloud, counts, boxes, settings)
        own, self.h = solve_self_transport(kzz, half, settings.list_class_temperatures(boxes.target))
        self.kzz, self.epsilon = kzz, settings.epsilon / 2
        self.values = torch.stack([2 * t.value for t in self.transports]) - constants["class_values"] - 2 * own

    def compute_gradient(self, weights: Tensor) -> Tensor:
        """Returns the gradient (n, D) of the weighted sum of the distances, weights (K,)."""
        own = _average_over_self_plan(self.kzz, self.h, self.epsilon, self.y)
        moved = weights.sum().to(own.dtype) * own
        for weight, solved, points in zip(weights.to(own.dtype), self.transports, self.points, strict=True):
            moved = moved - weight * (solved.plan.T @ points)
        return 2 * moved / len(self.y)
