"""Sweeps on a real Ray meet what really happens: killed processes, a lost node, a full disk, half-written files.

Each time the same is promised: what has ended stays, at most the epoch in flight is lost, and the tables come out equal
to an unbroken sweep's, bit for bit.
"""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from platformdirs import user_cache_path

from orca_sweep import results
from orca_sweep.errors import StorageError
from orca_sweep.results import read_record, read_results, sweep_status
from orca_sweep.store import find_full_disk, read_tensors, write_tensors
from tests.commands import Command, kill_tree, ray_head, ray_node, wait_for

PARTS = '''
import os
import time
from pathlib import Path

import numpy as np

from orca_sweep.data import Rows, Samples, Splits
from orca_sweep.objectives import OBJECTIVES, Objective
from orca_sweep.tasks import TASKS, Task

HERE = Path(__file__).parent
Y = np.arange(60) % 3
X = (np.random.default_rng(0).normal(size=(60, 1, 8, 8)) + Y[:, None, None, None]).astype("float32")


def note(name):
    with (HERE / name).open("a") as file:
        file.write(f"{os.getpid()}\\n")


def wait_while(name):
    while (HERE / name).exists():
        time.sleep(0.02)


def paced(name):
    """Reads, and is held or slow as long as a file beside this one says so."""

    def read(x):
        if (HERE / f"slow-{name}").exists():
            # Moved into place: a reader must not find it empty.
            mine = HERE / f"pid-{name}.{os.getpid()}"
            mine.write_text(str(os.getpid()))
            mine.rename(HERE / f"pid-{name}")
            time.sleep(0.15)
        wait_while(f"hold-{name}")
        return x

    return read


def task(name, read, load=lambda: None):
    def splits(root, seed):
        load()
        parts = (slice(24), slice(24, 42), slice(42, None))
        return Splits(*(Samples(Rows.from_array(X[part], name, read if part.start is None else None), Y[part]) for part in parts))

    recipe = {"body.name": "swin-micro", "body.pretrain_fraction": 0, "finetune.batch_size": 8, "finetune.lr": 1e-3,
              "proxy": "none"}
    TASKS.add(Task(name=name, dims=2, sample_shape=(1, 8, 8), kind="classification", output_shape=(3,), recipe=recipe,
                   loss="cross-entropy", metric="error", load=splits, meaning="", source="", licence=""))


def raising(x):
    if len(x):
        note("attempts-raising")
        raise RuntimeError("this sample cannot be read")
    return x


def without_memory(x):
    if len(x):
        raise MemoryError("this sample is too large")
    return x


def endless(x):
    time.sleep(0.4 * len(x) / 8)
    return x


n_read = []


def nan_in_epoch_3(x):
    n_read.extend([1] * (len(x) > 0))
    # One read compares the splits, one measures the inputs, each epoch has three.
    return x * np.nan if len(n_read) > 8 else x


def fails_once():
    note("attempts-flaky")
    if (HERE / "attempts-flaky").read_text().count("\\n") == 1:
        raise OSError("the file server is away for a moment")


task("a", paced("a"))
task("b", paced("b"))
task("raising", raising)
task("memory", without_memory)
task("endless", endless)
task("nan", nan_in_epoch_3)
task("flaky", paced("flaky"), fails_once)


def constants(features, labels):
    note("constants")
    wait_while("hold-constants")
    return {"mean": features.mean(dim=0)}


OBJECTIVES.add(
    Objective(
        name="to-mean",
        meaning="",
        constants=constants,
        distance=lambda constants, target: ((target.mean(dim=0) - constants["mean"]) ** 2).sum(),
    )
)
'''
ONE_A_TIME = "resources: {cpu: 1.9}\n"
AWAY_ONLY = "resources: {cpu: 1.9, custom: {away: 1}}\n"
"""On each node of two CPUs; still with one thread, as the threads' number changes the last bits."""
SPACE = f"""
imports: [parts.py]
name: demo
base: {{finetune.epochs: 7}}
factors: {{task: [a, b]}}
seeds: 2
{ONE_A_TIME}"""
SHARED = """
imports: [parts.py]
base: {task: a, body.pretrain_fraction: 1, body.pretrain_steps: 4, proxy: mnist5k, embedder.objective: to-mean,
       embedder.proxy_samples: 40, finetune.epochs: 1}
"""
NUMBERS = (
    "trial_id cell_id seed status val_metric_best val_metric_last best_epoch n_steps"
    " objective_first objective_last pretrain_metric data_sha256 proxy_sha256 body_sha256 state_sha256"
).split()
CAN_UNSHARE = (
    shutil.which("nsenter") is not None
    and subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0
)
needs_namespaces = pytest.mark.skipif(not CAN_UNSHARE, reason="mounts of one's own are not allowed here")


