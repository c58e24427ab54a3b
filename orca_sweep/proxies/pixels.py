"""Reads pictures of every kind as pixels in [0, 1], scaled by the range of their type."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import DataError

UNEVEN_SIDE = 64
"""Pictures of different sizes are resized to this side."""
WHOLE_16_BIT = 65535
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose 16-bit numbers the library reads as 32-bit ones."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, struct.error, zlib.error)
"""What the library raises on a damaged file."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One encoded picture: a file, or its bytes."""

    where: str
    """The picture's name in messages."""
    file: Path | bytes


def stack_pictures(pictures: Sequence[Picture]) -> np.ndarray:
    """Returns pictures as one array float32 (M, 3, H, W) in [0, 1].

    Pictures of different sizes are resized to 64 x 64 (bicubic, antialiased where they shrink).

    Raises:
        DataError: if a picture cannot be read or has no known range (named), or all pixels of all pictures are equal.

    Cost: decodes each picture once, or twice where only decoding shows that sizes differ.
    """
    side = None if len({_read_size(picture) for picture in pictures}) == 1 else UNEVEN_SIDE
    pixels = [read_pixels(picture, side) for picture in pictures]
    if len({array.shape for array in pixels}) > 1:  # some are rotated by a quarter turn
        pixels = [read_pixels(picture, UNEVEN_SIDE) for picture in pictures]
    stacked = np.stack(pixels).transpose(0, 3, 1, 2)
    if stacked.min() == stacked.max():
        raise DataError(
            f"{pictures[0].where}: all pixels of all {len(pictures)} images are {stacked.min():g}. A proxy's images must"
            " differ. Look at the files."
        )
    return np.ascontiguousarray(stacked)


def read_pixels(picture: Picture, side: int | None = None) -> np.ndarray:
    """Returns one picture as float32 (H, W, 3) in [0, 1], or (side, side, 3).

    8-bit values are divided by 255 and 16-bit values by 65535; floats must lie within [0, 1]. Transparent pixels are laid
    on white. The camera's orientation mark is applied.

    Raises:
        DataError: if the picture is damaged, too large, or has several frames or values of no known range; names it.
    """
    with _open_picture(picture) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # the first frame of an MPO is the photograph
            raise DataError(
                f"{picture.where}: it has {image.n_frames} frames, but a sample is one picture. Save the frames as files."
            )
        from PIL import ImageOps

        pixels = _scale_to_unit_range(ImageOps.exif_transpose(image), image.format, picture.where)
    return pixels if side is None else _resize_pixels(pixels, side)


def _read_size(picture: Picture) -> tuple[int, int]:
    with _open_picture(picture) as image:
        width, height = image.size
        return width, height


@contextmanager
def _open_picture(picture: Picture) -> Iterator[Any]:
    """Yields the picture with only its header read; errors in reading the rest become DataErrors too."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError("images need the package pillow, which is not installed. Run: pip install pillow") from None
    file = picture.file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
        with image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{picture.where}: it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which could exhaust the memory. Make it"
            " smaller."
        ) from None
    except UNREADABLE as error:
        pointer = None if isinstance(file, bytes) else pointer_problem(file)
        raise DataError(
            pointer
            or f"{picture.where}: this image cannot be read ({_describe_error(error)}). Get the file again, or remove it."
        ) from None


def _describe_error(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # The library calls a file that it got as bytes by its memory address.
    return f"{type(error).__name__}: {lines[0].split(' <_io.')[0]}" if lines else type(error).__name__


def _scale_to_unit_range(image: Any, file_format: str | None, where: str) -> np.ndarray:
    """Returns the pixels (H, W, 3) in [0, 1] of a picture of any mode."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and file_format in SIXTEEN_BIT_FORMATS):
        return _repeat_grey(np.asarray(image).astype(np.float32) / WHOLE_16_BIT)
    if mode == "I":
        raise DataError(
            f"{where}: 32-bit whole numbers do not define which value is white. Save it with 8 or 16 bits, or as floats"
            " within [0, 1]."
        )
    if mode == "F":
        return _repeat_grey(_check_floats(np.asarray(image), where))
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _lay_on_white(image.convert("RGBA"), where)
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def _check_floats(values: np.ndarray, where: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also NaN
        raise DataError(
            f"{where}: its floats go from {low:g} to {high:g}, so black and white are unknown. Scale them to [0, 1]."
        )
    return values.astype(np.float32)


def _repeat_grey(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _lay_on_white(image: Any, where: str) -> np.ndarray:
    """Returns the pixels (H, W, 3) of an RGBA picture on white, as viewers show it."""
    layers = np.asarray(image).astype(np.float32) / 255
    colours, alpha = layers[:, :, :3], layers[:, :, 3:]
    pixels = colours * alpha + (1 - alpha)
    if pixels.min() == pixels.max() and alpha.min() < alpha.max():
        raise DataError(
            f"{where}: only its transparency holds a picture, which vanishes on the white background of transparent images."
            " Save it on a background of another colour."
        )
    return pixels


def _resize_pixels(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((side, side), Image.Resampling.BICUBIC))
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.clip(np.stack(channels, axis=2), 0, 1)  # bicubic overshoots at edges
