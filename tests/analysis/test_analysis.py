"""The figures: what they compute from known tables, what they say, draw, and write, and which of them a launch draws."""

import csv
import io
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from orca_sweep import results as r
from orca_sweep.analysis import (
    figure2_proxies,
    figure3_otdd_vs_error,
    figure4_freezing,
    figure5_pretraining,
    figures,
    naive,
    writing,
)
from orca_sweep.analysis.catalogue import choose_figures, make_output, write_analysis
from orca_sweep.api.finishing import draw_figures
from orca_sweep.errors import InputError
from orca_sweep.results import Results
from orca_sweep.stats import rank_correlation, t_interval
from tests.builders.figures import find_texts

REPO = Path(__file__).resolve().parents[2]
FIGURES = (figure2_proxies, figure3_otdd_vs_error, figure4_freezing, figure5_pretraining)
FACTOR = {
    figure3_otdd_vs_error: "embedder.epochs",
    figure4_freezing: "finetune.freeze",
    figure5_pretraining: "body.pretrain_fraction",
}
DEFAULTS = {
    "task": "digits", "role": "replicate", "space": "demo", "status": "ok", "metric": "error",
    "metric_unit": "share of wrong labels", "proxy": "mnist5k",
    "embedder.epochs": 20, "embedder.objective": "otdd-exact", "finetune.freeze": "none",
    "finetune.freeze_epochs": "0", "body.pretrain_fraction": 1.0, "objective_last": math.nan,
}  # fmt: skip
KINDS = ("csv", "png", "svg", "pdf", "caption.txt")
HALF_95_OF_3 = 4.302652729911275 / math.sqrt(3)
"""Half width of the 95% interval of three values with standard deviation 1."""


def made(factors, rows, epochs=(), **more):
    """Tables of the given rows: their ids come from their levels, their metric is ``y``."""
    table, history = [], []
    for row in rows:
        row = {**DEFAULTS, **row}
        if row["proxy"] == "none" or row["embedder.epochs"] == 0:
            row |= {"proxy": "none", "embedder.epochs": 0, "embedder.objective": "none"}
        cell = "/".join(str(row[path]) for path in ("task", *factors, *more.get("apart", ())))
        cell += "-aa" if row["role"] == "aa" else ""
        y = row.pop("y", math.nan) if row["status"] == "ok" else math.nan
        row |= {"cell_id": cell, "trial_id": f"{cell}#{row['seed']}{row['role']}", "test_metric_best": y}
        table.append(row)
        history += [
            {"trial_id": row["trial_id"], "stage": "embedder", "epoch": epoch, "objective": value}
            for epoch, value in enumerate(row.pop("objectives", ()))
        ]
        history += [
            {"trial_id": row["trial_id"], "stage": "finetune", "epoch": epoch, "val_metric": y + 1 / epoch}
            for epoch in (1, 2)
            if not math.isnan(y)
        ]
    columns = ["trial_id", "stage", "epoch", "objective", "val_metric"]
    frame = pd.DataFrame(
        table, columns=None if table else [*DEFAULTS, "trial_id", "cell_id", "seed", "test_metric_best"]
    )
    return Results(
        trials=frame,
        epochs=pd.DataFrame([*history, *epochs], columns=columns),
        factors=tuple(factors),
        metric="test_metric_best",
        spaces=("demo",),
        questions=("?",),
        **{key: value for key, value in more.items() if key != "apart"},
    )


def crossed(levels, n_seeds=3):
    """A row for every combination and seed; each seed's error is 0.01 above the one before it."""
    for i, values in enumerate(itertools.product(*levels.values())):
        for seed in range(n_seeds):
            yield {**dict(zip(levels, values, strict=True)), "seed": seed, "y": 0.2 + 0.03 * i + 0.01 * seed}


def written(results, folder):
    """The tables as files."""
    folder.mkdir(parents=True)
    common = {"factors": results.factors, "metric": results.metric, "tuned": results.tuned}
    about = {"schema_version": r.TABLE_SCHEMA, "sweeps": [{"space": space, **common} for space in results.spaces]}
    stages = pd.DataFrame(columns=["trial_id", "stage", "phase"])
    for name, frame in (("trials", results.trials), ("epochs", results.epochs), ("stages", stages)):
        r.write_table(folder / f"{name}.parquet", pa.Table.from_pandas(frame), about)
    return folder


def as_rows(script, record):
    return list(csv.DictReader(io.StringIO(script.numbers(record))))


def is_interval(interval, n, mean, sd):
    half = {2: 12.706204736432095 / math.sqrt(2), 3: HALF_95_OF_3}[n] * sd
    assert interval.n == n
    assert (interval.mean, interval.low, interval.high) == pytest.approx((mean, mean - half, mean + half))


# Figure 2 -----------------------------------------------------------------------------------------


