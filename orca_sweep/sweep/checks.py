"""Checks before a sweep writes anything: the folder, the store, the cluster and its resources."""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orca_sweep.data import missing_packages
from orca_sweep.errors import NO_VALUE, DamagedError, InputError, Problem, refuse_argument
from orca_sweep.results import has_earlier_content
from orca_sweep.space import TYPE_PREFIX, Plan, Resources
from orca_sweep.space.manifest import read_manifest
from orca_sweep.store import Store, explain_write_errors

RUNNING = "running"
"""Stands for the address of the Ray that already runs in this process."""
CLUSTER_PACKAGES = ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")
"""Some packages of ray[default] that ray[tune] does not install."""


def check_folder(plan: Plan, out: Path) -> None:
    """Refuses a folder that holds another space's results, or anything else than a sweep.

    Raises:
        InputError: with what the folder holds.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise refuse_argument("out", out, "a file or a broken link, not a folder.", "Choose another folder.")
    try:
        manifest = read_manifest(out)
    except DamagedError:
        # Trial ids are hashes of whole configs: a folder with some of the plan's trials belongs to it.
        if any((out / "trials" / trial.trial_id).is_dir() for trial in plan.trials):
            return
        raise
    if manifest is not None and manifest.name != plan.space.name:
        rule = f"holds the results of the space {manifest.name!r}, not of {plan.space.name!r}."
        raise refuse_argument("out", out, rule, "Choose another folder.")
    known = {trial["cell_id"] for trial in manifest.trials} if manifest else set()
    known |= {cell.cell_id for cell in manifest.tuned} if manifest else set()
    if known and not known & plan.by_cell_id.keys() and not has_earlier_content(out, plan):
        rule = "holds the results of a space of the same name that has no cell in common with this one."
        raise refuse_argument("out", out, rule, "Choose another folder, or another name for the space.")
    foreign = [] if manifest or not out.exists() else [p.name for p in out.iterdir() if not _is_before_launch(p)]
    if foreign:
        names = ", ".join(sorted(foreign)[:3])
        raise refuse_argument("out", out, f"not empty and not a sweep ({names}).", "Choose another folder.")


def _is_before_launch(path: Path) -> bool:
    """Whether a refused launch or ``plan --probe`` leaves this path in a folder that is not a sweep yet."""
    return (path.name == ".lock" and not path.stat().st_size) or (path.name == "store" and Store(str(path)).is_marked())


def choose_running_ray(asked: str | None) -> str:
    """Returns the address that stands for the Ray of this process.

    Raises:
        InputError: if another address is asked for, or Ray is joined in a way that cannot run a sweep.
    """
    if ray.util.client.ray.is_connected():
        raise InputError(
            "Ray Client is connected in this process, and a sweep cannot run through it. Call ray.shutdown()."
        )
    here = ray.get_runtime_context().gcs_address
    if asked not in (None, "auto", here):
        remedy = "Leave the address out, or call ray.shutdown() first."
        raise refuse_argument("address", asked, f"this process already uses the Ray at {here}.", remedy)
    return RUNNING


def check_address(address: str) -> None:
    """Refuses an address at which nothing listens; Ray itself would try for minutes.

    Raises:
        InputError: with the address.
    """
    if address.startswith("ray://"):
        remedy = "Give HOST:PORT of the head's GCS (port 6379 by default), or send the sweep with 'orca-sweep submit'."
        raise refuse_argument("address", address, "a sweep cannot run through Ray Client.", remedy)
    host, _, port = address.rpartition(":")
    if address in ("local", "auto", RUNNING):
        return  # Ray finds it
    is_address = bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    problem = explain_unreachable(host, port) if is_address else "not HOST:PORT"
    if problem:
        remedy = (
            "Give HOST:PORT of the head's GCS (port 6379 by default), 'auto' for the cluster of this machine, or leave it out"
            " to start a local Ray."
        )
        raise refuse_argument("address", address, f"no Ray cluster answers there ({problem}).", remedy)


def explain_unreachable(host: str, port: str | int) -> str | None:
    """Returns why no connection to a host's port is possible, or None."""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None


def check_dashboard_host(host: str) -> None:
    """Refuses an address that this machine does not have; Ray would try for a minute, then start without a dashboard.

    Raises:
        InputError: with the address.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        rule = f"this machine cannot listen there ({error.strerror or error})."
        remedy = "Give one of its addresses; 127.0.0.1 lets only this machine connect."
        raise refuse_argument("dashboard_host", host, rule, remedy) from None


def has_dashboard() -> bool:
    """Whether the packages of Ray's dashboard and Jobs are installed: ray[default], from the extra 'cluster'."""
    return not missing_packages("the dashboard", CLUSTER_PACKAGES, "cluster")


def check_store(root: str, out: Path) -> None:
    """Refuses a store that fsspec cannot open, a folder of something else, and a folder that contains the sweep.

    Raises:
        InputError: with the reason.
    """
    if "://" not in root and out.is_relative_to(root):
        raise refuse_argument("store", root, f"contains the sweep folder {out}.", "Give the store a separate folder.")
    try:
        Store(root).check_root()
    except InputError as error:
        raise refuse_argument("store", NO_VALUE, str(error)) from None
    except (ValueError, ImportError, OSError) as error:
        remedy = "Give a folder or fsspec path."
        raise refuse_argument("store", root, f"cannot store artifacts ({error}).", remedy) from None


