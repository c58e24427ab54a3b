"""The size of a node for the trials of a space, for clusters that are made for one sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from orca_sweep.space import Resources


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node needs to run ``n_trials`` at a time."""

    n_trials: int
    cpus: int
    gpus: int
    custom: Mapping[str, float]
    accelerator_type: str | None


def size_node(resources: Resources, n_trials: int | None = None) -> Node:
    """Returns the node for ``n_trials`` at a time; by default as many as share one GPU, else one."""
    n = n_trials or (int(1 / resources.gpu + 1e-9) if 0 < resources.gpu < 1 else 1)
    custom = {name: n * amount for name, amount in resources.custom.items()}
    return Node(
        n_trials=n,
        cpus=_round_up(n * resources.cpu),
        gpus=_round_up(n * resources.gpu),
        custom=custom,
        accelerator_type=resources.accelerator_type,
    )


def _round_up(amount: float) -> int:
    """Returns the next whole number, ignoring the rounding error of a product."""
    return ceil(amount - 1e-9)
