"""Suites on the command line: what ``plan``, ``status``, ``collect`` and so on say of several spaces."""

import json

import pytest
import typer

from orca_sweep.cli import documents
from orca_sweep.cli.progress import SuiteProgress
from orca_sweep.cli.running import JsonOutput, _print_outcome
from orca_sweep.cli.terminal import open_console
from orca_sweep.errors import InputError
from tests.builders.documents import check_against_page, list_added_keys
from tests.builders.in_process import command, orca, snapshot
from tests.builders.suites import suite_folder

SPACE = """
    base: {task: tiny, finetune.epochs: 4}
    factors: {proxy: [none, %s]}
    seeds: 3
    margin: 0.02
    smoke: {seeds: 1, base: {finetune.epochs: 1}}
"""


@pytest.fixture
def folder(write_space, tmp_path):
    """A folder of two spaces that share their naive cell."""
    (tmp_path / "study").mkdir()
    for name, proxy in (("a", "mnist5k"), ("b", "dummy")):
        write_space(SPACE % proxy, f"study/{name}.yaml")
    return tmp_path / "study"


@pytest.fixture
def suite(tmp_path):
    return suite_folder(tmp_path / "made", a=["ok", "failed", "ok", None], b=["ok"] * 4 + [None] * 2)


@pytest.fixture
def ask(monkeypatch, capsys):
    def run(*words, code=0):
        assert command(monkeypatch, *words, "--json") == code
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    return run


# Plans --------------------------------------------------------------------------------------------


def test_a_plan_shows_each_space_and_what_they_come_to_together(folder, tmp_path):
    before = snapshot(tmp_path)
    ended = orca("plan", folder, "--out", tmp_path / "out")
    assert ended.code == 0
    assert "space cells trials to run hours a 2 6 6 ? b 2 6 6 ?" in ended.text
    assert "2 spaces, 9 different trials (12 if each space ran its own): 0 done, 9 to run" in ended.text
    assert "all spaces: each cell against the first of tiny, 3 seeds: 1 comparison, p from 0.25; detects" in ended.text
    assert "if each trial made its own" in ended.text
    assert snapshot(tmp_path) == before


def test_the_document_of_a_plan_is_what_the_page_says(ask, folder, tmp_path):
    document = ask("plan", folder, "--out", tmp_path / "out")
    check_against_page(document, "plan of a suite")
    assert (document["name"], document["forecast"]["n_left"], len(document["spaces"])) == ("study", 9, 2)
    assert document["spaces"][0]["folder"] == str(tmp_path / "out" / "a")


def test_smoke_plans_the_small_form_of_all_spaces(ask, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    document = ask("plan", folder, "--smoke")
    assert (document["name"], document["forecast"]["n_trials"]) == ("study-smoke", 3)
    assert document["folder"] == str(tmp_path / "results" / "study-smoke")
    assert [space["name"] for space in document["spaces"]] == ["a-smoke", "b-smoke"]
    one = ask("plan", folder / "a.yaml", "--smoke")
    assert (one["cells"], len(one["trials"])) == (2, 2)
    assert one["notes"][0].startswith("A smoke sweep")


def test_all_mistakes_of_all_spaces_come_at_once_with_their_lines(ask, folder):
    for name in ("a", "b"):
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text().replace("seeds: 3", "seeds: none").replace("factors", "factros"))
    document = ask("plan", folder, code=2)
    places = sorted((problem["where"].removeprefix(f"{folder}/"), problem["field"]) for problem in document["problems"])
    assert places == [("a.yaml:4", "factros"), ("a.yaml:5", "seeds"), ("b.yaml:4", "factros"), ("b.yaml:5", "seeds")]


def test_spaces_that_do_not_fit_together_are_refused(folder):
    path = folder / "b.yaml"
    path.write_text(path.read_text().replace("0.02", "0.03").replace("    base", "base"))
    ended = orca("plan", folder)
    assert ended.code == 2
    assert f"{path}:6: margin = 0.03: the margin of tiny is 0.03 here and 0.02 in {folder / 'a.yaml'}:6" in ended.text
    for command_name in ("plan", "launch"):
        ended = orca(command_name, folder / "a.yaml", folder / "b.yaml")
        assert ended.code == 2
        assert "--name: several spaces are a suite, and it has no name" in ended.text


def test_without_a_smoke_form_every_space_that_lacks_one_is_named(folder):
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("smoke:", "budget: {trials: 9}\n    # smoke:").replace("    #", "#"))
    ended = orca("plan", folder, "--smoke")
    assert ended.code == 2
    assert all(f"{folder / name}.yaml" in ended.text for name in ("a", "b"))
    assert ended.text.count("nothing is guessed") == 2


