"""Artifacts, tables, intervals."""

import json
import math
import os
import threading
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep import results as r
from orca_sweep.config import knobs
from orca_sweep.errors import BusyError, InputError
from orca_sweep.stats import t_interval
from orca_sweep.store import CorruptFileError, Store, read_tensors, stage_key, state_digest, write_tensors
from orca_sweep.streams import stream_rng, stream_seed, torch_stream
from orca_sweep.trial import make_config

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3.0), "empty": np.zeros((0, 2))}


# Store --------------------------------------------------------------------------------------------


def test_what_is_put_is_got_bit_for_bit(tmp_path):
    store = Store(str(tmp_path))
    assert store.get("stage", "key") is None
    store.put("stage", "key", ARRAYS, {"seconds": 1.5, "text": "ä"})
    found = store.get("stage", "key")
    assert found.meta["seconds"] == 1.5
    for name, array in ARRAYS.items():
        assert found.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(found.tensors[name], array)
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


def test_any_fsspec_path_will_do():
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
def test_one_holds_a_lock_and_the_impatient_are_told(tmp_path, root, monkeypatch):
    monkeypatch.setattr("orca_sweep.store.artifacts.LEASE_S", 3.0)
    root = str(tmp_path) if root == "folder" else root
    store, other = Store(root), Store(root, patience_s=0.3)
    with store.lock("s", "k"):
        with pytest.raises(BusyError) as busy, other.lock("s", "k"):
            pass
        assert other.is_held(busy.value.lock)
        with other.lock("s", "another"):
            pass
        with pytest.raises(BusyError):
            other.once("s", "k", lambda: (ARRAYS, {}))
    assert not other.is_held(busy.value.lock)
    assert other.once("s", "k", lambda: (ARRAYS, {}))[1] is False
    assert store.once("s", "k", lambda: (ARRAYS, {}))[1] is True
    assert store.used == {"s": "k"}


def test_a_lease_lives_as_long_as_its_holder_and_no_longer(monkeypatch):
    monkeypatch.setattr("orca_sweep.store.artifacts.LEASE_S", 1.0)
    root = "memory://orca-sweep-leases"
    with Store(root).lock("s", "k"):
        time.sleep(1.8)  # longer than a lease: it is renewed
        with pytest.raises(BusyError), Store(root, patience_s=0.0).lock("s", "k"):
            pass
    # Of a holder that died there is the file alone.
    store = Store(root)
    store.fs.pipe_file(f"{store.root}/s/k.lease", json.dumps({"owner": "dead", "until": time.time() + 1}).encode())
    start = time.time()
    with store.lock("s", "k"):
        assert time.time() - start > 0.8
    assert not store.fs.exists(f"{store.root}/s/k.lease")
    store.fs.pipe_file(f"{store.root}/s/k.lease", b"half a li")  # what cannot be read holds nothing
    with Store(root, patience_s=0.0).lock("s", "k"):
        pass
    assert not store.entries()


