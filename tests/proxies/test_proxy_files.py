"""Files of declared proxies come in as they are, or are refused by name."""

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orca_sweep.bodies import find_body
from orca_sweep.bodies.inputs import MAX_TEXT_TOKENS, count_cut_texts
from orca_sweep.bodies.network import load_pretrained
from orca_sweep.config.declaration import Declaration, as_text, parse_proxy
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import (
    canonicalise_proxy,
    declared,
    describe_proxy,
    draw_samples,
    explain_missing_proxy,
    find_proxy,
)
from orca_sweep.proxies.table_files import convert_hub_table

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)
GREY = Image.fromarray((RAMP * 255).astype(np.uint8))


def load(path, columns="image->label", split="train"):
    samples, labels = columns.split("->")
    return find_proxy(Declaration(path=str(path), input=samples, label=labels, split=split).text).load(Path())


def save_noise(path, seed=0, size=(12, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


# Folders of images --------------------------------------------------------------------------------


def test_words_in_file_names_cut_nothing(tmp_path):
    words = ["", "model train ", "test ", "val_", "on validation ", "training", "dev-", "TEST.", "eval"]
    for label in ("dogs", "cats"):
        for i, word in enumerate(words):
            save_noise(tmp_path / label / f"{word}{i}.png", i)
    data = load(tmp_path)
    assert data.inputs.shape == (18, 3, 12, 12)
    assert data.labels.tolist() == [0] * 9 + [1] * 9
    assert data.n_found == 18


@pytest.fixture
def with_splits(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for label in ("a", "b"):
            for i in range(n):
                save_noise(tmp_path / split / label / f"{i}.png", i + (split == "test") * 10)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "n"), [("train", 6), ("test", 4), ("Train", 6), ("train[:4]", 4), ("train[50%:]", 3), ("test[-1:]", 1)]
)
def test_a_split_is_a_folder_of_class_folders(with_splits, split, n):
    assert len(load(with_splits, split=split).labels) == n


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("", r"no split is named. It has test, train. Declare one: \[test\]"),
        ("val", "there is no split 'val'. It has test, train"),
        ("train[:7]", "asks for sample 7, but there are 6 samples"),
        ("train+test", "'train.test' is not a split of a file or folder"),
    ],
)
def test_what_is_no_split_of_a_folder_is_said(with_splits, split, words):
    with pytest.raises(DataError, match=words):
        load(with_splits, split=split)


def test_a_folder_without_splits_is_meant_as_a_whole(tmp_path):
    for name in ("bus/1", "bus/2", "train/3", "car/4"):  # vehicles
        save_noise(tmp_path / f"{name}.png", int(name[-1]))
    for split in ("train", ""):
        assert load(tmp_path, split=split).labels.tolist() == [0, 0, 1, 2]
    assert load(tmp_path, split="train[:3]").labels.tolist() == [0, 0, 1]
    deep = tmp_path / "deep"
    for year in ("2019", "2020"):
        save_noise(deep / year / "bus" / "1.png", int(year))
        save_noise(deep / year / "car" / "1.png", int(year) + 10)
    assert load(deep).labels.tolist() == [0, 1, 0, 1]


def test_classes_and_files_are_in_the_order_of_their_characters(tmp_path):
    for name in ("b/2", "b/10", "B/1", "é/1", "a b/1"):
        save_noise(tmp_path / f"{name}.png", len(name) + ord(name[0]))
    data = load(tmp_path)
    assert data.labels.tolist() == [0, 1, 2, 2, 3]  # B, a b, b, é
    np.testing.assert_allclose(data.inputs[2], np.asarray(Image.open(tmp_path / "b/10.png")).transpose(2, 0, 1) / 255)


