"""The terms of a plan: what stops it, what ends or drops a trial, and what was chosen by default."""

import json
from dataclasses import replace

import pytest

from orca_sweep.planning.forecast import forecast
from orca_sweep.planning.terms import list_terms
from orca_sweep.trial import resolve_configs

TINY = "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.epochs: [0, 2], finetune.lr: [1e-3, 1e-2]}\nseeds: 3\n"
TUNED = "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.epochs: [0, 2]}\nseeds: 3\n"
TUNED += "tune: {finetune.lr: [1e-3, 1e-2]}\n"


def terms_of(plan, **known):
    """The texts of a plan's terms by topic; ``known`` are facts of the forecast."""
    estimate = replace(forecast(plan, None), **known)
    texts = {}
    for term in list_terms(plan, estimate, resolve_configs(plan.cells)):
        json.dumps(dict(term.facts))
        texts.setdefault(term.topic, []).append(term.text)
    return texts


def test_a_plan_without_terms_of_its_own_names_what_was_chosen_and_the_order(plan_of):
    assert terms_of(plan_of(TINY)) == {
        "body.name": ["swin-micro for tiny from its recipe, as the space names none"],
        "resources": ["1 CPU (1 thread), no GPU per trial (the default)"],
        "order": ["every cell with seed 0, then every cell with seed 1, and so on"],
    }


def test_body_and_proxy_are_named_where_the_space_names_none(plan_of):
    texts = terms_of(plan_of("factors: {task: [tiny, digits, ninapro]}\nseeds: 1\n"))
    assert texts["body.name"] == [
        "swin-micro for tiny, digits from their recipes; swin-base for ninapro from its recipe, as the space names none"
    ]
    assert texts["proxy"] == [
        "none for tiny from the field's default (every cell is naive); mnist5k for digits from its recipe; cifar10 for ninapro"
        " from its recipe, as the space names none"
    ]
    assert "order" not in texts
    named = terms_of(
        plan_of("base: {task: tiny, body.name: swin-micro}\nfactors: {proxy: [none, mnist5k]}\nseeds: 1\n")
    )
    assert named.keys() == {"resources"}
    ruled = "base: {task: tiny, proxy: none}\nfactors: {finetune.freeze: [none, body]}\nseeds: 1\n"
    ruled += "when: [{if: {finetune.freeze: body}, set: {body.name: swin-micro}}]\n"
    assert "body.name" not in terms_of(plan_of(ruled))


def test_a_declared_proxy_is_named_with_its_source(plan_of, tmp_path):
    own = "{path: ./a.csv, input: x, label: y, name: topics}"
    texts = terms_of(
        plan_of(f"base: {{task: tiny}}\nfactors: {{proxy: [none, {own}]}}\nplacebo: [shuffled]\nseeds: 1\n")
    )
    (text,) = texts["proxy names"]
    assert text.startswith("topics is read from /") and text.endswith("a.csv")


@pytest.mark.parametrize(
    ("budget", "known", "text"),
    [
        ("trials: 5", {}, "trials 5 is below the plan: it stops the sweep after 5 of 12 trials, which is every cell with 1 of 3"
         " seeds at most; 7 do not run"),
        ("trials: 12", {}, "trials 12 covers all 12 trials"),
        ("gpu_hours: 5", {}, "gpu_hours 5: no cost is known yet, so the plan cannot say whether it is enough"),
        ("gpu_hours: 5", {"n_known": 12, "gpu_hours": 8.0}, "gpu_hours 5 is below the plan: about 8 GPU-hours are left, 3 beyond"
         " it; it stops the sweep"),
        ("cpu_hours: 5", {"n_known": 10, "cpu_hours": 8.0}, "cpu_hours 5 is below the plan: about 8 CPU-hours are left, 3 beyond"
         " it; it stops the sweep, and 2 trials of unknown cost come on top"),
        ("cpu_hours: 5", {"n_known": 12, "cpu_hours": 4.0}, "cpu_hours 5 covers the 4 CPU-hours that are left; what earlier"
         " launches used counts too"),
        ("cpu_hours: 5", {"n_known": 10, "cpu_hours": 4.0}, "cpu_hours 5 covers what is known: the 4 CPU-hours that are left;"
         " what earlier launches used counts too, and 2 trials of unknown cost come on top"),
        ("hours: 5", {"n_known": 12, "trial_hours": 21.0}, "hours 5 for each launch: about 21 hours of trials are left, so that"
         " at least 5 must run at once"),
    ],
)  # fmt: skip
def test_a_budget_is_compared_with_the_plan(plan_of, budget, known, text):
    assert terms_of(plan_of(f"{TINY}budget: {{{budget}}}\n"), **known)["budget"] == [text]


def test_a_budget_of_trials_counts_what_tuning_plans_later(plan_of):
    text = terms_of(plan_of(f"{TUNED}budget: {{trials: 6}}\n"))["budget"][0]
    assert text == "trials 6 is below the plan: it stops the sweep after 6 of 10 trials; 4 do not run"
    assert terms_of(plan_of(TUNED))["order"] == ["the candidates of each cell first, then its best with every seed"]


