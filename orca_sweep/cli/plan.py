"""``orca-sweep plan``: what a space would run, what it would cost and can show, and every mistake in it."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.cli.documents import WRONG_INPUT, AsJson, describe_error, print_document
from orca_sweep.cli.spaces import MaxTrials, Rehash, SpaceFile
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Contrasts, Forecast
    from orca_sweep.planning.terms import Term
    from orca_sweep.space import Plan
    from orca_sweep.space import Space as SpaceRecord

MAX_CELLS_SHOWN = 40
PROBE = ("--probe measures a few epochs", "--probe measures it")
"""How to learn the cost, if all of it or a part is unknown."""


def plan(
    space: SpaceFile,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="sweep folder; default results/<name>")] = None,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need any")] = Path("data"),
    store: Annotated[str | None, typer.Option(help="store of artifacts and earlier rows; default OUT/store")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="run a few epochs here of trials whose cost no earlier row shows")
    ] = False,
    rehash: Rehash = False,
    max_trials: MaxTrials = None,
) -> None:
    """Show what a space would run, and its mistakes.

    Prints cells, trials, cost, and the smallest effects they can show. Runs nothing, except with --probe.
    """
    from orca_sweep.api.spaces import Space

    try:
        plan = Space.from_yaml(space).plan(max_trials=max_trials, rehash=rehash, data=data, store=store, out=out)
    except InputError as error:
        if not as_json:
            raise
        print(error, file=sys.stderr)
        print_document("plan", {"cells": 0, "trials": [], **describe_error(error, WRONG_INPUT, str(error))})
        raise typer.Exit(WRONG_INPUT) from None
    if probe:
        plan.probe(lambda text: print(text, file=sys.stderr, flush=True))
    estimate, notes, terms = plan.cost, list(plan.warnings), plan.terms
    if as_json:
        print_document("plan", _plan_as_json(plan.record, estimate, notes, terms))
    else:
        _print_plan(plan.record, estimate, notes, terms)


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
        "terms": [{"topic": term.topic, "text": term.text, "facts": dict(term.facts)} for term in terms],
        "design": planned.space.design.name,
        "resolution": planned.aliasing.resolution if planned.aliasing else None,
        "aliases": planned.aliasing.aliases if planned.aliasing else [],
        "margins": dict(planned.space.margins),
        "levels": {cell_id: dict(labels) for cell_id, labels in planned.labels.items()},
        "forecast": estimate,
    }


def _print_plan(planned: "Plan", estimate: "Forecast", notes: list[str], terms: Iterable["Term"]) -> None:
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
    for line in (
        *_write_design(planned),
        *_write_sizes(planned),
        *(f"{term.topic}: {term.text}" for term in terms),
        *_write_forecast(estimate),
        *map("note: {}".format, notes),
    ):
        print_text(console, line)


def _write_sizes(planned: "Plan") -> Iterator[str]:
    from orca_sweep.api.planning import write_size

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
    if space.margins:
        yield (
            f"margin fixed beforehand: {_write_margins(planned)}, in the metric's unit; differences within it do not count"
            " as meaningful"
        )


def _write_margins(planned: "Plan") -> str:
    """Returns '0.01', or '0.01 (digits), 0.02 (ecg), none for satellite'."""
    from orca_sweep.space.margins import ALL

    margins = planned.space.margins
    if ALL in margins:
        return f"{margins[ALL]:g}"
    fixed = [f"{margins[task]:g} ({planned.names[task]})" for task in planned.by_task if task in margins]
    unfixed = [f"none for {planned.names[task]}" for task in planned.by_task if task not in margins]
    return ", ".join([*fixed, *unfixed])


def _write_values(space: "SpaceRecord", path: str) -> str:
    values = space.tune[path]
    return (
        f"[{', '.join(space.write_level(path, value) for value in values)}]"
        if isinstance(values, tuple)
        else str(values)
    )


def _write_design(planned: "Plan") -> Iterator[str]:
    """Yields the design in words and, for a fraction, all effects that it mixes."""
    from orca_sweep.space.designs import RESOLUTIONS

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
    from orca_sweep.api.planning import write_cost
    from orca_sweep.config.naming import label_declarations

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
    from orca_sweep.stats import LEAST_PAIRS

    smallest = f"p cannot fall below {contrasts.smallest_p:.3g}"
    if contrasts.n_comparisons > 1:
        smallest += f" ({contrasts.corrected_p:.3g} after Holm's correction for {contrasts.n_comparisons} comparisons)"
    if contrasts.n_seeds < LEAST_PAIRS:
        seeds = "1 seed" if contrasts.n_seeds == 1 else f"{contrasts.n_seeds} seeds"
        return f", {seeds}: no difference can be judged, at least {LEAST_PAIRS} seeds are needed"
    effect = f"{contrasts.smallest_effect:.2f} standard deviations of the paired difference"
    if contrasts.spread is not None:
        # Differences of unpaired draws have twice the variance; pairing can only help.
        effect += f", at most about {contrasts.smallest_effect * contrasts.spread * 2**0.5:.3g} given the spread of earlier rows"
    return (
        f", each cell against the first with {contrasts.n_seeds} seeds: {smallest}; a t test detects"
        f" effects from {effect} (80% power)"
    )
