"""Data files that lie in the package."""

import hashlib
from pathlib import Path

from orca_sweep.data.readers import open_file
from orca_sweep.errors import DataError


def read_shipped_file(path: Path, sha256: str) -> bytes:
    """Returns the bytes of a file that comes with the package.

    Raises:
        DataError: if the file is missing, or not the one that was shipped.
    """
    with open_file(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path}: not the file that comes with orca-sweep. Install orca-sweep again.")
    return content
