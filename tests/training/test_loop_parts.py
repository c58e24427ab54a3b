"""The parts of the training loop: saved state, longest prefix, checkpoint policy, reading ahead, cached features."""

import contextlib
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from orca_sweep.bodies.network import body_layers
from orca_sweep.config import FinetuneConfig, freeze_words
from orca_sweep.config.freeze_words import KINDS
from orca_sweep.config.freezing import parse_schedule
from orca_sweep.data import Samples
from orca_sweep.errors import InputError
from orca_sweep.store import CorruptFileError, Store, read_tensors, state_digest, write_tensors
from orca_sweep.training import feature_cache
from orca_sweep.training.checkpoints import CheckpointFile, CheckpointPolicy, Saving
from orca_sweep.training.feature_cache import FeatureCache
from orca_sweep.training.feed import Feed, TrainingFeed
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.freezing import SELECTORS, find_frozen_names, freeze_weights
from orca_sweep.training.model import OrcaModel
from orca_sweep.training.optimizer_steps import Stepper
from orca_sweep.training.optimizers import build_optimizer
from orca_sweep.training.predict import Inference
from orca_sweep.training.predictors import VectorPredictor
from orca_sweep.training.prefetch import prefetch
from orca_sweep.training.prefixes import find_longest_prefix
from orca_sweep.training.state import BestEpoch, EpochPart, TrainState

# State --------------------------------------------------------------------------------------------


def made_state(optimizer="adamw"):
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2)
    config = FinetuneConfig(optimizer=optimizer, lr=0.1)
    parameters = [*body.parameters(), *head.parameters()]
    return TrainState(models={"body": body, "head": head}, optimizer=build_optimizer(config, parameters))


def take_steps(state, n_steps):
    for _ in range(n_steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(state.n_steps))
        state.optimizer.zero_grad()
        state.models["head"](state.models["body"](x)).square().sum().backward()
        state.optimizer.step()
        state.n_steps += 1


def digest(state):
    arrays, _ = state.pack()
    return state_digest(arrays)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_restored_state_goes_on_as_the_unbroken_one(optimizer, at, tmp_path):
    """Weights, buffers and moments pass through a file of arrays and JSON."""
    whole, broken, restored = made_state(optimizer), made_state(optimizer), made_state(optimizer)
    take_steps(whole, 5)
    take_steps(broken, at)
    write_tensors(str(tmp_path / "state"), *broken.pack())
    take_steps(restored, 2)  # its old state is replaced
    restored.restore(read_tensors(str(tmp_path / "state")))
    assert restored.n_steps == at and digest(restored) == digest(broken)
    take_steps(restored, 5 - at)
    assert digest(restored) == digest(whole)


def test_position_part_and_best_epoch_come_back(tmp_path):
    state = made_state()
    state.epoch, state.seconds, state.micro_batch_size = 2, 1.5, 4
    state.history = [{"epoch": 1, "val_loss": None}, {"epoch": 2, "val_loss": 0.1 + 0.2}]
    state.part = EpochPart(loss_sum=torch.tensor(1 / 3), step=3, lr=0.1, lr_integral=0.3, seconds=0.7)
    state.best = BestEpoch(epoch=1, val_metric=2 / 3, weights={"weight": np.arange(3.0)})
    write_tensors(str(tmp_path / "state"), *state.pack(inputs={"seed": 1}))
    saved = read_tensors(str(tmp_path / "state"))
    restored = made_state()
    restored.restore(saved)
    assert saved.meta["inputs"] == {"seed": 1}
    assert restored.is_inside_epoch and restored.part == state.part
    assert (restored.epoch, restored.seconds, restored.micro_batch_size) == (2, 1.5, 4)
    assert restored.history == state.history
    assert (restored.best.epoch, restored.best.val_metric) == (1, 2 / 3)
    assert np.array_equal(restored.best.weights["weight"], np.arange(3.0))
    # A state at an epoch's end has no part, and a state before the first epoch no best epoch: neither is left over.
    write_tensors(str(tmp_path / "state"), *made_state().pack())
    restored.restore(read_tensors(str(tmp_path / "state")))
    assert restored.part is None and restored.best is None and not restored.is_inside_epoch