def test_what_is_no_image_is_left_out_and_counted(tmp_path):
    save_noise(tmp_path / "a" / "1.PNG")
    save_noise(tmp_path / "b" / "1.jpeg", 1)
    for name in ("README.txt", "a/notes.md"):
        (tmp_path / name).write_text("x")
    for name in (".DS_Store", "a/._1.png", "__MACOSX/a/1.png", ".git/x/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(load(tmp_path).labels) == 2
    assert describe_proxy(f"{tmp_path}[]:image->label").endswith("2 samples of 2 classes; 2 other files left out")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.png", "2.png"], r"1.png is not in a class folder \(2 such images\)"),
        (["a/1.png", "1.png"], r"1.png is not in a class folder \(1 such"),
        (["train/a/1.png", "train/2.png"], "train/2.png is not in a class folder"),
        (["train/1.png", "test/1.png"], "are named like splits, but hold images instead of"),
        (["test/a/1.png"], "there is no split 'train'. It has test"),
    ],
)
def test_images_without_classes_are_refused(tmp_path, names, words):
    for name in names:
        save_noise(tmp_path / name)
    with pytest.raises(DataError, match=words):
        load(tmp_path)


def test_folders_with_tables_of_images_or_without_images_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_text("x")
    with pytest.raises(DataError, match=r"there are no images \(1 other files\)"):
        load(tmp_path)
    save_noise(tmp_path / "a" / "1.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na/1.png,x\n")
    with pytest.raises(DataError, match="metadata.csv describes the images, but is not read"):
        load(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path):
    save_noise(tmp_path / "store" / "x" / "1.png")
    (tmp_path / "data" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a").symlink_to(tmp_path / "store" / "x")
    save_noise(tmp_path / "data" / "b" / "1.png", 1)
    assert load(tmp_path / "data").labels.tolist() == [0, 1]
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")
    with pytest.raises(DataError, match="up is a link to a folder that contains it"):
        load(tmp_path / "data")
    (tmp_path / "data" / "b" / "up").unlink()
    (tmp_path / "data" / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone.png is a broken link"):
        load(tmp_path / "data")


# Pictures of every mode ---------------------------------------------------------------------------


def save_mode(folder, mode):
    path = folder / "one" / f"{mode}.png"
    path.parent.mkdir(exist_ok=True)
    if mode == "16 bit":
        Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    elif mode == "16 bit tiff":
        Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path.with_suffix(".tiff"))
    elif mode == "16 bit pgm":
        content = (RAMP * 65535).astype(">u2").tobytes()
        path.with_suffix(".pgm").write_bytes(b"P5 64 64 65535\n" + content)
    elif mode == "big-endian tiff":
        Image.frombytes("I;16B", (64, 64), (RAMP * 65535).astype(">u2").tobytes()).save(path.with_suffix(".tiff"))
    elif mode == "float":
        Image.fromarray(RAMP.astype(np.float32)).save(path.with_suffix(".tiff"))
    elif mode == "cmyk":
        GREY.convert("RGB").convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
    elif mode == "grey alpha":
        Image.merge("LA", (GREY, Image.new("L", GREY.size, 255))).save(path)
    elif mode == "webp":
        GREY.convert("RGB").save(path.with_suffix(".webp"), lossless=True)
    else:
        GREY.convert({"palette": "P"}.get(mode, "L")).save(path.with_suffix(".gif" if mode == "gif" else ".png"))


@pytest.mark.parametrize(
    "mode",
    ["16 bit", "16 bit tiff", "16 bit pgm", "big-endian tiff", "float", "cmyk", "grey alpha", "palette", "grey", "gif", "webp"],
)  # fmt: skip
def test_pictures_of_every_mode_have_their_whole_range(tmp_path, mode):
    save_mode(tmp_path, mode)
    data = load(tmp_path)
    assert data.inputs.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(data.inputs[0], np.broadcast_to(RAMP, (3, 64, 64)), atol=0.02)
    precise = mode in ("16 bit", "16 bit tiff", "16 bit pgm", "big-endian tiff", "float")
    assert len(np.unique(data.inputs)) > (4000 if precise else 100)


def test_pictures_of_few_bits_are_black_and_white(tmp_path):
    (tmp_path / "a").mkdir()
    GREY.convert("1").save(tmp_path / "a" / "1.png")
    assert np.unique(load(tmp_path).inputs).tolist() == [0, 1]
    # Two bits for each pixel: four greys.
    rows = b"".join(b"\0" + bytes([0b00011011]) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 2, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (tmp_path / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_allclose(np.unique(load(tmp_path).inputs), [0, 1 / 3, 2 / 3, 1], atol=1e-6)


def test_what_is_transparent_lies_on_white(tmp_path):
    glyph = np.zeros((64, 64, 4), np.uint8)
    glyph[16:48, 16:48, 3] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(glyph).save(tmp_path / "a" / "1.png")
    x = load(tmp_path).inputs
    assert (x[0, :, 0, 0].tolist(), x[0, :, 32, 32].tolist()) == ([1, 1, 1], [0, 0, 0])
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((0, 0), 1)
    palette.save(tmp_path / "a" / "1.png", transparency=0)
    x = load(tmp_path).inputs
    assert (x[0, :, 0, 0].tolist(), x[0, :, 4, 4].tolist()) == ([1, 0, 0], [1, 1, 1])
    glyph[:, :, :3] = 255
    Image.fromarray(glyph).save(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match=r"1.png: only its transparency holds a picture"):
        load(tmp_path)


def test_a_turned_picture_is_turned_and_sizes_are_compared_after_that(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter
    (tmp_path / "a").mkdir()
    picture = GREY.resize((32, 16))
    picture.save(tmp_path / "a" / "1.png", exif=exif)
    x = load(tmp_path).inputs
    assert x.shape == (1, 3, 32, 16)
    np.testing.assert_allclose(x[0, 0], np.rot90(np.asarray(picture), -1) / 255, atol=1e-6)
    picture.save(tmp_path / "a" / "2.png")
    assert load(tmp_path).inputs.shape == (2, 3, 64, 64)


def test_uneven_pictures_keep_their_range(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "a" / "1.png")
    GREY.resize((100, 80)).save(tmp_path / "a" / "2.png")
    x = load(tmp_path).inputs
    assert x.shape == (2, 3, 64, 64)
    np.testing.assert_allclose(x, np.broadcast_to(RAMP, (2, 3, 64, 64)), atol=0.03)


def write_bomb(path):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def save_bad_picture(folder, kind):
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (0, 99)]
    buffer = io.BytesIO()
    GREY.save(buffer, "JPEG" if kind == "cut.jpg" else "BMP" if kind == "cut.bmp" else "PNG")
    if kind in ("frames.gif", "frames.tiff", "frames.webp", "frames.png"):
        frames[0].save(folder / kind, save_all=True, append_images=frames[1:])
    elif kind.startswith("cut"):
        (folder / kind).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    elif kind == "high.tiff":
        Image.fromarray((RAMP * 300).astype(np.float32)).save(folder / kind)
    elif kind == "nan.tiff":
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(folder / kind)
    elif kind == "whole.tiff":
        Image.fromarray((RAMP * 1e6).astype(np.int32)).save(folder / kind)
    elif kind == "text.png":
        (folder / kind).write_text("no image")
    elif kind == "empty.png":
        (folder / kind).write_bytes(b"")
    elif kind == "pointer.png":
        (folder / kind).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    elif kind == "bomb.png":
        write_bomb(folder / kind)
    elif kind == "black.png":
        Image.new("L", (8, 8)).save(folder / kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("frames.gif", "it has 2 frames"),
        ("frames.tiff", "it has 2 frames"),
        ("frames.webp", "it has 2 frames"),
        ("frames.png", "it has 2 frames"),
        ("cut.png", "cannot be read .OSError"),
        ("cut.jpg", "cannot be read .OSError"),
        ("cut.bmp", "cannot be read .OSError"),
        ("high.tiff", "its floats go from 0 to 300, so black and white are unknown"),
        ("nan.tiff", "its floats go from nan to nan"),
        ("whole.tiff", "32-bit whole numbers do not define which value is white"),
        ("text.png", "cannot be read .UnidentifiedImageError"),
        ("empty.png", "cannot be read .UnidentifiedImageError"),
        ("pointer.png", "a Git LFS pointer"),
        ("bomb.png", "it has more than 89,478,485 pixels"),
        ("black.png", "all pixels of all 1 images are 0"),
    ],
)
def test_a_picture_without_a_known_range_is_refused_by_name(tmp_path, kind, words):
    (tmp_path / "a").mkdir()
    save_bad_picture(tmp_path / "a", kind)
    with pytest.raises(DataError, match=f"{kind}: .*{words}"):
        load(tmp_path)


# CoNLL --------------------------------------------------------------------------------------------


def read_tags(path, text, columns="0->1", **facts):
    path.write_bytes(text.encode())
    tokens, tags = columns.split("->")
    where = Declaration(path=str(path), input=tokens, label=tags, **facts)
    tagged = find_proxy(where.text).load(Path()).inputs
    return tagged.sentences, tuple(tuple(tagged.names[k] for k in row) for row in tagged.tags)


@pytest.mark.parametrize(
    ("name", "text", "columns", "sentences", "tags"),
    [
        ("a.conll", "New York\tB\nis\tO\n26\u00a0000\tN\n\nbig\tO\n", "0->1",
         (("New York", "is", "26\u00a0000"), ("big",)), (("B", "O", "N"), ("O",))),
        ("a.conll", "a\u0085b\tX\nc\u2028d\tY\r\n\r\ne\tX\n", "0->1", (("a\u0085b", "c\u2028d"), ("e",)), (("X", "Y"), ("X",))),
        ("a.conll", "a\x0bb X\nc\x1cd Y\n", "0->1", (("a\x0bb", "c\x1cd"),), (("X", "Y"),)),
        ("a.conll", "\ufeff# id 7\tdomain=en\nnew _ _ B\ntown _ _ I\n\n# id 8\tdomain=en\nhi _ _ O\n", "0->3",
         (("new", "town"), ("hi",)), (("B", "I"), ("O",))),
        ("a.conll", "#sun X\nis Y\n", "0->1", (("#sun", "is"),), (("X", "Y"),)),
        ("a.conll", "# X\nis Y\na X\n", "0->1", (("#", "is", "a"),), (("X", "Y", "X"),)),
        ("a.conll", "#\tX\nis\tY\n", "0->1", (("#", "is"),), (("X", "Y"),)),
        ("a.conll", "no X\n# Z\nis Y\n", "0->1", (("no", "#", "is"),), (("X", "Z", "Y"),)),
        ("a.conll", "# newdoc\nno X\nis Y\n", "0->1", (("no", "is"),), (("X", "Y"),)),
        ("a.conll", "no X\n\ufeffis Y\n", "0->1", (("no", "is"),), (("X", "Y"),)),
        ("a.conll", "-DOCSTART- -X-\n\nno X\n \t \nis Y\n", "0->1", (("no",), ("is",)), (("X",), ("Y",))),
        ("a.conllu", "# text = vamos\n1-2\tvamonos\t_\t_\n1\tvamos\tir\tVERB\n2\tnos\tnosotros\tPRON\n2.1\tx\t_\tNOUN\n",
         "1->3", (("vamos", "nos"),), (("VERB", "PRON"),)),
        ("a.txt", "1-2\tvamonos\t_\t_\n1\tvamos\tir\tVERB\n2\tnos\tnosotros\tPRON\n", "1->-1",
         (("vamos", "nos"),), (("VERB", "PRON"),)),
        ("a.conll", "1-2 S\nwin X\n3.5 N\n", "0->1", (("1-2", "win", "3.5"),), (("S", "X", "N"),)),
        ("A.IOB2", "no X\nis Y", "0->1", (("no", "is"),), (("X", "Y"),)),
    ],
)  # fmt: skip
def test_tokens_are_what_stands_in_the_lines(tmp_path, name, text, columns, sentences, tags):
    assert read_tags(tmp_path / name, text, columns) == (sentences, tags)


def test_an_encoding_and_a_packed_file_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("café X\nis Y\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"byte 3 \(0xe9, line 1\) is not UTF-8"):
        load(tmp_path / "a.txt", "0->1")
    where = as_text({"path": str(tmp_path / "a.txt"), "input": 0, "label": 1, "encoding": "latin-1"})
    assert find_proxy(where).load(Path()).inputs.sentences == (("café", "is"),)
    (tmp_path / "b.conll.gz").write_bytes(gzip.compress(b"a X\nb Y\n", mtime=0))
    assert find_proxy(f"{tmp_path}/b.conll.gz[]:0->1").form == "tagged"
    assert load(tmp_path / "b.conll.gz", "0->1").inputs.sentences == (("a", "b"),)


@pytest.mark.parametrize(
    ("text", "n_classes", "words"),
    [
        ("a _\nb _\n", None, "all 2 tokens have the tag '_'. That looks like the wrong column"),
        ("".join(f"w{i} v{i % 15}\n" for i in range(25)), None, "25 tokens have 15 different tags"),
        ("a _\nb _\n", 1, None),
        ("".join(f"w{i} v{i % 15}\n" for i in range(25)), 15, None),
        ("a X\nb Y\n", 3, "there are 2 classes, not n_classes = 3"),
        ("a\tX\nb\t\n", None, "a.conll:2: column 1 is empty"),
        ("", None, "there are no tokens"),
    ],
)
def test_columns_that_look_wrong_are_questioned(tmp_path, text, n_classes, words):
    if words is None:
        assert len(set(sum(read_tags(tmp_path / "a.conll", text, n_classes=n_classes)[1], ()))) == n_classes
        return
    with pytest.raises(DataError, match=words):
        read_tags(tmp_path / "a.conll", text, n_classes=n_classes)


# Tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "labels", "texts"),
    [
        ("a.csv", "text,kind\nhello,NA\nbye,EU\nyes,NA\n", [1, 0, 1], ("hello", "bye", "yes")),
        ("a.csv", "text,kind\nNA,NA\nnull,NA\nnan,NA\n", [0, 0, 0], ("NA", "null", "nan")),
        ("A.CSV", "text,kind\na,10\nb,9\nc,10\n", [1, 0, 1], ("a", "b", "c")),
        ("a.tsv", "text\tkind\na, b\tx\nc\ty\n", [0, 1], ("a, b", "c")),
        ("a.csv", "text,kind\na,1.0\nb,2.0\n", [0, 1], ("a", "b")),
        ("a.csv", "text,kind\na,true\nb,false\n", [1, 0], ("a", "b")),
        ("a.csv", "text,kind\na,007\nb,7\n", [0, 1], ("a", "b")),
        ("a.csv", "\ufefftext,kind\r\n\"a\nb\",x\r\n2020-01-01,y\r\n", [0, 1], ("a\nb", "2020-01-01")),
        ("a.csv", "text,kind\na\u2028b,x\nc,y\n", [0, 1], ("a\u2028b", "c")),
        ("a.jsonl", '{"text": "a", "kind": true}\n\n{"text": "b", "kind": false}\n', [1, 0], ("a", "b")),
        ("a.jsonl", '{"text": "a", "kind": 2.0}\n{"text": "b", "kind": 1}\n', [1, 0], ("a", "b")),
        ("a.json", '[{"text": "a", "kind": "NA"}, {"text": "b", "kind": "B"}]', [1, 0], ("a", "b")),
    ],
)  # fmt: skip
def test_labels_and_texts_of_tables_are_what_is_written(tmp_path, name, content, labels, texts):
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
        data = load(path, "text->kind")
        assert (data.labels.tolist(), data.inputs) == (labels, texts)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([True, False, True]), [1, 0, 1]),
        (pa.array([2.0, 1.0, 2.0]), [1, 0, 1]),
        (pa.array(["NA", "EU", "NA"]).dictionary_encode(), [1, 0, 1]),
        (pa.array([300, 2, 300], pa.uint16()), [1, 0, 1]),
        (pa.array([1.5, 1.0, 2.0]), "label 1.5 of sample 0 is neither"),
        (pa.array([None, 1, 2]), "label None of sample 0"),
        (pa.array([float("nan"), 1, 2]), "label nan of sample 0"),
        (pa.array(["", "a", "b"]), "the label of sample 0 is empty"),
        (pa.array([b"a", b"b", b"c"]), "label b'a' of sample 0"),
    ],
)
def test_labels_of_parquet(tmp_path, column, labels):
    pq.write_table(pa.table({"text": ["a", "b", "c"], "kind": column}), tmp_path / "A.PARQUET")
    if isinstance(labels, str):
        with pytest.raises(DataError, match=labels):
            load(tmp_path / "A.PARQUET", "text->kind")
    else:
        assert load(tmp_path / "A.PARQUET", "text->kind").labels.tolist() == labels


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,kind\ncafé,A\nbar,B\n".encode("latin-1"), r"byte 13 \(0xe9, line 2\) is not UTF-8. .*encoding: latin-1"),
        ("a.csv", "text,kind\na,A\n".encode("utf-16"), r"byte 0 \(0xff, line 1\) is not UTF-8. .*encoding: utf-16"),
        ("a.csv", b"text;kind\na;A\n", "there is no column 'text'. .*save it with commas"),
        ("a.csv", b"text,kind,kind\na,A,B\n", "2 columns are named 'kind'"),
        ("a.csv", b"text,kind\na,A\nb\n", "cannot be read .*Expected 2 columns, got 1"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"text,kind\n", "the data set is empty"),
        ("a.csv", b"text,kind\na,\n", "the label of sample 0 is empty"),
        ("a.csv.gz", b"text,kind\na,b\n", "cannot be read .BadGzipFile"),
        ("a.csv.gz", gzip.compress(b"text,kind\na,b\n", mtime=0)[:-9], "cannot be read .EOFError"),
        ("a.jsonl", b'{"text": "a", "kind": 1}\n{"text": "b"}\n', "object 2 has no 'kind'"),
        ("a.jsonl", b'{"text": "a", "kind": 1}\n[1]\n', "object 2 is .*Each must be"),
        ("a.jsonl", b'{"text": "a"', "not JSON lines"),
        ("a.xlsx", b"x", "files ending in .xlsx are not read"),
        ("a.csv.bz2", b"x", "files ending in .bz2 are not read"),
        ("a.parquet", b"PAR1", "cannot be read .ArrowInvalid"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load(tmp_path / name, "text->kind")


def test_an_encoding_can_be_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,kind\ncafé,A\nbar,B\n".encode("latin-1"))
    assert find_proxy(f"{tmp_path}/a.csv#encoding=latin-1[]:text->kind").load(Path()).inputs == ("café", "bar")
    (tmp_path / "a.csv").write_text("text,kind\na,A\nb,B\n", "utf-16")
    assert find_proxy(f"{tmp_path}/a.csv#encoding=utf-16[]:text->kind").load(Path()).inputs == ("a", "b")
    with pytest.raises(InputError, match="there is no encoding 'latin-99'"):
        find_proxy(f"{tmp_path}/a.csv#encoding=latin-99[]:text->kind")
    with pytest.raises(InputError, match="there is no encoding 'zip'"):
        find_proxy(f"{tmp_path}/a.csv#encoding=zip[]:text->kind")


def test_a_folder_of_tables_has_splits_by_their_names(tmp_path):
    def write(name, start):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table = pa.table({"text": [f"t{start + i}" for i in range(3)], "kind": [0, 1, 0]})
        pq.write_table(table, tmp_path / name)

    write("data/train-00000-of-00002.parquet", 0)
    write("data/train-00001-of-00002.parquet", 3)
    assert load(tmp_path, "text->kind", "").inputs == ("t0", "t1", "t2", "t3", "t4", "t5")
    write("data/test-00000-of-00001.parquet", 6)
    assert load(tmp_path, "text->kind", "test[:2]").inputs == ("t6", "t7")
    assert load(tmp_path, "text->kind", "train[-4:]").inputs == ("t2", "t3", "t4", "t5")
    with pytest.raises(DataError, match="no split is named. It has test, train"):
        load(tmp_path, "text->kind", "")
    with pytest.raises(DataError, match="there is no split 'dev'"):
        load(tmp_path, "text->kind", "dev")


# Declarations -------------------------------------------------------------------------------------

ODD = ["a b", "a#b", "a@b", "a[b", "a]b", "a=b", 'a"b', "a'b", "ü日", "a->b", "[x]:y->z", "a\\b", "a,b", " a ", "a\nb"]


@pytest.mark.parametrize("name", [*ODD, "a" * 250, "/".join(["long"] * 300)])
def test_every_path_works_as_a_mapping_and_its_text_is_read_back(tmp_path, name):
    folder = tmp_path / name
    save_noise(folder / "c" / "1.png")
    text = as_text({"path": str(folder), "input": "image", "label": "label"})
    assert parse_proxy(text).path == str(folder)
    assert parse_proxy(text).text == text
    assert canonicalise_proxy(text) == text
    assert find_proxy(canonicalise_proxy(text)).load(Path()).inputs.shape == (1, 3, 12, 12)
    assert explain_missing_proxy(find_proxy(f"shuffled:{text}")) == []


@pytest.mark.parametrize("part", [*ODD, "-", "]", "[:2]", "a]", "a-", "->"])
def test_every_part_is_read_back(part):
    for key in ("path", "input", "label", "split", "config", "revision"):
        parts = {"path": "org/name", "input": "i", "label": "l", key: part}
        where = Declaration(**parts, encoding="utf-16", n_classes=2)
        assert parse_proxy(where.text) == where


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("./a\0b", "contains a NUL character"),
        ("./" + "a" * 256, "longer than the file system allows"),
        ("./" + "é" * 200, " bytes: the path, or a part of it, is longer"),
        ("/" + "a/" * 3000, "longer than the file system allows"),
    ],
)
def test_impossible_paths_are_explained(path, words):
    text = as_text({"path": path, "input": "image", "label": "label"})
    with pytest.raises(InputError, match=words):
        find_proxy(canonicalise_proxy(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./a#b[train]:image->label", "is a file or folder, which has no config. If # or @ belongs to the path"),
        ("./a@b[train]:image->label", "which has no revision"),
        ("./a#encoding=latin-1[train]:image->label", "encoding = 'latin-1': ./a is not a text file"),
        ("org/name#encoding=latin-1[train]:text->label", "org/name is not a text file"),
        ("./a#n_classes=0[train]:image->label", "n_classes = 0: there must be at least one class"),
    ],
)
def test_what_a_file_does_not_have_is_said(text, words):
    with pytest.raises(InputError, match=words):
        find_proxy(text)


