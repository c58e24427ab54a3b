"""The report: the content of the page for known tables, text that is never read as HTML, and how the page is made."""

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from orca_sweep import results as r
from orca_sweep.analysis import table_effects, table_results
from orca_sweep.analysis.catalogue import choose_figures
from orca_sweep.analysis.report import Asked, compute, draw, make_page, make_page_parts, page, write_page
from orca_sweep.analysis.report import trials as trial_data
from orca_sweep.analysis.report.pictures import for_page
from orca_sweep.analysis.report.realised import find_unmatched
from orca_sweep.analysis.report.record import Additions
from orca_sweep.analysis.writing import MINUS, Table
from orca_sweep.errors import InputError
from tests.builders.in_process import run_here as orca
from tests.builders.reports import (
    HOSTILE,
    IMAGE,
    TRACEBACK,
    big_results,
    cell_rows_with_curves,
    history,
    hostile_sweep,
    made_page,
    sweep_folder,
    two_cells,
    with_curve,
)
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, trial

REPO = Path(__file__).resolve().parents[2]
BOTH = {**MNIST, "finetune.freeze": "body"}
SECTIONS = ("completeness", "verdicts", "figures", "effects", "results", "curves", "realised", "methods", "downloads")


class Read(HTMLParser):
    """A page as a browser parses it: its elements, the text of each section, and the text of its scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.scripts, self.within, self.texts = [], [], [], [], Counter()
        self.words_of = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.within.append((tag, attrs.get("id", "")))
        if tag == "script":
            self.scripts.append((attrs, ""))

    def handle_endtag(self, tag):
        while self.within and self.within[-1][0] != tag:
            self.within.pop()
        if self.within:
            self.within.pop()

    def handle_data(self, data):
        if any(tag == "script" for tag, _ in self.within):
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        for tag, name in self.within:
            if tag in ("section", "header"):
                self.words_of[name or tag] = self.words_of.get(name or tag, "") + data

    def words(self, section):
        return " ".join(self.words_of[section].split())

    def data(self, name):
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == f"data-{name}"))


# Parts --------------------------------------------------------------------------------------------


def test_the_page_has_its_parts_in_order_and_says_what_it_is_of(tmp_path):
    read = Read(made_page(two_cells(tmp_path)))
    assert [name for name in read.ids if name in SECTIONS] == list(SECTIONS)
    head = read.words("header")
    assert "Does it help?" in head
    assert "10 of 10 planned trials are ok" in head
    assert "test_metric_best (digits: error, lower is better)" in head
    assert re.search(r"Test metrics were revealed once: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC \(s: 10 trials\)", head)
    assert "20 pairs" not in read.words("verdicts")
    task = table_effects.compute(r.read_results(tmp_path / "tables")).tasks[0]
    assert task.rows[0].verdict.sentence in read.words("verdicts")
    assert f"helps mnist5k {MINUS}0.1000 [{MINUS}0.1088, {MINUS}0.0912] n = 5 pairs" in read.words("verdicts")


def test_without_a_margin_the_page_names_none(tmp_path):
    text = Read(made_page(two_cells(tmp_path))).words("verdicts")
    assert "Margin: none, because none is given or fixed and there is no A/A cell" in text
    assert "beyond zero, with no margin: helps" in text
    assert not re.search(r"margin (of )?0\b", text)


def test_two_seeds_judge_nothing_anywhere_on_the_page(tmp_path):
    results = sweep_folder(tmp_path, cell_rows(NONE, [0.3, 0.31]), cell_rows(MNIST, [0.1, 0.1100001]))
    (line,) = compute(results).tasks[0].lines
    assert (line.word, line.p_holm[0], line.hedges_g[0]) == ("undecided", "\u2013", "\u2013")
    read = Read(made_page(results))
    assert "Cannot be judged: 2 pairs, and at least 3 are needed." in read.words("verdicts")
    assert "No comparison can be judged with 2 pairs: at least 3 are needed." in read.words("methods")
    assert "helps" not in read.words("effects").replace("helps undecided", "")


def test_without_an_ok_trial_no_direction_is_guessed(tmp_path):
    failed = [cell_rows(levels, [None] * 3, status="failed") for levels in (NONE, MNIST)]
    read = Read(made_page(sweep_folder(tmp_path, *failed), ["proxies"]))
    for section in ("header", "verdicts", "figures", "effects", "results", "methods"):
        text = read.words(section)
        assert not re.search(r"(?<!or )(lower|higher) is better|is an improvement|the first is better", text), section
    assert "digits: metric not known yet" in read.words("header")
    (line,) = compute(r.read_results(tmp_path / "tables")).tasks[0].lines
    assert line.smallest_p[0] == "\u2013"  # not 1: zero pairs have no test


def test_a_single_trial_is_counted_in_the_singular(tmp_path):
    read = Read(made_page(sweep_folder(tmp_path, cell_rows(NONE, [0.1]))))
    assert "1 of 1 planned trial is ok." in read.words("header")
    assert "1 trials" not in "".join(read.words_of.values())


@pytest.mark.parametrize("role", ["aa", "search"])
def test_a_page_of_nothing_but_repeats_or_candidates_is_no_refusal(tmp_path, role):
    parts = [[trial({"task": "digits", **NONE}, seed, 0.1, role) for seed in range(3)]]
    read = Read(made_page(sweep_folder(tmp_path, *parts)))
    assert "There is nothing to compare" in read.words("verdicts")
    assert "error" in read.words("results")
    assert "nothing;" not in read.words("methods") and " 0 cells" not in read.words("methods")


def test_seconds_of_reused_stages_are_marked_and_not_averaged(tmp_path):
    fresh = {"embedder_s": 8.0, "n_embedder_steps": 20, "reused": ""}
    loaded = {"embedder_s": 0.012, "n_embedder_steps": 20, "reused": "pretrain,embedder"}
    rows = [cell_rows(NONE, [0.1, 0.1]), cell_rows(MNIST, [0.1, 0.1], **fresh), cell_rows(BOTH, [0.1, 0.1], **loaded)]
    rows[1][0][1].update(loaded)
    text = Read(made_page(sweep_folder(tmp_path, *rows, factors=("proxy", "finetune.freeze")))).words("realised")
    assert "8; 1 reused" in text and "0.012" not in text
    assert re.search(r"mnist5k · body ?2 ?20 ?reused", text)


def test_the_page_says_why_it_has_no_effects_of_factors(tmp_path):
    one, two = {"proxy": "none", "finetune.freeze": "body"}, {"proxy": "mnist", "finetune.freeze": "none"}
    parts = [cell_rows({**NONE, "finetune.freeze": "none"}, BASE), cell_rows(one, BASE), cell_rows(two, BETTER)]
    results = sweep_folder(tmp_path, *parts, factors=("proxy", "finetune.freeze"))
    assert "No effects of factors, only of cells" in Read(made_page(results)).words("effects")


def test_the_head_says_when_the_last_trial_ended(tmp_path):
    ends = {"ended_at": "2026-11-02T10:00:00.000+00:00"}
    parts = cell_rows(NONE, [0.1, 0.2], **ends), cell_rows(MNIST, [0.1, None], ended_at="2026-11-03T11:30:00.000+00:00")
    results = sweep_folder(tmp_path, *parts)
    assert compute(results).head.made == "As of 2026-11-03 11:30:00 UTC, when the last trial ended."
    assert compute(results, additions=Additions(made_at="today")).head.made == "Made at today."
    assert compute(two_cells(tmp_path / "old")).head.made == "No trial has recorded when it ended."


def test_sealed_test_metrics_are_nowhere_in_the_page_and_it_says_so(tmp_path):
    secret = 0.31415926
    parts = [
        [with_curve((planned, {**row, "test_metric_best": secret, "test_metric_last": secret, "val_metric_best": value}), [])
         for (planned, row), value in zip(cell_rows(levels, values), values, strict=True)]
        for levels, values in ((NONE, BASE), (MNIST, BETTER))
    ]  # fmt: skip
    sealed = sweep_folder(tmp_path, *parts, revealed=False)
    text = made_page(sealed, None)
    assert "0.31415" not in text
    assert "0.3142" not in text
    read = Read(text)
    assert "test metrics of 10 ok trials are sealed" in read.words("header")
    assert "On validation data: test metrics are sealed." in read.words("verdicts")
    assert "sealed" in read.words("effects")
    assert "this is on validation data" in read.words("results")
    assert "on validation data at the epoch with the best validation metric" in read.words("methods")
    assert "The test metrics of 10 trials are sealed and not used here." in read.words("methods")
    r.reveal(tmp_path)
    shown = made_page(r.collect([tmp_path], tmp_path / "tables"))
    assert "0.31416" in shown
    assert "sealed" not in Read(shown).words("verdicts")


def test_the_matrix_has_a_square_for_every_planned_trial(tmp_path):
    lost = trial(MNIST, 4, status="lost", error="lost 3 times")
    unrun = trial(MNIST, 5, status="unfinished")
    odd = trial(MNIST, 6, status="exploded", error="?")
    parts = (
        cell_rows(NONE, [0.1, 0.2, None]),
        cell_rows(MNIST, [0.1, 0.2]),
        [lost, unrun, odd],
        cell_rows(NONE, [0.1, 0.3], "aa", 10),
    )
    searched = [trial(MNIST, 99, 0.4, "search"), trial(MNIST, 98, None, "search", status="pruned")]
    report = compute(sweep_folder(tmp_path, *parts, searched))
    (matrix,) = report.matrices
    assert matrix.seeds == (0, 1, 2, 4, 5, 6, 10, 11)
    assert [(row.name, row.role) for row in matrix.rows] == [
        ("none", "replicate"), ("mnist5k", "replicate"), ("none", "aa"),
    ]  # fmt: skip
    mnist = matrix.rows[1]
    assert [square and square.status for square in mnist.squares] == [
        "ok", "ok", None, "lost", "unfinished", "exploded", None, None,
    ]  # fmt: skip
    assert [square.mark for square in mnist.squares if square] == ["✓", "✓", "L", "·", "?"]
    assert (mnist.n_planned, mnist.n_ok, mnist.lacking) == (5, 2, "1 lost, 1 unfinished, 1 exploded")
    assert [square.status for square in mnist.searched] == ["ok", "pruned"]
    assert report.totals == {"ok": 6, "failed": 1, "lost": 1, "unfinished": 1, "exploded": 1}
    text = page(report, ())
    assert f'<a class="sq lost" href="#trial/{lost[0]["trial_id"]}" aria-label="lost, seed 4">L</a>' in text
    assert 'class="sq unknown"' in text
    assert "Candidates of tuning" in Read(text).words("completeness")
    assert "2 candidates of tuning are in no mean" in Read(text).words("results")


def test_the_effects_table_has_the_numbers_of_table_effects(tmp_path):
    results = sweep_folder(
        tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER), cell_rows({"proxy": "dummy"}, [0.3, 0.4])
    )
    report = compute(results, margin=["0.02"])
    effects = table_effects.compute(results, margin=["0.02"])
    (task,) = report.tasks
    assert task.margin_source == "given for this analysis"
    for line, row in zip(task.lines, effects.tasks[0].rows, strict=True):
        assert (line.word, line.sentence, line.n) == (row.verdict.word, row.verdict.sentence, row.contrast.interval.n)
        assert line.p_holm[1] == pytest.approx(row.p_holm, nan_ok=True)
    assert task.tally == {"helps": 1, "undecided": 1}
    assert task.lines[1].unpaired == "2 (not planned); 3 (not planned); 4 (not planned)"
    text = page(report, ())
    assert "seeds without a pair" in Read(text).words("effects")
    assert "2 of 2 comparisons shown" in Read(text).words("effects")
    assert report.downloads["effects.csv"] == table_effects.numbers(effects)
    assert report.downloads["results.csv"] == table_results.numbers(report.table)
    assert report.downloads["effects.tex"].count(r"\begin{tabular}") == 1
    assert Read(text).data("downloads") == report.downloads
    every = compute(results, margin=["0.02"], complete_pairs_only=True)
    assert every.tasks[0].lines[1].difference[1] == pytest.approx((0.0 + 0.06) / 2)


def test_claims_and_flattery_follow_the_verdicts(tmp_path):
    def table(title):
        rows = (("<b>one</b>", "1"),)
        return Table(
            name="t", title=title, caption="Caption & more.", head=("claim", "n"), align="lr", blocks=(rows,),
            notes=("A note.",),
        )  # fmt: skip

    report = compute(two_cells(tmp_path), additions=Additions(claims=(table("Claims"),), flattery=(table("Flattery"),)))
    prose = Read(page(report, ())).words("verdicts")
    assert prose.index("helps") < prose.index("Claims") < prose.index("Flattery")
    assert "<b>one</b>" in prose
    assert "Caption & more. A note." in prose


# Realised differences -----------------------------------------------------------------------------


def done(levels, steps, **more):
    return cell_rows(levels, [0.1, 0.2], n_steps=steps, finetune_s=10.0, wall_time_s=20.0, reused_s=5.0, **more)


def test_cells_that_did_more_than_their_base_are_marked(tmp_path):
    same = done({"proxy": "dummy"}, 100, n_trainable_first=7)
    results = sweep_folder(
        tmp_path, done(NONE, 100, n_trainable_first=7), done(MNIST, 200, n_trainable_first=None), same
    )
    report = compute(results)
    (task,) = report.realised
    assert task.columns == ("n_steps", "n_trainable_first", "finetune_s", "alone_s")
    assert task.rows[0].amounts["alone_s"].mean == 25
    ids = [row.cell_id for row in task.rows]
    assert find_unmatched(task, ids[0], ids[1]) == ("n_steps", "n_trainable_first")
    assert find_unmatched(task, ids[0], ids[2]) == ()
    assert [line.matched for line in report.tasks[0].lines] == [
        "differs: fine-tuning steps, trainable at first", "matched",
    ]  # fmt: skip
    prose = Read(page(report, ())).words("realised")
    assert "mnist5k: differs: fine-tuning steps, trainable at first" in prose
    assert "Not in these tables: training samples, embedder steps" in prose
    assert "LR integral" not in prose.split("Not in these")[0]
    verdicts = Read(page(report, ())).words("verdicts")
    assert verdicts.count("not matched on compute") == 1


def test_a_cell_without_an_ok_trial_is_matched_with_nothing(tmp_path):
    report = compute(sweep_folder(tmp_path, done(NONE, 100), cell_rows(MNIST, [None, None])))
    assert [line.matched for line in report.tasks[0].lines] == ["not known"]
    assert "cell or base has no ok trial yet" in Read(page(report, ())).words("realised")


def test_what_the_trials_table_lacks_is_taken_from_stages_then_epochs(tmp_path):
    def trials(levels, steps, rate):
        for planned, row in cell_rows(levels, [0.1, 0.2]):
            stages = [
                {"stage": "finetune", "phase": i, "n_steps": n, "lr_integral": rate} for i, n in enumerate(steps, 1)
            ]
            embedder = history([3, 2, 1], "embedder", "objective", 0) if levels != NONE else []
            yield planned, row, [*embedder, *history([1.0])], stages

    report = compute(sweep_folder(tmp_path, trials(NONE, (10, 20), 0.5), trials(MNIST, (30,), 1.0)))
    (task,) = report.realised
    assert [row.amounts["n_steps"].mean for row in task.rows] == [30, 30]
    assert [row.amounts["lr_integral"].mean for row in task.rows] == [1.0, 1.0]
    assert [row.amounts["n_embedder_steps"].mean for row in task.rows] == [0, 2]
    assert report.tasks[0].lines[0].matched == "differs: embedder steps"


# Methods ------------------------------------------------------------------------------------------


def test_methods_and_compute_are_written_from_the_rows(tmp_path):
    common = {
        "finetune.epochs": 20, "finetune.lr": 1e-3, "embedder.epochs": 5, "data.split_seed": 3, "n_train": 100, "n_val": 50,
        "n_test": 60, "wall_time_s": 1800.0, "finetune_s": 1000.0, "reused_s": 3600.0, "reused": "pretrain",
        "device": "cuda", "n_threads": 4, "n_gpus": 0.5, "gpu_s": 900.0, "host": "a", "versions": "torch=1",
        "code_version": "9.9", "resumed_from_epoch": 0, "peak_gpu_memory_mib": 2048.0,
    }  # fmt: skip
    parts = cell_rows(NONE, [0.1, 0.2, 0.3], **common), cell_rows(MNIST, [0.1, 0.2, None], **common)
    report = compute(sweep_folder(tmp_path, *parts, cell_rows(NONE, [0.2, 0.3], "aa", 10, **common)))
    prose = " ".join(report.methods)
    for words in (
        "We compared 2 cells on the task digits", "We varied the proxy (none, mnist5k).", "3 seeds (0 to 2)",
        "To measure noise, one cell was repeated with 2 seeds (10, 11) (A/A).",
        "Of 8 planned trials, 7 ended well; 1 failed.",
        "Fine-tuning used 20 epochs and a peak learning rate of 0.001.",
        "The data were split into 100 training, 50 validation, and 60 test samples, without overlap.",
        "split seed 3", "the metric on test data at the epoch with the best validation metric",
        "95% Student-t", "No comparison can be judged yet.",
        "from the A/A cell of proxy none", "Nothing was tuned; all cells share a fine-tuning learning rate of 0.001.",
    ):  # fmt: skip
        assert words in prose, words
    hours, _, hardware = report.compute
    assert (
        "All 8 trials took 4 hours of wall time in total. This is 16 CPU-hours (wall time times threads) and 2" in hours
    )
    assert (
        "Of the wall time, 3.5 hours went into 7 final trials (14 CPU-hours and 1.75 GPU-hours) and 30 minutes went into 1"
        in hours
    )
    assert "8 trials reused stored stages, which saved 8 hours of computing." in hours
    assert hardware == (
        "All 8 trials ran on a GPU (model not recorded, 0.5 GPUs per trial, 4 threads per trial), on 1 host. No trial used"
        " more than 2,048 MiB of GPU memory. The software was orca-sweep 9.9 with torch 1."
    )


def test_a_trial_that_stands_for_two_cells_is_counted_once_in_what_all_took(tmp_path):
    timed = {"wall_time_s": 3600.0, "device": "cpu", "n_threads": 1, "host": "a", "reused": "", "resumed_from_epoch": 0}
    planned, row = trial(NONE, 0, 0.1, **timed)
    again = {**planned, "cell_id": "0" * 16}
    results = sweep_folder(tmp_path, [(planned, row), (again, row)], cell_rows(MNIST, [0.2], **timed))
    assert len(results.trials) == 3
    report = compute(results)
    assert report.compute[0].startswith("All 2 trials took 2 hours of wall time in total")
    text = made_page(results)
    assert text.count(f'href="#trial/{planned["trial_id"]}"') == 2


def test_methods_describe_tuning_and_designs_with_holes(tmp_path):
    levels = [
        {"proxy": p, "finetune.freeze": f} for p, f in (("none", "none"), ("mnist5k", "none"), ("mnist5k", "body"))
    ]
    parts = [cell_rows(of, [0.1, 0.2], **{"finetune.lr": 0.1 * i}) for i, of in enumerate(levels, 1)]
    searched = [trial(levels[0], seed, 0.3, "search", **{"finetune.lr": lr}) for lr in (0.1, 0.2) for seed in (8, 9)]
    results = sweep_folder(tmp_path, *parts, searched, factors=("proxy", "finetune.freeze"), tune={"finetune.lr": []})
    prose = " ".join(compute(results).methods)
    assert "These are 3 of the 4 combinations of the levels" in prose
    assert "The cell had 2 candidates; all together took 4 trials. No replicate uses a seed of the search." in prose
    tasks = [
        cell_rows({"task": task, **NONE}, [0.1, 0.2], **{"finetune.epochs": n}) for task, n in (("a", 5), ("b", 9))
    ]
    prose = " ".join(compute(sweep_folder(tmp_path / "two", *tasks, factors=("task",))).methods)
    assert "We compared 2 cells on 2 tasks (a and b), 1 on each" in prose
    assert "The number of fine-tuning epochs was 5 for a and 9 for b." in prose
    assert "The metric is the error (lower is better), computed" in prose
    assert "Nothing was varied within a task." in prose
    odd = [
        cell_rows({**levels, "seed_varies": "everything"}, [0.1, 0.2], **{"data.split_seed": 0})
        for levels in (NONE, MNIST)
    ]
    prose = " ".join(compute(sweep_folder(tmp_path / "odd", *odd)).methods)
    assert "The run seed controlled these draws: everything;" in prose
    assert "whatever the run seed" not in prose


# Incomplete sweeps --------------------------------------------------------------------------------


def test_a_running_sweep_with_most_trials_still_to_come(tmp_path):
    later = [trial(levels, seed, status="unfinished") for levels in (NONE, MNIST) for seed in range(2, 8)]
    running = sweep_folder(
        tmp_path, cell_rows_with_curves(NONE, [0.1, 0.2]), cell_rows_with_curves(MNIST, [0.3, None]), later
    )
    text = made_page(running, None)
    read = Read(text)
    assert "3 of 16 planned trials are ok" in read.words("header")
    assert "12 unfinished: has not run to its end yet" in read.words("completeness")
    assert text.count("<td>1 failed, 6 unfinished</td>") == 2  # in the matrix and among the results
    assert "Cannot be judged: seeds 1, 2, 3, 4, 5, 6, 7 give no complete pair." in read.words("verdicts")
    assert "12 trials without a recorded time (not run to an end, or lost)" in read.words("methods")


@pytest.mark.parametrize("revealed", [True, False])
def test_one_cell_alone_is_nothing_to_compare(tmp_path, revealed):
    results = sweep_folder(tmp_path, cell_rows_with_curves(NONE, [0.1, 0.2]), revealed=revealed)
    read = Read(made_page(results, None))
    assert "There is nothing to compare: no task has two cells." in read.words("verdicts")
    assert read.words("effects").endswith("There is nothing to compare: no task has two cells.")
    assert "We ran 1 cell on the task digits" in read.words("methods")
    assert set(read.data("downloads")) == {"results.csv", "results.tex"}
    with pytest.raises(InputError, match="each task has only one cell"):
        compute(results, margin=["0.1"])


def test_no_trial_is_ok_or_none_has_run(tmp_path):
    failed = sweep_folder(tmp_path, cell_rows(NONE, [None, None]), cell_rows(MNIST, [None, None]))
    read = Read(made_page(failed, None))
    assert "0 of 4 planned trials are ok" in read.words("header")
    assert "4 failed" in read.words("completeness")
    assert "Cannot be judged" in read.words("verdicts")
    sizes = [int(tag[1]) for tag, _ in read.tags if tag in ("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(sizes))
    unrun = [trial(levels, seed, status="unfinished") for levels in (NONE, MNIST) for seed in range(2)]
    read = Read(made_page(sweep_folder(tmp_path / "unrun", unrun), None))
    assert "4 unfinished" in read.words("completeness")
    searching = [trial(levels, 9, 0.1, "search") for levels in (NONE, MNIST)]
    tuned = sweep_folder(tmp_path / "search", searching, tune={"finetune.lr": []})
    assert "Candidates of tuning" in Read(made_page(tuned, None)).words("completeness")


SEARCHED = [trial(levels, 9, 0.1, "search") for levels in (NONE, MNIST)]
UNRUN = [trial(levels, seed, status="unfinished") for levels in (NONE, MNIST) for seed in range(2)]
SIZES = [{"data.n_train": 50}, {"data.n_train": 100}]


@pytest.mark.parametrize(
    ("parts", "about", "state"),
    [
        ([UNRUN], {"revealed": False}, "0 of 4 planned trials are ok."),
        ([cell_rows_with_curves(NONE, [0.1])], {}, "1 of 1 planned trial is ok."),
        ([cell_rows(NONE, [None, None]), cell_rows(MNIST, [None, None])], {}, "0 of 4 planned trials are ok."),
        ([SEARCHED], {"tune": {"finetune.lr": []}}, "Candidates of tuning: 2 of 2 ok; they are in no mean."),
        ([SEARCHED, UNRUN], {"tune": {"finetune.lr": []}}, "0 of 4 planned trials are ok."),
        ([cell_rows_with_curves(NONE, [0.1, 0.2])], {}, "2 of 2 planned trials are ok."),
        ([cell_rows_with_curves(NONE, [0.1, 0.2])], {"factors": ()}, "2 of 2 planned trials are ok."),
        ([cell_rows(NONE, [0.1, 0.2]), cell_rows(MNIST, [None, None])], {}, "2 of 4 planned trials are ok."),
        ([cell_rows(levels, [0.1, 0.2]) for levels in SIZES], {"factors": ["data.n_train"]}, "4 of 4 planned trials"),
    ],
    ids=["none has ended", "one trial", "all failed", "only candidates", "candidates first", "one cell", "no factor",
         "a cell without an ok trial", "no figure of the study"],
)  # fmt: skip
def test_every_state_of_a_sweep_has_a_whole_page(tmp_path, parts, about, state):
    results = sweep_folder(tmp_path, *parts, **about)
    figures = choose_figures(results) if "factors" in about else ()  # drawing takes most of the time
    read = Read(make_page(results, Asked(figures=figures)))
    assert state in read.words("header")
    assert all(read.words(section) for section in SECTIONS)
    heads = read.words("results")
    assert "mean" in heads and "not ok" in heads
    if "no trial is ok" in read.words("realised").lower():
        assert "not matched on compute" not in read.words("realised")
    sizes = [int(tag[1]) for tag, _ in read.tags if tag in ("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(sizes))


def test_the_head_counts_candidates_beside_planned_trials(tmp_path):
    searched = [trial(MNIST, 99, 0.4, "search"), trial(MNIST, 98, None, "search", status="pruned")]
    results = sweep_folder(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER), searched)
    header = Read(made_page(results)).words("header")
    assert "10 of 10 planned trials are ok." in header
    assert "Candidates of tuning: 1 of 2 ok; they are in no mean." in header
    assert "Candidates" not in Read(made_page(two_cells(tmp_path / "plain"))).words("header")


def test_what_is_not_known_to_be_matched_is_not_called_unmatched(tmp_path):
    third = {"proxy": "dummy"}
    results = sweep_folder(
        tmp_path,
        cell_rows(NONE, BASE, n_steps=10),
        cell_rows(MNIST, BETTER, n_steps=20),
        cell_rows(third, [None] * 5),
    )
    words = Read(made_page(results)).words("realised")
    assert words.count("differs: ") == 1 and "mnist5k: differs: fine-tuning steps" in words
    assert "not known whether matched on compute, since cell or base has no ok trial yet: dummy." in words
    assert "all comparisons are matched" not in words


def test_tables_without_what_no_trial_had_make_a_page(tmp_path):
    results = two_cells(tmp_path)
    new = [
        "traceback",
        "is_sealed",
        "revealed_at",
        "n_reveals_before",
        "error",
        "n_gpus",
        "ended_at",
        "versions",
    ]
    old = replace(results, trials=results.trials.drop(columns=new), stages=None, reveals=())
    read = Read(made_page(old))
    assert "Test metrics were never sealed" in read.words("header")
    assert "helps" in read.words("verdicts")


def test_a_page_in_parts_is_the_page_and_is_written_as_such(tmp_path):
    results = two_cells(tmp_path)
    whole = make_page(results, Asked())
    assert sum(1 for _ in make_page_parts(results, Asked())) > 100
    n_bytes = write_page(tmp_path / "parts.html", make_page_parts(results, Asked()))
    assert write_page(tmp_path / "whole.html", whole) == n_bytes == len(whole.encode())
    assert (tmp_path / "parts.html").read_bytes() == (tmp_path / "whole.html").read_bytes() == whole.encode()


def test_cells_are_summarised_once_per_page_and_anew_for_other_rows(tmp_path):
    results = two_cells(tmp_path)
    assert r.summarise_cells(results) is not r.summarise_cells(results)  # somebody may have changed the rows
    kept = replace(results, remembered={})
    cells = r.summarise_cells(kept)
    assert r.summarise_cells(kept) is cells and cells == r.summarise_cells(results)
    assert r.summarise_cells(replace(kept, metric="val_metric_last")) != cells
    assert r.summarise_cells(kept, level=0.5) != cells
    fewer = replace(kept, trials=kept.trials.iloc[5:])
    assert len(r.summarise_cells(fewer)) == 1
    assert r.summarise_cells(kept) is cells


# Nothing is read as HTML --------------------------------------------------------------------------


def test_hostile_names_stay_text(tmp_path):
    results = hostile_sweep(tmp_path)
    text = made_page(results, None)
    read = Read(text)
    scripts = [attrs for attrs, _ in read.scripts]
    assert [attrs.get("type", "script") for attrs in scripts] == ["application/json"] * 4 + ["script"]
    assert text.count("<script") == text.count("</script>") == 5
    assert not [tag for tag, _ in read.tags if tag in ("img", "iframe", "object", "embed", "base")]
    assert not [key for _, attrs in read.tags for key in attrs if key.startswith("on")]
    assert HOSTILE in read.words("completeness")
    assert IMAGE in read.words("header")
    columns = {column["name"]: column for column in read.data("trials")["columns"]}
    assert TRACEBACK in json.dumps(columns["traceback"]).encode().decode("unicode_escape")
    assert unpacked(columns["proxy"], 6)[4] == "a\\u2028\\x1bb'\"&"  # control characters are written out
    assert HOSTILE in read.data("downloads")["effects.csv"]


@given(st.text(max_size=40), st.sampled_from(["</script>", "<!--", "]]>", "<script", "&lt;"]))
def test_json_in_a_page_ends_no_script_and_is_read_back(text, more):
    shown = trial_data.as_json({text: more + text})
    for depth in range(4):
        value = {text: [more, {text: [text, {}]}], more: {}, "n": []}
        assert "".join(trial_data.split_json(value, depth)) == trial_data.as_json(value)
    assert not set("<>&\u2028\u2029") & set(shown)
    assert json.loads(shown) == {text: more + text}


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(tmp_path):
    text = made_page(two_cells(tmp_path), None)
    read = Read(text)
    policy = next(attrs["content"] for tag, attrs in read.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    script = next(text for attrs, text in read.scripts if not attrs)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    for kind, content in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [attrs for _, attrs in read.tags if "style" in attrs]
    links = [attrs[key] for _, attrs in read.tags for key in ("href", "src", "xlink:href") if key in attrs]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


# Figures ------------------------------------------------------------------------------------------


def test_figures_on_one_page_share_no_names(tmp_path):
    levels = [
        {"proxy": "mnist5k", "embedder.epochs": n, "finetune.freeze": f} for n in (1, 2, 3) for f in ("none", "body")
    ]
    parts = [cell_rows_with_curves(of, [0.1 + i / 50, 0.2, 0.25 - i / 90]) for i, of in enumerate(levels)]
    results = sweep_folder(tmp_path, *parts, factors=("embedder.epochs", "finetune.freeze"))
    report = compute(results)
    pictures = draw(results, report.effects)
    assert [picture.name for picture in pictures] == [
        "table_effects", "figure2_proxies", "figure3_otdd_vs_error", "figure4_freezing", "factor_effects",
    ]  # fmt: skip
    text = page(report, pictures)
    read = Read(text)
    assert len(read.ids) == len(set(read.ids))
    used = set(re.findall(r"(?:url\(#|xlink:href=\"#)([^)\"]+)", text))
    assert used
    assert used <= set(read.ids)
    svgs = [attrs for tag, attrs in read.tags if tag == "svg"]
    assert all(attrs["role"] == "img" for attrs in svgs)
    for picture in pictures:
        assert f'<title id="{picture.name}-title">{picture.title}</title>' in picture.svg
        assert f'<desc id="{picture.name}-desc">' in picture.svg
        assert "style=" not in picture.svg
        assert "<text" in picture.svg
    named = draw(results, report.effects, ["figure2_proxies", "figure5_pretraining"])
    assert [picture.name for picture in named] == [
        "table_effects",
        "figure2_proxies",
        "figure5_pretraining",
        "factor_effects",
    ]
    assert "'body.pretrain_fraction' is not a factor of this sweep" in named[2].missing
    assert "No figure: s: 'body.pretrain_fraction' is not a factor" in Read(page(report, named)).words("figures")


def test_levels_that_look_like_formulas_or_are_no_xml_are_drawn_as_they_are(tmp_path):
    results = hostile_sweep(tmp_path)
    picture = draw(results, compute(results).effects, [])[0]
    assert "$x_" in picture.svg
    assert "\x1b" not in picture.svg
    assert "script&gt;" in picture.svg
    assert "<script" not in picture.svg
    assert "<script" not in made_page(results, []).partition('id="figures"')[2].partition("</section>")[0]


def test_an_svg_s_styles_become_attributes():
    made = for_page(
        '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><defs><style>*{fill: red}</style></defs><text'
        " style=\"font: italic 700 8px 'A B', serif; fill: #123456\" id=\"t\" x=\"1.23456\">a</text></svg>",
        "f", "T", "D",
    )  # fmt: skip
    assert "font-family=\"'A B', serif\"" in made
    assert '<text id="f-t" x="1.23" font-size="8px" font-style="italic" font-weight="700" fill="#123456">' in made
    assert 'width="108" height="54"' in made
    assert "red" not in made


# Data in the page ---------------------------------------------------------------------------------


def unpacked(column, n):
    if "same" in column:
        return [column["same"]] * n
    return column["each"] if "each" in column else [column["values"][code] for code in column["codes"]]


@given(
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 0.5, "1", ""])), min_size=1
    )
)
def test_a_packed_column_is_the_column(values):
    column = unpacked(json.loads(json.dumps(trial_data.pack_values(values))), len(values))
    assert list(map(repr, column)) == list(map(repr, values))


def test_every_trial_is_in_the_page_with_exact_config_and_rounded_measures(tmp_path):
    more = {"finetune.lr": 0.000123456789, "finetune_s": 12.3456789, "body.pretrain_steps": 7}
    results = sweep_folder(
        tmp_path, cell_rows_with_curves(NONE, [0.123456789, 0.2], **more), cell_rows(MNIST, [None], **more)
    )
    read = Read(made_page(results))
    data = read.data("trials")
    columns = {column["name"]: column for column in data["columns"]}
    assert data["n"] == 3
    assert unpacked(columns["trial_id"], 3) == results.trials["trial_id"].tolist()
    assert columns["finetune.lr"]["same"] == "0.000123456789"
    assert columns["body.pretrain_steps"]["same"] == 7
    assert columns["finetune_s"]["same"] == 12.346
    assert (columns["finetune_s"]["unit"], columns["finetune_s"]["kind"]) == ("s", "measure")
    assert columns["proxy"]["factor"]
    assert unpacked(columns["test_metric_best"], 3) == [0.12346, 0.2, None]
    assert "proxy_sha256" not in columns  # nobody has one
    first = results.trials["trial_id"][0]
    assert read.data("curves")["finetune"][first] == [1, 1.1235, 0.62346, 0.45679, 0.37346]


def test_curves_have_a_gap_where_an_epoch_is_missing_or_not_finite(tmp_path):
    epochs = [*history([0.5, 0.4]), *history([0.2, math.inf], first=4)]
    results = sweep_folder(tmp_path, [with_curve(trial(NONE, 0, 0.1), epochs)])
    ((_, curve),) = trial_data.curves_json(results)["finetune"].items()
    assert curve == [1, 0.5, 0.4, None, 0.2]


def test_half_widths_in_the_page_are_student_s():
    quantiles = trial_data.t_quantiles(12, 0.95)
    assert quantiles == pytest.approx([scipy_stats.t.ppf(0.975, n - 1) for n in range(2, 13)], rel=1e-5)


def test_the_end_of_a_traceback_is_in_the_tables_and_many_long_ones_are_cut(tmp_path):
    long = "x" * 30_000 + "the end"
    results = sweep_folder(
        tmp_path, cell_rows(NONE, [0.1, None, None]), errors={0: "of an ok trial", 1: long, 2: TRACEBACK}
    )
    shown = results.trials["traceback"]
    assert shown.isna().tolist() == [True, False, False]
    assert shown[1] == long[-20_000:]
    (tmp_path / "trials").rename(tmp_path / "elsewhere")
    assert r.read_results(tmp_path / "tables").trials["traceback"][2] == TRACEBACK
    merged = r.collect([tmp_path / "tables"], tmp_path / "again")
    assert merged.trials["traceback"][2] == TRACEBACK
    many = [f"{i}" + "y" * 19_999 for i in range(200)]
    cut = trial_data._within_budget([*many, None, "short"])
    assert sum(len(text) for text in cut if text) < 1.1 * trial_data.TRACEBACK_BUDGET
    assert cut[0].startswith("[cut to its last lines]\n")
    assert cut[-2:] == [None, "short"]


def test_tables_collected_before_a_column_existed_are_collected_again(tmp_path):
    sweep_folder(tmp_path, cell_rows(NONE, [0.1, None]), errors={1: TRACEBACK})
    stamps = tmp_path / "tables" / ".collected.json"
    left = json.loads(stamps.read_text())
    left["by"][-1] = "other columns"
    r.write_json(stamps, left)
    path = tmp_path / "tables" / "trials.parquet"
    before = path.stat().st_mtime_ns
    assert r.collect([tmp_path], tmp_path / "tables").trials["traceback"][1] == TRACEBACK
    assert path.stat().st_mtime_ns != before


# Colours ------------------------------------------------------------------------------------------


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_marks_contrast_with_their_ground_in_both_themes():
    style = (REPO / "orca_sweep" / "analysis" / "report" / "page" / "style.css").read_text()
    pairs = {name: pair for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    for theme in (0, 1):
        for ground in ("back", "card", "row", "warn"):
            for text in ("text", "faint", "link"):
                assert contrast(pairs[text][theme], pairs[ground][theme]) >= 4.5, (text, ground, theme)
        for mark in ("focus", "helps", "hurts", "same", "undecided", *(f"c{i}" for i in range(8))):
            assert contrast(pairs[mark][theme], pairs["back"][theme]) >= 3, (mark, theme)
    squares = dict(re.findall(r"\.sq\.([\w-]+) \{ background: (#\w{3,6})", style))
    assert contrast(squares.pop("ok"), "#ffffff") >= 4.5
    assert all(contrast(colour, "#000000") >= 4.5 for colour in squares.values() if len(colour) == 7)


# Running ------------------------------------------------------------------------------------------


def test_a_sweep_folder_is_collected_and_gives_the_same_bytes_as_its_tables_elsewhere(tmp_path):
    two_cells(tmp_path / "s")
    done = orca("report", tmp_path / "s")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(re.escape(f"{tmp_path / 's' / 'report.html'}") + r": 0\.\d MB\n", done.stdout)
    first = (tmp_path / "s" / "report.html").read_bytes()
    assert b"table_effects-title" in first
    assert b"figure2_proxies-title" in first
    shutil.copytree(tmp_path / "s" / "tables", tmp_path / "elsewhere")
    again = orca("report", tmp_path / "elsewhere", "-o", tmp_path / "new" / "page.html")
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "new" / "page.html").read_bytes() == first
    trials = (tmp_path / "elsewhere" / "trials.parquet").read_bytes()
    assert hashlib.sha256(trials).hexdigest()[:16] in first.decode()
    assert str(tmp_path) not in first.decode()


def test_what_is_asked_of_the_report_reaches_it(tmp_path):
    two_cells(tmp_path)
    asked = ("--base", "proxy=mnist5k", "--margin", "0.02", "--metric", "test_metric_best", "--made-at", "noon")
    done = orca("report", tmp_path, *asked, "--complete-pairs")
    assert done.returncode == 0, done.stderr
    read = Read((tmp_path / "report.html").read_text())
    assert "Base: mnist5k" in read.words("verdicts")
    assert "Margin: 0.02, given for this analysis." in read.words("verdicts")
    assert "hurts none" in read.words("verdicts")
    assert "Made at noon." in read.words("header")


def test_wrong_input_ends_in_words_and_code_2(tmp_path):
    two_cells(tmp_path / "s", revealed=False)
    (tmp_path / "s" / "page").mkdir()
    cases = {
        (tmp_path,): ["neither a sweep (no sweep.json) nor tables (no trials.parquet)"],
        (tmp_path / "nowhere",): ["nowhere: neither a sweep"],
        (tmp_path / "s", "--base", "prox=none", "--base", "proxy=mnits5k"): [
            "'prox' is not a factor", "no cell has that level of proxy. Levels: none, mnist5k.",
        ],
        (tmp_path / "s", "--margin", "wide"): ["'wide' is not a number"],
        (tmp_path / "s", "--metric", "accuracy"): ["metric = 'accuracy': this is not a column of metrics", "val_metric_best"],
        (tmp_path / "s", "--metric", "test_metric_last"): ["sealed", "orca-sweep reveal"],
        (tmp_path / "s", "-o", tmp_path / "s" / "page"): [": a folder. Name the HTML file."],
        (): ["Missing argument"],
    }  # fmt: skip
    for arguments, words in cases.items():
        done = orca("report", *arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
        assert all(word in done.stderr for word in words), done.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_a_page_that_cannot_be_written_ends_with_code_1(tmp_path):
    two_cells(tmp_path / "s")
    (tmp_path / "file").write_text("")
    done = orca("report", tmp_path / "s", "-o", tmp_path / "file" / "page.html")
    assert done.returncode == 1
    assert "Nothing was left half-written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_needs_neither_torch_nor_ray(tmp_path):
    two_cells(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from orca_sweep.analysis.report import Asked, make_page\n"
        "from orca_sweep.results import read_results\n"
        "assert len(make_page(read_results(Path(sys.argv[1])), Asked())) > 50_000\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, tmp_path / "tables"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stdout.strip().endswith("[]")


def test_2000_trials_of_100_epochs_are_a_page_of_a_few_megabytes():
    text = made_page(big_results(), [])
    assert 1e6 < len(text) < 6e6
    read = Read(text)
    assert len(read.data("curves")["finetune"]) == 2000
    assert sum("sq" in attrs.get("class", "").split() and tag == "a" for tag, attrs in read.tags) == 2000
    assert len(read.tags) < 40_000
