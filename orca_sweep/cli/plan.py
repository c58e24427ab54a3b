"""``orca-sweep plan``: what a space would run, what it would cost and can show, and every mistake in it."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.cli.documents import WRONG_INPUT, AsJson, describe_error, print_document
from orca_sweep.cli.paths import real_path
from orca_sweep.cli.spaces import MaxTrials, Rehash, SpaceFile, make_plan
from orca_sweep.cli.store import open_store
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Contrasts, Forecast
    from orca_sweep.planning.terms import Term
    from orca_sweep.space import Plan, Space
    from orca_sweep.store import Store
    from orca_sweep.trial import ResolvedTrial

MAX_CELLS_SHOWN = 40


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
    try:
        planned = make_plan(space, max_trials, rehash)
    except InputError as error:
        if not as_json:
            raise
        print(error, file=sys.stderr)
        print_document("plan", {"cells": 0, "trials": [], **describe_error(error, WRONG_INPUT, str(error))})
        raise typer.Exit(WRONG_INPUT) from None
    folder = real_path(out or Path("results") / planned.space.name)
    opened = open_store(store or str(folder / "store"))
    if probe:
        from orca_sweep.planning.probe import probe as run_probe

        run_probe(planned, opened, real_path(data), lambda text: print(text, file=sys.stderr, flush=True))
    estimate = _make_forecast(planned, folder, opened)
    notes = _collect_notes(planned, data, folder)
    terms = _collect_terms(planned, estimate)
    if as_json:
        print_document("plan", _plan_as_json(planned, estimate, notes, terms))
    else:
        _print_plan(planned, estimate, notes, terms)


def _make_forecast(planned: "Plan", folder: Path, store: "Store") -> "Forecast":
    from orca_sweep.planning.forecast import forecast
    from orca_sweep.results import FINAL_STATUSES, read_row
    from orca_sweep.space.manifest import read_manifest

    def is_done(trial_id: str) -> bool:
        row = read_row(folder, trial_id)
        return row is not None and row["status"] in FINAL_STATUSES

    if not folder.is_dir():
        return forecast(planned, store)
    manifest = read_manifest(folder) if planned.tuned else None
    earlier = manifest.trials if manifest else ()
    cells = {name for cell in planned.tuned for name in (cell.cell_id, f"{cell.cell_id}-aa")}
    added = [trial["trial_id"] for trial in earlier if trial.get("on_the_way") and trial["cell_id"] in cells]
    return forecast(planned, store, is_done, sum(map(is_done, added)))


def _collect_terms(planned: "Plan", estimate: "Forecast") -> list["Term"]:
    from orca_sweep.planning.terms import list_terms
    from orca_sweep.trial import resolve_configs

    return list_terms(planned, estimate, resolve_configs(planned.cells))


def _collect_notes(planned: "Plan", data: Path, folder: Path) -> list[str]:
    from orca_sweep.results import describe_changes, read_reveals
    from orca_sweep.space.confounds import find_confounds
    from orca_sweep.trial import (
        describe_inputs,
        describe_proxies,
        read_trial_facts,
        resolve_configs,
        unavailable_loggers,
        unavailable_parts,
        warn_of_idle_placebos,
    )

    cells = resolve_configs(planned.cells)
    missing = list(map(str, unavailable_parts(cells, real_path(data))))
    missing += unavailable_loggers(logger.name for logger in planned.space.loggers)
    notes = [f"Not here: {text}" for text in missing] + describe_proxies(cells, planned.names)
    notes += describe_inputs(cells) + warn_of_idle_placebos(_list_labelled(planned, cells), planned.names)
    if len(planned.space.seeds) < 2:
        notes.append("One seed has no interval: no difference between cells can be told from noise.")
    for cell in planned.cells:
        decay = cell.finetune.decay_epochs
        if decay is not None and decay < cell.finetune.epochs:
            notes.append(
                f"finetune.decay_epochs {decay} is below finetune.epochs {cell.finetune.epochs}:"
                " the learning rate is zero at the end."
            )
    notes += describe_changes(folder, planned)
    log = read_reveals(folder)
    if log:
        notes.append(
            f"Test metrics of {folder} were revealed (last on {log[-1].time}): trials that start from now on are marked"
            " (n_reveals_before)."
        )
    trials = {id(trial.config): trial for trial in cells}
    confounds = find_confounds(planned, lambda cell: read_trial_facts(trials[id(cell)]))
    return list(dict.fromkeys([*notes, *planned.notes, *confounds]))


def _list_labelled(planned: "Plan", cells: list["ResolvedTrial"]) -> list["ResolvedTrial"]:
    """The trials that show whether proxy labels act: those of the cells, or of all candidates if tuning decides it."""
    from orca_sweep.trial import resolve_configs

    if not {"embedder.objective", "embedder.label_gradient"} & planned.space.tune.keys():
        return cells
    return resolve_configs(config for cell in planned.tuned for config in cell.candidates or (cell.base,))


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
    space = planned.space
    merged = f"; {_count_merged(planned.n_merged)}" if planned.n_merged else ""
    again = f" + {len(space.aa)} A/A" if space.aa else ""
    n = len(planned.cells) * len(space.seeds) + len(space.aa)
    yield f"{len(planned.cells)} cells x {len(space.seeds)} seeds{again} = {n} trials{merged}"
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


def _count_merged(n: int) -> str:
    if n == 1:
        return "1 combination is the same work as another and runs once"
    return f"{n} combinations are the same work as another and run once"


def _write_margins(planned: "Plan") -> str:
    """Returns '0.01', or '0.01 (digits), 0.02 (ecg), none for satellite'."""
    from orca_sweep.space.margins import ALL

    margins = planned.space.margins
    if ALL in margins:
        return f"{margins[ALL]:g}"
    fixed = [f"{margins[task]:g} ({planned.names[task]})" for task in planned.by_task if task in margins]
    unfixed = [f"none for {planned.names[task]}" for task in planned.by_task if task not in margins]
    return ", ".join([*fixed, *unfixed])


def _write_values(space: "Space", path: str) -> str:
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
        yield _write_cost(estimate)
        if estimate.checkpoint_mib is not None:
            yield f"checkpoints: at most {estimate.checkpoint_mib:.3g} MiB for each running trial, deleted when it ends"
    names = label_declarations(contrasts.task for contrasts in estimate.contrasts)
    for contrasts in estimate.contrasts:
        yield f"{names[contrasts.task]}{_write_contrasts(contrasts)}"


def _write_cost(estimate: "Forecast") -> str:
    if not estimate.n_known:
        return "cost: unknown, as the store has no earlier row of similar trials (--probe measures a few epochs)"
    hours = f"{estimate.trial_hours:.2f} hours of trials"
    used = f"{estimate.cpu_hours:.2f} CPU-hours, {estimate.gpu_hours:.2f} GPU-hours"
    n_unknown = estimate.n_left - estimate.n_known
    rest = f"; the cost of {n_unknown} more trials is unknown (--probe measures it)" if n_unknown else ""
    return f"cost: about {hours} one after another ({used}), from {estimate.n_rows} earlier rows{rest}"


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