def test_two_on_an_object_store_compute_an_artifact_once(monkeypatch):
    monkeypatch.setattr("orca_sweep.store.artifacts.LEASE_S", 5.0)
    computed = []

    def compute():
        computed.append(1)
        time.sleep(0.5)
        return ARRAYS, {}

    threads = [
        threading.Thread(target=lambda: Store("memory://orca-sweep-once").once("s", "k", compute)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1]


@pytest.mark.parametrize("root", ["folder", "memory://orca-sweep-rows"])
def test_rows_are_kept_apart_from_artifacts(tmp_path, root):
    store = Store(str(tmp_path) if root == "folder" else root)
    assert store.rows(10) == []
    store.put_row("broken", {})
    store.fs.pipe_file(f"{store.root}/rows/broken.json", b"{half")
    for name in "abc":
        time.sleep(0.02)
        store.put_row(name, {"trial_id": name})
    assert [row["trial_id"] for row in store.rows(10)] == ["a", "b", "c"]
    assert [row["trial_id"] for row in store.rows(2)] == ["b", "c"], "the latest"
    assert store.entries() == []


def test_a_digest_sees_one_bit(tmp_path):
    other = {**ARRAYS, "w": np.nextafter(ARRAYS["w"], np.float32(9))}
    assert state_digest(ARRAYS) != state_digest(other)
    write_tensors(str(tmp_path / "a" / "b.safetensors"), ARRAYS, {})
    assert state_digest(read_tensors(str(tmp_path / "a" / "b.safetensors")).tensors) == state_digest(ARRAYS)


# Streams ------------------------------------------------------------------------------------------


def test_streams_depend_on_their_name_alone_and_leave_the_global_generator_alone():
    import torch

    names = [("a", ()), ("b", ()), ("a", (1,)), ("a", (1, 2)), ("a", (12,))]
    assert len({stream_seed(seed, name, *i) for seed in (0, 1) for name, i in names}) == 10
    assert stream_rng(0, "a").random() == stream_rng(0, "a").random()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch_stream(0, "a"):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    with torch_stream(0, "a"):
        assert torch.equal(first, torch.rand(3))


# Intervals ----------------------------------------------------------------------------------------


def test_intervals_by_hand():
    # 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.3027.
    found = t_interval([1.0, 2, 3])
    assert (found.n, found.mean, found.sd) == (3, 2, 1)
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert math.isnan(t_interval([1.0]).low)
    assert math.isnan(t_interval([]).mean)
    assert math.isnan(t_interval([1.0, math.nan]).mean)


def test_intervals_cover_what_they_promise():
    rng = np.random.default_rng(0)
    hits = [abs(i.mean) <= i.half_width for i in (t_interval(rng.normal(size=4)) for _ in range(2000))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_an_interval_holds_its_mean(values):
    found = t_interval(values)
    assert found.low <= found.mean <= found.high


# Tables -------------------------------------------------------------------------------------------


def sweep_folder(folder, seeds=(0, 1, 2), statuses=(), name="demo"):
    """A sweep folder as launch leaves it, with the given statuses and no training behind it."""
    trials, n = [], 0
    for epochs in (0, 3):
        for seed in seeds:
            config = make_config({"task": "digits", "embedder.epochs": epochs}).model_copy(update={"seed": seed})
            ids = {"trial_id": config.trial_id, "cell_id": config.cell_id}
            trials.append({**ids, "seed": seed, "config": config.flat()})
            status = statuses[n] if n < len(statuses) else "ok"
            n += 1
            if status is None:
                continue
            row = {**ids, "status": status, "metric": "error", "test_metric_best": 0.5 + seed / 10, "n_steps": 7}
            history = [{"stage": "finetune", "epoch": e, "val_metric": 1 / e, "lr": 0.1} for e in (1, 2)]
            r.write_record(folder, row | ({"test_metric_best": math.nan} if status != "ok" else {}), history)
    manifest = {
        "name": name,
        "question": "?",
        "metric": "test_metric_best",
        "factors": ["embedder.epochs"],
        "trials": trials,
    }
    r.write_json(folder / "sweep.json", manifest)
    r.reveal(folder)
    return folder


def test_tables_are_typed_and_say_what_they_hold(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["ok", "failed", None])
    found = r.collect([folder], tmp_path / "t")
    assert found.trials["status"].tolist() == ["ok", "failed", "unfinished", "ok", "ok", "ok"]
    assert "launch again" in found.trials["error"][2]
    assert found.factors == ("embedder.epochs",)
    schema = pq.read_schema(tmp_path / "t" / "trials.parquet")
    assert set(knobs()) <= set(schema.names)
    assert str(schema.field("embedder.epochs").type) == "int64"
    assert str(schema.field("finetune.lr").type) == "double"
    assert str(schema.field("finetune.freeze_epochs").type) == "string"
    assert schema.field("wall_time_s").metadata[b"unit"] == b"s"
    assert all(field.metadata[b"meaning"] for field in schema)
    assert json.loads(schema.metadata[b"orca_sweep"])["schema_version"] == r.TABLE_SCHEMA
    assert pd.isna(found.trials["test_metric_best"][1])
    assert len(found.epochs) == 10
    assert set(found.epochs["trial_id"]) <= set(found.trials["trial_id"])


def test_collecting_twice_gives_the_same_bytes_and_sweeps_merge(tmp_path):
    a, b = sweep_folder(tmp_path / "a", statuses=["failed"]), sweep_folder(tmp_path / "b", seeds=(0, 5))
    r.collect([a, b], tmp_path / "t")
    first = (tmp_path / "t" / "trials.parquet").read_bytes()
    merged = r.collect([a, b], tmp_path / "t")
    assert (tmp_path / "t" / "trials.parquet").read_bytes() == first
    assert len(merged.trials) == 8
    assert merged.trials["trial_id"].is_unique
    # The trial that failed in one sweep and went well in the other is there once, with its result.
    assert (merged.trials["status"] == "ok").all()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_summary_counts_what_it_lacks(tmp_path):
    found = r.summarise(r.collect([sweep_folder(tmp_path / "s", statuses=["ok", "ok", "diverged"])], tmp_path / "t"))
    assert [(c.interval.n, c.n_not_ok) for c in found] == [(2, 1), (3, 0)]
    assert found[0].interval.mean == pytest.approx(0.55)
    assert found[0].statuses == {"ok": 2, "diverged": 1}
    with pytest.raises(InputError, match="no column"):
        r.summarise(r.read_results(tmp_path / "t"), "accuracy")


def test_the_aa_arm_is_an_arm_of_its_own_in_tables_and_printed(tmp_path):
    from rich.console import Console

    from orca_sweep.cli.ending import _print_summary

    folder = sweep_folder(tmp_path / "s", seeds=(0, 1, 2, 3), statuses=["ok", "ok", "ok", None])
    plain = r.collect([folder], tmp_path / "plain")
    assert plain.trials["role"].tolist() == ["replicate"] * 8  # a plan that says nothing of it
    # The plan says which arm a trial belongs to, its record does not know.
    manifest = r.manifest_of(folder)
    for planned in manifest["trials"][2:4]:
        planned |= {"cell_id": f"{planned['cell_id']}-aa", "role": "aa"}
    r.write_json(folder / "sweep.json", manifest)
    found = r.collect([folder], tmp_path / "t")
    assert found.trials["role"].tolist() == ["replicate"] * 2 + ["aa"] * 2 + ["replicate"] * 4
    assert found.trials["cell_id"].tolist() == [t["cell_id"] for t in manifest["trials"]]
    cells = r.summarise(found)
    assert [(c.role, c.interval.n, c.n_not_ok) for c in cells] == [
        ("replicate", 2, 0),
        ("aa", 1, 1),
        ("replicate", 4, 0),
    ]
    assert cells[1].cell_id == f"{cells[0].cell_id}-aa"
    assert cells[1].levels == cells[0].levels
    for results, heads in ((plain, "embedder.epochs  n"), (found, "embedder.epochs  role       n")):
        console = Console(record=True, width=120)
        _print_summary(results, console)
        shown = console.export_text()
        assert heads in shown
        assert (" aa " in shown) == (results is found)
    old = r.Results(found.trials.drop(columns="role"), found.epochs, found.factors, found.metric, (), ())
    assert {c.role for c in r.summarise(old)} == {"replicate"}  # tables of before there was a role


def test_the_aa_arm_has_a_line_of_its_own_in_the_figure(tmp_path):
    from orca_sweep.analysis.figure2_proxies import compute, numbers

    folder = sweep_folder(tmp_path / "s")
    manifest = r.manifest_of(folder)
    manifest["trials"][2] |= {"cell_id": f"{manifest['trials'][2]['cell_id']}-aa", "role": "aa"}
    r.write_json(folder / "sweep.json", manifest)
    figure = compute(r.collect([folder], tmp_path / "t"))
    assert [line.split(",")[2] for line in numbers(figure).splitlines() if ",test_metric_best," in line] == [
        "0", "0 (aa)", "3",
    ]  # fmt: skip


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no such table. Make it with"):
        r.read_results(tmp_path)
    with pytest.raises(InputError, match="no sweep here"):
        r.collect([tmp_path], tmp_path / "t")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="sweep.json: damaged: no record that this program wrote"):
        r.read_manifest(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="sweep.json: damaged"):
        r.read_manifest(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "trials.parquet")
    with pytest.raises(InputError, match=r"trials.parquet: not what 'orca-sweep collect' has written \(no checksum\)"):
        r.read_results(tmp_path)
    r.write_table(tmp_path / "trials.parquet", pa.table({"a": [1]}), {})
    with pytest.raises(InputError, match="no column trial_id, cell_id, seed, status"):
        r.read_results(tmp_path)


def test_results_need_neither_torch_nor_ray(tmp_path):
    import subprocess
    import sys

    sweep_folder(tmp_path / "s")
    code = (
        "import sys; from pathlib import Path; import orca_sweep.results as r;"
        f"r.summarise(r.collect([Path({str(tmp_path / 's')!r})], Path({str(tmp_path / 't')!r})));"
        "sys.exit(bool({'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_tells_what_it_holds_and_makes_room(tmp_path, capsys, monkeypatch):
    from tests.data.test_fetching import command

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
    store.get("embedder", used)  # what is read is used
    assert command(monkeypatch, "store", "ls", tmp_path / "store") == 0
    shown = capsys.readouterr().out
    assert "embedder                 2" in shown
    assert "1 damaged or half-written files" in shown
    left = sorted(path.name for path in (tmp_path / "store").rglob("*.*"))
    assert command(monkeypatch, "store", "gc", tmp_path / "store") == 0
    assert "3 files" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "store").rglob("*.*")) == left  # only told
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--stage", "pretrain", "--yes") == 0
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--yes") == 0
    assert [entry.name for entry in store.entries()] == [f"{used}.safetensors"]
    assert command(monkeypatch, "store", "gc", tmp_path / "store", "--stage", "pretrian") == 2
    assert command(monkeypatch, "store", "ls", tmp_path / "nowhere") == 2
    memory = Store("memory://orca-entries")
    memory.put("pretrain", old, {"x": np.zeros(3)}, {})
    assert [(entry.stage, entry.is_artifact) for entry in memory.entries()] == [("pretrain", True)]
