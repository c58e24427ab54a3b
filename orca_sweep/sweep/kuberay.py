"""A sweep as a KubeRay RayJob: a manifest that brings its space along and mounts a shared volume for the results.

Fields are those of the API reference of KubeRay 1.5.1 and newer (ray.io/v1: RayJobSpec, RayClusterSpec, HeadGroupSpec,
WorkerGroupSpec, AuthOptions; https://docs.ray.io/en/master/cluster/kubernetes/references/api.html).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from orca_sweep.errors import InputError
from orca_sweep.sweep.jobs import Submission, relative_paths
from orca_sweep.sweep.nodes import Node, node_for
from orca_sweep.sweep.quoting import survives_two_shells
from orca_sweep.visible import has_controls

SPACE_AT = "/orca-sweep"
"""Where the space and the files it imports are mounted."""
HIDDEN = ("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys",
          "/tmp", "/usr", "/var")  # fmt: skip  # noqa: S108
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


def manifest(what: Submission, image: str | None, n_nodes: int, trials_per_node: int | None) -> str:
    """Returns two YAML documents: a ConfigMap with the space and its imports, and the RayJob.

    Raises:
        InputError: naming what the pods would not see.
    """
    root = "/".join(Path(what.out).parts[:2]).replace("//", "/")
    if root in HIDDEN:
        raise InputError(
            f"--out {what.out}: a volume mounted at {root} would hide the image's own. Give a path below another root, such"
            f" as /shared/{Path(what.out).name}."
        )
    problems = _dangerous(what)
    if problems:
        raise InputError(problems)
    space = what.plan.space
    files = [space.path, *(Path(name) for name in space.imports if name.endswith(".py"))]
    problems = _unseen(what, root, files)
    if problems:
        raise InputError(problems)
    name, node = _name(space.name), node_for(space.resources, trials_per_node)
    keys = {path: f"{i}-{re.sub(r'[^-._a-zA-Z0-9]', '_', path.name)[-200:]}" for i, path in enumerate(files)}
    texts = {key: path.read_text(encoding="utf-8") for path, key in keys.items()}
    if sum(map(len, texts.values())) > MOST_BYTES:
        raise InputError(
            f"{what.folder}: the space and its imports hold over a megabyte. Put the imports into the image."
        )
    job = {
        "entrypoint": what.command(_at(space.path, what.folder)),
        **({"runtimeEnvYAML": yaml.safe_dump({"pip": list(what.pip)})} if what.pip else {}),
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
        "rayClusterSpec": _cluster(_pod(what, image, root, name, keys), node, n_nodes),
    }
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-space"}, "data": texts},
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": job},
    ]
    kind = node.accelerator_type
    head = HEADER.format(
        out=what.out,
        pip="" if what.pip else " (rayproject/ray does not: give your own with --image, or --pip)",
        place=f"see that the pods come to nodes with {kind} (nodeSelector)" if kind else "a nodeSelector if need be",
    )
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000)


def _at(path: Path, folder: Path) -> str:
    return f"{SPACE_AT}/{path.relative_to(folder)}"


@dataclass(frozen=True)
class _Pod:
    """What the pods of a cluster share."""

    image: str
    env: list[dict[str, str]]
    mounts: list[dict[str, Any]]
    volumes: list[dict[str, Any]]

    def template(self, container: str, amounts: Mapping[str, str]) -> dict[str, Any]:
        """Returns a PodTemplateSpec; requests equal limits, for Ray counts what the limits say."""
        one = {
            "name": container,
            "image": self.image,
            "resources": {"requests": dict(amounts), "limits": dict(amounts)},
            **({"env": self.env} if self.env else {}),
            "volumeMounts": self.mounts,
        }
        return {"spec": {"containers": [one], "volumes": self.volumes}}


def _pod(what: Submission, image: str | None, root: str, name: str, keys: Mapping[Path, str]) -> _Pod:
    """The shared volume, and each file of the ConfigMap mounted by itself.

    In a ConfigMap mounted whole, files are links into a folder that is called differently in every pod: a worker
    would not find what the head imports.
    """
    mounts = [
        {"name": "space", "mountPath": _at(path, what.folder), "subPath": key, "readOnly": True}
        for path, key in keys.items()
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "space", "configMap": {"name": f"{name}-space"}},
    ]
    image = image or f"rayproject/ray:{version('ray')}"
    # Not in a runtime environment: KubeRay puts that into a shell line between quotes that let $ through. Kubernetes
    # itself reads $ only, and $$ as one of them.
    env = [{"name": name, "value": value.replace("$", "$$")} for name, value in what.env.items()]
    return _Pod(image, env, [{"name": "shared", "mountPath": root}, *mounts], volumes)


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


def _dangerous(what: Submission) -> list[str]:
    """What shells between here and the job would read as something else than it says."""
    files = [what.plan.space.path, *(Path(name) for name in what.plan.space.imports if name.endswith(".py"))]
    sent = [str(path.relative_to(what.folder)) for path in files if path.is_relative_to(what.folder)]
    words = [("--out", what.out), ("--data", what.data), ("--store", what.store), *(("file", name) for name in sent)]
    problems = [
        f"{option} {text!r}: KubeRay hands it through two shells. Letters, digits, blanks and @ % + = : , . / _ - survive"
        " that: give it a name of these."
        for option, text in words
        if text is not None and not survives_two_shells(text)
    ]
    problems += [
        f"--pip {text!r}: KubeRay hands it through a shell that reads $, ` and \\. Give a requirement without them."
        for text in what.pip
        if set(text) & set("$`\\") or has_controls(text)
    ]
    return problems


def _unseen(what: Submission, root: str, files: list[Path]) -> list[str]:
    problems = [
        f"{path}: lies outside of {what.folder}. Give a folder that holds the space and its imports with --working-dir."
        for path in files
        if not path.is_relative_to(what.folder)
    ]
    problems += [
        f"{field} {path}: the pods do not see it. Name it by an absolute path below {root}, the shared volume."
        for field, path in relative_paths(what.plan.space)
    ]
    if root == "/":
        problems.append("--out /: no place for a volume. Give a folder such as /shared/results/NAME.")
    places = [("--data", what.data), ("--store", what.store)]
    problems += [
        f"{option} {place}: not below {root}, where --out and so the shared volume is. Put it there."
        for option, place in places
        if place is not None and "://" not in place and not Path(place).is_relative_to(root)
    ]
    return problems


def _name(space: str) -> str:
    """A name that services may have too: letters, digits and '-', a letter first, short enough for suffixes."""
    return f"orca-{re.sub('[^a-z0-9]+', '-', space.lower()).strip('-')[:35].strip('-') or 'sweep'}"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases: people read and edit this."""

    def ignore_aliases(self, data: object) -> bool:
        """Writes everything out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
