"""Whole sweeps on a real Ray, through the command line: of their own, or on the head that tests share."""

import csv
import json
import os
import re
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from ray.tune import ExperimentAnalysis

from orca_sweep.results import collect, read_results, reveal, sweep_status
from orca_sweep.store import read_tensors
from orca_sweep.trial import load_imports
from tests.builders.documents import check_against_page, list_added_keys
from tests.commands import Command, orca, wait_for, warm_workers

SPACE = """
name: demo
question: does it run?
base: {task: tiny, finetune.epochs: 3}
factors:
  proxy: [none, mnist5k]
seeds: [0, 1]
"""


def revealed(out):
    """The tables of a sweep once somebody has looked at its test metrics."""
    reveal(out)
    return collect([out], out / "tables")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, user_tasks):
    """One finished sweep of four trials."""
    folder = tmp_path_factory.mktemp("sweep")
    space = folder / "space.yaml"
    space.write_text(f"imports: [{user_tasks}]\n{SPACE}")
    done = orca("launch", space, "--dashboard-host", "127.0.0.1", cwd=folder, check=0)
    return space, folder / "results" / "demo", done.stdout


def test_a_launch_ends_with_tables_figure_and_a_printed_summary(sweep):
    _, out, printed = sweep
    found = read_results(out / "tables")
    assert found.trials["status"].tolist() == ["ok"] * 4
    assert found.factors == ("proxy",)
    assert found.trials["test_metric_best"].isna().all() and found.trials["is_sealed"].all()
    assert (found.metric, found.n_sealed) == ("val_metric_best", 4)
    assert "test metrics of 4 trials are sealed" in printed and "val_metric_best (tiny" in printed
    stages = found.epochs.groupby(["trial_id", "stage"]).size()
    assert sorted(stages.tolist()) == [3, 3, 3, 3, 3, 3]
    assert (out / "figures" / "figure2_proxies.png").stat().st_size > 10_000
    # The dashboard is for this machine alone.
    assert re.search(r"Ray dashboard: http://127\.0\.0\.1:\d+\n", printed)
    for part in ("4 trials to run, 0 done before", "mean", "95% interval", "next:", "table   results/demo/tables"):
        assert part in printed
    assert printed.count(" ok in ") == 4


def test_each_run_is_one_tune_trial_that_reports_every_epoch(sweep):
    _, out, _ = sweep
    files = list((out / "ray").rglob("result.json"))
    assert len(files) == 4
    pids = set()
    for file in files:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["epoch"] for line in lines if line.get("stage") == "finetune"] == [1, 2, 3]
        assert file.parent.name in {t["trial_id"] for t in json.loads((out / "sweep.json").read_text())["trials"]}
        pids |= {line["pid"] for line in lines}
    # Workers are used again: no more of them than trials fit side by side.
    assert len(pids) <= (os.cpu_count() or 1)


def test_tune_s_own_folder_opens_as_its_documentation_says(sweep):
    _, out, _ = sweep
    (folder,) = (out / "ray").iterdir()
    trials = ExperimentAnalysis(folder).dataframe()
    ours = read_results(out / "tables").trials.set_index("trial_id")
    assert set(trials["config/trial_id"]) == set(ours.index)
    assert set(trials["status"]) == {"ok"}
    for _, trial in trials.iterrows():
        row = ours.loc[trial["config/trial_id"]]
        assert trial["val_metric_best"] == row["val_metric_best"]
        assert trial["config/finetune.epochs"] == 3
        assert (trial["config/space"], trial["config/role"], trial["config/seed"]) == ("demo", "replicate", row["seed"])
        assert trial["config/name"] == f"proxy {row['proxy']}, seed {row['seed']}"


def test_a_second_launch_runs_nothing_and_changes_nothing(sweep, head):
    space, out, _ = sweep
    before = {p: p.read_bytes() for p in [*out.rglob("row.json"), out / "tables" / "trials.parquet"]}
    done = orca("launch", space, "--json", cwd=space.parent, check=0, head=head)
    assert "0 trials to run, 4 done before" in done.stderr
    document = json.loads(done.stdout)
    check_against_page(document, "launch, resume, reveal", without=list_added_keys("reveal"))
    assert (document["n_run"], document["n_left"], document["statuses"]) == (0, 0, {"ok": 4})
    assert [cell["levels"] for cell in document["cells"]] == [{"proxy": "none"}, {"proxy": "mnist5k"}]
    assert all(path.read_bytes() == blob for path, blob in before.items())


