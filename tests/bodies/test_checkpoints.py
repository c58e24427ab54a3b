"""A body's weights are its weights: broken checkpoints are refused in words, good ones load to the bit."""

import json
import math
import os
import shutil
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orca_sweep.bodies import find_body, find_file_problems
from orca_sweep.bodies.checkpoints import read_header
from orca_sweep.bodies.configs import DEFAULTS, fill_config, find_config_problems
from orca_sweep.bodies.inputs import compute_input_features, tokenize_texts
from orca_sweep.bodies.network import build_base_model, build_random_model, load_config, load_pretrained
from orca_sweep.bodies.shapes import list_weight_shapes, publish_name
from orca_sweep.errors import DataError, InputError
from orca_sweep.trial import find_body_problems, make_config, resolve_configs, unavailable_parts
from tests.builders.bodies import SIZES

TEXT, IMAGE = ("roberta", "bert", "gpt2", "gpt_neox"), ("swin", "vit")
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 498818054\n"
)
POINTS = r"a Git LFS pointer, not the file itself \(its 498,818,054 bytes are missing\). Run 'git lfs pull'"
SAFE, PICKLE = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="session")
def kept_bodies(tmp_path_factory):
    """Saves each family once, without a head."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    from orca_sweep.training.pretrain_corpus import learn_tokenizer

    raw = learn_tokenizer(300, ("the type of a type", "attributes are inherited"))
    root = tmp_path_factory.mktemp("bodies")
    for family, sizes in SIZES.items():
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(root / family)
        if family in TEXT:
            pad = {} if family.startswith("gpt") else {"pad_token": "<pad>"}
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(raw), eos_token="</s>", **pad)
            tokenizer.save_pretrained(root / family)
    return root


@pytest.fixture
def body_of(kept_bodies, tmp_path):
    """Copies a family's folder to be broken."""
    return lambda family: shutil.copytree(kept_bodies / family, tmp_path / f"a-{family}")


def change_weights(change):
    """Rewrites the weights of a folder by a function of their dict."""

    def rewrite(folder):
        weights = load_file(folder / SAFE)
        save_file(change(weights) or weights, folder / SAFE, metadata={"format": "pt"})

    return rewrite


def rename(old, new):
    return change_weights(
        lambda weights: {key.replace(old, new, 1) if old else new + key: w for key, w in weights.items()}
    )


def drop(*parts):
    return change_weights(
        lambda weights: {key: w for key, w in weights.items() if not any(part in key for part in parts)}
    )


