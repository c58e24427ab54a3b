"""The corpora for pre-training our own small bodies, as tensors, and their tokenizers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orca_sweep.bodies import Body, PretrainRecipe
from orca_sweep.bodies.inputs import match_channels, resize_images, tokenize_texts
from orca_sweep.config import BodyConfig
from orca_sweep.errors import InputError
from orca_sweep.proxies import ProxyData
from orca_sweep.store import stage_key
from orca_sweep.streams import stream_rng
from orca_sweep.training.worker import Worker

TEXT_TOKENS = 64
MASKED_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class RawCorpus:
    """A body's pre-training corpus as loaded, with the body's tokenizer."""

    data: ProxyData
    tokenizer: Any = None
    """None for images."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A pre-training corpus as tensors, limited to a config's fraction, with a held-out part."""

    inputs: Tensor
    """Images (N, C, H, W), or token ids of texts (N, L)."""
    labels: Tensor
    """A class per image; empty for texts."""
    train: Tensor
    """Indices of the training samples; a larger fraction contains all samples of a smaller fraction."""
    held_out: Tensor
    tokenizer: Any = None

    @property
    def n_classes(self) -> int:
        """The number of classes of the images."""
        return int(self.labels.max()) + 1


def load_corpus(body: Body, recipe: PretrainRecipe, worker: Worker) -> RawCorpus:
    """Returns the corpus of a body's recipe; a tokenizer is learned at most once per store."""
    data = recipe.corpus.load(Path())
    tokenizer = None if recipe.task == "classification" else _load_tokenizer(body, data, worker)
    return RawCorpus(data=data, tokenizer=tokenizer)


def prepare_corpus(raw: RawCorpus, body: Body, recipe: PretrainRecipe, config: BodyConfig) -> Corpus:
    """Returns the corpus as tensors, at the config's fraction.

    Costs as much as the fine-tuning of a small trial: a body that is in the store does without.
    """
    labels = torch.empty(0)
    if recipe.task == "classification":
        inputs, labels = _prepare_images(body, raw.data), torch.from_numpy(raw.data.labels)
    else:
        inputs, _ = tokenize_texts(raw.tokenizer, _list_texts(raw.data), TEXT_TOKENS)
    n_held_out = recipe.n_held_out
    order = torch.from_numpy(stream_rng(config.pretrain_seed, "pretrain corpus").permutation(len(inputs)))
    n_train = max(1, round(config.pretrain_fraction * (len(inputs) - n_held_out)))
    return Corpus(
        inputs=inputs,
        labels=labels,
        train=order[n_held_out : n_held_out + n_train],
        held_out=order[:n_held_out],
        tokenizer=raw.tokenizer,
    )


def _prepare_images(body: Body, data: ProxyData) -> Tensor:
    images = match_channels(torch.from_numpy(np.asarray(data.inputs)), body.settings["num_channels"])
    return resize_images(images.float(), body.settings["image_size"])


def _load_tokenizer(body: Body, data: ProxyData, worker: Worker) -> Any:
    """The body's byte-pair tokenizer, learned once from the whole corpus (random bodies use it too)."""
    from transformers import PreTrainedTokenizerFast

    size = body.settings["vocab_size"]
    key = stage_key("tokenizer", {"corpus": data.fingerprint, "vocab_size": size})
    artifact, _ = worker.store.get_or_compute(
        "tokenizer", key, lambda: ({}, {"json": learn_tokenizer(size, _list_texts(data))})
    )
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(artifact.meta["json"]),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def _list_texts(data: ProxyData) -> tuple[str, ...]:
    if data.corpus:
        return data.corpus
    if not isinstance(data.inputs, tuple):
        raise InputError("the body's pre-training corpus contains no texts. Set a proxy of texts in its recipe.")
    return data.inputs


def learn_tokenizer(size: int, texts: tuple[str, ...]) -> str:
    """Returns a byte-pair tokenizer with a vocabulary of ``size``, learned from texts, as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return str(tokenizer.to_str())


def mask_tokens(ids: Tensor, tokenizer: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Returns masked ids and targets, both (N, L); targets are -100 where nothing is predicted.

    Source: Devlin et al. 2019, arXiv 1810.04805: of a 15% share, 80% are masked and 10% replaced at random.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = torch.from_numpy(rng.random(ids.shape) < MASKED_SHARE) & ~special
    targets = torch.where(chosen, ids, torch.full_like(ids, -100))
    treatment = torch.from_numpy(rng.random(ids.shape))
    random_ids = torch.from_numpy(rng.integers(5, len(tokenizer), ids.shape))
    masked = torch.where(chosen & (treatment < 0.8), torch.full_like(ids, tokenizer.mask_token_id), ids)
    return torch.where(chosen & (treatment >= 0.9), random_ids, masked), targets
