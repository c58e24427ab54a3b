"""``--json``: what each document holds is what the page says; stdout holds nothing else; mistakes have one form."""

import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import typer

from orca_sweep import cli
from orca_sweep.cli import documents
from orca_sweep.cli.clusters import describe_job
from orca_sweep.cli.documents import print_document, to_plain
from orca_sweep.cli.replay import _describe_replay
from orca_sweep.cli.running import JsonOutput, _print_outcome
from orca_sweep.cli.terminal import open_console
from orca_sweep.errors import InputError
from orca_sweep.planning.replay import Compared, Replay
from orca_sweep.store import Store
from tests.builders import tables
from tests.builders.documents import PAGE, check_against_page, list_added_keys
from tests.builders.in_process import command
from tests.builders.sweeps import sweep_folder


@pytest.fixture
def ask(monkeypatch, capsys):
    """Runs a command with --json and returns its document; everything on stdout is that document."""

    def run(*words, code=0):
        assert command(monkeypatch, *words, "--json") == code
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def sweep(tmp_path):
    return sweep_folder(tmp_path / "sweep", statuses=["ok", "failed", "ok", None])


# Each command ------------------------------------------------------------------------------------


def test_every_command_has_json_and_a_section():
    app = typer.main.get_command(cli.app)
    names = [
        name if not hasattr(part, "commands") else f"{name} {word}"
        for name, part in app.commands.items()
        for word in getattr(part, "commands", [""])
    ]
    for name in names:
        part = app
        for word in name.split():
            part = part.commands[word]
        assert any("--json" in parameter.opts for parameter in part.params), name
        heading = "analyse" if name.startswith("analyse ") else name
        assert (
            heading in re.split(r", |\n", "\n".join(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)))
            or f"`{name}`" in PAGE
        )


def test_plan(ask, write_space, tmp_path):
    space = write_space("""
        base: {task: tiny}
        factors: {embedder.epochs: [0, 1]}
        seeds: 3
        margin: 0.1
    """)
    document = ask("plan", space, "--out", tmp_path / "out")
    check_against_page(document, "plan")
    assert document["command"] == "plan"
    wrong = ask("plan", tmp_path / "nowhere.yaml", code=2)
    assert (wrong["cells"], wrong["trials"], len(wrong["problems"])) == (0, [], 1)


def test_the_end_of_a_launch_and_a_reveal(ask, sweep, capsys):
    from orca_sweep.sweep import Outcome

    outcome = Outcome(
        n_planned=6, ran=("1", "2"), statuses={"ok": 4, "failed": 1, "unfinished": 1}, wall_time_s=1.5, notes=("x",)
    )
    with pytest.raises(typer.Exit) as end, documents.reserve_stdout():
        _print_outcome(sweep, open_console(), outcome, JsonOutput(command="launch"))
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert "ran 2 of 6 trials" in shown.err
    assert (end.value.exit_code, document["exit_code"], document["n_left"]) == (1, 1, 2)
    assert document["notes"][-1] == "x"
    check_against_page(document, "launch, resume, reveal", without=list_added_keys("reveal"))
    again = ask("reveal", sweep)
    check_against_page(again, "launch, resume, reveal", without=list_added_keys("launch` and `resume"))
    assert again["cells"] == document["cells"]
    assert [cell["n"] for cell in again["cells"]] == [2, 2]
    assert again["cells"][0]["statuses"] == {"ok": 2, "failed": 1}


def test_a_cell_without_a_result_has_null_numbers(ask, tmp_path):
    document = ask("reveal", sweep_folder(tmp_path / "s", statuses=["failed"] * 3 + [None] * 3))
    for cell in document["cells"]:
        assert (cell["n"], cell["mean"], cell["low"], cell["metric"], cell["mode"]) == (0, None, None, None, None)


def test_status_collect_report(ask, sweep, tmp_path):
    document = ask("status", sweep)
    check_against_page(document, "status")
    assert [(failure["seed"], failure["status"]) for failure in document["failures"]] == [(1, "failed")]
    collected = ask("collect", sweep, "-o", tmp_path / "tables")
    check_against_page(collected, "collect")
    assert (collected["n_trials"], collected["statuses"]) == (6, {"ok": 4, "failed": 1, "unfinished": 1})
    report = ask("report", sweep, "-o", tmp_path / "page.html")
    check_against_page(report, "report")
    assert Path(report["page"]).stat().st_size == report["n_bytes"]


