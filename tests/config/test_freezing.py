"""Freeze schedules: their text, what they freeze in every body family, and what happens at a phase's border."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orca_sweep.bodies import find_body
from orca_sweep.bodies.network import ADAPTED, LoadedBody, add_adapters, build_base_model, build_random_model
from orca_sweep.config import FinetuneConfig
from orca_sweep.config.canonical_schedules import RunFacts, canonicalise_schedule
from orca_sweep.config.freeze_words import PRESETS, WORDS
from orca_sweep.config.freezing import (
    TRAIN_ALL,
    Phase,
    as_text,
    check_schedule,
    epochs_before_fresh_start,
    parse_schedule,
    phase_at,
)
from orca_sweep.errors import InputError
from orca_sweep.store import read_tensors
from orca_sweep.training.freezing import find_frozen_names, freeze_weights
from orca_sweep.training.learning_rates import finetune_learning_rate
from orca_sweep.trial import make_config
from tests.builders.bodies import SIZES

FAMILIES = list(SIZES)
LAYERS = 3
BOTH = ("embedder", "body")

# Text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "epochs", "expected"),
    [
        ("none", 5, [(), (), ()]),
        ("embedder", 1, [("embedder",), (), ()]),
        ("body", 2, [("body",), ("body",), ()]),
        ("both", "forever", [BOTH] * 3),
        ("linear-probe", 1, [BOTH] * 3),
        ("layernorm", 1, [("body-without-norms",)] * 3),
        ("released-layernorm", 1, [("body-without-transformer-norms",)] * 3),
        ("released-non-attn", 1, [("body.qkv",)] * 3),
        ("body.qkv+body.attention + body.norms+body.transformer-norms", 1, [("body.norms", "body.attention"), (), ()]),
        ("body-without-norms+body-without-transformer-norms:2", 1, [("body-without-transformer-norms",)] * 2 + [()]),
        ("body:1 > none", 9, [("body",), (), ()]),
        ("body : 1>embedder:1", 9, [("body",), ("embedder",), ()]),
        ("predictor+embedder:1 > body.layers[0:2]", 9, [("embedder", "predictor"), *[("body.layers[0:2]",)] * 2]),
        ("body.layers[:-1]", 2, [("body.layers[0:-1]",)] * 2 + [()]),
        ("body+body.norms:forever", 2, [("body",)] * 3),
    ],
)
def test_a_freeze_schedule_is_phases(freeze, epochs, expected):
    assert [phase_at(parse_schedule(freeze, epochs), epoch).frozen for epoch in (1, 2, 3)] == expected


def phase(epochs, frozen, **stepping):
    return Phase(epochs=epochs, frozen=frozen, **stepping)


PHASE = phase(2, ("body",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("body:2 lr*10", [phase(2, ("body",), lr_factor=10.0)]),
        ("  body : 2   lr * 1e-1", [phase(2, ("body",), lr_factor=0.1)]),
        ("body:2 lr*1e+1 constant", [phase(2, ("body",), lr_factor=10.0, constant_lr=True)]),
        ("body.layers[0:6] + predictor:2 lr*3", [phase(2, ("predictor", "body.layers[0:6]"), lr_factor=3.0)]),
        ("body:2 > embedder:3 fresh", [PHASE, phase(3, ("embedder",), fresh_optimizer=True)]),
        ("body:2 > none:3 fresh constant lr*.5", [PHASE, phase(3, (), lr_factor=0.5, constant_lr=True,
                                                              fresh_optimizer=True)]),
        ("body:2 fresh", [PHASE]),  # every run starts fresh
        ("none:0 > body:2 fresh", [PHASE]),
        ("body:2 > none:0 lr*3 fresh", [PHASE]),
        ("body:1 lr*1 > body:1", [PHASE]),
        ("body:1 lr*2 > body:1 lr*2", [phase(2, ("body",), lr_factor=2.0)]),
        ("body:1 > body:1 lr*2", [phase(1, ("body",)), phase(1, ("body",), lr_factor=2.0)]),
        ("body:1 > body:1 fresh > body:1", [phase(1, ("body",)), phase(2, ("body",), fresh_optimizer=True)]),
        ("none:1 > body:1 fresh > body:1 fresh",
         [phase(1, ()), phase(1, ("body",), fresh_optimizer=True), phase(1, ("body",), fresh_optimizer=True)]),
    ],
)  # fmt: skip
def test_a_phase_may_say_its_rate_and_a_fresh_start(text, expected):
    assert parse_schedule(text, 9) == (*expected, TRAIN_ALL)


@pytest.mark.parametrize(
    ("freeze", "epochs", "expected"),
    [
        ("body lr*10", 2, (phase(2, ("body",), lr_factor=10.0), TRAIN_ALL)),
        ("body lr*10", "forever", (phase(None, ("body",), lr_factor=10.0),)),
        ("none lr*10", 2, (phase(None, (), lr_factor=10.0),)),
        ("body lr*10", 0, (TRAIN_ALL,)),
        ("body:1 > none lr*.1", 7, (phase(1, ("body",)), phase(None, (), lr_factor=0.1))),
    ],
)
def test_the_length_of_a_single_phase_is_freeze_epochs_whatever_its_rate(freeze, epochs, expected):
    assert parse_schedule(freeze, epochs) == expected


def test_gradual_unfreezing_thaws_from_the_top():
    expected = [BOTH, ("embedder", "body.layers[0:2]"), ("embedder", "body.layers[0:1]"), ("embedder",)]
    assert parse_schedule("gradual-unfreeze", 2, 3) == (*(phase(2, part) for part in expected), TRAIN_ALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bdy", "'bdy' cannot be frozen. Did you mean 'body'"),
        ("layernorms", "Did you mean 'layernorm'"),
        ("body.layers[3]", "Did you mean 'body.layers"),
        ("body:x", "'x' of a phase is neither a number of epochs nor 'forever'"),
        ("body > none", "only the last phase may leave its length out"),
        ("body:forever > none", "only the last phase can last forever"),
        ("embedder+body+predictor", "leaves nothing to train"),
        ("body.layers[0:6", "is not a phase such as 'body:5'"),
        ("both:3", "'both' cannot be frozen"),
        ("", "'' cannot be frozen"),
        ("both lr*10", "'both' cannot be frozen in a phase: it names a whole schedule"),
        ("gradual-unfreeze lr*10", "'gradual-unfreeze' cannot be frozen in a phase: it names a whole schedule"),
        ("none+body", "'none' cannot be combined with other words"),
        ("body:5 lr*ten", "the factor 'ten' of a phase's learning rate must be a number above zero, as in 'lr*10'"),
        ("body:5 lr*0", "the factor '0' of a phase's learning rate must be a number above zero"),
        ("body:5 lr*-1", "the factor '-1' of"),
        ("body:5 lr*inf", "the factor 'inf' of"),
        ("body:5 lr*nan", "the factor 'nan' of"),
        ("body:5 lr*1e999", "the factor '1e999' of"),
        ("body:5 lr*", "the factor '' of"),
        ("body:5 lr10", "'lr10' cannot follow what is frozen and its length"),
        ("body:5 slow", "a factor such as 'lr*10', 'constant' and 'fresh', as in"),
        ("body lr*10:5", "the factor '10:5' of"),
        ("body fresh:5", "'fresh:5' cannot follow what is frozen"),
        ("body:5lr*10", "the length '5lr*10' of a phase is neither"),
        ("body:5 lr*10 lr*2", "a phase has 'lr*...' twice"),
        ("body:5 fresh fresh", "a phase has 'fresh' twice"),
        ("lr*10 > none", "'lr*10' does not say what is frozen. Write 'none lr*10'"),
        ("body:5 > fresh", "'fresh' does not say what is frozen. Write 'none fresh'"),
        ("body lr*10 > none", "only the last phase may leave its length out"),
    ],
)
def test_a_wrong_schedule_is_explained(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_schedule(text)
    with pytest.raises(InputError, match="finetune.freeze = "):
        make_config({"task": "digits", "finetune.freeze": text})


def test_a_schedule_may_be_a_list_of_phases(write_space):
    from orca_sweep.space import plan_space
    from orca_sweep.trial import load_imports

    path = write_space(
        """\
        base: {task: tiny, finetune.epochs: 9, finetune.warmup_epochs: 1}
        factors:
          finetune.freeze:
            - none
            - [{frozen: [embedder, body], epochs: 2}, {frozen: body, epochs: 3}, {frozen: []}]
            - [{frozen: [body], epochs: forever}]
            - "both:2 "
            - [{frozn: body}]
            - [{frozen: body, epochs: 2, lr_factor: 10, constant_lr: true}, {frozen: none, fresh_optimizer: true}]
            - [{frozen: [embedder, body], epochs: 2, lr_factor: 1e-1, fresh_optimizer: false}]
            - [{frozen: body, fresh_optimizer: perhaps}]
            - [{frozen: body, lr_factor: much}]
        seeds: 1
        """
    )
    with pytest.raises(InputError) as error:
        plan_space(path, load_imports, make_config)
    assert len(error.value.problems) == 4
    assert "fresh_optimizer of a phase is 'perhaps'. It must be true or false" in str(error.value)
    assert "the factor 'much' of a phase's learning rate" in str(error.value)
    assert "'both' cannot be frozen" in str(error.value)
    assert "a phase is a mapping with 'frozen' and 'epochs'" in str(error.value)
    wrong = ("both:2", "frozn", "perhaps", "much")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not any(w in line for w in wrong)))
    levels = [(cell.finetune.freeze, cell.finetune.freeze_epochs)
              for cell in plan_space(path, load_imports, make_config).cells]  # fmt: skip
    assert levels == [
        ("none", 0), ("embedder+body:2 > body:3 > none", 0), ("body", "forever"),
        ("body:2 lr*10 constant > none fresh", 0), ("embedder+body lr*0.1", 2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one phase"):
        as_text([])


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"freeze": "body:5 > none"}, {"freeze": "body", "freeze_epochs": 5}),
        ({"freeze": "body:2 > body:3"}, {"freeze": "body", "freeze_epochs": 5}),
        ({"freeze": "linear-probe"}, {"freeze": "both", "freeze_epochs": "forever"}),
        ({"freeze": "embedder+body:99 > none"}, {"freeze": "both", "freeze_epochs": "forever"}),
        ({"freeze": "body-without-norms:forever"}, {"freeze": "layernorm"}),
        ({"freeze": "body:3 > embedder:40"}, {"freeze": "body:3 > embedder"}),
        ({"freeze": "none:3 > none"}, {"freeze": "none"}),
        ({"freeze": "body", "freeze_epochs": 0}, {"freeze": "none"}),
        ({"freeze": "gradual-unfreeze", "freeze_epochs": 30}, {"freeze": "linear-probe"}),
        ({"freeze": "gradual-unfreeze", "freeze_epochs": 0}, {}),
        ({"lora_alpha": 3}, {}),
        ({"freeze": "linear-probe", "lora_rank": 4}, {"freeze": "linear-probe"}),
        ({"freeze": "body:9 > embedder+body", "lora_rank": 4}, {"freeze": "body:9 > embedder+body"}),
        (
            {"freeze": "body lr*10", "freeze_epochs": "forever", "lora_rank": 4},
            {"freeze": "body lr*1e1", "freeze_epochs": 10},
        ),
        ({"freeze": "body:5 lr*1 fresh > none"}, {"freeze": "body", "freeze_epochs": 5}),
        ({"freeze": "body:5 lr*10 > none"}, {"freeze": "body lr*10", "freeze_epochs": 5}),
        ({"freeze": "body:2 lr*10 > body:3 lr*10"}, {"freeze": "body lr*10", "freeze_epochs": 5}),
        ({"freeze": "body lr*10", "freeze_epochs": 0}, {"freeze": "none"}),
        ({"freeze": "body:5 > none:9 fresh > embedder lr*3"}, {"freeze": "body:5 > none fresh"}),
        ({"freeze": "none lr*10", "freeze_epochs": 3}, {"freeze": "none:4 lr*10 > none lr*10"}),
        # Words without effect in this run: the rate is at its peak anyway, or there is no state to clear.
        ({"freeze": "body:5 constant > none"}, {"freeze": "body", "freeze_epochs": 5}),
        ({"freeze": "none:3 > none:4 constant > none", "warmup_epochs": 3}, {"warmup_epochs": 3}),
        ({"freeze": "none constant", "warmup_epochs": 3, "decay_epochs": 9}, {}),
        ({"freeze": "none:3 > none fresh", "optimizer": "sgd", "momentum": 0}, {"optimizer": "sgd", "momentum": 0}),
        # Without down-sampling norms, both words for norms mean the same.
        (
            {"freeze": "released-layernorm", "body.name": "roberta-micro"},
            {"freeze": "layernorm", "body.name": "roberta-micro"},
        ),
        ({"freeze": "body.norms+body.transformer-norms"}, {"freeze": "body.norms"}),
        ({"freeze": "body.layers[:3]:5 > none"}, {"freeze": "body.layers[0:3]:5 > none"}),
        ({"freeze": "body.layers[00:03]+body.layers[-0:3]:5"}, {"freeze": "body.layers[0:3]:5"}),
        ({"betas": [-0.0, 0.9]}, {"betas": "0, 0.9"}),
    ],
)
def test_schedules_of_equal_work_are_one_cell(settings, same):
    assert id_of(settings) == id_of(same)


PLAIN = {
    "task": "digits",
    "proxy": "none",
    "finetune.epochs": 10,
    "finetune.warmup_epochs": 0,
    "finetune.decay_epochs": None,
}


def id_of(settings):
    dotted = {name if "." in name else f"finetune.{name}": value for name, value in settings.items()}
    return make_config({**PLAIN, **dotted}).trial_id


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({"freeze": "body lr*10"}, {"freeze": "body"}),
        ({"freeze": "none lr*10", "lr": 1e-4}, {"lr": 1e-3}),
        ({"freeze": "none:3 > none fresh"}, {}),
        ({"freeze": "none:3 > none fresh", "optimizer": "sgd"}, {"optimizer": "sgd"}),
        ({"freeze": "none:3 > none fresh", "optimizer": "sgd", "momentum": 0, "decay_epochs": 9},
         {"optimizer": "sgd", "momentum": 0, "decay_epochs": 9}),
        ({"freeze": "none:3 constant > none", "warmup_epochs": 3}, {"warmup_epochs": 3}),
        ({"freeze": "none:3 > none constant", "decay_epochs": 20}, {"decay_epochs": 20}),
        ({"freeze": "none:5 > none constant fresh", "warmup_epochs": 3},
         {"freeze": "none:5 > none fresh", "warmup_epochs": 3}),
        ({"freeze": "released-layernorm"}, {"freeze": "layernorm"}),
        ({"freeze": "body.qkv"}, {"freeze": "body.attention"}),
    ],
)  # fmt: skip
def test_schedules_of_different_work_are_two_cells(settings, other):
    assert id_of(settings) != id_of(other)


@pytest.mark.parametrize("freeze", [7, ["body"], [{"frozn": "body"}], None, "body lr*0"])
def test_a_text_that_is_not_a_schedule_is_reported_without_a_traceback(freeze):
    with pytest.raises(InputError, match="finetune.freeze = "):
        make_config({"task": "digits", "finetune.freeze": freeze, "finetune.lora_rank": 3})


@pytest.mark.parametrize(
    "freeze", ["layernorm", "released-layernorm", "released-non-attn", "body.qkv:2 > body", "body > body.norms lr*2"]
)
def test_adapters_beside_kinds_of_weights_are_a_contradiction(freeze):
    freeze = freeze.replace("body >", "body:2 >")
    with pytest.raises(InputError, match="finetune.lora_rank = 4: .* has no meaning beside them"):
        make_config({"task": "digits", "finetune.freeze": freeze, "finetune.lora_rank": 4})


def test_adapters_go_with_parts_layers_and_rates():
    freeze = "body:2 lr*10 constant > body.layers[0:1]:2 > none fresh"
    settings = {"finetune.freeze": freeze, "finetune.lora_rank": 4, "finetune.warmup_epochs": 3}
    assert make_config({"task": "digits", **settings}).finetune.freeze == freeze


@pytest.mark.parametrize("epochs", [0, -3])
def test_a_run_without_epochs_is_refused(epochs):
    with pytest.raises(InputError, match=f"finetune.epochs = {epochs}: input should be greater than or equal to 1"):
        make_config({"task": "digits", "finetune.epochs": epochs, "finetune.freeze": "body:2 > none"})


def test_gradual_unfreezing_forever_is_a_contradiction():
    with pytest.raises(InputError, match="needs the number of epochs between two thaws"):
        make_config({"task": "digits", "finetune.freeze": "gradual-unfreeze", "finetune.freeze_epochs": "forever"})


words = st.sampled_from([*WORDS, "body.layers[0:2]", "body.layers[-1:]"])
stepping = st.sampled_from(["", "lr*10", "lr*1", "lr*0.3", "constant", "fresh", "lr*10 constant fresh"])
phases = st.tuples(st.lists(words, max_size=2), st.integers(0, 4), stepping)
facts = st.builds(
    RunFacts,
    warmup_epochs=st.integers(0, 3),
    decay_epochs=st.one_of(st.none(), st.integers(4, 9)),
    optimizer_remembers=st.booleans(),
    merges_patches=st.booleans(),
)


def work_of(phases, epoch, run):
    """What an epoch does: what is frozen, the rates of its two steps, and whether there is an older state."""
    phase, start = phase_at(phases, epoch), epochs_before_fresh_start(phases, epoch)
    config = FinetuneConfig(warmup_epochs=run.warmup_epochs, decay_epochs=run.decay_epochs, lr=1.0)
    steps = [2 * (epoch - 1 - start) + step for step in (0, 1)]
    rates = [
        phase.lr_factor * (1.0 if phase.constant_lr else finetune_learning_rate(config, step, 2)) for step in steps
    ]
    frozen = {word if run.merges_patches else word.replace("transformer-norms", "norms") for word in phase.frozen}
    return frozen, rates, run.optimizer_remembers and start


@given(
    st.lists(phases, min_size=1, max_size=4), st.one_of(st.integers(0, 6), st.just("forever")), st.integers(1, 9), facts
)
def test_the_canonical_form_is_the_same_work_and_canonical(parts, freeze_epochs, epochs, run):
    text = " > ".join(" ".join(["+".join(part or ["none"]) + f":{length}", how]) for part, length, how in parts)
    short, length = canonicalise_schedule(text, freeze_epochs, epochs, run)
    given_phases, short_phases = parse_schedule(text, freeze_epochs), parse_schedule(short, length)
    for epoch in range(1, epochs + 1):
        assert work_of(given_phases, epoch, run) == work_of(short_phases, epoch, run)
    assert canonicalise_schedule(short, length, epochs, run) == (short, length)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_keeps_its_name(preset):
    freeze = make_config({"task": "digits", "finetune.freeze": preset, "finetune.epochs": 10}).finetune.freeze
    assert freeze == {"linear-probe": "both"}.get(preset, preset)


# Parameters ---------------------------------------------------------------------------------------


def network_of(family):
    from transformers import AutoConfig

    torch.manual_seed(0)
    return LoadedBody(model=build_base_model(AutoConfig.for_model(family, **SIZES[family]))).build_network()


def model_of(family, body=None):
    model = nn.Sequential()
    model.add_module("embedder", nn.Linear(2, 2))
    model.add_module("body", body or network_of(family))
    model.add_module("predictor", nn.Linear(2, 2))
    return model


OUTPUTS = ("output.", "o_proj.", "c_proj.", "attention.dense.")


def expected_names(model, word):
    """The definition, written as plain matching of names."""
    names = {name for name, _ in model.named_parameters()}
    body = {name for name in names if name.startswith("body.")}
    norm = {name for name in body if "norm" in name.lower() or ".ln_" in name}
    attention = {name for name in body if ".attention." in name or ".attn." in name} - norm
    kinds = {
        "norms": norm,
        "transformer-norms": {name for name in norm if "downsample" not in name},
        "attention": attention,
        "qkv": {name for name in attention if not any(part in name for part in OUTPUTS) and "table" not in name},
        "biases": {name for name in body if name.endswith(".bias")},
    }
    if word in ("embedder", "body", "predictor"):
        return {name for name in names if name.startswith(f"{word}.")}
    kind = kinds[word.removeprefix("body.").removeprefix("body-without-")]
    return body - kind if "without" in word else kind


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_word_freezes_exactly_its_parameters(family, word):
    model = model_of(family)
    expected = expected_names(model, word)
    assert expected
    assert find_frozen_names(model, (word,)) == expected
    n = freeze_weights(model, (word,))
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == expected
    assert n == sum(p.numel() for name, p in model.named_parameters() if name not in expected)


# Every parameter of the bodies of ``SIZES`` that a word means, as transformers names them: weight and bias of each.
ENCODER = [f"encoder.layer.{i}" for i in range(3)]
SWIN = ["encoder.layers.0.blocks.0", "encoder.layers.1.blocks.0", "encoder.layers.1.blocks.1"]
LITERAL = {
    "roberta": (ENCODER, {
        "qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
        "outputs": ["attention.output.dense"],
        "norms": ["attention.output.LayerNorm", "output.LayerNorm"],
        "rest": ["intermediate.dense", "output.dense"],
    }, {}),
    "gpt2": ([f"model.h.{i}" for i in range(3)], {
        "qkv": ["attn.c_attn"],
        "outputs": ["attn.c_proj"],
        "norms": ["ln_1", "ln_2"],
        "rest": ["mlp.c_fc", "mlp.c_proj"],
    }, {"norms": ["model.ln_f.weight", "model.ln_f.bias"]}),
    "gpt_neox": ([f"model.layers.{i}" for i in range(3)], {
        "qkv": ["attention.query_key_value"],
        "outputs": ["attention.dense"],
        "norms": ["input_layernorm", "post_attention_layernorm"],
        "rest": ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
    }, {"norms": ["model.final_layer_norm.weight", "model.final_layer_norm.bias"]}),
    "vit": ([f"blocks.{i}" for i in range(3)], {
        "qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "outputs": ["attention.o_proj"],
        "norms": ["layernorm_before", "layernorm_after"],
        "rest": ["mlp.fc1", "mlp.fc2"],
    }, {"norms": ["layernorm.weight", "layernorm.bias"], "rest": ["cls_token", "position_embeddings"]}),
    "swin": (SWIN, {
        "qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "outputs": ["attention.o_proj"],
        "norms": ["layernorm_before", "layernorm_after"],
        "rest": ["mlp.fc1", "mlp.fc2"],
    }, {
        "outputs": [f"{block}.attention.relative_position_bias.relative_position_bias_table" for block in SWIN],
        "norms": ["layernorm.weight", "layernorm.bias"],
        "downsampling norms": ["encoder.layers.0.downsample.norm.weight", "encoder.layers.0.downsample.norm.bias"],
        "rest": ["encoder.layers.0.downsample.reduction.weight"],
    }),
}  # fmt: skip
LITERAL["bert"] = LITERAL["roberta"]


def literal_names(family):
    """The parameters of each kind, from the lists of names."""
    layers, modules, more = LITERAL[family]
    kinds = {kind: {f"body.{name}" for name in more.get(kind, [])} for kind in (*modules, "downsampling norms")}
    for kind, names in modules.items():
        kinds[kind] |= {f"body.{layer}.{name}.{part}" for layer in layers for name in names for part in PAIR}
    return kinds


PAIR = ("weight", "bias")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_that_each_word_means_are_these(family):
    model, kinds = model_of(family), literal_names(family)
    body = set().union(*kinds.values())
    assert body == {name for name, _ in model.named_parameters() if name.startswith("body.")}
    assert sum(map(len, kinds.values())) == len(body)
    expected = {
        "norms": kinds["norms"] | kinds["downsampling norms"],
        "transformer-norms": kinds["norms"],
        "attention": kinds["qkv"] | kinds["outputs"],
        "qkv": kinds["qkv"],
        "biases": {name for name in body if name.endswith(".bias")},
    }
    for kind, names in expected.items():
        assert find_frozen_names(model, (f"body.{kind}",)) == names, kind
        assert find_frozen_names(model, (f"body-without-{kind}",)) == body - names, kind


def released_name(name):
    """A parameter's name in the model of the released ORCA's version of transformers (Swin for images, RoBERTa)."""
    renamed = [("q_proj", "self.query"), ("k_proj", "self.key"), ("v_proj", "self.value"), ("o_proj", "output.dense"),
               ("relative_position_bias.", "self."), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
               ("body.", "model.swin."), ("predictor.decoder", "model.decoder")]  # fmt: skip
    for new, old in renamed:
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize(
    ("preset", "rests"),
    [
        ("released-layernorm", lambda n: "layer" in n and "layernorm" not in n and "LayerNorm" not in n),
        ("released-non-attn", lambda n: "layer" in n and any(part in n for part in ("query", "key", "value"))),
    ],
)
@pytest.mark.parametrize("family", ["swin", "roberta", "bert"])
def test_released_presets_freeze_what_the_released_rules_on_names_do(family, preset, rests):
    model = model_of(family)
    names = [name for name, _ in model.named_parameters()]
    expected = {name for name in names if rests(released_name(name))}
    assert expected
    assert find_frozen_names(model, parse_schedule(preset, 1)[0].frozen) == expected
    if family == "swin":  # and what the plain preset trains in addition
        more = {f"body.encoder.layers.0.downsample.norm.{part}" for part in PAIR}
        assert expected - find_frozen_names(model, parse_schedule("layernorm", 1)[0].frozen) >= (
            more if preset == "released-layernorm" else set()
        )


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("none", []),
        ("embedder", ["embedder"]),
        ("body", ["body"]),
        ("both", ["embedder", "body"]),
        ("linear-probe", ["embedder", "body"]),
        ("layernorm", ["body-without-norms"]),
        ("released-layernorm", ["body-without-transformer-norms"]),
        ("released-non-attn", ["body.qkv"]),
        ("gradual-unfreeze", ["embedder", "body"]),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_preset_starts_with_exactly_its_parameters_frozen(family, preset, words):
    model = model_of(family)
    expected = set().union(*(expected_names(model, word) for word in words))
    assert find_frozen_names(model, parse_schedule(preset, 2, LAYERS)[0].frozen) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_gradual_unfreezing_thaws_one_layer_after_the_other(family):
    model = model_of(family)
    frozen = [find_frozen_names(model, phase.frozen) for phase in parse_schedule("gradual-unfreeze", 1, LAYERS)]
    thawed = [before - after for before, after in itertools.pairwise(frozen)]
    layers = [find_frozen_names(model, (f"body.layers[{i}:{i + 1}]",)) for i in range(LAYERS)]
    assert len(frozen) == LAYERS + 2
    assert layers[-1] <= thawed[0]  # and everything after the last layer
    assert thawed[1:LAYERS] == layers[-2::-1]
    assert thawed[-1] == expected_names(model, "embedder")
    assert frozen[-1] == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_slices_of_layers_part_the_body(family):
    model = model_of(family)
    each = [find_frozen_names(model, (f"body.layers[{i}:{i + 1}]",)) for i in range(LAYERS)]
    assert all(each)
    assert sum(map(len, each)) == len(set().union(*each))  # no parameter is in two layers
    assert set().union(*each) == find_frozen_names(model, ("body.layers[:]",))
    left = {name for name, _ in model.body.named_parameters()} - {n.removeprefix("body.") for n in set().union(*each)}
    last = {"swin": "layernorm", "vit": "layernorm", "gpt2": "model.ln_f", "gpt_neox": "model.final_layer_norm"}
    expected = {f"{last[family]}.{kind}" for kind in ("weight", "bias")} if family in last else set()
    assert left == expected | ({"cls_token", "position_embeddings"} if family == "vit" else set())
    with pytest.raises(InputError, match=r"layers\[7:9\] holds no layer; the body has 3 layers\. .* 0 <= A < B <= 3"):
        find_frozen_names(model, ("body.layers[7:9]",))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_train_in_place_of_the_body_s_weights(family):
    plain, model = model_of(family), model_of(family)
    torch.manual_seed(0)
    add_adapters(model.body, family, rank=3, alpha=6)
    adapters = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * LAYERS * len(ADAPTED[family])
    freeze_weights(model, ())
    trained = {name for name, p in model.named_parameters() if p.requires_grad and name.startswith("body.")}
    assert trained == adapters
    freeze_weights(model, ("body",))
    assert not any(p.requires_grad for p in model.body.parameters())
    shape = {"swin": (2, 64, 24), "vit": (2, 16, 48)}.get(family, (2, 20, 48))
    tokens = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    plain.eval(), model.eval()
    torch.testing.assert_close(model.body(tokens), plain.body(tokens))  # they start without effect


# Borders of phases --------------------------------------------------------------------------------


def test_a_border_leaves_frozen_weights_bit_equal_and_the_others_moving(run, tmp_path):
    """Three phases of two epochs; the weights come from the run's checkpoints."""
    freeze = "embedder+body.layers[0:2]:2 > body-without-norms:2 > predictor"
    settings = {"task": "tiny", "finetune__freeze": freeze, "finetune__epochs": 6}
    config = make_config({key.replace("__", "."): value for key, value in settings.items()})
    path = tmp_path / "sweep" / "trials" / config.trial_id / "checkpoint.safetensors"
    states = []
    row, epochs = run(**settings, report=lambda row: states.append(read_tensors(str(path)).tensors))
    assert row["status"] == "ok"
    whole = model_of("swin", LoadedBody(model=build_random_model(find_body("swin-micro"), 0)).build_network())
    for epoch, words in ((2, ("embedder", "body.layers[0:2]")), (4, ("body-without-norms",)), (6, ("predictor",))):
        before, after = states[epoch - 2], states[epoch - 1]
        inside = find_frozen_names(whole, words)
        for name in before:
            if not name.startswith("model."):
                continue
            parameter = name.removeprefix("model.")
            frozen = parameter in inside or parameter.split(".")[0] in words
            # A key's bias never moves: it has no effect on softmax attention.
            if frozen or "k_proj.bias" not in name:
                assert np.array_equal(before[name], after[name]) == frozen, (epoch, name)
    counts = [epoch["n_trainable"] for epoch in epochs]
    assert counts[0] == counts[1] != counts[2] == counts[3] != counts[4] == counts[5]
    assert (row["n_trainable_first"], row["n_trainable_last"]) == (counts[0], counts[5])


