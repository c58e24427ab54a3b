"""What the files of a sweep folder must hold to be used.

Fields of later versions are let through, fields of this version must have their type. A seal is opened to see that it
is whole; what is in it is not kept.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from orca_sweep.config import CONTENTS, knobs
from orca_sweep.results.columns import EPOCH_COLUMNS, SEALED_COLUMNS, STAGE_COLUMNS, TRIAL_MEASURES, Column

CONFIG = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
"""No text is taken for a number; JSON has no infinity."""


def open_seal(seal: str) -> dict[str, Any]:
    """Returns the test metrics in a seal, by column.

    Raises:
        ValueError: if the seal is damaged.
    """
    try:
        values = json.loads(zlib.decompress(base64.b64decode(seal, validate=True)))
        sealed = {name: values[name] for name in SEALED_COLUMNS if name in values}
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
        raise ValueError("the sealed test metrics are damaged") from None
    for name, value in sealed.items():
        if value is not None and not isinstance(value, str if name.startswith("test_more_") else int | float):
            raise ValueError(f"the sealed test metrics are damaged: {name} is {value!r}")
    return sealed


def _check_seal(seal: str) -> str:
    open_seal(seal)
    return seal


def _check_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text!r} is a moment without its time zone")
    return text


Id = Annotated[str, Field(min_length=1, pattern=r"^[^/\x00]+$")]
Moment = Annotated[str, AfterValidator(_check_moment)]
Seal = Annotated[str, AfterValidator(_check_seal)]
TYPES: dict[str, Any] = {"string": str, "int64": int, "double": float, "bool": bool, "time": Moment}


def _fields_type(name: str, /, **fields: Any) -> Any:
    """A type of dictionaries with these fields and any others; ``X | None`` where a field may be null."""
    return with_config(CONFIG)(TypedDict(name, fields))  # type: ignore[operator]


def _list_of(kind: Any) -> Any:
    return list.__class_getitem__(kind)


def _dict_of(kind: Any) -> Any:
    return dict.__class_getitem__((str, kind))


def _columns_type(name: str, columns: Iterable[Column], /, **required: Any) -> Any:
    """A type of dictionaries that may have these columns, each null or of its type, and must have those required."""
    optional = {column.name: NotRequired[TYPES[column.type] | None] for column in columns}
    return _fields_type(name, **{**optional, **required})


def _record_type() -> TypeAdapter[Any]:
    row = _columns_type("Row", TRIAL_MEASURES, trial_id=Id, status=str)
    epoch = _columns_type("Epoch", EPOCH_COLUMNS, stage=str, epoch=int)
    stage = _columns_type("Stage", STAGE_COLUMNS, stage=str)
    return TypeAdapter(
        _fields_type(
            "Record",
            schema=int,
            row=row,
            epochs=_list_of(epoch),
            stages=NotRequired[_list_of(stage)],
            sealed=NotRequired[Seal],
        )
    )


def _planned_type() -> Any:
    # Columns of text take any level: ``forever`` stands in one with numbers.
    typed = {knob.path: knob.column_type for knob in knobs().values()}
    config = {path: NotRequired[Any if kind == "string" else TYPES[kind] | None] for path, kind in typed.items()}
    return _fields_type(
        "PlannedTrial",
        trial_id=Id,
        cell_id=Id,
        seed=NotRequired[int],
        role=NotRequired[str],
        config=_fields_type("Config", **{**config, **dict.fromkeys(CONTENTS, NotRequired[str | None]), "task": str}),
    )


def _manifest_type() -> TypeAdapter[Any]:
    cell = _fields_type(
        "Cell",
        cell_id=Id,
        base=_fields_type("Base", task=str),
        settings=NotRequired[dict[str, Any]],
        levels=NotRequired[dict[str, Any]],
        candidates=NotRequired[list[dict[str, Any]]],
    )
    optional = {
        "question": str, "metric": str, "seeds": list[int], "aa": list[int], "imports": list[str], "data": str,
        "store": str, "n_later": int, "tune": dict[str, Any], "margins": dict[str, float], "tuned": _list_of(cell),
        "earlier": _list_of(PLANNED),
        "resources": _fields_type("Used", cpu=float, gpu=float),
        "outcomes": _dict_of(_fields_type("Rule", then=str)),
    }  # fmt: skip
    return TypeAdapter(
        _fields_type(
            "Manifest",
            name=str,
            factors=list[str],
            trials=_list_of(PLANNED),
            **{name: NotRequired[kind] for name, kind in optional.items()},
        )
    )


PLANNED = _planned_type()
RECORD_FILE = _record_type()
"""``row.json``: a trial's row, epochs, stages and seal."""
MANIFEST_FILE = _manifest_type()
"""``sweep.json``: the plan last launched."""
PLANNED_LINE: TypeAdapter[Any] = TypeAdapter(PLANNED)
"""A line of ``planned.jsonl``."""
BEFORE_FILE: TypeAdapter[Any] = TypeAdapter(_fields_type("Before", trials=_list_of(PLANNED)))
"""``planned-before.json``: what earlier launches have planned on the way."""
REVEALS_FILE: TypeAdapter[Any] = TypeAdapter(
    _fields_type("Reveals", reveals=_list_of(_fields_type("Look", time=Moment, trials=list[Id])))
)
"""``reveals.json``: the log of looks at test metrics."""
STAMPS_FILE: TypeAdapter[Any] = TypeAdapter(
    _fields_type("Stamps", by=list[Any], tables=dict[str, str], trials=dict[str, str])
)
"""What a collection has read, and what it has written."""


def _about_type() -> TypeAdapter[Any]:
    sweep = {
        "question": str, "factors": list[str], "tuned": list[str], "worst": list[str], "metric": str,
        "margins": dict[str, float], "reveals": list[tuple[str, int]],
    }  # fmt: skip
    one = _fields_type("Collected", space=str, **{name: NotRequired[kind] for name, kind in sweep.items()})
    return TypeAdapter(
        _fields_type("About", sha256=str, schema_version=NotRequired[int], sweeps=NotRequired[_list_of(one)])
    )


ABOUT_TABLE = _about_type()
"""The metadata of a Parquet table."""
