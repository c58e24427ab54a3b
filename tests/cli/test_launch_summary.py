"""The summary that a launch prints: digits that fit their interval, and intervals within the bounds of the metric."""

import io
from dataclasses import replace

from rich.console import Console

from orca_sweep.cli.summary import _print_cells
from tests.builders.tables import MNIST, NONE, cell_rows, sweep


def print_cells(results):
    console = Console(file=io.StringIO(), width=120)
    _print_cells(results, console)
    return console.file.getvalue()


def test_numbers_have_the_digits_that_their_interval_supports_in_each_task(tmp_path):
    parts = [
        cell_rows({"task": task, **levels}, [scale * value for value in values])
        for task, scale in (("digits", 1.0), ("tiny", 1e-7), ("huge", 1e7))
        for levels, values in ((NONE, [0.30, 0.34, 0.32]), (MNIST, [0.20]))
    ]
    text = print_cells(sweep(tmp_path, *parts, factors=("task", "proxy")))
    for words in ("0.320 ", "[0.270, 0.370]", "0.200 ", "3.20e-8", "[2.70e-8, 3.70e-8]", "3.20e6", "[2.70e6, 3.70e6]"):
        assert words in text, words
    assert text.isascii()


def test_bounded_intervals_are_printed_within_their_bounds_and_say_so(tmp_path):
    results = sweep(tmp_path, cell_rows(NONE, [0.004, 0.001, 0.009]))
    assert "[-0.005" in print_cells(results) and "logit" not in print_cells(results)
    bounded = replace(results, trials=results.trials.assign(metric_low=0.0, metric_high=1.0))
    text = print_cells(bounded)
    assert "[0.001, 0.039]" in text
    assert "Intervals of means are computed on the logit scale, so they stay between 0 and 1." in text


def test_a_cell_that_no_search_tuned_says_so_beside_one_that_was_tuned_to_the_same_rate(tmp_path):
    rate = {"finetune.lr": 1e-3}
    parts = [
        cell_rows({**NONE, **rate}, [0.30, 0.34, 0.32]),
        cell_rows({**MNIST, **rate}, [0.20, 0.21, 0.22]),
        cell_rows({**MNIST, **rate}, [0.25], "search", 9),
        cell_rows({**MNIST, **rate}, [0.23, 0.24], "aa", 5),
    ]
    results = replace(sweep(tmp_path, *parts), tuned=("finetune.lr",))
    fixed, tuned, again = (line for line in print_cells(results).splitlines() if "0.001" in line)
    assert "0.001 (fixed)" in fixed
    assert "fixed" not in tuned + again
    assert "with 1 trial on other seeds" in print_cells(results)
