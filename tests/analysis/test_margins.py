"""Margins fixed in a space: how they are read and printed, kept with the tables, and used for words."""

import json
from pathlib import Path

import pytest

from orca_sweep import results as r
from orca_sweep.analysis import table_effects
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space, read_space
from orca_sweep.space.manifest import make_manifest, rebuild_plan, require_manifest, write_manifest
from orca_sweep.trial import load_imports, make_config
from tests.builders.in_process import run_here as orca
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, collected, lines, sweep

TWO = "base: {proxy: none}\nfactors: {task: [tiny, digits]}\nseeds: 2\n"


def plan(path):
    return plan_space(path, load_imports, make_config)


def manifest_of(path):
    """The manifest that the sweep folder of a space would hold."""
    return make_manifest(plan(path), Path("data"), "store")


def set_margins(folder, margins):
    write_manifest(folder, require_manifest(folder).model_copy(update={"margins": margins}))


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "margins"),
    [
        ("", {}),
        ("margin: null\n", {}),
        ("margin: 1e-2\n", {"": 0.01}),
        ("margin: 0\n", {"": 0.0}),
        ("margin: {digits: 0.02}\n", {"digits": 0.02}),
        ("margin:\n  digits: 0.02\n  tiny: 1\n", {"digits": 0.02, "tiny": 1.0}),
    ],
)
def test_a_margin_is_a_number_for_all_tasks_or_one_by_task(write_space, text, margins):
    assert read_space(write_space(TWO + text)).margins == margins


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("margin: -1\n", "margin = '-1': input should be greater than or equal to 0. A margin must be a number"),
        ("margin: .inf\n", "margin = '.inf': input should be a valid number"),
        ("margin: inf\n", "margin = 'inf': input should be a finite number"),
        ("margin: wide\n", "margin = 'wide': input should be a valid number"),
        ("margin: [0.1]\n", "must be a number, 0 or more, or one per task such as {digits: 0.01, ecg: 0.02}."),
        ("margin: {}\n", "this must be a number, 0 or more, or one per task"),
        ("margin: {digits: x}\n", "margin.digits = 'x': input should be a valid number"),
        ("margin: {digits: {a: 1}}\n", "margin.digits = {'a': '1'}: input should be a valid number"),
        ("margin: {digit: 0.1}\n", "margin: 'digit' is not a task of this space. Did you mean 'digits'?"),
        ("margin: {'': 0.1}\n", "margin: '' is not a task of this space. Known: digits, tiny."),
        ("margins: 0.1\n", "margins: unknown key. Did you mean 'margin'?"),
    ],
)
def test_each_wrong_margin_is_reported_with_its_line(write_space, text, words):
    with pytest.raises(InputError) as error:
        plan(write_space(TWO + text))
    (problem,) = map(str, error.value.problems)
    assert words in problem
    assert "space.yaml:5: " in problem


def test_wrong_margins_come_all_at_once_and_with_other_mistakes(write_space):
    text = TWO + "margin:\n  digit: 0.1\n  tiny: -1\nmetric: accuracy\n"
    with pytest.raises(InputError) as error:
        plan(write_space(text))
    assert sorted(problem.where.rpartition(":")[2] for problem in error.value.problems) == ["6", "7", "8"]


def test_tasks_are_those_that_base_factors_and_rules_name(write_space):
    rules = "factors: {proxy: [none, mnist5k]}\nwhen: [{if: {proxy: none}, set: {task: digits}}]\nseeds: 1\n"
    space = read_space(write_space("base: {task: tiny}\n" + rules + "margin: {digits: 1, tiny: 2}\n"))
    assert space.margins == {"digits": 1.0, "tiny": 2.0}
    # Where the task cannot be read its names are not known, and none is called unknown.
    with pytest.raises(InputError) as error:
        read_space(write_space("base: {task: {path: x}}\nseeds: 1\nmargin: {digits: 1}\n"))
    assert len(error.value.problems) == 1
    with pytest.raises(InputError, match="no closing quotation"):  # a declaration that is wrong is no traceback here
        plan(write_space('base: {task: "x kind=\'a"}\nseeds: 1\nmargin: {a: 1}\n'))