def test_figure2_computes_what_it_draws():
    rows = [row | {"status": "failed"} if row["seed"] == 2 and not row["embedder.epochs"] else row for row in crossed(
        {"embedder.epochs": [0, 3]})]  # fmt: skip
    figure = figure2_proxies.compute(made(["embedder.epochs"], rows))
    assert figure.by == (
        "embedder.epochs",
    )  # the proxy is not a factor, so the lines are the levels of the only factor
    ((first, second),) = figure.curves
    assert [interval.n for interval in first.intervals] == [2, 2]
    is_interval(second.intervals[0], 3, 1.24, 0.01)
    is_interval(second.cell.interval, 3, 0.24, 0.01)
    drawn = figure2_proxies.plot(figure)
    names = [tick.get_text() for tick in drawn.axes[1].get_yticklabels()]
    assert names == ["0 (naive)", "3"]
    assert [text.get_text() for text in drawn.axes[1].texts] == ["n = 2", "n = 3"]
    assert "Not ok: 1 of 6 trials (1 failed); no mean includes them." in drawn.get_supxlabel().replace("\n", " ")
    assert len(as_rows(figure2_proxies, figure)) == 2 * 3


def test_figure2_has_a_line_per_way_to_train_the_embedder_while_colours_last():
    few = made(["proxy", "embedder.epochs"], crossed({"proxy": ["none", "a", "b"], "embedder.epochs": [1, 5]}, 2))
    few = replace(few, trials=few.trials.drop_duplicates("trial_id"))
    (panel,) = figure2_proxies.compute(few).panels
    assert [line.name for line in panel.lines] == ["none, 0", "a, 1", "a, 5", "b, 1", "b, 5"]
    levels = {"proxy": ["a", "b"], "embedder.epochs": [0, 1, 2, 3, 4, 5]}
    many = made(["proxy", "embedder.epochs"], crossed(levels, 1))
    many = replace(many, trials=many.trials.drop_duplicates("trial_id"))
    figure = figure2_proxies.compute(many)
    assert figure.by == ("proxy",)
    # The naive cell is the baseline in each panel, not a panel of its own.
    assert [panel.title for panel in figure.panels] == [f"digits, embedder.epochs {n}" for n in (1, 2, 3, 4, 5)]
    assert all([line.name for line in panel.lines] == ["none", "a", "b"] for panel in figure.panels)


# Figure 3 -----------------------------------------------------------------------------------------

OBJECTIVES = {0: (16.0, 8, 4, 2, 1), 1: (17.0, 9, 4.5, 2.5, 1.5), 2: (18.0, 10, 5, 3, 2)}
"""By seed, at the embedder epochs 0 to 4."""
ERRORS = {0: (0.5, 0.6, 0.7), 1: (0.32, 0.31, 0.305), 4: (0.2, 0.1, 0.3)}
"""By number of embedder epochs, of the seeds 0 to 2."""


def of_figure3(**more):
    return [
        {
            "embedder.epochs": n,
            "seed": seed,
            "y": ERRORS[n][seed],
            "objectives": OBJECTIVES[seed][: n + 1] if n else (),
            "objective_last": OBJECTIVES[seed][n] if n else math.nan,
            **more,
        }
        for n in ERRORS
        for seed in OBJECTIVES
    ]


def test_figure3_curves_means_and_correlation_are_those_of_the_rows():
    figure = figure3_otdd_vs_error.compute(made(["embedder.epochs"], of_figure3()))
    ((series,),) = figure.series
    assert figure.by == ()
    # Two trials of a seed share epochs 0 and 1: the seed counts once.
    assert list(series.curve) == [0, 1, 2, 3, 4]
    is_interval(series.curve[0], 3, 17, 1)
    is_interval(series.curve[1], 3, 9, 1)
    is_interval(series.curve[4], 3, 1.5, 0.5)
    assert series.seeds[2] == dict(enumerate(OBJECTIVES[2]))
    assert {cell.levels["embedder.epochs"]: round(cell.interval.mean, 9) for cell in series.line.cells} == {
        0: 0.6, 1: pytest.approx(0.935 / 3), 4: 0.2,
    }  # fmt: skip
    # Ranks of the objectives 1, 1.5, 2, 8, 9, 10 and of 0.2, 0.1, 0.3, 0.32, 0.31, 0.305: 1 - 6 * 10 / (6 * 35).
    assert series.correlation.rho == pytest.approx(1 - 60 / 210)
    assert (series.correlation.n, series.correlation.n_clusters) == (6, 3)
    trained = [trial for trial in series.trials if trial.epochs]
    assert len(trained) == len(series.trials) == 6  # naive trials have no objective
    again = rank_correlation([t.objective for t in trained], [t.metric for t in trained], 0.95, [0, 1, 2, 0, 1, 2])
    assert series.correlation == again
    assert series.objective == "otdd-exact"


