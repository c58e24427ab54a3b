"""Facts of each proxy; what holds for all of them is in test_contracts."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from orca_sweep import data
from orca_sweep.bodies import find_body
from orca_sweep.bodies.inputs import compute_input_features
from orca_sweep.bodies.network import LoadedBody, build_random_model, load_pretrained
from orca_sweep.config.declaration import Declaration, as_text, parse_proxy
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import (
    PROXIES,
    Noise,
    Proxy,
    Spans,
    bundled,
    canonicalise_proxy,
    declared,
    docstrings,
    draw_samples,
    explain_missing_proxy,
    find_proxy,
    phrases,
)
from orca_sweep.proxies.bundled import PASSAGE_WORDS, load_corpus_texts
from tests.builders.shipped_texts import cut_paragraphs, tag_words


def test_mnist5k_is_balanced_digits():
    mnist = PROXIES.get("mnist5k").load(Path())
    assert mnist.inputs.shape == (5000, 1, 28, 28)
    assert np.bincount(mnist.labels).tolist() == [500] * 10
    assert PROXIES.get("mnist5k").load(Path()) is mnist


def test_photo_patches_are_the_photographs_cut_up_without_overlap():
    from sklearn.datasets import load_sample_images

    patches = PROXIES.get("photo-patches").load(Path())
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
    topics = PROXIES.get("pydoc-topics").load(Path())
    assert {len(text.split()) for text in topics.inputs} == {PASSAGE_WORDS}
    assert np.bincount(topics.labels).min() >= 30
    assert set(topics.inputs) <= set(load_corpus_texts())
    assert load_corpus_texts() is load_corpus_texts()


def test_docstrings_are_the_shipped_passages_of_twelve_parts():
    shipped = PROXIES.get("docstrings").load(Path())
    assert {len(text.split()) for text in shipped.inputs} == {PASSAGE_WORDS}
    assert np.bincount(shipped.labels).tolist() == [200] * PROXIES.get("docstrings").n_classes
    assert len(set(shipped.inputs)) > 2380
    assert PROXIES.get("docstrings").load(Path()) is shipped


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_docstring_tags_give_phrases_or_tokens_without_their_markup(pooling):
    proxy = PROXIES.get("docstring-tags")
    tagged = proxy.load(Path())
    samples = draw_samples(tagged, pooling)
    assert isinstance(samples.inputs, Spans)
    counts = np.bincount(samples.labels)
    assert counts.max() == phrases.SAMPLES_PER_CLASS
    if pooling == "mean":
        assert len(counts) == proxy.n_classes
        assert counts.min() > 250
    words = [word for sentence in tagged.inputs.sentences for word in sentence]
    assert len(words) > 50_000
    assert not any("`" in word for word in words)
    names = [tagged.inputs.names[k] for row in tagged.inputs.tags for k in row]
    first = names.index("B-CLASS")
    assert words[first].isidentifier() or "." in words[first]


def test_a_changed_text_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "FOLDER", tmp_path)
    (tmp_path / "docstrings.tsv.gz").write_bytes(b"other")
    with pytest.raises(DataError, match=r"docstrings.tsv.gz: not the file that comes with orca-sweep"):
        docstrings.load_docstrings.__wrapped__()


def test_the_maker_of_the_texts_takes_markup_out_of_the_words_and_into_the_tags():
    text = "Fit :class:`~a.b.Tree` to ``x, y``, or `z`: see :term:`the rule <rule>`, *not* 2 * 3 * 4."
    words, tags = zip(*tag_words(text), strict=True)
    assert " ".join(words) == "Fit a.b.Tree to x, y , or z : see the rule , not 2 * 3 * 4 ."
    kinds = [f"{word}/{tag}" for word, tag in zip(words, tags, strict=True) if tag != "O"]
    assert kinds == [
        "a.b.Tree/B-CLASS",
        "x,/B-CODE",
        "y/I-CODE",
        "z/B-NAME",
        "the/B-TERM",
        "rule/I-TERM",
        "not/B-EMPHASIS",
    ]
    kept = cut_paragraphs("One line\nof prose.\n\n>>> code\n\nName\n----\n\nMore: ``x``")
    assert kept == ["One line of prose.", "More: ``x``"]


@pytest.mark.skipif(find_spec("skimage") is None, reason="scikit-image is not installed")
def test_photographs_are_the_documented_crops():
    crops = PROXIES.get("photographs").load(Path())
    assert crops.inputs.shape == (2178, 1, 32, 32)
    assert np.bincount(crops.labels).tolist() == [256, 256, 256, 340, 126, 108, 216, 108, 256, 256]
    assert crops.fingerprint == "bbcc7f72014d46200f07915dc95f85db0ce4d96ac9380cd1b0d58e271a5bc4e3"


def test_photographs_without_their_package_name_the_extra(monkeypatch):
    monkeypatch.setattr(data.samples, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"proxy 'photographs' needs the package scikit-image.*'orca-sweep\[2d\]'"):
        bundled.load_photographs.__wrapped__()


def test_no_two_proxies_share_a_fingerprint():
    names = [
        "mnist5k",
        "photo-patches",
        "pydoc-topics",
        "docstrings",
        "docstring-tags",
        "dummy",
        "shuffled:mnist5k",
        "shuffled:shuffled:mnist5k",
    ]
    assert len({find_proxy(name).load(Path()).fingerprint for name in names}) == len(names)


def test_every_record_says_what_it_is_and_where_it_is_from():
    for proxy in map(PROXIES.get, PROXIES.names()):
        assert proxy.meaning
        assert proxy.name == "none" or (proxy.source and proxy.licence)


def test_none_cannot_be_loaded():
    with pytest.raises(InputError, match="without embedder training"):
        PROXIES.get("none").load(Path())
    assert (PROXIES.get("none").kind, PROXIES.get("none").n_classes) == ("none", 0)


def test_what_is_missing_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(data.samples, "find_spec", lambda name: None)
    assert explain_missing_proxy(PROXIES.get("pydoc-topics")) == []
    messages = explain_missing_proxy(PROXIES.get("photo-patches"))
    assert [text.split("Run: ")[1] for text in messages] == ["pip install scikit-learn", "pip install pillow"]
    other = Proxy(
        name="mine",
        kind="text",
        n_classes=2,
        load=lambda root: None,
        meaning="",
        source="",
        licence="",
        packages=("seglearn",),
        extra="1d",
    )
    assert "proxy 'mine' needs the package seglearn" in explain_missing_proxy(other)[0]
    assert "'orca-sweep[1d]'" in explain_missing_proxy(other)[0]


# Placebos -----------------------------------------------------------------------------------------


def test_shuffled_keeps_samples_and_class_sizes_and_nothing_else():
    plain, placebo = find_proxy("mnist5k").load(Path()), find_proxy("shuffled:mnist5k").load(Path())
    assert placebo.inputs is plain.inputs
    assert np.bincount(placebo.labels).tolist() == np.bincount(plain.labels).tolist()
    assert 0.05 < (placebo.labels == plain.labels).mean() < 0.15
    np.testing.assert_array_equal(placebo.labels, find_proxy("shuffled:mnist5k").load(Path()).labels)
    with pytest.raises(InputError, match="'none' has no labels to shuffle"):
        find_proxy("shuffled:none")
    with pytest.raises(InputError, match="Did you mean 'mnist5k'"):
        find_proxy("shuffled:mnist5")


@pytest.mark.parametrize("name", ["swin-micro", "roberta-micro"])
def test_dummy_is_noise_for_any_body(name):
    body = LoadedBody(model=build_random_model(find_body(name), 0))
    data = find_proxy("dummy").load(Path())
    features = compute_input_features(body, Noise(n=40, n_tokens=8, image_shape=(3, 32, 32)), "cpu", batch=40)
    assert features.shape == (40, body.spec.width_in)
    torch.testing.assert_close(
        features, compute_input_features(body, Noise(n=40, n_tokens=8, image_shape=(3, 32, 32)), "cpu", batch=40)
    )
    assert len(data.inputs) == len(data.labels) == 5000
    assert np.bincount(data.labels).min() > 400
    # No two samples are alike, and none stands out.
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 0


# Declarations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "fancyzhx/ag_news[train]:text->label",
        "org/name#config@refs/convert/parquet[train[:50%]]:img->fine_label",
        "./a folder/x.parquet[]:0->-1",
    ],
)
def test_a_declaration_is_one_text_and_back(text):
    assert parse_proxy(text).text == text
    assert as_text(dataclasses.asdict(parse_proxy(text))) == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"path": "x", "inputs": "a", "label": "b"}, "has no 'inputs'. Did you mean 'input'"),
        ({"path": "x", "label": "b"}, "needs path, input and label; input is missing"),
    ],
)
def test_a_wrong_declaration_is_said(value, words):
    with pytest.raises(ValueError, match=words):
        as_text(value)


def saved(folder, kind):
    """A tiny labelled data set in exactly the format the library, or the task's community, uses."""
    import datasets
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    names = datasets.ClassLabel(names=["cat", "dog"])
    pictures = [Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)) for _ in range(6)]
    if kind == "image parquet":  # as the hub stores cifar10
        features = datasets.Features({"img": datasets.Image(), "label": names})
        table = datasets.Dataset.from_dict({"img": pictures, "label": [0, 1, 1, 0, 1, 0]}, features=features)
        table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    elif kind == "image folder":
        for i, picture in enumerate(pictures):
            folder_of_class = folder / ("cat", "dog")[i % 2]
            folder_of_class.mkdir(exist_ok=True)
            picture.resize((20 + i, 9)).save(folder_of_class / f"{i}.png")
    elif kind == "csv":
        (folder / "train.csv").write_text(
            "text,label\n" + "".join(f"the type{' of a' * i},{'ab'[i % 2]}\n" for i in range(6))
        )
    elif kind == "tag parquet":  # as the hub stores conll2003
        tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER", "I-PER"]))
        features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
        rows = {"tokens": [["the", "type", "is"], ["a", "of", "type"]], "ner_tags": [[0, 1, 2], [0, 0, 1]]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "train.parquet"))
    elif kind == "conll":
        (folder / "eng.conll").write_text(
            "-DOCSTART- -X- O O\n\nthe DT B-NP O\ntype NN I-NP B-PER\n\na DT B-NP O\nis VB B-VP O\n"
        )
    return folder


