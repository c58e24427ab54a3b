"""Collecting 10,000 trials of 100 epochs into tables, against reading all records into a frame and writing that."""

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from orca_sweep.bench import Measurement, Times, peak_memory_mib, take_median, time_call
from orca_sweep.config import digest
from orca_sweep.results import collect, now, write_json, write_record
from orca_sweep.space.manifest import MANIFEST
from orca_sweep.space.records import Budget, Checkpoints, Limits, Resources
from orca_sweep.space.tuning import Search

N_TRIALS, N_EPOCHS, N_SEEDS = 10_000, 100, 10
CASE = f"{N_TRIALS} trials x {N_EPOCHS} epochs"


def measure_all(repeats: int) -> list[Measurement]:
    """Returns both cases: new records, and records that were collected before."""
    with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as name:
        sweep, tables = Path(name) / "sweep", Path(name) / "tables"
        _write_sweep(sweep)
        new = time_call(lambda: collect([sweep], tables))
        peak = peak_memory_mib()
        again = take_median(time_call(lambda: collect([sweep], tables)) for _ in range(repeats))
        naive = take_median(time_call(lambda: _collect_naively(sweep, Path(name) / "naive")) for _ in range(repeats))
        difference = _compare_tables(tables, Path(name) / "naive")

    def measure(kind: str, times: Times) -> Measurement:
        return Measurement(
            case=f"{CASE}, {kind}",
            ours_s=times.cpu_s,
            other_s=naive.cpu_s,
            peak_memory_mib=peak,
            ours_wall_s=times.wall_s,
            other_wall_s=naive.wall_s,
            difference=difference,
        )

    return [measure("new", new), measure("again", again)]


def _write_sweep(sweep: Path) -> None:
    """Writes the records that trials would write, with random numbers, and the manifest."""
    rng = random.Random(0)  # noqa: S311 - numbers to write, not secrets
    trials = []
    for i in range(N_TRIALS):
        seed, config = i % N_SEEDS, {"task": "digits", "finetune.lr": 1e-6 * (1 + i // N_SEEDS), "seed": i % N_SEEDS}
        ids = {"trial_id": digest("trial", config), "cell_id": digest("cell", i // N_SEEDS)}
        trials.append({**ids, "seed": seed, "role": "replicate", "config": config})
        epochs = [_make_epoch(epoch, rng) for epoch in range(1, N_EPOCHS + 1)]
        row: dict[str, Any] = {**ids, "status": "ok", "metric": "error", "started_at": now(), "n_steps": 10 * N_EPOCHS}
        measured = {name: rng.random() for name in ("val_metric_best", "val_metric_last", "test_metric_best")}
        write_record(sweep, row | measured, epochs, [{"stage": "finetune", "phase": 1, "wall_time_s": 1.0}])
    write_json(sweep / MANIFEST, {**make_manifest(), "trials": trials})


def make_manifest(factors: Sequence[str] = ("finetune.lr",)) -> dict[str, Any]:
    """Returns the sweep's manifest without its trials."""
    parts = {
        "resources": Resources(),
        "limits": Limits(),
        "checkpoints": Checkpoints(),
        "search": Search(),
        "budget": Budget(),
    }
    return {
        **{"name": "bench", "question": "", "metric": "test_metric_best", "factors": list(factors)},
        **{name: part.model_dump() for name, part in parts.items()},
        **{name: {} for name in ("labels", "tune", "outcomes", "margins")},
        **{name: [] for name in ("seeds", "aa", "loggers", "imports", "tuned")},
        **{"prune": None, "data": "data", "store": "store", "n_later": 0},
    }


def _make_epoch(epoch: int, rng: random.Random) -> dict[str, Any]:
    drawn = {name: rng.random() for name in ("train_loss", "val_loss", "val_metric", "wall_time_s")}
    fixed = {"stage": "finetune", "lr": 1e-3, "lr_integral": 1e-2, "n_steps": 10, "n_trainable": 12_345}
    return {"epoch": epoch, **fixed, **drawn}


def _collect_naively(sweep: Path, out: Path) -> None:
    records = [json.loads(path.read_bytes()) for path in sorted(sweep.glob("trials/*/row.json"))]
    out.mkdir(exist_ok=True)
    pd.DataFrame([record["row"] for record in records]).to_parquet(out / "trials.parquet")
    epochs = [{**epoch, "trial_id": r["row"]["trial_id"]} for r in records for epoch in r["epochs"]]
    pd.DataFrame(epochs).to_parquet(out / "epochs.parquet")


def _compare_tables(tables: Path, naive: Path) -> float:
    """Returns the relative difference between the sums of both sides' validation metrics."""
    a, b = (pd.read_parquet(folder / "epochs.parquet")["val_metric"].sum() for folder in (tables, naive))
    return float(abs(a - b) / abs(b))
