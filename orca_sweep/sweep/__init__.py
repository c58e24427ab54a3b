"""Sweeps on Ray. Only this package and the benchmarks import ray."""

from orca_sweep.sweep.members import Member, launch_members
from orca_sweep.sweep.queue import Watch
from orca_sweep.sweep.running import Outcome, Setup, launch

__all__ = ["Member", "Outcome", "Setup", "Watch", "launch", "launch_members"]
