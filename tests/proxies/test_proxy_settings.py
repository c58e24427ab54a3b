"""The knobs of what the body sees of a proxy: what they do, where they cannot act, and what a row tells of them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from orca_sweep.bodies import find_body
from orca_sweep.bodies.preprocessing import read_body_scaling
from orca_sweep.config.declaration import Declaration
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import PROXIES, Noise, Proxy, Tagged, choose_proxy_scaling, draw_samples, find_proxy
from orca_sweep.proxies.declared import _tag_sentences
from orca_sweep.proxies.phrases import find_phrases, split_tag
from orca_sweep.tasks import TASKS
from orca_sweep.trial import make_config, resolve_configs, shared_stages
from tests.builders.bodies import saved_roberta, saved_swin

HERE = Declaration(path="here", input="x", label="y")

IMAGENET = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def images_of(x):
    return Proxy(
        name="mine", kind="image", n_classes=2, load=lambda root: None, meaning="", source="", licence=""
    ), np.asarray(x, dtype=np.float32)


# Scaling ------------------------------------------------------------------------------------------


def test_a_proxy_is_scaled_by_all_of_its_pixels():
    x = np.random.default_rng(0).random((600, 2, 5, 7), dtype=np.float32)  # more than a block
    x[:, 1] = 0.3
    scaling = choose_proxy_scaling(*images_of(x))
    assert scaling.mean == pytest.approx([x[:, 0].mean(dtype=float), 0.3], abs=1e-7)
    assert scaling.std == (pytest.approx(x[:, 0].std(dtype=float), abs=1e-12), 1)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((3, 2, 4, 4), 0.1), "proxy 'mine': every channel is constant"),
        (np.where(np.arange(48).reshape(3, 1, 4, 4) == 5, np.nan, 0.5), "proxy 'mine': its images hold NaN"),
    ],
)
def test_images_without_a_scale_are_said(x, words):
    with pytest.raises(DataError, match=words):
        choose_proxy_scaling(*images_of(x))


@pytest.mark.parametrize(
    "numbers",
    [
        {"channel_mean": (0.5,)},
        {"channel_mean": (0.5,), "channel_std": (0.0,)},
        {"channel_mean": (0.5,), "channel_std": (float("nan"),)},
    ],
)
def test_half_a_record_is_said(numbers):
    proxy, x = images_of(np.zeros((2, 1, 4, 4)))
    with pytest.raises(InputError, match="Give both, with channel_std above 0, or neither"):
        choose_proxy_scaling(dataclasses.replace(proxy, **numbers), x)


def test_without_a_network_a_hub_body_s_scaling_says_so():
    with pytest.raises(
        InputError, match="preprocessor_config.json of microsoft/swin-.* cannot be fetched: .*proxy_scaling to proxy or"
    ):
        read_body_scaling(find_body("swin-tiny"))


def test_noise_is_scaled_by_its_distribution():
    scaling = choose_proxy_scaling(PROXIES.get("dummy"), Noise(n=9, n_tokens=2, image_shape=(3, 8, 8)))
    assert (scaling.mean, scaling.std) == ((0.5,) * 3, (1 / 12**0.5,) * 3)


def test_shuffling_keeps_published_numbers():
    assert find_proxy("shuffled:cifar100").channel_mean == (0.5071, 0.4867, 0.4408)


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        (IMAGENET, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({**IMAGENET, "do_rescale": True, "rescale_factor": 1 / 255}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 2 / 255}, (0.25,), (0.125,)),
        ({**IMAGENET, "do_normalize": False}, None, None),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, (0,), (0.5,)),
        ({"image_mean": [127.5], "image_std": [127.5], "do_rescale": False}, (0.5,), (0.5,)),
    ],
)
def test_a_body_s_own_scaling_is_read_from_its_file(settings, mean, std, tmp_path):
    folder = saved_swin(tmp_path / "body")
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    scaling = read_body_scaling(find_body(str(folder)))
    if mean is None:
        assert scaling is None
    else:
        assert (scaling.mean, scaling.std) == (pytest.approx(mean), pytest.approx(std))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "embedder.proxy_scaling = 'body': .* has no preprocessor_config.json. Save it beside the weights"),
        ("{", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("{}", "has image_mean None. It must be a number, or a list of one per channel"),
        ('{"image_mean": ["x"], "image_std": [1]}', r"has image_mean \['x'\]"),
        ('{"image_mean": [1, 2], "image_std": [1]}', "2 numbers in image_mean, but 1 in image_std"),
        ('{"image_mean": [0.5], "image_std": [0]}', "Both must be above 0"),
        ('{"image_mean": [0.5], "image_std": [1e-320]}', "Both must be above 0"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"image_mean": [' + "9" * 5000 + "]}", "is not a JSON object"),
        ('{"image_mean": [' + "9" * 400 + '], "image_std": [1]}', r"has image_mean \[9{56}\.\.\."),
        ('{"image_mean": [NaN], "image_std": [1]}', r"has image_mean \[nan\]. It must be a number"),
        ('{"image_mean": [0], "image_std": [1, NaN]}', r"has image_std \[1, nan\]. It must be a number"),
        (
            '{"image_mean": [0], "image_std": [1], "rescale_factor": Infinity}',
            "has rescale_factor inf. It must be a number",
        ),
        (
            '{"image_mean": [0], "image_std": [1], "rescale_factor": [1, 2]}',
            "2 numbers in rescale_factor. Give one",
        ),
        (
            '{"image_mean": [0], "image_std": [1], "do_rescale": "false"}',
            "has do_rescale 'false'. It must be true or false",
        ),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
    ],
)
def test_a_body_that_does_not_tell_its_scaling_is_said_when_a_space_is_planned(text, words, tmp_path, user_tasks):
    folder = saved_swin(tmp_path / "body")
    if text is not None:
        (folder / "preprocessor_config.json").write_text(text)
    settings = {"task": "tiny", "proxy": "mnist5k", "body.name": str(folder), "embedder.proxy_scaling": "body"}
    settings["body.pretrain_fraction"] = 1
    with pytest.raises(InputError, match=words):
        make_config(settings)
    assert make_config({**settings, "proxy": "none"}).embedder.proxy_scaling == "proxy"


def test_rows_tell_the_numbers_used(run, tmp_path):
    folder = saved_swin(tmp_path / "body")
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    common = {"task": "tiny", "proxy": "mnist5k", "body__name": str(folder), "embedder__epochs": 1}
    rows = {}
    for scaling in ("proxy", "body", "none"):
        rows[scaling], _ = run(**common, embedder__proxy_scaling=scaling)
    rows["augmented"], _ = run(**common, embedder__proxy_augment=True)
    assert {row["status"] for row in rows.values()} == {"ok"}
    digits = PROXIES.get("mnist5k").load(Path()).inputs
    assert json.loads(rows["proxy"]["proxy_mean"]) == pytest.approx([digits.mean(dtype=float)])
    assert json.loads(rows["proxy"]["proxy_std"]) == pytest.approx([digits.std(dtype=float)])
    assert json.loads(rows["body"]["proxy_mean"]) == IMAGENET["image_mean"]
    assert json.loads(rows["body"]["proxy_std"]) == IMAGENET["image_std"]
    assert "proxy_mean" not in rows["none"] or rows["none"]["proxy_mean"] is None
    assert len({row["objective_first"] for row in rows.values()}) == 4
    assert {row["n_proxy"] for row in rows.values()} == {40}
    assert not any("proxy-features" in row["reused"] for row in rows.values())


def test_a_scaling_of_other_channels_is_said(run, tmp_path):
    folder = saved_swin(tmp_path / "body")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}')
    row, _ = run(task="tiny", proxy="mnist5k", body__name=str(folder), embedder__proxy_scaling="body")
    assert row["status"] == "failed"
    assert "images of 3 channels cannot be scaled by the body's 2 means and 2 standard deviations" in row["error"]


@pytest.mark.parametrize("settings", [{"embedder__proxy_augment": True}, {"embedder__proxy_scaling": "none"}])
def test_a_placebo_is_treated_as_what_it_stands_for(run, settings):
    rows = [run(task="tiny", proxy="dummy", **more)[0] for more in ({}, settings)]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert rows[0]["objective_first"] != rows[1]["objective_first"]


# Phrases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "phrases"),
    [
        ("O B-PER I-PER O O", [(0, 1), (1, 3), (3, 4), (4, 5)]),
        ("B-PER B-PER I-PER", [(0, 1), (1, 3)]),
        ("I-LOC I-LOC O I-LOC", [(0, 2), (2, 3), (3, 4)]),  # IOB1
        ("I-LOC B-LOC I-LOC", [(0, 1), (1, 3)]),  # IOB1: B- where two meet
        ("B-PER I-LOC I-LOC", [(0, 1), (1, 3)]),
        ("B-PER I-PER E-PER S-PER S-PER E-PER", [(0, 3), (3, 4), (4, 5), (5, 6)]),  # BIOES
        ("B-X L-X U-X", [(0, 2), (2, 3)]),  # BILOU
        ("NN E-NN E-NN I", [(0, 1), (1, 2), (2, 3), (3, 4)]),  # no B-: E- is no mark
        ("", []),
    ],
)
def test_phrases_are_the_longest_runs_that_tags_mark_as_one(tags, phrases):
    names = tags.split()
    has_begins = any(name.startswith("B-") for name in names)
    assert find_phrases([split_tag(name, has_begins) for name in names]) == phrases


NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
CHUNKS = ("O", *(f"{m}-{k}" for k in "ADJP ADVP CONJP INTJ LST NP PP PRT SBAR UCP VP".split() for m in "BI"))


@pytest.mark.parametrize(("names", "proxy"), [(NER, "conll2003-ner"), (CHUNKS, "conll2000-chunking")])
def test_classes_are_kinds_of_phrases_or_tags(names, proxy):
    n = len(names)
    data = _tag_sentences([["w"] * n] * 2, [list(range(n))] * 2, names, HERE)
    phrases, tokens = draw_samples(data, "mean"), draw_samples(data, "token")
    assert len(np.unique(phrases.labels)) == PROXIES.get(proxy).n_classes == (n + 1) // 2
    assert len(np.unique(tokens.labels)) == n
    assert phrases.labels.tolist() == [*range((n + 1) // 2)] * 2  # in the order of the names
    assert draw_samples(phrases, "token") is phrases


def test_long_sentences_and_many_phrases_are_cut():
    words = [["w"] * 70, ["a", "b"] * 10]
    tags = [["O"] * 62 + ["B-X"] + ["I-X"] * 7, ["B-X", "I-X"] * 10]
    data = draw_samples(_tag_sentences(words, tags, (), HERE), "mean")
    assert np.bincount(data.labels).tolist() == [62, 10] or np.bincount(data.labels).tolist() == [10, 62]
    assert data.inputs.bounds[:, 2].max() == 62
    with pytest.raises(DataError, match="no phrase lies within the first 64 words"):
        draw_samples(_tag_sentences([["w"] * 70], [["B-X"] + ["I-X"] * 69], (), HERE), "mean")


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_shuffling_permutes_labels_of_the_same_samples(pooling, tmp_path):
    lines = "".join(f"w{i} {('B-X', 'I-X', 'O')[i % 3]}\n" + ("\n" if i % 50 == 49 else "") for i in range(600))
    (tmp_path / "t.conll").write_text(lines)
    name = f"{tmp_path}/t.conll[]:0->1"
    plain, once, twice = (
        draw_samples(find_proxy(prefix + name).load(Path()), pooling) for prefix in ("", "shuffled:", "shuffled:" * 2)
    )
    for placebo in (once, twice):
        assert placebo.inputs.sentences == plain.inputs.sentences
        np.testing.assert_array_equal(placebo.inputs.bounds, plain.inputs.bounds)
        assert np.bincount(placebo.labels).tolist() == np.bincount(plain.labels).tolist()
        assert (placebo.labels != plain.labels).mean() > 0.2
    other = draw_samples(find_proxy(name).load(Path()), {"mean": "token", "token": "mean"}[pooling])
    assert len({data.fingerprint for data in (plain, once, twice, other)}) == 4
    assert isinstance(find_proxy(name).load(Path()).inputs, Tagged)


def test_both_poolings_run(run, tmp_path):
    folder = saved_roberta(tmp_path / "body")
    lines = "".join(f"attributes{i} {('B-X', 'I-X', 'O')[i % 3]}\n" + ("\n" if i % 6 == 5 else "") for i in range(90))
    (tmp_path / "t.conll").write_text(lines)
    common = {
        "task": "watch-exercises", "data__n_train": 21, "proxy": f"{tmp_path}/t.conll[]:0->1", "finetune__epochs": 1,
        "body__name": str(folder), "embedder__epochs": 1, "embedder__target_length": 16,
    }  # fmt: skip
    rows = [run(**common, embedder__proxy_pooling=pooling)[0] for pooling in ("mean", "token")]
    assert [(row["status"], row["error"]) for row in rows] == [("ok", None)] * 2
    assert [row["n_proxy"] for row in rows] == [60, 90]
    assert rows[0]["proxy_sha256"] != rows[1]["proxy_sha256"]
    assert rows[0]["objective_first"] != rows[1]["objective_first"]


# Where a knob cannot act --------------------------------------------------------------------------

OTHER = {"embedder.proxy_scaling": "none", "embedder.proxy_augment": True, "embedder.proxy_pooling": "token"}


@pytest.mark.parametrize(
    ("task", "body", "proxy", "kept"),
    [
        ("digits", "swin-micro", "none", ""),
        ("digits", "swin-micro", "mnist5k", "scaling augment"),
        ("digits", "swin-tiny", "shuffled:cifar10", "scaling augment"),
        ("digits", "swin-micro", "dummy", "scaling augment"),
        ("digits", "swin-micro", "./x.npz[]:x->y", ""),
        ("digits", "swin-micro", "./x[]:image->label", "scaling augment"),
        ("watch-exercises", "roberta-micro", "dummy", ""),
        ("watch-exercises", "roberta-micro", "pydoc-topics", ""),
        ("watch-exercises", "roberta-base", "orca-text", ""),
        ("watch-exercises", "roberta-base", "agnews", ""),
        ("watch-exercises", "roberta-base", "conll2003-ner", "pooling"),
        ("watch-exercises", "roberta-base", "shuffled:conll2000-chunking", "pooling"),
        ("watch-exercises", "roberta-base", "./x.conll[]:0->1", "pooling"),
        ("watch-exercises", "roberta-base", "./x.parquet[]:a->b", "pooling"),
        ("watch-exercises", "some/body", "./x.parquet[]:a->b", "scaling augment pooling"),
    ],
)
def test_knobs_keep_their_levels_where_they_act_and_nowhere_else(task, body, proxy, kept):
    settings = {"task": task, "body.name": body, "proxy": proxy}
    plain = make_config(settings)
    for path, value in OTHER.items():
        changed = make_config({**settings, path: value})
        acts = path.removeprefix("embedder.proxy_") in kept.split()
        assert (changed.trial_id != plain.trial_id) == acts
        assert changed.flat()[path] == (value if acts else plain.flat()[path])
        if acts:
            before, after = map(shared_stages, resolve_configs((plain, changed)))
            assert not {before[s] for s in ("proxy-features", "objective", "embedder")} & set(after.values())


def test_the_scaling_of_our_own_bodies_is_none():
    ids = {
        make_config({"task": "digits", "proxy": "mnist5k", "embedder.proxy_scaling": value}).trial_id
        for value in ("body", "none")
    }
    assert len(ids) == 1


def test_released_tasks_of_images_augment_their_proxy():
    for task in map(TASKS.get, TASKS.names()):
        is_released_swin = str(task.recipe.get("body.name")).startswith("swin-base")
        assert make_config({"task": task.name}).embedder.proxy_augment == is_released_swin, task.name
