"""What the layers before and after a body need to know about it, read from its config. Needs neither torch nor transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orca_sweep.bodies.records import DIMS


@dataclass(frozen=True, kw_only=True)
class BodySpec:
    """What the layers before and after a body need to know about it, read from its config."""

    architecture: str
    width_in: int
    width_out: int
    max_tokens: int
    """Longest sequence (1D), or the number of patches (2D)."""
    image_size: int = 0
    patch_size: int = 0
    in_channels: int = 0
    out_grid: int = 0
    """Tokens along each side of the last feature map (2D)."""

    @property
    def dims(self) -> int:
        """1 for sequences, 2 for images."""
        return DIMS[self.architecture]


def make_body_spec(family: str, settings: Mapping[str, Any]) -> BodySpec:
    """Returns the widths and sizes of a body of a supported family.

    Args:
        family: a supported family.
        settings: what ``configs.fill_config`` returns.
    """
    if DIMS[family] == 2:
        side = settings["image_size"] // settings["patch_size"]
        width = settings["embed_dim" if family == "swin" else "hidden_size"]
        shrink = 2 ** (len(settings["depths"]) - 1) if family == "swin" else 1
        return BodySpec(
            architecture=family, width_in=width, width_out=width * shrink, max_tokens=side * side,
            image_size=settings["image_size"], patch_size=settings["patch_size"], in_channels=settings["num_channels"],
            out_grid=side // shrink,
        )  # fmt: skip
    width, longest = ("n_embd", "n_positions") if family == "gpt2" else ("hidden_size", "max_position_embeddings")
    offset = settings["pad_token_id"] + 1 if family == "roberta" else 0
    return BodySpec(
        architecture=family,
        width_in=settings[width],
        width_out=settings[width],
        max_tokens=settings[longest] - offset,
    )
