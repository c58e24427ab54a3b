"""Pre-training of our own small bodies, and loading of all others."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orca_sweep.bodies import Body, PretrainRecipe
from orca_sweep.bodies.inputs import match_channels, resize, tokenize
from orca_sweep.bodies.network import (
    LoadedBody,
    base_model,
    body_tokenizer,
    fresh_model,
    load_config,
    load_pretrained,
    to_arrays,
    to_tensors,
)
from orca_sweep.config import BodyConfig
from orca_sweep.errors import DivergedError, InputError
from orca_sweep.proxies import ProxyData, find_proxy
from orca_sweep.store import Artifact, stage_key
from orca_sweep.streams import stream_rng, torch_stream
from orca_sweep.training.worker import (
    Progress,
    Worker,
    load_optimizer,
    make_optimizer,
    optimizer_arrays,
    set_lr,
    with_prefix,
    without_prefix,
)

STAGE = "pretrain"
SAVE_EVERY_S = 30.0
MASKED_SHARE = 0.15
TEXT_TOKENS = 64


def pretrain_body(body: Body, config: BodyConfig, worker: Worker, report: Progress) -> tuple[LoadedBody, float, bool]:
    """Returns the body, what it cost in seconds when it was computed, and whether it was reused.

    Fraction 0 is a seeded random initialisation. Our own small bodies are pre-trained on the given
    fraction of their corpus; other bodies are loaded with the weights that they were published with.

    Args:
        body: the body, with the weights of the rung that the config names (``ResolvedTrial.rung``).
        config: fraction, steps and seed.
        worker: store, device and threads.
        report: called once per epoch.

    Source: classification (images) or masked tokens with a 15% share, 80/10/10 (text; Devlin et al.
    2019, arXiv 1810.04805).
    """
    start = time.perf_counter()
    if body.pretrain is None:
        return _published(body, config), time.perf_counter() - start, False
    corpus = _Corpus.of(body, body.pretrain, config, worker)
    if config.pretrain_fraction == 0:
        model = fresh_model(body, config.pretrain_seed)
        return LoadedBody(model, corpus.tokenizer), time.perf_counter() - start, False
    artifact, reused = _pretrained(body, body.pretrain, config, corpus, worker, report)
    model = base_model(load_config(body))
    model.load_state_dict(to_tensors(without_prefix("body.", artifact.tensors)))
    loaded = LoadedBody(model, corpus.tokenizer, artifact.meta["held_out"])
    return loaded, float(artifact.meta["seconds"]), reused


def _published(body: Body, config: BodyConfig) -> LoadedBody:
    if config.pretrain_fraction > 0:
        return load_pretrained(body, config.allow_pickle)
    model = fresh_model(body, config.pretrain_seed)
    return LoadedBody(model, body_tokenizer(body, model.config))


class _Corpus:
    """The pre-training corpus as tensors, cut to the fraction, with a held-out part."""

    def __init__(self, inputs: Tensor, labels: Tensor, n_held_out: int, fraction: float, seed: int) -> None:
        order = torch.from_numpy(stream_rng(seed, "pretrain corpus").permutation(len(inputs)))
        n_train = max(1, round(fraction * (len(inputs) - n_held_out)))
        self.held_out = order[:n_held_out]
        # A smaller fraction is a part of every larger one.
        self.train = order[n_held_out : n_held_out + n_train]
        self.inputs = inputs
        self.labels = labels
        self.n_classes = int(labels.max()) + 1 if len(labels) else 0
        self.tokenizer: Any = None
        self.fingerprint = ""

    @classmethod
    def of(cls, body: Body, recipe: PretrainRecipe, config: BodyConfig, worker: Worker) -> "_Corpus":
        data = find_proxy(recipe.corpus).load(Path())
        if recipe.task == "classification":
            corpus = cls._images(body, recipe, config, data)
        else:
            tokenizer = _tokenizer(body, data, worker)
            ids, _ = tokenize(tokenizer, _texts(data), TEXT_TOKENS)
            corpus = cls(ids, torch.empty(0), recipe.n_held_out, config.pretrain_fraction, config.pretrain_seed)
            corpus.tokenizer = tokenizer
        corpus.fingerprint = data.fingerprint
        return corpus

    @classmethod
    def _images(cls, body: Body, recipe: PretrainRecipe, config: BodyConfig, data: ProxyData) -> "_Corpus":
        settings = body.settings
        images = match_channels(torch.from_numpy(np.asarray(data.inputs)), settings["num_channels"])
        images = resize(images.float(), settings["image_size"])
        labels = torch.from_numpy(data.labels)
        return cls(images, labels, recipe.n_held_out, config.pretrain_fraction, config.pretrain_seed)


def _tokenizer(body: Body, data: ProxyData, worker: Worker) -> Any:
    """The body's byte-pair tokenizer, learned once from the whole corpus (random bodies use it too)."""
    from transformers import PreTrainedTokenizerFast

    size = body.settings["vocab_size"]
    key = stage_key("tokenizer", {"corpus": data.fingerprint, "vocab_size": size})
    artifact, _ = worker.store.once("tokenizer", key, lambda: ({}, {"json": _learn_tokenizer(size, _texts(data))}))
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(artifact.meta["json"]),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def _texts(data: ProxyData) -> tuple[str, ...]:
    if data.corpus:
        return data.corpus
    if not isinstance(data.inputs, tuple):
        raise InputError("the body's pre-training corpus holds no texts. Name a proxy of texts in its recipe.")
    return data.inputs


