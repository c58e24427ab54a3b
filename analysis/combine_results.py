"""Combines the tables of many sweeps and compares their cells with plain pandas.

Run: python analysis/combine_results.py results/quickstart results/figure4_freezing --out results/combined

Takes sweep folders (also while they run) and folders of tables made elsewhere. Writes trials.parquet, epochs.parquet, and
stages.parquet into the folder after --out. A trial that is in several sweeps appears once.
"""

import sys
from pathlib import Path

import pandas as pd

from orca_sweep.errors import InputError
from orca_sweep.results import collect

if "--out" not in sys.argv[2:-1]:
    sys.exit(__doc__)
i = sys.argv.index("--out")
sweeps, out = [Path(word) for word in sys.argv[1:i]], Path(sys.argv[i + 1])

try:
    results = collect(sweeps, out)
except InputError as error:
    sys.exit(str(error))

# The rest is plain pandas. These tables hold every trial, including failed and unfinished ones.
trials = pd.read_parquet(out / "trials.parquet")
print(f"{len(trials)} trials of {trials['cell_id'].nunique()} cells in {out / 'trials.parquet'}")
print(trials.groupby(["space", "status"]).size().unstack(fill_value=0))

ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
factors = [factor for factor in results.factors if factor in ok]
summary = ok.groupby(["task", *(factor for factor in factors if factor != "task")], dropna=False)[results.metric]
print(f"\n{results.metric}, over seeds:")
print(summary.agg(["count", "mean", "std"]).to_string())
