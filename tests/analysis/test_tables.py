"""The tables: results, effects, factor effects, seed noise, cost, summary over tasks; and how tables are written."""

import html
import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from orca_sweep import results as r
from orca_sweep import stats
from orca_sweep.analysis import (
    cost,
    factor_effects,
    seed_noise,
    summary_over_tasks,
    table_effects,
    table_results,
    tables,
    writing,
)
from orca_sweep.analysis.catalogue import make_output, write_analysis
from orca_sweep.analysis.writing import MINUS, NOTHING
from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, collected, lines, rows, sweep, trial

TABLES = (table_results, table_effects, factor_effects, seed_noise, cost, summary_over_tasks)


# Results ------------------------------------------------------------------------------------------


def test_results_are_means_and_t_intervals_of_ok_replicates_alone(tmp_path):
    searched = [trial(NONE, 9, 9.0, "search"), trial(MNIST, 9, 0.0, "search")]
    record = table_results.compute(
        sweep(
            tmp_path,
            searched,
            cell_rows(NONE, [1.0, 2, 3]),
            cell_rows(MNIST, [4.0, None]),
            cell_rows(NONE, [5.0, 7], "aa", 10),
        )
    )
    none, mnist, aa = lines(table_results.numbers(record))
    assert (none["proxy"], none["n"], none["mean"], none["sd"]) == ("none", "3", "2.0", "1.0")
    assert float(none["high"]) == pytest.approx(2 + 4.30265 / math.sqrt(3), rel=1e-5)  # t(0.975, 2) = 4.30265
    assert none["interval"] == "95% Student-t interval of the mean over n seeds"
    assert (none["n_searched"], none["not_ok"], mnist["n_searched"]) == ("1", "", "1")
    assert (mnist["n"], mnist["low"], mnist["n_planned"], mnist["n_not_ok"]) == ("1", "", "2", "1")
    assert mnist["not_ok"] == "1 failed"
    assert (aa["role"], aa["proxy"], aa["mean"]) == ("aa", "none", "6.0")
    (table,) = table_results.build_tables(record)
    assert [len(block) for block in table.blocks] == [2, 1]
    assert rows(table) == [
        ("none", "cell", "3", "2.0", f"[{MINUS}0.5, 4.5]", "1.0", "0"),
        ("mnist5k", "cell", "1", "4.0", NOTHING, NOTHING, "1 failed"),
        ("none", "A/A", "2", "6.0", f"[{MINUS}6.7, 18.7]", "1.4", "0"),
    ]
    assert "mean over n seeds with the 95% Student-t interval of that mean; sd: standard deviation" in table.caption
    assert "6 of 7 planned trials are ok; the rest: 1 failed." in table.caption
    assert [note.split()[0] for note in table.notes] == ["A", "An", "No"]
    other = table_results.build_tables(table_results.compute(r.read_results(tmp_path / "tables"), level=0.8))[0]
    assert "80% Student-t interval" in other.caption


def test_what_a_space_scores_as_worst_counts_and_is_named(tmp_path):
    results = sweep(
        tmp_path, cell_rows(NONE, [0.2, None]), cell_rows(MNIST, [0.5, 0.3]), outcomes={"failed": {"then": "worst"}}
    )
    record = table_results.compute(results)
    assert [row["mean"] for row in lines(table_results.numbers(record))] == ["0.35", "0.4"]
    assert "the space scores 1 of these as the worst trial of the task" in table_results.build_tables(record)[0].caption
    # Every module counts the same values.
    (task,) = table_effects.compute(results).tasks
    assert task.rows[0].contrast.differences == pytest.approx((0.3, -0.2))
    assert r.score_trials(results)["counts"].tolist() == [True] * 4


def test_tuned_cells_show_what_they_were_run_with(tmp_path):
    parts = (
        [trial(levels, 9, 0.5, "search", **{"finetune.lr": lr}) for lr in (0.1, 0.2)]
        + cell_rows(levels, [0.4, 0.5], **{"finetune.lr": best})
        for levels, best in ((NONE, 0.1), (MNIST, 0.2))
    )
    record = table_results.compute(sweep(tmp_path, *parts, tune={"finetune.lr": []}))
    (table,) = table_results.build_tables(record)
    assert table.head[:2] == ("proxy", "finetune.lr (tuned)")
    assert [row[:3] for row in rows(table)] == [("none", "0.1", "2"), ("mnist5k", "0.2", "2")]
    assert "No mean includes the 4 tuning candidates." in table.notes


def test_cells_of_equal_levels_from_several_sweeps_show_what_differs(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        trials = cell_rows({**NONE, "finetune.lr": lr}, [0.1, 0.2]) + cell_rows(
            {**MNIST, "finetune.lr": lr}, [0.3, 0.4]
        )
        collected(tmp_path, trials, name=name)
    merged = r.collect([tmp_path / "a", tmp_path / "b"], tmp_path / "tables")
    (table,) = table_results.build_tables(table_results.compute(merged))
    assert [row[:2] for row in rows(table)] == [(p, lr) for lr in ("0.1", "0.2") for p in ("none", "mnist5k")]
    assert len(factor_effects.compute(merged).tasks[0].design.cells) == 4


def test_a_cell_with_two_trials_of_one_seed_is_refused_by_name(tmp_path):
    twice = cell_rows(NONE, [0.1, 0.2], **{"finetune.lr": 0.1}) + cell_rows(NONE, [0.3], **{"finetune.lr": 0.2})
    results = sweep(tmp_path, twice, cell_rows(MNIST, [0.1, 0.2]))
    for module in TABLES:
        with pytest.raises(InputError, match="2 trials at seed 0, which differ in finetune.lr"):
            module.compute(results)


def test_levels_are_written_as_a_space_writes_them():
    values = [None, math.nan, True, np.bool_(False), np.int64(20), 20.0, 1e-4, np.float64(0.1), "none", 1e9]
    assert [write_level(value) for value in values] == [
        "null", "null", "true", "false", "20", "20", "0.0001", "0.1", "none", "1000000000",
    ]  # fmt: skip


@pytest.mark.parametrize("module", TABLES, ids=lambda module: module.NAME)
def test_tables_that_lack_something_are_refused_in_words(tmp_path, module):
    results = sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER))
    old = results.trials.drop(columns="finetune.freeze")
    with pytest.raises(InputError, match="no column finetune.freeze. This version did not collect these tables"):
        module.compute(replace(results, trials=old, factors=("proxy", "finetune.freeze")))
    empty = replace(results, trials=results.trials.iloc[:0])
    with pytest.raises(InputError, match="no trials, so there is nothing to show"):
        module.compute(empty)


