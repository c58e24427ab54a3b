"""OpenML's tabular classification data by number, such as ``openml:31``: a row is a sequence with one token per column.

The data are read from ``openml/<id>.parquet`` below the data root, a plain table whose column ``target`` is the class.
``orca-sweep data fetch openml:<id>`` writes it and needs the extra ``openml``. ``openml-orca:<id>`` reads
``<id>_dev_test_split.npy``, the file that ORCA's code makes for itself.
"""

import os
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data import File, Samples, Splits, check_array, check_labels, read_pickled_dict, split_random
from orca_sweep.data.readers import report_parquet_damage
from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks.columns import encode_table, find_text_numbers
from orca_sweep.tasks.recipes import NPY_MAGIC, Released, describe_pickle_file, make_recipe
from orca_sweep.tasks.records import Task

PREFIX, ORCA_PREFIX = "openml:", "openml-orca:"
TARGET = "target"
RECIPE = make_recipe(
    Released(
        body="roberta-base",
        epochs=60,
        batch=32,
        optimizer="adam",
        lr=1e-5,
        weight_decay=1e-3,
        momentum=0.99,
        dropout=0.05,
        decay=60,
        clip=1.0,
        embedder_epochs=20,
        length=64,
    )
)
"""The released settings differ between data sets. Betas are always 0.9 and 0.98; dropout is mostly 0.05, else 0 or 0.1."""


def make_openml_task(name: str) -> Task:
    """Returns the task of ``openml:<id>`` or ``openml-orca:<id>``; its shapes come from its data.

    Raises:
        InputError: if the id is not a number.
    """
    by_orca, number = name.startswith(ORCA_PREFIX), name.split(":", 1)[1]
    if not number.isascii() or not number.isdigit():
        raise InputError(f"task {name!r}: OpenML data sets are named by number. Write, for example, openml:31.")
    return Task(
        name=name,
        dims=1,
        sample_shape=(0, 0),
        kind="classification",
        output_shape=(0,),
        loss="balanced-cross-entropy",
        metric="ovo-auroc-error",
        load=partial(load_orca if by_orca else load_openml, number=number),
        meaning=f"OpenML data set {number}: rows of a table, one token per column; a tenth each for test and validation",
        source="OpenML (Vanschoren et al. 2014); settings after Shen et al. 2023, which tunes them per data set",
        licence="see OpenML",
        files=(
            describe_pickle_file(f"{number}_dev_test_split.npy", NPY_MAGIC, "a dict saved with np.save")
            if by_orca
            else File(
                path=f"openml/{number}.parquet",
                check=partial(_check_table, number=number),
                url=f"https://www.openml.org/d/{number}",
            ),
        ),
        packages=("pandas", "pyarrow"),
        preparation="columns of numbers, each standardised by the training split (before data.n_train), and one-hot categories",
        recipe=RECIPE,
    )


def _check_table(root: Path, number: str) -> str:
    path = root / f"openml/{number}.parquet"
    table = _read_table(path)
    columns = table.drop(columns=TARGET)
    encode_table(columns, np.arange(len(table)), path)
    as_numbers = find_text_numbers(columns, path)
    read = f" (as numbers: {', '.join(as_numbers)})" if as_numbers else ""
    return f"{len(table)} rows, {len(columns.columns)} columns{read}, {table[TARGET].nunique()} classes"


