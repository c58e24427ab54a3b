"""A trial as parameters for Tune: settings under their dotted names, beside what says which trial it is.

Loggers show them as they are, so that a table of MLflow has a column ``finetune.lr``.
"""

from collections.abc import Mapping
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.space import PlannedTrial

TAGS = ("name", "space", "cell_id", "trial_id", "role")
"""What says which trial it is; its seed is a setting."""
INTERNAL = ("lane", "attempt", "reports_stages")


def make_params(
    trial: PlannedTrial, *, name: str, space: str, lane: int, attempt: int, reports_stages: bool
) -> dict[str, Any]:
    """Returns the parameters of a trial.

    Args:
        trial: the trial.
        name: its levels and seed, for people.
        space: the name of its space.
        lane: the number of its lane.
        attempt: counts from 1.
        reports_stages: whether other trials wait for what its stages make.
    """
    ids = {"name": name, "space": space, "cell_id": trial.cell_id, "trial_id": trial.trial_id, "role": trial.role}
    internal = {"lane": lane, "attempt": attempt, "reports_stages": reports_stages}
    return {**ids, **trial.config.flat(), **internal}


def read_config(params: Mapping[str, Any]) -> TrialConfig:
    """Returns the config of a trial from its parameters."""
    return TrialConfig.from_flat({name: value for name, value in params.items() if name not in (*TAGS, *INTERNAL)})
