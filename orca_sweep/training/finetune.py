"""Stage 3: fine-tuning with a freeze schedule, validation in every epoch, checkpoints at any step, and shared prefixes."""

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies.network import body_layers, to_arrays
from orca_sweep.config.freezing import Phase, epochs_before_fresh_start, parse_schedule, phase_at
from orca_sweep.errors import DivergedError, InputError, TimeLimitError
from orca_sweep.stats.modes import is_better, worst_value
from orca_sweep.store import Artifact
from orca_sweep.streams import stream_seed, torch_stream
from orca_sweep.tasks import TaskData
from orca_sweep.tasks.measures import METRICS
from orca_sweep.training.checkpoints import CheckpointFile, Saving
from orca_sweep.training.compute_settings import apply_compute_settings
from orca_sweep.training.feature_cache import FeatureCache, Features
from orca_sweep.training.feed import TrainingFeed
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.freezing import freeze_weights
from orca_sweep.training.learning_rates import phase_learning_rate
from orca_sweep.training.model import OrcaModel
from orca_sweep.training.optimizer_steps import Stepper
from orca_sweep.training.optimizers import build_optimizer, clear_optimizer, start_momentum
from orca_sweep.training.predict import average_parts, predict_batches, predict_wholes
from orca_sweep.training.prefetch import prefetch
from orca_sweep.training.prefixes import Prefixes, SharedPrefixes
from orca_sweep.training.stage_rows import list_phase_rows
from orca_sweep.training.state import BestEpoch, EpochPart, TrainState
from orca_sweep.training.worker import Progress

STAGE = "finetune"


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """The history, and the weights of the best-validated and the last epoch."""

    epochs: list[dict[str, Any]]
    best: dict[str, np.ndarray]
    last: dict[str, np.ndarray]
    best_epoch: int
    val_metric_best: float
    val_metric_last: float
    n_steps: int
    resumed_from_epoch: int
    """The epoch of the run's own checkpoint; a prefix may have taken it further."""
    phases: list[dict[str, Any]]
    """Rows of the stages table: the totals of each phase of the freeze schedule."""
    precision: str
    micro_batch_size: int
    """Samples per forward pass at the end: ``batch_size``, or half of it if memory ran out."""


def finetune(
    model: nn.Module,
    data: TaskData,
    setup: FinetuneSetup,
    *,
    saving: Saving | None = None,
    prefixes: Prefixes | None = None,
    report: Progress = lambda row: None,
) -> FinetuneResult:
    """Fine-tunes the model in place and returns its history, with the best-validated and the last weights.

    With ``saving``, the state is saved at intervals, even inside epochs; a later call with the same identity continues
    from it and ends, on the same CPU and thread count, with the same bits as an uninterrupted run. Selection sees only
    the validation split.

    With ``prefixes``, the run takes over a stored prefix that is longer than its own checkpoint, with the same bits. Of
    the runs that share a prefix, the first computes it while the rest wait; if it fails, the next one continues. A run
    holds one lock at a time, from the shortest prefix to the longest, so no two runs wait for each other.

    A step that runs out of memory is repeated with half the samples per forward pass and twice as many passes: the same
    step except for rounding (and for dropout, whose masks are drawn per pass). If memory runs out again, that is an error.

    Raises:
        DivergedError: if a training loss or a validation metric is not finite, in this run or in another run's
            computation of a shared prefix.
    """
    loop = _Loop(model.to(setup.device), data, setup, saving)
    with apply_compute_settings(model, setup.config):
        loop.resume_from_checkpoint()
        if prefixes is None:
            loop.run_to(loop.n_epochs, report)
        else:
            _run_sharing(loop, prefixes, report)
    return loop.summarise_run()


def _run_sharing(loop: "_Loop", prefixes: Prefixes, report: Progress) -> None:
    shared = SharedPrefixes(loop, prefixes)

    def store_and_report(row: Mapping[str, Any]) -> None:
        shared.store_if_shared()
        report(row)

    shared.begin_run()
    for end in sorted({*shared.epochs, loop.n_epochs}):
        with shared.compute_alone(end):
            loop.run_to(end, store_and_report)


