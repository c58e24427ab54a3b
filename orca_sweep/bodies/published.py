"""The configs of published bodies, which are known without the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orca_sweep.bodies.configs import fill_config, read_config
from orca_sweep.bodies.records import Body
from orca_sweep.errors import InputError

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "roberta-base": {"max_position_embeddings": 514, "type_vocab_size": 1},
    "bert-base-uncased": {},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "gpt2": {},
    "pythia-70m": {
        "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048,
    },
    "pythia-160m": {
        "vocab_size": 50304, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    },
    "vit-base": {},
    "swin-tiny": {},
    "swin-base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}  # fmt: skip
"""Where the config of a registered body differs from the defaults of its family; checkpoints of a ladder share it."""


def read_known_settings(body: Body) -> dict[str, Any] | None:
    """Returns the settings that determine the shapes of a body's weights, or None if only a download would tell them."""
    if body.architecture is None:
        return None
    if body.pretrain is not None:
        return fill_config(body.architecture, body.settings)
    if body.name in PUBLISHED:
        return fill_config(body.architecture, PUBLISHED[body.name])
    path = Path(str(body.location)) / "config.json"
    try:
        return fill_config(body.architecture, read_config(path)) if path.is_file() else None
    except InputError:  # said elsewhere, by the check of the body's files
        return None
