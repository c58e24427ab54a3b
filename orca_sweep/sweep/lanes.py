"""The lanes of a launch: each runs one plan into its own sweep folder, and all of them share one Ray."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from orca_sweep.config import TrialConfig, digest
from orca_sweep.planning.agenda import Agenda, AgendaHooks, Row, Shared, Workshop
from orca_sweep.results import FINAL_STATUSES, UNFINISHED, read_row, take_record
from orca_sweep.space import Plan, PlannedTrial
from orca_sweep.space.manifest import append_planned
from orca_sweep.space.prefixes import first_work, shared_prefixes, without_schedule
from orca_sweep.space.trial_names import TrialNames
from orca_sweep.store import Store
from orca_sweep.sweep.checks import make_bundle
from orca_sweep.training.run import drop_checkpoint
from orca_sweep.trial import Records, StageNames, make_config

CONTINUE = "Ended trials are kept; launch again, and the rest continues from its last saved epoch."
Watch = Callable[[str, Mapping[str, Any]], None]
"""Receives the events damaged, taken, start, planned, run, epoch, still, wait and end, each with its facts."""
Prefixes = Mapping[str, frozenset[int]]
"""Epochs of fine-tuning that a trial shares with others, by trial id."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where a sweep runs and writes; all paths are absolute."""

    out: Path
    store: str
    data_root: Path
    address: str
    """'local' to start a local Ray, 'running' for the Ray of this process, or the address of a cluster to join."""
    dashboard_host: str | None = None
    """Where the local Ray's dashboard listens; whoever reaches it with Ray's token can run code as this user. None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One sweep of a launch: what runs, where, and who watches it."""

    plan: Plan
    setup: Setup
    watch: Watch

    @property
    def name(self) -> str:
        """The name of the space, by which siblings know the member."""
        return self.plan.space.name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a launch ended, for one of its members."""

    n_planned: int
    ran: tuple[str, ...]
    """Ids of the trials that ran to an end here; those taken from a sibling do not count, nor those that were interrupted."""
    statuses: Mapping[str, int]
    """How many planned trials have each status; ``unfinished`` trials have no record."""
    wall_time_s: float
    """From the start of the launch to the end of the member's last trial."""
    notes: tuple[str, ...] = ()
    """Why planned trials did not run."""
    ray_is_lost: bool = False
    """Then the process must not wait for Ray when it ends: it would wait for ever."""
    was_interrupted: bool = False
    """Whether a person or the system ended it early."""

    @property
    def n_run(self) -> int:
        """How many trials ran."""
        return len(self.ran)

    @property
    def n_left(self) -> int:
        """How many trials another launch would run."""
        return sum(n for status, n in self.statuses.items() if status not in FINAL_STATUSES)

    @property
    def exit_code(self) -> int:
        """0 if every planned trial ended well (a pruned one does), else 1."""
        n_good = self.statuses.get("ok", 0) + self.statuses.get("pruned", 0)
        return 0 if n_good == self.n_planned and not self.notes else 1


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the lanes of one launch share."""

    folders: Mapping[str, Path]
    """The sweep folders, by the names of the members."""
    prefixes: Prefixes
    workshop: Workshop = field(default_factory=Workshop)


class Lane:
    """One plan on its way: its agenda, its sweep folder, and who watches it."""

    def __init__(self, number: int, member: Member, shop: Shop) -> None:
        """Starts a plan where its records left off; takes what siblings have run."""
        self.number, self.member, self.shop = number, member, shop
        self._naming = TrialNames(member.plan.labels, member.plan.space.tune)
        self.plan, self.out, self.watch = member.plan, member.setup.out, member.watch
        self.need = make_bundle(self.plan.space.resources)
        self.ended_s = time.perf_counter()
        """When the last trial ended; when the lane began if none has."""
        records = Records()
        hooks = AgendaHooks(
            read_row=partial(read_row, self.out),
            resolve=partial(make_config, records=records),
            name_shared=_SharedWork(self.plan, shop.prefixes, records),
            is_held=Store(member.setup.store).is_held,
            report_planned=self._record_planned,
            take_record=self._take_record,
        )
        self.agenda = Agenda(self.plan, hooks, shop.workshop)

    def _record_planned(self, trials: Sequence[PlannedTrial]) -> None:
        append_planned(self.out, (trial.entry() for trial in trials))
        self.watch("planned", {"n_new": len(trials)})

    def _take_record(self, trial: PlannedTrial, sibling: str) -> Row | None:
        source, trial_id = self.shop.folders[sibling], trial.trial_id
        row = take_record(self.out, trial_id, source=source, sibling=sibling, name=self.member.name)
        if row is None:
            return None
        drop_checkpoint(self.out / "trials" / trial_id)
        self.note_end()
        facts = {"trial": trial, "role": trial.role, "cell_id": trial.cell_id, "taken_from": sibling}
        self.watch("taken", {**row, **facts})
        return row

    def name_trial(self, trial: PlannedTrial) -> str:
        """Returns levels and seed of a trial."""
        space = self.plan.space
        tuned = {path: space.write_level(path, attrgetter(path)(trial.config)) for path in space.tune}
        return self._naming.add_trial(trial.trial_id, trial.cell_id, seed=trial.seed, role=trial.role, tuned=tuned)

    def note_end(self) -> None:
        """Notes the time at which a trial has ended."""
        self.ended_s = time.perf_counter()

    def report_start(
        self, dashboard: str | None, counted: Collection[str] = (), nodes_away: Collection[str] = ()
    ) -> None:
        """Reports how much there is to run.

        Args:
            dashboard: the address of Ray's dashboard.
            counted: ids of trials that earlier lanes have counted.
            nodes_away: nodes that do not see the sweep folder.
        """
        agenda, plan = self.agenda, self.plan
        facts = {
            "dashboard": dashboard,
            "nodes_away": sorted(nodes_away),
            "n_todo": agenda.n_left,
            "n_shared": sum(trial_id in counted for trial_id in agenda.queue),
            "n_done": len(agenda.known) - agenda.n_left,
            "n_later": max(0, len(plan.trials) + plan.n_later - len(agenda.known)),
        }
        self.watch("start", facts)

    def summarise(self, start_s: float, lost: str | None) -> Outcome:
        """Returns how the launch ended here, given when it began, and what is gone if Ray is."""
        agenda = self.agenda
        statuses: dict[str, int] = {}
        for trial_id in agenda.known:
            row = read_row(self.out, trial_id)
            status = row["status"] if row else UNFINISHED
            statuses[status] = statuses.get(status, 0) + 1
        end_s = self.ended_s if agenda.is_over else time.perf_counter()
        return Outcome(
            n_planned=len(agenda.known),
            ran=tuple(name for name, n in agenda.attempts.items() if n > 0 and name not in agenda.running),
            statuses=statuses,
            wall_time_s=end_s - start_s,
            notes=tuple(self._list_notes(statuses.get(UNFINISHED, 0), lost)),
            ray_is_lost=lost is not None,
            was_interrupted=lost is None and not agenda.is_over,
        )

    def _list_notes(self, n_unfinished: int, lost: str | None) -> Iterable[str]:
        agenda = self.agenda
        if agenda.spent and agenda.queue:
            yield f"{agenda.spent}: {n_unfinished} {'trial was' if n_unfinished == 1 else 'trials were'} not run."
        for cell_id in agenda.unreplicated:
            yield f"cell {cell_id}: none of its candidates is ok, so it has no replicates."
        if lost:
            yield f"{lost}. {CONTINUE}"


class _SharedWork:
    """Names what a plan's trials share with those of this and other plans; equal names are equal work."""

    def __init__(self, plan: Plan, prefixes: Prefixes, records: Records) -> None:
        self.name_stages, self.prefixes, self.records = StageNames(), prefixes, records
        # Artifacts of another device or number of threads are others, and nobody needs to wait for them.
        resources = plan.space.resources
        self.made_on = f"{resources.device}-{resources.n_threads}"

    def __call__(self, config: TrialConfig) -> Shared:
        names = self.name_stages(self.records.resolve_config(config))
        if config.trial_id in self.prefixes:
            # Trials with the same start of fine-tuning and the same work in their first phase share their first epochs.
            start = [without_schedule(config).flat(), first_work(config)]
            names["finetune-prefix"] = digest("finetune-prefix", start)
        return {stage: f"{name}-{self.made_on}" for stage, name in names.items()}


def make_lanes(members: Sequence[Member]) -> tuple[Lane, ...]:
    """Returns the lanes of a launch in the order of its members; each takes at once what its siblings have run before.

    Raises:
        StorageError: if a record cannot be written.
    """
    trials = {trial.trial_id: trial for member in members for trial in member.plan.trials}
    folders = {member.name: member.setup.out for member in members}
    shop = Shop(folders=folders, prefixes=shared_prefixes(trials.values()))
    return tuple(Lane(number, member, shop) for number, member in enumerate(members))
