"""The loss of embedder training: the distance of the target's classes to a proxy, on fresh samples in every epoch."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orca_sweep import objectives
from orca_sweep.bodies.network import to_arrays, to_tensors
from orca_sweep.errors import DataError
from orca_sweep.store import Artifact, stage_key, state_digest
from orca_sweep.streams import stream_rng
from orca_sweep.training.alignment_inputs import AlignmentInputs
from orca_sweep.training.feed import Feed
from orca_sweep.training.mean_features import MeanFeatures
from orca_sweep.training.model import Embedder1D, Embedder2D
from orca_sweep.training.worker import Worker

OBJECTIVE_STAGE = "objective"


class TargetClasses:
    """The target classes that can be aligned: those with at least two samples, because one sample has no spread."""

    def __init__(self, inputs: AlignmentInputs) -> None:
        labels = inputs.labels
        every = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.n_samples = sum(map(len, every))
        self.members = [members for members in every if len(members) > 1]
        self.n_skipped = len(every) - len(self.members)
        if not self.members:
            raise DataError(
                f"task {inputs.data.task.name!r}: {len(every)} classes in {self.n_samples} training samples, none with"
                " two, so no class can be aligned. Raise data.n_train."
            )

    def draw_samples(self, seed: int, epoch: int, n_most: int) -> list[Tensor]:
        """Returns, for each class, an index tensor of the samples that an epoch sees: at most ``n_most``."""
        return [self._draw_class(label, seed, epoch, n_most) for label in range(len(self.members))]

    def _draw_class(self, label: int, seed: int, epoch: int, n_most: int) -> Tensor:
        members = self.members[label]
        if len(members) > n_most:
            rng = stream_rng(seed, "target subset", epoch, label)
            members = np.sort(rng.choice(members, n_most, replace=False))
        return torch.from_numpy(members)


class ProxySide:
    """The part of the objective that depends only on the proxy: computed once per proxy, body and settings, and stored."""

    def __init__(self, inputs: AlignmentInputs, worker: Worker) -> None:
        self.proxy, self.worker = inputs.proxy, worker
        self.settings = inputs.config.embedder
        self.seed = inputs.config.seed_of("embedder-training")
        self.reused_s: float | None = None
        """Seconds that the constants had cost, if they were needed and came from the store."""

    @cached_property
    def objective_settings(self) -> dict[str, Any]:
        """The run's settings that the objective takes; its random directions depend on the run seed."""
        settings = {**self.settings.model_dump(), "projection_seed": self.seed}
        names = objectives.list_settings(self.settings.objective)
        return {name: settings[name] for name in names if settings.get(name) is not None}

    @cached_property
    def proxy_constants(self) -> dict[str, Tensor]:
        """The objective's constants, on the device."""
        artifact, is_reused = self._compute_once()
        if is_reused:
            self.reused_s = artifact.meta["seconds"]
        return {name: tensor.to(self.worker.device) for name, tensor in to_tensors(artifact.tensors).items()}

    def count_skipped_classes(self) -> int:
        """Returns the number of proxy classes that the objective cannot use."""
        return int(self.proxy_constants.get("n_skipped_classes", torch.tensor(0)))

    def _compute_once(self) -> tuple[Artifact, bool]:
        name, settings = self.settings.objective, self.objective_settings
        chosen = self._draw_subset()
        inputs = {
            **self.worker.key_part(),
            "proxy": self.proxy.key,
            "chosen": state_digest({"chosen": chosen.numpy()}),
            "objective": name,
            "settings": settings,
            "source": objectives.hash_source(name),
        }

        def compute_constants() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            features, labels = (t[chosen].to(self.worker.device) for t in (self.proxy.features, self.proxy.labels))
            return to_arrays(objectives.constants(name, features, labels, **settings)), {"inputs": inputs}

        return self.worker.store.get_or_compute(OBJECTIVE_STAGE, stage_key(OBJECTIVE_STAGE, inputs), compute_constants)

    def _draw_subset(self) -> Tensor:
        n, m = self.settings.proxy_samples, len(self.proxy.features)
        if n >= m:
            return torch.arange(m)
        return torch.from_numpy(np.sort(stream_rng(self.seed, "proxy subset").choice(m, n, replace=False)))


class AlignmentLoss:
    """The sum over target classes of class frequency times the distance of the class's features to the proxy's."""

    def __init__(self, embedder: Embedder1D | Embedder2D, inputs: AlignmentInputs, worker: Worker) -> None:
        self.settings = inputs.config.embedder
        self.seed = inputs.config.seed_of("embedder-training")
        self.classes = TargetClasses(inputs)
        self.features = MeanFeatures(embedder, Feed(inputs.data.train.x, worker.device))
        self.proxy = ProxySide(inputs, worker)

    def compute_loss(self, epoch: int) -> Tensor:
        """Returns the embedder's current loss on the samples of an epoch (from 1).

        Raises:
            objectives.NonFiniteError: if features are not finite.
        """
        drawn = self.classes.draw_samples(self.seed, epoch, self.settings.max_samples_per_class)
        features = self.features.compute_means(torch.cat(drawn)).split([len(index) for index in drawn])
        name, settings, constants = self.settings.objective, self.proxy.objective_settings, self.proxy.proxy_constants
        losses = [
            objectives.distance(name, constants, part, **settings) * (len(members) / self.classes.n_samples)
            for part, members in zip(features, self.classes.members, strict=True)
        ]
        return torch.stack(losses).sum()
