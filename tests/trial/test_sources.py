"""Sources of randomness: what ``seed_varies`` varies and keeps fixed, what is reused, and what is refused."""

import json

import pytest

from orca_sweep import streams
from orca_sweep.bodies import DROPOUT, find_body, has_dropout
from orca_sweep.config import Hasher, TrialConfig, knobs
from orca_sweep.errors import InputError
from orca_sweep.planning.forecast import forecast
from orca_sweep.results import read_record, unseal_metrics
from orca_sweep.space import plan_space
from orca_sweep.space.confounds import find_confounds
from orca_sweep.space.prefixes import shared_prefixes
from orca_sweep.space.records import PlannedTrial
from orca_sweep.store import Store
from orca_sweep.training import stages as running
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import load_imports, make_config, resolve_configs, resolve_settings, shared_stages
from orca_sweep.trial.sources import find_idle_sources
from tests.builders.tasks import PARTS_ON_DISK

STREAMS = {
    "embedder-init": {"embedder init"},
    "embedder-training": {"target subset", "proxy subset", "sliced directions"},
    "predictor-init": {"predictor init"},
    "adapter-init": {"adapter init"},
    "finetune-order": {"finetune order", "parts"},
    "augmentation": {"augmentation"},
    "dropout": {"dropout"},
    "data-split": {"subsample"},
    "pre-training": {"body init", "pretrain corpus", "pretrain head", "pretrain order", "pretrain dropout"},
}
"""Every stream of a trial that draws from all of them, by its source."""
OWN = STREAMS.keys() - {"data-split", "pre-training"}
LEVELS = knobs()["seed_varies"].type_name.split(" | ")
ALIGNED = {"task": "tiny", "proxy": "mnist5k", "embedder.max_samples_per_class": 4, "finetune.epochs": 1}


@pytest.fixture(scope="session")
def all_sources(tmp_path_factory, user_tasks):
    """Settings of a trial that draws from every source."""
    path = tmp_path_factory.mktemp("sources") / "noisy.py"
    path.write_text(PARTS_ON_DISK.replace("noisy-parts", "noisy-sources"))
    load_imports([str(path)])
    return {
        "task": "noisy-sources", "proxy": "mnist5k", "data.n_train": 8, "body.pretrain_fraction": 1, "body.pretrain_steps": 2,
        "embedder.init": "random", "embedder.epochs": 1, "embedder.objective": "sliced-wasserstein",
        "embedder.max_samples_per_class": 4, "embedder.proxy_samples": 20, "finetune.epochs": 1, "finetune.lora_rank": 2,
    }  # fmt: skip


@pytest.fixture
def go(tmp_path, worker):
    """Runs a config in this process, in the shared store or in a fresh one, and returns its row."""

    def run(config, fresh=None, prefix_epochs=()):
        use = worker if fresh is None else Worker(Store(str(tmp_path / f"store-{fresh}")))
        folder = tmp_path / f"sweep-{fresh}"
        row = run_config(
            config, RunContext(folder=folder, worker=use, data_root=tmp_path / "data", prefix_epochs=prefix_epochs)
        )
        assert row["status"] == "ok", row["error"]
        return {**row, **unseal_metrics(read_record(folder, config.trial_id))}

    return run


def seeded(settings, seed, varies="all"):
    return make_config({**settings, "seed_varies": varies}).model_copy(update={"seed": seed})


# What varies --------------------------------------------------------------------------------------


def expected(level):
    """The sources that follow the run seed."""
    return {"all": OWN, "everything": STREAMS.keys()}.get(level, {level})


def test_the_levels_are_all_everything_and_each_source():
    assert LEVELS[:2] == ["all", "everything"]
    assert set(LEVELS[2:]) == STREAMS.keys()


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_moves_its_own_streams_and_holds_all_others_at_seed_0(level, all_sources, go, monkeypatch):
    """The test records every draw of a whole trial, so it would notice a stream that belongs to no source."""
    heard = {}
    real = streams.stream_seed

    def spy(seed, stream, *indices):
        heard.setdefault(stream, set()).add(seed)
        return real(seed, stream, *indices)

    # ``make_config`` would refuse dropout for a body that has none, so the level is set after it.
    config = make_config(all_sources).model_copy(update={"seed": 3, "seed_varies": level})
    monkeypatch.setattr(streams, "stream_seed", spy)
    running._task_data.cache_clear()
    go(config)
    assert heard == {
        stream: {3 if source in expected(level) else 0} for source, own in STREAMS.items() for stream in own
    }


