"""Sweep folders as launch leaves them, made without training."""

import math

from orca_sweep import results as r
from orca_sweep.space.manifest import write_manifest
from orca_sweep.trial import make_config
from tests.builders.manifests import sweep_manifest


def sweep_folder(folder, seeds=(0, 1, 2), statuses=(), name="demo"):
    """Writes a sweep folder as launch leaves it, with these statuses, without training."""
    trials, n = [], 0
    for epochs in (0, 3):
        for seed in seeds:
            config = make_config({"task": "digits", "embedder.epochs": epochs}).model_copy(update={"seed": seed})
            ids = {"trial_id": config.trial_id, "cell_id": config.cell_id}
            trials.append({**ids, "seed": seed, "role": "replicate", "config": config.flat()})
            status = statuses[n] if n < len(statuses) else "ok"
            n += 1
            if status is None:
                continue
            row = {**ids, "status": status, "metric": "error", "test_metric_best": 0.5 + seed / 10, "n_steps": 7}
            history = [{"stage": "finetune", "epoch": e, "val_metric": 1 / e, "lr": 0.1} for e in (1, 2)]
            r.write_record(folder, row | ({"test_metric_best": math.nan} if status != "ok" else {}), history)
    write_manifest(folder, sweep_manifest(name=name, factors=["embedder.epochs"], trials=trials))
    r.reveal(folder)
    return folder