def make_bundle(resources: Resources) -> dict[str, float]:
    """Returns the resources of one trial, under Ray's names."""
    kind = resources.accelerator_type
    # Ray requests a node of a type by a thousandth of that type, so that the type itself never runs out.
    type_of_gpu = {} if kind is None else {f"{TYPE_PREFIX}{kind}": 0.001}
    need = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom, **type_of_gpu}
    return {name: amount for name, amount in need.items() if amount}


def _can_hold(node: Mapping[str, float], need: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in need.items())


def check_resources(resources: Resources) -> None:
    """Refuses resources that no node of the cluster has; Ray would wait for them for ever.

    Raises:
        InputError: with the request, and the most that one node has or the accelerator types of the cluster.
    """
    need = make_bundle(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(_can_hold(node, need) for node in nodes):
        return
    kind, node_kind = resources.accelerator_type, "one node"
    if kind is not None:
        types = {name.removeprefix(TYPE_PREFIX) for node in nodes for name in node if name.startswith(TYPE_PREFIX)}
        if kind not in types:
            known = f"It has: {', '.join(sorted(types))}" if types else "No node gives the type of its GPUs"
            raise InputError(f"resources.accelerator_type: no node of the cluster has {kind!r}. {known}.")
        nodes, node_kind = [node for node in nodes if f"{TYPE_PREFIX}{kind}" in node], f"one node with {kind}"
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in need}
    request = ", ".join(
        f"{name} {amount:g} (most on {node_kind}: {most[name]:g})"
        for name, amount in need.items()
        if not name.startswith(TYPE_PREFIX)
    )
    raise InputError(f"resources: no node can ever hold a trial that needs {request}. Lower 'resources' in the space.")


def check_nodes(plan: Plan, out: Path, store: str, data_root: Path) -> frozenset[str]:
    """Checks that every node that can hold a trial has packages and data.

    Returns the nodes that do not see the sweep folder or the store, or may not write there.

    Raises:
        InputError: with what each node lacks.
    """
    need = make_bundle(plan.space.resources)
    nodes = [node for node in ray.nodes() if node["Alive"] and _can_hold(node["Resources"], need)]
    is_separate_folder = "://" not in store and not Path(store).is_relative_to(out)
    folders = [out, *([Path(store)] if is_separate_folder else [])]
    probes = [folder / f".seen-by-all-{uuid.uuid4().hex}" for folder in folders]
    configs = [cell.flat() for cell in plan.cells]
    try:
        if is_separate_folder:
            Store(store).make_root()
        for probe in probes:
            with explain_write_errors(probe):
                probe.parent.mkdir(parents=True, exist_ok=True)
                probe.touch()
        arguments = (list(map(str, probes)), plan.space.imports, configs, str(data_root))
        asked = [
            (n["NodeManagerAddress"], _ask_node.options(scheduling_strategy=_on_node(n)).remote(*arguments))
            for n in nodes
        ]
        answers = [(name, answer) for name, reply in asked if (answer := _wait_for_answer(reply)) is not None]
    finally:
        for probe in probes:
            probe.unlink(missing_ok=True)
    if not answers:
        raise InputError("the nodes that can hold a trial have left the cluster. Launch again once one is back.")
    nodes_by_problem: dict[Problem, list[str]] = {}
    for name, answer in answers:
        for problem in answer.problems:
            nodes_by_problem.setdefault(problem, []).append(name)
    if nodes_by_problem:
        raise InputError([problem.at("", f"on {', '.join(names)}") for problem, names in nodes_by_problem.items()])
    return frozenset(name for name, answer in answers if not answer.sees_folders)


@dataclass(frozen=True, kw_only=True)
class _NodeAnswer:
    """What a node says before the first trial."""

    problems: Sequence[Problem] = ()
    sees_folders: bool = True


def _wait_for_answer(reply: Any) -> _NodeAnswer | None:
    """Returns what a node says; None if it has left the cluster, which nobody may have noticed when it was asked."""
    try:
        answer: _NodeAnswer = ray.get(reply)
        return answer
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return None
    except ray.exceptions.RayError as error:
        # Ray's error holds the node's traceback; its last line says what happened.
        last = str(error).strip().splitlines()[-1]
        remedy = "Install the same version with the same extras as here."
        return _NodeAnswer(problems=(Problem(rule=f"the program cannot run there ({last}).", remedy=remedy),))


def _on_node(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)


@ray.remote(num_cpus=0)
def _ask_node(
    probes: Sequence[str], imports: Sequence[str], configs: Sequence[Mapping[str, Any]], data_root: str
) -> _NodeAnswer:
    """Returns what this node lacks for the trials, and whether it sees the folders."""
    from orca_sweep.config import TrialConfig
    from orca_sweep.trial import load_imports, resolve_configs, unavailable_parts

    sees_folders = all(os.path.exists(path) and os.access(os.path.dirname(path), os.W_OK) for path in probes)
    try:
        load_imports(imports)
        missing = unavailable_parts(resolve_configs(map(TrialConfig.from_flat, configs)), Path(data_root))
    except InputError as error:
        return _NodeAnswer(problems=error.problems)
    problems = InputError(missing).problems if missing else ()
    return _NodeAnswer(problems=problems, sees_folders=sees_folders)