def test_splits_and_clusters_are_the_data_split_s(go, monkeypatch):
    """The task's own splits, and the clusters that replace labels where it has none."""
    from orca_sweep.data import samples
    from orca_sweep.tasks import loading

    heard = {}
    for module in (streams, loading):
        real = module.stream_seed
        monkeypatch.setattr(
            module, "stream_seed", lambda seed, stream, *i, real=real: heard.setdefault(stream, seed) or real(seed, stream, *i)
        )  # fmt: skip
    assert samples.stream_rng is streams.stream_rng
    settings = {"task": "darcy-generated", "embedder.epochs": 1, "body.pretrain_fraction": 0, "finetune.epochs": 1,
                "data.split_seed": 5, "data.n_train": 20}  # fmt: skip
    running._task_data.cache_clear()
    go(seeded(settings, 3, "data-split"))
    assert {heard[stream] for stream in ("split", "subsample", "pseudo-labels")} == {8}
    assert heard["predictor init"] == 0


def test_a_varied_source_changes_the_run_and_other_knobs_can_express_it(all_sources, go):
    """Split and pre-training vary by their own seeds; at seed 0 all levels are the same run."""
    base = go(seeded(all_sources, 0))["state_sha256"]
    moved = {level: go(seeded(all_sources, 1, level)) for level in LEVELS if level != "dropout"}
    assert len({base, *(row["state_sha256"] for row in moved.values())}) == len(moved) + 1
    by_hand = {
        "data-split": ({"data.split_seed": 1}, 0),
        "pre-training": ({"body.pretrain_seed": 1}, 0),
        "everything": ({"data.split_seed": 1, "body.pretrain_seed": 1}, 1),
    }
    for level, (settings, seed) in by_hand.items():
        row = go(seeded({**all_sources, **settings}, seed), fresh=level)
        assert row["state_sha256"] == moved[level]["state_sha256"], level
        assert row["data_sha256"] == moved[level]["data_sha256"]
        assert row["test_metric_best"] == moved[level]["test_metric_best"]
    same = {row["data_sha256"] for level, row in moved.items() if level not in ("data-split", "everything")}
    assert len(same) == 1
    assert {moved[level]["body_sha256"] for level in OWN - {"dropout"}} == {moved["all"]["body_sha256"]}
    assert moved["pre-training"]["body_sha256"] == moved["everything"]["body_sha256"] != moved["all"]["body_sha256"]


def test_dropout_alone_varies_the_masks_of_a_body_that_has_it(go):
    settings = {"task": "watch-exercises", "body.name": "roberta-micro", "body.pretrain_fraction": 0, "data.n_train": 21,
                "proxy": "none", "finetune.epochs": 1}  # fmt: skip
    rows = [go(seeded(settings, seed, "dropout")) for seed in (0, 1, 2)]
    assert len({row["state_sha256"] for row in rows}) == 3


@pytest.mark.parametrize("level", ["predictor-init", "finetune-order", "embedder-init", "embedder-training"])
def test_what_does_not_vary_is_the_same_at_every_seed(level, go, monkeypatch, user_tasks):
    """Compares the weights where fine-tuning starts and its batches at two seeds of a source."""
    from orca_sweep.bodies.network import to_arrays
    from orca_sweep.store import state_digest
    from orca_sweep.training import feed
    from orca_sweep.training import finetune as finetuning

    starts, orders = [], []
    plain, loop = feed.split_into_batches, finetuning._Loop.run_epoch

    def epoch(self):
        parts = self.model.named_children()
        starts.append({name: state_digest(to_arrays(part.state_dict())) for name, part in parts})
        loop(self)

    def spied(order, size):
        orders.append(order.tolist())
        return plain(order, size)

    monkeypatch.setattr(finetuning._Loop, "run_epoch", epoch)
    monkeypatch.setattr(feed, "split_into_batches", spied)
    for seed in (1, 2):
        go(seeded({**ALIGNED, "embedder.init": "random"}, seed, level))
    differ = {name for name in starts[0] if starts[0][name] != starts[1][name]}
    assert differ == {"predictor-init": {"predictor"}, "finetune-order": set()}.get(level, {"embedder"})
    assert (orders[0] == orders[1]) == (level != "finetune-order")