class _Loop:
    """A fine-tuning run: its state, and the parts that feed, step, validate and save it."""

    def __init__(self, model: nn.Module, data: TaskData, setup: FinetuneSetup, saving: Saving | None) -> None:
        self.model, self.data, self.setup = model, data, setup
        self.phases = _read_phases(model, setup)
        self.feed = TrainingFeed(
            data.train, setup.seed_of, setup.device, step_size=setup.step_size, augments=setup.augments
        )
        optimizer = build_optimizer(setup.config, model.parameters())
        self.state = TrainState(models={"model": model}, optimizer=optimizer)
        self.stepper = Stepper(model, self.state, data.loss, setup)
        self.cache = None
        if isinstance(model, OrcaModel) and not setup.augments:
            self.cache = FeatureCache(model, self.feed.x, data.val.x, setup.inference)
        self.checkpoint = None if saving is None else CheckpointFile(saving)
        self.resumed_from_epoch = 0
        self.reused_s: dict[int, float] = {}
        self.spent_s: dict[int, float] = {}
        """Seconds of each epoch computed now, including saving."""

    @property
    def n_epochs(self) -> int:
        """Epochs of the whole run."""
        return self.setup.config.epochs

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last step may have fewer samples."""
        return math.ceil(self.data.train.n_wholes / self.setup.step_size)

    def run_to(self, end: int, report: Progress) -> None:
        """Runs, saves and reports epochs until ``end`` epochs are done."""
        while self.state.epoch < end:
            start = time.perf_counter()
            self.run_epoch()
            self.save_if_due()
            try:
                report(self.state.history[-1])
            except TimeLimitError:  # the next attempt continues from here, however rarely states are saved
                self.save_state()
                raise
            self.spent_s[self.state.epoch] = time.perf_counter() - start

    def run_epoch(self) -> None:
        """Trains and validates an epoch, or the rest of it."""
        start, epoch = time.perf_counter(), self.state.epoch + 1
        n_trainable, part = self._begin_epoch(epoch)
        seconds_before = part.seconds
        self._train_epoch(epoch, part, start - seconds_before)
        train_loss = float(part.loss_sum) / self.data.train.n_wholes
        if not math.isfinite(train_loss):
            raise self._make_divergence(f"training loss {train_loss} in epoch {epoch}")
        val_loss, val_metric = self._validate_epoch()
        if not math.isfinite(val_metric):
            raise self._make_divergence(f"validation metric {val_metric} in epoch {epoch}")
        row = {"stage": STAGE, "epoch": epoch, "train_loss": train_loss}
        row |= {"val_loss": val_loss if math.isfinite(val_loss) else None, "val_metric": val_metric}
        row |= {"lr": part.lr, "lr_integral": part.lr_integral, "n_steps": part.step, "n_trainable": n_trainable}
        self._end_epoch({**row, "wall_time_s": time.perf_counter() - start + seconds_before})

    def _begin_epoch(self, epoch: int) -> tuple[int, EpochPart]:
        """Applies the epoch's phase; returns the number of trainable parameters and the steps of the epoch done so far."""
        n_trainable = freeze_weights(self.model, phase_at(self.phases, epoch).frozen)
        state = self.state
        if state.part is None:
            state.part = EpochPart(loss_sum=torch.zeros((), device=self.setup.device))
        if state.part.step == 0 and epochs_before_fresh_start(self.phases, epoch) == state.epoch > 0:
            clear_optimizer(state.optimizer)
        start_momentum(state.optimizer)
        if self.cache is not None:
            self.cache.update_features()
        return n_trainable, state.part

    def _end_epoch(self, row: dict[str, Any]) -> None:
        state, mode = self.state, self.data.task.mode
        state.epoch, state.part = row["epoch"], None
        state.seconds += row["wall_time_s"]
        best_metric = worst_value(mode) if state.best is None else state.best.val_metric
        if is_better(row["val_metric"], best_metric, mode):
            weights = _copy_weights(self.model)
            state.best = BestEpoch(epoch=row["epoch"], val_metric=row["val_metric"], weights=weights)
        state.history.append(row)

    def _make_divergence(self, what: str) -> DivergedError:
        return DivergedError(f"fine-tuning diverged: {what}", self.state.history)

    # Training -----------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, part: EpochPart, began: float) -> None:
        """Continues the epoch's pass over the training samples after the steps that are done."""
        dropout_seed = self.setup.seed_of("dropout")
        with torch_stream(dropout_seed, "dropout", epoch):
            batches = self.feed.draw_batches(epoch)
            with contextlib.closing(self._read_batches(epoch, batches, part.step)) as read:
                for samples in read:
                    rate = {"epoch": epoch, "step": part.step, "steps_per_epoch": self.steps_per_epoch}
                    part.lr = phase_learning_rate(self.setup.config, self.phases, **rate)
                    # A step's masks depend only on its position: a resumed epoch draws the same as an uninterrupted one.
                    seed = stream_seed(dropout_seed, "dropout", epoch, part.step)
                    mean = self.stepper.take_step(self._predict_batch, samples, lr=part.lr, dropout_seed=seed)
                    part.loss_sum += mean * len(batches[part.step])
                    part.lr_integral += part.lr
                    part.step += 1
                    self.state.n_steps += 1
                    part.seconds = time.perf_counter() - began
                    if part.step < len(batches):
                        self.save_if_due()

    @property
    def _cached_features(self) -> Features | None:
        return None if self.cache is None else self.cache.features

    def _predict_batch(self, x: Tensor) -> Tensor:
        """Returns predictions from inputs, or from features if those are cached."""
        if self.cache is not None and self.cache.features is not None:
            return self.cache.model.from_features(x)
        predictions: Tensor = self.model(x)
        return predictions

    def _read_batches(
        self, epoch: int, batches: Sequence[Tensor], first: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields inputs (or features) and targets for each step from ``first``; samples on disk are read ahead."""
        features = self._cached_features

        def read_step(step: int) -> tuple[Tensor, Tensor]:
            if features is None:
                return self.feed.read_batch(batches[step], epoch, step)
            return features.train[batches[step].to(self.setup.device)], self.feed.y[batches[step]]

        steps = range(first, len(batches))
        if features is not None or self.feed.is_resident:
            yield from map(read_step, steps)
        else:
            yield from prefetch(read_step, steps)

    # Validation ---------------------------------------------------------------------------------

    def _validate_epoch(self) -> tuple[float, float]:
        """Returns the loss and the metric on the validation split; NaN if a prediction is not finite."""
        if self._cached_features is None:
            prediction, target = predict_wholes(self.model, self.data.val, self.setup.inference)
        else:
            prediction, target = average_parts(self._predict_from(self._cached_features.val), self.data.val)
        if not np.isfinite(prediction).all():
            return math.nan, math.nan
        loss = float(self.data.loss(torch.from_numpy(prediction), torch.from_numpy(target)))
        return loss, METRICS.get(self.data.task.metric).compute(prediction, target)

    @torch.inference_mode()
    def _predict_from(self, features: Tensor) -> np.ndarray:
        self.model.eval()
        inference = self.setup.inference
        return predict_batches(self._predict_batch, features.__getitem__, features.shape, inference).cpu().numpy()

    # State --------------------------------------------------------------------------------------

    def restore_state(self, saved: Artifact) -> None:
        """Continues from a state of this run, or of a run that begins alike."""
        self.state.restore(saved)
        if self.cache is not None:
            self.cache.drop_features()
        if self.checkpoint is not None:
            self.checkpoint.policy.note_taken_over()

    def resume_from_checkpoint(self) -> None:
        """Continues from this run's checkpoint; another run's file at its path is ignored and later overwritten."""
        saved = None if self.checkpoint is None else self.checkpoint.read_own()
        if saved is None or self.checkpoint is None:
            return
        self.restore_state(saved)
        self.checkpoint.policy.note_saved(self.state.epoch)
        self.resumed_from_epoch = self.state.epoch
        self.reused_s = {int(epoch): float(seconds) for epoch, seconds in saved.meta["reused"]}

    def save_if_due(self) -> None:
        """Saves the state if it is due."""
        state = self.state
        if self.checkpoint is not None and self.checkpoint.policy.is_due(
            state.epoch, is_inside_epoch=state.is_inside_epoch
        ):
            self.save_state()

    def save_state(self) -> None:
        """Saves the state, replacing the previous one."""
        if self.checkpoint is not None:
            self.checkpoint.write_state(self.state, reused=list(self.reused_s.items()))

    def summarise_run(self) -> FinetuneResult:
        """Returns the outcome of the run after its last epoch."""
        state = self.state
        if state.best is None:
            raise ValueError("no epoch is done")
        return FinetuneResult(
            epochs=state.history,
            best=state.best.weights,
            last=_copy_weights(self.model),
            best_epoch=state.best.epoch,
            val_metric_best=state.best.val_metric,
            val_metric_last=state.history[-1]["val_metric"],
            n_steps=state.n_steps,
            resumed_from_epoch=self.resumed_from_epoch,
            phases=list_phase_rows(self.phases, state.history, self.reused_s, self.spent_s),
            precision=self.setup.precision,
            micro_batch_size=state.micro_batch_size,
        )


def _read_phases(model: nn.Module, setup: FinetuneSetup) -> tuple[Phase, ...]:
    """The freeze schedule; raises InputError if a phase leaves nothing of the model to train."""
    n_layers = len(body_layers(model.body)) if isinstance(model, OrcaModel) else 0
    phases = parse_schedule(setup.config.freeze, setup.config.freeze_epochs, n_layers)
    for phase in phases:
        if freeze_weights(model, phase.frozen) == 0:
            raise InputError(f"finetune.freeze: {'+'.join(phase.frozen)} leaves nothing of this model to train.")
    return phases


def _copy_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Copies the current weights: on the CPU, ``to_arrays`` returns views, which training would change."""
    return {name: array.copy() for name, array in to_arrays(model.state_dict()).items()}
