"""Builds tables of several tasks in which claims come out in every way, as a suite of the study has them."""

from dataclasses import replace

from tests.builders.claims import FACTORS, NAIVE, cell, frozen, noise, pretrained, trained
from tests.builders.tables import in_memory

DIMENSIONS = {"digits": 2, "terrain": 2, "brain-tissue": 2, "watch-exercises": 1, "vowels": 1, "peptides": 1}
METRICS = ("val_metric_best", "val_metric_last", "test_metric_best", "test_metric_last")
AMOUNTS = (5, 20, 60)
USUAL = {
    "amounts": (0.300, 0.301, 0.302), "proxies": (0.301, 0.3005), "body": 0.38, "embedder": 0.305, "none": 0.33,
}  # fmt: skip
"""True errors of a task where naive has 0.30: of three amounts, two other proxies, body and embedder frozen, no pre-training."""
TASKS = {
    "digits": {},
    "terrain": {"proxies": (0.301, 0.335), "none": 0.301},
    "brain-tissue": {"amounts": (0.299, 0.291, 0.262), "body": 0.312, "embedder": 0.34},
    "watch-exercises": {"amounts": (0.27, 0.262, 0.261), "none": 0.302},
    "vowels": {"amounts": (0.285, 0.26, 0.22), "body": 0.3315},
    "peptides": {"amounts": (0.3, 0.2925, 0.2915), "none": 0.299},
}


def suite_trials(task, dims, seeds=range(5), spread=5, mode="min", **truths):
    """The trials of a task, from the true error of each of its cells."""
    truth = {**USUAL, **truths}
    cells = [(NAIVE, 0.30), *((trained(n), error) for n, error in zip(AMOUNTS, truth["amounts"], strict=True))]
    middle = truth["amounts"][1]
    cells += [
        (trained(proxy=name), error - 0.301 + middle)
        for name, error in zip(("fonts", "noise"), truth["proxies"], strict=True)
    ]
    cells += [(frozen(part), truth[part] - 0.30 + middle) for part in ("body", "embedder")]
    cells += [({**pretrained(0.0)}, truth["none"] - 0.30 + middle)]
    trials = []
    for levels, error in cells:
        epochs = levels["embedder.epochs"]
        body = "bundled-text" if dims == 1 else "bundled-image"
        for planned, row in cell(task, levels, error, seeds, body=body):
            objective = {"objective_last": 50 - 0.2 * epochs + planned["seed"]} if epochs else {}
            value = error + 0.02 * planned["seed"] + spread * noise(f"{task} {levels}", planned["seed"])
            metrics = dict.fromkeys(METRICS, value if mode == "min" else 1 - value) | {"metric_mode": mode}
            trials.append((planned, {**row, **metrics, "dims": dims, **objective}))
    return trials


def suite(tasks=TASKS, names=("study-offline",), margin=0.01, **more):
    """Tables in memory of these tasks; ``margin`` is that of every task, or None."""
    trials = [
        each for task, truths in tasks.items() for each in suite_trials(task, DIMENSIONS.get(task, 2), **truths, **more)
    ]
    fixed = dict.fromkeys(tasks, (("study-offline", margin),)) if margin else {}
    questions = ("What matters in ORCA's recipe?",)
    return replace(in_memory(trials, FACTORS), margins=fixed, spaces=tuple(names), questions=questions)