# Identity and reuse -------------------------------------------------------------------------------


def test_the_default_is_all_and_every_level_has_its_own_ids(user_tasks):
    config = make_config(ALIGNED)
    assert config.seed_varies == "all"
    assert make_config({**ALIGNED, "seed_varies": "all"}) == config
    old = {path: value for path, value in config.flat().items() if path != "seed_varies"}
    assert TrialConfig.from_flat(old).trial_id == config.trial_id
    levels = [config.model_copy(update={"seed_varies": level, "seed": seed}) for level in LEVELS for seed in (0, 1)]
    assert len({config.trial_id for config in levels}) == len({(config.seed_varies, config.seed) for config in levels})
    assert len({config.cell_id for config in levels}) == len(LEVELS)
    for config in levels:
        (replicate,) = Hasher().replicates(config, [config.seed])
        assert replicate == (config.trial_id, config)
        assert config.as_run().as_run() == config.as_run()
        assert TrialConfig.from_flat(json.loads(json.dumps(config.flat()))) == config


@pytest.mark.parametrize(
    ("level", "n_runs"), [("finetune-order", 1), ("predictor-init", 1), ("embedder-training", 3), ("all", 3)]
)
def test_exactly_the_seeds_that_draw_an_embedder_run_alike_share_it(level, n_runs, go, worker):
    configs = [seeded(ALIGNED, seed, level) for seed in (0, 1, 2)]
    rows = [go(config) for config in configs]
    assert len(worker.store.list_keys("embedder")) == n_runs
    assert len({shared_stages(trial)["embedder"] for trial in resolve_configs(configs)}) == n_runs
    assert ["embedder" in row["reused"].split(",") for row in rows] == [False, n_runs == 1, n_runs == 1]
    assert len({row["objective_last"] for row in rows}) == n_runs
    for config, row in zip(configs, rows, strict=True):
        assert go(config, fresh=config.seed)["state_sha256"] == row["state_sha256"]
    assert len({row["state_sha256"] for row in rows}) == 3


def test_at_seed_0_all_levels_are_one_run_that_runs_once(go, worker):
    levels = ["all", "everything", "data-split", "predictor-init", "finetune-order"]
    configs = [seeded(ALIGNED, seed, level) for seed in (0, 1) for level in levels]
    trials = [PlannedTrial(trial_id=c.trial_id, cell_id=c.cell_id, seed=c.seed, config=c) for c in configs]
    shared = shared_prefixes(trials)
    assert shared == {config.trial_id: {1} for config in configs if config.seed == 0}
    rows = [go(config, prefix_epochs=shared.get(config.trial_id, ())) for config in configs]
    first = rows[: len(levels)]
    assert len({row["state_sha256"] for row in first}) == len({row["test_metric_best"] for row in first}) == 1
    assert ["finetune-prefix" in row["reused"] for row in rows] == [False] + [True] * 4 + [False] * 5
    assert len({row["state_sha256"] for row in rows}) == 1 + len(levels)
    assert first[0]["state_sha256"] == go(configs[0], fresh="alone")["state_sha256"]


def test_the_forecast_counts_each_artifact_once_and_compares_no_spreads(write_space):
    path = write_space(
        "base: {task: tiny, proxy: mnist5k, body.pretrain_fraction: 1}\nseeds: 3\n"
        "factors: {seed_varies: [all, pre-training, predictor-init, finetune-order]}\n"
    )
    plan = plan_space(path, load_imports, make_config)
    estimate = forecast(plan, None)
    counts = {stage.name: stage.n_computed for stage in estimate.stages}
    # Embedder runs: one per seed of all, and one per body; both include that of seed 0.
    assert counts == {"pretrain": 3, "proxy-features": 3, "objective": 3, "embedder": 5}
    assert estimate.n_shared_epochs == 3 * 2
    assert estimate.contrasts == ()
    assert find_confounds(plan) == []
    path.write_text(path.read_text().replace("factors: {", "factors: {finetune.lr: [1e-3, 1e-2], "))
    plan = plan_space(path, load_imports, make_config)
    assert [contrasts.n_comparisons for contrasts in forecast(plan, None).contrasts] == [1]