def config(**settings):
    def rewrite(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return rewrite


def pointer(name):
    return lambda folder: (folder / name).write_text(POINTER)


def shard(folder):
    """Splits a folder's weights into three shards with an index."""
    weights = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    names = [f"model-{i + 1:05}-of-00003.safetensors" for i in range(3)]
    index = {key: names[i % 3] for i, key in enumerate(sorted(weights))}
    for name in names:
        save_file({key: weights[key] for key, file in index.items() if file == name}, folder / name, {"format": "pt"})
    (folder / f"{SAFE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def sharded(then):
    return lambda folder: (shard(folder), then(folder))


def double_shard(folder):
    shard(folder)
    weights = load_file(folder / "model-00001-of-00003.safetensors")
    other = folder / "model-00002-of-00003.safetensors"
    save_file({**load_file(other), **weights}, other, metadata={"format": "pt"})


def pickled(change=lambda weights: weights, name=PICKLE):
    """Saves a folder's weights as a pickle instead."""

    def rewrite(folder):
        weights = load_file(folder / SAFE)
        (folder / SAFE).unlink()
        torch.save(change(weights), folder / name)

    return rewrite


def damage(change):
    """Rewrites the bytes of a folder's weights."""

    def rewrite(folder):
        (folder / SAFE).write_bytes(change((folder / SAFE).read_bytes()))

    return rewrite


def poison(value, *names):
    def change(weights):
        for name in names:
            weights[name].view(-1)[0] = value

    return change_weights(change)


def with_header(change):
    """Rewrites the header of a folder's weights, without touching their data."""

    def rewrite(data):
        length = struct.unpack("<Q", data[:8])[0]
        header = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    return damage(rewrite)


TWICE = b'"layernorm.bias":{"dtype":"F32","shape":[48],"data_offsets":[0,192]},'


def tokenizer_settings(**settings):
    def rewrite(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return rewrite


def change_tokenizer(change):
    def rewrite(folder):
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        change(tokenizer)
        path.write_text(json.dumps(tokenizer))

    return rewrite


class Evil:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return (exec, ("import pathlib, os; pathlib.Path(os.environ['ORCA_EVIL']).touch()",))


WRAPPED = "saved from a compiled or wrapped model. Save the inner model"
# family, what is broken, words, and whether headers tell (else: loading).
BROKEN_WEIGHTS = {
    "compiled": (
        "bert",
        rename("", "_orig_mod."),
        f"53 missing .*Keys contain '_orig_mod.': these weights were {WRAPPED}",
    ),
    "wrapped": ("vit", rename("", "module."), f"54 missing .*Keys contain 'module.': these weights were {WRAPPED}"),
    "wrapped and compiled": ("swin", rename("", "module._orig_mod."), f"60 missing .*{WRAPPED}"),
    "compiled inside": ("roberta", rename("", "roberta._orig_mod."), WRAPPED),
    "one layer compiled": ("gpt2", rename("h.1.", "h.1._orig_mod."), f"12 missing .*h.1.ln_1.weight.*{WRAPPED}"),
    "in a model around it": ("swin", rename("", "backbone."), "Keys begin with 'backbone.': .*Save the inner model"),
    "lacks a layer": (
        "gpt2",
        drop("h.1."),
        r"12 missing \(h.1.ln_1.weight, .*\.\.\.\)\. config.json has 3 layers, the weights have 2",
    ),
    "lacks the last block": ("swin", drop("layers.1.blocks.1."), "config.json has 3 layers, the weights have 2"),
    "lacks one bias": (
        "swin",
        drop("encoder.layers.0.downsample.norm.bias"),
        r"1 missing \(encoder.layers.0.downsample.norm.bias\)",
    ),
    "lacks the final norm": (
        "vit",
        drop("layernorm.weight", "layernorm.bias"),
        r"2 missing \(layernorm.weight, layernorm.bias\)",
    ),
    "lacks the words": ("gpt_neox", drop("embed_in"), r"1 missing \(embed_in.weight\)"),
    "lacks token types": ("bert", drop("token_type"), r"1 missing \(embeddings.token_type_embeddings.weight\)"),
    "lacks the class token": ("vit", drop("cls_token"), r"1 missing \(embeddings.cls_token\)"),
    "config has more layers": (
        "gpt_neox",
        config(num_hidden_layers=5),
        r"24 missing \(layers.3.*config.json has 5 layers, the weights have 3. Use config and weights of the same",
    ),
    "config has fewer layers": (
        "bert",
        config(num_hidden_layers=2),
        r"16 not in its config.json \(encoder.layer.2.*config.json has 2 layers, the weights have 3",
    ),
    "config of another vocabulary": (
        "gpt2",
        config(vocab_size=400),
        r"1 of another shape \(wte.weight \(300, 48\) instead of \(400, 48\)\)",
    ),
    "config of another width": (
        "roberta",
        config(hidden_size=96),
        r"\d+ of another shape \(embeddings.word_embeddings.weight \(300, 48\) instead of \(300, 96\), ",
    ),
    "config of more positions": (
        "roberta",
        config(max_position_embeddings=514),
        r"position_embeddings.weight \(66, 48\) instead of \(514, 48\)",
    ),
    "config of other patches": (
        "vit",
        config(patch_size=16),
        r"\(1, 17, 48\) instead of \(1, 5, 48\), .*projection.weight \(48, 3, 8, 8\) instead of \(48, 3, 16, 16\)",
    ),
    "config of another image": (
        "vit",
        config(image_size=64),
        r"1 of another shape \(embeddings.position_embeddings \(1, 17, 48\) instead of \(1, 65, 48\)\)",
    ),
    "config of another window": (
        "swin",
        config(window_size=2),
        r"3 of another shape \(.*relative_position_bias_table \(49, 2\) instead of \(9, 2\)",
    ),
    "config without biases": (
        "vit",
        config(qkv_bias=False),
        r"9 not in its config.json \(encoder.layer.0.attention.attention.key.bias",
    ),
    "another model's file": (
        "roberta",
        lambda f: shutil.copy(f.parent / "other.safetensors", f / SAFE),
        r"None of its 1 keys \(first: something.else\) belongs to a roberta body",
    ),
    "no weights": ("bert", change_weights(lambda w: {"x": torch.zeros(1)}), r"None of its 1 keys \(first: x\)"),
    "whole numbers": (
        "bert",
        change_weights(lambda w: {k: (t * 100).to(torch.int8) for k, t in w.items()}),
        r"53 not floating-point \(embeddings.word_embeddings.weight I8, ",
    ),
    "keys twice": (
        "bert",
        change_weights(lambda w: {**w, "bert.embeddings.LayerNorm.bias": torch.ones(48)}),
        r"1 duplicate, with and without a prefix \(embeddings.LayerNorm.bias\)",
    ),
    "a shard is not there": (
        "roberta",
        sharded(lambda f: (f / "model-00002-of-00003.safetensors").unlink()),
        r"missing shards: 1 of 3 \(model-00002-of-00003.safetensors\). Put each shard beside the index",
    ),
    "a shard lacks keys": (
        "bert",
        sharded(lambda f: save_file({"x": torch.zeros(1)}, f / "model-00002-of-00003.safetensors")),
        r"\d+ missing",
    ),
    "a key in two shards": ("gpt2", double_shard, "keys that another shard holds too: "),
    "an index of nothing": (
        "bert",
        sharded(lambda f: (f / f"{SAFE}.index.json").write_text("{}")),
        "not an index of shards",
    ),
    "a broken index": ("bert", sharded(lambda f: (f / f"{SAFE}.index.json").write_text("{")), "not an index of shards"),
    "an index that leads out": (
        "bert",
        sharded(
            lambda f: (f / f"{SAFE}.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
        ),
        "not an index of shards",
    ),
    "overlapping data": (
        "vit",
        with_header(
            lambda h: {
                k: {**e, "data_offsets": h["layernorm.bias"]["data_offsets"]} if k == "layernorm.weight" else e
                for k, e in h.items()
            }
        ),
        "not a safetensors file",
    ),
    "data of a head that lies over the body's": (
        "vit",
        with_header(lambda h: {**h, "head": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}}),
        "not a safetensors file",
    ),
    "a place that ends before it starts": (
        "vit",
        with_header(lambda h: {**h, "head": {"dtype": "F4", "shape": [0], "data_offsets": [5, 3]}}),
        "not a safetensors file",
    ),
    "a shape of a thousand dimensions": (
        "vit",
        with_header(lambda h: {**h, "head": {"dtype": "F32", "shape": [10**4000] * 1000, "data_offsets": [0, 0]}}),
        "not a safetensors file",
    ),
    "a header in UTF-16": (
        "vit",
        damage(
            lambda d: (lambda n, text: struct.pack("<Q", len(text)) + text + d[8 + n :])(
                struct.unpack("<Q", d[:8])[0], d[8 : 8 + struct.unpack("<Q", d[:8])[0]].decode().encode("utf-16")
            )
        ),
        "not a safetensors file",
    ),
    "a header with a key twice": (
        "vit",
        damage(lambda d: struct.pack("<Q", struct.unpack("<Q", d[:8])[0] + len(TWICE)) + b"{" + TWICE + d[9:]),
        "not a safetensors file",
    ),
    "notes that are no texts": (
        "vit",
        with_header(lambda h: {**h, "__metadata__": {"format": ["pt"]}}),
        "not a safetensors file",
    ),
    "a key that is a picture of another": (
        "vit",
        change_weights(lambda w: {**w, "encoder.\n\x1b[31m" + "x" * 10_000: torch.zeros(1)}),
        r"1 not in its config.json \('encoder.\\n\\x1b\[31mx{170,190}\.\.\.\)\.",
    ),
    "an index without notes": (
        "bert",
        sharded(
            lambda f: (f / f"{SAFE}.index.json").write_text(
                json.dumps({"weight_map": json.loads((f / f"{SAFE}.index.json").read_text())["weight_map"]})
            )
        ),
        r"not an index of shards. It needs a mapping metadata",
    ),
    "an index of a name that nothing has": (
        "bert",
        sharded(
            lambda f: (f / f"{SAFE}.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": {"a": "a" * 5000}})
            )
        ),
        "not an index of shards",
    ),
    "a tokenizer's settings alone": (
        "bert",
        lambda f: (f / "tokenizer.json").unlink(),
        "the folder has no tokenizer.json",
    ),
    "a tokenizer of gigabytes": (
        "bert",
        lambda f: os.truncate(f / "tokenizer.json", 3 * 10**9),
        "3,000,000,000 bytes are too many for a tokenizer",
    ),
    "cut off": ("vit", damage(lambda data: data[:-1000]), r"bytes, but its header declares .*truncated or damaged"),
    "longer than it says": ("vit", damage(lambda data: data + b"\0" * 8), r"bytes, but its header declares"),
    "cut off in its header": (
        "vit",
        damage(lambda data: data[:100]),
        r"100 bytes, but its header alone takes .*The file is truncated",
    ),
    "empty": ("swin", damage(lambda data: b""), "not a safetensors file"),
    "a web page": ("gpt2", damage(lambda data: b"<!doctype html><html>Not found</html>"), "not a safetensors file"),
    "a broken header": ("bert", damage(lambda data: data[:8] + b"x" + data[9:]), "not a safetensors file"),
    "a header that lies": (
        "bert",
        with_header(lambda h: {k: {**e, "shape": [2]} if k.endswith("LayerNorm.bias") else e for k, e in h.items()}),
        "not a safetensors file",
    ),
    "pointer to weights": ("bert", pointer(SAFE), POINTS),
    "pointer to a shard": ("bert", sharded(pointer("model-00003-of-00003.safetensors")), POINTS),
    "pointer to an index": ("bert", sharded(pointer(f"{SAFE}.index.json")), POINTS),
    "pointer to a tokenizer": ("gpt2", pointer("tokenizer.json"), POINTS),
    "pointer to a tokenizer's settings": ("gpt2", pointer("tokenizer_config.json"), POINTS),
    "an adapter": ("gpt2", lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter of another model"),
    "a distributed checkpoint": (
        "gpt2",
        lambda f: (f / "shard-00000-model-00001-of-00002.safetensors").touch(),
        "holds a distributed checkpoint",
    ),
    "a tokenizer of more words": (
        "bert",
        lambda f: (
            change_weights(
                lambda w: w.update(
                    {"embeddings.word_embeddings.weight": w["embeddings.word_embeddings.weight"][:40].clone()}
                )
            )(f),
            config(vocab_size=40)(f),
        ),
        r"\d+ words, but the body's embedding has 40 rows, so words 40 to \d+ have no embedding",
    ),
    "pointer to a tokenizer's words": ("roberta", pointer("vocab.json"), POINTS),
    "a broken tokenizer": ("gpt2", lambda f: (f / "tokenizer.json").write_text("{"), "cannot be read as a tokenizer"),
    "no tokenizer": (
        "gpt2",
        lambda f: (f / "tokenizer.json").write_text('{"model": {}}'),
        "cannot be read as a tokenizer",
    ),
}


@pytest.fixture
def other_file(tmp_path):
    save_file({"something.else": torch.zeros(3)}, tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_a_broken_checkpoint_is_refused_before_and_when_it_is_loaded(name, body_of, other_file):
    family, break_it, words = BROKEN_WEIGHTS[name]
    folder = body_of(family)
    break_it(folder)
    body = find_body(str(folder))
    [problem] = find_file_problems(body)
    assert (problem.field, problem.value) == ("body.name", str(folder)) and problem.rule.startswith(str(folder))
    with pytest.raises(DataError, match=words):
        raise DataError(problem.rule)
    with pytest.raises(DataError, match=words) as error:
        load_pretrained(body)
    assert str(error.value) in problem.rule


UNSEEN = {
    "NaN": (
        "vit",
        poison(math.nan, "layernorm.weight", "encoder.layer.1.output.dense.bias"),
        r"NaN or infinite values in 2 of its weights \(.*layernorm.weight",
    ),
    "infinite": (
        "gpt2",
        poison(math.inf, "wte.weight"),
        r"NaN or infinite values in 1 of its weights \(wte.weight\)",
    ),
    "beyond single precision": (
        "bert",
        change_weights(
            lambda w: {
                k: t.double() * 1e300
                if k == "embeddings.LayerNorm.bias"
                else t.double() + (1e300 if k.endswith("word_embeddings.weight") else 0)
                for k, t in w.items()
            }
        ),
        r"NaN or infinite values in 1 of its weights \(embeddings.word_embeddings.weight\)",
    ),
    "pickle lacks a layer": (
        "gpt2",
        pickled(lambda w: {k: t for k, t in w.items() if "h.1." not in k}),
        "12 missing .*config.json has 3 layers, the weights have 2",
    ),
    "pickle of a compiled model": ("bert", pickled(lambda w: {f"_orig_mod.{k}": t for k, t in w.items()}), WRAPPED),
    "pickle of another shape": (
        "vit",
        pickled(lambda w: {**w, "layernorm.weight": torch.ones(3)}),
        r"layernorm.weight \(3,\) instead of \(48,\)",
    ),
    "pickle of whole numbers": (
        "vit",
        pickled(lambda w: {k: t.to(torch.int32) for k, t in w.items()}),
        "54 not floating-point .*torch.int32",
    ),
    "pickle of NaN": (
        "vit",
        pickled(lambda w: {**w, "layernorm.weight": torch.full((48,), math.nan)}),
        "NaN or infinite values in 1 of its weights",
    ),
    "pickle of a training state": (
        "bert",
        pickled(lambda w: {"state_dict": w, "epoch": 3}),
        "not a dict of tensors by name. It holds state_dict",
    ),
    "pickle of a list": (
        "bert",
        pickled(lambda w: list(w.values())),
        "the pickle holds a list, not a dict of tensors by name",
    ),
    "pickle of one tensor": ("bert", pickled(lambda w: torch.zeros(3)), "the pickle holds a Tensor"),
    "pickle cut off": (
        "bert",
        lambda f: (pickled()(f), (f / PICKLE).write_bytes((f / PICKLE).read_bytes()[:5000])),
        "the pickle cannot be read as tensors only",
    ),
    "pickle of nothing": (
        "bert",
        lambda f: (pickled()(f), (f / PICKLE).write_bytes(b"")),
        "the pickle cannot be read as tensors only",
    ),
    "pickle that runs code": (
        "bert",
        pickled(lambda w: {**w, "x": Evil()}),
        "cannot be read as tensors only .*[Ww]eights.only.* None of its code ran",
    ),
    "pickle of the older format that runs code": (
        "bert",
        lambda f: (pickled()(f), torch.save({"x": Evil()}, f / PICKLE, _use_new_zipfile_serialization=False)),
        "None of its code ran",
    ),
    "pointer to a pickle": ("vit", lambda f: (pickled()(f), pointer(PICKLE)(f)), POINTS),
    "a pickle's shard is not there": (
        "vit",
        lambda f: (
            pickled(name="a.bin")(f),
            (f / "pytorch_model.bin.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": {"layernorm.weight": "b.bin"}})
            ),
        ),
        r"missing shards: 1 of 1 \(b.bin\)",
    ),
    "pickle's key in two shards": (
        "vit",
        lambda f: (
            pickled(name="a.bin")(f),
            torch.save({"layernorm.weight": torch.zeros(48)}, f / "b.bin"),
            (f / "pytorch_model.bin.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": {"layernorm.weight": "a.bin", "x": "b.bin"}})
            ),
        ),
        r"b.bin: keys that another shard holds too: 1 \(layernorm.weight\)",
    ),
    "a tokenizer of Python alone": (
        "bert",
        tokenizer_settings(tokenizer_class="CanineTokenizer"),
        "words, but|which is needed",
    ),
    "a tokenizer without words": (
        "gpt2",
        lambda f: (
            (f / "tokenizer_config.json").unlink(),
            change_tokenizer(lambda t: (t["model"].update(vocab={}, merges=[]), t.update(added_tokens=[])))(f),
        ),
        "the tokenizer has no words",
    ),
    "no such activation": ("bert", config(hidden_act="nonsense"), "cannot be loaded .*nonsense"),
}
"""What only loading tells."""


