"""Runs a command on a terminal of a size, as a person sees it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z]|\r")


def run_on_terminal(*words, columns=80, rows=24, cwd=None, env=None):
    """Runs orca-sweep on a terminal and returns its exit code and the lines that it printed, without colours."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {**os.environ, **(env or {}), "TERM": "xterm"}
    env.pop("COLUMNS", None)
    command = [sys.executable, "-m", "orca_sweep.cli", *map(str, words)]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd, env=env)
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(screen)
    text = CONTROLS.sub("", b"".join(parts).decode())
    return process.wait(), text.split("\n")