# Refusals -----------------------------------------------------------------------------------------

NAIVE = {"task": "digits", "proxy": "none"}


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"task": "digits"}, "embedder-init", "embedder.init 'copied' takes all of the embedder's weights from the body"),
        ({"task": "digits"}, "dropout", "body 'swin-micro' has no dropout"),
        ({"task": "digits"}, "augmentation", "task 'digits' augments nothing"),
        ({"task": "digits"}, "adapter-init", "finetune.lora_rank is null: there are no adapters"),
        (NAIVE, "embedder-training", "the embedder is not trained"),
        ({"task": "cifar10", "data.augment": False}, "augmentation", "data.augment is false"),
        ({"task": "ninapro"}, "data-split", "the data of 'ninapro' come in three fixed parts"),
        ({"task": "ninapro"}, "pre-training", "body 'swin-base' was published with one set of weights"),
        ({"task": "watch-exercises", "body.name": "roberta-micro", "finetune.freeze": "linear-probe"}, "dropout",
         "finetune.freeze 'both' forever leaves the body without dropout"),
    ],
)  # fmt: skip
def test_a_source_that_the_trial_does_not_draw_from_is_refused_with_the_reason(settings, level, words):
    with pytest.raises(InputError) as error:
        make_config({**settings, "seed_varies": level})
    (text,) = map(str, error.value.problems)
    rule = "so all seeds would be the same run. Remove this level, or exclude it where it cannot act."
    assert text == f"seed_varies = {level!r}: {words}, {rule}"
    assert find_idle_sources(resolve_settings(settings))[level] == words


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"task": "digits", "embedder.init": "random"}, "embedder-init"),
        ({"task": "digits", "body.name": "roberta-micro", "proxy": "pydoc-topics"}, "embedder-init"),
        ({"task": "digits", "body.name": "roberta-micro", "proxy": "pydoc-topics"}, "dropout"),
        ({"task": "digits", "finetune.lora_rank": 2}, "adapter-init"),
        ({"task": "cifar10"}, "augmentation"),
        ({"task": "ninapro", "data.n_train": 50}, "data-split"),
        ({"task": "deepsea"}, "data-split"),  # its clusters
        ({"task": "ninapro", "body.pretrain_fraction": 0}, "pre-training"),
        ({"task": "watch-exercises"}, "dropout"),  # minilm's config is not read here
    ],
)
def test_a_source_that_the_trial_may_draw_from_is_accepted(settings, level):
    assert make_config({**settings, "seed_varies": level}).seed_varies == level


@pytest.mark.parametrize("level", ["pre-training", "everything"])
def test_another_knob_chooses_among_the_published_runs_of_a_ladder(level):
    with pytest.raises(
        InputError, match="only a few published runs at fraction 0.033, and body.pretrain_seed chooses among them. Make"
    ):
        make_config({"task": "deepsea", "body.pretrain_fraction": 0.033, "seed_varies": level})


def test_everything_is_all_where_split_and_pre_training_are_fixed():
    assert make_config({"task": "ninapro", "seed_varies": "everything"}) == make_config({"task": "ninapro"})
    assert make_config({"task": "digits", "seed_varies": "everything"}) != make_config({"task": "digits"})


def test_a_space_says_where_a_level_is_wrong(write_space):
    path = write_space("base: {task: digits}\nfactors:\n  seed_varies: [all, dropout, data_split]\nseeds: 2\n")
    with pytest.raises(InputError) as error:
        plan_space(path, load_imports, make_config)
    (text,) = [text for text in map(str, error.value.problems) if "data_split" in text]
    assert text.startswith(f"{path}:4: seed_varies = 'data_split': input should be 'all', 'everything', 'data-split'")


def test_the_dropout_of_families_is_what_transformers_gives_them():
    from transformers import AutoConfig

    for family, rates in DROPOUT.items():
        config = AutoConfig.for_model(family).to_dict()
        assert {name: config[name] for name in rates} == rates
        # Other dropout belongs to heads that no body has.
        more_names = {name for name in config if "drop" in name} - rates.keys()
        assert more_names <= {"classifier_dropout", "summary_first_dropout"}, family
    assert [has_dropout(find_body(name)) for name in ("swin-micro", "roberta-micro", "minilm")] == [False, True, None]
