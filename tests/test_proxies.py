"""Facts of each proxy; what holds for all of them is in test_contracts."""

import numpy as np
import pytest

from orca_sweep import data, proxies
from orca_sweep.errors import InputError
from orca_sweep.proxies import PASSAGE_WORDS, PROXIES, Proxy, corpus_texts, unavailable_proxy


def test_mnist5k_is_balanced_digits():
    mnist = PROXIES.get("mnist5k").load()
    assert mnist.inputs.shape == (5000, 1, 28, 28)
    assert np.bincount(mnist.labels).tolist() == [500] * 10
    assert PROXIES.get("mnist5k").load() is mnist


def test_photo_patches_are_the_photographs_cut_up_without_overlap():
    from sklearn.datasets import load_sample_images

    patches = PROXIES.get("photo-patches").load()
    assert patches.inputs.shape == (520, 3, 32, 32)
    assert np.bincount(patches.labels).tolist() == [260, 260]
    photo = load_sample_images().images[1]
    columns = photo.shape[1] // 32
    row, column = 3, 7
    crop = patches.inputs[260 + row * columns + column]
    expected = photo[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(crop, expected.astype(np.float32))
    assert len({patch.tobytes() for patch in patches.inputs}) > 510


def test_pydoc_passages_are_whole_and_every_chapter_has_some():
    topics = PROXIES.get("pydoc-topics").load()
    assert {len(text.split()) for text in topics.inputs} == {PASSAGE_WORDS}
    assert np.bincount(topics.labels).min() >= 30
    assert set(topics.inputs) <= set(corpus_texts())
    assert corpus_texts() is corpus_texts()


def test_no_two_proxies_share_a_fingerprint():
    prints = {PROXIES.get(name).load().fingerprint for name in PROXIES.names() if name != "none"}
    assert len(prints) == len(PROXIES.names()) - 1


def test_every_record_says_what_it_is_and_where_it_is_from():
    for proxy in map(PROXIES.get, PROXIES.names()):
        assert proxy.meaning
        assert proxy.name == "none" or (proxy.source and proxy.licence)


def test_none_cannot_be_loaded():
    with pytest.raises(InputError, match="without embedder training"):
        PROXIES.get("none").load()
    assert (PROXIES.get("none").kind, PROXIES.get("none").n_classes) == ("none", 0)


def test_what_is_missing_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    assert unavailable_proxy(PROXIES.get("pydoc-topics")) == []
    messages = unavailable_proxy(PROXIES.get("photo-patches"))
    assert [text.split("Run: ")[1] for text in messages] == ["pip install scikit-learn", "pip install pillow"]
    other = Proxy("mine", "text", 2, proxies._nothing, "", "", "", packages=("seglearn",), extra="1d")
    assert "proxy 'mine' needs the package seglearn" in unavailable_proxy(other)[0]
    assert "'orca-sweep[1d]'" in unavailable_proxy(other)[0]
