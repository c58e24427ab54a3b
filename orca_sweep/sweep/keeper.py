"""Trials on nodes that do not see the sweep folder: their files go through Ray to an actor beside the driver, the keeper.

Such a trial works in a folder of its own node. It fetches its checkpoint from the keeper when it starts, and sends every
checkpoint, and at its end its record and traceback, back. So the sweep folder needs to exist only where the driver runs, and
a trial whose node dies goes on elsewhere. A node sees a folder if it finds the file there that this launch has written.

Measured on Ray 2.60, on one machine: a checkpoint of 1 MB takes 14 ms, one of 500 MB 2.6 s. One keeper serves all trials
in turn.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orca_sweep.errors import StorageError
from orca_sweep.results import FINAL_STATUSES, error_path, read_row, record_path
from orca_sweep.results.signs import write_sign
from orca_sweep.store import Store, explain_write_errors
from orca_sweep.sweep.private import make_private_folder
from orca_sweep.training.run import CHECKPOINT, drop_checkpoint

MARK = ".launch-"
"""The start of the name of the file by which a node knows a folder; several launches may share a store."""
PIECE = 16 * 2**20
"""Bytes per message: few messages for a large checkpoint, and little of Ray's shared memory."""
RECORD, ERROR = record_path(Path(), "").name, error_path(Path(), "").name
FILES = (CHECKPOINT, ERROR, RECORD)
"""What goes home, in this order: a record ends its trial."""


FOLDER = re.compile("[0-9a-f]{32}")
"""The names of the folders in which trials work away from home."""


# Marks --------------------------------------------------------------------------------------------


@contextmanager
def mark_folders(folders: Sequence[Path]) -> Iterator[str]:
    """Marks folders during a block, so that nodes can tell whether they see them; yields the end of the marks' names.

    Raises:
        StorageError: if a mark cannot be written.
    """
    mark = uuid.uuid4().hex
    paths = [folder / f"{MARK}{mark}" for folder in dict.fromkeys(folders)]
    try:
        for path in paths:
            with explain_write_errors(path):
                path.touch()
        yield mark
    finally:
        for path in paths:
            with suppress(OSError):
                path.unlink()


def is_seen(folder: Path, mark: str) -> bool:
    """Says whether this node sees a folder that the launch has marked, and may write there."""
    return os.path.exists(folder / f"{MARK}{mark}") and os.access(folder, os.W_OK)


# Beside the driver --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a file on its way home."""

    upload: str
    """Names the upload, so that a second one of the same file cannot mix with it."""
    start: int
    content: bytes
    size: int
    """Of the whole file."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why the system beside the driver refuses to write."""

    why: str
    errno: int


