"""What is checked before a sweep writes anything: the folder, the store, the cluster and what it can hold."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orca_sweep.errors import InputError
from orca_sweep.results import DamagedError, read_manifest
from orca_sweep.space import Plan, Resources
from orca_sweep.store import Store, writing


def check_folder(plan: Plan, out: Path) -> None:
    """Refuses a folder that holds another space's results, or anything that is no sweep.

    Raises:
        InputError: saying what the folder holds.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, not a folder. Give another folder with --out.")
    try:
        found = read_manifest(out)
    except DamagedError:
        # Trial ids are hashes of whole configs: a folder that has some of ours is ours, and keeps what has ended.
        if any((out / "trials" / trial.trial_id).is_dir() for trial in plan.trials):
            return
        raise
    if found is not None and found["name"] != plan.space.name:
        raise InputError(
            f"{out}: holds the results of the space {found['name']!r}, not of {plan.space.name!r}."
            " Give another folder with --out."
        )
    known = {one["cell_id"] for one in (*found["trials"], *found.get("tuned", ()))} if found else set()
    if known and not known & {cell.cell_id_without(plan.space.tune) for cell in plan.cells}:
        raise InputError(
            f"{out}: holds the results of a space of the same name that has no cell in common with this one."
            " Give another name, or another folder with --out."
        )
    others = [] if found or not out.exists() else [p.name for p in out.iterdir() if p.name != ".lock"]
    if others:
        raise InputError(f"{out}: not empty and no sweep ({', '.join(sorted(others)[:3])}). Give another with --out.")


def check_address(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would go on trying for minutes.

    Raises:
        InputError: naming the address.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # 'local' and 'auto' are Ray's to find
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error}). Give host:port.") from None


def check_store(root: str) -> None:
    """Refuses a store that no file system of fsspec can open.

    Raises:
        InputError: saying why.
    """
    try:
        Store(root)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(
            f"--store {root}: no place to keep artifacts ({error}). Give a folder or fsspec path."
        ) from None


def check_resources(resources: Resources) -> None:
    """Refuses resources that no node of the cluster has, instead of waiting for them for ever.

    Raises:
        InputError: naming what is asked for and what the largest node has.
    """
    need = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in need.items()) for node in nodes):
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in need}
    words = ", ".join(
        f"{name} {amount:g} (most on one node: {most[name]:g})" for name, amount in need.items() if amount
    )
    raise InputError(f"resources: no node can ever hold a trial that needs {words}. Lower 'resources' in the space.")


def check_shared(out: Path) -> None:
    """On several nodes, all must see the sweep folder: found out now, not after the first epoch."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = out / f".seen-by-all-{os.getpid()}"
    with writing(probe):
        probe.touch()
    try:
        asked = [(_sees.options(scheduling_strategy=_on(node)).remote(str(probe)), node) for node in nodes]
        blind = [node["NodeManagerAddress"] for answer, node in asked if not ray.get(answer)]
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise InputError(
            f"{out}: not visible on {', '.join(blind)}. Several nodes need a shared folder: give one with --out."
        )


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)


@ray.remote(num_cpus=0)
def _sees(path: str) -> bool:
    return Path(path).exists()
