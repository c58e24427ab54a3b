"""Stage 2: proxy features, and embedder training towards them."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from orca_sweep import objectives
from orca_sweep.bodies.inputs import MAX_TEXT_TOKENS, RAW, compute_input_features, count_cut_texts
from orca_sweep.bodies.network import LoadedBody, to_arrays, to_tensors
from orca_sweep.config import EmbedderConfig, TrialConfig
from orca_sweep.config.number_lists import parse_numbers
from orca_sweep.errors import DataError, DivergedError
from orca_sweep.proxies import ProxyData, Treatment
from orca_sweep.store import Artifact, stage_key, state_digest
from orca_sweep.streams import stream_rng
from orca_sweep.tasks import TaskData, alignment_labels
from orca_sweep.training.model import Embedder1D, Embedder2D
from orca_sweep.training.rates import embedder_learning_rate
from orca_sweep.training.worker import (
    Feed,
    Progress,
    Worker,
    load_optimizer,
    make_optimizer,
    optimizer_arrays,
    set_lr,
    with_prefix,
    without_prefix,
)

PROXY_STAGE = "proxy-features"
OBJECTIVE_STAGE = "objective"
LABEL_STAGE = "pseudo-labels"
EMBEDDER_STAGE = "embedder"
SAVE_EVERY_S = 20.0
KEPT_NUMBERS = 2**27
"""Patches are prepared once if those of all samples are no more numbers than this (512 MiB)."""
BATCH_NUMBERS = 2**25
"""Patches embedded in one batch; more are embedded in turn, and again for their gradient."""


@dataclass(frozen=True)
class ProxyFeatures:
    """Features (M, D) and labels (M,) of a whole proxy under one body's input layer."""

    features: Tensor
    labels: Tensor
    key: str
    seconds: float
    reused: bool
    n_texts_cut: int | None = None
    """Texts of which only the first tokens were read; None if the samples are no texts."""


def proxy_features(proxy: ProxyData, body: LoadedBody, worker: Worker, treatment: Treatment = RAW) -> ProxyFeatures:
    """Returns the proxy's samples through the body's own input layer, mean over tokens; stored once per sweep.

    Depends only on the samples, the treatment of images and the body's input layer: the transformer is never run.
    """
    inputs = {
        **worker.key_part(),
        "proxy": proxy.fingerprint,
        "input_layer": body.hash_input_layer(),
        "text_tokens": MAX_TEXT_TOKENS,
    }
    key = stage_key(PROXY_STAGE, {**inputs, "image_size": body.spec.image_size, "treatment": asdict(treatment)})

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        features = compute_input_features(body, proxy.inputs, worker.device, treatment=treatment).numpy()
        meta = {"n_texts_cut": count_cut_texts(body, proxy.inputs)}
        return {"features": features, "labels": proxy.labels}, meta

    artifact, reused = worker.store.get_or_compute(PROXY_STAGE, key, compute)
    tensors = to_tensors(artifact.tensors)
    return ProxyFeatures(
        tensors["features"], tensors["labels"], key, artifact.meta["seconds"], reused, artifact.meta["n_texts_cut"]
    )


def target_labels(data: TaskData, n_clusters: int, split_seed: int, worker: Worker) -> tuple[np.ndarray, float | None]:
    """Returns a label per training sample, and what making them had cost if they were found in the store.

    Class labels are the data's own; clusters of other targets depend on the data alone and are made once.
    """
    if data.task.kind == "classification":
        return alignment_labels(data, n_clusters, split_seed), None
    inputs = {**worker.key_part(), "data": data.fingerprint, "n_clusters": n_clusters, "split_seed": split_seed}

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"labels": alignment_labels(data, n_clusters, split_seed)}, {}

    artifact, reused = worker.store.get_or_compute(LABEL_STAGE, stage_key(LABEL_STAGE, inputs), compute)
    return artifact.tensors["labels"], artifact.meta["seconds"] if reused else None


