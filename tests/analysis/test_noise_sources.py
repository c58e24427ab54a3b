"""Seed noise by source: spreads, shares, sums, missing numbers, and zero spreads."""

import math

import numpy as np
import pandas as pd
import pytest

from orca_sweep import stats
from orca_sweep.analysis import noise_sources, seed_noise
from orca_sweep.analysis.writing import NOTHING
from orca_sweep.errors import InputError
from tests.builders.cells import make_cell
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, lines, rows, sweep

ALL = [0.30, 0.34, 0.32, 0.36, 0.38]
ORDER = [0.30, 0.31, 0.33, 0.32, 0.34]
INIT = [0.30, 0.32, 0.32, 0.30, 0.31]
SAME = [0.30] * 5


def cell(varies, values, levels=None, **more):
    return cell_rows({**(levels or {}), "seed_varies": varies}, values, **more)


def states(*names):
    """Gives the trials of a cell a hash of weights per seed."""
    return lambda trials: [
        (planned, {**row, "state_sha256": name}) for (planned, row), name in zip(trials, names, strict=True)
    ]


def swept(folder, *cells, factors=("seed_varies",)):
    return sweep(folder, *cells, factors=factors)


def by_source(noise):
    return {line["varies"]: line for line in lines(seed_noise.source_numbers(noise))}


def test_each_source_has_its_spread_and_its_share_of_the_whole_largest_first(tmp_path):
    noise = seed_noise.compute(
        swept(tmp_path, cell("all", ALL), cell("predictor-init", INIT), cell("finetune-order", ORDER))
    )
    line_of = by_source(noise)
    assert list(line_of) == ["all", "finetune-order", "predictor-init"]
    whole, order = stats.sd_interval(ALL), stats.sd_interval(ORDER)
    line = line_of["finetune-order"]
    assert (line["n"], line["n_planned"], line["whole"], line["is_added"]) == ("5", "5", "all", "true")
    assert [float(line[name]) for name in ("sd_over_seeds", "sd_low", "sd_high")] == [order.sd, order.low, order.high]
    share = stats.variance_ratio([order], whole)
    assert [float(line[f"share_{name}"]) for name in ("of_variance", "low", "high")] == [
        share.ratio,
        share.low,
        share.high,
    ]
    assert share.ratio == pytest.approx(np.var(ORDER, ddof=1) / np.var(ALL, ddof=1))
    total = stats.variance_ratio([order, stats.sd_interval(INIT)], whole)
    assert float(line["sum_of_shares"]) == pytest.approx(total.ratio)
    assert (line_of["all"]["share_of_variance"], line_of["all"]["is_added"]) == ("", "false")

    cells, table = seed_noise.build_tables(noise)
    assert rows(cells) == [("all", "5", "0.032", "base", "base", NOTHING)]
    assert table.head == ("seed_varies", "n", "sd", "95% interval", "share of all", "95% interval")
    assert [row[0] for row in rows(table)] == ["all", "finetune-order", "predictor-init"]
    assert rows(table)[0][4:] == ("100%", "")
    assert rows(table)[1][4] == "25%"
    assert "Held fixed: sources that are not named are drawn as at seed 0" in table.caption
    assert "15 of 15 planned trials are ok" in table.caption
    assert table.notes[-1].startswith("Alone, finetune-order, predictor-init add up to 35% of the variance of all")
    assert table.notes[-1].endswith("With these few seeds it is not clear whether that is less or more than the whole.")


def test_no_spread_is_zero_and_weights_show_whether_anything_was_drawn(tmp_path):
    still = states(*"aaaaa")(cell("dropout", SAME))
    moved = states(*"abcde")(cell("finetune-order", SAME))
    noise = seed_noise.compute(swept(tmp_path, states(*"abcde")(cell("all", ALL)), still, moved))
    line_of = by_source(noise)
    for name, n in (("dropout", "1"), ("finetune-order", "5")):
        line = line_of[name]
        assert (line["sd_over_seeds"], line["all_equal"], line["share_of_variance"], line["n_states"]) == (
            "0.0", "true", "0.0", n,
        )  # fmt: skip
        assert (line["sd_low"], line["share_low"]) == ("", "")
    _, table = seed_noise.build_tables(noise)
    shown = {row[0]: row[2:] for row in rows(table)}
    assert shown["dropout"] == ("0", "all 5 equal, weights too", "0%", NOTHING)
    assert shown["finetune-order"] == ("0", "all 5 equal", "0%", NOTHING)
    assert [note for note in table.notes if "nothing was drawn" in note] == [
        "dropout: all trials ended with the same weights, so nothing was drawn from it."
    ]
    assert table.notes[-1].startswith("Alone, dropout, finetune-order add up to 0% of the variance of all. ")
    axis = seed_noise.plot(noise).axes[1]
    assert sorted(text.get_text() for text in axis.texts) == ["all 5 equal", "all 5 equal, weights too", "n = 5"]
    # A whole without spread has no shares; nothing is divided by zero.
    flat = seed_noise.compute(swept(tmp_path / "flat", cell("all", SAME), cell("finetune-order", ORDER)))
    assert by_source(flat)["finetune-order"]["share_of_variance"] == ""
    assert "is not known: a spread is missing, or all has no spread" in seed_noise.build_tables(flat)[-1].notes[-1]
    seed_noise.plot(flat)


