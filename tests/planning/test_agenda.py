"""What runs next: shared stages, tuning within cells, retries and budgets, with real plans and a simulated clock."""

import itertools
import math

import pytest

from tests.builders.agenda import World, make_agenda, name_shared

BASE = "base: {task: tiny, proxy: mnist5k, body.pretrain_fraction: 1}\n"


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_trial_runs_once_and_no_artifact_is_made_twice_at_once(plan_of, slots, seed):
    plan = plan_of(
        "base: {task: tiny, body.pretrain_fraction: 1}\n"
        "factors: {embedder.objective: [mmd, l2], proxy: [none, mnist5k, dummy], embedder.epochs: [1, 2, 4]}\nseeds: 3\n"
    )
    world = World(plan, slots, seed=seed)
    order = world.run()
    assert sorted(t.trial_id for t in order) == sorted(t.trial_id for t in plan.trials)


def test_the_longest_trial_makes_what_several_need_and_unrelated_trials_start_meanwhile(plan_of):
    plan = plan_of(
        "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.epochs: [1, 2, 4], finetune.lr: [1e-3, 1e-4]}\nseeds: 2\n"
    )
    agenda = make_agenda(plan)
    first = agenda.next()
    assert first.config.embedder.epochs == 4, "the run that holds the others' snapshots comes first"
    assert agenda.next() is None, "all need the proxy's features: they wait and hold nothing"
    agenda.passed(first.trial_id, "proxy-features")
    assert agenda.next() is None, "and all need the objective's constants"
    agenda.passed(first.trial_id, "objective")
    other = agenda.next()
    assert other.config.seed != first.config.seed, "the other seed's embedder is another run"
    assert agenda.next() is None
    agenda.passed(first.trial_id, "embedder")
    assert agenda.next().config.seed == first.config.seed
    assert agenda.makes(other.trial_id) and not agenda.makes(first.trial_id)


def test_another_trial_takes_over_from_a_maker_that_died(plan_of):
    plan = plan_of("base: {task: tiny, proxy: mnist5k}\nfactors: {finetune.lr: [1e-3, 1e-4]}\nseeds: 1\n")
    agenda = make_agenda(plan)
    first = agenda.next()
    assert agenda.next() is None
    agenda.ended(first.trial_id, {"status": "lost"})
    second = agenda.next()
    assert second.trial_id != first.trial_id
    assert agenda.makes(second.trial_id)


def test_a_trial_that_waits_for_another_sweep_starts_again_when_the_lock_is_free(plan_of):
    held = {"the lock"}
    plan = plan_of("base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 1\n")
    agenda = make_agenda(plan, is_held=held.__contains__)
    naive, orca = agenda.next(), agenda.next()
    agenda.waits(orca.trial_id, "the lock")
    agenda.ended(naive.trial_id, {"status": "ok"})
    assert agenda.next() is None and not agenda.is_over
    held.clear()
    assert agenda.next() == orca
    assert agenda.attempts[orca.trial_id] == 1, "waiting is not an attempt"
    agenda.ended(orca.trial_id, {"status": "ok"})
    assert agenda.is_over


TUNED = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.freeze: [none, body]}\nseeds: [0, 1, 5]\n"


def lr_score(config):
    """Best near 3e-3, and nearer 3e-4 with a proxy."""
    best = 3e-4 if config.proxy == "mnist5k" else 3e-3
    return abs(math.log(config.finetune.lr / best))


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize(
    ("tune", "n_candidates"),
    [
        ("tune: {finetune.lr: [1e-2, 3e-3, 3e-4]}", 3),
        ("tune: {finetune.lr: {low: 1e-5, high: 1e-1, log: true}}\nsearch: {method: random, candidates: 5}", 5),
        ("tune: {finetune.lr: {low: 1e-5, high: 1e-1, log: true}}\nsearch: {method: optuna, candidates: 13}", 13),
    ],
)
def test_each_cell_is_searched_alike_and_replicated_at_its_own_best(plan_of, slots, tune, n_candidates):
    plan = plan_of(f"{TUNED}{tune}\n")
    world = World(plan, slots, lr_score)
    order = world.run()
    cells = {cell.cell_id for cell in plan.tuned}
    assert len(cells) == 4
    for cell in cells:
        trials = [t for t in order if t.cell_id == cell]
        searched = [t for t in trials if t.role == "search"]
        replicates = [t for t in trials if t.role == "replicate"]
        assert len(searched) == n_candidates
        assert {t.seed for t in searched} == {1_000_000}, "a seed that no replicate has, now or with more of them"
        assert [t.seed for t in sorted(replicates, key=lambda t: t.seed)] == [0, 1, 5]
        best = min(searched, key=lambda t: lr_score(t.config))
        assert {t.config.finetune.lr for t in replicates} == {best.config.finetune.lr}
        assert order.index(replicates[0]) > max(order.index(t) for t in searched)
    assert len(plan.trials) + plan.n_later == len(order)
    assert {t.trial_id for t in (*plan.trials, *world.planned)} == {t.trial_id for t in order}