def test_optimizer_state_at_a_border(run, tmp_path):
    """Frozen parameters have no state until they thaw, then their own step count; parameters that freeze keep theirs."""
    settings = {"task": "tiny", "finetune__freeze": "body:2 > predictor", "finetune__epochs": 4}
    config = make_config({key.replace("__", "."): value for key, value in settings.items()})
    path = tmp_path / "sweep" / "trials" / config.trial_id / "checkpoint.safetensors"
    seen = []
    run(**settings, report=lambda row: seen.append(read_tensors(str(path)).tensors))
    names = [key.removeprefix("model.") for key in seen[0] if key.startswith("model.")]
    parameters = [f"{part}.{name}" for part, module in small_parts(names) for name in module]
    steps = [
        {parameters[int(key.split(".")[1])]: float(state[key]) for key in state if key.endswith(".step")}
        for state in seen
    ]
    per_epoch = 3  # 24 samples in batches of 8
    assert {name.split(".")[0] for name in steps[1]} == {"embedder", "predictor"}
    assert set(steps[1].values()) == {2.0 * per_epoch}
    parts = {
        part: {n for name, n in steps[3].items() if name.startswith(part)} for part in ("embedder", "body", "predictor")
    }
    assert parts == {"embedder": {4.0 * per_epoch}, "body": {2.0 * per_epoch}, "predictor": {2.0 * per_epoch}}


