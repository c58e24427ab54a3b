"""Recipes beside the released settings of the same tasks: equal, but for what DELIBERATE lists with its reason."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from orca_sweep.bodies import find_body
from orca_sweep.bodies.spec import BodySpec
from orca_sweep.config.number_lists import betas_as_text, parse_numbers
from orca_sweep.errors import InputError
from orca_sweep.tasks import TASKS
from orca_sweep.tasks.recipes import Released, adapt_to_mean_loss, make_recipe
from orca_sweep.trial import make_config
from orca_sweep.trial.layout import choose_layout, token_stride

REPO = Path(__file__).resolve().parents[2]
with (REPO / "tests/vectors/reference/recipes.csv").open(encoding="utf-8") as file:
    ROWS = {row["task"]: row for row in csv.DictReader(file)}
TEXT = [task for task, row in ROWS.items() if row["body"] == "roberta-base"]
SAID_TWICE = {"clip_as_released", "target_length_as_released"}
"""Columns that hold the settings file's own words for what another column says."""
NOT_OURS = {"task", "benchmark", "uses_betas", "uses_momentum"}
"""The row's name, and what follows from its optimizer."""
DELIBERATE = {
    (
        "*",
        "schedule",
    ): "counted in optimizer steps, so that it does not depend on how a step is divided into batches; the"
    " first step is above zero, since one at zero changes nothing; after its end it is zero, never negative",
    (
        "*",
        "evaluation_batch",
    ): "metrics are computed on whole splits, so that the batch changes nothing but time and memory",
    ("*", "validation_split"): "epochs are chosen on validation samples; the released runs choose and report on test",
    **{
        (
            task,
            "proxy",
        ): "the released proxy is a file of features made beforehand; ours embeds the words of CoNLL-2003 itself"
        for task in TEXT
    },
    ("burgers", "input_shape"): "the data are 1024 points long; 256 is what the released code declares",
    ("burgers", "target_length_in_force"): "the released code finds the stride, 2, from the declared 256 points and 128"
    " tokens; from the real 1024 points the same stride and the same 512 tokens take 512",
}
"""(task, or * for every one; column) -> why it differs. A difference that is not listed fails, and so does the reverse."""


