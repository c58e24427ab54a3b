"""Pre-trains our own small bodies, and loads all other bodies."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orca_sweep.bodies import Body, PretrainRecipe
from orca_sweep.bodies.network import (
    LoadedBody,
    build_base_model,
    build_random_model,
    load_body_tokenizer,
    load_config,
    load_pretrained,
    to_tensors,
)
from orca_sweep.config import BodyConfig
from orca_sweep.errors import DivergedError
from orca_sweep.store import Artifact, stage_key
from orca_sweep.streams import stream_rng, torch_stream
from orca_sweep.training.checkpoints import CheckpointPolicy
from orca_sweep.training.learning_rates import pretrain_learning_rate
from orca_sweep.training.optimizers import make_optimizer, set_lr
from orca_sweep.training.pretrain_corpus import Corpus, RawCorpus, load_corpus, mask_tokens, prepare_corpus
from orca_sweep.training.state import TrainState, select_prefix
from orca_sweep.training.worker import Progress, Worker

STAGE = "pretrain"
SAVE_EVERY_S = 30.0
STEPS_PER_REPORT = 50
WEIGHT_DECAY = 0.01


def pretrain_body(body: Body, config: BodyConfig, worker: Worker, report: Progress) -> tuple[LoadedBody, float, bool]:
    """Returns the body, the seconds that computing it took, and whether it was reused.

    Fraction 0 is a seeded random initialisation. Our own small bodies are pre-trained on the given fraction of their
    corpus; other bodies are loaded with their published weights.

    Source: classification for images; for texts, prediction of 15% masked tokens, 80/10/10 (Devlin et al. 2019, arXiv
    1810.04805).
    """
    start = time.perf_counter()
    if body.pretrain is None:
        return _load_published(body, config), time.perf_counter() - start, False
    corpus = load_corpus(body, body.pretrain, worker)
    if config.pretrain_fraction == 0:
        model = build_random_model(body, config.pretrain_seed)
        return LoadedBody(model=model, tokenizer=corpus.tokenizer), time.perf_counter() - start, False
    artifact, reused = _pretrain_once(body, body.pretrain, config, corpus, worker=worker, report=report)
    model = build_base_model(load_config(body))
    model.load_state_dict(to_tensors(select_prefix("body.", artifact.tensors)))
    loaded = LoadedBody(model=model, tokenizer=corpus.tokenizer, pretrain_metric=artifact.meta["held_out"])
    return loaded, float(artifact.meta["seconds"]), reused


def _load_published(body: Body, config: BodyConfig) -> LoadedBody:
    if config.pretrain_fraction > 0:
        return load_pretrained(body, config.allow_pickle)
    model = build_random_model(body, config.pretrain_seed)
    return LoadedBody(model=model, tokenizer=load_body_tokenizer(body, model.config))


def _pretrain_once(
    body: Body, recipe: PretrainRecipe, config: BodyConfig, corpus: RawCorpus, *, worker: Worker, report: Progress
) -> tuple[Artifact, bool]:
    """Returns the pre-trained body's artifact and whether it was reused; if not, trains it, and other workers wait."""
    inputs = {**worker.key_part(), **_list_key_inputs(body, recipe, config), "corpus": corpus.data.fingerprint}
    key, partial = stage_key(STAGE, inputs), stage_key(STAGE, {**inputs, "partial": True})
    store = worker.store
    with store.lock(STAGE, key):
        artifact = store.get(STAGE, key)
        if artifact is not None:
            return artifact, True
        training = _Pretraining(
            body, recipe, config, prepare_corpus(corpus, body, recipe, config), device=worker.device
        )
        unfinished = store.get(STAGE, partial)
        if unfinished is not None:
            training.state.restore(unfinished)
        policy = CheckpointPolicy(every_s=SAVE_EVERY_S)
        while not training.is_done:
            training.run_steps(STEPS_PER_REPORT)
            if policy.is_due(0) and not training.is_done:
                store.put(STAGE, partial, *training.state.pack())
                policy.note_saved(0)
            report({"stage": STAGE, "epoch": training.state.n_steps, "train_loss": training.loss})
        artifact = store.put(STAGE, key, *training.state.pack(held_out=training.score_held_out(), inputs=inputs))
        if store.has(STAGE, partial):
            store.fs.rm(store.path_of(STAGE, partial))
        return artifact, False


