"""Tasks of a user's own, and files as the benchmarks' publishers lay them out."""

import numpy as np

USER_TASKS = """
import numpy as np

from orca_sweep.data import Samples, Splits
from orca_sweep.tasks import TASKS, Task


def load(root, split_seed):
    rng = np.random.default_rng(split_seed)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 1, 8, 8)).astype("float32") + y[:, None, None, None]
    return Splits(Samples(x[:24], y[:24]), Samples(x[24:42], y[24:42]), Samples(x[42:], y[42:]))


def broken(root, split_seed):
    raise RuntimeError("this task cannot be loaded")


def task(name, load, **more):
    recipe = {"body.name": "swin-micro", "finetune.epochs": 2, "finetune.batch_size": 8, "embedder.epochs": 2,
              "finetune.lr": 1e-3, "embedder.proxy_samples": 40, "body.pretrain_fraction": 0}
    TASKS.add(Task(name=name, dims=2, sample_shape=(1, 8, 8), kind="classification", output_shape=(3,),
                   loss="cross-entropy", metric="error", load=load, meaning="test", source="here", licence="MIT",
                   recipe=recipe, **more))


task("tiny", load)
task("broken", broken)
"""

PARTS_ON_DISK = """
import numpy as np

from orca_sweep.data import Rows, Samples, Splits
from orca_sweep.tasks import TASKS, Task

BASE = np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype(np.float32)


def read(ids, rng):
    return BASE[ids] + (0 if rng is None else rng.normal(size=BASE[ids].shape).astype(np.float32))


def load(root, split_seed):
    y = np.arange(60) // 3 % 3
    parts = (np.arange(i, i + 30 - 15 * (i > 0)) for i in (0, 30, 45))
    return Splits(*(Samples(Rows(read=read, ids=ids, sample_shape=(1, 8, 8), digest="noisy"), y[ids], ids // 3) for ids in parts))


TASKS.add(Task(name="noisy-parts", dims=2, sample_shape=(1, 8, 8), kind="classification", output_shape=(3,),
               loss="cross-entropy", metric="error", load=load, meaning="test", source="here", licence="MIT",
               augments=True, recipe={"body.name": "swin-micro", "body.pretrain_fraction": 0,
                                      "finetune.batch_size": 4, "finetune.accumulation": 2}))
"""


def ninapro_files(root, n=(40, 5, 4)):
    (root / "ninaPro").mkdir()
    rng = np.random.default_rng(0)
    for part, count in zip(("train", "val", "test"), n, strict=True):
        np.save(root / f"ninaPro/ninapro_{part}.npy", rng.normal(size=(count, 52, 16)))
        np.save(root / f"ninaPro/label_{part}.npy", np.arange(count) % 18)
