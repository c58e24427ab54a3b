"""OTDD and metric over trials: Spearman's rank correlation, judged against the least that counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orca_sweep.analysis.cells import EPOCHS, OBJECTIVE, ConfiguredCell
from orca_sweep.analysis.claim_records import Setting
from orca_sweep.analysis.findings import CORRELATION, Judgement, Unjudged
from orca_sweep.stats import RankCorrelation, holm, rank_correlation, rho_p, spread_of_rho
from orca_sweep.stats.digits import MINUS, Digits, format_number, refine_digits
from orca_sweep.stats.modes import Mode, as_cost


def judge_correlations(
    settings: Sequence[Setting], level: float, least: float, *, complete: bool
) -> list[tuple[Judgement, ...]]:
    """Returns the judgement of each setting; together they are one family of tests.

    Args:
        settings: cells of a rising amount of embedder training, for each task.
        level: confidence level; words are judged at 1 - level.
        least: the least rank correlation that counts.
        complete: whether to judge from the remaining seeds if some lack trials.
    """
    gaps = [_find_gaps(setting.along) for setting in settings]
    correlations = [
        _correlate(setting.along, gap, level, complete=complete) for setting, gap in zip(settings, gaps, strict=True)
    ]
    uncorrected = [
        _one_sided_p(rho, least, setting.anchor.cell.mode) if rho else (math.nan, math.nan)
        for rho, setting in zip(correlations, settings, strict=True)
    ]
    # As for a contrast: the 1 - alpha interval lies beyond, or the 1 - 2 alpha interval does not reach that far.
    beyond = holm([p if math.isnan(p) else min(1.0, 2 * p) for p, _ in uncorrected]).tolist()
    below = holm([p for _, p in uncorrected]).tolist()
    tests = [
        _Tracking(
            correlation=rho,
            gaps=gap,
            least=least,
            alpha=1 - level,
            p_beyond=p_beyond,
            p_below=p_below,
            n_family=sum(not math.isnan(p) for p in below),
        )
        for rho, gap, p_beyond, p_below in zip(correlations, gaps, beyond, below, strict=True)
    ]
    return [(_judge_tracking(setting, test),) for setting, test in zip(settings, tests, strict=True)]


def _correlate(
    along: Sequence[ConfiguredCell], gaps: Mapping[int, str], level: float, *, complete: bool
) -> RankCorrelation | None:
    """Returns the rank correlation of OTDD and metric over the trials of complete seeds.

    None if no seed is complete, or if some are not and ``complete`` does not allow to leave them out.
    """
    seeds = [seed for seed in _list_seeds(along) if seed not in gaps]
    if (gaps and not complete) or not seeds:
        return None
    trials = [(cell.objectives[seed], cell.cell.values[seed], seed) for cell in along for seed in seeds]
    objective, metric, clusters = zip(*trials, strict=True)
    return rank_correlation(objective, metric, level, clusters)


# Correlations -------------------------------------------------------------------------------------


def _list_seeds(cells: Sequence[ConfiguredCell]) -> list[int]:
    """Returns the seeds that all cells were planned with: others lack nothing that was meant to run."""
    return sorted(set.intersection(*(set(cell.cell.values) for cell in cells)))


def _list_unplanned(cells: Sequence[ConfiguredCell]) -> tuple[int, ...]:
    """Returns the seeds that only some of the cells were planned with."""
    return tuple(sorted({seed for cell in cells for seed in cell.cell.values} - {*_list_seeds(cells)}))


def _find_gaps(cells: Sequence[ConfiguredCell]) -> dict[int, str]:
    """Returns the seeds that lack a trial at some amount of embedder training, each with what happened to the trial."""
    gaps = {}
    for seed in _list_seeds(cells):
        lacking = [
            f"{cell.describe_levels(EPOCHS)} {_describe_trial(cell, seed)}"
            for cell in cells
            if not _has_numbers(cell, seed)
        ]
        if lacking:
            gaps[seed] = ", ".join(lacking)
    return gaps


def _has_numbers(cell: ConfiguredCell, seed: int) -> bool:
    return all(math.isfinite(numbers.get(seed, math.nan)) for numbers in (cell.cell.values, cell.objectives))


def _describe_trial(cell: ConfiguredCell, seed: int) -> str:
    status = cell.cell.statuses[seed]
    return "ok but without a number" if status == "ok" else status


def _one_sided_p(rho: RankCorrelation, least: float, mode: Mode) -> tuple[float, float]:
    """Returns the p of a correlation below the least that counts, and the p of one above it.

    The sign follows the mode: a better metric is a lower or a higher one.
    """
    if mode == "min":
        return rho_p(rho, least)
    above, below = rho_p(rho, -least)
    return below, above


@dataclass(frozen=True, kw_only=True)
class _Tracking:
    """A rank correlation of objective and metric, and its test within the claim's family."""

    correlation: RankCorrelation | None
    gaps: Mapping[int, str]
    least: float
    """The least correlation that counts."""
    alpha: float
    p_beyond: float
    p_below: float
    n_family: int

    @property
    def word(self) -> str:
        """Tracks, does not track, or undecided."""
        if self.p_beyond <= self.alpha:
            return "tracks"
        return "does not track" if self.p_below <= self.alpha else "undecided"

    @property
    def unjudged(self) -> Unjudged | None:
        """Why it cannot be judged."""
        if not math.isnan(self.p_below):
            return None
        if self.correlation is None and not self.gaps:
            return Unjudged(reason="lacking-trials", text="no seed is planned with all amounts of embedder training")
        if self.correlation is None:
            seeds = ", ".join(map(str, self.gaps))
            text = f"seed {seeds} lacks trials" if len(self.gaps) == 1 else f"seeds {seeds} lack trials"
            return Unjudged(reason="lacking-trials", text=text)
        caution = self.correlation.caution.replace("cluster", "seed")
        return Unjudged(reason="no-interval", text=caution or "its interval is not finite")


