"""The context of a run, which says where it runs and what it shares, and the record of the run so far."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.config import TrialConfig
from orca_sweep.errors import OrcaSweepError
from orca_sweep.results import Status
from orca_sweep.space.records import Checkpoints
from orca_sweep.training.meter import Meter

if TYPE_CHECKING:
    from orca_sweep.training.worker import Progress, Worker

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Where a trial runs, and what it shares with other trials on the way."""

    folder: Path
    """The sweep folder."""
    worker: "Worker"
    data_root: Path
    """The folder with the tasks' files."""
    imports: tuple[str, ...] = ()
    """The space's modules and files, which may register the records that a config names."""
    limit_s: float | None = None
    """Seconds after which the trial ends at its next epoch, with status ``timeout``; its checkpoint stays."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    snapshot_epochs: Collection[int] = ()
    """Embedder epochs at which the embedder is stored for other trials."""
    prefix_epochs: Collection[int] = ()
    """Fine-tuning epochs after which the state is stored for other trials (``shared_prefixes``)."""
    report: "Progress" = lambda row: None
    """Called once per epoch with its row."""
    passed: Callable[[str], None] = lambda stage: None
    """Called with each stage of ``shared_stages`` when its artifact exists, and with ``finetune-prefix``."""
    began: Callable[[str], None] = lambda stage: None
    """Called with the name of each stage when it begins."""
    saved: Callable[[], None] = lambda: None
    """Called when a checkpoint has been written."""
    keep_costs: Callable[[str, Mapping[str, Any]], None] | None = None
    """Keeps the row of a trial for the forecasts of later plans; None: in the worker's store."""


@dataclass(kw_only=True)
class RunRecord:
    """What is known of a run so far; it becomes a row however the run ends."""

    row: dict[str, Any]
    meter: Meter
    epochs: list[dict[str, Any]] = field(default_factory=list)
    reused: dict[str, float] = field(default_factory=dict)
    """The seconds that each stage cost when it was computed, for stages taken from the store."""

    def note_reuse(self, stage: str, seconds: float) -> None:
        """Adds the seconds that a stage taken from the store cost when it was computed."""
        self.reused[stage] = self.reused.get(stage, 0.0) + seconds

    def note_end(self, status: Status, error: BaseException | None = None) -> None:
        """Records how the run ended."""
        is_worded = error is None or isinstance(error, OrcaSweepError)
        text = error and (str(error) if is_worded else f"{type(error).__name__}: {error}")
        self.row |= {"status": status, "error": text}


def find_home(config: TrialConfig, context: RunContext) -> Path:
    """Returns the trial's own folder."""
    return context.folder / "trials" / config.trial_id
