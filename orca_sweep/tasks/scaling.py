"""Normalisation of inputs: measured once over the training samples, in blocks, and applied to all three splits.

Sums are plain NumPy additions in double precision over blocks of a fixed size, without matrix products. Every node
therefore computes the same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from orca_sweep.config import Normalise
from orca_sweep.data import Array, Rows, cut_into_chunks, fingerprint
from orca_sweep.errors import DataError

EPS = 1e-5
"""Added to each standard deviation per point, as in the reference, so that constant points stay finite."""
LOOKED_NUMBERS = 2**22
"""How many numbers of raw inputs are measured for the trial's row; nothing else would need all of a large file."""
BLOCK_NUMBERS = 2**20
"""How many numbers are converted to double precision at once; the bits of the sums depend on it."""
FAR_MEAN, SMALL_SPREAD, LARGE_SPREAD = 0.5, 0.5, 2.0
"""A channel is far from zero mean and unit spread if its mean is further from 0, or its spread outside these bounds."""
MOST_LOST = 0.01
"""The largest rounding error of float32 that is accepted, as a share of a channel's spread."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and spread of each channel of samples (N, C, ...), over samples and space."""

    n_samples: int
    n_points: int
    """Numbers per channel: samples times points of a sample."""
    mean: np.ndarray
    """(C,) float64."""
    squares: np.ndarray
    """(C,) float64: sum of squared differences from the mean."""
    low: np.ndarray
    high: np.ndarray
    is_one_hot: bool
    """Whether there are several channels, all numbers are 0 or 1, and no point has two ones."""
    n_flat: int
    """The number of channels of single samples that are constant within their sample."""

    @classmethod
    def of_block(cls, block: np.ndarray) -> "Moments":
        """Returns the moments of samples (n, C, ...), n > 0."""
        n, C = block.shape[:2]
        wide = np.array(block, np.float64, order="C").reshape(n, C, math.prod(block.shape[2:]))
        n_points = n * wide.shape[2]
        mean = wide.sum(axis=(0, 2)) / n_points
        low, high = wide.min(axis=2), wide.max(axis=2)
        is_one_hot = C > 1 and bool(low.min() >= 0 and high.max() <= 1)
        is_one_hot = is_one_hot and bool(((wide == 0) | (wide == 1)).all() and wide.sum(axis=1).max() <= 1)
        return cls(
            n_samples=n,
            n_points=n_points,
            mean=mean,
            squares=((wide - mean[:, None]) ** 2).sum(axis=(0, 2)),
            low=low.min(axis=0),
            high=high.max(axis=0),
            is_one_hot=is_one_hot,
            n_flat=int((low == high).sum()),
        )

    def join(self, more: "Moments") -> "Moments":
        """Returns the moments of both parts together.

        Source: Chan, Golub & LeVeque 1983, eq. 2.1, which loses no digits if the mean is far from zero.
        """
        n = self.n_points + more.n_points
        step = more.mean - self.mean
        return Moments(
            n_samples=self.n_samples + more.n_samples,
            n_points=n,
            mean=self.mean + step * (more.n_points / n),
            squares=self.squares + more.squares + step**2 * (self.n_points * more.n_points / n),
            low=np.minimum(self.low, more.low),
            high=np.maximum(self.high, more.high),
            is_one_hot=self.is_one_hot and more.is_one_hot,
            n_flat=self.n_flat + more.n_flat,
        )

    @property
    def is_constant(self) -> np.ndarray:
        """(C,): whether all numbers of a channel are equal."""
        return self.low == self.high

    @property
    def spread(self) -> np.ndarray:
        """(C,): standard deviation of each channel; exactly 0 where it is constant."""
        return np.where(self.is_constant, 0.0, np.sqrt(self.squares / self.n_points))

    @property
    def text(self) -> str:
        """Mean and spread in words: of each channel if there are at most 4, else the ranges over channels."""
        C = len(self.mean)
        if C <= 4:
            each = ", ".join(f"{mean:.3g} (spread {spread:.3g})" for mean, spread in self._mean_spread_pairs())
            text = f"mean {each}" if C == 1 else f"means of {C} channels {each}"
        else:
            text = (
                f"means of {C} channels {self.mean.min():.3g} to {self.mean.max():.3g}, spreads {self.spread.min():.3g}"
                f" to {self.spread.max():.3g}"
            )
        n_constant = int(self.is_constant.sum())
        return f"{text}, {n_constant} constant" if n_constant else text

    def _mean_spread_pairs(self) -> list[tuple[float, float]]:
        return list(zip(self.mean.tolist(), self.spread.tolist(), strict=True))


