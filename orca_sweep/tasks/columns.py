"""The columns of a table: numbers and categories are encoded, other columns are refused by name."""

import datetime
import decimal
import math
import re
from typing import Any

import numpy as np

from orca_sweep.errors import DataError

IDENTIFIER_SHARE = 0.5
"""If more than this share of a categorical column's values are distinct, it only names rows and is refused."""
LARGEST_TABLE = 2**31
"""Bytes of an encoded table. The levels of one column lengthen the one-hot vectors of all columns."""
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")


def encode_table(table: Any, train: np.ndarray, where: object) -> np.ndarray:
    """Returns a table of numbers and categories as (N, levels, columns), float32; see ``load_openml``.

    Raises:
        DataError: naming every column that is neither; or if the result would be larger than 2 GiB.
    """
    columns, problems = [], []
    for name in table.columns:
        try:
            columns.append(_encode_column(table[name], train, f"{where}: {name}"))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(*problems)
    depth = max(column.shape[1] for column in columns)
    size = 4 * len(table) * depth * len(columns)
    if size > LARGEST_TABLE:
        widest = table.columns[int(np.argmax([column.shape[1] for column in columns]))]
        raise DataError(
            f"{where}: {widest} has {depth} levels, which makes {size / 2**30:.1f} GiB of the {len(columns)} columns. At"
            f" most {LARGEST_TABLE / 2**30:g} GiB are read. Leave that column out, or merge its rare levels."
        )
    whole = np.zeros((len(table), depth, len(columns)), np.float32)
    for i, column in enumerate(columns):
        whole[:, : column.shape[1], i] = column
    return whole


def _encode_column(values: Any, train: np.ndarray, where: str) -> np.ndarray:
    numbers = read_as_numbers(values, where)
    return _one_hot(values, train, where) if numbers is None else _standardise(numbers, train, where)


def read_as_numbers(values: Any, where: str) -> np.ndarray | None:
    """Returns a column as numbers (N,), NaN where a value is missing; None if it holds categories.

    Times become seconds: since 1970, since midnight, or of a duration. Decimals count as numbers, and so does text if
    every value is a number or an ISO time. Booleans and pandas categorical columns are categories.

    Raises:
        DataError: if it holds lists, bytes or other objects.
    """
    import pandas as pd

    types = pd.api.types
    if types.is_bool_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype):
        return None
    if types.is_complex_dtype(values):
        raise DataError(f"{where}: holds complex numbers. Save their real and imaginary parts as two columns.")
    if types.is_numeric_dtype(values) and "decimal" not in str(values.dtype):
        return values.to_numpy(float, na_value=np.nan)
    if types.is_datetime64_any_dtype(values):
        return _to_seconds(values)
    if types.is_timedelta64_dtype(values):
        return values.dt.total_seconds().to_numpy(float)
    return _objects_as_numbers(values, where)


def _to_seconds(times: Any) -> np.ndarray:
    import pandas as pd

    start = pd.Timestamp(0, tz=times.dt.tz) if times.dt.tz is None else pd.Timestamp(0, tz="UTC")
    return (times - start).dt.total_seconds().to_numpy(float)


def _objects_as_numbers(values: Any, where: str) -> np.ndarray | None:
    known = values[values.notna()]
    kinds = {type(value) for value in known}
    if not kinds:
        return np.full(len(values), np.nan)
    if kinds <= {bool, np.bool_}:
        return None
    mask = values.notna().to_numpy()
    if kinds == {str}:
        return _text_as_numbers(values, mask)
    numbers = np.full(len(values), np.nan)
    numbers[mask] = _convert_objects(known, kinds, where)
    return numbers