# A folder -----------------------------------------------------------------------------------------


def test_status_of_a_suite(ask, suite):
    document = ask("status", suite)
    check_against_page(document, "status")
    assert (document["name"], document["n_planned"], document["statuses"]) == ("made", 6, {"ok": 6})
    assert [member["statuses"] for member in document["members"]] == [
        {"ok": 4, "failed": 1, "unfinished": 1},
        {"ok": 4, "unfinished": 2},
    ]
    assert orca("status", suite, "--check").code == 0
    assert "a: 6 trials: 1 failed, 4 ok, 1 unfinished" in orca("status", suite).text


def test_collect_reveal_report_and_analyse_take_a_suite(ask, suite):
    collected = ask("collect", suite)
    check_against_page(collected, "collect")
    assert (collected["n_trials"], collected["tables"]["trials"]) == (6, str(suite / "tables" / "trials.parquet"))
    (suite / "a" / "reveals.json").unlink()
    (suite / "b" / "reveals.json").unlink()
    revealed = ask("reveal", suite)
    check_against_page(revealed, "launch, resume, reveal", without=list_added_keys("launch` and `resume"))
    assert (revealed["n_revealed"], revealed["n_reveals"]) == (6, 1)
    assert ask("report", suite)["page"] == str(suite / "report.html")
    assert ask("analyse", "table_results", suite)["records"][0]["n_planned"] == 3


def test_the_outcome_names_the_members(suite, capsys):
    from orca_sweep.sweep import Outcome

    total = Outcome(n_planned=6, ran=("1", "2"), statuses={"ok": 6}, wall_time_s=1.5)
    member = Outcome(n_planned=6, ran=("1",), statuses={"ok": 3, "unfinished": 3}, wall_time_s=1.0)
    with pytest.raises(typer.Exit) as end, documents.reserve_stdout():
        _print_outcome(suite, open_console(), total, JsonOutput(command="launch"), members={"a": member})
    document = json.loads(capsys.readouterr().out)
    check_against_page(document, "launch, resume, reveal", without=list_added_keys("reveal"))
    assert (end.value.exit_code, document["members"][0]["n_left"]) == (0, 3)


def test_progress_counts_over_all_spaces_and_names_them(plan_of, capsys):
    plans = [plan_of(SPACE % proxy, f"{name}.yaml") for name, proxy in (("a", "mnist5k"), ("b", "dummy"))]
    progress = SuiteProgress(open_console(), plans)
    for watch in progress.watches:
        watch("start", {"n_todo": 2, "n_shared": 0, "n_done": 1, "n_later": 0, "dashboard": None})
    first = plans[0].trials[0]
    for watch, plan in zip(progress.watches, plans, strict=True):
        watch("run", {"trial_id": plan.trials[0].trial_id, "trial": plan.trials[0]})
    end = {
        "trial_id": first.trial_id,
        "cell_id": first.cell_id,
        "status": "ok",
        "val_metric_best": 0.5,
        "wall_time_s": 1.0,
    }
    progress.watches[0]("end", end)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a: 2 trials to run, 1 done before", "b: 2 trials to run, 1 done before"]
    assert lines[2].startswith("a: [1/4 at ")
    table = [str(line) for line in progress._draw().renderables]
    assert table[0].startswith("3 done, 1 running, 2 waiting, 0 failed")
    assert "b: proxy none, seed 0" in table[1]


def test_replay_takes_the_data_and_code_of_the_member_that_has_the_trial(suite, tmp_path, monkeypatch):
    from orca_sweep.cli.replay import _find_member, _find_sweep
    from orca_sweep.results import sweep_status

    trial_id = next(path.name for path in (suite / "b" / "trials").iterdir())
    assert _find_member(suite, trial_id) == suite / "a"
    assert _find_member(suite / "b", trial_id) == suite / "b"
    assert _find_member(suite, "unknown") is None
    (tmp_path / "here").mkdir()
    suite.rename(tmp_path / "results")  # its members are sweeps below results/
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="such trials are in results/a, results/b"):
        _find_sweep(trial_id)
    (tmp_path / "results").rename(tmp_path / "here" / "made")
    (tmp_path / "here").rename(tmp_path / "results")
    assert str(_find_sweep(trial_id)) == "results/made/a"
    assert sweep_status(tmp_path / "results" / "made").name == "made"
