"""Designs analysed as they were run: factor effects, fractions with their aliases, importance, half-normal plots."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from orca_sweep import results as r
from orca_sweep.analysis import factor_effects, half_normal, importance, table_effects
from orca_sweep.analysis.catalogue import choose_figures, make_output, write_analysis
from orca_sweep.analysis.report import compute, draw, page
from orca_sweep.analysis.writing import MINUS, NOTHING
from orca_sweep.errors import InputError
from orca_sweep.space.designs import DESIGNS, make_fraction
from tests.builders.tables import cell_rows, in_memory, lines, rows, sweep, trial

LEVELS = {
    "proxy": ("none", "mnist5k"),
    "embedder.objective": ("mmd", "l2"),
    "finetune.freeze": ("none", "body"),
    "finetune.lr": (1e-4, 1e-3),
    "body.pretrain_fraction": (0.0, 1.0),
}
PROXY, OBJECTIVE, FREEZE, LR, FRACTION = LEVELS
BOTH = f"{PROXY} x {FREEZE}"


def simulate(combination, effects, seeds=range(4), sd=0.01, task="digits"):
    """A cell's errors by seed: each effect is added where all of its factors have their second level."""
    high = {path for path, level in combination.items() if level != LEVELS[path][0]}
    true = 0.5 + sum(size for paths, size in effects.items() if set(paths) <= high)
    rng = np.random.default_rng([sum(2**i for i, path in enumerate(LEVELS) if path in high), len(task)])
    return [true + 0.02 * seed + float(rng.normal(0, sd)) for seed in seeds]


def of_cells(*parts, factors):
    return in_memory([planned for part in parts for planned in part], factors)


def run_design(design, effects=None, *, factors=tuple(LEVELS), without=(), tasks=("digits",), more=(), **asked):
    """The tables of a design; ``without`` has the positions of combinations that did not run."""
    chosen = {path: LEVELS[path] for path in factors}
    combinations = [c for i, c in enumerate(design.combine(chosen)) if i not in without]
    parts = [
        cell_rows({"task": task, **c}, simulate(c, effects or {}, task=task, **asked))
        for task in tasks
        for c in combinations
    ]
    several = ("task",) if len(tasks) > 1 else ()
    return of_cells(*parts, *more, factors=(*several, *factors))


def judged_words(results, module, key="effect", **asked):
    return {line[key]: line["verdict"] for line in lines(module.numbers(module.compute(results, **asked)))}


def captions(*tables):
    return " ".join(table.caption for table in tables)


# Full designs -------------------------------------------------------------------------------------


def test_two_seeds_say_that_nothing_can_be_judged():
    """The pooled F has three degrees of freedom here and would say p < 0.001."""
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE), seeds=range(2))
    record = factor_effects.compute(results)
    assert record.tasks[0].pooled.effects[0].p < 0.001
    for line in lines(factor_effects.numbers(record)):
        assert line["verdict"] == "undecided"
        assert line["not_judged_because"] == "2 seeds, and at least 3 are needed"
        assert {line[name] for name in ("p_t", "p_t_holm", "low", "high")} == {""}
    contrasts, shares = factor_effects.build_tables(record)
    assert "With 2 seeds no effect of a factor can be judged: at least 3 are needed." in contrasts.caption
    assert "This cannot be checked with 2 seeds." in shares.caption
    assert not {"p", "F", "p pooled"} & set(shares.head)
    assert {row[4:] for row in rows(contrasts)} == {(NOTHING, NOTHING, NOTHING, "undecided")}
    titles = [" ".join(axis.get_title(loc="left").split()) for axis in factor_effects.plot(record).axes]
    assert titles[0] == "proxy undecided (2 seeds, and at least 3 are needed)"


def test_one_seed_has_estimates_but_no_shares():
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE), seeds=range(1))
    record = factor_effects.compute(results)
    (table,) = factor_effects.build_tables(record)
    assert (
        "each once at 1 seed." in table.caption and "With 1 seed no effect of a factor can be judged" in table.caption
    )
    assert lines(factor_effects.share_numbers(record)) == []
    factor_effects.plot(record)


