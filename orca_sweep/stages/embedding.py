"""Stage 2: proxy features, and embedder training towards them."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orca_sweep import objectives
from orca_sweep.bodies.network import LoadedBody, input_features, to_arrays, to_tensors
from orca_sweep.config import EmbedderConfig, TrialConfig
from orca_sweep.errors import DivergedError
from orca_sweep.proxies import ProxyData
from orca_sweep.stages.place import (
    Place,
    Progress,
    load_optimizer,
    make_optimizer,
    optimizer_arrays,
    set_lr,
    with_prefix,
    without_prefix,
)
from orca_sweep.store import Artifact, stage_key, state_digest
from orca_sweep.streams import stream_rng
from orca_sweep.tasks import TaskData

PROXY_STAGE = "proxy-features"
EMBEDDER_STAGE = "embedder"
SAVE_EVERY_S = 20.0


@dataclass(frozen=True)
class ProxyFeatures:
    """Features (M, D) and labels (M,) of a whole proxy under one body's input layer."""

    features: Tensor
    labels: Tensor
    key: str
    seconds: float
    reused: bool


def proxy_features(proxy: ProxyData, body: LoadedBody, place: Place) -> ProxyFeatures:
    """Returns the proxy through the body's own input layer, mean over tokens; stored once per sweep.

    Depends on the proxy and on the body's input layer alone: the transformer is never run.
    """
    inputs = {**place.key_part(), "proxy": proxy.fingerprint, "input_layer": body.input_digest()}
    key = stage_key(PROXY_STAGE, {**inputs, "image_size": body.spec.image_size})
    with place.store.lock(PROXY_STAGE, key):
        artifact = place.store.get(PROXY_STAGE, key)
        reused = artifact is not None
        if artifact is None:
            start = time.perf_counter()
            features = input_features(body, proxy.inputs, place.device).numpy()
            meta = {"seconds": time.perf_counter() - start}
            artifact = place.store.put(PROXY_STAGE, key, {"features": features, "labels": proxy.labels}, meta)
    tensors = to_tensors(artifact.tensors)
    return ProxyFeatures(tensors["features"], tensors["labels"], key, artifact.meta["seconds"], reused)


@dataclass(frozen=True)
class EmbedderTraining:
    """The outcome of embedder training: what was logged per epoch, and what it cost when computed."""

    epochs: tuple[Mapping[str, Any], ...]
    seconds: float
    seconds_now: float
    """Seconds of this call's own training: the rest was found in the store."""

    @property
    def reused_s(self) -> float:
        """Seconds that did not have to be spent again."""
        return max(0.0, self.seconds - self.seconds_now)


def train_embedder(
    embedder: nn.Module,
    data: TaskData,
    labels: np.ndarray,
    proxy: ProxyFeatures,
    body: LoadedBody,
    config: TrialConfig,
    place: Place,
    snapshot_epochs: Iterable[int],
    report: Progress,
) -> EmbedderTraining:
    """Trains the embedder in place for ``embedder.epochs`` steps and returns its history.

    One epoch is ONE optimizer step: per target class, up to ``max_samples_per_class`` training samples
    are embedded and averaged over tokens; the loss is the sum over classes of class frequency times
    the distance to the proxy features. Only training data is seen. Nothing depends on the number of
    epochs asked for, so a run of 60 and a run of 10 share their first 10 bit for bit; the state is
    stored at every epoch in ``snapshot_epochs`` and the longest stored prefix is continued.

    Source: Shen et al. 2023, arXiv 2302.05738. Differs from ORCA's code in: training data only,
    seeded draws without replacement of exactly that many samples, classes with one sample kept.
    """
    run = _Run(embedder, data, labels, proxy, body, config, place)
    with place.store.lock(EMBEDDER_STAGE, run.key(0)):
        run.resume(config.embedder.epochs)
        run.train(config.embedder.epochs, frozenset(snapshot_epochs) | {config.embedder.epochs}, report)
    return EmbedderTraining(tuple(run.history), run.seconds, run.seconds_now)


