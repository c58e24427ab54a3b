"""Fine-tuning prefixes: which trials of a plan share them, and that sharing does not change a bit of any trial."""

import itertools
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep.config.freezing import cut_phases, epochs_before_fresh_start, parse_schedule, phase_at
from orca_sweep.results import collect, read_record, reveal
from orca_sweep.space.prefixes import shared_epochs, shared_prefixes, without_schedule
from orca_sweep.space.records import PlannedTrial
from orca_sweep.store import Store
from orca_sweep.training import finetune as finetuning
from orca_sweep.training import learning_rates
from orca_sweep.training.checkpoints import CheckpointPolicy
from orca_sweep.training.optimizer_steps import Stepper
from orca_sweep.training.prefixes import PREFIX_STAGE
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import load_imports, make_config

# Plans --------------------------------------------------------------------------------------------


def planned(*settings, **common):
    """Planned trials with the settings (dots as '__')."""
    configs = [make_config({key.replace("__", "."): v for key, v in {"task": "digits", **common, **own}.items()})
               for own in settings]  # fmt: skip
    return [PlannedTrial(trial_id=c.trial_id, cell_id=c.cell_id, seed=c.seed, config=c) for c in configs]


def frozen(freeze, freeze_epochs=0, epochs=20):
    return {"finetune__freeze": freeze, "finetune__freeze_epochs": freeze_epochs, "finetune__epochs": epochs}


def shared_of(*settings, **common):
    trials = planned(*settings, **common)
    shared_by_id = shared_prefixes(trials)
    return [sorted(shared_by_id.get(trial.trial_id, ())) for trial in trials]


@pytest.mark.parametrize(
    ("schedules", "expected"),
    [
        ([("body:5 > none",), ("body:10 > none",)], [[5], [5]]),
        ([("body", 5), ("body", "forever")], [[5], [5]]),
        ([("none", 0, 20), ("none", 0, 40)], [[20], [20]]),
        ([("body", 5, 4), ("body", 7, 40)], [[4], [4]]),
        ([("none",), ("body", 5)], [[], []]),
        ([("body", 5)], [[]]),
        ([("body", 5), ("body", 10), ("body", 15)], [[5], [5, 10], [5, 10]]),
        ([("body:2 > none",), ("body:2 > embedder:3 > none",), ("body:2 > embedder",)], [[2], [2, 5], [2, 5]]),
        ([("both", 3), ("gradual-unfreeze", 3), ("linear-probe",)], [[3], [3], [3]]),
        ([("gradual-unfreeze", 2), ("gradual-unfreeze", 3)], [[2], [2]]),
        ([("gradual-unfreeze", 2, 20), ("gradual-unfreeze", 2, 30)], [[20], [20]]),
        ([("gradual-unfreeze", 2), ("embedder+body:2 > embedder:2 > none",)], [[2], [2]]),
        ([("gradual-unfreeze", 2), ("embedder+body:2 lr*3 > none",)], [[], []]),
        ([("body:5 lr*10 > none",), ("body:8 lr*10 > none",), ("body:5 > none",)], [[5], [5], []]),
        ([("body:5 constant > none",), ("body:5 > none",)], [[], []]),
        ([("body:5 > none",), ("body:5 > none fresh",), ("body:5 > none lr*2",)], [[5], [5], [5]]),
        ([("body:5 > none:4 fresh > body",), ("body:5 > none fresh",), ("body:6",)], [[5, 9], [5, 9], [5]]),
        ([("body:5 > body:2 fresh > none",), ("body:7 > none",), ("body:9 > none",)], [[5], [5, 7], [5, 7]]),
        ([("body:5 lr*10 > none fresh", 0, 20), ("body:5 lr*10 > none fresh", 0, 30)], [[20], [20]]),
    ],
)
def test_trials_share_the_epochs_until_their_schedules_part_or_one_ends(schedules, expected):
    assert shared_of(*(frozen(*schedule) for schedule in schedules)) == expected


