"""What a sweep still has to run, and what comes next. No ray here: events in, trials out.

Three things decide what comes next:

- tuning within a cell: its candidates run first, then its replicates at its own best candidate;
- sharing: of the trials that need the same stage artifact, one makes it while the rest wait without holding resources;
- the limits of the space: retries and budgets.

The agendas of a launch with several plans share a `Workshop`: an artifact that one of them makes, the others wait for, and of
equal trials in several plans one runs, and the others take its record.
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
"""Maps each stage to the name of the artifact that a trial needs from it, in the order in which they are made."""


@dataclass(frozen=True, kw_only=True)
class AgendaHooks:
    """What an agenda asks of the sweep around it, and what it reports to it."""

    read_row: Callable[[str], Row | None]
    """Returns a trial's recorded row, or None; a row whose status is not final is run again."""
    resolve: Resolve
    """Turns settings into a config."""
    name_shared: Callable[[TrialConfig], Shared]
    """Names the stage artifacts that a trial needs."""
    is_held: Callable[[str], bool] = lambda lock: False
    """Whether another sweep is still making the artifact behind this lock."""
    report_planned: Callable[[Sequence[PlannedTrial]], None] = lambda trials: None
    """Called with trials that were not in the plan."""
    take_record: Callable[[PlannedTrial, str], Row | None] = lambda trial, sibling: None
    """Takes a trial's record from the sibling of this name and returns its row with ``taken_from``; None if it cannot."""
    now: Callable[[], float] = time.monotonic
    """Monotonic time in seconds."""


class Workshop:
    """What the agendas of one launch share; each of them plans for a sweep of its own."""

    def __init__(self) -> None:
        self.agendas: list[Agenda] = []
        self.makers: dict[str, str] = {}
        """Artifacts in the making, with the trial that makes them. No trial runs in two agendas at once."""
        self.made: set[str] = set()
        self.running: set[str] = set()
        self.n_changes = 0
        """Counts what may let a waiting trial start: an agenda with nothing to start need not look again before."""