# Prefixes -----------------------------------------------------------------------------------------


def test_the_longest_stored_prefix_is_the_last_that_is_whole(tmp_path, caplog):
    store = Store(str(tmp_path))
    find = lambda epochs: find_longest_prefix(store, "chain", epochs, lambda epoch: f"{epoch:032d}")  # noqa: E731
    assert find(range(1, 9)) is None
    for epoch in (2, 5):
        store.put("chain", f"{epoch:032d}", {"x": np.full(2, epoch)}, {})
    assert find([]) is None and find([1]) is None
    assert find(range(1, 5))[0] == 2
    epoch, artifact = find({5, 2, 8})
    assert epoch == 5 and artifact.tensors["x"].tolist() == [5, 5]
    with open(store.path_of("chain", f"{5:032d}"), "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\1\2\3")
    assert find(range(1, 9))[0] == 2
    assert "set aside" in caplog.text


# Checkpoint policy --------------------------------------------------------------------------------


class Clock:
    """A clock that only the test advances."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_state_is_due_after_so_many_epochs():
    policy = CheckpointPolicy(every_s=60.0, every_epochs=3, read_clock=Clock())
    assert [policy.is_due(epoch) for epoch in range(5)] == [False, False, False, True, True]
    policy.note_saved(3)
    assert [policy.is_due(epoch) for epoch in (4, 5, 6)] == [False, False, True]
    assert not policy.is_due(6, is_inside_epoch=True)


def test_a_state_is_due_after_so_many_seconds_inside_an_epoch_too():
    clock = Clock()
    policy = CheckpointPolicy(every_s=60.0, every_epochs=10**6, read_clock=clock)
    clock.now += 59
    assert not policy.is_due(0, is_inside_epoch=True) and not policy.is_due(1)
    clock.now += 1
    assert policy.is_due(0, is_inside_epoch=True) and policy.is_due(1)
    policy.note_saved(1)
    assert not policy.is_due(1, is_inside_epoch=True)


def test_a_state_is_due_at_epochs_from_which_other_runs_continue_and_after_a_takeover():
    policy = CheckpointPolicy(every_s=math.inf, at_epochs={2, 5}, read_clock=Clock())
    assert [epoch for epoch in range(1, 7) if policy.is_due(epoch)] == [2, 5]
    policy = CheckpointPolicy(every_s=math.inf, every_epochs=10**6, read_clock=Clock())
    assert not policy.is_due(4)
    policy.note_taken_over()
    assert policy.is_due(4) and not policy.is_due(4, is_inside_epoch=True)
    policy.note_saved(4)
    assert not policy.is_due(5)


def test_a_checkpoint_file_holds_the_state_of_its_own_run_only(tmp_path):
    saving = Saving(path=tmp_path / "checkpoint", identity="a", every_epochs=2)
    file, state = CheckpointFile(saving), made_state()
    assert file.read_own() is None
    take_steps(state, 2)
    state.epoch = 2
    assert file.policy.is_due(2)
    file.write_state(state, reused=[[1, 0.5]])
    assert not file.policy.is_due(3)
    saved = file.read_own()
    assert (saved.meta["epoch"], saved.meta["n_steps"], saved.meta["reused"]) == (2, 2, [[1, 0.5]])
    assert CheckpointFile(Saving(path=tmp_path / "checkpoint", identity="b")).read_own() is None
    (tmp_path / "checkpoint").write_bytes(b"torn")
    with pytest.raises(CorruptFileError):
        read_tensors(file.path)
    assert file.read_own() is None


# Reading ahead ------------------------------------------------------------------------------------


def test_items_come_in_order_and_the_next_is_fetched_while_one_is_used():
    fetched, is_fetched = [], threading.Event()

    def fetch(item):
        fetched.append((item, threading.current_thread()))
        if item == 1:
            is_fetched.set()
        return 10 * item

    with contextlib.closing(prefetch(fetch, range(4))) as items:
        assert next(items) == 0
        assert is_fetched.wait(10)  # before it is asked for
        assert list(items) == [10, 20, 30]
    assert [item for item, _ in fetched] == [0, 1, 2, 3]
    assert threading.main_thread() not in [thread for _, thread in fetched]
    assert list(prefetch(fetch, [])) == []


def test_an_error_in_fetching_comes_where_its_item_would_and_is_the_last():
    fetched = []

    def fetch(item):
        fetched.append(item)
        if item == 2:
            raise OSError("the disk is gone")
        return item

    n_threads = threading.active_count()
    items = prefetch(fetch, range(6))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert fetched == [0, 1, 2]
    assert threading.active_count() == n_threads


def test_the_thread_ends_with_the_loop_over_it():
    n_threads = threading.active_count()

    def use_items():
        with contextlib.closing(prefetch(lambda item: item, range(6))) as items:
            for item in items:
                assert threading.active_count() == n_threads + 1
                if item == 2:
                    raise KeyError

    with pytest.raises(KeyError):
        use_items()
    assert threading.active_count() == n_threads
    assert list(prefetch(lambda item: item, range(3))) == [0, 1, 2]
    assert threading.active_count() == n_threads


# Cached features ----------------------------------------------------------------------------------


class TokensOfVectors(nn.Module):
    """A body with dropout: (B, D) -> (B, 2, D)."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(6, 6), nn.Dropout(0.5)

    def forward(self, x):
        return torch.stack([self.dropout(self.linear(x)), x], dim=1)