@pytest.mark.parametrize("other", [{"finetune__lr": 0.01}, {"seed": 1}, {"embedder__epochs": 3}, {"data__n_train": 50}])
def test_trials_that_differ_in_anything_else_share_nothing(other):
    assert shared_of({**frozen("body", 5), **other}, frozen("body", 10)) == [[], []]


words = st.sampled_from([(), ("body",), ("embedder",), ("embedder", "body")])
stepping = st.sampled_from(["", "", " lr*2", " constant", " fresh", " lr*2 fresh"])
texts = st.lists(st.tuples(words, st.integers(0, 4), stepping), min_size=1, max_size=4).map(
    lambda phases: " > ".join(f"{'+'.join(part) or 'none'}:{n}{how}" for part, n, how in phases)
)
freezes = st.one_of(
    st.tuples(texts, st.just(0)),
    st.tuples(st.sampled_from(["body", "both"]), st.one_of(st.integers(0, 6), st.just("forever"))),
    st.tuples(st.just("gradual-unfreeze"), st.integers(1, 4)),
)
cells = st.lists(st.tuples(freezes, st.integers(1, 12), st.integers(0, 1)), min_size=1, max_size=12)


def by_epoch(config, n_layers):
    """What each epoch of a trial does: what is frozen, at what rate, since which start."""
    phases = parse_schedule(config.finetune.freeze, config.finetune.freeze_epochs, n_layers)
    works = [(phase_at(phases, epoch), epoch) for epoch in range(1, config.finetune.epochs + 1)]
    return [(phase.frozen, phase.lr_factor, phase.constant_lr, epochs_before_fresh_start(phases, epoch))
            for phase, epoch in works]  # fmt: skip


def agreement(a, b):
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@given(cells, st.integers(1, 4))
def test_what_is_shared_is_found_by_comparing_every_two_trials(cells, n_layers):
    made = planned(*({**frozen(*freeze, epochs=epochs), "seed": seed} for freeze, epochs, seed in cells))
    trials = list({trial.trial_id: trial for trial in made}.values())
    shared_by_id = shared_prefixes(trials)
    for trial in trials:
        # Trials whose rate is always at its peak have no warm-up and no decay, so they start differently from the rest.
        start = without_schedule(trial.config)
        relatives = [t for t in trials if t is not trial and without_schedule(t.config) == start]
        mine = by_epoch(trial.config, n_layers)
        exact = {agreement(mine, by_epoch(other.config, n_layers)) for other in relatives} - {0}
        gradual = [t.config.finetune.freeze == "gradual-unfreeze" for t in (trial, *relatives)]
        if not any(gradual):
            assert shared_by_id.get(trial.trial_id, frozenset()) == exact
        # With the number of layers, schedules may be more equal than a plan can know, never less.
        assert all(any(shared <= epochs for epochs in exact) for shared in shared_by_id.get(trial.trial_id, ()))


def test_epochs_shared_are_those_that_need_not_be_computed():
    trials = planned(frozen("body", 5, 20), frozen("body", 10, 20), frozen("none", 0, 20), frozen("none", 0, 8))
    assert shared_epochs(t.config for t in trials) == 5 + 8
    assert shared_epochs(t.config for t in trials[:1]) == 0


def test_a_thousand_trials_that_all_share_something():
    base = make_config({"task": "digits"})
    finetunes = [base.finetune.model_copy(update={"freeze": "body", "freeze_epochs": k, "epochs": 2000})
                 for k in range(1, 1001)]  # fmt: skip
    configs = [base.model_copy(update={"finetune": finetune}) for finetune in finetunes]
    trials = [PlannedTrial(trial_id=str(i), cell_id="", seed=0, config=config) for i, config in enumerate(configs)]
    shared_by_id = shared_prefixes(trials)
    assert shared_by_id["0"] == {1}
    assert shared_by_id["500"] == set(range(1, 502))
    assert shared_by_id["999"] == set(range(1, 1000))


