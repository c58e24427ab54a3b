"""Where a stage computes and stores its output, and how training reports its epochs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orca_sweep.store import Store

Progress = Callable[[Mapping[str, Any]], None]
"""Called once per epoch with the epoch's row."""


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
