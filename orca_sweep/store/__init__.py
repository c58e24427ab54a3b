"""The store: stage artifacts by the hash of their dependencies, locks for their writers, and the costs of trials."""

from orca_sweep.store.artifacts import Store
from orca_sweep.store.json_files import write_json
from orca_sweep.store.names import Entry
from orca_sweep.store.tensors import Artifact, CorruptFileError, Tensors, read_tensors, state_digest, write_tensors
from orca_sweep.store.versions import made_with, numeric_versions, stage_key
from orca_sweep.store.writing import FULL, explain_write_errors, find_full_disk, write_whole

__all__ = [
    "FULL",
    "Artifact",
    "CorruptFileError",
    "Entry",
    "Store",
    "Tensors",
    "explain_write_errors",
    "find_full_disk",
    "made_with",
    "numeric_versions",
    "read_tensors",
    "stage_key",
    "state_digest",
    "write_json",
    "write_tensors",
    "write_whole",
]
