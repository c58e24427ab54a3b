"""Sweeps on Ray: the only package that imports ray."""

from orca_sweep.sweep.running import Outcome, Setup, Watch, launch, manifest, missing

__all__ = ["Outcome", "Setup", "Watch", "launch", "manifest", "missing"]
