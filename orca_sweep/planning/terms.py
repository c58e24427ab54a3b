"""The terms on which a plan runs: what the space sets or leaves to a default, in one sentence each.

A person who is about to spend thousands of GPU-hours reads them before the launch: what stops the sweep early, what ends
or drops a trial, and what was chosen for them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.planning.forecast import Forecast
from orca_sweep.space import Plan, Resources, Space
from orca_sweep.space.records import Checkpoints, OutcomeRule
from orca_sweep.space.statements import TASKS, Statement
from orca_sweep.trial import ResolvedTrial

HOURS = {"hours": "trial_hours", "cpu_hours": "cpu_hours", "gpu_hours": "gpu_hours"}
"""For each budget in hours, the forecast that it is compared with."""
UNITS = {"hours": "hours", "cpu_hours": "CPU-hours", "gpu_hours": "GPU-hours"}


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of a plan."""

    topic: str
    """A key of the space, or the field that was chosen by default."""
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same as values, for scripts."""
    shared: Statement | None = None
    """If several tasks may have the term: the sentence that is the same for all of them."""

    @property
    def statement(self) -> Statement:
        """The term as a sentence that can be joined with those of other tasks and spaces."""
        return self.shared or Statement(text=f"{self.topic}: {self.text}")


def list_terms(plan: Plan, estimate: Forecast, trials: Sequence[ResolvedTrial]) -> list[Term]:
    """Returns the terms of a plan.

    Args:
        plan: the plan.
        estimate: what it will cost.
        trials: a trial of each of its cells.
    """
    space = plan.space
    return [
        *_describe_chosen(plan, trials),
        *_describe_data(plan, trials),
        _describe_resources(space.resources),
        *_describe_order(plan),
        *_describe_budget(plan, estimate),
        *_describe_limits(space, estimate),
        *_describe_pruning(plan),
        *_describe_outcomes(space),
        *_describe_saving(space),
    ]


# Chosen by default --------------------------------------------------------------------------------


def _is_set(space: Space, path: str) -> bool:
    return any(path in of for of in (space.base, space.factors, space.tune, *(rule.settings for rule in space.when)))


def _describe_chosen(plan: Plan, trials: Sequence[ResolvedTrial]) -> Iterator[Term]:
    """The body and the proxy of each task where the space names none, and where they come from."""
    readers: dict[str, Callable[[ResolvedTrial], str]] = {
        "body.name": lambda trial: trial.config.body.name,
        "proxy": lambda trial: plan.names.get(trial.config.proxy, trial.config.proxy),
    }
    for path, read in readers.items():
        if _is_set(plan.space, path):
            continue
        chosen: dict[tuple[str, bool], dict[str, None]] = {}
        for trial in trials:
            # A naive cell runs without the recipe's proxy, which is no choice.
            if path != "proxy" or trial.config.embedder.epochs or not trial.task.recipe.get("proxy"):
                key = (read(trial), path in trial.task.recipe)
                chosen.setdefault(key, {})[plan.names[trial.config.task]] = None
        texts = [
            f"{name} for {', '.join(tasks)} from {_name_origin(path, from_recipe, len(tasks))}"
            for (name, from_recipe), tasks in chosen.items()
        ]
        if texts:
            facts = {task: name for (name, _), tasks in chosen.items() for task in tasks}
            yield Term(topic=path, text=f"{'; '.join(texts)}, as the space names none", facts=facts)
    sources = {label: name for name, label in plan.names.items() if label != name and name not in plan.by_task}
    if any(not name.startswith(SHUFFLED) for name in sources.values()):
        files = {label: name.split("#")[0] for label, name in sources.items() if not name.startswith(SHUFFLED)}
        text = "; ".join(f"{label} is read from {path}" for label, path in files.items())
        yield Term(topic="proxy names", text=text, facts=sources)


def _name_origin(path: str, from_recipe: bool, n_tasks: int) -> str:
    if not from_recipe:
        return "the field's default" + (" (every cell is naive)" if path == "proxy" else "")
    return "its recipe" if n_tasks == 1 else "their recipes"


def _describe_data(plan: Plan, trials: Sequence[ResolvedTrial]) -> Iterator[Term]:
    """How many samples ``data.n_train`` keeps; a task with fewer fails where its size is not known beforehand."""
    sizes: dict[str, dict[int, int | None]] = {}
    for trial in trials:
        n = trial.config.data.n_train
        if n is not None:
            sizes.setdefault(plan.names[trial.config.task], {})[n] = trial.n_training_samples
    for task, by_size in sizes.items():
        n_most = next(iter(by_size.values()))
        part = _write_sizes(list(by_size), n_most)
        yield Term(
            topic="data.n_train",
            text=f"{part} ({task})",
            facts={"task": task, "n_train": list(by_size), "n_most": n_most},
            shared=Statement(text=f"data.n_train, training samples: {TASKS}", tasks=((task, part),)),
        )


def _write_sizes(sizes: Sequence[int], n_most: int | None) -> str:
    """Returns '20, 40 of 897', 'all 240', or '20 of an unknown number, and a trial fails if there are fewer'."""
    if list(sizes) == [n_most]:
        return f"all {n_most}"
    numbers = ", ".join(map(str, sizes))
    return f"{numbers} of {n_most or 'an unknown number, and a trial fails if there are fewer'}"


# What runs, and in which order --------------------------------------------------------------------


def _describe_resources(resources: Resources) -> Term:
    gpu = f"{resources.gpu:g} GPU{'s' if resources.gpu > 1 else ''}" if resources.gpu else "no GPU"
    more = [f"{amount:g} {name}" for name, amount in resources.custom.items()]
    more += [f"only on {resources.accelerator_type}"] if resources.accelerator_type else []
    default = " (the default)" if resources == Resources() else ""
    threads = f"{resources.n_threads} thread{'s' if resources.n_threads > 1 else ''}"
    text = f"{resources.cpu:g} CPU{'s' if resources.cpu > 1 else ''} ({threads}), {', '.join([gpu, *more])} per trial{default}"
    return Term(topic="resources", text=text, facts=resources.model_dump())


def _describe_order(plan: Plan) -> Iterator[Term]:
    """In which order trials start, since a sweep may end early."""
    seeds = list(plan.space.seeds)
    if plan.tuned:
        text = "the candidates of each cell first, then its best with every seed"
        yield Term(topic="order", text=text, facts={"first": "search", "seeds": seeds})
    elif len(plan.cells) > 1 and len(seeds) > 1:
        last = f", then the A/A cell{'s' * (len(plan.first_cells) > 1)}" if plan.space.aa else ""
        text = f"every cell with seed {seeds[0]}, then every cell with seed {seeds[1]}, and so on{last}"
        yield Term(topic="order", text=text, facts={"first": "seed", "seeds": seeds})


# What ends the sweep early ------------------------------------------------------------------------


def _describe_budget(plan: Plan, estimate: Forecast) -> Iterator[Term]:
    budget = plan.space.budget
    if budget.trials is not None:
        yield _compare_trials(plan, estimate, budget.trials)
    for name, path in HOURS.items():
        most = getattr(budget, name)
        if most is not None:
            yield _compare_hours(name, most, getattr(estimate, path), estimate)


def _compare_trials(plan: Plan, estimate: Forecast, most: int) -> Term:
    beyond = max(0, estimate.n_trials - most)
    facts = {"trials": most, "n_planned": estimate.n_trials, "n_beyond": beyond}
    if not beyond:
        return Term(topic="budget", text=f"trials {most:g} covers all {estimate.n_trials} trials", facts=facts)
    n_complete = 0 if plan.tuned else min(len(plan.space.seeds), most // len(plan.cells))
    reached = "" if plan.tuned else f", which is every cell with {n_complete} of {len(plan.space.seeds)} seeds at most"
    text = (
        f"trials {most:g} is below the plan: it stops the sweep after {most:g} of {estimate.n_trials} trials{reached};"
        f" {beyond} do not run"
    )
    return Term(topic="budget", text=text, facts={**facts, "n_complete_seeds": n_complete})


def _compare_hours(name: str, most: float, hours: float, estimate: Forecast) -> Term:
    """A budget in hours beside the forecast for what is left; wall time depends on how many trials run at once."""
    unit, known = UNITS[name], estimate.n_known
    facts: dict[str, Any] = {name: most, "forecast": hours if known else None, "n_unknown": estimate.n_left - known}
    start = f"{name} {most:g}"
    if not known:
        return Term(
            topic="budget",
            text=f"{start}: no cost is known yet, so the plan cannot say whether it is enough",
            facts=facts,
        )
    unknown = f", and {estimate.n_left - known} trials of unknown cost come on top" if estimate.n_left > known else ""
    if name == "hours":
        n_at_once = max(1, math.ceil(hours / most))
        left = f"about {hours:.3g} hours of trials are left"
        text = f"{start} for each launch: {left}, so that at least {n_at_once} must run at once{unknown}"
        return Term(topic="budget", text=text, facts={**facts, "n_at_once": n_at_once})
    facts["beyond"] = max(0.0, hours - most)
    if hours > most:
        text = f"{start} is below the plan: about {hours:.3g} {unit} are left, {hours - most:.3g} beyond it; it stops the sweep"
        return Term(topic="budget", text=f"{text}{unknown}", facts=facts)
    covers = "covers the" if not unknown else "covers what is known: the"
    text = f"{start} {covers} {hours:.3g} {unit} that are left; what earlier launches used counts too{unknown}"
    return Term(topic="budget", text=text, facts=facts)


# What ends a trial early --------------------------------------------------------------------------


def _describe_limits(space: Space, estimate: Forecast) -> Iterator[Term]:
    limit = space.limits.trial_s
    if limit is None:
        return
    text = f"a trial ends as timeout at its next epoch after {limit:g} s; launching again continues it"
    longest = estimate.longest_trial_s
    if longest is not None:
        text += f"; the longest trial is forecast at {longest:.3g} s"
    if estimate.n_over_limit:
        text += f", and {estimate.n_over_limit} of {estimate.n_left} trials at more than the limit"
    facts = {"trial_s": limit, "longest_trial_s": longest, "n_over_limit": estimate.n_over_limit}
    yield Term(topic="limits", text=text, facts=facts)


def _describe_pruning(plan: Plan) -> Iterator[Term]:
    prune = plan.space.prune
    if prune is None:
        return
    rules = {
        "asha": f"goes on with one in {prune.reduction:g} at each rung",
        "median": "ends those that do worse than the median of the others' running means",
    }
    epochs = f"{prune.grace_epochs} fine-tuning epoch{'s' if prune.grace_epochs > 1 else ''}"
    compared = "the candidates of each cell"
    meaning = "replicates run to their end, so comparisons of cells are not affected"
    if prune.cells:
        compared = "the cells of each task with one seed" + (", and the candidates of each cell" if plan.tuned else "")
        meaning = "pruned trials count in no mean, so that weak cells lack seeds and comparisons with them are biased"
    text = f"{prune.name} {rules[prune.name]} after {epochs}, comparing {compared} on validation data; {meaning}"
    shortest = min(cell.finetune.epochs for cell in plan.cells)
    if prune.grace_epochs >= shortest:
        text += f"; it cannot act in cells of {shortest} epoch{'s' * (shortest != 1)}"
    yield Term(topic="prune", text=text, facts=prune.model_dump())


def _describe_outcomes(space: Space) -> Iterator[Term]:
    if space.outcomes:
        texts = [f"{status}: {_describe_outcome(rule)}" for status, rule in space.outcomes.items()]
        facts: dict[str, Any] = {str(status): rule.model_dump() for status, rule in space.outcomes.items()}
        yield Term(topic="outcomes", text="; ".join(texts), facts=facts)


def _describe_outcome(rule: OutcomeRule) -> str:
    fates = {"exclude": "left out of means and counted", "worst": "counts as the worst trial of its task"}
    again = f"runs again up to {rule.retry} time{'s' if rule.retry > 1 else ''}, then " if rule.retry else ""
    return f"{again}{fates[rule.then]}"


# What is kept -------------------------------------------------------------------------------------


def _describe_saving(space: Space) -> Iterator[Term]:
    saves = space.checkpoints
    if saves != Checkpoints():
        every = "every epoch" if saves.epochs == 1 else f"every {saves.epochs} epochs"
        text = f"state is saved {every} or {saves.minutes:g} minutes, whichever comes first; a kill costs what lies between"
        yield Term(topic="checkpoints", text=text, facts=saves.model_dump())
    loggers = list(_name_loggers(space))
    if loggers:
        yield Term(topic="loggers", text=f"json, {', '.join(loggers)}", facts={"names": ["json", *loggers]})


def _name_loggers(space: Space) -> Iterable[str]:
    return (logger.name for logger in space.loggers if logger.name != "json")
