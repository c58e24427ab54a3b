"""The store: artifacts that are whole or absent, locks and leases, cost rows, and garbage collection."""

import errno
import functools
import json
import os
import threading
import time

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from orca_sweep.errors import BusyError
from orca_sweep.store import CorruptFileError, Store, read_tensors, stage_key, state_digest, write_tensors
from orca_sweep.store.locks import Lease, can_create_conditionally

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3.0), "empty": np.zeros((0, 2))}


def test_artifacts_are_read_back_bit_for_bit(tmp_path):
    store = Store(str(tmp_path))
    assert store.get("stage", "key") is None
    store.put("stage", "key", ARRAYS, {"seconds": 1.5, "text": "ä"})
    artifact = store.get("stage", "key")
    assert artifact.meta["seconds"] == 1.5
    for name, array in ARRAYS.items():
        assert artifact.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(artifact.tensors[name], array)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_artifact_is_noticed_and_set_aside(tmp_path, damage, caplog):
    store = Store(str(tmp_path))
    store.put("s", "k", ARRAYS, {})
    path = tmp_path / "s" / "k.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-9] ^= 1
    path.write_bytes({"flip": bytes(blob), "cut": bytes(blob[:-7]), "empty": b"", "other": b"<html>"}[damage])
    with pytest.raises(CorruptFileError):
        read_tensors(str(path))
    assert store.get("s", "k") is None
    assert "computed again" in caplog.text
    assert not path.exists()
    store.put("s", "k", ARRAYS, {})
    assert store.get("s", "k") is not None


def test_any_fsspec_path_works():
    store = Store("memory://orca-sweep-test")
    store.put("s", "k", ARRAYS, {"a": 1})
    with store.lock("s", "k"):
        assert store.has("s", "k")
        np.testing.assert_array_equal(store.get("s", "k").tensors["w"], ARRAYS["w"])


