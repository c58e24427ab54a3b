"""The agenda for Tune: a searcher that hands out trials, and a scheduler that prunes within cells.

Tune asks the searcher whenever it has room. So a trial exists for Tune only once it can really run: thousands of
planned trials cost the driver nothing, and none holds a slot while it waits for an artifact of another.
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
"""Receives the events damaged, start, planned, run, epoch, wait and end, each with its facts."""
PASSED = "passed"
WAITING = "waiting"
DONE = "done"
UNWRITTEN = "unwritten"


class Queue(Searcher):
    """Hands out the agenda's trials, and reports to it how they end."""

    def __init__(self, agenda: Agenda, out: Path, watch: Watch, n_starts: int) -> None:
        super().__init__()
        self.agenda, self.out, self.watch, self.n_starts = agenda, out, watch, n_starts
        self.running: dict[str, PlannedTrial] = {}
        """The trials that Tune has, by Tune's ids."""
        self.started: dict[str, str] = {}
        """When each of them started, for the records of pruned and lost trials, which write none themselves."""
        self.epochs: dict[str, list[dict[str, Any]]] = {}
        """Their reported epochs, for the records of pruned trials."""
        self.unwritten: str | None = None
        """Why a record could not be written; then no more trials start."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searchers with its experiment state, which this package never restores.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Returns a trial for Tune, None if there is nothing to run now, or the end."""
        if self.unwritten is not None:
            return Searcher.FINISHED
        trial = self.agenda.next()
        if trial is None:
            return Searcher.FINISHED if self.agenda.is_over else None
        self.running[trial_id], self.started[trial_id] = trial, now()
        self.epochs[trial_id] = []
        try:
            clear_attempt(self.out, trial.trial_id)
        except StorageError as error:
            self.unwritten = str(error)
            return Searcher.FINISHED
        self.watch("run", {"trial_id": trial.trial_id, "trial": trial})
        return {
            "trial": {
                "trial_id": trial.trial_id,
                "cell_id": trial.cell_id,
                "role": trial.role,
                "attempt": self.agenda.attempts[trial.trial_id],
                "reports_stages": self.agenda.makes(trial.trial_id),
                "config": trial.config.model_dump(),
            }
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Takes a report: a stage is done, or an epoch."""
        trial, stage = self.running[trial_id], str(result.get("stage", ""))
        if stage.startswith(PASSED):
            self.agenda.passed(trial.trial_id, stage.removeprefix(f"{PASSED}:"))
        elif stage == "embedder":
            self.agenda.passed(trial.trial_id, "objective")
        if stage == "finetune":
            self.epochs[trial_id].append(_select_epoch(result))
        if stage in ("embedder", "finetune", "pretrain"):
            facts = {key: result.get(key) for key in ("stage", "epoch", "val_metric")}
            self.watch("epoch", {"trial_id": trial.trial_id, **facts})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Takes a trial back from Tune: it has ended, waits, was pruned, or its worker is gone for good."""
        trial, epochs, started = self.running.pop(trial_id), self.epochs.pop(trial_id), self.started.pop(trial_id)
        if not error and result is not None and result.get("stage") == WAITING:
            self.agenda.waits(trial.trial_id, result["lock"])
            self.watch("wait", {"trial_id": trial.trial_id})
            return
        if result is not None and result.get("stage") == UNWRITTEN:
            self.unwritten = result["why"]
            return
        if result is not None and result.get("stage") == "finetune":
            epochs.append(_select_epoch(result))  # the report after which a scheduler ended it comes only here
        try:
            self._end_trial(trial, epochs, started, error)
        except StorageError as error:
            self.unwritten = str(error)

    def _end_trial(self, trial: PlannedTrial, epochs: list[dict[str, Any]], started: str, error: bool) -> None:
        record = usable_record(self.out, trial.trial_id)
        if record is None:
            self._write_missing_record(trial, epochs, started, error)
            record = usable_record(self.out, trial.trial_id) or {"row": _ids(trial, "lost")}
        again = self.agenda.ended(trial.trial_id, record["row"])
        self.watch("end", {**record["row"], "again": again, "role": trial.role, "cell_id": trial.cell_id})

    def _write_missing_record(
        self, trial: PlannedTrial, epochs: list[dict[str, Any]], started: str, error: bool
    ) -> None:
        """Writes the record of a trial that could not write it: its worker died, or the scheduler ended it."""
        times = {"started_at": started, "ended_at": now()}
        if error:
            text = f"its worker died or could not start, at most {self.n_starts} times"
            write_record(self.out, {**_ids(trial, "lost"), **times, "error": text}, epochs)
            return
        home = self.out / "trials" / trial.trial_id
        # Epochs of an earlier launch or a shared prefix were not reported; the latest may not be saved yet.
        known = {row["epoch"]: row for row in (*_read_saved_epochs(home / CHECKPOINT), *epochs)}
        epochs = [known[epoch] for epoch in sorted(known)]
        values = [e["val_metric"] for e in epochs if e["val_metric"] is not None and math.isfinite(e["val_metric"])]
        row: dict[str, Any] = {
            **_ids(trial, "pruned"),
            **describe_metric(Records().get_task(trial.config.task)),
            **times,
            "wall_time_s": sum(e["wall_time_s"] or 0.0 for e in epochs),
        }
        if values:
            row |= {"val_metric_best": best_value(values, row["metric_mode"]), "val_metric_last": values[-1]}
        last = epochs[-1]["epoch"] if epochs else 0
        row["error"] = f"pruned after fine-tuning epoch {last}: other trials of its group did better"
        write_record(self.out, row, epochs)
        drop_checkpoint(home)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: our records say what is done, and Tune's state is never restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing."""


def _select_epoch(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("stage", "epoch", "train_loss", "val_loss", "val_metric", "lr", "lr_integral", "n_steps",
            "n_trainable", "wall_time_s")  # fmt: skip
    return {key: result.get(key) for key in kept}


def _read_saved_epochs(checkpoint: Path) -> list[dict[str, Any]]:
    """Returns all epochs in the checkpoint of a trial."""
    try:
        return list(read_tensors(str(checkpoint)).meta.get("epochs", ()))
    except (FileNotFoundError, CorruptFileError):
        return []


def _ids(trial: PlannedTrial, status: str) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "cell_id": trial.cell_id, "status": status}


class GroupedPruning(TrialScheduler):
    """One of Ray's schedulers for each group of trials that may be compared, counted in fine-tuning epochs.

    Candidates are compared within their cell; with ``cells``, replicates are compared within their task and seed.
    Everything else runs to its end.
    """

    def __init__(self, settings: Pruning) -> None:
        super().__init__()
        self.settings = settings
        self.groups: dict[str, TrialScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accepts and ignores them: metric and mode are the task's."""
        return True

    def _find_group(self, trial: Any) -> TrialScheduler | None:
        planned = trial.config["trial"]
        task, seed = planned["config"]["task"], planned["config"]["seed"]
        if planned["role"] == "search":
            key = f"{planned['cell_id']}/{seed}"
        elif self.settings.cells:
            key = f"{task}/{seed}"
        else:
            return None
        if key not in self.groups:
            self.groups[key] = self._make_scheduler(Records().get_task(task).mode)
        return self.groups[key]

    def _make_scheduler(self, mode: Mode) -> TrialScheduler:
        common: dict[str, Any] = {"time_attr": "epoch", "metric": "val_metric", "mode": mode}
        if self.settings.name == "median":
            # Never pause: that would only start the trial again elsewhere.
            return MedianStoppingRule(
                **common, grace_period=self.settings.grace_epochs, hard_stop=True, min_time_slice=10**9
            )
        return ASHAScheduler(
            **common,
            grace_period=self.settings.grace_epochs,
            reduction_factor=self.settings.reduction,
            # No limit: the trial itself knows its last epoch.
            max_t=10**6,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Adds a new trial of Tune to its group."""
        group = self._find_group(trial)
        if group is not None:
            group.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Returns whether the trial goes on."""
        group = self._find_group(trial)
        last = trial.config["trial"]["config"]["finetune"]["epochs"]
        if group is None or result.get("stage") != "finetune" or result["epoch"] >= last:
            return str(TrialScheduler.CONTINUE)
        return str(group.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Does nothing: the last report of a trial is not an epoch."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tells the group that a trial is lost."""
        group = self._find_group(trial)
        if group is not None:
            group.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Does nothing: Tune has dropped a trial that had not ended."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the next waiting trial, in order."""
        return tune.schedulers.FIFOScheduler().choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """Returns what Tune may print about the scheduler."""
        return f"{self.settings.name} within {len(self.groups)} groups"
