"""One ORCA run: from dotted settings to its config, and from settings to the stages it shares."""

from orca_sweep.trial.identity import check_contents, find_changes
from orca_sweep.trial.importing import load_imports
from orca_sweep.trial.remembering import Remembering
from orca_sweep.trial.resolve import (
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

__all__ = [
    "Remembering",
    "StageNames",
    "check_contents",
    "describe_inputs",
    "describe_proxies",
    "find_body_problems",
    "find_changes",
    "find_task_problems",
    "load_imports",
    "resolve",
    "shared_stages",
    "unavailable_loggers",
    "unavailable_parts",
]