def test_a_declared_task_is_called_by_its_file_and_kept_under_its_full_name(write_space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    task = "{path: ./sub/mine.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: 3}"
    made = plan(write_space(f"base: {{task: {task}, proxy: none}}\nseeds: 1\nmargin: {{mine.npz: 0.1}}\n"))
    (cell,) = made.cells
    assert made.space.margins == {cell.task: 0.1}
    assert str(tmp_path) in cell.task
    with pytest.raises(InputError, match="'mine' is not a task of this space. Did you mean 'mine.npz'?"):
        plan(write_space(f"base: {{task: {task}, proxy: none}}\nseeds: 1\nmargin: {{mine: 0.1}}\n"))


def test_a_margin_changes_no_id_and_a_plan_prints_it(write_space):
    plain, fixed = plan(write_space(TWO)), plan(write_space(TWO + "margin: 0.02\n"))
    assert plain.trials == fixed.trials
    printed = []
    for text in ("", "margin: 2e-2\n", "margin: {digits: 0.02}\n", "margin: {digits: 0.02, tiny: 0}\n"):
        space = write_space(TWO + text)
        done = orca("plan", space, check=0)
        printed.append([line for line in done.stdout.splitlines() if "margin" in line])
    line = "margin fixed beforehand: {}, in the metric's unit; differences within it do not count as meaningful"
    assert printed == [
        [],
        [line.format("0.02")],
        [line.format("0.02 (digits), none for tiny")],
        [line.format("0 (tiny), 0.02 (digits)")],
    ]
    done = orca("plan", space, "--json", check=0)
    assert json.loads(done.stdout)["margins"] == {"digits": 0.02, "tiny": 0.0}


@pytest.mark.parametrize("text", ["margin: 0.02\n", "margin: {digits: 0.02}\n", ""])
def test_the_sweep_folder_keeps_the_margin_and_so_does_resuming(write_space, tmp_path, text):
    whole = manifest_of(write_space(TWO + text))
    assert whole.margins == {"margin: 0.02\n": {"": 0.02}, "": {}}.get(text, {"digits": 0.02})
    write_manifest(tmp_path, whole)
    again = rebuild_plan(require_manifest(tmp_path), tmp_path / "sweep.json")
    assert again.space.margins == whole.margins
    assert make_manifest(again, Path("data"), "store").margins == whole.margins


# Tables -------------------------------------------------------------------------------------------


def two_tasks(scale=1.0):
    return [
        planned
        for task in ("a", "b")
        for levels, values in ((NONE, BASE), (MNIST, BETTER))
        for planned in cell_rows({"task": task, **levels}, [scale * value for value in values])
    ]


def test_tables_say_what_a_space_has_fixed_for_each_of_its_tasks(tmp_path):
    assert collected(tmp_path / "0", two_tasks()).margins == {}
    whole = collected(tmp_path / "1", two_tasks(), margins={"": 0.01})
    assert whole.margins == {"a": (("s", 0.01),), "b": (("s", 0.01),)}
    part = collected(tmp_path / "2", two_tasks(), margins={"b": 0.02, "c": 1.0})
    assert part.margins == {"b": (("s", 0.02),)}
    # Tables of tables keep it; a changed margin is told by the next collect, from the same rows.
    again = r.collect([tmp_path / "1" / "tables"], tmp_path / "again")
    assert again.margins == whole.margins
    set_margins(tmp_path / "1" / "s", {"": 0.5})
    changed = r.collect([tmp_path / "1" / "s"], tmp_path / "1" / "tables")
    assert changed.margins == {"a": (("s", 0.5),), "b": (("s", 0.5),)}
    assert changed.trials.equals(whole.trials)


def test_a_space_that_tunes_has_its_margins_before_anything_is_planned(tmp_path):
    fields = {
        "tuned": [{"cell_id": "c", "base": {"task": "digits"}, "settings": {}, "levels": {}, "candidates": []}],
        "margins": {"": 0.1},
    }
    assert collected(tmp_path, [], **fields).margins == {"digits": (("s", 0.1),)}


def test_words_take_the_given_margin_then_the_space_s_then_noise_then_none(tmp_path):
    noise = cell_rows({"task": "a", **NONE}, BASE, "aa", 10)
    results = collected(tmp_path, two_tasks() + noise, ("task", "proxy"), margins={"a": 0.2})

    def margins(*given):
        effects = table_effects.compute(results, margin=given)
        return {task.task: (task.margin.value, task.margin.kind) for task in effects.tasks}

    assert margins("a=0.3") == {"a": (0.3, "given"), "b": (0.0, "none")}
    assert margins() == {"a": (0.2, "fixed"), "b": (0.0, "none")}
    assert margins("0.3") == {"a": (0.3, "given"), "b": (0.3, "given")}
    effects = table_effects.compute(results)
    first, second = lines(table_effects.numbers(effects))
    assert (first["margin"], first["margin_from"], first["verdict"]) == (
        "0.2",
        "fixed in the space s",
        "no meaningful difference",
    )
    assert second["verdict"] == "helps"
    assert (
        "Verdicts are judged against a margin of 0.2, fixed in the space s."
        in table_effects.build_tables(effects)[0].caption
    )
    assert second["margin"] == ""  # not 0, which somebody could have fixed
    assert (
        "judged against zero, with no margin, because none is given" in table_effects.build_tables(effects)[1].caption
    )
    titles = [axis.get_title(loc="left").splitlines()[1] for axis in table_effects.plot(effects).axes]
    assert titles == ["base none, margin 0.2, fixed in the space", "base none, no margin"]
    unfixed = collected(tmp_path / "b", two_tasks() + noise, ("task", "proxy"))
    assert table_effects.compute(unfixed).tasks[0].margin.kind == "noise"


def merged(folder, first, second):
    """The tables of two spaces that run the same tasks at other learning rates."""
    for name, margins, lr in (("one", first, 0.1), ("two", second, 0.2)):
        for planned, _ in (trials := two_tasks()):
            planned["config"]["finetune.lr"] = lr
            planned["cell_id"] += str(lr)
            planned["trial_id"] += str(lr)
        collected(folder, trials, ("task", "proxy"), name=name, margins=margins)
    return r.collect([folder / "one", folder / "two"], folder / "tables")


def test_spaces_that_disagree_are_an_error_and_none_wins_silently(tmp_path):
    results = merged(tmp_path / "a", {"": 0.01}, {"a": 0.02, "b": 0.01})
    with pytest.raises(InputError) as error:
        table_effects.compute(results)
    assert tuple(map(str, error.value.problems)) == (
        "a: its spaces fix different margins (0.01 in one, 0.02 in two). Choose one with --margin, such as"
        " --margin a=0.01.",
    )
    a, b = table_effects.compute(results, margin=["a=0.02"]).tasks
    assert (a.margin.source, b.margin.source) == ("given for this analysis", "fixed in the spaces one, two")
    # A space that fixes none does not contradict one that does.
    agreeing = merged(tmp_path / "b", {"": 0.01}, {})
    assert {task.margin.source for task in table_effects.compute(agreeing).tasks} == {"fixed in the space one"}
    # Older tables of a space and the space itself can disagree, too.
    tables = r.collect([tmp_path / "b" / "one"], tmp_path / "old")
    assert len(tables.margins["a"]) == 1
    folder = tmp_path / "b" / "one"
    set_margins(folder, {"": 0.3})
    with pytest.raises(InputError, match=r"a: its spaces fix different margins \(0.01 in one, 0.3 in one\)"):
        table_effects.compute(r.collect([tmp_path / "old", folder], tmp_path / "both"))


def test_a_conflict_ends_in_words_and_code_2(tmp_path):
    merged(tmp_path, {"": 0.01}, {"": 0.02})
    done = orca("analyse", "table_effects", tmp_path / "tables", "--out", tmp_path / "out", check=2)
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["a", "b"]
    assert not (tmp_path / "out").exists()


def test_sweeps_of_one_task_do_not_speak_for_another(tmp_path):
    sweep(tmp_path, cell_rows({"task": "x", **NONE}, BASE), name="x", margins={"": 0.1})
    sweep(tmp_path, cell_rows({"task": "y", **NONE}, BASE), name="y", margins={"": 0.2})
    both = r.collect([tmp_path / "x", tmp_path / "y"], tmp_path / "both")
    assert both.margins == {"x": (("x", 0.1),), "y": (("y", 0.2),)}
