"""Bodies, embedders and predictors: shapes, initialisation, real file formats."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from orca_sweep.bodies import BODIES, find_body
from orca_sweep.bodies.inputs import compute_input_features
from orca_sweep.bodies.network import LoadedBody, build_base_model, build_random_model, load_config, load_pretrained
from orca_sweep.errors import InputError
from orca_sweep.tasks import TASKS, load_task_data
from orca_sweep.training.model import Embedder1D, Embedder2D, build_model
from orca_sweep.training.predictors import LinearPredictor1D
from orca_sweep.training.pretrain import pretrain_body
from orca_sweep.trial import make_config
from orca_sweep.trial.layout import choose_layout, token_stride
from tests.builders.bodies import saved_roberta, saved_swin

quiet = lambda row: None  # noqa: E731


@pytest.mark.parametrize(
    ("length", "target", "stride"),
    # As ORCA tokenises them: Satellite, ECG, DeepSEA, Advection, 1D-CFD, diffusion-reaction, diffusion-sorption.
    [
        (46, 512, 1),
        (1000, 64, 20),
        (1000, 512, 2),
        (256, 512, 1),
        (3072, 128, 24),
        (1024, 256, 4),
        (1024, 32, 32),
        (7, 1, 7),
    ],
)
def test_token_stride_is_the_smallest_divisor_that_fits(length, target, stride):
    assert token_stride(length, target) == stride


def test_every_registered_body_says_what_it_is():
    for name in BODIES.names():
        body = find_body(name)
        assert body.dims in (1, 2)
        assert body.source
        assert body.licence


def test_a_saved_hub_folder_is_a_body(tmp_path):
    folder = saved_swin(tmp_path / "swin")
    body = find_body(str(folder))
    loaded = load_pretrained(body)
    assert (loaded.spec.dims, loaded.spec.width_in, loaded.spec.width_out, loaded.spec.out_grid) == (2, 24, 48, 4)
    tokens = torch.randn(2, 64, 24)
    network = loaded.build_network().eval()
    assert network(tokens).shape == (2, 16, 48)
    # Fed with the body's own embeddings, it equals the body.
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        own = loaded.model(images).last_hidden_state
        torch.testing.assert_close(network(loaded.model.embeddings(images)[0]), own)


def test_a_saved_text_folder_is_a_body_of_any_width(tmp_path):
    loaded = load_pretrained(find_body(str(saved_roberta(tmp_path / "r"))))
    assert (loaded.spec.width_in, loaded.spec.max_tokens) == (48, 64)
    ids = torch.tensor([[0, 5, 6, 2]])
    with torch.no_grad():
        own = loaded.model(ids).last_hidden_state
        torch.testing.assert_close(loaded.build_network().eval()(loaded.model.embeddings(ids)), own)
    features = compute_input_features(loaded, ("the type", "a a a of the type is"), "cpu")
    assert features.shape == (2, 48)
    alone = compute_input_features(loaded, ("the type",), "cpu")
    # The mean excludes the shorter text's padding.
    torch.testing.assert_close(features[:1], alone)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: f.mkdir(), "this is not a body folder. It must be"),
        (lambda f: f.write_text("x"), "this is not a body folder"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{")), "not a JSON object"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("[]")), "not a JSON object"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text('{"model_type": "t5"}')), "family 't5' is not supported"),
        (
            lambda f: (
                f.mkdir(),
                (f / "config.json").write_text('{"model_type": "swin"}'),
                (f / "model.h5").touch(),
            ),
            "no model.safetensors",
        ),
    ],
)
def test_a_folder_that_is_no_body_is_refused(tmp_path, make, words):
    make(tmp_path / "body")
    with pytest.raises(InputError, match=words):
        find_body(str(tmp_path / "body"))


def test_hub_ids_are_taken_as_they_are():
    assert find_body("nyu-mll/roberta-base-1B-1").location == "nyu-mll/roberta-base-1B-1"


def test_a_random_body_is_seeded_and_is_where_pretraining_starts(worker):
    body = find_body("swin-micro")
    a, b, c = (LoadedBody(model=build_random_model(body, seed)).hash_weights() for seed in (0, 0, 1))
    assert a == b != c
    zero, _, _ = pretrain_body(body, make_config({"task": "digits", "body.pretrain_fraction": 0}).body, worker, quiet)
    assert zero.hash_weights() == a


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_mean_patch_weights_answer_like_the_body_for_any_number_of_channels(tmp_path, channels):
    body = load_pretrained(find_body(str(saved_swin(tmp_path / "s"))))
    embedder = Embedder2D(channels, body.spec.image_size, body.spec.width_in, body.spec.patch_size)
    embedder.copy_from(body, "mean")
    grey = torch.randn(2, 1, 32, 32)
    own = body.model.embeddings(grey.expand(-1, 3, -1, -1))[0]
    torch.testing.assert_close(embedder(grey.expand(-1, channels, -1, -1)), own, atol=1e-5, rtol=1e-4)


def test_copied_1d_embedder_takes_layernorm_and_positions(tmp_path):
    body = load_pretrained(find_body(str(saved_roberta(tmp_path / "r"))))
    nn.init.normal_(body.model.embeddings.LayerNorm.weight)
    embedder = Embedder1D(2, 30, 48, 3)
    before = embedder.projection.weight.clone()
    embedder.copy_from(body)
    # RoBERTa's first two positions belong to padding.
    torch.testing.assert_close(embedder.positions, body.model.embeddings.position_embeddings.weight[2:12])
    torch.testing.assert_close(embedder.norm.weight, body.model.embeddings.LayerNorm.weight)
    assert torch.equal(before, embedder.projection.weight)
    assert embedder(torch.randn(4, 2, 30)).shape == (4, 10, 48)


def test_dense_1d_predictor_puts_each_token_s_stretch_in_its_place():
    predictor = LinearPredictor1D(4, (2, 6), 3)
    nn.init.zeros_(predictor.linear.weight)
    with torch.no_grad():
        predictor.linear.weight[:, 0] = torch.arange(6.0)
        predictor.linear.bias.zero_()
    hidden = torch.zeros(1, 2, 4)
    hidden[0, 1, 0] = 1
    expected = torch.tensor([[[0, 0, 0, 0, 1, 2], [0, 0, 0, 3, 4, 5]]])
    torch.testing.assert_close(predictor(hidden), expected.float())


@pytest.mark.parametrize("task", ["digits", "darcy-generated"])
@pytest.mark.parametrize("init", ["copied", "random"])
def test_models_have_the_task_s_shapes_and_paired_initialisation(task, init, tmp_path):
    config = make_config({"task": task, "embedder.init": init, "body.pretrain_fraction": 0})
    data = load_task_data(TASKS.get(task), tmp_path, 0, 20)
    body = LoadedBody(model=build_random_model(find_body("swin-micro"), 0))
    model = build_model(data, body, config)
    assert model(torch.from_numpy(data.train.x[:3])).shape == (3, *data.task.output_shape)
    other = config.model_copy(update={"embedder": config.embedder.model_copy(update={"init": "random", "epochs": 3})})
    again = build_model(data, body, other)
    for a, b in zip(model.predictor.parameters(), again.predictor.parameters(), strict=True):
        assert torch.equal(a, b)
    reseeded = build_model(data, body, config.model_copy(update={"seed": 9}))
    assert not torch.equal(next(model.predictor.parameters()), next(reseeded.predictor.parameters()))
    # A copied embedder is the body's, whatever the seed; a random one depends on the seed.
    assert torch.equal(model.embedder.projection.weight, reseeded.embedder.projection.weight) == (init == "copied")


def test_training_one_model_leaves_the_body_as_it_was():
    body = LoadedBody(model=build_random_model(find_body("swin-micro"), 0))
    before = body.hash_weights()
    network = body.build_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert body.hash_weights() == before


def test_predictions_of_dense_tasks_come_in_physical_units(tmp_path):
    data = load_task_data(TASKS.get("darcy-generated"), tmp_path, 0, 20)
    config = make_config({"task": "darcy-generated", "body.pretrain_fraction": 0})
    model = build_model(data, LoadedBody(model=build_random_model(find_body("swin-micro"), 0)), config)
    with torch.no_grad():
        model.predictor.linear.weight.zero_()
        model.predictor.linear.bias.zero_()
    prediction = model(torch.from_numpy(data.train.x[:2])).detach().numpy()
    np.testing.assert_allclose(prediction[0], data.target_mean[0], rtol=1e-6)


def test_the_offline_text_body_is_really_pretrained(tmp_path):
    """Its sentence vectors separate sense from nonsense, which those of a random body do not."""
    body = load_pretrained(find_body("minilm"))
    assert (body.spec.width_in, len(body.model.encoder.layer)) == (384, 6)
    texts = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply."]
    coded = body.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = body.model(**coded).last_hidden_state
    mask = coded["attention_mask"][..., None]
    vectors = nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert near > far + 0.3


@pytest.mark.parametrize("name", ["swin-micro", "roberta-micro"])
def test_our_own_pretraining_lowers_the_held_out_score(name, worker):
    task = "digits" if name == "swin-micro" else "watch-exercises"
    proxy = "none"
    scores = []
    for steps in (1, 60):
        config = make_config({"task": task, "proxy": proxy, "body.name": name, "body.pretrain_steps": steps})
        body, seconds, reused = pretrain_body(find_body(name), config.body, worker, quiet)
        scores.append(body.pretrain_metric)
        assert not reused
        assert seconds > 0
    assert scores[1] < scores[0] - 0.15
    again, _, reused = pretrain_body(find_body(name), config.body, worker, quiet)
    assert reused
    assert again.hash_weights() == body.hash_weights()


def test_a_body_without_a_tokenizer_says_so_when_a_text_proxy_needs_it(tmp_path):
    folder = saved_roberta(tmp_path / "r")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    body = load_pretrained(find_body(str(folder)))
    with pytest.raises(InputError, match="no tokenizer"):
        compute_input_features(body, ("a",), "cpu")


def test_config_alone_gives_the_architecture(tmp_path):
    folder = saved_swin(tmp_path / "s")
    config = load_config(find_body(str(folder)))
    assert build_base_model(config).config.embed_dim == json.loads((folder / "config.json").read_text())["embed_dim"]


@pytest.mark.parametrize("shape", ["1d", "1d-wide-patch", "2d-grey", "2d-rest"])
def test_mean_features_are_the_mean_of_the_tokens_and_so_are_their_gradients(shape):
    """Without computing tokens: the same mean and the same gradient for every parameter."""
    torch.manual_seed(0)
    if shape.startswith("1d"):
        embedder, x = Embedder1D(2, 30, 48, 3), torch.randn(5, 2, 30, dtype=torch.float64)
        if shape == "1d-wide-patch":  # more numbers in a patch than features in a token: tokens are computed
            embedder, x = Embedder1D(4, 60, 8, 6), torch.randn(5, 4, 60, dtype=torch.float64)
    else:
        channels = 3 if shape == "2d-rest" else 1
        size = 30 if shape == "2d-rest" else 32
        embedder, x = (
            Embedder2D(channels, size, 24, 4, positions=channels == 1),
            torch.randn(5, channels, 9, 40, dtype=torch.float64),
        )
    embedder = embedder.double()
    for parameter in embedder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    patches = embedder.cut_patches(x)
    weights = torch.randn(5, embedder(x).shape[-1], dtype=torch.float64)
    results = []
    for mean in (embedder(x).mean(dim=1), embedder.mean_features(patches)):
        embedder.zero_grad()
        (mean * weights).sum().backward()
        results.append([mean.detach(), *(p.grad.clone() for p in embedder.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert not patches.requires_grad


# Every family, from a small folder in the hub's format --------------------------------------------

TEXT = ["roberta", "bert", "gpt2", "gpt_neox"]
IMAGE = ["swin", "vit"]


def test_every_family_has_a_small_body_to_test():
    from orca_sweep.bodies import DIMS
    from orca_sweep.bodies.network import ADAPTED
    from tests.builders.bodies import SIZES

    assert set(SIZES) == set(DIMS) == set(ADAPTED) == {*TEXT, *IMAGE}
    assert {BODIES.get(name).architecture for name in BODIES.names()} == set(DIMS)


@pytest.mark.parametrize("family", [*TEXT, *IMAGE])
def test_a_body_is_loaded_fed_with_tokens_and_read_out(family, saved_body):
    body = load_pretrained(find_body(str(saved_body(family))))
    network = body.build_network().eval()
    assert body.spec.architecture == family
    n_tokens = 16 if family == "vit" else (64 if family == "swin" else 20)
    tokens = torch.randn(2, n_tokens, body.spec.width_in)
    out = network(tokens)
    assert out.shape == (2, 16 if family == "swin" else n_tokens, body.spec.width_out)
    words = {id(p) for p in body.get_input_layer().parameters()}
    assert not words & {id(p) for p in network.parameters()}
    embedding = body.get_input_layer().state_dict().keys()
    assert embedding
    assert not any("wte" in name or "embed_in" in name or "word_embeddings" in name for name in network.state_dict())
    network.train()
    network(tokens).square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize("family", [*TEXT, *IMAGE])
def test_the_network_behind_its_own_input_layer_is_the_whole_model(family, saved_body):
    """Ids or pixels through transformers' own forward, compared with input layer and network one after the other."""
    body = load_pretrained(find_body(str(saved_body(family))))
    network, layer = body.build_network().eval(), body.get_input_layer().eval()
    with torch.inference_mode():
        if family in IMAGE:
            images = torch.rand(2, 3, 32, 32)
            whole = body.model(pixel_values=images).last_hidden_state
            tokens = layer(images)
            hidden = network(tokens[0] if isinstance(tokens, tuple) else tokens)
            whole = whole[:, 1:] if family == "vit" else whole
        else:
            ids = torch.randint(5, 300, (2, 9))
            whole = body.model(input_ids=ids).last_hidden_state
            hidden = network(layer(ids))
    torch.testing.assert_close(hidden, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_a_decoder_s_token_does_not_see_those_after_it(family, saved_body):
    network = load_pretrained(find_body(str(saved_body(family)))).build_network().eval()
    tokens = torch.randn(1, 6, 48)
    changed = tokens.clone()
    changed[0, 4] += torch.randn(48)
    with torch.inference_mode():
        a, b = network(tokens)[0], network(changed)[0]
    torch.testing.assert_close(a[:4], b[:4])
    assert (a[4:] - b[4:]).abs().amax() > 1e-3


@pytest.mark.parametrize("family", [*TEXT, *IMAGE])
def test_proxy_features_of_every_family(family, saved_body):
    from orca_sweep.proxies import Noise, Spans

    body = load_pretrained(find_body(str(saved_body(family))))
    inputs = (
        ("the type of a", "attributes") if family in TEXT else np.random.default_rng(0).random((2, 3, 9, 9), "float32")
    )
    features = compute_input_features(body, inputs, "cpu")
    assert features.shape == (2, body.spec.width_in)
    assert compute_input_features(body, Noise(n=3, n_tokens=5, image_shape=(3, 8, 8)), "cpu").shape == (
        3,
        body.spec.width_in,
    )
    if family in TEXT:
        # The mean excludes the shorter text's padding.
        alone = compute_input_features(body, ("attributes",), "cpu")
        torch.testing.assert_close(features[1:], alone)
        for pooling in ("token", "mean"):
            spans = Spans(sentences=(("the", "type"),), bounds=np.array([[0, 0, 1], [0, 1, 2]]), pooling=pooling)
            assert compute_input_features(body, spans, "cpu").shape == (2, 48)


@pytest.mark.parametrize("family", IMAGE)
def test_a_copied_2d_embedder_makes_the_body_s_own_tokens(family, saved_body):
    body = load_pretrained(find_body(str(saved_body(family))))
    spec = body.spec
    embedder = Embedder2D(3, spec.image_size, spec.width_in, spec.patch_size, norm=family == "swin")
    embedder.copy_from(body)
    images = torch.rand(2, 3, 32, 32)
    own = body.get_input_layer()(images)
    torch.testing.assert_close(embedder(images), own[0] if isinstance(own, tuple) else own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedder.mean_features(embedder.cut_patches(images)), embedder(images).mean(dim=1))


@pytest.mark.parametrize("family", TEXT)
def test_a_copied_1d_embedder_takes_what_the_input_layer_has(family, saved_body):
    body = load_pretrained(find_body(str(saved_body(family))))
    embedder = Embedder1D(2, 30, 48, 3)
    embedder.copy_from(body)
    layer = body.get_input_layer()
    if family == "gpt_neox":
        assert not embedder.positions.any()
    else:
        skipped = 2 if family == "roberta" else 0
        assert torch.equal(embedder.positions, layer.position_embeddings.weight[skipped : skipped + 10])
    if family.startswith("gpt"):
        words = layer.word_embeddings.weight
        out = embedder.norm(torch.randn(4000, 48)).detach()
        assert float(out.std()) == pytest.approx(float(words.detach().std()), rel=0.1)


@pytest.mark.parametrize("name", ["digits", "darcy-generated", "watch-exercises"])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "swin", "vit"])
def test_tasks_of_either_dimension_go_to_bodies_of_either_kind(family, name, saved_body):
    config = make_config(
        {"task": name, "body.name": str(saved_body(family)), "body.pretrain_fraction": 1, "proxy": "none"}
    )
    body = load_pretrained(find_body(config.body.name))
    data = load_task_data(TASKS.get(name), None, 0, 20)
    model = build_model(data, body, config).eval()
    x = torch.from_numpy(data.train.x[:3])
    assert model(x).shape == (3, *data.task.output_shape)
    tokens = model.embedder(x)
    assert tokens.shape[1] <= body.spec.max_tokens
    torch.testing.assert_close(
        model.embedder.mean_features(model.embedder.cut_patches(x)), tokens.mean(dim=1), rtol=1e-4, atol=1e-5
    )
    assert (model.embedder.positions is None) == (family in IMAGE)
    if family in TEXT:
        skipped = 2 if family == "roberta" else 0
        own = body.get_input_layer().position_embeddings.weight
        assert torch.equal(model.embedder.positions, own[skipped : skipped + tokens.shape[1]])


