"""Statistics compared with closed forms, with SciPy, and with their promises on simulated tables.

Rates of simulations are compared with a tolerance of about three Monte Carlo standard errors,
3 sqrt(rate (1 - rate) / runs), at fixed seeds.
"""

import itertools
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from orca_sweep.errors import InputError
from orca_sweep.stats import (
    aa_margin,
    factor_effects,
    holm,
    interquartile_mean,
    judge_contrast,
    judge_contrasts,
    paired_contrast,
    rank_correlation,
    rho_p,
    sd_interval,
    sign_flip_p,
    smallest_p,
    t_interval,
    variance_ratio,
    wilson_interval,
)
from orca_sweep.stats.contrasts import N_DRAWS
from orca_sweep.stats.digits import to_ascii
from orca_sweep.stats.factors import find_noncentrality
from orca_sweep.stats.ranks import RankCorrelation


def pair_by_seed(a, b):
    return dict(enumerate(a)), dict(enumerate(b))


def contrast_of(differences):
    return paired_contrast(*pair_by_seed(differences, np.zeros(len(differences))))


def three_errors(rate, runs):
    return 3 * math.sqrt(rate * (1 - rate) / runs)


def test_importing_the_statistics_loads_neither_scipy_nor_pandas():
    code = "import sys, orca_sweep.stats; sys.exit(bool({'scipy', 'pandas', 'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Intervals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_the_t_interval_is_that_of_scipy(level):
    for n in (2, 3, 5, 30):
        values = np.random.default_rng(n).normal(3, 2, n)
        result = t_interval(values, level)
        ends = scipy_stats.t.interval(level, n - 1, values.mean(), scipy_stats.sem(values))
        assert (result.low, result.high) == pytest.approx(ends, rel=1e-9)
        assert (result.n, result.mean, result.sd) == pytest.approx((n, values.mean(), values.std(ddof=1)))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_95_percent_t_intervals_cover_within_2_points(n):
    draws = np.random.default_rng(n).normal(1, 2, (4000, n))  # standard error 0.3 points
    intervals = [t_interval(row) for row in draws]
    assert np.mean([i.low <= 1 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.02)


def test_the_wilson_interval_is_that_of_the_score_test_and_stays_within_zero_and_one():
    z2 = scipy_stats.norm.ppf(0.95) ** 2
    for k, n in [(0, 6), (1, 6), (6, 6), (11, 22), (1, 1)]:
        proportion = wilson_interval(k, n, 0.9)
        # The two shares whose score statistic is z.
        middle, half = (k + z2 / 2) / (n + z2), math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
        assert (proportion.share, proportion.low, proportion.high) == pytest.approx(
            (k / n, middle - half, middle + half), abs=1e-12
        )
        assert 0 <= proportion.low < proportion.high <= 1
    assert math.isnan(wilson_interval(0, 0).share)
    with pytest.raises(ValueError, match=r"n_hits = 7 of n = 6: it must lie between 0 and n"):
        wilson_interval(7, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda level: t_interval([1, 2], level),
        lambda level: wilson_interval(1, 2, level),
        lambda level: paired_contrast({}, {}, level),
        lambda level: aa_margin([1, 2], [1, 2], level=level),
        lambda level: rank_correlation([1, 2], [1, 2], level),
        lambda level: interquartile_mean({"a": [1]}, level),
        lambda level: factor_effects([1, 2], {"a": [0, 1]}, [0, 0], level),
    ],
)
def test_a_level_outside_zero_and_one_is_refused(call):
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=rf"level = {level}: it must lie between 0 and 1"):
            call(level)


# Paired contrasts ---------------------------------------------------------------------------------


def test_a_contrast_by_hand():
    contrast = paired_contrast({0: 1.0, 1: 3.0, 2: 5.0}, {2: 4.0, 1: 1.0, 0: 1.0})
    assert contrast.seeds == (0, 1, 2)
    assert contrast.differences == (0.0, 2.0, 1.0)
    assert (contrast.interval.n, contrast.interval.mean, contrast.interval.sd) == (3, 1.0, 1.0)
    assert (contrast.mean_a, contrast.mean_b) == (3.0, 2.0)
    assert contrast.interval.high == pytest.approx(1 + 4.302652730 / math.sqrt(3))
    # t = sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
    assert contrast.p_t == pytest.approx(1 - math.sqrt(3 / 5))
    # Sums of +-0 +-2 +-1: only equal signs reach 3, with either sign of the zero.
    assert contrast.p_sign_flip == 4 / 8
    assert contrast.smallest_p == 2 / 8
    # var a = 4, var b = 3, r = 6 / (2 * 2 sqrt(3)) = sqrt(3) / 2, df = 4 / 1.75, pooled sd sqrt(3.5).
    half = 4 / 1.75 / 2
    j = math.gamma(half) / (math.sqrt(half) * math.gamma(half - 0.5))
    assert contrast.hedges_g == pytest.approx(j / math.sqrt(3.5))


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_a_contrast_agrees_with_scipy(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    contrast = paired_contrast(*pair_by_seed(a, b), level=0.9)
    expected = scipy_stats.ttest_rel(a, b)
    assert contrast.p_t == pytest.approx(expected.pvalue if n > 2 else math.nan, nan_ok=True)
    assert (contrast.interval.low, contrast.interval.high) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    flips = scipy_stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert contrast.p_sign_flip == pytest.approx(flips.pvalue)
    # The order of the cells changes only the sign.
    other = paired_contrast(*pair_by_seed(b, a), level=0.9)
    assert (other.interval.mean, other.hedges_g) == pytest.approx(
        (-contrast.interval.mean, -contrast.hedges_g), nan_ok=True
    )
    assert (other.p_t, other.p_sign_flip) == pytest.approx((contrast.p_t, contrast.p_sign_flip), nan_ok=True)


def test_incomplete_pairs_are_listed_and_never_dropped_silently():
    a = {0: 1.0, 1: 2.0, 2: 3.0, 3: math.nan, 7: 1.0}
    b = {0: 0.0, 1: 1.5, 2: 2.0, 3: 1.0, 5: 9.0, 4: math.inf}
    contrast = paired_contrast(a, b)
    assert (contrast.only_a, contrast.only_b, contrast.not_finite) == ((7,), (4, 5), (3,))
    assert contrast.incomplete == (3, 4, 5, 7)
    assert (contrast.seeds, contrast.differences, contrast.interval.n) == ((0, 1, 2), (1.0, 0.5, 1.0), 3)
    numbers = [contrast.interval.mean, contrast.interval.low, contrast.mean_a, contrast.mean_b, contrast.hedges_g]
    assert all(math.isnan(x) for x in [*numbers, contrast.p_t, contrast.p_sign_flip])
    asked = paired_contrast(a, b, complete_pairs_only=True)
    whole = paired_contrast({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 1.5, 2: 2.0})
    assert asked.incomplete == contrast.incomplete
    assert (asked.interval, asked.hedges_g, asked.p_t) == (whole.interval, whole.hedges_g, whole.p_t)


def test_no_pair_and_one_pair():
    none = paired_contrast({}, {})
    assert (none.interval.n, none.seeds) == (0, ())
    assert (
        math.isnan(none.smallest_p)
        and math.isnan(none.interval.mean)
        and math.isnan(none.p_sign_flip)
        and math.isnan(none.p_t)
    )
    single = paired_contrast({4: 2.0}, {4: 1.5})
    assert (single.interval.mean, single.p_sign_flip) == (0.5, 1.0)
    assert math.isnan(single.interval.low) and math.isnan(single.p_t) and math.isnan(single.hedges_g)


def test_differences_without_spread_have_no_t_test():
    zero = paired_contrast(*pair_by_seed([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]))
    assert (zero.interval.mean, zero.p_t, zero.p_sign_flip, zero.hedges_g) == (0.0, 1.0, 1.0, 0.0)
    # 0.1, but for rounding
    equal = paired_contrast(*pair_by_seed([0.4, 0.5, 0.7, 1.1], [0.3, 0.4, 0.6, 1.0]))
    assert math.isnan(equal.p_t)
    assert equal.p_sign_flip == 2 / 16
    flat = paired_contrast(*pair_by_seed([0.2] * 4, [0.1] * 4))
    assert math.isnan(flat.hedges_g)


def brute_force_flips(values):
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(values))]  # fmt: skip
    return np.mean([s >= abs(sum(values)) - 1e-12 for s in sums])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7))
