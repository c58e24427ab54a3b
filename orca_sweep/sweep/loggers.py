"""Ray Tune's callbacks for the ``loggers`` of a space.

They get what trials report in a form that each of them keeps whole. TensorBoard, MLflow and W&B draw a curve per name, so
numbers are named after their stage: ``finetune/val_metric``. A CSV file has the columns of its first line, so every line has
all columns. Parameters have dotted names (``finetune.lr``).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.tune import Callback
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback

from orca_sweep.errors import InputError, Problem
from orca_sweep.space import Logger, Space
from orca_sweep.sweep.checks import explain_unreachable
from orca_sweep.sweep.lanes import Lane
from orca_sweep.sweep.params import TAGS

STAGES = ("pretrain", "embedder", "finetune")
COLUMNS = (
    "stage", "epoch", "train_loss", "val_loss", "val_metric", "objective", "lr", "lr_integral", "n_steps", "n_trainable",
    "wall_time_s", "status", "val_metric_best", "val_metric_last",
)  # fmt: skip
"""Everything that trials report."""
GOOD_ENDS = ("ok", "pruned")


def make_callbacks(lanes: Sequence[Lane]) -> list[Callback]:
    """Returns the callbacks that write what trials report; those that need an account or a server have been started.

    Tune would add JSON, CSV and TensorBoard by itself. Measured over 800 reports on Ray 2.60, Tune itself takes
    0.8 ms of the driver per report, JSON 0.2 ms more, CSV 0.05 ms, TensorBoard 0.9 ms and 130 kB per 200 reports.
    So only JSON is on by default, and the launch switches Tune's own off. It is always on: Tune reads its own results
    back from it.

    Raises:
        InputError: if wandb or mlflow cannot start: no key, no server, a folder that cannot be written.
    """
    more = [
        LaneCallback(lane.number, logger.name, _start_logger(logger, lane.plan.space, lane.out))
        for lane in lanes
        for logger in lane.plan.space.loggers
        if logger.name != "json"
    ]
    return [JsonLoggerCallback(), *more]


class LaneCallback(Callback):
    """Passes on to a logger what happens to the trials of its lane, in the form that the logger keeps whole."""

    def __init__(self, lane: int, name: str, logger: Callback) -> None:
        self.lane, self.logger = lane, logger
        self.shape = shape_row if name == "csv" else name_by_stage

    def _is_own(self, trial: Any) -> bool:
        return bool(trial.config["lane"] == self.lane)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Passes on the start of a trial."""
        if self._is_own(trial):
            self.logger.on_trial_start(iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Passes on a report."""
        if self._is_own(trial):
            self.logger.on_trial_result(iteration, trials, trial, self.shape(result), **info)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Passes on the end of a trial; one that failed or diverged has failed for the logger too, though its worker lives."""
        if not self._is_own(trial):
            return
        status = (trial.last_result or {}).get("status", "ok")  # that of a pruned trial is not reported
        end = self.logger.on_trial_complete if status in GOOD_ENDS else self.logger.on_trial_error
        end(iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Passes on that a trial is lost."""
        if self._is_own(trial):
            self.logger.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Passes on the end of the launch."""
        self.logger.on_experiment_end([trial for trial in trials if self._is_own(trial)], **info)


def shape_row(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a report with all columns; those that it lacks are empty."""
    return {**dict.fromkeys(COLUMNS, ""), **result}


def name_by_stage(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a report whose own numbers are named after its stage, such as ``finetune/lr``; those of the end, ``end/...``."""
    own = {name: value for name, value in result.items() if name in COLUMNS}
    stage = own.pop("stage", None)
    group = stage if stage in STAGES else "end"
    rest = {name: value for name, value in result.items() if name not in COLUMNS}
    return {**rest, **{f"{group}/{name}": value for name, value in own.items()}}


def list_problems(space: Space) -> list[str | Problem]:
    """Returns why loggers of a space cannot start, as far as that can be known before Ray starts."""
    problems: list[str | Problem] = []
    for logger in space.loggers:
        if logger.name == "mlflow":
            uri = logger.settings.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or ""
            why = _explain_silence(uri)
            if why:
                problems.append(f"loggers: mlflow cannot start ({why}). Start the server, or correct tracking_uri.")
    return problems


def _start_logger(logger: Logger, space: Space, out: Path) -> Callback:
    try:
        callback = _make_callback(logger, space, out)
        callback.setup()
    except Exception as error:  # of any library, for a server, a file system or a missing key
        raise InputError(f"loggers: {logger.name} cannot start ({error}). Correct its settings or its login.") from None
    return callback


def _make_callback(logger: Logger, space: Space, out: Path) -> Callback:
    match logger.name:
        case "csv":
            return CSVLoggerCallback()
        case "tensorboard":
            return TBXLoggerCallback()
        case "wandb":
            from ray.air.integrations.wandb import WandbLoggerCallback  # imports wandb

            project, entity = logger.settings.get("project", space.name), logger.settings.get("entity")
            return WandbLoggerCallback(project=project, group=space.name, entity=entity, dir=str(out))
        case "mlflow":
            uri = logger.settings.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
            uri = uri or f"sqlite:///{out / 'mlflow.db'}"
            return _make_mlflow_callback(uri, logger.settings.get("experiment", space.name))
    raise ValueError(f"there is no logger {logger.name!r}")


def _make_mlflow_callback(uri: str, experiment: str) -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class TaggingCallback(MLflowLoggerCallback):
        """Tags each run with what says which trial it is."""

        def log_trial_start(self, trial: Any) -> None:
            self.tags = {name: str(trial.config[name]) for name in (*TAGS, "task", "seed")}
            super().log_trial_start(trial)

    return TaggingCallback(tracking_uri=uri, experiment_name=experiment)


def _explain_silence(uri: str) -> str | None:
    """Returns why no server answers at a URI, at once; mlflow would try for four minutes. None if one does, or it is a file."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        problem = explain_unreachable(parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme])
        if problem:
            return f"nothing answers at {uri}: {problem}"
    return None
