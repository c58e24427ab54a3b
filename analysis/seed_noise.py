"""How large is the spread over seeds, and how many seeds does an effect need?

Run: python analysis/seed_noise.py results/quickstart

Prints the standard deviation over seeds of each cell, and how many seeds an effect of that size needs, and draws the
spreads into figures/seed_noise_of_cells.png.
"""

import io
import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import seed_noise
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] != "search")]
print(ok.groupby(["task", "cell_id", "role"], sort=False)["val_metric_best"].agg(["count", "mean", "std"]))

# Two cells share their seeds, so the spread of their difference is smaller, and fewer seeds suffice.
try:
    noise = seed_noise.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))
print(pd.read_csv(io.StringIO(seed_noise.numbers(noise))).dropna(axis="columns", how="all").to_string())

picture = folder / "figures" / "seed_noise_of_cells.png"
picture.parent.mkdir(exist_ok=True)
seed_noise.plot(noise).savefig(picture, dpi=150)
print(picture)
