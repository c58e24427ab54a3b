"""What a suite costs: equal trials and shared stages once, and what it would be without sharing."""

import pytest

from orca_sweep.planning.forecast import forecast
from orca_sweep.planning.suite_forecast import PlannedMember, forecast_suite
from orca_sweep.store import Store, made_with

SPACE = """
    base: {{task: tiny, embedder.epochs: 4, finetune.epochs: 10}}
    factors: {{proxy: [none, {proxy}]}}
    seeds: {seeds}
"""


@pytest.fixture
def plans(plan_of):
    """Two plans that share the naive cell with seeds 0 and 1, and the objective's body."""
    return [
        plan_of(SPACE.format(proxy="mnist5k", seeds=2), "a.yaml"),
        plan_of(SPACE.format(proxy="dummy", seeds=3), "b.yaml"),
    ]


def members_of(plans, done=()):
    return [PlannedMember(plan=plan, is_done=set(done).__contains__) for plan in plans]


def count_stages(cost):
    return {stage.name: stage.n_computed for stage in cost.stages}


def test_equal_trials_and_stages_count_once(plans):
    cost = forecast_suite(members_of(plans), None)
    alone = [forecast(plan, None) for plan in plans]
    assert cost.members == tuple(alone)
    assert (cost.n_trials, cost.n_trials_apart, cost.n_left, cost.n_done) == (8, 10, 8, 0)
    stages, (a, b) = count_stages(cost), map(count_stages, alone)
    assert stages["embedder"] == a["embedder"] + b["embedder"]
    assert stages["proxy-features"] == a["proxy-features"] + b["proxy-features"]
    assert cost.n_epochs == 80
    assert cost.n_stages_apart > sum(stages.values())


def test_what_one_space_has_done_is_done_for_all(plans):
    shared = {t.trial_id for t in plans[0].trials} & {t.trial_id for t in plans[1].trials}
    assert len(shared) == 2
    cost = forecast_suite(members_of(plans, shared), None)
    assert (cost.n_done, cost.n_left) == (2, 6)
    assert [(member.n_done, member.n_left) for member in cost.members] == [(2, 2), (2, 4)]
    every = {t.trial_id for plan in plans for t in plan.trials}
    over = forecast_suite(members_of(plans, every), None)
    assert (over.n_left, over.stages, over.trial_hours, over.hours_apart) == (0, (), 0, 0)


def test_hours_are_those_of_different_trials_and_say_what_sharing_saves(plans, tmp_path):
    store = Store(str(tmp_path / "store"))
    for trial in plans[1].trials:
        times = {"wall_time_s": 3600.0, "finetune_s": 3600.0}
        row = {"config": trial.config.flat(), "cell_id": trial.cell_id, "used": {}, **times, **made_with("cpu", 1)}
        store.put_row(trial.trial_id, row)
    cost = forecast_suite(members_of(plans), store)
    assert cost.n_rows == 6
    assert cost.n_known == 8
    assert cost.trial_hours == pytest.approx(8)
    assert cost.hours_apart == pytest.approx(10)
    assert sum(member.trial_hours for member in cost.members) == pytest.approx(10)
    assert cost.cpu_hours == pytest.approx(8)


def test_spaces_with_other_resources_are_priced_by_their_own(plan_of, plans):
    wide = plan_of(SPACE.format(proxy="dummy", seeds=3) + "    resources: {cpu: 2}\n", "wide.yaml")
    cost = forecast_suite(members_of([plans[0], wide]), None)
    assert (cost.n_trials, cost.n_left) == (8, 8)


def test_tuned_cells_count_what_they_plan_later_in_each_space(plan_of):
    text = SPACE.replace("    seeds", "    tune: {{finetune.lr: [1e-3, 1e-4]}}\n    seeds").replace("{seeds}", "3")
    plans = [plan_of(text.format(proxy=proxy), f"{proxy}.yaml") for proxy in ("mnist5k", "dummy")]
    cost = forecast_suite(members_of(plans), None)
    assert cost.n_trials == 6 + 12  # of the four candidates of each space, the naive ones are equal
    assert cost.n_trials_apart == 20


def test_a_trial_that_tuning_has_planned_and_another_space_has_counts_once(plan_of):
    fixed = SPACE.format(proxy="mnist5k", seeds=2)
    tuned = fixed + "    tune: {finetune.lr: [1e-3, 1e-4]}\n"
    plans = [plan_of(fixed, "fixed.yaml"), plan_of(tuned, "tuned.yaml")]
    before = forecast_suite(members_of(plans), None)
    assert (before.n_trials, before.n_left) == (4 + 4 + 4, 12)
    # All cells chose the rate that the other space has.
    done = {t.trial_id for plan in plans for t in plan.trials}
    taken = tuple(t.trial_id for t in plans[0].trials)
    members = [
        PlannedMember(plan=plan, is_done=done.__contains__, added=added)
        for plan, added in zip(plans, [(), taken], strict=True)
    ]
    after = forecast_suite(members, None)
    assert (after.n_trials, after.n_done, after.n_left) == (8, 8, 0)
    # Of one cell, nothing is known yet.
    half = [members[0], PlannedMember(plan=plans[1], is_done=done.__contains__, added=taken[:2])]
    assert (forecast_suite(half, None).n_trials, forecast_suite(half, None).n_left) == (10, 2)