def test_a_hub_id_without_a_split_means_train(tmp_path):
    assert canonicalise_proxy(as_text({"path": "org/name", "input": "i", "label": "l"})) == "org/name[train]:i->l"
    assert canonicalise_proxy(f"{tmp_path}[]:i->l") == f"{tmp_path}[]:i->l"
    with pytest.raises(ValueError, match="n_classes 'two' is not a whole number"):
        as_text({"path": "x", "input": "i", "label": "l", "n_classes": "two"})


# Nothing is cut without a word --------------------------------------------------------------------


def test_what_a_proxy_holds_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(declared, "MAX_SAMPLES", 5)
    (tmp_path / "a.csv").write_text("text,kind\n" + "".join(f"t{i},{i % 3}\n" for i in range(8)))
    name = f"{tmp_path}/a.csv[]:text->kind"
    data = find_proxy(name).load(Path())
    assert (len(data.labels), data.n_found) == (5, 8)
    assert find_proxy(f"shuffled:{name}").load(Path()).n_found == 8
    assert describe_proxy(name) == "proxy a.csv: 8 samples of 3 classes; 5 of them are used, drawn with a fixed seed"
    (tmp_path / "a.conll").write_text("a B-X\nb I-X\nc O\n")
    name = f"{tmp_path}/a.conll[]:0->1"
    assert describe_proxy(name) == "proxy a.conll: 3 tokens of 3 classes"
    assert draw_samples(find_proxy(name).load(Path()), "mean").n_found == 2
    assert (describe_proxy("mnist5k"), describe_proxy("none"), describe_proxy("org/name[train]:a->b")) == (None,) * 3
    broken = find_proxy(f"{tmp_path}/a.conll[]:0->7")
    assert "3 columns" in explain_missing_proxy(broken)[0] or "2 columns" in explain_missing_proxy(broken)[0]
    assert describe_proxy(broken.declaration) is None


