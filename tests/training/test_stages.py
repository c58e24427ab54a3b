"""Stages and whole trials: pairing, exact reuse, exact resume, freezing, test-set custody, failures."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orca_sweep.bodies import find_body
from orca_sweep.config import FinetuneConfig
from orca_sweep.data import Samples
from orca_sweep.errors import DataError
from orca_sweep.proxies import PROXIES
from orca_sweep.results import read_record
from orca_sweep.store import Store
from orca_sweep.tasks import TASKS, Task, load_task_data
from orca_sweep.training.alignment_inputs import AlignmentInputs, proxy_features
from orca_sweep.training.embedder import train_embedder
from orca_sweep.training.finetune import finetune
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.freezing import freeze_weights
from orca_sweep.training.learning_rates import finetune_learning_rate
from orca_sweep.training.model import build_embedder
from orca_sweep.training.predict import Inference, predict, predict_wholes
from orca_sweep.training.pretrain import pretrain_body
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import make_config
from tests.builders.tasks import PARTS_ON_DISK

ALIGNED = {"task": "tiny", "proxy": "mnist5k"}


# Freezing and schedules ---------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", ["none", "embedder", "body", "both"])
def test_frozen_parts_stay_frozen_then_thaw(freeze, run, tmp_path, worker):
    """Compares weights after each epoch, from the run's checkpoints."""
    from orca_sweep.store import read_tensors

    seen = []
    config = make_config({"task": "tiny", "finetune.freeze": freeze, "finetune.freeze_epochs": 2, "finetune.epochs": 3})
    path = tmp_path / "sweep" / "trials" / config.trial_id / "checkpoint.safetensors"

    def spy(row):
        if row["stage"] == "finetune":
            seen.append(read_tensors(str(path)).tensors)

    _, epochs = run(task="tiny", finetune__freeze=freeze, finetune__freeze_epochs=2, finetune__epochs=3, report=spy)

    def moved(part, a, b):
        names = [n for n in a if n.startswith(f"model.{part}.")]
        return any(not np.array_equal(a[n], b[n]) for n in names)

    frozen = {"none": (), "both": ("embedder", "body")}.get(freeze, (freeze,))
    for part in ("embedder", "body", "predictor"):
        assert moved(part, seen[0], seen[1]) == (part not in frozen)
        assert moved(part, seen[1], seen[2])
    counts = [epoch["n_trainable"] for epoch in epochs]
    assert counts[0] == counts[1]
    assert (counts[1] < counts[2]) == bool(frozen)


