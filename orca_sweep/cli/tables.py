"""Opening the tables of a sweep, for ``analyse`` and ``report``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from orca_sweep.errors import InputError
from orca_sweep.results import Results, read_results
from orca_sweep.results import collect as collect_tables


@contextmanager
def open_tables(folder: Path, is_only_read: bool) -> Iterator[tuple[Path, Results, tuple[str, ...]]]:
    """Yields the folder of a sweep's or a user's tables, what they hold, and the notes on them, which it prints.

    The tables of a sweep are made again, in a temporary folder if nothing may be written into the sweep's.

    Raises:
        InputError: if the folder is neither a sweep nor a folder of tables.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # it returns freed memory at once, unlike Arrow's own
    if os.path.lexists(folder / "sweep.json"):
        tables = folder / "tables"
        if is_only_read:
            with TemporaryDirectory(prefix="orca-sweep-tables-") as name:
                yield Path(name), *_print_notes(collect_tables([folder], Path(name), earlier=tables))
        else:
            yield tables, *_print_notes(collect_tables([folder], tables))
    elif os.path.lexists(folder / "trials.parquet"):
        yield folder, *_print_notes(read_results(folder))
    else:
        raise InputError(
            f"{folder}: neither a sweep (no sweep.json) nor tables (no trials.parquet). Name a folder that 'orca-sweep"
            " launch' or 'orca-sweep collect' wrote."
        )


def _print_notes(results: Results) -> tuple[Results, tuple[str, ...]]:
    """Prints the notes; returns the results without them, so that figures do not repeat them, and the notes."""
    for note in results.notes:
        print(note, flush=True)
    return replace(results, notes=()), results.notes