def test_the_beginning_of_a_schedule_is_what_its_epochs_depend_on():
    phases = parse_schedule("body:2 > embedder:3 > none", 0)
    assert [(p.epochs, p.frozen) for p in cut_phases(phases, 4)] == [(2, ("body",)), (2, ("embedder",))]
    assert [p.epochs for p in cut_phases(phases, 30)] == [2, 3, 25]
    assert cut_phases(phases, 2) == cut_phases(parse_schedule("body", "forever"), 2)
    assert cut_phases(phases, 0) == ()


# Sharing ------------------------------------------------------------------------------------------


class Bench:
    """Runs trials one after the other with the same store, sharing prefixes or each alone."""

    def __init__(self, tmp_path, settings):
        self.tmp_path = tmp_path
        self.trials = planned(*settings)
        self.shared = shared_prefixes(self.trials)
        self.worker = Worker(Store(str(tmp_path / "store")))

    def run(self, i, report=lambda row: None, folder="shared", epochs=None):
        config = self.trials[i].config
        epochs = self.shared.get(config.trial_id, ()) if epochs is None else epochs
        data = self.tmp_path / "data"
        row = run_config(
            config,
            RunContext(
                folder=self.tmp_path / folder, worker=self.worker, data_root=data, report=report, prefix_epochs=epochs
            ),
        )
        return row, read_record(self.tmp_path / folder, config.trial_id)["epochs"]

    def alone(self):
        """The trials without sharing; nothing of their fine-tuning stays in the store."""
        rows = [self.run(i, folder="alone", epochs=()) for i in range(len(self.trials))]
        assert self.stored() == []
        assert not any(PREFIX_STAGE in row["reused"] for row, _ in rows)
        return rows

    def stored(self):
        return [entry for entry in self.worker.store.list_entries() if entry.stage == PREFIX_STAGE]


@pytest.fixture
def bench(tmp_path, worker, user_tasks):
    """Makes a ``Bench`` of settings on one thread; ``tiny`` for four epochs unless they say otherwise."""
    return lambda *settings, **common: Bench(
        tmp_path, [{"task": "tiny", "finetune__epochs": 4, **common, **own} for own in settings]
    )


@pytest.fixture
def computed(monkeypatch):
    """The fine-tuning epochs that were computed, in order."""
    epochs = []
    real = finetuning._Loop.run_epoch

    def spy(loop):
        epochs.append(loop.state.epoch + 1)
        real(loop)

    monkeypatch.setattr(finetuning._Loop, "run_epoch", spy)
    return epochs


SAME = ("status", "state_sha256", "val_metric_best", "val_metric_last", "test_metric_best", "test_metric_last",
        "best_epoch", "n_steps", "n_trainable_first", "n_trainable_last", "resumed_from_epoch")  # fmt: skip


def timeless(epochs):
    return [{k: v for k, v in row.items() if k != "wall_time_s"} for row in epochs]


def check_equal(outcome, wanted):
    """Rows and epochs of two runs are the same bit for bit."""
    assert {k: outcome[0].get(k) for k in SAME} == {k: wanted[0].get(k) for k in SAME}
    assert timeless(outcome[1]) == timeless(wanted[1])


def cut(n, then="none"):
    return {"finetune__freeze": f"body:{n} > {then}"}


TEXT = {"task": "watch-exercises", "body__name": "roberta-micro", "body__pretrain_fraction": 0, "data__n_train": 21,
        "proxy": "none"}  # fmt: skip