def test_a_metric_that_is_no_column_names_those_that_are(tmp_path):
    results = sweep(tmp_path, cell_rows(NONE, BASE))
    with pytest.raises(
        InputError,
        match="'accuracy': this is not a column of metrics .*test_metric_last, val_metric_best, val_metric_last",
    ):
        table_results.compute(results, "accuracy")


# Effects ------------------------------------------------------------------------------------------


def test_effects_are_the_paired_statistics_against_the_first_cell(tmp_path):
    results = sweep(
        tmp_path,
        cell_rows(NONE, BASE),
        cell_rows(MNIST, BETTER),
        cell_rows({"proxy": "dummy"}, [0.3, 0.3, 0.3, 0.4, 0.4]),
    )
    record = table_effects.compute(results, margin=["0.02"])
    (task,) = record.tasks
    assert task.base.levels == NONE
    better, dummy = lines(table_effects.numbers(record))
    assert float(better["difference"]) == pytest.approx(-0.1)
    half = 2.776445 * np.std([0.10, 0.11, 0.10, 0.09, 0.10], ddof=1) / math.sqrt(5)  # t(0.975, 4) = 2.776445
    assert float(better["high"]) == pytest.approx(-0.1 + half, rel=1e-5)
    want = stats.paired_contrast(dict(enumerate(BETTER)), dict(enumerate(BASE)))
    other = stats.paired_contrast(dict(enumerate([0.3, 0.3, 0.3, 0.4, 0.4])), dict(enumerate(BASE)))
    assert float(better["hedges_g"]) == want.hedges_g
    assert (float(better["p_sign_flip"]), better["smallest_p_sign_flip"]) == (0.0625, "0.0625")
    holm = stats.holm([want.p_t, other.p_t])
    assert [float(row["p_t_holm"]) for row in (better, dummy)] == holm.tolist()
    assert (better["verdict"], better["margin"], better["margin_from"]) == ("helps", "0.02", "given for this analysis")
    assert (dummy["verdict"], better["n_contrasts"]) == ("undecided", "2")
    (table,) = table_effects.build_tables(record)
    assert rows(table)[0][:3] == ("mnist5k", "5", "-0.1000".replace("-", MINUS))
    assert "cell minus base (proxy none, mean 0.340 over 5 seeds)" in table.caption
    assert "corrected for the 2 comparisons of this task that can be judged" in table.caption
    assert (
        "no exact test can be significant: the smallest sign-flip p is 0.0625, corrected for 2 comparisons 0.125"
        in table.notes[0]
    )


def test_the_family_is_the_task_and_each_task_has_its_base_and_margin(tmp_path):
    parts = [
        cell_rows({"task": task, **levels}, values)
        for task in ("a", "b")
        for levels, values in ((NONE, BASE), (MNIST, BETTER))
    ]
    results = sweep(tmp_path, *parts, cell_rows({"task": "b", "proxy": "dummy"}, BASE), factors=("task", "proxy"))
    record = table_effects.compute(results, margin=["b=0.2"])
    assert [(task.task, len(task.rows), task.margin.value) for task in record.tasks] == [("a", 1, 0.0), ("b", 2, 0.2)]
    a, b, _ = lines(table_effects.numbers(record))
    assert (a["n_contrasts"], b["n_contrasts"]) == ("1", "2")
    assert float(a["p_t_holm"]) == float(a["p_t"])
    assert (a["verdict"], b["verdict"]) == ("helps", "no meaningful difference")
    assert "nothing can be shown to make no difference" in a["margin_from"]
    assert table_effects.compute(results, margin=["0.1", "b=0.2"]).tasks[0].margin.value == 0.1
    with pytest.raises(InputError) as error:
        table_effects.compute(results, margin=["c=0.1", "wide", "-1", "a=nan"])
    assert "no task 'c' in these tables. Tasks: a, b." in str(error.value)
    assert len(error.value.problems) == 4


def test_the_margin_comes_from_the_aa_cell_where_none_is_given(tmp_path):
    noise = [0.31, 0.35, 0.37]
    parts = (cell_rows(NONE, BASE), cell_rows(MNIST, BETTER))
    (task,) = table_effects.compute(sweep(tmp_path, *parts, cell_rows(NONE, noise, "aa", 10))).tasks
    assert task.margin.value == stats.aa_margin(noise, BASE).margin
    assert len(task.rows) == 1  # the A/A cell shares no seed with another cell, so it has no contrast
    assert "from the A/A cell of proxy none (3 and 5 seeds)" in task.margin.source
    assert (
        "95% limits"
        in table_effects.build_tables(table_effects.compute(r.read_results(tmp_path / "tables")))[0].caption
    )
    few = sweep(tmp_path / "few", cell_rows(NONE, [0.3]), cell_rows(MNIST, [0.3]), cell_rows(NONE, [0.4], "aa", 10))
    assert "the A/A cell has too few ok trials" in table_effects.compute(few).tasks[0].margin.source


