"""The learning rate of each training step: a function of the step and of config fields only."""

from collections.abc import Sequence

from orca_sweep.config import EmbedderConfig, FinetuneConfig
from orca_sweep.config.freezing import Phase, epochs_before_fresh_start, phase_at
from orca_sweep.config.number_lists import parse_numbers


def embedder_learning_rate(config: EmbedderConfig, step: int) -> float:
    """Returns the learning rate of embedder step ``step`` (from 0), which falls only after the steps in ``lr_decay_after``.

    It does not depend on ``embedder.epochs``.
    """
    n_drops = sum(after < step for after in parse_numbers(config.lr_decay_after))
    return config.lr * config.lr_decay**n_drops


def finetune_learning_rate(config: FinetuneConfig, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of optimizer step ``step`` (from 0): linear warm-up, then constant or linear decay.

    The rate of the first step is above zero; after ``decay_epochs`` it is zero, never negative. It does not depend on
    ``finetune.epochs``.
    """
    warm = config.warmup_epochs * steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.decay_epochs is None:
        return config.lr
    end = config.decay_epochs * steps_per_epoch
    return config.lr * max(0.0, (end - step) / max(1, end - warm))


def phase_learning_rate(
    config: FinetuneConfig, phases: Sequence[Phase], *, epoch: int, step: int, steps_per_epoch: int
) -> float:
    """Returns the learning rate of a fine-tuning step: that of the schedule since its last start, times the phase's factor.

    Args:
        config: fine-tuning's settings.
        phases: its freeze schedule.
        epoch: from 1.
        step: within the epoch, from 0.
        steps_per_epoch: optimizer steps per epoch.
    """
    phase = phase_at(phases, epoch)
    if phase.constant_lr:
        return config.lr * phase.lr_factor
    n_epochs_done = epoch - 1 - epochs_before_fresh_start(phases, epoch)
    return finetune_learning_rate(config, n_epochs_done * steps_per_epoch + step, steps_per_epoch) * phase.lr_factor


def pretrain_learning_rate(peak: float, step: int, n_steps: int) -> float:
    """Returns the learning rate of pre-training step ``step`` (from 0): linear warm-up over a tenth, then decay to zero."""
    warm = max(1, n_steps // 10)
    return peak * min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm), 1.0)
