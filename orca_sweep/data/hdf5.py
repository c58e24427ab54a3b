"""Data sets of HDF5 files. Nothing outside of the file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data.readers import StoredArray, count_block_rows, open_file, report_damage
from orca_sweep.errors import DataError
from orca_sweep.registry import hint

MOST_NAMES = 1000
"""The most data sets searched for a name similar to the requested one."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an HDF5 file and turns errors about damaged bytes into a DataError.

    Raises:
        DataError: if it is missing or damaged.
    """
    if find_spec("h5py") is None:
        raise DataError(f"{path}: HDF5 files need the package h5py. Run: pip install 'orca-sweep[benchmarks]'")
    import h5py

    open_file(path).close()
    with report_damage(path, "An HDF5 file"), h5py.File(path, "r") as file:
        yield file


def get_hdf5_dataset(file: Any, path: Path, name: str, may_be_text: bool = False) -> Any:
    """Returns a data set of numbers, or of text if ``may_be_text``, of an open HDF5 file.

    Raises:
        DataError: naming what the file holds instead; or if the data lie outside of the file, where a link or external
            storage could point anywhere.
    """
    import h5py

    _refuse_links(file, path, name)
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{path}: there is no data set {name!r} in it. {_describe_names(file, name)}")
    if data.external or data.is_virtual:
        how = "in an external file" if data.external else "in other data sets (it is virtual)"
        raise DataError(f"{path}: {name} is stored {how}, outside of this file. Only data in the file itself are read."
                        " Copy the data into it.")  # fmt: skip
    is_text = data.dtype.kind == "S" or h5py.check_string_dtype(data.dtype) is not None
    if data.shape is None or not (data.dtype.kind in "biuf" or (may_be_text and is_text)):
        what = "nothing" if data.shape is None else "text" if is_text else str(data.dtype)
        raise DataError(f"{path}: {name} holds {what}. Real numbers were expected. Is it the right file?")
    return data


def _refuse_links(file: Any, path: Path, name: str) -> None:
    import h5py

    steps = [part for part in name.split("/") if part]
    for i in range(len(steps)):
        step = "/".join(steps[: i + 1])
        link = file.get(step, getlink=True)
        if link is None:
            return
        if isinstance(link, h5py.ExternalLink):
            raise DataError(f"{path}: {step} is a link to another file ({link.filename}). Only data in the file itself"
                            " are read. Copy the data into it.")  # fmt: skip
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{path}: {step} is a soft link. Name its target instead: {link.path}.")


def _describe_names(file: Any, name: str) -> str:
    """Returns a hint with the most similar names, or with what the file holds."""
    import h5py

    names: list[str] = []

    def collect_name(key: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(key)
        return True if len(names) >= MOST_NAMES else None

    file.visititems(collect_name)  # follows neither soft nor external links
    text = hint(name, names) if names else f"It holds: {', '.join(sorted(file))}."
    return text if len(text) < 300 else f"{text[:300]} ..."


def open_hdf5_array(path: Path, name: str) -> StoredArray:
    """Returns a data set of numbers, read in blocks of rows.

    Raises:
        DataError: as ``get_hdf5_dataset``.
    """
    with open_hdf5(path) as file:
        data = get_hdf5_dataset(file, path, name)
        shape, dtype = data.shape, data.dtype

    def read_blocks() -> Iterator[np.ndarray]:
        n = count_block_rows(shape, dtype.itemsize)
        with open_hdf5(path) as again:
            for i in range(0, shape[0], n):
                yield get_hdf5_dataset(again, path, name)[i : i + n]

    return StoredArray(shape=shape, dtype=dtype, read_blocks=read_blocks)
