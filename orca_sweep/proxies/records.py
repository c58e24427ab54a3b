"""What a proxy is and what its data can be; needs neither torch nor a tokenizer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Pooling = Literal["mean", "token"]
"""What a sample of tagged sentences is: a phrase, averaged over its word pieces (``mean``), or one token, by its first
word piece (``token``)."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """Sentences with a tag for every token, as read; ``draw_samples`` draws labelled samples from them."""

    sentences: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    """For each token of each sentence, the index of its tag in ``names``."""
    names: tuple[str, ...]
    n_shuffles: int = 0
    """How often labels are permuted after samples are drawn."""

    def __len__(self) -> int:
        return sum(map(len, self.sentences))


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Labelled runs of tokens in their sentences; a sample is one run in context."""

    sentences: tuple[tuple[str, ...], ...]
    bounds: np.ndarray
    """(M, 3): sentence, first token, and the token after the last; sentences in order."""
    pooling: Pooling

    def __len__(self) -> int:
        return len(self.bounds)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise: images, or word embeddings of the body's own mean and spread, whatever the body takes."""

    n: int
    n_tokens: int
    image_shape: tuple[int, int, int]
    pixel_mean: float = 0.5
    pixel_std: float = 1 / math.sqrt(12)
    """By default, mean and standard deviation of a uniform distribution on [0, 1]."""

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True)
class Features:
    """Features (M, D) that were made beforehand for bodies of width D."""

    array: np.ndarray
    where: str

    def __len__(self) -> int:
        return len(self.array)


Inputs = np.ndarray | tuple[str, ...] | Tagged | Spans | Noise | Features
Form = Literal["plain", "tagged", "features"]


@dataclass(frozen=True)
class ProxyData:
    """A proxy's samples and labels (M,): images float32 (M, C, H, W) in [0, 1], M texts, or another kind of input.

    Tagged sentences have no labels yet: the samples depend on the pooling (``draw_samples``).
    """

    inputs: Inputs
    labels: np.ndarray
    fingerprint: str
    corpus: tuple[str, ...] = ()
    """All texts to pre-train on, if they are more than the labelled ones."""
    n_found: int | None = None
    """Samples that there were before they were cut to those used; None if none were left out."""


@dataclass(frozen=True)
class Proxy:
    """One proxy: what it is and the function that loads it, given the folder of data files."""

    name: str
    kind: Literal["image", "text", "any", "none"] | None
    """What bodies can embed it; None for a data set that has to be read first."""
    n_classes: int | None
    """For tagged sentences, the kinds of phrases: the classes of ``embedder.proxy_pooling: mean``."""
    load: Callable[[Path], ProxyData]
    meaning: str
    source: str
    licence: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
    form: Form | None = None
    """Plain samples, tagged sentences, or precomputed features; None if only reading the data tells."""
    channel_mean: tuple[float, ...] | None = None
    """Published mean of each channel, for pixels in [0, 1]; None = measured on the loaded images."""
    channel_std: tuple[float, ...] | None = None
    """Published standard deviation of each channel, given together with ``channel_mean``."""
    declaration: str | None = None
    """The text that declares it, if one does."""