def test_a_text_body_cuts_an_image_as_finely_as_it_may():
    task, text = TASKS.get("digits"), LoadedBody(model=build_random_model(find_body("roberta-micro"), 0)).spec
    cut = lambda n: choose_layout(task, text, make_config({**settings, "embedder.target_length": n}))  # noqa: E731
    settings = {"task": "digits", "body.name": "roberta-micro", "proxy": "none"}
    assert (cut(512).size, cut(512).patch) == (8, 1)
    assert (cut(63).size, cut(63).patch) == (8, 2)
    assert (cut(9).size, cut(9).patch) == (9, 3)


@pytest.mark.parametrize("fold", [1, 2])
def test_a_folded_signal_is_unfolded_in_order(fold):
    """Tokens in rows, merged fold by fold, with their stretches as features: an identity gives the signal back."""
    side, channels, stretch = 3, 2, 5
    signal = torch.arange(channels * (side * fold) ** 2 * stretch, dtype=torch.float32).view(1, channels, -1)
    tokens = signal.unflatten(2, (side * fold, side * fold, stretch))  # C, row, column, stretch
    blocks = tokens.unflatten(3, (side, fold)).unflatten(2, (side, fold))  # C, R, f, S, f, stretch
    hidden = blocks.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(1, 2)
    predictor = LinearPredictor1D(hidden.shape[-1], (channels, signal.shape[-1]), stretch, fold)
    with torch.no_grad():
        predictor.linear.weight.copy_(torch.eye(hidden.shape[-1]))
        predictor.linear.bias.zero_()
    torch.testing.assert_close(predictor(hidden), signal)


