"""Ray itself ends under a sweep, or does not start: ``launch`` ends in its own words, with tables of what has ended."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import ray

from orca_sweep.errors import RayLostError
from orca_sweep.results import read_results, sweep_status
from orca_sweep.sweep.running import interrupt_on_signals, join_ray
from orca_sweep.sweep.watching import Watch
from tests.commands import Command, process_tree, ray_head, wait_for

TASKS = """
import time
from pathlib import Path

import numpy as np

from orca_sweep.data import Rows, Samples, Splits
from orca_sweep.tasks import TASKS, Task

HERE = Path(__file__).parent
Y = np.arange(60) % 3
X = (np.random.default_rng(0).normal(size=(60, 1, 8, 8)) + Y[:, None, None, None]).astype("float32")


def slow(x):
    (HERE / "is-slow").touch()
    time.sleep(0.2)
    return x


def task(name, read):
    def splits(root, seed):
        parts = (slice(24), slice(24, 42), slice(42, None))
        return Splits(*(Samples(Rows.from_array(X[part], name, read if part.start is None else None), Y[part]) for part in parts))

    recipe = {"body.name": "swin-micro", "body.pretrain_fraction": 0, "finetune.batch_size": 8, "proxy": "none"}
    TASKS.add(Task(name=name, dims=2, sample_shape=(1, 8, 8), kind="classification", output_shape=(3,), recipe=recipe,
                   loss="cross-entropy", metric="error", load=splits, meaning="", source="", licence=""))


task("quick", None)
task("slow", slow)
"""
SPACE = """
imports: [parts.py]
name: demo
base: {finetune.epochs: 200}
factors: {task: [quick, slow]}
when: [{if: {task: quick}, set: {finetune.epochs: 1}}]
seeds: 1
resources: {cpu: 0.9}
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "parts.py").write_text(TASKS)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def launched(home, *args, **options):
    """A launch of which one trial has ended and one runs."""
    launch = Command("launch", "space.yaml", "--out", "out", *args, cwd=home, output=home / "log.txt", **options)

    def is_on_the_way():
        assert launch.poll() is None, launch.output.read_text()
        return list(home.glob("out/trials/*/row.json")) and list(home.glob("out/trials/*/checkpoint.safetensors"))

    wait_for(is_on_the_way, 120)
    return launch


def part_of(launch, name):
    """The process of the local Ray with this name."""
    (pid,) = (pid for pid in process_tree(launch.pid) if name in Path(f"/proc/{pid}/comm").read_text())
    return pid


def assert_ended_in_words(launch, home, words):
    done = launch.wait(timeout=60)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout and "StackTrace" not in done.stdout, done.stdout
    assert words in done.stdout, done.stdout
    assert "launch again, and the rest continues from its last saved epoch" in done.stdout.replace("\n", " "), (
        done.stdout
    )
    assert "1 ok, 1 unfinished" in done.stdout, done.stdout
    assert read_results(home / "out" / "tables").trials["status"].value_counts().to_dict() == {"ok": 1, "unfinished": 1}
    found = sweep_status(home / "out")
    assert (found.is_running, found.statuses) == (False, {"ok": 1, "unfinished": 1})
    return done.stdout


@pytest.mark.parametrize("part", ["raylet", pytest.param("gcs_server", marks=pytest.mark.long)])
def test_our_own_ray_that_is_killed_ends_the_launch(part, home):
    launch = launched(home)
    os.kill(part_of(launch, part), signal.SIGKILL)
    assert_ended_in_words(launch, home, f"({part}) ended with code -9")


@pytest.mark.long
def test_a_head_that_is_killed_ends_the_launch_that_joined_it(home):
    with ray_head(1) as head:
        launch = launched(home, "--address", head.address)
        for pid in process_tree_of(head.folder, "gcs_server"):
            os.kill(pid, signal.SIGKILL)
        printed = assert_ended_in_words(launch, home, "did not answer for 20 s")
    assert "the cluster is gone" in printed


def process_tree_of(folder, name):
    """The processes of a name whose command line names a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if name in Path(words[0]).name and any(str(folder) in word for word in words):
                yield int(path.parent.name)


@pytest.mark.long
def test_a_terminal_that_is_closed_ends_the_launch_like_sigterm(home):
    launch = launched(home)
    os.killpg(launch.pid, signal.SIGHUP)
    done = launch.wait(timeout=60)
    assert (done.returncode, "Traceback" in done.stdout) == (1, False), done.stdout
    assert "1 ok, 1 unfinished" in done.stdout, done.stdout
    assert "1 unfinished" in done.stdout.split("table   ")[0], "the summary and the last line have the same words"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_jobs_and_terminals_interrupt_a_sweep(number):
    def be_told():
        with interrupt_on_signals():
            os.kill(os.getpid(), number)
            time.sleep(10)

    at_start = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup, which ignores hangups
    try:
        with pytest.raises(KeyboardInterrupt):
            be_told()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, at_start)


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_ray_that_does_not_start_is_tried_again_and_then_told_of(monkeypatch):
    tries = []

    def slow(**options):
        tries.append(options["address"])
        raise Exception("The current node timed out during startup.\nmore lines of Ray's")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(RayLostError) as told, join_ray("local"):
        raise AssertionError("there is no Ray")
    assert tries == ["local", "local"]
    assert str(told.value).startswith(
        "the local Ray did not start, twice (Exception: The current node timed out during"
    )
    assert "then launch again." in str(told.value)


def test_a_ray_that_cannot_start_is_told_of(monkeypatch, tmp_path):
    """Its sockets' names would be longer than the system takes."""
    monkeypatch.setattr("orca_sweep.sweep.running.make_private_folder", lambda: tmp_path / ("long" * 30))
    with (
        pytest.raises(
            RayLostError, match=r"the local Ray did not start, twice .*AF_UNIX path length.*/session_latest/logs"
        ),
        join_ray("local"),
    ):
        raise AssertionError("there is no Ray")


def test_a_watch_is_patient_and_interrupts_once_what_is_gone():
    answers = iter([None, "away", None, *["gone"] * 10_000])
    watch = Watch()

    def wait_for_its_end():
        with interrupt_on_signals():
            watch.start_checking(lambda: next(answers), 0.01, 0.05)
            try:
                time.sleep(600)
            finally:
                watch.end()

    with pytest.raises(KeyboardInterrupt):
        wait_for_its_end()
    assert watch.lost == "gone"


def test_a_watch_that_has_ended_interrupts_nobody():
    watch = Watch()
    watch.start_checking(lambda: "gone", 0.01, 0.05)
    watch.end()
    time.sleep(0.2)
    assert watch.lost is None
