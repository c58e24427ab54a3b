"""Alignment distances between embedded target data of one class and labelled proxy features.

Each is a plain function: ``prepare`` does once what depends on the proxy alone and returns the distance
as a function of the target features (n, D), differentiable in them. Needs torch only when called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import InputError
from orca_sweep.registry import Registry, hint

if TYPE_CHECKING:
    from torch import Tensor

Distance = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Objective:
    """One alignment distance: how to prepare it, and the settings it takes with their defaults."""

    name: str
    meaning: str
    prepare: Callable[..., Distance]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _otdd_exact(proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> Distance:
    from orca_sweep.objectives.otdd import prepare_otdd

    return prepare_otdd(proxy_features, proxy_labels, label_distance="exact", **settings)


def _otdd_gaussian(proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> Distance:
    from orca_sweep.objectives.otdd import prepare_otdd

    return prepare_otdd(proxy_features, proxy_labels, label_distance="gaussian", **settings)


def _mmd(proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> Distance:
    from orca_sweep.objectives.moments import prepare_mmd

    return prepare_mmd(proxy_features, **settings)


def _l2(proxy_features: "Tensor", proxy_labels: "Tensor") -> Distance:
    from orca_sweep.objectives.moments import prepare_l2

    return prepare_l2(proxy_features)


def _none(proxy_features: "Tensor", proxy_labels: "Tensor") -> Distance:
    return lambda target: (target * 0).sum()


OBJECTIVES: Registry[Objective] = Registry("objective")
OBJECTIVES.add(
    Objective(
        "otdd-exact",
        "optimal transport dataset distance, label distances by debiased entropic OT; ORCA's default."
        " The proxy's labels change its value but not its gradient",
        _otdd_exact,
        {"epsilon": 0.1, "label_gradient": False},
    )
)
OBJECTIVES.add(
    Objective(
        "otdd-gaussian",
        "optimal transport dataset distance, label distances by the Gaussian (Bures-Wasserstein) formula",
        _otdd_gaussian,
        {"epsilon": 0.1, "label_gradient": True},
    )
)
OBJECTIVES.add(
    Objective(
        "mmd",
        "squared maximum mean discrepancy under several Gaussian kernels; ignores proxy labels",
        _mmd,
        {"n_bandwidths": 5, "bandwidth_factor": 2.0},
    )
)
OBJECTIVES.add(Objective("l2", "squared distance of the two means; ignores proxy labels", _l2))
OBJECTIVES.add(Objective("none", "no alignment: zero, with zero gradient", _none))


def settings_of(name: str) -> frozenset[str]:
    """Returns the names of the settings an objective takes."""
    return frozenset(OBJECTIVES.get(name).settings)


def prepare(name: str, proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> Distance:
    """Returns the distance to a proxy as a function of target features, proxy-only work done once.

    Args:
        name: a registered objective.
        proxy_features: (M, D), M >= 1, without gradient; fixes dtype and device.
        proxy_labels: (M,) class of each proxy sample, whole numbers.
        settings: what ``settings_of(name)`` lists.

    Raises:
        InputError: on an unknown name or setting, or shapes that do not fit.
    """
    objective = OBJECTIVES.get(name)
    for setting in settings:
        if setting not in objective.settings:
            known = hint(setting, objective.settings) if objective.settings else "It takes none."
            raise InputError(f"objective {name!r}: there is no setting {setting!r}. {known}")
    if proxy_features.ndim != 2 or len(proxy_features) == 0 or proxy_labels.shape != proxy_features.shape[:1]:
        raise InputError(
            f"objective {name!r}: proxy features {tuple(proxy_features.shape)} and labels"
            f" {tuple(proxy_labels.shape)}. (M, D) and (M,) with M > 0 are needed."
        )
    dtype = proxy_features.dtype
    if not dtype.is_floating_point:
        raise InputError(f"objective {name!r}: proxy features are {dtype}. Floating point numbers are needed.")
    distance = objective.prepare(proxy_features.detach(), proxy_labels.detach(), **settings)
    width = proxy_features.shape[1]

    def checked(target: "Tensor") -> "Tensor":
        if target.ndim != 2 or target.shape[1] != width or len(target) == 0:
            raise InputError(
                f"objective {name!r}: target features {tuple(target.shape)}. (n, {width}) with n > 0 is needed."
            )
        if target.dtype != dtype:
            raise InputError(f"objective {name!r}: target features are {target.dtype}, the proxy's {dtype}. Use one.")
        return distance(target)

    return checked


def evaluate(
    name: str, target_features: "Tensor", proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any
) -> "Tensor":
    """Returns the distance (a scalar tensor) of one target class (n, D) to a labelled proxy.

    Differentiable in the target features. For many target batches against one proxy use ``prepare``.
    """
    return prepare(name, proxy_features, proxy_labels, **settings)(target_features)
