"""What an objective is: its record and its error. Needs no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[str, "Tensor"]
"""What of a distance depends only on the proxy, as named tensors."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """An alignment distance.

    ``constants(proxy_features (M, D), proxy_labels (M,), **settings)`` returns named tensors;
    ``distance(constants, target_features (n, D), **settings)`` returns a scalar. ``settings`` holds the settings of
    both, with their defaults.
    """

    name: str
    meaning: str
    constants: Callable[..., Mapping[str, "Tensor"]]
    distance: Callable[..., "Tensor"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sees_proxy_labels: bool | None = None
    """Whether the proxy's labels change the distance; None: nobody says.

    If they do, they also reach the gradient, unless the objective has a setting ``label_gradient`` that is off: then they
    change the value alone, beyond what an unconverged transport leaves (``otdd``). A contract test measures this for every
    registered objective.
    """


class NonFiniteError(DataError):
    """Features hold NaN or infinity."""
