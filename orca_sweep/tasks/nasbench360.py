"""NAS-Bench-360: signals and Darcy flow, from the benchmark's own files (Tu et al. 2022, arXiv 2110.05668).

Each task has files, a conversion to arrays, a load function that splits them, and a record. Files must have the
benchmark's shapes but may have fewer samples, so that a part of a benchmark can be tried first.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orca_sweep.data import (
    Conversion,
    ConvertedArrays,
    Rows,
    Samples,
    Splits,
    Writer,
    check_array,
    check_labels,
    check_shape,
    read_npy,
    read_pickled_dict,
    split_random,
)
from orca_sweep.data.matlab import open_mat_array
from orca_sweep.data.readers import StoredArray, check_dict, read_pickle
from orca_sweep.errors import DataError
from orca_sweep.tasks.recipes import (
    NPY_MAGIC,
    Released,
    describe_mat_file,
    describe_npy_file,
    describe_npz_file,
    describe_pickle_file,
    make_recipe,
    open_checked_npz,
)
from orca_sweep.tasks.records import Task

SOURCE = "NAS-Bench-360 (Tu et al. 2022, arXiv 2110.05668); settings of Shen et al. 2023 as released"
LICENCE = "see NAS-Bench-360"
DRIVE = "the shared drive that github.com/rtu715/NAS-Bench-360 names"
PARTS = ("train", "val", "test")


def load_three_parts(data: ConvertedArrays) -> Splits:
    """Returns the benchmark's own splits: arrays x and y of each part."""
    return Splits(*(Samples(Rows.from_array(data[f"x_{p}"], data.digest_of(f"x_{p}")), data[f"y_{p}"]) for p in PARTS))


def split_train_and_test(
    data: ConvertedArrays, split_seed: int, x: Rows | None = None, y: Rows | None = None, n_val: int | None = None
) -> Splits:
    """Returns the benchmark's test set, and a validation set drawn from its training set: ``n_val``, or as many as in test.

    Arrays hold the training rows, then the test rows; the array ``n_train`` holds the number of training rows. Labels
    stratify validation.

    Raises:
        DataError: if validation would leave nothing to train on.
    """
    rows = Rows.from_array(data["x"], data.digest_of("x")) if x is None else x
    whole = Samples(rows, data["y"] if y is None else y)
    n_train = int(data["n_train"][0])
    n_test = len(whole) - n_train
    labels = whole.y[:n_train] if isinstance(whole.y, np.ndarray) and whole.y.ndim == 1 else None
    if n_val is None and n_train <= n_test:
        raise DataError(
            f"{data.folder}: {n_train} training and {n_test} test samples. Validation takes as many samples from training"
            " as there are test samples. Are the two files swapped?"
        )
    kept, val, _ = split_random(
        n_train, n_val=n_test if n_val is None else n_val, n_test=0, seed=split_seed, labels=labels
    )
    return Splits(whole.take(kept), whole.take(val), whole.take(np.arange(n_train, len(whole))))


# NinaPro ------------------------------------------------------------------------------------------


def convert_ninapro(root: Path, writer: Writer) -> None:
    """Writes muscle signals (N, 52, 16) as (N, 1, 16, 52), and labels 0-17."""
    for part in PARTS:
        path, label_path = root / f"ninaPro/ninapro_{part}.npy", root / f"ninaPro/label_{part}.npy"
        x = check_array(read_npy(path), path, (None, 52, 16))
        writer.append(f"x_{part}", x.transpose(0, 2, 1)[:, None].astype(np.float32), path)
        writer.append(
            f"y_{part}", check_labels(read_npy(label_path), label_path, n=len(x), first=0, n_classes=18), label_path
        )


