"""What people see of a running trial: its sign of life in the sweep folder, in the worker's log, and in the progress."""

import errno
import io
import json
import os
import time

import pytest

from orca_sweep.api.progress import ProgressLines
from orca_sweep.results import sweep_status
from orca_sweep.results.signs import Sign, format_sign, read_sign, sign_path, write_sign
from orca_sweep.sweep import signs
from orca_sweep.sweep.signs import LifeSigns
from orca_sweep.trial import make_config
from tests.builders.sweeps import sweep_folder

CONFIG = {"task": "digits", "embedder.epochs": 7, "proxy": "mnist5k", "finetune.epochs": 5}
PARAMS = {"name": "proxy mnist5k, seed 3", "space": "demo", "trial_id": "abc", "cell_id": "c", "seed": 3}
NOW = 1_000_000.0


def sign(**facts):
    return Sign(**{"trial_id": "abc", "stage": "finetune", "since": NOW - 120, "at": NOW, "node": "n1", **facts})


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "fine-tunes, for 2 min"),
        ({"epoch": 3, "n_epochs": 60, "val_metric": 0.21}, "fine-tunes, epoch 3 of 60, validation 0.21, for 2 min"),
        ({"stage": "pretrain", "epoch": 400, "since": NOW - 40}, "pre-trains its body, step 400, for 40 s"),
        ({"stage": "proxy", "at": NOW - 100}, "embeds the proxy, for 2 min, last sign of life 2 min ago"),
        ({"stage": "a stage of a later version"}, "a stage of a later version, for 2 min"),
    ],
)
def test_a_sign_says_what_the_trial_does_and_how_old_the_news_is(facts, text):
    assert sign(**facts).describe(NOW) == text


def test_a_trial_gives_signs_while_it_runs_and_none_after_its_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signs, "EVERY_S", 0.01)
    written = []

    def write(content):
        written.append(json.loads(content))
        write_sign(tmp_path, "abc", content)

    def wait_for_sign(**facts):
        end = time.monotonic() + 20
        while not (written and facts.items() <= written[-1].items()):
            assert time.monotonic() < end, written[-1:]
            time.sleep(0.005)

    with LifeSigns(PARAMS, make_config(CONFIG), write) as life:
        wait_for_sign(stage="data", epoch=None)
        life.begin_stage("body")
        wait_for_sign(stage="body")
        life.note_row({"stage": "pretrain", "epoch": 300, "train_loss": 2.5})
        wait_for_sign(stage="pretrain", epoch=300, n_epochs=None)
        life.begin_stage("embedder")
        life.note_row({"stage": "embedder", "epoch": 2, "objective": 9.0})
        wait_for_sign(stage="embedder", epoch=2, n_epochs=7, val_metric=None)
        life.begin_stage("finetune")
        wait_for_sign(stage="finetune", epoch=None, n_epochs=5)
        life.note_row({"stage": "finetune", "epoch": 1, "train_loss": 0.7, "val_metric": 0.25})
        wait_for_sign(epoch=1, val_metric=0.25)
        assert read_sign(tmp_path, "abc").val_metric == 0.25
        life.note_end({"status": "failed", "error": "no luck"})
    n = len(written)
    time.sleep(0.05)
    assert len(written) == n
    printed = capsys.readouterr().out.splitlines()
    assert all("demo: proxy mnist5k, seed 3 (abc): " in line for line in printed)
    assert [line.partition("(abc): ")[2] for line in printed] == [
        "starts",
        "pretrain epoch 300, train_loss 2.5",
        "embedder epoch 2, objective 9",
        "finetune epoch 1, train_loss 0.7, val_metric 0.25",
        "failed: no luck",
    ]


def test_a_sign_that_cannot_be_written_is_not_worth_a_trial(monkeypatch):
    monkeypatch.setattr(signs, "EVERY_S", 0.01)
    n_tried = []

    def write(content):
        n_tried.append(1)
        raise OSError("the disk is full")

    with LifeSigns(PARAMS, make_config(CONFIG), write):
        while len(n_tried) < 3:
            time.sleep(0.005)


class FullLog(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "no space left")


def test_a_log_that_cannot_be_written_is_not_worth_a_trial(monkeypatch):
    with LifeSigns(PARAMS, make_config(CONFIG), lambda content: None) as life:
        for log in (io.TextIOWrapper(io.BytesIO(), "ascii"), FullLog()):
            monkeypatch.setattr("sys.stdout", log)
            life.note_row({"stage": "finetune", "epoch": 1, "val_metric": 0.5})
            life.note_end({"status": "failed", "error": "no file \udcff\u00e9"})


@pytest.mark.parametrize("content", [b"", b"{", b'{"trial_id":"abc"}', b'{"stage":1}', b"\xff"])
def test_a_damaged_sign_is_no_sign(tmp_path, content):
    path = sign_path(tmp_path, "abc")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_sign(tmp_path, "abc") is None
    path.unlink()
    os.mkfifo(path)  # nobody must wait for it
    assert read_sign(tmp_path, "abc") is None


def test_status_says_what_started_trials_do_the_latest_first(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["ok", None, None, None])
    trials = [trial["trial_id"] for trial in json.loads((folder / "sweep.json").read_text())["trials"]]
    for trial_id in trials[1:]:
        (folder / "trials" / trial_id).mkdir(exist_ok=True)
    for trial_id, at in zip(trials[:3], (9, 20, 10), strict=True):
        ended_or_not = sign(trial_id=trial_id, at=time.time() - 30 + at, since=time.time() - 50, epoch=1)
        write_sign(folder, trial_id, format_sign(ended_or_not))
    status = sweep_status(folder)
    assert [each.trial_id for each in status.signs] == [trials[1], trials[2]]  # the first has ended
    lines = list(status.write_lines())
    at = lines.index("started:")
    assert "fine-tunes, epoch 1, for 50 s, on n1" in lines[at + 1]
    assert lines[at + 3] == f"  {status.started_names[2]}"
    assert lines[at + 1].startswith(f"  {status.started_names[0]}: ")


def test_progress_says_what_goes_on_while_nothing_ends(plan_of):
    plan = plan_of("base: {task: tiny}\nseeds: 6\n")
    lines = ProgressLines(plan)
    ids = [trial.trial_id for trial in plan.trials]
    told = {ids[0]: sign(trial_id=ids[0], at=time.time(), since=time.time()), ids[1]: None}
    shown = list(lines.write_event("still", {"signs": told, "n_without_place": 0}))
    assert shown == ["seed 0: fine-tunes, for 0 s", "seed 1: has started"]
    shown = list(lines.write_event("still", {"signs": dict.fromkeys(ids), "n_without_place": 3}))
    assert len(shown) == 5
    assert shown[-1] == "... and 2 more trials run"
    shown = list(lines.write_event("still", {"signs": {}, "n_without_place": 2}))
    assert shown == ["2 trials wait for a place in the cluster"]
