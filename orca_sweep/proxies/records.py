"""What a proxy is and what its data can be; needs neither torch nor a tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Tagged:
    """Labelled tokens in their sentences; a sample is one token in context."""

    sentences: tuple[tuple[str, ...], ...]
    chosen: np.ndarray
    """(M, 2): sentence and position of each labelled token, sentences in order."""

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise: images, or word embeddings of the body's own mean and spread, whatever the body takes."""

    n: int
    n_tokens: int
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True)
class Features:
    """Features (M, D) that were made beforehand for bodies of width D."""

    array: np.ndarray
    where: str

    def __len__(self) -> int:
        return len(self.array)


Inputs = np.ndarray | tuple[str, ...] | Tagged | Noise | Features


@dataclass(frozen=True)
class ProxyData:
    """A proxy's samples and labels (M,): images float32 (M, C, H, W) in [0, 1], M texts, or another kind of input."""

    inputs: Inputs
    labels: np.ndarray
    fingerprint: str
    corpus: tuple[str, ...] = ()
    """All texts to pre-train on, if they are more than the labelled ones."""


@dataclass(frozen=True)
class Proxy:
    """One proxy: what it is and the function that loads it, given the folder of data files."""

    name: str
    kind: Literal["image", "text", "any", "none"] | None
    """What bodies can embed it; None for a data set that has to be read first."""
    n_classes: int | None
    load: Callable[[Path], ProxyData]
    meaning: str
    source: str
    licence: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
