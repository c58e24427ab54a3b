"""The methods and compute paragraphs of many kinds of sweeps, read for what no paper prints."""

import re
from dataclasses import replace

import pytest

from orca_sweep import results as r
from orca_sweep.analysis.report.comparisons import effects_of
from orca_sweep.analysis.report.compute_statement import compute_statement
from orca_sweep.analysis.report.methods import describe_methods
from orca_sweep.analysis.report.wording import (
    by_text,
    count_statuses,
    format_time,
    join_names,
    join_words,
    shorten_list,
)
from orca_sweep.analysis.tables import read_cells
from tests.builders.tables import MNIST, NONE, cell_rows, collected, trial

TIMED = {
    "device": "cpu", "n_threads": 2, "n_gpus": 0.0, "gpu_s": 0.0, "host": "a", "processor": "AMD EPYC", "wall_time_s": 90.0,
    "body_s": 5.0, "finetune_s": 60.0, "reused": "", "reused_s": 0.0, "resumed_from_epoch": 0, "peak_memory_mib": 900.0,
    "code_version": "1.0", "versions": "torch=2.1 numpy=2.0", "n_train": 100, "n_val": 50, "n_test": 60,
}  # fmt: skip
CONFIG = {
    "body.name": "swin-micro", "body.pretrain_fraction": 1.0, "embedder.epochs": 20, "embedder.objective": "otdd-exact",
    "embedder.optimizer": "adamw", "embedder.lr": 0.001, "embedder.lr_decay": 0.2, "embedder.lr_decay_after": "10, 40",
    "embedder.init": "copied", "embedder.proxy_samples": 1000, "finetune.epochs": 1, "finetune.optimizer": "sgd",
    "finetune.lr": 0.001, "finetune.batch_size": 1, "finetune.warmup_epochs": 1, "finetune.freeze": "none",
    "data.split_seed": 0, "seed_varies": "all",
}  # fmt: skip
ON_GPU = {
    **TIMED,
    "device": "cuda",
    "processor": "NVIDIA H200",
    "n_gpus": 0.5,
    "gpu_s": 45.0,
    "peak_gpu_memory_mib": 2048.0,
}
REUSED = {**TIMED, "reused": "body,embedder", "reused_s": 600.0}
STATUSES = ("failed", "diverged", "oom", "timeout", "pruned", "lost", "unfinished")
RANGE = {"finetune.lr": {"low": 1e-4, "high": 1e-2, "log": True, "whole": False}}
LIST = {"finetune.lr": ["0.1", "0.01"], "finetune.batch_size": ["16"]}


def ended(levels, seed, status, **more):
    """A trial of any status; its row says no more than a real one of that status."""
    rows = {"pruned": {"wall_time_s": 12.0}, "lost": {}, "unfinished": {}}
    about = rows.get(status, {**TIMED, **more})
    value = 0.2 + seed / 100 if status == "ok" else None
    config = {key: v for key, v in more.items() if "." in key}
    settings = {key: v for key, v in {**CONFIG, **config}.items() if key not in levels}
    return trial(levels, seed, value, **{**settings, **about, "status": status})


def cells(levels=(NONE, MNIST), seeds=3, status="ok", **more):
    return [ended({**of}, seed, status, **more) for of in levels for seed in range(seeds)]


def searched(n, status="ok", levels=(NONE, MNIST), seeds=(1000000,)):
    return [
        trial(of, seed, 0.3, "search", **{**CONFIG, **TIMED, "finetune.lr": 0.1 * (i + 1), "status": status})
        for of in levels for i in range(n) for seed in seeds
    ]  # fmt: skip


