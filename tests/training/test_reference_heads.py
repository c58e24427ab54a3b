"""Predictors, fresh weights and copied input layers, compared with numbers that ORCA's released code computed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from orca_sweep.bodies import find_body
from orca_sweep.bodies.network import LoadedBody, build_random_model, load_pretrained
from orca_sweep.config import TrialConfig
from orca_sweep.data import Samples, Splits
from orca_sweep.errors import InputError
from orca_sweep.tasks import TASKS, Task, load_task_data
from orca_sweep.training.model import (
    Embedder1D,
    Embedder2D,
    build_embedder,
    build_model,
    build_predictor,
)
from orca_sweep.training.predictors import BlockMeanPredictor, PicturePredictor, VectorPredictor, average_windows
from orca_sweep.trial import make_config, resolve_config, shared_stages
from orca_sweep.trial.layout import choose_layout, token_stride
from orca_sweep.trial.sources import find_idle_sources, has_predictor_weights
from tests.builders.bodies import SIZES

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "reference"
FIELDS = np.load(VECTORS / "dense_head.npz")
SIGNALS = np.load(VECTORS / "dense_head_1d.npz")
INIT = np.load(VECTORS / "init.npz")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
Z = 5.0
"""Allowed deviation of a statistic of random weights, in standard errors: one of 200 exceeds it once in 10,000 runs."""


def vector(arrays, name):
    return torch.from_numpy(np.asarray(arrays[name])).float()


def numbers(arrays, case, *names):
    return [int(arrays[f"{case}_{name}"]) for name in names]


# Dense predictors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["darcy", "psicov", "multi", "cosmic", "psicov_full"])
def test_a_field_of_two_dimensions_is_the_released_one(case):
    channels, size = int(FIELDS[f"{case}_output_channels"]), FIELDS[f"{case}_output_size"].tolist()
    norm = nn.LayerNorm(32, eps=float(FIELDS["norm_eps"]))
    norm.load_state_dict({name: vector(FIELDS, f"norm_{name}") for name in ("weight", "bias")})
    shape = (channels, *size)
    predictor = PicturePredictor(32, shape, int(FIELDS["upscale"]), int(FIELDS["image_channels"]))
    predictor.linear.load_state_dict({name: vector(FIELDS, f"decoder_{name}") for name in ("weight", "bias")})
    tokens = vector(FIELDS, f"{case}_tokens")
    torch.testing.assert_close(norm(vector(FIELDS, f"{case}_tokens_before_norm")), tokens, **CLOSE)
    field = predictor(predictor.pool(tokens))
    assert field.shape[1:] == shape
    torch.testing.assert_close(field.reshape(FIELDS[f"{case}_output"].shape), vector(FIELDS, f"{case}_output"), **CLOSE)
    assert sum(p.numel() for p in predictor.parameters()) == 3072 * 33  # whatever the field's channels


@pytest.mark.parametrize("case", ["sorption", "cfd", "reaction", "advection", "burgers", "two_channels", "uneven"])
def test_a_field_of_one_dimension_is_the_released_one(case):
    channels, length, stride = numbers(SIGNALS, case, "output_channels", "output_length", "stride")
    predictor = BlockMeanPredictor((channels, length), stride)
    out = predictor(vector(SIGNALS, f"{case}_tokens"))
    torch.testing.assert_close(out, vector(SIGNALS, f"{case}_output"), **CLOSE)
    assert not list(predictor.parameters())


def test_the_stride_is_the_released_one():
    columns = (SIGNALS[f"stride_rule_{name}"].tolist() for name in ("input_length", "target_length", "stride"))
    for length, target, stride in zip(*columns, strict=True):
        assert token_stride(length, target) == stride


@pytest.mark.parametrize(
    ("length", "n"), [(3, 1), (3, 4), (3, 2), (224, 85), (224, 512), (7, 7), (20, 3), (1, 5), (5, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_averages_are_adaptive_pooling_in_single_precision_at_least(length, n, dtype):
    values = torch.randn(2, length, 3, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = average_windows(values, 1, n)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    pooled = F.adaptive_avg_pool1d(values.to(precise).transpose(1, 2), n).transpose(1, 2)
    torch.testing.assert_close(means.to(precise), pooled)
    assert means.dtype == (dtype if length == n else precise)


@pytest.mark.parametrize("kind", ["picture", "picture-many", "blocks"])
def test_gradients_of_the_averages_are_those_of_differences(kind):
    if kind == "blocks":
        predictor, hidden = BlockMeanPredictor((2, 18), 3), torch.randn(2, 12, 9, dtype=torch.float64)
    else:
        channels = 4 if kind == "picture-many" else 1
        predictor, hidden = PicturePredictor(5, (channels, 5, 9), 3, 3), torch.randn(2, 4, 5, dtype=torch.float64)
    predictor.double()
    assert torch.autograd.gradcheck(predictor, hidden.requires_grad_())


def dense(name, dims, sample_shape, output_shape, **more):
    def load(root, split_seed):
        rng = np.random.default_rng(split_seed)
        x = rng.normal(size=(96, *sample_shape)).astype("float32")
        return Splits(*(Samples(x[a:b], smooth(x[a:b], output_shape)) for a, b in ((0, 64), (64, 80), (80, 96))))

    recipe = {"body.name": "swin-micro" if dims == 2 else "roberta-micro", "body.pretrain_fraction": 0, "proxy": "none",
              "finetune.epochs": 2, "finetune.batch_size": 16, "finetune.lr": 1e-3}  # fmt: skip
    return Task(
        name=name, dims=dims, sample_shape=sample_shape, kind="dense-regression", output_shape=output_shape,
        loss="relative-l2", metric="relative-l2", load=load, meaning="test", source="here", licence="MIT",
        recipe={**recipe, **more},
    )  # fmt: skip


def smooth(x, output_shape):
    """Moving averages of the first channel: what a dense model can learn."""
    first = x[:, :1]
    for axis in range(2, x.ndim):
        first = sum(np.roll(first, k, axis=axis) for k in range(-2, 3)) / 5 * math.sqrt(5)
    return np.broadcast_to(first, (len(x), *output_shape)).astype("float32").copy()


@pytest.fixture(scope="module")
def dense_tasks():
    """Dense tasks of either dimension, with one and with several channels."""
    records = (
        dense("dense-1d", 1, (2, 48), (1, 48)),
        dense("dense-1d-channels", 1, (2, 48), (2, 48)),
        dense("dense-2d", 2, (1, 17, 20), (1, 17, 20)),
        dense("dense-2d-channels", 2, (2, 17, 20), (4, 17, 20)),
    )
    for record in records:
        TASKS.add(record)
    yield {record.name: record for record in records}
    for record in records:
        del TASKS._records[record.name]


DENSE = ["dense-1d", "dense-1d-channels", "dense-2d", "dense-2d-channels"]
WIDER = {"dense-2d-channels": {"body.name": "swin-base"}}
"""The picture of swin-micro has one channel: too few for a field of four."""


def settled(family, saved_body):
    return {"body.name": str(saved_body(family)), "body.pretrain_fraction": 1, "embedder.target_length": 24}


@pytest.mark.parametrize("kind", ["released", "linear"])
@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("family", sorted(SIZES))
def test_either_predictor_gives_the_field_behind_every_body(family, name, kind, saved_body, dense_tasks):
    config = make_config({"task": name, "predictor.dense": kind, **settled(family, saved_body)})
    body, task = load_pretrained(find_body(config.body.name)), dense_tasks[name]
    data = load_task_data(task, None, 0, 8)
    model = build_model(data, body, config)
    out = model(torch.from_numpy(data.train.x[:3]))
    assert out.shape == (3, *task.output_shape)
    n_weights = sum(p.numel() for p in model.predictor.parameters())
    assert (n_weights > 0) == has_predictor_weights(task, kind)
    if kind == "released" and task.dims == 2:
        pixels = choose_layout(task, body.spec, config).patch * choose_layout(task, body.spec, config).fold
        assert n_weights == 3 * pixels**2 * (body.spec.width_out + 1)
    out.square().mean().backward()
    assert all(p.grad is not None for p in model.predictor.parameters())


@pytest.mark.parametrize("fold", [2, 4])
def test_folded_stretches_of_several_channels_come_back_in_order(fold):
    """After a vision body: each token has its stretches of each channel as features, so nothing is averaged."""
    side, channels, stretch = 3, 2, 5
    signal = torch.arange(channels * (side * fold) ** 2 * stretch, dtype=torch.float32).view(1, channels, -1)
    tokens = signal.unflatten(2, (side * fold, side * fold, stretch))
    blocks = tokens.unflatten(3, (side, fold)).unflatten(2, (side, fold))
    hidden = blocks.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(1, 2)
    predictor = BlockMeanPredictor((channels, signal.shape[-1]), stretch, fold)
    torch.testing.assert_close(predictor(hidden), signal)
    shorter = BlockMeanPredictor((channels, 50), stretch, fold)
    torch.testing.assert_close(shorter(hidden), F.interpolate(signal, size=50, mode="linear"))


@pytest.mark.parametrize("kind", ["released", "linear"])
@pytest.mark.parametrize("name", ["dense-1d", "dense-2d"])
def test_a_dense_trial_learns_with_either_predictor(name, kind, run, dense_tasks):
    # Four points per token: a single point would be the mean of all features, almost constant after a LayerNorm.
    settings = {"embedder__target_length": 12, "finetune__lr": 3e-3} if "1d" in name else {}
    row, epochs = run(task=name, predictor__dense=kind, finetune__epochs=12, **settings)
    assert row["status"] == "ok", row["error"]
    scores = [epoch["val_metric"] for epoch in epochs if epoch["stage"] == "finetune"]
    assert min(scores) < 0.95 * scores[0]


# Which knob acts ----------------------------------------------------------------------------------


def ids(settings, path, values):
    return [make_config({**settings, path: value}).trial_id for value in values]


def test_the_dense_predictor_is_a_factor_of_dense_tasks_alone(dense_tasks):
    kinds = ("released", "linear")
    for name in [*DENSE, "darcy-generated"]:
        base = {"task": name, **WIDER.get(name, {})}
        assert len({*ids(base, "predictor.dense", kinds), make_config(base).trial_id}) == 2
    for name in ("digits", "watch-exercises"):
        assert len({*ids({"task": name}, "predictor.dense", kinds), make_config({"task": name}).trial_id}) == 1
    with pytest.raises(InputError, match="predictor.dense = 'learned': input should be 'released' or 'linear'"):
        make_config({"task": "dense-2d", "predictor.dense": "learned"})


def test_the_predictor_is_not_part_of_embedder_training_but_of_fine_tuning(dense_tasks, tmp_path, worker, monkeypatch):
    from orca_sweep.space.prefixes import without_schedule
    from orca_sweep.training.run import RunContext, run_config

    settings = {"task": "dense-2d", "proxy": "mnist5k", "embedder.epochs": 1, "embedder.proxy_samples": 40,
                "embedder.max_samples_per_class": 4, "finetune.epochs": 2}  # fmt: skip
    released, linear = (make_config({**settings, "predictor.dense": kind}) for kind in ("released", "linear"))
    assert shared_stages(resolve_config(released)) == shared_stages(resolve_config(linear))
    assert without_schedule(released) != without_schedule(linear)
    rows = [
        run_config(config, RunContext(folder=tmp_path / "s", worker=worker, data_root=tmp_path, prefix_epochs=(1,)))
        for config in (released, linear)
    ]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len(worker.store.list_keys("embedder")) == 1
    assert len(worker.store.list_keys("finetune-prefix")) == 2
    assert rows[0]["val_metric_best"] != rows[1]["val_metric_best"]


def test_signals_draw_no_predictor_and_fields_do(dense_tasks):
    for name in DENSE:
        for kind in ("released", "linear"):
            config = make_config({"task": name, **WIDER.get(name, {}), "predictor.dense": kind})
            assert ("predictor-init" in find_idle_sources(resolve_config(config))) == (
                kind == "released" and "1d" in name
            )
    with pytest.raises(InputError, match="seed_varies = 'predictor-init': predictor.dense 'released' has no weights"):
        make_config({"task": "dense-1d", "seed_varies": "predictor-init"})


def test_a_run_with_nothing_to_train_is_refused_when_it_is_planned(dense_tasks):
    frozen = ["linear-probe", "both", "gradual-unfreeze", "none:1 > embedder+body:1", "embedder+body:1 > body"]
    for freeze in frozen:
        with pytest.raises(
            InputError, match="a phase freezes embedder and body, and predictor.dense 'released' has no wei"
        ):
            make_config({"task": "dense-1d", "finetune.freeze": freeze, "finetune.freeze_epochs": 1})
        for settings in ({"task": "dense-1d", "predictor.dense": "linear"}, {"task": "dense-2d"}):
            make_config({**settings, "finetune.freeze": freeze, "finetune.freeze_epochs": 1})
    # A phase that the run does not reach freezes nothing.
    make_config({"task": "dense-1d", "finetune.epochs": 2, "finetune.freeze": "body:2 > embedder+body"})
    with pytest.raises(InputError, match="nothing to train|leave nothing to train|nothing is left to train"):
        make_config({"task": "dense-1d", "finetune.freeze": "embedder+body+predictor"})


def test_freezing_a_predictor_without_weights_says_nothing(dense_tasks):
    for freeze, same in (
        ("predictor", "none"), ("predictor:1 > body", "none:1 > body"), ("body+predictor", "body"),
        ("predictor+body.layers[0:1]:1 > none", "body.layers[0:1]:1 > none"),
    ):  # fmt: skip
        a, b = (make_config({"task": "dense-1d", "finetune.freeze": text}) for text in (freeze, same))
        assert a.trial_id == b.trial_id
        a, b = (make_config({"task": "dense-2d", "finetune.freeze": text}) for text in (freeze, same))
        assert a.trial_id != b.trial_id


def test_what_no_plan_can_see_is_refused_in_words(run, dense_tasks):
    row, _ = run(task="dense-1d", finetune__freeze="embedder+body.norms+body-without-norms", finetune__freeze_epochs=1)
    assert row["status"] == "failed"
    assert "leaves nothing of this model to train" in row["error"]


@pytest.mark.parametrize("freeze", ["body", "embedder", "layernorm", "body:1 > embedder"])
def test_schedules_that_leave_something_to_train_run_without_weights_in_the_predictor(freeze, run, dense_tasks):
    row, epochs = run(task="dense-1d", finetune__freeze=freeze, finetune__freeze_epochs=1)
    assert row["status"] == "ok", row["error"]
    assert all(epoch["n_trainable"] > 0 for epoch in epochs if epoch["stage"] == "finetune")


@pytest.mark.parametrize("name", ["dense-2d", "dense-1d"])
def test_features_are_kept_where_the_predictor_alone_trains(name, run, dense_tasks, monkeypatch):
    from orca_sweep.training import feature_cache

    settings = {"task": name, "predictor__dense": "released" if name == "dense-2d" else "linear"}
    kept, _ = run(**settings, finetune__freeze="linear-probe", folder="kept")
    monkeypatch.setattr(feature_cache, "MAX_NUMBERS", 0)
    again, _ = run(**settings, finetune__freeze="linear-probe", folder="again")
    assert kept["status"] == again["status"] == "ok"
    assert kept["val_metric_last"] == pytest.approx(again["val_metric_last"], rel=1e-5)


# Fresh weights ------------------------------------------------------------------------------------


def drawn(make, name):
    """A fresh layer for each seed of the reference."""
    layers = []
    for seed in range(len(INIT[f"{name}_std"])):
        torch.manual_seed(seed)
        layers.append(make())
    return layers


def conv1d(name):
    width, channels, stride = INIT[f"{name}_shape"].tolist()
    return lambda: Embedder1D(channels, 10 * stride, width, stride).projection


def conv2d(name):
    width, channels, patch, _ = INIT[f"{name}_shape"].tolist()
    return lambda: Embedder2D(channels, 8 * patch, width, patch).projection


def linear(name):
    n_in, n_out = numbers(INIT, name, "fan_in", "fan_out")
    if name == "decoder2d":
        return lambda: PicturePredictor(n_in, (1, 8, 8), math.isqrt(n_out // 3), 3).linear
    return lambda: VectorPredictor(n_in, n_out).linear


LAYERS = {
    **{f"conv1d_{name}_epochs{n}": conv1d(f"conv1d_{name}")
       for name in ("satellite", "ecg", "deepsea") for n in ("0", "_more")},
    **{f"conv2d_{name}_epochs0": conv2d(f"conv2d_{name}") for name in ("one", "three", "psicov")},
    **{name: linear(name) for name in ("decoder2d", "classifier2d", "classifier1d")},
}  # fmt: skip


def test_every_layer_of_the_reference_is_drawn_here():
    assert {name.removesuffix("_quantiles") for name in INIT.files if name.endswith("_quantiles")} == LAYERS.keys()


@pytest.mark.parametrize("name", LAYERS)
def test_fresh_weights_are_spread_as_the_released_ones(name):
    """Each statistic within ``Z`` standard errors of the difference of two samples of that size."""
    layers = drawn(LAYERS[name], name)
    weights = [layer.weight.detach().double().flatten().numpy() for layer in layers]
    n, n_seeds = len(weights[0]), len(layers)
    whole = np.concatenate(weights)
    fan_in, fan_out = numbers(INIT, name, "fan_in", "fan_out")
    is_uniform = name.startswith(("conv1d", "classifier"))
    bound = {"conv1d": math.sqrt(12 / (fan_in + fan_out)), "classi": 1 / math.sqrt(fan_in)}.get(name[:6], math.inf)
    std = bound / math.sqrt(3) if is_uniform else 0.02
    excess = (1.8 if is_uniform else 3) - 1
    # The distribution itself, then the reference's numbers.
    assert abs(whole.std() / std - 1) < Z * math.sqrt(excess / 4 / len(whole))
    assert np.abs(whole).max() <= bound
    error = math.sqrt(2 / n_seeds)
    for values, reference, scale in (
        ([w.mean() for w in weights], INIT[f"{name}_mean"], std / math.sqrt(n)),
        ([w.std() for w in weights], INIT[f"{name}_std"], std * math.sqrt(excess / 4 / n)),
    ):
        assert abs(np.mean(values) - reference.mean()) < Z * error * scale
    kurtosis = (((whole - whole.mean()) / whole.std()) ** 4).mean()
    assert (
        abs(kurtosis - INIT[f"{name}_kurtosis"]) < Z * math.sqrt(2 * (0.42 if is_uniform else 24) / len(whole)) + 1e-4
    )
    levels = INIT["quantile_levels"]
    density = 1 / (2 * bound) if is_uniform else np.exp(-((INIT[f"{name}_quantiles"] / std) ** 2) / 2) / std / 2.5066
    margin = Z * np.sqrt(2 * levels * (1 - levels) / len(whole)) / density
    assert (np.abs(np.quantile(whole, levels) - INIT[f"{name}_quantiles"]) < margin).all()
    for extreme in ("min", "max"):  # bounded: both near the bound; normal: as far out as this many numbers go
        values = np.array([getattr(w, extreme)() for w in weights])
        slack = bound * 20 / n if is_uniform else 2 * std
        assert np.abs(values.mean() - INIT[f"{name}_{extreme}"].mean()) < slack
    biases = torch.cat([layer.bias.detach() for layer in layers]).abs()
    if name.startswith("classifier"):
        assert float(biases.max()) <= bound
        assert float(biases.max()) == pytest.approx(float(INIT[f"{name}_bias_abs_max"]), rel=0.1)
    else:
        assert float(biases.max()) == INIT[f"{name}_bias_abs_max"] == 0


# What is copied -----------------------------------------------------------------------------------


def small_swin(tmp_path, **settings):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(
        AutoConfig.for_model("swin", **{**SIZES["swin"], **settings}), add_pooling_layer=False
    )
    return LoadedBody(model=model)


def embedder_of(body, shape, dims, name="swin-micro", **embedder):
    task = Task(
        name="any",
        dims=dims,
        sample_shape=shape,
        kind="classification",
        output_shape=(3,),
        loss="cross-entropy",
        metric="error",
        load=None,
        meaning="",
        source="",
        licence="",
    )
    config = TrialConfig.from_flat(
        {"task": "any", "body.name": name, **{f"embedder.{path}": value for path, value in embedder.items()}}
    )
    return build_embedder(task, body, config)


@pytest.mark.parametrize("case", range(1, 6))
def test_patch_weights_are_copied_as_released(case, tmp_path):
    body = small_swin(tmp_path, embed_dim=8)
    own = body.model.embeddings
    own.patch_embeddings.projection.load_state_dict(
        {"weight": vector(INIT, "copy_body_weight"), "bias": vector(INIT, "copy_body_bias")}
    )
    own.norm.load_state_dict(
        {"weight": vector(INIT, "copy_body_norm_weight"), "bias": vector(INIT, "copy_body_norm_bias")}
    )
    embedder = embedder_of(body, (int(INIT["copy_channels"][case - 1]), 32, 32), 2)
    for name, layer in (("", embedder.projection), ("norm_", embedder.norm)):
        for part in ("weight", "bias"):
            assert torch.equal(getattr(layer, part), vector(INIT, f"copy_case{case}_{name}{part}"))


def test_a_body_of_one_channel_gives_it_to_every_channel(tmp_path):
    body = small_swin(tmp_path, num_channels=1)
    own = body.model.embeddings.patch_embeddings.projection.weight
    cycled, mean = (embedder_of(body, (3, 32, 32), 2, channel_copy=how) for how in ("cycled", "mean"))
    assert torch.equal(cycled.projection.weight, own.expand(-1, 3, -1, -1))
    torch.testing.assert_close(mean.projection.weight, own.expand(-1, 3, -1, -1) / 3)


def flags(dims, level):
    names = {name: bool(value) for name, value in zip(INIT["flag_names"], INIT["flag_values"], strict=True)}
    prefix = f"{dims}d_{level}_"
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("init", "level"), [("copied", "epochs_more"), ("orca-untrained", "epochs0")])
@pytest.mark.parametrize("dims", [1, 2])
def test_starts_are_the_released_ones(dims, init, level, saved_body):
    """All flags of the reference about the embedder; the other three are about what stage 2 trains."""
    body = load_pretrained(find_body(str(saved_body("roberta" if dims == 1 else "swin"))))
    layer = body.get_input_layer()
    own = layer.LayerNorm if dims == 1 else layer.norm
    for parameter in [*own.parameters(), *([layer.patch_embeddings.projection.bias] if dims == 2 else [])]:
        nn.init.normal_(parameter)
    shape = (2, 40) if dims == 1 else (2, 32, 32)
    embedder, drawn_again, other = (
        embedder_of(body, shape, dims, init=how, target_length=20) for how in (init, init, "random")
    )
    conv, norm, positions = embedder.projection, embedder.norm, embedder.positions
    bound = math.sqrt(12 / (conv.weight[0].numel() + len(conv.weight) * conv.weight[0, 0].numel()))
    facts = {
        "norm_copied": torch.equal(norm.weight, own.weight) and torch.equal(norm.bias, own.bias),
        "norm_is_ones_zeros": bool((norm.weight == 1).all() and (norm.bias == 0).all()),
        "convolution_bias_zero": not conv.bias.any(),
        "embedder_has_dropout": any(isinstance(module, nn.Dropout) for module in embedder.modules()),
    }
    if dims == 1:
        rows = layer.position_embeddings.weight[2 : 2 + len(positions)]  # token t uses row t + 2
        facts |= {
            "positions_copied": torch.equal(positions, rows),
            "positions_trainable_in_stage2": positions.requires_grad,
            "convolution_left_as_drawn": torch.equal(conv.weight, other.projection.weight),
            "convolution_within_xavier_bound": bool(conv.weight.abs().max() <= bound),
        }
    else:
        weight = layer.patch_embeddings.projection.weight
        facts |= {
            "convolution_copied": torch.equal(conv.weight, weight[:, :2]),
            "has_positions": positions is not None,
        }
    wanted = flags(dims, level)
    beyond = {"body_trainable_in_stage2", "predictor_trainable_in_stage2"}
    assert facts == {name: value for name, value in wanted.items() if name not in beyond}
    assert wanted.keys() >= beyond
    assert norm.eps == own.eps == 1e-5 or dims == 1
    for a, b in zip(embedder.parameters(), drawn_again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("family", sorted(SIZES))
def test_levels_of_the_start_have_one_id_where_they_are_the_same_weights_and_only_there(family, dims, saved_body):
    folder = str(saved_body(family))
    body = load_pretrained(find_body(folder))
    for norm in (module for module in body.get_input_layer().modules() if isinstance(module, nn.LayerNorm)):
        nn.init.normal_(norm.weight)  # as if pre-trained
    levels = ("copied", "random", "orca-untrained")
    shape, task = ((6, 128), "watch-exercises") if dims == 1 else ((1, 8, 8), "digits")
    weights, names = {}, {}
    for level in levels:
        embedder = embedder_of(body, shape, dims, folder, init=level, target_length=20)
        weights[level] = tuple(p.detach().numpy().tobytes() for p in embedder.parameters())
        names[level] = make_config(
            {"task": task, "proxy": "none", "body.name": folder, "embedder.init": level}
        ).trial_id
    for a in levels:
        for b in levels:
            assert (weights[a] == weights[b]) == (names[a] == names[b]), (a, b)


def test_the_copy_of_channels_is_a_factor_only_where_it_can_act(saved_body):
    hows = ("cycled", "mean")

    def n_ids(**settings):
        return len(set(ids({"proxy": "none", **{k.replace("__", "."): v for k, v in settings.items()}},
                           "embedder.channel_copy", hows)))  # fmt: skip

    three = str(saved_body("swin"))
    assert n_ids(task="digits", body__name=three) == 2
    assert n_ids(task="digits", body__name=str(saved_body("vit"))) == 2
    assert n_ids(task="darcy-generated") == 2  # three channels behind a body of one
    assert n_ids(task="ninapro") == 2
    assert n_ids(task="cifar100") == 1
    assert n_ids(task="darcy-generated", body__name=three) == 1
    assert n_ids(task="digits") == 1
    assert n_ids(task="digits", body__name=three, embedder__init="random") == 1
    assert n_ids(task="digits", body__name=three, embedder__init="orca-untrained") == 1
    assert n_ids(task="watch-exercises", body__name=three) == 1
    assert n_ids(task="digits", body__name="roberta-micro") == 1
    assert n_ids(task="digits", body__name="some-lab/some-body") == 2  # its config is not read here
    assert n_ids(task="watch-exercises", body__name="some-lab/some-body") == 1


def test_an_untrained_start_is_a_level_of_a_whole_trial(run):
    settings = {"task": "watch-exercises", "data__n_train": 21, "body__name": "roberta-micro", "proxy": "none",
                "body__pretrain_fraction": 0, "finetune__epochs": 1}  # fmt: skip
    rows = [run(**settings, embedder__init=init)[0] for init in ("copied", "random", "orca-untrained")]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert len({row["state_sha256"] for row in rows}) == 3


def test_predictors_of_equal_seed_are_equal_whatever_the_start(dense_tasks):
    body = LoadedBody(model=build_random_model(find_body("swin-micro"), 0))
    configs = [make_config({"task": "dense-2d", "embedder.init": init}) for init in ("copied", "random")]
    first, second = (build_predictor(dense_tasks["dense-2d"], body, config) for config in configs)
    assert torch.equal(first.linear.weight, second.linear.weight)
