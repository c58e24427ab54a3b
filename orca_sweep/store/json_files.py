"""Writes records to disk: JSON that begins with its checksum, whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orca_sweep.record_files import record_text
from orca_sweep.store.writing import write_whole


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record with its checksum, atomically.

    Raises:
        StorageError: if it cannot be written; the previous file stays.
    """
    with write_whole(str(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(record_text(content))
        file.flush()
        os.fsync(file.fileno())  # else a power failure could leave an empty file at the final path
