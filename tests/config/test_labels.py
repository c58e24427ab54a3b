"""Labels: different levels never share a label, and users see what they wrote, from the plan to the report."""

import itertools
import json

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orca_sweep import results as r
from orca_sweep.analysis import factor_effects, figure4_freezing, figures, table_effects, table_results
from orca_sweep.analysis.catalogue import choose_figures
from orca_sweep.analysis.cells import read_task_cells
from orca_sweep.analysis.claims import compute as judge_claims
from orca_sweep.analysis.report.record import compute as compute_report
from orca_sweep.analysis.tables import read_cells
from orca_sweep.cli import plan as plan_command
from orca_sweep.cli import summary
from orca_sweep.config import knobs
from orca_sweep.config.freeze_words import find_range_problems
from orca_sweep.config.labels import shorten_labels, unite_labels, write_as_given, write_level
from orca_sweep.config.naming import label_declarations
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space
from orca_sweep.space.confounds import find_confounds
from orca_sweep.space.manifest import make_manifest, rebuild_plan, require_manifest, write_manifest
from orca_sweep.trial import load_imports, make_config
from tests.builders.levels import LEVELS, SHORT

DIGITS = {"task": "digits", "proxy": "mnist5k", "embedder.epochs": "5"}


def space_text(factors, base=DIGITS, more="seeds: 1\n"):
    kept = {path: value for path, value in base.items() if path not in factors}
    lines = [f"  {path}: {value}" for path, value in kept.items()]
    quoted = {p: [v if v[0] in "[{" else v if v == "null" else f"{v!r}" for v in of] for p, of in factors.items()}
    lines += ["factors:", *(f"  {path}: [{', '.join(of)}]" for path, of in quoted.items())]
    return "\n".join(["base:", *(lines if kept else ["  {}", *lines]), more])


def plan_of(folder, factors, **more):
    path = folder / "space.yaml"
    path.write_text(space_text(factors, **more))
    return plan_space(path, load_imports, make_config)


def test_every_field_has_levels_here():
    assert set(LEVELS) == set(knobs()) - {"seed"}


@pytest.mark.parametrize("path", LEVELS)
def test_distinct_levels_of_a_factor_have_distinct_labels_and_read_as_they_are_written(tmp_path, path):
    made = plan_of(tmp_path, {path: LEVELS[path]})
    labels = [made.labels[cell_id][path] for cell_id in made.by_cell_id]
    assert len(set(labels)) == len(labels) == len(made.cells)
    # Labels are as written, except for a field without effect, which is one cell and shows its default.
    written = [SHORT.get(level, level) for level in LEVELS[path]]
    assert set(labels) <= set(written) or len(made.cells) == 1
    if len(made.cells) == len(LEVELS[path]) > 1:
        assert labels == written


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(sorted(LEVELS)), min_size=2, max_size=3, unique=True), st.randoms(use_true_random=False)
)
def test_cells_of_several_factors_have_distinct_labels(tmp_path_factory, paths, random):
    factors = {path: random.sample(LEVELS[path], min(3, len(LEVELS[path]))) for path in paths}
    try:
        made = plan_of(tmp_path_factory.mktemp("several"), factors)
    except InputError:
        return  # some levels cannot be combined
    shown = {tuple(labels.values()) for labels in made.labels.values()}
    assert len(shown) == len(made.cells), made.labels


def test_one_level_written_twice_is_one_and_the_plan_says_so(tmp_path):
    made = plan_of(
        tmp_path, {"finetune.freeze": ["none", "linear-probe", "embedder+body:forever"], "finetune.lr": ["1e-3", "0.1"]}
    )
    assert {labels["finetune.freeze"] for labels in made.labels.values()} == {"none", "linear-probe"}
    assert any("the levels linear-probe and embedder+body:forever are the same work" in note for note in made.notes)
    other = plan_of(tmp_path, {"finetune.freeze": ["embedder+body:forever", "none", "linear-probe"]})
    assert [labels["finetune.freeze"] for labels in other.labels.values()] == ["embedder+body:forever", "none"]
    # Only one of them has an effect where they differ: no note.
    apart = plan_of(tmp_path, {"finetune.freeze": ["body:3 > none", "body"], "finetune.freeze_epochs": ["3", "5"]})
    assert apart.notes == () and len(apart.cells) == 2


