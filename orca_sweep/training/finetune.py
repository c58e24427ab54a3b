"""Stage 3: fine-tuning with a freeze schedule, validation per epoch, checkpoints at any step, and shared prefixes."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies.network import to_arrays, to_tensors
from orca_sweep.config import FinetuneConfig, Source
from orca_sweep.config.freezing import Phase, epochs_before_fresh_start, phase_at, schedule
from orca_sweep.config.number_lists import parse_numbers
from orca_sweep.errors import DivergedError, InputError, TimeLimitError, out_of_memory
from orca_sweep.stats.modes import is_better, worst_value
from orca_sweep.store import Artifact, CorruptFileError, Tensors, read_tensors, write_tensors
from orca_sweep.streams import stream_rng, stream_seed, torch_stream
from orca_sweep.tasks import TaskData
from orca_sweep.tasks.measures import METRICS
from orca_sweep.training.frozen import set_frozen
from orca_sweep.training.model import OrcaModel
from orca_sweep.training.predict import autocast, in_batches, precision_of, predict_wholes, wholes
from orca_sweep.training.rates import learning_rate
from orca_sweep.training.sharing import Prefixes, Shared
from orca_sweep.training.switches import switched
from orca_sweep.training.worker import (
    Feed,
    Parts,
    Progress,
    batches,
    forget_state,
    load_optimizer,
    make_optimizer,
    optimizer_arrays,
    phase_row,
    set_lr,
    start_momentum,
    with_prefix,
    without_prefix,
)

STAGE = "finetune"
KEPT_NUMBERS = 2**28
"""Features of frozen parts are kept if they are no more numbers than this (1 GiB in single precision)."""


@dataclass(frozen=True)
class Saving:
    """Where and how often a run's state is saved: after so many epochs or so many seconds, whichever comes first."""

    path: Path
    identity: str
    """Hash of everything the run depends on: only a run with the same goes on from the file."""
    every_epochs: int = 1
    every_s: float = 600.0


@dataclass
class FinetuneResult:
    """Validation history, and the weights of the best-validated and of the last epoch."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    last: dict[str, np.ndarray] = field(default_factory=dict)
    best_epoch: int = 0
    val_metric_best: float = math.nan
    """NaN as long as no epoch is done, as ``val_metric_last``."""
    val_metric_last: float = math.nan
    n_steps: int = 0
    resumed_from_epoch: int = 0
    """Of the run's own checkpoint; a prefix may have taken it further."""
    seconds: float = 0.0
    phases: list[dict[str, Any]] = field(default_factory=list)
    """What each phase of the freeze schedule came to; columns of the stages table."""
    precision: str = "float32"
    micro_batch_size: int = 0
    """Samples per forward pass in the end: ``batch_size``, or half of it where memory did not suffice."""


def _phases(phases: Sequence[Phase], loop: "_Loop") -> list[dict[str, Any]]:
    """What each phase came to; one that the run was too short for is left out."""
    found = []
    for phase in phases:
        rows = [row for row in loop.result.epochs if phase_at(phases, row["epoch"]) is phase]
        if rows:
            reused_s, spent_s = (sum(of.get(row["epoch"], 0.0) for row in rows) for of in (loop.reused, loop.spent))
            row = phase_row(rows, phase.frozen, rows[0]["n_trainable"], reused_s)
            stepping = {"lr_factor": phase.lr_factor, "constant_lr": phase.constant_lr}
            fresh = {"fresh_optimizer": phase.fresh_optimizer}
            found.append({**row, **stepping, **fresh, "wall_time_s": spent_s})
    return found


