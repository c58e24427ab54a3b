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


for _command, _name in (
    (plan.plan, "plan"), (launch.launch, "launch"), (resume.resume, "resume"), (status.status, "status"),
    (collect.collect, "collect"), (report.report, "report"), (reveal.reveal, "reveal"), (replay.replay, "replay"),
    (listing.list_names, "list"), (submit.submit, "submit"), (pretrain.pretrain, "pretrain"), (bench.bench, "bench"),
):  # fmt: skip
    # On a narrow terminal, the list of commands would cut a line that is not given as a short help.
    app.command(_name, short_help=(_command.__doc__ or "").partition("\n")[0])(_command)
for _group, _name in ((analyse.app, "analyse"), (data.app, "data"), (store.app, "store"), (job.app, "job")):
    app.add_typer(_group, name=_name, short_help=str(_group.info.help).partition("\n")[0])
GROUPS = frozenset(group.name for group in app.registered_groups if group.name)
"""Words that another word of the command follows."""
