"""Benchmarks: ours beside the naive way of doing the same, in one process and one run.

A case is measured in a process of its own, on one thread, so that its peak of memory is its own too.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from orca_sweep.training.meter import peak_mib

OURS_REPEATS = 9


@dataclass(frozen=True)
class Measurement:
    """One case: median seconds of both sides, and what ours took of memory."""

    case: str
    ours_s: float
    """CPU seconds, those of worker processes included; by the clock where the case says so."""
    other_s: float
    ratio: float
    """other_s / ours_s: bigger is better."""
    peak_memory_mib: float
    """Of the whole process, imports and preparation included, before the other side has run."""
    ours_wall_s: float
    other_wall_s: float
    difference: float
    """Largest relative difference (norm) of our value and gradient from the naive ones in double precision."""
    n_samples: int = 0
    """Samples that one turn loads or trains on, where that is what is measured; divide by the wall seconds."""
    peak_share: float | None = None
    """Of training on a GPU: share of the card's bfloat16 operations a second."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields, for JSON."""
        return asdict(self)


def run(benchmark: str, repeats: int = 3) -> Iterator[Measurement]:
    """Yields the measurements of a benchmark's cases, one after the other.

    Args:
        benchmark: ``objectives``, ``loading``, ``training``, ``sweep``, ``overhead`` or ``collect``.
        repeats: how often the slow side runs.
    """
    if benchmark in WHOLE:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.submit(_all_of, WHOLE[benchmark], repeats).result()
        return
    module = import_module(f"orca_sweep.bench.{benchmark}")
    measured = module.measured if benchmark == "training" else measure
    for case in module.CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool.submit(measured, case, repeats).result()


WHOLE = {"overhead": "overhead", "collect": "collecting", "sweep": "sharing"}
"""Benchmarks whose cases share a process, and their modules."""


def _all_of(module: str, repeats: int) -> list[Measurement]:
    return list(import_module(f"orca_sweep.bench.{module}").measurements(repeats))


def measure(case: Callable[[], "Case"], repeats: int) -> Measurement:
    """Prepares a case and measures both of its sides in this process."""
    import torch

    torch.set_num_threads(1)
    made = case()
    ours_result = made.ours()  # also warms up
    ours = [timed(made.ours) for _ in range(OURS_REPEATS)]
    peak = peak_memory_mib()
    other = [timed(made.other) for _ in range(max(1, repeats))]
    cpu, wall = (statistics.median(times) for times in zip(*ours, strict=True))
    other_cpu, other_wall = (statistics.median(times) for times in zip(*other, strict=True))
    pairs = zip(ours_result, made.check(), strict=True)
    difference = max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs)
    return Measurement(made.name, cpu, other_cpu, other_cpu / cpu, peak, wall, other_wall, difference, made.n_samples)


@dataclass(frozen=True)
class Case:
    """Two ways to the same tensors, and the second in double precision."""

    name: str
    ours: Callable[[], tuple[Any, ...]]
    other: Callable[[], tuple[Any, ...]]
    check: Callable[[], tuple[Any, ...]]
    n_samples: int = 0


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Returns the CPU seconds and the seconds by the clock that a call takes."""
    cpu, wall = _cpu_s(), time.perf_counter()
    call()
    return _cpu_s() - cpu, time.perf_counter() - wall


def _cpu_s() -> float:
    """CPU seconds of this process, to the microsecond, and of its children that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def peak_memory_mib() -> float:
    """Returns the most memory this process has held so far, in MiB."""
    told = peak_mib()
    if told is not None:
        return told
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