def finetune(
    model: nn.Module,
    data: TaskData,
    config: FinetuneConfig,
    seed_of: Callable[[Source], int],
    device: str,
    saving: Saving | None,
    report: Progress,
    augment: bool = False,
    prefixes: Prefixes | None = None,
) -> FinetuneResult:
    """Fine-tunes the model in place and returns its history with best-validated and last weights.

    With ``saving`` the state is written now and then, also inside an epoch; a later call with the same identity continues
    from it and ends bit for bit as the unbroken run would have on the same CPU and thread count. Selection sees the
    validation split only. Order, augmentation and dropout draw by the seed that ``seed_of`` gives for each.

    With ``prefixes``, whatever stored prefix of this run is further along than its checkpoint is taken over, to the
    same bits. Of the runs that share a prefix one computes it while the others wait; if it fails the next goes on.
    Locks are taken one at a time, from the shortest prefix to the longest, so no two runs wait for each other.

    Where memory does not suffice for a step, it is done again with half the samples per forward pass and twice as many
    passes: the same step but for rounding (and for dropout, whose masks are drawn per pass). A second time it is an error.

    Raises:
        DivergedError: when a training loss or a validation metric is not finite, also if another run that shares
            the prefix has found that out.
    """
    loop = _Loop(model.to(device), data, config, seed_of, device, augment, saving)
    with switched(model, config):
        loop.resume()
        shared = Shared(loop, prefixes)
        shared.begin()
        for end in sorted({*shared.epochs, config.epochs}):
            with shared.alone(end):
                while loop.epoch < end:
                    start = time.perf_counter()
                    loop.run_epoch()
                    loop.save_if_due()
                    shared.keep()
                    try:
                        report(loop.result.epochs[-1])
                    except TimeLimitError:  # the next attempt goes on from here, however seldom states are saved
                        loop.save()
                        raise
                    loop.spent[loop.epoch] = time.perf_counter() - start
    result = loop.result
    result.last = _copies(model)
    result.phases = _phases(loop.schedule, loop)
    result.precision, result.micro_batch_size = loop.precision, loop.micro_batch_size
    return result


@dataclass
class _Part:
    """What has been done of an epoch that is not at its end."""

    total: Tensor
    """Sum of the samples' losses, on the device: reading it would wait for the device at every step."""
    step: int = 0
    lr: float = 0.0
    lr_integral: float = 0.0
    seconds: float = 0.0