def _learn_tokenizer(size: int, texts: tuple[str, ...]) -> str:
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


def _pretrained(
    body: Body, recipe: PretrainRecipe, config: BodyConfig, corpus: _Corpus, worker: Worker, report: Progress
) -> tuple[Artifact, bool]:
    steps = config.pretrain_steps or recipe.steps
    inputs = {
        **worker.key_part(),
        "body": body.name,
        "settings": dict(body.settings),
        "corpus": corpus.fingerprint,
        "recipe": {"task": recipe.task, "batch": recipe.batch_size, "lr": recipe.lr, "held_out": recipe.n_held_out},
        "fraction": config.pretrain_fraction,
        "seed": config.pretrain_seed,
        "steps": steps,
    }
    key, partial = stage_key(STAGE, inputs), stage_key(STAGE, {**inputs, "partial": True})
    with worker.store.lock(STAGE, key):
        artifact = worker.store.get(STAGE, key)
        if artifact is not None:
            return artifact, True
        training = _Training(body, recipe, config.pretrain_seed, steps, corpus, worker.device)
        training.resume(worker.store.get(STAGE, partial))
        saved = time.perf_counter()
        while training.step < steps:
            training.run(min(50, steps - training.step))
            if time.perf_counter() - saved > SAVE_EVERY_S and training.step < steps:
                worker.store.put(STAGE, partial, *training.state())
                saved = time.perf_counter()
            report({"stage": STAGE, "epoch": training.step, "train_loss": training.loss})
        tensors, meta = training.state()
        meta = {**meta, "held_out": training.held_out(), "inputs": inputs}
        artifact = worker.store.put(STAGE, key, tensors, meta)
        if worker.store.has(STAGE, partial):
            worker.store.fs.rm(worker.store.path(STAGE, partial))
        return artifact, False


