"""What the contrasts of a task could have shown, and what would decide a task or a claim that is not decided."""

import math
from collections.abc import Sequence
from dataclasses import replace

from orca_sweep.analysis.claim_records import Claim
from orca_sweep.analysis.findings import CORRELATION, UNKNOWN_POWER, Judgement, Power, TaskFinding
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.writing import format_percent
from orca_sweep.stats import chance_of_no_difference, count_seeds_for_margin, count_seeds_needed, detectable_effect
from orca_sweep.stats.power import MOST_SEEDS, POWER, chance_of_less, count_seeds_for_less

RUN_AGAIN = "run the trials that are not ok again (resume), or judge the remaining seeds with --complete-pairs"
REMEDIES = {
    "no-margin": "fix a margin in the space (margin), give one (--margin), or run an A/A cell (aa)",
    "no-dimensions": "run the task with this version, whose rows have the column dims",
    "not-named": "name other levels with --base",
    "incomplete": RUN_AGAIN,
    "lacking-trials": RUN_AGAIN,
    "too-few-pairs": "run more seeds: at least three pairs are needed",
    "no-interval": "run more seeds: at least three are needed",
    "no-spread": "more test data or a finer metric, unless the cells do the same work; more seeds alone may not tell",
}
"""By reason why a task is not judged, what would help; other reasons need the cells of the claim."""


def measure_power(judgements: Sequence[Judgement], alpha: float) -> Power:
    """Returns what the contrasts that decide a task could have shown, by the spread that they have."""
    contrasts = [j for j in judgements if j.decides and j.n and j.sd > 0]
    if not contrasts:
        return UNKNOWN_POWER
    each = [(_measure_correlation if j.kind == CORRELATION else _measure_difference)(j, alpha) for j in contrasts]
    least = max(each, key=lambda power: -1.0 if math.isnan(power.detectable) else power.detectable)
    to_decide = [power.seeds_to_decide for power in each if not math.isnan(power.seeds_to_decide)]
    return replace(least, seeds_to_decide=max(to_decide, default=math.nan))


def _measure_difference(j: Judgement, alpha: float) -> Power:
    return Power(
        n=j.n,
        n_family=j.n_family,
        detectable=detectable_effect(j.n, j.sd, j.margin, n_comparisons=j.n_family, alpha=alpha),
        chance_of_none=chance_of_no_difference(j.n, j.sd, j.margin, n_comparisons=j.n_family, alpha=alpha),
        seeds_for_margin=count_seeds_for_margin(j.margin, j.sd, j.n_family, alpha),
        seeds_to_decide=_count_to_decide(j, alpha) if j.word == "undecided" else math.nan,
    )


def _measure_correlation(j: Judgement, alpha: float) -> Power:
    """The power of a rank correlation: atanh(rho) is taken for the mean of one value per seed, with the spread seen.

    In simulations with six seeds, four trials each, this came out up to five percent too high.
    """
    n, least = j.n_seeds, math.atanh(abs(j.margin))
    return Power(
        n=n,
        is_correlation=True,
        n_family=j.n_family,
        detectable=math.tanh(detectable_effect(n, j.sd, least, n_comparisons=j.n_family, alpha=alpha)),
        chance_of_none=chance_of_less(n, j.sd, least, n_comparisons=j.n_family, alpha=alpha),
        seeds_for_margin=count_seeds_for_less(least, j.sd, j.n_family, alpha),
        seeds_to_decide=_count_to_decide(j, alpha) if j.word == "undecided" else math.nan,
    )


def _count_to_decide(judgement: Judgement, alpha: float) -> float:
    """Returns the seeds that would decide a contrast whose true difference is the one seen."""
    distance = measure_distance(judgement)
    return count_seeds_needed(distance, judgement.sd, judgement.n_family, alpha) if distance else math.inf


def measure_distance(judgement: Judgement) -> float:
    """Returns how far an estimate is from the margin that decides it, in the unit of its ``sd``: atanh of a correlation."""
    if judgement.kind == CORRELATION:
        # The least that counts is negative where a higher metric is better.
        rho = judgement.estimate * math.copysign(1, judgement.margin)
        return abs(math.atanh(rho) - math.atanh(abs(judgement.margin)))
    return abs(abs(judgement.estimate) - judgement.margin)


