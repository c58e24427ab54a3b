"""Sweeps as jobs of a running cluster, through Ray Jobs: submit, follow, inspect, stop.

Written against Ray 2.60 (``ray.job_submission``, https://docs.ray.io/en/latest/cluster/running-applications/job-submission/).
A job runs in a copy of the folder that is sent with it, in a temporary folder of the head node.
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
from orca_sweep.sweep.checks import CLUSTER_PACKAGES, explain_unreachable

DASHBOARD_PORT = 8265
CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
"""Ray's loggers that report each step of an upload."""
STOP_AS_CTRL_C = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
"""With SIGINT, a stopped launch ends with its own message; with SIGTERM, Ray's default, with a stack trace in the log."""
RETRY_S = 2.0
"""Pause before a broken connection to a job's log is opened again."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A sweep to run elsewhere: its plan, the folder to send, and its paths there, all absolute."""

    plan: Plan
    folder: Path
    out: str
    data: str | None
    store: str | None
    env: Mapping[str, str]
    pip: tuple[str, ...]
    max_trials: int = MAX_TRIALS

    def list_arguments(self, space: str) -> list[str]:
        """Returns the command that launches the sweep there, where the YAML is ``space``.

        It runs the module: in a runtime environment with its own packages, ``python`` is from that environment, but the
        script ``orca-sweep`` is not.
        """
        values = [("--out", self.out), ("--data", self.data), ("--store", self.store)]
        # The default is left out: the job's code may be of another version.
        values.append(("--max-trials", None if self.max_trials == MAX_TRIALS else str(self.max_trials)))
        options = [part for name, value in values if value is not None for part in (name, value)]
        space = f"./{space}" if space.startswith("-") else space  # or it would be read as an option
        return ["python", "-m", "orca_sweep.cli", "launch", space, "--address", "auto", *options]

    def write_command(self, space: str) -> str:
        """Returns the command as one line for the shell in which Ray Jobs runs it."""
        return shlex.join(self.list_arguments(space))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of this package, as the cluster describes it."""

    id: str
    status: str
    message: str
    command: str
    metadata: Mapping[str, str]
    start_s: float | None
    end_s: float | None
    exit_code: int | None
    """As of ``launch``: 0 all ok; 1 some are not, or the job was stopped or lost; 2 wrong input. None while it runs."""


def find_missing_uploads(space: Space, folder: Path) -> tuple[list[str], list[str]]:
    """Returns problems with files that a job would not find, and notes on files whose path there will change.

    Relative paths are relative to the working folder. It must be ``folder`` when this is called, as it is for the job.
    """
    problems = [] if space.file.is_relative_to(folder) else [f"--working-dir {folder}: does not contain {space.file}."]
    problems += [
        f"{space.locate('imports')}: imports: {name} is outside {folder}, and only that folder is sent. Move it there, or"
        " send a folder that contains both with --working-dir."
        for name in space.imports
        if name.endswith(".py") and not Path(name).is_relative_to(folder)
    ]
    notes = []
    for field, path in list_relative_paths(space):
        full = Path(os.path.realpath(Path(path).expanduser()))
        if not full.is_relative_to(folder):
            problems.append(
                f"{field} {path}: is outside {folder}, and only that folder is sent. Give an absolute path that all nodes"
                " see, or send a folder that contains it with --working-dir."
            )
        elif not full.exists():
            problems.append(
                f"{field} {path}: not in {folder}, which is the working folder of the job. Correct it, or give an absolute"
                " path that all nodes see."
            )
        else:
            notes.append(
                f"{field} {path} is sent with the job: its path there, and so the ids of its trials, change when the"
                " folder does. To add to this sweep later, give an absolute path that all nodes see."
            )
    return problems, notes


def list_relative_paths(space: Space) -> list[tuple[str, str]]:
    """Returns (field, path) for each body, proxy and task that the space names by a relative path."""
    settings = [space.base, *space.include, *(rule.settings for rule in space.when)]
    rows = [{field: (value,) for field, value in setting.items()} for setting in settings]
    named = [(field, str(value)) for row in [space.factors, *rows] for field, values in row.items() for value in values]
    files = [(field, path) for field, value in named for path in _list_files(field, value)]
    return [(field, path) for field, path in dict.fromkeys(files) if not Path(path).is_absolute()]


def _list_files(field: str, value: str) -> list[str]:
    """Returns the files and folders that the value of a field names."""
    if field == "body.name":
        return [value] if value not in BODIES and is_local_path(value) else []
    if field == "proxy":
        declaration = None if value in PROXIES else parse_proxy(value.removeprefix("shuffled:"))
        return [declaration.path] if declaration and declaration.is_local else []
    if field == "task" and is_task_text(value):
        task = parse_task(value)
        return [path for path in (task.path, task.test) if path is not None]
    return []


# The cluster --------------------------------------------------------------------------------------


class Cluster:
    """The jobs of a cluster, at the address of its dashboard. Every failure is an InputError."""

    def __init__(self, address: str) -> None:
        self.address, host, port = _parse_dashboard(address)
        missing = missing_packages("Ray Jobs", CLUSTER_PACKAGES, "cluster")
        if missing:
            raise InputError(missing[:1])
        problem = explain_unreachable(host, port)
        if problem:
            raise InputError(
                f"--address {address}: nothing answers there ({problem}). Give the address of the head's dashboard, such as"
                f" http://HOST:{DASHBOARD_PORT}; the dashboard listens only on the head's loopback address unless Ray was"
                " started with --dashboard-host."
            )
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._explain_errors():
            self.client = JobSubmissionClient(self.address)

    def submit(self, submission: Submission, unsent: list[str]) -> str:
        """Sends the folder without the paths in ``unsent``, starts the launch in it, and returns the job's id."""
        space, folder = submission.plan.space, submission.folder
        runtime_env: dict[str, Any] = {"working_dir": str(folder), "excludes": unsent}
        runtime_env["env_vars"] = {**STOP_AS_CTRL_C, **submission.env}
        if submission.pip:
            runtime_env["pip"] = list(submission.pip)
        with self._explain_errors(f"cannot send {folder}"):
            return self.client.submit_job(
                entrypoint=submission.write_command(str(space.file.relative_to(folder))),
                runtime_env=runtime_env,
                metadata={"space": space.name, "out": submission.out},
            )

    def read_job(self, job_id: str) -> Job:
        """Returns the state of a job."""
        with self._explain_errors(f"job {job_id}: no such job"):
            return _describe_job(self.client.get_job_info(job_id))

    def list_jobs(self) -> list[Job]:
        """Returns the submitted jobs that have not been deleted, newest first."""
        with self._explain_errors():
            jobs = [_describe_job(info) for info in self.client.list_jobs() if info.submission_id]
        return sorted(jobs, key=lambda job: -(job.start_s or 0))

    def read_logs(self, job_id: str) -> str:
        """Returns what a job has printed so far."""
        with self._explain_errors(f"job {job_id}: no such job"):
            return str(self.client.get_job_logs(job_id))

    def stop_job(self, job_id: str) -> bool:
        """Asks a job to stop, and returns whether it was still running."""
        with self._explain_errors(f"job {job_id}: no such job"):
            return bool(self.client.stop_job(job_id))

    def follow_job(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Shows what a job prints until it ends, and returns how it ended.

        Opens a broken connection again: proxies often break them.
        """
        with self._explain_errors():
            return asyncio.run(self._follow_job(job_id, show))

    async def _follow_job(self, job_id: str, show: Callable[[str], None]) -> Job:
        from aiohttp import ClientError

        n_shown = 0
        while True:
            n_seen = 0
            # If a connection breaks or is refused, the requests below show whether the cluster still answers.
            with suppress(RuntimeError, OSError, ClientError):
                async for text in self.client.tail_job_logs(job_id):
                    # A new connection sends the log from its beginning.
                    show(text[max(0, n_shown - n_seen) :])
                    n_seen += len(text)
                    n_shown = max(n_shown, n_seen)
            job = _describe_job(self.client.get_job_info(job_id))
            rest = self.client.get_job_logs(job_id)[n_shown:]
            show(rest)
            n_shown += len(rest)
            if job.exit_code is not None:
                return job
            await asyncio.sleep(RETRY_S)

    @contextmanager
    def _explain_errors(self, refusal: str = "") -> Iterator[None]:
        """Turns errors of Ray and the network into InputErrors; ``refusal`` is what it means if the cluster refuses."""
        from requests import RequestException

        try:
            yield
        except AuthenticationError as error:
            has_none = "Missing" in str(error)
            raise InputError(
                f"--address {self.address}: the cluster {'requires a token' if has_none else 'refuses our token'}. Put the"
                " cluster's token (on its head: ray get-auth-token) into RAY_AUTH_TOKEN, into a file named by"
                " RAY_AUTH_TOKEN_PATH, or into ~/.ray/auth_token."
            ) from None
        except (ConnectionError, RequestException, KeyError) as error:
            raise InputError(
                f"--address {self.address}: no Ray dashboard answers there ({error}). Give http://HOST:{DASHBOARD_PORT}."
            ) from None
        except (RuntimeError, ValueError, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{refusal or f'--address {self.address}'} ({first}).") from None


def _parse_dashboard(address: str) -> tuple[str, str, int]:
    """Returns the URL, host and port of a dashboard."""
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
            f"--address {address}: not the address of a dashboard. Give http://HOST:{DASHBOARD_PORT}, where HOST is the head."
        )
    return url.rstrip("/"), host, port


def _describe_job(info: JobDetails) -> Job:
    code = None
    if info.status.is_terminal():
        code = 0 if info.status == JobStatus.SUCCEEDED else 2 if info.driver_exit_code == 2 else 1
    return Job(
        id=str(info.submission_id or info.job_id),
        status=info.status.value,
        message=str(info.message or "").split(", last available logs")[0],  # the rest is in the log
        command=info.entrypoint,
        metadata=info.metadata or {},
        start_s=info.start_time / 1000 if info.start_time else None,
        end_s=info.end_time / 1000 if info.end_time else None,
        exit_code=code,
    )
