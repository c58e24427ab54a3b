"""Benchmarks: this package against the naive way of the same work, in one process and one run.

Each case runs in its own process, on one thread, so that its memory peak is its own too.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from orca_sweep.training.meter import peak_mib

FAST_REPEATS = 9
"""How often the fast side runs."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of one case: median seconds of both sides, and the memory of ours."""

    case: str
    ours_s: float
    """CPU seconds, including worker processes; wall-clock seconds where the case says so."""
    other_s: float
    """The same, for the naive side."""
    peak_memory_mib: float
    """Peak of the whole process, with imports and preparation, before the naive side runs."""
    ours_wall_s: float
    other_wall_s: float
    difference: float = 0.0
    """Largest relative difference (norm) of our value and gradient from the naive ones in double precision."""
    n_samples: int = 0
    """Samples that one run loads or trains on, where that is measured; divide by the wall-clock seconds."""
    peak_share: float | None = None
    """For training on a GPU: the share reached of the card's bfloat16 peak."""

    @property
    def ratio(self) -> float:
        """How many times as long the naive side takes: bigger is better."""
        return self.other_s / self.ours_s

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields and the ratio, for JSON."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, kw_only=True)
class Times:
    """The time that a call takes."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two ways to the same tensors, and the naive way in double precision."""

    name: str
    fast: Callable[[], tuple[Any, ...]]
    naive: Callable[[], tuple[Any, ...]]
    check: Callable[[], tuple[Any, ...]]
    n_samples: int = 0


WHOLE = {"overhead": "overhead", "collect": "collecting", "sweep": "sharing", "report": "reporting"}
"""Benchmarks whose cases share one process, and their modules."""


def run_benchmark(benchmark: str, repeats: int = 3) -> Iterator[Measurement]:
    """Yields the measurement of each case of a benchmark.

    Args:
        benchmark: ``objectives``, ``loading``, ``training``, ``sweep``, ``overhead``, ``collect`` or ``report``.
        repeats: how often the naive side runs.
    """
    if benchmark in WHOLE:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.submit(_measure_module, WHOLE[benchmark], repeats).result()
        return
    module = import_module(f"orca_sweep.bench.{benchmark}")
    measure = module.measure_training if benchmark == "training" else measure_case
    for case in module.CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool.submit(measure, case, repeats).result()


def _measure_module(module: str, repeats: int) -> list[Measurement]:
    return list(import_module(f"orca_sweep.bench.{module}").measure_all(repeats))


def measure_case(make_case: Callable[[], Case], repeats: int) -> Measurement:
    """Prepares a case and measures both of its sides in this process."""
    import torch

    torch.set_num_threads(1)
    case = make_case()
    result = case.fast()  # also warms up
    fast = take_median(time_call(case.fast) for _ in range(FAST_REPEATS))
    peak = peak_memory_mib()
    naive = take_median(time_call(case.naive) for _ in range(max(1, repeats)))
    pairs = zip(result, case.check(), strict=True)
    return Measurement(
        case=case.name,
        ours_s=fast.cpu_s,
        other_s=naive.cpu_s,
        peak_memory_mib=peak,
        ours_wall_s=fast.wall_s,
        other_wall_s=naive.wall_s,
        difference=max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs),
        n_samples=case.n_samples,
    )


def time_call(call: Callable[[], Any]) -> Times:
    """Returns the time that a call takes."""
    cpu, wall = _read_cpu_s(), time.perf_counter()
    call()
    return Times(cpu_s=_read_cpu_s() - cpu, wall_s=time.perf_counter() - wall)


def take_median(times: Iterable[Times]) -> Times:
    """Returns the medians of the CPU and of the wall-clock seconds."""
    every = list(times)
    cpu_s, wall_s = (statistics.median(values) for values in zip(*((t.cpu_s, t.wall_s) for t in every), strict=True))
    return Times(cpu_s=cpu_s, wall_s=wall_s)


def _read_cpu_s() -> float:
    """Returns the CPU seconds of this process, to the microsecond, and of its children that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def peak_memory_mib() -> float:
    """Returns the most memory that this process has held so far, in MiB."""
    measured = peak_mib()
    if measured is not None:
        return measured
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
