"""Test metrics are sealed until somebody asks for them, and that somebody did is in the tables."""

import base64
import json
import zlib

import pandas as pd
import pytest

from orca_sweep import results as r
from orca_sweep.errors import InputError
from orca_sweep.space.manifest import write_manifest
from orca_sweep.training.predict import predict_wholes
from tests.builders.manifests import sweep_manifest
from tests.builders.sweeps import sweep_folder
from tests.commands import orca


def sealed_sweep(folder, **more):
    """A sweep whose test metrics nobody has looked at."""
    sweep_folder(folder, **more)
    (folder / "reveals.json").unlink(missing_ok=True)
    return folder


def everything_below(folder):
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_file_of_a_sweep_shows_a_test_metric_that_was_not_revealed(run, tmp_path):
    """Of a real trial: its record, its row in the store, its tables."""
    row, _ = run(task="tiny", finetune__epochs=2)
    record = r.read_record(tmp_path / "sweep", row["trial_id"])
    value = r.unseal_metrics(record)["test_metric_best"]
    assert 0 <= value <= 1 and value == row["test_metric_best"]
    assert not any(name.startswith("test_metric") for name in record["row"])
    ids = {"trial_id": row["trial_id"], "cell_id": row["cell_id"], "seed": 0, "role": "replicate"}
    write_manifest(
        tmp_path / "sweep", sweep_manifest(metric="val_metric_best", trials=[{**ids, "config": {"task": "tiny"}}])
    )
    found = r.collect([tmp_path / "sweep"], tmp_path / "tables")
    assert found.trials[list(r.SEALED_COLUMNS)].isna().all(axis=None)
    (kept,) = (tmp_path / "store" / "rows").glob("*.json")
    assert b"test_metric" not in kept.read_bytes()
    assert b'"test_metric' not in everything_below(tmp_path / "sweep")


def test_tables_compare_on_validation_until_all_is_revealed(tmp_path):
    folder = sealed_sweep(tmp_path / "s", statuses=["ok"] * 5 + [None])
    found = r.collect([folder], tmp_path / "t")
    assert (found.metric, found.n_sealed, found.reveals) == ("val_metric_best", 5, ())
    assert found.trials["is_sealed"].tolist()[:5] == [True] * 5
    with pytest.raises(InputError, match="test metrics of 5 ok trials are sealed. Compare on validation"):
        r.summarise_cells(found, "test_metric_best")
    shown = r.reveal(folder)
    assert len(shown.trials) == 5
    found = r.collect([folder], tmp_path / "t")
    assert (found.metric, found.n_sealed) == ("test_metric_best", 0)
    assert found.reveals == (("demo", shown.time, 5),)
    assert found.trials["test_metric_best"].tolist()[:5] == [0.5, 0.6, 0.7, 0.5, 0.6]
    assert (found.trials["revealed_at"][:5] == pd.Timestamp(shown.time)).all()
    # What ends later is sealed again, and then nothing is compared on a part of the test metrics.
    late = sweep_folder(tmp_path / "late").joinpath("trials")
    missing = found.trials["trial_id"][5]
    (late / missing).rename(folder / "trials" / missing)
    found = r.collect([folder], tmp_path / "t")
    assert (found.metric, found.n_sealed) == ("val_metric_best", 1)
    assert r.reveal(folder).trials == (missing,)
    assert [n for _, _, n in r.collect([folder], tmp_path / "t").reveals] == [5, 1]


def test_a_reveal_of_nothing_is_not_logged_and_a_damaged_log_is_told(tmp_path):
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


def test_a_trial_that_failed_while_it_was_scored_has_nothing_to_reveal(run, user_tasks, tmp_path, monkeypatch):
    """Else it would be named in the log, and be open when it is run again."""
    real, calls = predict_wholes, []

    def once(*given):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the device is gone")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr("orca_sweep.training.predict.predict_wholes", once)
        row, _ = run(task="tiny")
    assert row["status"] == "failed" and len(calls) == 2
    folder = tmp_path / "sweep"
    ids = {"trial_id": row["trial_id"], "cell_id": row["cell_id"], "seed": 0, "role": "replicate"}
    write_manifest(folder, sweep_manifest(metric="val_metric_best", trials=[{**ids, "config": {"task": "tiny"}}]))
    assert r.reveal(folder).trials == ()
    row, _ = run(task="tiny")
    found = r.collect([folder], tmp_path / "t")
    assert row["status"] == "ok" and found.n_sealed == 1
    assert found.trials["revealed_at"].isna().all() and found.trials["test_metric_last"].isna().all()


