"""The progress of a launch from Python: lines of text, or the caller's own function."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from orca_sweep.errors import first_line
from orca_sweep.visible import LINES, escape_controls

if TYPE_CHECKING:
    from orca_sweep.space import Plan

Watch = Callable[[str, Mapping[str, Any]], None]
"""Receives each event of a launch with its facts, in the thread of the launch.

``start``: n_todo, n_done (before), n_later (planned from results), dashboard. ``run``: trial_id. ``epoch``: trial_id, stage,
epoch, val_metric. ``end``: the trial's row, cell_id, role, and again (whether it is tried again). ``wait``: trial_id, which
waits for another sweep. ``planned``: n_new trials. ``damaged``: problems, one text per damaged record. Later versions may
add events and facts.
"""
Progress = bool | Watch
Say = Callable[[str], None]


def choose_watch(progress: Progress, plan: "Plan") -> tuple[Watch, Say]:
    """Returns what receives the events of a launch, and what receives its other lines.

    Args:
        progress: True prints lines, False is silent, a function receives the events.
        plan: the plan that is launched.
    """
    if callable(progress):
        return GuardedWatch(progress), _be_silent
    return (ProgressLines(plan, _print_line), _print_line) if progress else (_be_silent, _be_silent)


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


class ProgressLines:
    """Says a line for the start of a launch and for each trial that ends."""

    def __init__(self, plan: "Plan", say: Say) -> None:
        self.plan, self.say = plan, say
        self.seeds = {trial.trial_id: trial.seed for trial in plan.trials}
        self.n_todo = self.n_done = self.n_later = 0
        self.start = time.perf_counter()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Says what a person wants to know of an event."""
        match event:
            case "start":
                self.n_todo, self.n_later = facts["n_todo"], facts["n_later"]
                later = f", up to {self.n_later} more, planned from their results" if self.n_later else ""
                self.say(f"{self.n_todo} trials to run, {facts['n_done']} done before{later}")
            case "damaged":
                for problem in facts["problems"]:
                    self.say(problem)
            case "planned" if self.n_later:  # they were announced at the start
                self.n_todo += facts["n_new"]
                self.n_later = max(0, self.n_later - facts["n_new"])
            case "wait":
                self.say(
                    f"{facts['trial_id']} waits: another sweep is making an artifact that it needs, in the same store"
                )
            case "end":
                self._say_end(facts)

    def _say_end(self, facts: Mapping[str, Any]) -> None:
        self.n_done += not facts.get("again")
        value, seconds = facts.get("val_metric_best"), facts.get("wall_time_s")
        result = f"validation {value:.4g}" if isinstance(value, float) else str(facts.get("error") or "")
        duration = f" in {seconds:.1f} s" if seconds is not None else ""
        retry = ", will be tried again" if facts.get("again") else ""
        at = time.perf_counter() - self.start
        self.say(
            f"[{self.n_done}/{self.n_todo} at {at:.0f} s] {self._name_trial(facts)}: {facts['status']}{duration}, {result}{retry}"
        )

    def _name_trial(self, facts: Mapping[str, Any]) -> str:
        """Returns 'proxy none, seed 2', with the role of a trial that is no replicate."""
        labels = self.plan.labels.get(facts["cell_id"].removesuffix("-aa"), {})
        levels = ", ".join(f"{path} {level}" for path, level in labels.items())
        seed = self.seeds.get(facts["trial_id"])
        known = f"seed {seed}" if seed is not None else facts["trial_id"]
        role = "" if facts.get("role", "replicate") == "replicate" else f" ({facts['role']})"
        return ", ".join(filter(None, (levels, known))) + role