NINAPRO = Task(
    name="ninapro",
    dims=2,
    sample_shape=(1, 16, 52),
    kind="classification",
    output_shape=(18,),
    loss="cross-entropy",
    metric="error",
    load=lambda data, split_seed: load_three_parts(data),
    splits_are_fixed=True,
    convert=Conversion(name="ninapro", run=convert_ninapro),
    meaning="muscle signals, 18 gestures, the benchmark's three splits",
    preparation="in the benchmark's files",
    source=SOURCE,
    licence="CC BY-ND 4.0",
    get_from=DRIVE,
    download_mb=15,
    files=tuple(
        file
        for part in PARTS
        for file in (
            describe_npy_file(f"ninaPro/ninapro_{part}.npy", (None, 52, 16)),
            describe_npy_file(f"ninaPro/label_{part}.npy", (None,)),
        )
    ),
    published_sizes=(2_638, 659, 659),
    recipe=make_recipe(
        Released(
            body="swin-base",
            epochs=60,
            batch=32,
            optimizer="adam",
            lr=1e-4,
            weight_decay=1e-5,
            momentum=0.999,
            decay=60,
            clip=1.0,
            embedder_epochs=100,
        )
    ),
)


# Satellite ----------------------------------------------------------------------------------------


def convert_satellite(root: Path, writer: Writer) -> None:
    """Writes land-cover series (N, 46) as (N, 1, 46), and labels 1-24 as 0-23."""
    for part in ("train", "test"):
        path = root / f"satellite_{part}.npy"
        raw = read_pickled_dict(path, ("data", "label"))
        x = check_array(raw["data"], f"{path}: data", (None, 46))
        writer.append("x", x[:, None].astype(np.float32), path)
        writer.append("y", check_labels(raw["label"], f"{path}: label", n=len(x), first=1, n_classes=24), path)
        if part == "train":
            writer.append("n_train", np.array([len(x)]))


SATELLITE = Task(
    name="satellite",
    dims=1,
    sample_shape=(1, 46),
    kind="classification",
    output_shape=(24,),
    loss="cross-entropy",
    metric="error",
    # Differs from ORCA's code, which limits training first and draws validation from the rest.
    load=split_train_and_test,
    convert=Conversion(name="satellite", run=convert_satellite),
    meaning="land-cover time series, 24 classes; not normalised, as in ORCA (the benchmark standardises each series)",
    preparation="in the benchmark's files",
    source=SOURCE,
    licence=LICENCE,
    get_from=DRIVE,
    download_mb=322,
    files=tuple(
        describe_pickle_file(f"satellite_{part}.npy", NPY_MAGIC, "a dict saved with np.save")
        for part in ("train", "test")
    ),
    published_sizes=(800_000, 100_000, 100_000),
    recipe=make_recipe(
        Released(
            body="roberta-base",
            epochs=60,
            batch=16,
            accumulation=4,
            optimizer="adamw",
            lr=3e-5,
            weight_decay=3e-6,
            momentum=0.9,
            decay=60,
            length=512,
        )
    ),
)


# ECG ----------------------------------------------------------------------------------------------

ECG_LABELS = ("N", "A", "O", "~")
ECG_STRIDES = (500, 83, 250, 25)
"""Steps between windows of normal, atrial-fibrillation, other and noisy recordings: rare classes give more windows."""
ECG_WINDOW = 1000


def convert_ecg(root: Path, writer: Writer) -> None:
    """Writes recordings of uneven length end to end, each standardised by itself; reading cuts them into windows."""
    path = root / "challenge2017.pkl"
    raw = check_dict(read_pickle(path), path, ("data", "label"))
    signals, names = list(raw["data"]), [str(name) for name in raw["label"]]
    if len(signals) != len(names) or not signals:
        raise DataError(f"{path}: {len(signals)} recordings but {len(names)} labels. Get the file again.")
    for i, (signal, name) in enumerate(zip(signals, names, strict=True)):
        if name not in ECG_LABELS:
            raise DataError(f"{path}: recording {i} has the label {name!r}. Labels are {', '.join(ECG_LABELS)}.")
        values = check_array(signal, f"{path}: data[{i}]", (None,)).astype(np.float64)
        spread = values.std() if len(values) else 0.0
        values = (values - values.mean()) / (spread or 1.0) if len(values) else values
        writer.append("signal", values.astype(np.float32), path)
        writer.append("length", np.array([len(values)]))
        writer.append("label", np.array([ECG_LABELS.index(name)]))
        writer.report(i + 1, len(signals))