def _convert_objects(known: Any, kinds: set[type], where: str) -> Any:
    """Returns known values of these types as numbers.

    Raises:
        DataError: naming the types, if they are not numbers or times.
    """
    import pandas as pd

    if kinds <= {int, float, bool, decimal.Decimal} or all(issubclass(kind, np.number) for kind in kinds):
        return [float(value) for value in known]
    if all(issubclass(kind, datetime.date) for kind in kinds):
        return _to_seconds(pd.to_datetime(known, utc=True))
    if kinds == {datetime.time}:
        return [t.hour * 3600 + t.minute * 60 + t.second + t.microsecond / 1e6 for t in known]
    if kinds == {datetime.timedelta}:
        return [span.total_seconds() for span in known]
    names = ", ".join(sorted("lists" if kind in (list, np.ndarray) else kind.__name__ for kind in kinds))
    raise DataError(f"{where}: holds {names}. Numbers, times and text are read. Leave the column out, or save it as"
                    " numbers.")  # fmt: skip


def _text_as_numbers(values: Any, mask: np.ndarray) -> np.ndarray | None:
    """Returns text as numbers if every value is a number, a time or empty; else None."""
    import pandas as pd

    texts = [str(value).strip() for value in values[mask]]
    present = [text for text in texts if text]
    if not present:
        return None
    numbers = np.full(len(values), np.nan)
    try:
        numbers[mask] = [_parse_number(text) if text else math.nan for text in texts]
    except ValueError:
        if not all(ISO_TIME.fullmatch(text) for text in present):
            return None
        try:
            times = pd.to_datetime(pd.Series([text or None for text in texts]), format="ISO8601", utc=True)
        except ValueError:  # such as the 31st of February
            return None
        numbers[mask] = _to_seconds(times)
    return numbers


def _parse_number(text: str) -> float:
    if "_" in text:  # Python reads 1_000 as a number, but in a file it is a name
        raise ValueError(text)
    return float(text)


def _standardise(values: np.ndarray, train: np.ndarray, where: str) -> np.ndarray:
    wrong = np.isinf(values)
    if wrong.any():
        raise DataError(
            f"{where}: holds infinite values, the first in row {int(np.argmax(wrong))}. Clean the file first."
        )
    known = values[train][~np.isnan(values[train])]
    mean, spread = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
    return np.nan_to_num((values - mean) / (spread or 1.0))[:, None]


def _one_hot(values: Any, train: np.ndarray, where: str) -> np.ndarray:
    # A level that does not occur in training becomes all zeros.
    text = values.astype("string")
    known = text[text.notna()]
    n_levels = known.nunique()
    if n_levels > 2 and n_levels > IDENTIFIER_SHARE * len(known):
        raise DataError(
            f"{where}: {n_levels} different values in {len(known)} rows, such as {known.iloc[0]!r}. Categories repeat: at"
            f" most {IDENTIFIER_SHARE:.0%} of their values may be different.{_describe_non_numbers(known)} Leave the column"
            " out if it names rows, or save it as numbers."
        )
    filled = text.fillna("\0missing").to_numpy(str)
    levels = np.unique(filled[train])
    if 4 * len(filled) * len(levels) > LARGEST_TABLE:
        raise DataError(f"{where}: {len(levels)} levels in {len(filled)} rows are more than {LARGEST_TABLE / 2**30:g} GiB."
                        " Leave the column out, or merge its rare levels.")  # fmt: skip
    return (filled[:, None] == levels[None, :]).astype(np.float32)


def _describe_non_numbers(known: Any) -> str:
    """Names the first value that keeps a column of text from being numbers, if most values are numbers."""
    import pandas as pd

    wrong = pd.to_numeric(known, errors="coerce").isna().to_numpy(bool)
    if not wrong.any() or wrong.mean() > 0.5:
        return ""
    row = int(np.argmax(wrong))
    return f" {int(wrong.sum())} of them are not numbers, the first {known.iloc[row]!r} in row {known.index[row]}."


def find_text_numbers(table: Any, where: object) -> list[str]:
    """Returns the names of columns that are read as numbers although the file stores them as something else."""
    import pandas as pd

    return [
        str(name)
        for name in table.columns
        if not pd.api.types.is_numeric_dtype(table[name])
        and read_as_numbers(table[name], f"{where}: {name}") is not None
    ]
