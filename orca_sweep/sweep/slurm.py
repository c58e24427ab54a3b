"""A sweep as a Slurm batch script: Ray's own starter on every node of the allocation, the launch on the first.

``ray symmetric-run`` (Ray 2.49 and newer) starts Ray on all nodes, runs a command on the head and stops Ray again; see
https://docs.ray.io/en/latest/cluster/vms/user-guides/community/slurm.html. It ends every Ray of the user on the
node, so the job asks for exclusive nodes. It exits with 0 even if Ray did not start, so the script ends with the sweep's status.
"""

import json

from orca_sweep.errors import InputError
from orca_sweep.sweep.jobs import Submission
from orca_sweep.sweep.nodes import Node, size_node
from orca_sweep.sweep.quoting import quote_for_bash

PORT = 6379
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={n_nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
{gpus}#SBATCH --exclusive
#SBATCH --output=%x-%j.log
# Give --partition, --time and --account to sbatch as your cluster requires; options given there win.
# The job runs in the environment that it is submitted from. Submit it again to continue after it was cut off.
set -euo pipefail
cd {folder}
{exports}export RAY_AUTH_MODE=token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# A batch script runs on the first node of its allocation: this node becomes the head.
head=$(hostname --all-ip-addresses | cut -d ' ' -f 1)
srun --cpus-per-task={cpus} ray symmetric-run --address "$head:{port}" --min-nodes "$SLURM_JOB_NUM_NODES" \\
  {start} \\
  -- {command}
python -m orca_sweep.cli status --check {out}
"""


def write_script(submission: Submission, n_nodes: int, trials_per_node: int | None) -> str:
    """Returns the script. All nodes must see the space's folder, the results and the environment.

    Raises:
        InputError: if packages are to be installed.
    """
    if submission.pip:
        raise InputError("--pip: a Slurm job runs in the environment it is submitted from. Install the packages there.")
    node = size_node(submission.plan.space.resources, trials_per_node)
    return SCRIPT.format(
        name=submission.plan.space.name,
        n_nodes=n_nodes,
        cpus=node.cpus,
        gpus=_write_gpus(node),
        folder=quote_for_bash(str(submission.folder)),
        exports="".join(f"export {name}={quote_for_bash(value)}\n" for name, value in submission.env.items()),
        port=PORT,
        start=" ".join(map(quote_for_bash, _list_start_options(node))),
        command=" ".join(map(quote_for_bash, submission.list_arguments(str(submission.plan.space.file)))),
        out=quote_for_bash(submission.out),
    )


def _write_gpus(node: Node) -> str:
    if not node.gpus:
        return ""
    # The administrator chooses the names of GPU types; lower case is the convention.
    kind = f"{node.accelerator_type.lower()}:" if node.accelerator_type else ""
    return f"#SBATCH --gpus-per-node={kind}{node.gpus}\n"


def _list_start_options(node: Node) -> list[str]:
    """Returns options of ``ray start``: without them Ray counts what the node has, not what the job was given."""
    custom = [f"--resources={json.dumps(node.custom)}"] if node.custom else []
    return [f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}", *custom]
