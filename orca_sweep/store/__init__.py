"""Stage artifacts under the hash of what they depend on, the rows of what trials cost, and the locks between writers."""

from orca_sweep.store.artifacts import (
    FULL,
    Artifact,
    CorruptFileError,
    Entry,
    Store,
    Tensors,
    find_full_disk,
    made_with,
    numeric_versions,
    read_tensors,
    stage_key,
    state_digest,
    whole,
    write_tensors,
    writing,
)
from orca_sweep.store.json_files import write_json

__all__ = [
    "FULL",
    "Artifact",
    "CorruptFileError",
    "Entry",
    "Store",
    "Tensors",
    "find_full_disk",
    "made_with",
    "numeric_versions",
    "read_tensors",
    "stage_key",
    "state_digest",
    "whole",
    "write_json",
    "write_tensors",
    "writing",
]