def test_seeds_without_a_pair_are_listed_and_nothing_is_averaged_over_them(tmp_path):
    lost = [trial(MNIST, 2, status="unfinished")]
    broken = [trial(MNIST, 6, math.nan)]
    results = sweep(
        tmp_path, cell_rows(NONE, [*BASE[:4], None]), cell_rows(MNIST, BETTER[:2]), lost,
        cell_rows(MNIST, [*BETTER[3:], 0.3], first_seed=3),
        broken, cell_rows({"proxy": "dummy"}, [*BASE[:4], None]),
    )  # fmt: skip
    record = table_effects.compute(results, margin=["0"])
    mnist, dummy = lines(table_effects.numbers(record))
    assert (mnist["n_pairs"], mnist["difference"], mnist["verdict"]) == ("3", "", "undecided")
    assert mnist["seeds_without_pair"] == (
        "2 (unfinished); 4 (base failed); 5 (base not planned); 6 (ok but without a number, base not planned)"
    )
    assert dummy["seeds_without_pair"] == "4 (failed, base failed)"  # a pair that both lack is a gap, too
    assert "seeds 2, 4, 5, 6 give" in mnist["sentence"]
    assert table_effects.build_tables(record)[0].head[-1] == "seeds without a pair"
    pairs = table_effects.compute(results, margin=["0"], complete_pairs_only=True)
    mnist, dummy = lines(table_effects.numbers(pairs))
    assert (mnist["n_pairs"], mnist["seeds_without_pair"].split(";")[0]) == ("3", "2 (unfinished)")
    assert float(mnist["difference"]) == pytest.approx(-0.1)
    assert float(dummy["difference"]) == 0
    assert "judged from their complete pairs" in table_effects.build_tables(pairs)[0].notes[0]


def test_the_base_is_named_by_levels_and_the_rest_is_the_first_cell_s(tmp_path):
    def cell(proxy, epochs, freeze, value):
        return cell_rows({"proxy": proxy, "embedder.epochs": epochs, "finetune.freeze": freeze}, [value, value + 0.1])

    results = sweep(
        tmp_path, cell("none", 0, "none", 0.1), cell("mnist5k", 20, "none", 0.2), cell("none", 0, "body", 0.3),
        cell("mnist5k", 20, "body", 0.4), factors=("proxy", "embedder.epochs", "finetune.freeze"),
    )  # fmt: skip

    def base(*named):
        return tuple(table_effects.compute(results, named).tasks[0].base.labels.values())

    assert base() == ("none", "0", "none")
    assert base("finetune.freeze=body") == ("none", "0", "body")
    assert base("proxy=mnist5k", "embedder.epochs=20.0") == ("mnist5k", "20", "none")
    # Combinations that are the same work are one cell, so no cell has this proxy with the epochs of the first cell.
    assert base("proxy=mnist5k", "finetune.freeze=body") == ("mnist5k", "20", "body")
    with pytest.raises(InputError, match="2 cells of digits have these levels. Name more levels of: proxy mnist5k"):
        base("proxy=mnist5k")
    with pytest.raises(
        InputError, match="no cell of digits has these levels. Name the levels of one of: proxy none, emb"
    ):
        base("proxy=none", "embedder.epochs=20")
    with pytest.raises(InputError) as error:
        base("prox=none", "proxy=mnits5k", "finetune.freeze")
    assert tuple(map(str, error.value.problems)) == (
        "--base 'prox=none': 'prox' is not a factor of these tables. Factors: proxy, embedder.epochs, finetune.freeze.",
        "--base 'proxy=mnits5k': no cell has that level of proxy. Levels: none, mnist5k.",
        "--base 'finetune.freeze': no cell has that level of finetune.freeze. Levels: none, body.",
    )


def test_effects_of_one_cell_or_at_a_level_without_verdicts_are_refused(tmp_path):
    results = sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(NONE, BASE, "aa", 10))
    with pytest.raises(InputError, match="each task has only one cell, so there is nothing to compare"):
        table_effects.compute(results)
    with pytest.raises(InputError, match="--level 0.5: verdicts need a level above 0.5"):
        table_effects.compute(results, level=0.5)
    alone = sweep(tmp_path / "aa", cell_rows(NONE, BASE, "aa", 10))
    with pytest.raises(InputError, match="these tables have only the A/A cell"):
        table_effects.compute(alone)


def test_the_forest_plot_shows_every_verdict_its_n_and_the_margin(tmp_path):
    results = sweep(
        tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER), cell_rows({"proxy": "dummy"}, [*BASE[:4], None])
    )
    record = table_effects.compute(results, margin=["0.02"])
    figure = table_effects.plot(record)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == [
        "helps (n = 5, p <0.001)",
        "undecided (n = 4, 1 without a pair)",
    ]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["mnist5k", "dummy"]
    assert axis.get_title(loc="left") == "digits: proxy\nbase none, margin 0.02, given"
    assert "95% Student-t interval over n pairs of the same seed" in table_effects.write_caption(record)
    assert "p (Holm)" in table_effects.write_caption(record)
    assert any(line.get_color() == table_effects.LOOKS["helps"][0] for line in axis.lines)


# Factor effects -----------------------------------------------------------------------------------

LEVELS = [{"proxy": p, "finetune.freeze": f} for p in ("none", "mnist5k") for f in ("none", "body")]
FACTORS = ("proxy", "finetune.freeze")


def crossed():
    """Proxy adds 0 or -0.1, freezing 0 or 0.2, no interaction; noise by hand."""
    rng = np.random.default_rng(0)
    added = {"none": 0.0, "mnist5k": -0.1}, {"none": 0.0, "body": 0.2}
    return [
        cell_rows(
            levels,
            [added[0][levels["proxy"]] + added[1][levels["finetune.freeze"]] + 0.5 + x for x in rng.normal(0, 0.01, 4)],
        )
        for levels in LEVELS
    ]


