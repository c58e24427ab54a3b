"""Schemas of the files in a sweep folder, except for its plan (`orca_sweep.space.manifest`).

Unknown fields are let through; known fields must have their type. A seal is opened only to check that it is whole.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, TypeAdapter

from orca_sweep.record_files import Id, fields_type, list_of
from orca_sweep.results.columns import EPOCH_COLUMNS, SEALED_COLUMNS, STAGE_COLUMNS, TRIAL_MEASURES, Column


def open_seal(seal: str) -> dict[str, Any]:
    """Returns the sealed test metrics by column.

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
        raise ValueError(f"{text!r} has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_check_moment)]
Seal = Annotated[str, AfterValidator(_check_seal)]
TYPES: dict[str, Any] = {"string": str, "int64": int, "double": float, "bool": bool, "time": Moment}


def _columns_type(name: str, columns: Iterable[Column], /, **required: Any) -> Any:
    """Returns the type of dictionaries with optional columns, each null or of its type, and required fields."""
    optional = {column.name: NotRequired[TYPES[column.type] | None] for column in columns}
    return fields_type(name, **{**optional, **required})


def _record_type() -> TypeAdapter[Any]:
    row = _columns_type("Row", TRIAL_MEASURES, trial_id=Id, status=str)
    epoch = _columns_type("Epoch", EPOCH_COLUMNS, stage=str, epoch=int)
    stage = _columns_type("Stage", STAGE_COLUMNS, stage=str)
    return TypeAdapter(
        fields_type(
            "Record",
            schema=int,
            row=row,
            epochs=list_of(epoch),
            stages=NotRequired[list_of(stage)],
            sealed=NotRequired[Seal],
        )
    )


RECORD_FILE = _record_type()
"""``row.json``: a trial's row, epochs, stages and seal."""
REVEALS_FILE: TypeAdapter[Any] = TypeAdapter(
    fields_type("Reveals", reveals=list_of(fields_type("Look", time=Moment, trials=list[Id])))
)
"""``reveals.json``: the log of reveals."""
STAMPS_FILE: TypeAdapter[Any] = TypeAdapter(
    fields_type("Stamps", by=list[Any], tables=dict[str, str], trials=dict[str, str], plan=NotRequired[str | None])
)
"""``.collected.json``: what a collection read and wrote."""


def _about_type() -> TypeAdapter[Any]:
    optional = {
        "question": str, "factors": list[str], "tuned": list[str], "worst": list[str], "metric": str,
        "margins": dict[str, float], "reveals": list[tuple[str, int]], "search": dict[str, Any], "rules": dict[str, Any],
        "is_smoke": bool,
    }  # fmt: skip
    sweep = fields_type("CollectedSweep", space=str, **{name: NotRequired[kind] for name, kind in optional.items()})
    return TypeAdapter(fields_type("About", sha256=str, schema_version=int, sweeps=list_of(sweep)))


ABOUT_TABLE = _about_type()
"""The metadata of a Parquet table."""
