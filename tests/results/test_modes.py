"""Metrics for which higher is better: every part shows their values unchanged and compares them correctly.

Mirrored data (m becomes 1 - m, and the mode is reversed) must give mirrored numbers, and the same words and choices.
"""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from orca_sweep import results as r
from orca_sweep import stats
from orca_sweep.analysis import (
    claims,
    factor_effects,
    figure3_otdd_vs_error,
    figures,
    flattery,
    summary_over_tasks,
    table_effects,
)
from orca_sweep.analysis.report import record as report
from orca_sweep.errors import DataError, InputError
from orca_sweep.space.tuning import Range, optuna_next
from orca_sweep.stats.digits import to_ascii
from orca_sweep.stats.modes import as_cost, best_value, describe_mode, is_better, worst_value
from orca_sweep.tasks import LOSSES, METRICS, Loss, Metric
from orca_sweep.tasks.losses import make_loss
from tests.builders.agenda import World
from tests.builders.claims import FACTORS, runs, tables, world
from tests.builders.tables import MNIST, NONE, cell_rows, collected, lines, sweep

FIELDS = ("test_metric_best", "test_metric_last", "val_metric_best", "val_metric_last")


def mirrored(trials):
    """Returns the same trials, measured by accuracy instead of error."""
    made = []
    for planned, row in trials:
        turned = {name: 1 - row[name] for name in FIELDS if row.get(name) is not None}
        made.append((planned, {**row, **turned, "metric": "accuracy", "metric_mode": "max"}))
    return made


def both(folder, trials, **more):
    """Returns the tables of trials and of mirrored trials."""
    return collected(folder / "min", trials, **more), collected(folder / "max", mirrored(trials), **more)


def test_modes_by_hand():
    assert (worst_value("min"), worst_value("max")) == (math.inf, -math.inf)
    assert is_better(0.1, 0.2, "min") and not is_better(0.1, 0.2, "max") and is_better(0.2, 0.1, "max")
    assert not any(is_better(a, b, mode) for mode in ("min", "max") for a, b in ((1, 1), (math.nan, 1), (1, math.nan)))
    assert (best_value([3, 1, 2], "min"), best_value([3, 1, 2], "max"), as_cost(0.5, "max")) == (1, 3, -0.5)
    assert (describe_mode("min"), describe_mode("max")) == ("lower is better", "higher is better")


# Words, effects, claims ---------------------------------------------------------------------------


def test_the_mode_reverses_words_but_not_numbers():
    rng = np.random.default_rng(0)
    for shift in (-0.2, -0.02, 0.0, 0.02, 0.2):
        a = {seed: shift + float(x) for seed, x in enumerate(rng.normal(0, 0.01, 6))}
        b = dict.fromkeys(a, 0.0)
        low = stats.judge_contrast(stats.paired_contrast(a, b), 0.05)
        turned = stats.paired_contrast({s: -v for s, v in a.items()}, b)
        high, wrong = stats.judge_contrast(turned, 0.05, mode="max"), stats.judge_contrast(turned, 0.05)
        assert (high.word, high.outer.mean) == (low.word, -low.outer.mean)
        assert (high.p_beyond, high.p_within) == (low.p_beyond, low.p_within)
        assert {low.word, wrong.word} in ({"helps", "hurts"}, {low.word})
        assert low.sentence.startswith("The error ") and high.sentence.startswith("The score ")
    family = [
        stats.paired_contrast({s: v + s * 1e-4 for s, v in enumerate([0.2] * 5)}, dict.fromkeys(range(5), 0.0))
    ] * 2
    assert [v.word for v in stats.judge_contrasts(family, 0.01, modes=["min", "max"])] == ["hurts", "helps"]
    with pytest.raises(ValueError, match="1 modes for 2 contrasts"):
        stats.judge_contrasts(family, 0.01, modes=["max"])


