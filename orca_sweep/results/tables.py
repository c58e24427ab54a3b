"""Reads the Parquet tables of one or more sweeps."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from orca_sweep.config import canonical_json
from orca_sweep.config.labels import write_level
from orca_sweep.errors import DamagedError, InputError
from orca_sweep.record_files import CHECKSUM
from orca_sweep.results.columns import TABLE_SCHEMA, validation_twin
from orca_sweep.results.contents import find_split_columns
from orca_sweep.results.levels import read_labels
from orca_sweep.results.schemas import ABOUT_TABLE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES: Mapping[str, tuple[str, ...]] = {
    "trials": ("trial_id", "cell_id", "role", "seed", "status"),
    "epochs": ("trial_id", "stage", "epoch"),
    "stages": ("trial_id", "stage", "phase"),
}
"""Each table and the columns that identify its rows."""
COLLECT_AGAIN = "Make the tables again with 'orca-sweep collect'."


@dataclass(frozen=True, kw_only=True)
class Results:
    """The tables of one or more sweeps."""

    trials: "pd.DataFrame"
    epochs: "pd.DataFrame"
    factors: tuple[str, ...]
    metric: str
    """The column that trials are compared on: the space's metric, or the validation metric while test metrics are sealed."""
    spaces: tuple[str, ...]
    questions: tuple[str, ...]
    tuned: tuple[str, ...] = ()
    """Config fields that were tuned within each cell."""
    worst: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By space, the statuses that are scored as the worst of their task."""
    stages: "pd.DataFrame | None" = None
    """A row per trial, stage and phase; None in results that were not read from files."""
    margins: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """By task, pairs of a space and the margin that it fixes: the smallest difference that matters, in the metric's unit."""
    reveals: tuple[tuple[str, str, int], ...] = ()
    """Each reveal of test metrics: space, time in UTC, and number of trials that it showed for the first time."""
    searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By space that tunes: ``method``, run ``seeds`` of candidates, and ``fields``: a range or a list of levels each. Tables of
    earlier versions do not have it."""
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By space, what may end a trial early or run it again (``prune``, ``budget``, ``trial_s``, ``retry``), and the
    ``accelerator_type`` that it asks for. Tables of earlier versions do not have it."""
    smoke: tuple[str, ...] = ()
    """Spaces that ran in their smoke form: their numbers answer nothing."""
    n_sealed: int = 0
    """Number of ok trials whose test metrics are sealed."""
    notes: tuple[str, ...] = ()
    """Sentences that everything made from these rows must show, for example about rows that were left out."""
    remembered: "dict[Any, Any] | None" = field(default=None, compare=False, repr=False)
    """What ``summarise_cells`` made of these rows; None to make it anew each time, in case somebody changes the rows."""

    @property
    def smoke_warning(self) -> str:
        """What everything made from the rows of a smoke sweep begins with; empty for other rows."""
        names = list(dict.fromkeys(self.smoke))
        if not names:
            return ""
        shown = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        return (
            f"Smoke sweep ({shown}): small on purpose, to see that everything runs. Its numbers answer nothing; believe no"
            " claim from them."
        )

    @cached_property
    def labels(self) -> "pd.DataFrame":
        """Readable levels, a column per factor and a row per trial, as the trial's space writes them."""
        return read_labels(self.trials, self.factors)

    def label_column(self, path: str) -> "pd.Series[str]":
        """Returns the readable values of a config field, a row per trial."""
        return self.labels[path] if path in self.factors else self.trials[path].map(write_level)


def read_table(folder: Path, name: str) -> "pa.Table":
    """Returns one of the tables.

    Raises:
        InputError: if it is missing, is not what ``collect`` wrote, comes from another collection than the table of trials
            beside it, lacks a column, or has another schema version.
    """
    import pyarrow.parquet as pq

    path, trials = folder / f"{name}.parquet", folder / "trials.parquet"
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such table. Make it with 'orca-sweep collect SWEEP_FOLDER -o {folder}'.")
    about = _read_metadata(path)
    with _explain_damage(path):
        table = pq.read_table(path)
    missing = [column for column in TABLES[name] if column not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}. orca-sweep did not write this table.")
    text = canonical_json({key: value for key, value in about.items() if key != CHECKSUM})
    if about.get(CHECKSUM) != table_digest(table, text):
        raise DamagedError(path, "not what 'orca-sweep collect' wrote (its checksum is wrong)", COLLECT_AGAIN)
    if name != "trials" and about.get("trials") != _read_metadata(trials).get("trials"):
        raise DamagedError(path, f"from another collection than {trials.name} beside it", COLLECT_AGAIN)
    return table


