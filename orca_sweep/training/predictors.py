"""Predictors: the layers after a body, for labels and for dense targets. Dense predictors are ORCA's released ones, or linear.

B batch, T tokens, D width, C channels, H W space, L sequence, P pixels along a token's side, K classes.
"""

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DECODER_STD = 0.02
"""Standard deviation of the fresh weights of ORCA's two-dimensional dense predictor."""


def window_weights(length: int, n_windows: int) -> Tensor:
    """Returns the matrix (n_windows, length) that averages ``length`` numbers over windows.

    Window i runs from floor(i * length / n_windows) up to, not including, ceil((i + 1) * length / n_windows).
    Windows overlap if ``n_windows`` does not divide ``length``. With more windows than numbers, each window holds one or
    two numbers.
    """
    window, position = torch.arange(n_windows)[:, None], torch.arange(length)
    first, end = window * length // n_windows, -((window + 1) * -length // n_windows)
    inside = ((position >= first) & (position < end)).float()
    return inside / inside.sum(dim=1, keepdim=True)


def average_windows(values: Tensor, dim: int, n_windows: int) -> Tensor:
    """Returns ``values`` with dimension ``dim`` averaged over ``n_windows`` windows: see ``window_weights``.

    Equals torch's adaptive average pooling, but as a matrix product, whose gradient is deterministic on a GPU too.
    Computes in single precision at least: in bfloat16 a weight of 1/3 is off by 0.2%.
    """
    length = values.shape[dim]
    if length == n_windows:
        return values
    with torch.autocast(values.device.type, enabled=False):
        precise = values.to(torch.promote_types(values.dtype, torch.float32))
        weights = window_weights(length, n_windows).to(precise)
        return (precise.movedim(dim, -1) @ weights.T).movedim(-1, dim)


class Predictor(nn.Module, abc.ABC):
    """The layers after a body, in two parts: ``pool`` reduces the hidden states, ``forward`` predicts from the result."""

    @abc.abstractmethod
    def pool(self, hidden: Tensor) -> Tensor:
        """Returns the part of the hidden states (B, T, D) that the predictor uses; it involves no parameter."""