def test_runs_of_one_seed_that_differ_in_their_shared_epochs_are_averaged():
    """As on a GPU, where they differ by a few bits."""
    rows = [row for row in of_figure3() if row["seed"] == 0]
    rows[2] |= {"objectives": (18.0, *rows[2]["objectives"][1:])}
    ((series,),) = figure3_otdd_vs_error.compute(made(["embedder.epochs"], rows)).series
    assert (series.seeds[0][0], series.curve[0].n) == (17, 1)


def test_figure3_says_what_it_shows():
    figure = figure3_otdd_vs_error.compute(made(["embedder.epochs"], of_figure3()))
    drawn = figure3_otdd_vs_error.plot(figure)
    (legend,) = [text.get_text() for text in drawn.axes[4].get_legend().get_texts()]
    r = figure.series[0][0].correlation
    assert legend.splitlines()[:2] == [
        "all trials, n = 3",
        f"rank correlation 0.71 [{r.rho_low:.2f}, {r.rho_high:.2f}]",
    ]
    notes = drawn.get_supxlabel().replace("\n", " ")
    for words in (
        "Naive trials (0 embedder epochs) have no objective",
        "95% Student-t interval",
        "All 9 trials are ok.",
    ):
        assert words in notes
    assert drawn.axes[1].get_ylabel().replace("\n", " ") == "objective otdd-exact (squared feature units)"
    assert [tick.get_text() for tick in drawn.axes[2].get_xticklabels()] == ["0", "1", "4"]
    assert "naive" in [text.get_text() for text in drawn.axes[3].texts]


def test_figure3_counts_neither_the_search_nor_what_is_not_ok_and_shows_the_aa_cell_apart():
    search = [row | {"role": "search", "seed": 9, "y": 9.0} for row in of_figure3()]
    lost = [row | {"seed": 7, "status": "lost", "objectives": ()} for row in of_figure3() if row["seed"] == 0]
    aa = [row | {"seed": row["seed"] + 20, "role": "aa"} for row in of_figure3() if row["embedder.epochs"] == 4]
    plain = figure3_otdd_vs_error.compute(made(["embedder.epochs"], of_figure3()))
    results = made(["embedder.epochs"], [*of_figure3(), *search, *lost, *aa], tuned=("finetune.lr",))
    figure = figure3_otdd_vs_error.compute(replace(results, trials=results.trials.assign(**{"finetune.lr": 1e-3})))
    ((own, repeats),) = figure.series
    assert (own.curve, own.trials, own.correlation) == (
        plain.series[0][0].curve,
        plain.series[0][0].trials,
        plain.series[0][0].correlation,
    )
    assert [cell.interval for cell in own.line.cells] == [cell.interval for cell in plain.series[0][0].line.cells]
    assert (repeats.line.name, repeats.correlation, len(repeats.trials)) == ("all trials (aa)", None, 3)
    notes = figure3_otdd_vs_error.plot(figure).get_supxlabel().replace("\n", " ")
    assert "Not ok: 3 of 15 trials (3 lost); no mean includes them." in notes
    assert "aa: the reference cell repeated with other seeds." in notes
    assert "finetune.lr tuned within each cell; no mean includes the 9 tuning candidates." in notes


def test_naive_trials_are_the_start_of_every_proxy_s_line():
    naive = [row for row in of_figure3() if not row["embedder.epochs"]]
    rows = [*naive, *(row | {"proxy": p} for p in ("a", "b") for row in of_figure3() if row["embedder.epochs"])]
    ((panel,), (all_series,)) = (
        (figure := figure3_otdd_vs_error.compute(made(["proxy", "embedder.epochs"], rows))).panels,
        figure.series,
    )
    assert [line.name for line in panel.lines] == ["a", "b"]
    for series in all_series:
        assert [cell.levels["embedder.epochs"] for cell in series.line.cells] == [0, 1, 4]
        assert series.line.label == series.line.name
        assert series.correlation.n == 6
    assert figure.facts.n_trials == 3 + 2 * 6  # drawn twice, counted once
    drawn = figure3_otdd_vs_error.plot(figure)
    assert "the same trials in all lines" in drawn.axes[2].get_xlabel().replace("\n", " ")


def test_objectives_are_never_drawn_on_one_axis():
    rows = [row | {"embedder.objective": o} for o in ("mmd", "l2") for row in of_figure3() if row["embedder.epochs"]]
    naive = [row for row in of_figure3() if not row["embedder.epochs"]]
    figure = figure3_otdd_vs_error.compute(made(["embedder.objective", "embedder.epochs"], [*naive, *rows]))
    assert [panel.title for panel in figure.panels] == [
        "digits, embedder.objective mmd",
        "digits, embedder.objective l2",
    ]
    assert [[series.objective for series in row] for row in figure.series] == [["mmd"], ["l2"]]
    assert all([cell.levels["embedder.epochs"] for cell in p.lines[0].cells] == [0, 1, 4] for p in figure.panels)


