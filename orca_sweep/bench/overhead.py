"""The cost of our layer over Ray Tune: trials that do nothing, against a plain Tuner that reuses its workers.

Seconds are wall-clock seconds, which a user waits for; one case counts the CPU seconds of the driver.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from orca_sweep.bench import Measurement, Times, peak_memory_mib, take_median, time_call
from orca_sweep.results import write_record
from orca_sweep.space import Budget, Plan, make_plan, read_space
from orca_sweep.sweep.lanes import Member, Setup, make_lanes
from orca_sweep.sweep.params import read_config
from orca_sweep.sweep.running import join_ray
from orca_sweep.sweep.tuner import run_lanes
from orca_sweep.trial import Records, Remembering, make_config

N_TRIALS = 200
N_QUEUED = 5000
SPACE = """
name: overhead
base: {{task: digits, body.name: swin-micro, proxy: none, body.pretrain_fraction: 0}}
factors: {{finetune.lr: [{rates}]}}
seeds: {n_seeds}
"""


def measure_all(repeats: int) -> list[Measurement]:
    """Runs all cases in this process, on one Ray."""
    # The plain Tuner is stopped early on purpose, and logs that at length.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="orca-sweep-bench-") as folder, join_ray("local"):
        _run_bare_tuner(8, Path(folder) / "warm", None)
        return [
            *_measure_trivial_trials(Path(folder), repeats),
            _measure_first_trial(Path(folder)),
            _measure_planning(Path(folder)),
        ]


def _measure_trivial_trials(folder: Path, repeats: int) -> Iterator[Measurement]:
    """Measures both sides in turn, so that a change of the machine's load affects both."""
    plan = _make_plan(folder, N_TRIALS)
    sweeps: list[Times] = []
    tuners: list[Times] = []
    for i in range(max(1, repeats)):
        tuners.append(time_call(partial(_run_bare_tuner, N_TRIALS, folder / f"bare-{i}", None)))
        sweeps.append(time_call(partial(_run_sweep, plan, folder / f"ours-{i}")))
    peak = peak_memory_mib()
    sweep, tuner = take_median(sweeps), take_median(tuners)
    seconds = {"by the clock": (sweep.wall_s, tuner.wall_s), "driver's CPU": (sweep.cpu_s, tuner.cpu_s)}
    for name, (ours_s, other_s) in seconds.items():
        yield Measurement(
            case=f"{N_TRIALS} trials that do nothing, {name}",
            ours_s=ours_s,
            other_s=other_s,
            peak_memory_mib=peak,
            ours_wall_s=sweep.wall_s,
            other_wall_s=tuner.wall_s,
        )


def _measure_planning(folder: Path) -> Measurement:
    """Measures a large plan whose cells share what they have in common, against resolving each cell as a whole."""
    rates = [round(1e-5 * (i + 1), 10) for i in range(50)]
    path = folder / "planned.yaml"
    path.write_text(
        f"base: {{task: digits, proxy: mnist5k}}\nfactors: {{finetune.lr: {rates}, embedder.lr: {rates},"
        " finetune.freeze: [none, body]}\nseeds: 1\n"
    )
    remembering = time_call(lambda: make_plan(read_space(path), Remembering(partial(make_config, records=Records()))))
    peak = peak_memory_mib()
    plain = time_call(lambda: make_plan(read_space(path), make_config))
    return Measurement(
        case=f"{2 * len(rates) ** 2} trials planned",
        ours_s=remembering.cpu_s,
        other_s=plain.cpu_s,
        peak_memory_mib=peak,
        ours_wall_s=remembering.wall_s,
        other_wall_s=plain.wall_s,
    )


def _measure_first_trial(folder: Path) -> Measurement:
    """Measures from the YAML to the end of the first trial, with thousands planned behind it."""
    sweep = time_call(lambda: _run_sweep(_make_plan(folder, N_QUEUED), folder / "queued", most=1))
    peak = peak_memory_mib()
    tuner = time_call(lambda: _run_bare_tuner(N_QUEUED, folder / "queued-bare", most=1))
    return Measurement(
        case=f"first of {N_QUEUED} trials, by the clock",
        ours_s=sweep.wall_s,
        other_s=tuner.wall_s,
        peak_memory_mib=peak,
        ours_wall_s=sweep.wall_s,
        other_wall_s=tuner.wall_s,
    )


def _make_plan(folder: Path, n: int) -> Plan:
    rates = ", ".join(f"{1e-6 * (i + 1):.6g}" for i in range(n // 10))
    path = folder / "overhead.yaml"
    path.write_text(SPACE.format(rates=rates, n_seeds=10), encoding="utf-8")
    return make_plan(read_space(path), make_config)


def _run_sweep(plan: Plan, out: Path, most: int | None = None) -> None:
    if most is not None:
        plan = replace(plan, space=replace(plan.space, budget=Budget(trials=most)))
    out.mkdir()
    setup = Setup(out=out, store=str(out / "store"), data_root=out, address="local")

    def do_nothing(params: dict[str, Any]) -> None:
        config = read_config(params)
        row = {"trial_id": config.trial_id, "cell_id": config.cell_id, "status": "ok", "val_metric_best": 0.0}
        write_record(out, row, [])
        tune.report({"stage": "done", "status": "ok"})

    run_lanes(make_lanes([Member(plan=plan, setup=setup, watch=lambda event, facts: None)]), do_nothing)


class _First(tune.Stopper):
    """Ends an experiment after its first report."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.seen = True
        return True

    def stop_all(self) -> bool:
        return self.seen


def _run_bare_tuner(n: int, out: Path, most: int | None) -> None:
    """Runs a Tuner as its documentation shows it, with reused workers."""

    def do_nothing(params: dict[str, Any]) -> None:
        tune.report({"done_nothing": params["i"]})

    tune.Tuner(
        tune.with_resources(do_nothing, {"cpu": 1}),
        param_space={"i": tune.grid_search(list(range(n)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="bare", storage_path=str(out), verbose=0, stop=_First() if most is not None else None
        ),
    ).fit()