def test_sign_flips_count_all_patterns_including_ties(values):
    tenths = [v / 10 for v in values]
    assert sign_flip_p(tenths) == pytest.approx(brute_force_flips(tenths))
    assert sign_flip_p(tenths) == sign_flip_p(tenths[::-1])
    assert sign_flip_p(tenths) >= smallest_p(len(values))


def exact_flips(whole_numbers):
    """Two-sided p by the exact distribution of the sum, one convolution per value."""
    chances = np.ones(1)
    for value in map(abs, whole_numbers):
        step = np.zeros(2 * value + 1)
        step[0] += 0.5
        step[-1] += 0.5
        chances = np.convolve(chances, step)
    sums = np.arange(chances.size) - sum(map(abs, whole_numbers))
    return chances[np.abs(sums) >= abs(sum(whole_numbers))].sum()


@pytest.mark.parametrize("n", [19, 20, 21, 40])
def test_patterns_are_enumerated_up_to_20_pairs_and_drawn_beyond(n):
    values = np.random.default_rng(n).integers(-4, 7, n).tolist()
    exact = exact_flips(values)
    error = 1e-12 if n <= 20 else 4 * math.sqrt(exact * (1 - exact) / N_DRAWS)
    assert sign_flip_p(values) == pytest.approx(exact, abs=error)
    assert sign_flip_p(values) == sign_flip_p(values[::-1])


def test_drawn_patterns_never_give_a_p_of_zero():
    contrast = contrast_of(np.arange(1.0, 41))
    assert contrast.p_sign_flip == contrast.smallest_p == 1 / (N_DRAWS + 1)


def test_sign_flips_of_nothing_or_of_nan_have_no_p():
    assert math.isnan(sign_flip_p([]))
    assert math.isnan(sign_flip_p([1.0, math.nan]))


@pytest.mark.parametrize("r", [0.0, 0.8])
def test_hedges_g_is_nearly_unbiased_whether_or_not_cells_are_correlated(r):
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(3000, 2, 6))
    a, b = noise[:, 0] + 1, r * noise[:, 0] + math.sqrt(1 - r**2) * noise[:, 1]
    contrasts = [paired_contrast(*pair_by_seed(x, y)).hedges_g for x, y in zip(a, b, strict=True)]
    assert np.mean(contrasts) == pytest.approx(1, abs=0.02 + 3 * np.std(contrasts) / math.sqrt(3000))


def test_false_positives_of_the_paired_tests_are_at_the_nominal_rate():
    n, runs = 8, 3000
    draws = np.random.default_rng(0).normal(size=(runs, n))
    contrasts = [contrast_of(row) for row in draws]
    assert np.mean([c.p_t <= 0.05 for c in contrasts]) == pytest.approx(0.05, abs=three_errors(0.05, runs))
    # p moves in steps of 2 / 2^n without ties: 6 steps fit into 5%.
    reachable = 12 / 2**n
    assert np.mean([c.p_sign_flip <= 0.05 for c in contrasts]) == pytest.approx(reachable, abs=three_errors(0.05, runs))


def test_power_rises_with_the_effect_and_matches_the_plan():
    draws = np.random.default_rng(1).normal(size=(1000, 8))
    effects = [0, 0.5, 1, 1.15, 2]  # 1.15 standard deviations are seen with 80% power by 8 pairs
    t = [np.mean([contrast_of(row + e).p_t <= 0.05 for row in draws]) for e in effects]
    flips = [np.mean([sign_flip_p(row + e) <= 0.05 for row in draws]) for e in effects]
    assert t == sorted(t) and flips == sorted(flips)
    assert t[3] == pytest.approx(0.8, abs=0.04)


# Holm ---------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.5]).tolist() == [1.0, 1.0]
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []


def test_holm_does_not_count_nan():
    adjusted = holm([math.nan, 0.01, math.nan, 0.04])
    assert np.isnan(adjusted[[0, 2]]).all()
    assert adjusted[[1, 3]].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(holm([math.nan])).all()


def test_holm_refuses_values_that_are_not_probabilities():
    with pytest.raises(ValueError, match=r"p values \[1.5, -0.1\]: they must lie between 0 and 1"):
        holm([0.5, 1.5, -0.1])


def rejected_step_by_step(p, alpha):
    rejected = set()
    for i, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[k] > alpha / (len(p) - i):
            break
        rejected.add(k)
    return rejected


