"""Helps, hurts, no meaningful difference, undecided: a contrast judged against a margin.

**The rule.** The margin M is the smallest difference that matters, in the metric's unit. It is fixed in advance or taken
from an A/A cell. For the paired difference a - b of a metric for which lower is better (mode ``min``), and alpha = 0.05:

- *helps*: the 95% (1 - alpha) interval lies wholly below -M; *hurts*: it lies wholly above M. If higher values of the metric
  are better (mode ``max``), it is the other way round;
- *no meaningful difference*: the 90% (1 - 2 alpha) interval lies wholly between -M and M (two one-sided tests), whether or
  not it contains zero: a difference that is certainly smaller than M does not matter, even if it is certainly not zero;
- *undecided*: everything else, including a difference that is certainly not zero but may or may not reach M.

The true difference lies within the margin or on one side of it. If it lies within, only helps and hurts can be wrong, and
the 1 - alpha interval misses the truth at a rate of alpha. If it lies outside, a wrong word requires that the upper (or
lower) end of the 1 - 2 alpha interval falls on the wrong side of it, again at a rate of alpha. So a contrast judged alone
gets a wrong word at a rate of at most alpha, without a correction between the words (undecided is never wrong). With M = 0,
or without a margin, the rule is the paired t test, and no contrast can be shown to make no difference.

Below three pairs nothing is judged and no p counts: two differences may be equal by chance.

**Many contrasts.** Holm's procedure is applied twice: to the p values of helps-or-hurts and to those of no difference. Among
all contrasts of the family, the probability of any wrong helps or hurts is then at most alpha, and so is that of any wrong
no-difference. The intervals shown remain those of the single contrast.

Source: Goeman, Solari and Stijnen (2010), three-sided testing, for judging three claims without a correction between
them; Schuirmann (1987) for the two one-sided tests; Holm (1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from orca_sweep.stats.contrasts import LEAST_PAIRS, Contrast, has_spread, holm, t_tail, two_sided_p
from orca_sweep.stats.digits import Digits, digits_of_intervals, format_number, refine_digits
from orca_sweep.stats.intervals import Interval, at_level, check_level, is_rounding
from orca_sweep.stats.modes import Mode, as_cost

Word = Literal["helps", "hurts", "no meaningful difference", "undecided"]
WORDS: tuple[Word, ...] = get_args(Word)


Reason = Literal["no-margin", "incomplete", "too-few-pairs", "no-spread"]
"""Why a contrast cannot be judged: no margin, seeds without a pair, fewer than three pairs, or equal nonzero differences."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The word for a contrast and the numbers behind it; `write_verdict` turns it into a sentence."""

    word: Word
    reason: Reason | None
    """Why the contrast cannot be judged, so that the word is undecided; None if it can."""
    outer: Interval
    """The 1 - alpha interval of the mean difference over complete pairs; helps and hurts are judged by it."""
    inner: Interval
    """The 1 - 2 alpha interval; no meaningful difference is judged by it."""
    margin: float | None
    """None if there is none, so that the difference is judged against zero."""
    mode: Mode
    incomplete: tuple[int, ...]
    """Seeds without a complete pair."""
    p_beyond: float
    """Two-sided p of "the difference is within the margin", adjusted for the family; small for helps and hurts."""
    p_within: float
    """p of the two one-sided tests, adjusted for the family; small for no meaningful difference."""
    n_contrasts: int
    """Number of contrasts judged together: the family of Holm's procedure."""
    excludes_zero: bool
    """Whether the 1 - alpha interval of this contrast alone lies on one side of zero."""
    digits: Digits
    """The digits that the numbers of its row show."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return write_verdict(self)


@dataclass(frozen=True, kw_only=True)
class NoiseMargin:
    """The effect of seeds alone: two sets of trials of one cell that differ in nothing else."""

    margin: float
    """Standard deviation of the difference of two means of ``n_seeds`` seeds each, in the metric's unit."""
    low: float
    """Lower confidence limit of that standard deviation; few A/A seeds give wide limits."""
    high: float
    level: float
    n_seeds: int
    sd: float
    """Standard deviation of a trial between seeds, within each set."""
    df: int
    n_aa: int
    n_reference: int
    difference: float
    """Mean of the A/A cell minus mean of its reference."""
    p: float
    """Two-sided p of the unpaired t test of that difference. If it is very small, the two sets differ: a fault."""


