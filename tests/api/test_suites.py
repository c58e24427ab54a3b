"""A suite in Python: from files to a launch, an interruption, and what is read from its folder."""

import os
import signal
import textwrap

import pytest

import orca_sweep
from orca_sweep import InputError, Suite, Sweep
from orca_sweep.api.suite_launching import _join_outcomes, describe_suite_launch, join_texts, read_resumed_suite
from orca_sweep.results import write_record
from orca_sweep.space.manifest import make_manifest, write_manifest
from orca_sweep.space.suites import SuiteManifest, read_suite, write_suite
from orca_sweep.store import Store
from tests.builders.suites import suite_folder
from tests.commands import warm_workers

SPACE = """
    base: {task: tiny, finetune.epochs: 1}
    factors: {proxy: [none, %s]}
    seeds: 1
"""


@pytest.fixture
def study(write_space, tmp_path):
    """The suite of a folder with two spaces that share a trial."""
    (tmp_path / "study").mkdir()
    for name, proxy in (("a", "mnist5k"), ("b", "dummy")):
        write_space(SPACE % proxy, f"study/{name}.yaml")
    return Suite.from_yaml(tmp_path / "study")


def test_a_trial_that_ran_in_two_spaces_ran_once_for_the_suite(study, tmp_path):
    from orca_sweep.sweep import Outcome

    run = study.plan(out=suite_folder(tmp_path / "out", a=["failed"], b=["failed"])).make_run(None, "none")
    outcomes = [Outcome(n_planned=6, ran=ran, statuses={}, wall_time_s=1.0) for ran in (("x", "y"), ("x",))]
    total = _join_outcomes(run, outcomes, 0.0)
    assert (total.n_run, total.n_planned) == (2, 6)


# Plans --------------------------------------------------------------------------------------------


def test_a_suite_is_made_of_a_folder_or_of_several_files(study, tmp_path):
    assert (study.name, len(study.spaces)) == ("study", 2)
    files = [tmp_path / "study" / "b.yaml", tmp_path / "study" / "a.yaml"]
    assert [space.source for space in Suite.from_yaml(files, name="mine").spaces] == files
    assert orca_sweep.Suite is Suite
    with pytest.raises(InputError, match="this is a single space. Name a folder of spaces, or several"):
        Suite.from_yaml(files[0])
    with pytest.raises(InputError, match="a path is a text or a pathlib.Path, not int"):
        Suite.from_yaml([files[0], 3], name="x")


def test_a_plan_reads_as_a_table_of_spaces_and_their_total(study, tmp_path):
    plan = study.plan(out=tmp_path / "out")
    assert [(member.name, member.folder, member.store_root) for member in plan.members] == [
        (name, tmp_path / "out" / name, str(tmp_path / "out" / "store")) for name in ("a", "b")
    ]
    text = repr(plan)
    assert text.splitlines()[:4] == [
        "Suite plan study", "space cells trials to run hours", "a     2     2      2      ?", "b     2     2      2      ?",
    ]  # fmt: skip
    assert "2 spaces, 3 different trials (4 if each space ran its own): 0 done, 3 to run" in text
    assert any(note.startswith("all spaces: One seed has no interval") for note in plan.warnings)
    assert "<th>to run</th>" in plan._repr_html_()
    elsewhere = study.plan(out=tmp_path / "out", store="memory://s")
    assert {member.store_root for member in elsewhere.members} == {elsewhere.store_root} == {"memory://s"}


def test_texts_on_members_are_joined_and_each_appears_once():
    assert join_texts({"a": ["x", "x", "y"], "b": ["x"], "c": ["z"]}) == ["a, b: x", "a: y", "c: z"]
    assert join_texts({"a": ["x"], "b": ["x"]}) == ["all spaces: x"]
    assert join_texts({"a": ["x"]}) == ["a: x"]


# Running ------------------------------------------------------------------------------------------


def test_a_refused_launch_leaves_nothing_behind(study, tmp_path):
    plan = study.plan(out=tmp_path / "new" / "out")
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        plan.launch(address="127.0.0.1:1")
    assert not (tmp_path / "new").exists()


def test_a_suite_of_an_earlier_launch_is_resumed_only_if_all_its_members_have_a_plan(study, tmp_path):
    suite = suite_folder(tmp_path / "s", a=[], b=[])
    (suite / "b" / "sweep.json").unlink()
    with pytest.raises(InputError, match="b: this member of the suite has no plan yet"):
        Sweep.open(suite).resume(address="127.0.0.1:1")


def test_a_suite_that_was_moved_goes_on_with_the_store_that_moved_with_it(study, tmp_path):
    plan = study.plan(out=tmp_path / "old")
    for member in plan.members:
        write_manifest(member.folder, make_manifest(member.record, tmp_path, plan.store_root))
    write_suite(tmp_path / "old", SuiteManifest(name="study", members=("a", "b")))
    Store(plan.store_root).make_root()
    (tmp_path / "old").rename(tmp_path / "new")
    moved = read_resumed_suite(tmp_path / "new", None, "none")
    assert {run.destination.store for run in moved.runs} == {str(tmp_path / "new" / "store")}
    Store(plan.store_root).make_root()  # it is there again, such as for a copy
    again = read_resumed_suite(tmp_path / "new", None, "none")
    assert {run.destination.store for run in again.runs} == {str(tmp_path / "old" / "store")}