@pytest.mark.parametrize("name", UNSEEN)
def test_what_headers_do_not_tell_is_refused_when_it_is_loaded(name, body_of, tmp_path, monkeypatch):
    monkeypatch.setenv("ORCA_EVIL", str(tmp_path / "evil"))
    family, break_it, words = UNSEEN[name]
    folder = body_of(family)
    break_it(folder)
    with pytest.raises(DataError, match=words) as error:
        load_pretrained(find_body(str(folder)), allow_pickle=True)
    assert str(error.value).startswith(str(folder))
    assert not (tmp_path / "evil").exists()


BROKEN_CONFIGS = {
    "no layers": (
        "bert",
        {"num_hidden_layers": 0},
        "num_hidden_layers = 0 in its config.json: it must be a whole number from 1 to 1000",
    ),
    "negative layers": ("gpt2", {"n_layer": -2}, "n_layer = -2"),
    "layers under another name": ("gpt2", {"n_layer": 3, "num_hidden_layers": 0}, "n_layer = 0"),
    "no blocks": (
        "swin",
        {"depths": [0, 0]},
        r"depths = \[0, 0\] in its config.json: it must be a list of whole numbers above 0",
    ),
    "no stages": ("swin", {"depths": []}, r"depths = \[\]"),
    "too many stages": ("swin", {"depths": [1] * 9, "num_heads": [1] * 9}, "one per stage, at most 8"),
    "one stage's heads": (
        "swin",
        {"num_heads": [2]},
        r"depths \[1, 2\] and num_heads \[2\] .*: each needs one number per stage",
    ),
    "a million layers": ("gpt_neox", {"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
    "layers as text": ("vit", {"num_hidden_layers": "3"}, "num_hidden_layers = '3'"),
    "layers as null": ("roberta", {"num_hidden_layers": None}, "num_hidden_layers = None"),
    "layers as true": ("roberta", {"num_hidden_layers": True}, "num_hidden_layers = True"),
    "half a layer": ("roberta", {"num_hidden_layers": 2.5}, "num_hidden_layers = 2.5"),
    "no width": ("bert", {"hidden_size": 0}, "hidden_size = 0"),
    "heads that do not fit": (
        "roberta",
        {"num_attention_heads": 5},
        "hidden_size = 48 in its config.json is not a multiple of num_attention_heads = 5",
    ),
    "decoder's heads that do not fit": ("gpt2", {"n_head": 7}, "n_embd = 48 .* is not a multiple of n_head = 7"),
    "a stage's heads that do not fit": (
        "swin",
        {"num_heads": [2, 5]},
        "stage 1 is 48 wide, which 5 heads cannot divide evenly",
    ),
    "sides that differ": (
        "swin",
        {"image_size": [32, 64]},
        r"image_size = \[32, 64\] in its config.json: images and patches must be square: give one side, or two equal ones",
    ),
    "patches that differ": ("vit", {"patch_size": [8, 16]}, r"patch_size = \[8, 16\]"),
    "three sides": ("vit", {"image_size": [32, 32, 32]}, r"image_size = \[32, 32, 32\]"),
    "a side of text": ("vit", {"image_size": ["32", "32"]}, "image_size = '32'"),
    "a patch larger than the image": (
        "vit",
        {"patch_size": 64},
        "patch_size = 64 in its config.json is larger than image_size = 32",
    ),
    "a patch larger than the image, in lists": (
        "swin",
        {"patch_size": [64, 64]},
        "patch_size = 64 .* is larger than image_size = 32",
    ),
    "a grid that cannot be halved": ("swin", {"image_size": 36}, "image_size = 36 .* must be a multiple of 8"),
    "a window larger than the grid": (
        "swin",
        {"window_size": 7},
        "window_size = 7 .* is larger than the last stage's grid of 4 x 4",
    ),
    "no words": ("gpt_neox", {"vocab_size": -1}, "vocab_size = -1"),
    "no positions": ("bert", {"max_position_embeddings": 0}, "max_position_embeddings = 0"),
    "positions for padding alone": (
        "roberta",
        {"max_position_embeddings": 2},
        "the first 2 positions belong to padding",
    ),
    "padding beyond the words": (
        "bert",
        {"pad_token_id": 300},
        "pad_token_id = 300 in its config.json: the vocabulary has 300 words",
    ),
    "no padding": ("roberta", {"pad_token_id": None}, "pad_token_id is null"),
    "more left out than there is": (
        "bert",
        {"hidden_dropout_prob": 1.5},
        "hidden_dropout_prob = 1.5 in its config.json: it must be at least 0 and below 1",
    ),
    "all branches left out": ("swin", {"drop_path_rate": 1.0}, "drop_path_rate = 1.0"),
    "a rate that is no number": ("gpt2", {"resid_pdrop": math.nan}, "resid_pdrop = nan"),
    "a number that is none": (
        "bert",
        {"layer_norm_eps": math.nan},
        "layer_norm_eps = nan in its config.json: it must be finite",
    ),
    "a switch of text": ("vit", {"qkv_bias": "yes"}, "qkv_bias = 'yes' in its config.json: it must be true or false"),
    "quantised": ("gpt2", {"quantization_config": {"load_in_8bit": True}}, "quantised weights cannot be trained"),
    "another file": ("gpt2", {"transformers_weights": "other.safetensors"}, "must not name its weights file"),
    "with cross-attention": ("gpt2", {"add_cross_attention": True}, "needs the output of an encoder"),
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_an_impossible_config_is_refused_with_every_mistake(name, body_of):
    family, settings, words = BROKEN_CONFIGS[name]
    folder = body_of(family)
    good = find_body(str(folder))
    config(**settings)(folder)
    with pytest.raises(InputError, match=words):
        find_body(str(folder))
    # A hub id's config is seen when it is loaded.
    hub = replace(good, name="org/name")
    for load in (load_config, load_pretrained, lambda body: build_random_model(body, 0)):
        with pytest.raises(InputError, match=f"body.name = 'org/name': .*{words}"):
            load(hub)
    with pytest.raises(InputError, match=words):
        make_config({"task": "digits", "body.name": str(folder)})


def test_all_mistakes_of_a_config_come_at_once(body_of):
    folder = body_of("swin")
    config(depths=[0], image_size=0, qkv_bias=None)(folder)
    with pytest.raises(InputError) as error:
        find_body(str(folder))
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POINTER, POINTS),
        ("[" * 100_000, "not a JSON object"),
        ('{"model_type": ["bert"]}', r"its family \['bert'\] is not supported"),
        ('{"model_type": "bert", "x": "' + "x" * 2**21 + '"}', r"its config.json has 2,\d\d\d,\d\d\d bytes"),
    ],
)
def test_a_file_that_is_no_config_is_refused(text, words, body_of):
    folder = body_of("bert")
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=words):
        find_body(str(folder))


