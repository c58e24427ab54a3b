"""What a running trial does now: a small file in its folder, which its worker renews while the trial runs."""

import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orca_sweep.record_files import read_regular_file
from orca_sweep.store import write_whole

SIGN = "progress.json"
STAGES = {
    "data": "reads its data",
    "body": "makes its body",
    "pretrain": "pre-trains its body",
    "proxy": "embeds the proxy",
    "embedder": "trains its embedder",
    "finetune": "fine-tunes",
    "test": "scores the test split",
}
"""What a trial does in each stage."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign of life of a running trial."""

    trial_id: str
    stage: str
    since: float
    """When the stage began, in seconds since 1970."""
    at: float
    """When the sign was given."""
    node: str
    """The name of the machine."""
    epoch: int | None = None
    """Epochs of the stage that are done; steps, in pre-training."""
    n_epochs: int | None = None
    """How many the stage has; None if that is not known."""
    val_metric: float | None = None

    def describe(self, now: float | None = None) -> str:
        """Returns 'fine-tunes, epoch 3 of 60, validation 0.21, for 2 min'; an old sign says how old it is."""
        now = time.time() if now is None else now
        unit = "step" if self.stage == "pretrain" else "epoch"
        total = f" of {self.n_epochs}" if self.n_epochs else ""
        parts = [STAGES.get(self.stage, self.stage)]
        parts += [f"{unit} {self.epoch}{total}"] if self.epoch is not None else []
        parts += [f"validation {self.val_metric:.4g}"] if self.val_metric is not None else []
        parts.append(f"for {format_age(now - self.since)}")
        if now - self.at > OLD_S:
            parts.append(f"last sign of life {format_age(now - self.at)} ago")
        return ", ".join(parts)


OLD_S = 60.0
"""A worker renews its sign every few seconds; after this time a reader should know that it has not."""
_SIGN: TypeAdapter[Sign] = TypeAdapter(Sign)


def sign_path(folder: Path, trial_id: str) -> Path:
    """Returns the path of a trial's sign of life in a sweep folder."""
    return folder / "trials" / trial_id / SIGN


def format_sign(sign: Sign) -> bytes:
    """Returns the content of the file."""
    return _SIGN.dump_json(sign)


def write_sign(folder: Path, trial_id: str, content: bytes) -> None:
    """Writes a trial's sign of life, whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    with write_whole(str(sign_path(folder, trial_id))) as temporary:
        Path(temporary).write_bytes(content)


def read_sign(folder: Path, trial_id: str) -> Sign | None:
    """Returns the sign of life of a trial; None if it has not given any, or the file is unreadable."""
    try:
        blob = read_regular_file(sign_path(folder, trial_id))
        return None if blob is None else _SIGN.validate_json(blob)
    except (OSError, ValidationError):
        return None


def format_age(seconds: float) -> str:
    """Returns '40 s', '12 min', '3.5 h'."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
