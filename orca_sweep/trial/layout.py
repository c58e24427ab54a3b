"""How the samples of a task become the tokens of a body. Needs no torch."""

import math
from dataclasses import dataclass

from orca_sweep.bodies.spec import BodySpec
from orca_sweep.config import TrialConfig
from orca_sweep.tasks import Task


def token_stride(length: int, target_length: int) -> int:
    """Returns the smallest divisor d of length with length / d <= target_length.

    Source: ORCA's 1D embedder (kernel = stride = d), Shen et al. 2023, arXiv 2302.05738.
    """
    return next(d for d in range(1, length + 1) if length % d == 0 and length // d <= target_length)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a task's samples become tokens of a body."""

    size: int
    """Length of the signal, or side of the image, that is cut into patches."""
    patch: int
    """Length of the signal, or side of the square, that a token sees."""
    fold: int
    """Tokens along a side that the body merges into one."""


def choose_layout(task: Task, spec: BodySpec, config: TrialConfig) -> Layout:
    """Returns the layout of a task for a body; 1D and 2D tasks suit bodies of either kind.

    A text body gets a signal as a sequence of patches and an image as a sequence of square patches, as small as
    ``embedder.target_length`` and the body's limit allow. A vision body gets an image resized to the body's size, and a
    signal folded row by row into the body's grid of tokens, resampled if its length is not a multiple.
    """
    if spec.dims == 2:
        fold = spec.image_size // spec.patch_size // spec.out_grid
        if task.dims == 2:
            return Layout(size=spec.image_size, patch=spec.patch_size, fold=fold)
        patch = math.ceil(task.sample_shape[1] / spec.max_tokens)
        return Layout(size=patch * spec.max_tokens, patch=patch, fold=fold)
    limit = spec.max_tokens // 2 if config.body.input_mode == "double" else spec.max_tokens
    max_tokens = min(config.embedder.target_length, limit)
    if task.dims == 1:
        length = task.sample_shape[1]
        return Layout(size=length, patch=token_stride(length, max_tokens), fold=1)
    longest = max(task.sample_shape[1:])
    patch = math.ceil(longest / math.isqrt(max_tokens))
    return Layout(size=patch * math.ceil(longest / patch), patch=patch, fold=1)
