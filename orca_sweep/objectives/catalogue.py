"""The registered objectives. Their functions are imported when they are first called: names need no torch."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.objectives.records import Constants, Objective
from orca_sweep.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


def _import_late(module: str, name: str) -> Callable[..., Any]:
    """Returns a function that imports the named one when it is called."""

    def call_imported(*args: Any, **settings: Any) -> Any:
        return getattr(import_module(f"orca_sweep.objectives.{module}"), name)(*args, **settings)

    return call_imported


def _make_otdd(label_distance: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the functions ``constants`` and ``distance`` of an entropic OTDD."""

    def compute_constants(features: "Tensor", labels: "Tensor", **settings: Any) -> Mapping[str, "Tensor"]:
        from orca_sweep.objectives.otdd import Settings, compute_otdd_constants

        return compute_otdd_constants(features, labels, label_distance, Settings(**settings))  # type: ignore[arg-type]

    def compute_distance(constants: Constants, target: "Tensor", **settings: Any) -> "Tensor":
        from orca_sweep.objectives.otdd import Settings, otdd

        return otdd(constants, target, label_distance, Settings(**settings))  # type: ignore[arg-type]

    return compute_constants, compute_distance


def _return_no_constants(features: "Tensor", labels: "Tensor") -> Mapping[str, "Tensor"]:
    return {}


def _return_zero(constants: Constants, target: "Tensor") -> "Tensor":
    return (target * 0).sum()


OBJECTIVES: Registry[Objective] = Registry("objective")
_exact_constants, _exact_distance = _make_otdd("exact")
OBJECTIVES.add(
    Objective(
        name="otdd-exact",
        meaning=(
            "optimal transport dataset distance, label distances by debiased entropic OT; ORCA's default."
            " The proxy's labels change its value; they do not reach its gradient unless embedder.label_gradient is true"
        ),
        constants=_exact_constants,
        distance=_exact_distance,
        settings={"epsilon": 0.1, "extra_iterations": 0, "label_gradient": False},
        sees_proxy_labels=True,
    )
)
_gaussian_constants, _gaussian_distance = _make_otdd("gaussian")
OBJECTIVES.add(
    Objective(
        name="otdd-gaussian",
        meaning="optimal transport dataset distance, label distances by the Gaussian (Bures-Wasserstein) formula",
        constants=_gaussian_constants,
        distance=_gaussian_distance,
        settings={"epsilon": 0.1, "extra_iterations": 0, "label_gradient": True},
        sees_proxy_labels=True,
    )
)
OBJECTIVES.add(
    Objective(
        name="otdd-emd",
        meaning=(
            "optimal transport dataset distance without regularisation, by POT's network simplex: what otdd-exact"
            " converges to, several times slower"
        ),
        constants=_import_late("emd", "compute_emd_constants"),
        distance=_import_late("emd", "otdd_emd"),
        settings={"label_gradient": False},
        sees_proxy_labels=True,
    )
)
OBJECTIVES.add(
    Objective(
        name="mmd",
        meaning="squared maximum mean discrepancy under several Gaussian kernels; ignores proxy labels",
        constants=_import_late("mmd", "compute_mmd_constants"),
        distance=_import_late("mmd", "mmd"),
        settings={"n_bandwidths": 5, "bandwidth_factor": 2.0},
        sees_proxy_labels=False,
    )
)
OBJECTIVES.add(
    Objective(
        name="l2",
        meaning="squared distance of the two means; ignores proxy labels",
        constants=_import_late("moments", "compute_l2_constants"),
        distance=_import_late("moments", "l2"),
        sees_proxy_labels=False,
    )
)
OBJECTIVES.add(
    Objective(
        name="l2-paired",
        meaning=(
            "mean distance of random pairs, ORCA's l2; least where all targets lie on one point; ignores proxy labels"
        ),
        constants=_import_late("moments", "compute_l2_paired_constants"),
        distance=_import_late("moments", "l2_paired"),
        sees_proxy_labels=False,
    )
)
OBJECTIVES.add(
    Objective(
        name="moment",
        meaning=(
            "squared distances of means and of covariances (the latter in units of the proxy's variance); ignores"
            " proxy labels"
        ),
        constants=_import_late("moments", "compute_moment_constants"),
        distance=_import_late("moments", "moment"),
        sees_proxy_labels=False,
    )
)
OBJECTIVES.add(
    Objective(
        name="sliced-wasserstein",
        meaning="mean squared 2-Wasserstein distance along random directions; ignores proxy labels",
        constants=_import_late("sliced", "compute_sliced_constants"),
        distance=_import_late("sliced", "sliced_wasserstein"),
        settings={"n_projections": 128, "projection_seed": 0},
        sees_proxy_labels=False,
    )
)
OBJECTIVES.add(
    Objective(
        name="none",
        meaning="no alignment: zero, with zero gradient",
        constants=_return_no_constants,
        distance=_return_zero,
        sees_proxy_labels=False,
    )
)


def list_settings(name: str) -> Mapping[str, Any]:
    """Returns an objective's settings, with their defaults."""
    return OBJECTIVES.get(name).settings


def hash_source(name: str) -> str:
    """Returns a hash of the files that define a user's objective; empty for a built-in one.

    Results of a user's objective are stale as soon as its file changes. The store's schema version covers the built-in
    objectives.
    """
    objective = OBJECTIVES.get(name)
    functions = [_unwrap_function(f) for f in (objective.constants, objective.distance)]
    if all(f.__module__.startswith("orca_sweep.") for f in functions):
        return ""
    files = {inspect.getsourcefile(f) or "" for f in functions}
    texts = [Path(file).read_bytes() for file in sorted(files) if Path(file).is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _unwrap_function(function: Any) -> Any:
    """Returns the function behind partials; for a callable object, its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
