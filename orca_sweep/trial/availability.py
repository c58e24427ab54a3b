"""Finds what this machine lacks for trials, and what is wrong with the user's own files; loads nothing."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from orca_sweep.bodies import explain_missing_body, find_file_problems
from orca_sweep.config.naming import label_of
from orca_sweep.data import missing_packages
from orca_sweep.errors import Problem
from orca_sweep.proxies import describe_proxy, explain_missing_proxy
from orca_sweep.tasks import describe_raw_inputs, explain_unavailable, find_declared_task_problems
from orca_sweep.trial.records import ResolvedTrial


def unavailable_parts(trials: Iterable[ResolvedTrial], data_root: Path) -> list[Problem]:
    """Returns the files and packages that the trials need and this machine lacks, each with its remedy."""
    trials = list(trials)
    tasks = {trial.config.task: trial.task for trial in trials}
    bodies = {trial.config.body.name: trial.body for trial in trials}
    proxies = {trial.config.proxy: trial.proxy for trial in trials}
    problems = [Problem(rule=text) for task in tasks.values() for text in explain_unavailable(task, data_root)]
    problems += find_task_problems(trials)
    problems += [Problem(rule=text) for body in bodies.values() for text in explain_missing_body(body)]
    problems += find_body_problems(trials)
    problems += [Problem(rule=text) for proxy in proxies.values() for text in explain_missing_proxy(proxy, data_root)]
    if any(trial.config.finetune.lora_rank is not None for trial in trials):
        problems += [Problem(rule=text) for text in missing_packages("finetune.lora_rank", ("peft",), "lora")]
    return problems


def describe_proxies(trials: Iterable[ResolvedTrial], labels: Mapping[str, str]) -> list[str]:
    """Returns a line on the content of each proxy file that this machine can read, under the proxy's label."""
    names = dict.fromkeys(trial.config.proxy for trial in trials)
    return [text for name in names if (text := describe_proxy(name, labels[name])) is not None]


def describe_inputs(trials: Iterable[ResolvedTrial]) -> list[str]:
    """Returns a warning for each declared task whose raw inputs are far from zero mean and unit spread.

    Cost: the first 16 MiB of each task that is not normalised.
    """
    pairs = dict.fromkeys((trial.config.task, trial.config.data.normalise) for trial in trials)
    return [text for text in (describe_raw_inputs(*pair) for pair in pairs) if text is not None]


def find_body_problems(trials: Iterable[ResolvedTrial]) -> list[Problem]:
    """Returns what is wrong with the files of the trials' bodies, as far as their headers show; loads no weights.

    Cost: a few milliseconds per body, however many trials.
    """
    bodies = [(trial.config.body, trial.rung) for trial in trials]
    rungs = {(body.name, body.pretrain_fraction, body.pretrain_seed): rung for body, rung in bodies}
    problems = [
        problem
        for (_, fraction, _), rung in rungs.items()
        for problem in find_file_problems(rung, has_weights=fraction > 0)
    ]
    return list(dict.fromkeys(problems))


def find_task_problems(trials: Iterable[ResolvedTrial]) -> list[Problem]:
    """Returns what is wrong with the files of declared tasks, as far as their headers show; reads no data.

    Cost: a few milliseconds per task, however many trials.
    """
    declarations = {trial.config.task: trial.task.declaration for trial in trials}
    return [
        Problem(field="task", value=label_of(name), rule=text)
        for name, declaration in declarations.items()
        if declaration is not None
        for text in find_declared_task_problems(declaration)
    ]


def unavailable_loggers(names: Iterable[str]) -> list[str]:
    """Returns the loggers whose packages are not installed here, where Tune runs them, each with its remedy."""
    packages = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
    return [
        text
        for name in names
        if name in packages
        for text in missing_packages(f"loggers: {name}", (packages[name],), None)
    ]