def test_factor_effects_are_contrasts_within_seeds_beside_shares_of_the_variance(tmp_path):
    searched = [trial(LEVELS[0], 9, 5.0, "search")]
    results = sweep(tmp_path, searched, *crossed(), cell_rows(LEVELS[0], [9.0, 9.0], "aa", 10), factors=FACTORS)
    record = factor_effects.compute(results)
    (task,) = record.tasks
    ok = results.trials[results.trials["role"] == "replicate"]
    want = stats.factor_effects(
        ok["test_metric_best"].tolist(), {p: ok[p].tolist() for p in FACTORS}, ok["seed"].tolist()
    )
    assert task.pooled.effects == want.effects
    proxy, freeze, both = lines(factor_effects.numbers(record))
    assert [row["effect"] for row in (proxy, freeze, both)] == [*FACTORS, " x ".join(FACTORS)]
    means = ok.groupby(["seed", "proxy"])["test_metric_best"].mean().unstack()
    by_hand = (means["mnist5k"] - means["none"]).to_numpy()
    assert float(proxy["estimate"]) == pytest.approx(by_hand.mean())
    assert float(proxy["low"]) == pytest.approx(stats.t_interval(by_hand).low)
    assert (proxy["levels"], proxy["base_levels"], proxy["n_seeds"], proxy["n_cells"]) == ("mnist5k", "none", "4", "4")
    assert both["levels"] == "mnist5k x body"
    assert (proxy["verdict"], freeze["verdict"]) == ("helps", "hurts")
    assert float(proxy["margin"]) > 0 and "from the A/A cell" in proxy["margin_from"]
    shares = lines(factor_effects.share_numbers(record))
    assert [float(row["eta_squared"]) for row in shares] == [e.eta_squared for e in want.effects]
    means = {(row["effect"], row["levels"]): row for row in lines(factor_effects.mean_numbers(record))}
    by_hand = ok[ok["proxy"] == "mnist5k"].groupby("seed")["test_metric_best"].mean()
    assert float(means["proxy", "mnist5k"]["mean"]) == pytest.approx(by_hand.mean())
    assert float(means["proxy", "mnist5k"]["low"]) == pytest.approx(stats.t_interval(by_hand.to_numpy()).low)
    assert means["proxy x finetune.freeze", "none x body"]["n_seeds"] == "4"
    contrasts, shares = factor_effects.build_tables(record)
    assert [len(block) for block in contrasts.blocks] == [2, 1]
    assert "all combinations of the levels, 4 cells, each once at 4 seeds" in contrasts.caption
    assert "A description of these 16 trials, not a test." in shares.caption
    figure = factor_effects.plot(record)
    assert [axis.get_title(loc="left").splitlines()[0] for axis in figure.axes] == [
        "proxy", "finetune.freeze", "proxy x finetune.freeze",
    ]  # fmt: skip
    assert len({axis.get_ylim() for axis in figure.axes}) == 1


def test_holes_of_merged_cells_are_listed_and_explained(tmp_path):
    def cell(proxy, epochs):
        return cell_rows({"proxy": proxy, "embedder.epochs": epochs}, [0.1, 0.2, 0.4])

    # None, and real proxies with and without epochs: all without epochs are the naive cell.
    parts = [
        cell("none", 0),
        cell("mnist5k", 5),
        cell("mnist5k", 20),
        cell("photo-patches", 5),
        cell("photo-patches", 20),
    ]
    results = sweep(tmp_path, *parts, factors=("proxy", "embedder.epochs"))
    with pytest.raises(InputError) as error:
        factor_effects.compute(results)
    text = str(error.value)
    assert text.count("has no value at seeds 0, 1, 2.") == 4
    assert "digits: proxy = none, embedder.epochs = 5 has no value" in text
    assert "4 combinations of levels have no cell" in text
    assert "any proxy with embedder.epochs 0, and proxy none with any epochs, is the naive cell" in text
    assert "the rest is balanced with --without proxy=none or with --without embedder.epochs=0." in text
    record = factor_effects.compute(results, ["proxy=none"])
    assert len(record.tasks[0].design.cells) == 4
    assert lines(factor_effects.numbers(record))[0]["left_out"] == "proxy=none"
    assert "Left out: proxy=none." in factor_effects.build_tables(record)[0].caption


def test_a_task_with_failed_trials_is_refused_beside_one_that_is_whole(tmp_path):
    def task(name, gap=None, status="failed"):
        return [
            trial({"task": name, **levels}, seed, *([] if (i, seed) == gap else [0.1 * i + seed**2]),
                  **({"status": status} if (i, seed) == gap else {}))
            for i, levels in enumerate(LEVELS) for seed in range(3)
        ]  # fmt: skip

    parts = (task("whole"), task("broken", (1, 2)), task("young", (3, 1), "unfinished"))
    results = sweep(tmp_path, *parts, factors=("task", *FACTORS))
    record = factor_effects.compute(results)
    assert [task.task for task in record.tasks] == ["whole"]
    broken, young = record.refused
    assert broken.problems[0] == "proxy = none, finetune.freeze = body has the value nan at seed 2."
    assert "a trial that is not ok has the value nan: 1 failed." in str(broken.problems[-1])
    assert "1 unfinished" in str(young.problems[-1])
    assert factor_effects.build_tables(record)[-1].notes == tuple(
        f"{name} is refused: its design is not balanced." for name in ("broken", "young")
    )
    rest = factor_effects.compute(results, ["seed=2", "task=young"])
    assert [(task.task, task.n_seeds) for task in rest.tasks] == [("whole", 2), ("broken", 2)]
    with pytest.raises(InputError, match="--without leaves nothing"):
        factor_effects.compute(results, ["task=whole", "task=broken", "task=young"])
    with pytest.raises(InputError, match="no cell has that level of seed. Levels: 0, 1, 2"):
        factor_effects.compute(results, ["seed=7"])


def test_a_cell_that_is_still_tuned_is_a_hole_and_a_lone_factor_needs_two_levels(tmp_path):
    tuning = [trial(LEVELS[3], 9, 0.2, "search")]
    with pytest.raises(
        InputError, match="proxy = mnist5k, finetune.freeze = body has the value nan at seeds 0, 1, 2, 3"
    ):
        factor_effects.compute(sweep(tmp_path, *crossed()[:3], tuning, factors=FACTORS))
    with pytest.raises(InputError, match="digits: no cell has been replicated yet"):
        factor_effects.compute(sweep(tmp_path / "b", tuning, [trial(LEVELS[0], 9, 0.2, "search")], factors=FACTORS))
    with pytest.raises(InputError, match="no factor has two levels here"):
        factor_effects.compute(sweep(tmp_path / "c", cell_rows(NONE, BASE)))


