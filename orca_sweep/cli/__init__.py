"""The command line: one module for each command. Heavy imports stay inside the commands that need them."""

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from orca_sweep import __version__
from orca_sweep.cli import (
    analyse,
    bench,
    collect,
    data,
    documents,
    failures,
    job,
    launch,
    listing,
    plan,
    pretrain,
    replay,
    report,
    resume,
    reveal,
    status,
    store,
    submit,
)
from orca_sweep.cli.paths import refuse_zero_bytes
from orca_sweep.visible import escape_output

app = typer.Typer(
    help="Ablation sweeps of cross-modal fine-tuning with ORCA: from a YAML space to Parquet tables.\n\n"
    "Add --debug to any command to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Runs the command line. Exit code 0: done; 1: some trials failed or are unfinished; 2: wrong input."""
    is_debugging = "--debug" in sys.argv
    if is_debugging:
        sys.argv.remove("--debug")
    words = sys.argv[1:]
    command = documents.name_command(words, GROUPS) if documents.is_json_asked(words) else None
    with escape_output(), documents.reserve_stdout() if command else nullcontext():
        try:
            failures.refuse_broken_utf8(words)
            refuse_zero_bytes(words)
            # Otherwise typer itself would print wrong options: never as JSON, and in lines of any length.
            sys.exit(app(standalone_mode=False))
        except (Exception, SystemExit) as error:
            if is_debugging:
                raise
            failures.end_command(error, command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def read_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Reads the options that stand before the command."""


app.command()(plan.plan)
app.command()(launch.launch)
app.command()(resume.resume)
app.command()(status.status)
app.command()(collect.collect)
app.command()(report.report)
app.command()(reveal.reveal)
app.command()(replay.replay)
app.command("list")(listing.list_names)
app.command()(submit.submit)
app.command()(pretrain.pretrain)
app.command()(bench.bench)
app.add_typer(analyse.app, name="analyse")
app.add_typer(data.app, name="data")
app.add_typer(store.app, name="store")
app.add_typer(job.app, name="job")
GROUPS = frozenset(group.name for group in app.registered_groups if group.name)
"""Words that another word of the command follows."""