def test_a_number_written_twice_is_refused_with_both_ways_to_write_it(tmp_path):
    with pytest.raises(InputError, match=r"names the level 0.001 twice, as 1e-3 and as 0.001\. Keep one"):
        plan_of(tmp_path, {"finetune.lr": ["1e-3", "0.001"]})


def test_schedules_that_run_alike_within_short_runs_keep_their_levels(tmp_path):
    made = plan_of(tmp_path, {"finetune.freeze": ["none", "body:7 > none"], "finetune.epochs": ["5", "20"]})
    assert len(made.cells) == 4
    assert [tuple(labels.values()) for labels in made.labels.values()] == list(
        itertools.product(["none", "body:7 > none"], ["5", "20"])
    )
    mixed = plan_of(
        tmp_path, {"finetune.freeze": ["body:7 > none", "body:9 > none", "body"], "finetune.epochs": ["6", "20"]}
    )
    assert {tuple(labels.values()) for labels in mixed.labels.values()} >= {("body:forever", "6"), ("body", "6")}


def test_rules_may_hold_for_one_schedule_alone_and_moving_together_is_seen(tmp_path):
    freeze = {"finetune.freeze": ["body:4 > none", "body:7 > none"]}
    rule = "seeds: 2\nwhen: [{if: {finetune.freeze: 'body:7 > none'}, set: {finetune.lr: 1e-2}}]\n"
    made = plan_of(tmp_path, freeze, more=rule)
    assert any(
        "finetune.freeze and finetune.lr move together in every cell" in str(text) for text in find_confounds(made)
    )


def test_a_fraction_of_two_schedules_is_balanced(tmp_path):
    factors = {"finetune.freeze": ["body:4 > none", "body:7 > none"], "finetune.lr": ["1e-3", "1e-4"]}
    factors |= {"finetune.batch_size": ["8", "16"], "finetune.weight_decay": ["0", "0.1"]}
    made = plan_of(tmp_path, factors, more="seeds: 1\ndesign: fraction\n")
    assert not [note for note in made.notes if "no longer balanced" in note]


# Tables, figures, report --------------------------------------------------------------------------


def run_sweep(folder, factors, name="demo", **more):
    """A sweep folder as launch leaves it; the result of each cell and seed is a number."""
    folder.mkdir(parents=True)
    made = plan_of(folder, factors, **{"more": f"name: {name}\nseeds: 3\nmetric: val_metric_best\n", **more})
    write_manifest(folder, make_manifest(made, folder, str(folder / "store")))
    for i, trial in enumerate(made.trials):
        row = {"trial_id": trial.trial_id, "cell_id": trial.cell_id, "status": "ok", "metric": "error", "n_val": 9}
        row["val_metric_best"] = 0.3 + 0.05 * (i % len(made.cells)) + 0.01 * trial.seed * (i % 3)
        r.write_record(folder, row, [{"stage": "finetune", "epoch": 1, "val_metric": row["val_metric_best"]}])
    return made