def test_analyses(ask, sweep, tmp_path):
    columns = dict(re.findall(r"^\| `(table_\w+)` \| (`.+`) \|$", PAGE, re.MULTILINE))
    for name, keys in columns.items():
        document = ask("analyse", name, sweep, "-o", tmp_path / name)
        check_against_page(document, "analyse")
        assert document["command"] == f"analyse {name}"
        assert document["records"]
        for record in document["records"]:
            assert {"embedder.epochs", *re.findall(r"`(.+?)`", keys)} <= set(record)
        assert all(Path(file).is_file() for file in document["files"])
    tables.sweep(tmp_path, tables.cell_rows(tables.NONE, tables.BASE), tables.cell_rows(tables.MNIST, tables.BETTER))
    for name, keys in re.findall(r"^\| `(factor_effects|importance)` \| (`.+`) \|$", PAGE, re.MULTILINE):
        (record, *_) = ask("analyse", name, tmp_path / "s", "-o", tmp_path / name)["records"]
        assert set(re.findall(r"`(.+?)`", keys)) <= set(record), name
    (effect,) = ask("analyse", "table_effects", sweep, "-o", tmp_path / "e", "--complete-pairs")["records"]
    assert isinstance(effect["difference"], float) and isinstance(effect["n_pairs"], int)
    cost = ask("analyse", "cost", sweep, "-o", tmp_path / "c")
    assert cost["more_records"]["total"][0]["trials"]


def test_notes_on_tables_are_in_the_document_and_on_stderr(monkeypatch, capsys, sweep, tmp_path):
    (trial, *_) = sorted((sweep / "trials").glob("*/row.json"))
    trial.write_text("{}")
    assert command(monkeypatch, "analyse", "table_results", sweep, "-o", tmp_path / "o", "--json") == 0
    shown = capsys.readouterr()
    notes = json.loads(shown.out)["notes"]
    assert notes
    assert all(note in shown.err for note in notes)


def test_records_of_csv_keep_their_types():
    from orca_sweep.analysis.writing import format_csv, list_records

    text = format_csv([{"a": 0.1 + 0.2, "b": None, "c": "1e-3", "d": True}])
    assert list_records(text) == ({"a": 0.1 + 0.2, "b": None, "c": "1e-3", "d": True},)
    with pytest.raises(TypeError):
        list_records("a\n1\n")


@pytest.mark.parametrize(
    "kind", ["tasks", "bodies", "proxies", "objectives", "metrics", "losses", "factors", "columns"]
)
def test_list(ask, kind, monkeypatch, capsys):
    further = {"type", "default", "acts", "tables", "file", "options", "factor", "extra", "dims", "mode", "unit"}
    further |= {"low", "high"}
    document = ask("list", kind)
    names = [{key: value for key, value in name.items() if key not in further} for name in document["names"]]
    check_against_page({**document, "names": names}, "list")
    assert len({frozenset(name) for name in document["names"]}) == 1
    assert command(monkeypatch, "list", kind) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [name["name"] for name in names]


def test_stores(ask, tmp_path):
    store = Store(str(tmp_path / "store"))
    store.make_root()
    store.put("body", "0123456789abcdef" * 2, {"weight": np.zeros(3, "float32")}, {})
    listed = ask("store", "ls", tmp_path / "store")
    check_against_page(listed, "store ls")
    unused = ask("store", "gc", tmp_path / "store", "--unused-for", "0")
    check_against_page(unused, "store gc")
    assert (listed["stages"][0]["n_artifacts"], unused["n_files"], unused["is_deleted"]) == (1, 1, False)
    (tmp_path / "store" / "orca-sweep-store.json").unlink()
    check_against_page(ask("store", "mark", tmp_path / "store"), "store mark")


def test_data(ask, tmp_path):
    check_against_page(ask("data", "list", "--data", tmp_path), "data list")
    document = ask("data", "check", "darcy", "digits", "--data", tmp_path, code=2)
    check_against_page(document, "data check")
    assert (document["can_run"], bool(document["problems"])) == (False, True)
    darcy, digits = document["tasks"]
    assert {file["state"] for file in darcy["files"]} == {"missing"}
    assert (darcy["can_run"], darcy["n_missing"], digits["can_run"], digits["files"]) == (False, 2, True, [])
    check_against_page(ask("data", "check", "digits"), "data check")
    check_against_page(ask("data", "convert", "digits", "--data", tmp_path), "data convert")
    check_against_page(ask("data", "fetch", "digits", "--data", tmp_path), "data fetch")


def test_submit_prints_a_script(ask, write_space, tmp_path):
    space = write_space("base: {task: digits}\nfactors: {finetune.lr: [1e-3, 1e-4]}\nseeds: 2\n")
    document = ask("submit", space, "--out", tmp_path / "out", "--emit", "slurm")
    assert (document.pop("emit"), document.pop("text")[:2]) == ("slurm", "#!")
    check_against_page(document, "submit")
    assert document["n_trials"] == 4


