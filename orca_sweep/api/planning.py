"""From a space to its plan, what the plan will cost, and what a person should know before launching it."""

import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from orca_sweep.errors import InputError, Problem

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Forecast
    from orca_sweep.planning.suite_forecast import PlannedMember, SuiteForecast
    from orca_sweep.planning.terms import Term
    from orca_sweep.space import Plan
    from orca_sweep.space.documents import Document
    from orca_sweep.space.statements import Statement
    from orca_sweep.store import Store
    from orca_sweep.trial import ResolvedTrial


SMOKE = "A smoke sweep: small on purpose. It shows that everything runs; its numbers answer nothing."


def make_plan(
    source: "Path | Document", max_trials: int | None = None, *, rehash: bool = False, is_smoke: bool = False
) -> "Plan":
    """Returns the plan of a space of at most ``max_trials`` trials, after importing the modules it names.

    Args:
        source: the space's file, the name of a bundled space, or a document.
        max_trials: the most trials that are expanded; None for ``space.MAX_TRIALS``.
        rehash: whether to read the user's own files again even if they look as they did when they were last hashed.
        is_smoke: whether to plan the space's smoke form.

    Raises:
        InputError: with every mistake in the space, or every problem with the files of its bodies and own tasks.
    """
    from orca_sweep.data.contents import Contents
    from orca_sweep.space import MAX_TRIALS, plan_space
    from orca_sweep.space.bundled import find_space
    from orca_sweep.trial import Records, Remembering, find_body_problems, find_task_problems, load_imports, make_config

    contents = Contents(rehashes=rehash, report=lambda text: print(text, file=sys.stderr, flush=True))
    records = Records()  # looks names up only after the imports
    resolve_once = Remembering(partial(make_config, records=records, contents=contents))
    source = find_space(source) if isinstance(source, Path) else source
    planned = plan_space(source, load_imports, resolve_once, max_trials or MAX_TRIALS, is_smoke=is_smoke)
    configs = (*planned.cells, *(trial.config for trial in planned.trials))
    trials = list(map(records.resolve_config, configs))
    problems: list[str | Problem] = [*find_body_problems(trials), *find_task_problems(trials)]
    if problems:
        raise InputError(problems)
    return planned


def make_forecast(plan: "Plan", folder: Path, store: "Store") -> "Forecast":
    """Returns what a plan will cost, without the trials that its sweep folder already has."""
    from orca_sweep.planning.forecast import forecast

    member = _find_done(plan, folder, [folder])
    return forecast(plan, store, member.is_done, member.n_later_done)


def make_suite_forecast(plans: Sequence["Plan"], folder: Path, store: "Store") -> "SuiteForecast":
    """Returns what the spaces of a suite will cost, without the trials that its folder already has.

    Args:
        plans: of its spaces.
        folder: the suite's; it need not exist.
        store: where stage artifacts and earlier rows are.
    """
    from orca_sweep.planning.suite_forecast import forecast_suite

    folders = [folder / plan.space.name for plan in plans]
    members = [_find_done(plan, own, folders) for plan, own in zip(plans, folders, strict=True)]
    return forecast_suite(members, store)


def _find_done(plan: "Plan", folder: Path, folders: Sequence[Path]) -> "PlannedMember":
    """Returns what of a plan is done: its trials in any of the folders, those that tuning has planned in its own."""
    from orca_sweep.planning.suite_forecast import PlannedMember
    from orca_sweep.results import FINAL_STATUSES, read_row
    from orca_sweep.space.manifest import read_manifest

    existing = [each for each in folders if each.is_dir()]

    @cache
    def is_done(trial_id: str) -> bool:
        rows = (read_row(each, trial_id) for each in existing)
        return any(row is not None and row["status"] in FINAL_STATUSES for row in rows)

    manifest = read_manifest(folder) if plan.tuned and folder.is_dir() else None
    earlier = manifest.trials if manifest else ()
    cells = {name for cell in plan.tuned for name in (cell.cell_id, f"{cell.cell_id}-aa")}
    added = [trial["trial_id"] for trial in earlier if trial.get("on_the_way") and trial["cell_id"] in cells]
    return PlannedMember(plan=plan, is_done=is_done, added=tuple(dict.fromkeys(added)))


def collect_notes(plan: "Plan", data_root: Path, folder: Path) -> list["Statement"]:
    """Returns what a person should know before launching a plan, a sentence each: what is missing, mixed, or has changed.

    Args:
        plan: the plan.
        data_root: the folder with the files of tasks.
        folder: the sweep folder; it need not exist.
    """
    from orca_sweep.results import describe_changes, read_reveals
    from orca_sweep.space.confounds import find_confounds
    from orca_sweep.space.statements import Statement, join_statements
    from orca_sweep.trial import (
        describe_inputs,
        describe_proxies,
        read_trial_facts,
        resolve_configs,
        unavailable_loggers,
        unavailable_parts,
        warn_of_idle_placebos,
    )

    cells = resolve_configs(plan.cells)
    missing = list(map(str, unavailable_parts(cells, data_root)))
    missing += unavailable_loggers(logger.name for logger in plan.space.loggers)
    notes = [f"Not here: {text}" for text in missing] + describe_proxies(cells, plan.names)
    notes += describe_inputs(cells) + warn_of_idle_placebos(_list_labelled(plan, cells), plan.names)
    if plan.space.is_smoke:
        notes.insert(0, SMOKE)
    if len(plan.space.seeds) < 2:
        notes.append("One seed has no interval: no difference between cells can be told from noise.")
    for cell in plan.cells:
        decay = cell.finetune.decay_epochs
        if decay is not None and decay < cell.finetune.epochs:
            notes.append(
                f"finetune.decay_epochs {decay} is below finetune.epochs {cell.finetune.epochs}:"
                " the learning rate is zero at the end."
            )
    notes += describe_changes(folder, plan)
    log = read_reveals(folder)
    if log:
        notes.append(
            f"Test metrics of {folder} were revealed (last on {log[-1].time}): trials that start from now on are marked"
            " (n_reveals_before)."
        )
    trials = {id(trial.config): trial for trial in cells}
    confounds = find_confounds(plan, lambda cell: read_trial_facts(trials[id(cell)]))
    return join_statements([*(Statement(text=text) for text in (*notes, *plan.notes)), *confounds])


def _list_labelled(plan: "Plan", cells: list["ResolvedTrial"]) -> list["ResolvedTrial"]:
    """The trials that show whether proxy labels act: those of the cells, or of all candidates if tuning decides it."""
    from orca_sweep.trial import resolve_configs

    if not {"embedder.objective", "embedder.label_gradient"} & plan.space.tune.keys():
        return cells
    return resolve_configs(config for cell in plan.tuned for config in cell.candidates or (cell.base,))


def collect_terms(plan: "Plan", forecast: "Forecast") -> list["Term"]:
    """Returns the terms of a plan: what was chosen by default, resources, order, budget, limits."""
    from orca_sweep.planning.terms import list_terms
    from orca_sweep.trial import resolve_configs

    return list_terms(plan, forecast, resolve_configs(plan.cells))