def test_limits_are_compared_with_the_longest_trial(plan_of):
    plan = plan_of(f"{TINY}limits: {{trial_s: 60}}\n")
    start = "a trial ends as timeout at its next epoch after 60 s; launching again continues it"
    assert terms_of(plan)["limits"] == [start]
    assert terms_of(plan, longest_trial_s=42.0)["limits"] == [f"{start}; the longest trial is forecast at 42 s"]
    assert terms_of(plan, longest_trial_s=90.0, n_over_limit=6)["limits"] == [
        f"{start}; the longest trial is forecast at 90 s, and 6 of 12 trials at more than the limit"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TUNED + "prune: {name: asha, grace_epochs: 1}\n",
         "asha goes on with one in 3 at each rung after 1 fine-tuning epoch, comparing the candidates of each cell on validation"
         " data; replicates run to their end, so comparisons of cells are not affected"),
        (TINY + "prune: {name: median, cells: true, grace_epochs: 2}\n",
         "median ends those that do worse than the median of the others' running means after 2 fine-tuning"
         " epochs, comparing the cells of each"
         " task with one seed on validation data; pruned trials count in no mean, so that weak cells lack seeds and comparisons"
         " with them are biased; it cannot act in cells of 2 epochs"),
        (TUNED + "prune: {name: asha, cells: true}\n",
         "asha goes on with one in 3 at each rung after 1 fine-tuning epoch, comparing the cells of each task with one seed, and"
         " the candidates of each cell on validation data; pruned trials count in no mean, so that weak cells lack seeds and"
         " comparisons with them are biased"),
    ],
)  # fmt: skip
def test_pruning_says_what_it_compares_and_what_that_means(plan_of, text, words):
    assert terms_of(plan_of(text))["prune"] == [words]


def test_outcomes_resources_checkpoints_loggers_and_data_stand_in_the_plan(plan_of):
    more = "outcomes: {oom: {retry: 2}, diverged: worst, failed: {retry: 1, then: worst}}\n"
    more += (
        "resources: {cpu: 4, gpu: 0.25, custom: {fast: 1}, accelerator_type: A100}\nloggers: [csv, json, tensorboard]\n"
    )
    more += "checkpoints: {epochs: 5, minutes: 2.5}\naa: 2\n"
    texts = terms_of(plan_of(TINY.replace("base: {", "base: {data.n_train: 20, ") + more))
    assert texts["outcomes"] == [
        "oom: runs again up to 2 times, then left out of means and counted; diverged: counts as the worst trial of its task;"
        " failed: runs again up to 1 time, then counts as the worst trial of its task"
    ]
    assert texts["resources"] == ["4 CPUs (4 threads), 0.25 GPU, 1 fast, only on A100 per trial"]
    assert texts["checkpoints"] == [
        "state is saved every 5 epochs or 2.5 minutes, whichever comes first; a kill costs what lies between"
    ]
    assert texts["loggers"] == ["json, csv, tensorboard"]
    assert texts["order"] == ["every cell with seed 0, then every cell with seed 1, and so on, then the A/A cell"]
    assert texts["data.n_train"] == ["20 of an unknown number, and a trial fails if there are fewer (tiny)"]


def test_the_command_prints_terms_and_writes_them_as_json(write_space, tmp_path, monkeypatch, capsys):
    from tests.builders.in_process import command

    monkeypatch.chdir(tmp_path)
    space = write_space(TINY + "budget: {trials: 5}\n")
    assert command(monkeypatch, "plan", space) == 0
    text = capsys.readouterr().out
    assert "\nbody.name: swin-micro for tiny from its recipe" in text and "\nbudget: trials 5 is below the plan" in text
    assert command(monkeypatch, "plan", space, "--json") == 0
    terms = json.loads(capsys.readouterr().out)["terms"]
    assert all(term.keys() == {"topic", "text", "facts"} for term in terms)
    (budget,) = [term for term in terms if term["topic"] == "budget"]
    assert budget["facts"] == {"trials": 5, "n_planned": 12, "n_beyond": 7, "n_complete_seeds": 1}


def test_the_forecast_counts_the_trials_over_the_limit(plan_of, worker, tmp_path):
    from orca_sweep.training.run import RunContext, run_config

    text = "base: {{task: tiny, proxy: none, finetune.epochs: {}}}\nfactors: {{finetune.lr: [1e-3]}}\nseeds: 2\n{}"
    plan = plan_of(text.format(2, ""))
    run_config(plan.trials[0].config, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path))
    estimate = forecast(plan_of(text.format(2000, "limits: {trial_s: 0.5}\n")), worker.store)
    assert (estimate.n_known, estimate.n_over_limit) == (2, 2) and estimate.longest_trial_s > 0.5
    assert forecast(plan_of(text.format(2000, "")), worker.store).n_over_limit == 0
