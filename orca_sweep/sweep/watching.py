"""Notices that Ray is gone, when Tune would wait for it for ever.

Written against Ray 2.60. When the only raylet dies, Tune keeps waiting; when the head dies, Ray ends the driver after a
minute, without a message or tables. So a thread watches the processes of Ray and interrupts the thread of the launch if one
is gone.
"""

import contextlib
import ctypes
import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

LOOK_S = 0.5
"""Time between two checks of the local Ray's processes."""
ASK_S = 3.0
"""Time between two requests to a cluster."""
PATIENCE_S = 20.0
"""How long a cluster may stay silent: a head that restarts, or a network that fails briefly, is back by then."""
AGAIN_S = 5.0
"""After this time the thread is interrupted again, or given up: it may wait inside Ray, where no signal reaches it."""
DISCONNECT_S = 15.0
"""How long a process that goes on waits until it is disconnected from a Ray that is gone."""
NODE_PARTS = {"raylet": "its node", "gcs_server": "its head"}
"""The processes that Ray cannot run without, and what users call them."""


class Watch:
    """Watches Ray until it is told to end."""

    def __init__(self) -> None:
        self.lost: str | None = None
        """What is gone, as a text for users; None while all is well."""
        self.rescue: Callable[[str], None] | None = None
        """Ends the process from another thread, if the launch waits inside Ray."""
        self._thread = threading.current_thread()
        self._print = ray._private.worker.print_to_stdstream
        self._ended = threading.Event()

    def report_loss(self, loss: str) -> None:
        """Records that Ray is gone, and interrupts the thread that made the watch until it notices."""
        if self.lost is None and not self._ended.is_set():
            self.lost = loss
            # Otherwise Ray's thread that listens for errors prints a page of Ray's log.
            ray._private.worker.print_to_stdstream = _print_nothing
            while not self._ended.is_set():
                _interrupt_thread(self._thread)
                if not self._ended.wait(AGAIN_S) and self.rescue is not None:
                    self.rescue(loss)

    def end(self) -> None:
        """Ends the watch: nothing is interrupted any more."""
        self._ended.set()
        ray._private.worker.print_to_stdstream = self._print

    def start_checking(self, find_loss: Callable[[], str | None], every_s: float, patience_s: float = 0.0) -> None:
        """Checks in a new thread, and reports a loss that has lasted for ``patience_s``."""
        thread = threading.Thread(target=self._check, args=(find_loss, every_s, patience_s), daemon=True)
        thread.start()

    def _check(self, find_loss: Callable[[], str | None], every_s: float, patience_s: float) -> None:
        since: float | None = None
        while not self._ended.wait(every_s):
            loss = find_loss()
            if loss is None:
                since = None
                continue
            since = time.monotonic() if since is None else since
            if time.monotonic() - since >= patience_s:
                self.report_loss(loss)


def _interrupt_thread(thread: threading.Thread) -> None:
    """Raises KeyboardInterrupt in a thread that is inside ``interrupt_on_signals``."""
    if thread is threading.main_thread():
        # SIGTERM raises KeyboardInterrupt here; SIGINT would start Tune's graceful end, which asks the lost processes.
        # A real signal, to that thread, wakes it from whatever it waits for.
        signal.pthread_kill(thread.ident or 0, signal.SIGTERM)
    else:  # only the main thread handles signals; this one gets the exception with its next line of Python
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )


@contextmanager
def watch_ray(is_local: bool) -> Iterator[Watch]:
    """Watches the Ray that this process has joined, until the block ends."""
    watch = Watch()
    if is_local:
        watch.start_checking(_find_dead_process, LOOK_S)
    else:
        address, node_id = ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_node_id()
        watch.start_checking(lambda: _find_silent_head(address), ASK_S, PATIENCE_S)
        watch.start_checking(lambda: _find_lost_node(node_id), ASK_S)
    try:
        yield watch
    finally:
        watch.end()


def _find_dead_process() -> str | None:
    """Returns which process of the local Ray has ended."""
    node = _get_local_node()
    for part, process in node.dead_processes() if node else ():
        if part in NODE_PARTS:
            return f"the local Ray is gone: {NODE_PARTS[part]} ({part}) ended with code {process.returncode}"
    return None


def is_ray_here() -> bool:
    """Says whether this process started its Ray, and no other node has joined it."""
    node = _get_local_node()
    return bool(node and node.all_processes) and sum(n["Alive"] for n in ray.nodes()) == 1


def _print_nothing(data: object, ignore_prefix: bool) -> None:
    pass


def _get_local_node() -> Any:
    return ray._private.worker._global_node


def _find_silent_head(address: str) -> str | None:
    """Returns why the cluster's head does not answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return f"the cluster is gone: its head at {address} did not answer for {PATIENCE_S:g} s ({error})"
    return None


def _find_lost_node(node_id: str) -> str | None:
    """Returns a text if the cluster has given up the node of this process."""
    try:
        nodes = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
    except Exception:
        return None
    return None if nodes.get(node_id, False) else "the cluster is gone: it has given up the node of this launch"


def leave_ray(watch: Watch) -> None:
    """Leaves Ray; of a local Ray that is gone, kills the remaining processes without asking the lost ones."""
    if watch.lost is None:
        ray.shutdown()
        return
    node = _get_local_node()
    if watch.rescue is None:  # this process goes on
        _disconnect()
    with contextlib.suppress(Exception):
        if node is not None:
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _disconnect() -> None:
    """Disconnects from a Ray that is gone, if that is possible in a few seconds.

    A process that stays connected is ended by Ray a minute after the head is gone.
    """
    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(DISCONNECT_S)


def forget_placements() -> None:
    """Keeps Tune's leftovers from asking a Ray that is gone to release their resources, whenever Python deletes them."""
    from ray.air.execution.resources.placement_group import PlacementGroupResourceManager

    for manager in gc.get_objects():
        if type(manager) is PlacementGroupResourceManager:
            manager.clear = _do_nothing  # type: ignore[method-assign]


def _do_nothing() -> None:
    pass
