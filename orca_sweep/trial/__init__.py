"""One ORCA run: resolves dotted settings to a trial, finds what this machine lacks for it, and names its shared stages."""

from orca_sweep.trial.availability import (
    describe_inputs,
    describe_proxies,
    find_body_problems,
    find_task_problems,
    unavailable_loggers,
    unavailable_parts,
)
from orca_sweep.trial.facts import read_trial_facts
from orca_sweep.trial.identity import check_contents, find_changes
from orca_sweep.trial.importing import load_imports
from orca_sweep.trial.placebos import labels_act_in, warn_of_idle_placebos
from orca_sweep.trial.records import Records, ResolvedTrial, resolve_config, resolve_configs
from orca_sweep.trial.remembering import Remembering
from orca_sweep.trial.resolve import make_config, resolve_settings
from orca_sweep.trial.shared_stages import StageNames, shared_stages

__all__ = [
    "Records",
    "Remembering",
    "ResolvedTrial",
    "StageNames",
    "check_contents",
    "describe_inputs",
    "describe_proxies",
    "find_body_problems",
    "find_changes",
    "find_task_problems",
    "labels_act_in",
    "load_imports",
    "make_config",
    "read_trial_facts",
    "resolve_config",
    "resolve_configs",
    "resolve_settings",
    "shared_stages",
    "unavailable_loggers",
    "unavailable_parts",
    "warn_of_idle_placebos",
]
