"""What a plan says about its cost and its power, and what it warns of."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from orca_sweep.errors import InputError
from orca_sweep.planning.forecast import forecast
from orca_sweep.planning.probe import probe
from orca_sweep.space.confounds import find_confounds
from orca_sweep.stats import smallest_effect, smallest_p
from orca_sweep.stats.contrasts import LARGEST_EFFECT
from orca_sweep.training.run import RunContext, run_config

SPACE = """
base: {task: tiny, body.pretrain_fraction: 1, body.pretrain_steps: 2, finetune.epochs: 4}
factors: {proxy: [none, mnist5k], finetune.lr: [1e-3, 1e-2], embedder.epochs: [1, 3]}
seeds: 2
"""


# Seeds --------------------------------------------------------------------------------------------


def test_the_smallest_p_is_that_of_the_exact_test():
    for n in range(1, 9):
        ones = np.ones(n) + np.arange(n) / 100  # all differences have one sign
        signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
        means = np.abs((signs * ones[:, None]).mean(axis=0))
        assert smallest_p(n) == pytest.approx((means >= means.max() - 1e-12).mean())
    assert smallest_p(0) == 1.0
    assert smallest_p(5) == 0.0625
    assert 0 <= smallest_p(1250) < 1e-300  # a plan of as many seeds is no error


@pytest.mark.parametrize(("n", "k"), [(3, 1), (5, 1), (5, 7), (10, 4), (40, 1)])
def test_the_smallest_effect_has_the_power_it_says(n, k):
    effect = smallest_effect(n, k)
    critical = scipy_stats.t.ppf(1 - 0.05 / k / 2, n - 1)
    rng = np.random.default_rng(0)
    draws = rng.normal(effect, 1, size=(40_000, n))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / math.sqrt(n))
    assert (np.abs(t) > critical).mean() == pytest.approx(0.8, abs=0.01)


def test_one_seed_detects_nothing_and_more_seeds_detect_smaller_effects():
    assert smallest_effect(1) == math.inf
    effects = [smallest_effect(n) for n in range(2, 20)]
    assert effects == sorted(effects, reverse=True)
    assert smallest_effect(5, 6) > smallest_effect(5, 1)
    assert smallest_effect(2, 1999, power=0.5) == LARGEST_EFFECT


@pytest.mark.parametrize("n_comparisons", [1, 1999])
def test_no_number_of_pairs_sends_the_smallest_effect_into_the_slow_tail(n_comparisons):
    # SciPy takes 15 seconds for the noncentral t at 79 pairs and an effect of 10,000 standard deviations.
    start = time.process_time()
    effects = [smallest_effect(n, n_comparisons) for n in range(3, 200)]
    assert time.process_time() - start < 2
    assert effects == sorted(effects, reverse=True)


def test_a_plan_says_what_its_seeds_can_show(plan_of):
    contrasts = forecast(plan_of(SPACE), None).contrasts[0]
    assert (contrasts.task, contrasts.n_seeds, contrasts.n_comparisons) == ("tiny", 2, 5)
    assert (contrasts.smallest_p, contrasts.corrected_p) == (0.5, 1.0)
    assert math.isnan(contrasts.smallest_effect)  # two pairs judge nothing
    assert contrasts.spread is None
    assert forecast(plan_of("base: {task: tiny}\nfactors: {proxy: [none]}\nseeds: 3\n"), None).contrasts == ()


# Stages and hours ---------------------------------------------------------------------------------


def counts(estimate):
    return {stage.name: (stage.n_computed, stage.n_reused) for stage in estimate.stages}


def test_stages_are_computed_before_a_sweep_and_reused_after_it(plan_of, worker, tmp_path):
    plan = plan_of(SPACE)
    store = worker.store
    before = forecast(plan, store)
    assert counts(before) == {"pretrain": (1, 0), "proxy-features": (1, 0), "objective": (1, 0), "embedder": (2, 0)}
    assert (before.n_trials, before.n_left, before.n_known, before.trial_hours) == (12, 12, 0, 0.0)
    rows = {}
    for trial in plan.trials:
        rows[trial.trial_id] = run_config(
            trial.config,
            RunContext(folder=tmp_path / "sweep", worker=worker, data_root=tmp_path, snapshot_epochs=(1, 3)),
        )
    after = forecast(plan, store)
    assert counts(after) == {"pretrain": (0, 1), "proxy-features": (0, 1), "embedder": (0, 2)}
    assert after.n_known == 12
    spent = sum(row["finetune_s"] for row in rows.values()) / 3600
    assert 0.3 * spent < after.trial_hours < 4 * sum(row["wall_time_s"] for row in rows.values()) / 3600
    assert after.cpu_hours == after.trial_hours and after.gpu_hours == 0
    assert after.contrasts[0].spread == pytest.approx(pooled(rows.values()))
    n_parameters = {row["n_parameters"] for row in rows.values()}
    assert after.checkpoint_mib == pytest.approx(4 * 4 * max(n_parameters) / 2**20)
    # What gc removes must be computed again, but not for trials that are done.
    for entry in store.list_entries():
        if entry.stage in ("embedder", "pretrain"):
            store.remove_entry(entry)
    assert counts(forecast(plan, store))["embedder"] == (2, 0)
    assert counts(forecast(plan, store))["pretrain"] == (1, 0)
    assert forecast(plan, store, lambda trial_id: True).n_left == 0
    # The numbers depend on the threads: rows of another count predict nothing.
    two = replace(plan, space=replace(plan.space, resources=plan.space.resources.model_copy(update={"cpu": 2.0})))
    assert forecast(two, store).n_known == 0


def pooled(rows):
    cells = {}
    for row in rows:
        cells.setdefault(row["cell_id"], []).append(row["val_metric_best"])
    return math.sqrt(np.mean([np.var(values, ddof=1) for values in cells.values()]))


def test_hours_grow_with_epochs_and_resources(plan_of, worker, tmp_path):
    plan = plan_of("base: {task: tiny, proxy: none, finetune.epochs: 4}\nfactors: {finetune.lr: [1e-3]}\nseeds: 1\n")
    run_config(plan.trials[0].config, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path))
    text = "base: {{task: tiny, proxy: none, finetune.epochs: {}}}\nfactors: {{finetune.lr: [1e-2]}}\nseeds: {}\n{}"
    hours = {
        (epochs, seeds): forecast(plan_of(text.format(epochs, seeds, "")), worker.store).trial_hours
        for epochs in (4, 400)
        for seeds in (1, 3)
    }
    assert hours[4, 3] == pytest.approx(3 * hours[4, 1])
    assert 1 < hours[400, 1] / hours[4, 1] <= 100
    unknown = forecast(
        plan_of("base: {task: digits, body.name: swin-micro, proxy: none}\nfactors: {}\nseeds: 2\n"), worker.store
    )
    assert (unknown.n_known, unknown.n_left, unknown.trial_hours) == (0, 2, 0.0)


def test_a_tuned_plan_counts_the_trials_that_tuning_plans_later(plan_of):
    text = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 3\naa: 2\n"
    text += "tune: {finetune.lr: {low: 1e-5, high: 1e-2}}\n"
    estimate = forecast(plan_of(f"{text}search: {{method: random, candidates: 5}}\n"), None)
    assert estimate.n_trials == 2 * 5 + 2 * 3 + 2
    estimate = forecast(plan_of(f"{text}search: {{method: optuna, candidates: 5, seeds: [7, 8]}}\n"), None)
    assert estimate.n_trials == 2 * 5 * 2 + 2 * 3 + 2
    assert estimate.n_left == estimate.n_trials


def test_a_probe_makes_all_costs_known(plan_of, worker, tmp_path):
    plan = plan_of(SPACE)
    lines = []
    probe(plan, worker.store, tmp_path, lines.append)
    assert len(lines) == 2, "naive, and towards the proxy"
    estimate = forecast(plan, worker.store)
    assert estimate.n_known == 12 and estimate.trial_hours > 0
    assert counts(estimate)["pretrain"] == (0, 1) and counts(estimate)["embedder"] == (2, 0)
    on_gpu = replace(plan, space=replace(plan.space, resources=plan.space.resources.model_copy(update={"gpu": 1.0})))
    with pytest.raises(InputError, match=r"asks for resources.gpu 1, but this machine has no GPU"):
        probe(on_gpu, worker.store, tmp_path, lines.append)
    broken = plan_of("base: {task: broken}\nfactors: {proxy: [none]}\nseeds: 1\n")
    with pytest.raises(InputError, match=r"^probe: broken with swin-micro ended as failed"):
        probe(broken, worker.store, tmp_path, lines.append)


def test_rows_of_other_versions_do_not_count(plan_of, worker, tmp_path):
    plan = plan_of("base: {task: tiny, proxy: none}\nfactors: {finetune.lr: [1e-3]}\nseeds: 1\n")
    run_config(plan.trials[0].config, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path))
    store = worker.store
    row = store.read_rows(1)[0]
    assert forecast(plan, store).n_known == 1
    for change in ({"schema": -1}, {"versions": "torch=0"}, {"device": "cuda"}, {"machine": "z80"}):
        store.put_row(row["trial_id"], {**row, **change})
        assert forecast(plan, store).n_known == 0, change
    store.put_row(row["trial_id"], {**row, "config": {**row["config"], "gone.knob": 1}})
    assert forecast(plan, store).n_left == 1  # and no error


# Confounds ----------------------------------------------------------------------------------------

TUNED = "tune: {finetune.lr: [1e-3, 1e-4]}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("factors: {proxy: [none, mnist5k]}\n", "All cells of a task share finetune.lr, and no other was tried: 0.001 (tiny)"),
        ("factors: {finetune.freeze: [none, body], finetune.epochs: [2, 4]}\ndesign: zip\n",
         "finetune.freeze and finetune.epochs move together in every cell of tiny"),
        ("factors: {finetune.freeze: [none, body]}\nwhen: [{if: {finetune.freeze: body}, set: {finetune.lr: 1e-2}}]\n",
         "finetune.freeze and finetune.lr move together"),
        ("factors: {finetune.freeze: [none, body], finetune.batch_size: [8, 16]}\n",
         "The cells of tiny are not matched in fine-tuning steps (finetune.batch_size 8, 16)"),
        ("factors: {proxy: [none, mnist5k]}\ntune: {embedder.lr: [1e-3, 1e-2], finetune.lr: [1e-3, 1e-4]}\n",
         "The cells are not matched in tuning effort: they try different numbers of candidates (2 in 1 cell, 4 in 1 cell)"),
        ("base: {proxy: mnist5k}\nfactors: {embedder.lr: [1e-3, 1e-2], embedder.epochs: [1, 2]}\ndesign: zip\n",
         "embedder.lr and embedder.epochs move together"),
        ("factors: {finetune.freeze: [none, body lr*10, 'embedder:1 > none fresh']}\n",
         "finetune.freeze 'body lr*10', 'embedder:1 > none fresh' in tiny sets learning rates or fresh starts"),
    ],
)  # fmt: skip
def test_the_plan_warns_of_effects_that_cannot_be_separated(plan_of, text, words):
    base = "base: {task: tiny, proxy: mnist5k}\n" if "proxy:" not in text else "base: {task: tiny}\n"
    text = text.replace("base: {proxy: mnist5k}\n", "")
    base = base if "embedder.lr" not in text or "factors: {proxy" in text else "base: {task: tiny, proxy: mnist5k}\n"
    assert any(words in str(warning) for warning in find_confounds(plan_of(f"{base}{text}seeds: 2\n"))), words


@pytest.mark.parametrize(
    "text",
    [
        f"factors: {{proxy: [none, mnist5k]}}\n{TUNED}",
        "factors: {proxy: [none, mnist5k], finetune.lr: [1e-3, 1e-4]}\n",
        "factors: {finetune.epochs: [2, 4], finetune.lr: [1e-3, 1e-4]}\n" + "exclude: [{finetune.lr: 1e-4}]\n",
        "factors: {proxy: [none, mnist5k], embedder.epochs: [0, 2]}\n" + TUNED,
        "factors: {finetune.freeze: [none, body, body lr*10, none lr*10], finetune.freeze_epochs: [1, forever]}\n",
        "factors: {finetune.freeze: ['body:1 > none fresh', body], proxy: [none, mnist5k]}\n"
        "base: {task: tiny, finetune.freeze_epochs: 1, finetune.epochs: 4}\n",
    ],
)
def test_the_plan_does_not_warn_of_effects_that_can_be_separated(plan_of, text):
    base = "" if "base:" in text else "base: {task: tiny}\n"
    warnings = "\n".join(map(str, find_confounds(plan_of(f"{base}{text}seeds: 2\n"))))
    assert not any(words in warnings for words in ("move together", "tuning effort", "fresh starts")), warnings


# The command --------------------------------------------------------------------------------------


def test_plan_prints_the_forecast_and_its_json_is_valid(write_space, tmp_path, monkeypatch, capsys):
    from tests.builders.in_process import command

    monkeypatch.chdir(tmp_path)
    space = write_space(SPACE + "aa: 1\nbudget: {gpu_hours: 5, trials: 9}\n")
    assert command(monkeypatch, "plan", space, "--store", tmp_path / "store", "--probe") == 0
    shown = capsys.readouterr()
    assert shown.err.count("probed tiny") == 2
    for words in (
        "6 cells x 2 seeds + 1 A/A = 13 trials; 2 combinations are the same work as another and run once",
        "stages to compute, once for all trials that share them: pretrain 0 (+ 1 found), proxy-features 0 (+ 1 found)",
        "embedder 2",
        "hours of trials one after another",
        "from 2 earlier rows",
        "each cell against the first of tiny, 2 seeds: no difference can be judged, at least 3 seeds are needed",
        "budget: trials 9 is below the plan: it stops the sweep after 9 of 13 trials, which is every cell with 1 of 2 seeds",
        "budget: gpu_hours 5 covers the 0 GPU-hours that are left",
        "resources: 1 CPU (1 thread), no GPU per trial (the default)",
    ):
        assert words in shown.out, words
    assert command(monkeypatch, "plan", space, "--json") == 0
    estimate = json.loads(capsys.readouterr().out)["forecast"]
    assert estimate["n_left"] == 13 and estimate["n_known"] == 0
    assert [stage["name"] for stage in estimate["stages"]] == [
        "pretrain",
        "proxy-features",
        "objective",
        "embedder",
    ]
    one_seed = write_space("base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 1\n", "one.yaml")
    assert command(monkeypatch, "plan", one_seed, "--json") == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["contrasts"][0]["smallest_effect"] is None
    assert command(monkeypatch, "plan", one_seed) == 0
    assert "1 seed: no difference can be judged" in capsys.readouterr().out
    assert command(monkeypatch, "plan", one_seed, "--store", "nosuch://x") == 2