def test_texts_that_are_longer_than_what_is_read_are_counted(tmp_path):
    from tests.builders.bodies import saved_roberta

    body = load_pretrained(find_body(str(saved_roberta(tmp_path / "body"))))
    length = min(body.spec.max_tokens, MAX_TEXT_TOKENS)
    special = len(body.tokenizer("")["input_ids"])
    texts = tuple("the " * n for n in (1, length - special, length - special + 1, 500))
    assert count_cut_texts(body, texts) == 2
    assert count_cut_texts(body, np.zeros((1, 3, 4, 4))) is None


def test_a_row_tells_what_the_proxy_held(run, tmp_path):
    for label in "abc":
        for i in range(4):
            save_noise(tmp_path / "data" / label / f"{i}.png", ord(label) * 10 + i)
    row, _ = run(task="tiny", proxy=f"{tmp_path}/data[]:image->label", embedder__proxy_samples=10)
    assert row["status"] == "ok", row["error"]
    assert (row["n_proxy"], row["n_proxy_found"], row["n_proxy_classes"], row["n_proxy_texts_cut"]) == (10, 12, 3, None)


def test_file_names_of_any_bytes_are_read(tmp_path):
    folder = os.fsencode(tmp_path) + b"/d/\xff\xfe"
    os.makedirs(folder)
    save_noise(tmp_path / "d" / "b" / "1.png")
    os.rename(os.fsencode(tmp_path) + b"/d/b/1.png", folder + b"/\xe9.png")
    save_noise(tmp_path / "d" / "b" / "1.png", 1)
    assert load(tmp_path / "d").labels.tolist() == [0, 1]


def test_data_sets_of_the_hub_are_read_by_the_same_rules():
    import datasets

    names = datasets.ClassLabel(names=["x", "y"])
    features = datasets.Features({"img": datasets.Image(), "label": names})
    deep = Image.fromarray((RAMP * 65535).astype(np.uint16))
    table = datasets.Dataset.from_dict({"img": [deep, GREY], "label": [1, 0]}, features=features)
    where = Declaration(path="org/name", input="img", label="label")
    data = declared._label_rows(convert_hub_table(table, where), where)
    assert data.labels.tolist() == [1, 0]
    np.testing.assert_allclose(data.inputs, np.broadcast_to(RAMP, (2, 3, 64, 64)), atol=0.02)
    tags = datasets.Features({"img": datasets.Sequence(datasets.Value("string")), "label": datasets.Sequence(names)})
    table = datasets.Dataset.from_dict({"img": [["a", "b"], ["c"]], "label": [[0, 1], [1]]}, features=tags)
    tagged = declared._label_rows(convert_hub_table(table, where), where).inputs
    assert (tagged.sentences, tagged.tags, tagged.names) == ((("a", "b"), ("c",)), ((0, 1), (1,)), ("x", "y"))
