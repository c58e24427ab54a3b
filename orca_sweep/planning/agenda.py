"""What a sweep still has to run, and what comes next. No ray here: events in, trials out.

Three things decide what is next: what is tuned within a cell (its candidates first, then its replicates at its own
best), what is shared (of trials that need one stage artifact, one makes it while the others wait without holding
anything), and what the space allows (retries, budgets).
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.results import FINAL_STATUSES
from orca_sweep.space import OutcomeRule, Plan, PlannedTrial, Resolve, TunedCell, plan_trials, resolve_candidate
from orca_sweep.space.tuning import Settings, optuna_next
from orca_sweep.stats.modes import as_cost

Row = Mapping[str, Any]
Shared = Mapping[str, str]
"""Stage to the name of the artifact that a trial needs of it, in the order in which they are made."""


@dataclass
class _Cell:
    """The search within one cell."""

    tuned: TunedCell
    candidates: dict[str, TrialConfig]
    """By their cell id; of an adaptive search those asked for so far."""
    told: list[tuple[Settings, str]] = field(default_factory=list)
    """What an adaptive search asked for, with the candidate that it turned out to be."""
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    """Of each candidate by run seed; infinite for one that is not ok."""
    is_replicated: bool = False


class Agenda:
    """The trials of a plan in the order in which they can run.

    ``next`` gives a trial to start; every trial given must come back through ``ended`` or ``waits``.
    """

    def __init__(
        self,
        plan: Plan,
        read: Callable[[str], Row | None],
        resolve: Resolve,
        shared: Callable[[TrialConfig], Shared],
        is_held: Callable[[str], bool] = lambda path: False,
        planned: Callable[[Sequence[PlannedTrial]], None] = lambda trials: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes up a plan where the records say it is.

        Args:
            plan: the plan.
            read: a trial's row, if it has ended.
            resolve: turns settings into a config.
            shared: the stage artifacts that a trial needs.
            is_held: whether somebody outside this sweep still makes the artifact of this lock.
            planned: told of trials that were not in the plan.
            now: seconds of a clock.
        """
        self.plan, self.space = plan, plan.space
        self.read, self.resolve, self.shared, self.is_held, self.planned = read, resolve, shared, is_held, planned
        self.now, self.start = now, now()
        self.queue: dict[str, PlannedTrial] = {}
        self.known: dict[str, list[PlannedTrial]] = {}
        """What each trial is for: one may be the same work in two cells."""
        self.names: dict[str, Shared] = {}
        self.running: dict[str, PlannedTrial] = {}
        self.blocked: dict[str, str] = {}
        """Queued trials that found an artifact held by another sweep, with its lock."""
        self.makers: dict[str, str] = {}
        """Artifacts in the making, with the trial that makes them."""
        self.made: set[str] = set()
        self.ended_rows: dict[str, Row] = {}
        self.attempts: dict[str, int] = {}
        self.begun: set[str] = set()
        """Trials that were ever started, by this launch or an earlier one."""
        self.used_s = 0.0
        self.cells = {
            tuned.cell_id: _Cell(tuned, {config.cell_id: config for config in tuned.candidates}) for tuned in plan.tuned
        }
        self._add(plan.trials)
        for cell in self.cells.values():
            self._go_on(cell)

    # What is asked ----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to start and nothing runs."""
        return not self.running and (not self.queue or self.spent is not None)

    @property
    def spent(self) -> str | None:
        """Returns which budget is spent, in words, or None."""
        budget, resources = self.space.budget, self.space.resources
        hours = self.used_s / 3600
        uses = (
            ("trials", budget.trials, len(self.begun)),
            ("hours", budget.hours, (self.now() - self.start) / 3600),
            ("cpu_hours", budget.cpu_hours, hours * resources.cpu),
            ("gpu_hours", budget.gpu_hours, hours * resources.gpu),
        )
        for name, most, used in uses:
            if most is not None and used >= most:
                return f"budget.{name} = {most:g} is spent"
        return None

    @property
    def n_left(self) -> int:
        """Trials known to be run still, those running included."""
        return len(self.queue) + len(self.running)

    @property
    def unreplicated(self) -> list[str]:
        """Cells whose search has ended without a candidate that is ok, so that there is nothing to replicate."""
        return [i for i, cell in self.cells.items() if self._is_searched(cell) and not self._best(cell)]

    def next(self) -> PlannedTrial | None:
        """Returns a trial to start now, or None: because all is begun, held back or spent (see ``is_over``)."""
        if self.spent is not None:
            return None
        for trial_id, trial in self.queue.items():
            lock = self.blocked.get(trial_id)
            if lock is not None and self.is_held(lock):
                continue
            names = self.names[trial_id].values()
            if any(self.makers.get(name, trial_id) != trial_id for name in names):
                continue
            self.blocked.pop(trial_id, None)
            del self.queue[trial_id]
            self.makers |= {name: trial_id for name in names if name not in self.made}
            self.running[trial_id] = trial
            self.attempts[trial_id] = self.attempts.get(trial_id, 0) + 1
            self.begun.add(trial_id)
            return trial
        return None

    def makes(self, trial_id: str) -> bool:
        """Whether others may wait for what a running trial makes, so that it should tell when it has."""
        return trial_id in self.makers.values()

    # What is told -----------------------------------------------------------------------------

    def passed(self, trial_id: str, stage: str) -> None:
        """A running trial has the artifacts of a stage and of those before it, made or found."""
        for made, name in self.names[trial_id].items():
            if self.makers.get(name) == trial_id:
                self.made.add(name)
                del self.makers[name]
            if made == stage:
                return

    def waits(self, trial_id: str, lock: str) -> None:
        """A trial gave its place up because another sweep makes what it needs; it is begun again when the lock is free."""
        trial = self.running.pop(trial_id)
        self._release(trial_id)
        self.attempts[trial_id] -= 1
        self.blocked[trial_id] = lock
        self.queue[trial_id] = trial

    def ended(self, trial_id: str, row: Row) -> bool:
        """A trial has ended with a row; returns whether it will be tried again."""
        trial = self.running.pop(trial_id)
        if row["status"] == "ok":
            self.passed(trial_id, "all")
        self._release(trial_id)
        self.used_s += row.get("wall_time_s") or 0.0
        if self.attempts[trial_id] <= self._rule(row["status"]).retry and row["status"] != "ok":
            self.queue[trial_id] = trial
            return True
        self._record(trial_id, row)
        return False

    def _release(self, trial_id: str) -> None:
        self.makers = {name: maker for name, maker in self.makers.items() if maker != trial_id}

    def _rule(self, status: str) -> OutcomeRule:
        return self.space.outcomes.get(status, OutcomeRule())  # type: ignore[call-overload]

    # Tuning -----------------------------------------------------------------------------------

    def _add(self, trials: Iterable[PlannedTrial]) -> None:
        """Queues what has no final record; of trials that share an embedder run, the longest comes first."""
        new: dict[str, PlannedTrial] = {}
        for trial in trials:
            uses = self.known.setdefault(trial.trial_id, [])
            if not uses:
                new[trial.trial_id] = trial
            if trial not in uses:
                uses.append(trial)
                row = self.ended_rows.get(trial.trial_id)
                if row is not None:
                    self._score(trial, row)
        self.names |= {trial_id: self.shared(trial.config) for trial_id, trial in new.items()}
        for trial in _longest_first(list(new.values()), self.names):
            row = self.read(trial.trial_id)
            if row is not None:
                self.begun.add(trial.trial_id)
                self.used_s += row.get("wall_time_s") or 0.0
            if row is not None and row["status"] in FINAL_STATUSES:
                self._record(trial.trial_id, row, goes_on=False)
            else:
                self.queue[trial.trial_id] = trial

    def _record(self, trial_id: str, row: Row, goes_on: bool = True) -> None:
        """Tells the cells that a trial is for how it has ended."""
        self.ended_rows[trial_id] = row
        for trial in self.known[trial_id]:
            self._score(trial, row)
        for cell_id in dict.fromkeys(t.cell_id for t in self.known[trial_id] if goes_on and t.role == "search"):
            self._go_on(self.cells[cell_id])

    def _score(self, trial: PlannedTrial, row: Row) -> None:
        if trial.role != "search":
            return
        cell = self.cells[trial.cell_id]
        # A cost: the metric, turned so that lower is better.
        value = row.get("val_metric_best") if row["status"] in ("ok", "pruned") else None
        score = math.inf
        if isinstance(value, int | float) and math.isfinite(value):
            score = as_cost(value, row.get("metric_mode") or "min")
        cell.scores.setdefault(trial.config.cell_id, {})[trial.seed] = score

    def _go_on(self, cell: _Cell) -> None:
        """Asks for the cell's next candidates, or, when all are done, for its replicates."""
        while self._is_scored(cell) and not self._has_asked(cell):
            self._ask(cell)
        if self._is_searched(cell) and not cell.is_replicated:
            cell.is_replicated = True
            best = self._best(cell)
            if best is not None:
                self._plan(self._replicates(cell.tuned.cell_id, best))

    def _replicates(self, cell_id: str, config: TrialConfig) -> list[PlannedTrial]:
        """A cell's replicates; of the first cell the A/A cell too."""
        again = self.space.aa if cell_id == self.plan.tuned[0].cell_id else ()
        return [*plan_trials(cell_id, config, self.space.seeds), *plan_trials(f"{cell_id}-aa", config, again, "aa")]

    def _ask(self, cell: _Cell) -> None:
        told = [(settings, self._mean(cell, name)) for settings, name in cell.told]
        search = self.space.search
        settings = optuna_next(self.space.tune, told, search.sampler_seed, cell.tuned.cell_id)
        config = resolve_candidate(cell.tuned.settings, settings, self.resolve)
        cell.told.append((settings, config.cell_id))
        if config.cell_id not in cell.candidates:
            cell.candidates[config.cell_id] = config
            self._plan(plan_trials(cell.tuned.cell_id, config, search.seeds, "search"))

    def _plan(self, trials: Sequence[PlannedTrial]) -> None:
        self.planned(trials)
        self._add(trials)

    def _is_scored(self, cell: _Cell) -> bool:
        n = len(self.space.search.seeds)
        return all(len(cell.scores.get(name, {})) == n for name in cell.candidates)

    def _is_searched(self, cell: _Cell) -> bool:
        return self._has_asked(cell) and self._is_scored(cell)

    def _has_asked(self, cell: _Cell) -> bool:
        """Whether all candidates are known: those of an adaptive search are asked for one by one."""
        search = self.space.search
        return search.method != "optuna" or len(cell.told) >= (search.n_candidates or 0)

    def _mean(self, cell: _Cell, name: str) -> float:
        """A candidate's mean cost over its seeds; infinite if one of them is not ok."""
        scores = cell.scores.get(name, {}).values()
        return sum(scores) / len(scores) if scores else math.inf

    def _best(self, cell: _Cell) -> TrialConfig | None:
        """The candidate of the lowest mean cost, the first of equals, if one has any."""
        name = min(cell.candidates, key=lambda name: self._mean(cell, name))
        return cell.candidates[name] if math.isfinite(self._mean(cell, name)) else None


def _longest_first(trials: Sequence[PlannedTrial], names: Mapping[str, Shared]) -> list[PlannedTrial]:
    """The trials, those of one embedder run by falling length within their places: one run then serves them all."""
    places: dict[str, list[int]] = {}
    for place, trial in enumerate(trials):
        name = names[trial.trial_id].get("embedder")
        if name is not None:
            places.setdefault(name, []).append(place)
    ordered = list(trials)
    for same in places.values():
        longest = sorted((trials[place] for place in same), key=lambda trial: -trial.config.embedder.epochs)
        for place, trial in zip(same, longest, strict=True):
            ordered[place] = trial
    return ordered