@pytest.mark.parametrize(
    ("kind", "path", "columns", "labels", "phrase_labels"),
    [
        ("image parquet", "", "img->label", [0, 1, 1, 0, 1, 0], None),
        ("image parquet", "/train-00000-of-00001.parquet", "img->label", [0, 1, 1, 0, 1, 0], None),
        ("image folder", "", "image->label", [0, 0, 0, 1, 1, 1], None),
        ("csv", "/train.csv", "text->label", [0, 1, 0, 1, 0, 1], None),
        ("tag parquet", "", "tokens->ner_tags", [0, 1, 2, 0, 0, 1], [0, 1, 0, 0, 1]),
        ("conll", "/eng.conll", "0->3", [1, 0, 1, 1], [1, 0, 1, 1]),
        ("conll", "/eng.conll", "0->2", [0, 2, 0, 1], [0, 0, 1]),
    ],
)
def test_data_sets_in_their_real_formats_become_proxies_of_real_bodies(
    kind, path, columns, labels, phrase_labels, tmp_path
):
    from tests.builders.bodies import saved_roberta, saved_swin

    folder = saved(tmp_path / "data", kind)
    loaded = find_proxy(f"{folder}{path}[train]:{columns}").load(Path())
    assert draw_samples(loaded, "mean").labels.tolist() == (phrase_labels or labels)
    data = draw_samples(loaded, "token")
    assert data.labels.tolist() == labels
    is_image = kind.startswith("image")
    body = load_pretrained(find_body(str((saved_swin if is_image else saved_roberta)(tmp_path / "body"))))
    features = compute_input_features(body, data.inputs, "cpu")
    assert features.shape == (len(labels), body.spec.width_in)
    assert len(features.unique(dim=0)) == len(labels)
    if is_image:
        assert data.inputs.shape[1] == 3
        assert 0 <= data.inputs.min() < data.inputs.max() <= 1
        assert data.inputs.shape[2:] == ((12, 10) if kind == "image parquet" else (64, 64))


