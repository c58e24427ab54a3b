"""What fine-tuning runs have in common: epochs that are done once and kept for the others."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orca_sweep.config.freezing import Phase, beginning
from orca_sweep.errors import DivergedError
from orca_sweep.store import Artifact, Store, Tensors, stage_key

PREFIX_STAGE = "finetune-prefix"


@dataclass(frozen=True)
class Prefixes:
    """The beginnings of a run that other runs have too: done once, and kept in the store for the others.

    Cost: a stored prefix is what a checkpoint is. Weights, best-validated weights and the optimizer's state make up
    to four times the weights with adam or adamw, three times with sgd.
    """

    store: Store
    inputs: Mapping[str, Any]
    """All that an epoch depends on but the freeze schedule."""
    epochs: frozenset[int] = frozenset()
    """After these epochs the state is stored, because another run goes on from there."""
    reused: Callable[[float], None] = lambda seconds: None
    """Told what the epochs that are taken over had cost."""


class Run(Protocol):
    """A fine-tuning run, as far as sharing is concerned."""

    epoch: int
    """Epochs done."""
    n_epochs: int
    schedule: tuple[Phase, ...]
    reused: dict[int, float]
    """Seconds that each epoch taken over had cost."""

    @property
    def is_inside_epoch(self) -> bool:
        """Whether steps of the next epoch are done, too."""

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Returns all that the next epoch and the end of the run depend on."""

    def restore(self, saved: Artifact) -> None:
        """Goes on from the state of this run or of one that begins alike."""


class Shared:
    """What a run has in common with others: it takes over what they have done and keeps what they will need."""

    def __init__(self, loop: Run, prefixes: Prefixes | None) -> None:
        self.loop, self.prefixes = loop, prefixes
        wanted = prefixes.epochs if prefixes else ()
        self.epochs = frozenset(epoch for epoch in wanted if epoch <= loop.n_epochs)
        self.start = stage_key(PREFIX_STAGE, prefixes.inputs) if prefixes else ""

    def key(self, epoch: int) -> str:
        """Names the state after an epoch by the phases up to it: runs that differ only later share it."""
        phases = [[*phase.work, phase.epochs] for phase in beginning(self.loop.schedule, epoch)]
        return stage_key(PREFIX_STAGE, {"start": self.start, "phases": phases})

    def begin(self) -> None:
        """Takes over the longest prefix of this run in the store, whichever sweep has put it there."""
        if self.prefixes is None:
            return
        if self.loop.reused:
            self.prefixes.reused(sum(self.loop.reused.values()))
        self._take_over(range(1, self.loop.n_epochs + 1), self.prefixes)
        # A run that died between its checkpoint and its prefix owes the others the prefix.
        self.keep()

    def _take_over(self, epochs: Iterable[int], prefixes: Prefixes) -> None:
        there = prefixes.store.list_keys(PREFIX_STAGE)
        for epoch in sorted(epochs, reverse=True) if there else ():
            if epoch <= self.loop.epoch:
                return
            key = self.key(epoch)
            artifact = prefixes.store.get(PREFIX_STAGE, key) if key in there else None
            if artifact is not None:
                self._go_on_from(artifact, prefixes)
                return

    def _go_on_from(self, artifact: Artifact, prefixes: Prefixes) -> None:
        loop, epochs = self.loop, artifact.meta["epochs"]
        taken = {row["epoch"]: row["wall_time_s"] for row in epochs[loop.epoch :]}
        prefixes.reused(sum(taken.values()))
        if "diverged" in artifact.meta:
            raise DivergedError(artifact.meta["diverged"], epochs)
        loop.restore(artifact)
        loop.reused |= taken

    def keep(self) -> None:
        """Stores the present state if others go on from it; that of a run resumed inside an epoch nobody can."""
        if self.prefixes is not None and self.loop.epoch in self.epochs and not self.loop.is_inside_epoch:
            key = self.key(self.loop.epoch)
            if not self.prefixes.store.has(PREFIX_STAGE, key):
                self.prefixes.store.put(PREFIX_STAGE, key, *self.loop.state())

    @contextlib.contextmanager
    def alone(self, end: int) -> Iterator[None]:
        """Lets no other run compute the prefix that ends there; what another made of it meanwhile is taken over.

        That a prefix diverges is stored too: every other run that has it diverges likewise.
        """
        if self.prefixes is None or end not in self.epochs or end <= self.loop.epoch:
            yield
            return
        key = self.key(end)
        with self.prefixes.store.lock(PREFIX_STAGE, key):
            self._take_over(self.epochs, self.prefixes)
            try:
                yield
            except DivergedError as error:
                self.prefixes.store.put(PREFIX_STAGE, key, {}, {"diverged": str(error), "epochs": error.epochs})
                raise