class _Run:
    """One chain of embedder epochs."""

    def __init__(
        self,
        embedder: nn.Module,
        data: TaskData,
        labels: np.ndarray,
        proxy: ProxyFeatures,
        body: LoadedBody,
        config: TrialConfig,
        place: Place,
    ) -> None:
        self.embedder, self.config, self.place = embedder.to(place.device), config, place
        self.x = torch.from_numpy(data.train.x).to(place.device)
        self.classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.settings: EmbedderConfig = config.embedder
        self.inputs = self._inputs(data, labels, proxy, body)
        self.optimizer = make_optimizer(
            self.settings.optimizer, embedder.parameters(), self.settings.lr, self.settings.weight_decay
        )
        self.distance = _distance(proxy, config, place.device)
        self.history: list[dict[str, Any]] = []
        self.seconds = self.seconds_now = 0.0
        self.epoch = 0

    def _inputs(self, data: TaskData, labels: np.ndarray, proxy: ProxyFeatures, body: LoadedBody) -> dict[str, Any]:
        settings = self.settings.model_dump(exclude={"epochs"})
        return {
            **self.place.key_part(),
            "data": data.fingerprint,
            "labels": state_digest({"labels": labels}),
            "proxy": proxy.key,
            "input_layer": body.input_digest(),
            "seed": self.config.seed,
            "embedder": settings,
        }

    def key(self, epoch: int) -> str:
        return stage_key(EMBEDDER_STAGE, {**self.inputs, "epoch": epoch})

    def resume(self, wanted: int) -> None:
        """Continues from the longest stored prefix that is not longer than wanted."""
        for epoch in range(wanted, 0, -1):
            if self.place.store.has(EMBEDDER_STAGE, self.key(epoch)):
                artifact = self.place.store.get(EMBEDDER_STAGE, self.key(epoch))
                if artifact is not None:
                    self._load(artifact, epoch)
                    return

    def _load(self, artifact: Artifact, epoch: int) -> None:
        self.embedder.load_state_dict(to_tensors(without_prefix("embedder.", artifact.tensors)))
        load_optimizer(self.optimizer, without_prefix("optimizer.", artifact.tensors))
        self.history = [dict(row) for row in artifact.meta["history"]]
        self.seconds, self.epoch = artifact.meta["seconds"], epoch

    def save(self) -> None:
        tensors = {
            **with_prefix("embedder.", to_arrays(self.embedder.state_dict())),
            **with_prefix("optimizer.", optimizer_arrays(self.optimizer)),
        }
        meta = {"history": self.history, "seconds": self.seconds, "epoch": self.epoch, "inputs": self.inputs}
        self.place.store.put(EMBEDDER_STAGE, self.key(self.epoch), tensors, meta)

    def train(self, epochs: int, snapshot_epochs: Sequence[int] | frozenset[int], report: Progress) -> None:
        self.embedder.train()
        saved = time.perf_counter()
        if not self.history:
            report(self._note(self._value(1)))
        while self.epoch < epochs:
            start = time.perf_counter()
            lr = self._step()
            self.epoch += 1
            value = self._value(self.epoch + 1)
            spent = time.perf_counter() - start
            self.seconds += spent
            self.seconds_now += spent
            row = self._note(value, lr, spent)
            if self.epoch in snapshot_epochs or time.perf_counter() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.perf_counter()
            report(row)

    def _step(self) -> float:
        """One optimizer step over all classes; returns its learning rate."""
        lr = self.settings.lr * self.settings.lr_decay ** (self.epoch // self.settings.lr_decay_epochs)
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        for loss in self._losses(self.epoch + 1):
            loss.backward()
        self.optimizer.step()
        return lr

    @torch.no_grad()
    def _value(self, epoch: int) -> float:
        """The class-weighted objective of the present embedder on the draw of that epoch."""
        return float(sum(float(loss) for loss in self._losses(epoch)))

    def _losses(self, epoch: int) -> Iterable[Tensor]:
        n = sum(map(len, self.classes))
        for label, members in enumerate(self.classes):
            drawn = self._draw(epoch, label, members)
            features = self.embedder(self.x[drawn]).mean(dim=1)
            yield self.distance(features) * (len(members) / n)

    def _draw(self, epoch: int, label: int, members: np.ndarray) -> Tensor:
        if len(members) > self.settings.max_samples_per_class:
            rng = stream_rng(self.config.seed, "target subset", epoch, label)
            members = np.sort(rng.choice(members, self.settings.max_samples_per_class, replace=False))
        return torch.from_numpy(members)

    def _note(self, value: float, lr: float | None = None, spent: float = 0.0) -> dict[str, Any]:
        if not math.isfinite(value):
            text = f"embedder training diverged: objective {value} at embedder epoch {self.epoch}"
            raise DivergedError(text, self.history)
        row = {"stage": EMBEDDER_STAGE, "epoch": self.epoch, "objective": value, "lr": lr, "wall_time_s": spent}
        self.history.append(row)
        return row


def _distance(proxy: ProxyFeatures, config: TrialConfig, device: str) -> Callable[[Tensor], Tensor]:
    """The objective with all that depends on the proxy alone computed once."""
    n = min(config.embedder.proxy_samples, len(proxy.features))
    chosen = torch.arange(len(proxy.features))
    if n < len(chosen):
        rng = stream_rng(config.seed, "proxy subset")
        chosen = torch.from_numpy(np.sort(rng.choice(len(chosen), n, replace=False)))
    settings: dict[str, Any] = {"epsilon": config.embedder.epsilon}
    used = {k: v for k, v in settings.items() if k in objectives.settings_of(config.embedder.objective)}
    features, labels = proxy.features[chosen].to(device), proxy.labels[chosen].to(device)
    return objectives.prepare(config.embedder.objective, features, labels, **used)
