"""Bundled data whose samples come in groups: what is alike stays in one split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca_sweep.data import Samples, Splits, split_groups
from orca_sweep.tasks.recipes import Shape, open_checked_npz


@dataclass(frozen=True, kw_only=True)
class GroupedData:
    """A task's samples before they are split."""

    x: np.ndarray
    """(N, C, L) or (N, C, H, W), float32."""
    y: np.ndarray
    groups: np.ndarray
    """(N,): samples of equal value stay in one split."""

    def split(self, n_val_groups: int, n_test_groups: int, seed: int) -> Splits:
        """Returns training, validation and test, which share no group."""
        return self.take(split_groups(self.groups, n_val_groups, n_test_groups, seed))

    def take(self, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Splits:
        """Returns the splits of three index arrays."""
        return Splits(*(Samples(self.x[part], self.y[part]) for part in parts))


def read_npz(path: Path, shapes: dict[str, Shape]) -> dict[str, np.ndarray]:
    """Returns the named arrays of an .npz file, whose shapes must agree."""
    stored = open_checked_npz(path, shapes)
    return {name: np.concatenate(list(stored[name].read_blocks())) for name in shapes}