# Seed noise ---------------------------------------------------------------------------------------


def test_seed_noise_is_the_aa_cell_and_the_spread_of_each_cell(tmp_path):
    again = [0.31, 0.35, 0.37, 0.33]
    results = sweep(
        tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, [*BETTER[:4], None]), cell_rows(NONE, again, "aa", 10)
    )
    record = seed_noise.compute(results, effect=["0.02"])
    (task,) = record.tasks
    want = stats.aa_margin(again, BASE)
    (aa,) = lines(seed_noise.aa_numbers(record))
    assert (aa["n_aa"], aa["n_reference"], float(aa["margin"])) == ("4", "5", want.margin)
    assert (float(aa["difference"]), float(aa["p"])) == (want.difference, want.p)
    base, mnist = lines(seed_noise.numbers(record))
    assert float(base["sd_over_seeds"]) == pytest.approx(np.std(BASE, ddof=1))
    assert (base["is_base"], base["seeds_needed"], mnist["n"], mnist["n_pairs"]) == ("true", "", "4", "4")
    sd = np.std([0.10, 0.11, 0.10, 0.09], ddof=1)
    assert float(mnist["sd_of_paired_differences"]) == pytest.approx(sd)
    n = int(mnist["seeds_needed"])
    assert stats.smallest_effect(n) * sd <= 0.02 < stats.smallest_effect(n - 1) * sd
    table_aa, table = seed_noise.build_tables(record)
    assert rows(table_aa)[0][:3] == ("proxy none", "4", "5")
    assert "chi-squared limits" in table_aa.caption
    assert "detects an effect of 0.02 (given with --effect) with a power of 0.8" in table.caption
    assert "1 failed" in table.caption
    texts = [text.get_text() for text in seed_noise.plot(record).axes[0].texts]
    assert [text.split("(")[1] for text in texts] == ["n = 4)", "n = 5)", "n = 4)"]
    # If no effect is given, it is one standard deviation over seeds.
    assert seed_noise.compute(results).tasks[0].effect == want.sd


def test_without_an_aa_cell_the_spread_of_the_base_cell_is_the_effect_and_a_note_says_so(tmp_path):
    record = seed_noise.compute(sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER)))
    assert record.tasks[0].effect == pytest.approx(np.std(BASE, ddof=1))
    (table,) = seed_noise.build_tables(record)
    assert "aa: 5 in the space makes one" in table.notes[0]
    assert seed_noise.aa_numbers(record).splitlines() == [",".join(seed_noise.AA_COLUMNS)]


def test_an_aa_cell_that_differs_is_called_a_fault(tmp_path):
    record = seed_noise.compute(
        sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(NONE, [x + 1 for x in BASE], "aa", 10))
    )
    assert (
        "the A/A cell differs from it by more than seeds explain (p <0.001)"
        in seed_noise.build_tables(record)[0].notes[0]
    )


def test_seeds_needed_is_the_smallest_number_that_detects_the_effect():
    assert stats.count_seeds_needed(1.0, 1.0) == 10
    assert stats.count_seeds_needed(1.0, 1.0, 8) > 10
    assert stats.count_seeds_needed(1.0, 0.0) == 2
    assert stats.count_seeds_needed(1.0, 100.0) == math.inf
    assert all(math.isnan(stats.count_seeds_needed(*case)) for case in ((0.0, 1.0), (math.nan, 1.0), (1.0, math.nan)))
    assert [seed_noise._format_seeds(n) for n in (math.nan, math.inf, 12.0)] == ["", ">1000", "12"]


# Cost ---------------------------------------------------------------------------------------------

TIMES = {"data_s": 1.0, "body_s": 2.0, "embedder_s": 3.0, "finetune_s": 30.0, "test_s": 4.0, "wall_time_s": 41.0}
MACHINE = {"device": "cuda", "n_threads": 4, "host": "h1", "reused": "", "reused_s": 0.0, "resumed_from_epoch": 0}


def test_cost_adds_up_and_keeps_failed_searched_and_reused_work_apart(tmp_path):
    reused = {"reused": "pretrain", "reused_s": 100.0, "host": "h2"}
    results = sweep(
        tmp_path,
        cell_rows(NONE, [0.1, 0.2], **TIMES, **MACHINE),
        cell_rows(MNIST, [0.1], **{**TIMES, **MACHINE, **reused}),
        cell_rows(MNIST, [None], first_seed=1, **{**MACHINE, "wall_time_s": 7.0}),
        [trial(MNIST, 2, status="unfinished")],
        [trial(MNIST, 9, 0.3, "search", **{**TIMES, **MACHINE, "device": "cpu", "resumed_from_epoch": 3})],
    )
    record = cost.compute(results, gpus_per_trial=0.5)
    none, mnist = lines(cost.numbers(record))
    assert [float(none[name]) for name in ("data_s", "body_s", "proxy_s", "finetune_s", "wall_time_s")] == [
        2,
        4,
        0,
        60,
        82,
    ]
    assert float(none["other_s"]) == pytest.approx(2)
    assert float(none["gpu_hours"]) == pytest.approx(82 * 0.5 / 3600)
    assert float(none["cpu_hours"]) == pytest.approx(82 * 4 / 3600)
    assert (mnist["n_ok"], mnist["n_reused"], float(mnist["reused_s"]), float(mnist["alone_s"])) == ("1", "1", 100, 141)
    assert (mnist["failed_n"], mnist["failed_n_untimed"], float(mnist["failed_wall_time_s"])) == ("2", "1", 7)
    assert (mnist["search_n"], float(mnist["search_wall_time_s"]), float(mnist["search_gpu_hours"])) == ("1", 41, 0)
    total = {row["trials"]: row for row in lines(cost.total_numbers(record))}
    assert [total[kind]["n"] for kind in ("ok", "failed", "search", "all")] == ["3", "2", "1", "6"]
    assert float(total["all"]["hours"]) == pytest.approx((3 * 41 + 7 + 41) / 3600)
    assert float(total["ok"]["reused_hours"]) == pytest.approx(100 / 3600)
    recorded_results = sweep(
        tmp_path / "recorded", cell_rows(NONE, [0.1, 0.2], **TIMES, **MACHINE, gpu_s=41 * 0.25, n_gpus=0.25)
    )
    recorded = cost.compute(recorded_results, gpus_per_trial=0.5)
    assert (recorded.n_assumed, recorded.ok.gpu_s) == (0, 41 * 0.25 * 2)
    whole, table = cost.build_tables(record)
    assert "4 trials on cuda, 4 threads; 1 trial on cpu, 4 threads; 2 hosts" in whole.caption
    assert "Trials that do not say how many GPUs they held: 4; each counts with 0.5" in whole.caption
    assert "Trials without a time: 1, " in whole.notes[0]
    assert "Trials that were resumed: 1. Only their last attempt counts." in whole.notes[1]
    assert rows(table)[1][-2:] == ("7.0 (2)", "41.0 (1)")
    assert "Seconds summed over the ok trials of each cell" in table.caption
    _, labels = cost.plot(record).axes[0].get_legend_handles_labels()
    assert labels == ["loading", "body", "embedder training", "fine-tuning", "test", "other", "not ok",
                      "tuning candidates", "reused"]  # fmt: skip