@given(st.lists(st.floats(0, 1), max_size=9), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_the_procedure_does_step_by_step(p, alpha):
    adjusted = holm(p)
    assert {k for k, q in enumerate(adjusted) if q <= alpha * (1 + 1e-12)} >= rejected_step_by_step(p, alpha)
    assert {k for k, q in enumerate(adjusted) if q <= alpha * (1 - 1e-12)} <= rejected_step_by_step(p, alpha)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all() and (adjusted >= p).all()


@pytest.mark.parametrize("n_true", [6, 3])
def test_holm_keeps_the_family_wise_error(n_true):
    runs = 2000
    draws = np.random.default_rng(n_true).normal(size=(runs, 6, 7))
    draws[:, n_true:] += 1.5
    p_values = scipy_stats.ttest_1samp(draws, 0, axis=-1).pvalue
    wrong = [min(holm(family)[:n_true]) <= 0.05 for family in p_values]
    assert np.mean(wrong) <= 0.05 + three_errors(0.05, runs)
    assert np.mean(wrong) >= 0.015  # not by being overly strict: Bonferroni alone would give 0.05 n_true / 6


# Equivalence --------------------------------------------------------------------------------------


def within(differences, margin):
    """Returns the p of the two one-sided tests for differences judged alone."""
    return judge_contrast(contrast_of(differences), margin).p_within


def test_equivalence_is_two_one_sided_tests_of_scipy():
    d = np.random.default_rng(0).normal(0.1, 0.3, 9)
    above = scipy_stats.ttest_1samp(d, -0.4, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, 0.4, alternative="less").pvalue
    assert within(d, 0.4) == pytest.approx(max(above, below))
    inner = judge_contrast(contrast_of(d), 0.4).inner
    for margin in (inner.high - 1e-6, inner.high + 1e-6):  # just outside, and just within the margin
        assert (within(d, margin) <= 0.05) == (-margin < inner.low and inner.high < margin)


def test_equivalence_of_few_equal_or_missing_values():
    assert within([0.0, 0.0, 0.0], 0.1) == 0
    for values in ([], [0.01], [0.0, 0.0], [0.01, 0.01, 0.01], [0.0, math.nan, 0.0]):
        assert math.isnan(within(values, 0.1))
    assert math.isnan(within([0.0, 0.1, 0.2], math.nan))
    assert within([0.01, -0.01, 0.02], 0) > 0.05


def test_equivalence_is_wrongly_found_at_the_nominal_rate_at_the_margin():
    runs = 3000
    d = np.random.default_rng(2).normal(1.0, 0.4, (runs, 8))
    assert np.mean([within(row, 1.0) <= 0.05 for row in d]) == pytest.approx(0.05, abs=three_errors(0.05, runs))


# Verdicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "word", "sentence"),
    [
        ([-0.30, -0.32, -0.28, -0.31], "helps",
         "The error falls by 0.302 (95% interval -0.330 to -0.275, 4 pairs), beyond the margin of 0.1: helps."),
        ([0.30, 0.32, 0.28, 0.31], "hurts",
         "The error rises by 0.302 (95% interval +0.275 to +0.330, 4 pairs), beyond the margin of 0.1: hurts."),
        ([0.01, -0.02, 0.02, 0.0], "no meaningful difference",
         "The error rises by 0.003 (90% interval -0.018 to +0.023, 4 pairs), within the margin of 0.1: no meaningful "
         "difference."),
        # Certainly not zero, and certainly less than the margin.
        ([-0.030, -0.032, -0.028, -0.031], "no meaningful difference",
         "The error falls by 0.0302 (90% interval -0.0323 to -0.0282, 4 pairs), within the margin of 0.1: no meaningful "
         "difference."),
        ([-0.3, 0.3, 0.2, -0.1], "undecided",
         "The error rises by 0.03 (95% interval -0.41 to +0.46, 4 pairs), shown neither within the margin of 0.1 nor "
         "beyond it: undecided."),
        ([-0.12, -0.1, -0.14, -0.11], "undecided",
         "The error falls by 0.117 (95% interval -0.145 to -0.090, 4 pairs), not zero by itself, but shown neither "
         "within the margin of 0.1 nor beyond it: undecided."),
        ([0.0, 0.0, 0.0], "no meaningful difference",
         "The error does not change (90% interval 0.0000 to 0.0000, 3 pairs), within the margin of 0.1: no meaningful"
         " difference."),
    ],
)  # fmt: skip
def test_the_four_words(differences, word, sentence):
    verdict = judge_contrast(contrast_of(differences), 0.1)
    assert (verdict.word, to_ascii(verdict.sentence)) == (word, sentence)
    assert "-" not in verdict.sentence  # a minus sign, as in the tables


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=6), st.floats(0, 1))
def test_a_word_is_where_the_intervals_lie(differences, margin):
    verdict = judge_contrast(contrast_of(differences), margin)
    outer, inner = verdict.outer, verdict.inner
    if verdict.reason or len(set(differences)) == 1:
        return
    outside = {"helps": outer.high < -margin, "hurts": outer.low > margin}
    edges = [outer.low, outer.high, inner.low, inner.high]
    if min(abs(abs(edge) - margin) for edge in edges) < 1e-9:
        return  # rounding decides at the edge
    inside = -margin < inner.low and inner.high < margin
    assert [word for word, holds in [*outside.items(), ("no meaningful difference", inside)] if holds] in (
        [verdict.word], [] if verdict.word == "undecided" else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("contrast", "margin", "reason", "sentence"),
    [
        (contrast_of([]), 0.1, "too-few-pairs", "Cannot be judged: 0 pairs, and at least 3 are needed."),
        (contrast_of([0.3]), 0.1, "too-few-pairs", "Cannot be judged: 1 pair, and at least 3 are needed."),
        (contrast_of([0.3, 0.2]), math.nan, "no-margin", "Cannot be judged: there is no margin."),
        (contrast_of([0.3, 0.3001]), 0.1, "too-few-pairs", "Cannot be judged: 2 pairs, and at least 3 are needed."),
        (contrast_of([0.0, 0.0]), 0.1, "too-few-pairs", "Cannot be judged: 2 pairs, and at least 3 are needed."),
        (contrast_of([0.3, 0.3, 0.3]), 0.1, "no-spread",
         "Cannot be judged: all 3 differences are +0.3000, so their spread is unknown."),
        (paired_contrast({0: 1, 1: 2, 2: 3}, {0: 1, 1: 1}), 0.1, "incomplete",
         "Cannot be judged: seed 2 gives no complete pair."),
        (paired_contrast({0: 1, 1: 2, 3: 3}, {0: 1, 1: 1, 2: 3}), 0.1, "incomplete",
         "Cannot be judged: seeds 2, 3 give no complete pair."),
    ],
)  # fmt: skip
def test_a_contrast_that_cannot_be_judged_is_undecided_with_a_reason(contrast, margin, reason, sentence):
    verdict = judge_contrast(contrast, margin)
    assert (verdict.word, verdict.reason, verdict.n_contrasts) == ("undecided", reason, 0)
    assert verdict.sentence == sentence


