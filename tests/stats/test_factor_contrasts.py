"""Effects of factors as contrasts within seeds, regular fractions and their aliases, Lenth's margins, equal spreads."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from orca_sweep import stats
from orca_sweep.space.designs import make_fraction
from orca_sweep.stats.fractions import find_fraction, find_missing_rows


def full(values, names="abcdef"):
    """A full design of levels '0', '1', ... from values of shape (levels ..., seeds)."""
    array = np.asarray(values, dtype=float)
    levels = tuple(tuple(map(str, range(n))) for n in array.shape[:-1])
    return stats.FactorialValues(
        factors=tuple(names[: array.ndim - 1]), levels=levels, seeds=tuple(range(array.shape[-1])), values=array
    )


def contrasts_of(table, **options):
    return {(of.factors, of.levels): of for of in stats.contrast_factors(table, ("0",) * len(table.factors), **options)}


def judged(values, margin=0.0, **options):
    table = full(values)
    return stats.judge_factors(stats.contrast_factors(table, ("0",) * len(table.factors)), margin, **options)


def is_decided(of):
    return of.word in ("helps", "hurts")


def three_errors(share, n):
    return 3 * math.sqrt(share * (1 - share) / n)


# Contrasts ----------------------------------------------------------------------------------------


def test_contrasts_by_hand():
    # Seeds 0, 1, 2 of cells a0b0, a0b1, a1b0, a1b1.
    table = full([[[1, 2, 3], [2, 3, 5]], [[4, 4, 6], [9, 8, 8]]])
    made = contrasts_of(table)
    assert list(made) == [(("a",), ("1",)), (("b",), ("1",)), (("a", "b"), ("1", "1"))]
    # a: (4 + 9) / 2 - (1 + 2) / 2 = 5, 6 - 2.5 = 3.5, 7 - 4 = 3; b: 3, 2.5, 2; a x b: (9 - 2) - (4 - 1) = 4, 3, 0.
    assert [of.contrast.differences for of in made.values()] == [(5, 3.5, 3), (3, 2.5, 2), (4, 3, 0)]
    a, b, ab = judged(table.values)
    t = scipy_stats.ttest_rel([6.5, 6, 7], [1.5, 2.5, 4])
    assert a.p == pytest.approx(t.pvalue)
    assert (a.effect.contrast.mean_a, a.effect.contrast.mean_b) == (6.5, pytest.approx(8 / 3))
    interval = t.confidence_interval(0.95)
    assert (a.effect.contrast.interval.low, a.effect.contrast.interval.high) == pytest.approx(tuple(interval))
    # Two main effects are a family; the interaction is one of its own.
    assert [of.verdict.n_contrasts for of in (a, b, ab)] == [2, 2, 1]
    assert [a.p_holm, b.p_holm] == pytest.approx(stats.holm([a.p, b.p]).tolist())
    assert ab.p_holm == ab.p == pytest.approx(scipy_stats.ttest_1samp([4, 3, 0], 0).pvalue)


@pytest.mark.parametrize("shape", [(2, 2, 4), (3, 2, 3), (2, 3, 4, 3), (2, 2, 2, 5)])
def test_contrasts_are_those_of_a_regression_within_each_seed(shape):
    """Least squares on the indicators of levels and pairs, whose coefficients are turned into the same differences."""
    rng = np.random.default_rng(len(shape))
    table = full(rng.normal(size=shape))
    cells = list(itertools.product(*(range(n) for n in shape[:-1])))
    columns = [*itertools.product(*(range(n) for n in shape[:-1]))]
    # The saturated model: a coefficient per cell. Averages of its coefficients are the marginal means.
    design = np.array([[cell == column for column in columns] for cell in cells], dtype=float)
    fitted, *_ = np.linalg.lstsq(design, table.values.reshape(len(cells), -1), rcond=None)
    for (factors, levels), of in contrasts_of(table).items():
        axes = ["abcdef".index(name) for name in factors]
        weights = np.zeros(len(cells))
        for i, cell in enumerate(cells):
            at = [cell[axis] for axis in axes]
            signs = [1 if x == int(level) else -1 if x == 0 else 0 for x, level in zip(at, levels, strict=True)]
            weights[i] = math.prod(signs)
        n_others = math.prod(n for axis, n in enumerate(shape[:-1]) if axis not in axes)
        assert of.contrast.differences == pytest.approx((weights @ fitted / n_others).tolist())


def test_one_factor_is_judged_exactly_like_its_cells():
    rng = np.random.default_rng(3)
    values = rng.normal([[0], [0.5], [3], [0.01]], 0.3, size=(4, 5))
    cells = [dict(enumerate(row)) for row in values.tolist()]
    direct = [stats.paired_contrast(cell, cells[0]) for cell in cells[1:]]
    words = stats.judge_contrasts(direct, 0.4)
    made = judged(values, 0.4)
    assert [of.effect.contrast for of in made] == direct
    assert [of.verdict for of in made] == list(words)
    assert [of.p_holm for of in made] == stats.holm([c.p_t for c in direct]).tolist()


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_below_three_seeds_nothing_is_judged(n_seeds):
    values = np.array([[0.0, 0.001], [9.0, 9.001]])[:, :n_seeds]
    (of,) = judged(values)
    assert (of.word, of.verdict) == ("undecided", None)
    assert of.reason == f"{n_seeds} seed{'s' * (n_seeds > 1)}, and at least 3 are needed"
    interval = of.effect.contrast.interval
    assert interval.mean == 9 and math.isnan(interval.low) and math.isnan(interval.high)
    assert math.isnan(of.p) and math.isnan(of.p_holm) and math.isnan(of.effect.contrast.p_sign_flip)
    (of,) = judged([[0.0, 0.001, 0.002], [9.0, 9.001, 9.004]])
    assert of.word == "hurts"


def test_rounding_is_no_interaction_and_equal_differences_are_not_judged():
    base = np.array([0.1, 0.3, 0.7, 0.9])
    additive = np.array([[base, base + 0.1], [base + 0.2, base + 0.2 + 0.1]])
    a, b, ab = judged(additive)
    assert ab.effect.contrast.differences == (0, 0, 0, 0)  # not 1e-17, in which a t test sees what it likes
    assert (ab.word, ab.p) == ("no meaningful difference", 1.0)
    assert {a.word, b.word} == {"undecided"} and "their spread is unknown" in a.reason


def test_a_cell_without_spread_and_ties_are_judged_from_what_varies():
    rng = np.random.default_rng(0)
    still = np.full(6, 0.5)
    noisy = 0.9 + np.round(rng.normal(0, 0.1, 6), 1)  # ties
    (of,) = judged([still, noisy])
    assert of.p == pytest.approx(scipy_stats.ttest_rel(noisy, still).pvalue)
    assert of.word == "hurts"


@pytest.mark.parametrize(
    ("shape", "sds"),
    [
        ((2, 2), [[1, 1], [1, 1]]),
        ((2, 2), [[1, 1], [1, 10]]),
        ((3, 3), [[1, 1, 1], [1, 1, 1], [1, 1, 10]]),
        ((4, 2), [[1, 1], [1, 1], [1, 1], [10, 10]]),
        ((2, 2), [[0, 0], [0, 1]]),
    ],
    ids=["equal", "one cell", "one cell of nine", "one level", "one cell has noise"],
)
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_families_keep_their_level_where_spreads_differ(shape, sds, n_seeds):
    """Nothing has an effect. The pooled F calls up to one in five designs different; a family of contrasts one in twenty."""
    runs, rng = 400, np.random.default_rng([n_seeds, *shape])
    wrong = {1: 0, 2: 0}
    for _ in range(runs):
        values = rng.normal(size=(*shape, n_seeds)) * np.array(sds)[..., None] + rng.normal(size=n_seeds)
        made = judged(values)
        for size in wrong:
            wrong[size] += any(is_decided(of) for of in made if len(of.effect.factors) == size)
    for n in wrong.values():
        assert n / runs <= 0.05 + three_errors(0.05, runs)


def test_the_pooled_model_does_not_keep_its_level_where_spreads_differ():
    """Why contrasts within seeds are the default: 9 cells, one ten times as noisy, no effect at all."""
    runs, rng = 300, np.random.default_rng(5)
    sds = np.ones((3, 3, 1))
    sds[2, 2] = 10
    hits = sum(
        any(effect.p_adjusted <= 0.05 for effect in stats.analyse_table(full(values)).effects)
        for values in rng.normal(size=(runs, 3, 3, 3)) * sds
    )
    assert hits / runs > 0.05 + three_errors(0.05, runs)


def test_true_effects_are_seen():
    rng, runs = np.random.default_rng(6), 200
    noise = rng.normal(0, 0.1, size=(runs, 2, 2, 5))
    effect = np.array([[0.0, 0.0], [-0.5, -1.0]])[..., None]
    made = [judged(effect + x) for x in noise]
    assert np.mean([a.word == "helps" for a, _, _ in made]) > 0.95
    assert np.mean([ab.word == "helps" for _, _, ab in made]) > 0.8
    covered = [ab.effect.contrast.interval.low <= -0.5 <= ab.effect.contrast.interval.high for _, _, ab in made]
    assert np.mean(covered) == pytest.approx(0.95, abs=three_errors(0.95, runs))
    assert judged(-effect - noise[0], mode="max")[0].word == "helps"


# Fractions ----------------------------------------------------------------------------------------


def rows_of(n_factors, resolution):
    """The rows of a fraction as the space expands it, and its own list of aliases."""
    design = make_fraction(resolution)
    factors = dict.fromkeys("abcdefghijklmnop"[:n_factors], (False, True))
    rows = [tuple(row.values()) for row in design.combine(factors)]
    return rows, design.find_aliasing(factors)


def name(factors):
    return " x ".join("abcdefghijklmnop"[i] for i in factors)


CASES = [(3, 3), (4, 4), (5, 3), (5, 5), (6, 4), (7, 3), (8, 4), (11, 3)]


@pytest.mark.parametrize(("n_factors", "resolution"), CASES)
def test_aliases_are_those_of_the_plan(n_factors, resolution):
    """Recovered from the levels alone, against pyDOE's list from the generators."""
    rows, known = rows_of(n_factors, resolution)
    fraction = find_fraction(rows)
    assert (fraction.n_run, fraction.resolution, fraction.is_whole) == (known.n_run, known.resolution, False)
    assert len(fraction.sets) == len(rows) - 1
    short = [
        {name(of.factors), *(name(factors) for _, factors in of.aliases if len(factors) <= 2)} for of in fraction.sets
    ]
    assert sorted(map(sorted, (names for names in short if len(names) > 1))) == sorted(map(sorted, known.aliases))