def test_a_renamed_space_is_told_where_its_trials_are(study, write_space, tmp_path):
    plan = study.plan(out=tmp_path / "out")
    for member in plan.members:
        write_manifest(member.folder, make_manifest(member.record, tmp_path, plan.store_root))
    for trial in plan.members[1].record.trials:
        write_record(plan.members[1].folder, {"trial_id": trial.trial_id, "status": "ok"}, [])
    assert not [text for text in plan.warnings if "no longer" in text]
    (tmp_path / "study" / "b.yaml").rename(tmp_path / "study" / "new.yaml")
    renamed = Suite.from_yaml(tmp_path / "study").plan(out=tmp_path / "out")
    said = (
        f"{tmp_path / 'out' / 'b'}: no longer in the suite, though 2 of the trials to run have ended there. If one of the"
        " spaces is this one under a new name, give it the old one with the key 'name': b."
    )
    assert renamed.warnings[0] == said
    assert said in describe_suite_launch(renamed.make_run(None, "none"))


def test_an_interrupted_suite_continues_and_runs_equal_trials_once(study, head, tmp_path, monkeypatch, capsys):
    for name, value in warm_workers().items():
        monkeypatch.setenv(name, value)
    events, out = [], tmp_path / "out"

    def interrupt(event, facts):
        events.append((event, facts["space"]))
        if event == "end":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="No ended trial is lost"):
        study.plan(out=out).launch(address=head.address, progress=interrupt)
    assert events[0] == ("start", "a")
    assert read_suite(out) == SuiteManifest(name="study", members=("a", "b"))
    sweep = Sweep.open(out)
    before = sweep.status()
    assert (before.n_planned, before.statuses.get("ok", 0) >= 1, before.is_running) == (3, True, False)
    assert [member.n_planned for member in before.members] == [2, 2]
    assert len(sweep.results()) == 3
    assert sweep.resume(address=head.address).status().statuses == {"ok": 3}
    assert [member.statuses for member in sweep.status().members] == [{"ok": 2}, {"ok": 2}]
    lines = capsys.readouterr().out.splitlines()
    n_ended = sum(": [" in line and ": ok in " in line for line in lines)
    assert n_ended == 3 - before.statuses["ok"]
    assert any(line.startswith("b: [") and "proxy dummy, seed 0: ok in " in line for line in lines)
    assert not any(line.startswith("b: [") and "proxy none" in line for line in lines)  # the other space has run it
    assert any(line.startswith("ran ") and line.endswith("all trials: 3 ok") for line in lines)
    assert (out / "tables" / "trials.parquet").is_file()
    cost = study.plan(out=out).cost
    assert (cost.n_done, cost.n_left) == (3, 0)
    assert [member.n_left for member in cost.members] == [0, 0]


# A folder -----------------------------------------------------------------------------------------


def test_a_suite_is_read_as_a_sweep(tmp_path):
    sweep = Sweep.open(suite_folder(tmp_path / "made", a=["ok"] * 6, b=["ok", "failed"]))
    assert "made: 6 trials: 6 ok" in repr(sweep)
    assert len(sweep.results()) == 6
    assert "error" in sweep.analyse("table_results").numbers
    assert sweep.write_analysis("table_results")[0].is_relative_to(sweep.folder / "figures")
    assert sweep.report() == sweep.folder / "report.html"
    assert set(sweep.claims()["claim"])
    for name in ("a", "b"):
        (sweep.folder / name / "reveals.json").unlink()
    assert len(sweep.reveal().trials) == 6


def test_a_grown_and_a_shrunken_suite_run_only_what_is_missing(study, write_space, tmp_path):
    text = textwrap.dedent(SPACE)
    write_suite_of(study, tmp_path / "out")
    (tmp_path / "study" / "b.yaml").unlink()
    write_space(text.replace("%s", "mnist5k").replace("seeds: 1", "seeds: 3"), "study/a.yaml")
    grown = Suite.from_yaml(tmp_path / "study").plan(out=tmp_path / "out")
    assert (grown.cost.n_done, grown.cost.n_left) == (2, 4)


def write_suite_of(study, out):
    """Writes the folder of a suite in which every trial of its spaces has ended."""
    plan = study.plan(out=out)
    for member in plan.members:
        for trial in member.record.trials:
            write_record(member.folder, {"trial_id": trial.trial_id, "status": "ok", "metric": "error"}, [])
        write_manifest(member.folder, make_manifest(member.record, plan.data, plan.store_root))
    write_suite(out, SuiteManifest(name="study", members=("a", "b")))
