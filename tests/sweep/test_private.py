"""A Ray of our own is its user's alone: token, folders and ports; what is emitted runs nothing but what it says."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from orca_sweep.api.planning import make_plan
from orca_sweep.cli.submit import _list_unsent_folders, _read_variables
from orca_sweep.errors import InputError
from orca_sweep.sweep import kuberay, private, slurm
from orca_sweep.sweep.jobs import Submission
from orca_sweep.visible import has_controls
from tests.commands import TOKEN, Command

LISTENERS = """
import sys
import psutil
import ray
from orca_sweep.sweep.running import join_ray

with join_ray("local", None if sys.argv[1] == "none" else sys.argv[1]) as dashboard:
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
    first = private.make_private_folder()
    assert (first.name, mode(first.parent)) == ("ray", 0o700)
    assert private.make_private_folder() == first
    first.parent.chmod(0o777)
    assert mode(private.make_private_folder().parent) == 0o700
    # Somebody else was there first.
    first.parent.rmdir()
    (home / "away").mkdir(mode=0o755)
    first.parent.symlink_to(home / "away", target_is_directory=True)
    other = private.make_private_folder()
    assert other.parent != first.parent and mode(other.parent) == 0o700
    assert mode(home / "away") == 0o755


def test_a_long_temporary_folder_leaves_room_for_sockets(home, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(home / ("x" * 90)))
    assert str(private.make_private_folder()).startswith("/tmp/orca-sweep-")


def test_ray_forms_clusters_again_after_a_ray_of_our_own():
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    with private.listen_on_loopback():
        assert (os.environ[private.NO_CLUSTER], ray_constants.ENABLE_RAY_CLUSTER) == ("0", False)
    assert private.NO_CLUSTER not in os.environ
    assert before == ray_constants.ENABLE_RAY_CLUSTER


# What is emitted ----------------------------------------------------------------------------------

NASTY = (
    "two words", "new\nline: x\n- y", "it's \"quoted\"", "$(touch PWNED)", "`touch PWNED`", "a; touch PWNED", "${HOME}",
    "größe-数据", "back\\slash", "# no comment", "a\r\x1b[31m\x08", "\u202egnp.exe", "-rf", "a && touch PWNED", "{{x}}: *y &z",
    "--- !!python/object/apply:os.system [touch PWNED]", "'$(touch PWNED)'", "%(x)s {y}", "trailing \\", "!x", "\tTab",
)  # fmt: skip


def submission(space_file, out="/shared/x", env=None, pip=(), data=None, store=None):
    plan = make_plan(space_file)
    paths = {"folder": space_file.parent, "out": out, "data": data, "store": store}
    return Submission(plan=plan, **paths, env=env or {}, pip=tuple(pip))


@pytest.fixture
def space_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: {task: digits}\nseeds: 1\n")
    return path


