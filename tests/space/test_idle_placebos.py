"""Placebos whose labels cannot act: merged where they are the same work to the last bit, else warned of, in `plan`."""

import json
from dataclasses import replace

import pytest

from orca_sweep.errors import InputError
from orca_sweep.trial import labels_act_in, make_config, resolve_config, resolve_configs, warn_of_idle_placebos

BASE = (
    "base: {{task: tiny, proxy: mnist5k, {}}}\nfactors: {{embedder.epochs: [0, 2]}}\nplacebo: [shuffled{}]\nseeds: 2\n"
)


def proxies(made):
    return [cell.proxy for cell in made.cells]


def warnings_of(made):
    return warn_of_idle_placebos(resolve_configs(made.cells), made.names)


@pytest.mark.parametrize("objective", ["mmd", "l2", "l2-paired", "moment", "sliced-wasserstein"])
def test_permuted_labels_that_the_objective_does_not_see_are_the_real_cell(plan_of, objective):
    made = plan_of(BASE.format(f"embedder.objective: {objective}", ", dummy"))
    assert proxies(made) == ["none", "mnist5k", "dummy"]
    assert made.n_merged == 1 and warnings_of(made) == []
    notes = [note for note in made.notes if "is no placebo there" in note]
    assert len(notes) == 1 and f"under embedder.objective {objective}, which sees no labels" in notes[0]
    assert "such as otdd-gaussian" in notes[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            "embedder.objective: otdd-exact",
            "proxy shuffled:mnist5k with embedder.objective otdd-exact: permuted labels",
        ),
        ("embedder.objective: otdd-emd", "do not reach its gradient"),
        ("embedder.objective: otdd-gaussian, embedder.label_gradient: false", "set embedder.label_gradient: true"),
        ("embedder.objective: otdd-exact, embedder.label_gradient: true", None),
        ("embedder.objective: otdd-emd, embedder.label_gradient: true", None),
        ("embedder.objective: otdd-gaussian", None),
    ],
)
def test_permuted_labels_that_change_the_value_alone_are_warned_of(plan_of, settings, words):
    made = plan_of(BASE.format(settings, ", dummy"))
    assert proxies(made) == ["none", "mnist5k", "shuffled:mnist5k", "dummy"]
    warnings = warnings_of(made)
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


def test_a_placebo_acts_in_some_cells_and_is_merged_in_others(plan_of):
    text = "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.objective: [mmd, otdd-gaussian, otdd-exact]}\n"
    made = plan_of(text + "placebo: [shuffled]\nseeds: 2\n")
    assert [(cell.embedder.objective, cell.proxy) for cell in made.cells] == [
        ("mmd", "mnist5k"), ("otdd-gaussian", "mnist5k"), ("otdd-exact", "mnist5k"),
        ("otdd-gaussian", "shuffled:mnist5k"), ("otdd-exact", "shuffled:mnist5k"),
    ]  # fmt: skip
    assert next(iter(made.labels.values())) == {"embedder.objective": "mmd", "proxy": "mnist5k"}
    assert sum("is no placebo there" in note for note in made.notes) == 1
    (warning,) = warnings_of(made)
    assert "embedder.objective otdd-exact" in warning


def test_a_level_of_permuted_labels_alone_runs_and_shows_as_the_real_proxy(plan_of):
    text = (
        "base: {task: tiny, embedder.objective: mmd}\nfactors: {proxy: [none, 'shuffled:shuffled:mnist5k']}\nseeds: 2\n"
    )
    made = plan_of(text)
    assert proxies(made) == ["none", "mnist5k"]
    assert [labels["proxy"] for labels in made.labels.values()] == ["none", "mnist5k"]
    assert any("is no placebo there" in note for note in made.notes)
    # Two permutations of one proxy are two placebos where labels act.
    acting = plan_of(text.replace("mmd", "otdd-gaussian"))
    assert proxies(acting) == ["none", "shuffled:shuffled:mnist5k"]


def test_a_declared_proxy_is_named_as_people_read_it(plan_of):
    own = "{path: ./a.csv, input: x, label: y, name: topics}"
    text = f"base: {{task: tiny, proxy: {own}, embedder.objective: mmd}}\nfactors: {{embedder.epochs: [0, 2]}}\n"
    made = plan_of(text + "placebo: [shuffled]\nseeds: 1\n")
    assert [labels["proxy"] for labels in made.labels.values()] == ["none", "topics"]
    assert any(note.startswith("proxy shuffled:topics is the same work") for note in made.notes)


def test_tuned_cells_merge_and_zero_epochs_have_no_placebo(plan_of):
    tune = "tune: {finetune.lr: [1e-3, 1e-2]}\n"
    made = plan_of(BASE.format("embedder.objective: l2", "") + tune)
    assert len(made.tuned) == 2 and made.n_merged == 1
    with pytest.raises(InputError, match="a placebo has nothing to replace"):
        plan_of(BASE.format("embedder.objective: l2", "").replace("[0, 2]", "[0]"))


def test_noise_acts_whatever_the_objective_and_naive_trials_have_no_labels():
    def act(**settings):
        named = {path.replace("__", "."): value for path, value in settings.items()}
        return labels_act_in(resolve_config(make_config({"task": "digits", **named})))

    dummies = [
        make_config({"task": "digits", "proxy": name, "embedder.objective": "mmd"}) for name in ("dummy", "mnist5k")
    ]
    assert dummies[0].cell_id != dummies[1].cell_id
    assert act(proxy="mnist5k") is False  # otdd-exact
    assert act(proxy="mnist5k", embedder__label_gradient=True) is True
    assert act(proxy="mnist5k", embedder__objective="otdd-gaussian") is True
    assert act(proxy="mnist5k", embedder__objective="otdd-gaussian", embedder__epochs=0) is False
    assert act(proxy="none") is False


def test_an_objective_that_does_not_say_is_warned_of_and_never_merged(plan_of, monkeypatch):
    from orca_sweep.objectives import OBJECTIVES

    own = replace(OBJECTIVES.get("l2"), name="own", sees_proxy_labels=None)
    monkeypatch.setitem(OBJECTIVES._records, "own", own)
    made = plan_of(BASE.format("embedder.objective: own", ""))
    assert proxies(made) == ["none", "mnist5k", "shuffled:mnist5k"]
    (warning,) = warnings_of(made)
    assert "does not say whether it sees the proxy's labels" in warning and "sees_proxy_labels" in warning


def test_the_command_warns(write_space, tmp_path, monkeypatch, capsys):
    from tests.builders.in_process import command

    monkeypatch.chdir(tmp_path)
    space = write_space(BASE.format("embedder.objective: otdd-exact", ""))
    assert command(monkeypatch, "plan", space, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert sum("no claim counts it" in note for note in notes) == 1
