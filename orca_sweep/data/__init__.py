"""Samples, seeded three-way splits, conversion to memory maps, and readers that trust no file from outside."""

from orca_sweep.data.conversion import Conversion, Converted, File, Writer, converted, find_converted
from orca_sweep.data.readers import read_npy, read_pickle, read_pickled_dict, read_pickled_npy
from orca_sweep.data.samples import (
    Array,
    Rows,
    Samples,
    Splits,
    check_array,
    check_labels,
    check_shape,
    chunks,
    fingerprint,
    missing_packages,
    split_groups,
    split_random,
    subsample,
)

__all__ = [
    "Array",
    "Conversion",
    "Converted",
    "File",
    "Rows",
    "Samples",
    "Splits",
    "Writer",
    "check_array",
    "check_labels",
    "check_shape",
    "chunks",
    "converted",
    "find_converted",
    "fingerprint",
    "missing_packages",
    "read_npy",
    "read_pickle",
    "read_pickled_dict",
    "read_pickled_npy",
    "split_groups",
    "split_random",
    "subsample",
]