def test_effects_of_mirrored_data_are_mirrored_with_the_same_words(tmp_path):
    trials = [
        *cell_rows(NONE, [0.30, 0.34, 0.32, 0.36, 0.38]),
        *cell_rows(MNIST, [0.20, 0.23, 0.22, 0.27, 0.28]),
        *cell_rows({"proxy": "dummy"}, [0.41, 0.43, 0.44, 0.45, 0.48]),
        *cell_rows(NONE, [0.31, 0.35, 0.33, 0.37], "aa", 10),
    ]
    low, high = (table_effects.compute(results) for results in both(tmp_path, trials))
    for row, mirror in zip(low.tasks[0].rows, high.tasks[0].rows, strict=True):
        assert row.contrast.interval.mean == pytest.approx(-mirror.contrast.interval.mean)
        assert row.contrast.p_sign_flip == pytest.approx(mirror.contrast.p_sign_flip)
        assert (row.verdict.word, row.p_holm) == (mirror.verdict.word, pytest.approx(mirror.p_holm))
    assert [row.verdict.word for row in high.tasks[0].rows] == ["helps", "hurts"]
    assert low.tasks[0].margin.value == pytest.approx(high.tasks[0].margin.value)
    first = lines(table_effects.numbers(high))[0]
    assert (first["metric"], first["mode"], first["mean_base"]) == (
        "accuracy",
        "max",
        pytest.approx("0.66", abs=0),
    ) or (float(first["mean_base"]) == pytest.approx(0.66)), "accuracy as it is"
    assert "(accuracy; higher is better)" in table_effects.build_tables(high)[0].caption
    assert "(error; lower is better)" in table_effects.build_tables(low)[0].caption
    sides = [table_effects.plot(effects).axes[0].get_xlabel().replace("\n", " ") for effects in (low, high)]
    assert ["left of zero is better" in sides[0], "right of zero is better" in sides[1]] == [True, True]


def test_claims_of_mirrored_data_are_the_same(tmp_path):
    trials = [
        *world("image", amounts={5: 0.25, 20: 0.2, 60: 0.15}, proxies={"dummy": 0.3}, freezes={"body": 0.5, "embedder": 0.31},
               fractions={0: 0.4}),
        *world("signal", amounts={5: 0.2, 20: 0.2}),
    ]  # fmt: skip
    trials += [*runs("picture", 1), *runs("sketch", -1)]
    low, high = (
        claims.compute(results, claims.Options(margin=["0.01"])) for results in both(tmp_path, trials, factors=FACTORS)
    )
    kinds = [one.kind for one in low.findings]
    assert kinds == [one.kind for one in high.findings]
    assert {"supported", "contradicted"} & set(kinds)
    for one, other in zip(low.findings, high.findings, strict=True):
        for a, b in zip(one.tasks, other.tasks, strict=True):
            assert [(j.word, j.unjudged) for j in a.judgements] == [(j.word, j.unjudged) for j in b.judgements]
            estimates, mirrored_estimates = ([j.estimate for j in task.judgements] for task in (a, b))
            assert estimates == pytest.approx([-x for x in mirrored_estimates], nan_ok=True)
            for x, y in zip(a.judgements, b.judgements, strict=True):
                assert (x.p_beyond, x.p_within) == pytest.approx((y.p_beyond, y.p_within), nan_ok=True)
    word_of = {task.task: task.judgements[0].word for task in high.findings[6].tasks if task.judgements}
    assert (word_of["picture"], word_of["sketch"]) == ("tracks", "does not track")
    (six,) = next(task.judgements for task in high.findings[6].tasks if task.task == "picture")
    assert six.estimate < 0 and six.margin == -0.3
    assert "since a higher metric is better, the most that counts is -0.3" in to_ascii(six.sentence)
    assert "above zero: the first is better" in claims.build_tables(high)[1].caption
    claims.plot(high)


# Tables, figures, report --------------------------------------------------------------------------