# Good checkpoints ---------------------------------------------------------------------------------


def head_of(family, folder):
    """Saves a body with a head, and returns the weights of the body."""
    from transformers import (
        AutoConfig,
        BertForPreTraining,
        GPT2LMHeadModel,
        GPTNeoXForCausalLM,
        RobertaForMaskedLM,
        SwinForImageClassification,
        ViTForImageClassification,
    )

    kinds = {
        "bert": BertForPreTraining,
        "roberta": RobertaForMaskedLM,
        "gpt2": GPT2LMHeadModel,
        "gpt_neox": GPTNeoXForCausalLM,
        "swin": SwinForImageClassification,
        "vit": ViTForImageClassification,
    }
    torch.manual_seed(3)
    model = kinds[family](AutoConfig.for_model(family, **SIZES[family]))
    for file in folder.glob("model*"):
        file.unlink()
    model.save_pretrained(folder)
    return getattr(model, model.base_model_prefix).state_dict()


def weights_of(folder, **more):
    return load_pretrained(find_body(str(folder)), **more).model.state_dict()


def assert_same(loaded, expected):
    assert all(torch.equal(tensor, expected[key].float()) for key, tensor in loaded.items())


@pytest.mark.parametrize("family", SIZES)
def test_the_table_of_weights_is_that_of_transformers(family, kept_bodies):
    """For configs as they come and for those that change which weights there are."""
    from transformers import AutoConfig

    assert {name: getattr(AutoConfig.for_model(family), name) for name in DEFAULTS[family]} == DEFAULTS[family]
    rarer = {
        "swin": {"qkv_bias": False, "use_absolute_embeddings": True, "mlp_ratio": 2.5},
        "vit": {"qkv_bias": False},
        "gpt_neox": {"attention_bias": False},
        "gpt2": {"n_inner": 20},
    }
    for raw in (SIZES[family], {**SIZES[family], **rarer.get(family, {})}):
        assert find_config_problems(family, raw) == []
        model = build_base_model(AutoConfig.for_model(family, **raw))
        held = {publish_name(family, key): tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        assert held == list_weight_shapes(family, fill_config(family, raw))
    published = {key for key in read_header(kept_bodies / family / SAFE) if not key.startswith("pooler")}
    assert published == list_weight_shapes(family, SIZES[family] | fill_config(family, SIZES[family])).keys()


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize(
    "variant", ["as saved", "with a head", "without a pooler", "shards", "names of memory", "old names"]
)
def test_good_checkpoints_load_to_the_bit(family, variant, body_of, capfd):
    folder = body_of(family)
    expected = weights_of(folder)
    if variant == "with a head":
        expected = head_of(family, folder)
    elif variant == "without a pooler":
        drop("pooler")(folder)
    elif variant == "shards":
        shard(folder)
    elif variant == "names of memory":
        save_file(expected, folder / SAFE, metadata={"format": "pt"})
    elif variant == "old names":  # with buffers, as older versions saved them, and a head around
        prefix = {"gpt2": "transformer", "gpt_neox": "gpt_neox"}.get(family, family)
        buffers = {"gpt2": "h.0.attn.bias", "gpt_neox": "layers.0.attention.masked_bias"}
        buffer = buffers.get(family, "embeddings.position_ids")
        rename("LayerNorm.weight", "LayerNorm.gamma")(folder)
        rename("LayerNorm.bias", "LayerNorm.beta")(folder)
        change_weights(lambda w: {**{f"{prefix}.{k}": t for k, t in w.items()}, f"{prefix}.{buffer}": torch.arange(4),
                                  "head.weight": torch.ones(2)})(folder)  # fmt: skip
    capfd.readouterr()
    body = find_body(str(folder))
    assert find_file_problems(body) == []
    assert_same(load_pretrained(body).model.state_dict(), expected)
    output = capfd.readouterr()
    assert "LOAD REPORT" not in output.out + output.err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", ["gpt2", "swin"])
def test_weights_of_any_precision_become_single(dtype, family, body_of):
    folder = body_of(family)
    expected = {key: tensor.to(dtype) for key, tensor in weights_of(folder).items()}
    change_weights(lambda w: {key: tensor.to(dtype) for key, tensor in w.items()})(folder)
    held = weights_of(folder)
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert_same(held, expected)


@pytest.mark.parametrize("entry", [{"dtype": "float16"}, {"torch_dtype": "bfloat16"}, {"dtype": "float64"}])
@pytest.mark.parametrize("family", SIZES)
def test_the_precision_that_a_config_names_rounds_no_weight(family, entry, body_of):
    folder = body_of(family)
    expected, digest = weights_of(folder), load_pretrained(find_body(str(folder))).hash_weights()
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    del raw["dtype"]
    path.write_text(json.dumps({**raw, **entry}))
    assert_same(weights_of(folder), expected)
    assert load_pretrained(find_body(str(folder))).hash_weights() == digest


@pytest.mark.parametrize("has_pickle", [False, True])
def test_what_is_loaded_no_longer_depends_on_the_file(has_pickle, body_of):
    folder = body_of("bert")
    if has_pickle:
        pickled()(folder)
    body = load_pretrained(find_body(str(folder)), allow_pickle=True)
    digest, path = body.hash_weights(), folder / (PICKLE if has_pickle else SAFE)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x11" * 20_000)
    assert body.hash_weights() == digest


def test_weights_that_share_memory_in_a_pickle_do_not_share_it_here(body_of):
    folder = body_of("bert")
    names = [f"encoder.layer.{i}.attention.self.query.weight" for i in (0, 1)]
    pickled(lambda w: {**w, names[0]: w[names[1]]})(folder)
    held = weights_of(folder, allow_pickle=True)
    assert torch.equal(held[names[0]], held[names[1]])
    assert held[names[0]].data_ptr() != held[names[1]].data_ptr()


@pytest.mark.parametrize("family", SIZES)
def test_how_a_config_hands_over_outputs_changes_nothing(family, body_of):
    folder = body_of(family)
    plain = load_pretrained(find_body(str(folder)))
    config(return_dict=False, output_hidden_states=True, chunk_size_feed_forward=7)(folder)
    body = load_pretrained(find_body(str(folder)))
    tokens = torch.ones(2, plain.spec.max_tokens, plain.spec.width_in)
    assert body.hash_weights() == plain.hash_weights()
    assert torch.equal(body.build_network().eval()(tokens), plain.build_network().eval()(tokens))


@pytest.mark.parametrize("family", IMAGE)
def test_sides_in_lists_are_the_same_body(family, body_of):
    folder = body_of(family)
    plain = load_pretrained(find_body(str(folder)))
    sizes = SIZES[family]
    config(image_size=[32, 32], patch_size=[sizes["patch_size"]] * 2)(folder)
    assert find_file_problems(find_body(str(folder))) == []
    listed = load_pretrained(find_body(str(folder)))
    assert (listed.spec, listed.hash_weights()) == (plain.spec, plain.hash_weights())
    assert compute_input_features(listed, np.zeros((1, 3, 9, 9), "float32"), "cpu").shape == (1, plain.spec.width_in)


def test_safetensors_are_taken_before_a_pickle(body_of):
    folder = body_of("vit")
    expected = weights_of(folder)
    (folder / PICKLE).write_bytes(b"no pickle")
    assert_same(weights_of(folder, allow_pickle=True), expected)
    assert not find_body(str(folder)).only_pickle


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_a_pickle_in_shards_is_read_if_that_is_asked_for(family, body_of):
    folder = body_of(family)
    expected = weights_of(folder)
    weights = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    index = {key: f"pytorch_model-{i % 2}.bin" for i, key in enumerate(sorted(weights))}
    for name in set(index.values()):
        torch.save({key: weights[key] for key in index if index[key] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    body = find_body(str(folder))
    assert body.only_pickle
    assert find_file_problems(body) == []
    assert_same(load_pretrained(body, allow_pickle=True).model.state_dict(), expected)


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_a_pickle_is_not_read_unasked(family, body_of):
    folder = body_of(family)
    pickled()(folder)
    with pytest.raises(DataError, match="the weights are only a pickle. Save them as safetensors, or set body.allow_p"):
        load_pretrained(find_body(str(folder)))


@pytest.mark.parametrize("settings", [{"hidden_act": "nonsense"}, {"layer_norm_eps": "x"}])
def test_a_config_that_transformers_cannot_build_is_refused_for_random_bodies_too(settings, body_of):
    folder = body_of("bert")
    config(**settings)(folder)
    with pytest.raises(
        InputError, match="transformers does not understand its config.json|transformers cannot build a bert body"
    ):
        build_random_model(find_body(str(folder)), 0)


HUB = """
import sys
from pathlib import Path
from orca_sweep.bodies import find_body
from orca_sweep.bodies.network import load_pretrained
from orca_sweep.errors import OrcaSweepError
for name in sys.argv[1:]:
    try:
        print(name, load_pretrained(find_body(f"org/{name}"), allow_pickle=name.startswith("pickle")).hash_weights())
    except OrcaSweepError as error:
        print(name, type(error).__name__, error)
"""


def test_a_hub_id_is_loaded_as_strictly(body_of, tmp_path):
    """From a cache as the hub's client keeps it, in a process that reads it from there."""
    import subprocess

    whole = body_of("bert")
    breaks = {
        "good": lambda folder: None,
        "good-shards": shard,
        "compiled": rename("", "_orig_mod."),
        "layer": drop("layer.1."),
        "shape": config(vocab_size=400),
        "layers": config(num_hidden_layers=2),
        "nan": poison(math.nan, "embeddings.LayerNorm.bias"),
        "other": change_weights(lambda w: {"x": torch.zeros(1)}),
        "config": config(num_hidden_layers=0),
        "cut": damage(lambda data: data[:-9]),
        "bytes": change_weights(lambda w: {k: (t * 100).to(torch.int8) for k, t in w.items()}),
        "twice": change_weights(lambda w: {**w, "bert.embeddings.LayerNorm.bias": torch.ones(48)}),
        # transformers itself would load the weights of the other one, and the adapter.
        "adapter": lambda f: (f / "adapter_config.json").write_text(
            json.dumps(
                {"peft_type": "LORA", "base_model_name_or_path": "org/good", "r": 2, "target_modules": ["query"]}
            )
        ),
        "half": config(dtype="float16"),
        "list": lambda f: (f / "config.json").write_text("[]"),
        "family": config(model_type=["bert"]),
        "no-pickle": pickled(),
        "pickle-good": pickled(),
        "pickle-evil": pickled(lambda w: {"x": Evil()}),
        "words": change_weights(lambda w: {k: t[:40].clone() if "word_emb" in k else t for k, t in w.items()}),
    }
    for name, break_it in breaks.items():
        home = tmp_path / "hub" / f"models--org--{name}"
        folder = shutil.copytree(whole, home / "snapshots" / ("a" * 40))
        break_it(folder)
        if name == "words":
            config(vocab_size=40)(folder)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("a" * 40)
    home = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "ORCA_EVIL": str(tmp_path / "evil"),
    }
    command = [sys.executable, "-c", HUB, *breaks]
    done = subprocess.run(command, capture_output=True, text=True, env=home, check=True)
    output = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    digest = load_pretrained(find_body(str(whole))).hash_weights()
    assert output["good"] == output["good-shards"] == output["pickle-good"] == output["half"] == digest
    expected = {
        "compiled": f"DataError org/compiled/model.safetensors: .*53 missing .*{WRAPPED}",
        "layer": "DataError org/layer/model.safetensors: .*16 missing .*config.json has 3 layers, the weights have 2",
        "shape": r"DataError org/shape/.*: .*1 of another shape \(embeddings.word_embeddings.weight \(300, 48\) instead of \(400",
        "layers": "DataError org/layers/.*: .*16 not in its config.json .* has 2 layers, the weights have 3",
        "nan": "DataError org/nan/model.safetensors: NaN or infinite values in 1 of its weights",
        "other": "DataError org/other/model.safetensors: .*None of its 1 keys",
        "config": "InputError body.name = 'org/config': num_hidden_layers = 0",
        "cut": "DataError org/cut/model.safetensors: .*truncated or damaged",
        "bytes": r"DataError org/bytes/model.safetensors: .*53 not floating-point \(embeddings.word_embeddings.weight I8",
        "twice": "DataError org/twice/model.safetensors: .*1 duplicate, with and without a prefix",
        "adapter": "DataError org/adapter/adapter_config.json: the folder holds an adapter of another model",
        "list": "InputError body.name = 'org/list': .*its config.json is not a JSON object",
        "family": r"InputError body.name: the family \['bert'\] is not supported",
        "no-pickle": "DataError org/no-pickle: model.safetensors cannot be fetched: .*needs body.allow_pickle: true",
        "pickle-evil": "DataError org/pickle-evil/pytorch_model.bin: .*cannot be read as tensors only .*[Ww]eights.only",
        "words": "DataError org/words: .* words, but the body's embedding has 40 rows",
    }
    for name, words in expected.items():
        with pytest.raises(DataError, match=words):
            raise DataError(output[name])
    assert not (tmp_path / "evil").exists()


# Tokenizers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_a_tokenizer_file_alone_is_a_tokenizer(family, body_of):
    folder = body_of(family)
    whole = load_pretrained(find_body(str(folder)))
    for file in folder.glob("*token*"):
        if file.name != "tokenizer.json":
            file.unlink()
    alone = load_pretrained(find_body(str(folder)))
    assert alone.tokenizer.pad_token == "<pad>"
    texts = ("the type", "attributes are inherited of a type")
    ids, mask = tokenize_texts(alone.tokenizer, texts, 20)
    assert ids.shape == mask.shape == (2, mask.sum(dim=1).max())
    assert torch.equal(ids[0, : mask[0].sum()], tokenize_texts(whole.tokenizer, texts[:1], 20)[0][0])
    torch.testing.assert_close(compute_input_features(alone, texts, "cpu"), compute_input_features(whole, texts, "cpu"))


@pytest.mark.parametrize("words", [("[UNK]", "[PAD]", "a"), ("</s>", "a", "b"), ("a", "b", "c")])
def test_any_tokenizer_can_pad_and_gains_no_word(words, body_of):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = body_of("bert")
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "tokenizer_config.json").unlink()
    raw.save(str(folder / "tokenizer.json"))
    body = load_pretrained(find_body(str(folder)))
    assert len(body.tokenizer) == 3
    assert compute_input_features(body, ("a a a", "b"), "cpu").shape == (2, 48)


def test_words_that_a_tokenizer_s_settings_add_are_counted(body_of):
    folder = body_of("bert")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mask_token": "<new mask>"}))
    n_words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    change_weights(lambda w: w.update({k: t[:n_words].clone() for k, t in w.items() if "word_embeddings" in k}))(folder)
    config(vocab_size=n_words)(folder)
    words = f"{n_words + 1} words, but .* has {n_words} rows, so words {n_words} to {n_words} have no embedding"
    body = find_body(str(folder))
    with pytest.raises(DataError, match=words):
        raise DataError(str(find_file_problems(body)[0]))
    with pytest.raises(DataError, match=words):
        load_pretrained(body)
    # A random body reads words too.
    with pytest.raises(DataError, match=words):
        raise DataError(str(find_file_problems(body, has_weights=False)[0]))


@pytest.mark.parametrize(
    "entry", [{"padding_side": "left", "truncation_side": "left"}, {"model_input_names": ["input_ids"]}]
)
def test_features_do_not_depend_on_how_a_tokenizer_pads(entry, body_of):
    folder = body_of("bert")
    plain = load_pretrained(find_body(str(folder)))
    tokenizer_settings(**entry)(folder)
    body = load_pretrained(find_body(str(folder)))
    texts = ("the type", "attributes are inherited of a type " * 40)
    assert body.hash_input_layer() == plain.hash_input_layer()
    assert torch.equal(compute_input_features(body, texts, "cpu"), compute_input_features(plain, texts, "cpu"))
    torch.testing.assert_close(
        compute_input_features(body, texts, "cpu")[:1], compute_input_features(body, texts[:1], "cpu")
    )


def test_what_a_tokenizer_does_with_special_words_tells_bodies_apart(body_of):
    folder = body_of("bert")
    plain = load_pretrained(find_body(str(folder)))
    tokenizer_settings(split_special_tokens=True)(folder)
    assert load_pretrained(find_body(str(folder))).hash_input_layer() != plain.hash_input_layer()


def test_texts_that_the_tokenizer_makes_nothing_of_are_said(body_of):
    folder = body_of("gpt2")
    change_tokenizer(lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "z+"}, "content": ""},
                                        post_processor=None, pre_tokenizer=None))(folder)  # fmt: skip
    body = load_pretrained(find_body(str(folder)))
    with pytest.raises(DataError, match="makes no token from 'zzz'"):
        compute_input_features(body, ("the type", "zzz"), "cpu")


