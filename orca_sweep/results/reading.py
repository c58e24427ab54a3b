"""Reads results, whatever they are in: folders of sweeps, also while they run, folders of tables, or several of both."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from orca_sweep.errors import InputError
from orca_sweep.results.collecting import collect
from orca_sweep.results.tables import Results, read_tables
from orca_sweep.space.suites import holds_sweep

TABLES_FOLDER = "tables"
"""Of a sweep folder, or of a suite's."""


def read_results(*sources: Path | str | Sequence[Path | str]) -> Results:
    """Returns the results in one or more folders; its ``trials``, ``epochs`` and ``stages`` are plain pandas frames.

    A folder may be a sweep's or a suite's, also while it runs, or hold tables that ``collect`` or a launch wrote. Several are
    merged as ``collect`` merges them: a trial that several hold is taken once. Nothing is written into any of them.

    Args:
        sources: one folder, several of either kind, or a list of them.

    Raises:
        InputError: for each folder that holds neither a sweep nor tables, or damaged ones.

    Cost: as of `collect`; a sweep whose tables are up to date is read from these.
    """
    given = [item for source in sources for item in (source if isinstance(source, list | tuple) else [source])]
    wrong = [item for item in given if not isinstance(item, str | Path)]
    if wrong:
        names = ", ".join(dict.fromkeys(type(item).__name__ for item in wrong))
        raise InputError(f"read_results: a folder is a text or a pathlib.Path, not {names}.")
    folders = [Path(str(item)) for item in given]
    if not folders:
        raise InputError("read_results: no folder. Name the folder of a sweep, or of tables.")
    _check_sources(folders)
    if len(folders) == 1:
        with open_tables(folders[0]) as (_, results):
            return results
    with TemporaryDirectory(prefix="orca-sweep-tables-") as name:
        return collect(folders, Path(name))


@contextmanager
def open_tables(folder: Path, *, is_only_read: bool = True) -> Iterator[tuple[Path, Results]]:
    """Yields the folder with the tables of a sweep, or with a user's tables, and what they hold.

    The tables of a sweep are made again: in the sweep's folder, or in a temporary one if nothing may be written there.

    Raises:
        InputError: if the folder is neither a sweep nor a folder of tables.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # it returns freed memory at once, unlike Arrow's own
    _check_sources([folder])
    if not holds_sweep(folder):
        yield folder, read_tables(folder)
        return
    tables = folder / TABLES_FOLDER
    if not is_only_read:
        yield tables, collect([folder], tables)
        return
    with TemporaryDirectory(prefix="orca-sweep-tables-") as name:
        yield Path(name), collect([folder], Path(name), earlier=tables)


def _check_sources(folders: Iterable[Path]) -> None:
    """Refuses folders with neither a sweep nor tables.

    Raises:
        InputError: with each of them.
    """
    wrong = [folder for folder in folders if not (holds_sweep(folder) or os.path.lexists(folder / "trials.parquet"))]
    if wrong:
        raise InputError(
            [
                f"{folder}: neither a sweep (no sweep.json) nor tables (no trials.parquet). Name a folder that 'orca-sweep"
                " launch' or 'orca-sweep collect' wrote."
                for folder in wrong
            ]
        )