def load_ecg(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns windows (1, 1000) of heart recordings with 4 classes, split by recording.

    Test is the reference's tenth of the recordings (scikit-learn's split with state 0). The split seed draws another
    tenth for validation. As in the reference, a window that would end at a recording's last sample is left out, and
    recordings of 1000 samples or fewer have no windows.

    Differs from the reference in: the reference changes its test set when its validation is switched on.
    """
    from sklearn.model_selection import train_test_split

    label, length = data["label"], data["length"]
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    rest, test = train_test_split(np.arange(len(label)), test_size=0.1, random_state=0)
    rest = np.sort(rest)
    kept, val, _ = split_random(len(rest), n_val=len(test), n_test=0, seed=split_seed, labels=label[rest])
    return Splits(*(_cut_windows(data, start, records) for records in (rest[kept], rest[val], np.sort(test))))


def _cut_windows(data: ConvertedArrays, start: np.ndarray, records: np.ndarray) -> Samples:
    label, length, signal = data["label"], data["length"], data["signal"]
    first, y = [], []
    for record in records:
        offsets = np.arange(0, max(0, int(length[record]) - ECG_WINDOW), ECG_STRIDES[int(label[record])])
        first.append(start[record] + offsets)
        y.append(np.full(len(offsets), label[record]))
    begin = np.concatenate([np.zeros(0, np.int64), *first]).astype(np.int64)

    def read_windows(ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        return np.asarray(signal[ids[:, None] + np.arange(ECG_WINDOW)], np.float32)[:, None]

    return Samples(
        Rows(read=read_windows, ids=begin, sample_shape=(1, ECG_WINDOW), digest=data.digest_of("signal")),
        np.concatenate([np.zeros(0, np.int64), *y]),
    )


ECG = Task(
    name="ecg",
    dims=1,
    sample_shape=(1, ECG_WINDOW),
    kind="classification",
    output_shape=(4,),
    loss="cross-entropy",
    metric="macro-f1-error",
    load=load_ecg,
    convert=Conversion(name="ecg", run=convert_ecg),
    meaning="heart recordings in windows of 1000, 4 rhythms, split by recording",
    preparation="windows of recordings, each recording less its mean and divided by its standard deviation",
    source=f"PhysioNet/CinC Challenge 2017; {SOURCE}",
    licence="ODC-BY 1.0",
    get_from=DRIVE,
    download_mb=150,
    files=(describe_pickle_file("challenge2017.pkl", b"\x80", "a pickled dict"),),
    # Windows of 8,528 recordings of half a minute, by class and stride; the benchmark gives no number.
    published_sizes=(267_000, 33_000, 33_000),
    sizes_are_guessed=True,
    recipe=make_recipe(
        Released(
            body="roberta-base",
            epochs=15,
            batch=4,
            accumulation=16,
            optimizer="sgd",
            lr=1e-6,
            weight_decay=0.1,
            momentum=0.99,
            decay=200,
            length=64,
        )
    ),
)


# DeepSEA ------------------------------------------------------------------------------------------


def convert_deepsea(root: Path, writer: Writer) -> None:
    """Writes one-hot DNA (N, 1000, 4) as (N, 4, 1000), one byte per number, and 36 yes-or-no targets."""
    path = root / "deepsea_filtered.npz"
    arrays = open_checked_npz(path, DEEPSEA_SHAPES)
    total, done = sum(arrays[name].shape[0] for name in DEEPSEA_SHAPES), 0
    for name in DEEPSEA_SHAPES:
        if name.startswith("y") and arrays[name].shape[0] != arrays[f"x{name[1:]}"].shape[0]:
            raise DataError(f"{path}: {name} and x{name[1:]} have different lengths. Get the file again.")
        for block in _read_binary_blocks(arrays[name], f"{path}: {name}"):
            writer.append(name, block.transpose(0, 2, 1) if name.startswith("x") else block, path)
            done += len(block)
            writer.report(done, total)


def _read_binary_blocks(stored: StoredArray, where: str) -> Iterator[np.ndarray]:
    for block in stored.read_blocks():
        if not ((block == 0) | (block == 1)).all():
            raise DataError(f"{where}: it holds numbers other than 0 and 1. Is it the right file?")
        yield block.astype(np.uint8)


DEEPSEA_SHAPES: dict[str, tuple[int | None, ...]] = {
    **{f"x_{part}": (None, 1000, 4) for part in PARTS},
    **{f"y_{part}": (None, 36) for part in PARTS},
}
DEEPSEA = Task(
    name="deepsea",
    dims=1,
    sample_shape=(4, 1000),
    kind="multi-label",
    output_shape=(36,),
    loss="bce",
    loss_settings={"pos_weight": 4.0},
    metric="auroc-error",
    load=lambda data, split_seed: load_three_parts(data),
    splits_are_fixed=True,
    convert=Conversion(name="deepsea", run=convert_deepsea),
    meaning="stretches of DNA, 36 yes-or-no features of chromatin, the benchmark's three splits",
    preparation="one-hot letters",
    codes=True,
    source=f"DeepSEA (Zhou & Troyanskaya 2015); {SOURCE}",
    licence=LICENCE,
    get_from=DRIVE,
    download_mb=860,
    files=(describe_npz_file("deepsea_filtered.npz", DEEPSEA_SHAPES),),
    # Validation and test as published; how many stretches are for training is not, so that this is a guess.
    published_sizes=(72_000, 2_490, 149_400),
    sizes_are_guessed=True,
    recipe=make_recipe(
        Released(
            body="roberta-base",
            epochs=13,
            batch=16,
            optimizer="adam",
            lr=1e-5,
            weight_decay=0.0,
            momentum=0.99,
            warmup=10,
            decay=25,
            clip=1.0,
            max_samples=64,
            length=512,
        )
    ),
)


# Darcy flow ---------------------------------------------------------------------------------------

DARCY_GRID, DARCY_STRIDE = 421, 5
DARCY_FILES = {"piececonst_r421_N1024_smooth1.mat": 1000, "piececonst_r421_N1024_smooth2.mat": 100}
"""Files and how many of their first problems are used: for training and validation, then for test."""


def convert_darcy(root: Path, writer: Writer) -> None:
    """Writes coefficients and solutions of the first problems of both files on every 5th grid point, 85 x 85."""
    side = len(range(0, DARCY_GRID, DARCY_STRIDE))
    done = 0
    for name, most in DARCY_FILES.items():
        for array, key in (("x", "coeff"), ("y", "sol")):
            stored = open_mat_array(root / name, key)
            check_shape(f"{root / name}: {key}", stored.shape, stored.dtype, (None, DARCY_GRID, DARCY_GRID))
            n = min(most, stored.shape[0])
            kept = np.empty((n, 1, side, side), np.float32)
            for j, slab in enumerate(stored.read_blocks()):
                if j % DARCY_STRIDE == 0:
                    kept[:, 0, :, j // DARCY_STRIDE] = slab[:n, ::DARCY_STRIDE]
                done += 1
                writer.report(done, 4 * DARCY_GRID)
            writer.append(array, kept, root / name)
        if most == 1000:
            writer.append("n_train", np.array([n]))


def load_darcy_files(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns coefficient (1, 85, 85) -> solution (1, 85, 85); validation is a tenth of the first file."""
    tenth = max(1, int(data["n_train"][0]) // 10)
    return split_train_and_test(data, split_seed, y=Rows.from_array(data["y"], data.digest_of("y")), n_val=tenth)


DARCY = Task(
    name="darcy",
    dims=2,
    sample_shape=(3, 85, 85),
    kind="dense-regression",
    output_shape=(1, 85, 85),
    loss="relative-l2",
    metric="relative-l2",
    load=load_darcy_files,
    convert=Conversion(name="darcy", run=convert_darcy),
    meaning="Darcy flow on an 85x85 grid: coefficient and coordinates to pressure",
    source=f"Li et al. 2021, arXiv 2010.08895; {SOURCE}",
    licence="MIT",
    get_from=DRIVE,
    download_mb=3200,
    files=tuple(
        describe_mat_file(name, dict.fromkeys(("coeff", "sol"), (None, DARCY_GRID, DARCY_GRID))) for name in DARCY_FILES
    ),
    normalise_inputs="pointwise",
    preparation="in the benchmark's files; coordinates from 0 to 1 follow, which are not normalised",
    normalise_targets="pointwise",
    coordinates=True,
    recipe=make_recipe(
        Released(
            body="swin-base",
            epochs=100,
            batch=4,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=5e-3,
            momentum=0.9,
            decay=100,
        )
    ),
)
RECORDS = (NINAPRO, SATELLITE, ECG, DEEPSEA, DARCY)