class _Loop:
    """The state of one fine-tuning run."""

    def __init__(
        self,
        model: nn.Module,
        data: TaskData,
        config: FinetuneConfig,
        seed_of: Callable[[Source], int],
        device: str,
        augment: bool,
        saving: Saving | None,
    ) -> None:
        self.model, self.data, self.config, self.seed_of, self.device = model, data, config, seed_of, device
        self.augment, self.saving = augment, saving
        self.x, self.y = Feed(data.train.x, device), Feed(data.train.y, device)
        self.parts = None if data.train.groups is None else Parts(data.train.groups)
        self.loss = data.loss
        self.precision = precision_of(config.precision, device)
        self.schedule = schedule(config.freeze, config.freeze_epochs, _n_layers(model))
        for phase in self.schedule:
            if set_frozen(model, phase.frozen) == 0:
                raise InputError(f"finetune.freeze: {'+'.join(phase.frozen)} leaves nothing of this model to train.")
        self.optimizer = make_optimizer(
            config.optimizer,
            model.parameters(),
            config.lr,
            config.weight_decay,
            momentum=config.momentum,
            betas=parse_numbers(config.betas),
        )
        self.n_epochs = config.epochs
        self.step_size = config.batch_size * config.accumulation
        self.steps_per_epoch = math.ceil(data.train.n_wholes / self.step_size)
        self.micro_batch_size = config.batch_size
        self.result = FinetuneResult()
        self.reused: dict[int, float] = {}
        """What the epochs taken over from other runs had cost."""
        self.spent: dict[int, float] = {}
        """Seconds of the epochs done now, with saving them."""
        self.epoch = 0
        self.part: _Part | None = None
        self.saved_epoch: int | None = 0
        """Of the last state that was saved; None if others have taken the run further since: that is saved first."""
        self.saved_at = time.monotonic()
        self.kept: tuple[Tensor, Tensor] | None = None
        """Features of training and validation samples, while all that makes them is frozen."""

    @property
    def is_inside_epoch(self) -> bool:
        return self.part is not None

    def run_epoch(self) -> None:
        start, epoch = time.perf_counter(), self.epoch + 1
        n_trainable = set_frozen(self.model, phase_at(self.schedule, epoch).frozen)
        part = self.part = self.part or _Part(torch.zeros((), device=self.device))
        if part.step == 0 and epochs_before_fresh_start(self.schedule, epoch) == self.epoch > 0:
            forget_state(self.optimizer)
        start_momentum(self.optimizer)
        self._keep_features()
        before = part.seconds
        self._train(epoch, part, start - before)
        train_loss = float(part.total) / self.data.train.n_wholes
        if not math.isfinite(train_loss):
            raise self._diverged(f"training loss {train_loss} in epoch {epoch}")
        val_loss, val_metric = self._validate()
        if not math.isfinite(val_metric):
            raise self._diverged(f"validation metric {val_metric} in epoch {epoch}")
        self.epoch, self.part = epoch, None
        self._note(
            {
                "stage": STAGE,
                "epoch": epoch,
                "train_loss": train_loss,
                "val_loss": val_loss if math.isfinite(val_loss) else None,
                "val_metric": val_metric,
                "lr": part.lr,
                "lr_integral": part.lr_integral,
                "n_steps": part.step,
                "n_trainable": n_trainable,
                "wall_time_s": time.perf_counter() - start + before,
            }
        )

    def _keep_features(self) -> None:
        """Runs embedder and body once for a phase in which neither trains: they are in eval mode, without dropout."""
        model = self.model
        if (
            self.augment
            or not isinstance(model, OrcaModel)
            or any(p.requires_grad for part in (model.embedder, model.body) for p in part.parameters())
        ):
            self.kept = None
        elif self.kept is None:
            splits = (self.x, Feed(self.data.val.x, self.device))
            with torch.no_grad():
                one = model.features(self.x[:1])
            if sum(map(len, splits)) * one.numel() <= KEPT_NUMBERS:
                self.kept = (self._features(splits[0]), self._features(splits[1]))

    @torch.no_grad()
    def _features(self, x: Feed) -> Tensor:
        def run(part: slice) -> Tensor:
            with autocast(self.precision, self.device):
                return self.model.features(x[part]).float()  # type: ignore[operator]

        return torch.cat(in_batches(run, x.shape, self.config.eval_batch_size))

    # Training -----------------------------------------------------------------------------------

    def _train(self, epoch: int, part: _Part, began: float) -> None:
        """Goes on with the epoch's pass over the training samples, from the step that the part has come to."""
        with torch_stream(self.seed_of("dropout"), "dropout", epoch):
            groups = batches(self._order(epoch), self.step_size)
            for group, fetched in self._fetched(epoch, groups, part.step):
                part.lr = self._step_rate(epoch, part.step)
                # A step's masks are a function of its place alone: a resumed epoch draws what the unbroken one does.
                self.dropout_seed = stream_seed(self.seed_of("dropout"), "dropout", epoch, part.step)
                part.total += self._optimizer_step(fetched, part.lr) * len(group)
                part.lr_integral += part.lr
                part.step += 1
                self.result.n_steps += 1
                part.seconds = time.perf_counter() - began
                if part.step < len(groups):
                    self.save_if_due()

    def _step_rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step in an epoch: the schedule's since its last start, times the phase's factor."""
        phase = phase_at(self.schedule, epoch)
        if phase.constant_lr:
            return self.config.lr * phase.lr_factor
        done = epoch - 1 - epochs_before_fresh_start(self.schedule, epoch)
        rate = learning_rate(self.config, done * self.steps_per_epoch + step, self.steps_per_epoch)
        return rate * phase.lr_factor

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's order of training samples; of samples in parts, one part each."""
        seed = self.seed_of("finetune-order")
        order = stream_rng(seed, "finetune order", epoch).permutation(self.data.train.n_wholes)
        return order if self.parts is None else self.parts.draw(order, stream_rng(seed, "parts", epoch))

    def _fetched(self, epoch: int, groups: list[Tensor], first: int) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
        """The epoch's groups from a step on with their samples; of samples on disk, the next is read meanwhile."""
        if self.kept is not None or (self.x.is_resident and self.y.is_resident):
            for step in range(first, len(groups)):
                yield groups[step], self._fetch(epoch, step, groups[step])
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._fetch, epoch, first, groups[first])
            for step in range(first, len(groups)):
                fetched = ahead.result()
                if step + 1 < len(groups):
                    ahead = pool.submit(self._fetch, epoch, step + 1, groups[step + 1])
                yield groups[step], fetched

    def _fetch(self, epoch: int, step: int, group: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, or kept features, and targets of one optimizer step's samples, on the device."""
        if self.kept is not None:
            return self.kept[0][group.to(self.device)], self.y[group]
        if not self.augment:
            return self.x[group], self.y[group]
        # Inputs and targets draw alike: a cut of the one is the same cut of the other.
        seed = self.seed_of("augmentation")
        x, y = (feed.drawn(group, stream_rng(seed, "augmentation", epoch, step)) for feed in (self.x, self.y))
        return x, y

    def _optimizer_step(self, fetched: tuple[Tensor, Tensor], lr: float) -> Tensor:
        """One optimizer step; returns the group's mean loss."""
        try:
            mean = self._accumulate(*fetched)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or self.micro_batch_size < self.config.batch_size or self.config.batch_size < 2:
                raise
            mean = None  # what the error holds on to is free only once it is handled
        if mean is None:
            self.micro_batch_size = math.ceil(self.config.batch_size / 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            mean = self._accumulate(*fetched)
        if self.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        return mean

    def _accumulate(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds up the gradient of a group's mean loss, in passes of a few samples; returns that mean."""
        torch.manual_seed(self.dropout_seed)
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        run = self.model if self.kept is None else self.model.from_features
        for part_x, part_y in zip(x.split(self.micro_batch_size), y.split(self.micro_batch_size), strict=True):
            with autocast(self.precision, self.device):
                prediction = run(part_x)  # type: ignore[operator]
            # Each pass counts by its share of the group: a short last one weighs no more than its samples.
            # Losses are computed in single precision, or better if the model is.
            loss = self.loss(prediction.to(torch.promote_types(prediction.dtype, torch.float32)), part_y)
            loss = loss * (len(part_x) / len(x))
            loss.backward()
            mean += loss.detach()
        return mean

    # Validation ---------------------------------------------------------------------------------

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(f"fine-tuning diverged: {what}", self.result.epochs)

    def _validate(self) -> tuple[float, float]:
        if self.kept is None:
            size = self.config.eval_batch_size
            prediction, target = predict_wholes(self.model, self.data.val, self.device, size, self.precision)
        else:
            prediction, target = wholes(self._predicted_from(self.kept[1]), self.data.val)
        if not np.isfinite(prediction).all():
            return math.nan, math.nan
        loss = float(self.loss(torch.from_numpy(prediction), torch.from_numpy(target)))
        return loss, METRICS.get(self.data.task.metric).compute(prediction, target)

    @torch.inference_mode()
    def _predicted_from(self, features: Tensor) -> np.ndarray:
        self.model.eval()

        def run(part: slice) -> Tensor:
            with autocast(self.precision, self.device):
                return self.model.from_features(features[part]).float()  # type: ignore[operator]

        return torch.cat(in_batches(run, features.shape, self.config.eval_batch_size)).cpu().numpy()

    def _note(self, row: dict[str, Any]) -> None:
        result = self.result
        result.seconds += row["wall_time_s"]
        result.val_metric_last = row["val_metric"]
        mode = self.data.task.mode
        before = result.val_metric_best if result.best_epoch else worst_value(mode)
        if is_better(row["val_metric"], before, mode):
            result.val_metric_best, result.best_epoch = row["val_metric"], row["epoch"]
            result.best = _copies(self.model)
        result.epochs.append(row)

    # State --------------------------------------------------------------------------------------

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Returns all that the next step and the end of the run depend on; random draws depend on their place alone."""
        result, part = self.result, self.part
        tensors = {
            **with_prefix("model.", to_arrays(self.model.state_dict())),
            **with_prefix("best.", result.best),
            **with_prefix("optimizer.", optimizer_arrays(self.optimizer)),
        }
        meta: dict[str, Any] = {
            "epoch": self.epoch,
            "n_steps": result.n_steps,
            "best_epoch": result.best_epoch,
            "val_metric_best": result.val_metric_best if math.isfinite(result.val_metric_best) else None,
            "seconds": result.seconds,
            "epochs": result.epochs,
            "micro_batch_size": self.micro_batch_size,
        }
        if part is not None:
            tensors["part.total"] = part.total.detach().cpu().numpy().reshape(1)
            meta["part"] = {
                "step": part.step,
                "lr": part.lr,
                "lr_integral": part.lr_integral,
                "seconds": part.seconds,
            }
        return tensors, meta

    def restore(self, saved: Artifact) -> None:
        """Goes on from the ``state`` of this run or of one that begins alike."""
        meta = saved.meta
        self.model.load_state_dict(to_tensors(without_prefix("model.", saved.tensors)))
        load_optimizer(self.optimizer, without_prefix("optimizer.", saved.tensors))
        self.epoch, self.kept = meta["epoch"], None
        self.micro_batch_size = meta["micro_batch_size"]
        best = meta["val_metric_best"]
        self.result = FinetuneResult(
            epochs=list(meta["epochs"]),
            best=without_prefix("best.", saved.tensors),
            best_epoch=meta["best_epoch"],
            val_metric_best=math.nan if best is None else best,
            val_metric_last=meta["epochs"][-1]["val_metric"] if meta["epochs"] else math.nan,
            n_steps=meta["n_steps"],
            resumed_from_epoch=self.result.resumed_from_epoch,
            seconds=meta["seconds"],
        )
        self.part = None
        if "part" in meta:
            total = torch.from_numpy(np.array(saved.tensors["part.total"])).reshape(()).to(self.device)
            self.part = _Part(total, **meta["part"])
        self.saved_epoch = None

    def save_if_due(self) -> None:
        """Saves the state where the last one is long ago."""
        if self.saving is None:
            return
        done = math.inf if self.saved_epoch is None else self.epoch - self.saved_epoch
        is_due = self.part is None and done >= self.saving.every_epochs
        if is_due or time.monotonic() - self.saved_at >= self.saving.every_s:
            self.save()

    def save(self) -> None:
        """Writes the whole state as one safetensors file with JSON in its header; no pickle. The one before is gone."""
        if self.saving is None:
            return
        tensors, meta = self.state()
        more = {"identity": self.saving.identity, "reused": list(self.reused.items())}
        write_tensors(str(self.saving.path), tensors, {**meta, **more})
        self.saved_epoch, self.saved_at = self.epoch, time.monotonic()

    def resume(self) -> None:
        """Takes up a checkpoint of this very run; anything else is left alone and overwritten."""
        try:
            saved = read_tensors(str(self.saving.path)) if self.saving is not None else None
        except (FileNotFoundError, CorruptFileError):
            return
        if saved is None or self.saving is None or saved.meta.get("identity") != self.saving.identity:
            return
        self.restore(saved)
        self.result.resumed_from_epoch = self.saved_epoch = self.epoch
        self.reused = {int(epoch): float(seconds) for epoch, seconds in saved.meta["reused"]}


def _copies(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights as they are now: on the CPU ``to_arrays`` only looks at them, and they may change."""
    return {name: array.copy() for name, array in to_arrays(model.state_dict()).items()}


def _n_layers(model: nn.Module) -> int:
    return len(model.body.layers()) if isinstance(model, OrcaModel) else 0  # type: ignore[operator]
