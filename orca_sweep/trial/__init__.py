"""One ORCA run: from dotted settings to its config, and from its config to its record. No ray here."""

from orca_sweep.trial.importing import load_imports
from orca_sweep.trial.resolving import (
    broken_bodies,
    broken_tasks,
    resolve,
    shared_stages,
    unavailable_loggers,
    unavailable_parts,
)
from orca_sweep.trial.running import CHECKPOINT, drop_checkpoint, keep_pretraining, run_trial

__all__ = [
    "CHECKPOINT",
    "broken_bodies",
    "broken_tasks",
    "drop_checkpoint",
    "keep_pretraining",
    "load_imports",
    "resolve",
    "run_trial",
    "shared_stages",
    "unavailable_loggers",
    "unavailable_parts",
]