def test_random_candidates_are_the_same_in_every_cell_and_the_first_of_more(plan_of):
    text = f"{TUNED}tune: {{finetune.lr: {{low: 1e-5, high: 1e-1, log: true}}, finetune.batch_size: [8, 16]}}\n"
    few, many = (plan_of(f"{text}search: {{candidates: {n}}}\n") for n in (4, 9))
    rates = [[c.finetune.lr for c in cell.candidates] for cell in few.tuned]
    assert all(r == rates[0] for r in rates)
    assert [c.finetune.lr for c in many.tuned[0].candidates][:4] == rates[0]
    assert all(float(f"{rate:.3g}") == rate for rate in rates[0]), "numbers that can be typed in again"
    assert len({c.finetune.batch_size for c in many.tuned[0].candidates}) == 2


def test_optuna_does_better_than_chance_where_there_is_something_to_learn(plan_of):
    text = f"{TUNED}tune: {{finetune.lr: {{low: 1e-6, high: 1, log: true}}}}\n"
    mean_scores = {}
    for method in ("random", "optuna"):
        plan = plan_of(f"{text}search: {{method: {method}, candidates: 30}}\n")
        order = World(plan, 1, lr_score).run()
        scores = [lr_score(t.config) for t in order if t.role == "search"]
        mean_scores[method] = sum(scores) / len(scores)
    assert mean_scores["optuna"] < 0.8 * mean_scores["random"]


@pytest.mark.parametrize("cut", [1, 7, 20, 31])
def test_an_interrupted_search_ends_as_the_unbroken_one(plan_of, cut):
    text = f"{TUNED}tune: {{finetune.lr: {{low: 1e-5, high: 1e-1, log: true}}}}\nsearch: {{method: optuna, candidates: 12}}\n"
    plan = plan_of(text)
    whole = World(plan, 1, lr_score)
    whole.run()
    rows = {}
    broken = World(plan, 1, lr_score, rows=rows)
    with pytest.raises(AssertionError, match="the run does not end"):
        broken.run(most=cut)
    again = World(plan, 1, lr_score, rows=dict(rows))
    again.run()
    assert set(again.rows) == set(whole.rows)
    assert not {t.trial_id for t in again.order} & set(rows), "no trial runs twice"


def test_candidates_that_change_nothing_in_a_cell_are_one(plan_of):
    plan = plan_of(
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 2\n"
        "tune: {embedder.lr: [1e-3, 1e-2], finetune.lr: [1e-3, 1e-4]}\n"
    )
    assert [len(cell.candidates) for cell in plan.tuned] == [2, 4]


def test_a_cell_without_a_good_candidate_is_reported_and_not_replicated(plan_of):
    plan = plan_of(f"{TUNED}tune: {{finetune.lr: [1e-2, 1e-3]}}\n")
    world = World(plan, 2, lr_score, lambda trial, n: "diverged" if trial.config.proxy == "none" else "ok")
    order = world.run()
    bad = {cell.cell_id for cell in plan.tuned if cell.base.proxy == "none"}
    assert set(world.agenda.unreplicated) == bad
    assert {t.cell_id for t in order if t.role == "replicate"} == {c.cell_id for c in plan.tuned} - bad