def test_what_acts_without_embedder_training_is_never_taken_from_a_trained_cell():
    from orca_sweep.config import embedder_training_fields, knobs

    embedder = {path for path in knobs() if path.startswith("embedder.")}
    act_untrained = {"embedder.init", "embedder.channel_copy", "embedder.target_length"}
    assert embedder - {*embedder_training_fields(), *naive.NAIVE} == act_untrained
    rows = [row | {"embedder.init": init} for init in ("copied", "random") for row in of_figure3()]
    figure = figure3_otdd_vs_error.compute(made(["embedder.init", "embedder.epochs"], rows))
    assert [[c.interval.n for c in line.cells] for line in figure.panels[0].lines] == [[3, 3, 3], [3, 3, 3]]


def test_one_seed_and_equal_values_have_no_correlation_and_no_interval_and_say_so():
    results = made(["embedder.epochs"], [row for row in of_figure3() if row["seed"] == 0])
    figure = figure3_otdd_vs_error.compute(results)
    drawn = figure3_otdd_vs_error.plot(figure)
    text = drawn.axes[4].get_legend().get_texts()[0].get_text()
    caution = "fewer than 3 clusters: no interval"
    assert text.splitlines() == ["all trials, n = 1", "rank correlation 1.00", "2 trials, 1 seed", caution]
    equal = figure3_otdd_vs_error.compute(made(["embedder.epochs"], [row | {"y": 0.5} for row in of_figure3()]))
    text = figure3_otdd_vs_error.plot(equal).axes[4].get_legend().get_texts()[0].get_text()
    assert "a measure does not vary: no" in text
    assert "nan" not in text


def test_a_correlation_says_that_its_seeds_lack_trials():
    rows = of_figure3()
    rows[-1] |= {"status": "failed"}
    figure = figure3_otdd_vs_error.compute(made(["embedder.epochs"], rows))
    text = figure3_otdd_vs_error.plot(figure).axes[4].get_legend().get_texts()[0].get_text()
    assert "5 trials, 3 seeds\n1 of these seeds lacks trials" in text


def test_a_panel_without_a_result_does_not_widen_that_of_another():
    """Both are of one task and share their range."""
    rows = [row | {"body.pretrain_fraction": f} for f in (0.0, 1.0) for row in of_figure3()]
    half = [row | {"status": "lost", "objectives": ()} if row["body.pretrain_fraction"] else row for row in rows]
    naive = [
        row | {"status": "lost"} if row["body.pretrain_fraction"] and row["embedder.epochs"] else row for row in rows
    ]
    for lacking, words in ((half, "no result yet"), (naive, "no trial with embedder training")):
        tables = made(["body.pretrain_fraction", "embedder.epochs"], lacking)
        drawn = figure3_otdd_vs_error.plot(figure3_otdd_vs_error.compute(tables))
        assert drawn.axes[2].get_ylim()[0] > -0.3  # the interval of the errors 0.1 to 0.3 ends at -0.05
        assert any(words in text.replace("\n", " ") for text, _ in find_texts(drawn))
    lines = figure2_proxies.plot(figure2_proxies.compute(made(["body.pretrain_fraction", "embedder.epochs"], half)))
    assert lines.axes[0].get_ylim()[0] > 0.3  # the interval of 0.6 to 0.8 begins at 0.45


@pytest.mark.parametrize("least", [0.5, 0.04, 1e-3, 1e-9])
def test_an_objective_of_many_decades_has_numbers_on_its_axes(least):
    rows = [
        row | {"objectives": [1.0, *(least * (1 + seed) for seed in range(row["embedder.epochs"]))]}
        for row in of_figure3()
    ]
    rows = [row | {"objective_last": row["objectives"][-1]} for row in rows]
    figure = figure3_otdd_vs_error.plot(figure3_otdd_vs_error.compute(made(["embedder.epochs"], rows)))
    left, right = figure.axes[1], figure.axes[3]
    find_texts(figure)
    for ticks, (low, high) in ((left.get_yticks(), left.get_ylim()), (right.get_xticks(), right.get_xlim())):
        assert 2 <= sum(low <= tick <= high for tick in ticks) <= 8
    assert left.get_yscale() == ("linear" if least == 0.5 else "log")


# Figure 4 -----------------------------------------------------------------------------------------


def of_figure4(lengths=("10", "forever")):
    schedules = [("none", "0"), *((freeze, length) for freeze in ("body", "both") for length in lengths)]
    for i, (freeze, length) in enumerate(schedules):
        for n in (0, 20):
            for seed in range(3):
                levels = {"finetune.freeze": freeze, "finetune.freeze_epochs": length, "embedder.epochs": n}
                yield {**levels, "seed": seed, "y": 0.1 * i + 0.05 * (n == 0) + 0.01 * seed}