def test_frozen_parts_run_without_dropout():
    model = nn.Sequential()
    for name in ("embedder", "body", "predictor"):
        model.add_module(name, nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert freeze_weights(model, ("body",)) == 12
    assert [model.embedder.training, model.body[1].training, model.predictor.training] == [True, False, True]
    assert freeze_weights(model, ()) == 18
    assert model.body[1].training
    assert freeze_weights(model, ("body-without-biases",)) == 14
    assert model.body[1].training  # its biases train


def test_the_learning_rate_warms_up_decays_and_is_never_negative():
    config = FinetuneConfig(lr=1.0, warmup_epochs=2, decay_epochs=6, epochs=50)
    rates = [finetune_learning_rate(config, step, 5) for step in range(250)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[9] == 1.0
    assert rates[20] == pytest.approx(0.5)
    assert min(rates) == 0.0
    assert rates[30:] == [0.0] * 220
    assert finetune_learning_rate(FinetuneConfig(lr=1.0), 10**6, 5) == 1.0


def test_accumulation_is_the_same_step_as_one_large_batch(run):
    small, _ = run(task="tiny", finetune__batch_size=6, finetune__accumulation=4, finetune__optimizer="sgd")
    large, _ = run(task="tiny", finetune__batch_size=24, finetune__optimizer="sgd")
    assert small["n_steps"] == large["n_steps"] == 2
    assert small["val_metric_last"] == large["val_metric_last"]
    ragged, epochs = run(task="tiny", finetune__batch_size=5, finetune__accumulation=4)
    # 24 samples in steps of 20: the last four are a separate step, none is dropped.
    assert ragged["n_steps"] == 4


def test_one_step_is_the_plainly_written_step(tmp_path):
    """Our accumulated, clipped step equals six lines of ordinary torch."""
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("predictor", nn.Linear(4, 3))
    plain = nn.Linear(4, 3)
    plain.load_state_dict(net.predictor.state_dict())
    x, y = torch.randn(10, 4), torch.arange(10) % 3
    task = Task(
        name="lin",
        dims=1,
        sample_shape=(4, 1),
        kind="classification",
        output_shape=(3,),
        loss="cross-entropy",
        metric="error",
        load=None,
        meaning="",
        source="",
        licence="",
    )
    samples = Samples(x.numpy(), y.numpy())
    from orca_sweep.tasks import TaskData

    data = TaskData(task=task, train=samples, val=samples, test=samples, fingerprint="")
    config = FinetuneConfig(epochs=1, batch_size=4, accumulation=3, lr=0.1, weight_decay=0.1, grad_clip=0.05)
    finetune(net, data, FinetuneSetup(config=config, seed_of=lambda source: 0))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.1)
    nn.functional.cross_entropy(plain(x), y).backward()
    nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    optimizer.step()
    torch.testing.assert_close(net.predictor.weight, plain.weight, rtol=1e-5, atol=1e-6)


# Pairing ------------------------------------------------------------------------------------------


def test_cells_that_differ_in_stage_2_see_the_same_fine_tuning(run, monkeypatch):
    """With equal seeds, batches and dropout masks are the same, whatever happened before fine-tuning."""
    from orca_sweep.training import feed

    orders, states = [], []
    plain = feed.split_into_batches

    def spy(order, size):
        orders.append(order.tolist())
        states.append(torch.initial_seed())
        return plain(order, size)

    monkeypatch.setattr(feed, "split_into_batches", spy)
    run(task="tiny", proxy="none")
    naive, masks = list(orders), list(states)
    orders.clear()
    states.clear()
    run(**ALIGNED)
    assert orders == naive
    assert states == masks
    assert naive[0] != naive[1]
    orders.clear()
    run(task="tiny", proxy="none", seed=1)
    assert orders != naive


def test_init_and_training_are_two_knobs(run):
    """Zero embedder epochs with a copied start is a separate cell, and differs from a random start."""
    rows = [run(task="tiny", embedder__init=init, proxy="none")[0] for init in ("copied", "random")]
    assert rows[0]["state_sha256"] != rows[1]["state_sha256"]


# Stage 2 ------------------------------------------------------------------------------------------


def test_embedder_training_lowers_the_objective_and_counts_steps(run):
    row, epochs = run(**ALIGNED, embedder__epochs=8, embedder__lr=0.01)
    values = [e["objective"] for e in epochs if e["stage"] == "embedder"]
    assert len(values) == 9
    assert values[-1] < values[0] - 1
    assert (row["objective_first"], row["objective_last"]) == (values[0], values[-1])


@pytest.mark.parametrize("objective", ["otdd-exact", "otdd-gaussian", "otdd-emd", "mmd", "l2"])
def test_every_objective_trains_an_embedder(run, objective):
    row, _ = run(**ALIGNED, embedder__objective=objective, embedder__epochs=4, embedder__lr=0.01)
    assert row["status"] == "ok"
    assert row["objective_last"] < row["objective_first"]


def test_a_shorter_run_is_the_beginning_of_a_longer_one(run, tmp_path, worker):
    """Reused snapshots, continued snapshots and fresh runs: the same bits."""
    fresh = {}
    for epochs in (2, 5):
        other = Worker(Store(str(tmp_path / f"fresh{epochs}")))
        fresh[epochs], _ = run(**ALIGNED, folder=f"fresh{epochs}", use=other, embedder__epochs=epochs)
    long, long_epochs = run(**ALIGNED, embedder__epochs=5, snapshots=(2, 5))
    short, short_epochs = run(**ALIGNED, embedder__epochs=2)
    assert "embedder" in short["reused"]
    assert "embedder" not in long["reused"]
    assert short["reused_s"] > 0
    assert short["state_sha256"] == fresh[2]["state_sha256"]
    assert long["state_sha256"] == fresh[5]["state_sha256"]
    aligned = [[e["objective"] for e in part if e["stage"] == "embedder"] for part in (short_epochs, long_epochs)]
    assert aligned[0] == aligned[1][:3]
    longer, _ = run(**ALIGNED, embedder__epochs=7)
    other = Worker(Store(str(tmp_path / "fresh7")))
    assert longer["state_sha256"] == run(**ALIGNED, folder="f7", use=other, embedder__epochs=7)[0]["state_sha256"]


@pytest.mark.parametrize("at", [("embedder", 3), ("finetune", 1), ("finetune", 2)])
def test_a_killed_trial_ends_as_the_unbroken_one(run, tmp_path, at, monkeypatch):
    from orca_sweep.training import embedder as embedding

    monkeypatch.setattr(embedding, "SAVE_EVERY_S", 0.0)
    settings = dict(
        **ALIGNED, embedder__epochs=5, finetune__epochs=4, finetune__freeze="body", finetune__freeze_epochs=2
    )
    other = Worker(Store(str(tmp_path / "other")))
    unbroken, unbroken_epochs = run(**settings, folder="unbroken", use=other)

    def kill(row):
        if (row["stage"], row["epoch"]) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(**settings, report=kill)
    seen = []
    resumed, resumed_epochs = run(**settings, report=seen.append)
    assert resumed["state_sha256"] == unbroken["state_sha256"]
    assert resumed["test_metric_best"] == unbroken["test_metric_best"]
    timeless = [
        [{k: v for k, v in e.items() if k != "wall_time_s"} for e in part] for part in (resumed_epochs, unbroken_epochs)
    ]
    assert timeless[0] == timeless[1]
    again = [row["epoch"] for row in seen if row["stage"] == at[0]]
    assert again == list(range(at[1] + 1, {"embedder": 6, "finetune": 5}[at[0]]))
    assert resumed["resumed_from_epoch"] == (at[1] if at[0] == "finetune" else 0)


@pytest.fixture(scope="session")
def noisy_parts(tmp_path_factory):
    from orca_sweep.trial import load_imports

    path = tmp_path_factory.mktemp("noisy") / "noisy.py"
    path.write_text(PARTS_ON_DISK)
    load_imports([str(path)])
    return {"task": "noisy-parts", "finetune__epochs": 3}


def test_a_trial_over_its_time_is_a_row_and_goes_on_from_there(tmp_path, worker, user_tasks, run):
    config = make_config({"task": "tiny", "finetune.epochs": 4})
    unbroken, _ = run(task="tiny", finetune__epochs=4, folder="unbroken")
    statuses = []
    for limit_s in (1e-9, 1e-9, 1e-9, 1e-9):
        row = run_config(
            config, RunContext(folder=tmp_path / "sweep", worker=worker, data_root=tmp_path / "data", limit_s=limit_s)
        )
        statuses.append((row["status"], row.get("resumed_from_epoch")))
        if row["status"] == "timeout":
            assert "over the limit of 1e-09 s in finetune epoch" in row["error"]
    # One epoch per attempt; after the last, nothing is left to interrupt.
    assert [status for status, _ in statuses] == ["timeout"] * 3 + ["ok"]
    assert row["resumed_from_epoch"] == 3
    assert row["state_sha256"] == unbroken["state_sha256"]


def test_augmentation_and_draws_of_parts_resume_bit_for_bit(run, tmp_path, noisy_parts):
    unbroken, _ = run(**noisy_parts, folder="unbroken")
    # Ten wholes of three parts each: an epoch is ten samples, two steps of eight.
    assert (unbroken["n_train"], unbroken["n_val"], unbroken["n_steps"]) == (10, 5, 6)

    def kill(row):
        if (row["stage"], row["epoch"]) == ("finetune", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(**noisy_parts, report=kill)
    resumed, _ = run(**noisy_parts)
    assert resumed["resumed_from_epoch"] == 1
    assert resumed["state_sha256"] == unbroken["state_sha256"]
    plain, _ = run(**noisy_parts, data__augment=False)
    assert plain["state_sha256"] != unbroken["state_sha256"]
    # If a task does not augment, the knob does not make different work.
    ids = {make_config({"task": "tiny", "data.augment": on}).trial_id for on in (True, False)}
    assert len(ids) == 1


def test_a_prediction_of_parts_is_their_mean_and_an_epoch_draws_one_of_each():
    from orca_sweep.training.feed import Parts

    x = np.arange(6, dtype=np.float32).reshape(6, 1)
    samples = Samples(x, np.array([7, 8, 8, 7, 8, 9]), np.array([4, 2, 2, 4, 2, 9]))
    prediction, target = predict_wholes(nn.Identity(), samples, Inference())
    np.testing.assert_allclose(prediction[:, 0], [(1 + 2 + 4) / 3, (0 + 3) / 2, 5])
    np.testing.assert_array_equal(target, [8, 7, 9])
    drawn = [Parts(samples.groups).draw_parts(np.array([2, 0, 1]), np.random.default_rng(seed)) for seed in range(30)]
    assert [set(column) for column in np.array(drawn).T] == [{5}, {1, 2, 4}, {0, 3}]


def test_a_checkpoint_of_another_config_is_not_resumed(run, tmp_path):
    def kill(row):
        if row["stage"] == "finetune":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(task="tiny", report=kill, finetune__epochs=3)
    trials = tmp_path / "sweep" / "trials"
    (left,) = trials.iterdir()
    changed = make_config({"task": "tiny", "finetune.epochs": 3, "finetune.lr": 0.5})
    left.rename(trials / changed.trial_id)
    row, _ = run(task="tiny", finetune__epochs=3, finetune__lr=0.5)
    assert row["resumed_from_epoch"] == 0
    assert row["status"] == "ok"


def test_pretraining_resumes_bit_for_bit(tmp_path, monkeypatch):
    from orca_sweep.bodies import find_body
    from orca_sweep.training import pretrain as pretraining

    monkeypatch.setattr(pretraining, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(pretraining, "STEPS_PER_REPORT", 10)
    config = make_config({"task": "digits", "body.pretrain_steps": 24, "body.pretrain_fraction": 0.1}).body
    workers = [Worker(Store(str(tmp_path / name))) for name in "ab"]
    unbroken, _, _ = pretrain_body(find_body("swin-micro"), config, workers[0], lambda row: None)

    def kill(row):
        if row["epoch"] == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_body(find_body("swin-micro"), config, workers[1], kill)
    steps = []
    resumed, _, _ = pretrain_body(find_body("swin-micro"), config, workers[1], lambda row: steps.append(row["epoch"]))
    assert steps == [24]
    assert resumed.hash_weights() == unbroken.hash_weights()


def test_proxy_features_are_computed_once_and_are_the_same_when_reused(run):
    first, _ = run(**ALIGNED)
    second, _ = run(**ALIGNED, seed=1)
    assert "proxy-features" not in first["reused"]
    assert "proxy-features" in second["reused"]


def test_clusters_of_targets_are_made_once_for_all_seeds(run, monkeypatch):
    from orca_sweep.training import alignment_inputs

    calls = []
    real = alignment_inputs.alignment_labels
    monkeypatch.setattr(alignment_inputs, "alignment_labels", lambda *a: calls.append(a) or real(*a))
    settings = {
        "task": "darcy-generated", "data__n_train": 20, "body__pretrain_fraction": 0, "finetune__epochs": 1,
        "embedder__epochs": 1, "embedder__proxy_samples": 40, "embedder__n_pseudo_classes": 3,
    }  # fmt: skip
    rows = [run(**settings, seed=seed)[0] for seed in (0, 1)]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len(calls) == 1
    assert "pseudo-labels" not in rows[0]["reused"].split(",")
    assert "pseudo-labels" in rows[1]["reused"].split(",")
    run(**{**settings, "embedder__n_pseudo_classes": 4})
    assert len(calls) == 2


def test_a_text_body_reuses_its_embedder_too(run):
    """Tokenising sets padding and truncation in the tokenizer, which must not change keys."""
    settings = {
        "task": "watch-exercises", "body__name": "roberta-micro", "body__pretrain_fraction": 0, "data__n_train": 21,
        "finetune__epochs": 1, "embedder__epochs": 2, "embedder__proxy_samples": 60,
    }  # fmt: skip
    first, _ = run(**settings)
    second, _ = run(**settings, finetune__freeze="body")
    assert (first["reused"], second["reused"]) == ("", "proxy-features,embedder")
    longer, _ = run(**{**settings, "embedder__epochs": 3})
    assert longer["reused"] == "proxy-features,objective,embedder"
    assert first["body_sha256"] == second["body_sha256"]


def test_a_test_metric_that_is_not_finite_is_no_success(run, monkeypatch):
    real = predict_wholes

    def broken(*a):
        prediction, target = real(*a)
        return prediction * math.inf, target

    monkeypatch.setattr("orca_sweep.training.predict.predict_wholes", broken)
    row, _ = run(task="tiny")
    assert row["status"] == "diverged"
    assert "the test metric" in row["error"]


# Custody of the test split ------------------------------------------------------------------------


def test_test_data_is_touched_once_at_the_end(run, monkeypatch):
    """A corrupted test split changes only test metrics."""
    clean, clean_epochs = run(**ALIGNED, folder="clean")
    real = load_task_data

    def poisoned(task, root, split_seed, n_train, *, normalise):
        data = real(task, root, split_seed, n_train, normalise=normalise)
        bad = Samples(np.flip(data.test.x, 0).copy() * 7, data.test.y)
        return dataclasses.replace(data, test=bad)

    from orca_sweep.training import stages as trial

    monkeypatch.setattr(trial, "load_task_data", poisoned)
    trial._task_data.cache_clear()
    row, epochs = run(**ALIGNED, folder="poisoned")
    trial._task_data.cache_clear()
    assert row["state_sha256"] == clean["state_sha256"]
    assert row["best_epoch"] == clean["best_epoch"]
    assert [e["val_metric"] for e in epochs if e["stage"] == "finetune"] == [
        e["val_metric"] for e in clean_epochs if e["stage"] == "finetune"
    ]
    assert row["test_metric_best"] != clean["test_metric_best"]


def test_the_best_epoch_is_the_best_validated(run):
    row, epochs = run(task="tiny", finetune__epochs=6, finetune__lr=3e-3)
    values = [e["val_metric"] for e in epochs]
    assert row["val_metric_best"] == min(values)
    assert row["best_epoch"] == 1 + int(np.argmin(values))
    assert row["val_metric_last"] == values[-1]


def test_a_row_names_the_bounds_of_its_metric_and_its_processor(run):
    from orca_sweep.training.worker import name_processor

    row, _ = run(task="tiny")
    assert (row["metric"], row["metric_low"], row["metric_high"]) == ("error", 0, 1)
    assert row["processor"] == name_processor("cpu") and row["processor"] in (None, " ".join(row["processor"].split()))


def test_the_hash_is_of_the_last_epoch_s_weights_and_not_of_the_best(run, tmp_path):
    from orca_sweep.store import read_tensors, state_digest
    from orca_sweep.training.state import select_prefix

    seen = []
    config = make_config({"task": "tiny", "finetune.epochs": 6, "finetune.lr": 3e-3})
    path = tmp_path / "sweep" / "trials" / config.trial_id / "checkpoint.safetensors"
    row, _ = run(
        task="tiny", finetune__epochs=6, finetune__lr=3e-3,
        report=lambda _: seen.append(state_digest(select_prefix("model.", read_tensors(str(path)).tensors))),
    )  # fmt: skip
    assert row["best_epoch"] < 6
    assert row["state_sha256"] == seen[-1] != seen[row["best_epoch"] - 1]


# Outcomes -----------------------------------------------------------------------------------------


def test_a_failing_trial_is_a_row(run, tmp_path):
    row, epochs = run(task="broken")
    assert row["status"] == "failed"
    assert row["error"] == "RuntimeError: this task cannot be loaded"
    assert "Traceback" in (tmp_path / "sweep" / "trials" / row["trial_id"] / "error.txt").read_text()
    assert read_record(tmp_path / "sweep", row["trial_id"])["row"]["status"] == "failed"


def test_a_diverging_trial_is_a_row_with_its_history(run):
    row, epochs = run(task="tiny", finetune__lr=1e30, finetune__optimizer="sgd", finetune__epochs=5)
    assert row["status"] == "diverged"
    assert "fine-tuning diverged" in row["error"]
    assert row.get("test_metric_best") is None


def test_running_out_of_memory_is_a_row(run, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("orca_sweep.training.finetune.finetune", full)
    row, _ = run(task="tiny")
    assert row["status"] == "oom"


def test_predictions_of_a_split_come_in_order_whatever_the_batch():
    model = nn.Linear(2, 1)
    samples = Samples(np.random.default_rng(0).normal(size=(11, 2)).astype(np.float32), np.zeros(11))
    a, b = (predict(model, samples, Inference(batch_size=size)) for size in (3, 100))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert a.shape == (11, 1)


def test_divergence_is_noticed_in_embedder_training(run, monkeypatch):
    from orca_sweep import objectives

    with monkeypatch.context() as patch:
        patch.setattr(objectives, "distance", lambda name, constants, target, **settings: target.sum() * math.nan)
        row, _ = run(**ALIGNED)
    assert row["status"] == "diverged"
    assert "embedder training diverged: objective nan" in row["error"]
    row, epochs = run(**ALIGNED, embedder__lr=1e38, embedder__epochs=5)
    assert row["status"] == "diverged"
    assert "embedder training diverged" in row["error"]
    assert [e["epoch"] for e in epochs] == list(range(len(epochs)))


def test_constants_of_the_proxy_are_made_once_for_all_seeds_and_again_for_other_settings(run, monkeypatch):
    from orca_sweep import objectives

    made = []
    real = objectives.constants
    monkeypatch.setattr(objectives, "constants", lambda name, *a, **k: made.append((name, k)) or real(name, *a, **k))
    whole = {**ALIGNED, "embedder__proxy_samples": 5000}
    first, _ = run(**whole)
    second, _ = run(**whole, seed=1)
    assert len(made) == 1
    assert "objective" not in first["reused"].split(",")
    assert "objective" in second["reused"].split(",")
    run(**whole, embedder__epsilon=0.2)
    run(**whole, embedder__label_gradient=True)
    run(**whole, embedder__objective="sliced-wasserstein", embedder__n_projections=16)
    run(**whole, embedder__objective="sliced-wasserstein", embedder__n_projections=16, seed=1)
    assert [k.get("epsilon", k.get("projection_seed")) for _, k in made] == [0.1, 0.2, 0.1, 0, 1]
    assert [k.get("label_gradient") for _, k in made] == [False, False, True, None, None]


def test_a_user_s_objective_is_computed_again_when_its_file_changes(run, tmp_path, monkeypatch):
    from orca_sweep.objectives import OBJECTIVES, Objective, hash_source

    path, rows, digests = tmp_path / "mine.py", [], []
    for factor in (1, 2):
        path.write_text(
            f"def constants(x, y):\n    return {{'mean': x.mean(0) * {factor}}}\n"
            "def distance(proxy, z):\n    return ((z.mean(0) - proxy['mean']) ** 2).sum()\n"
        )
        names = {"__name__": "mine"}
        exec(compile(path.read_text(), str(path), "exec"), names)
        objective = Objective(name="mine", meaning="a test", constants=names["constants"], distance=names["distance"])
        monkeypatch.setitem(OBJECTIVES._records, "mine", objective)
        digests.append(hash_source("mine"))
        rows.append(run(**ALIGNED, embedder__objective="mine", folder=f"f{factor}")[0])
    assert digests[0] != digests[1]
    assert rows[0]["objective_first"] != rows[1]["objective_first"]
    assert rows[1]["reused"] == "proxy-features"
    assert hash_source("otdd-exact") == ""
    mixed = Objective(
        name="mine", meaning="", constants=functools.partial(names["constants"]), distance=OBJECTIVES.get("l2").distance
    )
    monkeypatch.setitem(OBJECTIVES._records, "mine", mixed)
    assert hash_source("mine")


@pytest.mark.parametrize(("kept", "batch"), [(0, 10**9), (10**9, 1), (0, 1)])
def test_embedding_in_parts_or_unprepared_changes_nothing_but_rounding(run, worker, monkeypatch, kept, batch, tmp_path):
    from orca_sweep.training import mean_features

    whole, epochs = run(**ALIGNED)
    monkeypatch.setattr(mean_features, "MAX_PATCH_NUMBERS", kept)
    monkeypatch.setattr(mean_features, "BATCH_NUMBERS", batch)
    other = Worker(Store(str(tmp_path / "other")))
    parts, part_epochs = run(**ALIGNED, folder="parts", use=other)
    values = [[e["objective"] for e in rows if e["stage"] == "embedder"] for rows in (epochs, part_epochs)]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[0][0] != values[0][-1]


def test_classes_of_one_sample_are_skipped_and_counted(run, worker):
    row, _ = run(**ALIGNED, embedder__proxy_samples=500)
    assert (row["n_target_classes_skipped"], row["n_proxy_classes_skipped"]) == (0, 0)
    config = make_config({key.replace("__", "."): value for key, value in ALIGNED.items()})
    data = load_task_data(TASKS.get("tiny"), Path(), 0, None)
    body, _, _ = pretrain_body(find_body(config.body.name), config.body, worker, lambda row: None)
    proxy = proxy_features(PROXIES.get("mnist5k").load(Path()), body, worker)
    labels = np.where(np.arange(len(data.train)) == 5, 9, data.train.y)

    def train(labels, proxy=proxy):
        embedder = build_embedder(data.task, body, config)
        inputs = AlignmentInputs(data=data, labels=labels, proxy=proxy, body=body, config=config)
        return train_embedder(embedder, inputs, worker)

    assert train(labels).n_target_classes_skipped == 1
    few = torch.cat([torch.arange(37) % 2, torch.tensor([7, 8, 9])])
    lonely = dataclasses.replace(proxy, labels=few, features=proxy.features[:40], key="few")
    assert train(labels, lonely).n_proxy_classes_skipped == 3
    assert train(labels, lonely).n_proxy_classes_skipped == 3  # also if everything comes from the store
    with pytest.raises(DataError, match="24 classes in 24 training samples, none with two"):
        train(np.arange(24))


def test_dense_and_1d_tasks_run_through(run):
    row, _ = run(
        task="darcy-generated", data__n_train=20, finetune__epochs=1, embedder__epochs=1, embedder__proxy_samples=50,
        body__pretrain_fraction=0,
    )  # fmt: skip
    assert row["status"] == "ok"
    row, epochs = run(
        task="watch-exercises", body__name="roberta-micro", body__pretrain_steps=2, data__n_train=21,
        finetune__epochs=1, embedder__epochs=2, embedder__proxy_samples=60,
    )  # fmt: skip
    assert row["status"] == "ok"
    assert {e["stage"] for e in epochs} == {"embedder", "finetune"}


@pytest.mark.gpu
def test_a_trial_runs_on_a_gpu(run, tmp_path):
    row, _ = run(**ALIGNED, use=Worker(Store(str(tmp_path / "gpu")), "cuda", n_gpus=0.5))
    assert row["status"] == "ok"
    assert row["peak_gpu_memory_mib"] > 0
    assert row["gpu_s"] == 0.5 * row["wall_time_s"]


@pytest.mark.network
@pytest.mark.parametrize("task", ["ninapro", "satellite"])
def test_hub_bodies_download(task, worker):
    config = make_config({"task": task})
    body, _, _ = pretrain_body(find_body(config.body.name), config.body, worker, lambda row: None)
    assert body.spec.dims == TASKS.get(task).dims