def test_pooled_tests_are_shown_only_when_asked_for():
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE))
    plain, pooled = (make_output("factor_effects", results, asked) for asked in ({}, {"pooled": True}))
    assert "p_pooled" not in plain.more_numbers["shares"]
    assert "p_pooled_holm" in pooled.more_numbers["shares"]
    assert pooled.tables[1].head[-4:] == ("90% interval", "F", "p pooled", "p pooled, Holm")
    assert "They are only right if the assumption holds; judge by the words." in pooled.tables[1].caption
    assert plain.tables[0] == pooled.tables[0]


def test_unequal_spread_is_said_beside_the_shares():
    combinations = list(DESIGNS["cross"].combine({path: LEVELS[path] for path in (PROXY, FREEZE)}))
    rng = np.random.default_rng(0)
    parts = [
        cell_rows(c, [0.5 + float(rng.normal(0, 0.001 if i else 0.1)) for _ in range(8)])
        for i, c in enumerate(combinations)
    ]
    results = of_cells(*parts, factors=(PROXY, FREEZE))
    text = factor_effects.build_tables(factor_effects.compute(results))[1].caption
    assert "(proxy none, finetune.freeze none)" in text
    assert re.search(
        r"the spreads differ \(Brown-Forsythe test, p (<0.001|0\.0\d+)\), so do not rely on these shares", text
    )


def test_base_and_margin_are_those_of_table_effects():
    aa = cell_rows({"task": "digits", PROXY: "none", FREEZE: "none"}, [0.5, 0.55, 0.52], "aa", 10)
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE), more=[aa])
    (factors,), (effects,) = factor_effects.compute(results).tasks, table_effects.compute(results).tasks
    assert (factors.base, factors.margin) == (effects.base, effects.margin)
    assert factors.margin.kind == "noise"
    asked = {"base": ["proxy=mnist5k"], "margin": ["0.3"]}
    record = factor_effects.compute(results, **asked)
    assert record.tasks[0].margin == table_effects.compute(results, **asked).tasks[0].margin
    proxy = lines(factor_effects.numbers(record))[0]
    assert (proxy["levels"], proxy["base_levels"], proxy["verdict"]) == ("none", "mnist5k", "no meaningful difference")
    assert float(proxy["estimate"]) > 0
    with pytest.raises(InputError, match="no cell has that level of proxy"):
        factor_effects.compute(results, base=["proxy=x"])


def test_tuned_cells_and_several_tasks():
    searched = [trial({"task": "digits", PROXY: "none", FREEZE: "none"}, 9, 0.1, "search", **{LR: 0.5})]
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE), tasks=("digits", "other"),
        more=[searched],
    )  # fmt: skip
    record = factor_effects.compute(results)
    assert [(task.task, task.n_seeds) for task in record.tasks] == [("digits", 4), ("other", 4)]
    titles = [axis.get_title(loc="left") for axis in factor_effects.plot(record).axes]
    assert [title.split(":")[0] for title in titles] == ["digits"] * 3 + ["other"] * 3
    one_margin = factor_effects.compute(results, margin=["other=1"])
    words = [{of.word for of in task.contrasts} for task in one_margin.tasks]
    assert words[1] == {"no meaningful difference"} and "helps" in words[0]


# Fractions ----------------------------------------------------------------------------------------


