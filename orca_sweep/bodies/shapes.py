"""Published names and shapes of the weights of each family of bodies. Needs neither torch nor transformers.

Heads, poolers and buffers are left out: a checkpoint may have or lack them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]
PREFIX: Mapping[str, str] = {
    "roberta": "roberta.", "bert": "bert.", "gpt2": "transformer.", "gpt_neox": "gpt_neox.", "swin": "swin.",
    "vit": "vit.",
}  # fmt: skip
"""Prefix of the body's keys where the checkpoint was saved from a model with a head."""
_TEXT, _IMAGE = ("embeddings", "encoder"), ("embeddings", "encoder", "layernorm")
MODULES: Mapping[str, tuple[str, ...]] = {
    "roberta": _TEXT, "bert": _TEXT, "gpt2": ("wte", "wpe", "h", "ln_f"),
    "gpt_neox": ("embed_in", "layers", "final_layer_norm"), "swin": _IMAGE, "vit": _IMAGE,
}  # fmt: skip
"""First parts of the names of weights that the body uses; all other weights belong to a head."""
LAYER = re.compile(r"^(?:encoder\.layer|encoder\.layers\.\d+\.blocks|layers|h)\.\d+\.")
BUFFERS = re.compile(
    r"(?:^|\.)(?:position_ids|token_type_ids|attn\.bias|attn\.masked_bias|attention\.bias|attention\.masked_bias"
    r"|rotary_emb\.inv_freq|relative_position_index|mask_token)$"
)
"""Tables that follow from the config and that older versions saved, and the mask token of pre-training."""
_BLOCK = (("attention.o_proj.", "attention.output.dense."), ("mlp.fc1.", "intermediate.dense."),
          ("mlp.fc2.", "output.dense."))  # fmt: skip
NEWER: Mapping[str, tuple[tuple[str, str], ...]] = {
    "swin": (
        ("attention.q_proj.", "attention.self.query."), ("attention.k_proj.", "attention.self.key."),
        ("attention.v_proj.", "attention.self.value."), *_BLOCK,
        ("attention.relative_position_bias.relative_position_bias_table",
         "attention.self.relative_position_bias_table"),
    ),
    "vit": (
        ("attention.q_proj.", "attention.attention.query."), ("attention.k_proj.", "attention.attention.key."),
        ("attention.v_proj.", "attention.attention.value."), *_BLOCK,
    ),
}  # fmt: skip
"""Names that newer versions of transformers use in memory, each with its published name."""


def publish_name(family: str, key: str) -> str:
    """Returns the published name of a checkpoint's key, without the prefix of a model with a head."""
    name = key.removeprefix(PREFIX[family])
    for newer, published in NEWER.get(family, ()):
        name = name.replace(newer, published)
    if family == "vit":
        name = re.sub(r"^layers\.", "encoder.layer.", name)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def is_needed(family: str, name: str) -> bool:
    """Whether a published name belongs to the body itself, not to a head, pooler or buffer."""
    return name.split(".", 1)[0] in MODULES[family] and not BUFFERS.search(name)


def count_layers(names: Iterable[str]) -> int:
    """Returns how many layers (Swin: blocks) the published names belong to."""
    return len({match[0] for name in names if (match := LAYER.match(name))})


def list_weight_shapes(family: str, settings: Mapping[str, Any]) -> Shapes:
    """Returns the name and shape of every weight that a body with these settings uses.

    Args:
        family: A supported family.
        settings: What ``configs.fill_config`` returns, already checked.
    """
    return FAMILIES[family](settings)


def _list_linear_shapes(name: str, n_out: int, n_in: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), **({f"{name}.bias": (n_out,)} if bias else {})}


def _list_transposed_shapes(name: str, n_out: int, n_in: int) -> Shapes:
    """A linear layer of GPT-2, whose weight is stored transposed."""
    return {f"{name}.weight": (n_in, n_out), f"{name}.bias": (n_out,)}


