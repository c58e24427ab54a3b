"""``orca-sweep plan``: what a space would run, what that takes and shows, and every mistake in it."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orca_sweep.cli import store as store_commands
from orca_sweep.cli.terminal import open_console
from orca_sweep.cli.words import real_path
from orca_sweep.config.naming import label_declarations
from orca_sweep.errors import InputError, Problem
from orca_sweep.space import MAX_TRIALS, Plan, Space
from orca_sweep.space.designs import RESOLUTIONS
from orca_sweep.space.margins import ALL

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Contrasts, Forecast

SpaceFile = Annotated[
    Path,
    typer.Argument(
        metavar="SPACE",
        help="the space: a YAML with base, factors and seeds, or the name of a bundled one (list spaces)",
        show_default=False,
    ),
]
Rehash = Annotated[
    bool, typer.Option("--rehash", help="read all of your own files again, whatever is known of their content")
]
MaxTrials = Annotated[
    int, typer.Option("--max-trials", min=1, help="largest space that is expanded: raise it for more trials")
]
MAX_CELLS_SHOWN = 40


def plan(
    space: SpaceFile,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="sweep folder; default results/<name>")] = None,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need some")] = Path("data"),
    store: Annotated[str | None, typer.Option(help="stage artifacts and earlier rows; default OUT/store")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="run a few epochs here of what has no earlier row to tell its cost by")
    ] = False,
    rehash: Rehash = False,
    max_trials: MaxTrials = MAX_TRIALS,
) -> None:
    """Shows the cells and trials of a space, what they take and can show, and every mistake; runs nothing (but --probe)."""
    try:
        made = make_plan(space, max_trials, rehash)
    except InputError as error:
        if as_json:
            _print_json({"cells": 0, "trials": [], "problems": [problem.as_json() for problem in error.problems]})
            raise typer.Exit(2) from None
        raise
    folder = real_path(out or Path("results") / made.space.name)
    estimate = _make_forecast(made, folder, store_root(store or str(folder / "store")), real_path(data), probe)
    notes = _collect_notes(made, data, folder)
    if as_json:
        _print_json(_plan_json(made, estimate, notes))
    else:
        _print_plan(made, estimate, notes)


def make_plan(path: Path, max_trials: int = MAX_TRIALS, rehash: bool = False) -> Plan:
    """Returns the plan of a space YAML of at most so many trials, after importing the modules it names.

    Args:
        path: the space's file, or the name of a bundled space.
        max_trials: the most that are expanded.
        rehash: whether the user's own files are read again even if they look as they did when they were hashed.

    Raises:
        InputError: with every mistake in the space, or every problem with the files of its bodies and own tasks.
    """
    from orca_sweep.data.contents import Contents
    from orca_sweep.space import plan_space
    from orca_sweep.trial import Records, Remembering, find_body_problems, find_task_problems, load_imports, make_config

    contents = Contents(rehashes=rehash, report=lambda text: print(text, file=sys.stderr, flush=True))
    records = Records()  # asked only after the imports
    resolve = Remembering(partial(make_config, records=records, contents=contents))
    made = plan_space(path, load_imports, resolve, max_trials)
    trials = list(map(records.resolve_config, (*made.cells, *(trial.config for trial in made.trials))))
    problems: list[str | Problem] = [*find_body_problems(trials), *find_task_problems(trials)]
    if problems:
        raise InputError(problems)
    return made


def store_root(store: str) -> str:
    """Returns a store's place: a URL as it is, a folder counted from here."""
    return store if "://" in store else str(real_path(store))


def _make_forecast(made: Plan, folder: Path, store: str, data_root: Path, probe: bool) -> "Forecast":
    from orca_sweep.planning.forecast import forecast
    from orca_sweep.results import FINAL_STATUSES, read_row
    from orca_sweep.space.manifest import read_manifest
    from orca_sweep.store import Store

    def is_done(trial_id: str) -> bool:
        row = read_row(folder, trial_id)
        return row is not None and row["status"] in FINAL_STATUSES

    with store_commands.told(f"--store {store}"):
        opened = Store(store)
        opened.check_root()
    if probe:
        from orca_sweep.planning.probe import probe as run

        run(made, opened, data_root, lambda text: print(text, file=sys.stderr, flush=True))
    if not folder.is_dir():
        return forecast(made, opened)
    manifest = read_manifest(folder) if made.tuned else None
    before = manifest.trials if manifest else ()
    cells = {name for cell in made.tuned for name in (cell.cell_id, f"{cell.cell_id}-aa")}
    later = [t["trial_id"] for t in before if t.get("on_the_way") and t["cell_id"] in cells]
    return forecast(made, opened, is_done, sum(map(is_done, later)))


