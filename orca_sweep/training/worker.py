"""Where a stage computes and stores its output, and how training reports its epochs."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orca_sweep.store import Store

Progress = Callable[[Mapping[str, Any]], None]
"""Called once per epoch with the epoch's row."""


@cache
def name_processor(device: str) -> str | None:
    """Returns the model of a GPU, or of this machine's processor; None if the system does not say."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or None
    models = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(models, "").split()) or None


@dataclass(frozen=True)
class Worker:
    """The store, device and threads of a stage. Device and threads can change the last bits, so they are part of keys."""

    store: Store
    device: str = "cpu"
    n_threads: int = 1
    n_gpus: float = 0.0
    """GPUs that the worker holds; may be a fraction."""

    def key_part(self) -> dict[str, Any]:
        """Returns the part of every stage's key that depends on the worker."""
        return {"device": self.device.split(":")[0], "n_threads": self.n_threads}
