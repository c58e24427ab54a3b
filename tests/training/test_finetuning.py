"""Fine-tuning: resumes at any step, halves its passes if memory runs out, and gives equal results however computed."""

import os
import threading

import numpy as np
import pytest
import torch

from orca_sweep.config import FinetuneConfig
from orca_sweep.data import Rows, Samples
from orca_sweep.results import read_record
from orca_sweep.space.records import Checkpoints
from orca_sweep.store import read_tensors
from orca_sweep.tasks import Task, TaskData
from orca_sweep.training import checkpoints as checkpoints_module
from orca_sweep.training import finetune as finetuning
from orca_sweep.training.checkpoints import CheckpointPolicy
from orca_sweep.training.compute_settings import set_attention
from orca_sweep.training.finetune import finetune
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.model import OrcaModel
from orca_sweep.training.optimizer_steps import Stepper
from orca_sweep.training.predict import autocast, choose_precision, run_in_batches
from orca_sweep.training.pretrain import pretrain_body
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import make_config

TEXT = {"task": "tiny", "body__name": "roberta-micro", "finetune__epochs": 3}
"""A body with dropout."""
SAME = (
    "state_sha256",
    "val_metric_best",
    "val_metric_last",
    "test_metric_best",
    "test_metric_last",
    "best_epoch",
    "n_steps",
)


class KilledError(Exception):
    """Stands in for a lost worker."""


def same(row, expected):
    return {name: row[name] for name in SAME} == {name: expected[name] for name in SAME}


def timeless(epochs):
    return [{key: value for key, value in row.items() if key != "wall_time_s"} for row in epochs]


FRESH = {"task": "tiny", "finetune__epochs": 4, "finetune__warmup_epochs": 1, "finetune__decay_epochs": 3,
         "finetune__freeze": "body:1 lr*10 constant > none:2 lr*0.5 fresh > predictor fresh"}  # fmt: skip


# Resume -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        TEXT,
        {"task": "tiny", "finetune__epochs": 3, "finetune__freeze": "body", "finetune__freeze_epochs": 1},
        {"task": "tiny", "finetune__epochs": 3, "finetune__freeze": "both", "finetune__freeze_epochs": 2},
        {"task": "tiny", "finetune__epochs": 3, "finetune__optimizer": "sgd", "finetune__warmup_epochs": 1},
        {**TEXT, "finetune__accumulation": 2, "finetune__batch_size": 4, "finetune__grad_clip": 0.1},
        FRESH,
        {**FRESH, "finetune__optimizer": "sgd", "finetune__lr": 0.01},
    ],
    ids=["dropout", "thaws", "cached features", "sgd", "accumulation", "factor and fresh start", "fresh sgd"],
)
def test_a_run_killed_at_any_step_ends_as_the_unbroken_one(run, tmp_path, monkeypatch, settings):
    """Saved after every step, killed after each step in turn (inside epochs and between them), and resumed."""
    whole, epochs = run(**settings, folder="whole")
    real_step = Stepper.take_step
    left = [0]

    def step(stepper, *samples, **more):
        if left[0] == 0:
            raise KilledError
        left[0] -= 1
        return real_step(stepper, *samples, **more)

    monkeypatch.setattr(Stepper, "take_step", step)
    monkeypatch.setattr(CheckpointPolicy, "is_due", lambda policy, epoch, **more: True)
    inside = 0
    for _ in range(whole["n_steps"] - 1):
        left[0] = 1
        row, _ = run(**settings, folder="broken")
        assert row["status"] == "failed"
        saved = read_tensors(str(tmp_path / "broken" / "trials" / row["trial_id"] / "checkpoint.safetensors"))
        inside += "part" in saved.meta
    assert inside >= (whole["n_steps"] - 1) / 2
    left[0] = 10**6
    row, again = run(**settings, folder="broken")
    assert row["status"] == "ok" and same(row, whole)
    assert timeless(again) == timeless(epochs)