LONG = "very-long-name-" * 20
OWN = {
    "task": f"/data/{LONG}.npz kind=classification output_shape=3 sample_shape=1x8x8",
    "proxy": "Größe-数据.csv",
}
SEARCH = {"method": "optuna", "candidates": 2, "seeds": [1000000], "sampler_seed": 0}
RULES = {
    "prune": {"name": "asha", "grace_epochs": 1, "reduction": 3.0, "cells": True}, "budget": {"trials": 1, "cpu_hours": 2.5},
    "limits": {"trial_s": 1.0}, "outcomes": {"oom": {"retry": 1, "then": "worst"}, "failed": {"retry": 2}},
}  # fmt: skip
SWEEPS = {
    "one trial": ([ended(NONE, 0, "ok")], {}),
    "one cell": (cells((NONE,)), {}),
    "two cells": (cells(), {}),
    "one seed each": (cells(seeds=1), {}),
    "nothing ran": (cells(status="unfinished"), {}),
    "nothing ended well": (cells(status="failed"), {}),
    **{f"one {status}": ([*cells(), ended(NONE, 3, status)], {}) for status in STATUSES},
    **{f"two {status}": ([*cells(), ended(NONE, 3, status), ended(MNIST, 3, status)], {}) for status in STATUSES},
    "every status": ([*cells(), *(ended(NONE, i, s) for i, s in enumerate(STATUSES, 3))], {}),
    "worst": ([*cells(), ended(NONE, 3, "oom"), ended(MNIST, 3, "failed")], {"outcomes": {"oom": {"then": "worst"}}}),
    "rules": ([*cells(), ended(NONE, 3, "oom")], RULES),
    "median rule": ([*cells(), *searched(2, "pruned")], {"prune": {"name": "median"}, "tune": RANGE, "search": SEARCH}),
    "tuned": ([*cells(), *searched(2)], {"tune": RANGE, "search": SEARCH}),
    "tuned by lists": ([*cells(), *searched(1, seeds=(8, 9))],
                       {"tune": LIST, "search": {"method": "grid", "seeds": [8, 9], "candidates": None}}),
    "candidates alone": (searched(1), {"tune": RANGE, "search": SEARCH}),
    "lost candidates": ([*cells(), *searched(1, "lost")], {"tune": RANGE, "search": {**SEARCH, "method": "random"}}),
    "GPU": (cells(**ON_GPU), {}),
    "GPU and CPU": ([*cells((NONE,), **ON_GPU), *cells((MNIST,))], {}),
    "GPU without a number": (cells(**{**ON_GPU, "gpu_s": None, "n_gpus": None}), {}),
    "no device": (cells(**{**TIMED, "device": None, "n_threads": None, "host": None, "gpu_s": None}), {}),
    "reuse": ([*cells((NONE,)), *cells((MNIST,), **REUSED)], {}),
    "one reuses": ([*cells((NONE,)), *cells((MNIST,), seeds=1, **REUSED)], {}),
    "resumed": (cells(**{**TIMED, "resumed_from_epoch": 3}), {}),
    "several versions": ([*cells((NONE,)), *cells((MNIST,), **{**TIMED, "versions": "torch=2.2", "code_version": "1.1"})], {}),
    "A/A": ([*cells(), *cell_rows(NONE, [0.3, 0.4], "aa", 10, **CONFIG, **TIMED)], {}),
    "margin": (cells(), {"margins": {"": 0.02}}),
    "placebos": (cells(({"proxy": "shuffled:mnist5k"}, {"proxy": "dummy"}, MNIST)), {}),
    "holes": (cells(({**NONE, "finetune.freeze": "none"}, {**MNIST, "finetune.freeze": "none"},
                     {**MNIST, "finetune.freeze": "body"})), {"factors": ("proxy", "finetune.freeze")}),
    "bodies": (cells(tuple({"body.name": b} for b in ("swin-micro", "vit-base"))), {"factors": ("body.name",)}),
    "random bodies": (cells(**{"body.pretrain_fraction": 0.0}), {}),
    "part of a corpus": (cells(**{"body.pretrain_fraction": 0.25, "body.pretrain_steps": 100}), {}),
    "twelve levels": (cells(tuple({"proxy": f"p{i}"} for i in range(12)), seeds=2), {}),
    "tasks": (cells(tuple({"task": t, **p} for t in ("digits", "ecg") for p in (NONE, MNIST))), {"factors": ("task", "proxy")}),
    "tasks apart": ([*cells(({"task": "digits", **NONE},)), *cells(({"task": "ecg", **NONE},), **{**CONFIG, "finetune.lr": 0.1})],
                    {"factors": ("task",)}),
    "own data": (cells(tuple({**OWN, "embedder.epochs": n} for n in (1, 2))), {"factors": ("embedder.epochs",)}),
    "own content": (cells(**{**TIMED, "content.task": "a" * 64, "content.code": "b" * 64}), {}),
    "fixed draws": (cells(tuple({**of, "seed_varies": "data-split"} for of in (NONE, MNIST))), {}),
    "freezing": (cells(**{"finetune.freeze": "body", "finetune.freeze_epochs": "5"}), {}),
    "adapters": (cells(**{"finetune.lora_rank": 4, "finetune.grad_clip": 1.0, "finetune.accumulation": 2}), {}),
    "one at a time": (cells((NONE, MNIST)), {"design": {"name": "one_at_a_time"}}),
    "zip": (cells((NONE, MNIST)), {"design": {"name": "zip"}}),
    "half fraction": (cells((NONE, MNIST)), {"design": {"name": "fraction", "n_run": 8, "n_whole": 16, "resolution": 4}}),
    "two seeds": (cells(seeds=2), {}),
    "hours": (cells(**{**TIMED, "wall_time_s": 3.6e6}), {}),
}  # fmt: skip
FLAWS = {
    "nan": r"\bnan\b|\bNaN\b|\bNaT\b",
    "None": r"\bNone\b|\bnull\b",
    "empty brackets": r"\(\s*\)|\[\s*\]|\(,|\(;",
    "a space before punctuation": r" [,.;:)]",
    "double spaces": r"  ",
    "double punctuation": r"[,;:]{2}|\.\.|,\.|;\.",
    "1 with a plural": r"(?<![\d.,])1 (?:planned |final |A/A |more |resumed |fine-tuning |proxy |CPU-|GPU-)?"
                       r"(?:trials|cells|seeds|epochs|hosts|threads|pairs|candidates|sweeps|tasks|steps|seconds|minutes|hours"
                       r"|comparisons|samples|combinations|times|GPUs)\b",
    "several with a singular": r"(?<![\d.,])(?:[2-9]|[1-9]\d+) (?:trial|cell|seed|epoch|host|thread|pair|candidate|comparison"
                               r"|sweep|task|step|second|minute|hour|combination)\b(?!-)",
    "a wrong article": r"\ba [aeio]\w*|\ban [bcdfgjklpqtvwyz]\w*",
    "a wrong verb": r"\b1 (?:were|are|have|did not|trials? were)\b|\b(?:[2-9]|\d\d+) (?:was|has|is)\b",
    "a long identifier": r"\w{56,}",
    "a raw code word": r"\{|\}|'[a-z_]+':",
}  # fmt: skip


