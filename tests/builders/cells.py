"""Builds cells with chosen values, for tests without tables."""

import math
from dataclasses import replace

from orca_sweep.results import Cell, CellTrial
from orca_sweep.stats import t_interval


def make_cell(values, **fields):
    """A cell with these values by seed; NaN stands for a failed trial, any other value for an ok one."""
    about = {"cell_id": "c", "role": "replicate", "task": "t", "metric": "error", "levels": {}, "labels": {}}
    trials = tuple(make_trial(seed, float(value)) for seed, value in dict(values).items())
    return Cell(**{**about, **fields}, trials=trials, interval=t_interval([t.value for t in trials if t.counts]))


def make_trial(seed, value, **measures):
    return CellTrial(seed=seed, status="failed" if math.isnan(value) else "ok", value=value, measures=measures)


def with_values(cell, values, **measures):
    """The same cell with other values and measures by seed."""
    trials = tuple(
        make_trial(seed, value, **{name: by_seed[seed] for name, by_seed in measures.items()})
        for seed, value in values.items()
    )
    return replace(cell, trials=trials)
