"""Builds tables of sweeps that never ran: planned trials with the rows that they would have written."""

import csv
import hashlib
import io

from orca_sweep import results as r
from orca_sweep.space.manifest import write_manifest
from tests.builders.manifests import sweep_manifest


def trial(levels, seed, value=None, role="replicate", **more):
    """A planned trial and its row; dotted names in ``more`` are config fields."""
    cell = hashlib.sha1(repr(sorted(levels.items())).encode()).hexdigest()[:16] + ("-aa" if role == "aa" else "")
    config = {"task": "digits", **levels, "seed": seed, **{key: v for key, v in more.items() if "." in key}}
    row = {"status": "failed" if value is None else "ok", "metric": "error", "test_metric_best": value, **more}
    ids = hashlib.sha1(repr((config, role)).encode()).hexdigest()[:16]
    return {"trial_id": ids, "cell_id": cell, "seed": seed, "role": role, "config": config}, row


def cell_rows(levels, values, role="replicate", first_seed=0, **more):
    """A cell's trials, seed by seed; the value None stands for a failed trial."""
    return [trial(levels, seed, value, role, **more) for seed, value in enumerate(values, first_seed)]


def collected(folder, trials, factors=("proxy",), name="s", **manifest):
    """The tables of a sweep with these planned trials and rows; an unfinished trial has no record."""
    for planned, row in trials:
        if row["status"] != "unfinished":
            r.write_record(folder / name, {**row, "trial_id": planned["trial_id"], "cell_id": planned["cell_id"]}, [])
    planned = [planned for planned, _ in trials]
    write_manifest(folder / name, sweep_manifest(name=name, factors=list(factors), trials=planned, **manifest))
    r.reveal(folder / name)
    return r.collect([folder / name], folder / "tables")


def sweep(folder, *trials, **more):
    return collected(folder, [planned for part in trials for planned in part], **more)


def in_memory(trials, factors=("proxy",), name="s"):
    """The same tables as `collected` gives, without files: only what analyses of final metrics read."""
    import pandas as pd

    frame = pd.DataFrame([
        {**{key: planned[key] for key in ("trial_id", "cell_id", "seed", "role")}, **planned["config"], "space": name, **row}
        for planned, row in trials
    ])  # fmt: skip
    frame["test_metric_best"] = frame["test_metric_best"].astype(float)
    kinds = {"trial_id": str, "stage": str, "epoch": int, "objective": float, "val_metric": float}
    epochs = pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in kinds.items()})
    about = {"factors": tuple(factors), "metric": "test_metric_best", "spaces": (name,), "questions": ("?",)}
    return r.Results(trials=frame, epochs=epochs, **about)


NONE, MNIST = {"proxy": "none"}, {"proxy": "mnist5k"}

BASE = [0.30, 0.34, 0.32, 0.36, 0.38]

BETTER = [0.20, 0.23, 0.22, 0.27, 0.28]  # by 0.10, 0.11, 0.10, 0.09, 0.10


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def rows(table):
    return [row for block in table.blocks for row in block]