def test_the_unit_of_time_follows_its_size(tmp_path):
    def caption(name, seconds):
        cell = cell_rows(NONE, [0.1], **{**MACHINE, "finetune_s": seconds, "wall_time_s": seconds})
        return cost.build_tables(cost.compute(sweep(tmp_path / name, cell)))[1].caption.split()[0]

    assert [caption("s", 100.0), caption("m", 7200.0), caption("h", 90_000.0)] == ["Seconds", "Minutes", "Hours"]


def test_cost_says_what_it_cannot_use(tmp_path):
    results = sweep(tmp_path, cell_rows(NONE, BASE))
    short = replace(results, trials=results.trials.drop(columns=["body_s", "host"]))
    with pytest.raises(InputError, match="no column body_s, host"):
        cost.compute(short)
    for share in (0.0, math.nan, math.inf):
        with pytest.raises(InputError, match="the number must be positive"):
            cost.compute(results, share)
    assert cost.compute(results).n_hosts == 0  # trials without times and hosts


# Summary over tasks -------------------------------------------------------------------------------


def tasks_of(cells, scales=(1.0, 10.0)):
    """The same cells on tasks of different scale."""
    return [
        cell_rows({"task": f"t{i}", **levels}, [None if v is None else scale * v for v in values])
        for i, scale in enumerate(scales)
        for levels, values in cells
    ]


def test_over_tasks_scores_are_paired_changes_in_percent_of_the_base_error(tmp_path):
    results = sweep(tmp_path, *tasks_of([(NONE, BASE), (MNIST, BETTER)]), factors=("task", "proxy"))
    record = summary_over_tasks.compute(results)
    (row,) = record.rows
    changes = [100 * (a - b) / 0.34 for a, b in zip(BETTER, BASE, strict=True)]  # mean of BASE: 0.34
    for score in row.scores:
        assert list(score.scores.values()) == pytest.approx(changes)
        assert score.interval.low == pytest.approx(stats.t_interval(changes).low)
    want = stats.interquartile_mean({score.task: list(score.scores.values()) for score in row.scores})
    assert row.over_tasks == want
    assert want.mean == pytest.approx(-10 / 0.34)  # the middle half of all ten: all but one are -0.10
    over, first, second = lines(summary_over_tasks.numbers(record))
    assert [line["task"] for line in (over, first, second)] == ["all tasks", "t0", "t1"]
    assert (over["n_seeds"], over["interval"][:24]) == ("5", "95% percentile bootstrap")
    assert [float(line["base_mean"]) for line in (first, second)] == pytest.approx([0.34, 3.4])
    (table,) = summary_over_tasks.build_tables(record)
    assert [row[1] for row in rows(table)] == ["all 2 tasks", "t0", "t1"]
    means = "t0 0.340 (error; lower is better); t1 3.40 (error; lower is better)"
    assert f"in percent of the mean of the base cell on the task ({means})" in table.caption
    assert "it says nothing about other tasks" in table.notes[0]
    figure = summary_over_tasks.plot(record)
    assert figure.axes[0].texts[0].get_text().endswith("n = 5 seeds")
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["t0", "t1"]


def test_a_summary_needs_two_tasks_one_base_and_cells_in_common(tmp_path):
    with pytest.raises(InputError, match=r"there is only one task \(digits\), and a summary needs two"):
        summary_over_tasks.compute(sweep(tmp_path / "one", cell_rows(NONE, BASE), cell_rows(MNIST, BETTER)))
    apart = [*tasks_of([(NONE, BASE)], (1.0,)), cell_rows({"task": "t1", **MNIST}, BETTER)]
    with pytest.raises(InputError, match=r"t1: the base cell \(proxy none\) is not among its cells"):
        summary_over_tasks.compute(sweep(tmp_path / "apart", *apart, factors=("task", "proxy")))
    lone = [*tasks_of([(NONE, BASE)]), cell_rows({"task": "t1", **MNIST}, BETTER)]
    with pytest.raises(
        InputError, match=r"all 2 tasks share only the base \(proxy none\), no other combination of levels"
    ):
        summary_over_tasks.compute(sweep(tmp_path / "lone", *lone, factors=("task", "proxy")))
    zero = tasks_of([(NONE, [0.0, 0.0]), (MNIST, [0.1, 0.2])])
    with pytest.raises(InputError) as error:
        summary_over_tasks.compute(sweep(tmp_path / "zero", *zero, factors=("task", "proxy")))
    assert len(error.value.problems) == 2
    assert "the mean of the base cell is 0, and scores are shares of it" in str(error.value)


