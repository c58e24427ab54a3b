"""When knobs act: the rules beside the fields."""

import pytest

from orca_sweep.config import (
    Facts,
    TrialConfig,
    acts,
    default_settings,
    embedder_training_fields,
    fields_of_level,
    find_idle,
    knobs,
    naive_settings,
    read_facts,
    rules,
)
from orca_sweep.config.acting import DEFAULT

WHOLE = {**default_settings(), "task": "t", "body.name": "b", "proxy": "p"}


def test_unknown_facts_let_every_knob_act():
    assert find_idle(Facts()) == {}
    assert all(acts(path, Facts()) for path in knobs())
    assert acts("no.knob", Facts(trains_embedder=False))


def test_every_knob_says_when_it_acts():
    assert rules().keys() == knobs().keys()
    assert knobs()["embedder.momentum"].acts == "where the embedder is trained, with sgd"
    assert knobs()["finetune.lr"].acts == ""


def test_rules_are_not_part_of_a_field_s_type():
    assert knobs()["embedder.lr"].type_name == "float"
    assert knobs()["finetune.freeze_epochs"].type_name == "int | forever"
    with pytest.raises(ValueError, match="greater than 0"):
        knobs()["embedder.lr"].read(0)


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({}, {"embedder.momentum", "finetune.momentum", "finetune.lora_alpha"}),
        ({"finetune.optimizer": "sgd", "finetune.lora_rank": 2}, {"embedder.momentum", "finetune.betas"}),
        ({"embedder.lr_decay": 1.0}, {"embedder.lr_decay", "embedder.lr_decay_after"}),
        ({"embedder.lr_decay_after": None}, {"embedder.lr_decay", "embedder.lr_decay_after"}),
        ({"finetune.freeze": "both", "finetune.freeze_epochs": "forever"}, {"finetune.dropout", "finetune.lora_rank"}),
        ({"finetune.freeze": "none constant"}, {"finetune.warmup_epochs", "finetune.decay_epochs"}),
        ({"body.pretrain_fraction": 0}, {"body.pretrain_steps", "body.allow_pickle"}),
    ],
)
def test_a_config_alone_says_what_is_idle(settings, idle):
    known = set(find_idle(read_facts({**WHOLE, **settings})))
    assert idle <= known
    always = set(find_idle(read_facts(WHOLE)))
    assert known - always <= idle | {"finetune.freeze_epochs"}


@pytest.mark.parametrize("naive", [{"proxy": "none"}, {"embedder.objective": "none"}, {"embedder.epochs": 0}])
def test_any_of_three_fields_turns_embedder_training_off(naive):
    idle = find_idle(read_facts({**WHOLE, **naive}))
    assert embedder_training_fields() <= idle.keys()
    assert {path: idle[path].idle for path in naive_settings()} == naive_settings()
    assert naive_settings() == {"proxy": "none", "embedder.objective": "none", "embedder.epochs": 0}
    untrained = {"embedder.init", "embedder.channel_copy", "embedder.target_length"}
    assert embedder_training_fields() == {p for p in knobs() if p.startswith("embedder.")} - untrained | {"proxy"}


def test_the_fields_that_a_level_sets():
    assert fields_of_level("finetune.freeze") == (
        "finetune.freeze", "finetune.freeze_epochs", "finetune.warmup_epochs", "finetune.decay_epochs",
    )  # fmt: skip
    assert fields_of_level("embedder.lr_decay") == ("embedder.lr_decay", "embedder.lr_decay_after")
    assert fields_of_level("seed") == ("seed",)


def test_idle_values_are_valid():
    for path, its_rules in rules().items():
        for rule in its_rules:
            if rule.idle is not DEFAULT and isinstance(rule.idle, str | int | None):
                assert knobs()[path].read(rule.idle) == rule.idle


def test_facts_of_a_config_are_those_of_its_flat_form():
    config = TrialConfig.from_flat({**WHOLE, "proxy": "none", "embedder.epochs": 0})
    facts = read_facts(config.flat(), task_kind="classification")
    assert facts.trains_embedder is False and facts.task_kind == "classification" and facts.body_dims is None
