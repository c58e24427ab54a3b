"""One ORCA run: from dotted settings to its config, and from its config to its record. No ray here."""

from orca_sweep.trial.identity import check_contents, find_changes
from orca_sweep.trial.importing import load_imports
from orca_sweep.trial.remembering import Remembering
from orca_sweep.trial.resolving import (
    StageNames,
    describe_inputs,
    describe_proxies,
    find_body_problems,
    find_task_problems,
    resolve,
    shared_stages,
    unavailable_loggers,
    unavailable_parts,
)
from orca_sweep.trial.running import CHECKPOINT, drop_checkpoint, keep_pretraining, run_trial

__all__ = [
    "CHECKPOINT",
    "Remembering",
    "StageNames",
    "check_contents",
    "describe_inputs",
    "describe_proxies",
    "drop_checkpoint",
    "find_body_problems",
    "find_changes",
    "find_task_problems",
    "keep_pretraining",
    "load_imports",
    "resolve",
    "run_trial",
    "shared_stages",
    "unavailable_loggers",
    "unavailable_parts",
]
