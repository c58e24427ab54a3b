"""Resolved trials: each name is looked up once, and a knob that does not act has one fixed value."""

import random
import re
from pathlib import Path

import pytest

from orca_sweep.config import default_settings, find_idle, read_facts
from orca_sweep.config.acting import BY_FORM, DEFAULT
from orca_sweep.errors import NO_VALUE, InputError
from orca_sweep.training.run import RunContext, run_config, run_trial
from orca_sweep.trial import Records, make_config, records, resolve_config, resolve_configs, resolve_settings
from orca_sweep.trial.facts import describe_records
from orca_sweep.trial.records import KnownRecords

REPO = Path(__file__).resolve().parents[2]
FINDERS = r"\b(find_task|find_body|find_proxy|find_rung)\("
LEVELS = {
    "task": ["digits", "darcy-generated", "ecg", "ninapro", "deepsea", "cifar100"],
    "proxy": ["none", "mnist5k", "pydoc-topics", "dummy", "conll2003-ner", "orca-text"],
    "body.name": ["swin-micro", "roberta-micro", "minilm", "vit-base", "gpt2"],
    "body.pretrain_fraction": [0, 1],
    "body.pretrain_steps": [None, 300, 100],
    "body.allow_pickle": [True, False],
    "data.augment": [True, False],
    "embedder.init": ["copied", "random", "orca-untrained"],
    "embedder.channel_copy": ["cycled", "mean"],
    "embedder.epochs": [0, 20],
    "embedder.objective": ["otdd-exact", "mmd", "l2", "none"],
    "embedder.epsilon": [0.1, 0.5],
    "embedder.n_bandwidths": [5, 3],
    "embedder.optimizer": ["adamw", "sgd"],
    "embedder.momentum": [0.9, 0.5],
    "embedder.lr_decay": [0.2, 1],
    "embedder.lr_decay_after": [None, "5, 10"],
    "embedder.proxy_scaling": ["proxy", "body", "none"],
    "embedder.proxy_pooling": ["mean", "token"],
    "embedder.n_pseudo_classes": [10, 3],
    "embedder.target_length": [512, 64],
    "predictor.dense": ["released", "linear"],
    "finetune.epochs": [1, 20],
    "finetune.freeze": ["none", "body", "both", "linear-probe", "gradual-unfreeze", "none constant", "body:5 > none"],
    "finetune.freeze_epochs": [0, 5, 30],
    "finetune.lora_rank": [None, 2],
    "finetune.lora_alpha": [16, 8],
    "finetune.dropout": [None, 0.1, 0.2],
    "finetune.warmup_epochs": [0, 2],
}


def test_the_records_are_those_that_the_config_names():
    trial = resolve_settings({"task": "digits", "proxy": "mnist5k", "embedder.objective": "mmd"})
    named = (trial.task.name, trial.body.name, trial.proxy.name, trial.objective.name)
    assert named == ("digits", trial.config.body.name, "mnist5k", "mmd")
    assert trial == resolve_config(trial.config) and trial.rung is trial.body
    naive = resolve_settings({"task": "digits", "embedder.epochs": 0})
    assert (naive.proxy.name, naive.objective.name) == ("none", "none")


def test_each_name_is_looked_up_once(monkeypatch):
    calls = []
    for kind in ("task", "body", "proxy"):
        find = getattr(records, f"find_{kind}")
        monkeypatch.setattr(records, f"find_{kind}", lambda name, find=find: calls.append(name) or find(name))
    known = Records()
    settings = [{"task": "digits", "proxy": "mnist5k", "finetune.lr": lr} for lr in (1e-3, 1e-4)]
    configs = [make_config(flat, known) for flat in settings]
    assert [known.resolve_config(config).config for config in configs] == configs
    assert sorted(calls) == sorted(set(calls)) and {"digits", "mnist5k"} <= set(calls)
    calls.clear()
    resolve_configs(configs)
    assert sorted(calls) == ["digits", "mnist5k", "swin-micro"]


def test_an_unknown_name_is_remembered_too():
    known = Records()
    for _ in range(2):
        with pytest.raises(InputError, match="there is no body 'nope'"):
            known.get_body("nope")
    assert known.get_known({"task": "digits", "body.name": "nope"}).body is None


