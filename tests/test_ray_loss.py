"""Ray itself ends under a sweep, or does not start: ``launch`` ends in its own words, with tables of what has ended."""

import os
import signal
import time
from pathlib import Path

import pytest

from orca_sweep.results import read_results, sweep_status
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
        return Splits(*(Samples(Rows.of(X[part], name, read if part.start is None else None), Y[part]) for part in parts))

    recipe = {"body.name": "swin-micro", "body.pretrain_fraction": 0, "finetune.batch_size": 8, "proxy": "none"}
    TASKS.add(Task(name, 2, (1, 8, 8), "classification", (3,), "cross-entropy", "error", splits, "", "", "", recipe=recipe))


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
    """The process of our own Ray that is called so."""
    (pid,) = (pid for pid in process_tree(launch.pid) if name in Path(f"/proc/{pid}/comm").read_text())
    return pid


def assert_ended_in_words(launch, home, words):
    done = launch.wait(timeout=60)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout and "StackTrace" not in done.stdout, done.stdout
    assert words in done.stdout, done.stdout
    assert "launch again, and the rest goes on from its last saved epoch" in done.stdout.replace("\n", " "), done.stdout
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