def test_a_token_s_feature_is_its_first_piece_in_its_sentence(tmp_path):
    """Beside the embedding layer called by hand on roberta-micro's byte pairs, where words have several pieces."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from orca_sweep.training.pretrain_corpus import learn_tokenizer

    text = learn_tokenizer(300, ("the type of a type", "attributes are inherited"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), pad_token="<pad>")
    body = LoadedBody(model=build_random_model(find_body("roberta-micro"), 0), tokenizer=tokenizer)
    words = ("unheard", "attributes", "zzz")
    bounds = np.array([[0, 0, 1], [0, 1, 2], [0, 2, 3]])
    features = compute_input_features(body, Spans(sentences=(words,), bounds=bounds, pooling="token"), "cpu")
    coded = tokenizer(" ".join(words))
    pieces = [tokenizer.decode([i]) for i in coded["input_ids"]]
    starts, spelled = [], ""
    for k, piece in enumerate(pieces):
        if k in (0, len(pieces) - 1):
            continue  # <s> and </s>
        if piece.strip() and spelled.strip() in ("", "unheard", "unheard attributes"):
            starts.append(k)
        spelled += piece
    assert len(starts) == 3 < len(pieces) - 2
    with torch.inference_mode():
        whole = body.model.embeddings(torch.tensor([coded["input_ids"]]))[0]
    torch.testing.assert_close(features, whole[starts])
    # A phrase is all of its pieces, here of the second word, and of the second and third.
    bounds = np.array([[0, 1, 2], [0, 1, 3]])
    runs = compute_input_features(body, Spans(sentences=(words,), bounds=bounds, pooling="mean"), "cpu")
    end = len(pieces) - 1
    blank = 1 if pieces[starts[2] - 1] == " " else 0
    expected = [whole[starts[1] : starts[2] - blank].mean(dim=0), whole[starts[1] : end].mean(dim=0)]
    torch.testing.assert_close(runs, torch.stack(expected))


def test_tags_are_drawn_in_equal_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(phrases, "SAMPLES_PER_CLASS", 20)
    lines = "".join(f"w{i} {'B' if i % 30 == 0 else 'O'}\n" + ("\n" if i % 50 == 49 else "") for i in range(900))
    (tmp_path / "t.conll").write_text(lines)
    data = draw_samples(find_proxy(f"{tmp_path}/t.conll[]:0->1").load(Path()), "token")
    assert np.bincount(data.labels).tolist() == [20, 20]
    assert all(data.inputs.sentences[s][j].startswith("w") for s, j, _ in data.inputs.bounds)
    assert (data.inputs.bounds[:, 2] - data.inputs.bounds[:, 1] == 1).all()


def test_features_made_beforehand_are_read_in_the_original_s_format(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "text_xs_32.npy", rng.normal(size=(30, 48)).astype(np.float32))
    np.save(tmp_path / "text_ys_32.npy", np.arange(30) % 3 + 4)
    data = PROXIES.get("orca-text").load(tmp_path)
    assert (len(data.inputs), sorted(set(data.labels.tolist()))) == (30, [4, 5, 6])
    swin = LoadedBody(model=build_random_model(find_body("swin-micro"), 0))
    assert compute_input_features(swin, data.inputs, "cpu").shape == (30, 48)
    roberta = LoadedBody(model=build_random_model(find_body("roberta-micro"), 0))
    with pytest.raises(DataError, match="features are 48 wide, but the body's input layer is 128 wide"):
        compute_input_features(roberta, data.inputs, "cpu")
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(6, 4, 48)), y=np.arange(6))
    assert find_proxy(f"{tmp_path}/mine.npz[]:x->y").load(Path()).inputs.array.shape == (6, 48)
    assert "text_xs_32.npy or text_xs.npy" in explain_missing_proxy(PROXIES.get("orca-text"), tmp_path / "no")[0]


@pytest.mark.parametrize(
    ("kind", "rest", "words"),
    [
        ("csv", "/train.csv[train]:txt->label", "there is no column 'txt'. Did you mean 'text'"),
        ("csv", "/train.csv[train]:text->labels", "there is no column 'labels'. Did you mean 'label'"),
        ("csv", "/trains.csv[train]:text->label", "no such file or folder"),
        ("csv", "/train.csv[test]:text->label", "a single file has no split 'test'"),
        ("csv", "/train.csv[train]:label->text", None),
        ("conll", "/eng.conll[]:0->9", "eng.conll:3: the line has 4 columns, so there is no column 9"),
        ("conll", "/eng.conll[]:word->tag", "must be numbers of columns, counted from 0"),
        ("conll", "/none.conll[]:0->1", "cannot be read .FileNotFoundError"),
        ("tag parquet", "[train]:tokens->tags", "there is no column 'tags'"),
        ("none", "/x.npz[]:x->y", "cannot be read .FileNotFoundError"),
        ("none", "/x.pkl[]:x->y", "no such file or folder"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said(kind, rest, words, tmp_path):
    folder = saved(tmp_path / "data", kind)
    proxy = find_proxy(f"{folder}{rest}")
    if words is None:  # texts as labels are fine
        assert len(proxy.load(Path()).labels) == 6
        return
    with pytest.raises(DataError, match=words):
        proxy.load(Path())


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        ([0, 3], ("a", "b"), "label 3 of sample 1 is not one of the 2 classes"),
        ([0, 1.5], (), "label 1.5 of sample 1 is neither a whole number nor a text"),
        ([0, None], (), "label None of sample 1"),
        ([0, "a"], (), "some labels are numbers and others are texts"),
    ],
)
def test_wrong_labels_are_said(values, names, words):
    with pytest.raises(DataError, match=words):
        declared._number_classes(values, names, "here")


def test_tokens_and_tags_must_pair():
    with pytest.raises(DataError, match="sentence 1 has 2 tokens and 1 tags"):
        declared._tag_sentences([["a"], ["b", "c"]], [["O"], ["O"]], (), Declaration(path="here", input="x", label="y"))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), r"labels \(4,\) of int64. Whole numbers of shape \(3,\)"),
        (np.zeros(3), np.zeros(3, int), r"features \(3,\) of float64"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "NaN or infinite"),
    ],
)
def test_wrong_features_are_said(x, y, words):
    with pytest.raises(DataError, match=words):
        declared.make_feature_data(x, y, "here")


def png(picture, kind="PNG"):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ([png(GREY), None], "sample 1 holds no image"),
        (
            [png(GREY), b"junk"],
            "sample 1: this image cannot be read .UnidentifiedImageError: cannot identify image file",
        ),
        ([b"junk"], "sample 0: this image cannot be read"),
        ([png(GREY)[:-30]], "sample 0: this image cannot be read .OSError: image file is truncated"),
        ([png(GREY.astype(np.int32), "TIFF")], "32-bit whole numbers do not define which value is white"),
        ([png(GREY.astype(np.float32), "TIFF")], "its floats go from 0 to 63"),
    ],
)
def test_images_that_cannot_be_read_as_they_are_meant_are_said(pictures, words, tmp_path):
    import datasets

    kinds = datasets.Features({"x": datasets.Image(), "y": datasets.Value("int64")})
    rows = {"x": [p and {"bytes": p, "path": None} for p in pictures], "y": [0] * len(pictures)}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=words):
        find_proxy(f"{tmp_path}/x.parquet[]:x->y").load(Path())


@pytest.mark.parametrize(
    ("words", "tags"), [([["a"], None], [[0], [1]]), ([["a"], ["b"]], [[0], None]), ([["a", None]], [[0, 1]])]
)
def test_sentences_that_are_none_are_said(words, tags):
    with pytest.raises(DataError, match="is not a list of tokens with a list of tags"):
        declared._tag_sentences(words, tags, (), parse_proxy("here[]:x->y"))


@pytest.mark.parametrize(
    ("name", "text", "columns", "sentences", "tags"),
    [
        # A token of CoNLL-U may hold blanks; ranges and words left out are no tokens of their own.
        ("a.conllu", "1\t5 000\tx\tNUM\n2\tyears\tx\tNOUN\n", "1->3", (("5 000", "years"),), ("NUM", "NOUN")),
        ("a.conllu", "1-2\tdu\t_\t_\n1\tde\tde\tP\n2\tle\tle\tD\n2.1\tx\tx\tX\n", "1->3", (("de", "le"),), ("P", "D")),
        ("a.conll", "5\u00a0000 B\nx\u2028y O\n", "0->1", (("5\u00a0000", "x\u2028y"),), ("B", "O")),
        ("a.conll", "\ufeffthe O\r\n\r\nend B\r\n", "0->1", (("the",), ("end",)), ("O", "B")),
    ],
)
def test_columns_are_what_the_format_calls_columns(name, text, columns, sentences, tags, tmp_path):
    (tmp_path / name).write_bytes(text.encode())
    tagged = find_proxy(f"{tmp_path / name}[]:{columns}").load(Path()).inputs
    assert tagged.sentences == sentences
    assert tuple(tagged.names[tag] for row in tagged.tags for tag in row) == tags


def encrypt(data):
    """Sets the bit that says so of every member of a zip file."""
    data = bytearray(data)
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(encrypt(path.read_bytes())), "cannot be read .RuntimeError: .*encrypted"),
        (lambda path: np.save(path.open("wb"), np.ones((2, 3))), "cannot be read .ValueError: a single array"),
    ],
)
def test_a_file_that_only_looks_like_features_is_said(damage, words, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3)), y=np.arange(2))
    damage(tmp_path / "x.npz")
    with pytest.raises(DataError, match=words):
        find_proxy(f"{tmp_path}/x.npz[]:x->y").load(Path())


@pytest.mark.parametrize("labels", [np.array([0.5, 1.0]), np.array([np.nan, 1.0]), np.array(["a", "b"])])
def test_labels_of_the_text_proxy_are_not_rounded(labels, tmp_path):
    np.save(tmp_path / "text_xs.npy", np.ones((2, 3), dtype=np.float32))
    np.save(tmp_path / "text_ys.npy", labels)
    with pytest.raises(DataError, match="Whole numbers of shape"):
        PROXIES.get("orca-text").load(tmp_path)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 9, 9), np.uint8),
        np.zeros((0, 3, 9, 9)),
        np.zeros((2, 9, 9)),
        np.zeros((2, 3, 0, 9)),
        np.zeros((2, 0, 9, 9)),
    ],
)
def test_arrays_that_are_no_images_are_said(images):
    body = LoadedBody(model=build_random_model(find_body("swin-micro"), 0))
    with pytest.raises(DataError, match=r"Images must be floats in \[0, 1\]"):
        compute_input_features(body, images, "cpu")


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_an_empty_word_takes_no_other_word_s_piece(pooling, saved_body):
    body = load_pretrained(find_body(str(saved_body("gpt2"))))
    samples = draw_samples(
        declared._tag_sentences([["the", "", "type"]], [["O", "B-X", "O"]], (), parse_proxy("here[]:x->y")), pooling
    )
    with pytest.raises(DataError, match=r"word 1 of sentence 0 \(''\) has no token"):
        compute_input_features(body, samples.inputs, "cpu")


def test_a_loop_of_links_is_no_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    [problem] = explain_missing_proxy(find_proxy(canonicalise_proxy(f"{tmp_path / 'loop'}[train]:x->y")))
    assert "loop" in problem


@pytest.mark.parametrize(("path", "words"), [("./a\0b", "contains a NUL character"), ("/" + "a" * 5000, "Shorten it")])
def test_a_path_that_no_file_can_have_is_said(path, words):
    with pytest.raises(InputError, match=words):
        find_proxy(canonicalise_proxy(f"{path}[train]:x->y"))


def test_a_proxy_of_the_wrong_kind_for_the_body_is_said(run, tmp_path):
    folder = saved(tmp_path / "data", "csv")
    row, _ = run(task="tiny", proxy=f"{folder}/train.csv[train]:text->label")
    assert row["status"] == "failed"
    assert "it holds texts, but the body embeds images" in row["error"]


def test_a_declared_proxy_is_a_level_of_a_space(write_space, tmp_path, monkeypatch):
    """Written as a mapping or as a text, with a path from the working folder: one cell, and it runs."""
    from orca_sweep.space import plan_space
    from orca_sweep.trial import load_imports, make_config, resolve_configs, unavailable_parts

    saved(tmp_path / "data", "image parquet")
    monkeypatch.chdir(tmp_path)
    path = write_space(
        """\
        base: {task: tiny}
        factors:
          proxy:
            - none
            - {path: ./data, split: train, input: img, label: label}
            - "./data/../data[train]:img->label"
            - shuffled:./data[train]:img->label
            - dummy
        seeds: 1
        """
    )
    cells = plan_space(path, load_imports, make_config).cells
    where = f"{tmp_path}/data[train]:img->label"
    assert [cell.proxy for cell in cells] == ["none", where, f"shuffled:{where}", "dummy"]
    assert unavailable_parts(resolve_configs(cells), tmp_path) == []
    gone = make_config({"task": "tiny", "proxy": "./nowhere[train]:img->label"})
    assert f"needs {tmp_path}/nowhere, which does not exist" in str(
        unavailable_parts(resolve_configs([gone]), tmp_path)[0]
    )


@pytest.mark.parametrize("proxy", ["dummy", "shuffled:mnist5k"])
def test_placebos_run(run, proxy):
    row, _ = run(task="tiny", proxy=proxy, embedder__proxy_samples=300)
    assert row["status"] == "ok"
    assert row["objective_last"] != row["objective_first"]


@pytest.mark.parametrize("proxy", ["docstrings", "docstring-tags"])
def test_text_proxies_run_on_a_shipped_task(run, proxy):
    settings = {"body__name": "roberta-micro", "body__pretrain_fraction": 0, "data__n_train": 27, "finetune__epochs": 1}
    row, _ = run(task="vowels", proxy=proxy, embedder__proxy_samples=100, embedder__epochs=2, **settings)
    assert (row["status"], row["error"]) == ("ok", None)
    assert row["objective_last"] != row["objective_first"]


@pytest.mark.network
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet", "mnist", "conll2003-ner", "agnews"])
def test_hub_proxies_download(name):
    data = draw_samples(find_proxy(name).load(Path()), "mean")
    assert len(np.unique(data.labels)) == PROXIES.get(name).n_classes


def test_without_a_network_a_hub_proxy_says_so(monkeypatch):
    with pytest.raises(DataError, match="cannot be read .*Without a network, give the path of a local copy"):
        find_proxy("fancyzhx/ag_news[train]:text->label").load(Path())


def test_hashtags_are_tokens_and_files_have_no_splits(tmp_path):
    (tmp_path / "t.conll").write_text("#Paris B\n# O\nis O\n")
    data = find_proxy(f"{tmp_path}/t.conll[train]:0->1").load(Path())
    assert data.inputs.sentences == (("#Paris", "#", "is"),)
    with pytest.raises(DataError, match="has no split 'test'"):
        find_proxy(f"{tmp_path}/t.conll[test]:0->1").load(Path())


def test_an_empty_text_is_said_and_a_path_without_a_dot_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("d/t.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "", "label": 1}\n')
    assert parse_proxy("d/t.jsonl[train]:text->label").is_local
    with pytest.raises(DataError, match="the text of sample 1 is ''"):
        find_proxy("d/t.jsonl[train]:text->label").load(Path())
    Path("d/x.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match="cannot be read"):
        find_proxy("d/x.npz[train]:x->y").load(Path())