# What the tests do --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    yield furnished(tmp_path)
    while Watched.begun:
        command = Watched.begun.pop()
        if command.poll() is None:  # the test has failed
            os.killpg(command.pid, signal.SIGKILL)


def furnished(folder):
    """A user's folder: parts of her own, and the space of two tasks and two seeds."""
    (folder / "parts.py").write_text(PARTS)
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A head node of two CPUs, to which nodes can be added."""
    with ray_head(2) as head:
        yield head


def second_node(cluster, *options, namespaces=None):
    """Another node of two CPUs, for the length of a block."""
    return ray_node(cluster.folder, f"--address={cluster.address}", "--num-cpus=2", *options, namespaces=namespaces)


def node_away(cluster, hidden):
    """A node with a resource of its own, from which a folder is hidden."""
    return second_node(cluster, '--resources={"away": 2}', namespaces=hidden.holder.pid)


class Watched(Command):
    """A command of orca-sweep that runs, on the cluster if one is given."""

    begun = []  # noqa: RUF012

    def __init__(self, *args, home, cluster=None, **options):
        join = ["--address", cluster.address] if cluster else []
        self.log = home / f"log-{time.monotonic_ns()}.txt"
        super().__init__(*args, *join, cwd=home, output=self.log, **options)
        self.begun.append(self)

    def until(self, condition, out):
        """Waits; asks for the state of the sweep folder now and then, which must be told whatever is being written."""
        asked = time.monotonic()

        def holds():
            nonlocal asked
            is_over = self.poll() is not None
            if time.monotonic() - asked > 0.4 and (out / "sweep.json").exists():
                asked = time.monotonic()
                found = sweep_status(out)
                assert sum(found.statuses.values()) == found.n_planned
            if condition():
                return True
            assert not is_over, self.log.read_text()
            return False

        wait_for(holds)

    def ends(self, code=0):
        """Waits; returns all it printed."""
        done = self.wait(timeout=200)
        assert "Traceback" not in done.stdout, done.stdout
        assert done.returncode == code, done.stdout
        return done.stdout


def ids(out, task):
    """The trials of a task, in order."""
    planned = json.loads((out / "sweep.json").read_text())["trials"]
    return [trial["trial_id"] for trial in planned if trial["config"]["task"] == task]


def epochs_saved(out):
    """Trial to the epoch that its checkpoint holds."""
    return {p.parent.name: read_tensors(str(p)).meta["epoch"] for p in out.glob("trials/*/checkpoint.safetensors")}


def assert_equal_numbers(out, other):
    """Everything but times, and what was reused or resumed."""
    ours, theirs = (read_results(folder / "tables") for folder in (out, other))
    pd.testing.assert_frame_equal(ours.trials[NUMBERS], theirs.trials[NUMBERS])
    for trial_id in ours.trials["trial_id"]:
        tests = [results.unseal_metrics(read_record(folder, trial_id) or {"row": {}}) for folder in (out, other)]
        assert tests[0] == tests[1]
    keys = ["trial_id", "stage", "epoch"]
    epochs = [r.epochs.drop(columns="wall_time_s").sort_values(keys, ignore_index=True) for r in (ours, theirs)]
    pd.testing.assert_frame_equal(*epochs)


def assert_nothing_half_written(out):
    assert not [path for path in out.rglob(".*") if path.suffix == ".tmp"]
    assert not list(out.rglob("checkpoint.safetensors"))


@pytest.fixture(scope="module")
def unbroken(cluster, tmp_path_factory):
    """The sweep folder that nothing happened to."""
    home = furnished(tmp_path_factory.mktemp("unbroken"))
    Watched("launch", "space.yaml", "--out", "out", home=home, cluster=cluster).ends()
    return home / "out"


# Processes and nodes ------------------------------------------------------------------------------


def test_a_trial_whose_worker_is_killed_goes_on_from_its_last_epoch(home, cluster, unbroken):
    out = home / "out"
    (home / "slow-b").touch()
    launch = Watched("launch", "space.yaml", "--out", out, home=home, cluster=cluster)
    launch.until(lambda: epochs_saved(out).get(ids(out, "b")[0], 0) >= 2, out)
    ((struck, epoch),) = epochs_saved(out).items()
    os.kill(int((home / "pid-b").read_text()), signal.SIGKILL)
    (home / "slow-b").unlink()
    assert "4 ok" in launch.ends()
    resumed = read_results(out / "tables").trials.set_index("trial_id")["resumed_from_epoch"]
    assert resumed[struck] >= epoch
    assert (resumed > 0).sum() == 1
    assert_equal_numbers(out, unbroken)
    assert_nothing_half_written(out)


def test_a_sweep_survives_the_loss_of_a_node(home, cluster, unbroken):
    out = home / "out"
    slow, hold = ([home / f"{how}-{task}" for task in "ab"] for how in ("slow", "hold"))
    for file in (*slow, *hold):
        file.touch()
    with second_node(cluster) as second:
        launch = Watched("launch", "space.yaml", "--out", out, home=home, cluster=cluster)
        launch.until(lambda: all((home / f"pid-{task}").exists() for task in "ab"), out)
        for file in hold:
            file.unlink()
        launch.until(lambda: sum(epoch >= 2 for epoch in epochs_saved(out).values()) == 2, out)
        kill_tree(second.pid)
        for file in slow:
            file.unlink()
        assert "4 ok" in launch.ends()
    resumed = read_results(out / "tables").trials["resumed_from_epoch"]
    assert sorted(resumed > 0) == [False, False, False, True]
    assert resumed.max() >= 2
    assert_equal_numbers(out, unbroken)
    assert_nothing_half_written(out)


@needs_namespaces
def test_trials_on_nodes_that_share_no_folder_send_everything_home(home, cluster, unbroken):
    """A worker is killed, its node is lost, and so is the driver: what went home is there, and the numbers are equal."""
    out, shared = home / "out", home / "shared"
    (home / "away.yaml").write_text(SPACE.replace("cpu: 1.9", "cpu: 1.9, custom: {away: 1}"))
    (home / "shared.yaml").write_text(
        f"name: shared{SHARED}factors: {{finetune.lr: [1e-3, 2e-3]}}\nseeds: 1\n{AWAY_ONLY}"
    )
    slow = [home / f"slow-{task}" for task in "ab"]
    for file in slow:
        file.touch()
    for folder in (out, shared):
        folder.mkdir()
    with small_disk(out, "1m") as hidden:
        hidden.hide(shared)
        with node_away(cluster, hidden) as node:
            launch = Watched("launch", "away.yaml", "--out", out, home=home, cluster=cluster)
            launch.until(lambda: epochs_saved(out).get(ids(out, "a")[0], 0) >= 2, out)
            ((struck, epoch),) = epochs_saved(out).items()
            os.kill(int((home / "pid-a").read_text()), signal.SIGKILL)
            launch.until(lambda: epochs_saved(out).get(struck, 0) > epoch or epochs_saved(out).keys() - {struck}, out)
            kill_tree(node.pid)
        before = epochs_saved(out)
        with node_away(cluster, hidden):
            launch.until(lambda: epochs_saved(out) != before and max(epochs_saved(out).values(), default=0) >= 2, out)
            os.kill(launch.pid, signal.SIGKILL)
            launch.wait()
            begun = epochs_saved(out)
            for file in slow:
                file.unlink()
            printed = Watched("launch", "away.yaml", "--out", out, home=home, cluster=cluster).ends()
            assert "does not see the sweep folder or the store: its trials send records and checkpoints here" in printed
            Watched("launch", "shared.yaml", "--out", shared, home=home, cluster=cluster).ends()
        assert not list(hidden.seen.iterdir())
    resumed = read_results(out / "tables").trials.set_index("trial_id")["resumed_from_epoch"]
    assert resumed[struck] >= epoch
    assert begun
    assert all(resumed[trial_id] >= epoch for trial_id, epoch in begun.items())
    assert_equal_numbers(out, unbroken)
    assert_nothing_half_written(out)
    # What the node pre-trained is in its own store; what trials cost is in the launch's, for later plans.
    trials = read_results(shared / "tables").trials
    assert trials["status"].tolist() == ["ok", "ok"]
    assert sorted("pretrain" in reused for reused in trials["reused"]) == [False, True]
    assert not (shared / "store/pretrain").exists()
    assert list(user_cache_path("orca-sweep").glob("store/pretrain/*.safetensors"))
    assert len(list((shared / "store/rows").iterdir())) == 2


def test_sigterm_ends_like_ctrl_c_and_damaged_files_are_never_taken_for_whole(home, cluster, unbroken):
    """All processes get the signal, as from Slurm; then files are broken as a machine that loses its power may do."""
    out = home / "out"
    (home / "slow-b").touch()
    launch = Watched("launch", "space.yaml", "--out", out, home=home)
    launch.until(lambda: records(out) and any(epochs_saved(out).get(i, 0) >= 2 for i in ids(out, "b")), out)
    os.killpg(launch.pid, signal.SIGTERM)
    printed = launch.ends(1)
    assert "orca-sweep resume" in printed
    assert not sweep_status(out).is_running
    rows, saved = records(out), epochs_saved(out)
    assert {row["status"] for row in rows.values()} == {"ok"}, "to be stopped is no outcome of a trial"
    assert saved and not saved.keys() & rows.keys()

    done, begun = next(iter(rows)), next(iter(saved))
    cut_short(out / "trials" / done / "row.json")
    cut_short(out / "sweep.json")
    (out / "planned.jsonl").write_bytes(b'{"trial_id":"00\xff')
    for name in ("trials", "epochs"):
        (out / "tables" / f"{name}.parquet").write_bytes(b"PAR1")
    said = Watched("resume", out, home=home).ends(2)
    assert f"{out}/sweep.json: damaged: not what was written (the checksum is wrong)" in said
    assert f"Launch the sweep's space again with --out {out}" in said
    (home / "slow-b").unlink()
    printed = Watched("launch", "space.yaml", "--out", out, home=home, cluster=cluster).ends()
    assert f"{done}/row.json: damaged: not what was written (the checksum is wrong). The trial runs again." in printed
    assert f"{4 - len(rows) + 1} trial{'s' * (len(rows) != 4)} to run, {len(rows) - 1} done before" in printed
    again = read_results(out / "tables").trials.set_index("trial_id")["resumed_from_epoch"]
    assert again[done] == 0
    assert again[begun] == saved[begun]
    assert_equal_numbers(out, unbroken)
    assert_nothing_half_written(out)
    assert sweep_status(out).statuses == {"ok": 4}


def records(out):
    """Trial to the row of its record, of those that have ended."""
    found = {path.parent.name: read_record(out, path.parent.name) for path in out.glob("trials/*/row.json")}
    return {trial_id: record["row"] for trial_id, record in found.items() if record}


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Storage ------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of a few megabytes in a mount namespace of its own."""

    def __init__(self, at, size):
        self.at = at
        mount = 'mount -t tmpfs -o "size=$1" none "$0" && echo mounted && exec sleep 1000'
        self.holder = subprocess.Popen(["unshare", "-rm", "sh", "-c", mount, str(at), size], stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"mounted\n"
        self.seen = Path(f"/proc/{self.holder.pid}/root{at}")
        """The disk as it is seen from outside."""

    def hide(self, folder):
        """Hides another folder in the namespace."""
        subprocess.run([*self._enter(), "mount", "-t", "tmpfs", "none", str(folder)], check=True)

    def _enter(self):
        return ["nsenter", "-t", str(self.holder.pid), "-U", "-m", "--preserve-credentials"]

    def resize(self, size):
        inside = self._enter()
        subprocess.run([*inside, "mount", "-o", f"remount,size={size}", str(self.at)], check=True)

    def used(self):
        """Kilobytes."""
        found = os.statvfs(self.seen)
        return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024

    def fill(self):
        with contextlib.suppress(OSError), (self.seen / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))