def test_pairs_left_out_on_request_are_named():
    contrast = paired_contrast({0: 1, 1: 2, 2: 3, 3: 1}, {0: 0, 1: 1.2, 2: 2.1}, complete_pairs_only=True)
    assert "3 pairs; seed 3 gives none)" in judge_contrast(contrast, 0.1).sentence


def test_a_family_is_judged_more_strictly_and_says_so():
    contrasts = [contrast_of(np.array([-0.31, -0.2, -0.4, -0.25]) + shift) for shift in (0, 0.25, 0.3)]
    alone = [judge_contrast(c, 0.1) for c in contrasts]
    together = judge_contrasts([*contrasts, contrast_of([0.1])], 0.1)
    assert [v.word for v in alone[:1]] == ["helps"]
    assert alone[0].p_beyond == pytest.approx(0.0215, abs=1e-4)
    assert (together[0].word, together[0].p_beyond) == ("undecided", pytest.approx(3 * alone[0].p_beyond))
    assert together[0].outer == alone[0].outer
    assert together[0].sentence.endswith("beyond it after correction for 3 contrasts: undecided.")
    assert together[3].sentence == "Cannot be judged: 1 pair, and at least 3 are needed."


def test_two_pairs_are_no_evidence_and_do_not_count_in_a_family():
    lucky, clear = contrast_of([0.3, 0.3001]), contrast_of([-0.30, -0.32, -0.28, -0.31])
    first, second = judge_contrasts([lucky, clear], 0.1)
    assert math.isnan(lucky.p_t) and math.isnan(first.p_beyond) and math.isnan(first.p_within)
    assert not first.excludes_zero
    assert (second.n_contrasts, second.p_beyond) == (1, judge_contrast(clear, 0.1).p_beyond)


def test_without_a_margin_a_sentence_names_none():
    clear, open_ = contrast_of([-0.30, -0.32, -0.28, -0.31]), contrast_of([-0.3, 0.3, 0.2, -0.1])
    words = judge_contrasts([clear, open_], None)
    assert [word.margin for word in words] == [None, None]
    assert words[0].sentence.endswith("beyond zero after correction for 2 contrasts, with no margin: helps.")
    assert words[1].sentence.endswith(
        "not shown to differ from zero after correction for 2 contrasts, with no margin: undecided."
    )
    assert judge_contrast(clear, 0.0).sentence.endswith(", beyond the margin of 0: helps.")
    assert judge_contrast(clear, 0.0).word == words[0].word


def test_an_end_near_zero_shows_its_side_in_a_sentence():
    sentence = judge_contrast(contrast_of([0.010, 0.0101, 0.0302, 0.0304, 0.0002]), 0.01).sentence
    low = re.search(r"interval (\S+) to", sentence)[1]
    assert float(low.replace("\u2212", "-")) != 0, sentence


def test_margins_may_differ_between_contrasts():
    same = contrast_of([-0.30, -0.32, -0.28, -0.31])
    assert [v.word for v in judge_contrasts([same, same], [0.1, 0.5])] == ["helps", "no meaningful difference"]
    assert judge_contrasts([], 0.1) == ()
    with pytest.raises(ValueError, match="1 margins for 2 contrasts: give one for all, or one each"):
        judge_contrasts([same, same], [0.1])


@pytest.mark.parametrize("margin", [-0.1, math.inf])
def test_a_margin_that_is_not_a_distance_is_refused(margin):
    with pytest.raises(ValueError, match=rf"margin = {margin}: it must be a finite difference"):
        judge_contrast(contrast_of([0.1, 0.2]), margin)
    with pytest.raises(ValueError, match=r"alpha = 0.5: it must lie between 0 and 0.5"):
        judge_contrast(contrast_of([0.1, 0.2]), 0.1, 0.5)


def words_of(rng, effect, runs, n=8, margin=1.0, sd=0.5):
    verdicts = [judge_contrast(contrast_of(row), margin).word for row in rng.normal(effect, sd, (runs, n))]
    return {word: verdicts.count(word) / runs for word in ("helps", "hurts", "no meaningful difference", "undecided")}


def test_verdicts_say_the_right_word_at_the_stated_rates():
    rng, runs = np.random.default_rng(3), 1000
    error = three_errors(0.05, runs)
    zero, small, large = (words_of(rng, effect, runs) for effect in (0, -0.4, -2))
    for within in (zero, small):
        assert within["helps"] + within["hurts"] <= 0.05 + error
        assert within["no meaningful difference"] > 0.85
    assert large["helps"] > 0.95
    assert large["no meaningful difference"] + large["hurts"] <= 0.05 + error
    at_margin = words_of(rng, 1.0, 3 * runs)
    # Half of alpha, since the other side is far away; the two one-sided tests use all of it.
    assert at_margin["hurts"] == pytest.approx(0.025, abs=three_errors(0.025, 3 * runs))
    assert at_margin["no meaningful difference"] == pytest.approx(0.05, abs=three_errors(0.05, 3 * runs))
    no_margin = words_of(rng, 0, 2 * runs, margin=0)
    assert no_margin["helps"] + no_margin["hurts"] == pytest.approx(0.05, abs=three_errors(0.05, 2 * runs))
    assert no_margin["no meaningful difference"] == 0


