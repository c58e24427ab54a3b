"""The agenda as Tune sees it: a searcher that hands out trials, and a scheduler that prunes within cells.

Tune asks the searcher whenever it has room. So a trial exists for Tune only once it can really run: thousands of
planned ones cost the driver nothing, and none holds a slot while it waits for what another makes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from orca_sweep.errors import StorageError
from orca_sweep.planning.agenda import Agenda
from orca_sweep.results import clear_attempt, now, usable_record, write_record
from orca_sweep.space import PlannedTrial, Pruning
from orca_sweep.stats.modes import Mode, best_value
from orca_sweep.store import CorruptFileError, read_tensors
from orca_sweep.tasks import describe_metric
from orca_sweep.training.run import CHECKPOINT, drop_checkpoint
from orca_sweep.trial import Records

Watch = Callable[[str, Mapping[str, Any]], None]
"""Told of events: damaged, start, planned, run, epoch, wait and end, each with what there is to know."""
PASSED = "passed"
WAITING = "waiting"
DONE = "done"
UNWRITTEN = "unwritten"


class Queue(Searcher):
    """Hands out the agenda's trials, and tells it what becomes of them."""

    def __init__(self, agenda: Agenda, out: Path, watch: Watch, n_starts: int) -> None:
        super().__init__()
        self.agenda, self.out, self.watch, self.n_starts = agenda, out, watch, n_starts
        self.given: dict[str, PlannedTrial] = {}
        self.begun: dict[str, str] = {}
        """When each of these began: what is pruned or lost cannot say it itself."""
        self.epochs: dict[str, list[dict[str, Any]]] = {}
        """Of running trials, as reported: what is left of one that is pruned."""
        self.unwritten: str | None = None
        """Why a record could not be written: then nothing more is started."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searchers with its experiment state, which is never restored here.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Gives Tune a trial, nothing for now, or the end."""
        if self.unwritten is not None:
            return Searcher.FINISHED
        trial = self.agenda.next()
        if trial is None:
            return Searcher.FINISHED if self.agenda.is_over else None
        self.given[trial_id], self.begun[trial_id] = trial, now()
        self.epochs[trial_id] = []
        try:
            clear_attempt(self.out, trial.trial_id)
        except StorageError as refused:
            self.unwritten = str(refused)
            return Searcher.FINISHED
        self.watch("run", {"trial_id": trial.trial_id})
        return {
            "trial": {
                "trial_id": trial.trial_id,
                "cell_id": trial.cell_id,
                "role": trial.role,
                "attempt": self.agenda.attempts[trial.trial_id],
                "tells": self.agenda.makes(trial.trial_id),
                "config": trial.config.model_dump(),
            }
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A stage is passed, or an epoch done."""
        trial, stage = self.given[trial_id], str(result.get("stage", ""))
        if stage.startswith(PASSED):
            self.agenda.passed(trial.trial_id, stage.removeprefix(f"{PASSED}:"))
        elif stage == "embedder":
            self.agenda.passed(trial.trial_id, "objective")
        if stage == "finetune":
            self.epochs[trial_id].append(_epoch(result))
        if stage in ("embedder", "finetune", "pretrain"):
            told = {key: result.get(key) for key in ("stage", "epoch", "val_metric")}
            self.watch("epoch", {"trial_id": trial.trial_id, **told})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial is no longer Tune's: it has ended, waits, was pruned, or its worker is gone for good."""
        trial, epochs, begun = self.given.pop(trial_id), self.epochs.pop(trial_id), self.begun.pop(trial_id)
        if not error and result is not None and result.get("stage") == WAITING:
            self.agenda.waits(trial.trial_id, result["lock"])
            self.watch("wait", {"trial_id": trial.trial_id})
            return
        if result is not None and result.get("stage") == UNWRITTEN:
            self.unwritten = result["why"]
            return
        if result is not None and result.get("stage") == "finetune":
            epochs.append(_epoch(result))  # the report on which a scheduler ended it comes here alone
        try:
            self._ended(trial, epochs, begun, error)
        except StorageError as refused:
            self.unwritten = str(refused)

    def _ended(self, trial: PlannedTrial, epochs: list[dict[str, Any]], begun: str, error: bool) -> None:
        record = usable_record(self.out, trial.trial_id)
        if record is None:
            self._write_instead(trial, epochs, begun, error)
            record = usable_record(self.out, trial.trial_id) or {"row": _ids(trial, "lost")}
        again = self.agenda.ended(trial.trial_id, record["row"])
        self.watch("end", {**record["row"], "again": again, "role": trial.role, "cell_id": trial.cell_id})

    def _write_instead(self, trial: PlannedTrial, epochs: list[dict[str, Any]], begun: str, error: bool) -> None:
        """The record of a trial that could write none: its worker died, or the scheduler ended it."""
        when = {"started_at": begun, "ended_at": now()}
        if error:
            text = f"its worker died or could not start, at most {self.n_starts} times"
            write_record(self.out, {**_ids(trial, "lost"), **when, "error": text}, epochs)
            return
        home = self.out / "trials" / trial.trial_id
        # Those of an earlier launch, or of a shared prefix, were not reported; the latest may not be saved yet.
        known = {row["epoch"]: row for row in (*_saved(home / CHECKPOINT), *epochs)}
        epochs = [known[epoch] for epoch in sorted(known)]
        values = [e["val_metric"] for e in epochs if e["val_metric"] is not None and math.isfinite(e["val_metric"])]
        row: dict[str, Any] = {
            **_ids(trial, "pruned"),
            **describe_metric(Records().get_task(trial.config.task)),
            **when,
            "wall_time_s": sum(e["wall_time_s"] or 0.0 for e in epochs),
        }
        if values:
            row |= {"val_metric_best": best_value(values, row["metric_mode"]), "val_metric_last": values[-1]}
        last = epochs[-1]["epoch"] if epochs else 0
        row["error"] = f"pruned after fine-tuning epoch {last}: others of its group did better"
        write_record(self.out, row, epochs)
        drop_checkpoint(home)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: our own records say what is done, and Tune's state is never restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def _epoch(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("stage", "epoch", "train_loss", "val_loss", "val_metric", "lr", "lr_integral", "n_steps",
            "n_trainable", "wall_time_s")  # fmt: skip
    return {key: result.get(key) for key in kept}