@pytest.mark.parametrize(("n_factors", "resolution"), [(4, 4), (5, 3), (6, 4), (7, 3)])
def test_aliased_columns_are_equal_up_to_the_stated_sign_and_others_orthogonal(n_factors, resolution):
    rows, _ = rows_of(n_factors, resolution)
    signs = 2 * np.array(rows, dtype=int) - 1
    fraction = find_fraction(rows)
    for of in fraction.sets:
        for sign, factors in ((1, of.factors), *of.aliases):
            assert (sign * signs[:, factors].prod(axis=1) == of.column).all()
    columns = np.array([of.column for of in fraction.sets])
    assert (columns @ columns.T == len(rows) * np.eye(len(columns))).all()


def test_the_order_of_rows_and_the_names_of_levels_do_not_matter():
    rows, _ = rows_of(5, 3)
    whole = find_fraction(rows)
    turned = [tuple(not x if i == 2 else x for i, x in enumerate(row)) for row in reversed(rows)]
    found_again = find_fraction(turned)
    assert {of.factors for of in found_again.sets} == {of.factors for of in whole.sets}
    assert found_again.resolution == whole.resolution


def test_what_is_no_regular_fraction():
    rows, _ = rows_of(4, 4)
    assert find_fraction(rows[:-1]) is None
    assert find_missing_rows(rows[:-1]) == [rows[-1]]
    assert find_missing_rows(rows) == []
    extra = next(row for row in itertools.product((False, True), repeat=4) if row not in rows)
    assert find_fraction([*rows, extra]) is None
    assert find_fraction([*rows, rows[0]]) is None
    drop_one = [(True, True, True), (False, True, True), (True, False, True), (True, True, False)]
    assert find_fraction(drop_one) is None
    whole = find_fraction(list(itertools.product((False, True), repeat=3)))
    assert whole.is_whole and whole.resolution is None
    assert [of.factors for of in whole.sets] == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    together = find_fraction([(False, False), (True, True)])
    assert (together.resolution, together.sets[0].aliases) == (2, ((1, (1,)),))
    with pytest.raises(ValueError, match="rows of at most"):
        find_fraction([])


