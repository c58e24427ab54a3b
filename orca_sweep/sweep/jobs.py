"""Sweeps as jobs of a running cluster, through Ray Jobs: submit, follow, look at, stop.

Written against Ray 2.60 (``ray.job_submission``, https://docs.ray.io/en/latest/cluster/running-applications/job-submission/).
A job runs in a copy of the folder that is sent with it, in a temporary place of the head node.
"""

import asyncio
import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from orca_sweep.bodies import BODIES
from orca_sweep.config.declaration import is_local_path, is_task_text, parse_proxy, parse_task
from orca_sweep.data import missing_packages
from orca_sweep.errors import InputError
from orca_sweep.proxies import PROXIES
from orca_sweep.space import MAX_TRIALS, Plan, Space
from orca_sweep.sweep.checks import CLUSTER_PACKAGES, unreachable

DASHBOARD_PORT = 8265
CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
"""Ray's loggers that tell of each step of an upload."""
STOP_AS_CTRL_C = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
"""A launch that is stopped then ends in its own words; Ray's SIGTERM leaves a stack of its own in the log."""
RETRY_S = 2.0


@dataclass(frozen=True)
class Submission:
    """A sweep that is to run elsewhere: its plan, the folder that goes along, and its places there, all absolute."""

    plan: Plan
    folder: Path
    out: str
    data: str | None
    store: str | None
    env: Mapping[str, str]
    pip: tuple[str, ...]
    max_trials: int = MAX_TRIALS

    def arguments(self, space: str) -> list[str]:
        """Returns the command that launches it there, where the YAML is ``space``.

        As a module: in a runtime environment with packages of its own, ``python`` is that one's, a script is not.
        """
        places = [("--out", self.out), ("--data", self.data), ("--store", self.store)]
        # The default is not told: a job's code may be of another version.
        places.append(("--max-trials", None if self.max_trials == MAX_TRIALS else str(self.max_trials)))
        options = [part for name, value in places if value is not None for part in (name, value)]
        space = f"./{space}" if space.startswith("-") else space  # no option
        return ["python", "-m", "orca_sweep.cli", "launch", space, "--address", "auto", *options]

    def command(self, space: str) -> str:
        """Returns the command as a line for one shell, which Ray Jobs hand it to."""
        return shlex.join(self.arguments(space))


@dataclass(frozen=True)
class Job:
    """A job of this package as the cluster knows it."""

    id: str
    status: str
    message: str
    command: str
    metadata: Mapping[str, str]
    start_s: float | None
    end_s: float | None
    exit_code: int | None
    """As ``launch`` gives it: 0 all ok, 1 some are not, also where it was stopped or lost, 2 wrong input; None if alive."""


def missing_uploads(space: Space, folder: Path) -> tuple[list[str], list[str]]:
    """Returns what the space names and a job would not find, and what it finds but better did not depend on.

    Relative paths are counted from the working folder, which must be ``folder`` when this is called, as it is the job's.
    """
    problems = [] if space.path.is_relative_to(folder) else [f"--working-dir {folder}: does not hold {space.path}."]
    problems += [
        f"{space.locate('imports')}: imports: {name} lies outside of {folder}, which is all that is sent. Move it there,"
        " or send a folder that holds both with --working-dir."
        for name in space.imports
        if name.endswith(".py") and not Path(name).is_relative_to(folder)
    ]
    notes = []
    for field, path in relative_paths(space):
        full = Path(os.path.realpath(Path(path).expanduser()))
        if not full.is_relative_to(folder):
            problems.append(
                f"{field} {path}: lies outside of {folder}, which is all that is sent. Name it by an absolute path that"
                " all nodes see, or send a folder that holds it with --working-dir."
            )
        elif not full.exists():
            problems.append(
                f"{field} {path}: not in {folder}, from where paths count in a job. Correct it, or name it by an absolute"
                " path that all nodes see."
            )
        else:
            notes.append(
                f"{field} {path} is sent with the job: its place there, and so the ids of its trials, change when the"
                " folder does. Name it by an absolute path that all nodes see to add to this sweep later."
            )
    return problems, notes


def relative_paths(space: Space) -> list[tuple[str, str]]:
    """Returns (field, path) of every body, proxy and task that the space names by a path that is not absolute."""
    rows = [{path: (value,) for path, value in settings.items()} for settings in _settings(space)]
    named = [(path, str(value)) for row in [space.factors, *rows] for path, values in row.items() for value in values]
    found = [(field, path) for field, value in named for path in _files(field, value) if not Path(path).is_absolute()]
    return list(dict.fromkeys(found))


def _settings(space: Space) -> list[Mapping[str, Any]]:
    return [space.base, *space.include, *(rule.settings for rule in space.when)]


def _files(field: str, value: str) -> list[str]:
    """The files and folders that a value of a field names."""
    if field == "body.name":
        return [value] if value not in BODIES and is_local_path(value) else []
    if field == "proxy":
        found = None if value in PROXIES else parse_proxy(value.removeprefix("shuffled:"))
        return [found.path] if found and found.is_local else []
    if field == "task" and is_task_text(value):
        task = parse_task(value)
        return [path for path in (task.path, task.test) if path is not None]
    return []


# The cluster's side -------------------------------------------------------------------------------


