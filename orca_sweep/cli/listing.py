"""``orca-sweep list``: the names of everything that spaces, tables and commands use."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import find_width, write_names
from orca_sweep.errors import InputError, Problem
from orca_sweep.registry import hint

if TYPE_CHECKING:
    from orca_sweep.results import Column


@dataclass(frozen=True, kw_only=True)
class Name:
    """One name of a kind."""

    name: str
    meaning: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of its JSON; each name of a kind has the same."""
    line: str = ""
    """What ``list`` prints after the name, if it is more than the meaning."""


KINDS = (
    "tasks", "bodies", "proxies", "objectives", "metrics", "losses", "factors", "columns", "spaces", "analyses",
)  # fmt: skip


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"what to list: {', '.join(KINDS)}", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """List tasks, bodies, factors, columns and so on.

    Prints one name per line, followed by its meaning.
    """
    if kind not in KINDS:
        raise InputError(Problem(field="KIND", value=kind, rule=f"There is no list of this kind. {hint(kind, KINDS)}"))
    names = describe_names(kind)
    if as_json:
        items = ({"name": item.name, "meaning": item.meaning, **item.details} for item in names)
        print_document("list", {"kind": kind, "names": items})
        return
    for line in write_names(((item.name, item.line or item.meaning) for item in names), 33, find_width(sys.stdout)):
        print(line)


def describe_names(kind: str) -> Iterator[Name]:
    """Yields the names of a kind (tasks, factors, columns, ...)."""
    listings = {
        "factors": _list_factors,
        "columns": _list_columns,
        "spaces": _list_spaces,
        "analyses": _list_analyses,
    }
    return listings[kind]() if kind in listings else _list_records(kind)


def _list_factors() -> Iterator[Name]:
    from orca_sweep.config import knobs

    for knob in knobs().values():
        if knob.path != "seed":
            used = f". Used {knob.acts}" if knob.acts else ""
            yield Name(
                name=knob.path,
                meaning=knob.meaning,
                details={"type": knob.type_name, "default": knob.default, "acts": knob.acts or None},
                line=f"{knob.type_name}; default {knob.default}: {knob.meaning}{used}",
            )


def _list_columns() -> Iterator[Name]:
    """Yields the columns of all tables, each once with its meaning in every table that has it."""
    from orca_sweep.results import EPOCH_COLUMNS, STAGE_COLUMNS, trial_columns

    tables = {"trials": trial_columns(), "epochs": EPOCH_COLUMNS, "stages": STAGE_COLUMNS}
    by_name: dict[str, dict[str, Column]] = {}
    for table, columns in tables.items():
        for column in columns:
            by_name.setdefault(column.name, {})[table] = column
    for name, in_tables in by_name.items():
        texts = [f"{table} ({_write_type(column)}): {column.meaning}" for table, column in in_tables.items()]
        facts = [
            {"table": table, "type": column.type, "unit": column.unit or None, "meaning": column.meaning}
            for table, column in in_tables.items()
        ]
        first = next(iter(in_tables.values()))
        yield Name(name=name, meaning=first.meaning, details={"tables": facts}, line=" | ".join(texts))


def _write_type(column: "Column") -> str:
    return f"{column.type}, {column.unit}" if column.unit else column.type


def _list_spaces() -> Iterator[Name]:
    from orca_sweep.space.bundled import list_bundled_spaces, list_bundled_suites, read_question

    for name, path in list_bundled_spaces().items():
        yield Name(name=name, meaning=read_question(path), details={"file": path, "spaces": None})
    for name, path in list_bundled_suites().items():
        spaces = [file.stem for file in sorted(path.glob("*.yaml"))]
        yield Name(name=name, meaning=f"suite of {', '.join(spaces)}", details={"file": path, "spaces": spaces})


def _list_analyses() -> Iterator[Name]:
    from orca_sweep.analysis.catalogue import ANALYSES

    for analysis in map(ANALYSES.get, ANALYSES.names()):
        options = [f"--{option.name}" for option in analysis.all_options]
        yield Name(
            name=analysis.name,
            meaning=analysis.answers,
            details={"options": options, "factor": analysis.factor or None},
        )


def _list_records(kind: str) -> Iterator[Name]:
    from orca_sweep.bodies import BODIES
    from orca_sweep.objectives import OBJECTIVES
    from orca_sweep.proxies import PROXIES
    from orca_sweep.tasks import LOSSES, METRICS, TASKS

    registries: dict[str, Any] = {
        "tasks": TASKS, "bodies": BODIES, "proxies": PROXIES, "objectives": OBJECTIVES, "metrics": METRICS, "losses": LOSSES,
    }  # fmt: skip
    registry = registries[kind]
    for name in registry.names():
        yield _describe_record(registry.get(name), is_metric=kind == "metrics")
    if kind == "tasks":
        meaning = "any OpenML table, by its id (orca-sweep data fetch openml:31)"
        yield Name(name="openml:<id>", meaning=meaning, details={"extra": "openml", "dims": 1}, line=f"1D; {meaning}")


def _describe_record(record: Any, is_metric: bool) -> Name:
    from orca_sweep.stats.modes import describe_mode

    extra, dims = getattr(record, "extra", None), getattr(record, "dims", None)
    details = {"extra": extra, **({"dims": dims} if hasattr(record, "dims") else {})}
    mode = f"{record.mode}, {describe_mode(record.mode)}; " if is_metric else ""
    unit = f" ({record.unit})" if is_metric and record.unit else ""
    bounds = f"; {record.bounds}" if is_metric and str(record.bounds) else ""
    if is_metric:
        details |= {"mode": record.mode, "unit": record.unit or None, "low": record.low, "high": record.high}
    start = f"{dims}D; " if dims else ""
    end = f" [needs the extra '{extra}']" if extra else ""
    return Name(
        name=record.name,
        meaning=record.meaning,
        details=details,
        line=f"{start}{mode}{record.meaning}{bounds}{unit}{end}",
    )
