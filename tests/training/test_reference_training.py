"""Learning rates, optimizer steps and dropout, compared with numbers that the released code computed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orca_sweep.bodies import find_body, find_common_dropout
from orca_sweep.bodies.network import add_adapters, load_pretrained
from orca_sweep.config import EmbedderConfig, FinetuneConfig, TrialConfig
from orca_sweep.config.number_lists import parse_numbers
from orca_sweep.data import Samples
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space
from orca_sweep.streams import stream_rng
from orca_sweep.tasks import Task, TaskData
from orca_sweep.tasks.recipes import adapt_to_mean_loss
from orca_sweep.training import finetune as finetuning
from orca_sweep.training.compute_settings import set_attention, set_dropout
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.learning_rates import embedder_learning_rate, finetune_learning_rate
from orca_sweep.training.optimizers import make_optimizer
from orca_sweep.trial import load_imports, make_config, resolve_settings
from orca_sweep.trial.sources import find_idle_sources

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "reference"
SCHEDULE = np.load(VECTORS / "schedule.npz")
STEPS = np.load(VECTORS / "first_step.npz")

# Stage 2 ------------------------------------------------------------------------------------------


def test_embedder_rates_fall_after_the_released_steps_only():
    epochs = [int(epoch) for epoch in SCHEDULE["stage2_epoch"]]
    factors = [embedder_learning_rate(EmbedderConfig(lr=1.0), epoch) for epoch in epochs]
    np.testing.assert_allclose(factors, SCHEDULE["stage2_factor"], rtol=1e-12)
    assert factors[:21] == [1.0] * 21 and factors[21] == 0.2
    for released, rates in zip(SCHEDULE["stage2_finetune_lr"], SCHEDULE["stage2_lr"], strict=True):
        config = EmbedderConfig(lr=10 * released if released <= 1e-3 else released)
        np.testing.assert_allclose([embedder_learning_rate(config, epoch) for epoch in epochs], rates, rtol=1e-12)


@pytest.fixture
def embedder_rates(run):
    def go(**settings):
        settings = {f"embedder__{name}": value for name, value in settings.items()}
        _, epochs = run(task="tiny", proxy="mnist5k", embedder__objective="l2", finetune__epochs=1, **settings)
        return [row["lr"] for row in epochs if row["stage"] == "embedder" and row["epoch"] > 0]

    return go


def test_a_run_takes_them_whatever_its_length(embedder_rates):
    factors = SCHEDULE["stage2_factor"]
    rates = embedder_rates(epochs=23, lr=0.01)
    np.testing.assert_allclose(rates, 0.01 * factors[:23], rtol=1e-12)
    assert embedder_rates(epochs=22, lr=0.01) == rates[:22]
    assert embedder_rates(epochs=24, lr=0.01)[:23] == rates  # continues from the stored 23
    assert embedder_rates(epochs=4, lr=1.0, lr_decay=0.5, lr_decay_after=[1, 2]) == [1, 1, 0.5, 0.25]
    assert embedder_rates(epochs=3, lr=1.0, lr_decay_after=None) == [1, 1, 1]


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [("sgd", "momentum", 0.5), ("adam", "betas", [0, 0.5]), ("adamw", "betas", [0, 0.5])],
)
def test_momentum_and_betas_reach_embedder_training(run, optimizer, name, value):
    settings = {"task": "tiny", "proxy": "mnist5k", "finetune__epochs": 1, "embedder__epochs": 3, "embedder__lr": 0.1}
    own, _ = run(**settings, embedder__optimizer=optimizer)
    other, _ = run(**settings, embedder__optimizer=optimizer, **{f"embedder__{name}": value})
    assert own["objective_first"] == other["objective_first"]
    assert own["objective_last"] != other["objective_last"]


# Stage 3: the schedule ----------------------------------------------------------------------------


def scheduled(name):
    """Our rates and the released factors at the same steps, and the settings; our steps of left-over batches are skipped."""
    n, a, warm, decay = (
        int(SCHEDULE[f"stage3_{name}_{key}"])
        for key in ("batches_per_epoch", "accumulation", "warmup_epochs", "decay_epochs")
    )
    config = FinetuneConfig(lr=1.0, warmup_epochs=warm, decay_epochs=decay)
    per_epoch = math.ceil(n / a)
    batches = SCHEDULE[f"stage3_{name}_batch_index"]
    steps = [int(i) // n * per_epoch + (int(i) % n + 1) // a - 1 for i in batches]
    rates = np.array([finetune_learning_rate(config, step, per_epoch) for step in steps])
    return rates, SCHEDULE[f"stage3_{name}_factor"], batches, (n, a, warm, decay)


@pytest.mark.parametrize(
    ("name", "in_warmup", "after_it"),
    [("plain", 1, 0), ("accumulated", 1, 15), ("remainder", 1.7, 5.4), ("past_the_end", 1, 1)],
)
def test_rates_differ_from_the_released_ones_by_less_than_two_optimizer_steps(name, in_warmup, after_it):
    """In batches of the released schedule, which counts those: it is one late in warm-up, at its very first at zero.

    A step of ours stands for ``accumulation`` batches; where they do not divide an epoch, the left-over ones are a step
    too, and so the steps before it are a little closer together.
    """
    rates, released, batches, (n, a, warm, decay) = scheduled(name)
    is_warm, length = batches < warm * n, (decay - warm) * n
    apart = np.abs(rates - np.maximum(released, 0))
    assert apart[is_warm].max() * warm * n == pytest.approx(in_warmup)
    assert apart[~is_warm].max() * length == pytest.approx(after_it, abs=1e-9)
    assert apart.max() < 2 * a / min(warm * n, length)


def test_no_step_is_at_zero_before_the_end_and_none_is_ever_negative():
    for name in ("plain", "accumulated", "remainder"):
        rates, released, _, _ = scheduled(name)
        assert rates.min() > 0
        assert (released[0] == 0) == (name == "plain")
    rates, released, batches, (n, _, _, decay) = scheduled("past_the_end")
    assert released.min() == pytest.approx(-0.58)
    assert (rates[batches > decay * n] == 0).all()


# Stage 3: optimizer steps -------------------------------------------------------------------------


VALUES = (
    "inputs", "targets", "weight_start", "bias_start", "weight_after_1", "bias_after_1", "weight_after_3", "bias_after_3",
    "lr_used", "lr", "weight_decay", "momentum", "betas", "accumulation", "clip", "warmup_batches", "decay_batches",
)  # fmt: skip


class _Stepped:
    """The real loop fine-tunes a linear model in double precision on the vectors' batches, in their order."""

    def __init__(self, name, rates=None, clip=None):
        self.values = {key: STEPS[f"{name}_{key}"] for key in VALUES}
        self.kind, self.rates = name.split("_")[0], rates
        self.states: list[np.ndarray] = []
        values = self.values
        n = int(values["accumulation"])
        lr, decay = adapt_to_mean_loss(self.kind, float(values["lr"]), float(values["weight_decay"]), n)
        batches = len(values["inputs"])
        used = {"momentum": values["momentum"]} if self.kind == "sgd" else {"betas": list(map(float, values["betas"]))}
        self.config = FinetuneConfig(
            epochs=1, batch_size=values["inputs"].shape[1], accumulation=n, optimizer=self.kind, lr=lr, weight_decay=decay,
            warmup_epochs=int(values["warmup_batches"]) // batches,
            decay_epochs=int(values["decay_batches"]) // batches or None, grad_clip=clip, **used,
        )  # fmt: skip
        self.net = nn.Linear(5, 3).double()
        with torch.no_grad():
            self.net.weight.copy_(torch.from_numpy(values["weight_start"]))
            self.net.bias.copy_(torch.from_numpy(values["bias_start"]))
        setup = FinetuneSetup(config=self.config, seed_of=lambda source: 0)
        self.loop = finetuning._Loop(self.net, self._data(), setup, None)
        self.loop.stepper.take_step = self._watched(self.loop.stepper.take_step)

    def _data(self):
        """The samples, arranged so that the first epoch reads them in the vectors' order."""
        x, y = (self.values[key].reshape(-1, self.values[key].shape[-1]) for key in ("inputs", "targets"))
        order = stream_rng(0, "finetune order", 1).permutation(len(x))
        samples = Samples(np.empty_like(x), np.empty_like(y))
        samples.x[order], samples.y[order] = x, y
        task = Task(
            name="linear",
            dims=1,
            sample_shape=(5, 1),
            kind="regression",
            output_shape=(3,),
            loss="mse",
            metric="nrmse",
            load=None,
            meaning="",
            source="",
            licence="",
        )
        return TaskData(task=task, train=samples, val=samples, test=samples, fingerprint="")

    def _watched(self, real):
        def step(forward, samples, *, lr, dropout_seed):
            if self.rates is not None:
                lr = self.rates[len(self.states)]
            mean = real(forward, samples, lr=lr, dropout_seed=dropout_seed)
            self.states.append(np.append(self.net.weight.detach().numpy(), self.net.bias.detach().numpy()))
            return mean

        return step

    def run(self):
        self.loop.run_epoch()
        return self

    def released(self, after):
        return np.append(self.values[f"weight_after_{after}"], self.values[f"bias_after_{after}"])

    def apart(self, after):
        """The largest difference of a weight after a number of steps, absolute and relative to the largest change so far."""
        start = np.append(self.values["weight_start"], self.values["bias_start"])
        apart = np.abs(self.states[after - 1] - self.released(after)).max()
        return apart, apart / np.abs(self.released(after) - start).max()


