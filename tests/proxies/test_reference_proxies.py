"""What the body sees of a proxy, beside the numbers of the original implementation (tests/vectors/reference)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from orca_sweep.bodies.inputs import compute_input_features, prepare_images, resize_images
from orca_sweep.bodies.network import LoadedBody
from orca_sweep.proxies import (
    PROXIES,
    ProxyData,
    Scaling,
    Treatment,
    Views,
    apply_views,
    choose_proxy_scaling,
    draw_views,
)
from orca_sweep.proxies.declared import make_feature_data
from orca_sweep.proxies.images import PAD
from orca_sweep.training.alignment_inputs import proxy_features

REFERENCE = Path(__file__).resolve().parents[1] / "vectors" / "reference"
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def image():
    with np.load(REFERENCE / "proxy_image.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def text():
    with np.load(REFERENCE / "text_proxy.npz") as file:
        return dict(file)


@pytest.fixture
def body(image):
    """A Swin with the vectors' input layer."""
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(image_size=224, embed_dim=8, depths=[1], num_heads=[1], layer_norm_eps=float(image["norm_eps"]))
    model = SwinModel(config, add_pooling_layer=False)
    layer = model.embeddings
    weights = {
        "patch_embeddings.projection.weight": image["patch_weight"],
        "patch_embeddings.projection.bias": image["patch_bias"],
        "norm.weight": image["norm_weight"],
        "norm.bias": image["norm_bias"],
    }
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    return LoadedBody(model=model)


@pytest.fixture
def cifar10(image):
    """The treatment of the hub's CIFAR-10, from its record."""
    return Treatment(scaling=choose_proxy_scaling(PROXIES.get("cifar10"), image["images"]))


# Images -------------------------------------------------------------------------------------------


def test_the_record_of_cifar10_has_the_published_numbers(image, cifar10):
    assert cifar10.scaling.mean == tuple(image["mean"])
    assert cifar10.scaling.std == tuple(image["std"])


def test_images_are_normalised_and_resized(image, cifar10):
    images = torch.from_numpy(image["images"])
    normalised = prepare_images(images, 3, 32, cifar10.scaling)
    np.testing.assert_allclose(normalised, image["normalised"], **CLOSE)
    np.testing.assert_allclose(prepare_images(images[:2], 3, 224, cifar10.scaling), image["resized"], **CLOSE)


def test_features_of_normalised_images(image, body, cifar10):
    features = compute_input_features(body, image["images"], "cpu", treatment=cifar10)
    np.testing.assert_allclose(features, image["features"], **CLOSE)
    raw = compute_input_features(body, image["images"], "cpu")
    np.testing.assert_allclose(raw, image["features_without_normalisation"], **CLOSE)
    assert np.abs(raw.numpy() - image["features"]).max() > 5 * image["features"].std(axis=0).max()
    tokens = body.get_input_layer()(prepare_images(torch.from_numpy(image["images"]), 3, 224, cifar10.scaling))[0]
    np.testing.assert_allclose(tokens[:, :56].detach(), image["tokens_first_row"], **CLOSE)


def test_an_augmented_view_is_cropped_mirrored_and_then_normalised(image, cifar10):
    views = Views(offsets=image["crop_offset"], flipped=image["crop_flipped"])
    crops = apply_views(image["images"][image["crop_image_index"]], views)
    np.testing.assert_allclose(
        prepare_images(torch.from_numpy(crops), 3, 32, cifar10.scaling), image["crop_normalised"], **CLOSE
    )


