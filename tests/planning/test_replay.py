"""The cost of a trial is measured as it runs; a recorded trial can be run again and compared."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from orca_sweep import cli
from orca_sweep import results as r
from orca_sweep.cli.replay import _find_sweep
from orca_sweep.errors import InputError
from orca_sweep.planning.replay import replay
from orca_sweep.space.manifest import write_manifest
from orca_sweep.training.meter import Meter
from orca_sweep.trial import make_config
from tests.builders.in_process import run_here as orca
from tests.builders.manifests import sweep_manifest
from tests.builders.sweeps import sweep_folder

ALIGNED = {
    "task": "tiny",
    "proxy": "mnist5k",
    "finetune__freeze": "body",
    "finetune__freeze_epochs": 1,
    "finetune__epochs": 3,
}


def as_sweep(folder, row, imports, settings):
    """Makes a sweep of one recorded trial."""
    config = make_config({key.replace("__", "."): value for key, value in settings.items()})
    trial = {
        "trial_id": row["trial_id"],
        "cell_id": row["cell_id"],
        "seed": 0,
        "role": "replicate",
        "config": config.flat(),
    }
    about = {"name": "one", "factors": ["proxy"], "imports": [str(imports)], "data": str(folder / "data")}
    write_manifest(folder, sweep_manifest(**about, trials=[trial]))
    return folder


# Meter --------------------------------------------------------------------------------------------


def test_seconds_gpu_seconds_and_phases_of_stages():
    meter = Meter(0.5)
    with meter.stage("data"):
        pass

    def broken():
        with meter.stage("body") as phases:
            phases.append({"reused_s": 3.0})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    with meter.stage("finetune") as phases:
        phases += [{"n_steps": 2, "wall_time_s": 0.0}, {"n_steps": 3, "wall_time_s": 0.0}]
    assert [(row["stage"], row["phase"]) for row in meter.stages] == [
        ("data", 1),
        ("body", 1),
        ("finetune", 1),
        ("finetune", 2),
    ]
    body = meter.stages[1]
    assert body["reused_s"] == 3.0 and body["wall_time_s"] > 0  # what failed took its time, too
    assert all(row["gpu_s"] == 0.5 * row["wall_time_s"] for row in meter.stages)
    # Time outside of all phases counts for the first: the phases add up to the stage.
    assert sum(row["wall_time_s"] for row in meter.stages[2:]) == pytest.approx(meter.seconds["finetune"])
    row = meter.row()
    assert row["finetune_gpu_s"] == 0.5 * row["finetune_s"] and row["gpu_s"] == 0.5 * row["wall_time_s"]
    assert row["n_gpus"] == 0.5


def test_the_peak_of_memory_is_the_trial_s_own():
    """Not that of a larger trial that the process ran before."""
    import numpy as np

    before = Meter(0.0)
    if not before.knows_memory:
        pytest.skip("this system does not tell a process its peak")
    np.ones(200 * 2**17)  # 200 MiB, and gone
    large, small = before.read_peaks()["peak_memory_mib"], Meter(0.0).read_peaks()["peak_memory_mib"]
    assert large - small > 150


def test_rows_and_stages_of_a_real_trial_agree(run, tmp_path):
    row, epochs = run(**ALIGNED)
    stages = r.read_record(tmp_path / "sweep", row["trial_id"])["stages"]
    assert [(s["stage"], s["phase"]) for s in stages] == [
        ("data", 1), ("body", 1), ("proxy", 1), ("embedder", 1), ("finetune", 1), ("finetune", 2), ("test", 1),
    ]  # fmt: skip
    first, second = (s for s in stages if s["stage"] == "finetune")
    assert (first["frozen"], first["first_epoch"], first["last_epoch"]) == ("body", 1, 1)
    assert (second["frozen"], second["first_epoch"], second["last_epoch"]) == ("", 2, 3)
    assert json.loads(row["n_trainable_phases"]) == [first["n_trainable"], second["n_trainable"]]
    assert first["n_trainable"] < second["n_trainable"] == row["n_parameters"]
    assert (
        first["n_steps"] + second["n_steps"]
        == row["n_steps"]
        == sum(e["n_steps"] for e in epochs if e["stage"] == "finetune")
    )
    tuned = [e for e in epochs if e["stage"] == "finetune"]
    assert row["lr_integral"] == pytest.approx(sum(e["lr_integral"] for e in tuned))
    assert row["lr_integral"] == pytest.approx(1e-3 * row["n_steps"])  # a constant rate
    assert row["n_embedder_steps"] == 2 and row["embedder_lr_integral"] == pytest.approx(2e-3)
    for name in ("data", "body", "proxy", "embedder", "finetune", "test"):
        assert sum(s["wall_time_s"] for s in stages if s["stage"] == name) == pytest.approx(row[f"{name}_s"])
    assert row["wall_time_s"] >= sum(s["wall_time_s"] for s in stages)
    assert row["started_at"] < row["ended_at"] <= r.now()
    assert len(row["code_sha256"]) == 64
    again, _ = run(**ALIGNED, folder="again", seed=1)
    assert again["code_sha256"] == row["code_sha256"]
    taken = {s["stage"]: s["reused_s"] for s in r.read_record(tmp_path / "again", again["trial_id"])["stages"]}
    assert taken["proxy"] > 0 and taken["test"] == 0


def test_a_failed_trial_records_its_cost_until_it_failed(run, tmp_path):
    row, _ = run(task="tiny", finetune__lr=1e9, finetune__optimizer="sgd", finetune__epochs=4)
    assert row["status"] == "diverged"
    stages = r.read_record(tmp_path / "sweep", row["trial_id"])["stages"]
    assert [s["stage"] for s in stages] == ["data", "body", "finetune"]
    assert row["finetune_s"] > 0 and "test_s" not in row


# Replay -------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(run, user_tasks, tmp_path):
    """A sweep of one trial, its test metrics sealed."""
    row, _ = run(**ALIGNED)
    return as_sweep(tmp_path / "sweep", row, user_tasks, ALIGNED), row["trial_id"]


def test_a_trial_comes_back_to_the_last_bit(recorded, user_tasks, tmp_path):
    folder, trial_id = recorded
    first = replay(r.find_trial(folder, trial_id[:6]), tmp_path, [str(user_tasks)])
    assert first.is_bit_equal and first.came_back(0) and first.causes == ()
    assert [value.name for value in first.numbers] == [
        "val_metric_best", "val_metric_last", "objective_last", "test_metric_best", "test_metric_last",
    ]  # fmt: skip
    assert first.is_sealed
    r.reveal(folder)
    r.collect([folder], tmp_path / "tables")
    # The tables alone are enough where the task needs no files.
    again = replay(r.find_trial(tmp_path / "tables", trial_id), tmp_path, [str(user_tasks)])
    assert again.is_bit_equal and not again.is_sealed


def test_a_number_that_does_not_come_back_is_named_with_what_differs(recorded, user_tasks, tmp_path):
    folder, trial_id = recorded
    record = r.read_record(folder, trial_id)
    row = {**record["row"], **r.unseal_metrics(record)}
    changed = {"val_metric_last": row["val_metric_last"] + 0.125, "versions": "torch=1.0", "data_sha256": "0" * 64}
    r.write_record(folder, row | changed, record["epochs"])
    again = replay(r.find_trial(folder, trial_id), tmp_path, [str(user_tasks)])
    assert not again.is_bit_equal and not again.came_back(0.1) and again.came_back(0.2)
    assert [value.name for value in again.numbers if not value.is_same] == ["val_metric_last"]
    assert [value.name for value in again.causes] == ["versions", "data_sha256"]


def test_a_failure_comes_back_as_one(run, user_tasks, tmp_path):
    settings = {"task": "tiny", "finetune__lr": 1e9, "finetune__optimizer": "sgd"}
    row, _ = run(**settings)
    folder = as_sweep(tmp_path / "sweep", row, user_tasks, settings)
    again = replay(r.find_trial(folder, row["trial_id"]), tmp_path, [])
    assert (again.status.recorded, again.status.now, again.came_back(0)) == ("diverged", "diverged", True)


def test_a_trial_that_cannot_be_replayed_is_an_error_that_says_why(recorded, user_tasks):
    folder, trial_id = recorded
    with pytest.raises(InputError, match="no trials have an id that begins with 'zz': see trial_id"):
        r.find_trial(folder, "zz")
    with pytest.raises(InputError, match=f"the nearest is {trial_id}"):
        r.find_trial(folder, f"{trial_id[:-1]}x")
    known = r.find_trial(folder, trial_id)
    other = replace(known, config={**known.config, "finetune.lr": 0.5})
    with pytest.raises(InputError, match=r"has the id \w+ in this version, whose knobs differ"):
        replay(other, folder, [])
    unknown = replace(known, config={**known.config, "finetune.nothing": 1})
    with pytest.raises(InputError, match="this version cannot read its config"):
        replay(unknown, folder, [])
    (folder / "trials" / trial_id / "row.json").unlink()
    with pytest.raises(InputError, match="its status is 'unfinished', so there is no outcome to compare with"):
        replay(r.find_trial(folder, trial_id), folder, [])


def test_replay_names_the_sweep_of_a_trial_and_what_is_wrong_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = sweep_folder(tmp_path / "results" / "one")
    first = sorted(path.name for path in (folder / "trials").iterdir())[0]
    (tmp_path / "results" / "two").mkdir()
    (tmp_path / "results" / "two" / "sweep.json").write_text("{")  # another damaged sweep does not matter

    def read_error(trial_id):
        with pytest.raises(InputError) as caught:
            r.find_trial(_find_sweep(trial_id), trial_id)
        return str(caught.value)

    assert "6 trials have an id that begins with ''" in read_error("")
    assert "no sweep in results/ has such a trial" in read_error("zz")
    (folder / "reveals.json").write_text("{")
    assert "reveals.json: damaged" in read_error(first)


def test_replay_on_the_command_line_shows_no_sealed_number(recorded, tmp_path, monkeypatch):
    folder, trial_id = recorded
    sealed = r.unseal_metrics(r.read_record(folder, trial_id))
    done = CliRunner().invoke(cli.app, ["replay", trial_id[:8], "--from", str(folder)])
    assert done.exit_code == 0, done.output
    assert "test_metric_best: sealed, same now" in done.output
    assert "The numbers came back, equal to the last bit." in done.output
    assert (
        f"{sealed['test_metric_last']:.10g}" not in done.output.replace("val_metric", "").split("test_metric_best")[1]
    )
    path = folder / "trials" / trial_id / "row.json"
    record = json.loads(path.read_text())
    record["row"] |= {"val_metric_best": 0.123, "n_threads": 1, "device": "cuda"}
    r.write_json(path, record)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    folder.rename(tmp_path / "results" / "one")
    done = CliRunner().invoke(cli.app, ["replay", trial_id[:8]])
    assert done.exit_code == 1
    assert (
        "val_metric_best: 0.123 recorded," in done.output and "differs: device: cuda recorded, cpu now" in done.output
    )
    assert "The numbers did NOT come back; the differences above may be why." in done.output
    missing = orca("replay", "nothing")
    assert (missing.returncode, "no sweep in results/ has" in missing.stderr) == (2, True)
