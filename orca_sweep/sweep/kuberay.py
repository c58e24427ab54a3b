"""A sweep as a KubeRay RayJob: a manifest that brings its space along and mounts a shared volume for the results.

Fields are those of the API reference of KubeRay 1.5.1 and newer (ray.io/v1: RayJobSpec, RayClusterSpec, HeadGroupSpec,
WorkerGroupSpec, AuthOptions; https://docs.ray.io/en/master/cluster/kubernetes/references/api.html).
"""

import json
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from orca_sweep.errors import InputError
from orca_sweep.space import Plan
from orca_sweep.sweep.jobs import Launch, relative_paths
from orca_sweep.sweep.nodes import Node, node_for

SPACE_AT = "/orca-sweep"
"""Where the space and the files it imports are mounted."""
MOST_BYTES = 1_000_000
"""Kubernetes takes no ConfigMap above 1 MiB."""
HEAD = {"cpu": "2", "memory": "8Gi"}
MEMORY_PER_TRIAL_GI = 4
HEADER = """\
# A sweep as a KubeRay RayJob (KubeRay 1.5.1 or newer): kubectl apply -f THIS_FILE
# Before that:
#   - name your own ReadWriteMany claim instead of 'shared'; results go to {out}
#   - the image must hold orca-sweep and what the space needs{pip}
#   - set the memory; {place}
"""


def manifest(
    plan: Plan,
    launch: Launch,
    folder: Path,
    variables: Mapping[str, str],
    packages: list[str],
    image: str | None,
    n_nodes: int,
    trials_per_node: int | None,
) -> str:
    """Returns two YAML documents: a ConfigMap with the space and its imports, and the RayJob.

    Each file is mounted by itself (subPath): in a ConfigMap mounted whole, files are links to a folder that is
    called differently in every pod, and a worker would not find the head's imports.

    Raises:
        InputError: naming what the pods would not see.
    """
    root = "/" + Path(launch.out).parts[1] if len(Path(launch.out).parts) > 1 else "/"
    files = _files(plan, folder)
    problems = _unseen(plan, launch, root, files, folder)
    if problems:
        raise InputError(problems)
    name, node = _name(plan.space.name), node_for(plan.space.resources, trials_per_node)
    keys = {path: f"{i}-{re.sub(r'[^-._a-zA-Z0-9]', '_', path.name)}" for i, path in enumerate(files)}
    at = {path: f"{SPACE_AT}/{path.relative_to(folder)}" for path in files}
    texts = {keys[path]: path.read_text(encoding="utf-8") for path in files}
    if sum(map(len, texts.values())) > MOST_BYTES:
        raise InputError(f"{folder}: the space and its imports hold over a megabyte. Put the imports into the image.")
    mounts = [{"name": "space", "mountPath": at[path], "subPath": keys[path], "readOnly": True} for path in files]
    pod = _Pod(
        image or f"rayproject/ray:{version('ray')}",
        [{"name": "shared", "mountPath": root}, *mounts],
        [
            {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
            {"name": "space", "configMap": {"name": f"{name}-space"}},
        ],
    )
    there = Launch(at[plan.space.path], launch.out, launch.data, launch.store)
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-space"}, "data": texts},
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": name},
            "spec": {
                "entrypoint": shlex.join(there.command),
                **_runtime_env(variables, packages),
                "shutdownAfterJobFinishes": True,
                "backoffLimit": 0,
                "rayClusterSpec": _cluster(pod, node, n_nodes),
            },
        },
    ]
    head = HEADER.format(
        out=launch.out,
        pip="" if packages else " (rayproject/ray does not: give your own with --image, or --pip)",
        place=f"make sure that the pods come to nodes with {node.accelerator_type} (nodeSelector)"
        if node.accelerator_type
        else "add a nodeSelector if the trials want a special kind of node",
    )
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000)


class _Pod:
    """Pod templates that share image, mounts and volumes."""

    def __init__(self, image: str, mounts: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> None:
        self.image, self.mounts, self.volumes = image, mounts, volumes

    def template(self, container: str, amounts: Mapping[str, str]) -> dict[str, Any]:
        """Returns a PodTemplateSpec; requests equal limits, for Ray counts what the limits say."""
        one = {
            "name": container,
            "image": self.image,
            "resources": {"requests": dict(amounts), "limits": dict(amounts)},
            "volumeMounts": self.mounts,
        }
        return {"spec": {"containers": [one], "volumes": self.volumes}}


def _cluster(pod: _Pod, node: Node, n_nodes: int) -> dict[str, Any]:
    amounts = {"cpu": str(node.cpus), "memory": f"{MEMORY_PER_TRIAL_GI * node.n_trials}Gi"}
    if node.gpus:
        amounts["nvidia.com/gpu"] = str(node.gpus)
    # KubeRay writes the values into a shell command: the JSON needs quotes of its own.
    custom = {"resources": json.dumps(json.dumps(node.custom))} if node.custom else {}
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        # No trial comes to the head: it runs the launch.
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": pod.template("ray-head", HEAD)},
        "workerGroupSpecs": [
            {
                "groupName": "trials",
                "replicas": n_nodes,
                "minReplicas": n_nodes,
                "maxReplicas": n_nodes,
                "rayStartParams": custom,
                "template": pod.template("ray-worker", amounts),
            }
        ],
    }


def _runtime_env(variables: Mapping[str, str], packages: list[str]) -> dict[str, str]:
    env = {"env_vars": dict(variables), "pip": packages}
    env = {key: value for key, value in env.items() if value}
    return {"runtimeEnvYAML": yaml.safe_dump(env, sort_keys=False)} if env else {}


def _files(plan: Plan, folder: Path) -> list[Path]:
    return [plan.space.path, *(Path(name) for name in plan.space.imports if name.endswith(".py"))]


def _unseen(plan: Plan, launch: Launch, root: str, files: list[Path], folder: Path) -> list[str]:
    problems = [
        f"{path}: lies outside of {folder}. Give a folder that holds the space and its imports with --working-dir."
        for path in files
        if not path.is_relative_to(folder)
    ]
    problems += [
        f"{field} {path}: the pods do not see it. Name it by an absolute path below {root}, the shared volume."
        for field, path in relative_paths(plan.space)
    ]
    if root == "/":
        problems.append("--out /: no place for a volume. Give a folder such as /shared/results/NAME.")
    places = [("--data", launch.data), ("--store", launch.store)]
    problems += [
        f"{option} {place}: not below {root}, where --out and so the shared volume is. Put it there."
        for option, place in places
        if place is not None and "://" not in place and not Path(place).is_relative_to(root)
    ]
    return problems


def _name(space: str) -> str:
    """A name that services may have too: letters, digits and '-', a letter first, short enough for suffixes."""
    return f"orca-{re.sub('[^a-z0-9]+', '-', space.lower()).strip('-')[:35].strip('-')}"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases: people read and edit this."""

    def ignore_aliases(self, data: object) -> bool:
        """Writes everything out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
