"""Data files that lie in this package, or in another that is installed."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from orca_sweep.data.readers import open_file
from orca_sweep.data.samples import missing_packages
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


def find_package_file(what: str, package: str, path: str, extra: str | None = None) -> Path:
    """Returns the path of a data file in an installed package, which is not imported.

    Raises:
        DataError: if the package is not installed; says what needs it, and which extra installs it.
    """
    missing = missing_packages(what, [package], extra)
    spec = None if missing else find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(missing[0] if missing else f"{what} needs the package {package}, which has no folder here.")
    return Path(next(iter(spec.submodule_search_locations))) / path
