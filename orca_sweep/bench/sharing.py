"""A whole sweep with and without sharing work between trials: a small version of the study's grid, on bundled data.

Proxy x embedder epochs x freeze schedule x seeds: 48 trials. A plain loop over all levels runs each of them on a separate
store. A sweep runs the same plan so that equal work is one trial, and stages and the first epochs of freeze schedules are
done once. Both run one after the other in this process, without Ray, so that only the work is timed.
"""

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.bench import Measurement, peak_memory_mib, time_call
from orca_sweep.config import TrialConfig
from orca_sweep.results import read_record, unseal_metrics
from orca_sweep.space import make_plan, read_space
from orca_sweep.space.prefixes import shared_epochs, shared_prefixes
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import make_config

SPACE = """
name: sharing
base: {task: digits, body.name: swin-micro, body.pretrain_fraction: 0, finetune.epochs: 12}
factors:
  proxy: [none, mnist5k]
  embedder.epochs: [0, 10, 20]
  finetune.freeze: [none, "body:4 > none", "body:8 > none", "embedder+body:4 > none"]
seeds: 2
"""
EQUAL = ("status", "state_sha256", "val_metric_best", "val_metric_last", "best_epoch", "n_steps", "objective_last")
Row = Mapping[str, Any]


def measure_all(repeats: int) -> list[Measurement]:
    """Runs the grid once in each way, and ignores ``repeats``: that is 72 trainings.

    Raises:
        RuntimeError: if a row differs between the two.
    """
    with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as name:
        folder = Path(name)
        path = folder / "sharing.yaml"
        path.write_text(SPACE, encoding="utf-8")
        plan = make_plan(read_space(path), make_config)
        every = list(_list_combinations(plan.space))
        _run_one(every[0], folder / "warm", Store(str(folder / "warm-store")))
        shared: dict[str, Row] = {}
        plain: list[tuple[TrialConfig, Row]] = []
        sharing = time_call(lambda: shared.update(_run_sharing(plan.trials, folder)))
        peak = peak_memory_mib()
        looping = time_call(lambda: plain.extend(_run_loop(every, folder)))
    differing = [config.trial_id for config, row in plain if not _is_equal(row, shared[config.trial_id])]
    if differing:
        raise RuntimeError(f"sharing changed these rows: {', '.join(differing)}")
    case = (
        f"{len(plain)} trials, {len(shared)} different ones; all {len(plain)} rows equal;"
        f" expected ratio {_expect_ratio(plain, [trial.config for trial in plan.trials]):.2f}"
    )
    measurement = Measurement(
        case=case,
        ours_s=sharing.cpu_s,
        other_s=looping.cpu_s,
        peak_memory_mib=peak,
        ours_wall_s=sharing.wall_s,
        other_wall_s=looping.wall_s,
    )
    return [measurement]


def _list_combinations(space: Any) -> Iterable[TrialConfig]:
    """Yields every combination of levels and seeds, even if two are the same work."""
    for levels in itertools.product(*space.factors.values()):
        for seed in space.seeds:
            yield make_config({**space.base, **dict(zip(space.factors, levels, strict=True)), "seed": seed})


def _run_one(config: TrialConfig, folder: Path, store: Store, **more: Any) -> Row:
    row = run_config(config, RunContext(folder=folder, worker=Worker(store), data_root=folder, **more))
    record = read_record(folder, config.trial_id) or {"row": {}}
    return {**row, **unseal_metrics(record), "epochs": record.get("epochs", [])}


def _run_loop(configs: Iterable[TrialConfig], folder: Path) -> Iterable[tuple[TrialConfig, Row]]:
    for i, config in enumerate(configs):
        yield config, _run_one(config, folder / f"plain-{i}", Store(str(folder / f"store-{i}")))


def _run_sharing(trials: Iterable[Any], folder: Path) -> dict[str, Row]:
    trials = list(trials)
    store, prefixes = Store(str(folder / "store")), shared_prefixes(trials)
    levels = {trial.config.embedder.epochs for trial in trials}
    return {
        trial.trial_id: _run_one(
            trial.config,
            folder / "shared",
            store,
            snapshot_epochs=levels,
            prefix_epochs=prefixes.get(trial.trial_id, ()),
        )
        for trial in trials
    }


def _is_equal(row: Row, other: Row) -> bool:
    tests = [name for name in row if name.startswith("test_metric")]
    return all(row.get(name) == other.get(name) for name in (*EQUAL, *tests))


def _expect_ratio(plain: Sequence[tuple[TrialConfig, Row]], different: Sequence[TrialConfig]) -> float:
    """Returns the ratio expected from counts of epochs and passes, each at its average cost in the plain loop.

    With sharing, the proxy passes once, each seed's embedder trains as long as the longest level, the first epochs of
    freeze schedules are done once, and equal work is one trial; the rest of a trial's time stays.
    """
    rows = [row for _, row in plain]
    epochs = [epoch for row in rows for epoch in row["epochs"] if epoch["epoch"] > 0]
    tuning = _average(epoch["wall_time_s"] for epoch in epochs if epoch["stage"] == "finetune")
    embedding = _average(epoch["wall_time_s"] for epoch in epochs if epoch["stage"] == "embedder")
    passing = _average(row["proxy_s"] for row in rows if "proxy_s" in row)
    inside = sum(epoch["wall_time_s"] for epoch in epochs) + sum(row.get("proxy_s", 0.0) for row in rows)
    rest = (sum(row["wall_time_s"] for row in rows) - inside) / len(rows)
    longest: dict[int, int] = {}
    for config in different:
        longest[config.seed] = max(longest.get(config.seed, 0), config.embedder.epochs)
    n_tuned = sum(config.finetune.epochs for config in different) - shared_epochs(different)
    shared = len(different) * rest + passing + sum(longest.values()) * embedding + n_tuned * tuning
    return sum(row["wall_time_s"] for row in rows) / shared


def _average(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
