"""Helps, hurts, no meaningful difference, undecided: a contrast judged against a margin.

**The rule.** The margin M is the smallest difference that matters, in the metric's unit, fixed before looking or taken
from an A/A cell. With the paired difference a - b of a metric of which lower is better (mode ``min``), and alpha = 0.05:

- *helps*: the 95% (1 - alpha) interval lies wholly below -M; *hurts*: wholly above M (of a metric of which higher is
  better, mode ``max``, the other way round);
- *no meaningful difference*: the 90% (1 - 2 alpha) interval lies wholly within -M and M (two one-sided tests), be the
  difference certain or not: one that surely is not zero and surely is smaller than M does not matter;
- *undecided*: everything else, one that surely is not zero and may or may not reach M among it.

The true difference lies within the margin or on one side of it. Within, only helps and hurts can be wrong, and the
1 - alpha interval misses the truth at a rate of alpha; outside, only what puts the upper (or lower) end of the
1 - 2 alpha interval on the wrong side of it can be, again at a rate of alpha. So a contrast judged alone gets a wrong
word at a rate of at most alpha, without correction between the words (undecided is never wrong). With M = 0 the rule is
the paired t test, and nothing can be shown to make no difference.

**Many contrasts.** Holm's procedure is applied twice: over the p values of helps-or-hurts and over those of no
difference. Among all contrasts of the family the chance of any wrong helps or hurts is then at most alpha, and so is
the chance of any wrong no-difference. The intervals shown stay those of the single contrast.

Source: Goeman, Solari and Stijnen (2010), three-sided testing, for judging three claims without a correction between
them; Schuirmann (1987) for the two one-sided tests; Holm (1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from orca_sweep.stats.contrasts import Contrast, has_spread, holm, t_tail, two_sided_p
from orca_sweep.stats.intervals import Interval, at_level, check_level, is_rounding
from orca_sweep.stats.modes import Mode, as_cost

Word = Literal["helps", "hurts", "no meaningful difference", "undecided"]
WORDS: tuple[Word, ...] = get_args(Word)


Reason = Literal["no-margin", "incomplete", "too-few-pairs", "no-spread"]
"""Why a contrast cannot be judged: seeds without a pair, fewer than two pairs, or equal differences other than zero."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a contrast is said to show, and the numbers behind the word; `write_verdict` makes the sentence of it."""

    word: Word
    reason: Reason | None
    """Why it cannot be judged, so that the word is undecided; None where it is judged."""
    outer: Interval
    """The 1 - alpha interval of the mean difference over complete pairs; helps and hurts are judged by it."""
    inner: Interval
    """The 1 - 2 alpha interval; no meaningful difference is judged by it."""
    margin: float
    mode: Mode
    incomplete: tuple[int, ...]
    """Seeds that give no complete pair."""
    p_beyond: float
    """Two-sided p of "the difference is within the margin", adjusted for the family; small where it helps or hurts."""
    p_within: float
    """p of the two one-sided tests, adjusted for the family; small where there is no meaningful difference."""
    n_contrasts: int
    """Judged together: the family of Holm's procedure."""
    excludes_zero: bool
    """Whether the 1 - alpha interval of this contrast alone lies on one side of zero."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return write_verdict(self)


@dataclass(frozen=True)
class NoiseMargin:
    """What seeds alone do: two sets of runs of one cell that differ in nothing else."""

    margin: float
    """Standard deviation of the difference of two means of ``n_seeds`` seeds each, in the metric's unit."""
    low: float
    """Confidence limits of that standard deviation: how little an A/A cell of this size knows of it."""
    high: float
    level: float
    n_seeds: int
    sd: float
    """Standard deviation of one trial over seeds, within each set."""
    df: int
    n_aa: int
    n_reference: int
    difference: float
    """Mean of the A/A cell minus mean of its reference."""
    p: float
    """Two-sided p of the unpaired t test of that difference. Where it is very small, the two sets are not alike: a fault."""


def _beside(found: Interval, margin: float) -> tuple[float, float]:
    """Returns the p of "the mean is at most -margin" and of "the mean is at least margin", two one-sided t tests (TOST).

    P(T >= (margin + mean) / se) and P(T >= (margin - mean) / se), n - 1 degrees of freedom. NaN for fewer than two
    differences, one that is not finite, or equal ones other than zero; differences that all are zero are equivalent.

    Source: Schuirmann (1987); Lakens (2017).
    """
    if math.isnan(found.sd) or math.isnan(margin):
        return math.nan, math.nan
    if not has_spread(found):
        return (0.0, 0.0) if found.mean == 0 else (math.nan, math.nan)
    return t_tail(found, margin + found.mean), t_tail(found, margin - found.mean)


def _check(margin: float, alpha: float) -> None:
    if margin < 0 or math.isinf(margin):
        raise ValueError(f"margin = {margin}: it must be a finite difference, 0 or more.")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}: it must lie between 0 and 0.5.")