def simulate(rows, effects, n_seeds, sd=0.0):
    """Values of shape (rows, seeds) with these differences between high and low level, and differences of differences."""
    x = np.array(rows, dtype=float) - 0.5
    rng = np.random.default_rng(len(rows))
    true = sum(size * x[:, factors].prod(axis=1) for factors, size in effects.items())
    return true[:, None] + np.linspace(0, 0.3, n_seeds) + rng.normal(0, sd, (len(rows), n_seeds))


def fraction_contrasts(rows, values):
    k = len(rows[0])
    table = stats.FactorialValues(
        factors=tuple("abcdefg"[:k]), levels=((False, True),) * k, seeds=tuple(range(values.shape[1])), values=values
    )
    return {of.factors: of for of in stats.contrast_fraction(table, find_fraction(rows))}


def test_half_a_design_agrees_with_the_whole_where_no_factors_interact():
    effects = {(0,): -0.1, (1,): 0.04, (4,): 0.2}
    rows, _ = rows_of(5, 5)
    whole_rows = list(itertools.product((False, True), repeat=5))
    half, whole = (simulate(of, effects, 3) for of in (rows, whole_rows))
    of_half = fraction_contrasts(rows, half)
    of_whole = contrasts_of(full(whole.reshape(2, 2, 2, 2, 2, 3)))
    for (factors, _), of in of_whole.items():
        mean = of.contrast.interval.mean
        assert of_half[factors].contrast.interval.mean == pytest.approx(mean, abs=1e-12)
        expected = effects.get(tuple("abcde".index(path) for path in factors), 0.0)
        assert mean == pytest.approx(expected, abs=1e-12)