@pytest.mark.parametrize(
    ("checkpoints", "saved"),
    [
        (Checkpoints(), [(1, None), (2, None), (3, None), (4, None)]),
        (Checkpoints(epochs=3), [(3, None)]),
        (Checkpoints(epochs=3, minutes=1e-9), [(0, 1), (0, 2), (1, None), (1, 1), (1, 2), (2, None)]),
    ],
)
def test_states_are_saved_as_often_as_the_space_says(user_tasks, worker, tmp_path, monkeypatch, checkpoints, saved):
    """(epochs done, steps of the next epoch) of each file; there is never more than one file."""
    seen = []
    real = checkpoints_module.write_tensors

    def spy(path, tensors, meta):
        seen.append((meta["epoch"], meta.get("part", {}).get("step")))
        real(path, tensors, meta)

    monkeypatch.setattr(checkpoints_module, "write_tensors", spy)
    config = make_config({"task": "tiny", "finetune.epochs": 4})
    run_config(config, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path, checkpoints=checkpoints))
    assert seen[: len(saved)] == saved
    assert len(seen) == len(saved) or checkpoints.minutes < 1


def test_what_the_time_limit_ends_goes_on_from_there_however_seldom_states_are_saved(user_tasks, worker, tmp_path):
    config = make_config({"task": "tiny", "finetune.epochs": 3})
    seldom = Checkpoints(epochs=10**6, minutes=10**6)
    ends = []
    for _ in range(3):
        row = run_config(
            config,
            RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path, limit_s=1e-9, checkpoints=seldom),
        )
        ends.append((row["status"], row.get("resumed_from_epoch")))
    assert ends == [("timeout", None), ("timeout", None), ("ok", 2)]


def test_what_was_taken_over_from_others_is_in_the_next_state_however_seldom_they_are_saved(
    user_tasks, worker, tmp_path
):
    """The record of a pruned trial comes from it: epochs of a prefix were never reported."""
    seldom = Checkpoints(epochs=10**6, minutes=10**6)
    a, b = (make_config({"task": "tiny", "finetune.epochs": 4, "finetune.freeze": f"body:{n} > none"}) for n in (2, 3))
    run_config(a, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path, prefix_epochs=[2]))

    def killed(row):
        if row["epoch"] == 3:
            raise KilledError

    run_config(
        b,
        RunContext(
            folder=tmp_path / "s",
            worker=worker,
            data_root=tmp_path,
            report=killed,
            prefix_epochs=[2],
            checkpoints=seldom,
        ),
    )
    saved = read_tensors(str(tmp_path / "s" / "trials" / b.trial_id / "checkpoint.safetensors"))
    assert [row["epoch"] for row in saved.meta["epochs"]] == [1, 2, 3]


# Memory -------------------------------------------------------------------------------------------


def limited(model, most):
    """A model that runs out of memory with more samples at once."""
    real = model.forward

    def forward(x):
        if model.training and len(x) > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried {len(x)} samples")
        return real(x)

    model.forward = forward
    return model


def linear(n=12, **settings):
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    net.add_module("predictor", torch.nn.Linear(4, 3))
    rng = np.random.default_rng(0)
    samples = Samples(rng.normal(size=(n, 4)).astype(np.float32), np.arange(n) % 3)
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
    return (
        net,
        TaskData(task=task, train=samples, val=samples, test=samples, fingerprint=""),
        FinetuneConfig(**settings),
    )


def tuned(net, data, config):
    return finetune(net, data, FinetuneSetup(config=config, seed_of=lambda source: 0))


def test_a_step_too_large_for_the_memory_is_done_in_halves_with_the_same_result():
    settings = {"epochs": 2, "batch_size": 6, "lr": 0.1, "accumulation": 2}
    plain, halved = linear(**settings), linear(**settings)
    whole, small = tuned(*plain), tuned(limited(halved[0], 3), *halved[1:])
    assert (whole.micro_batch_size, small.micro_batch_size) == (6, 3)
    assert whole.n_steps == small.n_steps
    torch.testing.assert_close(plain[0].predictor.weight, halved[0].predictor.weight, rtol=1e-6, atol=1e-7)


