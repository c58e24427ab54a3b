"""A simulated cluster that runs the trials of an agenda."""

import random

from orca_sweep.planning.agenda import Agenda, AgendaHooks
from orca_sweep.trial import make_config, resolve_config, shared_stages


def name_shared(config):
    """Returns the names of the stage artifacts that a trial shares."""
    return shared_stages(resolve_config(config))


def make_agenda(plan, read_row=lambda trial_id: None, workshop=None, **hooks):
    """Returns the agenda of a plan, as if no trial had ended."""
    hooks = AgendaHooks(read_row=read_row, resolve=make_config, name_shared=name_shared, **hooks)
    return Agenda(plan, hooks, workshop)


class World:
    """A cluster with a number of slots, whose trials pass their stages and end in random order."""

    def __init__(self, plan, slots, score=lambda config: 0.5, status=lambda trial, n: "ok", rows=None, seed=0):
        self.rows = {} if rows is None else rows
        self.planned, self.order, self.made, self.time = [], [], [], 0.0
        self.slots, self.score, self.status = slots, score, status
        self.rng = random.Random(seed)
        self.agenda = make_agenda(plan, self.rows.get, report_planned=self.planned.extend, now=lambda: self.time)

    def run(self, most=10_000):
        """Runs to the end and returns the trials in the order in which they began."""
        running = {}
        for _ in range(most):
            while len(running) < self.slots:
                trial = self.agenda.next()
                if trial is None:
                    break
                self.order.append(trial)
                running[trial.trial_id] = (trial, list(name_shared(trial.config)))
            if not running:
                assert self.agenda.is_over, "deadlock: nothing runs, but trials are left"
                return self.order
            self.check(running)
            self.time += 1.0
            self.step(running, self.rng.choice(sorted(running)))
        raise AssertionError("the run does not end")

    def check(self, running):
        """Asserts that no two running trials make the same artifact."""
        makers = [
            name
            for trial, left in running.values()
            for stage, name in name_shared(trial.config).items()
            if stage in left and name not in self.agenda.made
        ]
        assert len(makers) == len(set(makers))

    def step(self, running, trial_id):
        trial, left = running[trial_id]
        if left:
            stage = left.pop(0)
            self.made.append(name_shared(trial.config)[stage])
            self.agenda.passed(trial_id, stage)
            return
        del running[trial_id]
        status = self.status(trial, self.agenda.attempts[trial_id])
        row = {"trial_id": trial_id, "status": status, "wall_time_s": 3600.0}
        if status == "ok":
            row["val_metric_best"] = self.score(trial.config)
        self.rows[trial_id] = row
        if self.agenda.ended(trial_id, row):
            del self.rows[trial_id]
