"""What a suite is made of: which files, under which names, and what its folder may hold."""

import json
import re
from pathlib import Path

import pytest

from orca_sweep.errors import DamagedError, InputError
from orca_sweep.record_files import record_text
from orca_sweep.space import bundled
from orca_sweep.space.bundled import find_space, list_bundled_spaces, list_bundled_suites
from orca_sweep.space.sources import find_sources
from orca_sweep.space.suites import (
    SUITE,
    SuiteManifest,
    check_suite_folder,
    find_member_problems,
    list_sweep_folders,
    read_suite,
    write_suite,
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("b.yaml", "a.yaml", "README.md", "own.py", ".hidden.yaml"):
        (folder / name).write_text("seeds: 2\n")
    (folder / "__pycache__").mkdir()
    return folder


def names_of(suite):
    return [path.name for path in suite.files]


# Sources ------------------------------------------------------------------------------------------


def test_a_folder_is_a_suite_of_its_spaces_in_the_order_of_their_names(folder):
    suite = find_sources([folder])
    assert (suite.name, names_of(suite)) == ("study", ["a.yaml", "b.yaml"])
    assert find_sources([folder], "mine").name == "mine"


def test_several_spaces_are_a_suite_in_the_order_in_which_they_are_named(folder):
    with pytest.raises(InputError, match="several spaces are a suite, and it has no name"):
        find_sources([folder / "b.yaml", Path("quickstart")])
    suite = find_sources([folder / "b.yaml", Path("quickstart"), folder], "mine")
    assert (suite.name, names_of(suite)) == ("mine", ["b.yaml", "quickstart.yaml", "a.yaml", "b.yaml"])


def test_one_space_stays_one_space(folder):
    assert find_sources([folder / "a.yaml"]) == folder / "a.yaml"
    assert find_sources([Path("quickstart")]) == list_bundled_spaces()["quickstart"]
    with pytest.raises(InputError, match="name = 'x': this names a suite, but there is one space"):
        find_sources([folder / "a.yaml"], "x")


def test_what_might_be_meant_as_a_space_and_is_none_is_refused_at_once(folder, tmp_path):
    (folder / "more").mkdir()
    (folder / "c.yml").write_text("seeds: 2\n")
    with pytest.raises(InputError) as error:
        find_sources([folder])
    assert [(problem.where, problem.rule) for problem in error.value.problems] == [
        (str(folder / "c.yml"), "a space of a suite ends in .yaml."),
        (str(folder / "more"), "a folder in the folder of a suite."),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no space in this folder: no file ends in .yaml"):
        find_sources([tmp_path / "empty"])
    (tmp_path / "empty" / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="this is the folder of a sweep, not of spaces. Continue it with"):
        find_sources([tmp_path / "empty"])


def test_a_folder_whose_name_no_suite_can_have_needs_another_name(folder):
    odd = folder.rename(folder.parent / "my study")
    with pytest.raises(InputError, match="name = 'my study': this cannot be the name of a suite"):
        find_sources([odd])
    assert find_sources([odd], "study").name == "study"


def test_bundled_suites_are_the_folders_with_spaces(folder, monkeypatch, tmp_path):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "alone.yaml").write_text("seeds: 2\n")
    monkeypatch.setattr(bundled, "FOLDERS", (tmp_path / "gone", tmp_path))
    (tmp_path / "nothing" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "nothing" / "here")
    assert (list(list_bundled_spaces()), list_bundled_suites()) == (["alone"], {"study": folder})
    assert find_sources([Path("study")]).files == find_sources([folder]).files
    with pytest.raises(InputError, match="study: a suite of several spaces, but this takes one space"):
        find_space(Path("study"))
    for path in (folder, Path(".")):
        with pytest.raises(InputError, match="a folder, but this takes one space. Name one of its files"):
            find_space(path)
    assert find_space(Path("alone")) == tmp_path / "alone.yaml"
    with pytest.raises(InputError, match="no bundled space or suite of that name. Did you mean 'study'?"):
        find_sources([Path("stduy")])
    # An earlier sweep's folder of that name holds no space, so the name still means what is bundled.
    Path("study").mkdir()
    assert find_sources([Path("study")]).files == find_sources([folder]).files
    (Path("study") / "z.yaml").write_text("seeds: 2\n")
    assert names_of(find_sources([Path("study")])) == ["z.yaml"]


# Folders ------------------------------------------------------------------------------------------


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    manifest = SuiteManifest(name="study", members=("a", "b-smoke"))
    write_suite(tmp_path, manifest)
    assert read_suite(tmp_path) == manifest
    assert read_suite(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "members",
    [["../a"], ["/etc"], [".hidden"], ["a/b"], ["store"], ["tables"], ["a", "a"], ["a", "A"], ["Sweep.json"], [], [""]],
)
def test_no_member_leaves_the_folder_of_the_suite(tmp_path, members):
    (tmp_path / SUITE).write_text(record_text({"name": "study", "members": members}))
    with pytest.raises(DamagedError, match=re.escape(f"{tmp_path / SUITE}: damaged")):
        read_suite(tmp_path)


def test_a_manifest_that_was_edited_is_damaged(tmp_path):
    write_suite(tmp_path, SuiteManifest(name="study", members=("a",)))
    content = json.loads((tmp_path / SUITE).read_text())
    (tmp_path / SUITE).write_text(json.dumps({**content, "members": ["b"]}, separators=(",", ":")))
    with pytest.raises(DamagedError, match="Launch the suite again with --out"):
        list_sweep_folders(tmp_path)


def test_a_suite_stands_for_its_members_that_have_a_plan(tmp_path):
    write_suite(tmp_path, SuiteManifest(name="study", members=("a", "b")))
    with pytest.raises(InputError, match="no member of this suite has a plan yet"):
        list_sweep_folders(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sweep.json").write_text("{}")
    listed = list_sweep_folders(tmp_path)
    assert (listed.folders, listed.absent) == ((tmp_path / "b",), (tmp_path / "a",))
    assert "has no plan yet, so it has no rows" in listed.notes[0]
    assert list_sweep_folders(tmp_path / "b").folders == (tmp_path / "b",)


def test_a_suite_runs_only_in_its_own_folder(tmp_path):
    study = SuiteManifest(name="study", members=("a",))
    check_suite_folder(tmp_path / "new", study)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty and not a suite \(notes.txt\)"):
        check_suite_folder(tmp_path, study)
    with pytest.raises(InputError, match="a file or a broken link"):
        check_suite_folder(tmp_path / "notes.txt", study)
    write_suite(tmp_path, study)
    check_suite_folder(tmp_path, study)  # a suite's own folder may hold more, such as a report
    with pytest.raises(InputError, match="holds the suite 'study', not 'other'"):
        check_suite_folder(tmp_path, SuiteManifest(name="other", members=("a",)))
    (tmp_path / SUITE).unlink()
    (tmp_path / SUITE).mkdir()
    with pytest.raises(InputError, match="a folder is in its place. Move it away, then launch again"):
        check_suite_folder(tmp_path, study)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="holds the sweep of a single space, not a suite"):
        check_suite_folder(tmp_path, study)


# Plans --------------------------------------------------------------------------------------------

SPACE = """
    base: {task: tiny}
    factors: {proxy: [none, mnist5k]}
    seeds: 2
"""


def test_members_need_different_names_and_no_name_of_another_folder(plan_of, tmp_path):
    files = {"1.yaml": "x", "2.yaml": "x", "3.yaml": "store"}
    plans = [plan_of(f"    name: {name}{SPACE}", file) for file, name in files.items()]
    problems = {problem.value: str(problem) for problem in find_member_problems(plans)}
    assert set(problems) == {"x", "store"}
    assert all(str(tmp_path / f"{n}.yaml:2") in problems["x"] for n in (1, 2))


def test_a_suite_has_one_margin_per_task_and_one_metric(plan_of, tmp_path):
    plans = [
        plan_of(f"{SPACE}{more}", f"{n}.yaml")
        for n, more in enumerate(
            ["    margin: 0.1\n", "    margin: {tiny: 0.2}\n", "", "    metric: val_metric_best\n"]
        )
    ]
    margin, metric = find_member_problems(plans)
    assert str(margin) == (
        f"{tmp_path / '1.yaml'}:6: margin = 0.2: the margin of tiny is 0.2 here and 0.1 in {tmp_path / '0.yaml'}:6, but a suite"
        " has one. Set the same in both."
    )
    assert (metric.field, metric.where) == ("metric", f"{tmp_path / '3.yaml'}:6")
    assert list(find_member_problems([plans[0], plans[2]])) == []


@pytest.mark.parametrize("name", ["suite.json", "sweep.json", "report.html", "Store"])
def test_no_member_has_the_name_of_a_file_of_the_suite(plan_of, name):
    (problem,) = find_member_problems([plan_of(f"    name: {name}{SPACE}"), plan_of(SPACE, "other.yaml")])
    assert (problem.field, problem.value) == ("name", name)


def test_names_that_differ_only_in_case_are_one_folder_on_many_file_systems(plan_of):
    (problem,) = find_member_problems(
        [plan_of(f"    name: {name}{SPACE}", f"{name}.yaml") for name in ("Same", "same")]
    )
    assert "differ only in case" in str(problem)


def test_a_suite_scores_failures_in_one_way(plan_of):
    worst = "    outcomes: {diverged: worst, failed: {retry: 2}}\n"
    plans = [
        plan_of(SPACE + more, f"{n}.yaml") for n, more in enumerate(["", worst, "    outcomes: {failed: {retry: 1}}\n"])
    ]
    (problem,) = find_member_problems(plans)
    assert "the outcomes scored as worst is diverged here and none in" in str(problem)
    assert not list(find_member_problems([plans[0], plans[2]]))  # each space may retry as it likes


def test_equal_trials_need_equal_threads_and_devices(plan_of):
    wide = "    resources: {cpu: 2}\n"
    plans = [plan_of(SPACE, "a.yaml"), plan_of(SPACE + wide, "b.yaml")]
    (problem,) = find_member_problems(plans)
    assert problem.field == "resources"
    assert "2 CPU and 0 GPU here, and 1 and 0 in" in str(problem)
    apart = plan_of(
        SPACE.replace("proxy: [none, mnist5k]", "proxy: [dummy, mnist5k]").replace("tiny", "digits") + wide, "c.yaml"
    )
    assert not list(find_member_problems([plans[0], apart]))
    # A tuned space will have what its candidates have, with other seeds.
    tuned = plan_of(
        SPACE.replace("proxy: [none, mnist5k]", "proxy: [none]") + wide + "    tune: {finetune.lr: [1e-3]}\n", "d.yaml"
    )
    assert len(list(find_member_problems([plans[0], tuned]))) == 1


def test_a_repeat_of_one_space_is_no_replicate_of_another(plan_of, tmp_path):
    repeats, more = plan_of(SPACE + "    aa: 3\n", "a.yaml"), plan_of(SPACE.replace("seeds: 2", "seeds: 4"), "b.yaml")
    (problem,) = find_member_problems([repeats, more])
    assert str(problem) == (
        f"{tmp_path / 'a.yaml'}:6: aa: {tmp_path / 'b.yaml'}:5 runs the same cell with seeds 2, 3 as replicates. A/A repeats need"
        " seeds that no space of the suite has, such as aa: [4, 5, 6]."
    )
    elsewhere = plan_of(SPACE.replace("seeds: 2", "seeds: 4").replace("[none, mnist5k]", "[dummy]"), "c.yaml")
    assert not list(find_member_problems([repeats, elsewhere]))
    assert not list(find_member_problems([repeats, plan_of(SPACE + "    aa: 2\n", "d.yaml")]))