@pytest.fixture
def stand_ins(tmp_path):
    """In place of Slurm, Ray and the program, what writes down how it was called: words and variables."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    tell = f'printf "%s\\0" "$0" "$@" >> {tmp_path}/called; printf "%s\\0" "$VALUE" > {tmp_path}/value\n'
    for name, lines in (("srun", 'shift; exec "$@"\n'), ("ray", tell), ("python", tell)):
        (bin_folder / name).write_text(f"#!/bin/bash\n{lines}")
        (bin_folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{bin_folder}:/usr/bin:/bin", "SLURM_JOB_NUM_NODES": "1"}


@pytest.mark.parametrize("text", NASTY)
def test_a_slurm_script_runs_what_it_says_and_no_more(space_file, tmp_path, stand_ins, text):
    out = f"{tmp_path}/{text}"
    script = tmp_path / "job.sh"
    script.write_text(slurm.write_script(submission(space_file, out, {"VALUE": text}, store=f"s3://b/{text}"), 1, None))
    assert not has_controls(script.read_text().replace("\n", ""))
    # Each #SBATCH is one that the template has, and each line of the script begins as the template's do.
    assert len([line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]) == 6
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run(["bash", script], env=stand_ins, cwd=tmp_path, check=True)
    called = (tmp_path / "called").read_bytes().decode().split("\0")
    launch = called.index("launch")
    options = ["--address", "auto", "--out", out, "--store", f"s3://b/{text}"]
    assert called[launch + 1 : launch + 8] == [str(space_file), *options]
    assert called[-3:-1] == ["--check", out]
    assert (tmp_path / "value").read_bytes().decode() == f"{text}\0"
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("text", NASTY)
def test_a_jobs_entrypoint_is_one_command_in_a_shell(space_file, tmp_path, stand_ins, text):
    out = f"{tmp_path}/{text}"
    command = submission(space_file, out).write_command(text)
    subprocess.run(command, shell=True, env=stand_ins, cwd=tmp_path, check=True)  # as Ray's job supervisor does
    called = (tmp_path / "called").read_bytes().decode().split("\0")
    space = f"./{text}" if text.startswith("-") else text
    assert called[1:-1] == ["-m", "orca_sweep.cli", "launch", space, "--address", "auto", "--out", out]
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("text", NASTY)
def test_a_kuberay_manifest_holds_variables_as_they_are_and_refuses_what_two_shells_would_read(
    space_file, tmp_path, stand_ins, text
):
    emitted = kuberay.write_manifest(submission(space_file, env={"VALUE": text}), None, 1, None)
    assert not has_controls(emitted.replace("\n", ""))
    _, job = yaml.safe_load_all(emitted)  # two documents, no more
    assert set(job["spec"]) == {"entrypoint", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"}
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]):
        ((container,),) = ([*group["template"]["spec"]["containers"]],)
        (variable,) = container["env"]
        assert variable == {"name": "VALUE", "value": text.replace("$", "$$")}
    for option in ({"out": f"/shared/{text}"}, {"data": f"/shared/{text}"}, {"store": f"s3://b/{text}"}):
        what = submission(space_file, **option)
        if all(c.isalnum() or c in " -" for c in text):
            _, job = yaml.safe_load_all(kuberay.write_manifest(what, None, 1, None))
            # As KubeRay and 'ray job submit' do it: bash takes the quotes off, list2cmdline puts its own, sh runs that.
            words = subprocess.run(
                ["bash", "-c", f"printf '%s\\0' {job['spec']['entrypoint']}"], capture_output=True, check=True
            ).stdout.decode().split("\0")[:-1]  # fmt: skip
            (tmp_path / "called").unlink(missing_ok=True)
            subprocess.run(subprocess.list2cmdline(words), shell=True, env=stand_ins, cwd=tmp_path, check=True)
            called = (tmp_path / "called").read_bytes().decode().split("\0")
            assert called[1:-1] == what.list_arguments("/orca-sweep/mine.yaml")[1:]
        else:
            with pytest.raises(InputError, match="KubeRay passes it through two shells"):
                kuberay.write_manifest(what, None, 1, None)
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("text", ["x>=1; python_version<'3.9'", 'x[a]@ file:///a"b'])
def test_requirements_are_kept_for_kuberay(space_file, text):
    _, job = yaml.safe_load_all(kuberay.write_manifest(submission(space_file, pip=[text]), None, 1, None))
    as_json = json.dumps(yaml.safe_load(job["spec"]["runtimeEnvYAML"]), separators=(",", ":"))
    quoted = json.dumps(as_json, ensure_ascii=False)  # as Go's strconv.Quote writes it into KubeRay's line of bash
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"pip": [text]}


@pytest.mark.parametrize("text", ["x$(touch PWNED)", "x`id`", "x\\y", "x\ny"])
def test_requirements_that_a_shell_would_read_are_refused_for_kuberay(space_file, text):
    with pytest.raises(InputError, match="--pip .*KubeRay passes it through a shell"):
        kuberay.write_manifest(submission(space_file, pip=[text]), None, 1, None)


@pytest.mark.parametrize("name", ["$(id).yaml", "a b.yaml", "`id`.py", "größe.yaml"])
def test_names_of_files_are_safe_in_a_manifest_or_refused(tmp_path, name):
    (tmp_path / "mine.py").write_text("")
    path = tmp_path / (name if name.endswith(".yaml") else "s.yaml")
    imports = f"imports: ['{name}']\n" if name.endswith(".py") else ""
    (tmp_path / name).write_text("")
    path.write_text(f"{imports}name: x\nbase: {{task: digits}}\nseeds: 1\n")
    if "id" in name:
        with pytest.raises(InputError, match="file .*KubeRay passes it through two shells"):
            kuberay.write_manifest(submission(path), None, 1, None)
    else:
        config, job = yaml.safe_load_all(kuberay.write_manifest(submission(path), None, 1, None))
        (key,) = config["data"]
        assert re.fullmatch("[-._a-zA-Z0-9]+", key)
        assert shlex.split(job["spec"]["entrypoint"])[4] == f"/orca-sweep/{name}"


@pytest.mark.parametrize("item", ["A B=1", "a-b=1", "größe=1", "=1", "A", "1A=1", "A\nB=1", "$(id)=1", "A=\udcff"])
def test_a_variable_that_is_none_is_refused(item):
    with pytest.raises(InputError, match="--env "):
        _read_variables([item])


def test_a_variable_may_hold_anything():
    assert _read_variables([f"A={text}" for text in NASTY[:1]]) == {"A": NASTY[0]}
    assert _read_variables(["_A1=x\ny=z"]) == {"_A1": "x\ny=z"}


@pytest.mark.parametrize("name", ["9", "A" * 60, "a_b.c", "Z-"])
def test_a_name_of_a_space_is_a_name_of_kubernetes(name):
    assert re.fullmatch(r"orca-[a-z0-9]([-a-z0-9]*[a-z0-9])?", kuberay._make_name(name))
    assert len(kuberay._make_name(name)) <= 40


def test_folders_that_are_not_sent_are_named_as_patterns(tmp_path):
    for name in ("a*b", "axb", "c[d]"):
        (tmp_path / "results" / name).mkdir(parents=True)
    for name in ("a*b", "c[d]"):
        (tmp_path / "results" / name / "sweep.json").write_text("{}")
    assert _list_unsent_folders(tmp_path, Path("/elsewhere")) == ["/results/a\\*b/", "/results/c\\[d\\]/"]