def check_prose(paragraphs):
    """Raises AssertionError with the passage of each flaw."""
    for text in paragraphs:
        assert text == text.strip() and text.endswith("."), text
        for name, pattern in FLAWS.items():
            match = re.search(pattern, text)
            assert not match, f"{name}: ...{text[max(0, match.start() - 60) : match.end() + 40]}..."
        for sentence in re.split(r"(?<=[a-z0-9)]\.) ", text):
            assert re.match(r"[A-Z0-9]", sentence), f"no capital letter: {sentence}"


def write_prose(folder, name):
    trials, about = SWEEPS[name]
    results = collected(folder, trials, **{"factors": ("proxy",), **about})
    return describe(results), compute_statement(results)


def describe(results):
    cells = read_cells(results)
    return describe_methods(results, cells, effects_of(results, cells), level=0.95, column=results.metric)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_prose_of_every_kind_of_sweep_can_be_pasted(tmp_path, name):
    methods, statement = write_prose(tmp_path, name)
    assert methods and statement
    check_prose((*methods, *statement))


@pytest.mark.parametrize(
    "text",
    ["5 trials on nan.", "Code: None.", "Metric ().", "We ran 1 trials.", "There are 2 trial.", "It is a error.", "No stop",
     "a b.", "Twice  spaced.", "So , no.", "Of 8 planned trials, 1 were lost.", f"Data {'x' * 60}."],
)  # fmt: skip
def test_the_reader_of_prose_sees_mistakes(text):
    with pytest.raises(AssertionError):
        check_prose([text])


# What the prose says ------------------------------------------------------------------------------


