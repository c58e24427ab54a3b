"""Sweeps on Ray. Only this package and the benchmarks import ray."""

from orca_sweep.sweep.lanes import Member, Outcome, Setup, Watch
from orca_sweep.sweep.running import Rescue, launch, launch_members

__all__ = ["Member", "Outcome", "Rescue", "Setup", "Watch", "launch", "launch_members"]
