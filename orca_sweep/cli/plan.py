"""``orca-sweep plan``: what a space would run, what it would cost and can show, and every mistake in it."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orca_sweep import space as spaces
from orca_sweep.api.planning import write_cost, write_size
from orca_sweep.api.spaces import Space
from orca_sweep.cli.spaces import MaxTrials, Rehash, SpaceFile
from orca_sweep.cli.terminal import open_console
from orca_sweep.config.naming import label_declarations
from orca_sweep.errors import InputError
from orca_sweep.space import MAX_TRIALS
from orca_sweep.space.designs import RESOLUTIONS
from orca_sweep.space.margins import ALL

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Contrasts, Forecast

MAX_CELLS_SHOWN = 40
PROBE = ("--probe measures a few epochs", "--probe measures it")
"""How to learn the cost, if all of it or a part is unknown."""


def plan(
    space: SpaceFile,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="sweep folder; default results/<name>")] = None,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need any")] = Path("data"),
    store: Annotated[str | None, typer.Option(help="store of artifacts and earlier rows; default OUT/store")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="run a few epochs here of trials whose cost no earlier row shows")
    ] = False,
    rehash: Rehash = False,
    max_trials: MaxTrials = MAX_TRIALS,
) -> None:
    """Show what a space would run, and its mistakes.

    Prints cells, trials, cost, and the smallest effects they can show. Runs nothing, except with --probe.
    """
    try:
        plan = Space.from_yaml(space).plan(max_trials=max_trials, rehash=rehash, data=data, store=store, out=out)
    except InputError as error:
        if as_json:
            _print_json({"cells": 0, "trials": [], "problems": [problem.as_json() for problem in error.problems]})
            raise typer.Exit(2) from None
        raise
    if probe:
        plan.probe(lambda text: print(text, file=sys.stderr, flush=True))
    estimate, notes = plan.cost, list(plan.warnings)
    if as_json:
        _print_json(_plan_as_json(plan.record, estimate, notes))
    else:
        _print_plan(plan.record, estimate, notes)


def _plan_as_json(planned: spaces.Plan, estimate: "Forecast", notes: list[str]) -> dict[str, Any]:
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
        "design": planned.space.design.name,
        "resolution": planned.aliasing.resolution if planned.aliasing else None,
        "aliases": planned.aliasing.aliases if planned.aliasing else [],
        "margins": dict(planned.space.margins),
        "levels": {cell_id: dict(labels) for cell_id, labels in planned.labels.items()},
        "forecast": _replace_infinity(asdict(estimate)),
    }


def _replace_infinity(value: Any) -> Any:
    """Returns a value with null for infinity, which JSON cannot write."""
    if isinstance(value, dict):
        return {key: _replace_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinity(inner) for inner in value]
    return None if isinstance(value, float) and abs(value) == float("inf") else value


def _print_json(values: Mapping[str, Any]) -> None:
    """Prints JSON with one line per list item: indenting thousands of configs takes longer than planning them."""
    before = "{\n"
    for key, value in values.items():
        sys.stdout.write(f"{before}  {json.dumps(key)}: ")
        if isinstance(value, list | tuple | Iterator):
            n_items = 0
            for item in value:
                sys.stdout.write(f"{',' if n_items else '['}\n    {json.dumps(item)}")
                n_items += 1
            sys.stdout.write("\n  ]" if n_items else "[]")
        else:
            sys.stdout.write(json.dumps(value))
        before = ",\n"
    print("\n}")


def _print_plan(planned: spaces.Plan, estimate: "Forecast", notes: list[str]) -> None:
    console = open_console()
    space = planned.space
    if space.question:
        console.print(space.question)
    table = Table(box=None, header_style="bold")
    for name in ("cell", *space.factors):
        table.add_column(name, overflow="fold")  # two levels that are cut off could look equal
    for cell_id in list(planned.by_cell_id)[:MAX_CELLS_SHOWN]:
        table.add_row(cell_id, *planned.labels[cell_id].values())
    console.print(table)
    if len(planned.cells) > MAX_CELLS_SHOWN:
        console.print(f"... and {len(planned.cells) - MAX_CELLS_SHOWN} more cells (all with --json)")
    for line in (
        *_write_design(planned),
        *_write_sizes(planned),
        *_write_forecast(estimate),
        *map("note: {}".format, notes),
    ):
        console.print(line, soft_wrap=True)


def _write_sizes(planned: spaces.Plan) -> Iterator[str]:
    space = planned.space
    yield write_size(planned)
    if space.aa:
        yield f"A/A: the first cell again with the seeds {', '.join(map(str, space.aa))}, as a separate cell"
    if space.tune:
        search = space.search
        counts = sorted(
            {len(cell.candidates) for cell in planned.tuned} if search.n_candidates is None else {search.n_candidates}
        )
        tuned = ", ".join(f"{path} {_write_values(space, path)}" for path in space.tune)
        seeds = ", ".join(map(str, search.seeds))
        yield (
            f"tuned within each cell: {tuned}; {search.method}, {' to '.join(map(str, counts))} candidates with seed {seeds};"
            f" the best on validation data is replicated: {len(planned.trials) + planned.n_later} trials in all"
        )
    budget = {name: value for name, value in space.budget.model_dump().items() if value is not None}
    if budget:
        yield f"budget: {', '.join(f'{name} {value:g}' for name, value in budget.items())}"
    if space.margins:
        yield (
            f"margin fixed beforehand: {_write_margins(planned)}, in the metric's unit; differences within it do not count"
            " as meaningful"
        )


def _write_margins(planned: spaces.Plan) -> str:
    """Returns '0.01', or '0.01 (digits), 0.02 (ecg), none for satellite'."""
    margins = planned.space.margins
    if ALL in margins:
        return f"{margins[ALL]:g}"
    fixed = [f"{margins[task]:g} ({planned.names[task]})" for task in planned.by_task if task in margins]
    unfixed = [f"none for {planned.names[task]}" for task in planned.by_task if task not in margins]
    return ", ".join([*fixed, *unfixed])


def _write_values(space: spaces.Space, path: str) -> str:
    values = space.tune[path]
    return (
        f"[{', '.join(space.write_level(path, value) for value in values)}]"
        if isinstance(values, tuple)
        else str(values)
    )


def _write_design(planned: spaces.Plan) -> Iterator[str]:
    """Yields the design in words and, for a fraction, all effects that it mixes."""
    design, aliasing = planned.space.design, planned.aliasing
    if aliasing is None:
        if design.name != "cross":
            yield f"design {design.name}: {design.meaning}"
    elif aliasing.resolution is None:
        yield f"design fraction: all {aliasing.n_whole} combinations: a fraction of so few factors has a lower resolution"
    else:
        meaning = RESOLUTIONS[min(aliasing.resolution, max(RESOLUTIONS))]
        shown = f"{aliasing.n_run} of {aliasing.n_whole} combinations, resolution {aliasing.resolution}"
        yield f"design fraction: {shown}: {meaning}"
        for first, *aliases in aliasing.aliases:
            yield f"  {first} cannot be told from {' or '.join(aliases)}"


def _write_forecast(estimate: "Forecast") -> Iterator[str]:
    if estimate.n_done:
        yield f"{estimate.n_done} trials are done, {estimate.n_left} are left"
    if estimate.stages:
        stages = [
            f"{stage.name} {stage.n_computed}" + (f" (+ {stage.n_reused} found)" if stage.n_reused else "")
            for stage in estimate.stages
        ]
        yield f"stages to compute, once for all trials that share them: {', '.join(stages)}"
    if estimate.n_shared_epochs:
        yield (
            f"{estimate.n_shared_epochs} of {estimate.n_epochs} fine-tuning epochs are shared: trials with the same start"
            " compute them once"
        )
    if estimate.n_left:
        yield write_cost(estimate, *PROBE)
        if estimate.checkpoint_mib is not None:
            yield f"checkpoints: at most {estimate.checkpoint_mib:.3g} MiB for each running trial, deleted when it ends"
    names = label_declarations(contrasts.task for contrasts in estimate.contrasts)
    for contrasts in estimate.contrasts:
        yield f"{names[contrasts.task]}{_write_contrasts(contrasts)}"


def _write_contrasts(contrasts: "Contrasts") -> str:
    smallest = f"p cannot fall below {contrasts.smallest_p:.3g}"
    if contrasts.n_comparisons > 1:
        smallest += f" ({contrasts.corrected_p:.3g} after Holm's correction for {contrasts.n_comparisons} comparisons)"
    if contrasts.n_seeds < 2:
        return ": one seed cannot test any difference"
    effect = f"{contrasts.smallest_effect:.2f} standard deviations of the paired difference"
    if contrasts.spread is not None:
        # Differences of unpaired draws have twice the variance; pairing can only help.
        effect += f", at most about {contrasts.smallest_effect * contrasts.spread * 2**0.5:.3g} given the spread of earlier rows"
    return (
        f", each cell against the first with {contrasts.n_seeds} seeds: {smallest}; a t test detects"
        f" effects from {effect} (80% power)"
    )