@dataclass(frozen=True)
class EmbedderTraining:
    """The outcome of embedder training: what was logged per epoch, and what it cost when computed."""

    epochs: tuple[Mapping[str, Any], ...]
    seconds: float
    seconds_now: float
    """Seconds of this call's own training: the rest was found in the store."""
    constants_reused_s: float | None
    """What the objective's constants had cost, if they were needed and found in the store."""
    n_target_classes_skipped: int
    n_proxy_classes_skipped: int
    n_proxy: int
    """Proxy samples aligned to."""

    @property
    def reused_s(self) -> float:
        """Seconds that did not have to be spent again."""
        return max(0.0, self.seconds - self.seconds_now)


def train_embedder(
    embedder: Embedder1D | Embedder2D,
    data: TaskData,
    labels: np.ndarray,
    proxy: ProxyFeatures,
    body: LoadedBody,
    config: TrialConfig,
    worker: Worker,
    snapshot_epochs: Iterable[int],
    report: Progress,
) -> EmbedderTraining:
    """Trains the embedder in place for ``embedder.epochs`` steps and returns its history.

    One epoch is ONE optimizer step: per target class, up to ``max_samples_per_class`` training samples
    are embedded and averaged over tokens; the loss is the sum over classes of class frequency times
    the distance to the proxy features. Only training data is seen. A class with one sample has no spread;
    it is skipped, as in the reference, and counted. Nothing depends on the number of epochs asked for, so a
    run of 60 and a run of 10 share their first 10 bit for bit; the state is stored at every epoch in
    ``snapshot_epochs`` and the longest stored prefix is continued.

    Raises:
        DataError: if no class has two samples, or the proxy's features are not finite.
        DivergedError: if the embedder's features or the objective stop being finite.

    Source: Shen et al. 2023, arXiv 2302.05738. Differs from ORCA's code in: training data only,
    seeded draws without replacement of exactly that many samples.
    """
    run = _Run(embedder, data, labels, proxy, body, config, worker)
    with worker.store.lock(EMBEDDER_STAGE, run.key(0)):
        run.resume(config.embedder.epochs)
        run.train(config.embedder.epochs, frozenset(snapshot_epochs) | {config.embedder.epochs}, report)
    return EmbedderTraining(
        epochs=tuple(run.history),
        seconds=run.seconds,
        seconds_now=run.seconds_now,
        constants_reused_s=run.constants_reused_s,
        n_target_classes_skipped=run.n_skipped,
        n_proxy_classes_skipped=run.n_proxy_skipped,
        n_proxy=min(config.embedder.proxy_samples, len(proxy.features)),
    )