def test_undecided_becomes_rarer_with_more_seeds():
    rng = np.random.default_rng(4)
    rates = [words_of(rng, -1.6, 400, n)["undecided"] for n in (3, 5, 8, 14)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.6 and rates[-1] < 0.1


def test_verdicts_of_a_family_are_rarely_wrong_at_all():
    """Two effects of zero, two just below the margin, two just above it, and two large ones."""
    runs, rng = 1000, np.random.default_rng(5)
    truth = np.array([0.0, 0.0, 0.999, -0.999, 1.001, -1.001, 3.0, -3.0])
    is_within = np.abs(truth) < 1
    wrong_difference, wrong_none, right = [], [], []
    for draws in rng.normal(size=(runs, truth.size, 8)) * 0.5 + truth[:, None]:
        words = np.array([v.word for v in judge_contrasts([contrast_of(row) for row in draws], 1.0)])
        differs = (words == "helps") | (words == "hurts")
        wrong_difference.append((differs & is_within).any())
        wrong_none.append(((words == "no meaningful difference") & ~is_within).any())
        right.append(differs[6:].all())
    assert np.mean(wrong_difference) <= 0.05 + three_errors(0.05, runs)
    assert np.mean(wrong_none) <= 0.05 + three_errors(0.05, runs)
    assert np.mean(right) > 0.95


# Margins from A/A cells ----------------------------------------------------------------------------


def test_the_noise_margin_by_hand():
    noise = aa_margin([1.0, 3.0], [2.0, 4.0, 6.0])  # sums of squares 2 and 8, 3 degrees of freedom
    assert (noise.df, noise.n_aa, noise.n_reference, noise.n_seeds) == (3, 2, 3, 1)
    assert noise.sd == pytest.approx(math.sqrt(10 / 3))
    assert noise.margin == pytest.approx(math.sqrt(2 * 10 / 3))
    assert aa_margin([1.0, 3.0], [2.0, 4.0, 6.0], n_seeds=8).margin == pytest.approx(noise.margin / math.sqrt(8))
    low, high = (math.sqrt(2 * 10 / scipy_stats.chi2.ppf(q, 3)) for q in (0.975, 0.025))
    assert (noise.low, noise.high) == pytest.approx((low, high))
    assert noise.difference == -2.0
    assert noise.p == pytest.approx(scipy_stats.ttest_ind([1.0, 3.0], [2.0, 4.0, 6.0]).pvalue)


def test_noise_of_few_equal_or_missing_values():
    for aa, reference in (
        ([], [1.0, 2.0, 3.0]),
        ([1.0], [2.0]),
        ([1.0, math.nan], [1.0, 2.0]),
        ([1.0, 2.0], [math.inf, -math.inf]),
    ):
        noise = aa_margin(aa, reference)
        assert math.isnan(noise.margin) and math.isnan(noise.p)
        assert judge_contrast(contrast_of([0.1, 0.2]), noise.margin).word == "undecided"
    assert aa_margin([1.0], [1.0, 2.0]).df == 1
    same = aa_margin([0.1] * 3, [0.1] * 7)
    assert (same.margin, same.difference, same.p) == (0.0, 0.0, 1.0)
    assert math.isnan(aa_margin([0.1] * 3, [0.2] * 3).p)
    with pytest.raises(ValueError, match="n_seeds = 0: it must be 1 or more"):
        aa_margin([1.0, 2.0], [1.0, 2.0], 0)


def test_the_limits_of_the_noise_cover_it():
    runs = 1000
    noises = [aa_margin(row[:4], row[4:]) for row in np.random.default_rng(6).normal(0, 2, (runs, 9))]
    covered = np.mean([f.low <= 2 * math.sqrt(2) <= f.high for f in noises])
    assert covered == pytest.approx(0.95, abs=three_errors(0.05, runs))
    assert np.mean([f.p <= 0.05 for f in noises]) == pytest.approx(0.05, abs=three_errors(0.05, runs))


def test_an_aa_cell_is_no_meaningful_difference_and_its_own_margin_is_not_too_easy():
    """The margin comes from the same table as the contrast, as it does in a sweep with an A/A cell."""
    runs, n = 1000, 10
    words = {0.0: [], math.sqrt(2): []}
    for effect, words_at_effect in words.items():
        for base, aa, cell in np.random.default_rng(7).normal(size=(runs, 3, n)):
            margin = aa_margin(aa, base).margin
            words_at_effect.append(judge_contrast(paired_contrast(*pair_by_seed(cell + effect, base)), margin).word)
    rates = {e: {w: each.count(w) / runs for w in set(each)} for e, each in words.items()}
    assert rates[0.0].get("helps", 0) + rates[0.0].get("hurts", 0) <= 0.05
    assert rates[0.0]["no meaningful difference"] > 0.65
    # If the effect equals the margin: 5%, plus the effect of the margin's uncertainty.
    assert rates[math.sqrt(2)]["no meaningful difference"] <= 0.08 + three_errors(0.08, runs)
    assert rates[math.sqrt(2)]["hurts"] <= 0.08 + three_errors(0.08, runs)


# Factor effects -----------------------------------------------------------------------------------


def design(*sizes):
    """Labels of a full design, the last size being seeds, and the factor names."""
    combinations = list(itertools.product(*map(range, sizes)))
    columns = list(zip(*combinations, strict=True))
    return {name: columns[i] for i, name in enumerate("abc"[: len(sizes) - 1])}, columns[-1]


def test_factor_effects_by_hand():
    levels, seeds = design(2, 2, 2)
    # Means: a0 3, a1 7; b0 4, b1 6; cells 2, 4, 6, 8 (no interaction); seeds 4.5, 5.5; noise +-0.5 in all cells.
    analysis = factor_effects([2, 2, 3, 5, 5.5, 6.5, 7.5, 8.5], levels, seeds)
    a, b, ab = analysis.effects
    assert (a.name, b.name, ab.name) == ("a", "b", "a x b")
    assert (analysis.n, analysis.n_cells, analysis.n_blocks, analysis.residual_df) == (8, 4, 2, 3)
    assert [(m.levels, m.mean, m.n) for m in a.means] == [((0,), 3.0, 4), ((1,), 7.0, 4)]
    assert [(m.levels, m.mean, m.n) for m in ab.means][1:3] == [((0, 1), 4.0, 2), ((1, 0), 6.0, 2)]
    assert (a.sum_of_squares, b.sum_of_squares, ab.sum_of_squares) == (32.0, 8.0, 0.0)
    # Total 32 + 8 + seeds 2 + noise: the cells' own seed differences are 0, 2, 1, 1 around a mean of 1.
    noise = 2 * (1 + 1) / 4
    assert analysis.residual_sd == pytest.approx(math.sqrt(noise / 3))
    assert a.eta_squared == pytest.approx(32 / (42 + noise))
    assert analysis.block_eta_squared == pytest.approx(2 / (42 + noise))
    assert (a.f, b.f, ab.f) == pytest.approx((96 / noise, 24 / noise, 0))
    assert a.p == pytest.approx(scipy_stats.f.sf(96, 1, 3))
    assert a.partial_omega_squared == pytest.approx(95 / (95 + 8))
    assert (a.p_adjusted, b.p_adjusted, ab.p_adjusted) == pytest.approx((3 * a.p, 2 * b.p, 1.0))


def test_one_factor_of_two_levels_is_the_paired_t_test():
    rng = np.random.default_rng(8)
    a, b = rng.normal(0.5, 1, 7), rng.normal(0, 1, 7)
    (effect,) = factor_effects([*a, *b], {"cell": ["a"] * 7 + ["b"] * 7}, [*range(7)] * 2).effects
    t = scipy_stats.ttest_rel(a, b)
    assert (effect.f, effect.p) == pytest.approx((t.statistic**2, t.pvalue))


def least_squares(values, columns):
    """Residual sum of squares and rank of a regression on dummies of each product of columns."""
    parts = [np.ones((len(values), 1))]
    for product in columns:
        labels = list(zip(*product, strict=True))
        parts.append(np.array([[label == k for k in sorted(set(labels))] for label in labels], dtype=float))
    X = np.hstack(parts)
    fitted, _, rank, _ = np.linalg.lstsq(X, values, rcond=None)
    return ((values - X @ fitted) ** 2).sum(), rank


def test_factor_effects_are_those_of_nested_regressions():
    levels, seeds = design(2, 3, 4, 3)
    rng = np.random.default_rng(9)
    values = rng.normal(size=72) + np.array(levels["a"]) - np.array(levels["b"]) * np.array(levels["c"]) + seeds
    shuffled = rng.permutation(72)
    analysis = factor_effects(
        values[shuffled], {k: [v[i] for i in shuffled] for k, v in levels.items()}, [seeds[i] for i in shuffled]
    )
    model, before = [[seeds]], least_squares(values, [[seeds]])
    for effect in analysis.effects:
        model.append([levels[name] for name in effect.factors])
        after = least_squares(values, model)
        assert effect.sum_of_squares == pytest.approx(before[0] - after[0])
        assert effect.df == after[1] - before[1]
        before = after
    rest, rank = least_squares(values, [*model, list(levels.values())])
    assert (analysis.residual_sd**2, analysis.residual_df) == pytest.approx((rest / (72 - rank), 72 - rank))
    assert analysis.higher_eta_squared == pytest.approx((before[0] - rest) / (72 * values.var()))
    shares = [e.eta_squared for e in analysis.effects]
    assert sum(
        shares
    ) + analysis.block_eta_squared + analysis.higher_eta_squared + analysis.residual_eta_squared == pytest.approx(1)


def test_an_unbalanced_design_is_refused_with_a_list_of_its_holes():
    levels = {"proxy": ["none", "none", "dummy", "dummy", "dummy"], "finetune.freeze": [0, 1, 0, 1, 1]}
    with pytest.raises(InputError) as refused:
        factor_effects([1, 2, 3, math.nan, 5], levels, [3, 3, 3, 3, 4])
    assert tuple(map(str, refused.value.problems)) == (
        "proxy = none, finetune.freeze = 0 has no value at seed 4.",
        "proxy = none, finetune.freeze = 1 has no value at seed 4.",
        "proxy = dummy, finetune.freeze = 0 has no value at seed 4.",
        "proxy = dummy, finetune.freeze = 1 has the value nan at seed 3.",
        "Each combination of levels needs one finite value per seed. Run the missing trials, or leave "
        "the level or the seed out.",
    )
    with pytest.raises(InputError, match=r"a = 0 has 2 values at seeds 0, 1\.\n"):
        factor_effects([1, 1, 1, 1, 1, 1], {"a": [0, 0, 0, 0, 1, 1]}, [0, 1, 0, 1, 0, 1])


def test_a_sparse_design_of_many_factors_is_refused_without_listing_every_hole():
    rng = np.random.default_rng(0)
    levels = {f"f{i}": [*rng.integers(0, 2, 22).tolist(), 0, 1] for i in range(30)}
    with pytest.raises(InputError) as refused:
        factor_effects(rng.random(24), levels, [0, 1] * 12)
    assert len(refused.value.problems) == 100  # of a billion combinations
    assert str(refused.value.problems[-2]) == "there are more combinations like these, which are not listed."


def test_single_levels_and_single_seeds_are_refused():
    with pytest.raises(InputError) as refused:
        factor_effects([1, 2], {"a": [0, 1], "b": [0, 0]}, [0, 0])
    assert tuple(map(str, refused.value.problems)) == (
        "factor 'b' has 1 level. It needs at least two. Leave it out.",
        "1 seed. Noise needs at least two seeds. Run more seeds.",
    )
    with pytest.raises(InputError, match="no factor is given"):
        factor_effects([1, 2], {}, [0, 1])
    with pytest.raises(ValueError, match="2 values need as many labels"):
        factor_effects([1, 2], {"a": [0]}, [0, 1])


def test_effects_without_noise_or_without_any_difference():
    levels, seeds = design(2, 2, 3)
    exact = factor_effects(0.1 + np.array(levels["a"]) + 0.3 * np.array(seeds), levels, seeds)
    assert exact.residual_sd == exact.residual_eta_squared == 0
    a = exact.effects[0]
    assert a.eta_squared == pytest.approx(3 / (3 + 0.72))
    assert all(math.isnan(x) for x in (a.f, a.p, a.p_adjusted, a.partial_omega_squared, a.low, a.high))
    flat = factor_effects([0.1] * 12, levels, seeds)
    assert math.isnan(flat.effects[0].eta_squared) and math.isnan(flat.effects[0].p)


@pytest.mark.parametrize(("f", "df", "rest"), [(0.5, 1, 4), (3, 2, 8), (50, 3, 20), (1e4, 2, 8), (1e9, 1, 4)])
def test_the_noncentrality_gives_f_its_probability(f, df, rest):
    for p in (0.95, 0.05):
        noncentrality = find_noncentrality(f, df, rest, p)
        if scipy_stats.f.cdf(f, df, rest) <= p:
            assert noncentrality == 0
        else:
            assert scipy_stats.ncf.cdf(f, df, rest, noncentrality) == pytest.approx(p, abs=1e-6)


def test_intervals_of_effects_cover_and_agree_with_their_p():
    """One strong factor, one without effect; a partial share is L / (L + n) at the true noncentrality L."""
    levels, seeds = design(2, 3, 4)
    a = np.array(levels["a"])
    runs = 400
    strong, none = [], []
    for noise in np.random.default_rng(10).normal(size=(runs, 24)):
        analysis = factor_effects(1.2 * a + noise + 0.5 * np.array(seeds), levels, seeds).effects
        assert all((e.low > 0) == (e.p < 0.05) for e in analysis)
        strong.append(analysis[0])
        none.append(analysis[1])
    share = 0.36 / 1.36  # the variance of +-0.6, with noise of variance 1
    covered = np.mean([e.low <= share <= e.high for e in strong])
    assert covered == pytest.approx(0.9, abs=three_errors(0.9, runs))
    assert np.mean([e.p <= 0.05 for e in none]) == pytest.approx(0.05, abs=three_errors(0.05, runs))
    omegas = [e.partial_omega_squared for e in strong], [e.partial_omega_squared for e in none]
    assert [np.mean(o) for o in omegas] == pytest.approx([share, 0], abs=0.03)


# Rank correlation ---------------------------------------------------------------------------------


def test_rank_correlations_agree_with_scipy_even_with_ties():
    x, y = [1, 2, 2, 3, 5, 5, 5, 9], [2, 1, 4, 4, 3, 8, 7, 7.5]
    correlation = rank_correlation(x, y, 0.9)
    assert correlation.rho == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert correlation.tau == pytest.approx(scipy_stats.kendalltau(x, y).statistic)
    z = scipy_stats.norm.ppf(0.95)
    half = z * math.sqrt((1 + correlation.rho**2 / 2) / 5)
    assert np.arctanh([correlation.rho_low, correlation.rho_high]) - np.arctanh(correlation.rho) == pytest.approx(
        [-half, half]
    )
    assert np.arctanh(correlation.tau_high) == pytest.approx(np.arctanh(correlation.tau) + z * math.sqrt(0.437 / 4))
    assert (correlation.n, correlation.n_clusters, correlation.caution) == (8, None, "")
    turned = rank_correlation(x, [-v for v in y], 0.9)
    assert (turned.rho, turned.rho_low) == pytest.approx((-correlation.rho, -correlation.rho_high))


def test_intervals_of_independent_points_cover():
    runs, n, r = 600, 20, 0.6
    draws = np.random.default_rng(11).normal(size=(runs, 2, n))
    true_rho, true_tau = 6 / math.pi * math.asin(r / 2), 2 / math.pi * math.asin(r)
    correlations = [rank_correlation(x, r * x + math.sqrt(1 - r**2) * y) for x, y in draws]
    assert np.mean([f.rho_low <= true_rho <= f.rho_high for f in correlations]) == pytest.approx(0.95, abs=0.03)
    assert np.mean([f.tau_low <= true_tau <= f.tau_high for f in correlations]) == pytest.approx(0.95, abs=0.03)


def cells_by_seeds(rng, n_seeds, cells=6):
    """Distances and errors of cells x seeds: cells differ in both, each seed shifts all its errors."""
    position = np.linspace(-1, 1, cells)[:, None]
    x = position + 0.3 * rng.normal(size=(cells, n_seeds))
    y = position + 0.5 * rng.normal(size=n_seeds) + rng.normal(size=(cells, n_seeds))
    return x.ravel(), y.ravel(), np.tile(np.arange(n_seeds), cells)


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_intervals_over_few_seeds_cover(n_seeds):
    rng, runs = np.random.default_rng(12), 200
    truth = scipy_stats.spearmanr(*cells_by_seeds(rng, 20_000)[:2]).statistic
    correlations = [
        rank_correlation(x, y, clusters=c) for x, y, c in (cells_by_seeds(rng, n_seeds) for _ in range(runs))
    ]
    assert correlations[0].n_clusters == n_seeds and correlations[0].n == 6 * n_seeds
    assert np.mean([f.rho_low <= truth <= f.rho_high for f in correlations]) == pytest.approx(
        0.95, abs=three_errors(0.95, runs)
    )


def test_clustered_intervals_by_hand():
    x, y, seeds = (
        np.array([1.0, 2, 3, 1, 2, 3, 1, 2, 3]),
        np.array([1.0, 3, 2, 2, 1, 4, 3, 2.5, 5]),
        np.repeat([7, 8, 9], 3),
    )
    correlation = rank_correlation(x, y, clusters=seeds.tolist())
    v = np.arctanh([scipy_stats.spearmanr(x[seeds != s], y[seeds != s]).statistic for s in (7, 8, 9)])
    half = scipy_stats.t.ppf(0.975, 2) * math.sqrt(2 / 3 * ((v - v.mean()) ** 2).sum())
    assert np.arctanh([correlation.rho_low, correlation.rho_high]) - np.arctanh(correlation.rho) == pytest.approx(
        [-half, half]
    )
    assert correlation.tau_low < correlation.tau < correlation.tau_high


@pytest.mark.parametrize(
    ("x", "y", "clusters", "rho", "caution"),
    [
        ([], [], None, math.nan, "a measure does not vary: no correlation"),
        ([1], [1], None, math.nan, "a measure does not vary: no correlation"),
        ([1, 1, 1, 1], [1, 2, 3, 4], None, math.nan, "a measure does not vary: no correlation"),
        ([1, 2, 3, math.nan], [1, 2, 3, 4], None, math.nan, "a value is not finite: no correlation"),
        ([1, 2, 3], [1, 3, 2], None, 0.5, "fewer than 4 points: no interval"),
        ([1, 2, 3, 4], [1, 3, 2, 4], None, 0.8, "fewer than 5 points: no interval of tau"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], None, 1.0, "a perfect rank correlation: no interval"),
        ([1, 2, 3, 4], [1, 3, 2, 4], [0, 0, 1, 1], 0.8, "fewer than 3 clusters: no interval"),
        ([1, 2, 3, 4], [1, 3, 2, 4], [0, 1, 2, 3], 0.8,
         "a perfect or undefined rank correlation without one of the clusters: no interval"),
    ],
)  # fmt: skip
def test_a_missing_correlation_or_interval_has_a_reason(x, y, clusters, rho, caution):
    correlation = rank_correlation(x, y, clusters=clusters)
    assert correlation.rho == pytest.approx(rho, nan_ok=True)
    assert correlation.caution == caution
    assert math.isnan(correlation.rho_low) == (caution != "fewer than 5 points: no interval of tau")
    assert math.isnan(correlation.tau_low)


