"""NAS-Bench-360 tasks in the original files' format (Tu et al. 2022, arXiv 2110.05668)."""

from pathlib import Path

import numpy as np

from orca_sweep.data import Samples, Splits, check_array, check_labels, read_npy, read_pickled_dict, split_random
from orca_sweep.errors import DataError

NINAPRO_FILES = tuple(
    f"ninaPro/{kind}_{part}.npy" for part in ("train", "val", "test") for kind in ("ninapro", "label")
)
SATELLITE_FILES = ("satellite_train.npy", "satellite_test.npy")


def load_ninapro(root: Path, split_seed: int) -> Splits:
    """Returns muscle signals (1, 16, 52) with 18 gestures in the benchmark's own three splits.

    Files hold (N, 52, 16) and labels 0-17; ``split_seed`` changes nothing, as all three splits are given.
    """
    return Splits(*(_ninapro_part(root, part) for part in ("train", "val", "test")))


def _ninapro_part(root: Path, part: str) -> Samples:
    path, label_path = root / f"ninaPro/ninapro_{part}.npy", root / f"ninaPro/label_{part}.npy"
    x = check_array(read_npy(path), path, (None, 52, 16))
    y = check_labels(read_npy(label_path), label_path, len(x), 0, 18)
    return Samples(x.transpose(0, 2, 1)[:, None].astype(np.float32), y)


def load_satellite(root: Path, split_seed: int) -> Splits:
    """Returns land-cover time series (1, 46) with 24 classes.

    The test file is the test split. Validation is as many rows of the training file as there are test
    rows, drawn by the split seed and taken OUT of training. Series are not normalised, as in ORCA; the
    benchmark's own code standardises each series.

    Differs from ORCA in: its code cuts training first and then takes validation out of what is left, so
    that validation lies inside training and the rows held out are lost.
    """
    train, test = (_satellite_file(root / name) for name in SATELLITE_FILES)
    if len(train) <= len(test):
        raise DataError(
            f"{root / SATELLITE_FILES[0]}: {len(train)} rows, but {len(test)} test rows. Validation takes as many"
            " rows out of training as there are test rows. Are the two files swapped?"
        )
    kept, val, _ = split_random(len(train), len(test), 0, split_seed, train.y)
    return Splits(train.take(kept), train.take(val), test)


def _satellite_file(path: Path) -> Samples:
    raw = read_pickled_dict(path, ("data", "label"))
    x = check_array(raw["data"], f"{path}: data", (None, 46))
    y = check_labels(raw["label"], f"{path}: label", len(x), 1, 24)
    return Samples(x[:, None].astype(np.float32), y)
