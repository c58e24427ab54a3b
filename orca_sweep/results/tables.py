"""The Parquet tables of one or more sweeps, read back."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
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
from orca_sweep.results.schemas import ABOUT_TABLE as ABOUT

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES: Mapping[str, tuple[str, ...]] = {
    "trials": ("trial_id", "cell_id", "role", "seed", "status"),
    "epochs": ("trial_id", "stage", "epoch"),
    "stages": ("trial_id", "stage", "phase"),
}
"""Each table and the columns that tell its rows apart."""
SINCE = {"stages": 2}
"""Tables that came with a later schema version: in earlier ones they are empty."""
COLLECT_AGAIN = "Make the tables anew with 'orca-sweep collect'."


@dataclass(frozen=True)
class Results:
    """The tables of one or more sweeps."""

    trials: "pd.DataFrame"
    epochs: "pd.DataFrame"
    factors: tuple[str, ...]
    metric: str
    """What trials are compared on: the space's metric, or its validation twin as long as a test metric is sealed."""
    spaces: tuple[str, ...]
    questions: tuple[str, ...]
    tuned: tuple[str, ...] = ()
    """Config fields that were searched within each cell."""
    worst: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By space, the statuses that are scored as the worst trial of their task."""
    stages: "pd.DataFrame | None" = None
    """A row per trial, stage and phase; None in tables of before there were any."""
    margins: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """By task, each space that fixes the largest difference that is no meaningful one, and which, in the metric's unit."""
    reveals: tuple[tuple[str, str, int], ...] = ()
    """Each look at test metrics: space, moment in UTC, and how many trials it showed first."""
    n_sealed: int = 0
    """Ok trials whose test metrics were not revealed."""
    notes: tuple[str, ...] = ()
    """What is to be said with everything that is made of these rows, such as what was left out of them."""

    @cached_property
    def labels(self) -> "pd.DataFrame":
        """The level of each factor as people read it, a row per trial: what its space writes, where it has an effect."""
        return read_labels(self.trials, self.factors)

    def label_column(self, path: str) -> "pd.Series[str]":
        """Returns a config field of each trial as people read it."""
        return self.labels[path] if path in self.factors else self.trials[path].map(write_level)


