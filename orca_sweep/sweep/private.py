"""A Ray of our own that is nobody else's: its folder, its token and its ports are for this user on this machine.

Written against Ray 2.60, which makes its folders with mode 0777 and its token file with the umask's, and listens on all
interfaces where it can form clusters.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants

NO_CLUSTER = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""With '0' in it Ray does what it always does on a Mac: it listens on the loopback address alone."""
LONGEST = len("/ray/session_2026-11-30_13-47-09_293199_4194304/sockets/plasma_store")
MOST_BYTES = 103
"""Of a socket's path, on a Mac; Linux takes four more."""


@contextmanager
def listening_on_loopback() -> Iterator[None]:
    """Has a Ray that is started in this block, and all its processes, listen on the loopback address alone.

    What Ray binds elsewhere is what it was told: the dashboard, by its own option.
    """
    if NO_CLUSTER in os.environ:  # the user has said what Ray may do
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER  # read from the environment when Ray was imported
    os.environ[NO_CLUSTER], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[NO_CLUSTER]
        ray_constants.ENABLE_RAY_CLUSTER = before


def private_folder() -> Path:
    """Returns a folder for Ray's sessions, logs and sockets that nobody else can look into.

    It lies where Ray's own would (``RAY_TMPDIR``, ``TMPDIR``, /tmp) and is the same for all launches of a user, unless
    somebody else has made one of that name.
    """
    name = f"orca-sweep-{os.getuid()}"
    base = get_default_system_temp_dir()
    if len(os.fsencode(f"{base}/{name}")) + LONGEST > MOST_BYTES:
        base = "/tmp"  # noqa: S108 - sockets have no longer names; the folder in it is private
    folder = Path(base, name)
    os.makedirs(base, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="orca-sweep-", dir=base))
    folder.chmod(0o700)
    # Ray opens the folder that it is given to everybody: it is given one inside.
    return folder / "ray"


def keep_token_private() -> None:
    """Makes the token that a Ray of our own would make, if there is none, in a file for its user alone.

    Ray writes the file as the umask says, so that others may read it. One that is there already is closed to others.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    temporary = path.with_name(f".auth_token.{secrets.token_hex(8)}.tmp")
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
            with suppress(FileExistsError):  # another launch was faster
                os.link(temporary, path)
    except OSError:
        # No home to write to: a token for this launch alone, in the environment of its processes.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    finally:
        with suppress(OSError):
            temporary.unlink()
    with suppress(OSError):  # somebody else's file is theirs to close
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