def test_a_fraction_names_what_each_effect_is_aliased_with():
    results = run_design(make_fraction(3), {(PROXY,): -0.2, (PROXY, FREEZE): 0.1})
    record = factor_effects.compute(results)
    (table,) = factor_effects.build_tables(record)
    assert table.head[-1] == "aliased with"
    assert "a regular fraction of resolution 3, 8 of 32 combinations, 8 cells, each once at 4 seeds" in table.caption
    by_effect = {line["effect"]: line for line in lines(factor_effects.numbers(record))}
    # The plan says the same, from the generators.
    known = make_fraction(3).find_aliasing(LEVELS).aliases
    for names in known:
        lead = next(name for name in names if name in by_effect)
        listed = {name.removeprefix(MINUS) for name in by_effect[lead]["aliased_with"].split(", ")}
        assert listed == set(names) - {lead}
    aliased = next(next(n for n in names if n in by_effect) for names in known if BOTH in names)
    assert " x " not in aliased  # a main effect that did nothing, and looks as if it did
    line = by_effect[aliased]
    assert line["verdict"] in ("helps", "hurts") and abs(float(line["estimate"])) == pytest.approx(0.05, abs=0.02)
    shown = next(row for row in rows(table) if row[0] == aliased)
    assert shown[-2].endswith("(or aliases)")
    titles = " ".join(axis.get_title(loc="left") for axis in factor_effects.plot(record).axes)
    titles = " ".join(titles.split())
    assert f"{aliased} and its aliases" in titles and "(or aliases)" in titles


def test_a_fraction_works_after_collect_and_with_some_trials_left_out(tmp_path):
    chosen = {path: LEVELS[path] for path in tuple(LEVELS)[:4]}
    parts = [cell_rows(c, simulate(c, {(PROXY,): -0.2})) for c in make_fraction(4).combine(chosen)]
    sweep(tmp_path, *parts, factors=tuple(chosen))
    results = r.read_results(tmp_path / "tables")
    words = judged_words(results, factor_effects)
    assert words["proxy"] == "helps" and list(words)[:4] == list(LEVELS)[:4]
    fewer = factor_effects.compute(results, ["seed=3"])
    assert fewer.tasks[0].n_seeds == 3 and "Left out: seed=3." in captions(*factor_effects.build_tables(fewer))
    # Half of a fraction is a whole design of the factors that still vary.
    half = factor_effects.compute(results, ["proxy=none"])
    assert half.tasks[0].design.table.factors == tuple(LEVELS)[1:4]
    assert half.tasks[0].design.fraction.resolution == 3


@pytest.mark.parametrize("resolution", [3, 4, 5])
def test_a_fraction_estimates_what_the_whole_design_does(resolution):
    effects = {(PROXY,): -0.2, (LR,): 0.1}
    whole, half = (
        run_design(design, effects, sd=0.0)
        for name, design in (("whole", DESIGNS["cross"]), ("half", make_fraction(resolution)))
    )
    estimates = [
        {line["effect"]: float(line["estimate"]) for line in lines(factor_effects.numbers(factor_effects.compute(of)))}
        for of in (whole, half)
    ]
    for name, estimate in estimates[1].items():
        assert estimate == pytest.approx(estimates[0][name], abs=1e-9)


def test_a_failed_trial_of_a_fraction_is_a_hole_with_a_remedy():
    chosen = {path: LEVELS[path] for path in tuple(LEVELS)[:4]}
    parts = [cell_rows(c, simulate(c, {})) for c in make_fraction(4).combine(chosen)]
    parts[2] = cell_rows(next(itertools.islice(make_fraction(4).combine(chosen), 2, None)), [0.5, None, 0.5, 0.6])
    results = of_cells(*parts, factors=tuple(chosen))
    with pytest.raises(InputError) as refused:
        factor_effects.compute(results)
    text = str(refused.value)
    assert text.count("has the value nan at seed 1.") == 1
    assert "1 failed" in text and "combinations of levels have no cell" not in text
    assert factor_effects.compute(results, ["seed=1"]).tasks[0].n_seeds == 3
    with pytest.raises(InputError, match="has the value nan at seed 1"):
        half_normal.compute(results)


def test_a_fraction_without_a_cell_names_it():
    factors = tuple(LEVELS)[:4]
    results = run_design(make_fraction(4), factors=factors, without=[3])
    missing = list(make_fraction(4).combine({path: LEVELS[path] for path in factors}))[3]
    with pytest.raises(InputError) as refused:
        factor_effects.compute(results)
    named = ", ".join(
        f"{path} = {level:g}" if isinstance(level, float) else f"{path} = {level}" for path, level in missing.items()
    )
    assert f"digits: {named} has no cell." in str(refused.value)
    assert "These 7 cells would be a regular fraction of 8 cells with 1 more." in str(refused.value)
    assert "Compare cells with table_effects" in str(refused.value)
    with pytest.raises(InputError, match="a half-normal plot needs all combinations"):
        half_normal.compute(results)