def test_figure4_has_a_group_of_rows_per_schedule_and_the_reference_first():
    rows = sorted(of_figure4(), key=lambda row: row["finetune.freeze"] == "none")  # it need not be the first level
    figure = figure4_freezing.compute(made(["finetune.freeze", "embedder.epochs", "finetune.freeze_epochs"], rows))
    shown = [(row.schedule, row.line, round(row.cell.interval.mean, 9)) for row in figure.rows[0]]
    assert shown == [
        ("none", "0", 0.06), ("none", "20", 0.01),
        ("body, 10 epochs", "0", 0.16), ("body, 10 epochs", "20", 0.11),
        ("body, forever", "0", 0.26), ("body, forever", "20", 0.21),
        ("both, 10 epochs", "0", 0.36), ("both, 10 epochs", "20", 0.31),
        ("both, forever", "0", 0.46), ("both, forever", "20", 0.41),
    ]  # fmt: skip
    is_interval(figure.rows[0][2].cell.interval, 3, 0.16, 0.01)
    drawn = figure4_freezing.plot(figure)
    axis = drawn.axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()][:2] == ["none (reference)", "body, 10 epochs"]
    assert [text.get_text() for text in axis.texts] == ["n = 3"] * 10
    legend = [text.get_text() for text in axis.get_legend().get_texts()]
    assert legend == ["without embedder training: 0 (naive)", "with embedder training: 20"]
    dotted = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]
    assert dotted == pytest.approx([0.06, 0.01])
    assert axis.get_xlabel() == "test error (share of wrong labels)"
    assert "Dotted: the means of the reference" in drawn.get_supxlabel().replace("\n", " ")


def test_figure4_reads_the_length_where_it_is_no_factor_and_counts_what_is_not_ok():
    rows = [*of_figure4(("5",))]
    rows[7] |= {"status": "oom"}  # body, naive, seed 1
    rows[10] |= {"status": "oom"}  # body, trained, seed 1
    figure = figure4_freezing.compute(made(["finetune.freeze", "embedder.epochs"], rows))
    assert [row.schedule for row in figure.rows[0][2:]] == ["body, 5 epochs"] * 2 + ["both, 5 epochs"] * 2
    drawn = figure4_freezing.plot(figure)
    assert [text.get_text() for text in drawn.axes[0].texts][2] == "n = 2, 1 not ok"
    assert "Not ok: 2 of 18 trials (2 oom)" in " ".join(drawn.get_supxlabel().split())


@pytest.mark.parametrize(
    ("freeze", "length", "name"),
    [
        ("none", "0", "none"),
        ("body", "1", "body, 1 epoch"),
        ("layernorm", "forever", "layernorm"),
        ("body:4 > none", "4", "body:4 > none"),
        ("body lr*10", "5", "body lr*10, 5 epochs"),
        ("body:5 lr*10 constant > none fresh", "0", "body:5 lr*10 constant > none fresh"),
        ("body:3 > embedder:2 > none", "0", "body:3 > embedder:2 > none"),
    ],
)
def test_a_schedule_s_name(freeze, length, name):
    assert figure4_freezing.name_schedule(freeze, length) == name


def test_figure4_without_a_reference_or_an_embedder_s_factor():
    levels = {"finetune.freeze": ["body", "both"], "body.pretrain_fraction": [0.0, 1.0]}
    rows = [row | {"finetune.freeze_epochs": "5"} for row in crossed(levels)]
    figure = figure4_freezing.compute(made(list(levels), rows))
    assert [panel.title for panel in figure.panels] == [
        "digits, body.pretrain_fraction 0",
        "digits, body.pretrain_fraction 1",
    ]
    drawn = figure4_freezing.plot(figure)
    assert drawn.axes[0].get_legend() is None
    assert "Dotted" not in drawn.get_supxlabel()


# Figure 5 -----------------------------------------------------------------------------------------


def test_figure5_has_a_line_per_proxy_along_the_fractions():
    levels = {"proxy": ["none", "mnist5k"], "body.pretrain_fraction": [1.0, 0.1, 0.0]}
    figure = figure5_pretraining.compute(made(list(levels), crossed(levels)))
    (panel,) = figure.panels
    assert figure.by == ("proxy",)
    assert [line.label for line in panel.lines] == ["none (naive)", "mnist5k"]
    for line in panel.lines:
        assert [cell.levels["body.pretrain_fraction"] for cell in line.cells] == [0, 0.1, 1]
    is_interval(panel.lines[1].cells[1].interval, 3, 0.2 + 0.03 * 4 + 0.01, 0.01)
    drawn = figure5_pretraining.plot(figure)
    notes = drawn.get_supxlabel().replace("\n", " ")
    assert "The intervals do not include the noise of pre-training" in notes
    axis = drawn.axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0\n(random)", "0.1", "1"]
    zero, *rest = axis.get_xticks()
    assert rest == pytest.approx([-1, 0])
    trends = [line.get_xdata() for line in axis.lines if len(set(line.get_xdata())) > 1]
    assert len(trends) == 2
    assert zero < min(map(min, trends)) == pytest.approx(-1)  # no line leads across the break