def test_measures_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"x, y and clusters have \[2, 2, 1\] values"):
        rank_correlation([1, 2], [1, 2], clusters=[0])


def test_the_p_of_a_rank_correlation_agrees_with_its_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    for clusters in (None, [i % 5 for i in range(40)]):
        correlation = rank_correlation(x, y, 0.95, clusters)
        assert rho_p(correlation, correlation.rho_low) == pytest.approx((0.025, 0.975))
        assert rho_p(correlation, correlation.rho_high) == pytest.approx((0.975, 0.025))
        assert rho_p(correlation, correlation.rho) == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="against = 1.0: it must lie between -1 and 1"):
        rho_p(correlation, 1.0)
    endless = RankCorrelation(
        n=9, n_clusters=3, rho=0.5, rho_low=-1.0, rho_high=1.0, tau=0.4, tau_low=-1.0, tau_high=1.0, level=0.95, caution=""
    )  # fmt: skip
    assert all(map(math.isnan, rho_p(endless, 0.3)))


# Over tasks ---------------------------------------------------------------------------------------


def scores(seed=0, n=5):
    rng = np.random.default_rng(seed)
    return {task: rng.normal(size=n).tolist() for task in ("ecg", "darcy", "cosmic", "psicov", "ninapro", "cifar100")}


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    for n in (1, 2, 5, 8):
        pooled = np.concatenate(list(scores(n=n).values()))
        score = interquartile_mean(scores(n=n))
        assert score.mean == pytest.approx(scipy_stats.trim_mean(pooled, 0.25))
        assert (score.n_seeds, len(score.tasks)) == (n, 6)
    assert interquartile_mean({"a": [1, 2, 3, 100]}).mean == 2.5
    assert interquartile_mean({"a": [2, 4]}).mean == 3.0