def test_a_fraction_with_merged_cells_is_refused():
    """Without a proxy the objective has no effect, so these combinations run once, with one level of it."""
    cells = {}
    for combination in make_fraction(4).combine({path: LEVELS[path] for path in tuple(LEVELS)[:4]}):
        run = {**combination, OBJECTIVE: "mmd"} if combination[PROXY] == "none" else combination
        cells[tuple(run.items())] = run
    parts = [cell_rows(c, simulate(c, {})) for c in cells.values()]
    results = of_cells(*parts, factors=tuple(LEVELS)[:4])
    with pytest.raises(InputError, match="combinations of levels have no cell.*are the same work as another"):
        factor_effects.compute(results)


def test_a_placebo_beside_a_fraction_is_left_out_by_name():
    chosen = {path: LEVELS[path] for path in tuple(LEVELS)[:4]}
    combinations = list(make_fraction(4).combine(chosen))
    placebos = [{**c, PROXY: "shuffled:mnist5k"} for c in combinations if c[PROXY] == "mnist5k"]
    parts = [
        cell_rows(c, simulate({**c, PROXY: c[PROXY].removeprefix("shuffled:")}, {})) for c in combinations + placebos
    ]
    results = of_cells(*parts, factors=tuple(chosen))
    with pytest.raises(InputError, match="--without proxy=shuffled:mnist5k"):
        factor_effects.compute(results)
    (task,) = factor_effects.compute(results, ["proxy=shuffled:mnist5k"]).tasks
    assert task.design.fraction.resolution == 4


def test_two_factors_that_always_change_together_are_named():
    parts = []
    for proxy, freeze in itertools.product((0, 1), (0, 1)):
        c = {PROXY: LEVELS[PROXY][proxy], FREEZE: LEVELS[FREEZE][freeze], LR: LEVELS[LR][freeze]}
        parts.append(cell_rows(c, simulate(c, {(FREEZE,): 0.2})))
    results = of_cells(*parts, factors=(PROXY, FREEZE, LR))
    by_effect = {line["effect"]: line for line in lines(factor_effects.numbers(factor_effects.compute(results)))}
    assert LR not in by_effect
    assert by_effect[FREEZE]["aliased_with"].split(", ")[0] == LR


# Half-normal plots --------------------------------------------------------------------------------


def test_half_normal_effects_are_the_contrasts_of_both_halves():
    results = run_design(make_fraction(5), {(PROXY,): -0.2, (PROXY, FREEZE): -0.1})
    record = half_normal.compute(results)
    (task,) = record.tasks
    assert [of.name for of in task.effects[:3]] == [PROXY, FREEZE, BOTH] and len(task.effects) == 15
    by_effect = {line["effect"]: line for line in lines(factor_effects.numbers(factor_effects.compute(results)))}
    for line in lines(half_normal.numbers(record)):
        times = 1 + (" x " in line["effect"])
        assert float(line["estimate"]) * times == pytest.approx(float(by_effect[line["effect"]]["estimate"]))
    sizes = [of.size for of in task.effects]
    assert sizes == sorted(sizes, reverse=True)
    assert [of.quantile for of in task.effects] == pytest.approx(
        scipy_stats.halfnorm.ppf((np.arange(15) + 0.5) / 15)[::-1].tolist()
    )
    assert task.noise.simultaneous_margin < sizes[2] and task.noise.margin > sizes[4]
    (axis,) = half_normal.plot(record).axes
    assert ", ".join(text.get_text() for text in axis.texts) == "A, B, C"
    assert [" ".join(text.get_text().split()) for text in axis.get_legend().get_texts()] == [
        f"A: {PROXY}",
        f"B: {FREEZE}",
        f"C: {BOTH} + aliases",
        "where effects lie that are only noise",
        "Lenth's margin of error",
        "simultaneous margin of error",
    ]