def test_pretraining_seeds_are_the_replicates_where_they_are_varied():
    levels = {"body.pretrain_seed": [0, 1, 2], "body.pretrain_fraction": [0.0, 1.0]}
    rows = [row | {"y": row["body.pretrain_seed"] + 0.1 * row["seed"]} for row in crossed(levels)]
    rows[0] |= {"status": "failed"}  # a seed of the first body
    figure = figure5_pretraining.compute(made(list(levels), rows))
    ((line,),) = [panel.lines for panel in figure.panels]
    first, second = line.cells
    assert figure.over == "pre-training seeds"
    assert first.interval == t_interval([0.15, 1.1, 2.1])
    is_interval(second.interval, 3, 1.1, 1)
    assert (first.n_not_ok, second.n_not_ok) == (1, 0)
    assert figure.by == ()
    notes = figure5_pretraining.plot(figure).get_supxlabel().replace("\n", " ")
    assert "Means over n pre-training seeds" in notes
    assert "so the intervals include the noise of pre-training." in notes


def test_figure5_takes_another_factor_s_levels_as_lines_where_no_embedder_s_is_varied():
    levels = {"finetune.lr": [1e-3, 1e-4], "body.pretrain_fraction": [0.0, 0.5, 1.0]}
    figure = figure5_pretraining.compute(made(list(levels), crossed(levels)))
    assert figure.by == ("finetune.lr",)
    assert [line.name for line in figure.panels[0].lines] == ["0.001", "0.0001"]


@pytest.mark.parametrize("fractions", [[0.0], [1.0], [0.0, 1.0], [0.00033, 0.0033, 1.0]])
def test_figure5_of_few_fractions(fractions):
    rows = crossed({"body.pretrain_fraction": fractions})
    figure = figure5_pretraining.compute(made(["body.pretrain_fraction"], rows))
    axis = figure5_pretraining.plot(figure).axes[0]
    assert len(axis.get_xticks()) == len(fractions)
    assert np.isfinite(axis.get_xlim()).all()


# All figures --------------------------------------------------------------------------------------


def of(script, n_lines=2, tasks=("digits",), n_seeds=3, factor="proxy"):
    """Tables that a script takes, with a number of lines."""
    own = {
        figure2_proxies: {},
        figure3_otdd_vs_error: {"embedder.epochs": [1, 2, 5, 10, 20, 40, 80]},
        figure4_freezing: {"finetune.freeze": ["none", "embedder", "body", "both"]},
        figure5_pretraining: {"body.pretrain_fraction": [0.0, 0.01, 0.1, 1.0]},
    }[script]
    levels = {"task": list(tasks), factor: [f"some-{factor}-{i}" for i in range(n_lines)], **own}
    rows = []
    for row in crossed(levels, n_seeds):
        n = row.get("embedder.epochs", 3)
        row |= {"objectives": [20 * 2.0 ** -(e / 3) + 0.3 + 0.02 * row["seed"] for e in range(n + 1)]}
        rows.append(row | {"objective_last": row["objectives"][-1]})
    return made(list(levels), rows)


@pytest.mark.parametrize("script", FIGURES, ids=lambda s: s.NAME)
def test_a_sweep_that_has_just_begun_has_a_picture_that_says_so(script):
    begun = of(script)
    lost = begun.trials.assign(status="lost", metric=None, test_metric_best=math.nan, objective_last=math.nan)
    begun = replace(begun, trials=lost, epochs=begun.epochs.iloc[:0])
    drawn = script.plot(script.compute(begun))
    words = " ".join(text for text, _ in find_texts(drawn)).replace("\n", " ")
    assert f"no result yet: 0 of {len(lost)} trials are ok" in words
    assert f"Not ok: {len(lost)} of {len(lost)} trials ({len(lost)} lost)" in words
    empty = replace(begun, trials=lost.iloc[:0])
    words = " ".join(text for text, _ in find_texts(script.plot(script.compute(empty)))).replace("\n", " ")
    assert "there is no trial yet" in words
    candidates = lost.assign(role="search", **{"finetune.lr": 1e-3})
    searching = replace(begun, trials=candidates, tuned=("finetune.lr",))
    words = " ".join(text for text, _ in find_texts(script.plot(script.compute(searching)))).replace("\n", " ")
    assert "no result yet: there are only tuning candidates" in words