class _Run:
    """One chain of embedder epochs."""

    def __init__(
        self,
        embedder: Embedder1D | Embedder2D,
        data: TaskData,
        labels: np.ndarray,
        proxy: ProxyFeatures,
        body: LoadedBody,
        config: TrialConfig,
        worker: Worker,
    ) -> None:
        self.embedder, self.proxy, self.config, self.worker = embedder.to(worker.device), proxy, config, worker
        self.settings: EmbedderConfig = config.embedder
        self.seed = config.seed_of("embedder-training")
        self.x = Feed(data.train.x, worker.device)
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.n = sum(map(len, members))
        self.classes = [m for m in members if len(m) > 1]
        self.n_skipped = len(members) - len(self.classes)
        if not self.classes:
            raise DataError(
                f"task {data.task.name!r}: {len(members)} classes in {self.n} training samples, none with two, so no"
                " class can be aligned. Raise data.n_train."
            )
        self.inputs = self._inputs(data, labels, body)
        self.optimizer = make_optimizer(
            self.settings.optimizer,
            embedder.parameters(),
            self.settings.lr,
            self.settings.weight_decay,
            momentum=self.settings.momentum,
            betas=parse_numbers(self.settings.betas),
        )
        self.history: list[dict[str, Any]] = []
        self.seconds = self.seconds_now = 0.0
        self.constants_reused_s: float | None = None
        self.n_proxy_skipped = 0
        self.epoch = 0

    def _inputs(self, data: TaskData, labels: np.ndarray, body: LoadedBody) -> dict[str, Any]:
        settings = self.settings.model_dump(exclude={"epochs"})
        init_seed = self.config.seed_of("embedder-init")
        return {
            **self.worker.key_part(),
            "data": data.fingerprint,
            "labels": state_digest({"labels": labels}),
            "proxy": self.proxy.key,
            "input_layer": body.hash_input_layer(),
            "seed": self.seed if self.seed == init_seed else [self.seed, init_seed],
            "embedder": settings,
            "shapes": {name: list(value.shape) for name, value in self.embedder.state_dict().items()},
            "objective_source": objectives.hash_source(self.settings.objective),
        }

    def key(self, epoch: int) -> str:
        return stage_key(EMBEDDER_STAGE, {**self.inputs, "epoch": epoch})

    def resume(self, wanted: int) -> None:
        """Continues from the longest stored prefix that is not longer than wanted."""
        there = self.worker.store.list_keys(EMBEDDER_STAGE)
        for epoch in range(wanted, 0, -1) if there else ():
            if self.key(epoch) in there:
                artifact = self.worker.store.get(EMBEDDER_STAGE, self.key(epoch))
                if artifact is not None:
                    self._load(artifact, epoch)
                    return

    def _load(self, artifact: Artifact, epoch: int) -> None:
        self.embedder.load_state_dict(to_tensors(without_prefix("embedder.", artifact.tensors)))
        load_optimizer(self.optimizer, without_prefix("optimizer.", artifact.tensors))
        self.history = [dict(row) for row in artifact.meta["history"]]
        self.seconds, self.epoch = artifact.meta["seconds"], epoch
        self.n_proxy_skipped = artifact.meta["n_proxy_skipped"]

    def save(self) -> None:
        tensors = {
            **with_prefix("embedder.", to_arrays(self.embedder.state_dict())),
            **with_prefix("optimizer.", optimizer_arrays(self.optimizer)),
        }
        meta = {
            "history": self.history,
            "seconds": self.seconds,
            "epoch": self.epoch,
            "n_proxy_skipped": self.n_proxy_skipped,
            "inputs": self.inputs,
        }
        self.worker.store.put(EMBEDDER_STAGE, self.key(self.epoch), tensors, meta)

    def train(self, epochs: int, snapshot_epochs: frozenset[int], report: Progress) -> None:
        if self.epoch >= epochs:
            return
        self.embedder.train()
        saved = time.perf_counter()
        loss = self._loss()
        if not self.history:
            report(self._note(float(loss.detach())))
        while self.epoch < epochs:
            start = time.perf_counter()
            lr = self._step(loss)
            self.epoch += 1
            # The next step's loss is this epoch's value: the present embedder on the next draw.
            loss = self._loss()
            value = float(loss.detach())
            spent = time.perf_counter() - start
            self.seconds += spent
            self.seconds_now += spent
            row = self._note(value, lr, spent)
            if self.epoch in snapshot_epochs or time.perf_counter() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.perf_counter()
            report(row)

    def _step(self, loss: Tensor) -> float:
        """One optimizer step over all classes; returns its learning rate."""
        lr = embedder_learning_rate(self.settings, self.epoch)
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return lr

    def _loss(self) -> Tensor:
        """The class-weighted objective of the present embedder on the next epoch's draw."""
        drawn = [self._draw(label, members) for label, members in enumerate(self.classes)]
        features = self._features(torch.cat(drawn)).split([len(d) for d in drawn])
        name, settings, constants = self.settings.objective, self._objective_settings, self._constants
        try:
            losses = [
                objectives.distance(name, constants, part, **settings) * (len(members) / self.n)
                for part, members in zip(features, self.classes, strict=True)
            ]
        except objectives.NonFiniteError as error:
            raise DivergedError(
                f"embedder training diverged at embedder epoch {self.epoch}: {error}", self.history
            ) from None
        return torch.stack(losses).sum()

    def _draw(self, label: int, members: np.ndarray) -> Tensor:
        if len(members) > self.settings.max_samples_per_class:
            rng = stream_rng(self.seed, "target subset", self.epoch + 1, label)
            members = np.sort(rng.choice(members, self.settings.max_samples_per_class, replace=False))
        return torch.from_numpy(members)

    def _features(self, index: Tensor) -> Tensor:
        """Mean features (n, D) of the samples, all in one batch if memory allows."""
        size = max(1, BATCH_NUMBERS // self._patch_numbers)
        if len(index) <= size:
            return self.embedder.mean_features(self._patches(index))
        parts = [
            checkpoint(
                lambda part: self.embedder.mean_features(self._patches(part)),
                part,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for part in index.split(size)
        ]
        return torch.cat(parts)

    def _patches(self, index: Tensor) -> Tensor:
        return self.embedder.patches(self.x[index]) if self._prepared is None else self._prepared[index]

    @cached_property
    def _patch_numbers(self) -> int:
        """How many numbers the patches of one sample are."""
        return self.embedder.patches(self.x[:1]).numel()

    @cached_property
    def _prepared(self) -> Tensor | None:
        """The patches of all samples, made once: resizing and cutting take no parameter."""
        if len(self.x) * self._patch_numbers > KEPT_NUMBERS:
            return None
        size = max(1, min(256, BATCH_NUMBERS // self._patch_numbers))
        return torch.cat([self.embedder.patches(self.x[i : i + size]) for i in range(0, len(self.x), size)])

    @cached_property
    def _objective_settings(self) -> dict[str, Any]:
        """Those of the run that the objective takes; random directions are the run seed's."""
        ours = {**self.settings.model_dump(), "projection_seed": self.seed}
        return {
            name: ours[name] for name in objectives.list_settings(self.settings.objective) if ours.get(name) is not None
        }

    @cached_property
    def _constants(self) -> dict[str, Tensor]:
        """What of the objective depends on the proxy alone; stored once per proxy, body and settings."""
        name, settings, store = self.settings.objective, self._objective_settings, self.worker.store
        chosen = self._proxy_subset()
        inputs = {
            **self.worker.key_part(),
            "proxy": self.proxy.key,
            "chosen": state_digest({"chosen": chosen.numpy()}),
            "objective": name,
            "settings": settings,
            "source": objectives.hash_source(name),
        }
        key = stage_key(OBJECTIVE_STAGE, inputs)

        def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            features, labels = (t[chosen].to(self.worker.device) for t in (self.proxy.features, self.proxy.labels))
            return to_arrays(objectives.constants(name, features, labels, **settings)), {"inputs": inputs}

        artifact, reused = store.get_or_compute(OBJECTIVE_STAGE, key, compute)
        if reused:
            self.constants_reused_s = artifact.meta["seconds"]
        constants = {name: tensor.to(self.worker.device) for name, tensor in to_tensors(artifact.tensors).items()}
        self.n_proxy_skipped = int(constants.get("n_skipped_classes", torch.tensor(0)))
        return constants

    def _proxy_subset(self) -> Tensor:
        n, m = self.settings.proxy_samples, len(self.proxy.features)
        if n >= m:
            return torch.arange(m)
        return torch.from_numpy(np.sort(stream_rng(self.seed, "proxy subset").choice(m, n, replace=False)))

    def _note(self, value: float, lr: float | None = None, spent: float = 0.0) -> dict[str, Any]:
        if not math.isfinite(value):
            text = f"embedder training diverged: objective {value} at embedder epoch {self.epoch}"
            raise DivergedError(text, self.history)
        row = {"stage": EMBEDDER_STAGE, "epoch": self.epoch, "objective": value, "lr": lr, "wall_time_s": spent}
        row |= {"n_steps": int(lr is not None), "lr_integral": lr or 0.0}
        self.history.append(row)
        return row