def test_half_normal_of_a_whole_design_has_all_interactions():
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE, LR))
    (task,) = half_normal.compute(results).tasks
    assert len(task.effects) == 7 and {of.aliases for of in task.effects} == {""}
    small = half_normal.compute(run_design(DESIGNS["cross"], factors=(PROXY, FREEZE)))
    assert small.tasks[0].noise is None
    assert "3 effects are too few for Lenth's margins: at least 7 are needed." in half_normal.write_caption(small)
    half_normal.plot(small)
    still = half_normal.compute(run_design(DESIGNS["cross"], factors=(PROXY, FREEZE, LR), sd=0.0))
    assert "Most effects are zero, so they say nothing about noise" in half_normal.write_caption(still)
    half_normal.plot(still)


# Importance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["drop_one", "add_one", "one_at_a_time"])
def test_importance_is_table_effects_sorted_by_size(name):
    effects = {(PROXY,): -0.05, (FREEZE,): 0.2, (LR,): 0.1}
    results = run_design(DESIGNS[name], effects)
    record = importance.compute(results)
    (task,) = record.tasks
    assert [change.paths for change in task.changes[:3]] == [(FREEZE,), (LR,), (PROXY,)]
    by_cell = {line["cell_id"]: line for line in lines(table_effects.numbers(table_effects.compute(results)))}
    made = lines(importance.numbers(record))
    assert len(made) == len(by_cell) == 5
    for line in made:
        same = by_cell[line["cell_id"]]
        for field in ("difference", "low", "high", "p_t_holm", "verdict", "margin", "n_contrasts", "n_pairs"):
            assert line[field] == same[field]
    first = task.changes[0]
    old, new = LEVELS[FREEZE][:: -1 if name == "drop_one" else 1]
    assert first.name == f"finetune.freeze: {old} → {new}"
    assert first.row.verdict.word == ("helps" if name == "drop_one" else "hurts")
    (axis,) = importance.plot(record).axes
    assert next(" ".join(text.get_text().split()) for text in axis.get_yticklabels()) == first.name
    (table,) = importance.build_tables(record)
    assert rows(table)[0][:4] == (FREEZE, old, new, "4")
    assert "corrected for all 5 cells of the task" in table.caption


def test_parts_that_are_the_same_work_are_one_change():
    """Dropping the proxy and dropping all embedder epochs both give the naive cell."""
    full = {PROXY: "mnist5k", "embedder.epochs": 20, FREEZE: "body", LR: 1e-3}
    naive = {**full, PROXY: "none", "embedder.epochs": 0}
    parts = [
        cell_rows(full, [0.3, 0.31, 0.33]), cell_rows(naive, [0.5, 0.52, 0.52]),
        cell_rows({**full, FREEZE: "none"}, [0.3, 0.35, 0.31]), cell_rows({**full, LR: 1e-4}, [0.31, 0.3, 0.33]),
    ]  # fmt: skip
    results = of_cells(*parts, factors=tuple(full))
    assert choose_figures(results)[0] == "importance"
    (task,) = importance.compute(results).tasks
    assert task.n_left_out == 0
    assert task.changes[0].name == "proxy: mnist5k → none and embedder.epochs: 20 → 0"


def test_placebos_beside_one_factor_at_a_time_do_not_hide_importance():
    chosen = {PROXY: ("mnist5k", "none"), FREEZE: ("none", "body"), LR: (1e-4, 1e-3)}
    combinations = list(DESIGNS["one_at_a_time"].combine(chosen))
    placebos = [{**c, PROXY: "shuffled:mnist5k"} for c in combinations if c[PROXY] == "mnist5k"]
    results = of_cells(*(cell_rows(c, [0.1, 0.2, 0.4]) for c in combinations + placebos), factors=tuple(chosen))
    assert choose_figures(results)[0] == "importance"
    (task,) = importance.compute(results).tasks
    assert {change.name for change in task.changes} == {
        "proxy: mnist5k → none", "proxy: mnist5k → shuffled:mnist5k", "finetune.freeze: none → body",
        "finetune.lr: 0.0001 → 0.001",
    }  # fmt: skip
    assert task.n_left_out == 2