def test_the_worst_of_a_maximised_metric_is_the_lowest(tmp_path):
    trials = [*cell_rows(NONE, [0.2, None]), *cell_rows(MNIST, [0.5, 0.3])]
    low, high = both(tmp_path, trials, outcomes={"failed": {"then": "worst"}})
    assert r.score_trials(low)["value"].tolist() == [0.2, 0.5, 0.5, 0.3]
    assert r.score_trials(high)["value"].tolist() == pytest.approx([0.8, 0.5, 0.5, 0.7])
    (none, mnist) = r.summarise_cells(high)
    assert (none.mode, none.metric, none.n_worst, mnist.interval.mean) == ("max", "accuracy", 1, pytest.approx(0.6))


def test_a_task_with_two_metrics_is_refused(tmp_path):
    trials = [*cell_rows(NONE, [0.2, 0.3]), *mirrored(cell_rows(MNIST, [0.2, 0.3]))]
    for compute in (table_effects.compute, r.summarise_cells, r.score_trials):
        with pytest.raises(InputError, match="digits: its trials were compared on different metrics"):
            compute(collected(tmp_path, trials))


def test_flattery_of_mirrored_data_is_the_same(tmp_path):
    rng = np.random.default_rng(1)
    trials = []
    for levels in (NONE, MNIST, {"proxy": "dummy"}):
        for planned, row in cell_rows(levels, rng.random(4).tolist()):
            val, last, last_val = (float(x) for x in rng.random(3))
            more = {"val_metric_best": val, "test_metric_last": last, "val_metric_last": last_val}
            trials.append((planned, {**row, **more}))
    low, high = (flattery.compute(results) for results in both(tmp_path, trials))
    for one, other in zip(low.tasks[0].choices, high.tasks[0].choices, strict=True):
        assert (one.by_validation, one.by_test, one.n) == (other.by_validation, other.by_test, other.n)
        assert [one.flattery, one.largest, one.interval.low] == pytest.approx(
            [other.flattery, other.largest, other.interval.low], nan_ok=True
        )
    assert any(choice.flattery > 0 for choice in high.tasks[0].choices)


def test_over_tasks_the_mode_is_reversed_only_if_tasks_have_different_modes(tmp_path):
    def part(task, base, better, turn):
        made = [
            row
            for levels, values in ((NONE, base), (MNIST, better))
            for row in cell_rows({"task": task, **levels}, values)
        ]
        return mirrored(made) if turn else made

    error, less = [0.4, 0.4, 0.4], [0.3, 0.32, 0.31]
    high = sweep(tmp_path / "h", part("a", error, less, True), part("b", error, less, True), factors=("task", "proxy"))
    summary = summary_over_tasks.compute(high)
    assert (summary.mode, summary.turned) == ("max", ()) and summary.rows[0].over_tasks.mean == pytest.approx(
        100 * 0.09 / 0.6
    )
    assert "right of zero is better" in summary_over_tasks.plot(summary).axes[0].get_xlabel().replace("\n", " ")
    mixed = sweep(
        tmp_path / "m", part("a", error, less, False), part("b", error, less, True), factors=("task", "proxy")
    )
    summary = summary_over_tasks.compute(mixed)
    a, b = summary.rows[0].scores
    assert (a.interval.mean, b.interval.mean) == (pytest.approx(-100 * 0.09 / 0.4), pytest.approx(-100 * 0.09 / 0.6))
    assert (summary.mode, summary.turned) == ("min", ("b",))
    (table,) = summary_over_tasks.build_tables(summary)
    assert "The sign of differences in b is reversed" in table.caption and re.search(
        r"0\.60* \(accuracy; higher is better\)", table.caption
    )
    assert [line["is_turned"] for line in lines(summary_over_tasks.numbers(summary))] == ["false", "false", "true"]