def _judge_tracking(setting: Setting, test: _Tracking) -> Judgement:
    rho, mode = test.correlation, setting.anchor.cell.mode
    first, *_, last = [cell.level_of(EPOCHS) for cell in setting.along]
    measured = "error" if mode == "min" else "score"
    amounts = f"{len(setting.along)} amounts ({first} to {last})"
    judgement = Judgement(
        kind=CORRELATION,
        name=f"{setting.anchor.level_of(OBJECTIVE)} and {measured}, {amounts}",
        cells=tuple(cell.cell.cell_id for cell in setting.along),
        word=test.word,
        n=rho.n if rho else 0,
        n_seeds=(rho.n_clusters or 0) if rho else len(_list_seeds(setting.along)) - len(test.gaps),
        estimate=rho.rho if rho else math.nan,
        low=rho.rho_low if rho else math.nan,
        high=rho.rho_high if rho else math.nan,
        inner_low=math.nan,
        inner_high=math.nan,
        reference=math.nan,
        margin=as_cost(test.least, mode),
        p_beyond=test.p_beyond,
        p_within=test.p_below,
        n_family=test.n_family,
        sentence="",
        unjudged=test.unjudged,
        gaps="; ".join(f"{seed} ({reason})" for seed, reason in test.gaps.items()),
        digits=refine_digits(Digits(decimals=2), [(rho.rho_high - rho.rho_low) / 2] if rho else []),
        differs="",
        unplanned=_list_unplanned(setting.along),
        sd=spread_of_rho(rho) if rho else math.nan,
    )
    return replace(judgement, sentence=_write_tracking(judgement, test.least, mode))


def _write_tracking(judgement: Judgement, least: float, mode: Mode) -> str:
    if judgement.unjudged:
        return f"Cannot be judged: {judgement.unjudged.text}."
    estimate, low, high = (
        format_number(number, judgement.digits, "+") for number in (judgement.estimate, judgement.low, judgement.high)
    )
    interval = f"interval {low} to {high}"
    n = f"{judgement.n} trials of {judgement.n_seeds} seeds"
    limit = f"the least that counts is {least:g}"
    if mode == "max":
        limit = f"since a higher metric is better, the most that counts is {MINUS}{least:g}"
    return f"Spearman's rank correlation is {estimate} ({interval}, {n}); {limit}: {judgement.word}."