def test_importance_of_a_cross_shows_single_changes_and_says_what_is_elsewhere():
    results = run_design(DESIGNS["cross"], factors=(PROXY, FREEZE, LR))
    record = importance.compute(results)
    assert (len(record.tasks[0].changes), record.tasks[0].n_left_out) == (3, 4)
    assert "4 cells that change several factors are only in table_effects." in importance.write_caption(record)
    assert "corrected for all 7 cells" in importance.write_caption(record)
    with pytest.raises(InputError, match="no cell changes a single factor of its base cell"):
        importance.compute(run_design(make_fraction(4), factors=tuple(LEVELS)[:4]))


def test_importance_of_a_sweep_with_gaps_and_failures():
    base = {PROXY: "none", FREEZE: "none", LR: 1e-4}
    parts = [
        cell_rows(base, [0.5, 0.52, 0.51]), cell_rows({**base, PROXY: "mnist5k"}, [0.4, None, 0.41]),
        cell_rows({**base, FREEZE: "body"}, [0.6, 0.63, 0.61]), cell_rows({**base, LR: 1e-3}, [None, None, None]),
    ]  # fmt: skip
    results = of_cells(*parts, factors=tuple(base))
    record = importance.compute(results)
    assert [change.paths for change in record.tasks[0].changes] == [(FREEZE,), (PROXY,), (LR,)]
    (table,) = importance.build_tables(record)
    assert [row[-1] for row in rows(table)] == [NOTHING, "1 (failed)", "0 (failed); 1 (failed); 2 (failed)"]
    assert "8 of 12 planned trials are ok; the rest: 4 failed." in table.caption
    importance.plot(record)
    pairs = importance.compute(results, complete_pairs_only=True)
    assert math.isfinite(pairs.tasks[0].changes[1].row.contrast.interval.mean)


def test_factor_effects_send_one_factor_at_a_time_to_importance():
    with pytest.raises(InputError) as refused:
        factor_effects.compute(run_design(DESIGNS["drop_one"]))
    assert "each cell changes one factor of the base cell" in str(refused.value)
    assert "Compare each change with importance" in str(refused.value)
    assert "has no value" not in str(refused.value)  # 26 combinations that nobody asked for


# Levels that a user may write ---------------------------------------------------------------------


def test_levels_of_any_kind_are_written_as_they_are(tmp_path):
    levels = {PROXY: ("$x_$", "x" * 2000), FREEZE: ("a&b_{", "p\u00e9"), LR: ("<i>", "=1+1")}
    cells = [dict(zip(levels, combination, strict=True)) for combination in itertools.product(*levels.values())]
    whole = of_cells(
        *(cell_rows(c, [0.1 + i, 0.2 + 1.1 * i, 0.35]) for i, c in enumerate(cells)), factors=tuple(levels)
    )
    for name in ("factor_effects", "half_normal", "importance"):
        paths = write_analysis(tmp_path, name, whole)
        assert {path.suffix for path in paths} == {".csv", ".md", ".tex", ".png", ".svg", ".pdf", ".txt"}
        assert "'=1+1" in (tmp_path / f"{name}.csv").read_text() or name == "half_normal"
    (axis,) = importance.plot(importance.compute(whole)).axes
    labels = sorted(" ".join(text.get_text().split()) for text in axis.get_yticklabels())
    assert labels[0] == "finetune.freeze: a&b_{ → p\u00e9"


# What a launch draws ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "first"),
    [
        (DESIGNS["drop_one"], ["importance"]),
        (DESIGNS["one_at_a_time"], ["importance"]),
        (make_fraction(4), ["factor_effects", "half_normal"]),
        (DESIGNS["cross"], []),
        (DESIGNS["zip"], []),
    ],
    ids=["drop_one", "one_at_a_time", "fraction", "cross", "zip"],
)
def test_a_launch_draws_the_figure_of_its_design(design, first):
    results = run_design(design)
    assert list(choose_figures(results)) == [*first, "figure4_freezing", "figure2_proxies"]
    for name in first:
        assert make_output(name, results).figure is not None


