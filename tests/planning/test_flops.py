"""The count of operations in a plan, beside what torch counts in the same model, and what the plan says of it."""

import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from orca_sweep.bodies import BODIES
from orca_sweep.bodies.published import PUBLISHED, read_known_settings
from orca_sweep.bodies.records import count_config_layers
from orca_sweep.bodies.spec import make_body_spec
from orca_sweep.planning.flops import Network, make_model
from orca_sweep.planning.forecast import forecast
from orca_sweep.trial import resolve_settings
from tests.builders.in_process import command

SETTINGS = {
    "swin": {"task": "ninapro", "body.name": "swin-micro"},
    "roberta": {"task": "ecg", "body.name": "roberta-micro"},
    "labels": {"task": "deepsea", "body.name": "roberta-micro", "embedder.target_length": 64},
    "dense": {"task": "darcy", "body.name": "swin-micro"},
    "frozen-body": {"task": "ninapro", "body.name": "swin-micro", "finetune.freeze": "body:forever"},
    "frozen-embedder": {"task": "ecg", "body.name": "roberta-micro", "finetune.freeze": "embedder:forever"},
}
B = 2


def resolve(name, **more):
    fixed = {"body.pretrain_fraction": 0, "finetune.attention": "eager", "finetune.epochs": 1}
    return resolve_settings({**SETTINGS[name], **fixed, **more})


