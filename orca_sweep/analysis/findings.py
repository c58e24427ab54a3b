"""What tables say of a claim: the words of its contrasts, what each task says, and the verdict over tasks."""

import math
from dataclasses import dataclass
from typing import Literal

from orca_sweep.analysis.claim_records import Claim
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.over_tasks import Kind, Says
from orca_sweep.stats import Proportion, Reason
from orca_sweep.stats.digits import Digits
from orca_sweep.stats.modes import Mode

CORRELATION = "correlation"
Lack = Literal[
    Reason,
    "lacking-trials",
    "no-interval",
    "no-dimensions",
    "no-column",
    "not-concerned",
    "not-named",
    "no-setting",
    "several",
]
"""Why a contrast or a task is not judged: the reason of a verdict, or what the rows lack."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the contrasts of a task that decide a claim could have shown, from their number of pairs and their spread.

    Of several contrasts it is the one that shows least. For a rank correlation, effects are correlations, and "no meaningful
    difference" is a correlation below the least that counts.
    """

    n: int = 0
    """Pairs of the contrast with the fewest; seeds of a correlation."""
    is_correlation: bool = False
    n_family: int = 0
    """Contrasts that the words are corrected for."""
    detectable: float = math.nan
    """The smallest true difference that would have been said to help or hurt, with 80% probability."""
    chance_of_none: float = math.nan
    """The probability that a true difference of zero would have been called no meaningful difference."""
    seeds_for_margin: float = math.nan
    """Seeds at which that probability reaches 80%."""
    seeds_to_decide: float = math.nan
    """Seeds at which the undecided contrasts are decided with 80% probability, if their true differences are those seen."""


UNKNOWN_POWER = Power()


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """Why something is not judged."""

    reason: Lack
    text: str
    """The reason in words, with what is missing."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One contrast or rank correlation of a claim on a task, and its word."""

    kind: str
    """The name that the claim's rule uses; 'correlation' for a rank correlation."""
    name: str
    cells: tuple[str, ...]
    """Ids: of the first cell and the one it is compared with, or of all cells in a correlation."""
    word: str
    n: int
    """Complete pairs of equal seed; trials for a correlation."""
    n_seeds: int
    estimate: float
    """Mean paired difference in the metric's unit, or Spearman's rho."""
    low: float
    """End of the 1 - alpha interval, as ``high``."""
    high: float
    inner_low: float
    """End of the 1 - 2 alpha interval of a difference, as ``inner_high``."""
    inner_high: float
    reference: float
    """Mean of the second cell."""
    margin: float
    """For a correlation the least that counts; if a higher metric is better, it is negative: the most that counts."""
    p_beyond: float
    """Adjusted for the claim's family, as ``p_within``."""
    p_within: float
    n_family: int
    sentence: str
    unjudged: Unjudged | None
    """Why it is not judged; None if it is."""
    gaps: str
    """Seeds that have no pair or lack trials, and why."""
    digits: Digits
    """The digits that its numbers show, in tables and in its sentence."""
    differs: str
    """Other fields in which the two cells differ, since a rule of their space sets them."""
    sd: float = math.nan
    """Standard deviation of the differences of pairs; of a correlation, the spread of atanh(rho) that one seed adds."""
    decides: bool = True
    """Whether the claim's rule reads it; else it is only shown."""
    unplanned: tuple[int, ...] = ()
    """Seeds that only some of its cells were planned with; they do not count."""


@dataclass(frozen=True, kw_only=True)
class TaskFinding:
    """What one task says of a claim."""

    task: str
    metric: str
    dims: int | None
    says: Says
    unjudged: Unjudged | None
    """Why it cannot be judged; None if it can."""
    margin: Margin | None
    """None if the claim needs none."""
    setting: str = ""
    """Levels of the fields that vary in the task but that the claim does not compare."""
    n_other_settings: int = 0
    """Settings at which the claim could also be judged."""
    judgements: tuple[Judgement, ...] = ()
    mode: Mode = "min"
    left_out: str = ""
    """Which of the cells that the claim compares do not count, and why."""
    leading: Judgement | None = None
    """The contrast that stands for the finding; None without contrasts."""
    power: Power = UNKNOWN_POWER
    """What these rows could have shown."""
    add: str = ""
    """What would decide it; empty if it is decided."""
    word: str = ""
    """What it says, in the claim's own words if it has some."""

    @property
    def detectable(self) -> float:
        """The smallest true effect that these rows could have shown, in the task's unit; NaN if unknown."""
        return self.power.detectable


@dataclass(frozen=True, kw_only=True)
class ClaimFinding:
    """A claim, what each task says of it, and the verdict over all tasks."""

    claim: Claim
    tasks: tuple[TaskFinding, ...]
    kind: Kind
    summary: str
    """The kind as people read it, with the number of tasks where these differ."""
    because: str
    """Why it cannot be judged; empty if it can."""
    share: Proportion
    """The share of the tasks that decide it that support it."""
    information: tuple[TaskFinding, ...] = ()
    """Tasks that the claim is not about: shown, but not counted."""
    power: str = ""
    """What the tables could have shown, in words."""
    add: str = ""
    """What would decide it; empty if it is decided."""

    @property
    def verdict(self) -> str:
        """The summary, with the reason if the claim cannot be judged."""
        return f"{self.summary}, because {self.because}" if self.because else self.summary

    @property
    def shown(self) -> tuple[TaskFinding, ...]:
        """The tasks that count, and those that are only shown."""
        return (*self.tasks, *self.information)

    def tasks_saying(self, says: Says) -> tuple[TaskFinding, ...]:
        """Returns the tasks that say this."""
        return tuple(task for task in self.tasks if task.says == says)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The findings on all claims, and what the numbers measure."""

    findings: tuple[ClaimFinding, ...]
    column: str
    n_sealed: int
    """Ok trials whose test metrics are sealed."""
    level: float
    least_correlation: float
    complete_pairs_only: bool
    completeness: str
    """How many planned trials are ok, in words."""
    notes: tuple[str, ...] = ()
    """Rows that are left out, in words."""