def test_an_interaction_shows_in_its_alias_and_the_alias_names_it():
    rows, known = rows_of(4, 4)
    assert ("a x b", "c x d") in known.aliases
    made = fraction_contrasts(rows, simulate(rows, {(0,): 0.1, (2, 3): 0.08}, 3))
    assert made["a",].contrast.interval.mean == pytest.approx(0.1)
    mixed = made["a", "b"]
    assert mixed.contrast.interval.mean == pytest.approx(0.08)
    assert mixed.aliases == ((1, ("c", "d")),)
    # Resolution 3: the interaction of a and b looks like the main effect of c, at half its size and with the other sign.
    rows, _ = rows_of(3, 3)
    made = fraction_contrasts(rows, simulate(rows, {(0, 1): 0.08}, 3))
    assert made["c",].aliases == ((-1, ("a", "b")),)
    assert made["c",].contrast.interval.mean == pytest.approx(-0.04)


@pytest.mark.parametrize(("n_factors", "resolution"), [(4, 4), (6, 4), (7, 3)])
def test_estimates_of_a_fraction_are_least_squares_on_its_columns(n_factors, resolution):
    rows, _ = rows_of(n_factors, resolution)
    values = np.random.default_rng(0).normal(size=(len(rows), 4))
    fraction = find_fraction(rows)
    design = np.column_stack([np.ones(len(rows)), *(of.column for of in fraction.sets)])
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    for of, coefficients in zip(fraction.sets, fitted[1:], strict=True):
        made = fraction_contrasts(rows, values).get(tuple("abcdefg"[i] for i in of.factors))
        if made is not None:
            assert made.contrast.differences == pytest.approx((2 * len(of.factors) * coefficients).tolist())


# Lenth --------------------------------------------------------------------------------------------