def test_figures_and_report_say_that_higher_is_better(tmp_path):
    trials = mirrored([*cell_rows(NONE, [0.3, 0.34]), *cell_rows(MNIST, [0.2, 0.23])])
    for _, row in trials:
        row |= {"metric_unit": "share of right labels"}
    results = collected(tmp_path, trials)
    cells = r.summarise_cells(results)
    (panel,) = figures.build_panels(cells, results, ("proxy",))
    assert (
        figures.label_measure("test_metric_best", panel) == "test accuracy (share of right labels)\n(higher is better)"
    )
    assert "higher is better." in figures.write_notes(figures.collect_facts(results, cells, 0.95), 1)
    assert figures.describe_modes({"a": "min", "b": "max"}) == "lower is better in a, higher is better in b"
    made = report.compute(results)
    assert made.head.measures == "digits: accuracy, higher is better"
    assert any("accuracy (higher is better)" in text for text in made.methods)
    assert [line.word for line in made.tasks[0].lines] and made.tasks[0].better.endswith(
        "a positive difference is an improvement"
    )
    from orca_sweep.analysis.report.rendering import page

    html = page(made, ()).split("<body>")[-1].split("<script")[0]
    assert "higher is better" in html and "lower is better" not in html
    assert "an error" not in html


# Selection, pruning, tuning -----------------------------------------------------------------------


def test_tuning_replicates_the_highest_score_where_higher_is_better(plan_of):
    text = "base: {task: tiny, proxy: none}\ntune: {finetune.lr: [1e-4, 1e-3, 1e-2]}\n"
    text += "search: {method: grid, seeds: [9]}\nseeds: 1\n"
    score = {1e-4: 0.1, 1e-3: 0.9, 1e-2: 0.5}
    for mode, best in (("min", 1e-4), ("max", 1e-3)):
        world_ = World(plan_of(text), 1, score=lambda config: score[config.finetune.lr])
        real = world_.agenda.ended
        world_.agenda.ended = lambda trial_id, row, mode=mode, real=real: real(trial_id, {**row, "metric_mode": mode})
        *_, last = world_.run()
        assert (last.role, last.config.finetune.lr) == ("replicate", best)


def test_optuna_searches_where_costs_are_low():
    space = {"finetune.lr": Range(low=0.0, high=1.0, log=False, whole=False)}
    tried = [({"finetune.lr": x / 20}, abs(x / 20 - 0.8)) for x in range(20)]
    asked = [optuna_next(space, tried, seed, "c")["finetune.lr"] for seed in range(8)]
    assert np.mean(np.abs(np.array(asked) - 0.8)) < 0.2


def test_pruning_and_the_row_of_a_pruned_trial_follow_the_mode_of_the_task(tmp_path, accurate):
    from orca_sweep.space import Pruning
    from orca_sweep.sweep.queue import Attempt, GroupedPruning, write_missing_record
    from orca_sweep.trial import make_config

    pruning = GroupedPruning([Pruning(name="asha", cells=True)])
    for name, mode in (("tiny", "min"), (accurate, "max")):
        config = make_config({"task": name})
        params = {"lane": 0, "role": "replicate", "cell_id": "c", **config.flat()}
        group = pruning._find_group(SimpleNamespace(config=params))
        assert group._metric_op == {"min": -1.0, "max": 1.0}[mode]
    planned = SimpleNamespace(trial_id="t" * 16, cell_id="c" * 16, seed=0, config=config, role="search")
    epochs = [
        {"stage": "finetune", "epoch": i, "val_metric": v, "wall_time_s": 1.0} for i, v in enumerate((0.4, 0.9, 0.7), 1)
    ]
    lane = SimpleNamespace(out=tmp_path)
    write_missing_record(Attempt(lane=lane, trial=planned, started=r.now(), epochs=epochs), None)
    row = r.read_record(tmp_path, "t" * 16)["row"]
    assert (row["status"], row["metric_mode"], row["val_metric_best"]) == ("pruned", "max", 0.9)