def test_halving_once_is_all_and_then_the_trial_is_out_of_memory(run, monkeypatch):
    net, data, config = linear(epochs=1, batch_size=6)
    with pytest.raises(torch.OutOfMemoryError):
        tuned(limited(net, 2), data, config)
    # In a trial: if half is enough, it is ok and its row says so; otherwise its status is oom.
    real = finetuning._Loop.__init__

    def small(most):
        def init(loop, model, *rest):
            real(loop, limited(model, most), *rest)

        return init

    monkeypatch.setattr(finetuning._Loop, "__init__", small(4))
    row, _ = run(task="tiny", finetune__batch_size=8)
    assert (row["status"], row["micro_batch_size"]) == ("ok", 4)
    monkeypatch.setattr(finetuning._Loop, "__init__", small(3))
    row, _ = run(task="tiny", finetune__batch_size=8, folder="smaller")
    assert row["status"] == "oom" and "out of memory" in row["error"]


def test_a_resumed_run_keeps_the_halves_it_had_come_to(run, tmp_path, monkeypatch):
    real = finetuning._Loop.__init__

    def init(loop, model, *rest):
        real(loop, limited(model, 4), *rest)

    monkeypatch.setattr(finetuning._Loop, "__init__", init)
    whole, _ = run(task="tiny", finetune__epochs=4, finetune__batch_size=8, folder="whole")

    def killed(row):
        if row["stage"] == "finetune" and row["epoch"] == 2:
            raise KilledError

    run(task="tiny", finetune__epochs=4, finetune__batch_size=8, folder="broken", report=killed)
    row, _ = run(task="tiny", finetune__epochs=4, finetune__batch_size=8, folder="broken")
    assert row["resumed_from_epoch"] == 2 and row["micro_batch_size"] == 4 and same(row, whole)


def test_prediction_halves_its_batches_until_they_fit():
    sizes = []

    def work(part):
        sizes.append(part.stop - part.start)
        if sizes[-1] > 5:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return part.start

    assert run_in_batches(work, (30, 2), 16) == [0, 4, 8, 12, 16, 20, 24, 28]
    assert sizes[:2] == [16, 8]
    with pytest.raises(RuntimeError, match="another"):
        run_in_batches(lambda part: (_ for _ in ()).throw(RuntimeError("another")), (4,), 2)
    with pytest.raises(MemoryError):
        run_in_batches(lambda part: (_ for _ in ()).throw(MemoryError()), (4,), 2)


def test_activations_that_are_not_kept_change_no_bit(run):
    kept, _ = run(**TEXT)
    again, _ = run(**TEXT, finetune__gradient_checkpointing=True, folder="again")
    assert kept["trial_id"] != again["trial_id"]
    assert same(kept, again)


@pytest.mark.parametrize("family", ["roberta", "gpt2", "gpt_neox", "swin", "vit"])
def test_every_family_can_compute_its_activations_twice(family, saved_body, run):
    settings = {"task": "tiny", "body__name": str(saved_body(family)), "body__pretrain_fraction": 1,
                "finetune__epochs": 1}  # fmt: skip
    kept, _ = run(**settings)
    again, _ = run(**settings, finetune__gradient_checkpointing=True, folder="again")
    assert kept["status"] == "ok" and same(kept, again)


def test_a_model_is_left_as_it_was_found(user_tasks, worker):
    """Layers that refer to themselves would be freed only by chance, and a second run would compute them four times."""
    from orca_sweep.bodies import find_body
    from orca_sweep.tasks import find_task, load_task_data
    from orca_sweep.training.model import build_model

    config = make_config({"task": "tiny", "finetune.epochs": 1, "finetune.gradient_checkpointing": True})
    data = load_task_data(find_task("tiny"), worker, 0, None)
    loaded, _, _ = pretrain_body(find_body(config.body.name), config.body, worker, lambda row: None)
    model = build_model(data, loaded, config)
    finetune(model, data, FinetuneSetup(config=config.finetune, seed_of=config.seed_of))
    assert not any("forward" in vars(module) for module in model.modules())


