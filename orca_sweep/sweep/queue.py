"""The agendas for Tune: a searcher that hands out trials, and a scheduler that prunes within cells.

Tune asks the searcher whenever it has room. So a trial exists for Tune only once it can really run: thousands of
planned trials cost the driver nothing, and none holds a slot while it waits for an artifact of another.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from orca_sweep.errors import StorageError
from orca_sweep.results import clear_attempt, now, usable_record, write_record
from orca_sweep.results.signs import read_sign, sign_path
from orca_sweep.space import PlannedTrial, Pruning
from orca_sweep.stats.modes import Mode, best_value
from orca_sweep.store import CorruptFileError, read_tensors
from orca_sweep.sweep.lanes import Lane
from orca_sweep.sweep.params import make_params
from orca_sweep.tasks import describe_metric
from orca_sweep.training.run import CHECKPOINT, drop_checkpoint
from orca_sweep.trial import Records

PASSED = "passed"
WAITING = "waiting"
DONE = "done"
UNWRITTEN = "unwritten"
SILENCE_S = 30.0
"""After so long without a start or an end of a trial, people are told what goes on."""
Need = tuple[tuple[str, float], ...]
"""The resources of one trial, to compare them."""


def freeze_need(need: Mapping[str, float]) -> Need:
    """Returns resources in a form that can be compared and hashed."""
    return tuple(sorted(need.items()))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A trial that Tune has."""

    lane: Lane
    trial: PlannedTrial
    started: str
    """When it started, for the records of pruned and lost trials, which write none themselves."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """Its reported epochs, for the record of a pruned trial."""


class Queue(Searcher):
    """Hands out the trials of the lanes, and reports to each lane how its trials end.

    A lane is asked only if no earlier lane has a trial that can run. So the places that one lane leaves idle, at its end or
    while its trials wait for an artifact, go to the next.
    """

    def __init__(self, lanes: Sequence[Lane], n_starts: int, slots: Mapping[Need, int]) -> None:
        """Makes a queue.

        Args:
            lanes: in the order in which they are asked.
            n_starts: how often Tune starts a trial before it counts as lost.
            slots: how many trials of each kind of resources may wait in Tune for a place, so that trials of one kind do not
                keep out those of another that could run.
        """
        super().__init__()
        self.lanes, self.n_starts, self.slots = lanes, n_starts, slots
        self.running: dict[str, Attempt] = {}
        """The trials that Tune has, by Tune's ids."""
        self.placeless: dict[str, Need] = {}
        """The resources of those that Tune has not started yet."""
        self.n_placeless: Counter[Need] = Counter()
        self.heard_s = time.monotonic()
        """When a trial last ended, or people were told what goes on."""
        self.unwritten: str | None = None
        """Why a record could not be written; then no more trials start."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searchers with its experiment state, which this package never restores.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Returns a trial for Tune, None if there is nothing to run now, or the end."""
        if self.unwritten is not None:
            return Searcher.FINISHED
        for lane in self.lanes:
            need = freeze_need(lane.need)
            trial = lane.agenda.next() if self.n_placeless[need] < self.slots[need] else None
            if trial is not None:
                self.placeless[trial_id] = need
                self.n_placeless[need] += 1
                return self._start_trial(trial_id, lane, trial)
        return Searcher.FINISHED if all(lane.agenda.is_over for lane in self.lanes) else None

    def _start_trial(self, tune_id: str, lane: Lane, trial: PlannedTrial) -> Any:
        trial_id = trial.trial_id
        self.running[tune_id] = Attempt(lane=lane, trial=trial, started=now())
        try:
            clear_attempt(lane.out, trial_id)
        except StorageError as error:
            self.unwritten = str(error)
            return Searcher.FINISHED
        lane.watch("run", {"trial_id": trial_id, "trial": trial})
        return make_params(
            trial,
            name=lane.name_trial(trial),
            space=lane.plan.space.name,
            lane=lane.number,
            attempt=lane.agenda.attempts[trial_id],
            reports_stages=lane.agenda.makes(trial_id),
        )

    def note_start(self, tune_id: str) -> None:
        """Notes that a trial has its place in the cluster."""
        need = self.placeless.pop(tune_id, None)
        if need is not None:
            self.n_placeless[need] -= 1

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Takes a report: a stage is done, or an epoch."""
        attempt, stage = self.running[trial_id], str(result.get("stage", ""))
        lane, trial = attempt.lane, attempt.trial
        if stage.startswith(PASSED):
            lane.agenda.passed(trial.trial_id, stage.removeprefix(f"{PASSED}:"))
        elif stage == "embedder":
            lane.agenda.passed(trial.trial_id, "objective")
        if stage == "finetune":
            attempt.epochs.append(_select_epoch(result))
        if stage in ("embedder", "finetune", "pretrain"):
            facts = {key: result.get(key) for key in ("stage", "epoch", "val_metric")}
            lane.watch("epoch", {"trial_id": trial.trial_id, **facts})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Takes a trial back from Tune: it has ended, waits, was pruned, or its worker is gone for good."""
        attempt = self.running.pop(trial_id)
        self.heard_s = time.monotonic()
        self.note_start(trial_id)  # if it never did
        lane, trial = attempt.lane, attempt.trial
        if not error and result is not None and result.get("stage") == WAITING:
            lane.agenda.waits(trial.trial_id, result["lock"])
            lane.watch("wait", {"trial_id": trial.trial_id})
            return
        if result is not None and result.get("stage") == UNWRITTEN:
            self.unwritten = result["why"]
            return
        if result is not None and result.get("stage") == "finetune":
            attempt.epochs.append(_select_epoch(result))  # the report after which a scheduler ended it comes only here
        try:
            self._end_trial(attempt, error)
        except StorageError as error:
            self.unwritten = str(error)

    def _end_trial(self, attempt: Attempt, error: bool) -> None:
        lane, trial = attempt.lane, attempt.trial
        lane.note_end()
        with suppress(OSError):
            sign_path(lane.out, trial.trial_id).unlink()
        record = usable_record(lane.out, trial.trial_id)
        if record is None:
            write_missing_record(attempt, self.n_starts if error else None)
            record = usable_record(lane.out, trial.trial_id) or {"row": _ids(trial, "lost")}
        row, again = record["row"], lane.agenda.retries_trial(trial.trial_id, record["row"])
        # Reported before the next trials are planned, and before siblings take the record.
        lane.watch("end", {**row, "again": again, "role": trial.role, "cell_id": trial.cell_id})
        lane.agenda.ended(trial.trial_id, row)

    def tell_still(self) -> None:
        """Tells each lane what its trials do, if nothing has been heard for a while."""
        if time.monotonic() - self.heard_s < SILENCE_S:
            return
        self.heard_s = time.monotonic()
        for lane in self.lanes:
            own = {tune_id: a.trial.trial_id for tune_id, a in self.running.items() if a.lane is lane}
            placed = [trial_id for tune_id, trial_id in own.items() if tune_id not in self.placeless]
            if own:
                signs = {trial_id: read_sign(lane.out, trial_id) for trial_id in placed}
                lane.watch("still", {"signs": signs, "n_without_place": len(own) - len(placed)})

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: our records say what is done, and Tune's state is never restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing."""