def load_openml(root: Path, split_seed: int, number: str) -> Splits:
    """Returns rows as (levels, columns) with their classes: numbers standardised, categories one-hot.

    Times count as numbers (seconds), and so do decimals, and text if every value is a number. A column of names, in which
    more than half of the values are different, is refused.

    Numbers use the first level. A missing number becomes the training mean. A missing category becomes a separate
    level if training has missing values, otherwise all zeros. Means, spreads and levels come only from training rows.

    Differs from ORCA's code in: the split is seeded and leaves a validation part; the scaler sees training only.
    """
    path = root / f"openml/{number}.parquet"
    table = _read_table(path)
    classes, y = np.unique(table[TARGET].astype(str).to_numpy(), return_inverse=True)
    counts = np.bincount(y)
    if len(classes) < 2 or counts.min() < 3:
        rarest = classes[counts.argmin()]
        raise DataError(f"{path}: the rarest of {len(classes)} classes, {rarest!r}, has {counts.min()} rows. At least two"
                        " classes with three rows each are needed.")  # fmt: skip
    tenth = max(1, len(y) // 10)
    train, val, test = split_random(len(y), n_val=tenth, n_test=tenth, seed=split_seed, labels=y)
    x = encode_table(table.drop(columns=TARGET), train, path)
    return Splits(*(Samples(x[part], y[part].astype(np.int64)) for part in (train, val, test)))


def _read_table(path: Path) -> Any:
    import pandas as pd

    with report_parquet_damage(path):
        table = pd.read_parquet(path)
    if TARGET not in table.columns or len(table.columns) < 2:
        raise DataError(f"{path}: columns {', '.join(map(str, table.columns))[:200]}. One named {TARGET!r} with the"
                        " class and some others were expected.")  # fmt: skip
    return table[table[TARGET].notna()].reset_index(drop=True)


def load_orca(root: Path, split_seed: int, number: str) -> Splits:
    """Returns the splits of ORCA's own file: its test tenth stays, and validation is drawn from the rest.

    Its scaler has seen all rows, so columns of numbers are scaled again with the training rows alone.
    """
    path = root / f"{number}_dev_test_split.npy"
    raw = read_pickled_dict(path, ("X_norm_dev", "X_norm_test", "y_dev", "y_test"))
    labels = check_array(raw["y_dev"], f"{path}: y_dev", (None,))
    n_classes = len(np.unique(labels))  # classes count from 0 without gaps; check_labels refuses other labels
    dev, test = (_read_orca_part(raw, part, n_classes, path) for part in ("dev", "test"))
    if dev.x.shape[1:] != test.x.shape[1:]:
        raise DataError(f"{path}: columns {dev.x.shape[1:]} in dev, {test.x.shape[1:]} in test. Make it again.")
    labels = np.asarray(dev.y)
    train, val, _ = split_random(len(dev), n_val=max(1, len(dev) // 9), n_test=0, seed=split_seed, labels=labels)
    known = np.asarray(dev.x[train])
    numbers = ~np.isin(known, (0, 1)).all(axis=(0, 1))
    mean, spread = known[:, 0].mean(axis=0), known[:, 0].std(axis=0)
    for x in (np.asarray(dev.x), np.asarray(test.x)):
        x[:, 0, numbers] = ((x[:, 0] - mean) / np.where(spread > 0, spread, 1))[:, numbers]
    return Splits(dev.take(train), dev.take(val), test)


def _read_orca_part(raw: Mapping[str, Any], part: str, n_classes: int, path: Path) -> Samples:
    x = check_array(raw[f"X_norm_{part}"], f"{path}: X_norm_{part}", (None, None, None))
    y = check_labels(raw[f"y_{part}"], f"{path}: y_{part}", n=len(x), first=0, n_classes=n_classes)
    return Samples(np.asarray(x.transpose(0, 2, 1), np.float32), y)


def fetch_openml(name: str, root: Path) -> tuple[Path, str]:
    """Downloads an OpenML data set with the ``openml`` package into the table that ``load_openml`` reads.

    An existing table, perhaps the user's own, is kept.

    Returns:
        The table's path, and in words what was done.

    Raises:
        InputError: if the data set has no class to predict.
        DataError: if OpenML does not deliver it.
    """
    import openml

    number = name.removeprefix(PREFIX)
    path = root / f"openml/{number}.parquet"
    if os.path.lexists(path):
        return path, "is there"
    try:
        dataset = openml.datasets.get_dataset(int(number), download_data=True, download_qualities=False)
    except Exception as error:  # the package and the network raise many kinds
        raise DataError(f"{name}: OpenML does not deliver it ({type(error).__name__}: {error}). Check the number and the"
                        " network.") from None  # fmt: skip
    if not dataset.default_target_attribute or "," in dataset.default_target_attribute:
        raise InputError(f"{name}: OpenML names no single column as its class ({dataset.default_target_attribute!r}).")
    columns: Any
    classes: Any
    columns, classes, _, _ = dataset.get_data(target=dataset.default_target_attribute)
    table = columns.assign(**{TARGET: classes.astype(str).where(classes.notna())})
    about = {"id": int(number), "name": dataset.name, "version": dataset.version, "md5": dataset.md5_checksum}
    table.attrs = {"openml": about}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        table.to_parquet(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path, "fetched by the openml package"
