"""``orca-sweep list``: the names of everything that spaces, tables and commands use."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from orca_sweep.stats.modes import describe_mode

Lines = Iterator[tuple[str, str]]
"""The name and the meaning on each line."""


class Kind(StrEnum):
    """What ``list`` can list."""

    tasks = "tasks"
    bodies = "bodies"
    proxies = "proxies"
    objectives = "objectives"
    metrics = "metrics"
    losses = "losses"
    factors = "factors"
    columns = "columns"
    spaces = "spaces"
    analyses = "analyses"


def list_names(kind: Annotated[Kind, typer.Argument(help="what to list", show_default=False)]) -> None:
    """List tasks, bodies, factors, columns and so on.

    Prints one name per line, followed by its meaning.
    """
    for name, meaning in describe_names(kind.value):
        print(f"{name:<32} {meaning}")


def describe_names(kind: str) -> Lines:
    """Yields each name of a kind (tasks, factors, columns, ...) with its meaning."""
    listings = {
        "factors": _list_factors,
        "columns": _list_columns,
        "spaces": _list_spaces,
        "analyses": _list_analyses,
    }
    return listings[kind]() if kind in listings else _list_records(kind)


def _list_factors() -> Lines:
    from orca_sweep.config import knobs

    for knob in knobs().values():
        if knob.path != "seed":
            used = f". Used {knob.acts}" if knob.acts else ""
            yield knob.path, f"{knob.type_name}; default {knob.default}: {knob.meaning}{used}"


def _list_columns() -> Lines:
    """Yields the columns of all tables, each once with its meaning in every table that has it."""
    from orca_sweep.results import EPOCH_COLUMNS, STAGE_COLUMNS, trial_columns

    tables = {"trials": trial_columns(), "epochs": EPOCH_COLUMNS, "stages": STAGE_COLUMNS}
    meanings: dict[str, list[str]] = {}
    for table, columns in tables.items():
        for column in columns:
            unit = f", {column.unit}" if column.unit else ""
            meanings.setdefault(column.name, []).append(f"{table} ({column.type}{unit}): {column.meaning}")
    for name, texts in meanings.items():
        yield name, " | ".join(texts)


def _list_spaces() -> Lines:
    from orca_sweep.space.bundled import list_bundled_spaces, read_question

    for name, path in list_bundled_spaces().items():
        yield name, read_question(path)


def _list_analyses() -> Lines:
    from orca_sweep.analysis.catalogue import ANALYSES

    for name in ANALYSES.names():
        yield name, ANALYSES.get(name).answers


def _list_records(kind: str) -> Lines:
    from orca_sweep.bodies import BODIES
    from orca_sweep.objectives import OBJECTIVES
    from orca_sweep.proxies import PROXIES
    from orca_sweep.tasks import LOSSES, METRICS, TASKS

    registries: dict[str, Any] = {
        "tasks": TASKS, "bodies": BODIES, "proxies": PROXIES, "objectives": OBJECTIVES, "metrics": METRICS, "losses": LOSSES,
    }  # fmt: skip
    registry = registries[kind]
    for name in registry.names():
        yield name, _describe_record(registry.get(name), is_metric=kind == "metrics")
    if kind == "tasks":
        yield "openml:<id>", "1D; any OpenML table, by its id (orca-sweep data fetch openml:31)"


def _describe_record(record: Any, is_metric: bool) -> str:
    extra = f" [needs the extra '{record.extra}']" if getattr(record, "extra", None) else ""
    dims = f"{record.dims}D; " if getattr(record, "dims", None) else ""
    mode = f"{record.mode}, {describe_mode(record.mode)}; " if is_metric else ""
    unit = f" ({record.unit})" if is_metric and record.unit else ""
    bounds = f"; {record.bounds}" if is_metric and str(record.bounds) else ""
    return f"{dims}{mode}{record.meaning}{bounds}{unit}{extra}"