class StartNotes(Callback):
    """Tells the queue when trials get their places, and that time passes; Tune tells its searchers only of reports."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes a start."""
        self.queue.note_start(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tells what is still going on, now and then."""
        self.queue.tell_still()


def write_missing_record(attempt: Attempt, n_starts: int | None) -> None:
    """Writes the record of a trial that could not write it.

    Args:
        attempt: the trial.
        n_starts: how often its worker may have died; None if the scheduler ended the trial.

    Raises:
        StorageError: if it cannot be written.
    """
    trial, out = attempt.trial, attempt.lane.out
    times = {"started_at": attempt.started, "ended_at": now()}
    if n_starts is not None:
        text = f"its worker died or could not start, at most {n_starts} times"
        write_record(out, {**_ids(trial, "lost"), **times, "error": text}, attempt.epochs)
        return
    home = out / "trials" / trial.trial_id
    # Epochs of an earlier launch or a shared prefix were not reported; the latest may not be saved yet.
    known = {row["epoch"]: row for row in (*_read_saved_epochs(home / CHECKPOINT), *attempt.epochs)}
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
    write_record(out, row, epochs)
    drop_checkpoint(home)


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
    Everything else runs to its end. Trials of different lanes are never compared.
    """

    def __init__(self, rules: Sequence[Pruning | None]) -> None:
        """Takes the rule of each lane, by its number; None: its trials run to their ends."""
        super().__init__()
        self.rules = rules
        self.groups: dict[str, TrialScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accepts and ignores them: metric and mode are the task's."""
        return True

    def _find_group(self, trial: Any) -> TrialScheduler | None:
        params = trial.config
        lane, rule = params["lane"], self.rules[params["lane"]]
        if rule is None:
            return None
        task, seed = params["task"], params["seed"]
        if params["role"] == "search":
            key = f"{lane}/{params['cell_id']}/{seed}"
        elif rule.cells:
            key = f"{lane}/{task}/{seed}"
        else:
            return None
        if key not in self.groups:
            self.groups[key] = _make_scheduler(rule, Records().get_task(task).mode)
        return self.groups[key]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Adds a new trial of Tune to its group."""
        group = self._find_group(trial)
        if group is not None:
            group.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Returns whether the trial goes on."""
        group = self._find_group(trial)
        last = trial.config["finetune.epochs"]
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
        return f"pruning within {len(self.groups)} groups"


def _make_scheduler(rule: Pruning, mode: Mode) -> TrialScheduler:
    common: dict[str, Any] = {"time_attr": "epoch", "metric": "val_metric", "mode": mode}
    if rule.name == "median":
        # Never pause: that would only start the trial again elsewhere.
        return MedianStoppingRule(**common, grace_period=rule.grace_epochs, hard_stop=True, min_time_slice=10**9)
    return ASHAScheduler(
        **common,
        grace_period=rule.grace_epochs,
        reduction_factor=rule.reduction,
        # No limit: the trial itself knows its last epoch.
        max_t=10**6,
    )
