"""Combined tables with one piece of work in several cells: it is compared, counted, and paid for once."""

import math
from dataclasses import replace

import pytest

from orca_sweep.analysis import (
    cost,
    factor_effects,
    figure2_proxies,
    seed_noise,
    summary_over_tasks,
    table_effects,
    table_results,
)
from orca_sweep.analysis.compared import merge_equal_cells
from orca_sweep.analysis.report import compute
from orca_sweep.analysis.tables import describe_completeness, read_cells
from orca_sweep.errors import InputError
from orca_sweep.results import find_repeated_seeds
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, in_memory, lines

SPENT = {
    "wall_time_s": 36.0, "data_s": 1.0, "body_s": 2.0, "proxy_s": 3.0, "embedder_s": 4.0, "finetune_s": 20.0, "test_s": 1.0,
    "reused": "", "reused_s": 0.0, "resumed_from_epoch": 0, "device": "cpu", "n_threads": 2, "host": "h",
}  # fmt: skip


def repeat(rows, name, space="tuned"):
    """The same trials as those of another cell, in a cell of another space."""
    return [({**planned, "cell_id": name}, {**row, "space": space}) for planned, row in rows]


def make_suite(task="digits", n_tuned=5):
    """A naive and a trained cell, and a tuned cell beside each, which chose the same settings."""
    naive, trained = (
        cell_rows({"task": task, **levels}, values, **SPENT) for levels, values in ((NONE, BASE), (MNIST, BETTER))
    )
    candidates = cell_rows({"task": task, **NONE}, [0.1, 0.2], "search", first_seed=90, space="tuned", **SPENT)
    return [
        *naive[:3], *trained,
        *repeat(candidates, f"naive-{task}"), *repeat(naive[:n_tuned], f"naive-{task}"),
        *repeat(trained, f"trained-{task}"),
    ]  # fmt: skip


def test_equal_cells_are_judged_once_and_none_against_itself():
    results = in_memory(make_suite())
    effects = table_effects.compute(results)
    (row,) = effects.tasks[0].rows
    assert row.cell.labels == MNIST and row.verdict.n_contrasts == 1
    assert row.contrast.interval.n == 5, "the base has the seeds of the equal cell, too"
    assert row.contrast.interval.mean == pytest.approx(-0.10)
    assert row.p_holm == row.contrast.p_t
    (note,) = effects.notes
    assert note.startswith("Cells with the same trials are one cell in comparisons: naive-digits of tuned is ")
    assert "trained-digits of tuned is " in note
    assert effects.tasks[0].base.n_searched == 0
    named = table_effects.compute(results, ["proxy=mnist5k"])
    assert [row.cell.labels for row in named.tasks[0].rows] == [NONE]


def test_cells_that_share_no_trial_stay_apart():
    results = in_memory([*cell_rows(NONE, BASE), *cell_rows(MNIST, BASE)])
    assert merge_equal_cells(results) is results
    assert len(table_effects.compute(results).tasks[0].rows) == 1


def test_cells_are_equal_through_a_third_in_any_order():
    naive = cell_rows(NONE, BASE)
    rows = [*repeat(naive[:1], "c"), *repeat(naive[1:2], "b"), *repeat(naive[:2], "a"), *cell_rows(MNIST, BETTER)]
    merged = merge_equal_cells(in_memory(rows))
    assert list(merged.trials["cell_id"])[:2] == ["c", "c"] and len(merged.trials) == 2 + len(BETTER)
    assert not list(find_repeated_seeds(merged)) and merge_equal_cells(merged) is merged


def test_the_noise_of_an_equal_cell_is_that_of_the_first():
    naive, trained = cell_rows(NONE, BASE), cell_rows(MNIST, BETTER)
    repeats = repeat(cell_rows(NONE, BETTER, "aa", first_seed=50), "later-aa")
    results = in_memory([*naive, *trained, *repeat(naive, "later"), *repeats])
    assert table_effects.compute(results).tasks[0].margin.kind == "noise"


def test_every_comparison_has_equal_cells_once():
    results = in_memory([*make_suite("digits"), *make_suite("vowels")], factors=("task", "proxy"))
    summary = summary_over_tasks.compute(results)
    assert [row.cell.labels for row in summary.rows] == [MNIST] and len(summary.notes) == 1
    factors = factor_effects.compute(results)
    assert {task.task: len(task.design.cells) for task in factors.tasks} == {"digits": 2, "vowels": 2}
    assert len(figure2_proxies.compute(results).panels) == 2
    report = compute(results)
    assert [len(task.lines) for task in report.tasks] == [1, 1]
    assert [note for note in report.notes if note.startswith("Cells with the same trials")]
    assert report.head.state == "20 of 20 planned trials are ok"
    assert len(table_results.compute(results).tasks[0].cells) == 4, "means of all cells stay"