def test_a_fresh_start_forgets_the_optimizer_s_state(run, tmp_path):
    """Step counts of all parameters restart, and parameters that are frozen from then on have none."""
    settings = {"task": "tiny", "finetune__freeze": "none:2 > predictor:1 fresh > none", "finetune__epochs": 4}
    config = make_config({key.replace("__", "."): value for key, value in settings.items()})
    path = tmp_path / "sweep" / "trials" / config.trial_id / "checkpoint.safetensors"
    seen = []
    run(**settings, report=lambda row: seen.append(read_tensors(str(path)).tensors))
    steps = [sorted({float(state[key]) for key in state if key.endswith(".step")}) for state in seen]
    counts = [sum(key.endswith(".step") for key in state) for state in seen]
    assert steps == [[3.0], [6.0], [3.0], [3.0, 6.0]]  # three steps per epoch
    assert counts[0] == counts[1] == counts[3] == counts[2] + 2  # the predictor's weight and bias


def test_rates_and_their_sum_contain_the_phase_s_factor(run, tmp_path):
    from orca_sweep.results import STAGE_COLUMNS, read_record

    freeze = "body:1 lr*10 constant > embedder:2 lr*0.5 fresh > none"
    row, epochs = run(
        task="tiny", finetune__freeze=freeze, finetune__epochs=4, finetune__lr=1e-3, finetune__warmup_epochs=2,
        finetune__decay_epochs=4, finetune__batch_size=12, proxy="none",
    )  # fmt: skip
    # Two steps per epoch; warm-up over four steps and decay over the next four, counted from the second epoch.
    schedule_of_3_epochs = [0.25, 0.5, 0.75, 1.0, 1.0, 0.75]
    rates = [10, 10, *(rate * factor for rate, factor in zip(schedule_of_3_epochs, [0.5] * 4 + [1] * 2, strict=True))]
    assert [epoch["lr"] for epoch in epochs] == pytest.approx([1e-3 * rate for rate in rates[1::2]], rel=1e-12)
    sums = [1e-3 * (rates[i] + rates[i + 1]) for i in range(0, 8, 2)]
    assert [epoch["lr_integral"] for epoch in epochs] == pytest.approx(sums, rel=1e-12)
    stages = read_record(tmp_path / "sweep", row["trial_id"])["stages"]
    phases = [stage for stage in stages if stage["stage"] == "finetune"]
    assert set(phases[0]) < {column.name for column in STAGE_COLUMNS}
    assert [phase["lr_factor"] for phase in phases] == [10.0, 0.5, 1.0]
    assert [phase["constant_lr"] for phase in phases] == [True, False, False]
    assert [phase["fresh_optimizer"] for phase in phases] == [False, True, False]
    assert [phase["lr_integral"] for phase in phases] == pytest.approx([sums[0], sums[1] + sums[2], sums[3]], rel=1e-12)
    assert not any("lr_factor" in stage for stage in stages if stage["stage"] != "finetune")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_released_predictor_only_phase_is_one_line(optimizer, user_tasks, worker):
    """Compared with plain torch: an optimizer at ten times the rate without warm-up, body frozen; then one with warm-up."""
    import copy

    from orca_sweep.streams import stream_rng
    from orca_sweep.tasks import find_task, load_task_data
    from orca_sweep.training.finetune import finetune
    from orca_sweep.training.finetune_setup import FinetuneSetup
    from orca_sweep.training.model import build_model
    from orca_sweep.training.pretrain import pretrain_body

    config = make_config({
        "task": "tiny", "proxy": "none", "finetune.epochs": 3, "finetune.lr": 1e-3, "finetune.optimizer": optimizer,
        "finetune.freeze": "body:1 lr*10 constant > none fresh", "finetune.warmup_epochs": 1, "finetune.decay_epochs": 4,
    })  # fmt: skip
    data = load_task_data(find_task("tiny"), worker, 0, None)
    loaded, _, _ = pretrain_body(find_body("swin-micro"), config.body, worker, lambda row: None)
    model = build_model(data, loaded, config)
    plain = copy.deepcopy(model).train()
    finetune(model, data, FinetuneSetup(config=config.finetune, seed_of=config.seed_of))
    kinds = {"sgd": (torch.optim.SGD, {"momentum": 0.9}), "adamw": (torch.optim.AdamW, {})}
    kind, more = kinds[optimizer]
    for first, last, resting, rates in [(1, 1, plain.body, [10] * 3), (2, 3, None, [1 / 3, 2 / 3, 1, 1, 8 / 9, 7 / 9])]:
        trained = [p for p in plain.parameters() if resting is None or all(p is not q for q in resting.parameters())]
        stepped = kind(trained, lr=1e-3, weight_decay=config.finetune.weight_decay, foreach=True, **more)
        orders = [stream_rng(0, "finetune order", epoch).permutation(24) for epoch in range(first, last + 1)]
        for rows, rate in zip(np.split(np.concatenate(orders), len(rates)), rates, strict=True):
            x, y = (torch.from_numpy(part[rows]) for part in (data.train.x, data.train.y))
            plain.zero_grad()
            torch.nn.functional.cross_entropy(plain(x), y).backward()
            stepped.param_groups[0]["lr"] = 1e-3 * rate
            stepped.step()
    a, b = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (model, plain))
    # The size of an Adam step does not depend on that of its gradient: if the gradient is only rounding, so is the step.
    near = (a - b).abs() <= 1e-6 + 1e-5 * b.abs()
    assert near.all() if optimizer == "sgd" else near.float().mean() > 0.99