def verdict(contrast: Contrast, margin: float, alpha: float = 0.05, mode: Mode = "min") -> Verdict:
    """Returns the word for one contrast judged alone, of a metric of that mode; see the rule above.

    Where there is nothing to judge (fewer than two pairs, incomplete pairs, a NaN margin, differences that all are
    the same number other than zero) it is undecided and has a reason.

    Raises:
        ValueError: for a negative or infinite margin, or an alpha outside (0, 0.5).
    """
    return verdicts([contrast], margin, alpha, mode)[0]


def verdicts(
    contrasts: Sequence[Contrast],
    margins: float | Sequence[float],
    alpha: float = 0.05,
    modes: Mode | Sequence[Mode] = "min",
) -> tuple[Verdict, ...]:
    """Returns the words for a family of contrasts judged together, in their order; see the rule above.

    ``margins`` is one for all, or one each (tasks differ in their unit), and so is ``modes``: which way round the metric
    is compared. A contrast that cannot be judged is not counted in the family.

    Raises:
        ValueError: as `verdict` does, or where margins or modes are not as many as contrasts.
    """
    all_modes = [modes] * len(contrasts) if isinstance(modes, str) else list(modes)
    if len(all_modes) != len(contrasts):
        raise ValueError(f"{len(all_modes)} modes for {len(contrasts)} contrasts: give one for all, or one each.")
    each = [float(margins)] * len(contrasts) if isinstance(margins, (int, float)) else [float(m) for m in margins]
    if len(each) != len(contrasts):
        raise ValueError(f"{len(each)} margins for {len(contrasts)} contrasts: give one for all, or one each.")
    for margin in each:
        _check(margin, alpha)
    questions = [_Question(*parts, alpha) for parts in zip(contrasts, each, all_modes, strict=True)]
    beyond = [_beyond(question.contrast.interval, question.margin) for question in questions]
    within = [max(_beside(question.contrast.interval, question.margin)) for question in questions]
    n_judged = sum(not math.isnan(p) for p in beyond)
    adjusted = zip(holm(beyond).tolist(), holm(within).tolist(), strict=True)
    return tuple(_judge(question, *ps, n_judged) for question, ps in zip(questions, adjusted, strict=True))


@dataclass(frozen=True)
class _Question:
    """What is judged, and against what."""

    contrast: Contrast
    margin: float
    mode: Mode
    alpha: float


def _beyond(found: Interval, margin: float) -> float:
    return math.nan if math.isnan(margin) else two_sided_p(found, margin)


def _judge(question: _Question, p_beyond: float, p_within: float, n_contrasts: int) -> Verdict:
    interval, alpha = question.contrast.interval, question.alpha
    return Verdict(
        word=_word(as_cost(interval.mean, question.mode), p_beyond, p_within, alpha),
        reason=_find_reason(question),
        outer=at_level(interval, 1 - alpha),
        inner=at_level(interval, 1 - 2 * alpha),
        margin=question.margin,
        mode=question.mode,
        incomplete=question.contrast.incomplete,
        p_beyond=p_beyond,
        p_within=p_within,
        n_contrasts=n_contrasts,
        excludes_zero=two_sided_p(interval) <= alpha,
    )


def _word(cost: float, p_beyond: float, p_within: float, alpha: float) -> Word:
    if p_beyond <= alpha:
        return "helps" if cost < 0 else "hurts"
    return "no meaningful difference" if p_within <= alpha else "undecided"


def _find_reason(question: _Question) -> Reason | None:
    interval = question.contrast.interval
    if math.isnan(question.margin):
        return "no-margin"
    if math.isnan(interval.mean) and question.contrast.incomplete:
        return "incomplete"
    if interval.n < 2:
        return "too-few-pairs"
    return "no-spread" if interval.mean != 0 and not has_spread(interval) else None


def describe_reason(verdict: Verdict) -> str:
    """Returns why a contrast cannot be judged, in words; empty where it is judged."""
    n, mean = verdict.outer.n, verdict.outer.mean
    match verdict.reason:
        case None:
            return ""
        case "no-margin":
            return "there is no margin"
        case "incomplete":
            return f"{_seeds(verdict.incomplete)} no complete pair"
        case "too-few-pairs":
            return f"{_counted(n)}, and two are the fewest"
        case "no-spread":
            return f"all {n} differences are {mean:+.3g}, so there is no spread to go by"


def write_verdict(verdict: Verdict) -> str:
    """Returns a verdict as a sentence."""
    if verdict.reason is not None:
        return f"Cannot be judged: {describe_reason(verdict)}."
    shown = verdict.inner if verdict.word == "no meaningful difference" else verdict.outer
    gaps = f"; {_seeds(verdict.incomplete)} none" if verdict.incomplete else ""
    numbers = f"{shown.level:.0%} interval {shown.low:+.3g} to {shown.high:+.3g}, {_counted(shown.n)}{gaps}"
    family = f" after correction for {verdict.n_contrasts} contrasts" if verdict.n_contrasts > 1 else ""
    subject = "The error" if verdict.mode == "min" else "The score"
    return f"{subject} {_change(shown.mean)} ({numbers}), {_place(verdict)}{family}: {verdict.word}."


