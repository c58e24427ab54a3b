"""Where a trial runs and what it does for others, and what is known of a run so far."""

from collections.abc import Callable, Collection
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
    """Where a trial runs, and what it does for others on the way."""

    folder: Path
    """The sweep folder."""
    worker: "Worker"
    data_root: Path
    """Where tasks with files find them."""
    imports: tuple[str, ...] = ()
    """The space's modules and files that the records of a config may come from."""
    limit_s: float | None = None
    """Seconds after which the trial ends at its next epoch, with status ``timeout``; its checkpoint stays."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    snapshot_epochs: Collection[int] = ()
    """Embedder epochs at which the embedder is stored for other trials."""
    prefix_epochs: Collection[int] = ()
    """Fine-tuning epochs after which the state is stored for other trials (``shared_prefixes``)."""
    report: "Progress" = lambda row: None
    """Called once per epoch with what there is to see."""
    passed: Callable[[str], None] = lambda stage: None
    """Called with each stage of ``shared_stages`` when its artifact is there, and with ``finetune-prefix``."""


@dataclass(kw_only=True)
class RunRecord:
    """What is known of a run so far: it ends as a row whatever happens."""

    row: dict[str, Any]
    meter: Meter
    epochs: list[dict[str, Any]] = field(default_factory=list)
    reused: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage taken from the store had cost."""

    def note_reuse(self, stage: str, seconds: float) -> None:
        """Adds what a stage that was taken from the store had cost."""
        self.reused[stage] = self.reused.get(stage, 0.0) + seconds

    def note_end(self, status: Status, error: BaseException | None = None) -> None:
        """Says how the run ended."""
        is_worded = error is None or isinstance(error, OrcaSweepError)
        text = error and (str(error) if is_worded else f"{type(error).__name__}: {error}")
        self.row |= {"status": status, "error": text}


def find_home(config: TrialConfig, context: RunContext) -> Path:
    """Returns the trial's own folder."""
    return context.folder / "trials" / config.trial_id
