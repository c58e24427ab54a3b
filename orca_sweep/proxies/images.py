"""Prepares proxy images before a body sees them: normalises them, and draws one augmented view of each."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies.records import Noise, Proxy
from orca_sweep.streams import stream_rng

PAD = 4
"""Black pixels on each side of an image before it is cropped to its own size."""
BLOCK = 256
"""Images that are measured at once."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How pixels in [0, 1] are normalised, per channel: (pixel - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_of: Literal["proxy", "body"]
    """Whose channels these are. The proxy's are normalised before images get the body's channels, the body's after."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """How a proxy's images are prepared; by default they stay as they are."""

    scaling: Scaling | None = None
    is_augmented: bool = False


@dataclass(frozen=True, kw_only=True)
class Views:
    """One augmented view of each of M images: its crop, and whether it is flipped."""

    offsets: np.ndarray
    """(M, 2): top and left of the crop in the padded image, 0 to 2 PAD."""
    flipped: np.ndarray
    """(M,)"""

    def __getitem__(self, rows: slice) -> "Views":
        return Views(offsets=self.offsets[rows], flipped=self.flipped[rows])


def draw_views(n: int) -> Views:
    """Returns random views of n images; the seed is fixed because features are computed once per proxy."""
    rng = stream_rng(0, "proxy augmentation")
    return Views(offsets=rng.integers(0, 2 * PAD + 1, size=(n, 2)), flipped=rng.integers(0, 2, size=n) == 1)


def apply_views(images: np.ndarray, views: Views) -> np.ndarray:
    """Returns each image (M, C, H, W) in its view: padded with black, cropped to its own size, flipped left to right.

    Source: ORCA's code computes proxy features with its training transform, so it sees each image in one such view.
    """
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)))
    crops = [
        image[:, top : top + height, left : left + width][:, :, :: -1 if is_flipped else 1]
        for image, (top, left), is_flipped in zip(padded, views.offsets, views.flipped, strict=True)
    ]
    return np.stack(crops)


def choose_proxy_scaling(proxy: Proxy, inputs: np.ndarray | Noise) -> Scaling:
    """Returns a proxy's own scaling: the published numbers in its record, or those measured on its loaded images.

    Noise has the mean and standard deviation of its distribution. A constant channel gets standard deviation 1.

    Raises:
        InputError: if the record has only one of mean and standard deviation, or a standard deviation not above 0.
        DataError: if images are not finite, or all channels are constant.
    """
    if proxy.channel_mean is not None or proxy.channel_std is not None:
        mean, std = proxy.channel_mean, proxy.channel_std
        if not mean or not std or min(std) <= 0 or not np.isfinite([*mean, *std]).all():
            raise InputError(
                f"proxy {proxy.name!r}: its record has channel_mean {proxy.channel_mean}, channel_std"
                f" {proxy.channel_std}. Give both, with channel_std above 0, or neither."
            )
        return Scaling(mean=mean, std=std, channels_of="proxy")
    if isinstance(inputs, Noise):
        n = inputs.image_shape[0]
        return Scaling(mean=(inputs.pixel_mean,) * n, std=(inputs.pixel_std,) * n, channels_of="proxy")
    means, stds = _measure_channels(inputs)
    if not np.isfinite([means, stds]).all():
        raise DataError(f"proxy {proxy.name!r}: its images hold NaN or infinite values. Remove them.")
    is_constant = np.array([inputs[:, k].min() == inputs[:, k].max() for k in range(inputs.shape[1])])
    if is_constant.all():
        raise DataError(
            f"proxy {proxy.name!r}: every channel is constant (mean {means.tolist()}), so its images cannot be"
            " normalised. Name a proxy whose images differ."
        )
    stds[is_constant] = 1
    return Scaling(mean=tuple(means.tolist()), std=tuple(stds.tolist()), channels_of="proxy")


def _measure_channels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each channel's mean and population standard deviation over all pixels of (M, C, H, W), in float64."""
    blocks = [images[i : i + BLOCK] for i in range(0, len(images), BLOCK)]
    n = math.prod(images.shape) / images.shape[1]
    mean = sum(block.sum(axis=(0, 2, 3), dtype=np.float64) for block in blocks) / n
    squares = sum(((block - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3)) for block in blocks)
    return mean, np.sqrt(squares / n)
