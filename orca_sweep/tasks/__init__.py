"""Tasks: target problems as records. A task is data, three splits, a loss, a metric and a recipe."""

from orca_sweep.config.declaration import is_task_text, parse_task
from orca_sweep.errors import InputError
from orca_sweep.registry import Registry
from orca_sweep.tasks import audio, nasbench360, pdebench, protein, tabular, vision
from orca_sweep.tasks import bundled as embedded
from orca_sweep.tasks.declared import (
    canonical,
    declared_task,
    describe_raw_inputs,
    find_declared_task_problems,
    without_normalise,
)
from orca_sweep.tasks.losses import LOSSES, Loss
from orca_sweep.tasks.measures import METRICS, Metric
from orca_sweep.tasks.records import Task, TaskData, alignment_labels, missing_files, task_data, unavailable

__all__ = [
    "LOSSES",
    "METRICS",
    "TASKS",
    "Loss",
    "Metric",
    "Task",
    "TaskData",
    "alignment_labels",
    "canonical_task",
    "describe_raw_inputs",
    "find_declared_task_problems",
    "find_task",
    "metric_facts",
    "missing_files",
    "task_data",
    "unavailable",
    "without_normalise",
]

TASKS: Registry[Task] = Registry("task")
for module in (embedded, nasbench360, vision, audio, protein, pdebench):
    for record in module.RECORDS:
        TASKS.add(record)


def find_task(name: str) -> Task:
    """Returns the task of a registered name, of ``openml:<id>``, or of a declaration of the user's own data.

    Raises:
        InputError: if the name is none of these, or a declaration is wrong.
    """
    if name in TASKS:
        return TASKS.get(name)
    if name.startswith((tabular.PREFIX, tabular.ORCA_PREFIX)):
        return tabular.openml_task(name)
    if is_task_text(name):
        task = declared_task(name)
        if task.name in TASKS:
            raise InputError(f"the name {task.name!r} is that of a registered task. Give the declaration another.")
        return task
    raise InputError(
        f"{TASKS.unknown(name)} Or openml:<id>, or data of your own: {{path, kind, sample_shape, output_shape}}."
    )


def metric_facts(task: Task) -> dict[str, str]:
    """Returns what a row of the trials table says of the task's metric: its name, mode and unit."""
    metric = METRICS.get(task.metric)
    return {"metric": metric.name, "metric_mode": metric.mode, "metric_unit": metric.unit}


def canonical_task(name: str) -> str:
    """Returns a task's one name: declared files become absolute (counted from the working folder)."""
    if name in TASKS or not is_task_text(name):
        return name
    try:
        return canonical(parse_task(name)).text
    except ValueError:
        return name
