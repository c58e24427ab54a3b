"""Tasks with real data that work offline right after installation."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from orca_sweep.data import Samples, Splits, check_array, check_labels, read_pickled_dict, split_groups, split_random
from orca_sweep.data.shipped import find_package_file
from orca_sweep.errors import DataError
from orca_sweep.tasks.records import Task

DARCY_SIDE = 29
N_DARCY = 300
WINDOW = 128


def _split_samples(x: np.ndarray, y: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Splits:
    whole = Samples(x, y)
    return Splits(*(whole.take(part) for part in parts))


def load_digits(root: Path, split_seed: int) -> Splits:
    """Returns scikit-learn's 1,797 digits (1, 8, 8) in [0, 1]: 600 for test, 300 for validation, the rest for training."""
    from sklearn.datasets import load_digits as load_images

    images, labels = load_images(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    return _split_samples(x, y, split_random(len(x), n_val=300, n_test=600, seed=split_seed, labels=y))


def load_darcy(root: Path, split_seed: int) -> Splits:
    """Returns 300 Darcy problems: (3, 29, 29), coefficient and two coordinates, -> pressure (1, 29, 29)."""
    coefficients, pressures = generate_darcy_problems(N_DARCY, DARCY_SIDE)
    axis = np.linspace(0, 1, DARCY_SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    # 3 and 12 become -1 and 1.
    scaled = ((coefficients - 7.5) / 4.5)[:, None].astype(np.float32)
    x = np.concatenate([scaled, np.broadcast_to(grid, (N_DARCY, *grid.shape))], axis=1)
    y = pressures[:, None].astype(np.float32)
    return _split_samples(x, y, split_random(N_DARCY, 50, 50, split_seed))


@lru_cache(maxsize=1)
def generate_darcy_problems(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns coefficients a (n, side, side), 3 or 12, and solutions u of -div(a grad u) = 1 with u = 0 on the edge.

    A coefficient is 12 where a Gaussian random field N(0, (-Laplacian + 9)^-2) on the unit square, with zero Neumann
    boundary, is positive. The n problems are always the same.

    Source: Li et al. 2021, arXiv 2010.08895, appendix A.3. Cost: about 2 ms per problem at side 29.
    """
    rng = np.random.default_rng(20210101)
    coefficients = np.stack([np.where(_random_field(side, rng) >= 0, 12.0, 3.0) for _ in range(n)])
    return coefficients, np.stack([solve_darcy(a) for a in coefficients])


def _random_field(side: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.fft import idctn

    k = np.arange(side)
    spectrum = 1 / (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + 9)
    noise = rng.standard_normal((side, side)) * spectrum
    noise[0, 0] = 0.0  # removes the field's mean, so that both coefficients occur
    return idctn(noise, norm="ortho")


def solve_darcy(a: np.ndarray, source: np.ndarray | float = 1.0) -> np.ndarray:
    """Returns u (n, n) with -div(a grad u) = source on the unit square and u = 0 on its edge.

    Five-point finite differences on the n x n nodes (edge included); the coefficient between two nodes
    is their harmonic mean, which keeps the flux continuous across a jump.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import spsolve

    n = len(a)
    inner = n - 2
    index = np.full((n, n), -1)
    index[1:-1, 1:-1] = np.arange(inner * inner).reshape(inner, inner)
    rows, columns, values = [], [], []
    diagonal = np.zeros((inner, inner))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        centre, beyond = a[1:-1, 1:-1], a[1 + dy : n - 1 + dy, 1 + dx : n - 1 + dx]
        face = 2 * centre * beyond / (centre + beyond)
        diagonal += face
        neighbour = index[1 + dy : n - 1 + dy, 1 + dx : n - 1 + dx]
        inside = neighbour >= 0
        rows.append(index[1:-1, 1:-1][inside])
        columns.append(neighbour[inside])
        values.append(-face[inside])
    rows.append(index[1:-1, 1:-1].ravel())
    columns.append(index[1:-1, 1:-1].ravel())
    values.append(diagonal.ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    right = np.broadcast_to(np.asarray(source, dtype=float), (n, n))[1:-1, 1:-1].ravel() / (n - 1) ** 2
    u = np.zeros((n, n))
    u[1:-1, 1:-1] = spsolve(csr_matrix(entries, shape=(inner**2, inner**2)).tocsc(), right).reshape(inner, inner)
    return u


def load_watch(root: Path, split_seed: int) -> Splits:
    """Returns windows (6, 128) of wrist acceleration and rotation at 50 Hz, labelled with one of 7 exercises.

    Windows of a recording do not overlap. Splits are by subject: 6 for training, 2 for validation, 2 for test.
    """
    path = find_package_file("task 'watch-exercises'", "seglearn", "data/watch_dataset.npy", "1d")
    return cut_watch_windows(path, split_seed)


def cut_watch_windows(path: Path, split_seed: int) -> Splits:
    """Reads the recordings at ``path`` and cuts them into windows as ``load_watch`` describes."""
    raw = read_pickled_dict(path, ("X", "y", "subject"))
    signals = raw["X"]
    if not isinstance(signals, list) or not signals:
        raise DataError(
            f"{path}: X is {type(signals).__name__}. A list of recordings was expected. Reinstall seglearn."
        )
    recordings = [check_array(r, f"{path}: X[{i}]", (None, 6)) for i, r in enumerate(signals)]
    labels = check_labels(raw["y"], f"{path}: y", n=len(recordings), first=0, n_classes=7)
    subjects = check_array(raw["subject"], f"{path}: subject", (len(recordings),))
    counts = [len(r) // WINDOW for r in recordings]
    x = np.concatenate([r[: n * WINDOW].reshape(n, WINDOW, 6) for r, n in zip(recordings, counts, strict=True)])
    y, subject = np.repeat(labels, counts), np.repeat(subjects, counts)
    return _split_samples(x.transpose(0, 2, 1).astype(np.float32), y, split_groups(subject, 2, 2, split_seed))


RECORDS = (
    Task(
        name="digits",
        dims=2,
        sample_shape=(1, 8, 8),
        kind="classification",
        output_shape=(10,),
        loss="cross-entropy",
        metric="error",
        load=load_digits,
        meaning="8x8 handwritten digits, 10 classes; 100 training samples unless data.n_train says otherwise",
        source="scikit-learn load_digits (Alpaydin & Kaynak 1998, UCI)",
        licence="CC BY 4.0 (data), BSD-3-Clause (package)",
        packages=("sklearn",),
        n_train_max=897,
        preparation="pixels / 16, which lie within 0 and 1",
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro", "data.n_train": 100,
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 30, "finetune.batch_size": 20, "finetune.lr": 1e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 30,
        },
    ),
    Task(
        name="darcy-generated",
        dims=2,
        sample_shape=(3, 29, 29),
        kind="dense-regression",
        output_shape=(1, 29, 29),
        loss="relative-l2",
        metric="relative-l2",
        load=load_darcy,
        meaning="Darcy flow on a 29x29 grid: permeability to pressure, solved here, 200 training samples",
        source="generated as in Li et al. 2021, arXiv 2010.08895",
        licence="MIT (made here)",
        packages=("scipy", "sklearn"),
        n_train_max=200,
        normalise_targets="pointwise",
        preparation="permeability 3 and 12 as -1 and 1, coordinates from 0 to 1",
        recipe={
            "proxy": "mnist5k", "body.name": "swin-micro",
            "embedder.epochs": 20, "embedder.proxy_samples": 1000,
            "finetune.epochs": 30, "finetune.batch_size": 16, "finetune.lr": 1e-3, "finetune.warmup_epochs": 2,
            "finetune.decay_epochs": 30,
        },
    ),
    Task(
        name="watch-exercises",
        dims=1,
        sample_shape=(6, WINDOW),
        kind="classification",
        output_shape=(7,),
        loss="cross-entropy",
        metric="error",
        load=load_watch,
        meaning="wrist acceleration and rotation, 7 shoulder exercises, split by subject; 160 training windows",
        source="seglearn's watch dataset (Burns et al. 2018, arXiv 1802.01489)",
        licence="BSD-3-Clause",
        packages=("seglearn", "sklearn"),
        extra="1d",
        n_train_by_split={0: 1109},
        normalise_inputs="channel",
        preparation="recorded",
        recipe={
            "proxy": "pydoc-topics", "body.name": "minilm", "data.n_train": 160,
            "embedder.epochs": 20, "embedder.proxy_samples": 1000, "embedder.target_length": 32,
            "finetune.epochs": 5, "finetune.batch_size": 16, "finetune.lr": 1e-4, "finetune.grad_clip": 1.0,
        },
    ),
)  # fmt: skip