@pytest.mark.parametrize("script", FIGURES, ids=lambda s: s.NAME)
def test_one_result_is_a_point_without_an_interval(script):
    begun = of(script)
    trials = begun.trials.assign(status=["ok", *["lost"] * (len(begun.trials) - 1)])
    trials.loc[1:, "test_metric_best"] = math.nan
    record = script.compute(replace(begun, trials=trials))
    find_texts(script.plot(record))
    row = next(row for row in as_rows(script, record) if row["what"] == "test_metric_best")
    assert (row["n"], float(row["mean"]), row["low"]) == ("1", 0.2, "")


@pytest.mark.parametrize("script", FIGURES, ids=lambda s: s.NAME)
def test_more_panels_than_fit_are_in_the_csv(script):
    tasks = [f"task-{i}" for i in range(figures.MAX_PANELS + 2)]
    record = script.compute(of(script, 1, tasks, n_seeds=2))
    drawn = script.plot(record)
    assert "2 more panels are in the CSV only." in drawn.get_supxlabel().replace("\n", " ")
    assert {row["panel"].split(",")[0] for row in as_rows(script, record)} == set(tasks)


@pytest.mark.parametrize("script", FIGURES, ids=lambda s: s.NAME)
def test_the_csv_equals_the_record(script):
    record = script.compute(of(script, factor="embedder.init", tasks=("digits", "ecg")))
    rows = [row for row in as_rows(script, record) if row["what"] == "test_metric_best"]
    cells = {cell.cell_id: cell for panel in record.panels for line in panel.lines for cell in line.cells}
    assert sorted(row["cell_id"] for row in rows) == sorted(cells)
    for row in rows:
        i = cells[row["cell_id"]].interval
        assert (int(row["n"]), float(row["mean"]), float(row["low"]), float(row["high"])) == (
            i.n,
            i.mean,
            i.low,
            i.high,
        )
        assert row["embedder.init"] == cells[row["cell_id"]].levels["embedder.init"]


def test_figure3_s_csv_has_its_curves_trials_and_correlations():
    figure = figure3_otdd_vs_error.compute(made(["embedder.epochs"], of_figure3()))
    rows, ((series,),) = as_rows(figure3_otdd_vs_error, figure), figure.series
    by = {what: [row for row in rows if row["what"] == what] for what in dict.fromkeys(row["what"] for row in rows)}
    assert {what: len(of_kind) for what, of_kind in by.items()} == {
        "objective of a seed": 15, "objective": 5, "test_metric_best": 3, "trial": 6, "spearman": 1, "kendall": 1,
    }  # fmt: skip
    seeds = {(int(r["seed"]), int(r["embedder.epochs"])): float(r["objective"]) for r in by["objective of a seed"]}
    assert seeds == {(seed, e): value for seed, of_seed in series.seeds.items() for e, value in of_seed.items()}
    assert [float(row["mean"]) for row in by["objective"]] == [interval.mean for interval in series.curve.values()]
    points = [(int(r["seed"]), int(r["embedder.epochs"]), float(r["objective"]), float(r["mean"])) for r in by["trial"]]
    assert points == [(t.seed, t.epochs, t.objective, t.metric) for t in series.trials]
    (rho,) = by["spearman"]
    assert (float(rho["mean"]), float(rho["low"])) == (series.correlation.rho, series.correlation.rho_low)


@pytest.mark.parametrize("script", FACTOR, ids=lambda s: s.NAME)
def test_a_sweep_without_the_figure_s_factor_is_refused_with_those_it_has(script):
    other = made(["finetune.lr", "proxy"], crossed({"finetune.lr": [1e-3], "proxy": ["a"]}))
    with pytest.raises(InputError) as error:
        script.compute(other)
    assert tuple(map(str, error.value.problems)) == (
        f"demo: {FACTOR[script]!r} is not a factor of this sweep. Its factors: finetune.lr, proxy. Give {FACTOR[script]} two"
        " or more levels, or draw figure2_proxies, which takes any factor.",
    )


def test_cells_that_no_factor_distinguishes_are_not_joined():
    """Tables of two sweeps that differ in their base."""
    rows = [row | {"finetune.lr": lr} for lr in (1e-3, 1e-4) for row in crossed({"body.pretrain_fraction": [0.0, 1.0]})]
    mixed = made(["body.pretrain_fraction"], rows, apart=["finetune.lr"])
    with pytest.raises(InputError) as error:
        figure5_pretraining.compute(mixed)
    assert str(error.value.problems[0]) == (
        "Cells digits/0.0/0.001 and digits/0.0/0.0001 have the same levels (body.pretrain_fraction 0): they differ in"
        " what is not a factor (finetune.lr). Cells digits/1.0/0.001 and digits/1.0/0.0001 have the same levels"
        " (body.pretrain_fraction 1): they differ in what is not a factor (finetune.lr). Make that field a"
        " factor of the space, or collect its sweeps into separate tables."
    )


