"""The inputs of stage 2: proxy features and target labels, each computed once and stored."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from orca_sweep.bodies.inputs import MAX_TEXT_TOKENS, RAW, compute_input_features, count_cut_texts
from orca_sweep.bodies.network import LoadedBody, to_tensors
from orca_sweep.config import TrialConfig
from orca_sweep.proxies import ProxyData, Treatment
from orca_sweep.store import stage_key
from orca_sweep.tasks import TaskData, alignment_labels
from orca_sweep.training.worker import Worker

PROXY_STAGE = "proxy-features"
LABEL_STAGE = "pseudo-labels"


@dataclass(frozen=True, kw_only=True)
class ProxyFeatures:
    """Features (M, D) and labels (M,) of a whole proxy under one body's input layer."""

    features: Tensor
    labels: Tensor
    key: str
    seconds: float
    reused: bool
    n_texts_cut: int | None = None
    """Texts of which only the first tokens were read; None if the samples are not texts."""


@dataclass(frozen=True, kw_only=True)
class AlignmentInputs:
    """What embedder training depends on besides the embedder: target data and labels, a proxy, a body and the config."""

    data: TaskData
    labels: np.ndarray
    """A label per training sample."""
    proxy: ProxyFeatures
    body: LoadedBody
    config: TrialConfig


def proxy_features(proxy: ProxyData, body: LoadedBody, worker: Worker, treatment: Treatment = RAW) -> ProxyFeatures:
    """Returns the mean over tokens of the body's input layer for each of the proxy's samples; stored once per sweep.

    Depends only on the samples, the treatment of images and the body's input layer: the transformer never runs.
    """
    inputs = {
        **worker.key_part(),
        "proxy": proxy.fingerprint,
        "input_layer": body.hash_input_layer(),
        "text_tokens": MAX_TEXT_TOKENS,
    }
    key = stage_key(PROXY_STAGE, {**inputs, "image_size": body.spec.image_size, "treatment": asdict(treatment)})

    def compute_features() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        features = compute_input_features(body, proxy.inputs, worker.device, treatment=treatment).numpy()
        meta = {"n_texts_cut": count_cut_texts(body, proxy.inputs)}
        return {"features": features, "labels": proxy.labels}, meta

    artifact, is_reused = worker.store.get_or_compute(PROXY_STAGE, key, compute_features)
    return ProxyFeatures(
        **to_tensors(artifact.tensors),
        key=key,
        seconds=artifact.meta["seconds"],
        reused=is_reused,
        n_texts_cut=artifact.meta["n_texts_cut"],
    )


def target_labels(data: TaskData, n_clusters: int, split_seed: int, worker: Worker) -> tuple[np.ndarray, float | None]:
    """Returns a label per training sample, and the seconds that the labels had cost if they come from the store.

    Classification has its own labels; for other targets, the labels are clusters, which depend only on the data and are
    computed once.
    """
    if data.task.kind == "classification":
        return alignment_labels(data, n_clusters, split_seed), None
    inputs = {**worker.key_part(), "data": data.fingerprint, "n_clusters": n_clusters, "split_seed": split_seed}

    def compute_labels() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"labels": alignment_labels(data, n_clusters, split_seed)}, {}

    artifact, is_reused = worker.store.get_or_compute(LABEL_STAGE, stage_key(LABEL_STAGE, inputs), compute_labels)
    return artifact.tensors["labels"], artifact.meta["seconds"] if is_reused else None