def test_a_job(capsys):
    from orca_sweep.sweep.jobs import Job

    job = Job(
        id="j", status="RUNNING", message="", command="python", metadata={"space": "s"}, start_s=1e9, end_s=None, exit_code=None
    )  # fmt: skip
    print_document("job status", describe_job(job))
    document = json.loads(capsys.readouterr().out)
    check_against_page(document, "job status, job stop")
    assert document["started"] == "2001-09-09T01:46:40.000Z"


def test_a_replay_shows_no_sealed_number(capsys):
    def compare(name, recorded, now):
        return Compared(name=name, recorded=recorded, now=now)

    replayed = Replay(
        trial_id="t",
        status=compare("status", "ok", "ok"),
        numbers=(compare("val_metric_best", 0.5, math.nan), compare("test_metric_best", 0.123456, 0.123456)),
        exact=(compare("n_steps", 3, 3),),
        causes=(compare("versions", {"torch": "1"}, {"torch": "2"}),),
        is_sealed=True,
        seconds=1.0,
    )
    print_document("replay", _describe_replay(replayed, 0.0))
    text = capsys.readouterr().out
    document = json.loads(text)
    check_against_page(document, "replay")
    assert "0.123456" not in text
    assert document["values"][1] == {
        "name": "test_metric_best", "recorded": None, "now": None, "is_same": True, "is_sealed": True,
    }  # fmt: skip


def test_bench(capsys):
    from orca_sweep.bench import Measurement

    measured = Measurement(case="c", ours_s=1.0, other_s=2.0, peak_memory_mib=3.0, ours_wall_s=4.0, other_wall_s=5.0)
    documents.print_line("bench", measured.as_dict())
    (line,) = capsys.readouterr().out.splitlines()
    check_against_page(json.loads(line), "bench")


# Mistakes and errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["status", "nowhere"], "status"), (["status"], "status"), (["status", "nowhere", "--chek"], "status"),
        (["resume", "nowhere"], "resume"), (["launch", "nowhere.yaml"], "launch"), (["collect", "nowhere"], "collect"),
        (["report", "nowhere"], "report"), (["reveal", "nowhere"], "reveal"), (["replay", "abc"], "replay"),
        (["list", "taks"], "list"), (["store", "ls", "nowhere"], "store ls"), (["store", "gc", "nowhere"], "store gc"),
        (["store", "mark", "nowhere"], "store mark"), (["data", "check", "digts"], "data check"),
        (["data", "fetch", "digts"], "data fetch"), (["data", "convert", "digts"], "data convert"),
        (["job", "status", "x", "--address", "http://127.0.0.1:1"], "job status"),
        (["job", "list", "--address", "http://127.0.0.1:1"], "job list"), (["submit", "quickstart"], "submit"),
        (["pretrain", "swim-micro"], "pretrain"), (["bench", "objectivs"], "bench"), (["analyse", "clams", "x"], "analyse clams"),
        (["analyse", "claims", "nowhere"], "analyse claims"), (["plam"], "plam"), (["plan", "x", "--max-trials", "no"], "plan"),
        (["analyse", "claims", "x", "--level", "95"], "analyse claims"), (["status", "a\0b"], "status"),
        (["status", "a\udcffb"], "status"),
    ],
)  # fmt: skip
def test_mistakes_are_problems_for_every_command(words, name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *words, "--json") == 2
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["command"], document["schema"]) == (name, 1)
    assert document["problems"]
    for problem in document["problems"]:
        assert set(problem) == {"field", "value", "rule", "remedy", "where", "message"}
        assert problem["rule"] and problem["message"]
    assert document["problems"][0]["message"].split("\n")[0][:40] in shown.err
    assert "Traceback" not in shown.err


def test_other_errors_have_their_exit_code(monkeypatch, capsys, sweep, tmp_path):
    (tmp_path / "file").write_text("")
    assert command(monkeypatch, "analyse", "table_results", sweep, "-o", tmp_path / "file", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"command", "schema", "error"}
    assert "File exists" in document["error"]


