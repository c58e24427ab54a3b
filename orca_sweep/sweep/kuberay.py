"""A sweep as a KubeRay RayJob: a manifest that includes its space and mounts a shared volume for the results.

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
from orca_sweep.sweep.jobs import Submission, list_relative_paths
from orca_sweep.sweep.nodes import Node, size_node
from orca_sweep.sweep.quoting import survives_two_shells
from orca_sweep.visible import has_controls

SPACE_AT = "/orca-sweep"
"""Where the space and the files it imports are mounted."""
HIDDEN = ("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys",
          "/tmp", "/usr", "/var")  # fmt: skip  # noqa: S108
MOST_BYTES = 1_000_000
"""Kubernetes refuses a ConfigMap above 1 MiB."""
HEAD = {"cpu": "2", "memory": "8Gi"}
MEMORY_PER_TRIAL_GI = 4
HEADER = """\
# A sweep as a KubeRay RayJob (KubeRay 1.5.1 or newer): kubectl apply -f THIS_FILE
# Before that:
#   - replace 'shared' by the name of your ReadWriteMany claim; results go to {out}
#   - use an image with orca-sweep and everything the space needs{pip}
#   - set the memory; {selector}
"""


def write_manifest(submission: Submission, image: str | None, n_nodes: int, trials_per_node: int | None) -> str:
    """Returns two YAML documents: a ConfigMap with the space and its imports, and the RayJob.

    Raises:
        InputError: with everything that the pods would not see or a shell would misread.
    """
    root = "/".join(Path(submission.out).parts[:2]).replace("//", "/")
    if root in HIDDEN:
        raise InputError(
            f"--out {submission.out}: a volume mounted at {root} would hide the image's own. Give a path below another root, such"
            f" as /shared/{Path(submission.out).name}."
        )
    problems = _find_unsafe_words(submission)
    if problems:
        raise InputError(problems)
    space = submission.plan.space
    files = [space.file, *(Path(name) for name in space.imports if name.endswith(".py"))]
    problems = _find_unseen_files(submission, root, files)
    if problems:
        raise InputError(problems)
    name, node = _make_name(space.name), size_node(space.resources, trials_per_node)
    keys = {path: f"{i}-{re.sub(r'[^-._a-zA-Z0-9]', '_', path.name)[-200:]}" for i, path in enumerate(files)}
    texts = {key: path.read_text(encoding="utf-8") for path, key in keys.items()}
    if sum(map(len, texts.values())) > MOST_BYTES:
        raise InputError(
            f"{submission.folder}: the space and its imports are larger than a megabyte. Put the imports into the image."
        )
    mounts = _mount_files(submission, root, keys)
    pod = _specify_pod(submission, image, f"{name}-space", mounts)
    job = {
        "entrypoint": submission.write_command(_mount_path(space.file, submission.folder)),
        **({"runtimeEnvYAML": yaml.safe_dump({"pip": list(submission.pip)})} if submission.pip else {}),
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
        "rayClusterSpec": _specify_cluster(pod, node, n_nodes),
    }
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-space"}, "data": texts},
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": job},
    ]
    kind = node.accelerator_type
    head = HEADER.format(
        out=submission.out,
        pip="" if submission.pip else " (rayproject/ray has neither: give --image or --pip)",
        selector=f"add a nodeSelector for nodes with {kind}" if kind else "add a nodeSelector if needed",
    )
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000)


def _mount_path(path: Path, folder: Path) -> str:
    return f"{SPACE_AT}/{path.relative_to(folder)}"


@dataclass(frozen=True, kw_only=True)
class _Pod:
    """What all pods of a cluster have in common."""

    image: str
    env: list[dict[str, str]]
    mounts: list[dict[str, Any]]
    volumes: list[dict[str, Any]]

    def make_template(self, container: str, amounts: Mapping[str, str]) -> dict[str, Any]:
        """Returns a PodTemplateSpec; requests equal limits, since Ray counts the limits."""
        spec = {
            "name": container,
            "image": self.image,
            "resources": {"requests": dict(amounts), "limits": dict(amounts)},
            **({"env": self.env} if self.env else {}),
            "volumeMounts": self.mounts,
        }
        return {"spec": {"containers": [spec], "volumes": self.volumes}}


def _mount_files(submission: Submission, root: str, keys: Mapping[Path, str]) -> list[dict[str, Any]]:
    """Returns the mounts of the shared volume and of each file of the ConfigMap, separately.

    If a ConfigMap is mounted as a whole, its files are links into a folder with another name in every pod, and a
    worker would not find what the head imports.
    """
    folder = submission.folder
    files = [
        {"name": "space", "mountPath": _mount_path(path, folder), "subPath": key, "readOnly": True}
        for path, key in keys.items()
    ]
    return [{"name": "shared", "mountPath": root}, *files]


def _specify_pod(submission: Submission, image: str | None, config_map: str, mounts: list[dict[str, Any]]) -> _Pod:
    volumes: list[dict[str, Any]] = [
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "space", "configMap": {"name": config_map}},
    ]
    image = image or f"rayproject/ray:{version('ray')}"
    # Not in a runtime environment: KubeRay puts that into a shell command, in quotes that let $ through. Kubernetes
    # itself interprets only $, and reads $$ as $.
    env = [{"name": name, "value": value.replace("$", "$$")} for name, value in submission.env.items()]
    return _Pod(image=image, env=env, mounts=mounts, volumes=volumes)


def _specify_cluster(pod: _Pod, node: Node, n_nodes: int) -> dict[str, Any]:
    amounts = {"cpu": str(node.cpus), "memory": f"{MEMORY_PER_TRIAL_GI * node.n_trials}Gi"}
    if node.gpus:
        amounts["nvidia.com/gpu"] = str(node.gpus)
    # KubeRay writes the values into a shell command, so the JSON needs another pair of quotes.
    custom = {"resources": json.dumps(json.dumps(node.custom))} if node.custom else {}
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        # The head runs the launch and no trials.
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": pod.make_template("ray-head", HEAD)},
        "workerGroupSpecs": [
            {
                "groupName": "trials",
                "replicas": n_nodes,
                "minReplicas": n_nodes,
                "maxReplicas": n_nodes,
                "rayStartParams": custom,
                "template": pod.make_template("ray-worker", amounts),
            }
        ],
    }


def _find_unsafe_words(submission: Submission) -> list[str]:
    """Returns problems with words that the shells between here and the job would misread."""
    files = [
        submission.plan.space.file,
        *(Path(name) for name in submission.plan.space.imports if name.endswith(".py")),
    ]
    sent = [str(path.relative_to(submission.folder)) for path in files if path.is_relative_to(submission.folder)]
    words = [
        ("--out", submission.out),
        ("--data", submission.data),
        ("--store", submission.store),
        *(("file", name) for name in sent),
    ]
    problems = [
        f"{option} {text!r}: KubeRay passes it through two shells. Only letters, digits, blanks and @ % + = : , . / _ -"
        " survive that: use these."
        for option, text in words
        if text is not None and not survives_two_shells(text)
    ]
    problems += [
        f"--pip {text!r}: KubeRay passes it through a shell that interprets $, ` and \\. Give a requirement without them."
        for text in submission.pip
        if set(text) & set("$`\\") or has_controls(text)
    ]
    return problems


def _find_unseen_files(submission: Submission, root: str, files: list[Path]) -> list[str]:
    problems = [
        f"{path}: is outside {submission.folder}. Give with --working-dir a folder that contains the space and its imports."
        for path in files
        if not path.is_relative_to(submission.folder)
    ]
    problems += [
        f"{field} {path}: the pods do not see it. Give an absolute path below {root}, the shared volume."
        for field, path in list_relative_paths(submission.plan.space)
    ]
    if root == "/":
        problems.append("--out /: cannot mount a volume there. Give a folder such as /shared/results/NAME.")
    problems += [
        f"{option} {path}: not below {root}, the shared volume that contains --out. Put it there."
        for option, path in (("--data", submission.data), ("--store", submission.store))
        if path is not None and "://" not in path and not Path(path).is_relative_to(root)
    ]
    return problems


def _make_name(space: str) -> str:
    """Returns a name that services may have too: letters, digits and '-', a letter first, short enough for suffixes."""
    return f"orca-{re.sub('[^a-z0-9]+', '-', space.lower()).strip('-')[:35].strip('-') or 'sweep'}"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no aliases, for people who read and edit the manifest."""

    def ignore_aliases(self, data: object) -> bool:
        """Returns True, so that everything is written out."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
