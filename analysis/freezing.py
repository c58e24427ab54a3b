"""What do embedder and body each contribute, and what is lost where one of them is frozen?

Run: python analysis/freezing.py results/figure4_freezing

Prints the mean of each freeze schedule with and without embedder training, and draws them into figures/freezing.png.
"""

import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import figure4_freezing
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

# Schedules in rows, embedder epochs in columns.
trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
schedule = ["task", "finetune.freeze", "finetune.freeze_epochs"]
print(ok.groupby([*schedule, "embedder.epochs"])["val_metric_best"].mean().unstack())

try:
    record = figure4_freezing.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))

picture = folder / "figures" / "freezing.png"
picture.parent.mkdir(exist_ok=True)
figure4_freezing.plot(record).savefig(picture, dpi=150)
print(picture)
