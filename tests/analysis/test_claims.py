"""The study's claims on tables with known truth: words, verdicts, error rates, and why something is not judged."""

import csv
import io
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orca_sweep import results as r
from orca_sweep.analysis import claims
from orca_sweep.analysis.cells import read_task_cells
from orca_sweep.analysis.judging import Judge
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.study import CLAIMS
from orca_sweep.analysis.writing import NOTHING
from orca_sweep.errors import InputError
from orca_sweep.space.manifest import write_manifest
from orca_sweep.trial import make_config
from tests.builders.cells import with_values
from tests.builders.claims import (
    DIMS,
    FACTORS,
    NAIVE,
    SEEDS,
    cell,
    frozen,
    noise,
    pretrained,
    runs,
    tables,
    trained,
    world,
)
from tests.builders.in_process import run_here as orca
from tests.builders.manifests import sweep_manifest
from tests.builders.tables import collected, trial

REPO = Path(__file__).resolve().parents[2]


def find(judged_claims, claim):
    return next(finding for finding in judged_claims.findings if finding.claim.id == claim)


def judged(results, claim, margin=("0.01",), **more):
    """The finding on a claim, and its tasks by name."""
    finding = find(claims.compute(results, claims.Options(margin=margin, **more)), claim)
    return finding, {task.task: task for task in finding.tasks}


def words(task):
    return [judgement.word for judgement in task.judgements]


def lines(judged_claims):
    return list(csv.DictReader(io.StringIO(claims.numbers(judged_claims))))


# Known truths -------------------------------------------------------------------------------------

SAME, LESS, MORE = 0.3, 0.2, 0.4


@pytest.mark.parametrize(
    ("claim", "task", "truth", "says"),
    [
        ("1", "image", {"amounts": {5: SAME, 20: SAME}}, "supports"),
        ("1", "image", {"amounts": {5: SAME, 20: MORE}}, "supports"),
        ("1", "image", {"amounts": {5: SAME, 20: LESS}}, "contradicts"),
        ("2", "signal", {"amounts": {5: LESS, 20: LESS}}, "supports"),
        ("2", "signal", {"amounts": {5: LESS, 20: MORE}}, "supports"),
        ("2", "signal", {"amounts": {1: SAME, 5: LESS, 20: LESS}}, "supports"),
        ("2", "signal", {"amounts": {5: SAME, 20: SAME}}, "contradicts"),
        ("2", "signal", {"amounts": {5: LESS, 20: 0.1}}, "contradicts"),
        ("3", "image", {"amounts": {20: LESS}, "proxies": {"photo-patches": LESS, "dummy": LESS}}, "supports"),
        ("3", "image", {"amounts": {20: LESS}, "proxies": {"photo-patches": LESS, "dummy": SAME}}, "contradicts"),
        ("4b", "image", {"amounts": {20: 0.1}, "freezes": {"body": MORE, "embedder": LESS}}, "supports"),
        ("4b", "image", {"amounts": {20: 0.1}, "freezes": {"body": LESS, "embedder": MORE}}, "contradicts"),
        ("4b", "image", {"amounts": {20: 0.1}, "freezes": {"body": LESS, "embedder": LESS}}, "contradicts"),
        ("4b", "image", {"amounts": {20: LESS}, "freezes": {"body": LESS, "embedder": LESS}}, "contradicts"),
        ("5", "image", {"amounts": {20: LESS}, "fractions": {0: LESS, 0.1: MORE}}, "supports"),
        ("5", "image", {"amounts": {20: SAME}, "fractions": {0: LESS, 0.1: MORE}}, "supports"),
        ("5", "image", {"amounts": {20: LESS}, "fractions": {0: SAME, 0.1: LESS}}, "contradicts"),
    ],
)
def test_each_claim_is_supported_and_contradicted_by_what_it_says(tmp_path, claim, task, truth, says):
    finding, by_task = judged(tables(tmp_path, world(task, **truth)), claim)
    assert (by_task[task].says, by_task[task].unjudged) == (says, None)
    kind = {"supports": "supported", "contradicts": "contradicted"}[says]
    if claim == "5":  # one task cannot show that tasks differ
        kind = "undecided"
    assert (finding.kind, finding.verdict) == (kind, f"{kind}, resting on one task ({task})")
    assert (finding.share.n_hits, finding.share.n) == (int(says == "supports"), 1)


def test_the_numbers_of_a_contrast_are_the_paired_statistics(tmp_path):
    results = tables(tmp_path, world("image", amounts={20: LESS}))
    _, by_task = judged(results, "1")
    (judgement,) = by_task["image"].judgements
    errors = results.trials["test_metric_best"].to_numpy()
    differences = errors[SEEDS:] - errors[:SEEDS]
    half = 2.570582 * differences.std(ddof=1) / math.sqrt(SEEDS)  # t(0.975, 5) = 2.570582
    assert (judgement.n, judgement.estimate) == (SEEDS, pytest.approx(differences.mean()))
    assert (judgement.low, judgement.high) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), rel=1e-5
    )
    assert (judgement.word, judgement.margin, judgement.n_family) == ("helps", 0.01, 1)
    assert judgement.name == "embedder.epochs 20 against naive"
    assert judgement.reference == pytest.approx(errors[:SEEDS].mean())
    assert judgement.cells == tuple(results.trials["cell_id"].unique()[::-1])


