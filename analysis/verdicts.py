"""Does each cell help or hurt against the base cell, or make no meaningful difference?

Run: python analysis/verdicts.py results/quickstart

Prints the paired differences with pandas and the verdicts of the library, and draws a forest plot into figures/verdicts.png.
"""

import io
import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import table_effects
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

# Trials of the same seed see the same batches: subtract seed by seed, then average. The first cell is the base.
trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
for task, rows in ok.groupby("task", sort=False):
    by_seed = rows.pivot(index="seed", columns="cell_id", values="val_metric_best")[rows["cell_id"].unique()]
    print(f"{task}, cell minus first cell:")
    print(by_seed.sub(by_seed.iloc[:, 0], axis=0).agg(["count", "mean", "std"]).T)

# The library adds the interval, Holm's correction over all cells, and the margin that the space fixes.
try:
    effects = table_effects.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))
verdicts = pd.read_csv(io.StringIO(table_effects.numbers(effects)))
print(verdicts[["task", "cell_id", "n_pairs", "difference", "low", "high", "verdict", "margin"]].to_string())

picture = folder / "figures" / "verdicts.png"
picture.parent.mkdir(exist_ok=True)
table_effects.plot(effects).savefig(picture, dpi=150)
print(picture)