class _Clock:
    """The time during which at least one trial runs."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.before_s = now, 0.0
        self.since: float | None = None

    def read_seconds(self) -> float:
        return self.before_s + (0.0 if self.since is None else self.now() - self.since)

    def run_while(self, is_running: bool) -> None:
        """Starts or stops the clock; does nothing if it runs or stands already."""
        if is_running != (self.since is not None):
            self.before_s, self.since = self.read_seconds(), self.now() if is_running else None


@dataclass(kw_only=True)
class _CellSearch:
    """The search within one cell."""

    tuned: TunedCell
    candidates: dict[str, TrialConfig]
    """By cell id; an adaptive search adds them one at a time."""
    asked: list[tuple[Settings, str]] = field(default_factory=list)
    """The settings that an adaptive search asked for, each with the cell id of the candidate that it became."""
    costs: dict[str, dict[int, float]] = field(default_factory=dict)
    """Cost of each candidate by run seed; infinite unless the trial is ok or pruned with a finite metric."""
    is_replicated: bool = False


class Agenda:
    """The trials of a plan in the order in which they can run.

    ``next`` returns a trial to start; each of these trials must come back through ``ended`` or ``waits``.
    """

    def __init__(self, plan: Plan, hooks: AgendaHooks, workshop: Workshop | None = None) -> None:
        """Starts a plan where its records left off; several plans of one launch share a workshop."""
        self.plan, self.space = plan, plan.space
        self.hooks, self.clock = hooks, _Clock(hooks.now)
        self.workshop = workshop or Workshop()
        self.workshop.agendas.append(self)
        self.queue: dict[str, PlannedTrial] = {}
        self.known: dict[str, list[PlannedTrial]] = {}
        """The uses of each trial: two cells may need the same work."""
        self.names: dict[str, Shared] = {}
        self.running: dict[str, PlannedTrial] = {}
        self.blocked: dict[str, str] = {}
        """Queued trials that wait for an artifact of another sweep, with its lock."""
        self.makers, self.made = self.workshop.makers, self.workshop.made
        self.ended_rows: dict[str, Row] = {}
        self.attempts: dict[str, int] = {}
        self.begun: set[str] = set()
        """Trials that this launch or an earlier one has started here; those taken from siblings do not count."""
        self.used_s = 0.0
        self.cells = {
            tuned.cell_id: _CellSearch(tuned=tuned, candidates={config.cell_id: config for config in tuned.candidates})
            for tuned in plan.tuned
        }
        self.idle_since: int | None = None
        """The count of changes at which no trial could start."""
        self._queue_trials(plan.trials)
        for cell in self.cells.values():
            self._advance_search(cell)

    # Questions --------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing more will be started: no trial is left, or a budget is spent."""
        return not self.running and (not self.queue or self.spent is not None)

    @property
    def spent(self) -> str | None:
        """A message that names the spent budget, or None.

        Hours are those of this launch in which trials of this plan run; all else counts over all launches.
        """
        budget, resources = self.space.budget, self.space.resources
        hours = self.used_s / 3600
        uses = (
            ("trials", budget.trials, len(self.begun)),
            ("hours", budget.hours, self.clock.read_seconds() / 3600),
            ("cpu_hours", budget.cpu_hours, hours * resources.cpu),
            ("gpu_hours", budget.gpu_hours, hours * resources.gpu),
        )
        for name, most, used in uses:
            if most is not None and used >= most:
                return f"budget.{name} = {most:g} is spent"
        return None

    @property
    def n_left(self) -> int:
        """Trials that have not ended, as far as they are planned yet."""
        return len(self.queue) + len(self.running)

    @property
    def unreplicated(self) -> list[str]:
        """Cells whose search ended without a candidate that is ok, so there is nothing to replicate."""
        return [i for i, cell in self.cells.items() if self._is_searched(cell) and not self._find_best(cell)]

    def next(self) -> PlannedTrial | None:
        """Returns a trial to start now; None if all have begun, the rest must wait, or a budget is spent (``is_over``)."""
        if self.spent is not None or (self.idle_since == self.workshop.n_changes and not self.blocked):
            return None
        for trial_id, trial in self.queue.items():
            if trial_id in self.workshop.running:
                continue  # a sibling runs it
            lock = self.blocked.get(trial_id)
            if lock is not None and self.hooks.is_held(lock):
                continue
            names = self.names[trial_id].values()
            if any(self.makers.get(name, trial_id) != trial_id for name in names):
                continue
            self.blocked.pop(trial_id, None)
            del self.queue[trial_id]
            self.makers |= {name: trial_id for name in names if name not in self.made}
            self._note_running(trial_id, trial)
            self.attempts[trial_id] = self.attempts.get(trial_id, 0) + 1
            self.begun.add(trial_id)
            return trial
        self.idle_since = self.workshop.n_changes
        return None

    def _note_running(self, trial_id: str, trial: PlannedTrial) -> None:
        self.running[trial_id] = trial
        self.workshop.running.add(trial_id)
        self.clock.run_while(True)

    def _note_back(self, trial_id: str) -> PlannedTrial:
        """Takes a trial back that no longer runs, and frees the artifacts that it was making."""
        trial = self.running.pop(trial_id)
        self.workshop.running.remove(trial_id)
        self.workshop.n_changes += 1
        self.clock.run_while(bool(self.running))
        for name in [name for name, maker in self.makers.items() if maker == trial_id]:
            del self.makers[name]
        return trial

    def makes(self, trial_id: str) -> bool:
        """Whether other trials may wait for an artifact of a running trial, so that it should report its stages."""
        return trial_id in self.makers.values()

    # Events -----------------------------------------------------------------------------------

    def passed(self, trial_id: str, stage: str) -> None:
        """Notes that a running trial has the artifacts of a stage and of all earlier stages, made or reused."""
        for earlier, name in self.names[trial_id].items():
            if self.makers.get(name) == trial_id:
                self.made.add(name)
                del self.makers[name]
                self.workshop.n_changes += 1
            if earlier == stage:
                return

    def waits(self, trial_id: str, lock: str) -> None:
        """Queues a trial again that gave up its slot; it waits until the other sweep releases the lock."""
        trial = self._note_back(trial_id)
        self.attempts[trial_id] -= 1
        self.blocked[trial_id] = lock
        self.queue[trial_id] = trial

    def ended(self, trial_id: str, row: Row) -> bool:
        """Notes the row that a trial ended with; returns whether it will be tried again."""
        if row["status"] == "ok":
            self.passed(trial_id, "all")
        trial = self._note_back(trial_id)
        self.used_s += row.get("wall_time_s") or 0.0
        if self.retries_trial(trial_id, row):
            self.queue[trial_id] = trial
            return True
        self._note_end(trial_id, row)
        return False

    def retries_trial(self, trial_id: str, row: Row) -> bool:
        """Whether a trial that ended with this row will be tried again."""
        return row["status"] != "ok" and self.attempts[trial_id] <= self._get_rule(row["status"]).retry

    def _get_rule(self, status: str) -> OutcomeRule:
        return self.space.outcomes.get(status, OutcomeRule())  # type: ignore[call-overload]

    # Siblings ---------------------------------------------------------------------------------

    def _take_row(self, trial: PlannedTrial) -> Row | None:
        """Takes the record of an equal trial that has ended in a sibling, and returns its row; None if there is none."""
        for sibling in self.workshop.agendas:
            row = sibling.ended_rows.get(trial.trial_id)
            if sibling is not self and row is not None and self._accepts_row(trial.trial_id, row, sibling):
                return self.hooks.take_record(trial, sibling.space.name)
        return None

    def _accepts_row(self, trial_id: str, row: Row, sibling: "Agenda") -> bool:
        """Says whether a sibling's outcome holds here too.

        A pruned trial lost against others: that holds where the same search under the same rule has the same candidates.
        """
        if row["status"] != "pruned":
            return row["status"] in FINAL_STATUSES
        uses, sibling_uses = self.known[trial_id], sibling.known[trial_id]
        is_same_search = all(use.role == "search" and use in sibling_uses for use in uses)
        return is_same_search and self.space.prune == sibling.space.prune

    def _offer_row(self, trial_id: str) -> None:
        """Lets each sibling that still queues a trial take its record."""
        for sibling in self.workshop.agendas:
            trial = sibling.queue.get(trial_id) if sibling is not self else None
            row = sibling._take_row(trial) if trial is not None else None
            if row is not None:
                del sibling.queue[trial_id]
                sibling.blocked.pop(trial_id, None)
                sibling._note_end(trial_id, row)

    # Tuning -----------------------------------------------------------------------------------

    def _queue_trials(self, trials: Iterable[PlannedTrial]) -> None:
        """Queues the trials without a final record; of those that share an embedder run, the longest comes first."""
        new: dict[str, PlannedTrial] = {}
        for trial in trials:
            uses = self.known.setdefault(trial.trial_id, [])
            if not uses:
                new[trial.trial_id] = trial
            if trial not in uses:
                uses.append(trial)
                row = self.ended_rows.get(trial.trial_id)
                if row is not None:
                    self._note_cost(trial, row)
        self.names |= {trial_id: self.hooks.name_shared(trial.config) for trial_id, trial in new.items()}
        for trial in _put_longest_first(list(new.values()), self.names):
            row = self.hooks.read_row(trial.trial_id)
            if row is not None and not row.get("taken_from"):
                self.begun.add(trial.trial_id)
                self.used_s += row.get("wall_time_s") or 0.0
            if row is None or row["status"] not in FINAL_STATUSES:
                row = self._take_row(trial)
            if row is not None:
                self._note_end(trial.trial_id, row, advances=False)
            else:
                self.queue[trial.trial_id] = trial
                self.workshop.n_changes += 1

    def _note_end(self, trial_id: str, row: Row, advances: bool = True) -> None:
        """Passes the row of an ended trial to the cells that use the trial."""
        self.ended_rows[trial_id] = row
        for trial in self.known[trial_id]:
            self._note_cost(trial, row)
        for cell_id in dict.fromkeys(t.cell_id for t in self.known[trial_id] if advances and t.role == "search"):
            self._advance_search(self.cells[cell_id])
        self._offer_row(trial_id)

    def _note_cost(self, trial: PlannedTrial, row: Row) -> None:
        if trial.role != "search":
            return
        cell = self.cells[trial.cell_id]
        value = row.get("val_metric_best") if row["status"] in ("ok", "pruned") else None
        cost = math.inf
        if isinstance(value, int | float) and math.isfinite(value):
            cost = as_cost(value, row.get("metric_mode") or "min")
        cell.costs.setdefault(trial.config.cell_id, {})[trial.seed] = cost

    def _advance_search(self, cell: _CellSearch) -> None:
        """Plans the cell's next candidates or, once all of them have ended, its replicates."""
        while self._is_scored(cell) and not self._has_asked(cell):
            self._ask_candidate(cell)
        if self._is_searched(cell) and not cell.is_replicated:
            cell.is_replicated = True
            best = self._find_best(cell)
            if best is not None:
                self._plan_more(self._list_replicates(cell.tuned.cell_id, best))

    def _list_replicates(self, cell_id: str, config: TrialConfig) -> list[PlannedTrial]:
        """A cell's replicates and, for the first cell of a task, the A/A repeats."""
        aa_seeds = self.space.aa if cell_id in self.plan.first_cells else ()
        return [*plan_trials(cell_id, config, self.space.seeds), *plan_trials(f"{cell_id}-aa", config, aa_seeds, "aa")]

    def _ask_candidate(self, cell: _CellSearch) -> None:
        """Asks an adaptive search for its next candidate."""
        costs = [(settings, self._compute_mean_cost(cell, name)) for settings, name in cell.asked]
        search = self.space.search
        settings = optuna_next(self.space.tune, costs, search.sampler_seed, cell.tuned.cell_id)
        config = resolve_candidate(cell.tuned.settings, settings, self.hooks.resolve)
        cell.asked.append((settings, config.cell_id))
        if config.cell_id not in cell.candidates:
            cell.candidates[config.cell_id] = config
            self._plan_more(plan_trials(cell.tuned.cell_id, config, search.seeds, "search"))

    def _plan_more(self, trials: Sequence[PlannedTrial]) -> None:
        self.hooks.report_planned(trials)
        self._queue_trials(trials)

    def _is_scored(self, cell: _CellSearch) -> bool:
        n_seeds = len(self.space.search.seeds)
        return all(len(cell.costs.get(name, {})) == n_seeds for name in cell.candidates)

    def _is_searched(self, cell: _CellSearch) -> bool:
        return self._has_asked(cell) and self._is_scored(cell)

    def _has_asked(self, cell: _CellSearch) -> bool:
        """Whether all candidates are known: an adaptive search gives them one at a time."""
        search = self.space.search
        return search.method != "optuna" or len(cell.asked) >= (search.n_candidates or 0)

    def _compute_mean_cost(self, cell: _CellSearch, name: str) -> float:
        """A candidate's mean cost over its seeds; infinite if a seed has no finite metric."""
        costs = cell.costs.get(name, {}).values()
        return sum(costs) / len(costs) if costs else math.inf

    def _find_best(self, cell: _CellSearch) -> TrialConfig | None:
        """The candidate with the lowest finite mean cost; ties go to the first, and None means that no candidate has one."""
        name = min(cell.candidates, key=lambda name: self._compute_mean_cost(cell, name))
        return cell.candidates[name] if math.isfinite(self._compute_mean_cost(cell, name)) else None


def _put_longest_first(trials: Sequence[PlannedTrial], names: Mapping[str, Shared]) -> list[PlannedTrial]:
    """Sorts trials that share an embedder run, longest first, within their positions: the longest run serves the rest."""
    positions: dict[str, list[int]] = {}
    for position, trial in enumerate(trials):
        name = names[trial.trial_id].get("embedder")
        if name is not None:
            positions.setdefault(name, []).append(position)
    ordered = list(trials)
    for shared in positions.values():
        longest = sorted((trials[position] for position in shared), key=lambda trial: -trial.config.embedder.epochs)
        for position, trial in zip(shared, longest, strict=True):
            ordered[position] = trial
    return ordered