def _collect_notes(made: Plan, data: Path, folder: Path) -> list[str]:
    from orca_sweep.results import describe_changes, reveals
    from orca_sweep.space.confounds import find_confounds
    from orca_sweep.trial import (
        describe_inputs,
        describe_proxies,
        resolve_configs,
        unavailable_loggers,
        unavailable_parts,
    )

    cells = resolve_configs(made.cells)
    lacks = list(map(str, unavailable_parts(cells, real_path(data))))
    lacks += unavailable_loggers(logger.name for logger in made.space.loggers)
    notes = [f"Not here: {text}" for text in lacks] + describe_proxies(cells, made.names)
    notes += describe_inputs(cells)
    if len(made.space.seeds) < 2:
        notes.append("One seed has no interval: no difference between cells can be told from noise.")
    for cell in made.cells:
        decay = cell.finetune.decay_epochs
        if decay is not None and decay < cell.finetune.epochs:
            notes.append(
                f"finetune.decay_epochs {decay} is below finetune.epochs {cell.finetune.epochs}:"
                " the learning rate is zero at the end."
            )
    notes += describe_changes(folder, made)
    log = reveals(folder)
    if log:
        notes.append(
            f"Test metrics of {folder} were revealed (last on {log[-1].time}): trials that begin from now on are marked"
            " (n_reveals_before)."
        )
    return list(dict.fromkeys([*notes, *made.notes, *find_confounds(made)]))


def _plan_json(made: Plan, estimate: "Forecast", notes: list[str]) -> dict[str, Any]:
    # One at a time: all of them at once take gigabytes.
    trials = (
        {"trial_id": t.trial_id, "cell_id": t.cell_id, "seed": t.seed, "role": t.role, "config": t.config.model_dump()}
        for t in made.trials
    )
    return {
        "cells": len(made.cells),
        "trials": trials,
        "later": made.n_later,
        "problems": [],
        "merged": made.n_merged,
        "notes": notes,
        "design": made.space.design.name,
        "resolution": made.aliasing.resolution if made.aliasing else None,
        "aliases": made.aliasing.aliases if made.aliasing else [],
        "margins": dict(made.space.margins),
        "levels": {cell_id: dict(labels) for cell_id, labels in made.labels.items()},
        "forecast": _replace_infinity(asdict(estimate)),
    }


def _replace_infinity(value: Any) -> Any:
    """JSON has no word for infinity: null."""
    if isinstance(value, dict):
        return {key: _replace_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinity(inner) for inner in value]
    return None if isinstance(value, float) and abs(value) == float("inf") else value


def _print_json(values: Mapping[str, Any]) -> None:
    """Prints JSON with a line per item of each list: indenting thousands of configs takes longer than planning them."""
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


def _print_plan(made: Plan, estimate: "Forecast", notes: list[str]) -> None:
    console = open_console()
    space = made.space
    if space.question:
        console.print(space.question)
    table = Table(box=None, header_style="bold")
    for name in ("cell", *space.factors):
        table.add_column(name, overflow="fold")  # two levels that are cut could look alike
    for cell_id in list(made.by_cell_id)[:MAX_CELLS_SHOWN]:
        table.add_row(cell_id, *made.labels[cell_id].values())
    console.print(table)
    if len(made.cells) > MAX_CELLS_SHOWN:
        console.print(f"... and {len(made.cells) - MAX_CELLS_SHOWN} more cells (all with --json)")
    for line in (*_write_design(made), *_write_sizes(made), *_write_forecast(estimate), *map("note: {}".format, notes)):
        console.print(line, soft_wrap=True)


