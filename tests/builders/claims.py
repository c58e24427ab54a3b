"""Builds tables in which the truth of each of the study's claims is known."""

import zlib

import numpy as np

from tests.builders.tables import collected, trial

DIMS = {"image": 2, "picture": 2, "signal": 1}

FACTORS = ("task", "proxy", "embedder.epochs", "finetune.freeze", "finetune.freeze_epochs", "body.pretrain_fraction")

PLAIN = {"finetune.freeze": "none", "finetune.freeze_epochs": "0", "body.pretrain_fraction": 1.0}

NAIVE = {**PLAIN, "proxy": "none", "embedder.epochs": 0, "embedder.objective": "none"}

SEEDS = 6


def trained(epochs=20, proxy="mnist5k", **more):
    levels = {"proxy": proxy, "embedder.epochs": epochs, "embedder.objective": "otdd-exact"}
    return {**PLAIN, **levels, **{path.replace("__", "."): level for path, level in more.items()}}


def frozen(what, length="forever", **more):
    return {**trained(**more), "finetune.freeze": what, "finetune.freeze_epochs": length}


def pretrained(fraction):
    return {**trained(), "body.pretrain_fraction": fraction}


def noise(name, seed):
    """Noise of a cell at a seed, the same in every run."""
    return float(np.random.default_rng([zlib.crc32(name.encode()), seed]).normal(0, 0.001))


def cell(task, levels, value, seeds=range(SEEDS), **more):
    """Trials of a cell whose true error is ``value``; the labels of its proxy act."""
    name = repr((task, sorted(levels.items())))
    more = {"proxy_labels_act": levels["embedder.epochs"] > 0 or None, **more}
    trials = []
    for seed in seeds:
        error = value + 0.02 * seed + noise(name, seed)
        trials.append(trial({"task": task, **levels}, seed, error, dims=DIMS.get(task), **more))
    return trials


def world(task, naive=0.3, amounts=None, proxies=None, freezes=None, fractions=None, **more):
    """One task's trials, from the true error of each of its cells."""
    cells = [(NAIVE, naive)]
    cells += [(trained(epochs), value) for epochs, value in (amounts or {}).items()]
    cells += [(trained(proxy=proxy), value) for proxy, value in (proxies or {}).items()]
    cells += [(frozen(what), value) for what, value in (freezes or {}).items()]
    cells += [(pretrained(fraction), value) for fraction, value in (fractions or {}).items()]
    return [planned for levels, value in cells for planned in cell(task, levels, value, **more)]


def tables(folder, *parts, **more):
    return collected(folder, [planned for part in parts for planned in part], FACTORS, **more)


def runs(task, sign, amounts=(5, 10, 20, 40), spread=0.01, **more):
    """Trials whose OTDD falls with training while the error follows it, opposes it or does neither, with separate noise."""
    rng = np.random.default_rng(0)
    trials = []
    for i, epochs in enumerate(amounts):
        for seed in range(SEEDS):
            level = {"objective_last": 50.0 - 5 * i + rng.normal(0, 2), "dims": 2, **more}
            error = 0.3 - sign * 0.05 * i + rng.normal(0, spread)
            trials.append(trial({"task": task, **trained(epochs)}, seed, error, **level))
    return trials