def _one_sided_ps(interval: Interval, margin: float) -> tuple[float, float]:
    """Returns the p of "the mean is at most -margin" and of "the mean is at least margin", two one-sided t tests (TOST).

    P(T >= (margin + mean) / se) and P(T >= (margin - mean) / se) with n - 1 degrees of freedom. They are NaN with fewer than
    three differences, with one that is not finite, or if all are equal but not zero, and 0 if all are zero.

    Source: Schuirmann (1987); Lakens (2017).
    """
    if math.isnan(interval.sd) or math.isnan(margin) or interval.n < LEAST_PAIRS:
        return math.nan, math.nan
    if not has_spread(interval):
        return (0.0, 0.0) if interval.mean == 0 else (math.nan, math.nan)
    return t_tail(interval, margin + interval.mean), t_tail(interval, margin - interval.mean)


def _check_arguments(margin: float | None, alpha: float) -> None:
    if margin is not None and (margin < 0 or math.isinf(margin)):
        raise ValueError(f"margin = {margin}: it must be a finite difference, 0 or more.")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}: it must lie between 0 and 0.5.")


def judge_contrast(contrast: Contrast, margin: float | None, alpha: float = 0.05, mode: Mode = "min") -> Verdict:
    """Returns the verdict on a contrast judged alone, for a metric of this mode; see the rule above.

    A contrast that cannot be judged (fewer than three pairs, incomplete pairs, a NaN margin, or differences that are all equal
    but not zero) is undecided and has a reason.

    Raises:
        ValueError: for a negative or infinite margin, or an alpha outside (0, 0.5).
    """
    return judge_contrasts([contrast], margin, alpha, mode)[0]


