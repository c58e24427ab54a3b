"""The learning rate of each step of embedder training and fine-tuning: functions of the step and config fields only."""

from orca_sweep.config import EmbedderConfig, FinetuneConfig
from orca_sweep.config.number_lists import parse_numbers


def embedder_learning_rate(config: EmbedderConfig, step: int) -> float:
    """Returns the rate of embedder step ``step`` (from 0): it falls only after the steps in ``lr_decay_after``.

    It does not depend on ``embedder.epochs``.
    """
    n_drops = sum(after < step for after in parse_numbers(config.lr_decay_after))
    return config.lr * config.lr_decay**n_drops


def learning_rate(config: FinetuneConfig, step: int, steps_per_epoch: int) -> float:
    """Returns the rate of optimizer step ``step`` (from 0): linear warm-up, then constant or linear decay.

    Counted in optimizer steps; the first step is above zero, and after ``decay_epochs`` it is zero,
    never negative. It does not depend on ``finetune.epochs``.
    """
    warm = config.warmup_epochs * steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.decay_epochs is None:
        return config.lr
    end = config.decay_epochs * steps_per_epoch
    return config.lr * max(0.0, (end - step) / max(1, end - warm))