@pytest.mark.long
def test_a_sweep_run_twice_has_the_same_numbers(sweep, tmp_path, head):
    """The short form: sweeps to which something happened equal an unbroken one, bit for bit (``test_failures``)."""
    space, out, _ = sweep
    orca("launch", space, "--out", tmp_path / "again", check=0, head=head)
    same = ["trial_id", "state_sha256", "val_metric_best", "test_metric_best", "test_metric_last"]
    copy = shutil.copytree(out, tmp_path / "copy")
    a, b = (revealed(folder).trials[same] for folder in (copy, tmp_path / "again"))
    assert a["test_metric_best"].between(0, 1).all()
    pd.testing.assert_frame_equal(a, b)


def test_failing_trials_are_rows_and_a_relaunch_runs_only_what_is_missing(tmp_path, user_tasks, head):
    space = tmp_path / "space.yaml"
    text = f"imports: [{user_tasks}]\nname: mixed\nbase: {{proxy: none, finetune.epochs: 1}}\n"
    space.write_text(text + "factors: {task: [tiny, broken]}\nseeds: 1\nloggers: [csv, tensorboard]\n")
    done = orca("launch", space, "--out", tmp_path / "out", "--json-lines", check=1, head=head)
    trials = read_results(tmp_path / "out" / "tables").trials.set_index("task")
    assert trials["status"].to_dict() == {"tiny": "ok", "broken": "failed"}
    assert "cannot be loaded" in trials["error"]["broken"]
    assert "1 failed" in done.stderr
    *events, document = map(json.loads, done.stdout.splitlines())
    check_against_page(document, "launch, resume, reveal", without=list_added_keys("reveal"))
    told = [(event["event"], event.get("trial_id")) for event in events]
    ok, failed = trials.trial_id["tiny"], trials.trial_id["broken"]
    assert told[0] == ("start", None)
    assert sorted(told[1:]) == sorted([("run", ok), ("epoch", ok), ("end", ok), ("run", failed), ("end", failed)])
    (epoch,) = [event for event in events if event["event"] == "epoch"]
    assert (epoch["stage"], epoch["epoch"], epoch["val_metric"]) == ("finetune", 1, trials.val_metric_best["tiny"])
    with next((tmp_path / "out/ray").rglob(f"{ok}*/progress.csv")).open() as file:
        lines = list(csv.DictReader(file))
    assert [line["stage"] for line in lines] == ["finetune", "done"]
    assert float(lines[0]["val_metric"]) == epoch["val_metric"] and lines[0]["status"] == ""
    assert lines[1]["status"] == "ok" and lines[1]["val_metric"] == ""
    curves = b"".join(path.read_bytes() for path in (tmp_path / "out/ray").rglob(f"{ok}*/events.out.tfevents.*"))
    assert b"ray/tune/finetune/val_metric" in curves and b"ray/tune/end/val_metric_best" in curves
    said = orca("status", tmp_path / "out", check=0).stdout
    assert "mixed: 2 trials: 1 failed, 1 ok; no launch is running" in said
    assert f"{trials.trial_id['broken']} failed, task broken, seed 0: RuntimeError: this task cannot be loaded" in said
    assert f"orca-sweep resume {tmp_path / 'out'}" in said
    found = json.loads(orca("status", tmp_path / "out", "--json", check=0).stdout)
    assert found["failures"][0]["last_line"] == "RuntimeError: this task cannot be loaded"
    assert found["cpu_hours"] == pytest.approx(trials.wall_time_s.sum() / 3600)
    assert found["gpu_hours"] == 0
    assert orca("status", tmp_path).returncode == 2
    # The YAML grows by a seed and loses the broken task: only the new trial runs.
    space.write_text(text + "factors: {task: [tiny]}\nseeds: 2\n")
    done = orca("launch", space, "--out", tmp_path / "out", check=0, head=head)
    assert "1 trial to run, 1 done before" in done.stdout
    assert read_results(tmp_path / "out" / "tables").trials["status"].tolist() == ["ok", "ok"]


