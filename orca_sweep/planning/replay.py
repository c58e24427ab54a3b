"""Running one recorded trial again from its config, to see whether its numbers come back."""

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.data.contents import Contents
from orca_sweep.errors import DataError, InputError, Problem
from orca_sweep.results import SEALED_COLUMNS, Recorded, read_record, unseal_metrics
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_trial
from orca_sweep.trial import ResolvedTrial, find_changes, load_imports, resolve_config, unavailable_parts

NUMBERS = ("val_metric_best", "val_metric_last", "objective_last", "test_metric_best", "test_metric_last")
EXACT = ("state_sha256", "best_epoch", "n_steps")
CAUSES = (
    "device", "n_threads", "versions", "code_version", "code_sha256", "data_sha256", "body_sha256", "proxy_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One number of the row, as recorded and as it came now."""

    name: str
    recorded: Any
    now: Any

    @property
    def is_same(self) -> bool:
        """Whether both are equal to the last bit."""
        return bool(self.recorded == self.now)

    @property
    def difference(self) -> float:
        """How far two numbers are apart; infinite where one is none."""
        numbers = [isinstance(value, int | float) for value in (self.recorded, self.now)]
        return abs(self.recorded - self.now) if all(numbers) else math.inf


@dataclass(frozen=True)
class Replay:
    """What became of a trial that was run again."""

    trial_id: str
    status: Compared
    numbers: tuple[Compared, ...]
    exact: tuple[Compared, ...]
    """Hash of the weights, best epoch and number of steps."""
    causes: tuple[Compared, ...]
    """What may explain a difference, where it is not what it was: versions, device, hashes of code, data, body and proxy."""
    is_sealed: bool
    """The recorded test metrics were not revealed: they are compared, and must not be shown."""
    seconds: float
    error: str = ""
    """What the trial ended with now, if it did not end well as it once had."""

    @property
    def is_bit_equal(self) -> bool:
        """Whether everything came back to the last bit."""
        return self.status.is_same and all(one.is_same for one in (*self.numbers, *self.exact))

    def came_back(self, tolerance: float) -> bool:
        """Says whether every number came back within a tolerance; with 0, the weights too must be bit-equal."""
        if tolerance == 0:
            return self.is_bit_equal
        return self.status.is_same and all(one.is_same or one.difference <= tolerance for one in self.numbers)


def replay(recorded: Recorded, data_root: Path, imports: Iterable[str], store: Store | None = None) -> Replay:
    """Runs a recorded trial again, in this process and in a folder of its own, and compares.

    Everything is computed anew unless a store is given. Threads are those recorded, and so is the device if it is here.

    Raises:
        InputError: if the trial has no outcome to compare with, its config is none of this version, or what it needs
            is not here.

    Cost: what the trial had cost, shared stages included.
    """
    load_imports(imports)
    trial, row = resolve_config(_read_config(recorded)), recorded.row
    problems = unavailable_parts([trial], data_root)
    problems += [] if problems else _explain_changes(trial, imports)
    if problems:
        raise InputError(problems)
    import torch

    from orca_sweep.training.worker import Worker

    device = str(row.get("device") or "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        device = "cpu"
    n_threads = int(row.get("n_threads") or 1)
    torch.set_num_threads(n_threads)
    with tempfile.TemporaryDirectory(prefix="orca-sweep-replay-") as name:
        folder = Path(name)
        worker = Worker(store or Store(str(folder / "store")), device, n_threads)
        context = RunContext(folder=folder, worker=worker, data_root=data_root, imports=tuple(imports))
        now = run_trial(trial, context)
        tests = unseal_metrics(read_record(folder, recorded.trial_id) or {"row": {}})
    return _compared(recorded, {**now, **tests})


def _explain_changes(trial: ResolvedTrial, imports: Iterable[str]) -> list[Problem]:
    """Why a trial cannot come back: its own files or code have another content now."""
    try:
        changes = find_changes(trial, imports, Contents())
    except DataError as error:
        changes = [Problem(rule=str(error))]
    remedy = "Put the earlier content back to replay this one."
    return [replace(change, where=f"trial {trial.config.trial_id}", remedy=remedy) for change in changes]


def _read_config(recorded: Recorded) -> TrialConfig:
    status = recorded.row.get("status")
    if status not in ("ok", "failed", "diverged", "oom"):
        raise InputError(
            f"trial {recorded.trial_id}: its status is {status!r}, so there is no outcome to compare with. Replay one that"
            " is ok, failed, diverged or oom."
        )
    try:
        config = TrialConfig.from_flat(recorded.config)
    except ValueError as error:
        raise InputError(f"trial {recorded.trial_id}: its config is none of this version: {error}") from None
    if config.trial_id != recorded.trial_id:
        raise InputError(
            f"trial {recorded.trial_id}: its config has the id {config.trial_id} in this version, which has other knobs."
            " Replay it with the version that ran it"
            f" ({recorded.row.get('code_version') or 'not recorded'})."
        )
    return config


def _compared(recorded: Recorded, now: Mapping[str, Any]) -> Replay:
    row = {**recorded.row, **recorded.tests}

    def pairs(names: Iterable[str]) -> tuple[Compared, ...]:
        found = (Compared(name, row.get(name), now.get(name)) for name in names)
        return tuple(one for one in found if one.recorded is not None)

    causes = tuple(one for one in pairs(CAUSES) if not one.is_same and one.now is not None)
    numbers = pairs(NUMBERS)
    return Replay(
        recorded.trial_id,
        Compared("status", row.get("status"), now.get("status")),
        numbers,
        pairs(EXACT),
        causes,
        recorded.is_sealed and any(one.name in SEALED_COLUMNS for one in numbers),
        float(now["wall_time_s"]),
        "" if now.get("status") == row.get("status") else str(now.get("error") or ""),
    )