def _change(mean: float) -> str:
    if mean == 0:
        return "stays as it is"
    return f"rises by {mean:.3g}" if mean > 0 else f"falls by {-mean:.3g}"


def _place(verdict: Verdict) -> str:
    margin = f"the margin of {verdict.margin:.3g}"
    if verdict.word in ("helps", "hurts"):
        return f"beyond {margin}"
    if verdict.word == "no meaningful difference":
        return f"within {margin}"
    differs = "not zero by itself, but " if verdict.excludes_zero else ""
    return f"{differs}shown neither within {margin} nor beyond it"


def _counted(n: int) -> str:
    return f"{n} pair" if n == 1 else f"{n} pairs"


def _seeds(incomplete: Sequence[int]) -> str:
    """'seed 3 gives', 'seeds 3, 4 give'."""
    seeds = ", ".join(map(str, incomplete))
    return f"seed {seeds} gives" if len(incomplete) == 1 else f"seeds {seeds} give"


def aa_margin(
    aa_values: Sequence[float] | np.ndarray,
    reference_values: Sequence[float] | np.ndarray,
    n_seeds: int = 1,
    level: float = 0.95,
) -> NoiseMargin:
    """Returns the margin that noise suggests: what a change of seeds does to a cell that is otherwise the same.

    Both sets are of one cell, with disjoint seeds. s = their pooled standard deviation, with n_aa + n_reference - 2
    degrees of freedom, and margin = s sqrt(2 / n_seeds): one standard deviation of the difference of two means of
    ``n_seeds`` seeds. Anything that shifts an error by less than the default margin is smaller than what another seed
    does to a single run.

    Why one seed by default: a margin for means of as many seeds as the contrast has shrinks as fast as the contrast's
    own interval, and could never be shown to hold; no-difference was found in 1% of true cases (5 unpaired seeds).
    With one it was 26% at 5 seeds and 75% at 10, and 60% and 95% where pairing halves the variance.
    Why not the upper confidence limit of s: the fewer A/A seeds, the wider it is, and the easier no-difference would
    be to claim; a true difference of exactly s sqrt(2) was then called none in 31 to 62% of cases, against 4 to 8%
    with s itself. That these are not all below 5% is the margin's own uncertainty, shown by ``low`` and ``high``: a
    margin fixed beforehand has none. (Simulated with 3 to 10 seeds per set, normal noise.)

    A value that is not finite, or no degree of freedom, makes all estimates NaN. Without any spread the margin is 0.

    Source: the margin is the standard deviation behind the repeatability limit of ISO 5725-6 (1994); chi-squared limits
    of a standard deviation. Bouthillier et al. (2021) put the least difference that matters at a similar place, where
    one method beats the other in 75% of pairs of runs: 0.95 s, against 84% and 1.41 s here.

    Raises:
        ValueError: for n_seeds below 1.
    """
    check_level(level)
    if n_seeds < 1:
        raise ValueError(f"n_seeds = {n_seeds}: it must be 1 or more.")
    aa, reference = np.asarray(aa_values, dtype=float), np.asarray(reference_values, dtype=float)
    df = max(0, aa.size + reference.size - 2) if min(aa.size, reference.size) else 0
    if df == 0 or not (np.isfinite(aa).all() and np.isfinite(reference).all()):
        nan = math.nan
        return NoiseMargin(nan, nan, nan, level, n_seeds, nan, df, aa.size, reference.size, nan, nan)
    from scipy.special import chdtri

    difference = float(aa.mean() - reference.mean())
    sd = math.sqrt(float(((aa - aa.mean()) ** 2).sum() + ((reference - reference.mean()) ** 2).sum()) / df)
    scale = max(abs(float(aa.mean())), abs(float(reference.mean())))
    difference, sd = (0.0 if is_rounding(x, scale) else x for x in (difference, sd))
    margin = sd * math.sqrt(2 / n_seeds)
    # chdtri takes the upper tail.
    low, high = (margin * math.sqrt(df / float(chdtri(df, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    p = _unpaired_p(difference, sd * math.sqrt(1 / aa.size + 1 / reference.size), df)
    return NoiseMargin(margin, low, high, level, n_seeds, sd, df, aa.size, reference.size, difference, p)


def _unpaired_p(difference: float, se: float, df: int) -> float:
    """Two-sided p of the pooled t test; without spread 1 where there is no difference, else NaN."""
    if se == 0:
        return 1.0 if difference == 0 else math.nan
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(difference) / se))
