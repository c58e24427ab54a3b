"""From trial records to Parquet tables and back: schemas with units and meanings, merge, read."""

from orca_sweep.results.collecting import Recorded, collect, find_trial, write_table
from orca_sweep.results.columns import (
    EPOCH_COLUMNS,
    FINAL_STATUSES,
    SEALED_COLUMNS,
    STAGE_COLUMNS,
    TABLE_SCHEMA,
    TRIAL_MEASURES,
    Column,
    Status,
    trial_columns,
    validation_twin,
)
from orca_sweep.results.contents import describe_changes, find_earlier_trials
from orca_sweep.results.custody import Reveal, now, reveal, reveals
from orca_sweep.results.records import (
    ROLE,
    DamagedError,
    append_planned,
    finite,
    manifest_of,
    read_manifest,
    read_record,
    read_row,
    unsealed,
    write_json,
    write_manifest,
    write_record,
)
from orca_sweep.results.status import Failure, SweepStatus, sweep_status
from orca_sweep.results.summary import CellSummary, scored, summarise, with_roles
from orca_sweep.results.tables import NO_RECORD, Results, read_results

__all__ = [
    "EPOCH_COLUMNS",
    "FINAL_STATUSES",
    "NO_RECORD",
    "ROLE",
    "SEALED_COLUMNS",
    "STAGE_COLUMNS",
    "TABLE_SCHEMA",
    "TRIAL_MEASURES",
    "CellSummary",
    "Column",
    "DamagedError",
    "Failure",
    "Recorded",
    "Results",
    "Reveal",
    "Status",
    "SweepStatus",
    "append_planned",
    "collect",
    "describe_changes",
    "find_earlier_trials",
    "find_trial",
    "finite",
    "manifest_of",
    "now",
    "read_manifest",
    "read_record",
    "read_results",
    "read_row",
    "reveal",
    "reveals",
    "scored",
    "summarise",
    "sweep_status",
    "trial_columns",
    "unsealed",
    "validation_twin",
    "with_roles",
    "write_json",
    "write_manifest",
    "write_record",
    "write_table",
]