def test_rooms_below_do_not_look_names_up():
    folders = [REPO / "orca_sweep" / room for room in ("trial", "training", "planning", "sweep")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    callers = {path.name for path in paths if re.search(FINDERS, path.read_text())}
    assert callers <= {"records.py"}


def test_idle_knobs_have_one_value_and_resolving_again_changes_nothing():
    rng, n_resolved = random.Random(0), 0
    for _ in range(300):
        settings = {path: rng.choice(levels) for path, levels in LEVELS.items() if path == "task" or rng.random() < 0.4}
        try:
            trial = resolve_settings(settings)
        except InputError:
            continue
        n_resolved += 1
        flat = trial.config.flat()
        known = KnownRecords(task=trial.task, body=trial.body, proxy=trial.proxy, objective=trial.objective)
        for path, rule in find_idle(read_facts(flat, **describe_records(known))).items():
            if rule.idle is not BY_FORM:
                assert flat[path] == (default_settings()[path] if rule.idle is DEFAULT else rule.idle), (path, settings)
        own = {path: value for path, value in flat.items() if not path.startswith("content.")}
        assert make_config(own) == trial.config, settings
    assert n_resolved > 100


# Problems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"task": "nope"}, ["task"]),
        ({"task": "digits", "body.name": "nope", "embedder.objective": "nope"}, ["embedder.objective", "body.name"]),
        ({"task": "digits", "proxy": "pydoc-topics", "finetune.decay_epochs": 1, "finetune.warmup_epochs": 2},
         ["proxy", "finetune.decay_epochs"]),
        ({"task": "digits", "finetune.lr": -1}, ["finetune.lr"]),
        ({"task": "digits", "body.name": "roberta-base", "body.pretrain_fraction": 0.5},
         ["body.pretrain_fraction", "proxy"]),
        ({"task": "digits", "body.name": "roberta-base", "proxy": "agnews", "body.pretrain_fraction": 0.0033,
          "body.pretrain_seed": 9}, ["body.pretrain_seed"]),
        ({"task": "digits", "body.input_mode": "flip"}, ["body.input_mode"]),
        ({"task": "digits", "data.n_train": 10**6}, ["data.n_train"]),
        ({"task": "digits", "finetune.freeze": "body.layers[0:99]"}, ["finetune.freeze"]),
        ({"task": "digits", "seed_varies": "augmentation"}, ["seed_varies"]),
        ({"task": "digits", "finetune.freeze": "gradual-unfreeze", "finetune.freeze_epochs": "forever"},
         ["finetune.freeze_epochs"]),
    ],
)  # fmt: skip
def test_each_problem_has_its_field_and_value(settings, fields):
    with pytest.raises(InputError) as caught:
        resolve_settings(settings)
    problems = caught.value.problems
    assert [problem.field for problem in problems] == fields
    assert all(problem.value is not NO_VALUE and problem.rule.endswith(("?", ".")) for problem in problems)


def test_a_missing_field_has_no_value():
    with pytest.raises(InputError) as caught:
        resolve_settings({})
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("task", NO_VALUE)
    assert str(problem) == "task: this field is missing. Set it in base or as a factor."


def test_gradual_unfreezing_forever_is_a_problem_where_the_predictor_has_no_weights_too():
    settings = {"task": "ecg", "finetune.freeze": "gradual-unfreeze", "finetune.freeze_epochs": "forever"}
    for task in ("ecg", "deepsea", "burgers", "1d-cfd"):
        with pytest.raises(InputError, match="needs the number of epochs between two thaws"):
            resolve_settings({**settings, "task": task, "predictor.dense": "released"})


# Running ------------------------------------------------------------------------------------------


def test_a_trial_that_cannot_be_resolved_here_fails(tmp_path, worker, user_tasks):
    config = make_config({"task": "digits"}).model_copy(update={"task": "unknown-here"})
    row = run_config(config, RunContext(folder=tmp_path, worker=worker, data_root=tmp_path))
    assert row["status"] == "failed" and "there is no task 'unknown-here'" in row["error"]
    gone = RunContext(folder=tmp_path, worker=worker, data_root=tmp_path, imports=(f"{tmp_path}/gone.py",))
    row = run_config(make_config({"task": "tiny"}), gone)
    assert row["status"] == "failed" and "cannot be imported" in row["error"]


def test_a_resolved_trial_runs_with_its_records(tmp_path, worker, user_tasks):
    trial = resolve_settings({"task": "tiny", "proxy": "mnist5k", "embedder.epochs": 1, "finetune.epochs": 1})
    stages = []
    context = RunContext(folder=tmp_path, worker=worker, data_root=tmp_path, passed=stages.append)
    assert run_trial(trial, context)["status"] == "ok"
    assert stages == ["pretrain", "proxy-features", "pseudo-labels", "embedder"]