def judge_contrasts(
    contrasts: Sequence[Contrast],
    margins: float | Sequence[float | None] | None,
    alpha: float = 0.05,
    modes: Mode | Sequence[Mode] = "min",
    digits: Sequence[Digits] = (),
) -> tuple[Verdict, ...]:
    """Returns the verdicts on a family of contrasts judged together, in order; see the rule above.

    ``margins`` and ``modes`` have one value for all contrasts, or one for each, since tasks differ in unit and mode. A
    margin of None means that there is none: the difference is judged against zero. NaN means that it must not be judged
    without one. ``digits`` are those of the table that a contrast stands in; without them, each contrast has its own. A
    contrast that cannot be judged does not count in the family.

    Raises:
        ValueError: as in `judge_contrast`, or if there are not as many margins or modes as contrasts.
    """
    all_modes = [modes] * len(contrasts) if isinstance(modes, str) else list(modes)
    if len(all_modes) != len(contrasts):
        raise ValueError(f"{len(all_modes)} modes for {len(contrasts)} contrasts: give one for all, or one each.")
    n = len(contrasts)
    all_margins = [margins] * n if margins is None or isinstance(margins, int | float) else list(margins)
    if len(all_margins) != len(contrasts):
        raise ValueError(f"{len(all_margins)} margins for {len(contrasts)} contrasts: give one for all, or one each.")
    for margin in all_margins:
        _check_arguments(margin, alpha)
    all_digits = digits or [digits_of_intervals([contrast.interval]) for contrast in contrasts]
    questions = [
        _Question(contrast=contrast, margin=margin, mode=mode, alpha=alpha, digits=shown)
        for contrast, margin, mode, shown in zip(contrasts, all_margins, all_modes, all_digits, strict=True)
    ]
    beyond = [_beyond_p(question.contrast.interval, question.limit) for question in questions]
    within = [max(_one_sided_ps(question.contrast.interval, question.limit)) for question in questions]
    n_judged = sum(not math.isnan(p) for p in beyond)
    adjusted = zip(holm(beyond).tolist(), holm(within).tolist(), strict=True)
    return tuple(_judge(question, *ps, n_judged) for question, ps in zip(questions, adjusted, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A contrast and what it is judged against."""

    contrast: Contrast
    margin: float | None
    mode: Mode
    alpha: float
    digits: Digits

    @property
    def limit(self) -> float:
        """The margin, or zero if there is none."""
        return 0.0 if self.margin is None else self.margin


def _beyond_p(interval: Interval, margin: float) -> float:
    return math.nan if math.isnan(margin) or interval.n < LEAST_PAIRS else two_sided_p(interval, margin)


def _judge(question: _Question, p_beyond: float, p_within: float, n_contrasts: int) -> Verdict:
    interval, alpha = question.contrast.interval, question.alpha
    return Verdict(
        word=_choose_word(as_cost(interval.mean, question.mode), p_beyond, p_within, alpha),
        reason=_find_reason(question),
        outer=at_level(interval, 1 - alpha),
        inner=at_level(interval, 1 - 2 * alpha),
        margin=question.margin,
        mode=question.mode,
        incomplete=question.contrast.incomplete,
        p_beyond=p_beyond,
        p_within=p_within,
        n_contrasts=n_contrasts,
        excludes_zero=_beyond_p(interval, 0.0) <= alpha,
        digits=question.digits,
    )


def _choose_word(cost: float, p_beyond: float, p_within: float, alpha: float) -> Word:
    if p_beyond <= alpha:
        return "helps" if cost < 0 else "hurts"
    return "no meaningful difference" if p_within <= alpha else "undecided"


def _find_reason(question: _Question) -> Reason | None:
    interval = question.contrast.interval
    if math.isnan(question.limit):
        return "no-margin"
    if math.isnan(interval.mean) and question.contrast.incomplete:
        return "incomplete"
    if interval.n < LEAST_PAIRS:
        return "too-few-pairs"
    return "no-spread" if interval.mean != 0 and not has_spread(interval) else None


def describe_reason(verdict: Verdict) -> str:
    """Returns why a contrast cannot be judged, in words; empty if it can."""
    n, mean = verdict.outer.n, verdict.outer.mean
    match verdict.reason:
        case None:
            return ""
        case "no-margin":
            return "there is no margin"
        case "incomplete":
            return f"{_name_seeds(verdict.incomplete)} no complete pair"
        case "too-few-pairs":
            return f"{_count_pairs(n)}, and at least {LEAST_PAIRS} are needed"
        case "no-spread":
            return f"all {n} differences are {format_number(mean, verdict.digits, '+')}, so their spread is unknown"


def write_verdict(verdict: Verdict) -> str:
    """Returns a verdict as a sentence."""
    if verdict.reason is not None:
        return f"Cannot be judged: {describe_reason(verdict)}."
    shown = verdict.inner if verdict.word == "no meaningful difference" else verdict.outer
    gaps = f"; {_name_seeds(verdict.incomplete)} none" if verdict.incomplete else ""
    digits = refine_digits(verdict.digits, (verdict.outer.half_width, verdict.outer.sd), verdict.outer.mean)
    low, high = (format_number(end, digits, "+") for end in (shown.low, shown.high))
    numbers = f"{100 * shown.level:.4g}% interval {low} to {high}, {_count_pairs(shown.n)}{gaps}"
    family = f" after correction for {verdict.n_contrasts} contrasts" if verdict.n_contrasts > 1 else ""
    family += ", with no margin" if verdict.margin is None else ""
    subject = "The error" if verdict.mode == "min" else "The score"
    return f"{subject} {_describe_change(shown.mean, digits)} ({numbers}), {_describe_side(verdict)}{family}: {verdict.word}."


def _describe_change(mean: float, digits: Digits) -> str:
    if mean == 0:
        return "does not change"
    size = format_number(abs(mean), digits)
    return f"{'rises' if mean > 0 else 'falls'} by {size if size.strip('0.') else f'{abs(mean):.1g}'}"


def _describe_side(verdict: Verdict) -> str:
    if verdict.margin is None:
        if verdict.word in ("helps", "hurts"):
            return "beyond zero"
        differs = "not zero by itself, but " if verdict.excludes_zero else ""
        return f"{differs}not shown to differ from zero" if verdict.word == "undecided" else "zero in all pairs"
    margin = f"the margin of {verdict.margin:.3g}"
    if verdict.word in ("helps", "hurts"):
        return f"beyond {margin}"
    if verdict.word == "no meaningful difference":
        return f"within {margin}"
    differs = "not zero by itself, but " if verdict.excludes_zero else ""
    return f"{differs}shown neither within {margin} nor beyond it"


def _count_pairs(n: int) -> str:
    return f"{n} pair" if n == 1 else f"{n} pairs"


def _name_seeds(incomplete: Sequence[int]) -> str:
    """Returns 'seed 3 gives' or 'seeds 3, 4 give'."""
    seeds = ", ".join(map(str, incomplete))
    return f"seed {seeds} gives" if len(incomplete) == 1 else f"seeds {seeds} give"


def aa_margin(
    aa_values: Sequence[float] | np.ndarray,
    reference_values: Sequence[float] | np.ndarray,
    n_seeds: int = 1,
    level: float = 0.95,
) -> NoiseMargin:
    """Returns the margin that noise suggests: the effect of a change of seeds on an otherwise unchanged cell.

    Both sets belong to one cell and have disjoint seeds. With their pooled standard deviation s, which has
    n_aa + n_reference - 2 degrees of freedom, margin = s sqrt(2 / n_seeds): one standard deviation of the difference of two
    means of ``n_seeds`` seeds. An effect below the default margin is smaller than that of another seed on a single trial.

    Why one seed by default: a margin for means of as many seeds as the contrast has would shrink as fast as the contrast's
    interval, and no difference could ever be shown to lie within it; it was in 1% of true cases (5 unpaired seeds). With one
    seed, it was in 26% at 5 seeds and 75% at 10, and in 60% and 95% if pairing halves the variance.
    Why not the upper confidence limit of s: it is wider with fewer A/A seeds, so that no difference would be easier to
    claim. A true difference of exactly s sqrt(2) was then called none in 31 to 62% of cases, against 4 to 8% with s itself.
    Not all of these are below 5% because the margin is uncertain, as ``low`` and ``high`` show; a margin fixed in advance is
    not. (Simulations with 3 to 10 seeds per set and normal noise.)

    A value that is not finite, or zero degrees of freedom, makes all estimates NaN. Without spread the margin is 0.

    Source: the margin is the standard deviation behind the repeatability limit of ISO 5725-6 (1994); its limits are the
    chi-squared limits of a standard deviation. Bouthillier et al. (2021) choose a similar smallest difference that matters,
    at which one method beats the other in 75% of pairs of trials: 0.95 s, against 84% and 1.41 s here.

    Raises:
        ValueError: for n_seeds below 1.
    """
    check_level(level)
    if n_seeds < 1:
        raise ValueError(f"n_seeds = {n_seeds}: it must be 1 or more.")
    aa, reference = np.asarray(aa_values, dtype=float), np.asarray(reference_values, dtype=float)
    df = max(0, aa.size + reference.size - 2) if min(aa.size, reference.size) else 0
    is_known = df > 0 and bool(np.isfinite(aa).all() and np.isfinite(reference).all())
    sd, difference, p = _compare_sets(aa, reference, df) if is_known else (math.nan, math.nan, math.nan)
    margin = sd * math.sqrt(2 / n_seeds)
    low, high = _sd_limits(margin, df, level) if is_known else (math.nan, math.nan)
    return NoiseMargin(
        margin=margin, low=low, high=high, level=level, n_seeds=n_seeds, sd=sd, df=df, n_aa=aa.size,
        n_reference=reference.size, difference=difference, p=p,
    )  # fmt: skip


def _compare_sets(aa: np.ndarray, reference: np.ndarray, df: int) -> tuple[float, float, float]:
    """Returns the pooled standard deviation, the difference of the means and its p; rounding counts as zero."""
    difference = float(aa.mean() - reference.mean())
    sd = math.sqrt(float(((aa - aa.mean()) ** 2).sum() + ((reference - reference.mean()) ** 2).sum()) / df)
    scale = max(abs(float(aa.mean())), abs(float(reference.mean())))
    difference, sd = (0.0 if is_rounding(x, scale) else x for x in (difference, sd))
    return sd, difference, _unpaired_p(difference, sd * math.sqrt(1 / aa.size + 1 / reference.size), df)


def _sd_limits(sd: float, df: int, level: float) -> tuple[float, float]:
    """Returns the chi-squared limits of a standard deviation."""
    from scipy.special import chdtri

    # chdtri takes the upper tail.
    low, high = (sd * math.sqrt(df / float(chdtri(df, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _unpaired_p(difference: float, se: float, df: int) -> float:
    """Returns the two-sided p of the pooled t test; without spread, 1 if there is no difference, else NaN."""
    if se == 0:
        return 1.0 if difference == 0 else math.nan
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(difference) / se))