@pytest.mark.parametrize("family", [*TEXT, *IMAGE])
def test_a_trial_runs_on_every_family(family, saved_body, run):
    task = {"task": "tiny"} if family in ("swin", "bert") else {"task": "watch-exercises", "data.n_train": 21}
    proxy = "mnist5k" if family in IMAGE else "pydoc-topics"
    settings = {
        **task, "body.name": str(saved_body(family)), "proxy": proxy, "embedder.epochs": 2, "embedder.proxy_samples": 60,
        "finetune.epochs": 2, "finetune.freeze": "gradual-unfreeze", "finetune.freeze_epochs": 1,
        "embedder.target_length": 64,
    }  # fmt: skip
    row, epochs = run(**{key.replace(".", "__"): value for key, value in settings.items()}, body__pretrain_fraction=1)
    assert row["status"] == "ok", row["error"]
    random, _ = run(**{key.replace(".", "__"): value for key, value in settings.items()}, body__pretrain_fraction=0)
    assert random["status"] == "ok", random["error"]
    assert random["body_sha256"] != row["body_sha256"]
    counts = [e["n_trainable"] for e in epochs if e["stage"] == "finetune"]
    assert counts[0] < counts[1]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_doubling_and_flipping_let_every_output_see_the_whole_input(family, saved_body):
    body = load_pretrained(find_body(str(saved_body(family))))
    tokens, changed = torch.randn(1, 6, 48), None
    changed = tokens.clone()
    changed[0, 4] += torch.randn(48)
    with torch.inference_mode():
        plain = body.build_network().eval()
        for mode, by_hand in (
            ("double", plain(torch.cat([tokens, tokens], dim=1))[:, 6:]),
            ("flip", (plain(tokens) + plain(tokens.flip(1)).flip(1)) / 2),
        ):
            network = body.build_network(mode).eval()
            out = network(tokens)
            torch.testing.assert_close(out, by_hand)
            assert ((out - network(changed))[0].abs().amax(dim=1) > 1e-5).all()