def _list_key_inputs(body: Body, recipe: PretrainRecipe, config: BodyConfig) -> dict[str, Any]:
    """The settings that the pre-trained weights depend on, besides the corpus and the worker."""
    return {
        "body": body.name,
        "settings": dict(body.settings),
        "recipe": {"task": recipe.task, "batch": recipe.batch_size, "lr": recipe.lr, "held_out": recipe.n_held_out},
        "fraction": config.pretrain_fraction,
        "seed": config.pretrain_seed,
        "steps": config.pretrain_steps or recipe.steps,
    }


class _Pretraining:
    """Pre-training of a small body, which can resume after any step."""

    def __init__(self, body: Body, recipe: PretrainRecipe, config: BodyConfig, corpus: Corpus, *, device: str) -> None:
        self.recipe, self.corpus, self.device = recipe, corpus, device
        self.seed = config.pretrain_seed
        self.n_steps = config.pretrain_steps or recipe.steps
        self.model = build_random_model(body, self.seed).to(device)
        with torch_stream(self.seed, "pretrain head"):
            self.head = self._build_head().to(device)
        parameters = [*self.model.parameters(), *self.head.parameters()]
        optimizer = make_optimizer("adamw", parameters, recipe.lr, WEIGHT_DECAY)
        self.state = TrainState(models={"body": self.model, "head": self.head}, optimizer=optimizer)
        self.loss = math.nan

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.state.n_steps >= self.n_steps

    def _build_head(self) -> nn.Module:
        config = self.model.config
        n_outputs = self.corpus.n_classes if self.recipe.task == "classification" else config.vocab_size
        return nn.Linear(config.hidden_size, n_outputs)

    def run_steps(self, n_most: int) -> None:
        """Takes at most ``n_most`` of the remaining steps.

        Raises:
            DivergedError: if their mean loss is not finite.
        """
        start = time.perf_counter()
        self.model.train()
        n_steps = min(n_most, self.n_steps - self.state.n_steps)
        total = torch.zeros((), device=self.device)
        for _ in range(n_steps):
            total += self._take_step()
        self.loss = float(total) / n_steps
        self.state.seconds += time.perf_counter() - start
        if not math.isfinite(self.loss):
            raise DivergedError(f"pre-training diverged: loss {self.loss} at step {self.state.n_steps}")

    def _take_step(self) -> Tensor:
        state, step = self.state, self.state.n_steps
        with torch_stream(self.seed, "pretrain dropout", step):
            loss = self._compute_loss(self._draw_batch(step), step)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        set_lr(state.optimizer, pretrain_learning_rate(self.recipe.lr, step, self.n_steps))
        state.optimizer.step()
        state.n_steps += 1
        return loss.detach()

    def _draw_batch(self, step: int) -> Tensor:
        n = len(self.corpus.train)
        rng = stream_rng(self.seed, "pretrain order", step)
        chosen = rng.choice(n, size=self.recipe.batch_size, replace=n < self.recipe.batch_size)
        return self.corpus.train[torch.from_numpy(chosen)]

    def _compute_loss(self, index: Tensor, step: int) -> Tensor:
        if self.recipe.task == "classification":
            return F.cross_entropy(self._compute_logits(index), self.corpus.labels[index].to(self.device))
        ids = self.corpus.inputs[index]
        masked, targets = mask_tokens(ids, self.corpus.tokenizer, stream_rng(self.seed, "pretrain mask", step))
        attend = (ids != self.corpus.tokenizer.pad_token_id).to(self.device)
        hidden = self.model(input_ids=masked.to(self.device), attention_mask=attend).last_hidden_state
        return F.cross_entropy(self.head(hidden).flatten(0, 1), targets.flatten().to(self.device), ignore_index=-100)

    def _compute_logits(self, index: Tensor) -> Tensor:
        images = self.corpus.inputs[index].to(self.device)
        logits: Tensor = self.head(self.model(pixel_values=images).last_hidden_state.mean(dim=1))
        return logits

    @torch.inference_mode()
    def score_held_out(self) -> float:
        """Returns the error (classification) or the loss (masked tokens, fixed masks) on the held-out part."""
        self.model.eval()
        index = self.corpus.held_out
        if self.recipe.task == "masked-tokens":
            return float(self._compute_loss(index, -1))
        return float((self._compute_logits(index).argmax(dim=1).cpu() != self.corpus.labels[index]).float().mean())
