"""PSICOV: distances between the residues of proteins; training uses DeepCov's proteins (Adhikari 2020, PDNET)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data import (
    Conversion,
    ConvertedArrays,
    File,
    Rows,
    Samples,
    Splits,
    Writer,
    check_array,
    read_pickle,
    read_pickled_npy,
    split_random,
)
from orca_sweep.data.readers import check_dict
from orca_sweep.errors import DataError
from orca_sweep.tasks.nasbench360 import DRIVE, SOURCE
from orca_sweep.tasks.recipes import Released, make_recipe, path_from_root, read_lines, resolve_inside
from orca_sweep.tasks.records import Task

SIDE, MARGIN = 512, 5
"""Side of the maps; width of the zeros around each protein."""
FOLDERS = ("deepcov", "psicov", "cameo")
LISTS = {"train": "protein/deepcov.lst", "test": "protein/psicov.lst"}
PER_RESIDUE = (("ss", 3), ("pssm", 22), ("sa", 1), ("entropy", 1))
PER_PAIR = ("ccmpred", "freecon", "potential")
N_CHANNELS = 2 * 27 + 3
FARTHEST = 16.0
"""Angstrom. Training distances are clipped here."""
VALIDATION_SHARE = 100 / 3456


def _read_names(root: Path, part: str) -> list[str]:
    names = [line.split()[0] for line in read_lines(root / LISTS[part])]
    if not names:
        raise DataError(f"{root / LISTS[part]}: no names in it. Get the file again.")
    return names


def _find_path(root: Path, kind: str, name: str, folders: tuple[str, ...] = FOLDERS) -> Path:
    """Returns the path of a protein's file; its path in the first folder if no folder has it."""
    candidates = [resolve_inside(root, f"protein/{folder}/{kind}/{name}") for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _check_list(root: Path, part: str) -> str:
    return f"{len(_read_names(root, part))} proteins"


def _list_members(root: Path, part: str) -> list[str]:
    paths = (
        _find_path(root, kind, name + end, FOLDERS if part == "train" else FOLDERS[1:] + FOLDERS[:1])
        for name in _read_names(root, part)
        for kind, end in (("features", ".pkl"), ("distance", "-cb.npy"))
    )
    return [path_from_root(root, str(path)) for path in paths]


def convert_psicov(root: Path, writer: Writer) -> None:
    """Writes features per residue (L, 27) and per pair (L * L, 3) and distances (L * L,), protein after protein."""
    parts = {part: _read_names(root, part) for part in LISTS}
    shared = sorted(set(parts["train"]) & set(parts["test"]))
    if shared:
        raise DataError(
            f"{root / LISTS['test']}: {', '.join(shared[:5])} is a training protein too. Get the lists again."
        )
    writer.append("n_train", np.array([len(parts["train"])]))
    names = parts["train"] + parts["test"]
    for i, name in enumerate(names):
        residues, pairs = _read_features(_find_path(root, "features", f"{name}.pkl"))
        path = _find_path(root, "distance", f"{name}-cb.npy")
        writer.append("residues", residues, path)
        writer.append("pairs", pairs.reshape(-1, len(PER_PAIR)), path)
        writer.append("distances", _read_distances(path, len(residues)).reshape(-1), path)
        writer.append("length", np.array([len(residues)]))
        writer.report(i + 1, len(names))


def _read_features(path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = check_dict(read_pickle(path), path, ("seq", *(key for key, _ in PER_RESIDUE), *PER_PAIR))
    L = len(raw["seq"])
    columns = []
    for key, n in PER_RESIDUE:
        shape = {3: (3, L), 22: (L, 22), 1: (L,)}[n]
        values = check_array(raw[key], f"{path}: {key}", shape)
        columns.append(values.T if n == 3 else values.reshape(L, n))
    maps = [check_array(raw[key], f"{path}: {key}", (L, L)) for key in PER_PAIR]
    residues = np.concatenate(columns, axis=1).astype(np.float32)
    return residues, np.stack(maps, axis=-1).astype(np.float32)


def _read_distances(path: Path, L: int) -> np.ndarray:
    """Returns the map (L, L), with distances below 1 raised to 1, and the diagonal filled in from its neighbours."""
    length, _, values = read_pickled_npy(path, (3,))
    if not isinstance(length, int | np.integer) or length != L:
        raise DataError(f"{path}: {length} residues, but its features have {L}. Get both files again.")
    Y = np.maximum(check_array(values, path, (L, L)), 1.0).astype(np.float32)
    if L > 1:
        beside = np.diagonal(Y, 1)
        filled = np.concatenate([beside[:1], (np.diagonal(Y, -1)[:-1] + beside[1:]) / 2, np.diagonal(Y, -1)[-1:]])
        np.fill_diagonal(Y, filled)
    return Y


def load_psicov(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns feature maps (57, 512, 512) and distance maps (1, 512, 512), split by protein.

    Test is PSICOV's 150 proteins. Validation is 100 of DeepCov's 3456, the benchmark's number, drawn by the split seed.
    A map is NaN outside of its protein: padding is neither trained on nor scored, and each protein is scored over its own
    length. Training distances are clipped at 16 Angstrom. Proteins of more than 502 residues are cropped: in training at
    a random position, otherwise at the first residue.

    Differs from ORCA's code in: that takes half of PSICOV for validation, trains on the padding too, and scores every
    protein with the length of the first.
    """
    n_train, n = int(data["n_train"][0]), len(data["length"])
    n_val = max(1, round(n_train * VALIDATION_SHARE))
    train, val, _ = split_random(n_train, n_val, 0, split_seed)
    proteins = _Proteins(data)
    return Splits(
        proteins.make_samples(train, FARTHEST),
        proteins.make_samples(val, None),
        proteins.make_samples(np.arange(n_train, n), None),
    )


class _Proteins:
    """Converted proteins, stored end to end, and the maps made from them."""

    def __init__(self, data: ConvertedArrays) -> None:
        self.data = data
        self.length = np.asarray(data["length"])
        self.residue = np.concatenate([[0], np.cumsum(self.length)])
        self.pair = np.concatenate([[0], np.cumsum(self.length.astype(np.int64) ** 2)])

    def make_samples(self, ids: np.ndarray, farthest: float | None) -> Samples:
        digest = self.data.digest_of("residues", "pairs", "distances")
        x = Rows(read=self._read_inputs, ids=ids, sample_shape=(N_CHANNELS, SIDE, SIDE), digest=digest)
        y = Rows(
            read=partial(self._read_targets, farthest),
            ids=ids,
            sample_shape=(1, SIDE, SIDE),
            digest=f"{digest} clipped at {farthest}",
        )
        return Samples(x, y)

    def _read_inputs(self, ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        batch = np.zeros((len(ids), N_CHANNELS, SIDE, SIDE), np.float32)
        for image, protein, at in zip(batch, ids, self._draw_corners(ids, rng), strict=True):
            L, first, pair = self.length[protein], self.residue[protein], self.pair[protein]
            residues = self.data["residues"][first : first + L].T
            self._paste_map(image[0:54:2], np.broadcast_to(residues[:, None, :], (27, L, L)), at)
            self._paste_map(image[1:54:2], np.broadcast_to(residues[:, :, None], (27, L, L)), at)
            pairs = self.data["pairs"][pair : pair + L * L].reshape(L, L, -1)
            self._paste_map(image[54:], pairs.transpose(2, 0, 1), at)
        return batch

    def _read_targets(self, farthest: float | None, ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        batch = np.full((len(ids), 1, SIDE, SIDE), np.nan, np.float32)
        for image, protein, at in zip(batch, ids, self._draw_corners(ids, rng), strict=True):
            L, pair = self.length[protein], self.pair[protein]
            distances = np.asarray(self.data["distances"][pair : pair + L * L]).reshape(1, L, L)
            self._paste_map(image, distances if farthest is None else np.minimum(distances, farthest), at)
        return batch

    def _draw_corners(self, ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Returns upper left corners (n, 2) of the crops of padded maps; inputs and targets get equal draws."""
        room = np.maximum(self.length[ids] + 2 * MARGIN - SIDE, 0)
        draws = np.zeros((len(ids), 2)) if rng is None else rng.random((len(ids), 2))
        return (draws * (room + 1)[:, None]).astype(np.int64)

    @staticmethod
    def _paste_map(image: np.ndarray, values: Any, corner: np.ndarray) -> None:
        """Copies maps (C, L, L), padded by the margin and cropped at the corner, into an image (C, 512, 512)."""
        shift = MARGIN - corner  # position of the map's first row and column
        low, high = np.maximum(shift, 0), np.minimum(shift + values.shape[-1], SIDE)
        rows, columns = (slice(low[k], high[k]) for k in (0, 1))
        from_rows, from_columns = (slice(low[k] - shift[k], high[k] - shift[k]) for k in (0, 1))
        image[:, rows, columns] = values[:, from_rows, from_columns]


PSICOV = Task(
    name="psicov",
    dims=2,
    sample_shape=(N_CHANNELS, SIDE, SIDE),
    kind="dense-regression",
    output_shape=(1, SIDE, SIDE),
    loss="masked-mse",
    metric="mae8",
    load=load_psicov,
    convert=Conversion(name="psicov", run=convert_psicov),
    preparation="in the benchmark's files, zeros around each protein",
    meaning="protein features to distances between residues; trained on DeepCov, tested on PSICOV",
    source=f"PDNET (Adhikari 2020); {SOURCE}",
    licence="GPL (as the benchmark says)",
    get_from=DRIVE,
    download_mb=1100,
    files=tuple(
        File(path=path, check=partial(_check_list, part=part), members=partial(_list_members, part=part))
        for part, path in LISTS.items()
    ),
    augments=True,
    recipe=make_recipe(
        Released(
            body="swin-base",
            epochs=10,
            batch=1,
            accumulation=32,
            optimizer="adam",
            lr=5e-6,
            weight_decay=1e-5,
            momentum=0.99,
            decay=100,
            max_samples=64,
        )
    ),
)
RECORDS = (PSICOV,)