def test_the_whole_stage(image, body, cifar10, worker):
    """Fed with the pixels that the original's augmentation had made."""
    scaling = cifar10.scaling
    mean, std = (np.array(values)[:, None, None] for values in (scaling.mean, scaling.std))
    pixels = (image["stage_input_normalised"] * std + mean).astype(np.float32)
    proxy = ProxyData(inputs=pixels, labels=image["stage_labels_of_input"], fingerprint="stage")
    made = proxy_features(proxy, body, worker, cifar10)
    np.testing.assert_allclose(made.features, image["stage_features"], **CLOSE)
    np.testing.assert_array_equal(made.labels, image["stage_labels"])
    # What is done to images is part of what the artifact is known by.
    augmented = Treatment(scaling=scaling, is_augmented=True)
    again = [proxy_features(proxy, body, worker, t) for t in (Treatment(), augmented, cifar10)]
    assert [result.reused for result in again] == [False, False, True]
    expected = compute_input_features(body, apply_views(pixels, draw_views(5)), "cpu", treatment=cifar10)
    torch.testing.assert_close(again[1].features, expected)


def test_views_are_drawn_evenly(image):
    """Chi-squared, at a chance of one in a thousand of failing for a good generator; the seed is fixed."""
    from scipy.stats import chi2_contingency, chisquare

    n = int(image["crop_draws"])
    views = draw_views(n)
    counts = [np.bincount(views.offsets[:, k], minlength=2 * PAD + 1) for k in (0, 1)]
    for counted, theirs in zip(counts, ("vertical", "horizontal"), strict=True):
        assert len(counted) == 9
        assert chisquare(counted).pvalue > 1e-3
        assert chi2_contingency([counted, image[f"crop_offset_counts_{theirs}"]]).pvalue > 1e-3
    assert abs(views.flipped.sum() - n / 2) < 3.3 * np.sqrt(n / 4)
    joint = np.histogram2d(views.offsets[:, 0], views.offsets[:, 1], bins=9)[0]
    assert chi2_contingency(joint).pvalue > 1e-3
    np.testing.assert_array_equal(draw_views(n).offsets, views.offsets)


def test_a_view_without_shift_is_the_image_at_any_size():
    images = np.random.default_rng(0).random((2, 1, 5, 9), dtype=np.float32)
    still = Views(offsets=np.full((2, 2), PAD), flipped=np.array([False, True]))
    seen = apply_views(images, still)
    np.testing.assert_array_equal(seen[0], images[0])
    np.testing.assert_array_equal(seen[1], images[1, :, :, ::-1])


def test_shrinking_smooths(image):
    shrunk = resize_images(torch.from_numpy(image["shrink_input"]), 224).numpy()
    np.testing.assert_allclose(shrunk, image["shrink_antialiased"], rtol=0, atol=1e-4)
    assert np.abs(shrunk - image["shrink_plain"]).max() > 0.5


# Texts --------------------------------------------------------------------------------------------


def test_features_of_the_text_proxy_are_means_over_tokens(text):
    made = make_feature_data(text["text_xs"], text["text_ys"], "here")
    np.testing.assert_allclose(made.inputs.array, text["features"], **CLOSE)
    np.testing.assert_array_equal(made.labels, text["labels"])
    assert made.labels.dtype == np.int64


def test_the_first_rows_of_the_text_proxy_are_kept(text, tmp_path):
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(5003, 2, 4)).astype(np.float32), rng.integers(3, 9, 5003)
    np.save(tmp_path / "text_xs.npy", xs)
    np.save(tmp_path / "text_ys.npy", ys)
    made = PROXIES.get("orca-text").load(tmp_path)
    assert len(made.inputs) == len(made.labels) == text["rows_kept_of_5003"]
    assert text["rows_kept_are_the_first"]
    np.testing.assert_allclose(made.inputs.array, xs[:5000].mean(axis=1), **CLOSE)
    np.testing.assert_array_equal(made.labels, ys[:5000])


def test_a_body_scales_its_own_channels():
    """Grey digits before a body of three channels, and colours before one of one."""
    grey, colours = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)
    three = Scaling(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), channels_of="body")
    seen = prepare_images(grey, 3, 8, three)
    torch.testing.assert_close(seen[:, 2:], (grey - 0.6) / 0.3)
    own = Scaling(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), channels_of="proxy")
    parts = [(colours[:, k : k + 1] - m) / s for k, (m, s) in enumerate(zip(own.mean, own.std, strict=True))]
    torch.testing.assert_close(prepare_images(colours, 1, 8, own), sum(parts) / 3)
