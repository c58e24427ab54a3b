"""Prefixes: the first epochs of training, computed once and stored for every other run that begins alike."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orca_sweep.config.freezing import Phase, cut_phases
from orca_sweep.errors import DivergedError
from orca_sweep.store import Artifact, Store, stage_key
from orca_sweep.training.state import TrainState

PREFIX_STAGE = "finetune-prefix"


def find_longest_prefix(
    store: Store, stage: str, epochs: Iterable[int], key_of: Callable[[int], str]
) -> tuple[int, Artifact] | None:
    """Returns the latest of the given epochs whose state is stored, and that state; None if no state is stored.

    Args:
        store: holds the states.
        stage: the name of their stage.
        epochs: the epochs to look for.
        key_of: returns the key of the state after an epoch.

    Cost: one listing of the stage, and one read. A damaged state counts as missing.
    """
    keys = store.list_keys(stage)
    for epoch in sorted(epochs, reverse=True) if keys else ():
        key = key_of(epoch)
        artifact = store.get(stage, key) if key in keys else None
        if artifact is not None:
            return epoch, artifact
    return None


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """The beginnings that a run shares with other runs: computed once, and kept in the store for all of them.

    Cost: a stored prefix is as large as a checkpoint. Weights, best-validated weights and the optimizer's state make up
    to four times the weights with adam or adamw, three times with sgd.
    """

    store: Store
    inputs: Mapping[str, Any]
    """Everything that an epoch depends on, except the freeze schedule."""
    epochs: frozenset[int] = frozenset()
    """The state is stored after these epochs, because another run continues from there."""
    report_reused: Callable[[float], None] = lambda seconds: None
    """Called with the seconds that the epochs taken over had cost."""


class SharingRun(Protocol):
    """What sharing needs from a fine-tuning run."""

    state: TrainState
    phases: tuple[Phase, ...]
    reused_s: dict[int, float]
    """Seconds that each epoch taken over had cost."""

    @property
    def n_epochs(self) -> int:
        """Epochs of the whole run."""

    def restore_state(self, saved: Artifact) -> None:
        """Continues from a state of this run, or of a run that begins alike."""


class SharedPrefixes:
    """The prefixes that a run shares: takes over those that other runs have stored, and stores those that they need."""

    def __init__(self, run: SharingRun, prefixes: Prefixes) -> None:
        self.run, self.prefixes = run, prefixes
        self.epochs = frozenset(epoch for epoch in prefixes.epochs if epoch <= run.n_epochs)
        self.start = stage_key(PREFIX_STAGE, prefixes.inputs)

    def name_prefix(self, epoch: int) -> str:
        """Returns the key of the state after an epoch. Only phases up to it count: runs that differ later share the key."""
        phases = [[*phase.work, phase.epochs] for phase in cut_phases(self.run.phases, epoch)]
        return stage_key(PREFIX_STAGE, {"start": self.start, "phases": phases})

    def begin_run(self) -> None:
        """Takes over the longest stored prefix of this run, whichever sweep stored it."""
        if self.run.reused_s:
            self.prefixes.report_reused(sum(self.run.reused_s.values()))
        self._take_over(range(1, self.run.n_epochs + 1))
        # A run that died between its checkpoint and its prefix still owes the prefix to other runs.
        self.store_if_shared()

    def _take_over(self, epochs: Iterable[int]) -> None:
        later = [epoch for epoch in epochs if epoch > self.run.state.epoch]
        prefix = find_longest_prefix(self.prefixes.store, PREFIX_STAGE, later, self.name_prefix) if later else None
        if prefix is not None:
            self._continue_from(prefix[1])

    def _continue_from(self, artifact: Artifact) -> None:
        run, rows = self.run, artifact.meta["epochs"]
        taken = {row["epoch"]: row["wall_time_s"] for row in rows[run.state.epoch :]}
        self.prefixes.report_reused(sum(taken.values()))
        if "diverged" in artifact.meta:
            raise DivergedError(artifact.meta["diverged"], rows)
        run.restore_state(artifact)
        run.reused_s |= taken

    def store_if_shared(self) -> None:
        """Stores the current state if other runs continue from it, which they can only at the end of an epoch."""
        state, store = self.run.state, self.prefixes.store
        if state.epoch in self.epochs and not state.is_inside_epoch:
            key = self.name_prefix(state.epoch)
            if not store.has(PREFIX_STAGE, key):
                store.put(PREFIX_STAGE, key, *state.pack())

    @contextlib.contextmanager
    def compute_alone(self, end: int) -> Iterator[None]:
        """Keeps other runs from computing the prefix that ends at an epoch, after taking over what they have stored.

        A divergence is stored too, because every other run with this prefix diverges as well.
        """
        if end not in self.epochs or end <= self.run.state.epoch:
            yield
            return
        store, key = self.prefixes.store, self.name_prefix(end)
        with store.lock(PREFIX_STAGE, key):
            self._take_over(self.epochs)
            try:
                yield
            except DivergedError as error:
                store.put(PREFIX_STAGE, key, {}, {"diverged": str(error), "epochs": error.epochs})
                raise
