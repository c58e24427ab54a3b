"""Stage 3: fine-tuning with a freeze schedule, validation per epoch, a checkpoint per epoch, and shared prefixes."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep.bodies.network import to_arrays, to_tensors
from orca_sweep.config import FinetuneConfig, Source
from orca_sweep.data import Samples
from orca_sweep.errors import DivergedError, InputError
from orca_sweep.freezing import Phase, beginning, schedule
from orca_sweep.model import OrcaModel
from orca_sweep.stages.frozen import set_frozen
from orca_sweep.stages.place import (
    Feed,
    Progress,
    batches,
    load_optimizer,
    make_optimizer,
    optimizer_arrays,
    set_lr,
    start_momentum,
    with_prefix,
    without_prefix,
)
from orca_sweep.store import Artifact, CorruptFileError, Store, Tensors, read_tensors, stage_key, write_tensors
from orca_sweep.streams import stream_rng, torch_stream
from orca_sweep.tasks import TaskData
from orca_sweep.tasks.measures import METRICS

STAGE = "finetune"
PREFIX_STAGE = "finetune-prefix"
PREDICT_BATCH = 256
PREDICT_NUMBERS = 2**25
"""Samples of more numbers are predicted fewer at a time."""
KEPT_NUMBERS = 2**28
"""Features of frozen parts are kept if they are no more numbers than this (1 GiB in single precision)."""


def phase_at(phases: Sequence[Phase], epoch: int) -> Phase:
    """Returns the phase that fine-tuning epoch ``epoch`` (from 1) belongs to."""
    end = 0
    for phase in phases[:-1]:
        end += phase.epochs or 0
        if epoch <= end:
            return phase
    return phases[-1]


def learning_rate(config: FinetuneConfig, step: int, steps_per_epoch: int) -> float:
    """Returns the rate of optimizer step ``step`` (from 0): linear warm-up, then constant or linear decay.

    Counted in optimizer steps; the first step is above zero, and after ``decay_epochs`` it is zero,
    never negative. It does not depend on ``finetune.epochs``.
    """
    warm = config.warmup_epochs * steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.decay_epochs is None:
        return config.lr
    end = config.decay_epochs * steps_per_epoch
    return config.lr * max(0.0, (end - step) / max(1, end - warm))


@dataclass
class FinetuneResult:
    """Validation history, and the weights of the best-validated and of the last epoch."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    last: dict[str, np.ndarray] = field(default_factory=dict)
    best_epoch: int = 0
    val_metric_best: float = math.inf
    val_metric_last: float = math.inf
    n_steps: int = 0
    resumed_from_epoch: int = 0
    """Of the run's own checkpoint; a prefix may have taken it further."""
    seconds: float = 0.0
    reused: dict[int, float] = field(default_factory=dict)
    """What the epochs taken over from other runs had cost."""
    spent: dict[int, float] = field(default_factory=dict)
    """Seconds of the epochs done now, with saving them."""
    phases: list[dict[str, Any]] = field(default_factory=list)
    """What each phase of the freeze schedule came to; columns of the stages table."""

    @property
    def reused_s(self) -> float:
        """What was taken over had cost in all."""
        return sum(self.reused.values())


def _phases(phases: Sequence[Phase], result: FinetuneResult) -> list[dict[str, Any]]:
    """What each phase came to; one that the run was too short for is left out."""
    found = []
    for phase in phases:
        rows = [row for row in result.epochs if phase_at(phases, row["epoch"]) is phase]
        if rows:
            epochs = [row["epoch"] for row in rows]
            found.append(
                {
                    "frozen": "+".join(phase.frozen),
                    "first_epoch": epochs[0],
                    "last_epoch": epochs[-1],
                    "n_trainable": rows[0]["n_trainable"],
                    "n_steps": sum(row["n_steps"] for row in rows),
                    "lr_integral": math.fsum(row["lr_integral"] for row in rows),
                    "wall_time_s": sum(result.spent.get(epoch, 0.0) for epoch in epochs),
                    "reused_s": sum(result.reused.get(epoch, 0.0) for epoch in epochs),
                }
            )
    return found


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


