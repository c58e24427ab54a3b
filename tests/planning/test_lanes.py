"""Several plans in one launch: equal trials run once, artifacts are made once, and each plan keeps its own rules."""

import math
import random

import pytest

from orca_sweep.planning.agenda import Workshop
from tests.builders.agenda import World, make_agenda, name_shared

FIRST = "name: first\nbase: {task: tiny, finetune.epochs: 2}\nfactors: {proxy: [none, mnist5k]}\nseeds: 2\n"
SECOND = (
    "name: second\nbase: {task: tiny, finetune.epochs: 2}\nfactors: {proxy: [none, mnist5k, dummy]}\nseeds: [0, 1, 2]\n"
)
THIRD = "name: third\nbase: {task: tiny, finetune.epochs: 2}\nfactors: {proxy: [mnist5k]}\nseeds: [1, 2, 3]\n"


class Lanes:
    """A cluster that runs several plans as a launch does; the rows of each are its sweep folder."""

    def __init__(self, plans, slots=4, status=lambda name, trial, n: "ok", score=lambda config: 0.5, rows=None, seed=0):
        self.plans, self.slots, self.status, self.score = plans, slots, status, score
        self.rows = {plan.space.name: {} for plan in plans} if rows is None else rows
        self.rng, self.workshop = random.Random(seed), Workshop()
        self.order, self.taken, self.time = [], [], 0.0
        """What ran, as (name, trial id), and what was taken, as (taker, trial id, from whom)."""
        self.running = {}
        self.agendas = {plan.space.name: self.make_agenda(plan) for plan in plans}

    def make_agenda(self, plan):
        name = plan.space.name

        def take(trial, sibling):
            source = self.rows[sibling].get(trial.trial_id)
            if source is None:
                return None
            self.taken.append((name, trial.trial_id, sibling))
            self.rows[name][trial.trial_id] = {**source, "taken_from": source.get("taken_from", sibling)}
            return self.rows[name][trial.trial_id]

        read = self.rows[name].get
        return make_agenda(plan, read, workshop=self.workshop, take_record=take, now=lambda: self.time)

    def fill(self):
        """Starts what can start, as the queue of a launch does."""
        while len(self.running) < self.slots:
            started = next(((n, t) for n, a in self.agendas.items() if (t := a.next())), None)
            if started is None:
                return
            name, trial = started
            assert trial.trial_id not in self.running, "no trial runs twice at once"
            self.order.append((name, trial.trial_id))
            self.running[trial.trial_id] = (name, trial, list(name_shared(trial.config)))

    def run(self, most=10_000):
        """Runs to the end, or to a kill after this many steps."""
        for _ in range(most):
            self.fill()
            if not self.running:
                assert all(agenda.is_over for agenda in self.agendas.values()), "deadlock"
                return self
            making = [
                artifact
                for _, trial, left in self.running.values()
                for stage, artifact in name_shared(trial.config).items()
                if stage in left and artifact not in self.workshop.made
            ]
            assert len(making) == len(set(making)), "no artifact is made twice at once"
            self.time += 1.0
            self.step(self.rng.choice(sorted(self.running)))
        return self

    def step(self, trial_id):
        name, trial, left = self.running[trial_id]
        agenda = self.agendas[name]
        if left:
            agenda.passed(trial_id, left.pop(0))
            return
        del self.running[trial_id]
        status = self.status(name, trial, agenda.attempts[trial_id])
        row = {"trial_id": trial_id, "status": status, "wall_time_s": 3600.0}
        row |= {"val_metric_best": self.score(trial.config)} if status in ("ok", "pruned") else {}
        self.rows[name][trial_id] = row
        if agenda.ended(trial_id, row):
            del self.rows[name][trial_id]