def _list_norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _list_attention_shapes(name: str, width: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= _list_linear_shapes(f"{name}.{part}", width, width, bias)
    return shapes


def _list_text_shapes(settings: Mapping[str, Any]) -> Shapes:
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (settings["vocab_size"], width),
        "embeddings.position_embeddings.weight": (settings["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (settings["type_vocab_size"], width),
        **_list_norm_shapes("embeddings.LayerNorm", width),
    }
    for i in range(settings["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        shapes |= _list_attention_shapes(f"{layer}.attention.self", width)
        shapes |= _list_linear_shapes(f"{layer}.attention.output.dense", width, width)
        shapes |= _list_norm_shapes(f"{layer}.attention.output.LayerNorm", width)
        shapes |= _list_linear_shapes(f"{layer}.intermediate.dense", inner, width)
        shapes |= _list_linear_shapes(f"{layer}.output.dense", width, inner)
        shapes |= _list_norm_shapes(f"{layer}.output.LayerNorm", width)
    return shapes


def _list_gpt2_shapes(settings: Mapping[str, Any]) -> Shapes:
    width = settings["n_embd"]
    inner = settings["n_inner"] or 4 * width
    shapes: Shapes = {"wte.weight": (settings["vocab_size"], width), "wpe.weight": (settings["n_positions"], width)}
    for i in range(settings["n_layer"]):
        shapes |= _list_norm_shapes(f"h.{i}.ln_1", width) | _list_norm_shapes(f"h.{i}.ln_2", width)
        shapes |= _list_transposed_shapes(f"h.{i}.attn.c_attn", 3 * width, width)
        shapes |= _list_transposed_shapes(f"h.{i}.attn.c_proj", width, width)
        shapes |= _list_transposed_shapes(f"h.{i}.mlp.c_fc", inner, width)
        shapes |= _list_transposed_shapes(f"h.{i}.mlp.c_proj", width, inner)
    return shapes | _list_norm_shapes("ln_f", width)


def _list_gpt_neox_shapes(settings: Mapping[str, Any]) -> Shapes:
    width, inner, bias = settings["hidden_size"], settings["intermediate_size"], settings["attention_bias"]
    shapes: Shapes = {"embed_in.weight": (settings["vocab_size"], width)}
    for i in range(settings["num_hidden_layers"]):
        layer = f"layers.{i}"
        shapes |= _list_norm_shapes(f"{layer}.input_layernorm", width) | _list_norm_shapes(
            f"{layer}.post_attention_layernorm", width
        )
        shapes |= _list_linear_shapes(f"{layer}.attention.query_key_value", 3 * width, width, bias)
        shapes |= _list_linear_shapes(f"{layer}.attention.dense", width, width, bias)
        shapes |= _list_linear_shapes(f"{layer}.mlp.dense_h_to_4h", inner, width)
        shapes |= _list_linear_shapes(f"{layer}.mlp.dense_4h_to_h", width, inner)
    return shapes | _list_norm_shapes("final_layer_norm", width)


def _list_patch_shapes(settings: Mapping[str, Any], width: int) -> Shapes:
    patch = settings["patch_size"]
    name = "embeddings.patch_embeddings.projection"
    return {f"{name}.weight": (width, settings["num_channels"], patch, patch), f"{name}.bias": (width,)}


def _list_block_shapes(name: str, width: int, inner: int) -> Shapes:
    """A block of either vision family, without its queries, keys and values."""
    return {
        **_list_norm_shapes(f"{name}.layernorm_before", width),
        **_list_linear_shapes(f"{name}.attention.output.dense", width, width),
        **_list_norm_shapes(f"{name}.layernorm_after", width),
        **_list_linear_shapes(f"{name}.intermediate.dense", inner, width),
        **_list_linear_shapes(f"{name}.output.dense", width, inner),
    }


def _list_swin_shapes(settings: Mapping[str, Any]) -> Shapes:
    first, depths, window = settings["embed_dim"], settings["depths"], settings["window_size"]
    shapes = _list_patch_shapes(settings, first) | _list_norm_shapes("embeddings.norm", first)
    if settings["use_absolute_embeddings"]:
        n_patches = (settings["image_size"] // settings["patch_size"]) ** 2
        shapes["embeddings.position_embeddings"] = (1, n_patches, first)
    for stage, (depth, heads) in enumerate(zip(depths, settings["num_heads"], strict=True)):
        width = first * 2**stage
        for i in range(depth):
            block = f"encoder.layers.{stage}.blocks.{i}"
            shapes |= _list_block_shapes(block, width, int(settings["mlp_ratio"] * width))
            shapes |= _list_attention_shapes(f"{block}.attention.self", width, settings["qkv_bias"])
            shapes[f"{block}.attention.self.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads)
        if stage < len(depths) - 1:
            shapes |= _list_linear_shapes(
                f"encoder.layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False
            )
            shapes |= _list_norm_shapes(f"encoder.layers.{stage}.downsample.norm", 4 * width)
    return shapes | _list_norm_shapes("layernorm", first * 2 ** (len(depths) - 1))


def _list_vit_shapes(settings: Mapping[str, Any]) -> Shapes:
    width, n_patches = settings["hidden_size"], (settings["image_size"] // settings["patch_size"]) ** 2
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, n_patches + 1, width),
        **_list_patch_shapes(settings, width),
    }
    for i in range(settings["num_hidden_layers"]):
        shapes |= _list_block_shapes(f"encoder.layer.{i}", width, settings["intermediate_size"])
        shapes |= _list_attention_shapes(f"encoder.layer.{i}.attention.attention", width, settings["qkv_bias"])
    return shapes | _list_norm_shapes("layernorm", width)


FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Shapes]] = {
    "roberta": _list_text_shapes,
    "bert": _list_text_shapes,
    "gpt2": _list_gpt2_shapes,
    "gpt_neox": _list_gpt_neox_shapes,
    "swin": _list_swin_shapes,
    "vit": _list_vit_shapes,
}