class _Training:
    """Pre-training of one small body, resumable after any step."""

    def __init__(self, body: Body, recipe: PretrainRecipe, seed: int, steps: int, corpus: _Corpus, device: str) -> None:
        self.recipe, self.seed, self.steps, self.corpus, self.device = recipe, seed, steps, corpus, device
        self.model = fresh_model(body, seed).to(device)
        with torch_stream(seed, "pretrain head"):
            self.head = self._head().to(device)
        parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = make_optimizer("adamw", parameters, recipe.lr, 0.01)
        self.step = 0
        self.loss = math.nan
        self.seconds = 0.0

    def _head(self) -> nn.Module:
        config = self.model.config
        if self.recipe.task == "classification":
            return nn.Linear(config.hidden_size, self.corpus.n_classes)
        return nn.Linear(config.hidden_size, config.vocab_size)

    def run(self, n_steps: int) -> None:
        start = time.perf_counter()
        self.model.train()
        total = torch.zeros((), device=self.device)
        for _ in range(n_steps):
            with torch_stream(self.seed, "pretrain dropout", self.step):
                loss = self._loss(self._draw(), self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            # Linear warm-up over the first tenth, then a linear decay to zero.
            warm = max(1, self.steps // 10)
            factor = min((self.step + 1) / warm, (self.steps - self.step) / max(1, self.steps - warm), 1.0)
            set_lr(self.optimizer, self.recipe.lr * factor)
            self.optimizer.step()
            self.step += 1
            total += loss.detach()
        self.loss = float(total) / n_steps
        self.seconds += time.perf_counter() - start
        if not math.isfinite(self.loss):
            raise DivergedError(f"pre-training diverged: loss {self.loss} at step {self.step}")

    def _draw(self) -> Tensor:
        n = len(self.corpus.train)
        rng = stream_rng(self.seed, "pretrain order", self.step)
        chosen = rng.choice(n, size=self.recipe.batch_size, replace=n < self.recipe.batch_size)
        return self.corpus.train[torch.from_numpy(chosen)]

    def _loss(self, index: Tensor, step: int) -> Tensor:
        if self.recipe.task == "classification":
            return F.cross_entropy(self._logits(index), self.corpus.labels[index].to(self.device))
        ids = self.corpus.inputs[index]
        masked, targets = _mask(ids, self.corpus.tokenizer, stream_rng(self.seed, "pretrain mask", step))
        attend = (ids != self.corpus.tokenizer.pad_token_id).to(self.device)
        hidden = self.model(input_ids=masked.to(self.device), attention_mask=attend).last_hidden_state
        return F.cross_entropy(self.head(hidden).flatten(0, 1), targets.flatten().to(self.device), ignore_index=-100)

    def _logits(self, index: Tensor) -> Tensor:
        images = self.corpus.inputs[index].to(self.device)
        return self.head(self.model(pixel_values=images).last_hidden_state.mean(dim=1))

    @torch.inference_mode()
    def held_out(self) -> float:
        """Error (classification) or loss (masked tokens, fixed masks) on the held-out part."""
        self.model.eval()
        index = self.corpus.held_out
        if self.recipe.task == "masked-tokens":
            return float(self._loss(index, -1))
        return float((self._logits(index).argmax(dim=1).cpu() != self.corpus.labels[index]).float().mean())

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        tensors = {
            **with_prefix("body.", to_arrays(self.model.state_dict())),
            **with_prefix("head.", to_arrays(self.head.state_dict())),
            **with_prefix("optimizer.", optimizer_arrays(self.optimizer)),
        }
        return tensors, {"step": self.step, "seconds": self.seconds, "train_loss": self.loss}

    def resume(self, artifact: Artifact | None) -> None:
        if artifact is None:
            return
        self.model.load_state_dict(to_tensors(without_prefix("body.", artifact.tensors)))
        self.head.load_state_dict(to_tensors(without_prefix("head.", artifact.tensors)))
        load_optimizer(self.optimizer, without_prefix("optimizer.", artifact.tensors))
        self.step, self.seconds = artifact.meta["step"], artifact.meta["seconds"]


def _mask(ids: Tensor, tokenizer: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Masked ids and targets (-100 where nothing is asked)."""
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = torch.from_numpy(rng.random(ids.shape) < MASKED_SHARE) & ~special
    targets = torch.where(chosen, ids, torch.full_like(ids, -100))
    how = torch.from_numpy(rng.random(ids.shape))
    random_ids = torch.from_numpy(rng.integers(5, len(tokenizer), ids.shape))
    masked = torch.where(chosen & (how < 0.8), torch.full_like(ids, tokenizer.mask_token_id), ids)
    return torch.where(chosen & (how >= 0.9), random_ids, masked), targets
