"""A timed probe: runs a few epochs of trials whose cost is unknown, so that a plan can say what it will cost."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from orca_sweep.config import TrialConfig
from orca_sweep.errors import NO_VALUE, InputError, refuse_argument
from orca_sweep.planning.forecast import read_likeness
from orca_sweep.space import Plan
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_trial
from orca_sweep.trial import Records, unavailable_parts

EMBEDDER_EPOCHS = 2


def probe(plan: Plan, store: Store, data_root: Path, report: Callable[[str], None]) -> None:
    """Runs one short trial on this machine for each kind of trial in the plan (``read_likeness``).

    Their rows and artifacts (pre-trained bodies, proxy features) go into the store: forecasts read the rows, and the sweep
    reuses the artifacts.

    Raises:
        InputError: if data or packages are missing, the space asks for a GPU and there is none, or a probe fails.
    """
    records = Records()
    problems = unavailable_parts(map(records.resolve_config, plan.cells), data_root)
    if problems:
        raise InputError(problems)
    import torch

    from orca_sweep.training.worker import Worker

    resources = plan.space.resources
    if resources.gpu and not torch.cuda.is_available():
        rule = f"the space asks for resources.gpu {resources.gpu:g}, but this machine has no GPU."
        raise refuse_argument("probe", NO_VALUE, rule, "Probe on a machine that has one.")
    torch.set_num_threads(resources.n_threads)
    worker = Worker(store, resources.device, resources.n_threads)
    for config in _shorten_configs(plan):
        with tempfile.TemporaryDirectory(prefix="orca-sweep-probe-") as folder:
            context = RunContext(folder=Path(folder), worker=worker, data_root=data_root, imports=plan.space.imports)
            row = run_trial(records.resolve_config(config), context)
        if row["status"] != "ok":
            rule = f"{config.task} with {config.body.name} ended as {row['status']}: {row['error']}"
            raise refuse_argument("probe", NO_VALUE, rule)
        report(f"probed {config.task}, {config.body.name}, proxy {config.proxy}: {row['wall_time_s']:.1f} s")


def _shorten_configs(plan: Plan) -> Iterator[TrialConfig]:
    """One config for each likeness, cut to a few epochs, with a seed that no trial has: probes take no trial's work."""
    known = set()
    seed = max((*plan.space.seeds, *plan.space.aa, *plan.space.search.seeds), default=0) + 1
    for cell in plan.cells:
        if read_likeness(cell) not in known:
            known.add(read_likeness(cell))
            embedder = cell.embedder.model_copy(update={"epochs": min(EMBEDDER_EPOCHS, cell.embedder.epochs)})
            finetune = cell.finetune.model_copy(update={"epochs": 1, "freeze": "none", "freeze_epochs": 0})
            yield cell.model_copy(update={"embedder": embedder, "finetune": finetune, "seed": seed})