def test_the_same_seed_gives_the_same_interval_in_any_order():
    score = interquartile_mean(scores())
    turned = {task: values[::-1] for task, values in reversed(scores().items())}
    assert interquartile_mean(turned) == score
    assert score.low < score.mean < score.high
    assert interquartile_mean(scores(), seed=1).low != score.low
    wider = interquartile_mean(scores(), level=0.99)
    assert wider.low < score.low and score.high < wider.high


def test_the_caution_of_few_seeds():
    few, many = interquartile_mean(scores()), interquartile_mean(scores(n=20))
    tasks = "The interval is over seeds, for these 6 tasks; it says nothing about other tasks."
    assert few.caution == f"{tasks} A bootstrap over 5 seeds per task makes it too short."
    assert many.caution == tasks


def test_scores_that_are_missing_or_unequal():
    for hole in (math.nan, math.inf, -math.inf):
        assert math.isnan(interquartile_mean({"a": [1, 2, 3, 4, 5, 6, 7, hole]}).mean)
    assert math.isnan(interquartile_mean({"a": [math.inf, -math.inf], "b": [1, 2]}).mean)
    one_seed = interquartile_mean({"a": [1], "b": [2]})
    assert one_seed.mean == 1.5 and math.isnan(one_seed.low)
    for empty in ({}, {"a": []}):
        assert math.isnan(interquartile_mean(empty).mean)
    with pytest.raises(InputError, match=r"different numbers of scores \(a 2, b 1\)\. Each task needs the same number"):
        interquartile_mean({"b": [1], "a": [1, 2]})


