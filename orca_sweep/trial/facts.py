"""The facts of a trial's records that decide when its knobs act, as fields of ``Facts``."""

from pathlib import Path
from typing import Any

from orca_sweep.bodies import Body
from orca_sweep.config import Facts, read_facts
from orca_sweep.objectives import Objective
from orca_sweep.proxies import Proxy
from orca_sweep.tasks import Task
from orca_sweep.trial.records import KnownRecords, ResolvedTrial


def read_trial_facts(trial: ResolvedTrial) -> Facts:
    """Returns the facts of a trial's config and of the records that it names."""
    known = KnownRecords(task=trial.task, body=trial.body, proxy=trial.proxy, objective=trial.objective)
    return read_facts(trial.config.flat(), **describe_records(known))


def describe_records(records: KnownRecords) -> dict[str, Any]:
    """Returns the facts of the records that a trial's settings name."""
    task, body, proxy, objective = records.task, records.body, records.proxy, records.objective
    facts = {} if objective is None else _describe_objective(objective)
    if task is not None:
        facts |= _describe_task(task)
    if body is not None:
        facts |= _describe_body(body)
    if body is not None and proxy is not None:
        facts |= _describe_proxy(proxy, body)
    return facts


def _describe_objective(objective: Objective) -> dict[str, Any]:
    return {
        "objective_settings": objective.settings,
        "objective_sees_labels": objective.sees_proxy_labels,
        "published_label_gradient": objective.settings.get("label_gradient"),
    }


def _describe_task(task: Task) -> dict[str, Any]:
    return {
        "task_kind": task.kind,
        "task_dims": task.dims,
        "task_channels": task.sample_shape[0],
        "task_augments": task.augments,
        "task_has_codes": task.codes,
    }


def _describe_body(body: Body) -> dict[str, Any]:
    is_folder = body.location is not None and Path(body.location).is_dir()
    is_safe = body.pretrain is not None or body.package is not None or (is_folder and not body.only_pickle)
    return {
        "body_dims": body.dims,
        "body_architecture": body.architecture,
        "body_channels": body.n_channels,
        "body_is_made_here": body.pretrain is not None,
        "body_may_be_pickled": not is_safe,
    }


def _describe_proxy(proxy: Proxy, body: Body) -> dict[str, Any]:
    return {
        "proxy_has_images": body.dims != 1 and proxy.kind != "text" and proxy.form != "features",
        "proxy_has_tags": body.dims != 2 and proxy.kind not in ("image", "any") and proxy.form in ("tagged", None),
    }