@pytest.fixture
def parts():
    """A small model and its samples."""
    torch.manual_seed(0)
    model = OrcaModel(nn.Linear(4, 6), TokensOfVectors(), VectorPredictor(6, 3), mean=None, std=None)
    x, val_x = (np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32) for seed, n in ((0, 10), (1, 7)))
    return model, Feed(x, "cpu"), val_x


def test_cached_features_are_those_of_the_frozen_parts_and_give_the_same_predictions(parts):
    model, x, val_x = parts
    cache = FeatureCache(model, x, val_x, Inference(batch_size=3))
    freeze_weights(model, ("embedder", "body"))
    cache.update_features()
    assert (cache.features.train.shape, cache.features.val.shape) == ((10, 6), (7, 6))
    with torch.no_grad():
        torch.testing.assert_close(cache.features.train, model.features(x[:]))
        torch.testing.assert_close(cache.features.val, model.features(torch.from_numpy(val_x)))
        torch.testing.assert_close(model.from_features(cache.features.train), model(x[:]))
    kept = cache.features
    cache.update_features()
    assert cache.features is kept  # computed once for the whole phase


@pytest.mark.parametrize("words", [(), ("embedder",), ("body",), ("predictor",), ("body-without-biases", "embedder")])
def test_features_are_dropped_as_soon_as_embedder_or_body_trains(parts, words):
    model, x, val_x = parts
    cache = FeatureCache(model, x, val_x, Inference())
    freeze_weights(model, ("embedder", "body"))
    cache.update_features()
    freeze_weights(model, words)
    cache.update_features()
    assert cache.features is None


def test_weights_that_came_from_elsewhere_give_other_features(parts):
    model, x, val_x = parts
    cache = FeatureCache(model, x, val_x, Inference())
    freeze_weights(model, ("embedder", "body"))
    cache.update_features()
    before = cache.features.train
    with torch.no_grad():
        model.body.linear.weight.add_(1)
    cache.drop_features()
    cache.update_features()
    assert not torch.equal(cache.features.train, before)


