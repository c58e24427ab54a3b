"""Does it matter which proxy the embedder is aligned to, or whether it is aligned at all?

Run: python analysis/proxies.py results/figure2_proxies

Prints the mean of each proxy, and draws fine-tuning curves and final metrics into figures/proxies.png.
"""

import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import figure2_proxies
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

# One row per trial. Tuning candidates and A/A cells are not replicates of a cell.
trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
print(f"{len(ok)} of {len(trials)} trials are ok")
print(ok.groupby(["task", "proxy"])["val_metric_best"].agg(["count", "mean", "std"]))

# The record holds every number of the figure: means, intervals, curves.
try:
    record = figure2_proxies.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))

picture = folder / "figures" / "proxies.png"
picture.parent.mkdir(exist_ok=True)
figure2_proxies.plot(record).savefig(picture, dpi=150)
print(picture)
