"""What a body is: its record, its families, and the published weights along its pre-training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orca_sweep.bodies.configs import fill_config
from orca_sweep.proxies import Proxy

Architecture = Literal["roberta", "bert", "gpt2", "gpt_neox", "swin", "vit"]
DIMS: Mapping[str, int] = {"roberta": 1, "bert": 1, "gpt2": 1, "gpt_neox": 1, "swin": 2, "vit": 2}
"""1 for families that take sequences, 2 for families that take images."""
DECODERS = ("gpt2", "gpt_neox")
"""Families whose tokens attend only to earlier tokens."""
PICTURE_CHANNELS = 3
"""Channels of the picture that the released dense predictor of images learns behind a text body, which has none."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """How one of our own small bodies is pre-trained.

    The number of steps does not depend on the fraction of the corpus: a smaller fraction means less data at equal
    compute, not less training.
    """

    corpus: Proxy
    """The data set that it learns from."""
    task: Literal["classification", "masked-tokens"]
    steps: int
    batch_size: int
    lr: float
    n_held_out: int
    """Corpus items that are never trained on; they score the pre-training."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Published weights at one amount of pre-training: a hub id or folder per ``body.pretrain_seed``."""

    locations: tuple[str, ...]
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body: what it is, where its weights come from, and which tasks it can take."""

    name: str
    meaning: str
    source: str
    licence: str
    architecture: Architecture | None
    """None for a hub id: only its config states it."""
    location: str | None = None
    """Hub id or folder; None for our own small bodies."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None for the newest."""
    only_pickle: bool = False
    """The folder holds its weights only as a pickle: ``body.allow_pickle`` must be set."""
    package: str | None = None
    """Python package that carries the weights in its folder ``model``."""
    extra: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """transformers config of our own small bodies."""
    pretrain: PretrainRecipe | None = None
    ladder: Mapping[float, Rung] = field(default_factory=dict)
    """Published weights by the share of the corpus (or of the training) they have seen; the full body is 1."""
    published_layers: int | None = None
    """Layers (Swin: blocks) of a published body, if known without its config."""
    published_channels: int | None = None
    """Image channels of a published body, if known without its config on the hub."""

    @property
    def fractions(self) -> tuple[float, ...] | None:
        """The available pre-training fractions; None if any fraction can be made."""
        return None if self.pretrain is not None else (0.0, *sorted({*self.ladder, 1.0}))

    @property
    def dims(self) -> int | None:
        """1 for text bodies, 2 for vision bodies, None if not yet known."""
        return DIMS[self.architecture] if self.architecture else None

    @property
    def n_channels(self) -> int | None:
        """Image channels that the body takes; None for text bodies and where only the config on the hub states it."""
        if self.pretrain is None or self.dims != 2:
            return self.published_channels
        return int(self.settings.get("num_channels", 3))  # 3 is transformers' default

    @property
    def n_layers(self) -> int | None:
        """Transformer layers (Swin: blocks); None where only the config on the hub states it."""
        if self.pretrain is None:
            return self.published_layers
        return count_config_layers(str(self.architecture), self.settings)


def count_config_layers(family: str, raw: Mapping[str, Any]) -> int:
    """Returns the layers (Swin: blocks) that a family's config asks for."""
    settings = fill_config(family, raw)
    if family == "swin":
        return sum(settings["depths"])
    return int(settings["n_layer" if family == "gpt2" else "num_hidden_layers"])