def released(row):
    """A released row with what follows from it: how many tokens the task's real data become."""
    length = int(row["output"].split("x")[-1]) if row["task"] == "burgers" else int(row["input_shape"].split("x")[-1])
    tokens = "all patches"
    if row["body"] == "roberta-base":
        declared = int(row["input_shape"].split("x")[-1])
        tokens = str(length // token_stride(declared, int(row["target_length_in_force"])))
    return {column: value for column, value in row.items() if column not in SAID_TWICE | NOT_OURS} | {"tokens": tokens}


def output_of(task):
    if task.is_dense:
        return "field " + "x".join(map(str, task.output_shape))
    (n,) = task.output_shape
    return f"{n} classes" if task.kind == "classification" else f"{n} labels (multi-label)"


def tokens_of(task, config):
    if find_body(config.body.name).dims == 2:
        return "all patches"
    cut = choose_layout(task, BodySpec(architecture="roberta", width_in=768, width_out=768, max_tokens=512), config)
    return str(cut.size // cut.patch)


BODY_WORDS = {
    "microsoft/swin-base-patch4-window7-224-in22k": "swin-base (patch 4, window 7, 224 pixels, ImageNet-22k)",
    "FacebookAI/roberta-base": "roberta-base",
}


def as_released(name):
    """Our recipe in the released settings' words, as if its loss were the sum over accumulated batches."""
    task, config = TASKS.get(name), make_config({"task": name})
    tuning, training, written = config.finetune, config.embedder, task.recipe
    kind = tuning.optimizer
    n = tuning.accumulation
    first, second = parse_numbers(written["finetune.betas"])
    is_image = find_body(config.body.name).dims == 2
    assert config.body.pretrain_fraction == 1
    for path in ("optimizer", "betas", "momentum"):
        assert written[f"embedder.{path}"] == written[f"finetune.{path}"]
    assert training.weight_decay == float(ROWS[name]["weight_decay"])
    return {
        "body": BODY_WORDS[find_body(config.body.name).location],
        "proxy": {"cifar10": "CIFAR-10 images"}.get(config.proxy, config.proxy),
        "input_shape": "x".join(map(str, task.sample_shape)),
        "output": output_of(task),
        "pseudo_labels_for_alignment": "no" if task.kind == "classification" else "yes",
        "distance": {"otdd-exact": "OTDD exact"}[training.objective],
        "batch": tuning.batch_size,
        "accumulation": n,
        "optimizer": {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[kind],
        "lr": tuning.lr / n if kind == "sgd" else tuning.lr,
        "weight_decay": tuning.weight_decay if kind == "adamw" else tuning.weight_decay * n,
        "beta1": first,
        "beta2": second,
        "momentum": written["finetune.momentum"],
        "dropout": tuning.dropout,
        "schedule": "linear warm-up then linear decay, counted in steps, never at or below zero before its end",
        "warmup_epochs": tuning.warmup_epochs,
        "decay_epochs": tuning.decay_epochs,
        "clip": "none" if tuning.grad_clip is None else tuning.grad_clip * n,
        "epochs": tuning.epochs,
        "embedder_epochs": training.epochs,
        "predictor_only_epochs": {"none": 0}[tuning.freeze],
        "weights_trained": {"none": "all"}[tuning.freeze],
        "max_samples": training.max_samples_per_class,
        "target_length_in_force": "not used (2D)" if is_image else training.target_length,
        "stage2_schedule": "steps",
        "stage2_drops_after_epochs": training.lr_decay_after.replace(",", ""),
        "stage2_factor": training.lr_decay,
        "stage2_lr_derived": training.lr,
        "evaluation_batch": tuning.eval_batch_size,
        "seed": config.seed,
        "validation_split": "yes",
        "tokens": tokens_of(task, config),
    }


def equal(ours, theirs):
    try:
        return float(ours) == pytest.approx(float(theirs), rel=1e-12, abs=0)
    except ValueError:
        return ours == theirs


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_is_the_released_one_but_for_the_listed_differences(name):
    ours, theirs = as_released(name), released(ROWS[name])
    assert ours.keys() == theirs.keys()  # every column is looked at
    differing = {column for column in theirs if not equal(ours[column], theirs[column])}
    assert differing == {column for task, column in DELIBERATE if task in ("*", name)}


def test_every_listed_difference_names_a_released_task_and_has_a_reason():
    assert {task for task, _ in DELIBERATE} <= {"*", *ROWS}
    assert all(len(reason) > 20 for reason in DELIBERATE.values())


@pytest.mark.parametrize("name", ROWS)
def test_what_the_optimizer_uses_reaches_the_trial(name):
    row, config = ROWS[name], make_config({"task": name})
    for part in (config.embedder, config.finetune):
        if row["uses_betas"] == "yes":
            assert parse_numbers(part.betas) == (float(row["beta1"]), float(row["beta2"]))
            assert part.momentum == 0.9  # not used: its default
        else:
            assert part.momentum == float(row["momentum"])
            assert part.betas == "0.9, 0.999"


@pytest.mark.parametrize(
    ("name", "lr", "weight_decay", "embedder_lr"),
    [
        ("cifar100", "0.0032", "3.125e-05", "0.001"),  # sgd, 32 batches a step
        ("ecg", "1.6e-05", "0.00625", "1e-05"),  # sgd, 16
        ("psicov", "5e-06", "3.125e-07", "5e-05"),  # adam, 32
        ("spherical", "0.0001", "0.1", "0.001"),  # adamw, 4
        ("satellite", "3e-05", "3e-06", "0.0003"),  # adamw, 4
    ],
)
def test_rates_under_accumulation_as_they_print(name, lr, weight_decay, embedder_lr):
    config = make_config({"task": name})
    assert (repr(config.finetune.lr), repr(config.finetune.weight_decay)) == (lr, weight_decay)
    assert repr(config.embedder.lr) == embedder_lr


@pytest.mark.parametrize("name", TASKS.names())
def test_numbers_of_every_recipe_are_as_people_write_them(name):
    numbers = [value for value in TASKS.get(name).recipe.values() if isinstance(value, float)]
    assert all(len(repr(number)) <= len("3.125e-07") for number in numbers), numbers


def test_a_clip_is_divided_like_the_gradient_it_limits():
    """No released recipe has both; one of a user's own may."""
    made = Released(
        body="swin-base", epochs=1, batch=1, accumulation=3, optimizer="sgd", lr=0.1, weight_decay=0.1, momentum=0,
        decay=9, clip=1.0,
    )  # fmt: skip
    assert make_recipe(made)["finetune.grad_clip"] == 0.333333333333
    assert adapt_to_mean_loss("sgd", 0.1, 0.1, 3) == (0.3, 0.0333333333333)
    assert [row for row in ROWS.values() if row["clip"] != "none" and row["accumulation"] != "1"] == []


def test_burgers_has_tokens_of_two_points():
    config = make_config({"task": "burgers"})
    spec = BodySpec(architecture="roberta", width_in=768, width_out=768, max_tokens=512)
    cut = choose_layout(TASKS.get("burgers"), spec, config)
    assert (cut.size, cut.patch) == (1024, 2)


def test_relatives_of_released_tasks_share_their_settings():
    both, one = (dict(TASKS.get(f"2d-diffusion-reaction{end}").recipe) for end in ("-both", ""))
    assert both == one
    hundred = dict(TASKS.get("cifar100").recipe)
    for name in ("cifar10", "cifar10-permuted"):
        assert dict(TASKS.get(name).recipe) == {**hundred, "proxy": "tiny-imagenet"}


def test_tables_of_openml_take_the_dropout_and_betas_that_most_of_the_released_ones_have():
    for name in ("openml:31", "openml-orca:31"):
        tuning = make_config({"task": name}).finetune
        assert (tuning.dropout, tuning.betas) == (0.05, "0.9, 0.98")


@pytest.mark.parametrize("path", sorted((REPO / "search_spaces" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_spaces_of_the_study_run_in_single_precision_and_say_so(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["base"]["finetune.precision"] == "float32"
    assert re.search(r"^# Numbers: +float32 in all stages, as in the released code$", text, re.M)


def test_a_space_that_chooses_another_optimizer_finds_the_released_momentum_and_betas():
    other = make_config({"task": "ecg", "finetune.optimizer": "adam", "embedder.optimizer": "adam"})
    assert (other.finetune.betas, other.embedder.betas) == ("0.9, 0.98", "0.9, 0.98")
    other = make_config({"task": "spherical", "finetune.optimizer": "sgd"})
    assert (other.finetune.momentum, other.embedder.momentum) == (0.999, 0.9)


def test_betas_of_a_record_are_checked_like_those_of_a_space():
    assert betas_as_text((0.9, 0.98)) == "0.9, 0.98"
    with pytest.raises(
        InputError, match=r"finetune.betas = '0.9': betas must be a pair of numbers such as \[0.9, 0.98\]"
    ):
        make_config({"task": "digits", "finetune.betas": "0.9"})