SWEEP = {"finetune.freeze": ["none", "body:4 > none", "body:7 > none"], "finetune.lr": ["1e-3", "0.01"]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "s"
    return folder, run_sweep(folder, SWEEP), r.collect([folder], folder / "tables")


def test_schedules_stay_two_levels_in_plan_manifest_summary_tables_and_figures(sweep, capsys):
    folder, made, results = sweep
    freezes, rates = SWEEP["finetune.freeze"], SWEEP["finetune.lr"]
    plan_command.plan([folder / "space.yaml"], out=folder)
    summary._print_cells(results, summary.Console(width=200))
    shown = capsys.readouterr().out
    assert all(shown.count(level) >= 2 for level in ("body:4 > none", "body:7 > none", "1e-3"))
    assert rebuild_plan(require_manifest(folder), folder / "sweep.json").labels == made.labels
    assert {tuple(cell.labels.values()) for cell in r.summarise_cells(results)} == set(
        itertools.product(freezes, rates)
    )
    written = pd.read_parquet(folder / "tables" / "trials.parquet")["levels"].map(json.loads)
    assert {level["finetune.freeze"] for level in written} == set(freezes)
    assert choose_figures(results) == ("figure4_freezing",)
    figure = figure4_freezing.compute(results)
    assert [row.schedule for row in figure.rows[0]] == freezes
    assert {panel.title for panel in figure.panels} == {f"digits, finetune.lr {rate}" for rate in rates}
    assert len(figures.build_panels(r.summarise_cells(results), results, ("finetune.lr",), ("finetune.freeze",))) == 1
    figure4_freezing.plot(figure)


def test_schedules_stay_two_levels_in_analyses_claims_and_report(sweep):
    _, _, results = sweep
    effects = factor_effects.compute(results)
    assert [(effect.factors, effect.df) for effect in effects.tasks[0].pooled.effects] == [
        (("finetune.freeze",), 2), (("finetune.lr",), 1), (("finetune.freeze", "finetune.lr"), 2),
    ]  # fmt: skip
    factor_effects.plot(effects)
    rows = table_effects.compute(results, base=["finetune.freeze=body:7 > none", "finetune.lr=0.001"]).tasks[0].rows
    assert {row.cell.name for row in rows} == {
        f"finetune.freeze {freeze}, finetune.lr {rate}" for freeze, rate in itertools.product(*SWEEP.values())
    } - {"finetune.freeze body:7 > none, finetune.lr 1e-3"}
    assert len(table_results.compute(results).tasks[0].cells) == 6
    (task,) = read_task_cells(results)
    assert [len(task.find_alike(cell, {"finetune.lr"})) for cell in task.cells] == [2] * 6
    judge_claims(results)
    assert "body:4 > none" in repr(compute_report(results))


def test_one_level_that_two_spaces_write_in_two_ways_is_one_in_their_tables(tmp_path):
    run_sweep(tmp_path / "a", {"finetune.lr": ["1e-3", "1e-2"], "finetune.freeze": ["body:4 > none"]}, name="a")
    other = {**DIGITS, "finetune.freeze_epochs": "4"}
    run_sweep(
        tmp_path / "b", {"finetune.lr": ["0.1", "0.01"], "finetune.freeze": ["body", "none"]}, name="b", base=other
    )
    results = r.collect([tmp_path / "a", tmp_path / "b"], tmp_path / "t")
    again = r.collect([tmp_path / "t"], tmp_path / "u")
    for read in (results, r.read_results(tmp_path / "t"), again):
        assert set(read.labels["finetune.lr"]) == {"1e-3", "1e-2", "0.1"}
        assert set(read.labels["finetune.freeze"]) == {"body:4 > none", "none"}
    assert len(read_cells(results)) == 5


def test_a_space_that_does_not_vary_a_factor_has_the_whole_level_it_runs_with(tmp_path):
    run_sweep(tmp_path / "a", {"finetune.freeze": ["body", "none"]}, name="a")
    for name, length in (("b", "4"), ("c", "7")):
        base = {**DIGITS, "finetune.freeze": "body", "finetune.freeze_epochs": length}
        run_sweep(tmp_path / name, {"finetune.lr": ["0.1"]}, name=name, base=base)
    results = r.collect([tmp_path / name for name in "abc"], tmp_path / "t")
    assert set(results.labels["finetune.freeze"]) == {"body", "none", "body:4", "body:7"}


# Words --------------------------------------------------------------------------------------------


def test_labels_are_one_line_and_distinct():
    raws = ["a", " a", '"a"', "a\nb", "a b", "null", None, "", "[a, b]", ["a", "b"], ["a, b"], [["a"], "b"], {"a": "b"},
            {"a": ["b", None]}, "{a: b}", "\x1b[31m", "\ud800", "\u202e"]  # fmt: skip
    labels = list(map(write_as_given, raws))
    assert len(set(labels)) == len(raws)
    assert all(label.isprintable() for label in labels)
    assert write_as_given([{"frozen": ["body"], "epochs": "5"}]) == "[{frozen: [body], epochs: 5}]"
    assert write_as_given(["0.9", "0.98"]) == "[0.9, 0.98]"
    assert yaml.safe_load(write_as_given(["a: b", "-", "x#y", "body.layers[0:2]", "1e-4"])) == [
        "a: b", "-", "x#y", "body.layers[0:2]", "1e-4",
    ]  # fmt: skip


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_different_numbers_have_different_labels(a, b):
    assert (write_level(a) == write_level(b)) == (a == b and str(a) == str(b))


@given(st.lists(st.text(st.sampled_from("ab/ ."), max_size=30), unique=True), st.integers(5, 12))
def test_short_labels_are_distinct(labels, width):
    short = shorten_labels(labels, width)
    assert len(set(short.values())) == len(labels)


def test_files_of_one_name_are_distinguished_by_their_folders():
    declared = "/data/{}/x.npz kind=classification output_shape=3 sample_shape=1x8x8"
    names = label_declarations([declared.format("a"), declared.format("b"), "digits"])
    assert len(set(names.values())) == 3 and all("x.npz" in name for name in list(names.values())[:2])
    assert label_declarations([declared.format("a")]) == {declared.format("a"): "x.npz"}


def test_levels_are_united_between_spaces_and_never_within_one():
    rows = [("1e-3", "a", "x"), ("0.001", "b", "y"), ("body", "a", "k"), ("both", "a", "k"), ("other", "b", "k")]
    assert unite_labels([("1", "a", "x"), ("1.0", "b", "y")], are_numbers=False) == {"1": "1", "1.0": "1.0"}
    assert unite_labels(rows, are_numbers=True) == {
        "1e-3": "1e-3",
        "0.001": "1e-3",
        "body": "body",
        "both": "both",
        "other": "body",
    }


# Ranges and phases --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("body.layers[5:2]", "body.layers[5:2] holds no layer; body 'swin-micro' has 4 layers"),
        ("body.layers[0:99]", "body.layers[0:99] goes beyond the last layer; body 'swin-micro' has 4 layers"),
        ("body.layers[-2:]:3 > none", "body.layers[-2:] counts from the end"),
        ("body.layers[1:-1]", "body.layers[1:-1] counts from the end"),
        ("body.layers[2:2]", "0 <= A < B <= 4"),
        ("body.layers[4:]", "body.layers[4:] holds no layer"),
        ("none:60 > body.layers[0:5]", "body.layers[0:5] goes beyond the last layer"),
        ("body:5 > body:2 > none", "phases 1 and 2 do the same ('body:5' and 'body:2')"),
        ("body:5 > body:2 > none", "Write one phase: 'body:7'"),
        ("body:1 > none:2 > none", "phases 2 and 3 do the same"),
        ("body+body:3", "'body' appears twice in the phase 'body+body:3'"),
        ("[{frozen: [body.layers[0:9]], epochs: 3}]", None),
    ],
)
def test_impossible_ranges_and_repeated_phases_are_refused_by_the_plan(tmp_path, freeze, words):
    level = f'"{freeze}"' if words else "[{frozen: ['body.layers[0:9]'], epochs: 3}]"
    text = f"base: {{task: digits}}\nfactors: {{finetune.freeze: [none, {level}]}}\nseeds: 1\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        plan_space(tmp_path / "s.yaml", load_imports, make_config)
    assert any((words or "body.layers[0:9] goes beyond") in problem for problem in map(str, caught.value.problems))
    assert all(problem.startswith(f"{tmp_path / 's.yaml'}:2: ") for problem in map(str, caught.value.problems))


