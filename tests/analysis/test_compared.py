"""Cells whose seed varies something else are left out of comparisons, in every analysis, and the notes say so."""

from dataclasses import replace

import pytest

from orca_sweep import results as r
from orca_sweep.analysis import (
    claims,
    factor_effects,
    figure2_proxies,
    figures,
    flattery,
    seed_noise,
    summary_over_tasks,
    table_effects,
    table_results,
)
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.report import compute, draw, page
from orca_sweep.analysis.report.record import Additions
from orca_sweep.errors import InputError
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, lines, sweep

ORDER = {"seed_varies": "finetune-order"}
LEFT_OUT = "2 cells are left out: they have seed_varies finetune-order and the base cell has"


def both(folder, tasks=("digits",)):
    """Two proxies, each at two levels of ``seed_varies``; on several tasks, if asked for."""
    cells = []
    for levels, values in ((NONE, BASE), (MNIST, BETTER)):
        for varies in ({"seed_varies": "all"}, ORDER):
            cells += [cell_rows({"task": task, **levels, **varies}, values, val_metric_best=0.3, test_metric_last=0.4)
                      for task in tasks]  # fmt: skip
    factors = ("proxy", "seed_varies", *["task"] * (len(tasks) > 1))
    return sweep(folder, *cells, factors=factors)


def notes(tables):
    return " ".join(note for table in tables for note in table.notes)


def test_what_is_compared_is_what_the_base_varies(tmp_path):
    whole = both(tmp_path)
    kept = compared(whole)
    assert set(kept.trials["seed_varies"]) == {"all"} and len(kept.trials) == 10
    assert [note.partition(" all, so")[0] for note in kept.notes] == [LEFT_OUT]
    assert compared(kept) is kept
    assert set(compared(whole, ["seed_varies=finetune-order"]).trials["seed_varies"]) == {"finetune-order"}
    assert set(compared(whole, without=["seed_varies=all"]).trials["seed_varies"]) == {"finetune-order"}
    assert compared(whole, ["seed_varies=order"]) is whole  # what reads names refuses it, with all levels


def test_rows_that_do_not_say_vary_all(tmp_path):
    whole = both(tmp_path)
    older = replace(whole, trials=whole.trials.assign(seed_varies=whole.trials["seed_varies"].replace("all", None)))
    assert len(compared(older).trials) == 10 and LEFT_OUT in compared(older).notes[0]
    before = replace(whole, trials=whole.trials.drop(columns="seed_varies"))
    assert compared(before) is before


def test_a_base_that_is_there_under_another_level_alone_takes_that_level(tmp_path):
    whole = sweep(
        tmp_path, cell_rows({**NONE, "seed_varies": "all"}, BASE), cell_rows({**MNIST, **ORDER}, BETTER),
        cell_rows({**NONE, **ORDER}, BASE),
        factors=("proxy", "seed_varies"),
    )  # fmt: skip
    effects = table_effects.compute(whole, ["proxy=mnist5k"])
    assert effects.tasks[0].base.labels == {**MNIST, **ORDER}
    assert [row.cell.labels for row in effects.tasks[0].rows] == [{**NONE, **ORDER}]


def test_no_script_compares_means_across_what_the_seed_varies(tmp_path):
    whole = both(tmp_path)
    effects = table_effects.compute(whole)
    assert [row.cell.labels for row in effects.tasks[0].rows] == [{**MNIST, "seed_varies": "all"}]
    assert effects.tasks[0].rows[0].verdict.n_contrasts == 1
    results = table_results.compute(whole)
    assert {line["seed_varies"] for line in lines(table_results.numbers(results))} == {"all"}
    factors = factor_effects.compute(whole)
    assert factors.tasks[0].effects == (("proxy",),)
    other = factor_effects.compute(whole, ["seed_varies=all"])
    assert other.tasks[0].held == {"seed_varies": "finetune-order"}
    flattered = flattery.compute(whole)
    assert {choice.kind: choice.of for choice in flattered.tasks[0].choices}["cell"].startswith("choice among 2 cells")
    judged = claims.compute(whole, claims.Options(margin=["0.01"]))
    records = {
        table_effects: effects,
        table_results: results,
        factor_effects: factors,
        flattery: flattered,
        claims: judged,
    }
    for script, record in records.items():
        assert LEFT_OUT in notes(script.build_tables(record)), script.NAME


def test_over_tasks_and_in_figures_too(tmp_path):
    whole = both(tmp_path / "two", ("digits", "other"))
    summary = summary_over_tasks.compute(whole)
    assert [row.cell.labels for row in summary.rows] == [{**MNIST, "seed_varies": "all"}]
    assert "4 cells are left out" in notes(summary_over_tasks.build_tables(summary))
    figure = figure2_proxies.compute(both(tmp_path / "one"))
    assert {line.level for panel in figure.panels for line in panel.lines} == {"none", "mnist5k"}
    assert [panel.title for panel in figure.panels] == ["digits, seed_varies all"]
    assert LEFT_OUT in figures.write_notes(figure.facts, 1)


def test_a_sweep_that_varies_nothing_else_has_nothing_to_compare_and_its_report_shows_the_spreads(tmp_path):
    whole = sweep(tmp_path, cell_rows({"seed_varies": "all"}, BASE), cell_rows(ORDER, BETTER), factors=("seed_varies",))
    with pytest.raises(InputError, match="nothing to compare.* 1 cell is left out"):
        table_effects.compute(whole)
    noise = seed_noise.build_source_tables(seed_noise.compute(whole))
    assert compute(whole, ["seed_varies=finetune-order"], ["0.01"]).effects is None
    with pytest.raises(InputError, match="no cell has that level of seed_varies. Levels: all, finetune-order"):
        compute(whole, ["seed_varies=order"])
    report = compute(whole, additions=Additions(noise=noise))
    assert [len(task.cells) for task in report.table.tasks] == [1]
    assert [len(matrix.rows) for matrix in report.matrices] == [2]  # what was run is shown whole
    text = page(report, draw(compared(whole), report.effects, ()))
    assert "1 cell is left out" in " ".join(report.methods) and "1 cell is left out" in text
    assert "seed noise by source" in text


def test_sweeps_collected_together_are_told_apart_where_it_is_no_factor(tmp_path):
    for name, cells in (
        ("a", cell_rows(NONE, BASE, **{"seed_varies": "all"})),
        ("b", cell_rows(MNIST, BETTER, **ORDER)),
    ):
        cells = [
            ({**planned, "config": {**planned["config"], "seed_varies": row["seed_varies"]}}, row)
            for planned, row in cells
        ]
        sweep(tmp_path, cells, name=name)
    merged = r.collect([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.factors == ("proxy",)
    assert [spread.cell.labels["proxy"] for spread in seed_noise.compute(merged).tasks[0].spreads] == ["none"]
    with pytest.raises(InputError, match="1 cell is left out"):
        table_effects.compute(merged)
