"""Alignment distances between embedded target data of one class and labelled proxy features.

Each is a pair of plain functions. ``constants`` computes once what depends only on the proxy, as named tensors that can
be stored. ``distance`` takes them and target features (n, D), and is differentiable in the features. Torch is needed
only when one of them is called.
"""

from orca_sweep.objectives.catalogue import OBJECTIVES, hash_source, list_settings
from orca_sweep.objectives.evaluation import constants, distance, evaluate
from orca_sweep.objectives.records import Constants, NonFiniteError, Objective

__all__ = [
    "OBJECTIVES",
    "Constants",
    "NonFiniteError",
    "Objective",
    "constants",
    "distance",
    "evaluate",
    "hash_source",
    "list_settings",
]
