"""From a space YAML to a plan: cells, trials with stable ids, and every mistake at once.

Needs neither torch nor ray. This room knows nothing about tasks, bodies and proxies: the caller passes ``resolve``,
which turns dotted settings into a checked TrialConfig.
"""

from orca_sweep.space.plan import make_plan, plan_space, plan_trials
from orca_sweep.space.reading import read_space
from orca_sweep.space.records import (
    TYPE_PREFIX,
    Budget,
    Checkpoints,
    Logger,
    OutcomeRule,
    Plan,
    PlannedTrial,
    Pruning,
    Resolve,
    Resources,
    Rule,
    Space,
    TunedCell,
)
from orca_sweep.space.sizes import MAX_TRIALS
from orca_sweep.space.tuned import resolve_candidate
from orca_sweep.space.tuning import Range, Search

__all__ = [
    "MAX_TRIALS",
    "TYPE_PREFIX",
    "Budget",
    "Checkpoints",
    "Logger",
    "OutcomeRule",
    "Plan",
    "PlannedTrial",
    "Pruning",
    "Range",
    "Resolve",
    "Resources",
    "Rule",
    "Search",
    "Space",
    "TunedCell",
    "make_plan",
    "plan_space",
    "plan_trials",
    "read_space",
    "resolve_candidate",
]
