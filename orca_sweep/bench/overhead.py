"""What our layer adds to Ray Tune: trials that do nothing, beside a bare Tuner that reuses its workers.

Seconds are by the clock, since that is what a user waits for; of the driver's own processor seconds there is a case too.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from orca_sweep.bench import Measurement, peak_memory_mib, timed
from orca_sweep.config import TrialConfig
from orca_sweep.planning.agenda import Agenda, AgendaHooks
from orca_sweep.results import read_row, write_record
from orca_sweep.space import Budget, Plan, make_plan, read_space
from orca_sweep.sweep.running import Setup, fit, joined
from orca_sweep.trial import Records, Remembering, make_config, shared_stages

N_TRIALS = 200
N_QUEUED = 5000
SPACE = """
name: overhead
base: {{task: digits, body.name: swin-micro, proxy: none, body.pretrain_fraction: 0}}
factors: {{finetune.lr: [{rates}]}}
seeds: {n_seeds}
"""


def measurements(repeats: int) -> list[Measurement]:
    """Runs all cases in this process, on one Ray."""
    # The bare side is cut short on purpose, and says so at length.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as folder, joined("local"):
        _bare(8, Path(folder) / "warm", None)
        return [*_trivial(Path(folder), repeats), _queued(Path(folder)), _planned(Path(folder))]


def _trivial(folder: Path, repeats: int) -> Iterator[Measurement]:
    """Ours and bare in turn, so that a change of the machine's load meets both."""
    plan = _plan(folder, N_TRIALS)
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for i in range(max(1, repeats)):
        bare.append(timed(partial(_bare, N_TRIALS, folder / f"bare-{i}", None)))
        ours.append(timed(partial(_ours, plan, folder / f"ours-{i}")))
    peak = peak_memory_mib()
    for column, name in ((1, "by the clock"), (0, "driver's CPU")):
        a, b = (statistics.median(pair[column] for pair in pairs) for pairs in (ours, bare))
        wall, bare_wall = (statistics.median(pair[1] for pair in pairs) for pairs in (ours, bare))
        yield Measurement(f"{N_TRIALS} trials that do nothing, {name}", a, b, b / a, peak, wall, bare_wall, 0.0)


def _planned(folder: Path) -> Measurement:
    """A large plan whose cells share what they have in common, beside one that resolves each of them whole."""
    rates = [round(1e-5 * (i + 1), 10) for i in range(50)]
    path = folder / "planned.yaml"
    path.write_text(
        f"base: {{task: digits, proxy: mnist5k}}\nfactors: {{finetune.lr: {rates}, embedder.lr: {rates},"
        " finetune.freeze: [none, body]}\nseeds: 1\n"
    )
    ours = timed(lambda: make_plan(read_space(path), Remembering(partial(make_config, records=Records()))))
    peak = peak_memory_mib()
    other = timed(lambda: make_plan(read_space(path), make_config))
    name = f"{2 * len(rates) ** 2} trials planned"
    return Measurement(name, ours[0], other[0], other[0] / ours[0], peak, ours[1], other[1], 0.0)


def _queued(folder: Path) -> Measurement:
    """From the YAML to the end of the first trial, with thousands planned behind it."""
    start = time.perf_counter()
    plan = _plan(folder, N_QUEUED)
    _ours(plan, folder / "queued", most=1)
    ours = time.perf_counter() - start
    peak = peak_memory_mib()
    start = time.perf_counter()
    _bare(N_QUEUED, folder / "queued-bare", most=1)
    other = time.perf_counter() - start
    return Measurement(f"first of {N_QUEUED} trials, by the clock", ours, other, other / ours, peak, ours, other, 0.0)


def _plan(folder: Path, n: int) -> Plan:
    rates = ", ".join(f"{1e-6 * (i + 1):.6g}" for i in range(n // 10))
    path = folder / "overhead.yaml"
    path.write_text(SPACE.format(rates=rates, n_seeds=10), encoding="utf-8")
    return make_plan(read_space(path), make_config)


def _ours(plan: Plan, out: Path, most: int | None = None) -> None:
    if most is not None:
        plan = replace(plan, space=replace(plan.space, budget=Budget(trials=most)))
    out.mkdir()
    records = Records()
    hooks = AgendaHooks(
        read_row=partial(read_row, out),
        resolve=make_config,
        name_shared=lambda config: shared_stages(records.resolve_config(config)),
    )
    agenda = Agenda(plan, hooks)

    def work(params: dict[str, Any]) -> None:
        config = TrialConfig.model_validate(params["trial"]["config"])
        row = {"trial_id": config.trial_id, "cell_id": config.cell_id, "status": "ok", "val_metric_best": 0.0}
        write_record(out, row, [])
        tune.report({"stage": "done", "status": "ok"})

    fit(plan, agenda, Setup(out, str(out / "store"), out, "local"), lambda event, what: None, work)


class _First(tune.Stopper):
    """Ends an experiment with its first report."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.seen = True
        return True

    def stop_all(self) -> bool:
        return self.seen


def _bare(n: int, out: Path, most: int | None) -> None:
    """A Tuner as its own documentation shows it, with workers used again."""

    def work(params: dict[str, Any]) -> None:
        tune.report({"done_nothing": params["i"]})

    tune.Tuner(
        tune.with_resources(work, {"cpu": 1}),
        param_space={"i": tune.grid_search(list(range(n)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="bare", storage_path=str(out), verbose=0, stop=_First() if most is not None else None
        ),
    ).fit()