class Cluster:
    """The Jobs of a cluster, under its dashboard's address; every way to fail is told as an InputError."""

    def __init__(self, address: str) -> None:
        self.address, host, port = _dashboard(address)
        lacking = missing_packages("Ray Jobs", CLUSTER_PACKAGES, "cluster")
        if lacking:
            raise InputError(lacking[:1])
        problem = unreachable(host, port)
        if problem:
            raise InputError(
                f"--address {address}: nobody answers there ({problem}). Give the address of the head's dashboard, such as"
                f" http://HOST:{DASHBOARD_PORT}; the dashboard listens on the head's own loopback address unless it was"
                " started with --dashboard-host."
            )
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._told():
            self.client = JobSubmissionClient(self.address)

    def submit(self, what: Submission, skip: list[str]) -> str:
        """Sends the folder, but for what is to be skipped, starts the launch in it and returns the job's id."""
        space = what.plan.space
        runtime_env: dict[str, Any] = {"working_dir": str(what.folder), "excludes": skip}
        runtime_env["env_vars"] = {**STOP_AS_CTRL_C, **what.env}
        if what.pip:
            runtime_env["pip"] = list(what.pip)
        with self._told(f"{what.folder} cannot be sent"):
            return self.client.submit_job(
                entrypoint=what.command(str(space.path.relative_to(what.folder))),
                runtime_env=runtime_env,
                metadata={"space": space.name, "out": what.out},
            )

    def job(self, job_id: str) -> Job:
        """Returns what is known of a job."""
        with self._told(f"job {job_id}: no such job"):
            return _job(self.client.get_job_info(job_id))

    def jobs(self) -> list[Job]:
        """Returns the jobs that were submitted and not taken away, the newest first."""
        with self._told():
            found = [_job(info) for info in self.client.list_jobs() if info.submission_id]
        return sorted(found, key=lambda job: -(job.start_s or 0))

    def logs(self, job_id: str) -> str:
        """Returns what a job has printed so far."""
        with self._told(f"job {job_id}: no such job"):
            return str(self.client.get_job_logs(job_id))

    def stop(self, job_id: str) -> bool:
        """Asks a job to stop; says whether it was still alive."""
        with self._told(f"job {job_id}: no such job"):
            return bool(self.client.stop_job(job_id))

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Shows what a job prints until it ends, and returns how it ended.

        A connection that breaks, as those through proxies do, is made anew.
        """
        with self._told():
            return asyncio.run(self._follow(job_id, show))

    async def _follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        from aiohttp import ClientError

        n_shown = 0
        while True:
            n_seen = 0
            # Where connections break, or are refused, what the next lines ask tells whether the cluster is still there.
            with suppress(RuntimeError, OSError, ClientError):
                async for text in self.client.tail_job_logs(job_id):
                    # A new connection begins at the beginning.
                    show(text[max(0, n_shown - n_seen) :])
                    n_seen += len(text)
                    n_shown = max(n_shown, n_seen)
            job = _job(self.client.get_job_info(job_id))
            rest = self.client.get_job_logs(job_id)[n_shown:]
            show(rest)
            n_shown += len(rest)
            if job.exit_code is not None:
                return job
            await asyncio.sleep(RETRY_S)

    @contextmanager
    def _told(self, what: str = "") -> Iterator[None]:
        """Ray's and the network's errors as ours; ``what`` is what a refusal of the request means."""
        from requests import RequestException

        try:
            yield
        except AuthenticationError as error:
            has_none = "Missing" in str(error)
            raise InputError(
                f"--address {self.address}: the cluster {'asks for a token' if has_none else 'refuses our token'}. Put the"
                " cluster's own (on its head: ray get-auth-token) into RAY_AUTH_TOKEN, into a file named by"
                " RAY_AUTH_TOKEN_PATH, or into ~/.ray/auth_token."
            ) from None
        except (ConnectionError, RequestException, KeyError) as error:
            raise InputError(
                f"--address {self.address}: no Ray dashboard answers there ({error}). Give http://HOST:{DASHBOARD_PORT}."
            ) from None
        except (RuntimeError, ValueError, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{what or f'--address {self.address}'} ({first}).") from None


def _dashboard(address: str) -> tuple[str, str, int]:
    """The URL, host and port of a dashboard."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError:
        host, port = "", 0
    is_name = host and not any(letter.isspace() or not letter.isprintable() for letter in host)
    if not is_name or parts.scheme not in ("http", "https") or not port or address == "auto":
        raise InputError(
            f"--address {address}: no address of a dashboard. Give http://HOST:{DASHBOARD_PORT}, where HOST is the head."
        )
    return url.rstrip("/"), host, port


def _job(info: JobDetails) -> Job:
    code = None
    if info.status.is_terminal():
        code = 0 if info.status == JobStatus.SUCCEEDED else 2 if info.driver_exit_code == 2 else 1
    return Job(
        id=str(info.submission_id or info.job_id),
        status=info.status.value,
        message=str(info.message or "").split(", last available logs")[0],  # which the log itself has
        command=info.entrypoint,
        metadata=info.metadata or {},
        start_s=info.start_time / 1000 if info.start_time else None,
        end_s=info.end_time / 1000 if info.end_time else None,
        exit_code=code,
    )
