"""Does more embedder training, and so a lower OTDD, mean a lower error?

Run: python analysis/otdd_vs_error.py results/figure3_otdd_vs_error

Prints objective and metric by embedder epochs and their rank correlation, and draws both into figures/otdd_vs_error.png.
"""

import sys
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import figure3_otdd_vs_error
from orca_sweep.errors import InputError
from orca_sweep.results import read_results

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
tables = folder / "tables" if (folder / "tables").is_dir() else folder

# objective_last is the alignment objective after embedder training; trials without embedder training have none.
trials = pd.read_parquet(tables / "trials.parquet")
ok = trials[(trials["status"] == "ok") & (trials["role"] == "replicate")]
print(ok.groupby(["task", "embedder.epochs"])[["objective_last", "val_metric_best"]].mean())

# Trials of the same seed are not independent, so the interval of the correlation treats seeds as clusters.
try:
    record = figure3_otdd_vs_error.compute(read_results(tables))
except InputError as error:
    sys.exit(str(error))
for panel, series in zip(record.panels, record.series, strict=True):
    for line in series:
        if line.correlation is not None:
            rho = line.correlation
            print(f"{panel.title}, {line.line.name}: rho {rho.rho:.2f} [{rho.rho_low:.2f}, {rho.rho_high:.2f}]")

picture = folder / "figures" / "otdd_vs_error.png"
picture.parent.mkdir(exist_ok=True)
figure3_otdd_vs_error.plot(record).savefig(picture, dpi=150)
print(picture)
