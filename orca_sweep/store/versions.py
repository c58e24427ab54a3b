"""The dependencies of an artifact besides its inputs (library versions, schema, machine), and the key made from all."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from orca_sweep.config import canonical_json

STAGE_SCHEMA = 5
"""Raise it whenever a stage computes something else, or stores it in another layout."""
NUMERIC_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "scipy", "POT")


@cache
def numeric_versions() -> str:
    """Returns the versions of the libraries that affect numbers, as one text."""
    return " ".join(f"{name}={version(name)}" for name in NUMERIC_PACKAGES)


def made_with(device: str, n_threads: int) -> dict[str, Any]:
    """Returns what two trials must share, besides their inputs, to use the same artifacts or to compare their costs."""
    return {
        "device": device,
        "n_threads": n_threads,
        "versions": numeric_versions(),
        "schema": STAGE_SCHEMA,
        "machine": platform.machine(),
    }


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """Returns the hash that names a stage's output.

    It covers the inputs, the schema version of the stage code, the versions of the libraries that affect numbers, and the
    processor architecture. ``inputs`` must contain the number of threads and the device.
    """
    dependencies = {
        "stage": stage,
        "schema": STAGE_SCHEMA,
        "versions": dict(pair.split("=", 1) for pair in numeric_versions().split()),
        "machine": platform.machine(),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(canonical_json(dependencies).encode()).hexdigest()[:32]