ACCURATE = """
import numpy as np

from orca_sweep.tasks import LOSSES, METRICS, TASKS, Loss, Metric, Task
from {module} import load


def half_right(prediction, target):
    return np.mean(prediction.argmax(axis=1) == target)


def softened(prediction, target, power=1.0):
    from torch.nn import functional as F

    return F.cross_entropy(prediction, target) ** power


def leaves(prediction, target):
    raise SystemExit("no licence")


METRICS.add(Metric(name="my-accuracy", measure=half_right, meaning="right labels", mode="max", unit="share"))
METRICS.add(Metric(name="leaves", measure=leaves, meaning="leaves", mode="max"))
LOSSES.add(Loss(name="my-loss", function=softened, meaning="cross-entropy to a power"))
LOSSES.add(Loss(name="my-wrong-loss", function=lambda p, t: p, meaning="no number"))
"""


@pytest.fixture(scope="session")
def accurate(tmp_path_factory, user_tasks):
    """The tiny task with a user's accuracy and loss, and tasks whose metric or loss is wrong."""
    import sys

    from orca_sweep.tasks import TASKS, Task
    from orca_sweep.trial import load_imports

    tiny = TASKS.get("tiny")
    module = sys.modules[tiny.load.__module__]
    path = tmp_path_factory.mktemp("own") / "own_metric.py"
    path.write_text(ACCURATE.format(module=module.__name__))
    load_imports([str(path)])
    for name, loss, metric in (
        ("accurate", "my-loss", "my-accuracy"), ("leaving", "my-loss", "leaves"), ("wrong", "my-wrong-loss", "error"),
    ):  # fmt: skip
        fields = {key: getattr(tiny, key) for key in ("dims", "sample_shape", "kind", "output_shape", "load", "recipe")}
        about = {
            "meaning": "test",
            "source": "here",
            "licence": "MIT",
            "loss_settings": {"power": 1.0} if loss == "my-loss" else {},
        }
        TASKS.add(Task(name=name, loss=loss, metric=metric, **fields, **about))
    return "accurate"


def test_the_best_epoch_of_a_maximised_metric_is_the_highest(run, accurate):
    settings = {"finetune__epochs": 4, "finetune__lr": 3e-3, "embedder__epochs": 0}
    row, epochs = run(task=accurate, **settings)
    values = [e["val_metric"] for e in epochs if e["stage"] == "finetune"]
    assert row["status"] == "ok" and (row["metric"], row["metric_mode"], row["metric_unit"]) == (
        "my-accuracy",
        "max",
        "share",
    )
    assert row["val_metric_best"] == max(values) and row["best_epoch"] == values.index(max(values)) + 1
    mirror, mirror_epochs = run(task="tiny", folder="min", **settings)
    errors = [e["val_metric"] for e in mirror_epochs if e["stage"] == "finetune"]
    assert values == pytest.approx([1 - x for x in errors]) and len(set(values)) > 1, "mirrored"
    assert (mirror["metric_mode"], mirror["best_epoch"], mirror["state_sha256"]) == (
        "min",
        row["best_epoch"],
        row["state_sha256"],
    )
    assert row["test_metric_best"] == pytest.approx(1 - mirror["test_metric_best"])


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("leaving", "metric 'leaves' raised SystemExit: no licence on predictions of shape (18, 3)"),
        ("wrong", "loss 'my-wrong-loss' gives a tensor of shape (8, 3). A loss gives one number"),
    ],
)
def test_a_wrong_metric_or_loss_fails_its_trial_by_name(run, accurate, task, words):
    row, _ = run(task=task, finetune__epochs=1, embedder__epochs=0)
    assert row["status"] == "failed" and words in row["error"]


# What is refused ----------------------------------------------------------------------------------


def metric(measure, mode="max", name="mine", **more):
    return Metric(name=name, measure=measure, meaning="m", mode=mode, **more)