def test_the_bootstrap_is_too_short_with_few_seeds_and_fair_with_many():
    rng, runs = np.random.default_rng(13), 300
    covered = {}
    for n in (3, 20):
        scores = [interquartile_mean({t: rng.normal(size=n) for t in "abcdef"}, n_resamples=500) for _ in range(runs)]
        covered[n] = np.mean([f.low <= 0 <= f.high for f in scores])
    assert covered[3] == pytest.approx(0.86, abs=0.06)
    assert covered[20] == pytest.approx(0.95, abs=0.04)


# Variances ----------------------------------------------------------------------------------------


def test_a_spread_has_chi_squared_limits():
    values = [1.0, 2.0, 4.0, 8.0]
    spread = sd_interval(values, 0.9)
    ends = np.sqrt(3 * np.var(values, ddof=1) / scipy_stats.chi2.ppf([0.95, 0.05], 3))
    assert (spread.n, spread.sd, spread.level) == (4, pytest.approx(np.std(values, ddof=1)), 0.9)
    assert (spread.low, spread.high) == pytest.approx(tuple(ends))
    assert not spread.is_zero


def test_equal_values_have_no_spread_and_no_interval():
    for values in ([0.1 + 0.2, 0.3], [0.3] * 5, [0.0, 0.0]):
        spread = sd_interval(values)
        assert (spread.sd, spread.is_zero, math.isnan(spread.low), math.isnan(spread.high)) == (0.0, True, True, True)
    for values in ([], [1.0], [1.0, math.nan], [1.0, math.inf]):
        spread = sd_interval(values)
        assert math.isnan(spread.sd)
        assert not spread.is_zero
    with pytest.raises(ValueError, match="between 0 and 1"):
        sd_interval([1.0, 2.0], 95)


def test_a_ratio_of_variances_has_f_limits():
    a, b = [1.0, 2.0, 4.0, 8.0], [3.0, 9.0, 5.0]
    part, whole = sd_interval(a), sd_interval(b)
    f_ratio = variance_ratio([part], whole)
    ratio = np.var(a, ddof=1) / np.var(b, ddof=1)
    ends = ratio / scipy_stats.f.ppf([0.975, 0.025], 3, 2)
    assert (f_ratio.ratio, f_ratio.low, f_ratio.high) == pytest.approx((ratio, *ends))
    # Two equal spreads of equal n have twice the degrees of freedom; a spread of zero adds none.
    still = sd_interval([5.0] * 4)
    double = variance_ratio([part, part, still], whole)
    ends = 2 * ratio / scipy_stats.f.ppf([0.975, 0.025], 6, 2)
    assert (double.ratio, double.low, double.high) == pytest.approx((2 * ratio, *ends))
    nothing = variance_ratio([still], whole)
    assert (nothing.ratio, math.isnan(nothing.low)) == (0.0, True)
    for parts, of in (([part], still), ([part], sd_interval([1.0])), ([part, sd_interval([1.0])], whole)):
        assert math.isnan(variance_ratio(parts, of).ratio)
