"""Utterances of Japanese vowels, shipped with the package: who speaks?"""

from pathlib import Path

import numpy as np

from orca_sweep.data import Samples, Splits, check_labels, split_random
from orca_sweep.data.shipped import read_shipped_file
from orca_sweep.tasks.grouped import read_npz
from orca_sweep.tasks.records import Task

FILE = Path(__file__).parent / "japanese_vowels.npz"
SHA256 = "8888694eedb52232e41fc2b741665a24bc603f910b2c82036315d8bef5afb5dd"
N_PUBLISHED_TRAIN = 270
N_VAL = 90
N_FRAMES = 9961
LENGTH = 32


def load_vowels(root: Path, split_seed: int) -> Splits:
    """Returns utterances (12, 32) and their speakers: 180 for training, 90 for validation, 370 for test.

    The published test set, recorded on other occasions, stays the test set.
    """
    x, speakers = read_utterances(FILE)
    train, val, _ = split_random(N_PUBLISHED_TRAIN, N_VAL, 0, split_seed, labels=speakers[:N_PUBLISHED_TRAIN])
    parts = (train, val, np.arange(N_PUBLISHED_TRAIN, len(x)))
    return Splits(*(Samples(x[part], speakers[part]) for part in parts))


def read_utterances(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns utterances (640, 12, 32), zeros behind their 7 to 29 frames, and speakers (640,), 0 to 8.

    Raises:
        DataError: if the file is not the one that was shipped.
    """
    read_shipped_file(path, SHA256)
    stored = read_npz(path, {"millionths": (N_FRAMES, 12), "lengths": (640,), "speakers": (640,)})
    x = np.zeros((640, 12, LENGTH), np.float32)
    frames = np.split((stored["millionths"] / 1e6).astype(np.float32), np.cumsum(stored["lengths"], dtype=int)[:-1])
    for i, utterance in enumerate(frames):
        x[i, :, : len(utterance)] = utterance.T
    return x, check_labels(stored["speakers"], f"{path}: speakers", n=640, first=1, n_classes=9)


RECORDS = (
    Task(
        name="vowels",
        dims=1,
        sample_shape=(12, LENGTH),
        kind="classification",
        output_shape=(9,),
        loss="cross-entropy",
        metric="error",
        load=load_vowels,
        meaning="two Japanese vowels (12 cepstrum coefficients a frame), 9 speakers; tested on other recordings",
        source="Kudo, Toyama & Shimbo 2000, Japanese Vowels, UCI Machine Learning Repository, doi 10.24432/C5NS47",
        licence="CC BY 4.0",
        n_train_max=N_PUBLISHED_TRAIN - N_VAL,
        normalise_inputs="channel",
        preparation="cepstrum coefficients as published, zeros behind the last frame",
        recipe={
            "proxy": "pydoc-topics", "body.name": "minilm",
            "embedder.epochs": 20, "embedder.proxy_samples": 1000, "embedder.target_length": 8,
            "finetune.epochs": 5, "finetune.batch_size": 16, "finetune.lr": 2e-4, "finetune.grad_clip": 1.0,
            "finetune.warmup_epochs": 1, "finetune.decay_epochs": 5,
        },
    ),
)  # fmt: skip