def test_what_one_sweep_has_revealed_is_open_whichever_comes_first(tmp_path):
    a, b = sealed_sweep(tmp_path / "a", name="one"), sealed_sweep(tmp_path / "b", seeds=(0, 1), name="two")
    r.collect([a], tmp_path / "ta")
    shown = r.reveal(b)
    for sources in ([a, b], [b, a], [tmp_path / "ta", b]):
        found = r.collect(sources, tmp_path / "t")
        assert found.n_sealed == 2  # seed 2 of both cells, which the second sweep has not
        is_open = found.trials["seed"] < 2
        assert found.trials["test_metric_best"].notna().equals(is_open)
        assert (found.trials["revealed_at"][is_open] == pd.Timestamp(shown.time)).all()


def test_trials_that_began_after_a_look_are_marked(tmp_path):
    folder = sealed_sweep(tmp_path / "s")
    planned = json.loads((folder / "sweep.json").read_text())["trials"]
    r.reveal(folder)
    for trial, started in zip(planned, ["2020-01-01T00:00:00+00:00", r.now()], strict=False):
        record = r.read_record(folder, trial["trial_id"])
        r.write_record(folder, {**record["row"], **r.unseal_metrics(record), "started_at": started}, record["epochs"])
    found = r.collect([folder], tmp_path / "t")
    assert found.trials["n_reveals_before"][:2].tolist() == [0, 1]
    assert found.trials["n_reveals_before"][2:].isna().all()  # when these began is not known


@pytest.mark.parametrize(
    "text", ["@@", base64.b64encode(b"no zlib").decode(), base64.b64encode(zlib.compress(b"[")).decode()]
)
def test_one_damaged_seal_is_told_and_stops_nothing_for_the_others(tmp_path, text):
    folder = sealed_sweep(tmp_path / "s")
    before = r.collect([folder], tmp_path / "t").trials
    bad = before["trial_id"][2]
    record = r.read_record(folder, bad)
    r.write_json(folder / "trials" / bad / "row.json", {**record, "sealed": text})
    shown = r.reveal(folder)
    assert len(shown.trials) == 5 and bad not in shown.trials
    assert f"{bad}/row.json: damaged: its content is wrong: sealed: " in shown.damaged[0]
    assert shown.damaged[0].endswith("The next launch runs the trial again; until then it counts as lost.")
    found = r.collect([folder], tmp_path / "t")
    assert found.notes == shown.damaged and found.n_sealed == 0
    rows = found.trials.set_index("trial_id")
    assert rows.loc[bad, "status"] == "lost" and rows.loc[bad, "error"] == shown.damaged[0]
    assert rows.drop(bad)["test_metric_best"].tolist() == [0.5, 0.6, 0.5, 0.6, 0.7]
    assert r.sweep_status(folder).statuses == {"ok": 5, "lost": 1}
    # Only a reveal that shows something is logged.
    assert r.reveal(folder).trials == () and len(r.read_reveals(folder)) == 1


def test_reveal_on_the_command_line(tmp_path):
    folder = sealed_sweep(tmp_path / "s", statuses=["ok", "ok", None])
    told = orca("collect", folder).stdout
    assert "test metrics of 5 trials are sealed" in told
    done = orca("reveal", folder)
    assert done.returncode == 0, done.stderr
    assert "revealed the test metrics of 5 trials (look 1 at this sweep" in done.stdout
    assert "1 trials have not ended; theirs stay sealed" in done.stdout
    assert "test_metric_best (digits: error, lower is better)" in done.stdout
    assert r.read_results(folder / "tables").n_sealed == 0
    assert (folder / "figures").is_dir()
    assert "nothing to reveal: all that there are were revealed on" in orca("reveal", folder).stdout
    (tmp_path / "s.yaml").write_text("base: {task: digits}\nfactors: {embedder.epochs: [0, 3]}\nseeds: 3\n")
    assert "were revealed (last on" in " ".join(orca("plan", tmp_path / "s.yaml", "--out", folder).stdout.split())
    missing = orca("reveal", tmp_path)
    assert (missing.returncode, "no sweep here" in missing.stderr) == (2, True)
