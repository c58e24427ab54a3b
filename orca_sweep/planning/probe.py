"""A timed probe: a few epochs of trials whose cost nothing tells yet, so that a plan can say what it will take."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from orca_sweep.config import TrialConfig
from orca_sweep.errors import InputError
from orca_sweep.planning.forecast import likeness
from orca_sweep.space import Plan
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_trial
from orca_sweep.trial import Records, unavailable_parts

EMBEDDER_EPOCHS = 2


def probe(plan: Plan, store: Store, data_root: Path, say: Callable[[str], None]) -> None:
    """Runs one short trial here for each task, body and proxy of the plan, into the store.

    What it makes there (pre-trained bodies, proxy features) the sweep finds again; its rows tell the cost.

    Raises:
        InputError: if data or packages are missing, a GPU is asked for and there is none, or a probe fails.
    """
    records = Records()
    problems = unavailable_parts(map(records.resolve_config, plan.cells), data_root)
    if problems:
        raise InputError(problems)
    import torch

    from orca_sweep.training.worker import Worker

    resources = plan.space.resources
    if resources.gpu and not torch.cuda.is_available():
        raise InputError(f"--probe: the space asks for gpu {resources.gpu:g}, and there is none here. Probe on a node.")
    torch.set_num_threads(resources.n_threads)
    worker = Worker(store, resources.device, resources.n_threads)
    for config in _short(plan):
        with tempfile.TemporaryDirectory(prefix="orca-sweep-probe-") as folder:
            context = RunContext(folder=Path(folder), worker=worker, data_root=data_root, imports=plan.space.imports)
            row = run_trial(records.resolve_config(config), context)
        if row["status"] != "ok":
            raise InputError(f"--probe: {config.task} with {config.body.name} ended as {row['status']}: {row['error']}")
        say(f"probed {config.task}, {config.body.name}, proxy {config.proxy}: {row['wall_time_s']:.1f} s")


def _short(plan: Plan) -> Iterator[TrialConfig]:
    """One config for each likeness, cut to a few epochs; seeds that no trial has, so that no one's artifact is taken."""
    seen = set()
    seed = max((*plan.space.seeds, *plan.space.aa, *plan.space.search.seeds), default=0) + 1
    for cell in plan.cells:
        if likeness(cell) not in seen:
            seen.add(likeness(cell))
            embedder = cell.embedder.model_copy(update={"epochs": min(EMBEDDER_EPOCHS, cell.embedder.epochs)})
            finetune = cell.finetune.model_copy(update={"epochs": 1, "freeze": "none", "freeze_epochs": 0})
            yield cell.model_copy(update={"embedder": embedder, "finetune": finetune, "seed": seed})
