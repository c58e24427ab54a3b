"""Reads labelled tables: local Parquet, CSV, TSV and JSON lines, folders of images, and data sets of the hub."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.config.declaration import Declaration
from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError
from orca_sweep.proxies.files import SHARD, FileKind, choose_split, find_file_kind, list_files, read_split, read_text
from orca_sweep.proxies.image_files import find_images
from orca_sweep.registry import hint

TABLE_KINDS: tuple[FileKind, ...] = ("parquet", "csv", "tsv", "json")
WHOLE = re.compile(r"(?:0|-?[1-9]\d*)(?:\.0*)?")
"""A label's text that means a whole number. 007 does not: it is a name."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The two columns of a data set that a proxy needs."""

    labels: Sequence[object]
    inputs: Callable[[Sequence[int]], list[Any]]
    """Returns the samples of the given rows: texts, encoded images, or lists of tokens."""
    class_names: tuple[str, ...] = ()
    """Names of the classes that the labels number; empty if labels are not numbers of named classes."""
    about: str = ""
    """Notes for the plan on how the table was read."""


def read_table(declared: Declaration) -> Table:
    """Returns the samples and labels of a declared split.

    Raises:
        DataError: names the data set, the column and what it holds.
    """
    if not declared.is_local:
        return _read_hub(declared)
    path = Path(declared.path).expanduser()
    if not path.exists():
        raise DataError(
            f"{declared.text}: no such file or folder {declared.path}. Paths are relative to where you launch."
        )
    if path.is_file():
        split = read_split(declared.split, declared.text)
        if split.name not in ("", "train"):
            raise DataError(f"{declared.text}: a single file has no split {split.name!r}. Write [] or [train].")
        table = _read_files([path], declared)
    else:
        table = _read_folder(path, declared)
    rows = read_split(declared.split, declared.text).choose_rows(len(table.labels), declared.text)
    if len(rows) == len(table.labels):
        return table
    return Table(
        labels=[table.labels[i] for i in rows],
        inputs=lambda chosen: table.inputs([rows[i] for i in chosen]),
        class_names=table.class_names,
        about=table.about,
    )


def _read_folder(folder: Path, declared: Declaration) -> Table:
    """Returns the tables below a folder, or its images if it has no tables."""
    paths = [parts for parts in list_files(folder, declared.text) if find_file_kind(Path(parts[-1])) in TABLE_KINDS]
    tables = [parts for parts in paths if not parts[-1].lower().startswith(("metadata.", "dataset_info", "state."))]
    if not tables:
        return _read_images(folder, declared)
    chosen = choose_split(map(_find_split_name, tables), read_split(declared.split, declared.text).name, declared.text)
    used = [folder.joinpath(*parts) for parts in tables if chosen is None or _find_split_name(parts) == chosen]
    kinds = sorted({str(find_file_kind(path)) for path in used})
    if len(kinds) > 1:
        raise DataError(
            f"{declared.text}: the folder holds {' and '.join(kinds)} files. Name one file, or a folder of one kind."
        )
    return _read_files(used, declared)


def _find_split_name(parts: tuple[str, ...]) -> str:
    """Returns the split in a table's path: train.csv, data/train-00000-of-00002.parquet, train/0000.parquet."""
    stem = SHARD.sub("", parts[-1].split(".")[0])
    return parts[-2] if stem.isdigit() and len(parts) > 1 else stem


def _read_images(folder: Path, declared: Declaration) -> Table:
    images = find_images(folder, declared.split, declared.text)
    _check_columns(declared, ("image", "label"))
    return Table(
        labels=images.classes,
        inputs=lambda rows: [images.get_picture(i) for i in rows],
        about=f"{images.n_left_out:,} other files left out" if images.n_left_out else "",
    )


def _check_columns(declared: Declaration, names: Sequence[str]) -> None:
    for column in (declared.input, declared.label):
        if names.count(column) > 1:
            raise DataError(f"{declared.text}: {names.count(column)} columns are named {column!r}. Rename them.")
        if column not in names:
            sign = next((sign for sign in (";", "\t", "|") if len(names) == 1 and sign in names[0]), None)
            separated = f" Its only column is {names[0]!r}: save it with commas." if sign else ""
            raise DataError(f"{declared.text}: there is no column {column!r}. {hint(column, names)}{separated}")


# Files --------------------------------------------------------------------------------------------


def _read_files(paths: Sequence[Path], declared: Declaration) -> Table:
    readers: Mapping[FileKind | None, Callable[[Path, Declaration], Table]] = {
        "parquet": _read_parquet, "csv": _read_separated_text, "tsv": _read_separated_text, "json": _read_json,
    }  # fmt: skip
    reader = readers.get(find_file_kind(paths[0]))
    if reader is None:
        suffix = paths[0].suffix
        which = f"ending in {suffix}" if suffix else "without an ending"
        raise DataError(
            f"{declared.text}: files {which} are not read. Use Parquet, CSV, TSV or JSON lines (also .csv.gz, .tsv.gz and"
            " .jsonl.gz), files of CoNLL columns, or .npz."
        )
    tables = [reader(path, declared) for path in paths]
    return tables[0] if len(tables) == 1 else _join_tables(tables, declared)