def test_what_is_missing_is_listed_and_the_sum_is_not_guessed(tmp_path):
    noise = seed_noise.compute(
        swept(tmp_path, cell("all", [*ALL[:4], None]), cell("finetune-order", [*ORDER[:2], None, ORDER[3], None]),
              cell("predictor-init", [0.3, None, None, None, None]))
    )  # fmt: skip
    line_of = by_source(noise)
    assert [line_of[name]["n"] for name in ("all", "finetune-order", "predictor-init")] == ["4", "3", "1"]
    assert float(line_of["finetune-order"]["sd_over_seeds"]) == pytest.approx(np.std([0.30, 0.31, 0.32], ddof=1))
    assert line_of["predictor-init"]["sd_over_seeds"] == line_of["predictor-init"]["sum_of_shares"] == ""
    table = seed_noise.build_tables(noise)[-1]
    assert table.notes[:3] == (
        "all is incomplete: failed at seed 4. Only 4 of 5 seeds have a number.",
        "finetune-order is incomplete: failed at seed 2, 4. Only 3 of 5 seeds have a number.",
        "predictor-init is incomplete: failed at seed 1, 2, 3, 4. Only 1 of 5 seeds have a number.",
    )
    assert rows(table)[-1] == ("predictor-init", "1", NOTHING, NOTHING, NOTHING, NOTHING)
    assert table.notes[-1].startswith("The sum of finetune-order, predictor-init is not known")
    assert "7 failed" in table.caption
    seed_noise.plot(noise)


def test_the_whole_is_the_cell_that_varies_most_and_only_single_sources_inside_it_add_up(tmp_path):
    cells = [cell("all", ALL), cell("data-split", INIT), cell("finetune-order", ORDER)]
    line_of = by_source(seed_noise.compute(swept(tmp_path / "all", *cells)))
    assert {name: line["is_added"] for name, line in line_of.items()} == {
        "all": "false", "data-split": "false", "finetune-order": "true",
    }  # fmt: skip
    assert line_of["data-split"]["share_of_variance"]
    wide = [0.2, 0.5, 0.3, 0.4, 0.1]
    noise = seed_noise.compute(swept(tmp_path / "everything", *cells, cell("everything", wide)))
    line_of = by_source(noise)
    assert {line["whole"] for line in line_of.values()} == {"everything"}
    assert {name for name, line in line_of.items() if line["is_added"] == "true"} == {"data-split", "finetune-order"}
    total = stats.variance_ratio([stats.sd_interval(INIT), stats.sd_interval(ORDER)], stats.sd_interval(wide))
    assert float(line_of["all"]["sum_of_shares"]) == pytest.approx(total.ratio)
    assert noise.tasks[0].base.levels["seed_varies"] == "all"
    assert "everything" in seed_noise.write_caption(noise)


def test_without_a_whole_there_are_spreads_and_no_shares(tmp_path):
    noise = seed_noise.compute(swept(tmp_path, cell("dropout", INIT), cell("finetune-order", ORDER)))
    table = seed_noise.build_tables(noise)[-1]
    assert table.head == ("seed_varies", "n", "sd", "95% interval")
    assert table.notes == (
        "No cell varies everything at once, so there are no shares. Add the level all to seed_varies.",
    )
    assert {line["whole"] for line in by_source(noise).values()} == {""}
    seed_noise.plot(noise)


def test_cells_are_compared_within_a_level_and_sources_within_a_cell(tmp_path):
    """Two proxies, each with two levels of ``seed_varies``: two cells to compare, and two groups."""
    cells = [cell("all", BASE, NONE), cell("finetune-order", ORDER, NONE), cell("all", BETTER, MNIST),
             cell("finetune-order", INIT, MNIST)]  # fmt: skip
    noise = seed_noise.compute(swept(tmp_path, *cells, factors=("proxy", "seed_varies")))
    assert [line["seed_varies"] for line in lines(seed_noise.numbers(noise))] == ["all", "all"]
    assert {line["n_comparisons"] for line in lines(seed_noise.numbers(noise))} == {"1"}
    groups = noise.tasks[0].sources
    assert [group.levels for group in groups] == [NONE, MNIST]
    assert [[source.varies for source in group.sources] for group in groups] == [["all", "finetune-order"]] * 2
    titles = [table.title for table in seed_noise.build_tables(noise)]
    assert titles[1:] == [f"digits: seed noise by source (proxy {name})" for name in ("none", "mnist5k")]
    assert len(seed_noise.plot(noise).axes) == 3
    other = seed_noise.compute(swept(tmp_path / "again", *cells, factors=("proxy", "seed_varies")),
                               base=["seed_varies=finetune-order"])  # fmt: skip
    assert [line["seed_varies"] for line in lines(seed_noise.numbers(other))] == ["finetune-order"] * 2
    with pytest.raises(InputError, match="no cell has that level of seed_varies. Levels: all, finetune-order"):
        seed_noise.compute(
            swept(tmp_path / "wrong", *cells, factors=("proxy", "seed_varies")), base=["seed_varies=order"]
        )