def test_an_input_mode_is_for_decoders_and_a_doubled_sequence_fits(saved_body):
    with pytest.raises(InputError, match="body.input_mode = 'flip': 'swin-micro' is not a decoder"):
        make_config({"task": "digits", "body.input_mode": "flip"})
    folder = str(saved_body("gpt_neox"))  # 64 tokens at most; 96 samples in a signal
    shapes = {}
    for mode in ("plain", "double"):
        settings = {"task": "watch-exercises", "body.name": folder, "proxy": "none", "embedder.target_length": 64}
        config = make_config({**settings, "body.input_mode": mode})
        body, _, _ = pretrain_body(find_body(config.body.name), config.body, None, quiet)
        data = load_task_data(TASKS.get("watch-exercises"), None, 0, 21)
        model = build_model(data, body, config)
        shapes[mode] = model.embedder.positions.shape[0]
        assert model(torch.from_numpy(data.train.x[:2])).shape == (2, 7)
    assert shapes["double"] <= 32 < shapes["plain"] <= 64


# The ladder of published bodies -------------------------------------------------------------------


def test_a_rung_is_other_weights_of_the_same_body(saved_body, tmp_path, run, monkeypatch):
    """A ladder of folders in the hub's format: each fraction and each of its runs has different weights."""
    import shutil

    from transformers import AutoModel

    from orca_sweep.bodies import Body, Rung

    folders = {name: shutil.copytree(saved_body("vit"), tmp_path / name) for name in ("full", "some-0", "some-1")}
    for n, name in enumerate(folders):
        torch.manual_seed(n)
        AutoModel.from_config(load_config(find_body(str(folders[name])))).save_pretrained(folders[name])
    ladder = {0.1: Rung(locations=(str(folders["some-0"]), str(folders["some-1"])))}
    body = Body(
        name="laddered",
        meaning="test",
        source="here",
        licence="MIT",
        architecture="vit",
        location=str(folders["full"]),
        ladder=ladder,
    )
    monkeypatch.setitem(BODIES._records, "laddered", body)
    assert body.fractions == (0.0, 0.1, 1.0)
    cells = [(0, 0), (0, 1), (0.1, 0), (0.1, 1), (1, 0)]
    rows = [
        run(task="tiny", body__name="laddered", body__pretrain_fraction=f, body__pretrain_seed=s, proxy="none")[0]
        for f, s in cells
    ]
    assert [row["status"] for row in rows] == ["ok"] * 5
    assert len({row["body_sha256"] for row in rows}) == 5
    full = load_pretrained(find_body(str(folders["full"])))
    assert rows[-1]["body_sha256"] == full.hash_weights()
    base = {"task": "tiny", "body.name": "laddered"}
    with pytest.raises(InputError, match="fraction = 0.2: 'laddered' has published weights at 0, 0.1, 1"):
        make_config({**base, "body.pretrain_fraction": 0.2})
    with pytest.raises(InputError, match="body.pretrain_seed = 2: .* has 2 published runs at fraction 0.1. Use 0 to 1"):
        make_config({**base, "body.pretrain_fraction": 0.1, "body.pretrain_seed": 2})
    # The full body has a single set of weights, whatever the seed.
    assert (
        len({make_config({**base, "body.pretrain_seed": s, "body.pretrain_fraction": 1}).trial_id for s in (0, 5)}) == 1
    )


