"""Sweeps on clusters: as jobs of a real head with a token, as a KubeRay manifest, as a Slurm script."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from orca_sweep import cli
from orca_sweep.errors import InputError
from orca_sweep.results import read_results, sweep_status
from tests.builders.documents import check_against_page
from tests.commands import TOKEN, free_ports, wait_for, warm_workers
from tests.commands import orca as run_orca

SPACE = """
imports: [my_tasks.py]
name: jobs
base: {proxy: none, finetune.epochs: 2}
factors: {task: [tiny]}
seeds: 2
resources: {cpu: 1.9, gpu: 0.5, accelerator_type: A100}
loggers: [csv]
"""


def orca(*args, check=None, token=TOKEN, **variables):
    """Runs orca-sweep with what a user may have set: of Ray's variables the token alone, or none."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_A")}
    env |= ({"RAY_AUTH_TOKEN": token} if token else {}) | variables
    return run_orca(*args, check=check, env=env, plain=token != TOKEN)


@pytest.fixture(scope="module")
def job_head():
    """A head of its own with a token, two CPUs and what Ray is told to be half-used A100; its ports."""
    gcs, dashboard, agent = free_ports(3)
    temp = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets lie below: the path must be short
    python = str(Path(sys.executable).parent)
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    env["PATH"] = f"{python}{os.pathsep}{env['PATH']}"  # jobs call 'python'
    env |= {**warm_workers(), "PYTHONPATH": str(Path(__file__).parents[2])}
    options = {"port": gcs, "dashboard-port": dashboard} | {
        "dashboard-agent-listen-port": agent, "dashboard-host": "127.0.0.1", "num-cpus": 2, "num-gpus": 1, "temp-dir": temp,
        "include-log-monitor": "false", "resources": '{"accelerator_type:A100": 1}',
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.quiet_node", "start", "--head", "--block", "--no-monitor"]
    node = subprocess.Popen(
        [*command, *(f"--{key}={value}" for key, value in options.items())],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{dashboard}/api/version"))
        yield {"gcs": gcs, "dashboard": dashboard, "temp": temp}
    finally:
        node.terminate()
        node.wait(timeout=60)
        shutil.rmtree(temp, ignore_errors=True)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code == 401  # it is up and asks for the token
    return False


@pytest.fixture(scope="module")
def address(job_head):
    return f"http://127.0.0.1:{job_head['dashboard']}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, user_tasks):
    """A space and the file it imports, side by side."""
    made = tmp_path_factory.mktemp("jobs")
    shutil.copy(user_tasks, made / "my_tasks.py")
    (made / "space.yaml").write_text(SPACE)
    return made


@contextlib.contextmanager
def proxied(port, cut_after_s):
    """A proxy before the dashboard that ends every connection for a log after some seconds; its address."""
    servers = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            server = socket.create_connection(("127.0.0.1", port))
            servers.append(server)
            first = self.request.recv(65536)
            server.sendall(first)
            if b"/logs/tail" in first:
                threading.Timer(cut_after_s, cut, [server]).start()
            threading.Thread(target=pump, args=(self.request, server), daemon=True).start()
            pump(server, self.request)

    def cut(server):
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()
    for server in servers:
        cut(server)


# Jobs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def submitted(folder, job_head):
    """A space that was submitted and followed to its end, over a connection that breaks again and again."""
    out = folder / "results" / "jobs"
    with proxied(job_head["dashboard"], 2) as address:
        # Ray's own variable must not win over the address that is named.
        done = orca("submit", folder / "space.yaml", "--address", address, "--out", out, RAY_ADDRESS="127.0.0.1:1")
    assert "submitted" in done.stdout, done.stderr
    return done, out, re.search(r"submitted (\S+):", done.stdout)[1]


def test_a_submitted_space_is_followed_to_its_end_and_leaves_its_tables(submitted):
    done, out, job_id = submitted
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_results(out / "tables").trials["status"].tolist() == ["ok", "ok"]
    assert done.stdout.count("ran 2 of 2 trials") == 1  # nothing is shown twice, nothing is left out
    assert len(re.findall(r"^\[\d/2 at \d+ s\]", done.stdout, re.M)) == 2
    assert done.stdout.rstrip().endswith(f"job {job_id}: SUCCEEDED")
    # What trials report is written where the space says: JSON always, and CSV; no TensorBoard unless asked for.
    assert {file.name for file in out.glob("ray/*/*/*")} >= {"result.json", "progress.csv"}
    assert not list(out.rglob("events.out.tfevents*"))


def test_a_job_can_be_looked_at(submitted, address):
    _, out, job_id = submitted
    said = orca("job", "status", job_id, "--address", address, check=0).stdout
    assert f"{job_id} SUCCEEDED" in said
    assert f"orca-sweep status {out}" in said
    found = json.loads(orca("job", "status", job_id, "--json", "--address", address, check=0).stdout)
    assert (found["exit_code"], found["metadata"]["space"]) == (0, "jobs")
    assert found["ended"] > found["started"]
    assert orca("job", "list", "--address", address, check=0).stdout.split()[0] == job_id
    jobs = json.loads(orca("job", "list", "--address", address, "--json", check=0).stdout)["jobs"]
    assert jobs[0] == {key: value for key, value in found.items() if key not in ("command", "schema")}
    assert "ran 2 of 2 trials" in orca("job", "logs", job_id, "--address", address, check=0).stdout
    logged = json.loads(orca("job", "logs", job_id, "--address", address, "--json", check=0).stdout)
    assert "ran 2 of 2 trials" in logged.pop("log")
    check_against_page(logged, "job status, job stop")
    assert {**logged, "command": "job status"} == found


def test_a_grown_space_submitted_again_runs_the_rest_and_its_failures_are_the_exit_code(
    submitted, folder, job_head, address
):
    _, out, _ = submitted
    space = folder / "grown.yaml"
    space.write_text(SPACE.replace("[tiny]", "[tiny, broken]"))
    done = orca("submit", space, "--address", address, "--out", out, "--json", check=1)
    assert "2 trials to run, 2 done before" in done.stderr
    assert "2 failed, 2 ok" in done.stderr
    assert "To run the missing and failed trials, submit the space again with the same --out." in done.stderr
    document = json.loads(done.stdout)
    check_against_page(document, "submit", "job status, job stop")
    assert (document["exit_code"], document["n_trials"], document["out"]) == (1, 4, str(out))
    # What was sent is the folder without the results that lie in it; bytecode may come of importing there.
    sent = [path for path in job_head["temp"].glob("session_2*/runtime_resources/working_dir_files/*") if path.is_dir()]
    grown = [path for path in sent if (path / "grown.yaml").exists()]
    assert [sorted(p.name for p in path.iterdir() if p.name != "__pycache__") for path in grown] == [
        ["grown.yaml", "my_tasks.py", "space.yaml"]
    ]
    space.write_text(SPACE.replace("name: jobs", "name: others"))
    done = orca("submit", space, "--address", address, "--out", out, check=2)
    assert "holds the results of the space 'jobs', not of 'others'" in done.stdout


def look_at(job_id, address):
    """Follows a job that runs trials, in a process of its own."""
    command = [sys.executable, "-m", "orca_sweep.cli", "job", "logs", job_id, "--follow", "--address", address]
    looking = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_AUTH_TOKEN": TOKEN},
    )
    assert any("trials to run" in line for line in looking.stdout)
    return looking


def test_ctrl_c_ends_the_looking_and_stop_the_job(folder, job_head, address, tmp_path):
    space, out = folder / "long.yaml", tmp_path / "out"
    space.write_text(SPACE.replace("epochs: 2", "epochs: 100000"))
    done = orca("submit", space, "--no-follow", "--address", address, "--out", out, "--env", "MINE=1", check=0)
    job_id = re.search(r"submitted (\S+):", done.stdout)[1]
    wait_for(lambda: list(out.rglob("checkpoint.safetensors")))
    looking = look_at(job_id, address)
    looking.send_signal(signal.SIGINT)
    said, _ = looking.communicate(timeout=60)
    assert looking.returncode == 1
    assert f"The job {job_id} goes on." in said
    assert f"orca-sweep job stop {job_id} --address {address}" in said
    with proxied(job_head["dashboard"], 600) as through:
        looking = look_at(job_id, through)
    said, _ = looking.communicate(timeout=60)
    assert looking.returncode == 1
    assert f"Cannot read the log of {job_id} any more; the job itself may still run." in said
    assert sweep_status(out).is_running
    assert "STOPPED" in orca("job", "stop", job_id, "--address", address, check=0).stdout
    ended = sweep_status(out)
    assert (ended.is_running, ended.statuses) == (False, {"unfinished": 2})
    assert list(out.rglob("checkpoint.safetensors"))  # the next submit goes on from here
    again = orca("job", "stop", job_id, "--address", address, "--json", check=0)
    assert "had already ended" in again.stderr
    stopped = json.loads(again.stdout)
    check_against_page(stopped, "job status, job stop")
    assert (stopped["status"], stopped["id"]) == ("STOPPED", job_id)


@pytest.mark.parametrize(
    ("args", "variables", "words"),
    [
        (("job", "list"), {"token": "8" * 64}, "the cluster refuses our token"),
        (("job", "list"), {"token": None, "HOME": "/nowhere"}, "the cluster requires a token"),
        (("job", "list"), {"token": None, "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "not a file with a token"),
        (("job", "logs", "nobody", "--follow"), {}, "job nobody: no such job"),
    ],
)
def test_whom_the_cluster_lets_not_in_and_what_it_has_not_is_said(address, args, variables, words):
    assert words in orca(*args, "--address", address, check=2, **variables).stderr


def test_an_address_without_a_dashboard_is_said(job_head):
    from orca_sweep.sweep.jobs import Cluster

    for address, words in (
        ("http://127.0.0.1:1", "nothing answers there"),
        (f"127.0.0.1:{job_head['gcs']}", "no Ray dashboard answers there"),
        ("auto", "not the address of a dashboard"),
        ("ray://127.0.0.1:10001", "not the address of a dashboard"),
        ("http://127.0.0.1:port", "not the address of a dashboard"),
    ):
        with pytest.raises(InputError, match=words):
            Cluster(address)


def test_a_type_of_gpu_that_the_cluster_lacks_is_said_with_those_it_has(job_head, folder, tmp_path):
    space = folder / "type.yaml"
    for change, words in (
        (("A100", "H100"), "no node of the cluster has 'H100'. It has: A100."),
        (("cpu: 1.9", "cpu: 64"), "CPU 64 (most on one node with A100: 2)"),
    ):
        space.write_text(SPACE.replace(*change))
        done = orca("launch", space, "--address", f"127.0.0.1:{job_head['gcs']}", "--out", tmp_path / "out", check=2)
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


# Before anything is sent --------------------------------------------------------------------------


def refused(*args):
    """The InputError of a submit that sends nothing, in this process."""
    done = CliRunner().invoke(cli.app, ["submit", *map(str, args)])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def test_every_mistake_is_said_at_once_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # which submit would set for good
    space = tmp_path / "space.yaml"
    space.write_text("base: {task: digits, embedder.epocs: 1}\nseeds: 1\n")
    said = refused(space, "--out", "results", "--data", "data", "--store", "s", "--address", "http://127.0.0.1:1")
    for words in (
        "--out results: not absolute. A job runs in a temporary",
        "--data data",
        "--store s",
        "embedder.epocs",
    ):
        assert words in said
    space.write_text("base: {task: advection}\nseeds: 1\n")
    assert "no --out" in refused(space)
    assert "needs files. Give with --data" in refused(space, "--out", tmp_path)
    space.write_text("base: {task: digits}\nseeds: 1\n")
    assert "no cluster given" in refused(space, "--out", tmp_path)
    (tmp_path / "other").mkdir()
    assert f"does not contain {space}" in refused(space, "--out", tmp_path, "--working-dir", tmp_path / "other")
    assert "no such folder" in refused(space, "--out", tmp_path, "--working-dir", tmp_path / "none")
    assert "are for --emit" in refused(space, "--out", tmp_path, "--nodes", 2, "--address", "http://127.0.0.1:1")
    for emit in ((), ("--emit", "slurm")):
        assert "only kuberay uses an image" in refused(space, "--out", tmp_path, "--image", "a", *emit)
    assert "runs in the environment" in refused(space, "--out", tmp_path, "--pip", "a", "--emit", "slurm")
    assert "not NAME=VALUE" in refused(space, "--out", tmp_path, "--env", "A", "--emit", "slurm")


def test_what_a_job_would_not_find_is_said(folder, tmp_path, monkeypatch):
    from orca_sweep.space import read_space
    from orca_sweep.sweep.jobs import find_missing_uploads

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for made in (inside, outside):
        (made / "images").mkdir(parents=True)
    (outside / "more.py").write_text("")
    (inside / "space.yaml").write_text(
        "imports: [../outside/more.py]\n"
        "base: {task: {path: gone.npz, kind: classification, sample_shape: [1, 8], output_shape: 2}}\n"
        "factors: {proxy: [none, './images[train]:image->label', 'shuffled:../outside/images[train]:image->label',"
        f" '{outside}/images[train]:image->label']}}\n"
        "seeds: 1\n"
    )
    monkeypatch.chdir(inside)
    problems, notes = find_missing_uploads(read_space(inside / "space.yaml"), inside)
    assert len(problems) == 3
    for words in ("more.py is outside", "gone.npz: not in", "proxy ../outside/images: is outside"):
        assert any(words in problem for problem in problems), problems
    (note,) = notes
    assert "./images is sent with the job" in note


def test_without_rays_default_packages_the_extra_is_named_and_no_dashboard_is_started(folder, tmp_path):
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from orca_sweep.cli import main\n"
        "sys.argv = ['orca-sweep', 'job', 'list', '--address', 'http://127.0.0.1:1']\n"
        "try:\n    main()\nfinally:\n    from orca_sweep.sweep.checks import has_dashboard; print(has_dashboard())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Ray Jobs needs the package aiohttp, which is not installed" in done.stderr
    assert "pip install 'orca-sweep[cluster]'" in done.stderr
    assert done.stdout.strip() == "False"


# Kubernetes and Slurm -----------------------------------------------------------------------------


def emitted(*args):
    done = CliRunner().invoke(cli.app, ["submit", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def emit_space(tmp_path):
    path = tmp_path / "Emit_me.yaml"
    (tmp_path / "my_parts.py").write_text("WIDTH = 1\n")
    path.write_text(
        "imports: [my_parts.py]\nbase: {task: digits}\nseeds: 1\n"
        "resources: {cpu: 2, gpu: 0.25, accelerator_type: A100, custom: {fast: 0.5}}\n"
    )
    return path


def test_a_kuberay_manifest_brings_the_space_along_and_mounts_the_results(emit_space):
    text = emitted(
        emit_space, "--emit", "kuberay", "--out", "/shared/results/x", "--store", "s3://b/store", "--nodes", 3, "--env",
        "A=b c", "--pip", "scipy>=1",
    )  # fmt: skip
    config, job = yaml.safe_load_all(text)
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "orca-emit-me")
    # Fields of RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec, https://docs.ray.io, KubeRay CRD reference.
    spec = job["spec"]
    assert set(spec) == {"entrypoint", "runtimeEnvYAML", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"}
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"pip": ["scipy>=1"]}
    assert workers["replicas"] == 3
    # KubeRay puts the value into a shell line: two layers of quotes.
    assert json.loads(json.loads(workers["rayStartParams"]["resources"])) == {"fast": 2}
    launch = "python -m orca_sweep.cli launch /orca-sweep/Emit_me.yaml --address auto --out /shared/results/x"
    assert spec["entrypoint"] == f"{launch} --store s3://b/store"
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].startswith("rayproject/ray:2.")
        assert container["env"] == [{"name": "A", "value": "b c"}]
        mounts = {mount["mountPath"]: mount.get("subPath") for mount in container["volumeMounts"]}
        assert mounts.pop("/shared") is None
        assert {Path(at).name: config["data"][key] for at, key in mounts.items()} == {
            name: (emit_space.parent / name).read_text() for name in ("Emit_me.yaml", "my_parts.py")
        }
        assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
        assert pod["volumes"][1]["configMap"]["name"] == config["metadata"]["name"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}  # four trials share a GPU
    one = emitted(emit_space, "--emit", "kuberay", "--out", "/r/x", "--image", "me/mine:1")
    assert "image: me/mine:1" in one
    assert "runtimeEnvYAML" not in one


def test_a_manifest_that_would_not_see_its_files_is_not_printed(emit_space, tmp_path):
    emit_space.write_text("base: {task: digits, proxy: './images[train]:image->label'}\nseeds: 1\n")
    (emit_space.parent / "images").mkdir(exist_ok=True)
    said = refused(emit_space, "--emit", "kuberay", "--out", "/shared/x", "--data", "/data")
    assert len(said.splitlines()) == 2
    assert "proxy ./images: the pods do not see it" in said
    assert "--data /data: not below /shared" in said
    assert "cannot mount a volume there" in refused(emit_space, "--emit", "kuberay", "--out", "/")


def test_a_slurm_script_starts_ray_on_all_nodes_and_tells_how_the_sweep_ended(emit_space, tmp_path):
    out = tmp_path / "out"
    text = emitted(emit_space, "--emit", "slurm", "--out", out, "--nodes", 3, "--env", "MINE=b c")
    for line in ("--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=8", "--gpus-per-node=a100:1", "--exclusive"):
        assert f"\n#SBATCH {line}\n" in text
    script = tmp_path / "job.sh"
    script.write_text(text)
    subprocess.run(["bash", "-n", script], check=True)
    # In place of Slurm and Ray, what says how it was called: 'ray symmetric-run' itself ends every Ray of the user.
    told = 'echo "$MINE"; echo "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}"; printf "%s\\n" "$@"'
    for name, lines in (("srun", 'shift; exec "$@"'), ("ray", told)):
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", script], env={**os.environ, "PATH": path, "SLURM_JOB_NUM_NODES": "3"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    mine, token, command, *options = done.stdout.splitlines()
    assert (mine, token, command) == ("b c", "token 64", "symmetric-run")
    start, launch = options[: options.index("--")], options[options.index("--") + 1 :]
    assert start[0] == "--address" and start[1].endswith(":6379")
    assert start[2:4] == ["--min-nodes", "3"]
    assert start[4:] == ["--num-cpus=8", "--num-gpus=1", '--resources={"fast": 2.0}']
    assert launch[-6:] == ["launch", str(emit_space), "--address", "auto", "--out", str(out)]
    # A Ray that never starts ends in 0, says Ray: the script does not.
    assert done.returncode == 2
    assert f"{out}: no sweep here" in done.stderr
    from ray.scripts.scripts import start as ray_start
    from ray.scripts.symmetric_run import symmetric_run

    assert {"--address", "--min-nodes"} <= {name for option in symmetric_run.params for name in option.opts}
    known = {name for option in ray_start.params for name in option.opts}
    assert {option.split("=")[0] for option in start[4:]} <= known