def test_a_sweep_that_does_not_vary_sources_shows_nothing_of_them(tmp_path):
    noise = seed_noise.compute(sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER)))
    assert noise.tasks[0].sources == ()
    assert seed_noise.source_numbers(noise).splitlines() == [",".join(noise_sources.COLUMNS)]
    assert len(seed_noise.build_tables(noise)) == len(seed_noise.plot(noise).axes) == 1


def test_rows_without_a_value_vary_all(tmp_path):
    results = swept(tmp_path, cell("all", ALL), cell("finetune-order", ORDER))
    trials = results.trials.assign(seed_varies=results.trials["seed_varies"].replace("all", None))
    assert pd.isna(trials["seed_varies"]).sum() == 5
    noise = seed_noise.compute(type(results)(**{**vars(results), "trials": trials}))
    assert list(by_source(noise)) == ["all", "finetune-order"]


# Simulation ---------------------------------------------------------------------------------------

SDS = {"finetune-order": 1.0, "dropout": 0.5, "predictor-init": 0.0}


def simulated(n, rng, paired, interaction=0.0):
    """Cells of an additive world: each source alone, and all at once, from the same draws or from different ones."""
    draws = {name: sd * rng.normal(size=n) for name, sd in SDS.items()}
    whole = draws if paired else {name: sd * rng.normal(size=n) for name, sd in SDS.items()}
    joint = whole["finetune-order"] * whole["dropout"] * interaction
    values = {"all": sum(whole.values()) + joint, **draws}
    return [
        cell_of(name, 5 + numbers)
        for name, numbers in values.items()
    ]  # fmt: skip


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, n_times = np.random.default_rng(0), 1500
    whole = math.sqrt(sum(sd**2 for sd in SDS.values()))
    held = {(paired, what): 0 for paired in (False, True) for what in ("sd", "share", "sum")}
    for paired in (False, True):
        for _ in range(n_times):
            (group,) = noise_sources.sources_of(simulated(5, rng, paired), {}, 0.95)
            sources = {source.varies: source for source in group.rest}
            order, share = sources["finetune-order"].spread, sources["dropout"].share
            held[paired, "sd"] += order.low <= 1.0 <= order.high
            held[paired, "share"] += share.low <= 0.25 / whole**2 <= share.high
            held[paired, "sum"] += group.total.low <= 1 <= group.total.high
            assert sources["predictor-init"].spread.is_zero
            assert sources["predictor-init"].share.ratio == 0
    rates = {key: count / n_times for key, count in held.items()}
    assert all(0.935 <= rates[False, what] <= 0.97 for what in ("sd", "share")), rates
    # Trials of the same seed are correlated: the interval of their share is too wide, never too narrow.
    assert all(rates[True, what] >= 0.94 for what in ("share", "sum")), rates
    assert rates[False, "sum"] >= 0.94, rates


@pytest.mark.parametrize(("interaction", "word"), [(0.0, "is not clear"), (6.0, "less than the whole")])
def test_sources_that_interact_are_distinguished_from_those_that_add_up(interaction, word):
    (group,) = noise_sources.sources_of(simulated(60, np.random.default_rng(1), False, interaction), {}, 0.95)
    assert word in source_table(group).notes[-1]


def test_a_sum_above_the_whole_says_so():
    cells = [
        cell_of("all", [0.1, -0.1] * 10),
        cell_of("dropout", [1.0, -1.0] * 10),
        cell_of("finetune-order", [1.0, -1.0] * 10),
    ]
    (group,) = noise_sources.sources_of(cells, {}, 0.95)
    assert "more than the whole. Sources interact" in source_table(group).notes[-1]


def source_table(group):
    return noise_sources.build_table(group, name="x", task="t", of="error", level=0.95)


def cell_of(name, values):
    return make_cell(enumerate(values), cell_id=name, labels={"seed_varies": name})


def test_a_figure_has_room_for_four_groups_of_a_task_and_says_how_many_more_there_are(tmp_path):
    proxies = [{"proxy": f"p{i}"} for i in range(6)]
    cells = [cell(level, values, proxy) for proxy in proxies for level, values in (("all", ALL), ("dropout", ORDER))]
    noise = seed_noise.compute(swept(tmp_path, *cells, factors=("proxy", "seed_varies")))
    made = seed_noise.plot(noise)
    assert len(made.axes) == 1 + 4
    assert "2 more groups of sources are only in the tables." in seed_noise.write_caption(noise)
    assert len(seed_noise.build_tables(noise)) == 1 + 6