def test_the_notes_name_a_trial_scored_as_the_worst():
    rows = [*crossed({"body.pretrain_fraction": [0.0, 1.0]})]
    rows[1] |= {"status": "diverged"}
    figure = figure5_pretraining.compute(made(["body.pretrain_fraction"], rows, worst={"demo": ["diverged"]}))
    assert figure.panels[0].lines[0].cells[0].interval.n == 3
    notes = figure5_pretraining.plot(figure).get_supxlabel().replace("\n", " ")
    assert (
        "Not ok: 1 of 6 trials (1 diverged); no mean includes them, except 1 scored as the worst of their task."
        in notes
    )


def test_axes_name_metric_and_unit_and_words_are_plain():
    def label(column, metric, **more):
        return figures.label_measure(column, figures.Panel(title="", task="t", metric=metric, lines=(), **more))

    assert label("val_metric_last", "nrmse") == "validation nrmse"
    assert label("test_metric_best", "") == "test metric"
    assert label("test_metric_best", "snr", mode="max", unit="dB") == "test snr (dB)\n(higher is better)"
    assert label("n_steps", "error") == "n_steps"
    assert (
        figures.shorten_label("/data/me/signals.npz kind=classification output_shape=4")
        == "signals.npz kind...n output_shape=4"
    )
    assert figures.shorten_label("shuffled:mnist5k") == "shuffled:mnist5k"


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.NAME)
def test_equal_tables_give_equal_files(figure, tmp_path):
    results = of(figure)
    paths = [write_analysis(tmp_path / folder, figure.NAME, results) for folder in ("first", "second")]
    assert [path.name for path in paths[0]] == [f"{figure.NAME}.{kind}" for kind in KINDS]
    for first, second in zip(*paths, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert len(list((tmp_path / "first").glob("[!.]*"))) == len(KINDS)
    assert (tmp_path / "first" / f"{figure.NAME}.png").stat().st_size > 10_000


def test_drawing_leaves_no_global_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    make_output("figure5_pretraining", of(figure5_pretraining))
    assert dict(matplotlib.rcParams) == before
    library = (REPO / "orca_sweep" / "analysis").rglob("*.py")
    assert not [path for path in library if "pyplot" in path.read_text()]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    (tmp_path / "a.csv").write_text("old")

    def half():
        with writing.replace_whole(tmp_path / "a.csv") as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.csv", "old")]


# What a launch draws ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ({"proxy": ["none", "a"], "body.pretrain_fraction": [0.0, 1.0]}, ["figure2_proxies"]),
        (
            {"proxy": ["none", "a"], "body.pretrain_fraction": [0.0, 0.1, 1.0]},
            ["figure5_pretraining", "figure2_proxies"],
        ),
        ({"embedder.epochs": [0, 1, 5]}, ["figure3_otdd_vs_error"]),
        ({"finetune.freeze": ["none", "body"], "embedder.epochs": [0, 20]}, ["figure4_freezing"]),
        ({"embedder.epochs": [0, 20]}, ["figure2_proxies"]),
        ({"finetune.lr": [1e-3, 1e-4]}, ["figure2_proxies"]),
        ({"task": ["digits"]}, ["figure2_proxies"]),
    ],
)
def test_a_launch_draws_the_figures_whose_factors_are_varied(levels, names):
    assert list(choose_figures(made(list(levels), crossed(levels, 1)))) == names


def test_a_launch_says_where_its_figures_are_and_why_one_is_missing(tmp_path):
    results = of(figure5_pretraining)
    drawn = draw_figures(results, tmp_path / "figures")
    assert [path.name for path in drawn.pictures] == ["figure5_pretraining.png", "figure2_proxies.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn.pictures)
    assert drawn.refusals == ()
    (tmp_path / "file").write_text("")
    drawn = draw_figures(results, tmp_path / "file")
    assert drawn.pictures == ()
    assert str(drawn.refusals[0]).startswith("no figure: figure5_pretraining: FileExistsError: ")


def test_a_figure_that_breaks_does_not_end_a_launch(tmp_path, monkeypatch):
    def break_down(results):
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(figure5_pretraining, "compute", break_down)
    drawn = draw_figures(of(figure5_pretraining), tmp_path / "figures")
    assert [path.name for path in drawn.pictures] == ["figure2_proxies.png"]
    assert list(map(str, drawn.refusals)) == ["no figure: figure5_pretraining: ZeroDivisionError: by chance"]


def test_every_figure_of_a_bundled_space_is_the_one_it_is_named_after():
    import yaml

    for path in (REPO / "search_spaces").glob("figure*.yaml"):
        factors = yaml.safe_load(path.read_text())["factors"]
        shown = choose_figures(made(list(factors), crossed(factors, 1)))
        assert shown[0] == path.stem.removesuffix("_1d"), path