def _saved(checkpoint: Path) -> list[dict[str, Any]]:
    """All epochs of a trial that was ended: those of an earlier launch or a shared prefix were not reported to Tune."""
    try:
        return list(read_tensors(str(checkpoint)).meta.get("epochs", ()))
    except (FileNotFoundError, CorruptFileError):
        return []


def _ids(trial: PlannedTrial, status: str) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "cell_id": trial.cell_id, "status": status}


class GroupedPruning(TrialScheduler):
    """One of Ray's schedulers per group of trials that may be compared, counted in fine-tuning epochs.

    Candidates are compared with those of their own cell; with ``cells`` the replicates too, with those of their task
    and seed. Everything else runs to its end.
    """

    def __init__(self, settings: Pruning) -> None:
        super().__init__()
        self.settings = settings
        self.groups: dict[str, TrialScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Metric and mode are the task's."""
        return True

    def _group(self, trial: Any) -> TrialScheduler | None:
        told = trial.config["trial"]
        if told["role"] == "search":
            key = f"{told['cell_id']}/{told['config']['seed']}"
        elif self.settings.cells:
            key = f"{told['config']['task']}/{told['config']['seed']}"
        else:
            return None
        if key not in self.groups:
            self.groups[key] = self._scheduler(Records().get_task(told["config"]["task"]).mode)
        return self.groups[key]

    def _scheduler(self, mode: Mode) -> TrialScheduler:
        common: dict[str, Any] = {"time_attr": "epoch", "metric": "val_metric", "mode": mode}
        if self.settings.name == "median":
            # Pausing would only start a trial again elsewhere: never.
            return MedianStoppingRule(
                **common, grace_period=self.settings.grace_epochs, hard_stop=True, min_time_slice=10**9
            )
        return ASHAScheduler(
            **common,
            grace_period=self.settings.grace_epochs,
            reduction_factor=self.settings.reduction,
            # No end of ours: the trial itself knows its last epoch.
            max_t=10**6,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune has a new trial."""
        group = self._group(trial)
        if group is not None:
            group.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Says whether the trial goes on."""
        group = self._group(trial)
        last = trial.config["trial"]["config"]["finetune"]["epochs"]
        if group is None or result.get("stage") != "finetune" or result["epoch"] >= last:
            return str(TrialScheduler.CONTINUE)
        return str(group.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tune's trial has ended; its last report is no epoch and is not passed on."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tune's trial is lost."""
        group = self._group(trial)
        if group is not None:
            group.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Tune has dropped a trial that had not ended."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next one that waits, in order."""
        return tune.schedulers.FIFOScheduler().choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """What Tune may print of it."""
        return f"{self.settings.name} within {len(self.groups)} groups"
