"""From trial records to Parquet tables and back: schemas with units and meanings, merge, read."""

from orca_sweep.results.collecting import Recorded, collect, find_trial, write_table
from orca_sweep.results.columns import (
    EPOCH_COLUMNS,
    FINAL_STATUSES,
    SEALED_COLUMNS,
    STAGE_COLUMNS,
    TABLE_SCHEMA,
    TRIAL_MEASURES,
    UNFINISHED,
    Column,
    Status,
    trial_columns,
    validation_twin,
)
from orca_sweep.results.contents import describe_changes, find_earlier_levels, find_earlier_trials, has_earlier_content
from orca_sweep.results.custody import Reveal, now, reveal, reveals
from orca_sweep.results.records import (
    clear_attempt,
    finite,
    read_record,
    read_row,
    unsealed,
    usable_record,
    write_record,
)
from orca_sweep.results.status import Failure, SweepStatus, sweep_status
from orca_sweep.results.summary import (
    SEED_VARIES,
    Cell,
    CellTrial,
    TaskMetric,
    find_repeated_seeds,
    read_task_metrics,
    scored,
    summarise_cells,
)
from orca_sweep.results.tables import Results, read_results
from orca_sweep.store import write_json

__all__ = [
    "EPOCH_COLUMNS",
    "FINAL_STATUSES",
    "SEALED_COLUMNS",
    "SEED_VARIES",
    "STAGE_COLUMNS",
    "TABLE_SCHEMA",
    "TRIAL_MEASURES",
    "UNFINISHED",
    "Cell",
    "CellTrial",
    "Column",
    "Failure",
    "Recorded",
    "Results",
    "Reveal",
    "Status",
    "SweepStatus",
    "TaskMetric",
    "clear_attempt",
    "collect",
    "describe_changes",
    "find_earlier_levels",
    "find_earlier_trials",
    "find_repeated_seeds",
    "find_trial",
    "finite",
    "has_earlier_content",
    "now",
    "read_record",
    "read_results",
    "read_row",
    "read_task_metrics",
    "reveal",
    "reveals",
    "scored",
    "summarise_cells",
    "sweep_status",
    "trial_columns",
    "unsealed",
    "usable_record",
    "validation_twin",
    "write_json",
    "write_record",
    "write_table",
]