def test_a_candidate_counts_by_its_mean_over_seeds_and_not_if_one_failed(plan_of):
    plan = plan_of(f"{TUNED}tune: {{finetune.lr: [1e-2, 1e-3, 1e-4]}}\nsearch: {{seeds: [7, 8]}}\n")

    def status(trial, n):
        return "failed" if trial.config.finetune.lr == 1e-2 and trial.seed == 8 else "ok"

    def score(config):
        return {1e-2: 0.0, 1e-3: 0.5 if config.seed == 7 else 0.1, 1e-4: 0.4}[config.finetune.lr]

    order = World(plan, 3, score, status).run()
    assert {t.config.finetune.lr for t in order if t.role == "replicate"} == {1e-3}


def test_outcomes_are_retried_as_the_space_says_and_the_last_attempt_counts(plan_of):
    text = (
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 2\noutcomes: {oom: {retry: 2}, failed: worst}\n"
    )
    plan = plan_of(text)
    ends = {"none": ["oom", "oom", "ok"], "mnist5k": ["failed"]}
    world = World(plan, 2, status=lambda trial, n: ends[trial.config.proxy][n - 1])
    order = world.run()
    counts = {p: sum(t.config.proxy == p for t in order) for p in ends}
    assert counts == {"none": 6, "mnist5k": 2}
    assert {row["status"] for row in world.rows.values()} == {"ok", "failed"}


@pytest.mark.parametrize(
    ("budget", "n_begun"),
    [("trials: 3", 3), ("cpu_hours: 4", 5), ("gpu_hours: 2", 5), ("hours: 0.002", None)],
)
def test_a_spent_budget_starts_nothing_more_and_is_named(plan_of, budget, n_begun):
    text = "base: {task: tiny, proxy: none}\nfactors: {finetune.lr: [1e-2, 1e-3, 1e-4]}\nseeds: 4\n"
    text += "resources: {cpu: 1, gpu: 0.5}\n"
    world = World(plan_of(f"{text}budget: {{{budget}}}\n"), 2)
    order = world.run()
    assert world.agenda.spent.startswith(f"budget.{budget.split(':')[0]} = ")
    assert len(order) == (n_begun or len(order)) < 12
    # The seconds of earlier launches count; budget.hours counts one launch.
    again = World(plan_of(f"{text}budget: {{{budget}}}\n"), 2, rows=world.rows)
    assert bool(again.run()) == budget.startswith("hours")


def test_each_of_a_thousand_trials_that_share_a_run_starts_once(plan_of):
    plan = plan_of(
        "base: {task: tiny, proxy: mnist5k}\n"
        f"factors: {{finetune.lr: [{', '.join(f'{1e-5 * (i + 1):.6g}' for i in range(50))}]}}\nseeds: 20\n"
    )
    assert len(plan.trials) == 1000
    world = World(plan, 8)
    assert len({t.trial_id for t in world.run()}) == len(world.order) == 1000


def test_the_longest_comes_first_only_among_those_that_share_a_run(plan_of):
    plan = plan_of(
        "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.objective: [mmd, l2], embedder.epochs: [1, 3]}\nseeds: 1\n"
    )
    world = World(plan, 1)
    order = [(t.config.embedder.objective, t.config.embedder.epochs) for t in world.run()]
    assert [e for o, e in order if o == "mmd"] == [3, 1] and [e for o, e in order if o == "l2"] == [3, 1]


def test_names_of_shared_stages_are_equal_exactly_where_the_work_is(plan_of):
    plan = plan_of(
        BASE + "factors: {finetune.lr: [1e-2, 1e-3], embedder.epochs: [0, 1, 2], embedder.lr: [1e-3, 1e-2]}\nseeds: 2\n"
    )
    by_stage = {}
    for trial in plan.trials:
        for stage, name in name_shared(trial.config).items():
            by_stage.setdefault(stage, set()).add(name)
    counts = {stage: len(names) for stage, names in by_stage.items()}
    assert counts == {"pretrain": 1, "proxy-features": 1, "objective": 1, "embedder": 2 * 2}
    for a, b in itertools.combinations(plan.trials, 2):
        same = name_shared(a.config).get("embedder") == name_shared(b.config).get("embedder") is not None
        assert same == (
            a.config.embedder.epochs > 0 < b.config.embedder.epochs
            and (a.seed, a.config.embedder.lr) == (b.seed, b.config.embedder.lr)
        )


