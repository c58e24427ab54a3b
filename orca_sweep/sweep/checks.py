"""What is checked before a sweep writes anything: the folder, the store, the cluster and what it can hold."""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orca_sweep.data import missing_packages
from orca_sweep.errors import DamagedError, InputError, Problem
from orca_sweep.results import has_earlier_content
from orca_sweep.space import TYPE_PREFIX, Plan, Resources
from orca_sweep.space.manifest import read_manifest
from orca_sweep.store import Store, explain_write_errors

CLUSTER_PACKAGES = ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")
"""Some of what ray[default] brings and ray[tune] lacks."""


def check_folder(plan: Plan, out: Path) -> None:
    """Refuses a folder that holds another space's results, or anything that is no sweep.

    Raises:
        InputError: saying what the folder holds.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"{out}: a file or a link that leads nowhere, not a folder. Give another folder with --out.")
    try:
        manifest = read_manifest(out)
    except DamagedError:
        # Trial ids are hashes of whole configs: a folder that has some of ours is ours, and keeps what has ended.
        if any((out / "trials" / trial.trial_id).is_dir() for trial in plan.trials):
            return
        raise
    if manifest is not None and manifest.name != plan.space.name:
        raise InputError(
            f"{out}: holds the results of the space {manifest.name!r}, not of {plan.space.name!r}."
            " Give another folder with --out."
        )
    known = {trial["cell_id"] for trial in manifest.trials} if manifest else set()
    known |= {cell.cell_id for cell in manifest.tuned} if manifest else set()
    if known and not known & plan.by_cell_id.keys() and not has_earlier_content(out, plan):
        raise InputError(
            f"{out}: holds the results of a space of the same name that has no cell in common with this one."
            " Give another name, or another folder with --out."
        )
    others = [] if manifest or not out.exists() else [p.name for p in out.iterdir() if not _is_before_launch(p)]
    if others:
        raise InputError(f"{out}: not empty and no sweep ({', '.join(sorted(others)[:3])}). Give another with --out.")


def _is_before_launch(path: Path) -> bool:
    """Whether an earlier launch that was refused, or ``plan --probe``, leaves it in a folder that holds no sweep yet."""
    return (path.name == ".lock" and not path.stat().st_size) or (path.name == "store" and Store(str(path)).is_marked())


def check_address(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would go on trying for minutes.

    Raises:
        InputError: naming the address.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"--address {address}: a sweep's driver cannot run through Ray Client. Give HOST:PORT of the head's GCS (6379"
            " unless set), or send the sweep with 'orca-sweep submit'."
        )
    host, _, port = address.rpartition(":")
    if address in ("local", "auto"):
        return  # Ray's to find
    is_address = bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    problem = unreachable(host, port) if is_address else "no HOST:PORT"
    if problem:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({problem}). Give HOST:PORT of the head's"
            " GCS (6379 unless set), auto for the cluster that this machine is a node of, or leave it out for one of our own."
        )


def unreachable(host: str, port: str | int) -> str | None:
    """Returns why nobody can be talked to there, or None."""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None


def check_dashboard_host(host: str) -> None:
    """Refuses an address that this machine has not; Ray itself would try for a minute, then go on without.

    Raises:
        InputError: naming the address.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        raise InputError(
            f"--dashboard-host {host}: this machine cannot listen there ({error.strerror or error}). Give one of its own"
            " addresses; 127.0.0.1 is for this machine alone."
        ) from None


def has_dashboard() -> bool:
    """Whether what Ray's dashboard and Jobs need is installed: ray[default], our extra 'cluster'."""
    return not missing_packages("the dashboard", CLUSTER_PACKAGES, "cluster")


def check_store(root: str, out: Path) -> None:
    """Refuses a store that no file system of fsspec can open, a folder of something else, and one around the sweep.

    Raises:
        InputError: saying why.
    """
    if "://" not in root and out.is_relative_to(root):
        raise InputError(f"--store {root}: holds --out {out}. Give the store a folder of its own.")
    try:
        Store(root).check_root()
    except InputError as error:
        raise InputError(f"--store {error}") from None
    except (ValueError, ImportError, OSError) as error:
        raise InputError(
            f"--store {root}: no place to keep artifacts ({error}). Give a folder or fsspec path."
        ) from None


def bundle(resources: Resources) -> dict[str, float]:
    """Returns what one trial occupies, under Ray's names."""
    kind = resources.accelerator_type
    # Ray asks a node for its type by a thousandth of it, so that the type itself never runs out.
    type_of_gpu = {} if kind is None else {f"{TYPE_PREFIX}{kind}": 0.001}
    need = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom, **type_of_gpu}
    return {name: amount for name, amount in need.items() if amount}