def test_sgd_starts_what_thaws_without_momentum(run, monkeypatch):
    """Compared with torch's plain sgd, which accepts parameters with and without momentum together."""
    from orca_sweep.training import finetune as finetuning

    settings = {"task": "tiny", "finetune__optimizer": "sgd", "finetune__lr": 0.01, "finetune__epochs": 4,
                "finetune__freeze": "body:1 > embedder:1 > none"}  # fmt: skip
    fused, epochs = run(**settings)
    assert fused["status"] == "ok"
    monkeypatch.setattr(
        finetuning, "build_optimizer",
        lambda settings, parameters: torch.optim.SGD(
            parameters, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum, foreach=False
        ),
    )  # fmt: skip
    monkeypatch.setattr(finetuning, "start_momentum", lambda optimizer: None)
    _, plain = run(**settings, folder="plain")
    for a, b in zip(epochs, plain, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)


def small_parts(names):
    """The names of each part's parameters, in the optimizer's order: that of the modules."""
    whole = model_of("swin", LoadedBody(model=build_random_model(find_body("swin-micro"), 0)).build_network())
    for part in ("embedder", "body", "predictor"):
        order = [name for name, _ in whole.body.named_parameters()] if part == "body" else None
        mine = [name.removeprefix(f"{part}.") for name in names if name.startswith(f"{part}.")]
        yield part, order or sorted(mine, key=["projection.weight", "projection.bias", "norm.weight", "norm.bias",
                                               "linear.weight", "linear.bias"].index)  # fmt: skip


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"finetune__freeze": "embedder+body:2 > none"},
        {"finetune__freeze": "gradual-unfreeze", "finetune__freeze_epochs": 1},
        {"finetune__lora_rank": 2, "finetune__freeze": "body:1 > none"},
        {"finetune__freeze": "both:2 lr*10 > predictor:1 fresh > none fresh".replace("both", "embedder+body")},
    ],
)
def test_a_killed_run_ends_as_the_unbroken_one_whatever_is_frozen(run, at, settings):
    class KilledError(KeyboardInterrupt):
        """Ends the run as a person or the system does; any other end is a row."""

    def kill(row):
        if row["epoch"] == at:
            raise KilledError

    whole = {"task": "tiny", "finetune__epochs": 4, **settings}
    unbroken, epochs = run(**whole)
    with pytest.raises(KilledError):
        run(**whole, folder="killed", report=kill)
    resumed, again = run(**whole, folder="killed")
    assert resumed["resumed_from_epoch"] == at
    assert resumed["state_sha256"] == unbroken["state_sha256"]
    strip = lambda rows: [{k: v for k, v in row.items() if k != "wall_time_s"} for row in rows]  # noqa: E731
    assert strip(again) == strip(epochs)