def test_bundled_ladders_name_what_the_papers_published():
    roberta, pythia = BODIES.get("roberta-base"), BODIES.get("pythia-70m")
    assert roberta.fractions == (0.0, 0.00033, 0.0033, 0.033, 1.0)
    assert [len(rung.locations) for rung in roberta.ladder.values()] == [3, 3, 3]
    assert {rung.revision for rung in pythia.ladder.values()} == {"step1000", "step4000", "step16000", "step64000"}
    assert min(pythia.ladder) == pytest.approx(1000 / 143000, abs=1e-4)
    assert BODIES.get("swin-micro").fractions is None
    config = make_config({"task": "satellite", "body.name": "roberta-base", "body.pretrain_fraction": 0.0033})
    assert config.body.pretrain_fraction == 0.0033


def test_a_pickle_is_read_only_if_that_is_asked_for(saved_body, tmp_path):
    from safetensors.torch import load_file

    folder = saved_body("vit")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    base = {"task": "tiny", "body.name": str(folder), "body.pretrain_fraction": 1}
    with pytest.raises(
        InputError, match="has its weights as a pickle only. Save them as safetensors, or set body.allow"
    ):
        make_config(base)
    config = make_config({**base, "body.allow_pickle": True})
    body, _, _ = pretrain_body(find_body(config.body.name), config.body, None, quiet)
    assert torch.equal(body.model.layernorm.weight, weights["layernorm.weight"])
    assert not make_config({**base, "body.pretrain_fraction": 0, "body.allow_pickle": True}).body.allow_pickle

    class Evil:
        def __reduce__(self):
            return (print, ("a pickle ran code",))

    torch.save({"layernorm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only|[Uu]nsupported"):
        load_pretrained(find_body(str(folder)), allow_pickle=True)
