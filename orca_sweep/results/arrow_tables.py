"""Turns rows of trials into Arrow tables, column by column."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.results.columns import Column

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 50_000
"""Rows that are turned into columns at once; as dictionaries they take ten times the memory."""


class LongTable:
    """Collects rows of many trials and turns them into columns part by part."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.rows: list[dict[str, Any]] = []
        self.parts: list[pa.Table] = []

    def add(self, trial_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows of one trial."""
        self.rows.extend({**row, "trial_id": trial_id} for row in rows)
        if len(self.rows) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.parts.append(build_table(self.rows, self.columns))
        self.rows = []

    def make_table(self, order: Sequence[str], earlier: "Sequence[pa.Table]") -> "pa.Table":
        """Returns all rows, those of earlier tables included, in the order of the trials."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._flush()
        joined = _concat_tables([*earlier, *self.parts])
        names = {column.name for column in self.columns}
        # Drop unknown columns that only rows of trials that are gone had filled.
        joined = joined.select([n for n in joined.column_names if n in names or joined[n].null_count < len(joined)])
        ranks = pc.index_in(joined["trial_id"], pa.array(order, pa.string())).to_numpy()
        return joined.take(ranks.argsort(kind="stable"))


def build_table(rows: Sequence[Mapping[str, Any]], columns: tuple[Column, ...]) -> "pa.Table":
    """Returns rows as columns; a column that this version does not know gets the type of its values."""
    import pyarrow as pa

    names = {column.name for column in columns}
    unknown = sorted({name for row in rows for name in row.keys() - names if row[name] is not None})
    known_fields = [_make_field(column) for column in columns]
    known_arrays = [pa.array(_column_values(rows, column), type=_arrow_type(column)) for column in columns]
    arrays = [_infer_array([row.get(name) for row in rows]) for name in unknown]
    fields = [
        pa.field(name, array.type, metadata={"unit": "", "meaning": "unknown to this version"})
        for name, array in zip(unknown, arrays, strict=True)
    ]
    return pa.table([*known_arrays, *arrays], schema=pa.schema([*known_fields, *fields]))


def _infer_array(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    for python_types, arrow_type in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())):
        if kinds <= python_types:
            return pa.array(values, type=arrow_type)
    if kinds == {datetime}:
        return pa.array(values, type=pa.timestamp("ms", tz="UTC"))
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True, default=str) for v in values]
    return pa.array(texts, type=pa.string())


def _concat_tables(parts: "Sequence[pa.Table]") -> "pa.Table":
    """Stacks tables by the names of their columns; a column of incompatible types becomes text."""
    import pyarrow as pa

    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowTypeError:
        kinds: dict[str, set[Any]] = {}
        for field in (field for part in parts for field in part.schema):
            kinds.setdefault(field.name, set()).add(field.type)
        texts = [name for name, types in kinds.items() if len(types) > 1]
        return pa.concat_tables([_with_texts(part, texts) for part in parts], promote_options="permissive")


def _with_texts(table: "pa.Table", names: Iterable[str]) -> "pa.Table":
    import pyarrow as pa

    for name in names:
        if name in table.column_names:
            index = table.column_names.index(name)
            table = table.set_column(index, name, table[name].cast(pa.string()))
    return table


def _arrow_type(column: Column) -> "pa.DataType":
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
    }
    return types[column.type]


def _make_field(column: Column) -> "pa.Field":
    import pyarrow as pa

    return pa.field(column.name, _arrow_type(column), metadata={"unit": column.unit, "meaning": column.meaning})


def _column_values(rows: Sequence[Mapping[str, Any]], column: Column) -> list[Any]:
    """Returns a column's values in its type; a text column may hold ``forever`` beside numbers."""
    values = [row.get(column.name) for row in rows]
    if column.type == "time":
        return [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
    if column.type == "string":
        return [value if value is None or isinstance(value, str) else write_level(value) for value in values]
    return values
