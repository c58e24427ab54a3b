"""Reads and checks a body's config.json, without torch or transformers."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import InputError

LARGEST_CONFIG = 2**20
"""Bytes; published configs have a few thousand."""
MOST_LAYERS = 1000
MOST_STAGES = 8
"""Stages of a Swin, each twice as wide as the previous; published models have four."""
LARGEST_SIZE = 2**24
_TEXT: Mapping[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "roberta": {**_TEXT, "vocab_size": 50265, "pad_token_id": 1},
    "bert": _TEXT,
    "gpt2": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
    },
    "gpt_neox": {
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "max_position_embeddings": 2048, "attention_bias": True,
    },
    "swin": {
        "image_size": 224, "patch_size": 4, "num_channels": 3, "embed_dim": 96, "depths": (2, 2, 6, 2),
        "num_heads": (3, 6, 12, 24), "window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True,
        "use_absolute_embeddings": False,
    },
    "vit": {
        "image_size": 224, "patch_size": 16, "num_channels": 3, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "qkv_bias": True,
    },
}  # fmt: skip
"""The settings that determine the shapes of each family's weights, with the defaults of transformers."""
ALIASES: Mapping[str, Mapping[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "swin": {"num_attention_heads": "num_heads"},
}  # fmt: skip
"""Alternative names that transformers accepts for a family's settings."""
LAYERS = ("num_hidden_layers", "n_layer")
SIDES = ("image_size", "patch_size")
SWITCHES = ("qkv_bias", "attention_bias", "use_absolute_embeddings")
RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout",
    "hidden_dropout", "drop_path_rate",
)  # fmt: skip
"""Shares of numbers, or of branches, that training drops."""
REFUSED: Mapping[str, str] = {
    "add_cross_attention": "cross-attention needs the output of an encoder. Use a body without it",
    "quantization_config": "quantised weights cannot be trained. Save the model in float32, float16 or bfloat16",
    "transformers_weights": "a config must not name its weights file. Rename that file to model.safetensors and remove the entry",
}
"""Unsupported entries, and why."""


def read_config(path: Path) -> dict[str, Any]:
    """Returns the content of a config.json.

    Raises:
        InputError: if it is a Git LFS pointer, unreadable, far too large, or not a JSON object.
    """
    problem = pointer_problem(path)
    if problem:
        raise InputError(problem)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). A body's folder needs it.") from None
    if size > LARGEST_CONFIG:
        raise InputError(f"its config.json has {size:,} bytes; a body's has a few thousand. Is it the right file?")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # broken JSON and broken UTF-8 are ValueErrors
        raw = None
    if not isinstance(raw, dict):
        raise InputError("this is not a body folder: its config.json is not a JSON object.")
    return raw


