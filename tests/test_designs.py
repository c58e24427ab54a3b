"""Designs: which combinations an ablation runs, and what is said of those that do not fit."""

import pytest

from orca_sweep.designs import DESIGNS, combinations, misfit
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space
from orca_sweep.trial import load_imports, resolve

FACTORS = {"a": (0, 1, 2), "b": ("x", "y")}


def made(name, factors=FACTORS, include=(), exclude=()):
    return [tuple(row.values()) for row in combinations(DESIGNS[name], factors, include, exclude)]


def test_each_design_makes_its_combinations():
    two = {"a": (0, 1), "b": ("x", "y"), "c": (False, True)}
    assert made("cross") == [(0, "x"), (0, "y"), (1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert made("one_at_a_time") == [(0, "x"), (1, "x"), (2, "x"), (0, "y")]
    assert made("zip", {"a": (0, 1, 2), "b": ("x", "y", "z")}) == [(0, "x"), (1, "y"), (2, "z")]
    assert made("drop_one", two) == [(1, "y", True), (0, "y", True), (1, "x", True), (1, "y", False)]
    assert made("add_one", two) == [(0, "x", False), (1, "x", False), (0, "y", False), (0, "x", True)]
    for name in DESIGNS:
        assert made(name, {}) == [()]  # without factors there is one cell: base


def test_rows_are_added_and_taken_out():
    assert made("one_at_a_time", include=({"a": 2, "b": "y"}, {"a": 9})) == [
        (0, "x"), (1, "x"), (2, "x"), (0, "y"), (2, "y"), (9, "x"),
    ]  # fmt: skip
    assert made("cross", exclude=({"a": (0, 1), "b": ("y",)},)) == [(0, "x"), (1, "x"), (2, "x"), (2, "y")]
    assert made("cross", exclude=({"a": (0,)}, {"b": ("x",)})) == [(1, "y"), (2, "y")]


def test_factors_that_do_not_suit_a_design_are_told():
    assert misfit(DESIGNS["cross"], FACTORS) is None
    assert "equally many (a has 3, b has 2)" in misfit(DESIGNS["zip"], FACTORS)
    for name in ("drop_one", "add_one"):
        assert "two levels, off first (a has 3, b has 2)" in misfit(DESIGNS[name], FACTORS)


def plan(write_space, text):
    return plan_space(write_space(text), load_imports, resolve)


TINY = "base: {task: tiny}\nseeds: 2\n"


def test_a_space_names_its_design(write_space):
    factors = "factors: {proxy: [none, mnist5k], finetune.freeze: [none, body, embedder], finetune.lr: [1e-3, 1e-4]}\n"
    crossed, single = (plan(write_space, TINY + factors + design) for design in ("", "design: one_at_a_time\n"))
    assert (len(crossed.cells), len(single.cells)) == (12, 5)
    assert {cell.cell_id for cell in single.cells} < {cell.cell_id for cell in crossed.cells}
    assert tuple(single.levels(single.cells[0]).values()) == ("none", "none", 1e-3)
    some = plan(write_space, TINY + factors + "exclude: [{proxy: none, finetune.freeze: [body, embedder]}]\n")
    assert len(some.cells) == 8
    more = plan(write_space, TINY + factors + "design: one_at_a_time\ninclude: [{proxy: dummy, finetune.lr: 5e-2}]\n")
    assert tuple(more.levels(more.cells[-1]).values()) == ("dummy", "none", 0.05)
    ruled = plan(write_space, TINY + factors.replace(", finetune.lr: [1e-3, 1e-4]", "")
                 + "design: one_at_a_time\nwhen: [{if: {finetune.freeze: body}, set: {finetune.lr: 1e-2}}]\n")  # fmt: skip
    assert [cell.finetune.lr for cell in ruled.cells] == [1e-3, 1e-3, 1e-2, 1e-3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("design: crosed", "there is no design 'crosed'. Did you mean 'cross'?"),
        ("design: [cross]", "there is no design"),
        ("design: zip", "design zip pairs levels by their place"),
        ("design: drop_one", "each needs two levels, off first"),
        ("include: {proxy: none}", "include must be a list of rows"),
        ("include: [none]", "include must be a list of rows"),
        ("include: [{prox: none}]", "prox is no factor of this space. Did you mean 'proxy'?"),
        ("include: [{finetune.epochs: many}]", "finetune.epochs = 'many'"),
        ("exclude: [{proxy: dummy}]", "exclude: proxy has no level 'dummy'. Its levels: none, mnist5k."),
        ("exclude: [{proxy: [none, mnist5k]}]", "exclude leaves no combination"),
    ],
)
def test_mistakes_are_told_with_their_line(write_space, text, words):
    factors = "factors: {proxy: [none, mnist5k], finetune.epochs: [1, 2, 3]}\n"
    with pytest.raises(InputError) as caught:
        plan(write_space, TINY + factors + text + "\n")
    assert any(words in problem for problem in caught.value.problems), caught.value.problems
    assert "space.yaml:5: " in str(caught.value)
