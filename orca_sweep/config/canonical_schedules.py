"""One way to write all freeze schedules that do the same work in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from orca_sweep.config.freeze_words import GRADUAL, PRESETS, name_all_norms, order_words
from orca_sweep.config.freezing import (
    TRAIN_ALL,
    Phase,
    cut_phases,
    epochs_before_fresh_start,
    merge_phases,
    parse_schedule,
    split_phase,
    states_length,
    with_first_epochs,
    write_phase,
)

NAMED = {("embedder",): "embedder", ("body",): "body", ("embedder", "body"): "both"}
NAMED_FOREVER = {
    **NAMED,
    ("body-without-norms",): "layernorm",
    ("body-without-transformer-norms",): "released-layernorm",
    ("body.qkv",): "released-non-attn",
}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What decides which words of a run's schedule have an effect."""

    warmup_epochs: int
    decay_epochs: int | None
    optimizer_remembers: bool
    """Whether a step depends on earlier steps, as with every optimizer but sgd without momentum."""
    merges_patches: bool
    """Whether the body may have down-sampling norms; only Swin does."""

    @property
    def has_constant_rate(self) -> bool:
        """Whether the run has neither warm-up nor decay."""
        return self.warmup_epochs == 0 and self.decay_epochs is None


@lru_cache(maxsize=4096)
def canonicalise_schedule(
    freeze: str, freeze_epochs: int | str, epochs: int, run: RunFacts | None = None
) -> tuple[str, int | str]:
    """Returns one (freeze, freeze_epochs) for all schedules that do the same work in a run of ``epochs`` epochs.

    Leaves out phases that the run does not reach. With ``run``, it also leaves out what has no effect: ``constant``
    where the rate is at its peak anyway, ``fresh`` where there is neither optimizer state nor a rate schedule to restart,
    and the difference between ``norms`` and ``transformer-norms`` where the body has no down-sampling norms. A schedule
    that gives its own lengths and is not a preset keeps its text, with freeze_epochs 0.

    Raises:
        ValueError: saying what is wrong with the text, or if ``epochs`` is below 1.
    """
    if epochs < 1:
        raise ValueError("a run needs at least one epoch")
    if freeze == GRADUAL:
        first = parse_schedule(freeze, freeze_epochs)[0]
        if first.epochs is None or (first.frozen == ("embedder", "body") and first.epochs >= epochs):
            return ("both", "forever") if first.frozen else ("none", 0)
        return freeze, freeze_epochs if first.frozen else 0
    reached = cut_phases(parse_schedule(freeze, freeze_epochs), epochs)
    *before, last = reached if run is None else merge_phases(_without_idle_words(reached, run))
    phases = [*before, replace(last, epochs=None)]
    first = phases[0]
    if len(phases) == 1:
        return _write_single_phase(first)
    if len(phases) == 2 and first.frozen and phases[1] == TRAIN_ALL:
        text = write_phase(replace(first, epochs=None))
        return (NAMED.get(first.frozen, text) if first.is_plain else text), first.epochs or 0
    return " > ".join(write_phase(phase) for phase in phases), 0


def _write_single_phase(phase: Phase) -> tuple[str, int | str]:
    text = write_phase(phase)
    if not phase.frozen:
        return text, 0
    return (NAMED_FOREVER.get(phase.frozen, text) if phase.is_plain else text), "forever"


def write_schedule(freeze: str, freeze_epochs: str) -> str:
    """Returns both fields of a canonical schedule as one text: ``body`` alone does not say for how long it is frozen."""
    if (
        freeze_epochs in ("0", "null")
        or freeze in ("none", "null")
        or (freeze_epochs == "forever" and states_length(freeze))
    ):
        return freeze
    if freeze == GRADUAL:
        return f"{freeze}, {freeze_epochs} epochs each"
    if (freeze, freeze_epochs) == ("both", "forever"):
        return "linear-probe"
    head, *words = split_phase(PRESETS.get(freeze, freeze))
    return " ".join([f"{head}:{freeze_epochs}", *words])


def _without_idle_words(phases: Sequence[Phase], run: RunFacts) -> Iterator[Phase]:
    for phase, first in with_first_epochs(phases):
        done = first - 1 - epochs_before_fresh_start(phases, first)  # epochs of the rate schedule so far
        is_at_peak = run.decay_epochs is None and done >= run.warmup_epochs
        yield replace(
            phase,
            frozen=phase.frozen if run.merges_patches else order_words(map(name_all_norms, phase.frozen)),
            constant_lr=phase.constant_lr and not is_at_peak,
            fresh_optimizer=phase.fresh_optimizer and not (run.has_constant_rate and not run.optimizer_remembers),
        )