class Keeper:
    """Reads and writes the files of trials in the sweep folders."""

    def __init__(self, outs: Sequence[str], store: str) -> None:
        """Takes the sweep folder of each lane, in order, and the store."""
        self.outs, self.store = [Path(out) for out in outs], Store(store)

    def read_part(self, lane: int, trial_id: str, name: str, start: int) -> tuple[int, bytes] | None:
        """Returns the size of a trial's file, and up to ``PIECE`` bytes from ``start``; None if there is no such file.

        A checkpoint may be one that an earlier launch left in the folder of another lane.
        """
        own, *siblings = (out / "trials" / trial_id / name for out in (self.outs[lane], *self.outs))
        paths = [own, *siblings] if name == CHECKPOINT else [own]
        for path in paths:
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    return os.fstat(file.fileno()).st_size, file.read(PIECE)
            except OSError:
                continue
        return None

    def write_part(self, lane: int, trial_id: str, name: str, part: Part) -> Refusal | None:
        """Writes a part; with the last one, the file appears as a whole. Returns why the system refuses, if it does.

        Ray may call this twice for a part, if the keeper had to start again.
        """
        home = self.outs[lane] / "trials" / trial_id
        path, temporary = home / name, home / f".{name}.{part.upload}.tmp"
        if part.start and not temporary.exists():  # this was the last part, and the file is in its place
            return None
        try:
            with explain_write_errors(path):
                home.mkdir(parents=True, exist_ok=True)
                with temporary.open("r+b" if temporary.exists() else "xb") as file:
                    file.seek(part.start)
                    file.write(part.content)
                    if part.start + len(part.content) == part.size:
                        file.flush()
                        os.fsync(file.fileno())
                        os.replace(temporary, path)
        except StorageError as error:
            with suppress(OSError):
                temporary.unlink()
            return Refusal(why=str(error), errno=getattr(error.__cause__, "errno", None) or 0)
        return None

    def put_row(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Keeps the costs of a trial in the store, for later plans."""
        with suppress(OSError, StorageError):  # only later plans miss it
            self.store.put_row(trial_id, row)

    def write_sign(self, lane: int, trial_id: str, content: bytes) -> None:
        """Writes a trial's sign of life."""
        with suppress(OSError, StorageError):
            write_sign(self.outs[lane], trial_id, content)

    def finish_trial(self, lane: int, trial_id: str) -> None:
        """Deletes the checkpoint of a trial whose record says that it never runs again."""
        row = read_row(self.outs[lane], trial_id)
        if row is not None and row["status"] in FINAL_STATUSES:
            drop_checkpoint(self.outs[lane] / "trials" / trial_id)


@contextmanager
def keep_home(outs: Sequence[Path], store: str) -> Iterator["Home"]:
    """Starts a keeper on the node of this process, where the sweep folders are, for a block.

    Raises:
        StorageError: if a folder cannot be written.
    """
    folders = [*outs, *([] if "://" in store else [Path(store)])]
    with mark_folders(folders) as mark:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        keeper = ray.remote(Keeper).options(**options).remote([str(out) for out in outs], store)
        yield Home(keeper=keeper, mark=mark)


# On the node of a trial ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Away:
    """A trial on a node that does not see its sweep folder."""

    keeper: Any
    lane: int
    trial_id: str
    folder: Path
    """Stands for the sweep folder on this node."""

    @property
    def home(self) -> Path:
        """The trial's folder on this node."""
        return self.folder / "trials" / self.trial_id

    def fetch(self) -> None:
        """Fetches what the sweep folder has of the trial.

        Raises:
            StorageError: if this node cannot write it.
        """
        for name in (RECORD, CHECKPOINT):
            self._fetch_file(name)

    def _fetch_file(self, name: str) -> None:
        part = self._read_part(name, 0)
        if part is None:
            return
        path = self.home / name
        with explain_write_errors(path):
            self.home.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while part is not None and part[1]:
                    file.write(part[1])
                    part = self._read_part(name, file.tell()) if file.tell() < part[0] else None

    def _read_part(self, name: str, start: int) -> tuple[int, bytes] | None:
        part: tuple[int, bytes] | None = ray.get(self.keeper.read_part.remote(self.lane, self.trial_id, name, start))
        return part

    def send_checkpoint(self) -> None:
        """Sends the checkpoint home.

        Raises:
            StorageError: if it cannot be written there.
        """
        self._send_file(CHECKPOINT)

    def send_sign(self, content: bytes) -> None:
        """Sends a sign of life home."""
        ray.get(self.keeper.write_sign.remote(self.lane, self.trial_id, content))

    def send_record(self) -> None:
        """Sends the record, the traceback, and the checkpoint of a trial that may go on, home.

        Raises:
            StorageError: if they cannot be written there.
        """
        for name in FILES:
            self._send_file(name)
        ray.get(self.keeper.finish_trial.remote(self.lane, self.trial_id))

    def _send_file(self, name: str) -> None:
        path, upload = self.home / name, uuid.uuid4().hex
        if not path.exists():
            return
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in range(0, max(1, size), PIECE):
                part = Part(upload=upload, start=start, content=file.read(PIECE), size=size)
                refusal = ray.get(self.keeper.write_part.remote(self.lane, self.trial_id, name, part))
                if refusal is not None:
                    # With its number, by which a full disk is told from the faults of a trial.
                    raise StorageError(refusal.why) from OSError(refusal.errno, refusal.why)


@dataclass(frozen=True, kw_only=True)
class Home:
    """The node of the driver as other nodes know it."""

    keeper: Any
    mark: str

    def is_seen(self, folder: Path) -> bool:
        """Says whether this node sees a folder of the launch, and may write there."""
        return is_seen(folder, self.mark)

    def choose_store(self, store: str) -> str:
        """Returns the launch's store, or this node's own if it does not see that."""
        return store if "://" in store or self.is_seen(Path(store)) else find_node_store()

    def keep_costs(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Keeps the row of a trial in the launch's store, for the forecasts of later plans."""
        ray.get(self.keeper.put_row.remote(trial_id, row))

    @contextmanager
    def go_away(self, lane: int, trial_id: str) -> Iterator[Away]:
        """Makes a folder on this node for a trial, fetches what there is of it, and deletes the folder after the block.

        Raises:
            StorageError: if this node cannot write the folder.
        """
        parent = make_private_folder().parent / "away"
        with explain_write_errors(parent):
            parent.mkdir(exist_ok=True)
            delete_abandoned(parent)
        with _make_folder(parent) as folder:
            away = Away(keeper=self.keeper, lane=lane, trial_id=trial_id, folder=folder)
            away.fetch()
            yield away


@contextmanager
def _make_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder for a block; its lock, which the system frees if the process is killed, says that it is in use."""
    folder = parent / uuid.uuid4().hex
    lock = _get_lock(folder)
    with explain_write_errors(folder):
        lock.acquire()  # before there is a folder, so that nobody finds it without its lock
    try:
        with explain_write_errors(folder):
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


def _get_lock(folder: Path) -> FileLock:
    return FileLock(f"{folder}.lock", timeout=0)


def delete_abandoned(parent: Path) -> None:
    """Deletes the folders of workers that were killed."""
    for folder in parent.iterdir():
        if not FOLDER.fullmatch(folder.name):
            continue
        lock = _get_lock(folder)
        with suppress(Timeout), lock:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                os.unlink(lock.lock_file)


def find_node_store() -> str:
    """Returns the store of a node that does not see the launch's own: in the user's cache folder, for all sweeps there."""
    return str(user_cache_path("orca-sweep", appauthor=False) / "store")