def read_prose(folder, name):
    return tuple(" ".join(part) for part in write_prose(folder, name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "one at a time",
            "We changed one factor at a time, from the cell in which all factors have their first level.",
        ),
        ("zip", "We ran the listed combinations of levels (zip)."),
        ("half fraction", "We ran 8 of the 16 combinations of the levels, a regular half fraction of resolution IV."),
        ("two seeds", "No comparison can be judged with 2 pairs: at least 3 are needed."),
    ],
)
def test_the_design_and_what_its_seeds_can_show_are_said(tmp_path, name, words):
    assert words in read_prose(tmp_path, name)[0]


def test_tuning_names_its_method_ranges_effort_seeds_and_rule(tmp_path):
    methods, statement = read_prose(tmp_path / "range", "tuned")
    for words in (
        "We tuned the peak learning rate of fine-tuning (0.0001 to 0.01 on a logarithmic scale) separately within each cell",
        "on validation data alone, by a sequential search with Optuna's TPE sampler.",
        "Each candidate was trained with the seed 1000000.", "Each cell had 2 candidates; all together took 4 trials.",
        "No replicate uses a seed of the search.", "The candidate with the best mean validation metric",
    ):  # fmt: skip
        assert words in methods, words
    assert "9 minutes went into 6 final trials (0.3 CPU-hours) and 6 minutes went into 4 trials of tuning" in statement
    methods, _ = read_prose(tmp_path / "lists", "tuned by lists")
    assert "the batch size (16) and the peak learning rate of fine-tuning (0.1 and 0.01) separately within" in methods
    assert "by a grid search over all combinations. Each candidate was trained with the seeds 8 and 9." in methods
    methods, _ = read_prose(tmp_path / "lost", "lost candidates")
    assert "all together took 2 trials, of which 2 were lost, because their workers died too often." in methods