def test_features_that_are_too_many_are_not_kept(parts, monkeypatch):
    model, x, val_x = parts
    freeze_weights(model, ("embedder", "body"))
    for limit, is_kept in ((17 * 6 - 1, False), (17 * 6, True)):
        monkeypatch.setattr(feature_cache, "MAX_NUMBERS", limit)
        cache = FeatureCache(model, x, val_x, Inference())
        cache.update_features()
        assert (cache.features is not None) is is_kept


# Steps and samples --------------------------------------------------------------------------------


def test_a_step_on_cached_features_is_the_step_on_the_samples(parts):
    """Accumulated over passes of three; the frozen body runs without dropout, so only rounding differs."""
    weights = []
    for is_cached in (False, True):
        model, x, val_x = parts
        torch.manual_seed(1)
        model.predictor.linear.reset_parameters()
        setup = FinetuneSetup(config=FinetuneConfig(batch_size=3, lr=0.1), seed_of=lambda source: 0)
        freeze_weights(model, ("embedder", "body"))
        state = TrainState(models={"model": model}, optimizer=build_optimizer(setup.config, model.parameters()))
        stepper = Stepper(model, state, nn.CrossEntropyLoss(), setup)
        cache = FeatureCache(model, x, val_x, setup.inference)
        cache.update_features()
        inputs, forward = (cache.features.train, model.from_features) if is_cached else (x[:], model)
        stepper.take_step(forward, (inputs, torch.arange(10) % 3), lr=0.1, dropout_seed=0)
        weights.append(model.predictor.linear.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1])


def test_every_epoch_of_a_feed_is_all_samples_in_its_own_order():
    samples = Samples(np.arange(10.0, dtype=np.float32)[:, None], np.arange(10))
    feed = TrainingFeed(samples, lambda source: 0, "cpu", step_size=4, augments=True)
    orders = []
    for epoch in (1, 2, 1):
        batches = feed.draw_batches(epoch)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        read = [feed.read_batch(batch, epoch, step) for step, batch in enumerate(batches)]
        orders.append(torch.cat([y for _, y in read]).tolist())
        assert torch.cat([x for x, _ in read])[:, 0].tolist() == orders[-1]
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]


# Freeze words -------------------------------------------------------------------------------------


def test_every_kind_of_weights_has_a_meaning_and_a_kind_without_one_is_an_error(parts, monkeypatch):
    assert set(SELECTORS) == set(KINDS)
    model = parts[0]
    for word in ("body.gates", "body-without-gates", "gates", "body-gates", "body.layers"):
        with pytest.raises(InputError, match="which weights .* freezes is not defined"):
            find_frozen_names(model, (word,))
        with pytest.raises(InputError, match="which weights .* freezes is not defined"):
            freeze_weights(model, ("embedder", word))
    monkeypatch.delitem(SELECTORS, "attention")
    with pytest.raises(InputError, match=r"'attention'.*norms, transformer-norms, qkv, biases"):
        find_frozen_names(model, ("body.attention",))


def test_a_body_that_does_not_list_its_layers_is_named():
    with pytest.raises(TypeError, match=r"Linear has no method layers\(\)"):
        body_layers(nn.Linear(1, 1))


def test_a_freeze_word_is_added_in_two_files(parts, monkeypatch):
    """Its name in ``config.freeze_words`` and its definition in ``training.freezing``; its complement follows."""
    model = parts[0]
    words = ("body.kernels", "body-without-kernels")
    with pytest.raises(ValueError, match="cannot be frozen"):
        parse_schedule("body.kernels:2 > none", 0)
    monkeypatch.setattr(freeze_words, "WORDS", (*freeze_words.WORDS, *words))
    monkeypatch.setitem(SELECTORS, "kernels", lambda parameter: parameter.name.endswith("weight"))
    first, _ = parse_schedule("body.kernels+embedder:2 > none", 0)
    assert first.frozen == ("embedder", "body.kernels")
    assert find_frozen_names(model, words[:1]) == {"body.linear.weight"}
    assert find_frozen_names(model, words[1:]) == {"body.linear.bias"}
