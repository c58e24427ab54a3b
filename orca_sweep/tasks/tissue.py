"""Tissue of the brain between two slices of a scan: grey matter, white matter, or neither."""

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from orca_sweep.data import Splits
from orca_sweep.data.readers import open_file
from orca_sweep.data.shipped import find_package_file
from orca_sweep.errors import DataError
from orca_sweep.tasks.grouped import GroupedData
from orca_sweep.tasks.records import Task

FOLDER = "datasets/data"
SCAN, GREY, WHITE = (f"mni_icbm152_{part}_tal_nlin_sym_09a_converted.nii.gz" for part in ("t1", "gm", "wm"))
TILE = 32
TILE_STEP = 16
STEP = 2
"""Every second voxel is used: 2 mm."""
SLAB = 8
"""Slices in a group: neighbouring slices are alike. All that a sample shows lies in its slab."""
FIRST, N_SLABS = 10, 8
"""The first slice of the first slab, and the number of slabs: those with the bulk of the brain."""
REACH = 2
"""The two slices that are seen lie so many slices (4 mm) below and above the one whose tissue is asked for."""
TISSUE = 0.5
"""A pixel is grey or white matter if the template's probability is at least this."""
NIFTI_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8"}


def load_tissue(root: Path, split_seed: int) -> Splits:
    """Returns tiles of scans (2, 32, 32) and tissue (32, 32), 0 to 2: 4 slabs for training, 2 and 2 else."""
    paths = [find_package_file("task 'brain-tissue'", "nilearn", f"{FOLDER}/{n}", "2d") for n in (SCAN, GREY, WHITE)]
    return cut_tissue_tiles(*paths).split(2, 2, split_seed)


@lru_cache(maxsize=1)
def cut_tissue_tiles(scan: Path, grey: Path, white: Path) -> GroupedData:
    """Returns the tiles of horizontal slices that are at least a quarter brain; the group of a tile is its slab."""
    image, grey_share, white_share = (read_nifti(path)[::STEP, ::STEP, ::STEP] for path in (scan, grey, white))
    labels = np.where(grey_share >= TISSUE, 1, np.where(white_share >= TISSUE, 2, 0))
    x, y, groups = [], [], []
    for z in (z for z in range(FIRST, FIRST + N_SLABS * SLAB) if REACH <= (z - FIRST) % SLAB < SLAB - REACH):
        for row in range(0, image.shape[0] - TILE + 1, TILE_STEP):
            for column in range(0, image.shape[1] - TILE + 1, TILE_STEP):
                window = np.s_[row : row + TILE, column : column + TILE]
                if (labels[window][..., z] > 0).mean() >= 0.25:
                    x.append(np.stack([image[window][..., z + side] for side in (-REACH, REACH)]))
                    y.append(labels[window][..., z])
                    groups.append((z - FIRST) // SLAB)
    inputs = np.stack(x).astype(np.float32)
    return GroupedData(x=inputs, y=np.stack(y).astype(np.int64), groups=np.array(groups))


def read_nifti(path: Path) -> np.ndarray:
    """Returns the volume (X, Y, Z) of a packed NIfTI-1 file, scaled to [0, 1] by its largest value.

    Raises:
        DataError: if the file is damaged, or of a form that is not read here.

    Source: the NIfTI-1 header, https://nifti.nimh.nih.gov/nifti-1.
    """
    try:
        with open_file(path) as file:
            content = gzip.decompress(file.read())
        n_axes, *shape = np.frombuffer(content, "<i2", 4, offset=40).tolist()
        kind = NIFTI_TYPES.get(np.frombuffer(content, "<i2", 1, offset=70).item())
        start = int(np.frombuffer(content, "<f4", 1, offset=108).item())
        if content[344:348] != b"n+1\0" or n_axes != 3 or kind is None:
            raise DataError(f"{path}: not a volume in one NIfTI-1 file. Install nilearn again.")
        volume = np.frombuffer(content, kind, math.prod(shape), start).reshape(shape, order="F").astype(np.float32)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}). Install nilearn again.") from None
    return volume / volume.max()


RECORDS = (
    Task(
        name="brain-tissue",
        dims=2,
        sample_shape=(2, TILE, TILE),
        kind="dense-classification",
        output_shape=(3, TILE, TILE),
        loss="cross-entropy",
        metric="error",
        load=load_tissue,
        meaning="tissue of a brain (other, grey, white) midway between two slices of a scan 8 mm apart; split by slabs",
        source="nilearn's ICBM 2009a template, one brain averaged of 152 (Fonov et al. 2011, NeuroImage 54)",
        licence="nilearn calls the template's licence unknown; BSD-3-Clause (package)",
        packages=("nilearn",),
        extra="2d",
        n_train_by_split={0: 344},
        normalise_inputs="channel",
        preparation="intensity by the scan's maximum",
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro", "data.n_train": 120,
            "predictor.dense": "linear",
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 15, "finetune.batch_size": 16, "finetune.lr": 3e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 15,
        },
    ),
)  # fmt: skip