def test_a_claim_over_tasks_is_counted_and_its_contrasts_are_one_family(tmp_path):
    two = [world("image", amounts={20: SAME}), world("picture", amounts={20: LESS, 5: SAME})]
    other = [world("signal", amounts={20: LESS, 40: LESS})]
    finding, by_task = judged(tables(tmp_path, *two, *other), "1")
    assert list(by_task) == ["image", "picture"]  # the third is 1D
    assert finding.verdict == "contradicted: 1 of 2 tasks supports it, 1 contradicts it"  # one of two is no four in six
    assert (finding.share.n_hits, finding.share.n) == (1, 2)
    assert (finding.share.low, finding.share.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, by hand
    assert {judgement.n_family for task in finding.tasks for judgement in task.judgements} == {3}
    assert [judgement.name for judgement in by_task["picture"].judgements] == [
        "embedder.epochs 5 against naive",
        "embedder.epochs 20 against naive",
    ]
    signal, _ = judged(r.read_results(tmp_path / "tables"), "2")
    assert signal.kind == "supported"


def test_a_claim_about_some_tasks_needs_one_of_either_kind(tmp_path):
    needed = world("image", amounts={20: LESS}, fractions={0: SAME})
    idle = world("picture", amounts={20: LESS}, fractions={0: LESS})
    finding, _ = judged(tables(tmp_path / "a", needed, idle), "5")
    assert (finding.kind, finding.share.n_hits, finding.share.n) == ("supported", 1, 2)
    assert finding.summary == "supported: helps on 1 of 2 tasks, does not help on 1 of 2 tasks"
    unknown = world("signal", amounts={20: LESS}, fractions={0: LESS + 0.01})
    assert judged(tables(tmp_path / "b", needed, unknown), "5")[0].kind == "undecided"
    lone = judged(tables(tmp_path / "c", needed), "5")[0]
    assert (lone.kind, lone.add[:12]) == ("undecided", "another task")
    again = world("picture", amounts={20: LESS}, fractions={0: SAME})
    assert judged(tables(tmp_path / "d", needed, again), "5")[0].kind == "contradicted"


def test_undecided_tasks_are_counted_as_such(tmp_path):
    vague = world("picture", amounts={20: SAME + 0.01})
    finding, by_task = judged(tables(tmp_path, world("image", amounts={20: SAME}), vague), "1")
    assert (words(by_task["picture"]), by_task["picture"].says) == (["undecided"], "undecided")
    assert finding.verdict == "undecided: 1 of 2 tasks supports it, 1 is undecided"
    assert finding.share.n == 1
    assert judged(tables(tmp_path / "b", vague), "1")[0].verdict == "undecided, resting on one task (picture)"


# OTDD and error -----------------------------------------------------------------------------------


def test_otdd_and_error_go_together_or_not(tmp_path):
    finding, by_task = judged(tables(tmp_path, runs("image", 1), runs("picture", -1)), "6", margin=())
    assert words(by_task["image"]) == ["tracks"]
    assert words(by_task["picture"]) == ["does not track"]
    assert finding.verdict == "contradicted: 1 of 2 tasks supports it, 1 contradicts it"
    (judgement,) = by_task["image"].judgements
    assert (judgement.n, judgement.n_seeds, judgement.margin, judgement.n_family) == (4 * SEEDS, SEEDS, 0.3, 2)
    assert judgement.name == "otdd-exact and error, 4 amounts (5 to 40)"
    trials = r.read_results(tmp_path / "tables").trials.query("task == 'image'")
    by_hand = trials[["objective_last", "test_metric_best"]].rank().corr().iloc[0, 1]
    assert judgement.estimate == pytest.approx(by_hand)
    assert by_task["image"].margin is None  # no difference in the task's unit is asked about
    loose = tables(tmp_path / "b", runs("image", 1, spread=0.04))
    assert words(judged(loose, "6", least_correlation=0.2)[1]["image"]) == ["tracks"]
    assert words(judged(loose, "6", least_correlation=0.95)[1]["image"]) == ["does not track"]


def test_the_power_of_a_correlation_is_said_and_what_would_decide_it(tmp_path):
    finding, by_task = judged(tables(tmp_path, runs("image", 1, spread=0.2)), "6", margin=())
    task = by_task["image"]
    assert task.says == "undecided"
    assert (task.power.is_correlation, task.power.n) == (True, SEEDS)
    assert 0.3 < task.detectable < 1 and 0 < task.power.chance_of_none < 0.8
    assert "rank correlation" in finding.power and "least that counts was in reach on 0 of 1 task" in finding.power
    assert task.add.startswith("more seeds: by the spread seen, ")
    assert "bring the least that counts within reach" in task.add
    notes = "\n".join(
        claims.build_tables(claims.compute(r.read_results(tmp_path / "tables"), claims.Options()))[-1].notes
    )
    assert f"image: {SEEDS} seeds could have shown a rank correlation of" in notes


def test_trials_of_another_objective_and_few_amounts_say_nothing_of_otdd(tmp_path):
    mmd = [{**planned, "config": {**planned["config"], "embedder.objective": "mmd"}} for planned, _ in runs("image", 1)]
    rows = [row for _, row in runs("image", 1)]
    finding, _ = judged(tables(tmp_path / "a", list(zip(mmd, rows, strict=True))), "6")
    assert "image: no cell whose embedder was trained towards an OTDD" in finding.verdict
    finding, _ = judged(tables(tmp_path / "b", runs("image", 1, (5, 20))), "6")
    assert "at most 2 amounts of embedder training, all else equal, and the claim needs 3" in finding.verdict


def test_seeds_that_lack_a_trial_are_named_and_left_out_when_asked(tmp_path):
    gone = runs("image", 1)
    gone[2][1].update(status="failed", test_metric_best=None)
    results = tables(tmp_path, gone)
    finding, by_task = judged(results, "6")
    assert finding.verdict.endswith("image: seed 2 lacks trials; --complete-pairs judges from the remaining seeds")
    assert by_task["image"].judgements[0].gaps == "2 (embedder.epochs 5 failed)"
    _, by_task = judged(results, "6", complete_pairs_only=True)
    (judgement,) = by_task["image"].judgements
    assert (judgement.word, judgement.n, judgement.n_seeds) == ("tracks", 4 * (SEEDS - 1), SEEDS - 1)


def test_too_few_seeds_and_perfect_ranks_have_no_interval_and_say_so(tmp_path):
    two = [(planned, row) for planned, row in runs("image", 1) if planned["seed"] < 2]
    assert "image: fewer than 3 seeds: no interval" in judged(tables(tmp_path / "a", two), "6")[0].verdict
    exact = [
        trial({"task": "image", **trained(epochs)}, seed, epochs / 10, dims=2, objective_last=9.0 - epochs)
        for epochs in (1, 2, 3)
        for seed in (0, 1, 2)
    ]
    assert "a perfect rank correlation: no interval" in judged(tables(tmp_path / "b", exact), "6")[0].verdict


# Error rates --------------------------------------------------------------------------------------


@pytest.fixture(params=[200, pytest.param(2000, marks=pytest.mark.long)])
def n_runs(request):
    """How many tables of noise an error rate is counted over."""
    return request.param


def most_of(n_runs):
    """The highest rate of wrong words to expect at a nominal 5%: three standard errors over n_runs above it."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_runs)


def least_of(n_runs):
    """The lowest rate of wrong words to expect at a nominal 5%."""
    return min(0.02, 0.05 - 3 * math.sqrt(0.05 * 0.95 / n_runs))  # Holm is a little strict


MARGIN = 0.01
ONE, TWO, THREE, FIRST, FOUR, FIVE, SIX, SEVEN, EIGHT = CLAIMS


def make_judge(margins, columns):
    return Judge(margins=margins, named={}, columns=columns, level=0.95, complete=False, least=0.3)


def simulated(folder, claim, cells, *, n_runs, sd=0.004, n_seeds=8, tasks=("image",), margin=MARGIN):
    """The findings on a claim in n_runs tables of normal noise.

    ``cells`` holds levels and their true difference from the first cell. Half of the noise's variance is shared within a seed, as
    paired trials share their batches.
    """
    parts = [cell(task, levels, SAME, range(n_seeds)) for task in tasks for levels, _ in cells]
    shifts = np.array([shift for _, shift in cells] * len(tasks))
    rows = {part[0][0]["cell_id"]: i for i, part in enumerate(parts)}
    base = read_task_cells(tables(folder, *parts))
    judge = make_judge(dict.fromkeys(tasks, Margin(value=margin, source="given", kind="given")), FACTORS)
    rng = np.random.default_rng(0)
    findings = []
    for _ in range(n_runs):
        shared = np.repeat(rng.normal(0, sd, (len(tasks), n_seeds)), len(cells), 0)
        values = shifts[:, None] + shared + rng.normal(0, sd, (len(parts), n_seeds))
        findings.append(judge.judge_claim(claim, [with_task_values(task, values, rows) for task in base]))
    return findings


def with_task_values(task, values, rows):
    by_seed = {cell_id: dict(enumerate(values[row].tolist())) for cell_id, row in rows.items()}
    return replace(task, cells=tuple(with_cell_values(own, by_seed[own.cell.cell_id]) for own in task.cells))


def with_cell_values(configured, values, **measures):
    return replace(configured, cell=with_values(configured.cell, values, **measures))


def rate(findings, holds):
    return sum(map(holds, findings)) / len(findings)


def any_word(*which):
    return lambda finding: any(word in which for task in finding.tasks for word in words(task))


def is_(kind):
    return lambda finding: finding.kind == kind


def task_says(says):
    """A claim about some tasks is never decided by one."""
    return lambda finding: finding.tasks[0].says == says


def amounts(*shifts):
    """Naive fine-tuning, and the true change by 5, 10, 20 ... embedder epochs."""
    return [(NAIVE, 0), *((trained(5 * 2**i), shift) for i, shift in enumerate(shifts))]


def test_without_an_effect_helps_and_hurts_are_said_at_most_at_the_nominal_rate(tmp_path, n_runs):
    alone = simulated(tmp_path / "a", ONE, amounts(0), sd=0.01, n_seeds=5, margin=0, n_runs=n_runs)
    assert (
        least_of(n_runs) <= rate(alone, any_word("helps", "hurts")) <= most_of(n_runs)
    )  # the paired t test's own rate
    two = ("image", "picture")
    six = simulated(tmp_path / "b", ONE, amounts(0, 0, 0), sd=0.01, n_seeds=5, tasks=two, margin=0, n_runs=n_runs)
    assert {judgement.n_family for task in six[0].tasks for judgement in task.judgements} == {6}
    assert least_of(n_runs) <= rate(six, any_word("helps", "hurts")) <= most_of(n_runs)  # of any of six: Holm
    within = simulated(tmp_path / "c", ONE, amounts(0, 0, 0), sd=0.01, n_seeds=5, tasks=two, n_runs=n_runs)
    assert rate(within, any_word("helps", "hurts")) <= most_of(n_runs)
    assert rate(within, is_("contradicted")) <= most_of(n_runs)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_effect_at_the_margin_is_seldom_called_none(tmp_path, sign, n_runs):
    findings = simulated(tmp_path / "a", ONE, amounts(sign * MARGIN), n_runs=n_runs)
    right, wrong = ("hurts", "helps") if sign > 0 else ("helps", "hurts")
    assert least_of(n_runs) <= rate(findings, any_word("no meaningful difference")) <= most_of(n_runs)
    assert rate(findings, any_word(right)) <= most_of(n_runs)
    assert rate(findings, any_word(wrong)) == 0
    three = [(trained(), 0), (trained(proxy="photo-patches"), 0), (trained(proxy="dummy"), sign * MARGIN)]
    findings = simulated(tmp_path / "b", THREE, three, n_runs=n_runs)
    assert rate(findings, is_("supported")) <= most_of(n_runs)
    assert rate(findings, is_("contradicted")) <= most_of(n_runs)


def test_a_large_effect_is_called_almost_always(tmp_path, n_runs):
    findings = simulated(
        tmp_path / "a", ONE, amounts(-0.1, -0.1), sd=0.01, n_seeds=5, tasks=("image", "picture"), n_runs=n_runs
    )
    assert rate(findings, is_("contradicted")) >= 0.98
    findings = simulated(tmp_path / "b", ONE, amounts(0.1), sd=0.01, n_seeds=5, n_runs=n_runs)
    assert rate(findings, any_word("hurts")) >= 0.98


def test_no_effect_and_one_well_within_the_margin_are_called_none(tmp_path, n_runs):
    findings = simulated(tmp_path / "a", ONE, amounts(0, 0), sd=0.002, n_runs=n_runs)
    assert rate(findings, is_("supported")) >= 0.98
    small = simulated(tmp_path / "b", ONE, amounts(-0.004), sd=0.002, n_runs=n_runs)
    assert rate(small, any_word("no meaningful difference")) >= 0.98  # surely not zero, and surely not meaningful
    assert rate(small, any_word("helps")) <= most_of(n_runs)


def test_claims_of_several_contrasts_are_seldom_wrong_at_their_borders(tmp_path, n_runs):
    useless = simulated(tmp_path / "a", TWO, amounts(-MARGIN, 0), tasks=("signal",), n_runs=n_runs)
    assert rate(useless, is_("supported")) <= most_of(n_runs)
    more = simulated(tmp_path / "b", TWO, amounts(-0.05, -0.05 - MARGIN), tasks=("signal",), n_runs=n_runs)
    assert rate(more, is_("supported")) <= most_of(n_runs)
    tie = [(trained(), 0), (frozen("embedder"), 0.05), (frozen("body"), 0.05 + MARGIN)]
    assert rate(simulated(tmp_path / "c", FOUR, tie, n_runs=n_runs), is_("supported")) <= most_of(n_runs)
    border = [(trained(), 0), (pretrained(0), MARGIN)]
    at_border = simulated(tmp_path / "d", FIVE, border, tasks=("image", "signal"), n_runs=n_runs)
    assert rate(at_border, is_("supported")) <= most_of(n_runs)


def test_claims_of_several_contrasts_are_found_where_they_hold(tmp_path, n_runs):
    enough = simulated(tmp_path / "a", TWO, amounts(-0.05, -0.05), sd=0.003, tasks=("signal",), n_runs=n_runs)
    assert rate(enough, is_("supported")) >= 0.9
    body = [(trained(), 0), (frozen("embedder"), 0.02), (frozen("body"), 0.1)]
    assert rate(simulated(tmp_path / "b", FOUR, body, n_runs=n_runs), is_("supported")) >= 0.98
    needed = [(trained(), 0), (pretrained(0.1), 0.04), (pretrained(0), 0.05)]
    alike = simulated(tmp_path / "c", FIVE, needed, tasks=("image", "signal"), n_runs=n_runs)
    assert rate(alike, is_("contradicted")) >= 0.98


def test_rank_correlations_get_wrong_words_at_most_at_the_nominal_rate(tmp_path, n_runs):
    results = tables(tmp_path, runs("image", 1, (5, 10, 20, 40, 80)))
    (base,) = read_task_cells(results)
    judge = make_judge({}, tuple(results.trials))
    rng = np.random.default_rng(1)

    def verdicts_at(rho_s, n_runs=30):
        r_p = 2 * math.sin(math.pi * rho_s / 6)  # Pearson's r of normal variables with that Spearman's rho
        for _ in range(n_runs):
            x, e = rng.normal(size=(2, len(base.cells), SEEDS))
            y = r_p * x + math.sqrt(1 - r_p**2) * e
            drawn = [
                with_cell_values(own, dict(enumerate(b)), objective_last=dict(enumerate(a)))
                for own, a, b in zip(base.cells, x.tolist(), y.tolist(), strict=True)
            ]
            yield judge.judge_claim(SIX, [replace(base, cells=tuple(drawn))])

    at_border = [words(finding.tasks[0]) for finding in verdicts_at(0.3, n_runs)]
    # Three standard errors of so many runs, and the jackknife's interval is an approximation.
    assert at_border.count(["does not track"]) <= n_runs * 0.05 + 3 * math.sqrt(n_runs * 0.05 * 0.95) + 0.0125 * n_runs
    assert at_border.count(["tracks"]) <= n_runs * 0.025 + 3 * math.sqrt(n_runs * 0.025 * 0.975) + 0.0125 * n_runs
    for rho_s, word in ((0.95, "tracks"), (-0.8, "does not track")):
        assert sum(words(finding.tasks[0]) == [word] for finding in verdicts_at(rho_s)) >= 27
    assert sum(words(finding.tasks[0]) == ["tracks"] for finding in verdicts_at(0.0)) <= 1


# What is compared ---------------------------------------------------------------------------------


def test_only_cells_that_are_equal_in_all_else_are_compared(tmp_path):
    short, long = {"finetune.epochs": 10}, {"finetune.epochs": 20}
    for name, part in (
        ("one", cell("image", {**NAIVE, **short}, SAME)),
        ("two", cell("image", {**trained(), **long}, LESS)),
        ("three", cell("image", {**NAIVE, **long}, SAME)),
    ):
        collected(tmp_path, part, FACTORS, name=name)
    finding, by_task = judged(r.collect([tmp_path / "one", tmp_path / "two"], tmp_path / "t"), "1")
    assert finding.verdict.endswith(
        "image: no naive cell that equals a cell with a trained embedder in all other fields"
    )
    every = r.collect([tmp_path / name for name in ("one", "two", "three")], tmp_path / "u")
    _, by_task = judged(every, "1")
    (judgement,) = by_task["image"].judgements
    assert judgement.cells[1] == every.trials.query("space == 'three'")["cell_id"].iloc[0]
    assert "finetune.epochs 20" in by_task["image"].setting


def test_what_a_rule_of_the_space_sets_for_a_cell_is_no_obstacle_and_is_said(tmp_path):
    body = cell("image", {**frozen("body"), "finetune.lr": 0.01}, MORE)
    rest = [cell("image", {**levels, "finetune.lr": 0.001}, LESS) for levels in (trained(), frozen("embedder"))]
    judged_claims = claims.compute(tables(tmp_path, body, *rest), claims.Options(margin=["0.01"]))
    names = {judgement.name: judgement.differs for judgement in find(judged_claims, "4b").tasks[0].judgements}
    assert names == {
        "body frozen forever against none": "finetune.lr 0.01 against 0.001",
        "embedder frozen forever against none": "",
        "body frozen forever against embedder": "finetune.lr 0.01 against 0.001",
    }
    notes = "\n".join(claims.build_tables(judged_claims)[1].notes)
    assert "a rule of the space also sets finetune.lr 0.01 against 0.001." in notes


def test_a_learning_rate_searched_in_each_cell_is_one_setting(tmp_path):
    parts = []
    for levels, lr, value in ((NAIVE, 0.1, SAME), (trained(), 0.2, LESS)):
        levels = {"task": "image", **levels}
        parts.append([trial(levels, 9, 0.5, "search", **{"finetune.lr": x}) for x in (0.1, 0.2)])
        parts.append([trial(levels, s, value + noise(str(lr), s), dims=2, **{"finetune.lr": lr}) for s in range(SEEDS)])
    tuned = tables(tmp_path, *parts, tune={"finetune.lr": []})
    _, by_task = judged(tuned, "1")
    assert words(by_task["image"]) == ["helps"]
    # A cell with a searched rate never matches a cell without a search, whatever the rate.
    plain = collected(
        tmp_path, [planned for part in parts[2:] for planned in part], FACTORS, name="a", tune={"finetune.lr": []}
    )
    naive = cell("image", {**NAIVE, "finetune.lr": 0.2}, SAME)
    collected(tmp_path, naive, FACTORS, name="b")
    both = r.collect([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert plain.tuned == both.tuned == ("finetune.lr",)
    assert "no naive cell that equals a cell" in judged(both, "1")[0].verdict


def test_a_claim_is_judged_at_one_setting_which_is_said_and_can_be_named(tmp_path):
    levels = [(lr, fraction) for lr in (0.1, 0.2) for fraction in (0, 1.0)]
    parts = [
        cell("image", {**cell_levels, "finetune.lr": lr, "body.pretrain_fraction": fraction}, value)
        for lr, fraction in levels
        for cell_levels, value in ((NAIVE, SAME), (trained(), LESS if lr == 0.2 else SAME))
    ]
    results = collected(tmp_path, [planned for part in parts for planned in part], (*FACTORS, "finetune.lr"))
    judged_claims = claims.compute(results, claims.Options(margin=["0.01"]))
    task = judged_claims.findings[0].tasks[0]
    assert task.setting == "proxy mnist5k, body.pretrain_fraction 1, finetune.lr 0.1"
    assert (task.n_other_settings, task.says) == (3, "supports")
    notes = claims.build_tables(judged_claims)[1].notes
    assert notes[0] == f"image: judged at {task.setting}; the tables have 3 other settings (--base chooses)."
    named, by_task = judged(results, "1", base=["finetune.lr=0.2"])
    assert (by_task["image"].says, by_task["image"].n_other_settings) == ("contradicts", 1)
    # What a claim compares is no part of the setting: the base does not take it away.
    _, by_task = judged(results, "5", base=["finetune.lr=0.2", "body.pretrain_fraction=0"])
    assert by_task["image"].setting == "proxy mnist5k, finetune.lr 0.2"
    with pytest.raises(InputError, match="no cell has that level of finetune.lr. Levels: 0.1, 0.2"):
        claims.compute(results, claims.Options(base=["finetune.lr=0.3"]))


def test_the_reference_proxy_is_the_first_real_one_or_the_one_named(tmp_path):
    proxies = {"dummy": SAME, "photo-patches": LESS, "shuffled:mnist5k": SAME}
    parts = [cell("image", trained(proxy=proxy), value) for proxy, value in proxies.items()]
    results = tables(tmp_path, *parts, cell("image", trained(), SAME))
    _, by_task = judged(results, "3")
    assert [judgement.name for judgement in by_task["image"].judgements] == [
        "proxy mnist5k against photo-patches",
        "proxy dummy against photo-patches",
        "proxy shuffled:mnist5k against photo-patches",
    ]
    assert by_task["image"].n_other_settings == 0  # the same cells with another reference
    _, by_task = judged(results, "3", base=["proxy=mnist5k"])
    assert words(by_task["image"]) == ["helps", "no meaningful difference", "no meaningful difference"]


def test_the_longest_freeze_that_both_have_is_taken(tmp_path):
    parts = [cell("image", trained(), LESS)]
    parts += [
        cell("image", frozen(*levels), SAME) for levels in (("body", "forever"), ("body", "5"), ("embedder", "5"))
    ]
    parts += [
        cell("image", frozen(*levels), SAME) for levels in (("body", "10"), ("embedder", "10"), ("both", "forever"))
    ]
    _, by_task = judged(tables(tmp_path, *parts), "4a")
    assert by_task["image"].judgements[0].name == "body frozen for 10 epochs against none"
    assert by_task["image"].setting == "proxy mnist5k"


# What cannot be judged ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "parts", "because"),
    [
        ("1", [("signal", NAIVE), ("signal", trained())], "no task in them is 2D (signal is 1D)"),
        ("2", [("image", NAIVE), ("image", trained())], "no task in them is 1D (image is 2D)"),
        (
            "1",
            [("unheard", NAIVE), ("unheard", trained())],
            "unheard: the tables do not say whether it is 1D or 2D (column dims)",
        ),
        ("1", [("image", NAIVE)], "image: no cell with a trained embedder (a proxy, and embedder.epochs above 0)"),
        ("1", [("image", trained())], "image: no naive cell (proxy none, or embedder.epochs 0)"),
        (
            "2",
            [("signal", NAIVE), ("signal", trained())],
            "signal: only one amount of embedder training (embedder.epochs 20), and the claim needs two",
        ),
        ("2", [("signal", NAIVE)], "signal: no cell with a trained embedder (a proxy, and embedder.epochs above 0)"),
        ("3", [("image", NAIVE)], "image: no cell with a trained embedder (a proxy, and embedder.epochs above 0)"),
        ("3", [("image", NAIVE), ("image", trained())], "image: only one proxy (mnist5k), and the claim needs two"),
        (
            "3",
            [("image", trained(5)), ("image", trained(proxy="dummy"))],
            "image: no two cells that differ only in the proxy (mnist5k, dummy)",
        ),
        ("4b", [("image", trained())], "image: no cell with finetune.freeze body or with finetune.freeze embedder"),
        (
            "4b",
            [("image", trained()), ("image", frozen("body", "5")), ("image", frozen("embedder"))],
            "image: no three cells, all else equal, with nothing, the body and the embedder frozen, the last two to the end"
            " (finetune.freeze_epochs forever)",
        ),
        ("5", [("image", trained())], "image: no cell without pre-training (body.pretrain_fraction 0)"),
        ("5", [("image", pretrained(0))], "image: no cell with pre-training (body.pretrain_fraction above 0)"),
        (
            "5",
            [("image", pretrained(0)), ("image", trained(5))],
            "image: no two cells that differ only in pre-training",
        ),
        ("6", [("image", NAIVE)], "image: no cell whose embedder was trained towards an OTDD (embedder.objective"),
    ],
)
def test_what_is_missing_is_named(tmp_path, claim, parts, because):
    results = tables(tmp_path, *(cell(task, levels, SAME) for task, levels in parts))
    finding, _ = judged(results, claim)
    assert finding.kind == "cannot be judged"
    assert finding.verdict.startswith(f"cannot be judged from these rows, because {because}")
    assert math.isnan(finding.share.share)


def test_tasks_that_lack_the_same_are_named_together_and_the_others_are_judged(tmp_path):
    parts = [world("image"), world("picture"), world("signal")]
    results = tables(tmp_path, *parts)
    assert "because image, picture: no cell with a trained embedder" in judged(results, "1")[0].verdict
    some = tables(tmp_path / "b", world("image"), world("picture", amounts={20: SAME}))
    judged_claims, by_task = judged(some, "1")
    one = "supported, resting on one task (picture); 1 not judged"
    assert (judged_claims.verdict, by_task["image"].says) == (one, "cannot be judged")
    table = claims.build_tables(claims.compute(some, claims.Options(margin=["0.01"])))
    assert table[0].blocks[0][0][3:] == (one, "picture", NOTHING, NOTHING, "image", "1 of 1 [0.21, 1.00]")
    assert "image cannot be judged: no cell with a trained embedder" in "\n".join(table[1].notes)


def test_without_a_margin_nothing_is_judged_and_the_numbers_are_there(tmp_path):
    results = tables(tmp_path, world("image", amounts={20: LESS}))
    finding, by_task = judged(results, "1", margin=())
    assert finding.verdict.endswith(
        "image: there is no margin: fix one in the space (margin), give one (--margin), or run an A/A cell (aa)"
    )
    (judgement,) = by_task["image"].judgements
    assert (judgement.n, judgement.estimate, judgement.unjudged.reason) == (
        SEEDS,
        pytest.approx(-0.1, abs=2e-3),
        "no-margin",
    )
    # A fixed margin of 0 is a margin: any difference then counts.
    assert judged(results, "1", margin=["0"])[0].kind == "contradicted"


@pytest.mark.parametrize(
    ("margins", "aa", "given", "source"),
    [
        ({"": 0.02}, False, (), "fixed in the space s"),
        ({"": 0.02}, True, (), "fixed in the space s"),
        ({"": 0.02}, True, ("0.03",), "given for this analysis"),
        ({}, True, (), "the standard deviation of the difference between two seeds of one cell, from the A/A cell of"),
    ],
)
def test_the_margin_is_the_given_one_the_space_s_or_noise(tmp_path, margins, aa, given, source):
    again = [trial({"task": "image", **NAIVE}, s, SAME + noise("aa", s), "aa") for s in range(10, 14)] if aa else []
    _, by_task = judged(tables(tmp_path, world("image", amounts={20: LESS}), again, margins=margins), "1", given)
    assert by_task["image"].margin.source.startswith(source)
    assert len(by_task["image"].judgements) == 1  # the A/A cell is no cell of the claim


def test_one_seed_is_too_few(tmp_path):
    parts = [cell("image", levels, SAME, [0]) for levels in (NAIVE, trained())]
    finding, _ = judged(tables(tmp_path, *parts), "1")
    assert finding.verdict.endswith("because image: 1 pair, and at least 3 are needed")


def test_failed_and_missing_trials_are_named_and_judged_around_only_when_asked(tmp_path):
    broken = world("image", amounts={20: LESS})
    broken[-1][1].update(status="failed", test_metric_best=None)
    broken[SEEDS][1].update(status="lost")
    results = tables(tmp_path, broken)
    judged_claims, by_task = judged(results, "1")
    assert judged_claims.verdict.endswith(
        "image: seeds 0, 5 give no complete pair; --complete-pairs judges from the remaining seeds"
    )
    assert by_task["image"].judgements[0].gaps == "0 (lost); 5 (failed)"
    whole = claims.compute(results, claims.Options(margin=["0.01"]))
    caption = claims.build_tables(whole)[0].caption
    assert all(words in caption for words in ("10 of 12 planned trials are ok", "1 failed", "1 lost"))
    assert "seeds without a pair: 0 (lost); 5 (failed)." in "\n".join(claims.build_tables(whole)[1].notes)
    judged_claims, by_task = judged(results, "1", complete_pairs_only=True)
    assert (judged_claims.kind, by_task["image"].judgements[0].n) == ("contradicted", SEEDS - 2)


def test_a_contrast_that_decides_is_enough_where_another_cannot_be_judged(tmp_path):
    parts = [cell("image", NAIVE, SAME), cell("image", trained(5), SAME, [0, 1]), cell("image", trained(20), LESS)]
    finding, by_task = judged(tables(tmp_path, *parts), "1")
    assert (finding.kind, by_task["image"].judgements[0].unjudged.text[:8]) == ("contradicted", "2 pairs,")
    parts = [*parts[:2], cell("image", trained(20), SAME)]
    assert judged(tables(tmp_path / "b", *parts), "1")[0].kind == "cannot be judged"


def test_a_table_of_an_older_version_says_what_it_lacks(tmp_path):
    results = tables(tmp_path, world("image", amounts={5: SAME, 20: SAME}))
    older = replace(results, trials=results.trials.drop(columns=["dims", "objective_last"]))
    judged_claims = claims.compute(older, claims.Options(margin=["0.01"])).findings
    assert "image: the tables do not say whether it is 1D or 2D" in judged_claims[0].verdict
    assert "image: the tables do not say whether it is 1D or 2D" in judged_claims[1].verdict
    assert "the tables have no column objective_last" in find(claims.compute(older), "6").verdict
    split = results.trials.assign(dims=[1, 2] * (len(results.trials) // 2))
    assert (
        "do not say"
        in claims.compute(replace(results, trials=split), claims.Options(margin=["0.01"])).findings[0].verdict
    )


def test_sealed_tables_are_judged_on_validation_and_say_so(tmp_path):
    part = world("image", amounts={20: LESS})
    for planned, row in part:
        row |= {"val_metric_best": row["test_metric_best"] + 1.0}
        r.write_record(tmp_path / "s", {**row, "trial_id": planned["trial_id"], "cell_id": planned["cell_id"]}, [])
    write_manifest(tmp_path / "s", sweep_manifest(factors=FACTORS, trials=[planned for planned, _ in part]))
    sealed = r.collect([tmp_path / "s"], tmp_path / "t")
    judged_claims = claims.compute(sealed, claims.Options(margin=["0.01"]))
    assert (judged_claims.column, judged_claims.findings[0].kind) == ("val_metric_best", "contradicted")
    assert judged_claims.findings[0].tasks[0].judgements[0].reference == pytest.approx(1.35, abs=2e-3)
    assert (
        "val_metric_best (on validation: the test metrics of 12 ok trials are sealed ('orca-sweep reveal' shows them)"
        in claims.build_tables(judged_claims)[0].caption
    )
    with pytest.raises(InputError, match="the test metrics of 12 ok trials are sealed"):
        claims.compute(sealed, claims.Options(margin=["0.01"], metric="test_metric_best"))
    r.reveal(tmp_path / "s")
    shown = claims.build_tables(
        claims.compute(r.collect([tmp_path / "s"], tmp_path / "t"), claims.Options(margin=["0.01"]))
    )
    assert "judged on these rows by test_metric_best (on test; lower is better)" in shown[0].caption


def test_wrong_options_are_errors(tmp_path):
    results = tables(tmp_path, world("image"))
    for level in (0.5, 1.0):
        with pytest.raises(InputError, match="words need a level above 0.5 and below 1"):
            claims.compute(results, claims.Options(level=level))
    for least in (-0.1, 1.0):
        with pytest.raises(InputError, match="--least-correlation .*: must be 0 or more and below 1"):
            claims.compute(results, claims.Options(least_correlation=least))


# What is written ----------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path):
    """Tables that every claim can be judged on."""
    truth = {"freezes": {"body": MORE, "embedder": SAME}, "fractions": {0: SAME, 0.1: SAME}}
    steps = {"amounts": {5: LESS, 20: LESS, 40: LESS}, "proxies": {"dummy": LESS}, **truth}
    parts = [world(task, **steps) for task in DIMS]
    rng = np.random.default_rng(0)
    for _, row in (planned for part in parts for planned in part):
        row["objective_last"] = rng.normal(5, 1)
    return tables(tmp_path, *parts, margins={"": 0.01})


def test_numbers_have_a_line_per_contrast_and_one_where_there_is_none(whole, tmp_path):
    judged_claims = claims.compute(whole)
    rows = lines(judged_claims)
    count = [sum(len(task.judgements) for task in finding.tasks) for finding in judged_claims.findings]
    assert (
        [
            sum(row["claim"] == f.claim.id and row["contrast"] != "" and row["is_counted"] == "true" for row in rows)
            for f in judged_claims.findings
        ]
        == count
        == [6, 5, 2, 0, 9, 6, 3, 0, 0]
    )
    first = rows[0]
    assert (first["task"], first["dims"], first["contrast"]) == ("image", "2", "embedder.epochs 5 against naive")
    assert (first["margin"], first["margin_from"]) == ("0.01", "fixed in the space s")
    assert (first["interval"], first["word"]) == ("95% Student-t interval over pairs", "helps")
    assert first["verdict_in_words"] == "contradicted: 2 of 2 tasks contradict it"
    assert rows[-7]["interval"] == "95% interval of Spearman's rho, jackknife over seeds"
    assert {(row["claim"], row["task"]) for row in rows if row["is_counted"] == "false"} == {("3", "signal")}
    assert sum(row["is_leading"] == "true" for row in rows) == 2 + 1 + 3 + 3 + 3 + 3
    lone = lines(claims.compute(tables(tmp_path / "b", world("image")), claims.Options(margin=["0.01"])))
    assert [row["claim"] for row in lone] == [claim.id for claim in CLAIMS]
    assert (lone[0]["contrast"], lone[0]["not_judged_because"][:7], lone[1]["task"]) == ("", "no cell", "")


def test_tables_hold_verdicts_numbers_sources_and_margins(whole):
    judged_claims = claims.compute(whole)
    first, *rest = claims.build_tables(judged_claims)
    assert [row[:2] for row in first.blocks[0]] == [
        (claim.id, "the study" if claim.id < "6" else "ours") for claim in CLAIMS
    ]
    assert first.blocks[0][0][3:5] == ("contradicted: 2 of 2 tasks contradict it", NOTHING)
    assert "arXiv 2403.13537" in first.caption
    assert "162 of 162 planned trials are ok" in first.caption
    judged_ones = [claim for claim in CLAIMS if claim.id not in ("4a", "7", "8")]
    assert [table.title.split(":")[0] for table in rest] == [f"Claim {claim.id}" for claim in judged_ones]
    for table, claim in zip(rest, judged_ones, strict=True):
        for text in (claim.source, claim.rows, claim.supports, claim.contradicts):
            assert text in table.caption
        assert all(len(row) == len(table.head) == len(table.align) for block in table.blocks for row in block)
    assert rest[0].blocks[0][0][:3] == ("image", "embedder.epochs 5 against naive", "6")
    assert "image: margin 0.01 (error), fixed in the space s." in rest[0].notes
    assert "Words are corrected for all contrasts that decide this claim and can be judged (6)" in rest[0].caption
    assert "at least 4 in 6 of the tasks that can be judged support it (rounded up, here 2 of 2)" in rest[0].caption
    assert "none is undecided and all say the same" in rest[4].caption
    assert "image: 6 pairs could have shown 0.014 or more; margin 0.01 was in reach" in "\n".join(rest[0].notes)


def test_the_forest_has_a_panel_per_claim_with_words_n_and_margins(whole, tmp_path):
    figure = claims.plot(claims.compute(whole))
    heads = [axis.get_title(loc="left").partition(".")[0] for axis in figure.axes]
    assert heads == [claim.id for claim in CLAIMS]
    axis = figure.axes[0]
    assert axis.get_title(loc="left").splitlines()[1] == "contradicted: 2 of 2 tasks contradict it"
    assert axis.texts[0].get_text().replace("\n", " ").startswith("helps (\N{MINUS SIGN}0.1")
    assert axis.texts[0].get_text().endswith("n = 6)")
    assert axis.get_yticklabels()[0].get_text().replace("\n", " ") == "image: embedder.epochs 5 against naive"
    assert len(axis.collections) == 6  # a shaded margin each
    assert "n = 24 trials" not in figure.axes[6].texts[0].get_text()
    assert "n = 18 trials, 6 seeds" in figure.axes[6].texts[0].get_text().replace("\n", " ")
    lone = claims.plot(claims.compute(tables(tmp_path / "b", world("image"))))
    first, second = (axis.get_title(loc="left").replace("\n", " ") for axis in lone.axes[:2])
    assert "cannot be judged from these rows, because image: no cell with a trained embedder (a proxy," in first
    assert "no task in them is 1D" in second
    lone.savefig(io.BytesIO())


def test_the_claims_need_neither_torch_nor_ray_and_are_written_the_same_again(whole, tmp_path):
    code = f"""
import pathlib, sys
from orca_sweep.analysis.catalogue import write_analysis
from orca_sweep.results import read_results
root = pathlib.Path({str(tmp_path)!r})
for out in "ab":
    write_analysis(root / out, "claims", read_results(root / "tables"))
sys.exit(bool({{"torch", "ray"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "a").glob("[!.]*")}
    assert names == {f"claims.{kind}" for kind in ("csv", "md", "tex", "png", "svg", "pdf", "caption.txt")}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert "| 1 | the study | On 2D tasks" in (tmp_path / "a" / "claims.md").read_text()


def test_wrong_options_end_in_words_and_code_2(whole, tmp_path):
    ask = ("analyse", "claims", tmp_path / "tables", "--out", tmp_path / "out")
    done = orca(*ask, "--margin", "nowhere=1", "--margin", "wide", check=2)
    assert len(done.stderr.splitlines()) == 2
    assert "not a factor of these tables" in orca(*ask, "--base", "prox=none", check=2).stderr
    assert "must be 0 or more and below 1" in orca(*ask, "--least-correlation", "2", check=2).stderr
    assert not (tmp_path / "out").exists()


# Real rows ----------------------------------------------------------------------------------------


def test_real_trials_say_their_dimensions_and_are_judged(run, tmp_path):
    trials = []
    for settings in ({"embedder__epochs": 0}, {"embedder__epochs": 2, "proxy": "mnist5k"}):
        for seed in range(3):
            row, _ = run(task="tiny", finetune__epochs=1, seed=seed, **settings)
            trials.append({"trial_id": row["trial_id"], "cell_id": row["cell_id"], "seed": seed, "role": "replicate"})

            plain = {key.replace("__", "."): value for key, value in settings.items()}
            trials[-1]["config"] = make_config({"task": "tiny", "finetune.epochs": 1, "seed": seed, **plain}).flat()
    about = {"factors": ["proxy", "embedder.epochs"], "margins": {"": 1.0}}
    write_manifest(tmp_path / "sweep", sweep_manifest(**about, trials=trials))
    results = r.collect([tmp_path / "sweep"], tmp_path / "tables")
    assert results.trials["dims"].tolist() == [2] * 6
    judged_claims = claims.compute(results)
    assert judged_claims.column == "val_metric_best"
    assert judged_claims.findings[0].kind == "supported"  # an error of 0 to 1 cannot change by 1 and more
    assert (
        judged_claims.findings[1].verdict
        == "cannot be judged from these rows, because no task in them is 1D (tiny is 2D)"
    )
    claims.build_tables(judged_claims)