def test_a_killed_driver_loses_nothing_finished_and_launch_completes(tmp_path, user_tasks, run, head):
    space = tmp_path / "space.yaml"
    base = "base: {task: tiny, proxy: none, finetune.epochs: 36}\n"
    space.write_text(f"imports: [{user_tasks}]\nname: killed\n{base}seeds: 3\nresources: {{cpu: 0.9}}\n")
    out = tmp_path / "out"
    driver = Command("launch", space, "--out", out)
    # Killed when one trial has ended and another is well on its way but far from its end.
    wait_for(lambda: list(out.rglob("row.json")) and any(4 <= epoch <= 24 for epoch in epochs_saved(out)))
    (tmp_path / "somewhere").mkdir()
    alive = sweep_status(out)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    dead = sweep_status(out)
    assert (alive.is_running, dead.is_running) == (True, False)
    assert alive.statuses["ok"] >= 1
    assert alive.started
    assert alive.eta_s > 0
    assert dead.eta_s is None
    finished = {p: p.stat().st_mtime_ns for p in out.rglob("row.json")}
    assert 0 < len(finished) < 3
    space.unlink()  # the folder is enough to go on
    done = orca("resume", out, cwd=tmp_path / "somewhere", check=0, head=head)
    assert "3 ok" in done.stdout
    trials = revealed(out).trials
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    assert trials["resumed_from_epoch"].max() > 0
    # The same trial, unbroken and in this process: the same weights, bit for bit.
    resumed = trials.loc[trials["resumed_from_epoch"].idxmax()]
    settings = {"task": "tiny", "proxy": resumed["proxy"], "seed": int(resumed["seed"])}
    code = load_imports([str(user_tasks)])  # a trial's id says what its space imports
    unbroken, _ = run(**settings, folder="unbroken", finetune__epochs=36, content__code=code)
    assert unbroken["trial_id"] == resumed["trial_id"]
    assert unbroken["state_sha256"] == resumed["state_sha256"]
    assert unbroken["test_metric_best"] == resumed["test_metric_best"]


def test_the_aa_cell_runs_and_is_found_again_by_resume(tmp_path, user_tasks, head):
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    base = "base: {task: tiny, proxy: none, finetune.epochs: 1}\n"
    space.write_text(f"imports: [{user_tasks}]\nname: same\n{base}seeds: 1\naa: [5]\n")
    printed = orca("launch", space, "--out", out, check=0, head=head).stdout
    assert "ran 2 of 2 trials" in printed
    assert "role" in printed
    trials = read_results(out / "tables").trials
    assert trials[["seed", "role", "status"]].values.tolist() == [[0, "replicate", "ok"], [5, "aa", "ok"]]
    assert trials["cell_id"][1] == f"{trials['cell_id'][0]}-aa"
    plan = json.loads((out / "sweep.json").read_text())
    (out / "trials" / trials["trial_id"][1] / "row.json").unlink()
    space.unlink()
    resumed = json.loads(orca("resume", out, "--json", check=0, head=head).stdout)
    check_against_page(resumed, "launch, resume, reveal", without=list_added_keys("reveal"))
    assert (resumed["command"], resumed["n_run"], resumed["n_planned"], resumed["exit_code"]) == ("resume", 1, 2, 0)
    replayed = json.loads(orca("replay", trials["trial_id"][1], "--from", out, "--json", check=0).stdout)
    check_against_page(replayed, "replay")
    assert (replayed["trial_id"], replayed["is_bit_equal"]) == (trials["trial_id"][1], True)
    again = read_results(out / "tables").trials
    same = ["trial_id", "cell_id", "role", "status", "state_sha256"]
    pd.testing.assert_frame_equal(again[same], trials[same])
    assert json.loads((out / "sweep.json").read_text()) == plan


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path, user_tasks, head):
    space = tmp_path / "space.yaml"
    space.write_text(f"imports: [{user_tasks}]\n{SPACE}".replace("finetune.epochs: 3", "finetune.epochs: 4000"))
    driver = Command("launch", space, "--out", tmp_path / "out", "--address", head.address, output=tmp_path / "printed")
    wait_for(lambda: list(tmp_path.rglob("checkpoint.safetensors")))
    os.kill(driver.pid, signal.SIGINT)
    ended = driver.wait()
    printed = ended.stdout
    assert ended.returncode == 1, printed
    assert "Traceback" not in printed
    assert "orca-sweep resume" in printed
    # Stopping is no outcome: there is a checkpoint to go on from, and no record that says it failed.
    assert list(tmp_path.rglob("checkpoint.safetensors"))
    assert not list(tmp_path.rglob("row.json"))