def test_invalid_metrics_and_losses_are_refused_with_every_mistake():
    def two(p, t):
        return 0.0

    with pytest.raises(InputError) as caught:
        Metric(name="a/b", measure="no function", meaning=" ", mode="up")
    text = str(caught.value)
    assert all(
        words in text
        for words in ("metric 'a/b'", "holds /", "'no function' is not callable", "no meaning", "mode = 'up'")
    )
    with pytest.raises(InputError, match="metric 'mine': its function does not take"):
        metric(lambda p: 0.0)
    with pytest.raises(InputError, match="loss 'mine': 3 is not callable"):
        Loss(name="mine", function=3, meaning="m")
    for name in ("", " mine", "m\n", "x" * 61, "a\\b", 3):
        with pytest.raises(InputError, match="A name has at most 60"):
            metric(two, name=name)
    with pytest.raises(InputError, match="metric 'error': this name is taken"):
        METRICS.add(metric(two, name="error"))
    with pytest.raises(InputError, match="loss 'mse': this name is taken"):
        LOSSES.add(Loss(name="mse", function=two, meaning="m"))


def test_a_metric_must_return_one_finite_number():
    p, t = np.zeros((4, 2)), np.zeros(4, int)

    def gives(value, mode="max"):
        return metric(lambda p, t: value, mode).compute(p, t)

    assert [gives(x) for x in (1, 0.5, np.float32(0.5), np.array(2.0))] == [1.0, 0.5, 0.5, 2.0]
    for value, what in (
        (np.zeros(3), r"an array of shape \(3,\)"), (None, "None"), ("0.5", "'0.5'"), (1j, "1j"), ([0.5], r"\[0.5\]"),
        (True, "True"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"metric 'mine' gives {what}. A metric gives one number"):
            gives(value)
    with pytest.raises(DataError, match="metric 'mine': not defined on these 4 targets"):
        gives(math.nan)
    # An infinitely bad value means divergence; an infinitely good one has no mean.
    assert (gives(-math.inf), gives(math.inf, "min")) == (-math.inf, math.inf)
    for value, mode in ((math.inf, "max"), (-math.inf, "min")):
        with pytest.raises(InputError, match="so it has no mean"):
            gives(value, mode)

    def raises(error):
        def measure(p, t):
            raise error

        return metric(measure)

    with pytest.raises(InputError, match=r"metric 'mine' raised KeyError: 'x' on predictions of shape \(4, 2\)"):
        raises(KeyError("x")).compute(p, t)
    with pytest.raises(InputError, match="metric 'mine' raised SystemExit: 3 on"):
        raises(SystemExit(3)).compute(p, t)
    for error in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)):
            raises(error).compute(p, t)
    unscored = metric(lambda p, t: 0.0, unscored=lambda p, t: 1 / 0)
    with pytest.raises(InputError, match="metric 'mine', unscored, raised ZeroDivisionError"):
        unscored.count_unscored(p, t)


def test_a_loss_must_depend_on_the_predictions(monkeypatch):
    import torch

    p, t = torch.zeros(4, 2, requires_grad=True), torch.zeros(4, dtype=torch.long)

    def gives(function):
        monkeypatch.setitem(LOSSES._records, "mine", Loss(name="mine", function=function, meaning="m"))
        return make_loss("mine", {}, None)(p, t)

    assert gives(lambda p, t: p.mean().reshape(1)).shape == ()
    for function, words in (
        (lambda p, t: 0.5, "gives 0.5. A loss gives one number, as a tensor"),
        (lambda p, t: p, r"gives a tensor of shape \(4, 2\)"),
        (lambda p, t: p.detach().mean(), "gives a number that does not depend on the predictions"),
        (lambda p, t: (p @ p).mean(), "raised RuntimeError"),
        (lambda p, t: exit(0), "raised SystemExit: 0"),
    ):
        with pytest.raises(InputError, match=f"loss 'mine' {words}"):
            gives(function)

    def full(p, t):
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        gives(full)