def table_digest(table: "pa.Table", text: str = "") -> str:
    """Returns the SHA-256 of a text and a table's names, types and values; how the values are stored does not matter.

    Cost: about the time of reading the table.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256(f"{len(table)}:{text}".encode())
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        column = table[name].combine_chunks()
        digest.update(f"{name}:{kind}".encode())
        digest.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = pc.cast(pc.fill_null(column, ""), pa.large_string())
            digest.update(pc.cast(pc.binary_length(texts), pa.int64()).to_numpy(zero_copy_only=False).tobytes())
            digest.update(_view_text(texts))
        elif pa.types.is_boolean(kind):
            digest.update(pc.fill_null(column, False).to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_timestamp(kind):
            digest.update(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            digest.update(pc.fill_null(column, 0).to_numpy(zero_copy_only=False).tobytes())
        else:  # a column that this version does not know
            digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()


def _view_text(texts: "pa.LargeStringArray") -> memoryview:
    """Returns the UTF-8 bytes of all texts, one behind the other, without a copy."""
    _, offsets, characters = texts.buffers()
    if characters is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, dtype=np.int64)
    return memoryview(characters)[bounds[texts.offset] : bounds[texts.offset + len(texts)]]


def _read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata that ``collect`` wrote into a table.

    Raises:
        InputError: if the table is missing, damaged, not written by ``collect``, or of another schema version.
    """
    import pyarrow.parquet as pq

    if not os.path.lexists(path):
        raise InputError(f"{path}: no such table. Make it with 'orca-sweep collect SWEEP_FOLDER'.")
    with _explain_damage(path):
        text = (pq.read_schema(path).metadata or {}).get(b"orca_sweep", b"")
    try:
        about: dict[str, Any] = ABOUT_TABLE.validate_json(text)
    except ValidationError:
        raise DamagedError(path, "not what 'orca-sweep collect' wrote (its metadata is wrong)", COLLECT_AGAIN) from None
    version = about["schema_version"]
    if version != TABLE_SCHEMA:
        remedy = "Upgrade orca-sweep." if version > TABLE_SCHEMA else COLLECT_AGAIN
        raise InputError(f"{path}: schema version {version}; this version reads {TABLE_SCHEMA}. {remedy}")
    return about


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    """Turns errors of reading a Parquet file into a DamagedError, and does not wait for a pipe in its place."""
    import pyarrow as pa

    if path.exists() and not path.is_file():
        obstacle = "a folder is in its place" if path.is_dir() else "it is not a regular file"
        raise DamagedError(path, f"cannot be read: {obstacle}", COLLECT_AGAIN)
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DamagedError(path, f"damaged, or not a Parquet file ({text[:200]})", COLLECT_AGAIN) from None


def read_about(folder: Path) -> dict[str, Any]:
    """Returns the metadata of the tables in a folder, with a record of each sweep under ``sweeps``.

    Raises:
        InputError: if the trials table is missing, damaged, or of another schema version.
    """
    return _read_metadata(folder / "trials.parquet")


def read_tables(folder: Path) -> Results:
    """Reads the tables that ``collect`` or ``launch`` wrote into a folder.

    Raises:
        InputError: if a table is missing or damaged, lacks a column, or has another schema version.
    """
    # Table by table, so that no more than one is in memory both as Arrow and as pandas.
    frames = {name: _make_frame(read_table(folder, name)) for name in TABLES}
    return _combine_frames(frames, read_about(folder)["sweeps"])


def as_results(tables: "Mapping[str, pa.Table]", sweeps: Sequence[Mapping[str, Any]]) -> Results:
    """Returns tables and the records of their sweeps as `Results`."""
    return _combine_frames({name: _make_frame(table) for name, table in tables.items()}, sweeps)


def _make_frame(table: "pa.Table") -> "pd.DataFrame":
    import pyarrow as pa

    frame = table.to_pandas()
    # Arrow keeps what it has freed, here as much as a whole table.
    pa.default_memory_pool().release_unused()
    return frame


def _combine_frames(frames: "Mapping[str, pd.DataFrame]", sweeps: Sequence[Mapping[str, Any]]) -> Results:
    trials, metric = frames["trials"], next((s["metric"] for s in sweeps if "metric" in s), "test_metric_best")
    n_sealed = _count_sealed(trials)
    split = find_split_columns(trials)  # two contents of one name are two levels, whether or not the space varies it
    results = Results(
        trials=trials,
        epochs=frames["epochs"],
        factors=tuple(dict.fromkeys([*(path for sweep in sweeps for path in sweep.get("factors", ())), *split])),
        metric=validation_twin(metric) if n_sealed else metric,
        spaces=tuple(sweep["space"] for sweep in sweeps),
        questions=tuple(sweep.get("question", "") for sweep in sweeps),
        tuned=tuple(dict.fromkeys(path for sweep in sweeps for path in sweep.get("tuned", ()))),
        worst={sweep["space"]: sweep.get("worst", ()) for sweep in sweeps},
        stages=frames["stages"],
        margins=_merge_margins(sweeps),
        reveals=tuple((sweep["space"], time, n) for sweep in sweeps for time, n in sweep.get("reveals", ())),
        searches={sweep["space"]: sweep["search"] for sweep in sweeps if sweep.get("search")},
        rules={sweep["space"]: sweep["rules"] for sweep in sweeps if "rules" in sweep},
        smoke=tuple(sweep["space"] for sweep in sweeps if sweep.get("is_smoke")),
        n_sealed=n_sealed,
    )
    return replace(results, notes=(results.smoke_warning,)) if results.smoke else results


def _count_sealed(trials: "pd.DataFrame") -> int:
    """Returns how many ok trials are sealed; one that is in two cells has two rows."""
    if "is_sealed" not in trials:
        return 0
    is_sealed = (trials["status"] == "ok") & trials["is_sealed"].eq(True)
    return int(trials.loc[is_sealed, "trial_id"].nunique())


def _merge_margins(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, float], ...]]:
    margins: dict[str, dict[tuple[str, float], None]] = {}
    for sweep in sweeps:
        for task, margin in sweep.get("margins", {}).items():
            margins.setdefault(task, {})[(sweep["space"], margin)] = None
    return {task: tuple(fixed) for task, fixed in margins.items()}
