"""Ray ends under a launch from Python: the launch raises, the process goes on, and can launch again."""

import pytest

from tests.commands import Command

SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path

from orca_sweep import RayLostError, Space, Sweep

PART, TASKS = sys.argv[1:3]
BASE = {"task": "tiny", "proxy": "none"}


def plan(epochs):
    factors = {"finetune.lr": [1e-3, 1e-4]}
    rules = [{"if": {"finetune.lr": 1e-4}, "set": {"finetune.epochs": epochs}}]
    space = {"name": "demo", "imports": [TASKS], "base": {**BASE}, "factors": factors, "when": rules, "seeds": 1}
    return Space.from_dict({**space, "resources": {"cpu": 0.9}}).plan()


def descendants(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
            yield int(child)
            yield from descendants(child)


def kill_ray(event, facts):
    ended.extend([event] * (event == "end"))
    if event == "epoch" and ended and not killed:
        for pid in list(descendants(os.getpid())):
            if PART in Path(f"/proc/{pid}/comm").read_text():
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def launch():
    try:
        plan(5000).launch(dashboard_host="none", progress=kill_ray)
    except RayLostError as error:
        raised.append(str(error))


ended, killed, raised = [], [], []
if sys.argv[3] == "thread":
    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
else:
    launch()
print("raised", raised)
print("status", Sweep.open("results/demo").status().statuses)
print("tables", Path("results/demo/tables/trials.parquet").is_file())
if sys.argv[4] == "wait":
    time.sleep(70)  # Ray ends a process that is still connected a minute after its head is gone
print("again", Space.from_dict({"name": "again", "imports": [TASKS], "base": BASE, "seeds": 1}).plan().launch(
    dashboard_host="none", progress=False).status().statuses)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("raylet", "main", "go"),
        pytest.param(("gcs_server", "main", "wait"), marks=pytest.mark.long),
        pytest.param(("raylet", "thread", "wait"), marks=pytest.mark.long),
        pytest.param(("gcs_server", "thread", "go"), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_a_ray_that_is_lost_raises_and_the_process_goes_on(words, tmp_path, user_tasks):
    (tmp_path / "script.py").write_text(SCRIPT)
    part, thread, wait = words
    done = Command(part, user_tasks, thread, wait, program=tmp_path / "script.py", cwd=tmp_path).wait()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"({part}) ended with code -9. Ended trials are kept; launch again" in done.stdout
    assert "'ok': 1, 'unfinished': 1" in done.stdout
    assert "tables True" in done.stdout
    assert "again {'ok': 1}" in done.stdout