def _write_sizes(made: Plan) -> Iterator[str]:
    space = made.space
    merged = f"; {made.n_merged} combinations are equal work to another and run once" if made.n_merged else ""
    again = f" + {len(space.aa)} A/A" if space.aa else ""
    n = len(made.cells) * len(space.seeds) + len(space.aa)
    yield f"{len(made.cells)} cells x {len(space.seeds)} seeds{again} = {n} trials{merged}"
    if space.aa:
        yield f"A/A: the first cell again with the seeds {', '.join(map(str, space.aa))}, as a cell of its own"
    if space.tune:
        search = space.search
        counts = sorted(
            {len(cell.candidates) for cell in made.tuned} if search.n_candidates is None else {search.n_candidates}
        )
        tuned = ", ".join(f"{path} {_write_values(space, path)}" for path in space.tune)
        seeds = ", ".join(map(str, search.seeds))
        yield (
            f"tuned within each cell: {tuned}; {search.method}, {' to '.join(map(str, counts))} candidates with seed {seeds},"
            f" the best on validation data is replicated: {len(made.trials) + made.n_later} trials in all"
        )
    budget = {name: value for name, value in space.budget.model_dump().items() if value is not None}
    if budget:
        yield f"budget: {', '.join(f'{name} {value:g}' for name, value in budget.items())}"
    if space.margins:
        yield (
            f"margin fixed beforehand: {_write_margins(made)}; differences within it, in the metric's unit, are called not"
            " meaningful"
        )


def _write_margins(made: Plan) -> str:
    """'0.01', or '0.01 (digits), 0.02 (ecg), none for satellite'."""
    margins = made.space.margins
    if ALL in margins:
        return f"{margins[ALL]:g}"
    fixed = [f"{margins[task]:g} ({made.names[task]})" for task in made.by_task if task in margins]
    unfixed = [f"none for {made.names[task]}" for task in made.by_task if task not in margins]
    return ", ".join([*fixed, *unfixed])


def _write_values(space: Space, path: str) -> str:
    values = space.tune[path]
    return (
        f"[{', '.join(space.write_level(path, value) for value in values)}]"
        if isinstance(values, tuple)
        else str(values)
    )


def _write_design(made: Plan) -> Iterator[str]:
    """The design in words and, of a fraction, everything it cannot tell apart."""
    design, aliasing = made.space.design, made.aliasing
    if aliasing is None:
        if design.name != "cross":
            yield f"design {design.name}: {design.meaning}"
    elif aliasing.resolution is None:
        yield f"design fraction: all {aliasing.n_whole} combinations: any fraction of so few factors has a lower resolution"
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
        yield f"stages to compute once, for all that share them: {', '.join(stages)}"
    if estimate.n_shared_epochs:
        yield (
            f"{estimate.n_shared_epochs} of {estimate.n_epochs} fine-tuning epochs are shared: trials that begin alike compute"
            " these once"
        )
    if estimate.n_left:
        yield _write_cost(estimate)
        if estimate.checkpoint_mib is not None:
            yield f"checkpoints: at most {estimate.checkpoint_mib:.3g} MiB for each trial that runs, gone when it ends"
    names = label_declarations(contrasts.task for contrasts in estimate.contrasts)
    for contrasts in estimate.contrasts:
        yield f"{names[contrasts.task]}{_write_contrasts(contrasts)}"


def _write_cost(estimate: "Forecast") -> str:
    if not estimate.n_known:
        return "cost: not known, the store has no earlier row like these (--probe runs a few epochs to tell)"
    hours = f"{estimate.trial_hours:.2f} hours of trials"
    used = f"{estimate.cpu_hours:.2f} CPU-hours, {estimate.gpu_hours:.2f} GPU-hours"
    lack = estimate.n_left - estimate.n_known
    rest = f"; {lack} trials more have no row like theirs (--probe tells)" if lack else ""
    return f"cost: about {hours} one after another ({used}), by {estimate.n_rows} earlier rows{rest}"


def _write_contrasts(contrasts: "Contrasts") -> str:
    smallest = f"p cannot fall below {contrasts.smallest_p:.3g}"
    if contrasts.n_comparisons > 1:
        smallest += f" ({contrasts.corrected_p:.3g} after Holm's correction for {contrasts.n_comparisons} comparisons)"
    if contrasts.n_seeds < 2:
        return ": with one seed no difference can be tested"
    effect = f"{contrasts.smallest_effect:.2f} standard deviations of the paired difference"
    if contrasts.spread is not None:
        # Differences of unpaired draws have twice the variance; pairing can only help.
        effect += (
            f", at most about {contrasts.smallest_effect * contrasts.spread * 2**0.5:.3g} by the spread of earlier rows"
        )
    return (
        f", each cell against the first with {contrasts.n_seeds} seeds: {smallest}; a t test sees"
        f" effects from {effect} (80% power)"
    )
