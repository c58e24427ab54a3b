"""The command line: answers fast, lists, plans, says mistakes; bundled spaces."""

import json
import re
import resource
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orca_sweep import cli
from orca_sweep.config import knobs
from tests.builders.in_process import run_here as orca

REPO = Path(__file__).resolve().parents[2]
SPACES = sorted((REPO / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize(
    "args",
    [
        ["--help"], ["plan", SPACES[0]], ["plan", SPACES[0], "--json"], ["list", "tasks"], ["report", "--help"],
        ["list", "analyses"], ["list", "spaces"], ["list", "columns"], ["analyse", "claims", "--help"],
    ],
)  # fmt: skip
def test_light_commands_load_nothing_heavy(args):
    code = (
        "import sys; from orca_sweep.cli import app; import contextlib\n"
        f"sys.argv = ['orca-sweep', *{[str(a) for a in args]!r}]\n"
        "with contextlib.suppress(SystemExit): app()\n"
        "heavy = {'torch', 'ray', 'pandas', 'pyarrow', 'scipy.stats', 'sklearn', 'optuna', 'transformers',\n"
        "    'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("HEAVY []"), done.stdout[-200:]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 10**7


def test_plan_json_is_the_agreed_form():
    plan = json.loads(orca("plan", REPO / "search_spaces" / "quickstart.yaml", "--json").stdout)
    assert plan["cells"] == len({t["cell_id"] for t in plan["trials"]})
    assert len(plan["trials"]) >= 16
    assert plan["problems"] == []
    assert {"trial_id", "cell_id", "seed", "role", "config"} == set(plan["trials"][0])
    assert {trial["role"] for trial in plan["trials"]} == {"replicate"}
    assert (plan["design"], plan["resolution"], plan["aliases"]) == ("cross", None, [])
    assert plan["trials"][0]["config"]["body"]["name"] == "swin-micro"


def test_plan_says_every_mistake_and_exits_with_2(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("base: {task: digts, proxy: mnist}\nfactors: {embedder.epocs: [1]}\n")
    done = orca("plan", path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in (
        "bad.yaml:2: embedder.epocs: there is no field 'embedder.epocs'",
        "Did you mean 'embedder.epochs'?",
        "no seeds",
    ):
        assert part in done.stderr
    as_json = orca("plan", path, "--json")
    assert as_json.returncode == 2
    messages = [problem["message"] for problem in json.loads(as_json.stdout)["problems"]]
    assert messages == done.stderr.strip().splitlines()
    assert orca("plan", tmp_path / "nowhere.yaml").returncode == 2
    assert orca("plan").returncode == 2
    assert orca("plam").returncode == 2


def test_a_plan_shows_what_is_merged_and_notes_what_is_missing(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("base: {task: ninapro}\nfactors: {embedder.epochs: [0, 5], proxy: [none, mnist5k]}\nseeds: 1\n")
    done = orca("plan", path)
    assert done.returncode == 0
    assert "2 cells x 1 seed = 2 trials; 2 combinations are the same work" in done.stdout
    assert "Not here: task 'ninapro' needs the file" in done.stdout
    assert "One seed has no interval" in done.stdout
    assert "All cells of a task share finetune.lr, and no other was tried: 0.0001 (ninapro)" in done.stdout.replace(
        "\n", " "
    )
    rule = "when: [{if: {proxy: mnist5k}, set: {finetune.lr: 2e-4}}]\n"
    path.write_text(path.read_text() + rule)
    assert "no other was tried" not in orca("plan", path).stdout.replace("\n", " ")


def test_a_plan_shows_its_aa_cell_and_its_placebos(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "base: {task: digits, proxy: mnist5k}\nfactors: {embedder.epochs: [0, 5]}\nseeds: 3\naa: 2\nplacebo: [dummy]\n"
    )
    text = orca("plan", path).stdout
    assert "3 cells x 3 seeds + 2 A/A = 11 trials\n" in text
    assert "A/A: the first cell again with the seeds 3, 4, as a separate cell" in text
    assert "dummy" in text
    found = json.loads(orca("plan", path, "--json").stdout)
    assert found["cells"] == 3
    assert [t["role"] for t in found["trials"]] == ["replicate"] * 9 + ["aa"] * 2
    assert {t["cell_id"] for t in found["trials"] if t["role"] == "aa"} == {f"{found['trials'][0]['cell_id']}-aa"}


def test_the_json_of_a_plan_is_one_line_per_trial(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("base: {task: digits}\nfactors: {finetune.lr: [1e-3, 1e-4]}\nseeds: 50\n")
    text = orca("plan", path, "--json").stdout
    assert len(json.loads(text)["trials"]) == sum("trial_id" in line for line in text.splitlines()) == 100


def test_brackets_are_shown_as_they_are(tmp_path):
    """A proxy's split and an extra's name stand in brackets, which the printer must not take for its own marks."""
    path = tmp_path / "s.yaml"
    path.write_text(
        'base: {task: digits}\nfactors: {proxy: [none, "./x[train[:5]]:a->b", "./x[train[:7]]:a->b"]}\nseeds: 2\n'
    )
    shown = orca("plan", path).stdout.replace("\n", "")
    assert "x (split train[:5])" in shown.split("note:")[0]


@pytest.mark.parametrize(
    "kind", ["tasks", "bodies", "proxies", "objectives", "factors", "columns", "spaces", "analyses"]
)
def test_list_puts_one_name_first_on_each_line(kind):
    names = [line.split()[0] for line in CliRunner().invoke(cli.app, ["list", kind]).stdout.splitlines()]
    assert len(names) == len(set(names)) >= 4
    expected = {"tasks": "digits", "bodies": "swin-micro", "proxies": "mnist5k", "objectives": "otdd-exact"}
    expected |= {"columns": "val_metric_best", "spaces": "quickstart", "analyses": "claims"}
    assert expected.get(kind, "body.pretrain_fraction") in names
    if kind == "factors":
        assert set(names) == set(knobs()) - {"seed"}


def test_collect_merges_and_says_what_it_made(tmp_path):
    from tests.builders.sweeps import sweep_folder

    a, b = sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", seeds=(7, 8), statuses=["failed"])
    done = orca("collect", a, b, "-o", tmp_path / "t")
    assert done.returncode == 0
    assert "10 trials (9 ok, 1 failed)" in done.stdout
    assert "need a folder for the merged tables" in orca("collect", a, b).stderr
    assert orca("collect", tmp_path / "nowhere").returncode == 2


# Pre-training -------------------------------------------------------------------------------------


def test_pretrain_makes_what_a_trial_then_finds(tmp_path, run):
    from orca_sweep.store import Store
    from orca_sweep.training.worker import Worker

    arguments = ("pretrain", "swin-micro", "--fraction", "0.1", "--steps", "4", "--store", tmp_path / "store")
    first, again = orca(*arguments), orca(*arguments, "--json")
    assert first.returncode == again.returncode == 0, first.stderr
    assert "step 4 of 4: loss " in first.stdout
    assert "swin-micro on 0.1 of mnist5k: held-out error 0." in first.stdout
    document = json.loads(again.stdout)
    assert (document["is_reused"], document["body"], document["n_steps"]) == (True, "swin-micro", 4)
    assert f"held-out error {document['held_out']:.4f}" in first.stdout
    space = tmp_path / "space.yaml"
    text = (
        "base: {task: digits, body.name: swin-micro, body.pretrain_fraction: 0.1, body.pretrain_steps: 4}\nseeds: 1\n"
    )
    space.write_text(text)
    assert "pretrain 0 (+ 1 found)" in orca("plan", space, "--store", tmp_path / "store").stdout
    row, _ = run(
        task="tiny", body__pretrain_fraction=0.1, body__pretrain_steps=4, use=Worker(Store(str(tmp_path / "store")))
    )
    assert row["reused"] == "pretrain"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("swim-micro",), "Did you mean 'swin-micro'"),
        (("minilm",), "has published weights"),
        (("swin-micro", "--fraction", "2"), "pretrain_fraction = 2.0: input should be less than or equal to 1"),
        (("swin-micro", "--fraction", "0"), "fraction 0 is a random body"),
        (("swin-micro", "--imports", "nowhere.py"), "cannot be imported"),
    ],
)
def test_what_cannot_be_pretrained_is_said(arguments, words):
    done = orca("pretrain", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# Benchmarks ---------------------------------------------------------------------------------------


def test_bench_prints_one_json_line_per_case(monkeypatch):
    from orca_sweep.bench import objectives

    small = [partial(objectives.objective_case, name, 6, 60, 3, 8) for name in ("l2", "otdd-gaussian")]
    monkeypatch.setattr(objectives, "CASES", small)
    lines = CliRunner().invoke(cli.app, ["bench", "objectives", "--json", "--repeats", "1"]).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["case"] for row in rows] == ["l2 D=6", "otdd-gaussian D=6"]
    assert {(row["command"], row["schema"]) for row in rows} == {("bench", 1)}
    for row in rows:
        assert row.keys() >= {"case", "ours_s", "other_s", "ratio", "peak_memory_mib"}
        assert row["ratio"] == pytest.approx(row["other_s"] / row["ours_s"])
        assert 100 < row["peak_memory_mib"] < 1024
    assert orca("bench", "objectivs").returncode == 2


def test_both_ways_of_loading_give_the_same_samples(monkeypatch):
    from orca_sweep.bench import loading

    small = [partial(loading.make_case, "small", (1, 8), n=64, batch=16, mapped=True)]
    monkeypatch.setattr(loading, "CASES", small)
    lines = CliRunner().invoke(cli.app, ["bench", "loading", "--json", "--repeats", "1"]).stdout.splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["small, batch 16"]
    for row in map(json.loads, lines):
        assert (row["difference"], row["n_samples"]) == (0, 64)
        assert row["ratio"] > 0


# Bundled spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_a_bundled_space_plans_and_its_first_lines_say_what_it_needs(path):
    head = path.read_text().splitlines()[:5]
    for word in ("# Question:", "# Command:", "# Cost:"):
        assert any(line.startswith(word) for line in head)
    plan = json.loads(orca("plan", path, "--json").stdout)
    assert plan["problems"] == []
    assert f" {len(plan['trials']) + plan['later']} trials" in "\n".join(head)
    assert f"orca-sweep launch search_spaces/{path.name}" in "\n".join(head)


@pytest.mark.parametrize("path", [p for p in SPACES if "figure" in p.stem], ids=lambda p: p.stem)
def test_a_figure_of_the_study_is_a_space_of_less_than_15_lines(path):
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) < 15


def test_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower() for line in (REPO / "constraints.txt").read_text().splitlines() if "==" in line
    }
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.split(r"[\[<>=]", item)[0].lower() for item in wanted} - {"orca-sweep"}
    assert names <= pinned, names - pinned


def test_the_package_asserts_nothing():
    for file in (REPO / "orca_sweep").rglob("*.py"):
        assert not re.search(r"^\s*assert ", file.read_text(), re.M), file