# Values that matter for some candidates only ------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "tune", "path", "kept"),
    [
        ("finetune.momentum: 0.5", "finetune.optimizer: [adamw, sgd]", "finetune.momentum", {0.9, 0.5}),
        ("finetune.lora_alpha: 32", "finetune.lora_rank: [4, 8]", "finetune.lora_alpha", {32}),
        ("finetune.freeze_epochs: 1", "finetune.freeze: [none, body, embedder]", "finetune.freeze_epochs", {0, 1}),
        ("embedder.n_bandwidths: 9", "embedder.objective: [l2, mmd]", "embedder.n_bandwidths", {5, 9}),
    ],
)
def test_a_setting_of_the_space_holds_for_the_tuned_values_it_matters_for(plan_of, base, tune, path, kept):
    plan = plan_of(f"base: {{task: tiny, proxy: mnist5k, {base}}}\nfactors: {{}}\nseeds: 2\ntune: {{{tune}}}\n")
    (cell,) = plan.tuned
    assert {config.flat()[path] for config in cell.candidates} == kept
    assert len(cell.candidates) == tune.count(",") + 1


def test_a_factor_that_matters_for_some_candidates_only_stays_a_factor(plan_of):
    text = "base: {task: tiny}\nfactors: {finetune.momentum: [0, 0.9]}\nseeds: 2\ntune: {finetune.optimizer: [adamw, sgd]}\n"
    plan = plan_of(text)
    assert [plan.labels[cell.cell_id] for cell in plan.tuned] == [
        {"finetune.momentum": "0"},
        {"finetune.momentum": "0.9"},
    ]
    order = World(plan, 2, lambda config: config.finetune.optimizer == "adamw").run()
    best = {t.cell_id: t.config.finetune.momentum for t in order if t.role == "replicate"}
    assert sorted(best.values()) == [0, 0.9]


def test_one_trial_serves_every_cell_that_has_it_as_a_candidate_or_as_its_best(plan_of):
    text = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k, dummy]}\nseeds: 2\ntune: {embedder.epochs: [0, 2]}\n"
    plan = plan_of(text)
    world = World(plan, 2, lambda config: config.embedder.epochs == 2)
    order = world.run()
    assert len({t.trial_id for t in order}) == len(order), "no trial runs twice"
    assert world.agenda.unreplicated == []
    assert all(cell.is_replicated for cell in world.agenda.cells.values())
    assert len(plan.tuned) == 3
    # All three are best without embedder training: the same two replicates serve them all.
    uses = [use for uses in world.agenda.known.values() for use in uses if use.role == "replicate"]
    assert len(uses) == 3 * 2 and len({use.trial_id for use in uses}) == 2
    assert {use.cell_id for use in uses} == {cell.cell_id for cell in plan.tuned}


def test_more_seeds_do_not_change_the_search(plan_of):
    text = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\ntune: {finetune.lr: [1e-3, 1e-4]}\nseeds: "
    few, many = plan_of(f"{text}3\n"), plan_of(f"{text}40\naa: 3\n")
    assert [t.trial_id for t in few.trials] == [t.trial_id for t in many.trials]
    other = plan_of(f"{text}3\n".replace("1e-4", "1e-5"))
    assert not {c.cell_id for c in few.tuned} & {c.cell_id for c in other.tuned}, "another search is another cell"


def test_a_budget_counts_each_trial_once_however_often_it_started(plan_of):
    text = (
        "base: {task: tiny, proxy: none}\nfactors: {finetune.lr: [1e-2, 1e-3, 1e-4]}\nseeds: 2\nbudget: {trials: 4}\n"
    )
    world = World(plan_of(text), 1, status=lambda trial, n: "failed")
    assert len(world.run()) == 4
    again = World(plan_of(text), 1, rows=dict(world.rows))
    assert again.agenda.spent is not None
    more = World(plan_of(text.replace("trials: 4", "trials: 5")), 1, rows=dict(world.rows))
    assert len({t.trial_id for t in more.run()} | set(world.rows)) == 5