def test_features_of_frozen_parts_are_made_once_and_change_nothing_but_rounding(run, monkeypatch):
    from orca_sweep.training import feature_cache

    calls = []
    real = feature_cache.FeatureCache._compute_features
    monkeypatch.setattr(
        feature_cache.FeatureCache, "_compute_features", lambda cache, x: calls.append(len(x)) or real(cache, x)
    )
    settings = {"task": "tiny", "finetune__freeze": "both", "finetune__freeze_epochs": 3, "finetune__epochs": 5}
    kept, epochs = run(**settings)
    assert calls == [24, 18]  # training and validation samples, once
    monkeypatch.setattr(feature_cache, "MAX_NUMBERS", 0)
    plain, plain_epochs = run(**settings, folder="plain")
    for a, b in zip(epochs, plain_epochs, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
    assert kept["val_metric_last"] == plain["val_metric_last"]


def test_a_dense_task_keeps_features_too(run):
    row, epochs = run(
        task="darcy-generated", data__n_train=20, finetune__epochs=2, proxy="none", body__pretrain_fraction=0,
        finetune__freeze="linear-probe",
    )  # fmt: skip
    assert row["status"] == "ok"
    assert epochs[1]["train_loss"] < epochs[0]["train_loss"]


def test_adapters_learn_and_their_start_is_the_seed_s(run):
    rows = [
        run(task="tiny", finetune__lora_rank=4, finetune__lr=0.01, folder=folder, seed=seed)[0]
        for folder, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert rows[0]["state_sha256"] == rows[1]["state_sha256"] != rows[2]["state_sha256"]
    full, _ = run(task="tiny", folder="full")
    assert rows[0]["n_trainable_last"] < full["n_trainable_last"] / 10
    assert rows[0]["n_parameters"] > full["n_parameters"]


def test_a_schedule_that_leaves_nothing_to_train_is_reported_before_the_start(run):
    freeze = "predictor:1 > embedder+predictor+body.norms+body-without-norms"
    row, epochs = run(task="tiny", finetune__freeze=freeze, finetune__epochs=3)
    assert row["status"] == "failed"
    assert "leaves nothing of this model to train" in row["error"]
    assert epochs == []
    with pytest.raises(ValueError, match="cannot be frozen"):
        check_schedule("body.layers[-:3]")