@contextlib.contextmanager
def small_disk(at, size):
    disk = SmallDisk(at, size)
    yield disk
    disk.holder.kill()
    disk.holder.wait()


@pytest.fixture
def disk(home):
    (home / "disk").mkdir()
    with small_disk(home / "disk", "60m") as disk:
        yield disk


@needs_namespaces
def test_a_full_storage_is_told_of_and_costs_an_epoch_at_most(home, disk, unbroken):
    """A trial ends well; then the disk gets too small for a checkpoint, but not for a record: all the others would fail."""
    out, seen = disk.at / "out", disk.seen / "out"
    (home / "slow-b").touch()
    launch = Watched("launch", home / "space.yaml", "--out", out, home=home, namespaces=disk.holder.pid)
    launch.until(lambda: epochs_saved(seen).get(ids(seen, "b")[0], 0) >= 2, seen)
    begun = ids(seen, "b")[0]
    disk.resize(f"{disk.used() + 1000}k")
    printed = launch.ends(1)

    assert {trial_id: row["status"] for trial_id, row in records(seen).items()} == {ids(seen, "a")[0]: "ok"}
    last = printed.splitlines()[-1]
    assert "checkpoint.safetensors: cannot be written: the storage is full (No space left on device). Make room" in last
    assert "launch again. Trials that have ended are kept; the others go on from their last saved epoch." in last
    assert not list(seen.rglob("*.tmp"))
    found = sweep_status(seen)
    assert (found.is_running, found.statuses) == (False, {"ok": 1, "unfinished": 3})

    saved = epochs_saved(seen)
    disk.resize("60m")
    (home / "slow-b").unlink()
    Watched("launch", home / "space.yaml", "--out", out, home=home, namespaces=disk.holder.pid).ends()
    assert read_record(seen, begun)["row"]["resumed_from_epoch"] == saved[begun] >= 2
    assert_equal_numbers(seen, unbroken)
    assert_nothing_half_written(seen)