def test_a_trial_of_two_cells_counts_once_in_what_is_ok():
    results = in_memory(make_suite())
    cells = read_cells(results)
    assert describe_completeness(cells) == "10 of 10 planned trials are ok."
    assert [len(cell.trials) for cell in cells] == [3, 5, 5, 5]


def total(results):
    return {row["trials"]: row for row in lines(cost.total_numbers(cost.compute(results)))}


def test_a_trial_of_two_cells_is_paid_for_once():
    results = in_memory(make_suite())
    whole = total(results)
    assert [int(whole[kind]["n"]) for kind in ("ok", "failed", "search", "all")] == [10, 0, 2, 12]
    assert float(whole["all"]["hours"]) == pytest.approx(0.12)
    assert float(whole["all"]["cpu_hours"]) == pytest.approx(0.24)
    assert float(whole["all"]["reused_hours"]) == 0
    of = cost.compute(results)
    assert of.devices == {"cpu, 2 threads": 12}
    cells = {cell_cost.cell.cell_id: cell_cost.ok for cell_cost in of.cells}
    assert (cells["trained-digits"].wall_s, cells["trained-digits"].reused_s) == (0, 180)
    assert math.fsum(spent.wall_s for spent in cells.values()) == of.ok.wall_s


def test_the_row_of_the_space_that_ran_a_trial_counts():
    taken, ran = cell_rows(NONE, BASE, taken_from="tuned", **SPENT), cell_rows(NONE, BASE, taken_from=None, **SPENT)
    whole = total(in_memory([*taken, *repeat(ran, "later")]))
    assert float(whole["all"]["hours"]) == pytest.approx(0.05) and int(whole["all"]["n"]) == 5
    outside = in_memory(taken)
    assert float(total(outside)["all"]["hours"]) == 0


def test_a_figure_of_tuned_and_untuned_cells_says_how_to_draw_each_space():
    plain = cell_rows({**NONE, "finetune.lr": 0.1}, BASE, space="plain")
    tuned = cell_rows({**NONE, "finetune.lr": 0.2}, BETTER, space="tuned")
    candidates = repeat(cell_rows({**NONE, "finetune.lr": 0.3}, [0.1], "search", 90), tuned[0][0]["cell_id"])
    results = replace(in_memory([*plain, *tuned, *candidates]), spaces=("plain", "tuned"), questions=("?", "?"))
    with pytest.raises(InputError) as caught:
        figure2_proxies.compute(results)
    (text,) = map(str, caught.value.problems)
    assert (
        "have the same levels (proxy none): they differ in what is not a factor (finetune.lr), and one of them is tuned."
        in text
    )
    assert "'orca-sweep analyse FIGURE SUITE/plain' (spaces: plain, tuned)" in text


def test_equal_cells_alone_are_nothing_to_compare():
    naive = cell_rows(NONE, BASE, **SPENT)
    results = in_memory([*naive, *repeat(naive, "later")])
    report = compute(results)
    assert report.effects is None and report.notes
    with pytest.raises(InputError, match=r"only one cell.*Cells with the same trials are one cell"):
        table_effects.compute(results)


def test_the_noise_of_equal_cells_counts_once():
    noise = seed_noise.compute(in_memory(make_suite()))
    (task,) = noise.tasks
    assert [spread.cell.labels for spread in task.spreads] == [NONE, MNIST]
    plain = [*cell_rows(NONE, BASE), *cell_rows(MNIST, BETTER)]
    alone = seed_noise.compute(in_memory(plain)).tasks[0]
    assert [spread.interval.sd for spread in task.spreads] == [spread.interval.sd for spread in alone.spreads]
    assert task.spreads[1].seeds_holm == alone.spreads[1].seeds_holm
    assert any("one cell in comparisons" in note for note in noise.notes)


def test_cells_that_share_the_trial_of_seed_0_and_vary_other_things_stay_apart():
    varied = [
        cell_rows({**NONE, "seed_varies": level}, values) for level, values in (("all", BASE), ("dropout", BETTER))
    ]
    same = varied[0][0][0]["trial_id"]
    planned, row = varied[1][0]
    varied[1][0] = ({**planned, "trial_id": same}, row)
    results = in_memory([*varied[0], *varied[1]], factors=("proxy", "seed_varies"))
    assert merge_equal_cells(results) is results
    (group,) = seed_noise.compute(results).tasks[0].sources
    assert [source.varies for source in group.sources] == ["all", "dropout"]
