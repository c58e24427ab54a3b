"""``orca-sweep plan``: what a space would run, what it would cost and can show, and every mistake in it."""

import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orca_sweep.cli.documents import WRONG_INPUT, AsJson, describe_error, print_document, write_error
from orca_sweep.cli.spaces import MaxTrials, Rehash, Smoke, SpaceFiles, SuiteName, read_sources
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.api.suites import SuitePlan
    from orca_sweep.planning.forecast import Forecast
    from orca_sweep.planning.suite_forecast import SuiteForecast
    from orca_sweep.planning.terms import Term
    from orca_sweep.space import Plan

Cost = TypeVar("Cost", "Forecast", "SuiteForecast")
MAX_CELLS_SHOWN = 40
PROBE = ("--probe measures a few epochs", "--probe measures it")
"""How to learn the cost, if all of it or a part is unknown."""


def plan(
    spaces: SpaceFiles,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="folder of the sweep or suite; default results/<name>")] = None,
    name: SuiteName = None,
    smoke: Smoke = False,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need any")] = Path("data"),
    store: Annotated[str | None, typer.Option(help="store of artifacts and earlier rows; default OUT/store")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="run a few epochs here of trials whose cost no earlier row shows")
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-3, help="10^12 operations per second to assume of a GPU where no trial has been timed"),
    ] = None,
    rehash: Rehash = False,
    max_trials: MaxTrials = None,
) -> None:
    """Show what a space, or a suite, would run, and its mistakes.

    Prints cells, trials, cost, and the smallest effects they can show. Runs nothing, except with --probe.
    """
    from orca_sweep.api.plans import Plan

    try:
        plan = read_sources(spaces, name).plan(
            max_trials=max_trials, rehash=rehash, data=data, store=store, out=out, smoke=smoke
        )
    except InputError as error:
        if not as_json:
            raise
        text = write_error(error)
        print(text, file=sys.stderr)
        print_document("plan", {"cells": 0, "trials": [], **describe_error(error, WRONG_INPUT, text)})
        raise typer.Exit(WRONG_INPUT) from None
    if probe:
        plan.probe(lambda text: print(text, file=sys.stderr, flush=True))
    if not isinstance(plan, Plan):
        cost = _assume_throughput(plan.cost, tflops)
        if as_json:
            print_document("plan", _suite_as_json(plan, cost))
        else:
            _print_suite(plan, cost)
        return
    estimate, notes, terms = _assume_throughput(plan.cost, tflops), list(plan.warnings), plan.terms
    if as_json:
        print_document("plan", _plan_as_json(plan.record, estimate, notes, terms))
    else:
        _print_plan(plan.record, estimate, notes, terms)


def _assume_throughput(cost: Cost, tflops: float | None) -> Cost:
    """Returns a forecast for another throughput of a GPU, if one is given."""
    return cost if tflops is None or cost.flops is None else replace(cost, flops=cost.flops.at_throughput(tflops))


def _plan_as_json(planned: "Plan", estimate: "Forecast", notes: list[str], terms: Iterable["Term"]) -> dict[str, Any]:
    # A generator: all configs at once take gigabytes.
    trials = (
        {"trial_id": t.trial_id, "cell_id": t.cell_id, "seed": t.seed, "role": t.role, "config": t.config.model_dump()}
        for t in planned.trials
    )
    return {
        "cells": len(planned.cells),
        "trials": trials,
        "later": planned.n_later,
        "problems": [],
        "merged": planned.n_merged,
        "notes": notes,
        "terms": _list_terms(terms),
        "design": planned.space.design.name,
        "resolution": planned.aliasing.resolution if planned.aliasing else None,
        "aliases": planned.aliasing.aliases if planned.aliasing else [],
        "margins": dict(planned.space.margins),
        "levels": {cell_id: dict(labels) for cell_id, labels in planned.labels.items()},
        "forecast": estimate,
    }


def _list_terms(terms: Iterable["Term"]) -> list[dict[str, Any]]:
    return [{"topic": term.topic, "text": term.text, "facts": dict(term.facts)} for term in terms]


def _suite_as_json(plan: "SuitePlan", forecast: "SuiteForecast") -> dict[str, Any]:
    members = [
        {
            "name": member.name,
            "file": member.record.space.path,
            "folder": member.folder,
            "cells": len(member.record.cells),
            "trials": [trial.trial_id for trial in member.record.trials],
            "later": member.record.n_later,
            "margins": dict(member.record.space.margins),
            "notes": member.warnings,
            "terms": _list_terms(plan.terms_by_member[member.name]),
            "forecast": alone,
        }
        for member, alone in zip(plan.members, plan.cost.members, strict=True)
    ]
    cost = {field.name: getattr(forecast, field.name) for field in fields(forecast) if field.name != "members"}
    about = {"name": plan.name, "folder": plan.folder, "problems": [], "notes": plan.warnings, "terms": plan.terms}
    return {**about, "spaces": members, "forecast": cost}


def _print_suite(plan: "SuitePlan", cost: "SuiteForecast") -> None:
    from orca_sweep.api.describing_suites import describe_suite, list_members
    from orca_sweep.cli.terminal import open_console, print_table, print_text

    console = open_console()
    print_table(console, *list_members(plan))
    for line in describe_suite(plan, cost, ways=PROBE):
        print_text(console, line)


def _print_plan(planned: "Plan", estimate: "Forecast", notes: list[str], terms: Iterable["Term"]) -> None:
    from orca_sweep.api.describing import describe_plan
    from orca_sweep.cli.terminal import open_console, print_table, print_text

    console = open_console()
    space = planned.space
    if space.question:
        print_text(console, space.question)
    shown = list(planned.by_cell_id)[:MAX_CELLS_SHOWN]
    rows = [(cell_id, *planned.labels[cell_id].values()) for cell_id in shown]
    print_table(console, ("cell", *space.factors), rows)
    if len(planned.cells) > MAX_CELLS_SHOWN:
        print_text(console, f"... and {len(planned.cells) - MAX_CELLS_SHOWN} more cells (all with --json)")
    for line in describe_plan(planned, estimate, terms=terms, notes=notes, ways=PROBE):
        print_text(console, line)
