"""How much choosing on test would flatter, on tables whose numbers are computed by hand."""

import csv
import io
import math
from pathlib import Path

import pytest

from orca_sweep import results as r
from orca_sweep.analysis import flattery
from orca_sweep.analysis.catalogue import write_analysis
from orca_sweep.analysis.writing import NOTHING
from orca_sweep.errors import InputError
from orca_sweep.space.manifest import write_manifest
from tests.builders.in_process import run_here as orca
from tests.builders.manifests import sweep_manifest
from tests.builders.tables import MNIST, NONE, collected, trial

REPO = Path(__file__).resolve().parents[2]
DUMMY = {"proxy": "dummy"}


def cell(levels, rows, task="digits", first_seed=0, **more):
    """Trials of a cell: validation, test at the best-validated epoch, test at the last epoch; None is a failed trial."""
    names = ("val_metric_best", "test_metric_best", "test_metric_last")
    made = []
    for seed, row in enumerate(rows, first_seed):
        values = dict(zip(names, row or (None, None, None), strict=True))
        made.append(trial({"task": task, **levels}, seed, **values, status="ok" if row else "failed", **more))
    return made


def sweep(folder, *parts, **more):
    return collected(folder, [choice for part in parts for choice in part], **more)


# Validation prefers none (0.20 against 0.22), test prefers mnist5k (0.27 against 0.30).
WORLD = (
    cell(NONE, [(0.18, 0.28, 0.26), (0.22, 0.30, 0.31), (0.20, 0.32, 0.32)]),
    cell(MNIST, [(0.21, 0.26, 0.27), (0.22, 0.27, 0.24), (0.23, 0.28, 0.28)]),
)


def choices(results):
    (task,) = flattery.compute(results).tasks
    return {choice.kind: choice for choice in task.choices}


def test_the_epoch_is_the_better_of_the_two_that_are_scored(tmp_path):
    epoch = choices(sweep(tmp_path, *WORLD))["epoch"]
    # 0.02, 0, 0 and 0, 0.03, 0: by seed 0.01, 0.015, 0, whose mean is 0.025 / 3.
    assert epoch.flattery == pytest.approx(0.025 / 3)
    assert (epoch.n, epoch.interval.n) == (6, 3)
    assert epoch.largest == pytest.approx(0.03)
    sd = math.sqrt(((0.01 - 0.025 / 3) ** 2 + (0.015 - 0.025 / 3) ** 2 + (0.025 / 3) ** 2) / 2)
    # Never below zero, so on the log scale: the mean times exp(t se / mean).
    shift = 4.302653 * sd / math.sqrt(3) / epoch.flattery
    assert epoch.interval.high == pytest.approx(epoch.flattery * math.exp(shift), rel=1e-4)
    assert epoch.interval.low == pytest.approx(epoch.flattery * math.exp(-shift), rel=1e-4)
    assert epoch.note == ""


def test_the_cell_is_chosen_by_means_and_its_interval_is_paired(tmp_path):
    record = choices(sweep(tmp_path, *WORLD))["cell"]
    assert (record.by_validation, record.by_test) == ("proxy none", "proxy mnist5k")
    assert record.flattery == pytest.approx(0.03)  # 0.30 - 0.27
    # The differences are 0.02, 0.03, 0.04: standard deviation 0.01, t(0.975, 2) = 4.302653.
    assert record.interval.high == pytest.approx(0.03 + 4.302653 * 0.01 / math.sqrt(3), rel=1e-5)
    assert (record.interval.n, record.n, record.of) == (3, 1, "choice among 2 cells by their means over seeds")


def test_where_test_would_have_chosen_the_same_nothing_is_flattered(tmp_path):
    better = cell(MNIST, [(0.1, 0.2, 0.2), (0.1, 0.3, 0.3), (0.1, 0.2, 0.2)])
    results = sweep(tmp_path, WORLD[0], better)
    record = choices(results)["cell"]
    assert (record.flattery, record.interval.n) == (0.0, 0)
    notes = flattery.build_tables(flattery.compute(results))[0].notes
    assert "digits, cell: validation chose proxy mnist5k; test would choose the same." in notes


def test_the_seed_is_chosen_within_each_cell(tmp_path):
    record = choices(sweep(tmp_path, *WORLD))["seed"]
    # none: validation takes seed 0, which is also the best on test; so does mnist5k. In another cell it takes the worst.
    assert (record.flattery, record.n, record.interval.n) == (0.0, 2, 0)
    odd = cell(DUMMY, [(0.1, 0.5, 0.5), (0.2, 0.4, 0.4), (0.3, 0.3, 0.3)])
    record = choices(sweep(tmp_path / "b", *WORLD, odd))["seed"]
    assert (record.flattery, record.n, record.largest) == (pytest.approx(0.2 / 3), 3, pytest.approx(0.2))