def _holds(node: Mapping[str, float], need: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in need.items())


def check_resources(resources: Resources) -> None:
    """Refuses resources that no node of the cluster has, instead of waiting for them for ever.

    Raises:
        InputError: naming what is asked for, and what the largest node has or which types of accelerators there are.
    """
    need = bundle(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(_holds(node, need) for node in nodes):
        return
    kind, on_what = resources.accelerator_type, "one node"
    if kind is not None:
        types = {name.removeprefix(TYPE_PREFIX) for node in nodes for name in node if name.startswith(TYPE_PREFIX)}
        if kind not in types:
            known = f"It has: {', '.join(sorted(types))}" if types else "None of them says of what type its GPUs are"
            raise InputError(f"resources.accelerator_type: no node of the cluster has {kind!r}. {known}.")
        nodes, on_what = [node for node in nodes if f"{TYPE_PREFIX}{kind}" in node], f"one node with {kind}"
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in need}
    words = ", ".join(
        f"{name} {amount:g} (most on {on_what}: {most[name]:g})"
        for name, amount in need.items()
        if not name.startswith(TYPE_PREFIX)
    )
    raise InputError(f"resources: no node can ever hold a trial that needs {words}. Lower 'resources' in the space.")


def check_nodes(plan: Plan, out: Path, store: str, data_root: Path) -> None:
    """Asks every node that can hold a trial whether it sees the sweep folder and the store, and has packages and data.

    Found out now, not after the first epoch.

    Raises:
        InputError: with what each node lacks.
    """
    need = bundle(plan.space.resources)
    nodes = [node for node in ray.nodes() if node["Alive"] and _holds(node["Resources"], need)]
    apart = "://" not in store and not Path(store).is_relative_to(out)
    probes = {"--out": out, **({"--store": Path(store)} if apart else {})}
    asked = {flag: folder / f".seen-by-all-{uuid.uuid4().hex}" for flag, folder in probes.items()}
    configs = [cell.flat() for cell in plan.cells]
    try:
        if apart:
            Store(store).make_root()
        for probe in asked.values():
            with explain_write_errors(probe):
                probe.parent.mkdir(parents=True, exist_ok=True)
                probe.touch()
        paths = {flag: str(probe) for flag, probe in asked.items()}
        arguments = (paths, plan.space.imports, configs, str(data_root))
        answers = [
            (n["NodeManagerAddress"], _lacks.options(scheduling_strategy=_on(n)).remote(*arguments)) for n in nodes
        ]
        lacks = [(name, _wait_for(answer)) for name, answer in answers]
    finally:
        for probe in asked.values():
            probe.unlink(missing_ok=True)
    nodes_by_problem: dict[Problem, list[str]] = {}
    for name, problems in lacks:
        for problem in problems:
            nodes_by_problem.setdefault(problem, []).append(name)
    if nodes_by_problem:
        raise InputError([problem.at("", f"on {', '.join(names)}") for problem, names in nodes_by_problem.items()])


def _wait_for(answer: Any) -> Sequence[Problem]:
    try:
        problems: Sequence[Problem] = ray.get(answer)
        return problems
    except ray.exceptions.RayError as error:
        # Ray's error holds the traceback of the node; what happened there is its last line.
        last = str(error).strip().splitlines()[-1]
        remedy = "Install it as it is here: same version, same extras."
        return (Problem(rule=f"the program cannot run there ({last}).", remedy=remedy),)


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)


@ray.remote(num_cpus=0)
def _lacks(
    probes: Mapping[str, str], imports: Sequence[str], configs: Sequence[Mapping[str, Any]], data_root: str
) -> Sequence[Problem]:
    """What this node lacks for the trials."""
    from orca_sweep.config import TrialConfig
    from orca_sweep.trial import load_imports, resolve_configs, unavailable_parts

    problems: list[str | Problem] = [
        f"{flag} {Path(path).parent}: not visible. Mount one shared folder (NFS, Lustre or the like) at the same path on all"
        f" nodes and name it with {flag}{', or give a URL such as s3://bucket/store' if flag == '--store' else ''}."
        for flag, path in probes.items()
        if not Path(path).exists()
    ]
    try:
        load_imports(imports)
        lacks = unavailable_parts(resolve_configs(map(TrialConfig.from_flat, configs)), Path(data_root))
        return InputError([*problems, *lacks]).problems
    except InputError as error:
        return (*InputError(problems).problems, *error.problems)