# Numerics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["roberta", "bert", "gpt2", "gpt_neox", "swin", "vit"])
def test_attention_by_steps_is_the_fused_one_up_to_rounding(family, saved_body, worker, monkeypatch):
    from orca_sweep.bodies import find_body

    body = pretrain_body(
        find_body(str(saved_body(family))), make_config({"task": "tiny", "body.name": str(saved_body(family))}).body, worker,
        lambda row: None,
    )[0]  # fmt: skip
    network = body.build_network().eval()
    tokens = torch.randn(2, body.spec.max_tokens if body.spec.dims == 2 else 20, body.spec.width_in)
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    set_attention(network, "sdpa")
    fused = network(tokens)
    n_fused = len(calls)
    set_attention(network, "eager")
    by_steps = network(tokens)
    assert n_fused > 0 and len(calls) == n_fused
    torch.testing.assert_close(fused, by_steps, rtol=1e-4, atol=1e-5)


def test_validation_on_kept_features_takes_batches_of_the_size_that_is_asked_for(run, monkeypatch):
    sizes, real = [], OrcaModel.from_features

    def spy(model, features):
        if not torch.is_grad_enabled():
            sizes.append(len(features))
        return real(model, features)

    monkeypatch.setattr(OrcaModel, "from_features", spy)
    settings = {"task": "tiny", "finetune__epochs": 1, "finetune__freeze": "both", "finetune__freeze_epochs": "forever"}
    row, _ = run(**settings, finetune__eval_batch_size=5)
    assert row["status"] == "ok" and sizes[:4] == [5, 5, 5, 3]


