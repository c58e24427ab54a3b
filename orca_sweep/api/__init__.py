"""What the commands do, as Python: ``orca_sweep.Space`` gives a ``Plan``, a plan gives a ``Sweep``.

The command line is a thin layer over this room: it parses, prints, and chooses exit codes. Nothing here ends the process,
and nothing heavy is imported before it is needed.
"""