def test_a_dying_worker_is_tried_again_then_a_lost_row(tmp_path, head):
    (tmp_path / "deadly.py").write_text(
        "import os\nfrom orca_sweep.tasks import TASKS, Task\n"
        "def load(root, seed):\n    os._exit(9)\n"
        "TASKS.add(Task(name='deadly', dims=2, sample_shape=(1, 8, 8), kind='classification', output_shape=(3,),"
        " loss='cross-entropy', metric='error', load=load, meaning='', source='', licence='',"
        " recipe={'body.name': 'swin-micro'}))\n"
    )
    space = tmp_path / "space.yaml"
    space.write_text("imports: [deadly.py]\nbase: {task: deadly, proxy: none}\nseeds: 1\n")
    orca("launch", space, "--out", tmp_path / "out", check=1, head=head)
    (row,) = read_results(tmp_path / "out" / "tables").trials.to_dict("records")
    assert row["status"] == "lost"
    assert "worker died" in row["error"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: {task: ninapro}\nseeds: 1\n", "ninapro_train.npy, which is not there"),
        (
            "base: {task: digits}\nseeds: 1\nresources: {cpu: 4096}\n",
            "no node can ever hold a trial that needs CPU 4096",
        ),
        ("base: {task: digits}\nseeds: 1\nresources: {custom: {unicorn: 1}}\n", "unicorn 1 (most on one node: 0)"),
    ],
)
def test_what_can_be_known_before_is_said_before_and_nothing_is_written(tmp_path, text, words, head):
    space = tmp_path / "space.yaml"
    space.write_text(text)
    # What a node can hold is asked of Ray; what lacks on this machine is not.
    done = orca("launch", space, cwd=tmp_path, check=2, head=head if "resources" in text else None)
    assert words in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["space.yaml"]


def test_a_folder_of_another_space_is_left_alone(sweep, tmp_path, head):
    _, out, _ = sweep
    space = tmp_path / "other.yaml"
    space.write_text("name: other\nbase: {task: digits}\nseeds: 1\n")
    before = sorted(out.rglob("*"))
    done = orca("launch", space, "--out", out, check=2)
    assert "holds the results of the space 'demo', not of 'other'" in done.stderr
    space.write_text("name: demo\nbase: {task: digits}\nseeds: 1\n")
    assert "no cell in common" in orca("launch", space, "--out", out, check=2).stderr
    assert sorted(out.rglob("*")) == before
    assert (
        "cannot store artifacts" in orca("launch", space, "--out", tmp_path / "n", "--store", "foo://x", check=2).stderr
    )
    assert "cannot make this folder" in orca("launch", space, "--out", "/proc/none", check=2, head=head).stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert "not empty and not a sweep (thesis.tex)" in orca("launch", space, "--out", tmp_path / "mine", check=2).stderr
    assert "a file or a broken link, not a folder" in orca("launch", space, "--out", space, check=2).stderr


