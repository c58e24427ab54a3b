"""From rows of trials to Arrow tables, column by column."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orca_sweep.config.labels import write_level
from orca_sweep.results.columns import Column

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 50_000
"""So many rows are turned into columns at once: as dictionaries they take ten times the memory."""


class LongTable:
    """Rows of many trials on their way to a table, turned into columns part by part."""

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

    def table(self, order: Sequence[str], before: "Sequence[pa.Table]") -> "pa.Table":
        """Returns all rows, with those of before, in the order of the trials."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._flush()
        joined = _joined([*before, *self.parts])
        names = {column.name for column in self.columns}
        # What only rows had that are gone is no column any more.
        joined = joined.select([n for n in joined.column_names if n in names or joined[n].null_count < len(joined)])
        place = pc.index_in(joined["trial_id"], pa.array(order, pa.string())).to_numpy()
        return joined.take(place.argsort(kind="stable"))


def build_table(rows: Sequence[Mapping[str, Any]], columns: tuple[Column, ...]) -> "pa.Table":
    """Returns rows as columns; one that this version does not know gets the type of its values, if it has any."""
    import pyarrow as pa

    names = {column.name for column in columns}
    others = sorted({name for row in rows for name in row.keys() - names if row[name] is not None})
    known = [_field(column) for column in columns]
    arrays = [pa.array(_values(rows, column), type=_type(column)) for column in columns]
    more = [_inferred([row.get(name) for row in rows]) for name in others]
    fields = [
        pa.field(name, array.type, metadata={"unit": "", "meaning": "unknown to this version"})
        for name, array in zip(others, more, strict=True)
    ]
    return pa.table([*arrays, *more], schema=pa.schema([*known, *fields]))


def _inferred(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    for of, kind in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())):
        if kinds <= of:
            return pa.array(values, type=kind)
    if kinds == {datetime}:
        return pa.array(values, type=pa.timestamp("ms", tz="UTC"))
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True, default=str) for v in values]
    return pa.array(texts, type=pa.string())


def _joined(parts: "Sequence[pa.Table]") -> "pa.Table":
    """Tables one below the other, by the names of their columns; types that do not go together become text."""
    import pyarrow as pa

    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowTypeError:
        kinds: dict[str, set[Any]] = {}
        for field in (field for part in parts for field in part.schema):
            kinds.setdefault(field.name, set()).add(field.type)
        texts = [name for name, of in kinds.items() if len(of) > 1]
        return pa.concat_tables([_with_texts(part, texts) for part in parts], promote_options="permissive")


def _with_texts(table: "pa.Table", names: Iterable[str]) -> "pa.Table":
    import pyarrow as pa

    for name in names:
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.string()))
    return table


def _type(column: Column) -> "pa.DataType":
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
    }
    return types[column.type]


def _field(column: Column) -> "pa.Field":
    import pyarrow as pa

    return pa.field(column.name, _type(column), metadata={"unit": column.unit, "meaning": column.meaning})


def _values(rows: Sequence[Mapping[str, Any]], column: Column) -> list[Any]:
    """A column's values in its type (``forever`` and a number share one text column)."""
    values = [row.get(column.name) for row in rows]
    if column.type == "time":
        return [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
    if column.type == "string":
        return [value if value is None or isinstance(value, str) else write_level(value) for value in values]
    return values
