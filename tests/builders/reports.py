"""Builds sweeps with curves, stages and errors, and the report pages of them."""

import hashlib
import math

import numpy as np

from orca_sweep import results as r
from orca_sweep.analysis.report import compute, draw, page
from orca_sweep.space.manifest import write_manifest
from tests.builders.manifests import sweep_manifest
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows

HOSTILE = "</script><script>alert(1)</script>"

IMAGE = '<img src=x onerror="alert(2)">'

TRACEBACK = f'Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: {HOSTILE}'


def history(values, stage="finetune", name="val_metric", first=1):
    return [{"stage": stage, "epoch": epoch, name: value} for epoch, value in enumerate(values, first)]


def with_curve(planned_and_row, *curves):
    planned, row = planned_and_row
    return planned, row, [epoch for curve in curves for epoch in curve]


def cell_rows_with_curves(levels, values, n_epochs=4, **more):
    """A cell's trials, whose validation metric falls to their value; naive trials have no embedder epochs."""
    trials = []
    for planned, row in cell_rows(levels, values, **{"wall_time_s": 5.0, **more}):
        value = row["test_metric_best"]
        curve = (
            history([value + 1 / epoch for epoch in range(1, n_epochs + 1)]) if value is not None else history([2.0])
        )
        embedder = history([9.0, 5.0, 3.0], "embedder", "objective", 0) if levels.get("proxy") != "none" else []
        trials.append(with_curve((planned, row), curve, embedder))
    return trials


def sweep_folder(
    folder, *parts, factors=("proxy",), name="s", question="Does it help?", revealed=True, errors=(), **more
):
    """A sweep of trials, each with its row and its epochs, if any; ``errors`` has tracebacks by position."""
    trials = [(*trial, []) if len(trial) == 2 else trial for part in parts for trial in part]
    errors = dict(errors)
    for position, (planned, row, epochs, *stages) in enumerate(trials):
        if row["status"] == "unfinished":
            continue
        ids = {"trial_id": planned["trial_id"], "cell_id": planned["cell_id"]}
        r.write_record(folder, {**row, **ids}, epochs, *stages)
        if position in errors:
            (folder / "trials" / planned["trial_id"] / "error.txt").write_text(errors[position])
    about = {"name": name, "question": question, "factors": list(factors), **more}
    write_manifest(folder, sweep_manifest(**about, trials=[planned for planned, *_ in trials]))
    if revealed:
        r.reveal(folder)
    return r.collect([folder], folder / "tables")


def two_cells(folder, **more):
    return sweep_folder(folder, cell_rows_with_curves(NONE, BASE), cell_rows_with_curves(MNIST, BETTER), **more)


def made_page(results, figures=(), *, has_forest=None, **asked):
    """The page with these figures; the forest of the effects comes with any figure, else only if it is asked for."""
    report = compute(results, **asked)
    has_forest = figures != () if has_forest is None else has_forest
    return page(report, draw(results, report.effects if has_forest else None, figures))


def hostile_sweep(folder):
    levels = [
        {"task": HOSTILE, "proxy": value, "finetune.freeze": IMAGE} for value in ("$x_", HOSTILE, "a\u2028\x1bb'\"&")
    ]
    bad = [(p, {**row, "error": IMAGE + HOSTILE}) for p, row in cell_rows(levels[2], [0.1, None])]
    parts = [cell_rows_with_curves(of_cell, [0.1, 0.2]) for of_cell in levels[:2]]
    return sweep_folder(
        folder, *parts, bad, factors=("task", "proxy", "finetune.freeze"), name=IMAGE, question=HOSTILE,
        errors={5: TRACEBACK},
    )  # fmt: skip


def big_results(n_cells=200, n_seeds=10, n_epochs=100):
    """Tables of 2,000 trials of 100 epochs, in memory."""
    import pandas as pd

    rng = np.random.default_rng(0)
    rows, epochs = [], []
    for cell in range(n_cells):
        for seed in range(n_seeds):
            name, status = f"{cell:08x}{seed:08x}", "failed" if rng.random() < 0.05 else "ok"
            curve = 0.3 + cell / 2000 + np.exp(-np.arange(n_epochs) / 20) + rng.normal(0, 0.01, n_epochs)
            rows.append({
                "trial_id": name, "cell_id": f"{cell:08x}", "role": "replicate", "space": "big", "status": status,
                "error": "RuntimeError: no" if status == "failed" else None, "metric": "error", "seed": seed,
                "test_metric_best": curve[-1] if status == "ok" else math.nan, "wall_time_s": rng.random() * 100,
                "state_sha256": hashlib.sha256(name.encode()).hexdigest(), "task": f"task {cell % 5}",
                "traceback": f"{name}\n" * 60 if status == "failed" else None, "proxy": f"proxy {cell // 5}",
                **{f"setting.{i}": i for i in range(45)}, **{f"measure_{i}": rng.random() for i in range(20)},
            })  # fmt: skip
            epochs.append(pd.DataFrame({"trial_id": name, "stage": "finetune", "epoch": range(1, n_epochs + 1),
                                        "val_metric": curve}))  # fmt: skip
    return r.Results(
        trials=pd.DataFrame(rows), epochs=pd.concat(epochs), factors=("task", "proxy"), metric="test_metric_best",
        spaces=("big",), questions=("?",),
    )  # fmt: skip