def finetune(
    model: nn.Module,
    data: TaskData,
    config: FinetuneConfig,
    seed_of: Callable[[Source], int],
    device: str,
    checkpoint: Path | None,
    identity: str,
    report: Progress,
    augment: bool = False,
    prefixes: Prefixes | None = None,
) -> FinetuneResult:
    """Fine-tunes the model in place and returns its history with best-validated and last weights.

    After every epoch the state is written to ``checkpoint``; a later call with the same ``identity``
    (hash of everything the run depends on) continues from it and ends bit for bit as the unbroken run
    would have on the same CPU and thread count. Selection sees the validation split only; test data is
    never touched here. Order, augmentation and dropout draw by the seed that ``seed_of`` gives for each.

    With ``prefixes``, whatever stored prefix of this run is further along than its checkpoint is taken over, to the
    same bits. Of the runs that share a prefix one computes it while the others wait; if it fails the next goes on.
    Locks are taken one at a time, from the shortest prefix to the longest, so no two runs wait for each other.

    Raises:
        DivergedError: when a training loss or a validation metric is not finite, also if another run that shares
            the prefix has found that out.
    """
    loop = _Loop(model.to(device), data, config, seed_of, device, augment)
    loop.resume(checkpoint, identity)
    shared = _Shared(loop, prefixes)
    shared.begin()
    for end in sorted({*shared.epochs, config.epochs}):
        with shared.alone(end):
            while loop.epoch < end:
                start = time.perf_counter()
                loop.run_epoch()
                if checkpoint is not None:
                    loop.save(checkpoint, identity)
                shared.keep()
                report(loop.result.epochs[-1])
                loop.result.spent[loop.epoch] = time.perf_counter() - start
    loop.result.last = _copies(model)
    loop.result.phases = _phases(loop.schedule, loop.result)
    return loop.result


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
    ) -> None:
        self.model, self.data, self.config, self.seed_of, self.device = model, data, config, seed_of, device
        self.augment = augment
        self.x, self.y = Feed(data.train.x, device), Feed(data.train.y, device)
        self.parts = None if data.train.groups is None else _Parts(data.train.groups)
        self.loss = data.loss
        self.schedule = schedule(config.freeze, config.freeze_epochs, _n_layers(model))
        for phase in self.schedule:
            if set_frozen(model, phase.frozen) == 0:
                raise InputError(f"finetune.freeze: {'+'.join(phase.frozen)} leaves nothing of this model to train.")
        self.optimizer = make_optimizer(
            config.optimizer, model.parameters(), config.lr, config.weight_decay, config.momentum
        )
        self.step_size = config.batch_size * config.accumulation
        self.steps_per_epoch = math.ceil(data.train.n_wholes / self.step_size)
        self.result = FinetuneResult()
        self.epoch = 0
        self.n_batches = 0
        """Batches of this epoch so far."""
        self.kept: tuple[Tensor, Tensor] | None = None
        """Features of training and validation samples, while all that makes them is frozen."""

    def run_epoch(self) -> None:
        start = time.perf_counter()
        epoch = self.epoch + 1
        n_trainable = set_frozen(self.model, phase_at(self.schedule, epoch).frozen)
        start_momentum(self.optimizer)
        self._keep_features()
        n_before = self.result.n_steps
        train_loss, lr, lr_integral = self._train(epoch)
        if not math.isfinite(train_loss):
            raise self._diverged(f"training loss {train_loss} in epoch {epoch}")
        val_loss, val_metric = self._validate()
        if not math.isfinite(val_metric):
            raise self._diverged(f"validation metric {val_metric} in epoch {epoch}")
        self.epoch = epoch
        self._note(
            {
                "stage": STAGE,
                "epoch": epoch,
                "train_loss": train_loss,
                "val_loss": val_loss if math.isfinite(val_loss) else None,
                "val_metric": val_metric,
                "lr": lr,
                "lr_integral": lr_integral,
                "n_steps": self.result.n_steps - n_before,
                "n_trainable": n_trainable,
                "wall_time_s": time.perf_counter() - start,
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
                self.kept = (_features(model, splits[0]), _features(model, splits[1]))

    def _batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and targets of a batch of training samples."""
        if self.kept is not None:
            features = self.kept[0][index.to(self.device)]
            return self.model.from_features(features), self.y[index]  # type: ignore[operator]
        if not self.augment:
            return self.model(self.x[index]), self.y[index]
        # Inputs and targets draw alike: a cut of the one is the same cut of the other.
        x, y = (
            feed.drawn(index, stream_rng(self.seed_of("augmentation"), "augmentation", self.epoch + 1, self.n_batches))
            for feed in (self.x, self.y)
        )
        return self.model(x), y

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's order of training samples; of samples in parts, one part each."""
        seed = self.seed_of("finetune-order")
        order = stream_rng(seed, "finetune order", epoch).permutation(self.data.train.n_wholes)
        return order if self.parts is None else self.parts.draw(order, stream_rng(seed, "parts", epoch))

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(f"fine-tuning diverged: {what}", self.result.epochs)

    def _train(self, epoch: int) -> tuple[float, float, float]:
        """One pass over the training samples; returns mean loss, the last step's rate and the sum of all steps' rates."""
        order = self._order(epoch)
        self.n_batches = 0
        total, lr, lr_integral = torch.zeros((), device=self.device), 0.0, 0.0
        with torch_stream(self.seed_of("dropout"), "dropout", epoch):
            for group in batches(order, self.step_size):
                lr = learning_rate(self.config, self.result.n_steps, self.steps_per_epoch)
                total += self._optimizer_step(group, lr) * len(group)
                self.result.n_steps += 1
                lr_integral += lr
        return float(total) / len(order), lr, lr_integral

    def _optimizer_step(self, group: Tensor, lr: float) -> Tensor:
        """One optimizer step on one group of samples, in batches; returns the group's mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for index in group.split(self.config.batch_size):
            prediction, target = self._batch(index)
            self.n_batches += 1
            # Each batch counts by its share of the group: a short last batch weighs no more than its samples.
            loss = self.loss(prediction, target) * (len(index) / len(group))
            loss.backward()
            mean += loss.detach()
        if self.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        return mean

    def _validate(self) -> tuple[float, float]:
        if self.kept is None:
            prediction, target = predict_wholes(self.model, self.data.val, self.device)
        else:
            self.model.eval()
            with torch.inference_mode():
                parts = self.model.from_features(self.kept[1]).float().cpu().numpy()  # type: ignore[operator]
            prediction, target = _wholes(parts, self.data.val)
        if not np.isfinite(prediction).all():
            return math.nan, math.nan
        loss = float(self.loss(torch.from_numpy(prediction), torch.from_numpy(target)))
        return loss, METRICS[self.data.task.metric].compute(prediction, target)

    def _note(self, row: dict[str, Any]) -> None:
        result = self.result
        result.seconds += row["wall_time_s"]
        result.val_metric_last = row["val_metric"]
        if row["val_metric"] < result.val_metric_best:
            result.val_metric_best, result.best_epoch = row["val_metric"], row["epoch"]
            result.best = _copies(self.model)
        result.epochs.append(row)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Returns all that the next epoch and the end of the run depend on."""
        result = self.result
        tensors = {
            **with_prefix("model.", to_arrays(self.model.state_dict())),
            **with_prefix("best.", result.best),
            **with_prefix("optimizer.", optimizer_arrays(self.optimizer)),
        }
        meta = {
            "epoch": self.epoch,
            "n_steps": result.n_steps,
            "best_epoch": result.best_epoch,
            "val_metric_best": result.val_metric_best,
            "seconds": result.seconds,
            "epochs": result.epochs,
        }
        return tensors, meta

    def restore(self, saved: Artifact) -> None:
        """Goes on from the ``state`` of this run or of one that begins alike."""
        self.model.load_state_dict(to_tensors(without_prefix("model.", saved.tensors)))
        load_optimizer(self.optimizer, without_prefix("optimizer.", saved.tensors))
        self.epoch = saved.meta["epoch"]
        self.kept = None
        self.result = FinetuneResult(
            epochs=list(saved.meta["epochs"]),
            best=without_prefix("best.", saved.tensors),
            best_epoch=saved.meta["best_epoch"],
            val_metric_best=saved.meta["val_metric_best"],
            val_metric_last=saved.meta["epochs"][-1]["val_metric"],
            n_steps=saved.meta["n_steps"],
            resumed_from_epoch=self.result.resumed_from_epoch,
            seconds=saved.meta["seconds"],
            reused=self.result.reused,
            spent=self.result.spent,
        )

    def save(self, path: Path, identity: str) -> None:
        """Writes the whole state as one safetensors file with JSON in its header; no pickle."""
        tensors, meta = self.state()
        write_tensors(str(path), tensors, {**meta, "identity": identity, "reused": list(self.result.reused.items())})

    def resume(self, path: Path | None, identity: str) -> None:
        """Takes up a checkpoint of this very run; anything else is left alone and overwritten."""
        try:
            saved = read_tensors(str(path)) if path is not None else None
        except (FileNotFoundError, CorruptFileError):
            return
        if saved is None or saved.meta["identity"] != identity:
            return
        self.restore(saved)
        self.result.resumed_from_epoch = self.epoch
        self.result.reused = {int(epoch): float(seconds) for epoch, seconds in saved.meta["reused"]}


class _Shared:
    """What a run has in common with others: it takes over what they have done and keeps what they will need."""

    def __init__(self, loop: _Loop, prefixes: Prefixes | None) -> None:
        self.loop, self.prefixes = loop, prefixes
        wanted = prefixes.epochs if prefixes else ()
        self.epochs = frozenset(epoch for epoch in wanted if epoch <= loop.config.epochs)
        self.start = stage_key(PREFIX_STAGE, prefixes.inputs) if prefixes else ""

    def key(self, epoch: int) -> str:
        """Names the state after an epoch by what was frozen until then: runs that part later have it in common."""
        phases = [[list(phase.frozen), phase.epochs] for phase in beginning(self.loop.schedule, epoch)]
        return stage_key(PREFIX_STAGE, {"start": self.start, "phases": phases})

    def begin(self) -> None:
        """Takes over the longest prefix of this run in the store, whichever sweep has put it there."""
        if self.prefixes is None:
            return
        if self.loop.result.reused_s > 0:
            self.prefixes.reused(self.loop.result.reused_s)
        self._take_over(range(1, self.loop.config.epochs + 1), self.prefixes)
        # A run that died between its checkpoint and its prefix owes the others the prefix.
        self.keep()

    def _take_over(self, epochs: Iterable[int], prefixes: Prefixes) -> None:
        there = prefixes.store.keys(PREFIX_STAGE)
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
        loop.result.reused |= taken

    def keep(self) -> None:
        """Stores the present state if others go on from it."""
        if self.prefixes is not None and self.loop.epoch in self.epochs:
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


def _copies(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights as they are now: on the CPU ``to_arrays`` only looks at them, and they may change."""
    return {name: array.copy() for name, array in to_arrays(model.state_dict()).items()}


def _n_layers(model: nn.Module) -> int:
    return len(model.body.layers()) if isinstance(model, OrcaModel) else 0  # type: ignore[operator]


def _slices(shape: Sequence[int], batch_size: int) -> list[slice]:
    """Batches of a split that is predicted: large samples come fewer at a time."""
    size = max(1, min(batch_size, PREDICT_NUMBERS // max(1, math.prod(shape[1:]))))
    return [slice(i, i + size) for i in range(0, shape[0], size)]


@torch.no_grad()
def _features(model: OrcaModel, x: Feed) -> Tensor:
    return torch.cat([model.features(x[part]) for part in _slices(x.shape, PREDICT_BATCH)])


@torch.inference_mode()
def predict(model: nn.Module, samples: Samples, device: str, batch_size: int = PREDICT_BATCH) -> np.ndarray:
    """Returns the model's predictions on a whole split, in its order, in eval mode."""
    model.eval()
    parts = [
        model(torch.from_numpy(samples.x[part]).to(device)).float().cpu()
        for part in _slices(samples.x.shape, batch_size)
    ]
    return torch.cat(parts).numpy()


def predict_wholes(model: nn.Module, samples: Samples, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns predictions and targets of a whole split, in memory; of samples in parts, the mean over the parts."""
    return _wholes(predict(model, samples, device), samples)


def _wholes(prediction: np.ndarray, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    if samples.groups is None:
        return prediction, samples.y[:]
    _, first, whole, counts = np.unique(samples.groups, return_index=True, return_inverse=True, return_counts=True)
    together = prediction[np.argsort(whole, kind="stable")].astype(np.float64)
    total = np.add.reduceat(together, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
    mean = total / counts.reshape(-1, *[1] * (prediction.ndim - 1))
    return mean.astype(np.float32), samples.y[first]


class _Parts:
    """Which samples are parts of which whole."""

    def __init__(self, groups: np.ndarray) -> None:
        _, whole, self.counts = np.unique(groups, return_inverse=True, return_counts=True)
        self.rows = np.argsort(whole, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def draw(self, wholes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns one part of each whole."""
        return self.rows[self.start[wholes] + (rng.random(len(wholes)) * self.counts[wholes]).astype(np.int64)]