def test_over_tasks_gaps_are_named_and_pairs_that_all_tasks_have_can_be_asked_for(tmp_path):
    cells = [(NONE, BASE), (MNIST, BETTER)]
    gap = [
        cell_rows({"task": "t2", **NONE}, BASE),
        cell_rows({"task": "t2", **MNIST}, [*BETTER[:2], None, *BETTER[3:]]),
    ]
    extra = [cell_rows({"task": "t0", "proxy": "dummy"}, BASE)]
    results = sweep(tmp_path, *tasks_of(cells), *gap, *extra, factors=("task", "proxy"))
    record = summary_over_tasks.compute(results)
    (row,) = record.rows
    assert row.over_tasks is None
    assert row.reason == "seeds without a pair: t2 (2)"
    assert math.isnan(row.scores[2].interval.mean)
    (table,) = summary_over_tasks.build_tables(record)
    assert rows(table)[0] == ("mnist5k", "all 3 tasks", NOTHING, NOTHING, NOTHING)
    assert table.notes == (
        "proxy mnist5k: no number over tasks; seeds without a pair: t2 (2).",
        "--complete-pairs takes the seeds that have a pair in every task.",
        "Not in every task, so left out: proxy dummy (only in t0).",
    )
    assert lines(summary_over_tasks.numbers(record))[0]["not_summarised"] == row.reason
    summary_over_tasks.plot(record)
    (row,) = summary_over_tasks.compute(results, complete_pairs_only=True).rows
    assert row.over_tasks.n_seeds == 4
    assert [score.interval.n for score in row.scores] == [5, 5, 4]  # each task's own number is of all its pairs


def test_over_tasks_different_numbers_of_seeds_are_named(tmp_path):
    cells = [cell_rows({"task": "t0", **p}, v) for p, v in ((NONE, BASE), (MNIST, BETTER))]
    fewer = [cell_rows({"task": "t1", **p}, v[:3], first_seed=7) for p, v in ((NONE, BASE), (MNIST, BETTER))]
    results = sweep(tmp_path, *cells, *fewer, factors=("task", "proxy"))
    for complete in (False, True):
        (row,) = summary_over_tasks.compute(results, complete_pairs_only=complete).rows
        assert row.reason == "different numbers of pairs: t0 5, t1 3"


# A running sweep ----------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path):
    """Two tasks of which almost nothing has ended: one cell and one task have no ok trial."""
    proxies = (NONE, MNIST, {"proxy": "dummy"})
    planned = [({"task": task, **proxy}, seed) for task in ("t0", "t1") for proxy in proxies for seed in range(3)]
    begun = [({"task": "t0", **proxy}, 0) for proxy in proxies[:2]]
    parts = [[trial(levels, seed, status="unfinished")] for levels, seed in planned if (levels, seed) not in begun]
    ended = [trial({"task": "t0", **levels}, 0, value) for levels, value in ((NONE, 0.3), (MNIST, 0.2))]
    return sweep(tmp_path, ended, *parts, factors=("task", "proxy"))


def test_the_tables_of_a_running_sweep_say_how_little_they_hold(running):
    record = table_results.build_tables(table_results.compute(running))
    assert [row[1:] for row in rows(record[0])] == [
        ("1", "0.3000", NOTHING, NOTHING, "2 unfinished"),
        ("1", "0.2000", NOTHING, NOTHING, "2 unfinished"),
        ("0", NOTHING, NOTHING, NOTHING, "3 unfinished"),
    ]
    assert "2 of 9 planned trials are ok; the rest: 7 unfinished" in record[0].caption
    effects = table_effects.compute(running)
    assert {line["verdict"] for line in lines(table_effects.numbers(effects))} == {"undecided"}
    assert "no ok trial yet" in table_effects.build_tables(effects)[1].caption
    table_effects.plot(effects)
    noise = seed_noise.compute(running)
    assert {line["sd_over_seeds"] for line in lines(seed_noise.numbers(noise))} == {""}
    assert "an effect of a size not known yet" in seed_noise.build_tables(noise)[1].caption
    seed_noise.plot(noise)
    assert {line["n_ok"] for line in lines(cost.numbers(cost.compute(running)))} == {"0", "1"}
    cost.plot(cost.compute(running))
    with pytest.raises(InputError, match="t1: a trial that is not ok has the value nan: 9 unfinished"):
        factor_effects.compute(running)
    summary = summary_over_tasks.compute(running)
    assert all(row.over_tasks is None for row in summary.rows)
    pairs = summary_over_tasks.compute(running, complete_pairs_only=True)
    assert [row.reason for row in pairs.rows] == ["no pair: t1", "no pair: t0, t1"]
    summary_over_tasks.build_tables(pairs)
    summary_over_tasks.plot(pairs)


# Writing ------------------------------------------------------------------------------------------

EVIL = [
    r"[a]\b^~{x}_y$z%&#",
    '<tag>|"q"',
    f"* -- --- {MINUS}1 ± ² ω η {NOTHING} …",
    '{"path": "./ä"}',
    "it's `x` *y* ~~z~~",
    "&amp;",
    "a\nb\t c",
]


def table_of(*texts):
    return writing.Table(
        name="x-1",
        title="A & B",
        caption="100% of n = 3_000",
        head=texts,
        align="l" * len(texts),
        blocks=((texts,),),
        notes=("a|b",),
    )


