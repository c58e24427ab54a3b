"""A Ray of our own is its user's alone: token, folders and ports; what is emitted runs nothing but what it says."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from orca_sweep.sweep import private
from tests.commands import TOKEN, Command

LISTENERS = """
import sys
import psutil
import ray
from orca_sweep.sweep.running import joined

with joined("local", None if sys.argv[1] == "none" else sys.argv[1]) as dashboard:
    ray.get(ray.remote(lambda: 0).remote())  # a worker listens too
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        for one in process.net_connections():
            if one.status == psutil.CONN_LISTEN:
                print("listens", one.laddr.ip, process.name())
    print("session", ray.get_runtime_context().get_session_name())
"""


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    short = tempfile.mkdtemp(prefix="orca-", dir="/tmp")  # for Ray's sockets
    monkeypatch.setenv("RAY_TMPDIR", short)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    before = os.umask(0o000)  # the most careless user
    yield tmp_path
    os.umask(before)
    shutil.rmtree(short)


def test_our_own_ray_is_private_and_listens_on_loopback(tmp_path):
    """The token is made, folders are closed, and every socket of every process is on loopback."""
    (tmp_path / "own_ray.py").write_text(LISTENERS)
    folder = Path(tempfile.mkdtemp(prefix="orca-", dir="/tmp"))  # short, for Ray's sockets
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    variables |= {"HOME": str(tmp_path), "RAY_TMPDIR": str(folder)}
    try:
        done = Command("none", program=tmp_path / "own_ray.py", env=variables, plain=True).wait()
        assert done.returncode == 0, done.stderr
        addresses = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("listens")]
        assert len(addresses) >= 5
        assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
        (mine,) = folder.iterdir()
        assert mode(mine) == 0o700
        assert list(mine.glob("ray/session_2*"))
        assert mode(tmp_path / ".ray/auth_token") == 0o600
        assert mode(tmp_path / ".ray") == 0o700
        token = (tmp_path / ".ray/auth_token").read_text()
        assert len(token) == 64 and token != TOKEN
    finally:
        shutil.rmtree(folder)


def test_the_token_is_made_once_for_its_user_alone(home):
    private.keep_token_private()
    path = home / ".ray/auth_token"
    token = path.read_text()
    assert (mode(path), mode(path.parent), len(token)) == (0o600, 0o700, 64)
    path.chmod(0o644)  # as Ray itself leaves it
    private.keep_token_private()
    assert (mode(path), path.read_text()) == (0o600, token)
    assert list(path.parent.iterdir()) == [path]
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_TOKEN", TOKEN), ("RAY_AUTH_TOKEN_PATH", "/x"), ("RAY_AUTH_MODE", "disabled")]
)
def test_who_has_a_token_of_their_own_or_wants_none_keeps_it(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    private.keep_token_private()
    assert not (home / ".ray").exists()


def test_without_a_home_the_token_is_in_the_environment_alone(home, monkeypatch):
    (home / ".ray").write_text("a file")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    private.keep_token_private()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert (home / ".ray").read_text() == "a file"


def test_the_session_folder_is_ours_or_a_new_one(home):
    first = private.private_folder()
    assert (first.name, mode(first.parent)) == ("ray", 0o700)
    assert private.private_folder() == first
    first.parent.chmod(0o777)
    assert mode(private.private_folder().parent) == 0o700
    # Somebody else was there first.
    first.parent.rmdir()
    (home / "away").mkdir(mode=0o755)
    first.parent.symlink_to(home / "away", target_is_directory=True)
    other = private.private_folder()
    assert other.parent != first.parent and mode(other.parent) == 0o700
    assert mode(home / "away") == 0o755


def test_a_long_temporary_folder_leaves_room_for_sockets(home, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(home / ("x" * 90)))
    assert str(private.private_folder()).startswith("/tmp/orca-sweep-")


def test_ray_forms_clusters_again_after_a_ray_of_our_own():
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    with private.listening_on_loopback():
        assert (os.environ[private.NO_CLUSTER], ray_constants.ENABLE_RAY_CLUSTER) == ("0", False)
    assert private.NO_CLUSTER not in os.environ
    assert before == ray_constants.ENABLE_RAY_CLUSTER
