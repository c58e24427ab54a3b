"""What a trial's stages cost: seconds, GPU-seconds and peak memory, measured in the trial's process."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
MIB = 2**20


class Meter:
    """Measures a trial stage by stage; a stage that fails is measured up to its failure.

    Attributes:
        seconds: the seconds of each stage that has begun.
        stages: rows of the stages table.
    """

    def __init__(self, n_gpus: float, began: Callable[[str], None] = lambda name: None) -> None:
        """Starts measuring and resets the peaks, so that earlier work of the process does not count.

        Args:
            n_gpus: GPUs that the trial holds.
            began: called with the name of each stage when it begins.
        """
        self.n_gpus, self.began = n_gpus, began
        self.seconds: dict[str, float] = {}
        self.stages: list[dict[str, Any]] = []
        self.start = time.perf_counter()
        self.knows_memory = _reset_peaks()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """Measures a block as a stage. The block may append a row per phase; otherwise the stage is a single phase.

        Seconds outside all phases are added to the first phase.
        """
        phases: list[dict[str, Any]] = []
        self.began(name)
        start = time.perf_counter()
        try:
            yield phases
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = spent
            rows = phases or [{}]
            rest = spent - sum(row.get("wall_time_s", 0.0) for row in rows)
            rows[0]["wall_time_s"] = max(0.0, rows[0].get("wall_time_s", 0.0) + rest)
            for phase, row in enumerate(rows, 1):
                self.stages.append({"stage": name, "phase": phase, "reused_s": 0.0, **row, **self._list_resources(row)})

    def _list_resources(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"gpu_s": row["wall_time_s"] * self.n_gpus, **self.read_peaks()}

    def read_peaks(self) -> dict[str, float | None]:
        """Returns the peak memory of the process and of the GPU so far; None where the system does not report it."""
        return {
            "peak_memory_mib": peak_mib() if self.knows_memory else None,
            "peak_gpu_memory_mib": _peak_gpu_mib(),
        }

    def row(self) -> dict[str, Any]:
        """Returns the cost columns of the whole trial so far."""
        wall_time_s = time.perf_counter() - self.start
        return {
            **{f"{name}_s": seconds for name, seconds in self.seconds.items()},
            **{f"{name}_gpu_s": seconds * self.n_gpus for name, seconds in self.seconds.items()},
            "wall_time_s": wall_time_s,
            "gpu_s": wall_time_s * self.n_gpus,
            "n_gpus": self.n_gpus,
            **self.read_peaks(),
        }


def _reset_peaks() -> bool:
    """Resets the peaks; returns whether the system can reset that of the process. Source: proc(5), clear_refs, VmHWM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with CLEAR.open("w") as file:
            file.write("5")
        return peak_mib() is not None
    except OSError:
        return False


def peak_mib() -> float | None:
    """Returns the peak memory of this process since its last reset; None where Linux does not report it."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _peak_gpu_mib() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / MIB
