"""Stage 2: embedder training towards a proxy's features."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from orca_sweep import objectives
from orca_sweep.errors import DivergedError
from orca_sweep.store import stage_key, state_digest
from orca_sweep.training.alignment_inputs import AlignmentInputs
from orca_sweep.training.alignment_loss import AlignmentLoss
from orca_sweep.training.checkpoints import CheckpointPolicy
from orca_sweep.training.learning_rates import embedder_learning_rate
from orca_sweep.training.model import Embedder1D, Embedder2D
from orca_sweep.training.optimizers import build_optimizer, set_lr
from orca_sweep.training.prefixes import find_longest_prefix
from orca_sweep.training.state import TrainState
from orca_sweep.training.worker import Progress, Worker

EMBEDDER_STAGE = "embedder"
SAVE_EVERY_S = 20.0


@dataclass(frozen=True, kw_only=True)
class EmbedderTraining:
    """The outcome of embedder training: what was logged per epoch, and what it cost when computed."""

    epochs: tuple[Mapping[str, Any], ...]
    seconds: float
    seconds_now: float
    """Seconds that this call trained; the rest comes from the store."""
    constants_reused_s: float | None
    """Seconds that the objective's constants had cost, if they were needed and came from the store."""
    n_target_classes_skipped: int
    n_proxy_classes_skipped: int
    n_proxy: int
    """Proxy samples that the target is aligned to."""

    @property
    def reused_s(self) -> float:
        """Seconds of training that the store saved."""
        return max(0.0, self.seconds - self.seconds_now)


def train_embedder(
    embedder: Embedder1D | Embedder2D,
    inputs: AlignmentInputs,
    worker: Worker,
    *,
    snapshot_epochs: Iterable[int] = (),
    report: Progress = lambda row: None,
) -> EmbedderTraining:
    """Trains the embedder in place for ``embedder.epochs`` steps and returns its history.

    An epoch is ONE optimizer step: for each target class, up to ``max_samples_per_class`` training samples are embedded
    and averaged over tokens; the loss is the sum over classes of class frequency times the distance to the proxy
    features. Only training data is used. A class with one sample has no spread; it is skipped, as in the reference, and
    counted. Nothing depends on the total number of epochs, so runs of 60 and of 10 epochs share their first 10 bit for
    bit; the state is stored after every epoch in ``snapshot_epochs``, and training continues from the longest stored
    prefix.

    Raises:
        DataError: if no class has two samples, or the proxy's features are not finite.
        DivergedError: if the embedder's features or the objective stop being finite.

    Source: Shen et al. 2023, arXiv 2302.05738. Differs from ORCA's code in: it uses training data only, and draws exactly
    ``max_samples_per_class`` samples, seeded and without replacement.
    """
    settings = inputs.config.embedder
    run = _EmbedderRun(embedder, inputs, worker, frozenset(snapshot_epochs) | {settings.epochs})
    with worker.store.lock(EMBEDDER_STAGE, run.name_state(0)):
        run.resume_from_store()
        run.train_to_end(report)
    return EmbedderTraining(
        epochs=tuple(run.state.history),
        seconds=run.state.seconds,
        seconds_now=run.seconds_now,
        constants_reused_s=run.loss.proxy.reused_s,
        n_target_classes_skipped=run.loss.classes.n_skipped,
        n_proxy_classes_skipped=run.n_proxy_skipped,
        n_proxy=min(settings.proxy_samples, len(inputs.proxy.features)),
    )