def describe_power(power: Power, margin: Margin | None) -> str:
    """Returns what a task could have shown as a clause; empty if it is not known."""
    if power.is_correlation:
        return _describe_correlation_power(power)
    if math.isnan(power.detectable) or margin is None or margin.kind == "none":
        return ""
    shown = f"{_count_pairs(power.n)} could have shown {power.detectable:.2g} or more"
    if margin.value == 0:
        return f"{shown}; with a margin of 0, no difference can never be shown"
    reached = "in reach" if power.chance_of_none >= POWER else "out of reach"
    chance = f"a true zero would have been called so with {format_chance(power.chance_of_none)} probability"
    return f"{shown}; margin {margin.number} was {reached}: {chance}"


def _describe_correlation_power(power: Power) -> str:
    if math.isnan(power.detectable):
        return ""
    reached = "in reach" if power.chance_of_none >= POWER else "out of reach"
    return (
        f"{power.n} seeds could have shown a rank correlation of {format_detectable(power)} in size; the least that counts was"
        f" {reached}: a true zero would have been called so with {format_chance(power.chance_of_none)} probability"
    )


def format_detectable(power: Power) -> str:
    """Returns the smallest effect that could have been shown; a rank correlation is not rounded up to 1."""
    return "over 0.99" if power.is_correlation and power.detectable > 0.99 else f"{power.detectable:.2g}"


def format_chance(share: float) -> str:
    """Returns a probability in percent; the ends of the range are not rounded up to certainty."""
    if share < 0.01:
        return "under 1%"
    return "over 99%" if share > 0.99 else format_percent(round(share, 2))


def _count_pairs(n: int) -> str:
    return f"{n} pair" if n == 1 else f"{n} pairs"


def find_addition(claim: Claim, finding: TaskFinding) -> str:
    """Returns what would decide a task that is undecided or not judged; empty if it is decided."""
    if finding.says in ("supports", "contradicts"):
        return ""
    if finding.unjudged:
        reason = finding.unjudged.reason
        if reason == "not-concerned":
            return ""
        if reason == "several":
            reasons = dict.fromkeys(j.unjudged.reason for j in finding.judgements if j.unjudged)
            return "; ".join(REMEDIES.get(each, "") for each in reasons)
        return REMEDIES.get(reason) or f"cells with {claim.recipe}"
    return _count_more_seeds(finding)


def _count_more_seeds(finding: TaskFinding) -> str:
    power, margin = finding.power, finding.margin
    to_decide = power.seeds_to_decide
    if margin is not None and margin.value == 0:
        return (
            f"more seeds: {_write_seeds(to_decide)} to show the difference that was seen; margin 0 can never be reached"
        )
    if math.isnan(power.seeds_for_margin):
        return "more seeds"
    texts = []
    if not power.chance_of_none >= POWER:
        limit = "least that counts" if power.is_correlation else "margin"
        texts.append(f"{_write_seeds(power.seeds_for_margin)} bring the {limit} within reach")
    if not math.isnan(to_decide):
        seen = "correlation" if power.is_correlation else "difference"
        texts.append(f"{_write_seeds(to_decide)} decide if the true {seen} is the one seen")
    return f"more seeds: by the spread seen, {', and '.join(texts)}" if texts else "more seeds"


def _write_seeds(n: float) -> str:
    return f"about {n:.0f}" if math.isfinite(n) else f"more than {MOST_SEEDS}"


def describe_claim_power(findings: Sequence[TaskFinding]) -> str:
    """Returns what all tasks of a claim could have shown: the smallest effects, and where the margin was in reach."""
    known = [task for task in findings if math.isfinite(task.detectable)]
    if not known:
        return ""
    shown = ", ".join(f"{task.task} {format_detectable(task.power)}" for task in known)
    n = sum(task.power.chance_of_none >= POWER for task in known)
    is_correlation = any(task.power.is_correlation for task in known)
    unit, limit = ("rank correlation", "least that counts") if is_correlation else ("in each task's unit", "margin")
    return (
        f"these rows could have shown, with {format_percent(POWER)} probability: {shown} ({unit}); the {limit} was"
        f" in reach on {n} of {len(known)} {'task' if len(known) == 1 else 'tasks'}"
    )