def test_candidates_are_compared_within_their_cell(tmp_path):
    def candidate(levels, lr, seed, val, test):
        names = {"val_metric_best": val, "test_metric_best": test, "test_metric_last": test}
        return trial(levels, seed, role="search", status="ok", **names, **{"finetune.lr": lr})

    # none: by means over two seeds validation takes 0.2 (0.15 against 0.2), test 0.1 (0.3 against 0.4).
    searched = [candidate(NONE, lr, s, v, t) for lr, s, v, t in (
        (0.1, 8, 0.2, 0.2), (0.1, 9, 0.2, 0.4), (0.2, 8, 0.1, 0.4), (0.2, 9, 0.2, 0.4), (0.3, 8, 0.0, 0.0)
    )]  # fmt: skip
    # mnist5k: both take 0.2.
    searched += [candidate(MNIST, lr, 8, v, t) for lr, v, t in ((0.1, 0.2, 0.2), (0.2, 0.1, 0.1))]
    runs = [cell(levels, [(0.1, 0.2, 0.2)] * 2, **{"finetune.lr": 0.2}) for levels in (NONE, MNIST)]
    results = sweep(tmp_path, searched, *runs, tune={"finetune.lr": []})
    record = choices(results)["candidate"]
    assert (record.flattery, record.n, record.largest) == (pytest.approx(0.05), 2, pytest.approx(0.1))
    assert record.note == "left out: 1 candidate that lacks a result (pruned, failed or not run)"
    ended = [trial(MNIST, 8, role="search", status="pruned", val_metric_best=0.05, **{"finetune.lr": 0.3}),
             trial(MNIST, 8, role="search", **{"finetune.lr": 0.4})]  # fmt: skip
    with_pruned = choices(sweep(tmp_path / "pruned", searched, ended, *runs, tune={"finetune.lr": []}))["candidate"]
    assert with_pruned.note == "left out: 3 candidates that lack a result (pruned, failed or not run)"
    assert (with_pruned.flattery, with_pruned.n) == (record.flattery, record.n)
    assert record.interval.n == 0
    assert choices(results)["epoch"].n == 4  # candidates are not replicates
    none = sweep(tmp_path / "b", searched[:2], *runs, tune={"finetune.lr": []})
    assert choices(none)["candidate"].note == "no number, since no tuned cell has two ok candidates"
    assert "candidate" not in choices(sweep(tmp_path / "c", *WORLD))


def test_what_is_not_whole_is_left_out_and_named(tmp_path):
    broken = cell(DUMMY, [(0.0, 0.0, 0.0), None, (0.0, 0.0, 0.0)])
    lone = cell({"proxy": "photo-patches"}, [(0.1, 0.1, 0.1)])
    results = sweep(tmp_path, *WORLD, broken, lone)
    record = choices(results)
    assert record["cell"].note == "left out, since they lack results: proxy dummy (seed 1)"
    assert record["cell"].of == "choice among 3 cells by their means over seeds"
    assert (record["cell"].by_validation, record["cell"].by_test) == ("proxy photo-patches",) * 2
    assert record["seed"].note == "left out: 1 cell with fewer than two ok seeds"
    assert record["epoch"].note == (
        "seeds have different numbers of ok cells, and each counts once: 0 (4), 1 (2), 2 (3)"
    )
    assert record["epoch"].flattery == pytest.approx((0.02 / 4 + 0.03 / 2 + 0) / 3)
    text = flattery.build_tables(flattery.compute(results))[0]
    assert "9 of 10 planned trials are ok; the rest: 1 failed." in text.caption
    assert f"digits, cell: {record['cell'].note}." in text.notes


def test_cells_of_different_seeds_have_a_difference_and_no_paired_interval(tmp_path):
    other = cell(MNIST, [(0.3, 0.2, 0.2), (0.3, 0.2, 0.2)], first_seed=5)
    record = choices(sweep(tmp_path, WORLD[0], other))["cell"]
    assert (record.flattery, record.interval.n) == (pytest.approx(0.1), 0)


def test_a_table_with_nothing_to_choose_from_says_so(tmp_path):
    record = choices(sweep(tmp_path, cell(NONE, [None])))
    assert [choice.note for choice in record.values()] == [
        "no number, since no replicate is ok",
        "no number, since fewer than two cells have all results; left out, since they lack results: proxy none (seed 0)",
        "no number, since no cell has two ok seeds",
    ]
    results = r.read_results(tmp_path / "tables")
    (table,) = flattery.build_tables(flattery.compute(results))
    assert [row[2:6] for row in table.blocks[0]] == [(NOTHING, NOTHING, NOTHING, "0")] * 3
    figure = flattery.plot(flattery.compute(results))
    assert figure.axes[0].texts[0].get_text().replace("\n", " ") == "no number, since no replicate is ok"
    figure.savefig(io.BytesIO())


def test_the_aa_cell_is_not_a_choice(tmp_path):
    again = [trial(NONE, s, role="aa", status="ok", val_metric_best=0.0, test_metric_best=0.0, test_metric_last=9.0)
             for s in (7, 8)]  # fmt: skip
    plain, record = (choices(sweep(tmp_path / name, *WORLD, *more)) for name, more in (("a", ()), ("b", (again,))))
    assert plain == record


