"""orca-sweep: ablation sweeps of cross-modal fine-tuning with ORCA on Ray Tune.

``Space``, ``Suite``, ``Plan``, ``Sweep``, and ``read_results`` are imported when they are first used, so that this import is
cheap.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orca_sweep.api.plans import Plan
    from orca_sweep.api.spaces import Space
    from orca_sweep.api.suites import Suite
    from orca_sweep.api.sweeps import Sweep
    from orca_sweep.errors import InputError, OrcaSweepError, RayLostError
    from orca_sweep.results import Results, read_results

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "OrcaSweepError",
    "Plan",
    "RayLostError",
    "Results",
    "Space",
    "Suite",
    "Sweep",
    "__version__",
    "read_results",
]
_HOMES = {
    "InputError": "orca_sweep.errors",
    "OrcaSweepError": "orca_sweep.errors",
    "Plan": "orca_sweep.api.plans",
    "RayLostError": "orca_sweep.errors",
    "Results": "orca_sweep.results",
    "Space": "orca_sweep.api.spaces",
    "Suite": "orca_sweep.api.suites",
    "Sweep": "orca_sweep.api.sweeps",
    "read_results": "orca_sweep.results",
}
"""The module of each name that is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orca_sweep' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
