"""The files of trials on nodes that do not see the sweep folder; on a real cluster in ``test_failures``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orca_sweep.errors import StorageError
from orca_sweep.results import write_record
from orca_sweep.sweep import keeper as k
from orca_sweep.sweep.keeper import Away, Keeper, Part, is_seen, mark_folders
from orca_sweep.training.run import CHECKPOINT


class Local:
    """Calls a keeper of this process in the form in which Ray's handles are called."""

    def __init__(self, keeper):
        self.keeper = keeper

    def __getattr__(self, name):
        return type("Method", (), {"remote": staticmethod(getattr(self.keeper, name))})


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A trial away from two sweep folders; it belongs to the second."""
    monkeypatch.setattr(k.ray, "get", lambda value: value)
    monkeypatch.setattr(k, "PIECE", 10)
    outs = [tmp_path / name for name in ("one", "two")]
    for out in outs:
        out.mkdir()
    home = Keeper(list(map(str, outs)), str(tmp_path / "store"))
    return Away(keeper=Local(home), lane=1, trial_id="abc", folder=tmp_path / "away")


@pytest.mark.parametrize("size", [0, 1, 10, 25, 30])
def test_files_come_home_as_they_are_and_go_back(away, tmp_path, size):
    content = os.urandom(size)
    away.home.mkdir(parents=True)
    (away.home / CHECKPOINT).write_bytes(content)
    away.send_checkpoint()
    sent = tmp_path / "two/trials/abc"
    assert [path.name for path in sent.iterdir()] == [CHECKPOINT]
    assert (sent / CHECKPOINT).read_bytes() == content
    (away.home / CHECKPOINT).unlink()
    away.fetch()
    assert (away.home / CHECKPOINT).read_bytes() == content


def test_a_checkpoint_that_another_lane_left_is_fetched_too(away, tmp_path):
    left = tmp_path / "one/trials/abc" / CHECKPOINT
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 33)
    away.fetch()
    assert (away.home / CHECKPOINT).read_bytes() == b"x" * 33


def test_a_record_ends_the_trial_at_home(away, tmp_path):
    write_record(away.folder, {"trial_id": "abc", "cell_id": "c", "status": "failed", "test_metric_best": 0.5}, [])
    (away.home / "error.txt").write_text("Traceback")
    (away.home / CHECKPOINT).write_bytes(b"x")
    away.send_record()
    sent = tmp_path / "two/trials/abc"
    assert (sent / "row.json").read_bytes() == (away.home / "row.json").read_bytes()
    assert (sent / "error.txt").read_text() == "Traceback"
    assert (sent / CHECKPOINT).exists()  # a second try goes on from it
    write_record(away.folder, {"trial_id": "abc", "cell_id": "c", "status": "ok"}, [])
    away.send_record()
    assert not (sent / CHECKPOINT).exists()
    assert not [path for path in sent.iterdir() if path.suffix == ".tmp"]


def test_parts_that_ray_sends_twice_and_uploads_side_by_side_do_not_mix(tmp_path):
    home = Keeper([str(tmp_path)], str(tmp_path / "store"))
    parts = [[Part(upload=u, start=at, content=u.encode() * 4, size=8) for at in (0, 4)] for u in "ab"]
    for part in (parts[0][0], parts[1][0], parts[0][0], parts[1][1], parts[0][1]):
        assert home.write_part(0, "abc", CHECKPOINT, part) is None
    assert (tmp_path / "trials/abc" / CHECKPOINT).read_bytes() == b"a" * 8
    # The keeper died after it had moved the file into place; Ray sends the last part again.
    assert home.write_part(0, "abc", CHECKPOINT, parts[0][1]) is None
    assert (tmp_path / "trials/abc" / CHECKPOINT).read_bytes() == b"a" * 8


def test_a_full_disk_at_home_is_no_outcome_of_a_trial(away, tmp_path):
    away.home.mkdir(parents=True)
    (away.home / CHECKPOINT).write_bytes(b"x" * 30)
    (tmp_path / "two/trials").write_text("a file in the place of the folder")
    with pytest.raises(StorageError, match="cannot be written") as told:
        away.send_checkpoint()
    assert told.value.__cause__.errno


def test_a_node_knows_the_folders_of_this_launch_alone(tmp_path):
    with mark_folders([tmp_path]) as mark:
        assert is_seen(tmp_path, mark)
        assert not is_seen(tmp_path, "of another launch")
        assert not is_seen(tmp_path / "missing", mark)
        with mark_folders([tmp_path, tmp_path]) as other:  # two launches may share a store
            assert is_seen(tmp_path, mark) and is_seen(tmp_path, other)
        assert is_seen(tmp_path, mark)
    assert not is_seen(tmp_path, mark)
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_workers_are_deleted_and_nothing_else(tmp_path):
    code = "import sys, time; from pathlib import Path; from orca_sweep.sweep.keeper import _make_folder"
    code += "\nwith _make_folder(Path(sys.argv[1])) as folder: print(folder, flush=True); time.sleep(1000)"
    killed = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    abandoned = Path(killed.stdout.readline().strip())
    k.delete_abandoned(tmp_path)
    assert abandoned.exists()  # its worker lives
    killed.kill()
    killed.wait()
    (tmp_path / "notes").mkdir()
    with k._make_folder(tmp_path) as folder:
        k.delete_abandoned(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"notes", folder.name, f"{folder.name}.lock"}
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
