"""Keeps a local Ray private: only this user, on this machine, can use its folder, token and ports.

Written against Ray 2.60, which makes its folders with mode 0777 and its token file with the mode of the umask, and
listens on all interfaces where it can form clusters.
"""

import logging
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
"""If this variable is '0', Ray listens only on the loopback address, as it always does on a Mac."""
LONGEST = len("/ray/session_2026-11-30_13-47-09_293199_4194304/sockets/plasma_store")
"""Length of the longest path of a socket below Ray's folder."""
MOST_BYTES = 103
"""Longest path of a socket on a Mac; Linux allows four bytes more."""


@contextmanager
def listen_on_loopback() -> Iterator[None]:
    """Makes a Ray that starts in this block, and all its processes, listen only on the loopback address.

    The dashboard alone may listen elsewhere, by its own option.
    """
    if NO_CLUSTER in os.environ:  # the user has decided
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER  # read from the environment when Ray was imported
    os.environ[NO_CLUSTER], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[NO_CLUSTER]
        ray_constants.ENABLE_RAY_CLUSTER = before


def make_private_folder() -> Path:
    """Returns a folder for Ray's sessions, logs and sockets that nobody else can read.

    It is where Ray would make its folder (``RAY_TMPDIR``, ``TMPDIR``, /tmp). All launches of a user share it, unless
    somebody else has made a folder of that name.
    """
    name = f"orca-sweep-{os.getuid()}"
    base = get_default_system_temp_dir()
    if len(os.fsencode(f"{base}/{name}")) + LONGEST > MOST_BYTES:
        base = "/tmp"  # noqa: S108 - a socket's path cannot be longer; the folder inside is private
    folder = Path(base, name)
    os.makedirs(base, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="orca-sweep-", dir=base))
    folder.chmod(0o700)
    # Ray opens its folder to everybody, so it gets one inside the private folder.
    return folder / "ray"


def hide_token_advice() -> None:
    """Drops Ray's line that a token is in use and how to do without one: it is on purpose, and the advice is unsafe here."""
    module = logging.getLogger("ray._private.authentication.authentication_token_setup")
    module.addFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Token authentication is enabled")


def keep_token_private() -> None:
    """Makes Ray's token, if there is none, in a file that only its user can read.

    Ray itself writes the file with the mode of the umask, so that other users may read it. Closes an existing file to
    them.
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
        # The home cannot be written: use a token for this launch only, in the environment of its processes.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    finally:
        with suppress(OSError):
            temporary.unlink()
    with suppress(OSError):  # the file of another user is theirs to close
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
