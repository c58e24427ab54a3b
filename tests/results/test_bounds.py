"""Bounds of metrics: from the record of a metric through rows and tables to the intervals of means."""

import math
from dataclasses import replace

import pytest

from orca_sweep import results as r
from orca_sweep.analysis import figure2_proxies, figure5_pretraining, figures, table_effects, table_results
from orca_sweep.analysis.tables import describe_scales
from orca_sweep.errors import InputError
from orca_sweep.stats import UNBOUNDED, Bounds, t_interval
from orca_sweep.tasks import TASKS, describe_metric
from tests.builders.reports import cell_rows_with_curves, made_page, sweep_folder
from tests.builders.tables import MNIST, NONE, cell_rows, collected, lines, rows, sweep, trial

SMALL = [0.004, 0.001, 0.009]
SHARE = {"metric_low": 0.0, "metric_high": 1.0}


def test_a_task_describes_the_bounds_of_its_metric():
    facts = describe_metric(TASKS.get("digits"))
    assert (facts["metric"], facts["metric_low"], facts["metric_high"]) == ("error", 0, 1)
    facts = describe_metric(TASKS.get("darcy-generated"))
    assert (facts["metric_low"], facts["metric_high"]) == (0, None)


def test_intervals_of_means_stay_inside_and_differences_stay_as_they_are(tmp_path):
    plain = sweep(tmp_path / "plain", cell_rows(NONE, SMALL), cell_rows(MNIST, [0.0, 0.0, 0.006]))
    bounded = sweep(tmp_path / "bounded", cell_rows(NONE, SMALL, **SHARE), cell_rows(MNIST, [0.0, 0.0, 0.006], **SHARE))
    old, new = (lines(table_results.numbers(table_results.compute(results))) for results in (plain, bounded))
    assert float(old[0]["low"]) < 0 and float(old[1]["low"]) < 0
    assert all(0 < float(line["low"]) < float(line["mean"]) < float(line["high"]) < 1 for line in new)
    assert new[0]["interval"].endswith("computed on the logit scale so that it stays between 0 and 1")
    (table,) = table_results.build_tables(table_results.compute(bounded))
    assert "logit scale" in table.caption and "\u2212" not in rows(table)[0][3]
    differences = [table_effects.numbers(table_effects.compute(results)) for results in (plain, bounded)]
    assert differences[0] == differences[1]


def test_figures_draw_bounded_intervals(tmp_path):
    results = sweep_folder(
        tmp_path, cell_rows_with_curves(NONE, SMALL, **SHARE), cell_rows_with_curves(MNIST, SMALL, **SHARE),
    )  # fmt: skip
    epochs = results.epochs
    epochs.loc[epochs["stage"] == "finetune", "val_metric"] /= 200  # close to zero
    figure = figure2_proxies.compute(results)
    lows = [i.low for curves in figure.curves for curve in curves for i in (*curve.intervals, curve.cell.interval)]
    assert len(lows) == 10 and min(lows) > 0
    notes = figures.write_notes(figure.facts, 1)
    assert "Intervals of means are computed on the logit scale, so they stay between 0 and 1." in notes
    levels = [{"body.pretrain_fraction": 1.0, "body.pretrain_seed": seed} for seed in range(3)]
    trials = [trial(of, 0, value, **SHARE) for of, value in zip(levels, SMALL, strict=True)]
    merged = figure5_pretraining.compute(collected(tmp_path / "five", trials, tuple(levels[0])))
    (cell,) = merged.panels[0].lines[0].cells
    assert cell.interval == t_interval(SMALL, bounds=Bounds(low=0, high=1))


def test_the_page_says_on_which_scale_its_intervals_are(tmp_path):
    plain = sweep_folder(tmp_path / "plain", cell_rows(NONE, SMALL))
    bounded = sweep_folder(tmp_path / "bounded", cell_rows(NONE, SMALL, **SHARE))
    sentence = "Intervals of means are computed on the logit scale, so they stay between 0 and 1."
    assert sentence in made_page(bounded) and "logit scale" not in made_page(plain)
    assert '"bounds":{"digits":[0.0,1.0]}' in made_page(bounded) and '"bounds":{}' in made_page(plain)


def test_tables_without_bounds_are_unbounded_and_old_rows_beside_new_ones_are_no_other_metric(tmp_path):
    (cell, *_) = r.summarise_cells(sweep(tmp_path / "old", cell_rows(NONE, SMALL)))
    assert (cell.bounds, cell.interval) == (UNBOUNDED, t_interval(SMALL))
    results = sweep(tmp_path / "none", cell_rows(NONE, SMALL))
    older = replace(results, trials=results.trials.drop(columns=["metric_low", "metric_high"]))
    assert r.summarise_cells(older)[0].interval == t_interval(SMALL)
    mixed = sweep(tmp_path / "mixed", cell_rows(NONE, SMALL), cell_rows(MNIST, SMALL, **SHARE))
    assert {cell.bounds for cell in r.summarise_cells(mixed)} == {Bounds(low=0, high=1)}


def test_values_beyond_the_bounds_and_two_bounds_of_one_metric_are_refused_in_words(tmp_path):
    beyond = sweep(tmp_path / "beyond", cell_rows(NONE, [0.5, 1.5], **SHARE))
    with pytest.raises(
        InputError, match=r"digits: trial \w+ has test_metric_best 1\.5, but its metric error lies between 0"
    ):
        r.summarise_cells(beyond)
    two = sweep(tmp_path / "two", cell_rows(NONE, SMALL, **SHARE), cell_rows(MNIST, SMALL, metric_low=0.0))
    with pytest.raises(InputError, match="its rows state different bounds of error"):
        r.summarise_cells(two)


def test_the_scales_of_several_tasks_are_told_apart():
    both = {"digits": Bounds(low=0, high=1), "darcy": Bounds(low=0), "own": UNBOUNDED}
    assert describe_scales(both) == (
        "Intervals of means are computed on the logit scale, so they stay between 0 and 1 (digits) and on the log scale, so"
        " they stay above 0 (darcy)."
    )
    assert describe_scales({"own": UNBOUNDED}) == "" and math.isinf(UNBOUNDED.high)
