"""The progress of a launch: lines of text, or the caller's own function."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import first_line, refuse_argument
from orca_sweep.visible import LINES, escape_controls

if TYPE_CHECKING:
    from orca_sweep.space import Plan, PlannedTrial

Watch = Callable[[str, Mapping[str, Any]], None]
"""Receives each event of a launch with its facts, in the thread of the launch.

``start``: n_todo, n_shared (of these, how many an earlier space of the launch runs), n_done
(before), n_later (planned from results), dashboard, nodes_away (nodes that do not see the sweep folder). ``run``: trial_id,
trial (its plan). ``epoch``: trial_id, stage, epoch, val_metric. ``end``: the trial's row, cell_id, role, and again (whether it
is tried again). ``taken``: the row, cell_id, role, and trial (its plan) of a trial that did not run here: an equal one has ended
in the space ``taken_from`` of the same launch; before ``start`` if that was in an earlier launch. ``wait``: trial_id, which waits
for another sweep. ``still``: if nothing has ended for 30 s, signs (by trial id, what it does now, or None) and n_without_place
(trials that wait for a place). ``planned``: n_new trials. ``damaged``: problems, one text per damaged record. Each event of a
suite has the fact ``space``, the name of the member. Later versions may add events and facts.
"""
Progress = bool | Watch
MOST_STILL = 4
"""Running trials that are named when nothing has ended for a while."""
Say = Callable[[str], None]


def choose_watch(progress: Progress, plan: "Plan") -> tuple[Watch, Say]:
    """Returns what receives the events of a launch, and what receives its other lines.

    Args:
        progress: True prints lines, False is silent, a function receives the events.
        plan: the plan that is launched.
    """
    _check_progress(progress)
    if callable(progress):
        return GuardedWatch(progress), _be_silent
    return (ProgressLines(plan).print_event, _print_line) if progress else (_be_silent, _be_silent)


def choose_watches(progress: Progress, plans: Sequence["Plan"]) -> tuple[list[Watch], Watch, Say]:
    """Returns what receives the events of each member of a suite, what is behind all of them, and what receives other lines.

    Args:
        progress: as of `choose_watch`.
        plans: of the members.
    """
    _check_progress(progress)
    if callable(progress):
        guard = GuardedWatch(progress)
        return [partial(_name_space, guard, plan.space.name) for plan in plans], guard, _be_silent
    if not progress:
        return [_be_silent for _ in plans], _be_silent, _be_silent
    counts = Counts()
    return [ProgressLines(plan, counts, plan.space.name).print_event for plan in plans], _be_silent, _print_line


def _check_progress(progress: Progress) -> None:
    if not (isinstance(progress, bool) or callable(progress)):
        raise refuse_argument("progress", progress, "this is True, False, or a function of (event, facts).")


def _name_space(watch: Watch, space: str, event: str, facts: Mapping[str, Any]) -> None:
    watch(event, {**facts, "space": space})


class GuardedWatch:
    """Calls a user's function until it fails: an error in it must not count as an error of a trial."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.error: Exception | None = None

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Passes an event on, unless the function has failed before."""
        if self.error is not None:
            return
        try:
            self.watch(event, facts)
        except Exception as error:
            self.error = error
            text = "the function given as progress failed (%s); the launch goes on without it"
            logging.getLogger("orca_sweep").warning(text, first_line(error))


def _be_silent(*_: object) -> None:
    pass


def _print_line(text: str) -> None:
    print(escape_controls(text, LINES), flush=True)


@dataclass
class Counts:
    """How far a launch is; the members of a suite count together."""

    n_todo: int = 0
    n_before: int = 0
    """Done before the launch."""
    n_done: int = 0
    n_later: int = 0
    start: float = field(default_factory=time.perf_counter)


def _describe_away(nodes: Sequence[str]) -> str:
    """Returns what happens on nodes that do not see the sweep folder."""
    names = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
    is_one = len(nodes) == 1
    return (
        f"{'node' if is_one else 'nodes'} {names} {'does' if is_one else 'do'} not see the sweep folder or the store:"
        f" {'its' if is_one else 'their'} trials send records and checkpoints here, and share what they pre-train"
        " only with trials of the same node"
    )


class ProgressLines:
    """The events of a launch as lines for people, with trials named by their levels and seed.

    In a suite, each line begins with the name of the space, and the members count together.
    """

    def __init__(self, plan: "Plan", counts: Counts | None = None, space: str = "") -> None:
        from orca_sweep.space.trial_names import TrialNames

        self.plan, self.counts, self.space = plan, counts or Counts(), space
        self._naming = TrialNames(plan.labels, plan.space.tune)
        self.names = {trial.trial_id: self._name_trial(trial) for trial in plan.trials}
        """Levels and seed of each trial that is planned or has started, by its id."""
        self.n_taken = 0
        """Trials taken before the start."""
        self.has_started = False

    def print_event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Prints what a person wants to know of an event."""
        for line in self.write_event(event, facts):
            _print_line(line)

    def write_event(self, event: str, facts: Mapping[str, Any]) -> Iterator[str]:
        """Counts an event and yields what a person wants to know of it; nothing of most events."""
        lines = self._write_lines(event, facts)
        return (f"{self.space}: {line}" for line in lines) if self.space else lines

    def _write_lines(self, event: str, facts: Mapping[str, Any]) -> Iterator[str]:
        counts = self.counts
        match event:
            case "start":
                yield self._write_start(facts)
                if facts.get("nodes_away"):
                    yield _describe_away(facts["nodes_away"])
            case "damaged":
                yield from facts["problems"]
            case "planned" if counts.n_later:  # they were announced at the start
                counts.n_todo += facts["n_new"]
                counts.n_later = max(0, counts.n_later - facts["n_new"])
            case "run":
                self.names[facts["trial_id"]] = self._name_trial(facts["trial"])
            case "still":
                yield from self._write_still(facts)
            case "wait":
                name = self.names[facts["trial_id"]]
                yield f"{name}: waits: another sweep is making an artifact that it needs, in the same store"
            case "taken" if not self.has_started:
                self.n_taken += 1  # the start says how many
            case "taken":
                self.names[facts["trial_id"]] = self._name_trial(facts["trial"])
                yield self._write_end(facts)  # counted where it ran
            case "end":
                counts.n_done += not facts.get("again")
                yield self._write_end(facts)

    def _write_still(self, facts: Mapping[str, Any]) -> Iterator[str]:
        """Yields what goes on while nothing ends."""
        signs = facts["signs"]
        for trial_id in list(signs)[:MOST_STILL]:
            yield f"{self.names[trial_id]}: {signs[trial_id].describe() if signs[trial_id] else 'has started'}"
        if len(signs) > MOST_STILL:
            yield f"... and {len(signs) - MOST_STILL} more trials run"
        if facts["n_without_place"] and not signs:
            n = facts["n_without_place"]
            yield f"{'1 trial waits' if n == 1 else f'{n} trials wait'} for a place in the cluster"

    def _name_trial(self, trial: "PlannedTrial") -> str:
        tuned = {
            path: self.plan.space.write_level(path, attrgetter(path)(trial.config)) for path in self.plan.space.tune
        }
        return self._naming.add_trial(trial.trial_id, trial.cell_id, seed=trial.seed, role=trial.role, tuned=tuned)

    def _write_start(self, facts: Mapping[str, Any]) -> str:
        from orca_sweep.analysis.writing import count_things

        # A trial that several spaces wait for runs once.
        self.counts.n_todo += facts["n_todo"] - facts["n_shared"]
        self.counts.n_before += facts["n_done"]
        self.counts.n_later += facts["n_later"]
        self.has_started = True
        taken = f" ({self.n_taken} of them taken from other spaces of the launch)" if self.n_taken else ""
        shared = f" ({facts['n_shared']} of them with an earlier space)" if facts["n_shared"] else ""
        dashboard = f"; Ray dashboard: http://{facts['dashboard']}" if facts["dashboard"] else ""
        later = f", up to {facts['n_later']} more, planned from their results" if facts["n_later"] else ""
        todo = f"{count_things(facts['n_todo'], 'trial')} to run{shared}"
        return f"{todo}, {facts['n_done']} done before{taken}{later}{dashboard}"

    def _write_end(self, facts: Mapping[str, Any]) -> str:
        value, seconds = facts.get("val_metric_best"), facts.get("wall_time_s")
        result = f", validation {value:#.4g}" if isinstance(value, float) else ""
        error = f", {facts['error']}" if facts.get("error") else ""
        duration = f" in {seconds:.1f} s" if seconds is not None else ""
        taken = f", taken from {facts['taken_from']}, which ran it" if facts.get("taken_from") else ""
        reused = f", reused {facts['reused'].replace(',', ', ')}" if facts.get("reused") else ""
        retry = ", will be tried again" if facts.get("again") else ""
        at = time.perf_counter() - self.counts.start
        name = self.names[facts["trial_id"]]
        return (
            f"[{self.counts.n_done}/{self.counts.n_todo} at {at:.0f} s] {name}:"
            f" {facts['status']}{duration}{result}{error}{reused}{retry}{taken}"
        )