def test_precision_is_the_device_s_and_recorded(run):
    assert choose_precision("auto", "cpu") == "float32" and choose_precision("bfloat16", "cpu") == "bfloat16"
    with autocast("bfloat16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    settings = {"task": "digits", "body__pretrain_fraction": 0, "proxy": "none", "finetune__epochs": 8}
    single, _ = run(**settings)
    half, _ = run(**settings, finetune__precision="bfloat16", folder="half")
    assert (single["precision"], half["precision"]) == ("float32", "bfloat16")
    assert single["state_sha256"] != half["state_sha256"]
    # On 600 digits: within two points of error (measured: 0 and 0.3 points); the spread over seeds is 3.
    assert abs(single["test_metric_last"] - half["test_metric_last"]) <= 0.02


def test_switches_of_how_to_compute_are_part_of_the_id(user_tasks):
    config = make_config({"task": "tiny"})
    for name, value in (("precision", "float32"), ("attention", "eager"), ("compile", True), ("deterministic", True),
                        ("gradient_checkpointing", True), ("eval_batch_size", 64)):  # fmt: skip
        assert make_config({"task": "tiny", f"finetune.{name}": value}).trial_id != config.trial_id


def test_deterministic_kernels_are_asked_for_and_given_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []
    real = finetuning._Loop.run_epoch
    monkeypatch.setattr(
        finetuning._Loop, "run_epoch",
        lambda loop: seen.append(torch.are_deterministic_algorithms_enabled()) or real(loop),
    )  # fmt: skip
    for wanted in (False, True):
        tuned(*linear(epochs=1, deterministic=wanted))
        # Without this variable torch refuses matrix products on a GPU, in a replay too.
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is wanted
    assert seen == [False, True] and not torch.are_deterministic_algorithms_enabled()


def test_samples_on_disk_are_read_ahead_and_are_the_same(tmp_path):
    """A thread reads the next step's samples; the run is bit for bit the same as on samples in memory."""
    net, data, config = linear(n=40, epochs=2, batch_size=7, lr=0.1)
    other, _, _ = linear(n=40)
    np.save(tmp_path / "x.npy", data.train.x)
    rows = Rows.from_array(np.load(tmp_path / "x.npy", mmap_mode="r"), "x", lambda part: part)
    on_disk = TaskData(task=data.task, train=Samples(rows, data.train.y), val=data.val, test=data.test, fingerprint="")
    a, b = tuned(net, data, config), tuned(other, on_disk, config)
    assert all(np.array_equal(a.last[name], b.last[name]) for name in a.last)


def test_an_error_in_reading_ahead_is_the_trial_s(tmp_path):
    net, data, config = linear(n=40, epochs=1, batch_size=7)

    read = []

    def broken(part):
        if len(part):
            read.append(len(part))
            raise OSError("the disk is gone")
        return part

    np.save(tmp_path / "x.npy", data.train.x)
    rows = Rows.from_array(np.load(tmp_path / "x.npy", mmap_mode="r"), "x", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        tuned(
            net,
            TaskData(task=data.task, train=Samples(rows, data.train.y), val=data.val, test=data.test, fingerprint=""),
            config,
        )
    assert read == [7]  # and nothing is read after it


def test_nothing_reads_ahead_any_more_when_a_step_fails(tmp_path):
    net, data, config = linear(n=40, epochs=1, batch_size=7)
    np.save(tmp_path / "x.npy", data.train.x)
    rows = Rows.from_array(np.load(tmp_path / "x.npy", mmap_mode="r"), "x", lambda part: part)
    before = threading.active_count()
    with pytest.raises(torch.OutOfMemoryError):
        tuned(
            limited(net, 2),
            TaskData(task=data.task, train=Samples(rows, data.train.y), val=data.val, test=data.test, fingerprint=""),
            config,
        )
    assert threading.active_count() == before


def test_columns_say_how_it_was_computed(run, tmp_path):
    row, _ = run(task="tiny", finetune__batch_size=8)
    recorded = read_record(tmp_path / "sweep", row["trial_id"])["row"]
    assert (recorded["precision"], recorded["micro_batch_size"]) == ("float32", 8)


@pytest.mark.gpu
def test_bfloat16_is_the_default_on_a_gpu_and_deterministic_runs_repeat(run, tmp_path):
    from orca_sweep.store import Store

    rows = [
        run(
            **TEXT,
            finetune__deterministic=True,
            folder=f"gpu-{i}",
            use=Worker(Store(str(tmp_path / f"g{i}")), "cuda"),
        )[0]
        for i in (0, 1)
    ]
    assert rows[0]["precision"] == "bfloat16" and same(*rows)


@pytest.mark.parametrize("body", ["swin-micro", "roberta-micro"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_epoch_of_a_real_body_is_the_plainly_written_one(body, optimizer, user_tasks, worker):
    """Same weights, same batches, same dropout: three steps equal ten lines of ordinary torch to 1e-6."""
    import copy

    from orca_sweep.bodies import find_body
    from orca_sweep.streams import stream_rng, stream_seed
    from orca_sweep.tasks import find_task, load_task_data
    from orca_sweep.training.model import build_model

    settings = {"finetune.epochs": 1, "finetune.lr": 1e-3, "finetune.optimizer": optimizer}
    config = make_config({"task": "tiny", "body.name": body, **settings})
    data = load_task_data(find_task("tiny"), worker, 0, None)
    loaded, _, _ = pretrain_body(find_body(body), config.body, worker, lambda row: None)
    model = build_model(data, loaded, config)
    plain = copy.deepcopy(model).train()
    finetune(model, data, FinetuneSetup(config=config.finetune, seed_of=config.seed_of))
    kinds = {"sgd": (torch.optim.SGD, {"momentum": 0.9}), "adamw": (torch.optim.AdamW, {})}
    kind, more = kinds[optimizer]
    stepped = kind(plain.parameters(), lr=1e-3, weight_decay=config.finetune.weight_decay, foreach=True, **more)
    order = stream_rng(0, "finetune order", 1).permutation(len(data.train.y))
    for step, rows in enumerate(np.split(order, [8, 16])):
        torch.manual_seed(stream_seed(0, "dropout", 1, step))
        x, y = (torch.from_numpy(part[rows]) for part in (data.train.x, data.train.y))
        stepped.zero_grad()
        torch.nn.functional.cross_entropy(plain(x), y).backward()
        stepped.step()
    a, b = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (model, plain))
    near = (a - b).abs() <= 1e-6 + 1e-6 * b.abs()
    # The size of an Adam step does not depend on that of its gradient: if the gradient is only rounding, so is the step.
    assert near.all() if optimizer == "sgd" else near.float().mean() > 0.995