def test_the_figure_of_a_design_is_written_at_the_end_of_a_launch(tmp_path):
    from orca_sweep.api.finishing import draw_figures

    drawn = draw_figures(run_design(DESIGNS["drop_one"], factors=(PROXY, OBJECTIVE, LR)), tmp_path)
    assert [path.name for path in drawn.pictures] == ["importance.png", "figure2_proxies.png"]
    assert lines((tmp_path / "importance.csv").read_text())[0]["rank"] == "1"


def test_merged_cells_of_a_plan_keep_their_design(plan_of):
    """What the plan of a real space merges: without a proxy or without epochs the embedder is not trained."""
    base = "name: s\nquestion: q\nbase: {task: digits}\nseeds: 3\ndesign: drop_one\n"
    factors = "factors: {proxy: [none, mnist5k], embedder.epochs: [0, 20], finetune.freeze: [body, none]}\n"
    plan = plan_of(base + factors)
    rng = np.random.default_rng(0)
    ids = [
        {"trial_id": t.trial_id, "cell_id": t.cell_id, "seed": t.config.seed, "role": "replicate"} for t in plan.trials
    ]
    row = {"status": "ok", "metric": "error"}
    planned = [
        ({**of, "config": trial.config.flat()}, {**row, "test_metric_best": rng.random()})
        for of, trial in zip(ids, plan.trials, strict=True)
    ]
    results = in_memory(planned, tuple(plan.space.factors))
    assert choose_figures(results)[0] == "importance"
    names = {change.name for change in importance.compute(results).tasks[0].changes}
    assert names == {"finetune.freeze: none → body", "proxy: mnist5k → none and embedder.epochs: 20 → 0"}


def test_tables_without_trials_have_no_design():
    results = run_design(DESIGNS["drop_one"])
    assert choose_figures(replace(results, trials=results.trials.iloc[:0])) == ("figure2_proxies",)


def test_one_factor_alone_is_no_list_of_parts():
    parts = [cell_rows({PROXY: proxy}, [0.1, 0.2, 0.3]) for proxy in ("none", "mnist5k", "dummy")]
    assert choose_figures(of_cells(*parts, factors=(PROXY,))) == ("figure2_proxies",)


# One page -----------------------------------------------------------------------------------------


def read_page(results, **asked):
    report = compute(results, **asked)
    return report, page(report, draw(results, report.effects, []))


def test_the_page_shows_no_p_of_a_pooled_model():
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE), seeds=range(2))
    report, text = read_page(results)
    assert [table.title for table in report.factors] == ["digits: factor effects", "digits: shares of the variance"]
    factor_words = {row[7] for row in rows(report.factors[0])}
    assert factor_words == {"undecided"}
    assert "ω² 0." not in text and "p pooled" not in text
    sentence = "With 2 seeds no effect of a factor can be judged"
    assert sentence in report.factors[0].caption
    assert sentence in text


def test_base_and_margin_of_the_page_hold_for_factor_effects_too():
    results = run_design(DESIGNS["cross"], {(PROXY,): -0.2}, factors=(PROXY, FREEZE))
    report, _ = read_page(results, margin=["0.5"], base=["finetune.freeze=body"])
    assert {row[7] for row in rows(report.factors[0])} == {"no meaningful difference"}
    assert {row[2] for row in rows(report.factors[0]) if row[0] == FREEZE} == {"body"}
    assert {line.word for line in report.tasks[0].lines} == {"no meaningful difference"}


def test_the_page_of_one_factor_at_a_time_shows_importance():
    results = run_design(DESIGNS["drop_one"], {(PROXY,): -0.2})
    report = compute(results)
    assert report.factors == ()
    names = [picture.name for picture in draw(results, report.effects, [])]
    assert "importance" in names and "factor_effects" not in names