def test_all_mistakes_of_schedules_are_reported_at_once(tmp_path):
    factors = {"finetune.freeze": ["body.layers[5:2]:2 > body.layers[0:9]", "bdy:2 > none:x", "body:1 > body"]}
    with pytest.raises(InputError) as caught:
        plan_of(tmp_path, factors)
    messages = "\n".join(map(str, caught.value.problems))
    for words in (
        "[5:2] holds no layer",
        "[0:9] goes beyond",
        "'bdy' cannot be frozen",
        "the length 'x'",
        "do the same",
    ):
        assert words in messages


@pytest.mark.parametrize(
    "freeze", ["body.layers[:]", "body.layers[0:4]", "body.layers[3:]", "body.layers[:1]:3", "body:3 > body fresh"]
)
def test_possible_ranges_and_phases_are_taken(tmp_path, freeze):
    assert len(plan_of(tmp_path, {"finetune.freeze": ["none", freeze]}).cells) == 2


def test_a_body_of_the_hub_has_the_layers_of_its_config_or_none_that_are_known():
    assert find_range_problems("body.layers[3:3]", "body 'org/name'", None)[0].startswith(
        "body.layers[3:3] holds no layer; the config of body 'org/name' states how many it has."
    )
    assert find_range_problems("body.layers[3:30]", "body 'org/name'", None) == []
    with pytest.raises(InputError, match="body 'swin-base' has 24 layers"):
        make_config({"task": "digits", "body.name": "swin-base", "finetune.freeze": "body.layers[0:25]"})
