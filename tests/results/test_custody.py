"""Test metrics are sealed until somebody reveals them, and tables record every reveal."""

import base64
import json
import zlib

import pandas as pd
import pytest

from orca_sweep import results as r
from orca_sweep.errors import InputError
from orca_sweep.space.manifest import write_manifest
from orca_sweep.training.predict import predict_wholes
from tests.builders.in_process import run_here as orca
from tests.builders.manifests import sweep_manifest
from tests.builders.sweeps import sweep_folder


def sealed_sweep(folder, **more):
    """Makes a sweep whose test metrics are not revealed."""
    sweep_folder(folder, **more)
    (folder / "reveals.json").unlink(missing_ok=True)
    return folder


def read_all_bytes(folder):
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_file_of_a_sweep_shows_a_test_metric_that_was_not_revealed(run, tmp_path):
    """Checks a real trial: its record, its row in the store, and its tables."""
    row, _ = run(task="tiny", finetune__epochs=2)
    record = r.read_record(tmp_path / "sweep", row["trial_id"])
    value = r.unseal_metrics(record)["test_metric_best"]
    assert 0 <= value <= 1 and value == row["test_metric_best"]
    assert not any(name.startswith("test_metric") for name in record["row"])
    ids = {"trial_id": row["trial_id"], "cell_id": row["cell_id"], "seed": 0, "role": "replicate"}
    write_manifest(
        tmp_path / "sweep", sweep_manifest(metric="val_metric_best", trials=[{**ids, "config": {"task": "tiny"}}])
    )
    results = r.collect([tmp_path / "sweep"], tmp_path / "tables")
    assert results.trials[list(r.SEALED_COLUMNS)].isna().all(axis=None)
    (kept,) = (tmp_path / "store" / "rows").glob("*.json")
    assert b"test_metric" not in kept.read_bytes()
    assert b'"test_metric' not in read_all_bytes(tmp_path / "sweep")


def test_tables_compare_on_validation_until_all_is_revealed(tmp_path):
    folder = sealed_sweep(tmp_path / "s", statuses=["ok"] * 5 + [None])
    results = r.collect([folder], tmp_path / "t")
    assert (results.metric, results.n_sealed, results.reveals) == ("val_metric_best", 5, ())
    assert results.trials["is_sealed"].tolist()[:5] == [True] * 5
    with pytest.raises(InputError, match="test metrics of 5 ok trials are sealed. Compare on validation"):
        r.summarise_cells(results, "test_metric_best")
    shown = r.reveal(folder)
    assert len(shown.trials) == 5
    results = r.collect([folder], tmp_path / "t")
    assert (results.metric, results.n_sealed) == ("test_metric_best", 0)
    assert results.reveals == (("demo", shown.time, 5),)
    assert results.trials["test_metric_best"].tolist()[:5] == [0.5, 0.6, 0.7, 0.5, 0.6]
    assert (results.trials["revealed_at"][:5] == pd.Timestamp(shown.time)).all()
    # A trial that ends later is sealed, so nothing is compared on only some of the test metrics.
    late = sweep_folder(tmp_path / "late").joinpath("trials")
    missing = results.trials["trial_id"][5]
    (late / missing).rename(folder / "trials" / missing)
    results = r.collect([folder], tmp_path / "t")
    assert (results.metric, results.n_sealed) == ("val_metric_best", 1)
    assert r.reveal(folder).trials == (missing,)
    assert [n for _, _, n in r.collect([folder], tmp_path / "t").reveals] == [5, 1]


def test_a_reveal_of_nothing_is_not_logged_and_a_damaged_log_is_reported(tmp_path):
    folder = sealed_sweep(tmp_path / "s", statuses=["failed", None, "failed", "failed", "failed", "failed"])
    assert r.reveal(folder).trials == ()
    assert r.read_reveals(folder) == () and not (folder / "reveals.json").exists()
    for damage in (
        "{",
        "[1]",
        {"reveals": [{"time": "x"}]},
        {"reveals": {}},
        {"reveals": [{"time": r.now(), "trials": 3}]},
    ):
        if isinstance(damage, str):
            (folder / "reveals.json").write_text(damage)
        else:
            r.write_json(folder / "reveals.json", damage)
        with pytest.raises(InputError, match=r"reveals.json: damaged"):
            r.collect([folder], tmp_path / "t")