def ids_of(plan):
    return {trial.trial_id for trial in plan.trials}


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_equal_trials_of_several_plans_run_once_and_each_plan_is_whole(plan_of, slots):
    plans = [plan_of(text) for text in (FIRST, SECOND, THIRD)]
    lanes = Lanes(plans, slots).run()
    everything = set.union(*map(ids_of, plans))
    assert sorted(trial_id for _, trial_id in lanes.order) == sorted(everything)
    for plan in plans:
        assert lanes.rows[plan.space.name].keys() == ids_of(plan)
    assert len(lanes.taken) == sum(len(ids_of(plan)) for plan in plans) - len(everything) == 6
    # A row names the space that ran the trial, also where it was handed on.
    ran = {trial_id: name for name, trial_id in lanes.order}
    for name, rows in lanes.rows.items():
        assert all(row.get("taken_from", name) == ran[trial_id] for trial_id, row in rows.items())
    assert all(agenda.n_left == 0 for agenda in lanes.agendas.values())
    runs = {name: len(agenda.begun) for name, agenda in lanes.agendas.items()}
    assert runs == {name: sum(n == name for n, _ in lanes.order) for name in runs}, "taking is not running"


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_moment_loses_nothing_and_runs_nothing_twice(plan_of, seed):
    """Killed again and again after a few steps: what ran is in the rows, the rest is begun anew."""
    plans = [plan_of(text) for text in (FIRST, SECOND, THIRD)]
    rows, ended, rng = {plan.space.name: {} for plan in plans}, [], random.Random(seed)
    for _ in range(200):
        lanes = Lanes(plans, 3, rows=rows, seed=rng.random()).run(most=rng.randrange(12))
        ended += [i for _, i in lanes.order if i not in lanes.running]
        if all(agenda.is_over for agenda in lanes.agendas.values()):
            break
        # Between the record of the one and the copy of the other there may be a kill, too.
        copies = [(n, i) for n, own in rows.items() for i, row in own.items() if "taken_from" in row]
        for name, trial_id in rng.sample(copies, len(copies) // 3):
            del rows[name][trial_id]
    assert sorted(ended) == sorted(set.union(*map(ids_of, plans)))
    assert all(rows[plan.space.name].keys() == ids_of(plan) for plan in plans)


def test_while_one_plan_runs_a_trial_the_others_pass_it_over(plan_of):
    lanes = Lanes([plan_of(FIRST), plan_of(SECOND)])
    first, second = lanes.agendas.values()
    running = first.next()
    order = []
    while (trial := second.next()) is not None:
        order.append(trial.trial_id)
        second.passed(trial.trial_id, "all")
    assert running.trial_id in second.queue and running.trial_id not in order
    assert not second.is_over


def test_a_place_that_the_first_plan_leaves_idle_goes_to_the_next(plan_of):
    """All trials of the first wait for one artifact, which another of them makes."""
    waiting = "name: waiting\nbase: {task: tiny, proxy: mnist5k}\nfactors: {finetune.lr: [1e-3, 1e-4]}\nseeds: 1\n"
    lanes = Lanes([plan_of(waiting), plan_of(FIRST.replace("mnist5k", "dummy"))], slots=3)
    lanes.fill()
    assert [name for name, _ in lanes.order] == ["waiting", "first", "first"]


def test_an_artifact_in_the_making_in_one_plan_is_waited_for_in_another(plan_of):
    text = "name: {}\nbase: {{task: tiny, proxy: mnist5k, finetune.lr: {}}}\nseeds: 1\n"
    lanes = Lanes([plan_of(text.format("a", 1e-3)), plan_of(text.format("b", 1e-4))])
    a, b = lanes.agendas.values()
    maker = a.next()
    assert b.next() is None and not b.is_over
    a.passed(maker.trial_id, "embedder")
    waiter = b.next()
    assert waiter is not None and waiter.trial_id != maker.trial_id
    assert not b.makes(waiter.trial_id)


def test_a_maker_that_dies_in_one_plan_frees_its_artifacts_for_another(plan_of):
    text = "name: {}\nbase: {{task: tiny, proxy: mnist5k, finetune.lr: {}}}\nseeds: 1\n"
    lanes = Lanes([plan_of(text.format("a", 1e-3)), plan_of(text.format("b", 1e-4))])
    a, b = lanes.agendas.values()
    a.ended(a.next().trial_id, {"status": "lost"})
    assert b.makes(b.next().trial_id)


def test_an_outcome_that_is_not_final_is_not_taken(plan_of):
    """The first plan's time limit is too short for all; the second has its own rules."""
    lanes = Lanes(
        [plan_of(FIRST), plan_of(SECOND)], status=lambda name, trial, n: "timeout" if name == "first" else "ok"
    ).run()
    assert {row["status"] for row in lanes.rows["first"].values()} == {"timeout"}
    assert {row["status"] for row in lanes.rows["second"].values()} == {"ok"}
    assert not lanes.taken
    # The next launch takes what the sibling has; nothing runs again.
    again = Lanes(lanes.plans, rows=lanes.rows).run()
    assert not again.order
    assert {row["status"] for row in again.rows["first"].values()} == {"ok"}
    assert {name for name, _, _ in again.taken} == {"first"}


def test_a_diverged_trial_diverges_for_all(plan_of):
    lanes = Lanes([plan_of(FIRST), plan_of(SECOND)], status=lambda name, trial, n: "diverged").run()
    assert len(lanes.order) == 9 and len(lanes.taken) == 4


SEARCH = """
name: {}
base: {{task: tiny}}
factors: {{proxy: [{}]}}
tune: {{finetune.lr: [1e-2, 1e-3, 1e-4]}}
seeds: 2
"""


def lr_score(config):
    return abs(math.log(config.finetune.lr / (3e-4 if config.proxy == "mnist5k" else 3e-3)))


@pytest.mark.parametrize("slots", [1, 8])
def test_a_search_counts_costs_of_siblings_as_its_own(plan_of, slots):
    plans = [plan_of(SEARCH.format("a", "none, mnist5k")), plan_of(SEARCH.format("b", "mnist5k, none, dummy"))]
    lanes = Lanes(plans, slots, score=lr_score).run()
    assert len({i for _, i in lanes.order}) == len(lanes.order) == 3 * (3 + 2)
    alone = World(plans[1], 1, lr_score)
    alone.run()
    assert lanes.rows["b"].keys() == alone.rows.keys(), "the same best candidates are replicated"
    assert lanes.agendas["b"].unreplicated == []
    assert len(lanes.agendas["b"].begun) < len(alone.rows)


def test_an_adaptive_search_asks_for_the_same_candidates_beside_a_sibling(plan_of):
    text = SEARCH.replace("[1e-2, 1e-3, 1e-4]", "{{low: 1e-5, high: 1e-1, log: true}}")
    text += "search: {{method: optuna, candidates: 12}}\n"
    plans = [plan_of(text.format("a", "none")), plan_of(text.format("b", "none, mnist5k"))]
    lanes = Lanes(plans, 1, score=lr_score).run()
    alone = World(plans[1], 1, lr_score)
    alone.run()
    assert lanes.rows["b"].keys() == alone.rows.keys()
    assert len({i for _, i in lanes.order}) == len(lanes.order)


@pytest.mark.parametrize(
    ("first", "second", "role", "n_taken"),
    [
        ("prune: asha", "prune: asha", "search", 3),
        ("prune: asha", "", "search", 0),
        ("prune: asha", "prune: median", "search", 0),
        ("prune: {name: asha, cells: true}", "prune: {name: asha, cells: true}", "replicate", 0),
    ],
)
def test_a_pruned_trial_is_taken_only_where_it_had_the_same_rivals(plan_of, first, second, role, n_taken):
    plans = [
        plan_of(f"{SEARCH.format('a', 'none')}{first}\n"),
        plan_of(f"{SEARCH.format('b', 'none, mnist5k')}{second}\n"),
    ]
    lanes = Lanes(plans, 1, status=lambda name, trial, n: "pruned" if (name, trial.role) == ("a", role) else "ok").run()
    pruned = [(n, i) for n, i, _ in lanes.taken if lanes.rows["b"][i]["status"] == "pruned"]
    assert len(pruned) == n_taken
    assert all(agenda.n_left == 0 for agenda in lanes.agendas.values())


def test_budgets_count_only_what_ran_for_the_plan_itself_in_each_launch(plan_of):
    plans = [plan_of(FIRST), plan_of(f"{SECOND}budget: {{trials: 2}}\n")]
    lanes = Lanes(plans, 1).run()
    runs = [name for name, _ in lanes.order]
    assert (runs.count("first"), runs.count("second")) == (4, 2)
    assert len(lanes.rows["second"]) == 4 + 2, "what a sibling ran is free"
    again = Lanes(plans, 1, rows=lanes.rows)
    assert again.agendas["second"].spent == "budget.trials = 2 is spent"
    assert len(again.agendas["second"].begun) == 2
    more = Lanes([plans[0], plan_of(f"{SECOND}budget: {{trials: 3}}\n")], 1, rows=lanes.rows).run()
    assert len(more.order) == 1


def test_the_hours_of_a_plan_pass_only_while_its_own_trials_run(plan_of):
    plans = [plan_of(FIRST), plan_of(f"{SECOND}budget: {{hours: 0.5}}\n")]
    lanes = Lanes(plans, 1)
    lanes.time = 5.0
    first, second = lanes.agendas.values()
    trial = first.next()
    lanes.time = 3600.0
    first.ended(trial.trial_id, {"status": "failed"})
    assert second.spent is None
    trial = second.next()
    lanes.time += 1799
    second.ended(trial.trial_id, {"status": "ok"})
    lanes.time += 3600
    assert second.spent is None
    second.next()
    lanes.time += 1
    assert second.spent == "budget.hours = 0.5 is spent"


def test_a_spent_plan_still_takes_what_its_siblings_run(plan_of):
    plans = [plan_of(f"{FIRST}budget: {{trials: 1}}\n"), plan_of(SECOND)]
    lanes = Lanes(plans, 1).run()
    assert len([name for name, _ in lanes.order if name == "first"]) == 1
    assert {row["status"] for row in lanes.rows["first"].values()} == {"ok"} and len(lanes.rows["first"]) == 4


def test_a_record_that_cannot_be_copied_leaves_the_trial_to_run(plan_of):
    lanes = Lanes([plan_of(FIRST)]).run()
    both = Lanes([plan_of(FIRST), plan_of(SECOND)], rows={**lanes.rows, "second": {}})
    assert len(both.taken) == 4
    broken = Lanes([plan_of(FIRST)], rows=lanes.rows)
    second = make_agenda(plan_of(SECOND), workshop=broken.workshop, take_record=lambda trial, sibling: None)
    assert second.n_left == 9