def test_tables_that_do_not_name_the_search_say_so(tmp_path):
    trials, about = SWEEPS["tuned"]
    results = collected(tmp_path, trials, **about)
    (space,) = results.spaces
    assert results.searches[space]["fields"] == {"finetune.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    methods = " ".join(describe(replace(results, searches={})))
    assert "the tables do not name the method of the search and its ranges" in methods


def test_sweeps_with_rules_of_their_own_are_told_apart(tmp_path):
    first = {"tune": RANGE, "search": SEARCH, **{key: rule for key, rule in RULES.items() if key != "outcomes"}}
    second = {"tune": LIST, "search": {"method": "grid", "seeds": [8], "candidates": None}}
    other = ({"proxy": "other"},)
    collected(tmp_path, [*cells(), *searched(2)], name="first", **first)
    collected(
        tmp_path, [*cells(other), *searched(1, levels=other)], name="second", **second, outcomes={"lost": {"retry": 2}}
    )
    results = r.collect([tmp_path / "first", tmp_path / "second"], tmp_path / "both")
    methods = describe(results)
    check_prose((*methods, *compute_statement(results)))
    for words in (
        "The trials come from 2 sweeps: first and second.", "In the sweep first, we tuned the peak learning rate",
        "In the sweep second, we tuned the batch size (16) and the peak learning rate of fine-tuning (0.1 and 0.01)",
        "The batch size was 1 in sweeps that did not tune it.", "A trial of the sweep first was stopped after 1 second.",
        "Trials of the sweep second that were lost, because their workers died too often, were run again, up to 2 times.",
    ):  # fmt: skip
        assert words in " ".join(methods), words


def test_trials_of_every_status_are_told_apart(tmp_path):
    methods, statement = read_prose(tmp_path, "every status")
    assert (
        "Of 13 planned trials, 6 ended well; 1 failed, 1 diverged, 1 ran out of memory, 1 exceeded the time limit, 1 was"
        " stopped early by the pruning rule, 1 was lost, because its worker died too often, and 1 has not run to an end."
    ) in methods
    assert "Means leave out trials that did not end well." in methods
    assert (
        "1 trial did not record its hardware and adds nothing to CPU-hours and GPU-hours." in statement
    )  # the pruned one
    assert (
        "10 trials ran on a CPU (AMD EPYC, 2 threads per trial) and 1 trial ran on hardware that the tables do not name"
        in (statement)
    )
    assert "leave out 2 trials without a recorded time (not run to an end, or lost)" in statement
    methods, _ = read_prose(tmp_path / "worst", "worst")
    assert "Of the rest, 1 counts as the worst trial of the task. Means leave out the others." in methods


def test_rules_that_end_trials_are_named(tmp_path):
    methods, statement = read_prose(tmp_path, "rules")
    for words in (
        "Trials, replicates included, that did badly on validation data were stopped early by ASHA, which gave each 1"
        " fine-tuning epoch and kept one in 3 at each rung.",
        "A trial was stopped after 1 second.", "Trials that ran out of memory were run again, up to 1 time.",
        "The budget of the sweep was limited to 1 trial and 2.5 CPU-hours.",
    ):  # fmt: skip
        assert words in methods, words
    assert "failed attempts of trials that were run again" in statement


def test_hours_have_purposes_and_hardware_has_a_name(tmp_path):
    _, statement = read_prose(tmp_path / "gpu", "GPU and CPU")
    assert "All 6 trials took 9 minutes of wall time in total. This is 0.3 CPU-hours" in statement
    assert "0.3 CPU-hours (wall time times threads) and 0.0375 GPU-hours." in statement
    assert (
        "3 trials ran on a GPU (NVIDIA H200, 0.5 GPUs per trial, 2 threads per trial) and 3 trials ran on a CPU"
        in statement
    )
    assert "The software was orca-sweep 1.0 with torch 2.1 and numpy 2.0." in statement
    _, statement = read_prose(tmp_path / "none", "no device")
    assert (
        "All 6 trials ran on hardware that the tables do not name, on a host that the tables do not name." in statement
    )
    assert "CPU-hours (wall" not in statement and "no GPU was used" not in statement
    _, statement = read_prose(tmp_path / "long", "hours")
    assert "All 6 trials took 6,000 hours of wall time in total. This is 12,000 CPU-hours" in statement


def test_what_the_body_and_the_embedder_were_is_said(tmp_path):
    methods, _ = read_prose(tmp_path / "part", "part of a corpus")
    assert "All trials used the body swin-micro, pre-trained on a share of 0.25 of its corpus for 100 steps." in methods
    assert "Its learning rate was multiplied by 0.2 after step 10, counted from 0." in methods  # 40 comes after the end
    methods, _ = read_prose(tmp_path / "random", "random bodies")
    assert "All trials used the body swin-micro, randomly initialised." in methods
    methods, _ = read_prose(tmp_path / "placebos", "placebos")
    assert "The proxy shuffled:mnist5k has permuted labels, as a placebo. The proxy dummy is noise" in methods
    methods, _ = read_prose(tmp_path / "apart", "tasks apart")
    assert "The peak learning rate of fine-tuning was 0.001 for digits and 0.1 for ecg." in methods
    methods, _ = read_prose(tmp_path / "holes", "holes")
    assert (
        "the proxy (none, mnist5k) and the freeze schedule (none, body). These are 3 of the 4 combinations" in methods
    )
    methods, _ = read_prose(tmp_path / "freezing", "freezing")
    assert (
        "the freeze schedule body. A frozen phase without a length of its own lasted until the end of epoch 5."
        in methods
    )


def test_words_of_counts_lists_and_times():
    assert [join_words(list("abc")[:n]) for n in range(4)] == ["nothing", "a", "a and b", "a, b, and c"]
    assert join_names(f"p{i}" for i in range(12)) == "p0, p1, p2, …, and p11 (12 in all)"
    assert shorten_list(f"p{i}" for i in range(12)) == "12 levels from p0 to p11"
    assert len(join_names(["x" * 2000])) < 50
    assert by_text({"a": "x", "b": "x", "c": "y"}) == "x (a and b); y (c)" and by_text({"a": "x", "b": "x"}) == "x"
    assert [format_time(s) for s in (1, 90, 3600, 3.6e6)] == ["1 second", "1.5 minutes", "1 hour", "1,000 hours"]
    assert count_statuses({"ok": 3, "lost": 2, "pruned": 1}) == (
        "2 were lost, because their workers died too often and 1 was stopped early by the pruning rule"
    )