def fill_config(family: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that determine the shapes of a family's weights: as written, or the default of transformers.

    Image and patch sizes written as [side, side] become one number.
    """
    own = {ALIASES.get(family, {}).get(name, name): value for name, value in raw.items()}
    filled = {name: own.get(name, default) for name, default in DEFAULTS[family].items()}
    return {name: _read_square_side(value) if name in SIDES else value for name, value in filled.items()}


def _read_square_side(value: Any) -> Any:
    """Returns the side of a square written as [height, width]; any other value unchanged."""
    is_square = isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]
    return value[0] if is_square else value


def find_config_problems(family: str, raw: Mapping[str, Any]) -> list[str]:
    """Returns every mistake that makes a supported family's config impossible; empty if there is none."""
    settings = fill_config(family, raw)
    problems = [
        f"{name} = {_shorten_value(raw[name])} in its config.json: {why}."
        for name, why in REFUSED.items()
        if raw.get(name)
    ]
    problems += [
        f"{name} = {_shorten_value(value)} in its config.json: {rule}."
        for name, value in {**raw, **settings}.items()
        if (rule := _find_broken_rule(name, value) if name in settings else _find_broken_number_rule(name, value))
    ]
    return problems or _find_clashes(family, settings)


def _shorten_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_count(value: Any, most: int = LARGEST_SIZE) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _find_broken_rule(name: str, value: Any) -> str | None:
    """Returns the rule that a single setting breaks; None if it breaks none."""
    if name in SIDES:
        if isinstance(value, list | tuple):
            return "images and patches must be square: give one side, or two equal ones. Use another body"
        return None if _is_count(value) else "it must be a whole number of pixels above 0"
    if name in LAYERS:
        return None if _is_count(value, MOST_LAYERS) else f"it must be a whole number from 1 to {MOST_LAYERS}"
    if name in ("depths", "num_heads"):
        most = MOST_LAYERS if name == "depths" else LARGEST_SIZE
        is_list = isinstance(value, list | tuple) and 1 <= len(value) <= MOST_STAGES
        fits = is_list and all(_is_count(part, most) for part in value)
        return None if fits else f"it must be a list of whole numbers above 0, one per stage, at most {MOST_STAGES}"
    if name in SWITCHES:
        return None if isinstance(value, bool) else "it must be true or false"
    if name == "mlp_ratio":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if is_number and 0 < value <= 1000 else "it must be a number above 0 and at most 1000"
    if name == "pad_token_id":
        is_id = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if is_id or value is None else "it must be the id of a token"
    if name == "n_inner" and value is None:
        return None
    return None if _is_count(value) else f"it must be a whole number from 1 to {LARGEST_SIZE:,}"


def _find_broken_number_rule(name: str, value: Any) -> str | None:
    """Returns the rule that a setting breaks which determines no shape; None if it breaks none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in RATES and not (is_number and 0 <= value < 1):
        return "it must be at least 0 and below 1"
    return "it must be finite" if isinstance(value, float) and not math.isfinite(value) else None


def _find_clashes(family: str, settings: Mapping[str, Any]) -> list[str]:
    """Returns the problems of settings that are possible one by one, but not together."""
    if family == "swin":
        return [*_find_patch_clashes(settings), *_find_stage_clashes(settings)]
    width, heads = ("n_embd", "n_head") if family == "gpt2" else ("hidden_size", "num_attention_heads")
    problems = _find_patch_clashes(settings) if family == "vit" else []
    if settings[width] % settings[heads]:
        problems.append(
            f"{width} = {settings[width]} in its config.json is not a multiple of {heads} = {settings[heads]}: all heads"
            " must have the same width."
        )
    pad = settings.get("pad_token_id")
    if family == "roberta" and pad is None:
        problems.append("pad_token_id is null in its config.json: a roberta body counts its positions from it. Set it.")
    elif pad is not None and pad >= settings["vocab_size"]:
        problems.append(f"pad_token_id = {pad} in its config.json: the vocabulary has {settings['vocab_size']} words.")
    elif family == "roberta" and pad is not None and settings["max_position_embeddings"] <= pad + 1:
        problems.append(
            f"max_position_embeddings = {settings['max_position_embeddings']} in its config.json: the first {pad + 1}"
            " positions belong to padding, so none is left."
        )
    return problems


def _find_patch_clashes(settings: Mapping[str, Any]) -> list[str]:
    image, patch = settings["image_size"], settings["patch_size"]
    if patch > image:
        return [f"patch_size = {patch} in its config.json is larger than image_size = {image}: no patch fits."]
    return []


def _find_stage_clashes(settings: Mapping[str, Any]) -> list[str]:
    """Returns what breaks the rules of Swin's stages: equal lists, equal heads, a grid that halves and holds the window."""
    depths: Sequence[int] = settings["depths"]
    heads: Sequence[int] = settings["num_heads"]
    image, patch, window = (settings[name] for name in ("image_size", "patch_size", "window_size"))
    if len(depths) != len(heads):
        return [
            f"depths {list(depths)} and num_heads {list(heads)} in its config.json: each needs one number per stage."
        ]
    problems = [
        f"num_heads = {list(heads)} in its config.json: stage {stage} is {settings['embed_dim'] * 2**stage} wide, which"
        f" {n_heads} heads cannot divide evenly."
        for stage, n_heads in enumerate(heads)
        if (settings["embed_dim"] * 2**stage) % n_heads
    ]
    shrink = patch * 2 ** (len(depths) - 1)
    if patch > image:
        return problems
    if image % shrink:
        problems.append(
            f"image_size = {image} in its config.json must be a multiple of {shrink}: patches are {patch} wide and"
            f" each of the {len(depths)} stages after the first halves the grid."
        )
    elif image // shrink < window:
        problems.append(
            f"window_size = {window} in its config.json is larger than the last stage's grid of {image // shrink} x"
            f" {image // shrink} patches (image_size {image}, patch_size {patch}, {len(depths)} stages)."
        )
    return problems
