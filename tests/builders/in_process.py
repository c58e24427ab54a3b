"""Runs the command line in this process, and takes snapshots of folders."""

import contextlib
import io
import sys
from dataclasses import dataclass

from orca_sweep import cli


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    text: str


def call(main, *words):
    """Runs a program's main function and returns its exit code and output; other exceptions fail the test."""
    text, before = io.StringIO(), sys.argv
    sys.argv = [str(main.__module__), *map(str, words)]
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return Ended(code=code, text=" ".join(text.getvalue().split()))


def orca(*words):
    return call(cli.main, *words)


def snapshot(folder):
    return {path: path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def command(monkeypatch, *words):
    """Runs the command line in this process and returns its exit code."""
    from orca_sweep.cli import main

    monkeypatch.setattr("sys.argv", ["orca-sweep", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
