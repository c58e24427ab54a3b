"""Named random streams: each draw depends on the seed, the stream's name and its indices, and on nothing else.

Two cells that differ only in embedder training therefore see the same fine-tuning batches, the same predictor
initialisation and the same dropout masks at equal seed (paired randomness), and a resumed trial draws what an
uninterrupted one would draw. ``TrialConfig.seed_of`` says which seed a stream takes: the run seed, or 0 if its source of
randomness is held fixed.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def stream_seed(seed: int, stream: str, *indices: int) -> int:
    """Returns the 63-bit seed of one stream, e.g. ``stream_seed(0, "finetune order", 3)``.

    The seed is taken from the SHA-256 of the joined arguments, so that neighbouring seeds share nothing.
    """
    key = "/".join([str(seed), stream, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def stream_rng(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """Returns a NumPy generator for one stream."""
    return np.random.default_rng(stream_seed(seed, stream, *indices))


@contextmanager
def torch_stream(seed: int, stream: str, *indices: int) -> Iterator[None]:
    """Seeds torch's global generators for one stream while a block runs, and restores them afterwards.

    Module initialisation and dropout can draw from the global generators only; inside the block they depend on the
    stream alone.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream_seed(seed, stream, *indices))
        yield
