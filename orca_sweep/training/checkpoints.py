"""When training saves its state, and the checkpoint file of a fine-tuning run."""

import math
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.store import Artifact, CorruptFileError, read_tensors, write_tensors
from orca_sweep.training.state import TrainState


class CheckpointPolicy:
    """Decides when a state is due to be saved: at an interval of epochs or seconds, or after certain epochs.

    Attributes:
        saved_epoch: epochs done in the last saved state; None if the run has taken over another run's state since.
    """

    def __init__(
        self,
        *,
        every_s: float,
        every_epochs: float = math.inf,
        at_epochs: Set[int] = frozenset(),
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every_s, self.every_epochs, self.at_epochs, self.read_clock = every_s, every_epochs, at_epochs, read_clock
        self.saved_epoch: int | None = 0
        self.saved_at = read_clock()

    def is_due(self, epoch: int, *, is_inside_epoch: bool = False) -> bool:
        """Returns whether to save now; inside an epoch, only the seconds count.

        Args:
            epoch: epochs done.
            is_inside_epoch: whether some steps of the next epoch are done.
        """
        if self.read_clock() - self.saved_at >= self.every_s:
            return True
        if is_inside_epoch:
            return False
        n_unsaved = math.inf if self.saved_epoch is None else epoch - self.saved_epoch
        return epoch in self.at_epochs or n_unsaved >= self.every_epochs

    def note_saved(self, epoch: int) -> None:
        """Restarts the count of epochs and seconds."""
        self.saved_epoch, self.saved_at = epoch, self.read_clock()

    def note_taken_over(self) -> None:
        """Makes a save due at the end of the next epoch: the last saved state lacks what was taken over."""
        self.saved_epoch = None


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where a run's state is saved, and how often: at an interval of epochs or seconds, whichever ends first."""

    path: Path
    identity: str
    """Hash of everything the run depends on: only a run with the same identity continues from the file."""
    every_epochs: int = 1
    every_s: float = 600.0
    saved: Callable[[], None] = lambda: None
    """Called when a state has been written."""


class CheckpointFile:
    """The file with a run's latest state: safetensors with JSON in the header. Each state replaces the previous one."""

    def __init__(self, saving: Saving) -> None:
        self.path, self.identity, self.saved = str(saving.path), saving.identity, saving.saved
        self.policy = CheckpointPolicy(every_s=saving.every_s, every_epochs=saving.every_epochs)

    def write_state(self, state: TrainState, **extra: Any) -> None:
        """Writes the state and further JSON values."""
        write_tensors(self.path, *state.pack(identity=self.identity, **extra))
        self.saved()
        self.policy.note_saved(state.epoch)

    def read_own(self) -> Artifact | None:
        """Returns the saved state; None if it is missing, is damaged or belongs to another run."""
        try:
            saved = read_tensors(self.path)
        except (FileNotFoundError, CorruptFileError):
            return None
        return saved if saved.meta.get("identity") == self.identity else None