def test_lenth_s_margins_by_hand():
    # Median 3, s0 4.5, cut 11.25; the median of 1, 2, 3, 4, 5, 6 is 3.5 without 40: PSE 5.25.
    made = stats.estimate_pseudo_error([1, -2, 3, -4, 5, 6, 40][::-1])
    assert made.pse == pytest.approx(1.5 * 3.5)
    assert made.df == pytest.approx(7 / 3)
    assert made.margin == pytest.approx(scipy_stats.t.ppf(0.975, 7 / 3) * made.pse)
    assert made.simultaneous_margin == pytest.approx(scipy_stats.t.ppf((1 + 0.95 ** (1 / 7)) / 2, 7 / 3) * made.pse)


def test_lenth_s_margins_of_fifteen_effects():
    """Median 0.30, cut 1.125; the median of the 13 below is 0.15. The quantiles are those of 5 degrees of freedom."""
    effects = [0.13, -0.15, 0.30, 0.15, 0.40, -0.03, -0.38, 0.40, -0.05, 0.43, 0.13, 0.13, -0.38, 2.15, 3.10]
    made = stats.estimate_pseudo_error(effects)
    assert made.pse == pytest.approx(0.225)
    assert made.df == 5
    assert made.margin / made.pse == pytest.approx(2.571, abs=1e-3)
    assert made.simultaneous_margin / made.pse == pytest.approx(5.219, abs=1e-3)


def test_effects_that_say_nothing_about_noise():
    for effects in ([], [0.0] * 9, [0, 0, 0, 0, 0, 5, 6], [1, math.nan, 2], [0.1 + 0.2 - 0.3] * 5 + [1.0, 2.0]):
        assert math.isnan(stats.estimate_pseudo_error(effects).margin)


def test_half_normal_quantiles_are_those_of_absolute_normal_values():
    made = stats.half_normal_quantiles(15)
    assert made == pytest.approx(scipy_stats.halfnorm.ppf((np.arange(15) + 0.5) / 15).tolist())


# Spreads ------------------------------------------------------------------------------------------


def test_the_check_of_spreads_is_brown_and_forsythe_s_test_of_residuals():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 6)) * np.array([[1], [1], [1], [12]]) + rng.normal(size=6)
    made = stats.check_spreads(table)
    rest = table - table.mean(1, keepdims=True)
    rest -= np.median(rest, axis=0)
    assert made.p == pytest.approx(scipy_stats.levene(*rest, center="median").pvalue)
    assert made.sds == pytest.approx(rest.std(axis=1, ddof=1).tolist())
    assert made.largest == 3
    assert made.ratio == pytest.approx(max(made.sds) / min(made.sds))
    assert made.p < 0.05


def test_spreads_that_cannot_be_compared():
    assert math.isnan(stats.check_spreads(np.random.default_rng(0).normal(size=(3, 5))).p)
    assert math.isnan(stats.check_spreads(np.random.default_rng(0).normal(size=(4, 2))).p)
    flat = stats.check_spreads(np.add.outer(np.arange(3) / 10, np.arange(5) / 7))
    assert math.isnan(flat.ratio) and math.isnan(flat.p)


# Guarantees ---------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(2,), (4,), (2, 2), (3, 2), (2, 2, 2)]),
    n_seeds=st.integers(1, 5),
    margin=st.sampled_from([0.0, 0.05, 1.0]),
    digits=st.sampled_from([1, 12]),
)
def test_words_follow_from_the_numbers_beside_them(seed, shape, n_seeds, margin, digits):
    """A decided contrast has an interval beyond the margin and a small p; below three seeds nothing is decided."""
    rng = np.random.default_rng(seed)
    sds = rng.choice([0.0, 0.01, 0.1, 1.0], size=(*shape, 1))
    values = np.round(rng.normal(size=(*shape, n_seeds)) * sds + rng.choice([0, 0.3], size=(*shape, 1)), digits)
    for of in judged(values, margin):
        interval = of.effect.contrast.interval
        if n_seeds < 3:
            assert (of.word, of.verdict, math.isnan(of.p)) == ("undecided", None, True)
        elif is_decided(of):
            assert of.p <= 0.05 and of.p_holm <= 0.05
            assert interval.low > margin if of.word == "hurts" else interval.high < -margin
