"""A whole sweep with and without what its trials share: the study's grid, small, on the embedded default.

Proxy x embedder epochs x freeze schedule x seeds: 48 trials as a plain loop over all levels would run them, each on a store
of its own. Beside them the same plan as a sweep runs it: equal work is one trial, and stages and the epochs that freeze
schedules begin with are done once. Both sides run one after the other in this process, without Ray, so that seconds
are those of the work alone.
"""

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orca_sweep.bench import Measurement, peak_memory_mib, timed
from orca_sweep.config import TrialConfig
from orca_sweep.results import read_record, unseal_metrics
from orca_sweep.space import make_plan, read_space
from orca_sweep.space.prefixes import shared_epochs, shared_prefixes
from orca_sweep.store import Store
from orca_sweep.training.run import run_trial
from orca_sweep.training.worker import Worker
from orca_sweep.trial import resolve

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


def measurements(repeats: int) -> list[Measurement]:
    """Runs the grid both ways once, whatever ``repeats`` says: it is 72 trainings.

    Raises:
        RuntimeError: if a row of the one is not that of the other.
    """
    with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as name:
        folder = Path(name)
        path = folder / "sharing.yaml"
        path.write_text(SPACE, encoding="utf-8")
        plan = make_plan(read_space(path), resolve)
        every = list(_combinations(plan.space))
        _run(every[0], folder / "warm", Store(str(folder / "warm-store")))
        shared: dict[str, Row] = {}
        plain: list[tuple[TrialConfig, Row]] = []
        cpu, wall = timed(lambda: shared.update(_shared(plan.trials, folder)))
        peak = peak_memory_mib()
        plain_cpu, plain_wall = timed(lambda: plain.extend(_plain(every, folder)))
    differing = [config.trial_id for config, row in plain if not _is_equal(row, shared[config.trial_id])]
    if differing:
        raise RuntimeError(f"rows that sharing has changed: {', '.join(differing)}")
    case = (
        f"{len(plain)} trials, {len(shared)} different ones; all {len(plain)} rows equal;"
        f" the model says {_model(plain, [trial.config for trial in plan.trials]):.2f}"
    )
    return [Measurement(case, cpu, plain_cpu, plain_cpu / cpu, peak, wall, plain_wall, 0.0)]


def _combinations(space: Any) -> Iterable[TrialConfig]:
    """Every combination of levels and seeds, those that are the same work too."""
    for levels in itertools.product(*space.factors.values()):
        for seed in space.seeds:
            yield resolve({**space.base, **dict(zip(space.factors, levels, strict=True)), "seed": seed})


def _run(config: TrialConfig, folder: Path, store: Store, **more: Any) -> Row:
    row = run_trial(config, folder, Worker(store), folder, **more)
    record = read_record(folder, config.trial_id) or {"row": {}}
    return {**row, **unseal_metrics(record), "epochs": record.get("epochs", [])}


def _plain(configs: Iterable[TrialConfig], folder: Path) -> Iterable[tuple[TrialConfig, Row]]:
    for i, config in enumerate(configs):
        yield config, _run(config, folder / f"plain-{i}", Store(str(folder / f"store-{i}")))


def _shared(trials: Iterable[Any], folder: Path) -> dict[str, Row]:
    trials = list(trials)
    store, prefixes = Store(str(folder / "store")), shared_prefixes(trials)
    levels = {trial.config.embedder.epochs for trial in trials}
    return {
        trial.trial_id: _run(
            trial.config,
            folder / "shared",
            store,
            snapshot_epochs=levels,
            prefix_epochs=prefixes.get(trial.trial_id, ()),
        )
        for trial in trials
    }


def _is_equal(one: Row, other: Row) -> bool:
    tests = [name for name in one if name.startswith("test_metric")]
    return all(one.get(name) == other.get(name) for name in (*EQUAL, *tests))


def _model(plain: Sequence[tuple[TrialConfig, Row]], different: Sequence[TrialConfig]) -> float:
    """The ratio that counting says: epochs and passes, each at what it costs on average in the plain run.

    Shared, the proxy is passed once, each seed's embedder is trained as long as the longest level, fine-tuning epochs that
    schedules begin with are done once, and equal work is one trial; whatever else a trial takes stays.
    """
    rows = [row for _, row in plain]
    epochs = [epoch for row in rows for epoch in row["epochs"] if epoch["epoch"] > 0]
    tuning = _mean(epoch["wall_time_s"] for epoch in epochs if epoch["stage"] == "finetune")
    embedding = _mean(epoch["wall_time_s"] for epoch in epochs if epoch["stage"] == "embedder")
    passing = _mean(row["proxy_s"] for row in rows if "proxy_s" in row)
    inside = sum(epoch["wall_time_s"] for epoch in epochs) + sum(row.get("proxy_s", 0.0) for row in rows)
    rest = (sum(row["wall_time_s"] for row in rows) - inside) / len(rows)
    longest: dict[int, int] = {}
    for config in different:
        longest[config.seed] = max(longest.get(config.seed, 0), config.embedder.epochs)
    n_tuned = sum(config.finetune.epochs for config in different) - shared_epochs(different)
    shared = len(different) * rest + passing + sum(longest.values()) * embedding + n_tuned * tuning
    return sum(row["wall_time_s"] for row in rows) / shared


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