def test_figure3_and_factor_effects_take_a_maximised_metric(tmp_path):
    trials = runs("image", 1)
    low = tables(tmp_path / "min", trials)
    high = tables(tmp_path / "max", mirrored(trials))
    rhos = [figure3_otdd_vs_error.compute(results).series[0][0].correlation.rho for results in (low, high)]
    assert rhos[0] > 0 and rhos[1] == pytest.approx(-rhos[0])
    one, other = (factor_effects.compute(results).tasks[0] for results in (low, high))
    assert [e.eta_squared for e in one.pooled.effects] == pytest.approx([e.eta_squared for e in other.pooled.effects])
    table, _ = factor_effects.build_tables(factor_effects.compute(high))
    assert "(accuracy; higher is better)" in table.caption
    words = [[of.word for of in task.contrasts] for task in (one, other)]
    assert words[0] == words[1]
    signs = [[of.effect.contrast.interval.mean for of in task.contrasts] for task in (one, other)]
    assert signs[0] == pytest.approx([-x for x in signs[1]])


# The recipe of the README -------------------------------------------------------------------------

MEASURES = """
import numpy as np
from torch.nn import functional as F

from orca_sweep.tasks import LOSSES, METRICS, Loss, Metric


def hits_at_2(prediction, target):
    return np.mean([label in row.argsort()[-2:] for row, label in zip(prediction, target)])


def smoothed(prediction, target):
    return F.cross_entropy(prediction, target, label_smoothing=0.1)


METRICS.add(Metric(name="hits@2", measure=hits_at_2, meaning="the label is among the two likeliest", mode="max", unit="share"))
LOSSES.add(Loss(name="smoothed", function=smoothed, meaning="cross-entropy of smoothed labels", takes_labels=True))
"""


def test_a_user_s_loss_and_metric_take_two_edits(tmp_path, worker, monkeypatch):
    from orca_sweep.space import plan_space
    from orca_sweep.training.run import RunContext, run_config
    from orca_sweep.trial import load_imports, make_config

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(60, 1, 8, 8)).astype("float32"), y=np.arange(60) % 3)
    (tmp_path / "my_measures.py").write_text(MEASURES)
    monkeypatch.chdir(tmp_path)
    task = "{path: mine.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: 3, metric: hits@2, loss: smoothed}"
    (tmp_path / "s.yaml").write_text(
        f"imports: [my_measures.py]\nbase: {{task: {task}, proxy: none, body.pretrain_fraction: 0, finetune.epochs: 2}}\n"
        "seeds: 1\n"
    )
    plan = plan_space(tmp_path / "s.yaml", load_imports, make_config)
    (trial,) = plan.trials
    row = run_config(
        trial.config,
        RunContext(folder=tmp_path / "sweep", worker=worker, data_root=tmp_path / "data", imports=plan.space.imports),
    )
    assert (row["status"], row["metric"], row["metric_mode"], row["metric_unit"]) == ("ok", "hits@2", "max", "share")
    assert 0.3 < row["val_metric_best"] <= 1
    (tmp_path / "s.yaml").write_text((tmp_path / "s.yaml").read_text().replace("hits@2", "hits"))
    with pytest.raises(InputError, match="there is no metric 'hits'. Did you mean 'hits@2'"):
        plan_space(tmp_path / "s.yaml", load_imports, make_config)


def test_every_metric_and_loss_is_listed_with_its_mode(capsys):
    from orca_sweep.cli.listing import list_names

    list_names("metrics")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == METRICS.names()
    assert all((f"{METRICS.get(line.split()[0]).mode}, " in line) for line in shown)
    assert any(line.startswith("mae8 ") and line.endswith("; above 0 (Angstrom)") for line in shown)
    assert any(line.startswith("error ") and "; between 0 and 1 (" in line for line in shown)
    list_names("losses")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == LOSSES.names()