def test_a_trial_that_failed_during_scoring_has_nothing_to_reveal(run, user_tasks, tmp_path, monkeypatch):
    """Otherwise the log would name it, and it would not be sealed when it runs again."""
    real, calls = predict_wholes, []

    def fail_the_second_time(*given):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the device is gone")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr("orca_sweep.training.predict.predict_wholes", fail_the_second_time)
        row, _ = run(task="tiny")
    assert row["status"] == "failed" and len(calls) == 2
    folder = tmp_path / "sweep"
    ids = {"trial_id": row["trial_id"], "cell_id": row["cell_id"], "seed": 0, "role": "replicate"}
    write_manifest(folder, sweep_manifest(metric="val_metric_best", trials=[{**ids, "config": {"task": "tiny"}}]))
    assert r.reveal(folder).trials == ()
    row, _ = run(task="tiny")
    results = r.collect([folder], tmp_path / "t")
    assert row["status"] == "ok" and results.n_sealed == 1
    assert results.trials["revealed_at"].isna().all() and results.trials["test_metric_last"].isna().all()


def test_a_trial_revealed_in_any_sweep_is_revealed_in_any_order_of_sources(tmp_path):
    a, b = sealed_sweep(tmp_path / "a", name="one"), sealed_sweep(tmp_path / "b", seeds=(0, 1), name="two")
    r.collect([a], tmp_path / "ta")
    shown = r.reveal(b)
    for sources in ([a, b], [b, a], [tmp_path / "ta", b]):
        results = r.collect(sources, tmp_path / "t")
        assert results.n_sealed == 2  # seed 2 of both cells, which the second sweep lacks
        is_open = results.trials["seed"] < 2
        assert results.trials["test_metric_best"].notna().equals(is_open)
        assert (results.trials["revealed_at"][is_open] == pd.Timestamp(shown.time)).all()


def test_trials_that_began_after_a_reveal_are_marked(tmp_path):
    folder = sealed_sweep(tmp_path / "s")
    planned = json.loads((folder / "sweep.json").read_text())["trials"]
    r.reveal(folder)
    for trial, started in zip(planned, ["2020-01-01T00:00:00+00:00", r.now()], strict=False):
        record = r.read_record(folder, trial["trial_id"])
        r.write_record(folder, {**record["row"], **r.unseal_metrics(record), "started_at": started}, record["epochs"])
    results = r.collect([folder], tmp_path / "t")
    assert results.trials["n_reveals_before"][:2].tolist() == [0, 1]
    assert results.trials["n_reveals_before"][2:].isna().all()  # their start is unknown


@pytest.mark.parametrize(
    "text", ["@@", base64.b64encode(b"no zlib").decode(), base64.b64encode(zlib.compress(b"[")).decode()]
)
def test_a_damaged_seal_is_reported_and_does_not_affect_other_trials(tmp_path, text):
    folder = sealed_sweep(tmp_path / "s")
    before = r.collect([folder], tmp_path / "t").trials
    bad = before["trial_id"][2]
    record = r.read_record(folder, bad)
    r.write_json(folder / "trials" / bad / "row.json", {**record, "sealed": text})
    shown = r.reveal(folder)
    assert len(shown.trials) == 5 and bad not in shown.trials
    assert f"{bad}/row.json: damaged: its content is wrong: sealed: " in shown.damaged[0]
    assert shown.damaged[0].endswith("The next launch runs the trial again; until then it counts as lost.")
    results = r.collect([folder], tmp_path / "t")
    assert results.notes == shown.damaged and results.n_sealed == 0
    rows = results.trials.set_index("trial_id")
    assert rows.loc[bad, "status"] == "lost" and rows.loc[bad, "error"] == shown.damaged[0]
    assert rows.drop(bad)["test_metric_best"].tolist() == [0.5, 0.6, 0.5, 0.6, 0.7]
    assert r.sweep_status(folder).statuses == {"ok": 5, "lost": 1}
    # Only a reveal that shows something is logged.
    assert r.reveal(folder).trials == () and len(r.read_reveals(folder)) == 1


def test_reveal_on_the_command_line(tmp_path):
    folder = sealed_sweep(tmp_path / "s", statuses=["ok", "ok", None])
    assert "test metrics of 5 trials are sealed" in orca("collect", folder).stdout
    done = orca("reveal", folder)
    assert done.returncode == 0, done.stderr
    assert "revealed the test metrics of 5 trials (look 1 at this sweep" in done.stdout
    assert "1 trials have not ended; their test metrics stay sealed" in done.stdout
    assert "test_metric_best (digits: error, lower is better)" in done.stdout
    assert r.read_results(folder / "tables").n_sealed == 0
    assert (folder / "figures").is_dir()
    assert "nothing to reveal: all test metrics were revealed on" in orca("reveal", folder).stdout
    (tmp_path / "s.yaml").write_text("base: {task: digits}\nfactors: {embedder.epochs: [0, 3]}\nseeds: 3\n")
    assert "were revealed (last on" in " ".join(orca("plan", tmp_path / "s.yaml", "--out", folder).stdout.split())
    missing = orca("reveal", tmp_path)
    assert (missing.returncode, "no sweep here" in missing.stderr) == (2, True)
