"""Alignment distances between embedded target data of one class and labelled proxy features.

Each is a pair of plain functions: ``constants`` does once what depends on the proxy alone, as named tensors
that can be stored; ``distance`` takes them and target features (n, D) and is differentiable in the latter.
Needs torch only when called.
"""

import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import Registry, hint

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Objective:
    """One alignment distance.

    ``constants(proxy_features (M, D), proxy_labels (M,), **settings)`` returns named tensors;
    ``distance(constants, target_features (n, D), **settings)`` returns a scalar. ``settings`` names what both
    take, with defaults.
    """

    name: str
    meaning: str
    constants: Callable[..., Mapping[str, "Tensor"]]
    distance: Callable[..., "Tensor"]
    settings: Mapping[str, Any] = field(default_factory=dict)


class NonFiniteError(DataError):
    """Features hold NaN or infinity."""


# The functions of the built-in objectives are imported when called: names are known without torch ------------


def _late(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **settings: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(f"orca_sweep.objectives.{module}"), name)(*args, **settings)

    return call


def _otdd(label_distance: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def constants(features: "Tensor", labels: "Tensor", **settings: Any) -> Mapping[str, "Tensor"]:
        from orca_sweep.objectives.otdd import Settings, otdd_constants

        return otdd_constants(features, labels, label_distance, Settings(**settings))  # type: ignore[arg-type]

    def distance(proxy: Constants, target: "Tensor", **settings: Any) -> "Tensor":
        from orca_sweep.objectives.otdd import Settings, otdd

        return otdd(proxy, target, label_distance, Settings(**settings))  # type: ignore[arg-type]

    return constants, distance


def _no_constants(features: "Tensor", labels: "Tensor") -> Mapping[str, "Tensor"]:
    return {}


def _nothing(constants: Constants, target: "Tensor") -> "Tensor":
    return (target * 0).sum()


OBJECTIVES: Registry[Objective] = Registry("objective")
OBJECTIVES.add(
    Objective(
        "otdd-exact",
        "optimal transport dataset distance, label distances by debiased entropic OT; ORCA's default."
        " The proxy's labels change its value but not its gradient",
        *_otdd("exact"),
        {"epsilon": 0.1, "extra_iterations": 0, "label_gradient": False},
    )
)
OBJECTIVES.add(
    Objective(
        "otdd-gaussian",
        "optimal transport dataset distance, label distances by the Gaussian (Bures-Wasserstein) formula",
        *_otdd("gaussian"),
        {"epsilon": 0.1, "extra_iterations": 0, "label_gradient": True},
    )
)
OBJECTIVES.add(
    Objective(
        "otdd-emd",
        "optimal transport dataset distance without regularisation, by POT's network simplex: what otdd-exact"
        " converges to, several times slower",
        _late("emd", "emd_constants"),
        _late("emd", "otdd_emd"),
        {"label_gradient": False},
    )
)
OBJECTIVES.add(
    Objective(
        "mmd",
        "squared maximum mean discrepancy under several Gaussian kernels; ignores proxy labels",
        _late("mmd", "mmd_constants"),
        _late("mmd", "mmd"),
        {"n_bandwidths": 5, "bandwidth_factor": 2.0},
    )
)
OBJECTIVES.add(
    Objective(
        "l2",
        "squared distance of the two means; ignores proxy labels",
        _late("moments", "l2_constants"),
        _late("moments", "l2"),
    )
)
OBJECTIVES.add(
    Objective(
        "l2-paired",
        "mean distance of random pairs, ORCA's l2; least where all targets lie on one point; ignores proxy labels",
        _late("moments", "l2_paired_constants"),
        _late("moments", "l2_paired"),
    )
)
OBJECTIVES.add(
    Objective(
        "moment",
        "squared distances of means and of covariances (the latter in units of the proxy's variance); ignores"
        " proxy labels",
        _late("moments", "moment_constants"),
        _late("moments", "moment"),
    )
)
OBJECTIVES.add(
    Objective(
        "sliced-wasserstein",
        "mean squared 2-Wasserstein distance along random directions; ignores proxy labels",
        _late("sliced", "sliced_constants"),
        _late("sliced", "sliced_wasserstein"),
        {"n_projections": 128, "projection_seed": 0},
    )
)
OBJECTIVES.add(Objective("none", "no alignment: zero, with zero gradient", _no_constants, _nothing))


def list_settings(name: str) -> Mapping[str, Any]:
    """Returns the settings an objective takes, with their defaults."""
    return OBJECTIVES.get(name).settings


def hash_source(name: str) -> str:
    """Returns a hash of the files that define a user's objective; empty for the built-in ones.

    What was computed with a user's objective is stale as soon as that file changes; the built-in ones are
    covered by the store's schema version.
    """
    objective = OBJECTIVES.get(name)
    plain = [_unwrapped(f) for f in (objective.constants, objective.distance)]
    if all(f.__module__.startswith("orca_sweep.") for f in plain):
        return ""
    files = {inspect.getsourcefile(f) or "" for f in plain}
    texts = [Path(file).read_bytes() for file in sorted(files) if Path(file).is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _unwrapped(function: Any) -> Any:
    """The function behind partials; the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function)


def constants(name: str, proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any) -> dict[str, "Tensor"]:
    """Returns what of a distance depends on the proxy alone, as named tensors.

    Args:
        name: a registered objective.
        proxy_features: (M, D), M >= 2, without gradient; fixes dtype and device.
        proxy_labels: (M,) class of each proxy sample, whole numbers.
        settings: what ``list_settings(name)`` lists.

    Raises:
        InputError: on an unknown name or setting, or a setting out of range.
        DataError: on features that are not finite, not floating point, or not (M, D) with M >= 2.
    """
    objective, whole = _with_defaults(name, settings)
    if proxy_labels.shape != proxy_features.shape[:1]:
        raise DataError(
            f"objective {name!r}: proxy features {tuple(proxy_features.shape)} and labels"
            f" {tuple(proxy_labels.shape)}. (M, D) and (M,) are needed."
        )
    if len(proxy_labels) == 0:
        raise DataError(f"objective {name!r}: the proxy has 0 classes in 0 samples. Give it samples.")
    _check(name, "proxy", proxy_features.detach())
    return dict(objective.constants(proxy_features.detach(), proxy_labels.detach(), **whole))


def distance(name: str, constants: Constants, target_features: "Tensor", **settings: Any) -> "Tensor":
    """Returns the distance (a scalar) of one target class (n, D), n >= 2, to a proxy of ``constants``.

    Differentiable in the target features. The settings must be those of the constants.

    Raises:
        InputError: on an unknown name or setting.
        DataError: on features of another width or type than the proxy's, fewer than two, or (as its child
            ``NonFiniteError``) not finite.
    """
    objective, whole = _with_defaults(name, settings)
    _check(name, "target", target_features.detach())
    value = objective.distance(constants, target_features, **whole)
    _check_scalar(name, value, target_features.requires_grad)
    return value


def _check_scalar(name: str, value: Any, needs_gradient: bool) -> None:
    """Raises DataError unless an objective's value is a scalar tensor, with a gradient where one is needed."""
    shape = getattr(value, "shape", None)
    if shape is None or tuple(shape):
        what = type(value).__name__ if shape is None else f"a tensor {tuple(shape)}"
        raise DataError(f"objective {name!r}: distance returned {what}. It returns a scalar tensor: sum or average it.")
    if needs_gradient and not getattr(value, "requires_grad", False):
        raise DataError(f"objective {name!r}: distance returned a value without gradient. Compute it from the target"
                        " features by torch alone.")  # fmt: skip


def evaluate(
    name: str, target_features: "Tensor", proxy_features: "Tensor", proxy_labels: "Tensor", **settings: Any
) -> "Tensor":
    """Returns the distance (a scalar) of one target class (n, D) to a labelled proxy (M, D), (M,).

    Differentiable in the target features. For many targets and one proxy take ``constants`` once, then
    ``distance``. Raises what both raise.
    """
    if target_features.ndim == 2 and proxy_features.ndim == 2:
        same("width", name, target_features.shape[1], proxy_features.shape[1])
    same("type", name, target_features.dtype, proxy_features.dtype)
    found = constants(name, proxy_features, proxy_labels, **settings)
    return distance(name, found, target_features, **settings)


def same(what: str, name: str, target: Any, proxy: Any) -> None:
    """Raises DataError unless the target's width or type is the proxy's."""
    if target != proxy:
        raise DataError(f"objective {name!r}: the target features' {what} is {target}, the proxy's {proxy}. Use one.")


def _with_defaults(name: str, settings: Mapping[str, Any]) -> tuple[Objective, dict[str, Any]]:
    objective = OBJECTIVES.get(name)
    for setting in settings:
        if setting not in objective.settings:
            known = hint(setting, objective.settings) if objective.settings else "It takes none."
            raise InputError(f"objective {name!r}: there is no setting {setting!r}. {known}")
    return objective, {**objective.settings, **settings}


def _check(name: str, whose: str, features: "Tensor") -> None:
    if features.ndim != 2 or features.shape[1] == 0 or len(features) < 2:
        raise DataError(
            f"objective {name!r}: {whose} features {tuple(features.shape)}. (samples, width) with at least 2 samples"
            " is needed."
        )
    if not features.dtype.is_floating_point:
        raise DataError(f"objective {name!r}: {whose} features are {features.dtype}. Floating point is needed.")
    if math.isfinite(float(features.sum())):
        return  # one pass; a sum that is not finite can also come of large numbers
    finite = features.isfinite()
    if not bool(finite.all()):
        n = int((~finite).sum())
        raise NonFiniteError(
            f"objective {name!r}: {n} of {features.numel()} {whose} feature values are NaN or infinite"
            f" (in {int((~finite).any(dim=1).sum())} of {len(features)} samples)."
        )
