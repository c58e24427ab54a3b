"""Trial records, and the Parquet tables made from them: columns with units and meanings, collecting and reading."""

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
from orca_sweep.results.custody import Reveal, now, read_reveals, reveal
from orca_sweep.results.reading import open_tables, read_results
from orca_sweep.results.records import (
    clear_attempt,
    make_json_safe,
    read_record,
    read_row,
    take_record,
    unseal_metrics,
    usable_record,
    write_record,
)
from orca_sweep.results.status import ACTIVITIES, Failure, SweepStatus, sweep_status
from orca_sweep.results.summary import (
    SEED_VARIES,
    Cell,
    CellTrial,
    TaskMetric,
    find_repeated_seeds,
    read_task_metrics,
    score_trials,
    summarise_cells,
)
from orca_sweep.results.tables import Results
from orca_sweep.store import write_json

__all__ = [
    "ACTIVITIES",
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
    "has_earlier_content",
    "make_json_safe",
    "now",
    "open_tables",
    "read_record",
    "read_results",
    "read_reveals",
    "read_row",
    "read_task_metrics",
    "reveal",
    "score_trials",
    "summarise_cells",
    "sweep_status",
    "take_record",
    "trial_columns",
    "unseal_metrics",
    "usable_record",
    "validation_twin",
    "write_json",
    "write_record",
    "write_table",
]