def read_table(folder: Path, name: str) -> "pa.Table":
    """Returns one of the tables.

    Raises:
        InputError: if it is missing, not what ``collect`` has written, of another collection than the table of trials
            beside it, lacks a column, or is of a newer schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, trials = folder / f"{name}.parquet", folder / "trials.parquet"
    if not os.path.lexists(path):
        if SINCE.get(name, 0) > _about(trials).get("schema_version", 1):
            return pa.table({column: pa.array([], pa.string()) for column in TABLES[name]})
        raise InputError(f"{path}: no such table. Make it with 'orca-sweep collect SWEEP_FOLDER -o {folder}'.")
    about = _about(path)
    with _damage_told(path):
        table = pq.read_table(path)
    missing = [column for column in TABLES[name] if column not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}. It was not written by orca-sweep.")
    text = canonical_json({key: value for key, value in about.items() if key != CHECKSUM})
    if about.get(CHECKSUM) != table_digest(table, text):
        raise DamagedError(path, "not what 'orca-sweep collect' has written (its checksum is wrong)", COLLECT_AGAIN)
    if name != "trials" and about.get("trials") != _about(trials).get("trials"):
        raise DamagedError(path, f"of another collection than {trials.name} beside it", COLLECT_AGAIN)
    return table


def table_digest(table: "pa.Table", text: str = "") -> str:
    """Returns the SHA-256 of a table's names, types and values: equal means equal rows, however they are stored.

    Cost: about the time of reading it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256(f"{len(table)}:{text}".encode())
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        column = table[name].combine_chunks()
        digest.update(f"{name}:{kind}".encode())
        digest.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = pc.fill_null(column, "")
            digest.update(pc.cast(pc.binary_length(texts), pa.int64()).to_numpy(zero_copy_only=False).tobytes())
            digest.update("".join(texts.to_pylist()).encode("utf-8", "surrogatepass"))
        elif pa.types.is_boolean(kind):
            digest.update(pc.fill_null(column, False).to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_timestamp(kind):
            digest.update(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            digest.update(pc.fill_null(column, 0).to_numpy(zero_copy_only=False).tobytes())
        else:  # a column of a later version
            digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()


def _about(path: Path) -> dict[str, Any]:
    """What a table says of itself.

    Raises:
        InputError: if it is missing, damaged, not written by ``collect``, or of a newer schema.
    """
    import pyarrow.parquet as pq

    if not os.path.lexists(path):
        raise InputError(f"{path}: no such table. Make it with 'orca-sweep collect SWEEP_FOLDER'.")
    with _damage_told(path):
        text = (pq.read_schema(path).metadata or {}).get(b"orca_sweep", b"")
    try:
        about: dict[str, Any] = ABOUT.validate_json(text)
    except ValidationError:
        raise DamagedError(path, "not what 'orca-sweep collect' has written (no checksum)", COLLECT_AGAIN) from None
    if about.get("schema_version", 1) > TABLE_SCHEMA:
        raise InputError(f"{path}: schema version {about['schema_version']} is newer than {TABLE_SCHEMA}. Upgrade.")
    return about


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Says in words that a Parquet file cannot be read; a pipe in its place is not waited for."""
    import pyarrow as pa

    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise DamagedError(path, f"cannot be read: {what} is in its place", COLLECT_AGAIN)
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DamagedError(path, f"damaged, or no Parquet file ({text[:200]})", COLLECT_AGAIN) from None


def read_about(folder: Path) -> dict[str, Any]:
    """Returns what the tables say of the sweeps in them, ``sweeps`` one by one, whichever version wrote them.

    Raises:
        InputError: if the trials table is missing or damaged.
    """
    about = _about(folder / "trials.parquet")
    if "sweeps" in about:
        return about
    common = {key: about[key] for key in ("factors", "tuned", "metric") if key in about}
    named = zip_longest(about.get("spaces") or [""], about.get("questions", ()), fillvalue="")
    sweeps = [
        {"space": space, "question": question, **common, "worst": about.get("worst", {}).get(space, [])}
        for space, question in named
    ]
    return {**about, "sweeps": sweeps}


def read_results(folder: Path | str) -> Results:
    """Reads the tables that ``collect`` or ``launch`` wrote.

    Raises:
        InputError: if a table is missing or damaged, lacks a column, or is of a newer schema.
    """
    folder = Path(folder)
    return as_results({name: read_table(folder, name) for name in TABLES}, read_about(folder)["sweeps"])


def as_results(tables: "Mapping[str, pa.Table]", sweeps: Sequence[Mapping[str, Any]]) -> Results:
    """Returns tables, and what they say of each sweep in them, as frames."""
    frames = {name: table.to_pandas() for name, table in tables.items()}
    trials, metric = frames["trials"], next((s["metric"] for s in sweeps if "metric" in s), "test_metric_best")
    n_sealed = int(trials.loc[trials["status"] == "ok", "is_sealed"].eq(True).sum()) if "is_sealed" in trials else 0
    split = find_split_columns(trials)  # two contents of one name are two levels, whatever the space varied
    return Results(
        trials=trials,
        epochs=frames["epochs"],
        factors=tuple(dict.fromkeys([*(path for sweep in sweeps for path in sweep.get("factors", ())), *split])),
        metric=validation_twin(metric) if n_sealed else metric,
        spaces=tuple(sweep["space"] for sweep in sweeps),
        questions=tuple(sweep.get("question", "") for sweep in sweeps),
        tuned=tuple(dict.fromkeys(path for sweep in sweeps for path in sweep.get("tuned", ()))),
        worst={sweep["space"]: sweep.get("worst", ()) for sweep in sweeps},
        stages=frames["stages"],
        margins=_margins(sweeps),
        reveals=tuple((sweep["space"], time, n) for sweep in sweeps for time, n in sweep.get("reveals", ())),
        n_sealed=n_sealed,
    )


def _margins(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, float], ...]]:
    found: dict[str, dict[tuple[str, float], None]] = {}
    for sweep in sweeps:
        for task, margin in sweep.get("margins", {}).items():
            found.setdefault(task, {})[(sweep["space"], margin)] = None
    return {task: tuple(fixed) for task, fixed in found.items()}
