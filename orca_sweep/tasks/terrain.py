"""Real terrain: heights from shaded relief."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from orca_sweep.data import Splits
from orca_sweep.data.shipped import find_package_file
from orca_sweep.tasks.grouped import GroupedData, read_npz
from orca_sweep.tasks.records import Task

FILE = "mpl-data/sample_data/jacksboro_fault_dem.npz"
TILE = 32
N_BANDS = 8
ROW_STEP = 16
COLUMN_STEP = 9
CELL_M = (92.6, 74.4)
"""Metres from one cell to the next, to the south and to the east: 3 seconds of arc at 36.6 degrees north."""
LIGHTS_DEG = (315.0, 45.0)
"""Where the light of each channel comes from, clockwise from north; it stands 45 degrees high."""


def load_terrain(root: Path, split_seed: int) -> Splits:
    """Returns tiles of shaded relief (2, 32, 32) and their heights (1, 32, 32): 4 bands for training, 2 and 2 else."""
    path = find_package_file("task 'terrain'", "matplotlib", FILE)
    return cut_terrain_tiles(path).split(2, 2, split_seed)


@lru_cache(maxsize=1)
def cut_terrain_tiles(path: Path) -> GroupedData:
    """Returns the tiles of a map of heights in metres; the group of a tile is its band of columns.

    Tiles overlap within a band, never between bands. Each band is shaded on its own, so that no tile knows a height
    beyond its band. The target is the height less the mean of the tile: its relief.
    """
    heights = read_npz(path, {"elevation": (344, 403)})["elevation"].astype(np.float64)
    width = heights.shape[1] // N_BANDS
    x, y, groups = [], [], []
    for band in range(N_BANDS):
        strip = heights[:, band * width : (band + 1) * width]
        shades = np.stack([shade_relief(strip, light) for light in LIGHTS_DEG])
        for row in range(0, len(strip) - TILE + 1, ROW_STEP):
            for column in range(0, width - TILE + 1, COLUMN_STEP):
                window = np.s_[row : row + TILE, column : column + TILE]
                x.append(shades[:, window[0], window[1]])
                y.append(strip[window] - strip[window].mean())
                groups.append(band)
    targets = np.stack(y)[:, None].astype(np.float32)
    return GroupedData(x=np.stack(x).astype(np.float32), y=targets, groups=np.array(groups))


def shade_relief(heights: np.ndarray, light_deg: float) -> np.ndarray:
    """Returns the brightness (H, W) of a matt surface under a light, 0 where it faces away.

    Rows of ``heights`` go from north to south, columns from west to east.
    """
    to_south, to_east = np.gradient(heights, *CELL_M)
    angle = np.deg2rad(light_deg)
    facing = (-to_east * np.sin(angle) + to_south * np.cos(angle) + 1) / np.sqrt(2)
    return np.clip(facing, 0, None) / np.sqrt(1 + to_south**2 + to_east**2)


RECORDS = (
    Task(
        name="terrain",
        dims=2,
        sample_shape=(2, TILE, TILE),
        kind="dense-regression",
        output_shape=(1, TILE, TILE),
        loss="relative-l2",
        metric="relative-l2",
        load=load_terrain,
        meaning="heights of a real valley from its relief, lit from two sides; split by bands; 240 training tiles",
        source="matplotlib's jacksboro_fault_dem.npz: heights near Jacksboro, Tennessee, at 3 seconds of arc",
        licence="as matplotlib (PSF-based), which names no other for this file",
        packages=("matplotlib",),
        n_train_max=240,
        normalise_inputs="channel",
        normalise_targets="channel",
        preparation="brightness from 0 to 1",
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro",
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 15, "finetune.batch_size": 8, "finetune.lr": 3e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 15, "finetune.weight_decay": 0.05,
        },
    ),
)  # fmt: skip
