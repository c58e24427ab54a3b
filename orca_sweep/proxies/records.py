"""What a proxy is and what its data can be; needs neither torch nor a tokenizer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Pooling = Literal["mean", "token"]
"""A sample of tagged sentences: a phrase, averaged over its word pieces (``mean``), or a token, represented by its first
word piece (``token``)."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """Sentences with a tag for every token, as read; ``draw_samples`` draws labelled samples from them."""

    sentences: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    """For each token of each sentence, the index of its tag in ``names``."""
    names: tuple[str, ...]
    n_shuffles: int = 0
    """How many times labels are permuted after samples are drawn."""

    def __len__(self) -> int:
        return sum(map(len, self.sentences))


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Labelled runs of tokens in their sentences; a sample is a run in its context."""

    sentences: tuple[tuple[str, ...], ...]
    bounds: np.ndarray
    """(M, 3): sentence, first token, and the token after the last; in the order of sentences."""
    pooling: Pooling

    def __len__(self) -> int:
        return len(self.bounds)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Gaussian noise in whatever form the body takes: images, or word embeddings with the body's own mean and spread."""

    n: int
    n_tokens: int
    image_shape: tuple[int, int, int]
    pixel_mean: float = 0.5
    pixel_std: float = 1 / math.sqrt(12)
    """The defaults are the mean and standard deviation of a uniform distribution on [0, 1]."""

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True, kw_only=True)
class Features:
    """Precomputed features (M, D) for bodies of width D."""

    array: np.ndarray
    where: str
    """The file they come from, for messages."""

    def __len__(self) -> int:
        return len(self.array)


Inputs = np.ndarray | tuple[str, ...] | Tagged | Spans | Noise | Features
Form = Literal["plain", "tagged", "features"]


@dataclass(frozen=True, kw_only=True)
class ProxyData:
    """A proxy's samples and labels (M,): images float32 (M, C, H, W) in [0, 1], M texts, or another kind of input.

    Tagged sentences have no labels yet: ``draw_samples`` draws samples according to the pooling.
    """

    inputs: Inputs
    labels: np.ndarray
    fingerprint: str
    corpus: tuple[str, ...] = ()
    """All texts to pre-train on, if there are more than the labelled ones."""
    n_found: int | None = None
    """Samples before the cut to those used; None if none were left out."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy: what it is, and the function that loads it, given the folder of data files."""

    name: str
    kind: Literal["image", "text", "any", "none"] | None
    """Which bodies can embed it; None for a data set that must be read first."""
    n_classes: int | None
    """For tagged sentences, the number of kinds of phrases: the classes of ``embedder.proxy_pooling: mean``."""
    load: Callable[[Path], ProxyData]
    meaning: str
    source: str
    licence: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
    form: Form | None = None
    """Plain samples, tagged sentences, or precomputed features; None if only the data shows that."""
    channel_mean: tuple[float, ...] | None = None
    """Published mean of each channel, for pixels in [0, 1]; None: measured on the loaded images."""
    channel_std: tuple[float, ...] | None = None
    """Published standard deviation of each channel; given exactly if ``channel_mean`` is."""
    declaration: str | None = None
    """The text that declares it; None for a registered proxy."""