class VectorPredictor(Predictor):
    """Mean over tokens (``pool``), then a linear layer: (B, T, D) -> (B, K).

    Fresh weights and biases are uniform within 1 / sqrt(D), as in ORCA.
    """

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_outputs)

    def pool(self, hidden: Tensor) -> Tensor:
        """Returns the mean over tokens, (B, D); it involves no parameter."""
        return hidden.mean(dim=1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Returns logits of pooled states."""
        return self.linear(pooled)


class DensePredictor(Predictor):
    """A predictor of one value per channel and point, which uses every token."""

    def pool(self, hidden: Tensor) -> Tensor:
        """Returns all hidden states."""
        return hidden


class BlockMeanPredictor(DensePredictor):
    """ORCA's dense predictor of signals, (B, T, D) -> (B, C, L): means of blocks of features, without parameters.

    The D features of each token are averaged over C * stride windows, and the results of all tokens in a row are read as
    (C, L). With one channel, each token gives its own stretch of the signal. With several, channel 0 comes from the first
    T / C tokens, and so on, as in ORCA's code, although none of its tasks has several channels.

    A vision body receives the signal folded into the rows of an image and may merge ``fold`` x ``fold`` tokens into one,
    a case that ORCA does not have. A merged token gives, for each channel, the stretches of all tokens in it, and they
    are unfolded in the order of folding. If the length differs from L, the output is resampled linearly.

    Source: Shen et al. 2023, arXiv 2302.05738, and its released code.
    """

    def __init__(self, shape: tuple[int, ...], stride: int, fold: int = 1) -> None:
        super().__init__()
        self.channels, self.length = shape
        self.stride = stride
        self.fold = fold

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and position."""
        means = average_windows(hidden, -1, self.channels * self.fold**2 * self.stride)
        if self.fold > 1:
            return _resample_signals(_join_stretches(means, self.channels, self.fold), self.length)
        return _resample_signals(means.flatten(1).unflatten(1, (self.channels, -1)), self.length)


class PicturePredictor(DensePredictor):
    """ORCA's dense predictor of images, (B, T, D) -> (B, C, H, W): a linear layer gives a picture, which is averaged.

    The linear layer gives, for each token, a square of ``pixels`` x ``pixels`` in a picture with as many channels as the
    body's own images. The picture's channels are averaged to C and its pixels to H x W. Four output channels from three
    are c0, (c0 + c1) / 2, (c1 + c2) / 2 and c2, so only three of them are independent. An output larger than the picture
    repeats and averages neighbouring pixels.

    Fresh weights are normal with standard deviation 0.02; the bias starts at zero.

    Source: Shen et al. 2023, arXiv 2302.05738, and its released code: the masked-image head of Swin (Xie et al. 2022,
    arXiv 2111.09886).
    """

    def __init__(self, width: int, shape: tuple[int, ...], pixels: int, picture_channels: int) -> None:
        super().__init__()
        self.shape = shape
        self.pixels = pixels
        self.linear = nn.Linear(width, picture_channels * pixels**2)
        nn.init.normal_(self.linear.weight, std=DECODER_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and point."""
        channels, height, width = self.shape
        squares = self.linear(hidden).unflatten(2, (-1, self.pixels**2))
        # Average channels first: all steps are linear, and fewer channels make the averages over space cheaper.
        picture = _join_squares(average_windows(squares, 2, channels).flatten(2), self.pixels)
        return average_windows(average_windows(picture, -1, width), -2, height)


class LinearPredictor1D(DensePredictor):
    """A linear layer predicts each token's stretch of the signal: (B, T, D) -> (B, C, L).

    A vision body receives the signal folded into the rows of an image and may merge ``fold`` x ``fold`` tokens
    into one; they are unfolded in the order of folding.

    Differs from ORCA's 1D dense tasks: see ``BlockMeanPredictor``.
    """

    def __init__(self, width: int, shape: tuple[int, ...], stride: int, fold: int = 1) -> None:
        super().__init__()
        self.channels, self.length = shape
        self.fold = fold
        self.linear = nn.Linear(width, self.channels * fold * fold * stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and position."""
        return _resample_signals(_join_stretches(self.linear(hidden), self.channels, self.fold), self.length)


class LinearPredictor2D(DensePredictor):
    """A linear layer predicts each token's patch of the map: (B, T, D) -> (B, C, H, W).

    Differs from ORCA's 2D dense tasks: see ``PicturePredictor``.
    """

    def __init__(self, width: int, shape: tuple[int, ...], patch: int) -> None:
        super().__init__()
        self.shape = shape
        self.patch = patch
        self.linear = nn.Linear(width, shape[0] * patch**2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns one value per channel and point."""
        image = _join_squares(self.linear(hidden), self.patch)
        if image.shape[-2:] == self.shape[-2:]:
            return image
        return F.interpolate(image, size=self.shape[-2:], mode="bilinear", align_corners=False)


def _join_squares(squares: Tensor, pixels: int) -> Tensor:
    """Joins the tokens' squares (B, T, C * P * P), P = ``pixels``, row by row to (B, C, H, W)."""
    side = math.isqrt(squares.shape[1])
    return F.pixel_shuffle(squares.transpose(1, 2).unflatten(2, (side, side)), pixels)


def _join_stretches(stretches: Tensor, channels: int, fold: int) -> Tensor:
    """Joins the tokens' stretches (B, T, C * fold * fold * k) to signals (B, C, L)."""
    if fold == 1:
        return stretches.unflatten(2, (channels, -1)).permute(0, 2, 1, 3).flatten(2)
    side = math.isqrt(stretches.shape[1])
    squares = stretches.unflatten(1, (side, side)).unflatten(3, (channels, fold, fold, -1))
    return squares.permute(0, 3, 1, 4, 2, 5, 6).flatten(2)


def _resample_signals(signals: Tensor, length: int) -> Tensor:
    return signals if signals.shape[-1] == length else F.interpolate(signals, size=length, mode="linear")
