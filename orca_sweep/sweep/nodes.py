"""How large a node has to be for the trials of a space: for clusters that are made for one sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from orca_sweep.space import Resources


@dataclass(frozen=True)
class Node:
    """What a node needs that runs some trials side by side."""

    n_trials: int
    cpus: int
    gpus: int
    custom: Mapping[str, float]
    accelerator_type: str | None


def node_for(resources: Resources, n_trials: int | None = None) -> Node:
    """Returns the node for so many trials side by side; by default as many as share one GPU, else one."""
    n = n_trials or (int(1 / resources.gpu + 1e-9) if 0 < resources.gpu < 1 else 1)
    custom = {name: n * amount for name, amount in resources.custom.items()}
    return Node(n, _whole(n * resources.cpu), _whole(n * resources.gpu), custom, resources.accelerator_type)


def _whole(amount: float) -> int:
    """Up to the next whole one, rounding errors of a sum forgiven."""
    return ceil(amount - 1e-9)
