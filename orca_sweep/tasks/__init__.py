"""Tasks: records of target problems. A task is data, three splits, a loss, a metric and a recipe."""

from typing import Any

from orca_sweep.config.declaration import is_task_text, parse_task
from orca_sweep.errors import InputError
from orca_sweep.registry import Registry
from orca_sweep.tasks import (
    audio,
    bundled,
    nasbench360,
    pdebench,
    peptides,
    protein,
    tabular,
    terrain,
    tissue,
    vision,
    vowels,
)
from orca_sweep.tasks.declared import (
    canonicalise,
    describe_raw_inputs,
    drop_normalise,
    find_declared_task_problems,
    make_declared_task,
)
from orca_sweep.tasks.loading import TaskData, alignment_labels, load_task_data
from orca_sweep.tasks.losses import LOSSES, Loss
from orca_sweep.tasks.measures import METRICS, Metric
from orca_sweep.tasks.records import Task, explain_unavailable, find_missing_files

__all__ = [
    "LOSSES",
    "METRICS",
    "TASKS",
    "Loss",
    "Metric",
    "Task",
    "TaskData",
    "alignment_labels",
    "canonicalise_task",
    "describe_metric",
    "describe_raw_inputs",
    "drop_normalise",
    "explain_unavailable",
    "find_declared_task_problems",
    "find_missing_files",
    "find_task",
    "load_task_data",
]

TASKS: Registry[Task] = Registry("task")
for module in (bundled, terrain, tissue, vowels, peptides, nasbench360, vision, audio, protein, pdebench):
    for record in module.RECORDS:
        TASKS.add(record)


def find_task(name: str) -> Task:
    """Returns the task of a registered name, of ``openml:<id>``, or of a declaration of the user's own data.

    Raises:
        InputError: if there is no such task, or the declaration has mistakes.
    """
    if name in TASKS:
        return TASKS.get(name)
    if name.startswith((tabular.PREFIX, tabular.ORCA_PREFIX)):
        return tabular.make_openml_task(name)
    if is_task_text(name):
        task = make_declared_task(name)
        if task.name in TASKS:
            raise InputError(f"the name {task.name!r} belongs to a registered task. Give the declaration another name.")
        return task
    raise InputError(
        f"{TASKS.explain_unknown(name)} Or openml:<id>, or your own data: {{path, kind, sample_shape, output_shape}}."
    )


def describe_metric(task: Task) -> dict[str, Any]:
    """Returns name, mode, unit and bounds of the task's metric, by their columns in the trials table."""
    metric = METRICS.get(task.metric)
    bounds = {"metric_low": metric.low, "metric_high": metric.high}
    return {"metric": metric.name, "metric_mode": metric.mode, "metric_unit": metric.unit, **bounds}


def canonicalise_task(name: str) -> str:
    """Returns a task's canonical name: paths of a declaration become absolute, relative to the working folder."""
    if name in TASKS or not is_task_text(name):
        return name
    try:
        return canonicalise(parse_task(name)).text
    except ValueError:
        return name
