"""One score over several tasks: the interquartile mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.errors import InputError
from orca_sweep.stats.intervals import check_level

FEW_SEEDS = 20


@dataclass(frozen=True, kw_only=True)
class InterquartileMean:
    """The mean of the middle half of all scores, and its interval over seeds."""

    mean: float
    low: float
    high: float
    level: float
    tasks: tuple[str, ...]
    n_seeds: int
    """Per task."""
    n_resamples: int
    caution: str
    """A sentence about what the interval does not cover."""


def interquartile_mean(
    scores: Mapping[str, Sequence[float] | np.ndarray], level: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> InterquartileMean:
    """Returns the interquartile mean over tasks, with a stratified percentile bootstrap over seeds within each task.

    ``scores`` map each task to one normalised score per seed, so that tasks share a scale. All scores are pooled, the lowest
    and the highest quarter (rounded down) are left out, and the rest is averaged. The bootstrap resamples seeds within each
    task, with a separate stream of ``seed`` per task; it does not resample tasks. The same scores give the same interval in
    any order of tasks or seeds.

    Like any bootstrap interval, it is too short with few seeds: in simulations, nominal 95% covered 86% at 3 seeds and
    90-93% at 5 over six tasks, and 73% at 3 seeds for one task. A score that is not finite makes mean and interval NaN. One
    seed gives no interval. For a difference of two cells, pass the normalised paired differences.

    Source: Agarwal et al. (2021), section 4; percentile bootstrap of Efron (1979).

    Raises:
        InputError: if tasks have different numbers of seeds, since tasks with more would weigh more.
    """
    check_level(level)
    tasks = tuple(sorted(scores))
    drawn = [np.sort(np.asarray(scores[task], dtype=float)) for task in tasks]
    sizes = {values.size for values in drawn}
    if len(sizes) > 1:
        counts = ", ".join(f"{task} {values.size}" for task, values in zip(tasks, drawn, strict=True))
        raise InputError(
            f"interquartile_mean: tasks have different numbers of scores ({counts}). Each task needs the same number of "
            "seeds. Run the missing trials, or leave the task or the seeds out."
        )
    n_seeds = sizes.pop() if sizes else 0
    data = np.array(drawn).reshape(len(tasks), n_seeds)
    data = np.where(np.isfinite(data), data, math.nan)
    mean = float(_middle_mean(data)) if data.size else math.nan
    low, high = math.nan, math.nan
    if n_seeds > 1 and math.isfinite(mean):
        resamples = [_resample_seeds(task, row, n_resamples, seed) for task, row in zip(tasks, data, strict=True)]
        low, high = (
            float(q) for q in np.quantile(_middle_mean(np.stack(resamples, 1)), [(1 - level) / 2, (1 + level) / 2])
        )
    return InterquartileMean(
        mean=mean, low=low, high=high, level=level, tasks=tasks, n_seeds=n_seeds, n_resamples=n_resamples,
        caution=_write_caution(len(tasks), n_seeds),
    )  # fmt: skip


def _middle_mean(data: np.ndarray) -> np.ndarray:
    """Returns interquartile means of shape (...) of scores of shape (..., tasks, seeds)."""
    pooled = np.sort(data.reshape(*data.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    middle: np.ndarray = pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)
    # NaN sorts to the end and would be cut off silently.
    return np.where(np.isnan(pooled[..., -1]), math.nan, middle)


def _resample_seeds(task: str, row: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *task.encode()])
    drawn: np.ndarray = row[rng.integers(0, row.size, (n_resamples, row.size))]
    return drawn


def _write_caution(n_tasks: int, n_seeds: int) -> str:
    tasks = f"The interval is over seeds, for these {n_tasks} tasks; it says nothing about other tasks."
    if n_seeds >= FEW_SEEDS:
        return tasks
    return f"{tasks} A bootstrap over {n_seeds} seeds per task makes it too short."