def cells_of(markdown):
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    return [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", page)]


def test_markdown_shows_every_text_as_it_is():
    text = writing.format_markdown([table_of(*EVIL), table_of("x", "y")])
    assert cells_of(text) == [*EVIL[:-1], "a b c"] * 2 + ["x", "y"] * 2
    assert text.startswith("## A \\& B\n\n| ")
    assert "100% of n = 3\\_000" in text


@given(st.text(min_size=1))
def test_markdown_shows_any_text_as_it_is(text):
    shown = writing.join_lines(text)
    if shown:
        assert cells_of(writing.format_markdown([table_of("head", text)]))[1] == shown


def test_latex_escapes_what_latex_reads():
    assert writing.escape_latex(EVIL[0]) == (
        r"{[}a{]}\textbackslash{}b\textasciicircum{}\textasciitilde{}\{x\}\_y\$z\%\&\#"
    )
    assert writing.escape_latex(EVIL[1]) == r"\textless{}tag\textgreater{}\textbar{}\char34{}q\char34{}"
    assert writing.escape_latex(EVIL[2]) == (
        r"{*} -{}- -{}-{}- $-$1 $\pm$ \textsuperscript{2} $\omega$ $\eta$ \textendash{} \ldots{}"
    )
    assert writing.escape_latex("a\nb\\\\[1cm]") == r"a b\textbackslash{}\textbackslash{}{[}1cm{]}"


def test_latex_is_a_booktabs_float_that_says_all():
    text = writing.format_latex([table_of("a_b", "[c]")])
    assert text.splitlines() == [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"  \centering\small",
        r"  \caption{A \& B. 100\% of n = 3\_000 a\textbar{}b}",
        r"  \label{tab:x-1}",
        r"  \begin{tabular}{ll}",
        r"    \toprule",
        r"    a\_b & {[}c{]} \\",
        r"    \midrule",
        r"    a\_b & {[}c{]} \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    blocks = writing.Table(name="n", title="t", caption="c", head=("h",), align="l", blocks=((("1",),), (), (("2",),)))
    assert writing.format_latex([blocks]).count(r"\midrule") == 2


def test_csv_has_all_digits_and_leaves_empty_what_is_not_there():
    text = writing.format_csv([{"a": 0.1 + 0.2, "b": math.nan, "c": None, "d": True, "e": 'x,"y"', "f": math.inf}])
    assert text == 'a,b,c,d,e,f\n0.30000000000000004,,,true,"x,""y""",\n'


def test_no_text_of_a_csv_is_a_formula_and_a_name_in_a_figure_is_one_line():
    texts = ["=HYPERLINK(1)", "@SUM(1)", "+a", "-a", "-0.5", "+1e3", "none", "a=b"]
    assert writing.format_csv([{"level": text} for text in texts]).split("\n")[1:-1] == [
        "'=HYPERLINK(1)", "'@SUM(1)", "'+a", "'-a", "-0.5", "+1e3", "none", "a=b",
    ]  # fmt: skip
    assert writing.format_csv_rows(["level"], [["=1+1"], [-0.5]]) == "level\n'=1+1\n-0.5\n"
    assert tables.shorten_text("a\n\u202eb") == "a b"


def test_short_texts():
    assert [writing.format_p(p) for p in (0.0625, 0.0001, 1.0, math.nan)] == ["0.0625", "<0.001", "1", NOTHING]
    assert [writing.format_hours(3600 * h) for h in (0.2384, 99.94, 1203.7)] == ["0.238", "99.9", "1,204"]
    assert [writing.count_things(n, "trial") for n in (0, 1, 1861)] == ["0 trials", "1 trial", "1,861 trials"]
    assert writing.format_percent(0.95) == "95%" and writing.format_percent(0.999) == "99.9%"
    assert tables.shorten_text("a" * 10, 7) == "aaa…aaa" and tables.shorten_text("abc") == "abc"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    writing.write_files(tmp_path, {"a.csv": b"old"})

    def refuse(*_):
        raise OSError(28, "No space left on device", "a.csv")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        writing.write_files(tmp_path, {"a.csv": b"new"})
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", writing.WRITTEN}
    assert (tmp_path / "a.csv").read_bytes() == b"old"


# Writing analyses ---------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path):
    """Two tasks with everything that the analyses show."""
    sweep(tmp_path, *tasks_of([(NONE, BASE), (MNIST, BETTER)]), cell_rows({"task": "t0", **NONE}, BASE, "aa", 10),
          factors=("task", "proxy"))  # fmt: skip
    return tmp_path / "tables"


def test_all_tables_need_neither_torch_nor_ray_and_are_written_the_same_again(whole, tmp_path):
    code = f"""
import pathlib, sys
from orca_sweep.analysis.catalogue import write_analysis
from orca_sweep.results import read_results
results = read_results(pathlib.Path({str(whole)!r}))
for out in "ab":
    for name in {[module.NAME for module in TABLES]}:
        print(*write_analysis(pathlib.Path({str(tmp_path)!r}) / out, name, results), sep="\\n")
sys.exit(bool({{"torch", "ray"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "a").glob("[!.]*")}
    pictures = ("png", "svg", "pdf", "caption.txt")
    assert made == {f"{module.NAME}.{kind}" for module in TABLES for kind in ("csv", "md", "tex", *pictures)} - {
        f"table_results.{kind}" for kind in pictures
    } | {
        "factor_effects_means.csv",
        "factor_effects_shares.csv",
        "seed_noise_aa.csv",
        "seed_noise_sources.csv",
        "cost_total.csv",
    }
    assert set(done.stdout.split()) == {str(tmp_path / out / name) for out in "ab" for name in made}
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_the_tables_lack_is_a_readable_error_and_writes_nothing(whole, tmp_path):
    results, out = r.read_results(whole), tmp_path / "out"
    with pytest.raises(InputError) as error:
        write_analysis(out, "table_effects", results, {"base": ["prox=none", "proxy=x"]})
    assert len(error.value.problems) == 2
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists"):
        write_analysis(tmp_path / "file", "table_results", results)
    (whole / "trials.parquet").write_bytes(b"half")
    with pytest.raises(InputError, match="damaged, or not a Parquet file"):
        r.read_results(whole)


def test_a_refused_task_is_a_warning_of_its_analysis(tmp_path):
    cells = [*tasks_of([(NONE, BASE), (MNIST, BETTER)]), cell_rows({"task": "t1", "proxy": "dummy"}, [0.1, None])]
    results = sweep(tmp_path, *cells, factors=("task", "proxy"))
    warnings = make_output("factor_effects", results).warnings
    assert warnings
    assert all(warning.startswith("t1: ") for warning in warnings)
