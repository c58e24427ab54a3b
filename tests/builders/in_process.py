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
    text = io.StringIO()
    code = _run(main, words, text, text)
    return Ended(code=code, text=" ".join(text.getvalue().split()))


def _run(main, words, output, errors):
    """Runs a main function with these words, which writes to these streams, and returns its exit code."""
    before = sys.argv
    sys.argv = [str(main.__module__), *map(str, words)]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


@dataclass(frozen=True, kw_only=True)
class Done:
    """The outcome of a command, as that of ``tests.commands.orca``, which starts a process and costs ten times as much."""

    returncode: int
    stdout: str
    stderr: str


def run_here(*words, check=None, cwd=None):
    """Runs orca-sweep in this process, in the folder ``cwd`` if given; ``check`` is the expected exit code."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd or "."):
        code = _run(cli.main, words, output, errors)
    done = Done(returncode=code, stdout=output.getvalue(), stderr=errors.getvalue())
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert code == check, done.stdout + done.stderr
    return done


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