WAYS = {
    "adamw": {},
    "sgd": {"finetune__optimizer": "sgd", "finetune__lr": 0.05},
    "accumulated, clipped, warmed up": {
        "finetune__batch_size": 5, "finetune__accumulation": 2, "finetune__grad_clip": 0.1,
        "finetune__warmup_epochs": 1, "finetune__decay_epochs": 4,
    },
    "after embedder training": {"proxy": "mnist5k", "embedder__epochs": 2},
    "adapters": {"finetune__lora_rank": 2, "finetune__lr": 0.01},
    "a text body with dropout": TEXT,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_shared_prefix_changes_no_bit(bench, computed, way):
    made = bench(cut(2), cut(3, "embedder"), **WAYS[way])
    expected = made.alone()
    assert expected[0][0]["state_sha256"] != expected[1][0]["state_sha256"]
    computed.clear()
    first, second = made.run(0), made.run(1)
    assert computed == [1, 2, 3, 4, 3, 4]
    check_equal(first, expected[0])
    check_equal(second, expected[1])
    prefix = [row for row in first[1] if row["stage"] == "finetune"][:2]
    assert [row for row in second[1] if row["stage"] == "finetune"][:2] == prefix
    stages_reused = second[0]["reused"].split(",")
    assert (stages_reused.count(PREFIX_STAGE), PREFIX_STAGE in first[0]["reused"]) == (1, False)
    if stages_reused == [PREFIX_STAGE]:
        assert second[0]["reused_s"] == pytest.approx(sum(row["wall_time_s"] for row in prefix))
    assert len(made.stored()) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_and_fresh_starts_are_shared_to_the_bit(bench, computed, optimizer):
    """After two epochs at ten times the rate, one starts fresh and another continues; a third parts from the first later."""
    more = {"finetune__optimizer": optimizer, "finetune__lr": 1e-3, "finetune__warmup_epochs": 1,
            "finetune__decay_epochs": 5}  # fmt: skip
    begin = "body:2 lr*10 constant > "
    thens = ("none fresh", "none", "none:1 fresh > embedder", "none:1 > none fresh")
    made = bench(*({"finetune__freeze": begin + then} for then in thens), **more)
    expected = made.alone()
    assert len({row["state_sha256"] for row, _ in expected}) == 4
    computed.clear()
    for i in range(4):
        check_equal(made.run(i), expected[i])
    assert computed == [1, 2, 3, 4, 3, 4, 4, 4]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_a_prefix_has_forgotten_is_forgotten_by_a_run_that_had_begun_alone(bench, computed, optimizer):
    """It dies in the first epoch, with moments of all parameters; the prefix that it takes over has none for the predictor."""
    more = {"finetune__optimizer": optimizer, "finetune__lr": 0.01, "finetune__epochs": 4}
    made = bench(
        *({"finetune__freeze": f"none:1 > predictor:2 fresh > {then}"} for then in ("none", "embedder")), **more
    )
    expected = made.alone()
    with pytest.raises(KeyboardInterrupt):
        made.run(0, kill_at(1, KeyboardInterrupt))
    computed.clear()
    second, first = made.run(1), made.run(0)
    assert computed == [1, 2, 3, 4, 4]
    check_equal(second, expected[1])
    check_equal(({**first[0], "resumed_from_epoch": 0}, first[1]), expected[0])


def test_dropout_of_a_published_body_and_decoders_that_read_differently(bench, computed, saved_body):
    """No weight depends on ``body.input_mode``: two modes have equal states, but must not share what follows."""
    common = {**TEXT, "body__name": str(saved_body("gpt2")), "body__pretrain_fraction": 1, "finetune__epochs": 3}
    plain, flip = {"body__input_mode": "plain"}, {"body__input_mode": "flip"}
    made = bench({**cut(1), **plain}, {**cut(2), **plain}, {**cut(1), **flip}, {**cut(2), **flip}, **common)
    expected = made.alone()
    computed.clear()
    for i in range(4):
        check_equal(made.run(i), expected[i])
    assert computed == [1, 2, 3, 2, 3] * 2
    assert len(made.stored()) == 2


def test_augmentation_and_parts_go_on_from_a_prefix(bench, computed, tmp_path):
    from tests.builders.tasks import PARTS_ON_DISK

    path = tmp_path / "noisy.py"
    path.write_text(PARTS_ON_DISK.replace("noisy-parts", "noisy-shared"))
    load_imports([str(path)])
    made = bench(cut(1), cut(2), task="noisy-shared", finetune__epochs=3)
    expected = made.alone()
    computed.clear()
    for i in (1, 0):
        check_equal(made.run(i), expected[i])
    assert computed == [1, 2, 3, 2, 3]


def test_features_of_frozen_parts_are_made_again_and_are_the_same(bench, computed):
    """The prefix ends inside the second trial's frozen phase, in which features are cached."""
    made = bench(frozen("both", 2, 4), frozen("linear-probe", 0, 4), frozen("gradual-unfreeze", 3, 5))
    expected = made.alone()
    computed.clear()
    for i in range(3):
        check_equal(made.run(i), expected[i])
    assert computed == [1, 2, 3, 4, 3, 4, 4, 5]


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_a_tree_of_prefixes_is_computed_once_in_any_order(bench, computed, order):
    made = bench(cut(1), cut(2), cut(3), finetune__epochs=4)
    expected = made.alone()
    computed.clear()
    for i in order:
        check_equal(made.run(i), expected[i])
    assert len(computed) == 4 + 3 + 2
    assert len(made.stored()) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_shorter_run_is_the_prefix_of_a_longer_one(bench, computed, order):
    made = bench({"finetune__epochs": 2}, {"finetune__epochs": 5})
    expected = made.alone()
    computed.clear()
    for i in order:
        check_equal(made.run(i), expected[i])
    assert computed == [1, 2, 3, 4, 5]


def test_a_later_sweep_in_the_store_takes_over_what_it_did_not_plan(bench, computed):
    made = bench(cut(2), cut(3), {**cut(4)}, finetune__epochs=5)
    expected = made.alone()[2]
    made.shared = {made.trials[i].trial_id: {2} for i in (0, 1)}
    computed.clear()
    made.run(0)
    row = made.run(2, folder="later")
    check_equal(row, expected)
    assert computed == [1, 2, 3, 4, 5, 3, 4, 5]
    assert row[0]["reused"] == PREFIX_STAGE


def test_a_prefix_that_only_one_trial_has_is_not_stored(bench):
    made = bench({"finetune__freeze": "none"}, cut(2))
    for i in (0, 1):
        made.run(i)
    assert made.stored() == []


# Interrupted, failed, diverged --------------------------------------------------------------------


def kill_at(epoch, error):
    def report(row):
        if (row["stage"], row["epoch"]) == ("finetune", epoch):
            raise error

    return report


@pytest.mark.parametrize(
    ("killed_at", "then"),
    [
        # Killed inside the prefix: the other trial computes it, and the first takes it over and is further along.
        (2, [1, 2, 3, 4, 5, 4, 5]),
        # Killed when the prefix ends, or later: the trial continues from its own checkpoint.
        (3, [4, 5, 4, 5]),
        (4, [4, 5, 5]),
    ],
)
def test_a_killed_trial_leaves_a_whole_prefix_or_none(bench, computed, killed_at, then):
    made = bench(cut(3), cut(4), finetune__epochs=5)
    expected = made.alone()
    with pytest.raises(KeyboardInterrupt):
        made.run(0, kill_at(killed_at, KeyboardInterrupt))
    assert len(made.stored()) == (killed_at >= 3)
    computed.clear()
    second, first = made.run(1), made.run(0)
    assert computed == then
    check_equal(second, expected[1])
    assert first[0]["resumed_from_epoch"] == killed_at
    check_equal(({**first[0], "resumed_from_epoch": 0}, first[1]), expected[0])
    # Only epochs that it did not compute itself count as reused.
    taken = first[1][killed_at:3]
    assert (PREFIX_STAGE in first[0]["reused"]) == bool(taken)
    assert first[0]["reused_s"] == pytest.approx(sum(row["wall_time_s"] for row in taken))


def test_what_a_resumed_trial_had_taken_over_stays_in_its_row(bench, computed):
    made = bench(cut(2), cut(3), finetune__epochs=5)
    made.run(0)
    with pytest.raises(KeyboardInterrupt):
        made.run(1, kill_at(4, KeyboardInterrupt))
    computed.clear()
    row, epochs = made.run(1)
    assert computed == [5]
    assert (row["resumed_from_epoch"], row["reused"]) == (4, PREFIX_STAGE)
    assert row["reused_s"] == pytest.approx(sum(e["wall_time_s"] for e in epochs[:2]))


def test_what_another_makes_meanwhile_is_taken_over_in_the_middle_of_a_run(bench, computed):
    """The first trial takes over epochs 1 and 2, computes 3, takes over 4 and 5, is killed and goes on.

    Before and after what it takes over, embedder and body rest: other features are kept then.
    """
    both = "embedder+body"
    texts = (f"{both}:3 > none:2 > {both}", f"{both}:3 > none:2 > embedder", f"{both}:3 > embedder", f"{both}:2 > none")
    made = bench(*({"finetune__freeze": text} for text in texts), finetune__epochs=7)
    expected = made.alone()
    made.run(3)
    computed.clear()

    def report(row):
        if row["epoch"] == 3:
            made.run(1)
        if row["epoch"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(0, report)
    assert computed == [3, 4, 5, 6, 7, 6]
    row, epochs = made.run(0)
    check_equal(({**row, "resumed_from_epoch": 0}, epochs), expected[0])
    assert row["reused_s"] == pytest.approx(sum(epochs[i]["wall_time_s"] for i in (0, 1, 3, 4)))


def test_a_trial_that_fails_inside_the_prefix_does_not_poison_it(bench, computed):
    made = bench(cut(3), cut(4), finetune__epochs=5)
    expected = made.alone()
    row, _ = made.run(0, kill_at(2, RuntimeError("the disk is gone")))
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: the disk is gone")
    assert made.stored() == []
    computed.clear()
    check_equal(made.run(1), expected[1])
    assert computed == [1, 2, 3, 4, 5]
    again = made.run(0)
    check_equal(({**again[0], "resumed_from_epoch": 0}, again[1]), expected[0])


def test_a_prefix_owed_since_the_checkpoint_is_stored_by_the_successor(bench, monkeypatch):
    made = bench(cut(2), cut(3))

    def full(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", full)
        with pytest.raises(KeyboardInterrupt):
            made.run(0)
    assert made.stored() == []
    assert made.run(0)[0]["resumed_from_epoch"] == 2
    assert len(made.stored()) == 1


def test_a_run_resumed_inside_an_epoch_stores_no_prefix_of_its_middle(bench, monkeypatch):
    """Killed in epoch 3, then launched again when the grown space needs the state after epoch 2, which is gone by then."""
    made = bench(cut(2), cut(3))
    expected = made.alone()
    real_step = Stepper.take_step

    def step(stepper, *samples, **more):
        if stepper.state.epoch == 2 and stepper.state.part.step == 2:
            raise KeyboardInterrupt
        return real_step(stepper, *samples, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take_step", step)
        patch.setattr(CheckpointPolicy, "is_due", lambda policy, epoch, **more: True)
        with pytest.raises(KeyboardInterrupt):
            made.run(0, epochs=())
    assert made.stored() == []
    first = made.run(0)
    assert first[0]["resumed_from_epoch"] == 2
    check_equal(({**first[0], "resumed_from_epoch": 0}, first[1]), expected[0])
    check_equal(made.run(1), expected[1])


def test_a_damaged_prefix_is_computed_again(bench, computed, caplog):
    made = bench(cut(2), cut(3))
    expected = made.alone()[1]
    made.run(0)
    (entry,) = made.stored()
    with open(entry.path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\0" * 8)
    computed.clear()
    check_equal(made.run(1), expected)
    assert computed == [1, 2, 3, 4]
    assert "set aside" in caplog.text


def test_a_prefix_that_diverges_is_found_out_once(bench, computed, monkeypatch):
    """From the third epoch the learning rate is far too large; prefixes end after epochs 2 and 4."""
    real = learning_rates.finetune_learning_rate
    monkeypatch.setattr(
        learning_rates,
        "finetune_learning_rate",
        lambda config, step, n: 1e30 if step >= 2 * n else real(config, step, n),
    )
    made = bench(cut(2), cut(4), cut(5), finetune__epochs=6, finetune__optimizer="sgd")
    expected = made.alone()
    assert [row["status"] for row, _ in expected] == ["diverged"] * 3
    computed.clear()
    rows = [made.run(i) for i in range(3)]
    for outcome, wanted in zip(rows, expected, strict=True):
        check_equal(outcome, wanted)
        assert outcome[0]["error"] == wanted[0]["error"]
    assert [len(epochs) for _, epochs in rows] == [2, 2, 2]
    # The first shares two epochs and diverges alone; the second also finds the divergence of the third.
    assert computed == [1, 2, 3, 3]
    assert [row["reused"] for row, _ in rows] == ["", PREFIX_STAGE, PREFIX_STAGE]
    assert rows[2][0]["reused_s"] == pytest.approx(sum(row["wall_time_s"] for row in rows[0][1]))
    assert not list((made.tmp_path / "shared").rglob("checkpoint*"))


# Side by side -------------------------------------------------------------------------------------


def run_apart(tmp_path, imports, i, started):
    """A trial in a separate process, which is warm and starts when all are ready."""
    import torch

    torch.set_num_threads(1)
    load_imports([imports])
    made = Bench(tmp_path, [{"task": "tiny", "finetune__epochs": 6, **cut(n)} for n in (2, 4, 5)])
    made.run(i, folder=f"warm-{i}", epochs=())
    (started / str(i)).touch()
    while len(list(started.iterdir())) < 3:
        time.sleep(0.001)
    return made.run(i, lambda row: time.sleep(0.1))


def test_trials_side_by_side_share_without_computing_twice_or_waiting_for_ever(bench, tmp_path, user_tasks):
    made = bench(cut(2), cut(4), cut(5), finetune__epochs=6)
    expected = made.alone()
    started = tmp_path / "started"
    started.mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [pool.apply_async(run_apart, (tmp_path, str(user_tasks), i, started)) for i in range(3)]
        rows = [job.get(timeout=120) for job in jobs]
    for outcome, wanted in zip(rows, expected, strict=True):
        check_equal(outcome, wanted)
    # An epoch computed once has equal seconds in every row; 18 were asked for.
    times = {(row["epoch"], row["wall_time_s"]) for _, epochs in rows for row in epochs}
    assert len(times) == 6 + 4 + 2
    assert len(made.stored()) == 2


SPACE = """
name: frozen
base: {task: tiny, proxy: none, finetune.epochs: 4}
factors:
  finetune.freeze: [none, body, both]
  finetune.freeze_epochs: [2, forever]
seeds: [0, 1]
"""


def test_a_sweep_shares_prefixes_and_its_store_lists_them(tmp_path, user_tasks, run, head):
    from tests.commands import orca

    space = tmp_path / "space.yaml"
    space.write_text(f"imports: [{user_tasks}]\n{SPACE}")
    orca("launch", space, "--out", tmp_path / "out", "--store", tmp_path / "store", check=0, head=head)
    reveal(tmp_path / "out")
    trials = collect([tmp_path / "out"], tmp_path / "out/tables").trials
    assert trials.status.tolist() == ["ok"] * 10
    sharing = trials[trials.reused.str.contains(PREFIX_STAGE)]
    # One of each two that start frozen, whichever comes first.
    assert sharing.groupby(["seed", "finetune.freeze"]).size().to_dict() == {
        (seed, freeze): 1 for seed in (0, 1) for freeze in ("body", "both")
    }
    assert PREFIX_STAGE in orca("store", "ls", tmp_path / "store", check=0).stdout
    for _, row in sharing.iterrows():
        alone, _ = run(
            folder="alone", task="tiny", seed=int(row["seed"]), content__code=row["content.code"],
            **frozen(row["finetune.freeze"], json.loads(row["finetune.freeze_epochs"].replace("forever", '"forever"')), 4),
        )  # fmt: skip
        assert alone["trial_id"] == row["trial_id"]
        assert alone["state_sha256"] == row["state_sha256"]
        assert np.isclose(alone["test_metric_best"], row["test_metric_best"], rtol=0, atol=0)
