"""What the contrasts of a task could have shown, and what would decide a task or a claim that is not decided."""

import math
from collections.abc import Sequence
from dataclasses import replace

from orca_sweep.analysis.claim_records import Claim
from orca_sweep.analysis.findings import CORRELATION, UNKNOWN_POWER, Judgement, Power, TaskFinding
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.writing import format_percent
from orca_sweep.stats import chance_of_no_difference, count_seeds_for_margin, count_seeds_needed, detectable_effect
from orca_sweep.stats.power import MOST_SEEDS, POWER

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
    contrasts = [j for j in judgements if j.decides and j.kind != CORRELATION and j.n and j.sd > 0]
    if not contrasts:
        return UNKNOWN_POWER
    each = [
        Power(
            n=j.n,
            n_family=j.n_family,
            detectable=detectable_effect(j.n, j.sd, j.margin, n_comparisons=j.n_family, alpha=alpha),
            chance_of_none=chance_of_no_difference(j.n, j.sd, j.margin, n_comparisons=j.n_family, alpha=alpha),
            seeds_for_margin=count_seeds_for_margin(j.margin, j.sd, j.n_family, alpha),
            seeds_to_decide=_count_to_decide(j, alpha) if j.word == "undecided" else math.nan,
        )
        for j in contrasts
    ]
    least = max(each, key=lambda power: -1.0 if math.isnan(power.detectable) else power.detectable)
    to_decide = [power.seeds_to_decide for power in each if not math.isnan(power.seeds_to_decide)]
    return replace(least, seeds_to_decide=max(to_decide, default=math.nan))


def _count_to_decide(judgement: Judgement, alpha: float) -> float:
    """Returns the seeds that would decide a contrast whose true difference is the one seen."""
    distance = abs(abs(judgement.estimate) - judgement.margin)
    return count_seeds_needed(distance, judgement.sd, judgement.n_family, alpha) if distance else math.inf


def describe_power(power: Power, margin: Margin | None) -> str:
    """Returns what a task could have shown as a clause; empty if it is not known."""
    if math.isnan(power.detectable) or margin is None or margin.kind == "none":
        return ""
    shown = f"{_count_pairs(power.n)} could have shown {power.detectable:.2g} or more"
    if margin.value == 0:
        return f"{shown}; with a margin of 0, no difference can never be shown"
    reached = "in reach" if power.chance_of_none >= POWER else "out of reach"
    chance = f"a true zero would have been called so with {format_chance(power.chance_of_none)} probability"
    return f"{shown}; margin {margin.number} was {reached}: {chance}"


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
    if any(j.kind == CORRELATION for j in finding.judgements):
        return "more seeds: how many is not known for a rank correlation"
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
        texts.append(f"{_write_seeds(power.seeds_for_margin)} bring the margin within reach")
    if not math.isnan(to_decide):
        texts.append(f"{_write_seeds(to_decide)} decide if the true difference is the one seen")
    return f"more seeds: by the spread seen, {', and '.join(texts)}" if texts else "more seeds"


def _write_seeds(n: float) -> str:
    return f"about {n:.0f}" if math.isfinite(n) else f"more than {MOST_SEEDS}"


def describe_claim_power(findings: Sequence[TaskFinding]) -> str:
    """Returns what all tasks of a claim could have shown: the smallest effects, and where the margin was in reach."""
    known = [task for task in findings if math.isfinite(task.detectable)]
    if not known:
        return ""
    shown = ", ".join(f"{task.task} {task.detectable:.2g}" for task in known)
    n = sum(task.power.chance_of_none >= POWER for task in known)
    return (
        f"these rows could have shown, with {format_percent(POWER)} probability: {shown} (in each task's unit); the margin was"
        f" in reach on {n} of {len(known)} {'task' if len(known) == 1 else 'tasks'}"
    )