def count_with_torch(trial):
    """The operations of torch's matrix products on a sample: forward, and forward with backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from orca_sweep.bodies.network import LoadedBody, build_random_model
    from orca_sweep.config.freezing import parse_schedule
    from orca_sweep.training.freezing import freeze_weights
    from orca_sweep.training.model import build_model

    body = LoadedBody(model=build_random_model(trial.body, 0))
    body.model.set_attn_implementation("eager")
    model = build_model(SimpleNamespace(task=trial.task, target_mean=None, target_std=None), body, trial.config)
    tuning = trial.config.finetune
    freeze_weights(model, parse_schedule(tuning.freeze, tuning.freeze_epochs)[0].frozen)
    x = torch.zeros(B, *trial.task.sample_shape)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(x)
    with FlopCounterMode(display=False) as both:
        model(x).sum().backward()
    return forward.get_total_flops() / B, both.get_total_flops() / B


@pytest.mark.parametrize("name", SETTINGS)
def test_the_count_is_that_of_torch(name):
    trial = resolve(name)
    task = replace(trial.task, published_sizes=(1, 0, 0))
    model = make_model(replace(trial, task=task))
    forward, both = count_with_torch(trial)
    # Averages of a dense prediction are not counted: 4% of so small a model.
    assert model.forward.total == pytest.approx(forward, rel=0.05 if name == "dense" else 0.02)
    assert model.count_finetuning(trial.config) == pytest.approx(both, rel=0.05)


@pytest.mark.parametrize(("name", "millions"), [("swin-base", 86.7), ("roberta-base", 124.1)])
def test_base_bodies_have_the_published_numbers_of_weights(name, millions):
    body = BODIES.get(name)
    network = Network(family=body.architecture, settings=read_known_settings(body))
    assert network.n_parameters / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_configs_are_those_of_the_registered_bodies(name):
    body, settings = BODIES.get(name), read_known_settings(BODIES.get(name))
    assert count_config_layers(body.architecture, settings) == body.published_layers
    assert Network(family=body.architecture, settings=settings).n_layers == body.published_layers
    assert make_body_spec(body.architecture, settings).in_channels == (body.published_channels or 0)
    width = settings.get("hidden_size", settings.get("n_embd", settings.get("embed_dim")))
    assert width % 32 == 0


def test_a_swin_of_224_pixels_takes_the_published_operations():
    settings = read_known_settings(BODIES.get("swin-base"))
    # 15.4 G multiplications with additions (Liu et al. 2021, table 1), each two operations; the patch layer is not in it.
    assert Network(family="swin", settings=settings).count_forward(3136) / 2 / 1e9 == pytest.approx(15.4, rel=0.03)


def make_counts(**settings):
    trial = resolve_settings({"task": "ninapro", **settings})
    return make_model(trial), trial.config


def test_freezing_costs_less_and_a_frozen_model_is_run_once():
    costs = {}
    for freeze in ("none", "embedder", "body", "both"):
        model, config = make_counts(**{"finetune.freeze": freeze, "finetune.freeze_epochs": "forever"})
        costs[freeze] = model.count_finetuning(config)
    body, n = model.forward.body, 2_638
    assert costs["none"] == pytest.approx(60 * (3 * n + 659) * body, rel=0.02)
    assert costs["embedder"] < costs["none"]
    assert costs["body"] == pytest.approx(60 * (2 * n + 659) * body, rel=0.02)
    assert costs["both"] == pytest.approx((n + 659) * body, rel=0.02)


def test_frozen_samples_that_are_augmented_run_in_every_epoch():
    frozen = {"finetune.freeze": "linear-probe", "task": "cifar100"}
    (every, a), (once, b) = make_counts(**frozen), make_counts(**frozen, **{"data.augment": False})
    assert every.count_finetuning(a) > 40 * once.count_finetuning(b)


SPACE = """
base: {task: ninapro, finetune.precision: float32}
factors: {proxy: [none, cifar10], finetune.epochs: [30, 60]}
seeds: 2
resources: {gpu: 1}
"""


def test_a_plan_without_timed_trials_says_hours_by_sizes(plan_of):
    estimate = forecast(plan_of(SPACE), None)
    sizes = estimate.flops
    model, config = make_counts()
    per_epoch = model.count_finetuning(config) / 60
    assert sizes.n_trials == 8
    # Trials that differ in the number of epochs alone share them.
    assert sizes.finetune == pytest.approx(4 * 60 * per_epoch, rel=1e-9)
    assert sizes.gpu_hours == pytest.approx(sizes.flops / 20e12 / 3600)
    assert sizes.at_throughput(40).gpu_hours == pytest.approx(sizes.gpu_hours / 2)
    assert forecast(plan_of(SPACE.replace("gpu: 1", "gpu: 0")), None).flops is None
    assert forecast(plan_of(SPACE.replace("ninapro", "cosmic")), None).flops is None
    assert forecast(plan_of(SPACE.replace("gpu: 1", "gpu: 2")), None).flops.gpu_hours == 2 * sizes.gpu_hours


def test_the_words_name_hours_operations_throughput_and_that_nothing_was_timed(plan_of):
    from orca_sweep.api.describing import describe_plan

    plan = plan_of(SPACE)
    lines = list(describe_plan(plan, forecast(plan, None), terms=(), notes=(), ways=("--probe", "--probe")))
    (cost,) = [line for line in lines if line.startswith("cost:")]
    assert "about 0.89 GPU-hours, estimated from 6.4e+16 FLOPs" in cost
    assert (
        "FLOPs at 20 TFLOP/s in float32 (assumed), right within a factor of 2 or 3: no such trial has been timed"
        in cost
    )


def test_thousands_of_trials_are_counted_fast(plan_of):
    plan = plan_of(SPACE.replace("seeds: 2", "seeds: 500"))
    start = time.process_time()
    with_sizes = forecast(plan, None)
    spent = time.process_time() - start
    assert with_sizes.flops.n_trials == 2000
    assert math.isfinite(with_sizes.flops.flops)
    assert spent < 2


def test_the_command_takes_another_throughput_and_gives_facts(tmp_path, capsys, monkeypatch):
    (tmp_path / "space.yaml").write_text(SPACE)
    plan = ("plan", tmp_path / "space.yaml", "--out", tmp_path / "out")
    facts = []
    for more in ((), ("--tflops", "40")):
        assert command(monkeypatch, *plan, "--json", *more) == 0
        facts.append(json.loads(capsys.readouterr().out)["forecast"]["flops"])
    assert (facts[0]["n_trials"], facts[0]["tflops"], facts[1]["tflops"]) == (8, 20, 40)
    assert facts[1]["gpu_hours"] == pytest.approx(facts[0]["gpu_hours"] / 2)
    assert command(monkeypatch, *plan, "--tflops", "0") == 2


def test_a_plan_says_whose_numbers_of_samples_are_a_guess():
    from orca_sweep import Suite

    plan = Suite.from_yaml("study").plan()
    assert plan.cost.flops.guessed == ("ecg", "deepsea")
    assert "how many samples ecg and deepsea have is partly a guess" in repr(plan)
    assert plan.cost.members[2].flops.guessed == ()  # figure2_2d