def test_each_task_has_its_own_unit(tmp_path):
    other = [(10 * v, 10 * t, 10 * last) for v, t, last in ((0.1, 0.2, 0.1), (0.1, 0.4, 0.4))]
    results = sweep(tmp_path, *WORLD, cell(NONE, other, task="darcy", metric="mse"), factors=("task", "proxy"))
    record = flattery.compute(results)
    assert [(task.task, task.metric) for task in record.tasks] == [("digits", "error"), ("darcy", "mse")]
    assert record.tasks[1].choices[0].flattery == pytest.approx(0.5)
    assert "(digits: error, lower is better; darcy: mse, lower is better)" in flattery.build_tables(record)[0].caption
    assert [axis.get_xlabel() for axis in flattery.plot(record).axes] == ["flattery (error)", "flattery (mse)"]


# Who has seen what --------------------------------------------------------------------------------


def test_sealed_tables_are_refused_with_a_message_and_code_2(tmp_path):
    trials = [choice for part in WORLD for choice in part]
    for planned, row in trials:
        r.write_record(tmp_path / "s", {**row, "trial_id": planned["trial_id"], "cell_id": planned["cell_id"]}, [])
    write_manifest(tmp_path / "s", sweep_manifest(factors=["proxy"], trials=[planned for planned, _ in trials]))
    with pytest.raises(InputError, match="the test metrics of 6 ok trials are sealed"):
        flattery.compute(r.collect([tmp_path / "s"], tmp_path / "t"))
    done = orca("analyse", "flattery", tmp_path / "t", "--out", tmp_path / "out", check=2)
    assert "orca-sweep reveal SWEEP_FOLDER" in done.stderr
    assert not (tmp_path / "out").exists()
    r.reveal(tmp_path / "s")
    assert len(choices(r.collect([tmp_path / "s"], tmp_path / "t"))) == 3


def test_trials_that_began_after_a_reveal_are_counted(tmp_path):
    early, late = "2000-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00"
    seen = cell(DUMMY, [(0.1, 0.5, 0.5)] * 3, started_at=late)
    unseen = [cell(NONE, [(0.2, 0.3, 0.3)] * 3, started_at=early), cell(MNIST, [(0.1, 0.2, 0.2)])]
    record = flattery.compute(sweep(tmp_path, *unseen, seen))
    assert (record.n_after, record.n_trials) == (3, 6)
    caption = flattery.build_tables(record)[0].caption
    assert (
        "3 of 6 trials began after test metrics of their sweep were revealed; whoever ran them could have seen"
        in caption
    )
    (note,) = [note for note in flattery.build_tables(record)[0].notes if note.startswith("Revealed: s, ")]
    assert note.endswith(", 7 trials.")
    clean = flattery.describe_looks(flattery.compute(sweep(tmp_path / "b", unseen[0])))
    assert clean == "0 of 3 trials began after test metrics of their sweep were revealed."
    silent = flattery.compute(sweep(tmp_path / "c", *WORLD))
    assert (
        flattery.describe_looks(silent) == "The tables do not say whether trials began after a reveal of test metrics."
    )


# What is written ----------------------------------------------------------------------------------


def test_the_csv_has_a_line_per_choice(tmp_path):
    record = flattery.compute(sweep(tmp_path, *WORLD))
    epoch, cell_, seed = csv.DictReader(io.StringIO(flattery.numbers(record)))
    assert (epoch["choice"], epoch["n"], epoch["n_seeds"]) == ("epoch", "6", "3")
    assert epoch["interval"] == (
        "95% Student-t interval of the mean over n_seeds, computed on the log scale so that it stays above 0"
    )
    assert (cell_["by_validation"], cell_["by_test"]) == ("proxy none", "proxy mnist5k")
    assert float(cell_["flattery"]) == pytest.approx(0.03)
    assert (seed["n_seeds"], seed["interval"], seed["low"]) == ("", "", "")


def test_the_table_and_the_figure_say_what_n_counts(tmp_path):
    record = flattery.compute(sweep(tmp_path, *WORLD))
    (table,) = flattery.build_tables(record)
    assert table.blocks[0][1][:3] == ("digits", "cell", "0.0300")
    assert table.blocks[0][2] == (
        "digits",
        "seed",
        "0.0000",
        NOTHING,
        NOTHING,
        "2",
        "0.0000",
        "cells, each from its seeds",
    )
    assert "Epoch: a lower bound, since test is scored only at the best-validated and the last epoch" in table.caption
    (axis,) = flattery.plot(record).axes
    assert [text.get_text().replace("\n", " ") for text in axis.texts] == [
        "0.00833 (n = 6 ok replicates, 3 seeds)",
        "0.03 (n = 1 choice among 2 cells, 3 seeds)",
        "0 (n = 2 cells)",
    ]


def test_it_is_written_the_same_again(tmp_path):
    results = sweep(tmp_path, *WORLD)
    for out in "ab":
        write_analysis(tmp_path / out, "flattery", results)
    names = {path.name for path in (tmp_path / "a").glob("[!.]*")}
    assert names == {f"flattery.{kind}" for kind in ("csv", "md", "tex", "png", "svg", "pdf", "caption.txt")}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