def with_released_epsilon(stepped):
    """With the epsilon that matches the scale of a divided loss: 1e-8 over the accumulation."""
    for group in stepped.loop.state.optimizer.param_groups:
        if "eps" in group:
            group["eps"] /= stepped.config.accumulation
    return stepped


@pytest.mark.parametrize("accumulation", [16, 32])
def test_steps_of_sgd_are_the_released_ones(accumulation):
    stepped = _Stepped(f"sgd_{accumulation}").run()
    for after in (1, 3):
        np.testing.assert_allclose(stepped.states[after - 1], stepped.released(after), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@pytest.mark.parametrize("accumulation", [16, 32])
def test_steps_of_adam_are_the_released_ones_but_for_its_epsilon(kind, accumulation):
    """Epsilon stays 1e-8: for the released steps of a divided loss it would be divided too. These gradients are large
    (0.01 and more), so that it is a millionth of a step; at gradients of 1e-7 it is a tenth.
    """
    stepped = _Stepped(f"{kind}_{accumulation}").run()
    exact = with_released_epsilon(_Stepped(f"{kind}_{accumulation}")).run()
    for after in (1, 3):
        assert stepped.apart(after)[0] < 1e-8
        assert stepped.apart(after)[1] < 2e-6
        assert exact.apart(after)[0] < 1e-12


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_warm_up_differs_in_the_rate_and_in_nothing_else(kind):
    """The released rate is counted in batches: one of 48 late. With its rates the weights are the released ones."""
    stepped = _Stepped(f"{kind}_16_warmup").run()
    scale = 16 if kind == "sgd" else 1
    released = stepped.values["lr_used"] * scale
    rates = [finetune_learning_rate(stepped.config, step, 3) for step in range(3)]
    np.testing.assert_allclose(rates - released, stepped.config.lr / 48, rtol=1e-9)
    assert stepped.apart(1)[1] == pytest.approx(1 / 15, rel=1e-4)  # 16 / 48 for 15 / 48
    same = with_released_epsilon(_Stepped(f"{kind}_16_warmup", rates=released)).run()
    assert max(same.apart(after)[0] for after in (1, 3)) < 1e-12


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_left_over_batches_are_a_step_of_their_own_where_the_released_code_drops_them(kind):
    """On purpose: every sample of an epoch counts. Of 21 batches 16 are the same first step; five make another."""
    stepped = with_released_epsilon(_Stepped(f"{kind}_16_remainder")).run()
    assert stepped.apart(1)[0] < 1e-12
    assert (len(stepped.states), stepped.loop.steps_per_epoch) == (2, 2)
    moved = np.abs(stepped.states[1] - stepped.states[0]).max() / np.abs(
        stepped.states[0] - np.append(stepped.values["weight_start"], stepped.values["bias_start"])
    ).max()  # fmt: skip
    assert 0.5 < moved < 3  # the mean of five batches: a step of full size, not five sixteenths


@pytest.mark.parametrize(("kind", "share"), [("sgd", 0.778), ("adam", 2.0), ("adamw", 1.957)])
def test_the_gradient_is_clipped_once_per_step_where_the_released_code_clips_after_every_batch(kind, share):
    """On purpose: the limit is one of the step, however it is divided into batches. Clipping the growing sum gives the
    last batches more weight: another direction, of which adam's first step takes the signs. No released recipe clips
    and accumulates.
    """
    stepped = _Stepped(f"{kind}_4_clip", clip=0.25).run()
    assert stepped.apart(1)[1] == pytest.approx(share, abs=2e-3)
    values, net = stepped.values, nn.Linear(5, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(values["weight_start"]))
        net.bias.copy_(torch.from_numpy(values["bias_start"]))
    used = {"momentum": float(values["momentum"])} if kind == "sgd" else {"betas": tuple(values["betas"])}
    optimizer = make_optimizer(kind, net.parameters(), float(values["lr"]), float(values["weight_decay"]), **used)
    for x, y in zip(values["inputs"][:4], values["targets"][:4], strict=True):
        nn.functional.mse_loss(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), float(values["clip"]))
    optimizer.step()
    weights = np.append(net.weight.detach().numpy(), net.bias.detach().numpy())
    np.testing.assert_allclose(weights, stepped.released(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [("sgd", "momentum", 0.5), ("adam", "betas", [0, 0.5]), ("adamw", "betas", [0, 0.5])],
)
def test_momentum_and_betas_reach_fine_tuning(run, optimizer, name, value):
    own, _ = run(task="tiny", finetune__optimizer=optimizer)
    other, _ = run(task="tiny", finetune__optimizer=optimizer, **{f"finetune__{name}": value})
    assert own["status"] == other["status"] == "ok"
    assert own["state_sha256"] != other["state_sha256"]


# Dropout ------------------------------------------------------------------------------------------

FAMILIES = ("roberta", "bert", "gpt2", "gpt_neox", "swin", "vit")


def network(saved_body, family):
    body = load_pretrained(find_body(str(saved_body(family))))
    tokens = torch.randn(
        2, min(body.spec.max_tokens, 64), body.spec.width_in, generator=torch.Generator().manual_seed(0)
    )
    return body, body.build_network(), tokens


def rates_in(module):
    """All dropout rates of a network's modules, by module path."""
    held = {name: part.p for name, part in module.named_modules() if isinstance(part, nn.Dropout)}
    held |= {
        f"{name}.{field}": value
        for name, part in module.named_modules()
        for field, value in vars(part).items()
        if "dropout" in field and isinstance(value, float)
    }
    return held


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_is_set_in_every_module_of_every_family(saved_body, family, attention):
    body, net, tokens = network(saved_body, family)
    set_attention(net, attention)
    before, digest = body.about, body.hash_weights()
    set_dropout(net, None)
    own = rates_in(net)
    set_dropout(net, 0.4)
    assert len(own) >= 4 and set(rates_in(net).values()) == {0.4}
    configs = [part.config for part in net.modules() if hasattr(part, "config")]
    fields = {name: value for config in configs for name, value in config.to_dict().items() if "drop" in name}
    heads = {"classifier_dropout", "summary_first_dropout", "drop_path_rate"}
    assert {value for name, value in fields.items() if name not in heads} == {0.4}
    net.train()
    assert not torch.allclose(net(tokens), net(tokens))
    set_dropout(net, 0.0)
    still = [module for module in net.modules() if type(module).__name__ == "SwinDropPath"]
    assert [module.drop_prob > 0 for module in still] == [True] * len(still)  # stochastic depth is not dropout
    assert bool(still) == (family == "swin")
    for module in still:
        module.drop_prob = 0.0
    with torch.no_grad():
        torch.testing.assert_close(net.train()(tokens), net.eval()(tokens), rtol=0, atol=0)
    # The body that pre-training and other trials use is unchanged.
    assert (body.about, body.hash_weights()) == (before, digest)


def test_stochastic_depth_alone_is_left_in_a_swin_without_dropout(saved_body):
    _, net, tokens = network(saved_body, "swin")
    set_dropout(net, 0.0)
    net.train()
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = net(tokens[:1].expand(64, -1, -1))
    assert not torch.allclose(outputs, outputs[:1].expand_as(outputs))


def test_adapters_keep_their_own_dropout(saved_body):
    _, net, tokens = network(saved_body, "roberta")
    add_adapters(net, "roberta", 2, 4)
    set_dropout(net, 0.3)
    assert {rate for name, rate in rates_in(net).items() if "lora" not in name} == {0.3}
    assert net.train()(tokens).shape == tokens.shape


TEXT = {"task": "tiny", "body__name": "roberta-micro", "finetune__epochs": 1, "embedder__target_length": 16}


def test_fine_tuning_takes_the_dropout_it_is_given(run):
    own, _ = run(**TEXT)
    same, _ = run(**TEXT, finetune__dropout=0.1, folder="same")
    assert same["trial_id"] == own["trial_id"]
    none, _ = run(**TEXT, finetune__dropout=0)
    much, _ = run(**TEXT, finetune__dropout=0.5)
    assert len({row["state_sha256"] for row in (own, none, much)}) == 3
    assert {row["body_sha256"] for row in (own, none, much)} == {own["body_sha256"]}
    again, _ = run(**TEXT, finetune__dropout=0, seed_varies="finetune-order", folder="again")
    assert again["status"] == "ok"


def test_dropout_of_a_body_without_its_own_dropout(run):
    own, _ = run(task="tiny")
    much, _ = run(task="tiny", finetune__dropout=0.5)
    assert own["state_sha256"] != much["state_sha256"]
    assert make_config({"task": "tiny", "finetune.dropout": 0}) == make_config({"task": "tiny"})


@pytest.mark.parametrize(
    ("settings", "canonical"),
    [
        ({"body.name": "swin-micro", "finetune.dropout": 0}, None),
        ({"body.name": "swin-micro", "finetune.dropout": 0.1}, 0.1),
        ({"body.name": "roberta-micro", "finetune.dropout": "0.1"}, None),
        ({"body.name": "roberta-micro", "finetune.dropout": 0}, 0),
        ({"body.name": "roberta-base", "finetune.dropout": 0.1}, 0.1),  # its config is not known here
        ({"body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "linear-probe"}, None),
        ({"body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "body+predictor:forever"}, None),
        ({"body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "embedder+body:2 > body"}, None),
        ({"body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "layernorm"}, 0.1),
        ({"body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "gradual-unfreeze"}, 0.1),
        (
            {
                "body.name": "roberta-base", "finetune.dropout": 0.1, "finetune.freeze": "gradual-unfreeze",
                "finetune.freeze_epochs": 99,
            },
            None,
        ),
    ],
)  # fmt: skip
def test_dropout_that_changes_nothing_is_put_to_null(user_tasks, settings, canonical):
    assert (
        make_config({"task": "watch-exercises", "proxy": "none", "finetune.epochs": 20, **settings}).finetune.dropout
        == canonical
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"body.name": "roberta-base", "finetune.dropout": 0}, "body 'roberta-base' has no dropout at finetune.dropout 0"),
        ({"body.name": "roberta-micro", "finetune.dropout": 0}, "body 'roberta-micro' has no dropout at finetune.dropout 0"),
        ({"body.name": "minilm", "finetune.dropout": 0}, "body 'minilm' has no dropout at finetune.dropout 0"),
        ({"body.name": "roberta-micro"}, None),
        ({"body.name": "swin-base", "finetune.dropout": 0}, None),  # stochastic depth
        ({"body.name": "swin-micro"}, "body 'swin-micro' has no dropout"),
        ({"body.name": "swin-micro", "finetune.dropout": 0.1}, None),
        ({"body.name": "roberta-base", "finetune.freeze": "body+predictor:forever"},
         "finetune.freeze 'body+predictor' forever leaves the body without dropout"),
        ({"body.name": "acme/unknown", "finetune.dropout": 0}, None),
    ],
)  # fmt: skip
def test_whether_dropout_draws_at_all_is_known_where_it_can_be(settings, reason):
    assert (
        find_idle_sources(resolve_settings({"task": "watch-exercises", "proxy": "none", **settings})).get("dropout")
        == reason
    )


def test_the_rate_of_our_own_bodies_is_known():
    assert [find_common_dropout(find_body(name)) for name in ("swin-micro", "roberta-micro", "minilm")] == [
        0.0,
        0.1,
        None,
    ]


# Knobs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.9, 0.98], "0.9, 0.98"), ("0.9,0.98", "0.9, 0.98"), ("[0.9, 0.98]", "0.9, 0.98"), ((0, "0.5"), "0, 0.5"),
        ([9e-1, 0.9999999999], "0.9, 0.9999999999"),
    ],
)  # fmt: skip
def test_betas_have_one_form(value, text):
    config = FinetuneConfig(betas=value)
    assert config.betas == text
    assert FinetuneConfig(betas=config.betas) == config
    assert EmbedderConfig(betas=value).betas == text


@pytest.mark.parametrize("value", [0.9, "0.9", [0.9], [0.9, 0.98, 0.99], None, [], {"a": 1}])
def test_betas_that_are_not_a_pair_are_refused_with_the_right_form(value):
    with pytest.raises(InputError) as error:
        make_config({"task": "digits", "finetune.betas": value})
    assert [*map(str, error.value.problems)] == [
        f"finetune.betas = {value!r}: betas must be a pair of numbers such as [0.9, 0.98]; levels of a factor are a list of pairs"
        ": [[0.9, 0.98], [0.9, 0.999]]."
    ]


@pytest.mark.parametrize("value", [[0.9, 1], [-0.1, 0.9], ["x", 0.9], [math.nan, 0.9], [True, 0.9], [[0.9], 0.98]])
def test_betas_out_of_range_are_refused(value):
    with pytest.raises(InputError) as error:
        make_config({"task": "digits", "embedder.betas": value})
    assert [*map(str, error.value.problems)] == [
        f"embedder.betas = {value!r}: each of the two betas must be a number from 0 to below 1."
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [([20, 40, 60], "20, 40, 60"), ("20,40", "20, 40"), ([5], "5"), (5, "5"), ([], None), ("", None), (None, None)],
)
def test_decay_steps_have_one_form(value, text):
    config = EmbedderConfig(lr_decay_after=value)
    assert config.lr_decay_after == text
    assert EmbedderConfig(lr_decay_after=text) == config
    assert parse_numbers(text) == tuple(map(int, (text or "").split(", ") if text else []))


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ([20, 20], "each must be above 0 and above the one before it, as in [20, 40, 60]"),
        ([0, 20], "each must be above 0 and above the one before it, as in [20, 40, 60]"),
        ([20.5], "each must be a whole number, as in [20, 40, 60]; null or [] keeps the rate constant"),
        (["-1"], "each must be a whole number, as in [20, 40, 60]; null or [] keeps the rate constant"),
        ([10**10], "each must be a whole number, as in [20, 40, 60]; null or [] keeps the rate constant"),
        (True, "each must be a whole number, as in [20, 40, 60]; null or [] keeps the rate constant"),
    ],
)
def test_decay_steps_that_do_not_grow_are_refused(value, rule):
    with pytest.raises(InputError) as error:
        make_config({"task": "digits", "embedder.lr_decay_after": value})
    assert [*map(str, error.value.problems)] == [f"embedder.lr_decay_after = {value!r}: {rule}."]


def test_lists_are_values_in_base_and_levels_in_factors(write_space):
    text = """
        base: {task: tiny, proxy: mnist5k, embedder.lr_decay_after: [2, 4], finetune: {betas: [0.8, 0.9]}}
        factors:
          embedder.betas: [[0.9, 0.98], [0.9, 0.999], "0.5, 0.6"]
        seeds: 2
    """
    made = plan_space(write_space(text), load_imports, make_config)
    assert [cell.embedder.betas for cell in made.cells] == ["0.9, 0.98", "0.9, 0.999", "0.5, 0.6"]
    assert {(cell.finetune.betas, cell.embedder.lr_decay_after) for cell in made.cells} == {("0.8, 0.9", "2, 4")}
    config = made.trials[0].config
    assert TrialConfig.from_flat(config.flat()) == config


def test_a_bare_pair_as_a_factor_is_not_taken_for_two_levels(write_space):
    path = write_space("base: {task: tiny}\nfactors:\n  finetune.betas: [0.9, 0.98]\nseeds: 2\n")
    with pytest.raises(InputError) as error:
        plan_space(path, load_imports, make_config)
    texts = [text for text in map(str, error.value.problems) if "finetune.betas" in text]
    assert [text.removeprefix(str(path)) for text in texts[:2]] == [
        f":4: finetune.betas = {value!r}: betas must be a pair of numbers such as [0.9, 0.98]; levels of a factor are a list of"
        " pairs: [[0.9, 0.98], [0.9, 0.999]]."
        for value in ("0.9", "0.98")
    ]


ALIGNED = {"task": "digits", "proxy": "mnist5k", "embedder.epochs": 5}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"finetune.optimizer": "sgd", "finetune.betas": [0.5, 0.6]}, {"finetune.optimizer": "sgd"}),
        ({"embedder.optimizer": "sgd", "embedder.betas": [0.5, 0.6]}, {"embedder.optimizer": "sgd"}),
        ({"finetune.momentum": 0.5}, {}),
        ({"embedder.momentum": 0.5, "embedder.optimizer": "adam"}, {"embedder.optimizer": "adam"}),
        ({"embedder.lr_decay": 1}, {"embedder.lr_decay_after": None}),
        ({"embedder.lr_decay": "1.0"}, {"embedder.lr_decay_after": []}),
        ({"embedder.lr_decay": 0.5, "embedder.lr_decay_after": []}, {"embedder.lr_decay_after": None}),
        (
            {"proxy": "none", "embedder.betas": [0.5, 0.6], "embedder.momentum": 0.1, "embedder.lr_decay_after": [3]},
            {"proxy": "none"},
        ),
        ({"proxy": "none", "embedder.lr_decay": 1}, {"proxy": "none"}),
    ],
)
def test_what_cannot_act_leaves_the_id_alone(a, b):
    config, same = make_config({**ALIGNED, **a}), make_config({**ALIGNED, **b})
    assert config == same
    assert config.trial_id == same.trial_id
    assert make_config(config.flat()) == config


def test_wrong_settings_of_the_decay_are_reported_and_not_taken_for_off():
    for settings, words in (
        ({"embedder.lr_decay": 2}, "embedder.lr_decay = 2: "),
        ({"embedder.lr_decay": "x", "embedder.lr_decay_after": []}, "embedder.lr_decay = 'x': "),
        ({"embedder.lr_decay": 1, "embedder.lr_decay_after": [3, 2]}, "embedder.lr_decay_after = [3, 2]: "),
        ({"finetune.dropout": 1}, "finetune.dropout = 1: "),
        ({"finetune.dropout": "much"}, "finetune.dropout = 'much': "),
    ):
        with pytest.raises(InputError) as error:
            make_config({**ALIGNED, **settings})
        assert any(text.startswith(words) for text in map(str, error.value.problems)), error.value.problems
