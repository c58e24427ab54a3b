"""Ray workers that are forked from a process which has already imported torch and transformers.

A Ray worker is a new interpreter, which spends nearly all its time on these imports in the sweeps of the tests. Ray accepts
any command as ``py_executable`` of a runtime environment; here it is this file, which asks a server for a fork and then
represents that fork: each ends when the other does.

The fork server of the commands imports ``worker_server`` after torch and before Ray, which reads the environment of its node at
import; the server of workers is a fork of that moment.
"""

import json
import os
import socket
import sys

SOCKET_VARIABLE = "ORCA_SWEEP_TESTS_WORKERS"
"""Names the socket at which workers are asked for."""


def ask(path, argv):
    """Has the server run the rest of the command line as a worker, and exits with the worker's code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = json.dumps({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()}).encode()
        socket.send_fds(server, [request[:1]], [0, 1, 2])
        server.sendall(request[1:] + b"\n")
        sys.exit(int(server.recv(16) or 1))


def serve_beside_this_process(path):
    """Starts the server as a fork of this process, with which it ends."""
    parent = os.getpid()
    if os.fork() == 0:
        try:
            end_with_parent(parent)
            serve(path)
        finally:
            os._exit(1)


def end_with_parent(parent):
    """Has the system kill this process when its parent ends."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def serve(path):
    """Forks a worker for each request until this process is killed."""
    import select
    import signal

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
    server = os.getpid()
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    try:
        end_with_parent(server)
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
    enter_namespaces(request["pid"])
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


def enter_namespaces(pid):
    """Gives this process another one's view of the file system; os.setns comes with Python 3.12."""
    import ctypes

    kinds = [
        kind
        for kind in ("user", "mnt")
        if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    ]
    for kind in kinds:
        with open(f"/proc/{pid}/ns/{kind}") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"cannot enter the {kind} namespace of process {pid}")


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