def test_no_cluster_at_the_address_is_said(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("base: {task: digits}\nseeds: 1\n")
    done = orca("launch", space, "--address", "127.0.0.1:1", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr


def test_where_a_dashboard_cannot_listen_is_said(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("base: {task: digits}\nseeds: 1\n")
    done = orca("launch", space, "--dashboard-host", "203.0.113.9", "--out", tmp_path / "out", check=2)
    assert "--dashboard-host 203.0.113.9: this machine cannot listen there (Cannot assign" in done.stderr
    done = orca("launch", space, "--dashboard-host", "0.0.0.0", "--address", "auto", check=2)
    assert "auto is a running cluster" in done.stderr


@pytest.mark.skipif(find_spec("wandb") is not None, reason="its package is here")
def test_a_logger_without_its_package_is_said_before_anything_starts(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("base: {task: digits}\nseeds: 1\nloggers: [json, wandb]\n")
    assert "needs the package wandb" in orca("plan", space, check=0).stdout
    done = orca("launch", space, "--out", tmp_path / "out", check=2)
    assert "loggers: wandb needs the package wandb, which is not installed. Run: pip install wandb" in done.stderr
    assert not (tmp_path / "out").exists()


def epochs_saved(out):
    return [read_tensors(str(path)).meta["epoch"] for path in out.rglob("checkpoint.safetensors")]


def test_a_running_cluster_is_joined_with_its_token(tmp_path, user_tasks, head):
    """By a user who knows the token and has set nothing else."""
    space = tmp_path / "space.yaml"
    space.write_text(f"imports: [{user_tasks}]\nbase: {{task: tiny, proxy: none, finetune.epochs: 1}}\nseeds: 1\n")
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | warm_workers()
    done = orca("launch", space, "--out", tmp_path / "out", check=0, head=head, env=env, plain=True)
    assert "1 ok" in done.stdout


def test_a_body_in_a_folder_beside_the_user_is_found_by_workers(tmp_path, user_tasks, head):
    from tests.builders.bodies import saved_swin

    saved_swin(tmp_path / "my-body")
    space = tmp_path / "space.yaml"
    base = "{task: tiny, proxy: mnist5k, body.name: ./my-body, body.pretrain_fraction: 1, finetune.epochs: 1}"
    space.write_text(f"imports: [{user_tasks}]\nname: folder\nbase: {base}\nseeds: 1\n")
    orca("launch", space, cwd=tmp_path, check=0, head=head)
    (row,) = read_results(tmp_path / "results" / "folder" / "tables").trials.to_dict("records")
    assert row["status"] == "ok"
    assert row["body.name"] == str((tmp_path / "my-body").resolve())


def test_the_readme_s_own_task_runs_as_it_is_written(tmp_path, head):
    """Every block of the recipe is copied to the letter into an empty folder, and launched."""
    readme = (Path(__file__).parents[2] / "orca_sweep" / "tasks" / "README.md").read_text(encoding="utf-8")
    for name in ("my_task.py", "my_space.yaml"):
        (block,) = re.findall(rf"```\w+\n(# {name}\n.*?)```", readme, re.S)
        (tmp_path / name).write_text(block)
    done = orca("launch", "my_space.yaml", cwd=tmp_path, check=0, head=head)
    assert "ran 4 of 4 trials" in done.stdout
    trials = revealed(tmp_path / "results/my_space").trials
    assert set(trials.task) == {"mine"}
    assert (trials.status == "ok").all()
    assert trials.test_metric_best.max() < 0.7  # chance is 0.75


def test_a_task_with_files_is_converted_before_the_sweep_and_run(tmp_path, head):
    from tests.originals import ORIGINALS

    (tmp_path / "data").mkdir()
    ORIGINALS["advection"](tmp_path / "data")
    (tmp_path / "space.yaml").write_text("""
name: files
base: {task: advection, body.name: roberta-micro, body.pretrain_fraction: 0, proxy: none, finetune.epochs: 2}
factors: {data.split_seed: [0, 1]}
seeds: 1
""")
    done = orca("launch", "space.yaml", cwd=tmp_path, check=0, head=head)
    assert "ran 2 of 2 trials" in done.stdout
    assert len(list((tmp_path / "data/converted/1D_Advection_Sols_beta0.4").glob("*/x.npy"))) == 1
    trials = pd.read_parquet(tmp_path / "results/files/tables/trials.parquet")
    assert trials.data_sha256.nunique() == 2
    (tmp_path / "data/1D_Advection_Sols_beta0.4.hdf5").write_bytes(b"cut off")
    done = orca("launch", "space.yaml", "--out", "again", cwd=tmp_path)
    assert done.returncode == 2
    assert "1D_Advection_Sols_beta0.4.hdf5: cannot be read" in done.stderr