def test_an_error_that_is_ours_is_in_the_document_too(monkeypatch, capsys):
    monkeypatch.setattr("orca_sweep.cli.listing.describe_names", lambda kind: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(monkeypatch, "list", "tasks", "--json")
    assert json.loads(capsys.readouterr().out)["error"].startswith("ZeroDivisionError")


def test_what_the_users_code_prints_stays_off_stdout(monkeypatch, capsys, tmp_path):
    (tmp_path / "loud.py").write_text("print('loud')\n")
    (tmp_path / "s.yaml").write_text("imports: [loud.py]\nbase: {task: digits}\nseeds: 2\n")
    assert command(monkeypatch, "plan", tmp_path / "s.yaml", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["cells"] == 1
    assert "loud" in shown.err


def test_help_is_help_with_json_too(monkeypatch, capsys):
    assert command(monkeypatch, "status", "--json", "--help") == 0
    assert "Show how far a sweep is" in capsys.readouterr().out


# Values ------------------------------------------------------------------------------------------


def test_values_of_documents(capsys):
    east = datetime(2025, 1, 31, 23, 59, 59, 7000, timezone(timedelta(hours=5)))
    assert to_plain(east) == "2025-01-31T18:59:59.007Z"
    assert to_plain(documents.to_time(0)) == "1970-01-01T00:00:00.000Z" and documents.to_time(None) is None
    assert to_plain(east.astimezone(UTC)) == to_plain(east)
    assert to_plain([math.nan, math.inf, -math.inf, 0.1 + 0.2]) == [None, None, None, 0.1 + 0.2]
    assert to_plain({Path("a"): (np.float32(0.5), np.int64(3), np.bool_(True))}) == {"a": [0.5, 3, True]}
    assert to_plain({"b", "a"}) == ["a", "b"]
    with pytest.raises(TypeError):
        to_plain(object())
    print_document("x", {"name": "a\udcffb 数据 \x1b\u202e", "numbers": iter([1, math.nan]), "none": iter(())})
    text = capsys.readouterr().out
    assert json.loads(text.encode().decode("ascii")) == {
        "command": "x", "schema": 1, "name": "a\\udcffb 数据 \x1b\u202e", "numbers": [1, None], "none": [],
    }  # fmt: skip


def test_a_command_line_asks_for_json_only_before_two_dashes():
    assert documents.is_json_asked(["plan", "x", "--json"])
    assert not documents.is_json_asked(["plan", "--", "--json"])
    assert documents.name_command(["--debug", "store", "--x", "ls", "y"], {"store"}) == "store ls"
    assert documents.name_command([], {"store"}) == ""


def test_problems_of_the_package_are_records():
    error = InputError(["a", "b"])
    assert [p["rule"] for p in documents.describe_error(error, 2, str(error))["problems"]] == ["a", "b"]
    assert documents.describe_error(error, 1, "full") == {"error": "full"}


def test_an_argument_of_a_call_is_an_option_of_the_command(monkeypatch, capsys, sweep, tmp_path):
    from orca_sweep import Sweep

    with pytest.raises(InputError) as raised:
        Sweep.open(sweep).report(tmp_path, figures=["cost"])
    assert str(raised.value) == f"out = '{tmp_path}': a folder. Name the HTML file."
    assert command(monkeypatch, "report", sweep, "-o", tmp_path, "--json") == 2
    shown = capsys.readouterr()
    (problem,) = json.loads(shown.out)["problems"]
    assert (problem["field"], problem["value"]) == ("--out", str(tmp_path))
    assert problem["message"] == f"--out {tmp_path}: a folder. Name the HTML file."
    assert problem["message"] in shown.err
    (tmp_path / "s.yaml").write_text("base: {task: digits}\nseeds: 2\n")
    words = ("launch", tmp_path / "s.yaml", "--address", "127.0.0.1:1", "--dashboard-host", "0.0.0.0")
    assert command(monkeypatch, *words) == 2
    assert "--dashboard-host 0.0.0.0: 127.0.0.1:1 is a running cluster" in capsys.readouterr().err


# Light -------------------------------------------------------------------------------------------

NOT_FOR_HELP = (
    "numpy", "yaml", "fsspec", "pydantic", "rich.console", "filelock", "asyncio", "orca_sweep.config", "orca_sweep.space",
    "orca_sweep.store", "orca_sweep.results", "orca_sweep.stats", "orca_sweep.data", "orca_sweep.record_files",
    "orca_sweep.tasks", "orca_sweep.sweep",
)  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["launch", "--help"], ["list", "analyses"]])
def test_help_loads_only_what_it_prints(words):
    code = (
        "import sys; from orca_sweep.cli import main; import contextlib\n"
        f"sys.argv = ['orca-sweep', *{words!r}]\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"print('LOADED', sorted(set({NOT_FOR_HELP!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Typer itself uses pydantic to read the options of a command.
    allowed = "[]" if words[0].startswith("--") else "['pydantic']"
    assert done.stdout.strip().endswith((f"LOADED {allowed}", "LOADED []")), done.stdout[-300:]


def test_the_help_says_the_largest_number_of_trials():
    from orca_sweep.space import MAX_TRIALS

    (option,) = [p for p in typer.main.get_command(cli.app).commands["plan"].params if p.name == "max_trials"]
    assert f"default {MAX_TRIALS}" in option.help