def _join_tables(tables: Sequence[Table], declared: Declaration) -> Table:
    if len({table.class_names for table in tables}) > 1:
        raise DataError(f"{declared.text}: its files name different classes. Name one file.")
    rows_of_tables = [(table, i) for table in tables for i in range(len(table.labels))]
    return Table(
        labels=[label for table in tables for label in table.labels],
        inputs=lambda rows: [table.inputs([i])[0] for table, i in (rows_of_tables[row] for row in rows)],
        class_names=tables[0].class_names,
    )


def _read_separated_text(path: Path, declared: Declaration) -> Table:
    """Reads CSV or TSV. Both columns are texts: NA, null and nan are words, and 007 is not 7."""
    import pyarrow as pa
    from pyarrow import csv

    content = read_text(path, declared.encoding, declared.text).encode("utf-8", "surrogatepass")
    texts = {column: pa.string() for column in (declared.input, declared.label)}
    try:
        table = csv.read_csv(
            pa.BufferReader(content),
            read_options=csv.ReadOptions(use_threads=False, block_size=max(1024, len(content))),
            parse_options=csv.ParseOptions(
                delimiter="\t" if find_file_kind(path) == "tsv" else ",", newlines_in_values=True
            ),
            convert_options=csv.ConvertOptions(column_types=texts, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{declared.text}: cannot be read ({str(error).splitlines()[0]}).") from None
    _check_columns(declared, table.column_names)
    labels = _read_whole_numbers(table.column(declared.label).to_pylist())
    return Table(labels=labels, inputs=_make_row_reader(table.column(declared.input)))


def _read_whole_numbers(labels: list[str]) -> Sequence[object]:
    """Returns labels as numbers if all are whole numbers, so that 10 comes after 9."""
    if not all(map(WHOLE.fullmatch, labels)):
        return labels
    return [int(label.partition(".")[0]) for label in labels]


def _make_row_reader(column: Any) -> Callable[[Sequence[int]], list[Any]]:
    return lambda rows: column.take(list(rows)).to_pylist() if len(rows) else []


def _read_json(path: Path, declared: Declaration) -> Table:
    """Reads JSON lines, or one JSON list, of objects."""
    text = read_text(path, declared.encoding, declared.text)
    try:
        if text.lstrip().startswith("["):
            rows = list(enumerate(json.loads(text), start=1))
        else:
            rows = [(i, json.loads(line)) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{declared.text}: not JSON lines ({error}). Write one object per line.") from None
    for i, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{declared.text}: object {i} is {str(row)[:40]!r}. Each must be {{...}} with its columns.")
    if rows:
        _check_columns(declared, list(dict.fromkeys(name for _, row in rows for name in row)))
    for i, row in rows:
        for column in (declared.input, declared.label):
            if column not in row:
                raise DataError(
                    f"{declared.text}: object {i} has no {column!r}. Each needs {declared.input} and {declared.label}."
                )
    return Table(
        labels=[row[declared.label] for _, row in rows],
        inputs=lambda chosen: [rows[i][1][declared.input] for i in chosen],
    )


def _read_parquet(path: Path, declared: Declaration) -> Table:
    """Reads Parquet, with the names of classes if the datasets library wrote them."""
    import pyarrow as pa
    from pyarrow import parquet

    refuse_pointer(path)
    try:
        file = parquet.ParquetFile(path)
        _check_columns(declared, file.schema_arrow.names)
        table = file.read(columns=[declared.input, declared.label])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{declared.text}: cannot be read ({type(error).__name__}: {str(error).splitlines()[0]})."
            " Get or write the file again."
        ) from None
    return Table(
        labels=table.column(declared.label).to_pylist(),
        inputs=_make_row_reader(table.column(declared.input)),
        class_names=_read_class_names(file.schema_arrow.metadata, declared.label),
    )


def _read_class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple(map(str, feature.get("feature", feature).get("names") or ()))
    except (KeyError, ValueError, TypeError, AttributeError):
        return ()


# The hub ------------------------------------------------------------------------------------------


def _read_hub(declared: Declaration) -> Table:
    try:
        import datasets
    except ModuleNotFoundError:
        raise DataError(
            f"{declared.text}: data sets of the hub need the package datasets. Run: pip install 'orca-sweep[data]'"
        ) from None
    has_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(
            declared.path, declared.config, revision=declared.revision, split=declared.split or "train"
        )
    except Exception as error:  # the library raises many classes of its readers and the network
        text = str(error).strip().splitlines()
        raise DataError(
            f"{declared.text}: cannot be read ({type(error).__name__}: {text[0] if text else 'without a message'})."
            " Without a network, give the path of a local copy."
        ) from None
    finally:
        if has_bars:
            datasets.enable_progress_bars()
    return convert_hub_table(table, declared)


def convert_hub_table(table: Any, declared: Declaration) -> Table:
    """Returns a table of the datasets library as a ``Table``; its images stay encoded."""
    import datasets

    _check_columns(declared, table.column_names)
    feature = table.features[declared.label]
    names = getattr(getattr(feature, "feature", feature), "names", None) or ()
    if isinstance(table.features[declared.input], datasets.Image):
        table = table.cast_column(declared.input, datasets.Image(decode=False))
    return Table(
        labels=table[declared.label][:],
        inputs=lambda rows: table.select(list(rows))[declared.input][:],
        class_names=tuple(names),
    )