class _EmbedderRun:
    """A run of embedder training: its state, its loss and the keys under which states are stored."""

    def __init__(
        self,
        embedder: Embedder1D | Embedder2D,
        inputs: AlignmentInputs,
        worker: Worker,
        snapshot_epochs: frozenset[int],
    ) -> None:
        self.embedder, self.settings, self.store = embedder.to(worker.device), inputs.config.embedder, worker.store
        self.loss = AlignmentLoss(embedder, inputs, worker)
        optimizer = build_optimizer(self.settings, embedder.parameters())
        self.state = TrainState(models={"embedder": embedder}, optimizer=optimizer)
        self.key_inputs = {**worker.key_part(), **_list_key_inputs(embedder, inputs)}
        self.policy = CheckpointPolicy(every_s=SAVE_EVERY_S, at_epochs=snapshot_epochs)
        self.seconds_now = 0.0
        self.n_proxy_skipped = 0

    def name_state(self, epoch: int) -> str:
        """Returns the key of the state after an epoch."""
        return stage_key(EMBEDDER_STAGE, {**self.key_inputs, "epoch": epoch})

    def resume_from_store(self) -> None:
        """Continues from the longest stored prefix of the run."""
        epochs = range(1, self.settings.epochs + 1)
        prefix = find_longest_prefix(self.store, EMBEDDER_STAGE, epochs, self.name_state)
        if prefix is not None:
            self.state.restore(prefix[1])
            self.n_proxy_skipped = prefix[1].meta["n_proxy_skipped"]

    def store_state(self) -> None:
        """Stores the state after the current epoch."""
        arrays, meta = self.state.pack(n_proxy_skipped=self.n_proxy_skipped, inputs=self.key_inputs)
        self.store.put(EMBEDDER_STAGE, self.name_state(self.state.epoch), arrays, meta)
        self.policy.note_saved(self.state.epoch)

    def train_to_end(self, report: Progress) -> None:
        """Takes the remaining steps, reports each, and stores the states that are due."""
        state = self.state
        if state.epoch >= self.settings.epochs:
            return
        self.embedder.train()
        self.policy.note_saved(state.epoch)
        loss = self._compute_loss()
        self.n_proxy_skipped = self.loss.proxy.count_skipped_classes()
        if not state.history:
            report(self._add_row(float(loss.detach())))
        while state.epoch < self.settings.epochs:
            start = time.perf_counter()
            lr = self._take_step(loss)
            # The next step's loss is this epoch's value: that of the current embedder on the next draw.
            loss = self._compute_loss()
            row = self._add_row(float(loss.detach()), lr, start)
            if self.policy.is_due(state.epoch):
                self.store_state()
            report(row)

    def _take_step(self, loss: Tensor) -> float:
        """Takes one optimizer step over all classes; returns its learning rate."""
        lr = embedder_learning_rate(self.settings, self.state.epoch)
        set_lr(self.state.optimizer, lr)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.state.optimizer.step()
        self.state.epoch += 1
        self.state.n_steps += 1
        return lr

    def _compute_loss(self) -> Tensor:
        try:
            return self.loss.compute_loss(self.state.epoch + 1)
        except objectives.NonFiniteError as error:
            raise self._make_divergence(f" at embedder epoch {self.state.epoch}: {error}") from None

    def _make_divergence(self, what: str) -> DivergedError:
        return DivergedError(f"embedder training diverged{what}", self.state.history)

    def _add_row(self, value: float, lr: float | None = None, start: float | None = None) -> dict[str, Any]:
        """Adds an epoch's row to the history; the first row, before any step, has no learning rate and no start."""
        state = self.state
        spent = 0.0 if start is None else time.perf_counter() - start
        state.seconds += spent
        self.seconds_now += spent
        if not math.isfinite(value):
            raise self._make_divergence(f": objective {value} at embedder epoch {state.epoch}")
        row = {"stage": EMBEDDER_STAGE, "epoch": state.epoch, "objective": value, "lr": lr, "wall_time_s": spent}
        row |= {"n_steps": int(lr is not None), "lr_integral": lr or 0.0}
        state.history.append(row)
        return row


def _list_key_inputs(embedder: Embedder1D | Embedder2D, inputs: AlignmentInputs) -> dict[str, Any]:
    """Everything that the state after an epoch depends on, except the epoch."""
    config = inputs.config
    seed, init_seed = config.seed_of("embedder-training"), config.seed_of("embedder-init")
    return {
        "data": inputs.data.fingerprint,
        "labels": state_digest({"labels": inputs.labels}),
        "proxy": inputs.proxy.key,
        "input_layer": inputs.body.hash_input_layer(),
        "seed": seed if seed == init_seed else [seed, init_seed],
        "embedder": config.embedder.model_dump(exclude={"epochs"}),
        "shapes": {name: list(value.shape) for name, value in embedder.state_dict().items()},
        "objective_source": objectives.hash_source(config.embedder.objective),
    }