def measure_channels(values: Array, most_numbers: int | None = None) -> Moments:
    """Returns the moments of samples (N, C, ...), N > 0.

    Args:
        values: the samples, in memory or on disk.
        most_numbers: about how many numbers to read, from evenly spaced samples; None reads all.

    Cost: one pass in blocks.
    """
    n_kept = len(values)
    if most_numbers is not None:
        n_kept = min(n_kept, max(1, most_numbers // max(1, math.prod(values.shape[1:]))))
    if n_kept < len(values):
        index = np.linspace(0, len(values) - 1, n_kept).astype(np.int64)
        values = values.take(index) if isinstance(values, Rows) else values[index]
    whole: Moments | None = None
    for part in cut_into_chunks(values, BLOCK_NUMBERS):
        moments = Moments.of_block(values[part])
        whole = moments if whole is None else whole.join(moments)
    if whole is None:
        raise DataError("no samples to measure. Every split needs some. Check the files.")
    return whole


def find_far_channels(moments: Moments) -> list[int]:
    """Returns the channels that are far from zero mean and unit spread."""
    spread = moments.spread
    far = (np.abs(moments.mean) > FAR_MEAN) | (spread < SMALL_SPREAD) | (spread > LARGE_SPREAD)
    return np.flatnonzero(far).tolist()


# Scales of inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InputScale:
    """The change to the inputs of all three splits, and the statistics behind it."""

    how: Normalise
    change: Callable[[np.ndarray], np.ndarray] | None
    """Samples (n, C, ...) -> normalised float32; None leaves inputs as they are."""
    digest: str
    """Identifies everything that ``change`` depends on."""
    text: str
    """The change in words, with the measured statistics."""


def measure_input_scale(train: Array, how: Normalise, where: str) -> InputScale:
    """Returns how to normalise inputs, measured over the training samples (N, C, ...) alone.

    - ``channel``: subtracts each channel's mean and divides by its standard deviation; constant channels are divided by 1.
    - ``pointwise``: does so for each channel and point, with 1e-5 added to the deviation as in the reference.
    - ``sample``: scales each channel of a sample by its own mean and deviation; constant ones become 0.
    - ``none``: changes nothing.

    One-hot inputs are not measurements and always stay as they are.

    Raises:
        DataError: if the training inputs are constant, or ``sample`` would make all of them 0.

    Cost: one pass over training, two for ``pointwise``; about four million numbers for ``none``.
    """
    moments = measure_channels(train, LOOKED_NUMBERS if how == "none" else None)
    n_measured = "all" if moments.n_samples == len(train) else f"{moments.n_samples} of"
    over = f"over {n_measured} {len(train)} training samples: {moments.text}"
    if how != "none" and moments.is_one_hot:
        text = f"none: one-hot inputs stay as they are (data.normalise {how}); {over}"
        return InputScale(how="none", change=None, digest="", text=text)
    if 1 < len(train) == moments.n_samples and moments.is_constant.all():
        raise DataError(f"{where}: the inputs are constant: {moments.low[0]:g} in every one of {len(train)} training"
                        " samples. There is nothing to learn from. Check the file, or the task's load function.")  # fmt: skip
    if how == "none":
        n_far = 0 if moments.is_one_hot else len(find_far_channels(moments))
        far = f"; {n_far} of {len(moments.mean)} channels far from zero mean and unit spread" if n_far else ""
        return InputScale(how=how, change=None, digest="", text=f"none; {over}{far}")
    if how == "sample":
        return _scale_by_sample(moments, len(train), over, where)
    if how == "pointwise":
        mean, std = measure_points(train)
    else:
        axes = (1, -1, *[1] * (len(train.shape) - 2))
        mean, std = moments.mean.reshape(axes), np.where(moments.is_constant, 1.0, moments.spread).reshape(axes)
    return InputScale(
        how=how,
        change=lambda batch: ((batch.astype(np.float64) - mean) / std).astype(np.float32),
        digest=fingerprint(mean, std),
        text=f"{how}; {over}",
    )


def _scale_by_sample(moments: Moments, n: int, over: str, where: str) -> InputScale:
    n_all = n * len(moments.mean)
    if moments.n_flat == n_all:
        raise DataError(f"{where}: data.normalise = 'sample' would make all inputs 0: each channel is constant within every"
                        " sample. Use channel.")  # fmt: skip
    flat = (
        f", {moments.n_flat} of {n_all} channels of single samples are constant and become 0" if moments.n_flat else ""
    )
    return InputScale(how="sample", change=scale_each_sample, digest="sample", text=f"sample; {over}{flat}")


def scale_each_sample(batch: np.ndarray) -> np.ndarray:
    """Returns samples (n, C, ...) as float32, each channel of each sample with zero mean and unit deviation over space.

    Channels that are constant within a sample become 0.
    """
    n, C = batch.shape[:2]
    wide = np.array(batch, np.float64, order="C").reshape(n, C, math.prod(batch.shape[2:]))
    is_flat = (wide == wide[:, :, :1]).all(axis=2, keepdims=True)
    centred = wide - wide.mean(axis=2, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=2, keepdims=True))
    scaled = np.where(is_flat, 0.0, centred / np.where(is_flat, 1.0, spread))
    return scaled.astype(np.float32).reshape(batch.shape)


def map_samples(
    values: Array, function: Callable[[np.ndarray], np.ndarray], digest: str, shape: tuple[int, ...] | None = None
) -> Array:
    """Returns samples with a function applied, as float32: at once if they are in memory, else when they are read.

    Cost: for samples in memory, one more array of the result's size; the function gets one block at a time.
    """
    if isinstance(values, Rows):
        return values.map(function, digest, shape)
    whole = np.empty((len(values), *(shape or values.shape[1:])), np.float32)
    for part in cut_into_chunks(values):
        whole[part] = function(values[part])
    return whole


def measure_points(values: Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean, and standard deviation plus 1e-5, over samples, (1, ...) each; NaN are left out.

    Cost: three passes in blocks.
    """
    return _measure(values, (0,))


def measure_each_channel(values: Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean, and standard deviation plus 1e-5, over samples and space, (1, C, 1 ...); NaN are left out.

    Cost: three passes in blocks.
    """
    return _measure(values, (0, *range(2, len(values.shape))))


def _measure(values: Array, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Measures in double precision, block by block, in two passes, so that a mean far from zero costs no digits."""
    parts = cut_into_chunks(values)

    def sum_over_blocks(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        blocks = (values[part].astype(np.float64) for part in parts)
        return np.sum([np.nansum(function(block), axis=axes, keepdims=True) for block in blocks], 0)

    n = np.maximum(sum_over_blocks(lambda block: ~np.isnan(block)), 1)  # masked targets have gaps
    mean = sum_over_blocks(lambda block: block) / n
    spread = np.sqrt(sum_over_blocks(lambda block: (block - mean) ** 2) / n)
    return mean, spread + EPS


# Rounding to float32 ------------------------------------------------------------------------------


class RoundingLoss:
    """The rounding error of a file's numbers as float32, summed block by block."""

    def __init__(self) -> None:
        """Starts without any error."""
        self.moments: Moments | None = None
        self.lost = np.zeros(0)

    def add(self, rows: np.ndarray, small: np.ndarray) -> None:
        """Adds rows (n, C, ...), given as in the file and as float32."""
        if not len(rows) or (rows.dtype.itemsize <= 2 and rows.dtype.kind in "iu") or rows.dtype.kind not in "iuf":
            return
        if rows.dtype.kind == "f" and rows.dtype.itemsize <= 4:
            return
        block = rows.astype(np.float64)
        lost = ((block - small) ** 2).sum(axis=(0, *range(2, rows.ndim)))
        moments = Moments.of_block(block)
        self.lost = lost if self.moments is None else self.lost + lost
        self.moments = moments if self.moments is None else self.moments.join(moments)

    def check(self, where: str) -> None:
        """Refuses a channel whose rounding error exceeds a hundredth of its spread.

        Raises:
            DataError: with the channel, its mean and spread, and the distance between float32 numbers there.
        """
        if self.moments is None:
            return
        moments, most = self.moments, np.maximum(np.abs(self.moments.low), np.abs(self.moments.high))
        # Variation below 1e-10 of a channel's size is the rounding error of whoever wrote the file.
        varies = moments.spread > 1e-10 * most
        wrong = varies & (np.sqrt(self.lost / moments.n_points) > MOST_LOST * moments.spread)
        if wrong.any():
            i = int(np.argmax(wrong))
            step = float(np.spacing(np.float32(most[i])))
            raise DataError(
                f"{where}: channel {i} has mean {moments.mean[i]:.9g} and a standard deviation of {moments.spread[i]:.3g},"
                f" but inputs are kept as float32, which has steps of {step:.3g} there. Subtract the mean in the file"
                " first."
            )


def add_preparation(scale: InputScale, preparation: str) -> InputScale:
    """Returns the scale with a text that also says what the load function has done to inputs before."""
    return replace(scale, text=f"{scale.text}; given as {preparation}") if preparation else scale