def test_a_refused_write_leaves_what_was_there(tmp_path):
    """Of every kind of file; the system refuses files of more than a kilobyte."""
    tensors = {"w": np.zeros(1000)}
    table = pa.table({"trial_id": [os.urandom(2000).hex()]})
    writes = {
        "a.json": lambda path: results.write_json(path, {"a": "x" * 5000}),
        "a.safetensors": lambda path: write_tensors(str(path), tensors, {}),
        "a.parquet": lambda path: results.write_table(path, table, {}),
    }
    for name in writes:
        (tmp_path / name).write_text("whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        for name, write in writes.items():
            with pytest.raises(StorageError, match=f"{name}: cannot be written: no file may become so large here"):
                write(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(writes, "whole")
    with pytest.raises(StorageError, match="cannot be written: File exists. See that it can be, then launch again"):
        results.write_json(tmp_path / "a.json" / "b.json", {})


@pytest.mark.parametrize("n_bytes", [0, 5000])
def test_a_disk_without_room_for_a_checkpoint_is_no_outcome_of_a_trial(n_bytes, run, tmp_path):
    """The system refuses what is larger than a record, or everything."""
    settings = {"task": "tiny", "finetune__epochs": 2, "proxy": "none"}
    unbroken, _ = run(folder="unbroken", **settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        with pytest.raises(
            StorageError, match="checkpoint.safetensors: cannot be written: no file may become so large"
        ):
            run(**settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    row, _ = run(**settings)
    assert row["state_sha256"] == unbroken["state_sha256"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "/data/x: cannot be written: the storage is full",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "a file of a trial: cannot be written: the storage quota is used up",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/data"), "/data: cannot be written: Read-only file system"),
        (RuntimeError("wrapped"), "the storage is full"),
        (OSError(errno.EACCES, "Permission denied", "/data"), None),
        (OSError("no number"), None),
    ],
)
def test_a_full_disk_is_known_whoever_meets_it(error, words):
    if isinstance(error, RuntimeError):
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    found = find_full_disk(error)
    assert words in str(found) if words else found is None


def test_a_trial_whose_record_cannot_be_written_keeps_its_checkpoint(run, tmp_path):
    settings = {"task": "tiny", "finetune__epochs": 2, "proxy": "none"}
    unbroken, _ = run(folder="unbroken", **settings)
    in_the_way = tmp_path / "sweep" / "trials" / unbroken["trial_id"] / "row.json"
    in_the_way.mkdir(parents=True)
    with pytest.raises(StorageError, match="row.json: cannot be written: Is a directory"):
        run(**settings)
    in_the_way.rmdir()
    row, _ = run(**settings)
    assert row["resumed_from_epoch"] == 2
    assert row["state_sha256"] == unbroken["state_sha256"]
    assert_nothing_half_written(tmp_path / "sweep")


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "one flipped bit"])
def test_a_damaged_checkpoint_is_no_checkpoint(damage, run, tmp_path):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    unbroken, _ = run(folder="unbroken", task="tiny", finetune__epochs=3, proxy="none")
    with pytest.raises(KeyboardInterrupt):
        run(report=stop, task="tiny", finetune__epochs=3, proxy="none")
    (path,) = (tmp_path / "sweep").rglob("checkpoint.safetensors")
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    kinds = {"empty": b"", "truncated": blob[: len(blob) // 2], "garbage": os.urandom(5000), "one flipped bit": blob}
    path.write_bytes(kinds[damage])
    row, _ = run(task="tiny", finetune__epochs=3, proxy="none")
    assert row["resumed_from_epoch"] == 0
    assert row["state_sha256"] == unbroken["state_sha256"]
    assert_nothing_half_written(tmp_path / "sweep")


# Outcomes -----------------------------------------------------------------------------------------


def test_every_way_to_end_is_a_row_and_a_second_try_can_succeed(home, cluster):
    (home / "space.yaml").write_text(
        """
imports: [parts.py]
name: outcomes
base: {finetune.epochs: 5}
factors: {task: [raising, memory, endless, nan, flaky, a]}
seeds: 1
limits: {trial_s: 5}
outcomes: {failed: {retry: 2}}
"""
        + ONE_A_TIME
    )
    out = home / "out"
    launch = Watched("launch", "space.yaml", "--out", out, home=home, cluster=cluster)
    launch.until(lambda: launch.poll() is not None, out)
    launch.ends(1)
    tables = read_results(out / "tables")
    trials = tables.trials.set_index("task")
    assert trials["status"].to_dict() == {
        "raising": "failed", "memory": "oom", "endless": "timeout", "nan": "diverged", "flaky": "ok", "a": "ok",
    }  # fmt: skip
    assert trials["error"]["raising"] == "RuntimeError: this sample cannot be read"
    assert trials["error"]["memory"] == "MemoryError: this sample is too large"
    assert trials["error"]["endless"].startswith("over the limit of 5 s in finetune epoch ")
    assert trials["error"]["nan"] == "fine-tuning diverged: training loss nan in epoch 3"
    n_epochs = tables.epochs.groupby("trial_id").size()
    assert n_epochs[trials["trial_id"]["nan"]] == 2
    assert n_epochs[trials["trial_id"]["flaky"]] == 5
    tries = {name: len((home / f"attempts-{name}").read_text().split()) for name in ("raising", "flaky")}
    assert tries == {"raising": 3, "flaky": 2}
    said = Watched("status", out, home=home).ends()
    assert "outcomes: 6 trials: 1 diverged, 1 failed, 2 ok, 1 oom, 1 timeout; no launch is running" in said
    assert (
        f"{trials['trial_id']['raising']} failed, task raising, seed 0: RuntimeError: this sample cannot be read"
        in said
    )


# Places and stores --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(1, 4), pytest.param((1, 2, 8), marks=pytest.mark.long)])
def test_any_number_of_places_gives_the_same_numbers_and_computes_everything_once(places, home, cluster):
    outs = []
    for n_places in places:
        cpu = {1: 1.9, 2: 1, 4: 0.5, 8: 0.25}[n_places]
        (home / "space.yaml").write_text(
            f"{SHARED}name: places\nfactors: {{embedder.epochs: [1, 2]}}\nseeds: 2\nresources: {{cpu: {cpu}}}\n"
        )
        outs.append(home / f"out-{n_places}")
        Watched("launch", "space.yaml", "--out", outs[-1], home=home, cluster=cluster).ends()
        assert n_made(outs[-1] / "store") == {"pretrain": 1, "proxy-features": 1, "objective": 2}
        trials = read_results(outs[-1] / "tables").trials
        assert n_without(trials, "pretrain") == n_without(trials, "proxy-features") == 1
        # A seed's longer embedder run, of two epochs, leaves the shorter one behind.
        assert n_without(trials, "embedder") == 2
        assert len((home / "constants").read_text().split()) == 2
        (home / "constants").unlink()
    for out in outs[1:]:
        assert_equal_numbers(out, outs[0])


def n_made(store):
    stages = "pretrain", "proxy-features", "objective"
    return {stage: len(list((store / stage).glob("*.safetensors"))) for stage in stages}


def n_without(trials, stage):
    """How many trials did not take a stage from the store."""
    return sum(stage not in reused.split(",") for reused in trials["reused"])


def test_two_sweeps_with_one_store_compute_nothing_twice_and_do_not_block(home, cluster):
    """Both need the same constants: who comes second gives its place up until the first has made them."""
    outs = {"first": home / "first", "second": home / "second"}

    def launch(name, lr):
        (home / f"{name}.yaml").write_text(f"{SHARED}name: {name}\nfactors: {{finetune.lr: [{lr}]}}\nseeds: 1\n")
        where = ["--out", outs[name], "--store", home / "store"]
        return Watched("launch", f"{name}.yaml", *where, home=home, cluster=cluster)

    (home / "hold-constants").touch()
    first = launch("first", 1e-3)
    first.until(lambda: (home / "constants").exists(), outs["first"])
    second = launch("second", 1e-4)
    second.until(
        lambda: " waits: another sweep is making an artifact that it needs" in second.log.read_text(), outs["second"]
    )
    (home / "hold-constants").unlink()
    assert "1 ok" in first.ends()
    assert "1 ok" in second.ends()
    for name, reused in (("first", ""), ("second", "pretrain,proxy-features,embedder")):
        (row,) = read_results(outs[name] / "tables").trials.to_dict("records")
        assert row["reused"] == reused
        names = {path.parent.name for path in outs[name].rglob("result.json")}
        assert {row["trial_id"]} == {name.split("_")[0] for name in names}, "another sweep's files are in the folder"
    assert n_made(home / "store") == {"pretrain": 1, "proxy-features": 1, "objective": 1}
    assert len((home / "constants").read_text().split()) == 1
