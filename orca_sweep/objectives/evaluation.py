"""Evaluates objectives by name, with checks of names, settings, features and results. Needs torch only when called."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import DataError, InputError
from orca_sweep.objectives.catalogue import OBJECTIVES
from orca_sweep.objectives.records import Constants, NonFiniteError, Objective
from orca_sweep.registry import hint

if TYPE_CHECKING:
    from torch import Tensor


def constants(name: str, proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> dict[str, "Tensor"]:
    """Returns what of a distance depends only on the proxy, as named tensors.

    Args:
        name: a registered objective.
        proxy_features: (M, D), M >= 2, without gradient; fixes dtype and device.
        proxy_labels: (M,) class of each proxy sample, whole numbers.
        settings: those in ``list_settings(name)``.

    Raises:
        InputError: on an unknown name or setting, or a setting out of range.
        DataError: on features that are not finite, not floating point, or not (M, D) with M >= 2.
    """
    objective, all_settings = _fill_settings(name, settings)
    if proxy_labels.shape != proxy_features.shape[:1]:
        raise DataError(
            f"objective {name!r}: proxy features {tuple(proxy_features.shape)} and labels"
            f" {tuple(proxy_labels.shape)}. (M, D) and (M,) are needed."
        )
    if len(proxy_labels) == 0:
        raise DataError(f"objective {name!r}: the proxy has 0 classes in 0 samples. Give it samples.")
    _check_features(name, "proxy", proxy_features.detach())
    return dict(objective.constants(proxy_features.detach(), proxy_labels.detach(), **all_settings))


def distance(name: str, constants: Constants, target_features: "Tensor", **settings: Any) -> "Tensor":
    """Returns the distance (a scalar) of one target class (n, D), n >= 2, to the proxy of ``constants``.

    Differentiable in the target features. The settings must be those of the constants.

    Raises:
        InputError: on an unknown name or setting.
        DataError: on fewer than two features, on features of another width or type than the proxy's, or (as its child
            ``NonFiniteError``) on features that are not finite.
    """
    objective, all_settings = _fill_settings(name, settings)
    _check_features(name, "target", target_features.detach())
    value = objective.distance(constants, target_features, **all_settings)
    _check_scalar(name, value, target_features.requires_grad)
    return value


def evaluate(
    name: str, target_features: "Tensor", proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any
) -> "Tensor":
    """Returns the distance (a scalar) of one target class (n, D) to a labelled proxy (M, D), (M,).

    Differentiable in the target features. For many targets and one proxy, call ``constants`` once and then
    ``distance``. Raises what both raise.
    """
    if target_features.ndim == 2 and proxy_features.ndim == 2:
        _check_equal("width", name, target_features.shape[1], proxy_features.shape[1])
    _check_equal("type", name, target_features.dtype, proxy_features.dtype)
    proxy_constants = constants(name, proxy_features, proxy_labels, **settings)
    return distance(name, proxy_constants, target_features, **settings)


def _check_scalar(name: str, value: Any, needs_gradient: bool) -> None:
    """Raises DataError unless an objective's value is a scalar tensor, with a gradient where one is needed."""
    shape = getattr(value, "shape", None)
    if shape is None or tuple(shape):
        what = type(value).__name__ if shape is None else f"a tensor {tuple(shape)}"
        raise DataError(
            f"objective {name!r}: distance returned {what}. It must return a scalar tensor: sum or average it."
        )
    if needs_gradient and not getattr(value, "requires_grad", False):
        raise DataError(
            f"objective {name!r}: distance returned a value without gradient. Compute it from the target features with"
            " torch alone."
        )


def _check_equal(what: str, name: str, target: Any, proxy: Any) -> None:
    """Raises DataError unless the target's width or type is the proxy's."""
    if target != proxy:
        raise DataError(f"objective {name!r}: the target features' {what} is {target}, the proxy's {proxy}. Use one.")


def _fill_settings(name: str, settings: Mapping[str, Any]) -> tuple[Objective, dict[str, Any]]:
    """Returns the objective and all its settings: those given, and defaults for the others."""
    objective = OBJECTIVES.get(name)
    for setting in settings:
        if setting not in objective.settings:
            known = hint(setting, objective.settings) if objective.settings else "It takes none."
            raise InputError(f"objective {name!r}: there is no setting {setting!r}. {known}")
    return objective, {**objective.settings, **settings}


def _check_features(name: str, whose: str, features: "Tensor") -> None:
    if features.ndim != 2 or features.shape[1] == 0 or len(features) < 2:
        raise DataError(
            f"objective {name!r}: {whose} features {tuple(features.shape)}. (samples, width) with at least 2 samples"
            " is needed."
        )
    if not features.dtype.is_floating_point:
        raise DataError(f"objective {name!r}: {whose} features are {features.dtype}. Floating point is needed.")
    if math.isfinite(float(features.sum())):
        return  # one pass; large finite numbers can also have a sum that is not finite
    finite = features.isfinite()
    if not bool(finite.all()):
        n = int((~finite).sum())
        raise NonFiniteError(
            f"objective {name!r}: {n} of {features.numel()} {whose} feature values are NaN or infinite"
            f" (in {int((~finite).any(dim=1).sum())} of {len(features)} samples)."
        )