def test_the_key_covers_every_input_and_the_lock_is_exclusive(tmp_path):
    assert len({stage_key(s, i) for s in "ab" for i in ({"x": 1}, {"x": 1.5}, {"y": 1}, {})}) == 8
    assert stage_key("a", {"x": 1, "y": 2}) == stage_key("a", {"y": 2, "x": 1})
    store, order = Store(str(tmp_path)), []

    def second():
        with Store(str(tmp_path)).lock("s", "k"):
            order.append("second")

    with store.lock("s", "k"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("root", ["folder", "memory://orca-sweep-locks"])
def test_a_lock_has_one_holder_and_others_time_out(tmp_path, root, monkeypatch):
    monkeypatch.setattr("orca_sweep.store.locks.LEASE_S", 3.0)
    root = str(tmp_path) if root == "folder" else root
    store, other = Store(root), Store(root, patience_s=0.3)
    with store.lock("s", "k"):
        with pytest.raises(BusyError) as busy, other.lock("s", "k"):
            pass
        assert other.is_held(busy.value.lock)
        with other.lock("s", "another"):
            pass
        with pytest.raises(BusyError):
            other.get_or_compute("s", "k", lambda: (ARRAYS, {}))
    assert not other.is_held(busy.value.lock)
    assert other.get_or_compute("s", "k", lambda: (ARRAYS, {}))[1] is False
    assert store.get_or_compute("s", "k", lambda: (ARRAYS, {}))[1] is True
    assert store.used == {"s": "k"}


def test_a_lease_lasts_as_long_as_its_holder(monkeypatch):
    monkeypatch.setattr("orca_sweep.store.locks.LEASE_S", 1.0)
    root = "memory://orca-sweep-leases"
    with Store(root).lock("s", "k"):
        time.sleep(1.8)  # longer than a lease: it is renewed
        with pytest.raises(BusyError), Store(root, patience_s=0.0).lock("s", "k"):
            pass
    # A holder that died leaves only the file.
    store = Store(root)
    store.fs.pipe_file(f"{store.root}/s/k.lease", json.dumps({"owner": "dead", "until": time.time() + 1}).encode())
    start = time.time()
    with store.lock("s", "k"):
        assert time.time() - start > 0.8
    assert not store.fs.exists(f"{store.root}/s/k.lease")
    store.fs.pipe_file(f"{store.root}/s/k.lease", b"half a li")  # a damaged lease counts as free
    with Store(root, patience_s=0.0).lock("s", "k"):
        pass
    assert not store.list_entries()


@pytest.mark.parametrize("conditional", [True, False])
def test_several_workers_on_an_object_store_compute_an_artifact_once(monkeypatch, conditional):
    monkeypatch.setattr("orca_sweep.store.locks.LEASE_S", 5.0)
    if not conditional:
        monkeypatch.setattr("orca_sweep.store.locks.CONDITIONAL_CREATE", set())
    root = f"memory://orca-sweep-once-{conditional}"
    computed = []

    def compute():
        computed.append(1)
        time.sleep(0.5)
        return ARRAYS, {}

    threads = [threading.Thread(target=lambda: Store(root).get_or_compute("s", "k", compute)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1]


class FileSystemOf(MemoryFileSystem):
    """A file system in memory that answers a conditional create like S3 or another one."""

    cachable = False

    def __init__(self, error):
        super().__init__()
        self.error, self.modes = error, []

    def pipe_file(self, path, value, mode="overwrite", **more):
        self.modes.append(mode)
        if mode == "create" and self.error:
            super().pipe_file(path, json.dumps({"owner": "faster", "until": time.time() + 60}).encode())
            raise self.error
        super().pipe_file(path, value, mode=mode, **more)


@pytest.mark.parametrize("error", [FileExistsError(), OSError(errno.EINVAL, "PreconditionFailed")])
def test_the_loser_of_the_race_for_a_lease_waits(error):
    fs = FileSystemOf(error)
    with pytest.raises(BusyError), Lease(fs, f"/race-{error.errno}.lease", 0.0):
        pass
    assert fs.modes == ["create"]


def test_other_errors_are_not_mistaken_for_a_lost_race():
    fs = FileSystemOf(None)
    fs.pipe_file = functools.partial(refuse_create, fs)
    with pytest.raises(PermissionError), Lease(fs, "/forbidden.lease", 0.0):
        pass


def refuse_create(fs, path, value, mode="overwrite"):
    raise PermissionError(errno.EACCES, "no")


def test_file_systems_that_create_conditionally_are_known_by_name_and_version():
    class Older(MemoryFileSystem):
        def pipe_file(self, path, value, **more): ...

    assert can_create_conditionally(FileSystemOf(None))
    assert not can_create_conditionally(Older())
    assert not can_create_conditionally(LocalFileSystem())


def test_a_fresh_lease_is_created_in_one_step_and_an_expired_one_is_replaced(monkeypatch):
    monkeypatch.setattr("orca_sweep.store.locks.LEASE_S", 1.0)
    fs = FileSystemOf(None)
    with Lease(fs, "/fresh.lease", 0.0):
        assert fs.modes == ["create"]
    fs.pipe_file("/expired.lease", json.dumps({"owner": "dead", "until": time.time() - 1}).encode())
    with Lease(fs, "/expired.lease", 0.0):
        assert fs.modes == ["create", "overwrite", "overwrite"]


@pytest.mark.parametrize("root", ["folder", "memory://orca-sweep-rows"])
def test_rows_are_separate_from_artifacts(tmp_path, root):
    store = Store(str(tmp_path) if root == "folder" else root)
    assert store.read_rows(10) == []
    store.put_row("broken", {})
    store.fs.pipe_file(f"{store.root}/rows/broken.json", b"{half")
    for name in "abc":
        time.sleep(0.02)
        store.put_row(name, {"trial_id": name})
    assert [row["trial_id"] for row in store.read_rows(10)] == ["a", "b", "c"]
    assert [row["trial_id"] for row in store.read_rows(2)] == ["b", "c"], "the latest"
    assert store.list_entries() == []


def test_a_digest_depends_on_every_bit(tmp_path):
    other = {**ARRAYS, "w": np.nextafter(ARRAYS["w"], np.float32(9))}
    assert state_digest(ARRAYS) != state_digest(other)
    write_tensors(str(tmp_path / "a" / "b.safetensors"), ARRAYS, {})
    assert state_digest(read_tensors(str(tmp_path / "a" / "b.safetensors")).tensors) == state_digest(ARRAYS)


def test_the_command_line_lists_and_collects_garbage(tmp_path, capsys, monkeypatch):
    from tests.builders.in_process import command

    store = Store(str(tmp_path / "store"))
    old, used = (stage_key("embedder", {"which": which}) for which in ("old", "used"))
    for stage, key in (("embedder", old), ("embedder", used), ("pretrain", old)):
        store.put(stage, key, {"x": np.zeros(1000)}, {})
    (tmp_path / f"store/embedder/.{old}.safetensors.{used}.tmp").write_bytes(b"half")
    with store.lock("embedder", old):
        pass
    long_ago = time.time() - 40 * 86400
    for path in (tmp_path / "store").rglob("*.*"):
        os.utime(path, (long_ago, long_ago))
    store.get("embedder", used)  # reading counts as use
    assert command(monkeypatch, "store", "ls", tmp_path / "store") == 0
    shown = capsys.readouterr().out
    assert "embedder                 2" in shown
    assert "1 damaged or half-written files" in shown
    left = sorted(path.name for path in (tmp_path / "store").rglob("*.*"))
    assert command(monkeypatch, "store", "gc", tmp_path / "store") == 0
    assert "3 files" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "store").rglob("*.*")) == left  # only listed
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--stage", "pretrain", "--yes") == 0
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--yes") == 0
    assert [entry.name for entry in store.list_entries()] == [f"{used}.safetensors"]
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--stage", "pretrian") == 2
    assert command(monkeypatch, "store", "ls", tmp_path / "nowhere") == 2
    memory = Store("memory://orca-entries")
    memory.put("pretrain", old, {"x": np.zeros(3)}, {})
    assert [(entry.stage, entry.is_artifact) for entry in memory.list_entries()] == [("pretrain", True)]
