"""Runs a recorded trial again from its config, to check whether its numbers can be reproduced."""

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.config import TrialConfig
from orca_sweep.data.contents import Contents
from orca_sweep.errors import DataError, InputError, Problem
from orca_sweep.results import SEALED_COLUMNS, Recorded, read_record, unseal_metrics
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_trial
from orca_sweep.trial import ResolvedTrial, find_changes, load_imports, resolve_config, unavailable_parts

if TYPE_CHECKING:
    from orca_sweep.training.worker import Worker

NUMBERS = ("val_metric_best", "val_metric_last", "objective_last", "test_metric_best", "test_metric_last")
EXACT = ("state_sha256", "best_epoch", "n_steps")
CAUSES = (
    "device", "n_threads", "versions", "code_version", "code_sha256", "data_sha256", "body_sha256", "proxy_sha256",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One value of a trial's row, as recorded and as it is now."""

    name: str
    recorded: Any
    now: Any

    @property
    def is_same(self) -> bool:
        """Whether both are equal to the last bit."""
        return bool(self.recorded == self.now)

    @property
    def difference(self) -> float:
        """The distance of the two numbers; infinite if either value is not a number."""
        numbers = [isinstance(value, int | float) for value in (self.recorded, self.now)]
        return abs(self.recorded - self.now) if all(numbers) else math.inf


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a trial that was run again compares with its record."""

    trial_id: str
    status: Compared
    numbers: tuple[Compared, ...]
    exact: tuple[Compared, ...]
    """Hash of the weights, best epoch and number of steps."""
    causes: tuple[Compared, ...]
    """What has changed and may explain a difference: versions, device, threads, hashes of code, data, body and proxy."""
    is_sealed: bool
    """The recorded test metrics are sealed: they are compared, but must not be shown."""
    seconds: float
    error: str = ""
    """The error of the new run, if it ended with another status than recorded."""

    @property
    def is_bit_equal(self) -> bool:
        """Whether every value is the same to the last bit."""
        return self.status.is_same and all(value.is_same for value in (*self.numbers, *self.exact))

    def came_back(self, tolerance: float) -> bool:
        """Returns whether every number came back within a tolerance; at 0 the weights must be bit-equal, too."""
        if tolerance == 0:
            return self.is_bit_equal
        return self.status.is_same and all(value.is_same or value.difference <= tolerance for value in self.numbers)


def replay(recorded: Recorded, data_root: Path, imports: Iterable[str], store: Store | None = None) -> Replay:
    """Runs a recorded trial again, in this process and a temporary folder, and compares the outcome with the record.

    Every stage is computed again unless a store is given. The run uses the recorded number of threads, and the recorded
    device if this machine has it.

    Raises:
        InputError: if the trial has no outcome to compare with, this version cannot read its config, or files or packages
            are missing.

    Cost: as much as the recorded trial, including its shared stages.
    """
    load_imports(imports)
    trial, row = resolve_config(_read_config(recorded)), recorded.row
    problems = unavailable_parts([trial], data_root)
    problems += [] if problems else _explain_changes(trial, imports)
    if problems:
        raise InputError(problems)
    with tempfile.TemporaryDirectory(prefix="orca-sweep-replay-") as name:
        folder = Path(name)
        worker = _make_worker(row, store or Store(str(folder / "store")))
        context = RunContext(folder=folder, worker=worker, data_root=data_root, imports=tuple(imports))
        now = run_trial(trial, context)
        tests = unseal_metrics(read_record(folder, recorded.trial_id) or {"row": {}})
    return _compare_rows(recorded, {**now, **tests})


def _make_worker(row: Mapping[str, Any], store: Store) -> "Worker":
    """A worker like the one that a row was recorded on, as far as this machine allows."""
    import torch

    from orca_sweep.training.worker import Worker

    device = str(row.get("device") or "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        device = "cpu"
    n_threads = int(row.get("n_threads") or 1)
    torch.set_num_threads(n_threads)
    return Worker(store, device, n_threads)


def _explain_changes(trial: ResolvedTrial, imports: Iterable[str]) -> list[Problem]:
    """The files and imported code of a trial that have changed since it was planned, so that it cannot be reproduced."""
    try:
        changes = find_changes(trial, imports, Contents())
    except DataError as error:
        changes = [Problem(rule=str(error))]
    remedy = "Put the earlier content back to replay this trial."
    return [replace(change, where=f"trial {trial.config.trial_id}", remedy=remedy) for change in changes]


def _read_config(recorded: Recorded) -> TrialConfig:
    """The config of a recorded trial with an outcome; raises InputError if this version makes another trial of it."""
    status = recorded.row.get("status")
    if status not in ("ok", "failed", "diverged", "oom"):
        raise InputError(
            f"trial {recorded.trial_id}: its status is {status!r}, so there is no outcome to compare with. Replay a trial"
            " that is ok, failed, diverged or oom."
        )
    try:
        config = TrialConfig.from_flat(recorded.config)
    except ValueError as error:
        raise InputError(f"trial {recorded.trial_id}: this version cannot read its config: {error}") from None
    if config.trial_id != recorded.trial_id:
        raise InputError(
            f"trial {recorded.trial_id}: its config has the id {config.trial_id} in this version, whose knobs differ."
            " Replay it with the version that ran it"
            f" ({recorded.row.get('code_version') or 'not recorded'})."
        )
    return config


def _compare_rows(recorded: Recorded, now: Mapping[str, Any]) -> Replay:
    row = {**recorded.row, **recorded.tests}
    numbers = _compare_values(row, now, NUMBERS)
    status = Compared(name="status", recorded=row.get("status"), now=now.get("status"))
    return Replay(
        trial_id=recorded.trial_id,
        status=status,
        numbers=numbers,
        exact=_compare_values(row, now, EXACT),
        causes=tuple(
            value for value in _compare_values(row, now, CAUSES) if not value.is_same and value.now is not None
        ),
        is_sealed=recorded.is_sealed and any(value.name in SEALED_COLUMNS for value in numbers),
        seconds=float(now["wall_time_s"]),
        error="" if status.is_same else str(now.get("error") or ""),
    )


def _compare_values(row: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> tuple[Compared, ...]:
    """Compares the values that the recorded row has."""
    values = (Compared(name=name, recorded=row.get(name), now=now.get(name)) for name in names)
    return tuple(value for value in values if value.recorded is not None)
