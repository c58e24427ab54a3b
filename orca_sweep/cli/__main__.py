"""``python -m orca_sweep.cli``: the same as ``orca-sweep``."""

from orca_sweep.cli import main

main()