def test_tokens_without_a_row_are_said(body_of):
    folder = body_of("gpt2")
    change_tokenizer(
        lambda t: t.update(post_processor={"type": "BertProcessing", "sep": ["</s>", 9999], "cls": ["</s>", 9999]})
    )(folder)
    body = load_pretrained(find_body(str(folder)))
    with pytest.raises(DataError, match="its tokenizer makes token 9999, but the embedding has 300 rows"):
        compute_input_features(body, ("the type",), "cpu")


# Where it is found --------------------------------------------------------------------------------


SPACE = """
name: broken
base: {{task: tiny, body.name: {folder}, proxy: none, finetune.epochs: 1, body.pretrain_fraction: 1}}
factors: {{finetune.lr: [1e-3, 1e-4]}}
seeds: [0, 1]
"""


def test_a_plan_refuses_a_broken_checkpoint_without_torch(body_of, write_space, tmp_path):
    """In a process of its own: what a plan imports is seen there."""
    import subprocess

    folder = body_of("bert")
    rename("", "_orig_mod.")(folder)
    path = write_space(SPACE.format(folder=folder))
    code = (
        "import sys; from orca_sweep.cli import main\n"
        "try: main()\n"
        "except SystemExit as error: code = error.code\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert WRAPPED in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "False False"


def test_the_launch_s_checks_and_the_trial_refuse_it_too(body_of, run, tmp_path):
    folder = body_of("swin")
    drop("encoder.layers.1.blocks.0.layernorm_after.bias")(folder)
    settings = {"task": "tiny", "body.name": str(folder), "proxy": "none"}
    trained, random = (make_config({**settings, "body.pretrain_fraction": f}) for f in (1, 0))
    [problem] = unavailable_parts(resolve_configs([trained, random, trained]), tmp_path)
    assert "1 missing (encoder.layers.1.blocks.0.layernorm_after.bias)" in problem.rule
    assert find_body_problems(resolve_configs([random])) == []  # its weights are not used
    row, _ = run(**{key.replace(".", "__"): value for key, value in settings.items()}, body__pretrain_fraction=1)
    assert row["status"] == "failed"
    assert row["error"].startswith(f"{folder}/{SAFE}: these weights do not fit the swin body of its config.json")


def test_each_rung_s_own_files_are_checked(body_of, kept_bodies, monkeypatch):
    from orca_sweep.bodies import BODIES, Body, Rung

    folder = body_of("vit")
    drop("cls_token")(folder)
    ladder = {0.1: Rung(locations=(str(kept_bodies / "vit"), str(folder)))}
    body = Body(
        name="climbed",
        meaning="test",
        source="here",
        licence="MIT",
        architecture="vit",
        location=str(kept_bodies / "vit"),
        ladder=ladder,
    )
    monkeypatch.setitem(BODIES._records, "climbed", body)
    base = {"task": "digits", "body.name": "climbed"}
    rungs = [
        make_config({**base, "body.pretrain_fraction": f, "body.pretrain_seed": s})
        for f, s in ((1, 0), (0.1, 0), (0.1, 1))
    ]
    assert find_body_problems(resolve_configs(rungs[:2])) == []
    assert f"{folder}/{SAFE}" in str(find_body_problems(resolve_configs(rungs))[0])


@pytest.mark.parametrize("name", ["loop", "loop/x", "./a\0b", "./" + "a" * 5000])
def test_a_name_that_no_folder_can_have_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="body.name .*not a body folder"):
        make_config({"task": "digits", "body.name": name if name.startswith(".") else str(tmp_path / name)})


