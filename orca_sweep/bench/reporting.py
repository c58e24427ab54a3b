"""The report of 10,000 trials as a whole process, against writing the same tables as JSON with pandas."""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from orca_sweep.bench import Measurement
from orca_sweep.bench.collecting import make_manifest
from orca_sweep.config import digest
from orca_sweep.results import EPOCH_COLUMNS, TRIAL_MEASURES, collect, write_json, write_record
from orca_sweep.space.manifest import MANIFEST
from orca_sweep.trial import make_config

N_EPOCHS = 30
LEVELS: Mapping[str, Sequence[Any]] = {
    "proxy": [f"mnist{n}k" for n in range(1, 21)],
    "embedder.epochs": list(range(0, 100, 10)),
    "finetune.lr": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3],
    "body.pretrain_fraction": [0.0, 1.0],
}
GRIDS = (((5, 10, 5, 2), 20), ((20, 10, 5, 2), 5))
"""How many levels of each factor a sweep has, and how many seeds; 10,000 trials each."""
SHARE_FAILED, SHARE_DIVERGED = 0.03, 0.01
NAIVE = """
import json, sys
import pandas as pd
frames = [pd.read_parquet(f"{sys.argv[1]}/{name}.parquet") for name in ("trials", "epochs", "stages")]
with open(sys.argv[2], "w") as file:
    json.dump([json.loads(frame.to_json(orient="records")) for frame in frames], file)
"""


def measure_all(repeats: int) -> Iterator[Measurement]:
    """Yields a case for few cells of many seeds, and one for many cells of few seeds."""
    for n_levels, n_seeds in GRIDS:
        with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as name:
            yield _measure_grid(Path(name), n_levels, n_seeds, repeats)


def _measure_grid(folder: Path, n_levels: Sequence[int], n_seeds: int, repeats: int) -> Measurement:
    sweep, tables = folder / "sweep", folder / "tables"
    n_cells = write_sweep(sweep, n_levels, n_seeds)
    collect([sweep], tables)
    report = ["-m", "orca_sweep.cli", "report", str(tables), "-o", str(folder / "report.html")]
    naive = ["-c", NAIVE, str(tables), str(folder / "rows.json")]
    (cpu_s, wall_s, peak), (other_cpu_s, other_wall_s, _) = (_run_repeatedly(args, repeats) for args in (report, naive))
    return Measurement(
        case=f"report of {n_cells} cells x {n_seeds} seeds",
        ours_s=cpu_s,
        other_s=other_cpu_s,
        peak_memory_mib=peak,
        ours_wall_s=wall_s,
        other_wall_s=other_wall_s,
    )


def _run_repeatedly(arguments: Sequence[str], repeats: int) -> tuple[float, float, float]:
    """Returns the median CPU seconds and wall-clock seconds of a Python process, and its median memory peak in MiB."""
    cpu_s, wall_s, peaks = zip(*(_run_process(arguments) for _ in range(repeats)), strict=True)
    return statistics.median(cpu_s), statistics.median(wall_s), statistics.median(peaks)


def _run_process(arguments: Sequence[str]) -> tuple[float, float, float]:
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], dict(os.environ), file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"the process {' '.join(arguments[:3])} failed")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start, peak


def write_sweep(folder: Path, n_levels: Sequence[int], n_seeds: int) -> int:
    """Writes a sweep folder with random numbers, as trials would leave it, and returns the number of its cells.

    Args:
        folder: the sweep folder.
        n_levels: how many levels of each of ``LEVELS`` the grid has.
        n_seeds: trials per cell; some fail or diverge.
    """
    rng = random.Random(0)  # noqa: S311 numbers to write, not secrets
    plain = make_config({"task": "digits"}).flat()
    grid = list(product(*(levels[:n] for levels, n in zip(LEVELS.values(), n_levels, strict=True))))
    trials = []
    for combination in grid:
        cell = {**plain, **dict(zip(LEVELS, combination, strict=True))}
        effect, cell_id = rng.gauss(0, 0.03), digest("cell", combination)
        for seed in range(n_seeds):
            ids = {"trial_id": digest("trial", [*combination, seed]), "cell_id": cell_id}
            trials.append({**ids, "seed": seed, "role": "replicate", "config": {**cell, "seed": seed}})
            _write_trial(folder, ids, 0.3 + effect + rng.gauss(0, 0.01), rng)
    write_json(folder / MANIFEST, {**make_manifest(list(LEVELS)), "metric": "val_metric_best", "trials": trials})
    return len(grid)


def _write_trial(folder: Path, ids: Mapping[str, str], value: float, rng: random.Random) -> None:
    draw = rng.random()
    status = "failed" if draw < SHARE_FAILED else "diverged" if draw < SHARE_FAILED + SHARE_DIVERGED else "ok"
    row: dict[str, Any] = {column.name: _draw_value(column.name, column.type, rng) for column in TRIAL_MEASURES}
    about = {"metric": "error", "metric_mode": "min", "metric_unit": "share of wrong labels", "dims": 2, "error": None}
    row |= {**ids, **about, "status": status, "best_epoch": N_EPOCHS, "reused": "", "n_test_unscored": 0}
    n_epochs = N_EPOCHS
    if status != "ok":
        n_epochs, row["error"] = rng.randrange(N_EPOCHS), "RuntimeError: the sampler met an empty class"
        row |= {name: None for name in row if "metric_best" in name or "metric_last" in name}
    else:
        row |= {"val_metric_best": value, "val_metric_last": value}
    epochs = [
        {"stage": "finetune", "epoch": epoch, "n_steps": 10, "val_metric": value + 1 / epoch, **_draw_epoch(rng)}
        for epoch in range(1, n_epochs + 1)
    ]
    write_record(folder, row, epochs, [{"stage": "finetune", "phase": 1, "wall_time_s": 1.0}])
    if status == "failed":
        lines = "".join(f'  File "training/run.py", line {rng.randrange(300)}, in run_stage\n' for _ in range(20))
        (folder / "trials" / ids["trial_id"] / "error.txt").write_text(f"Traceback:\n{lines}{row['error']}\n")


def _draw_value(name: str, kind: str, rng: random.Random) -> Any:
    if kind == "double":
        return round(rng.random() * 100, 6)
    if kind == "int64":
        return rng.randrange(3, 5) * 1000
    if kind == "time":
        return f"2026-11-{rng.randrange(10, 30)}T10:{rng.randrange(10, 60)}:00+00:00"
    if kind == "bool" or name.startswith(("content.", "test_more")) or name.endswith("_declared"):
        return None
    return f"{rng.getrandbits(256):064x}" if name == "state_sha256" else f"{name} {rng.randrange(2)}"


def _draw_epoch(rng: random.Random) -> dict[str, float]:
    doubles = {c.name for c in EPOCH_COLUMNS if c.type == "double"} - {"val_metric", "objective"}
    return {name: rng.random() for name in sorted(doubles)}