def list_simple_effects(task, contrast):
    """The mean difference of a level to the base level at each combination of the other factors' levels."""
    (path,), (level,), (base,) = contrast.effect.factors, contrast.effect.levels, contrast.effect.base
    means = {tuple(cell.labels.values()): np.mean(list(cell.values.values())) for cell in task.design.cells}
    at = list(task.base.labels).index(path)
    return [
        mean - means[(*levels[:at], base, *levels[at + 1 :])] for levels, mean in means.items() if levels[at] == level
    ]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(2,), (4,), (2, 2), (3, 2)]),
    n_seeds=st.integers(2, 5),
    margin=st.sampled_from([(), ("0.05",)]),
)
def test_effects_say_no_more_than_their_contrasts_and_cells(seed, shape, n_seeds, margin):
    """Few effects, unequal spreads: what the page says of an effect follows from a contrast with a word of its own.

    An effect is a difference only if one of its contrasts is; a decided contrast has a small p and an interval beyond the
    margin; below three seeds no contrast is decided; with one factor, its contrasts are the comparisons of the cells, word for
    word; with several, an effect of a level is the mean of its differences at each level of the other factor, so it is a
    difference only if one of these goes beyond the margin in the same direction.
    """
    rng = np.random.default_rng(seed)
    factors = {PROXY: ("none", "mnist5k", "dummy", "noise")[: shape[0]]}
    factors |= {FREEZE: ("none", "body")} if len(shape) > 1 else {}
    combinations = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    parts = [
        cell_rows(c, rng.normal(rng.choice([0.5, 0.5, 0.7]), rng.choice([0.0, 0.001, 0.01, 0.1]), n_seeds).tolist())
        for c in combinations
    ]
    results = of_cells(*parts, factors=tuple(factors))
    effects = table_effects.compute(results, margin=margin)
    (task,) = factor_effects.compute_beside(effects, results).tasks
    for of in task.effects:
        contrasts = task.contrasts_of(of)
        said = factor_effects.describe_effect(contrasts)
        words = {contrast.word for contrast in contrasts}
        assert all((word in said) == (word in words) for word in ("helps", "hurts", "no meaningful difference"))
        if n_seeds < 3:
            assert words == {"undecided"}
        for contrast in contrasts:
            if contrast.word in ("helps", "hurts"):
                interval = contrast.effect.contrast.interval
                pairs = list_simple_effects(task, contrast) if len(of) == 1 else [interval.mean]
                assert interval.mean == pytest.approx(np.mean(pairs))
                assert max(pair * np.sign(interval.mean) for pair in pairs) > task.margin.value
                assert contrast.p_holm <= 0.05
                assert (
                    min(abs(interval.low), abs(interval.high)) > task.margin.value and interval.low * interval.high > 0
                )
    if len(shape) == 1 and n_seeds > 2:
        rows_of_cells = effects.tasks[0].rows
        assert [of.word for of in task.contrasts] == [row.verdict.word for row in rows_of_cells]
        assert [of.effect.contrast for of in task.contrasts] == [row.contrast for row in rows_of_cells]


# Words --------------------------------------------------------------------------------------------


def list_texts():
    """Every caption, title, and refusal of designs of many kinds, with none, one, two, and more of everything."""
    designs = (DESIGNS["cross"], DESIGNS["drop_one"], make_fraction(3))
    for design, n_factors, n_seeds in itertools.product(designs, (3, 4), (1, 2, 3)):
        results = run_design(design, {(PROXY,): -0.1}, factors=tuple(LEVELS)[:n_factors], seeds=range(n_seeds))
        for module in (factor_effects, half_normal, importance):
            try:
                record = module.compute(results)
            except InputError as error:
                yield str(error)
                continue
            yield module.write_caption(record)
            yield from (table.caption for table in module.build_tables(record))
            if n_seeds == 2:
                yield from (axis.get_title() for axis in module.plot(record).axes)


def test_captions_read_well():
    texts = list(list_texts())
    assert len(texts) > 60
    for text in texts:
        for bad in (
            r"\bnan\b",
            r"\bNone\b",
            r"\(\)",
            r"\[\]",
            r"  ",
            r"\.\.",
            r" ,",
            r"\b1 \w*[a-z]s\b(?! factor)",
            r" \.",
        ):
            assert not re.search(bad, text.replace("1 seeds 0", "")), (bad, text)
