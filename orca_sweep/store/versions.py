"""What an artifact depends on besides its inputs: library versions, schema and machine; and the key made of all of it."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from orca_sweep.config import canonical_json

STAGE_SCHEMA = 4
"""Raise it whenever the code of a stage changes what the stage computes."""
NUMERIC_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "scipy", "POT")


@cache
def numeric_versions() -> str:
    """Returns the versions of the libraries that change numbers, as one text."""
    return " ".join(f"{name}={version(name)}" for name in NUMERIC_PACKAGES)


def made_with(device: str, n_threads: int) -> dict[str, Any]:
    """Returns what two trials must share, besides their inputs, to use the same artifacts; cost rows are compared by it."""
    return {
        "device": device,
        "n_threads": n_threads,
        "versions": numeric_versions(),
        "schema": STAGE_SCHEMA,
        "machine": platform.machine(),
    }


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """Returns the hash that names a stage's output.

    It covers the inputs, the schema version of the stage code, the versions of the libraries that change numbers, and
    the processor architecture. Thread count and device belong into ``inputs``.
    """
    dependencies = {
        "stage": stage,
        "schema": STAGE_SCHEMA,
        "versions": dict(pair.split("=", 1) for pair in numeric_versions().split()),
        "machine": platform.machine(),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(canonical_json(dependencies).encode()).hexdigest()[:32]
