"""Notices that Ray is gone, while Tune would wait for it for ever.

Written against Ray 2.60. When the only raylet dies, Tune waits on; when the head dies, Ray ends the driver after a minute, and
words and tables with it. So a thread looks after what must be there and interrupts the main thread when it is not.
"""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

LOOK_S = 0.5
"""How often our own Ray's processes are looked at."""
ASK_S = 3.0
"""How often a cluster is asked."""
PATIENCE_S = 20.0
"""How long a cluster may not answer: a head that is started again, or a network that is away, is back by then."""
AGAIN_S = 5.0
"""After so long the main thread is interrupted again, or given up: it may wait inside of Ray, where no signal reaches it."""
NODE_PARTS = {"raylet": "its node", "gcs_server": "its head"}
"""Ray's processes without which nothing runs, and what the user knows them as."""


class Watch:
    """Looks after Ray, for the length of a block."""

    def __init__(self) -> None:
        self.lost: str | None = None
        """What is gone, in words."""
        self.rescue: Callable[[str], None] | None = None
        """Ends the process in the main thread's place, where that waits inside of Ray; called in another thread."""
        self._ended = threading.Event()

    def lose(self, what: str) -> None:
        """Says that Ray is gone, and interrupts the main thread until it has noticed."""
        if self.lost is None and not self._ended.is_set():
            self.lost = what
            # Ray's thread that listens for errors would tell of it with a page of Ray's own log.
            ray._private.worker.print_to_stdstream = _print_nothing
            while not self._ended.is_set():
                # SIGTERM raises KeyboardInterrupt here; SIGINT would begin Tune's gentle end, which asks what is gone.
                # A true signal, and to that thread, wakes it from whatever it waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                if not self._ended.wait(AGAIN_S) and self.rescue is not None:
                    self.rescue(what)

    def end(self) -> None:
        """Ends it: nothing is interrupted any more."""
        self._ended.set()

    def follow(self, is_gone: Callable[[], str | None], every_s: float, patience_s: float = 0.0) -> None:
        """Asks, in a thread of its own, until something has been gone for so long."""
        thread = threading.Thread(target=self._follow, args=(is_gone, every_s, patience_s), daemon=True)
        thread.start()

    def _follow(self, is_gone: Callable[[], str | None], every_s: float, patience_s: float) -> None:
        since: float | None = None
        while not self._ended.wait(every_s):
            what = is_gone()
            if what is None:
                since = None
                continue
            since = time.monotonic() if since is None else since
            if time.monotonic() - since >= patience_s:
                self.lose(what)


@contextmanager
def watched(is_own: bool) -> Iterator[Watch]:
    """Looks after the Ray that this process has joined, until the block ends."""
    watch = Watch()
    if threading.current_thread() is threading.main_thread():
        if is_own:
            watch.follow(_dead_part, LOOK_S)
        else:
            address, node_id = ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_node_id()
            watch.follow(lambda: _silent_head(address), ASK_S, PATIENCE_S)
            watch.follow(lambda: _lost_node(node_id), ASK_S)
    try:
        yield watch
    finally:
        watch.end()


def _dead_part() -> str | None:
    """What of our own Ray has ended."""
    node = _own_node()
    for part, process in node.dead_processes() if node else ():
        if part in NODE_PARTS:
            return f"our own Ray is gone: {NODE_PARTS[part]} ({part}) ended with code {process.returncode}"
    return None


def _print_nothing(data: object, ignore_prefix: bool) -> None:
    pass


def _own_node() -> Any:
    return ray._private.worker._global_node


def _silent_head(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return f"the cluster is gone: its head at {address} did not answer for {PATIENCE_S:g} s ({error})"
    return None


def _lost_node(node_id: str) -> str | None:
    """Whether the cluster has given up the node that this process is on."""
    try:
        nodes = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
    except Exception:
        return None
    return None if nodes.get(node_id, False) else "the cluster is gone: it has given up the node of this launch"


def leave(watch: Watch) -> None:
    """Leaves Ray. What is left of one that is gone is ended, without asking what does not answer any more."""
    if watch.lost is None:
        ray.shutdown()
        return
    node = _own_node()
    with contextlib.suppress(Exception):
        if node is not None:
            node.kill_all_processes(check_alive=False, allow_graceful=False)
