"""Designs: which combinations an ablation runs, what a fraction mixes, and how misfits are reported."""

import itertools
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from orca_sweep import cli
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space
from orca_sweep.space.designs import DESIGNS, find_misfits, list_combinations, make_fraction
from orca_sweep.trial import load_imports, make_config

FACTORS = {"a": (0, 1, 2), "b": ("x", "y")}


def made(name, factors=FACTORS, include=(), exclude=()):
    return [tuple(row.values()) for row in list_combinations(DESIGNS[name], factors, include, exclude)]


def test_each_design_makes_its_combinations():
    two = {"a": (0, 1), "b": ("x", "y"), "c": (False, True)}
    assert made("cross") == [(0, "x"), (0, "y"), (1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert made("one_at_a_time") == [(0, "x"), (1, "x"), (2, "x"), (0, "y")]
    assert made("zip", {"a": (0, 1, 2), "b": ("x", "y", "z")}) == [(0, "x"), (1, "y"), (2, "z")]
    assert made("drop_one", two) == [(1, "y", True), (0, "y", True), (1, "x", True), (1, "y", False)]
    assert made("add_one", two) == [(0, "x", False), (1, "x", False), (0, "y", False), (0, "x", True)]
    for name in DESIGNS.keys() - {"fraction"}:
        assert made(name, {}) == [()]  # without factors there is one cell: base


def test_rows_are_added_and_taken_out():
    assert made("one_at_a_time", include=({"a": 2, "b": "y"}, {"a": 9})) == [
        (0, "x"), (1, "x"), (2, "x"), (0, "y"), (2, "y"), (9, "x"),
    ]  # fmt: skip
    assert made("cross", exclude=({"a": (0, 1), "b": ("y",)},)) == [(0, "x"), (1, "x"), (2, "x"), (2, "y")]
    assert made("cross", exclude=({"a": (0,)}, {"b": ("x",)})) == [(1, "y"), (2, "y")]


def test_factors_that_do_not_suit_a_design_are_reported():
    counts = {"a": 3, "b": 2}
    assert list(find_misfits(DESIGNS["cross"], counts)) == []
    assert "equally many (a has 3, b has 2)" in "".join(find_misfits(DESIGNS["zip"], counts))
    for name in ("drop_one", "add_one", "fraction"):
        assert "two levels, first off, then on (a has 3, b has 2)" in "".join(find_misfits(DESIGNS[name], counts))
    assert len(list(find_misfits(make_fraction(), counts))) == 2  # both at once
    assert list(find_misfits(make_fraction(), dict.fromkeys("abc", 2))) == []
    assert "at most 16 factors, and there are 17" in "".join(find_misfits(make_fraction(), dict.fromkeys(range(17), 2)))


# Fractions ----------------------------------------------------------------------------------------


def columns_of(n, resolution):
    """The fraction of n factors as -1 and +1, from its combinations alone."""
    factors = {f"f{i}": (f"off{i}", f"on{i}") for i in range(n)}
    rows = list(make_fraction(resolution).combine(factors))
    return factors, np.array([[1 if row[path] == factors[path][1] else -1 for path in factors] for row in rows])


def product(columns, effect):
    return columns[:, list(effect)].prod(axis=1)


def mixed_by_hand(columns):
    """Sets of effects of up to two factors whose columns are equal up to sign, by multiplying columns."""
    effects = [effect for size in (1, 2) for effect in itertools.combinations(range(columns.shape[1]), size)]
    sets = {}
    for effect in effects:
        column = product(columns, effect)
        sets.setdefault(tuple(column * column[0]), []).append(" x ".join(f"f{i}" for i in effect))
    return {tuple(names) for names in sets.values() if len(names) > 1}


CASES = [(n, resolution) for n in range(3, 11) for resolution in (3, 4, 5)]


@pytest.mark.parametrize(("n", "resolution"), CASES)
def test_a_fraction_mixes_what_it_says_and_nothing_else(n, resolution):
    factors, columns = columns_of(n, resolution)
    aliasing = make_fraction(resolution).find_aliasing(factors)
    assert (columns.T @ columns == len(columns) * np.eye(n)).all()  # balanced in every pair of factors
    assert (columns[0] == -1).all()  # the reference is a cell, and the first
    assert len({tuple(row) for row in columns}) == len(columns) == aliasing.n_run
    assert aliasing.n_whole == 2**n
    assert {tuple(names) for names in aliasing.aliases} == mixed_by_hand(columns)
    words = [
        size
        for size in range(1, n + 1)
        for word in itertools.combinations(range(n), size)
        if abs(product(columns, word).sum()) == len(columns)
    ]
    assert aliasing.resolution == min(words, default=None)
    assert (aliasing.resolution or math.inf) >= resolution
    assert (aliasing.resolution is None) == (aliasing.n_run == aliasing.n_whole)


def test_a_fraction_is_as_small_as_textbooks_say_and_as_good_as_its_size_allows():
    sizes = {(n, r): len(columns_of(n, r)[1]) for n, r in CASES}
    # NIST/SEMATECH e-Handbook of Statistical Methods, section 5.3.3.4.7.
    assert [sizes[n, 3] for n in range(3, 11)] == [4, 8, 8, 8, 8, 16, 16, 16]
    assert [sizes[n, 4] for n in range(3, 11)] == [8, 8, 16, 16, 16, 16, 32, 32]
    assert [sizes[n, 5] for n in range(4, 9)] == [16, 16, 32, 64, 64]
    factors, _ = columns_of(5, 4)
    assert make_fraction(4).find_aliasing(factors).resolution == 5  # as many runs as resolution 4 takes
    assert DESIGNS["fraction"].find_aliasing(factors) == make_fraction(4).find_aliasing(factors)


def test_the_largest_fraction_is_planned():
    factors, columns = columns_of(16, 5)
    assert columns.shape == (256, 16)
    assert make_fraction(5).find_aliasing(factors).aliases == ()


# In a space ---------------------------------------------------------------------------------------


def plan(write_space, text):
    return plan_space(write_space(text), load_imports, make_config)


TINY = "base: {task: tiny}\nseeds: 2\n"
FOUR = """\
base: {task: tiny, proxy: mnist5k}
factors:
  embedder.epochs: [1, 2]
  finetune.lr: [1e-3, 1e-4]
  finetune.batch_size: [8, 4]
  embedder.init: [copied, random]
seeds: 2
"""


def test_a_space_names_its_design(write_space):
    factors = "factors: {proxy: [none, mnist5k], finetune.freeze: [none, body, embedder], finetune.lr: [1e-3, 1e-4]}\n"
    crossed, single = (plan(write_space, TINY + factors + design) for design in ("", "design: one_at_a_time\n"))
    assert (len(crossed.cells), len(single.cells)) == (12, 5)
    assert {cell.cell_id for cell in single.cells} < {cell.cell_id for cell in crossed.cells}
    assert tuple(single.labels[next(iter(single.by_cell_id))].values()) == ("none", "none", "1e-3")
    some = plan(write_space, TINY + factors + "exclude: [{proxy: none, finetune.freeze: [body, embedder]}]\n")
    assert len(some.cells) == 8
    more = plan(write_space, TINY + factors + "design: one_at_a_time\ninclude: [{proxy: dummy, finetune.lr: 5e-2}]\n")
    assert tuple(more.labels[list(more.by_cell_id)[-1]].values()) == ("dummy", "none", "5e-2")
    ruled = plan(write_space, TINY + factors.replace(", finetune.lr: [1e-3, 1e-4]", "")
                 + "design: one_at_a_time\nwhen: [{if: {finetune.freeze: body}, set: {finetune.lr: 1e-2}}]\n")  # fmt: skip
    assert [cell.finetune.lr for cell in ruled.cells] == [1e-3, 1e-3, 1e-2, 1e-3]


def test_a_space_s_fraction_is_a_part_of_its_cross(write_space):
    crossed = plan(write_space, FOUR)
    for design, n_run, resolution in (("fraction", 8, 4), ("{name: fraction}", 8, 4),
                                      ("{name: fraction, resolution: 3}", 8, 4),
                                      ("{name: fraction, resolution: 5}", 16, None)):  # fmt: skip
        part = plan(write_space, f"{FOUR}design: {design}\n")
        assert (len(part.cells), part.aliasing.resolution, part.notes) == (n_run, resolution, ())
        assert {t.trial_id for t in part.trials} <= {t.trial_id for t in crossed.trials}
        assert part.cells[0] == crossed.cells[0]
    assert crossed.aliasing is None


def shown(write_space, text, *options):
    done = CliRunner().invoke(cli.app, ["plan", str(write_space(text)), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_fraction_s_plan_names_the_effects_that_it_cannot_separate(write_space):
    text = shown(write_space, FOUR + "design: fraction\n")
    assert "design fraction: 8 of 16 combinations, resolution 4: main effects are clear of two-factor" in text
    assert "  embedder.epochs x finetune.lr cannot be told from finetune.batch_size x embedder.init\n" in text
    described = json.loads(shown(write_space, FOUR + "design: fraction\n", "--json"))
    assert (described["design"], described["resolution"]) == ("fraction", 4)
    assert ["embedder.epochs x finetune.lr", "finetune.batch_size x embedder.init"] in described["aliases"]
    assert len(described["aliases"]) == 3
    whole = shown(write_space, FOUR + "design: {name: fraction, resolution: 5}\n")
    assert "design fraction: all 16 combinations: a fraction of so few factors has a lower resolution" in whole
    three = FOUR.replace("  embedder.init: [copied, random]\n", "") + "design: {name: fraction, resolution: 3}\n"
    text = shown(write_space, three)
    assert "4 of 8 combinations, resolution 3: main effects are mixed with two-factor interactions" in text
    assert "  embedder.epochs cannot be told from finetune.lr x finetune.batch_size\n" in text


def test_a_fraction_that_is_not_balanced_as_it_runs_says_so(write_space):
    idle = FOUR.replace("proxy: mnist5k", "finetune.epochs: 2").replace("finetune.batch_size: [8, 4]",
                                                                        "proxy: [none, mnist5k]")  # fmt: skip
    made = plan(write_space, idle + "design: fraction\n")
    (note,) = made.notes
    assert note.startswith("embedder.epochs: some of the fraction's combinations ask for a level that has no")
    assert f"its 8 combinations are {len(made.cells)} different cells and no longer balanced" in note
    assert (
        len(made.cells) == 8
    )  # without a proxy only the epochs have no effect: nothing merges, but the note appears anyway
    merging = idle.replace("embedder.init: [copied, random]", "embedder.lr: [1e-3, 1e-4]")
    made = plan(write_space, merging + "design: fraction\n")
    assert (len(made.cells), made.n_merged) == (6, 2)
    assert made.notes[0].startswith("embedder.epochs, embedder.lr: some of the fraction's")
    assert "its 8 combinations are 6 different cells" in made.notes[0]
    assert made.notes[0] in json.loads(shown(write_space, merging + "design: fraction\n", "--json"))["notes"]
    assert plan(write_space, merging).notes == ()  # a cross leaves nothing out
    assert plan(write_space, merging + "design: {name: fraction, resolution: 5}\n").notes == ()


def test_rows_removed_from_a_fraction_or_added_to_it_are_reported(write_space):
    made = plan(write_space, FOUR + "design: fraction\nexclude: [{embedder.epochs: 2, finetune.lr: 1e-4}]\n")
    (note,) = made.notes
    assert "exclude removes 2 of the fraction's 8 combinations" in note
    assert made.aliasing.n_run == 8
    made = plan(write_space, FOUR + "design: fraction\ninclude: [{finetune.lr: 1e-4}, {finetune.lr: 1e-2}]\n")
    assert made.notes == (
        "2 combinations are not part of the fraction (include, placebo): the aliases are those of the fraction alone.",
    )
    made = plan(write_space, FOUR + "design: fraction\nplacebo: [dummy]\n")
    assert (len(made.cells), len(made.notes)) == (16, 1)
    assert made.notes[0].startswith("8 combinations are not part of the fraction")
    assert all("proxy" not in effect for effects in made.aliasing.aliases for effect in effects)


ZIPPED = """\
base: {task: tiny}
factors:
  proxy: [mnist5k, mnist5k, dummy, mnist5k]
  embedder.epochs: [0, 2, 2, 2]
design: zip
seeds: 2
"""


def test_zip_lists_combinations_so_levels_may_repeat_and_equal_combinations_run_once(write_space):
    made = plan(write_space, ZIPPED)
    assert [tuple(labels.values()) for labels in made.labels.values()] == [
        ("none", "0"),
        ("mnist5k", "2"),
        ("dummy", "2"),
    ]
    assert (made.n_combinations, made.n_merged, len(made.trials)) == (4, 1, 6)
    (note,) = made.notes
    assert note == (
        "Combinations that the space lists more than once run once: proxy mnist5k, embedder.epochs 2 (2 times)."
    )
    text = shown(write_space, ZIPPED)
    assert "1 combination is the same work as another and runs once" in text and f"note: {note}" in text
    # The trials are those of the same cells in any other design.
    crossed = ZIPPED.replace("mnist5k, mnist5k, dummy, mnist5k", "mnist5k, dummy").replace("0, 2, 2, 2", "0, 2")
    every = plan(write_space, crossed.replace("design: zip", "design: cross"))
    assert {trial.trial_id for trial in made.trials} == {trial.trial_id for trial in every.trials}


def test_zip_repeats_levels_of_three_factors_however_they_are_spelt(write_space):
    text = ZIPPED.replace("2, 2, 2]", "2, 2, 2]\n  finetune.lr: [1e-3, 0.001, 1e-2, 1e-2]")
    made = plan(write_space, text)
    assert [tuple(labels.values()) for labels in made.labels.values()] == [
        ("none", "0", "1e-3"), ("mnist5k", "2", "1e-3"), ("dummy", "2", "1e-2"), ("mnist5k", "2", "1e-2"),
    ]  # fmt: skip
    assert (made.n_merged, made.notes) == (0, ())
    out = plan(write_space, text + "exclude: [{finetune.lr: 0.01, proxy: dummy}]\ninclude: [{proxy: none}]\n")
    assert [tuple(labels.values()) for labels in out.labels.values()] == [
        ("none", "0", "1e-3"), ("mnist5k", "2", "1e-3"), ("mnist5k", "2", "1e-2"),
    ]  # fmt: skip


def test_zip_repeats_levels_in_tuned_cells_and_under_placebos(write_space):
    tuned = plan(write_space, ZIPPED + "tune: {finetune.lr: [1e-3, 1e-2]}\n")
    assert (len(tuned.tuned), tuned.n_merged, len(tuned.trials)) == (3, 1, 6)
    real = ZIPPED.replace("dummy", "photo-patches") + "placebo: [shuffled, dummy]\n"
    made = plan(write_space, real)
    assert [labels["proxy"] for labels in made.labels.values()] == [
        "none", "mnist5k", "photo-patches", "shuffled:mnist5k", "dummy", "shuffled:photo-patches",
    ]  # fmt: skip
    assert made.n_merged == 10 - 6


@pytest.mark.parametrize("design", ["cross", "one_at_a_time", "add_one", "{name: fraction}"])
def test_a_repeated_level_is_a_mistake_in_designs_that_combine_levels(write_space, design):
    with pytest.raises(InputError) as caught:
        plan(write_space, ZIPPED.replace("design: zip", f"design: {design}"))
    assert sum("twice" in problem for problem in map(str, caught.value.problems)) == 4


def test_zip_with_factors_of_unequal_length_names_each_and_a_wrong_design_hides_no_levels(write_space):
    with pytest.raises(InputError, match=r"equally many \(proxy has 4, embedder.epochs has 3\)") as caught:
        plan(write_space, ZIPPED.replace("0, 2, 2, 2", "0, 2, 2"))
    assert len(caught.value.problems) == 1
    with pytest.raises(InputError, match="Did you mean 'zip'") as caught:
        plan(write_space, ZIPPED.replace("design: zip", "design: zipp"))
    assert len(caught.value.problems) == 1
    with pytest.raises(InputError, match=r"must be one of|greater than or equal|integer") as caught:
        plan(write_space, ZIPPED.replace("0, 2, 2, 2", "0, many, 2, 2"))
    assert len(caught.value.problems) == 1
    with pytest.raises(InputError, match=r"tune: finetune.lr: this names the level 0.001 twice"):
        plan(write_space, ZIPPED + "tune: {finetune.lr: [1e-3, 1e-3]}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("design: crosed", "there is no design 'crosed'. Did you mean 'cross'?"),
        ("design: [cross]", "design: this must be the name of a design"),
        ("design: {resolution: 4}", "design cross has no resolution; only a fraction has"),
        ("design: {nam: fraction}", "design.nam: unknown key. Did you mean 'name'?"),
        ("design: {name: cross, resolution: 4}", "design cross has no resolution; only a fraction has one. Remove it."),
        (
            "design: {name: fraction, resolution: 6}",
            "design.resolution = '6': a fraction's resolution must be one of 3 (main effects are mixed with two-factor",
        ),
        (
            "design: {name: fraction, resolution: [4]}",
            "design.resolution = ['4']: a fraction's resolution must be one of 3 (",
        ),
        ("design: zip", "design zip pairs levels by position"),
        ("design: drop_one", "each needs two levels, first off, then on"),
        ("design: fraction", "each needs two levels, first off, then on (proxy has 2, finetune.epochs has 3)"),
        ("design: fraction", "needs at least 3 factors, and there are 2. Use cross"),
        ("include: {proxy: none}", "include: this must be a list of rows"),
        ("include: [none]", "include: this must be a list of rows"),
        ("include: [{prox: none}]", "include: prox: this is not a factor of this space. Did you mean 'proxy'?"),
        ("include: [{finetune.epochs: many}]", "finetune.epochs = 'many'"),
        ("exclude: [{proxy: dummy}]", "exclude: proxy: this factor has no level 'dummy'. Its levels: none, mnist5k."),
        ("exclude: [{proxy: [none, mnist5k]}]", "exclude leaves no combination"),
    ],
)
def test_mistakes_are_reported_with_their_line(write_space, text, words):
    factors = "factors: {proxy: [none, mnist5k], finetune.epochs: [1, 2, 3]}\n"
    with pytest.raises(InputError) as caught:
        plan(write_space, TINY + factors + text + "\n")
    assert any(words in problem for problem in map(str, caught.value.problems)), caught.value.problems
    assert "space.yaml:5: " in str(caught.value)


def test_a_wrong_level_is_reported_once_and_does_not_hide_mistakes_of_the_design(write_space):
    text = FOUR.replace("[1e-3, 1e-4]", "[1e-3, much]") + "design: fraction\n"
    with pytest.raises(InputError) as caught:
        plan(write_space, text)
    assert len(caught.value.problems) == 1  # the factor has two levels, one of them wrong
    more = text.replace("[8, 4]", "[8, 4, 2]").replace("tiny", "tyny")
    with pytest.raises(InputError) as caught:
        plan(write_space, more)
    for words in ("finetune.lr = 'much'", "finetune.batch_size has 3", "there is no task 'tyny'"):
        assert any(words in problem for problem in map(str, caught.value.problems)), caught.value.problems


def test_too_many_factors_for_a_fraction_are_refused_at_once(write_space):
    """The check does not make the 2^17 combinations of a cross."""
    paths = [
        "embedder.epochs", "embedder.epsilon", "embedder.extra_iterations", "embedder.lr", "embedder.lr_decay_after",
        "embedder.max_samples_per_class", "embedder.proxy_samples", "embedder.n_pseudo_classes", "embedder.n_bandwidths",
        "embedder.target_length", "embedder.n_projections", "embedder.weight_decay", "finetune.epochs",
        "finetune.batch_size", "finetune.accumulation", "finetune.lr", "finetune.weight_decay",
    ]  # fmt: skip
    factors = "".join(f"  {path}: [2, 3]\n" for path in paths)
    with pytest.raises(InputError, match="takes at most 16 factors, and there are 17") as caught:
        plan(write_space, f"{TINY}factors:\n{factors}design: fraction\n")
    assert len(caught.value.problems) == 1
