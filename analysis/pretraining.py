"""How much pre-training does the body need, and can embedder training replace some of it?

Run: python analysis/pretraining.py results/figure5_pretraining

Prints the mean at each share of the pre-training corpus (0 is a random body), and draws figures/pretraining.png.
"""

import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import figure5_pretraining
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

# Shares in rows, embedder epochs in columns.
trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
print(ok.groupby(["task", "body.pretrain_fraction", "embedder.epochs"])["val_metric_best"].mean().unstack())

try:
    record = figure5_pretraining.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))

picture = folder / "figures" / "pretraining.png"
picture.parent.mkdir(exist_ok=True)
figure5_pretraining.plot(record).savefig(picture, dpi=150)
print(picture)