def test_a_folder_that_hides_a_hub_id_is_said(kept_bodies, tmp_path, monkeypatch):
    shutil.copytree(kept_bodies / "gpt2", tmp_path / "openai-community" / "gpt2")
    monkeypatch.chdir(tmp_path)
    body = find_body("gpt2")
    words = "its hub id openai-community/gpt2 is also a folder"
    with pytest.raises(InputError, match=words):
        load_pretrained(body)
    assert words in str(find_file_problems(body)[0])


def test_a_record_s_folder_without_a_config_is_said(tmp_path):
    from orca_sweep.bodies import Body

    body = Body(name="mine", meaning="test", source="here", licence="MIT", architecture="bert", location=str(tmp_path))
    assert "config.json: cannot be read (No such file or directory)" in str(find_file_problems(body)[0])
    with pytest.raises(DataError, match="gone: no such folder"):
        load_pretrained(replace(body, location=str(tmp_path / "gone")))


def test_the_bundled_body_is_whole():
    assert find_file_problems(find_body("minilm")) == []


def test_many_trials_of_a_folder_are_planned_fast(kept_bodies, write_space):
    import time

    from orca_sweep.space import plan_space
    from orca_sweep.trial import load_imports

    rates = ", ".join(f"{i}e-6" for i in range(1, 251))
    text = SPACE.format(folder=kept_bodies / "roberta").replace("[1e-3, 1e-4]", f"[{rates}]").replace("[0, 1]", "20")
    path = write_space(text)
    start = time.process_time()
    plan = plan_space(path, load_imports, make_config)
    assert find_body_problems(resolve_configs(trial.config for trial in plan.trials)) == []
    assert len(plan.trials) == 5000
    assert time.process_time() - start < 4
